//! A real Flume agent on loopback, as a JVM of its own; see `tests/flume/README.md`.
//!
//! Include it with `#[path = "support/flume.rs"] mod flume;`.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of the harness fails its test"
)]

#[path = "jvm.rs"]
mod jvm;

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

const MAIN: &str = "org.apache.flume.node.Application";
/// Starting on a loaded machine may be slow; waiting longer than this is a failure.
const READY_LIMIT: Duration = Duration::from_secs(120);

/// A running agent; killed when dropped.
#[derive(Debug)]
pub(crate) struct Flume {
    keeper: Child,
    log: PathBuf,
}

impl Flume {
    /// Starts the agent `name` of a configuration in `dir`, and waits until it listens on `ports`.
    pub(crate) fn start(dir: &Path, name: &str, properties: &str, ports: &[u16]) -> Self {
        let (config, log) = (dir.join("flume.properties"), dir.join("flume.log"));
        fs::write(&config, properties).unwrap();
        let keeper = jvm::java(&log)
            .args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .args(["-cp", &format!("{}/*", jvm::jars("flume").display()), MAIN])
            .args(["--no-reload-conf", "-n", name, "-f"])
            .arg(&config)
            .spawn()
            .unwrap();
        let flume = Self { keeper, log };
        let begin = Instant::now();
        for port in ports {
            while TcpStream::connect(("127.0.0.1", *port)).is_err() {
                assert!(
                    begin.elapsed() < READY_LIMIT,
                    "Flume does not listen on {port}; its log:\n{}",
                    fs::read_to_string(&flume.log).unwrap_or_default()
                );
                pause();
            }
        }
        flume
    }
}

impl Drop for Flume {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        self.keeper.wait().unwrap();
    }
}

/// A short wait between two looks at something that another process does.
#[allow(
    clippy::disallowed_methods,
    reason = "another process gives no signal to wait for"
)]
pub(crate) fn pause() {
    std::thread::sleep(Duration::from_millis(50));
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
