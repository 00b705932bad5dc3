//! The client's side of a WebSocket: the handshake, masked frames out, plain ones in. Pure; keys and masks come from the context.

use crate::protocol::Context;
use crate::wire::http::accept_key;
use crate::wire::websocket::{CONTROL_MAX, Header, Opcode, push_masked};
use data_encoding::BASE64;
use memchr::memmem;
use std::fmt::Write as _;

/// What stands at the front of the bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// The handshake is done.
    Opened,
    /// A part of a message, perhaps its last.
    Payload { bytes: &'a [u8], ends: bool },
    /// The answer to the ping with this payload.
    Pong(&'a [u8]),
    /// Something that has been dealt with.
    Done,
    /// The server has said its last.
    Closed,
}

/// A frame of a message, of which the payload is coming.
#[derive(Debug)]
struct Frame {
    left: u64,
    is_last: bool,
}

/// One connection's.
#[derive(Debug)]
pub(super) struct Socket {
    /// What the server must show to prove that it read our key; `None` once it has.
    accept: Option<[u8; 28]>,
    frame: Option<Frame>,
    said_close: bool,
    /// What the server gave as its reason to close.
    pub(super) reason: Option<String>,
}

impl Socket {
    /// Asks for a WebSocket.
    pub(super) fn begin(context: &mut Context<'_>, host: &str, path: &str) -> Socket {
        let mut nonce = [0; 16];
        nonce.chunks_exact_mut(8).for_each(|half| half.copy_from_slice(&(context.random)().to_be_bytes()));
        let mut key = [0; 24];
        BASE64.encode_mut(&nonce, &mut key);
        let key = std::str::from_utf8(&key).expect("base64 is ASCII");
        let _ = write!(
            context.outbox,
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        );
        Socket { accept: Some(accept_key(key)), frame: None, said_close: false, reason: None }
    }

    /// Whether frames may be sent.
    pub(super) fn is_open(&self) -> bool {
        self.accept.is_none() && !self.said_close
    }

    /// Sends a whole frame.
    pub(super) fn send(&self, context: &mut Context<'_>, opcode: Opcode, payload: &[u8]) {
        let [a, b, c, d, ..] = (context.random)().to_be_bytes();
        push_masked(opcode, payload, [a, b, c, d], context.outbox);
    }

    /// Says our last; the server will answer with the same.
    pub(super) fn say_close(&mut self, context: &mut Context<'_>) {
        if self.is_open() {
            self.send(context, Opcode::Close, &1000u16.to_be_bytes());
            self.said_close = true;
        }
    }

    /// Takes what stands at the front of `bytes`, and says how many bytes it took; `None` if there is too little.
    ///
    /// # Errors
    /// What the server did that no WebSocket does.
    pub(super) fn step<'a>(
        &mut self,
        context: &mut Context<'_>,
        bytes: &'a [u8],
    ) -> Result<Option<(usize, Step<'a>)>, String> {
        if let Some(accept) = &self.accept {
            let Some(used) = read_answer(bytes, accept, context.limits.max_head_bytes)? else { return Ok(None) };
            self.accept = None;
            return Ok(Some((used, Step::Opened)));
        }
        if let Some(frame) = &mut self.frame {
            let used = usize::try_from(frame.left).map_or(bytes.len(), |left| left.min(bytes.len()));
            frame.left -= used as u64;
            let ended = frame.left == 0;
            let ends = ended && frame.is_last;
            if used == 0 && !ended {
                return Ok(None);
            }
            if ended {
                self.frame = None;
            }
            return Ok(Some((used, Step::Payload { bytes: &bytes[..used], ends })));
        }
        let header = Header::read(bytes).map_err(|violation| format!("the server sent {}", violation.0))?;
        let Some((header, used)) = header else { return Ok(None) };
        if header.mask.is_some() {
            return Err("the server sent a masked frame".to_string());
        }
        if !header.opcode.is_control() {
            self.frame = Some(Frame { left: header.len, is_last: header.is_last });
            return Ok(Some((used, Step::Done)));
        }
        let end = used + header.len as usize; // a control frame is short: `Header::read` has seen to that
        let Some(payload) = bytes.get(used..end) else { return Ok(None) };
        debug_assert!(payload.len() <= CONTROL_MAX);
        let step = match header.opcode {
            Opcode::Ping => {
                if self.is_open() {
                    self.send(context, Opcode::Pong, payload);
                }
                Step::Done
            }
            Opcode::Close => {
                let reason = payload.get(2..).map(|reason| String::from_utf8_lossy(reason).into_owned());
                self.reason = reason.filter(|reason| !reason.is_empty());
                self.say_close(context);
                Step::Closed
            }
            _ => Step::Pong(payload),
        };
        Ok(Some((end, step)))
    }
}

/// The head of the server's answer, and how many bytes it takes; `None` if it is not all there.
fn read_answer(bytes: &[u8], accept: &[u8], max_bytes: usize) -> Result<Option<usize>, String> {
    let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
        let is_http = bytes.iter().zip(b"HTTP/1.").all(|(byte, expected)| byte == expected);
        return match bytes.len() > max_bytes || !is_http {
            true => Err("what answers there does not speak HTTP".to_string()),
            false => Ok(None),
        };
    };
    let head = String::from_utf8_lossy(&bytes[..end]);
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    if !status.starts_with("HTTP/1.1 101") {
        let shown: String = status.chars().filter(|char| !char.is_control()).take(80).collect();
        return Err(format!("the server answered {shown:?} instead of opening a WebSocket"));
    }
    let proof = lines.filter_map(|line| line.split_once(':')).find(|(name, _)| {
        name.eq_ignore_ascii_case("Sec-WebSocket-Accept") // RFC 6455, section 4.1, says what else may be looked at
    });
    if proof.is_none_or(|(_, value)| value.trim().as_bytes() != accept) {
        return Err("the server did not prove that it read our key: is it a WebSocket server?".to_string());
    }
    Ok(Some(end + 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCEPT: &[u8] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

    fn answer(text: &str) -> Result<Option<usize>, String> {
        read_answer(text.as_bytes(), ACCEPT, 200)
    }

    #[test]
    fn only_the_servers_proof_opens() {
        let good =
            "HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept:  s3pPLMBiTxaQ9kYGzzhZRbK+xOo= \r\nX: y\r\n\r\n";
        assert_eq!(answer(&format!("{good}\u{1}")), Ok(Some(good.len())));
        for cut in 0..good.len() {
            assert_eq!(answer(&good[..cut]), Ok(None), "at {cut}");
        }
        for (wrong, why) in [
            ("HTTP/1.1 404 Not Found\r\n\r\n".to_string(), "404 Not Found"),
            (good.replace("s3p", "S3p"), "did not prove"),
            (good.replace("accept", "accepts"), "did not prove"),
            ("ERROR protocol: not what".to_string(), "does not speak HTTP"),
            (format!("HTTP/1.1 101 {}", "x".repeat(200)), "does not speak HTTP"),
        ] {
            assert!(answer(&wrong).unwrap_err().contains(why), "{wrong:?}");
        }
    }
}
