//! What may stand where a TCP connection does, for the clients: the console, and a datagram socket that speaks in lines.
//! Touches descriptors, through mio and rustix.

use crate::standard::Way;
use memchr::memchr;
use mio::event::Source as _;
use mio::net::UdpSocket;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::event::PollFlags;
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// A stream that is none of TCP.
#[derive(Debug)]
pub(super) enum Rare {
    Console(Console),
    Datagrams(Datagrams),
}

impl Rare {
    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Rare::Console(console) => console.register(registry, token),
            Rare::Datagrams(datagrams) => {
                datagrams.socket.register(registry, token, Interest::READABLE | Interest::WRITABLE)
            }
        }
    }

    pub(super) fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Rare::Console(console) => console.deregister(registry),
            Rare::Datagrams(datagrams) => datagrams.socket.deregister(registry),
        }
    }

    pub(super) fn connected(&mut self) -> io::Result<Option<SocketAddr>> {
        match self {
            Rare::Console(_) => Err(ErrorKind::Unsupported.into()),
            Rare::Datagrams(datagrams) => datagrams.socket.peer_addr().map(Some),
        }
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Rare::Console(console) => console.read(buffer),
            Rare::Datagrams(datagrams) => datagrams.read(buffer),
        }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Rare::Console(console) => console.write(bytes),
            Rare::Datagrams(datagrams) => datagrams.write(bytes),
        }
    }
}

/// The descriptor to watch.
fn fd(way: &Way, standard: BorrowedFd<'_>) -> i32 {
    match way {
        Way::Own(file) => file.as_raw_fd(),
        Way::Ask | Way::Inherited => standard.as_raw_fd(),
    }
}

/// Whether the poll takes it: a regular file and `/dev/null` it refuses, for they are always ready.
fn register(
    way: &Way,
    standard: BorrowedFd<'_>,
    registry: &Registry,
    token: Token,
    what: Interest,
) -> io::Result<bool> {
    match registry.register(&mut SourceFd(&fd(way, standard)), token, what) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::PERM) => Ok(false),
        result => result.map(|()| true),
    }
}

/// Standard input and output as one stream.
#[derive(Debug)]
pub(super) struct Console {
    input: Way,
    output: Way,
    /// Which of the two the poll watches.
    watched: [bool; 2],
}

/// A socket that cannot be opened anew would make a longer write wait: so much always fits where the poll says that
/// anything does (`PIPE_BUF`).
const ASKED_WRITE_BYTES: usize = 4096;

impl Console {
    /// The process's own. Its inherited descriptors stay as they are.
    pub(super) fn new() -> Console {
        Console {
            input: Way::to(io::stdin().as_fd(), OFlags::RDONLY),
            output: Way::to(io::stdout().as_fd(), OFlags::WRONLY),
            watched: [false, false],
        }
    }

    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let (stdin, stdout) = (io::stdin(), io::stdout());
        self.watched[0] = register(&self.input, stdin.as_fd(), registry, token, Interest::READABLE)?;
        self.watched[1] = register(&self.output, stdout.as_fd(), registry, token, Interest::WRITABLE)?;
        Ok(())
    }

    pub(super) fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        let fds = [fd(&self.input, io::stdin().as_fd()), fd(&self.output, io::stdout().as_fd())];
        for (fd, watched) in fds.into_iter().zip(std::mem::take(&mut self.watched)) {
            if watched {
                registry.deregister(&mut SourceFd(&fd))?;
            }
        }
        Ok(())
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let stdin = io::stdin();
        let ready = self.input.ready(stdin.as_fd(), PollFlags::IN);
        let count = ready.and_then(|ready| Ok(rustix::io::read(ready, buffer)?));
        count.map_err(|error| named("read standard input", error))
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let stdout = io::stdout();
        let most = if matches!(self.output, Way::Ask) { ASKED_WRITE_BYTES } else { bytes.len() };
        let ready = self.output.ready(stdout.as_fd(), PollFlags::OUT);
        let count = ready.and_then(|ready| Ok(rustix::io::write(ready, &bytes[..bytes.len().min(most)])?));
        count.map_err(|error| named("write to standard output", error))
    }
}

/// Says which of the two it was that failed. What is only to be done again later stays as it is.
fn named(what: &str, error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::Interrupted => error,
        kind => io::Error::new(kind, format!("cannot {what}: {error}")),
    }
}

/// The largest datagram there is, in bytes.
const DATAGRAM_MAX: usize = 65_536;

/// Datagrams to and from one peer as lines: what is written up to a `\n` is one, and each that comes ends in one.
#[derive(Debug)]
pub(super) struct Datagrams {
    pub(super) socket: UdpSocket,
    /// The datagram that came last, of which the first `given` bytes have been read.
    datagram: Vec<u8>,
    given: usize,
}

impl Datagrams {
    /// Nobody but `to` is heard.
    pub(super) fn new(to: SocketAddr) -> io::Result<Datagrams> {
        let any = if to.is_ipv4() { SocketAddr::from(([0; 4], 0)) } else { SocketAddr::from(([0u16; 8], 0)) };
        let socket = UdpSocket::bind(any)?;
        socket.connect(to)?;
        Ok(Datagrams { socket, datagram: Vec::new(), given: 0 })
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.given == self.datagram.len() {
            self.datagram.resize(DATAGRAM_MAX, 0);
            let received = self.socket.recv(&mut self.datagram);
            self.given = 0;
            self.datagram.truncate(*received.as_ref().unwrap_or(&0));
            received?;
            if self.datagram.last() != Some(&b'\n') {
                self.datagram.push(b'\n');
            }
        }
        let rest = &self.datagram[self.given..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.given += count;
        Ok(count)
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (line, used) = match memchr(b'\n', bytes) {
            Some(end) => (&bytes[..end], end + 1),
            None => (bytes, bytes.len()),
        };
        self.socket.send(line).map(|_| used)
    }
}
