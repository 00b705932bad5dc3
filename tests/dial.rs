//! Connections that the loop begins itself, and machines that call each other: on the fake network, to the microsecond.

mod fake;

use fake::{Answer, Bench};
use oneloop::close::Close;
use oneloop::limits::Limits;
use oneloop::protocol::echo::LineEcho;
use oneloop::protocol::{Context, Protocol};
use oneloop::slots::Id;
use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

/// What the machines of a test were told, in order.
type Told = Rc<RefCell<Vec<String>>>;

fn told(told: &Told) -> Vec<String> {
    std::mem::take(&mut told.borrow_mut())
}

/// Writes down what it is told; does as it is told where a test needs that.
struct Witness {
    told: Told,
    heir: Option<Id>,
    /// Stays after the peer's end until it is woken.
    stays: bool,
}

impl Witness {
    fn new(told: &Told) -> Box<Witness> {
        Box::new(Witness { told: told.clone(), heir: None, stays: false })
    }

    fn say(&self, what: impl Into<String>) {
        self.told.borrow_mut().push(what.into());
    }
}

impl Protocol for Witness {
    fn opened(&mut self, context: &mut Context<'_>, address: SocketAddr) {
        self.say(format!("opened {address}"));
        context.outbox.push(b"hello\n");
    }

    fn bytes(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> usize {
        self.say(format!("bytes {}", bytes.escape_ascii()));
        match bytes {
            b"end" => context.end(),
            b"say" => context.outbox.push(b"said\n"),
            _ => (),
        }
        bytes.len()
    }

    fn ended(&mut self, context: &mut Context<'_>, _: &[u8]) {
        self.say("ended");
        *context.busy = self.stays;
    }

    fn woken(&mut self, context: &mut Context<'_>) {
        self.say("woken");
        context.outbox.push(b"awake\n");
        *context.busy = false;
    }

    fn failed(&mut self, error: &io::Error) {
        self.say(format!("failed {error}"));
    }

    fn closed(&mut self, close: Close) {
        self.say(format!("closed {close}"));
    }

    fn heir(&self) -> Option<Id> {
        self.heir
    }
}

/// An agent that dials when it is woken and once when it begins, and is the heir of what it dials.
struct Dialer {
    told: Told,
}

impl Dialer {
    fn dial(&self, context: &mut Context<'_>) {
        let witness = Witness { told: self.told.clone(), heir: Some(context.id), stays: false };
        context.dial(to(), Box::new(witness));
    }
}

impl Protocol for Dialer {
    fn opened(&mut self, context: &mut Context<'_>, _: SocketAddr) {
        self.dial(context);
    }

    fn woken(&mut self, context: &mut Context<'_>) {
        *context.deadline = Some(context.now + Duration::from_secs(1));
    }

    fn expired(&mut self, context: &mut Context<'_>) {
        self.dial(context);
    }
}

fn to() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 9001))
}

fn bench(answer: Answer) -> (Bench, Told) {
    let mut bench = Bench::new::<LineEcho>(Limits { connect_timeout: Duration::from_secs(3), ..Limits::default() });
    bench.set_answer(answer);
    (bench, Told::default())
}

#[test]
fn a_connection_that_comes_about_is_like_any_other_and_counts_against_no_limit() {
    let (mut bench, log) = bench(Answer::Accepts);
    bench.reactor.dial("out", to(), Witness::new(&log)).unwrap();
    assert_eq!(told(&log), [""; 0], "nothing before the kernel says so");
    bench.run();
    assert_eq!(told(&log), ["opened 192.0.2.1:9001"]);
    assert_eq!((bench.reactor.metrics().open, bench.take(0)), (0, "hello\n".to_string()));
    bench.send(0, "hi");
    bench.run_for(Duration::from_secs(60));
    bench.end(0);
    bench.run();
    assert_eq!(told(&log), ["bytes hi", "ended", "closed bye"], "and the connect timeout ended with the dialing");
    assert_eq!((bench.reactor.metrics().open, bench.is_gone(0)), (0, true));
}

#[test]
fn one_that_does_not_is_told_why_and_is_gone() {
    let (mut bench, log) = bench(Answer::Refuses);
    bench.reactor.dial("out", to(), Witness::new(&log)).unwrap();
    bench.run();
    assert_eq!(told(&log), ["failed connection refused", "closed error"]);
    bench.set_answer(Answer::Hangs);
    bench.reactor.dial("out", to(), Witness::new(&log)).unwrap();
    bench.run_for(Duration::from_micros(2_999_999));
    bench.nudge(1);
    assert_eq!(told(&log), [""; 0], "not yet, and an edge that means nothing changes nothing");
    bench.run_for(Duration::from_micros(1));
    assert_eq!(told(&log), ["failed no answer for 3s", "closed error"]);
    assert!(bench.is_gone(0) && bench.is_gone(1));
}

#[test]
fn a_machine_dials_for_another_and_is_woken_when_that_has_ended() {
    let (mut bench, log) = bench(Answer::Refuses);
    bench.reactor.add("agent", Box::new(Dialer { told: log.clone() }));
    bench.run_for(Duration::from_millis(3_500));
    let at: Vec<u64> = bench.dials().iter().map(|(at, _)| at.as_secs()).collect();
    assert_eq!(at, [0, 1, 2, 3]);
    bench.set_answer(Answer::Accepts);
    bench.run_for(Duration::from_secs(10));
    assert_eq!(bench.dials().len(), 1, "connected, so it rests");
    bench.end(bench.last());
    bench.run_for(Duration::from_secs(1));
    assert_eq!(bench.dials().len(), 1, "woken, and a second later it dials again");
}

#[test]
fn our_end_is_said_behind_everything_and_the_peer_is_still_read() {
    let (mut bench, log) = bench(Answer::Accepts);
    bench.reactor.dial("out", to(), Witness::new(&log)).unwrap();
    bench.run();
    bench.set_room(0, 3);
    bench.take(0);
    bench.send(0, "say");
    bench.send(0, "end");
    assert!(!bench.is_half_closed(0), "two bytes are still owed");
    bench.set_room(0, 100);
    bench.run();
    assert!(bench.is_half_closed(0));
    bench.send(0, "say"); // the fake panics if anything is written behind the end
    bench.run_for(Duration::from_secs(60));
    bench.end(0);
    bench.run();
    assert_eq!(bench.take(0), "said\n");
    let expected = ["opened 192.0.2.1:9001", "bytes say", "bytes end", "bytes say", "ended", "closed bye"];
    assert_eq!(told(&log), expected);
}

#[test]
fn a_busy_machine_outlives_its_peers_end_until_it_is_woken() {
    let (mut bench, log) = bench(Answer::Accepts);
    let witness = Witness { stays: true, ..*Witness::new(&log) };
    let id = bench.reactor.dial("out", to(), Box::new(witness)).unwrap();
    bench.run();
    bench.end(0);
    bench.run_for(Duration::from_secs(60));
    assert_eq!(told(&log), ["opened 192.0.2.1:9001", "ended"]);
    bench.reactor.add("caller", Box::new(Caller(id)));
    bench.run();
    assert_eq!(told(&log), ["woken", "closed bye"]);
    assert_eq!(bench.take(0), "hello\nawake\n");
}

/// Wakes somebody.
struct Caller(Id);

impl Protocol for Caller {
    fn opened(&mut self, context: &mut Context<'_>, _: SocketAddr) {
        context.wake(self.0);
    }
}

#[test]
fn a_stop_ends_what_is_being_dialed_and_nothing_more_is() {
    let (mut bench, log) = bench(Answer::Hangs);
    bench.reactor.add("agent", Box::new(Dialer { told: log.clone() }));
    bench.run();
    bench.reactor.stop();
    bench.run_for(Duration::from_millis(1));
    assert_eq!(told(&log), ["closed shutdown"]);
    assert_eq!(bench.dials().len(), 1);
}
