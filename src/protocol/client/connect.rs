//! A line client's side of the connection: an agent that dials, and dials again when the connection is lost, and the machine
//! of each connection. What they and the console share is a [`Session`]. Pure.
//!
//! Bytes go from one to the other through the session: who has put some there wakes the other; who has taken them and is owed
//! too much then keeps the other busy, which is not read while it is. So nothing is read that cannot be passed on, in either
//! direction.

use super::backoff::Backoff;
use super::socket::{Socket, Step};
use super::{Route, Way, words};
use crate::buffer::Queue;
use crate::close::Close;
use crate::limits::Limits;
use crate::protocol::heartbeat::Heartbeat;
use crate::protocol::{Context, Protocol};
use crate::slots::Id;
use crate::time::Moment;
use crate::wire::websocket::{Opcode, push_masked};
use memchr::memchr;
use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to.
    pub route: Route,
    /// The name to take in a chat, each time.
    pub nick: Option<String>,
    /// The room to join, each time.
    pub room: Option<String>,
    /// A connection that is lost is made anew.
    pub reconnect: bool,
}

/// What the agent, the connection, the console and the command share.
#[derive(Debug)]
pub struct Session {
    pub(super) settings: Settings,
    /// On the way to the server, whole lines except over TCP; and from it.
    pub(super) up: Queue,
    pub(super) down: Queue,
    /// What the user should know of the connection.
    pub(super) notices: Vec<String>,
    agent: Option<Id>,
    pub(super) console: Option<Id>,
    /// The connection, while lines can be sent over it.
    pub(super) link: Option<Id>,
    /// One of the two is owed so much that the other has to wait.
    pub(super) link_is_full: bool,
    pub(super) console_is_full: bool,
    /// The user has said the last line, or one that makes the server end the connection.
    pub(super) input_ended: bool,
    pub(super) is_leaving: bool,
    /// The server has said its last.
    server_ended: bool,
    /// It did so before the input's end, which may be on its way: what to say if it is not.
    pub(super) unless_ended: Option<String>,
    /// There has been a connection; and when that began which is there, or was there last.
    was_connected: bool,
    since: Option<Moment>,
    /// Why the connection ended; the agent has yet to see to that.
    lost: Option<String>,
    /// It was one of datagrams, and nobody was there to be heard: what was to be said there.
    refused: Option<Queue>,
    /// How often more the name is asked for again that was taken when the connection was back, and whether it is to be now.
    pub(super) nick_tries: u32,
    pub(super) wants_nick: bool,
    /// Nobody reads what we write any more. That is the reader's right, and nothing needs to be said of it.
    pub is_unread: bool,
    /// How it all ended.
    pub outcome: Option<Result<(), String>>,
    /// The console has shown everything and is gone.
    pub is_over: bool,
    /// How wide the terminal is.
    pub columns: usize,
}

impl Session {
    /// Not begun yet.
    pub fn new(settings: Settings) -> Rc<RefCell<Session>> {
        Rc::new(RefCell::new(Session {
            settings,
            up: Queue::default(),
            down: Queue::default(),
            notices: Vec::new(),
            agent: None,
            console: None,
            link: None,
            link_is_full: false,
            console_is_full: false,
            input_ended: false,
            is_leaving: false,
            server_ended: false,
            unless_ended: None,
            was_connected: false,
            since: None,
            lost: None,
            refused: None,
            nick_tries: 0,
            wants_nick: false,
            is_unread: false,
            outcome: None,
            is_over: false,
            columns: 80,
        }))
    }

    /// Whether lines travel whole, so that half a line has to wait for the other.
    pub(super) fn is_by_lines(&self) -> bool {
        self.settings.route.way != Way::Lines
    }

    pub(super) fn end_with(&mut self, outcome: Result<(), String>) {
        self.outcome.get_or_insert(outcome);
    }

    /// The name was taken. When a connection is lost without a word, that may be by the one before, until the server has given that up.
    pub(super) fn try_nick_again(&mut self, context: &mut Context<'_>) {
        if self.nick_tries > 0
            && let Some(agent) = self.agent
        {
            (self.nick_tries, self.wants_nick) = (self.nick_tries - 1, true);
            context.wake(agent);
        }
    }
}

/// Dials, and decides what follows when a connection has ended.
#[derive(Debug)]
pub struct Dialer {
    session: Rc<RefCell<Session>>,
    backoff: Backoff,
    /// Which of the addresses is next, and how many have been tried in a row.
    address: usize,
    tried: usize,
}

impl Dialer {
    /// The agent of `session`.
    pub fn new(session: &Rc<RefCell<Session>>) -> Dialer {
        Dialer { session: session.clone(), backoff: Backoff::default(), address: 0, tried: 0 }
    }

    fn dial(&mut self, context: &mut Context<'_>) {
        let link = Link {
            session: self.session.clone(),
            agent: context.id,
            wire: Wire::New,
            heartbeat: Heartbeat::default(),
            asked: 0,
            why: None,
            said_end: false,
            at_line_start: true,
            owes_pong: false,
            unheard: None,
        };
        self.session.borrow().settings.route.dial(context, self.address, Box::new(link));
        self.tried += 1;
    }

    /// The connection has ended, or has not come about.
    fn lost(&mut self, context: &mut Context<'_>, why: &str) {
        let mut session = self.session.borrow_mut();
        let name = session.settings.route.name.clone();
        let (lived, refused) = (session.since.take(), session.refused.take());
        (*context.deadline, session.wants_nick) = (None, false);
        if lived.is_none() || refused.is_some() {
            self.address += 1;
            if self.tried < session.settings.route.addresses.len() {
                if let Some(mut again) = refused {
                    again.push(session.up.as_slice());
                    session.up = again;
                }
                drop(session);
                return self.dial(context);
            }
        }
        self.tried = 0;
        if lived.is_some_and(|since| context.now - since >= Limits::STABLE_AFTER) {
            self.backoff.reset();
        }
        if session.server_ended && (session.input_ended || session.is_leaving) {
            session.end_with(Ok(()));
        } else if !session.was_connected {
            session.end_with(Err(format!(
                "cannot connect to {name}: {why} (is the server running, and is that its address?)"
            )));
        } else if !session.settings.reconnect {
            let sentence = format!("the connection to {name} was lost: {why}");
            if session.server_ended && session.up.is_empty() {
                // Whoever writes to a pipe may need a moment more to close it than the server to end: after a `/quit`, say.
                session.unless_ended = Some(sentence);
                *context.deadline = Some(context.now + Limits::END_GRACE);
            } else {
                session.end_with(Err(sentence));
            }
        } else if session.input_ended {
            session.end_with(Ok(())); // nobody wants it back
        } else {
            let wait = self.backoff.next((context.random)());
            let wait_s = wait.as_millis() as f64 / 1000.0;
            session.notices.push(format!("no connection to {name}: {why}; trying again in {wait_s:.1} s"));
            *context.deadline = Some(context.now + wait);
        }
        if let Some(console) = session.console {
            context.wake(console);
        }
    }
}

impl Protocol for Dialer {
    fn opened(&mut self, context: &mut Context<'_>, _: SocketAddr) {
        self.session.borrow_mut().agent = Some(context.id);
        self.dial(context);
    }

    fn woken(&mut self, context: &mut Context<'_>) {
        let lost = self.session.borrow_mut().lost.take();
        if let Some(why) = lost {
            self.lost(context, &why);
        } else if self.session.borrow().wants_nick {
            *context.deadline = Some(context.now + Limits::NICK_AGAIN);
        }
    }

    fn expired(&mut self, context: &mut Context<'_>) {
        let mut session = self.session.borrow_mut();
        if let Some(sentence) = session.unless_ended.take() {
            session.end_with(Err(sentence));
            if let Some(console) = session.console {
                context.wake(console);
            }
        } else if let Some(link) = session.link {
            if std::mem::take(&mut session.wants_nick)
                && !session.input_ended
                && let Some(nick) = session.settings.nick.clone()
            {
                session.up.push(format!("/nick {nick}\n").as_bytes());
                context.wake(link);
            }
        } else if session.outcome.is_none() {
            drop(session);
            self.dial(context);
        }
    }
}

/// How lines travel over one connection.
#[derive(Debug)]
enum Wire {
    /// Not at all yet.
    New,
    /// As they are; and whether the next byte begins one.
    Lines {
        at_start: bool,
    },
    WebSocket(Socket),
}

/// One connection's.
#[derive(Debug)]
struct Link {
    session: Rc<RefCell<Session>>,
    agent: Id,
    wire: Wire,
    heartbeat: Heartbeat,
    /// PINGs of ours that have not been answered: their PONGs are not for the user.
    asked: u32,
    /// Why it ends, where there is more to say than the close's word.
    why: Option<String>,
    said_end: bool,
    /// What was sent last ended a line; and if it did not, whether a PONG waits for the line's end.
    at_line_start: bool,
    owes_pong: bool,
    /// Of datagrams, what was sent while nothing has been heard: a socket is open at once, whether anybody is there or not. If
    /// nobody is, it is said to the next address.
    unheard: Option<Queue>,
}

impl Link {
    /// Lines can be sent from here on: name and room first, then what waits.
    fn ready(&mut self, context: &mut Context<'_>) {
        let greeting = {
            let mut session = self.session.borrow_mut();
            session.nick_tries = if session.was_connected { Limits::NICK_TRIES } else { 0 };
            (session.link, session.link_is_full) = (Some(context.id), false);
            (session.was_connected, session.since) = (true, Some(context.now));
            let waiting = std::mem::take(&mut session.up);
            let Settings { nick, room, .. } = session.settings.clone();
            for (command, name) in [("/nick ", nick), ("/join ", room)] {
                if let Some(name) = name {
                    session.up.push(format!("{command}{name}\n").as_bytes());
                }
            }
            let greeting = session.up.len();
            session.up.push(waiting.as_slice());
            self.unheard = (session.settings.route.way == Way::Datagrams).then(Queue::default);
            let name = session.settings.route.name.clone();
            session.notices.push(format!("connected to {name}"));
            if let Some(console) = session.console {
                context.wake(console);
            }
            greeting
        };
        self.pass_on(context);
        if let Some(unheard) = &mut self.unheard {
            unheard.consume(greeting); // that is said each time anyway
        }
    }

    /// Sends what the console has, and looks whether it may send more itself.
    fn pass_on(&mut self, context: &mut Context<'_>) {
        let mut session = self.session.borrow_mut();
        if !session.up.is_empty() {
            let up = std::mem::take(&mut session.up);
            match &self.wire {
                Wire::WebSocket(socket) => {
                    for line in up.as_slice().split_inclusive(|byte| *byte == b'\n') {
                        socket.send(context, Opcode::Text, line.strip_suffix(b"\n").unwrap_or(line));
                    }
                }
                Wire::New | Wire::Lines { .. } => {
                    let bytes = up.as_slice();
                    let line = if self.owes_pong { memchr(b'\n', bytes).map_or(0, |end| end + 1) } else { 0 };
                    context.outbox.push(&bytes[..line]);
                    if line > 0 {
                        context.outbox.push(b"PONG\n");
                        self.owes_pong = false;
                    }
                    context.outbox.push(&bytes[line..]);
                    self.at_line_start = bytes.ends_with(b"\n");
                    if let Some(unheard) = &mut self.unheard {
                        unheard.push(bytes);
                    }
                    let most = context.limits.outbox_high_bytes; // so much without an answer is not said twice
                    self.unheard = self.unheard.take().filter(|unheard| unheard.len() < most);
                }
            }
            session.link_is_full = context.outbox.len() >= context.limits.outbox_high_bytes;
            if let Some(console) = session.console.filter(|_| !session.link_is_full) {
                context.wake(console);
            }
        }
        if session.input_ended && !std::mem::replace(&mut self.said_end, true) {
            match (&mut self.wire, &session.settings.route.way) {
                (Wire::WebSocket(socket), _) => socket.say_close(context),
                (_, Way::Datagrams) => *context.deadline = Some(context.now + Limits::DATAGRAM_QUIET),
                _ => context.end(),
            }
        }
        *context.busy = session.console_is_full;
    }

    /// Gives the console what has come. That takes it in the same turn, and wakes back whether it can take more or not.
    fn hand_over(&self, context: &mut Context<'_>) {
        let mut session = self.session.borrow_mut();
        match session.console {
            None => session.down.clear(),
            Some(console) if !session.down.is_empty() => context.wake(console),
            Some(_) => (),
        }
    }

    /// Takes as much of `bytes` as can be judged.
    fn take(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Result<usize, String> {
        let mut consumed = 0;
        while consumed < bytes.len() && !context.is_closing() {
            let rest = &bytes[consumed..];
            let used = match &mut self.wire {
                Wire::New => rest.len(),
                Wire::Lines { at_start: true } if is_begun_heartbeat(rest) => break,
                Wire::Lines { at_start } => {
                    let used = memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
                    let line = rest[..used].strip_suffix(b"\n").map(|line| line.strip_suffix(b"\r").unwrap_or(line));
                    let is_heartbeat = match line {
                        Some(b"PING") => *at_start,
                        Some(b"PONG") => *at_start && self.asked > 0,
                        _ => false,
                    };
                    *at_start = line.is_some();
                    match line {
                        Some(line) if is_heartbeat => {
                            self.asked -= u32::from(line == b"PONG");
                            let owed = context.outbox.len();
                            self.heartbeat.takes(context, line);
                            if !self.at_line_start && context.outbox.len() > owed {
                                context.outbox.truncate(owed); // it would tear the line that is on its way
                                self.owes_pong = true;
                            }
                        }
                        _ => self.session.borrow_mut().down.push(&rest[..used]),
                    }
                    used
                }
                Wire::WebSocket(socket) => {
                    let Some((used, step)) = socket.step(context, rest)? else { break };
                    match step {
                        Step::Opened => {
                            *context.deadline = None; // that was for the handshake
                            self.heartbeat.heard(context);
                            self.ready(context);
                        }
                        Step::Payload { bytes, ends } => {
                            let mut session = self.session.borrow_mut();
                            session.down.push(bytes);
                            session.down.push(if ends { b"\n" } else { b"" });
                        }
                        Step::Closed => {
                            self.why = socket.reason.take();
                            self.session.borrow_mut().server_ended = true;
                            context.close(Close::Bye);
                        }
                        Step::Pong(_) | Step::Done => (),
                    }
                    used
                }
            };
            consumed += used;
        }
        Ok(consumed)
    }
}

/// Whether `bytes` may become a line of heartbeat, and are not one yet.
fn is_begun_heartbeat(bytes: &[u8]) -> bool {
    [b"PING\r\n", b"PONG\r\n"].iter().any(|line| bytes.len() < line.len() && line.starts_with(bytes))
}

impl Protocol for Link {
    fn opened(&mut self, context: &mut Context<'_>, _: SocketAddr) {
        let way = self.session.borrow().settings.route.way.clone();
        if let Way::WebSocket { host, path } = way {
            self.wire = Wire::WebSocket(Socket::begin(context, &host, &path));
            self.heartbeat = Heartbeat::spoken();
            *context.deadline = Some(context.now + context.limits.connect_timeout);
        } else {
            self.wire = Wire::Lines { at_start: true };
            self.heartbeat.heard(context);
            self.ready(context);
        }
    }

    fn bytes(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> usize {
        self.unheard = None;
        let is_ready = self.session.borrow().link == Some(context.id);
        if is_ready && !self.said_end {
            self.heartbeat.heard(context);
        } else if is_ready && self.session.borrow().settings.route.way == Way::Datagrams {
            *context.deadline = Some(context.now + Limits::DATAGRAM_QUIET);
        }
        let taken = self.take(context, bytes);
        self.hand_over(context);
        taken.unwrap_or_else(|why| {
            self.why = Some(why);
            context.close(Close::Protocol);
            bytes.len()
        })
    }

    fn ended(&mut self, context: &mut Context<'_>, rest: &[u8]) {
        // Of a WebSocket it is half a frame.
        if matches!(self.wire, Wire::Lines { .. }) {
            let mut session = self.session.borrow_mut();
            session.server_ended = true;
            session.down.push(rest);
            if let Some(console) = session.console {
                context.wake(console);
            }
        }
    }

    fn drained(&mut self, context: &mut Context<'_>) {
        let mut session = self.session.borrow_mut();
        session.link_is_full = false;
        if let Some(console) = session.console {
            context.wake(console);
        }
    }

    fn woken(&mut self, context: &mut Context<'_>) {
        if self.session.borrow().link == Some(context.id) {
            self.pass_on(context);
        }
    }

    fn expired(&mut self, context: &mut Context<'_>) {
        let session = self.session.borrow();
        if session.link != Some(context.id) {
            self.why = Some(format!("no answer for {:?}", context.limits.connect_timeout));
            return context.close(Close::Protocol);
        }
        let is_datagrams = session.settings.route.way == Way::Datagrams;
        drop(session);
        if self.said_end && is_datagrams {
            if *context.busy {
                *context.deadline = Some(context.now + Limits::DATAGRAM_QUIET);
                return;
            }
            // Datagrams have no end. What came until now was all.
            self.session.borrow_mut().server_ended = true;
            return context.close(Close::Bye);
        }
        if self.said_end {
            return; // nothing can be asked any more; the server's end is waited for
        }
        if !*context.busy && !self.at_line_start && !context.outbox.is_empty() {
            return self.heartbeat.expired(context, b""); // a PING behind that would be no more of a question
        }
        if *context.busy || !self.at_line_start {
            return self.heartbeat.heard(context); // its answer could not be read, or a PING would tear a line
        }
        self.asked += 1;
        if matches!(self.wire, Wire::WebSocket(_)) {
            let (mut ping, [a, b, c, d, ..]) = (Queue::default(), (context.random)().to_be_bytes());
            push_masked(Opcode::Ping, b"", [a, b, c, d], &mut ping);
            self.heartbeat.expired(context, ping.as_slice());
        } else {
            self.heartbeat.expired(context, b"PING\n");
        }
    }

    fn closing(&mut self, context: &mut Context<'_>, close: Close) {
        if !matches!(close, Close::Bye | Close::Shutdown) {
            context.outbox.clear(); // the server is given up: what it does not take must not be waited for
        } else if let Wire::WebSocket(socket) = &mut self.wire {
            socket.say_close(context);
        }
        if close != Close::Bye && self.why.is_none() {
            self.why = Some(close.sentence(context.limits).to_string());
        }
    }

    fn failed(&mut self, error: &io::Error) {
        self.why = Some(words(error));
        // What it ended before everything was sent has not come to its end.
        let mut session = self.session.borrow_mut();
        session.server_ended &= session.is_leaving;
        if error.kind() == ErrorKind::ConnectionRefused {
            session.refused = self.unheard.take();
        }
    }

    fn closed(&mut self, _: Close) {
        let mut session = self.session.borrow_mut();
        (session.link, session.link_is_full) = (None, false);
        session.lost = Some(self.why.take().unwrap_or_else(|| "the server ended it".to_string()));
    }

    fn answers(&self) -> bool {
        false // but for a PONG
    }

    fn heir(&self) -> Option<Id> {
        Some(self.agent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_become_heartbeat_waits() {
        for begun in ["P", "PI", "PING", "PING\r", "PONG"] {
            assert!(is_begun_heartbeat(begun.as_bytes()), "{begun:?}");
        }
        for not in ["PING\n", "PING\r\n", "PINGS", "ping", "p", " P", "PIN\n"] {
            assert!(!is_begun_heartbeat(not.as_bytes()), "{not:?}");
        }
    }
}
