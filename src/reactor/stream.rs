//! One connection: what it remembers, what may be done with it, and the doing. Touches its socket through `Common` only.
//!
//! The handlers (`work`, `flush`, `judge`) only do what the state allows; what follows from the new state is computed
//! in one place, `settle`.

mod output;

use super::notices::Kind;
use super::slot::Head;
use super::stop::Stop;
use super::{Common, Todo};
use crate::buffer::{Buffers, Queue};
use crate::close::Close;
use crate::limits::SlowReader;
use crate::net::Net;
use crate::protocol::{Context, Effect, Protocol};
use crate::room::Seat;
use crate::slots::Id;
use crate::time::Moment;
use log::Level;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;

/// How far a connection has come. It only ever goes down this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Begun by us and not come about: neither read nor written. Its deadline is how long that may take.
    Dialing,
    /// Input goes to the machine.
    Open,
    /// The machine has said its last; what is owed is written, input is thrown away.
    Closing(Close),
    /// Our end is said; input is thrown away until the peer's end, or for a bounded while.
    Lingering(Close),
    /// Stands on the list for REAP.
    Dead(Close),
}

/// What a due deadline means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Idle,
    Stalled,
    Expired,
    LingeredEnough,
    Unanswered,
}

/// As what a connection was let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// One of those that count against the limit.
    Served,
    /// Over the limit, but it may ask how the server is.
    Spare,
    /// Over the limit: told so.
    Refused,
    /// Our own: limits on connections are for those who come.
    Dialed,
    /// There from the beginning, such as a console: nor is it idle when its user thinks.
    Adopted,
}

/// What only the log wants to know; taken down only while it listens to connections.
#[derive(Debug)]
struct Story {
    peer: SocketAddr,
    opened: Moment,
    bytes_in: u64,
    bytes_out: u64,
}

/// One connection.
pub(crate) struct Stream<S> {
    pub(crate) head: Head,
    pub(crate) socket: S,
    pub(crate) service: u8,
    pub(crate) admission: Admission,
    phase: Phase,
    /// The peer has said its last byte.
    ended: bool,
    /// Not read when last settled, for our reasons: its deadlines are not judged.
    paused: bool,
    /// Was slower than us at least once, so that much may lie in the kernel when the outbox is empty.
    pressed: bool,
    /// Its machine is at something long.
    busy: bool,
    /// The machine has been told of the peer's end.
    end_told: bool,
    /// The machine wants our end said, and it has been.
    ending: bool,
    end_said: bool,
    machine: Box<dyn Protocol>,
    /// `None` while nothing is unfinished.
    buffers: Option<Box<Buffers>>,
    story: Option<Box<Story>>,
    /// Its place in a room.
    seat: Option<Seat>,
    /// When a byte last came, or when we began to read again; while we do not, when we stopped.
    heard: Moment,
    /// The machine's deadline; once lingering, the end of that.
    deadline: Option<Moment>,
}

impl<S> Stream<S> {
    pub(crate) fn new<N: Net<Stream = S>>(
        socket: S,
        service: u8,
        admission: Admission,
        machine: Box<dyn Protocol>,
        peer: SocketAddr,
        common: &Common<N>,
    ) -> Stream<S> {
        let story = Story { peer, opened: common.now, bytes_in: 0, bytes_out: 0 };
        let mut head = Head::default();
        head.ready.writable = true; // a new socket has an empty send buffer
        Stream {
            head,
            socket,
            service,
            admission,
            phase: Phase::Open,
            ended: false,
            paused: false,
            pressed: false,
            busy: false,
            end_told: false,
            ending: false,
            end_said: false,
            machine,
            buffers: None,
            story: log::log_enabled!(Level::Debug).then(|| Box::new(story)),
            seat: None,
            heard: common.now,
            deadline: None,
        }
    }

    /// One that `socket` has only begun.
    pub(crate) fn dialing<N: Net<Stream = S>>(
        socket: S,
        service: u8,
        machine: Box<dyn Protocol>,
        peer: SocketAddr,
        common: &Common<N>,
    ) -> Stream<S> {
        let mut stream = Stream::new(socket, service, Admission::Dialed, machine, peer, common);
        stream.head.ready.writable = false; // that edge says that it is decided
        stream.phase = Phase::Dialing;
        stream.deadline = Some(common.now + common.limits.connect_timeout);
        stream
    }

    /// Its machine, when nothing has come of it.
    pub(crate) fn into_machine(self) -> Box<dyn Protocol> {
        self.machine
    }

    // What may be done: computed from the state, never stored.

    fn owed(&self) -> usize {
        self.buffers.as_ref().map_or(0, |buffers| buffers.outbox.len())
    }

    fn inbox(&mut self) -> &mut Queue {
        &mut self.buffers.as_mut().expect("the machine has just been told something, with buffers").inbox
    }

    fn holds_input(&self) -> bool {
        self.buffers.as_ref().is_some_and(|buffers| buffers.held)
    }

    /// Whether its outbox keeps it from being read, or the machine from being fed.
    fn is_choked<N: Net<Stream = S>>(&self, common: &Common<N>) -> bool {
        self.buffers.as_ref().is_some_and(|buffers| {
            (buffers.choked || buffers.outbox.len() >= common.high_bytes())
                && (self.machine.answers() || buffers.outbox.len() >= 4 * common.high_bytes())
        })
    }

    /// Whether what it says has to wait for others in its room.
    fn must_wait<N: Net<Stream = S>>(&self, common: &mut Common<N>) -> bool {
        self.seat.is_some_and(|seat| common.rooms.must_wait(seat, &common.limits))
    }

    /// Whether the machine should have what it left for lack of room.
    fn may_feed<N: Net<Stream = S>>(&self, common: &mut Common<N>) -> bool {
        self.holds_input() && !self.busy && !self.is_choked(common) && !self.must_wait(common)
    }

    /// Whether a stop has come so far that it ends.
    fn is_stopped<N: Net<Stream = S>>(&self, common: &Common<N>) -> bool {
        match common.stop {
            Stop::None | Stop::Draining => false,
            Stop::Stopping => !self.machine.outlasts(),
            Stop::Ending => true,
        }
    }

    /// Whether others need not wait for its end in a stop.
    pub(crate) fn outlasts(&self) -> bool {
        self.machine.outlasts()
    }

    /// Whether it came from elsewhere, and a stop should have heard it out.
    pub(crate) fn is_guest(&self) -> bool {
        !self.outlasts() && !matches!(self.admission, Admission::Dialed | Admission::Adopted)
    }

    /// Whether its input is wanted now.
    #[inline]
    fn may_read<N: Net<Stream = S>>(&self, common: &Common<N>) -> bool {
        match self.phase {
            Phase::Open => {
                let memory_waits = common.is_lean() && self.owed() > 0;
                !self.ended
                    && !self.is_stopped(common)
                    && !self.holds_input()
                    && !self.busy
                    && !self.is_choked(common)
                    && !memory_waits
            }
            Phase::Closing(_) | Phase::Lingering(_) => !self.ended,
            Phase::Dialing | Phase::Dead(_) => false,
        }
    }

    /// Whether the outbox holds something and the kernel may take it.
    fn may_write(&self) -> bool {
        self.owed() > 0 && self.head.ready.writable && !self.is_dead()
    }

    /// Whether the room's log holds something for it, and the kernel may take more.
    fn follows<N: Net<Stream = S>>(&self, common: &Common<N>) -> bool {
        self.seat.is_some_and(|seat| common.rooms.is_pending(seat)) && self.head.ready.writable && !self.is_dead()
    }

    /// The same, after what is in the outbox.
    fn may_follow<N: Net<Stream = S>>(&self, common: &Common<N>) -> bool {
        self.owed() == 0 && self.follows(common)
    }

    /// Whether it is worth asking if it has come about.
    fn may_ask(&self) -> bool {
        self.phase == Phase::Dialing && self.head.ready.writable
    }

    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.phase, Phase::Dead(_))
    }

    /// The soonest deadline, and what it means. While we do not read a peer, only the write timeout judges it.
    pub(crate) fn due<N: Net<Stream = S>>(&self, common: &Common<N>) -> Option<(Moment, Verdict)> {
        let limits = &common.limits;
        // A peer that can be written to is not stalled, whatever the clock says: it has not been asked yet.
        let stalled = || match &self.buffers {
            Some(buffers) if !buffers.outbox.is_empty() && !self.head.ready.writable => {
                Some((buffers.progress + limits.write_timeout, Verdict::Stalled))
            }
            _ => None,
        };
        // Under `block` a member that holds up a room is given the write timeout in all, progress or not; but it is not judged
        // either while it can be written to.
        let holds_up = || match self.seat {
            Some(seat) if limits.slow_reader == SlowReader::Block && !self.head.ready.writable => {
                Some((common.rooms.behind_since(seat)? + limits.write_timeout, Verdict::Stalled))
            }
            _ => None,
        };
        // Nor is a peer idle that can be read: it has not been heard out yet. Members of a room may just listen.
        let idle = || {
            let is_exempt = self.seat.is_some() || self.busy || self.admission == Admission::Adopted;
            let timeout = limits.idle_timeout.filter(|_| !self.head.ready.readable && !is_exempt)?;
            Some((self.heard + timeout, Verdict::Idle))
        };
        let expired = || self.deadline.map(|at| (at, Verdict::Expired));
        let sooner = |one: Option<(Moment, Verdict)>, other: Option<(Moment, Verdict)>| match (one, other) {
            (Some(one), Some(other)) => Some(if other.0 < one.0 { other } else { one }),
            (one, other) => one.or(other),
        };
        match self.phase {
            Phase::Dialing => self.deadline.map(|at| (at, Verdict::Unanswered)),
            Phase::Open if self.paused => sooner(stalled(), holds_up()),
            Phase::Open => sooner(sooner(stalled(), holds_up()), sooner(expired(), idle())),
            Phase::Closing(_) => stalled(),
            Phase::Lingering(_) => sooner(
                self.deadline.map(|at| (at, Verdict::LingeredEnough)),
                // Silence means that it has read everything, unless it is slow: then it may still be at that.
                (!self.pressed).then_some((self.heard + limits.linger_quiet, Verdict::LingeredEnough)),
            ),
            Phase::Dead(_) => None,
        }
    }

    // The doing.

    /// Tells the machine that it is there.
    pub(crate) fn open<N: Net<Stream = S>>(&mut self, id: Id, peer: SocketAddr, common: &mut Common<N>) {
        log::debug!("{} {id} opened from {peer}", common.name_of(self.service));
        if self.admission == Admission::Refused {
            self.begin_close(id, Close::Full, common);
        } else {
            self.tell(id, common, |machine, context| machine.opened(context, peer));
        }
    }

    /// WORK: input within the budget to the machine, and its answer at once, if nothing waits before it.
    pub(crate) fn work<N: Net<Stream = S>>(&mut self, id: Id, common: &mut Common<N>) {
        let waited = self.owed() > 0;
        if self.may_ask() {
            self.ask(id, common);
        }
        if self.may_feed(common) {
            self.catch_up(common.now); // what the machine hears now may move its deadline
            self.feed(id, &[], common);
        }
        let mut scratch = std::mem::take(&mut common.scratch);
        let mut budget = common.read_budget_bytes();
        while budget > 0 && self.head.ready.readable && self.may_read(common) {
            match common.net.read(&mut self.socket, &mut scratch[..budget], self.head.ready.read_on) {
                Ok(read) if read.count == 0 => self.ended = true,
                Ok(read) => {
                    self.head.ready.readable = !read.drained;
                    budget -= read.count;
                    self.received(id, &scratch[..read.count], common);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.head.ready.readable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => break, // still readable: carried over
                Err(error) => self.fail(id, &error, common),
            }
        }
        common.scratch = scratch;
        if !waited {
            self.write(id, common);
        }
    }

    /// Asks whether what we dialed has come about.
    fn ask<N: Net<Stream = S>>(&mut self, id: Id, common: &mut Common<N>) {
        match common.net.connected(&mut self.socket) {
            Ok(Some(peer)) => {
                // From here on it is like any other, and its time begins.
                (self.phase, self.deadline) = (Phase::Open, None);
                (self.heard, self.paused) = (common.now, false);
                self.open(id, peer, common);
            }
            Ok(None) => self.head.ready.writable = false,
            Err(error) if error.kind() == ErrorKind::Interrupted => (), // carried over
            Err(error) => self.fail(id, &error, common),
        }
    }

    /// What another machine asks it to look at.
    pub(crate) fn wake<N: Net<Stream = S>>(&mut self, id: Id, common: &mut Common<N>) {
        if self.phase == Phase::Open {
            self.tell(id, common, |machine, context| machine.woken(context));
        }
    }

    /// TIME: applies the verdict of a deadline that is due.
    pub(crate) fn judge<N: Net<Stream = S>>(&mut self, id: Id, verdict: Verdict, common: &mut Common<N>) {
        match verdict {
            Verdict::Idle => self.begin_close(id, Close::Idle, common),
            Verdict::Expired => {
                self.deadline = None;
                common.metrics.expired += 1;
                self.tell(id, common, |machine, context| machine.expired(context));
            }
            Verdict::Unanswered => {
                let text = format!("no answer for {:?}", common.limits.connect_timeout);
                self.fail(id, &io::Error::new(ErrorKind::TimedOut, text), common);
            }
            // It takes nothing, so it cannot be told.
            Verdict::Stalled => {
                let (owed, wait) = (self.owed(), common.limits.write_timeout);
                common.notices.say(
                    common.now,
                    Kind::Stalled,
                    Level::Info,
                    format_args!(
                        "{} {id} stalled: took none of {owed} bytes for {wait:?}",
                        common.name_of(self.service)
                    ),
                );
                // Where it was not to take more than the last words, the reason for those stays.
                let close = match self.phase {
                    Phase::Closing(close) if close != Close::Bye => close,
                    _ => Close::Stalled,
                };
                self.die(id, close, common);
            }
            Verdict::LingeredEnough => match self.phase {
                Phase::Lingering(close) => self.die(id, close, common),
                _ => unreachable!("only lingering streams have this deadline"),
            },
        }
    }

    fn received<N: Net<Stream = S>>(&mut self, id: Id, bytes: &[u8], common: &mut Common<N>) {
        self.heard = common.now;
        common.metrics.bytes_in += bytes.len() as u64;
        if let Some(story) = &mut self.story {
            story.bytes_in += bytes.len() as u64;
        }
        if self.phase == Phase::Open {
            self.feed(id, bytes, common);
        }
    }

    /// Gives the machine what it left, if anything, and `bytes` behind that; keeps what it leaves now.
    fn feed<N: Net<Stream = S>>(&mut self, id: Id, bytes: &[u8], common: &mut Common<N>) {
        match self.buffers.as_mut().filter(|buffers| !buffers.inbox.is_empty()) {
            None => {
                let consumed = self.tell_bytes(id, bytes, common);
                self.inbox().push(&bytes[consumed..]);
            }
            Some(buffers) => {
                let mut inbox = std::mem::take(&mut buffers.inbox);
                inbox.push(bytes);
                let consumed = self.tell_bytes(id, inbox.as_slice(), common);
                inbox.consume(consumed);
                *self.inbox() = inbox;
            }
        }
        // Whoever is owed bytes is judged by the outbox; all others may together leave half of the memory unfinished.
        let is_unfinished = self.buffers.as_ref().is_some_and(|buffers| buffers.unfinished() > 0);
        if is_unfinished && self.phase == Phase::Open && self.owed() == 0 {
            if let Some(buffers) = &mut self.buffers {
                common.pool.book(buffers, &common.limits); // or what it had left before would count twice
            }
            if common.pool.inboxes > common.limits.memory_bytes / 2 {
                self.begin_close(id, Close::MemoryFull, common);
            }
        }
    }

    fn tell_bytes<N: Net<Stream = S>>(&mut self, id: Id, input: &[u8], common: &mut Common<N>) -> usize {
        let (consumed, full) = self.tell(id, common, |machine, context| {
            let consumed = machine.bytes(context, input).min(input.len());
            (consumed, if machine.answers() { context.is_full() } else { *context.busy })
        });
        if let Some(buffers) = &mut self.buffers {
            buffers.held = full && consumed < input.len();
        }
        if log::log_enabled!(Level::Trace) {
            for line in input[..consumed].split_inclusive(|byte| *byte == b'\n') {
                log::trace!("{} {id} received \"{}\"", common.name_of(self.service), line.escape_ascii());
            }
        }
        consumed
    }

    /// Tells the machine something, and does what it asks for.
    fn tell<N: Net<Stream = S>, T>(
        &mut self,
        id: Id,
        common: &mut Common<N>,
        say: impl FnOnce(&mut dyn Protocol, &mut Context<'_>) -> T,
    ) -> T {
        let buffers = self.buffers.get_or_insert_with(|| common.pool.take());
        if buffers.outbox.is_empty() {
            buffers.progress = common.now;
        }
        let (high_bytes, standing) = (common.high_bytes(), common.standing(self.admission == Admission::Spare));
        let mut context = Context {
            now: common.now,
            id,
            outbox: &mut buffers.outbox,
            message: &mut buffers.message,
            deadline: &mut self.deadline,
            busy: &mut self.busy,
            limits: &common.limits,
            metrics: &mut common.metrics,
            rooms: &mut common.rooms,
            seat: &mut self.seat,
            standing,
            text: &mut common.text,
            random: &mut || common.net.random(),
            effects: &mut common.effects,
            high_bytes,
        };
        let answer = say(self.machine.as_mut(), &mut context);
        if self.end_said {
            buffers.outbox.clear();
        }
        // Here and not in `settle`: by then a flush may have taken it all, and the machine would wait for `drained` for ever.
        buffers.choked |= buffers.outbox.len() >= high_bytes;
        // A machine asks for little; what closing adds is dropped, for it is closing already.
        let mut effects = std::mem::take(&mut common.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Close(close) => self.begin_close(id, close, common),
                Effect::End => self.ending = true,
                effect => common.enqueue(id, self.service, effect),
            }
        }
        common.effects = effects;
        answer
    }

    /// The machine's last word; from here on only what is owed is sent.
    fn begin_close<N: Net<Stream = S>>(&mut self, id: Id, close: Close, common: &mut Common<N>) {
        if self.phase != Phase::Open {
            return;
        }
        self.phase = Phase::Closing(close);
        let kind = match close {
            Close::Full | Close::MemoryFull => Some(Kind::Full),
            Close::TooLong | Close::MessageTooLong | Close::HeadTooLong => Some(Kind::TooLong),
            _ => None,
        };
        if let Some(kind) = kind {
            let text = close.sentence(&common.limits);
            let service = common.name_of(self.service);
            common.notices.say(common.now, kind, Level::Info, format_args!("{service} {id} closed, {close}: {text}"));
        }
        self.tell(id, common, |machine, context| machine.closing(context, close));
    }

    /// The system said that this connection is over.
    fn fail<N: Net<Stream = S>>(&mut self, id: Id, error: &io::Error, common: &mut Common<N>) {
        log::debug!("{} {id}: {error}", common.name_of(self.service));
        if !self.is_dead() {
            self.machine.failed(error);
        }
        self.die(id, self.reason_or(Close::Error), common);
    }

    /// The drain time is up.
    pub(crate) fn cut_off<N: Net<Stream = S>>(&mut self, id: Id, common: &mut Common<N>) {
        self.die(id, self.reason_or(Close::Shutdown), common);
    }

    /// A peer for which we linger has had everything: whatever ends that, the reason stays what it was.
    fn reason_or(&self, close: Close) -> Close {
        match self.phase {
            Phase::Lingering(reason) => reason,
            _ => close,
        }
    }

    fn die<N: Net<Stream = S>>(&mut self, id: Id, close: Close, common: &mut Common<N>) {
        if !self.is_dead() {
            self.phase = Phase::Dead(close);
            common.metrics_leave(self.admission, self.service);
            common.doomed.push(id);
        }
    }

    /// What follows from the state: the next phase, the marks, the memory, and what is to be done when. After every touch.
    pub(crate) fn settle<N: Net<Stream = S>>(&mut self, id: Id, common: &mut Common<N>) -> Todo {
        self.advance(id, common);
        if let (Phase::Closing(close) | Phase::Lingering(close) | Phase::Dead(close), Some(seat)) =
            (self.phase, self.seat)
        {
            // When everybody goes, nobody is told of each.
            let why = (common.stop < Stop::Stopping).then_some(close.word());
            common.rooms.leave(seat, why, common.now, &common.limits);
            self.seat = None;
        }
        if let Some(mut buffers) = self.buffers.take() {
            if self.phase != Phase::Open {
                buffers.inbox.clear();
                buffers.message.clear();
                buffers.held = false;
            }
            common.pool.book(&mut buffers, &common.limits);
            if self.is_dead() || buffers.is_empty() {
                common.pool.give_back(buffers, &common.limits);
            } else {
                self.buffers = Some(buffers);
            }
        }
        let may_read = self.may_read(common);
        // Who is not read because the machine is busy has its time going on; it is the machine's own deadline that must.
        let is_paused = !may_read && !self.busy;
        if self.phase == Phase::Open && self.paused != is_paused {
            self.catch_up(common.now);
            self.heard = common.now;
        }
        if self.busy {
            self.heard = common.now;
        }
        self.paused = is_paused;
        if let Some(seat) = self.seat
            && (self.holds_input() || self.ended)
            && self.must_wait(common)
        {
            common.rooms.wait(seat, &common.limits);
        }
        Todo {
            work: self.may_ask() || self.may_feed(common) || (may_read && self.head.ready.readable),
            flush: self.may_write() || self.may_follow(common),
            due: self.due(common).map(|(at, _)| at),
        }
    }

    /// If it was not heard because we did not listen: what it had left of its time then, it has now.
    fn catch_up(&mut self, now: Moment) {
        if self.paused {
            let unheard = now - self.heard;
            self.deadline = self.deadline.map(|at| at + unheard);
            self.heard = now;
        }
    }

    /// Goes as far down the phases as the state allows.
    fn advance<N: Net<Stream = S>>(&mut self, id: Id, common: &mut Common<N>) {
        self.update_choked(id, common);
        if self.phase == Phase::Open && !self.busy && !self.holds_input() {
            if self.ended && !self.must_wait(common) {
                if !std::mem::replace(&mut self.end_told, true) {
                    let rest =
                        self.buffers.as_mut().map(|buffers| std::mem::take(&mut buffers.inbox)).unwrap_or_default();
                    self.tell(id, common, |machine, context| machine.ended(context, rest.as_slice()));
                }
                if !self.busy {
                    self.begin_close(id, Close::Bye, common);
                }
                self.write(id, common);
            } else if self.is_stopped(common) && !self.follows(common) {
                // Whoever can be written to has had what was said in its room.
                self.begin_close(id, Close::Shutdown, common);
                self.write(id, common);
            }
        }
        if self.phase == Phase::Open && self.ending && self.owed() == 0 {
            self.say_end(id, common);
        }
        if self.phase == Phase::Dialing && self.is_stopped(common) {
            self.die(id, Close::Shutdown, common);
        }
        if let Phase::Closing(close) = self.phase
            && self.owed() == 0
        {
            if self.ended {
                self.die(id, close, common);
            } else if self.say_end(id, common) {
                self.phase = Phase::Lingering(close);
                self.heard = common.now;
                self.deadline = Some(common.now + common.limits.linger);
            }
        }
        if let Phase::Lingering(close) = self.phase
            && self.ended
        {
            self.die(id, close, common);
        }
    }

    /// Remembers the marks: above the high one it is choked until below the low one.
    fn update_choked<N: Net<Stream = S>>(&mut self, id: Id, common: &mut Common<N>) {
        let Some(buffers) = &mut self.buffers else { return };
        if buffers.choked && buffers.outbox.len() <= common.low_bytes() {
            buffers.choked = false;
            if self.phase == Phase::Open {
                self.tell(id, common, |machine, context| machine.drained(context));
            }
        }
    }

    /// REAP: the end. The machine is told, the log may have it.
    pub(crate) fn bury<N: Net<Stream = S>>(mut self, id: Id, common: &mut Common<N>) {
        let Phase::Dead(close) = self.phase else { unreachable!("only the dead are buried") };
        common.closed(self.machine, close);
        common.metrics.closes[close as usize] += 1;
        if let Some(buffers) = self.buffers.take() {
            common.pool.give_back(buffers, &common.limits);
        }
        if let Some(seat) = self.seat {
            common.rooms.leave(seat, Some(close.word()), common.now, &common.limits);
        }
        if let Some(story) = self.story {
            let (peer, lasted) = (story.peer, common.now - story.opened);
            let service = common.name_of(self.service);
            log::debug!(
                "{service} {id} closed, {close}: {peer}, {} bytes in, {} out, {lasted:?}",
                story.bytes_in,
                story.bytes_out
            );
        }
    }
}
