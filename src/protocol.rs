//! The contract between the loop and the machines: what a machine is told, and what it may ask for.
//! A machine knows bytes, moments and its context. It touches no socket, no clock and no log.

pub mod chat;
#[cfg(feature = "client")]
pub mod client;
pub mod datagram;
pub mod echo;
#[cfg(feature = "files")]
pub mod files;
pub mod heartbeat;
pub mod text;
#[cfg(feature = "web")]
pub mod web;

use crate::buffer::Queue;
use crate::close::Close;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::room::{Rooms, Seat};
use crate::slots::Id;
use crate::time::Moment;
use std::fmt::{self, Write as _};
use std::io;
use std::net::SocketAddr;

/// A machine: one value for each connection, or one for a datagram socket.
///
/// Every method has a default that does nothing, so a machine says only what it cares about. What it answers it pushes
/// into [`Context::outbox`]; the loop writes it.
pub trait Protocol {
    /// The connection has been accepted from `address`, or was dialed and `address` has answered; or the datagram socket is
    /// open on `address`, its own.
    fn opened(&mut self, context: &mut Context<'_>, address: SocketAddr) {
        let _ = (context, address);
    }

    /// Bytes have come: all that was not consumed yet, oldest first. Returns how many are consumed now.
    ///
    /// What is left comes again, first, together with what arrives next. A machine whose answers are not bounded by its
    /// input stops as soon as [`Context::is_full`] says so; the rest then comes again by itself, when the peer has taken
    /// what it is owed.
    fn bytes(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> usize {
        let _ = context;
        bytes.len()
    }

    /// The peer has said its last byte; `rest` is what was never consumed. What is answered here is still sent, then the
    /// connection ends, [`Close::Bye`]; but not before the machine ceases to be [busy](Context::busy).
    fn ended(&mut self, context: &mut Context<'_>, rest: &[u8]) {
        let _ = (context, rest);
    }

    /// A datagram has come. What is in the outbox afterwards is sent to `from` as one datagram; nothing, if it is empty.
    fn datagram(&mut self, context: &mut Context<'_>, bytes: &[u8], from: SocketAddr) {
        let _ = (context, bytes, from);
    }

    /// The outbox had gone above its high mark and has fallen below its low one: a machine that produces may go on.
    fn drained(&mut self, context: &mut Context<'_>) {
        let _ = context;
    }

    /// The moment in [`Context::deadline`] has come; it has been taken out.
    fn expired(&mut self, context: &mut Context<'_>) {
        let _ = context;
    }

    /// Another machine of this loop has something for this one: see [`Context::wake`].
    fn woken(&mut self, context: &mut Context<'_>) {
        let _ = context;
    }

    /// The connection is to end for this reason, and the peer can still be told: what is pushed is sent before the end.
    fn closing(&mut self, context: &mut Context<'_>, close: Close) {
        let _ = (context, close);
    }

    /// Whether what it reads makes it say something, so that it is not to be read while it is owed much. Of two ends that both
    /// stop reading while they cannot write, neither ever goes on: one of them must read however much it has to say.
    fn answers(&self) -> bool {
        true
    }

    /// Whether it goes on while the server stops, until everybody else has gone: it says how the server is, rather than being
    /// served by it. No, by default.
    fn outlasts(&self) -> bool {
        false
    }

    /// The system has ended the connection, or it never came about. [`Protocol::closed`] follows.
    fn failed(&mut self, error: &io::Error) {
        let _ = error;
    }

    /// The connection has ended. Said once for every connection, last of all.
    fn closed(&mut self, close: Close) {
        let _ = close;
    }

    /// Who is woken after that. Nobody, by default.
    fn heir(&self) -> Option<Id> {
        None
    }
}

/// What carries a connection that a machine begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Carrier {
    Tcp,
    Datagrams,
}

/// What a machine asks the loop to do after it has returned.
pub(crate) enum Effect {
    /// End this connection once everything owed has been sent.
    Close(Close),
    /// Say our end once everything owed has been sent, and read on to the peer's.
    End,
    /// Stop the server, as SIGTERM does.
    Stop,
    /// Send this line, which has no end, to another connection, if that one has room for it.
    Send { to: Id, line: String },
    /// Tell another machine that there is something for it.
    Wake(Id),
    /// Begin a connection.
    Dial { to: SocketAddr, by: Carrier, machine: Box<dyn Protocol> },
}

/// How the server is, as a connection should know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// A stop has been asked for.
    pub is_draining: bool,
    /// This connection is one over the limit, or the server stops: only who asks how it is is answered.
    pub is_spare: bool,
}

/// What a machine may see and use while it is told something.
pub struct Context<'a> {
    /// Now: the same moment for all of a turn.
    pub now: Moment,
    /// This connection.
    pub id: Id,
    /// What is still to be sent to the peer; push answers here.
    pub outbox: &'a mut Queue,
    /// Where a message is put together that comes in pieces. What stays here counts as input.
    pub message: &'a mut Queue,
    /// When the machine wants to be told [`Protocol::expired`], or `None` for never. While the peer is not read, the
    /// deadline is not judged.
    pub deadline: &'a mut Option<Moment>,
    /// The machine is at something long, which it does in pieces: each time [`Protocol::expired`] is told, a piece. While it is, its
    /// peer is not read, what was left comes later, and its deadline goes on all the same. If the peer has ended, the connection
    /// goes on for as long.
    pub busy: &'a mut bool,
    /// The bounds in force.
    pub limits: &'a Limits,
    /// The counters, to add to.
    pub metrics: &'a mut Metrics,
    /// All rooms.
    pub rooms: &'a mut Rooms,
    /// This connection's place in one. Put what [`Rooms::enter`] gives here, and the loop delivers; it is taken away when the
    /// connection begins to end.
    pub seat: &'a mut Option<Seat>,
    /// How the server is.
    pub standing: Standing,
    /// For whatever text has to be put together; left by others as it happens to be.
    pub text: &'a mut String,
    /// Gives a number that nobody can foresee.
    pub random: &'a mut dyn FnMut() -> u64,
    pub(crate) effects: &'a mut Vec<Effect>,
    /// The outbox is full from so many bytes on.
    pub(crate) high_bytes: usize,
}

impl Context<'_> {
    /// Whether a machine should leave further input for later: it is busy, the peer is owed much, or its room has to catch up
    /// first.
    pub fn is_full(&mut self) -> bool {
        *self.busy
            || self.outbox.len() >= self.high_bytes
            || self.seat.is_some_and(|seat| self.rooms.must_wait(seat, self.limits))
    }

    /// Whether this machine has just asked for its connection to end: then it is done.
    pub fn is_closing(&self) -> bool {
        self.effects.iter().any(|effect| matches!(effect, Effect::Close(_)))
    }

    /// Asks for this connection to end, once everything owed has been sent.
    pub fn close(&mut self, close: Close) {
        self.effects.push(Effect::Close(close));
    }

    /// Says our end once everything owed has been sent, and goes on reading until the peer's. What is pushed afterwards is dropped.
    pub fn end(&mut self) {
        self.effects.push(Effect::End);
    }

    /// Has another machine of this loop told [`Protocol::woken`], if its connection is open. What it finds then, the two must
    /// share.
    pub fn wake(&mut self, id: Id) {
        self.effects.push(Effect::Wake(id));
    }

    /// Begins a connection to `to`, with a machine of its own: told [`Protocol::opened`] when there is one, or
    /// [`Protocol::failed`] and [`Protocol::closed`]. It counts against no limit on connections, and has
    /// [`Limits::connect_timeout`] to come about.
    pub fn dial(&mut self, to: SocketAddr, machine: Box<dyn Protocol>) {
        self.effects.push(Effect::Dial { to, by: Carrier::Tcp, machine });
    }

    /// The same with datagrams as lines: what is pushed up to a `\n` is sent as one, and each that comes ends in one.
    pub fn dial_datagrams(&mut self, to: SocketAddr, machine: Box<dyn Protocol>) {
        self.effects.push(Effect::Dial { to, by: Carrier::Datagrams, machine });
    }

    /// Has `line`, which has no end, sent to another connection in the format of its room. If that one is owed much already, this one is told instead. From the machine of a
    /// datagram socket, which is no connection, nothing is sent.
    pub fn send_to(&mut self, to: Id, line: String) {
        self.effects.push(Effect::Send { to, line });
    }

    /// Asks for the server to stop, as SIGTERM does: cleanly, with everything that was read answered.
    pub fn stop(&mut self) {
        self.effects.push(Effect::Stop);
    }

    /// The last line of a text service: `ERROR word: sentence`. A goodbye needs no explanation, and a refusal has had its own.
    pub fn tell(&mut self, close: Close) {
        if !matches!(close, Close::Bye | Close::Refused) {
            let _ = writeln!(self.outbox, "ERROR {}: {}", close.word(), close.sentence(self.limits)); // pushing cannot fail
        }
    }
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("id", &self.id).field("now", &self.now).finish_non_exhaustive()
    }
}
