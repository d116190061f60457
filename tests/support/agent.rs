//! The real binary as a child process: started with a configuration, spoken to over its ports,
//! signalled, killed. A child ends with its handle, however the test ends.

#![allow(dead_code, reason = "every test file uses another part of this")]
#![allow(
    unreachable_pub,
    reason = "the same file is part of several test crates"
)]
#![allow(clippy::unwrap_used, reason = "a failed step fails its test")]
#![allow(
    clippy::disallowed_methods,
    reason = "a test that waits for another process has nothing to wait on but time"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

pub use rustix::process::Signal;

/// Longer than anything here takes on a busy machine; a test that meets it has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits until `is_so`; a panic that names `what` after [`PATIENCE`].
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        sleep(LOOK_EVERY);
    }
}

/// Lets time pass: for kills at moments that nobody chose.
pub fn pause(time: Duration) {
    sleep(time);
}

/// A port of loopback that nobody listens on now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// A running agent.
pub struct Agent {
    child: Child,
    log: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
    out: Arc<Mutex<String>>,
}

/// How an agent has ended.
pub struct Ended {
    /// Exit status.
    pub status: ExitStatus,
    /// All of stdout.
    pub out: String,
    /// All of stderr.
    pub log: String,
}

impl Ended {
    /// Asserts the exit code; shows the log where it is another.
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "stderr was:\n{}", self.log);
        self
    }
}

/// The binary under test.
pub fn forebay() -> Command {
    Command::new(env!("CARGO_BIN_EXE_forebay"))
}

impl Agent {
    /// `forebay agent -n a1 -f FILE ARGS..`, with the configuration's directory as its own.
    pub fn start(config: &Path, args: &[&str]) -> Self {
        let mut command = forebay();
        command
            .args(["agent", "-n", "a1", "-f"])
            .arg(config)
            .args(args);
        command.current_dir(config.parent().unwrap());
        Self::spawn(command)
    }

    /// Starts any command that ends up as an agent.
    pub fn spawn(mut command: Command) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (log, out) = (Arc::default(), Arc::default());
        let readers = vec![
            collect(child.stderr.take().unwrap(), Arc::clone(&log)),
            collect(child.stdout.take().unwrap(), Arc::clone(&out)),
        ];
        Self {
            child,
            log,
            readers,
            out,
        }
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to stderr so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        signal_process(self.child.id(), signal);
    }

    /// Waits for a text in the log; fails at once where the agent ends without it.
    pub fn wait_for_log(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.log().contains(text) {
            let running = self.child.try_wait().unwrap().is_none();
            let hopeful = running && Instant::now() < deadline;
            assert!(
                hopeful || self.log().contains(text),
                "no '{text}' in:\n{}",
                self.log()
            );
            sleep(LOOK_EVERY);
        }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(
                Instant::now() < deadline,
                "the agent does not end:\n{}",
                self.log()
            );
            sleep(LOOK_EVERY);
        };
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        Ended {
            status,
            out: self.out.lock().unwrap().clone(),
            log: self.log(),
        }
    }

    /// SIGTERM, and waits.
    pub fn stop(self) -> Ended {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// SIGKILL, and waits.
    pub fn kill(self) -> Ended {
        self.signal(Signal::KILL);
        self.wait()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Nothing to do where it has ended.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Sends a signal to a process by its id.
pub fn signal_process(id: u32, signal: Signal) {
    let id = rustix::process::Pid::from_raw(i32::try_from(id).unwrap()).unwrap();
    rustix::process::kill_process(id, signal).unwrap();
}

fn collect(mut from: impl Read + Send + 'static, into: Arc<Mutex<String>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        loop {
            match from.read(&mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(n) => into
                    .lock()
                    .unwrap()
                    .push_str(&String::from_utf8_lossy(&buffer[..n])),
            }
        }
    })
}

/// A client of a netcat source.
pub struct Netcat {
    reader: BufReader<TcpStream>,
}

impl Netcat {
    /// Connects, as soon as somebody listens.
    pub fn connect(port: u16) -> Self {
        let mut stream = None;
        until(&format!("somebody listens on port {port}"), || {
            stream = TcpStream::connect(("127.0.0.1", port)).ok();
            stream.is_some()
        });
        let stream = stream.unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            reader: BufReader::new(stream),
        }
    }

    /// Sends lines and waits for the OK of each.
    pub fn send(&mut self, lines: &[String]) {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        self.reader.get_mut().write_all(text.as_bytes()).unwrap();
        for line in lines {
            let mut answer = String::new();
            self.reader.read_line(&mut answer).unwrap();
            assert_eq!(answer.trim_end(), "OK", "the answer to {line}");
        }
    }
}

/// What `forebay status --json` says of a channel.
pub fn status_json(dir: &Path) -> serde_json::Value {
    let output = forebay()
        .args(["status", "--json"])
        .arg(dir)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Waits until a channel's events are all in the hands of its sinks.
pub fn until_taken(data: &Path) {
    until("the events are taken", || status_json(data)["waiting"] == 0);
}

/// GET over HTTP: status and body.
pub fn get(port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
}

/// Published files below a directory: regular files that no component beginning with `_` or `.`
/// leads to.
pub fn published(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        let Ok(entries) = fs::read_dir(&dir) else {
            continue;
        };
        for entry in entries.map(Result::unwrap) {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(['_', '.']) {
                continue;
            }
            match entry.file_type().unwrap().is_dir() {
                true => open.push(entry.path()),
                false => found.push(entry.path()),
            }
        }
    }
    found.sort();
    found
}

/// How often each line occurs in the published files below a directory.
pub fn published_lines(dir: &Path) -> BTreeMap<String, usize> {
    let mut lines = BTreeMap::new();
    for file in published(dir) {
        for line in fs::read_to_string(file).unwrap().lines() {
            *lines.entry(line.to_owned()).or_default() += 1;
        }
    }
    lines
}

/// Asserts that exactly these lines are published, each once.
pub fn assert_published_once(dir: &Path, expected: &[String]) {
    let lines = published_lines(dir);
    let missing: Vec<_> = expected
        .iter()
        .filter(|line| !lines.contains_key(*line))
        .collect();
    let double: Vec<_> = lines.iter().filter(|(_, count)| **count > 1).collect();
    assert!(
        missing.is_empty(),
        "{} missing, first {:?}",
        missing.len(),
        missing.first()
    );
    assert!(
        double.is_empty(),
        "{} more than once, first {:?}",
        double.len(),
        double.first()
    );
    let foreign = lines.keys().find(|line| !expected.contains(line));
    assert_eq!(
        lines.len(),
        expected.len(),
        "something else is published: {foreign:?}"
    );
}
