//! Standard input, output and error, used without ever waiting for them. Touches those three descriptors only.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// How one of the standard streams is used without ever waiting for it.
#[derive(Debug)]
pub(crate) enum Way {
    /// Opened anew and non-blocking. The inherited descriptor is not touched, for the shell shares it.
    Own(File),
    /// The inherited one, after asking whether it is ready. For sockets, which cannot be opened anew.
    Ask,
    /// The inherited one as it is. A regular file is always ready, and must keep the offset that it shares with others.
    Inherited,
}

impl Way {
    /// How to use `standard`, opened anew with `flags` where that is possible.
    pub(crate) fn to(standard: BorrowedFd<'_>, flags: OFlags) -> Way {
        match fstat(standard).map(|stat| FileType::from_raw_mode(stat.st_mode)) {
            Ok(FileType::RegularFile) => Way::Inherited,
            Ok(FileType::Fifo | FileType::CharacterDevice) => {
                let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
                let path = format!("/proc/self/fd/{}", standard.as_raw_fd());
                open(path, flags, Mode::empty()).map_or(Way::Ask, |own| Way::Own(own.into()))
            }
            _ => Way::Ask,
        }
    }

    /// The descriptor to read or write, if that does not wait: `WouldBlock`, if it would.
    pub(crate) fn ready<'a>(&'a self, standard: BorrowedFd<'a>, flags: PollFlags) -> io::Result<BorrowedFd<'a>> {
        match self {
            Way::Own(file) => Ok(file.as_fd()),
            Way::Inherited => Ok(standard),
            Way::Ask => {
                let mut fds = [PollFd::new(&standard, flags)];
                match poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? {
                    0 => Err(ErrorKind::WouldBlock.into()),
                    _ => Ok(standard),
                }
            }
        }
    }
}
