//! `oneloop ping`, the real program: over TCP, UDP and WebSocket, against servers that answer, are late, silent or not there.

#![cfg(feature = "client")]

mod common;

use common::{Process, Ran, Server, command, receive, run, udp_client, until};
use rustix::process::Signal;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, UdpSocket};
use std::thread;

/// Runs `ping` to its end: quick, unless the arguments say otherwise.
fn ping(args: &[&str]) -> Ran {
    run(&mut command(&[&["ping", "--interval", "10ms", "--timeout", "20s"], args].concat()))
}

fn server() -> Server {
    Server::start(
        4,
        &["--echo", "127.0.0.1:0", "--chat", "127.0.0.1:0", "--web", "127.0.0.1:0", "--udp", "127.0.0.1:0"],
    )
}

/// Where each service of `server` is, as `ping` wants it.
fn targets(server: &Server) -> Vec<String> {
    let place = |(name, at): &(String, std::net::SocketAddr)| match name.as_str() {
        "udp" => format!("udp:{at}"),
        "web" => format!("ws://{at}/chat"),
        _ => at.to_string(),
    };
    server.places.iter().map(place).collect()
}

#[test]
fn every_service_that_speaks_answers() {
    let server = server();
    for target in targets(&server) {
        let ran = ping(&["--count", "3", &target]);
        assert_eq!((ran.code, &*ran.stderr), (Some(0), ""), "{target}: {}", ran.stdout);
        let lines: Vec<&str> = ran.stdout.lines().collect();
        let [one, two, three, name, summary] = lines[..] else { panic!("{target}: {lines:?}") };
        for (number, line) in [one, two, three].into_iter().enumerate() {
            assert!(line.starts_with("PONG from 127.0.0.1:"), "{line}");
            assert!(line.contains(&format!(" number={} time=", number + 1)) && line.ends_with(" ms"), "{line}");
        }
        assert_eq!(name, format!("--- {target} ---"));
        assert!(summary.starts_with("3 sent, 3 answered, 0.0% lost; min/avg/p99/max "), "{summary}");
        let figures = summary.trim_end_matches(" ms").rsplit(' ').next().expect("a last word");
        let figures: Vec<f64> = figures.split('/').map(|figure| figure.parse().expect("a number")).collect();
        assert!(figures.len() == 4 && figures[0] <= figures[1] && figures[2] <= figures[3], "{summary}");
    }
}

#[test]
fn json_is_an_object_a_line() {
    let server = server();
    let ran = ping(&["--json", "--count", "2", &targets(&server)[0]]);
    assert_eq!(ran.code, Some(0));
    let objects: Vec<serde_json::Value> =
        ran.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let [one, two, summary] = &objects[..] else { panic!("{objects:?}") };
    for (number, answer) in [(1, one), (2, two)] {
        assert_eq!((&answer["event"], &answer["number"]), (&"answer".into(), &number.into()));
        assert!(answer["ms"].as_f64().is_some_and(|ms| ms > 0.0) && answer["from"].is_string(), "{answer}");
    }
    assert_eq!((&summary["sent"], &summary["answered"], &summary["lost_percent"]), (&2.into(), &2.into(), &0.0.into()));
    assert!(summary["p99_ms"].is_f64());
    let ran = ping(&["--json", "--count", "1", "udp:127.0.0.1:1"]);
    let objects: Vec<serde_json::Value> =
        ran.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((ran.code, &objects[0]["event"], objects[1].get("p99_ms")), (Some(1), &"lost".into(), None));
}

#[test]
fn where_nothing_answers_the_status_is_1() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let gone = listener.local_addr().expect("an address").to_string();
    drop(listener);
    for target in [gone.clone(), format!("udp:{gone}"), format!("ws://{gone}/chat")] {
        let ran = ping(&["--count", "2", &target]);
        assert_eq!(ran.code, Some(1), "{}", ran.stdout);
        assert_eq!(ran.stdout.matches("Connection refused").count(), 2, "{}", ran.stdout);
        assert!(ran.stdout.ends_with("2 sent, 0 answered, 100.0% lost\n"), "{}", ran.stdout);
    }
    // The kernel completes the connection, and then nothing comes.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let target = silent.local_addr().expect("an address").to_string();
    for target in [target.clone(), format!("ws://{target}/")] {
        let ran = run(&mut command(&["ping", "--count", "2", "--interval", "10ms", "--timeout", "50ms", &target]));
        assert_eq!(ran.code, Some(1));
        assert_eq!(ran.stdout.matches("nothing for 50ms").count(), 2, "{}", ran.stdout);
    }
    let ran = ping(&["--count", "1", "no-such-host.invalid:1"]);
    assert_eq!((ran.code, &*ran.stdout), (Some(1), ""));
    assert!(ran.stderr.starts_with("oneloop: cannot go to no-such-host.invalid:1: no address"), "{}", ran.stderr);
    assert_eq!(ran.stderr.lines().count(), 1);
}

#[test]
fn whoever_never_answers_a_handshake_is_not_kept() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let target = format!("ws://{}/", silent.local_addr().expect("an address"));
    let (ping, stdout, _) = Process::heard(&mut command(&["ping", "--interval", "10ms", "--timeout", "20ms", &target]));
    stdout.lines(3, "nothing for 20ms");
    let before = ping.descriptors();
    stdout.lines(40, "nothing for 20ms");
    let after = ping.descriptors();
    assert!(after < before + 8, "{before} descriptors have become {after}");
}

#[test]
fn what_is_no_websocket_server_is_said_to_be_none() {
    let server = server();
    let web = server.places.iter().find(|(name, _)| name == "web").expect("it is on").1;
    let ran = ping(&["--count", "1", &format!("ws://{web}/nowhere")]);
    assert!(ran.code == Some(1) && ran.stdout.contains("404 Not Found"), "{}", ran.stdout);
    let ran = ping(&["--count", "1", &format!("ws://{}/", server.address())]);
    assert!(ran.code == Some(1) && ran.stdout.contains("does not speak HTTP"), "{}", ran.stdout);
}

#[test]
fn a_name_with_several_addresses_is_tried_at_all_of_them() {
    let Ok(listener) = TcpListener::bind("[::1]:0") else { return println!("not run: no IPv6") };
    let port = listener.local_addr().expect("an address").port().to_string();
    let answering = thread::spawn(move || {
        let (stream, _) = listener.accept().expect("somebody comes");
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).expect("a line");
        (&stream).write_all(b"WELCOME\nPONG\n").expect("it is taken");
        line
    });
    let ran = ping(&["--count", "1", &port]);
    assert_eq!(answering.join().expect("no panic"), "PING\n");
    assert!(ran.code == Some(0) && ran.stdout.contains("PONG from [::1]:"), "{}", ran.stdout);
}

#[test]
fn a_late_answer_is_not_taken_for_the_next() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let target = format!("udp:{}", socket.local_addr().expect("an address"));
    let answering = thread::spawn(move || {
        let mut bytes = [0; 16];
        let mut next = || {
            let (count, from) = socket.recv_from(&mut bytes).expect("a datagram");
            assert_eq!(&bytes[..count], b"PING");
            from
        };
        let (first, second) = (next(), next());
        assert_ne!(first, second, "the first answer would be taken for the second");
        let _ = socket.send_to(b"PONG", first);
        socket.send_to(b"PONG", second).expect("it is sent");
    });
    let ran = run(&mut command(&["ping", "--count", "2", "--interval", "10ms", "--timeout", "300ms", &target]));
    answering.join().expect("no panic");
    assert_eq!(ran.code, Some(0), "{}", ran.stdout);
    assert!(
        ran.stdout.contains("number=1: nothing for 300ms") && ran.stdout.contains("number=2 time="),
        "{}",
        ran.stdout
    );
    assert!(ran.stdout.contains("2 sent, 1 answered, 50.0% lost"), "{}", ran.stdout);
}

#[test]
fn it_goes_on_when_the_server_comes_back() {
    let mut server = Server::echo(&[]);
    let address = server.address().to_string();
    let (mut ping, stdout, _) = Process::heard(&mut command(&["ping", "--interval", "10ms", &address]));
    stdout.line("number=1 time=");
    server.stop();
    stdout.line("Connection refused");
    let again = Server::start(1, &["--echo", &address, "--udp", "off"]);
    let lost = stdout.lines(1, "no answer").len();
    stdout.lines(stdout.so_far().matches(" time=").count() + 3, " time=");
    ping.signal(Signal::INT);
    assert_eq!(ping.wait().code(), Some(0));
    assert!(lost > 0 && stdout.all().contains("% lost; min/avg/p99/max"));
    drop(again);
}

#[test]
fn ctrl_c_ends_it_with_the_summary() {
    let server = server();
    let target = targets(&server)[0].clone();
    let (mut ping, stdout, stderr) = Process::heard(&mut command(&["ping", &target]));
    stdout.line("number=1 time=");
    ping.signal(Signal::INT);
    assert_eq!(ping.wait().code(), Some(0));
    assert!(stdout.all().contains("\n1 sent, 1 answered, 0.0% lost; "), "{}", stdout.all());
    assert_eq!(stderr.all(), "");
    // A question that is out when it ends is not called lost, but then nothing has answered.
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let at = silent.local_addr().expect("an address");
    let (mut ping, stdout, _) = Process::heard(&mut command(&["ping", &format!("udp:{at}")]));
    assert_eq!(receive(&silent), b"PING");
    ping.signal(Signal::INT);
    assert_eq!(ping.wait().code(), Some(1));
    assert!(stdout.all().ends_with("0 sent, 0 answered, 0.0% lost\n"), "{}", stdout.all());
    drop(udp_client(at));
}

#[test]
fn an_output_that_is_not_read_does_not_keep_it() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let target = format!("udp:{}", socket.local_addr().expect("an address"));
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    writer.write_all(&[b'x'; 64 << 10]).expect("as much as a pipe takes");
    let mut ping = Process::spawn(command(&["ping", &target]).stdout(writer));
    let mut bytes = [0; 16];
    let (_, from) = socket.recv_from(&mut bytes).expect("a question");
    socket.send_to(b"PONG", from).expect("it is sent");
    until("it to sleep", || ping.state() == "S");
    ping.signal(Signal::TERM);
    assert!(ping.wait().code().is_some(), "whatever it had to say");
    drop(reader);
}

#[test]
fn help_teaches_and_wrong_usage_is_2() {
    for args in [&["ping", "--help"][..], &["help", "ping"]] {
        let ran = run(&mut command(args));
        assert_eq!((ran.code, &*ran.stderr), (Some(0), ""));
        assert!(ran.stdout.contains("oneloop ping --count 3 example.org:9000"), "{}", ran.stdout);
    }
    for (args, part) in [
        (&["ping"][..], "<ADDR>"),
        (&["ping", "localhost"], "must be HOST:PORT"),
        (&["ping", "--count", "0", "9000"], "--count"),
        (&["ping", "--interval", "1", "9000"], "such as 500ms"),
    ] {
        let ran = run(&mut command(args));
        assert_eq!((ran.code, &*ran.stdout, ran.stderr.lines().count()), (Some(2), "", 1), "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(part), "{args:?}: {}", ran.stderr);
    }
}
