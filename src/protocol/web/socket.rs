//! The machine of a WebSocket once it is open: frames to messages, a ping for a heartbeat, a close frame for the last word; and
//! what is done with a message: it goes back, or a person in a chat has said it. Pure.

use crate::close::Close;
use crate::protocol::Context;
use crate::protocol::chat::Person;
use crate::protocol::heartbeat::Heartbeat;
use crate::protocol::text::Speaker;
use crate::wire::Format;
use crate::wire::websocket::{CONTROL_MAX, Header, Mask, Opcode, Violation, is_close_code, push_frame};

/// A ping without a payload.
const PING: &[u8] = b"\x89\x00";

/// What is done with messages.
#[derive(Debug)]
pub(super) enum Role {
    /// They go back as they came.
    Echo,
    /// Each is a line that is said in a room.
    Chat(Person),
}

/// A data frame of which the payload is coming.
#[derive(Debug)]
struct Frame {
    is_last: bool,
    left: u64,
    mask: Mask,
}

/// A message that is coming. Its bytes wait in `Context::message`.
#[derive(Debug)]
struct Message {
    opcode: Opcode,
    fragments: u32,
    /// The first so many of its bytes are UTF-8, if it is a text.
    valid: usize,
}

/// Why a WebSocket ends that is not as RFC 6455 has it, by the numbers of its section 7.4.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wrong {
    code: u16,
    close: Close,
    /// What the peer is told, where the sentence of `close` would not tell enough.
    why: &'static str,
}

impl From<Violation> for Wrong {
    fn from(violation: Violation) -> Wrong {
        Wrong { code: 1002, close: Close::Protocol, why: violation.0 }
    }
}

fn violation(why: &'static str) -> Wrong {
    Violation(why).into()
}

/// An open WebSocket.
#[derive(Debug)]
pub(super) struct Socket {
    role: Role,
    heartbeat: Heartbeat,
    frame: Option<Frame>,
    message: Option<Message>,
    /// Has sent its close frame, or need not: nothing follows it.
    said_close: bool,
}

impl Socket {
    /// The handshake is done: whoever is there is greeted, and its heartbeat begins.
    pub(super) fn open(role: Role, context: &mut Context<'_>) -> Socket {
        let heartbeat = Heartbeat::spoken();
        let mut socket = Socket { role, heartbeat, frame: None, message: None, said_close: false };
        *context.deadline = None;
        socket.heartbeat.heard(context);
        if let Role::Chat(person) = &mut socket.role {
            speak(context, |context| person.opened(context));
        }
        socket
    }

    /// Takes every frame that is there; of a data frame also what is there of it.
    pub(super) fn bytes(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> usize {
        self.heartbeat.heard(context);
        let mut consumed = 0;
        while !context.is_full() {
            match self.step(context, &bytes[consumed..]) {
                Ok(0) => break,
                Ok(used) => consumed += used,
                Err(wrong) => self.fail(context, wrong),
            }
            if context.is_closing() {
                return bytes.len();
            }
        }
        consumed
    }

    /// The next frame, or what is there of its payload. Returns how many bytes that took: none, if there is too little.
    fn step(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Result<usize, Wrong> {
        if self.frame.is_some() {
            return self.payload(context, bytes);
        }
        let Some((header, used)) = Header::read(bytes)? else { return Ok(0) };
        let mask = header.mask.ok_or(violation("a frame that is not masked"))?;
        if header.opcode.is_control() {
            // Small, so it waits until it is whole: what it stands between is not touched.
            let end = used + header.len as usize;
            let Some(masked) = bytes.get(used..end) else { return Ok(0) };
            let mut payload = [0; CONTROL_MAX];
            let payload = &mut payload[..masked.len()];
            payload.copy_from_slice(masked);
            let mut mask = mask;
            mask.apply(payload);
            self.control(context, header.opcode, payload)?;
            return Ok(end);
        }
        self.begin(context, &header)?;
        self.frame = Some(Frame { is_last: header.is_last, left: header.len, mask });
        Ok(used + self.payload(context, &bytes[used..])?)
    }

    /// A data frame begins: judged before a byte of it is kept.
    fn begin(&mut self, context: &mut Context<'_>, header: &Header) -> Result<(), Wrong> {
        let limits = context.limits;
        let too_long = Wrong { code: 1009, close: Close::MessageTooLong, why: "" };
        let message = match (&mut self.message, header.opcode) {
            (Some(message), Opcode::Continuation) => {
                message.fragments += 1;
                message
            }
            (Some(_), _) => return Err(violation("a message inside another")),
            (None, Opcode::Continuation) => return Err(violation("a continuation of nothing")),
            (None, opcode) => self.message.insert(Message { opcode, fragments: 1, valid: 0 }),
        };
        if header.len > (limits.max_line_bytes - context.message.len()) as u64 {
            return Err(too_long);
        }
        if message.fragments > limits.max_fragments {
            return Err(too_long);
        }
        if message.opcode == Opcode::Binary && matches!(self.role, Role::Chat(_)) {
            return Err(Wrong { code: 1003, close: Close::Protocol, why: "a chat takes text" });
        }
        Ok(())
    }

    /// More of the data frame's payload; with its end, perhaps, the message's.
    fn payload(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Result<usize, Wrong> {
        let (Some(frame), Some(message)) = (&mut self.frame, &mut self.message) else { return Ok(0) };
        let used = usize::try_from(frame.left).map_or(bytes.len(), |left| left.min(bytes.len()));
        let from = context.message.len();
        context.message.push(&bytes[..used]);
        frame.mask.apply(&mut context.message.as_mut_slice()[from..]);
        frame.left -= used as u64;
        let ended = frame.left == 0;
        let is_whole = ended && frame.is_last;
        if message.opcode == Opcode::Text {
            let valid = utf8_len(&context.message.as_slice()[message.valid..]).map(|more| message.valid + more);
            let valid = valid.filter(|valid| !is_whole || *valid == context.message.len());
            message.valid =
                valid.ok_or(Wrong { code: 1007, close: Close::Protocol, why: "a text that is no UTF-8" })?;
        }
        if ended {
            self.frame = None;
        }
        if is_whole {
            self.whole(context);
        }
        Ok(used)
    }

    fn whole(&mut self, context: &mut Context<'_>) {
        let Some(Message { opcode, .. }) = self.message.take() else { return };
        context.metrics.messages += 1;
        match &mut self.role {
            Role::Echo => push_frame(opcode, context.message.as_slice(), context.outbox),
            Role::Chat(person) => {
                let mut message = std::mem::take(context.message);
                // A message is one line: several could fill the outbox and the room's log past every mark at once.
                message.as_mut_slice().iter_mut().filter(|byte| **byte == b'\n').for_each(|byte| *byte = b' ');
                speak(context, |context| person.line(context, message.as_slice()));
                *context.message = message; // for its memory
            }
        }
        context.message.clear();
    }

    fn control(&mut self, context: &mut Context<'_>, opcode: Opcode, payload: &[u8]) -> Result<(), Wrong> {
        match opcode {
            Opcode::Ping => push_frame(Opcode::Pong, payload, context.outbox),
            Opcode::Close => {
                let code = match payload {
                    [] => None,
                    [high, low, reason @ ..] => {
                        let code = u16::from_be_bytes([*high, *low]);
                        if !is_close_code(code) {
                            return Err(violation("a close frame with a number that means nothing"));
                        }
                        if std::str::from_utf8(reason).is_err() {
                            return Err(Wrong { code: 1007, close: Close::Protocol, why: "a reason that is no UTF-8" });
                        }
                        Some(code)
                    }
                    [_] => return Err(violation("a close frame with half a number")),
                };
                // The same back, and then our end: RFC 6455, section 5.5.1.
                push_frame(Opcode::Close, code.map(u16::to_be_bytes).as_ref().map_or(&[], |code| code), context.outbox);
                self.said_close = true;
                context.close(Close::Bye);
            }
            _ => (), // a pong is a sign of life, and has been taken as one
        }
        Ok(())
    }

    fn fail(&mut self, context: &mut Context<'_>, wrong: Wrong) {
        if !wrong.why.is_empty() {
            self.say_close(context, wrong.code, format_args!("{}: {}", wrong.close, wrong.why));
        }
        context.close(wrong.close);
    }

    /// The peer has ended without a close frame: nobody reads ours.
    pub(super) fn ended(&mut self) {
        self.said_close = true;
    }

    pub(super) fn expired(&mut self, context: &mut Context<'_>) {
        self.heartbeat.expired(context, PING);
    }

    pub(super) fn closing(&mut self, context: &mut Context<'_>, close: Close) {
        let code = match close {
            Close::Bye => 1000,
            Close::Shutdown => 1001,
            Close::Protocol => 1002,
            Close::TooLong | Close::MessageTooLong | Close::HeadTooLong => 1009,
            Close::Full | Close::MemoryFull => 1013, // "try again later", in the registry of RFC 6455
            Close::Error => 1011,
            Close::Idle | Close::RequestLate | Close::NoProgress | Close::Heartbeat | Close::Stalled => 1008,
            Close::Slow | Close::Refused => 1008,
        };
        let limits = context.limits;
        self.say_close(context, code, format_args!("{close}: {}", close.sentence(limits)));
    }

    /// The last frame, once.
    fn say_close(&mut self, context: &mut Context<'_>, code: u16, reason: std::fmt::Arguments<'_>) {
        if std::mem::replace(&mut self.said_close, true) {
            return;
        }
        let mut payload = code.to_be_bytes().to_vec();
        payload.extend(reason.to_string().bytes().take(CONTROL_MAX - 2)); // our own words are ASCII
        push_frame(Opcode::Close, &payload, context.outbox);
    }
}

/// Lets somebody who speaks in lines speak in frames: each line it adds to the outbox becomes one.
fn speak(context: &mut Context<'_>, say: impl FnOnce(&mut Context<'_>)) {
    let outbox = std::mem::take(context.outbox);
    say(context);
    let said = std::mem::replace(context.outbox, outbox);
    for line in said.as_slice().split_inclusive(|byte| *byte == b'\n') {
        Format::Frame.push(line.strip_suffix(b"\n").unwrap_or(line), context.outbox);
    }
}

/// How many of the first `bytes` are whole characters; `None` if what follows can never become one.
fn utf8_len(bytes: &[u8]) -> Option<usize> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text.len()),
        Err(error) => error.error_len().is_none().then_some(error.valid_up_to()),
    }
}
