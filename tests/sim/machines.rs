//! The machines of the simulation: two of its own, and the recorder around every machine, which checks what it is told.

use crate::kernel::{Kind, Shared};
use crate::web::{self, Role};
use crate::world::World;
use oneloop::close::Close;
use oneloop::limits::{Heartbeat, SlowReader};
use oneloop::protocol::{Context, Protocol};
use oneloop::slots::Id;
use oneloop::time::Moment;
use std::net::SocketAddr;
use std::time::Duration;

/// What has been said to one machine.
#[derive(Debug)]
pub(crate) struct Life {
    id: Option<Id>,
    /// Its socket.
    node: usize,
    pub(crate) is_stream: bool,
    opened: bool,
    closing: Option<Close>,
    pub(crate) closed: Option<Close>,
    deadline: Option<Armed>,
    /// Of the heartbeat: it has said PING or PONG; PINGs that it has not answered; nothing more is asked.
    spoke: bool,
    asked: u32,
    gave_up: bool,
    /// Over the limit, and let in.
    is_spare: bool,
    /// The moment of its last deadline.
    expired_at: Option<Moment>,
    /// When it was last heard by its machine, and how much there was then of what keeps a deadline.
    heard: Moment,
    heard_at_disturbance: usize,
    heard_at_trouble: usize,
    choked_before: Duration,
}

impl Default for Life {
    fn default() -> Life {
        Life {
            id: None,
            node: 0,
            is_stream: false,
            opened: false,
            closing: None,
            closed: None,
            deadline: None,
            spoke: false,
            asked: 0,
            gave_up: false,
            is_spare: false,
            expired_at: None,
            heard: Moment::START,
            heard_at_disturbance: 0,
            heard_at_trouble: 0,
            choked_before: Duration::ZERO,
        }
    }
}

/// A deadline, and what could make it late: how much there was of that when it was armed.
#[derive(Clone, Copy, Debug)]
struct Armed {
    at: Moment,
    disturbances: usize,
    write_troubles: usize,
    /// The peer could take all.
    freely: bool,
    /// For how long it had not been read, all in all.
    choked_before: Duration,
}

/// Says `tick` so often and so many times, and takes no notice of what it receives.
pub(crate) struct Ticker {
    pub(crate) left: usize,
    pub(crate) every: Duration,
}

pub(crate) const TICK: &[u8] = b"tick\n";

impl Ticker {
    fn arm(&self, context: &mut Context<'_>) {
        *context.deadline = (self.left > 0).then(|| context.now + self.every);
    }
}

impl Protocol for Ticker {
    fn opened(&mut self, context: &mut Context<'_>, _: SocketAddr) {
        self.arm(context);
    }

    fn expired(&mut self, context: &mut Context<'_>) {
        self.left -= 1;
        context.outbox.push(TICK);
        self.arm(context);
    }

    // The datagram socket has a ticker behind it too; nobody gets what that says.
}

/// Produces without being asked, as much as there is room for, until it has produced everything.
pub(crate) struct Producer {
    pub(crate) produced: usize,
    pub(crate) total: usize,
    pub(crate) chunk: usize,
    pub(crate) closes: bool,
}

/// What stands at this place of what a producer says.
pub(crate) fn product(place: usize) -> u8 {
    b'a' + (place % 23) as u8
}

impl Producer {
    fn produce(&mut self, context: &mut Context<'_>) {
        while self.produced < self.total && !context.is_full() {
            let end = self.total.min(self.produced + self.chunk);
            let bytes: Vec<u8> = (self.produced..end).map(product).collect();
            context.outbox.push(&bytes);
            self.produced = end;
        }
        if self.produced == self.total && self.closes {
            context.close(Close::Bye);
        }
    }
}

impl Protocol for Producer {
    fn opened(&mut self, context: &mut Context<'_>, _: SocketAddr) {
        self.produce(context);
    }

    fn drained(&mut self, context: &mut Context<'_>) {
        self.produce(context);
    }
}

/// Two machines behind one socket: the first is told everything, the second keeps the deadline.
pub(crate) struct Both<A, B>(pub(crate) A, pub(crate) B);

impl<A: Protocol, B: Protocol> Protocol for Both<A, B> {
    fn opened(&mut self, context: &mut Context<'_>, address: SocketAddr) {
        self.0.opened(context, address);
        self.1.opened(context, address);
    }

    fn datagram(&mut self, context: &mut Context<'_>, bytes: &[u8], from: SocketAddr) {
        self.0.datagram(context, bytes, from);
    }

    fn expired(&mut self, context: &mut Context<'_>) {
        self.1.expired(context);
    }
}

/// What a machine is told.
#[derive(Debug)]
pub(crate) enum Told<'a> {
    Opened,
    /// And has consumed.
    Bytes(&'a [u8]),
    Ended(&'a [u8]),
    Drained,
    Expired,
    Closing(Close),
}

/// Checks and writes down what a machine is told.
pub(crate) struct Recorder<P> {
    inner: P,
    life: usize,
    world: Shared,
}

impl<P> Recorder<P> {
    pub(crate) fn new(inner: P, world: &Shared) -> Recorder<P> {
        let lives = &mut world.borrow_mut().lives;
        lives.push(Life::default());
        Recorder { inner, life: lives.len() - 1, world: world.clone() }
    }

    /// Before the machine is told something, with the checks of that; then the telling; then what it did. Returns how much
    /// the outbox held before, too.
    fn tell<T>(
        &mut self,
        context: &mut Context<'_>,
        check: impl FnOnce(&mut World, usize, &mut Context<'_>),
        say: impl FnOnce(&mut P, &mut Context<'_>) -> T,
    ) -> (T, usize) {
        {
            let mut world = self.world.borrow_mut();
            world.enter(self.life, context);
            check(&mut world, self.life, context);
        }
        let before = context.outbox.len();
        let answer = say(&mut self.inner, context);
        self.world.borrow_mut().leave(self.life, context, before);
        (answer, before)
    }

    /// What it was told, for whoever can tell what must come of that.
    fn told(&self, context: &Context<'_>, told: &Told<'_>, before: usize) {
        self.world.borrow_mut().told(self.life, context, told, before);
    }
}

impl<P: Protocol> Protocol for Recorder<P> {
    fn opened(&mut self, context: &mut Context<'_>, address: SocketAddr) {
        let ((), before) = self.tell(
            context,
            |world, life, context| world.check_opened(life, context, address),
            |inner, context| inner.opened(context, address),
        );
        self.told(context, &Told::Opened, before);
    }

    fn bytes(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> usize {
        let (consumed, before) = self.tell(context, World::check_open, |inner, context| inner.bytes(context, bytes));
        self.told(context, &Told::Bytes(&bytes[..consumed]), before);
        // The reactor asks the same, at the same time.
        let held = consumed < bytes.len() && context.is_full();
        let left = bytes.len() - consumed + context.message.len();
        self.world.borrow_mut().left_unfinished(self.life, left, held);
        consumed
    }

    fn ended(&mut self, context: &mut Context<'_>, rest: &[u8]) {
        let ((), before) = self.tell(context, World::check_open, |inner, context| inner.ended(context, rest));
        self.told(context, &Told::Ended(rest), before);
        self.world.borrow_mut().left_unfinished(self.life, 0, false);
    }

    fn datagram(&mut self, context: &mut Context<'_>, bytes: &[u8], from: SocketAddr) {
        self.tell(context, World::check_open, |inner, context| inner.datagram(context, bytes, from));
    }

    fn drained(&mut self, context: &mut Context<'_>) {
        let ((), before) = self.tell(context, World::check_drained, |inner, context| inner.drained(context));
        self.told(context, &Told::Drained, before);
    }

    fn expired(&mut self, context: &mut Context<'_>) {
        let ((), before) = self.tell(context, World::check_expired, |inner, context| inner.expired(context));
        self.told(context, &Told::Expired, before);
    }

    fn closing(&mut self, context: &mut Context<'_>, close: Close) {
        let ((), before) = self.tell(
            context,
            |world, life, _| world.check_closing(life, close),
            |inner, context| inner.closing(context, close),
        );
        self.told(context, &Told::Closing(close), before);
    }

    fn outlasts(&self) -> bool {
        self.inner.outlasts()
    }

    fn closed(&mut self, close: Close) {
        self.world.borrow_mut().check_closed(self.life, close);
        self.inner.closed(close);
    }
}

// What is checked whenever a machine is told something.
impl World {
    fn enter(&mut self, life: usize, context: &Context<'_>) {
        self.activity += 1;
        assert_eq!(context.now, self.now, "the machine has another time");
        let (id, known) = (context.id, self.lives[life].id);
        if known.is_none() {
            assert!(self.serials.insert(id.serial()), "{id} was somebody else's name");
            let node = *self.keys.get(&id.key()).expect("a machine is told something of a socket that is not watched");
            let is_stream = matches!(self.nodes[node].kind, Kind::Stream(_));
            self.lives[life] = Life { id: Some(id), node, is_stream, ..Life::default() };
        }
        let life = &self.lives[life];
        assert_eq!(life.id, Some(id), "the name of a connection changed");
        assert_eq!(life.closed, None, "told something after the end");
        if life.is_stream && life.opened {
            self.check_standing(life.is_spare, context);
        }
        let client = match &mut self.nodes[life.node].kind {
            Kind::Stream(pipe) => {
                if pipe.chats {
                    // What the room gives it, and what others say to it, comes past its machine.
                    pipe.pushed = pipe.written + context.outbox.len();
                }
                Some(pipe.client)
            }
            _ => None,
        };
        self.chat_commit(client);
        self.chat_check_members(context);
    }

    fn leave(&mut self, life: usize, context: &Context<'_>, before: usize) {
        let (now, disturbances) = (self.now, self.disturbances);
        let mut armed = Armed { at: now, disturbances, write_troubles: 0, freely: true, choked_before: Duration::ZERO };
        let life = &mut self.lives[life];
        if let Kind::Stream(pipe) = &mut self.nodes[life.node].kind {
            if pipe.owed() == 0 {
                (pipe.progress, pipe.progress_at_disturbance) = (now, disturbances);
            }
            assert_eq!(pipe.owed(), before, "bytes got lost on their way to the kernel");
            pipe.pushed += context.outbox.len() - before;
            (armed.write_troubles, armed.freely) = (pipe.write_troubles, !pipe.wants_room);
            armed.choked_before = pipe.choked_for;
        }
        let known = life.deadline.map(|armed| armed.at);
        if *context.deadline != known {
            life.deadline = context.deadline.map(|at| Armed { at, ..armed });
        }
    }

    fn told(&mut self, life: usize, context: &Context<'_>, told: &Told<'_>, before: usize) {
        let Life { node, is_stream, .. } = self.lives[life];
        if !is_stream {
            return;
        }
        let (client, chats) = { (self.nodes[node].pipe().client, self.nodes[node].pipe().chats) };
        let pushed = &context.outbox.as_slice()[before..];
        if self.clients[client].service.is_web() {
            let pipe = self.nodes[node].pipe();
            // What is held it has not looked at.
            let has_begun = (!pipe.held).then_some(pipe.unfinished > 0);
            self.web_told(client, context, told, pushed, has_begun);
            if self.webs[&client].role != Role::Http {
                self.lives[life].spoke = true;
                self.heartbeat_told(life, told, pushed, web::PING);
            }
            return;
        }
        if self.clients[client].service.is_text() {
            self.heartbeat_told(life, told, pushed, b"PING\n");
        }
        if chats {
            let pushed = str::from_utf8(pushed).expect("ASCII").to_string();
            self.chat_told(client, context, told, &pushed);
        }
    }

    /// The heartbeat, as simply as possible: what a machine has heard, and what it asks.
    fn heartbeat_told(&mut self, life: usize, told: &Told<'_>, pushed: &[u8], ping: &[u8]) {
        let (mode, retries) = (self.limits.heartbeat, self.limits.heartbeat_retries);
        let (now, disturbances) = (self.now, self.disturbances);
        let life = &mut self.lives[life];
        let pipe = self.nodes[life.node].pipe();
        match told {
            Told::Bytes(bytes) => {
                let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
                life.spoke |= lines.any(|line| matches!(line.trim_ascii_end(), b"PING" | b"PONG"));
            }
            Told::Expired if pushed.is_empty() => {
                assert_eq!(life.asked, retries + 1, "given up after so many PINGs");
                life.gave_up = true;
            }
            Told::Expired => {
                assert_eq!(pushed, ping);
                life.asked += 1;
                assert!(life.asked <= retries + 1, "asked {} times", life.asked);
                match mode {
                    Heartbeat::Auto => assert!(life.spoke, "asked a peer that would not understand"),
                    Heartbeat::All => (),
                    Heartbeat::Off => panic!("asked although that is off"),
                }
                self.count("PINGs sent");
                return;
            }
            Told::Closing(Close::Heartbeat) => {
                assert!(life.gave_up, "closed `heartbeat` without being asked");
                let patience = self.limits.heartbeat_interval + self.limits.heartbeat_timeout * (retries + 1);
                let silent = now - life.heard;
                let paused = pipe.choked_for - life.choked_before;
                assert!(
                    silent >= patience + paused,
                    "closed `heartbeat` too soon: after {silent:?}, of which {paused:?} it was not read"
                );
                if life.heard_at_disturbance == disturbances && life.heard_at_trouble == pipe.write_troubles {
                    assert_eq!(silent, patience, "closed `heartbeat` late, and nothing kept it");
                    self.count("heartbeat to the microsecond");
                }
                return;
            }
            _ => (),
        }
        if let Told::Opened | Told::Bytes(_) = told {
            (life.asked, life.heard, life.heard_at_disturbance) = (0, now, disturbances);
            // Whoever does not take everything at once may not be read for a while.
            life.heard_at_trouble = if pipe.wants_room { usize::MAX } else { pipe.write_troubles };
            life.choked_before = pipe.choked_for;
        }
    }

    fn left_unfinished(&mut self, life: usize, count: usize, held: bool) {
        let (node, turn) = (self.lives[life].node, self.turn);
        self.nodes[node].pipe().unfinished = count;
        let too_much = self.unfinished_bytes() > self.limits.memory_bytes / 2;
        let pipe = self.nodes[node].pipe();
        pipe.fed_in_turn = turn;
        pipe.one_too_many = too_much && count > 0 && pipe.owed() == 0 && !pipe.chats;
        let was_held = std::mem::replace(&mut pipe.held, held);
        if was_held {
            self.count("held lines heard");
        }
    }

    /// What all machines together have left unfinished, of those that still get input.
    fn unfinished_bytes(&mut self) -> usize {
        let mut pipes: Vec<(usize, usize)> = Vec::new();
        pipes.extend(self.pipes().filter(|pipe| !pipe.error_seen).map(|pipe| (pipe.client, pipe.unfinished)));
        pipes.iter().filter(|(client, _)| !self.clients[*client].is_told()).map(|(_, bytes)| bytes).sum()
    }

    /// Somebody new: served, over the limit and let in, or refused, as the reactor's own counts say.
    fn check_admission(&mut self, life: usize, context: &Context<'_>) {
        let (metrics, limits) = (&*context.metrics, &self.limits);
        let (open, spare) = (metrics.open, metrics.spare_open);
        assert!(
            open <= limits.max_connections && spare <= limits.max_spare,
            "{open} are served and {spare} let in over the limit"
        );
        let node = self.lives[life].node;
        let Kind::Stream(pipe) = &self.nodes[node].kind else { panic!("not a stream") };
        let is_web = self.clients[pipe.client].service.is_web();
        let stops = self.stopped_at.is_some();
        let is_spare = if stops { spare > self.spare_before } else { context.standing.is_spare };
        self.spare_before = spare; // the next one of this turn is judged by itself
        assert!(!is_spare || is_web && open == limits.max_connections, "let in over the limit: {open} are served");
        self.lives[life].is_spare = is_spare;
        if is_spare {
            self.count("web: spare connections");
        }
    }

    /// What the machine is told of the server is so. In the turn in which that changes it may be either.
    fn check_standing(&self, is_spare: bool, context: &Context<'_>) {
        let is = |at: Option<(Moment, usize)>, standing: bool| match at {
            Some((_, turn)) => turn == self.turn || standing,
            None => !standing,
        };
        assert!(is(self.asked_at, context.standing.is_draining), "draining: {:?}", context.standing);
        let stops = self.stopped_at.map(|at| (at, self.stopped_in_turn));
        assert!(
            is_spare && context.standing.is_spare || is(stops, context.standing.is_spare),
            "{:?}",
            context.standing
        );
    }

    fn check_opened(&mut self, life: usize, context: &Context<'_>, address: SocketAddr) {
        if self.lives[life].is_stream {
            self.check_admission(life, context);
        }
        let life = &mut self.lives[life];
        assert!(!std::mem::replace(&mut life.opened, true), "opened twice");
        assert_eq!(life.closing, None, "opened after closing");
        if life.is_stream {
            assert_eq!(self.nodes[life.node].pipe().peer, address);
        }
    }

    fn check_open(&mut self, life: usize, _: &mut Context<'_>) {
        let life = &self.lives[life];
        assert!(life.opened && life.closing.is_none(), "given input before `opened` or after `closing`");
    }

    fn check_drained(&mut self, life: usize, context: &mut Context<'_>) {
        self.check_open(life, context);
        assert!(context.outbox.len() <= self.limits.outbox_low_bytes, "drained above the low mark");
        assert!(context.seat.is_some() || !context.is_full(), "drained, and still full");
        self.count("drained");
    }

    fn check_expired(&mut self, life: usize, context: &mut Context<'_>) {
        self.check_open(life, context);
        self.count("expired");
        let (now, disturbances) = (self.now, self.disturbances);
        let life = &mut self.lives[life];
        let armed = life.deadline.take().expect("expired without a deadline");
        life.expired_at = Some(now);
        assert_eq!(*context.deadline, None, "a deadline that has come is taken out");
        assert!(armed.at <= now, "expired {:?} too soon", armed.at - now);
        let mut on_time = armed.disturbances == disturbances;
        let is_stream = life.is_stream;
        if let Kind::Stream(pipe) = &self.nodes[life.node].kind {
            assert!(!pipe.choked, "a deadline was judged while its connection is not read");
            assert!(!pipe.held, "a deadline was judged while its room keeps the connection from being read");
            let paused = pipe.choked_for - armed.choked_before;
            assert!(armed.at + paused <= now, "expired {:?} too soon, having been paused", armed.at + paused - now);
            on_time &= armed.freely && pipe.write_troubles == armed.write_troubles;
        }
        if on_time {
            assert_eq!(armed.at, now, "expired late, and nothing kept it");
            self.count("expired to the microsecond");
        }
        if !is_stream {
            self.count("expired without a connection");
        }
    }

    fn check_closing(&mut self, life: usize, close: Close) {
        let life = &mut self.lives[life];
        assert_eq!(life.closing.replace(close), None, "closing twice");
        let (is_spare, opened, expired_now) = (life.is_spare, life.opened, life.expired_at == Some(self.now));
        assert!(opened || close == Close::Full, "only whoever is refused is not opened");
        assert!(!opened || close != Close::Full || is_spare, "let in and then refused");
        let (node, asked) = (life.node, life.asked);
        let pipe = self.nodes[node].pipe();
        let (client, read) = (pipe.client, pipe.read);
        match close {
            Close::RequestLate => {
                assert!(expired_now && self.clients[client].service.is_web(), "late, and nothing was due");
                self.count("web: idle in HTTP");
            }
            Close::Idle => self.check_idle(node, asked),
            Close::Full if opened => (),
            Close::Full => {
                self.count("refused");
                self.clients[client].refused = true;
            }
            Close::MemoryFull => {
                let bytes = self.unfinished_bytes();
                assert!(bytes > self.limits.memory_bytes / 2, "closed `full` with {bytes} bytes unfinished");
            }
            Close::Shutdown if self.stopped_at.is_none() => {
                assert!(is_spare && self.asked_at.is_some(), "told of a stop before it has begun");
            }
            Close::Shutdown => {
                if self.clients[client].service.is_web()
                    && self.webs.get(&client).is_none_or(|side| side.role == Role::Http)
                    && !self.web_was_refused(client)
                {
                    // Once that has begun, one that holds what it has not been asked may end later.
                    let other = self.web_awaits(self.turn).filter(|_| !self.monitors_end);
                    assert_eq!(other, None, "a monitor ends before somebody else has gone");
                    self.monitors_end = true;
                    self.count("web: monitors ended last");
                }
                self.check_read_once_more(node);
                let may_write = { self.nodes[node].may_write && !self.nodes[node].pipe().wants_room };
                let due = self.chat_is_due(client);
                assert!(!(may_write && due), "stopped before it was given what was said in its room");
            }
            _ => (),
        }
        self.clients[client].told(close, read, self.stormy, self.turn);
    }

    fn check_idle(&mut self, node: usize, asked: u32) {
        let (now, disturbances) = (self.now, self.disturbances);
        let idle = self.limits.idle_timeout.expect("closed `idle` although that is off");
        let pipe = self.nodes[node].pipe();
        assert!(pipe.to_server.is_empty(), "closed `idle` although bytes were waiting to be read");
        assert!(!pipe.choked, "closed `idle` although it was not being read");
        let (silent, resumed) = (now - pipe.heard, now - pipe.choked_until);
        assert!(silent >= idle, "closed `idle` too soon: {silent:?} after its last byte");
        assert!(resumed >= idle, "closed `idle` too soon: {resumed:?} after it was read again");
        // While memory is short, it is not read from the PING until that is written.
        let undisturbed = pipe.heard_at_disturbance == disturbances && pipe.write_troubles == 0 && asked == 0;
        let client = pipe.client;
        if undisturbed && self.clients[client].service.is_echo() {
            assert_eq!(silent, idle, "closed `idle` late, and nothing kept it");
            self.count("idle to the microsecond");
        }
    }

    /// Whatever had come when the stop began was read once more, unless that would have been wrong at any time: because of
    /// what it is owed, or was owed when its machine had been given what it had left before.
    fn check_read_once_more(&mut self, node: usize) {
        let (taken, turn) = (self.nodes[node].taken_now, self.turn);
        let now = self.now;
        let pipe = self.nodes[node].pipe();
        let had_its_turn = taken > 0 || pipe.to_server.is_empty() || pipe.owed() > 0 || pipe.fed_in_turn == turn;
        let (chats, client, held, wrote_now) = (pipe.chats, pipe.client, pipe.held, pipe.progress == now);
        // What a member of a room is owed is not all counted, or has been written only after it was its turn to be read.
        let owed_more = chats && (wrote_now || !self.chat_nobody_waits(client));
        // A monitor is told at the end of the turn, when it has been written to.
        let owed_more = owed_more || self.clients[client].service.is_web() && wrote_now;
        let excused = !self.stopping_now || !self.plan.fair || owed_more || held;
        assert!(had_its_turn || excused, "not read once more before the stop");
    }

    fn check_closed(&mut self, life: usize, close: Close) {
        self.activity += 1;
        let life = &mut self.lives[life];
        assert!(life.id.is_some(), "the end of what never began");
        assert_eq!(life.closed.replace(close), None, "closed twice");
        if !life.is_stream {
            return;
        }
        let (node, closing) = (life.node, life.closing);
        self.buried_now += 1;
        self.count(CLOSED[close as usize]);
        let time_is_up = self.stopped_at.is_some_and(|at| self.now >= at + self.limits.drain);
        let (now, disturbances, fair) = (self.now, self.disturbances, self.plan.fair);
        let limits = self.limits.clone();
        if close == Close::Stalled {
            self.stalled_now.remove(&self.nodes[node].pipe().client);
        }
        let pipe = self.nodes[node].pipe();
        let (owed, client, stalled) = (pipe.owed(), pipe.client, now - pipe.progress);
        if pipe.half_closed.is_some() {
            assert_eq!(closing, Some(close), "everything was sent, and then the reason changed");
        }
        let cut_off = owed > 0 || closing != Some(close);
        match close {
            Close::Error => assert!(pipe.error_seen, "closed `error` without one"),
            _ if !cut_off => (),
            // What it was to be told at the last, it did not take. But a goodbye that is not taken is a stall.
            _ if closing == Some(close) && close != Close::Shutdown => {
                assert!(close != Close::Bye && close != Close::Stalled);
                assert!(stalled >= limits.write_timeout && pipe.wants_room, "closed `{close}` with {owed} bytes owed");
                self.count("last words not taken");
            }
            Close::Stalled => {
                assert!(pipe.wants_room, "closed `stalled` although there was room");
                let chats = pipe.chats;
                let undisturbed = fair && pipe.progress_at_disturbance == disturbances && !chats;
                assert!(!undisturbed || stalled == limits.write_timeout, "closed `stalled` late: after {stalled:?}");
                let held_up = self.held_up(client);
                assert!(
                    stalled.max(held_up) >= limits.write_timeout,
                    "closed `stalled` too soon: after {stalled:?}, {held_up:?} behind"
                );
                if stalled < limits.write_timeout {
                    self.count("held up a room for too long");
                }
            }
            Close::Shutdown => {
                let took_nothing = stalled >= limits.write_timeout;
                assert!(time_is_up || took_nothing, "cut off before the time was up");
            }
            _ => panic!("closed `{close}` with {owed} bytes owed; it was told {closing:?}"),
        }
        let pipe = self.nodes[node].pipe();
        if let Some(at) = pipe.half_closed
            && !(pipe.end_read || pipe.error_seen || time_is_up)
        {
            let whole = at + limits.linger;
            let due = if pipe.pressed { whole } else { whole.min(pipe.heard + limits.linger_quiet) };
            assert!(now >= due, "lingered too little, by {:?}", due - now);
            let undisturbed = fair && pipe.heard_at_disturbance == disturbances;
            assert!(!undisturbed || now == due, "lingered too long, by {:?}", now - due);
            self.count("lingered to the end");
        }
        self.clients[client].ended_by_server(close, cut_off);
        self.chat_dies(client, close.word());
    }
}

impl World {
    /// Under `block`: how long a member has not had everything.
    fn held_up(&self, client: usize) -> Duration {
        match self.chat_complete_at(client) {
            Some(at) if self.limits.slow_reader == SlowReader::Block => self.now - at,
            _ => Duration::ZERO,
        }
    }
}

/// By the number of the reason.
pub(crate) const CLOSED: [&str; Close::ALL.len()] = [
    "closed: bye",
    "closed: idle",
    "closed: request late",
    "closed: heartbeat",
    "closed: stalled",
    "closed: slow",
    "closed: too long",
    "closed: message too long",
    "closed: head too long",
    "closed: connections full",
    "closed: memory full",
    "closed: no progress",
    "closed: refused",
    "closed: protocol",
    "closed: shutdown",
    "closed: error",
];
