//! The codecs: bytes to messages and back, without sockets, clocks or memory of their own.

pub mod line;
pub mod text;
