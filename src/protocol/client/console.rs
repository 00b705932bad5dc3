//! The user's side of a line client: a plain filter in a pipe, a [`Screen`] on a terminal. Pure.

use super::connect::Session;
use super::screen::{Key, Screen, Settled};
use super::words;
use crate::close::Close;
use crate::protocol::{Context, Protocol};
use crate::wire::line::{Line, LineDecoder};
use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;

/// Standard input to the server, and what the server says to standard output.
#[derive(Debug)]
pub struct Console {
    session: Rc<RefCell<Session>>,
    lines: LineDecoder,
    /// On a terminal.
    screen: Option<Screen>,
}

impl Console {
    /// The console of `session`, on a terminal with a screen.
    pub fn new(session: &Rc<RefCell<Session>>, screen: Option<Screen>) -> Console {
        Console { session: session.clone(), lines: LineDecoder::default(), screen }
    }

    /// Shows what waits, and looks whether more may be read.
    fn show(&mut self, context: &mut Context<'_>) {
        let mut session = self.session.borrow_mut();
        let down = std::mem::take(&mut session.down);
        let notices = std::mem::take(&mut session.notices);
        match &mut self.screen {
            Some(screen) => {
                screen.columns = session.columns;
                screen.show(down.as_slice(), &notices, context.limits.max_line_bytes, context.outbox);
                let Settled { nick, room, taken } = screen.settled();
                if nick.is_some() {
                    (session.nick_tries, session.wants_nick) = (0, false);
                } else if taken.is_some() && taken == session.settings.nick {
                    session.try_nick_again(context);
                }
                let settings = &mut session.settings;
                (settings.nick, settings.room) = (nick.or(settings.nick.take()), room.or(settings.room.take()));
            }
            None => context.outbox.push(down.as_slice()),
        }
        session.console_is_full = context.outbox.len() >= context.limits.outbox_high_bytes;
        if let Some(link) = session.link.filter(|_| !down.is_empty()) {
            context.wake(link);
        }
        if session.outcome.is_some() {
            if let Some(screen) = &mut self.screen {
                screen.leave(context.outbox);
            }
            return context.close(Close::Bye);
        }
        let may_pass_on = session.link.is_some() && session.up.is_empty() && !session.link_is_full;
        let may_read = may_pass_on || self.may_keep(context, &session) || session.unless_ended.is_some();
        *context.busy = session.input_ended || !may_read;
    }

    /// Who types is heard between connections, too: some lines wait for the next, and Ctrl-D ends it all.
    fn may_keep(&self, context: &Context<'_>, session: &Session) -> bool {
        self.screen.is_some() && session.link.is_none() && session.up.len() < context.limits.outbox_high_bytes
    }

    /// Has the connection take what is there now. Nothing more is read before it has.
    fn pass_on(&self, context: &mut Context<'_>, session: &Session) {
        *context.busy = session.input_ended || !self.may_keep(context, session);
        if let Some(link) = session.link {
            context.wake(link);
        }
    }

    /// What came through a pipe or from a file.
    fn filter(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> usize {
        let mut session = self.session.borrow_mut();
        if !session.is_by_lines() {
            session.up.push(bytes);
            self.pass_on(context, &session);
            return bytes.len();
        }
        let mut consumed = 0;
        loop {
            match self.lines.next(&bytes[consumed..], context.limits.max_line_bytes) {
                Line::Whole { line, used } => {
                    session.up.push(line);
                    session.up.push(b"\n");
                    consumed += used;
                }
                Line::Unfinished => break,
                Line::TooLong => {
                    let most = context.limits.max_line_bytes;
                    session
                        .end_with(Err(format!("a line of the input is longer than {most} bytes, so it was not sent")));
                    context.close(Close::TooLong);
                    return bytes.len();
                }
            }
        }
        if consumed > 0 {
            self.pass_on(context, &session);
        }
        consumed
    }

    /// What was typed.
    fn typed(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> usize {
        let Some(screen) = &mut self.screen else { return bytes.len() };
        let (mut consumed, mut line) = (0, None);
        while line.is_none()
            && let Some((key, used)) = Key::read(&bytes[consumed..])
        {
            consumed += used;
            line = screen.press(key, context.limits.max_line_bytes);
        }
        let mut session = self.session.borrow_mut();
        screen.columns = session.columns;
        screen.redraw(context.outbox);
        match line {
            None => (),
            Some(None) => {
                session.input_ended = true;
                if session.link.is_none() {
                    session.end_with(Ok(()));
                    screen.leave(context.outbox);
                    context.close(Close::Bye);
                }
                self.pass_on(context, &session);
            }
            Some(Some(line)) => {
                session.is_leaving = line.trim() == "/quit";
                session.up.push(line.as_bytes());
                session.up.push(b"\n");
                self.pass_on(context, &session);
            }
        }
        consumed
    }
}

impl Protocol for Console {
    fn opened(&mut self, context: &mut Context<'_>, _: SocketAddr) {
        self.session.borrow_mut().console = Some(context.id);
        *context.busy = true; // nothing is read before there is a connection
    }

    fn bytes(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> usize {
        let lost = self.session.borrow_mut().unless_ended.take();
        if let Some(sentence) = lost {
            self.session.borrow_mut().end_with(Err(sentence)); // this can no longer be sent
            context.close(Close::Bye);
            bytes.len()
        } else if self.screen.is_some() {
            let mut consumed = self.typed(context, bytes);
            while consumed < bytes.len() && !context.is_full() && !context.is_closing() {
                match self.typed(context, &bytes[consumed..]) {
                    0 => break,
                    used => consumed += used,
                }
            }
            consumed
        } else {
            self.filter(context, bytes)
        }
    }

    fn ended(&mut self, context: &mut Context<'_>, rest: &[u8]) {
        let mut session = self.session.borrow_mut();
        session.input_ended = true;
        if session.unless_ended.take().is_some() {
            session.end_with(if rest.is_empty() { Ok(()) } else { Err("the last line was not sent".to_string()) });
            return;
        }
        if self.screen.is_none() && !rest.is_empty() {
            session.up.push(rest);
            if session.is_by_lines() {
                session.up.push(b"\n");
            }
        }
        self.pass_on(context, &session);
    }

    fn drained(&mut self, context: &mut Context<'_>) {
        let mut session = self.session.borrow_mut();
        session.console_is_full = false;
        if let Some(link) = session.link {
            context.wake(link);
        }
    }

    fn woken(&mut self, context: &mut Context<'_>) {
        self.show(context);
    }

    fn closing(&mut self, context: &mut Context<'_>, close: Close) {
        if close == Close::Shutdown
            && let Some(screen) = &mut self.screen
        {
            screen.leave(context.outbox);
        }
    }

    fn failed(&mut self, error: &io::Error) {
        let mut session = self.session.borrow_mut();
        session.is_unread = error.kind() == ErrorKind::BrokenPipe;
        // Even if it had come to its end: what could not be shown is not done.
        if !matches!(session.outcome, Some(Err(_))) {
            session.outcome = Some(Err(words(error)));
        }
    }

    fn closed(&mut self, _: Close) {
        self.session.borrow_mut().is_over = true;
    }
}
