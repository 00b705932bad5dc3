//! A kernel that is strictly edge-triggered: what has been reported once is not reported again, and whoever asks without
//! having been told that it is worth asking is caught.

use crate::clients::Service;
use crate::random::Random;
use crate::world::World;
use oneloop::close::Close;
use oneloop::net::{AcceptError, Event, Net, Read, Readiness, Source};
use oneloop::time::Moment;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

pub(crate) type Shared = Rc<RefCell<World>>;

/// What the reactor holds of a socket of any kind; dropping it closes the socket.
pub(crate) struct Handle {
    pub(crate) node: usize,
    pub(crate) world: Shared,
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.world.borrow_mut().dropped(self.node);
        }
    }
}

/// A socket as the kernel sees it. Its number is never used again, unlike the key under which it is watched.
pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) key: Option<usize>,
    watched_before: bool,
    pub(crate) dropped: bool,
    /// The reactor was told, and has not been told otherwise since.
    pub(crate) may_read: bool,
    pub(crate) may_write: bool,
    /// A stop has begun, in which the loop reads once more without having been told.
    pub(crate) excused: bool,
    /// What was taken from it in this turn: connections, datagrams or bytes.
    pub(crate) taken_now: usize,
    /// `accept` failed for want of descriptors then, and has not been tried since.
    pub(crate) exhausted_at: Option<Moment>,
}

pub(crate) enum Kind {
    Stream(Box<Pipe>),
    /// Those who wait, oldest first, as nodes.
    Listener(VecDeque<usize>),
    Datagram(VecDeque<(Vec<u8>, SocketAddr)>),
    /// Signals that nobody has taken yet.
    Signals(usize),
}

/// Both directions of a connection.
pub(crate) struct Pipe {
    pub(crate) client: usize,
    pub(crate) chats: bool,
    pub(crate) peer: SocketAddr,
    /// The turn in which it was accepted.
    pub(crate) accepted_in_turn: usize,
    /// What the client has sent and the reactor has not read, and how much of that there may be.
    pub(crate) to_server: VecDeque<u8>,
    pub(crate) to_server_size: usize,
    /// The client has said its end behind that.
    pub(crate) fin: bool,
    /// Torn down by the client or the network.
    pub(crate) reset: bool,
    /// The reactor has been told that it is over: by an end that it read, by an error.
    pub(crate) end_read: bool,
    pub(crate) error_seen: bool,
    /// What the reactor has written and the client has not read, and how much of that there may be.
    pub(crate) to_client: VecDeque<u8>,
    to_client_size: usize,
    pub(crate) half_closed: Option<Moment>,
    /// A write found no room: room will be an event.
    pub(crate) wants_room: bool,
    /// A write found no room at least once: the reactor lingers for the whole while.
    pub(crate) pressed: bool,
    /// Writes that did not go through at once.
    pub(crate) write_troubles: usize,
    /// Bytes read and written by the reactor so far.
    pub(crate) read: usize,
    pub(crate) written: usize,
    /// When it last read something, and when it last wrote something or began to owe it.
    pub(crate) heard: Moment,
    /// The count of disturbances at that time.
    pub(crate) heard_at_disturbance: usize,
    pub(crate) progress: Moment,
    pub(crate) progress_at_disturbance: usize,
    /// Bytes that its machine has pushed so far.
    pub(crate) pushed: usize,
    /// Bytes that its machine has been given and has not consumed.
    pub(crate) unfinished: usize,
    /// The turn in which its machine was last given some.
    pub(crate) fed_in_turn: usize,
    /// It has left more unfinished than there was memory for, so it must end.
    pub(crate) one_too_many: bool,
    /// It was owed so much at the end of a turn that it must not be read until it has taken enough of that.
    pub(crate) choked: bool,
    /// The last moment at which that was so.
    pub(crate) choked_until: Moment,
    /// It has been so for so long, all times together.
    pub(crate) choked_for: Duration,
    /// Its machine has left something for want of room, and has not been asked again.
    pub(crate) held: bool,
}

impl Pipe {
    pub(crate) fn new(client: usize, service: Service, peer: SocketAddr, random: &mut Random) -> Pipe {
        Pipe {
            client,
            chats: service == Service::Chat,
            peer,
            accepted_in_turn: 0,
            to_server: VecDeque::new(),
            to_server_size: random.within(8..=64),
            fin: false,
            reset: false,
            end_read: false,
            error_seen: false,
            to_client: VecDeque::new(),
            to_client_size: random.within(8..=64),
            half_closed: None,
            wants_room: false,
            pressed: false,
            write_troubles: 0,
            read: 0,
            written: 0,
            heard: Moment::START,
            heard_at_disturbance: 0,
            progress: Moment::START,
            progress_at_disturbance: 0,
            pushed: 0,
            unfinished: 0,
            fed_in_turn: 0,
            one_too_many: false,
            choked: false,
            choked_until: Moment::START,
            choked_for: Duration::ZERO,
            held: false,
        }
    }

    /// Of a member of a room only the least: what the room has for it is not counted.
    pub(crate) fn owed(&self) -> usize {
        self.pushed - self.written
    }

    fn room(&self) -> usize {
        self.to_client_size - self.to_client.len()
    }
}

impl Node {
    pub(crate) fn new(kind: Kind) -> Node {
        // The send buffer of a new stream is empty, everybody knows.
        Node {
            kind,
            key: None,
            watched_before: false,
            dropped: false,
            may_read: false,
            may_write: true,
            excused: false,
            taken_now: 0,
            exhausted_at: None,
        }
    }

    pub(crate) fn pipe(&mut self) -> &mut Pipe {
        match &mut self.kind {
            Kind::Stream(pipe) => pipe,
            _ => panic!("not a stream"),
        }
    }

    /// What an honest event would say now.
    fn readiness(&self) -> Readiness {
        match &self.kind {
            Kind::Stream(pipe) => {
                let end = pipe.fin || pipe.reset;
                Readiness {
                    readable: !pipe.to_server.is_empty() || end,
                    writable: pipe.room() > 0 || pipe.reset,
                    read_on: end,
                }
            }
            Kind::Listener(waiting) => Readiness { readable: !waiting.is_empty(), ..Readiness::default() },
            Kind::Datagram(waiting) => Readiness { readable: !waiting.is_empty(), ..Readiness::default() },
            Kind::Signals(count) => Readiness { readable: *count > 0, ..Readiness::default() },
        }
    }
}

/// An edge that has not been delivered yet.
#[derive(Clone, Copy)]
pub(crate) struct Edge {
    node: usize,
    readable: bool,
    writable: bool,
}

// What the world does to sockets, and what it sees of them.
impl World {
    /// Something has become so: it will be reported, once.
    pub(crate) fn edge(&mut self, node: usize, readable: bool, writable: bool) {
        if self.nodes[node].key.is_none() {
            return; // `watch` will look
        }
        if self.plan.two_events {
            for (readable, writable) in [(readable, false), (false, writable)] {
                let known = |edge: &Edge| edge.node == node && edge.readable == readable && edge.writable == writable;
                if (readable || writable) && !self.edges.iter().any(known) {
                    self.edges.push(Edge { node, readable, writable });
                }
            }
        } else if let Some(edge) = self.edges.iter_mut().find(|edge| edge.node == node) {
            edge.readable |= readable;
            edge.writable |= writable;
        } else {
            self.edges.push(Edge { node, readable, writable });
        }
    }

    pub(crate) fn has_edge(&self, node: usize) -> bool {
        self.edges.iter().any(|edge| edge.node == node)
    }

    /// The client or the network tears a connection down.
    pub(crate) fn reset(&mut self, node: usize) {
        let pipe = self.nodes[node].pipe();
        pipe.reset = true;
        let client = pipe.client;
        self.clients[client].reset = true;
        self.edge(node, true, true);
    }

    /// One fault in so many of a thousand cases, and none in calm weather.
    fn fault(&mut self, permille: usize) -> bool {
        self.stormy && self.random.permille(permille)
    }

    /// How an event is reported, if it is still true: epoll and kqueue look again when they deliver.
    fn report(&mut self, edge: Edge) -> Option<Event> {
        let two_events = self.plan.two_events;
        let node = &mut self.nodes[edge.node];
        let mut now = node.readiness();
        if two_events {
            now.readable &= edge.readable;
            now.writable &= edge.writable;
            now.read_on &= edge.readable;
        }
        if !now.readable && !now.writable {
            return None;
        }
        node.may_read |= now.readable;
        node.may_write |= now.writable;
        Some(Event { key: node.key?, edge: now })
    }

    fn spurious_event(&mut self) -> Option<Event> {
        if self.keys.is_empty() || !self.fault(self.plan.rates.spurious) {
            return None;
        }
        let chosen = self.random.below(self.keys.len());
        let (&key, _) = self.keys.iter().nth(chosen)?;
        let mut toss = || self.random.one_in(2);
        Some(Event { key, edge: Readiness { readable: toss(), writable: toss(), read_on: toss() } })
    }

    fn poll(&mut self, wait: Option<Duration>, batch: &mut Vec<Event>) -> io::Result<bool> {
        self.chat_commit(None);
        self.watch_for_spinning(wait);
        self.watch_for_sleeping(wait);
        if wait.is_none() {
            self.chat_sleeps();
        }
        let jumped = self.pass_time(wait);
        // A process that was suspended finds its poll interrupted.
        if self.fault(if jumped { 250 } else { self.plan.rates.poll_interrupted }) {
            self.disturbances += 1;
            self.count("polls interrupted");
            return Err(ErrorKind::Interrupted.into());
        }
        while let Some(event) = self.spurious_event()
            && batch.len() < self.limits.events
        {
            batch.push(event);
        }
        let mut edges = std::mem::take(&mut self.edges);
        self.random.shuffle(&mut edges);
        while batch.len() < self.limits.events
            && let Some(edge) = edges.pop()
        {
            batch.extend(self.report(edge));
        }
        self.edges = edges;
        self.activity += batch.len();
        self.asleep = wait.is_none() && batch.is_empty();
        let full = batch.len() >= self.limits.events;
        if full && jumped {
            self.count("batches full after a suspension");
        }
        if full {
            self.disturbances += 1;
            self.count("batches full");
        }
        Ok(full)
    }

    /// Lets time pass: until something happens, at most until the wait is over, unless this process is held up. Returns
    /// whether it was suspended.
    fn pass_time(&mut self, wait: Option<Duration>) -> bool {
        let longest = wait.unwrap_or(Duration::MAX);
        let until_event = if self.edges_before || !self.stormy && !self.edges.is_empty() {
            Duration::from_micros(self.random.below(300) as u64)
        } else if self.stormy {
            Duration::from_micros(self.random.next() >> (64 - 1 - self.random.below(self.plan.gap_bits)))
        } else {
            wait.unwrap_or_default()
        };
        self.now = self.now + until_event.min(longest);
        let mut held_up = std::mem::take(&mut self.jump);
        let jumped = !held_up.is_zero();
        if self.fault(self.plan.rates.late) {
            held_up += Duration::from_micros(self.random.below(5_000) as u64);
        }
        if !held_up.is_zero() {
            self.now = self.now + held_up;
            self.disturbances += 1;
        }
        self.maybe_stops();
        jumped
    }

    /// A stop that was asked for begins when the drain delay is over, and not before that.
    fn maybe_stops(&mut self) {
        if let Some((at, _)) = self.asked_at
            && self.stopped_at.is_none()
            && self.now >= at + self.limits.drain_delay
        {
            (self.stopped_at, self.stopped_in_turn, self.stopping_now) = (Some(self.now), self.turn, true);
            if !self.limits.drain_delay.is_zero() {
                self.count("stops after a delay");
            }
        }
    }

    fn watch(&mut self, node: usize, key: usize) -> io::Result<()> {
        let watched = &mut self.nodes[node];
        assert!(!watched.dropped && !watched.watched_before, "watched twice");
        assert!(!self.keys.contains_key(&key), "key {key} is in use");
        if matches!(watched.kind, Kind::Stream(_)) && self.fault(self.plan.rates.watch) {
            self.count("watches failed");
            let client = self.nodes[node].pipe().client;
            self.clients[client].unwatched = true;
            return Err(ErrorKind::OutOfMemory.into());
        }
        if !self.keys_ever.insert(key) {
            self.count("keys used again");
        }
        self.keys.insert(key, node);
        let (now, disturbances) = (self.now, self.disturbances);
        let watched = &mut self.nodes[node];
        (watched.key, watched.watched_before) = (Some(key), true);
        if let Kind::Stream(pipe) = &mut watched.kind {
            (pipe.heard, pipe.heard_at_disturbance, pipe.progress) = (now, disturbances, now);
        }
        let ready = watched.readiness();
        if ready.readable || ready.writable {
            self.edge(node, ready.readable, ready.writable);
        }
        Ok(())
    }

    fn unwatch(&mut self, node: usize) {
        let key = self.nodes[node].key.take().expect("unwatched what was not watched");
        self.keys.remove(&key);
        self.edges.retain(|edge| edge.node != node);
    }

    /// The descriptor is closed. That makes no event for whoever waits for one.
    fn dropped(&mut self, node: usize) {
        assert!(self.nodes[node].key.is_none() || self.ending, "closed while still watched");
        assert!(!std::mem::replace(&mut self.nodes[node].dropped, true));
        if node == self.listeners[Service::Health.door()] && !self.ending {
            assert_eq!(
                self.web_awaits(self.turn),
                None,
                "the door of the monitors closes before somebody else has gone"
            );
            self.monitors_end = true;
        }
        match &mut self.nodes[node].kind {
            Kind::Stream(pipe) => {
                let (client, unread) = (pipe.client, !pipe.to_server.is_empty());
                self.open_streams -= 1;
                if unread && !pipe.reset {
                    self.destroy_answer(client, node); // what TCP does when a socket is closed with input unread
                }
            }
            Kind::Listener(waiting) => {
                let waiting = std::mem::take(waiting);
                assert!(waiting.is_empty() || self.exhausted_now || self.ending, "clients were left in the backlog");
                for left in waiting {
                    self.reset(left);
                }
            }
            Kind::Datagram(_) | Kind::Signals(_) => (),
        }
    }

    fn accept(&mut self, door: usize) -> Result<usize, AcceptError> {
        self.needs_reason(door, "accept");
        let exhausted =
            self.stormy && self.open_streams >= self.plan.descriptors || self.fault(self.plan.rates.exhausted);
        let passing = self.fault(self.plan.rates.passing);
        let listener = &mut self.nodes[door];
        listener.exhausted_at = None;
        let Kind::Listener(waiting) = &mut listener.kind else { panic!("not a listener") };
        if exhausted && (self.plan.exhausted_first || !waiting.is_empty()) {
            listener.exhausted_at = Some(self.now);
            self.exhausted_now = true;
            self.count("descriptors ran out");
            return Err(AcceptError::Exhausted(io::Error::other("too many open files")));
        }
        let Some(node) = waiting.pop_front() else {
            listener.may_read = false;
            self.activity += 1;
            return Err(AcceptError::Empty);
        };
        self.activity += 1;
        if passing {
            self.count("accepts passing");
            self.reset(node);
            self.nodes[node].dropped = true;
            return Err(AcceptError::Passing(ErrorKind::ConnectionAborted.into()));
        }
        if self.total("descriptors ran out") > 0 {
            self.count("accepts after descriptors ran out");
        }
        self.takes(door, 1);
        let turn = self.turn;
        self.nodes[node].pipe().accepted_in_turn = turn;
        if self.asked_at.is_some() && self.stopped_at.is_none() {
            self.count("accepted in the drain delay");
        }
        self.accepts_now += 1;
        self.accepts += 1;
        self.open_streams += 1;
        Ok(node)
    }

    /// The loop is at this socket now, and so no longer at any other.
    fn works_on(&mut self, node: usize) {
        let client = self.nodes[node].pipe().client;
        self.chat_commit(Some(client));
    }

    /// The loop learns that a connection is over.
    fn fails(&mut self, node: usize, kind: ErrorKind) -> io::Error {
        let pipe = self.nodes[node].pipe();
        pipe.error_seen = true;
        let client = pipe.client;
        self.chat_dies(client, Close::Error.word());
        kind.into()
    }

    /// Fails as the network may: interrupted, or torn down.
    fn trouble(&mut self, node: usize) -> io::Result<()> {
        if self.fault(self.plan.rates.interrupted) {
            self.activity += 1;
            self.nodes[node].pipe().write_troubles += 1;
            return Err(ErrorKind::Interrupted.into());
        }
        if self.fault(self.plan.rates.reset) {
            self.reset(node);
        }
        Ok(())
    }

    fn read(&mut self, node: usize, buffer: &mut [u8], read_on: bool) -> io::Result<Read> {
        self.needs_reason(node, "read");
        self.works_on(node);
        self.check_lean(node, buffer.len());
        self.trouble(node)?;
        let partial = self.fault(self.plan.rates.partial_read);
        let (now, disturbances) = (self.now, self.disturbances);
        self.activity += 1;
        let used = &mut self.nodes[node];
        let pipe = used.pipe();
        assert!(!pipe.error_seen && !pipe.end_read, "read after the end");
        if pipe.reset && (pipe.to_server.is_empty() || partial) {
            return Err(self.fails(node, ErrorKind::ConnectionReset));
        }
        if pipe.to_server.is_empty() {
            pipe.end_read = pipe.fin;
            if pipe.fin {
                return Ok(Read { count: 0, drained: false });
            }
            (used.may_read, used.excused) = (false, false);
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut count = buffer.len().min(pipe.to_server.len());
        let partial = partial && count > 1;
        if partial {
            count = 1 + self.random.below(count - 1);
        }
        let pipe = self.nodes[node].pipe();
        for (place, byte) in buffer.iter_mut().zip(pipe.to_server.drain(..count)) {
            *place = byte;
        }
        pipe.read += count;
        (pipe.heard, pipe.heard_at_disturbance) = (now, disturbances);
        // Only a kernel whose short read means that nothing is left may say so; a read that this fault cut does not count.
        let drained = count < buffer.len() && !partial && !read_on && !self.plan.never_drained;
        if drained {
            let silent_end = { self.nodes[node].pipe().fin && !self.has_edge(node) };
            assert!(
                !silent_end || self.plan.spurious,
                "a short read was taken for the last word although an end was announced"
            );
            let used = &mut self.nodes[node];
            (used.may_read, used.excused) = (false, false);
        }
        self.bytes_in += count as u64;
        self.takes(node, count);
        Ok(Read { count, drained })
    }

    fn write(&mut self, node: usize, bytes: &[u8]) -> io::Result<usize> {
        assert!(!bytes.is_empty(), "a write of nothing");
        self.needs_reason(node, "write");
        self.works_on(node);
        self.trouble(node)?;
        let partial = self.fault(self.plan.rates.partial_write);
        let (now, disturbances, low_bytes) = (self.now, self.disturbances, self.limits.outbox_low_bytes);
        self.activity += 1;
        let used = &mut self.nodes[node];
        let pipe = used.pipe();
        assert!(!pipe.error_seen && pipe.half_closed.is_none(), "write after the end");
        if pipe.reset {
            return Err(self.fails(node, ErrorKind::ConnectionReset));
        }
        let mut count = bytes.len().min(pipe.room());
        if count == 0 {
            (pipe.wants_room, pipe.pressed) = (true, true);
            pipe.write_troubles += 1;
            used.may_write = false;
            return Err(ErrorKind::WouldBlock.into());
        }
        if partial && count > 1 {
            count = 1 + self.random.below(count - 1);
        }
        let pipe = self.nodes[node].pipe();
        pipe.to_client.extend(&bytes[..count]);
        pipe.written += count;
        if pipe.chats {
            pipe.pushed = pipe.pushed.max(pipe.written);
            let client = pipe.client;
            self.chat_written(client, &bytes[..count]);
        }
        let pipe = self.nodes[node].pipe();
        (pipe.progress, pipe.progress_at_disturbance) = (now, disturbances);
        assert!(pipe.written <= pipe.pushed, "more is written than was ever pushed");
        if pipe.choked && pipe.owed() <= low_bytes {
            (pipe.choked, pipe.choked_until) = (false, now);
            self.count("choked clients resumed");
        }
        self.bytes_out += count as u64;
        Ok(count)
    }

    fn half_close(&mut self, node: usize) -> io::Result<()> {
        self.works_on(node);
        let (now, disturbances) = (self.now, self.disturbances);
        let pipe = self.in_use(node).pipe();
        assert!(pipe.half_closed.is_none(), "half-closed twice");
        assert_eq!(pipe.owed(), 0, "the end was said before everything owed");
        if pipe.reset {
            return Err(self.fails(node, ErrorKind::NotConnected));
        }
        pipe.half_closed = Some(now);
        let client = pipe.client;
        self.chat_end_said(client);
        let pipe = self.nodes[node].pipe();
        (pipe.heard, pipe.heard_at_disturbance) = (now, disturbances); // from here on it is heard anew
        Ok(())
    }

    fn receive(&mut self, node: usize, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.needs_reason(node, "receive");
        self.activity += 1;
        if self.fault(self.plan.rates.datagram) {
            self.count("receives failed");
            return Err(ErrorKind::ConnectionRefused.into());
        }
        let used = &mut self.nodes[node];
        let Kind::Datagram(waiting) = &mut used.kind else { panic!("not a datagram socket") };
        let Some((bytes, from)) = waiting.pop_front() else {
            (used.may_read, used.excused) = (false, false);
            return Err(ErrorKind::WouldBlock.into());
        };
        let count = bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&bytes[..count]);
        self.takes(node, 1);
        self.datagram_received(&bytes, from);
        Ok((count, from))
    }

    fn send(&mut self, node: usize, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        self.in_use(node);
        self.activity += 1;
        self.datagram_sent(bytes, to);
        if self.fault(self.plan.rates.datagram) {
            self.count("sends failed");
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(())
    }

    fn take_signals(&mut self, node: usize) -> usize {
        self.needs_reason(node, "taking signals");
        let used = &mut self.nodes[node];
        (used.may_read, used.excused) = (false, false);
        let Kind::Signals(count) = &mut used.kind else { panic!("not the signals") };
        let taken = std::mem::take(count);
        if taken > 0 && self.asked_at.is_none() {
            self.asked_at = Some((self.now, self.turn));
            self.maybe_stops();
        }
        taken
    }

    /// The end of the turn in which a stop began: what was not read to its end may still be.
    pub(crate) fn stop_has_begun(&mut self) {
        for node in &mut self.nodes {
            node.excused = true;
        }
    }
}

/// The world as the reactor sees it.
pub(crate) struct Fake(pub(crate) Shared);

impl Net for Fake {
    type Listener = Handle;
    type Stream = Handle;
    type Datagram = Handle;
    type Signals = Handle;

    fn now(&mut self) -> Moment {
        self.0.borrow().now
    }

    fn poll(&mut self, wait: Option<Duration>, batch: &mut Vec<Event>) -> io::Result<bool> {
        self.0.borrow_mut().poll(wait, batch)
    }

    fn watch(&mut self, source: Source<'_, Fake>, key: usize) -> io::Result<()> {
        self.0.borrow_mut().watch(node(source), key)
    }

    fn unwatch(&mut self, source: Source<'_, Fake>) {
        self.0.borrow_mut().unwatch(node(source));
    }

    fn accept(&mut self, listener: &mut Handle) -> Result<(Handle, SocketAddr), AcceptError> {
        let mut world = self.0.borrow_mut();
        let node = world.accept(listener.node)?;
        let peer = world.nodes[node].pipe().peer;
        Ok((Handle { node, world: self.0.clone() }, peer))
    }

    fn dial(&mut self, to: SocketAddr) -> io::Result<Handle> {
        panic!("nobody dials here, but somebody has: {to}")
    }

    fn connected(&mut self, _: &mut Handle) -> io::Result<Option<SocketAddr>> {
        panic!("nobody dials here")
    }

    fn read(&mut self, stream: &mut Handle, buffer: &mut [u8], read_on: bool) -> io::Result<Read> {
        self.0.borrow_mut().read(stream.node, buffer, read_on)
    }

    fn write(&mut self, stream: &mut Handle, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(stream.node, bytes)
    }

    fn half_close(&mut self, stream: &mut Handle) -> io::Result<()> {
        self.0.borrow_mut().half_close(stream.node)
    }

    fn receive(&mut self, socket: &mut Handle, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.0.borrow_mut().receive(socket.node, buffer)
    }

    fn send(&mut self, socket: &mut Handle, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        self.0.borrow_mut().send(socket.node, bytes, to)
    }

    fn take_signals(&mut self, signals: &mut Handle) -> usize {
        self.0.borrow_mut().take_signals(signals.node)
    }

    fn random(&mut self) -> u64 {
        self.0.borrow_mut().random.next()
    }
}

fn node(source: Source<'_, Fake>) -> usize {
    match source {
        Source::Listener(handle) | Source::Stream(handle) => handle.node,
        Source::Datagram(handle) | Source::Signals(handle) => handle.node,
    }
}
