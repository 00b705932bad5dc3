//! What all text services share: lines, the heartbeat, the last line that says why. A service adds what it does with a line.
//! Pure.

use super::heartbeat::Heartbeat;
use super::{Context, Protocol};
use crate::close::Close;
use crate::wire::line::{Line, LineDecoder};
use std::net::SocketAddr;

/// What a text service does.
pub trait Speaker {
    /// Somebody is there. Says nothing by default.
    fn opened(&mut self, context: &mut Context<'_>) {
        let _ = context;
    }

    /// A line has come that is not heartbeat, without its end and whatever its bytes.
    fn line(&mut self, context: &mut Context<'_>, line: &[u8]);
}

/// The machine of a text service: `PING` is answered with `PONG`, a line over the limit ends the connection, and everything
/// else goes to the [`Speaker`].
#[derive(Debug, Default)]
pub struct Text<S> {
    speaker: S,
    lines: LineDecoder,
    heartbeat: Heartbeat,
}

impl<S: Speaker> Text<S> {
    fn line(&mut self, context: &mut Context<'_>, line: &[u8]) {
        context.metrics.messages += 1;
        if !self.heartbeat.takes(context, line) {
            self.speaker.line(context, line);
        }
    }
}

impl<S: Speaker> Protocol for Text<S> {
    fn opened(&mut self, context: &mut Context<'_>, _: SocketAddr) {
        self.heartbeat.heard(context);
        self.speaker.opened(context);
    }

    fn bytes(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> usize {
        self.heartbeat.heard(context);
        let mut consumed = 0;
        while !context.is_full() {
            match self.lines.next(&bytes[consumed..], context.limits.max_line_bytes) {
                Line::Whole { line, used } => {
                    self.line(context, line);
                    consumed += used;
                    if context.is_closing() {
                        return bytes.len();
                    }
                }
                Line::Unfinished => break,
                Line::TooLong => {
                    context.close(Close::TooLong);
                    return bytes.len();
                }
            }
        }
        consumed
    }

    fn ended(&mut self, context: &mut Context<'_>, rest: &[u8]) {
        if !rest.is_empty() {
            self.line(context, rest);
        }
    }

    fn expired(&mut self, context: &mut Context<'_>) {
        self.heartbeat.expired(context, b"PING\n");
    }

    fn closing(&mut self, context: &mut Context<'_>, close: Close) {
        context.tell(close);
    }
}
