//! In the steady state a message costs no heap allocation: none at all, counted by the allocator of this test.

mod common;

use allocation_counter::measure;
use common::{receive, udp_client};
use oneloop::limits::Limits;
use oneloop::net::mio::{MioNet, bind_udp, listen};
use oneloop::protocol::Protocol;
use oneloop::protocol::datagram::{Reply, Responder};
use oneloop::protocol::echo::{LineEcho, RawEcho};
use oneloop::reactor::Reactor;
use std::io::{Read, Write};
use std::net::TcpStream;

/// Messages before the counting begins: what is kept for later has then been taken once.
const WARM_UP: usize = 100;
const MESSAGES: usize = 1000;

/// Turns until `done`, and counts the allocations of the loop alone.
fn turn_until(reactor: &mut Reactor<MioNet>, mut done: impl FnMut(&Reactor<MioNet>) -> bool) -> u64 {
    let mut allocations = 0;
    while !done(reactor) {
        allocations += measure(|| assert_eq!(reactor.turn().expect("the poll works"), None)).count_total;
    }
    allocations
}

/// Allocations of `MESSAGES` messages of several sizes, each answered before the next is sent.
fn allocations_of_a_stream<P: Protocol + 'static>(machine: impl Fn() -> P + 'static, prefix: &str) -> u64 {
    let limits = Limits::default();
    let mut reactor = Reactor::new(MioNet::new(&limits).expect("a poll"), limits.clone());
    let listener = listen("127.0.0.1:0".parse().expect("an address"), &limits).expect("a free port");
    let address = listener.local_addr().expect("an address");
    reactor.listen("stream", listener, move || Box::new(machine())).expect("it is watched");
    let mut client = TcpStream::connect(address).expect("a connection");
    client.set_read_timeout(Some(common::PATIENCE)).expect("a timeout");
    let (mut allocations, mut answered) = (0, 0);
    for number in 0..WARM_UP + MESSAGES {
        let message = [&vec![b'x'; number * 37 % 2000][..], b"\n"].concat();
        client.write_all(&message).expect("sent");
        answered += (prefix.len() + message.len()) as u64;
        let count = turn_until(&mut reactor, |reactor| reactor.metrics().bytes_out == answered);
        let mut answer = vec![0; prefix.len() + message.len()];
        client.read_exact(&mut answer).expect("an answer");
        assert!(answer.starts_with(prefix.as_bytes()) && answer.ends_with(&message));
        allocations += if number < WARM_UP { 0 } else { count };
    }
    allocations
}

#[test]
fn the_counter_counts() {
    assert_eq!(measure(|| drop(std::hint::black_box(Box::new(1)))).count_total, 1);
    assert_eq!(measure(|| ()).count_total, 0);
}

#[test]
fn a_line_costs_no_allocation() {
    assert_eq!(allocations_of_a_stream(LineEcho::default, "echo: "), 0);
}

#[test]
fn a_piece_of_raw_echo_costs_no_allocation() {
    assert_eq!(allocations_of_a_stream(|| RawEcho, ""), 0);
}

#[test]
fn a_line_in_two_pieces_costs_no_allocation() {
    let limits = Limits { idle_timeout: Some(common::PATIENCE), ..Limits::default() }; // a deadline moves with each message
    let mut reactor = Reactor::new(MioNet::new(&limits).expect("a poll"), limits.clone());
    let listener = listen("127.0.0.1:0".parse().expect("an address"), &limits).expect("a free port");
    let address = listener.local_addr().expect("an address");
    reactor.listen("echo", listener, || Box::new(LineEcho::default())).expect("it is watched");
    let mut client = TcpStream::connect(address).expect("a connection");
    client.set_read_timeout(Some(common::PATIENCE)).expect("a timeout");
    client.set_nodelay(true).expect("no delay");
    let (mut allocations, mut count) = (0, 0);
    for number in 0..WARM_UP + MESSAGES {
        let turned = |reactor: &mut Reactor<MioNet>, bytes_in: usize| {
            turn_until(reactor, |reactor| reactor.metrics().bytes_in == bytes_in as u64)
        };
        client.write_all(b"hel").expect("sent");
        count += turned(&mut reactor, 6 * number + 3);
        client.write_all(b"lo\n").expect("sent");
        count += turned(&mut reactor, 6 * number + 6);
        let mut answer = [0; 12];
        client.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"echo: hello\n");
        allocations += if number < WARM_UP { 0 } else { count };
        count = 0;
    }
    assert_eq!(allocations, 0);
}

#[test]
fn a_datagram_costs_no_allocation() {
    for (reply, answer) in [(Reply::Ok, &b"OK"[..]), (Reply::Echo, b"hello")] {
        let limits = Limits::default();
        let mut reactor = Reactor::new(MioNet::new(&limits).expect("a poll"), limits.clone());
        let (socket, _) = bind_udp("127.0.0.1:0".parse().expect("an address"), &limits).expect("a free port");
        let address = socket.local_addr().expect("an address");
        reactor.serve_datagrams("udp", socket, address, Box::new(Responder::new(reply))).expect("it is watched");
        let client = udp_client(address);
        let mut allocations = 0;
        for number in 0..WARM_UP + MESSAGES {
            client.send(b"hello").expect("sent");
            let answered = number as u64 + 1;
            let count = turn_until(&mut reactor, |reactor| reactor.metrics().datagrams_answered == answered);
            assert_eq!(receive(&client), answer);
            allocations += if number < WARM_UP { 0 } else { count };
        }
        assert_eq!(allocations, 0, "{reply:?}");
    }
}
