//! Rooms: one shared log and many cursors. Publishing is one encode and one append, whatever the number of members; a
//! member is a cursor, which always stands at a message boundary. Pure: no socket, no clock. Who is called what, too.

mod log;
mod name;

use crate::limits::{Limits, SlowReader};
use crate::slots::Id;
use crate::time::Moment;
use crate::wire::Format;
use log::{Log, Place};
use name::Name;
use slab::Slab;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

/// What a room tells its members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event<'a> {
    Join { name: &'a str },
    Leave { name: &'a str, why: &'a str },
    Nick { old: &'a str, new: &'a str },
    Message { name: &'a str, text: &'a str },
}

impl Event<'_> {
    /// Whether it is a message, which is counted and waits for room, or a notice, which is neither.
    fn is_message(&self) -> bool {
        matches!(self, Event::Message { .. })
    }
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Join { name } => write!(f, "JOIN {name}"),
            Event::Leave { name, why } => write!(f, "LEAVE {name}: {why}"),
            Event::Nick { old, new } => write!(f, "NICK {old}: {new}"),
            Event::Message { name, text } => write!(f, "MESSAGE {name}: {text}"),
        }
    }
}

/// A member's place in a room; four bytes, also as an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat(NonZeroU32);

impl Seat {
    fn new(key: usize) -> Seat {
        Seat(NonZeroU32::MIN.saturating_add(key as u32)) // as many as connections: far below 2^32
    }

    fn key(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// Why somebody could not have what they asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Longer than a name may be.
    TooLong,
    /// As many rooms as there may be.
    TooManyRooms,
    /// Somebody else has that name.
    Taken,
}

/// What is to be written to a member next.
#[derive(Debug, PartialEq, Eq)]
pub enum Offer<'a> {
    /// Nothing: it has everything.
    Nothing,
    /// Whole messages, one or more.
    Bytes(&'a [u8]),
    /// It fell out of the log and goes on at the oldest message kept; so many messages of others are gone. At least 1.
    Missed(u64),
}

struct Member {
    id: Id,
    room: usize,
    name: Name,
    /// Where it stands in its room's list of seats.
    index: u32,
    place: Place,
    /// Since when it does not have everything.
    behind_since: Option<Moment>,
    /// Stands on the room's list of waiting publishers, or is recalled from there.
    waits: bool,
}

/// Ten thousand members are a megabyte and a bit: what somebody who sits in a room takes besides a connection.
const _: () = assert!(size_of::<Member>() <= 128);

struct Room {
    name: Name,
    seats: Vec<Seat>,
    log: Log,
    /// The pass over the members that is under way: seats from here on have not been offered the news.
    next: usize,
    /// How far the log had grown when that pass began.
    pass_end: u64,
    /// All members have been offered what it had grown to then.
    offered: u64,
    /// Stands on the list of rooms with news.
    queued: bool,
    /// Publishers that wait until there is room.
    waiting: Vec<Seat>,
    /// Join and leave notices are rationed by this.
    notices: Bucket,
}

/// A ration of so many a second, twice that at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    /// When the bucket is full again.
    full_at: Option<Moment>,
}

impl Bucket {
    /// Whether nothing of it is used up.
    pub fn is_full(&self, now: Moment) -> bool {
        self.full_at.is_none_or(|at| at <= now)
    }

    /// Takes one, if there is one.
    ///
    /// ```
    /// use oneloop::{room::Bucket, time::Moment};
    /// use std::time::Duration;
    ///
    /// let mut bucket = Bucket::default();
    /// let now = Moment::START;
    /// assert_eq!((0..100).filter(|_| bucket.take(now, Some(10))).count(), 20);
    /// assert_eq!((0..100).filter(|_| bucket.take(now + Duration::from_secs(1), Some(10))).count(), 10);
    /// assert!(bucket.take(now, None)); // no ration
    /// ```
    pub fn take(&mut self, now: Moment, per_second: Option<u32>) -> bool {
        let Some(per_second) = per_second else { return true };
        let each = Duration::from_secs(1) / per_second;
        let full_at = self.full_at.map_or(now, |at| at.max(now)) + each;
        let fits = full_at - now <= each * 2 * per_second;
        if fits {
            self.full_at = Some(full_at);
        }
        fits
    }
}

/// All rooms, and everybody in them.
#[derive(Default)]
pub struct Rooms {
    rooms: Slab<Room>,
    members: Slab<Member>,
    by_name: HashMap<Name, usize>,
    nicks: HashMap<Name, Seat>,
    /// Guest names given so far.
    guests: u64,
    /// Rooms whose members have not all been offered the news.
    news: VecDeque<usize>,
    /// Publishers to look at again whatever the passes do: they need not wait any longer, perhaps.
    recalled: Vec<(Seat, Id)>,
    /// For encoding, and for what is not contiguous.
    scratch: String,
    gathered: Vec<u8>,
    /// Rooms whose publishers wait because the other rooms leave them no memory.
    squeezed: Vec<usize>,
    /// What all logs hold, in bytes.
    bytes: usize,
    notices_dropped: u64,
}

impl fmt::Debug for Rooms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rooms, {} members, {} bytes", self.rooms.len(), self.members.len(), self.bytes)
    }
}

impl Rooms {
    /// What all logs hold, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many rooms there are.
    pub fn len(&self) -> usize {
        self.rooms.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rooms.is_empty()
    }

    /// Notices that the ration or a full log kept back.
    pub fn notices_dropped(&self) -> u64 {
        self.notices_dropped
    }

    /// How many members all rooms have.
    pub fn members(&self) -> usize {
        self.members.len()
    }

    // Who and where.

    /// Seats `id`, who reads `format`, in `room`, even if that is one too many, under a free guest name; the others are told.
    pub fn enter(&mut self, id: Id, room: &str, format: Format, now: Moment, limits: &Limits) -> Seat {
        let room = self.room_named(room, usize::MAX).expect("no limit, and a name of ours");
        let name = loop {
            self.guests += 1;
            match Name::new(&format!("guest-{}", self.guests)) {
                Some(name) if !self.nicks.contains_key(&name) => break name,
                Some(_) => (),
                None => self.guests = 0, // after a hundred million million of them
            }
        };
        let place = Place::new(format);
        let member = Member { id, room, name, index: 0, place, behind_since: None, waits: false };
        let seat = Seat::new(self.members.insert(member));
        self.nicks.insert(name, seat);
        self.sit(seat, room, now, limits);
        seat
    }

    /// Moves a member to another room; both are told. Returns whether it was not there already.
    ///
    /// # Errors
    /// The room would be one more than `most_rooms`, or its name is too long.
    pub fn move_to(
        &mut self,
        seat: Seat,
        room: &str,
        most_rooms: usize,
        why: &str,
        now: Moment,
        limits: &Limits,
    ) -> Result<bool, Refused> {
        let room = self.room_named(room, most_rooms)?;
        if room == self.members[seat.key()].room {
            return Ok(false);
        }
        self.stand_up(seat, Some(why), now, limits);
        self.sit(seat, room, now, limits);
        Ok(true)
    }

    /// Takes a member out of its room, for good; the others are told `why`, if there is one.
    pub fn leave(&mut self, seat: Seat, why: Option<&str>, now: Moment, limits: &Limits) {
        self.stand_up(seat, why, now, limits);
        let member = self.members.remove(seat.key());
        self.nicks.remove(&member.name.folded());
    }

    /// Gives a member another name; the others are told. The caller has judged the name.
    ///
    /// # Errors
    /// Somebody has it, or it is too long.
    pub fn rename(&mut self, seat: Seat, new: &str, limits: &Limits) -> Result<(), Refused> {
        let name = Name::new(new).ok_or(Refused::TooLong)?;
        if self.nicks.get(&name.folded()).is_some_and(|holder| *holder != seat) {
            return Err(Refused::Taken);
        }
        let old = std::mem::replace(&mut self.members[seat.key()].name, name);
        self.nicks.remove(&old.folded());
        self.nicks.insert(name.folded(), seat);
        if !self.publish(seat, Event::Nick { old: &old, new }, limits) {
            self.notices_dropped += 1;
        }
        Ok(())
    }

    /// What a member is called.
    pub fn name(&self, seat: Seat) -> &str {
        &self.members[seat.key()].name
    }

    /// What its room is called.
    pub fn room(&self, seat: Seat) -> &str {
        &self.rooms[self.members[seat.key()].room].name
    }

    /// How it reads what is said there.
    pub fn format(&self, seat: Seat) -> Format {
        self.members[seat.key()].place.format()
    }

    /// The names of all in its room, itself among them.
    pub fn who(&self, seat: Seat) -> impl ExactSizeIterator<Item = &str> {
        self.rooms[self.members[seat.key()].room].seats.iter().map(|seat| &*self.members[seat.key()].name)
    }

    /// Who is called that, in whatever room and case.
    pub fn find(&self, name: &str) -> Option<(Id, &str)> {
        let seat = self.nicks.get(&Name::new(name)?.folded())?;
        let member = &self.members[seat.key()];
        Some((member.id, &member.name))
    }

    // Publishing.

    /// Says something in a member's room. Returns whether it went into the log.
    pub fn say(&mut self, seat: Seat, text: &str, limits: &Limits) -> bool {
        let name = self.members[seat.key()].name;
        self.publish(seat, Event::Message { name: &name, text }, limits)
    }

    fn publish(&mut self, seat: Seat, event: Event<'_>, limits: &Limits) -> bool {
        use fmt::Write as _;
        self.scratch.clear();
        let _ = write!(self.scratch, "{event}"); // a string takes everything
        let room = self.members[seat.key()].room;
        let most = self.most_bytes(room, limits);
        let needed = self.rooms[room].log.cost(self.scratch.len());
        if limits.slow_reader == SlowReader::Block && !self.has_room(room, needed, most) {
            return false;
        }
        let log = &mut self.rooms[room].log;
        let before = log.bytes();
        while log.bytes() + needed > most && !log.is_empty() {
            // The oldest goes from under whoever has not read it. Its author has not missed it.
            if let Some(author) = log.drop_oldest()
                && let Some(member) = self.members.get_mut(author.key())
                && member.room == room
            {
                log.dropped_from(&mut member.place);
            }
        }
        log.append(self.scratch.as_bytes(), event.is_message(), seat);
        self.bytes = self.bytes - before + log.bytes();
        log.published(&mut self.members[seat.key()].place);
        self.announce(room);
        true
    }

    /// Whether what a member says has to wait: until all others were offered what was said before, or, under `block`, until
    /// the slowest has read enough.
    pub fn must_wait(&mut self, seat: Seat, limits: &Limits) -> bool {
        let key = self.members[seat.key()].room;
        let most = self.most_bytes(key, limits);
        let room = &self.rooms[key];
        // In the measure of the log's bound: whoever keeps up must not fall out before its turn to be written to comes.
        let ahead = (room.log.grown() - room.offered) as usize > most / 2;
        if limits.slow_reader != SlowReader::Block {
            return ahead;
        }
        let needed = room.log.cost(limits.largest_message_bytes()) + limits.notice_reserve_bytes();
        !self.has_room(key, needed, most) || (ahead && !self.rooms[key].log.is_empty())
    }

    /// Whether a log that may hold `most` bytes can take `needed` more without dropping what somebody has not read; history
    /// gives way. An empty log takes any message, however little the other rooms have left it.
    fn has_room(&mut self, key: usize, needed: usize, most: usize) -> bool {
        let log = &mut self.rooms[key].log;
        let before = log.bytes();
        if before + needed <= most {
            return true;
        }
        log.trim_read(0);
        let (now, is_empty) = (log.bytes(), log.is_empty());
        if now < before {
            self.freed(before - now);
        }
        is_empty || now + needed <= most
    }

    /// How much this room's log may hold: its bound, or what the other logs leave of the memory budget.
    fn most_bytes(&self, room: usize, limits: &Limits) -> usize {
        let elsewhere = self.bytes - self.rooms[room].log.bytes();
        limits.room_log_bytes.min(limits.memory_bytes.saturating_sub(elsewhere))
    }

    /// Has a publisher recalled when it need not wait any longer.
    pub fn wait(&mut self, seat: Seat, limits: &Limits) {
        let room = self.members[seat.key()].room;
        if !std::mem::replace(&mut self.members[seat.key()].waits, true) {
            self.rooms[room].waiting.push(seat);
        }
        if self.most_bytes(room, limits) < limits.room_log_bytes && !self.squeezed.contains(&room) {
            self.squeezed.push(room);
        }
    }

    // Delivering.

    /// Whether some member has not been offered the news.
    pub fn has_news(&self) -> bool {
        !self.news.is_empty() || !self.recalled.is_empty()
    }

    /// The next member to be offered the news, room by room in turn. Each pass over a room comes to an end.
    pub fn next_with_news(&mut self) -> Option<Id> {
        while let Some((seat, id)) = self.recalled.pop() {
            // Unless it has gone meanwhile, to another room or for good.
            if let Some(member) = self.members.get_mut(seat.key()).filter(|member| member.id == id)
                && std::mem::take(&mut member.waits)
            {
                return Some(id);
            }
        }
        loop {
            let key = self.news.pop_front()?;
            let Some(room) = self.rooms.get_mut(key) else { continue };
            if room.next == 0 {
                // Only now: all that was said in this turn goes with this pass, and needs no second one.
                room.pass_end = room.log.grown();
            }
            if let Some(seat) = room.seats.get(room.next) {
                room.next += 1;
                self.news.push_back(key);
                return Some(self.members[seat.key()].id);
            }
            room.offered = room.pass_end;
            room.queued = false;
            self.recall_waiting(key);
            if self.rooms[key].log.grown() > self.rooms[key].pass_end {
                self.announce(key);
            }
        }
    }

    /// Whether there is something for this member in its room's log.
    pub fn is_pending(&self, seat: Seat) -> bool {
        let member = &self.members[seat.key()];
        self.rooms[member.room].log.is_pending(&member.place)
    }

    /// Whether it has fallen out of the log, and the policy is to close it. Whoever was only spared its own messages has missed
    /// nothing.
    pub fn is_too_slow(&self, seat: Seat, limits: &Limits) -> bool {
        let member = &self.members[seat.key()];
        limits.slow_reader == SlowReader::Disconnect && self.rooms[member.room].log.missed(&member.place) > 0
    }

    /// What comes next for this member: at most what one write can hold, whole messages, never its own.
    pub fn offer(&mut self, seat: Seat, limits: &Limits) -> Offer<'_> {
        let member = &mut self.members[seat.key()];
        let key = member.room;
        let room = &mut self.rooms[key];
        if room.log.has_fallen(&member.place) {
            let missed = room.log.missed(&member.place);
            room.log.go_on_at_oldest(&mut member.place);
            if missed > 0 {
                return Offer::Missed(missed);
            }
        }
        room.log.skip_own(&mut member.place, seat);
        self.trim(key, limits);
        let place = &self.members[seat.key()].place;
        match self.rooms[key].log.unread(place, seat, &mut self.gathered) {
            [] => Offer::Nothing,
            bytes => Offer::Bytes(bytes),
        }
    }

    /// The kernel took `count` bytes of what was offered. Where that is inside a message, or the kernel took nothing, the rest
    /// of the message begun is returned, for the outbox: the cursor stands behind it. `rest` is asked for only if the kernel
    /// took less than was offered.
    pub fn advance(&mut self, seat: Seat, count: usize, offered: usize, limits: &Limits, mut rest: impl FnMut(&[u8])) {
        let member = &mut self.members[seat.key()];
        let key = member.room;
        let room = &mut self.rooms[key];
        if count == offered && !room.log.has_own(&member.place) {
            room.log.go_to_end(&mut member.place);
        } else {
            room.log.go_on(&mut member.place, seat, count, count == offered, &mut rest);
        }
        self.trim(key, limits);
    }

    /// Drops what everybody has read, but for the history; that gives way, too, where publishers wait for room.
    fn trim(&mut self, key: usize, limits: &Limits) {
        let room = &mut self.rooms[key];
        let before = room.log.bytes();
        let gives_way = limits.slow_reader == SlowReader::Block && !room.waiting.is_empty();
        room.log.trim_read(if gives_way { 0 } else { limits.history });
        let dropped = before - room.log.bytes();
        if dropped > 0 {
            self.freed(dropped);
            if limits.slow_reader == SlowReader::Block {
                self.recall_waiting(key); // else they wait for the pass to end
            }
        }
    }

    /// Some room's log has become smaller by so much: others may grow.
    fn freed(&mut self, bytes: usize) {
        self.bytes -= bytes;
        while let Some(room) = self.squeezed.pop() {
            self.recall_waiting(room);
        }
    }

    /// Takes note of whether a member has everything; `now` is when it was looked at.
    pub fn note(&mut self, seat: Seat, has_everything: bool, now: Moment) {
        let since = &mut self.members[seat.key()].behind_since;
        *since = if has_everything { None } else { since.or(Some(now)) };
    }

    /// Since when a member does not have everything.
    pub fn behind_since(&self, seat: Seat) -> Option<Moment> {
        self.members[seat.key()].behind_since
    }

    /// Lets the publishers try again. One that still has to wait says so by waiting again.
    fn recall_waiting(&mut self, room: usize) {
        let Some(room) = self.rooms.get_mut(room) else { return };
        for seat in room.waiting.drain(..) {
            self.recalled.push((seat, self.members[seat.key()].id));
        }
    }

    /// Begins a pass over a room's members, unless one is under way: then another follows it.
    fn announce(&mut self, key: usize) {
        let room = &mut self.rooms[key];
        if !room.queued {
            room.queued = true;
            room.next = 0;
            self.news.push_back(key);
        }
    }

    fn room_named(&mut self, name: &str, most: usize) -> Result<usize, Refused> {
        let name = Name::new(name).ok_or(Refused::TooLong)?;
        if let Some(room) = self.by_name.get(&name.folded()) {
            return Ok(*room);
        }
        if self.rooms.len() >= most {
            return Err(Refused::TooManyRooms);
        }
        let room = self.rooms.insert(Room {
            name,
            seats: Vec::new(),
            log: Log::default(),
            next: 0,
            pass_end: 0,
            offered: 0,
            queued: false,
            waiting: Vec::new(),
            notices: Bucket::default(),
        });
        self.by_name.insert(name.folded(), room);
        Ok(room)
    }

    fn sit(&mut self, seat: Seat, key: usize, now: Moment, limits: &Limits) {
        let most = self.most_bytes(key, limits);
        let room = &mut self.rooms[key];
        let member = &mut self.members[seat.key()];
        (member.room, member.index) = (key, room.seats.len() as u32);
        member.behind_since = None;
        room.seats.push(seat);
        let before = room.log.bytes();
        room.log.stand(&mut member.place, limits.history, most);
        self.bytes = self.bytes - before + room.log.bytes();
        self.notice(seat, None, now, limits);
        self.announce(key);
    }

    fn stand_up(&mut self, seat: Seat, why: Option<&str>, now: Moment, limits: &Limits) {
        if why.is_some() {
            self.notice(seat, why, now, limits);
        }
        let member = &mut self.members[seat.key()];
        let (key, index) = (member.room, member.index);
        let room = &mut self.rooms[key];
        let before = room.log.bytes();
        room.log.leave(&member.place);
        let forgotten = before - room.log.bytes();
        if forgotten > 0 {
            self.freed(forgotten);
        }
        self.trim(key, limits);
        let (room, member) = (&mut self.rooms[key], &mut self.members[seat.key()]);
        room.waiting.retain(|waiting| *waiting != seat);
        member.waits = false;
        // What a pass has offered to stays before what it has not: its last one fills the gap, and the last of all that one's.
        let mut gap = index as usize;
        if gap < room.next {
            room.next -= 1;
            room.seats.swap(gap, room.next);
            self.members[room.seats[gap].key()].index = gap as u32;
            gap = room.next;
        }
        room.seats.swap_remove(gap);
        if let Some(moved) = room.seats.get(gap) {
            self.members[moved.key()].index = gap as u32;
        }
        if room.seats.is_empty() {
            let room = self.rooms.remove(key);
            self.by_name.remove(&room.name.folded());
            self.freed(room.log.bytes());
        } else {
            self.recall_waiting(key);
        }
    }

    /// Tells the others that somebody came (`why` is `None`) or went, if the ration of such notices allows.
    fn notice(&mut self, seat: Seat, why: Option<&str>, now: Moment, limits: &Limits) {
        let member = &mut self.members[seat.key()];
        if !self.rooms[member.room].notices.take(now, limits.chat_rate) {
            self.notices_dropped += 1;
            return;
        }
        let name = member.name;
        let event = why.map_or(Event::Join { name: &name }, |why| Event::Leave { name: &name, why });
        if !self.publish(seat, event, limits) {
            self.notices_dropped += 1;
        }
    }
}
