//! One line client's connection on the fake network: the handshake, the heartbeat and the ends, to the microsecond.

#![cfg(feature = "client")]

mod fake;

use fake::{Answer, Bench};
use oneloop::limits::{Heartbeat, Limits};
use oneloop::protocol::client::connect::{Dialer, Session, Settings};
use oneloop::protocol::client::console::Console;
use oneloop::protocol::client::screen::Screen;
use oneloop::protocol::client::{Route, Way};
use oneloop::protocol::echo::RawEcho;
use oneloop::wire::http::accept_key;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

fn limits(heartbeat: Heartbeat) -> Limits {
    Limits {
        heartbeat,
        heartbeat_interval: Duration::from_secs(10),
        heartbeat_timeout: Duration::from_secs(5),
        heartbeat_retries: 1,
        connect_timeout: Duration::from_secs(3),
        linger: Duration::ZERO,
        linger_quiet: Duration::ZERO,
        ..Limits::default()
    }
}

/// A client without a console, and its session.
fn client(heartbeat: Heartbeat, way: Way, answer: Answer) -> (Bench, Rc<RefCell<Session>>) {
    let mut bench = Bench::new::<RawEcho>(limits(heartbeat));
    bench.set_answer(answer);
    let addresses = [1, 2].map(|host| SocketAddr::from(([192, 0, 2, host], 9001))).to_vec();
    let route = Route { name: "there".to_string(), addresses, way };
    let session = Session::new(Settings { route, nick: Some("ann".to_string()), room: None, reconnect: false });
    bench.reactor.add("connect", Box::new(Dialer::new(&session)));
    bench.run();
    (bench, session)
}

fn outcome(session: &Rc<RefCell<Session>>) -> Option<Result<(), String>> {
    session.borrow().outcome.clone()
}

fn lost(why: &str) -> Option<Result<(), String>> {
    Some(Err(format!("the connection to there was lost: {why}")))
}

#[test]
fn every_address_is_tried_once_and_then_it_is_said() {
    let (mut bench, session) = client(Heartbeat::Auto, Way::Lines, Answer::Refuses);
    let sentence = outcome(&session).expect("an outcome").expect_err("a failure");
    assert!(sentence.starts_with("cannot connect to there: connection refused"), "{sentence}");
    assert_eq!(bench.dials().len(), 2);
    let (mut bench, session) = client(Heartbeat::Auto, Way::Lines, Answer::Hangs);
    bench.run_for(Duration::from_micros(5_999_999));
    assert_eq!(outcome(&session), None);
    bench.run_for(Duration::from_micros(1));
    assert!(outcome(&session).expect("an outcome").expect_err("a failure").contains("no answer for 3s"));
}

#[test]
fn the_heartbeat_is_a_table() {
    let (mut bench, session) = client(Heartbeat::All, Way::Lines, Answer::Accepts);
    assert_eq!(bench.take(0), "/nick ann\n");
    bench.run_for(Duration::from_micros(9_999_999));
    assert_eq!(bench.take(0), "");
    bench.run_for(Duration::from_micros(1));
    assert_eq!(bench.take(0), "PING\n", "10 s of silence");
    bench.run_for(Duration::from_secs(5));
    assert_eq!(bench.take(0), "PING\n", "5 s without an answer");
    bench.send(0, "PONG\n"); // late: to the first of them, as far as anybody can tell
    bench.run_for(Duration::from_secs(9));
    bench.send(0, "PONG\n"); // doubled, or to the second
    bench.send(0, "PONG\n"); // to none
    bench.run_for(Duration::from_secs(9));
    assert_eq!(bench.take(0), "", "each was a sign of life");
    bench.run_for(Duration::from_secs(1));
    assert_eq!(bench.take(0), "PING\n");
    bench.run_for(Duration::from_micros(9_999_999));
    assert_eq!((bench.take(0), outcome(&session)), ("PING\n".to_string(), None));
    bench.run_for(Duration::from_micros(1));
    assert_eq!(outcome(&session), lost("no sign of life after 2 PINGs"));
}

#[test]
fn by_itself_only_a_server_that_speaks_it_is_asked() {
    let (mut bench, session) = client(Heartbeat::Auto, Way::Lines, Answer::Accepts);
    bench.take(0);
    bench.run_for(Duration::from_secs(3600));
    assert_eq!(bench.take(0), "");
    bench.send(0, "PING\n");
    assert_eq!(bench.take(0), "PONG\n");
    bench.run_for(Duration::from_secs(15));
    assert_eq!(bench.take(0), "PING\nPING\n");
    bench.run_for(Duration::from_secs(5));
    assert!(outcome(&session).is_some());
}

/// Opens a WebSocket of which the key is taken from the request.
fn open(bench: &mut Bench, peer: usize) {
    let request = bench.take(peer);
    assert!(request.starts_with("GET /chat HTTP/1.1\r\nHost: there:9080\r\nUpgrade: websocket\r\n"), "{request}");
    let key = request.split("Sec-WebSocket-Key: ").nth(1).and_then(|rest| rest.lines().next()).expect("a key");
    let accept = String::from_utf8(accept_key(key).to_vec()).expect("ASCII");
    bench.send(peer, format!("HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"));
}

fn web_socket() -> Way {
    Way::WebSocket { host: "there:9080".to_string(), path: "/chat".to_string() }
}

#[test]
fn a_websocket_has_the_connect_timeout_for_its_handshake_and_then_no_more() {
    let (mut bench, session) = client(Heartbeat::Off, web_socket(), Answer::Accepts);
    bench.run_for(Duration::from_micros(2_999_999));
    open(&mut bench, 0);
    assert_eq!(bench.take_bytes(0).len(), 6 + "/nick ann".len(), "a masked frame");
    bench.run_for(Duration::from_secs(3600));
    assert_eq!((bench.take_bytes(0).len(), outcome(&session)), (0, None), "nobody is asked for anything");
    let (mut bench, session) = client(Heartbeat::Off, web_socket(), Answer::Accepts);
    bench.send(0, "HTTP/1.1 101 Switching");
    bench.run_for(Duration::from_secs(3));
    bench.run_for(Duration::from_secs(3)); // the other address
    let sentence = outcome(&session).expect("an outcome").expect_err("a failure");
    assert!(sentence.contains("no answer for 3s"), "{sentence}");
}

#[test]
fn a_websocket_is_asked_with_pings_and_its_reason_to_close_is_said() {
    let (mut bench, session) = client(Heartbeat::Auto, web_socket(), Answer::Accepts);
    open(&mut bench, 0);
    bench.take_bytes(0);
    bench.run_for(Duration::from_secs(10));
    let ping = bench.take_bytes(0);
    assert_eq!((&ping[..2], ping.len()), (&b"\x89\x80"[..], 6));
    bench.send(0, b"\x8a\x00");
    bench.send(0, b"\x88\x0b\x03\xf5full: 7 x");
    bench.end(0);
    bench.run_for(Duration::from_secs(1));
    assert_eq!(outcome(&session), lost("full: 7 x"));
}

/// A client with a console: that is peer 0, the server is peer 1.
fn client_with_console() -> (Bench, Rc<RefCell<Session>>) {
    let (mut bench, session) = console();
    bench.reactor.add("connect", Box::new(Dialer::new(&session)));
    bench.run();
    (bench, session)
}

/// The console alone.
fn console() -> (Bench, Rc<RefCell<Session>>) {
    let limits = Limits { idle_timeout: Some(Duration::from_secs(60)), ..limits(Heartbeat::Auto) };
    console_with(limits, Way::Lines, None)
}

/// The console alone; one on a terminal comes back.
fn console_with(limits: Limits, way: Way, screen: Option<Screen>) -> (Bench, Rc<RefCell<Session>>) {
    let mut bench = Bench::new::<RawEcho>(Limits { write_timeout: Duration::from_secs(1 << 30), ..limits });
    let at = SocketAddr::from(([192, 0, 2, 1], 9001));
    let route = Route { name: "there".to_string(), addresses: vec![at], way };
    let session = Session::new(Settings { route, nick: None, room: None, reconnect: screen.is_some() });
    assert_eq!(bench.adopt(Console::new(&session, screen)), 0);
    (bench, session)
}

/// A client with a console that asks for signs of life.
fn asking_client(way: Way) -> (Bench, Rc<RefCell<Session>>) {
    let (mut bench, session) = console_with(limits(Heartbeat::All), way, None);
    bench.reactor.add("connect", Box::new(Dialer::new(&session)));
    bench.run();
    (bench, session)
}

/// A client on a terminal.
fn terminal_client() -> (Bench, Rc<RefCell<Session>>) {
    let (mut bench, session) = console_with(limits(Heartbeat::Auto), Way::Lines, Some(Screen::new(false)));
    bench.reactor.add("connect", Box::new(Dialer::new(&session)));
    bench.run();
    (bench, session)
}

#[test]
fn an_end_of_the_server_waits_a_moment_for_that_of_the_input() {
    let (mut bench, session) = client_with_console();
    bench.send(0, "a\n");
    assert_eq!(bench.take(1), "a\n");
    bench.send(1, "b");
    bench.end(1);
    bench.run_for(Duration::from_micros(999_999));
    assert_eq!((bench.take(0), outcome(&session)), ("b".to_string(), None));
    bench.run_for(Duration::from_micros(1));
    assert_eq!(outcome(&session), lost("the server ended it"));
    assert!(session.borrow().is_over && bench.is_gone(0));

    let (mut bench, session) = client_with_console();
    bench.end(1);
    bench.run_for(Duration::from_millis(999));
    bench.end(0);
    bench.run();
    assert_eq!(outcome(&session), Some(Ok(())), "the input ends a little later");
    assert!(session.borrow().is_over);

    let (mut bench, session) = client_with_console();
    bench.end(1);
    bench.run_for(Duration::from_millis(999));
    bench.send(0, "one more\n");
    assert_eq!(outcome(&session), lost("the server ended it"), "and this can no longer be sent");
    assert!(session.borrow().is_over);
}

#[test]
fn a_user_may_think_for_longer_than_a_server_may_be_silent() {
    let (mut bench, session) = client_with_console();
    for _ in 0..10 {
        bench.run_for(Duration::from_micros(59_999_999));
        bench.send(1, "still here\n");
    }
    assert_eq!((bench.take(0), outcome(&session)), ("still here\n".repeat(10), None));
    bench.run_for(Duration::from_secs(60));
    assert_eq!(outcome(&session), lost("nothing received for 60s"));
}

#[test]
fn only_a_line_of_its_own_is_heartbeat() {
    let (mut bench, _session) = client_with_console();
    for piece in ["PI", "NG", "\n", "not the end: ", "PING\n", "PING", "S\n", "PING\r", "\n", "PING\n"] {
        bench.send(1, piece);
    }
    assert_eq!(bench.take(1), "PONG\nPONG\nPONG\n");
    assert_eq!(bench.take(0), "not the end: PING\nPINGS\n");
    bench.send(1, "PIN");
    assert_eq!(bench.take(0), "", "it may become one");
    bench.end(1);
    bench.run();
    assert_eq!(bench.take(0), "PIN", "and did not");
}

#[test]
fn nothing_is_read_before_there_is_a_connection_or_while_it_is_full() {
    let (mut bench, session) = console();
    bench.send(0, "early\n");
    assert_eq!(bench.unread(0), "early\n".len());
    bench.reactor.add("connect", Box::new(Dialer::new(&session)));
    bench.run();
    assert_eq!((bench.unread(0), bench.take(1)), (0, "early\n".to_string()));
    bench.set_room(1, 1000);
    for _ in 0..20 {
        bench.send(0, "x".repeat(64 << 10));
    }
    let unread = bench.unread(0);
    assert!(unread > 900 << 10, "{unread} bytes wait where they came from");
    bench.set_room(1, usize::MAX);
    bench.run();
    assert_eq!((bench.unread(0), bench.take(1).len(), outcome(&session)), (0, 20 * (64 << 10), None));
    // And the other way round.
    bench.set_room(0, 1000);
    for _ in 0..20 {
        bench.send(1, "x".repeat(64 << 10));
    }
    let unread = bench.unread(1);
    assert!(unread > 900 << 10, "{unread} bytes wait where they came from");
    bench.set_room(0, usize::MAX);
    bench.run();
    assert_eq!((bench.unread(1), bench.take(0).len()), (0, 20 * (64 << 10)));
    bench.end(0);
    bench.run();
    assert!(bench.is_half_closed(1) && !session.borrow().is_over);
    bench.end(1);
    bench.run();
    assert_eq!(outcome(&session), Some(Ok(())));
}

#[test]
fn a_server_is_read_however_much_it_is_owed() {
    let (mut bench, session) = client_with_console();
    bench.set_room(1, 0); // it writes an answer to what it has read, and reads no more before that is taken
    for _ in 0..20 {
        bench.send(0, "y".repeat(64 << 10));
    }
    assert!(bench.unread(0) > 0, "the connection is full");
    bench.set_room(0, 0); // nor does anybody read what we write, for a while
    for _ in 0..20 {
        bench.send(1, "x".repeat(64 << 10));
    }
    assert!(bench.unread(1) > 0, "and so is the console");
    bench.set_room(0, usize::MAX);
    bench.run();
    assert_eq!((bench.unread(1), bench.take(0).len()), (0, 20 * (64 << 10)), "of two ends that cannot write one reads");
    bench.set_room(1, usize::MAX);
    bench.run();
    assert_eq!((bench.unread(0), bench.take(1).len()), (0, 20 * (64 << 10)));
    bench.end(0);
    bench.end(1);
    bench.run();
    assert_eq!(outcome(&session), Some(Ok(())));
}

#[test]
fn after_the_end_of_the_input_a_server_may_take_its_time() {
    let (mut bench, session) = asking_client(Way::Lines);
    bench.run_for(Duration::from_secs(12));
    assert_eq!(bench.take(1), "PING\n");
    bench.send(1, "PONG\n");
    bench.end(0);
    bench.run_for(Duration::from_secs(3600));
    assert_eq!((bench.is_half_closed(1), outcome(&session)), (true, None));
    bench.send(1, "at last\n");
    bench.end(1);
    bench.run();
    assert_eq!((bench.take(0), outcome(&session)), ("at last\n".to_string(), Some(Ok(()))));

    let (mut bench, session) = asking_client(web_socket());
    open(&mut bench, 1);
    bench.end(0);
    bench.run_for(Duration::from_secs(3600));
    assert_eq!((bench.take_bytes(1).len(), outcome(&session)), (8, None), "a close frame, and no ping behind it");
    bench.send(1, b"\x81\x07at last");
    bench.send(1, b"\x88\x02\x03\xe8");
    bench.end(1);
    bench.run();
    assert_eq!((bench.take(0), outcome(&session)), ("at last\n".to_string(), Some(Ok(()))));
}

#[test]
fn a_heartbeat_never_tears_a_line() {
    let (mut bench, session) = asking_client(Way::Lines);
    bench.send(0, "hel");
    bench.send(1, "PING\n");
    bench.send(1, "PING\n");
    bench.run_for(Duration::from_secs(3600)); // we have questions, too
    assert_eq!(bench.take(1), "hel");
    bench.send(0, "lo\nwor");
    assert_eq!(bench.take(1), "lo\nPONG\nwor", "one sign of life is as good as two");
    bench.send(1, "PING\n");
    bench.send(0, "ld\n");
    assert_eq!(bench.take(1), "ld\nPONG\n");
    bench.send(1, "PING\n");
    assert_eq!(bench.take(1), "PONG\n", "between lines at once");
    bench.run_for(Duration::from_secs(10));
    assert_eq!((bench.take(1), outcome(&session)), ("PING\n".to_string(), None), "and between lines we ask");
}

#[test]
fn a_server_that_takes_nothing_is_given_up() {
    // Owed more than may wait: the console is not read any more, the server must be.
    for input in ["y\n".repeat(32 << 10), "y".repeat(64 << 10)] {
        let (mut bench, session) = client_with_console();
        bench.set_room(1, 1000);
        for _ in 0..20 {
            bench.send(0, &input);
        }
        bench.run_for(Duration::from_micros(59_999_999));
        assert_eq!(outcome(&session), None);
        bench.run_for(Duration::from_micros(1));
        assert_eq!(outcome(&session), lost("nothing received for 60s"));
        assert!(bench.is_gone(1) && session.borrow().is_over, "what it does not take is not waited for");

        let (mut bench, session) = asking_client(Way::Lines);
        bench.set_room(1, 1000);
        for _ in 0..20 {
            bench.send(0, &input);
        }
        bench.run_for(Duration::from_secs(20));
        assert_eq!(outcome(&session), lost("no sign of life after 2 PINGs"));
        assert!(bench.is_gone(1) && session.borrow().is_over);
    }
}

#[test]
fn a_server_that_we_do_not_read_is_not_given_up() {
    let (mut waiting, idle_session) = client_with_console();
    let (mut asking, asking_session) = asking_client(Way::Lines);
    for (bench, session) in [(&mut waiting, idle_session), (&mut asking, asking_session)] {
        bench.set_room(0, 1000);
        for _ in 0..20 {
            bench.send(1, "x".repeat(64 << 10));
        }
        bench.send(1, "\n");
        assert!(bench.unread(1) > 0);
        bench.run_for(Duration::from_secs(3600));
        assert_eq!(outcome(&session), None, "it has said more than we have heard");
        bench.set_room(0, usize::MAX);
        bench.run();
        assert_eq!((bench.unread(1), bench.take(0).len(), outcome(&session)), (0, 20 * (64 << 10) + 1, None));
        bench.run_for(Duration::from_secs(60));
        assert!(outcome(&session).expect("an outcome").is_err(), "from here on it is silent");
    }
}

#[test]
fn a_room_joined_twice_is_the_same_room() {
    let (mut bench, _session) = terminal_client();
    bench.send(1, "INFO you are ann\r\nINFO you are in lobby\r\nINFO you are in lobby already\r\n");
    bench.end(1);
    bench.run_for(Limits::RECONNECT_FIRST);
    assert_eq!((bench.last(), bench.take(2)), (2, "/nick ann\n/join lobby\n".to_string()));
}

#[test]
fn who_types_is_heard_without_a_connection() {
    let (mut bench, session) = terminal_client();
    bench.set_answer(Answer::Refuses);
    bench.end(1);
    bench.run_for(Duration::from_secs(60));
    bench.take(0);
    bench.send(0, "later\rand this\r");
    assert!(bench.take(0).contains("> and this\n"), "they wait, and are seen to");
    bench.set_answer(Answer::Accepts);
    bench.run_for(Limits::RECONNECT_MOST);
    assert_eq!(bench.take(bench.last()), "later\nand this\n");
    bench.set_answer(Answer::Refuses);
    bench.end(bench.last());
    bench.run();
    bench.send(0, "too late\r");
    bench.send(0, "\x04");
    assert_eq!((outcome(&session), session.borrow().is_over), (Some(Ok(())), true), "Ctrl-D, at once");
}

#[test]
fn a_server_that_ends_before_it_has_had_all_is_lost() {
    let (mut bench, session) = client_with_console();
    bench.set_room(1, 1000);
    bench.send(0, "y".repeat(64 << 10));
    bench.end(0);
    bench.run();
    assert_eq!(bench.unread(0), 0, "the input is at its end");
    bench.end(1);
    bench.run();
    assert_eq!(outcome(&session), None, "it may take the rest yet");
    bench.break_off(1);
    assert_eq!(outcome(&session), lost("broken pipe"));
}

#[test]
fn a_name_that_is_taken_by_the_connection_before_is_asked_for_again() {
    let (mut bench, _session) = terminal_client();
    bench.send(1, "INFO you are ann\n");
    bench.end(1);
    bench.run_for(Limits::RECONNECT_FIRST);
    assert_eq!(bench.take(2), "/nick ann\n");
    for _ in 0..3 {
        bench.send(2, "ERROR name: ann is taken\n");
        bench.run_for(Limits::NICK_AGAIN - Duration::from_micros(1));
        assert_eq!(bench.take(2), "");
        bench.run_for(Duration::from_micros(1));
        assert_eq!(bench.take(2), "/nick ann\n");
    }
    bench.send(2, "INFO you are ann\n");
    bench.send(2, "ERROR name: ann is taken\n");
    bench.run_for(Duration::from_secs(3600));
    assert_eq!(bench.take(2), "", "that was all");

    bench.end(2);
    bench.run_for(Limits::RECONNECT_FIRST * 2);
    let mut tries = 0;
    while bench.take(3) == "/nick ann\n" {
        tries += 1;
        bench.send(3, "ERROR name: ann is taken\n");
        bench.run_for(Limits::NICK_AGAIN);
    }
    assert_eq!(tries, 1 + Limits::NICK_TRIES, "whoever else has it keeps it");

    // A name that the user asks for is the user's to ask for again, and so is the first.
    let (mut bench, _session) = terminal_client();
    bench.send(0, "/nick ann\r");
    bench.send(1, "ERROR name: ann is taken\n");
    assert_eq!(bench.take(1), "/nick ann\n");
    bench.run_for(Duration::from_secs(3600));
    assert_eq!(bench.take(1), "");
}
