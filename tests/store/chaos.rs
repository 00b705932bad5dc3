//! Many clients, a disk that fails now and then, a server that is killed and started again, all by one seed: whatever happens,
//! what is visible is whole, and when all is well again, nothing is held. `ONELOOP_SEED=n` replays one.

use crate::disk::{Faults, Shared};
use crate::fake::Bench;
use crate::{ALL, HOUR, bench, hash, limits, say};
use oneloop::limits::Limits;
use oneloop::wire::files::name;
use std::io::ErrorKind;
use std::time::Duration;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}

/// What a file of this name may hold: three things, of which two are of the same size.
fn content(file: usize, variant: usize) -> Vec<u8> {
    vec![b'a' + (10 * file + variant) as u8; [0, 90, 90][variant]]
}

/// A client, and what it has still to say.
struct Client {
    peer: usize,
    todo: Vec<u8>,
}

/// What must have happened somewhere.
#[derive(Default)]
struct Seen {
    stored: usize,
    resumed: usize,
    broken: usize,
    failed: usize,
    restarts: usize,
}

fn run(seed: u64, seen: &mut Seen) {
    let mut random = Random(seed);
    let (memory, limits) = (Shared::default(), Limits { files_uploads: 3, files_readers: 1, ..limits() });
    memory.borrow_mut().writes_short = random.below(2) == 0;
    let mut server = bench(&memory, ALL, limits.clone());
    let mut clients: Vec<Client> = Vec::new();
    for step in 0..150 {
        let chosen = random.below(clients.len().max(1));
        match random.below(12) {
            0..3 => {
                let (file, variant) = (random.below(3), random.below(3));
                let bytes = content(file, variant);
                let digest = if random.below(4) > 0 { format!(" {}", hash(&bytes)) } else { String::new() };
                // Some lie about what is coming; without a hash nobody could tell.
                let lies = !digest.is_empty() && random.below(4) == 0;
                let sent = if lies { vec![b'!'; bytes.len()] } else { bytes };
                let todo = [format!("PUT f{file} {}{digest}\n", sent.len()).as_bytes(), &sent].concat();
                clients.push(Client { peer: server.connect(), todo });
            }
            3 => {
                let lines = ["GET f0\n", "GET f1 7\n", "LIST\n", "DELETE f1\n", "DELETE f2\nPING\n", "nonsense\n"];
                let client = Client { peer: server.connect(), todo: lines[random.below(6)].into() };
                if random.below(2) == 0 {
                    server.set_room(client.peer, 30); // it takes no more than that until it is let
                }
                clients.push(client);
            }
            4..8 if !clients.is_empty() => {
                let client = &mut clients[chosen];
                let rest = client.todo.split_off(random.below(client.todo.len() + 1));
                server.send(client.peer, std::mem::replace(&mut client.todo, rest));
                // A client that says a hash waits for the answer, and sends what is still missing.
                let told = server.take(client.peer);
                seen.stored += usize::from(told.contains("STORED"));
                seen.failed += usize::from(told.contains("ERROR disk"));
                let offset = told.strip_prefix("READY ").and_then(|told| told.lines().next()?.parse().ok());
                if let Some(offset @ 1..) = offset {
                    seen.resumed += 1;
                    let from = client.todo.len().saturating_sub(90) + offset;
                    client.todo = client.todo.split_off(from.min(client.todo.len()));
                }
            }
            8 if !clients.is_empty() => {
                let client = clients.swap_remove(chosen);
                seen.broken += usize::from(!client.todo.is_empty());
                server.end(client.peer);
                server.run();
            }
            9 if !clients.is_empty() => server.set_room(clients[chosen].peer, [0, 30, usize::MAX][random.below(3)]),
            10 => {
                let (call, kind) = (memory.borrow().calls, [ErrorKind::StorageFull, ErrorKind::Other][random.below(2)]);
                memory.borrow_mut().faults = Faults::At(call + random.below(8), kind);
            }
            11 if random.below(6) == 0 => {
                memory.borrow_mut().faults = Faults::None;
                clients.clear();
                server = bench(&memory, ALL, limits.clone());
                seen.restarts += 1;
            }
            _ => server.run_for(Duration::from_secs(random.below(40) as u64)),
        }
        check(&memory, seed, step);
    }
    memory.borrow_mut().faults = Faults::None;
    for client in clients {
        server.set_room(client.peer, usize::MAX);
        server.end(client.peer);
    }
    server.run_for(25 * HOUR);
    settle(&mut server, &memory, seed);
}

/// Whatever has a name is whole.
fn check(memory: &Shared, seed: u64, step: usize) {
    for (file, found) in memory.borrow().files.iter().filter(|(file, _)| name(file.as_bytes()).is_some()) {
        let number: usize = file[1..].parse().expect("a number");
        let known = (0..3).any(|variant| content(number, variant) == found.borrow().bytes);
        assert!(known, "seed {seed}, step {step}: {file} is \"{}\"", found.borrow().bytes.escape_ascii());
    }
}

/// Everything can be had again.
fn settle(server: &mut Bench, memory: &Shared, seed: u64) {
    say(server, "DELETE f0\nDELETE f1\nDELETE f2\n");
    // One reader at a time is let in, so none may be left; and this looks for parts whose time is over.
    assert_eq!(say(server, "LIST\n"), "END 0\n", "seed {seed}");
    assert_eq!(memory.borrow().names(), [""; 0], "seed {seed}");
    let told = say(server, "PUT last 1000\n");
    assert_eq!(told, "READY 0\nERROR size: only 0 of 1000 bytes came\n", "seed {seed}");
}

#[test]
fn whatever_happens_what_is_visible_is_whole() {
    let asked = std::env::var("ONELOOP_SEED").ok().and_then(|seed| seed.parse().ok());
    let mut seen = Seen::default();
    match asked {
        Some(seed) => return run(seed, &mut seen),
        None => (0..1000).for_each(|seed| run(seed, &mut seen)),
    }
    let Seen { stored, resumed, broken, failed, restarts } = seen;
    let counts =
        [("stored", stored), ("resumed", resumed), ("broken", broken), ("failed", failed), ("restarts", restarts)];
    for (what, count) in counts {
        assert!(count > 500, "only {count} {what}");
    }
}
