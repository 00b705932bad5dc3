//! `oneloop ping`: asks until it has asked often enough or is stopped, and prints what came of it. Touches standard output.

use super::client::{limits, reactor, resolve, signals};
use crate::config::client::Ping as Asked;
use crate::protocol::client::ping::{Ping, Pinger, Settings};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::io;
use std::os::fd::AsFd;

/// Returns whether anybody answered.
///
/// # Errors
/// One line: what was tried, on what, why it failed and what to do.
pub fn run(asked: &Asked) -> Result<bool, String> {
    let route = resolve(&asked.target)?;
    let stop = signals()?;
    let (mut reactor, ()) = reactor(limits(asked.timeout), |_| ())?;
    let (interval, timeout, count, json) = (asked.interval, asked.timeout, asked.count, asked.json);
    let ping = Ping::new(Settings { route, interval, timeout, count, json });
    reactor.add("ping", Box::new(Pinger::new(&ping)));
    loop {
        let ended = reactor.turn().map_err(|error| format!("the poll failed: {error}"))?;
        let (lines, done) = {
            let mut ping = ping.borrow_mut();
            (std::mem::take(&mut ping.lines), ping.done)
        };
        if !print(&lines, &stop) || done || ended.is_some() {
            break;
        }
    }
    let ping = ping.borrow();
    print(&ping.summary(), &stop);
    Ok(ping.any_answer())
}

/// So much fits wherever the poll says that anything does: the least that POSIX allows `PIPE_BUF` to be.
const WRITE_BYTES: usize = 512;

/// Waits for whoever reads, as a write would, but no longer than until a signal says to `stop`: what does not fit then is
/// dropped. Returns whether to go on.
fn print(text: &str, stop: impl AsFd) -> bool {
    let (out, mut rest) = (io::stdout(), text.as_bytes());
    while !rest.is_empty() {
        let mut fds = [PollFd::new(&out, PollFlags::OUT), PollFd::new(&stop, PollFlags::IN)];
        let written = match poll(&mut fds, None) {
            Ok(_) if !fds[0].revents().is_empty() => rustix::io::write(&out, &rest[..rest.len().min(WRITE_BYTES)]),
            Ok(_) => return false,
            Err(error) => Err(error),
        };
        match written {
            Ok(count) => rest = &rest[count..],
            Err(Errno::INTR | Errno::AGAIN) => (),
            Err(_) => return false, // nobody reads on
        }
    }
    true
}
