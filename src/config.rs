//! The settings: the command line into one [`Config`]. Touches nothing; the caller prints and exits.

#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "files")]
pub mod files;

use crate::limits::{Heartbeat, Limits, SlowReader};
use crate::protocol::datagram::Reply;
#[cfg(feature = "files")]
use crate::protocol::files::Permissions;
use crate::services::{SERVICES, Service, Settings};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command};
use log::LevelFilter;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
#[cfg(feature = "files")]
use std::path::PathBuf;
use std::time::Duration;

/// All that was asked for.
#[derive(Clone, Debug)]
pub struct Config {
    /// What to serve where, in the order of the registry.
    pub listen: Vec<(&'static Service, Address)>,
    /// The bounds in force.
    pub limits: Limits,
    /// What the machines want to know.
    pub settings: Settings,
    /// The directory of `files` and what clients may do there, if that is served.
    #[cfg(feature = "files")]
    pub files: Option<(PathBuf, Permissions)>,
    /// The log level, if the command line names one.
    pub log_level: Option<LevelFilter>,
}

/// What a command line asks the program to do.
#[derive(Clone, Debug)]
pub enum Asked {
    /// To serve.
    Serve(Box<Config>),
    /// To be a line client.
    #[cfg(feature = "client")]
    Connect(client::Connect),
    /// To ask a server for signs of life.
    #[cfg(feature = "client")]
    Ping(client::Ping),
    /// To take files to a server or to fetch them.
    #[cfg(feature = "files")]
    Transfer(files::Transfer),
    /// To print this and be done: help or the version.
    Print(String),
}

/// Where to listen, as it was written.
///
/// ```
/// use oneloop::config::Address;
///
/// assert_eq!("9000".parse(), Ok(Address::Loopback(9000)));
/// assert_eq!(":9000".parse(), Ok(Address::Everywhere(9000)));
/// assert_eq!("[::1]:9000".parse(), Ok(Address::Socket("[::1]:9000".parse().unwrap())));
/// assert_eq!("localhost:9000".parse(), Ok(Address::Host("localhost".to_string(), 9000)));
/// assert!("localhost".parse::<Address>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `PORT`: loopback, both families.
    Loopback(u16),
    /// `:PORT`: every address of the machine, one dual-stack socket.
    Everywhere(u16),
    /// `IP:PORT`.
    Socket(SocketAddr),
    /// `HOST:PORT`: whatever the name resolves to.
    Host(String, u16),
}

impl Address {
    const FORMS: &'static str = "must be HOST:PORT, [IPV6]:PORT, PORT (loopback), :PORT (every address) or off";
}

impl std::str::FromStr for Address {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Address, &'static str> {
        let port = |digits: &str| {
            // `parse` alone would take a sign.
            if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse::<u16>().ok() } else { None }
        };
        if let Some(port) = port(text) {
            return Ok(Address::Loopback(port));
        }
        if let Ok(address) = text.parse() {
            return Ok(Address::Socket(address));
        }
        let (host, digits) = text.rsplit_once(':').ok_or(Address::FORMS)?;
        let port = port(digits).ok_or(Address::FORMS)?;
        let strange = |byte: u8| !(byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
        match host {
            "" => Ok(Address::Everywhere(port)),
            _ if host.bytes().any(strange) => Err(Address::FORMS),
            _ => Ok(Address::Host(host.to_string(), port)),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Loopback(port) => write!(f, "{port}"),
            Address::Everywhere(port) => write!(f, ":{port}"),
            Address::Socket(address) => write!(f, "{address}"),
            Address::Host(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

/// `ADDR` or `off`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Off,
    At(Address),
}

fn place(text: &str) -> Result<Place, &'static str> {
    if text == "off" { Ok(Place::Off) } else { text.parse().map(Place::At) }
}

/// A number and its unit, both as the table `units` has them; without a unit only if the table has an empty one.
fn quantity(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let split = text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let (_, factor) = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

const SIZES: [(&str, u64); 5] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1), ("", 1)];
const SPANS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// `value` in the largest of `units` that leaves no rest, as a person would write it.
fn written(value: u64, units: &[(&str, u64)]) -> String {
    let unit = units.iter().find(|(_, factor)| value >= *factor && value.is_multiple_of(*factor));
    unit.map_or_else(|| value.to_string(), |(name, factor)| format!("{}{name}", value / factor))
}

/// A parser for sizes from `least` to `most` bytes.
fn size(least: usize, most: u64) -> impl Fn(&str) -> Result<usize, String> + Clone + Send + Sync {
    let least = least as u64;
    move |text| {
        let found = quantity(text, &SIZES).filter(|bytes| (least..=most).contains(bytes));
        found.and_then(|bytes| usize::try_from(bytes).ok()).ok_or_else(|| {
            format!("must be a size from {} to {}, such as 64KiB", written(least, &SIZES), written(most, &SIZES))
        })
    }
}

fn span(text: &str) -> Result<Duration, &'static str> {
    const DAY_MS: u64 = 24 * 3_600_000;
    let millis = quantity(text, &SPANS).filter(|millis| (1..=DAY_MS).contains(millis));
    millis.map(Duration::from_millis).ok_or("must be a time from 1ms to 24h with its unit, such as 500ms, 10s or 2m")
}

fn span_or_none(text: &str) -> Result<Duration, String> {
    if text == "0s" { Ok(Duration::ZERO) } else { span(text).map_err(|allowed| format!("{allowed}, or 0s")) }
}

fn span_or_off(text: &str) -> Result<Option<Duration>, String> {
    if text == "off" { Ok(None) } else { span(text).map(Some).map_err(|allowed| format!("{allowed}, or off")) }
}

/// A parser for whole numbers from `least` to `most`.
fn number(least: u32, most: u32) -> impl Fn(&str) -> Result<u32, String> + Clone + Send + Sync {
    move |text| {
        let found = quantity(text, &[("", 1)]).and_then(|number| u32::try_from(number).ok());
        found
            .filter(|number| (least..=most).contains(number))
            .ok_or_else(|| format!("must be a number from {least} to {most}"))
    }
}

fn count(least: u32, most: u32) -> impl Fn(&str) -> Result<usize, String> + Clone + Send + Sync {
    let number = number(least, most);
    move |text| number(text).map(|number| number as usize)
}

fn rate_or_off(text: &str) -> Result<Option<u32>, String> {
    if text == "off" {
        Ok(None)
    } else {
        number(1, 1_000_000)(text).map(Some).map_err(|allowed| format!("{allowed}, or off"))
    }
}

/// A parser for one of a few words; `pairs` has the value that each stands for.
fn choice<T: Copy + Send + Sync + 'static>(pairs: &'static [(&'static str, T)]) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(pairs.iter().map(|(word, _)| *word)).map(|word| {
        let found = pairs.iter().find(|(name, _)| *name == word);
        found.expect("clap has let only these words through").1
    })
}

const REPLIES: &[(&str, Reply)] = &[("ok", Reply::Ok), ("ack", Reply::Ack), ("echo", Reply::Echo)];
const SLOW_READERS: &[(&str, SlowReader)] =
    &[("skip", SlowReader::Skip), ("disconnect", SlowReader::Disconnect), ("block", SlowReader::Block)];
const HEARTBEATS: &[(&str, Heartbeat)] = &[("auto", Heartbeat::Auto), ("all", Heartbeat::All), ("off", Heartbeat::Off)];
const LEVELS: &[(&str, LevelFilter)] = &[
    ("off", LevelFilter::Off),
    ("error", LevelFilter::Error),
    ("warn", LevelFilter::Warn),
    ("info", LevelFilter::Info),
    ("debug", LevelFilter::Debug),
    ("trace", LevelFilter::Trace),
];

/// What a 32-bit machine can address is less than what a 64-bit one may be given.
const MOST_MEMORY: u64 = if usize::BITS < 64 { 1 << 30 } else { 1 << 40 };

/// The flags of `serve`, which are also those of no command at all.
fn with_flags(command: Command) -> Command {
    let limits = Limits::default();
    let bytes = |value: usize| written(value as u64, &SIZES);
    let time = |value: Duration| written(value.as_millis() as u64, &SPANS);
    let flag = |name: &'static str, value: &'static str| Arg::new(name).long(name).value_name(value);
    let services = SERVICES.iter().map(|service| {
        let help = format!("{} [default: {}]", service.about, service.default);
        flag(service.name, "ADDR").help(help).action(ArgAction::Append).value_parser(place).help_heading("Services")
    });
    let under = |heading: &'static str| {
        move |name, value, default: String, help: &str| {
            flag(name, value).help(format!("{help} [default: {default}]")).help_heading(heading)
        }
    };
    let (limit, chat, heartbeat) = (under("Limits"), under("Chat"), under("Heartbeat"));
    let command = command.args(services).arg(
        flag("udp-reply", "REPLY")
            .help("What udp answers; echo is rationed beyond loopback [default: ok]")
            .value_parser(choice(REPLIES))
            .help_heading("Services"),
    );
    #[cfg(feature = "files")]
    let command = command.args(files::flags());
    #[cfg(feature = "web")]
    let command = command.args([
        flag("allow-origin", "ORIGIN")
            .help("Lets pages from elsewhere use web, such as https://chat.example.org; also a name for a loopback listener")
            .action(ArgAction::Append)
            .value_parser(crate::wire::origin::origin)
            .help_heading("Web"),
        under("Web")("max-fragments", "N", limits.max_fragments.to_string(), "Frames that a WebSocket message may come in")
            .value_parser(number(1, 1_000_000_000)),
    ]);
    command.args([
        limit("max-connections", "N", limits.max_connections.to_string(), "Connections at once, over all services")
            .value_parser(count(1, 1_000_000)),
        limit(
            "max-line",
            "SIZE",
            bytes(limits.max_line_bytes),
            "Longest line, its end not counted, and longest WebSocket message",
        )
        .value_parser(size(1, 16 << 20)),
        limit("memory", "SIZE", bytes(limits.memory_bytes), "All queued bytes together")
            .value_parser(size(64 << 10, MOST_MEMORY)),
        limit("idle-timeout", "TIME", "off".to_string(), "Close a connection that sent nothing for so long")
            .value_parser(span_or_off),
        limit("write-timeout", "TIME", time(limits.write_timeout), "Close one that took nothing of what it is owed")
            .value_parser(span),
        chat("slow-reader", "POLICY", "skip".to_string(), "What happens to a member that falls out of the room's log")
            .value_parser(choice(SLOW_READERS)),
        chat("room-log", "SIZE", bytes(limits.room_log_bytes), "What a room keeps for members that are behind")
            .value_parser(size(1 << 10, 1 << 30)),
        chat("max-rooms", "N", limits.max_rooms.to_string(), "Rooms at once").value_parser(count(1, 1_000_000)),
        chat("history", "N", limits.history.to_string(), "Messages shown to a newcomer").value_parser(count(0, 10_000)),
        chat(
            "chat-rate",
            "N",
            "off".to_string(),
            "Messages a second, a sender, and notices, a room; twice that at once",
        )
        .value_parser(rate_or_off),
        heartbeat("heartbeat", "WHO", "auto".to_string(), "Who is sent PING: those that speak it, all, or nobody")
            .value_parser(choice(HEARTBEATS)),
        heartbeat("heartbeat-interval", "TIME", time(limits.heartbeat_interval), "Silence before the first PING")
            .value_parser(span),
        heartbeat("heartbeat-timeout", "TIME", time(limits.heartbeat_timeout), "Time to answer each")
            .value_parser(span),
        heartbeat("heartbeat-retries", "N", limits.heartbeat_retries.to_string(), "PINGs after the first")
            .value_parser(number(0, 100)),
        limit("udp-buffer", "SIZE", bytes(limits.udp_buffer_bytes), "Receive buffer to ask the kernel for")
            .value_parser(size(4 << 10, 1 << 30)),
        limit(
            "drain-delay",
            "TIME",
            "0s".to_string(),
            "How long everything goes on after a stop was asked for, but /healthz",
        )
        .value_parser(span_or_none),
        limit("drain", "TIME", time(limits.drain), "Longest time that a stop may take").value_parser(span),
        flag("log-level", "LEVEL")
            .help("How much to log to standard error; RUST_LOG is understood too [default: info]")
            .value_parser(choice(LEVELS)),
    ])
}

const ABOUT: &str =
    "A small server on one thread and one poll loop: line echo, raw echo, UDP, and a chat for nc and browsers";

const ADDRESSES: &str = "\
ADDR is HOST:PORT, [IPV6]:PORT, PORT (loopback, both families), :PORT (every address), or off; port 0 takes a free one.
Each service may be given several times. SIZE is a number with B, KiB, MiB or GiB; TIME one with ms, s, m or h.";

const EXAMPLES: &str = "\
Examples:
  oneloop                                     line echo on 127.0.0.1:9000, chat on 9001, UDP on 8080, web on 9080
  printf 'hello\\n' | nc -N 127.0.0.1 9000     in another window: prints `echo: hello`
  nc 127.0.0.1 9001                           in two windows: what one types the other reads
  xdg-open http://127.0.0.1:9080              the same chat in a browser; /status draws how the server is
  oneloop --chat off --web off --udp off      line echo only
  oneloop --raw :7001 --max-connections 100   raw echo for the whole network, at most 100 connections
  oneloop --files 9070 --files-dir ~/shared   take files in and hand them out: see oneloop send --help
  oneloop --log-level debug                   see connections come and go
  oneloop connect                             the chat, with a line to type in; also a filter: see oneloop connect --help
  oneloop send photo.jpg 9070                 take a file to it, get fetches one
  oneloop ping 9001                           ask the chat for a sign of life every second

Stops on SIGTERM or Ctrl-C: finishes what was read within --drain; a second one ends at once.
Exit status: 0 after a clean stop, 1 for a failure, 2 for wrong usage.";

fn command() -> Command {
    let serve = Command::new("serve").about("Serve; the same as no command at all").after_help(ADDRESSES);
    let root = Command::new("oneloop")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .after_help(format!("{ADDRESSES}\n\n{EXAMPLES}"))
        .args_conflicts_with_subcommands(true)
        .disable_help_subcommand(cfg!(not(any(feature = "client", feature = "files"))));
    let root = with_flags(root).subcommand(with_flags(serve));
    #[cfg(feature = "client")]
    let root = root.subcommands(client::commands());
    #[cfg(feature = "files")]
    let root = root.subcommands(files::commands());
    root
}

/// Reads a command line, its first word being the program's name.
///
/// ```
/// use oneloop::config::{Asked, parse};
///
/// let Ok(Asked::Serve(config)) = parse(["oneloop", "--echo", "7000", "--chat", "off"]) else { panic!() };
/// assert_eq!(config.listen[0].1.to_string(), "7000");
/// assert_eq!(parse(["oneloop", "--max-line", "0"]).unwrap_err(),
///     "invalid value '0' for '--max-line <SIZE>': must be a size from 1B to 16MiB, such as 64KiB");
/// ```
///
/// # Errors
/// One line that names the option, the value and what is allowed.
pub fn parse(words: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Asked, String> {
    match command().try_get_matches_from(words) {
        Ok(matches) => {
            #[cfg(feature = "client")]
            if let Some(asked) = client::asked(&matches) {
                return asked;
            }
            #[cfg(feature = "files")]
            if let Some(asked) = files::asked(&matches) {
                return asked;
            }
            let matches = matches.subcommand_matches("serve").unwrap_or(&matches);
            config(matches).map(|config| Asked::Serve(Box::new(config)))
        }
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            Ok(Asked::Print(error.render().to_string()))
        }
        Err(error) => Err(one_line(&error)),
    }
}

fn config(matches: &ArgMatches) -> Result<Config, String> {
    let mut listen = Vec::new();
    for service in SERVICES {
        let asked: Vec<Place> = matches.get_many(service.name).into_iter().flatten().cloned().collect();
        let default = || place(service.default).into_iter().collect();
        let places = if asked.is_empty() { default() } else { asked };
        if places.len() > 1 && places.contains(&Place::Off) {
            return Err(format!("'--{} off' stands alone: with it no other --{0} makes sense", service.name));
        }
        listen.extend(places.into_iter().filter_map(|place| match place {
            Place::Off => None,
            Place::At(address) => Some((service, address)),
        }));
    }
    if listen.is_empty() {
        let flags: Vec<String> = SERVICES.iter().map(|service| format!("--{}", service.name)).collect();
        return Err(format!("every service is off: nothing to serve (give an address to {})", flags.join(", ")));
    }
    let mut limits = Limits::default();
    set(matches, "max-connections", &mut limits.max_connections);
    set(matches, "max-line", &mut limits.max_line_bytes);
    set(matches, "memory", &mut limits.memory_bytes);
    set(matches, "idle-timeout", &mut limits.idle_timeout);
    set(matches, "write-timeout", &mut limits.write_timeout);
    set(matches, "udp-buffer", &mut limits.udp_buffer_bytes);
    set(matches, "drain-delay", &mut limits.drain_delay);
    set(matches, "drain", &mut limits.drain);
    set(matches, "slow-reader", &mut limits.slow_reader);
    set(matches, "room-log", &mut limits.room_log_bytes);
    set(matches, "max-rooms", &mut limits.max_rooms);
    set(matches, "history", &mut limits.history);
    set(matches, "chat-rate", &mut limits.chat_rate);
    set(matches, "heartbeat", &mut limits.heartbeat);
    set(matches, "heartbeat-interval", &mut limits.heartbeat_interval);
    set(matches, "heartbeat-timeout", &mut limits.heartbeat_timeout);
    set(matches, "heartbeat-retries", &mut limits.heartbeat_retries);
    let has_rooms = listen.iter().any(|(service, _)| matches!(service.name, "chat" | "web"));
    if has_rooms && limits.room_log_bytes < limits.least_room_log_bytes() {
        let [log, line] = [limits.room_log_bytes, limits.max_line_bytes].map(|bytes| written(bytes as u64, &SIZES));
        let least = written(limits.least_room_log_bytes() as u64, &SIZES);
        return Err(format!("'--room-log {log}' is too small for '--max-line {line}': it must be at least {least}"));
    }
    if limits.memory_bytes < 2 * limits.max_line_bytes {
        let [memory, line] = [limits.memory_bytes, limits.max_line_bytes].map(|bytes| written(bytes as u64, &SIZES));
        return Err(format!(
            "'--memory {memory}' is too small for '--max-line {line}': it must hold at least two lines"
        ));
    }
    #[cfg(feature = "files")]
    let is_served = listen.iter().any(|(service, _)| service.name == "files");
    #[cfg(feature = "files")]
    let files = files::served(matches, is_served, &mut limits)?;
    let mut settings = Settings::default();
    set(matches, "udp-reply", &mut settings.udp_reply);
    #[cfg(feature = "web")]
    set(matches, "max-fragments", &mut limits.max_fragments);
    #[cfg(feature = "web")]
    settings.allow_origins.extend(matches.get_many("allow-origin").into_iter().flatten().cloned());
    let log_level = matches.get_one("log-level").copied();
    Ok(Config {
        listen,
        limits,
        settings,
        #[cfg(feature = "files")]
        files,
        log_level,
    })
}

/// Overwrites `target` if the flag was given.
fn set<T: Clone + Send + Sync + 'static>(matches: &ArgMatches, name: &str, target: &mut T) {
    if let Some(value) = matches.get_one::<T>(name) {
        target.clone_from(value);
    }
}

/// What clap says over several lines, in one: the message and the tip, without the usage that `--help` shows better.
fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let lines = text.lines().map(str::trim);
    let told = lines.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"));
    let told: Vec<String> = told
        .filter(|line| !line.is_empty())
        .map(|line| if line.starts_with("tip:") { format!("({line})") } else { line.to_string() })
        .collect();
    let told = told.join(" ");
    told.strip_prefix("error: ").unwrap_or(&told).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve(words: &[&str]) -> Config {
        match parse(std::iter::once(&"oneloop").chain(words)) {
            Ok(Asked::Serve(config)) => *config,
            other => panic!("{words:?}: {other:?}"),
        }
    }

    fn wrong(words: &[&str]) -> String {
        let error = parse(std::iter::once(&"oneloop").chain(words)).expect_err("must be refused");
        assert!(!error.contains('\n'), "one line: {error}");
        error
    }

    #[test]
    fn the_definition_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn nothing_at_all_is_serve_with_the_defaults() {
        for words in [&[][..], &["serve"]] {
            let config = serve(words);
            let places: Vec<String> =
                config.listen.iter().map(|(service, at)| format!("{} {at}", service.name)).collect();
            let mut expected = vec!["echo 127.0.0.1:9000", "chat 127.0.0.1:9001", "udp 127.0.0.1:8080"];
            if cfg!(feature = "web") {
                expected.insert(2, "web 127.0.0.1:9080");
            }
            assert_eq!(places, expected);
            assert_eq!(config.limits, Limits::default());
        }
    }

    #[test]
    fn services_repeat_and_go_off() {
        let config =
            serve(&["serve", "--chat", "off", "--echo", "1", "--echo", ":2", "--udp", "off", "--raw", "[::1]:3"]);
        let asked = config.listen.iter().filter(|(service, _)| service.name != "web");
        let places: Vec<String> = asked.map(|(service, at)| format!("{} {at}", service.name)).collect();
        assert_eq!(places, ["echo 1", "echo :2", "raw [::1]:3"]);
        assert!(wrong(&["--echo", "off", "--echo", "1"]).contains("'--echo off' stands alone"));
        let all_off: Vec<String> = SERVICES.iter().map(|service| format!("--{}=off", service.name)).collect();
        let all_off: Vec<&str> = all_off.iter().map(String::as_str).collect();
        assert!(wrong(&all_off).starts_with("every service is off"));
    }

    #[test]
    fn limits_arrive_with_their_units() {
        let config = serve(&[
            "--max-connections",
            "7",
            "--max-line",
            "1KiB",
            "--memory",
            "1MiB",
            "--idle-timeout",
            "2m",
            "--write-timeout",
            "500ms",
            "--udp-buffer",
            "65536",
            "--drain",
            "1h",
            "--udp-reply",
            "echo",
            "--log-level",
            "trace",
        ]);
        let limits = Limits {
            max_connections: 7,
            max_line_bytes: 1024,
            memory_bytes: 1 << 20,
            idle_timeout: Some(Duration::from_secs(120)),
            write_timeout: Duration::from_millis(500),
            udp_buffer_bytes: 65536,
            drain: Duration::from_secs(3600),
            ..Limits::default()
        };
        assert_eq!(config.limits, limits);
        assert_eq!(config.settings.udp_reply, Reply::Echo);
        assert_eq!(config.log_level, Some(LevelFilter::Trace));
        assert_eq!(serve(&["--idle-timeout", "off"]).limits.idle_timeout, None);
    }

    #[test]
    fn a_wrong_value_names_the_option_the_value_and_what_is_allowed() {
        for (words, value, allowed) in [
            (["--echo", "localhost"], "localhost", "must be HOST:PORT"),
            (["--echo", "127.0.0.1:65536"], "127.0.0.1:65536", "must be HOST:PORT"),
            (["--echo", "::1:9000:x"], "::1:9000:x", "must be HOST:PORT"),
            (["--echo", "a b:1"], "a b:1", "must be HOST:PORT"),
            (["--raw", "+1"], "+1", "must be HOST:PORT"),
            (["--udp", ""], "", "must be HOST:PORT"),
            (["--udp-reply", "no"], "no", "ok, ack, echo"),
            (["--slow-reader", "drop"], "drop", "skip, disconnect, block"),
            (["--max-rooms", "0"], "0", "from 1 to 1000000"),
            (["--history", "10001"], "10001", "from 0 to 10000"),
            (["--chat-rate", "0"], "0", "from 1 to 1000000, or off"),
            (["--heartbeat", "yes"], "yes", "auto, all, off"),
            (["--heartbeat-retries", "101"], "101", "from 0 to 100"),
            (["--max-connections", "0"], "0", "from 1 to 1000000"),
            (["--max-connections", "18446744073709551616"], "18446744073709551616", "from 1 to 1000000"),
            (["--max-line", "0"], "0", "from 1B to 16MiB"),
            (["--max-line", "64KB"], "64KB", "such as 64KiB"),
            (["--max-line", "99999999999999999999GiB"], "99999999999999999999GiB", "from 1B to 16MiB"),
            (["--memory", "1KiB"], "1KiB", "from 64KiB to 1024GiB"),
            (["--write-timeout", "0s"], "0s", "from 1ms to 24h"),
            (["--write-timeout", "10"], "10", "such as 500ms, 10s or 2m"),
            (["--idle-timeout", "never"], "never", "or off"),
            (["--drain", "25h"], "25h", "from 1ms to 24h"),
            (["--udp-buffer", "2GiB"], "2GiB", "from 4KiB to 1GiB"),
            (["--log-level", "loud"], "loud", "off, error, warn, info, debug, trace"),
        ] {
            let error = wrong(&words);
            for part in [words[0], value, allowed] {
                assert!(error.contains(part), "{words:?}: {error:?} does not say {part:?}");
            }
        }
        assert!(wrong(&["--drain", "-1s"]).contains("-1"));
        assert!(wrong(&["--ecko", "1"]).contains("'--echo'"), "a suggestion");
        let error = wrong(&["--max-line", "1MiB"]);
        assert_eq!(error, "'--room-log 1MiB' is too small for '--max-line 1MiB': it must be at least 10486400B");
        let error = wrong(&["--memory", "64KiB", "--max-line", "60KiB"]);
        assert_eq!(error, "'--memory 64KiB' is too small for '--max-line 60KiB': it must hold at least two lines");
    }
}
