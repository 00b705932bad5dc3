//! What file transfer costs, on the built program and a real disk: what it does to an echo client beside it and to the
//! server's memory, how fast it is beside ncat, and what `--files-sync` costs. `cargo bench --bench transfer -- PART` runs one.

mod server;

use server::{Outcome, Part, Server, asked, figure, measure};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const PARTS: &[(&str, Part)] = &[("upload", upload), ("download", download), ("speed", speed), ("sync", sync)];
const MIB: u64 = 1 << 20;
const LARGE: u64 = 1024 * MIB;

fn main() -> Outcome<()> {
    measure(&asked(), PARTS)
}

/// A directory beside the built program, on a disk as it is; gone in the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Outcome<Scratch> {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("transfer-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("served"))?;
        Ok(Scratch(path))
    }

    /// A file of so many bytes that no file system stores as less.
    fn file(&self, name: &str, size: u64) -> Outcome<PathBuf> {
        let path = self.0.join(name);
        let mut file = fs::File::create(&path)?;
        let mut block = vec![0u8; MIB as usize];
        let mut state = 1u64;
        for number in 0..size / MIB {
            for word in block.chunks_exact_mut(8) {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                word.copy_from_slice(&(state ^ number).to_le_bytes());
            }
            file.write_all(&block)?;
        }
        file.sync_all()?; // what follows shall not wait for this
        Ok(path)
    }

    fn server(&self, more: &[&str]) -> Outcome<Server> {
        let served = self.0.join("served");
        let served = served.to_str().ok_or("a strange path")?;
        let flags = ["--files-dir", served, "--files-max-size", "2GiB", "--files-quota", "16GiB", "--files-delete"];
        Server::start(&[], &["echo", "files"], &[&flags, more].concat())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn line(stream: &mut BufReader<TcpStream>) -> Outcome<String> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    Ok(line)
}

fn connect(server: &Server) -> Outcome<BufReader<TcpStream>> {
    let stream = server.connect("files")?;
    stream.set_read_timeout(Some(Duration::from_secs(120)))?;
    Ok(BufReader::with_capacity(1 << 18, stream))
}

/// Takes a file there without a hash; returns how long that took, to the word that it is stored.
fn put(server: &Server, name: &str, file: &Path) -> Outcome<Duration> {
    let (mut stream, mut from) = (connect(server)?, fs::File::open(file)?);
    let size = from.metadata()?.len();
    let started = Instant::now();
    stream.get_ref().write_all(format!("PUT {name} {size}\n").as_bytes())?;
    let mut block = vec![0; 1 << 18];
    loop {
        match from.read(&mut block)? {
            0 => break,
            count => stream.get_ref().write_all(&block[..count])?,
        }
    }
    line(&mut stream)?;
    let stored = line(&mut stream)?;
    if stored.starts_with("STORED") { Ok(started.elapsed()) } else { Err(stored.into()) }
}

/// Fetches a file and throws it away.
fn get(server: &Server, name: &str) -> Outcome<Duration> {
    let mut stream = connect(server)?;
    let started = Instant::now();
    stream.get_ref().write_all(format!("GET {name}\n").as_bytes())?;
    let head = line(&mut stream)?;
    let size: u64 = head.split(' ').nth(2).ok_or(head.clone())?.parse()?;
    let copied = std::io::copy(&mut stream.take(size), &mut std::io::sink())?;
    if copied == size { Ok(started.elapsed()) } else { Err("cut off".into()) }
}

fn delete(server: &Server, name: &str) -> Outcome<()> {
    let mut stream = connect(server)?;
    stream.get_ref().write_all(format!("DELETE {name}\n").as_bytes())?;
    line(&mut stream)?;
    Ok(())
}

fn p99(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all[(all.len() * 99 / 100).min(all.len() - 1)]
}

/// A line to the echo and back, again and again until `done`, at least a thousand times.
fn pings(server: &Server, done: impl Fn() -> bool) -> Outcome<Vec<Duration>> {
    let (mut client, mut all) = (server.connect("echo")?, Vec::new());
    while all.len() < 1000 || !done() {
        let said = Instant::now();
        client.write_all(b"hello\n")?;
        client.read_exact(&mut [0; 12])?;
        all.push(said.elapsed());
    }
    Ok(all)
}

/// An echo client beside some work, and the server's memory.
fn beside(what: &str, server: &Server, work: impl FnOnce() -> Outcome<Duration> + Send) -> Outcome<bool> {
    let resident = |key: &str| -> Outcome<u64> { Ok(server.status(key)?.parse::<u64>()?) };
    let before = p99(pings(server, || true)?);
    let memory = resident("VmRSS")?;
    let done = AtomicBool::new(false);
    let (during, took) = thread::scope(|scope| -> Outcome<_> {
        let worker = scope.spawn(|| {
            let took = work();
            done.store(true, Ordering::Relaxed);
            took
        });
        let during = pings(server, || done.load(Ordering::Relaxed))?;
        Ok((during, worker.join().map_err(|_| "the work panicked")??))
    })?;
    let (count, slowest, during) = (during.len(), during.iter().max().copied().unwrap_or_default(), p99(during));
    let grown = resident("VmHWM")?.saturating_sub(memory);
    let text = format!(
        "{what}: {:.0} MiB/s; p99 of an echo {before:?} alone, {during:?} beside ({count} lines, slowest {slowest:?}); {grown} kB more memory",
        (LARGE / MIB) as f64 / took.as_secs_f64()
    );
    Ok(figure(&text, during <= 5 * before + Duration::from_millis(20) && grown <= 2048))
}

fn upload() -> Outcome<bool> {
    let scratch = Scratch::new()?;
    let file = scratch.file("large", LARGE)?;
    let server = scratch.server(&[])?;
    beside("upload of 1 GiB", &server, || put(&server, "large", &file))
}

fn download() -> Outcome<bool> {
    let scratch = Scratch::new()?;
    scratch.file("served/large", LARGE)?;
    // A file that has changed within a second is not remembered.
    thread::sleep(Duration::from_secs(1));
    let server = scratch.server(&[])?;
    let hashed = beside("download of 1 GiB, hashed first", &server, || get(&server, "large"))?;
    Ok(hashed & beside("download of 1 GiB, hash remembered", &server, || get(&server, "large"))?)
}

/// The quickest of three, and the file taken away between them.
fn best(mut once: impl FnMut() -> Outcome<Duration>) -> Outcome<f64> {
    let mut best = Duration::MAX;
    for _ in 0..3 {
        best = best.min(once()?);
    }
    Ok((LARGE / MIB) as f64 / best.as_secs_f64())
}

fn oneloop(directory: &Path, words: &[&str]) -> Outcome<Duration> {
    let started = Instant::now();
    let status = Command::new(env!("CARGO_BIN_EXE_oneloop"))
        .args(words)
        .current_dir(directory)
        .stdout(Stdio::null())
        .status()?;
    if status.success() { Ok(started.elapsed()) } else { Err("a transfer failed".into()) }
}

/// One loopback transfer of 1 GiB, from a file into a file.
fn speed() -> Outcome<bool> {
    let scratch = Scratch::new()?;
    let file = scratch.file("large", LARGE)?;
    let server = scratch.server(&[])?;
    let address = server.addresses["files"].to_string();
    let sent = best(|| {
        let took = oneloop(&scratch.0, &["send", "-q", "large", &address])?;
        delete(&server, "large")?;
        Ok(took)
    })?;
    let bare = best(|| {
        let took = put(&server, "large", &file)?;
        delete(&server, "large")?;
        Ok(took)
    })?;
    put(&server, "large", &file)?;
    fs::create_dir(scratch.0.join("fetched"))?;
    let fetched = best(|| {
        let took = oneloop(&scratch.0, &["get", "-q", "--output", "fetched", "large", &address])?;
        fs::remove_file(scratch.0.join("fetched/large"))?;
        Ok(took)
    })?;
    figure(
        &format!(
            "speed of 1 GiB: send {sent:.0} MiB/s (hashed here and there), get {fetched:.0} MiB/s (hashed here), as nc does \
             it {bare:.0} MiB/s (hashed there)"
        ),
        true,
    );
    if Command::new("ncat").arg("--version").stderr(Stdio::null()).stdout(Stdio::null()).status().is_err() {
        return Ok(figure("speed: ncat is not here to be compared with", true));
    }
    let ncat = best(|| {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
        let into = fs::File::create(scratch.0.join("ncat"))?;
        let mut receiver = Command::new("ncat").args(["-l", "--recv-only", "127.0.0.1", &port]).stdout(into).spawn()?;
        // It listens when the kernel says so: proc(5), state 0A. To try the port would take it away.
        let listens = format!("0100007F:{:04X} 00000000:0000 0A", port.parse::<u16>()?);
        while !fs::read_to_string("/proc/net/tcp")?.contains(&listens) {
            thread::yield_now();
        }
        let started = Instant::now();
        let from = fs::File::open(&file)?;
        Command::new("ncat").args(["--send-only", "127.0.0.1", &port]).stdin(from).status()?;
        receiver.wait()?;
        let took = started.elapsed();
        if fs::metadata(scratch.0.join("ncat"))?.len() == LARGE { Ok(took) } else { Err("ncat lost bytes".into()) }
    })?;
    let text = format!("speed of 1 GiB by ncat, without a hash: {ncat:.0} MiB/s; send is {:.2} of that", sent / ncat);
    Ok(figure(&text, true))
}

/// What it costs to have a file on the disk before it is said to be stored.
fn sync() -> Outcome<bool> {
    let scratch = Scratch::new()?;
    for size in [MIB, 64 * MIB] {
        let file = scratch.file("file", size)?;
        for when in ["off", "on"] {
            let server = scratch.server(&["--files-sync", when])?;
            let done = AtomicBool::new(false);
            let (pinged, took) = thread::scope(|scope| -> Outcome<_> {
                let worker = scope.spawn(|| -> Outcome<Duration> {
                    let mut all = Vec::new();
                    for _ in 0..10 {
                        all.push(put(&server, "file", &file)?);
                        delete(&server, "file")?;
                    }
                    done.store(true, Ordering::Relaxed);
                    all.sort_unstable();
                    Ok(all[5])
                });
                let pinged = pings(&server, || done.load(Ordering::Relaxed))?;
                Ok((pinged, worker.join().map_err(|_| "the work panicked")??))
            })?;
            let slowest = pinged.iter().max().copied().unwrap_or_default();
            let size = size / MIB;
            figure(
                &format!("sync {when}: {size} MiB stored in {took:?} (median of 10); slowest echo beside {slowest:?}"),
                true,
            );
        }
    }
    Ok(true)
}
