//! Echo over TCP: by line, or byte for byte. Pure: bytes in, answers into the outbox.

use super::text::{Speaker, Text};
use super::{Context, Protocol};

/// `echo: LINE` for each line. The machine of the service `echo`.
pub type LineEcho = Text<EchoLine>;

/// Says each line back.
#[derive(Debug, Default)]
pub struct EchoLine;

impl Speaker for EchoLine {
    fn line(&mut self, context: &mut Context<'_>, line: &[u8]) {
        context.outbox.push(b"echo: ");
        context.outbox.push(line);
        context.outbox.push(b"\n");
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
