//! Rooms against a naive oracle: every member has a plain queue of the lines it must be given, and random talk, moves,
//! partial writes and slow readers must give it exactly those, in its own format: some read lines, some WebSocket frames, which
//! are taken apart here strictly. No socket, no clock; a seed replays everything:
//! `ONELOOP_SEED=7 cargo test --test rooms`.

use oneloop::limits::{Limits, SlowReader};
use oneloop::room::{Offer, Rooms, Seat};
use oneloop::slots::{Id, Slots};
use oneloop::time::Moment;
use oneloop::wire::Format;
use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

const SEEDS: u64 = 4000;
const STEPS: usize = 300;
const ROOMS: [&str; 4] = ["lobby", "north", "South", "a-b_9"];

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `end`, which is not 0.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn one_in(&mut self, end: usize) -> bool {
        self.below(end) == 0
    }
}

/// Says where a run was when it failed.
struct Replay {
    seed: u64,
    step: Cell<usize>,
}

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed in step {}: ONELOOP_SEED={} replays it", self.step.get(), self.seed);
        }
    }
}

/// What a member has to be given, sooner or later.
#[derive(Clone, Debug)]
struct Due {
    line: String,
    is_message: bool,
    /// Whether it may be left out without a word: history, which is shown as far as it is kept, and notices of which it is
    /// not known whether the log had room for them.
    may_lack: bool,
    /// What was published in the room before it.
    number: usize,
}

/// A room as the oracle sees it: all that was ever published.
#[derive(Default)]
struct Story {
    published: Vec<Due>,
    /// What was published before each, in bytes of each format; and all of it, last.
    before: Vec<[usize; 2]>,
    /// So much was published when each format was last read; all of it, while it is.
    read_until: [usize; 2],
    /// From here on it is certain that the log had room for a format's bytes.
    encoded_from: [usize; 2],
}

impl Story {
    fn push(&mut self, due: Due) {
        let text = due.line.len() - 1;
        let mut end = self.end();
        for format in Format::ALL {
            end[format as usize] += encoded(format, &due.line[..text]).len();
        }
        if self.before.is_empty() {
            self.before.push([0, 0]);
        }
        self.before.push(end);
        self.published.push(due);
    }

    fn end(&self) -> [usize; 2] {
        self.before.last().copied().unwrap_or_default()
    }

    /// What all that was published from one message on takes in a format.
    fn bytes(&self, from: usize, format: Format) -> usize {
        let before = self.before.get(from).copied().unwrap_or_default();
        self.end()[format as usize] - before[format as usize]
    }

    /// The most that the log can ever have held from a message on, book-keeping included.
    fn since(&self, from: usize, overhead: usize) -> usize {
        let was_read = |format: &Format| self.read_until[*format as usize] > from;
        let bytes: usize = Format::ALL.into_iter().filter(was_read).map(|format| self.bytes(from, format)).sum();
        bytes + (self.published.len() - from) * overhead
    }
}

struct Member {
    id: Id,
    seat: Seat,
    format: Format,
    name: String,
    room: &'static str,
    /// Takes everything at once, whenever it is asked.
    fast: bool,
    /// What a slow one takes before it must be read again.
    window: usize,
    writable: bool,
    outbox: Vec<u8>,
    /// Came out of the socket, the last line or frame perhaps unfinished.
    received: Vec<u8>,
    due: VecDeque<Due>,
    private: VecDeque<String>,
    /// Messages that it was told it missed, since the last line that came from the log.
    missed: usize,
    /// So many of the next `MISSED` lines are about a room that it has left.
    missed_elsewhere: usize,
    /// Waits to say something.
    waits: bool,
    joined: bool,
}

struct World {
    random: Random,
    limits: Limits,
    rooms: Rooms,
    ids: Slots<()>,
    members: Vec<Member>,
    stories: HashMap<&'static str, Story>,
    /// What an entry takes besides its bytes.
    overhead: usize,
    /// Memory is tighter than all logs together.
    tight: bool,
    /// Publishers say what they want, whatever `must_wait` says.
    unruly: bool,
    /// Of so many who come, one reads frames; or all but one.
    mix: (usize, bool),
    now: Moment,
    count: usize,
    told_missed: usize,
    closed_slow: usize,
    waited: usize,
    given: [usize; 2],
    /// Times that somebody brought a format into a room with a history, of which all had to be encoded for it, or not.
    brought: [usize; 2],
    /// Times that the last reader of a format went and others stayed.
    forgotten: usize,
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = Random(seed);
        let max_line_bytes = 8 + random.below(60);
        let mut limits = Limits {
            max_line_bytes,
            slow_reader: [SlowReader::Skip, SlowReader::Disconnect, SlowReader::Block][seed as usize % 3],
            history: [0, 0, 1, 3, 12][random.below(5)],
            chat_rate: [None, None, None, Some(1), Some(50)][random.below(5)],
            max_rooms: 2 + random.below(4),
            ..Limits::default()
        };
        limits.room_log_bytes = limits.least_room_log_bytes() * (1 + random.below(4));
        let tight = random.one_in(4);
        if tight {
            limits.memory_bytes = (limits.room_log_bytes / (1 + random.below(6))).max(2 * max_line_bytes);
        }
        assert_eq!(limits.check(), Ok(()));
        World {
            unruly: limits.slow_reader != SlowReader::Block && random.one_in(3),
            mix: (1 + random.below(5), random.one_in(2)),
            overhead: overhead(),
            random,
            limits,
            rooms: Rooms::default(),
            ids: Slots::new(),
            members: Vec::new(),
            stories: HashMap::new(),
            tight,
            now: Moment::START,
            count: 0,
            told_missed: 0,
            closed_slow: 0,
            waited: 0,
            given: [0, 0],
            brought: [0, 0],
            forgotten: 0,
        }
    }

    /// The room has published this: everybody there but the author is due it.
    fn published(&mut self, room: &'static str, author: Option<Id>, line: String, is_message: bool, may_lack: bool) {
        let story = self.stories.entry(room).or_default();
        let due = Due { line, is_message, may_lack, number: story.published.len() };
        story.push(due.clone());
        for member in self.members.iter_mut().filter(|member| member.room == room) {
            story.read_until[member.format as usize] = story.published.len();
            if Some(member.id) != author {
                member.due.push_back(due.clone());
            }
        }
    }

    /// Somebody has come who reads `format`; all logs together held `bytes` before that. If nobody there read it, the log has
    /// encoded what it keeps, as far as there was room.
    fn brings(&mut self, room: &'static str, format: Format, bytes: usize) {
        if self.members.iter().any(|member| member.room == room && member.format == format) {
            return;
        }
        let Some(story) = self.stories.get_mut(room) else { return };
        let end = story.published.len();
        let fits = |from: &usize| !self.tight && bytes + story.bytes(*from, format) <= self.limits.room_log_bytes;
        // It can only encode what it has in the other format.
        let known = story.encoded_from[1 - format as usize].min(end);
        let from = (known..end).rev().take_while(fits).last().unwrap_or(end);
        (story.encoded_from[format as usize], story.read_until[format as usize]) = (from, end);
        let wanted = self.history(room);
        if let Some(first) = wanted.front() {
            self.brought[usize::from(first.number < from)] += 1;
        }
    }

    /// Somebody has gone.
    fn takes_away(&mut self, room: &'static str, format: Format) {
        let mut there = self.members.iter().filter(|member| member.room == room).peekable();
        self.forgotten += usize::from(there.peek().is_some() && there.all(|member| member.format != format));
    }

    /// What somebody is due who comes into a room now.
    fn history(&self, room: &str) -> VecDeque<Due> {
        let Some(story) = self.stories.get(room) else { return VecDeque::new() };
        let messages = story.published.iter().filter(|due| due.is_message).count();
        let (mut skip, mut due) = (messages.saturating_sub(self.limits.history), VecDeque::new());
        if self.limits.history > 0 {
            for published in &story.published {
                if skip == 0 && (published.is_message || !due.is_empty()) {
                    due.push_back(Due { may_lack: true, ..published.clone() });
                }
                skip -= usize::from(skip > 0 && published.is_message);
            }
        }
        due
    }

    fn enter(&mut self) {
        let (id, dropped, bytes) = (self.ids.insert(()), self.rooms.notices_dropped(), self.rooms.bytes());
        let (one_in, frames) = self.mix;
        let format = if self.random.one_in(one_in) == frames { Format::Frame } else { Format::Line };
        let seat = self.rooms.enter(id, "lobby", format, self.now, &self.limits);
        assert_eq!(self.rooms.format(seat), format);
        let name = self.rooms.name(seat).to_string();
        self.brings("lobby", format, bytes);
        let due = self.history("lobby");
        self.members.push(Member {
            id,
            seat,
            format,
            name: name.clone(),
            room: "lobby",
            fast: self.random.one_in(2),
            window: 0,
            writable: true,
            outbox: Vec::new(),
            received: Vec::new(),
            due,
            private: VecDeque::new(),
            missed: 0,
            missed_elsewhere: 0,
            waits: false,
            joined: true,
        });
        if self.rooms.notices_dropped() == dropped {
            self.published("lobby", Some(id), format!("JOIN {name}\n"), false, false);
        }
    }

    fn leave(&mut self, index: usize, why: &str) {
        let dropped = self.rooms.notices_dropped();
        let mut member = self.members.swap_remove(index);
        judge_lines(&mut member, &self.limits, &self.stories, self.overhead, self.tight);
        self.ids.remove(member.id);
        self.rooms.leave(member.seat, Some(why), self.now, &self.limits);
        if self.rooms.notices_dropped() == dropped {
            self.published(member.room, Some(member.id), format!("LEAVE {}: {why}\n", member.name), false, false);
        }
        self.takes_away(member.room, member.format);
        self.forget_empty(member.room);
    }

    fn forget_empty(&mut self, room: &'static str) {
        if !self.members.iter().any(|member| member.room == room) {
            self.stories.remove(room);
        }
    }

    /// Takes a name that nobody ever had, so that every line is unlike every other.
    fn rename(&mut self, index: usize) {
        self.count += 1;
        let (new, dropped) = (format!("N{}", self.count), self.rooms.notices_dropped());
        let member = &mut self.members[index];
        member.joined = false;
        let old = std::mem::replace(&mut member.name, new.clone());
        let (id, room, seat) = (member.id, member.room, member.seat);
        self.rooms.rename(seat, &new, &self.limits).expect("nobody ever had it");
        assert_eq!(self.rooms.find(&new.to_lowercase()).map(|(id, _)| id), Some(id));
        if self.rooms.notices_dropped() == dropped {
            self.published(room, Some(id), format!("NICK {old}: {new}\n"), false, false);
        }
    }

    fn move_to(&mut self, index: usize, room: &'static str) {
        if self.members[index].joined {
            self.rename(index);
        }
        self.count += 1;
        let (why, dropped) = (format!("w{}", self.count), self.rooms.notices_dropped());
        let (from, seat, id) = (self.members[index].room, self.members[index].seat, self.members[index].id);
        let (format, bytes) = (self.members[index].format, self.rooms.bytes());
        let exists = self.stories.contains_key(room) || self.members.iter().any(|member| member.room == room);
        match self.rooms.move_to(seat, room, self.limits.max_rooms, &why, self.now, &self.limits) {
            Ok(moved) => assert_eq!(moved, from != room),
            Err(_) => assert!(!exists && self.rooms.len() >= self.limits.max_rooms),
        }
        assert_eq!(self.rooms.members(), self.members.len());
        if self.rooms.room(seat) == from {
            return;
        }
        let lost = self.rooms.notices_dropped() - dropped;
        self.brings(room, format, bytes);
        let history = self.history(room);
        let member = &mut self.members[index];
        // What it was not given of the old room it need not be given any more; what was begun is finished.
        judge_lines(member, &self.limits, &self.stories, self.overhead, self.tight);
        let begun = begun(member);
        let owed = [&member.received[..], &member.outbox[..]].concat();
        member.missed_elsewhere = lines(format, &owed).0.iter().filter(|line| line.starts_with("MISSED ")).count();
        member.due = begun.into_iter().chain(history).collect();
        member.room = room;
        (member.joined, member.missed) = (true, 0);
        let name = member.name.clone();
        if lost < 2 {
            self.published(from, Some(id), format!("LEAVE {name}: {why}\n"), false, lost == 1);
            self.published(room, Some(id), format!("JOIN {name}\n"), false, lost == 1);
        }
        self.takes_away(from, format);
        self.forget_empty(from);
    }

    fn say(&mut self, index: usize) {
        let member = &mut self.members[index];
        if self.rooms.must_wait(member.seat, &self.limits) && !self.unruly {
            self.rooms.wait(member.seat, &self.limits);
            self.waited += usize::from(!member.waits);
            member.waits = true;
            return;
        }
        member.waits = false;
        self.count += 1;
        let mut text = format!("m{}", self.count);
        let length = if self.random.one_in(4) { self.limits.max_line_bytes } else { self.random.below(20) };
        while text.len() < length {
            text.push('.');
        }
        let (id, room, line) = (member.id, member.room, format!("MESSAGE {}: {text}\n", member.name));
        assert!(self.rooms.say(member.seat, &text, &self.limits), "who need not wait is heard");
        self.published(room, Some(id), line, true, false);
    }

    /// What the loop does with a member: the outbox first, then the log, until the socket takes no more.
    fn flush(&mut self, index: usize) {
        let member = &mut self.members[index];
        let largest = self.limits.largest_message_bytes();
        write(member);
        if self.rooms.is_too_slow(member.seat, &self.limits) {
            assert_eq!(self.limits.slow_reader, SlowReader::Disconnect);
            judge_lines(member, &self.limits, &self.stories, self.overhead, self.tight);
            let oldest = member.due.iter().find(|due| due.is_message).expect("a message of somebody else");
            let since = self.stories[member.room].since(oldest.number, self.overhead);
            assert!(self.tight || since > self.limits.room_log_bytes, "closed in vain");
            self.closed_slow += 1;
            return self.leave(index, "slow");
        }
        loop {
            write(member);
            if !(member.writable && member.outbox.is_empty() && self.rooms.is_pending(member.seat)) {
                break;
            }
            match self.rooms.offer(member.seat, &self.limits) {
                Offer::Nothing => break,
                Offer::Missed(count) => {
                    assert_eq!(self.limits.slow_reader, SlowReader::Skip, "lost under another policy");
                    assert!(count > 0);
                    self.told_missed += count as usize;
                    member.outbox.extend(encoded(member.format, &format!("MISSED {count} messages")));
                }
                Offer::Bytes(bytes) => {
                    let (whole, rest) = lines(member.format, bytes);
                    assert!(!whole.is_empty() && rest.is_empty(), "whole messages");
                    let (taken, offered) = (bytes.len().min(room_for(member)), bytes.len());
                    member.received.extend_from_slice(&bytes[..taken]);
                    took(member, taken, offered);
                    let outbox = &mut member.outbox;
                    self.rooms
                        .advance(member.seat, taken, offered, &self.limits, |rest| outbox.extend_from_slice(rest));
                    assert!(member.outbox.len() <= largest, "at most the message begun");
                    assert_eq!(member.outbox.is_empty(), taken == offered);
                }
            }
        }
        let has_everything = member.outbox.is_empty() && !self.rooms.is_pending(member.seat);
        self.rooms.note(member.seat, has_everything, self.now);
        assert_eq!(self.rooms.behind_since(member.seat).is_none(), has_everything);
        judge_lines(member, &self.limits, &self.stories, self.overhead, self.tight);
        self.given[member.format as usize] += 1;
    }

    /// Goes on with the passes, for `most` members at most. Returns whether all have come to an end.
    fn pass(&mut self, most: usize) -> bool {
        for _ in 0..most {
            let Some(id) = self.rooms.next_with_news() else {
                // The end of the last pass may have recalled somebody.
                if self.rooms.has_news() {
                    continue;
                }
                return true;
            };
            let Some(index) = self.members.iter().position(|member| member.id == id) else { continue };
            self.flush(index);
            if let Some(member) = self.members.iter_mut().find(|member| member.id == id && member.waits) {
                // Somebody who waited is looked at again: it goes on, or waits again.
                member.waits = self.rooms.must_wait(member.seat, &self.limits);
                if member.waits {
                    self.rooms.wait(member.seat, &self.limits);
                }
            }
        }
        false
    }

    /// All passes to their end, which must come, and must have reached everybody.
    fn pass_all(&mut self) {
        // Two passes a room, and whoever is recalled once for each advance that makes room.
        let most = 4 * (self.members.len() + 2) * (self.members.len() + 2) + 1000;
        assert!(self.pass(most), "a pass without end");
        for member in self.members.iter().filter(|member| member.fast || member.writable) {
            assert!(!self.rooms.is_pending(member.seat), "{} was not reached", member.name);
        }
    }

    fn step(&mut self) {
        let (members, what) = (self.members.len(), self.random.below(100));
        if members == 0 {
            return self.enter();
        }
        let index = self.random.below(members);
        match what {
            0..5 if members < 12 => self.enter(),
            5..8 => {
                self.count += 1;
                let why = format!("w{}", self.count);
                self.leave(index, &why);
            }
            8..14 => {
                let room = ROOMS[self.random.below(ROOMS.len())];
                self.move_to(index, room);
            }
            14..17 => self.rename(index),
            17..20 => {
                self.count += 1;
                let line = format!("PRIVATE {}\n", self.count);
                let member = &mut self.members[index];
                if member.outbox.len() < 200 {
                    member.outbox.extend(encoded(member.format, line.trim_end()));
                    member.private.push_back(line);
                    // The loop writes it in the same turn.
                    self.flush(index);
                }
            }
            20..30 => {
                // A slow one reads a little.
                let window = self.random.below(3 * self.limits.largest_message_bytes());
                let member = &mut self.members[index];
                if !member.fast {
                    (member.window, member.writable) = (window, true);
                    self.flush(index);
                }
            }
            30..45 => {
                let most = self.random.below(5);
                self.pass(most);
            }
            45..55 => self.pass_all(),
            55..57 => self.now = self.now + Duration::from_millis(self.random.below(3000) as u64),
            _ => {
                for _ in 0..self.random.below(6) {
                    self.say(index);
                }
            }
        }
        self.check_memory();
    }

    fn check_memory(&self) {
        let largest = 2 * self.limits.largest_message_bytes() + self.overhead;
        let bound =
            (self.rooms.len() * self.limits.room_log_bytes).min(self.limits.memory_bytes + self.rooms.len() * largest);
        assert!(self.rooms.bytes() <= bound, "{} bytes of {bound}", self.rooms.bytes());
        assert_eq!(self.rooms.members(), self.members.len());
        assert_eq!(self.rooms.is_empty(), self.members.is_empty());
    }

    /// Everybody has read everything: nothing is kept but the history, in the formats that are read.
    fn recount(&self) {
        let kept = |(room, story): (&&str, &Story)| {
            let first = self.history(room).front().map_or(story.published.len(), |due| due.number);
            let is_read =
                |format: &Format| self.members.iter().any(|member| *member.room == **room && member.format == *format);
            let bytes: usize = Format::ALL.into_iter().filter(is_read).map(|format| story.bytes(first, format)).sum();
            bytes + (story.published.len() - first) * self.overhead
        };
        let most = self.stories.iter().map(kept).sum();
        assert!(self.rooms.bytes() <= most, "{} bytes are kept, and {most} are history", self.rooms.bytes());
    }

    /// Everybody reads everything, nobody says anything: all must be given what they are due, and who waits must go on.
    fn drain(&mut self) {
        for index in (0..self.members.len()).rev() {
            let member = &mut self.members[index];
            (member.fast, member.writable) = (true, true);
            self.flush(index);
        }
        self.pass_all();
        for member in &self.members {
            assert!(member.outbox.is_empty() && member.received.is_empty() && member.private.is_empty());
            assert!(!member.waits, "{} was never recalled", member.name);
            settle_skipped(member, member.due.len(), &self.limits, &self.stories, self.overhead, self.tight);
            assert!(self.rooms.behind_since(member.seat).is_none());
        }
        self.recount();
        for index in 0..self.members.len() {
            assert!(!self.rooms.must_wait(self.members[index].seat, &self.limits), "there is room for all");
        }
        while !self.members.is_empty() {
            self.count += 1;
            let (why, index) = (format!("w{}", self.count), self.random.below(self.members.len()));
            self.leave(index, &why);
            self.check_memory();
        }
        while self.rooms.next_with_news().is_some() {}
        assert_eq!((self.rooms.bytes(), self.rooms.len(), self.rooms.has_news()), (0, 0, false));
    }
}

/// What an entry takes besides its bytes.
fn overhead() -> usize {
    let (mut rooms, mut ids, limits) = (Rooms::default(), Slots::new(), Limits::default());
    rooms.enter(ids.insert(()), "lobby", Format::Line, Moment::START, &limits); // the only one there: its JOIN is its own
    rooms.bytes() - "JOIN guest-1\n".len()
}

fn room_for(member: &Member) -> usize {
    if member.fast { usize::MAX } else { member.window }
}

fn took(member: &mut Member, taken: usize, offered: usize) {
    if !member.fast {
        member.window -= taken;
        member.writable = taken == offered;
    }
}

fn write(member: &mut Member) {
    let (taken, offered) = (member.outbox.len().min(room_for(member)), member.outbox.len());
    member.received.extend(member.outbox.drain(..taken));
    if offered > 0 {
        took(member, taken, offered);
    }
}

/// A line, given without its end, as a reader of `format` must receive it.
fn encoded(format: Format, line: &str) -> Vec<u8> {
    let header = match (format, line.len()) {
        (Format::Line, _) => return [line.as_bytes(), b"\n"].concat(),
        (_, length @ 0..126) => vec![0x81, length as u8],
        (_, length @ 126..0x1_0000) => vec![0x81, 126, (length >> 8) as u8, length as u8],
        _ => panic!("no line here is so long"),
    };
    [&header, line.as_bytes()].concat()
}

/// The whole lines in `bytes`, each with an end, and what is left of one that has begun. A frame is one whole line: a text,
/// neither masked nor in fragments, and its length as short as can be.
fn lines(format: Format, bytes: &[u8]) -> (Vec<String>, &[u8]) {
    let (mut lines, mut rest) = (Vec::new(), bytes);
    loop {
        let (from, to) = match (format, rest) {
            (Format::Line, _) => match rest.iter().position(|byte| *byte == b'\n') {
                Some(end) => (0, end),
                None => break,
            },
            (_, [first, ..]) if *first != 0x81 => panic!("no whole text frame: {}", rest.escape_ascii()),
            (_, [_, 126, high, low, ..]) => {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                assert!(length > 125, "a length that could be shorter");
                (4, 4 + length)
            }
            (_, [_, length, ..]) if *length < 126 => (2, 2 + usize::from(*length)),
            (_, [_, length, ..]) => {
                assert_eq!(*length, 126, "masked, or longer than any line");
                break;
            }
            _ => break,
        };
        let Some(text) = rest.get(from..to) else { break };
        let text = str::from_utf8(text).expect("UTF-8");
        assert!(!text.is_empty() && !text.contains(['\n', '\r']), "not one line: {text:?}");
        lines.push(format!("{text}\n"));
        rest = &rest[to + usize::from(format == Format::Line)..];
    }
    (lines, rest)
}

/// The line of which a part was written, and the rest waits in the outbox, if it is one of the log's; likewise one that
/// waits there whole.
fn begun(member: &Member) -> Option<Due> {
    let bytes = [&member.received[..], &member.outbox[..]].concat();
    let (whole, _) = lines(member.format, &bytes);
    let due = whole.iter().find_map(|line| member.due.iter().find(|due| due.line == *line))?;
    Some(Due { is_message: false, ..due.clone() }) // it comes next, and is no part of what the next room's log may drop
}

/// Every whole line that has come must be the next that the member is due.
fn judge_lines(
    member: &mut Member,
    limits: &Limits,
    stories: &HashMap<&'static str, Story>,
    overhead: usize,
    tight: bool,
) {
    let (whole, rest) = lines(member.format, &member.received);
    member.received = rest.to_vec();
    for line in whole {
        if line.starts_with("PRIVATE ") {
            assert_eq!(member.private.pop_front(), Some(line), "private lines in their order, each once");
        } else if let Some(count) = line.strip_prefix("MISSED ") {
            let count: Option<usize> = count.strip_suffix(" messages\n").and_then(|count| count.parse().ok());
            let count = count.unwrap_or_else(|| panic!("torn: {line:?}"));
            if member.missed_elsewhere > 0 {
                member.missed_elsewhere -= 1;
            } else {
                member.missed += count;
            }
        } else {
            let at = member.due.iter().position(|due| due.line == line);
            let at = at.unwrap_or_else(|| panic!("{} is not due {line:?} but {:?}", member.name, member.due.front()));
            settle_skipped(member, at, limits, stories, overhead, tight);
            member.due.drain(..=at);
            member.missed = 0;
        }
    }
}

/// The first `count` lines that a member is due were left out: as many messages as it was told, and only if the log
/// could not keep them.
fn settle_skipped(
    member: &Member,
    count: usize,
    limits: &Limits,
    stories: &HashMap<&'static str, Story>,
    overhead: usize,
    tight: bool,
) {
    let skipped: Vec<&Due> = member.due.iter().take(count).collect();
    let messages = skipped.iter().filter(|due| due.is_message).count();
    let optional = skipped.iter().filter(|due| due.is_message && due.may_lack).count();
    let told = member.missed;
    assert!(
        told <= messages && messages <= told + optional,
        "{} was told that it missed {told}, and missed {messages}, {optional} of them history: {skipped:?}",
        member.name
    );
    let blocks = limits.slow_reader == SlowReader::Block;
    for due in skipped {
        assert!(due.may_lack || !blocks, "lost under block: {due:?}");
        // A notice of which it is not known whether the log took it; history gives way under `block`.
        let excused = tight || due.may_lack && (!due.is_message || blocks);
        let story = &stories[member.room];
        // Or for which there was no room when the first came who reads it so.
        let excused = excused || due.may_lack && due.number < story.encoded_from[member.format as usize];
        assert!(excused || story.since(due.number, overhead) > limits.room_log_bytes, "dropped in vain: {due:?}");
    }
}

#[test]
fn every_member_is_given_what_a_plain_queue_would_hold() {
    let only = std::env::var("ONELOOP_SEED").ok().map(|seed| seed.parse::<u64>().expect("a number"));
    let (first, end) = only.map_or((0, SEEDS), |seed| (seed, seed + 1));
    let (mut missed, mut slow, mut waited, mut forgotten) = (0, 0, 0, 0);
    let (mut given, mut brought) = ([0, 0], [0, 0]);
    for seed in first..end {
        let replay = Replay { seed, step: Cell::new(0) };
        let mut world = World::new(seed);
        for step in 0..STEPS {
            replay.step.set(step);
            world.step();
        }
        replay.step.set(STEPS);
        world.drain();
        missed += world.told_missed;
        slow += world.closed_slow;
        waited += world.waited;
        forgotten += world.forgotten;
        given = [given[0] + world.given[0], given[1] + world.given[1]];
        brought = [brought[0] + world.brought[0], brought[1] + world.brought[1]];
    }
    if only.is_none() {
        // What must have happened, for the rest to mean something.
        assert!(
            missed > 10_000 && slow > 500 && waited > 1000 && forgotten > 10_000,
            "{missed} {slow} {waited} {forgotten}"
        );
        assert!(given.iter().all(|count| *count > 100_000), "{given:?}");
        assert!(brought.iter().all(|count| *count > 500), "{brought:?}");
    }
}

/// Rooms with so many members in the lobby, who have read everything.
fn lobby(members: usize, limits: &Limits) -> (Rooms, Vec<(Id, Seat)>) {
    let (mut rooms, mut ids) = (Rooms::default(), Slots::new());
    let enter = |_| {
        let id = ids.insert(());
        (id, rooms.enter(id, "lobby", Format::Line, Moment::START, limits))
    };
    let members: Vec<(Id, Seat)> = (0..members).map(enter).collect();
    members.iter().for_each(|(_, seat)| read_all(&mut rooms, *seat, limits));
    (rooms, members)
}

/// A member with a socket that takes everything.
fn read_all(rooms: &mut Rooms, seat: Seat, limits: &Limits) {
    while rooms.is_pending(seat) {
        let offered = match rooms.offer(seat, limits) {
            Offer::Bytes(bytes) => bytes.len(),
            Offer::Nothing => return,
            other => panic!("whoever keeps up is given everything, and this one {other:?}"),
        };
        rooms.advance(seat, offered, offered, limits, |_| panic!("nothing is left over"));
    }
}

#[test]
fn whoever_keeps_up_misses_nothing_however_small_and_many_the_messages() {
    for slow_reader in [SlowReader::Skip, SlowReader::Disconnect] {
        for text in ["x", &"x".repeat(900), &"x".repeat(Limits::default().max_line_bytes)] {
            let limits = Limits { slow_reader, ..Limits::default() };
            let (mut rooms, members) = lobby(600, &limits);
            let mut said = 0;
            for _ in 0..100 {
                // A turn: what one read holds, unless it has to wait, and then so many members as the budget allows.
                for _ in 0..limits.read_budget_bytes.div_ceil(text.len() + 1) {
                    if rooms.must_wait(members[0].1, &limits) {
                        break;
                    }
                    assert!(rooms.say(members[0].1, text, &limits));
                    said += 1;
                }
                for _ in 0..limits.fan_out_budget {
                    let Some(id) = rooms.next_with_news() else { break };
                    let (_, seat) = members.iter().find(|(member, _)| *member == id).expect("nobody has left");
                    read_all(&mut rooms, *seat, &limits);
                }
            }
            assert!(said >= 30, "it went on");
        }
    }
}

#[test]
fn a_room_that_blocks_takes_a_message_at_a_time_when_memory_holds_no_more() {
    let limits = Limits { memory_bytes: 128 << 10, slow_reader: SlowReader::Block, ..Limits::default() };
    assert_eq!(limits.check(), Ok(()));
    let (mut rooms, members) = lobby(3, &limits);
    let text = "x".repeat(limits.max_line_bytes);
    for _ in 0..10 {
        let (_, author) = members[0];
        assert!(!rooms.must_wait(author, &limits), "everybody has read everything");
        assert!(rooms.say(author, &text, &limits));
        assert!(rooms.must_wait(author, &limits));
        rooms.wait(author, &limits);
        for (_, seat) in &members[1..] {
            read_all(&mut rooms, *seat, &limits);
        }
        let recalled = std::iter::from_fn(|| rooms.next_with_news()).any(|id| id == members[0].0);
        assert!(recalled, "there is room again");
        read_all(&mut rooms, author, &limits);
    }
}

#[test]
fn whoever_waits_is_recalled_although_history_fills_the_log() {
    let limits = Limits { slow_reader: SlowReader::Block, history: 10_000, ..Limits::default() };
    let (mut rooms, members) = lobby(2, &limits);
    let [(author, seat), (_, reader)] = members[..] else { unreachable!() };
    let text = "x".repeat(limits.max_line_bytes);
    for _ in 0..100 {
        // Until the log is full: a pass goes by, and the reader's socket takes nothing.
        while !rooms.must_wait(seat, &limits) {
            assert!(rooms.say(seat, &text, &limits));
            while rooms.next_with_news().is_some() {}
            read_all(&mut rooms, seat, &limits); // past its own
        }
        rooms.wait(seat, &limits);
        read_all(&mut rooms, reader, &limits);
        assert!(std::iter::from_fn(|| rooms.next_with_news()).any(|id| id == author), "recalled");
    }
}

#[test]
fn notices_are_not_kept_back_by_history() {
    let limits = Limits { slow_reader: SlowReader::Block, history: 10_000, ..Limits::default() };
    let (mut rooms, members) = lobby(2, &limits);
    for number in 0..50_000 {
        // Each is told of the other's name, and reads that; the log keeps them all for newcomers while it has room.
        rooms.rename(members[number % 2].1, &format!("n{number}"), &limits).expect("a new name");
        members.iter().for_each(|(_, seat)| read_all(&mut rooms, *seat, &limits));
    }
    assert_eq!(rooms.notices_dropped(), 0);
    assert!(rooms.bytes() <= limits.room_log_bytes);
}

#[test]
fn a_name_has_one_holder_whatever_its_case() {
    let limits = Limits::default();
    let (mut rooms, members) = lobby(2, &limits);
    let [(first, one), (_, two)] = members[..] else { unreachable!() };
    assert_eq!(rooms.rename(one, "Alice", &limits), Ok(()));
    assert!(rooms.rename(two, "aLICE", &limits).is_err(), "taken");
    assert_eq!(rooms.find("ALICE"), Some((first, "Alice")));
    assert_eq!(rooms.rename(one, "alice", &limits), Ok(()), "its own in another case");
    assert_eq!(rooms.find("Alice"), Some((first, "alice")));
    assert_eq!(rooms.rename(one, "bob", &limits), Ok(()));
    assert_eq!(rooms.rename(two, "ALICE", &limits), Ok(()), "free again");
    rooms.leave(two, Some("bye"), Moment::START, &limits);
    assert_eq!(rooms.find("alice"), None);
    let names: Vec<&str> = rooms.who(one).collect();
    assert_eq!(names, ["bob"]);
}

#[test]
fn whoever_waits_because_another_room_fills_the_memory_is_recalled_when_that_one_is_read() {
    let limits = Limits {
        memory_bytes: 6 << 10,
        max_line_bytes: 256,
        room_log_bytes: 6 << 10,
        slow_reader: SlowReader::Block,
        ..Limits::default()
    };
    let (mut rooms, members) = lobby(4, &limits);
    let [(_, talker), (_, reader), (squeezed_id, squeezed), (_, other)] = members[..] else { unreachable!() };
    for seat in [squeezed, other] {
        rooms.move_to(seat, "elsewhere", usize::MAX, "bye", Moment::START, &limits).expect("no limit");
    }
    let read_everything = |rooms: &mut Rooms| {
        for (_, seat) in &members {
            read_all(rooms, *seat, &limits);
        }
        while rooms.next_with_news().is_some() {}
    };
    read_everything(&mut rooms);
    // The lobby is not read until it has all the memory; then somebody has something to say in the other room, which is not empty.
    assert!(rooms.say(squeezed, "first", &limits));
    while rooms.next_with_news().is_some() {}
    while !rooms.must_wait(talker, &limits) {
        assert!(rooms.say(talker, &"x".repeat(200), &limits));
        while rooms.next_with_news().is_some() {}
        read_all(&mut rooms, talker, &limits);
    }
    assert!(rooms.must_wait(squeezed, &limits), "{rooms:?}");
    rooms.wait(squeezed, &limits);
    assert!(!rooms.has_news());
    read_all(&mut rooms, reader, &limits);
    assert!(std::iter::from_fn(|| rooms.next_with_news()).any(|id| id == squeezed_id), "recalled");
    assert!(!rooms.must_wait(squeezed, &limits));
}

/// Somebody new in the lobby, who reads `format`.
fn come(rooms: &mut Rooms, ids: &mut Slots<()>, format: Format, limits: &Limits) -> Seat {
    rooms.enter(ids.insert(()), "lobby", format, Moment::START, limits)
}

/// The lobby with one member of each of these formats, who have read everything.
fn mixed<const N: usize>(formats: [Format; N], limits: &Limits) -> (Rooms, Slots<()>, [Seat; N]) {
    let (mut rooms, mut ids) = (Rooms::default(), Slots::new());
    let members = formats.map(|format| come(&mut rooms, &mut ids, format, limits));
    members.iter().for_each(|seat| drop(read_lines(&mut rooms, *seat, limits)));
    (rooms, ids, members)
}

/// All that a member is given whose socket takes everything: each line without its end, and how many messages it missed.
fn read_lines(rooms: &mut Rooms, seat: Seat, limits: &Limits) -> (Vec<String>, u64) {
    let (format, mut all, mut missed) = (rooms.format(seat), Vec::new(), 0);
    while rooms.is_pending(seat) {
        let offered = match rooms.offer(seat, limits) {
            Offer::Bytes(bytes) => {
                let (whole, rest) = lines(format, bytes);
                assert!(rest.is_empty(), "whole messages");
                all.extend(whole.iter().map(|line| line.trim_end().to_string()));
                bytes.len()
            }
            Offer::Missed(count) => {
                missed += count;
                continue;
            }
            Offer::Nothing => {
                assert!(
                    !rooms.is_pending(seat),
                    "nothing is offered, and something is pending: who waits for that spins"
                );
                break;
            }
        };
        rooms.advance(seat, offered, offered, limits, |_| panic!("nothing is left over"));
    }
    (all, missed)
}

fn other_than(format: Format) -> Format {
    if format == Format::Line { Format::Frame } else { Format::Line }
}

/// What the log keeps of these lines, in these formats.
fn kept_bytes(lines: &[String], formats: &[Format]) -> usize {
    let bytes = |line: &String| formats.iter().map(|format| encoded(*format, line).len()).sum::<usize>() + overhead();
    lines.iter().map(bytes).sum()
}

#[test]
fn a_format_that_nobody_reads_takes_no_memory_and_comes_back_with_whoever_reads_it() {
    // Rations no notice but the first two, so that history is all that is kept.
    let limits = Limits { history: 100, chat_rate: Some(1), ..Limits::default() };
    for format in Format::ALL {
        let other = other_than(format);
        let (mut rooms, mut ids, [author, reader]) = mixed([other, format], &limits);
        while rooms.next_with_news().is_some() {}
        let before = rooms.bytes();
        // Of lengths on both sides of what a frame's header can say in short.
        let said: Vec<String> = (1..=130).map(|length| "x".repeat(length)).collect();
        let lines = |said: &[String]| said.iter().map(|text| format!("MESSAGE guest-1: {text}")).collect::<Vec<_>>();
        for text in &said[..100] {
            assert!(rooms.say(author, text, &limits));
        }
        assert_eq!(read_lines(&mut rooms, reader, &limits), (lines(&said[..100]), 0));
        read_lines(&mut rooms, author, &limits);
        assert_eq!(
            rooms.bytes(),
            kept_bytes(&lines(&said[..100]), &Format::ALL),
            "and {before} bytes of notices before"
        );
        rooms.leave(reader, None, Moment::START, &limits);
        assert_eq!(rooms.bytes(), kept_bytes(&lines(&said[..100]), &[other]), "forgotten");
        for text in &said[100..] {
            assert!(rooms.say(author, text, &limits));
        }
        read_lines(&mut rooms, author, &limits); // past its own: the oldest go
        let kept = lines(&said[30..]);
        assert_eq!(rooms.bytes(), kept_bytes(&kept, &[other]));
        let late = come(&mut rooms, &mut ids, format, &limits);
        assert_eq!(rooms.bytes(), kept_bytes(&kept, &Format::ALL), "encoded anew");
        assert!(rooms.say(author, "news", &limits));
        let told = [&kept[..], &["MESSAGE guest-1: news".to_string()]].concat();
        assert_eq!(read_lines(&mut rooms, late, &limits), (told, 0));
        // And the other way round: now its author goes, and what it read.
        rooms.leave(author, None, Moment::START, &limits);
        let kept = [&kept[1..], &["MESSAGE guest-1: news".to_string()]].concat();
        assert_eq!(rooms.bytes(), kept_bytes(&kept, &[format]));
        let later = come(&mut rooms, &mut ids, other, &limits);
        assert_eq!(rooms.bytes(), kept_bytes(&kept, &Format::ALL));
        assert_eq!(read_lines(&mut rooms, later, &limits), (kept, 0));
        for seat in [late, later] {
            rooms.leave(seat, None, Moment::START, &limits);
        }
        assert_eq!((rooms.bytes(), rooms.len()), (0, 0));
    }
}

/// A lobby whose log is filled with history by members who read `other_than(format)`, so that there is room for a part of it
/// only in `format`: the author and another, what was said, and how many of the last of that fit.
fn filled(format: Format, limits: &Limits) -> (Rooms, Slots<()>, [Seat; 2], Vec<String>, usize) {
    let other = other_than(format);
    let (mut rooms, ids, [author, quiet]) = mixed([other, other], limits);
    let mut said = Vec::new();
    loop {
        let text = format!("{}{}", said.len(), "x".repeat(100));
        let line = format!("MESSAGE guest-1: {text}");
        if rooms.bytes() + kept_bytes(std::slice::from_ref(&line), &[other]) > limits.room_log_bytes * 4 / 5 {
            break;
        }
        assert!(rooms.say(author, &text, limits));
        said.push(line);
        [author, quiet].iter().for_each(|seat| drop(read_lines(&mut rooms, *seat, limits)));
    }
    assert_eq!(rooms.bytes(), kept_bytes(&said, &[other]));
    let mut room = limits.room_log_bytes - rooms.bytes();
    let fits = |line: &&String| {
        let bytes = encoded(format, line).len();
        room = room.saturating_sub(bytes + usize::from(bytes > room) * room);
        room > 0
    };
    let fit = said.iter().rev().take_while(fits).count();
    assert!(0 < fit && fit < said.len(), "{fit} of {}", said.len());
    (rooms, ids, [author, quiet], said, fit)
}

fn small(chat_rate: Option<u32>) -> Limits {
    let limits = Limits { max_line_bytes: 200, history: 1000, chat_rate, ..Limits::default() };
    Limits { room_log_bytes: 4 * limits.least_room_log_bytes(), ..limits }
}

#[test]
fn whoever_brings_a_format_is_shown_as_much_of_the_history_as_there_is_room_for() {
    for format in Format::ALL {
        let limits = small(Some(1));
        let (mut rooms, mut ids, _, said, fit) = filled(format, &limits);
        let came = come(&mut rooms, &mut ids, format, &limits);
        assert!(rooms.bytes() <= limits.room_log_bytes);
        assert_eq!(
            read_lines(&mut rooms, came, &limits),
            (said[said.len() - fit..].to_vec(), 0),
            "the later ones, {format:?}"
        );
    }
}

#[test]
fn history_that_there_was_no_room_for_in_a_format_is_not_shown_in_it_later_either() {
    for format in Format::ALL {
        let (limits, other) = (small(Some(1)), other_than(format));
        let (mut rooms, mut ids, members, said, fit) = filled(format, &limits);
        let shown = said[said.len() - fit..].to_vec();
        // A second one is shown what the first was; that it reads the same.
        for _ in 0..2 {
            let came = come(&mut rooms, &mut ids, format, &limits);
            assert_eq!(read_lines(&mut rooms, came, &limits), (shown.clone(), 0), "{format:?}");
        }
        // All others go, and what they read; whoever brings that back is shown what is left, and no empty lines.
        for seat in members {
            rooms.leave(seat, None, Moment::START, &limits);
        }
        let back = come(&mut rooms, &mut ids, other, &limits);
        let (given, _) = read_lines(&mut rooms, back, &limits);
        assert!(said.ends_with(&given) && given.len() >= fit, "{given:?}");
    }
}

#[test]
fn nobody_waits_for_history_that_its_format_has_not() {
    for format in Format::ALL {
        let limits = small(Some(1));
        let (mut rooms, mut ids, [author, _], _, _) = filled(format, &limits);
        // Until there is no room for even one more.
        while limits.room_log_bytes - rooms.bytes() > 150 + overhead() {
            assert!(rooms.say(author, &"y".repeat(100), &limits));
            read_lines(&mut rooms, author, &limits);
        }
        for _ in 0..2 {
            let came = come(&mut rooms, &mut ids, format, &limits);
            read_lines(&mut rooms, came, &limits);
            assert!(!rooms.is_pending(came), "it has everything that there is for it, {format:?}");
        }
    }
}

#[test]
fn whoever_falls_misses_the_same_in_either_format_while_the_others_read_everything() {
    for slow_reader in [SlowReader::Skip, SlowReader::Disconnect] {
        let limits = Limits { slow_reader, ..small(None) };
        let formats = [Format::Line, Format::Frame, Format::Line, Format::Frame, Format::Line];
        let (mut rooms, _, members) = mixed(formats, &limits);
        let [author, quick_frame, slow_line, slow_frame, quick_line] = members;
        let mut said = Vec::new();
        for number in 0..300 {
            // The slow ones speak too: nobody misses what is its own.
            let (speaker, name) = if number % 7 == 0 { (slow_frame, 4) } else { (author, 1) };
            let text = format!("{number}{}", "z".repeat(number % 150));
            assert!(rooms.say(speaker, &text, &limits));
            said.push((name, format!("MESSAGE guest-{name}: {text}")));
            for (seat, own) in [(quick_frame, 2), (quick_line, 5), (author, 1)] {
                let expected: Vec<String> = if own == name { vec![] } else { vec![said[number].1.clone()] };
                assert_eq!(read_lines(&mut rooms, seat, &limits), (expected, 0));
            }
            assert!(rooms.bytes() <= limits.room_log_bytes);
        }
        for (seat, own) in [(slow_line, 3), (slow_frame, 4)] {
            assert_eq!(rooms.is_too_slow(seat, &limits), slow_reader == SlowReader::Disconnect);
            let (given, missed) = read_lines(&mut rooms, seat, &limits);
            let due: Vec<&String> = said.iter().filter(|(name, _)| *name != own).map(|(_, line)| line).collect();
            let (lost, rest) = due.split_at(missed as usize);
            assert!(!lost.is_empty() && rest.len() > 10, "{missed} of {}", due.len());
            assert_eq!(given.iter().collect::<Vec<_>>(), rest, "guest-{own}");
        }
    }
}

#[test]
fn both_formats_are_told_the_same_number() {
    let limits = small(None);
    let (mut rooms, _, [author, line, frame]) = mixed([Format::Line, Format::Line, Format::Frame], &limits);
    for number in 0..500 {
        assert!(rooms.say(author, &format!("{number}{}", "z".repeat(number % 150)), &limits));
        if number % 125 == 124 {
            let (by_line, by_frame) = (read_lines(&mut rooms, line, &limits), read_lines(&mut rooms, frame, &limits));
            assert!(by_line.1 > 0);
            assert_eq!(by_line, by_frame);
        }
    }
}

#[test]
fn a_frame_that_was_begun_is_finished_whatever_becomes_of_the_log() {
    let limits = small(None);
    let (mut rooms, _, [author, reader, quick]) = mixed([Format::Line, Format::Frame, Format::Frame], &limits);
    for length in [1, 108, 109, 110, 200] {
        let (first, own) = ("a".repeat(length), "b".repeat(length));
        let expected = format!("MESSAGE guest-1: {first}");
        let whole = encoded(Format::Frame, &expected);
        for cut in 0..whole.len() {
            assert!(rooms.say(author, &first, &limits));
            if cut % 2 == 0 {
                assert!(rooms.say(reader, &own, &limits), "its own lies behind it");
            }
            assert!(rooms.say(author, "last", &limits));
            let Offer::Bytes(bytes) = rooms.offer(reader, &limits) else { panic!("it is given the first") };
            let (offered, mut received) = (bytes.len(), bytes[..cut].to_vec());
            assert!(offered > whole.len());
            rooms.advance(reader, cut, offered, &limits, |rest| received.extend_from_slice(rest));
            assert_eq!(received, whole, "cut at {cut}");
            let last = vec!["MESSAGE guest-1: last".to_string()];
            assert_eq!(read_lines(&mut rooms, reader, &limits), (last.clone(), 0), "cut at {cut}");
            let own = (cut % 2 == 0).then(|| format!("MESSAGE guest-2: {own}"));
            let all = [expected.clone()].into_iter().chain(own).chain(last).collect();
            assert_eq!(read_lines(&mut rooms, quick, &limits), (all, 0));
            read_lines(&mut rooms, author, &limits);
        }
    }
}
