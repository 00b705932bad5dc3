//! What the measuring programs share: the built program, started on free ports and looked at from outside.

#![allow(dead_code)] // every measuring program uses a part of this

use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader, IsTerminal};
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
