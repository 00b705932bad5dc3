//! Chat as simply as it can be told: every member has a plain queue of what was said while it was there, and whatever the
//! reactor writes to it is compared with that, line by line, at the moment at which it is written.

use crate::kernel::Kind;
use crate::machines::Told;
use crate::plan::Plan;
use crate::random::Random;
use crate::web;
use crate::world::World;
use oneloop::close::Close;
use oneloop::limits::{Limits, SlowReader};
use oneloop::protocol::Context;
use oneloop::time::Moment;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

/// As much as the log's book-keeping for a message.
const ENTRY_BYTES: usize = 40;

/// What the log holds of a line at the most: as a line and as a frame, if there are any, of which the header is two bytes and the
/// end is none.
fn entry_bytes(line: &str, plan: &Plan) -> usize {
    let frame = if plan.webby > 0 { line.len() + 1 } else { 0 };
    line.len() + frame + ENTRY_BYTES
}

const LOBBY: &str = "lobby";

/// Something that was published in a room. No two are the same, for the scripts see to that.
#[derive(Debug)]
struct Entry {
    line: String,
    /// It may as well be this.
    or_line: Option<String>,
    is_message: bool,
    is_leave: bool,
    turn: usize,
    /// The room's log had no place for it, perhaps.
    may_lack: Cell<bool>,
    /// What was published in the room before it: bytes, and messages.
    bytes_before: usize,
    messages_before: usize,
}

#[derive(Debug, Default)]
struct Room {
    /// As whoever came first wrote it.
    name: String,
    /// All that was ever published there.
    entries: Vec<Rc<Entry>>,
    bytes: Rc<Cell<usize>>,
    messages: usize,
    members: BTreeSet<usize>,
}

/// What a member must be given.
#[derive(Debug)]
struct Due {
    entry: Rc<Entry>,
    is_history: bool,
    /// The log may have dropped it before the member came.
    may_lack: bool,
}

/// A stay in one room, and what the member must be given of that, oldest first.
#[derive(Debug, Default)]
struct Stay {
    room: String,
    /// What was ever published there, in bytes.
    bytes: Rc<Cell<usize>>,
    due: VecDeque<Due>,
    /// It was told that it missed so many, and has been given nothing since.
    missed: usize,
    /// It has gone; what of the log was in its outbox then is still sent, a line at the most.
    over: bool,
}

/// A line that is for one member alone.
#[derive(Debug)]
struct Private {
    line: String,
    /// The next room begins here.
    moves: bool,
}

#[derive(Debug)]
struct Member {
    name: String,
    /// Where it has been, oldest first, as far as it has not read of that; the last is where it is.
    stays: VecDeque<Stay>,
    private: VecDeque<Private>,
    /// Letters to it and from it of which nobody has heard: each may be in its outbox.
    letters: usize,
    /// Of a line that is not written to its end.
    unfinished: Vec<u8>,
    /// Has asked to go: nothing more is heard.
    quit: bool,
    /// Is in a room.
    seated: bool,
    /// Since when it is owed something that nobody drops, and the count of disturbances then.
    behind_since: Option<(Moment, usize)>,
    /// When it last had everything, and when before that.
    complete_at: Moment,
    complete_before: Moment,
    /// The last line written was cut at least once.
    was_cut: bool,
}

/// A private message on its way. It ends as one line: for the receiver, or for the sender, that it was not delivered.
#[derive(Debug)]
struct Letter {
    from: usize,
    to: usize,
    line: String,
}

/// All of chat.
#[derive(Debug, Default)]
pub(crate) struct Chat {
    rooms: BTreeMap<String, Room>,
    /// Everybody who ever was a member, by client.
    members: BTreeMap<usize, Member>,
    names: BTreeMap<String, usize>,
    guests: usize,
    /// As the reactor counts them.
    published: u64,
    notices_dropped: u64,
    /// Published by the machine that is speaking.
    fresh: Vec<Rc<Entry>>,
    /// Who goes, why; and private messages: what follows from these comes once that machine has been left.
    going: Option<(usize, &'static str)>,
    /// Another reason that the next one to go may have.
    or_why: Option<&'static str>,
    written: Vec<Letter>,
    /// Letters of which nobody has heard, oldest first.
    letters: Vec<Letter>,
    letters_lost: u64,
}

const BUSY: &str = "ERROR busy: your message was not delivered, too much waits there\n";

/// What a client of the chat says: whole lines, of which only the last may lack its end.
pub(crate) fn script(client: usize, length: usize, speaks_heartbeat: bool, random: &mut Random) -> Vec<u8> {
    let mut script = String::new();
    if speaks_heartbeat {
        script.push_str("PING\n");
    }
    let (mut names, mut said) = (0, 0);
    while script.len() < length {
        said += 1;
        let mut nick = || {
            names += 1;
            format!("/nick c{client}_{names}")
        };
        let line = match random.below(28) {
            0..=2 => nick(),
            // A name of its own for every stay, so that no two notices are the same.
            3 | 4 => format!("{}\n/join {}", nick(), ["north", "South", "east-9", "SOUTH", LOBBY][random.below(5)]),
            5 => format!("{}\n/leave", nick()),
            6..=8 => {
                // Two of them, for they must come in order.
                let to = match random.one_in(3) {
                    true => format!("C{}_{}", random.below(12), random.within(1..=3)),
                    false => format!("guest-{}", random.within(1..=12)),
                };
                format!("/msg {to} p{client}.{said}a\n/msg {to} p{client}.{said}b")
            }
            9 => "/who".to_string(),
            10 | 11 => "PING".to_string(),
            12 => "PONG".to_string(),
            13 => "/dance".to_string(),
            14 => format!("//m{client}.{said}"),
            15 if random.one_in(6) => format!("{:z>30}", ""),
            15 => String::new(),
            _ => {
                let text = format!("m{client}.{said}");
                format!("{text:x<width$}", width = random.within(1..=24))
            }
        };
        script.push_str(&line);
        script.push_str(if random.one_in(6) { "\r\n" } else { "\n" });
    }
    match random.below(4) {
        0 => script.push_str("/quit\n"),
        1 if !speaks_heartbeat => script.truncate(script.trim_end().len()),
        _ => (),
    }
    script.into_bytes()
}

impl Member {
    fn has_everything(&self) -> bool {
        let is_owed = !self.private.is_empty() || !self.unfinished.is_empty() || self.letters > 0;
        !is_owed && self.stays.iter().all(|stay| stay.due.is_empty())
    }

    /// How much is due of its room that cannot have been dropped.
    fn due(&self, limits: &Limits, plenty: bool) -> usize {
        let must = |stay: &Stay, due: &Due| {
            let may_lack = due.may_lack || due.entry.may_lack.get();
            !may_lack && !may_drop(&due.entry, stay.bytes.get(), limits, plenty)
        };
        let here = self.stays.back().filter(|stay| !stay.over);
        here.map_or(0, |stay| stay.due.iter().filter(|due| must(stay, due)).count())
    }

    /// Whether anything at all is due that cannot have been dropped.
    fn is_behind(&self, limits: &Limits, plenty: bool) -> bool {
        let owed = !self.unfinished.is_empty() || !self.private.is_empty();
        owed || self.due(limits, plenty) > 0
    }

    /// Takes note of when it had everything, before and after every change of that.
    fn note(&mut self, now: Moment) {
        if self.has_everything() && self.complete_at < now {
            (self.complete_before, self.complete_at) = (self.complete_at, now);
        }
    }

    fn push(&mut self, private: Private, now: Moment) {
        self.note(now);
        self.private.push_back(private);
        self.note(now);
    }
}

/// Whether a log of which so many bytes were ever published may have dropped an entry for want of room.
fn may_drop(entry: &Entry, bytes: usize, limits: &Limits, plenty: bool) -> bool {
    match limits.slow_reader {
        SlowReader::Block => false,
        _ => !plenty || bytes - entry.bytes_before > limits.room_log_bytes,
    }
}

/// What `/who` answers stands behind this, in whatever order.
const WHO: &str = "who ";

fn sorted(who: &str) -> Vec<&str> {
    let mut words: Vec<&str> = who.split([' ', ',', '\n']).collect();
    words.sort_unstable();
    words
}

/// The whole lines in what a machine has consumed, or the beginning of one that is too long.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &str> {
    let text = str::from_utf8(bytes).expect("the scripts are ASCII");
    text.split_inclusive('\n')
        .map(|line| line.strip_suffix('\n').unwrap_or(line))
        .map(|line| line.strip_suffix('\r').unwrap_or(line))
}

fn folded(name: &str) -> String {
    name.to_ascii_lowercase()
}

// What the machines do, and what follows.
impl World {
    /// A machine was told something and has pushed `pushed`.
    pub(crate) fn chat_told(&mut self, client: usize, context: &Context<'_>, told: &Told<'_>, pushed: &str) {
        self.chat_begins();
        let mut answers: Vec<(String, bool)> = Vec::new();
        match told {
            Told::Opened => answers.push((self.chat_opened(client), false)),
            Told::Bytes(bytes) => {
                for line in lines(bytes) {
                    if line.len() > self.limits.max_line_bytes {
                        break;
                    }
                    self.chat_typed(client, line, &mut answers);
                }
            }
            Told::Ended(rest) => self.chat_typed(client, str::from_utf8(rest).expect("ASCII"), &mut answers),
            Told::Expired => answers.extend((!pushed.is_empty()).then(|| ("PING\n".to_string(), false))),
            Told::Closing(close) => {
                if *close != Close::Bye {
                    answers.push((format!("ERROR {}: {}\n", close.word(), close.sentence(&self.limits)), false));
                }
                if self.chat.members.contains_key(&client) {
                    self.chat_closing(client, *close);
                }
            }
            Told::Drained => (),
        }
        let said: Vec<String> = pushed.split_inclusive('\n').map(String::from).collect();
        self.chat_answered(client, context, told, &said, answers);
    }

    pub(crate) fn chat_begins(&self) {
        assert!(self.chat.fresh.is_empty());
    }

    /// Whether the client is, or was, in a room.
    pub(crate) fn chat_knows(&self, client: usize) -> bool {
        self.chat.members.contains_key(&client)
    }

    pub(crate) fn chat_has_quit(&self, client: usize) -> bool {
        self.chat.members[&client].quit
    }

    /// What a machine has said is what it had to answer.
    pub(crate) fn chat_answered(
        &mut self,
        client: usize,
        context: &Context<'_>,
        told: &Told<'_>,
        said: &[String],
        mut answers: Vec<(String, bool)>,
    ) {
        let mut said = said.iter().map(String::as_str);
        for (expected, _) in &mut answers {
            let said = said.next().unwrap_or_default();
            if let Some(names) = expected.strip_prefix(WHO) {
                assert_eq!(sorted(said), sorted(&format!("INFO {names}")));
                *expected = said.to_string();
            }
            assert_eq!(said, expected, "client {client} was told {told:?}");
        }
        assert_eq!(said.next(), None, "client {client} was told {told:?}");
        let now = self.now;
        if let Some(member) = self.chat.members.get_mut(&client) {
            for (line, moves) in answers {
                member.push(Private { line, moves }, now);
            }
        }
        self.chat_count(context);
    }

    /// What the reactor has counted is what happened.
    fn chat_count(&mut self, context: &Context<'_>) {
        let fresh = std::mem::take(&mut self.chat.fresh);
        let messages = fresh.iter().filter(|entry| entry.is_message).count() as u64;
        let published = context.metrics.published;
        assert_eq!(published, self.chat.published + messages, "a message was not published, or too many were");
        self.chat.published = published;
        let dropped = context.rooms.notices_dropped();
        if dropped > self.chat.notices_dropped {
            assert_eq!(
                self.limits.slow_reader,
                SlowReader::Block,
                "a notice was dropped, and nobody waits for anybody"
            );
            fresh.iter().filter(|entry| !entry.is_message).for_each(|entry| entry.may_lack.set(true));
            self.count("notices dropped");
        }
        self.chat.notices_dropped = dropped;
    }

    pub(crate) fn chat_opened(&mut self, client: usize) -> String {
        self.chat.guests += 1;
        let name = format!("guest-{}", self.chat.guests);
        let member = Member {
            name: name.clone(),
            stays: VecDeque::new(),
            private: VecDeque::new(),
            letters: 0,
            unfinished: Vec::new(),
            quit: false,
            seated: true,
            behind_since: None,
            complete_at: self.now,
            complete_before: self.now,
            was_cut: false,
        };
        assert!(self.chat.members.insert(client, member).is_none());
        self.chat.names.insert(name.clone(), client);
        self.chat_sit(client, LOBBY);
        format!("WELCOME {name}, you are in {LOBBY}; /help lists what you can do\n")
    }

    fn chat_sit(&mut self, client: usize, room: &str) {
        let history = self.limits.history;
        let plenty = self.plan.plenty;
        let entry = self.chat.rooms.entry(folded(room)).or_default();
        if entry.members.is_empty() {
            entry.name = room.to_string();
        }
        assert!(entry.members.insert(client));
        let first_wanted = entry.messages.saturating_sub(history);
        // For whoever brings a format the log encodes what it keeps as far as there is room.
        let has_room = self.plan.webby == 0 || entry.bytes.get() <= self.limits.room_log_bytes;
        let mut due = VecDeque::new();
        let mut has_begun = false;
        for old in &entry.entries {
            if history > 0 && old.messages_before >= first_wanted {
                // It begins with a message, and under `block` it gives way to news.
                let kept = !may_drop(old, entry.bytes.get(), &self.limits, plenty)
                    && has_room
                    && self.limits.slow_reader != SlowReader::Block;
                has_begun |= old.is_message && kept;
                let may_lack = !has_begun;
                due.push_back(Due { entry: old.clone(), is_history: true, may_lack });
            }
        }
        let (now, bytes) = (self.now, entry.bytes.clone());
        let member = self.chat.members.get_mut(&client).expect("known");
        member.note(now);
        member.behind_since = None; // it has held up nobody here
        member.stays.push_back(Stay { room: folded(room), bytes, due, ..Stay::default() });
        let name = member.name.clone();
        member.note(now);
        self.chat_publish(client, format!("JOIN {name}\n"), false);
    }

    fn chat_stand_up(&mut self, client: usize, why: &str) {
        let name = self.chat.members[&client].name.clone();
        self.chat_publish(client, format!("LEAVE {name}: {why}\n"), false);
        let (now, member) = (self.now, self.chat.members.get_mut(&client).expect("known"));
        let stay = member.stays.back_mut().expect("it was somewhere");
        stay.over = true;
        let room = stay.room.clone();
        member.note(now);
        let members = &mut self.chat.rooms.get_mut(&room).expect("its room").members;
        assert!(members.remove(&client));
        if members.is_empty() {
            self.chat.rooms.remove(&room);
            self.count("rooms ended");
        }
    }

    fn chat_publish(&mut self, author: usize, line: String, is_message: bool) {
        let stay = self.chat.members[&author].stays.back().expect("it is somewhere");
        let room = self.chat.rooms.get_mut(&stay.room).expect("its room");
        let is_leave = line.starts_with("LEAVE");
        let entry = Rc::new(Entry {
            is_message,
            is_leave,
            turn: self.turn,
            // When everybody goes, nobody is told of each. And what is said outside of a machine may be dropped unseen.
            may_lack: Cell::new(
                is_leave && (self.stopped_at.is_some() || self.limits.slow_reader == SlowReader::Block),
            ),
            bytes_before: room.bytes.get(),
            messages_before: room.messages,
            or_line: self
                .chat
                .or_why
                .take()
                .map(|why| line.rsplit_once(' ').expect("words").0.to_string() + &format!(" {why}\n")),
            line,
        });
        room.bytes.set(room.bytes.get() + entry_bytes(&entry.line, &self.plan));
        room.messages += usize::from(is_message);
        room.entries.push(entry.clone());
        for other in room.members.iter().filter(|other| **other != author) {
            let member = self.chat.members.get_mut(other).expect("known");
            member.note(self.now);
            member.stays.back_mut().expect("it is somewhere").due.push_back(Due {
                entry: entry.clone(),
                is_history: false,
                may_lack: false,
            });
            member.note(self.now);
        }
        self.chat.fresh.push(entry);
    }

    pub(crate) fn chat_typed(&mut self, client: usize, line: &str, answers: &mut Vec<(String, bool)>) {
        if self.chat.members[&client].quit && !["PING", "PONG"].contains(&line) {
            return;
        }
        let mut answer = |line: String| answers.push((line + "\n", false));
        let line = line.trim_end();
        let name = self.chat.members[&client].name.clone();
        let Some(command) = line.strip_prefix('/') else {
            return match line {
                "PING" => answer("PONG".to_string()),
                "PONG" | "" => (),
                text => self.chat_publish(client, format!("MESSAGE {name}: {text}\n"), true),
            };
        };
        if command.starts_with('/') {
            return self.chat_publish(client, format!("MESSAGE {name}: {command}\n"), true);
        }
        let words: Vec<&str> = command.splitn(3, ' ').collect();
        match words[..] {
            ["nick", new] => {
                self.chat.names.remove(&folded(&name));
                assert!(self.chat.names.insert(folded(new), client).is_none(), "the script repeats a name");
                self.chat.members.get_mut(&client).expect("known").name = new.to_string();
                self.chat_publish(client, format!("NICK {name}: {new}\n"), false);
                answer(format!("INFO you are {new}"));
            }
            ["join", room] => self.chat_joins(client, room, answers),
            ["leave"] => self.chat_joins(client, LOBBY, answers),
            ["who"] => {
                // In whatever order.
                let room = &self.chat.rooms[&self.chat.members[&client].stays.back().expect("it is somewhere").room];
                let names: Vec<&str> =
                    room.members.iter().map(|other| self.chat.members[other].name.as_str()).collect();
                answer(format!("{WHO}{}: {}", room.name, names.join(", ")));
            }
            ["msg", to, text] => match self.chat.names.get(&folded(to)) {
                None => answer(format!("ERROR name: nobody is called {to}")),
                Some(other) => {
                    answer(format!("INFO sent to {}", self.chat.members[other].name));
                    let line = format!("PRIVATE {name}: {text}\n");
                    let letter = Letter { from: client, to: *other, line };
                    for client in [letter.from, letter.to] {
                        self.chat.members.get_mut(&client).expect("known").letters += 1;
                    }
                    self.chat.written.push(letter);
                }
            },
            ["quit"] => self.chat.members.get_mut(&client).expect("known").quit = true,
            [word, ..] => answer(format!("ERROR unknown: no command /{word}, see /help")),
            [] => unreachable!(),
        }
    }

    fn chat_joins(&mut self, client: usize, room: &str, answers: &mut Vec<(String, bool)>) {
        let here = self.chat.members[&client].stays.back().expect("it is somewhere").room.clone();
        if here == folded(room) {
            let name = &self.chat.rooms[&here].name;
            answers.push((format!("INFO you are in {name} already\n"), false));
        } else if folded(room) != LOBBY
            && !self.chat.rooms.contains_key(&folded(room))
            && self.chat.rooms.len() >= self.limits.max_rooms
        {
            answers.push((format!("ERROR full: {} rooms\n", self.limits.max_rooms), false));
            self.count("rooms refused");
        } else {
            self.chat_stand_up(client, "bye");
            self.chat_sit(client, room);
            let name = &self.chat.rooms[&folded(room)].name;
            answers.push((format!("INFO you are in {name}\n"), true));
            self.count("rooms changed");
        }
    }
}

// Who goes, and what others do meanwhile.
impl World {
    /// Somebody else is at work: what the last machine asked for has been done.
    pub(crate) fn chat_commit(&mut self, client: Option<usize>) {
        if let Some((going, why)) = self.chat.going
            && client != Some(going)
        {
            self.chat.going = None;
            self.chat_goes(going, why);
        }
        if self.chat.written.first().is_some_and(|letter| client != Some(letter.from)) {
            self.chat_post();
        }
    }

    /// What members have sent each other is on its way from here on.
    fn chat_post(&mut self) {
        let mut written = std::mem::take(&mut self.chat.written);
        self.chat.letters.append(&mut written);
    }

    pub(crate) fn chat_closing(&mut self, client: usize, close: Close) {
        assert_ne!(close, Close::Idle, "a member of a room was idle");
        assert!(self.chat.members[&client].seated);
        let stay = self.chat.members[&client].stays.back().expect("it is somewhere");
        if close == Close::Slow {
            assert_eq!(self.limits.slow_reader, SlowReader::Disconnect);
            let limits = &self.limits;
            let (plenty, bytes) = (self.plan.plenty, stay.bytes.get() + self.chat_unheard());
            let fell = |due: &Due| due.entry.is_message && may_drop(&due.entry, bytes, limits, plenty);
            assert!(stay.due.iter().any(fell), "closed `slow`, and had fallen behind by less than the log holds");
        }
        self.chat_commit(Some(client));
        assert_eq!(self.chat.going, None);
        self.chat.going = Some((client, close.word()));
    }

    /// What those may have left behind in the logs who were found stalled in this turn, of which nobody has heard yet.
    fn chat_unheard(&self) -> usize {
        let timeout = self.limits.write_timeout;
        let stalled = |node: &&usize| match &self.nodes[**node].kind {
            Kind::Stream(pipe) if pipe.chats && !self.nodes[**node].may_write => self.now - pipe.progress >= timeout,
            _ => false,
        };
        self.keys.values().filter(stalled).count() * entry_bytes("LEAVE guest-12345: stalled\n", &self.plan)
    }

    /// The kernel has said that the connection is over, or its end has come without a word before.
    pub(crate) fn chat_dies(&mut self, client: usize, why: &'static str) {
        if self.chat.members.get(&client).is_some_and(|member| member.seated) {
            self.chat_commit(Some(client));
            // What it was told before may have been the reason already, or not yet.
            self.chat.or_why = self.chat.going.take().map(|(_, word)| word);
            self.chat_goes(client, why);
        }
    }

    fn chat_goes(&mut self, client: usize, why: &str) {
        assert!(std::mem::replace(&mut self.chat.members.get_mut(&client).expect("known").seated, false));
        self.chat_stand_up(client, why);
        if why == Close::Stalled.word() {
            // That is heard late: who seemed to have everything in this turn did not have this.
            for member in self.chat.members.values_mut().filter(|member| member.complete_at == self.now) {
                member.complete_at = member.complete_before;
            }
        }
        let name = self.chat.members[&client].name.clone();
        self.chat.names.remove(&folded(&name));
        self.chat.fresh.clear(); // not said by a machine, so not counted
    }

    /// A machine is about to be told something: those who are there are those who should be.
    pub(crate) fn chat_check_members(&mut self, context: &Context<'_>) {
        let seated = self.chat.members.iter().filter(|(_, member)| member.seated);
        let gone = seated.filter(|(_, member)| context.rooms.find(&member.name).is_none());
        for client in gone.map(|(client, _)| *client).collect::<Vec<_>>() {
            // Of that nobody has heard yet: it will be confirmed at the end of this turn.
            self.stalled_now.insert(client);
            self.chat_dies(client, Close::Stalled.word());
        }
        let members = self.chat.members.values().filter(|member| member.seated).count();
        let known = (context.rooms.len(), context.rooms.members());
        assert_eq!(known, (self.chat.rooms.len(), members), "rooms, and the members of all of them");
        assert_eq!(context.metrics.published, self.chat.published);
        let dropped = context.rooms.notices_dropped();
        assert!(self.limits.slow_reader == SlowReader::Block || dropped == self.chat.notices_dropped);
        self.chat.notices_dropped = dropped;
    }
}

// What is written.
impl World {
    /// The kernel has taken bytes for a member, or for somebody who was refused.
    pub(crate) fn chat_written(&mut self, client: usize, bytes: &[u8]) {
        let Some(member) = self.chat.members.get_mut(&client) else { return };
        member.note(self.now);
        if let Some(mut side) = self.webs.remove(&client) {
            member.unfinished.extend_from_slice(bytes);
            loop {
                let member = self.chat.members.get_mut(&client).expect("known");
                let Some((line, used)) = web::item(&member.unfinished, &mut side.written_open) else { break };
                member.unfinished.drain(..used);
                let was_cut = std::mem::take(&mut member.was_cut);
                self.chat_line(client, &line, was_cut);
                self.count("web: lines as frames");
            }
            self.webs.insert(client, side);
            let now = self.now;
            let member = self.chat.members.get_mut(&client).expect("known");
            member.was_cut = !member.unfinished.is_empty();
            return member.note(now);
        }
        for byte in bytes {
            let member = self.chat.members.get_mut(&client).expect("known");
            member.unfinished.push(*byte);
            if *byte == b'\n' {
                let line = String::from_utf8(std::mem::take(&mut member.unfinished)).expect("ASCII");
                let was_cut = std::mem::take(&mut member.was_cut);
                self.chat_line(client, &line, was_cut);
            }
        }
        let now = self.now;
        let member = self.chat.members.get_mut(&client).expect("known");
        member.was_cut = !member.unfinished.is_empty();
        member.note(now);
    }

    fn chat_line(&mut self, client: usize, line: &str, was_cut: bool) {
        let word = line.split([' ', '\n']).next().unwrap_or_default();
        match word {
            "JOIN" | "LEAVE" | "NICK" | "MESSAGE" => {
                self.chat_room_line(client, line);
                if was_cut {
                    self.count("messages begun and finished later");
                }
            }
            "MISSED" => {
                assert_eq!(self.limits.slow_reader, SlowReader::Skip, "client {client} received {line:?}");
                let count = line.strip_prefix("MISSED ").and_then(|rest| rest.strip_suffix(" messages\n"));
                let count: usize = count.and_then(|count| count.parse().ok()).expect(line);
                let stay = self.chat.members.get_mut(&client).expect("known").stays.front_mut().expect("a room");
                let messages = stay.due.iter().filter(|due| due.entry.is_message).count();
                stay.missed += count;
                assert!(0 < count && stay.missed <= messages, "client {client} received {line:?} of {messages}");
                self.count(if self.clients[client].service.is_web() { "web: MISSED as a frame" } else { "MISSED" });
            }
            _ => self.chat_private_line(client, line),
        }
    }

    fn chat_private_line(&mut self, client: usize, line: &str) {
        if line.starts_with("PRIVATE") || line == BUSY {
            return self.chat_letter(client, line);
        }
        let member = self.chat.members.get_mut(&client).expect("known");
        let Some(next) = member.private.pop_front() else {
            panic!("client {client} received {line:?}, which is not for it or not whole");
        };
        assert_eq!(line, next.line, "client {client} received the one where the other was due");
        if next.moves {
            member.stays.pop_front();
        }
    }

    /// It goes past the machines, so all that is known is that those of one sender come in order.
    fn chat_letter(&mut self, client: usize, line: &str) {
        self.chat_post();
        let letters = &mut self.chat.letters;
        if line == BUSY {
            // Of which one it does not say.
            let mut its = (0..letters.len()).filter(|place| letters[*place].from == client);
            if let (Some(place), None) = (its.next(), its.next()) {
                self.chat_letter_ends(place);
            }
            return self.count("letters refused");
        }
        let Some(place) = letters.iter().position(|letter| letter.to == client && letter.line == line) else {
            panic!("client {client} received {line:?}, which is not for it or not whole");
        };
        let letter = self.chat_letter_ends(place);
        for before in &mut self.chat.letters[..place] {
            if (before.from, before.to) == (letter.from, letter.to) {
                before.line.clear(); // it can only have been refused
            }
        }
        self.count("letters delivered");
        if self.clients[client].service.is_web() {
            self.count("web: letters as frames");
        }
    }

    fn chat_letter_ends(&mut self, place: usize) -> Letter {
        let letter = self.chat.letters.remove(place);
        for client in [letter.from, letter.to] {
            let member = self.chat.members.get_mut(&client).expect("known");
            member.letters -= 1;
            member.note(self.now);
        }
        letter
    }

    /// The loop sleeps: whoever stays has heard of each letter.
    pub(crate) fn chat_sleeps(&mut self) {
        let stays = |client: &usize| {
            let member = &self.chat.members[client];
            let is_owed = !member.private.is_empty() || !member.unfinished.is_empty();
            member.seated && !is_owed
        };
        let is_lost = |letter: &Letter| stays(&letter.from) && stays(&letter.to);
        let lost: Vec<bool> = self.chat.letters.iter().map(is_lost).collect();
        for place in (0..lost.len()).rev().filter(|place| lost[*place]) {
            self.chat_letter_ends(place);
            self.chat.letters_lost += 1;
        }
    }

    fn chat_room_line(&mut self, client: usize, line: &str) {
        let known = |world: &World| {
            let stay = world.chat.members[&client].stays.front().expect("a room");
            stay.due.iter().position(|due| due.entry.line == line || due.entry.or_line.as_deref() == Some(line))
        };
        let mut found = known(self);
        if found.is_none() && line.starts_with("LEAVE") && line.ends_with(": stalled\n") {
            // As above.
            let name = line.split([' ', ':']).nth(1).expect("a name");
            let gone = *self.chat.names.get(&folded(name)).expect(line);
            self.stalled_now.insert(gone);
            self.chat_dies(gone, Close::Stalled.word());
            found = known(self);
        }
        let (plenty, unheard) = (self.plan.plenty, self.chat_unheard());
        let member = self.chat.members.get_mut(&client).expect("known");
        let stay = member.stays.front_mut().expect("a room");
        let Some(place) = found else {
            panic!("client {client} received {line:?}; due were {:#?}", stay.due);
        };
        let Due { entry, is_history, .. } = stay.due.remove(place).expect("found");
        let (mut must, mut may) = (0, 0);
        let mut kept = VecDeque::new();
        for due in stay.due.drain(..place) {
            let skipped = &due.entry;
            let may_drop = may_drop(skipped, stay.bytes.get() + unheard, &self.limits, plenty);
            if skipped.is_message {
                *(if due.may_lack { &mut may } else { &mut must }) += 1;
                assert!(due.may_lack || may_drop, "client {client} received {line:?}, and not {skipped:?}");
            } else if entry.is_leave && skipped.is_leave && entry.turn == skipped.turn {
                kept.push_back(due); // who goes first of those who are judged at once is not said
            } else {
                let excused = due.may_lack || skipped.may_lack.get() || may_drop;
                assert!(excused, "client {client} received {line:?}, and not {due:?}");
            }
        }
        kept.append(&mut stay.due);
        stay.due = kept;
        let missed = std::mem::take(&mut stay.missed);
        assert!(
            (must..=must + may).contains(&missed),
            "client {client} received {line:?}; it was told of {missed} missed messages, and {must} to {} are missing",
            must + may
        );
        if stay.over {
            // No more than the one that was in the outbox already.
            stay.due.clear();
            self.count("room lines from the outbox after the end of a stay");
        }
        if is_history && entry.is_message {
            if self.clients[client].service.is_web() {
                self.count("web: history as frames");
            }
            self.count("history shown");
        }
    }
}

// What must be so at certain times.
impl World {
    /// The end is said: everything that was for this one alone has been written.
    pub(crate) fn chat_end_said(&mut self, client: usize) {
        let Some(member) = self.chat.members.get(&client) else { return };
        assert!(member.private.is_empty(), "client {client} was not told {:?}", member.private);
        let rest = &member.unfinished;
        assert!(rest.is_empty(), "client {client} was left with half a line: {:?}", rest.escape_ascii().to_string());
    }

    /// When a member last had everything.
    pub(crate) fn chat_complete_at(&self, client: usize) -> Option<Moment> {
        self.chat.members.get(&client).map(|member| member.complete_at)
    }

    /// Whether something that a member must be given has not been written yet.
    pub(crate) fn chat_is_behind(&self, client: usize) -> bool {
        self.chat.members.get(&client).is_some_and(|member| member.is_behind(&self.limits, self.plan.plenty))
    }

    /// Whether more than what is in its outbox already, which is one line at the most, was said in its room.
    pub(crate) fn chat_is_due(&self, client: usize) -> bool {
        let Some(member) = self.chat.members.get(&client) else { return false };
        member.due(&self.limits, self.plan.plenty) > 1
    }

    /// Since when a member is behind; to be asked at the end of every turn.
    pub(crate) fn chat_behind_since(&self, client: usize) -> Option<(Moment, usize)> {
        self.chat.members.get(&client).filter(|member| member.seated)?.behind_since
    }

    /// Takes note of who is behind.
    pub(crate) fn chat_turn_ends(&mut self) {
        for member in self.chat.members.values_mut().filter(|member| member.seated) {
            // It falls behind by what is said in its room, and is that until it has all that it is owed.
            let falls = member.due(&self.limits, self.plan.plenty) > 0;
            let stays = member.behind_since.is_some() && member.is_behind(&self.limits, self.plan.plenty);
            let since = member.behind_since.filter(|(at, _)| *at >= member.complete_at);
            member.behind_since = (falls || stays).then(|| since.unwrap_or((self.now, self.disturbances)));
        }
    }

    /// Whether nobody in the room of a member waits for anything.
    pub(crate) fn chat_nobody_waits(&self, client: usize) -> bool {
        let Some(member) = self.chat.members.get(&client).filter(|member| member.seated) else { return false };
        let room = &member.stays.back().expect("it is somewhere").room;
        self.chat.rooms[room].members.iter().all(|other| self.chat.members[other].has_everything())
    }

    /// All is quiet and everybody has gone.
    pub(crate) fn chat_check_end(&mut self, undelivered: u64) {
        self.chat_commit(None);
        assert!(self.chat.rooms.is_empty() && self.chat.names.is_empty());
        let lost = self.chat.letters_lost;
        assert!(lost <= undelivered, "{lost} letters came to nothing, {undelivered} were counted");
    }
}
