//! The command line as a person meets it: what is said where, which addresses are bound, and how it ends.

mod common;

use common::{Client, Output, Process, Ran, Server, oneloop, oneloop_with_ulimit, receive, run, udp_client};
use rustix::process::Signal;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

/// Whether `::1` exists here; where it does not, IPv4 alone is what is expected.
fn has_ipv6() -> bool {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

/// What standard error says beside the log.
fn said(ran: &Ran) -> Vec<&str> {
    ran.stderr.lines().filter(|line| !line.contains(" INFO ") && !line.contains(" WARN ")).collect()
}

#[test]
fn standard_output_is_one_line_for_each_listener_and_nothing_else() {
    let args =
        ["serve", "--echo", "127.0.0.1:0", "--raw", "127.0.0.1:0", "--udp", "127.0.0.1:0", "--echo", "127.0.0.1:0"];
    let mut server = Server::start(4, &args);
    let names: Vec<&str> = server.places.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["echo", "echo", "raw", "udp"]);
    let [echo, other, raw, udp] = [0, 1, 2, 3].map(|index| server.places[index].1);
    assert!([echo, other, raw, udp].iter().all(|place| place.port() != 0));
    assert_ne!(echo, other);
    assert_eq!(Client::connect(echo).ask("hello"), "echo: hello");
    assert_eq!(Client::connect(other).ask("hello"), "echo: hello");
    assert_eq!(Client::connect(raw).ask("hello"), "hello");
    let client = udp_client(udp);
    client.send(b"hi").expect("sent");
    assert_eq!(receive(&client), b"OK");
    server.process.signal(Signal::INT);
    assert_eq!(server.process.wait().code(), Some(0), "Ctrl-C is no failure");
    let lines: Vec<String> = server.places.iter().map(|(name, at)| format!("listening {name} {at}\n")).collect();
    assert_eq!(server.stdout.all(), lines.concat());
}

#[test]
fn a_port_alone_is_loopback_in_both_families_on_the_same_port() {
    for (flag, other) in [("--echo", "--udp"), ("--udp", "--echo")] {
        let server = Server::start(if has_ipv6() { 2 } else { 1 }, &[flag, "0", other, "off"]);
        let port = server.address().port();
        assert_ne!(port, 0);
        let mut expected = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port))];
        expected.extend(has_ipv6().then(|| SocketAddr::from((Ipv6Addr::LOCALHOST, port))));
        assert_eq!(server.places.iter().map(|(_, at)| *at).collect::<Vec<_>>(), expected);
        for at in expected {
            if flag == "--echo" {
                assert_eq!(Client::connect(at).ask("hello"), "echo: hello");
            } else {
                let client = udp_client(at);
                client.send(b"hi").expect("sent");
                assert_eq!(receive(&client), b"OK");
            }
        }
    }
}

#[test]
fn a_colon_and_a_port_is_every_address_and_warns_once() {
    let mut server = Server::start(2, &["--echo", ":0", "--raw", ":0", "--udp", "off"]);
    let port = server.address().port();
    assert!(server.address().ip().is_unspecified());
    assert_eq!(Client::connect((Ipv4Addr::LOCALHOST, port).into()).ask("hello"), "echo: hello");
    if has_ipv6() {
        assert_eq!(Client::connect((Ipv6Addr::LOCALHOST, port).into()).ask("hello"), "echo: hello");
    }
    server.stop();
    let log = server.log.all();
    assert_eq!(log.matches("nothing asks who connects").count(), 1, "{log}");
    assert!(log.lines().any(|line| line.contains(" WARN ") && line.contains("other machines")), "{log}");
}

#[test]
fn loopback_warns_of_nobody() {
    let mut server = Server::start(2, &["--echo", "127.0.0.1:0", "--raw", "127.0.0.2:0", "--udp", "off"]);
    server.stop();
    let log = server.log.all();
    assert!(log.contains("stopped") && !log.contains("other machines"), "{log}");
}

#[test]
fn an_ipv6_address_stands_in_brackets_and_is_ipv6_alone() {
    if !has_ipv6() {
        return;
    }
    let server = Server::echo(&[]);
    let taken = server.address().port();
    // The same port in the other family is another place.
    let six = Server::start(1, &["--echo", &format!("[::1]:{taken}"), "--udp", "off"]);
    assert_eq!(six.address(), SocketAddr::from((Ipv6Addr::LOCALHOST, taken)));
    assert_eq!(six.client().ask("hello"), "echo: hello");
}

#[test]
fn a_name_is_every_loopback_address_it_has_on_the_same_port() {
    let mut ips: Vec<IpAddr> = ("localhost", 0).to_socket_addrs().expect("localhost").map(|at| at.ip()).collect();
    ips.sort();
    ips.dedup();
    ips.retain(|ip| TcpListener::bind((*ip, 0)).is_ok());
    let server = Server::start(ips.len(), &["--echo", "localhost:0", "--udp", "off"]);
    for (name, at) in &server.places {
        assert_eq!(name, "echo");
        assert!(ips.contains(&at.ip()));
        assert_eq!(at.port(), server.address().port());
        assert_eq!(Client::connect(*at).ask("hello"), "echo: hello");
    }
}

#[test]
fn a_service_that_is_off_is_not_there() {
    let mut server = Server::start(1, &["--echo", "off", "--udp", "off", "--raw", "127.0.0.1:0"]);
    assert_eq!(server.places[0].0, "raw");
    server.stop();
    assert_eq!(server.stdout.all().lines().count(), 1);
}

#[test]
fn a_port_that_is_taken_ends_it_with_one_line_that_says_what_to_do() {
    let (tcp, udp) =
        (TcpListener::bind("127.0.0.1:0").expect("a port"), UdpSocket::bind("127.0.0.1:0").expect("a port"));
    for (flag, other, taken) in [
        ("--echo", "--udp", tcp.local_addr().expect("an address")),
        ("--udp", "--echo", udp.local_addr().expect("an address")),
    ] {
        let ran = run(&mut oneloop(&[flag, &taken.to_string(), other, "off"]));
        assert_eq!(ran.code, Some(1));
        assert_eq!(ran.stdout, "");
        let said = said(&ran);
        assert_eq!(said.len(), 1, "one line: {said:?}");
        for part in [&taken.to_string()[..], "address in use", flag] {
            assert!(said[0].contains(part), "{said:?} does not say {part:?}");
        }
    }
}

#[test]
fn all_or_nothing_is_bound() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("an address").to_string();
    let free = "127.0.0.1:0";
    for args in [
        ["--echo", free, "--raw", &taken, "--udp", free],
        ["--raw", free, "--echo", free, "--echo", &taken],
        ["--echo", &taken, "--raw", free, "--udp", free],
    ] {
        let ran = run(&mut oneloop(&args));
        assert_eq!(ran.code, Some(1), "{args:?}");
        assert_eq!(ran.stdout, "", "{args:?}");
        assert!(said(&ran).len() == 1 && said(&ran)[0].contains(&taken), "{args:?}: {}", ran.stderr);
    }
}

#[test]
fn an_address_that_cannot_be_ends_it_with_one_line() {
    for (address, why) in [
        ("192.0.2.1:0", "no such address on this machine"), // TEST-NET-1 is nobody's
        ("name.invalid:9000", "name.invalid"),              // and this name nobody's either
    ] {
        let ran = run(&mut oneloop(&["--echo", address, "--udp", "off"]));
        assert_eq!(ran.code, Some(1), "{address}");
        assert_eq!(ran.stdout, "");
        let said = said(&ran);
        assert!(said.len() == 1 && said[0].contains(why), "{said:?}");
    }
}

#[test]
fn wrong_usage_is_one_line_with_the_option_the_value_and_what_is_allowed() {
    for (args, parts) in [
        (&["--echo", "localhost"][..], &["--echo", "'localhost'", "HOST:PORT"][..]),
        (&["--max-connections", "0"], &["--max-connections", "'0'", "from 1 to"]),
        (&["--max-connections", "-1"], &["-1"]),
        (&["--max-line", "64KB"], &["--max-line", "'64KB'", "such as 64KiB"]),
        (&["--memory", "18446744073709551616"], &["--memory", "'18446744073709551616'", "from 64KiB"]),
        (&["--memory", "64KiB", "--max-line", "64KiB"], &["--memory", "64KiB", "--max-line"]),
        (&["--write-timeout", "10"], &["--write-timeout", "'10'", "such as 500ms"]),
        (&["--idle-timeout", "0s"], &["--idle-timeout", "'0s'", "or off"]),
        (&["--drain", "forever"], &["--drain", "'forever'", "such as"]),
        (&["--udp-buffer", "1"], &["--udp-buffer", "'1'", "from 4KiB"]),
        (&["--udp-reply", "no"], &["--udp-reply", "'no'", "ok, ack, echo"]),
        (&["--log-level", "loud"], &["--log-level", "'loud'", "debug"]),
        (&["--echo", "off", "--echo", "0"], &["--echo off"]),
        (&["--echo", "off", "--udp", "off"], &["every service is off"]),
        (&["--no-such-flag"], &["--no-such-flag"]),
        (&["no-such-command"], &["no-such-command"]),
    ] {
        let ran = run(&mut oneloop(args));
        assert_eq!(ran.code, Some(2), "{args:?}");
        assert_eq!(ran.stdout, "", "{args:?}");
        assert_eq!(ran.stderr.lines().count(), 1, "{args:?}: {}", ran.stderr);
        for part in parts {
            assert!(ran.stderr.contains(part), "{args:?}: {:?} does not say {part:?}", ran.stderr);
        }
    }
}

#[test]
fn help_and_version_go_to_standard_output() {
    for (args, parts) in [
        (&["--help"][..], &["--echo <ADDR>", "127.0.0.1:9000", "--max-line", "Examples:", "Exit status"][..]),
        (&["-h"], &["--echo <ADDR>"]),
        (&["serve", "--help"], &["--udp-reply"]),
        (&["--version"], &[concat!("oneloop ", env!("CARGO_PKG_VERSION"))]),
    ] {
        let ran = run(&mut oneloop(args));
        assert_eq!(ran.code, Some(0), "{args:?}");
        assert_eq!(ran.stderr, "", "{args:?}");
        for part in parts {
            assert!(ran.stdout.contains(part), "{args:?} does not say {part:?}");
        }
    }
}

#[test]
fn a_closed_standard_output_is_no_failure() {
    // Writing to a socket whose other end is closed fails as a closed pipe does.
    let closed = || OwnedFd::from(UnixStream::pair().expect("a pair").0);
    let mut help = Process::spawn(oneloop(&["--help"]).stdout(closed()));
    assert_eq!(help.wait().code(), Some(0));
    // A server goes on serving, though nobody hears where; its log says where this one is.
    let mut command = oneloop(&["--udp", "127.0.0.1:0", "--udp-buffer", "64KiB", "--echo", "off"]);
    let mut server = Process::spawn(command.stdout(closed()).stderr(Stdio::piped()));
    let log = Output::collect(server.take_stderr());
    let line = log.line("receive buffer");
    let (_, place) = line.split_once("udp on ").expect("the service");
    let (place, _) = place.split_once(": ").expect("the address");
    let client = udp_client(place.parse().expect("an address"));
    client.send(b"hi").expect("sent");
    assert_eq!(receive(&client), b"OK");
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn the_soft_descriptor_limit_is_raised_to_the_hard_one() {
    let args = ["--echo", "127.0.0.1:0", "--udp", "off"];
    let server = Server::launch(1, &mut oneloop_with_ulimit("-Sn 30 && ulimit -Hn 300", &args));
    assert_eq!(server.process.descriptor_limits(), (300, 300));
    let line = server.log.line("at most 268 connections");
    assert!(line.contains(" WARN ") && line.contains("10000") && line.contains("300"), "{line}");
}

#[test]
fn where_the_connections_do_not_fit_the_descriptors_fewer_are_served_and_that_is_said() {
    let args = ["--echo", "127.0.0.1:0", "--udp", "off"];
    let server = Server::launch(1, &mut oneloop_with_ulimit("-n 60", &args));
    server.log.line("at most 28 connections instead of 10000");
    let mut served: Vec<Client> = (0..28).map(|_| server.client()).collect();
    for client in &mut served {
        assert_eq!(client.ask("in"), "echo: in");
    }
    assert_eq!(server.client().rest_text(), "ERROR full: 28 connections\n");
    assert_eq!(served[27].ask("still in"), "echo: still in");
    // What fits is not spoken of.
    let mut server =
        Server::launch(1, &mut oneloop_with_ulimit("-n 60", &[&args[..], &["--max-connections", "28"]].concat()));
    server.stop();
    assert!(!server.log.all().contains("instead of"), "{}", server.log.all());
}

#[test]
fn with_hardly_any_descriptors_it_says_so_and_ends() {
    let ran = run(&mut oneloop_with_ulimit("-n 16", &["--echo", "127.0.0.1:0", "--udp", "off"]));
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert_eq!(ran.stdout, "");
    assert!(said(&ran).len() == 1 && said(&ran)[0].contains("16 descriptors"), "{}", ran.stderr);
}

#[test]
fn after_a_crash_it_listens_again_at_once_on_the_same_port() {
    let mut server = Server::echo(&[]);
    let address = server.address();
    let mut client = server.client();
    assert_eq!(client.ask("hello"), "echo: hello");
    server.process.signal(Signal::KILL);
    server.process.wait();
    // The old connection is still there, half closed on the server's port.
    let again = Server::start(1, &["--echo", &address.to_string(), "--udp", "off"]);
    assert_eq!(again.address(), address);
    assert_eq!(again.client().ask("hello"), "echo: hello");
    drop(client);
}
