//! The seam between file transfer and the disk: one directory, as a trait, so that tests can let any call fail. Touches
//! nothing; `disk/real.rs` is the file system.

pub mod real;

use std::io;
use std::time::Duration;

/// What is known of a file without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// A regular file with this one name: no link of either kind, no directory, no pipe, no device.
    pub is_plain: bool,
    /// Its bytes.
    pub size: u64,
    /// Its number on the file system.
    pub inode: u64,
    /// When its content last changed, in nanoseconds of the system's calendar.
    pub modified_nanos: i128,
    /// How long ago that is by the system's clock; zero if that says later.
    pub age: Duration,
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To be read.
    Read,
    /// To be written (and read) from the beginning: nothing of that name may be there.
    Create,
    /// To be read and gone on with.
    Extend,
}

/// One directory. Names are names in it: nothing here follows a link or leaves it. Every call may take as long as the disk does.
///
/// # Errors
/// Each returns the system's.
pub trait Disk {
    /// Goes through the directory, in the order that it has.
    fn list(&mut self) -> io::Result<Box<dyn Listing>>;

    /// What is known of this name; `None` if nothing has it.
    fn facts(&mut self, name: &str) -> io::Result<Option<Facts>>;

    /// Opens a plain file.
    fn open(&mut self, name: &str, access: Access) -> io::Result<Box<dyn File>>;

    /// Takes a file away.
    fn remove(&mut self, name: &str) -> io::Result<()>;

    /// Gives a file another name, all at once. If that name is taken, what has it is replaced, or it is `AlreadyExists` and
    /// nothing changes.
    fn rename(&mut self, from: &str, to: &str, may_replace: bool) -> io::Result<()>;

    /// Returns when the names are on the disk.
    fn sync(&mut self) -> io::Result<()>;
}

/// Goes through a directory; see [`Disk::list`].
pub trait Listing: Iterator<Item = io::Result<(String, Facts)>> {}

impl<T: Iterator<Item = io::Result<(String, Facts)>>> Listing for T {}

/// An open file.
///
/// # Errors
/// Each returns the system's.
pub trait File {
    /// What is known of it now.
    fn facts(&mut self) -> io::Result<Facts>;

    /// Reads once; 0 is its end.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes once, perhaps less than all.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<usize>;

    /// Returns when its content is on the disk.
    fn sync(&mut self) -> io::Result<()>;
}

/// Writes all of `bytes`.
///
/// # Errors
/// The first write's that failed.
pub fn write_all(file: &mut dyn File, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(offset, bytes)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => (offset, bytes) = (offset + count as u64, &bytes[count..]),
        }
    }
    Ok(())
}
