//! The registry: one line per service. A new protocol is one file under `protocol/` and one line here; its flag, its help
//! and its listeners follow from that.

use crate::metrics::report::Vitals;
use crate::protocol::Protocol;
use crate::protocol::chat::Chat;
use crate::protocol::datagram::{Reply, Responder};
use crate::protocol::echo::{LineEcho, RawEcho};
#[cfg(feature = "files")]
use crate::protocol::files::{Files, Store};
#[cfg(feature = "web")]
use crate::protocol::web::Desk;
use std::net::SocketAddr;
#[cfg(feature = "files")]
use std::{cell::RefCell, rc::Rc};

/// What carries a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Connections, a machine each.
    Tcp,
    /// The same, also when the server is full or stops: see [`Reactor::monitor`](crate::reactor::Reactor::monitor).
    Monitor,
    /// Datagrams, a machine for the socket.
    Udp,
}

/// Makes machines, one for each connection.
pub type Maker = Box<dyn Fn() -> Box<dyn Protocol>>;

/// What the constructors of machines may look at.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What `udp` answers.
    pub udp_reply: Reply,
    /// Origins whose pages may use `web`, besides its own.
    pub allow_origins: Vec<String>,
    /// What the process knows of itself. Nothing, by default.
    pub vitals: fn() -> Vitals,
    /// The directory of `files`, which cannot do without.
    #[cfg(feature = "files")]
    pub store: Option<Rc<RefCell<Store>>>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            udp_reply: Reply::default(),
            allow_origins: Vec::new(),
            vitals: Vitals::default,
            #[cfg(feature = "files")]
            store: None,
        }
    }
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
    /// Makes what makes its machines, given the address of the socket.
    pub maker: fn(&Settings, SocketAddr) -> Maker,
}

const fn service(
    name: &'static str,
    transport: Transport,
    default: &'static str,
    about: &'static str,
    maker: fn(&Settings, SocketAddr) -> Maker,
) -> Service {
    Service { name, transport, default, about, maker }
}

/// All of them, in the order of `--help`.
#[rustfmt::skip]
pub const SERVICES: &[Service] = &[
    service("echo", Transport::Tcp, "127.0.0.1:9000", "Answer each line with `echo: LINE`", |_, _| Box::new(|| Box::<LineEcho>::default())),
    service("raw", Transport::Tcp, "off", "Send every byte back as it came", |_, _| Box::new(|| Box::<RawEcho>::default())),
    service("chat", Transport::Tcp, "127.0.0.1:9001", "Chat: a line goes to everyone else in the room", |_, _| Box::new(|| Box::<Chat>::default())),
    #[cfg(feature = "web")]
    service("web", Transport::Monitor, "127.0.0.1:9080", "HTTP: the chat in a browser, /status, /healthz, /metrics; WebSockets /chat, /echo", |settings, local| Desk::new(&settings.allow_origins, settings.vitals, local).maker()),
    #[cfg(feature = "files")]
    service("files", Transport::Tcp, "off", "Take files in and hand them out, in --files-dir", |settings, _| { let store = settings.store.clone().expect("`serve` has opened the directory"); Box::new(move || Box::new(Files::new(store.clone()))) }),
    service("udp", Transport::Udp, "127.0.0.1:8080", "Answer each datagram, see --udp-reply", |settings, _| { let reply = settings.udp_reply; Box::new(move || Box::new(Responder::new(reply))) }),
];
