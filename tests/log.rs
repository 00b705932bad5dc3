//! The log: what it says, what it never says, and that whoever reads it, or does not, cannot stop the server.

mod common;

use common::{Client, Output, Process, Server, oneloop, oneloop_with_ulimit, place, receive, run, udp_client, until};
use rustix::fs::{Mode, OFlags};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Stdio;

const ECHO: [&str; 4] = ["--echo", "127.0.0.1:0", "--udp", "off"];

fn echo_with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&ECHO[..], more].concat()
}

/// Far more log than any pipe, socket or terminal holds, at one line and a half a line that comes in.
fn ask_much(client: &mut Client) {
    for batch in 0..100 {
        let lines: Vec<String> = (0..200).map(|number| format!("line {batch} {number}\n")).collect();
        client.send(lines.concat());
        for line in &lines {
            assert_eq!(client.line(), format!("echo: {}", line.trim_end()).as_bytes());
        }
    }
}

/// The server with a log that nobody reads for a while; then `reader` does, and is told what was lost.
fn a_log_that_is_not_read_stops_nobody(mut server: Server, reader: impl Read + Send + 'static) {
    let mut client = server.client();
    ask_much(&mut client);
    assert_eq!(server.client().ask("others"), "echo: others");
    let log = Output::collect(reader);
    until("the log to go on", || {
        assert_eq!(client.ask("now there is room"), "echo: now there is room");
        log.so_far().contains("now there is room")
    });
    // Whatever was lost before a line is said before that line.
    let text = log.so_far();
    let said = text.lines().filter_map(|line| line.split_once(" log lines were dropped"));
    let dropped: u64 = said.map(|(count, _)| count.parse::<u64>().expect("a number at the start of a line")).sum();
    assert!(dropped > 10_000, "{dropped} of 20,000");
    server.process.signal(Signal::TERM);
    assert_eq!(server.process.wait().code(), Some(0));
    log.line("stopped");
}

#[test]
fn start_and_stop_are_at_info_and_connections_at_debug() {
    let mut server = Server::launch(1, &mut oneloop(&echo_with(&["--log-level", "debug"])));
    let start = server.log.line(&server.address().to_string());
    assert!(start.contains(" INFO ") && start.contains("echo"), "{start}");
    let mut client = server.client();
    let peer = client.stream().local_addr().expect("an address").to_string();
    assert_eq!(client.ask("hello"), "echo: hello");
    client.end();
    assert_eq!(client.rest_text(), "");
    let opened = server.log.line("opened");
    assert!(opened.contains(" DEBUG ") && opened.contains("echo #") && opened.contains(&peer), "{opened}");
    let closed = server.log.line("closed, bye");
    for part in [" DEBUG ", "echo #", &peer, "6 bytes in", "12 out", "s"] {
        assert!(closed.contains(part), "{closed} does not say {part:?}");
    }
    let duration = closed.rsplit(", ").next().expect("a last part");
    assert!(duration.ends_with('s') && duration.starts_with(|first: char| first.is_ascii_digit()), "{duration:?}");
    server.stop();
    for part in ["stopping", "stopped"] {
        assert!(server.log.line(part).contains(" INFO "));
    }
}

#[test]
fn connections_are_not_spoken_of_at_info() {
    let mut server = Server::echo(&[]);
    let mut client = server.client();
    assert_eq!(client.ask("hello"), "echo: hello");
    server.stop();
    let log = server.log.all();
    assert!(log.contains("stopped") && !log.contains("opened") && !log.contains("hello"), "{log}");
}

#[test]
fn each_close_has_its_word() {
    let args = ["--log-level", "debug", "--idle-timeout", "300ms", "--max-connections", "1", "--max-line", "10B"];
    let server = Server::launch(1, &mut oneloop(&echo_with(&args)));
    let mut client = server.client();
    assert_eq!(client.ask("hello"), "echo: hello");
    assert_eq!(server.client().rest_text(), "ERROR full: 1 connections\n");
    client.send("more than ten bytes\n");
    client.rest();
    drop(client);
    for word in ["full", "too_long"] {
        server.log.lines(1, &format!("closed, {word}: 127.0.0.1:"));
    }
    let silent = server.client();
    server.log.line("closed, idle: 127.0.0.1:");
    drop(silent);
}

#[test]
fn what_a_peer_sent_is_escaped() {
    let args = ["--echo", "127.0.0.1:0", "--udp", "127.0.0.1:0", "--log-level", "trace"];
    let mut server = Server::start(2, &args);
    let bytes = b"\x1b]0;owned\x07 \x9b31m \r \"quoted\" \\ \xff \xc2\x9b \0";
    let mut client = server.client();
    client.send([&bytes[..], b"\n"].concat());
    assert_eq!(client.line(), [b"echo: ", &bytes[..]].concat());
    let client = udp_client(server.places[1].1);
    client.send(bytes).expect("sent");
    assert_eq!(receive(&client), b"OK");
    server.stop();
    let log = server.log.all_bytes();
    assert!(log.iter().all(|byte| *byte == b'\n' || (b' '..=b'~').contains(byte)), "{}", log.escape_ascii());
    let escaped = format!("\"{}", bytes.escape_ascii());
    let lines = server.log.lines(2, &escaped);
    assert_eq!(lines.len(), 2);
    assert!(lines.iter().all(|line| line.contains(" TRACE ")), "{lines:?}");
    assert!(lines[0].contains("echo #") && lines[1].contains("udp #"), "{lines:?}");
}

#[test]
fn rust_log_is_understood_and_the_flag_wins() {
    let talk = |command: &mut std::process::Command| {
        let mut server = Server::launch(1, command);
        assert_eq!(server.client().ask("hello"), "echo: hello");
        server.stop();
        server.log.all()
    };
    let log = talk(oneloop(&ECHO).env("RUST_LOG", "debug"));
    assert!(log.contains("opened") && !log.contains("received"), "{log}");
    let log = talk(oneloop(&ECHO).env("RUST_LOG", "trace"));
    assert!(log.contains("received \"hello"), "{log}");
    assert_eq!(talk(oneloop(&ECHO).env("RUST_LOG", "error")), "");
    assert_eq!(
        talk(oneloop(&echo_with(&["--log-level", "warn", "--max-connections", "9"])).env("RUST_LOG", "trace")),
        ""
    );
    let log = talk(oneloop(&echo_with(&["--log-level", "trace"])).env("RUST_LOG", "off"));
    assert!(log.contains("received \"hello"), "{log}");
}

#[test]
fn a_line_of_one_kind_is_not_repeated_at_once_and_those_left_out_are_counted() {
    let start = std::time::Instant::now();
    let mut server = Server::echo(&["--max-connections", "1", "--max-line", "10B"]);
    let mut served = server.client();
    assert_eq!(served.ask("hello"), "echo: hello");
    for _ in 0..20 {
        assert_eq!(server.client().rest_text(), "ERROR full: 1 connections\n");
    }
    // Another kind is not held back by the first.
    served.send("more than ten bytes\n");
    assert_eq!(served.rest_text(), "ERROR too_long: line longer than 10 bytes\n");
    server.log.line("too_long");
    drop(served);
    server.stop();
    let log = server.log.all();
    let said = log.matches("full: 1 connections").count() as u64;
    assert!(1 <= said && said <= 1 + start.elapsed().as_secs() / 5, "said {said} times:\n{log}");
    // Whether with a later line or at the end: none of the twenty goes unmentioned.
    let number =
        |text: &str| text.rsplit(|c: char| !c.is_ascii_digit()).find(|word| !word.is_empty()).map(str::to_string);
    let left_out: u64 = log
        .lines()
        .filter_map(|line| line.split_once(" more like this").or_else(|| line.split_once(" repeated log lines")))
        .filter_map(|(before, _)| number(before)?.parse::<u64>().ok())
        .sum();
    assert_eq!(said + left_out, 20, "{log}");
}

#[test]
fn a_pipe_that_is_not_read_stops_nobody() {
    let mut command = oneloop(&echo_with(&["--log-level", "trace"]));
    let mut server = Server::launch_unheard(1, &mut command, Stdio::piped());
    let pipe = server.process.take_stderr();
    a_log_that_is_not_read_stops_nobody(server, pipe);
}

#[test]
fn a_socket_that_is_not_read_stops_nobody() {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let mut command = oneloop(&echo_with(&["--log-level", "trace"]));
    let server = Server::launch_unheard(1, &mut command, OwnedFd::from(theirs));
    a_log_that_is_not_read_stops_nobody(server, ours);
}

#[test]
fn a_terminal_that_is_not_read_stops_nobody() {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
    grantpt(&master).expect("ours");
    unlockpt(&master).expect("ours");
    let name = ptsname(&master, Vec::new()).expect("a name");
    let terminal = rustix::fs::open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("a terminal");
    let mut command = oneloop(&echo_with(&["--log-level", "trace"]));
    let server = Server::launch_unheard(1, &mut command, terminal);
    a_log_that_is_not_read_stops_nobody(server, File::from(master));
}

#[test]
fn a_log_that_fails_stops_nobody() {
    // A full disk.
    let full = File::options().write(true).open("/dev/full").expect("a device");
    let mut command = oneloop(&echo_with(&["--log-level", "trace"]));
    let mut server = Server::launch_unheard(1, &mut command, full);
    ask_much(&mut server.client());
    server.stop();
    // A reader that has gone.
    let mut server = Server::launch_unheard(1, &mut oneloop(&echo_with(&["--log-level", "trace"])), Stdio::piped());
    drop(server.process.take_stderr());
    ask_much(&mut server.client());
    server.stop();
    // No standard error at all: the shell closes it.
    let args = echo_with(&["--log-level", "trace"]);
    let mut server = Server::launch_unheard(1, &mut oneloop_with_ulimit("-n 100 && exec 2>&-", &args), Stdio::null());
    ask_much(&mut server.client());
    server.stop();
    // Nor is it needed to say what is wrong.
    let ran = run(&mut oneloop_with_ulimit("-n 100 && exec 2>&-", &["--no-such-flag"]));
    assert_eq!(ran.code, Some(2));
}

#[test]
fn a_line_of_the_log_is_cut_at_4096_bytes() {
    let mut server = Server::launch(1, &mut oneloop(&echo_with(&["--log-level", "trace"])));
    let mut client = server.client();
    let long = "x".repeat(10_000);
    assert_eq!(client.ask(&long), format!("echo: {long}"));
    assert_eq!(client.ask("short"), "echo: short");
    drop(client);
    server.stop();
    let log = server.log.all();
    let longest = log.split_inclusive('\n').map(str::len).max();
    assert_eq!(longest, Some(4096));
    assert!(log.lines().any(|line| line.contains("received \"short")), "it goes on on a line of its own");
}

#[test]
fn one_file_for_the_log_and_standard_output_loses_nothing() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("one-file-{}.log", std::process::id()));
    let file = File::create(&path).expect("a file");
    // As `> FILE 2>&1` has it: one file and one offset.
    let mut command = oneloop(&echo_with(&["--log-level", "trace"]));
    let second = file.try_clone().expect("a second handle");
    let mut process = Process::spawn(command.stdout(file).stderr(second));
    let text = || std::fs::read_to_string(&path).expect("the file");
    let mut found: Option<SocketAddr> = None;
    until("the address", || {
        let text = text();
        let line = text.split_inclusive('\n').find(|line| line.starts_with("listening ") && line.ends_with('\n'));
        found = line.map(|line| place(line.trim_end()).1);
        found.is_some()
    });
    let mut client = Client::connect(found.expect("found"));
    for number in 0..1000 {
        assert_eq!(client.ask(&format!("line {number}.")), format!("echo: line {number}."));
    }
    drop(client);
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0));
    let text = text();
    std::fs::remove_file(&path).expect("it was there");
    for number in 0..1000 {
        assert!(text.contains(&format!("received \"line {number}.\\n\"\n")), "line {number} is missing");
    }
    let torn: Vec<&str> =
        text.lines().filter(|line| !line.starts_with("20") && !line.starts_with("listening ")).collect();
    assert_eq!(torn, Vec::<&str>::new());
}
