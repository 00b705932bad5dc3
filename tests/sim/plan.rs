//! What one seed decides before the first turn: the limits, the kind of kernel, how often what goes wrong, and the stop.

use crate::random::Random;
use crate::web::WEB;
use oneloop::limits::{Heartbeat, Limits, SlowReader};
use oneloop::protocol::datagram::Reply;
use std::time::Duration;

/// How the run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The reactor is dropped once all is quiet.
    Never,
    /// One signal in this turn of the stormy phase.
    Midway(usize),
    /// One signal at the start of the calm phase, while much is still owed.
    WhileOwing,
    /// One signal once all is quiet.
    Quiet,
    /// A second signal soon after the first, which came in this turn.
    Kill(usize),
}

/// How often what goes wrong, in a thousand cases each.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rates {
    pub(crate) partial_read: usize,
    pub(crate) partial_write: usize,
    pub(crate) interrupted: usize,
    pub(crate) poll_interrupted: usize,
    pub(crate) reset: usize,
    pub(crate) exhausted: usize,
    pub(crate) passing: usize,
    pub(crate) watch: usize,
    pub(crate) datagram: usize,
    pub(crate) spurious: usize,
    pub(crate) late: usize,
    pub(crate) jump: usize,
    pub(crate) tumult: usize,
}

impl Rates {
    fn new(random: &mut Random, spurious: bool, crowd: bool) -> Rates {
        Rates {
            partial_read: random.below(300),
            partial_write: random.below(300),
            interrupted: random.below(80),
            poll_interrupted: random.below(60),
            reset: random.below(8),
            exhausted: random.below(60),
            passing: random.below(60),
            watch: random.below(30),
            datagram: random.below(200),
            spurious: if spurious { random.below(400) } else { 0 },
            late: random.below(30),
            jump: random.below(12),
            tumult: if crowd { 300 } else { random.below(30) },
        }
    }
}

#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) turns: usize,
    pub(crate) stop: Stop,
    /// Hardly anything goes wrong, so that every deadline must be met exactly.
    pub(crate) fair: bool,
    pub(crate) rates: Rates,
    /// Events may be spurious; then a needless call is no mistake.
    pub(crate) spurious: bool,
    /// A short read never proves that a socket is empty, as on Windows.
    pub(crate) never_drained: bool,
    /// Readable and writable come as two events, as from kqueue.
    pub(crate) two_events: bool,
    /// `accept` notices that descriptors have run out before it looks whether anybody waits, as on Linux.
    pub(crate) exhausted_first: bool,
    /// Connections that the kernel has descriptors for.
    pub(crate) descriptors: usize,
    pub(crate) backlog: usize,
    /// Clients in all, and how many of a thousand act in a turn.
    pub(crate) clients: usize,
    pub(crate) busy: usize,
    /// The longest time that may pass while nothing happens, in microseconds, as a power of two.
    pub(crate) gap_bits: usize,
    pub(crate) ticks: usize,
    pub(crate) tick_every: Duration,
    pub(crate) produce_bytes: usize,
    pub(crate) produce_chunk: usize,
    /// The producer ends the connection itself when it has pushed everything.
    pub(crate) producer_closes: bool,
    pub(crate) reply: Reply,
    /// Of a thousand clients, so many chat.
    pub(crate) chatty: usize,
    /// Of a thousand clients, so many come by HTTP; and some of them ask how the server is even where all others chat.
    pub(crate) webby: usize,
    pub(crate) watched: bool,
    /// There is memory for all rooms, so that each log holds what its own bound allows.
    pub(crate) plenty: bool,
}

impl Plan {
    pub(crate) fn new(random: &mut Random) -> Plan {
        let turns = random.within(150..=400);
        let fair = random.one_in(4);
        let spurious = !fair && random.permille(667); // half of all
        let crowd = random.one_in(20); // many short lives in little time
        Plan {
            turns,
            stop: match random.below(10) {
                0..=2 => Stop::Never,
                3 | 4 => Stop::Midway(random.below(turns)),
                5 | 6 => Stop::WhileOwing,
                7 | 8 => Stop::Quiet,
                _ => Stop::Kill(random.below(turns)),
            },
            fair,
            rates: if fair { Rates::default() } else { Rates::new(random, spurious, crowd) },
            spurious,
            never_drained: random.one_in(2),
            two_events: random.one_in(2),
            exhausted_first: random.one_in(2),
            descriptors: if random.one_in(2) { random.within(3..=8) } else { 100 },
            backlog: random.within(2..=8),
            clients: if crowd { 300 } else { random.within(8..=30) },
            busy: random.within(100..=700),
            gap_bits: match (fair, crowd) {
                (true, _) => 22,
                (_, true) => 8,
                _ => random.within(14..=23),
            },
            ticks: random.within(1..=4),
            tick_every: Duration::from_micros(random.within(1_000..=2_000_000) as u64),
            produce_bytes: random.within(1..=500),
            produce_chunk: random.within(1..=20),
            producer_closes: random.one_in(2),
            reply: [Reply::Ok, Reply::Ack, Reply::Echo][random.below(3)],
            chatty: [0, 300, 1_000][random.below(3)],
            plenty: random.one_in(2),
            webby: if WEB { [0, 300, 600, 1_000][random.below(4)] } else { 0 },
            watched: random.one_in(2),
        }
    }

    /// Limits so tiny that every mark is crossed.
    pub(crate) fn limits(&self, random: &mut Random) -> Limits {
        let seconds = |count: usize| Duration::from_secs(count as u64);
        let millis = |random: &mut Random, range| Duration::from_millis(random.within(range) as u64);
        let tiny = Limits { max_line_bytes: 24, max_fragments: 4, max_head_bytes: 200, ..Limits::default() };
        let (max_rooms, room_log_bytes) = (random.within(1..=4), tiny.least_room_log_bytes() + random.below(100));
        // One room more than that is the lobby, and one is being made while another is left.
        let rooms_bytes = if self.plenty { (max_rooms + 2) * room_log_bytes } else { 0 };
        // A handshake is longer than any line.
        let web_bytes = if self.webby > 0 { [400, 1_200, 4_000][random.below(3)] } else { 0 };
        Limits {
            head_timeout: millis(random, 300..=8_000),
            max_spare: random.below(3),
            spare_timeout: millis(random, 100..=2_000),
            drain_delay: if random.one_in(3) { millis(random, 1..=2_000) } else { Duration::ZERO },
            max_rooms,
            room_log_bytes,
            slow_reader: [SlowReader::Skip, SlowReader::Disconnect, SlowReader::Block][random.below(3)],
            history: [0, 0, 1, 2, 3][random.below(5)],
            fan_out_budget: random.within(1..=4),
            fan_out_bytes: if random.one_in(2) { random.within(1..=100) as u64 } else { tiny.fan_out_bytes },
            heartbeat: [Heartbeat::Auto, Heartbeat::All, Heartbeat::Off][random.below(3)],
            heartbeat_interval: millis(random, 100..=8_000),
            heartbeat_timeout: millis(random, 50..=3_000),
            heartbeat_retries: random.below(3) as u32,
            max_connections: random.within(6..=12),
            max_refused: 2,
            backlog: self.backlog as u32,
            accept_budget: 2,
            read_budget_bytes: [16, 16, 48][random.below(3)],
            lean_read_bytes: 4,
            outbox_high_bytes: 64,
            outbox_low_bytes: 16,
            memory_bytes: rooms_bytes + web_bytes + 48 * [2, 2, 3, 4, 8, 16][random.below(6)],
            pool_bytes: 256,
            max_datagram_bytes: 32,
            datagram_budget: 3,
            idle_timeout: random.one_in(2).then(|| Duration::from_millis([200, 1_000, 3_000, 8_000][random.below(4)])),
            write_timeout: seconds(random.within(2..=12)),
            drain: Duration::from_millis([50, 150, 1_000, 3_000, 10_000][random.below(5)]),
            linger: seconds(random.within(1..=5)),
            events: random.within(2..=8),
            ..tiny
        }
    }
}
