//! What happened, counted: plain numbers that the loop and the machines add to, and their line for the end of the log.
//! Touches nothing.

pub mod report;

use crate::close::Close;
use std::fmt;
use std::time::Duration;

/// Counters since the start. They only grow, but for those that say `open`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Times the loop went round.
    pub turns: u64,
    /// How long turns took, each from the return of its poll to the next; the one that is going on is not among them.
    pub turn: Histogram,
    /// Connections by service, each at the number that slots hold.
    pub services: Vec<ServiceCount>,
    /// Connections accepted and served.
    pub accepted: u64,
    /// Connections accepted over the limit, told so and closed.
    pub refused: u64,
    /// Connections open now and counted against the limit.
    pub open: usize,
    /// Connections over the limit that are still open and may ask how the server is.
    pub spare_open: usize,
    /// Connections over the limit that are still open and have been told so.
    pub refused_open: usize,
    /// Ended connections by the reason, refused ones among them; see [`Metrics::closed`].
    pub(crate) closes: [u64; Close::ALL.len()],
    /// `accept` calls that failed because descriptors or memory had run out.
    pub accept_exhausted: u64,
    /// `accept` calls that failed because of one connection: it had gone, or a firewall forbade it.
    pub accept_passing: u64,
    /// Input and output that waited when the loop last went to sleep, in bytes; the logs of the rooms are not among it.
    pub queued_bytes: usize,
    /// HTTP requests of another site's page, or for a name that is not ours: refused.
    pub foreign_requests: u64,
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
    /// Files taken in whole, those that were there already among them.
    pub files_stored: u64,
    /// Files sent to their end.
    pub files_sent: u64,
    /// Requests about files that were refused or failed.
    pub files_failed: u64,
    /// Bytes of files received.
    pub file_bytes_in: u64,
    /// Bytes of files sent.
    pub file_bytes_out: u64,
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

/// The connections of one service, spare ones among them, refused ones not. A service of datagrams has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceCount {
    /// The service's name in the log.
    pub name: &'static str,
    /// Connections open now.
    pub open: usize,
    /// Connections accepted and served.
    pub accepted: u64,
}

impl ServiceCount {
    /// A service that has had no connections yet.
    pub fn new(name: &'static str) -> ServiceCount {
        ServiceCount { name, open: 0, accepted: 0 }
    }
}

impl Metrics {
    /// Counts a connection that is served from here on, in all and for its service, so that the two cannot differ. Against
    /// which limit it is open, the caller knows.
    pub(crate) fn opened(&mut self, service: u8) {
        let count = &mut self.services[service as usize];
        count.open += 1;
        count.accepted += 1;
        self.accepted += 1;
    }

    /// Counts one of those out of its service again; why it ended is counted when it is buried.
    pub(crate) fn left(&mut self, service: u8) {
        self.services[service as usize].open -= 1;
    }

    /// How many connections ended for this reason.
    pub fn closed(&self, close: Close) -> u64 {
        self.closes[close as usize]
    }

    /// How many connections ended, refused ones among them.
    pub fn closed_in_all(&self) -> u64 {
        self.closes.iter().sum()
    }

    /// How many connections ended, refused ones among them, by the word of the reason: each word once, though reasons may
    /// share one.
    pub fn closed_by_word(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let first = |close: Close| Close::ALL.into_iter().find(|other| other.word() == close.word());
        let same = |close: Close| Close::ALL.into_iter().filter(move |other| other.word() == close.word());
        let words = Close::ALL.into_iter().filter(move |close| first(*close) == Some(*close));
        words.map(move |close| (close.word(), same(close).map(|same| self.closed(same)).sum()))
    }
}

impl fmt::Display for Metrics {
    /// One line, for the end of the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} connections, {} refused", self.accepted, self.refused)?;
        for (word, count) in self.closed_by_word().filter(|(_, count)| *count > 0) {
            write!(f, ", {count} {word}")?;
        }
        write!(f, "; {} bytes in, {} out; ", self.bytes_in, self.bytes_out)?;
        write!(f, "{} said, {} missed; ", self.published, self.missed)?;
        write!(f, "{} datagrams, {} answered; {} turns", self.datagrams_in, self.datagrams_answered, self.turns)
    }
}

/// How often something took how long. Adding to it touches two numbers; the sums that its readers want are made for them.
///
/// ```
/// use oneloop::metrics::Histogram;
/// use std::time::Duration;
///
/// let mut turn = Histogram::default();
/// turn.add(Duration::from_micros(50)); // a bound belongs to the bucket below it
/// turn.add(Duration::from_secs(2));
/// let at_most: Vec<_> = turn.cumulated().collect();
/// assert_eq!((at_most[0], at_most[12], at_most[13]), ((Some(50), 1), (Some(1_000_000), 1), (None, 2)));
/// assert_eq!(turn.sum_micros(), 2_000_050);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Not cumulated; the last one is for what is beyond all bounds.
    counts: [u64; Histogram::BOUNDS_MICROS.len() + 1],
    sum_micros: u64,
}

impl Histogram {
    /// The largest span of each bucket but the last, in microseconds. From what a turn with little to do takes to a second,
    /// which no turn's budgets fill: beyond it something blocked, or the machine was suspended. Steps of two to two and a
    /// half (the last, where all is too long, of four) say well enough where a quantile lies.
    pub const BOUNDS_MICROS: [u64; 13] =
        [50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000];

    /// Counts `span`, in whole microseconds as moments are.
    pub fn add(&mut self, span: Duration) {
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        self.counts[Histogram::BOUNDS_MICROS.partition_point(|bound| *bound < micros)] += 1;
        self.sum_micros = self.sum_micros.saturating_add(micros); // full after 584,000 years of work
    }

    /// How many spans were added.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All spans together, in microseconds.
    pub fn sum_micros(&self) -> u64 {
        self.sum_micros
    }

    /// For each bound in microseconds how many spans were at most that; last without a bound, and so all of them.
    pub fn cumulated(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let bounds = Histogram::BOUNDS_MICROS.into_iter().map(Some).chain([None]);
        bounds.zip(self.counts).scan(0, |sum, (bound, count)| {
            *sum += count;
            Some((bound, *sum))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_each_span_in_every_bucket_that_holds_it() {
        let mut histogram = Histogram::default();
        let mut spans = vec![0, 1, 49, 51, 3_000_000];
        for bound in Histogram::BOUNDS_MICROS {
            spans.extend([bound - 1, bound, bound + 1]);
        }
        for span in &spans {
            histogram.add(Duration::from_micros(*span));
        }
        for (bound, count) in histogram.cumulated() {
            let at_most = spans.iter().filter(|span| bound.is_none_or(|bound| **span <= bound)).count();
            assert_eq!(count, at_most as u64, "at most {bound:?}");
        }
        assert_eq!(histogram.cumulated().last(), Some((None, histogram.count())));
        assert_eq!(histogram.count(), spans.len() as u64);
        assert_eq!(histogram.sum_micros(), spans.iter().sum::<u64>());
    }

    #[test]
    fn bounds_ascend_and_a_sum_saturates() {
        assert!(Histogram::BOUNDS_MICROS.is_sorted_by(|low, high| low < high));
        let mut histogram = Histogram::default();
        histogram.add(Duration::MAX);
        histogram.add(Duration::from_nanos(50_999)); // whole microseconds
        assert_eq!((histogram.sum_micros(), histogram.count()), (u64::MAX, 2));
        assert_eq!(histogram.cumulated().next(), Some((Some(50), 1)));
    }

    #[test]
    fn connections_are_counted_in_all_and_for_their_service() {
        let mut metrics = Metrics { services: ["echo", "chat"].map(ServiceCount::new).into(), ..Metrics::default() };
        for service in [0, 1, 1, 1] {
            metrics.opened(service);
        }
        metrics.left(1);
        let counts: Vec<_> = metrics.services.iter().map(|service| (service.open, service.accepted)).collect();
        assert_eq!(counts, [(1, 1), (2, 3)]);
        assert_eq!(metrics.accepted, 4);
    }

    #[test]
    fn each_word_of_a_close_stands_once_with_all_its_reasons() {
        let mut metrics = Metrics::default();
        for close in Close::ALL {
            metrics.closes[close as usize] = 1 << (close as u8);
        }
        let by_word: Vec<_> = metrics.closed_by_word().collect();
        for close in Close::ALL {
            assert_eq!(by_word.iter().filter(|(word, _)| *word == close.word()).count(), 1, "{close}");
        }
        assert_eq!(by_word.iter().map(|(_, count)| count).sum::<u64>(), metrics.closed_in_all());
        let full = metrics.closed(Close::Full) + metrics.closed(Close::MemoryFull);
        assert!(by_word.contains(&("full", full)));
    }
}
