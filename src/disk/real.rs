//! A directory of the file system. The only file that names the file system for file transfer; it also asks what time it is,
//! for the age of files.

use super::{Access, Disk, Facts, File, Listing};
use rustix::fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, RenameFlags, Stat};
use rustix::fs::{fdatasync, flock, fstat, fsync, linkat, openat, renameat, renameat_with, statat, unlinkat};
use rustix::io::{Errno, pread, pwrite, retry_on_intr};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A directory that was opened once; whatever happens to its path later, this is it.
#[derive(Debug)]
pub struct Directory {
    descriptor: OwnedFd,
}

impl Directory {
    /// Opens `path`, which must not be a link, whatever slashes follow it.
    ///
    /// # Errors
    /// The system's.
    pub fn open(path: &Path) -> io::Result<Directory> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let path = path.components().as_path(); // to the system, `link/` is what the link leads to
        Ok(Directory { descriptor: retry_on_intr(|| openat(rustix::fs::CWD, path, flags, Mode::empty()))? })
    }

    /// Makes it this process's, until that ends: two that write the same parts would mix them.
    ///
    /// # Errors
    /// `WouldBlock` if it is another's.
    pub fn claim(&self) -> io::Result<()> {
        Ok(flock(&self.descriptor, FlockOperation::NonBlockingLockExclusive)?)
    }
}

impl Disk for Directory {
    fn list(&mut self) -> io::Result<Box<dyn Listing>> {
        let again = self.descriptor.try_clone()?;
        Ok(Box::new(Entries { entries: Dir::read_from(&again)?, descriptor: again }))
    }

    fn facts(&mut self, name: &str) -> io::Result<Option<Facts>> {
        match statat(&self.descriptor, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(facts(&stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn open(&mut self, name: &str, access: Access) -> io::Result<Box<dyn File>> {
        // NONBLOCK: opening a pipe must not wait for whoever would write into it.
        let always = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let flags = match access {
            Access::Read => OFlags::RDONLY,
            Access::Create => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
            Access::Extend => OFlags::RDWR,
        };
        let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH;
        let mut file = Opened { descriptor: retry_on_intr(|| openat(&self.descriptor, name, always | flags, mode))? };
        if !file.facts()?.is_plain {
            return Err(io::Error::other("not a plain file"));
        }
        // Two that write one part would mix them; where locks are unknown, nobody is kept out.
        if access != Access::Read
            && flock(&file.descriptor, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK)
        {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, "another process is at it"));
        }
        Ok(Box::new(file))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        Ok(unlinkat(&self.descriptor, name, AtFlags::empty())?)
    }

    fn rename(&mut self, from: &str, to: &str, may_replace: bool) -> io::Result<()> {
        let directory = &self.descriptor;
        if may_replace {
            return Ok(renameat(directory, from, directory, to)?);
        }
        match renameat_with(directory, from, directory, to, RenameFlags::NOREPLACE) {
            // Not every file system can do that. What a crash between these two leaves has two names, and the start removes one.
            Err(Errno::INVAL | Errno::NOSYS) => {
                linkat(directory, from, directory, to, AtFlags::empty())?;
                Ok(unlinkat(directory, from, AtFlags::empty())?)
            }
            result => Ok(result?),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(fsync(&self.descriptor)?)
    }
}

/// Opens a file that the user of this program has named, wherever it is.
///
/// # Errors
/// The system's, or that it is no regular file.
pub fn open(path: &Path) -> io::Result<Box<dyn File>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = Opened { descriptor: retry_on_intr(|| openat(rustix::fs::CWD, path, flags, Mode::empty()))? };
    match FileType::from_raw_mode(fstat(&file.descriptor)?.st_mode) {
        FileType::RegularFile => Ok(Box::new(file)),
        _ => Err(io::Error::other("not a regular file")),
    }
}

struct Opened {
    descriptor: OwnedFd,
}

impl File for Opened {
    fn facts(&mut self) -> io::Result<Facts> {
        Ok(facts(&fstat(&self.descriptor)?))
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(retry_on_intr(|| pread(&self.descriptor, &mut *buffer, offset))?)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        Ok(retry_on_intr(|| pwrite(&self.descriptor, bytes, offset))?)
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(fdatasync(&self.descriptor)?)
    }
}

struct Entries {
    entries: Dir,
    descriptor: OwnedFd,
}

impl Iterator for Entries {
    type Item = io::Result<(String, Facts)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let entry = match self.entries.next()? {
                Ok(entry) => entry,
                Err(error) => return Some(Err(error.into())),
            };
            // A name that is not UTF-8 is none of ours; one that has gone since is nobody's.
            let Ok(name) = entry.file_name().to_str() else { continue };
            match statat(&self.descriptor, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => return Some(Ok((name.to_string(), facts(&stat)))),
                Err(Errno::NOENT) => (),
                Err(error) => return Some(Err(error.into())),
            }
        }
    }
}

fn facts(stat: &Stat) -> Facts {
    let is_plain = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_nlink == 1;
    let modified_nanos = i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let age_nanos = (now.as_nanos() as i128 - modified_nanos).clamp(0, i128::from(u64::MAX));
    Facts {
        is_plain,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        inode: stat.st_ino,
        modified_nanos,
        age: Duration::from_nanos(age_nanos as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_directory_opens_plain_files_alone_and_never_renames_over_one() {
        let path = std::env::temp_dir().join(format!("oneloop-directory-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("inner")).unwrap();
        fs::write(path.join("plain"), "five!").unwrap();
        fs::write(path.join("one"), "1").unwrap();
        fs::hard_link(path.join("one"), path.join("two")).unwrap();
        std::os::unix::fs::symlink("plain", path.join("link")).unwrap();
        std::os::unix::fs::symlink("inner", path.join("to-inner")).unwrap();
        let mut directory = Directory::open(&path).unwrap();
        assert!(directory.facts("plain").unwrap().unwrap().is_plain);
        assert_eq!(directory.facts("none").unwrap(), None);
        for name in ["inner", "one", "two", "link"] {
            assert!(!directory.facts(name).unwrap().unwrap().is_plain, "{name}");
            assert!(directory.open(name, Access::Read).is_err(), "{name}");
            assert!(directory.open(name, Access::Create).is_err(), "{name}");
        }
        let mut new = directory.open("new", Access::Create).unwrap();
        super::super::write_all(&mut *new, 0, b"new").unwrap();
        let taken = directory.rename("new", "plain", false).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(path.join("plain")).unwrap(), b"five!");
        directory.rename("new", "newer", false).unwrap();
        for _ in 0..2 {
            let mut names: Vec<String> = directory.list().unwrap().map(|entry| entry.unwrap().0).collect();
            names.sort();
            assert_eq!(names, [".", "..", "inner", "link", "newer", "one", "plain", "to-inner", "two"]);
        }
        directory.claim().unwrap();
        let other = Directory::open(&path).unwrap();
        assert_eq!(other.claim().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        for link in ["to-inner", "to-inner/", "to-inner//", "to-inner/."] {
            assert!(Directory::open(&path.join(link)).is_err(), "{link}");
        }
        for directory in ["/", "//", ".", "./"] {
            assert!(Directory::open(Path::new(directory)).is_ok(), "{directory}");
        }
        assert!(Directory::open(&path.join("inner//")).is_ok());
        fs::remove_dir_all(&path).unwrap();
    }
}
