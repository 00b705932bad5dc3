//! What the measuring programs share: the built program, started on free ports and looked at from outside.

#![allow(dead_code)] // every measuring program uses a part of this

use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Measures, prints, and returns whether its promises are kept.
pub(crate) type Part = fn() -> Outcome<bool>;

/// Runs the parts that were asked for, or all.
pub(crate) fn measure(asked: &[String], parts: &[(&str, Part)]) -> Outcome<()> {
    let mut kept = true;
    for (name, part) in parts {
        if asked.is_empty() || asked.iter().any(|word| word == name) {
            progress(name);
            kept &= part()?;
        }
    }
    if kept { Ok(()) } else { Err("a promise was not kept, see above".into()) }
}

/// What the command line asks for. cargo adds `--bench`.
pub(crate) fn asked() -> Vec<String> {
    std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect()
}

/// Prints one figure and whether it keeps its promise.
pub(crate) fn figure(text: &str, kept: bool) -> bool {
    progress("");
    println!("{text}{}", if kept { "" } else { "   <-- NOT KEPT" });
    kept
}

/// What is being done, for whoever watches.
pub(crate) fn progress(text: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r{text:40}\r");
    }
}

/// The program, serving; killed in the end.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) addresses: BTreeMap<String, SocketAddr>,
}

impl Server {
    /// Started by `wrapper`, if there is one: another program's name and flags. `services` are on free ports, all others off.
    pub(crate) fn start(wrapper: &[&str], services: &[&str], flags: &[&str]) -> Outcome<Server> {
        let words = [wrapper, &[env!("CARGO_BIN_EXE_oneloop")]].concat();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).args(["--max-connections", "15000", "--log-level", "error"]).args(flags);
        command.args(["--heartbeat-interval", "1h"]); // nobody here answers a ping, however long it only listens
        for name in ["echo", "raw", "chat", "web", "files", "udp"] {
            let place = if services.contains(&name) { "127.0.0.1:0" } else { "off" };
            command.arg(format!("--{name}")).arg(place);
        }
        let child = command.stdout(Stdio::piped()).spawn();
        let mut child = child.map_err(|error| format!("cannot start {}: {error}", words[0]))?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("no standard output")?).lines();
        let mut addresses = BTreeMap::new();
        for _ in services {
            let line = lines.next().ok_or("the server ended")??;
            let words: Vec<&str> = line.split(' ').collect();
            addresses.insert(words[1].to_string(), words[2].parse()?);
        }
        Ok(Server { child, addresses })
    }

    pub(crate) fn connect(&self, service: &str) -> Outcome<TcpStream> {
        let stream = TcpStream::connect(self.addresses[service])?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(stream)
    }

    /// Asks for the WebSocket at `path`. The answer waits to be read.
    pub(crate) fn ask_for_websocket(&self, path: &str) -> Outcome<TcpStream> {
        let mut stream = self.connect("web")?;
        let host = self.addresses["web"];
        let key = "dGhlIHNhbXBsZSBub25jZQ=="; // as in RFC 6455, section 1.3
        stream.write_all(
            format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n").as_bytes(),
        )?;
        Ok(stream)
    }

    /// A value of `/proc/PID/status`.
    pub(crate) fn status(&self, key: &str) -> Outcome<String> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|line| line.starts_with(key)).ok_or("no such line")?;
        Ok(line.split_whitespace().nth(1).ok_or("no value")?.to_string())
    }

    /// User and system time so far.
    pub(crate) fn cpu(&self) -> Outcome<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/schedstat", self.child.id()))?;
        Ok(Duration::from_nanos(stat.split(' ').next().ok_or("no value")?.parse()?))
    }
}

/// A text as a client sends it, masked; of at most 125 bytes.
pub(crate) fn frame(text: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    assert!(text.len() <= 125, "a longer one needs a longer header");
    let masked = text.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key);
    [0x81, 0x80 | text.len() as u8].into_iter().chain(MASK).chain(masked).collect()
}

/// What the second of two loads costs when the first costs 1; and the median of each.
pub(crate) struct Compared {
    pub(crate) ratio: f64,
    pub(crate) each: [Duration; 2],
}

/// Runs two loads turn about, in short slices, so that whatever else the machine does happens to both. `load` runs a slice of
/// one and returns what it cost.
pub(crate) fn compare(mut load: impl FnMut(usize) -> Outcome<Duration>) -> Outcome<Compared> {
    const PAIRS: usize = 41;
    let mut spent = [Vec::new(), Vec::new()];
    for pair in 0..PAIRS {
        progress(&format!("pair {pair} of {PAIRS}"));
        for which in [pair % 2, 1 - pair % 2] {
            spent[which].push(load(which)?);
        }
    }
    // Of a pair both halves have seen the same machine; the median of the pairs knows nothing of the odd bad moment.
    let ratio = |(first, second): (&Duration, &Duration)| second.as_secs_f64() / first.as_secs_f64();
    let mut ratios: Vec<f64> = spent[0].iter().zip(&spent[1]).map(ratio).collect();
    ratios.sort_unstable_by(f64::total_cmp);
    spent.iter_mut().for_each(|all| all.sort_unstable());
    Ok(Compared { ratio: ratios[PAIRS / 2], each: [spent[0][PAIRS / 2], spent[1][PAIRS / 2]] })
}

/// A server under callgrind, which counts the instructions of its user space.
pub(crate) struct Counted {
    pub(crate) server: Server,
    file: PathBuf,
}

impl Counted {
    pub(crate) fn start(services: &[&str]) -> Outcome<Counted> {
        let file = std::env::temp_dir().join(format!("oneloop-callgrind-{}", std::process::id()));
        let out = format!("--callgrind-out-file={}", file.display());
        let wrapper = ["valgrind", "-q", "--tool=callgrind", &out];
        Ok(Counted { server: Server::start(&wrapper, services, &["--drain", "100ms"])?, file })
    }

    /// Instructions while `load` runs. Ends the server.
    pub(crate) fn count(mut self, load: impl FnOnce() -> Outcome<()>) -> Outcome<f64> {
        // Counted is what happens between two dumps, the first of which is thrown away; so is what comes after, the stop.
        self.dump()?;
        load()?;
        self.dump()?;
        kill_process(Pid::from_child(&self.server.child), Signal::TERM)?;
        self.server.child.wait()?;
        let counted = fs::read_to_string(self.file.with_extension("2"))?;
        let totals = counted.lines().find_map(|line| line.strip_prefix("totals: ")).ok_or("no totals")?;
        for extension in ["", "1", "2"] {
            fs::remove_file(self.file.with_extension(extension))?;
        }
        Ok(totals.parse()?)
    }

    /// Has callgrind write down what it has counted, and begin anew.
    fn dump(&self) -> Outcome<()> {
        let vgdb = Command::new("vgdb").arg(format!("--pid={}", self.server.child.id())).arg("dump").output()?;
        if vgdb.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&vgdb.stderr).into()) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The server's system calls, being written down.
pub(crate) struct Trace {
    strace: Child,
    file: PathBuf,
}

impl Trace {
    /// Returns once `strace` is attached.
    pub(crate) fn start(server: &Server) -> Outcome<Trace> {
        let file = std::env::temp_dir().join(format!("oneloop-calls-{}", std::process::id()));
        let mut strace = Command::new("strace")
            .args(["-p", &server.child.id().to_string(), "-s", "8", "-o"])
            .arg(&file)
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start strace: {error} (apt-get install strace)"))?;
        let mut said = String::new();
        BufReader::new(strace.stderr.take().ok_or("no standard error")?).read_line(&mut said)?;
        if !said.contains("attached") {
            return Err(format!("strace cannot attach: {said}").into());
        }
        Ok(Trace { strace, file })
    }

    /// What it wrote, a call a line.
    pub(crate) fn stop(mut self) -> Outcome<String> {
        kill_process(Pid::from_child(&self.strace), Signal::INT)?;
        self.strace.wait()?;
        let text = fs::read_to_string(&self.file)?;
        fs::remove_file(&self.file)?;
        Ok(text)
    }
}
