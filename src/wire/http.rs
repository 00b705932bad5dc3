//! The part of HTTP/1.1 (RFC 9110, RFC 9112) that a few GET resources and WebSocket handshakes need: request heads in,
//! responses out. Touches only the bytes it is given.
//!
//! It is strict: what two parsers could read in two ways is refused, because whoever stands before us may read it the
//! other way. A line is judged as soon as it is complete, so a peer cannot be wrong slowly; and nothing is kept between
//! calls, so a head that comes again with more is read again, at most `max_bytes` of it.

use super::origin::{Authority, Scheme};
use crate::buffer::Queue;
use data_encoding::BASE64;
use memchr::memchr;
use sha1_smol::Sha1;
use std::fmt::Write;

/// What stands at the front of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head<'a> {
    /// A whole request head.
    Whole {
        /// What it asks for.
        request: Request<'a>,
        /// Bytes to consume, the empty line at the end among them.
        used: usize,
    },
    /// No end yet: come again with more.
    Unfinished,
    /// Cannot be served: answer this and close.
    Wrong(Status),
}

/// What a request head says, as far as we care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// What to do with the path.
    pub method: Method,
    /// The target without its query, visible ASCII. Of a target in absolute form only the path, `/` if it has none.
    pub path: &'a str,
    /// To whom it is addressed, a well-formed host with or without port: the `Host` header, or what a target in
    /// absolute form says instead (RFC 9112 3.2.2). Only HTTP/1.0 may leave it out.
    pub host: Option<&'a str>,
    /// The web page that made the request, if one did: whatever the header says.
    pub origin: Option<&'a str>,
    /// Another request may follow. Not in HTTP/1.0, not if the peer said `Connection: close`, and not if this one
    /// announced a body, because nobody will read it.
    pub keep_alive: bool,
    /// What the connection should become.
    pub upgrade: Upgrade<'a>,
}

/// The methods that matter. Names are case-sensitive: `get` is another method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Send the resource.
    Get,
    /// Send what would stand before the resource.
    Head,
    /// Anything else: answer 405.
    Other,
}

/// What a request asks the connection to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrade<'a> {
    /// Nothing, or nothing that we speak.
    None,
    /// A WebSocket of version 13.
    WebSocket {
        /// For [`accept_key`]: base64 of 16 bytes.
        key: &'a str,
    },
    /// A WebSocket of another version, or of none: answer 426 and name ours.
    WrongVersion,
    /// A WebSocket handshake that is not well formed (no key, two, one that is not 16 bytes, or a body): answer 400.
    Malformed,
}

/// The answers that we give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The connection becomes what was asked for.
    SwitchingProtocols = 101,
    /// Here it is.
    Ok = 200,
    /// Not HTTP, or not so that everybody would understand it alike.
    BadRequest = 400,
    /// A web page of another site.
    Forbidden = 403,
    /// No such resource.
    NotFound = 404,
    /// Neither GET nor HEAD. Owes an `Allow` header.
    MethodNotAllowed = 405,
    /// The head took too long.
    RequestTimeout = 408,
    /// Addressed to a host that we are not.
    Misdirected = 421,
    /// The resource is a WebSocket. Owes an `Upgrade` header.
    UpgradeRequired = 426,
    /// More bytes or more lines than we read.
    HeadTooLarge = 431,
    /// Not now.
    Unavailable = 503,
    /// HTTP, but neither 1.1 nor 1.0.
    VersionNotSupported = 505,
}

impl Status {
    /// The number.
    pub fn code(self) -> u16 {
        self as u16
    }

    /// The words behind the number, which nobody needs to read.
    pub fn reason(self) -> &'static str {
        match self {
            Status::SwitchingProtocols => "Switching Protocols",
            Status::Ok => "OK",
            Status::BadRequest => "Bad Request",
            Status::Forbidden => "Forbidden",
            Status::NotFound => "Not Found",
            Status::MethodNotAllowed => "Method Not Allowed",
            Status::RequestTimeout => "Request Timeout",
            Status::Misdirected => "Misdirected Request",
            Status::UpgradeRequired => "Upgrade Required",
            Status::HeadTooLarge => "Request Header Fields Too Large",
            Status::Unavailable => "Service Unavailable",
            Status::VersionNotSupported => "HTTP Version Not Supported",
        }
    }
}

/// The request head at the front of `bytes`, which may be up to `max_bytes` long in up to `max_headers` header lines.
///
/// The contract is that of [`Protocol::bytes`](crate::protocol::Protocol::bytes): what was not used comes again, first,
/// with what arrived since. More bytes never change an answer other than [`Head::Unfinished`].
///
/// ```
/// use oneloop::wire::http::{Head, Method, Status, read_head};
///
/// let bytes = b"GET /metrics?all HTTP/1.1\r\nHost: localhost\r\n\r\nthe next";
/// let Head::Whole { request, used } = read_head(bytes, 8192, 100) else { panic!() };
/// assert_eq!((request.method, request.path, &bytes[used..]), (Method::Get, "/metrics", &b"the next"[..]));
///
/// assert_eq!(read_head(&bytes[..20], 8192, 100), Head::Unfinished);
/// assert_eq!(read_head(&bytes[..20], 20, 100), Head::Wrong(Status::HeadTooLarge));
/// assert_eq!(read_head(b"\x16\x03\x01", 8192, 100), Head::Wrong(Status::BadRequest));
/// ```
pub fn read_head(bytes: &[u8], max_bytes: usize, max_headers: usize) -> Head<'_> {
    match read(&bytes[..bytes.len().min(max_bytes)], max_headers) {
        Ok(Some((request, used))) => Head::Whole { request, used },
        // At the limit, too: its end would be beyond.
        Ok(None) if bytes.len() >= max_bytes => Head::Wrong(Status::HeadTooLarge),
        Ok(None) => Head::Unfinished,
        Err(status) => Head::Wrong(status),
    }
}

/// The request and the bytes it took, or `None` if there is no end.
fn read(bytes: &[u8], max_headers: usize) -> Result<Option<(Request<'_>, usize)>, Status> {
    let (mut start, mut fields, mut headers, mut used) = (None, Fields::default(), 0, 0);
    while let Some(end) = memchr(b'\n', &bytes[used..]) {
        let line = bytes[used..used + end].strip_suffix(b"\r").ok_or(Status::BadRequest)?;
        used += end + 1;
        may_be_line(line)?;
        match &start {
            // Some clients send an empty line behind a body; RFC 9112 2.2 asks to overlook it.
            None if line.is_empty() => {}
            None => start = Some(RequestLine::read(line)?),
            Some(start) if line.is_empty() => return Ok(Some((fields.request(start)?, used))),
            Some(start) => {
                headers += 1;
                if headers > max_headers {
                    return Err(Status::HeadTooLarge);
                }
                fields.add(line, start)?;
            }
        }
    }
    let rest = &bytes[used..];
    may_be_line(rest.strip_suffix(b"\r").unwrap_or(rest))?;
    Ok(None)
}

/// Refuses what cannot be a line of a head, complete or not: one that does not begin as a name does, for example a
/// folded line (RFC 9112 5.2) or a TLS hello, and one with a control character, a bare CR among them.
fn may_be_line(line: &[u8]) -> Result<(), Status> {
    let begins = line.first().is_none_or(|byte| is_name_byte(*byte));
    let clean = !line.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t');
    if begins && clean { Ok(()) } else { Err(Status::BadRequest) }
}

/// Whether it may stand in a method or in the name of a header: RFC 9110 5.6.2.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_name(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| is_name_byte(*byte))
}

/// The first line of a head.
struct RequestLine<'a> {
    method: Method,
    path: &'a str,
    /// Whom the target names, if it does.
    authority: Option<&'a str>,
    is_http_1_0: bool,
}

impl<'a> RequestLine<'a> {
    fn read(line: &'a [u8]) -> Result<RequestLine<'a>, Status> {
        let mut words = line.split(|byte| *byte == b' ');
        // Two words would be HTTP/0.9, which has no heads and so no end.
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(Status::BadRequest);
        };
        if !is_name(method) {
            return Err(Status::BadRequest);
        }
        let is_http_1_0 = match version.strip_prefix(b"HTTP/") {
            Some(b"1.0") => true,
            // RFC 9110 2.5: a later minor version is to be read as the last one we know.
            Some([b'1', b'.', b'1'..=b'9']) => false,
            Some([b'0'..=b'9', b'.', b'0'..=b'9']) => return Err(Status::VersionNotSupported),
            _ => return Err(Status::BadRequest),
        };
        let (path, authority) = target_of(method, target).ok_or(Status::BadRequest)?;
        let method = match method {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            _ => Method::Other,
        };
        Ok(RequestLine { method, path, authority, is_http_1_0 })
    }
}

/// The path of a target and whom it names, in the four forms of RFC 9112 3.2.
fn target_of<'a>(method: &[u8], target: &'a [u8]) -> Option<(&'a str, Option<&'a str>)> {
    let target = str::from_utf8(target).ok()?;
    if !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return None;
    }
    let without_query = |text: &'a str| text.split_once('?').map_or(text, |(path, _)| path);
    if method == b"CONNECT" {
        Authority::read(target)?.port?;
        Some((target, Some(target)))
    } else if target.starts_with('/') || (target == "*" && method == b"OPTIONS") {
        Some((without_query(target), None))
    } else {
        let (_, rest) = Scheme::strip(target)?;
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        Authority::read(authority)?;
        let path = without_query(path);
        Some((if path.is_empty() { "/" } else { path }, Some(authority)))
    }
}

/// What the header lines said so far.
#[derive(Default)]
struct Fields<'a> {
    host: Option<&'a str>,
    origin: Option<&'a str>,
    content_length: Option<u64>,
    is_chunked: bool,
    says_close: bool,
    says_upgrade: bool,
    says_websocket: bool,
    version: Option<&'a [u8]>,
    key: Option<&'a [u8]>,
    /// One of the last two came twice: only a handshake minds.
    has_twice: bool,
}

impl<'a> Fields<'a> {
    fn add(&mut self, line: &'a [u8], start: &RequestLine<'_>) -> Result<(), Status> {
        let colon = memchr(b':', line).ok_or(Status::BadRequest)?;
        // Space before the colon makes it no name: some would read the header, some would not.
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if !is_name(name) {
            return Err(Status::BadRequest);
        }
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        let lists = |word: &str| {
            value.split(|byte| *byte == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
        };
        let text = || str::from_utf8(value).map_err(|_| Status::BadRequest);
        let wrong = if is("host") {
            let host = text()?;
            self.host.replace(host).is_some() || Authority::read(host).is_none()
        } else if is("origin") {
            self.origin.replace(text()?).is_some()
        } else if is("content-length") {
            let length = text()?;
            let digits = length.bytes().all(|byte| byte.is_ascii_digit());
            let length = length.parse().map_err(|_| Status::BadRequest)?;
            self.content_length.replace(length).is_some() || !digits || self.is_chunked
        } else if is("transfer-encoding") {
            let chunked = value.eq_ignore_ascii_case(b"chunked");
            std::mem::replace(&mut self.is_chunked, true)
                || !chunked
                || self.content_length.is_some()
                || start.is_http_1_0
        } else {
            if is("connection") {
                self.says_close |= lists("close");
                self.says_upgrade |= lists("upgrade");
            } else if is("upgrade") {
                self.says_websocket |= lists("websocket");
            } else if is("sec-websocket-version") {
                self.has_twice |= self.version.replace(value).is_some();
            } else if is("sec-websocket-key") {
                self.has_twice |= self.key.replace(value).is_some();
            }
            false
        };
        if wrong { Err(Status::BadRequest) } else { Ok(()) }
    }

    /// All together, now that the head has ended.
    fn request(&self, start: &RequestLine<'a>) -> Result<Request<'a>, Status> {
        // Even a target that names the host does not excuse its absence: RFC 9112 3.2.
        if self.host.is_none() && !start.is_http_1_0 {
            return Err(Status::BadRequest);
        }
        let has_body = self.is_chunked || self.content_length.is_some_and(|bytes| bytes > 0);
        Ok(Request {
            method: start.method,
            path: start.path,
            host: start.authority.or(self.host),
            origin: self.origin,
            keep_alive: !(start.is_http_1_0 || self.says_close || has_body),
            upgrade: self.upgrade(start, has_body),
        })
    }

    fn upgrade(&self, start: &RequestLine<'_>, has_body: bool) -> Upgrade<'a> {
        if !(self.says_upgrade && self.says_websocket) || start.method != Method::Get || start.is_http_1_0 {
            Upgrade::None
        } else if self.version != Some(b"13") {
            Upgrade::WrongVersion
        // What follows would be the body to one reader and frames to another.
        } else if self.has_twice || has_body {
            Upgrade::Malformed
        } else {
            self.key.and_then(nonce).map_or(Upgrade::Malformed, |key| Upgrade::WebSocket { key })
        }
    }
}

/// `key`, if it is base64 of 16 bytes.
fn nonce(key: &[u8]) -> Option<&str> {
    let mut decoded = [0; 18];
    let fits = key.len() == 24 && BASE64.decode_mut(key, &mut decoded).is_ok_and(|bytes| bytes == 16);
    if fits { str::from_utf8(key).ok() } else { None }
}

/// What a server shows to prove that it read the key of a handshake: RFC 6455 4.2.2.
///
/// ```
/// use oneloop::wire::http::accept_key;
///
/// assert_eq!(&accept_key("dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
/// ```
pub fn accept_key(key: &str) -> [u8; 28] {
    let mut sha1 = Sha1::new();
    sha1.update(key.as_bytes());
    sha1.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let mut accept = [0; 28];
    BASE64.encode_mut(&sha1.digest().bytes(), &mut accept);
    accept
}

/// Answers a handshake with `key`: behind this, the connection is a WebSocket.
///
/// ```
/// use oneloop::{buffer::Queue, wire::http::write_switch};
///
/// let mut out = Queue::default();
/// write_switch("dGhlIHNhbXBsZSBub25jZQ==", &mut out);
/// assert!(out.as_slice().starts_with(b"HTTP/1.1 101 Switching Protocols\r\n"));
/// ```
pub fn write_switch(key: &str, out: &mut Queue) {
    write_status(Status::SwitchingProtocols, out);
    out.push(b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ");
    out.push(&accept_key(key));
    out.push(b"\r\n\r\n");
}

/// An answer with a body. (101 has none: see [`write_switch`].)
///
/// ```
/// use oneloop::buffer::Queue;
/// use oneloop::wire::http::{Response, Status};
///
/// let mut out = Queue::default();
/// let response = Response {
///     status: Status::MethodNotAllowed,
///     content_type: "text/plain",
///     headers: &[("Allow", "GET, HEAD")],
///     body: b"GET it\n",
///     close: true,
///     head_only: false,
/// };
/// response.write(&mut out);
/// assert!(out.as_slice().starts_with(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Type: text/plain\r\n"));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    /// What became of the request.
    pub status: Status,
    /// What the body is.
    pub content_type: &'a str,
    /// More headers, names and values. Written as they are: nothing that a peer said belongs here.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body.
    pub body: &'a [u8],
    /// Says that no other request will be answered.
    pub close: bool,
    /// Leaves the body out, but not its length: the answer to HEAD, RFC 9110 9.3.2.
    pub head_only: bool,
}

impl Response<'_> {
    /// Adds it at the back of `out`.
    ///
    /// There is no `Date`: a server without a clock must not send one (RFC 9110 6.6.1).
    pub fn write(&self, out: &mut Queue) {
        write_status(self.status, out);
        let _ = write!(out, "Content-Type: {}\r\nContent-Length: {}\r\n", self.content_type, self.body.len());
        for (name, value) in self.headers {
            let _ = write!(out, "{name}: {value}\r\n");
        }
        // Nobody is to guess that a body is a script, or to show tomorrow what was true today.
        out.push(b"X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n");
        if self.close {
            out.push(b"Connection: close\r\n");
        }
        out.push(b"\r\n");
        if !self.head_only {
            out.push(self.body);
        }
    }
}

fn write_status(status: Status, out: &mut Queue) {
    let _ = write!(out, "HTTP/1.1 {} {}\r\n", status.code(), status.reason());
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_BYTES: usize = 8192;
    const MAX_HEADERS: usize = 100;
    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    fn read_default(bytes: &[u8]) -> Head<'_> {
        read_head(bytes, MAX_BYTES, MAX_HEADERS)
    }

    #[track_caller]
    fn whole(bytes: &[u8]) -> Request<'_> {
        match read_default(bytes) {
            Head::Whole { request, used } if used == bytes.len() => request,
            other => panic!("{} is {other:?}", bytes.escape_ascii()),
        }
    }

    /// A request for `/` with `lines` between `Host` and the end.
    fn get(lines: &str) -> Vec<u8> {
        format!("GET / HTTP/1.1\r\nHost: x\r\n{lines}\r\n").into_bytes()
    }

    /// What `bytes` are and after how many of them that was known. Any answer must stand once it is given.
    #[track_caller]
    fn known_after(bytes: &[u8], max_bytes: usize, max_headers: usize) -> (Head<'_>, usize) {
        let mut known = (Head::Unfinished, bytes.len());
        for end in 0..=bytes.len() {
            let head = read_head(&bytes[..end], max_bytes, max_headers);
            if known.0 == Head::Unfinished {
                known = (head, end);
            } else {
                assert_eq!(head, known.0, "{} changed its meaning at {end}", bytes.escape_ascii());
            }
            if let Head::Whole { used, .. } = head {
                assert!(used <= end && used <= max_bytes);
            }
        }
        known
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        let get_x = "GET / HTTP/1.1\r\nHost: x\r\n";
        // What stands before the `|` is all that is needed to know.
        for (before, shape) in [
            // Lengths.
            (get_x, "Content-Length: 5\r\nContent-Length: 5\r\n|\r\n"),
            (get_x, "Content-Length: 5\r\nContent-Length: 6\r\n|\r\n"),
            (get_x, "content-length: 0\r\nCONTENT-LENGTH: 0\r\n|\r\n"),
            (get_x, "Content-Length: 5, 5\r\n|\r\n"),
            (get_x, "Content-Length: 5,\r\n|\r\n"),
            (get_x, "Content-Length: +5\r\n|\r\n"),
            (get_x, "Content-Length: -5\r\n|\r\n"),
            (get_x, "Content-Length: 0x5\r\n|\r\n"),
            (get_x, "Content-Length: 5 5\r\n|\r\n"),
            (get_x, "Content-Length: five\r\n|\r\n"),
            (get_x, "Content-Length: \r\n|\r\n"),
            (get_x, "Content-Length: 18446744073709551616\r\n|\r\n"),
            (get_x, "Content-Length: \u{665}\r\n|\r\n"),
            // Encodings.
            (get_x, "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n|\r\n"),
            (get_x, "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n|\r\n"),
            (get_x, "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n|\r\n"),
            (get_x, "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n|\r\n"),
            (get_x, "Transfer-Encoding: chunked, identity\r\n|\r\n"),
            (get_x, "Transfer-Encoding: xchunked\r\n|\r\n"),
            (get_x, "Transfer-Encoding: \r\n|\r\n"),
            ("GET / HTTP/1.0\r\nHost: x\r\n", "Transfer-Encoding: chunked\r\n|\r\n"),
            // Line ends.
            ("", "\n|GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
            ("", "GET / HTTP/1.1\n|Host: x\r\n\r\n"),
            (get_x, "A: b\n|\r\n"),
            (get_x, "\n|"),
            (get_x, "A: b\rC|: d\r\n\r\n"),
            (get_x, "A: b\r\r|\n\r\n"),
            (get_x, "\r\r|\n"),
            ("", "GET / HTTP/1.1\rH|ost: x\r\n\r\n"),
            ("", "\rG|ET / HTTP/1.1\r\nHost: x\r\n\r\n"),
            // Lines that begin or end wrongly.
            (get_x, "A: b\r\n |c\r\n\r\n"),
            (get_x, "A: b\r\n\t|c\r\n\r\n"),
            (get_x, " |A: b\r\n\r\n"),
            (get_x, " |\r\n\r\n"),
            (get_x, "A : b\r\n|\r\n"),
            (get_x, "A\t: b\r\n|\r\n"),
            (get_x, "Content-Length : 5\r\n|\r\n"),
            (get_x, "Transfer-Encoding : chunked\r\n|\r\n"),
            (get_x, ":| b\r\n\r\n"),
            (get_x, "A\r\n|\r\n"),
            (get_x, "A b: c\r\n|\r\n"),
            (get_x, "A\u{e9}: c\r\n|\r\n"),
            (get_x, "A(: c\r\n|\r\n"),
            // Control characters.
            (get_x, "A: b\0|\r\n\r\n"),
            (get_x, "A: b\x0b|c\r\n\r\n"),
            (get_x, "A: b\x1b|c\r\n\r\n"),
            (get_x, "A: b\x7f|c\r\n\r\n"),
            (get_x, "A\0|: b\r\n\r\n"),
            ("", "GET /\0| HTTP/1.1\r\nHost: x\r\n\r\n"),
            // The first line.
            ("", " |GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
            ("", "\t|GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
            ("\r\n\r\n", " |GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
            ("", "GET  / HTTP/1.1\r\n|Host: x\r\n\r\n"),
            ("", "GET /  HTTP/1.1\r\n|Host: x\r\n\r\n"),
            ("", "GET\t/ HTTP/1.1\r\n|Host: x\r\n\r\n"),
            ("", "GET / HTTP/1.1 \r\n|Host: x\r\n\r\n"),
            ("", "GET /a b HTTP/1.1\r\n|Host: x\r\n\r\n"),
            ("", "GET /\r\n|Host: x\r\n\r\n"),
            ("", "GET\r\n|\r\n"),
            ("", "GET / \r\n|\r\n"),
            ("", "GET / http/1.1\r\n|Host: x\r\n\r\n"),
            ("", "GET / HTTP/1\r\n|Host: x\r\n\r\n"),
            ("", "GET / HTTP/1.10\r\n|Host: x\r\n\r\n"),
            ("", "GET / HTTP/01.1\r\n|Host: x\r\n\r\n"),
            ("", "GET / ICY/1.1\r\n|Host: x\r\n\r\n"),
            ("", "G(T / HTTP/1.1\r\n|Host: x\r\n\r\n"),
            ("", "\x16|\x03\x01"),
            ("", "(|"),
            // Targets.
            ("", "GET /a#b HTTP/1.1\r\n|Host: x\r\n\r\n"),
            ("", "GET /\u{e9} HTTP/1.1\r\n|Host: x\r\n\r\n"),
            ("", "GET /a\tb HTTP/1.1\r\n|Host: x\r\n\r\n"),
            ("", "GET a HTTP/1.1\r\n|Host: x\r\n\r\n"),
            ("", "GET * HTTP/1.1\r\n|Host: x\r\n\r\n"),
            ("", "GET x:80 HTTP/1.1\r\n|Host: x\r\n\r\n"),
            ("", "GET ftp://x/ HTTP/1.1\r\n|Host: x\r\n\r\n"),
            ("", "GET http:///a HTTP/1.1\r\n|Host: x\r\n\r\n"),
            ("", "GET http://a@x/ HTTP/1.1\r\n|Host: x\r\n\r\n"),
            ("", "GET http://x:99999/ HTTP/1.1\r\n|Host: x\r\n\r\n"),
            ("", "CONNECT / HTTP/1.1\r\n|Host: x\r\n\r\n"),
            ("", "CONNECT x HTTP/1.1\r\n|Host: x\r\n\r\n"),
            // Hosts.
            ("GET / HTTP/1.1\r\n", "\r\n|"),
            ("GET http://x/ HTTP/1.1\r\n", "\r\n|"),
            (get_x, "Host: x\r\n|\r\n"),
            ("GET / HTTP/1.0\r\nHost: x\r\n", "host: y\r\n|\r\n"),
            (get_x, "Origin: http://x\r\nOrigin: http://x\r\n|\r\n"),
        ] {
            let (needed, rest) = shape.split_once('|').unwrap();
            let bytes = [before, needed, rest].concat().into_bytes();
            let expected = (Head::Wrong(Status::BadRequest), before.len() + needed.len());
            assert_eq!(known_after(&bytes, MAX_BYTES, MAX_HEADERS), expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn hosts_are_judged() {
        for host in "x X.example. a_b-c.example:81 x: 127.0.0.1:80 [::1] [2001:DB8::1]:65535 1.2.3".split(' ') {
            assert_eq!(whole(format!("GET / HTTP/1.1\r\nHost:\t{host} \r\n\r\n").as_bytes()).host, Some(host));
        }
        let strange = "|a b|a\tb|a@b|a/b|a,b|a;b|a'b|a\"b|<a>|a?b|a#b|a\\b|a%41|\u{e9}|http://x";
        let labels = "|.|..|.a|a..b|[::1|::1|[::1]a|[::1]80|[x]|[]|[127.0.0.1]|[fe80::1%1]|x]";
        let ports = "|:80|a:b|a:80:80|a:+80|a:-1|a:65536";
        for host in [strange, labels, ports].iter().flat_map(|hosts| hosts.split('|')) {
            let bytes = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes();
            assert_eq!(read_default(&bytes), Head::Wrong(Status::BadRequest), "{host}");
        }
        let bytes = b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n";
        assert_eq!(read_default(bytes), Head::Wrong(Status::BadRequest));
    }

    #[test]
    fn what_cannot_begin_a_request_is_refused_at_once() {
        for byte in 0..=255u8 {
            let begins = byte == b'\r' || byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(&byte);
            let expected = if begins { Head::Unfinished } else { Head::Wrong(Status::BadRequest) };
            assert_eq!(read_default(&[byte]), expected, "{byte:#x}");
            assert_eq!(read_default(&[b'\r', b'\n', byte]), expected, "{byte:#x} behind an empty line");
        }
    }

    #[test]
    fn the_first_line_is_read() {
        for (line, method, path, host) in [
            ("GET / HTTP/1.1", Method::Get, "/", "x"),
            ("HEAD /a/b?c?d HTTP/1.1", Method::Head, "/a/b", "x"),
            ("GET /?http://y/ HTTP/1.1", Method::Get, "/", "x"),
            ("GET //y/a HTTP/1.1", Method::Get, "//y/a", "x"),
            ("GET /%2e%2E/|\"{} HTTP/1.1", Method::Get, "/%2e%2E/|\"{}", "x"),
            ("get / HTTP/1.1", Method::Other, "/", "x"),
            ("POST /a HTTP/1.1", Method::Other, "/a", "x"),
            ("OPTIONS * HTTP/1.1", Method::Other, "*", "x"),
            ("CONNECT y:443 HTTP/1.1", Method::Other, "y:443", "y:443"),
            ("GET http://y HTTP/1.1", Method::Get, "/", "y"),
            ("GET http://y?a/b HTTP/1.1", Method::Get, "/", "y"),
            ("GET HTTPS://Y:81/a?b HTTP/1.1", Method::Get, "/a", "Y:81"),
            ("GET http://[::1]:81/ HTTP/1.1", Method::Get, "/", "[::1]:81"),
            ("GET /a HTTP/1.7", Method::Get, "/a", "x"),
            ("GET /a HTTP/1.0", Method::Get, "/a", "x"),
        ] {
            let bytes = format!("\r\n\r\n{line}\r\nHost: x\r\n\r\n").into_bytes();
            let request = whole(&bytes);
            assert_eq!((request.method, request.path, request.host), (method, path, Some(host)), "{line}");
        }
        assert_eq!(whole(b"GET / HTTP/1.0\r\n\r\n").host, None);
        for line in ["GET / HTTP/0.9", "GET / HTTP/2.0", "GET / HTTP/3.1", "PRI * HTTP/2.0"] {
            let bytes = format!("{line}\r\n").into_bytes();
            assert_eq!(read_default(&bytes), Head::Wrong(Status::VersionNotSupported), "{line}");
        }
    }

    #[test]
    fn a_connection_stays_unless_a_body_or_somebody_says_otherwise() {
        for (lines, expected) in [
            ("", true),
            ("Connection: keep-alive\r\n", true),
            ("Connection: closed\r\n", true),
            ("Connection: close\r\n", false),
            ("Connection: keep-alive\r\nConnection: x ,\tCLOSE\r\n", false),
            ("Content-Length: 0\r\n", true),
            ("Content-Length: 000\r\n", true),
            ("Content-Length: 1\r\n", false),
            ("Content-Length:18446744073709551615\r\n", false),
            ("Transfer-Encoding: Chunked\r\n", false),
            ("Expect: 100-continue\r\nContent-Length: 7\r\n", false),
            ("A: gr\u{fc}n\tb\r\nC:\r\n", true),
        ] {
            assert_eq!(whole(&get(lines)).keep_alive, expected, "{lines}");
        }
        assert!(!whole(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").keep_alive);
        assert!(whole(b"GET / HTTP/1.9\r\nHost: x\r\n\r\n").keep_alive);
    }

    #[test]
    fn handshakes_are_judged() {
        let (connection, upgrade) = ("Connection: Upgrade\r\n", "Upgrade: websocket\r\n");
        let version = "Sec-WebSocket-Version: 13\r\n";
        let key = &format!("Sec-WebSocket-Key: {KEY}\r\n")[..];
        let good = Upgrade::WebSocket { key: KEY };
        for (lines, expected) in [
            (&[connection, upgrade, version, key][..], good),
            (&[key, version, upgrade, connection], good),
            (&["connection: keep-alive , UPGRADE\r\n", "UPGRADE: h2c, WebSocket\r\n", version, key], good),
            (&["Connection: a\r\n", connection, "Upgrade: b\r\n", upgrade, version, key], good),
            (&[connection, upgrade, version, key, "Content-Length: 0\r\n"], good),
            (&[], Upgrade::None),
            (&[upgrade, version, key], Upgrade::None),
            (&[connection, version, key], Upgrade::None),
            (&["Connection: close\r\n", upgrade, version, key], Upgrade::None),
            (&["Connection: upgrades\r\n", upgrade, version, key], Upgrade::None),
            (&[connection, "Upgrade: h2c\r\n", version, key], Upgrade::None),
            (&[connection, upgrade, key], Upgrade::WrongVersion),
            (&[connection, upgrade, "Sec-WebSocket-Version: 8\r\n", key], Upgrade::WrongVersion),
            (&[connection, upgrade, "Sec-WebSocket-Version: 13, 8\r\n", key], Upgrade::WrongVersion),
            (&[connection, upgrade, version, version, key], Upgrade::Malformed),
            (&[connection, upgrade, version], Upgrade::Malformed),
            (&[connection, upgrade, version, key, key], Upgrade::Malformed),
            (&[connection, upgrade, version, key, "Content-Length: 1\r\n"], Upgrade::Malformed),
            (&[connection, upgrade, version, key, "Transfer-Encoding: chunked\r\n"], Upgrade::Malformed),
        ] {
            let lines = lines.concat();
            assert_eq!(whole(&get(&lines)).upgrade, expected, "{lines}");
        }
        for (key, is_good) in [
            ("AAAAAAAAAAAAAAAAAAAAAA==", true),
            ("+/+/+/+/+/+/+/+/+/+/+w==", true),
            ("", false),
            ("AAAAAAAAAAAAAAAAAAAAAAA=", false),
            ("AAAAAAAAAAAAAAAAAAAAAAAA", false),
            ("AAAAAAAAAAAAAAAAAAAAAA", false),
            ("AAAAAAAAAAAAAAAAAAAA", false),
            ("AAAAAAAAAAAAAAAAAAAAAAAAAA==", false),
            ("-_-_-_-_-_-_-_-_-_-_-w==", false),
            ("AAAAAAAAAAA AAAAAAAAAA==", false),
            ("\u{e9}AAAAAAAAAAAAAAAAAAAA==", false),
        ] {
            let bytes = get(&format!("{connection}{upgrade}{version}Sec-WebSocket-Key:{key}\r\n"));
            let expected = if is_good { Upgrade::WebSocket { key } } else { Upgrade::Malformed };
            assert_eq!(whole(&bytes).upgrade, expected, "{key}");
        }
        for line in ["HEAD / HTTP/1.1", "POST / HTTP/1.1", "GET / HTTP/1.0"] {
            let bytes = format!("{line}\r\nHost: x\r\n{connection}{upgrade}{version}{key}\r\n").into_bytes();
            assert_eq!(whole(&bytes).upgrade, Upgrade::None, "{line}");
        }
    }

    #[test]
    fn a_good_head_is_unfinished_until_it_is_whole() {
        let handshake = format!("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\n");
        let bytes =
            [b"\r\n", &get(&format!("Origin: http://x\r\n{handshake}Sec-WebSocket-Version: 13\r\n"))[..]].concat();
        let expected = Request {
            method: Method::Get,
            path: "/",
            host: Some("x"),
            origin: Some("http://x"),
            keep_alive: true,
            upgrade: Upgrade::WebSocket { key: KEY },
        };
        let head = Head::Whole { request: expected, used: bytes.len() };
        let more = [&bytes[..], b"GET \x16\0\n"].concat();
        assert_eq!(known_after(&more, MAX_BYTES, MAX_HEADERS), (head, bytes.len()));
        assert_eq!(known_after(&more, bytes.len(), 6), (head, bytes.len()), "both limits are exact");
    }

    #[test]
    fn the_limits_are_exact_whether_the_head_ends_or_not() {
        let bytes = get("A: b\r\nC: d\r\n");
        let too_large = Head::Wrong(Status::HeadTooLarge);
        for max_bytes in 0..bytes.len() {
            assert_eq!(known_after(&bytes, max_bytes, 3), (too_large, max_bytes));
        }
        let third = bytes.len() - 2;
        assert_eq!(known_after(&bytes, MAX_BYTES, 2), (too_large, third));
        assert_eq!(known_after(&bytes, MAX_BYTES, 0), (too_large, 25));
        assert!(matches!(read_head(&bytes, bytes.len(), 3), Head::Whole { .. }));
        let drip = |piece: &str| [&bytes[..25], &piece.repeat(MAX_BYTES).into_bytes()].concat();
        assert_eq!(known_after(&drip("A")[..MAX_BYTES + 9], MAX_BYTES, MAX_HEADERS), (too_large, MAX_BYTES));
        assert_eq!(
            known_after(&drip("A: b\r\n")[..MAX_BYTES], MAX_BYTES, MAX_HEADERS),
            (too_large, 25 + 100 * 6),
            "Host is the first"
        );
        assert_eq!(read_default(&b"\r\n".repeat(MAX_BYTES)), too_large);
        assert_eq!(read_default(&b"A".repeat(MAX_BYTES)), too_large);
    }

    /// Numbers that are the same in every run: xorshift64.
    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % limit as u64) as usize
        }
    }

    #[test]
    fn random_heads_do_no_harm_and_another_parser_agrees() {
        let lines: [&[u8]; 22] = [
            b"GET / HTTP/1.1\r\n",
            b"GET /a?b HTTP/1.0\r\n",
            b"HEAD http://x/ HTTP/1.1\r\n",
            b"Host: x\r\n",
            b"Host: y:1\r\n",
            b"Origin: null\r\n",
            b"Content-Length: 1\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Connection: close, upgrade\r\n",
            b"Upgrade: websocket\r\n",
            b"Sec-WebSocket-Version: 13\r\n",
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            b"A: \xe9\r\n",
            b" b\r\n",
            b"\r\n",
            b"\r\n",
            b"\n",
            b":",
            b" ",
            b"\0",
            b"\x16\x03\x01\x02",
            b"\xff",
        ];
        let (mut random, mut whole, mut wrong, mut unfinished) = (Random(7), 0, 0, 0);
        for _ in 0..20_000 {
            let mut bytes = Vec::new();
            if random.below(4) > 0 {
                bytes.extend_from_slice(lines[random.below(3)]);
                bytes.extend_from_slice(lines[3]);
            }
            for _ in 0..random.below(6) {
                bytes.extend_from_slice(lines[random.below(lines.len())]);
            }
            bytes.extend_from_slice(b"\r\n");
            for _ in 0..random.below(3) {
                let (at, byte) = (random.below(bytes.len()), random.below(256) as u8);
                match random.below(3) {
                    0 => bytes[at] = byte,
                    1 => bytes.insert(at, byte),
                    _ => bytes.truncate(at + 1),
                }
            }
            match known_after(&bytes, 160, 5).0 {
                Head::Whole { request, used } => {
                    whole += 1;
                    agrees(&bytes, &request, used);
                }
                Head::Wrong(_) => wrong += 1,
                Head::Unfinished => unfinished += 1,
            }
        }
        assert!(whole > 2000 && wrong > 2000 && unfinished > 500, "{whole} {wrong} {unfinished}");
    }

    /// What we take, `httparse` must take, and in the same way: it is more lenient, but many believe what it says.
    fn agrees(bytes: &[u8], request: &Request<'_>, used: usize) {
        let mut headers = [httparse::EMPTY_HEADER; 5];
        let mut other = httparse::Request::new(&mut headers);
        let shown = bytes.escape_ascii();
        match other.parse(bytes) {
            Ok(status) => assert_eq!(status, httparse::Status::Complete(used), "{shown}"),
            // It knows no later minor versions.
            Err(httparse::Error::Version) => return assert!(!bytes.windows(3).any(|three| three == b"1.1"), "{shown}"),
            Err(error) => panic!("{shown}: {error}"),
        }
        let method = match other.method.unwrap() {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            _ => Method::Other,
        };
        assert_eq!(method, request.method, "{shown}");
        if other.path.unwrap().starts_with('/') {
            assert_eq!(other.path.unwrap().split('?').next(), Some(request.path), "{shown}");
            let host = other.headers.iter().find(|header| header.name.eq_ignore_ascii_case("host"));
            assert_eq!(host.map(|header| header.value), request.host.map(str::as_bytes), "{shown}");
        }
    }

    #[test]
    fn random_bytes_do_no_harm() {
        let mut random = Random(11);
        for round in 0..5000 {
            let len = random.below(60);
            // Every second time from what heads are made of, so that it gets further than the first byte.
            let byte = |random: &mut Random| match round % 2 {
                0 => random.below(256) as u8,
                _ => b"GET / HTTP/1.10:\r\n\r\n a[]@,\t\0\xff"[random.below(29)],
            };
            let bytes: Vec<u8> = (0..len).map(|_| byte(&mut random)).collect();
            known_after(&bytes, 50, 3);
            if let Ok(text) = str::from_utf8(&bytes) {
                let _ = (crate::wire::origin::origin(text), nonce(text.as_bytes()), Authority::read(text));
            }
        }
    }

    #[test]
    fn responses_are_written() {
        let mut response = Response {
            status: Status::Ok,
            content_type: "text/plain",
            headers: &[("A", "b"), ("C", "d")],
            body: b"hello",
            close: false,
            head_only: false,
        };
        let written = |response: &Response<'_>| {
            let mut out = Queue::default();
            response.write(&mut out);
            String::from_utf8(out.as_slice().to_vec()).unwrap()
        };
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\nA: b\r\nC: d\r\n\
                    X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n";
        assert_eq!(written(&response), format!("{head}\r\nhello"));
        response.head_only = true;
        assert_eq!(written(&response), format!("{head}\r\n"));
        response.close = true;
        assert_eq!(written(&response), format!("{head}Connection: close\r\n\r\n"));

        let mut out = Queue::default();
        write_switch(KEY, &mut out);
        let expected = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        assert_eq!(out.as_slice(), expected);
        assert_eq!((Status::HeadTooLarge.code(), Status::Misdirected.reason()), (431, "Misdirected Request"));
    }
}
