//! What people type, made fit to be shown to others: valid UTF-8 without control characters, escapes or telnet's
//! negotiation. And the names they may have. Touches only the bytes it is given.

/// The longest name, in characters: 20, which leaves room for the text in a line of 80.
pub const NAME_MAX: usize = 20;

/// Names that would be taken for the server or its words.
const RESERVED: [&str; 24] = [
    "admin",
    "administrator",
    "all",
    "error",
    "everyone",
    "help",
    "here",
    "info",
    "join",
    "leave",
    "message",
    "missed",
    "moderator",
    "nick",
    "nobody",
    "oneloop",
    "operator",
    "ping",
    "pong",
    "private",
    "root",
    "server",
    "system",
    "welcome",
];

/// Why `name` cannot be the name of a person or a room; `None` if it can.
///
/// ```
/// use oneloop::wire::text::wrong_name;
///
/// assert_eq!(wrong_name("alice_7"), None);
/// assert!(wrong_name("").is_some() && wrong_name("al ice").is_some() && wrong_name("Server").is_some());
/// ```
pub fn wrong_name(name: &str) -> Option<&'static str> {
    let strange = |byte: u8| !(byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    if name.is_empty() || name.len() > NAME_MAX || name.bytes().any(strange) {
        Some("1 to 20 letters, digits, _ and -")
    } else if RESERVED.iter().any(|word| word.eq_ignore_ascii_case(name)) {
        Some("a reserved word")
    } else {
        None
    }
}

/// Writes `line` into `shown` as others may see it: what is no UTF-8 becomes U+FFFD; control characters but the tab, and those
/// that turn the direction of writing or break lines, are left out, and so is telnet's negotiation.
///
/// ```
/// use oneloop::wire::text::show;
///
/// let mut shown = String::new();
/// show(b"\xff\xfb\x1fa\x1b]0;b\x07\xc2\x9bc\xfe", &mut shown);
/// assert_eq!(shown, "a]0;bc\u{fffd}");
/// ```
pub fn show(line: &[u8], shown: &mut String) {
    shown.clear();
    let mut rest = line;
    while !rest.is_empty() {
        let (text, after) = match rest.iter().position(|byte| *byte == telnet::IAC) {
            Some(0) => {
                let skipped = telnet::command_len(rest);
                if skipped > 0 {
                    rest = &rest[skipped..];
                    continue;
                }
                rest.split_at(1)
            }
            Some(at) => rest.split_at(at),
            None => (rest, &[][..]),
        };
        for chunk in text.utf8_chunks() {
            shown.extend(chunk.valid().chars().filter(|character| is_shown(*character)));
            if !chunk.invalid().is_empty() {
                shown.push(char::REPLACEMENT_CHARACTER);
            }
        }
        rest = after;
    }
}

fn is_shown(character: char) -> bool {
    let turns_or_breaks =
        matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    character == '\t' || !(character.is_control() || turns_or_breaks)
}

/// Telnet's commands in the stream: RFC 854 and 855.
mod telnet {
    pub(super) const IAC: u8 = 255;
    const SE: u8 = 240;
    const SB: u8 = 250;

    /// How many bytes the command at the front takes; 0 if it is none.
    pub(super) fn command_len(bytes: &[u8]) -> usize {
        match bytes.get(1) {
            Some(&SB) => bytes.windows(2).position(|pair| pair == [IAC, SE]).map_or(bytes.len(), |at| at + 2),
            Some(251..=254) => bytes.len().min(3),
            Some(SE..=249) => 2,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &[u8]) -> String {
        let mut text = String::new();
        show(line, &mut text);
        text
    }

    #[test]
    fn names_are_judged() {
        for name in ["a", "A-b_9", "guest-7", "12345678901234567890"] {
            assert_eq!(wrong_name(name), None, "{name}");
        }
        for name in ["", "123456789012345678901", "a b", "a\u{7}", "аlice", "al\u{202e}ice", "a/b", "SERVER", "Ping"] {
            assert!(wrong_name(name).is_some(), "{name}");
        }
        assert!(RESERVED.is_sorted());
    }

    #[test]
    fn nothing_that_moves_a_terminal_is_shown() {
        assert_eq!(shown("gr\u{fc}n \u{1f642}\tx".as_bytes()), "gr\u{fc}n \u{1f642}\tx");
        assert_eq!(shown(b"\x1b[2J\x00\x07\r\x7f!"), "[2J!");
        assert_eq!(shown("\u{85}\u{9b}31m\u{202e}\u{2066}\u{2028}x".as_bytes()), "31mx");
        assert_eq!(shown(b"\x9b31m"), "\u{fffd}31m");
        assert_eq!(shown(b"\xff"), "\u{fffd}");
        assert_eq!(shown(b"\xff line"), "\u{fffd} line");
    }

    #[test]
    fn telnet_negotiation_is_left_out() {
        assert_eq!(shown(b"a\xff\xfd\x01b\xff\xfa\x18\x00xterm\xff\xf0c\xff\xf1d\xff\xfb"), "abcd");
        assert_eq!(shown(b"a\xff\xfa\x18never ended"), "a");
    }
}
