//! The UDP responder: one short answer a datagram, and none to whatever could make it loop or reflect. Pure.

use super::{Context, Protocol};
use crate::time::Moment;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

/// What a datagram is answered with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reply {
    /// `OK`.
    #[default]
    Ok,
    /// `ACK`.
    Ack,
    /// The same bytes.
    Echo,
}

/// Source ports that answer whatever comes, so that one spoofed datagram would go round for ever (CVE-2024-2169): echo,
/// daytime, quote of the day, chargen, time. Port 0 cannot be sent to.
const PORTS_THAT_ANSWER: [u16; 6] = [0, 7, 13, 17, 19, 37];

/// Answers each datagram with [`Reply`], and `PING` with `PONG`. The machine of the service `udp`.
#[derive(Debug)]
pub struct Responder {
    reply: Reply,
    own_port: u16,
    /// Echoes to each address beyond loopback in the second `counted_second`.
    echoed: HashMap<IpAddr, u32>,
    counted_second: u64,
}

impl Responder {
    /// A responder that answers with `reply`.
    pub fn new(reply: Reply) -> Responder {
        Responder { reply, own_port: 0, echoed: HashMap::new(), counted_second: 0 }
    }

    /// Whether an answer could only do harm: nobody there, another responder, or many at once.
    fn must_ignore(&self, message: &[u8], from: SocketAddr) -> bool {
        let broadcast = match from.ip().to_canonical() {
            IpAddr::V4(ip) => ip.is_broadcast() || ip.is_unspecified() || ip.is_multicast(),
            IpAddr::V6(ip) => ip.is_unspecified() || ip.is_multicast(),
        };
        broadcast
            || PORTS_THAT_ANSWER.contains(&from.port())
            || from.port() == self.own_port
            || matches!(message, b"" | b"OK" | b"ACK" | b"PONG")
    }

    /// Whether `ip` may be sent one more echo in this second.
    fn may_echo(&mut self, now: Moment, ip: IpAddr, per_second: u32, sources: usize) -> bool {
        if ip.is_loopback() {
            return true;
        }
        let second = now.as_micros() / 1_000_000;
        if second != self.counted_second {
            self.counted_second = second;
            self.echoed.clear();
        }
        if self.echoed.len() >= sources && !self.echoed.contains_key(&ip) {
            return false;
        }
        let echoed = self.echoed.entry(ip).or_default();
        *echoed += 1;
        *echoed <= per_second
    }
}

impl Protocol for Responder {
    fn opened(&mut self, _: &mut Context<'_>, address: SocketAddr) {
        self.own_port = address.port();
    }

    fn datagram(&mut self, context: &mut Context<'_>, bytes: &[u8], from: SocketAddr) {
        // `echo PING | nc -u` sends the line's end too.
        let message = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let message = message.strip_suffix(b"\r").unwrap_or(message);
        if self.must_ignore(message, from) {
            context.metrics.datagrams_ignored += 1;
            return;
        }
        match (message, self.reply) {
            (b"PING", _) => context.outbox.push(b"PONG"),
            (_, Reply::Ok) => context.outbox.push(b"OK"),
            (_, Reply::Ack) => context.outbox.push(b"ACK"),
            (_, Reply::Echo) => {
                let limits = context.limits;
                let ip = from.ip().to_canonical();
                if self.may_echo(context.now, ip, limits.echo_replies_per_second, limits.echo_sources) {
                    context.outbox.push(bytes);
                } else {
                    context.metrics.datagrams_limited += 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::Queue;
    use crate::limits::Limits;
    use crate::metrics::Metrics;
    use crate::protocol::Standing;
    use crate::room::Rooms;
    use crate::slots::Slots;
    use std::time::Duration;

    struct Bench {
        machine: Responder,
        metrics: Metrics,
        now: Moment,
    }

    impl Bench {
        fn new(reply: Reply) -> Bench {
            let mut bench = Bench { machine: Responder::new(reply), metrics: Metrics::default(), now: Moment::START };
            bench.with(|machine, context| machine.opened(context, "127.0.0.1:8080".parse().unwrap()));
            bench
        }

        fn with(&mut self, work: impl FnOnce(&mut Responder, &mut Context<'_>)) -> Vec<u8> {
            let mut outbox = Queue::default();
            let limits = Limits { echo_sources: 3, ..Limits::default() };
            let mut context = Context {
                now: self.now,
                id: Slots::new().insert(()),
                outbox: &mut outbox,
                message: &mut Queue::default(),
                deadline: &mut None,
                busy: &mut false,
                limits: &limits,
                metrics: &mut self.metrics,
                rooms: &mut Rooms::default(),
                seat: &mut None,
                standing: Standing::default(),
                text: &mut String::new(),
                random: &mut || 0,
                effects: &mut Vec::new(),
                high_bytes: limits.outbox_high_bytes,
            };
            work(&mut self.machine, &mut context);
            outbox.as_slice().to_vec()
        }

        fn answer(&mut self, bytes: &[u8], from: &str) -> Vec<u8> {
            let from = from.parse().unwrap();
            self.with(|machine, context| machine.datagram(context, bytes, from))
        }
    }

    #[test]
    fn each_reply_is_as_asked_and_ping_is_always_pong() {
        for (reply, expected) in [(Reply::Ok, &b"OK"[..]), (Reply::Ack, b"ACK"), (Reply::Echo, b"hi\n")] {
            let mut bench = Bench::new(reply);
            assert_eq!(bench.answer(b"hi\n", "127.0.0.1:40000"), expected);
            for ping in [&b"PING"[..], b"PING\n", b"PING\r\n"] {
                assert_eq!(bench.answer(ping, "127.0.0.1:40000"), b"PONG");
            }
        }
    }

    #[test]
    fn what_could_loop_or_reflect_is_never_answered() {
        for reply in [Reply::Ok, Reply::Ack, Reply::Echo] {
            let mut bench = Bench::new(reply);
            let mut ignored = 0;
            for bytes in [&b""[..], b"OK", b"ACK", b"PONG", b"PONG\n", b"OK\r\n"] {
                assert_eq!(bench.answer(bytes, "127.0.0.1:40000"), b"", "{}", bytes.escape_ascii());
                ignored += 1;
            }
            for port in [0, 7, 13, 17, 19, 37, 8080] {
                assert_eq!(bench.answer(b"hi", &format!("10.0.0.1:{port}")), b"", "port {port}");
                ignored += 1;
            }
            for ip in ["255.255.255.255", "0.0.0.0", "224.0.0.1", "[ff02::1]", "[::ffff:224.0.0.1]", "[::]"] {
                assert_eq!(bench.answer(b"hi", &format!("{ip}:40000")), b"", "{ip}");
                ignored += 1;
            }
            assert_eq!(bench.metrics.datagrams_ignored, ignored);
        }
    }

    #[test]
    fn an_echo_beyond_loopback_is_rationed_by_address_and_second() {
        let mut bench = Bench::new(Reply::Echo);
        let echoes = |bench: &mut Bench, from: &str| (0..50).filter(|_| bench.answer(b"hi", from) == b"hi").count();
        assert_eq!(echoes(&mut bench, "127.0.0.1:4000"), 50);
        assert_eq!(echoes(&mut bench, "[::ffff:127.0.0.1]:4000"), 50);
        assert_eq!(echoes(&mut bench, "192.0.2.1:4000"), 20);
        assert_eq!(echoes(&mut bench, "192.0.2.1:4001"), 0, "another port of the same address");
        assert_eq!(echoes(&mut bench, "192.0.2.2:4000"), 20);
        assert_eq!(echoes(&mut bench, "192.0.2.3:4000"), 20);
        assert_eq!(echoes(&mut bench, "192.0.2.4:4000"), 0, "a fourth address in a table of three");
        bench.now = bench.now + Duration::from_secs(1);
        assert_eq!(echoes(&mut bench, "192.0.2.4:4000"), 20);
        assert_eq!(bench.metrics.datagrams_limited, 30 * 4 + 50 * 2);
    }

    #[test]
    fn the_fixed_answers_are_not_rationed() {
        let mut bench = Bench::new(Reply::Ok);
        assert!((0..100).all(|_| bench.answer(b"hi", "192.0.2.1:4000") == b"OK"));
    }
}
