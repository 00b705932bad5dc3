//! What the tests share: the program as a child, clients that fail instead of hanging, and streams of numbered lines.
//! Nothing here waits for time to pass: a wait is for a line, an end or a state, and patience only bounds it.

#![allow(dead_code)] // every test file is a program of its own and uses a part of this

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take before the test fails; many times what it takes on a slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The program with these arguments, and nothing of the tester's environment that would change its log.
pub(crate) fn oneloop(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oneloop"));
    command.args(args).args(unasked_off(args)).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// The program with exactly these arguments: for its other commands.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oneloop"));
    command.args(args).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// Chat and web are on by default, each on a port of which there is only one: where a test does not ask for them, they are off.
fn unasked_off<'a>(args: &[&str]) -> Vec<&'a str> {
    let mut off = Vec::new();
    let services: &[&str] = if cfg!(feature = "web") { &["--chat", "--web"] } else { &["--chat"] };
    for service in services.iter().filter(|service| !args.contains(service)) {
        off.extend([service, "off"]);
    }
    off
}

/// The program under a descriptor limit. The shell replaces itself, so the child is the program.
pub(crate) fn oneloop_with_ulimit(ulimit: &str, args: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("ulimit {ulimit} && exec \"$0\" \"$@\"")).arg(env!("CARGO_BIN_EXE_oneloop"));
    command.args(args).args(unasked_off(args)).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// Says that a test was not run because the machine lacks something; where `ONELOOP_TESTS` is `all` that is a failure.
pub(crate) fn not_run(what: &str, lacks: &str) {
    assert_ne!(std::env::var("ONELOOP_TESTS").as_deref(), Ok("all"), "{what}: not run: {lacks}");
    // Not `eprintln`, which the test harness keeps to itself.
    let _ = writeln!(io::stderr(), "{what}: not run: {lacks}");
}

/// Looks again and again until it holds: for states that the kernel does not announce, such as a count in `/proc`.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        thread::sleep(Duration::from_millis(1)); // leaves the processor to whoever makes it hold
    }
}

/// Runs `work` in a thread of its own and fails if it takes too long: for loops that block in the kernel.
pub(crate) fn within_patience<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = mpsc::channel();
    let worker = thread::spawn(move || done.send(work()));
    match result.recv_timeout(PATIENCE) {
        Ok(value) => value,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("not done after {PATIENCE:?}"),
        Err(mpsc::RecvTimeoutError::Disconnected) => match worker.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(_) => unreachable!("it ends by sending or by a panic"),
        },
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs() as i64, tv_nsec: duration.subsec_nanos().into() }
}

/// A child that does not outlive its test.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    pub(crate) fn spawn(command: &mut Command) -> Process {
        Process { child: command.spawn().expect("the program starts") }
    }

    /// With its standard output and error collected.
    pub(crate) fn heard(command: &mut Command) -> (Process, Output, Output) {
        let mut process = Process::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let stdout = Output::collect(process.child.stdout.take().expect("a pipe"));
        let stderr = Output::collect(process.child.stderr.take().expect("a pipe"));
        (process, stdout, stderr)
    }

    /// The writing end of its standard input.
    pub(crate) fn take_stdin(&mut self) -> std::process::ChildStdin {
        self.child.stdin.take().expect("a pipe")
    }

    /// The reading end of its standard output.
    pub(crate) fn take_stdout(&mut self) -> std::process::ChildStdout {
        self.child.stdout.take().expect("a pipe")
    }

    /// The reading end of its standard error, which nobody has read yet.
    pub(crate) fn take_stderr(&mut self) -> ChildStderr {
        self.child.stderr.take().expect("a pipe")
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the child is there");
    }

    /// Stops it as Ctrl-Z does, and returns when it has stopped.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
        until("the program to stop", || self.stat()[0] == "T");
    }

    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let pidfd = pidfd_open(self.pid(), PidfdFlags::empty()).expect("the child was not waited for yet");
        let ready = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timespec(PATIENCE))).expect("poll");
        assert!(ready > 0, "the program was still running after {PATIENCE:?}");
        self.child.wait().expect("an exit status")
    }

    /// Takes descriptors away from the running program until it can open only `room` more. Returns the limit as it was.
    pub(crate) fn leave_descriptors(&self, room: u64) -> u64 {
        // The limit is on the number of a descriptor, and those in use need not be the lowest.
        let used = self.descriptor_numbers();
        let (mut limit, mut free) = (0, 0);
        while free < room || used.contains(&limit) {
            free += u64::from(!used.contains(&limit));
            limit += 1;
        }
        self.limit_descriptors(limit)
    }

    /// Sets the soft limit. Returns it as it was.
    pub(crate) fn limit_descriptors(&self, limit: u64) -> u64 {
        use rustix::process::{Resource, Rlimit, prlimit};
        let current = Some(limit);
        let maximum = self.descriptor_limits().1;
        let old = prlimit(Some(self.pid()), Resource::Nofile, Rlimit { current, maximum: Some(maximum) });
        old.expect("the limit of one's own child").current.expect("a finite limit")
    }

    /// The soft and the hard limit.
    pub(crate) fn descriptor_limits(&self) -> (u64, u64) {
        let text = self.proc("limits");
        let line = text.lines().find(|line| line.starts_with("Max open files")).expect("a line about files");
        let mut numbers = line.split_whitespace().filter_map(|word| word.parse().ok());
        (numbers.next().expect("soft"), numbers.next().expect("hard"))
    }

    /// Descriptors open now.
    pub(crate) fn descriptors(&self) -> usize {
        self.descriptor_numbers().len()
    }

    fn descriptor_numbers(&self) -> Vec<u64> {
        let entries = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("the child's /proc entry");
        let name = |entry: io::Result<std::fs::DirEntry>| entry.expect("an entry").file_name();
        entries.map(|entry| name(entry).to_str().and_then(|name| name.parse().ok()).expect("a number")).collect()
    }

    /// Processor time used so far, in the kernel and outside.
    pub(crate) fn cpu(&self) -> Duration {
        // Fields 14 and 15 of proc(5) in hundredths of a second (USER_HZ); the state is field 3.
        let ticks: u64 = self.stat()[11..13].iter().map(|field| field.parse::<u64>().expect("a number")).sum();
        Duration::from_millis(10 * ticks)
    }

    /// One letter of proc(5): `S` when it sleeps.
    pub(crate) fn state(&self) -> String {
        self.stat().swap_remove(0)
    }

    /// Bytes of memory: now, and at most so far.
    pub(crate) fn memory(&self) -> (usize, usize) {
        let text = self.proc("status");
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("a line of proc(5)");
            1024 * line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number")
        };
        (field("VmRSS:"), field("VmHWM:"))
    }

    /// The fields of `/proc/PID/stat` from the state on.
    fn stat(&self) -> Vec<String> {
        let text = self.proc("stat");
        let (_, fields) = text.rsplit_once(") ").expect("a name in brackets");
        fields.split_whitespace().map(str::to_string).collect()
    }

    fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).expect("the child's /proc entry")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a pipe has said so far, collected by a thread.
#[derive(Clone)]
pub(crate) struct Output {
    shared: Arc<(Mutex<Said>, Condvar)>,
}

#[derive(Default)]
struct Said {
    bytes: Vec<u8>,
    ended: bool,
}

impl Output {
    pub(crate) fn collect(mut pipe: impl Read + Send + 'static) -> Output {
        let output = Output { shared: Arc::default() };
        let shared = output.shared.clone();
        thread::spawn(move || {
            let mut bytes = [0; 65536];
            loop {
                let count = match pipe.read(&mut bytes) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    result => result.unwrap_or(0),
                };
                let mut said = shared.0.lock().expect("no panic with the lock held");
                said.bytes.extend_from_slice(&bytes[..count]);
                said.ended = count == 0;
                shared.1.notify_all();
                if count == 0 {
                    return;
                }
            }
        });
        output
    }

    /// Waits until `found` finds it, or fails with all that was said.
    fn wait<T>(&self, what: &str, found: impl Fn(&Said) -> Option<T>) -> T {
        let said = self.shared.0.lock().expect("no panic with the lock held");
        let missing = |said: &mut Said| !said.ended && found(said).is_none();
        let (said, _) = self.shared.1.wait_timeout_while(said, PATIENCE, missing).expect("no panic");
        let (result, ended) = (found(&said), said.ended);
        let all = if result.is_none() { String::from_utf8_lossy(&said.bytes).into_owned() } else { String::new() };
        drop(said); // a panic with the lock held would be another one in the collecting thread
        result.unwrap_or_else(|| panic!("waited for {what}; ended: {ended}; all that came:\n{all}"))
    }

    /// Waits for the first whole line with `part` in it.
    pub(crate) fn line(&self, part: &str) -> String {
        self.wait(&format!("a line with {part:?}"), |said| {
            let text = String::from_utf8_lossy(&said.bytes);
            text.split_inclusive('\n').find(|line| line.contains(part) && line.ends_with('\n')).map(str::to_string)
        })
        .trim_end()
        .to_string()
    }

    /// Waits for so many whole lines with `part` in them.
    pub(crate) fn lines(&self, count: usize, part: &str) -> Vec<String> {
        self.wait(&format!("{count} lines with {part:?}"), |said| {
            let text = String::from_utf8_lossy(&said.bytes);
            let whole = text.split_inclusive('\n').filter(|line| line.contains(part) && line.ends_with('\n'));
            let lines: Vec<String> = whole.map(|line| line.trim_end().to_string()).collect();
            (lines.len() >= count).then_some(lines)
        })
    }

    /// Waits until `part` has come, whether or not its line has ended. Returns all that has come.
    pub(crate) fn until(&self, part: &str) -> String {
        self.wait(&format!("{part:?}"), |said| {
            let text = String::from_utf8_lossy(&said.bytes);
            text.contains(part).then(|| text.into_owned())
        })
    }

    /// What has come so far.
    pub(crate) fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.shared.0.lock().expect("no panic").bytes).into_owned()
    }

    /// All of it, bytes as they came.
    pub(crate) fn all_bytes(&self) -> Vec<u8> {
        self.wait("its end", |said| said.ended.then(|| said.bytes.clone()))
    }

    /// All of it.
    pub(crate) fn all(&self) -> String {
        String::from_utf8_lossy(&self.all_bytes()).into_owned()
    }
}

/// The program, serving.
pub(crate) struct Server {
    pub(crate) process: Process,
    /// Service and address of each listener, in the order in which they were said.
    pub(crate) places: Vec<(String, SocketAddr)>,
    pub(crate) stdout: Output,
    /// The log. Empty if the test keeps standard error for itself.
    pub(crate) log: Output,
}

impl Server {
    /// Line echo alone, on a free port.
    pub(crate) fn echo(more: &[&str]) -> Server {
        Server::start(1, &[&["--echo", "127.0.0.1:0", "--udp", "off"], more].concat())
    }

    /// Raw echo alone, on a free port.
    pub(crate) fn raw(more: &[&str]) -> Server {
        Server::start(1, &[&["--echo", "off", "--udp", "off", "--raw", "127.0.0.1:0"], more].concat())
    }

    /// The UDP responder alone, on a free port.
    pub(crate) fn udp(more: &[&str]) -> Server {
        Server::start(1, &[&["--echo", "off", "--udp", "127.0.0.1:0"], more].concat())
    }

    /// HTTP and WebSockets alone, on a free port.
    #[cfg(feature = "web")]
    pub(crate) fn web(more: &[&str]) -> Server {
        Server::start(1, &[&["--echo", "off", "--udp", "off", "--web", "127.0.0.1:0"], more].concat())
    }

    /// With these arguments, which mean so many listeners.
    pub(crate) fn start(listeners: usize, args: &[&str]) -> Server {
        Server::launch(listeners, &mut oneloop(args))
    }

    /// With its log collected.
    pub(crate) fn launch(listeners: usize, command: &mut Command) -> Server {
        let mut server = Server::launch_unheard(listeners, command, Stdio::piped());
        server.log = Output::collect(server.process.child.stderr.take().expect("a pipe"));
        server
    }

    /// With its standard error where the test wants it.
    pub(crate) fn launch_unheard(listeners: usize, command: &mut Command, stderr: impl Into<Stdio>) -> Server {
        let mut process = Process::spawn(command.stdout(Stdio::piped()).stderr(stderr));
        // The command keeps what it was given: an end that the child alone should hold must go.
        command.stderr(Stdio::null());
        let stdout = Output::collect(process.child.stdout.take().expect("a pipe"));
        let lines = stdout.wait(&format!("{listeners} lines on standard output"), |said| {
            let text = String::from_utf8_lossy(&said.bytes).into_owned();
            (text.matches('\n').count() >= listeners).then_some(text)
        });
        Server { process, places: lines.lines().map(place).collect(), stdout, log: Output { shared: Arc::default() } }
    }

    /// Where the first listener is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.places[0].1
    }

    /// Where the first listener of this service is.
    pub(crate) fn at(&self, service: &str) -> SocketAddr {
        self.places.iter().find(|(name, _)| name == service).expect("it was asked for").1
    }

    /// What `/metrics` says of a series now, asked on a connection of its own.
    pub(crate) fn metric(&self, series: &str) -> u64 {
        let text = Client::connect(self.at("web")).get("/metrics").text();
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {series} in\n{text}"))
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address())
    }

    /// Asks it to stop, waits for that, and expects a clean end.
    pub(crate) fn stop(&mut self) {
        self.process.signal(Signal::TERM);
        assert_eq!(self.process.wait().code(), Some(0), "the log:\n{}", self.log.so_far());
    }
}

/// What a line `listening NAME ADDR` says.
pub(crate) fn place(line: &str) -> (String, SocketAddr) {
    let words: Vec<&str> = line.split(' ').collect();
    let ["listening", name, address] = words[..] else { panic!("not `listening NAME ADDR`: {line}") };
    (name.to_string(), address.parse().expect("an address"))
}

/// What a program that ends by itself has said.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Ran {
    let (mut process, stdout, stderr) = Process::heard(command);
    let code = process.wait().code();
    Ran { code, stdout: stdout.all(), stderr: stderr.all() }
}

/// A TCP client that fails instead of hanging.
pub(crate) struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Client {
        Client::over(TcpStream::connect_timeout(&address, PATIENCE).expect("a connection"))
    }

    pub(crate) fn over(stream: TcpStream) -> Client {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay"); // what is sent in pieces shall arrive in pieces
        Client { reader: BufReader::new(stream) }
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream().write_all(bytes.as_ref()).expect("the server takes it");
    }

    /// Sends one byte of urgent data, which is no part of the stream.
    pub(crate) fn send_urgent(&mut self) {
        assert_eq!(socket2::SockRef::from(self.stream()).send_out_of_band(b"!").expect("the kernel takes it"), 1);
    }

    /// Says its end, and goes on reading.
    pub(crate) fn end(&mut self) {
        self.stream().shutdown(Shutdown::Write).expect("a connection that is open");
    }

    /// The next line, without its end.
    pub(crate) fn line(&mut self) -> Vec<u8> {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line).expect("a line");
        assert_eq!(line.pop(), Some(b'\n'), "the connection ended after \"{}\"", line.escape_ascii());
        line
    }

    /// The next line as text.
    pub(crate) fn text(&mut self) -> String {
        String::from_utf8(self.line()).expect("UTF-8")
    }

    /// Sends a line and returns the next one.
    pub(crate) fn ask(&mut self, line: &str) -> String {
        self.send(format!("{line}\n"));
        self.text()
    }

    /// So many bytes.
    pub(crate) fn take(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.reader.read_exact(&mut bytes).expect("as many bytes");
        bytes
    }

    /// Fails if a reset has come. One that comes behind the server's end is seen by no read.
    pub(crate) fn expect_no_reset(&self) {
        let error = self.stream().take_error().expect("a socket");
        assert!(error.is_none(), "{error:?}");
    }

    /// All to the end. A reset is a failure, and so is no end.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let result = self.reader.read_to_end(&mut rest);
        let tail = &rest[rest.len().saturating_sub(200)..];
        result.unwrap_or_else(|error| panic!("{error} after {} bytes, \"{}\"", rest.len(), tail.escape_ascii()));
        self.expect_no_reset();
        rest
    }

    /// All to the end, as text.
    pub(crate) fn rest_text(&mut self) -> String {
        String::from_utf8(self.rest()).expect("UTF-8")
    }
}

/// An answer of HTTP.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The one header of this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name));
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} stands twice: {:?}", self.headers);
        value
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("UTF-8")
    }
}

impl Client {
    /// The head of the next answer, read strictly.
    pub(crate) fn answer_head(&mut self) -> Answer {
        let mut line = || self.text().strip_suffix('\r').expect("a line of HTTP ends in CR LF").to_string();
        let first = line();
        let words = first.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.split_once(' '));
        let status = words.and_then(|(code, _)| code.parse().ok()).unwrap_or_else(|| panic!("no status: {first}"));
        let mut headers = Vec::new();
        loop {
            let line = line();
            if line.is_empty() {
                return Answer { status, headers, body: Vec::new() };
            }
            let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("no header: {line}"));
            headers.push((name.to_string(), value.to_string()));
        }
    }

    /// The next answer, its body among it.
    pub(crate) fn answer(&mut self) -> Answer {
        let mut answer = self.answer_head();
        if answer.status != 101 {
            let length = answer.header("Content-Length").and_then(|length| length.parse().ok());
            answer.body = self.take(length.unwrap_or_else(|| panic!("no length: {answer:?}")));
        }
        answer
    }

    /// Asks for `path`, and may ask again.
    pub(crate) fn get(&mut self, path: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        self.answer()
    }
}

/// A UDP client on loopback that fails instead of hanging.
pub(crate) fn udp_client(server: SocketAddr) -> UdpSocket {
    let any = if server.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
    let socket = UdpSocket::bind(any).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket.connect(server).expect("a destination");
    socket
}

/// The next datagram.
pub(crate) fn receive(socket: &UdpSocket) -> Vec<u8> {
    let mut bytes = vec![0; 65536];
    let count = socket.recv(&mut bytes).expect("a datagram");
    bytes.truncate(count);
    bytes
}

/// A client that sends numbered lines as fast as they are taken, and checks every byte that comes back.
pub(crate) struct Pump {
    stream: TcpStream,
    number: usize,
    /// What stands before each line that comes back.
    prefix: &'static [u8],
    /// Bytes sent.
    pub(crate) sent: usize,
    /// Bytes to send; `None` is without end.
    pub(crate) total: Option<usize>,
    /// Bytes that came back as expected.
    pub(crate) received: usize,
    /// What came after a whole number of lines and was none of them.
    pub(crate) last: Vec<u8>,
    /// The server has said its end.
    pub(crate) ended: bool,
    said_end: bool,
}

/// The length of each line that a pump sends, its end among it.
pub(crate) const PUMP_LINE: usize = 1024;

impl Pump {
    /// Against line echo. The number makes its lines its own.
    pub(crate) fn echo(number: usize, stream: TcpStream) -> Pump {
        stream.set_nonblocking(true).expect("a socket");
        let (sent, received) = (0, 0);
        Pump {
            stream,
            number,
            prefix: b"echo: ",
            sent,
            total: None,
            received,
            last: Vec::new(),
            ended: false,
            said_end: false,
        }
    }

    /// Against raw echo.
    pub(crate) fn raw(number: usize, stream: TcpStream) -> Pump {
        Pump { prefix: b"", ..Pump::echo(number, stream) }
    }

    /// So many of them, connected to `address`.
    pub(crate) fn echoes(count: usize, address: SocketAddr) -> Vec<Pump> {
        (0..count).map(|number| Pump::echo(number, TcpStream::connect(address).expect("a connection"))).collect()
    }

    /// Whole lines that came back.
    pub(crate) fn lines(&self) -> usize {
        self.received / (self.prefix.len() + PUMP_LINE)
    }

    fn push_line(&self, line: usize, into: &mut Vec<u8>) {
        let start = into.len();
        write!(into, "{} {line} ", self.number).expect("memory takes it");
        into.resize(start + PUMP_LINE - 1, b'a' + (line % 26) as u8);
        into.push(b'\n');
    }

    /// Sends until nothing more is taken. Returns whether anything was.
    pub(crate) fn send_some(&mut self) -> bool {
        let before = self.sent;
        let mut piece = Vec::new();
        loop {
            let most = self.total.map_or(usize::MAX, |total| total - self.sent);
            if most == 0 {
                break;
            }
            piece.clear();
            let first = self.sent / PUMP_LINE;
            for line in first..first + 64 {
                self.push_line(line, &mut piece);
            }
            let from = self.sent % PUMP_LINE;
            let piece = &piece[from..];
            match (&self.stream).write(&piece[..piece.len().min(most)]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // After the server's end it may be gone; what counts then is what was read.
                Err(_) if !self.last.is_empty() => break,
                Err(error) => panic!("client {}: {error} while sending at {}", self.number, self.sent),
            }
        }
        self.sent > before
    }

    /// Reads at most 64 KiB and checks it.
    pub(crate) fn take_some(&mut self) -> io::Result<usize> {
        let mut bytes = vec![0; 65536];
        let count = self.stream.read(&mut bytes)?;
        self.ended = count == 0;
        let mut bytes = &bytes[..count];
        let mut expected = Vec::new();
        while !bytes.is_empty() && self.last.is_empty() {
            let length = self.prefix.len() + PUMP_LINE;
            let (line, from) = (self.received / length, self.received % length);
            expected.clear();
            expected.extend_from_slice(self.prefix);
            self.push_line(line, &mut expected);
            let take = bytes.len().min(length - from);
            if bytes[..take] == expected[from..from + take] {
                self.received += take;
                bytes = &bytes[take..];
            } else {
                let found = bytes[..take.min(80)].escape_ascii();
                assert_eq!(from, 0, "client {}: line {line} was torn or changed: \"{found}\"", self.number);
                break;
            }
        }
        self.last.extend_from_slice(bytes);
        Ok(count)
    }

    /// Sends until nobody takes any more: the kernel's buffers are full and the server does not read. Time is only how
    /// that is noticed: where it is too short, the test tests less, and passes.
    pub(crate) fn press(pumps: &mut [Pump]) {
        loop {
            pumps.iter_mut().for_each(|pump| while pump.send_some() {});
            let waiting: Vec<_> =
                pumps.iter().filter(|pump| pump.total.is_none_or(|total| pump.sent < total)).collect();
            let mut fds: Vec<_> = waiting.iter().map(|pump| PollFd::new(&pump.stream, PollFlags::OUT)).collect();
            if fds.is_empty() || poll(&mut fds, Some(&timespec(Duration::from_millis(200)))).expect("poll") == 0 {
                return;
            }
        }
    }

    /// Sends no more than what ends the line that is begun.
    pub(crate) fn enough(&mut self) {
        self.total = Some(self.sent.next_multiple_of(PUMP_LINE));
    }

    /// Reads, and sends what is still to be sent, until `done`, which must come without a reset.
    pub(crate) fn run(pumps: &mut [Pump], what: &str, mut done: impl FnMut(&Pump) -> bool) {
        loop {
            for pump in pumps.iter_mut().filter(|pump| !pump.ended) {
                if pump.last.is_empty() {
                    pump.send_some();
                }
                // Little at once, so that nobody is silent for long while it reads.
                for _ in 0..4 {
                    match pump.take_some() {
                        Ok(0) => break,
                        Ok(_) => (),
                        Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                        Err(error) => panic!("client {}: {error} after {} bytes", pump.number, pump.received),
                    }
                }
                if pump.total == Some(pump.sent) && !pump.said_end && !pump.ended {
                    pump.stream.shutdown(Shutdown::Write).expect("a connection that is open");
                    pump.said_end = true;
                }
            }
            let left: Vec<_> = pumps.iter().filter(|pump| !done(pump)).collect();
            if left.is_empty() {
                return;
            }
            let flags = |pump: &Pump| {
                let sends = pump.last.is_empty() && pump.total.is_none_or(|total| pump.sent < total);
                if sends { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN }
            };
            let mut fds: Vec<_> = left.iter().map(|pump| PollFd::new(&pump.stream, flags(pump))).collect();
            if poll(&mut fds, Some(&timespec(PATIENCE))).expect("poll") == 0 {
                let state: Vec<_> = left.iter().map(|pump| (pump.number, pump.sent, pump.received)).collect();
                panic!("waited {PATIENCE:?} for {what}; client, sent, received: {state:?}");
            }
        }
    }

    /// Ends the line that is begun, says its end, and expects every byte back, then the server's end.
    pub(crate) fn finish(pumps: &mut [Pump]) {
        pumps.iter_mut().filter(|pump| pump.total.is_none()).for_each(Pump::enough);
        Pump::run(pumps, "all that was sent", |pump| pump.ended);
        for pump in pumps {
            assert_eq!(pump.last.escape_ascii().to_string(), "", "client {}", pump.number);
            assert_eq!(pump.lines(), pump.sent / PUMP_LINE, "client {}: lines that came back", pump.number);
        }
    }
}
