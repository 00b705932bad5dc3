//! A network in memory with a clock that moves only when the loop would sleep: the real loop on it, to the microsecond.
//! Small on purpose: no faults but an end without a word, one listener, streams whose send buffers the test sizes.

#![allow(dead_code)] // each test file uses a part of this

use oneloop::limits::Limits;
use oneloop::net::{AcceptError, Event, Net, Read, Readiness, Source};
use oneloop::protocol::Protocol;
use oneloop::reactor::Reactor;
use oneloop::time::Moment;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

/// What the loop and the test both hold.
#[derive(Default)]
struct World {
    now: Duration,
    /// How far the clock may move; once the loop would sleep beyond that, the test goes on.
    until: Duration,
    reached: bool,
    events: VecDeque<Event>,
    /// Events handed over at once.
    batch: usize,
    /// Times that the loop was woken by a deadline alone.
    deadline_wakes: usize,
    listener_key: usize,
    backlog: VecDeque<usize>,
    peers: Vec<Peer>,
    /// What comes of it when the loop dials, and the moments at which it did.
    answer: Answer,
    dials: Vec<(Duration, Answer)>,
    random: u64,
}

/// What comes of dialing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Answer {
    #[default]
    Accepts,
    Refuses,
    /// Nothing, ever.
    Hangs,
}

/// The other end of a connection.
#[derive(Default)]
struct Peer {
    key: Option<usize>,
    input: VecDeque<u8>,
    input_ended: bool,
    output: Vec<u8>,
    /// Bytes that the send buffer still takes.
    room: usize,
    full: bool,
    /// Nothing is read there any more.
    broken: bool,
    half_closed: bool,
    dropped: bool,
    /// What came of it, if the loop dialed.
    answer: Answer,
}

impl World {
    fn edge(&mut self, index: usize, readable: bool, writable: bool) {
        if let Some(key) = self.peers[index].key {
            self.events.push_back(Event { key, edge: Readiness { readable, writable, read_on: false } });
        }
    }
}

pub(crate) struct FakeNet(Rc<RefCell<World>>);

pub(crate) struct Socket {
    world: Rc<RefCell<World>>,
    index: usize,
}

impl Drop for Socket {
    fn drop(&mut self) {
        let mut world = self.world.borrow_mut();
        (world.peers[self.index].dropped, world.peers[self.index].key) = (true, None);
    }
}

impl Net for FakeNet {
    type Listener = ();
    type Stream = Socket;
    type Datagram = ();
    type Signals = ();

    fn now(&mut self) -> Moment {
        Moment::since_start(self.0.borrow().now)
    }

    fn poll(&mut self, wait: Option<Duration>, batch: &mut Vec<Event>) -> io::Result<bool> {
        let mut world = self.0.borrow_mut();
        if world.events.is_empty() {
            let wakes = wait.map(|wait| world.now + wait).filter(|at| *at <= world.until);
            match wakes {
                Some(at) => {
                    world.deadline_wakes += usize::from(at > world.now);
                    world.now = at;
                }
                None => (world.now, world.reached) = (world.until, true),
            }
        }
        let count = world.events.len().min(world.batch);
        batch.extend(world.events.drain(..count));
        Ok(count == world.batch)
    }

    fn watch(&mut self, source: Source<'_, FakeNet>, key: usize) -> io::Result<()> {
        let mut world = self.0.borrow_mut();
        match source {
            Source::Stream(socket) => {
                world.peers[socket.index].key = Some(key);
                if world.peers[socket.index].answer != Answer::Hangs {
                    world.edge(socket.index, true, true);
                }
            }
            Source::Listener(()) => world.listener_key = key,
            Source::Datagram(()) | Source::Signals(()) => (),
        }
        Ok(())
    }

    fn unwatch(&mut self, source: Source<'_, FakeNet>) {
        if let Source::Stream(socket) = source {
            let mut world = self.0.borrow_mut();
            if let Some(key) = world.peers[socket.index].key.take() {
                world.events.retain(|event| event.key != key);
            }
        }
    }

    fn accept(&mut self, (): &mut ()) -> Result<(Socket, SocketAddr), AcceptError> {
        let index = self.0.borrow_mut().backlog.pop_front().ok_or(AcceptError::Empty)?;
        Ok((Socket { world: self.0.clone(), index }, SocketAddr::from(([192, 0, 2, 1], 40000))))
    }

    fn dial(&mut self, _: SocketAddr) -> io::Result<Socket> {
        let mut world = self.0.borrow_mut();
        let (now, answer, index) = (world.now, world.answer, world.peers.len());
        world.dials.push((now, answer));
        world.peers.push(Peer { room: usize::MAX, answer, ..Peer::default() });
        Ok(Socket { world: self.0.clone(), index })
    }

    fn connected(&mut self, socket: &mut Socket) -> io::Result<Option<SocketAddr>> {
        match self.0.borrow().peers[socket.index].answer {
            Answer::Accepts => Ok(Some(SocketAddr::from(([192, 0, 2, 1], 9001)))),
            Answer::Refuses => Err(ErrorKind::ConnectionRefused.into()),
            Answer::Hangs => Ok(None),
        }
    }

    fn read(&mut self, socket: &mut Socket, buffer: &mut [u8], _: bool) -> io::Result<Read> {
        let mut world = self.0.borrow_mut();
        let peer = &mut world.peers[socket.index];
        let count = peer.input.len().min(buffer.len());
        if count == 0 && !peer.input_ended {
            return Err(ErrorKind::WouldBlock.into());
        }
        for (byte, read) in buffer.iter_mut().zip(peer.input.drain(..count)) {
            *byte = read;
        }
        Ok(Read { count, drained: false })
    }

    fn write(&mut self, socket: &mut Socket, bytes: &[u8]) -> io::Result<usize> {
        let mut world = self.0.borrow_mut();
        let peer = &mut world.peers[socket.index];
        assert!(!peer.half_closed, "nothing is written behind our end");
        if peer.broken {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let count = peer.room.min(bytes.len());
        if count == 0 {
            peer.full = true;
            return Err(ErrorKind::WouldBlock.into());
        }
        peer.room -= count;
        peer.output.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn half_close(&mut self, socket: &mut Socket) -> io::Result<()> {
        self.0.borrow_mut().peers[socket.index].half_closed = true;
        Ok(())
    }

    fn receive(&mut self, (): &mut (), _: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        Err(ErrorKind::WouldBlock.into())
    }

    fn send(&mut self, (): &mut (), _: &[u8], _: SocketAddr) -> io::Result<()> {
        Err(ErrorKind::WouldBlock.into())
    }

    fn take_signals(&mut self, (): &mut ()) -> usize {
        0
    }

    fn random(&mut self) -> u64 {
        let mut world = self.0.borrow_mut();
        // SplitMix64.
        world.random = world.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (world.random ^ (world.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// A server on the fake network, and the hands that move it.
pub(crate) struct Bench {
    world: Rc<RefCell<World>>,
    pub(crate) reactor: Reactor<FakeNet>,
}

impl Bench {
    pub(crate) fn new<M: Protocol + Default + 'static>(limits: Limits) -> Bench {
        Bench::with(limits, || Box::new(M::default()))
    }

    pub(crate) fn with(limits: Limits, machine: impl Fn() -> Box<dyn Protocol> + 'static) -> Bench {
        let world = Rc::new(RefCell::new(World { batch: 1024, ..World::default() }));
        let mut reactor = Reactor::new(FakeNet(world.clone()), limits);
        reactor.listen("service", (), machine).expect("the fake watches anything");
        Bench { world, reactor }
    }

    /// What randomness follows from, from here on.
    pub(crate) fn seed(&mut self, seed: u64) {
        self.world.borrow_mut().random = seed;
    }

    /// What comes of it from here on when the loop dials.
    pub(crate) fn set_answer(&mut self, answer: Answer) {
        self.world.borrow_mut().answer = answer;
    }

    /// When the loop has dialed since this was last asked, and what came of it.
    pub(crate) fn dials(&mut self) -> Vec<(Duration, Answer)> {
        std::mem::take(&mut self.world.borrow_mut().dials)
    }

    /// The number of the connection that was begun last, by whichever side.
    pub(crate) fn last(&self) -> usize {
        self.world.borrow().peers.len() - 1
    }

    /// Events handed to the loop at once; as many as that are a full batch.
    pub(crate) fn set_batch(&mut self, batch: usize) {
        self.world.borrow_mut().batch = batch;
    }

    /// Lets the loop run until this moment, all that happens at it included.
    pub(crate) fn run_to(&mut self, until: Duration) {
        {
            let mut world = self.world.borrow_mut();
            assert!(until >= world.now, "time goes forward");
            (world.until, world.reached) = (until, false);
        }
        while !self.world.borrow().reached {
            self.reactor.turn().expect("the fake network never fails");
        }
    }

    /// Lets the loop do all it can do now.
    pub(crate) fn run(&mut self) {
        self.run_to(self.now());
    }

    pub(crate) fn run_for(&mut self, span: Duration) {
        self.run_to(self.now() + span);
    }

    /// The clock moves and the loop does not: the process was suspended.
    pub(crate) fn suspend(&mut self, span: Duration) {
        self.world.borrow_mut().now += span;
    }

    pub(crate) fn now(&self) -> Duration {
        self.world.borrow().now
    }

    /// Times that the loop was woken by a deadline and nothing else.
    pub(crate) fn deadline_wakes(&self) -> usize {
        self.world.borrow().deadline_wakes
    }

    /// A connection that is there from the beginning, with this machine.
    pub(crate) fn adopt(&mut self, machine: impl Protocol + 'static) -> usize {
        let index = self.world.borrow().peers.len();
        self.world.borrow_mut().peers.push(Peer { room: usize::MAX, ..Peer::default() });
        let socket = Socket { world: self.world.clone(), index };
        self.reactor.adopt("adopted", socket, Box::new(machine)).expect("the fake watches anything");
        self.run();
        index
    }

    /// A new connection, accepted now. Its send buffer takes everything until it is limited.
    pub(crate) fn connect(&mut self) -> usize {
        let index = self.connect_later();
        self.run();
        index
    }

    /// A new connection, accepted in the next turn.
    pub(crate) fn connect_later(&mut self) -> usize {
        let mut world = self.world.borrow_mut();
        let index = world.peers.len();
        world.peers.push(Peer { room: usize::MAX, ..Peer::default() });
        world.backlog.push_back(index);
        let event = Event { key: world.listener_key, edge: Readiness { readable: true, ..Readiness::default() } };
        world.events.push_back(event);
        index
    }

    /// The peer has sent this; the loop will see it when it runs.
    pub(crate) fn arrive(&mut self, peer: usize, bytes: impl AsRef<[u8]>) {
        let mut world = self.world.borrow_mut();
        world.peers[peer].input.extend(bytes.as_ref());
        world.edge(peer, true, false);
    }

    /// The peer sends this, and the loop does what follows.
    pub(crate) fn send(&mut self, peer: usize, bytes: impl AsRef<[u8]>) {
        self.arrive(peer, bytes);
        self.run();
    }

    /// The peer has said its end.
    pub(crate) fn end(&mut self, peer: usize) {
        let mut world = self.world.borrow_mut();
        world.peers[peer].input_ended = true;
        world.edge(peer, true, false);
    }

    /// From here on the send buffer takes so many bytes more. An edge says so only if it was found full.
    pub(crate) fn set_room(&mut self, peer: usize, room: usize) {
        let mut world = self.world.borrow_mut();
        world.peers[peer].room = room;
        if room > 0 && std::mem::take(&mut world.peers[peer].full) {
            world.edge(peer, false, true);
        }
    }

    /// Whoever writes to the peer from here on is told that nobody is there, and the loop does what follows.
    pub(crate) fn break_off(&mut self, peer: usize) {
        self.world.borrow_mut().peers[peer].broken = true;
        self.world.borrow_mut().edge(peer, true, true);
        self.run();
    }

    /// An edge that means nothing.
    pub(crate) fn nudge(&mut self, peer: usize) {
        self.world.borrow_mut().edge(peer, true, false);
        self.run();
    }

    /// What has come to the peer since this was last asked.
    pub(crate) fn take(&mut self, peer: usize) -> String {
        String::from_utf8(self.take_bytes(peer)).expect("UTF-8")
    }

    /// The same, as bytes.
    pub(crate) fn take_bytes(&mut self, peer: usize) -> Vec<u8> {
        std::mem::take(&mut self.world.borrow_mut().peers[peer].output)
    }

    /// What the peer has sent and the loop has not read.
    pub(crate) fn unread(&self, peer: usize) -> usize {
        self.world.borrow().peers[peer].input.len()
    }

    /// Whether the peer has been told the end.
    pub(crate) fn is_half_closed(&self, peer: usize) -> bool {
        self.world.borrow().peers[peer].half_closed
    }

    /// Whether the peer has been told the end, or the connection is gone altogether.
    pub(crate) fn is_over(&self, peer: usize) -> bool {
        let world = self.world.borrow();
        world.peers[peer].half_closed || world.peers[peer].dropped
    }

    /// Whether the connection is gone, whatever the peer still had to be told.
    pub(crate) fn is_gone(&self, peer: usize) -> bool {
        self.world.borrow().peers[peer].dropped
    }
}
