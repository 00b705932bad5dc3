//! What a room costs, measured on the built binary from outside: writes, processor time and instructions per delivery, what a
//! stopped member does to the others and a busy room to an echo client, and memory.
//! `cargo bench --bench fanout` measures all of it, `cargo bench --bench fanout -- NAME` one part; it exits 1 if a promise
//! is not kept.
//!
//! All traffic is on loopback and bounded. `writes` needs `strace`, `instructions` needs `valgrind`.

mod server;

use rustix::process::{Pid, Signal, kill_process};
use server::{Counted, Outcome, Part, Server, Trace, asked, compare, figure, frame, measure, progress};
use socket2::{Domain, Socket, Type};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const PARTS: [(&str, Part); 7] = [
    ("writes", writes),
    ("cpu", cpu),
    ("websocket", websocket),
    ("instructions", instructions),
    ("slow", slow),
    ("neighbour", neighbour),
    ("memory", memory),
];

/// As the first argument: be the reader that is going to be stopped. The address follows.
const READER: &str = "reader";

fn main() -> Outcome<()> {
    let asked = asked();
    if let [READER, address] = asked.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        return read_for_ever(address);
    }
    measure(&asked, &PARTS)
}

const SERVICES: [&str; 3] = ["echo", "chat", "web"];

fn start(flags: &[&str]) -> Outcome<Server> {
    Server::start(&[], &SERVICES, flags)
}

impl Server {
    /// Resident bytes now (`VmRSS`) or at most so far (`VmHWM`).
    fn memory(&self, key: &str) -> Outcome<u64> {
        Ok(self.status(key)?.parse::<u64>()? * 1024)
    }

    /// Stops the whole process until `go_on`; what the kernel does for it goes on.
    fn halt(&self) -> Outcome<()> {
        signal(&self.child, Signal::STOP)?;
        while !self.status("State")?.eq_ignore_ascii_case("T") {
            thread::yield_now();
        }
        Ok(())
    }

    fn go_on(&self) -> Outcome<()> {
        signal(&self.child, Signal::CONT)
    }
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn signal(child: &Child, signal: Signal) -> Outcome<()> {
    Ok(kill_process(Pid::from_child(child), signal)?)
}

/// What the members read who do not speak; those who do are on lines.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wire {
    Lines,
    Frames,
}

/// A room full of members, the first of whom speak; all of them are here, and read when told to.
struct Crowd {
    members: Vec<TcpStream>,
    wire: Wire,
    speakers: usize,
    /// What a speaker says, its end included.
    line: Vec<u8>,
}

impl Crowd {
    /// `count` members, of whom `speakers` (at most 9) say lines of `line_len` bytes. All notices have been read.
    fn gather(server: &Server, wire: Wire, count: usize, speakers: usize, line_len: usize) -> Outcome<Crowd> {
        let line = [&vec![b'x'; line_len - 1][..], b"\n"].concat();
        let mut crowd = Crowd { members: Vec::with_capacity(count), wire, speakers, line };
        let mut welcome = 0;
        while crowd.members.len() < count {
            let index = crowd.members.len();
            crowd.members.push(match crowd.wire(index) {
                Wire::Lines => server.connect("chat")?,
                Wire::Frames => server.ask_for_websocket("/chat")?,
            });
            // The notices must not pile up in the kernel.
            if index % 500 == 499 || index + 1 == count {
                while welcome <= index {
                    crowd.members[welcome].peek(&mut [0])?; // whoever has read anything is a member
                    welcome += 1;
                }
                crowd.catch_up()?;
                progress(&format!("{} members", crowd.members.len()));
            }
        }
        // Names of one length make lines of one length.
        for index in 0..speakers {
            writeln!(crowd.members[index], "/nick s{index}")?;
            crowd.mark(index)?;
        }
        crowd.catch_up()?;
        Ok(crowd)
    }

    fn wire(&self, index: usize) -> Wire {
        if index < self.speakers { Wire::Lines } else { self.wire }
    }

    /// Everybody reads all that was said so far.
    fn catch_up(&mut self) -> Outcome<()> {
        self.mark(0)?;
        self.mark(1)
    }

    /// All but the one that says the mark read up to that.
    fn mark(&mut self, speaker: usize) -> Outcome<()> {
        let mut buffer = vec![0; 1 << 16];
        let said = if self.wire(speaker) == Wire::Lines { b"the mark\n".to_vec() } else { frame(b"the mark") };
        self.members[speaker].write_all(&said)?;
        for index in (0..self.members.len()).filter(|index| *index != speaker) {
            let mark: &[u8] = if self.wire(index) == Wire::Lines { b": the mark\n" } else { b": the mark" };
            read_to(&mut self.members[index], mark, &mut buffer)?;
        }
        Ok(())
    }

    /// Every speaker says `times` lines at once.
    fn speak(&mut self, times: usize) -> Outcome<()> {
        let lines = self.line.repeat(times);
        self.members[..self.speakers].iter_mut().try_for_each(|speaker| Ok(speaker.write_all(&lines)?))
    }

    /// Every member reads what was said.
    fn hear(&mut self, times: usize) -> Outcome<()> {
        let text_len = "MESSAGE s0: ".len() + self.line.len() - 1;
        // The lines end; the frames have a header, which is short for a text of up to 125 bytes.
        let lens = [text_len + 1, text_len + if text_len <= 125 { 2 } else { 4 }];
        let mut buffer = vec![0; lens[1] * times * self.speakers];
        for index in 0..self.members.len() {
            let speakers = if index < self.speakers { self.speakers - 1 } else { self.speakers };
            let len = lens[self.wire(index) as usize] * times * speakers;
            self.members[index].read_exact(&mut buffer[..len])?;
        }
        Ok(())
    }

    /// When every speaker says `times` lines, so many lines arrive.
    fn deliveries(&self, times: usize) -> usize {
        self.speakers * times * (self.members.len() - 1)
    }
}

/// Reads until what came ends with `mark`.
fn read_to(stream: &mut TcpStream, mark: &[u8], buffer: &mut [u8]) -> Outcome<()> {
    let mut kept = 0;
    loop {
        // The end of what came before stands at the front: the mark may come in pieces.
        match stream.read(&mut buffer[kept..])? {
            0 => return Err("the server closed a member".into()),
            count => kept += count,
        }
        if buffer[..kept].ends_with(mark) {
            return Ok(());
        }
        let tail = kept.saturating_sub(mark.len());
        buffer.copy_within(tail..kept, 0);
        kept -= tail;
    }
}

/// One write for each member, however much was said in a turn: 8 speakers in a room of 1,000.
fn writes() -> Outcome<bool> {
    const MEMBERS: usize = 1000;
    const SPEAKERS: usize = 8;
    let server = start(&[])?;
    let mut crowd = Crowd::gather(&server, Wire::Lines, MEMBERS, SPEAKERS, 64)?;
    let mut kept = true;
    for times in [1, 4] {
        let trace = Trace::start(&server)?;
        // What all of them say while it is halted it finds in one turn.
        server.halt()?;
        crowd.speak(times)?;
        server.go_on()?;
        crowd.hear(times)?;
        let text = trace.stop()?;
        let (mut calls, mut written) = (BTreeMap::<&str, usize>::new(), BTreeMap::<&str, usize>::new());
        for (name, rest) in text.lines().filter_map(|line| line.split_once('(')) {
            *calls.entry(name).or_default() += 1;
            if name == "sendto" {
                *written.entry(rest.split(',').next().unwrap_or_default()).or_default() += 1;
            }
        }
        let all: usize = calls.values().sum();
        let most = written.values().max().copied().unwrap_or(0);
        let deliveries = crowd.deliveries(times);
        let text = format!(
            "writes: {SPEAKERS} senders say {times} each in a room of {MEMBERS}: {deliveries} deliveries, {calls:?}: {:.3} calls a delivery, at most {most} writes a member",
            all as f64 / deliveries as f64
        );
        kept &= figure(&text, written.len() == MEMBERS && most == 1);
    }
    Ok(kept)
}

/// Server processor time per delivery: 64 bytes, 1 sender with 1 in flight and 8 with 4 each.
fn cpu() -> Outcome<bool> {
    const WRITES: usize = 200_000;
    for members in [100, 1000] {
        for (speakers, times) in [(1, 1), (8, 4)] {
            let server = start(&[])?;
            let mut crowd = Crowd::gather(&server, Wire::Lines, members, speakers, 64)?;
            let rounds = WRITES / members;
            let (before, started) = (server.cpu()?, Instant::now());
            for _ in 0..rounds {
                crowd.speak(times)?;
                crowd.hear(times)?;
            }
            let (spent, took) = (server.cpu()? - before, started.elapsed());
            let deliveries = (rounds * crowd.deliveries(times)) as f64;
            let text = format!(
                "cpu: {members} members, {speakers} senders with {times} in flight each: {:.3} us of server CPU a delivery, {:.0} deliveries/s",
                spent.as_secs_f64() * 1e6 / deliveries,
                deliveries / took.as_secs_f64()
            );
            figure(&text, true);
        }
    }
    Ok(true)
}

/// What a room of WebSockets costs more than the same room on lines, turn about: server processor time per delivery. Those who
/// speak do so in lines in both.
fn websocket() -> Outcome<bool> {
    const MEMBERS: usize = 100;
    const MOST: f64 = 1.2;
    let mut kept = true;
    for (speakers, times, rounds) in [(1, 1, 100), (8, 4, 50)] {
        let servers = [start(&[])?, start(&[])?];
        let mut crowds = [
            Crowd::gather(&servers[0], Wire::Lines, MEMBERS + speakers, speakers, 64)?,
            Crowd::gather(&servers[1], Wire::Frames, MEMBERS + speakers, speakers, 64)?,
        ];
        let compared = compare(|which| {
            let (server, crowd) = (&servers[which], &mut crowds[which]);
            let before = server.cpu()?;
            for _ in 0..rounds {
                // All of it in one turn, or the ratio would depend on how many turns it happens to take.
                server.halt()?;
                crowd.speak(times)?;
                server.go_on()?;
                crowd.hear(times)?;
            }
            Ok(server.cpu()? - before)
        })?;
        let deliveries = (rounds * crowds[0].deliveries(times)) as f64;
        let [line, frame] = compared.each.map(|spent| spent.as_secs_f64() * 1e6 / deliveries);
        let text = format!(
            "websocket: {MEMBERS} members, {speakers} senders with {times} in flight each: {frame:.3} us of server CPU a delivery, {line:.3} by line: {:.2} times as much",
            compared.ratio
        );
        kept &= figure(&text, compared.ratio <= MOST);
    }
    Ok(kept)
}

/// User-space instructions per delivery, which must not grow with the number of members: one sender, one line at a time. Nor
/// much when the others read frames.
fn instructions() -> Outcome<bool> {
    const SIZES: [usize; 3] = [10, 100, 1000];
    const MESSAGES: usize = 200;
    let mut kept = true;
    let mut by_line = [0.0; SIZES.len()];
    for (wire, name) in [(Wire::Lines, "lines"), (Wire::Frames, "frames")] {
        let mut each = [0.0; SIZES.len()];
        for (members, each) in SIZES.into_iter().zip(&mut each) {
            let counted = Counted::start(&SERVICES)?;
            let mut crowd = Crowd::gather(&counted.server, wire, members, 1, 64)?;
            let deliveries = MESSAGES * crowd.deliveries(1);
            let all = counted.count(|| {
                (0..MESSAGES).try_for_each(|_| {
                    crowd.speak(1)?;
                    crowd.hear(1)
                })
            })?;
            *each = all / deliveries as f64;
        }
        if wire == Wire::Lines {
            by_line = each;
        }
        let text: Vec<String> =
            SIZES.iter().zip(each).map(|(members, count)| format!("{count:.0} with {members} members")).collect();
        let text = format!("instructions: user-space instructions a delivery in {name}: {}", text.join(", "));
        let is_dearer = each.iter().zip(by_line).any(|(count, line)| *count > line * 1.2);
        kept &= figure(&text, each.iter().all(|count| *count <= each[0] * 1.1) && !is_dearer);
    }
    Ok(kept)
}

/// The 99th of 100.
fn p99(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all[all.len() * 99 / 100]
}

/// What stands between a neighbour and its answers may make them so late, and no later.
fn is_undisturbed(before: Duration, during: Duration) -> bool {
    during <= before * 5 + Duration::from_millis(20)
}

/// The other process that [`slow`] stops.
fn read_for_ever(address: &str) -> Outcome<()> {
    let (mut stream, mut buffer) = (TcpStream::connect(address)?, [0; 4096]);
    stream.read_exact(&mut buffer[..1])?;
    println!("welcome");
    while stream.read(&mut buffer)? > 0 {}
    Ok(())
}

/// A member in another process that is stopped while 32 MiB are said: what the others, the memory and itself see of that.
fn slow() -> Outcome<bool> {
    const MEMBERS: usize = 9;
    const LINE: usize = 8192;
    const LINES: usize = (32 << 20) / LINE;
    const WRITE_TIMEOUT: Duration = Duration::from_secs(2);
    let server = start(&["--write-timeout", "2s"])?;
    let mut crowd = Crowd::gather(&server, Wire::Lines, MEMBERS, 1, LINE)?;
    let told = "MESSAGE s0: ".len() + LINE;
    let mut buffer = vec![0; told];
    let mut say = |crowd: &mut Crowd| -> Outcome<Vec<Duration>> {
        let mut all = Vec::with_capacity(LINES * (MEMBERS - 1));
        for _ in 0..LINES {
            let said = Instant::now();
            crowd.speak(1)?;
            for member in &mut crowd.members[1..] {
                member.read_exact(&mut buffer)?;
                all.push(said.elapsed());
            }
        }
        Ok(all)
    };
    let before = p99(say(&mut crowd)?);

    let mut reader = Command::new(std::env::current_exe()?)
        .args([READER, &server.addresses["chat"].to_string()])
        .stdout(Stdio::piped())
        .spawn()?;
    BufReader::new(reader.stdout.take().ok_or("no standard output")?).read_line(&mut String::new())?; // it is welcome
    crowd.catch_up()?; // and its notice read
    signal(&reader, Signal::STOP)?;
    let resident = server.memory("VmRSS")?;
    let started = Instant::now();
    let during = p99(say(&mut crowd)?);
    let grown = server.memory("VmHWM")?.saturating_sub(resident);
    // Its end is the next that anybody hears.
    let mut last = String::new();
    BufReader::new(&crowd.members[0]).read_line(&mut last)?;
    let closed = started.elapsed();
    end(&mut reader);

    let text = format!(
        "slow: one of {} members is stopped, 32 MiB are said: p99 of the others {before:?} before, {during:?} now",
        MEMBERS + 1
    );
    let mut kept = figure(&text, is_undisturbed(before, during));
    kept &= figure(&format!("slow: {} KiB more resident", grown / 1024), grown <= 16 << 20);
    let in_time = closed >= WRITE_TIMEOUT && closed <= WRITE_TIMEOUT + Duration::from_secs(3);
    let text = format!("slow: the others read \"{}\" after {closed:.1?}", last.trim_end());
    kept &= figure(&text, in_time && last.starts_with("LEAVE guest-") && last.ends_with(": stalled\n"));
    Ok(kept)
}

/// An echo client beside a room of 1,000 that is written to without pause.
fn neighbour() -> Outcome<bool> {
    const MEMBERS: usize = 1000;
    const PINGS: usize = 2000;
    let server = start(&[])?;
    let mut crowd = Crowd::gather(&server, Wire::Lines, MEMBERS, 8, 256)?;
    let mut client = server.connect("echo")?;
    let mut ping = || -> Outcome<Vec<Duration>> {
        let (mut all, started) = (Vec::with_capacity(PINGS), Instant::now());
        while all.len() < PINGS && (started.elapsed() < Duration::from_secs(10) || all.len() < 100) {
            let said = Instant::now();
            client.write_all(b"hello\n")?;
            client.read_exact(&mut [0; 12])?;
            all.push(said.elapsed());
        }
        Ok(all)
    };
    let before = p99(ping()?);
    let stop = AtomicBool::new(false);
    let (during, deliveries) = thread::scope(|scope| -> Outcome<_> {
        let load = scope.spawn(|| -> Outcome<usize> {
            let mut rounds = 0;
            // One burst is always under way while another is read.
            crowd.speak(4)?;
            while !stop.load(Ordering::Relaxed) {
                crowd.speak(4)?;
                crowd.hear(4)?;
                rounds += 1;
            }
            crowd.hear(4)?;
            Ok((rounds + 1) * crowd.deliveries(4))
        });
        let during = ping();
        stop.store(true, Ordering::Relaxed);
        Ok((p99(during?), load.join().map_err(|_| "the load panicked")??))
    })?;
    let text = format!(
        "neighbour: p99 of an echo {before:?} alone, {during:?} beside a busy room of {MEMBERS} ({deliveries} deliveries)"
    );
    Ok(figure(&text, is_undisturbed(before, during)))
}

/// Resident memory of a room with 10,000 members, 100 of whom never read: at rest, and while it is spoken in.
fn memory() -> Outcome<bool> {
    const MEMBERS: usize = 10_000;
    const STOPPED: usize = 100;
    const LINE: usize = 8192;
    const LOG: usize = 1 << 20;
    let server = start(&["--write-timeout", "1h"])?;
    let before = server.memory("VmRSS")?;
    let mut crowd = Crowd::gather(&server, Wire::Lines, MEMBERS - STOPPED, 1, LINE)?;
    let mut stopped: Vec<TcpStream> = Vec::new();
    for _ in 0..STOPPED {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        // Before it connects: what the kernel keeps on both sides for one that does not read is little then.
        socket.set_recv_buffer_size(4096)?;
        socket.set_tcp_mss(536)?;
        socket.connect(&server.addresses["chat"].into())?;
        stopped.push(socket.into());
    }
    stopped[STOPPED - 1].peek(&mut [0])?; // all of them are members
    crowd.catch_up()?;
    let rest = server.memory("VmRSS")?;
    let each = (rest - before) / MEMBERS as u64;
    let kept = figure(
        &format!(
            "memory: {} KiB resident at the start, {each} bytes more for each of {MEMBERS} members",
            before / 1024
        ),
        each <= 1024,
    );

    let lines = 3 * LOG / 2 / LINE;
    for said in 0..lines {
        progress(&format!("{said} of {lines} messages"));
        crowd.speak(1)?;
        crowd.hear(1)?;
    }
    let grown = server.memory("VmHWM")?.saturating_sub(rest) as usize;
    // The log's vector may have twice the room that it needs; so may what holds the rest of a message begun.
    let most = 2 * LOG + STOPPED * (2 * LINE + 256) + (256 << 10);
    let text = format!(
        "memory: {} KiB more while {lines} messages of {LINE} bytes are said and {STOPPED} members read none",
        grown / 1024
    );
    // That the log was full at some time shows that they were stopped indeed.
    Ok(figure(&text, grown <= most && grown >= LOG / 2) && kept)
}
