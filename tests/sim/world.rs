//! Everything outside the reactor: the kernel's sockets, the clock, the clients, and what is known of each machine.

use crate::chat::Chat;
use crate::clients::Client;
use crate::kernel::{Edge, Kind, Node, Pipe};
use crate::machines::Life;
use crate::plan::Plan;
use crate::random::Random;
use crate::web::Side;
use oneloop::limits::Limits;
use oneloop::protocol::datagram::Reply;
use oneloop::time::Moment;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// How often each thing has happened.
pub(crate) type Counts = BTreeMap<&'static str, u64>;

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) limits: Limits,
    pub(crate) random: Random,
    pub(crate) now: Moment,
    /// Faults are on.
    pub(crate) stormy: bool,
    /// Monitors are told the end.
    pub(crate) monitors_end: bool,
    /// The loop has ended.
    pub(crate) ended: bool,
    /// The reactor is being dropped, sockets and all.
    pub(crate) ending: bool,

    // The kernel.
    pub(crate) nodes: Vec<Node>,
    /// Watched keys, with their nodes, and all keys that were ever in use.
    pub(crate) keys: BTreeMap<usize, usize>,
    pub(crate) keys_ever: BTreeSet<usize>,
    pub(crate) edges: Vec<Edge>,
    /// There were some already when the last turn ended.
    pub(crate) edges_before: bool,
    /// By service; then the one datagram socket and the signals.
    pub(crate) listeners: Vec<usize>,
    pub(crate) mailbox: usize,
    pub(crate) signals: usize,
    pub(crate) open_streams: usize,
    /// How long the process is suspended in its next poll.
    pub(crate) jump: Duration,
    /// The last poll was asked to wait for ever, and nothing had happened.
    pub(crate) asleep: bool,

    // What the checks need.
    pub(crate) turn: usize,
    /// Whatever makes a deadline late, counted: a full batch, an interrupted poll, a process that was held up.
    pub(crate) disturbances: usize,
    /// Whatever the loop does, counted; and the same at the last poll, and for how many turns it did nothing.
    pub(crate) activity: usize,
    pub(crate) seen_activity: usize,
    pub(crate) idle_turns: usize,
    /// In this turn: connections accepted, connections buried, descriptors found wanting, a stop begun.
    pub(crate) accepts_now: usize,
    pub(crate) buried_now: usize,
    /// In the turn before: connections buried.
    pub(crate) buried_before: usize,
    pub(crate) exhausted_now: bool,
    pub(crate) stopping_now: bool,
    /// A stop was asked for: when, and in which turn. Then it has begun, after the drain delay.
    pub(crate) asked_at: Option<(Moment, usize)>,
    pub(crate) stopped_at: Option<Moment>,
    pub(crate) stopped_in_turn: usize,
    /// Spare connections at the end of the last telling.
    pub(crate) spare_before: usize,
    /// As many are served, and as many are being refused, as there may be.
    pub(crate) is_crowded: bool,
    /// The server's side of HTTP and WebSockets, by client.
    pub(crate) webs: BTreeMap<usize, Side>,
    pub(crate) accepts: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) clients: Vec<Client>,
    pub(crate) chat: Chat,
    /// Members of whose end others have heard before it was told here.
    pub(crate) stalled_now: BTreeSet<usize>,
    pub(crate) lives: Vec<Life>,
    pub(crate) serials: BTreeSet<u64>,
    /// What is still to be answered, and to whom.
    replies: VecDeque<(Vec<u8>, SocketAddr)>,
    pub(crate) counts: Counts,
}

/// Where the datagram socket is bound.
pub(crate) fn own_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8080))
}

impl World {
    pub(crate) fn new(seed: u64) -> World {
        let mut random = Random::new(seed);
        let plan = Plan::new(&mut random);
        let limits = plan.limits(&mut random);
        let mut nodes = vec![Node::new(Kind::Datagram(VecDeque::new())), Node::new(Kind::Signals(0))];
        let (mailbox, signals) = (0, 1);
        let listeners = crate::clients::Service::DOORS.map(|_| {
            nodes.push(Node::new(Kind::Listener(VecDeque::new())));
            nodes.len() - 1
        });
        World {
            plan,
            limits,
            random,
            now: Moment::START,
            stormy: true,
            monitors_end: false,
            ended: false,
            ending: false,
            nodes,
            keys: BTreeMap::new(),
            keys_ever: BTreeSet::new(),
            edges: Vec::new(),
            edges_before: false,
            listeners: listeners.to_vec(),
            mailbox,
            signals,
            open_streams: 0,
            jump: Duration::ZERO,
            asleep: false,
            turn: 0,
            disturbances: 0,
            activity: 0,
            seen_activity: 0,
            idle_turns: 0,
            accepts_now: 0,
            buried_now: 0,
            buried_before: 0,
            exhausted_now: false,
            stopping_now: false,
            asked_at: None,
            stopped_at: None,
            stopped_in_turn: 0,
            spare_before: 0,
            is_crowded: false,
            webs: BTreeMap::new(),
            accepts: 0,
            bytes_in: 0,
            bytes_out: 0,
            clients: Vec::new(),
            chat: Chat::default(),
            stalled_now: BTreeSet::new(),
            lives: Vec::new(),
            serials: BTreeSet::new(),
            replies: VecDeque::new(),
            counts: Counts::new(),
        }
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub(crate) fn total(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or(0)
    }

    pub(crate) fn pipes(&mut self) -> impl Iterator<Item = &mut Pipe> {
        self.nodes.iter_mut().filter(|node| node.key.is_some()).filter_map(|node| match &mut node.kind {
            Kind::Stream(pipe) => Some(&mut **pipe),
            _ => None,
        })
    }

    pub(crate) fn turn_begins(&mut self) {
        self.turn += 1;
        (self.buried_before, self.accepts_now, self.buried_now) = (self.buried_now, 0, 0);
        (self.exhausted_now, self.stopping_now) = (false, false);
        self.nodes.iter_mut().for_each(|node| node.taken_now = 0);
    }

    pub(crate) fn turn_ends(&mut self) {
        self.edges_before = !self.edges.is_empty();
        if self.stopping_now {
            self.stop_has_begun();
        }
        if self.accepts_now > 0 && self.buried_now > 0 {
            self.count("accepted in a batch in which others ended");
        }
        assert!(self.stalled_now.is_empty(), "somebody was said to be stalled, and was not closed");
        self.chat_turn_ends();
        self.check_holding_up();
        let too_many = self.pipes().find(|pipe| pipe.one_too_many && !pipe.error_seen).map(|pipe| pipe.client);
        let spared = too_many.is_some_and(|client| !self.clients[client].is_told());
        assert!(!spared, "nobody was closed although more was left unfinished than there is memory for");
        let lingering = self.pipes().filter(|pipe| pipe.half_closed.is_some()).map(|pipe| pipe.client);
        let lingering: Vec<usize> = lingering.collect();
        let refused = lingering.iter().filter(|client| self.clients[**client].is_refused()).count();
        let is_last = self.stopped_at.is_some(); // a listener that closes lets in all who wait
        assert!(refused <= self.limits.max_refused || is_last, "{refused} who were refused linger");
        let (now, high_bytes) = (self.now, self.limits.outbox_high_bytes);
        for pipe in self.pipes() {
            if pipe.choked && pipe.choked_until < now {
                pipe.choked_for += now - pipe.choked_until;
            }
            pipe.choked |= pipe.owed() >= high_bytes;
            if pipe.choked {
                pipe.choked_until = now;
            }
        }
    }

    /// A signal that asks for a stop.
    pub(crate) fn signal(&mut self) {
        let node = self.signals;
        let Kind::Signals(count) = &mut self.nodes[node].kind else { panic!("not the signals") };
        *count += 1;
        self.edge(node, true, false);
    }

    /// Somebody sends a datagram of some kind, once in a while.
    pub(crate) fn maybe_datagrams(&mut self) {
        while self.random.one_in(4) {
            let node = self.mailbox;
            let bytes: Vec<u8> = match self.random.below(8) {
                0 => Vec::new(),
                1 => b"PING\r\n".to_vec(),
                2 => b"PONG".to_vec(),
                3 => vec![b'x'; self.random.within(30..=40)],
                _ => vec![b'd'; self.random.within(1..=20)],
            };
            let port = [40_000, 40_001, 40_002, 7, 8080][self.random.below(5)];
            if self.nodes[node].key.is_none() {
                return;
            }
            let Kind::Datagram(waiting) = &mut self.nodes[node].kind else { panic!("not a datagram socket") };
            if waiting.len() < 8 {
                waiting.push_back((bytes, SocketAddr::from(([127, 0, 0, 1], port))));
                self.edge(node, true, false);
            }
        }
    }

    /// What the responder must answer, worked out as simply as possible.
    pub(crate) fn datagram_received(&mut self, bytes: &[u8], from: SocketAddr) {
        assert!(self.replies.is_empty(), "a datagram was not answered: {:?}", self.replies);
        self.count("datagrams received");
        if bytes.len() > self.limits.max_datagram_bytes {
            self.count("datagrams too large");
            return;
        }
        let text = String::from_utf8_lossy(bytes);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        if ["", "PONG", "OK", "ACK"].contains(&text) || [7, 8080].contains(&from.port()) {
            self.count("datagrams ignored");
            return;
        }
        let reply = match (text, self.plan.reply) {
            ("PING", _) => b"PONG".to_vec(),
            (_, Reply::Ok) => b"OK".to_vec(),
            (_, Reply::Ack) => b"ACK".to_vec(),
            (_, Reply::Echo) => bytes.to_vec(),
        };
        self.replies.push_back((reply, from));
    }

    pub(crate) fn datagram_sent(&mut self, bytes: &[u8], to: SocketAddr) {
        let expected = self.replies.pop_front().expect("a datagram was sent that answers nothing");
        assert_eq!((bytes, to), (&expected.0[..], expected.1));
    }

    /// At the end: nothing of what came was left lying, and the machine behind it was told of every deadline.
    pub(crate) fn check_mailbox(&self) {
        assert_eq!(self.total("expired without a connection"), self.plan.ticks as u64, "a deadline was forgotten");
        assert!(self.replies.is_empty(), "a datagram was not answered: {:?}", self.replies);
        let Kind::Datagram(waiting) = &self.nodes[self.mailbox].kind else { panic!("not a datagram socket") };
        assert!(waiting.is_empty(), "{} datagrams were never received", waiting.len());
    }
}
