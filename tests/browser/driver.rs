//! Drives a Chromium through its DevTools protocol: as much of it as the tests need. Every wait is for an answer or a state,
//! and patience only bounds it.

use crate::common::{Output, PATIENCE, not_run};
use data_encoding::BASE64;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};
use tungstenite::{Message, WebSocket};

/// The names it goes by. `ONELOOP_CHROMIUM` may name another.
const NAMES: [&str; 4] = ["chromium", "google-chrome", "chromium-browser", "google-chrome-stable"];

const FLAGS: [&str; 12] = [
    "--headless",
    "--no-sandbox", // which it needs where root or a container runs it
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
    "--lang=en",
    "--remote-debugging-port=0",
];

/// One browser at a time: several on two cores take longer than one after the other, and nearer to the end of patience.
static ONE: Mutex<()> = Mutex::new(());

/// A browser of one's own, without a past. Gone in the end, with all that it wrote.
pub(crate) struct Browser {
    child: Child,
    directory: PathBuf,
    wire: Rc<RefCell<Wire>>,
    _turn: MutexGuard<'static, ()>,
}

impl Browser {
    /// `None`, said aloud, where there is no Chromium.
    pub(crate) fn start() -> Option<Browser> {
        let turn = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = env::temp_dir().join(format!("oneloop-browser-{}-{number}", process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        let named = env::var("ONELOOP_CHROMIUM");
        let names = named.as_deref().map_or(NAMES.to_vec(), |name| vec![name]);
        let Some(mut child) = names.into_iter().find_map(|name| spawn(name, &directory)) else {
            let _ = fs::remove_dir(&directory);
            not_run("browser", "no chromium");
            return None;
        };
        let line = Output::collect(child.stderr.take().expect("a pipe")).line("DevTools listening on ws://");
        let url = &line[line.find("ws://").expect("it is in the line")..];
        let address = url["ws://".len()..].split('/').next().expect("an address");
        let stream = TcpStream::connect(address).expect("a connection to the browser");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let (socket, _) = tungstenite::client::client(url, stream).expect("a handshake with the browser");
        let wire = Wire { socket, last_id: 0, events: Vec::new() };
        Some(Browser { child, directory, wire: Rc::new(RefCell::new(wire)), _turn: turn })
    }

    /// A page in a window of its own that shares nothing with the others, as large as said; it has loaded `url`.
    pub(crate) fn open(&self, url: &str, width: u32, height: u32) -> Page {
        let call = |method, params| self.wire.borrow_mut().call(None, method, params);
        let context = call("Target.createBrowserContext", json!({}))["browserContextId"].clone();
        let target = call(
            "Target.createTarget",
            json!({ "url": "about:blank", "browserContextId": context, "newWindow": true }),
        )["targetId"]
            .clone();
        let session =
            call("Target.attachToTarget", json!({ "targetId": target, "flatten": true }))["sessionId"].clone();
        let session = session.as_str().expect("a session").to_string();
        let page = Page { wire: self.wire.clone(), session };
        for domain in ["Page", "Runtime", "Log", "Network", "Audits", "Accessibility"] {
            page.call(&format!("{domain}.enable"), json!({}));
        }
        page.call("Emulation.setFocusEmulationEnabled", json!({ "enabled": true }));
        // The tests speak to the page as the server does through the last of these.
        let source = "window.sockets = []; window.WebSocket = class extends WebSocket {
            constructor(url) { super(url); sockets.push(this); } };";
        page.call("Page.addScriptToEvaluateOnNewDocument", json!({ "source": source }));
        page.resize(width, height);
        page.load("Page.navigate", json!({ "url": url }));
        page
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Asked, it ends its helpers, too, which write to the directory.
        if let Ok(mut wire) = self.wire.try_borrow_mut() {
            let close = json!({ "id": 0, "method": "Browser.close" });
            let _ = wire.socket.send(Message::text(close.to_string()));
        }
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && start.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory); // or the system's temporary directory keeps it until it is cleaned
    }
}

fn spawn(name: &str, directory: &Path) -> Option<Child> {
    let mut command = Command::new(name);
    command.args(FLAGS).arg(format!("--user-data-dir={}", directory.display())).arg("about:blank");
    match command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn() {
        Ok(child) => Some(child),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => panic!("{name}: {error}"),
    }
}

/// The one connection to the browser, which all pages share.
struct Wire {
    socket: WebSocket<TcpStream>,
    last_id: u64,
    /// What happened, in all pages.
    events: Vec<Value>,
}

impl Wire {
    /// Calls a method and waits for its answer.
    fn call(&mut self, session: Option<&str>, method: &str, params: Value) -> Value {
        self.last_id += 1;
        let mut request = json!({ "id": self.last_id, "method": method, "params": params });
        if let Some(session) = session {
            request["sessionId"] = session.into();
        }
        self.socket.send(Message::text(request.to_string())).expect("the browser takes it");
        loop {
            let mut answer = self.read(method);
            if answer["id"] != self.last_id {
                self.events.push(answer);
                continue;
            }
            assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
            return answer["result"].take();
        }
    }

    fn read(&mut self, what: &str) -> Value {
        loop {
            match self.socket.read().unwrap_or_else(|error| panic!("{what}: {error}")) {
                Message::Text(text) => return serde_json::from_str(&text).expect("JSON"),
                _ => continue, // the heartbeat of WebSockets
            }
        }
    }
}

/// A page in the browser.
pub(crate) struct Page {
    wire: Rc<RefCell<Wire>>,
    session: String,
}

impl Page {
    pub(crate) fn call(&self, method: &str, params: Value) -> Value {
        self.wire.borrow_mut().call(Some(&self.session), method, params)
    }

    /// Calls a method that makes the page load, and waits until it has.
    pub(crate) fn load(&self, method: &str, params: Value) {
        let mut next = self.wire.borrow().events.len();
        self.call(method, params);
        let wire = &mut *self.wire.borrow_mut();
        loop {
            if next == wire.events.len() {
                let event = wire.read(method);
                wire.events.push(event);
            }
            let event = &wire.events[next];
            if event["method"] == "Page.loadEventFired" && event["sessionId"] == self.session.as_str() {
                return;
            }
            next += 1;
        }
    }

    /// What an expression says in the page; of a promise, what it keeps.
    pub(crate) fn eval(&self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let mut result = self.call("Runtime.evaluate", params);
        let wrong = &result["exceptionDetails"];
        assert!(wrong.is_null(), "{expression}: {}", wrong["exception"]["description"]);
        result["result"]["value"].take()
    }

    /// The strings of a list in the page.
    pub(crate) fn texts(&self, expression: &str) -> Vec<String> {
        let list = self.eval(expression);
        let list = list.as_array().unwrap_or_else(|| panic!("{expression}: no list: {list}"));
        list.iter().map(|text| text.as_str().expect("a string").to_string()).collect()
    }

    /// Waits until an expression is true in the page.
    pub(crate) fn until(&self, expression: &str) {
        let start = Instant::now();
        while self.eval(expression) != true {
            if start.elapsed() > PATIENCE {
                let shown = self.eval("document.body.innerText");
                panic!("waited {PATIENCE:?} for {expression}; the page says:\n{}", shown.as_str().unwrap_or_default());
            }
            thread::sleep(Duration::from_millis(5)); // leaves the processor to whoever makes it true
        }
    }

    /// Types text where the focus is.
    pub(crate) fn insert(&self, text: &str) {
        self.call("Input.insertText", json!({ "text": text }));
    }

    /// Presses and lets go of a key that types nothing.
    pub(crate) fn press(&self, key: &str) {
        let number = match key {
            "Tab" => 9,
            "Enter" => 13,
            "Escape" => 27,
            "ArrowUp" => 38,
            "ArrowDown" => 40,
            _ => panic!("no number for {key}"),
        };
        let text = if key == "Enter" { "\r" } else { "" };
        for kind in ["keyDown", "keyUp"] {
            let params =
                json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": number, "text": text });
            self.call("Input.dispatchKeyEvent", params);
        }
    }

    /// Clicks with the mouse in the middle of what a selector finds.
    pub(crate) fn click(&self, selector: &str) {
        let middle = self.texts(&format!(
            "(() => {{ const at = document.querySelector({selector:?}).getBoundingClientRect();
               return [at.x + at.width / 2, at.y + at.height / 2].map(String); }})()"
        ));
        let at = |index: usize| middle[index].parse::<f64>().expect("a number");
        for kind in ["mousePressed", "mouseReleased"] {
            let params = json!({ "type": kind, "x": at(0), "y": at(1), "button": "left", "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", params);
        }
    }

    /// Makes it so large, and a phone if that is narrow.
    pub(crate) fn resize(&self, width: u32, height: u32) {
        let phone = width < 600;
        let params = json!({ "width": width, "height": height, "deviceScaleFactor": if phone { 2 } else { 1 }, "mobile": phone });
        self.call("Emulation.setDeviceMetricsOverride", params);
        self.call("Emulation.setTouchEmulationEnabled", json!({ "enabled": phone }));
    }

    /// Shows it as to somebody who likes it `light` or `dark`.
    pub(crate) fn scheme(&self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// Writes a PNG of what is seen.
    pub(crate) fn screenshot(&self, path: PathBuf) {
        let picture = self.call("Page.captureScreenshot", json!({ "format": "png" }));
        let text = picture["data"].as_str().expect("a picture").as_bytes();
        let mut bytes = vec![0; BASE64.decode_len(text.len()).expect("base64")];
        let count = BASE64.decode_mut(text, &mut bytes).expect("base64");
        fs::write(&path, &bytes[..count]).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// What a screen reader finds, as `role name`.
    pub(crate) fn accessible(&self) -> Vec<String> {
        let tree = self.call("Accessibility.getFullAXTree", json!({}));
        let nodes = tree["nodes"].as_array().expect("a tree").iter().filter(|node| node["ignored"] == false);
        let text = |value: &Value| value["value"].as_str().unwrap_or_default().to_string();
        nodes.map(|node| format!("{} {}", text(&node["role"]), text(&node["name"])).trim_end().to_string()).collect()
    }

    /// What the page complained of so far: errors, and what its policy forbade; and each request to anywhere but `origin`.
    pub(crate) fn complaints(&self, origin: &str) -> Vec<String> {
        self.eval("0"); // whatever happened before has been told by now
        let wire = self.wire.borrow();
        let of_page = wire.events.iter().filter(|event| event["sessionId"] == self.session.as_str());
        of_page.filter_map(|event| complaint(event, origin)).collect()
    }
}

fn complaint(event: &Value, origin: &str) -> Option<String> {
    let params = &event["params"];
    let ours = |url: &Value| {
        let url = url.as_str().unwrap_or_default();
        let http = url.replacen("ws://", "http://", 1);
        url == "about:blank" || url.starts_with("data:") || http.starts_with(&format!("{origin}/"))
    };
    let wrong = match event["method"].as_str().unwrap_or_default() {
        "Log.entryAdded" => params["entry"]["level"] == "error" || params["entry"]["level"] == "warning",
        "Runtime.consoleAPICalled" | "Runtime.exceptionThrown" | "Audits.issueAdded" => true,
        "Network.requestWillBeSent" => !ours(&params["request"]["url"]),
        "Network.webSocketCreated" => !ours(&params["url"]),
        _ => false,
    };
    wrong.then(|| event.to_string())
}
