//! WebSockets as browsers and hostile clients meet them, with the real program on real sockets. `tungstenite` judges what the
//! server sends; a small client of our own sends what no library would.

#![cfg(feature = "web")]

mod common;

use common::{Answer, Client, PATIENCE, Server, until};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread;
use tungstenite::protocol::CloseFrame;
use tungstenite::{Error, Message, WebSocket};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// The first bytes of whole frames, and of parts.
const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
const CLOSE: u8 = 0x88;
const TEXT_BEGINS: u8 = 0x01;
const GOES_ON: u8 = 0x00;
const ENDS: u8 = 0x80;

/// Chat for `nc` and for browsers, each on a free port.
fn mixed(more: &[&str]) -> Server {
    let services = ["--echo", "off", "--udp", "off", "--chat", "127.0.0.1:0", "--web", "127.0.0.1:0"];
    Server::start(2, &[&services, more].concat())
}

/// A WebSocket at `path`, over a stream that was connected to `address`.
fn socket_over<S: Read + Write>(stream: S, address: SocketAddr, path: &str) -> WebSocket<S> {
    let url = format!("ws://{address}{path}");
    let Ok((socket, answer)) = tungstenite::client(url, stream) else { panic!("no handshake") };
    assert_eq!(answer.status(), 101);
    socket
}

fn connect(address: SocketAddr) -> TcpStream {
    patient(TcpStream::connect_timeout(&address, PATIENCE).expect("a connection"))
}

fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_nodelay(true).expect("no delay");
    stream
}

/// A connection with little room in its receive buffer, so that it is soon behind.
fn narrow(address: SocketAddr) -> TcpStream {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a size"); // before the connection, or the window is offered already
    socket.connect(&address.into()).expect("a connection");
    patient(socket.into())
}

type Socket = WebSocket<TcpStream>;

fn socket(server: &Server, path: &str) -> Socket {
    let address = server.at("web");
    socket_over(connect(address), address, path)
}

/// The next message that is no ping. There are pings while nothing is said, so they must not keep a test waiting for ever.
fn said<S: Read + Write>(socket: &mut WebSocket<S>) -> Message {
    let messages = std::iter::repeat_with(|| socket.read().expect("a frame"));
    let message = messages.take(3).find(|message| !message.is_ping());
    message.expect("something is said while the server asks for a sign of life three times")
}

/// What ends it: the number and the words of the close frame. Behind that comes the end of the connection and nothing else.
fn closed<S: Read + Write>(socket: &mut WebSocket<S>) -> (u16, String) {
    let close = match said(socket) {
        Message::Close(close) => close,
        other => panic!("not a close frame: {other:?}"),
    };
    let end = socket.read();
    assert!(matches!(end, Err(Error::ConnectionClosed)), "{end:?}");
    let CloseFrame { code, reason } = close.expect("a number");
    (code.into(), reason.to_string())
}

/// A frame as a client sends it, masked.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const KEY: [u8; 4] = *b"\x5a\x00\xff\x13";
    let mut bytes = header(first, payload.len() as u64, KEY);
    bytes.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

/// What stands before a payload of `length` bytes.
fn header(first: u8, length: u64, key: [u8; 4]) -> Vec<u8> {
    let mut bytes = vec![first];
    match length {
        0..=125 => bytes.push(0x80 | length as u8),
        126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes.extend(key);
    bytes
}

fn handshake(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// A client that sends any bytes, and reads frames by the letter of RFC 6455.
struct Raw {
    client: Client,
}

impl Raw {
    fn open(server: &Server, path: &str) -> Raw {
        Raw::over(connect(server.at("web")), path)
    }

    fn over(stream: TcpStream, path: &str) -> Raw {
        let mut raw = Raw { client: Client::over(stream) };
        raw.client.send(handshake(path));
        raw.switched();
        raw
    }

    fn switched(&mut self) {
        let answer = self.client.answer_head();
        assert_eq!(answer.status, 101, "{answer:?}");
        assert_eq!(answer.header("Sec-WebSocket-Accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert_eq!(answer.header("Upgrade"), Some("websocket"));
        assert_eq!(answer.header("Connection"), Some("Upgrade"));
        assert_eq!(answer.header("Sec-WebSocket-Extensions"), None);
    }

    fn send(&mut self, first: u8, payload: &[u8]) {
        self.client.send(frame(first, payload));
    }

    /// The first byte of the next frame, and its payload.
    fn next(&mut self) -> (u8, Vec<u8>) {
        let [first, short] = self.client.take(2)[..] else { unreachable!("two bytes") };
        assert!([TEXT, BINARY, PING, PONG, CLOSE].contains(&first), "no frame of ours begins with {first:#x}");
        assert_eq!(short & 0x80, 0, "a server does not mask");
        let length = match short {
            126 => {
                let length = u64::from(u16::from_be_bytes(self.client.take(2).try_into().expect("two bytes")));
                assert!(length > 125, "{length} in two bytes");
                length
            }
            127 => {
                let length = u64::from_be_bytes(self.client.take(8).try_into().expect("eight bytes"));
                assert!(length > 0xffff, "{length} in eight bytes");
                length
            }
            short => short.into(),
        };
        assert!(first < CLOSE || length <= 125, "a control frame of {length} bytes");
        (first, self.client.take(length as usize))
    }

    fn expect(&mut self, first: u8, payload: &[u8]) {
        let (found, bytes) = self.next();
        assert_eq!((found, bytes.escape_ascii().to_string()), (first, payload.escape_ascii().to_string()));
    }

    fn text(&mut self) -> String {
        let (first, text) = self.next();
        let text = String::from_utf8(text).expect("UTF-8");
        assert_eq!(first, TEXT, "{text}");
        text
    }

    /// What ends it, as `closed` has it.
    fn closed(&mut self) -> (u16, String) {
        let (first, payload) = self.next();
        assert_eq!(first, CLOSE, "{}", payload.escape_ascii());
        assert_eq!(self.client.rest(), b"", "nothing follows a close frame");
        let (code, reason) = payload.split_first_chunk().expect("a number");
        (u16::from_be_bytes(*code), String::from_utf8(reason.to_vec()).expect("UTF-8"))
    }
}

/// Somebody in a room, at `nc` or in a browser: they say and read the same.
#[allow(clippy::large_enum_variant)] // a few of them, in a test
enum Member {
    Line(Client),
    Frame(Socket),
}

impl Member {
    fn line(server: &Server) -> Member {
        Member::Line(Client::connect(server.at("chat")))
    }

    fn frame(server: &Server) -> Member {
        Member::Frame(socket(server, "/chat"))
    }

    /// One who is soon behind.
    fn slow(server: &Server, service: &str) -> Member {
        let address = server.at(service);
        match service {
            "chat" => Member::Line(Client::over(narrow(address))),
            _ => Member::Frame(socket_over(narrow(address), address, "/chat")),
        }
    }

    /// The next line that is shown.
    fn text(&mut self) -> String {
        match self {
            Member::Line(client) => client.text(),
            Member::Frame(socket) => match said(socket) {
                Message::Text(text) => {
                    assert!(!text.contains('\n'), "a message is one line: {text:?}");
                    text.to_string()
                }
                other => panic!("no text: {other:?}"),
            },
        }
    }

    /// Says lines, each of which has its end.
    fn say(&mut self, lines: &str) {
        match self {
            Member::Line(client) => client.send(lines),
            Member::Frame(socket) => {
                lines.lines().for_each(|line| socket.write(Message::text(line)).expect("the server takes it"));
                socket.flush().expect("the server takes it");
            }
        }
    }

    fn ask(&mut self, line: &str) -> String {
        self.say(&format!("{line}\n"));
        self.text()
    }

    fn welcomed(mut self) -> (Member, String) {
        let line = self.text();
        let name = line.strip_prefix("WELCOME ").and_then(|rest| rest.split_once(", you are in lobby; /help"));
        let name = name.unwrap_or_else(|| panic!("no welcome: {line}")).0.to_string();
        (self, name)
    }
}

/// In the lobby, `guest-1` and so on, in this order; all have seen each other come.
fn people<const COUNT: usize>(new: [Member; COUNT]) -> [Member; COUNT] {
    let mut all: Vec<Member> = Vec::new();
    for (index, member) in new.into_iter().enumerate() {
        let (member, name) = member.welcomed();
        assert_eq!(name, format!("guest-{}", index + 1));
        all.push(member);
    }
    for (index, member) in all.iter_mut().enumerate() {
        for later in index + 2..=COUNT {
            assert_eq!(member.text(), format!("JOIN guest-{later}"));
        }
    }
    all.try_into().unwrap_or_else(|_| unreachable!("as many as were made"))
}

/// The line of this number, `length` bytes with its end: nobody can tear it unseen.
fn numbered(number: usize, length: usize) -> String {
    let mut line = format!("{number} ");
    while line.len() < length - 1 {
        line.push(char::from(b'a' + ((number + line.len()) % 26) as u8));
    }
    line + "\n"
}

/// The number of a message that `guest-1` said, if it is whole.
fn number_of(line: &str) -> usize {
    let text = line.strip_prefix("MESSAGE guest-1: ");
    let text = text.unwrap_or_else(|| panic!("no message: {:?}", &line[..line.len().min(80)]));
    let number = text.split(' ').next().and_then(|number| number.parse().ok());
    let number = number.unwrap_or_else(|| panic!("no number: {:?}", &text[..text.len().min(80)]));
    assert_eq!(format!("{text}\n"), numbered(number, text.len() + 1), "torn or changed");
    number
}

/// `guest-1` says numbered lines and sees to it that all readers have each piece before the next is said: whoever reads is
/// never behind. Returns what else came to the first of them.
fn talk(
    sender: &mut Member,
    readers: &mut [&mut Member],
    numbers: std::ops::Range<usize>,
    length: usize,
) -> Vec<String> {
    let step = (128 * KIB / length).max(1);
    let mut other = Vec::new();
    for first in numbers.clone().step_by(step) {
        let piece = first..(first + step).min(numbers.end);
        sender.say(&piece.clone().map(|number| numbered(number, length)).collect::<String>());
        for (index, reader) in readers.iter_mut().enumerate() {
            for number in piece.clone() {
                let mut line = reader.text();
                while line.starts_with("LEAVE") {
                    if index == 0 {
                        other.push(line);
                    }
                    line = reader.text();
                }
                assert_eq!(number_of(&line), number);
            }
        }
    }
    other
}

/// A generator of numbers that nobody needs to predict.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

// Messages come back.

#[test]
fn messages_of_every_length_come_back_as_they_were() {
    let server = Server::web(&[]);
    let mut socket = socket(&server, "/echo");
    for length in [0, 1, 125, 126, 127, 65_535, 65_536] {
        for message in [Message::text(numbered(7, 70_000)[..length].to_string()), Message::binary(vec![0xff; length])] {
            socket.send(message.clone()).expect("the server takes it");
            assert!(socket.read().expect("a frame") == message, "{length} bytes");
        }
    }
    socket.send(Message::text("gr\u{fc}\u{df}e \u{1f642}\0\u{7f}")).expect("the server takes it");
    assert_eq!(socket.read().expect("a frame"), Message::text("gr\u{fc}\u{df}e \u{1f642}\0\u{7f}"));
    // By the letter, too.
    let mut raw = Raw::open(&server, "/echo");
    for length in [0, 125, 126, 65_535, 65_536] {
        raw.send(BINARY, &vec![b'x'; length]);
        assert!(raw.next() == (BINARY, vec![b'x'; length]), "{length} bytes");
    }
}

#[test]
fn one_byte_too_many_ends_it_however_it_comes() {
    let server = Server::web(&[]);
    let told = (1009, "too_long: message longer than 65536 bytes or in more than 128 frames".to_string());
    for (first, payloads) in
        [(BINARY, &[65_537][..]), (TEXT, &[65_537]), (TEXT_BEGINS, &[65_536, 1]), (0x02, &[1, 65_536])]
    {
        let mut raw = Raw::open(&server, "/echo");
        for (index, length) in payloads.iter().enumerate() {
            raw.send(if index == 0 { first } else { ENDS }, &vec![b'x'; *length]);
        }
        assert_eq!(raw.closed(), told, "{first:#x} {payloads:?}");
    }
    // The limit is the one of lines.
    let server = Server::web(&["--max-line", "100B"]);
    let mut raw = Raw::open(&server, "/echo");
    raw.send(TEXT, &[b'x'; 100]);
    raw.expect(TEXT, &[b'x'; 100]);
    raw.send(TEXT, &[b'x'; 101]);
    assert_eq!(raw.closed(), (1009, "too_long: message longer than 100 bytes or in more than 128 frames".to_string()));
}

#[test]
fn a_message_in_fragments_comes_back_whole_and_pings_between_them_are_answered_first() {
    let server = Server::web(&[]);
    let mut raw = Raw::open(&server, "/echo");
    raw.send(TEXT_BEGINS, b"gr\xc3");
    raw.send(PING, b"one");
    raw.expect(PONG, b"one");
    raw.send(GOES_ON, b"\xbc\xc3\x9f");
    raw.send(GOES_ON, b"");
    raw.send(PING, b"");
    raw.send(PONG, b"nobody asked");
    raw.expect(PONG, b"");
    raw.send(ENDS, b"e");
    raw.expect(TEXT, "gr\u{fc}\u{df}e".as_bytes());
    // An empty message, of empty parts.
    raw.send(0x02, b"");
    raw.send(ENDS, b"");
    raw.expect(BINARY, b"");
    // Nothing of it is left for the next one.
    raw.send(TEXT, b"next");
    raw.expect(TEXT, b"next");
}

/// Frames of all kinds, and the answers to them: first byte and payload.
fn conversation(count: usize) -> (Vec<u8>, Vec<(u8, Vec<u8>)>) {
    let (mut sent, mut expected, mut random) = (Vec::new(), Vec::new(), Random(1));
    for number in 0..count {
        let length = [0, 1, 20, 125, 126, 300][random.below(6)];
        let text = numbered(number, 400)[..length].to_string().into_bytes();
        match random.below(4) {
            0 => {
                sent.extend(frame(TEXT, &text));
                expected.push((TEXT, text));
            }
            1 => {
                sent.extend(frame(BINARY, &text));
                expected.push((BINARY, text));
            }
            2 => {
                let text = text[..length.min(125)].to_vec();
                sent.extend(frame(PING, &text));
                expected.push((PONG, text));
            }
            _ => {
                let cut = random.below(length + 1);
                sent.extend(frame(TEXT_BEGINS, &text[..cut]));
                sent.extend(frame(PING, b"between"));
                sent.extend(frame(ENDS, &text[cut..]));
                expected.extend([(PONG, b"between".to_vec()), (TEXT, text)]);
            }
        }
    }
    (sent, expected)
}

#[test]
fn one_byte_at_a_time_means_the_same() {
    let server = Server::web(&[]);
    let mut client = Client::connect(server.at("web"));
    let (sent, expected) = conversation(40);
    let bytes = [handshake("/echo").as_bytes(), &sent].concat();
    bytes.iter().for_each(|byte| client.send([*byte]));
    let mut raw = Raw { client };
    raw.switched();
    for (first, payload) in expected {
        raw.expect(first, &payload);
    }
}

#[test]
fn hundreds_of_frames_in_one_segment_are_answered_in_order() {
    let server = Server::web(&[]);
    let mut raw = Raw::open(&server, "/echo");
    let (sent, expected) = conversation(600);
    // All of it is there when the server wakes, and more than one look at it takes.
    server.process.freeze();
    raw.client.send(&sent);
    server.process.thaw();
    for (first, payload) in expected {
        raw.expect(first, &payload);
    }
}

#[test]
fn the_first_frames_may_come_with_the_handshake() {
    let server = mixed(&[]);
    let mut client = Client::connect(server.at("web"));
    client.send([handshake("/echo").as_bytes(), &frame(TEXT, b"early"), &frame(PING, b"bird")].concat());
    let mut raw = Raw { client };
    raw.switched();
    raw.expect(TEXT, b"early");
    raw.expect(PONG, b"bird");
    // Behind other requests, too.
    let mut client = Client::connect(server.at("web"));
    let request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    client.send([request.as_bytes(), handshake("/chat").as_bytes(), &frame(TEXT, b"/who")].concat());
    assert_eq!(client.answer().text(), "ok\n");
    let mut raw = Raw { client };
    raw.switched();
    assert!(raw.text().starts_with("WELCOME guest-1, "));
    assert_eq!(raw.text(), "INFO lobby: guest-1");
}

#[test]
fn whoever_does_not_read_is_not_read_and_loses_nothing() {
    const MESSAGES: usize = 400;
    let server = Server::web(&["--write-timeout", "1m", "--heartbeat", "off"]);
    let mut raw = Raw::over(narrow(server.at("web")), "/echo");
    let before = server.process.memory().0;
    let mut out = raw.client.stream().try_clone().expect("a second handle");
    let message = |number| numbered(number, 64 * KIB);
    let writer = thread::spawn(move || {
        for number in 0..MESSAGES {
            out.write_all(&frame(BINARY, message(number).as_bytes())).expect("the server takes it");
        }
    });
    until("the answers to pile up", || server.metric("oneloop_queued_bytes") > 64 * KIB as u64);
    for number in 0..MESSAGES {
        assert!(raw.next() == (BINARY, message(number).into_bytes()), "message {number}");
    }
    writer.join().expect("all sent");
    let grown = server.process.memory().1.saturating_sub(before);
    assert!(grown < 2 * MIB, "{grown} bytes more");
}

#[test]
fn a_stop_answers_the_frames_that_were_sent_and_says_why() {
    let mut server = mixed(&[]);
    let (mut echo, mut chat, mut idle) =
        (Raw::open(&server, "/echo"), Raw::open(&server, "/chat"), socket(&server, "/echo"));
    assert!(chat.text().starts_with("WELCOME guest-1, "));
    server.process.freeze();
    for number in 0..100 {
        echo.send(TEXT, numbered(number, 100).as_bytes());
    }
    echo.send(TEXT_BEGINS, b"unfinished");
    server.process.signal(Signal::TERM);
    server.process.thaw();
    let told = (1001, "shutdown: the server stops".to_string());
    for number in 0..100 {
        echo.expect(TEXT, numbered(number, 100).as_bytes());
    }
    assert_eq!(echo.closed(), told);
    assert_eq!(chat.closed(), told);
    assert_eq!(closed(&mut idle), told);
    assert_eq!(server.process.wait().code(), Some(0));
}

// The chat.

#[test]
fn people_at_nc_and_in_browsers_share_a_room() {
    let server = mixed(&[]);
    let [mut nc, mut browser, mut other] =
        people([Member::line(&server), Member::frame(&server), Member::frame(&server)]);
    nc.say("hello\n");
    assert_eq!([browser.text(), other.text()], ["MESSAGE guest-1: hello"; 2]);
    browser.say("hello yourself\n");
    assert_eq!([nc.text(), other.text()], ["MESSAGE guest-2: hello yourself"; 2]);
    assert_eq!(browser.ask("/nick alice"), "INFO you are alice");
    assert_eq!([nc.text(), other.text()], ["NICK guest-2: alice"; 2]);
    assert_eq!(nc.ask("/nick Alice"), "ERROR name: Alice is taken");
    for member in [&mut nc, &mut browser, &mut other] {
        assert_eq!(member.ask("/who"), "INFO lobby: guest-1, alice, guest-3");
    }
    // Private lines, in either direction and between two of a kind.
    assert_eq!(nc.ask("/msg alice psst"), "INFO sent to alice");
    assert_eq!(browser.text(), "PRIVATE guest-1: psst");
    assert_eq!(browser.ask("/msg guest-1 psst yourself"), "INFO sent to guest-1");
    assert_eq!(nc.text(), "PRIVATE alice: psst yourself");
    assert_eq!(browser.ask("/msg guest-3 you too"), "INFO sent to guest-3");
    assert_eq!(other.text(), "PRIVATE alice: you too");
    assert_eq!(browser.ask("/msg nobody x"), "ERROR name: nobody is called nobody");
    // Heartbeat as text is answered as text, and never said.
    assert_eq!([nc.ask("PING"), browser.ask("PING")], ["PONG"; 2]);
    browser.say("PONG\n//slash\n");
    assert_eq!(nc.text(), "MESSAGE alice: /slash");
    assert_eq!(other.text(), "MESSAGE alice: /slash");
    // Rooms.
    assert_eq!(browser.ask("/join den"), "INFO you are in den");
    assert_eq!([nc.text(), other.text()], ["LEAVE alice: bye"; 2]);
    assert_eq!(nc.ask("/join Den"), "INFO you are in den");
    assert_eq!(browser.text(), "JOIN guest-1");
    assert_eq!(other.text(), "LEAVE guest-1: bye");
    nc.say("only here\n");
    assert_eq!(browser.text(), "MESSAGE guest-1: only here");
    // An answer of two lines is two frames.
    let help = [browser.ask("/help"), browser.text()];
    assert!(help.iter().all(|line| line.starts_with("INFO ")), "{help:?}");
    assert_eq!(browser.ask("/leave"), "INFO you are in lobby");
    assert_eq!(other.text(), "JOIN alice");
    assert_eq!(nc.text(), "LEAVE alice: bye");
    // The last line of whoever goes is said.
    browser.say("goodbye\n/quit\nafter\n");
    assert_eq!([other.text(), other.text()], ["MESSAGE alice: goodbye", "LEAVE alice: bye"]);
    let Member::Frame(mut browser) = browser else { unreachable!("it is one") };
    assert_eq!(closed(&mut browser).0, 1000);
    assert_eq!(other.ask("/who"), "INFO lobby: guest-3");
}

#[test]
fn the_first_browser_in_a_room_of_lines_is_shown_its_history_and_the_other_way_round() {
    for kinds in [[Member::line, Member::frame], [Member::frame, Member::line]] {
        let server = mixed(&["--history", "3"]);
        let [first, second] = kinds;
        let [mut one, mut two] = people([first(&server), first(&server)]);
        for text in ["zero", "one", "two"] {
            one.say(&format!("{text}\n"));
            assert_eq!(two.text(), format!("MESSAGE guest-1: {text}"));
        }
        // Longer than the shortest header of a frame can say, and not ASCII.
        let long = format!("{}\u{1f642}", "long ".repeat(60));
        two.say(&format!("{long}\n"));
        assert_eq!(one.text(), format!("MESSAGE guest-2: {long}"));
        let (mut three, name) = second(&server).welcomed();
        assert_eq!(name, "guest-3");
        for line in ["MESSAGE guest-1: one", "MESSAGE guest-1: two", &format!("MESSAGE guest-2: {long}")] {
            assert_eq!(three.text(), line);
        }
        assert_eq!([one.text(), two.text()], ["JOIN guest-3"; 2]);
        three.say("four\n");
        assert_eq!([one.text(), two.text()], ["MESSAGE guest-3: four"; 2]);
        // One more of each kind, now that both are read here. Nobody leaves before the end.
        let mut late_ones = Vec::new();
        for (kind, name) in [(first, "guest-4"), (second, "guest-5")] {
            let (mut late, found) = kind(&server).welcomed();
            assert_eq!(found, name);
            for line in ["MESSAGE guest-1: two", &format!("MESSAGE guest-2: {long}"), "JOIN guest-3"] {
                assert_eq!(late.text(), line);
            }
            assert_eq!(late.text(), "MESSAGE guest-3: four");
            // What else has happened since stands there too.
            assert_eq!(late.ask("PING"), if name == "guest-4" { "PONG" } else { "JOIN guest-4" });
            assert_eq!([one.text(), two.text(), three.text()], [(); 3].map(|()| format!("JOIN {name}")));
            late_ones.push(late);
        }
    }
}

#[test]
fn nothing_that_is_no_text_reaches_a_browser() {
    let server = mixed(&[]);
    let [mut nc, mut browser, mut other] =
        people([Member::line(&server), Member::frame(&server), Member::line(&server)]);
    let Member::Line(sender) = &mut nc else { unreachable!("it is one") };
    for (sent, shown) in [
        (&b"\xff line"[..], "\u{fffd} line"),
        (b"\xc0\xaf\xed\xa0\x80\xf5", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}"),
        (b"cut \xf0\x9f\x99", "cut \u{fffd}"),
        (b"\x1b]0;x\x07title", "]0;xtitle"),
        (b"over\rwritten\0", "overwritten"),
    ] {
        sender.send([sent, b"\n"].concat());
        assert_eq!(browser.text(), format!("MESSAGE guest-1: {shown}"), "{}", sent.escape_ascii());
    }
    // What a browser says is cleaned just so.
    let cleaned = "MESSAGE guest-2: ";
    for (sent, shown) in [
        ("\x1b[2Jcleared\x07", "[2Jcleared"),
        ("left\u{202e}right\u{9b}31m", "leftright31m"),
        ("one\u{2028}line\u{85}still", "onelinestill"),
        ("carriage\rreturn\r", "carriagereturn"),
    ] {
        let Member::Frame(socket) = &mut browser else { unreachable!("it is one") };
        socket.send(Message::text(sent)).expect("the server takes it");
        assert_eq!([nc.text()], [format!("{cleaned}{shown}")], "{}", sent.escape_debug());
    }
    // Several lines in one message are one; nothing is nothing.
    let Member::Frame(socket) = &mut browser else { unreachable!("it is one") };
    for sent in ["", "\n", "  \n\r\n", "one\r\ntwo\n\n/who\nMESSAGE x: three\n", "four"] {
        socket.send(Message::text(sent)).expect("the server takes it");
    }
    for shown in ["one two  /who MESSAGE x: three", "four"] {
        assert_eq!(nc.text(), format!("{cleaned}{shown}"));
    }
    for _ in 0..5 {
        other.text(); // what guest-1 said
    }
    for shown in
        ["[2Jcleared", "leftright31m", "onelinestill", "carriagereturn", "one two  /who MESSAGE x: three", "four"]
    {
        assert_eq!(other.text(), format!("{cleaned}{shown}"));
    }
}

#[test]
fn a_chat_takes_text_and_the_others_read_that_somebody_sent_something_else() {
    let server = mixed(&[]);
    let [mut nc, browser] = people([Member::line(&server), Member::frame(&server)]);
    let Member::Frame(mut browser) = browser else { unreachable!("it is one") };
    browser.send(Message::text("before")).expect("the server takes it");
    browser.send(Message::binary("after")).expect("the server takes it");
    assert_eq!(closed(&mut browser), (1003, "protocol: a chat takes text".to_string()));
    assert_eq!([nc.text(), nc.text()], ["MESSAGE guest-2: before", "LEAVE guest-2: protocol"]);
}

#[test]
fn a_browser_that_goes_with_or_without_a_word_leaves_the_room_after_its_last_line() {
    let server = mixed(&[]);
    let (mut nc, _) = Member::line(&server).welcomed();
    for (number, way) in ["close", "end", "drop", "middle"].into_iter().enumerate() {
        let name = format!("guest-{}", number + 2);
        let mut raw = Raw::open(&server, "/chat");
        assert!(raw.text().starts_with(&format!("WELCOME {name}, ")));
        assert_eq!(nc.text(), format!("JOIN {name}"));
        raw.send(TEXT, b"last words");
        match way {
            "close" => {
                raw.client.send([frame(CLOSE, &1000_u16.to_be_bytes()), frame(TEXT, b"after")].concat());
                assert_eq!(raw.closed(), (1000, String::new()));
            }
            "end" => {
                raw.client.end();
                assert_eq!(raw.client.rest(), b"", "whoever ends without a close frame is sent none");
            }
            "drop" => drop(raw),
            _ => {
                // Half a message is none.
                raw.send(TEXT_BEGINS, b"never said");
                raw.client.send(&frame(ENDS, b"never said")[..8]);
                raw.client.end();
                assert_eq!(raw.client.rest(), b"");
            }
        }
        assert_eq!(nc.text(), format!("MESSAGE {name}: last words"), "{way}");
        assert_eq!(nc.text(), format!("LEAVE {name}: bye"), "{way}");
    }
}

// Slow readers.

/// Reads numbered messages up to `end` and adds up what was missed; both together must be all of them. Returns how many came.
fn reads_on(late: &mut Member, end: usize) -> usize {
    let (mut next, mut received) = (0, 0);
    while next < end {
        let line = late.text();
        if let Some(count) = line.strip_prefix("MISSED ").and_then(|rest| rest.strip_suffix(" messages")) {
            next += count.parse::<usize>().expect("a number");
        } else {
            assert_eq!(number_of(&line), next);
            (next, received) = (next + 1, received + 1);
        }
    }
    assert_eq!(next, end);
    received
}

#[test]
fn skip_tells_late_readers_of_both_kinds_exactly_how_many_messages_they_missed() {
    const LINES: usize = 20 * KIB;
    let server = mixed(&["--write-timeout", "1h", "--heartbeat", "off"]);
    let [mut sender, mut fast_nc, mut fast_browser, mut late_nc, mut late_browser, mut narrow_browser] = people([
        Member::frame(&server),
        Member::line(&server),
        Member::frame(&server),
        Member::line(&server),
        Member::frame(&server),
        Member::slow(&server, "web"),
    ]);
    assert_eq!(talk(&mut sender, &mut [&mut fast_nc, &mut fast_browser], 0..LINES, KIB), [""; 0]);
    // A private line is not skipped, whatever stands before it.
    assert_eq!(fast_nc.ask("/msg guest-6 psst"), "INFO sent to guest-6");
    let mut missing = Vec::new();
    for late in [&mut late_nc, &mut late_browser] {
        missing.push(LINES - reads_on(late, LINES));
    }
    let (mut next, mut received, mut private) = (0, 0, 0);
    while next < LINES || private == 0 {
        let line = narrow_browser.text();
        if line == "PRIVATE guest-2: psst" {
            private += 1;
        } else if let Some(count) = line.strip_prefix("MISSED ").and_then(|rest| rest.strip_suffix(" messages")) {
            next += count.parse::<usize>().expect("a number");
        } else {
            assert_eq!(number_of(&line), next);
            (next, received) = (next + 1, received + 1);
        }
    }
    missing.push(LINES - received);
    assert!(missing.iter().all(|missing| *missing > 1000), "{missing:?} missed");
    assert_eq!(server.metric("oneloop_messages_missed_total"), missing.iter().sum::<usize>() as u64);
    // From here on they are members like any others.
    let mut all = [&mut fast_nc, &mut fast_browser, &mut late_nc, &mut late_browser, &mut narrow_browser];
    talk(&mut sender, &mut all, LINES..LINES + 500, KIB);
}

#[test]
fn disconnect_closes_a_browser_that_falls_out_of_the_log_and_says_so() {
    let server = mixed(&["--slow-reader", "disconnect", "--write-timeout", "1h", "--heartbeat", "off"]);
    let [mut sender, mut reader, late] =
        people([Member::line(&server), Member::frame(&server), Member::frame(&server)]);
    let mut said = 0;
    let told = loop {
        let told = talk(&mut sender, &mut [&mut reader], said..said + KIB, KIB);
        said += KIB;
        assert!(said < 64 * KIB, "much more than all buffers hold");
        if !told.is_empty() {
            break told;
        }
    };
    assert_eq!(told, ["LEAVE guest-3: slow"], "at once, and not when it reads again");
    // What it has not read is whole, without a gap, and the reason stands last.
    let Member::Frame(mut late) = late else { unreachable!("it is one") };
    let mut received = 0;
    let close = loop {
        match late.read().expect("a frame") {
            Message::Text(line) => {
                assert_eq!(number_of(&line), received);
                received += 1;
            }
            Message::Close(close) => break close.expect("a number"),
            other => panic!("no text: {other:?}"),
        }
    };
    assert_eq!((u16::from(close.code), close.reason.as_str()), (1008, "slow: more than 1048576 bytes behind"));
    assert!(matches!(late.read(), Err(Error::ConnectionClosed)));
    assert!(received > KIB, "{received} messages");
    assert_eq!(sender.text(), "LEAVE guest-3: slow");
    assert_eq!(sender.ask("/who"), "INFO lobby: guest-1, guest-2");
}

#[test]
fn block_loses_nothing_for_slow_readers_of_both_kinds() {
    const LINES: usize = 6 * KIB;
    let server =
        mixed(&["--slow-reader", "block", "--write-timeout", "1h", "--room-log", "700KiB", "--heartbeat", "off"]);
    let [mut sender, fast, slow_nc, slow_browser] = people([
        Member::line(&server),
        Member::frame(&server),
        Member::slow(&server, "chat"),
        Member::slow(&server, "web"),
    ]);
    let writer = thread::spawn(move || {
        sender.say(&(0..LINES).map(|number| numbered(number, 200 + number % 3000)).collect::<String>());
        sender
    });
    let readers = [fast, slow_nc, slow_browser].map(|mut member| {
        thread::spawn(move || {
            (0..LINES).for_each(|number| assert_eq!(number_of(&member.text()), number));
            member
        })
    });
    let readers = readers.map(|reader| reader.join().expect("nothing is lost"));
    writer.join().expect("all said");
    drop(readers);
    assert_eq!(server.metric("oneloop_messages_missed_total"), 0);
}

#[test]
fn block_loses_nothing_of_what_a_browser_says_in_many_small_frames_at_once() {
    const LINES: usize = 40_000;
    let server =
        mixed(&["--slow-reader", "block", "--write-timeout", "1h", "--room-log", "700KiB", "--heartbeat", "off"]);
    let [mut sender, slow] = people([Member::frame(&server), Member::slow(&server, "chat")]);
    // As much as one look at it takes is far more in the log than it was on its way.
    server.process.freeze();
    let writer = thread::spawn(move || {
        sender.say(&(0..LINES).map(|number| format!("{number}\n")).collect::<String>());
        sender
    });
    server.process.thaw();
    let Member::Line(mut slow) = slow else { unreachable!("it is one") };
    for number in 0..LINES {
        assert_eq!(slow.text(), format!("MESSAGE guest-1: {number}"));
    }
    drop(writer.join().expect("all said"));
}

#[test]
fn a_browser_that_takes_nothing_hurts_nobody_and_is_gone_after_the_write_timeout() {
    for policy in ["skip", "block"] {
        let server = mixed(&["--slow-reader", policy, "--write-timeout", "1s", "--heartbeat", "off"]);
        let [mut sender, mut one, mut two, stopped] = people([
            Member::line(&server),
            Member::line(&server),
            Member::frame(&server),
            Member::slow(&server, "web"),
        ]);
        talk(&mut sender, &mut [&mut one, &mut two], 0..KIB, KIB);
        let before = server.process.memory().0;
        let mut told = talk(&mut sender, &mut [&mut one, &mut two], KIB..17 * KIB, KIB);
        let grown = server.process.memory().1.saturating_sub(before);
        assert!(grown < 8 * MIB, "{policy}: {grown} bytes more");
        if told.is_empty() {
            told.push(one.text());
        }
        assert_eq!(told, ["LEAVE guest-4: stalled"]);
        drop(stopped);
    }
}

/// Reads a few bytes at a time.
struct Sips {
    stream: TcpStream,
    random: Random,
}

impl Read for Sips {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let most = [1, 7, 100, 1500, 5000][self.random.below(5)];
        let most = most.min(bytes.len());
        self.stream.read(&mut bytes[..most])
    }
}

impl Write for Sips {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[test]
fn whatever_comes_between_messages_comes_between_and_never_inside_one() {
    const LINES: usize = 4000;
    // Pings of the server, answers to pings, private lines and answers to commands, all of them while it is behind.
    let server = mixed(&[
        "--slow-reader",
        "block",
        "--write-timeout",
        "1h",
        "--room-log",
        "700KiB",
        "--heartbeat-interval",
        "5ms",
        "--heartbeat-timeout",
        "1h",
    ]);
    let [mut sender, mut whisperer] = people([Member::line(&server), Member::line(&server)]);
    assert_eq!(whisperer.ask("/join elsewhere"), "INFO you are in elsewhere");
    assert_eq!(sender.text(), "LEAVE guest-2: bye");
    let stream = Sips { stream: narrow(server.at("web")), random: Random(7) };
    let mut reader = socket_over(stream, server.at("web"), "/chat");
    let welcome = reader.read().expect("a frame");
    assert!(welcome.to_text().expect("a text").starts_with("WELCOME guest-3, "), "{welcome:?}");
    let writer = thread::spawn(move || {
        sender.say(&(0..LINES).map(|number| numbered(number, 100 + (number * 37) % 4000)).collect::<String>());
        sender
    });
    let (read_some, tokens) = mpsc::channel::<usize>();
    let whisperer = thread::spawn(move || {
        let mut said = 0;
        for number in tokens {
            assert_eq!(whisperer.ask(&format!("/msg guest-3 {number}")), "INFO sent to guest-3");
            said += 1;
        }
        (whisperer, said)
    });
    let (mut next, mut next_private, mut pings, mut asked) = (0, 0, 0, 0);
    let (mut pinged, mut answers) = (VecDeque::new(), 0);
    while next < LINES || next_private < LINES / 20 || !pinged.is_empty() || answers < asked {
        match reader.read().expect("a frame that is whole and nothing else") {
            Message::Text(line) => {
                if let Some(number) = line.strip_prefix("PRIVATE guest-2: ") {
                    assert_eq!(number, next_private.to_string());
                    next_private += 1;
                    continue;
                } else if line.starts_with("INFO ") {
                    assert_eq!(line.as_str(), "INFO lobby: guest-1, guest-3");
                    answers += 1;
                    continue;
                }
                assert_eq!(number_of(&line), next);
                next += 1;
                if next % 20 == 0 {
                    read_some.send(next / 20 - 1).expect("the whisperer is there");
                }
                if next % 30 == 0 {
                    let payload = numbered(next, 2 + next % 124).into_bytes();
                    reader.send(Message::Ping(payload.clone().into())).expect("the server takes it");
                    pinged.push_back(payload);
                }
                if next % 70 == 0 {
                    reader.send(Message::text("/who")).expect("the server takes it");
                    asked += 1;
                }
            }
            Message::Ping(payload) => {
                assert!(payload.is_empty());
                pings += 1;
            }
            Message::Pong(payload) => assert_eq!(pinged.pop_front().as_deref(), Some(&payload[..])),
            other => panic!("neither text nor heartbeat: {other:?}"),
        }
    }
    writer.join().expect("all said");
    drop(read_some);
    assert_eq!(whisperer.join().expect("no panic").1, LINES / 20);
    assert!(pings > 0, "the server asked for no sign of life");
}

// Heartbeat.

/// Intervals so short that a silent peer is gone after 300 ms.
const SHORT: [&str; 6] = ["--heartbeat-interval", "100ms", "--heartbeat-timeout", "100ms", "--heartbeat-retries", "1"];

#[test]
fn a_silent_browser_is_pinged_and_gone_and_the_others_read_why() {
    for mode in ["auto", "all"] {
        let server = mixed(&[&SHORT[..], &["--heartbeat", mode]].concat());
        let (mut nc, _) = Member::line(&server).welcomed();
        // At `nc` one is asked too, if all are.
        let nc = thread::spawn(move || {
            let (mut lines, mut pings) = (Vec::new(), 0);
            while lines.last().is_none_or(|line| line != "LEAVE guest-2: heartbeat") {
                let line = nc.text();
                if line == "PING" {
                    nc.say("PONG\n");
                    pings += 1;
                } else {
                    lines.push(line);
                }
            }
            (nc, lines, pings)
        });
        let mut silent = Raw::open(&server, "/chat");
        assert!(silent.text().starts_with("WELCOME guest-2, "));
        silent.expect(PING, b"");
        silent.expect(PING, b"");
        assert_eq!(silent.closed(), (1008, "heartbeat: no sign of life after 2 PINGs".to_string()));
        let (nc, lines, pings) = nc.join().expect("it stays");
        assert_eq!(
            (lines, pings > 0),
            (["JOIN guest-2", "LEAVE guest-2: heartbeat"].map(str::to_string).into(), mode == "all")
        );
        drop(nc);
        // It is counted when it is gone, which is a little later.
        until("it to be counted", || server.metric("oneloop_closes_total{reason=\"heartbeat\"}") == 1);
    }
}

#[test]
fn a_browser_that_answers_stays_and_so_does_one_that_says_anything() {
    let server = mixed(&SHORT);
    let (mut answering, mut silent) = (socket(&server, "/echo"), Raw::open(&server, "/echo"));
    let mut begins = Raw::open(&server, "/echo");
    // Each ping is behind 100 ms of silence, and three without an answer are the end.
    for number in 0..10 {
        assert_eq!(answering.read().expect("a frame"), Message::Ping(Vec::new().into()), "ping {number}");
        // A byte of a frame that never ends is a sign of life, too.
        match number {
            0 => begins.client.send(&frame(BINARY, &[b'x'; 20])[..6]),
            _ => begins.client.send("x"),
        }
    }
    answering.send(Message::text("still here")).expect("the server takes it");
    let heard = loop {
        match answering.read().expect("a frame") {
            Message::Ping(_) => (),
            other => break other,
        }
    };
    assert_eq!(heard, Message::text("still here"));
    silent.expect(PING, b"");
    silent.expect(PING, b"");
    assert_eq!(silent.closed().0, 1008);
    until("it to be counted", || server.metric("oneloop_closes_total{reason=\"heartbeat\"}") == 1);
    // What the third read was pings, if anything, and not its end.
    begins.client.send([&[b'x'; 11][..], &frame(PING, b"now")].concat());
    let mut answers = std::iter::repeat_with(|| begins.next()).filter(|(first, _)| *first != PING);
    assert!(answers.next().is_some_and(|(first, payload)| first == BINARY && payload.len() == 20));
    assert_eq!(answers.next(), Some((PONG, b"now".to_vec())));
}

#[test]
fn nobody_is_pinged_where_the_heartbeat_is_off() {
    // Its end by idleness says when the time for pings has passed, several times.
    let server = Server::web(&[&SHORT[..], &["--heartbeat", "off", "--idle-timeout", "1s"]].concat());
    let mut silent = Raw::open(&server, "/echo");
    assert_eq!(silent.closed(), (1008, "idle: nothing received for 1s".to_string()));
}

// How it ends.

#[test]
fn a_close_frame_is_answered_by_its_number_and_the_end() {
    let server = Server::web(&[]);
    for code in [1000, 1001, 1002, 1003, 1007, 1011, 1014, 3000, 3999, 4000, 4999] {
        for reason in ["", "because", &"r".repeat(123)] {
            let mut raw = Raw::open(&server, "/echo");
            let close = frame(CLOSE, &[&u16::to_be_bytes(code)[..], reason.as_bytes()].concat());
            // What was said before is answered first, and nothing is after it, well formed or not.
            raw.client.send([frame(TEXT, b"before"), close, frame(TEXT, b"after"), b"\xff\xff".to_vec()].concat());
            raw.expect(TEXT, b"before");
            assert_eq!(raw.closed(), (code, String::new()));
        }
    }
    // Without a number, without one.
    let mut raw = Raw::open(&server, "/echo");
    raw.send(CLOSE, b"");
    raw.expect(CLOSE, b"");
    assert_eq!(raw.client.rest(), b"");
    // As a library does it.
    for code in [1000, 3000] {
        let mut socket = socket(&server, "/echo");
        let close = CloseFrame { code: code.into(), reason: "done".into() };
        socket.close(Some(close)).expect("the server takes it");
        assert_eq!(closed(&mut socket).0, code);
    }
    assert_eq!(server.metric("oneloop_closes_total{reason=\"protocol\"}"), 0);
}

#[test]
fn what_is_not_as_the_protocol_has_it_ends_with_its_number() {
    let server = Server::web(&[]);
    let close = |code: u16| frame(CLOSE, &code.to_be_bytes());
    let begun = |next: Vec<u8>| [frame(TEXT_BEGINS, b"a"), next].concat();
    let mut cases = vec![
        ("reserved bit 1", frame(0xc1, b"x"), 1002),
        ("reserved bit 2", frame(0xa1, b"x"), 1002),
        ("reserved bit 3", frame(0x91, b"x"), 1002),
        ("opcode 3", frame(0x83, b"x"), 1002),
        ("opcode 7", frame(0x87, b""), 1002),
        ("opcode 11", frame(0x8b, b""), 1002),
        ("opcode 15", frame(0x8f, b""), 1002),
        ("not masked", b"\x81\x02hi".to_vec(), 1002),
        ("a ping that is not masked", b"\x89\x00".to_vec(), 1002),
        ("a ping in fragments", frame(0x09, b""), 1002),
        ("a ping of 126 bytes", frame(PING, &[0; 126]), 1002),
        ("a close frame of 126 bytes", frame(CLOSE, &[3; 126]), 1002),
        ("a continuation of nothing", frame(ENDS, b"x"), 1002),
        ("a message inside another", begun(frame(TEXT, b"b")), 1002),
        ("a beginning inside another", begun(frame(0x02, b"b")), 1002),
        ("a length of 2^63", b"\x82\xff\x80\x00\x00\x00\x00\x00\x00\x00\0\0\0\0".to_vec(), 1002),
        ("a length of 2^64 - 1", b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0".to_vec(), 1002),
        ("a length of 2^63 - 1", b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0".to_vec(), 1009),
        ("a length of 65,537", b"\x82\xff\x00\x00\x00\x00\x00\x01\x00\x01\0\0\0\0".to_vec(), 1009),
        ("5 in two bytes", b"\x81\xfe\x00\x05\0\0\0\0hello".to_vec(), 1002),
        ("5 in eight bytes", b"\x81\xff\x00\x00\x00\x00\x00\x00\x00\x05\0\0\0\0hello".to_vec(), 1002),
        ("half a number", frame(CLOSE, b"\x03"), 1002),
        ("a reason that is no UTF-8", frame(CLOSE, b"\x03\xe8\xff"), 1007),
        ("a text that is no UTF-8", frame(TEXT, b"\xff"), 1007),
        ("a text that ends inside a character", frame(TEXT, b"\xf0\x9f\x99"), 1007),
        ("a surrogate", frame(TEXT, b"\xed\xa0\x80"), 1007),
        ("a last fragment inside a character", begun(frame(ENDS, b"\xc3")), 1007),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(), 1002),
    ];
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        cases.push(("a number that means nothing", close(code), 1002));
    }
    let count = cases.iter().filter(|(.., code)| *code != 1009).count() as u64;
    for (what, bytes, code) in cases {
        let mut raw = Raw::open(&server, "/echo");
        raw.client.send([&bytes[..], &frame(TEXT, b"after")].concat());
        let (found, reason) = raw.closed();
        assert_eq!(found, code, "{what}: {reason}");
        let word = if code == 1009 { "too_long: " } else { "protocol: " };
        assert!(reason.starts_with(word), "{what}: {reason}");
    }
    until("all of them to be gone", || server.metric("oneloop_closes_total{reason=\"protocol\"}") == count);
}

#[test]
fn a_text_that_can_never_become_utf_8_ends_it_at_once() {
    let server = Server::web(&[]);
    // Nothing more comes: neither the rest of the frame nor the rest of the message.
    for bytes in [
        frame(TEXT_BEGINS, b"ab\xff"),
        frame(TEXT, b"ab\xffcdefghij")[..9].to_vec(),
        [frame(TEXT_BEGINS, b"\xf0\x9f"), frame(GOES_ON, b"\x28")].concat(),
        frame(TEXT_BEGINS, b"\xf4\x90"),
        [frame(TEXT_BEGINS, b"a"), frame(GOES_ON, b""), frame(GOES_ON, b"\xc0")].concat(),
    ] {
        let mut raw = Raw::open(&server, "/echo");
        raw.client.send(&bytes);
        assert_eq!(raw.closed(), (1007, "protocol: a text that is no UTF-8".to_string()), "{}", bytes.escape_ascii());
    }
    // What may still become a character is waited for.
    let mut raw = Raw::open(&server, "/echo");
    for byte in "\u{1f642}".as_bytes() {
        raw.send(if *byte == 0xf0 { TEXT_BEGINS } else { GOES_ON }, &[*byte]);
        raw.send(PING, &[*byte]);
        raw.expect(PONG, &[*byte]);
    }
    raw.send(ENDS, b"");
    raw.expect(TEXT, "\u{1f642}".as_bytes());
}

#[test]
fn a_length_that_is_only_announced_costs_no_memory() {
    let server = Server::web(&[]);
    let mut warm = Raw::open(&server, "/echo");
    warm.send(BINARY, &[0; 65_536]);
    warm.next();
    let before = server.process.memory().1;
    // Too long: refused before a byte of it has come.
    for length in [65_537, 1 << 20, 1 << 32, (1 << 63) - 1] {
        let mut raw = Raw::open(&server, "/echo");
        raw.client.send(header(BINARY, length, [0; 4]));
        assert_eq!(raw.closed().0, 1009);
    }
    // Just not too long: nothing is set aside for what may never come.
    let mut waiting: Vec<Raw> = (0..100).map(|_| Raw::open(&server, "/echo")).collect();
    for raw in &mut waiting {
        raw.client.send([frame(PING, b""), header(BINARY, 65_536, [0; 4])].concat());
        raw.expect(PONG, b"");
    }
    let grown = server.process.memory().1 - before;
    assert!(grown < MIB, "{grown} bytes more");
}

#[test]
fn a_message_in_too_many_fragments_ends_however_small_they_are() {
    let server = Server::web(&[]);
    let told = (1009, "too_long: message longer than 65536 bytes or in more than 128 frames".to_string());
    for payload in [&b""[..], b"x"] {
        // As many as may be.
        let mut raw = Raw::open(&server, "/echo");
        raw.send(0x02, payload);
        raw.client.send(frame(GOES_ON, payload).repeat(126));
        raw.send(PING, b"not yet");
        raw.expect(PONG, b"not yet");
        raw.send(ENDS, payload);
        raw.expect(BINARY, &payload.repeat(128));
        // Each message is counted anew; the 129th ends it.
        raw.send(0x02, payload);
        raw.client.send(frame(GOES_ON, payload).repeat(127));
        raw.send(PING, b"not yet");
        raw.expect(PONG, b"not yet");
        raw.send(GOES_ON, payload);
        assert_eq!(raw.closed(), told);
        // And a hundred thousand of them cost nothing.
        let before = server.process.memory().1;
        let mut raw = Raw::open(&server, "/echo");
        raw.client.send([frame(TEXT_BEGINS, payload), frame(GOES_ON, payload).repeat(100_000)].concat());
        assert_eq!(raw.closed(), told);
        let grown = server.process.memory().1 - before;
        assert!(grown < MIB, "{grown} bytes more");
    }
    // The limit is a flag.
    let server = Server::web(&["--max-fragments", "2"]);
    let mut raw = Raw::open(&server, "/echo");
    raw.client.send([frame(TEXT_BEGINS, b"a"), frame(GOES_ON, b"b"), frame(ENDS, b"c")].concat());
    let told = (1009, "too_long: message longer than 65536 bytes or in more than 2 frames".to_string());
    assert_eq!(raw.closed(), told);
}

#[test]
fn a_flood_of_pings_whose_answers_nobody_reads_costs_little_and_each_is_answered() {
    const PINGS: usize = 100_000;
    let server = Server::web(&["--write-timeout", "1m", "--heartbeat", "off"]);
    let mut raw = Raw::over(narrow(server.at("web")), "/echo");
    server.metric("oneloop_queued_bytes");
    let before = server.process.memory().1;
    let mut out = raw.client.stream().try_clone().expect("a second handle");
    let payload = |number| numbered(number, 125).into_bytes();
    let writer = thread::spawn(move || {
        for first in (0..PINGS).step_by(500) {
            let pings: Vec<u8> = (first..first + 500).flat_map(|number| frame(PING, &payload(number))).collect();
            out.write_all(&pings).expect("the server takes it");
        }
    });
    until("the answers to pile up", || server.metric("oneloop_queued_bytes") > 64 * KIB as u64);
    for number in 0..PINGS {
        let (first, bytes) = raw.next();
        assert!(first == PONG && bytes == payload(number), "pong {number}: {}", bytes.escape_ascii());
    }
    writer.join().expect("all sent");
    let grown = server.process.memory().1 - before;
    assert!(grown <= MIB, "{grown} bytes more");
}

#[test]
fn unfinished_messages_that_fill_their_share_of_the_memory_end_with_a_try_again() {
    let server = Server::web(&["--memory", "256KiB"]);
    let mut all: Vec<Raw> = (0..3).map(|_| Raw::open(&server, "/echo")).collect();
    for raw in &mut all {
        raw.client.send(frame(BINARY, &[b'x'; 60_000]).split_last().expect("a frame").1);
    }
    // One of them is one too many: half of the memory takes two.
    let line = server.log.line("closed, full");
    assert!(line.contains("web ") && line.contains("unfinished lines fill 131072 bytes"), "{line}");
    let mut told = 0;
    for raw in &mut all {
        raw.client.send([b'x' ^ frame(BINARY, &[0; 60_000])[8 + 59_999]]);
        let (first, bytes) = raw.next();
        match first {
            CLOSE => {
                assert_eq!(
                    bytes,
                    [&1013_u16.to_be_bytes()[..], &b"full: unfinished lines fill 131072 bytes"[..]].concat()
                );
                told += 1;
            }
            _ => assert!(bytes == [b'x'; 60_000]),
        }
    }
    assert_eq!(told, 1);
}

#[test]
fn one_websocket_more_than_there_may_be_is_not_let_in_and_the_others_go_on() {
    let server = mixed(&["--max-connections", "3"]);
    let [mut one, mut two] = people([Member::frame(&server), Member::frame(&server)]);
    let mut echo = socket(&server, "/echo");
    for path in ["/chat", "/echo"] {
        let mut client = Client::connect(server.at("web"));
        client.send(handshake(path));
        let answer = client.answer();
        assert_eq!((answer.status, answer.text().as_str()), (503, "full: 3 connections\n"));
        assert_eq!(client.rest(), b"");
    }
    one.say("still here\n");
    assert_eq!(two.text(), "MESSAGE guest-1: still here");
    echo.send(Message::text("me too")).expect("the server takes it");
    assert_eq!(echo.read().expect("a frame"), Message::text("me too"));
    // Whoever leaves makes room.
    echo.close(None).expect("the server takes it");
    while echo.read().is_ok() {}
    drop(echo);
    until("the place to be free", || server.metric("oneloop_connections_open{service=\"web\"}") == 3);
    let (mut three, _) = Member::frame(&server).welcomed();
    assert_eq!(one.text(), "JOIN guest-3");
    assert_eq!(three.ask("/who"), "INFO lobby: guest-1, guest-2, guest-3");
}

#[test]
fn an_idle_websocket_owns_no_buffers_whatever_it_has_said() {
    const SOCKETS: usize = 200;
    let server = mixed(&["--heartbeat", "off"]);
    let mut sockets: Vec<Raw> = (0..SOCKETS).map(|_| Raw::open(&server, "/echo")).collect();
    let [mut one, mut two] = people([Member::frame(&server), Member::line(&server)]);
    let large = vec![b'x'; 60_000];
    sockets[0].send(BINARY, &large);
    sockets[0].next();
    let before = server.process.memory().0;
    for raw in &mut sockets {
        // Whole, in parts, and cut where a buffer has to keep it.
        raw.send(BINARY, &large);
        assert!(raw.next() == (BINARY, large.clone()));
        raw.send(TEXT_BEGINS, &large);
        raw.send(PING, b"now");
        raw.expect(PONG, b"now");
        raw.send(ENDS, b"end");
        assert_eq!(raw.next().1.len(), 60_003);
    }
    for number in 0..100 {
        one.say(&numbered(number, 10_000));
        assert_eq!(number_of(&two.text()), number);
    }
    two.say("heard\n");
    assert_eq!(one.text(), "MESSAGE guest-2: heard");
    assert_eq!(server.metric("oneloop_queued_bytes"), 0);
    assert_eq!(server.metric("oneloop_room_log_bytes"), 0);
    let grown = server.process.memory().0.saturating_sub(before);
    assert!(grown < 3 * MIB, "{grown} bytes more for {SOCKETS}");
    // One that has begun a message owns that.
    sockets[0].send(TEXT_BEGINS, b"12345");
    sockets[0].send(PING, b"");
    sockets[0].expect(PONG, b"");
    assert_eq!(server.metric("oneloop_queued_bytes"), 5);
    sockets[0].send(ENDS, b"");
    sockets[0].expect(TEXT, b"12345");
    assert_eq!(server.metric("oneloop_queued_bytes"), 0);
}

// How it begins.

#[test]
fn a_handshake_that_is_none_is_answered_in_http() {
    let server = Server::web(&[]);
    let good = handshake("/echo");
    let without = |name: &str| {
        let lines = good.split_inclusive("\r\n").filter(|line| !line.to_ascii_lowercase().starts_with(name));
        lines.collect::<String>()
    };
    let says = |answer: &Answer, option: &str| {
        let mut values = answer.headers.iter().filter(|(name, _)| name == "Connection").map(|(_, value)| value);
        values.any(|value| value == option)
    };
    for (what, request, status) in [
        ("version 8", good.replace("Version: 13", "Version: 8"), 426),
        ("version 14", good.replace("Version: 13", "Version: 14"), 426),
        ("no version", without("sec-websocket-version"), 426),
        ("no Upgrade", without("upgrade"), 426),
        ("no Connection", without("connection"), 426),
        ("another protocol", good.replace("websocket\r", "h2c\r"), 426),
        ("HTTP/1.0", good.replace("HTTP/1.1", "HTTP/1.0"), 426),
        ("no key", without("sec-websocket-key"), 400),
        ("a short key", good.replace("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZQ=="), 400),
        ("a key that is no base64", good.replace("dGhlIHNhbXBsZSBub25jZQ==", "!GhlIHNhbXBsZSBub25jZQ=="), 400),
        ("a key of 24 letters", good.replace("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQQQ"), 400),
        ("two keys", good.replace("\r\n\r\n", "\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"), 400),
        ("a body", good.replace("\r\n\r\n", "\r\nContent-Length: 3\r\n\r\nabc"), 400),
        ("POST", good.replace("GET", "POST"), 405),
        ("another path", good.replace("/echo", "/echoes"), 404),
    ] {
        let mut client = Client::connect(server.at("web"));
        client.send(&request);
        let answer = client.answer();
        assert_eq!(answer.status, status, "{what}: {answer:?}");
        if status == 426 {
            assert_eq!(answer.header("Sec-WebSocket-Version"), Some("13"), "{what}");
            assert_eq!(answer.header("Upgrade"), Some("websocket"), "{what}");
            assert!(says(&answer, "Upgrade"), "{what}: {:?}", answer.headers);
        }
        let closes = says(&answer, "close");
        assert_eq!(closes, status == 400 || what == "HTTP/1.0", "{what}: {:?}", answer.headers);
        if closes {
            assert_eq!(client.rest(), b"", "{what}");
        } else {
            // It may do better.
            client.send(&good);
            let mut raw = Raw { client };
            raw.switched();
            raw.send(TEXT, b"hi");
            raw.expect(TEXT, b"hi");
        }
    }
    // What is right in other words.
    for request in [
        good.replace("Upgrade: websocket", "UPGRADE: WebSocket"),
        good.replace("keep-alive, Upgrade", "upgrade"),
        good.replace("/echo", "/echo?x=1"),
        good.replace(
            "\r\n\r\n",
            "\r\nSec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Protocol: chat\r\n\r\n",
        ),
        good.replace("/echo", "http://localhost/echo"),
    ] {
        let mut client = Client::connect(server.at("web"));
        client.send(&request);
        let mut raw = Raw { client };
        raw.switched();
        raw.send(TEXT, b"hi");
        raw.expect(TEXT, b"hi");
    }
}

#[test]
fn many_small_questions_of_somebody_who_does_not_read_are_answered_up_to_the_mark() {
    let server = Server::web(&["--write-timeout", "60s"]);
    let raw = Raw::open(&server, "/chat");
    let mut stream = raw.client.stream();
    stream.set_nonblocking(true).expect("a socket");
    // Each is eleven bytes, and its answer two hundred.
    let questions = frame(TEXT, b"/help").repeat(4096);
    let mut at = 0;
    loop {
        match stream.write(&questions[at..]) {
            Ok(count) => at = (at + count) % questions.len(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // Time is only how it is noticed that nobody takes any more.
                let wait = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
                if poll(&mut [PollFd::new(&stream, PollFlags::OUT)], Some(&wait)).expect("poll") == 0 {
                    break;
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
    // An outbox of 256 KiB and an answer, and a read that waits: not what six thousand questions in it would be answered.
    let queued = server.metric("oneloop_queued_bytes");
    assert!((64 * KIB as u64..400 * KIB as u64).contains(&queued), "{queued} bytes wait");
}
