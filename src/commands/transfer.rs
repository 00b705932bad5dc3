//! `oneloop send` and `oneloop get`: opens what is to be carried, runs the loop, and shows how it goes. Touches standard output
//! and standard error, and the directory where fetched files go.

use crate::config::Address;
use crate::config::files::Transfer;
use crate::disk::Disk;
use crate::disk::real::{Directory, open};
use crate::limits::Limits;
use crate::net::mio::MioNet;
use crate::protocol::files::courier::{Courier, Job, Step, Watch};
use crate::reactor::Reactor;
use crate::wire::files::Digest;
use indicatif::{ProgressBar, ProgressStyle};
use std::cell::Cell;
use std::io::{self, IsTerminal, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

/// Returns whether every file is whole where it was to go.
///
/// # Errors
/// One line: what was tried, on what, why it failed and what to do.
pub fn run(asked: &Transfer) -> Result<bool, String> {
    let addresses = resolve(&asked.address)?;
    let directory = match &asked.output {
        Some(path) => Some(Box::new(directory(path)?) as Box<dyn Disk>),
        None => None,
    };
    let jobs = asked.files.iter().map(|file| job(file, asked.output.is_none()));
    let failures = Rc::new(Cell::new(0));
    let show = Show { quiet: asked.quiet, bar: None, failures: failures.clone() };
    let courier = Courier::new(jobs, addresses, asked.retries, directory, asked.force, Box::new(show));
    // Nobody else waits for a client's turn; and a server that takes nothing is waited for as long as one that says nothing.
    let limits = Limits {
        write_timeout: Limits::default().files_progress,
        linger: Duration::ZERO,
        linger_quiet: Duration::ZERO,
        ..Limits::default()
    };
    let net = MioNet::new(&limits).map_err(|error| format!("cannot create the poll: {error}"))?;
    let mut reactor = Reactor::new(net, limits);
    reactor.add("files", Box::new(courier));
    reactor.run().map_err(|error| format!("the poll failed: {error}"))?;
    Ok(failures.get() == 0)
}

fn job(file: &Path, is_sent: bool) -> Job {
    let called = if is_sent { file.file_name() } else { Some(file.as_os_str()) };
    let name = called.unwrap_or_default().to_string_lossy().into_owned(); // the command line has been checked
    if !is_sent {
        return Job::Get { name };
    }
    let path: PathBuf = file.to_path_buf();
    Job::Send { name, open: Box::new(move || open(&path)) }
}

/// The directory for fetched files, which its user may have named by a link.
fn directory(path: &Path) -> Result<Directory, String> {
    let opened = path.canonicalize().and_then(|path| Directory::open(&path));
    opened.map_err(|error| format!("cannot put files into {}: {error}", path.display()))
}

/// Every address that `address` stands for. This blocks where a name has to be resolved.
fn resolve(address: &Address) -> Result<Vec<SocketAddr>, String> {
    match address {
        Address::Socket(at) => Ok(vec![*at]),
        Address::Loopback(port) | Address::Everywhere(port) => {
            Ok(vec![(Ipv4Addr::LOCALHOST, *port).into(), (Ipv6Addr::LOCALHOST, *port).into()])
        }
        Address::Host(host, port) => {
            let found: Vec<SocketAddr> = match (host.as_str(), *port).to_socket_addrs() {
                Ok(found) => found.collect(),
                Err(error) => {
                    return Err(format!("cannot go to {address}: no address for {host} ({error}; try an IP address)"));
                }
            };
            let none = || format!("cannot go to {address}: its name has no address (try an IP address)");
            if found.is_empty() { Err(none()) } else { Ok(found) }
        }
    }
}

/// A bar on a terminal; a line for each file; and what went wrong, in any case.
struct Show {
    quiet: bool,
    bar: Option<(Step, ProgressBar)>,
    failures: Rc<Cell<usize>>,
}

impl Show {
    fn say(&mut self, line: &str) {
        if let Some((_, bar)) = self.bar.take() {
            bar.finish_and_clear();
        }
        let _ = writeln!(io::stderr(), "oneloop: {line}"); // nobody may be reading, and that is fine
    }
}

impl Watch for Show {
    fn moved(&mut self, name: &str, step: Step, at: u64, size: u64) {
        if self.quiet || !io::stderr().is_terminal() {
            return;
        }
        if self.bar.as_ref().is_none_or(|(shown, _)| *shown != step) {
            if let Some((_, bar)) = self.bar.take() {
                bar.finish_and_clear();
            }
            const LINE: &str = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
            let style = ProgressStyle::with_template(LINE).unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = ProgressBar::new(size).with_style(style);
            // What was there before has no part in the rate.
            bar.set_position(at);
            bar.reset_eta();
            bar.set_message(if step == Step::Hashing { format!("{name} (checking)") } else { name.to_string() });
            self.bar = Some((step, bar));
        }
        if let Some((_, bar)) = &self.bar {
            bar.set_position(at);
        }
    }

    fn pauses(&mut self, name: &str, why: &str, pause: Duration) {
        if !self.quiet {
            self.say(&format!("{name}: {why}; again in {:.1} s", pause.as_secs_f64()));
        }
    }

    fn done(&mut self, name: &str, result: Result<Digest, String>) {
        if let Some((_, bar)) = self.bar.take() {
            bar.finish_and_clear();
        }
        match result {
            Ok(digest) if !self.quiet => {
                let _ = writeln!(io::stdout(), "{digest}  {name}"); // as above
            }
            Ok(_) => (),
            Err(why) => {
                self.failures.set(self.failures.get() + 1);
                self.say(&format!("{name}: {why}"));
            }
        }
    }
}
