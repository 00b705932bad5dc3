//! The real kernel behind [`Net`]: the only file that names mio (with `mio/rare.rs`, which is its own) or the operating system's clock. Binds sockets, too.

#[cfg(feature = "client")]
mod rare;

use super::{AcceptError, Event, Net, Read, Readiness, Source};
use crate::limits::{Heartbeat, Limits};
use crate::time::Moment;
use mio::event::Source as _;
use mio::net::{TcpListener, TcpStream, UdpSocket, UnixStream};
use mio::{Events, Interest, Poll, Token};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

/// Longer waits are cut to a day: epoll counts milliseconds in 31 bits, 24 days.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// Both directions, once and for life. Urgent data is watched for because it cuts reads short.
#[cfg(any(target_os = "linux", target_os = "android"))]
const STREAM_INTEREST: Interest = Interest::READABLE.add(Interest::WRITABLE).add(Interest::PRIORITY);
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const STREAM_INTEREST: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// A connection, or what a client has in place of one.
#[derive(Debug)]
pub struct Stream(Kind);

#[derive(Debug)]
enum Kind {
    Tcp(TcpStream),
    /// Its key in `MioNet::rare`: four bytes, for a slot has no more to spare for the few of its kind.
    #[cfg(feature = "client")]
    Rare(u32),
}

/// The operating system's sockets and clock.
#[derive(Debug)]
pub struct MioNet {
    poll: Poll,
    events: Events,
    started: Instant,
    limits: Limits,
    #[cfg(feature = "client")]
    rare: slab::Slab<rare::Rare>,
}

impl MioNet {
    /// A poll with nothing to watch yet.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new(limits: &Limits) -> io::Result<MioNet> {
        let (events, limits) = (Events::with_capacity(limits.events), limits.clone());
        Ok(MioNet {
            poll: Poll::new()?,
            events,
            started: Instant::now(),
            limits,
            #[cfg(feature = "client")]
            rare: slab::Slab::new(),
        })
    }

    /// Standard input and output as one stream, for [`Reactor::adopt`](crate::reactor::Reactor::adopt). Neither makes the loop
    /// wait, and what the process has inherited is left as it is.
    #[cfg(feature = "client")]
    pub fn console(&mut self) -> Stream {
        self.keep(rare::Rare::Console(rare::Console::new()))
    }

    #[cfg(feature = "client")]
    fn keep(&mut self, stream: rare::Rare) -> Stream {
        Stream(Kind::Rare(self.rare.insert(stream) as u32)) // fewer than 2^32: each holds a descriptor
    }
}

impl Net for MioNet {
    type Listener = TcpListener;
    type Stream = Stream;
    type Datagram = UdpSocket;
    type Signals = UnixStream;

    fn now(&mut self) -> Moment {
        Moment::since_start(self.started.elapsed())
    }

    fn poll(&mut self, wait: Option<Duration>, batch: &mut Vec<Event>) -> io::Result<bool> {
        self.poll.poll(&mut self.events, wait.map(|wait| wait.min(LONGEST_WAIT)))?;
        batch.extend(self.events.iter().map(|event| Event {
            key: event.token().0,
            edge: Readiness {
                // An end or an error is for the next call to report, whichever that is.
                readable: event.is_readable() || event.is_read_closed() || event.is_error(),
                writable: event.is_writable() || event.is_error(),
                // A read stops short at urgent data although more may lie behind it: tcp(7), SO_OOBINLINE.
                read_on: event.is_read_closed() || event.is_error() || event.is_priority(),
            },
        }));
        let full = batch.len() >= self.events.capacity();
        if full {
            self.events = Events::with_capacity(self.events.capacity() * 2);
        }
        Ok(full)
    }

    fn watch(&mut self, source: Source<'_, MioNet>, key: usize) -> io::Result<()> {
        let (registry, token) = (self.poll.registry(), Token(key));
        match source {
            Source::Listener(listener) => listener.register(registry, token, Interest::READABLE),
            Source::Stream(Stream(Kind::Tcp(stream))) => stream.register(registry, token, STREAM_INTEREST),
            #[cfg(feature = "client")]
            Source::Stream(Stream(Kind::Rare(key))) => self.rare[*key as usize].register(registry, token),
            // Write interest would make every reply a second wake-up.
            Source::Datagram(socket) => socket.register(registry, token, Interest::READABLE),
            Source::Signals(pipe) => pipe.register(registry, token, Interest::READABLE),
        }
    }

    fn unwatch(&mut self, source: Source<'_, MioNet>) {
        let registry = self.poll.registry();
        // It fails only for what was not being watched, and then there is nothing to undo.
        let _ = match source {
            Source::Listener(listener) => listener.deregister(registry),
            Source::Stream(Stream(Kind::Tcp(stream))) => stream.deregister(registry),
            #[cfg(feature = "client")]
            Source::Stream(Stream(Kind::Rare(key))) => self.rare.remove(*key as usize).deregister(registry),
            Source::Datagram(socket) => socket.deregister(registry),
            Source::Signals(pipe) => pipe.deregister(registry),
        };
    }

    fn accept(&mut self, listener: &mut TcpListener) -> Result<(Stream, SocketAddr), AcceptError> {
        listener.accept().map(|(stream, peer)| (Stream(Kind::Tcp(stream)), peer)).map_err(|error| {
            match Errno::from_io_error(&error) {
                Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => AcceptError::Exhausted(error),
                _ if error.kind() == ErrorKind::WouldBlock => AcceptError::Empty,
                _ => AcceptError::Passing(error),
            }
        })
    }

    fn dial(&mut self, to: SocketAddr) -> io::Result<Stream> {
        let socket = open(to, Type::STREAM, Protocol::TCP)?;
        set_up(&socket, &self.limits)?;
        match socket.connect(&to.into()) {
            Err(error) if Errno::from_io_error(&error) != Some(Errno::INPROGRESS) => Err(error),
            _ => Ok(Stream(Kind::Tcp(TcpStream::from_std(socket.into())))),
        }
    }

    #[cfg(feature = "client")]
    fn dial_datagrams(&mut self, to: SocketAddr) -> io::Result<Stream> {
        Ok(self.keep(rare::Rare::Datagrams(rare::Datagrams::new(to)?)))
    }

    fn connected(&mut self, stream: &mut Stream) -> io::Result<Option<SocketAddr>> {
        match &mut stream.0 {
            Kind::Tcp(stream) => match (stream.take_error()?, stream.peer_addr()) {
                (Some(error), _) => Err(error),
                (None, Err(error)) if error.kind() == ErrorKind::NotConnected => Ok(None),
                (None, peer) => peer.map(Some),
            },
            #[cfg(feature = "client")]
            Kind::Rare(key) => self.rare[*key as usize].connected(),
        }
    }

    fn read(&mut self, stream: &mut Stream, buffer: &mut [u8], read_on: bool) -> io::Result<Read> {
        let count = match &mut stream.0 {
            Kind::Tcp(stream) => stream.read(buffer)?,
            #[cfg(feature = "client")]
            Kind::Rare(key) => {
                let count = self.rare[*key as usize].read(buffer)?;
                return Ok(Read { count, drained: false });
            }
        };
        // On epoll and kqueue a short read also means drained: new bytes are a new edge. But the peer's end makes no new
        // edge once it has been announced, so then it is read for. See epoll(7), question 9, "Since Linux 2.6.17".
        let short_is_drained = cfg!(any(
            target_os = "linux",
            target_os = "android",
            target_vendor = "apple",
            target_os = "freebsd",
            target_os = "netbsd",
            target_os = "openbsd",
            target_os = "dragonfly",
        ));
        Ok(Read { count, drained: short_is_drained && count < buffer.len() && !read_on })
    }

    fn write(&mut self, stream: &mut Stream, bytes: &[u8]) -> io::Result<usize> {
        match &mut stream.0 {
            Kind::Tcp(stream) => stream.write(bytes),
            #[cfg(feature = "client")]
            Kind::Rare(key) => self.rare[*key as usize].write(bytes),
        }
    }

    fn half_close(&mut self, stream: &mut Stream) -> io::Result<()> {
        match &mut stream.0 {
            Kind::Tcp(stream) => stream.shutdown(Shutdown::Write),
            #[cfg(feature = "client")]
            Kind::Rare(_) => Ok(()), // whoever reads there learns of our end when the process has gone
        }
    }

    fn receive(&mut self, socket: &mut UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        socket.recv_from(buffer)
    }

    fn send(&mut self, socket: &mut UdpSocket, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        socket.send_to(bytes, to).map(drop)
    }

    fn take_signals(&mut self, pipe: &mut UnixStream) -> usize {
        let (mut taken, mut bytes) = (0, [0; 16]);
        // Each signal is one byte; the pipe's other end lives as long as the process.
        while let Ok(count @ 1..) = pipe.read(&mut bytes) {
            taken += count;
        }
        taken
    }

    fn random(&mut self) -> u64 {
        // The standard library seeds its hash tables with the system's randomness, and no two of them alike.
        RandomState::new().build_hasher().finish()
    }
}

/// A TCP listener on `address`. An IPv6 wildcard takes IPv4 too (one dual-stack socket); any other address only its own
/// family. Port 0 takes a free one.
///
/// What is set here is inherited by what is accepted, on Linux: no system call per connection.
///
/// # Errors
/// The kernel's, as they are: taken, not ours, not permitted.
pub fn listen(address: SocketAddr, limits: &Limits) -> io::Result<TcpListener> {
    let socket = open(address, Type::STREAM, Protocol::TCP)?;
    socket.set_reuse_address(true)?; // restart at once after a crash: old connections may still be in TIME_WAIT
    set_up(&socket, limits)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(limits.backlog).unwrap_or(i32::MAX))?;
    Ok(TcpListener::from_std(socket.into()))
}

/// What a connection should have, whichever side begins it.
fn set_up(socket: &Socket, limits: &Limits) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?; // answers are written whole; Nagle would only hold them back
    if limits.heartbeat != Heartbeat::Off {
        keep_alive(socket, limits)?;
    }
    Ok(())
}

/// The heartbeat's numbers for peers that do not speak it, and for services that have none: the kernel asks, and they never
/// see it.
fn keep_alive(socket: &Socket, limits: &Limits) -> io::Result<()> {
    // The kernel takes whole seconds, up to 32,767 of them.
    let whole_seconds = |span: Duration| Duration::from_secs((span.as_millis().div_ceil(1000) as u64).min(32_767));
    let [idle, interval] = [limits.heartbeat_interval, limits.heartbeat_timeout].map(whole_seconds);
    let probes = limits.heartbeat_retries + 1;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(probes))?;
    // Keepalive is silent while the peer owes an acknowledgement; the user timeout is not: tcp(7). It also ends a live peer
    // that does not read, which the write timeout judges, so it stays clear of that; and it is looked at when a probe is
    // due, so it is a little less than the probes take, lest it be a little more.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let user_timeout = (idle + interval * probes).saturating_sub(Duration::from_millis(500));
        if user_timeout > limits.write_timeout + Duration::from_secs(1) {
            socket.set_tcp_user_timeout(Some(user_timeout.min(LONGEST_WAIT)))?;
        }
    }
    Ok(())
}

/// A UDP socket on `address`, as [`listen`], and the receive buffer that the kernel granted, in bytes.
///
/// # Errors
/// The kernel's, as they are.
pub fn bind_udp(address: SocketAddr, limits: &Limits) -> io::Result<(UdpSocket, usize)> {
    let socket = open(address, Type::DGRAM, Protocol::UDP)?;
    socket.set_recv_buffer_size(limits.udp_buffer_bytes)?;
    let granted = socket.recv_buffer_size()?;
    socket.bind(&address.into())?;
    // Linux reports twice what it grants, the other half being for its own book-keeping: socket(7), SO_RCVBUF.
    let granted = if cfg!(target_os = "linux") { granted / 2 } else { granted };
    Ok((UdpSocket::from_std(socket.into()), granted))
}

fn open(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    Ok(socket)
}

/// SIGINT and SIGTERM from here on, as something to watch.
///
/// # Errors
/// No descriptor is left, or the system refuses the handler.
pub fn stop_signals() -> io::Result<UnixStream> {
    signals(&[signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM])
}

/// The same with SIGHUP: for a program whose terminal is to be as it was, whatever ends it.
///
/// # Errors
/// As [`stop_signals`].
#[cfg(feature = "client")]
pub fn terminal_stop_signals() -> io::Result<UnixStream> {
    signals(&[signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP])
}

fn signals(which: &[i32]) -> io::Result<UnixStream> {
    let (reader, writer) = std::os::unix::net::UnixStream::pair()?;
    reader.set_nonblocking(true)?;
    for signal in which {
        signal_hook::low_level::pipe::register(*signal, writer.try_clone()?)?;
    }
    Ok(UnixStream::from_std(reader))
}
