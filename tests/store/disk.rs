//! A directory in memory whose calls fail when the test says so, whose writes may be short, and whose clock the test moves.

use oneloop::disk::{Access, Disk, Facts, File, Listing};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::time::Duration;

/// Which calls fail.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Faults {
    #[default]
    None,
    /// That one.
    At(usize, ErrorKind),
    /// That one and all after it.
    From(usize, ErrorKind),
}

/// What the disk and the test both hold.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) files: BTreeMap<String, Rc<RefCell<Content>>>,
    pub(crate) faults: Faults,
    /// Writes take a byte or two.
    pub(crate) writes_short: bool,
    pub(crate) now: Duration,
    pub(crate) calls: usize,
    /// Of those, calls that read content.
    pub(crate) reads: usize,
    /// And the bytes that they gave.
    pub(crate) read_bytes: usize,
    pub(crate) syncs: Vec<&'static str>,
    pub(crate) inodes: u64,
}

pub(crate) struct Content {
    pub(crate) bytes: Vec<u8>,
    pub(crate) inode: u64,
    pub(crate) modified: Duration,
    pub(crate) is_plain: bool,
}

pub(crate) type Shared = Rc<RefCell<Memory>>;

impl Memory {
    fn call(&mut self) -> io::Result<()> {
        let call = self.calls;
        self.calls += 1;
        match self.faults {
            Faults::At(at, kind) if call == at => Err(kind.into()),
            Faults::From(at, kind) if call >= at => Err(kind.into()),
            _ => Ok(()),
        }
    }

    fn facts_of(&self, content: &Content) -> Facts {
        Facts {
            is_plain: content.is_plain,
            size: content.bytes.len() as u64,
            inode: content.inode,
            modified_nanos: content.modified.as_nanos() as i128,
            age: self.now.saturating_sub(content.modified),
        }
    }

    /// Puts a file there, as somebody beside the server would.
    pub(crate) fn put(&mut self, name: &str, bytes: &[u8]) {
        self.inodes += 1;
        let content = Content { bytes: bytes.to_vec(), inode: self.inodes, modified: self.now, is_plain: true };
        self.files.insert(name.to_string(), Rc::new(RefCell::new(content)));
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        self.files.keys().map(String::as_str).collect()
    }
}

pub(crate) struct FakeDisk(pub(crate) Shared);

impl Disk for FakeDisk {
    fn list(&mut self) -> io::Result<Box<dyn Listing>> {
        self.0.borrow_mut().call()?;
        let memory = self.0.borrow();
        let entries: Vec<_> =
            memory.files.iter().map(|(name, content)| (name.clone(), memory.facts_of(&content.borrow()))).collect();
        let shared = self.0.clone();
        Ok(Box::new(entries.into_iter().map(move |entry| shared.borrow_mut().call().map(|()| entry))))
    }

    fn facts(&mut self, name: &str) -> io::Result<Option<Facts>> {
        self.0.borrow_mut().call()?;
        let memory = self.0.borrow();
        Ok(memory.files.get(name).map(|content| memory.facts_of(&content.borrow())))
    }

    fn open(&mut self, name: &str, access: Access) -> io::Result<Box<dyn File>> {
        let mut memory = self.0.borrow_mut();
        memory.call()?;
        match (memory.files.contains_key(name), access) {
            (false, Access::Create) => memory.put(name, b""),
            (true, Access::Create) => return Err(ErrorKind::AlreadyExists.into()),
            (false, _) => return Err(ErrorKind::NotFound.into()),
            (true, _) => (),
        }
        Ok(Box::new(FakeFile { memory: self.0.clone(), content: memory.files[name].clone() }))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let mut memory = self.0.borrow_mut();
        memory.call()?;
        memory.files.remove(name).map(drop).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn rename(&mut self, from: &str, to: &str, may_replace: bool) -> io::Result<()> {
        let mut memory = self.0.borrow_mut();
        memory.call()?;
        if !may_replace && memory.files.contains_key(to) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let content = memory.files.remove(from).ok_or(ErrorKind::NotFound)?;
        memory.files.insert(to.to_string(), content);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut memory = self.0.borrow_mut();
        memory.syncs.push("names");
        memory.call()
    }
}

struct FakeFile {
    memory: Shared,
    content: Rc<RefCell<Content>>,
}

impl File for FakeFile {
    fn facts(&mut self) -> io::Result<Facts> {
        self.memory.borrow_mut().call()?;
        Ok(self.memory.borrow().facts_of(&self.content.borrow()))
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.memory.borrow_mut().reads += 1;
        self.memory.borrow_mut().call()?;
        let content = self.content.borrow();
        let from = content.bytes.get(offset as usize..).unwrap_or_default();
        let count = from.len().min(buffer.len());
        buffer[..count].copy_from_slice(&from[..count]);
        self.memory.borrow_mut().read_bytes += count;
        Ok(count)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let mut memory = self.memory.borrow_mut();
        memory.call()?;
        let count = if memory.writes_short { bytes.len().min(1 + memory.calls % 2) } else { bytes.len() };
        let mut content = self.content.borrow_mut();
        content.bytes.resize(offset as usize, 0); // nobody writes but at the end
        content.bytes.extend_from_slice(&bytes[..count]);
        content.modified = memory.now;
        Ok(count)
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut memory = self.memory.borrow_mut();
        memory.syncs.push("content");
        memory.call()
    }
}
