//! File transfer on a disk in memory and a network in memory: every call of the disk fails once, and time passes as the test
//! says.
#![cfg(feature = "files")]

mod chaos;
mod courier;
mod disk;
#[path = "../fake/mod.rs"]
mod fake;

use disk::{FakeDisk, Faults, Memory, Shared};
use fake::Bench;
use oneloop::limits::Limits;
use oneloop::protocol::files::{Files, Permissions, Store};
use oneloop::wire::files::name;
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Small ones, so that each is met.
fn limits() -> Limits {
    Limits {
        files_max_bytes: 1000,
        files_quota_bytes: 1000,
        files_uploads: 2,
        files_readers: 2,
        files_budget_bytes: 4,
        outbox_high_bytes: 64,
        outbox_low_bytes: 16,
        ..Limits::default()
    }
}

/// A server on `memory`.
fn bench(memory: &Shared, permissions: Permissions, limits: Limits) -> Bench {
    let store = Store::open(Box::new(FakeDisk(memory.clone())), permissions, &limits).expect("no fault yet");
    let store = Rc::new(RefCell::new(store));
    Bench::with(limits, move || Box::new(Files::new(store.clone())))
}

const ALL: Permissions = Permissions { may_delete: true, sync: true };

fn ask(bench: &mut Bench, peer: usize, bytes: impl AsRef<[u8]>) -> String {
    bench.send(peer, bytes);
    bench.take(peer)
}

/// All that a new connection is answered, whose client says this and ends its side.
fn say(bench: &mut Bench, bytes: impl AsRef<[u8]>) -> String {
    let peer = bench.connect();
    bench.arrive(peer, bytes);
    bench.end(peer);
    bench.run();
    bench.take(peer)
}

/// Uploads that break off, go on, come without a hash, with a wrong one; a download, a listing, a deletion. What it is told is
/// checked where nothing fails; whatever fails, this goes through without a panic.
fn everything(bench: &mut Bench) -> String {
    let put = format!("PUT a 6 {}\n", hash(b"abcdef"));
    let mut told = say(bench, format!("{put}abc"));
    let peer = bench.connect();
    told += &ask(bench, peer, &put);
    told += &ask(bench, peer, "def");
    told += &say(bench, "PUT b 4\nbbbb");
    told += &say(bench, format!("PUT c 4 {}\nbad!", hash(b"good")));
    told += &say(bench, &put);
    told += &say(bench, "PUT d 4\nddd");
    let peer = bench.connect();
    for line in ["GET a\n", "LIST\n", "DELETE b\n"] {
        told += &ask(bench, peer, line);
    }
    told
}

#[test]
fn what_is_told_where_nothing_fails() {
    let memory = Shared::default();
    let told = everything(&mut bench(&memory, ALL, limits()));
    let (a, b) = (hash(b"abcdef"), hash(b"bbbb"));
    let expected = format!(
        "READY 0\nERROR size: only 3 of 6 bytes came\nREADY 3\nSTORED a 6 {a}\nREADY 0\nSTORED b 4 {b}\nREADY 0\n\
         ERROR hash: what came has {}; it was thrown away\nREADY 6\nSTORED a 6 {a}\nREADY 0\n\
         ERROR size: only 3 of 4 bytes came\nFILE a 6 {a}\nabcdefFILE a 6\nFILE b 4\nEND 2\nDELETED b\n",
        hash(b"bad!")
    );
    assert_eq!(told, expected);
    assert_eq!(memory.borrow().names(), ["a"]);
    assert_eq!(memory.borrow().syncs, ["content", "names", "content", "names"], "two files were stored");
}

#[test]
fn whatever_call_fails_no_file_is_partial_and_nothing_is_held_for_ever() {
    let unharmed = Shared::default();
    everything(&mut bench(&unharmed, ALL, limits()));
    let calls = unharmed.borrow().calls;
    let mut failed = 0;
    for writes_short in [false, true] {
        for at in 1..2 * calls {
            let kinds = [ErrorKind::StorageFull, ErrorKind::Other];
            for faults in kinds.into_iter().flat_map(|kind| [Faults::At(at, kind), Faults::From(at, kind)]) {
                let memory = Rc::new(RefCell::new(Memory { writes_short, ..Memory::default() }));
                let mut bench = bench(&memory, ALL, limits());
                memory.borrow_mut().faults = faults;
                let told = everything(&mut bench);
                failed += usize::from(told.contains("ERROR disk: "));
                memory.borrow_mut().faults = Faults::None;
                for (name, content) in memory.borrow().files.iter().filter(|(file, _)| name(file.as_bytes()).is_some())
                {
                    let expected = match &name[..] {
                        "a" => "abcdef",
                        "b" => "bbbb",
                        other => panic!("{faults:?}: {other} is visible"),
                    };
                    assert_eq!(content.borrow().bytes, expected.as_bytes(), "{faults:?}: {name}");
                }
                // The disk is well again: everything can be had, as often as the limits say.
                bench.run_for(25 * HOUR);
                for file in ["a", "b"] {
                    say(&mut bench, format!("DELETE {file}\n"));
                }
                assert_eq!(say(&mut bench, "PUT last 1000\n"), "READY 0\nERROR size: only 0 of 1000 bytes came\n");
                let mut open = Vec::new();
                for upload in 0..3 {
                    let peer = bench.connect();
                    let told = ask(&mut bench, peer, format!("PUT upload{upload} 1\n"));
                    let expected = if upload < 2 { "READY 0\n" } else { "ERROR busy: 2 uploads at a time\n" };
                    assert_eq!(told, expected, "{faults:?}");
                    open.push(peer);
                }
                assert_eq!(say(&mut bench, "LIST\nLIST\nLIST\nPING\n"), "END 0\nEND 0\nEND 0\nPONG\n", "{faults:?}");
                for peer in open {
                    bench.end(peer);
                }
                bench.run_for(HOUR);
                assert!(memory.borrow().files.is_empty(), "{faults:?}: {:?} left", memory.borrow().names());
            }
        }
    }
    assert!(failed > calls, "{failed} runs of {calls} calls met their fault");
}

#[test]
fn an_answer_is_the_same_however_its_question_is_cut() {
    let content = b"PUT x 1\nDELETE a\n\n\0";
    let line = format!("PUT a {} {}\n", content.len(), hash(content));
    let bytes = [line.as_bytes(), content].concat();
    for step in 1..=bytes.len() {
        let memory = Shared::default();
        let mut bench = bench(&memory, ALL, limits());
        let peer = bench.connect();
        for piece in bytes.chunks(step) {
            bench.send(peer, piece);
        }
        let stored = format!("READY 0\nSTORED a {} {}\n", content.len(), hash(content));
        assert_eq!(bench.take(peer), stored, "in pieces of {step}");
        assert_eq!(memory.borrow().files["a"].borrow().bytes, content);
    }
}

#[test]
fn more_than_announced_is_not_stored_and_never_obeyed() {
    let memory = Shared::default();
    memory.borrow_mut().put("precious", b"");
    let mut bench = bench(&memory, ALL, limits());
    let told = say(&mut bench, "PUT a 3\nabcDELETE precious\n");
    assert_eq!(told, "READY 0\nERROR size: more than 3 bytes came\n");
    // Neither is what follows an upload that was refused, whose bytes are on their way already.
    for refused in ["PUT precious 3\n", "PUT ../a 3\n", "PUT a\n", "PUT a 1001\n", "put a 3\n"] {
        let told = say(&mut bench, format!("{refused}DELETE precious\n"));
        assert!(told.starts_with("ERROR ") && told.lines().count() == 1, "{told}");
    }
    assert_eq!(memory.borrow().names(), ["precious"]);
    assert_eq!(bench.reactor.metrics().files_failed, 5, "all but what is no request at all");
}

#[test]
fn an_upload_without_progress_ends_after_a_minute_and_one_byte_a_minute_goes_on() {
    let memory = Shared::default();
    let mut bench = bench(&memory, ALL, limits());
    let peer = bench.connect();
    bench.send(peer, format!("PUT a 6 {}\n", hash(b"abcdef")));
    for byte in ["a", "b", "c"] {
        bench.run_for(Duration::from_secs(59));
        bench.send(peer, byte);
    }
    assert_eq!(bench.take(peer), "READY 0\n");
    bench.run_for(Duration::from_micros(59_999_999));
    assert!(!bench.is_over(peer));
    bench.run_for(Duration::from_micros(1));
    assert_eq!(bench.take(peer), "ERROR idle: no progress for 60s\n");
    assert!(bench.is_over(peer));
    assert_eq!(memory.borrow().files.len(), 1, "the part stays");
    assert!(say(&mut bench, format!("PUT a 6 {}\n", hash(b"abcdef"))).starts_with("READY 3\n"));
}

#[test]
fn a_part_counts_against_the_quota_until_its_time_is_over() {
    let memory = Shared::default();
    let mut bench = bench(&memory, ALL, limits());
    let content = [7; 600];
    let put = format!("PUT a 600 {}\n", hash(&content));
    let peer = bench.connect();
    bench.send(peer, &put);
    assert_eq!(say(&mut bench, "PUT b 401\n"), "ERROR quota: 400 of 1000 bytes are left\n", "it may yet have 600");
    bench.send(peer, &content[..500]);
    bench.end(peer);
    bench.run();
    assert_eq!(say(&mut bench, "PUT b 501\n"), "ERROR quota: 500 of 1000 bytes are left\n", "it has 500");
    assert_eq!(say(&mut bench, "PUT b 500\n").lines().next(), Some("READY 0"));
    // Its own part is no obstacle.
    assert_eq!(say(&mut bench, &put).lines().next(), Some("READY 500"));
    bench.run_for(HOUR);
    let wakes = bench.deadline_wakes(); // what the uploads have left behind has fired
    bench.run_for(23 * HOUR - Duration::from_micros(1));
    assert_eq!(say(&mut bench, "LIST\n"), "END 0\n");
    assert_eq!(memory.borrow().files.len(), 1);
    bench.run_for(Duration::from_micros(1));
    assert_eq!(say(&mut bench, "LIST\n"), "END 0\n");
    assert!(memory.borrow().files.is_empty(), "{:?}", memory.borrow().names());
    assert_eq!(bench.deadline_wakes(), wakes, "nothing wakes for it");
}

#[test]
fn a_start_keeps_what_can_be_gone_on_with_and_removes_the_rest() {
    let memory = Shared::default();
    let part = |name: &str| format!(".{name}.6.{}.oneloop-part", hash(b"abcdef"));
    {
        let mut memory = memory.borrow_mut();
        memory.put(&part("old"), b"abc");
        memory.now = 23 * HOUR;
        memory.put(&part("young"), b"abc");
        memory.put(&part("linked"), b"abc");
        memory.files[&part("linked")].borrow_mut().is_plain = false;
        memory.put(".scrap.oneloop-scrap", b"abc");
        memory.put(".profile", b"somebody else's");
        memory.put("file", b"a file");
        memory.now = 24 * HOUR;
    }
    let mut bench = bench(&memory, ALL, limits());
    let mut expected = vec![".profile".to_string(), part("young"), "file".to_string()];
    expected.sort();
    assert_eq!(memory.borrow().names(), expected);
    assert_eq!(say(&mut bench, "PUT b 992\n"), "ERROR quota: 991 of 1000 bytes are left\n");
    assert_eq!(say(&mut bench, "LIST\n"), "FILE file 6\nEND 1\n");
    // The age that it had at the start counts.
    bench.run_for(23 * HOUR);
    assert_eq!(say(&mut bench, "LIST\n"), "FILE file 6\nEND 1\n");
    assert_eq!(memory.borrow().names(), [".profile", "file"]);
}

#[test]
fn a_part_that_is_longer_than_the_file_is_begun_anew() {
    let memory = Shared::default();
    memory.borrow_mut().put(&format!(".a.6.{}.oneloop-part", hash(b"abcdef")), b"abcdefg");
    let mut bench = bench(&memory, ALL, limits());
    assert!(say(&mut bench, format!("PUT a 6 {}\nabcdef", hash(b"abcdef"))).starts_with("READY 0\nSTORED a 6 "));
    assert_eq!(memory.borrow().files["a"].borrow().bytes, b"abcdef");
    assert_eq!(memory.borrow().names(), ["a"]);
}

#[test]
fn room_that_others_have_made_is_found_but_not_looked_for_at_every_refusal() {
    let memory = Shared::default();
    memory.borrow_mut().put("large", &[0; 900]);
    let mut bench = bench(&memory, ALL, limits());
    memory.borrow_mut().files.clear();
    assert_eq!(say(&mut bench, "PUT b 500\n"), "ERROR quota: 100 of 1000 bytes are left\n");
    bench.run_for(Duration::from_secs(5));
    assert_eq!(say(&mut bench, "PUT b 500\n").lines().next(), Some("READY 0"));
    let calls = memory.borrow().calls;
    for _ in 0..100 {
        assert!(say(&mut bench, "PUT b 1000\nx").starts_with("READY 0"));
        assert!(say(&mut bench, "PUT b 1001\n").starts_with("ERROR size: larger than 1000 bytes"));
    }
    assert!(memory.borrow().calls - calls <= 500, "{}", memory.borrow().calls - calls);
    let limits = Limits { files_count: 2, ..limits() };
    let mut bench = self::bench(&memory, ALL, limits);
    for file in ["a", "b"] {
        assert!(say(&mut bench, format!("PUT {file} 0\n")).contains("STORED"));
    }
    assert_eq!(say(&mut bench, "PUT c 0\n"), "ERROR quota: 2 files are there already\n");
    // However many others have put there: it is not counted to the end.
    for file in 0..1000 {
        memory.borrow_mut().put(&format!("c{file}"), b"");
    }
    bench.run_for(Duration::from_secs(5));
    let calls = memory.borrow().calls;
    assert_eq!(say(&mut bench, "PUT d 0\n"), "ERROR quota: 2 files are there already\n");
    assert!(memory.borrow().calls - calls < 10, "{}", memory.borrow().calls - calls);
}

#[test]
fn two_uploads_of_one_name_are_never_mixed() {
    let memory = Shared::default();
    let mut bench = bench(&memory, ALL, limits());
    let first = bench.connect();
    assert_eq!(ask(&mut bench, first, "PUT a 3\n"), "READY 0\n");
    for put in ["PUT a 3\n".to_string(), format!("PUT a 3 {}\n", hash(b"xyz"))] {
        assert_eq!(say(&mut bench, put), "ERROR busy: a is being uploaded by somebody else\n");
    }
    assert!(ask(&mut bench, first, "abc").starts_with("STORED a 3 "));
    let exists = "ERROR exists: a is there already with other content\n";
    assert_eq!(say(&mut bench, "PUT a 3\n"), exists);
    assert_eq!(say(&mut bench, format!("PUT a 3 {}\n", hash(b"xyz"))), exists);
    assert_eq!(say(&mut bench, format!("PUT a 0 {}\n", hash(b""))), exists);
    assert_eq!(
        say(&mut bench, format!("PUT a 3 {}\n", hash(b"abc"))),
        format!("READY 3\nSTORED a 3 {}\n", hash(b"abc"))
    );
    // The same of a file that somebody else has put there, large enough to take turns, and of an empty one.
    memory.borrow_mut().put("b", &[1; 500]);
    memory.borrow_mut().put("c", b"");
    assert_eq!(say(&mut bench, format!("PUT b 500 {}\n", hash(&[2; 500]))), exists.replace(" a ", " b "));
    assert!(say(&mut bench, format!("PUT b 500 {}\n", hash(&[1; 500]))).starts_with("READY 500\nSTORED b"));
    assert_eq!(say(&mut bench, format!("PUT c 0 {}\n", hash(b"x"))), exists.replace(" a ", " c "));
    assert!(say(&mut bench, format!("PUT c 0 {}\n", hash(b""))).starts_with("READY 0\nSTORED c"));
    // Somebody else takes the name while it comes.
    let peer = bench.connect();
    assert_eq!(ask(&mut bench, peer, "PUT d 3\n"), "READY 0\n");
    memory.borrow_mut().put("d", b"theirs");
    assert_eq!(ask(&mut bench, peer, "abc"), exists.replace(" a ", " d "));
    assert_eq!(memory.borrow().files["d"].borrow().bytes, b"theirs");
    assert_eq!(memory.borrow().names(), ["a", "b", "c", "d"]);
}

#[test]
fn the_very_same_upload_is_taken_over_by_whoever_comes_last() {
    let memory = Shared::default();
    let mut bench = bench(&memory, ALL, limits());
    let put = format!("PUT a 6 {}\n", hash(b"abcdef"));
    let (first, second) = (bench.connect(), bench.connect());
    assert_eq!(ask(&mut bench, first, format!("{put}abc")), "READY 0\n");
    assert_eq!(ask(&mut bench, second, &put), "READY 3\n");
    // The first, if it is still there, changes nothing any more, and takes nothing with it.
    assert_eq!(ask(&mut bench, second, "d"), "");
    assert_eq!(ask(&mut bench, first, "xyz"), "ERROR busy: a goes on with another connection\n");
    let third = bench.connect();
    assert_eq!(ask(&mut bench, third, &put), "READY 4\n");
    bench.end(second);
    bench.run();
    assert_eq!(bench.take(second), "ERROR size: only 4 of 6 bytes came\n");
    assert!(ask(&mut bench, third, "ef").starts_with("STORED a 6"));
    assert_eq!(memory.borrow().names(), ["a"]);
    assert_eq!(memory.borrow().files["a"].borrow().bytes, b"abcdef");
    assert_eq!(say(&mut bench, "PUT b 994\n").lines().next(), Some("READY 0"), "its room is its size");
    assert_eq!(say(&mut bench, "PUT b 995\n"), "ERROR quota: 994 of 1000 bytes are left\n");
}

#[test]
fn a_file_is_hashed_by_turns_and_its_hash_remembered_while_it_is_the_same() {
    let memory = Shared::default();
    memory.borrow_mut().put("a", &[b'a'; 400]);
    memory.borrow_mut().now = HOUR;
    let mut bench = bench(&memory, ALL, limits());
    let reads = |memory: &Shared| std::mem::take(&mut memory.borrow_mut().reads);
    let turns = bench.reactor.metrics().turns;
    let expected = format!("FILE a 400 {}\n{}", hash(&[b'a'; 400]), "a".repeat(400));
    assert_eq!(say(&mut bench, "GET a\n"), expected);
    assert_eq!(reads(&memory), 200, "hashed and sent by four bytes");
    assert!(bench.reactor.metrics().turns - turns >= 200, "in as many turns");
    assert_eq!(say(&mut bench, "GET a\n"), expected);
    assert_eq!(reads(&memory), 100, "only sent");
    assert_eq!(say(&mut bench, "GET a 399\n"), format!("FILE a 400 {}\na", hash(&[b'a'; 400])));
    assert_eq!(reads(&memory), 1);
    assert_eq!(say(&mut bench, "GET a 401\n"), "ERROR offset: a has 400 bytes\n");
    assert!(say(&mut bench, "GET a 400\n").ends_with('\n'));
    reads(&memory);
    {
        let memory = memory.borrow_mut();
        let mut content = memory.files["a"].borrow_mut();
        (content.bytes[0], content.modified) = (b'b', HOUR);
    }
    // Changed just now: it may change again within the clock's step, so the hash is not remembered.
    for _ in 0..2 {
        assert!(say(&mut bench, "GET a\n").starts_with(&format!("FILE a 400 {}\nb", {
            let mut content = [b'a'; 400];
            content[0] = b'b';
            hash(&content)
        })));
        assert_eq!(reads(&memory), 200);
    }
}

/// Sends this, and lets the loop turn until so many bytes more have been read from the disk.
fn begin(bench: &mut Bench, memory: &Shared, peer: usize, line: &str, bytes: usize) {
    let enough = memory.borrow().read_bytes + bytes;
    bench.arrive(peer, line);
    for _ in 0..1000 {
        if memory.borrow().read_bytes >= enough {
            return;
        }
        bench.reactor.turn().expect("the fake network never fails");
    }
    panic!("{line}: it is not read");
}

/// Somebody beside the server changes the first byte; and that is long ago when it is looked at next.
fn change(memory: &Shared, name: &str) {
    let mut memory = memory.borrow_mut();
    memory.now += HOUR;
    let mut content = memory.files[name].borrow_mut();
    (content.bytes[0], content.modified) = (b'!', memory.now);
    drop(content);
    memory.now += HOUR;
}

#[test]
fn what_changes_while_it_is_hashed_is_neither_stored_nor_remembered_as_what_it_was() {
    let (before, mut after) = ([b'a'; 400], [b'a'; 400]);
    after[0] = b'!';
    for line in [format!("PUT a 400 {}\n", hash(&before)), "GET a\n".to_string()] {
        let memory = Shared::default();
        memory.borrow_mut().put("a", &before);
        memory.borrow_mut().now = HOUR;
        let mut bench = bench(&memory, ALL, limits());
        let peer = bench.connect();
        begin(&mut bench, &memory, peer, &line, 100);
        change(&memory, "a");
        bench.run();
        assert_eq!(bench.take(peer), "ERROR busy: a is being changed\n", "{line}");
        assert_eq!(say(&mut bench, "GET a 400\n"), format!("FILE a 400 {}\n", hash(&after)), "{line}");
    }
}

#[test]
fn what_is_deleted_while_it_is_looked_at_is_not_said_to_be_stored() {
    let memory = Shared::default();
    memory.borrow_mut().put("a", &[b'a'; 400]);
    let mut bench = bench(&memory, ALL, limits());
    let (peer, other) = (bench.connect(), bench.connect());
    let put = format!("PUT a 400 {}\n", hash(&[b'a'; 400]));
    begin(&mut bench, &memory, peer, &put, 100);
    assert_eq!(ask(&mut bench, other, "DELETE a\n"), "DELETED a\n");
    assert_eq!(bench.take(peer), "READY 400\nERROR busy: a is being changed\n");
    assert_eq!(say(&mut bench, &put).lines().next(), Some("READY 0"), "nothing is left of it");
}

#[test]
fn a_recount_counts_every_part_once_and_none_against_itself() {
    let memory = Shared::default();
    let mut bench = bench(&memory, ALL, limits());
    let put = format!("PUT part 500 {}\n", hash(&[7; 500]));
    assert!(say(&mut bench, [b"PUT ours 500\n", &[0; 500][..]].concat()).contains("STORED"));
    assert!(say(&mut bench, [put.as_bytes(), &[7; 400]].concat()).contains("only 400 of 500"));
    assert!(say(&mut bench, [b"PUT theirs 100\n", &[0; 100][..]].concat()).contains("STORED"));
    bench.run_for(Duration::from_secs(5));
    // Those who are refused have it counted, and are refused for what is there beside their own part.
    for _ in 0..3 {
        assert_eq!(say(&mut bench, &put), "ERROR quota: 400 of 1000 bytes are left\n");
        bench.run_for(Duration::from_secs(5));
    }
    memory.borrow_mut().files.remove("theirs");
    let peer = bench.connect();
    assert_eq!(ask(&mut bench, peer, &put), "READY 400\n");
    // It is an upload again, and no part beside that.
    for _ in 0..2 {
        assert_eq!(say(&mut bench, "PUT b 1\n"), "ERROR quota: 0 of 1000 bytes are left\n");
        bench.run_for(Duration::from_secs(5));
        bench.send(peer, [7]);
    }
    bench.end(peer);
    bench.run();
    assert_eq!(say(&mut bench, "PUT b 99\n"), "ERROR quota: 98 of 1000 bytes are left\n");
}

/// An upload that breaks off after so many bytes.
fn leave_part(bench: &mut Bench, name: &str, bytes: usize) {
    let told = say(bench, [format!("PUT {name} 100 {}\n", hash(&[9; 100])).as_bytes(), &vec![9; bytes]].concat());
    assert!(told.ends_with(&format!("only {bytes} of 100 bytes came\n")), "{told}");
}

/// Names and sizes of what is hidden.
fn parts(memory: &Shared) -> Vec<(String, usize)> {
    let memory = memory.borrow();
    let hidden = memory.files.iter().filter_map(|(name, content)| Some((name.strip_prefix('.')?, content)));
    hidden
        .map(|(name, content)| (name[..name.find('.').expect("a part")].into(), content.borrow().bytes.len()))
        .collect()
}

#[test]
fn taking_over_what_is_stored_drives_out_no_part() {
    let memory = Shared::default();
    memory.borrow_mut().put("a", &[b'a'; 400]);
    let mut bench = bench(&memory, ALL, Limits { files_parts: 2, ..limits() });
    for part in ["one", "two"] {
        leave_part(&mut bench, part, 50);
    }
    let put = format!("PUT a 400 {}\n", hash(&[b'a'; 400]));
    let peers: Vec<usize> = (0..5).map(|_| bench.connect()).collect();
    for peer in &peers {
        begin(&mut bench, &memory, *peer, &put, 8);
    }
    bench.run();
    for (index, peer) in peers.into_iter().enumerate() {
        let told = if index < 4 { "ERROR busy: a goes on" } else { "READY 400\nSTORED a 400 " };
        assert!(bench.take(peer).starts_with(told), "{index}");
    }
    assert_eq!(say(&mut bench, "LIST\n"), "FILE a 400\nEND 1\n");
    assert_eq!(parts(&memory), [("one".to_string(), 50), ("two".to_string(), 50)]);
}

#[test]
fn of_too_many_parts_the_smallest_go_and_one_without_a_byte_is_none() {
    let memory = Shared::default();
    let mut bench = bench(&memory, ALL, Limits { files_parts: 2, ..limits() });
    for (part, bytes) in [("large", 90), ("medium", 50)] {
        leave_part(&mut bench, part, bytes);
        bench.run_for(Duration::from_secs(1));
    }
    for part in 0..10 {
        leave_part(&mut bench, &format!("empty{part}"), 0);
        assert_eq!(parts(&memory).len(), 2);
        leave_part(&mut bench, &format!("small{part}"), 1);
        assert_eq!(say(&mut bench, "LIST\n"), "END 0\n");
        assert_eq!(parts(&memory), [("large".to_string(), 90), ("medium".to_string(), 50)]);
    }
    // Of equals the oldest.
    leave_part(&mut bench, "newer", 50);
    assert_eq!(say(&mut bench, "LIST\n"), "END 0\n");
    assert_eq!(parts(&memory), [("large".to_string(), 90), ("newer".to_string(), 50)]);
}

#[test]
fn an_upload_that_was_taken_over_holds_no_file_open() {
    let memory = Shared::default();
    let mut bench = bench(&memory, ALL, limits());
    let put = format!("PUT a 6 {}\n", hash(b"abcdef"));
    for _ in 0..50 {
        let peer = bench.connect();
        assert_eq!(ask(&mut bench, peer, &put), "READY 0\n");
    }
    let memory = memory.borrow();
    let part = memory.files.values().next().expect("the part");
    assert_eq!(Rc::strong_count(part), 2, "the disk's and the last one's");
}

#[test]
fn what_many_wait_for_is_hashed_once_and_a_turn_hashes_no_more_for_many() {
    let memory = Shared::default();
    let names = ["a", "b", "c"];
    for name in names {
        memory.borrow_mut().put(name, &name.repeat(300).into_bytes());
    }
    memory.borrow_mut().now = HOUR;
    let budget = 128;
    let limits = Limits { files_readers: 64, files_budget_bytes: budget, ..limits() };
    let mut bench = bench(&memory, ALL, limits);
    // Most are gone as soon as they have asked; that cannot be told from the end of their side.
    let peers: Vec<usize> = (0..64).map(|_| bench.connect()).collect();
    for (index, peer) in peers.iter().enumerate() {
        bench.arrive(*peer, format!("GET {} 300\n", names[index % 3]));
        bench.end(*peer);
    }
    loop {
        let before = memory.borrow().read_bytes;
        bench.reactor.turn().expect("the fake network never fails");
        let bytes = memory.borrow().read_bytes - before;
        assert!(bytes <= budget, "{bytes} bytes in one turn");
        if bytes == 0 && before > 0 {
            break;
        }
    }
    assert_eq!(memory.borrow().read_bytes, 900, "each of three once");
    bench.run();
    for (index, peer) in peers.iter().enumerate() {
        let name = names[index % 3];
        assert_eq!(bench.take(*peer), format!("FILE {name} 300 {}\n", hash(&name.repeat(300).into_bytes())));
    }
    assert!(say(&mut bench, "LIST\n").ends_with("END 3\n"), "and all places are free again");
    for name in names {
        assert_eq!(Rc::strong_count(&memory.borrow().files[name]), 1, "{name} is held open");
    }
}

#[test]
fn what_may_just_have_changed_is_hashed_anew_for_whoever_asks() {
    let memory = Shared::default();
    memory.borrow_mut().put("a", &[b'a'; 400]);
    let mut bench = bench(&memory, ALL, limits());
    let (first, second) = (bench.connect(), bench.connect());
    begin(&mut bench, &memory, first, "GET a 400\n", 100);
    // Within the same step of the clock: no version shows it.
    memory.borrow().files["a"].borrow_mut().bytes[0] = b'!';
    bench.send(second, "GET a 400\n");
    let mut content = [b'a'; 400];
    content[0] = b'!';
    assert_eq!(bench.take(second), format!("FILE a 400 {}\n", hash(&content)));
}

#[test]
fn a_disk_that_fails_while_many_wait_is_told_to_each_and_the_next_begins_anew() {
    let memory = Shared::default();
    memory.borrow_mut().put("a", &[b'a'; 400]);
    memory.borrow_mut().now = HOUR;
    let mut bench = bench(&memory, ALL, limits());
    let (first, second) = (bench.connect(), bench.connect());
    begin(&mut bench, &memory, first, "GET a\n", 100);
    begin(&mut bench, &memory, second, "GET a\n", 100);
    let call = memory.borrow().calls;
    memory.borrow_mut().faults = Faults::At(call, ErrorKind::Other);
    bench.run();
    for peer in [first, second] {
        assert_eq!(bench.take(peer), "ERROR disk: other error\n");
    }
    assert_eq!(say(&mut bench, "GET a 400\n"), format!("FILE a 400 {}\n", hash(&[b'a'; 400])));
}

#[test]
fn a_client_that_does_not_read_is_owed_no_more_than_the_high_mark() {
    let memory = Shared::default();
    memory.borrow_mut().put("a", &[b'a'; 900]);
    let mut bench = bench(&memory, ALL, limits());
    let peer = bench.connect();
    bench.set_room(peer, 10);
    bench.send(peer, "GET a\nPING\n");
    let mut told = bench.take(peer);
    while !told.ends_with("PONG\n") {
        assert!(bench.reactor.queued_bytes() <= 64 + 160, "{}", bench.reactor.queued_bytes());
        bench.set_room(peer, 50);
        bench.run();
        let more = bench.take(peer);
        assert!(!more.is_empty(), "after {} bytes", told.len());
        told += &more;
    }
    assert_eq!(told.len(), "FILE a 900 \nPONG\n".len() + 64 + 900);
    assert!(!bench.is_over(peer));
}

#[test]
fn a_file_that_shrinks_while_it_is_sent_ends_the_connection_without_a_word() {
    let memory = Shared::default();
    memory.borrow_mut().put("a", &[b'a'; 900]);
    let mut bench = bench(&memory, ALL, limits());
    let peer = bench.connect();
    bench.set_room(peer, 200);
    bench.send(peer, "GET a\n");
    memory.borrow_mut().files["a"].borrow_mut().bytes.truncate(300);
    bench.set_room(peer, 10_000);
    bench.run();
    assert!(bench.is_over(peer));
    let told = bench.take(peer);
    assert!(told.starts_with("FILE a 900 ") && told.ends_with("aaa"), "{told}");
    assert_eq!(say(&mut bench, "LIST\nLIST\nLIST\n"), "FILE a 300\nEND 1\n".repeat(3), "its place is free again");
}

#[test]
fn a_line_without_its_end_is_not_obeyed() {
    let memory = Shared::default();
    memory.borrow_mut().put("a", b"");
    let mut bench = bench(&memory, ALL, limits());
    assert_eq!(say(&mut bench, "DELETE a"), "ERROR protocol: the last line has no end\n");
    assert_eq!(memory.borrow().names(), ["a"]);
    let mut bench = self::bench(&memory, Permissions::default(), limits());
    assert_eq!(say(&mut bench, "DELETE a\n"), "ERROR denied: the server runs without --files-delete\n");
    assert_eq!(memory.borrow().names(), ["a"]);
}
