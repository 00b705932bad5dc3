//! Stopping: what was read is answered, nobody is reset, and it ends in time; or at once, for who asks twice.

mod common;

use common::{Client, Pump, Server, until};
use rustix::process::Signal;
use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const GOODBYE: &str = "ERROR shutdown: the server stops\n";

#[test]
fn an_idle_client_that_stays_delays_the_end_by_less_than_a_second() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Server::echo(&[]);
        let mut client = server.client();
        assert_eq!(client.ask("hello"), "echo: hello");
        let start = Instant::now();
        server.process.signal(signal);
        assert_eq!(client.rest_text(), GOODBYE);
        // It keeps its own side open, as `nc` does at a terminal.
        assert_eq!(server.process.wait().code(), Some(0));
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        drop(client);
    }
}

#[test]
fn with_nobody_there_it_ends_at_once() {
    let mut server = Server::start(3, &["--echo", "127.0.0.1:0", "--raw", "127.0.0.1:0", "--udp", "127.0.0.1:0"]);
    let start = Instant::now();
    server.stop();
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[test]
fn clients_in_full_flight_read_whole_answers_then_the_reason_then_the_end() {
    let mut server = Server::echo(&[]);
    let mut pumps = Pump::echoes(4, server.address());
    Pump::run(&mut pumps, "a mebibyte each", |pump| pump.received > 1 << 20);
    server.process.signal(Signal::TERM);
    // They go on sending until they have read why not.
    Pump::run(&mut pumps, "the end", |pump| pump.ended);
    for pump in &pumps {
        assert_eq!(pump.last.escape_ascii().to_string(), GOODBYE.escape_default().to_string());
    }
    drop(pumps);
    assert_eq!(server.process.wait().code(), Some(0));
}

#[test]
fn what_is_owed_to_clients_that_have_not_read_yet_is_sent_before_the_end() {
    let mut server = Server::echo(&[]);
    let mut pumps = Pump::echoes(4, server.address());
    Pump::press(&mut pumps);
    server.process.signal(Signal::TERM);
    server.log.line("stopping");
    pumps.iter_mut().for_each(Pump::enough);
    Pump::run(&mut pumps, "the end", |pump| pump.ended);
    for pump in &pumps {
        assert_eq!(pump.last.escape_ascii().to_string(), GOODBYE.escape_default().to_string());
        assert!(pump.lines() > 256, "less than what the marks alone let in: {}", pump.lines());
    }
    drop(pumps);
    assert_eq!(server.process.wait().code(), Some(0));
}

#[test]
fn whoever_waits_in_the_backlog_is_still_answered() {
    let mut server = Server::echo(&[]);
    // More than are accepted in one turn, and all of them there before the signal is.
    server.process.freeze();
    let mut clients: Vec<Client> = (0..200).map(|_| server.client()).collect();
    clients.iter_mut().for_each(|client| client.send("hello\n"));
    server.process.signal(Signal::TERM);
    server.process.thaw();
    for client in &mut clients {
        assert_eq!(client.rest_text(), format!("echo: hello\n{GOODBYE}"));
    }
    drop(clients);
    assert_eq!(server.process.wait().code(), Some(0));
}

#[test]
fn datagrams_that_wait_are_still_answered() {
    let mut server = Server::udp(&[]);
    let clients: Vec<_> = (0..3).map(|_| common::udp_client(server.address())).collect();
    // More than are taken in one turn, and all of them there before the signal is.
    server.process.freeze();
    for client in &clients {
        for _ in 0..100 {
            client.send(b"hi").expect("sent");
        }
    }
    server.process.signal(Signal::TERM);
    server.process.thaw();
    for client in &clients {
        (0..100).for_each(|_| assert_eq!(common::receive(client), b"OK"));
    }
    assert_eq!(server.process.wait().code(), Some(0));
}

#[test]
fn an_unfinished_line_does_not_delay_the_end() {
    let mut server = Server::echo(&[]);
    let mut client = server.client();
    client.send("whole\nbegun");
    assert_eq!(client.text(), "echo: whole");
    let start = Instant::now();
    server.process.signal(Signal::TERM);
    assert_eq!(client.rest_text(), GOODBYE);
    assert_eq!(server.process.wait().code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[test]
fn a_raw_client_reads_all_that_is_owed_and_the_end_alone() {
    let mut server = Server::raw(&[]);
    let stream = TcpStream::connect(server.address()).expect("a connection");
    let mut pumps = [Pump::raw(0, stream)];
    Pump::press(&mut pumps);
    server.process.signal(Signal::TERM);
    server.log.line("stopping");
    pumps[0].enough();
    Pump::run(&mut pumps, "the end", |pump| pump.ended);
    assert_eq!(pumps[0].last, b"");
    assert!(pumps[0].received > 256 * 1024);
    drop(pumps);
    assert_eq!(server.process.wait().code(), Some(0));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for [first, second] in [[Signal::TERM, Signal::TERM], [Signal::INT, Signal::TERM]] {
        let mut server = Server::echo(&[]);
        let mut pumps = Pump::echoes(1, server.address());
        Pump::press(&mut pumps); // owed much and taking nothing: it would be waited for
        server.process.signal(first);
        server.log.line("stopping");
        let start = Instant::now();
        server.process.signal(second);
        assert_eq!(server.process.wait().code(), Some(1));
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }
}

#[test]
fn the_drain_time_ends_the_wait_for_a_client_that_takes_nothing() {
    let mut server = Server::echo(&["--drain", "300ms"]);
    let mut pumps = Pump::echoes(1, server.address());
    Pump::press(&mut pumps);
    let start = Instant::now();
    server.process.signal(Signal::TERM);
    assert_eq!(server.process.wait().code(), Some(0));
    let elapsed = start.elapsed();
    assert!(elapsed >= Duration::from_millis(300), "it was given up after {elapsed:?}");
    assert!(elapsed < Duration::from_secs(3), "{elapsed:?}");
    let log = server.log.all();
    assert!(log.lines().any(|line| line.contains(" WARN ") && line.contains("1 connections were cut off")), "{log}");
}

#[test]
fn the_write_timeout_ends_the_wait_too() {
    let mut server = Server::echo(&["--write-timeout", "300ms", "--drain", "1m"]);
    let mut pumps = Pump::echoes(1, server.address());
    Pump::press(&mut pumps);
    server.process.signal(Signal::TERM);
    assert_eq!(server.process.wait().code(), Some(0));
    let log = server.log.all();
    assert!(log.contains("stalled") && !log.contains("cut off"), "{log}");
}

#[test]
fn nobody_new_is_let_in_once_it_stops() {
    let mut server = Server::echo(&[]);
    let mut pumps = Pump::echoes(1, server.address());
    Pump::press(&mut pumps); // keeps it from ending
    server.process.signal(Signal::TERM);
    let refused = |error: std::io::Error| error.kind() == ErrorKind::ConnectionRefused;
    until("the listener to be closed", || TcpStream::connect(server.address()).is_err_and(refused));
    pumps[0].enough();
    Pump::run(&mut pumps, "the end", |pump| pump.ended);
    drop(pumps);
    assert_eq!(server.process.wait().code(), Some(0));
}

#[test]
fn a_client_that_keeps_sending_after_the_end_does_not_keep_it() {
    let mut server = Server::raw(&[]);
    let mut client = server.client();
    client.send("in");
    assert_eq!(client.take(2), b"in");
    let start = Instant::now();
    server.process.signal(Signal::TERM);
    assert_eq!(client.rest(), b"");
    // It has read the end and sends on, until there is nobody to send to.
    until("the connection to be gone", || client.stream().write_all(b"more").is_err());
    assert_eq!(server.process.wait().code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(5), "lingering is bounded: {:?}", start.elapsed());
}
