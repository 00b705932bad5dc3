//! What the program costs, measured on the built binary from outside: system calls, wake-ups, memory, processor time.
//! `cargo bench` measures all of it, `cargo bench --bench cost -- NAME` one part; it exits 1 if a promise is not kept.
//!
//! All traffic is on loopback and bounded. `calls` needs `strace`, `instructions` needs `valgrind`.

mod server;

use server::{Counted, Outcome, Part, Server, Trace, asked, compare, figure, frame, measure, progress};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::{Duration, Instant};

const PARTS: [(&str, Part); 8] = [
    ("calls", calls),
    ("cpu", cpu),
    ("websocket", websocket),
    ("instructions", instructions),
    ("udp", udp),
    ("memory", memory),
    ("websocket-memory", websocket_memory),
    ("idle", idle),
];

fn main() -> Outcome<()> {
    measure(&asked(), &PARTS)
}

fn start() -> Outcome<Server> {
    Server::start(&[], &["echo", "raw", "web", "udp"], &[])
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

/// Clients that say the same again and again, all at once.
struct Load {
    clients: Vec<TcpStream>,
    /// What each says, in one segment.
    said: Vec<u8>,
    /// What comes back has so many bytes; their room.
    answer: Vec<u8>,
}

impl Load {
    /// `count` clients who say `message` `depth` times and wait for `depth` answers of `answer_len` bytes.
    fn new(
        count: usize,
        message: &[u8],
        answer_len: usize,
        depth: usize,
        client: impl FnMut() -> Outcome<TcpStream>,
    ) -> Outcome<Load> {
        let clients = std::iter::repeat_with(client).take(count).collect::<Outcome<_>>()?;
        Ok(Load { clients, said: message.repeat(depth), answer: vec![0; answer_len * depth] })
    }

    /// Lines of `text`, echoed.
    fn lines(server: &Server, count: usize, text: &[u8], depth: usize) -> Outcome<Load> {
        let line = [text, b"\n"].concat();
        Load::new(count, &line, "echo: ".len() + line.len(), depth, || server.connect("echo"))
    }

    /// The same in the frames of WebSockets.
    fn frames(server: &Server, count: usize, text: &[u8], depth: usize) -> Outcome<Load> {
        // Comes back unmasked: four bytes less.
        let frame = frame(text);
        Load::new(count, &frame, frame.len() - 4, depth, || open_websocket(server, "/echo"))
    }

    /// Everybody speaks, then everybody reads.
    fn round(&mut self) -> Outcome<()> {
        self.clients.iter_mut().try_for_each(|client| client.write_all(&self.said))?;
        self.clients.iter_mut().try_for_each(|client| Ok(client.read_exact(&mut self.answer)?))
    }
}

/// Reads until `mark` has come.
fn read_to(stream: &mut TcpStream, mark: &[u8]) -> Outcome<()> {
    let (mut got, mut buffer) = (Vec::new(), [0; 4096]);
    while !got.windows(mark.len()).any(|bytes| bytes == mark) {
        match stream.read(&mut buffer)? {
            0 => return Err("the server closed a WebSocket".into()),
            count => got.extend_from_slice(&buffer[..count]),
        }
    }
    Ok(())
}

fn open_websocket(server: &Server, path: &str) -> Outcome<TcpStream> {
    let mut stream = server.ask_for_websocket(path)?;
    // Nothing behind the head's end is taken: a chat says more.
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    if head.starts_with(b"HTTP/1.1 101 ") { Ok(stream) } else { Err(String::from_utf8_lossy(&head).into()) }
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

/// System calls per line: one client, then 64; and for 16 frames at a time.
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
    let many = figure(&format!("calls: {CLIENTS} clients, {lines} lines: {counts:?}"), waits < lines);

    const FRAMES: usize = 16;
    let mut load = Load::frames(&server, CLIENTS, &[b'x'; 64], FRAMES)?;
    load.round()?;
    // One segment more than is counted, again.
    let counts = traced(&server, || {
        ping(&mut client)?;
        (0..rounds).try_for_each(|_| load.round())
    })?;
    let all = rounds * CLIENTS;
    let text = format!("calls: {CLIENTS} WebSockets, {all} times {FRAMES} frames: {counts:?}");
    let is_kept = ["recvfrom", "sendto"].iter().all(|name| counts.get(*name) == Some(&all));
    Ok(figure(&text, is_kept) && one && many)
}

/// Server processor time per message: 64 connections, 64 bytes, 1 and 16 in flight; by line and raw.
fn cpu() -> Outcome<bool> {
    const CLIENTS: usize = 64;
    const MESSAGES: usize = 300_000;
    for (service, answer_bytes) in [("raw", 64), ("echo", 70)] {
        for depth in [1, 16] {
            let server = start()?;
            let message = [&[b'x'; 63][..], b"\n"].concat();
            let mut load = Load::new(CLIENTS, &message, answer_bytes, depth, || server.connect(service))?;
            let (before, started) = (server.cpu()?, Instant::now());
            let rounds = MESSAGES / CLIENTS / depth;
            (0..rounds).try_for_each(|_| load.round())?;
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

/// What the echo of a WebSocket costs more than that of a line, turn about: server processor time per message; 64 connections
/// each, 64 bytes, 1 and 16 in flight.
fn websocket() -> Outcome<bool> {
    const CLIENTS: usize = 64;
    const ROUNDS: usize = 150;
    let text = [b'x'; 64];
    let server = start()?;
    let mut kept = true;
    for (depth, most) in [(1, 1.10), (16, 2.0)] {
        let mut loads = [Load::lines(&server, CLIENTS, &text, depth)?, Load::frames(&server, CLIENTS, &text, depth)?];
        loads.iter_mut().try_for_each(Load::round)?;
        let compared = compare(|which| {
            let before = server.cpu()?;
            (0..ROUNDS).try_for_each(|_| loads[which].round())?;
            Ok(server.cpu()? - before)
        })?;
        let [line, frame] = compared.each.map(|spent| spent.as_secs_f64() * 1e6 / (ROUNDS * CLIENTS * depth) as f64);
        let text = format!(
            "websocket: {CLIENTS} connections, 64 B, {depth} in flight: {frame:.2} us of server CPU a message, {line:.2} by line: {:.2} times as much",
            compared.ratio
        );
        kept &= figure(&text, compared.ratio <= most);
    }
    Ok(kept)
}

/// User-space instructions per message: by line and in frames, 1 connection, so that they are the same in every run; 64 bytes,
/// 1 and 16 in flight.
fn instructions() -> Outcome<bool> {
    const ROUNDS: usize = 1000;
    let text = [b'x'; 64];
    for depth in [1, 16] {
        let mut each = Vec::new();
        for load in [Load::lines, Load::frames] {
            let counted = Counted::start(&["echo", "web"])?;
            let mut load = load(&counted.server, 1, &text, depth)?;
            (0..10).try_for_each(|_| load.round())?; // what is only done once has been done
            let all = counted.count(|| (0..ROUNDS).try_for_each(|_| load.round()))?;
            each.push(all / (ROUNDS * depth) as f64);
        }
        let text = format!(
            "instructions: {depth} in flight: {:.0} user-space instructions a line, {:.0} a frame",
            each[0], each[1]
        );
        figure(&text, true);
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

/// Resident memory for each of 10,000 WebSockets that have said something and are idle.
fn websocket_memory() -> Outcome<bool> {
    const CLIENTS: usize = 10_000;
    let mut kept = true;
    // What a chat answers to this goes to nobody else; and not everybody is told of everybody who comes.
    for (path, text, told, most) in
        [("/echo", &b"hello"[..], &b"hello"[..], 400), ("/chat", b"/leave", b"already", 400)]
    {
        let server = Server::start(&[], &["web"], &["--chat-rate", "10"])?;
        let said = frame(text);
        let open = || -> Outcome<TcpStream> {
            let mut client = open_websocket(&server, path)?;
            client.write_all(&said)?;
            read_to(&mut client, told)?;
            Ok(client)
        };
        drop(open()?);
        let before = number(&server, "VmRSS")?;
        let clients = std::iter::repeat_with(open).take(CLIENTS).collect::<Outcome<Vec<_>>>()?;
        let each = (number(&server, "VmRSS")? - before) * 1024 / clients.len() as u64;
        let text = format!("websocket-memory: {each} bytes more for each of {CLIENTS} idle WebSockets at {path}");
        kept &= figure(&text, each <= most);
    }
    Ok(kept)
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
