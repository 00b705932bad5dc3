//! The name of a person or a room, kept in place: ten thousand members are ten thousand names. Pure.

use crate::wire::text::NAME_MAX;
use std::ops::Deref;

/// A name of at most [`NAME_MAX`] bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Name {
    bytes: [u8; NAME_MAX],
    len: u8,
}

impl Name {
    /// `text` as a name, unless it is too long.
    pub(super) fn new(text: &str) -> Option<Name> {
        let mut bytes = [0; NAME_MAX];
        bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        Some(Name { bytes, len: text.len() as u8 })
    }

    /// What it is found by: names are the same whatever their case.
    pub(super) fn folded(mut self) -> Name {
        self.bytes.make_ascii_lowercase();
        self
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len as usize]).unwrap_or_default() // it was made from one
    }
}
