//! The clients, and what each of them must be answered: worked out from all the bytes it sent, as simply as possible.

use crate::chat;
use crate::kernel::{Kind, Node, Pipe};
use crate::machines::{TICK, product};
use crate::plan::Plan;
use crate::random::Random;
use crate::web::{self, Side};
use crate::world::World;
use oneloop::close::Close;
use oneloop::limits::{Heartbeat, Limits};
use std::net::SocketAddr;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    Lines,
    Raw,
    Ticker,
    Producer,
    Chat,
    /// HTTP: how the server is.
    Health,
    /// WebSockets, of which each begins in HTTP.
    WebEcho,
    WebChat,
}

impl Service {
    /// One of those behind each listener, and that one's name.
    pub(crate) const DOORS: [(Service, &str); 6] = [
        (Service::Lines, "lines"),
        (Service::Raw, "raw"),
        (Service::Ticker, "ticker"),
        (Service::Producer, "producer"),
        (Service::Chat, "chat"),
        (Service::Health, "web"),
    ];

    /// The listener behind which it is.
    pub(crate) fn door(self) -> usize {
        let service = if self.is_web() { Service::Health } else { self };
        Service::DOORS.iter().position(|(known, _)| *known == service).expect("known")
    }

    pub(crate) fn is_web(self) -> bool {
        matches!(self, Service::Health | Service::WebEcho | Service::WebChat)
    }

    pub(crate) fn is_echo(self) -> bool {
        matches!(self, Service::Lines | Service::Raw)
    }

    /// Whether it takes part in the heartbeat.
    pub(crate) fn is_text(self) -> bool {
        matches!(self, Service::Lines | Service::Chat)
    }
}

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) service: Service,
    /// Its connection, once it stands in somebody's backlog.
    pub(crate) node: Option<usize>,
    /// What it has still to send, first byte last, and what it has sent.
    script: Vec<u8>,
    /// How long the pieces of that are between which a pong may stand, first one last, and what is left of the one begun.
    pieces: Vec<usize>,
    left_of_piece: usize,
    /// What it has received from `searched` on is frames.
    open: bool,
    /// Times it has asked again how the server is.
    polls: usize,
    sent: Vec<u8>,
    fin: bool,
    received: Vec<u8>,
    /// It has read to the server's end.
    end_read: bool,
    /// It reads nothing before this turn.
    reads_from: usize,
    /// It reads a byte or two at a time.
    sips: bool,
    /// It says its own end when it has read the server's.
    polite: bool,
    /// It says its end only when it has read the server's; until then it waits to be found idle.
    stays: bool,
    /// It answers each PING, as soon as it stands between two lines; so many are unanswered.
    answers: bool,
    pings: usize,
    /// Of what it has received, so many bytes have been searched for a PING.
    searched: usize,
    /// There is nobody to connect to any more.
    refused_by_kernel: bool,
    /// The connection was torn down, by itself or by the network.
    pub(crate) reset: bool,
    /// The kernel would not watch the connection.
    pub(crate) unwatched: bool,
    /// The server closed with input unread, which destroys what is under way.
    answer_destroyed: bool,
    /// Its connection is one too many, and was told so.
    pub(crate) refused: bool,
    /// Why the machine was told to end, and in which turn.
    pub(crate) told_in_turn: Option<(Close, usize)>,
    /// Why the machine was told to end, and how much had been read then.
    told: Option<(Close, usize)>,
    /// That was in calm weather, when lingering saves the answer.
    told_in_calm: bool,
    /// How it ended, and whether before everything was said.
    closed: Option<(Close, bool)>,
}

impl Client {
    fn new(index: usize, plan: &Plan, limits: &Limits, random: &mut Random) -> Client {
        let chats = random.permille(plan.chatty);
        let web = random.permille(plan.webby);
        let service = match (chats, web) {
            (true, true) => Service::WebChat,
            (true, false) => Service::Chat,
            (false, true) => [Service::Health, Service::WebEcho, Service::WebEcho][random.below(3)],
            (false, false) => Service::DOORS[[0, 0, 0, 1, 1, 2, 3][random.below(7)]].0,
        };
        let service = if web && plan.watched && random.one_in(3) { Service::Health } else { service };
        let length = if random.one_in(3) { random.below(600) } else { random.below(100) };
        let found_silent = service.is_echo() && limits.idle_timeout.is_some()
            || service.is_text() && limits.heartbeat == Heartbeat::All
            || service == Service::Chat && limits.heartbeat == Heartbeat::Auto
            || service == Service::WebEcho && limits.idle_timeout.is_some()
            || matches!(service, Service::WebEcho | Service::WebChat) && limits.heartbeat != Heartbeat::Off
            || service == Service::Health;
        let stays = found_silent && random.one_in(2);
        let (mut script, mut pieces) = match service {
            Service::Chat => (chat::script(index, length, stays, random), Vec::new()),
            _ if service.is_web() => web::script(service, index, length, stays, limits, random),
            _ => Default::default(),
        };
        if service != Service::Chat && !service.is_web() {
            while script.len() < length {
                match service {
                    Service::Lines => script.extend(line(random)),
                    _ => script.push(random.next() as u8),
                }
            }
            script.truncate(length); // the last line is seldom a whole one
        }
        script.reverse();
        pieces.reverse();
        Client {
            service,
            node: None,
            script,
            pieces,
            left_of_piece: 0,
            open: false,
            polls: 0,
            sent: Vec::new(),
            fin: false,
            received: Vec::new(),
            end_read: false,
            reads_from: if random.one_in(4) { random.below(plan.turns) } else { 0 },
            sips: random.one_in(6),
            polite: random.one_in(2),
            stays,
            answers: !stays && random.one_in(2),
            pings: 0,
            searched: 0,
            refused_by_kernel: false,
            reset: false,
            unwatched: false,
            answer_destroyed: false,
            refused: false,
            told_in_turn: None,
            told: None,
            told_in_calm: false,
            closed: None,
        }
    }

    pub(crate) fn told(&mut self, close: Close, read: usize, stormy: bool, turn: usize) {
        (self.told, self.told_in_calm) = (Some((close, read)), !stormy);
        self.told_in_turn = Some((close, turn));
    }

    pub(crate) fn is_told(&self) -> bool {
        self.told.is_some()
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.refused
    }

    pub(crate) fn ended_by_server(&mut self, close: Close, cut_off: bool) {
        assert!(self.closed.replace((close, cut_off)).is_none());
    }

    /// Nothing more will come of this one.
    fn is_over(&self) -> bool {
        self.refused_by_kernel || self.reset || self.unwatched || self.end_read || self.answer_destroyed
    }

    /// Everything that a machine without questions has to say.
    fn goal(&self, plan: &Plan) -> usize {
        match self.service {
            Service::Lines | Service::Raw | Service::Chat => 0,
            Service::Health | Service::WebEcho | Service::WebChat => 0,
            Service::Ticker => plan.ticks * TICK.len(),
            Service::Producer => plan.produce_bytes,
        }
    }

    /// All that the client must ever be answered, as far as that can be known now.
    fn expected(&self, plan: &Plan, limits: &Limits, side: Option<&Side>) -> Vec<u8> {
        // Whoever was told the end is answered what was read by then; after a goodbye, that was everything.
        let (heard, ended, farewell) = match self.told {
            Some((close, _)) if close == Close::Full => (0, false, Some(close)),
            Some((close, read)) if close != Close::Bye => (read, false, Some(close)),
            _ => (self.sent.len(), self.fin, None),
        };
        let goal = self.goal(plan);
        match self.service {
            Service::Lines => {
                let (mut answers, too_long) = line_answers(&self.sent[..heard], ended, limits.max_line_bytes);
                if let Some(close) = farewell.or(too_long.then_some(Close::TooLong)) {
                    assert_eq!(close == Close::TooLong, too_long, "too long a line, and the reason is {close}");
                    answers.extend(format!("ERROR {}: {}\n", close.word(), close.sentence(limits)).bytes());
                }
                answers
            }
            Service::Raw => self.sent[..heard].to_vec(),
            Service::Ticker => TICK.iter().copied().cycle().take(goal).collect(),
            Service::Producer => (0..goal).map(product).collect(),
            Service::Chat | Service::WebChat => self.received.clone(), // looked at when it is written
            Service::Health | Service::WebEcho => side.map_or(Vec::new(), |side| side.pushed.clone()), // and that when it is said
        }
    }

    /// What has come but for the PINGs, of which there may be one between any two answers.
    fn answers_received(&self) -> Vec<u8> {
        if self.service != Service::Lines {
            return self.received.clone();
        }
        let lines = self.received.split_inclusive(|byte| *byte == b'\n');
        let is_ping = |line: &&[u8]| *line == b"PING\n" || line.len() > 1 && b"PING".starts_with(line);
        lines.filter(|line| !is_ping(line)).flatten().copied().collect()
    }

    /// Looks for PINGs in what has just come.
    fn hear_pings(&mut self) {
        if self.service.is_web() {
            while let Some((item, used)) = web::item(&self.received[self.searched..], &mut self.open) {
                self.pings += usize::from(self.answers && item.starts_with("<ping>"));
                self.searched += used;
            }
            return;
        }
        while let Some(length) = self.received[self.searched..].iter().position(|byte| *byte == b'\n') {
            let line = &self.received[self.searched..self.searched + length];
            self.pings += usize::from(self.answers && self.service.is_text() && line == b"PING");
            self.searched += length + 1;
        }
    }

    /// Answers, if it stands between two lines.
    fn answer_pings(&mut self, random: &mut Random) {
        if self.service.is_web() {
            if self.left_of_piece == 0 {
                for _ in 0..std::mem::take(&mut self.pings) {
                    self.push_front(&web::pong(random));
                }
            }
        } else if self.sent.last().is_none_or(|byte| *byte == b'\n') {
            for _ in 0..std::mem::take(&mut self.pings) {
                self.script.extend(b"PONG\n".iter().rev());
            }
        }
    }

    /// What it sends next.
    fn push_front(&mut self, piece: &[u8]) {
        self.script.extend(piece.iter().rev());
        self.pieces.push(piece.len());
    }

    /// At all times: what has come is the beginning of what is expected.
    fn check_so_far(&self, plan: &Plan, limits: &Limits, side: Option<&Side>) {
        if matches!(self.service, Service::Chat | Service::WebChat) {
            return;
        }
        let expected = self.expected(plan, limits, side);
        let received = self.answers_received();
        // The last line may be a PING that has only just begun.
        let begun = expected.starts_with(&received)
            || received.iter().rposition(|byte| *byte != b'P').is_none_or(|last| received[last] == b'\n')
                && expected.starts_with(&received[..received.len() - 1]);
        assert!(
            begun,
            "a client of {:?} expected \"{}\" and received \"{}\"; it sent \"{}\"; told {:?}",
            self.service,
            expected.escape_ascii(),
            self.received.escape_ascii(),
            self.sent.escape_ascii(),
            self.told
        );
    }

    /// At the end: whoever stayed has received everything, and then the end. Returns what to count.
    fn check_end(&self, pushed: usize, plan: &Plan, limits: &Limits, side: Option<&Side>) -> Option<&'static str> {
        self.check_so_far(plan, limits, side);
        if self.refused_by_kernel || self.reset || self.unwatched {
            return None;
        }
        let Some((close, cut_off)) = self.closed else {
            panic!("a client of {:?} was forgotten: neither accepted nor refused, or never ended", self.service);
        };
        if cut_off {
            return None; // stalled, or still not finished when the time for the stop was up
        }
        if self.answer_destroyed {
            let ends = self.service == Service::Producer && plan.producer_closes || self.service == Service::Chat;
            let ends = ends || self.service.is_web();
            let by_machine = close != Close::Bye || ends; // or has asked to quit
            assert!(by_machine, "somebody who had said its end was closed with input unread");
            let in_time = self.told_in_calm && close != Close::Full;
            assert!(!in_time, "an answer was destroyed although its reader reads at once: {close}");
            return Some("answers destroyed by a reset");
        }
        assert!(self.end_read, "the end never came, although it was closed {close}");
        if let Some(side) = side.filter(|side| close == Close::Bye && !side.is_over_early()) {
            assert_eq!(side.consumed, self.sent.len(), "a client of {:?} was not heard to its end", self.service);
        }
        let mut expected = self.expected(plan, limits, side).len();
        let interrupted = close != Close::Bye || self.fin;
        if !self.service.is_echo() && interrupted {
            expected = pushed; // it was not allowed to say more
        }
        assert_eq!(
            self.answers_received().len(),
            expected,
            "a client of {:?}, closed {close}, has not received all",
            self.service
        );
        Some(if close == Close::Bye { "answered in full" } else { "told why, in full" })
    }
}

/// A line of some kind, its end too.
fn line(random: &mut Random) -> Vec<u8> {
    let mut line = match random.below(12) {
        0 | 1 => b"PING".to_vec(),
        2 => b"PONG".to_vec(),
        3 => Vec::new(),
        4 => vec![random.next() as u8; random.within(1..=3)],
        5 | 7 | 8 => vec![b'z'; random.within(18..=24)],
        6 if random.one_in(6) => vec![b'!'; random.within(25..=60)],
        _ => (0..random.within(1..=10)).map(|_| b'a' + random.below(26) as u8).collect(),
    };
    line.retain(|byte| *byte != b'\n');
    line.extend_from_slice(if random.one_in(4) { b"\r\n" } else { b"\n" });
    line
}

/// The answers to all these lines, and whether one of them was too long, which is the last.
fn line_answers(sent: &[u8], ended: bool, max_bytes: usize) -> (Vec<u8>, bool) {
    let mut answers = Vec::new();
    let mut lines: Vec<&[u8]> = sent.split(|byte| *byte == b'\n').collect();
    let rest = lines.pop().unwrap_or_default();
    for line in lines {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > max_bytes {
            return (answers, true);
        }
        answers.extend(line_answer(line));
    }
    if rest.strip_suffix(b"\r").unwrap_or(rest).len() > max_bytes {
        return (answers, true);
    }
    if ended && !rest.is_empty() {
        answers.extend(line_answer(rest));
    }
    (answers, false)
}

fn line_answer(line: &[u8]) -> Vec<u8> {
    match line {
        b"PING" => b"PONG\n".to_vec(),
        b"PONG" => Vec::new(),
        _ => [b"echo: ", line, b"\n"].concat(),
    }
}

// What clients do.
impl World {
    /// The storm: some come, some send or read a little, some go, in any order.
    pub(crate) fn clients_act(&mut self) {
        if self.clients.len() < self.plan.clients && self.random.one_in(8) {
            for _ in 0..self.random.within(1..=4) {
                self.client_comes();
            }
        }
        if self.random.permille(self.plan.rates.tumult) {
            self.tumult();
        }
        for index in 0..self.clients.len() {
            if self.random.permille(self.plan.busy) {
                self.client_acts(index);
            }
        }
        if self.random.permille(self.plan.rates.jump) {
            self.suspend();
        }
    }

    fn client_comes(&mut self) {
        let client = Client::new(self.clients.len(), &self.plan, &self.limits, &mut self.random);
        self.clients.push(client);
        self.connect(self.clients.len() - 1);
    }

    /// Takes a place in the backlog, if there is one.
    fn connect(&mut self, index: usize) -> bool {
        let service = self.clients[index].service;
        let listener = self.listeners[service.door()];
        if self.nodes[listener].dropped || self.ended {
            assert!(self.stopped_at.is_some(), "nobody is listening although no stop has begun");
            self.clients[index].refused_by_kernel = true;
            return false;
        }
        let node = self.nodes.len();
        let Kind::Listener(waiting) = &mut self.nodes[listener].kind else { panic!("not a listener") };
        if waiting.len() >= self.plan.backlog {
            return false;
        }
        waiting.push_back(node);
        let peer = SocketAddr::from(([127, 0, 0, 1], 10_000 + index as u16));
        let pipe = Pipe::new(index, service, peer, &mut self.random);
        self.nodes.push(Node::new(Kind::Stream(Box::new(pipe))));
        self.clients[index].node = Some(node);
        self.edge(listener, true, false);
        true
    }

    fn client_acts(&mut self, index: usize) {
        if self.clients[index].is_over() {
            return;
        }
        if self.clients[index].node.is_none() {
            self.connect(index);
            return;
        }
        let turn = self.turn;
        match self.random.below(100) {
            0..50 => {
                let most = if self.random.one_in(4) { 64 } else { self.random.within(1..=12) };
                self.client_sends(index, most);
            }
            50..90 if self.clients[index].reads_from <= turn => {
                let most = self.random.within(1..=if self.clients[index].sips { 2 } else { 40 });
                self.client_reads(index, most);
            }
            90..94 => self.clients[index].reads_from = turn + self.random.below(150),
            94..=97 if self.clients[index].stays => (),
            94..=97 if self.clients[index].script.is_empty() || self.random.one_in(10) => {
                self.client_ends(index);
            }
            98 if self.random.one_in(6) => self.client_resets(index),
            _ => (),
        }
    }

    /// Sends at most so much of its script; returns whether it sent anything.
    fn client_sends(&mut self, index: usize, most: usize) -> bool {
        let client = &mut self.clients[index];
        let Some(node) = client.node else { return false };
        client.answer_pings(&mut self.random);
        if client.fin || client.script.is_empty() {
            return false;
        }
        if self.nodes[node].dropped {
            self.destroy_answer(index, node); // nobody is there any more, and its kernel says so
            return true;
        }
        let pipe = self.nodes[node].pipe();
        let count = most.min(client.script.len()).min(pipe.to_server_size - pipe.to_server.len());
        for _ in 0..count {
            let byte = client.script.pop().expect("counted");
            client.sent.push(byte);
            if client.left_of_piece == 0 {
                client.left_of_piece = client.pieces.pop().unwrap_or(0);
            }
            client.left_of_piece = client.left_of_piece.saturating_sub(1);
            pipe.to_server.push_back(byte);
        }
        if count > 0 {
            self.edge(node, true, false);
        }
        count > 0
    }

    /// Reads at most so much; returns whether anything came, even if that was the end.
    fn client_reads(&mut self, index: usize, most: usize) -> bool {
        let client = &mut self.clients[index];
        let Some(node) = client.node else { return false };
        let dropped = self.nodes[node].dropped;
        let pipe = self.nodes[node].pipe();
        let count = most.min(pipe.to_client.len());
        client.received.extend(pipe.to_client.drain(..count));
        client.hear_pings();
        if count == 0 {
            let news = !client.end_read && (dropped || pipe.half_closed.is_some());
            client.end_read |= news;
            if news && client.polite {
                self.client_ends(index);
            }
            return news;
        }
        let room_is_news = std::mem::take(&mut pipe.wants_room);
        client.check_so_far(&self.plan, &self.limits, self.webs.get(&index));
        if room_is_news && !dropped {
            self.edge(node, false, true);
        }
        true
    }

    /// Says its last byte; returns whether it had not yet.
    fn client_ends(&mut self, index: usize) -> bool {
        let client = &mut self.clients[index];
        let Some(node) = client.node else { return false };
        let begun = client.sent.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
        let half = begun.starts_with(b"/") || begun.ends_with(b"\r");
        if client.service == Service::Chat && half && !client.script.is_empty() && !client.end_read {
            return false; // half a command could mean anything
        }
        if std::mem::replace(&mut client.fin, true) {
            return false;
        }
        client.script.clear();
        if !self.nodes[node].dropped {
            self.nodes[node].pipe().fin = true;
            self.edge(node, true, false);
        }
        true
    }

    fn client_resets(&mut self, index: usize) {
        if let Some(node) = self.clients[index].node {
            self.clients[index].reset = true;
            if !self.nodes[node].dropped {
                self.reset(node);
            }
        }
    }

    /// What the server sent last is lost on its way.
    pub(crate) fn destroy_answer(&mut self, index: usize, node: usize) {
        self.clients[index].answer_destroyed = true;
        self.nodes[node].pipe().to_client.clear();
    }

    /// Half of all clients go and others come, all at once.
    fn tumult(&mut self) {
        for index in 0..self.clients.len() {
            if !self.clients[index].is_over() && self.random.one_in(2) {
                if self.random.one_in(4) {
                    self.client_resets(index);
                } else {
                    self.client_ends(index);
                }
            }
        }
        while self.clients.len() < self.plan.clients && !self.random.one_in(5) {
            self.client_comes();
        }
    }

    /// The process is stopped for up to an hour, while clients send.
    fn suspend(&mut self) {
        for index in 0..self.clients.len() {
            if !self.clients[index].is_over() && self.random.one_in(2) {
                self.client_sends(index, 8);
            }
        }
        let most = [1_000_000, 60_000_000, 3_600_000_000][self.random.below(3)];
        self.jump = Duration::from_micros(self.random.below(most) as u64);
        self.count("suspensions");
    }

    /// Calm weather: everybody sends what is left, reads everything and says its end. Returns whether anybody did anything.
    pub(crate) fn clients_finish(&mut self) -> bool {
        let mut any = false;
        for index in 0..self.clients.len() {
            if !self.clients[index].is_over() {
                any |= self.client_finishes(index);
            }
        }
        any
    }

    fn client_finishes(&mut self, index: usize) -> bool {
        if self.clients[index].node.is_none() {
            return self.connect(index);
        }
        let mut any = self.client_reads(index, usize::MAX);
        if self.clients[index].service == Service::Health && self.clients[index].end_read {
            return any; // nobody is there to be asked any more
        }
        any |= self.client_sends(index, usize::MAX);
        let client = &mut self.clients[index];
        let asks_again = client.service == Service::Health && client.stays && client.script.is_empty();
        if asks_again && self.asked_at.is_some() && client.polls < 20 && client.searched == client.received.len() {
            // As a balancer does, until the server has gone.
            client.polls += 1;
            client.push_front(&web::poll());
            return any;
        }
        let client = &self.clients[index];
        if client.script.is_empty() && !client.stays && client.received.len() >= client.goal(&self.plan) {
            any |= self.client_ends(index);
        }
        any
    }

    /// The clients whose connections have not ended, for whoever reads why a run failed.
    pub(crate) fn who_is_left(&self) -> String {
        let left = self.clients.iter().filter(|client| client.closed.is_none() && client.node.is_some());
        left.map(|client| {
            let (service, sent, received) = (client.service, client.sent.len(), client.received.len());
            let (left, fin) = (client.script.len(), client.fin);
            format!(
                "\n{service:?}: sent {sent}, {left} left, end said: {fin}; received {received}, told {:?}",
                client.told
            )
        })
        .collect()
    }

    /// Checks every client for the last time.
    pub(crate) fn check_clients(&mut self) {
        for index in 0..self.clients.len() {
            let pushed = self.clients[index].node.map_or(0, |node| self.nodes[node].pipe().pushed);
            let client = &self.clients[index];
            if let Some(what) = client.check_end(pushed, &self.plan, &self.limits, self.webs.get(&index)) {
                self.count(what);
            }
        }
    }
}
