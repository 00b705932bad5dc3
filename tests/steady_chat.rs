//! In the steady state a delivery costs no heap allocation: none at all, counted by the allocator of this test.

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

/// A room, its server and all its members in one thread, so that nothing else allocates while the loop turns.
struct Room {
    reactor: Reactor<MioNet>,
    members: Vec<TcpStream>,
    /// What each member has read.
    heard: Vec<Vec<u8>>,
}

impl Room {
    /// Members of one room; the limits are the defaults as `change` leaves them.
    fn of(count: usize, change: impl FnOnce(&mut Limits)) -> Room {
        let mut limits = Limits::default();
        change(&mut limits);
        let mut reactor = Reactor::new(MioNet::new(&limits).expect("a poll"), limits.clone());
        let listener = listen("127.0.0.1:0".parse().expect("an address"), &limits).expect("a free port");
        let address = listener.local_addr().expect("an address");
        reactor.listen("chat", listener, || Box::new(Chat::default())).expect("it is watched");
        let mut room = Room { reactor, members: Vec::new(), heard: vec![Vec::new(); count] };
        for index in 0..count {
            let member = TcpStream::connect(address).expect("a connection");
            member.set_nodelay(true).expect("no delay");
            member.set_nonblocking(true).expect("no waiting");
            room.members.push(member);
            let allocations = room.turn_until(|room| room.heard[index].starts_with(b"WELCOME "));
            assert!(allocations > 0, "a new member has a name of its own at least: the counter counts");
        }
        // The last JOIN may still be on its way.
        room.members[0].write_all(b"the mark\n").expect("sent");
        room.turn_until(|room| room.heard[1..].iter().all(|heard| heard.ends_with(b": the mark\n")));
        room.members[1].write_all(b"the mark\n").expect("sent");
        room.turn_until(|room| {
            room.heard.iter().enumerate().all(|(index, heard)| index == 1 || heard.ends_with(b"guest-2: the mark\n"))
        });
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
            let said = [&text[..], b"\n"].concat().repeat(times);
            // All of it waits before the first turn: own lines lie between those of others.
            self.members[..speakers].iter_mut().for_each(|member| member.write_all(&said).expect("sent"));
            let told = "MESSAGE guest-1: \n".len() + text.len();
            let count = self.turn_until(|room| {
                room.heard
                    .iter()
                    .enumerate()
                    .all(|(index, heard)| heard.len() == told * times * (speakers - usize::from(index < speakers)))
            });
            for heard in &mut self.heard {
                assert!(heard.starts_with(b"MESSAGE guest-") || heard.is_empty());
                heard.clear();
            }
            allocations += if round < WARM_UP { 0 } else { count };
        }
        allocations
    }
}

#[test]
fn a_delivery_costs_no_allocation() {
    assert_eq!(Room::of(5, |_| ()).allocations(1, 1), 0);
}

#[test]
fn a_delivery_among_own_lines_costs_no_allocation() {
    assert_eq!(Room::of(5, |_| ()).allocations(3, 4), 0);
}

#[test]
fn a_delivery_in_small_passes_costs_no_allocation() {
    assert_eq!(Room::of(9, |limits| limits.fan_out_budget = 2).allocations(3, 4), 0);
}
