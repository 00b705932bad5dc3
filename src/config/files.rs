//! The command lines of file transfer: the flags of `serve --files`, and `send` and `get`. Touches nothing.

use super::{Address, Asked, LEVELS, SIZES, SPANS, choice, number, quantity, set, span, written};
use crate::limits::Limits;
use crate::protocol::files::Permissions;
use crate::wire::files::{NAME_RULE, name};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use log::LevelFilter;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// What `send` or `get` was asked for.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// Files here, to be sent; or names there, to be fetched.
    pub files: Vec<PathBuf>,
    /// Where to; `None` if they are sent.
    pub output: Option<PathBuf>,
    /// Where the server is.
    pub address: Address,
    /// What is there already is replaced.
    pub force: bool,
    /// No progress, and no line for each file.
    pub quiet: bool,
    /// Pauses at most, without a byte between them.
    pub retries: u32,
    /// The log level, if the command line names one.
    pub log_level: Option<LevelFilter>,
}

fn large_size(text: &str) -> Result<u64, String> {
    const MOST: u64 = 1 << 50;
    let found = quantity(text, &SIZES).filter(|bytes| (1..=MOST).contains(bytes));
    found.ok_or_else(|| format!("must be a size from 1B to {}, such as 64MiB", written(MOST, &SIZES)))
}

/// The flags of `serve`.
pub(super) fn flags() -> [Arg; 6] {
    let limits = Limits::default();
    let flag = |name: &'static str, value: &'static str, help: String| {
        Arg::new(name).long(name).value_name(value).help(help).help_heading("Files")
    };
    let size = |name, bytes, help: &str| {
        flag(name, "SIZE", format!("{help} [default: {}]", written(bytes, &SIZES))).value_parser(large_size)
    };
    let ttl = written(limits.files_part_ttl.as_millis() as u64, &SPANS);
    [
        flag("files-dir", "DIR", "What is handed out, and where uploads go; --files needs it".to_string())
            .value_parser(value_parser!(PathBuf)),
        Arg::new("files-delete")
            .long("files-delete")
            .action(ArgAction::SetTrue)
            .help("Lets clients delete files")
            .help_heading("Files"),
        size("files-max-size", limits.files_max_bytes, "Largest file to take in"),
        size("files-quota", limits.files_quota_bytes, "All files and parts together"),
        flag("files-part-ttl", "TIME", format!("How long a part of a file waits for the rest [default: {ttl}]"))
            .value_parser(span),
        flag(
            "files-sync",
            "WHEN",
            "Whether a file is on the disk before it is said to be stored [default: off]".to_string(),
        )
        .value_parser(choice(&[("off", false), ("on", true)])),
    ]
}

/// What `serve` was asked for: the directory, if files are served, and what clients may do there.
pub(super) fn served(
    matches: &ArgMatches,
    is_served: bool,
    limits: &mut Limits,
) -> Result<Option<(PathBuf, Permissions)>, String> {
    set(matches, "files-max-size", &mut limits.files_max_bytes);
    set(matches, "files-quota", &mut limits.files_quota_bytes);
    set(matches, "files-part-ttl", &mut limits.files_part_ttl);
    if limits.files_quota_bytes < limits.files_max_bytes {
        let [quota, most] = [limits.files_quota_bytes, limits.files_max_bytes].map(|bytes| written(bytes, &SIZES));
        return Err(format!("'--files-quota {quota}' is too small for '--files-max-size {most}'"));
    }
    let mut permissions = Permissions { may_delete: matches.get_flag("files-delete"), sync: false };
    set(matches, "files-sync", &mut permissions.sync);
    match matches.get_one::<PathBuf>("files-dir").cloned() {
        None if is_served => Err("'--files <ADDR>' needs '--files-dir <DIR>': which directory?".to_string()),
        Some(_) if !is_served => Err("'--files-dir <DIR>' needs '--files <ADDR>': where to listen?".to_string()),
        directory => Ok(directory.map(|directory| (directory, permissions))),
    }
}

const SEND_EXAMPLES: &str = "\
Examples:
  oneloop --files 9070 --files-dir ~/shared   the server these need, in another window
  oneloop send report.pdf 9070                takes it there, with a bar on a terminal
  oneloop send *.jpg example.org:9070         one after the other; prints hash and name of each, as sha256sum does
  oneloop send big.iso 9070                   once more after it broke off: goes on where that stopped

ADDR is HOST:PORT, [IPV6]:PORT or PORT (this machine). The server checks the hash before a file gets its name.
Exit status: 0 if every file is there and whole, 1 if not, 2 for wrong usage.";

const GET_EXAMPLES: &str = "\
Examples:
  oneloop get report.pdf 9070                 into this directory, with a bar on a terminal
  oneloop get --output /tmp a b c 9070        several, elsewhere
  oneloop get big.iso 9070                    once more after it broke off: goes on where that stopped
  echo LIST | nc -N localhost 9070            what there is

ADDR is HOST:PORT, [IPV6]:PORT or PORT (this machine). A file gets its name only when it is whole and its hash is right; until
then what has come of it is a hidden file beside it. Prints hash and name of each, as sha256sum does.
Exit status: 0 if every file is here and whole, 1 if not, 2 for wrong usage.";

fn command(name: &'static str, about: &'static str, usage: &'static str, examples: &'static str) -> Command {
    let flag = |name: &'static str, help: &'static str| Arg::new(name).long(name).help(help);
    Command::new(name).about(about).override_usage(usage).after_help(examples).args([
        // The last of them is the address. As an argument of its own it would not be found behind an option.
        Arg::new("words").hide(true).num_args(1..).value_parser(value_parser!(OsString)),
        flag("quiet", "No bar, and no line for each file").short('q').action(ArgAction::SetTrue),
        flag("retries", "Tries after a lost connection, without a byte between them [default: 3]")
            .value_name("N")
            .value_parser(number(0, 1000)),
        flag("log-level", "How much to log to standard error [default: warn]")
            .value_name("LEVEL")
            .value_parser(choice(LEVELS)),
    ])
}

fn address(word: &OsStr) -> Result<Address, String> {
    match word.to_str().unwrap_or_default().parse() {
        Ok(Address::Everywhere(_) | Address::Loopback(0) | Address::Host(_, 0)) | Err(_) => {
            let word = word.as_encoded_bytes().escape_ascii();
            Err(format!(
                "invalid address '{word}': the last word must be HOST:PORT, [IPV6]:PORT or PORT (this machine)"
            ))
        }
        Ok(address) => Ok(address),
    }
}

/// `send` and `get`.
pub(super) fn commands() -> [Command; 2] {
    let flag = |name: &'static str| Arg::new(name).long(name);
    [
        command("send", "Take files to a server of files", "oneloop send [OPTIONS] FILE... ADDR", SEND_EXAMPLES),
        command("get", "Fetch files from a server of files", "oneloop get [OPTIONS] NAME... ADDR", GET_EXAMPLES).args(
            [
                flag("output")
                    .value_name("DIR")
                    .help("Where to put them [default: .]")
                    .value_parser(value_parser!(PathBuf)),
                flag("force").help("Replaces files that are here already").action(ArgAction::SetTrue),
            ],
        ),
    ]
}

/// What was asked for, if it was one of them.
pub(super) fn asked(matches: &ArgMatches) -> Option<Result<Asked, String>> {
    match matches.subcommand()? {
        ("send", matches) => Some(transfer(matches, false)),
        ("get", matches) => Some(transfer(matches, true)),
        _ => None,
    }
}

fn transfer(matches: &ArgMatches, is_get: bool) -> Result<Asked, String> {
    let mut words: Vec<OsString> = matches.get_many("words").into_iter().flatten().cloned().collect();
    let Some(last) = words.pop().filter(|_| !words.is_empty()) else {
        return Err("files and, as the last word, the address of the server are needed".to_string());
    };
    let address = address(&last)?;
    let files: Vec<PathBuf> = words.into_iter().map(PathBuf::from).collect();
    for file in &files {
        let called = if is_get { Some(file.as_os_str()) } else { file.file_name() };
        if called.and_then(|called| name(called.as_encoded_bytes())).is_none() {
            let file = file.as_os_str().as_encoded_bytes().escape_ascii();
            return Err(format!("invalid name '{file}': a file on a server is called by {NAME_RULE}"));
        }
    }
    let output: Option<PathBuf> = is_get.then(|| matches.get_one("output").cloned().unwrap_or_else(|| ".".into()));
    let mut transfer = Transfer {
        files,
        output,
        address,
        force: is_get && matches.get_flag("force"),
        quiet: matches.get_flag("quiet"),
        retries: 3,
        log_level: matches.get_one("log-level").copied(),
    };
    set(matches, "retries", &mut transfer.retries);
    Ok(Asked::Transfer(transfer))
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    fn transfer(words: &[&str]) -> Transfer {
        match parse(std::iter::once(&"oneloop").chain(words)) {
            Ok(Asked::Transfer(transfer)) => transfer,
            other => panic!("{words:?}: {other:?}"),
        }
    }

    #[test]
    fn the_last_word_is_the_address_and_the_others_are_files() {
        let send = transfer(&["send", "a/b.txt", "c", "-q", "9070"]);
        assert_eq!(send.files, [PathBuf::from("a/b.txt"), PathBuf::from("c")]);
        assert_eq!((send.address, send.output, send.quiet, send.retries), (Address::Loopback(9070), None, true, 3));
        let get = transfer(&["get", "--force", "--retries", "0", "a", "host:1"]);
        assert_eq!((get.output, get.force, get.retries), (Some(PathBuf::from(".")), true, 0));
        for (words, part) in [
            (&["send", "9070"][..], "the last word"),
            (&["send"], "the last word"),
            (&["send", "a", "b"], "'b'"),
            (&["send", "a", ":9070"], "PORT (this machine)"),
            (&["send", "a b", "9070"], "'a b'"),
            (&["send", "..", "9070"], "'..'"),
            (&["get", "a/b", "9070"], "'a/b'"),
            (&["get", "\x1b[2J", "9070"], "\\x1b[2J"),
            (&["send", "--force", "a", "9070"], "--force"),
            (&["serve", "--files", "1"], "--files-dir"),
            (&["--files-dir", "."], "--files <ADDR>"),
            (&["--files", "1", "--files-dir", ".", "--files-quota", "1MiB"], "--files-max-size"),
            (&["--files-max-size", "0"], "from 1B"),
            (&["--files-sync", "maybe"], "off, on"),
        ] {
            let error = parse(std::iter::once(&"oneloop").chain(words)).expect_err("must be refused");
            assert!(error.contains(part) && !error.contains('\n'), "{words:?}: {error}");
        }
    }

    #[test]
    fn what_is_served_arrives_with_its_units() {
        let words = "oneloop --files 1 --files-dir /x --files-delete --files-max-size 2GiB --files-quota 3GiB \
                     --files-part-ttl 1h --files-sync on";
        let Ok(Asked::Serve(config)) = parse(words.split_whitespace()) else { panic!() };
        let permissions = Permissions { may_delete: true, sync: true };
        assert_eq!(config.files, Some((PathBuf::from("/x"), permissions)));
        let limits = &config.limits;
        assert_eq!((limits.files_max_bytes, limits.files_quota_bytes), (2 << 30, 3 << 30));
        assert_eq!(limits.files_part_ttl.as_secs(), 3600);
    }
}
