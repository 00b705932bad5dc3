//! Hosts and origins: whose page a request comes from, and whether its host can be us. Touches only the text it is given.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether only this machine can reach `ip`.
pub fn is_local(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

/// Why somebody may not come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// A page of another site.
    ForeignOrigin,
    /// The name that it asked is none of ours.
    ForeignHost,
}

/// Who may come in. Browsers let any page open a WebSocket to any server and tell only in `Origin` which page it was;
/// and a page whose owner lets its name point to 127.0.0.1 (DNS rebinding) betrays itself only in `Host`.
///
/// ```
/// use oneloop::wire::origin::{Denied, Gate};
///
/// let gate = Gate { allowed: vec!["https://chat.example.org".into()], is_local: false };
/// assert_eq!(gate.judge(Some("x:81"), Some("http://x:81")), Ok(()));
/// assert_eq!(gate.judge(Some("x:81"), Some("https://chat.example.org")), Ok(()));
/// assert_eq!(gate.judge(Some("x:81"), Some("https://evil.example")), Err(Denied::ForeignOrigin));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Gate {
    /// The origins whose pages may come in besides our own. One that [`origin`] would refuse lets nobody in.
    pub allowed: Vec<String>,
    /// The listener is bound to a loopback address: whoever names another host was led here.
    pub is_local: bool,
}

impl Gate {
    /// Whether a request with this `Host` and `Origin` may come in.
    ///
    /// # Errors
    /// Why not.
    pub fn judge(&self, host: Option<&str>, origin: Option<&str>) -> Result<(), Denied> {
        let host = host.map(|host| Authority::read(host).ok_or(Denied::ForeignHost)).transpose()?;
        let mut allowed = self.allowed.iter().filter_map(|text| Origin::read(text));
        if let Some(Authority { host, .. }) = host
            && self.is_local
            && !host.cannot_be_led_here()
            && !allowed.clone().any(|origin| origin.host == host)
        {
            return Err(Denied::ForeignHost);
        }
        let Some(text) = origin else { return Ok(()) };
        // `null` is no origin either: any page can have it by way of a sandboxed frame.
        let origin = Origin::read(text).ok_or(Denied::ForeignOrigin)?;
        // The scheme cannot be compared: we may stand behind something that took off the TLS.
        let is_ours = host.is_some_and(|ours| {
            ours.host == origin.host && ours.port.unwrap_or(origin.scheme.default_port()) == origin.port
        });
        if is_ours || allowed.any(|allowed| allowed == origin) { Ok(()) } else { Err(Denied::ForeignOrigin) }
    }
}

/// Judges an origin that an operator wrote, and gives it the one form that all spellings of it share.
///
/// ```
/// use oneloop::wire::origin::origin;
///
/// assert_eq!(origin("https://Chat.Example.org:443").unwrap(), "https://chat.example.org");
/// assert_eq!(origin("http://[::1]:8080").unwrap(), "http://[::1]:8080");
/// assert!(origin("chat.example.org").is_err() && origin("https://chat.example.org/").is_err());
/// ```
///
/// # Errors
/// What it must be.
pub fn origin(text: &str) -> Result<String, &'static str> {
    if Scheme::strip(text).is_none() {
        return Err("it must begin with http:// or https://");
    }
    let origin =
        Origin::read(text).ok_or("it must be http:// or https://, a host, perhaps a port, and nothing else")?;
    let mut text = String::from(origin.scheme.text());
    let _ = match origin.host {
        Host::V4(address) => write!(text, "{address}"),
        Host::V6(address) => write!(text, "[{address}]"),
        Host::Name(name) => write!(text, "{}", name.to_ascii_lowercase()),
    };
    if origin.port != origin.scheme.default_port() {
        let _ = write!(text, ":{}", origin.port);
    }
    Ok(text)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    /// The scheme that `text` begins with, and what stands behind it.
    pub(super) fn strip(text: &str) -> Option<(Scheme, &str)> {
        [Scheme::Http, Scheme::Https].into_iter().find_map(|scheme| {
            let (begin, rest) = text.split_at_checked(scheme.text().len())?;
            begin.eq_ignore_ascii_case(scheme.text()).then_some((scheme, rest))
        })
    }

    fn text(self) -> &'static str {
        match self {
            Scheme::Http => "http://",
            Scheme::Https => "https://",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

/// A web page's site: RFC 6454.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Origin<'a> {
    scheme: Scheme,
    host: Host<'a>,
    port: u16,
}

impl Origin<'_> {
    fn read(text: &str) -> Option<Origin<'_>> {
        let (scheme, rest) = Scheme::strip(text)?;
        let Authority { host, port } = Authority::read(rest).filter(|_| !rest.ends_with(':'))?;
        Some(Origin { scheme, host, port: port.unwrap_or(scheme.default_port()) })
    }
}

/// A host and perhaps a port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Authority<'a> {
    host: Host<'a>,
    pub(super) port: Option<u16>,
}

impl Authority<'_> {
    /// RFC 9110 7.2 less what no name in use needs: percent signs, commas and the like, an empty host.
    pub(super) fn read(text: &str) -> Option<Authority<'_>> {
        let (host, rest) = if let Some(text) = text.strip_prefix('[') {
            let (address, rest) = text.split_once(']')?;
            (Host::V6(address.parse().ok()?), rest)
        } else {
            let (name, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
            (Host::read_name(name)?, rest)
        };
        let port = match rest.strip_prefix(':') {
            Some("") => None,
            // The parser of numbers would take a sign as well.
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
            None if rest.is_empty() => None,
            _ => return None,
        };
        Some(Authority { host, port })
    }
}

#[derive(Clone, Copy, Debug)]
enum Host<'a> {
    V4(Ipv4Addr),
    V6(Ipv6Addr),
    /// Without the dot that may stand at its end.
    Name(&'a str),
}

impl Host<'_> {
    fn read_name(text: &str) -> Option<Host<'_>> {
        let name = text.strip_suffix('.').unwrap_or(text);
        let is_label = |label: &str| {
            !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        if !name.split('.').all(is_label) {
            return None;
        }
        Some(name.parse().map_or(Host::Name(name), Host::V4))
    }

    /// An address, or a name that always means this machine (RFC 6761 6.3): no owner of a name can let it point here.
    fn cannot_be_led_here(self) -> bool {
        match self {
            Host::V4(_) | Host::V6(_) => true,
            Host::Name(name) => name.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("localhost")),
        }
    }
}

impl PartialEq for Host<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Host::V4(one), Host::V4(other)) => one == other,
            (Host::V6(one), Host::V6(other)) => one == other,
            (Host::Name(one), Host::Name(other)) => one.eq_ignore_ascii_case(other),
            _ => false,
        }
    }
}

impl Eq for Host<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_lets_in_whom_it_should() {
        let (fine, foreign, astray) = (Ok(()), Err(Denied::ForeignOrigin), Err(Denied::ForeignHost));
        // Expected of a listener for all, and of one on a loopback address.
        for (host, origin, of_public, of_local) in [
            // No page, or one of ours.
            ("localhost", "", fine, fine),
            ("LocalHost.:7002", "", fine, fine),
            ("a.LOCALHOST", "", fine, fine),
            ("127.0.0.1:7002", "", fine, fine),
            ("127.0.0.1.", "", fine, fine),
            ("192.0.2.1", "", fine, fine),
            ("[::1]:7002", "", fine, fine),
            ("localhost:7002", "http://localhost:7002", fine, fine),
            ("localhost:7002", "HTTP://LOCALHOST.:7002", fine, fine),
            ("localhost", "http://localhost:80", fine, fine),
            ("localhost:80", "http://localhost", fine, fine),
            ("localhost", "https://localhost", fine, fine),
            ("localhost:443", "https://localhost", fine, fine),
            ("localhost:", "http://localhost", fine, fine),
            ("[::1]:81", "http://[0:0:0:0:0:0:0:1]:81", fine, fine),
            // Another port is another site, and so is another name for the same machine.
            ("localhost:7002", "http://localhost", foreign, foreign),
            ("localhost:7002", "http://localhost:7003", foreign, foreign),
            ("localhost:80", "https://localhost", foreign, foreign),
            ("localhost:443", "http://localhost", foreign, foreign),
            ("127.0.0.1:7002", "http://localhost:7002", foreign, foreign),
            ("[::1]", "http://127.0.0.1", foreign, foreign),
            ("127.0.0.1", "http://127.0.0.2", foreign, foreign),
            ("[::1]", "http://[::2]", foreign, foreign),
            // Pages of others.
            ("localhost", "https://evil.example", foreign, foreign),
            ("localhost", "http://localhost.evil.example", foreign, foreign),
            ("localhost", "http://evil.localhost", foreign, foreign),
            ("localhost", "null", foreign, foreign),
            ("localhost", "NULL", foreign, foreign),
            ("localhost", "file://", foreign, foreign),
            ("localhost", "chrome-extension://localhost", foreign, foreign),
            ("localhost", "localhost", foreign, foreign),
            ("localhost", "//localhost", foreign, foreign),
            ("localhost", "http://localhost/", foreign, foreign),
            ("localhost", "http://localhost http://evil.example", foreign, foreign),
            ("localhost", "http://evil.example@localhost", foreign, foreign),
            ("localhost", "http://localhost\u{e9}", foreign, foreign),
            // Pages that were allowed.
            ("localhost:7002", "https://chat.example.org", fine, fine),
            ("localhost:7002", "https://CHAT.example.org.:443", fine, fine),
            ("localhost:7002", "http://other.example:8080", fine, fine),
            ("localhost:7002", "http://chat.example.org", foreign, foreign),
            ("localhost:7002", "https://chat.example.org:444", foreign, foreign),
            ("localhost:7002", "https://a.chat.example.org", foreign, foreign),
            ("localhost:7002", "https://chat.example.org.evil.example", foreign, foreign),
            ("localhost:7002", "http://other.example", foreign, foreign),
            ("chat.example.org", "", fine, fine),
            ("Chat.example.org.:7002", "https://chat.example.org", fine, fine),
            ("other.example", "http://other.example", fine, fine),
            // Names of others.
            ("evil.example", "", fine, astray),
            ("evil.example:7002", "http://evil.example:7002", fine, astray),
            ("evil.example", "https://other.example", foreign, astray),
            ("evil.example", "null", foreign, astray),
            ("localhost.evil.example", "", fine, astray),
            ("127.0.0.1.evil.example", "", fine, astray),
            ("evillocalhost", "", fine, astray),
            ("127.1", "", fine, astray),
            ("a.chat.example.org", "", fine, astray),
        ] {
            let origin = (!origin.is_empty()).then_some(origin);
            for (is_local, expected) in [(false, of_public), (true, of_local)] {
                let allowed = ["https://chat.example.org", "HTTP://Other.example.:8080", "*", "null"].map(String::from);
                let gate = Gate { allowed: allowed.to_vec(), is_local };
                assert_eq!(gate.judge(Some(host), origin), expected, "{host} from {origin:?}, local: {is_local}");
            }
        }
        // HTTP/1.0 may name no host: no browser speaks it, but who does so with an origin is none of ours.
        let gate = Gate { allowed: Vec::new(), is_local: true };
        assert_eq!(gate.judge(None, None), fine);
        assert_eq!(gate.judge(None, Some("http://localhost")), foreign);
        assert_eq!(gate.judge(Some("localhost"), Some("")), foreign);
    }

    #[test]
    fn origins_get_one_form_and_keep_it() {
        for (text, expected) in [
            ("https://chat.example.org", "https://chat.example.org"),
            ("HTTPS://Chat.Example.ORG.:443", "https://chat.example.org"),
            ("http://x:80", "http://x"),
            ("http://x:443", "http://x:443"),
            ("https://x:80", "https://x:80"),
            ("http://x:08080", "http://x:8080"),
            ("http://127.0.0.1:81", "http://127.0.0.1:81"),
            ("http://[0::0:1]:81", "http://[::1]:81"),
        ] {
            assert_eq!(origin(text), Ok(expected.into()));
            assert_eq!(origin(expected), Ok(expected.into()));
        }
        let schemes =
            "|*|null|x|x:80|//x|http:/x|http://|https://|ws://x|file:///| http://x|http\u{e9}//x|https:/\u{e9}x";
        let behind = "http://x/|http://x/a|http://x?a|http://x#a|http://x |http://x,http://y";
        let hosts = "http://a@x|http://x:|http://x:a|http://x:65536|http://a b|http://*.x|http://::1|http://[::1]:";
        for text in [schemes, behind, hosts].iter().flat_map(|texts| texts.split('|')) {
            assert!(origin(text).is_err(), "{text}");
        }
    }
}
