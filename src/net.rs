//! The one narrow seam between the loop and the world: everything the reactor asks of a kernel, as a trait, so that the
//! same loop runs on real sockets and on a simulated network.

pub mod mio;

use crate::time::Moment;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// What the kernel has said of one socket, and not yet taken back by `WouldBlock`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// A read or accept is worth trying.
    pub readable: bool,
    /// A write is worth trying.
    pub writable: bool,
    /// A short read proves nothing here, so reads go on to the end or to `WouldBlock`: the peer's end has been announced,
    /// which makes no edge of its own any more, or urgent data cuts reads short.
    pub read_on: bool,
}

impl Readiness {
    /// Adds what a new edge says. Nothing is taken back by an edge.
    pub fn add(&mut self, edge: Readiness) {
        self.readable |= edge.readable;
        self.writable |= edge.writable;
        self.read_on |= edge.read_on;
    }
}

/// One readiness event. It may be spurious, and one socket may have several in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The key under which the socket is watched.
    pub key: usize,
    /// What has become so.
    pub edge: Readiness,
}

/// A read that brought something; a `count` of 0 is the peer's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// Bytes now in the buffer.
    pub count: usize,
    /// The socket is known to be empty, without the further read that would say `WouldBlock`.
    pub drained: bool,
}

/// Why no connection was accepted.
#[derive(Debug)]
pub enum AcceptError {
    /// Nobody waits.
    Empty,
    /// Descriptors or memory have run out. Somebody still waits, and no new edge will say so.
    Exhausted(io::Error),
    /// This one connection failed; the next may do better.
    Passing(io::Error),
}

/// A socket to watch, of one of the four kinds.
#[derive(Debug)]
pub enum Source<'a, N: Net + ?Sized> {
    /// Accepts connections.
    Listener(&'a mut N::Listener),
    /// A connection.
    Stream(&'a mut N::Stream),
    /// A datagram socket.
    Datagram(&'a mut N::Datagram),
    /// The signals that ask for a stop.
    Signals(&'a mut N::Signals),
}

/// A kernel, as far as the reactor needs one. No call blocks but [`Net::poll`].
///
/// Readiness is edge-triggered: an event says that something has become so, once, and says it again only after a call
/// has returned `WouldBlock` and the state has changed.
pub trait Net {
    /// Accepts connections.
    type Listener;
    /// A connection.
    type Stream;
    /// A datagram socket.
    type Datagram;
    /// The signals that ask for a stop.
    type Signals;

    /// The time.
    fn now(&mut self) -> Moment;

    /// Waits for events at most for `wait` (`None`: for ever) and appends them to `batch`. Returns whether the batch came
    /// back full, so that more may be waiting.
    ///
    /// # Errors
    /// `Interrupted` is harmless; anything else means that this network cannot go on.
    fn poll(&mut self, wait: Option<Duration>, batch: &mut Vec<Event>) -> io::Result<bool>;

    /// Watches a socket under `key`, once and for life: streams for reading and writing, all others for reading.
    ///
    /// # Errors
    /// The kernel's: its memory or a limit on watches.
    fn watch(&mut self, source: Source<'_, Self>, key: usize) -> io::Result<()>;

    /// Stops watching: no later poll returns its key.
    fn unwatch(&mut self, source: Source<'_, Self>);

    /// Takes one connection.
    ///
    /// # Errors
    /// See [`AcceptError`].
    fn accept(&mut self, listener: &mut Self::Listener) -> Result<(Self::Stream, SocketAddr), AcceptError>;

    /// Begins a connection to `to`. Whether there is one, [`Net::connected`] says once it is writable.
    ///
    /// # Errors
    /// No descriptor is left, or the system knows no way there.
    fn dial(&mut self, to: SocketAddr) -> io::Result<Self::Stream>;

    /// The same with datagrams, where the network has them: a stream of lines, each of them a datagram.
    ///
    /// # Errors
    /// As [`Net::dial`], or there are none here.
    fn dial_datagrams(&mut self, to: SocketAddr) -> io::Result<Self::Stream> {
        let _ = to;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Whether a connection that was begun has come about, and then with whom; `None` if that is still open.
    ///
    /// # Errors
    /// Why it has not.
    fn connected(&mut self, stream: &mut Self::Stream) -> io::Result<Option<SocketAddr>>;

    /// Reads once. `read_on` is what [`Readiness::read_on`] remembers of this stream.
    ///
    /// # Errors
    /// `WouldBlock`, `Interrupted`, or the end of this connection.
    fn read(&mut self, stream: &mut Self::Stream, buffer: &mut [u8], read_on: bool) -> io::Result<Read>;

    /// Writes once, as much as the kernel takes; returns how many bytes that was.
    ///
    /// # Errors
    /// `WouldBlock`, `Interrupted`, or the end of this connection.
    fn write(&mut self, stream: &mut Self::Stream, bytes: &[u8]) -> io::Result<usize>;

    /// Says our end: the peer reads to it and may still send.
    ///
    /// # Errors
    /// The peer has gone altogether.
    fn half_close(&mut self, stream: &mut Self::Stream) -> io::Result<()>;

    /// Receives one datagram; what does not fit the buffer is lost.
    ///
    /// # Errors
    /// `WouldBlock`, or an error that an earlier datagram caused.
    fn receive(&mut self, socket: &mut Self::Datagram, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)>;

    /// Sends one datagram.
    ///
    /// # Errors
    /// `WouldBlock`, or the system's reason not to send this one.
    fn send(&mut self, socket: &mut Self::Datagram, bytes: &[u8], to: SocketAddr) -> io::Result<()>;

    /// How many signals have come since it was last asked.
    fn take_signals(&mut self, signals: &mut Self::Signals) -> usize;

    /// A number that nobody can foresee; in tests, one that follows from the seed.
    fn random(&mut self) -> u64;
}
