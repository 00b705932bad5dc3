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

mod doors;
mod errands;
mod notices;
mod slot;
mod stop;
mod stream;

use crate::buffer::{Pool, Queue};
use crate::close::Close;
use crate::limits::Limits;
use crate::metrics::{Metrics, ServiceCount};
use crate::net::{Event, Net};
use crate::protocol::{Effect, Protocol};
use crate::room::Rooms;
use crate::slots::{Id, Slots};
use crate::time::Moment;
use crate::timers::Timers;
use errands::Errand;
use notices::Notices;
use slot::{Datagram, Head, Listener, Signals, Slot};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;
use stop::Stop;
use stream::Admission;

/// Ten thousand idle connections are a megabyte: a slot and the machine behind it are all that each of them owns. (In a debug
/// build mio keeps a check of its own in every socket.)
const _: () =
    assert!(Slots::<Slot<crate::net::mio::MioNet>>::ENTRY_BYTES <= if cfg!(debug_assertions) { 104 } else { 96 });

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

    fn ids(&self, wanted: impl Fn(&Slot<N>) -> bool) -> Vec<Id> {
        self.slots.iter().filter(|(_, slot)| wanted(slot)).map(|(id, _)| id).collect()
    }
}

impl<N: Net> std::fmt::Debug for Reactor<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reactor").field("slots", &self.slots.len()).field("metrics", &self.common.metrics).finish()
    }
}
