//! The heartbeat on a clock that moves only when the loop would sleep: every deadline to the microsecond, through the real
//! loop. And deadlines altogether: paused while a peer is not read, judged late after a suspension, no wake-up too many.

mod fake;

use fake::Bench;
use oneloop::close::Close;
use oneloop::limits::{Heartbeat, Limits, SlowReader};
use oneloop::protocol::chat::Chat;
use oneloop::protocol::echo::{LineEcho, RawEcho};
use std::time::Duration;

const US: Duration = Duration::from_micros(1);

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Everybody is probed.
fn all() -> Limits {
    Limits { heartbeat: Heartbeat::All, ..Limits::default() }
}

#[test]
fn silence_is_asked_after_the_interval_then_after_each_timeout_and_ends_after_all_of_them() {
    for (interval, timeout, retries) in [
        (seconds(10), seconds(5), 2),
        (Duration::from_micros(3_000_001), Duration::from_micros(700_003), 4),
        (Duration::from_millis(1), seconds(9), 0),
        (seconds(1), Duration::from_millis(1), 100),
    ] {
        let limits =
            Limits { heartbeat_interval: interval, heartbeat_timeout: timeout, heartbeat_retries: retries, ..all() };
        let patience = limits.patience();
        assert_eq!(patience, interval + timeout * (retries + 1));
        let mut bench = Bench::new::<LineEcho>(limits);
        bench.run_to(Duration::from_micros(123_457));
        let began = bench.now();
        let peer = bench.connect();
        for asked in 0..=retries {
            bench.run_to(began + interval + timeout * asked - US);
            assert_eq!(bench.take(peer), "", "too early");
            bench.run_for(US);
            assert_eq!(bench.take(peer), "PING\n", "after {asked} of {retries}");
        }
        bench.run_to(began + patience - US);
        assert!(!bench.is_over(peer) && bench.take(peer).is_empty());
        bench.run_for(US);
        assert!(bench.is_over(peer));
        assert_eq!(bench.take(peer), format!("ERROR heartbeat: no sign of life after {} PINGs\n", retries + 1));
        bench.run_for(seconds(60));
        assert!(bench.is_gone(peer));
        assert_eq!(bench.reactor.metrics().closed(Close::Heartbeat), 1);
    }
}

#[test]
fn any_byte_at_any_time_begins_it_again() {
    let limits = all();
    let [interval, timeout] = [limits.heartbeat_interval, limits.heartbeat_timeout];
    // So many PINGs unanswered, and how long before the next deadline: 0 is the very moment.
    for (asked, early) in [0, 1, 2, 3].into_iter().flat_map(|asked| [0, 1, 2_345_678].map(|early| (asked, early))) {
        let mut bench = Bench::new::<LineEcho>(all());
        let peer = bench.connect();
        let deadline = interval + timeout * asked;
        bench.run_to(deadline - Duration::from_micros(early.max(1)));
        assert_eq!(bench.take(peer), "PING\n".repeat(asked as usize));
        if early == 0 {
            // It comes at the moment of judgement itself: what has come is looked at first.
            bench.suspend(US);
        }
        bench.send(peer, "x");
        let heard = bench.now();
        bench.run_to(heard + interval - US);
        assert_eq!((bench.take(peer).as_str(), bench.is_over(peer)), ("", false), "{asked} asked, {early} us early");
        bench.run_for(US);
        assert_eq!(bench.take(peer), "PING\n");
        // And it has all its retries again.
        bench.run_to(heard + bench_patience() - US);
        assert!(!bench.is_over(peer));
        bench.run_for(US);
        assert!(bench.is_over(peer));
    }
}

fn bench_patience() -> Duration {
    all().patience()
}

#[test]
fn pongs_late_doubled_or_unasked_are_a_sign_of_life_and_never_answered() {
    let mut bench = Bench::new::<LineEcho>(all());
    let peer = bench.connect();
    // Late: the second PING is out when the answer to the first comes, and then that to the second.
    bench.run_to(seconds(16));
    assert_eq!(bench.take(peer), "PING\nPING\n");
    bench.send(peer, "PONG\n");
    bench.run_to(seconds(17));
    bench.send(peer, "PONG\n");
    bench.run_to(seconds(27) - US);
    assert_eq!(bench.take(peer), "");
    bench.run_for(US);
    assert_eq!(bench.take(peer), "PING\n");
    // Doubled.
    bench.send(peer, "PONG\r\nPONG\n");
    bench.run_to(seconds(37) - US);
    assert_eq!(bench.take(peer), "");
    bench.run_for(US);
    assert_eq!(bench.take(peer), "PING\n");
    bench.send(peer, "PONG\n");
    // Unasked, again and again: never asked meanwhile.
    for moment in 38..100 {
        bench.run_to(seconds(moment));
        bench.send(peer, "PONG\n");
    }
    assert_eq!(bench.take(peer), "");
    assert_eq!(bench.reactor.metrics().closed_in_all(), 0);
    // A number, or anything else, makes it a line.
    for line in ["PONG 1", "pong", " PONG", "PING 7", "ping", "PING\t"] {
        bench.send(peer, format!("{line}\n"));
        assert_eq!(bench.take(peer), format!("echo: {line}\n"));
    }
    bench.end(peer);
    bench.run();
    assert!(bench.is_over(peer));
}

#[test]
fn pings_that_cross_are_both_answered_and_both_a_sign_of_life() {
    let mut bench = Bench::new::<LineEcho>(all());
    let peer = bench.connect();
    bench.run_to(seconds(10));
    assert_eq!(bench.take(peer), "PING\n");
    // It was under way when ours was sent.
    bench.run_for(US);
    bench.send(peer, "PING\n");
    assert_eq!(bench.take(peer), "PONG\n");
    bench.run_for(Duration::from_millis(40));
    bench.send(peer, "PONG\n");
    let heard = bench.now();
    bench.run_to(heard + seconds(10) - US);
    assert_eq!(bench.take(peer), "");
    // At the very moment of ours: it has been heard, so it is not asked.
    bench.suspend(US);
    bench.send(peer, "PING\n");
    assert_eq!(bench.take(peer), "PONG\n");
    bench.run_for(seconds(10) - US);
    assert_eq!(bench.take(peer), "");
    bench.run_for(US);
    assert_eq!(bench.take(peer), "PING\n");
}

#[test]
fn by_default_only_who_speaks_heartbeat_is_asked() {
    for word in ["PING", "PONG"] {
        let mut bench = Bench::new::<LineEcho>(Limits::default());
        let peer = bench.connect();
        let wakes = bench.deadline_wakes();
        bench.run_for(seconds(86_400));
        for line in ["hello", "ping", "PING 1", ""] {
            bench.send(peer, format!("{line}\n"));
            assert_eq!(bench.take(peer), format!("echo: {line}\n"));
        }
        bench.run_for(seconds(86_400));
        assert_eq!(bench.take(peer), "");
        assert_eq!(bench.deadline_wakes(), wakes, "nothing to wake up for in two days");
        bench.send(peer, format!("{word}\n"));
        assert_eq!(bench.take(peer), if word == "PING" { "PONG\n" } else { "" });
        bench.run_for(seconds(10) - US);
        assert_eq!(bench.take(peer), "");
        bench.run_for(US);
        assert_eq!(bench.take(peer), "PING\n", "it said {word}");
        bench.run_for(seconds(15));
        assert!(bench.is_over(peer));
    }
}

#[test]
fn heartbeat_off_asks_nobody_and_answers_everybody() {
    let mut bench = Bench::new::<Chat>(Limits { heartbeat: Heartbeat::Off, ..Limits::default() });
    let peer = bench.connect();
    assert!(bench.take(peer).starts_with("WELCOME guest-1,"));
    bench.send(peer, "PING\nPONG\n");
    assert_eq!(bench.take(peer), "PONG\n");
    let wakes = bench.deadline_wakes();
    bench.run_for(seconds(86_400));
    assert_eq!((bench.take(peer).as_str(), bench.deadline_wakes()), ("", wakes));
}

#[test]
fn everybody_on_a_text_service_is_asked_and_nobody_on_a_raw_one() {
    let mut chat = Bench::new::<Chat>(all());
    let peer = chat.connect();
    chat.take(peer);
    chat.run_for(seconds(10));
    assert_eq!(chat.take(peer), "PING\n");
    chat.run_for(seconds(15));
    assert_eq!(chat.take(peer), "PING\nPING\nERROR heartbeat: no sign of life after 3 PINGs\n");
    let mut raw = Bench::new::<RawEcho>(all());
    let peer = raw.connect();
    raw.run_for(seconds(86_400));
    assert_eq!((raw.take(peer).as_str(), raw.is_over(peer)), ("", false));
    raw.send(peer, "PING\n");
    assert_eq!(raw.take(peer), "PING\n");
}

#[test]
fn after_an_hour_of_suspension_nobody_whose_answer_waits_is_judged_dead() {
    const CLIENTS: usize = 5000;
    // Full batches, the last of them exactly full, and all in one.
    for batch in [1024, 1000, 7, CLIENTS + 1] {
        let mut bench = Bench::new::<LineEcho>(all());
        bench.set_batch(batch);
        let peers: Vec<usize> = (0..CLIENTS + 10).map(|_| bench.connect_later()).collect();
        bench.run();
        let (live, silent) = peers.split_at(CLIENTS);
        // All have used up their retries but for the last answer, which comes while the process is suspended.
        bench.run_to(seconds(20));
        peers.iter().for_each(|peer| assert_eq!(bench.take(*peer), "PING\n".repeat(3)));
        bench.suspend(seconds(3600));
        live.iter().for_each(|peer| bench.arrive(*peer, "PONG\n"));
        bench.run();
        let woken = bench.now();
        assert!(live.iter().all(|peer| !bench.is_over(*peer)));
        assert!(silent.iter().all(|peer| bench.is_over(*peer)));
        bench.run_to(woken + seconds(10) - US);
        live.iter().for_each(|peer| assert_eq!(bench.take(*peer), ""));
        bench.run_for(US);
        live.iter().for_each(|peer| assert_eq!(bench.take(*peer), "PING\n"));
        assert_eq!(bench.reactor.metrics().closed(Close::Heartbeat), silent.len() as u64);
    }
}

#[test]
fn a_member_that_held_up_its_room_when_the_process_was_suspended_is_asked_before_it_is_judged() {
    let limits = Limits { slow_reader: SlowReader::Block, ..Limits::default() };
    let mut bench = Bench::new::<Chat>(limits);
    let [author, reader] = [bench.connect(), bench.connect()];
    bench.set_room(reader, 0);
    bench.send(author, "first\nsecond\n");
    bench.run_for(seconds(1));
    bench.take(reader);
    bench.suspend(seconds(3600));
    bench.set_room(reader, usize::MAX); // it has read while we could not see it
    bench.run();
    assert_eq!(bench.take(reader), "MESSAGE guest-1: first\nMESSAGE guest-1: second\n");
    bench.run_for(seconds(60));
    assert_eq!(bench.reactor.metrics().closed_in_all(), 0);
}

#[test]
fn a_peer_that_is_not_read_for_what_it_is_owed_keeps_what_it_had_left_of_its_time() {
    let limits = Limits {
        max_line_bytes: 1000,
        outbox_high_bytes: 4000,
        outbox_low_bytes: 1000,
        write_timeout: seconds(3600),
        ..all()
    };
    let line = format!("{}\n", "x".repeat(999));
    // Everything was answered when reading stopped; or something is held back, and taken up in two goes.
    for (lines, goes) in [(4, 1), (12, 1), (12, 2), (100, 9)] {
        let mut bench = Bench::new::<LineEcho>(limits.clone());
        let peer = bench.connect();
        bench.set_room(peer, 0);
        bench.run_for(seconds(3));
        bench.send(peer, line.repeat(lines));
        for go in 1..=goes {
            bench.run_for(seconds(1000));
            assert!(!bench.is_over(peer), "not judged while it is not read");
            bench.set_room(peer, if go == goes { usize::MAX } else { 4 * 1006 });
            bench.run();
        }
        assert_eq!(bench.take(peer), format!("echo: {line}").repeat(lines));
        bench.run_for(seconds(10) - US);
        assert_eq!(bench.take(peer), "", "{lines} lines in {goes} goes");
        bench.run_for(US);
        assert_eq!(bench.take(peer), "PING\n", "{lines} lines in {goes} goes");
    }
}

#[test]
fn what_was_left_of_the_time_when_reading_stopped_is_left_when_it_begins_again() {
    let limits = Limits {
        max_line_bytes: 1000,
        room_log_bytes: 64 << 10,
        memory_bytes: 64 << 10,
        write_timeout: seconds(3600),
        ..all()
    };
    let mut bench = Bench::new::<LineEcho>(limits);
    let line = format!("{}\n", "x".repeat(999));
    let (owed, hog) = (bench.connect(), bench.connect());
    bench.set_room(owed, 0);
    bench.set_room(hog, 0);
    bench.send(owed, "hello\n");
    // After four seconds the memory is used up, and whoever is owed something is not read.
    bench.run_for(seconds(4));
    bench.send(hog, line.repeat(100));
    bench.nudge(owed);
    bench.arrive(owed, "y");
    bench.run();
    assert_eq!(bench.unread(owed), 1, "not read for want of memory");
    bench.run_for(seconds(700));
    assert!(!bench.is_over(owed) && bench.take(owed).is_empty());
    // The memory is free again; six seconds are left, but the byte that waits is read first.
    bench.set_room(hog, usize::MAX);
    bench.run();
    bench.set_room(owed, usize::MAX);
    bench.run();
    assert_eq!((bench.take(owed).as_str(), bench.unread(owed)), ("echo: hello\n", 0));
    bench.run_for(seconds(10) - US);
    assert_eq!(bench.take(owed), "");
    bench.run_for(US);
    assert_eq!(bench.take(owed), "PING\n");

    // The same again with nothing that waits.
    let limits = Limits { max_line_bytes: 1000, room_log_bytes: 64 << 10, memory_bytes: 64 << 10, ..all() };
    let mut bench = Bench::new::<LineEcho>(Limits { write_timeout: seconds(3600), ..limits });
    let (owed, hog) = (bench.connect(), bench.connect());
    bench.set_room(owed, 0);
    bench.set_room(hog, 0);
    bench.send(owed, "hello\n");
    bench.run_for(seconds(4));
    bench.send(hog, line.repeat(100));
    bench.nudge(owed);
    bench.run_for(seconds(700));
    bench.set_room(hog, usize::MAX);
    bench.run();
    bench.set_room(owed, usize::MAX);
    bench.run();
    assert_eq!(bench.take(owed), "echo: hello\n");
    bench.run_for(seconds(6) - US);
    assert_eq!(bench.take(owed), "");
    bench.run_for(US);
    assert_eq!(bench.take(owed), "PING\n");
}

#[test]
fn a_publisher_that_waits_for_its_room_is_not_judged_and_then_goes_on() {
    let limits = Limits {
        max_line_bytes: 1000,
        room_log_bytes: 8 << 10,
        slow_reader: SlowReader::Block,
        write_timeout: seconds(60),
        heartbeat_interval: seconds(2),
        heartbeat_timeout: seconds(1),
        ..all()
    };
    let patience = limits.patience();
    let line = format!("{}\n", "x".repeat(999));
    // The reader reads on after a while, or never.
    for reads in [true, false] {
        let mut bench = Bench::new::<Chat>(limits.clone());
        let (author, reader) = (bench.connect(), bench.connect());
        bench.set_room(reader, 0);
        bench.arrive(reader, "PONG\n");
        bench.send(author, line.repeat(20));
        bench.take(author);
        let held = bench.now();
        // Meanwhile the reader is alive, but takes nothing.
        let reader_lives = |bench: &mut Bench, until: Duration| {
            while bench.now() < until {
                bench.send(reader, "PONG\n");
                bench.run_to((bench.now() + seconds(1)).min(until));
            }
        };
        assert!(patience < seconds(30));
        reader_lives(&mut bench, held + seconds(30));
        assert_eq!((bench.take(author).as_str(), bench.is_over(author)), ("", false), "not judged while it waits");
        if reads {
            bench.set_room(reader, usize::MAX);
            bench.run();
            assert_eq!(bench.take(reader).matches("MESSAGE guest-1: x").count(), 20, "nothing lost");
        } else {
            reader_lives(&mut bench, held + seconds(60) - US);
            assert!(!bench.is_over(reader), "{:?}", bench.now());
            assert_eq!(bench.take(author), "");
            bench.run_for(US);
            assert!(bench.is_gone(reader), "a microsecond longer than the write timeout");
            assert_eq!(bench.take(author), "LEAVE guest-2: stalled\n");
        }
        let resumed = bench.now();
        bench.run_to(resumed + seconds(2) - US);
        assert_eq!(bench.take(author), "", "reads: {reads}");
        bench.run_for(US);
        assert_eq!(bench.take(author), "PING\n");
    }
}

#[test]
fn the_loop_wakes_once_for_a_deadline_and_never_to_look_for_one() {
    const CLIENTS: usize = 10_000;
    let limits = Limits { accept_budget: CLIENTS, ..all() };
    let interval = limits.heartbeat_interval;
    let mut bench = Bench::new::<LineEcho>(limits);
    // A moment of its own for each.
    let peers: Vec<(usize, Duration)> = (0..CLIENTS)
        .map(|_| {
            bench.run_for(17 * US);
            (bench.connect(), bench.now())
        })
        .collect();
    assert_eq!(bench.deadline_wakes(), 0);
    bench.run_to(interval);
    let turns = bench.reactor.metrics().turns;
    for (number, (peer, connected)) in peers.iter().enumerate() {
        bench.run_to(*connected + interval);
        assert_eq!(bench.deadline_wakes(), number + 1, "one wake-up a PING");
        assert_eq!(bench.take(*peer), "PING\n");
        bench.send(*peer, "PONG\n");
    }
    // A wake-up, an answer, and the ends of both stretches that the test runs: nothing that grows with the others.
    assert!(bench.reactor.metrics().turns - turns <= 5 * CLIENTS as u64);
    // The timeouts that the answers made void are one wake-up each, and the next PINGs one each.
    bench.run_to(peers[0].1 + 2 * interval - US);
    assert_eq!(bench.deadline_wakes(), 2 * CLIENTS);
    bench.run_to(peers[CLIENTS - 1].1 + 2 * interval);
    assert_eq!(bench.deadline_wakes(), 3 * CLIENTS);
    peers.iter().for_each(|(peer, _)| assert_eq!(bench.take(*peer), "PING\n"));
    // Whoever talks is not looked at for it: a deadline moves in its slot, and costs one wake-up an interval.
    let mut bench = Bench::new::<LineEcho>(all());
    let peer = bench.connect();
    for _ in 0..1000 {
        bench.run_for(Duration::from_millis(100));
        bench.send(peer, "x");
    }
    assert!(bench.deadline_wakes() <= 11, "{} in ten intervals", bench.deadline_wakes());
}
