//! The log of a room: bytes that all members share, the ends of the messages in them, and how many cursors stand at each.
//! A cursor is a message's number, so it cannot stand inside one. Pure.

use super::Seat;
use crate::buffer::Queue;
use std::collections::VecDeque;
use std::ops::AddAssign as _;

/// An emptied log that grew beyond this gives its memory back: 256 KiB, a quarter of the default bound of a room.
const KEPT_BYTES: usize = 256 * 1024;

/// At most so much is gathered for one write to a member that has to be spared its own messages: 64 KiB.
const GATHERED_BYTES: usize = 64 * 1024;

#[derive(Debug)]
struct Entry {
    /// Where it ends, counted from the beginning of the log's life.
    end: u64,
    /// Messages (not notices) before it, counted likewise.
    messages_before: u64,
    author: Seat,
    is_message: bool,
    /// Members that have read everything before it and nothing of it.
    cursors: u32,
}

/// Where a member stands. Meaningful together with its room's log only.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    /// The number of the next entry to read.
    cursor: u64,
    /// The number that was next when it came: older entries are not its own, whoever had its seat then.
    came: u64,
    /// One more than the number of its own last entry; 0 if it has none.
    own_end: u64,
    /// Messages before the cursor.
    messages_before: u64,
    /// Own messages among those that were dropped from under the cursor.
    own_dropped: u64,
}

/// Invariants: `start` + bytes held = the last entry's end; the cursors of all entries and `at_end` together are the members,
/// those that have fallen out at the oldest entry; entry `first + i` is `entries[i]`.
#[derive(Debug, Default)]
pub(super) struct Log {
    bytes: Queue,
    /// Where `bytes` begins, counted from the beginning of the log's life.
    start: u64,
    entries: VecDeque<Entry>,
    /// The number of the oldest entry kept.
    first: u64,
    /// Messages ever appended.
    messages: u64,
    /// Members that have read everything.
    at_end: u32,
}

impl Log {
    /// What a message of `len` bytes takes.
    pub(super) fn cost(len: usize) -> usize {
        len + size_of::<Entry>()
    }

    /// What is taken, book-keeping included.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len() + self.entries.len() * size_of::<Entry>()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Where it ends, counted in bytes from the beginning of its life.
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// What was ever put into it, book-keeping included: the measure of `bytes`, of which small messages are the smaller part.
    pub(super) fn grown(&self) -> u64 {
        self.end() + self.next_number() * size_of::<Entry>() as u64
    }

    fn next_number(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    fn messages_before(&self, number: u64) -> u64 {
        self.entries.get((number - self.first) as usize).map_or(self.messages, |entry| entry.messages_before)
    }

    /// Where the entry of that number begins in `bytes`; the end, for the number to come.
    fn offset(&self, number: u64) -> usize {
        let before = number.checked_sub(self.first + 1).and_then(|index| self.entries.get(index as usize));
        before.map_or(0, |entry| (entry.end - self.start) as usize)
    }

    // Growing and shrinking.

    pub(super) fn append(&mut self, bytes: &[u8], is_message: bool, author: Seat) {
        self.bytes.push(bytes);
        let cursors = std::mem::take(&mut self.at_end);
        let (end, messages_before) = (self.end(), self.messages);
        self.entries.push_back(Entry { end, messages_before, author, is_message, cursors });
        self.messages += u64::from(is_message);
    }

    /// Drops the oldest entry from under whoever stands there: they have fallen out and hold on to the next one, which is where
    /// they will go on. Returns the author, if it was a message.
    pub(super) fn drop_oldest(&mut self) -> Option<Seat> {
        let entry = self.entries.pop_front()?;
        self.entries.front_mut().map_or(&mut self.at_end, |next| &mut next.cursors).add_assign(entry.cursors);
        self.bytes.consume((entry.end - self.start) as usize);
        self.start = entry.end;
        self.first += 1;
        if self.entries.is_empty() && self.bytes.capacity() > KEPT_BYTES {
            (self.bytes, self.entries) = (Queue::default(), VecDeque::new());
        }
        entry.is_message.then_some(entry.author)
    }

    /// Drops what everybody has read, but for the last `history` messages and the notices behind the first of them.
    pub(super) fn trim_read(&mut self, history: usize) {
        while let Some(entry) = self.entries.front()
            && entry.cursors == 0
            && (!entry.is_message || self.messages - entry.messages_before > history as u64)
        {
            self.drop_oldest();
        }
    }

    // Cursors.

    /// Where somebody stands who comes now: `history` messages back, or as far as they are kept.
    pub(super) fn stand(&mut self, place: &mut Place, history: usize) {
        let wanted = self.messages.saturating_sub(history as u64).max(self.messages_before(self.first));
        // Of those that have the same number of messages before them, the message is the last.
        let index = if wanted < self.messages {
            self.entries.partition_point(|entry| entry.messages_before <= wanted) - 1
        } else {
            self.entries.len()
        };
        let cursor = self.first + index as u64;
        *place = Place {
            came: self.next_number(),
            messages_before: self.messages_before(cursor),
            cursor,
            ..Place::default()
        };
        *self.standing_at(cursor) += 1;
    }

    /// Somebody goes.
    pub(super) fn go(&mut self, place: &Place) {
        *self.standing_at(place.cursor.max(self.first)) -= 1;
    }

    fn standing_at(&mut self, number: u64) -> &mut u32 {
        let index = (number - self.first) as usize;
        match self.entries.get_mut(index) {
            Some(entry) => &mut entry.cursors,
            None => &mut self.at_end,
        }
    }

    fn shift(&mut self, place: &mut Place, cursor: u64) {
        self.go(place);
        (place.cursor, place.messages_before, place.own_dropped) = (cursor, self.messages_before(cursor), 0);
        *self.standing_at(cursor) += 1;
    }

    /// Whether the oldest entry kept is newer than the one it would read next.
    pub(super) fn has_fallen(&self, place: &Place) -> bool {
        place.cursor < self.first
    }

    /// How many messages of others it has missed, if it has fallen.
    pub(super) fn missed(&self, place: &Place) -> u64 {
        if !self.has_fallen(place) {
            return 0;
        }
        self.messages_before(self.first) - place.messages_before - place.own_dropped
    }

    /// Takes up one that has fallen.
    pub(super) fn go_on_at_oldest(&mut self, place: &mut Place) {
        self.shift(place, self.first);
    }

    /// Whether there is anything that it has not read, its own included.
    pub(super) fn is_pending(&self, place: &Place) -> bool {
        place.cursor < self.next_number()
    }

    /// Whether something of its own lies before it.
    pub(super) fn has_own(&self, place: &Place) -> bool {
        place.own_end > place.cursor
    }

    /// Goes past its own entries, if it stands at one.
    pub(super) fn skip_own(&mut self, place: &mut Place, seat: Seat) {
        while self.has_own(place) && self.is_own(place, seat, place.cursor) {
            self.shift(place, place.cursor + 1);
        }
    }

    fn is_own(&self, place: &Place, seat: Seat, number: u64) -> bool {
        number >= place.came
            && self.entries.get((number - self.first) as usize).is_some_and(|entry| entry.author == seat)
    }

    /// What it has not read: one slice of the log, or, where its own messages lie between, gathered.
    pub(super) fn unread<'a>(&'a self, place: &Place, seat: Seat, gathered: &'a mut Vec<u8>) -> &'a [u8] {
        if !self.has_own(place) {
            return &self.bytes.as_slice()[self.offset(place.cursor)..];
        }
        gathered.clear();
        for number in place.cursor..self.next_number() {
            let bytes = &self.bytes.as_slice()[self.offset(number)..self.offset(number + 1)];
            if !self.is_own(place, seat, number) {
                if !gathered.is_empty() && gathered.len() + bytes.len() > GATHERED_BYTES {
                    break;
                }
                gathered.extend_from_slice(bytes);
            }
        }
        gathered
    }

    /// It has read everything.
    pub(super) fn go_to_end(&mut self, place: &mut Place) {
        self.shift(place, self.next_number());
    }

    /// It has read `count` bytes of what `unread` gave. If that was not all, the rest of the message begun, or else the next
    /// one whole, is read too, by way of `rest`: so the cursor stands at a boundary and the peer is owed something.
    pub(super) fn go_on(
        &mut self,
        place: &mut Place,
        seat: Seat,
        mut count: usize,
        all: bool,
        rest: &mut impl FnMut(&[u8]),
    ) {
        let mut number = place.cursor;
        while number < self.next_number() {
            let range = self.offset(number)..self.offset(number + 1);
            if !self.is_own(place, seat, number) {
                if count < range.len() {
                    if !all {
                        rest(&self.bytes.as_slice()[range.start + count..range.end]);
                        number += 1;
                    }
                    break;
                }
                count -= range.len();
            }
            number += 1;
        }
        self.shift(place, number);
    }

    /// Takes note that its last entry is the newest.
    pub(super) fn published(&self, place: &mut Place) {
        place.own_end = self.next_number();
    }

    /// Takes note that a message of its author was just dropped.
    pub(super) fn dropped_from(&self, place: &mut Place) {
        if self.has_fallen(place) && place.came < self.first {
            place.own_dropped += 1;
        }
    }
}
