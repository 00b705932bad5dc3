//! Echo over TCP: by line, or byte for byte. Pure: bytes in, answers into the outbox.

use super::heartbeat::Heartbeat;
use super::{Context, Protocol};
use crate::close::Close;
use crate::wire::line::{Line, LineDecoder};
use std::net::SocketAddr;

/// `echo: LINE` for each line; `PONG` for `PING`. The machine of the service `echo`.
#[derive(Debug, Default)]
pub struct LineEcho {
    lines: LineDecoder,
    heartbeat: Heartbeat,
}

impl LineEcho {
    fn answer(&mut self, context: &mut Context<'_>, line: &[u8]) {
        context.metrics.messages += 1;
        if !self.heartbeat.takes(context, line) {
            context.outbox.push(b"echo: ");
            context.outbox.push(line);
            context.outbox.push(b"\n");
        }
    }
}

impl Protocol for LineEcho {
    fn opened(&mut self, context: &mut Context<'_>, _: SocketAddr) {
        self.heartbeat.heard(context);
    }

    fn bytes(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> usize {
        self.heartbeat.heard(context);
        let mut consumed = 0;
        while !context.is_full() {
            match self.lines.next(&bytes[consumed..], context.limits.max_line_bytes) {
                Line::Whole { line, used } => {
                    self.answer(context, line);
                    consumed += used;
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
            self.answer(context, rest);
        }
    }

    fn expired(&mut self, context: &mut Context<'_>) {
        self.heartbeat.expired(context);
    }

    fn closing(&mut self, context: &mut Context<'_>, close: Close) {
        context.tell(close);
    }
}

/// The same bytes back. The machine of the service `raw`.
#[derive(Debug, Default)]
pub struct RawEcho;

impl Protocol for RawEcho {
    fn bytes(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> usize {
        context.metrics.messages += 1;
        context.outbox.push(bytes);
        bytes.len()
    }
}
