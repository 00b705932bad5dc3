//! What happened, counted: plain numbers that the loop and the machines add to, and their text. Touches nothing.

use crate::close::Close;
use std::fmt;

/// Counters since the start. They only grow, but for the two that say `open`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Times the loop went round.
    pub turns: u64,
    /// Connections accepted and served.
    pub accepted: u64,
    /// Connections accepted over the limit, told so and closed.
    pub refused: u64,
    /// Connections open now and counted against the limit.
    pub open: usize,
    /// Connections over the limit that are still open.
    pub refused_open: usize,
    /// Ended connections by the reason, refused ones among them; see [`Metrics::closed`].
    pub(crate) closes: [u64; Close::ALL.len()],
    /// `accept` calls that failed because descriptors or memory had run out.
    pub accept_exhausted: u64,
    /// `accept` calls that failed because of one connection: it had gone, or a firewall forbade it.
    pub accept_passing: u64,
    /// Bytes received on connections.
    pub bytes_in: u64,
    /// Bytes sent on connections.
    pub bytes_out: u64,
    /// Lines, or for services without lines reads, that a machine has answered or taken note of.
    pub messages: u64,
    /// Messages that went into a room's log.
    pub published: u64,
    /// Messages of others that members were told they missed.
    pub missed: u64,
    /// What a sender over its ration asked for in vain.
    pub rationed: u64,
    /// Private messages that their receiver had no room for.
    pub private_undelivered: u64,
    /// Times a machine's deadline came due.
    pub expired: u64,
    /// Datagrams received, those that were dropped among them.
    pub datagrams_in: u64,
    /// Datagrams answered.
    pub datagrams_answered: u64,
    /// Datagrams that nobody may answer: empty, itself an answer, from a port or an address that would loop or reflect.
    pub datagrams_ignored: u64,
    /// Datagrams not echoed because their source had its share of this second.
    pub datagrams_limited: u64,
    /// Datagrams over the size limit.
    pub datagrams_too_large: u64,
    /// Answers dropped because the socket would not take them, or the system refused to send them.
    pub datagrams_unsent: u64,
    /// Errors reported by `recv` for an earlier datagram.
    pub datagrams_failed: u64,
}

impl Metrics {
    /// How many connections ended for this reason.
    pub fn closed(&self, close: Close) -> u64 {
        self.closes[close as usize]
    }

    /// How many connections ended, refused ones among them.
    pub fn closed_in_all(&self) -> u64 {
        self.closes.iter().sum()
    }
}

impl fmt::Display for Metrics {
    /// One line, for the end of the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} connections, {} refused", self.accepted, self.refused)?;
        for close in Close::ALL.into_iter().filter(|close| self.closed(*close) > 0) {
            write!(f, ", {} {}", self.closed(close), close.word())?;
        }
        write!(f, "; {} bytes in, {} out; ", self.bytes_in, self.bytes_out)?;
        write!(f, "{} said, {} missed; ", self.published, self.missed)?;
        write!(f, "{} datagrams, {} answered; {} turns", self.datagrams_in, self.datagrams_answered, self.turns)
    }
}
