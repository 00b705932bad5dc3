//! The simulation: the real reactor on a kernel, a clock and clients that all follow from one seed.
//!
//! A run has two phases. In the stormy one everything that may go wrong does, and nothing wrong may come of it; then the
//! weather is calm, and everything owed must arrive. `ONELOOP_SEED=n cargo test --test sim` replays one run;
//! `ONELOOP_SEEDS=n`, with more than a thousand, looks further.

mod chat;
mod clients;
mod kernel;
mod machines;
mod plan;
mod random;
mod strict;
mod web;
mod world;

use clients::Service;
use kernel::{Fake, Handle, Shared};
use machines::{Both, CLOSED, Producer, Recorder, Ticker};
use oneloop::close::Close;
use oneloop::protocol::Protocol;
use oneloop::protocol::chat::Chat;
use oneloop::protocol::datagram::Responder;
use oneloop::protocol::echo::{LineEcho, RawEcho};
#[cfg(feature = "web")]
use oneloop::protocol::web::{Desk, Web};
use oneloop::reactor::{Ended, Reactor};
use plan::Stop;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use world::{Counts, World};

const SEEDS: u64 = 1_000;

/// What a thousand seeds must have gone through, or they prove little.
const MUST_HAPPEN: [&str; 55] = [
    "MISSED",
    "PINGs sent",
    "accepted in a batch in which others ended",
    "accepts after descriptors ran out",
    "accepts passing",
    "answered in full",
    "batches full",
    "batches full after a suspension",
    "choked clients resumed",
    "closed: bye",
    "closed: connections full",
    "closed: error",
    "closed: heartbeat",
    "closed: idle",
    "closed: memory full",
    "closed: shutdown",
    "closed: slow",
    "closed: stalled",
    "closed: too long",
    "datagrams ignored",
    "datagrams received",
    "datagrams too large",
    "descriptors ran out",
    "drained",
    "ended: drained",
    "ended: killed",
    "expired",
    "expired to the microsecond",
    "expired without a connection",
    "heartbeat to the microsecond",
    "held lines heard",
    "held up a room for too long",
    "history shown",
    "idle to the microsecond",
    "keys used again",
    "last words not taken",
    "letters delivered",
    "letters refused",
    "lingered to the end",
    "memory budget exceeded",
    "messages begun and finished later",
    "notices dropped",
    "polls interrupted",
    "read with the memory budget used up",
    "receives failed",
    "refused",
    "room lines from the outbox after the end of a stay",
    "rooms changed",
    "rooms ended",
    "rooms refused",
    "sends failed",
    "suspensions",
    "told why, in full",
    "waited for a place among the refused",
    "watches failed",
];

/// The same of those who come by HTTP.
const MUST_HAPPEN_IN_THE_WEB: [&str; 23] = [
    "accepted in the drain delay",
    "stops after a delay",
    "web: MISSED as a frame",
    "web: close frames",
    "web: half a request in all its time",
    "web: history as frames",
    "web: idle in HTTP",
    "web: letters as frames",
    "web: lines as frames",
    "web: messages echoed",
    "web: monitors ended last",
    "web: pings between fragments",
    "web: refused to whoever may only ask",
    "web: several lines in a message",
    "web: sockets that chat",
    "web: sockets that echo",
    "web: spare connections",
    "web: told of draining",
    "web: told of draining in the delay",
    "web: told that all is well",
    "web: told why by a close frame",
    "web: too long",
    "web: too many fragments",
];

#[test]
fn whatever_the_seed_nothing_is_lost_and_nothing_is_forgotten() {
    if let Some(seed) = std::env::var("ONELOOP_SEED").ok().and_then(|text| text.parse().ok()) {
        println!("{:#?}", run(seed));
        return;
    }
    let mut counts = Counts::new();
    for seed in 0..std::env::var("ONELOOP_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SEEDS) {
        for (what, count) in run(seed) {
            *counts.entry(what).or_default() += count;
        }
    }
    println!("{counts:#?}");
    let web = MUST_HAPPEN_IN_THE_WEB.into_iter().filter(|_| web::WEB);
    for what in MUST_HAPPEN.into_iter().chain(web) {
        assert!(counts.contains_key(what), "in {SEEDS} seeds this never happened: {what}");
    }
}

thread_local! {
    /// The turn in which a panic came.
    static STEP: Cell<usize> = const { Cell::new(0) };
}

/// Runs one seed, and names it if it fails.
fn run(seed: u64) -> Counts {
    catch_unwind(AssertUnwindSafe(|| Simulation::new(seed).run())).unwrap_or_else(|panic| {
        let step = STEP.get();
        eprintln!("seed {seed}, step {step}: replay with ONELOOP_SEED={seed} cargo test --test sim");
        resume_unwind(panic)
    })
}

struct Simulation {
    world: Shared,
    reactor: Reactor<Fake>,
    ended: Option<Ended>,
}

impl Simulation {
    fn new(seed: u64) -> Simulation {
        STEP.set(0);
        let world = Rc::new(RefCell::new(World::new(seed)));
        let limits = world.borrow().limits.clone();
        let mut reactor = Reactor::new(Fake(world.clone()), limits);
        let handle = |node: usize| Handle { node, world: world.clone() };
        let listeners = world.borrow().listeners.clone();
        for ((service, name), node) in Service::DOORS.into_iter().zip(listeners) {
            let (handle, world) = (handle(node), world.clone());
            if service != Service::Health {
                reactor.listen(name, handle, move || machine(service, &world)).unwrap();
                continue;
            }
            #[cfg(feature = "web")]
            {
                let desk = Rc::new(Desk::new(&[], Default::default, world::own_address()));
                let machine = move || Box::new(Recorder::new(Web::new(desk.clone()), &world)) as Box<dyn Protocol>;
                reactor.monitor(name, handle, machine).unwrap();
            }
            #[cfg(not(feature = "web"))]
            reactor.monitor(name, handle, move || machine(Service::Lines, &world)).unwrap();
        }
        let (mailbox, signals) = { (world.borrow().mailbox, world.borrow().signals) };
        let responder = {
            let plan = &world.borrow().plan;
            Both(Responder::new(plan.reply), Ticker { left: plan.ticks, every: plan.tick_every })
        };
        let responder = Box::new(Recorder::new(responder, &world));
        reactor.serve_datagrams("responder", handle(mailbox), world::own_address(), responder).unwrap();
        reactor.stop_on(handle(signals)).unwrap();
        Simulation { world, reactor, ended: None }
    }

    fn run(mut self) -> Counts {
        self.storm();
        self.calm();
        self.quiet();
        self.check_end();
        let Simulation { world, reactor, .. } = self;
        world.borrow_mut().ending = true;
        drop(reactor);
        std::mem::take(&mut world.borrow_mut().counts)
    }

    /// Safety: everything that may go wrong does.
    fn storm(&mut self) {
        let (turns, stop) = { (self.world.borrow().plan.turns, self.world.borrow().plan.stop) };
        for turn in 0..turns {
            {
                let world = &mut *self.world.borrow_mut();
                world.clients_act();
                world.maybe_datagrams();
                match stop {
                    Stop::Midway(at) if turn == at => world.signal(),
                    Stop::Kill(at) if turn == at || turn > at && world.random.one_in(20) => world.signal(),
                    _ => (),
                }
            }
            self.turn();
            if self.ended.is_some() {
                return;
            }
        }
    }

    /// Liveness: nothing goes wrong any more, and everything owed arrives.
    fn calm(&mut self) {
        self.world.borrow_mut().stormy = false;
        if self.world.borrow().plan.stop == Stop::WhileOwing {
            self.world.borrow_mut().signal();
        }
        for _ in 0..20_000 {
            let acted = self.world.borrow_mut().clients_finish();
            let asleep = { self.world.borrow().asleep && self.world.borrow().edges.is_empty() };
            if self.ended.is_some() || asleep && !acted {
                return;
            }
            self.turn();
        }
        panic!("never came to rest: {:?}", self.reactor);
    }

    /// Whatever was to end has ended, nothing is armed, and a signal ends the rest.
    fn quiet(&mut self) {
        if self.ended == Some(Ended::Killed) {
            return;
        }
        if self.ended.is_some() {
            self.world.borrow_mut().web_door_is_left();
        }
        while self.world.borrow_mut().clients_finish() {} // what the kernel still holds for them
        self.check_all_gone();
        let stop = self.world.borrow().plan.stop;
        if stop == Stop::Quiet {
            self.world.borrow_mut().signal();
            self.turn();
            for _ in 0..10 {
                // A drain delay in which nothing happens.
                if self.ended.is_none() && self.world.borrow().stopped_at.is_none() {
                    self.turn();
                }
            }
        }
        assert_eq!(self.ended, (stop != Stop::Never).then_some(Ended::Drained), "the stop was {stop:?}");
    }

    fn turn(&mut self) {
        self.world.borrow_mut().turn_begins();
        STEP.set(self.world.borrow().turn);
        self.ended = self.reactor.turn().expect("the fake network can always go on");
        self.world.borrow_mut().turn_ends();
        self.check_counts();
        self.check_memory();
        let world = self.world.borrow();
        if let (Some(Ended::Drained), Some(at), true) = (self.ended, world.stopped_at, world.plan.fair) {
            assert!(world.now <= at + world.limits.drain, "the stop took {:?}", world.now - at);
        }
    }

    /// What the reactor counts in two ways comes to the same; monitors do not go on once everybody else has gone.
    fn check_counts(&mut self) {
        let (metrics, world) = (self.reactor.metrics(), &mut *self.world.borrow_mut());
        let (open, spare) = (metrics.open, metrics.spare_open);
        assert!(open <= world.limits.max_connections, "{open} are served");
        assert!(spare <= world.limits.max_spare, "{spare} are let in over the limit");
        let services = &metrics.services;
        assert_eq!(services.iter().map(|service| service.open).sum::<usize>(), open + spare);
        assert_eq!(services.iter().map(|service| service.accepted).sum::<u64>(), metrics.accepted);
        assert_eq!(metrics.turn.count() + 1, metrics.turns, "all turns but the one that is going on");
        world.spare_before = spare;
        let may_be_more = world.stopped_at.is_some();
        assert!(
            metrics.refused_open <= world.limits.max_refused || may_be_more,
            "{} are being refused",
            metrics.refused_open
        );
        world.is_crowded = metrics.refused_open >= world.limits.max_refused && open == world.limits.max_connections;
        let goes_on = world.stopped_at.is_some() && self.ended.is_none() && world.web_awaits(usize::MAX).is_none();
        assert!(!goes_on || !world.web_goes_on(), "monitors go on although everybody else has gone");
    }

    /// All queued bytes together stay within their budget and a little more for each connection.
    fn check_memory(&mut self) {
        let (queued, metrics) = (self.reactor.queued_bytes(), self.reactor.metrics());
        let limits = self.world.borrow().limits.clone();
        // The one turn of a connection that goes over the budget: what it may be owed and one answer more, and its input.
        let web = if self.world.borrow().plan.webby > 0 { web::ANSWER_BYTES } else { 0 };
        let answer = ANSWER_BYTES + limits.max_line_bytes + web;
        let last = limits.outbox_high_bytes + answer + limits.read_budget_bytes;
        // From then on nobody who is owed bytes is read, but everybody else may be, once: one lean read, which may end a
        // line and thereby become an answer. And everybody may be told why it ends.
        let each = limits.lean_read_bytes + answer + FAREWELL_BYTES;
        let most = limits.memory_bytes + last + each * (metrics.open + metrics.spare_open + metrics.refused_open);
        assert!(queued <= most, "{queued} bytes are queued, {most} at the most");
        if queued > limits.memory_bytes {
            self.world.borrow_mut().count("memory budget exceeded");
        }
    }

    fn check_all_gone(&mut self) {
        let world = &mut *self.world.borrow_mut();
        let metrics = self.reactor.metrics();
        let left = (metrics.open, metrics.spare_open, metrics.refused_open);
        assert_eq!(left, (0, 0, 0), "connections are left although all is quiet: {}", world.who_is_left());
        assert_eq!(self.reactor.queued_bytes(), 0, "bytes are queued for nobody");
        world.check_clients();
        if world.stopped_at.is_none() {
            world.chat_check_end(metrics.private_undelivered);
            world.check_mailbox();
        }
    }

    /// The reactor's own counts are those of the world.
    fn check_end(&mut self) {
        let metrics = self.reactor.metrics();
        let world = &mut *self.world.borrow_mut();
        let killed = self.ended == Some(Ended::Killed);
        for close in Close::ALL {
            assert_eq!(metrics.closed(close), world.total(CLOSED[close as usize]), "closed `{close}`");
        }
        let streams = world.lives.iter().filter(|life| life.is_stream);
        let (begun, ended) =
            (streams.clone().count() as u64, streams.filter(|life| life.closed.is_some()).count() as u64);
        assert!(killed || begun == ended, "{begun} connections began and {ended} ended");
        let same = [
            ("ended connections", metrics.closed_in_all(), ended),
            ("begun connections", metrics.accepted + metrics.refused, begun),
            ("accepted connections", begun + world.total("watches failed"), world.accepts),
            ("refused connections", metrics.refused, world.total("refused")),
            ("descriptors ran out", metrics.accept_exhausted, world.total("descriptors ran out")),
            ("accepts passing", metrics.accept_passing, world.total("accepts passing")),
            ("bytes in", metrics.bytes_in, world.bytes_in),
            ("bytes out", metrics.bytes_out, world.bytes_out),
            ("turns", metrics.turns, world.turn as u64),
            ("expired", metrics.expired, world.total("expired")),
            ("datagrams received", metrics.datagrams_in, world.total("datagrams received")),
            ("datagrams ignored", metrics.datagrams_ignored, world.total("datagrams ignored")),
            ("datagrams too large", metrics.datagrams_too_large, world.total("datagrams too large")),
            ("receives failed", metrics.datagrams_failed, world.total("receives failed")),
            ("sends failed", metrics.datagrams_unsent, world.total("sends failed")),
        ];
        for (what, counted, happened) in same {
            assert_eq!(counted, happened, "{what}: the reactor counted {counted}");
        }
        match self.ended {
            Some(Ended::Drained) => {
                let datagrams = world.lives.first().expect("the first machine is that of the datagrams");
                assert_eq!((datagrams.is_stream, datagrams.closed), (false, Some(Close::Shutdown)));
                world.count("ended: drained");
            }
            Some(Ended::Killed) => world.count("ended: killed"),
            None => (),
        }
    }
}

/// What an answer adds to its line: `echo: ` and the end of the line.
const ANSWER_BYTES: usize = 7;

/// More than the longest `ERROR word: sentence`.
const FAREWELL_BYTES: usize = 60;

/// A machine for a connection, with the recorder around it.
fn machine(service: Service, world: &Shared) -> Box<dyn Protocol> {
    let (ticker, producer) = {
        let plan = &world.borrow().plan;
        let (total, chunk, closes) = (plan.produce_bytes, plan.produce_chunk, plan.producer_closes);
        (Ticker { left: plan.ticks, every: plan.tick_every }, Producer { produced: 0, total, chunk, closes })
    };
    match service {
        Service::Lines => Box::new(Recorder::new(LineEcho::default(), world)),
        Service::Raw => Box::new(Recorder::new(RawEcho, world)),
        Service::Ticker => Box::new(Recorder::new(ticker, world)),
        Service::Producer => Box::new(Recorder::new(producer, world)),
        Service::Chat => Box::new(Recorder::new(Chat::default(), world)),
        Service::Health | Service::WebEcho | Service::WebChat => unreachable!("they have a machine of their own"),
    }
}
