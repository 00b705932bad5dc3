//! The loop as a library, on the real kernel: its turns are taken one by one, so that what waits before each is known.

mod common;

use common::{Client, within_patience};
use oneloop::close::Close;
use oneloop::limits::Limits;
use oneloop::net::mio::{MioNet, bind_udp, listen};
use oneloop::protocol::datagram::{Reply, Responder};
use oneloop::protocol::echo::{LineEcho, RawEcho};
use oneloop::protocol::{Context, Protocol};
use oneloop::reactor::{Ended, Reactor};
use oneloop::time::Moment;
use std::cell::RefCell;
use std::io::Write;
use std::net::SocketAddr;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

fn reactor(limits: &Limits) -> Reactor<MioNet> {
    Reactor::new(MioNet::new(limits).expect("a poll"), limits.clone())
}

/// One service on a free loopback port.
fn add<P: Protocol + 'static>(
    reactor: &mut Reactor<MioNet>,
    name: &'static str,
    machine: impl Fn() -> P + 'static,
) -> SocketAddr {
    let listener = listen("127.0.0.1:0".parse().expect("an address"), &Limits::default()).expect("a free port");
    let address = listener.local_addr().expect("an address");
    reactor.listen(name, listener, move || Box::new(machine())).expect("it is watched");
    address
}

fn turn_until(reactor: &mut Reactor<MioNet>, mut done: impl FnMut(&Reactor<MioNet>) -> bool) {
    while !done(reactor) {
        assert_eq!(reactor.turn().expect("the poll works"), None);
    }
}

#[test]
fn data_and_end_that_wait_before_the_first_turn_are_both_seen() {
    within_patience(|| {
        let mut reactor = reactor(&Limits::default());
        let address = add(&mut reactor, "echo", LineEcho::default);
        let mut client = Client::connect(address);
        client.send("hello\nlast");
        client.end();
        // The end makes no event of its own after this; whoever does not read on to it waits for ever.
        turn_until(&mut reactor, |reactor| reactor.metrics().closed(Close::Bye) == 1);
        assert_eq!(client.rest_text(), "echo: hello\necho: last\n");
    });
}

#[test]
fn data_and_end_that_wait_after_the_accept_are_both_seen() {
    within_patience(|| {
        let mut reactor = reactor(&Limits::default());
        let address = add(&mut reactor, "echo", LineEcho::default);
        let mut client = Client::connect(address);
        client.send("first\n");
        turn_until(&mut reactor, |reactor| reactor.metrics().messages == 1);
        assert_eq!(client.text(), "echo: first");
        client.send("second\nlast");
        client.end();
        turn_until(&mut reactor, |reactor| reactor.metrics().closed(Close::Bye) == 1);
        assert_eq!(client.rest_text(), "echo: second\necho: last\n");
    });
}

#[test]
fn many_ends_with_their_data_are_seen_in_few_turns() {
    within_patience(|| {
        let mut reactor = reactor(&Limits::default());
        let address = add(&mut reactor, "raw", || RawEcho);
        let mut clients: Vec<Client> = (0..50).map(|_| Client::connect(address)).collect();
        for client in &mut clients {
            client.send("hello");
            client.end();
        }
        turn_until(&mut reactor, |reactor| reactor.metrics().closed(Close::Bye) == 50);
        assert!(reactor.metrics().turns <= 10, "{} turns", reactor.metrics().turns);
        for client in &mut clients {
            assert_eq!(client.rest(), b"hello");
        }
    });
}

#[test]
fn whoever_leaves_makes_room_for_whoever_comes_in_the_same_turn() {
    within_patience(|| {
        let limits = Limits { max_connections: 1, ..Limits::default() };
        let mut reactor = reactor(&limits);
        let address = add(&mut reactor, "echo", LineEcho::default);
        let mut first = Client::connect(address);
        first.send("one\n");
        turn_until(&mut reactor, |reactor| reactor.metrics().messages == 1);
        assert_eq!(first.text(), "echo: one"); // unread, it would make the end a reset
        // The listener's event comes first, for the kernel reports in the order in which things happened.
        let mut second = Client::connect(address);
        drop(first);
        second.send("two\n");
        second.end();
        turn_until(&mut reactor, |reactor| reactor.metrics().closed(Close::Bye) == 2);
        assert_eq!(second.rest_text(), "echo: two\n");
    });
}

/// Everything that a machine was told.
type Diary = Rc<RefCell<Vec<String>>>;

/// Writes down what it is told; `work` decides what it does when bytes come.
struct Witness<F> {
    diary: Diary,
    alarm: Option<Duration>,
    greeting: usize,
    /// Goes on when the greeting has been taken, instead of closing.
    stays: bool,
    drained_at: Option<Moment>,
    work: F,
}

impl<F: FnMut(&mut Context<'_>, &[u8])> Witness<F> {
    fn note(&self, text: impl Into<String>) {
        self.diary.borrow_mut().push(text.into());
    }
}

impl<F: FnMut(&mut Context<'_>, &[u8])> Protocol for Witness<F> {
    fn opened(&mut self, context: &mut Context<'_>, address: SocketAddr) {
        assert!(address.ip().is_loopback());
        self.note("opened");
        *context.deadline = self.alarm.map(|after| context.now + after);
        context.outbox.push(&vec![b'g'; self.greeting]);
    }

    fn bytes(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> usize {
        self.note(format!("bytes {}", bytes.escape_ascii()));
        (self.work)(context, bytes);
        bytes.len()
    }

    fn ended(&mut self, _: &mut Context<'_>, rest: &[u8]) {
        self.note(format!("ended {}", rest.escape_ascii()));
    }

    fn drained(&mut self, context: &mut Context<'_>) {
        self.note("drained");
        self.drained_at = Some(context.now);
        context.outbox.push(b"more");
        if !self.stays {
            context.close(Close::Bye);
        }
    }

    fn expired(&mut self, context: &mut Context<'_>) {
        self.note("expired");
        assert_eq!(*context.deadline, None, "it has been taken out");
        context.outbox.push(b"late\n");
        context.close(Close::Protocol);
    }

    fn closing(&mut self, context: &mut Context<'_>, close: Close) {
        self.note(format!("closing {close}"));
        if let (Close::Idle, Some(drained_at), Some(timeout)) = (close, self.drained_at, context.limits.idle_timeout) {
            assert!(context.now - drained_at >= timeout, "the time in which it was not read counts for nothing");
        }
        context.tell(close);
    }

    fn closed(&mut self, close: Close) {
        self.note(format!("closed {close}"));
    }
}

fn witness<F: FnMut(&mut Context<'_>, &[u8])>(diary: &Diary, work: F) -> Witness<F> {
    Witness { diary: diary.clone(), alarm: None, greeting: 0, stays: false, drained_at: None, work }
}

#[test]
fn a_machines_deadline_comes_and_its_close_is_told_in_order() {
    within_patience(|| {
        let (mut reactor, diary) = (reactor(&Limits::default()), Diary::default());
        let for_machine = diary.clone();
        let address = add(&mut reactor, "alarm", move || Witness {
            alarm: Some(Duration::from_millis(20)),
            ..witness(&for_machine, |_, _| ())
        });
        let client = thread::spawn(move || Client::connect(address).rest_text());
        turn_until(&mut reactor, |reactor| reactor.metrics().closed_in_all() == 1);
        assert_eq!(client.join().expect("no panic"), "late\nERROR protocol: not what this service speaks\n");
        assert_eq!(*diary.borrow(), ["opened", "expired", "closing protocol", "closed protocol"]);
        assert_eq!((reactor.metrics().expired, reactor.metrics().closed(Close::Protocol)), (1, 1));
    });
}

#[test]
fn a_machine_that_asks_for_a_close_is_heard_and_hears_no_more() {
    within_patience(|| {
        let (mut reactor, diary) = (reactor(&Limits::default()), Diary::default());
        let for_machine = diary.clone();
        let address = add(&mut reactor, "quit", move || {
            witness(&for_machine, |context, bytes| {
                context.outbox.push(bytes);
                context.close(Close::Bye);
            })
        });
        let mut client = Client::connect(address);
        client.send("quit");
        turn_until(&mut reactor, |reactor| reactor.metrics().messages == 0 && reactor.metrics().bytes_out == 4);
        client.send("more"); // comes while it lingers, and nobody is told
        let client = thread::spawn(move || client.rest_text());
        turn_until(&mut reactor, |reactor| reactor.metrics().closed_in_all() == 1);
        assert_eq!(client.join().expect("no panic"), "quit");
        assert_eq!(*diary.borrow(), ["opened", "bytes quit", "closing bye", "closed bye"]);
    });
}

#[test]
fn a_machine_that_asks_for_a_stop_stops_the_loop() {
    within_patience(|| {
        let (mut reactor, diary) = (reactor(&Limits::default()), Diary::default());
        let for_machine = diary.clone();
        let address = add(&mut reactor, "stop", move || witness(&for_machine, |context, _| context.stop()));
        let client = thread::spawn(move || {
            let mut client = Client::connect(address);
            client.send("stop");
            client.rest_text()
        });
        assert_eq!(reactor.run().expect("the poll works"), Ended::Drained);
        assert_eq!(client.join().expect("no panic"), "ERROR shutdown: the server stops\n");
        assert_eq!(*diary.borrow(), ["opened", "bytes stop", "closing shutdown", "closed shutdown"]);
    });
}

/// Takes a byte at a time and is at it for a while.
struct Ponder;

impl Protocol for Ponder {
    fn bytes(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> usize {
        if bytes.is_empty() || context.is_full() {
            return 0;
        }
        *context.busy = true;
        *context.deadline = Some(context.now + Duration::from_millis(20));
        1
    }

    fn expired(&mut self, context: &mut Context<'_>) {
        *context.busy = false;
        context.outbox.push(b"done\n");
    }
}

#[test]
fn a_busy_machine_is_waited_for_at_its_peers_end_and_in_a_stop() {
    for (ends, stops) in [(true, false), (false, true), (true, true)] {
        within_patience(move || {
            let mut reactor = reactor(&Limits { idle_timeout: Some(Duration::from_millis(5)), ..Limits::default() });
            let address = add(&mut reactor, "ponder", || Ponder);
            let mut client = Client::connect(address);
            client.send("abc");
            if ends {
                client.end();
            }
            turn_until(&mut reactor, |reactor| reactor.metrics().bytes_in == 3);
            if stops {
                reactor.stop();
            }
            let client = thread::spawn(move || client.rest_text());
            while reactor.metrics().closed_in_all() == 0 {
                reactor.turn().expect("the poll works");
            }
            assert_eq!(client.join().expect("no panic"), "done\ndone\ndone\n", "ends: {ends}, stops: {stops}");
        });
    }
}

#[test]
fn a_machine_that_produces_much_is_told_when_it_may_go_on() {
    within_patience(|| {
        let limits = Limits { outbox_high_bytes: 8192, outbox_low_bytes: 1024, ..Limits::default() };
        let (mut reactor, diary) = (reactor(&limits), Diary::default());
        let for_machine = diary.clone();
        // More than the kernel takes for a client that does not read.
        let greeting = 32 << 20;
        let address = add(&mut reactor, "greet", move || Witness { greeting, ..witness(&for_machine, |_, _| ()) });
        let mut client = Client::connect(address);
        turn_until(&mut reactor, |reactor| reactor.metrics().accepted == 1);
        assert_eq!(*diary.borrow(), ["opened"]);
        assert!(reactor.queued_bytes() > limits.outbox_high_bytes);
        let client = thread::spawn(move || client.rest());
        turn_until(&mut reactor, |reactor| reactor.metrics().closed_in_all() == 1);
        let received = client.join().expect("no panic");
        assert_eq!(received.len(), greeting + 4);
        assert!(received.ends_with(b"gmore"));
        assert_eq!(*diary.borrow(), ["opened", "drained", "closing bye", "closed bye"]);
        assert_eq!(reactor.queued_bytes(), 0);
    });
}

#[test]
fn a_peer_that_is_not_read_is_not_idle_and_has_its_whole_time_afterwards() {
    within_patience(|| {
        let idle_timeout = Some(Duration::from_millis(100));
        let limits = Limits { outbox_high_bytes: 8192, outbox_low_bytes: 1024, idle_timeout, ..Limits::default() };
        let (mut reactor, diary) = (reactor(&limits), Diary::default());
        let (for_machine, greeting) = (diary.clone(), 32 << 20);
        let owed =
            add(&mut reactor, "owed", move || Witness { greeting, stays: true, ..witness(&for_machine, |_, _| ()) });
        let silent = add(&mut reactor, "silent", LineEcho::default);
        let mut owed = Client::connect(owed);
        turn_until(&mut reactor, |reactor| reactor.metrics().accepted == 1);
        // Two that are silent one after the other say when the time has passed.
        for idle in 1..=2 {
            let silent = thread::spawn(move || Client::connect(silent).rest_text());
            turn_until(&mut reactor, |reactor| reactor.metrics().closed(Close::Idle) == idle);
            assert_eq!(silent.join().expect("no panic"), "ERROR idle: nothing received for 100ms\n");
        }
        assert_eq!(*diary.borrow(), ["opened"]);
        let owed = thread::spawn(move || owed.rest());
        turn_until(&mut reactor, |reactor| reactor.metrics().closed(Close::Idle) == 3);
        assert!(owed.join().expect("no panic").ends_with(b"gmoreERROR idle: nothing received for 100ms\n"));
        assert_eq!(*diary.borrow(), ["opened", "drained", "closing idle", "closed idle"]);
    });
}

#[test]
fn each_byte_taken_starts_the_write_timeout_anew() {
    within_patience(|| {
        let limits = Limits { write_timeout: Duration::from_millis(500), ..Limits::default() };
        let (mut reactor, diary) = (reactor(&limits), Diary::default());
        let (for_machine, greeting) = (diary.clone(), 32 << 20);
        let address = add(&mut reactor, "owed", move || Witness { greeting, ..witness(&for_machine, |_, _| ()) });
        let client = thread::spawn(move || {
            let mut client = Client::connect(address);
            // For far longer than the timeout, but never so long without taking any: the pace itself is what is tested.
            for _ in 0..50 {
                client.take(512 << 10);
                thread::sleep(Duration::from_millis(30));
            }
            client.rest().len()
        });
        turn_until(&mut reactor, |reactor| reactor.metrics().closed_in_all() == 1);
        assert_eq!(client.join().expect("no panic"), greeting + 4 - 50 * (512 << 10));
        assert_eq!(reactor.metrics().closed(Close::Stalled), 0);
    });
}

#[test]
fn several_services_share_one_loop() {
    within_patience(|| {
        let limits = Limits::default();
        let mut reactor = reactor(&limits);
        let echo = add(&mut reactor, "echo", LineEcho::default);
        let raw = add(&mut reactor, "raw", || RawEcho);
        let (socket, _) = bind_udp("127.0.0.1:0".parse().expect("an address"), &limits).expect("a free port");
        let udp = socket.local_addr().expect("an address");
        reactor.serve_datagrams("udp", socket, udp, Box::new(Responder::new(Reply::Ack))).expect("it is watched");
        let (mut line, mut bytes) = (Client::connect(echo), Client::connect(raw));
        let datagram = common::udp_client(udp);
        line.send("hello\n");
        bytes.send("hello");
        datagram.send(b"hello").expect("sent");
        turn_until(&mut reactor, |reactor| {
            reactor.metrics().bytes_out == 12 + 5 && reactor.metrics().datagrams_answered == 1
        });
        assert_eq!(line.text(), "echo: hello");
        assert_eq!(bytes.take(5), b"hello");
        assert_eq!(common::receive(&datagram), b"ACK");
        reactor.stop();
        let ends = thread::spawn(move || (line.rest_text(), bytes.rest()));
        assert_eq!(reactor.run().expect("the poll works"), Ended::Drained);
        assert_eq!(ends.join().expect("no panic"), ("ERROR shutdown: the server stops\n".to_string(), Vec::new()));
        assert_eq!((reactor.metrics().accepted, reactor.metrics().closed(Close::Shutdown)), (2, 2));
    });
}

#[test]
fn a_stop_with_nobody_there_needs_one_turn_and_no_event() {
    within_patience(|| {
        let mut reactor = reactor(&Limits::default());
        add(&mut reactor, "echo", LineEcho::default);
        reactor.stop(); // without it the turn would wait for ever: nothing is armed
        assert_eq!(reactor.turn().expect("the poll works"), Some(Ended::Drained));
        assert_eq!(reactor.metrics().turns, 1);
    });
}

/// Wakes the loop every 5 ms, so that a turn with nothing to do ends.
struct Tick;

impl Protocol for Tick {
    fn opened(&mut self, context: &mut Context<'_>, _: SocketAddr) {
        self.expired(context);
    }

    fn expired(&mut self, context: &mut Context<'_>) {
        *context.deadline = Some(context.now + Duration::from_millis(5));
    }
}

/// Turns until more than `low_bytes` have been queued and nothing was read for ten ticks: a peer that goes on sending and
/// does not read would be read if nothing stopped that.
fn turn_until_stuck(reactor: &mut Reactor<MioNet>, low_bytes: usize, mut check: impl FnMut(&Reactor<MioNet>)) {
    let tick = add(reactor, "tick", || Tick);
    let client = Client::connect(tick);
    let (mut read, mut since) = (0, 0);
    turn_until(reactor, |reactor| {
        check(reactor);
        if reactor.metrics().bytes_in != read || reactor.queued_bytes() <= low_bytes {
            (read, since) = (reactor.metrics().bytes_in, reactor.metrics().expired);
        }
        reactor.metrics().expired >= since + 10
    });
    drop(client);
}

#[test]
fn a_stop_answers_exactly_what_was_read() {
    within_patience(|| {
        const LINE: usize = 1024;
        // Little may be owed, so much of what was read waits unanswered when the stop comes.
        let limits = Limits { outbox_high_bytes: 8192, outbox_low_bytes: 1024, ..Limits::default() };
        let mut reactor = reactor(&limits);
        let address = add(&mut reactor, "echo", LineEcho::default);
        let mut client = Client::connect(address);
        let line = [&[b'x'; LINE - 1][..], b"\n"].concat();
        let mut writer = client.stream().try_clone().expect("a second handle");
        let writer = thread::spawn(move || {
            // It ends when the server has gone; how much was sent by then is none of its business.
            while writer.write_all(&line).is_ok() {}
        });
        turn_until_stuck(&mut reactor, limits.outbox_low_bytes, |_| ());
        reactor.stop();
        assert_eq!(reactor.turn().expect("the poll works"), None);
        // What is read from here on is thrown away.
        let lines = reactor.metrics().bytes_in as usize / LINE;
        let reader = thread::spawn(move || {
            let rest = client.rest();
            client.stream().shutdown(std::net::Shutdown::Both).expect("an open connection");
            rest
        });
        assert_eq!(reactor.run().expect("the poll works"), Ended::Drained);
        writer.join().expect("no panic");
        let received = reader.join().expect("no panic");
        let goodbye = b"ERROR shutdown: the server stops\n";
        assert!(received.ends_with(goodbye));
        assert_eq!(received.len() - goodbye.len(), lines * (LINE + "echo: ".len()), "{lines} lines were read");
    });
}

#[test]
fn what_is_queued_for_a_peer_that_does_not_read_stays_near_the_mark() {
    within_patience(|| {
        let limits = Limits { outbox_high_bytes: 8192, outbox_low_bytes: 1024, ..Limits::default() };
        let mut reactor = reactor(&limits);
        let raw = add(&mut reactor, "raw", || RawEcho);
        let client = Client::connect(raw);
        let mut writer = client.stream().try_clone().expect("a second handle");
        let writer = thread::spawn(move || while writer.write_all(&[b'x'; 4096]).is_ok() {});
        let most = limits.outbox_high_bytes + limits.read_budget_bytes;
        turn_until_stuck(&mut reactor, limits.outbox_low_bytes, |reactor| {
            assert!(reactor.queued_bytes() <= most, "{} bytes are queued", reactor.queued_bytes());
        });
        assert!(reactor.metrics().bytes_in > most as u64);
        drop((reactor, client));
        writer.join().expect("no panic");
    });
}
