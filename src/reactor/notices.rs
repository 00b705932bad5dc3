//! Log lines that a peer could cause at will, each kind at most once in a while, with the number of those left out.

use crate::time::Moment;
use log::Level;
use std::fmt;
use std::time::Duration;

/// The kinds. One is held back only by its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `accept` ran out of something.
    Accept,
    /// A connection over a limit.
    Full,
    /// A line over the limit.
    TooLong,
    /// A peer that takes nothing.
    Stalled,
    /// A datagram that was not for us.
    Datagram,
    /// The kernel would not watch or end a socket.
    Socket,
}

#[derive(Clone, Copy, Debug, Default)]
struct Said {
    last: Option<Moment>,
    left_out: u64,
}

/// Remembers when each kind was last said.
#[derive(Debug)]
pub(crate) struct Notices {
    repeat: Duration,
    said: [Said; 6],
}

impl Notices {
    pub(crate) fn new(repeat: Duration) -> Notices {
        Notices { repeat, said: Default::default() }
    }

    /// Logs `text`, or counts it if one of its kind was logged less than the repeat time ago. Returns whether it was logged.
    pub(crate) fn say(&mut self, now: Moment, kind: Kind, level: Level, text: fmt::Arguments<'_>) -> bool {
        let said = &mut self.said[kind as usize];
        if said.last.is_some_and(|last| now - last < self.repeat) {
            said.left_out += 1;
            return false;
        }
        said.last = Some(now);
        match std::mem::take(&mut said.left_out) {
            0 => log::log!(level, "{text}"),
            more => log::log!(level, "{text} ({more} more like this were left out)"),
        }
        true
    }

    /// At the end: what was left out and never mentioned.
    pub(crate) fn finish(&mut self) {
        let left_out: u64 = self.said.iter_mut().map(|said| std::mem::take(&mut said.left_out)).sum();
        if left_out > 0 {
            log::info!("{left_out} repeated log lines were left out");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_said_once_in_the_repeat_time() {
        let mut notices = Notices::new(Duration::from_secs(5));
        let said = |notices: &mut Notices, micros, kind| {
            notices.say(Moment::START + Duration::from_micros(micros), kind, Level::Info, format_args!("x"))
        };
        assert!(said(&mut notices, 0, Kind::Full));
        assert!(!said(&mut notices, 4_999_999, Kind::Full));
        assert!(said(&mut notices, 4_999_999, Kind::Stalled), "another kind");
        assert_eq!(notices.said[Kind::Full as usize].left_out, 1);
        assert!(said(&mut notices, 5_000_000, Kind::Full));
        assert_eq!(notices.said[Kind::Full as usize].left_out, 0);
    }
}
