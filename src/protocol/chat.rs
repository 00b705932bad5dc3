//! Chat for people with `nc`: a line goes to everyone else in the room, a line that begins with `/` is a command. Pure: who is
//! where stands in the rooms that the context lends.

use super::Context;
use super::text::{Speaker, Text};
use crate::close::Close;
use crate::room::Bucket;
use crate::wire::Format;
use crate::wire::text::{show, wrong_name};
use std::fmt::Write as _;

/// Where everybody begins, and where `/leave` leads.
const LOBBY: &str = "lobby";

/// `/who` names so many at the most: two screens.
const WHO_MAX: usize = 100;

const HELP: &str = "\
INFO a line goes to everyone else in the room; //text sends /text
INFO /nick NAME  /who  /msg NAME TEXT  /join ROOM  /leave (back to the lobby)  /help  /quit
";

/// The machine of the service `chat`.
pub type Chat = Text<Person>;

/// Somebody who chats.
#[derive(Debug, Default)]
pub struct Person {
    format: Format,
    ration: Bucket,
    /// Has been told that it is over its ration, and has not had all of it again since.
    told: bool,
    /// Has said `/quit`: what stands behind it is not heard.
    quit: bool,
}

impl Person {
    /// Somebody who reads `format`.
    pub fn new(format: Format) -> Person {
        Person { format, ..Person::default() }
    }

    fn typed(&mut self, context: &mut Context<'_>, text: &str) {
        let Some(seat) = context.seat.filter(|_| !self.quit) else { return };
        match text {
            // Heartbeat with a blank or telnet's negotiation around it: never published either.
            "PING" => return context.outbox.push(b"PONG\n"),
            "PONG" => return,
            _ => (),
        }
        let Some(command) = text.strip_prefix('/') else { return self.say(context, text) };
        if command.starts_with('/') {
            return self.say(context, command);
        }
        let (word, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let rest = rest.trim();
        match (word, rest) {
            ("nick", name) => self.nick(context, name),
            ("join", room) => self.join(context, room),
            ("leave", _) => self.join(context, LOBBY),
            ("who", _) => {
                let members = context.rooms.who(seat);
                let more = members.len().saturating_sub(WHO_MAX);
                let _ = write!(context.outbox, "INFO {}:", context.rooms.room(seat));
                for (index, name) in members.take(WHO_MAX).enumerate() {
                    let _ = write!(context.outbox, "{} {name}", if index > 0 { "," } else { "" });
                }
                let _ = if more > 0 { writeln!(context.outbox, " and {more} more") } else { writeln!(context.outbox) };
            }
            ("msg", rest) => self.private(context, rest),
            ("help", _) => context.outbox.push(HELP.as_bytes()),
            ("quit", _) => {
                self.quit = true;
                context.close(Close::Bye);
            }
            _ => {
                let _ = writeln!(context.outbox, "ERROR unknown: no command /{word}, see /help");
            }
        }
    }

    fn say(&mut self, context: &mut Context<'_>, text: &str) {
        if self.may_speak(context)
            && let Some(seat) = *context.seat
            && context.rooms.say(seat, text, context.limits)
        {
            context.metrics.published += 1;
        }
    }

    /// Whether it is within its ration; if not, it is told, once for as long as it goes on like that.
    fn may_speak(&mut self, context: &mut Context<'_>) -> bool {
        self.told &= !self.ration.is_full(context.now);
        let may = self.ration.take(context.now, context.limits.chat_rate);
        if !may {
            context.metrics.rationed += 1;
            if !std::mem::replace(&mut self.told, true) {
                let most = context.limits.chat_rate.unwrap_or_default();
                let _ = writeln!(
                    context.outbox,
                    "ERROR rate: at most {most} messages a second, what is over that is dropped"
                );
            }
        }
        may
    }

    fn nick(&mut self, context: &mut Context<'_>, name: &str) {
        let Some(seat) = *context.seat else { return };
        if let Some(wrong) = wrong_name(name) {
            let _ = writeln!(context.outbox, "ERROR name: {wrong}, see /help");
        } else if self.may_speak(context) {
            let _ = match context.rooms.rename(seat, name, context.limits) {
                Ok(()) => writeln!(context.outbox, "INFO you are {name}"),
                Err(_) => writeln!(context.outbox, "ERROR name: {name} is taken"),
            };
        }
    }

    fn join(&mut self, context: &mut Context<'_>, room: &str) {
        let Some(seat) = *context.seat else { return };
        if let Some(wrong) = wrong_name(room) {
            let _ = writeln!(context.outbox, "ERROR room: {wrong}, see /help");
        } else if self.may_speak(context) {
            // There is always a lobby for those who come, so there is one for those who come back.
            let most = if room.eq_ignore_ascii_case(LOBBY) { usize::MAX } else { context.limits.max_rooms };
            let moved = context.rooms.move_to(seat, room, most, Close::Bye.word(), context.now, context.limits);
            let room = context.rooms.room(seat);
            let _ = match moved {
                Ok(true) => writeln!(context.outbox, "INFO you are in {room}"),
                Ok(false) => writeln!(context.outbox, "INFO you are in {room} already"),
                Err(_) => writeln!(context.outbox, "ERROR full: {} rooms", context.limits.max_rooms),
            };
        }
    }

    fn private(&mut self, context: &mut Context<'_>, rest: &str) {
        let Some(seat) = *context.seat else { return };
        let Some((name, text)) = rest.split_once(char::is_whitespace) else {
            context.outbox.push(b"ERROR usage: /msg NAME TEXT\n");
            return;
        };
        let Some((to, name)) = context.rooms.find(name) else {
            let _ = writeln!(context.outbox, "ERROR name: nobody is called {name}");
            return;
        };
        let (name, from) = (name.to_string(), context.rooms.name(seat));
        let line = format!("PRIVATE {from}: {}", text.trim_start());
        if self.may_speak(context) {
            let _ = writeln!(context.outbox, "INFO sent to {name}");
            context.send_to(to, line);
        }
    }
}

impl Speaker for Person {
    fn opened(&mut self, context: &mut Context<'_>) {
        let seat = context.rooms.enter(context.id, LOBBY, self.format, context.now, context.limits);
        *context.seat = Some(seat);
        let name = context.rooms.name(seat);
        let _ = writeln!(context.outbox, "WELCOME {name}, you are in {LOBBY}; /help lists what you can do");
    }

    fn line(&mut self, context: &mut Context<'_>, line: &[u8]) {
        let mut text = std::mem::take(context.text);
        show(line, &mut text);
        let most = context.limits.max_line_bytes;
        if text.len() > most {
            // What is no UTF-8 grows when it is replaced.
            let _ = writeln!(context.outbox, "ERROR text: longer than {most} bytes once what is no UTF-8 is replaced");
        } else if !text.trim().is_empty() {
            self.typed(context, text.trim_end());
        }
        *context.text = text;
    }
}
