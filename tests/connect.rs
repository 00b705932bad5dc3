//! `oneloop connect`, the real program: as a filter in pipes and from files, over every carrier, and on a pseudo-terminal.

#![cfg(feature = "client")]

mod common;

use common::{Client, Output, Process, Ran, Server, command, not_run, run, until, within_patience};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

/// Starts `connect`, with a pipe for its input.
fn connect(args: &[&str]) -> (Process, ChildStdin, Output, Output) {
    let (mut process, stdout, stderr) = Process::heard(command(&[&["connect"], args].concat()).stdin(Stdio::piped()));
    let stdin = process.take_stdin();
    (process, stdin, stdout, stderr)
}

/// Runs it to its end with this input.
fn filter(input: &[u8], args: &[&str]) -> Ran {
    let (mut process, mut stdin, stdout, stderr) = connect(args);
    stdin.write_all(input).expect("it is read");
    drop(stdin);
    let code = process.wait().code();
    Ran { code, stdout: stdout.all(), stderr: stderr.all() }
}

/// A file with this in it, open at its beginning.
fn file(text: &[u8]) -> File {
    use std::io::Seek;
    let path =
        std::env::temp_dir().join(format!("oneloop-connect-{}-{:?}", std::process::id(), thread::current().id()));
    let mut file = File::options().read(true).write(true).create(true).truncate(true).open(&path).expect("a file");
    std::fs::remove_file(&path).expect("it was there");
    file.write_all(text).expect("it takes it");
    file.rewind().expect("a file has a beginning");
    file
}

/// A server of the test's own: what it does with the one connection it gets, and where it is.
fn served<T: Send + 'static>(work: impl FnOnce(TcpStream) -> T + Send + 'static) -> (String, thread::JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    (address, thread::spawn(move || work(listener.accept().expect("a connection").0)))
}

fn line(reader: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).expect("a line");
    line
}

#[test]
fn a_pipe_and_a_file_are_answered_and_the_status_is_0() {
    let server = Server::echo(&[]);
    let address = server.address().to_string();
    for (input, answers) in [("a\nb\n", "echo: a\necho: b\n"), ("a\nb", "echo: a\necho: b\n"), ("", "")] {
        let ran = filter(input.as_bytes(), &[&address]);
        assert_eq!((ran.code, &*ran.stdout, &*ran.stderr), (Some(0), answers, ""));
        let ran = run(command(&["connect", &address]).stdin(file(input.as_bytes())));
        assert_eq!((ran.code, &*ran.stdout, &*ran.stderr), (Some(0), answers, ""));
    }
    let ran = run(command(&["connect", &address]).stdin(Stdio::null()));
    assert_eq!((ran.code, &*ran.stdout), (Some(0), ""));
}

#[test]
fn a_file_takes_what_is_written_and_a_socket_is_as_good_as_a_pipe() {
    let server = Server::echo(&[]);
    let address = server.address().to_string();
    let lines: String = (0..100_000).map(|number| format!("{number}\n")).collect();
    let answers: String = (0..100_000).map(|number| format!("echo: {number}\n")).collect();
    let mut output = file(b"");
    let mut process = Process::spawn(
        command(&["connect", &address]).stdin(file(lines.as_bytes())).stdout(output.try_clone().expect("a descriptor")),
    );
    assert_eq!(process.wait().code(), Some(0));
    use std::io::Seek;
    let mut text = String::new();
    output.rewind().expect("a file has a beginning");
    output.read_to_string(&mut text).expect("UTF-8");
    assert!(text == answers, "{} bytes instead of {}", text.len(), answers.len());
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let theirs: OwnedFd = theirs.into();
    let mut process =
        Process::spawn(command(&["connect", &address]).stdin(theirs.try_clone().expect("a descriptor")).stdout(theirs));
    let output = Output::collect(ours.try_clone().expect("a descriptor"));
    (&ours).write_all(lines.as_bytes()).expect("it is read");
    ours.shutdown(std::net::Shutdown::Write).expect("a socket that is open");
    assert_eq!(process.wait().code(), Some(0));
    assert!(output.all() == answers);
}

const TOTAL: usize = 64 << 20;
const PIECE: usize = 1 << 16;

fn piece(number: usize) -> Vec<u8> {
    vec![(number % 251) as u8; PIECE]
}

/// Writes 64 MiB, and tells of each piece that was taken.
fn write_all(mut to: impl Write, told: &Sender<()>) {
    for number in 0..TOTAL / PIECE {
        to.write_all(&piece(number)).expect("it is read");
        let _ = told.send(()); // nobody may count any more
    }
}

/// Reads 64 MiB, and then the end.
fn read_all(mut from: impl Read) {
    let mut bytes = vec![0; PIECE];
    for number in 0..TOTAL / PIECE {
        from.read_exact(&mut bytes).expect("all of it comes");
        assert!(bytes == piece(number), "piece {number}");
    }
    assert_eq!(from.read(&mut bytes).expect("the end"), 0);
}

/// Waits until nobody takes any more. Time is only how that is noticed: where it is too short, the test tests less, and passes.
fn expect_a_stall(process: &Process, told: &Receiver<()>) {
    let mut taken = 0;
    while told.recv_timeout(Duration::from_millis(300)).is_ok() {
        taken += PIECE;
    }
    assert!(taken < TOTAL, "everything was taken although nobody reads it");
    let resident = process.memory().0;
    assert!(resident < 24 << 20, "{resident} bytes are resident");
}

/// `connect` with pipes that the test uses itself.
fn piped(address: &str) -> (Process, ChildStdin, ChildStdout) {
    let mut process = Process::spawn(command(&["connect", address]).stdin(Stdio::piped()).stdout(Stdio::piped()));
    let (stdin, stdout) = (process.take_stdin(), process.take_stdout());
    (process, stdin, stdout)
}

/// The same, and its standard error is kept.
fn piped_with_stderr(address: &str) -> (Process, ChildStdin, ChildStdout) {
    let mut command = command(&["connect", address]);
    let mut process = Process::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()));
    let (stdin, stdout) = (process.take_stdin(), process.take_stdout());
    (process, stdin, stdout)
}

#[test]
fn a_reader_that_does_not_read_makes_the_writer_wait_and_nothing_is_lost() {
    let server = Server::raw(&[]);
    let (mut process, stdin, stdout) = piped(&server.address().to_string());
    let (sent, told) = channel();
    let writer = thread::spawn(move || write_all(stdin, &sent));
    expect_a_stall(&process, &told);
    within_patience(move || read_all(stdout));
    writer.join().expect("no panic");
    assert_eq!(process.wait().code(), Some(0));
}

#[test]
fn a_server_that_floods_is_read_as_fast_as_the_output_is() {
    let (sent, told) = channel();
    let (address, server) = served(move |stream| write_all(stream, &sent));
    let (mut process, stdin, stdout) = piped(&address);
    drop(stdin);
    expect_a_stall(&process, &told);
    within_patience(move || read_all(stdout));
    server.join().expect("no panic");
    assert_eq!(process.wait().code(), Some(0));
}

#[test]
fn a_server_that_does_not_read_makes_the_input_wait() {
    let (go, may_go) = channel::<()>();
    let (address, server) = served(move |stream| {
        may_go.recv().expect("the test goes on");
        read_all(stream);
    });
    let (mut process, stdin, stdout) = piped(&address);
    let (sent, told) = channel();
    let writer = thread::spawn(move || write_all(stdin, &sent));
    expect_a_stall(&process, &told);
    go.send(()).expect("the server waits");
    server.join().expect("no panic");
    writer.join().expect("no panic");
    assert_eq!(process.wait().code(), Some(0));
    drop(stdout);
}

#[test]
fn a_heartbeat_is_answered_and_not_shown() {
    let (address, server) = served(|stream| {
        let mut reader = BufReader::new(stream.try_clone().expect("a descriptor"));
        let send = |text: &str| (&stream).write_all(text.as_bytes()).expect("it is taken");
        send("PING\r\nhello\nPIN");
        let first = line(&mut reader);
        send("G\nPINGS\n PING\nPONG\nno end: PI");
        let second = line(&mut reader);
        let third = line(&mut reader);
        send("NG\n");
        assert_eq!(line(&mut reader), "", "the client's end");
        [first, second, third]
    });
    let (mut process, mut stdin, stdout, _) = connect(&[&address]);
    stdin.write_all(b"typed\n").expect("it is read");
    stdout.until("no end: PING");
    drop(stdin);
    let code = process.wait().code();
    let mut heard = server.join().expect("no panic");
    heard.sort();
    assert_eq!(heard, ["PONG\n", "PONG\n", "typed\n"]);
    // A PONG that was not asked for is the server's own.
    assert_eq!((code, &*stdout.all()), (Some(0), "hello\nPINGS\n PING\nPONG\nno end: PING\n"));
}

#[test]
fn a_server_can_be_asked_for_signs_of_life() {
    let numbers = ["--heartbeat-interval", "50ms", "--heartbeat-timeout", "50ms", "--heartbeat-retries", "1"];
    let (address, server) = served(|stream| {
        let mut reader = BufReader::new(stream.try_clone().expect("a descriptor"));
        assert_eq!(line(&mut reader), "PING\n");
        (&stream).write_all(b"PONG\n").expect("it is taken");
        let mut rest = String::new();
        reader.read_to_string(&mut rest).expect("UTF-8");
        rest
    });
    let (mut process, _stdin, stdout, stderr) = connect(&[&[&*address], &numbers[..]].concat());
    assert_eq!(process.wait().code(), Some(1));
    assert_eq!(server.join().expect("no panic"), "PING\nPING\n");
    assert_eq!(stdout.all(), "");
    assert_eq!(stderr.all(), format!("oneloop: the connection to {address} was lost: no sign of life after 2 PINGs\n"));
}

#[test]
fn a_silent_server_is_lost_after_the_read_timeout() {
    let (address, server) = served(|mut stream| {
        stream.write_all(b"hello\n").expect("it is taken");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let (mut process, _stdin, stdout, stderr) = connect(&["--read-timeout", "100ms", &address]);
    assert_eq!(process.wait().code(), Some(1));
    server.join().expect("no panic");
    assert_eq!(stdout.all(), "hello\n");
    assert!(stderr.all().ends_with("was lost: nothing received for 100ms\n"), "{}", stderr.all());
}

#[test]
fn a_connection_that_ends_before_the_input_is_lost() {
    let (address, server) = served(|stream| drop((&stream).write_all(b"bye\n")));
    let (mut process, _stdin, stdout, stderr) = connect(&[&address]);
    assert_eq!(process.wait().code(), Some(1));
    server.join().expect("no panic");
    assert_eq!(stdout.all(), "bye\n");
    assert_eq!(stderr.all(), format!("oneloop: the connection to {address} was lost: the server ended it\n"));
}

#[test]
fn an_input_that_ends_a_little_after_the_server_has_ended_too() {
    let chat = chat();
    let (mut process, mut stdin, stdout, stderr) = connect(&[&chat.address().to_string()]);
    let mut other = chat.client();
    other.line();
    stdin.write_all(b"hi\n/quit\n").expect("it is read");
    while !other.text().starts_with("LEAVE") {} // the server has ended it
    drop(stdin);
    assert_eq!((process.wait().code(), &*stderr.all()), (Some(0), ""));
    assert!(stdout.all().starts_with("WELCOME"));
}

#[test]
fn where_there_is_no_connection_one_line_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let gone = listener.local_addr().expect("an address").to_string();
    drop(listener);
    for target in [gone.clone(), format!("ws://{gone}/chat")] {
        let ran = filter(b"", &[&target]);
        assert_eq!((ran.code, &*ran.stdout, ran.stderr.lines().count()), (Some(1), "", 1));
        let start = format!("oneloop: cannot connect to {target}: Connection refused (is the server running");
        assert!(ran.stderr.starts_with(&start), "{}", ran.stderr);
    }
    let (mut process, mut stdin, _, stderr) = connect(&[&format!("udp:{gone}")]);
    stdin.write_all(b"anybody?\n").expect("it is read");
    assert_eq!(process.wait().code(), Some(1));
    assert_eq!(stderr.all(), format!("oneloop: the connection to udp:{gone} was lost: Connection refused\n"));
    let ran = filter(b"", &["no-such-host.invalid:1"]);
    assert!(ran.code == Some(1) && ran.stderr.contains("no address for no-such-host.invalid"), "{}", ran.stderr);
}

#[test]
fn a_connection_that_does_not_come_about_is_given_up() {
    // A backlog that is full: the kernel lets further clients wait.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
    socket.listen(0).expect("it listens");
    let address = socket.local_addr().expect("an address").as_socket().expect("an address");
    let patience = Duration::from_millis(100);
    let mut held = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, patience) {
        held.push(stream);
    }
    let ran = filter(b"", &["--connect-timeout", "200ms", &address.to_string()]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains(": no answer for 200ms ("), "{}", ran.stderr);
}

#[test]
fn datagrams_and_websockets_carry_lines_too() {
    let args = ["--echo", "off", "--udp", "127.0.0.1:0", "--udp-reply", "echo", "--web", "127.0.0.1:0"];
    let server = Server::start(2, &args);
    let place = |name: &str| server.places.iter().find(|(known, _)| known == name).expect("it is on").1;
    let long = "x".repeat(3000);
    let input = format!("a\n{long}\nb");
    for target in [format!("udp:{}", place("udp")), format!("ws://{}/echo", place("web"))] {
        let ran = filter(input.as_bytes(), &[&target]);
        assert_eq!((ran.code, &*ran.stdout, &*ran.stderr), (Some(0), &*format!("{input}\n"), ""), "{target}");
    }
    let too_long = "x".repeat(70_000);
    let ran = filter(too_long.as_bytes(), &[&format!("ws://{}/echo", place("web"))]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("a line of the input is longer than 65536 bytes"), "{}", ran.stderr);
    let ran = filter(b"/who\n", &["--nick", "ann", "--room", "den", &format!("ws://{}/chat", place("web"))]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stdout.ends_with("INFO you are ann\nINFO you are in den\nINFO den: ann\n"), "{}", ran.stdout);
    let ran = filter(b"", &[&format!("ws://{}/nowhere", place("web"))]);
    assert!(ran.code == Some(1) && ran.stderr.contains("404 Not Found"), "{}", ran.stderr);
}

#[test]
fn where_nobody_takes_datagrams_the_next_address_has_them() {
    let Ok(socket) = UdpSocket::bind("[::1]:0") else { return not_run("a name with two addresses", "no IPv6") };
    let port = socket.local_addr().expect("an address").port().to_string();
    let server = thread::spawn(move || {
        let mut bytes = [0; 100];
        let mut heard = Vec::new();
        for _ in 0..3 {
            let (count, from) = socket.recv_from(&mut bytes).expect("a datagram");
            heard.push(String::from_utf8_lossy(&bytes[..count]).into_owned());
            socket.send_to(b"heard", from).expect("it is sent");
        }
        heard
    });
    let ran = filter(b"a\nb\n", &["--nick", "ann", &format!("udp:{port}")]);
    assert_eq!((ran.code, &*ran.stdout, &*ran.stderr), (Some(0), "heard\nheard\nheard\n", ""));
    assert_eq!(server.join().expect("no panic"), ["/nick ann", "a", "b"], "each once");
}

#[test]
fn an_output_that_nobody_reads_ends_it_quietly_and_other_failures_are_named() {
    let server = Server::echo(&[]);
    let address = server.address().to_string();
    let (mut process, mut stdin, stdout) = piped_with_stderr(&address);
    drop(stdout);
    stdin.write_all(b"a\n").expect("it is read");
    assert_eq!((process.wait().code(), &*Output::collect(process.take_stderr()).all()), (Some(1), ""));
    let full = File::options().write(true).open("/dev/full").expect("a device");
    let mut process =
        Process::spawn(command(&["connect", &address]).stdin(file(b"a\n")).stdout(full).stderr(Stdio::piped()));
    let stderr = Output::collect(process.take_stderr());
    assert_eq!(process.wait().code(), Some(1));
    assert_eq!(stderr.all(), "oneloop: cannot write to standard output: No space left on device\n");
    let directory = File::open("/").expect("a directory");
    let ran = run(command(&["connect", &address]).stdin(directory));
    assert_eq!((ran.code, &*ran.stderr), (Some(1), "oneloop: cannot read standard input: Is a directory\n"));
}

#[test]
fn each_line_is_a_datagram_and_each_datagram_a_line() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let target = format!("udp:{}", socket.local_addr().expect("an address"));
    let server = thread::spawn(move || {
        let mut bytes = [0; 100];
        let mut heard = Vec::new();
        for answer in ["", "two\nlines", "ended\n"] {
            let (count, from) = socket.recv_from(&mut bytes).expect("a datagram");
            heard.push(String::from_utf8_lossy(&bytes[..count]).into_owned());
            socket.send_to(answer.as_bytes(), from).expect("it is sent");
        }
        heard
    });
    let ran = filter(b"a\n\nb c", &[&target]);
    assert_eq!(server.join().expect("no panic"), ["a", "", "b c"]);
    assert_eq!((ran.code, &*ran.stdout), (Some(0), "\ntwo\nlines\nended\n"));
}

/// `connect` on a pseudo-terminal.
struct Terminal {
    process: Process,
    keyboard: File,
    screen: Output,
    stderr: Output,
}

impl Terminal {
    fn connect(args: &[&str]) -> Terminal {
        Terminal::with(&mut command(&[&["connect"], args].concat()))
    }

    fn with(command: &mut std::process::Command) -> Terminal {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
        grantpt(&keyboard).expect("granted");
        unlockpt(&keyboard).expect("unlocked");
        let size = Winsize { ws_row: 24, ws_col: 60, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&keyboard, size).expect("a size");
        let path = ptsname(&keyboard, Vec::new()).expect("a name");
        let path = path.to_str().expect("ASCII").to_string();
        let terminal = File::options().read(true).write(true).open(path).expect("the other end");
        let output = terminal.try_clone().expect("a descriptor");
        let mut process =
            Process::spawn(command.stdin(terminal).stdout(output).stderr(Stdio::piped()).env("TERM", "xterm"));
        command.stdin(Stdio::null()).stdout(Stdio::null()); // it keeps what it was given
        let stderr = Output::collect(process.take_stderr());
        let keyboard: File = keyboard.into();
        let screen = Output::collect(keyboard.try_clone().expect("a descriptor"));
        Terminal { process, keyboard, screen, stderr }
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("it is taken");
    }

    /// Whether the terminal edits lines itself, as a shell expects it.
    fn is_cooked(&self) -> bool {
        let modes = tcgetattr(&self.keyboard).expect("modes").local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO)
    }
}

fn chat() -> Server {
    Server::start(1, &["--echo", "off", "--udp", "off", "--chat", "127.0.0.1:0"])
}

#[test]
fn half_a_line_survives_what_is_said_meanwhile() {
    let server = chat();
    let mut terminal = Terminal::connect(&["--nick", "ann", &server.address().to_string()]);
    terminal.screen.until("INFO you are ann");
    let mut bob = server.client();
    bob.line();
    assert_eq!(bob.ask("/nick bob"), "INFO you are bob");
    terminal.screen.until(": bob");
    terminal.press("half a li");
    terminal.screen.until("> half a li");
    bob.send("hello\n");
    let shown = terminal.screen.until("\x1b[36mMESSAGE bob: hello\x1b[0m\r\n> half a li");
    assert!(shown.contains("\x1b[2mINFO you are ann\x1b[0m\r\n> "), "{shown:?}");
    // The row is erased before anything is written over it.
    assert!(shown.contains("\r\x1b[K\x1b[36mMESSAGE bob"), "{shown:?}");
    terminal.press("nx\x7fe\r");
    assert_eq!(bob.text(), "MESSAGE ann: half a line");
    terminal.screen.until("\r\x1b[K> half a line\r\n> ");
    assert!(!terminal.is_cooked());
    terminal.press("\x04");
    assert_eq!(terminal.process.wait().code(), Some(0));
    assert_eq!(bob.text(), "LEAVE ann: bye");
    assert!(terminal.is_cooked(), "the terminal is as it was");
}

#[test]
fn quit_ends_it_and_so_does_ctrl_c() {
    let server = chat();
    let mut terminal = Terminal::connect(&[&server.address().to_string()]);
    terminal.screen.until("WELCOME");
    terminal.press("/quit\r");
    assert_eq!(terminal.process.wait().code(), Some(0));
    let terminal = &mut Terminal::connect(&[&server.address().to_string()]);
    terminal.screen.until("WELCOME");
    assert!(!terminal.is_cooked());
    terminal.process.signal(Signal::INT);
    assert_eq!(terminal.process.wait().code(), Some(0));
    assert!(terminal.is_cooked(), "the terminal is as it was");
}

#[test]
fn a_lost_connection_comes_back_with_its_name_and_room() {
    let mut server = chat();
    let address = server.address().to_string();
    let mut terminal = Terminal::connect(&["--nick", "ann", &address]);
    terminal.screen.until("INFO you are ann");
    terminal.press("/join den\r");
    terminal.screen.until("INFO you are in den");
    terminal.press("unsent");
    terminal.screen.until("> unsent");
    server.stop();
    terminal.screen.until("-- no connection to ");
    terminal.screen.until("; trying again in ");
    let server = Server::start(1, &["--echo", "off", "--udp", "off", "--chat", &address]);
    let mut bob = server.client();
    bob.line();
    assert_eq!(bob.ask("/join den"), "INFO you are in den");
    let shown = terminal.screen.until("INFO you are in den\x1b[0m\r\n> unsent");
    assert!(shown.matches("INFO you are ann").count() >= 1, "{shown:?}");
    terminal.press(" but now\r");
    loop {
        let line = bob.text();
        if line.starts_with("MESSAGE") {
            assert_eq!(line, "MESSAGE ann: unsent but now");
            break;
        }
    }
}

/// On a terminal, with a connection that was lost and nobody to connect to again.
fn disconnected() -> Terminal {
    let (address, server) = served(|stream| drop((&stream).write_all(b"bye\n")));
    let terminal = Terminal::connect(&[&address]);
    server.join().expect("no panic");
    terminal.screen.until("; trying again in ");
    terminal
}

#[test]
fn without_a_connection_ctrl_d_ends_it_at_once_and_so_does_a_signal() {
    let mut terminal = disconnected();
    terminal.press("\x04");
    assert_eq!((terminal.process.wait().code(), &*terminal.stderr.all()), (Some(0), ""));
    assert!(terminal.is_cooked(), "the terminal is as it was");
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let mut terminal = disconnected();
        terminal.process.signal(signal);
        assert_eq!((terminal.process.wait().code(), &*terminal.stderr.all()), (Some(0), ""), "{signal:?}");
        assert!(terminal.is_cooked(), "the terminal is as it was");
    }
}

#[test]
fn without_reconnection_a_terminal_ends_as_well() {
    let mut server = chat();
    let mut terminal = Terminal::connect(&["--no-reconnect", &server.address().to_string()]);
    terminal.screen.until("WELCOME");
    server.stop();
    assert_eq!(terminal.process.wait().code(), Some(1));
    assert!(terminal.is_cooked());
    drop(server);
    // Nor is there anything to come back to where there never was a connection.
    let mut terminal = Terminal::connect(&["127.0.0.1:1"]);
    assert_eq!(terminal.process.wait().code(), Some(1));
}

#[test]
fn a_server_cannot_command_the_terminal_and_colours_can_be_declined() {
    let (address, server) = served(|mut stream| {
        stream.write_all(b"MESSAGE eve: \x1b[2J\x1b]0;owned\x07\x9b\r\n").expect("it is taken");
        stream.read_to_end(&mut Vec::new()).expect("the end");
    });
    let mut terminal = Terminal::with(command(&["connect", &address]).env("NO_COLOR", "1"));
    let shown = terminal.screen.until("MESSAGE eve: ");
    terminal.press("\x04");
    server.join().expect("no panic");
    assert_eq!(terminal.process.wait().code(), Some(0));
    let all = terminal.screen.all();
    assert!(all.matches('\x1b').count() == all.matches("\x1b[K").count(), "{all:?}, at first {shown:?}");
    // In a pipe nothing is changed: who reads there knows what it wants.
    let (address, server) = served(|mut stream| {
        stream.write_all(b"\x1b[2J\xff\n").expect("it is taken");
        stream.read_to_end(&mut Vec::new()).expect("the end");
    });
    let (mut process, stdin, stdout, _) = connect(&[&address]);
    drop(stdin);
    process.wait();
    server.join().expect("no panic");
    assert_eq!(stdout.all_bytes(), b"\x1b[2J\xff\n");
}

#[test]
fn who_has_nothing_to_do_sleeps() {
    let server = Server::echo(&[]);
    let (process, mut stdin, stdout, _) = connect(&[&server.address().to_string()]);
    stdin.write_all(b"a\n").expect("it is read");
    stdout.line("echo: a");
    let waiting = connect(&[&server.address().to_string()]); // never says a word
    let terminal = Terminal::connect(&[&server.address().to_string()]);
    terminal.screen.until("-- connected to");
    for process in [&process, &waiting.0, &terminal.process] {
        until("it to sleep", || process.state() == "S");
        let before = process.cpu();
        thread::sleep(Duration::from_millis(300)); // what is measured is that nothing happens
        assert_eq!(process.cpu(), before);
    }
}

#[test]
fn an_interrupted_filter_has_not_come_to_its_end() {
    let server = Server::echo(&[]);
    let (mut process, mut stdin, stdout, _) = connect(&[&server.address().to_string()]);
    stdin.write_all(b"a\n").expect("it is read");
    stdout.line("echo: a");
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(1));
    let mut client: Client = server.client();
    assert_eq!(client.ask("and the server goes on"), "echo: and the server goes on");
    // Nor has one that waits for its server, and there is no more to be said of it.
    let (go, may_go) = channel::<()>();
    let (address, server) = served(move |stream| may_go.recv().map(|()| drop(stream)));
    let (mut process, mut stdin, _, stderr) = connect(&[&address]);
    let (sent, told) = channel();
    let writer = thread::spawn(move || while stdin.write_all(&piece(0)).is_ok() && sent.send(()).is_ok() {});
    while told.recv_timeout(Duration::from_millis(300)).is_ok() {} // where it is too short, the test tests less, and passes
    process.signal(Signal::TERM);
    assert_eq!((process.wait().code(), &*stderr.all()), (Some(1), ""));
    go.send(()).expect("the server waits");
    server.join().expect("no panic").expect("it was told");
    writer.join().expect("no panic");
}

#[test]
fn help_teaches_and_wrong_usage_is_2() {
    for args in [&["connect", "--help"][..], &["help", "connect"]] {
        let ran = run(&mut command(args));
        assert_eq!((ran.code, &*ran.stderr), (Some(0), ""));
        assert!(ran.stdout.contains("printf 'a\\nb\\n' | oneloop connect 127.0.0.1:9000"), "{}", ran.stdout);
        assert!(ran.stdout.contains("In a pipe it is not"), "{}", ran.stdout);
    }
    for (args, part) in [
        (&["connect", "localhost"][..], "must be HOST:PORT"),
        (&["connect", "--nick", "a b"], "1 to 20 letters"),
        (&["connect", "--connect-timeout", "5"], "such as 500ms"),
        (&["connect", "--heartbeat-retries", "101"], "from 0 to 100"),
        (&["--echo", "1", "connect"], "connect"),
    ] {
        let ran = run(&mut command(args));
        assert_eq!((ran.code, &*ran.stdout, ran.stderr.lines().count()), (Some(2), "", 1), "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(part), "{args:?}: {}", ran.stderr);
    }
}
