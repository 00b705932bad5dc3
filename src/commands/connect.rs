//! `oneloop connect`: a line client on a terminal or in a pipe. Touches standard input and output, and the terminal's modes.

use super::client::{limits, reactor, resolve};
use crate::config::client::Connect as Asked;
use crate::limits::{Heartbeat, Limits};
use crate::net::mio::MioNet;
use crate::protocol::client::connect::{Dialer, Session, Settings};
use crate::protocol::client::console::Console;
use crate::protocol::client::screen::Screen;
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr,
};
use std::io;

/// Connects until the server or the user ends it. Returns whether it came to its end.
///
/// # Errors
/// One line: what was tried, on what, why it failed and what to do.
pub fn run(asked: &Asked) -> Result<bool, String> {
    let is_terminal = isatty(io::stdin()) && isatty(io::stdout());
    let route = resolve(&asked.target)?;
    let settings = Settings {
        route,
        nick: asked.nick.clone(),
        room: asked.room.clone(),
        // What was on the way when a connection is lost may have arrived or not: a filter must neither lose nor double it.
        reconnect: asked.reconnect && is_terminal,
    };
    let session = Session::new(settings);
    let limits = Limits {
        idle_timeout: asked.read_timeout,
        heartbeat: asked.heartbeat.unwrap_or(Heartbeat::Auto),
        heartbeat_interval: asked.heartbeat_interval,
        heartbeat_timeout: asked.heartbeat_timeout,
        heartbeat_retries: asked.heartbeat_retries,
        ..limits(asked.connect_timeout)
    };
    let (mut reactor, stream) = reactor(limits, MioNet::console)?;
    let screen = is_terminal.then(|| Screen::new(has_colours()));
    let console = Box::new(Console::new(&session, screen));
    reactor
        .adopt("console", stream, console)
        .map_err(|error| format!("cannot watch standard input and output: {error}"))?;
    reactor.add("connect", Box::new(Dialer::new(&session)));
    if is_terminal {
        // It ends the poll, and then the new width is asked for. Without it the next key would be drawn in the old one.
        let _ = signal_hook::flag::register(signal_hook::consts::SIGWINCH, std::sync::Arc::default());
    }
    let _modes = if is_terminal { Modes::by_key() } else { None };
    loop {
        if is_terminal && let Ok(size) = tcgetwinsize(io::stdout()) {
            session.borrow_mut().columns = if size.ws_col == 0 { 80 } else { usize::from(size.ws_col) };
        }
        let ended = reactor.turn().map_err(|error| format!("the poll failed: {error}"))?;
        let session = session.borrow();
        match &session.outcome {
            Some(_) if session.is_over && session.is_unread => return Ok(false),
            Some(outcome) if session.is_over => return outcome.clone().map(|()| true),
            // A user who wants no more has come to the end; what a filter was to do is not done.
            _ if ended.is_some() => return Ok(is_terminal),
            _ => (),
        }
    }
}

/// Whether colours are wanted: see no-color.org.
fn has_colours() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !is_set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// The terminal's modes as they were, put back in the end.
struct Modes(Termios);

impl Modes {
    /// Each key as it is pressed, and not shown: that is done here. Ctrl-C stays what it is.
    fn by_key() -> Option<Modes> {
        let before = tcgetattr(io::stdin()).ok()?;
        let mut modes = before.clone();
        modes.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::IEXTEN;
        modes.special_codes[SpecialCodeIndex::VMIN] = 1;
        modes.special_codes[SpecialCodeIndex::VTIME] = 0;
        // A program that is stopped leaves the terminal as it is; this one had better not be.
        modes.special_codes[SpecialCodeIndex::VSUSP] = 0;
        modes.special_codes[SpecialCodeIndex::VQUIT] = 0;
        tcsetattr(io::stdin(), OptionalActions::Now, &modes).ok()?;
        Some(Modes(before))
    }
}

impl Drop for Modes {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0); // a terminal that is gone needs nothing
    }
}
