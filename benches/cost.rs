//! What the program costs, measured on the built binary from outside: system calls, wake-ups, memory, processor time.
//! `cargo bench` measures all of it, `cargo bench --bench cost -- NAME` one part; it exits 1 if a promise is not kept.
//!
//! All traffic is on loopback and bounded. `calls` needs `strace`.

mod server;

use server::{Outcome, Part, Server, Trace, asked, figure, measure, progress};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::{Duration, Instant};

const PARTS: [(&str, Part); 5] = [("calls", calls), ("cpu", cpu), ("udp", udp), ("memory", memory), ("idle", idle)];

fn main() -> Outcome<()> {
    measure(&asked(), &PARTS)
}

fn start() -> Outcome<Server> {
    Server::start(&[], &["echo", "raw", "udp"], &[])
}

/// A number of `/proc/PID/status`.
fn number(server: &Server, key: &str) -> Outcome<u64> {
    Ok(server.status(key)?.parse()?)
}

/// One line and its answer.
fn ping(stream: &mut TcpStream) -> Outcome<()> {
    stream.write_all(b"hello\n")?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer)?;
    Ok(())
}

/// System calls of the server while `load` runs, by name, from the first answer after attaching to the last.
fn traced(server: &Server, load: impl FnOnce() -> Outcome<()>) -> Outcome<BTreeMap<String, usize>> {
    let trace = Trace::start(server)?;
    load()?;
    let text = trace.stop()?;
    let names: Vec<&str> = text.lines().filter_map(|line| line.split_once('(').map(|(name, _)| name)).collect();
    let first = names.iter().position(|name| *name == "sendto").ok_or("nothing was sent")?;
    let last = names.iter().rposition(|name| *name == "sendto").ok_or("nothing was sent")?;
    let mut counts = BTreeMap::new();
    for name in &names[first + 1..=last] {
        *counts.entry(name.to_string()).or_default() += 1;
    }
    Ok(counts)
}

/// System calls per line: one client, then 64.
fn calls() -> Outcome<bool> {
    const LINES: usize = 1000;
    const CLIENTS: usize = 64;
    let server = start()?;
    let mut client = server.connect("echo")?;
    ping(&mut client)?;
    // One more line than is counted: counting starts behind the first answer.
    let counts = traced(&server, || (0..=LINES).try_for_each(|_| ping(&mut client)))?;
    let expected = BTreeMap::from(["epoll_wait", "recvfrom", "sendto"].map(|name| (name.to_string(), LINES)));
    let one = figure(&format!("calls: 1 client, {LINES} lines: {counts:?}"), counts == expected);

    let mut clients = (0..CLIENTS).map(|_| server.connect("echo")).collect::<Outcome<Vec<_>>>()?;
    clients.iter_mut().try_for_each(ping)?;
    let rounds = LINES / CLIENTS + 1;
    let lines = rounds * CLIENTS;
    let counts = traced(&server, || {
        for _ in 0..rounds {
            clients.iter_mut().try_for_each(|client| client.write_all(b"hello\n"))?;
            clients.iter_mut().try_for_each(|client| client.read_exact(&mut [0; 12]))?;
        }
        Ok(())
    })?;
    let waits = counts.get("epoll_wait").copied().unwrap_or(0);
    Ok(figure(&format!("calls: {CLIENTS} clients, {lines} lines: {counts:?}"), waits < lines) && one)
}

/// Server processor time per message: 64 connections, 64 bytes, 1 and 16 in flight; by line and raw.
fn cpu() -> Outcome<bool> {
    const CLIENTS: usize = 64;
    const MESSAGES: usize = 300_000;
    for (service, answer_bytes) in [("raw", 64), ("echo", 70)] {
        for depth in [1, 16] {
            let server = start()?;
            let mut clients = (0..CLIENTS).map(|_| server.connect(service)).collect::<Outcome<Vec<_>>>()?;
            let message = [&[b'x'; 63][..], b"\n"].concat().repeat(depth);
            let mut answer = vec![0; answer_bytes * depth];
            let (before, started) = (server.cpu()?, Instant::now());
            let rounds = MESSAGES / CLIENTS / depth;
            for _ in 0..rounds {
                clients.iter_mut().try_for_each(|client| client.write_all(&message))?;
                clients.iter_mut().try_for_each(|client| client.read_exact(&mut answer))?;
            }
            let (spent, took) = (server.cpu()? - before, started.elapsed());
            let messages = (rounds * CLIENTS * depth) as f64;
            let micros = spent.as_secs_f64() * 1e6 / messages;
            println!(
                "cpu: {service}, {CLIENTS} connections, 64 B, {depth} in flight: {micros:.2} us of server CPU a message, {:.0} messages/s",
                messages / took.as_secs_f64()
            );
        }
    }
    Ok(true)
}

/// Datagrams lost: 16 clients with 16 datagrams of 512 bytes in flight each.
fn udp() -> Outcome<bool> {
    const CLIENTS: usize = 16;
    const IN_FLIGHT: usize = 16;
    const ROUNDS: usize = 200;
    let server = start()?;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let client = UdpSocket::bind("127.0.0.1:0")?;
        client.connect(server.addresses["udp"])?;
        client.set_read_timeout(Some(Duration::from_secs(2)))?;
        clients.push(client);
    }
    let (mut lost, before) = (0, server.cpu()?);
    for _ in 0..ROUNDS {
        for client in &clients {
            for _ in 0..IN_FLIGHT {
                client.send(&[b'x'; 512])?;
            }
        }
        for client in &clients {
            lost += (0..IN_FLIGHT).filter(|_| client.recv(&mut [0; 16]).is_err()).count();
        }
    }
    let sent = ROUNDS * CLIENTS * IN_FLIGHT;
    let micros = (server.cpu()? - before).as_secs_f64() * 1e6 / sent as f64;
    Ok(figure(&format!("udp: {sent} datagrams, {lost} lost, {micros:.2} us of server CPU each"), lost == 0))
}

/// Resident memory at the start and for each of 10,000 idle connections.
fn memory() -> Outcome<bool> {
    const CLIENTS: usize = 10_000;
    let server = start()?;
    ping(&mut server.connect("echo")?)?;
    let before = number(&server, "VmRSS")?;
    let mut clients = Vec::with_capacity(CLIENTS);
    for _ in 0..CLIENTS {
        clients.push(server.connect("echo")?);
    }
    ping(clients.last_mut().ok_or("no client")?)?; // it is the last in the backlog: all of them are accepted
    let grown = (number(&server, "VmRSS")? - before) * 1024;
    let each = grown / CLIENTS as u64;
    let text =
        format!("memory: {before} KiB resident at the start, {each} bytes more for each of {CLIENTS} idle connections");
    Ok(figure(&text, each <= 200))
}

/// Wake-ups in 60 s (or `ONELOOP_IDLE_SECONDS`) with 1,000 idle connections.
fn idle() -> Outcome<bool> {
    const CLIENTS: usize = 1000;
    let seconds: u64 = std::env::var("ONELOOP_IDLE_SECONDS").ok().map_or(Ok(60), |text| text.parse())?;
    let server = start()?;
    let mut clients = (0..CLIENTS).map(|_| server.connect("echo")).collect::<Outcome<Vec<_>>>()?;
    clients.iter_mut().try_for_each(ping)?;
    let mut before = number(&server, "voluntary_ctxt_switches")?;
    // The last answer comes before the server sleeps: wait until it does.
    loop {
        std::thread::sleep(Duration::from_millis(100));
        let now = number(&server, "voluntary_ctxt_switches")?;
        if now == std::mem::replace(&mut before, now) {
            break;
        }
    }
    for left in (1..=seconds).rev() {
        progress(&format!("idle: {left} s to go"));
        std::thread::sleep(Duration::from_secs(1));
    }
    let woken = number(&server, "voluntary_ctxt_switches")? - before;
    Ok(figure(&format!("idle: {woken} wake-ups in {seconds} s with {CLIENTS} connections"), woken == 0))
}
