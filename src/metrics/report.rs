//! What `/metrics` shows: the counters of the loop and what stands beside them, in the text format of Prometheus. Touches
//! nothing; whoever makes a [`Report`] gathers what is in it.

use super::{Histogram, Metrics};
use std::fmt::{self, Display, Formatter};
use std::time::Duration;

/// Everything that `/metrics` shows. Its `Display` is the [text format] of Prometheus, version 0.0.4: base units, and every
/// family with what it means.
///
/// No label ever holds text from a user: all of them are `&'static str`, the names of services and words of our own, so
/// nobody outside can add a series or write into one.
///
/// [text format]: https://prometheus.io/docs/instrumenting/exposition_formats/
#[derive(Clone, Debug)]
pub struct Report<'a> {
    /// The counters.
    pub metrics: &'a Metrics,
    /// Rooms that there are.
    pub rooms: usize,
    /// Members of all rooms.
    pub members: usize,
    /// What the logs of all rooms hold, in bytes.
    pub room_log_bytes: usize,
    /// Notices that the ration or a full log kept back.
    pub notices_dropped: u64,
    /// Input and output that waits and the logs of the rooms, in bytes: what the memory budget bounds.
    pub queued_bytes: usize,
    /// What the process knows of itself.
    pub vitals: Vitals,
    /// Since the start.
    pub uptime: Duration,
}

/// What the process knows of itself, gathered by somebody who may ask the system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// Memory that is in RAM, in bytes; left out where the system does not say.
    pub resident_bytes: Option<u64>,
    /// Open file descriptors; left out where the system does not say.
    pub open_descriptors: Option<u64>,
    /// Log lines that standard error did not take.
    pub log_lines_dropped: u64,
}

impl Report<'_> {
    /// What an answer with this text says of it in its `Content-Type`.
    pub const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    fn connections(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let metrics = self.metrics;
        let open = metrics.services.iter().map(|service| (service.name, service.open));
        let accepted = metrics.services.iter().map(|service| (service.name, service.accepted));
        let failed = [("exhausted", metrics.accept_exhausted), ("passing", metrics.accept_passing)];
        gauge(f, "oneloop_connections_open", "Connections open now, spare ones among them, refused ones not.")?
            .by("service", open)?;
        counter(f, "oneloop_connections_total", "Connections accepted and served.")?.by("service", accepted)?;
        gauge(f, "oneloop_connections_spare_open", "Connections over the limit that may ask how the server is.")?
            .is(metrics.spare_open)?;
        gauge(f, "oneloop_connections_refused_open", "Refused connections that are still open.")?
            .is(metrics.refused_open)?;
        counter(f, "oneloop_connections_refused_total", "Connections accepted over the limit, told so and closed.")?
            .is(metrics.refused)?;
        counter(f, "oneloop_closes_total", "Connections that ended, refused ones among them.")?
            .by("reason", metrics.closed_by_word())?;
        counter(f, "oneloop_accept_errors_total", "Accepts that failed: no descriptor or memory left, or in passing.")?
            .by("kind", failed)?;
        counter(f, "oneloop_received_bytes_total", "Bytes received on connections; datagrams are not among them.")?
            .is(metrics.bytes_in)?;
        counter(f, "oneloop_sent_bytes_total", "Bytes sent on connections; datagrams are not among them.")?
            .is(metrics.bytes_out)?;
        counter(
            f,
            "oneloop_foreign_requests_total",
            "HTTP requests of other sites' pages or for other hosts, refused.",
        )?
        .is(metrics.foreign_requests)?;
        counter(f, "oneloop_deadlines_expired_total", "Deadlines of services that came due, heartbeats among them.")?
            .is(metrics.expired)
    }

    fn messages(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let metrics = self.metrics;
        counter(
            f,
            "oneloop_messages_received_total",
            "Lines, WebSocket messages and HTTP requests that were taken note of; reads, where there are none of these.",
        )?
        .is(metrics.messages)?;
        counter(f, "oneloop_messages_published_total", "Messages said in rooms.")?.is(metrics.published)?;
        counter(f, "oneloop_messages_missed_total", "Messages that slow members were told they missed.")?
            .is(metrics.missed)?;
        counter(f, "oneloop_messages_rationed_total", "Requests dropped because their sender was over its ration.")?
            .is(metrics.rationed)?;
        counter(f, "oneloop_private_undelivered_total", "Private messages that their receiver had no room for.")?
            .is(metrics.private_undelivered)?;
        counter(f, "oneloop_notices_dropped_total", "Notices to rooms that the ration or a full log kept back.")?
            .is(self.notices_dropped)?;
        gauge(f, "oneloop_rooms", "Rooms that there are.")?.is(self.rooms)?;
        gauge(f, "oneloop_room_members", "Members of all rooms.")?.is(self.members)?;
        gauge(f, "oneloop_room_log_bytes", "Bytes in the logs of all rooms.")?.is(self.room_log_bytes)?;
        gauge(f, "oneloop_queued_bytes", "Bytes of input and output that wait, and in the logs of all rooms.")?
            .is(self.queued_bytes)
    }

    fn files(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let metrics = self.metrics;
        let requests =
            [("stored", metrics.files_stored), ("sent", metrics.files_sent), ("failed", metrics.files_failed)];
        let bytes = [("in", metrics.file_bytes_in), ("out", metrics.file_bytes_out)];
        counter(f, "oneloop_files_total", "Files stored and sent, and requests about files that failed.")?
            .by("outcome", requests)?;
        counter(f, "oneloop_file_bytes_total", "Bytes of files received and sent.")?.by("direction", bytes)
    }

    /// Two families and not one: the loop counts what came, but some outcomes are a machine's to count, and another machine
    /// may count none. An error is of neither, for it comes in place of a datagram.
    fn datagrams(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let metrics = self.metrics;
        let outcomes = [
            ("answered", metrics.datagrams_answered),
            ("ignored", metrics.datagrams_ignored),
            ("limited", metrics.datagrams_limited),
            ("too_large", metrics.datagrams_too_large),
            ("unsent", metrics.datagrams_unsent),
        ];
        counter(f, "oneloop_datagrams_received_total", "Datagrams received.")?.is(metrics.datagrams_in)?;
        counter(f, "oneloop_datagrams_total", "Datagrams received, by what became of them.")?
            .by("outcome", outcomes)?;
        counter(f, "oneloop_datagram_errors_total", "Errors in place of a datagram, mostly about an earlier answer.")?
            .is(metrics.datagrams_failed)
    }

    fn process(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let vitals = self.vitals;
        counter(f, "oneloop_log_lines_dropped_total", "Log lines that standard error did not take.")?
            .is(vitals.log_lines_dropped)?;
        let micros = u64::try_from(self.uptime.as_micros()).unwrap_or(u64::MAX);
        gauge(f, "oneloop_uptime_seconds", "Time since the start.")?.is(Seconds { micros })?;
        if let Some(bytes) = vitals.resident_bytes {
            gauge(f, "process_resident_memory_bytes", "Resident memory size in bytes.")?.is(bytes)?;
        }
        if let Some(count) = vitals.open_descriptors {
            gauge(f, "process_open_fds", "Number of open file descriptors.")?.is(count)?;
        }
        Ok(())
    }
}

impl Display for Report<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.connections(f)?;
        self.messages(f)?;
        self.files(f)?;
        self.datagrams(f)?;
        // Its count is the turns, all but the one that is writing this.
        family(
            f,
            "oneloop_turn_duration_seconds",
            "histogram",
            "How long a turn of the loop took, from the return of one poll to the call of the next.",
        )?
        .histogram(&self.metrics.turn)?;
        self.process(f)
    }
}

/// A family that has been described and waits for its samples, which must follow at once.
struct Family<'f, 'b> {
    f: &'f mut Formatter<'b>,
    name: &'static str,
}

fn counter<'f, 'b>(f: &'f mut Formatter<'b>, name: &'static str, help: &str) -> Result<Family<'f, 'b>, fmt::Error> {
    family(f, name, "counter", help)
}

fn gauge<'f, 'b>(f: &'f mut Formatter<'b>, name: &'static str, help: &str) -> Result<Family<'f, 'b>, fmt::Error> {
    family(f, name, "gauge", help)
}

fn family<'f, 'b>(
    f: &'f mut Formatter<'b>,
    name: &'static str,
    kind: &str,
    help: &str,
) -> Result<Family<'f, 'b>, fmt::Error> {
    writeln!(f, "# HELP {name} {help}\n# TYPE {name} {kind}")?;
    Ok(Family { f, name })
}

impl Family<'_, '_> {
    fn is(self, value: impl Display) -> fmt::Result {
        writeln!(self.f, "{} {value}", self.name)
    }

    /// One sample for each value of `label`. Quoted as Rust quotes, which for a name in print is what the format wants.
    fn by<V: Display>(self, label: &str, samples: impl IntoIterator<Item = (&'static str, V)>) -> fmt::Result {
        let Family { f, name } = self;
        samples.into_iter().try_for_each(|(word, value)| writeln!(f, "{name}{{{label}={word:?}}} {value}"))
    }

    fn histogram(self, histogram: &Histogram) -> fmt::Result {
        let Family { f, name } = self;
        for (bound, count) in histogram.cumulated() {
            match bound {
                Some(micros) => writeln!(f, "{name}_bucket{{le=\"{}\"}} {count}", Seconds { micros })?,
                None => writeln!(f, "{name}_bucket{{le=\"+Inf\"}} {count}")?,
            }
        }
        writeln!(f, "{name}_sum {}", Seconds { micros: histogram.sum_micros() })?;
        writeln!(f, "{name}_count {}", histogram.count())
    }
}

/// Microseconds, shown as seconds: exact, and without the zeros at the end.
struct Seconds {
    micros: u64,
}

impl Display for Seconds {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (whole, mut fraction, mut digits) = (self.micros / 1_000_000, self.micros % 1_000_000, 6);
        if fraction == 0 {
            return write!(f, "{whole}");
        }
        while fraction % 10 == 0 {
            (fraction, digits) = (fraction / 10, digits - 1);
        }
        write!(f, "{whole}.{fraction:0digits$}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::close::Close;
    use crate::metrics::ServiceCount;
    use std::collections::HashSet;

    /// Every number its own, so that none can stand for another.
    fn metrics() -> Metrics {
        let mut metrics = Metrics {
            turns: 4,
            services: vec![
                ServiceCount { name: "echo", open: 2, accepted: 10 },
                ServiceCount { name: "chat", open: 9, accepted: 11 },
            ],
            accepted: 21,
            refused: 12,
            open: 5,
            spare_open: 6,
            refused_open: 1,
            accept_exhausted: 13,
            accept_passing: 14,
            bytes_in: 15,
            bytes_out: 16,
            messages: 17,
            published: 18,
            missed: 19,
            rationed: 20,
            private_undelivered: 22,
            foreign_requests: 38,
            expired: 23,
            files_stored: 40,
            files_sent: 41,
            files_failed: 42,
            file_bytes_in: 43,
            file_bytes_out: 44,
            datagrams_in: 150,
            datagrams_answered: 24,
            datagrams_ignored: 25,
            datagrams_limited: 26,
            datagrams_too_large: 27,
            datagrams_unsent: 28,
            datagrams_failed: 29,
            ..Metrics::default()
        };
        for close in Close::ALL {
            metrics.closes[close as usize] = 50 + close as u64;
        }
        for micros in [7, 50, 51, 1_250_000] {
            metrics.turn.add(Duration::from_micros(micros));
        }
        metrics
    }

    fn report(metrics: &Metrics) -> Report<'_> {
        Report {
            metrics,
            rooms: 30,
            members: 31,
            room_log_bytes: 32,
            notices_dropped: 33,
            queued_bytes: 34,
            vitals: Vitals { resident_bytes: Some(35), open_descriptors: Some(36), log_lines_dropped: 37 },
            uptime: Duration::from_micros(38_000_400),
        }
    }

    #[test]
    fn a_report_reads_like_this() {
        assert_eq!(report(&metrics()).to_string(), GOLDEN);
    }

    #[test]
    fn what_the_system_does_not_say_is_left_out() {
        let metrics = metrics();
        let text = Report { vitals: Vitals::default(), ..report(&metrics) }.to_string();
        assert!(!text.contains("process_"));
        assert!(text.contains("\noneloop_log_lines_dropped_total 0\n"));
    }

    /// Read by the rules of the format, each family on its own and in one piece.
    #[test]
    fn every_family_is_described_before_its_samples_and_stands_together() {
        for metrics in [metrics(), Metrics::default()] {
            let text = report(&metrics).to_string();
            assert!(text.ends_with('\n') && text.is_ascii());
            let (mut seen, mut helped, mut family, mut kind) = (HashSet::new(), "", "", "");
            for line in text.lines() {
                if let Some(help) = line.strip_prefix("# HELP ") {
                    helped = help.split_once(' ').expect("a name and what it means").0;
                    assert!(seen.insert(helped), "{helped} is described twice");
                } else if let Some(described) = line.strip_prefix("# TYPE ") {
                    (family, kind) = described.split_once(' ').expect("a name and its kind");
                    assert_eq!(family, helped);
                    assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                    assert_eq!(family.ends_with("_total"), kind == "counter", "{line}");
                } else {
                    let (series, value) = line.split_once(' ').expect("a series and its value");
                    let name = series.split('{').next().unwrap_or_default();
                    let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{line} is not of {family}"));
                    let suffixes: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
                    assert!(helped == family && suffixes.contains(&suffix), "{line}");
                    assert!(value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'), "{line}");
                    assert!(series.bytes().all(|byte| byte != b'\\'), "{line}");
                    assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{line}");
                }
            }
        }
    }

    #[test]
    fn labels_are_words_of_our_own() {
        let text = report(&metrics()).to_string();
        let labels: Vec<_> = text.lines().filter_map(|line| line.split_once('{')?.1.split_once('}')).collect();
        assert_eq!(labels.len(), 2 + 2 + 11 + 2 + 3 + 2 + 5 + 14);
        for (label, _) in labels {
            let (name, value) = label.split_once('=').expect("a name and a value");
            let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).expect("in quotes");
            match name {
                "le" => assert!(value == "+Inf" || value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')),
                "service" | "reason" | "kind" | "outcome" | "direction" => {
                    assert!(!value.is_empty() && value.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
                }
                _ => panic!("an unknown label: {label}"),
            }
        }
    }

    #[test]
    fn seconds_are_exact() {
        for (micros, text) in [
            (0, "0"),
            (1, "0.000001"),
            (50, "0.00005"),
            (2_500, "0.0025"),
            (1_000_000, "1"),
            (10_000_010, "10.00001"),
            (u64::MAX, "18446744073709.551615"),
        ] {
            assert_eq!(Seconds { micros }.to_string(), text);
        }
    }

    const GOLDEN: &str = r##"# HELP oneloop_connections_open Connections open now, spare ones among them, refused ones not.
# TYPE oneloop_connections_open gauge
oneloop_connections_open{service="echo"} 2
oneloop_connections_open{service="chat"} 9
# HELP oneloop_connections_total Connections accepted and served.
# TYPE oneloop_connections_total counter
oneloop_connections_total{service="echo"} 10
oneloop_connections_total{service="chat"} 11
# HELP oneloop_connections_spare_open Connections over the limit that may ask how the server is.
# TYPE oneloop_connections_spare_open gauge
oneloop_connections_spare_open 6
# HELP oneloop_connections_refused_open Refused connections that are still open.
# TYPE oneloop_connections_refused_open gauge
oneloop_connections_refused_open 1
# HELP oneloop_connections_refused_total Connections accepted over the limit, told so and closed.
# TYPE oneloop_connections_refused_total counter
oneloop_connections_refused_total 12
# HELP oneloop_closes_total Connections that ended, refused ones among them.
# TYPE oneloop_closes_total counter
oneloop_closes_total{reason="bye"} 50
oneloop_closes_total{reason="idle"} 164
oneloop_closes_total{reason="heartbeat"} 53
oneloop_closes_total{reason="stalled"} 54
oneloop_closes_total{reason="slow"} 55
oneloop_closes_total{reason="too_long"} 171
oneloop_closes_total{reason="full"} 119
oneloop_closes_total{reason="refused"} 62
oneloop_closes_total{reason="protocol"} 63
oneloop_closes_total{reason="shutdown"} 64
oneloop_closes_total{reason="error"} 65
# HELP oneloop_accept_errors_total Accepts that failed: no descriptor or memory left, or in passing.
# TYPE oneloop_accept_errors_total counter
oneloop_accept_errors_total{kind="exhausted"} 13
oneloop_accept_errors_total{kind="passing"} 14
# HELP oneloop_received_bytes_total Bytes received on connections; datagrams are not among them.
# TYPE oneloop_received_bytes_total counter
oneloop_received_bytes_total 15
# HELP oneloop_sent_bytes_total Bytes sent on connections; datagrams are not among them.
# TYPE oneloop_sent_bytes_total counter
oneloop_sent_bytes_total 16
# HELP oneloop_foreign_requests_total HTTP requests of other sites' pages or for other hosts, refused.
# TYPE oneloop_foreign_requests_total counter
oneloop_foreign_requests_total 38
# HELP oneloop_deadlines_expired_total Deadlines of services that came due, heartbeats among them.
# TYPE oneloop_deadlines_expired_total counter
oneloop_deadlines_expired_total 23
# HELP oneloop_messages_received_total Lines, WebSocket messages and HTTP requests that were taken note of; reads, where there are none of these.
# TYPE oneloop_messages_received_total counter
oneloop_messages_received_total 17
# HELP oneloop_messages_published_total Messages said in rooms.
# TYPE oneloop_messages_published_total counter
oneloop_messages_published_total 18
# HELP oneloop_messages_missed_total Messages that slow members were told they missed.
# TYPE oneloop_messages_missed_total counter
oneloop_messages_missed_total 19
# HELP oneloop_messages_rationed_total Requests dropped because their sender was over its ration.
# TYPE oneloop_messages_rationed_total counter
oneloop_messages_rationed_total 20
# HELP oneloop_private_undelivered_total Private messages that their receiver had no room for.
# TYPE oneloop_private_undelivered_total counter
oneloop_private_undelivered_total 22
# HELP oneloop_notices_dropped_total Notices to rooms that the ration or a full log kept back.
# TYPE oneloop_notices_dropped_total counter
oneloop_notices_dropped_total 33
# HELP oneloop_rooms Rooms that there are.
# TYPE oneloop_rooms gauge
oneloop_rooms 30
# HELP oneloop_room_members Members of all rooms.
# TYPE oneloop_room_members gauge
oneloop_room_members 31
# HELP oneloop_room_log_bytes Bytes in the logs of all rooms.
# TYPE oneloop_room_log_bytes gauge
oneloop_room_log_bytes 32
# HELP oneloop_queued_bytes Bytes of input and output that wait, and in the logs of all rooms.
# TYPE oneloop_queued_bytes gauge
oneloop_queued_bytes 34
# HELP oneloop_files_total Files stored and sent, and requests about files that failed.
# TYPE oneloop_files_total counter
oneloop_files_total{outcome="stored"} 40
oneloop_files_total{outcome="sent"} 41
oneloop_files_total{outcome="failed"} 42
# HELP oneloop_file_bytes_total Bytes of files received and sent.
# TYPE oneloop_file_bytes_total counter
oneloop_file_bytes_total{direction="in"} 43
oneloop_file_bytes_total{direction="out"} 44
# HELP oneloop_datagrams_received_total Datagrams received.
# TYPE oneloop_datagrams_received_total counter
oneloop_datagrams_received_total 150
# HELP oneloop_datagrams_total Datagrams received, by what became of them.
# TYPE oneloop_datagrams_total counter
oneloop_datagrams_total{outcome="answered"} 24
oneloop_datagrams_total{outcome="ignored"} 25
oneloop_datagrams_total{outcome="limited"} 26
oneloop_datagrams_total{outcome="too_large"} 27
oneloop_datagrams_total{outcome="unsent"} 28
# HELP oneloop_datagram_errors_total Errors in place of a datagram, mostly about an earlier answer.
# TYPE oneloop_datagram_errors_total counter
oneloop_datagram_errors_total 29
# HELP oneloop_turn_duration_seconds How long a turn of the loop took, from the return of one poll to the call of the next.
# TYPE oneloop_turn_duration_seconds histogram
oneloop_turn_duration_seconds_bucket{le="0.00005"} 2
oneloop_turn_duration_seconds_bucket{le="0.0001"} 3
oneloop_turn_duration_seconds_bucket{le="0.00025"} 3
oneloop_turn_duration_seconds_bucket{le="0.0005"} 3
oneloop_turn_duration_seconds_bucket{le="0.001"} 3
oneloop_turn_duration_seconds_bucket{le="0.0025"} 3
oneloop_turn_duration_seconds_bucket{le="0.005"} 3
oneloop_turn_duration_seconds_bucket{le="0.01"} 3
oneloop_turn_duration_seconds_bucket{le="0.025"} 3
oneloop_turn_duration_seconds_bucket{le="0.05"} 3
oneloop_turn_duration_seconds_bucket{le="0.1"} 3
oneloop_turn_duration_seconds_bucket{le="0.25"} 3
oneloop_turn_duration_seconds_bucket{le="1"} 3
oneloop_turn_duration_seconds_bucket{le="+Inf"} 4
oneloop_turn_duration_seconds_sum 1.250108
oneloop_turn_duration_seconds_count 4
# HELP oneloop_log_lines_dropped_total Log lines that standard error did not take.
# TYPE oneloop_log_lines_dropped_total counter
oneloop_log_lines_dropped_total 37
# HELP oneloop_uptime_seconds Time since the start.
# TYPE oneloop_uptime_seconds gauge
oneloop_uptime_seconds 38.0004
# HELP process_resident_memory_bytes Resident memory size in bytes.
# TYPE process_resident_memory_bytes gauge
process_resident_memory_bytes 35
# HELP process_open_fds Number of open file descriptors.
# TYPE process_open_fds gauge
process_open_fds 36
"##;
}
