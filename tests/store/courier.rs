//! `get` on a disk in memory whose calls fail: what is there in the end has its name only if it is whole.

use crate::disk::{FakeDisk, Faults, Memory, Shared};
use crate::fake::{Answer, Bench};
use crate::{HOUR, hash};
use oneloop::limits::Limits;
use oneloop::protocol::echo::LineEcho;
use oneloop::protocol::files::courier::{Courier, Job, Step, Watch};
use oneloop::wire::files::Digest;
use std::cell::RefCell;
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

type Results = Rc<RefCell<Vec<Result<String, String>>>>;

struct Witness {
    results: Results,
    pauses: Rc<RefCell<Vec<String>>>,
}

impl Watch for Witness {
    fn moved(&mut self, _: &str, _: Step, at: u64, size: u64) {
        assert!(at <= size);
    }

    fn pauses(&mut self, _: &str, why: &str, _: Duration) {
        self.pauses.borrow_mut().push(why.to_string());
    }

    fn done(&mut self, _: &str, result: Result<Digest, String>) {
        self.results.borrow_mut().push(result.map(|digest| digest.to_string()));
    }
}

const CONTENT: &[u8] = b"abcdefghij";

/// Fetches `a` from a server that breaks off once in the middle. Returns what came of it, and the pauses.
fn fetch(memory: &Shared) -> (Result<String, String>, Vec<String>) {
    let (results, pauses) = (Results::default(), Rc::default());
    let witness = Witness { results: results.clone(), pauses: Rc::clone(&pauses) };
    let limits = Limits { files_budget_bytes: 3, ..Limits::default() };
    let mut bench = Bench::new::<LineEcho>(limits);
    let disk = Box::new(FakeDisk(memory.clone()));
    let jobs = [Job::Get { name: "a".to_string() }];
    let courier = Courier::new(jobs, vec![([192, 0, 2, 1], 1).into()], 3, Some(disk), false, Box::new(witness));
    bench.set_answer(Answer::Accepts);
    bench.reactor.add("files", Box::new(courier));
    let mut served = 0;
    while results.borrow().is_empty() {
        bench.run_for(Duration::from_secs(8));
        assert!(bench.now() < HOUR, "it comes to an end");
        for _ in bench.dials() {
            let peer = bench.last();
            let asked = bench.take(peer);
            let Some(offset) = asked.strip_prefix("GET a ") else { panic!("{asked:?}") };
            let offset: usize = offset.trim_end().parse().expect("a number");
            served += 1;
            let end = if served == 1 { CONTENT.len() / 2 } else { CONTENT.len() };
            bench.arrive(peer, format!("FILE a {} {}\n", CONTENT.len(), hash(CONTENT)));
            bench.arrive(peer, &CONTENT[offset.min(end)..end]);
            bench.end(peer);
        }
        bench.run();
    }
    let result = results.borrow_mut().pop().expect("one");
    (result, pauses.take())
}

#[test]
fn it_goes_on_where_the_connection_broke_off() {
    let memory = Shared::default();
    let (result, pauses) = fetch(&memory);
    assert_eq!(result, Ok(hash(CONTENT)));
    assert_eq!(pauses, ["the server ended the connection after 5 bytes"]);
    assert_eq!(memory.borrow().names(), ["a"]);
}

#[test]
fn whatever_call_fails_here_no_file_is_partial() {
    let unharmed = Shared::default();
    assert!(fetch(&unharmed).0.is_ok());
    let (calls, mut failed) = (unharmed.borrow().calls, 0);
    for writes_short in [false, true] {
        for at in 0..2 * calls {
            let kinds = [ErrorKind::StorageFull, ErrorKind::Other];
            for faults in kinds.into_iter().flat_map(|kind| [Faults::At(at, kind), Faults::From(at, kind)]) {
                let memory = Rc::new(RefCell::new(Memory { writes_short, faults, ..Memory::default() }));
                let result = fetch(&memory).0;
                failed += usize::from(result.is_err());
                let found = memory.borrow().files.get("a").map(|content| content.borrow().bytes.clone());
                match result {
                    Ok(digest) => assert_eq!((digest, found.as_deref()), (hash(CONTENT), Some(CONTENT)), "{faults:?}"),
                    Err(why) => assert_eq!(found, None, "{faults:?}: {why}"),
                }
                memory.borrow_mut().faults = Faults::None;
                assert_eq!(fetch(&memory).0, Ok(hash(CONTENT)), "{faults:?}: and then it goes on");
                assert_eq!(memory.borrow().names(), ["a"], "{faults:?}");
            }
        }
    }
    assert!(failed > calls, "{failed} of {calls} calls");
}
