//! `ping` for a text service: an agent that keeps time, and for each connection a machine that asks and waits. They share a
//! [`Ping`]. Pure: what is to be printed waits there.
//!
//! One question is out at a time, because a `PONG` does not say which `PING` it answers. Whatever is late or lost, the
//! connection is given up with it: a datagram's answer that comes after all goes to a socket that nobody reads any more.

use super::socket::{Socket, Step};
use super::{Route, Way, words};
use crate::close::Close;
use crate::protocol::{Context, Protocol};
use crate::slots::Id;
use crate::time::Moment;
use crate::wire::line::{Line, LineDecoder};
use crate::wire::websocket::Opcode;
use hdrhistogram::Histogram;
use std::cell::RefCell;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

/// What to ask whom, and how often.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who is asked.
    pub route: Route,
    /// From one question to the next, unless the answer takes longer.
    pub interval: Duration,
    /// How long an answer may take, the connection included.
    pub timeout: Duration,
    /// How many questions; `None` is without end.
    pub count: Option<u64>,
    /// One JSON object a line instead of words.
    pub json: bool,
}

/// A question that is out.
#[derive(Debug)]
struct Question {
    /// Once there was a connection to ask it over.
    asked: Option<Moment>,
    due: Moment,
}

/// What the agent, the connection and the command share.
#[derive(Debug)]
pub struct Ping {
    settings: Settings,
    /// Lines to be printed.
    pub lines: String,
    /// The last question has been answered or given up.
    pub done: bool,
    sent: u64,
    question: Option<Question>,
    next: Moment,
    /// Which connection counts; whatever an older one says is not heard.
    generation: u64,
    /// That connection, once it is open.
    link: Option<Id>,
    /// Why that connection ended.
    failure: Option<String>,
    is_dialing: bool,
    /// Which of the addresses is next, and how many have been tried for the question that is out.
    address: usize,
    tried: usize,
    times: Times,
}

/// The times that answers took. The histogram has three digits, whatever their range, and stays as large as it is.
#[derive(Debug)]
struct Times {
    count: u64,
    sum_us: u64,
    min_us: u64,
    max_us: u64,
    histogram: Histogram<u64>,
}

impl Times {
    /// A day: longer than any timeout that can be asked for.
    const MOST_US: u64 = 24 * 3600 * 1_000_000;

    fn new() -> Times {
        let histogram =
            Histogram::new_with_bounds(1, Times::MOST_US, 3).expect("bounds and digits that fit each other");
        Times { count: 0, sum_us: 0, min_us: u64::MAX, max_us: 0, histogram }
    }

    fn add(&mut self, time: Duration) {
        let us = time.as_micros() as u64; // at most a day
        self.count += 1;
        self.sum_us += us;
        (self.min_us, self.max_us) = (self.min_us.min(us), self.max_us.max(us));
        self.histogram.saturating_record(us);
    }

    /// min, avg, p99 and max in milliseconds, if there was any answer.
    fn figures(&self) -> Option<[f64; 4]> {
        let average = self.sum_us.checked_div(self.count)?;
        let p99 = self.histogram.value_at_quantile(0.99).clamp(self.min_us, self.max_us);
        Some([self.min_us, average, p99, self.max_us].map(|us| us as f64 / 1000.0))
    }
}

impl Ping {
    /// Nothing asked yet.
    pub fn new(settings: Settings) -> Rc<RefCell<Ping>> {
        Rc::new(RefCell::new(Ping {
            settings,
            lines: String::new(),
            done: false,
            sent: 0,
            question: None,
            next: Moment::START,
            generation: 0,
            link: None,
            failure: None,
            is_dialing: false,
            address: 0,
            tried: 0,
            times: Times::new(),
        }))
    }

    /// Whether anybody answered.
    pub fn any_answer(&self) -> bool {
        self.times.count > 0
    }

    /// What it comes to. A question that is still out does not count.
    pub fn summary(&self) -> String {
        let sent = self.sent - u64::from(self.question.is_some());
        let (name, answered) = (&self.settings.route.name, self.times.count);
        let lost = if sent == 0 { 0.0 } else { 100.0 * (sent - answered) as f64 / sent as f64 };
        let figures = self.times.figures();
        if self.settings.json {
            let named = ["min_ms", "avg_ms", "p99_ms", "max_ms"].into_iter().zip(figures.into_iter().flatten());
            let times: String = named.map(|(name, ms)| format!(",\"{name}\":{ms:.3}")).collect();
            let name = json(name);
            return format!(
                "{{\"event\":\"summary\",\"to\":{name},\"sent\":{sent},\"answered\":{answered},\"lost_percent\":{lost:.1}{times}}}\n"
            );
        }
        let times = figures.map_or(String::new(), |[min, avg, p99, max]| {
            format!("; min/avg/p99/max {min:.3}/{avg:.3}/{p99:.3}/{max:.3} ms")
        });
        format!("--- {name} ---\n{sent} sent, {answered} answered, {lost:.1}% lost{times}\n")
    }

    fn ask(&mut self, now: Moment) {
        self.sent += 1;
        self.question = Some(Question { asked: None, due: now + self.settings.timeout });
        self.next = now + self.settings.interval;
        (self.failure, self.tried) = (None, 0);
    }

    fn answered(&mut self, now: Moment, from: SocketAddr) {
        let Some(asked) = self.question.as_ref().and_then(|question| question.asked) else { return };
        self.question = None;
        self.times.add(now - asked);
        let (number, ms) = (self.sent, (now - asked).as_micros() as f64 / 1000.0);
        let _ = if self.settings.json {
            writeln!(self.lines, "{{\"event\":\"answer\",\"number\":{number},\"from\":\"{from}\",\"ms\":{ms:.3}}}")
        } else {
            writeln!(self.lines, "PONG from {from}: number={number} time={ms:.3} ms")
        };
    }

    fn lost(&mut self, why: &str) {
        self.question = None;
        let (number, name) = (self.sent, &self.settings.route.name);
        let _ = if self.settings.json {
            let why = json(why);
            writeln!(self.lines, "{{\"event\":\"lost\",\"number\":{number},\"why\":{why}}}")
        } else {
            writeln!(self.lines, "no answer from {name}: number={number}: {why}")
        };
    }
}

/// `text` as JSON has it.
fn json(text: &str) -> String {
    let mut out = String::from("\"");
    for char in text.chars() {
        let _ = match char {
            '"' | '\\' => write!(out, "\\{char}"),
            char if char.is_control() => write!(out, "\\u{:04x}", char as u32),
            char => write!(out, "{char}"),
        };
    }
    out + "\""
}

/// Keeps time: asks, gives up, and dials where there is no connection.
#[derive(Debug)]
pub struct Pinger {
    ping: Rc<RefCell<Ping>>,
}

impl Pinger {
    /// The agent for `ping`.
    pub fn new(ping: &Rc<RefCell<Ping>>) -> Pinger {
        Pinger { ping: ping.clone() }
    }

    fn ask(&self, context: &mut Context<'_>) {
        let mut ping = self.ping.borrow_mut();
        ping.ask(context.now);
        if let Some(link) = ping.link {
            context.wake(link);
        } else if !ping.is_dialing {
            self.dial(context, &mut ping);
        }
    }

    fn dial(&self, context: &mut Context<'_>, ping: &mut Ping) {
        (ping.is_dialing, ping.tried) = (true, ping.tried + 1);
        let link = Link { ping: self.ping.clone(), generation: ping.generation, agent: context.id, kind: Kind::New };
        ping.settings.route.dial(context, ping.address, Box::new(link));
    }

    /// When to look again.
    fn plan(&self, context: &mut Context<'_>) {
        let mut ping = self.ping.borrow_mut();
        *context.deadline = match &ping.question {
            Some(question) => Some(question.due),
            None if ping.settings.count.is_some_and(|count| ping.sent >= count) => {
                ping.done = true;
                None
            }
            None => Some(ping.next),
        };
    }
}

impl Protocol for Pinger {
    fn opened(&mut self, context: &mut Context<'_>, _: SocketAddr) {
        self.ask(context);
        self.plan(context);
    }

    /// An answer has come, or a connection has ended.
    fn woken(&mut self, context: &mut Context<'_>) {
        let mut ping = self.ping.borrow_mut();
        if let Some(why) = ping.failure.take()
            && let Some(question) = &ping.question
        {
            if question.asked.is_none() && ping.tried < ping.settings.route.addresses.len() {
                self.dial(context, &mut ping);
            } else {
                ping.lost(&why);
            }
        }
        drop(ping);
        self.plan(context);
    }

    fn expired(&mut self, context: &mut Context<'_>) {
        let mut ping = self.ping.borrow_mut();
        if ping.question.is_some() {
            let why = format!("nothing for {:?}", ping.settings.timeout);
            ping.lost(&why);
            // What was asked there may still be answered, and must not be taken for the next answer.
            (ping.generation, ping.is_dialing) = (ping.generation + 1, false);
            if let Some(link) = ping.link.take() {
                context.wake(link);
            }
            drop(ping);
        } else {
            drop(ping);
            self.ask(context);
        }
        self.plan(context);
    }
}

/// What a connection speaks.
#[derive(Debug)]
enum Kind {
    /// Nothing yet.
    New,
    Lines(LineDecoder),
    WebSocket(Socket),
}

/// One connection's: asks when it is woken.
#[derive(Debug)]
struct Link {
    ping: Rc<RefCell<Ping>>,
    generation: u64,
    agent: Id,
    kind: Kind,
}

impl Link {
    fn is_current(&self) -> bool {
        self.ping.borrow().generation == self.generation
    }

    /// Asks, if there is something to ask and it has not been asked yet.
    fn ask(&mut self, context: &mut Context<'_>) {
        let mut ping = self.ping.borrow_mut();
        ping.link = Some(context.id);
        let Some(question) = ping.question.as_mut().filter(|question| question.asked.is_none()) else { return };
        question.asked = Some(context.now);
        match &self.kind {
            Kind::WebSocket(socket) => socket.send(context, Opcode::Ping, &ping.sent.to_be_bytes()),
            Kind::New | Kind::Lines(_) => context.outbox.push(b"PING\n"),
        }
    }

    fn answered(&self, context: &mut Context<'_>) {
        // The address that is shown is the one that was dialed, so that nothing has to be kept for it.
        let mut ping = self.ping.borrow_mut();
        let addresses = &ping.settings.route.addresses;
        let from = addresses[ping.address % addresses.len()];
        ping.answered(context.now, from);
        context.wake(self.agent);
    }

    fn step(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Result<usize, String> {
        let max_bytes = context.limits.max_line_bytes;
        match &mut self.kind {
            Kind::New => Ok(bytes.len()),
            Kind::Lines(lines) => match lines.next(bytes, max_bytes) {
                Line::Whole { line, used } => {
                    match line {
                        b"PONG" => self.answered(context),
                        b"PING" => context.outbox.push(b"PONG\n"),
                        _ => (), // a greeting, or what others say in a chat
                    }
                    Ok(used)
                }
                Line::Unfinished => Ok(0),
                Line::TooLong => Ok(bytes.len()), // not for us
            },
            Kind::WebSocket(socket) => {
                let Some((used, step)) = socket.step(context, bytes)? else { return Ok(0) };
                match step {
                    Step::Opened => {
                        *context.deadline = None;
                        self.ask(context);
                    }
                    Step::Pong(payload) if payload == self.ping.borrow().sent.to_be_bytes() => self.answered(context),
                    Step::Closed => context.close(Close::Bye),
                    Step::Pong(_) | Step::Payload { .. } | Step::Done => (),
                }
                Ok(used)
            }
        }
    }
}

impl Protocol for Link {
    fn opened(&mut self, context: &mut Context<'_>, _: SocketAddr) {
        if !self.is_current() {
            return context.close(Close::Bye);
        }
        let way = self.ping.borrow().settings.route.way.clone();
        match way {
            Way::WebSocket { host, path } => {
                self.kind = Kind::WebSocket(Socket::begin(context, &host, &path));
                // Until then nobody can wake it: whoever never answers must not be kept.
                *context.deadline = Some(context.now + context.limits.connect_timeout);
            }
            Way::Lines | Way::Datagrams => {
                self.kind = Kind::Lines(LineDecoder::default());
                self.ask(context);
            }
        }
    }

    fn bytes(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> usize {
        let mut consumed = 0;
        while self.is_current() && !context.is_full() && !context.is_closing() {
            match self.step(context, &bytes[consumed..]) {
                Ok(0) => return consumed,
                Ok(used) => consumed += used,
                Err(why) => {
                    self.ping.borrow_mut().failure = Some(why);
                    context.close(Close::Protocol);
                }
            }
        }
        bytes.len()
    }

    fn woken(&mut self, context: &mut Context<'_>) {
        if self.is_current() {
            self.ask(context);
        } else {
            context.close(Close::Bye);
        }
    }

    fn expired(&mut self, context: &mut Context<'_>) {
        context.close(Close::Bye);
    }

    fn failed(&mut self, error: &io::Error) {
        if self.is_current() {
            self.ping.borrow_mut().failure = Some(words(error));
        }
    }

    fn closed(&mut self, close: Close) {
        // When it is we who stop, a question that is out is not lost.
        if self.is_current() && close != Close::Shutdown {
            let mut ping = self.ping.borrow_mut();
            // A datagram socket is open at once, whether anybody is there or not.
            let is_unheard = ping.settings.route.way == Way::Datagrams && ping.question.is_some();
            if ping.link.take().is_none() || is_unheard {
                ping.address += 1; // where a name has several, the next one may answer
            }
            ping.failure.get_or_insert_with(|| "the connection ended".to_string());
            (ping.generation, ping.is_dialing) = (ping.generation + 1, false);
        }
    }

    fn heir(&self) -> Option<Id> {
        Some(self.agent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_are_those_of_the_answers() {
        let mut times = Times::new();
        assert_eq!(times.figures(), None);
        for ms in 1..=200 {
            times.add(Duration::from_millis(ms));
        }
        let [min, avg, p99, max] = times.figures().unwrap();
        assert_eq!((min, avg, max), (1.0, 100.5, 200.0));
        assert!((198.0..198.3).contains(&p99), "{p99}");
        let mut times = Times::new();
        times.add(Duration::from_micros(1_234_567));
        assert_eq!(times.figures(), Some([1234.567; 4]), "one answer is all four, exactly");
    }

    #[test]
    fn text_becomes_json() {
        assert_eq!(json("a \"b\" \\ \u{1} \u{e9}"), r#""a \"b\" \\ \u0001 é""#);
    }
}
