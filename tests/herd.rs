//! A thousand line clients whose server is restarted: they come back, and not in step. On the fake network, seeded.

#![cfg(feature = "client")]

mod fake;

use fake::{Answer, Bench};
use oneloop::limits::Limits;
use oneloop::protocol::client::connect::{Dialer, Session, Settings};
use oneloop::protocol::client::{Route, Way};
use oneloop::protocol::echo::RawEcho;
use std::net::SocketAddr;
use std::time::Duration;

const CLIENTS: usize = 1000;

const WINDOW: Duration = Duration::from_millis(100);

/// A thousand clients, each with a connection that has lived for so long.
fn herd(seed: u64, lived: Duration) -> Bench {
    let mut bench = Bench::new::<RawEcho>(Limits::default());
    bench.seed(seed);
    for _ in 0..CLIENTS {
        let addresses = vec![SocketAddr::from(([192, 0, 2, 1], 9001))];
        let route = Route { name: "192.0.2.1:9001".to_string(), addresses, way: Way::Lines };
        let session = Session::new(Settings { route, nick: None, room: None, reconnect: true });
        bench.reactor.add("connect", Box::new(Dialer::new(&session)));
    }
    bench.run();
    assert_eq!(bench.dials().len(), CLIENTS);
    bench.run_for(lived);
    assert_eq!(bench.dials(), [], "who is connected rests");
    bench
}

/// The server ends every connection, is away for so long, and takes whoever comes then. Returns when each was taken, and how
/// often each moment was tried.
fn restart(bench: &mut Bench, away: Duration) -> (Vec<Duration>, Vec<Duration>) {
    bench.set_answer(if away.is_zero() { Answer::Accepts } else { Answer::Refuses });
    let alive: Vec<usize> = (0..=bench.last()).filter(|peer| !bench.is_gone(*peer)).collect();
    assert_eq!(alive.len(), CLIENTS);
    alive.into_iter().for_each(|peer| bench.end(peer));
    bench.run_for(away);
    bench.set_answer(Answer::Accepts);
    bench.run_for(Duration::from_secs(31)); // nobody waits longer than 30 s
    let dials = bench.dials();
    let all = dials.iter().map(|(at, _)| *at).collect();
    (dials.into_iter().filter(|(_, answer)| *answer == Answer::Accepts).map(|(at, _)| at).collect(), all)
}

/// The most in any 100 ms, wherever they begin.
fn busiest(at: &[Duration]) -> usize {
    let within = |first: usize| at[first..].iter().take_while(|other| **other < at[first] + WINDOW).count();
    (0..at.len()).map(within).max().unwrap_or(0)
}

#[test]
fn a_thousand_clients_come_back_and_no_100_ms_hold_more_than_a_tenth_of_them() {
    for seed in 0..5 {
        for away_ms in [0, 50, 1_000, 3_000, 20_000, 100_000] {
            let mut bench = herd(seed, Duration::from_secs(20));
            // And once more while they are young, so that they do not begin anew.
            for round in 0..2 {
                let (taken, tried) = restart(&mut bench, Duration::from_millis(away_ms));
                assert_eq!(taken.len(), CLIENTS, "seed {seed}, away for {away_ms} ms: all come back");
                let most = [busiest(&taken), busiest(&tried)];
                assert!(
                    most.iter().all(|most| *most <= CLIENTS / 10),
                    "seed {seed}, away {away_ms} ms, {round}: {most:?}"
                );
            }
        }
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = |seed| restart(&mut herd(seed, Duration::from_secs(20)), Duration::from_secs(3));
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn a_server_that_ends_everybody_at_once_is_asked_less_and_less() {
    let mut bench = herd(3, Duration::from_secs(20));
    let mut spans = Vec::new();
    for round in 0..4 {
        if round == 3 {
            bench.run_for(Duration::from_secs(10));
        }
        let begin = bench.now();
        let alive: Vec<usize> = (0..=bench.last()).filter(|peer| !bench.is_gone(*peer)).collect();
        alive.into_iter().for_each(|peer| bench.end(peer));
        bench.run(); // all at one moment
        let mut dials = Vec::new();
        while dials.len() < CLIENTS {
            bench.run_for(Duration::from_millis(100));
            dials.extend(bench.dials());
            assert!(bench.now() - begin < Duration::from_secs(31));
        }
        spans.push((bench.now() - begin).as_secs_f64());
    }
    // The last of a thousand comes close to the bound, which doubles, and is what it was at first for who has lived for 10 s.
    assert!(spans[0] > 1.9 && spans[0] <= 2.1, "{spans:?}");
    assert!(spans[1] > 3.8 && spans[1] <= 4.1, "{spans:?}");
    assert!(spans[2] > 7.6 && spans[2] <= 8.1, "{spans:?}");
    assert!(spans[3] > 1.9 && spans[3] <= 2.1, "{spans:?}");
}
