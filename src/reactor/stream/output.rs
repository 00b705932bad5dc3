//! What leaves a connection: its own answers, lines of others, what its room has for it, and its end. A child of the stream, whose
//! state it works on.

use super::{Phase, Stream};
use crate::close::Close;
use crate::net::Net;
use crate::reactor::Common;
use crate::room::Offer;
use crate::slots::Id;
use crate::wire::Format;
use std::io::{self, ErrorKind};

impl<S> Stream<S> {
    /// FLUSH: what it is owed, and then what its room has for it.
    pub(crate) fn flush<N: Net<Stream = S>>(&mut self, id: Id, common: &mut Common<N>) {
        self.write(id, common);
        // Whether or not it takes anything: it would be told nothing but this.
        if self.phase == Phase::Open && self.seat.is_some_and(|seat| common.rooms.is_too_slow(seat, &common.limits)) {
            self.begin_close(id, Close::Slow, common);
            self.write(id, common);
        }
        while self.phase == Phase::Open && self.may_follow(common) {
            let Some(seat) = self.seat else { return };
            match common.rooms.offer(seat, &common.limits) {
                Offer::Nothing => break,
                Offer::Missed(count) => {
                    common.metrics.missed += count;
                    self.owe(&format!("MISSED {count} messages"), common);
                }
                Offer::Bytes(bytes) => {
                    let offered = bytes.len();
                    let written = common.net.write(&mut self.socket, bytes);
                    let taken = match self.taken(written) {
                        Ok(Some(count)) => count,
                        Ok(None) => return,
                        Err(error) => return self.fail(id, &error, common),
                    };
                    self.sent(taken, common);
                    // A message begun is finished, whatever happens to the log: its rest is owed from here on.
                    let (buffers, pool, now) = (&mut self.buffers, &mut common.pool, common.now);
                    common.rooms.advance(seat, taken, offered, &common.limits, |rest| {
                        let buffers = buffers.get_or_insert_with(|| pool.take());
                        buffers.progress = now;
                        buffers.outbox.push(rest);
                    });
                }
            }
            self.write(id, common);
        }
        if let Some(seat) = self.seat {
            let has_everything = self.owed() == 0 && !common.rooms.is_pending(seat);
            common.rooms.note(seat, has_everything, common.now);
        }
    }

    /// A line from somebody else, unless it is owed much already. Returns whether it was taken.
    pub(crate) fn give<N: Net<Stream = S>>(&mut self, line: &str, common: &mut Common<N>) -> bool {
        let takes = self.phase == Phase::Open && !self.is_choked(common);
        if takes {
            self.owe(line, common);
        }
        takes
    }

    /// Adds a line in the format of its room.
    pub(super) fn owe<N: Net<Stream = S>>(&mut self, line: &str, common: &mut Common<N>) {
        let format = self.seat.map_or(Format::Line, |seat| common.rooms.format(seat));
        let buffers = self.buffers.get_or_insert_with(|| common.pool.take());
        if buffers.outbox.is_empty() {
            buffers.progress = common.now;
        }
        format.push(line.as_bytes(), &mut buffers.outbox);
    }

    /// Writes what is in the outbox, until the kernel takes no more. (Until it says so: a short write proves nothing.)
    pub(super) fn write<N: Net<Stream = S>>(&mut self, id: Id, common: &mut Common<N>) {
        while self.may_write() {
            let Some(buffers) = &self.buffers else { return };
            let written = common.net.write(&mut self.socket, buffers.outbox.as_slice());
            match self.taken(written) {
                Ok(Some(count)) => {
                    if let Some(buffers) = self.buffers.as_mut().filter(|_| count > 0) {
                        buffers.outbox.consume(count);
                        buffers.progress = common.now;
                    }
                    self.sent(count, common);
                }
                Ok(None) => return,
                Err(error) => self.fail(id, &error, common),
            }
        }
    }

    /// What a write comes to: so many bytes, none of them if the kernel takes no more for now; `None`, to try again next turn.
    pub(super) fn taken(&mut self, written: io::Result<usize>) -> io::Result<Option<usize>> {
        match written {
            Ok(count) => Ok(Some(count)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.head.ready.writable = false;
                self.pressed = true;
                Ok(Some(0))
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(None), // still writable: carried over
            Err(error) => Err(error),
        }
    }

    pub(super) fn sent<N: Net<Stream = S>>(&mut self, count: usize, common: &mut Common<N>) {
        common.metrics.bytes_out += count as u64;
        if let Some(story) = &mut self.story {
            story.bytes_out += count as u64;
        }
    }

    /// Says our end, once. Returns whether it is said.
    pub(super) fn say_end<N: Net<Stream = S>>(&mut self, id: Id, common: &mut Common<N>) -> bool {
        if !std::mem::replace(&mut self.end_said, true)
            && let Err(error) = common.net.half_close(&mut self.socket)
        {
            self.fail(id, &error, common);
            return false;
        }
        true
    }
}
