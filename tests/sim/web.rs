//! HTTP and WebSockets as simply as they can be told: what a client sends, what of that a server has to hear, and what it has
//! to answer. Frames of the server are taken apart strictly; from then on each is a line, so that whoever reads frames in a
//! chat is judged like everybody else.

use crate::chat;
use crate::clients::Service;
use crate::kernel::Kind;
use crate::machines::Told;
use crate::random::Random;
use crate::world::World;
use oneloop::close::Close;
use oneloop::limits::Limits;
use oneloop::protocol::Context;

/// Whether the service is there at all.
pub(crate) const WEB: bool = cfg!(feature = "web");

/// Answers of HTTP are at most so long.
pub(crate) const ANSWER_BYTES: usize = 400;

/// What a server that asks for a sign of life sends.
pub(crate) const PING: &[u8] = b"\x89\x00";

const SWITCHED: &str = "<101>\n";

fn request(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").into_bytes()
}

/// The key is the one of RFC 6455, section 1.3, and so must be the answer.
fn handshake(path: &str) -> Vec<u8> {
    let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13";
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{upgrade}\r\n{key}\r\n\r\n").into_bytes()
}

/// What a server answers to that.
const ACCEPT: &str = "\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

/// A frame as a client sends it.
fn frame(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    assert!(payload.len() < 126);
    let masked = payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key);
    [first, 0x80 | payload.len() as u8].into_iter().chain(mask).chain(masked).collect()
}

pub(crate) fn pong(random: &mut Random) -> Vec<u8> {
    let mask = (random.next() as u32).to_be_bytes();
    frame(0x8a, b"", mask)
}

/// What a client sends, as pieces between which a pong may stand.
#[derive(Default)]
struct Script {
    pieces: Vec<Vec<u8>>,
}

impl Script {
    fn frame(&mut self, first: u8, payload: &[u8], random: &mut Random) {
        let mask = (random.next() as u32).to_be_bytes();
        self.pieces.push(frame(first, payload, mask));
    }

    /// A message in some fragments, with a ping between them now and then.
    fn message(&mut self, opcode: u8, mut payload: &[u8], limits: &Limits, random: &mut Random) {
        let most = limits.max_fragments as usize + usize::from(random.one_in(40));
        let fragments = if random.one_in(2) { 1 } else { random.within(1..=most) };
        for number in 1..=fragments {
            let is_last = number == fragments;
            let count = if is_last { payload.len() } else { random.below(payload.len() + 1) };
            let first = if number == 1 { opcode } else { 0 };
            self.frame(first | if is_last { 0x80 } else { 0 }, &payload[..count], random);
            payload = &payload[count..];
            if random.one_in(4) {
                let payload = [b'p'; 10];
                let count = random.below(11);
                self.frame(if random.one_in(4) { 0x8a } else { 0x89 }, &payload[..count], random);
            }
        }
    }
}

/// What a client sends, and how long the pieces are between which a pong may stand.
pub(crate) fn script(
    service: Service,
    client: usize,
    length: usize,
    stays: bool,
    limits: &Limits,
    random: &mut Random,
) -> (Vec<u8>, Vec<usize>) {
    let mut script = Script::default();
    match service {
        Service::Health => {
            for _ in 0..random.below(5) {
                let path = if random.one_in(5) { "/nothing" } else { "/healthz" };
                script.pieces.push(request(path));
            }
        }
        Service::WebEcho => {
            script.pieces.push(handshake("/echo"));
            while script.pieces.iter().map(Vec::len).sum::<usize>() < length + 142 {
                let longest = if random.one_in(40) { 60 } else { limits.max_line_bytes };
                let opcode = 1 + random.below(2) as u8;
                let text: Vec<u8> = (0..random.below(longest + 1)).map(|_| b'a' + random.below(26) as u8).collect();
                script.message(opcode, &text, limits, random);
            }
        }
        _ => {
            script.pieces.push(handshake("/chat"));
            let said = String::from_utf8(chat::script(client, length, stays, random)).expect("ASCII");
            let mut lines = said.lines().peekable();
            let fits = |text: &str, next: &str| text.len() + 1 + next.len() <= limits.max_line_bytes;
            while let Some(line) = lines.next() {
                let mut text = line.to_string();
                // Who pastes several lines has said one. (With commands that would be another command.)
                let pastes = text.starts_with('m') && random.one_in(3);
                while pastes && let Some(next) = lines.next_if(|next| next.starts_with('m') && fits(&text, next)) {
                    text = format!("{text}\n{next}");
                }
                script.message(1, text.as_bytes(), limits, random);
            }
        }
    }
    if service != Service::Health && random.one_in(3) {
        let payload: &[u8] = if random.one_in(2) { b"" } else { b"\x03\xe8bye" };
        script.frame(0x88, payload, random);
    }
    let mut bytes = script.pieces.concat();
    if !stays && random.one_in(4) {
        bytes.truncate(bytes.len() - random.below(bytes.len().min(12) + 1)); // half a frame, or half a request
    }
    (bytes, script.pieces.iter().map(Vec::len).collect())
}

/// One request more.
pub(crate) fn poll() -> Vec<u8> {
    request("/healthz")
}

/// The next whole thing that a server sends: an answer of HTTP, or a frame, once `open`; as a line, and how many bytes it is.
pub(crate) fn item(bytes: &[u8], open: &mut bool) -> Option<(String, usize)> {
    if !*open {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let head = str::from_utf8(&bytes[..end]).expect("ASCII");
        let status = head.strip_prefix("HTTP/1.1 ").expect("an answer").split(' ').next().expect("its status");
        *open = status == "101";
        if *open {
            assert!(head.contains(ACCEPT), "{head}");
            return Some((SWITCHED.to_string(), end));
        }
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).expect("a length");
        let length: usize = length.parse().expect("a number");
        let body = str::from_utf8(bytes.get(end..end + length)?).expect("ASCII");
        let body = if ["200", "503"].contains(&status) { body.trim_end() } else { "" };
        return Some((format!("<{status}>{body}\n"), end + length));
    }
    let first = *bytes.first()?;
    assert!([0x81, 0x82, 0x88, 0x89, 0x8a].contains(&first), "not a whole frame: {}", bytes.escape_ascii());
    let (from, length) = match *bytes.get(1)? {
        126 => {
            let length = usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]));
            assert!(length > 125, "a length that could be shorter");
            (4, length)
        }
        length => (2, usize::from(length)),
    };
    assert!(bytes[1] < 127, "masked, or far too long");
    let payload = bytes.get(from..from + length)?;
    assert!(first & 8 == 0 || length < 126, "a control frame of {length} bytes");
    Some((line(first, payload), from + length))
}

/// A frame as a line.
fn line(first: u8, payload: &[u8]) -> String {
    let (number, rest) = payload.split_at(payload.len().min(2));
    match first {
        0x81 => format!("{}\n", payload.escape_ascii()),
        0x82 => format!("<binary>{}\n", payload.escape_ascii()),
        0x88 => {
            let number = number.first_chunk().map_or(0, |number| u16::from_be_bytes(*number));
            format!("<close {number}>{}\n", rest.escape_ascii())
        }
        0x89 => format!("<ping>{}\n", payload.escape_ascii()),
        _ => format!("<pong>{}\n", payload.escape_ascii()),
    }
}

/// What a client has said.
#[derive(Debug)]
enum Heard {
    Request(String),
    Ping(Vec<u8>),
    Pong,
    Message(u8, Vec<u8>),
    Close(Vec<u8>),
    TooLong,
    TooManyFragments,
}

/// What a connection has become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Role {
    #[default]
    Http,
    Echo,
    Chat,
}

/// The server's side of a connection, as far as it has been told.
#[derive(Debug, Default)]
pub(crate) struct Side {
    pub(crate) role: Role,
    /// Nothing more is heard.
    over: bool,
    over_early: bool,
    said_close: bool,
    /// Consumed by the machine and not whole.
    incoming: Vec<u8>,
    /// How many bytes it has consumed or been given as the rest.
    pub(crate) consumed: usize,
    /// The message that is coming in fragments.
    message: Option<(u8, Vec<u8>)>,
    fragments: u32,
    /// All that the machine has said.
    pub(crate) pushed: Vec<u8>,
    pushed_open: bool,
    /// What was written to it is frames.
    pub(crate) written_open: bool,
}

impl Side {
    /// It has said or heard its last before the peer's end.
    pub(crate) fn is_over_early(&self) -> bool {
        self.over_early
    }

    fn next(&mut self, limits: &Limits) -> Option<Heard> {
        if self.over {
            self.incoming.clear();
            return None;
        }
        if self.role == Role::Http {
            let end = self.incoming.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
            let head = String::from_utf8(self.incoming.drain(..end).collect()).expect("ASCII");
            return Some(Heard::Request(head.split(' ').nth(1).expect("a path").to_string()));
        }
        let header: [u8; 6] = *self.incoming.first_chunk()?;
        let (opcode, is_last, length) = (header[0] & 15, header[0] & 0x80 != 0, usize::from(header[1] & 0x7f));
        if opcode < 8 {
            let so_far = self.message.as_ref().map_or(0, |(_, message)| message.len());
            if so_far + length > limits.max_line_bytes {
                return Some(Heard::TooLong);
            }
            if self.fragments + 1 > limits.max_fragments {
                return Some(Heard::TooManyFragments);
            }
        }
        let masked = self.incoming.get(6..6 + length)?;
        let payload: Vec<u8> = masked.iter().zip(header[2..].iter().cycle()).map(|(byte, key)| byte ^ key).collect();
        self.incoming.drain(..6 + length);
        match opcode {
            8 => return Some(Heard::Close(payload)),
            9 => return Some(Heard::Ping(payload)),
            10 => return Some(Heard::Pong),
            _ => (),
        }
        self.fragments += 1;
        self.message.get_or_insert((opcode, Vec::new())).1.extend(payload);
        if !is_last {
            return self.next(limits);
        }
        self.fragments = 0;
        self.message.take().map(|(opcode, message)| Heard::Message(opcode, message))
    }
}

impl World {
    /// A machine of the web was told something, and has pushed `pushed`.
    pub(crate) fn web_told(
        &mut self,
        client: usize,
        context: &Context<'_>,
        told: &Told<'_>,
        pushed: &[u8],
        has_begun: Option<bool>,
    ) {
        let mut side = self.webs.remove(&client).unwrap_or_default();
        let mut expected: Vec<(String, bool)> = Vec::new();
        self.chat_begins();
        match told {
            Told::Bytes(bytes) => {
                side.incoming.extend_from_slice(bytes);
                side.consumed += bytes.len();
                while let Some(heard) = side.next(&self.limits) {
                    self.web_heard(client, context, &mut side, heard, &mut expected);
                    side.over_early |= side.over;
                }
            }
            Told::Ended(rest) => {
                side.consumed += rest.len();
                (side.over, side.said_close) = (true, true);
            }
            Told::Expired if side.role == Role::Http => {
                side.over = true;
                if has_begun.unwrap_or(!pushed.is_empty()) {
                    expected.push(("<408>\n".to_string(), false));
                    self.count("web: half a request in all its time");
                }
            }
            Told::Expired if pushed.is_empty() => (),
            Told::Expired => expected.push(("<ping>\n".to_string(), false)),
            Told::Closing(close) => {
                let has_begun = has_begun.unwrap_or(!pushed.is_empty());
                self.web_closing(&mut side, *close, has_begun, &mut expected);
                if self.chat_knows(client) {
                    self.chat_closing(client, *close);
                }
            }
            Told::Opened | Told::Drained => (),
        }
        // Whatever it pushes is whole.
        let (mut items, mut rest) = (Vec::new(), pushed);
        while let Some((item, used)) = item(rest, &mut side.pushed_open) {
            items.push(item);
            rest = &rest[used..];
        }
        assert!(rest.is_empty(), "client {client} was told {told:?}, and half of something: {}", rest.escape_ascii());
        side.pushed.extend_from_slice(pushed);
        self.webs.insert(client, side);
        self.chat_answered(client, context, told, &items, expected);
    }

    fn web_heard(
        &mut self,
        client: usize,
        context: &Context<'_>,
        side: &mut Side,
        heard: Heard,
        expected: &mut Vec<(String, bool)>,
    ) {
        let mut answer = |line: String| expected.push((line, false));
        match heard {
            Heard::Request(path) => self.web_asked(client, context, side, &path, expected),
            Heard::Ping(payload) => {
                self.count(if side.message.is_some() { "web: pings between fragments" } else { "web: pings" });
                answer(line(0x8a, &payload));
            }
            Heard::Pong => (),
            Heard::Message(opcode, payload) if side.role == Role::Echo => {
                self.count("web: messages echoed");
                answer(line(0x80 | opcode, &payload));
            }
            Heard::Message(_, payload) => {
                let text = String::from_utf8(payload).expect("ASCII");
                if text.contains('\n') {
                    self.count("web: several lines in a message");
                }
                self.chat_typed(client, &text.replace('\n', " "), expected);
                side.over = self.chat_has_quit(client);
            }
            Heard::Close(payload) => {
                self.count("web: close frames");
                answer(line(0x88, &payload[..payload.len().min(2)]));
                (side.over, side.said_close) = (true, true);
            }
            Heard::TooLong => {
                self.count("web: too long");
                side.over = true; // and why is said when it is closed
            }
            Heard::TooManyFragments => {
                self.count("web: too many fragments");
                side.over = true;
            }
        }
    }

    fn web_asked(
        &mut self,
        client: usize,
        context: &Context<'_>,
        side: &mut Side,
        path: &str,
        expected: &mut Vec<(String, bool)>,
    ) {
        let standing = context.standing;
        side.over |= standing.is_spare && !standing.is_draining; // that was its one question
        let what = match path {
            "/healthz" if standing.is_draining => {
                self.count("web: told of draining");
                if self.stopped_at.is_none() {
                    self.count("web: told of draining in the delay");
                }
                "<503>draining\n".to_string()
            }
            "/healthz" => {
                self.count("web: told that all is well");
                "<200>ok\n".to_string()
            }
            _ if standing.is_spare => {
                side.over = true;
                self.count("web: refused to whoever may only ask");
                let full = format!("<503>full: {}\n", Close::Full.sentence(&self.limits));
                if standing.is_draining { "<503>shutdown: the server stops\n".to_string() } else { full }
            }
            "/echo" => {
                side.role = Role::Echo;
                self.count("web: sockets that echo");
                SWITCHED.to_string()
            }
            "/chat" => {
                side.role = Role::Chat;
                self.count("web: sockets that chat");
                let node = self.clients[client].node.expect("it is connected");
                self.nodes[node].pipe().chats = true;
                expected.push((SWITCHED.to_string(), false));
                self.chat_opened(client)
            }
            _ => "<404>\n".to_string(),
        };
        expected.push((what, false));
    }

    fn web_closing(&mut self, side: &mut Side, close: Close, has_begun: bool, expected: &mut Vec<(String, bool)>) {
        let code = match close {
            Close::Bye => 1000,
            Close::Shutdown => 1001,
            Close::MessageTooLong => 1009,
            Close::MemoryFull => 1013,
            Close::Idle | Close::Heartbeat | Close::Slow => 1008,
            _ => 0,
        };
        if side.role != Role::Http && !side.said_close {
            let sentence = format!("{}: {}", close.word(), close.sentence(&self.limits));
            expected.push((format!("<close {code}>{}\n", sentence.escape_default()), false));
            self.count("web: told why by a close frame");
        } else if side.role == Role::Http
            && !side.over
            && (has_begun || matches!(close, Close::Full | Close::MemoryFull))
        {
            let why = format!("<503>{}: {}\n", close.word(), close.sentence(&self.limits));
            expected.push((if close == Close::Idle { "<408>\n".to_string() } else { why }, false));
        }
        (side.over, side.said_close) = (true, true);
    }

    /// The loop has ended. Only if its time was up, it has not let in who still waits at the monitors' door.
    pub(crate) fn web_door_is_left(&mut self) {
        self.ended = true;
        let door = self.listeners[Service::Health.door()];
        let Kind::Listener(waiting) = &mut self.nodes[door].kind else { panic!("not a listener") };
        let waiting = std::mem::take(waiting);
        if !self.nodes[door].dropped {
            let time_is_up = self.stopped_at.is_some_and(|at| self.now >= at + self.limits.drain);
            assert!(time_is_up, "the door of the monitors was never closed");
            self.count("web: the time was up before the monitors' door was closed");
        }
        for left in waiting {
            self.reset(left);
        }
    }

    /// Somebody who is there is more than a monitor, so that monitors go on.
    /// Whoever comes when their door closes comes too late for that.
    pub(crate) fn web_awaits(&self, came_before: usize) -> Option<usize> {
        let streams = self.keys.values().filter_map(|node| match &self.nodes[*node].kind {
            Kind::Stream(pipe) if pipe.accepted_in_turn < came_before => Some(pipe.client),
            _ => None,
        });
        let mut others = streams.filter(|client| !self.web_outlasts(*client));
        others.next()
    }

    /// Only asks how the server is: nobody waits for its end.
    fn web_outlasts(&self, client: usize) -> bool {
        let side = self.webs.get(&client);
        self.clients[client].service.is_web() && side.is_none_or(|side| side.role == Role::Http)
    }

    /// Was told that only who asks how the server is is answered.
    pub(crate) fn web_was_refused(&self, client: usize) -> bool {
        self.webs.get(&client).is_some_and(|side| side.over)
    }

    /// Whether somebody is there who has not been told the end, and of whom everything was heard that was read.
    pub(crate) fn web_goes_on(&self) -> bool {
        self.keys.values().any(|node| match &self.nodes[*node].kind {
            Kind::Stream(pipe) => !self.clients[pipe.client].is_told() && !pipe.error_seen && !pipe.held,
            _ => false,
        })
    }
}
