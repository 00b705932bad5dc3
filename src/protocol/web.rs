//! HTTP for people, monitors and browsers: two pages, how the server is, and the way into a WebSocket. The machine of the
//! service `web`. Pure, but for what the process knows of itself, which it asks the function that it was given.

mod socket;

use super::chat::Person;
use super::{Context, Protocol};
use crate::close::Close;
use crate::metrics::report::{Report, Vitals};
use crate::time::Moment;
use crate::wire::Format;
use crate::wire::http::{Head, Method, Request, Response, Status, Upgrade, read_head, write_switch};
use crate::wire::origin::{Denied, Gate, is_local};
use socket::{Role, Socket};
use std::net::SocketAddr;
use std::rc::Rc;

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

/// A page, and what a browser lets it do: run its own script, look as its own style says, and talk to where it came from.
struct Page {
    html: &'static str,
    policy: &'static str,
}

/// Puts the hashes of a page's one script and one style into its policy. A test knows whether they are right.
macro_rules! page {
    ($file:literal, $script:literal, $style:literal) => {
        Page {
            html: include_str!($file),
            policy: concat!(
                "default-src 'none'; script-src 'sha256-",
                $script,
                "'; style-src 'sha256-",
                $style,
                "'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; ",
                "require-trusted-types-for 'script'"
            ),
        }
    };
}

const CHAT: Page = page!(
    "web/chat.html",
    "x61Tpr0Ijf6MsTbPZ2xHuRbD0FBe28zCBG3ZDbfbDx0=",
    "N0yzMdmdcVH78mvbppGXFOPL3cErZy8pm9oVCu0ckU8="
);
const STATUS: Page = page!(
    "web/status.html",
    "fS/HpxmgCWV38Nvu3/xVCbAu2sMWN8SlZ+BlYOuSPbY=",
    "wP23ORKOSIzIHuuTQR8ENe5JBHHwenmeIV8WLTP3CDw="
);

/// What all connections of a listener share.
#[derive(Debug)]
pub struct Desk {
    /// Who may come in.
    pub gate: Gate,
    /// What the process knows of itself.
    pub vitals: fn() -> Vitals,
}

impl Desk {
    /// The desk of a listener that is bound to `local`.
    pub fn new(allow_origins: &[String], vitals: fn() -> Vitals, local: SocketAddr) -> Desk {
        Desk { gate: Gate { allowed: allow_origins.to_vec(), is_local: is_local(local.ip()) }, vitals }
    }

    /// Makes the machines of its connections.
    pub fn maker(self) -> Box<dyn Fn() -> Box<dyn Protocol>> {
        let desk = Rc::new(self);
        Box::new(move || Box::new(Web::new(desk.clone())))
    }
}

/// A connection that begins in HTTP and may become a WebSocket.
#[derive(Debug)]
pub struct Web {
    desk: Rc<Desk>,
    state: State,
}

/// An idle WebSocket is its slot of 96 bytes, this, and in a chat what its room keeps for a member: under 400 bytes in all.
const _: () = assert!(size_of::<Web>() <= 120);

#[derive(Debug)]
enum State {
    Http(Http),
    Open(Socket),
}

#[derive(Debug, Default)]
struct Http {
    /// The head of a request has begun.
    has_begun: bool,
    /// Has sent its last answer.
    said_last: bool,
}

/// What becomes of a connection that has been answered.
enum Next {
    /// Another request may follow.
    Request,
    /// That was the last answer.
    Close(Close),
    /// The handshake of a WebSocket is done.
    Open(Role),
}

impl Web {
    /// Somebody new at `desk`.
    pub fn new(desk: Rc<Desk>) -> Web {
        Web { desk, state: State::Http(Http::default()) }
    }

    /// Takes the request at the front of `bytes`. Returns how many of them that took: none, if it is not all there.
    fn take(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> usize {
        let (next, used) = match read_head(bytes, context.limits.max_head_bytes, context.limits.max_headers) {
            Head::Unfinished => {
                if let State::Http(http) = &mut self.state {
                    http.has_begun = !bytes.is_empty();
                }
                return 0;
            }
            Head::Wrong(status) => {
                let close = if status == Status::HeadTooLarge { Close::HeadTooLong } else { Close::Protocol };
                (last(context, false, status, close), bytes.len())
            }
            Head::Whole { request, used } => (self.answer(context, &request), used),
        };
        context.metrics.messages += 1;
        *context.deadline = Some(head_deadline(context));
        self.state = match next {
            Next::Open(role) => State::Open(Socket::open(role, context)),
            Next::Request => State::Http(Http::default()),
            Next::Close(close) => {
                context.close(close);
                State::Http(Http { has_begun: false, said_last: true })
            }
        };
        used
    }

    fn answer(&self, context: &mut Context<'_>, request: &Request<'_>) -> Next {
        let is_spare = context.standing.is_spare;
        let is_known = matches!(request.path, "/" | "/status" | "/healthz" | "/metrics" | "/chat" | "/echo");
        let asks_how_we_are = matches!(request.path, "/healthz" | "/metrics") && request.method != Method::Other;
        // Whoever comes now for anything else is one too many, or too late.
        if is_spare && !asks_how_we_are {
            let close = if context.standing.is_draining { Close::Shutdown } else { Close::Full };
            return last(context, request.method == Method::Head, Status::Unavailable, close);
        }
        // There are few places over the limit: whoever asks does not keep one.
        let may_stay = !is_spare || context.standing.is_draining;
        let request = &Request { keep_alive: request.keep_alive && may_stay, ..*request };
        if let Err(denied) = self.desk.gate.judge(request.host, request.origin) {
            context.metrics.foreign_requests += 1;
            return match denied {
                Denied::ForeignOrigin => decline(context, request, Status::Forbidden, &[], FOREIGN_ORIGIN),
                Denied::ForeignHost => decline(context, request, Status::Misdirected, &[], FOREIGN_HOST),
            };
        }
        if is_known && request.method == Method::Other {
            return decline(
                context,
                request,
                Status::MethodNotAllowed,
                &[("Allow", "GET, HEAD")],
                "only GET and HEAD\n",
            );
        }
        match request.path {
            "/healthz" if context.standing.is_draining => {
                decline(context, request, Status::Unavailable, &[], "draining\n")
            }
            "/healthz" => reply(context, request, Status::Ok, TEXT, &[], b"ok\n"),
            "/metrics" => {
                let report = self.report(context).to_string();
                reply(context, request, Status::Ok, Report::CONTENT_TYPE, &[], report.as_bytes())
            }
            "/" => page(context, request, &CHAT),
            "/status" => page(context, request, &STATUS),
            "/chat" => upgrade(context, request, || Role::Chat(Person::new(Format::Frame))),
            "/echo" => upgrade(context, request, || Role::Echo),
            _ => decline(context, request, Status::NotFound, &[], NOT_FOUND),
        }
    }

    fn report<'a>(&self, context: &'a Context<'_>) -> Report<'a> {
        let (rooms, metrics) = (&context.rooms, &*context.metrics);
        Report {
            metrics,
            rooms: rooms.len(),
            members: rooms.members(),
            room_log_bytes: rooms.bytes(),
            notices_dropped: rooms.notices_dropped(),
            queued_bytes: metrics.queued_bytes + rooms.bytes(),
            vitals: (self.desk.vitals)(),
            uptime: context.now - Moment::START,
        }
    }
}

impl Protocol for Web {
    fn opened(&mut self, context: &mut Context<'_>, _: SocketAddr) {
        *context.deadline = Some(head_deadline(context));
    }

    fn bytes(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> usize {
        let mut consumed = 0;
        while !context.is_full() {
            if let State::Open(socket) = &mut self.state {
                return consumed + socket.bytes(context, &bytes[consumed..]);
            }
            match self.take(context, &bytes[consumed..]) {
                0 => break,
                used => consumed += used,
            }
            if context.is_closing() {
                return bytes.len();
            }
        }
        consumed
    }

    fn ended(&mut self, _: &mut Context<'_>, _: &[u8]) {
        match &mut self.state {
            State::Http(http) => http.said_last = true, // half a request needs no answer
            State::Open(socket) => socket.ended(),
        }
    }

    fn expired(&mut self, context: &mut Context<'_>) {
        match &mut self.state {
            State::Http(http) => {
                // A browser opens connections that it may need: one that was never used is closed without a word.
                if http.has_begun {
                    last(context, false, Status::RequestTimeout, Close::RequestLate);
                }
                http.said_last = true;
                context.close(Close::RequestLate);
            }
            State::Open(socket) => socket.expired(context),
        }
    }

    fn closing(&mut self, context: &mut Context<'_>, close: Close) {
        match &mut self.state {
            State::Open(socket) => socket.closing(context, close),
            State::Http(Http { said_last: false, has_begun }) => {
                if *has_begun || matches!(close, Close::Full | Close::MemoryFull) {
                    let status = if close == Close::Idle { Status::RequestTimeout } else { Status::Unavailable };
                    last(context, false, status, close);
                }
            }
            State::Http(_) => (),
        }
    }

    fn outlasts(&self) -> bool {
        matches!(self.state, State::Http(_))
    }
}

/// Until when the next head has to be whole. Places over the limit are few, so they are not for waiting.
fn head_deadline(context: &Context<'_>) -> Moment {
    let limits = context.limits;
    context.now + if context.standing.is_spare { limits.spare_timeout } else { limits.head_timeout }
}

/// An answer; after it another request may follow, if the client has said so.
fn reply(
    context: &mut Context<'_>,
    request: &Request<'_>,
    status: Status,
    content_type: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Next {
    let (close, head_only) = (!request.keep_alive, request.method == Method::Head);
    Response { status, content_type, headers, body, close, head_only }.write(context.outbox);
    if close { Next::Close(Close::Bye) } else { Next::Request }
}

const FOREIGN_ORIGIN: &str = "this page may not come in: its origin is another (see --allow-origin)\n";
const FOREIGN_HOST: &str =
    "this server listens on loopback and has no such name: use its address, or see --allow-origin\n";
const NOT_FOUND: &str = "not here; there are /, /status, /healthz, /metrics, /chat and /echo\n";

/// An answer that says why not.
fn decline(
    context: &mut Context<'_>,
    request: &Request<'_>,
    status: Status,
    headers: &[(&str, &str)],
    why: &str,
) -> Next {
    reply(context, request, status, TEXT, headers, why.as_bytes())
}

/// The last answer, to whatever was asked: why the connection ends.
fn last(context: &mut Context<'_>, head_only: bool, status: Status, close: Close) -> Next {
    let body = format!("{close}: {}\n", close.sentence(context.limits));
    let body = body.as_bytes();
    Response { status, content_type: TEXT, headers: &[], body, close: true, head_only }.write(context.outbox);
    Next::Close(close)
}

fn page(context: &mut Context<'_>, request: &Request<'_>, page: &Page) -> Next {
    let headers = [("Content-Security-Policy", page.policy), ("Referrer-Policy", "no-referrer")];
    reply(context, request, Status::Ok, HTML, &headers, page.html.as_bytes())
}

fn upgrade(context: &mut Context<'_>, request: &Request<'_>, role: impl FnOnce() -> Role) -> Next {
    match request.upgrade {
        Upgrade::WebSocket { key } => {
            write_switch(key, context.outbox);
            Next::Open(role())
        }
        Upgrade::Malformed => last(context, false, Status::BadRequest, Close::Protocol),
        Upgrade::None | Upgrade::WrongVersion => {
            let headers = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13")];
            decline(context, request, Status::UpgradeRequired, &headers, "a WebSocket of version 13 lives here\n")
        }
    }
}
