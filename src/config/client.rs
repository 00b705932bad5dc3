//! The command lines of the clients: `connect` and `ping`, and where they go. Touches nothing.

use super::{Address, Asked, HEARTBEATS, LEVELS, choice, number, set, span, span_or_off};
use crate::limits::{Heartbeat, Limits};
use crate::wire::text::wrong_name;
use clap::{Arg, ArgAction, ArgMatches, Command};
use log::LevelFilter;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// What carries the lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// TCP.
    Tcp,
    /// `udp:`, a datagram for each line.
    Udp,
    /// `ws://`, a WebSocket's message for each line.
    WebSocket {
        /// What the server should know as its own name and port.
        host: String,
        /// From the `/` on.
        path: String,
    },
}

/// Where a client goes, as it was written.
///
/// ```
/// use oneloop::config::client::{Scheme, Target};
///
/// let target: Target = "ws://localhost:9080/chat".parse().unwrap();
/// assert_eq!(target.address.to_string(), "localhost:9080");
/// assert_eq!("udp:127.0.0.1:8080".parse::<Target>().unwrap().scheme, Scheme::Udp);
/// assert!("localhost".parse::<Target>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// What carries the lines.
    pub scheme: Scheme,
    /// Which host and port.
    pub address: Address,
}

impl Target {
    /// The chat of this machine.
    fn chat() -> Target {
        Target { scheme: Scheme::Tcp, address: Address::Socket(SocketAddr::from(([127, 0, 0, 1], 9001))) }
    }

    const FORMS: &'static str =
        "must be HOST:PORT, [IPV6]:PORT, PORT (this machine), udp:HOST:PORT or ws://HOST:PORT/PATH";
}

impl std::str::FromStr for Target {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Target, &'static str> {
        let address = |text: &str| match text.parse() {
            Ok(Address::Everywhere(_)) | Err(_) => Err(Target::FORMS), // there is no going everywhere
            Ok(Address::Loopback(0) | Address::Host(_, 0)) => Err(Target::FORMS),
            Ok(Address::Socket(at)) if at.port() == 0 => Err(Target::FORMS),
            Ok(address) => Ok(address),
        };
        if let Some(rest) = text.strip_prefix("udp:") {
            return Ok(Target { scheme: Scheme::Udp, address: address(rest)? });
        }
        let Some(rest) = text.strip_prefix("ws://") else {
            return Ok(Target { scheme: Scheme::Tcp, address: address(text)? });
        };
        let (host, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
        if path.bytes().any(|byte| !byte.is_ascii_graphic() || byte == b'#') {
            return Err(Target::FORMS);
        }
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
        let address = address(&if has_port { host.to_string() } else { format!("{host}:80") })?;
        let scheme = Scheme::WebSocket { host: host.to_string(), path: path.to_string() };
        Ok(Target { scheme, address })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = match &self.address {
            Address::Loopback(port) => format!("localhost:{port}"),
            address => address.to_string(),
        };
        match &self.scheme {
            Scheme::Tcp => f.write_str(&address),
            Scheme::Udp => write!(f, "udp:{address}"),
            Scheme::WebSocket { host, path } => write!(f, "ws://{host}{path}"),
        }
    }
}

/// What `connect` was asked for.
#[derive(Clone, Debug)]
pub struct Connect {
    /// Where to.
    pub target: Target,
    /// The name to take.
    pub nick: Option<String>,
    /// The room to join.
    pub room: Option<String>,
    /// A terminal's connection that is lost is made anew.
    pub reconnect: bool,
    /// How long a connection may take to come about.
    pub connect_timeout: Duration,
    /// A connection over which nothing came for so long is lost.
    pub read_timeout: Option<Duration>,
    /// Whether to ask the server for signs of life, and the three numbers of that.
    pub heartbeat: Option<Heartbeat>,
    /// Silence before the first PING.
    pub heartbeat_interval: Duration,
    /// Time to answer each.
    pub heartbeat_timeout: Duration,
    /// PINGs after the first.
    pub heartbeat_retries: u32,
    /// The log level, if the command line names one.
    pub log_level: Option<LevelFilter>,
}

/// What `ping` was asked for.
#[derive(Clone, Debug)]
pub struct Ping {
    /// Who is asked.
    pub target: Target,
    /// From one question to the next.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// How many questions; `None` is without end.
    pub count: Option<u64>,
    /// One JSON object a line.
    pub json: bool,
    /// The log level, if the command line names one.
    pub log_level: Option<LevelFilter>,
}

fn target(text: &str) -> Result<Target, &'static str> {
    text.parse()
}

const CONNECT_EXAMPLES: &str = "\
Examples:
  oneloop connect                                     the chat on this machine; Ctrl-D or /quit ends it
  oneloop connect example.org:9001 --nick ann         under a name, which is taken again after each reconnection
  oneloop connect ws://127.0.0.1:9080/chat            the same chat over a WebSocket
  printf 'a\\nb\\n' | oneloop connect 127.0.0.1:9000    a filter: prints the answers, ends with the server's end
  oneloop connect 127.0.0.1:9000 < lines.txt          the same from a file
  echo PING | oneloop connect udp:127.0.0.1:8080      a datagram a line; ends after 1 s without an answer

ADDR is HOST:PORT, [IPV6]:PORT, PORT (this machine), udp:HOST:PORT or ws://HOST:PORT/PATH.
On a terminal a connection that is lost is made anew, after 0.1 s to 2 s at first and 30 s at most. In a pipe it is not, for
lines that were on the way would be lost or sent twice: then the status is 1.
The server's PING is answered and not shown. With one of the --heartbeat options it is sent PING, too.
Exit status: 0 if it came to its end, 1 if there was no connection or it was lost, 2 for wrong usage.";

const PING_EXAMPLES: &str = "\
Examples:
  oneloop ping 9001                           PING over TCP every second until Ctrl-C
  oneloop ping --count 3 example.org:9000     three times; status 1 if nothing answered
  oneloop ping udp:127.0.0.1:8080             a datagram each
  oneloop ping ws://127.0.0.1:9080/chat       a WebSocket's ping frames
  oneloop ping --json --interval 100ms 9001   one JSON object a line, the summary last

ADDR is HOST:PORT, [IPV6]:PORT, PORT (this machine), udp:HOST:PORT or ws://HOST:PORT/PATH.
One PING is out at a time. Where one is lost, the connection is given up and the next PING makes a new one.
Exit status: 0 if anything answered, 1 if nothing did, 2 for wrong usage.";

fn flag(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

fn log_level() -> Arg {
    flag("log-level", "LEVEL", "How much to log to standard error [default: warn]").value_parser(choice(LEVELS))
}

fn name(text: &str) -> Result<String, String> {
    wrong_name(text).map_or(Ok(text.to_string()), |wrong| Err(format!("must be a name: {wrong}")))
}

fn connect_command() -> Command {
    Command::new("connect")
        .about("Talk to a text service, line by line: the chat, or any other")
        .after_help(CONNECT_EXAMPLES)
        .args([
            Arg::new("target").value_name("ADDR").help("Where to [default: 127.0.0.1:9001]").value_parser(target),
            flag("nick", "NAME", "The name to take in a chat").value_parser(name),
            flag("room", "NAME", "The room to join").value_parser(name),
            Arg::new("no-reconnect")
                .long("no-reconnect")
                .help("End when the connection is lost")
                .action(ArgAction::SetTrue),
            flag("connect-timeout", "TIME", "How long a connection may take to come about [default: 5s]")
                .value_parser(span),
            flag("read-timeout", "TIME", "Lost if nothing came for so long [default: off]").value_parser(span_or_off),
            flag("heartbeat", "WHEN", "Send PING: auto once the server has, all always [default: auto]")
                .value_parser(choice(HEARTBEATS)),
            flag("heartbeat-interval", "TIME", "Silence before the first PING [default: 10s]").value_parser(span),
            flag("heartbeat-timeout", "TIME", "Time to answer each [default: 5s]").value_parser(span),
            flag("heartbeat-retries", "N", "PINGs after the first [default: 2]").value_parser(number(0, 100)),
            log_level(),
        ])
}

fn connect(matches: &ArgMatches) -> Connect {
    let limits = Limits::default();
    let numbers = ["heartbeat-interval", "heartbeat-timeout", "heartbeat-retries"];
    let mut connect = Connect {
        target: matches.get_one("target").cloned().unwrap_or_else(Target::chat),
        nick: matches.get_one("nick").cloned(),
        room: matches.get_one("room").cloned(),
        reconnect: !matches.get_flag("no-reconnect"),
        connect_timeout: limits.connect_timeout,
        read_timeout: None,
        // Who gives one of the numbers wants it to be used.
        heartbeat: numbers.iter().any(|number| matches.contains_id(number)).then_some(Heartbeat::All),
        heartbeat_interval: limits.heartbeat_interval,
        heartbeat_timeout: limits.heartbeat_timeout,
        heartbeat_retries: limits.heartbeat_retries,
        log_level: matches.get_one("log-level").copied(),
    };
    set(matches, "connect-timeout", &mut connect.connect_timeout);
    set(matches, "read-timeout", &mut connect.read_timeout);
    set(matches, "heartbeat-interval", &mut connect.heartbeat_interval);
    set(matches, "heartbeat-timeout", &mut connect.heartbeat_timeout);
    set(matches, "heartbeat-retries", &mut connect.heartbeat_retries);
    connect.heartbeat = matches.get_one("heartbeat").copied().or(connect.heartbeat);
    connect
}

fn ping_command() -> Command {
    Command::new("ping")
        .about("Ask a text service for signs of life, as ping asks a host")
        .after_help(PING_EXAMPLES)
        .args([
            Arg::new("target").value_name("ADDR").help("Who is asked").required(true).value_parser(target),
            flag("interval", "TIME", "From one PING to the next [default: 1s]").value_parser(span),
            flag("timeout", "TIME", "How long an answer may take [default: 2s]").value_parser(span),
            flag("count", "N", "How many PINGs [default: until Ctrl-C]").value_parser(number(1, u32::MAX)),
            Arg::new("json").long("json").help("One JSON object a line").action(ArgAction::SetTrue),
            log_level(),
        ])
}

/// The commands of the clients.
pub(super) fn commands() -> [Command; 2] {
    [connect_command(), ping_command()]
}

/// What was asked for, if it was one of them.
pub(super) fn asked(matches: &ArgMatches) -> Option<Result<Asked, String>> {
    match matches.subcommand()? {
        ("connect", matches) => Some(Ok(Asked::Connect(connect(matches)))),
        ("ping", matches) => Some(Ok(Asked::Ping(ping(matches)))),
        _ => None,
    }
}

fn ping(matches: &ArgMatches) -> Ping {
    let target = matches.get_one("target").cloned().expect("clap requires it");
    let mut ping = Ping {
        target,
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(2),
        count: matches.get_one::<u32>("count").map(|count| u64::from(*count)),
        json: matches.get_flag("json"),
        log_level: matches.get_one("log-level").copied(),
    };
    set(matches, "interval", &mut ping.interval);
    set(matches, "timeout", &mut ping.timeout);
    ping
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_and_written() {
        for (text, written) in [
            ("9001", "localhost:9001"),
            ("[::1]:9001", "[::1]:9001"),
            ("example.org:7", "example.org:7"),
            ("udp:127.0.0.1:8080", "udp:127.0.0.1:8080"),
            ("udp:8080", "udp:localhost:8080"),
            ("ws://localhost:9080/chat", "ws://localhost:9080/chat"),
            ("ws://example.org", "ws://example.org/"),
            ("ws://[::1]/chat?a=b", "ws://[::1]/chat?a=b"),
        ] {
            assert_eq!(text.parse::<Target>().map(|target| target.to_string()), Ok(written.to_string()), "{text}");
        }
        for wrong in
            ["", ":9001", "localhost", "0", "127.0.0.1:0", "udp:", "udp::1", "ws://", "ws://a:1/b c", "ws://a/#b"]
        {
            assert_eq!(wrong.parse::<Target>(), Err(Target::FORMS), "{wrong}");
        }
    }
}
