//! A terminal with a line being typed below what is said: keys in, escape sequences out. Pure: what the terminal is, and how
//! wide, the command knows.
//!
//! The line keeps to one row, and scrolls in it: a row can be erased and drawn anew wherever the cursor has got to, several
//! cannot.

use crate::buffer::Queue;
use crate::wire::text;

/// What was pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Char(char),
    Enter,
    Backspace,
    Delete,
    Left,
    Right,
    Home,
    End,
    Up,
    Down,
    /// Ctrl-D.
    EndOfInput,
    /// Ctrl-K, Ctrl-U, Ctrl-W.
    KillToEnd,
    KillToStart,
    KillWord,
    /// Ctrl-L.
    Clear,
    /// Anything else.
    Other,
}

impl Key {
    /// The key at the front of `bytes`, and how many of them it takes; `None` if it is not all there.
    pub(super) fn read(bytes: &[u8]) -> Option<(Key, usize)> {
        let key = match *bytes.first()? {
            b'\r' | b'\n' => Key::Enter,
            b'\t' => Key::Char('\t'), // of what is pasted
            0x7f | 0x08 => Key::Backspace,
            0x01 => Key::Home,
            0x02 => Key::Left,
            0x04 => Key::EndOfInput,
            0x05 => Key::End,
            0x06 => Key::Right,
            0x0b => Key::KillToEnd,
            0x0c => Key::Clear,
            0x0e => Key::Down,
            0x10 => Key::Up,
            0x15 => Key::KillToStart,
            0x17 => Key::KillWord,
            0x1b => return Key::escape(bytes),
            0..0x20 => Key::Other,
            _ => return Key::character(bytes),
        };
        Some((key, 1))
    }

    /// ECMA-48: `ESC [`, parameters, and a byte from `@` on; xterm has `ESC O` and one byte, too.
    fn escape(bytes: &[u8]) -> Option<(Key, usize)> {
        let used = match bytes.get(1)? {
            b'[' => 3 + bytes[2..].iter().position(|byte| (0x40..0x7f).contains(byte))?,
            b'O' => 3,
            _ => return Some((Key::Other, 2)),
        };
        let key = match bytes.get(2..used)? {
            b"A" => Key::Up,
            b"B" => Key::Down,
            b"C" => Key::Right,
            b"D" => Key::Left,
            b"H" | b"1~" | b"7~" => Key::Home,
            b"F" | b"4~" | b"8~" => Key::End,
            b"3~" => Key::Delete,
            _ => Key::Other,
        };
        Some((key, used))
    }

    fn character(bytes: &[u8]) -> Option<(Key, usize)> {
        let most = &bytes[..bytes.len().min(4)];
        let valid = match std::str::from_utf8(most) {
            Ok(text) => text,
            Err(error) if error.valid_up_to() > 0 => std::str::from_utf8(&most[..error.valid_up_to()]).ok()?,
            Err(error) => return Some((Key::Other, error.error_len()?)),
        };
        let char = valid.chars().next()?;
        Some((if char.is_control() { Key::Other } else { Key::Char(char) }, char.len_utf8()))
    }
}

/// How many columns a character takes. Of the wide ones some are taken for wide that are not, which only shows less of the line.
fn width(char: char) -> usize {
    if char < '\u{1100}' { 1 } else { 2 }
}

/// Lines that can be had again with the arrow keys.
const HISTORY: usize = 100;

const PROMPT: &str = "> ";
const ERASE_ROW: &[u8] = b"\r\x1b[K";

/// What the server has called the user and the user's room.
#[derive(Debug, Default)]
pub(super) struct Settled {
    pub(super) nick: Option<String>,
    pub(super) room: Option<String>,
    /// A name that somebody else has.
    pub(super) taken: Option<String>,
}

/// What is on the terminal.
#[derive(Debug, Default)]
pub struct Screen {
    has_colours: bool,
    /// How wide it is.
    pub(super) columns: usize,
    /// The line being typed, and before which of its characters the cursor stands.
    line: Vec<char>,
    cursor: usize,
    history: Vec<String>,
    /// Which line of the history is shown, if it is not a new one.
    recalled: Option<usize>,
    /// What the server has said of a line that has not ended.
    rest: Vec<u8>,
    /// For the row that is above the typed line now.
    said: Queue,
    settled: Settled,
}

impl Screen {
    /// An empty one.
    pub fn new(has_colours: bool) -> Screen {
        Screen { has_colours, columns: 80, ..Screen::default() }
    }

    /// Shows what the server has said, and notices, above the line being typed.
    pub(super) fn show(&mut self, bytes: &[u8], notices: &[String], max_line_bytes: usize, out: &mut Queue) {
        self.rest.extend_from_slice(bytes);
        let rest = std::mem::take(&mut self.rest);
        let mut shown = String::new();
        let mut taken = 0;
        for line in rest.split_inclusive(|byte| *byte == b'\n') {
            if !line.ends_with(b"\n") && line.len() <= max_line_bytes && notices.is_empty() {
                break; // not all there; but where the connection has changed, nothing more comes of it
            }
            taken += line.len();
            text::show(line.strip_suffix(b"\n").unwrap_or(line), &mut shown);
            self.settle(&shown);
            self.print(&shown, colour(&shown));
        }
        self.rest.extend_from_slice(&rest[taken..]);
        for notice in notices {
            self.print(&format!("-- {notice}"), "2");
        }
        self.redraw(out);
    }

    /// Remembers what the server says one is called and where one is, to ask for the same again.
    fn settle(&mut self, line: &str) {
        if let Some(name) = line.strip_prefix("ERROR name: ").and_then(|rest| rest.strip_suffix(" is taken")) {
            self.settled.taken = Some(name.to_string());
        }
        let Some(told) = line.strip_prefix("INFO you are ") else { return };
        match told.strip_prefix("in ") {
            Some(room) => self.settled.room = Some(room.strip_suffix(" already").unwrap_or(room).to_string()),
            None => self.settled.nick = Some(told.to_string()),
        }
    }

    /// What was remembered since it was last asked.
    pub(super) fn settled(&mut self) -> Settled {
        std::mem::take(&mut self.settled)
    }

    fn print(&mut self, line: &str, colour: &str) {
        let (before, after) = if self.has_colours && !colour.is_empty() {
            (format!("\x1b[{colour}m"), "\x1b[0m")
        } else {
            (String::new(), "")
        };
        self.said.push(format!("{before}{line}{after}\n").as_bytes());
    }

    /// Does what a key means. Returns a line that has been typed, and nothing for one at the end of all.
    pub(super) fn press(&mut self, key: Key, max_line_bytes: usize) -> Option<Option<String>> {
        match key {
            Key::Char(char) => {
                // A character is at most four bytes.
                if 4 * self.line.len() < max_line_bytes {
                    self.line.insert(self.cursor, char);
                    self.cursor += 1;
                }
            }
            Key::Enter => {
                let line: String = std::mem::take(&mut self.line).into_iter().collect();
                (self.cursor, self.recalled) = (0, None);
                self.print(&format!("{PROMPT}{}", line.replace('\t', " ")), "");
                if !line.is_empty() && self.history.last() != Some(&line) {
                    self.history.push(line.clone());
                    if self.history.len() > HISTORY {
                        self.history.remove(0);
                    }
                }
                return Some(Some(line));
            }
            Key::EndOfInput if self.line.is_empty() => return Some(None),
            Key::EndOfInput | Key::Delete => {
                if self.cursor < self.line.len() {
                    self.line.remove(self.cursor);
                }
            }
            Key::Backspace => {
                if self.cursor > 0 {
                    self.cursor -= 1;
                    self.line.remove(self.cursor);
                }
            }
            Key::Left => self.cursor = self.cursor.saturating_sub(1),
            Key::Right => self.cursor = (self.cursor + 1).min(self.line.len()),
            Key::Home => self.cursor = 0,
            Key::End => self.cursor = self.line.len(),
            Key::Up => self.recall(self.recalled.unwrap_or(self.history.len()).checked_sub(1)),
            Key::Down => self.recall(self.recalled.map(|at| at + 1)),
            Key::KillToEnd => self.line.truncate(self.cursor),
            Key::KillToStart => drop(self.line.drain(..std::mem::take(&mut self.cursor))),
            Key::KillWord => {
                let before = &self.line[..self.cursor];
                let end = before.iter().rposition(|char| *char != ' ').map_or(0, |last| last + 1);
                let from = before[..end].iter().rposition(|char| *char == ' ').map_or(0, |blank| blank + 1);
                self.line.drain(from..self.cursor);
                self.cursor = from;
            }
            Key::Clear => self.said.push(b"\x1b[H\x1b[2J"),
            Key::Other => (),
        }
        None
    }

    fn recall(&mut self, at: Option<usize>) {
        let Some(at) = at else { return };
        self.line = self.history.get(at).map(|line| line.chars().collect()).unwrap_or_default();
        self.recalled = (at < self.history.len()).then_some(at);
        self.cursor = self.line.len();
    }

    /// Draws the row anew, below what has been said since.
    pub(super) fn redraw(&mut self, out: &mut Queue) {
        out.push(ERASE_ROW);
        out.push(self.said.as_slice());
        self.said.clear();
        out.push(PROMPT.as_bytes());
        // As much of the line as fits, with the cursor in it; the last column stays free for that.
        let room = self.columns.saturating_sub(PROMPT.len() + 1).max(2);
        let (mut first, mut taken) = (self.cursor, 0);
        while first > 0 && taken + width(self.line[first - 1]) <= room {
            first -= 1;
            taken += width(self.line[first]);
        }
        let mut behind = 0;
        let mut last = self.cursor;
        while last < self.line.len() && taken + behind + width(self.line[last]) <= room {
            behind += width(self.line[last]);
            last += 1;
        }
        // A tab is sent as one, and shown as the one column that is reckoned for it.
        let drawn =
            |chars: &[char]| chars.iter().map(|char| if *char == '\t' { ' ' } else { *char }).collect::<String>();
        let visible = drawn(&self.line[first..last]);
        out.push(visible.as_bytes());
        if behind > 0 {
            // Not so many columns to the left: how wide the terminal draws a character is its own business.
            let before = drawn(&self.line[first..self.cursor]);
            out.push(format!("\r{PROMPT}{before}").as_bytes());
        }
    }

    /// Leaves the terminal as a program finds it: what has been said, and the cursor at the start of a row.
    pub(super) fn leave(&mut self, out: &mut Queue) {
        out.push(ERASE_ROW);
        out.push(self.said.as_slice());
        self.said.clear();
    }
}

/// The colour of a line, as escape sequences have it, by its first word.
fn colour(line: &str) -> &'static str {
    match line.split(' ').next() {
        Some("JOIN" | "LEAVE" | "NICK" | "INFO" | "WELCOME") => "2", // faint
        Some("ERROR" | "MISSED") => "31",                            // red
        Some("PRIVATE") => "35",                                     // magenta
        Some("MESSAGE") => "36",                                     // cyan
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Types `keys` and returns the lines that were entered and the row as it is drawn then, without its beginning.
    fn typed(screen: &mut Screen, keys: &str) -> (Vec<String>, String) {
        let (mut rest, mut lines) = (keys.as_bytes(), Vec::new());
        while let Some((key, used)) = Key::read(rest) {
            rest = &rest[used..];
            lines.extend(screen.press(key, 1000).map(|line| line.unwrap_or("the end".to_string())));
        }
        screen.said.clear();
        let mut out = Queue::default();
        screen.redraw(&mut out);
        let row = String::from_utf8(out.as_slice().to_vec()).unwrap();
        (lines, row.strip_prefix("\r\x1b[K> ").expect("an erased row and the prompt").to_string())
    }

    #[test]
    fn lines_are_edited() {
        for (keys, line) in [
            ("abc\r", "abc"),
            ("abd\x7fc\n", "abc"),
            ("bc\x01a\r", "abc"),
            ("ac\x1b[Db\r", "abc"),
            ("ac\x1bODb\x1b[F!\r", "abc!"),
            ("xabc\x1b[H\x1b[3~\r", "abc"),
            ("one two  \x17three\r", "one three"),
            ("garbage\x15abc\r", "abc"),
            ("abcgarbage\x1b[D\x1b[D\x1b[D\x1b[D\x1b[D\x1b[D\x1b[D\x0b\r", "abc"),
            ("\x1b[5~\x1b[1;5Ca\x1bxb\x00c\r", "abc"),
            ("a\tb\r", "a\tb"),
            ("gr\u{fc}n \u{1f600}\x7f\u{4e2d}\r", "gr\u{fc}n \u{4e2d}"),
        ] {
            assert_eq!(typed(&mut Screen::new(false), keys).0, [line], "{keys:?}");
        }
        let mut screen = Screen::new(false);
        assert_eq!(typed(&mut screen, "one\rtwo\rhalf\x1b[A\x1b[A\x1b[A!\r").0, ["one", "two", "one!"]);
        assert_eq!(typed(&mut screen, "\x1b[A\x1b[B\r").0, [""]);
        assert_eq!(
            typed(&mut screen, "a\x04\x7f\x04").0,
            ["the end"],
            "Ctrl-D in a line deletes, and ends where there is none"
        );
    }

    #[test]
    fn a_key_that_is_not_all_there_waits() {
        for begun in [&b"\x1b"[..], b"\x1b[", b"\x1b[1;", b"\x1bO", b"\xc3", b"\xf0\x9f\x98"] {
            assert_eq!(Key::read(begun), None, "{}", begun.escape_ascii());
        }
        assert_eq!(Key::read(b"\xff"), Some((Key::Other, 1)));
        assert_eq!(Key::read(b"\xc2\x9b"), Some((Key::Other, 2)), "a control character of two bytes");
    }

    #[test]
    fn the_line_scrolls_in_its_row() {
        let mut screen = Screen::new(false);
        screen.columns = 10; // seven of them for the line
        assert_eq!(typed(&mut screen, "1234567").1, "1234567");
        assert_eq!(typed(&mut screen, "8").1, "2345678");
        assert_eq!(typed(&mut screen, "\x01").1, "1234567\r> ");
        assert_eq!(typed(&mut screen, "\x05\x15\u{4e2d}\u{4e2d}\u{4e2d}\u{4e2d}").1, "\u{4e2d}\u{4e2d}\u{4e2d}");
        assert_eq!(typed(&mut screen, "\x15a\tb\x02").1, "a b\r> a ", "a tab is as wide as a blank");
        screen.columns = 0;
        typed(&mut screen, "x");
    }

    #[test]
    fn what_is_said_stands_above_what_is_typed_and_cannot_command_the_terminal() {
        let mut screen = Screen::new(true);
        typed(&mut screen, "half a li");
        let mut out = Queue::default();
        screen.show(b"MESSAGE bob: \x1b[2Jhi\r\nJOIN al", &[], 100, &mut out);
        screen.show(b"ice\nno end", &[], 100, &mut out);
        screen.show(b"", &["lost".to_string()], 100, &mut out);
        let shown = String::from_utf8(out.as_slice().to_vec()).unwrap();
        let rows: Vec<&str> = shown.split("\r\x1b[K").collect();
        let expected = [
            "",
            "\x1b[36mMESSAGE bob: [2Jhi\x1b[0m\n> half a li",
            "\x1b[2mJOIN alice\x1b[0m\n> half a li",
            "no end\n\x1b[2m-- lost\x1b[0m\n> half a li",
        ];
        assert_eq!(rows, expected);
    }
}
