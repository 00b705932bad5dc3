//! Deadlines in a heap that learns of changes late: activity moves a deadline in its slot only, and the heap finds out
//! when the old one fires. Touches nothing but ids and moments.

use crate::slots::Id;
use crate::time::Moment;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Wake-ups to come, soonest first.
///
/// An entry is a hint, not a verdict: whoever pops it asks its slot what is due now.
///
/// ```
/// use oneloop::{slots::Slots, time::Moment, timers::Timers};
/// use std::time::Duration;
///
/// let id = Slots::new().insert(());
/// let mut timers = Timers::default();
/// timers.arm(Moment::START + Duration::from_secs(1), id);
/// assert_eq!(timers.pop_due(Moment::START), None);
/// let due = timers.next().unwrap();
/// assert_eq!(timers.pop_due(due), Some((due, id)));
/// assert_eq!(timers.next(), None);
/// ```
#[derive(Debug, Default)]
pub struct Timers {
    heap: BinaryHeap<Reverse<Entry>>,
}

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    at: Moment,
    id: Id,
}

impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> std::cmp::Ordering {
        (self.at, self.id.serial()).cmp(&(other.at, other.id.serial()))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Timers {
    /// Adds a wake-up for `id`.
    pub fn arm(&mut self, at: Moment, id: Id) {
        self.heap.push(Reverse(Entry { at, id }));
    }

    /// When the soonest one is due.
    pub fn next(&self) -> Option<Moment> {
        self.heap.peek().map(|Reverse(entry)| entry.at)
    }

    /// Takes the soonest one out, if it is due.
    pub fn pop_due(&mut self, now: Moment) -> Option<(Moment, Id)> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| (entry.at, entry.id))
    }

    /// How many entries there are, superseded ones among them.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// Drops every entry of which `live` says no. Linear: the caller does it when more than half must be dead.
    pub fn compact(&mut self, mut live: impl FnMut(Moment, Id) -> bool) {
        self.heap.retain(|Reverse(entry)| live(entry.at, entry.id));
    }
}
