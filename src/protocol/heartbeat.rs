//! The heartbeat: who is silent is asked for a sign of life, and who gives none is gone. A machine of its own that every
//! text service carries. Pure.

use super::Context;
use crate::close::Close;
use crate::limits::{Heartbeat as Mode, Limits};

/// The state of one peer's heartbeat.
///
/// ```text
/// silent for `heartbeat_interval`          -> PING, wait `heartbeat_timeout`
/// still silent, fewer than retries asked   -> PING, wait `heartbeat_timeout`
/// still silent                             -> closed, `heartbeat`
/// any byte, at any time                    -> from the beginning
/// ```
#[derive(Debug, Default)]
pub struct Heartbeat {
    /// Has said PING or PONG itself, so it will understand ours.
    spoke: bool,
    /// PINGs sent since it was last heard.
    asked: u32,
}

impl Heartbeat {
    /// Of a peer whose protocol has PING and PONG of its own, so that it needs not say them first.
    pub fn spoken() -> Heartbeat {
        Heartbeat { spoke: true, asked: 0 }
    }

    /// Whether this peer is probed.
    fn probes(&self, limits: &Limits) -> bool {
        match limits.heartbeat {
            Mode::Auto => self.spoke,
            Mode::All => true,
            Mode::Off => false,
        }
    }

    /// The peer was heard, or the connection has just begun.
    pub fn heard(&mut self, context: &mut Context<'_>) {
        self.asked = 0;
        if self.probes(context.limits) {
            *context.deadline = Some(context.now + context.limits.heartbeat_interval);
        }
    }

    /// Takes a line that is heartbeat, and answers it. Returns whether it was.
    pub fn takes(&mut self, context: &mut Context<'_>, line: &[u8]) -> bool {
        match line {
            b"PING" => context.outbox.push(b"PONG\n"),
            b"PONG" => (), // a sign of life, never answered: two servers must not chat for ever
            _ => return false,
        }
        if !self.spoke {
            self.spoke = true;
            self.heard(context);
        }
        true
    }

    /// The deadline has come. `ping` is how this peer is asked.
    pub fn expired(&mut self, context: &mut Context<'_>, ping: &[u8]) {
        if self.asked > context.limits.heartbeat_retries {
            context.close(Close::Heartbeat);
            return;
        }
        self.asked += 1;
        context.outbox.push(ping);
        *context.deadline = Some(context.now + context.limits.heartbeat_timeout);
    }
}
