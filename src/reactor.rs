//! The loop: one thread, one poll, one slab. Touches the world through [`Net`] alone, so that tests run this very loop on
//! a simulated network.
//!
//! ```text
//! wait  = 0 if work was carried over, else until the next deadline, else for ever
//! batch = net.poll(wait); now = net.now()
//! MARK   each ready key becomes an Id before any code runs that could free a slot; the edge is remembered
//! WORK   each marked or carried Id: accept, receive, or read within its budget and answer at once
//! TIME   each due deadline: ask its slot; if it is still due, judge
//! FLUSH  each stream that is owed bytes and became writable: one write, or until the kernel takes no more
//! REAP   each doomed Id: no longer watched, told, removed; nothing is freed anywhere else
//! ```
//!
//! After whatever touched a slot, `settle` computes what follows: what to do next, and when to look again.

mod notices;
mod slot;
mod stream;

use crate::buffer::{Pool, Queue};
use crate::close::Close;
use crate::limits::Limits;
use crate::metrics::{Metrics, ServiceCount};
use crate::net::{Event, Net};
use crate::protocol::{Carrier, Effect, Protocol, Standing};
use crate::room::Rooms;
use crate::slots::{Id, Slots};
use crate::time::Moment;
use crate::timers::Timers;
use log::Level;
use notices::{Kind, Notices};
use slot::{Agent, Datagram, Head, Listener, Signals, Slot};
use std::io::{self, ErrorKind};
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;
use stream::{Admission, Stream};

/// Ten thousand idle connections are a megabyte: a slot and the machine behind it are all that each of them owns. (In a debug
/// build mio keeps a check of its own in every socket.)
const _: () =
    assert!(Slots::<Slot<crate::net::mio::MioNet>>::ENTRY_BYTES <= if cfg!(debug_assertions) { 104 } else { 96 });

/// Where a connection comes from that comes from nowhere.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);

/// What every slot's work may use while the slot itself is borrowed.
struct Common<N> {
    net: N,
    limits: Limits,
    metrics: Metrics,
    notices: Notices,
    pool: Pool,
    rooms: Rooms,
    /// For machines that put text together.
    text: String,
    /// What machines have asked for that is not done within their own slot, in the order in which they did.
    errands: Vec<Errand>,
    /// The one read buffer.
    scratch: Vec<u8>,
    /// What a machine has just asked for; empty between calls.
    effects: Vec<Effect>,
    /// The moment of this turn.
    now: Moment,
    /// For REAP.
    doomed: Vec<Id>,
    /// Somebody asked for a stop.
    stop_asked: bool,
    stop: Stop,
}

impl<N> Common<N> {
    fn standing(&self, is_spare: bool) -> Standing {
        Standing { is_draining: self.stop >= Stop::Draining, is_spare: is_spare || self.stop >= Stop::Stopping }
    }

    /// As what the next connection is let in.
    fn admission(&self, is_monitor: bool) -> Admission {
        let (metrics, limits) = (&self.metrics, &self.limits);
        if metrics.open < limits.max_connections {
            Admission::Served
        } else if is_monitor && metrics.spare_open < limits.max_spare {
            Admission::Spare
        } else {
            Admission::Refused
        }
    }

    /// Whether so many are being refused that one more has to wait for it: descriptors stay within what was reckoned with.
    fn is_crowded(&self) -> bool {
        self.metrics.refused_open >= self.limits.max_refused
    }

    /// What the service is called whose number slots hold.
    fn name_of(&self, service: u8) -> &'static str {
        self.metrics.services[service as usize].name
    }

    /// Whether the memory budget is used up.
    fn is_lean(&self) -> bool {
        self.pool.queued() + self.rooms.bytes() > self.limits.memory_bytes
    }

    fn read_budget_bytes(&self) -> usize {
        if self.is_lean() { self.limits.lean_read_bytes } else { self.limits.read_budget_bytes }
    }

    /// Takes down what the machine of slot `id` asks of the loop or of another slot.
    fn enqueue(&mut self, id: Id, service: u8, effect: Effect) {
        self.errands.push(match effect {
            Effect::Stop => return self.stop_asked = true,
            Effect::Send { to, line } => Errand::Letter { to, from: id, line },
            Effect::Wake(to) => Errand::Wake(to),
            Effect::Dial { to, by, machine } => Errand::Dial { service, to, by, machine },
            Effect::Close(_) | Effect::End => unreachable!("for the slot itself"),
        });
    }

    /// The last that a machine is told.
    fn closed(&mut self, mut machine: Box<dyn Protocol>, close: Close) {
        machine.closed(close);
        self.errands.extend(machine.heir().map(Errand::Wake));
    }

    fn metrics_leave(&mut self, admission: Admission, service: u8) {
        let metrics = &mut self.metrics;
        *match admission {
            Admission::Served => &mut metrics.open,
            Admission::Spare => &mut metrics.spare_open,
            Admission::Refused => &mut metrics.refused_open,
            Admission::Dialed | Admission::Adopted => return,
        } -= 1;
        if admission != Admission::Refused {
            metrics.left(service);
        }
    }

    /// From so many bytes on an outbox is full.
    fn high_bytes(&self) -> usize {
        if self.is_lean() { self.limits.lean_read_bytes } else { self.limits.outbox_high_bytes }
    }

    /// Down to so many bytes an outbox stays full once it was.
    fn low_bytes(&self) -> usize {
        self.limits.outbox_low_bytes.min(self.high_bytes() - 1)
    }
}

/// What a machine has asked for that is done once its own slot is settled.
enum Errand {
    /// A line for another connection, or a word for this one if that has no room.
    Letter { to: Id, from: Id, line: String },
    /// Another machine is to look.
    Wake(Id),
    /// A connection is to begin, in the name of the service that wants it.
    Dial { service: u8, to: SocketAddr, by: Carrier, machine: Box<dyn Protocol> },
}

/// What is to be done with a slot, as its state says.
#[derive(Clone, Copy, Debug, Default)]
struct Todo {
    /// In the next turn's WORK.
    work: bool,
    /// In the next FLUSH.
    flush: bool,
    /// When to look again whatever happens.
    due: Option<Moment>,
}

/// How far a stop has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Stop {
    /// Nobody has asked for one.
    #[default]
    None,
    /// Everything goes on for the drain delay; whoever asks how the server is learns of it.
    Draining,
    /// Nothing is accepted or read any more but for those who ask how the server is.
    Stopping,
    /// The others have gone: not for those either.
    Ending,
}

/// How the loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Everything owed was sent, or the drain time was up.
    Drained,
    /// A second signal came before that.
    Killed,
}

/// The loop and everything in it. See the [front page](crate) for a program around it.
pub struct Reactor<N: Net> {
    common: Common<N>,
    slots: Slots<Slot<N>>,
    timers: Timers,
    /// What the kernel said this turn.
    batch: Vec<Event>,
    /// To be worked on: marked, or carried over. Each stands here once, see `Head::listed`.
    work: Vec<Id>,
    /// To be written to.
    behind: Vec<Id>,
    /// Listeners to be worked on last: whoever leaves in a turn makes room for who comes in it.
    doors: Vec<Id>,
    /// Listeners that wait for a connection to end: for its descriptor, or for its place among the refused.
    starved: Vec<Id>,
    /// The lists being gone through; kept for their memory.
    working: Vec<Id>,
    due: Vec<(Moment, Id)>,
    signals: usize,
    /// When the drain delay is over.
    stop_at: Option<Moment>,
    drain_until: Option<Moment>,
    ended: Option<Ended>,
}

impl<N: Net> Reactor<N> {
    /// A loop with nothing in it.
    ///
    /// # Panics
    /// If the limits contradict each other: see [`Limits::check`].
    pub fn new(mut net: N, limits: Limits) -> Reactor<N> {
        if let Err(sentence) = limits.check() {
            panic!("limits contradict each other: {sentence}");
        }
        let now = net.now();
        Reactor {
            common: Common {
                net,
                metrics: Metrics::default(),
                notices: Notices::new(limits.log_repeat),
                pool: Pool::new(),
                rooms: Rooms::default(),
                text: String::new(),
                errands: Vec::new(),
                scratch: vec![0; limits.read_budget_bytes.max(limits.max_datagram_bytes + 1)],
                effects: Vec::new(),
                now,
                doomed: Vec::new(),
                stop_asked: false,
                stop: Stop::None,
                limits,
            },
            slots: Slots::new(),
            timers: Timers::default(),
            batch: Vec::new(),
            work: Vec::new(),
            behind: Vec::new(),
            doors: Vec::new(),
            starved: Vec::new(),
            working: Vec::new(),
            due: Vec::new(),
            signals: 0,
            stop_at: None,
            drain_until: None,
            ended: None,
        }
    }

    /// Serves connections from `listener`, each with a machine of its own. `name` is the service's in the log.
    ///
    /// # Errors
    /// The kernel will not watch the listener.
    pub fn listen(
        &mut self,
        name: &'static str,
        listener: N::Listener,
        machine: impl Fn() -> Box<dyn Protocol> + 'static,
    ) -> io::Result<()> {
        self.open(name, listener, false, Box::new(machine))
    }

    /// The same for a service that can be asked how the server is: when that is full, [`Limits::max_spare`] connections more
    /// are let in, and while it stops, this listener closes last. Machines read in `Context::standing` what to refuse then, and
    /// say by [`Protocol::outlasts`] which connections go on.
    ///
    /// # Errors
    /// As [`Reactor::listen`].
    pub fn monitor(
        &mut self,
        name: &'static str,
        listener: N::Listener,
        machine: impl Fn() -> Box<dyn Protocol> + 'static,
    ) -> io::Result<()> {
        self.open(name, listener, true, Box::new(machine))
    }

    fn open(
        &mut self,
        name: &'static str,
        listener: N::Listener,
        is_monitor: bool,
        machine: Box<dyn Fn() -> Box<dyn Protocol>>,
    ) -> io::Result<()> {
        let service = self.service(name);
        let head = Head::default();
        let listener = Listener { head, socket: listener, service, is_monitor, machine, retry_at: None };
        self.insert(Slot::Listener(Box::new(listener))).map(drop).map_err(|(error, _)| error)
    }

    /// Serves the datagrams of `socket`, which is bound to `local`, with one machine.
    ///
    /// # Errors
    /// The kernel will not watch the socket.
    pub fn serve_datagrams(
        &mut self,
        name: &'static str,
        socket: N::Datagram,
        local: SocketAddr,
        machine: Box<dyn Protocol>,
    ) -> io::Result<()> {
        let service = self.service(name);
        let (head, reply) = (Head::default(), Queue::default());
        let datagram = Datagram { head, socket, service, machine, reply, deadline: None };
        let id = self.insert(Slot::Datagram(Box::new(datagram))).map_err(|(error, _)| error)?;
        if let Some(Slot::Datagram(datagram)) = self.slots.get_mut(id) {
            datagram.tell(id, &mut self.common, |machine, context| machine.opened(context, local));
        }
        self.settle(id);
        Ok(())
    }

    /// Begins a connection to `to`, with a machine of its own: see [`Context::dial`](crate::protocol::Context::dial).
    ///
    /// # Errors
    /// The system will not even begin it; the machine is dropped untold.
    pub fn dial(&mut self, name: &'static str, to: SocketAddr, machine: Box<dyn Protocol>) -> io::Result<Id> {
        let service = self.service(name);
        self.begin(service, to, Carrier::Tcp, machine).map_err(|(error, _)| error)
    }

    /// Serves a connection that is there already, from nowhere: the machine is told the unspecified address.
    ///
    /// # Errors
    /// The kernel will not watch it.
    pub fn adopt(&mut self, name: &'static str, socket: N::Stream, machine: Box<dyn Protocol>) -> io::Result<Id> {
        let service = self.service(name);
        let mut stream = Stream::new(socket, service, Admission::Adopted, machine, NOWHERE, &self.common);
        // What cannot be watched is always readable; of everything else the first read says it.
        stream.head.ready.readable = true;
        let id = self.insert(Slot::Stream(stream)).map_err(|(error, _)| error)?;
        if let Some(Slot::Stream(stream)) = self.slots.get_mut(id) {
            stream.open(id, NOWHERE, &mut self.common);
        }
        self.settle(id);
        Ok(id)
    }

    /// Adds a machine without a connection: it is told [`Protocol::opened`] with the unspecified address, has a deadline, can be
    /// woken, and dials.
    pub fn add(&mut self, name: &'static str, machine: Box<dyn Protocol>) -> Id {
        let service = self.service(name);
        let agent = Agent { head: Head::default(), service, machine, deadline: None };
        let id = self.slots.insert(Slot::Agent(Box::new(agent)));
        if let Some(Slot::Agent(agent)) = self.slots.get_mut(id) {
            agent.tell(id, &mut self.common, |machine, context| machine.opened(context, NOWHERE));
        }
        self.settle(id);
        id
    }

    /// Stops when `signals` says so: the first one cleanly, the second at once.
    ///
    /// # Errors
    /// The kernel will not watch the source.
    pub fn stop_on(&mut self, signals: N::Signals) -> io::Result<()> {
        let signals = Signals { head: Head::default(), socket: signals };
        self.insert(Slot::Signals(Box::new(signals))).map(drop).map_err(|(error, _)| error)
    }

    /// Asks for a clean stop in the next turn, as a first signal does.
    pub fn stop(&mut self) {
        self.common.stop_asked = true;
    }

    /// What has happened so far.
    pub fn metrics(&self) -> &Metrics {
        &self.common.metrics
    }

    /// Bytes queued now: in all inboxes and outboxes, and in the logs of the rooms.
    pub fn queued_bytes(&self) -> usize {
        self.common.pool.queued() + self.common.rooms.bytes()
    }

    /// Turns until something ends it.
    ///
    /// # Errors
    /// The network cannot go on. No error of one peer comes here.
    pub fn run(&mut self) -> io::Result<Ended> {
        loop {
            if let Some(ended) = self.turn()? {
                return Ok(ended);
            }
        }
    }

    /// Goes round once: waits, works, and returns how it ended if it has.
    ///
    /// # Errors
    /// As [`Reactor::run`].
    pub fn turn(&mut self) -> io::Result<Option<Ended>> {
        let full = self.poll()?;
        self.mark();
        self.work();
        self.begin_stop();
        // After a suspension thousands of answers may wait: while there may be more of them, nobody is judged.
        if !full {
            self.time();
        }
        self.flush();
        self.reap();
        self.compact_timers();
        self.finish();
        Ok(self.ended)
    }

    fn poll(&mut self) -> io::Result<bool> {
        self.common.metrics.queued_bytes = self.common.pool.queued();
        // One look at the clock says how long the last turn took and how long to wait.
        let now = self.common.net.now();
        if self.common.metrics.turns > 0 {
            self.common.metrics.turn.add(now - self.common.now);
        }
        let wait = self.wait(now);
        self.batch.clear();
        let full = match self.common.net.poll(wait, &mut self.batch) {
            // A suspension ends so, too: nothing was looked at, so anything may be waiting.
            Err(error) if error.kind() == ErrorKind::Interrupted => true,
            result => result?,
        };
        self.common.now = self.common.net.now();
        self.common.metrics.turns += 1;
        Ok(full)
    }

    fn wait(&self, now: Moment) -> Option<Duration> {
        let common = &self.common;
        let carried = !self.work.is_empty() || !self.behind.is_empty() || !common.errands.is_empty();
        let carried = carried || common.rooms.has_news();
        if carried || self.common.stop_asked && self.common.stop == Stop::None {
            return Some(Duration::ZERO);
        }
        let deadline = [self.timers.next(), self.stop_at, self.drain_until].into_iter().flatten().min()?;
        Some(deadline - now)
    }

    fn mark(&mut self) {
        for index in 0..self.batch.len() {
            let Event { key, edge } = self.batch[index];
            let Some(id) = self.slots.id_of(key) else { continue };
            if let Some(slot) = self.slots.get_mut(id) {
                slot.head().ready.add(edge);
            }
            self.list(id);
        }
    }

    fn work(&mut self) {
        std::mem::swap(&mut self.work, &mut self.working);
        for index in 0..self.working.len() {
            let id = self.working[index];
            let Some(slot) = self.slots.get_mut(id) else { continue };
            slot.head().listed = false;
            match slot {
                Slot::Stream(stream) => stream.work(id, &mut self.common),
                Slot::Datagram(datagram) => datagram.work(id, &mut self.common),
                Slot::Listener(_) => {
                    self.doors.push(id);
                    continue;
                }
                Slot::Signals(signals) => {
                    signals.head.ready.readable = false;
                    self.signals += self.common.net.take_signals(&mut signals.socket);
                }
                Slot::Agent(_) => (),
            }
            self.settle(id);
            self.deliver();
        }
        self.working.clear();
        while let Some(id) = self.doors.pop() {
            self.accept(id, self.common.limits.accept_budget, false);
            self.settle(id);
        }
    }

    /// Does what machines have asked for, in the order in which they did.
    fn deliver(&mut self) {
        let mut errands = std::mem::take(&mut self.common.errands);
        for errand in errands.drain(..) {
            match errand {
                Errand::Letter { to, from, line } => self.hand_over(to, from, &line),
                Errand::Wake(id) => self.wake(id),
                Errand::Dial { service, to, by, machine } => self.dial_for(service, to, by, machine),
            }
        }
        errands.append(&mut self.common.errands); // what this has made machines ask for: next time
        self.common.errands = errands;
    }

    fn hand_over(&mut self, to: Id, from: Id, line: &str) {
        let delivered = match self.slots.get_mut(to) {
            Some(Slot::Stream(stream)) => stream.give(line, &mut self.common),
            _ => false,
        };
        if delivered {
            self.settle(to);
        } else if let Some(Slot::Stream(stream)) = self.slots.get_mut(from) {
            self.common.metrics.private_undelivered += 1;
            stream.give("ERROR busy: your message was not delivered, too much waits there", &mut self.common);
            self.settle(from);
        }
    }

    fn wake(&mut self, id: Id) {
        match self.slots.get_mut(id) {
            Some(Slot::Stream(stream)) => stream.wake(id, &mut self.common),
            Some(Slot::Agent(agent)) => agent.tell(id, &mut self.common, |machine, context| machine.woken(context)),
            _ => return,
        }
        self.settle(id);
    }

    /// Begins a connection for a machine, whose own machine learns of a failure as of any other.
    fn dial_for(&mut self, service: u8, to: SocketAddr, by: Carrier, machine: Box<dyn Protocol>) {
        if self.common.stop >= Stop::Stopping {
            self.common.closed(machine, Close::Shutdown);
        } else if let Err((error, mut machine)) = self.begin(service, to, by, machine) {
            log::debug!("{}: dialing {to}: {error}", self.common.name_of(service));
            machine.failed(&error);
            self.common.closed(machine, Close::Error);
        }
    }

    fn begin(
        &mut self,
        service: u8,
        to: SocketAddr,
        by: Carrier,
        machine: Box<dyn Protocol>,
    ) -> Result<Id, (io::Error, Box<dyn Protocol>)> {
        let begun = match by {
            Carrier::Tcp => self.common.net.dial(to),
            Carrier::Datagrams => self.common.net.dial_datagrams(to),
        };
        let socket = match begun {
            Ok(socket) => socket,
            Err(error) => return Err((error, machine)),
        };
        let stream = Stream::dialing(socket, service, machine, to, &self.common);
        let id = self.insert(Slot::Stream(stream)).map_err(|(error, slot)| match slot {
            Slot::Stream(stream) => (error, stream.into_machine()),
            _ => unreachable!("a stream was to be inserted"),
        })?;
        log::debug!("{} {id} dials {to}", self.common.name_of(service));
        self.settle(id);
        Ok(id)
    }

    fn time(&mut self) {
        // First all that is due, then the work: what it arms anew waits for the next turn.
        while let Some(due) = self.timers.pop_due(self.common.now) {
            self.due.push(due);
        }
        for index in 0..self.due.len() {
            let (at, id) = self.due[index];
            let Some(slot) = self.slots.get_mut(id) else { continue };
            if slot.head().armed != Some(at) {
                continue; // superseded by a sooner one
            }
            slot.head().armed = None;
            match slot {
                Slot::Stream(stream) => {
                    if let Some((due, verdict)) = stream.due(&self.common)
                        && due <= self.common.now
                    {
                        stream.judge(id, verdict, &mut self.common);
                    }
                }
                Slot::Listener(listener) => listener.retry_at = listener.retry_at.filter(|at| *at > self.common.now),
                Slot::Datagram(datagram) => datagram.expire(id, &mut self.common),
                Slot::Agent(agent) => agent.expire(id, &mut self.common),
                Slot::Signals(_) => (),
            }
            self.settle(id);
        }
        self.due.clear();
    }

    fn flush(&mut self) {
        self.deliver();
        std::mem::swap(&mut self.behind, &mut self.working);
        for index in 0..self.working.len() {
            let id = self.working[index];
            if let Some(Slot::Stream(stream)) = self.slots.get_mut(id) {
                stream.flush(id, &mut self.common);
                self.settle(id);
            }
        }
        self.working.clear();
        self.flush_rooms();
    }

    /// The members of rooms with news, within the budget: each is written to once, however much was said this turn.
    fn flush_rooms(&mut self) {
        let most_bytes = self.common.metrics.bytes_out + self.common.limits.fan_out_bytes;
        for _ in 0..self.common.limits.fan_out_budget {
            if self.common.metrics.bytes_out > most_bytes {
                return;
            }
            let Some(id) = self.common.rooms.next_with_news() else { return };
            if let Some(Slot::Stream(stream)) = self.slots.get_mut(id) {
                stream.flush(id, &mut self.common);
                self.settle(id);
            }
        }
    }

    fn reap(&mut self) {
        if self.common.doomed.is_empty() {
            return;
        }
        let mut doomed = std::mem::take(&mut self.common.doomed);
        for id in doomed.drain(..) {
            let Some(mut slot) = self.slots.remove(id) else { continue };
            if let Some(source) = slot.source() {
                self.common.net.unwatch(source);
            }
            match slot {
                Slot::Stream(stream) => stream.bury(id, &mut self.common),
                Slot::Datagram(mut datagram) => datagram.machine.closed(Close::Shutdown),
                Slot::Listener(_) | Slot::Signals(_) | Slot::Agent(_) => (),
            }
        }
        self.common.doomed = doomed;
        // A descriptor is free.
        while let Some(id) = self.starved.pop() {
            if let Some(Slot::Listener(listener)) = self.slots.get_mut(id) {
                listener.retry_at = None;
                self.settle(id);
            }
        }
    }

    /// Superseded deadlines stay in the heap until they fire; a storm of short lives must not pile them up.
    fn compact_timers(&mut self) {
        if self.timers.len() > 2 * self.slots.len() + 64 {
            let slots = &mut self.slots;
            self.timers.compact(|at, id| slots.get_mut(id).is_some_and(|slot| slot.head().armed == Some(at)));
        }
    }

    /// What follows from the state of a slot that was just touched. The only place that lists, flushes later, or arms.
    fn settle(&mut self, id: Id) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        let todo = match slot {
            Slot::Stream(stream) => stream.settle(id, &mut self.common),
            Slot::Listener(listener) => Todo { work: listener.may_accept(), due: listener.retry_at, flush: false },
            Slot::Datagram(datagram) => {
                Todo { work: datagram.head.ready.readable, due: datagram.deadline, flush: false }
            }
            Slot::Agent(agent) => Todo { due: agent.deadline, ..Todo::default() },
            Slot::Signals(_) => Todo::default(),
        };
        let head = slot.head();
        if let Some(at) = todo.due
            && head.armed.is_none_or(|armed| at < armed)
        {
            head.armed = Some(at);
            self.timers.arm(at, id);
        }
        if todo.work {
            self.list(id);
        }
        if todo.flush {
            self.behind.push(id);
        }
    }

    /// Puts a slot on the work list, once.
    fn list(&mut self, id: Id) {
        if let Some(slot) = self.slots.get_mut(id)
            && !std::mem::replace(&mut slot.head().listed, true)
        {
            self.work.push(id);
        }
    }

    /// Accepts at most `budget` connections. For the last time nobody has to wait.
    fn accept(&mut self, id: Id, budget: usize, for_the_last_time: bool) {
        for _ in 0..budget {
            let Some(Slot::Listener(listener)) = self.slots.get_mut(id) else { return };
            if !listener.may_accept() {
                break;
            }
            let admission = self.common.admission(listener.is_monitor);
            if admission == Admission::Refused && self.common.is_crowded() && !for_the_last_time {
                listener.retry_at = Some(self.common.now + self.common.limits.accept_retry);
            } else if let Some((socket, peer)) = listener.accept(&mut self.common) {
                let (service, machine) = (listener.service, (listener.machine)());
                self.admit(socket, peer, service, admission, machine);
            }
            let Some(Slot::Listener(listener)) = self.slots.get_mut(id) else { return };
            if listener.retry_at.is_some() && !self.starved.contains(&id) {
                self.starved.push(id); // once, however often it retries before a connection ends
            }
        }
    }

    /// Gives a new connection its slot, or the reason why there is none.
    fn admit(
        &mut self,
        socket: N::Stream,
        peer: SocketAddr,
        service: u8,
        admission: Admission,
        machine: Box<dyn Protocol>,
    ) {
        let stream = Stream::new(socket, service, admission, machine, peer, &self.common);
        let id = match self.insert(Slot::Stream(stream)) {
            Ok(id) => id,
            Err((error, _)) => {
                let text = format_args!("cannot watch a connection from {peer}: {error}; it was dropped");
                self.common.notices.say(self.common.now, Kind::Socket, Level::Error, text);
                return;
            }
        };
        let metrics = &mut self.common.metrics;
        match admission {
            Admission::Served => metrics.open += 1,
            Admission::Spare => metrics.spare_open += 1,
            Admission::Refused => metrics.refused_open += 1,
            Admission::Dialed | Admission::Adopted => (),
        }
        if admission == Admission::Refused {
            metrics.refused += 1;
        } else {
            metrics.opened(service);
        }
        if let Some(Slot::Stream(stream)) = self.slots.get_mut(id) {
            stream.open(id, peer, &mut self.common);
            stream.flush(id, &mut self.common);
        }
        self.settle(id);
    }

    /// Puts something into a slot and has it watched, for life.
    fn insert(&mut self, slot: Slot<N>) -> Result<Id, (io::Error, Slot<N>)> {
        let id = self.slots.insert(slot);
        let source = self.slots.get_mut(id).and_then(Slot::source);
        match source.map_or(Ok(()), |source| self.common.net.watch(source, id.key())) {
            Ok(()) => Ok(id),
            Err(error) => {
                let Some(slot) = self.slots.remove(id) else { unreachable!("just inserted") };
                Err((error, slot)) // never watched, so no event can name it
            }
        }
    }

    fn service(&mut self, name: &'static str) -> u8 {
        let services = &mut self.common.metrics.services;
        let known = services.iter().position(|service| service.name == name);
        let index = known.unwrap_or_else(|| {
            services.push(ServiceCount::new(name));
            services.len() - 1
        });
        u8::try_from(index).expect("a program with more than 256 services is a mistake")
    }

    /// A stop that was asked for: after the drain delay whoever has come is let in and read once more, then nothing is accepted
    /// or read for the machines, but for those who ask how the server is; what was read is answered and sent.
    fn begin_stop(&mut self) {
        if self.signals > 1 {
            self.ended = Some(Ended::Killed);
        }
        let (limits, metrics, now) = (&self.common.limits, &self.common.metrics, self.common.now);
        if self.common.stop == Stop::None && (self.common.stop_asked || self.signals > 0) {
            self.common.stop = Stop::Draining;
            self.stop_at = Some(now + limits.drain_delay);
            if !limits.drain_delay.is_zero() {
                log::info!("draining: everything goes on for {:?}", limits.drain_delay);
            }
        }
        if self.stop_at.is_none_or(|at| at > now) {
            return;
        }
        self.stop_at = None;
        log::info!("stopping: {} connections to finish, at most {:?}", metrics.open, limits.drain);
        self.drain_until = Some(now + limits.drain);
        self.advance_to(Stop::Stopping);
    }

    /// Goes on to a stage of the stop: closes the listeners that do not outlast it, but lets in first whoever waits there, and hears
    /// everybody out once more.
    fn advance_to(&mut self, stage: Stop) {
        let and_monitors = stage == Stop::Ending;
        let doors: Vec<Id> = self.ids(|slot| match slot {
            Slot::Listener(listener) => and_monitors || !listener.is_monitor,
            Slot::Datagram(_) => true,
            _ => false,
        });
        for id in doors {
            match self.slots.get_mut(id) {
                // Closing a listener resets whoever is in its backlog.
                Some(Slot::Listener(listener)) => {
                    listener.head.ready.readable = true;
                    listener.retry_at = None;
                    self.accept(id, self.common.limits.backlog as usize, true);
                }
                Some(Slot::Datagram(datagram)) => datagram.work(id, &mut self.common),
                _ => (),
            }
            self.common.doomed.push(id);
        }
        let streams = self.ids(|slot| matches!(slot, Slot::Stream(_)));
        for id in &streams {
            if let Some(Slot::Stream(stream)) = self.slots.get_mut(*id) {
                stream.head.ready.readable = true; // it may have been accepted just now, before any edge
                stream.work(*id, &mut self.common);
            }
            self.settle(*id); // books what it is owed now, so that all of them together stay within the memory budget
        }
        self.deliver();
        self.common.stop = stage;
        for id in streams {
            self.settle(id);
        }
    }

    /// Once all others have gone: ends those who ask how the server is, too.
    fn end_monitors(&mut self) {
        if self.common.stop != Stop::Stopping
            || self.slots.iter().any(|(_, slot)| matches!(slot, Slot::Stream(stream) if !stream.outlasts()))
        {
            return;
        }
        self.advance_to(Stop::Ending);
        self.reap();
    }

    /// Whether a stop has come to its end; whoever is left then is cut off.
    fn finish(&mut self) {
        let Some(until) = self.drain_until else { return };
        self.end_monitors();
        let left = self.ids(|slot| matches!(slot, Slot::Stream(_)));
        if left.is_empty() {
            self.ended.get_or_insert(Ended::Drained);
        } else if until <= self.common.now {
            let guests = self.ids(|slot| matches!(slot, Slot::Stream(stream) if !stream.outlasts())).len();
            log::warn!("{guests} connections were cut off: not finished within {:?}", self.common.limits.drain);
            for id in left {
                if let Some(Slot::Stream(stream)) = self.slots.get_mut(id) {
                    stream.cut_off(id, &mut self.common);
                }
            }
            self.reap();
            self.ended.get_or_insert(Ended::Drained);
        }
        if self.ended.is_some() {
            self.common.notices.finish();
        }
    }

    fn ids(&self, wanted: impl Fn(&Slot<N>) -> bool) -> Vec<Id> {
        self.slots.iter().filter(|(_, slot)| wanted(slot)).map(|(id, _)| id).collect()
    }
}

impl<N: Net> std::fmt::Debug for Reactor<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reactor").field("slots", &self.slots.len()).field("metrics", &self.common.metrics).finish()
    }
}
