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

/// A frame as a client sends it.
#[cfg(feature = "web")]
fn frame(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let length = match payload.len() {
        length @ 0..126 => vec![0x80 | length as u8],
        length => [&[0xfe], &(length as u16).to_be_bytes()[..]].concat(),
    };
    let masked = payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key);
    [first].into_iter().chain(length).chain(mask).chain(masked).collect()
}

/// The same as the server sends it.
#[cfg(feature = "web")]
fn answer(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = frame(first, payload, [0; 4]);
    frame.drain(frame.len() - payload.len() - 4..frame.len() - payload.len());
    frame[1] &= 0x7f;
    frame
}

/// Allocations of `MESSAGES` messages to the echo of WebSockets, each answered before the next is sent. `pieces` makes the
/// bytes that are sent of a message, a write each, and those of its answers.
#[cfg(feature = "web")]
fn allocations_of_a_web_socket(pieces: impl Fn(usize, &[u8]) -> (Vec<Vec<u8>>, Vec<u8>)) -> u64 {
    let limits = Limits::default();
    let mut reactor = Reactor::new(MioNet::new(&limits).expect("a poll"), limits.clone());
    let listener = listen("127.0.0.1:0".parse().expect("an address"), &limits).expect("a free port");
    let address = listener.local_addr().expect("an address");
    let desk = oneloop::protocol::web::Desk::new(&[], Default::default, address);
    reactor.monitor("web", listener, desk.maker()).expect("it is watched");
    let mut client = TcpStream::connect(address).expect("a connection");
    client.set_read_timeout(Some(common::PATIENCE)).expect("a timeout");
    client.set_nodelay(true).expect("no delay");
    let request = "GET /echo HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    client.write_all(request.as_bytes()).expect("sent");
    turn_until(&mut reactor, |reactor| reactor.metrics().messages == 1);
    let (mut taken, mut answered) = (request.len() as u64, reactor.metrics().bytes_out);
    let mut head = vec![0; answered as usize];
    client.read_exact(&mut head).expect("an answer");
    assert!(head.starts_with(b"HTTP/1.1 101 ") && head.ends_with(b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"));
    let mut allocations = 0;
    for number in 0..WARM_UP + MESSAGES {
        // Every length comes in the warm-up, too: each is cut in other places, and what is left over is kept in another buffer.
        let (pieces, expected) = pieces(number, &vec![b'x'; number % WARM_UP * 37 % 2000]);
        let mut count = 0;
        for piece in &pieces {
            client.write_all(piece).expect("sent");
            taken += piece.len() as u64;
            count += turn_until(&mut reactor, |reactor| reactor.metrics().bytes_in == taken);
        }
        answered += expected.len() as u64;
        count += turn_until(&mut reactor, |reactor| reactor.metrics().bytes_out == answered);
        let mut answer = vec![0; expected.len()];
        client.read_exact(&mut answer).expect("an answer");
        assert_eq!(answer, expected);
        allocations += if number < WARM_UP { 0 } else { count };
    }
    assert_eq!(reactor.metrics().messages, 1 + (WARM_UP + MESSAGES) as u64);
    allocations
}

#[cfg(feature = "web")]
#[test]
fn a_web_socket_message_costs_no_allocation() {
    let whole = |number: usize, text: &[u8]| {
        let first = if number.is_multiple_of(2) { 0x81 } else { 0x82 };
        (vec![frame(first, text, (number as u32).to_be_bytes())], answer(first, text))
    };
    assert_eq!(allocations_of_a_web_socket(whole), 0);
}

#[cfg(feature = "web")]
#[test]
fn a_web_socket_message_in_fragments_with_a_ping_between_them_costs_no_allocation() {
    let in_pieces = |number: usize, text: &[u8]| {
        let mask = (number as u32 * 77).to_le_bytes();
        let (one, two) = text.split_at(text.len() / 3);
        let mut last = frame(0x80, two, mask);
        let rest = last.split_off(last.len() / 2);
        let ping = frame(0x89, b"are you there?", mask);
        let sent = vec![frame(0x01, one, mask), ping, last, rest];
        (sent, [answer(0x8a, b"are you there?"), answer(0x81, text)].concat())
    };
    assert_eq!(allocations_of_a_web_socket(in_pieces), 0);
}
