//! env_logger on a standard error that never blocks: a log reader that stops reading loses lines, not the server.
//! The only place with a wall clock. Touches standard error.

use crate::limits::Limits;
use crate::standard::Way;
use env_logger::{Builder, Target};
use log::LevelFilter;
use rustix::event::PollFlags;
use rustix::fs::OFlags;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};

/// Lines that standard error did not take, since the start.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// How many log lines were dropped because standard error would not take them.
pub fn dropped_lines() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Sends the log to standard error from here on: at `level`, else as `RUST_LOG` says, else at `otherwise`.
pub fn start(level: Option<LevelFilter>, otherwise: LevelFilter) {
    let mut builder = Builder::new();
    builder.filter_level(level.unwrap_or(otherwise));
    let mut wrong = None;
    if let (None, Ok(filters)) = (level, std::env::var("RUST_LOG")) {
        // Tried first: where it is wrong, `parse_filters` would print that, and panic if it could not.
        match env_filter::Builder::new().try_parse(&filters) {
            Ok(_) => _ = builder.parse_filters(&filters),
            Err(error) => wrong = Some(error),
        }
    }
    builder.format(|line, record| {
        let (time, level) = (line.timestamp_millis(), record.level());
        writeln!(line, "{time} {level:<5} {}", record.args())
    });
    builder
        .target(Target::Pipe(Box::new(Stderr {
            way: Way::to(io::stderr().as_fd(), OFlags::WRONLY),
            unsaid: 0,
            torn: false,
        })))
        .init();
    if let Some(error) = wrong {
        log::warn!("RUST_LOG was left out: {error} (try RUST_LOG=debug)");
    }
}

/// Takes each line whole, in part or not at all, but at once, and counts those that were lost.
#[derive(Debug)]
struct Stderr {
    way: Way,
    /// Lines dropped since a line last told so.
    unsaid: u64,
    /// The last line was taken in part.
    torn: bool,
}

impl Stderr {
    fn write_some(&self, bytes: &[u8]) -> io::Result<usize> {
        let stderr = io::stderr();
        Ok(rustix::io::write(self.way.ready(stderr.as_fd(), PollFlags::OUT)?, bytes)?)
    }

    fn line(&mut self, line: &[u8]) {
        if self.torn {
            let Ok(1..) = self.write_some(b"\n") else { return self.lose() };
            self.torn = false;
        }
        match self.write_some(line) {
            Ok(count) if count == line.len() => (),
            Ok(0) | Err(_) => self.lose(),
            Ok(_) => {
                self.torn = true;
                self.lose();
            }
        }
    }

    fn lose(&mut self) {
        self.unsaid += 1;
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

impl Write for Stderr {
    /// env_logger hands over one whole line a call.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let unsaid = std::mem::take(&mut self.unsaid);
        if unsaid > 0 {
            self.line(format!("{unsaid} log lines were dropped: standard error did not take them\n").as_bytes());
            if self.unsaid > 0 {
                self.unsaid = unsaid; // not said either, and that line is no loss of its own
                DROPPED.fetch_sub(1, Ordering::Relaxed);
                self.lose(); // this one is
                return Ok(line.len());
            }
        }
        match line.get(..Limits::LOG_LINE_BYTES - 1) {
            Some(start) if line.len() > Limits::LOG_LINE_BYTES => self.line(&[start, b"\n"].concat()),
            _ => self.line(line),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
