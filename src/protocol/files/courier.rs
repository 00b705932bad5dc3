//! The other side of file transfer: takes files to a server or fetches them, one after the other, and goes on where a broken
//! transfer stopped. Knows no socket and no clock; files it reaches through [`Disk`] and [`File`].

use super::store::hash_some;
use crate::close::Close;
use crate::disk::{Access, Disk, File, write_all};
use crate::limits::Limits;
use crate::protocol::{Context, Protocol};
use crate::slots::Id;
use crate::wire::files::{Answer, Digest, part_name, part_of};
use crate::wire::line::{Line, LineDecoder};
use sha2::{Digest as _, Sha256};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

/// How long the first pause is before another try; each further one is twice that, as curl has it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// How many times [`Limits::files_progress`] an answer may take: the server may have to hash a large file for it.
const ANSWER_FACTOR: u32 = 10;

/// One file to be carried.
pub enum Job {
    /// To the server, under this name.
    Send {
        /// What it is called there.
        name: String,
        /// Opens it, when its turn has come.
        open: Box<dyn FnOnce() -> io::Result<Box<dyn File>>>,
    },
    /// From the server into the directory.
    Get {
        /// What it is called, there and here.
        name: String,
    },
}

impl Job {
    fn name(&self) -> &str {
        match self {
            Job::Send { name, .. } | Job::Get { name } => name,
        }
    }
}

/// What a courier does with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Looks at what is here.
    Hashing,
    /// Carries.
    Moving,
}

/// Who wants to know how it goes.
pub trait Watch {
    /// So much is done of this step.
    fn moved(&mut self, name: &str, step: Step, at: u64, size: u64);

    /// Something went wrong, and after a pause it is tried again.
    fn pauses(&mut self, name: &str, why: &str, pause: Duration);

    /// A file is whole and checked, or why not.
    fn done(&mut self, name: &str, result: Result<Digest, String>);
}

/// How a connection ended.
enum Outcome {
    Done(Digest),
    /// To be tried again after a pause.
    Lost(String),
    /// At once, from what is here now.
    Again,
    Failed(String),
}

/// What the courier and the machine of its connection share. They are never told anything at the same time.
struct Shared {
    /// Where fetched files go.
    disk: Option<Box<dyn Disk>>,
    /// What is there already may be replaced.
    may_replace: bool,
    watch: Box<dyn Watch>,
    trip: Trip,
    outcome: Option<Outcome>,
    /// A connection has come about for this file.
    has_met: bool,
    /// Bytes have moved since the last pause.
    has_moved: bool,
    scratch: Vec<u8>,
}

/// One file on its way.
#[derive(Default)]
struct Trip {
    name: String,
    /// What is sent; or the part that is gone on with, or what is there already under the name.
    file: Option<Box<dyn File>>,
    /// What the part is called.
    part: String,
    is_sent: bool,
    /// There is a file of that name here: the question is only whether it is the same.
    is_there: bool,
    /// Of the whole: known at once of what is sent, and of a part by its name.
    size: u64,
    digest: Option<Digest>,
    hasher: Sha256,
    /// `at <= size`: hashed of what is here, then sent or received.
    at: u64,
    /// What is here.
    here: u64,
    /// The most that the server has said to have.
    most_ready: u64,
}

/// What the courier is at.
enum State {
    /// Begins with the next file.
    Next,
    Hashing,
    /// The connection's machine is at work.
    Away,
    /// Waits before another try.
    Pausing,
}

/// Carries files, one after the other. A machine without a connection of its own: see
/// [`Reactor::add`](crate::reactor::Reactor::add). It stops the loop in the end.
pub struct Courier {
    jobs: VecDeque<Job>,
    /// Where the server is; the first that answers is it.
    addresses: Vec<SocketAddr>,
    address: usize,
    /// Pauses at most without a byte between them.
    retries: u32,
    tries: u32,
    state: State,
    shared: Rc<RefCell<Shared>>,
}

impl Courier {
    /// To or from the server at one of `addresses`, of which there is at least one. `disk` is where fetched files go.
    pub fn new(
        jobs: impl IntoIterator<Item = Job>,
        addresses: Vec<SocketAddr>,
        retries: u32,
        disk: Option<Box<dyn Disk>>,
        may_replace: bool,
        watch: Box<dyn Watch>,
    ) -> Courier {
        let shared = Shared {
            disk,
            may_replace,
            watch,
            trip: Trip::default(),
            outcome: None,
            has_met: false,
            has_moved: false,
            scratch: Vec::new(),
        };
        Courier {
            jobs: jobs.into_iter().collect(),
            addresses,
            address: 0,
            retries,
            tries: 0,
            state: State::Next,
            shared: Rc::new(RefCell::new(shared)),
        }
    }

    fn next(&mut self, context: &mut Context<'_>) {
        let Some(job) = self.jobs.pop_front() else { return context.stop() };
        self.tries = 0;
        let name = job.name().to_string();
        let (file, is_sent) = match job {
            Job::Send { open, .. } => (open().map(Some), true),
            Job::Get { .. } => (Ok(None), false),
        };
        let (file, error) = file.map_or_else(|error| (None, Some(error)), |file| (file, None));
        {
            let mut shared = self.shared.borrow_mut();
            (shared.has_met, shared.has_moved) = (false, false);
            shared.trip = Trip { name, file, is_sent, ..Trip::default() };
        }
        match error {
            None => self.prepare(context),
            Some(error) => self.end(context, Err(error.to_string())),
        }
    }

    /// Looks at what is here, and hashes it.
    fn prepare(&mut self, context: &mut Context<'_>) {
        let prepared = self.shared.borrow_mut().prepare();
        match prepared {
            Ok(()) => (self.state, *context.deadline) = (State::Hashing, Some(context.now)),
            Err(error) => self.end(context, Err(error.to_string())),
        }
    }

    fn hash(&mut self, context: &mut Context<'_>) {
        let hashed = self.shared.borrow_mut().hash(context.limits);
        match hashed {
            Ok(false) => *context.deadline = Some(context.now),
            Ok(true) => self.dial(context),
            Err(error) => self.end(context, Err(error.to_string())),
        }
    }

    fn dial(&mut self, context: &mut Context<'_>) {
        let carrier = Carrier {
            shared: self.shared.clone(),
            courier: context.id,
            lines: LineDecoder::default(),
            doing: Doing::Asking,
            has_begun: false,
            failure: None,
        };
        self.state = State::Away;
        context.dial(self.addresses[self.address], Box::new(carrier));
    }

    /// This file is whole, or nothing comes of it; on to the next.
    fn end(&mut self, context: &mut Context<'_>, result: Result<Digest, String>) {
        {
            let shared = &mut *self.shared.borrow_mut();
            shared.watch.done(&shared.trip.name, result);
        }
        (self.state, *context.deadline) = (State::Next, Some(context.now));
    }

    fn lost(&mut self, context: &mut Context<'_>, why: String) {
        let (has_met, has_moved) = {
            let mut shared = self.shared.borrow_mut();
            (shared.has_met, std::mem::take(&mut shared.has_moved))
        };
        if !has_met && self.address + 1 < self.addresses.len() {
            self.address += 1;
            return self.dial(context);
        }
        if has_moved {
            self.tries = 0;
        }
        // Where there never was a connection, the address is wrong rather than the network.
        if !has_met || self.tries >= self.retries {
            return self.end(context, Err(why));
        }
        // Somewhere in the second half of the pause: many who lost the same server do not come back at once.
        let most = FIRST_PAUSE * (1 << self.tries.min(6));
        let pause = most / 2 + Duration::from_micros((context.random)() % (most.as_micros() as u64 / 2));
        self.tries += 1;
        {
            let shared = &mut *self.shared.borrow_mut();
            shared.watch.pauses(&shared.trip.name, &why, pause);
        }
        (self.state, *context.deadline) = (State::Pausing, Some(context.now + pause));
    }
}

impl Protocol for Courier {
    fn opened(&mut self, context: &mut Context<'_>, _: SocketAddr) {
        *context.deadline = Some(context.now);
    }

    fn expired(&mut self, context: &mut Context<'_>) {
        match self.state {
            State::Next => self.next(context),
            State::Hashing => self.hash(context),
            State::Pausing => self.prepare(context),
            State::Away => (),
        }
    }

    /// The connection has ended.
    fn woken(&mut self, context: &mut Context<'_>) {
        let outcome = self.shared.borrow_mut().outcome.take();
        match outcome {
            None => (),
            Some(Outcome::Done(digest)) => self.end(context, Ok(digest)),
            Some(Outcome::Failed(why)) => self.end(context, Err(why)),
            Some(Outcome::Again) => self.prepare(context),
            Some(Outcome::Lost(why)) => self.lost(context, why),
        }
    }
}

impl Shared {
    fn disk(&mut self) -> io::Result<&mut Box<dyn Disk>> {
        self.disk.as_mut().ok_or_else(|| io::Error::other("no directory to put it into"))
    }

    /// Finds what is here of the file: all of what is sent; or what was fetched before.
    fn prepare(&mut self) -> io::Result<()> {
        let may_replace = self.may_replace;
        let trip = std::mem::take(&mut self.trip);
        let mut trip = Trip { name: trip.name, file: trip.file, is_sent: trip.is_sent, ..trip };
        if trip.is_sent && trip.digest.is_some() {
            self.trip = Trip { at: trip.size, here: trip.size, ..trip };
            return Ok(());
        }
        (trip.at, trip.here, trip.hasher) = (0, 0, Sha256::new());
        if trip.is_sent {
            let file = trip.file.as_mut().ok_or_else(|| io::Error::other("no file"))?;
            trip.size = file.facts()?.size;
            trip.here = trip.size;
            self.trip = trip;
            return Ok(());
        }
        (trip.file, trip.digest, trip.is_there) = (None, None, false);
        let name = trip.name.clone();
        self.trip = trip;
        let disk = self.disk()?;
        let (mut file, part, here) = match disk.facts(&name)? {
            Some(facts) if !facts.is_plain => return Err(io::Error::other("is there already and is no plain file")),
            Some(facts) if !may_replace => (Some(disk.open(&name, Access::Read)?), None, facts.size),
            _ => {
                let mut best: Option<(String, u64)> = None;
                for entry in disk.list()? {
                    let (file, facts) = entry?;
                    let is_ours = part_of(&file).is_some_and(|(of, resumable)| of == name && resumable.is_some());
                    if is_ours && facts.is_plain && best.as_ref().is_none_or(|(_, most)| facts.size > *most) {
                        best = Some((file, facts.size));
                    }
                }
                match best {
                    Some((part, here)) => (Some(disk.open(&part, Access::Extend)?), Some(part), here),
                    None => (None, None, 0),
                }
            }
        };
        if let Some((_, Some((size, digest)))) = part.as_deref().and_then(part_of) {
            (self.trip.size, self.trip.digest) = (size, Some(digest));
        } else {
            (self.trip.size, self.trip.is_there) = (here, file.is_some());
        }
        (self.trip.part, self.trip.here) = (part.unwrap_or_default(), here);
        self.trip.file = file.take();
        Ok(())
    }

    /// Hashes more of what is here. Returns whether that is all.
    fn hash(&mut self, limits: &Limits) -> io::Result<bool> {
        let trip = &mut self.trip;
        if let Some(file) = trip.file.as_mut().filter(|_| trip.at < trip.here) {
            let (most, scratch) = (limits.files_budget_bytes, &mut self.scratch);
            trip.at = hash_some(file.as_mut(), &mut trip.hasher, trip.at, trip.here, scratch, most)?;
            self.watch.moved(&trip.name, Step::Hashing, trip.at, trip.here);
        }
        let is_done = trip.at >= trip.here;
        if is_done && trip.digest.is_none() && (trip.is_sent || trip.is_there) {
            trip.digest = Some(Digest(trip.hasher.clone().finalize().into()));
        }
        Ok(is_done)
    }

    /// The server has this file. Returns what there is to say already.
    fn found(&mut self, size: u64, digest: Digest) -> io::Result<Option<Outcome>> {
        let trip = &mut self.trip;
        let is_same = trip.digest == Some(digest) && trip.size == size;
        if trip.is_there {
            return Ok(Some(if is_same { Outcome::Done(digest) } else { there_already() }));
        }
        if trip.file.is_some() && !is_same {
            // A part of what the file was once.
            let part = std::mem::take(&mut trip.part);
            self.disk()?.remove(&part)?;
            return Ok(Some(Outcome::Again));
        }
        if trip.file.is_none() {
            (trip.size, trip.digest) = (size, Some(digest));
            trip.part = part_name(&trip.name, size, trip.digest);
            let part = trip.part.clone();
            match self.disk()?.open(&part, Access::Create) {
                // Somebody else has just begun it: look again.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(Some(Outcome::Again)),
                file => self.trip.file = Some(file?),
            }
        }
        self.check_whole()
    }

    /// Bytes from the server.
    fn take(&mut self, bytes: &[u8]) -> io::Result<Option<Outcome>> {
        let trip = &mut self.trip;
        let left = usize::try_from(trip.size - trip.at).unwrap_or(usize::MAX);
        let bytes = &bytes[..bytes.len().min(left)];
        if let Some(file) = &mut trip.file {
            write_all(file.as_mut(), trip.at, bytes)?;
        }
        trip.hasher.update(bytes);
        trip.at += bytes.len() as u64;
        self.has_moved = true;
        self.watch.moved(&trip.name, Step::Moving, trip.at, trip.size);
        self.check_whole()
    }

    /// If it is whole: checks it and gives it its name.
    fn check_whole(&mut self) -> io::Result<Option<Outcome>> {
        let trip = &mut self.trip;
        if trip.at < trip.size {
            return Ok(None);
        }
        let digest = Digest(trip.hasher.clone().finalize().into());
        let (part, name, is_right) = (trip.part.clone(), trip.name.clone(), trip.digest == Some(digest));
        let may_replace = self.may_replace;
        let disk = self.disk()?;
        if !is_right {
            disk.remove(&part)?;
            let why = format!("what came has the hash {digest}, which is not the file's; it was thrown away");
            return Ok(Some(Outcome::Failed(why)));
        }
        match disk.rename(&part, &name, may_replace) {
            // Somebody else has put it there meanwhile: look again whether it is the same.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let _ = disk.remove(&part); // if it stays, it does no harm
                return Ok(Some(Outcome::Again));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(Outcome::Again)),
            result => result?,
        }
        // Parts of what the file was once are of no use any more; if one stays, it does no harm either.
        let entries: Vec<_> = disk.list().into_iter().flatten().flatten().map(|(file, _)| file).collect();
        for old in entries.iter().filter(|file| part_of(file).is_some_and(|(of, _)| of == name)) {
            // One that somebody else writes is left: with its name gone, a third might begin another under it, and that one, not
            // yet whole, would be given the file's name by the second.
            if let Ok(_ours) = disk.open(old, Access::Extend) {
                let _ = disk.remove(old);
            }
        }
        Ok(Some(Outcome::Done(digest)))
    }
}

fn there_already() -> Outcome {
    Outcome::Failed("is there already with other content (--force replaces it)".to_string())
}

/// What the machine of the connection is at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Doing {
    /// Waits for an answer.
    Asking,
    /// Sends the file; an answer now is bad news.
    Sending,
    /// Receives the file.
    Receiving,
}

/// The machine of one connection, for one file.
struct Carrier {
    shared: Rc<RefCell<Shared>>,
    courier: Id,
    lines: LineDecoder,
    doing: Doing,
    /// The server has said where it goes on.
    has_begun: bool,
    /// What the system said of the connection.
    failure: Option<String>,
}

impl Carrier {
    fn wait_for_answer(&mut self, context: &mut Context<'_>) {
        self.doing = Doing::Asking;
        *context.busy = false;
        *context.deadline = Some(context.now + ANSWER_FACTOR * context.limits.files_progress);
    }

    fn end(&mut self, context: &mut Context<'_>, outcome: Outcome) {
        self.shared.borrow_mut().outcome = Some(outcome);
        (*context.busy, *context.deadline) = (false, None);
        context.close(Close::Bye);
    }

    /// What a step came to.
    fn result(&mut self, context: &mut Context<'_>, result: io::Result<Option<Outcome>>) {
        match result {
            Ok(None) => (),
            Ok(Some(outcome)) => self.end(context, outcome),
            Err(error) => self.end(context, Outcome::Failed(error.to_string())),
        }
    }

    fn line(&mut self, context: &mut Context<'_>, line: &[u8]) {
        let shared = self.shared.clone();
        let (is_sent, size, wanted) = {
            let trip = &shared.borrow().trip;
            (trip.is_sent, trip.size, trip.digest)
        };
        let is_ours = |name: &str| shared.borrow().trip.name == name;
        match Answer::read(line) {
            _ if line == b"PING" || line == b"PONG" => (),
            Some(Answer::Ready(offset)) if is_sent && self.doing == Doing::Asking && offset <= size => {
                self.has_begun = true;
                {
                    // What was sent proves nothing; what has arrived does.
                    let shared = &mut *shared.borrow_mut();
                    shared.trip.at = offset;
                    shared.has_moved |= offset > shared.trip.most_ready;
                    shared.trip.most_ready = offset.max(shared.trip.most_ready);
                }
                if offset < size {
                    (self.doing, *context.deadline) = (Doing::Sending, Some(context.now));
                }
            }
            Some(Answer::Whole { is_stored: true, name, size: stored, digest })
                if is_sent && is_ours(name) && stored == size && wanted == Some(digest) =>
            {
                self.end(context, Outcome::Done(digest));
            }
            Some(Answer::Whole { is_stored: false, name, size, digest }) if !is_sent && is_ours(name) => {
                (self.doing, self.has_begun) = (Doing::Receiving, true);
                *context.deadline = Some(context.now + context.limits.files_progress);
                let found = shared.borrow_mut().found(size, digest);
                self.result(context, found);
            }
            // These say that it may go better soon.
            Some(Answer::Error { word: "busy" | "idle" | "stalled" | "shutdown" | "full", sentence }) => {
                self.end(context, Outcome::Lost(shown(sentence)));
            }
            Some(Answer::Error { word: "offset", .. }) if !is_sent => {
                let outcome = shared.borrow_mut().is_shorter();
                self.result(context, outcome.map(Some));
            }
            Some(Answer::Error { word, sentence }) => {
                self.end(context, Outcome::Failed(shown(&format!("{word}: {sentence}"))));
            }
            _ => {
                let line = line[..line.len().min(80)].escape_ascii();
                self.end(context, Outcome::Failed(format!("the server does not speak as one of files: \"{line}\"")));
            }
        }
    }

    /// A turn's share of what is sent.
    fn send(&mut self, context: &mut Context<'_>) {
        let shared = self.shared.clone();
        let mut shared = shared.borrow_mut();
        let Shared { trip, scratch, watch, .. } = &mut *shared;
        scratch.resize(context.limits.files_budget_bytes, 0);
        let left = usize::try_from(trip.size - trip.at).unwrap_or(usize::MAX);
        let most = context.high_bytes.saturating_sub(context.outbox.len()).min(left).min(scratch.len());
        let read = trip.file.as_mut().map_or(Ok(0), |file| file.read_at(trip.at, &mut scratch[..most]));
        let count = match read {
            Ok(0) if most > 0 => Err(io::Error::other("it became shorter while it was sent")),
            read => read,
        };
        match count {
            Ok(count) => {
                context.outbox.push(&scratch[..count]);
                trip.at += count as u64;
                watch.moved(&trip.name, Step::Moving, trip.at, trip.size);
            }
            Err(error) => {
                drop(shared);
                return self.end(context, Outcome::Failed(error.to_string()));
            }
        }
        if shared.trip.at == shared.trip.size {
            drop(shared);
            return self.wait_for_answer(context);
        }
        // Above the mark it is busy: neither read nor paused. `drained` then gives it one turn to be read before the next piece.
        *context.busy = context.outbox.len() >= context.high_bytes;
        *context.deadline = (!*context.busy).then_some(context.now);
    }
}

impl Shared {
    /// The server's file is shorter than what is here.
    fn is_shorter(&mut self) -> io::Result<Outcome> {
        if self.trip.is_there {
            return Ok(there_already());
        }
        let part = std::mem::take(&mut self.trip.part);
        self.disk()?.remove(&part)?;
        Ok(Outcome::Again)
    }
}

impl Protocol for Carrier {
    fn opened(&mut self, context: &mut Context<'_>, _: SocketAddr) {
        let shared = self.shared.clone();
        let mut shared = shared.borrow_mut();
        shared.has_met = true;
        let Trip { name, size, at, digest, is_sent, .. } = &shared.trip;
        let _ = match digest {
            Some(digest) if *is_sent => writeln!(context.outbox, "PUT {name} {size} {digest}"),
            _ => writeln!(context.outbox, "GET {name} {at}"),
        }; // pushing cannot fail
        self.wait_for_answer(context);
    }

    fn bytes(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> usize {
        let mut consumed = 0;
        while !context.is_closing() && !context.is_full() && consumed < bytes.len() {
            let rest = &bytes[consumed..];
            if self.doing == Doing::Receiving {
                *context.deadline = Some(context.now + context.limits.files_progress);
                let taken = self.shared.borrow_mut().take(rest);
                self.result(context, taken);
                return bytes.len();
            }
            match self.lines.next(rest, context.limits.max_line_bytes) {
                Line::Whole { line, used } => {
                    self.line(context, line);
                    consumed += used;
                }
                Line::Unfinished => return consumed,
                Line::TooLong => {
                    context.close(Close::TooLong);
                }
            }
        }
        if context.is_closing() { bytes.len() } else { consumed }
    }

    fn drained(&mut self, context: &mut Context<'_>) {
        if self.doing == Doing::Sending {
            (*context.busy, *context.deadline) = (false, Some(context.now));
        }
    }

    fn expired(&mut self, context: &mut Context<'_>) {
        if self.doing == Doing::Sending { self.send(context) } else { context.close(Close::NoProgress) }
    }

    fn failed(&mut self, error: &io::Error) {
        self.failure = Some(error.to_string());
    }

    fn closed(&mut self, close: Close) {
        let mut shared = self.shared.borrow_mut();
        if shared.outcome.is_none() {
            let why = match (self.failure.take(), close) {
                (Some(failure), _) => failure,
                (None, Close::Bye) => "the server ended the connection".to_string(),
                (None, close) => close.sentence(&Limits::default()).to_string(),
            };
            let at = shared.trip.at;
            let where_ = if self.has_begun && at > 0 { format!(" after {at} bytes") } else { String::new() };
            shared.outcome = Some(Outcome::Lost(format!("{why}{where_}")));
        }
    }

    fn heir(&self) -> Option<Id> {
        Some(self.courier)
    }
}

/// What a server has said, fit for a terminal.
fn shown(sentence: &str) -> String {
    let mut text = String::new();
    crate::wire::text::show(sentence.as_bytes(), &mut text);
    text
}
