//! `oneloop serve`: binds everything or nothing, says where, and runs the loop. Touches sockets before the loop starts,
//! the descriptor limit, and standard output.

use crate::config::{Address, Config};
#[cfg(feature = "files")]
use crate::disk::real::Directory;
use crate::limits::Limits;
use crate::logging::dropped_lines;
use crate::metrics::report::Vitals;
use crate::net::Net;
use crate::net::mio::{MioNet, bind_udp, listen, stop_signals};
#[cfg(feature = "files")]
use crate::protocol::files::Store;
use crate::reactor::{Ended, Reactor};
use crate::services::{Service, Settings, Transport};
use crate::wire::origin::is_local;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
#[cfg(feature = "files")]
use std::{cell::RefCell, rc::Rc};

/// Serves until a signal. Returns whether it ended cleanly.
///
/// # Errors
/// One line: what was tried, on what, why it failed and what to do.
pub fn run(config: &Config) -> Result<bool, String> {
    let signals = stop_signals().map_err(|error| format!("cannot watch for signals: {error}"))?;
    // Nothing is said before everything is bound: a failure is one line.
    #[cfg(feature = "files")]
    let config = &with_store(config)?;
    let mut doors = Vec::new();
    for (service, address) in &config.listen {
        doors.extend(open(service, address, &config.limits)?);
    }
    let has_files = config.listen.iter().any(|(service, _)| service.name == "files");
    let limits = fit_descriptors(&config.limits, doors.len(), has_files)?;
    doors.iter().for_each(|door| door.describe(&limits));
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
    log::info!("stopped: {}; {} log lines dropped", reactor.metrics(), dropped_lines());
    Ok(ended == Ended::Drained)
}

/// Opens the directory of `files`, if that is served.
#[cfg(feature = "files")]
fn with_store(config: &Config) -> Result<Config, String> {
    let mut config = config.clone();
    if let Some((path, permissions)) = &config.files {
        let cannot = |error: io::Error| {
            let why = match error.kind() {
                io::ErrorKind::WouldBlock => "another oneloop serves it".to_string(),
                io::ErrorKind::NotADirectory => "it is no directory, or a link to one".to_string(),
                _ => error.to_string(),
            };
            format!("cannot serve files in {}: {why}", path.display())
        };
        let directory = Directory::open(path).map_err(cannot)?;
        directory.claim().map_err(cannot)?;
        let store = Store::open(Box::new(directory), *permissions, &config.limits).map_err(cannot)?;
        config.settings.store = Some(Rc::new(RefCell::new(store)));
    }
    Ok(config)
}

/// A bound socket.
struct Door {
    service: &'static Service,
    local: SocketAddr,
    socket: Socket,
    /// The address of the other family, which should have been bound too and which this machine lacks.
    lacking: Option<IpAddr>,
}

enum Socket {
    Tcp(<MioNet as Net>::Listener),
    /// And the receive buffer that the kernel granted, in bytes.
    Udp(<MioNet as Net>::Datagram, usize),
}

impl Door {
    /// What the log should know of it.
    fn describe(&self, limits: &Limits) {
        let (name, local, asked) = (self.service.name, self.local, limits.udp_buffer_bytes);
        if let Some(ip) = self.lacking {
            log::info!("{name} on {local} only: this machine has no {ip}");
        }
        match self.socket {
            Socket::Tcp(_) => (),
            Socket::Udp(_, granted) if granted < asked => log::warn!(
                "{name} on {local}: receive buffer of {granted} bytes where {asked} were asked for (raise net.core.rmem_max)"
            ),
            Socket::Udp(_, granted) => log::info!("{name} on {local}: receive buffer of {granted} bytes"),
        }
    }
}

fn enter(reactor: &mut Reactor<MioNet>, door: Door, config: &Config) -> io::Result<()> {
    let settings = Settings { vitals, ..config.settings.clone() };
    let (service, maker) = (door.service, (door.service.maker)(&settings, door.local));
    match door.socket {
        Socket::Tcp(listener) if service.transport == Transport::Monitor => {
            reactor.monitor(service.name, listener, maker)
        }
        Socket::Tcp(listener) => reactor.listen(service.name, listener, maker),
        Socket::Udp(socket, _) => reactor.serve_datagrams(service.name, socket, door.local, maker()),
    }
}

/// What the system knows of this process: `proc(5)`, where there is one.
fn vitals() -> Vitals {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
    let resident_bytes = resident.map(|kilobytes: u64| kilobytes * 1024);
    // Since Linux 6.2 the size of this directory is the number of descriptors; counting thousands of entries takes a turn's time.
    let size = fs::metadata("/proc/self/fd").map_or(0, |directory| directory.len());
    let counted = || fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as u64 - 1); // one is this directory
    let open_descriptors = if size > 0 { Some(size) } else { counted() };
    Vitals { resident_bytes, open_descriptors, log_lines_dropped: dropped_lines() }
}

/// Says where on standard output, for people and scripts, and warns once if that is beyond this machine.
fn announce(places: &[(&str, SocketAddr)]) {
    let mut out = io::stdout().lock();
    for (name, local) in places {
        let _ = writeln!(out, "listening {name} {local}"); // nobody may be reading, and that is fine
    }
    let _ = out.flush();
    let list: Vec<String> = places.iter().map(|(name, local)| format!("{name} on {local}")).collect();
    log::info!("serving {}", list.join(", "));
    if let Some((name, local)) = places.iter().find(|(_, local)| !is_local(local.ip())) {
        log::warn!("{name} on {local} can be reached from other machines, and nothing asks who connects");
    }
}

/// Every socket that `address` means.
fn open(service: &'static Service, address: &Address, limits: &Limits) -> Result<Vec<Door>, String> {
    let [all_v6, all_v4] = [IpAddr::from(Ipv6Addr::UNSPECIFIED), IpAddr::from(Ipv4Addr::UNSPECIFIED)];
    let (ips, port) = match address {
        Address::Socket(at) => (vec![at.ip()], at.port()),
        Address::Everywhere(port) => (vec![all_v6], *port),
        Address::Loopback(port) => (vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()], *port),
        Address::Host(host, port) => {
            let resolved = (host.as_str(), *port).to_socket_addrs();
            let mut ips: Vec<IpAddr> = Vec::new();
            for at in resolved.map_err(|error| {
                format!("cannot listen on {address}: no address for {host} ({error}; try an IP address)")
            })? {
                if !ips.contains(&at.ip()) {
                    ips.push(at.ip());
                }
            }
            (ips, *port)
        }
    };
    let doors = match open_all(service, &ips, port, limits) {
        Err((_, error)) if ips == [all_v6] && lacks_family(&error) => open_all(service, &[all_v4], port, limits),
        result => result,
    };
    doors.map_err(|(at, error)| format!("cannot listen on {at}: {}", reason(service, port, &error)))
}

/// A socket for each of `ips`, all on one port. A loopback address that the machine lacks is left out, if there is another.
fn open_all(
    service: &'static Service,
    ips: &[IpAddr],
    port: u16,
    limits: &Limits,
) -> Result<Vec<Door>, (SocketAddr, io::Error)> {
    // A free port of one family may be taken in the other; then another free one is tried.
    const TRIES: usize = 16;
    for attempt in 1.. {
        match open_once(service, ips, port, limits) {
            Err((_, error)) if port == 0 && attempt < TRIES && error.kind() == io::ErrorKind::AddrInUse => (),
            result => return result,
        }
    }
    unreachable!("the last try returns")
}

fn open_once(
    service: &'static Service,
    ips: &[IpAddr],
    port: u16,
    limits: &Limits,
) -> Result<Vec<Door>, (SocketAddr, io::Error)> {
    let (mut doors, mut lacking): (Vec<Door>, _) = (Vec::new(), None);
    for ip in ips {
        let at = SocketAddr::new(*ip, doors.first().map_or(port, |door| door.local.port()));
        match bind(service, at, limits) {
            Ok(door) => doors.push(door),
            Err(error) if ip.is_loopback() && lacks_family(&error) => lacking = Some((at, error)),
            Err(error) => return Err((at, error)),
        }
    }
    match (doors.first_mut(), lacking) {
        (None, Some(lacking)) => return Err(lacking),
        (Some(first), Some((at, _))) => first.lacking = Some(at.ip()),
        (_, None) => (),
    }
    Ok(doors)
}

fn bind(service: &'static Service, at: SocketAddr, limits: &Limits) -> io::Result<Door> {
    let (local, socket) = match service.transport {
        Transport::Tcp | Transport::Monitor => {
            let listener = listen(at, limits)?;
            (listener.local_addr()?, Socket::Tcp(listener))
        }
        Transport::Udp => {
            let (socket, granted) = bind_udp(at, limits)?;
            (socket.local_addr()?, Socket::Udp(socket, granted))
        }
    };
    Ok(Door { service, local, socket, lacking: None })
}

fn lacks_family(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
}

/// Why a bind failed, and what to try.
fn reason(service: &Service, port: u16, error: &io::Error) -> String {
    let flag = service.name;
    match Errno::from_io_error(error) {
        Some(Errno::ADDRINUSE) if port == 0 => "no port is free".to_string(),
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
fn fit_descriptors(limits: &Limits, listeners: usize, has_files: bool) -> Result<Limits, String> {
    let found = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: found.maximum, maximum: found.maximum };
    let now = if setrlimit(Resource::Nofile, raised).is_ok() { raised.current } else { found.current };
    let Some(now) = now.and_then(|now| usize::try_from(now).ok()) else { return Ok(limits.clone()) };
    let files = if has_files { limits.files_descriptors() } else { 0 };
    let own = Limits::OWN_DESCRIPTORS + listeners.max(6) + files;
    let reserve = (Limits::DESCRIPTOR_RESERVE + files).max(own + 2 * limits.max_spare);
    let fits = now.saturating_sub(reserve);
    if fits == 0 {
        let least = reserve + 1;
        return Err(format!(
            "cannot serve with a limit of {now} descriptors: at least {least} are needed (raise `ulimit -n`)"
        ));
    }
    if fits < limits.max_connections {
        let asked = limits.max_connections;
        log::warn!(
            "at most {fits} connections instead of {asked}: the limit of {now} descriptors less a reserve of {reserve} (raise `ulimit -n`)"
        );
    }
    let max_connections = limits.max_connections.min(fits);
    let left = now - max_connections - own - limits.max_spare;
    Ok(Limits { max_connections, max_refused: limits.max_refused.min(left), ..limits.clone() })
}
