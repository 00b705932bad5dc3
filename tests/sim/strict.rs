//! What this kernel does not let pass: calls without a reason, spinning, sleeping on work, taking more than was agreed.

use crate::kernel::{Kind, Node};
use crate::world::World;
use oneloop::limits::SlowReader;
use std::time::Duration;

impl World {
    /// A wait of nothing is for work that was left; whoever asks for it again and again and does nothing is spinning.
    pub(crate) fn watch_for_spinning(&mut self, wait: Option<Duration>) {
        let did_nothing = self.activity == std::mem::replace(&mut self.seen_activity, self.activity);
        self.idle_turns = if wait == Some(Duration::ZERO) && did_nothing { self.idle_turns + 1 } else { 0 };
        assert!(self.idle_turns < 100, "the loop spins: it polls without waiting and does nothing");
    }

    /// No edge will come for what has been reported and not been done, nor for a descriptor that has become free: whoever
    /// sleeps on it may sleep for ever.
    pub(crate) fn watch_for_sleeping(&mut self, wait: Option<Duration>) {
        if wait == Some(Duration::ZERO) {
            return;
        }
        if let (Some((at, _)), None) = (self.asked_at, self.stopped_at) {
            let in_time = wait.is_some_and(|wait| self.now + wait <= at + self.limits.drain_delay);
            assert!(in_time, "the loop would sleep past the end of the drain delay");
        }
        let a_descriptor_is_free = self.buried_before > 0;
        let mut waiting_to_be_refused = 0;
        for node in self.keys.values().map(|node| &self.nodes[*node]) {
            let what = match &node.kind {
                Kind::Stream(pipe) if pipe.error_seen || pipe.end_read => continue,
                Kind::Stream(pipe) if node.may_write && pipe.owed() > 0 => "write",
                Kind::Stream(pipe) if node.may_write && pipe.chats && self.chat_is_behind(pipe.client) => {
                    "write to a member of a room"
                }
                Kind::Stream(pipe) if pipe.chats => {
                    let has_more = pipe.held || node.may_read && !pipe.to_server.is_empty();
                    if has_more && pipe.half_closed.is_none() && self.chat_nobody_waits(pipe.client) {
                        "let a member speak"
                    } else {
                        continue;
                    }
                }
                // Whoever is owed bytes may be left waiting for good reasons.
                Kind::Stream(pipe) if node.may_read && pipe.owed() == 0 && !pipe.to_server.is_empty() => "read",
                Kind::Listener(waiting) => match node.exhausted_at {
                    Some(at) => {
                        assert!(!a_descriptor_is_free, "the loop sleeps although a descriptor is free");
                        let retry = at + self.limits.accept_retry;
                        // While it is crowded the loop looks again in time, and then need not even try.
                        let in_time =
                            |wait| self.now + wait <= retry || self.is_crowded && wait <= self.limits.accept_retry;
                        assert!(wait.is_some_and(in_time), "the loop would sleep past the next try to accept");
                        continue;
                    }
                    None if node.may_read && !waiting.is_empty() => {
                        let is_web = match &self.nodes[waiting[0]].kind {
                            Kind::Stream(pipe) => self.clients[pipe.client].service.is_web(),
                            _ => false,
                        };
                        let may_be_spare = is_web && self.spare_before < self.limits.max_spare;
                        if !self.is_crowded || may_be_spare {
                            "accept"
                        } else {
                            // No descriptor, no edge: it is for the loop to try again.
                            let in_time = wait.is_some_and(|wait| wait <= self.limits.accept_retry);
                            assert!(in_time, "the loop would sleep past the next try to refuse");
                            waiting_to_be_refused += 1;
                            continue;
                        }
                    }
                    None => continue,
                },
                Kind::Datagram(waiting) if node.may_read && !waiting.is_empty() => "receive",
                Kind::Signals(count) if node.may_read && *count > 0 => "stop",
                _ => continue,
            };
            panic!("the loop sleeps although it could {what}");
        }
        if waiting_to_be_refused > 0 {
            self.count("waited for a place among the refused");
        }
    }

    /// Under `block` nobody is behind for longer than the write timeout, and a little for the turns that it takes to notice.
    pub(crate) fn check_holding_up(&mut self) {
        if !self.plan.fair || self.limits.slow_reader != SlowReader::Block {
            return;
        }
        let patience = self.limits.write_timeout + Duration::from_millis(100);
        for node in self.keys.values().map(|node| &self.nodes[*node]) {
            if let Kind::Stream(pipe) = &node.kind
                && pipe.chats
                && !node.may_write
                && let Some((since, disturbances)) = self.chat_behind_since(pipe.client)
                && disturbances == self.disturbances
            {
                let behind = self.now - since;
                assert!(behind <= patience, "client {} holds up its room: {behind:?} behind", pipe.client);
            }
        }
    }

    /// What all connections but this one are owed.
    fn owed_to_others(&mut self, node: usize) -> usize {
        let others = self.keys.values().filter(|other| **other != node);
        let owed = others.map(|other| match &self.nodes[*other].kind {
            Kind::Stream(pipe) if !pipe.error_seen => pipe.owed(),
            _ => 0,
        });
        owed.sum()
    }

    /// While others are owed the whole memory budget, nobody who is owed bytes is read, and everybody else only a little.
    pub(crate) fn check_lean(&mut self, node: usize, wanted: usize) {
        if self.owed_to_others(node) > self.limits.memory_bytes {
            self.count("read with the memory budget used up");
            assert!(wanted <= self.limits.lean_read_bytes, "a read of {wanted} bytes although memory is short");
            let pipe = self.nodes[node].pipe();
            let (owed, client) = (pipe.owed(), pipe.client);
            assert!(
                owed == 0 || self.clients[client].is_told(),
                "read although it is owed {owed} bytes and memory is short"
            );
        }
    }

    /// Asserts that a node may be used at all.
    pub(crate) fn in_use(&mut self, node: usize) -> &mut Node {
        let used = &mut self.nodes[node];
        assert!(used.key.is_some() && !used.dropped, "a socket is used that is not watched");
        used
    }

    /// Nobody takes more of one socket in a turn than was agreed; only when it stops, the loop takes what it can.
    pub(crate) fn takes(&mut self, node: usize, count: usize) {
        self.nodes[node].taken_now += count;
        let (budget, what) = match self.nodes[node].kind {
            Kind::Stream(_) => (self.limits.read_budget_bytes, "bytes"),
            Kind::Listener(_) => (self.limits.accept_budget, "connections"),
            Kind::Datagram(_) => (self.limits.datagram_budget, "datagrams"),
            Kind::Signals(_) => return,
        };
        let taken = self.nodes[node].taken_now;
        // The monitors' door closes last, and lets in whoever waits; and they are heard once more then.
        let is_monitor = match &self.nodes[node].kind {
            Kind::Stream(pipe) => self.clients[pipe.client].service.is_web(),
            _ => what == "connections",
        };
        let closes = self.stopping_now || is_monitor && self.stopped_at.is_some();
        assert!(taken <= budget || closes, "{taken} {what} in one turn, where {budget} are agreed");
    }

    /// Whoever has been told nothing, or that there is nothing, has no reason to ask.
    pub(crate) fn needs_reason(&mut self, node: usize, what: &str) {
        let strict = !self.plan.spurious && !self.stopping_now;
        // Monitors are heard once more when all others have gone.
        let is_monitor = match &self.nodes[node].kind {
            Kind::Stream(pipe) => self.clients[pipe.client].service.is_web(),
            _ => false,
        };
        let strict = strict && !(is_monitor && what == "read" && self.stopped_at.is_some());
        let used = self.in_use(node);
        let reason = if what == "write" { used.may_write } else { used.may_read || used.excused };
        assert!(reason || !strict, "{what} without a reason");
    }
}
