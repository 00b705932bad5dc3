//! The one home of everything that the kernel can wake: a slab whose entries carry a serial.
//! The key finds, the serial proves. Touches nothing outside itself.

use slab::Slab;
use std::num::NonZeroU64;

/// Names one entry for ever: the slab key finds it, the serial, which is never reused, proves that it is still the same one.
///
/// Whatever outlives a turn (a timer, the carry-over list) holds an `Id`, never a bare key. The serial is the
/// connection's name in the log: `#17`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Id {
    serial: NonZeroU64,
    key: u32,
}

impl Id {
    /// The slab key, which is also the token given to the kernel.
    pub fn key(self) -> usize {
        self.key as usize
    }

    /// The serial: 1 for the first entry ever made, then 2, and so on.
    pub fn serial(self) -> u64 {
        self.serial.get()
    }
}

impl std::fmt::Debug for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "#{}", self.serial)
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "#{}", self.serial)
    }
}

#[derive(Debug)]
struct Entry<T> {
    serial: NonZeroU64,
    value: T,
}

/// Entries found by key and proved by serial.
///
/// ```
/// use oneloop::slots::Slots;
///
/// let mut slots = Slots::new();
/// let old = slots.insert("old");
/// slots.remove(old);
/// let new = slots.insert("new");
/// assert_eq!(new.key(), old.key()); // the key came round again
/// assert_eq!(slots.get(old), None); // the serial did not
/// assert_eq!(slots.get(new), Some(&"new"));
/// ```
#[derive(Debug)]
pub struct Slots<T> {
    slab: Slab<Entry<T>>,
    next_serial: NonZeroU64,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Slots::new()
    }
}

impl<T> Slots<T> {
    /// What one entry takes in memory, in bytes.
    pub const ENTRY_BYTES: usize = size_of::<Entry<T>>();

    /// No entries, and no memory taken yet.
    pub fn new() -> Slots<T> {
        Slots { slab: Slab::new(), next_serial: NonZeroU64::MIN }
    }

    /// Puts `value` into a free place under a serial of its own.
    pub fn insert(&mut self, value: T) -> Id {
        let serial = self.next_serial;
        self.next_serial = serial.saturating_add(1); // 2^64 connections do not happen
        let key = self.slab.insert(Entry { serial, value }) as u32; // fewer entries than 2^32: each holds a descriptor
        Id { serial, key }
    }

    /// The entry that holds `key` now, whoever it is: for what the kernel has just said of that key.
    pub fn id_of(&self, key: usize) -> Option<Id> {
        self.slab.get(key).map(|entry| Id { serial: entry.serial, key: key as u32 })
    }

    /// The entry, unless it has gone.
    pub fn get(&self, id: Id) -> Option<&T> {
        self.slab.get(id.key()).filter(|entry| entry.serial == id.serial).map(|entry| &entry.value)
    }

    /// The entry, unless it has gone.
    pub fn get_mut(&mut self, id: Id) -> Option<&mut T> {
        self.slab.get_mut(id.key()).filter(|entry| entry.serial == id.serial).map(|entry| &mut entry.value)
    }

    /// Takes the entry out; its key is free from here on, its serial never again.
    pub fn remove(&mut self, id: Id) -> Option<T> {
        self.get(id)?;
        Some(self.slab.remove(id.key()).value)
    }

    /// Every entry, in the order of the keys. For start and stop, never for a turn.
    pub fn iter(&self) -> impl Iterator<Item = (Id, &T)> {
        self.slab.iter().map(|(key, entry)| (Id { serial: entry.serial, key: key as u32 }, &entry.value))
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }
}
