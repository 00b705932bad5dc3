//! `oneloop send` and `oneloop get` against the real server: whatever is killed in the middle, what is there in the end is whole.
#![cfg(feature = "files")]

mod common;

use common::{Output, PATIENCE, Process, Ran, Server, oneloop, run};
use rustix::process::Signal;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

struct Scratch(PathBuf);

impl Scratch {
    /// With a directory `served`, one `here` to send from and one `fetched`.
    fn new() -> Scratch {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("oneloop-transfer-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        for name in ["served", "here", "fetched"] {
            fs::create_dir_all(path.join(name)).expect("a directory");
        }
        Scratch(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).expect("a file");
    }

    fn names(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(directory)).expect("a directory");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
        names.sort();
        names
    }

    fn server(&self, address: &str) -> Server {
        let directory = self.path("served");
        let directory = directory.to_str().expect("UTF-8");
        Server::start(1, &["--files", address, "--files-dir", directory, "--echo", "off", "--udp", "off"])
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The program as a client, in the directory where what it is given is, with nothing that belongs to a server.
fn client(directory: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oneloop"));
    command.args(words).current_dir(directory).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

fn ran(directory: &Path, words: &[&str]) -> Ran {
    run(&mut client(directory, words))
}

/// Bytes that no run of one pattern could stand for.
fn noise(count: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    (0..count.div_ceil(8)).flat_map(|_| random.next().to_le_bytes()).take(count).collect()
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

#[test]
fn files_go_there_and_come_back() {
    let scratch = Scratch::new();
    let server = scratch.server("127.0.0.1:0");
    let address = server.address().to_string();
    let contents = [("empty", vec![]), ("small.txt", b"hello\n".to_vec()), ("large", noise(3_000_001, 1))];
    for (name, content) in &contents {
        scratch.write(&format!("here/{name}"), content);
    }
    let lines: String = contents.iter().map(|(name, content)| format!("{}  {name}\n", hash(content))).collect();
    for _ in 0..2 {
        // The second time they are there already, which is as good.
        let sent = ran(&scratch.path("here"), &["send", "empty", "small.txt", "./large", &address]);
        assert_eq!((sent.code, &sent.stdout, &sent.stderr[..]), (Some(0), &lines, ""));
    }
    for _ in 0..2 {
        let got = ran(&scratch.path("fetched"), &["get", "empty", "small.txt", "large", &address]);
        assert_eq!((got.code, &got.stdout, &got.stderr[..]), (Some(0), &lines, ""));
    }
    for (name, content) in &contents {
        for place in ["served", "fetched"] {
            assert!(fs::read(scratch.path(place).join(name)).expect("a file") == *content, "{place}: {name}");
        }
    }
    assert_eq!(scratch.names("served"), ["empty", "large", "small.txt"]);
    assert_eq!(scratch.names("fetched"), ["empty", "large", "small.txt"]);
}

#[test]
fn one_that_fails_is_said_in_one_line_and_the_others_go_on() {
    let scratch = Scratch::new();
    let server = scratch.server("127.0.0.1:0");
    let address = server.address().to_string();
    let (here, fetched) = (scratch.path("here"), scratch.path("fetched"));
    scratch.write("here/a", b"mine");
    scratch.write("served/a", b"theirs");
    scratch.write("here/b", b"b");
    let sent = ran(&here, &["send", "a", "none", ".", "b", &address]);
    assert_eq!((sent.code, sent.stdout), (Some(2), String::new()), "wrong usage sends nothing");
    let sent = ran(&here, &["send", "a", "none", "../here", "b", &address]);
    assert_eq!((sent.code, sent.stdout), (Some(1), format!("{}  b\n", hash(b"b"))));
    let expected = "oneloop: a: exists: a is there already with other content\n\
                    oneloop: none: No such file or directory (os error 2)\n\
                    oneloop: here: not a regular file\n";
    assert_eq!(sent.stderr, expected);
    // Here nothing is replaced unasked, either.
    scratch.write("fetched/a", b"mine");
    let got = ran(&fetched, &["get", "none", "a", &address]);
    let expected = "oneloop: none: missing: there is no none\n\
                    oneloop: a: is there already with other content (--force replaces it)\n";
    assert_eq!((got.code, &got.stderr[..]), (Some(1), expected));
    assert_eq!(fs::read(fetched.join("a")).expect("a file"), b"mine");
    for (mine, theirs) in [("longer than theirs", "short"), ("short", "longer than mine"), ("12345", "54321")] {
        scratch.write("fetched/a", mine.as_bytes());
        scratch.write("served/a", theirs.as_bytes());
        assert_eq!(ran(&fetched, &["get", "a", &address]).code, Some(1), "{mine}");
        assert_eq!(fs::read(fetched.join("a")).expect("a file"), mine.as_bytes());
        let got = ran(&here, &["get", "--force", "-q", "--output", "../fetched", "a", &address]);
        assert_eq!((got.code, got.stdout, got.stderr), (Some(0), String::new(), String::new()));
        assert_eq!(fs::read(fetched.join("a")).expect("a file"), theirs.as_bytes());
    }
    assert_eq!(scratch.names("fetched"), ["a"]);
    let got = ran(&here, &["get", "--output", "/none", "a", &address]);
    assert_eq!((got.code, got.stderr.lines().count()), (Some(1), 1), "{}", got.stderr);
}

#[test]
fn where_nobody_listens_or_nobody_speaks_it_that_is_said_at_once() {
    let scratch = Scratch::new();
    scratch.write("here/a", b"a");
    let here = scratch.path("here");
    let closed = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").to_string();
    let sent = ran(&here, &["send", "a", &closed]);
    assert_eq!((sent.code, &sent.stderr[..]), (Some(1), "oneloop: a: Connection refused (os error 111)\n"));
    let echo = Server::echo(&[]);
    let sent = ran(&here, &["send", "a", &echo.address().to_string()]);
    assert_eq!(sent.code, Some(1));
    let line = "oneloop: a: the server does not speak as one of files: \"echo: PUT a 1 ";
    assert!(sent.stderr.starts_with(line) && sent.stderr.lines().count() == 1, "{}", sent.stderr);
    let got = ran(&here, &["get", "b", "name.invalid:1"]);
    assert!(got.code == Some(1) && got.stderr.contains("no address for name.invalid"), "{}", got.stderr);
}

/// A server of files that does as a test says, once for each connection.
fn scripted(answers: Vec<Vec<u8>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut line = Vec::new();
            while line.last() != Some(&b'\n') {
                let mut byte = [0];
                stream.read_exact(&mut byte).expect("a line");
                line.push(byte[0]);
            }
            stream.write_all(&answer).expect("the client takes it");
            let _ = stream.shutdown(Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    address
}

#[test]
fn a_server_that_lies_gets_nothing_its_name() {
    let scratch = Scratch::new();
    let fetched = scratch.path("fetched");
    let (good, bad) = (hash(b"good"), hash(b"bad!"));
    for (answer, why) in [
        (format!("FILE a 4 {good}\nbad!"), format!("what came has the hash {bad}")),
        (format!("FILE b 4 {good}\ngood"), "does not speak".to_string()),
        (format!("FILE ../a 4 {good}\ngood"), "does not speak".to_string()),
        (format!("STORED a 4 {good}\n"), "does not speak".to_string()),
        ("READY 0\n".to_string(), "does not speak".to_string()),
        ("ERROR denied: \x1b[2Jno\n".to_string(), "denied: [2Jno".to_string()),
        ("x".repeat(70_000), "line longer than".to_string()),
    ] {
        let address = scripted(vec![answer.into_bytes()]).to_string();
        let got = ran(&fetched, &["get", "--retries", "0", "a", &address]);
        assert_eq!((got.code, got.stdout), (Some(1), String::new()), "{}", got.stderr);
        assert!(got.stderr.contains(&why) && got.stderr.lines().count() == 1, "{why}: {}", got.stderr);
        assert!(!got.stderr.contains('\x1b'));
        assert!(scratch.names("fetched").is_empty(), "{:?}", scratch.names("fetched"));
    }
}

#[test]
fn a_refusal_in_the_middle_is_heard_before_everything_is_sent() {
    const SIZE: u64 = 64 << 20;
    let scratch = Scratch::new();
    fs::File::create(scratch.path("here/a")).and_then(|file| file.set_len(SIZE)).expect("a file of holes");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        stream.write_all(b"READY 0\n").expect("the client takes it");
        stream.read_exact(&mut [0; 4096]).expect("bytes");
        stream.write_all(b"ERROR disk: full\n").expect("the client takes it");
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        rest.len() as u64
    });
    let sent = ran(&scratch.path("here"), &["send", "a", &address]);
    assert_eq!((sent.code, &sent.stderr[..]), (Some(1), "oneloop: a: disk: full\n"));
    let taken = server.join().expect("no panic");
    assert!(taken < SIZE - 4096, "{taken} bytes: all of it was sent");
}

#[test]
fn within_one_run_it_goes_on_after_a_lost_connection_and_starts_anew_when_the_file_is_another() {
    let scratch = Scratch::new();
    let fetched = scratch.path("fetched");
    // Broken off, busy, then the rest; each connection is asked for what is still missing, or the length would not fit.
    let file = |size: usize, content: &str| format!("FILE a {size} {}\n", hash(content.as_bytes())).into_bytes();
    let script = vec![
        [&file(6, "abcdef")[..], b"abc"].concat(),
        b"ERROR busy: 64 downloads at a time\n".to_vec(),
        [&file(6, "abcdef")[..], b"def"].concat(),
    ];
    let got = ran(&fetched, &["get", "a", &scripted(script).to_string()]);
    assert_eq!((got.code, got.stdout), (Some(0), format!("{}  a\n", hash(b"abcdef"))), "{}", got.stderr);
    let lines: Vec<&str> = got.stderr.lines().collect();
    assert!(
        lines.len() == 2 && lines[0].starts_with("oneloop: a: the server ended the connection after 3 bytes; again in"),
        "{lines:?}"
    );
    assert!(lines[1].starts_with("oneloop: a: 64 downloads at a time; again in"), "{lines:?}");
    assert_eq!(fs::read(fetched.join("a")).expect("a file"), b"abcdef");
    fs::remove_file(fetched.join("a")).expect("a file");
    // The part is of another file: it goes, and at once the whole is asked for.
    let script = vec![
        [&file(6, "abcdef")[..], b"abc"].concat(),
        [&file(6, "ABCDEF")[..], b"DEF"].concat(),
        [&file(6, "ABCDEF")[..], b"ABCDEF"].concat(),
    ];
    let got = ran(&fetched, &["get", "a", &scripted(script).to_string()]);
    assert_eq!(got.code, Some(0), "{}", got.stderr);
    assert_eq!(fs::read(fetched.join("a")).expect("a file"), b"ABCDEF");
    assert_eq!(scratch.names("fetched"), ["a"]);
    // Nothing but broken connections comes to an end, too.
    let got = ran(&fetched, &["get", "--retries", "1", "b", &scripted(vec![vec![], vec![]]).to_string()]);
    assert_eq!((got.code, got.stderr.lines().count()), (Some(1), 2), "{}", got.stderr);
}

#[test]
fn a_server_that_is_ready_and_goes_away_again_and_again_is_given_up() {
    let scratch = Scratch::new();
    scratch.write("here/a", &noise(1_000_000, 3));
    let address = scripted(vec![b"READY 0\n".to_vec(); 10]).to_string();
    let sent = ran(&scratch.path("here"), &["send", "--retries", "1", "a", &address]);
    assert_eq!((sent.code, sent.stderr.lines().count()), (Some(1), 2), "{}", sent.stderr);
    // Where each time more has arrived, it goes on for longer than that.
    let ready = |at: usize| format!("READY {at}\n").into_bytes();
    let script = [0, 10, 20, 30].into_iter().map(ready).chain([b"ERROR denied: enough\n".to_vec()]).collect();
    let sent = ran(&scratch.path("here"), &["send", "--retries", "1", "a", &scripted(script).to_string()]);
    assert_eq!((sent.code, sent.stderr.lines().count()), (Some(1), 5), "{}", sent.stderr);
    assert!(sent.stderr.ends_with("oneloop: a: denied: enough\n"), "{}", sent.stderr);
}

#[test]
fn two_that_fetch_one_name_into_one_directory_do_not_mix_it() {
    let scratch = Scratch::new();
    let server = scratch.server("127.0.0.1:0");
    let address = server.address().to_string();
    let fetched = scratch.path("fetched");
    let content = noise(5_000_000, 4);
    scratch.write("served/a", &content);
    let line = format!("{}  a\n", hash(&content));
    // One is held in the middle; the other is told, and nothing has the name.
    let gate = Gate::new(server.address(), 1_000_000, false);
    let mut words = client(&fetched, &["get", "--retries", "0", "a", &gate.address.to_string()]);
    let mut held = Process::spawn(words.stdout(Stdio::null()).stderr(Stdio::null()));
    gate.reached.recv_timeout(PATIENCE).expect("the middle of the file");
    let got = ran(&fetched, &["get", "--retries", "0", "a", &address]);
    assert_eq!((got.code, &got.stderr[..]), (Some(1), "oneloop: a: another process is at it\n"));
    assert_eq!(scratch.names("fetched").len(), 1, "the part of the first");
    held.signal(Signal::KILL);
    held.wait();
    let got = ran(&fetched, &["get", "a", &address]);
    assert_eq!((got.code, got.stdout), (Some(0), line.clone()), "{}", got.stderr);
    // However many begin at once, in whatever order: right or an error, and at least one is right.
    for _ in 0..5 {
        fs::remove_file(fetched.join("a")).expect("a file");
        let started: Vec<_> = (0..4)
            .map(|_| Process::heard(client(&fetched, &["get", "--retries", "0", "a", &address]).stdin(Stdio::null())))
            .collect();
        let mut whole = 0;
        for (mut process, stdout, stderr) in started {
            match process.wait().code() {
                Some(0) => {
                    whole += 1;
                    assert_eq!(stdout.all(), line);
                }
                code => assert_eq!((code, stderr.all().lines().count()), (Some(1), 1), "{}", stderr.all()),
            }
        }
        assert!(whole > 0);
        assert!(fs::read(fetched.join("a")).expect("a file") == content);
        assert_eq!(scratch.names("fetched"), ["a"]);
    }
}

#[test]
fn on_a_terminal_there_is_a_bar_with_rate_and_time_left_and_elsewhere_none() {
    let scratch = Scratch::new();
    let server = scratch.server("127.0.0.1:0");
    let address = server.address().to_string();
    scratch.write("here/a", &noise(20_000_000, 2));
    let here = scratch.path("here");
    let sent = ran(&here, &["send", "a", &address]);
    assert_eq!((sent.code, &sent.stderr[..]), (Some(0), ""));
    fs::remove_file(scratch.path("served/a")).expect("a file");
    let master =
        rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY).expect("a terminal");
    rustix::pty::grantpt(&master).expect("a terminal");
    rustix::pty::unlockpt(&master).expect("a terminal");
    let name = rustix::pty::ptsname(&master, Vec::new()).expect("a name");
    let terminal =
        fs::OpenOptions::new().read(true).write(true).open(name.to_str().expect("UTF-8")).expect("a terminal");
    let size = rustix::termios::Winsize { ws_row: 24, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&terminal, size).expect("a terminal");
    let shown = Output::collect(Ending(fs::File::from(master)));
    let mut sending = Process::spawn(
        client(&here, &["send", "a", &address]).env("TERM", "xterm").stderr(terminal).stdout(Stdio::null()),
    );
    assert_eq!(sending.wait().code(), Some(0));
    drop(sending);
    let shown = shown.all();
    assert!(shown.contains("/19.07 MiB") && shown.contains("iB/s") && shown.contains("a (checking)"), "{shown:?}");
}

/// The master of a terminal whose other end has gone fails; here that is its end.
struct Ending(fs::File);

impl Read for Ending {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.0.read(buffer) {
            Err(error) if error.raw_os_error() == Some(5) => Ok(0),
            result => result,
        }
    }
}

/// Passes on so many bytes in the direction of a transfer, and then holds everything, so that whoever is killed is killed
/// right there.
struct Gate {
    address: SocketAddr,
    reached: std::sync::mpsc::Receiver<()>,
}

impl Gate {
    fn new(to: SocketAddr, limit: usize, is_upload: bool) -> Gate {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (sender, reached) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let (client, _) = listener.accept().expect("a client");
            let server = TcpStream::connect(to).expect("a server");
            let (from, into) = if is_upload { (&client, &server) } else { (&server, &client) };
            let (back_from, back_into) = (into.try_clone().expect("a socket"), from.try_clone().expect("a socket"));
            thread::spawn(move || pass(&back_from, &back_into, usize::MAX));
            let passed = pass(from, into, limit);
            let _ = sender.send(());
            if passed == limit {
                // Nothing more goes through until the test has killed one side, whose end then ends both.
                let mut from = from;
                let _ = from.read_to_end(&mut Vec::new());
                let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
            }
        });
        Gate { address, reached }
    }
}

fn pass(mut from: &TcpStream, mut into: &TcpStream, mut left: usize) -> usize {
    let (mut bytes, mut passed) = ([0; 16384], 0);
    while left > 0 {
        let most = left.min(bytes.len());
        match from.read(&mut bytes[..most]) {
            Ok(0) => break,
            Ok(count) if into.write_all(&bytes[..count]).is_err() => break,
            Ok(count) => (left, passed) = (left - count, passed + count),
            Err(error) if error.kind() == ErrorKind::Interrupted => (),
            Err(_) => break,
        }
    }
    if left > 0 {
        let _ = into.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    }
    passed
}

/// Row 61, and the promise: 50 times `kill -9` of either side at a random byte of a transfer, and then a resume.
#[test]
fn whoever_is_killed_wherever_every_file_ends_whole_and_none_is_partial() {
    let seed = std::env::var("ONELOOP_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    let mut random = Random(seed);
    let scratch = Scratch::new();
    let mut server = scratch.server("127.0.0.1:0");
    let address = server.address().to_string();
    let (here, fetched) = (scratch.path("here"), scratch.path("fetched"));
    let mut resumed = 0;
    for round in 0..50 {
        let (is_upload, kills_server) = (round % 2 == 0, round % 4 >= 2);
        let size = 100_000 + random.below(900_000);
        let (name, content) = (format!("file{round}"), noise(size, random.next()));
        let target = if is_upload { scratch.path("served").join(&name) } else { fetched.join(&name) };
        scratch.write(&if is_upload { format!("here/{name}") } else { format!("served/{name}") }, &content);
        let directory = if is_upload { &here } else { &fetched };
        let command = if is_upload { "send" } else { "get" };
        // Once or twice, from the first byte of the line to the last of the file.
        for _ in 0..1 + random.below(2) {
            if target.exists() {
                break;
            }
            let gate = Gate::new(server.address(), 1 + random.below(size + 70), is_upload);
            let mut words = client(directory, &[command, "--retries", "0", &name, &gate.address.to_string()]);
            let mut process = Process::spawn(words.stdout(Stdio::null()).stderr(Stdio::null()));
            gate.reached.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("seed {seed}, round {round}: no bytes"));
            if kills_server {
                server.process.signal(Signal::KILL);
                server.process.wait();
                process.wait();
                server = scratch.server(&address);
            } else {
                process.signal(Signal::KILL);
                process.wait();
            }
            match fs::read(&target) {
                Ok(found) => assert!(found == content, "seed {seed}, round {round}: partial"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound),
            }
        }
        let parts = |place: &str| scratch.names(place).iter().any(|file| file.ends_with(".oneloop-part"));
        resumed += usize::from(parts(if is_upload { "served" } else { "fetched" }));
        let done = ran(directory, &[command, &name, &address]);
        let line = format!("{}  {name}\n", hash(&content));
        assert_eq!((done.code, &done.stdout), (Some(0), &line), "seed {seed}, round {round}: {}", done.stderr);
        assert!(fs::read(&target).expect("a file") == content, "seed {seed}, round {round}");
    }
    assert!(resumed >= 30, "only {resumed} of 50 had anything to go on with");
    for place in ["served", "fetched"] {
        let names = scratch.names(place);
        assert!(names.iter().all(|name| name.starts_with("file")), "seed {seed}: {names:?}");
    }
    assert_eq!((scratch.names("served").len(), scratch.names("fetched").len()), (50, 25));
}

#[test]
fn help_teaches_by_example() {
    for command in ["send", "get"] {
        let help = run(&mut oneloop_alone(&[command, "--help"]));
        assert_eq!((help.code, &help.stderr[..]), (Some(0), ""));
        for part in ["Examples:", &format!("oneloop {command} "), "goes on where that stopped", "Exit status: 0"] {
            assert!(help.stdout.contains(part), "{command}: {part}: {}", help.stdout);
        }
    }
    let help = run(&mut oneloop(&["--help"]));
    for part in ["--files-dir <DIR>", "--files-quota <SIZE>", "oneloop --files 9070"] {
        assert!(help.stdout.contains(part), "{part}: {}", help.stdout);
    }
}

fn oneloop_alone(words: &[&str]) -> Command {
    client(Path::new("/"), words)
}
