//! Every bound of the program in one struct, each with its default, its unit and its reason. Touches nothing.
//! Zero never means infinite: what can be switched off is an `Option`.

use std::time::Duration;

/// Who is asked for a sign of life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Heartbeat {
    /// Peers that have said `PING` or `PONG` themselves; the others by TCP keepalive, which they never see.
    #[default]
    Auto,
    /// Everybody.
    All,
    /// Nobody.
    Off,
}

/// What happens to a member that falls out of its room's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlowReader {
    /// It goes on at the oldest message kept, after a line `MISSED n messages`.
    #[default]
    Skip,
    /// It is closed, `slow`.
    Disconnect,
    /// It does not: publishers wait for it, at most for the write timeout.
    Block,
}

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// What may grow, wait or repeat, and how far.
///
/// The defaults fit a small server; the simulation runs with tiny ones, so that every mark is crossed. Sizes are in
/// bytes, the rest in the unit that the name says.
///
/// ```
/// use oneloop::limits::Limits;
///
/// let limits = Limits { max_line_bytes: 1024, ..Limits::default() };
/// assert_eq!(limits.check(), Ok(()));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections served at once, over all services. Default 10,000: what one board or one test run needs, at about a megabyte.
    pub max_connections: usize,
    /// Connections over that limit that may be told so and linger at once. Default 256; one more waits in the kernel's queue. Fewer
    /// where descriptors are few.
    pub max_refused: usize,
    /// Connections the kernel may complete before we accept them, a listener. Default 1,024; the kernel has a limit of its own (`somaxconn`).
    pub backlog: u32,
    /// Connections accepted a turn, a listener. Default 64: under a millisecond, so that a connect storm starves nobody.
    pub accept_budget: usize,
    /// How long to wait when no descriptor was left for `accept`. Default 100 ms: no spin, and nobody waits noticeably.
    pub accept_retry: Duration,
    /// Bytes read a turn, a connection; also the size of the one read buffer. Default 64 KiB: one system call takes what a
    /// socket's default window holds, and a flooder gets no more of a turn than that.
    pub read_budget_bytes: usize,
    /// The same while the memory budget is used up. Default 1 KiB: whoever is owed nothing goes on, and nobody adds much.
    pub lean_read_bytes: usize,
    /// The longest line, without its end; the longest WebSocket message and frame. Default 64 KiB; a longer one closes the
    /// connection, `too_long`.
    pub max_line_bytes: usize,
    /// Frames that a WebSocket message may come in. Default 128; one more closes the connection, `too_long`: an empty frame
    /// costs its sender two bytes and us a look.
    pub max_fragments: u32,
    /// The longest head of an HTTP request. Default 8 KiB, as nginx has it.
    pub max_head_bytes: usize,
    /// Header lines of an HTTP request. Default 100.
    pub max_headers: usize,
    /// How long an HTTP request's head may take in all, from the connection's beginning or the answer before it; also how long
    /// a connection is kept for the next one. Default 10 s.
    pub head_timeout: Duration,
    /// Connections over the limit that may ask how the server is. Default 8: a monitor or two, and a person who looks.
    pub max_spare: usize,
    /// How long the head of a request may take on such a connection. Default 1 s: whoever asks how the server is knows the question.
    pub spare_timeout: Duration,
    /// From here on a connection's outbox stops it from being read. Default 256 KiB: several reads' worth of answers.
    pub outbox_high_bytes: usize,
    /// Below this it is read again. Default 64 KiB: low enough that reading is not switched on and off for every write.
    pub outbox_low_bytes: usize,
    /// All queued bytes together: inboxes, outboxes and the logs of the rooms. Default 64 MiB; above it nobody who is owed bytes is read. Unfinished
    /// input may be half of it: a connection that would add more while it is owed nothing is closed, `full`.
    pub memory_bytes: usize,
    /// Emptied buffers kept for the next connection that needs one, together. Default 1 MiB: more than the connections of one
    /// turn have in use at once, and little enough to keep for good.
    pub pool_bytes: usize,
    /// What happens to a member that falls out of its room's log. Default `Skip`: it hurts nobody, and is told what it missed.
    pub slow_reader: SlowReader,
    /// A room's log, book-keeping included. Default 1 MiB: half a minute of 500 messages a second; at least four of the largest message.
    pub room_log_bytes: usize,
    /// Rooms at once. Default 256.
    pub max_rooms: usize,
    /// Messages shown to a newcomer. Default 0.
    pub history: usize,
    /// Messages a second, a sender, and notices a second, a room; twice that at once. Default `None`: no ration.
    pub chat_rate: Option<u32>,
    /// Members written to a turn, over all rooms. Default 128: about half a millisecond, so that a large room starves nobody.
    pub fan_out_budget: usize,
    /// Bytes written to members a turn, over all rooms, before the rest of them waits for the next one. Default 4 MiB: a
    /// millisecond or two, so that large messages to many starve nobody either.
    pub fan_out_bytes: u64,
    /// The largest datagram taken. Default 8 KiB: beyond any Ethernet frame and any DNS answer; a larger one is dropped and counted.
    pub max_datagram_bytes: usize,
    /// Datagrams taken a turn, a socket. Default 256: under a millisecond.
    pub datagram_budget: usize,
    /// The receive buffer to ask the kernel for, a UDP socket. Default 4 MiB: the buffer is where datagrams are lost.
    pub udp_buffer_bytes: usize,
    /// Datagrams echoed to one address beyond loopback a second. Default 20: a reflector must not be worth abusing.
    pub echo_replies_per_second: u32,
    /// Addresses counted for that within one second; further ones get no echo. Default 1,024, about 64 KiB.
    pub echo_sources: usize,
    /// The largest file that is taken in. Default 64 MiB.
    pub files_max_bytes: u64,
    /// What all files, parts and uploads together may have in the directory. Default 1 GiB.
    pub files_quota_bytes: u64,
    /// Files and uploads at once in the directory, beyond which none is taken in. Default 10,000: counting them takes ten
    /// milliseconds, in one turn.
    pub files_count: usize,
    /// Uploads at once. Default 4: each may hold a descriptor and reserve its size.
    pub files_uploads: usize,
    /// Downloads and listings at once. Default 64: a descriptor and an outbox each, together a quarter of the memory budget.
    pub files_readers: usize,
    /// How long an upload may go without a byte. Default 60 s.
    pub files_progress: Duration,
    /// How long a part is kept to be gone on with. Default 24 h: until tomorrow.
    pub files_part_ttl: Duration,
    /// Parts kept; of more the smallest goes. Default 256.
    pub files_parts: usize,
    /// Bytes of a file read a turn, a connection; and hashed a turn, by all connections together. Default 256 KiB: a fifth of a
    /// millisecond, one without SHA instructions.
    pub files_budget_bytes: usize,
    /// Hashes of files that are remembered. Default 1,024, about 80 KiB.
    pub files_hashes: usize,
    /// When the directory seems full, it is counted again, for others may have made room: at most once in this time. Default 5 s.
    pub files_recount: Duration,
    /// Who is asked for a sign of life. Default `Auto`: a person at `nc` does not type PONG.
    pub heartbeat: Heartbeat,
    /// Silence after which a peer is asked. Default 10 s.
    pub heartbeat_interval: Duration,
    /// How long it has for the answer. Default 5 s.
    pub heartbeat_timeout: Duration,
    /// How often it is asked again. Default 2: gone after 10 s + 3 x 5 s in all.
    pub heartbeat_retries: u32,
    /// A connection from which nothing came for this long is closed, `idle`. Default `None`: never.
    pub idle_timeout: Option<Duration>,
    /// A connection that is owed bytes and took none for this long is closed, `stalled`. Default 10 s.
    pub write_timeout: Duration,
    /// How long a connection that we dial may take to come about. Default 5 s: three tries of TCP.
    pub connect_timeout: Duration,
    /// How long a connection that we ended is still read, so that unread input does not destroy the last answer. Default 2 s.
    pub linger: Duration,
    /// Lingering ends early when nothing came for this long. Default 200 ms: `nc` keeps its side open after our end.
    pub linger_quiet: Duration,
    /// How long everything goes on after a stop was asked for, but for `/healthz`, which says so. Default none: for balancers
    /// that need to be told before the listeners close.
    pub drain_delay: Duration,
    /// How long a stop may take, after that. Default 10 s, what service managers grant.
    pub drain: Duration,
    /// A log message of one kind comes at most once in this time. Default 5 s.
    pub log_repeat: Duration,
    /// Readiness events taken from the kernel at once, at the start; doubled when they come back full. Default 1,024.
    pub events: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_connections: 10_000,
            max_refused: 256,
            backlog: 1024,
            accept_budget: 64,
            accept_retry: Duration::from_millis(100),
            read_budget_bytes: 64 * KIB,
            lean_read_bytes: KIB,
            max_line_bytes: 64 * KIB,
            max_fragments: 128,
            max_head_bytes: 8 * KIB,
            max_headers: 100,
            head_timeout: Duration::from_secs(10),
            max_spare: 8,
            spare_timeout: Duration::from_secs(1),
            outbox_high_bytes: 256 * KIB,
            outbox_low_bytes: 64 * KIB,
            memory_bytes: 64 * MIB,
            pool_bytes: MIB,
            slow_reader: SlowReader::Skip,
            room_log_bytes: MIB,
            max_rooms: 256,
            history: 0,
            chat_rate: None,
            fan_out_budget: 128,
            fan_out_bytes: 4 * MIB as u64,
            max_datagram_bytes: 8 * KIB,
            datagram_budget: 256,
            udp_buffer_bytes: 4 * MIB,
            echo_replies_per_second: 20,
            echo_sources: 1024,
            files_max_bytes: 64 * MIB as u64,
            files_quota_bytes: 1024 * MIB as u64,
            files_count: 10_000,
            files_uploads: 4,
            files_readers: 64,
            files_progress: Duration::from_secs(60),
            files_part_ttl: Duration::from_secs(24 * 3600),
            files_parts: 256,
            files_budget_bytes: 256 * KIB,
            files_hashes: 1024,
            files_recount: Duration::from_secs(5),
            heartbeat: Heartbeat::Auto,
            heartbeat_interval: Duration::from_secs(10),
            heartbeat_timeout: Duration::from_secs(5),
            heartbeat_retries: 2,
            idle_timeout: None,
            write_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            linger: Duration::from_secs(2),
            linger_quiet: Duration::from_millis(200),
            drain_delay: Duration::ZERO,
            drain: Duration::from_secs(10),
            log_repeat: Duration::from_secs(5),
            events: 1024,
        }
    }
}

impl Limits {
    /// Descriptors that are neither connections nor listeners: the standard streams, the poll, the signal pipe, the log, and two for
    /// files that are open for a moment. 10.
    pub const OWN_DESCRIPTORS: usize = 10;

    /// Descriptors that no served connection gets, at the least: [`OWN_DESCRIPTORS`](Limits::OWN_DESCRIPTORS), 6 for listeners, 8 for
    /// those who ask how the server is (`max_spare`), 8 for those who are being told that it is full. 32.
    pub const DESCRIPTOR_RESERVE: usize = 32;

    /// The longest log line, in bytes: 4,096, what a pipe takes whole or not at all (`PIPE_BUF`).
    pub const LOG_LINE_BYTES: usize = 4096;

    /// The least time before a client tries again. 100 ms: a server that is being restarted is not hammered.
    pub const RECONNECT_LEAST: Duration = Duration::from_millis(100);

    /// The most at the first try; it doubles with each. 2 s: a thousand clients come back at fifty in 100 ms.
    pub const RECONNECT_FIRST: Duration = Duration::from_secs(2);

    /// The most at any try. 30 s: what a person waits.
    pub const RECONNECT_MOST: Duration = Duration::from_secs(30);

    /// A client's connection that lived for so long was a good one: the next tries begin anew. 10 s.
    pub const STABLE_AFTER: Duration = Duration::from_secs(10);

    /// A client that has sent its last datagram waits for answers until none came for so long. 1 s, as `nc -w1`.
    pub const DATAGRAM_QUIET: Duration = Duration::from_secs(1);

    /// How long a filter waits for the end of its input once the server has ended. 1 s: whoever writes has to be scheduled.
    pub const END_GRACE: Duration = Duration::from_secs(1);

    /// A name that is taken when a client is back is asked for again after so long. 3 s.
    pub const NICK_AGAIN: Duration = Duration::from_secs(3);

    /// And so often. 10 times, 30 s: a server whose client vanished gives that up after 25 s.
    pub const NICK_TRIES: u32 = 10;

    /// How long a peer can be silent before the heartbeat closes it: interval + timeout x (retries + 1).
    pub fn patience(&self) -> Duration {
        self.heartbeat_interval + self.heartbeat_timeout * (self.heartbeat_retries + 1)
    }

    /// The largest message a room can have: the longest line, with `MESSAGE`, a name of 20 and the end around it.
    pub fn largest_message_bytes(&self) -> usize {
        self.max_line_bytes + 32
    }

    /// The least that a room's log should be able to hold: four of the largest message, as a line and as a frame, with their
    /// book-keeping, and the reserve. With less, a message may leave no room for the one before it.
    pub fn least_room_log_bytes(&self) -> usize {
        5 * (2 * self.largest_message_bytes() + 64)
    }

    /// Descriptors that files may hold open, beside their connections: one each, two for a listing, and the directory.
    pub fn files_descriptors(&self) -> usize {
        self.files_uploads + 2 * self.files_readers + 1
    }

    /// What messages leave free in a room's log under `block`, so that notices need not wait: an eighth.
    pub fn notice_reserve_bytes(&self) -> usize {
        self.room_log_bytes / 8
    }

    /// Whether the bounds fit each other.
    ///
    /// # Errors
    /// One sentence that names the two that do not.
    pub fn check(&self) -> Result<(), &'static str> {
        // Each inequality is what some loop relies on to make progress.
        let must = [
            (1 <= self.max_connections, "max_connections must be at least 1"),
            (1 <= self.accept_budget, "accept_budget must be at least 1"),
            (1 <= self.datagram_budget, "datagram_budget must be at least 1"),
            (1 <= self.events, "events must be at least 1"),
            (1 <= self.lean_read_bytes, "lean_read_bytes must be at least 1"),
            (self.lean_read_bytes <= self.read_budget_bytes, "lean_read_bytes must not exceed read_budget_bytes"),
            (self.outbox_low_bytes < self.outbox_high_bytes, "outbox_low_bytes must be below outbox_high_bytes"),
            (1 <= self.max_line_bytes, "max_line_bytes must be at least 1"),
            (1 <= self.max_fragments, "max_fragments must be at least 1"),
            (1 <= self.max_head_bytes, "max_head_bytes must be at least 1"),
            (!self.head_timeout.is_zero(), "head_timeout must be more than 0"),
            (
                2 * self.max_line_bytes <= self.memory_bytes,
                "memory_bytes must hold at least two lines of max_line_bytes",
            ),
            (1 <= self.files_budget_bytes, "files_budget_bytes must be at least 1"),
            (self.files_max_bytes <= self.files_quota_bytes, "files_max_bytes must not exceed files_quota_bytes"),
            (!self.files_progress.is_zero(), "files_progress must be more than 0"),
            (1 <= self.max_rooms, "max_rooms must be at least 1"),
            (1 <= self.fan_out_budget, "fan_out_budget must be at least 1"),
            (self.chat_rate != Some(0), "chat_rate must be at least 1"),
            (!self.accept_retry.is_zero(), "accept_retry must be more than 0"),
            (!self.heartbeat_interval.is_zero(), "heartbeat_interval must be more than 0"),
            (!self.heartbeat_timeout.is_zero(), "heartbeat_timeout must be more than 0"),
            (self.heartbeat_retries <= 100, "heartbeat_retries must not exceed 100"),
            (self.linger_quiet <= self.linger, "linger_quiet must not exceed linger"),
        ];
        must.iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, sentence)| Err(sentence))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_fit_each_other_and_a_contradiction_is_named() {
        assert_eq!(Limits::default().check(), Ok(()));
        let wrong = Limits { outbox_low_bytes: MIB, ..Limits::default() };
        assert_eq!(wrong.check(), Err("outbox_low_bytes must be below outbox_high_bytes"));
        let wrong = Limits { max_line_bytes: 40 * MIB, ..Limits::default() };
        assert_eq!(wrong.check(), Err("memory_bytes must hold at least two lines of max_line_bytes"));
    }
}
