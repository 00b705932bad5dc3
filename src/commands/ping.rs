//! `oneloop ping`: asks until it has asked often enough or is stopped, and prints what came of it. Touches standard output.

use super::client::{limits, reactor, resolve};
use crate::config::client::Ping as Asked;
use crate::protocol::client::ping::{Ping, Pinger, Settings};
use std::io::{self, Write};

/// Returns whether anybody answered.
///
/// # Errors
/// One line: what was tried, on what, why it failed and what to do.
pub fn run(asked: &Asked) -> Result<bool, String> {
    let route = resolve(&asked.target)?;
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
        if !print(&lines) || done || ended.is_some() {
            break;
        }
    }
    let ping = ping.borrow();
    print(&ping.summary());
    Ok(ping.any_answer())
}

/// Returns whether somebody reads on.
fn print(text: &str) -> bool {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
}
