//! File transfer as a person with `nc` meets it, on the real program and a real directory; and what must not happen to that.
#![cfg(feature = "files")]

mod common;

use common::{Client, Server, oneloop, run, until, within_patience};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A directory of its own, gone in the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("oneloop-files-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("served")).expect("a directory");
        Scratch(path)
    }

    fn served(&self) -> PathBuf {
        self.0.join("served")
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.served())
            .expect("a directory")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
            .collect();
        names.sort();
        names
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn args<'a>(directory: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let files = ["--files", "127.0.0.1:0", "--files-dir", directory, "--echo", "off", "--udp", "off"];
    [&files, more].concat()
}

fn serve(directory: &Path, more: &[&str]) -> Server {
    Server::start(1, &args(directory.to_str().expect("UTF-8"), more))
}

/// All that is said to a client which sends this and ends its side.
fn say(server: &Server, bytes: impl AsRef<[u8]>) -> String {
    let mut client = server.client();
    client.send(bytes);
    client.end();
    String::from_utf8_lossy(&client.rest()).into_owned()
}

#[test]
fn lines_and_then_bytes_as_nc_can_do_it() {
    let scratch = Scratch::new();
    let server = serve(&scratch.served(), &["--files-delete"]);
    let content: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
    let mut client = server.client();
    assert_eq!(client.ask(&format!("PUT a.bin {}", content.len())), "READY 0");
    client.send(&content);
    assert_eq!(client.text(), format!("STORED a.bin {} {}", content.len(), hash(&content)));
    assert_eq!(fs::read(scratch.served().join("a.bin")).expect("a file"), content);
    // The same connection goes on.
    assert_eq!(client.ask("PING"), "PONG");
    client.send("GET a.bin\n");
    assert_eq!(client.text(), format!("FILE a.bin {} {}", content.len(), hash(&content)));
    assert!(client.take(content.len()) == content);
    assert_eq!(client.ask("LIST"), format!("FILE a.bin {}", content.len()));
    assert_eq!(client.text(), "END 1");
    assert_eq!(client.ask("DELETE a.bin"), "DELETED a.bin");
    assert_eq!(client.ask("GET a.bin"), "ERROR missing: there is no a.bin");
    // With the end of the client's side right behind what it asks.
    let put = format!("PUT b {} {}\n", content.len(), hash(&content));
    assert!(say(&server, [put.as_bytes(), &content].concat()).starts_with("READY 0\nSTORED b "));
    let mut client = server.client();
    client.send("GET b 799996\n");
    client.end();
    let rest = client.rest();
    assert!(rest.ends_with(&content[799_996..]) && rest.starts_with(b"FILE b 800000 "));
}

/// Everything outside the served directory, with its content and its times.
fn outside(scratch: &Scratch) -> BTreeMap<PathBuf, (u64, i64, i64, Vec<u8>)> {
    let entries = fs::read_dir(&scratch.0).expect("a directory").map(|entry| entry.expect("an entry").path());
    let files = entries.filter(|path| path.is_file());
    files
        .map(|path| {
            let facts = fs::metadata(&path).expect("facts");
            let content = fs::read(&path).expect("a file");
            (path, (facts.ino(), facts.mtime(), facts.mtime_nsec(), content))
        })
        .collect()
}

/// Row 60.
#[test]
fn no_name_leaves_the_directory_or_follows_a_link() {
    let scratch = Scratch::new();
    let (inside, secret) = (scratch.served(), scratch.0.join("secret"));
    fs::write(&secret, "secret").expect("a file");
    fs::create_dir(inside.join("a")).expect("a directory");
    symlink(&secret, inside.join("symlink")).expect("a link");
    symlink(scratch.0.join("none"), inside.join("dangling")).expect("a link");
    fs::hard_link(&secret, inside.join("hardlink")).expect("a link");
    mknodat(CWD, inside.join("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
    let server = serve(&inside, &["--files-delete"]);
    let (before, names) = (outside(&scratch), scratch.names());
    let long = "n".repeat(300);
    let refused = ["../x", "/etc/x", "a/../../x", "nul\0", "C:\\x", ".", "..", "", &long, ".hidden", "\x1b[2J"];
    for name in refused {
        for line in [format!("PUT {name} 3\nbad"), format!("GET {name}\n"), format!("DELETE {name}\n")] {
            let told = say(&server, &line);
            assert!(told.starts_with("ERROR name: ") && told.lines().count() == 1, "{line:?}: {told}");
        }
    }
    for name in ["symlink", "dangling", "hardlink", "fifo", "a"] {
        let expected = format!("ERROR name: {name} is there and is no plain file\n");
        for line in [
            format!("PUT {name} 3\nbad"),
            format!("PUT {name} 6 {}\nsecret", hash(b"secret")),
            format!("GET {name}\n"),
            format!("DELETE {name}\n"),
        ] {
            assert_eq!(
                within_patience({
                    let address = server.address();
                    move || {
                        let mut client = Client::connect(address);
                        client.send(line);
                        client.end();
                        client.rest_text()
                    }
                }),
                expected
            );
        }
    }
    assert_eq!(say(&server, "LIST\n"), "END 0\n", "nor are they listed");
    assert_eq!(scratch.names(), names);
    assert_eq!(outside(&scratch), before);
    // Nor is the directory itself a link, nor another server's.
    symlink(&inside, scratch.0.join("link")).expect("a link");
    for (directory, why) in [
        ("link", "no directory"),
        ("link/", "no directory"),
        ("link//", "no directory"),
        ("secret", "no directory"),
        ("none", "No such file"),
        ("served", "another oneloop"),
    ] {
        let ran = run(&mut oneloop(&args(scratch.0.join(directory).to_str().expect("UTF-8"), &[])));
        assert_eq!((ran.code, ran.stderr.lines().count()), (Some(1), 1), "{}", ran.stderr);
        assert!(ran.stderr.contains(why), "{}", ran.stderr);
    }
}

/// Row 61, the server's side.
#[test]
fn what_broke_off_goes_on_if_it_has_a_hash_and_goes_at_once_if_not() {
    let scratch = Scratch::new();
    let mut server = serve(&scratch.served(), &[]);
    let content = vec![b'x'; 100_000];
    let put = format!("PUT hashed {} {}", content.len(), hash(&content));
    let (mut hashed, mut bare) = (server.client(), server.client());
    for (client, line) in [(&mut hashed, &put), (&mut bare, &"PUT bare 100000".to_string())] {
        assert_eq!(client.ask(line), "READY 0");
        client.send(&content[..40_000]);
    }
    let sizes = || {
        let entries = fs::read_dir(scratch.served()).expect("a directory").flatten();
        entries.filter_map(|entry| entry.metadata().ok()).map(|facts| facts.len()).sum::<u64>()
    };
    until("the bytes to arrive", || sizes() == 80_000);
    assert!(scratch.names().iter().all(|name| name.starts_with('.')), "{:?}", scratch.names());
    drop(bare);
    until("the upload without a hash to go", || scratch.names().len() == 1);
    // The server is killed; what it has is gone on with, by a client that says the very same.
    let mut bare = server.client();
    assert_eq!(bare.ask("PUT bare 100000"), "READY 0");
    until("the part of that", || scratch.names().len() == 2);
    server.process.signal(Signal::KILL);
    server.process.wait();
    let server = serve(&scratch.served(), &[]);
    assert_eq!(scratch.names().len(), 1, "what cannot be gone on with went with the start");
    let mut client = server.client();
    assert_eq!(client.ask(&put.replace("100000", "100001")), "READY 0", "another size is another file");
    drop(client);
    until("its end", || say(&server, format!("{}\n", put.replace("100000", "100001"))).contains("only 0 of"));
    let mut client = server.client();
    assert_eq!(client.ask(&put), "READY 40000");
    client.send(&content[40_000..]);
    assert_eq!(client.text(), put.replace("PUT", "STORED"));
    assert_eq!(fs::read(scratch.served().join("hashed")).expect("a file"), content);
}

/// Row 62 with a real disk that is full. The mount is the server's own, so nothing of it outlives that.
#[test]
fn a_full_disk_is_told_and_its_space_comes_back() {
    let scratch = Scratch::new();
    let directory = scratch.served();
    let directory = directory.to_str().expect("UTF-8");
    let script = "mount -t tmpfs -o size=1m none \"$0\" && exec \"$@\"";
    let namespace = |words: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", script, directory]).args(words).env_remove("RUST_LOG");
        command
    };
    if !namespace(&["true"]).stderr(std::process::Stdio::null()).status().is_ok_and(|status| status.success()) {
        common::not_run("files", "root and unshare(1)");
        return;
    }
    let words = [&[env!("CARGO_BIN_EXE_oneloop")], &args(directory, &["--chat", "off"])[..]].concat();
    let web_off: &[&str] = if cfg!(feature = "web") { &["--web", "off"] } else { &[] };
    let server = Server::launch(1, &mut namespace(&[&words[..], web_off].concat()));
    let content = vec![7; 2 << 20];
    for _ in 0..3 {
        let put = format!("PUT large {} {}\n", content.len(), hash(&content));
        let told = say(&server, [put.as_bytes(), &content].concat());
        assert_eq!(told, "READY 0\nERROR disk: No space left on device (os error 28)\n");
        assert_eq!(say(&server, "LIST\nPING\n"), "END 0\nPONG\n");
    }
    let told = say(&server, [b"PUT small 1000000\n", &content[..1_000_000]].concat());
    assert!(told.starts_with("READY 0\nSTORED small 1000000 "), "the space is back: {told}");
}

/// Row 63.
#[test]
fn what_is_announced_is_judged_before_memory_is_taken_and_must_be_what_comes() {
    let scratch = Scratch::new();
    let server = serve(&scratch.served(), &["--files-max-size", "1MiB", "--files-quota", "2MiB"]);
    let before = server.process.memory().1;
    let wrong = hash(b"something else");
    for (bytes, told) in [
        ("PUT a 9223372036854775808\n", "ERROR size: larger than 1048576 bytes\n"),
        ("PUT a 99999999999999999999999999\n", "ERROR size: larger than 1048576 bytes\n"),
        ("PUT a 1048577\n", "ERROR size: larger than 1048576 bytes\n"),
        ("PUT a 5\nhello!", "READY 0\nERROR size: more than 5 bytes came\n"),
        ("PUT a 5\nhell", "READY 0\nERROR size: only 4 of 5 bytes came\n"),
        ("PUT a -1\n", "ERROR protocol: PUT NAME SIZE [SHA256], the size in decimal, the hash in 64 digits\n"),
        ("PUT a 5 abc\n", "ERROR protocol: PUT NAME SIZE [SHA256], the size in decimal, the hash in 64 digits\n"),
        ("HELLO\n", "ERROR protocol: not what this service speaks\n"),
        ("GET a\n", "ERROR missing: there is no a\n"),
        ("DELETE a\n", "ERROR denied: the server runs without --files-delete\n"),
    ] {
        assert_eq!(say(&server, bytes), told, "{bytes:?}");
    }
    let told = say(&server, format!("PUT a 5 {wrong}\nhello"));
    assert_eq!(told, format!("READY 0\nERROR hash: what came has {}; it was thrown away\n", hash(b"hello")));
    for file in ["a", "b"] {
        assert!(say(&server, [format!("PUT {file} 1048576\n").as_bytes(), &[0; 1 << 20]].concat()).contains("STORED"));
    }
    assert_eq!(say(&server, "PUT c 1\n"), "ERROR quota: 0 of 2097152 bytes are left\n");
    assert_eq!(scratch.names(), ["a", "b"]);
    let grown = server.process.memory().1 - before;
    assert!(grown < 2 << 20, "{grown} bytes of memory for 2 MiB of files");
}

/// Row 64.
#[test]
fn of_twenty_uploads_of_one_name_one_wins_and_none_is_mixed() {
    let scratch = Scratch::new();
    let server = serve(&scratch.served(), &[]);
    let address = server.address();
    let contents: Vec<Vec<u8>> = (0..20).map(|number| vec![b'a' + number; 300_000]).collect();
    let clients: Vec<_> = contents
        .iter()
        .map(|content| {
            let bytes = [format!("PUT same {}\n", content.len()).as_bytes(), content].concat();
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                client.send(bytes);
                client.end();
                client.rest_text()
            })
        })
        .collect();
    let told: Vec<String> = clients.into_iter().map(|client| client.join().expect("no panic")).collect();
    let stored: Vec<usize> = (0..20).filter(|number| told[*number].contains("STORED")).collect();
    assert_eq!(stored.len(), 1, "{told:?}");
    for refusal in told.iter().filter(|told| !told.contains("STORED")) {
        assert!(refusal.starts_with("ERROR busy: ") || refusal.starts_with("ERROR exists: "), "{refusal}");
    }
    assert!(fs::read(scratch.served().join("same")).expect("a file") == contents[stored[0]]);
    assert_eq!(scratch.names(), ["same"]);
}

/// Row 66, and what the log says at all.
#[test]
fn the_log_holds_no_escapes_whatever_a_file_is_called() {
    let scratch = Scratch::new();
    let mut server = serve(&scratch.served(), &["--log-level", "trace"]);
    for line in ["PUT \x1b[2J 3\n", "GET \x1b]0;x\x07\n", "\x1b[31mPUT a 3\n", "PUT a 3 \x1b[2J\n"] {
        let told = say(&server, line);
        assert!(told.starts_with("ERROR ") && !told.contains('\x1b'), "{told:?}");
    }
    say(&server, "PUT a 5\nhello");
    server.stop();
    let log = server.log.all();
    assert!(log.contains("PUT \\x1b[2J 3"), "it was there to be logged: {log}");
    assert!(log.bytes().all(|byte| byte == b'\n' || !byte.is_ascii_control()), "{log:?}");
}

#[test]
fn a_stop_in_the_middle_of_a_transfer_leaves_a_part_that_goes_on() {
    let scratch = Scratch::new();
    let mut server = serve(&scratch.served(), &[]);
    let content = vec![b'x'; 100_000];
    let put = format!("PUT a {} {}", content.len(), hash(&content));
    let mut client = server.client();
    assert_eq!(client.ask(&put), "READY 0");
    client.send(&content[..50_000]);
    let part = scratch.served().join(format!(".a.100000.{}.oneloop-part", hash(&content)));
    until("the bytes to arrive", || fs::metadata(&part).is_ok_and(|facts| facts.len() == 50_000));
    server.process.signal(Signal::TERM);
    assert_eq!(client.text(), "ERROR shutdown: the server stops");
    client.end();
    assert_eq!(server.process.wait().code(), Some(0));
    let server = serve(&scratch.served(), &[]);
    assert_eq!(server.client().ask(&put), "READY 50000");
}

/// As `nc` without `-N` meets it: whatever comes is the file's, and the client ends its side when the server has.
#[test]
fn a_stop_in_the_middle_of_a_download_adds_nothing_to_the_file() {
    let scratch = Scratch::new();
    // More than the kernel takes for a client that does not read.
    let content: Vec<u8> = (0..8u32 << 20).flat_map(u32::to_le_bytes).collect();
    fs::write(scratch.served().join("a"), &content).expect("a file");
    let mut server = serve(&scratch.served(), &[]);
    let mut client = server.client();
    client.send("GET a\n");
    assert_eq!(client.text(), format!("FILE a {} {}", content.len(), hash(&content)));
    server.process.signal(Signal::TERM);
    server.log.until("stopping: 1 connections");
    assert!(client.rest() == content, "the file and nothing else");
    drop(client);
    assert_eq!(server.process.wait().code(), Some(0));
}

#[test]
fn an_upload_taken_over_fifty_times_holds_one_descriptor() {
    let scratch = Scratch::new();
    let server = serve(&scratch.served(), &[]);
    let before = server.process.descriptors();
    let put = format!("PUT a 6 {}", hash(b"abcdef"));
    let clients: Vec<Client> = (0..50)
        .map(|_| {
            let mut client = server.client();
            assert_eq!(client.ask(&put), "READY 0");
            client
        })
        .collect();
    assert_eq!(server.process.descriptors(), before + clients.len() + 1);
}

/// The clients are closed altogether before the hash is known, which looks like the end of their side.
#[test]
fn clients_that_have_gone_hold_up_nobody_for_longer_than_one_hash_takes() {
    let scratch = Scratch::new();
    let file = fs::File::create(scratch.served().join("a")).expect("a file");
    file.set_len(256 << 20).expect("a file of holes");
    file.set_modified(std::time::UNIX_EPOCH).expect("a time long ago");
    let server = serve(&scratch.served(), &[]);
    let get = format!("GET a {}\n", 256 << 20);
    let start = std::time::Instant::now();
    say(&server, &get);
    let once = start.elapsed();
    file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1)).expect("another time");
    for _ in 0..64 {
        server.client().send(&get);
    }
    let start = std::time::Instant::now();
    until("a place", || say(&server, "LIST\n").starts_with("FILE a "));
    let all = start.elapsed();
    assert!(all < 10 * once, "{all:?} for 64, {once:?} for one");
}

#[test]
fn files_are_counted() {
    if !cfg!(feature = "web") {
        return;
    }
    let scratch = Scratch::new();
    let directory = scratch.served();
    let args = args(directory.to_str().expect("UTF-8"), &["--web", "127.0.0.1:0"]);
    let server = Server::start(2, &args);
    let at = |name: &str| server.places.iter().find(|(service, _)| service == name).expect("a service").1;
    let mut client = Client::connect(at("files"));
    assert_eq!(client.ask("PUT a 5"), "READY 0");
    client.send("hello");
    client.text();
    client.send("GET a\nGET b\n");
    assert!(client.text().starts_with("FILE") && client.text().starts_with("helloERROR missing"));
    let mut web = Client::connect(at("web"));
    web.send("GET /metrics HTTP/1.0\r\n\r\n");
    let text = web.rest_text();
    for line in [
        "oneloop_files_total{outcome=\"stored\"} 1",
        "oneloop_files_total{outcome=\"sent\"} 1",
        "oneloop_files_total{outcome=\"failed\"} 1",
        "oneloop_file_bytes_total{direction=\"in\"} 5",
        "oneloop_file_bytes_total{direction=\"out\"} 5",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
}
