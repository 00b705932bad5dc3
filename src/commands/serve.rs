//! `oneloop serve`: binds everything or nothing, says where, and runs the loop. Touches sockets before the loop starts,
//! the descriptor limit, and standard output.

use crate::config::{Address, Config, is_local};
use crate::limits::Limits;
use crate::net::Net;
use crate::net::mio::{MioNet, bind_udp, listen, stop_signals};
use crate::reactor::{Ended, Reactor};
use crate::services::{Service, Transport};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

/// Serves until a signal. Returns whether it ended cleanly.
///
/// # Errors
/// One line: what was tried, on what, why it failed and what to do.
pub fn run(config: &Config) -> Result<bool, String> {
    let limits = fit_descriptors(&config.limits)?;
    let signals = stop_signals().map_err(|error| format!("cannot watch for signals: {error}"))?;
    let mut doors = Vec::new();
    for (service, address) in &config.listen {
        doors.extend(open(service, address, &limits)?);
    }
    let net = MioNet::new(&limits).map_err(|error| format!("cannot create the poll: {error}"))?;
    let mut reactor = Reactor::new(net, limits);
    reactor.stop_on(signals).map_err(|error| format!("cannot watch for signals: {error}"))?;
    let places: Vec<(&str, SocketAddr)> = doors.iter().map(|door| (door.service.name, door.local)).collect();
    for door in doors {
        let place = door.local;
        enter(&mut reactor, door, config).map_err(|error| format!("cannot watch {place}: {error}"))?;
    }
    announce(&places);
    let ended = reactor.run().map_err(|error| format!("the poll failed: {error}"))?;
    log::info!("stopped: {}", reactor.metrics());
    Ok(ended == Ended::Drained)
}

/// A bound socket.
struct Door {
    service: &'static Service,
    local: SocketAddr,
    socket: Socket,
}

enum Socket {
    Tcp(<MioNet as Net>::Listener),
    Udp(<MioNet as Net>::Datagram),
}

fn enter(reactor: &mut Reactor<MioNet>, door: Door, config: &Config) -> io::Result<()> {
    let (service, settings) = (door.service, config.settings);
    match door.socket {
        Socket::Tcp(listener) => reactor.listen(service.name, listener, move || (service.machine)(&settings)),
        Socket::Udp(socket) => reactor.serve_datagrams(service.name, socket, door.local, (service.machine)(&settings)),
    }
}

/// Says where on standard output, for people and scripts, and warns once if that is beyond this machine.
fn announce(places: &[(&str, SocketAddr)]) {
    let mut out = io::stdout().lock();
    for (name, local) in places {
        let _ = writeln!(out, "listening {name} {local}"); // nobody may be reading, and that is fine
    }
    let _ = out.flush();
    if let Some((name, local)) = places.iter().find(|(_, local)| !is_local(local.ip())) {
        log::warn!("{name} on {local} can be reached from other machines, and nothing asks who connects");
    }
}

/// Every socket that `address` means.
fn open(service: &'static Service, address: &Address, limits: &Limits) -> Result<Vec<Door>, String> {
    let failed = |at: &dyn std::fmt::Display, error: &io::Error| {
        format!("cannot listen on {at}: {}", reason(service, port_of(address), error))
    };
    match address {
        Address::Socket(at) => bind(service, *at, limits).map(|door| vec![door]).map_err(|error| failed(at, &error)),
        Address::Everywhere(port) => {
            let all = SocketAddr::from((Ipv6Addr::UNSPECIFIED, *port));
            let door = match bind(service, all, limits) {
                Err(error) if lacks_family(&error) => {
                    log::info!("{} on :{port}: IPv4 only, this machine has no IPv6", service.name);
                    bind(service, SocketAddr::from((Ipv4Addr::UNSPECIFIED, *port)), limits)
                }
                result => result,
            };
            door.map(|door| vec![door]).map_err(|error| failed(address, &error))
        }
        Address::Host(host, port) => {
            let resolved = (host.as_str(), *port).to_socket_addrs();
            let resolved = resolved.map_err(|error| {
                format!("cannot listen on {address}: no address for {host} ({error}; try an IP address)")
            })?;
            let mut doors: Vec<Door> = Vec::new();
            for at in resolved {
                if doors.iter().all(|door| door.local.ip() != at.ip()) {
                    doors.push(bind(service, at, limits).map_err(|error| failed(&at, &error))?);
                }
            }
            Ok(doors)
        }
        Address::Loopback(port) => open_loopback(service, *port, limits).map_err(|(at, error)| failed(&at, &error)),
    }
}

/// Loopback in both families on one port; a family that the machine lacks is left out.
fn open_loopback(service: &'static Service, port: u16, limits: &Limits) -> Result<Vec<Door>, (SocketAddr, io::Error)> {
    // A free port of one family may be taken in the other; then another free one is tried.
    const TRIES: usize = 16;
    for attempt in 1.. {
        let mut doors: Vec<Door> = Vec::new();
        let mut failure = None;
        for ip in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
            let at = SocketAddr::new(ip, doors.first().map_or(port, |door| door.local.port()));
            match bind(service, at, limits) {
                Ok(door) => doors.push(door),
                Err(error) if lacks_family(&error) && ip.is_ipv6() && !doors.is_empty() => {
                    log::info!("{} on {port}: IPv4 only, this machine has no {ip}", service.name);
                }
                Err(error) if lacks_family(&error) && ip.is_ipv4() => {
                    log::info!("{} on {port}: IPv6 only, this machine has no {ip}", service.name);
                }
                Err(error) => failure = Some((at, error)),
            }
        }
        match failure {
            None => return Ok(doors),
            Some((_, error)) if port == 0 && attempt < TRIES && error.kind() == io::ErrorKind::AddrInUse => (),
            Some(failure) => return Err(failure),
        }
    }
    unreachable!("the last try returns")
}

fn bind(service: &'static Service, at: SocketAddr, limits: &Limits) -> io::Result<Door> {
    match service.transport {
        Transport::Tcp => {
            let listener = listen(at, limits)?;
            Ok(Door { service, local: listener.local_addr()?, socket: Socket::Tcp(listener) })
        }
        Transport::Udp => {
            let (socket, granted) = bind_udp(at, limits)?;
            let (local, asked) = (socket.local_addr()?, limits.udp_buffer_bytes);
            if granted < asked {
                log::warn!(
                    "{} {local}: receive buffer of {granted} bytes, {asked} were asked for (raise net.core.rmem_max)",
                    service.name
                );
            } else {
                log::info!("{} {local}: receive buffer of {granted} bytes", service.name);
            }
            Ok(Door { service, local, socket: Socket::Udp(socket) })
        }
    }
}

fn lacks_family(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
}

fn port_of(address: &Address) -> u16 {
    match address {
        Address::Loopback(port) | Address::Everywhere(port) | Address::Host(_, port) => *port,
        Address::Socket(at) => at.port(),
    }
}

/// Why a bind failed, and what to try.
fn reason(service: &Service, port: u16, error: &io::Error) -> String {
    let flag = service.name;
    match Errno::from_io_error(error) {
        Some(Errno::ADDRINUSE) => {
            let other = port.checked_add(10).unwrap_or(port - 10);
            format!("address in use (another oneloop? try --{flag} {other}, or --{flag} 0 for any free port)")
        }
        Some(Errno::ACCESS) => format!("permission denied (ports below 1024 are root's; try --{flag} 9000)"),
        Some(Errno::ADDRNOTAVAIL) => {
            format!("no such address on this machine (see `ip address`; try --{flag} :{port} for every address)")
        }
        _ => error.to_string(),
    }
}

/// Raises the soft descriptor limit to the hard one, and lowers the connection limit to what then fits.
fn fit_descriptors(limits: &Limits) -> Result<Limits, String> {
    let found = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: found.maximum, maximum: found.maximum };
    let now = if setrlimit(Resource::Nofile, raised).is_ok() { raised.current } else { found.current };
    let Some(now) = now.and_then(|now| usize::try_from(now).ok()) else { return Ok(limits.clone()) };
    let fits = now.saturating_sub(Limits::DESCRIPTOR_RESERVE);
    if fits == 0 {
        let least = Limits::DESCRIPTOR_RESERVE + 1;
        return Err(format!(
            "cannot serve with a limit of {now} descriptors: at least {least} are needed (raise `ulimit -n`)"
        ));
    }
    if fits < limits.max_connections {
        let (asked, reserve) = (limits.max_connections, Limits::DESCRIPTOR_RESERVE);
        log::warn!(
            "at most {fits} connections instead of {asked}: the limit of {now} descriptors less a reserve of {reserve} (raise `ulimit -n`)"
        );
    }
    Ok(Limits { max_connections: limits.max_connections.min(fits), ..limits.clone() })
}
