//! The UDP responder over real sockets: what is answered, what never is, and that nothing gets lost or ends it.

mod common;

use common::{Server, receive, udp_client};
use std::net::UdpSocket;

#[test]
fn each_datagram_is_answered_as_asked_and_ping_with_pong() {
    for (more, answer) in [
        (&[][..], &b"OK"[..]),
        (&["--udp-reply", "ok"], b"OK"),
        (&["--udp-reply", "ack"], b"ACK"),
        (&["--udp-reply", "echo"], b"hi"),
    ] {
        let server = Server::udp(more);
        assert_eq!(server.places[0].0, "udp");
        let client = udp_client(server.address());
        client.send(b"hi").expect("sent");
        assert_eq!(receive(&client), answer, "{more:?}");
        for ping in [&b"PING"[..], b"PING\n", b"PING\r\n"] {
            client.send(ping).expect("sent");
            assert_eq!(receive(&client), b"PONG", "{more:?}");
        }
    }
}

#[test]
fn what_is_itself_an_answer_or_nothing_is_never_answered() {
    for reply in ["ok", "ack", "echo"] {
        let server = Server::udp(&["--udp-reply", reply]);
        for silent in [&b""[..], b"OK", b"ACK", b"PONG", b"OK\n", b"PONG\r\n"] {
            let client = udp_client(server.address());
            client.send(silent).expect("sent");
            client.send(b"PING").expect("sent");
            let answer = receive(&client);
            assert_eq!(answer, b"PONG", "{reply}: the first answer is to what came after {}", silent.escape_ascii());
        }
    }
}

#[test]
fn any_bytes_are_echoed_up_to_the_limit_and_larger_ones_are_dropped() {
    let server = Server::udp(&["--udp-reply", "echo"]);
    let client = udp_client(server.address());
    let all: Vec<u8> = (0..=u8::MAX).collect();
    for size in [1, 256, 8192] {
        let bytes: Vec<u8> = all.iter().copied().cycle().take(size).collect();
        client.send(&bytes).expect("sent");
        assert_eq!(receive(&client), bytes);
    }
    for size in [8193, 60_000] {
        client.send(&vec![b'x'; size]).expect("sent");
        client.send(b"after").expect("sent");
        assert_eq!(receive(&client), b"after", "the first answer is to what came after {size} bytes");
    }
    let line = server.log.line("larger than 8192 bytes");
    assert!(line.contains(" INFO "), "{line}");
}

#[test]
fn sixteen_clients_with_sixteen_datagrams_in_flight_lose_none() {
    let server = Server::udp(&["--udp-reply", "echo"]);
    let clients: Vec<UdpSocket> = (0..16).map(|_| udp_client(server.address())).collect();
    for round in 0..50 {
        // All 256 are sent before any answer is taken.
        let datagram = |client: usize, number: usize| {
            let mut bytes = format!("{round} {client} {number} ").into_bytes();
            bytes.resize(512, b'x');
            bytes
        };
        for number in 0..16 {
            for (index, client) in clients.iter().enumerate() {
                client.send(&datagram(index, number)).expect("sent");
            }
        }
        for (index, client) in clients.iter().enumerate() {
            for number in 0..16 {
                let answer = receive(client);
                assert!(answer == datagram(index, number), "{}", answer[..20].escape_ascii());
            }
        }
    }
}

#[test]
fn a_client_that_has_gone_ends_nothing() {
    let server = Server::udp(&[]);
    // Gone before it can be answered: the answer comes back as "port unreachable".
    for _ in 0..10 {
        server.process.freeze();
        let gone = udp_client(server.address());
        gone.send(b"hi").expect("sent");
        drop(gone);
        server.process.thaw();
        let client = udp_client(server.address());
        client.send(b"hi").expect("sent");
        assert_eq!(receive(&client), b"OK");
    }
}

#[test]
fn random_datagrams_do_no_harm() {
    let server = Server::udp(&[]);
    let before = server.process.memory().0;
    let client = udp_client(server.address());
    let mut state = 0x9e37_79b9_7f4a_7c15u64; // a fixed seed: the same bytes every time
    let mut bytes = [0u8; 1024];
    let judge = udp_client(server.address());
    for number in 0..20_000 {
        for piece in bytes.chunks_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            piece.copy_from_slice(&state.to_le_bytes());
        }
        client.send(&bytes[..state as usize % 1024]).expect("sent");
        if number % 100 == 99 {
            // All of them have been received when this is answered. (The sender's own answers pile up unread.)
            judge.send(b"PING").expect("sent");
            assert_eq!(receive(&judge), b"PONG");
        }
    }
    let grown = server.process.memory().1 - before;
    assert!(grown < 8 << 20, "{} KiB", grown >> 10);
}

#[test]
fn what_receive_buffer_was_granted_is_said() {
    let server = Server::udp(&["--udp-buffer", "64KiB"]);
    let line = server.log.line("receive buffer of 65536 bytes");
    assert!(line.contains(" INFO ") && line.contains(&server.address().to_string()), "{line}");
    // More than any system grants.
    let server = Server::udp(&["--udp-buffer", "1GiB"]);
    let line = server.log.line("receive buffer of");
    assert!(line.contains(" WARN ") && line.contains("1073741824") && line.contains("rmem_max"), "{line}");
}

#[test]
fn both_families_are_answered_on_one_dual_stack_socket() {
    if UdpSocket::bind("[::1]:0").is_err() {
        return; // a machine without IPv6 has no dual stack
    }
    let server = Server::start(1, &["--echo", "off", "--udp", ":0"]);
    for ip in ["127.0.0.1", "[::1]"] {
        let client = udp_client(format!("{ip}:{}", server.address().port()).parse().expect("an address"));
        client.send(b"hi").expect("sent");
        assert_eq!(receive(&client), b"OK", "{ip}");
    }
}
