//! The codecs: bytes to messages and back, without sockets, clocks or memory of their own.

#[cfg(feature = "files")]
pub mod files;
#[cfg(feature = "web")]
pub mod http;
pub mod line;
pub mod origin;
pub mod text;
pub mod websocket;

use crate::buffer::Queue;
use websocket::{Header, Opcode, push_frame};

/// How a line of text travels to a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// As it is, with a `\n` behind it.
    #[default]
    Line,
    /// As a WebSocket text frame.
    Frame,
}

impl Format {
    /// All of them, in the order of their numbers.
    pub const ALL: [Format; 2] = [Format::Line, Format::Frame];

    /// Adds `text`, which holds no end of a line, in this format.
    ///
    /// ```
    /// use oneloop::{buffer::Queue, wire::Format};
    ///
    /// let mut out = Queue::default();
    /// Format::Line.push(b"hi", &mut out);
    /// Format::Frame.push(b"hi", &mut out);
    /// assert_eq!(out.as_slice(), b"hi\n\x81\x02hi");
    /// ```
    pub fn push(self, text: &[u8], out: &mut Queue) {
        match self {
            Format::Line => {
                out.push(text);
                out.push(b"\n");
            }
            Format::Frame => push_frame(Opcode::Text, text, out),
        }
    }

    /// How many bytes [`push`](Format::push) adds for a text of `len`.
    pub fn len(self, len: usize) -> usize {
        match self {
            Format::Line => len + 1,
            Format::Frame => Header::len_for(len) + len,
        }
    }

    /// The text in what [`push`](Format::push) has added.
    pub fn text(self, pushed: &[u8]) -> &[u8] {
        match self {
            Format::Line => &pushed[..pushed.len().saturating_sub(1)],
            Format::Frame => match Header::read(pushed) {
                Ok(Some((_, used))) => &pushed[used..],
                _ => &[],
            },
        }
    }
}
