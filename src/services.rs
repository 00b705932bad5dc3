//! The registry: one line per service. A new protocol is one file under `protocol/` and one line here; its flag, its help
//! and its listeners follow from that.

use crate::protocol::Protocol;
use crate::protocol::chat::Chat;
use crate::protocol::datagram::{Reply, Responder};
use crate::protocol::echo::{LineEcho, RawEcho};

/// What carries a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Connections, a machine each.
    Tcp,
    /// Datagrams, a machine for the socket.
    Udp,
}

/// What the constructors of machines may look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// What `udp` answers.
    pub udp_reply: Reply,
}

/// A service that the program knows.
#[derive(Debug)]
pub struct Service {
    /// Its name in the log, and its flag: `--name ADDR`.
    pub name: &'static str,
    /// What carries it.
    pub transport: Transport,
    /// The address it has without its flag, or `off`.
    pub default: &'static str,
    /// What it does, for `--help`.
    pub about: &'static str,
    /// Makes its machine.
    pub machine: fn(&Settings) -> Box<dyn Protocol>,
}

const fn service(
    name: &'static str,
    transport: Transport,
    default: &'static str,
    about: &'static str,
    machine: fn(&Settings) -> Box<dyn Protocol>,
) -> Service {
    Service { name, transport, default, about, machine }
}

/// All of them, in the order of `--help`.
#[rustfmt::skip]
pub const SERVICES: &[Service] = &[
    service("echo", Transport::Tcp, "127.0.0.1:9000", "Answer each line with `echo: LINE`", |_| Box::<LineEcho>::default()),
    service("raw", Transport::Tcp, "off", "Send every byte back as it came", |_| Box::<RawEcho>::default()),
    service("chat", Transport::Tcp, "127.0.0.1:9001", "Chat: a line goes to everyone else in the room", |_| Box::<Chat>::default()),
    service("udp", Transport::Udp, "127.0.0.1:8080", "Answer each datagram, see --udp-reply", |settings| Box::new(Responder::new(settings.udp_reply))),
];
