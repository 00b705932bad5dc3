//! A small server that does everything on one thread and one poll loop, and that loop as a library.
//!
//! An embedding program writes a [`Protocol`](protocol::Protocol), which knows bytes and moments and neither sockets nor
//! clocks, and hands it to a [`Reactor`](reactor::Reactor) together with a listener:
//!
//! ```
//! use oneloop::net::mio::{MioNet, listen};
//! use oneloop::protocol::{Context, Protocol};
//! use oneloop::{limits::Limits, reactor::Reactor};
//!
//! /// Shouts back; a `.` stops the server.
//! struct Shout;
//!
//! impl Protocol for Shout {
//!     fn bytes(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> usize {
//!         context.outbox.push(&bytes.to_ascii_uppercase());
//!         if bytes.contains(&b'.') {
//!             context.stop();
//!         }
//!         bytes.len()
//!     }
//! }
//!
//! fn main() -> std::io::Result<()> {
//!     let limits = Limits::default();
//!     let listener = listen("127.0.0.1:0".parse().unwrap(), &limits)?;
//!     # let address = listener.local_addr()?;
//!     # let client = std::thread::spawn(move || -> std::io::Result<String> {
//!     #     use std::io::{Read, Write};
//!     #     let (mut stream, mut answer) = (std::net::TcpStream::connect(address)?, String::new());
//!     #     stream.write_all(b"that is all.")?;
//!     #     stream.shutdown(std::net::Shutdown::Write)?;
//!     #     stream.read_to_string(&mut answer)?;
//!     #     Ok(answer)
//!     # });
//!     let mut reactor = Reactor::new(MioNet::new(&limits)?, limits);
//!     reactor.listen("shout", listener, || Box::new(Shout))?;
//!     reactor.run()?;
//!     # assert_eq!(client.join().unwrap()?, "THAT IS ALL.");
//!     Ok(())
//! }
//! ```
//!
//! The loop itself is described in [`reactor`], the machines' contract in [`protocol`], and every bound in [`limits`].
//!
//! # Layout
//!
//! A file imports only files above it in this list; there are no circles.
//!
//! | file | purpose |
//! |---|---|
//! | `time.rs` | `Moment`, the only point in time outside `net/mio.rs` (but for the age of files) |
//! | `limits.rs` | every bound, with its default, unit and reason |
//! | `close.rs` | why a connection ends: one enum, one word each |
//! | `buffer.rs` | a byte queue, the box of unfinished input and output, and its pool |
//! | `slots.rs` | the slab: the key finds, the serial proves |
//! | `timers.rs` | lazy deadline heap |
//! | `metrics.rs` | plain counters; `metrics/report.rs`, their text for monitors |
//! | `wire/` | codecs: `line.rs`, `websocket.rs`, `http.rs`, `files.rs`; `text.rs`, what may be shown to others; `origin.rs`, whose page it is |
//! | `room.rs` | rooms and who is in them; `room/log.rs`, the shared log of one; `room/name.rs` |
//! | `disk.rs` | the seam to a directory, for file transfer; `disk/real.rs`, the file system, and the calendar for the age of files |
//! | `protocol.rs` | the contract of the machines |
//! | `protocol/` | the machines: `echo.rs`, `chat.rs`, `datagram.rs`, `web.rs` with `web/socket.rs` and the pages, `files.rs` with `files/store.rs`, what its connections share, and `files/courier.rs`, the other side; `text.rs` and `heartbeat.rs`, what they share; `client.rs` and `client/`, those of `connect` and `ping` |
//! | `services.rs` | the registry: one line per service |
//! | `standard.rs` | standard input, output and error, without ever waiting |
//! | `net.rs` | the one seam to the world, as a trait |
//! | `net/mio.rs` | the only file that names mio or the system's monotonic clock; with `net/mio/rare.rs`: the console, and datagrams as a stream |
//! | `reactor.rs` | the loop; in `reactor/`, `slot.rs` and `stream.rs` are what it keeps in its slots, `doors.rs` who comes in, `errands.rs` what machines ask of each other, `stop.rs` how it ends, `notices.rs` what it says in the log |
//! | `config.rs` | the command line into one `Config`; `config/client.rs` and `config/files.rs`, those of the clients and of file transfer |
//! | `logging.rs` | env_logger, on a standard error that never blocks |
//! | `main.rs`, `commands/` | the program: parse, bind or connect, run |

#![forbid(unsafe_code)]

pub mod time;

pub mod limits;

pub mod close;

pub mod buffer;

pub mod slots;

pub mod timers;

pub mod metrics;

pub mod wire;

pub mod room;

#[cfg(feature = "files")]
pub mod disk;

pub mod protocol;

pub mod services;

mod standard;

pub mod net;

pub mod reactor;

pub mod config;

pub mod logging;

pub mod commands;
