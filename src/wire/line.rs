//! Lines: what ends in `\n`, without one `\r` before it. Touches only the bytes it is given.

use memchr::memchr;

/// What stands at the front of the bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// A whole line, without its end, and how many bytes it took with it.
    Whole {
        /// The line, whatever its bytes.
        line: &'a [u8],
        /// Bytes to consume, the end of the line among them.
        used: usize,
    },
    /// No end yet: come again with more.
    Unfinished,
    /// The line is longer than the limit, whether it has ended or not.
    TooLong,
}

/// Finds the lines in bytes that arrive in pieces.
///
/// The contract is that of [`Protocol::bytes`](crate::protocol::Protocol::bytes): what was not used comes again, first,
/// with what arrived since. It remembers how far it has looked, so that a line which arrives a byte at a time costs one
/// look at each byte.
///
/// ```
/// use oneloop::wire::line::{Line, LineDecoder};
///
/// let mut decoder = LineDecoder::default();
/// assert_eq!(decoder.next(b"hel", 80), Line::Unfinished);
/// assert_eq!(decoder.next(b"hello\r\nwor", 80), Line::Whole { line: b"hello", used: 7 });
/// assert_eq!(decoder.next(b"wor", 80), Line::Unfinished);
/// assert_eq!(decoder.next(b"world", 4), Line::TooLong);
/// ```
#[derive(Debug, Default)]
pub struct LineDecoder {
    /// The first so many bytes of the rest hold no `\n`.
    searched: usize,
}

impl LineDecoder {
    /// The line at the front of `bytes`, which may be up to `max_bytes` long, its end not counted.
    pub fn next<'a>(&mut self, bytes: &'a [u8], max_bytes: usize) -> Line<'a> {
        let from = self.searched.min(bytes.len());
        let Some(offset) = memchr(b'\n', &bytes[from..]) else {
            self.searched = bytes.len();
            let too_long = without_cr(bytes).len() > max_bytes;
            return if too_long { Line::TooLong } else { Line::Unfinished };
        };
        self.searched = 0;
        let end = from + offset;
        let line = without_cr(&bytes[..end]);
        if line.len() > max_bytes { Line::TooLong } else { Line::Whole { line, used: end + 1 } }
    }
}

fn without_cr(bytes: &[u8]) -> &[u8] {
    bytes.strip_suffix(b"\r").unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All lines of `bytes` when they arrive in pieces of `step`, as a machine would collect them.
    fn lines(bytes: &[u8], step: usize, max_bytes: usize) -> Result<Vec<Vec<u8>>, usize> {
        let (mut decoder, mut rest, mut lines) = (LineDecoder::default(), Vec::new(), Vec::new());
        for piece in bytes.chunks(step) {
            rest.extend_from_slice(piece);
            loop {
                match decoder.next(&rest, max_bytes) {
                    Line::Whole { line, used } => {
                        lines.push(line.to_vec());
                        rest.drain(..used);
                    }
                    Line::Unfinished => break,
                    Line::TooLong => return Err(lines.len()),
                }
            }
        }
        Ok(lines)
    }

    #[test]
    fn lines_are_the_same_however_they_are_cut() {
        let bytes = b"one\r\n\ntwo\rstill\n\x00\xff\x80\r\r\nlast\nrest";
        let expected: Vec<&[u8]> = vec![b"one", b"", b"two\rstill", b"\x00\xff\x80\r", b"last"];
        for step in 1..=bytes.len() {
            assert_eq!(lines(bytes, step, 80).unwrap(), expected, "in pieces of {step}");
        }
    }

    #[test]
    fn the_limit_is_exact_and_line_ends_do_not_count() {
        for (bytes, expected) in [
            (&b"1234\n"[..], Ok(1)),
            (b"1234\r\n", Ok(1)),
            (b"1234\r", Ok(0)),
            (b"1234", Ok(0)),
            (b"12345\n", Err(0)),
            (b"12345\r\n", Err(0)),
            (b"12345", Err(0)),
            (b"1234\r\r", Err(0)),
            (b"1234\n12345", Err(1)),
        ] {
            for step in 1..=bytes.len() {
                let found = lines(bytes, step, 4).map(|lines| lines.len());
                assert_eq!(found, expected, "{} in pieces of {step}", bytes.escape_ascii());
            }
        }
    }
}
