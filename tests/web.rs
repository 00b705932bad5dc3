//! HTTP as browsers, monitors and attackers meet it, with the real program on real sockets: what is answered, what is refused,
//! and that the server says how it is when it is full and while it stops.

#![cfg(feature = "web")]

mod common;

use common::{Answer, Client, Pump, Server, not_run, oneloop, oneloop_with_ulimit, run, until, within_patience};
use data_encoding::BASE64;
use oneloop::close::Close;
use oneloop::limits::Limits;
use oneloop::metrics::report::Vitals;
use oneloop::net::mio::{MioNet, listen};
use oneloop::protocol::web::Desk;
use oneloop::reactor::{Ended, Reactor};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

const MIB: usize = 1024 * 1024;
const HEALTHZ: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// The service `web` and others, each on a free port.
fn services(names: &[&str], more: &[&str]) -> Server {
    let mut args = Vec::new();
    for (name, flag) in [("echo", "--echo"), ("chat", "--chat"), ("udp", "--udp"), ("web", "--web")] {
        args.extend([flag, if names.contains(&name) { "127.0.0.1:0" } else { "off" }]);
    }
    Server::start(names.len(), &[&args[..], more].concat())
}

fn web(server: &Server) -> Client {
    Client::connect(server.at("web"))
}

/// The answer to `bytes`, sent on a connection of their own, and whether the server ends it with that.
fn asked(server: &Server, bytes: impl AsRef<[u8]>) -> (Answer, bool) {
    let mut client = web(server);
    client.send(bytes);
    let answer = client.answer();
    let closes = answer.header("Connection") == Some("close");
    if closes {
        assert_eq!(client.rest(), b"", "nothing follows the last answer");
    } else {
        assert_eq!(client.get("/healthz").text(), "ok\n", "another request may follow");
    }
    (answer, closes)
}

fn request(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\n{headers}\r\n")
}

fn handshake(path: &str, headers: &str) -> String {
    let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n";
    request(path, &format!("{headers}{upgrade}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"))
}

/// Sends one message of a WebSocket, unless it is too long for this, and expects it back.
fn echoes(client: &mut Client, text: &str) {
    // Masked with zeros.
    client.send([&[0x81, 0x80 | text.len() as u8, 0, 0, 0, 0], text.as_bytes()].concat());
    assert_eq!(client.take(2 + text.len()), [&[0x81, text.len() as u8], text.as_bytes()].concat());
}

// What is answered.

#[test]
fn each_resource_is_what_it_says() {
    let server = Server::web(&[]);
    for (path, status, content_type, begins) in [
        ("/", 200, "text/html; charset=utf-8", "<"),
        ("/status", 200, "text/html; charset=utf-8", "<"),
        ("/healthz", 200, "text/plain; charset=utf-8", "ok\n"),
        ("/metrics", 200, "text/plain; version=0.0.4; charset=utf-8", "# HELP oneloop_"),
        ("/?query", 200, "text/html; charset=utf-8", "<"),
        ("/healthz?x=/chat", 200, "text/plain; charset=utf-8", "ok\n"),
        ("/nothing", 404, "text/plain; charset=utf-8", "not here"),
        ("/healthz/", 404, "text/plain; charset=utf-8", "not here"),
        ("//", 404, "text/plain; charset=utf-8", "not here"),
        ("/../healthz", 404, "text/plain; charset=utf-8", "not here"),
        ("/%68ealthz", 404, "text/plain; charset=utf-8", "not here"),
        ("/chat", 426, "text/plain; charset=utf-8", "a WebSocket"),
        ("/echo", 426, "text/plain; charset=utf-8", "a WebSocket"),
    ] {
        let (answer, closes) = match path {
            "/chat" | "/echo" => {
                let mut client = web(&server);
                let answer = client.get(path);
                assert_eq!(client.get("/healthz").status, 200);
                (answer, false)
            }
            _ => asked(&server, request(path, "Host: localhost\r\n")),
        };
        assert_eq!(
            (answer.status, answer.header("Content-Type"), closes),
            (status, Some(content_type), false),
            "{path}"
        );
        assert!(answer.text().starts_with(begins), "{path}: {}", answer.text());
        assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("Cache-Control"), Some("no-store"), "{path}");
    }
}

#[test]
fn methods_versions_and_bodies_are_told_apart() {
    let server = Server::web(&[]);
    let host = "Host: localhost\r\n";
    for (request, status, closes) in [
        (format!("POST / HTTP/1.1\r\n{host}\r\n"), 405, false),
        (format!("DELETE /metrics HTTP/1.1\r\n{host}\r\n"), 405, false),
        (format!("get / HTTP/1.1\r\n{host}\r\n"), 405, false),
        (format!("POST /nothing HTTP/1.1\r\n{host}\r\n"), 404, false),
        (format!("OPTIONS * HTTP/1.1\r\n{host}\r\n"), 404, false),
        (format!("CONNECT localhost:80 HTTP/1.1\r\n{host}\r\n"), 404, false),
        // Bodies that nobody reads.
        (format!("POST / HTTP/1.1\r\n{host}Content-Length: 5\r\n\r\nhello{HEALTHZ}"), 405, true),
        (format!("GET /healthz HTTP/1.1\r\n{host}Content-Length: 5\r\n\r\nhello{HEALTHZ}"), 200, true),
        (format!("GET /healthz HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{HEALTHZ}"), 200, true),
        (format!("GET /healthz HTTP/1.1\r\n{host}Content-Length: 0\r\n\r\n"), 200, false),
        // Nobody is asked to go on.
        (format!("GET /healthz HTTP/1.1\r\n{host}Expect: 100-continue\r\n\r\n"), 200, false),
        (format!("POST / HTTP/1.1\r\n{host}Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"), 405, true),
        // Connections.
        (format!("GET /healthz HTTP/1.1\r\n{host}Connection: close\r\n\r\n{HEALTHZ}"), 200, true),
        (format!("GET /healthz HTTP/1.1\r\n{host}Connection: x, CLOSE\r\n\r\n{HEALTHZ}"), 200, true),
        (format!("GET /healthz HTTP/1.1\r\n{host}Connection: keep-alive\r\n\r\n"), 200, false),
        (format!("GET /healthz HTTP/1.0\r\n{host}\r\n{HEALTHZ}"), 200, true),
        ("GET /healthz HTTP/1.0\r\n\r\n".to_string(), 200, true),
        ("GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".to_string(), 200, true),
        // Versions.
        (format!("GET /healthz HTTP/1.2\r\n{host}\r\n"), 200, false),
        (format!("GET /healthz HTTP/2.0\r\n{host}\r\n"), 505, true),
        (format!("GET /healthz HTTP/0.9\r\n{host}\r\n"), 505, true),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_string(), 505, true),
        // Other forms of the same.
        ("GET http://localhost/healthz HTTP/1.1\r\nHost: x\r\n\r\n".to_string(), 200, false),
        (format!("\r\nGET /healthz HTTP/1.1\r\n{host}\r\n"), 200, false),
        ("GET /healthz HTTP/1.1\r\nhOST:localhost\t \r\n\r\n".to_string(), 200, false),
    ] {
        let (answer, closed) = asked(&server, &request);
        assert_eq!((answer.status, closed), (status, closes), "{request:?}: {answer:?}");
        assert_eq!(answer.header("Allow"), (status == 405).then_some("GET, HEAD"), "{request:?}");
    }
}

#[test]
fn head_is_get_without_the_body() {
    let server = Server::web(&[]);
    for path in ["/", "/status", "/healthz", "/nothing", "/echo"] {
        let mut client = web(&server);
        let whole = client.get(path);
        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n{HEALTHZ}"));
        let head = client.answer_head();
        assert_eq!((head.status, &head.headers), (whole.status, &whole.headers), "{path}");
        assert_eq!(head.header("Content-Length"), Some(whole.body.len().to_string().as_str()), "{path}");
        // What follows is the next answer and no body.
        assert_eq!(client.answer().text(), "ok\n", "{path}");
    }
}

#[test]
fn a_hundred_requests_in_one_segment_are_answered_in_order() {
    let server = Server::web(&[]);
    let paths = ["/", "/healthz", "/nothing", "/status", "/healthz?again"];
    let alone = paths.map(|path| web(&server).get(path));
    let all: String = (0..100).map(|number| request(paths[number % 5], "Host: localhost\r\n")).collect();
    for pieces in [1, all.len() / 3, all.len()] {
        let mut client = web(&server);
        all.as_bytes().chunks(all.len().div_ceil(pieces)).for_each(|piece| client.send(piece));
        for number in 0..100 {
            let answer = client.answer();
            let expected = &alone[number % 5];
            assert!(
                answer.status == expected.status && answer.body == expected.body,
                "answer {number} of {pieces} pieces"
            );
        }
        assert_eq!(client.get("/healthz").text(), "ok\n");
    }
}

#[test]
fn whoever_asks_for_much_and_does_not_read_is_not_read_and_has_every_answer() {
    const REQUESTS: usize = 20_000;
    let server = Server::web(&["--write-timeout", "1m"]);
    let length = web(&server).get("/metrics").body.len();
    let mut client = web(&server);
    let before = server.process.memory().0;
    let mut out = client.stream().try_clone().expect("a second handle");
    let writer = thread::spawn(move || {
        for _ in 0..REQUESTS / 100 {
            out.write_all(request("/metrics", "Host: localhost\r\n").repeat(100).as_bytes())
                .expect("the server takes it");
        }
    });
    until("the answers to pile up", || server.metric("oneloop_queued_bytes") > 64 * 1024);
    for number in 0..REQUESTS {
        let answer = client.answer();
        assert!(answer.status == 200 && answer.body.len().abs_diff(length) < 500, "answer {number}");
    }
    writer.join().expect("all sent");
    let grown = server.process.memory().1.saturating_sub(before);
    assert!(grown < 2 * MIB, "{grown} bytes more");
}

#[test]
fn half_a_request_at_the_end_is_no_request() {
    let server = Server::web(&[]);
    let mut client = web(&server);
    client.send(format!("{HEALTHZ}GET /healthz HTTP/1.1\r\nHost: loc"));
    client.end();
    assert_eq!(client.answer().text(), "ok\n");
    assert_eq!(client.rest(), b"");
    // A whole one is answered, however soon the end comes.
    let mut client = web(&server);
    client.send(HEALTHZ);
    client.end();
    assert_eq!(client.answer().text(), "ok\n");
    assert_eq!(client.rest(), b"");
}

// What is refused.

#[test]
fn what_two_readers_could_read_in_two_ways_is_refused_and_nothing_after_it_is_read() {
    let server = Server::web(&[]);
    let get = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n";
    let post = "POST /healthz HTTP/1.1\r\nHost: localhost\r\n";
    for request in [
        format!("{post}Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
        format!("{post}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
        format!("{post}Content-Length: 5, 5\r\n\r\nhello"),
        format!("{post}Content-Length: +5\r\n\r\nhello"),
        format!("{post}Content-Length: 99999999999999999999\r\n\r\nhello"),
        format!("{post}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("{post}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
        format!("{post}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        format!("{post}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
        format!("{post}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("{post}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
        "POST /healthz HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_string(),
        format!("{get}Content-Length : 5\r\n\r\nhello"),
        format!("{get}A: b\n\r\n"),
        "GET /healthz HTTP/1.1\nHost: localhost\n\n".to_string(),
        format!("{get}\n"),
        format!("{get}A: b\r\n c\r\n\r\n"),
        format!("{get}A: b\r\n\tc\r\n\r\n"),
        format!("{get} A: b\r\n\r\n"),
        format!("{get}A: b\rC: d\r\n\r\n"),
        format!("{get}A: b\0c\r\n\r\n"),
        format!("{get}: b\r\n\r\n"),
        format!("{get}no colon\r\n\r\n"),
        format!("{get}Host: localhost\r\n\r\n"),
        format!("{get}Host: other\r\n\r\n"),
        "GET /healthz HTTP/1.1\r\n\r\n".to_string(),
        "GET /healthz HTTP/1.1\r\nHost: a b\r\n\r\n".to_string(),
        "GET /healthz HTTP/1.1\r\nHost: localhost, x\r\n\r\n".to_string(),
        "GET /healthz HTTP/1.1\r\nHost: user@localhost\r\n\r\n".to_string(),
        "GET /healthz HTTP/1.1\r\nHost: localhost:99999\r\n\r\n".to_string(),
        "GET  /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".to_string(),
        "GET /healthz\r\n\r\n".to_string(),
        "GET /a b HTTP/1.1\r\nHost: localhost\r\n\r\n".to_string(),
        "GET healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".to_string(),
        "GET /healthz http/1.1\r\nHost: localhost\r\n\r\n".to_string(),
        "GET /\u{e9} HTTP/1.1\r\nHost: localhost\r\n\r\n".to_string(),
        "\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03".to_string(),
        "hello\n".to_string(),
    ] {
        // Behind a good one, and before a good one, which must not be answered any more.
        let mut client = web(&server);
        client.send(format!("{HEALTHZ}{request}{HEALTHZ}{HEALTHZ}"));
        assert_eq!(client.answer().text(), "ok\n");
        let answer = client.answer();
        assert_eq!((answer.status, answer.header("Connection")), (400, Some("close")), "{request:?}");
        assert_eq!(client.rest(), b"", "{request:?} and then a second answer");
    }
    until("all of them to be gone", || server.metric("oneloop_closes_total{reason=\"protocol\"}") == 38);
}

#[test]
fn a_head_that_is_too_large_or_never_ends_is_refused_and_costs_nothing() {
    let server = Server::web(&[]);
    let begin = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n";
    let of_bytes = |bytes: usize| format!("{begin}A: {}\r\n\r\n", "x".repeat(bytes - begin.len() - 7));
    let of_lines = |lines: usize| format!("{begin}{}\r\n", "A: b\r\n".repeat(lines - 1));
    assert_eq!(of_bytes(8192).len(), 8192);
    for good in [of_bytes(8192), of_lines(100)] {
        assert_eq!(asked(&server, good).0.text(), "ok\n");
    }
    let before = server.process.memory().1;
    for large in [
        of_bytes(8193),
        of_bytes(64 * 1024),
        of_lines(101),
        of_lines(200),
        // Without an end.
        format!("{begin}A: {}", "x".repeat(100_000)),
        format!("{begin}{}", "A: b\r\n".repeat(100_000)),
        format!("GET /{}", "x".repeat(100_000)),
        "x".repeat(8192),
        "\r\n".repeat(4096),
    ] {
        for pieces in [1, 1000] {
            let mut client = web(&server);
            for piece in large.as_bytes().chunks(large.len().div_ceil(pieces)) {
                client.send(piece);
            }
            let answer = client.answer();
            assert_eq!((answer.status, answer.header("Connection")), (431, Some("close")), "{:?}", &large[..20]);
            assert_eq!(answer.text(), "too_long: head longer than 8192 bytes or of more than 100 lines\n");
            assert_eq!(client.rest(), b"");
        }
    }
    let grown = server.process.memory().1 - before;
    assert!(grown < MIB / 2, "{grown} bytes more");
    until("all of them to be gone", || server.metric("oneloop_closes_total{reason=\"too_long\"}") == 18);
}

#[test]
fn a_page_of_another_site_may_not_come_in() {
    let server = Server::web(&[]);
    let port = server.at("web").port();
    let asks = |path: &str, host: &str, origin: &str| {
        let headers = format!("Host: {host}\r\nOrigin: {origin}\r\n");
        let upgrade = matches!(path, "/chat" | "/echo");
        let bytes = if upgrade { handshake(path, &headers) } else { request(path, &headers) };
        let mut client = web(&server);
        client.send(bytes);
        let answer = client.answer();
        if answer.status == 101 && path == "/echo" {
            echoes(&mut client, "let in");
        }
        (answer.status, upgrade)
    };
    for path in ["/", "/status", "/healthz", "/metrics", "/chat", "/echo", "/nothing"] {
        for (host, origin) in [
            ("localhost", "https://evil.example"),
            ("localhost", "null"),
            ("localhost", "http://localhost.evil.example"),
            ("localhost", "http://localhost:81"),
            ("localhost:81", "http://localhost"),
            ("127.0.0.1", "http://localhost"),
            ("localhost", "http://localhost/"),
            ("localhost", "http://localhost http://localhost"),
            ("localhost", "file://"),
            ("localhost", "localhost"),
            ("localhost", ""),
        ] {
            assert_eq!(asks(path, host, origin).0, 403, "{path} for {origin} at {host}");
        }
        for (host, origin) in [
            (format!("localhost:{port}"), format!("http://localhost:{port}")),
            (format!("LOCALHOST:{port}"), format!("HTTP://localhost:{port}")),
            (format!("127.0.0.1:{port}"), format!("http://127.0.0.1:{port}")),
            (format!("[::1]:{port}"), format!("http://[::1]:{port}")),
            ("localhost".to_string(), "http://localhost".to_string()),
            ("localhost".to_string(), "https://localhost".to_string()), // behind something that takes off the TLS
        ] {
            let (status, upgrade) = asks(path, &host, &origin);
            let expected = if upgrade {
                101
            } else if path == "/nothing" {
                404
            } else {
                200
            };
            assert_eq!(status, expected, "{path} for {origin} at {host}");
        }
    }
    // Refused is a request, not a connection.
    let mut client = web(&server);
    client.send(request("/", "Host: localhost\r\nOrigin: https://evil.example\r\n"));
    let answer = client.answer();
    assert!(answer.status == 403 && answer.text().contains("--allow-origin"), "{answer:?}");
    assert_eq!(client.get("/healthz").status, 200);
}

#[test]
fn a_name_that_was_led_to_a_loopback_listener_is_not_served() {
    let server = Server::web(&[]);
    let port = server.at("web").port();
    let status = |server: &Server, host: &str| {
        let mut client = Client::connect((std::net::Ipv4Addr::LOCALHOST, server.at("web").port()).into());
        client.send(request("/", &format!("Host: {host}\r\n")));
        client.answer().status
    };
    for host in [
        "evil.example",
        &format!("evil.example:{port}"),
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "notlocalhost",
        "evil.example.",
        "localhost.localdomain",
    ] {
        assert_eq!(status(&server, host), 421, "{host}");
        // Its own page is no better, and neither is a WebSocket, nor a target that names it.
        let headers = format!("Host: {host}\r\nOrigin: http://{host}\r\n");
        for path in ["/", "/metrics", "/healthz", "/chat", "/echo"] {
            assert_eq!(asked(&server, handshake(path, &headers)).0.status, 421, "{path} at {host}");
        }
        let named = format!("GET http://{host}/ HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(asked(&server, named).0.status, 421, "{host}");
    }
    for host in [
        "localhost",
        &format!("localhost:{port}"),
        &format!("127.0.0.1:{port}"),
        "127.0.0.1",
        "[::1]",
        &format!("[::1]:{port}"),
        "LocalHost.",
        "a.localhost",
        "192.0.2.1",
    ] {
        assert_eq!(status(&server, host), 200, "{host}");
    }
    // A listener for everybody has any name.
    let server = Server::start(1, &["--echo", "off", "--udp", "off", "--web", ":0"]);
    for host in ["evil.example", "localhost", "chat.example.org:81"] {
        assert_eq!(status(&server, host), 200, "{host}");
    }
    // But a page of another site is another site there, too.
    let mut client = Client::connect((std::net::Ipv4Addr::LOCALHOST, server.at("web").port()).into());
    client.send(request("/", "Host: chat.example.org\r\nOrigin: https://evil.example\r\n"));
    assert_eq!(client.answer().status, 403);
    client.send(request("/", "Host: chat.example.org\r\nOrigin: https://chat.example.org\r\n"));
    assert_eq!(client.answer().status, 200);
}

#[test]
fn an_origin_that_is_allowed_comes_in_and_its_host_is_a_name_of_ours() {
    let server =
        Server::web(&["--allow-origin", "https://chat.example.org", "--allow-origin", "http://b.example:8080"]);
    for (host, origin, status) in [
        ("localhost", "https://chat.example.org", 101),
        ("localhost", "https://CHAT.example.org:443", 101),
        ("localhost", "http://b.example:8080", 101),
        ("chat.example.org", "https://chat.example.org", 101),
        ("b.example", "https://chat.example.org", 101),
        ("localhost", "http://chat.example.org", 403),
        ("localhost", "https://chat.example.org:8443", 403),
        ("localhost", "https://x.chat.example.org", 403),
        ("localhost", "http://b.example", 403),
        ("localhost", "null", 403),
        ("localhost", "https://evil.example", 403),
        ("chat.example.org", "https://evil.example", 403),
        ("evil.example", "https://chat.example.org", 421),
        ("x.chat.example.org", "https://chat.example.org", 421),
    ] {
        let mut client = web(&server);
        client.send(handshake("/echo", &format!("Host: {host}\r\nOrigin: {origin}\r\n")));
        assert_eq!(client.answer().status, status, "{origin} at {host}");
        if status == 101 {
            echoes(&mut client, "let in");
        }
    }
}

#[test]
fn an_origin_that_is_none_is_wrong_usage() {
    for origin in [
        "chat.example.org",
        "https://chat.example.org/",
        "https://",
        "null",
        "*",
        "",
        "ftp://a.example",
        "https://a.example https://b.example",
        "https://a.example:x",
        "https://user@a.example",
        "https://a b",
    ] {
        let ran =
            run(&mut oneloop(&["--echo", "off", "--udp", "off", "--web", "127.0.0.1:0", "--allow-origin", origin]));
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{origin}: {}", ran.stderr);
        assert_eq!(ran.stderr.matches('\n').count(), 1, "{origin}: {}", ran.stderr);
        assert!(ran.stderr.contains("--allow-origin") && ran.stderr.contains("http"), "{origin}: {}", ran.stderr);
    }
}

// Deadlines.

/// Instead of 10 s.
const HEAD_TIMEOUT: Duration = Duration::from_millis(500);

/// `web` with a short head timeout, in this process: the program has no flag for that. Serves until `clients` says that it
/// has done; it gets the address.
fn with_short_deadline(clients: impl FnOnce(SocketAddr) + Send + 'static) -> Reactor<MioNet> {
    let limits = Limits { head_timeout: HEAD_TIMEOUT, ..Limits::default() };
    let mut reactor = Reactor::new(MioNet::new(&limits).expect("a poll"), limits.clone());
    let listener = listen("127.0.0.1:0".parse().expect("an address"), &limits).expect("a free port");
    let local = listener.local_addr().expect("an address");
    let maker = Desk::new(&[], Vitals::default, local).maker();
    reactor.monitor("web", listener, maker).expect("it is watched");
    let (done, is_done) = mpsc::channel();
    let clients = thread::spawn(move || {
        let result = thread::spawn(move || clients(local)).join();
        done.send(()).expect("the loop goes on");
        drop(Client::connect(local)); // the turn that sees it is the last
        result
    });
    while is_done.try_recv().is_err() {
        assert_eq!(reactor.turn().expect("the poll works"), None);
    }
    if let Err(panic) = clients.join().expect("no panic") {
        std::panic::resume_unwind(panic);
    }
    reactor
}

/// Does it again and again until something comes.
fn drip(client: &mut Client, mut again: impl FnMut(&mut Client)) {
    let pace = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    // The pace itself is what is tested: every 20 ms.
    while poll(&mut [PollFd::new(client.stream(), PollFlags::IN)], Some(&pace)).expect("poll") == 0 {
        again(client);
    }
}

#[test]
fn a_head_that_drips_is_given_its_time_in_all_and_no_more() {
    within_patience(|| {
        with_short_deadline(|address| {
            for (begin, byte) in [("GET / HTTP/1.1\r\nHost: localhost\r\nA: ", "x"), ("", "G"), ("\r\n", "\r\n")] {
                let start = Instant::now();
                let mut client = Client::connect(address);
                client.send(begin);
                drip(&mut client, |client| client.send(byte));
                let answer = client.answer();
                assert_eq!((answer.status, answer.header("Connection")), (408, Some("close")), "{begin:?}");
                assert_eq!(answer.text(), "idle: no whole request within 500ms\n");
                assert!(start.elapsed() >= HEAD_TIMEOUT && start.elapsed() < 6 * HEAD_TIMEOUT, "{:?}", start.elapsed());
            }
            // An answer starts it anew: when another connection's time is over, this one's is not.
            let (mut asking, mut unused) = (Client::connect(address), Client::connect(address));
            drip(&mut unused, |_| assert_eq!(asking.get("/healthz").text(), "ok\n"));
            assert_eq!(unused.rest(), b"");
            asking.send("GET /healthz HTTP/1.1\r\nHost: loc");
            assert_eq!(asking.answer().status, 408);
        });
    });
}

#[test]
fn a_connection_that_is_not_used_is_closed_without_a_word_and_a_websocket_is_not() {
    within_patience(|| {
        let reactor = with_short_deadline(|address| {
            let mut socket = Client::connect(address);
            socket.send(handshake("/echo", "Host: localhost\r\n"));
            assert_eq!(socket.answer().status, 101);
            let start = Instant::now();
            assert_eq!(Client::connect(address).rest(), b"");
            let elapsed = start.elapsed();
            assert!(elapsed >= HEAD_TIMEOUT && elapsed < 6 * HEAD_TIMEOUT, "{elapsed:?}");
            // Nor is one more word said behind an answer.
            let mut client = Client::connect(address);
            assert_eq!(client.get("/healthz").text(), "ok\n");
            assert_eq!(client.rest(), b"");
            echoes(&mut socket, "still here");
        });
        assert!(reactor.metrics().closed(Close::RequestLate) >= 1);
    });
}

// Pages.

/// The texts between `<NAME ...>` and `</NAME>`.
fn elements<'a>(page: &'a str, name: &str) -> Vec<&'a str> {
    let (begin, end) = (format!("<{name}"), format!("</{name}>"));
    page.split(&begin)
        .skip(1)
        .map(|rest| {
            let (_, rest) = rest.split_once('>').expect("the tag's end");
            rest.split_once(&end).expect("the element's end").0
        })
        .collect()
}

#[test]
fn pages_are_one_file_that_loads_nothing_and_runs_only_what_is_in_it() {
    let server = Server::web(&[]);
    let mut wrong = Vec::new();
    for path in ["/", "/status"] {
        let answer = web(&server).get(path);
        let page = answer.text();
        assert_eq!((answer.status, answer.header("Content-Type")), (200, Some("text/html; charset=utf-8")), "{path}");
        assert_eq!(answer.header("Referrer-Policy"), Some("no-referrer"), "{path}");
        assert!(page.len() < 30_000, "{path} has {} bytes", page.len());
        let [scripts, styles] = ["script", "style"].map(|name| elements(&page, name));
        assert_eq!((scripts.len(), styles.len()), (1, 1), "{path}: one script and one style");
        // The policy lets exactly these run.
        let policy = answer.header("Content-Security-Policy").unwrap_or_else(|| panic!("{path} has no policy"));
        let hash = |text: &str| format!("'sha256-{}'", BASE64.encode(&Sha256::digest(text)));
        for (directive, text) in [("script-src", scripts[0]), ("style-src", styles[0])] {
            let found = policy.split("; ").find_map(|part| part.strip_prefix(directive)).unwrap_or_default().trim();
            if found != hash(text) {
                wrong.push(format!("{path}: {directive} must be {} and is {found}", hash(text)));
            }
        }
        for directive in [
            "default-src 'none'",
            "connect-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
        ] {
            assert!(policy.split("; ").any(|part| part == directive), "{path}: no {directive} in {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{path}: {policy}");
        // Nothing is loaded from elsewhere, and what it says is shown as text.
        for attribute in ["src=", "href=", "url(", "@import", "action=", "data="] {
            for rest in page.split(attribute).skip(1) {
                let target = rest.trim_start_matches(['"', '\'']);
                let stays =
                    ["data:", "#", "/"].iter().any(|begin| target.starts_with(begin)) && !target.starts_with("//");
                assert!(stays, "{path} refers to {attribute}{:?}", target.chars().take(60).collect::<String>());
            }
        }
        for way in
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "javascript:"]
        {
            assert!(!page.contains(way), "{path} uses {way}");
        }
        // The policy forbids what stands in attributes.
        let markup = page.replace(scripts[0], "").replace(styles[0], "");
        for tag in markup.split('<').skip(1).filter_map(|rest| rest.split('>').next()) {
            let mut names = tag.split_whitespace().skip(1).filter_map(|word| word.split('=').next());
            assert!(!names.any(|name| name == "style" || name.starts_with("on")), "{path}: <{tag}>");
        }
    }
    assert!(wrong.is_empty(), "the constants in src/protocol/web.rs:\n{}", wrong.join("\n"));
}

// Stopping.

#[test]
fn while_it_stops_it_says_so_to_whoever_asks_and_to_nobody_else() {
    let mut server = services(&["echo", "chat", "web"], &[]);
    let mut early = web(&server);
    assert_eq!(early.get("/healthz").text(), "ok\n");
    let (mut unused, mut begun) = (web(&server), web(&server));
    begun.send("GET /healthz HTTP/1.1\r\n");
    let mut socket = web(&server);
    socket.send(handshake("/echo", "Host: localhost\r\n"));
    assert_eq!(socket.answer().status, 101);
    echoes(&mut socket, "before");
    let mut pumps = Pump::echoes(1, server.at("echo"));
    Pump::press(&mut pumps); // owed much and taking nothing: it keeps the stop from ending
    server.process.signal(Signal::TERM);
    server.log.line("stopping");
    let refused = |error: std::io::Error| error.kind() == ErrorKind::ConnectionRefused;
    for service in ["echo", "chat"] {
        until("the listener to be closed", || TcpStream::connect(server.at(service)).is_err_and(refused));
    }
    // A WebSocket is told, and gone.
    assert_eq!(socket.rest(), b"\x88\x1c\x03\xe9shutdown: the server stops");
    // Those who were there before go on, and new ones may come.
    let mut fresh = web(&server);
    for client in [&mut early, &mut fresh] {
        for _ in 0..3 {
            let health = client.get("/healthz");
            assert_eq!((health.status, health.text().as_str()), (503, "draining\n"));
            assert_eq!(health.header("Connection"), None, "and it may ask again");
            let metrics = client.get("/metrics");
            assert_eq!(metrics.status, 200);
            assert!(metrics.text().contains("\noneloop_connections_open{service=\"echo\"} 1\n"));
        }
    }
    for path in ["/", "/status", "/nothing", "/chat", "/echo"] {
        for bytes in [request(path, "Host: localhost\r\n"), handshake(path, "Host: localhost\r\n")] {
            let mut client = web(&server);
            client.send(bytes);
            let answer = client.answer();
            assert_eq!((answer.status, answer.header("Connection")), (503, Some("close")), "{path}");
            assert_eq!(answer.text(), "shutdown: the server stops\n", "{path}");
            assert_eq!(client.rest(), b"", "{path}");
        }
    }
    // When the slow one has everything it ends, and so do they: without a word, or with one if they were asking.
    pumps[0].enough();
    Pump::run(&mut pumps, "the end", |pump| pump.ended);
    drop(pumps);
    assert_eq!([early.rest(), fresh.rest(), unused.rest()], [b"", b"", b""]);
    assert_eq!(begun.answer().status, 503);
    assert_eq!(begun.rest(), b"");
    assert_eq!(server.process.wait().code(), Some(0));
}

#[test]
fn with_nobody_but_those_who_ask_it_ends_soon() {
    let mut server = Server::web(&[]);
    let mut client = web(&server);
    assert_eq!(client.get("/healthz").text(), "ok\n");
    let start = Instant::now();
    server.process.signal(Signal::TERM);
    assert_eq!(client.rest(), b"");
    // It keeps its own side open.
    assert_eq!(server.process.wait().code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[test]
fn requests_that_wait_in_the_backlog_are_still_answered() {
    let mut server = Server::web(&[]);
    server.process.freeze();
    let mut clients: Vec<Client> = (0..100).map(|_| web(&server)).collect();
    clients.iter_mut().for_each(|client| client.send(request("/", "Host: localhost\r\n")));
    server.process.signal(Signal::TERM);
    server.process.thaw();
    for client in &mut clients {
        let status = client.answer().status;
        assert!(status == 200 || status == 503, "{status}");
        assert_eq!(client.rest(), b"");
    }
    drop(clients);
    assert_eq!(server.process.wait().code(), Some(0));
}

#[test]
fn for_the_drain_delay_everything_goes_on_but_a_balancer_is_told() {
    // Longer than the test: what ends it is the second signal.
    let mut server = services(&["echo", "chat", "udp", "web"], &["--drain-delay", "1h"]);
    let mut early = Client::connect(server.at("echo"));
    assert_eq!(early.ask("before"), "echo: before");
    server.process.signal(Signal::TERM);
    let line = server.log.line("draining");
    assert!(line.contains(" INFO "), "{line}");
    let health = web(&server).get("/healthz");
    assert_eq!((health.status, health.text().as_str()), (503, "draining\n"));
    // Old and new, everywhere.
    assert_eq!(early.ask("during"), "echo: during");
    assert_eq!(Client::connect(server.at("echo")).ask("new"), "echo: new");
    assert!(Client::connect(server.at("chat")).text().starts_with("WELCOME "));
    let datagram = common::udp_client(server.at("udp"));
    datagram.send(b"hi").expect("sent");
    assert_eq!(common::receive(&datagram), b"OK");
    for path in ["/", "/status", "/metrics"] {
        assert_eq!(web(&server).get(path).status, 200, "{path}");
    }
    let mut socket = web(&server);
    socket.send(handshake("/echo", "Host: localhost\r\n"));
    assert_eq!(socket.answer().status, 101);
    echoes(&mut socket, "during");
    server.process.signal(Signal::TERM);
    assert_eq!(server.process.wait().code(), Some(1));
}

#[test]
fn after_the_drain_delay_it_ends() {
    let mut server = services(&["echo", "web"], &["--drain-delay", "300ms"]);
    let mut client = Client::connect(server.at("echo"));
    assert_eq!(client.ask("before"), "echo: before");
    let start = Instant::now();
    server.process.signal(Signal::TERM);
    assert_eq!(client.rest_text(), "ERROR shutdown: the server stops\n");
    let elapsed = start.elapsed();
    assert!(elapsed >= Duration::from_millis(300), "it did not wait: {elapsed:?}");
    assert_eq!(server.process.wait().code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    let log = server.log.all();
    assert!(log.find("draining").is_some_and(|at| log[at..].contains("stopping")), "{log}");
}

#[test]
fn a_second_signal_ends_it_at_once_whoever_asks() {
    let mut server = services(&["echo", "web"], &[]);
    let mut pumps = Pump::echoes(1, server.at("echo"));
    Pump::press(&mut pumps);
    server.process.signal(Signal::TERM);
    server.log.line("stopping");
    assert_eq!(web(&server).get("/healthz").status, 503);
    let start = Instant::now();
    server.process.signal(Signal::TERM);
    assert_eq!(server.process.wait().code(), Some(1));
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[test]
fn a_stop_asked_of_the_library_ends_with_those_who_ask_last() {
    within_patience(|| {
        let limits = Limits::default();
        let mut reactor = Reactor::new(MioNet::new(&limits).expect("a poll"), limits.clone());
        let listener = listen("127.0.0.1:0".parse().expect("an address"), &limits).expect("a free port");
        let local = listener.local_addr().expect("an address");
        reactor.monitor("web", listener, Desk::new(&[], Vitals::default, local).maker()).expect("it is watched");
        let mut client = Client::connect(local);
        client.send(HEALTHZ);
        while reactor.metrics().messages == 0 {
            assert_eq!(reactor.turn().expect("the poll works"), None);
        }
        let client = thread::spawn(move || (client.answer().text(), client.rest()));
        reactor.stop();
        assert_eq!(reactor.run().expect("the poll works"), Ended::Drained);
        assert_eq!(client.join().expect("no panic"), ("ok\n".to_string(), Vec::new()));
        assert_eq!((reactor.metrics().closed_in_all(), reactor.metrics().spare_open), (1, 0));
    });
}

// At the limit.

#[test]
fn a_full_server_still_says_how_it_is() {
    let server = services(&["echo", "web"], &["--max-connections", "3"]);
    let mut served: Vec<Client> = (0..3).map(|_| Client::connect(server.at("echo"))).collect();
    for client in &mut served {
        assert_eq!(client.ask("in"), "echo: in");
    }
    let full = "full: 3 connections\n";
    for path in ["/", "/status", "/nothing", "/chat", "/echo"] {
        for bytes in [request(path, "Host: localhost\r\n"), handshake(path, "Host: localhost\r\n")] {
            let mut client = web(&server);
            client.send(bytes);
            let answer = client.answer();
            assert_eq!(
                (answer.status, answer.header("Connection"), answer.text().as_str()),
                (503, Some("close"), full)
            );
            assert_eq!(client.rest(), b"", "{path}");
        }
    }
    // Whoever asks is answered, and makes room for the next.
    for _ in 0..20 {
        for path in ["/healthz", "/metrics"] {
            let mut client = web(&server);
            let answer = client.get(path);
            assert_eq!((answer.status, answer.header("Connection")), (200, Some("close")));
            assert_eq!(client.rest(), b"");
        }
    }
    // Eight at once; the ninth is told without having asked. (They may not wait for long, so it may take a few attempts.)
    until("the ninth to be refused", || {
        let _eight: Vec<Client> = (0..8).map(|_| web(&server)).collect();
        let mut ninth = web(&server);
        let answer = ninth.get("/healthz");
        answer.status == 503 && answer.text() == full && ninth.rest() == b""
    });
    until("those to be gone", || web(&server).get("/healthz").text() == "ok\n");
    assert_eq!(Client::connect(server.at("echo")).rest_text(), "ERROR full: 3 connections\n");
    // All of that disturbed nobody, and whoever comes when there is room again is served.
    assert_eq!(served[0].ask("still in"), "echo: still in");
    drop(served.pop());
    until("a place to be free", || {
        let text = web(&server).get("/metrics").text();
        text.contains("\noneloop_connections_open{service=\"echo\"} 2\n")
    });
    assert_eq!(web(&server).get("/").status, 200);
}

#[test]
fn a_full_server_without_descriptors_still_says_how_it_is_during_a_storm() {
    let args = ["--echo", "127.0.0.1:0", "--udp", "off", "--web", "127.0.0.1:0"];
    let server = Server::launch(2, &mut oneloop_with_ulimit("-n 64", &args));
    // As many as the descriptors allow: 64 less the reserve.
    let mut served: Vec<Client> = (0..32).map(|_| Client::connect(server.at("echo"))).collect();
    for client in &mut served {
        assert_eq!(client.ask("in"), "echo: in");
    }
    let base = server.process.descriptors();
    // They stay as long as they are let, and are all there before those who ask.
    server.process.freeze();
    let mut storm: Vec<Client> = (0..200).map(|_| Client::connect(server.at("echo"))).collect();
    let mut asking: Vec<Client> = (0..4).map(|_| web(&server)).collect();
    for (client, path) in asking.iter_mut().zip(["/healthz", "/metrics", "/healthz", "/metrics"]) {
        client.send(request(path, "Host: localhost\r\n"));
    }
    server.process.thaw();
    for client in &mut asking {
        assert_eq!(client.answer().status, 200);
    }
    for client in &mut storm {
        assert_eq!(client.rest_text(), "ERROR full: 32 connections\n");
        if asking.len() < 8 {
            asking.push(web(&server)); // and while it goes on
            assert_eq!(asking.last_mut().expect("just pushed").get("/metrics").status, 200);
        }
    }
    assert_eq!(served[0].ask("still in"), "echo: still in");
    drop((asking, storm));
    until("the descriptors to be closed", || server.process.descriptors() == base);
    // Those who were refused left enough for those who ask.
    assert!(!server.log.so_far().contains("cannot accept"), "{}", server.log.so_far());
}

// Counters.

/// Every series and its value; each line must be of the format.
fn parsed(text: &str) -> BTreeMap<String, f64> {
    let (mut series, mut family) = (BTreeMap::new(), String::new());
    for line in text.lines() {
        if let Some(described) = line.strip_prefix("# TYPE ") {
            family = described.split_once(' ').expect("a name and its kind").0.to_string();
        } else if !line.starts_with("# HELP ") {
            let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
            assert!(name.starts_with(&family), "{line} is not of {family}");
            let value = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
            assert!(series.insert(name.to_string(), value).is_none(), "twice: {line}");
        }
    }
    series
}

fn scraped(client: &mut Client) -> BTreeMap<String, f64> {
    parsed(&client.get("/metrics").text())
}

#[test]
fn counters_move_by_what_happens() {
    let server = services(&["echo", "chat", "udp", "web"], &[]);
    let mut monitor = web(&server);
    let before = scraped(&mut monitor);
    assert!(before.keys().all(|name| name.starts_with("oneloop_") || name.starts_with("process_")));
    let mut requests = 1; // the one before is counted when it has been answered
    // Echo: four lines, the last without an end; then one that is too long.
    let mut echo = Client::connect(server.at("echo"));
    echo.send("one\ntwo\nPING\nfour");
    echo.end();
    assert_eq!(echo.rest_text(), "echo: one\necho: two\nPONG\necho: four\n");
    let mut long = Client::connect(server.at("echo"));
    long.send("x".repeat(65_537));
    assert_eq!(long.rest_text(), "ERROR too_long: line longer than 65536 bytes\n");
    // Chat: three messages, of lines and of frames, and commands.
    let mut nc = Client::connect(server.at("chat"));
    nc.text();
    let mut browser = web(&server);
    browser.send(handshake("/chat", "Host: localhost\r\n"));
    assert_eq!(browser.answer().status, 101);
    requests += 1;
    assert_eq!(nc.text(), "JOIN guest-2");
    nc.send("a\nb\n");
    browser.send(b"\x81\x81\0\0\0\0c");
    assert_eq!(nc.text(), "MESSAGE guest-2: c");
    assert_eq!(nc.ask("/who"), "INFO lobby: guest-1, guest-2");
    // Echo of frames: two messages, one in two fragments, and what is no message.
    let mut socket = web(&server);
    socket.send(handshake("/echo", "Host: localhost\r\n"));
    assert_eq!(socket.answer().status, 101);
    requests += 1;
    echoes(&mut socket, "hi");
    socket.send(b"\x01\x81\0\0\0\0h\x89\x80\0\0\0\0\x80\x81\0\0\0\0i");
    assert_eq!(socket.take(6), b"\x8a\x00\x81\x02hi");
    socket.send(b"\x83\x80\0\0\0\0");
    assert!(socket.rest().starts_with(b"\x88"));
    // Datagrams.
    let datagram = common::udp_client(server.at("udp"));
    for (sent, answer) in [(&b"hi"[..], b"OK".to_vec()), (b"PING", b"PONG".to_vec())] {
        datagram.send(sent).expect("sent");
        assert_eq!(common::receive(&datagram), answer);
    }
    for ignored in [&b""[..], b"OK", b"ACK", &[b'x'; 9000]] {
        datagram.send(ignored).expect("sent");
    }
    datagram.send(b"last").expect("sent");
    assert_eq!(common::receive(&datagram), b"OK");
    // Who has gone is counted a little later.
    let mut after = BTreeMap::new();
    let mut scrapes = 0;
    until("three to be gone", || {
        after = scraped(&mut monitor);
        scrapes += 1;
        let gone =
            ["bye", "too_long", "protocol"].map(|word| after[&format!("oneloop_closes_total{{reason=\"{word}\"}}")]);
        gone == [1.0; 3]
    });
    requests += scrapes - 1;
    let grown = |name: &str| after[name] - before[name];
    for (name, by) in [
        ("oneloop_connections_total{service=\"echo\"}", 2),
        ("oneloop_connections_total{service=\"chat\"}", 1),
        ("oneloop_connections_total{service=\"web\"}", 2),
        ("oneloop_connections_open{service=\"echo\"}", 0),
        ("oneloop_connections_open{service=\"chat\"}", 1),
        ("oneloop_connections_open{service=\"web\"}", 1),
        ("oneloop_connections_refused_total", 0),
        ("oneloop_messages_received_total", 4 + 3 + 1 + 2 + requests),
        ("oneloop_messages_published_total", 3),
        ("oneloop_messages_missed_total", 0),
        ("oneloop_rooms", 1),
        ("oneloop_room_members", 2),
        ("oneloop_datagrams_received_total", 7),
        ("oneloop_datagrams_total{outcome=\"answered\"}", 3),
        ("oneloop_datagrams_total{outcome=\"ignored\"}", 3),
        ("oneloop_datagrams_total{outcome=\"too_large\"}", 1),
        ("oneloop_datagrams_total{outcome=\"limited\"}", 0),
        ("oneloop_closes_total{reason=\"error\"}", 0),
        ("oneloop_closes_total{reason=\"full\"}", 0),
    ] {
        assert_eq!(grown(name), f64::from(by), "{name}");
    }
    assert!(grown("oneloop_received_bytes_total") > 65_536.0);
    assert!(grown("oneloop_sent_bytes_total") > 100.0);
    assert!(grown("oneloop_turn_duration_seconds_count") > 10.0);
    assert!(grown("oneloop_uptime_seconds") > 0.0);
    assert_eq!(after["process_open_fds"], server.process.descriptors() as f64);
    let (resident, most) = server.process.memory();
    let found = after["process_resident_memory_bytes"];
    assert!(found > resident as f64 / 2.0 && found <= most as f64, "{found} beside {resident}");
}

#[test]
fn nothing_that_a_user_says_stands_in_the_metrics() {
    let server = services(&["chat", "web"], &[]);
    let mut nc = Client::connect(server.at("chat"));
    nc.text();
    // Such a name nobody can have.
    for name in ["a\"} 1", "a\"}", "a\\", "a{b", "a=1", "a\u{a0}b"] {
        assert!(nc.ask(&format!("/nick {name}")).starts_with("ERROR name: "), "{name}");
        assert!(nc.ask(&format!("/join {name}")).starts_with("ERROR room: "), "{name}");
    }
    assert_eq!(nc.ask("/nick Zebra-77"), "INFO you are Zebra-77");
    assert_eq!(nc.ask("/join Savanna_88"), "INFO you are in Savanna_88");
    let mut browser = web(&server);
    browser.send(handshake("/chat?Giraffe=99", "Host: localhost\r\nUser-Agent: Giraffe\r\n"));
    assert_eq!(browser.answer().status, 101);
    nc.send("Giraffe\n");
    assert_eq!(web(&server).get("/Giraffe").status, 404);
    let text = web(&server).get("/metrics").text();
    for said in ["zebra", "savanna", "giraffe", "guest-", "lobby"] {
        assert!(!text.to_lowercase().contains(said), "{said}");
    }
    let names = parsed(&text).into_keys().collect::<Vec<_>>();
    assert!(names.contains(&"oneloop_room_members".to_string()));
    assert!(
        names.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_{}=\"+.".contains(&byte)))
    );
    // Somebody else's reader of the format.
    let checker =
        Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut checker) = checker else {
        return not_run("web", "no promtool");
    };
    checker.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads all");
    let output = checker.wait_with_output().expect("it ends");
    assert!(output.status.success() && output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
}
