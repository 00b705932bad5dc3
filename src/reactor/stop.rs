//! How the loop stops, in stages: everything goes on for a while, then only those who ask how the server is, then nobody. Touches
//! the network through `Common` only.

use super::slot::Slot;
use super::{Common, Ended, Reactor};
use crate::net::Net;
use crate::protocol::Standing;
use crate::slots::Id;

/// How far a stop has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stop {
    /// Nobody has asked for one.
    #[default]
    None,
    /// Everything goes on for the drain delay; whoever asks how the server is learns of it.
    Draining,
    /// Nothing is accepted or read any more but for those who ask how the server is.
    Stopping,
    /// The others have gone: not for those either.
    Ending,
}

impl<N> Common<N> {
    pub(super) fn standing(&self, is_spare: bool) -> Standing {
        Standing { is_draining: self.stop >= Stop::Draining, is_spare: is_spare || self.stop >= Stop::Stopping }
    }
}

impl<N: Net> Reactor<N> {
    /// A stop that was asked for: after the drain delay whoever has come is let in and read once more, then nothing is accepted
    /// or read for the machines, but for those who ask how the server is; what was read is answered and sent.
    pub(super) fn begin_stop(&mut self) {
        if self.signals > 1 {
            self.ended = Some(Ended::Killed);
        }
        let (limits, metrics, now) = (&self.common.limits, &self.common.metrics, self.common.now);
        if self.common.stop == Stop::None && (self.common.stop_asked || self.signals > 0) {
            self.common.stop = Stop::Draining;
            self.stop_at = Some(now + limits.drain_delay);
            if !limits.drain_delay.is_zero() {
                log::info!("draining: everything goes on for {:?}", limits.drain_delay);
            }
        }
        if self.stop_at.is_none_or(|at| at > now) {
            return;
        }
        self.stop_at = None;
        log::info!("stopping: {} connections to finish, at most {:?}", metrics.open, limits.drain);
        self.drain_until = Some(now + limits.drain);
        self.advance_to(Stop::Stopping);
    }

    /// Goes on to a stage of the stop: closes the listeners that do not outlast it, but lets in first whoever waits there, and hears
    /// everybody out once more.
    pub(super) fn advance_to(&mut self, stage: Stop) {
        let and_monitors = stage == Stop::Ending;
        let doors: Vec<Id> = self.ids(|slot| match slot {
            Slot::Listener(listener) => and_monitors || !listener.is_monitor,
            Slot::Datagram(_) => true,
            _ => false,
        });
        for id in doors {
            match self.slots.get_mut(id) {
                // Closing a listener resets whoever is in its backlog.
                Some(Slot::Listener(listener)) => {
                    listener.head.ready.readable = true;
                    listener.retry_at = None;
                    self.accept(id, self.common.limits.backlog as usize, true);
                }
                Some(Slot::Datagram(datagram)) => datagram.work(id, &mut self.common),
                _ => (),
            }
            self.common.doomed.push(id);
        }
        let streams = self.ids(|slot| matches!(slot, Slot::Stream(_)));
        for id in &streams {
            if let Some(Slot::Stream(stream)) = self.slots.get_mut(*id) {
                stream.head.ready.readable = true; // it may have been accepted just now, before any edge
                stream.work(*id, &mut self.common);
            }
            self.settle(*id); // books what it is owed now, so that all of them together stay within the memory budget
        }
        self.deliver();
        self.common.stop = stage;
        for id in streams {
            self.settle(id);
        }
    }

    /// Once all others have gone: ends those who ask how the server is, too.
    pub(super) fn end_monitors(&mut self) {
        if self.common.stop != Stop::Stopping
            || self.slots.iter().any(|(_, slot)| matches!(slot, Slot::Stream(stream) if !stream.outlasts()))
        {
            return;
        }
        self.advance_to(Stop::Ending);
        self.reap();
    }

    /// Whether a stop has come to its end; whoever is left then is cut off.
    pub(super) fn finish(&mut self) {
        let Some(until) = self.drain_until else { return };
        self.end_monitors();
        let left = self.ids(|slot| matches!(slot, Slot::Stream(_)));
        if left.is_empty() {
            self.ended.get_or_insert(Ended::Drained);
        } else if until <= self.common.now {
            let guests = self.ids(|slot| matches!(slot, Slot::Stream(stream) if stream.is_guest())).len();
            if guests > 0 {
                log::warn!("{guests} connections were cut off: not finished within {:?}", self.common.limits.drain);
            }
            for id in left {
                if let Some(Slot::Stream(stream)) = self.slots.get_mut(id) {
                    stream.cut_off(id, &mut self.common);
                }
            }
            self.reap();
            self.ended.get_or_insert(Ended::Drained);
        }
        if self.ended.is_some() {
            self.common.notices.finish();
        }
    }
}
