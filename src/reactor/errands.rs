//! What machines ask for that is not done within their own slot: a line for another connection, a word to another machine, a
//! connection of our own. Touches the network through `Common` only.

use super::slot::{Agent, Head, Slot};
use super::stop::Stop;
use super::stream::{Admission, Stream};
use super::{Common, Reactor};
use crate::close::Close;
use crate::net::Net;
use crate::protocol::{Carrier, Effect, Protocol};
use crate::slots::Id;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};

/// Where a connection comes from that comes from nowhere.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);

/// What a machine has asked for that is done once its own slot is settled.
pub(super) enum Errand {
    /// A line for another connection, or a word for this one if that has no room.
    Letter { to: Id, from: Id, line: String },
    /// Another machine is to look.
    Wake(Id),
    /// A connection is to begin, in the name of the service that wants it.
    Dial { service: u8, to: SocketAddr, by: Carrier, machine: Box<dyn Protocol> },
}

impl<N> Common<N> {
    /// Takes down what the machine of slot `id` asks of the loop or of another slot.
    pub(super) fn enqueue(&mut self, id: Id, service: u8, effect: Effect) {
        self.errands.push(match effect {
            Effect::Stop => return self.stop_asked = true,
            Effect::Send { to, line } => Errand::Letter { to, from: id, line },
            Effect::Wake(to) => Errand::Wake(to),
            Effect::Dial { to, by, machine } => Errand::Dial { service, to, by, machine },
            Effect::Close(_) | Effect::End => unreachable!("for the slot itself"),
        });
    }

    /// The last that a machine is told.
    pub(super) fn closed(&mut self, mut machine: Box<dyn Protocol>, close: Close) {
        machine.closed(close);
        self.errands.extend(machine.heir().map(Errand::Wake));
    }
}

impl<N: Net> Reactor<N> {
    /// Begins a connection to `to`, with a machine of its own: see [`Context::dial`](crate::protocol::Context::dial).
    ///
    /// # Errors
    /// The system will not even begin it; the machine is dropped untold.
    pub fn dial(&mut self, name: &'static str, to: SocketAddr, machine: Box<dyn Protocol>) -> io::Result<Id> {
        let service = self.service(name);
        self.begin(service, to, Carrier::Tcp, machine).map_err(|(error, _)| error)
    }

    /// Serves a connection that is there already, from nowhere: the machine is told the unspecified address.
    ///
    /// # Errors
    /// The kernel will not watch it.
    pub fn adopt(&mut self, name: &'static str, socket: N::Stream, machine: Box<dyn Protocol>) -> io::Result<Id> {
        let service = self.service(name);
        let mut stream = Stream::new(socket, service, Admission::Adopted, machine, NOWHERE, &self.common);
        // What cannot be watched is always readable; of everything else the first read says it.
        stream.head.ready.readable = true;
        let id = self.insert(Slot::Stream(stream)).map_err(|(error, _)| error)?;
        if let Some(Slot::Stream(stream)) = self.slots.get_mut(id) {
            stream.open(id, NOWHERE, &mut self.common);
        }
        self.settle(id);
        Ok(id)
    }

    /// Adds a machine without a connection: it is told [`Protocol::opened`] with the unspecified address, has a deadline, can be
    /// woken, and dials.
    pub fn add(&mut self, name: &'static str, machine: Box<dyn Protocol>) -> Id {
        let service = self.service(name);
        let agent = Agent { head: Head::default(), service, machine, deadline: None };
        let id = self.slots.insert(Slot::Agent(Box::new(agent)));
        if let Some(Slot::Agent(agent)) = self.slots.get_mut(id) {
            agent.tell(id, &mut self.common, |machine, context| machine.opened(context, NOWHERE));
        }
        self.settle(id);
        id
    }

    /// Does what machines have asked for, in the order in which they did.
    pub(super) fn deliver(&mut self) {
        let mut errands = std::mem::take(&mut self.common.errands);
        for errand in errands.drain(..) {
            match errand {
                Errand::Letter { to, from, line } => self.hand_over(to, from, &line),
                Errand::Wake(id) => self.wake(id),
                Errand::Dial { service, to, by, machine } => self.dial_for(service, to, by, machine),
            }
        }
        errands.append(&mut self.common.errands); // what this has made machines ask for: next time
        self.common.errands = errands;
    }

    pub(super) fn hand_over(&mut self, to: Id, from: Id, line: &str) {
        let delivered = match self.slots.get_mut(to) {
            Some(Slot::Stream(stream)) => stream.give(line, &mut self.common),
            _ => false,
        };
        if delivered {
            self.settle(to);
        } else if let Some(Slot::Stream(stream)) = self.slots.get_mut(from) {
            self.common.metrics.private_undelivered += 1;
            stream.give("ERROR busy: your message was not delivered, too much waits there", &mut self.common);
            self.settle(from);
        }
    }

    pub(super) fn wake(&mut self, id: Id) {
        match self.slots.get_mut(id) {
            Some(Slot::Stream(stream)) => stream.wake(id, &mut self.common),
            Some(Slot::Agent(agent)) => agent.tell(id, &mut self.common, |machine, context| machine.woken(context)),
            _ => return,
        }
        self.settle(id);
    }

    /// Begins a connection for a machine, whose own machine learns of a failure as of any other.
    pub(super) fn dial_for(&mut self, service: u8, to: SocketAddr, by: Carrier, machine: Box<dyn Protocol>) {
        if self.common.stop >= Stop::Stopping {
            self.common.closed(machine, Close::Shutdown);
        } else if let Err((error, mut machine)) = self.begin(service, to, by, machine) {
            log::debug!("{}: dialing {to}: {error}", self.common.name_of(service));
            machine.failed(&error);
            self.common.closed(machine, Close::Error);
        }
    }

    pub(super) fn begin(
        &mut self,
        service: u8,
        to: SocketAddr,
        by: Carrier,
        machine: Box<dyn Protocol>,
    ) -> Result<Id, (io::Error, Box<dyn Protocol>)> {
        let begun = match by {
            Carrier::Tcp => self.common.net.dial(to),
            Carrier::Datagrams => self.common.net.dial_datagrams(to),
        };
        let socket = match begun {
            Ok(socket) => socket,
            Err(error) => return Err((error, machine)),
        };
        let stream = Stream::dialing(socket, service, machine, to, &self.common);
        let id = self.insert(Slot::Stream(stream)).map_err(|(error, slot)| match slot {
            Slot::Stream(stream) => (error, stream.into_machine()),
            _ => unreachable!("a stream was to be inserted"),
        })?;
        log::debug!("{} {id} dials {to}", self.common.name_of(service));
        self.settle(id);
        Ok(id)
    }
}
