//! Why a connection ends: one enum whose word is the same in the log, in the metrics and in what the peer is told.
//! Touches nothing.

use crate::limits::Limits;
use std::fmt;

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Close {
    /// The peer closed, or asked to.
    Bye,
    /// No byte was received for the idle timeout.
    Idle,
    /// No whole HTTP request came in time. The word is `idle` too.
    RequestLate,
    /// No sign of life after all retries of the heartbeat.
    Heartbeat,
    /// The peer was owed bytes and took none for the write timeout.
    Stalled,
    /// Fell out of its room's log under `--slow-reader disconnect`.
    Slow,
    /// A line over its limit.
    TooLong,
    /// A WebSocket message over its limits. The word is `too_long` too.
    MessageTooLong,
    /// The head of an HTTP request over its limits. The word is `too_long` too.
    HeadTooLong,
    /// A limit on connections was reached.
    Full,
    /// Unfinished lines fill their share of the memory budget. The word is `full` too.
    MemoryFull,
    /// A transfer in which nothing moved. The word is `idle` too.
    NoProgress,
    /// The machine has said in words of its own what it does not do.
    Refused,
    /// Not what this service speaks.
    Protocol,
    /// The server stops.
    Shutdown,
    /// The system said so; the log has its words.
    Error,
}

impl Close {
    /// All of them, in the order of their numbers.
    pub const ALL: [Close; 16] = [
        Close::Bye,
        Close::Idle,
        Close::RequestLate,
        Close::Heartbeat,
        Close::Stalled,
        Close::Slow,
        Close::TooLong,
        Close::MessageTooLong,
        Close::HeadTooLong,
        Close::Full,
        Close::MemoryFull,
        Close::NoProgress,
        Close::Refused,
        Close::Protocol,
        Close::Shutdown,
        Close::Error,
    ];

    /// The one word for it.
    pub fn word(self) -> &'static str {
        match self {
            Close::Bye => "bye",
            Close::Idle | Close::RequestLate | Close::NoProgress => "idle",
            Close::Heartbeat => "heartbeat",
            Close::Stalled => "stalled",
            Close::Slow => "slow",
            Close::TooLong | Close::MessageTooLong | Close::HeadTooLong => "too_long",
            Close::Full | Close::MemoryFull => "full",
            Close::Refused => "refused",
            Close::Protocol => "protocol",
            Close::Shutdown => "shutdown",
            Close::Error => "error",
        }
    }

    /// The sentence that a person is told after the word, with the limit in it.
    ///
    /// ```
    /// use oneloop::{close::Close, limits::Limits};
    ///
    /// let told = format!("ERROR {}: {}", Close::TooLong.word(), Close::TooLong.sentence(&Limits::default()));
    /// assert_eq!(told, "ERROR too_long: line longer than 65536 bytes");
    /// ```
    pub fn sentence(self, limits: &Limits) -> impl fmt::Display + '_ {
        Sentence { close: self, limits }
    }
}

impl fmt::Display for Close {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

struct Sentence<'a> {
    close: Close,
    limits: &'a Limits,
}

impl fmt::Display for Sentence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limits = self.limits;
        match self.close {
            Close::Bye => write!(f, "goodbye"),
            Close::Idle => write!(f, "nothing received for {:?}", limits.idle_timeout.unwrap_or_default()),
            Close::RequestLate => write!(f, "no whole request within {:?}", limits.head_timeout),
            Close::Heartbeat => write!(f, "no sign of life after {} PINGs", limits.heartbeat_retries + 1),
            Close::Stalled => write!(f, "nothing taken for {:?}", limits.write_timeout),
            Close::Slow => write!(f, "more than {} bytes behind", limits.room_log_bytes),
            Close::TooLong => write!(f, "line longer than {} bytes", limits.max_line_bytes),
            Close::MessageTooLong => {
                let (bytes, frames) = (limits.max_line_bytes, limits.max_fragments);
                write!(f, "message longer than {bytes} bytes or in more than {frames} frames")
            }
            Close::HeadTooLong => {
                let (bytes, lines) = (limits.max_head_bytes, limits.max_headers);
                write!(f, "head longer than {bytes} bytes or of more than {lines} lines")
            }
            Close::Full => write!(f, "{} connections", limits.max_connections),
            Close::MemoryFull => write!(f, "unfinished lines fill {} bytes", limits.memory_bytes / 2),
            Close::NoProgress => write!(f, "no progress for {:?}", limits.files_progress),
            Close::Refused => write!(f, "see the line before"),
            Close::Protocol => write!(f, "not what this service speaks"),
            Close::Shutdown => write!(f, "the server stops"),
            Close::Error => write!(f, "the system said so"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_stands_at_its_own_number() {
        for (number, close) in Close::ALL.into_iter().enumerate() {
            assert_eq!(close as usize, number);
        }
    }
}
