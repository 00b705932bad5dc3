//! In the steady state a delivery costs no heap allocation: none at all, counted by the allocator of this test; neither as a
//! line nor as a WebSocket frame.

use allocation_counter::measure;
use oneloop::limits::Limits;
use oneloop::net::mio::{MioNet, listen};
use oneloop::protocol::chat::Chat;
use oneloop::reactor::Reactor;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

/// Rounds before the counting begins: what is kept for later has then been taken once.
const WARM_UP: usize = 100;
const ROUNDS: usize = 1000;

/// How a member speaks and reads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Lines,
    #[cfg(feature = "web")]
    Frames,
}

use Kind::Lines;

impl Kind {
    /// What it sends to say this.
    fn said(self, text: &[u8]) -> Vec<u8> {
        match self {
            Lines => [text, b"\n"].concat(),
            #[cfg(feature = "web")]
            Kind::Frames => {
                let mask = *b"\x12\x34\x56\x78";
                let header = match text.len() {
                    length @ 0..126 => vec![0x81, 0x80 | length as u8],
                    length => [&[0x81, 0xfe], &(length as u16).to_be_bytes()[..]].concat(),
                };
                let masked = text.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key);
                header.into_iter().chain(mask).chain(masked).collect()
            }
        }
    }

    /// How it is told a line of this length, which has no end.
    fn told_bytes(self, length: usize) -> usize {
        match self {
            Lines => length + 1,
            #[cfg(feature = "web")]
            Kind::Frames => length + if length < 126 { 2 } else { 4 },
        }
    }

    fn has_heard(self, heard: &[u8], last: &str) -> bool {
        match self {
            Lines => heard.strip_suffix(b"\n").is_some_and(|heard| heard.ends_with(last.as_bytes())),
            #[cfg(feature = "web")]
            Kind::Frames => heard.ends_with(last.as_bytes()),
        }
    }
}

#[cfg(feature = "web")]
const HANDSHAKE: &[u8] = b"GET /chat HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// A room, its server and all its members in one thread, so that nothing else allocates while the loop turns.
struct Room {
    reactor: Reactor<MioNet>,
    members: Vec<TcpStream>,
    kinds: Vec<Kind>,
    /// What each member has read.
    heard: Vec<Vec<u8>>,
}

impl Room {
    /// Members of one room; the limits are the defaults as `change` leaves them.
    fn of(kinds: &[Kind], change: impl FnOnce(&mut Limits)) -> Room {
        let mut limits = Limits::default();
        change(&mut limits);
        let mut reactor = Reactor::new(MioNet::new(&limits).expect("a poll"), limits.clone());
        let listener = listen("127.0.0.1:0".parse().expect("an address"), &limits).expect("a free port");
        let address = listener.local_addr().expect("an address");
        reactor.listen("chat", listener, || Box::new(Chat::default())).expect("it is watched");
        #[cfg(feature = "web")]
        let web_address = {
            let listener = listen("127.0.0.1:0".parse().expect("an address"), &limits).expect("a free port");
            let address = listener.local_addr().expect("an address");
            let desk = oneloop::protocol::web::Desk::new(&[], Default::default, address);
            reactor.monitor("web", listener, desk.maker()).expect("it is watched");
            address
        };
        let heard = vec![Vec::new(); kinds.len()];
        let mut room = Room { reactor, members: Vec::new(), kinds: kinds.to_vec(), heard };
        for (index, kind) in kinds.iter().enumerate() {
            let member = match kind {
                Lines => TcpStream::connect(address),
                #[cfg(feature = "web")]
                Kind::Frames => TcpStream::connect(web_address),
            }
            .expect("a connection");
            member.set_nodelay(true).expect("no delay");
            #[cfg(feature = "web")]
            if *kind == Kind::Frames {
                (&member).write_all(HANDSHAKE).expect("sent");
            }
            member.set_nonblocking(true).expect("no waiting");
            room.members.push(member);
            let allocations = room.turn_until(|room| {
                let name = format!("WELCOME guest-{},", index + 1);
                room.heard[index].windows(name.len()).any(|heard| heard == name.as_bytes())
            });
            assert!(allocations > 0, "a new member has a name of its own at least: the counter counts");
        }
        // The last JOIN may still be on its way.
        for (index, name) in ["guest-1: the mark", "guest-2: the mark"].into_iter().enumerate() {
            room.members[index].write_all(&kinds[index].said(b"the mark")).expect("sent");
            room.turn_until(|room| {
                let mut members = kinds.iter().zip(&room.heard).enumerate();
                members.all(|(member, (kind, heard))| member == index || kind.has_heard(heard, name))
            });
        }
        room.heard.iter_mut().for_each(Vec::clear);
        room
    }

    /// Turns until `done`, reads between the turns, and counts the allocations of the loop alone.
    fn turn_until(&mut self, done: impl Fn(&Room) -> bool) -> u64 {
        let (mut allocations, mut buffer) = (0, [0; 4096]);
        loop {
            for (member, heard) in self.members.iter_mut().zip(&mut self.heard) {
                loop {
                    match member.read(&mut buffer) {
                        Ok(0) => panic!("the server closed a member"),
                        Ok(count) => heard.extend_from_slice(&buffer[..count]),
                        Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            if done(self) {
                return allocations;
            }
            allocations += measure(|| assert_eq!(self.reactor.turn().expect("the poll works"), None)).count_total;
        }
    }

    /// The first `speakers` say `times` lines at once, again and again, each round heard by all before the next. Returns the
    /// allocations once warm.
    fn allocations(&mut self, speakers: usize, times: usize) -> u64 {
        let mut allocations = 0;
        for round in 0..WARM_UP + ROUNDS {
            let text = vec![b'x'; round * 37 % 2000 + 1];
            // All of it waits before the first turn: own lines lie between those of others.
            for (member, kind) in self.members[..speakers].iter_mut().zip(&self.kinds) {
                member.write_all(&kind.said(&text).repeat(times)).expect("sent");
            }
            let told = "MESSAGE guest-1: ".len() + text.len();
            let count = self.turn_until(|room| {
                room.heard.iter().zip(&room.kinds).enumerate().all(|(index, (heard, kind))| {
                    heard.len() == kind.told_bytes(told) * times * (speakers - usize::from(index < speakers))
                })
            });
            for (heard, kind) in self.heard.iter_mut().zip(&self.kinds) {
                let begins = kind.told_bytes(told) - told - usize::from(*kind == Lines);
                assert!(heard.is_empty() || heard[begins..].starts_with(b"MESSAGE guest-"));
                assert!(heard.is_empty() || kind.has_heard(heard, "x"));
                heard.clear();
            }
            allocations += if round < WARM_UP { 0 } else { count };
        }
        allocations
    }
}

#[test]
fn a_delivery_costs_no_allocation() {
    assert_eq!(Room::of(&[Lines; 5], |_| ()).allocations(1, 1), 0);
}

#[test]
fn a_delivery_among_own_lines_costs_no_allocation() {
    assert_eq!(Room::of(&[Lines; 5], |_| ()).allocations(3, 4), 0);
}

#[test]
fn a_delivery_in_small_passes_costs_no_allocation() {
    assert_eq!(Room::of(&[Lines; 9], |limits| limits.fan_out_budget = 2).allocations(3, 4), 0);
}

#[cfg(feature = "web")]
mod with_frames {
    use super::*;
    use Kind::Frames;

    #[test]
    fn a_delivery_to_web_sockets_costs_no_allocation() {
        assert_eq!(Room::of(&[Lines, Frames, Frames, Lines, Frames], |_| ()).allocations(1, 1), 0);
    }

    #[test]
    fn what_a_web_socket_says_costs_no_allocation() {
        assert_eq!(Room::of(&[Frames, Lines, Lines, Frames], |_| ()).allocations(1, 1), 0);
        assert_eq!(Room::of(&[Frames; 4], |_| ()).allocations(1, 1), 0, "nobody reads lines");
    }

    #[test]
    fn a_delivery_of_either_kind_among_own_lines_in_small_passes_costs_no_allocation() {
        let members = [Frames, Lines, Frames, Lines, Frames, Frames, Lines];
        assert_eq!(Room::of(&members, |limits| limits.fan_out_budget = 2).allocations(4, 3), 0);
    }
}
