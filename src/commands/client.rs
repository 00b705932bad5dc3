//! What the clients' commands share: names are resolved before the loop starts, and limits that fit whoever has one connection.

use crate::config::Address;
use crate::config::client::{Scheme, Target};
use crate::limits::Limits;
use crate::net::Net;
use crate::net::mio::{MioNet, stop_signals, terminal_stop_signals};
use crate::protocol::client::{Route, Way};
use crate::reactor::Reactor;
use std::io::{self, IsTerminal};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

/// Every address that `target` stands for. This blocks where a name has to be resolved.
pub(super) fn resolve(target: &Target) -> Result<Route, String> {
    let addresses = match &target.address {
        Address::Socket(at) => vec![*at],
        Address::Loopback(port) | Address::Everywhere(port) => {
            [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()]
                .map(|ip| SocketAddr::new(ip, *port))
                .to_vec()
        }
        Address::Host(host, port) => (host.as_str(), *port)
            .to_socket_addrs()
            .map(Iterator::collect)
            .map_err(|error| format!("cannot go to {target}: no address for {host} ({error}; try an IP address)"))?,
    };
    if addresses.is_empty() {
        return Err(format!("cannot go to {target}: its name has no address (try an IP address)"));
    }
    let way = match &target.scheme {
        Scheme::Tcp => Way::Lines,
        Scheme::Udp => Way::Datagrams,
        Scheme::WebSocket { host, path } => Way::WebSocket { host: host.clone(), path: path.clone() },
    };
    Ok(Route { name: target.to_string(), addresses, way })
}

/// Nobody else waits for a client's memory or its turn, and its user decides how long it waits for whom.
pub(super) fn limits(connect_timeout: Duration) -> Limits {
    const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    Limits {
        connect_timeout,
        write_timeout: FOR_EVER, // a filter waits for whoever reads it, as `cat` does
        linger: Duration::ZERO,
        linger_quiet: Duration::ZERO,
        drain: Duration::from_millis(100),
        ..Limits::default()
    }
}

/// What ends a client, as something to watch. That is SIGHUP, too, on a terminal; elsewhere it stays what whoever started the
/// program made of it, such as `nohup`.
pub(super) fn signals() -> Result<<MioNet as Net>::Signals, String> {
    let is_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    let signals = if is_terminal { terminal_stop_signals() } else { stop_signals() };
    signals.map_err(|error| format!("cannot watch for signals: {error}"))
}

/// A loop with nothing in it that those signals end, and what is wanted of its network before that is gone into it.
pub(super) fn reactor<T>(
    limits: Limits,
    prepare: impl FnOnce(&mut MioNet) -> T,
) -> Result<(Reactor<MioNet>, T), String> {
    let signals = signals()?;
    let mut net = MioNet::new(&limits).map_err(|error| format!("cannot create the poll: {error}"))?;
    let prepared = prepare(&mut net);
    let mut reactor = Reactor::new(net, limits);
    reactor.stop_on(signals).map_err(|error| format!("cannot watch for signals: {error}"))?;
    Ok((reactor, prepared))
}
