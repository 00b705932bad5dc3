//! File transfer: a line asks, and then bytes. The machine of the service `files`. Knows no socket and no clock; the directory
//! it reaches through the store that all its connections share.

pub mod courier;
mod store;

pub use store::{Permissions, Store};

use super::heartbeat::Heartbeat;
use super::{Context, Protocol};
use crate::close::Close;
use crate::disk::Listing;
use crate::wire::files::{NAME_RULE, Request, Wrong, name};
use crate::wire::line::{Line, LineDecoder};
use std::cell::RefCell;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use store::{Download, Refused, Upload, refused};

/// Entries of the directory looked at in a turn, a connection: 64, about a tenth of a millisecond.
const LIST_BUDGET: usize = 64;

/// The machine of one connection.
///
/// ```text
/// PUT NAME SIZE [SHA256]  ->  READY OFFSET, then takes the bytes from OFFSET on, then STORED NAME SIZE SHA256
/// GET NAME [OFFSET]       ->  FILE NAME SIZE SHA256, then the bytes from OFFSET on
/// LIST                    ->  FILE NAME SIZE for each, then END COUNT
/// DELETE NAME             ->  DELETED NAME
/// ```
///
/// A `PUT` that is refused ends the connection: the bytes that may be on their way must not be taken for lines.
#[derive(Debug)]
pub struct Files {
    store: Rc<RefCell<Store>>,
    lines: LineDecoder,
    heartbeat: Heartbeat,
    state: State,
    /// The last thing said were the bytes of a file, and nothing has been asked since.
    has_sent: bool,
}

/// What it is at.
#[derive(Default)]
enum State {
    /// The next line.
    #[default]
    Lines,
    Taking(Box<Upload>),
    Sending(Box<Download>),
    /// And how many have been listed.
    Listing(Box<dyn Listing>, usize),
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            State::Lines => "Lines",
            State::Taking(_) => "Taking",
            State::Sending(_) => "Sending",
            State::Listing(..) => "Listing",
        })
    }
}

impl Files {
    /// A machine for one connection to `store`.
    pub fn new(store: Rc<RefCell<Store>>) -> Files {
        Files {
            store,
            lines: LineDecoder::default(),
            heartbeat: Heartbeat::default(),
            state: State::Lines,
            has_sent: false,
        }
    }

    fn line(&mut self, context: &mut Context<'_>, line: &[u8]) {
        context.metrics.messages += 1;
        self.has_sent = false;
        if self.heartbeat.takes(context, line) {
            return;
        }
        let done = match Request::read(line) {
            Ok(Request::Put { name, size, digest }) => {
                let upload = self.store.borrow_mut().put(name, size, digest, context.now, context.limits);
                upload.map(|upload| self.take_on(context, upload))
            }
            Ok(Request::Get { name, offset }) => {
                let download = self.store.borrow_mut().get(name, offset, context.limits);
                download.map(|download| self.be_busy(context, State::Sending(Box::new(download))))
            }
            Ok(Request::List) => {
                let listing = self.store.borrow_mut().list(context.now, context.limits);
                listing.map(|listing| self.be_busy(context, State::Listing(listing, 0)))
            }
            Ok(Request::Delete { name }) => {
                let deleted = self.store.borrow_mut().delete(name);
                deleted.map(|()| say(context, format_args!("DELETED {name}")))
            }
            Err(Wrong::Name) => Err(refused("name", NAME_RULE)),
            Err(Wrong::Form(form)) => Err(refused("protocol", form)),
            Err(Wrong::Unknown) => return context.close(Close::Protocol),
        };
        if let Err(why) = done {
            refuse(context, &why);
            if line.starts_with(b"PUT") {
                context.close(Close::Refused);
            }
        }
    }

    fn take_on(&mut self, context: &mut Context<'_>, upload: Upload) {
        if upload.is_catching_up() {
            self.be_busy(context, State::Taking(Box::new(upload)));
        } else {
            self.be_ready(context, Box::new(upload));
        }
    }

    /// From here on every turn has a share of the work.
    fn be_busy(&mut self, context: &mut Context<'_>, state: State) {
        (self.state, *context.busy, *context.deadline) = (state, true, Some(context.now));
    }

    fn be_ready(&mut self, context: &mut Context<'_>, upload: Box<Upload>) {
        say(context, format_args!("READY {}", upload.at));
        *context.busy = false;
        self.wait_for_more(context, upload);
    }

    /// A whole upload waits for a turn of its own: what has come behind it shows that it was more than announced.
    fn wait_for_more(&mut self, context: &mut Context<'_>, upload: Box<Upload>) {
        let patience = if upload.is_whole() { Duration::ZERO } else { context.limits.files_progress };
        *context.deadline = Some(context.now + patience);
        self.state = State::Taking(upload);
    }

    /// The next line is waited for.
    fn be_idle(&mut self, context: &mut Context<'_>) {
        (self.state, *context.busy, *context.deadline) = (State::Lines, false, None);
        self.heartbeat.heard(context);
    }

    /// Bytes of a file. Returns how many were taken; if it failed, all, for the connection ends.
    fn take(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> usize {
        let State::Taking(mut upload) = std::mem::take(&mut self.state) else { return 0 };
        let taken = if upload.is_whole() && !bytes.is_empty() {
            Err(refused("size", format!("more than {} bytes came", upload.size)))
        } else {
            upload.take(bytes, context.now, context.limits)
        };
        match taken {
            Ok(count) => {
                context.metrics.file_bytes_in += count as u64;
                self.wait_for_more(context, upload);
                count
            }
            Err(why) => {
                self.store.borrow_mut().discard(*upload);
                self.fail(context, &why);
                bytes.len()
            }
        }
    }

    fn fail(&mut self, context: &mut Context<'_>, why: &Refused) {
        (*context.busy, *context.deadline) = (false, None);
        refuse(context, why);
        context.close(Close::Refused);
    }

    fn finish(&mut self, context: &mut Context<'_>, upload: Box<Upload>) {
        let (name, size) = (upload.name.clone(), upload.size);
        let finished = self.store.borrow_mut().finish(*upload, context.limits);
        match finished {
            Ok(digest) => {
                context.metrics.files_stored += 1;
                say(context, format_args!("STORED {name} {size} {digest}"));
                self.be_idle(context);
            }
            Err(why) => self.fail(context, &why),
        }
    }

    fn catch_up(&mut self, context: &mut Context<'_>, mut upload: Box<Upload>) {
        let caught_up = self.store.borrow_mut().catch_up(&mut upload, context.limits);
        match caught_up {
            Ok(()) if upload.is_catching_up() => self.be_busy(context, State::Taking(upload)),
            Ok(()) => self.be_ready(context, upload),
            Err(why) => {
                self.store.borrow_mut().discard(*upload);
                self.fail(context, &why);
            }
        }
    }

    /// A turn's share of a download: of its hash first, then of its bytes, as many as there is room for.
    fn send(&mut self, context: &mut Context<'_>, mut download: Box<Download>) {
        let store = self.store.clone();
        let mut store = store.borrow_mut();
        if download.is_being_hashed() {
            match store.hash(&mut download, context.limits) {
                Ok(digest) => {
                    if let Some(digest) = digest {
                        say(context, format_args!("FILE {} {} {digest}", download.name, download.size));
                    }
                    return self.be_busy(context, State::Sending(download));
                }
                Err(why) => {
                    store.end_read();
                    refuse(context, &why);
                    return self.be_idle(context);
                }
            }
        }
        let room = context.high_bytes.saturating_sub(context.outbox.len());
        match store.read(&mut download, room, context.limits) {
            Ok(bytes) => {
                context.metrics.file_bytes_out += bytes.len() as u64;
                context.outbox.push(bytes);
            }
            // In the middle of bytes nothing can be said.
            Err(_) => {
                context.metrics.files_failed += 1;
                self.state = State::Sending(download);
                return context.close(Close::Error);
            }
        }
        if download.at == download.size {
            store.end_read();
            context.metrics.files_sent += 1;
            self.has_sent = true;
            return self.be_idle(context);
        }
        let is_full = context.outbox.len() >= context.high_bytes;
        *context.deadline = (!is_full).then_some(context.now); // if it is, `drained` goes on
        self.state = State::Sending(download);
    }

    fn list(&mut self, context: &mut Context<'_>, mut listing: Box<dyn Listing>, mut count: usize) {
        for _ in 0..LIST_BUDGET {
            if context.outbox.len() >= context.high_bytes {
                *context.deadline = None; // `drained` goes on
                self.state = State::Listing(listing, count);
                return;
            }
            match listing.next() {
                Some(Ok((file, facts))) if facts.is_plain && name(file.as_bytes()).is_some() => {
                    count += 1;
                    say(context, format_args!("FILE {file} {}", facts.size));
                }
                Some(Ok(_)) => (),
                Some(Err(error)) => {
                    refuse(context, &refused("disk", error.to_string()));
                    return self.end_list(context);
                }
                None => {
                    say(context, format_args!("END {count}"));
                    return self.end_list(context);
                }
            }
        }
        self.be_busy(context, State::Listing(listing, count));
    }

    fn end_list(&mut self, context: &mut Context<'_>) {
        self.store.borrow_mut().end_read();
        self.be_idle(context);
    }

    /// Whatever it is at is over.
    fn let_go(&mut self) {
        match std::mem::take(&mut self.state) {
            State::Lines => (),
            State::Taking(upload) => self.store.borrow_mut().interrupt(*upload),
            State::Sending(_) | State::Listing(..) => self.store.borrow_mut().end_read(),
        }
    }

    fn work(&mut self, context: &mut Context<'_>) {
        match std::mem::take(&mut self.state) {
            State::Lines => self.heartbeat.expired(context, b"PING\n"),
            State::Taking(upload) if upload.is_catching_up() => self.catch_up(context, upload),
            State::Taking(upload) if upload.is_whole() && upload.has_waited => self.finish(context, upload),
            State::Taking(mut upload) if upload.is_whole() => {
                upload.has_waited = true;
                self.wait_for_more(context, upload);
            }
            State::Taking(upload) => {
                self.state = State::Taking(upload);
                context.close(Close::NoProgress);
            }
            State::Sending(download) => self.send(context, download),
            State::Listing(listing, count) => self.list(context, listing, count),
        }
    }
}

impl Protocol for Files {
    fn opened(&mut self, context: &mut Context<'_>, _: SocketAddr) {
        self.heartbeat.heard(context);
    }

    fn bytes(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> usize {
        let mut consumed = 0;
        while !context.is_full() {
            let rest = &bytes[consumed..];
            if matches!(self.state, State::Taking(_)) {
                if rest.is_empty() {
                    break;
                }
                consumed += self.take(context, rest);
                if context.is_closing() {
                    return bytes.len();
                }
                continue;
            }
            self.heartbeat.heard(context);
            match self.lines.next(rest, context.limits.max_line_bytes) {
                Line::Whole { line, used } => {
                    self.line(context, line);
                    consumed += used;
                    if context.is_closing() {
                        return bytes.len();
                    }
                }
                Line::Unfinished => break,
                Line::TooLong => {
                    context.close(Close::TooLong);
                    return bytes.len();
                }
            }
        }
        consumed
    }

    /// A line without its end is not obeyed: it may be the front of a longer one, with another name in it.
    fn ended(&mut self, context: &mut Context<'_>, rest: &[u8]) {
        match std::mem::take(&mut self.state) {
            State::Taking(upload) if upload.is_whole() => self.finish(context, upload),
            State::Taking(upload) => {
                let why = refused("size", format!("only {} of {} bytes came", upload.at, upload.size));
                self.store.borrow_mut().interrupt(*upload);
                self.fail(context, &why);
            }
            state => self.state = state,
        }
        if !rest.is_empty() {
            refuse(context, &refused("protocol", "the last line has no end"));
        }
    }

    fn drained(&mut self, context: &mut Context<'_>) {
        if *context.busy {
            self.work(context);
        }
    }

    fn expired(&mut self, context: &mut Context<'_>) {
        self.work(context);
    }

    fn closing(&mut self, context: &mut Context<'_>, close: Close) {
        // In the middle of a file it would be taken for bytes of that; and behind it, by `nc`.
        let is_sending =
            self.has_sent || matches!(&self.state, State::Sending(download) if !download.is_being_hashed());
        self.let_go();
        if !is_sending {
            context.tell(close);
        }
    }

    fn closed(&mut self, _: Close) {
        self.let_go();
    }
}

fn say(context: &mut Context<'_>, line: std::fmt::Arguments<'_>) {
    let _ = writeln!(context.outbox, "{line}"); // pushing cannot fail
}

fn refuse(context: &mut Context<'_>, why: &Refused) {
    context.metrics.files_failed += 1;
    say(context, format_args!("ERROR {}: {}", why.word, why.sentence));
}
