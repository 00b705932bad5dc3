//! Who comes in: served, let in to ask how the server is, refused, or left to wait. Touches the network through `Common` only.

use super::notices::Kind;
use super::slot::Slot;
use super::stream::{Admission, Stream};
use super::{Common, Reactor};
use crate::net::Net;
use crate::protocol::Protocol;
use crate::slots::Id;
use log::Level;
use std::net::SocketAddr;

impl<N> Common<N> {
    /// As what the next connection is let in.
    fn admission(&self, is_monitor: bool) -> Admission {
        let (metrics, limits) = (&self.metrics, &self.limits);
        if metrics.open < limits.max_connections {
            Admission::Served
        } else if is_monitor && metrics.spare_open < limits.max_spare {
            Admission::Spare
        } else {
            Admission::Refused
        }
    }

    /// Whether so many are being refused that one more has to wait for it: descriptors stay within what was reckoned with.
    fn is_crowded(&self) -> bool {
        self.metrics.refused_open >= self.limits.max_refused
    }
}

impl<N: Net> Reactor<N> {
    /// Accepts at most `budget` connections. For the last time nobody has to wait.
    pub(super) fn accept(&mut self, id: Id, budget: usize, for_the_last_time: bool) {
        for _ in 0..budget {
            let Some(Slot::Listener(listener)) = self.slots.get_mut(id) else { return };
            if !listener.may_accept() {
                break;
            }
            let admission = self.common.admission(listener.is_monitor);
            if admission == Admission::Refused && self.common.is_crowded() && !for_the_last_time {
                listener.retry_at = Some(self.common.now + self.common.limits.accept_retry);
            } else if let Some((socket, peer)) = listener.accept(&mut self.common) {
                let (service, machine) = (listener.service, (listener.machine)());
                self.admit(socket, peer, service, admission, machine);
            }
            let Some(Slot::Listener(listener)) = self.slots.get_mut(id) else { return };
            if listener.retry_at.is_some() && !self.starved.contains(&id) {
                self.starved.push(id); // once, however often it retries before a connection ends
            }
        }
    }

    /// Gives a new connection its slot, or the reason why there is none.
    pub(super) fn admit(
        &mut self,
        socket: N::Stream,
        peer: SocketAddr,
        service: u8,
        admission: Admission,
        machine: Box<dyn Protocol>,
    ) {
        let stream = Stream::new(socket, service, admission, machine, peer, &self.common);
        let id = match self.insert(Slot::Stream(stream)) {
            Ok(id) => id,
            Err((error, _)) => {
                let text = format_args!("cannot watch a connection from {peer}: {error}; it was dropped");
                self.common.notices.say(self.common.now, Kind::Socket, Level::Error, text);
                return;
            }
        };
        let metrics = &mut self.common.metrics;
        match admission {
            Admission::Served => metrics.open += 1,
            Admission::Spare => metrics.spare_open += 1,
            Admission::Refused => metrics.refused_open += 1,
            Admission::Dialed | Admission::Adopted => (),
        }
        if admission == Admission::Refused {
            metrics.refused += 1;
        } else {
            metrics.opened(service);
        }
        if let Some(Slot::Stream(stream)) = self.slots.get_mut(id) {
            stream.open(id, peer, &mut self.common);
            stream.flush(id, &mut self.common);
        }
        self.settle(id);
    }
}
