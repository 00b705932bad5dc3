//! The pages as people meet them: the real program, and a real browser that is told what to do.
//! Needs Chromium; without it, says so and checks nothing. With `ONELOOP_SCREENSHOTS=DIRECTORY`, leaves pictures there.

#![cfg(feature = "web")]

mod common;
#[path = "browser/driver.rs"]
mod driver;

use common::{Client, Output, Server, until};
use driver::{Browser, Page};
use rustix::process::Signal;
use serde_json::json;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The chat for `nc`, and the web beside it on this port.
fn serve(port: u16, more: &[&str]) -> Server {
    let web = format!("127.0.0.1:{port}");
    let mut args = vec!["--echo", "off", "--udp", "off", "--chat", "127.0.0.1:0", "--web", &web];
    args.extend(more);
    Server::start(2, &args)
}

fn place(server: &Server, name: &str) -> SocketAddr {
    server.places.iter().find(|(service, _)| service == name).expect("it listens").1
}

fn origin(server: &Server) -> String {
    format!("http://{}", place(server, "web"))
}

/// A page that is in the chat, with a name of its own choice.
fn chatter(browser: &Browser, server: &Server, name: &str) -> Page {
    let page = browser.open(&origin(server), 1200, 800);
    page.until(CONNECTED);
    say(&page, &format!("/nick {name}"));
    page.until(&format!("document.querySelector('#name').value === {name:?}"));
    page
}

const CONNECTED: &str = "document.querySelector('#status').textContent === 'connected' && people.children.length > 0";
const AT_END: &str = "log.scrollHeight - log.scrollTop - log.clientHeight < 2";

/// Types a line as a person does.
fn say(page: &Page, line: &str) {
    page.eval("document.querySelector('#say').focus()");
    page.insert(line);
    page.press("Enter");
}

/// All that was said and stands on the page, as `name: text`.
fn heard(page: &Page) -> Vec<String> {
    page.texts(
        "[...document.querySelectorAll('#log .row')].map(row =>
         row.querySelector('.from').textContent + row.querySelector('.text').textContent)",
    )
}

fn wait_heard(page: &Page, line: &str) {
    until(&format!("{line:?} on the page"), || heard(page).iter().any(|heard| heard == line));
}

/// The notes and rules between the messages.
fn wait_told(page: &Page, part: &str) {
    page.until(&format!(
        "[...document.querySelectorAll('.note, .rule')].some(row => row.textContent.includes({part:?}))"
    ));
}

fn wait_people(page: &Page, names: &[&str]) {
    let wanted = names.join(",");
    page.until(&format!(
        "[...document.querySelectorAll('#people bdi')].map(name => name.textContent).join() === {wanted:?}"
    ));
}

/// Nothing went wrong that anybody could have seen in the browser's console, and nobody else was asked for anything.
fn expect_clean(page: &Page, server: &Server) {
    assert_eq!(page.complaints(&origin(server)), Vec::<String>::new());
}

/// Skips what somebody at `nc` has no interest in.
fn read_until(client: &mut Client, line: &str) {
    while client.text() != line {}
}

/// Netcat, the real one.
struct Netcat {
    child: Child,
    said: Output,
}

impl Netcat {
    /// `None` where it is not installed.
    fn start(address: SocketAddr) -> Option<Netcat> {
        let mut command = Command::new("/bin/nc.openbsd");
        command.args([address.ip().to_string(), address.port().to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
        let said = Output::collect(child.stdout.take().expect("a pipe"));
        Some(Netcat { child, said })
    }

    fn say(&mut self, line: &str) {
        writeln!(self.child.stdin.as_ref().expect("a pipe"), "{line}").expect("it takes it");
    }
}

impl Drop for Netcat {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn pages_and_netcat_talk_to_each_other() {
    let Some(browser) = Browser::start() else { return };
    let server = serve(0, &[]);
    let alice = chatter(&browser, &server, "alice");
    let bob = chatter(&browser, &server, "bob");
    let mut carol = Client::connect(place(&server, "chat"));
    assert!(carol.text().starts_with("WELCOME "));
    assert_eq!(carol.ask("/nick carol"), "INFO you are carol");
    for page in [&alice, &bob] {
        wait_people(page, &["alice", "bob", "carol"]);
    }

    // Everybody hears everybody, and markup is text.
    for (speaker, text) in
        [("alice", "<img src=x onerror=alert(1)>"), ("bob", "<b>bold</b> & https://example.org/x?y=1.")]
    {
        let (page, other) = if speaker == "alice" { (&alice, &bob) } else { (&bob, &alice) };
        say(page, text);
        wait_heard(other, &format!("{speaker}: {text}"));
        wait_heard(page, &format!("{speaker}: {text}"));
        read_until(&mut carol, &format!("MESSAGE {speaker}: {text}"));
    }
    carol.send("hello from a line\nJOIN nobody\n//who\n");
    for page in [&alice, &bob] {
        for text in ["hello from a line", "JOIN nobody", "/who"] {
            wait_heard(page, &format!("carol: {text}"));
        }
        assert_eq!(page.eval("document.querySelectorAll('#log img, #log b').length"), 0);
        assert_eq!(page.texts("[...log.querySelectorAll('a')].map(a => a.href)"), ["https://example.org/x?y=1"]);
        assert_eq!(page.texts("[...log.querySelectorAll('a')].map(a => a.rel)"), ["noopener noreferrer nofollow"]);
        wait_people(page, &["alice", "bob", "carol"]);
    }
    if let Some(mut netcat) = Netcat::start(place(&server, "chat")) {
        netcat.said.line("WELCOME ");
        netcat.say("/nick dave");
        netcat.say("hello from nc");
        wait_heard(&alice, "dave: hello from nc");
        wait_people(&bob, &["alice", "bob", "carol", "dave"]);
        say(&bob, "hello nc");
        netcat.said.line("MESSAGE bob: hello nc");
        netcat.say("/quit");
        wait_people(&bob, &["alice", "bob", "carol"]);
        wait_told(&alice, "dave");
        read_until(&mut carol, "LEAVE dave: bye");
    }

    // In private: a click on the name begins it.
    alice.click("#people li:nth-child(2) button");
    assert_eq!(alice.eval("document.querySelector('#say').value"), "/msg bob ");
    alice.insert("a secret");
    alice.until("document.querySelector('#hint').textContent === 'Only bob will read this'");
    alice.press("Enter");
    wait_heard(&alice, "alice privately to bob: a secret");
    wait_heard(&bob, "alice privately to you: a secret");
    assert_eq!(bob.eval("document.querySelectorAll('.private').length"), 1);
    carol.send("/msg alice another\n");
    read_until(&mut carol, "INFO sent to alice");
    wait_heard(&alice, "carol privately to you: another");
    say(&alice, "/msg zoe hello?");
    alice.until("document.querySelector('.private.unsent .fate')?.textContent.startsWith('nobody is called zoe')");
    assert!(!heard(&bob).iter().any(|line| line.contains("another") || line.contains("hello?")));

    // Another name, by the field and by the command.
    bob.eval("document.querySelector('#name').select()");
    bob.insert("Robert");
    bob.press("Enter");
    wait_told(&bob, "You are now Robert");
    wait_told(&alice, "bob is now Robert");
    wait_people(&alice, &["alice", "carol", "Robert"]);
    wait_people(&bob, &["alice", "carol", "Robert"]);
    say(&bob, "/nick alice");
    wait_told(&bob, "name: alice is taken");
    assert_eq!(bob.eval("document.querySelector('#name').value"), "Robert");
    say(&bob, "/who");
    wait_told(&bob, "In lobby: ");

    // Another room and back, by the field, the button and the command.
    bob.eval("document.querySelector('#other').focus()");
    bob.insert("rust");
    bob.press("Enter");
    wait_told(&bob, "You are in rust");
    wait_people(&bob, &["Robert"]);
    wait_people(&alice, &["alice", "carol"]);
    assert_eq!(bob.eval("document.querySelector('h1').textContent"), "rust");
    carol.send("/join rust\nanybody here?\n");
    wait_heard(&bob, "carol: anybody here?");
    say(&bob, "yes");
    read_until(&mut carol, "MESSAGE Robert: yes");
    carol.send("/leave\n");
    wait_people(&bob, &["Robert"]);
    bob.click("#rooms li:first-child button");
    wait_people(&bob, &["alice", "carol", "Robert"]);
    say(&alice, "/join rust");
    wait_people(&alice, &["alice"]);
    say(&alice, "/leave");
    wait_people(&alice, &["alice", "carol", "Robert"]);
    say(&alice, "all together");
    wait_heard(&bob, "alice: all together");
    read_until(&mut carol, "MESSAGE alice: all together");

    // Several lines are several messages, and a slash in them is a slash.
    say(&alice, "one\n/two\n\nthree");
    for line in ["MESSAGE alice: one", "MESSAGE alice: /two", "MESSAGE alice: three"] {
        assert_eq!(carol.text(), line);
    }
    carol.send("/quit\n");
    wait_told(&alice, "carol left");
    assert!(!heard(&alice).iter().chain(&heard(&bob)).any(|line| line.contains("PING")));
    for page in [&alice, &bob] {
        expect_clean(page, &server);
    }
}

#[test]
fn when_the_server_is_killed_the_pages_say_so_and_come_back_with_name_and_room() {
    let Some(browser) = Browser::start() else { return };
    let mut server = serve(0, &[]);
    let pages = [chatter(&browser, &server, "alice"), chatter(&browser, &server, "bob")];
    let [alice, bob] = &pages;
    for page in &pages {
        say(page, "/join rust");
        wait_told(page, "You are in rust");
    }
    wait_people(alice, &["alice", "bob"]);

    pages.iter().for_each(|page| expect_clean(page, &server));
    let port = place(&server, "web").port();
    server.process.signal(Signal::KILL);
    server.process.wait();
    for page in &pages {
        page.until("document.querySelector('#status').textContent === 'not connected' && !apart.hidden");
        page.until("/Trying/.test(retry.textContent)");
        wait_told(page, "Connection lost");
    }
    say(alice, "typed meanwhile");
    alice.until("document.querySelector('.unsent .fate')?.textContent.startsWith('not sent')");
    assert_eq!(heard(alice), ["alice: typed meanwhile"]);

    let server = serve(port, &[]);
    for page in &pages {
        page.until(CONNECTED);
        wait_told(page, "Connected again");
        page.until("apart.hidden && document.querySelector('h1').textContent === 'rust'");
        wait_people(page, &["alice", "bob"]);
    }
    // It is said when the person says so, as it may be out of place by now.
    alice.click(".unsent button");
    wait_heard(bob, "alice: typed meanwhile");
    assert_eq!(heard(alice), ["alice: typed meanwhile"]);
    assert_eq!(alice.eval("document.querySelectorAll('.unsent').length"), 0);
    say(bob, "welcome back");
    wait_heard(alice, "bob: welcome back");

    // The browser itself complains of each connection that was refused, and of nothing else.
    for page in &pages {
        let others = page.complaints(&origin(&server));
        let refused = |line: &String| line.contains("/chat' failed: ") && line.contains("net::ERR_");
        assert!(others.iter().all(refused), "{others:?}");
    }
}

#[test]
fn a_page_that_is_loaded_again_is_who_and_where_it_was_and_shows_the_history() {
    let Some(browser) = Browser::start() else { return };
    let server = serve(0, &["--history", "10"]);
    let alice = chatter(&browser, &server, "alice");
    say(&alice, "/join rust");
    wait_told(&alice, "You are in rust");
    let mut bob = Client::connect(place(&server, "chat"));
    bob.send("/nick bob\n/join rust\nbefore\n");
    wait_heard(&alice, "bob: before");
    say(&alice, "also before");
    read_until(&mut bob, "MESSAGE alice: also before");

    alice.load("Page.reload", json!({}));
    alice.until(CONNECTED);
    wait_heard(&alice, "alice: also before");
    wait_people(&alice, &["alice", "bob"]);
    assert_eq!(heard(&alice), ["bob: before", "alice: also before"]);
    assert_eq!(alice.eval("document.querySelector('h1').textContent"), "rust");

    // Who was away for a moment reads what was missed, and nothing twice.
    say(&alice, "after");
    read_until(&mut bob, "MESSAGE alice: after");
    alice.eval("sockets.at(-1).close()");
    read_until(&mut bob, "LEAVE alice: bye");
    bob.send("while you were away\n");
    alice.until(CONNECTED);
    wait_heard(&alice, "bob: while you were away");
    assert_eq!(heard(&alice), ["bob: before", "alice: also before", "alice: after", "bob: while you were away"]);
    wait_people(&alice, &["alice", "bob"]);

    // A link leads to the room. A new page is offered the last name on this device, and is a guest if somebody has it.
    let other = browser.open(&format!("{}/#rust", origin(&server)), 1200, 800);
    other.until(CONNECTED);
    assert_eq!(other.eval("document.querySelector('h1').textContent"), "rust");
    wait_people(&other, &["alice", "bob", "guest-5"]);
    other.eval("localStorage.setItem('oneloop-name', 'alice')");
    other.load("Page.reload", json!({}));
    wait_people(&other, &["alice", "bob", "guest-6"]);
    other.eval("localStorage.setItem('oneloop-name', 'other')");
    other.load("Page.reload", json!({}));
    wait_people(&other, &["alice", "bob", "other"]);
    expect_clean(&alice, &server);
    expect_clean(&other, &server);
}

#[test]
fn keyboard_and_screen_reader_suffice() {
    let Some(browser) = Browser::start() else { return };
    let server = serve(0, &[]);
    let page = browser.open(&origin(&server), 1200, 800);
    page.until(CONNECTED);
    let mut other = Client::connect(place(&server, "chat"));
    assert!(other.text().starts_with("WELCOME "));
    page.until("people.children.length === 2");

    // One begins where one writes; Tab leads to everything and, in the end, round again.
    let focus = || {
        let element =
            page.eval("((e) => e === document.body ? 'nothing' : e.id || e.textContent)(document.activeElement)");
        element.as_str().expect("a name").to_string()
    };
    assert_eq!(focus(), "say");
    let tab_to = |wanted: &str| {
        let mut visited = Vec::new();
        while visited.last().is_none_or(|last| last != wanted) {
            page.press("Tab");
            visited.push(focus());
            assert!(visited.len() < 30, "no {wanted} in {visited:?}");
        }
        visited
    };
    tab_to("name");
    page.insert("alice");
    page.press("Enter");
    assert_eq!(focus(), "say");
    assert_eq!(read_line(&mut other, "NICK"), "NICK guest-1: alice");
    let visited = tab_to("say");
    for name in ["send", "name", "Rename", "lobby", "other", "Join", "alice (you)", "guest-2", "Server status", "log"] {
        assert!(visited.iter().any(|visited| visited == name), "no {name} in {visited:?}");
    }

    // Enter sends, the arrows recall, Escape forgets what was recalled.
    page.insert("first");
    page.press("Enter");
    page.insert("second");
    page.press("Enter");
    read_until(&mut other, "MESSAGE alice: first");
    read_until(&mut other, "MESSAGE alice: second");
    let written = || page.eval("document.querySelector('#say').value");
    page.press("ArrowUp");
    assert_eq!(written(), "second");
    page.press("ArrowUp");
    assert_eq!(written(), "first");
    page.press("ArrowDown");
    assert_eq!(written(), "second");
    page.press("Escape");
    assert_eq!(written(), "");
    page.press("ArrowUp");
    page.press("Enter");
    read_until(&mut other, "MESSAGE alice: second");

    // What a screen reader is told.
    let tree = page.accessible();
    for wanted in [
        "banner",
        "main",
        "complementary Name, rooms and people",
        "navigation Rooms",
        "heading lobby",
        "status",
        "log Messages",
        "textbox Message",
        "button Send",
        "textbox Your name",
        "textbox Another room",
        "button Join",
        "list Here: 2",
        "button guest-2",
    ] {
        assert!(tree.iter().any(|node| node == wanted), "no {wanted:?} in {tree:#?}");
    }
    expect_clean(&page, &server);
}

/// The next line that begins with this word.
fn read_line(client: &mut Client, word: &str) -> String {
    loop {
        let line = client.text();
        if line.starts_with(word) {
            return line;
        }
    }
}

#[test]
fn on_a_phone_everything_fits_also_above_its_keyboard() {
    let Some(browser) = Browser::start() else { return };
    let server = serve(0, &[]);
    let page = browser.open(&origin(&server), 375, 667);
    page.until(CONNECTED);
    let mut other = Client::connect(place(&server, "chat"));
    other.send("/nick a_name_that_is_long1\n/nick a_name_that_is_long\n");
    other.send(format!("{} {}\n", "Long".repeat(200), "words ".repeat(100)));
    for number in 0..30 {
        other.send(format!("line {number}\n"));
    }
    wait_heard(&page, "a_name_that_is_long: line 29");
    let fits = || {
        page.until(AT_END);
        page.until("document.documentElement.scrollWidth <= innerWidth && log.scrollWidth <= log.clientWidth");
        page.until("((at) => at.top > 0 && at.bottom <= visualViewport.height)(composer.getBoundingClientRect())");
    };
    fits();
    page.resize(375, 330); // a keyboard has come
    page.until("innerHeight === 330");
    fits();
    page.resize(375, 667);
    page.until("innerHeight === 667");
    fits();

    // The side is out of the way until it is asked for, and for Tab as well.
    let visible = "getComputedStyle(side).visibility === 'visible'";
    assert_eq!(page.eval(visible), false);
    page.click("#side-open");
    page.until(visible);
    wait_people(&page, &["a_name_that_is_long", "guest-1"]);
    page.click("#people li button");
    page.until(&format!("!({visible})"));
    assert_eq!(page.eval("document.querySelector('#say').value"), "/msg a_name_that_is_long ");
    page.click("#side-open");
    page.press("Escape");
    page.until(&format!("!({visible})"));
    assert_eq!(page.eval("document.activeElement.id"), "side-open");
    expect_clean(&page, &server);

    let page = browser.open(&format!("{}/status", origin(&server)), 375, 667);
    page.until("document.querySelectorAll('dd').length > 5 && document.querySelector('dd').textContent !== '–'");
    page.until("document.documentElement.scrollWidth <= innerWidth");
    expect_clean(&page, &server);
}

#[test]
fn a_reader_of_old_lines_is_left_alone() {
    let Some(browser) = Browser::start() else { return };
    let server = serve(0, &[]);
    let page = browser.open(&origin(&server), 1000, 600);
    page.until(CONNECTED);
    let mut other = Client::connect(place(&server, "chat"));
    let mut said = 0;
    let mut say_more = |count: usize| {
        let lines: String = (said..said + count).map(|number| format!("line {number}\n")).collect();
        said += count;
        other.send(lines);
        wait_heard(&page, &format!("guest-2: line {}", said - 1));
    };
    say_more(300);
    page.until(AT_END);
    say_more(20);
    page.until(AT_END);

    // The reader goes up; from then on, the line under the eyes stays there, whatever comes and whatever goes.
    page.eval("log.scrollTop -= 2000");
    page.until("!newer.hidden");
    page.eval("window.row = document.elementFromPoint(300, 200).closest('.row'); window.top_then = row.getBoundingClientRect().top");
    let held = "row.isConnected && Math.abs(row.getBoundingClientRect().top - top_then) < 1.5";
    say_more(50);
    page.until("newer.textContent.startsWith('50 new messages')");
    page.until(held);
    say_more(1800);
    page.until("log.childElementCount <= 2000");
    assert_eq!(page.eval("log.textContent.includes('line 0')"), false, "the oldest have gone");
    page.until(held);

    page.click("#newer");
    page.until(&format!("newer.hidden && {AT_END}"));
    say_more(1);
    page.until(AT_END);

    // What the server left out stands where it is missing.
    page.eval("sockets.at(-1).dispatchEvent(new MessageEvent('message', { data: 'MISSED 12 messages' }))");
    wait_told(&page, "12 messages missed");
    assert_eq!(page.eval("log.querySelectorAll('.rule.warn').length"), 1);
    expect_clean(&page, &server);
}

#[test]
fn the_status_page_moves() {
    let Some(browser) = Browser::start() else { return };
    let mut server = serve(0, &[]);
    let page = browser.open(&format!("{}/status", origin(&server)), 1200, 800);
    let figure = |title: &str| {
        format!(
            "[...document.querySelectorAll('dt')].find(dt => dt.textContent === {title:?}).nextElementSibling.textContent"
        )
    };
    let cell = |title: &str, row: &str, column: usize| {
        format!(
            "[...document.querySelectorAll('section')].find(section => section.querySelector('h2').textContent === {title:?})
             .querySelectorAll('tbody tr').values().find(tr => tr.firstChild.textContent === {row:?})?.children[{column}].textContent"
        )
    };
    page.until("document.querySelectorAll('dd').length > 5");
    page.until(&format!("{} === '0'", figure("People in rooms")));
    let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(place(&server, "chat"))).collect();
    page.until(&format!("{} === '3'", figure("People in rooms")));
    page.until(&format!("{} === '3'", cell("Connections", "chat", 1)));
    for title in ["Up", "Memory", "Descriptors", "Turns a second"] {
        page.until(&format!("parseFloat({}) > 0", figure(title)));
    }
    // Somebody talks, and the lines leave the ground.
    page.eval("window.first = () => document.querySelector('.keys .second').textContent.match(/[\\d.]+$/)?.[0]");
    until("messages on the chart", || {
        clients[0].send("hello\n");
        page.eval("first() > 0") == true
    });
    page.until("document.querySelector('path.first').getAttribute('d').split('L').length > 3");
    page.until("[...document.querySelectorAll('.keys')].every(keys => /[0-9]/.test(keys.textContent))");
    clients[1].send("/quit\n");
    page.until(&format!("{} === '2'", cell("Connections", "chat", 1)));
    page.until(&format!("{} > 0", cell("Closed, and why", "bye", 1)));
    page.until(&format!("{} === '3'", cell("Connections", "chat", 2)));
    expect_clean(&page, &server);

    // It says when the figures are old, and goes on by itself.
    let port = place(&server, "web").port();
    server.process.signal(Signal::KILL);
    server.process.wait();
    page.until("!apart.hidden");
    let server = serve(port, &[]);
    page.until("apart.hidden");
    page.until(&format!("{} === '0'", figure("People in rooms")));
    drop(server);
}

/// Contrast of every text with what is behind it, as WCAG 2 reckons; the worst ones, as `ratio what`.
const CONTRAST: &str = "(() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (color) => rgba(color).slice(0, 3).map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    while (element && rgba(getComputedStyle(element).backgroundColor)[3] < 255) element = element.parentElement;
    return element ? getComputedStyle(element).backgroundColor : 'white';
  };
  const texts = [...document.body.querySelectorAll('*')].filter(element =>
    !element.closest('script, noscript, [hidden]') &&
    [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim()));
  return texts.map(element => {
    const [a, b] = [light(getComputedStyle(element).color), light(behind(element))];
    return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), element.className + ' ' + element.textContent.slice(0, 30)];
  }).filter(([ratio]) => ratio < 4.5).map(([ratio, what]) => ratio.toFixed(2) + ' ' + what);
})()";

/// Where pictures are wanted.
fn pictures() -> Option<PathBuf> {
    let directory = PathBuf::from(std::env::var_os("ONELOOP_SCREENSHOTS")?);
    std::fs::create_dir_all(&directory).expect("a directory for the pictures");
    Some(directory)
}

#[test]
fn both_pages_can_be_read_in_light_and_dark() {
    let Some(browser) = Browser::start() else { return };
    let server = serve(0, &[]);
    let origin = origin(&server);
    let chat = chatter(&browser, &server, "alice");
    let status = browser.open(&format!("{origin}/status"), 1200, 800);
    let mut people: Vec<Client> = (0..3).map(|_| Client::connect(place(&server, "chat"))).collect();
    for (person, name) in people.iter_mut().zip(["bob", "carol", "dave_the_long_named"]) {
        assert!(person.text().starts_with("WELCOME "));
        person.send(format!("/nick {name}\n"));
    }
    wait_people(&chat, &["alice", "bob", "carol", "dave_the_long_named"]);
    say(&chat, "Hello everybody! Has anyone tried the new build?");
    wait_told(&chat, "You are now alice");
    people[0].send("Yes, since the morning.\nIt sleeps while nothing happens, see https://example.org/loop?x=1.\n");
    wait_heard(&chat, "bob: It sleeps while nothing happens, see https://example.org/loop?x=1.");
    people[1]
        .send("<b>Not</b> bold, and \u{5e9}\u{5dc}\u{5d5}\u{5dd} from the right.\n/msg alice only you can read this\n");
    wait_heard(&chat, "carol privately to you: only you can read this");
    say(&chat, "/msg carol and only you this");
    people[2].send(format!("{}\n", "Averylongword".repeat(12)));
    wait_heard(&chat, &format!("dave_the_long_named: {}", "Averylongword".repeat(12)));
    chat.eval("sockets.at(-1).dispatchEvent(new MessageEvent('message', { data: 'MISSED 12 messages' }))");
    say(&chat, "/msg zoe are you here?");
    chat.until("log.querySelectorAll('.unsent').length === 1");
    people[2].send("/quit\n");
    wait_told(&chat, "dave_the_long_named left");
    say(&chat, "/frobnicate");
    wait_told(&chat, "no command /frobnicate");
    people[1].send("/join elsewhere\n");
    until("a line on the charts", || {
        people[1].send("and on\n");
        status.eval("document.querySelector('path').getAttribute('d')?.includes('L') ?? false") == true
    });

    let save = |page: &Page, directory: &Path, name: &str| page.screenshot(directory.join(format!("{name}.png")));
    for (page, name) in [(&chat, "chat"), (&status, "status")] {
        for scheme in ["light", "dark"] {
            page.scheme(scheme);
            page.until(&format!("matchMedia('(prefers-color-scheme: {scheme})').matches"));
            assert_eq!(page.texts(CONTRAST), Vec::<String>::new(), "{name}, {scheme}");
            let Some(directory) = pictures() else { continue };
            for (size, width, height) in [("desktop", 1200, 800), ("phone", 375, 667)] {
                page.resize(width, height);
                page.until(&format!("innerWidth === {width}"));
                if name == "chat" {
                    page.until(AT_END);
                }
                save(page, &directory, &format!("{name}-{size}-{scheme}"));
            }
            page.resize(1200, 800);
        }
        expect_clean(page, &server);
    }
    if let Some(directory) = pictures() {
        drop(server);
        chat.until("!apart.hidden");
        say(&chat, "typed meanwhile");
        save(&chat, &directory, "chat-apart-dark");
    }
}
