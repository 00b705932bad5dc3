//! What happens at the limits: too many connections, no descriptors, peers that say nothing, take nothing or vanish.

mod common;

use common::{Client, Pump, Server, until};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// Connects and resets: closing with SO_LINGER 0 sends RST instead of FIN.
fn connect_and_reset(address: SocketAddr) {
    let stream = TcpStream::connect(address).expect("a connection");
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a socket");
}

#[test]
fn one_connection_more_is_told_so_and_its_place_is_free_when_another_leaves() {
    let server = Server::echo(&["--max-connections", "3"]);
    let mut clients: Vec<Client> = (0..3).map(|_| server.client()).collect();
    for client in &mut clients {
        assert_eq!(client.ask("in"), "echo: in");
    }
    for _ in 0..2 {
        assert_eq!(server.client().rest_text(), "ERROR full: 3 connections\n");
    }
    let mut leaving = clients.remove(0);
    leaving.end();
    assert_eq!(leaving.rest_text(), ""); // the server's end comes when the place is free
    clients.push(server.client());
    for client in &mut clients {
        assert_eq!(client.ask("still in"), "echo: still in");
    }
}

#[test]
fn a_hundred_over_the_limit_all_read_why_and_none_is_reset() {
    let server = Server::echo(&["--max-connections", "100", "--log-level", "debug"]);
    let mut served: Vec<Client> = (0..100).map(|_| server.client()).collect();
    for client in &mut served {
        assert_eq!(client.ask("in"), "echo: in");
    }
    // What they send lies unread at the server when it refuses them; a close at once would be a reset.
    server.process.freeze();
    let mut refused: Vec<Client> = (0..100).map(|_| server.client()).collect();
    refused.iter_mut().for_each(|client| client.send("hello\n"));
    server.process.thaw();
    for client in &mut refused {
        assert_eq!(client.rest_text(), "ERROR full: 100 connections\n");
    }
    // When the server has closed the last of them, a reset would have come.
    server.log.lines(100, "closed, full");
    for client in &mut served {
        assert_eq!(client.ask("still in"), "echo: still in");
    }
    refused.iter().for_each(Client::expect_no_reset);
}

#[test]
fn raw_says_nothing_of_its_own_to_one_connection_more() {
    let server = Server::raw(&["--max-connections", "1"]);
    let mut served = server.client();
    served.send("in");
    assert_eq!(served.take(2), b"in");
    server.process.freeze();
    let mut refused = server.client();
    refused.send("hello");
    server.process.thaw();
    assert_eq!(refused.rest(), b"");
}

#[test]
fn a_refused_connection_has_its_descriptor_back_soon_though_it_stays() {
    let server = Server::echo(&["--max-connections", "1"]);
    let mut served = server.client();
    assert_eq!(served.ask("in"), "echo: in");
    let base = server.process.descriptors();
    let mut staying: Vec<Client> = (0..20).map(|_| server.client()).collect();
    for client in &mut staying {
        assert_eq!(client.rest_text(), "ERROR full: 1 connections\n");
    }
    until("lingering to end", || server.process.descriptors() == base);
}

#[test]
fn a_storm_of_resets_leaves_nothing_behind_and_disturbs_nobody() {
    let server = Server::echo(&[]);
    let mut client = server.client();
    assert_eq!(client.ask("before"), "echo: before");
    let base = server.process.descriptors();
    for number in 0..200 {
        connect_and_reset(server.address());
        if number % 20 == 0 {
            assert_eq!(client.ask("during"), "echo: during");
        }
    }
    // Those that are gone before they are accepted, too.
    server.process.freeze();
    (0..50).for_each(|_| connect_and_reset(server.address()));
    server.process.thaw();
    // And those that reset in the middle, with an answer on its way.
    for _ in 0..50 {
        let mut client = server.client();
        client.send("x".repeat(100_000));
        client.send("\nanswer\n");
        socket2::SockRef::from(client.stream()).set_linger(Some(Duration::ZERO)).expect("a socket");
    }
    assert_eq!(client.ask("after"), "echo: after");
    until("the descriptors to be closed", || server.process.descriptors() == base);
    assert!(!server.log.so_far().contains(" ERROR "), "nobody's reset is an error of ours:\n{}", server.log.so_far());
}

#[test]
fn a_peer_that_is_owed_bytes_and_takes_none_is_closed() {
    let server = Server::echo(&["--write-timeout", "300ms"]);
    let base = server.process.descriptors();
    let mut pumps = Pump::echoes(1, server.address());
    Pump::press(&mut pumps);
    let line = server.log.line("stalled");
    assert!(line.contains(" INFO ") && line.contains("for 300ms"), "{line}");
    until("the descriptor to be closed", || server.process.descriptors() == base);
    // Somebody else is served as ever.
    assert_eq!(server.client().ask("hello"), "echo: hello");
    // It reads what the kernel still had for it; then it is over, one way or the other.
    while !pumps[0].ended && pumps[0].take_some().is_ok() {}
}

#[test]
fn a_peer_that_takes_its_bytes_slowly_is_not_closed() {
    let server = Server::echo(&["--write-timeout", "1s"]);
    let mut pumps = Pump::echoes(1, server.address());
    Pump::press(&mut pumps);
    // Never a second without some progress, for far more than a second: the pace itself is what is tested.
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(2500) {
        for _ in 0..4 {
            // Nothing there at the moment is no failure; an end would be one, and `finish` finds it.
            let _ = pumps[0].take_some();
        }
        pumps[0].send_some();
        thread::sleep(Duration::from_millis(20));
    }
    Pump::finish(&mut pumps);
    assert!(!server.log.so_far().contains("stalled"), "{}", server.log.so_far());
}

#[test]
fn a_connection_that_sends_nothing_is_told_so_and_closed() {
    let server = Server::echo(&["--idle-timeout", "200ms"]);
    let mut silent = server.client();
    let mut once = server.client();
    assert_eq!(once.ask("hello"), "echo: hello");
    for client in [&mut silent, &mut once] {
        assert_eq!(client.rest_text(), "ERROR idle: nothing received for 200ms\n");
    }
}

#[test]
fn many_silent_connections_are_all_closed_and_others_served() {
    let server = Server::echo(&["--idle-timeout", "300ms"]);
    let base = server.process.descriptors();
    let mut silent: Vec<Client> = (0..300).map(|_| server.client()).collect();
    assert_eq!(server.client().ask("hello"), "echo: hello");
    for client in &mut silent {
        assert_eq!(client.rest_text(), "ERROR idle: nothing received for 300ms\n");
    }
    until("the descriptors to be closed", || server.process.descriptors() == base);
}

#[test]
fn a_connection_that_keeps_sending_is_not_idle_even_without_a_whole_line() {
    let server = Server::echo(&["--idle-timeout", "600ms"]);
    let (mut silent, mut drip) = (server.client(), server.client());
    let judge = thread::spawn(move || silent.rest_text());
    let mut sent = String::new();
    // Until another one has been idle for too long, twice.
    for _ in 0..2 {
        let mut other = server.client();
        let over = thread::spawn(move || other.rest_text());
        while !over.is_finished() {
            drip.send("x"); // a byte now and then: the pace itself is what is tested
            sent.push('x');
            thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(over.join().expect("no panic"), "ERROR idle: nothing received for 600ms\n");
    }
    assert_eq!(drip.ask(""), format!("echo: {sent}"));
    assert_eq!(judge.join().expect("no panic"), "ERROR idle: nothing received for 600ms\n");
}

#[test]
fn a_connection_that_we_do_not_read_is_not_idle() {
    let server = Server::echo(&["--idle-timeout", "300ms"]);
    let mut pumps = Pump::echoes(1, server.address());
    Pump::press(&mut pumps);
    // Another one that begins to be silent now says when the time has passed.
    assert_eq!(server.client().rest_text(), "ERROR idle: nothing received for 300ms\n");
    Pump::finish(&mut pumps);
}

#[test]
fn no_descriptor_left_neither_spins_nor_goes_deaf() {
    let server = Server::echo(&["--idle-timeout", "1s"]);
    let mut first = server.client();
    assert_eq!(first.ask("hello"), "echo: hello"); // whatever is opened late is open now
    let before = server.process.leave_descriptors(4);
    // Five are served, fifteen wait in the kernel.
    let mut clients: Vec<Client> = (0..19).map(|_| server.client()).collect();
    clients.iter_mut().for_each(|client| client.send("hello\n"));
    let noticed = Instant::now();
    let line = server.log.line("cannot accept");
    assert!(line.contains(" ERROR ") && line.contains("5 connections are open"), "{line}");
    let (start, cpu) = (Instant::now(), server.process.cpu());
    for client in &mut clients[..4] {
        assert_eq!(client.text(), "echo: hello");
    }
    // They are closed a second later, and until then nothing happens but tries.
    assert_eq!(first.rest_text(), "ERROR idle: nothing received for 1s\n");
    let (elapsed, used) = (start.elapsed(), server.process.cpu() - cpu);
    assert!(used * 10 < elapsed * 3, "{used:?} of {elapsed:?}");
    // Their descriptors are free when they have gone, and those who waited are served without a new connect.
    drop(first);
    clients.drain(..4);
    for client in &mut clients[..4] {
        assert_eq!(client.text(), "echo: hello");
    }
    // And when there are descriptors again, all are, without anybody leaving.
    server.process.limit_descriptors(before);
    for client in &mut clients[4..] {
        assert_eq!(client.text(), "echo: hello");
    }
    let said = server.log.so_far().matches("cannot accept").count() as u32;
    assert!(said <= 1 + noticed.elapsed().as_secs() as u32 / 5, "said {said} times in {:?}", noticed.elapsed());
}

#[test]
fn a_client_that_leaves_frees_a_descriptor_and_so_does_a_higher_limit() {
    let server = Server::echo(&[]);
    let mut first = server.client();
    assert_eq!(first.ask("hello"), "echo: hello");
    let before = server.process.leave_descriptors(0);
    let mut waiting: Vec<Client> = (0..2).map(|_| server.client()).collect();
    waiting.iter_mut().for_each(|client| client.send("hello\n"));
    server.log.line("cannot accept");
    assert_eq!(first.ask("still here"), "echo: still here");
    first.stream().shutdown(Shutdown::Both).expect("an open connection");
    assert_eq!(waiting[0].text(), "echo: hello");
    // The other one waits on, until nobody leaves but the limit does.
    server.process.limit_descriptors(before);
    assert_eq!(waiting[1].text(), "echo: hello");
}
