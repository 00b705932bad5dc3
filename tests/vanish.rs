//! Clients that vanish without a word: their link is taken down between two network namespaces that the test makes itself.
//! Needs root and iproute2; without them it says so and checks nothing.

mod common;

use common::not_run;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than anything here takes: whoever waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `ip`; the error is what it said.
fn ip(words: &str) -> Result<(), String> {
    let output = Command::new("ip").args(words.split(' ')).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("ip {words}: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}

/// A namespace for the server and one for a client, with a link between them. Deleted in the end, and the link with them.
struct Link {
    server: String,
    client: String,
}

impl Link {
    const SERVER: &str = "10.77.0.1";

    /// `None`, said aloud, where that is not possible.
    fn new() -> Option<Link> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // Interfaces have the names of their namespaces: at most 15 bytes, and a process number has up to 7.
        let name = format!("ol{}n{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let link = Link { server: format!("{name}s"), client: format!("{name}c") };
        if let Err(error) = ip(&format!("netns add {}", link.server)) {
            not_run("vanish", &format!("root and iproute2 ({error})"));
            return None;
        }
        link.connect().expect("whoever may add a namespace may connect it");
        Some(link)
    }

    fn connect(&self) -> Result<(), String> {
        let Link { server, client } = self;
        ip(&format!("netns add {client}"))?;
        ip(&format!("link add {server} netns {server} type veth peer name {client} netns {client}"))?;
        ip(&format!("-n {server} addr add {}/24 dev {server}", Link::SERVER))?;
        ip(&format!("-n {client} addr add 10.77.0.2/24 dev {client}"))?;
        ip(&format!("-n {server} link set lo up"))?;
        ip(&format!("-n {server} link set {server} up"))?;
        ip(&format!("-n {client} link set {client} up"))
    }

    fn take_down(&self) {
        ip(&format!("-n {0} link set {0} down", self.client)).expect("the link goes down");
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        for name in [&self.client, &self.server] {
            let _ = ip(&format!("netns del {name}"));
        }
    }
}

/// A connection from within a namespace. A socket stays where it was made; the thread that makes it ends there.
fn connect_from(namespace: &str, address: SocketAddr) -> TcpStream {
    let file = File::open(format!("/run/netns/{namespace}")).expect("a namespace");
    let made = thread::spawn(move || {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("it is entered");
        TcpStream::connect_timeout(&address, PATIENCE).expect("a connection")
    });
    made.join().expect("no panic")
}

/// Lines, each with the moment at which it came.
type Lines = Receiver<(Instant, String)>;

/// Collects the lines of `source` while the test does other things; `on_line` may answer.
fn lines_of(source: impl Read + Send + 'static, mut on_line: impl FnMut(&str) + Send + 'static) -> Lines {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(source).lines().map_while(Result::ok) {
            on_line(&line);
            let _ = sender.send((Instant::now(), line)); // nobody may be listening any more
        }
    });
    receiver
}

/// When the first line came for which `wanted` holds. Others before it are dropped.
fn wait_for(lines: &Lines, what: &str, wanted: impl Fn(&str) -> bool) -> Instant {
    loop {
        let (at, line) = lines.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{what} did not come: {error}"));
        if wanted(&line) {
            return at;
        }
    }
}

/// The program in its namespace; killed in the end.
struct Server {
    child: Child,
    log: Lines,
    /// Where the link does not matter.
    inside: SocketAddr,
    /// Where the link leads.
    outside: SocketAddr,
}

impl Server {
    fn start(link: &Link, flags: &str) -> Server {
        let mut child = Command::new("ip")
            .args(["netns", "exec", &link.server, env!("CARGO_BIN_EXE_oneloop")]) // which takes the place of `ip`
            .args(["--chat", "127.0.0.1:0", "--chat", &format!("{}:0", Link::SERVER)])
            .args(["--echo", "off", "--raw", "off", "--udp", "off", "--log-level", "debug"])
            .args(flags.split(' '))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let log = lines_of(child.stderr.take().expect("piped"), |_| ());
        let mut listening = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut address = || {
            let line = listening.next().expect("it listens").expect("text");
            line.split(' ').nth(2).expect("three words").parse().expect("an address")
        };
        let (inside, outside) = (address(), address());
        Server { child, log, inside, outside }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a client does before it vanishes, and the others after that.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// Says a message and nothing of heartbeat, right before it vanishes.
    Quick,
    /// The same after it has said PING.
    Speaks,
    /// The same after it has been silent for longer than would be allowed to one that has vanished.
    Silent,
    /// As `Silent`, in a room where others go on talking.
    TalkedTo,
}

/// A client comes, vanishes, and must be gone `patience` after it was last heard: within 10 % and a second.
fn vanish(flags: &str, kind: Kind, patience: Duration, word: &str) {
    let Some(link) = Link::new() else { return };
    let server = Server::start(&link, flags);

    // Another member, on the server's side of the link; it answers whatever PING it gets.
    let mut witness = connect_from(&link.server, server.inside);
    let mut answers = witness.try_clone().expect("a second handle");
    let (pings, pinged) = channel();
    let heard = lines_of(witness.try_clone().expect("a third handle"), move |line| {
        if line == "PING" {
            let _ = (answers.write_all(b"PONG\n"), pings.send(()));
        }
    });
    wait_for(&heard, "WELCOME", |line| line.starts_with("WELCOME guest-1"));

    let mut client = connect_from(&link.client, server.outside);
    let read = lines_of(client.try_clone().expect("a second handle"), |_| ());
    wait_for(&read, "WELCOME", |line| line.starts_with("WELCOME guest-2"));
    wait_for(&heard, "JOIN", |line| line == "JOIN guest-2");
    match kind {
        Kind::Quick => (),
        Kind::Speaks => {
            client.write_all(b"PING\n").expect("sent");
            wait_for(&read, "PONG", |line| line == "PONG");
        }
        Kind::Silent | Kind::TalkedTo => {
            // It is probed in a way that it does not see: nothing comes, not even the end.
            let silent = read.recv_timeout(patience + Duration::from_secs(1));
            assert!(silent.is_err(), "a silent client read {silent:?}");
        }
    }

    client.write_all(b"last words\n").expect("sent");
    let last = wait_for(&heard, "the message", |line| line == "MESSAGE guest-2: last words");
    link.take_down();
    if kind == Kind::TalkedTo {
        // Until it goes, which the witness sees.
        let talker = thread::spawn(move || {
            while witness.write_all(b"anybody there?\n").is_ok() {
                thread::sleep(Duration::from_millis(100));
            }
        });
        drop(talker); // it ends with the server
    }
    let left = wait_for(&heard, "LEAVE", |line| line.starts_with("LEAVE guest-2: ")) - last;
    let closed = format!("closed, {word}: 10.77.0.2:");
    let logged = wait_for(&server.log, &closed, |line| line.contains(&closed)) - last;
    // Talked to, it has half a second less: what is not acknowledged is given up on just before the last probe would be due.
    let least = patience.mul_f64(0.9).saturating_sub(Duration::from_millis(500));
    let allowed = least..=patience.mul_f64(1.1) + Duration::from_secs(1);
    assert!(allowed.contains(&left), "LEAVE came after {left:?} instead of {patience:?}");
    assert!(allowed.contains(&logged), "it was closed after {logged:?} instead of {patience:?}");
    let pings = pinged.try_iter().count();
    assert_eq!(pings > 0, flags.contains("--heartbeat all"), "the witness, who says nothing, read {pings} PINGs");
    drop(server);
    assert!(read.try_recv().is_err(), "nothing comes through a link that is down");
}

/// Vanishes with small numbers and with larger ones, at the same time: (interval, timeout, retries), in seconds.
fn vanish_each(mode: &str, kind: Kind, word: &str, numbers: [(u32, u32, u32); 2]) {
    thread::scope(|scope| {
        for (interval, timeout, retries) in numbers {
            let flags = format!(
                "--heartbeat {mode} --heartbeat-interval {interval}s --heartbeat-timeout {timeout}s --heartbeat-retries {retries} --write-timeout 2s"
            );
            let patience = Duration::from_secs((interval + timeout * (retries + 1)).into());
            scope.spawn(move || vanish(&flags, kind, patience, word));
        }
    });
}

#[test]
fn a_vanished_client_is_found_by_heartbeat() {
    vanish_each("all", Kind::Quick, "heartbeat", [(1, 1, 1), (2, 1, 2)]);
}

#[test]
fn in_auto_one_that_spoke_heartbeat_is_found_by_that() {
    vanish_each("auto", Kind::Speaks, "heartbeat", [(1, 1, 1), (2, 1, 2)]);
}

#[test]
fn in_auto_a_silent_one_is_found_by_the_kernel_and_never_sees_a_ping() {
    vanish_each("auto", Kind::Silent, "error", [(1, 1, 1), (2, 1, 2)]);
}

#[test]
fn in_auto_a_silent_one_is_found_in_a_room_that_goes_on_talking() {
    // The kernel gives up on what is not acknowledged, too: in any case, only later than the write timeout and a second.
    vanish_each("auto", Kind::TalkedTo, "error", [(2, 1, 1), (2, 1, 2)]);
}
