//! What stands in a slot: a stream, a listener, a datagram socket, the signal source or a machine alone, and what all of them share.
//! Touches the network through `Common` only.

use super::Common;
use super::stream::Stream;
use crate::buffer::Queue;
use crate::net::{AcceptError, Net, Readiness, Source};
use crate::protocol::{Context, Effect, Protocol};
use crate::slots::Id;
use crate::time::Moment;
use log::Level;
use std::fmt;
use std::io::ErrorKind;
use std::net::SocketAddr;

use super::notices::Kind;

/// What every slot remembers, whatever its kind.
#[derive(Debug, Default)]
pub(crate) struct Head {
    /// What the kernel has said.
    pub(crate) ready: Readiness,
    /// Stands on the work list already.
    pub(crate) listed: bool,
    /// The heap entry that counts for this slot; any other is superseded.
    pub(crate) armed: Option<Moment>,
}

/// Whatever the kernel can wake. Streams are in place, the few others behind a box, so that a slot is as large as a stream.
pub(crate) enum Slot<N: Net> {
    Stream(Stream<N::Stream>),
    Listener(Box<Listener<N>>),
    Datagram(Box<Datagram<N>>),
    Signals(Box<Signals<N>>),
    Agent(Box<Agent>),
}

impl<N: Net> Slot<N> {
    pub(crate) fn head(&mut self) -> &mut Head {
        match self {
            Slot::Stream(stream) => &mut stream.head,
            Slot::Listener(listener) => &mut listener.head,
            Slot::Datagram(datagram) => &mut datagram.head,
            Slot::Signals(signals) => &mut signals.head,
            Slot::Agent(agent) => &mut agent.head,
        }
    }

    /// What the kernel is to watch; an agent is none of its business.
    pub(crate) fn source(&mut self) -> Option<Source<'_, N>> {
        Some(match self {
            Slot::Stream(stream) => Source::Stream(&mut stream.socket),
            Slot::Listener(listener) => Source::Listener(&mut listener.socket),
            Slot::Datagram(datagram) => Source::Datagram(&mut datagram.socket),
            Slot::Signals(signals) => Source::Signals(&mut signals.socket),
            Slot::Agent(_) => return None,
        })
    }
}

/// Where the signals that ask for a stop arrive.
pub(crate) struct Signals<N: Net> {
    pub(crate) head: Head,
    pub(crate) socket: N::Signals,
}

/// Accepts connections for one service.
pub(crate) struct Listener<N: Net> {
    pub(crate) head: Head,
    pub(crate) socket: N::Listener,
    pub(crate) service: u8,
    /// Its connections may ask how the server is: also when that is full, and until it has stopped.
    pub(crate) is_monitor: bool,
    /// Makes the machine of a connection.
    pub(crate) machine: Box<dyn Fn() -> Box<dyn Protocol>>,
    /// Not before this moment, or the end of some connection: there was no descriptor left, or too many are being refused.
    pub(crate) retry_at: Option<Moment>,
}

impl<N: Net> Listener<N> {
    /// Whether an `accept` is worth trying.
    pub(crate) fn may_accept(&self) -> bool {
        self.head.ready.readable && self.retry_at.is_none()
    }

    /// Takes one connection, if one can be had.
    pub(crate) fn accept(&mut self, common: &mut Common<N>) -> Option<(N::Stream, SocketAddr)> {
        match common.net.accept(&mut self.socket) {
            Ok(accepted) => return Some(accepted),
            Err(AcceptError::Empty) => self.head.ready.readable = false,
            Err(AcceptError::Passing(error)) => {
                common.metrics.accept_passing += 1;
                log::debug!("{}: a connection was gone before it was accepted: {error}", common.name_of(self.service));
            }
            // Whoever waits makes no new edge: `readable` stays, and the deadline asks again.
            Err(AcceptError::Exhausted(error)) => {
                common.metrics.accept_exhausted += 1;
                self.retry_at = Some(common.now + common.limits.accept_retry);
                let (open, name) = (common.metrics.open, common.name_of(self.service));
                let retry = common.limits.accept_retry;
                common.notices.say(
                    common.now,
                    Kind::Accept,
                    Level::Error,
                    format_args!("cannot accept for {name}: {error}; {open} connections are open, next try in {retry:?} or when one ends (raise `ulimit -n` or lower --max-connections)"),
                );
            }
        }
        None
    }
}

/// A datagram socket and its one machine.
pub(crate) struct Datagram<N: Net> {
    pub(crate) head: Head,
    pub(crate) socket: N::Datagram,
    pub(crate) service: u8,
    pub(crate) machine: Box<dyn Protocol>,
    pub(crate) reply: Queue,
    pub(crate) deadline: Option<Moment>,
}

impl<N: Net> Datagram<N> {
    /// Receives and answers within the budget. No error of one datagram ends anything.
    pub(crate) fn work(&mut self, id: Id, common: &mut Common<N>) {
        let mut scratch = std::mem::take(&mut common.scratch);
        let size = common.limits.max_datagram_bytes + 1; // one more, to tell what was cut
        for _ in 0..common.limits.datagram_budget {
            match common.net.receive(&mut self.socket, &mut scratch[..size]) {
                Ok((count, from)) => self.received(id, common, &scratch[..count], from),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.head.ready.readable = false;
                    break;
                }
                Err(error) => {
                    common.metrics.datagrams_failed += 1;
                    log::debug!("{} {id}: receive: {error}", common.name_of(self.service));
                }
            }
        }
        common.scratch = scratch;
    }

    fn received(&mut self, id: Id, common: &mut Common<N>, bytes: &[u8], from: SocketAddr) {
        common.metrics.datagrams_in += 1;
        if bytes.len() > common.limits.max_datagram_bytes {
            common.metrics.datagrams_too_large += 1;
            let largest = common.limits.max_datagram_bytes;
            common.notices.say(
                common.now,
                Kind::Datagram,
                Level::Info,
                format_args!("a datagram from {from} was dropped: larger than {largest} bytes"),
            );
            return;
        }
        log::trace!("{} {id} received from {from}: \"{}\"", common.name_of(self.service), bytes.escape_ascii());
        self.tell(id, common, |machine, context| machine.datagram(context, bytes, from));
        if self.reply.is_empty() {
            return;
        }
        match common.net.send(&mut self.socket, self.reply.as_slice(), from) {
            Ok(()) => common.metrics.datagrams_answered += 1,
            // A reply that would block is dropped: whoever sends datagrams can lose one.
            Err(error) => {
                common.metrics.datagrams_unsent += 1;
                log::debug!("{} {id}: send to {from}: {error}", common.name_of(self.service));
            }
        }
        self.reply.clear();
    }

    /// Tells the machine that its deadline has come, if it still has.
    pub(crate) fn expire(&mut self, id: Id, common: &mut Common<N>) {
        if self.deadline.is_some_and(|at| at <= common.now) {
            self.deadline = None;
            common.metrics.expired += 1;
            self.tell(id, common, |machine, context| machine.expired(context));
            self.reply.clear(); // nobody to send it to
        }
    }

    /// Tells the machine something.
    pub(crate) fn tell(
        &mut self,
        id: Id,
        common: &mut Common<N>,
        say: impl FnOnce(&mut dyn Protocol, &mut Context<'_>),
    ) {
        let Datagram { service, machine, reply, deadline, .. } = self;
        tell_unconnected(id, *service, machine.as_mut(), reply, deadline, common, say);
    }
}

/// A machine alone: it has a deadline, can be woken, and dials.
pub(crate) struct Agent {
    pub(crate) head: Head,
    pub(crate) service: u8,
    pub(crate) machine: Box<dyn Protocol>,
    pub(crate) deadline: Option<Moment>,
}

impl Agent {
    /// Tells the machine that its deadline has come, if it still has.
    pub(crate) fn expire<N: Net>(&mut self, id: Id, common: &mut Common<N>) {
        if self.deadline.is_some_and(|at| at <= common.now) {
            self.deadline = None;
            common.metrics.expired += 1;
            self.tell(id, common, |machine, context| machine.expired(context));
        }
    }

    /// Tells the machine something.
    pub(crate) fn tell<N: Net>(
        &mut self,
        id: Id,
        common: &mut Common<N>,
        say: impl FnOnce(&mut dyn Protocol, &mut Context<'_>),
    ) {
        let Agent { service, machine, deadline, .. } = self;
        tell_unconnected(id, *service, machine.as_mut(), &mut Queue::default(), deadline, common, say);
    }
}

/// Tells something to a machine that has no connection to close or end, but may ask for everything else.
fn tell_unconnected<N: Net>(
    id: Id,
    service: u8,
    machine: &mut dyn Protocol,
    outbox: &mut Queue,
    deadline: &mut Option<Moment>,
    common: &mut Common<N>,
    say: impl FnOnce(&mut dyn Protocol, &mut Context<'_>),
) {
    let standing = common.standing(false);
    let mut context = Context {
        now: common.now,
        id,
        outbox,
        message: &mut Queue::default(),
        deadline,
        busy: &mut false,
        limits: &common.limits,
        metrics: &mut common.metrics,
        rooms: &mut common.rooms,
        seat: &mut None,
        standing,
        text: &mut common.text,
        random: &mut || common.net.random(),
        effects: &mut common.effects,
        high_bytes: common.limits.max_datagram_bytes,
    };
    say(machine, &mut context);
    let mut effects = std::mem::take(&mut common.effects);
    for effect in effects.drain(..) {
        match effect {
            Effect::Send { .. } | Effect::Close(_) | Effect::End => (),
            effect => common.enqueue(id, service, effect),
        }
    }
    common.effects = effects;
}

impl<N: Net> fmt::Debug for Slot<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Slot::Stream(_) => "Stream",
            Slot::Listener(_) => "Listener",
            Slot::Datagram(_) => "Datagram",
            Slot::Signals(_) => "Signals",
            Slot::Agent(_) => "Agent",
        })
    }
}
