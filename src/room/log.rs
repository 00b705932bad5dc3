//! The log of a room: the bytes that its members share, once for each format that somebody there reads; where the messages in
//! them end; and how many cursors stand at each. A cursor is a message's number, the same in every format, so it cannot stand
//! inside one. Pure.

use super::Seat;
use crate::buffer::Queue;
use crate::wire::Format;
use std::collections::VecDeque;
use std::ops::{AddAssign as _, Range};

/// An emptied log that grew beyond this gives its memory back: 256 KiB, a quarter of the default bound of a room.
const KEPT_BYTES: usize = 256 * 1024;

/// At most so much is gathered for one write to a member that has to be spared its own messages: 64 KiB.
const GATHERED_BYTES: usize = 64 * 1024;

const FORMATS: usize = Format::ALL.len();

#[derive(Debug)]
struct Entry {
    /// Where it ends in each format, counted from the beginning of the log's life.
    ends: [u64; FORMATS],
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
    /// What it reads.
    format: Format,
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

impl Place {
    /// A place for somebody who reads `format`, in no log yet.
    pub(super) fn new(format: Format) -> Place {
        Place { format, ..Place::default() }
    }

    /// What it reads.
    pub(super) fn format(&self) -> Format {
        self.format
    }
}

/// Invariants, for each format that has readers: `starts` + bytes held = the last entry's end; entries before `encoded_from`
/// end at or before `starts`, and no reader's cursor stands at one of those. The cursors of all entries and `at_end`
/// together are the members, those that have fallen out at the oldest entry; entry `first + i` is `entries[i]`.
#[derive(Debug, Default)]
pub(super) struct Log {
    bytes: [Queue; FORMATS],
    /// Where `bytes` begin, counted from the beginning of the log's life.
    starts: [u64; FORMATS],
    /// Members that read each format. What nobody reads is not encoded.
    readers: [u32; FORMATS],
    /// The number of the first entry that was encoded in each format that is read.
    encoded_from: [u64; FORMATS],
    entries: VecDeque<Entry>,
    /// The number of the oldest entry kept.
    first: u64,
    /// Messages ever appended.
    messages: u64,
    /// Members that have read everything.
    at_end: u32,
}

impl Log {
    /// What a message of `len` bytes takes, in every format that is read.
    pub(super) fn cost(&self, len: usize) -> usize {
        self.read_formats().map(|format| format.len(len)).sum::<usize>() + size_of::<Entry>()
    }

    /// What is taken, book-keeping included.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.iter().map(Queue::len).sum::<usize>() + self.entries.len() * size_of::<Entry>()
    }

    fn read_formats(&self) -> impl Iterator<Item = Format> + use<> {
        let readers = self.readers;
        Format::ALL.into_iter().filter(move |format| readers[*format as usize] > 0)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Where it ends in a format, counted in bytes from the beginning of its life.
    fn end(&self, format: Format) -> u64 {
        self.starts[format as usize] + self.bytes[format as usize].len() as u64
    }

    /// What was ever put into it, book-keeping included: the measure of `bytes`, of which small messages are the smaller part.
    pub(super) fn grown(&self) -> u64 {
        Format::ALL.map(|format| self.end(format)).iter().sum::<u64>() + self.next_number() * size_of::<Entry>() as u64
    }

    fn next_number(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    fn messages_before(&self, number: u64) -> u64 {
        self.entries.get((number - self.first) as usize).map_or(self.messages, |entry| entry.messages_before)
    }

    /// Where the entry of that number begins in the bytes of a format; the end, for the number to come.
    fn offset(&self, number: u64, format: Format) -> usize {
        let before = number.checked_sub(self.first + 1).and_then(|index| self.entries.get(index as usize));
        before.map_or(0, |entry| entry.ends[format as usize].saturating_sub(self.starts[format as usize]) as usize)
    }

    fn range(&self, number: u64, format: Format) -> Range<usize> {
        self.offset(number, format)..self.offset(number + 1, format)
    }

    /// The entry of that number, encoded.
    fn encoded(&self, number: u64, format: Format) -> &[u8] {
        &self.bytes[format as usize].as_slice()[self.range(number, format)]
    }

    // Growing and shrinking.

    /// Adds a text, once for each format that is read.
    pub(super) fn append(&mut self, text: &[u8], is_message: bool, author: Seat) {
        for format in self.read_formats() {
            format.push(text, &mut self.bytes[format as usize]);
        }
        let cursors = std::mem::take(&mut self.at_end);
        let (ends, messages_before) = (Format::ALL.map(|format| self.end(format)), self.messages);
        self.entries.push_back(Entry { ends, messages_before, author, is_message, cursors });
        self.messages += u64::from(is_message);
    }

    /// Drops the oldest entry from under whoever stands there: they have fallen out and hold on to the next one, which is where
    /// they will go on. Returns the author, if it was a message.
    pub(super) fn drop_oldest(&mut self) -> Option<Seat> {
        let entry = self.entries.pop_front()?;
        self.entries.front_mut().map_or(&mut self.at_end, |next| &mut next.cursors).add_assign(entry.cursors);
        for ((bytes, start), end) in self.bytes.iter_mut().zip(&mut self.starts).zip(entry.ends) {
            bytes.consume(end.saturating_sub(*start) as usize);
            *start = end.max(*start);
        }
        self.first += 1;
        if self.entries.is_empty() && self.bytes.iter().map(Queue::capacity).sum::<usize>() > KEPT_BYTES {
            (self.bytes, self.entries) = Default::default();
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

    /// Where somebody stands who comes now: `history` messages back, or as far as they are kept. For the first who reads a
    /// format that is encoded here, as far as there is room for that: `most_bytes` are what the log may hold.
    pub(super) fn stand(&mut self, place: &mut Place, history: usize, most_bytes: usize) {
        let format = place.format;
        let wanted = self.messages.saturating_sub(history as u64).max(self.messages_before(self.first));
        // Of those that have the same number of messages before them, the message is the last.
        let index = if wanted < self.messages {
            self.entries.partition_point(|entry| entry.messages_before <= wanted) - 1
        } else {
            self.entries.len()
        };
        let mut cursor = self.first + index as u64;
        if self.readers[format as usize] == 0 {
            cursor = self.encode(cursor, format, most_bytes.saturating_sub(self.bytes()));
            self.encoded_from[format as usize] = cursor;
        }
        cursor = cursor.max(self.encoded_from[format as usize]);
        self.readers[format as usize] += 1;
        *place = Place {
            format,
            came: self.next_number(),
            messages_before: self.messages_before(cursor),
            cursor,
            ..Place::default()
        };
        *self.standing_at(cursor) += 1;
    }

    /// Encodes what is kept from the entry `from` on in a format that nobody has read; later ones only, if all of them do not
    /// fit into `room` bytes. Returns the number of the first.
    fn encode(&mut self, from: u64, format: Format, room: usize) -> u64 {
        // Somebody else reads another format, or there is nothing.
        let Some(other) = self.read_formats().next() else { return self.next_number() };
        let from = from.max(self.encoded_from[other as usize]);
        let (mut first, mut needed) = (self.next_number(), 0);
        while first > from {
            needed += format.len(other.text(self.encoded(first - 1, other)).len());
            if needed > room {
                break;
            }
            first -= 1;
        }
        let mut bytes = std::mem::take(&mut self.bytes[format as usize]);
        let start = self.starts[format as usize];
        for number in first..self.next_number() {
            format.push(other.text(self.encoded(number, other)), &mut bytes);
            self.entries[(number - self.first) as usize].ends[format as usize] = start + bytes.len() as u64;
        }
        self.bytes[format as usize] = bytes;
        first
    }

    /// Somebody goes for good. What nobody else reads is forgotten.
    pub(super) fn leave(&mut self, place: &Place) {
        self.go(place);
        let format = place.format;
        self.readers[format as usize] -= 1;
        if self.readers[format as usize] == 0 {
            self.starts[format as usize] = self.end(format);
            self.bytes[format as usize] = Queue::default();
        }
    }

    /// Somebody does not stand there any more.
    fn go(&mut self, place: &Place) {
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
            return &self.bytes[place.format as usize].as_slice()[self.offset(place.cursor, place.format)..];
        }
        gathered.clear();
        for number in place.cursor..self.next_number() {
            let bytes = self.encoded(number, place.format);
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
            let range = self.range(number, place.format);
            if !self.is_own(place, seat, number) {
                if count < range.len() {
                    if !all {
                        rest(&self.bytes[place.format as usize].as_slice()[range.start + count..range.end]);
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
