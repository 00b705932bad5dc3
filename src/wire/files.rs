//! The lines of file transfer: what is asked and answered, and what a file may be called. Touches only the bytes it is given.

use std::fmt;

/// The longest name of a file, in bytes: 128, which with what a part's name adds stays below the 255 of every file system.
pub const NAME_MAX: usize = 128;

/// What every name must be, for people.
pub const NAME_RULE: &str = "1 to 128 letters, digits, '.', '_' and '-', not beginning with a dot";

/// A name, if it may be one: then it holds nothing that a path, a shell or a terminal takes for more than a name.
///
/// ```
/// use oneloop::wire::files::name;
///
/// assert_eq!(name(b"report-7.pdf"), Some("report-7.pdf"));
/// assert!(name(b"../x").is_none() && name(b".x").is_none() && name(b"").is_none());
/// ```
pub fn name(bytes: &[u8]) -> Option<&str> {
    let is_usual = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    let is_name = (1..=NAME_MAX).contains(&bytes.len()) && bytes[0] != b'.' && bytes.iter().all(is_usual);
    std::str::from_utf8(bytes).ok().filter(|_| is_name)
}

/// A SHA-256, written as `sha256sum` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Reads 64 hexadecimal digits.
    pub fn read(text: &[u8]) -> Option<Digest> {
        if text.len() != 64 {
            return None;
        }
        let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Digest(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// `PUT NAME SIZE [SHA256]`.
    Put {
        /// What the file is to be called.
        name: &'a str,
        /// How many bytes it has.
        size: u64,
        /// Their hash, if they are to be checked.
        digest: Option<Digest>,
    },
    /// `GET NAME [OFFSET]`.
    Get {
        /// What the file is called.
        name: &'a str,
        /// The first byte wanted.
        offset: u64,
    },
    /// `LIST`.
    List,
    /// `DELETE NAME`.
    Delete {
        /// What the file is called.
        name: &'a str,
    },
}

/// Why a line is no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// It begins with no word of ours.
    Unknown,
    /// The name breaks the rule.
    Name,
    /// It is to be this.
    Form(&'static str),
}

impl<'a> Request<'a> {
    /// Reads a line, which has no end.
    ///
    /// ```
    /// use oneloop::wire::files::{Request, Wrong};
    ///
    /// assert_eq!(Request::read(b"GET a.txt 7"), Ok(Request::Get { name: "a.txt", offset: 7 }));
    /// assert_eq!(Request::read(b"GET /etc/passwd"), Err(Wrong::Name));
    /// ```
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(line: &'a [u8]) -> Result<Request<'a>, Wrong> {
        // At most one word more than any request has.
        let mut words = [&b""[..]; 5];
        let mut count = 0;
        for word in line.splitn(5, |byte| *byte == b' ') {
            words[count] = word;
            count += 1;
        }
        let named = |bytes| name(bytes).ok_or(Wrong::Name);
        match (words[0], count) {
            (b"PUT", 3 | 4) => {
                let form = Wrong::Form("PUT NAME SIZE [SHA256], the size in decimal, the hash in 64 digits");
                let digest = match count {
                    3 => None,
                    _ => Some(Digest::read(words[3]).ok_or(form)?),
                };
                Ok(Request::Put { name: named(words[1])?, size: number(words[2]).ok_or(form)?, digest })
            }
            (b"PUT", _) => Err(Wrong::Form("PUT NAME SIZE [SHA256]")),
            (b"GET", 2) => Ok(Request::Get { name: named(words[1])?, offset: 0 }),
            (b"GET", 3) => {
                let offset = number(words[2]).ok_or(Wrong::Form("GET NAME [OFFSET], the offset in decimal"))?;
                Ok(Request::Get { name: named(words[1])?, offset })
            }
            (b"GET", _) => Err(Wrong::Form("GET NAME [OFFSET]")),
            (b"LIST", 1) => Ok(Request::List),
            (b"LIST", _) => Err(Wrong::Form("LIST alone")),
            (b"DELETE", 2) => Ok(Request::Delete { name: named(words[1])? }),
            (b"DELETE", _) => Err(Wrong::Form("DELETE NAME")),
            _ => Err(Wrong::Unknown),
        }
    }
}

/// What a server answers, as far as a client looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// `READY OFFSET`.
    Ready(u64),
    /// `STORED NAME SIZE SHA256` or `FILE NAME SIZE SHA256`.
    Whole {
        /// `STORED`, not `FILE`.
        is_stored: bool,
        /// What the file is called.
        name: &'a str,
        /// How many bytes it has.
        size: u64,
        /// Their hash.
        digest: Digest,
    },
    /// `ERROR word: sentence`.
    Error {
        /// The word.
        word: &'a str,
        /// The sentence.
        sentence: &'a str,
    },
}

impl<'a> Answer<'a> {
    /// Reads a line, which has no end; `None` if it is none of these.
    pub fn read(line: &'a [u8]) -> Option<Answer<'a>> {
        if let Some(rest) = line.strip_prefix(b"ERROR ") {
            let (word, sentence) = std::str::from_utf8(rest).ok()?.split_once(": ")?;
            return Some(Answer::Error { word, sentence });
        }
        let mut words = line.split(|byte| *byte == b' ');
        let kind = words.next()?;
        let answer = match kind {
            b"READY" => Answer::Ready(number(words.next()?)?),
            b"STORED" | b"FILE" => Answer::Whole {
                is_stored: kind == b"STORED",
                name: name(words.next()?)?,
                size: number(words.next()?)?,
                digest: Digest::read(words.next()?)?,
            },
            _ => return None,
        };
        words.next().is_none().then_some(answer)
    }
}

/// Digits and nothing else. What no number holds is the largest one, which every limit refuses.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let add = |sum: u64, digit: &u8| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    Some(digits.iter().fold(0, add))
}

/// What an unfinished file is called in the directory, where no user can name it. One that may be gone on with says of what
/// it is a part, so that it is found again.
///
/// ```
/// use oneloop::wire::files::{Digest, part_name, part_of};
///
/// let name = part_name("a.txt", 7, Some(Digest([0xab; 32])));
/// assert_eq!(part_of(&name), Some(("a.txt", Some((7, Digest([0xab; 32]))))));
/// assert_eq!(part_of(&part_name("a.txt", 7, None)), Some(("a.txt", None)));
/// assert_eq!(part_of(".profile"), None);
/// ```
pub fn part_name(name: &str, size: u64, digest: Option<Digest>) -> String {
    match digest {
        Some(digest) => format!(".{name}.{size}.{digest}{PART}"),
        None => format!(".{name}{SCRAP}"),
    }
}

const PART: &str = ".oneloop-part";
const SCRAP: &str = ".oneloop-scrap";

/// Of what a file in the directory is a part: the name, and size and hash if it may be gone on with; `None` if it is no part.
pub fn part_of(file: &str) -> Option<(&str, Option<(u64, Digest)>)> {
    let file = file.strip_prefix('.')?;
    if let Some(scrap) = file.strip_suffix(SCRAP) {
        return Some((name(scrap.as_bytes())?, None));
    }
    let (rest, digest) = file.strip_suffix(PART)?.rsplit_once('.')?;
    let (of, size) = rest.rsplit_once('.')?;
    Some((name(of.as_bytes())?, Some((number(size.as_bytes())?, Digest::read(digest.as_bytes())?))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_the_rule_says() {
        let longest = "n".repeat(NAME_MAX);
        for good in ["a", "A.b_c-9", "-", "_", "a..b", "COM1", &longest] {
            assert_eq!(name(good.as_bytes()), Some(good));
        }
        let too_long = "n".repeat(NAME_MAX + 1);
        let wrong =
            ["", ".", "..", ".x", "a/b", "../x", "/etc/x", "a/../../x", "C:\\x", "a b", "a\0", "\x1b[2J", "\u{e9}"];
        for wrong in wrong.into_iter().chain([&too_long[..]]) {
            assert_eq!(name(wrong.as_bytes()), None, "{wrong:?}");
        }
        assert_eq!(name(b"\xff"), None);
    }

    #[test]
    fn a_request_is_exactly_its_words() {
        let hash = "0123456789abcdefABCDEF".repeat(3)[..64].to_string();
        let digest = Digest::read(hash.as_bytes());
        assert_eq!(digest.map(|digest| digest.to_string()), Some(hash.to_lowercase()));
        let put = format!("PUT a 5 {hash}");
        for (line, expected) in [
            ("PUT a 0", Ok(Request::Put { name: "a", size: 0, digest: None })),
            (&put, Ok(Request::Put { name: "a", size: 5, digest })),
            ("PUT a 9223372036854775808", Ok(Request::Put { name: "a", size: 1 << 63, digest: None })),
            ("PUT a 99999999999999999999999", Ok(Request::Put { name: "a", size: u64::MAX, digest: None })),
            ("GET a", Ok(Request::Get { name: "a", offset: 0 })),
            ("GET a 12", Ok(Request::Get { name: "a", offset: 12 })),
            ("LIST", Ok(Request::List)),
            ("DELETE a", Ok(Request::Delete { name: "a" })),
            ("PUT ../a 5", Err(Wrong::Name)),
            ("DELETE .a", Err(Wrong::Name)),
            ("put a 5", Err(Wrong::Unknown)),
            ("POST / HTTP/1.1", Err(Wrong::Unknown)),
            ("", Err(Wrong::Unknown)),
        ] {
            assert_eq!(Request::read(line.as_bytes()), expected, "{line:?}");
        }
        let forms = ["PUT", "PUT a", "PUT a -1", "PUT a +1", "PUT a 0x5", "PUT a 5 ab", "PUT a 1e3", "PUT  a 5"];
        for line in forms.into_iter().chain(["GET", "GET a b", "GET a 1 2", "LIST a", "DELETE", "DELETE a b"]) {
            assert!(matches!(Request::read(line.as_bytes()), Err(Wrong::Form(_) | Wrong::Name)), "{line:?}");
        }
        let much = [&put[..], " more"].concat();
        assert!(matches!(Request::read(much.as_bytes()), Err(Wrong::Form(_))));
    }

    #[test]
    fn an_answer_is_exactly_its_words() {
        let digest = Digest([7; 32]);
        let line = format!("STORED a 5 {digest}");
        let whole = Answer::Whole { is_stored: true, name: "a", size: 5, digest };
        assert_eq!(Answer::read(line.as_bytes()), Some(whole));
        assert_eq!(Answer::read(b"READY 5"), Some(Answer::Ready(5)));
        assert_eq!(Answer::read(b"ERROR busy: 4: more"), Some(Answer::Error { word: "busy", sentence: "4: more" }));
        for wrong in ["READY", "READY x", "READY 1 2", "STORED a 5", "FILE ../a 5 00", "HELLO", "ERROR", ""] {
            assert_eq!(Answer::read(wrong.as_bytes()), None, "{wrong:?}");
        }
        assert_eq!(Answer::read(format!("{line} x").as_bytes()), None);
    }

    #[test]
    fn the_longest_part_still_has_a_name_that_file_systems_take() {
        let longest = part_name(&"n".repeat(NAME_MAX), u64::MAX, Some(Digest([0xff; 32])));
        assert!(longest.len() <= 255, "{}", longest.len());
        assert!(name(longest.as_bytes()).is_none());
        // What looks like the end of a part is part of a name here.
        let tricky = format!("a.5.{}", Digest([1; 32]));
        assert_eq!(part_of(&part_name(&tricky, 7, None)), Some((&tricky[..], None)));
        for stranger in [".bashrc", "a.oneloop-part", ".a.oneloop-part", "..oneloop-scrap", ".a/b.oneloop-scrap"] {
            assert_eq!(part_of(stranger), None, "{stranger}");
        }
    }
}
