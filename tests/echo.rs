//! Line echo and raw echo over real sockets: what comes back, byte for byte, and how much memory it takes meanwhile.

mod common;

use common::{Client, PATIENCE, Pump, Server};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

#[test]
fn a_line_comes_back_and_an_unfinished_last_one_too() {
    let server = Server::echo(&[]);
    let mut client = server.client();
    assert_eq!(client.ask("hello"), "echo: hello");
    assert_eq!(client.ask(""), "echo: ");
    client.send("no end");
    client.end();
    assert_eq!(client.rest_text(), "echo: no end\n");
}

#[test]
fn every_byte_value_comes_back_but_one_cr_before_the_lf() {
    let server = Server::echo(&[]);
    let mut client = server.client();
    let lines: [&[u8]; 8] = [
        b"\0",
        b"\xff\xfe\xc0\x80",
        b"lone\rcr",
        b"\r\r",
        b"\x80\x85\x90\x9b31m\x9f",
        b"\x1b]0;title\x07",
        b" \t ",
        b"\xf0\x9f\x98\x80",
    ];
    for line in lines {
        for end in [&b"\n"[..], b"\r\n"] {
            client.send([line, end].concat());
            // Of the one that itself ends in a CR, a bare LF takes that one away.
            let expected = if end == b"\n" { line.strip_suffix(b"\r").unwrap_or(line) } else { line };
            assert_eq!(client.line(), [b"echo: ", expected].concat(), "{}", line.escape_ascii());
        }
    }
    let all: Vec<u8> = (0..=u8::MAX).filter(|byte| *byte != b'\n').collect();
    client.send([&all[..], b"\n"].concat());
    assert_eq!(client.line(), [b"echo: ", &all[..]].concat());
}

#[test]
fn the_answers_are_the_same_however_the_lines_are_cut() {
    let server = Server::echo(&[]);
    let (input, expected) =
        (b"one\r\n\nPING\ntwo\rstill\nPONG\nlast", "echo: one\necho: \nPONG\necho: two\rstill\necho: last\n");
    for step in [1, 2, 3, 7, input.len()] {
        let mut client = server.client();
        for piece in input.chunks(step) {
            client.send(piece); // without delay, so most pieces are segments of their own
        }
        client.end();
        assert_eq!(client.rest_text(), expected, "in pieces of {step}");
    }
}

#[test]
fn many_lines_in_one_packet_are_answered_in_order() {
    let server = Server::echo(&[]);
    let mut client = server.client();
    let lines: Vec<String> = (0..5000).map(|number| format!("line {number}\n")).collect();
    client.send(lines.concat());
    client.end();
    let expected: String = lines.iter().map(|line| format!("echo: {line}")).collect();
    assert_eq!(client.rest_text(), expected);
}

#[test]
fn ping_is_answered_and_pong_is_not() {
    let server = Server::echo(&[]);
    let mut client = server.client();
    assert_eq!(client.ask("PING"), "PONG");
    client.send("PONG\r\nPONG\n");
    assert_eq!(client.ask("after"), "echo: after", "the first answer is to what came after");
    for other in ["ping", "PING 1", " PING", "PONG ", "pong"] {
        assert_eq!(client.ask(other), format!("echo: {other}"));
    }
}

#[test]
fn a_line_of_exactly_the_limit_is_answered() {
    let server = Server::echo(&["--max-line", "1KiB"]);
    let mut client = server.client();
    let line = "x".repeat(KIB);
    for end in ["\n", "\r\n"] {
        client.send(format!("{line}{end}"));
        assert_eq!(client.text(), format!("echo: {line}"));
    }
    client.send(&line); // the last one needs no end
    client.end();
    assert_eq!(client.rest_text(), format!("echo: {line}\n"));
}

#[test]
fn a_line_over_the_limit_is_named_and_the_connection_ends_without_a_reset() {
    let server = Server::echo(&["--max-line", "1KiB", "--log-level", "debug"]);
    for (number, end) in ["\n", "\r\n", ""].into_iter().enumerate() {
        let mut client = server.client();
        let mut input = format!("first\nsecond\n{}{end}", "x".repeat(KIB + 1)).into_bytes();
        // It goes on sending as if nothing had happened: unread input would destroy the answer.
        input.resize(input.len() + MIB, b'y');
        client.send(&input);
        assert_eq!(client.rest_text(), "echo: first\necho: second\nERROR too_long: line longer than 1024 bytes\n");
        // When the server has closed its side, a reset would have come.
        server.log.lines(number + 1, "closed, too_long");
        assert_eq!(server.client().ask("next"), "echo: next");
        client.expect_no_reset();
    }
}

#[test]
fn the_largest_line_fits_the_memory_that_must_hold_two() {
    let server = Server::echo(&["--max-line", "4MiB", "--memory", "8MiB"]);
    let mut client = server.client();
    let line = "x".repeat(4 * MIB - 1);
    client.send(format!("{line}\n"));
    let answer = client.text();
    assert!(answer == format!("echo: {line}"), "{} bytes, from {:?}", answer.len(), &answer[..answer.len().min(80)]);
}

#[test]
fn ten_mebibytes_and_a_half_close_come_back_whole() {
    for server in [Server::echo(&[]), Server::raw(&[])] {
        let is_raw = server.places[0].0 == "raw";
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        let sent = line.repeat(10 * KIB);
        let mut client = server.client();
        let mut writer = client.stream().try_clone().expect("a second handle");
        let writer = thread::spawn(move || {
            writer.write_all(&sent).expect("the server takes it all");
            writer.shutdown(std::net::Shutdown::Write).expect("an open connection");
            sent
        });
        let received = client.rest();
        let sent = writer.join().expect("no panic");
        let expected = if is_raw { sent } else { [b"echo: ", &line[..]].concat().repeat(10 * KIB) };
        assert_eq!(received.len(), expected.len());
        assert!(received == expected, "the bytes differ");
    }
}

#[test]
fn raw_echo_sends_the_same_bytes() {
    let server = Server::raw(&[]);
    let mut client = server.client();
    let bytes: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    for piece in bytes.chunks(4099) {
        client.send(piece);
        assert_eq!(client.take(piece.len()), piece);
    }
    client.send("PING\n"); // not text: a heartbeat means nothing here
    client.end();
    assert_eq!(client.rest(), b"PING\n");
}

#[test]
fn writers_that_do_not_read_lose_nothing_and_cost_little() {
    let server = Server::echo(&[]);
    let before = server.process.memory().0;
    let mut pumps = Pump::echoes(34, server.address());
    Pump::press(&mut pumps);
    assert!(pumps.iter().all(|pump| pump.sent > 256 * KIB), "they were not read at all");
    Pump::finish(&mut pumps);
    let grown = server.process.memory().1 - before;
    assert!(grown < 96 * MIB, "{} MiB", grown / MIB);
}

#[test]
fn the_memory_budget_holds_for_all_together_and_others_are_served_meanwhile() {
    let server = Server::echo(&["--memory", "1MiB"]);
    let before = server.process.memory().0;
    // Without the budget each of them would be owed 256 KiB and more, 100 MiB in all. With it most of what this costs are the
    // buffers that the loop keeps for the next who needs one.
    let mut pumps: Vec<Pump> =
        (0..400).map(|number| Pump::echo(number, with_small_buffers(server.address()))).collect();
    Pump::press(&mut pumps);
    let mut innocent = server.client();
    for number in 0..100 {
        assert_eq!(innocent.ask(&format!("{number}")), format!("echo: {number}"));
    }
    let grown = server.process.memory().1 - before;
    eprintln!("grown {}", grown / KIB);
    assert!(grown < 24 * MIB, "{} KiB", grown / KIB);
    Pump::finish(&mut pumps);
    let grown = server.process.memory().1 - before;
    eprintln!("grown {}", grown / KIB);
    assert!(grown < 24 * MIB, "{} KiB", grown / KIB);
    assert_eq!(innocent.ask("still"), "echo: still");
}

/// A connection whose own buffers are soon full, so that little is enough to press.
fn with_small_buffers(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(32 * KIB).expect("a buffer");
    socket.set_send_buffer_size(128 * KIB).expect("a buffer");
    socket.connect(&SockAddr::from(address)).expect("a connection");
    socket.into()
}

#[test]
fn unfinished_lines_may_fill_half_of_the_memory_and_the_one_too_many_is_told() {
    let server = Server::echo(&["--memory", "1MiB"]);
    let part = "x".repeat(60_000);
    // Eight of them are 480,000 bytes of 524,288; with the ninth it is too much.
    let mut clients: Vec<Client> = (0..9).map(|_| server.client()).collect();
    for client in &mut clients {
        client.send(&part);
    }
    let mut fds: Vec<_> = clients
        .iter()
        .map(|client| rustix::event::PollFd::new(client.stream(), rustix::event::PollFlags::IN))
        .collect();
    let patience = rustix::event::Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut fds, Some(&patience)).expect("poll"), 1, "one is told");
    let told = fds.iter().position(|fd| !fd.revents().is_empty()).expect("it is one of them");
    assert_eq!(clients.remove(told).rest_text(), "ERROR full: unfinished lines fill 524288 bytes\n");
    for mut client in clients {
        assert_eq!(client.ask(""), format!("echo: {part}"));
    }
}

#[test]
fn a_flood_does_not_keep_others_waiting() {
    let server = Server::echo(&[]);
    let flooder = TcpStream::connect(server.address()).expect("a connection");
    let (over, mut sink) = (AtomicBool::new(false), flooder.try_clone().expect("a second handle"));
    let line = [&[b'x'; 1023][..], b"\n"].concat().repeat(64);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut bytes = vec![0; 256 * KIB];
            while sink.read(&mut bytes).is_ok_and(|count| count > 0) {}
        });
        scope.spawn(|| {
            let mut sent = Ok(());
            while sent.is_ok() && !over.load(Ordering::Relaxed) {
                sent = (&flooder).write_all(&line);
            }
        });
        let mut pinger = server.client();
        let mut waits: Vec<Duration> = (0..200)
            .map(|_| {
                let start = Instant::now();
                assert_eq!(pinger.ask("PING"), "PONG");
                start.elapsed()
            })
            .collect();
        over.store(true, Ordering::Relaxed);
        flooder.shutdown(std::net::Shutdown::Both).expect("an open connection");
        waits.sort();
        assert!(waits[100] < Duration::from_millis(50), "median {:?}", waits[100]);
        assert!(waits[199] < Duration::from_secs(1), "longest {:?}", waits[199]);
    });
}

#[test]
fn an_urgent_byte_neither_spins_nor_hides_what_follows() {
    let server = Server::echo(&["--idle-timeout", "700ms"]);
    let mut client = server.client();
    assert_eq!(client.ask("before"), "echo: before");
    client.send("one\n");
    client.send_urgent();
    client.send("two\nthree\n");
    assert_eq!([client.text(), client.text(), client.text()], ["echo: one", "echo: two", "echo: three"]);
    client.send_urgent();
    // With an urgent byte pending, the server's own clock says when some time has passed.
    let (start, cpu) = (Instant::now(), server.process.cpu());
    assert_eq!(client.rest_text(), "ERROR idle: nothing received for 700ms\n");
    let (elapsed, used) = (start.elapsed(), server.process.cpu() - cpu);
    assert!(used * 10 < elapsed * 3, "{used:?} of {elapsed:?}");
}

#[test]
fn what_stands_around_an_urgent_byte_is_answered_though_it_came_before_the_server_looked() {
    let server = Server::echo(&[]);
    let mut client = server.client();
    assert_eq!(client.ask("before"), "echo: before");
    server.process.freeze();
    client.send("one\n");
    client.send_urgent();
    client.send("two\n");
    server.process.thaw();
    assert_eq!([client.text(), client.text()], ["echo: one", "echo: two"]);
}
