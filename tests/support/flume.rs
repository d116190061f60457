//! A real Flume agent on loopback, as a JVM of its own; see `tests/flume/README.md`.
//!
//! Include it with `#[path = "support/flume.rs"] mod flume;`.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of the harness fails its test"
)]

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const APT_LINE: &str = "apt-get update && apt-get install -y --no-install-recommends \
                        default-jdk-headless maven";
const MAIN: &str = "org.apache.flume.node.Application";
/// Starting on a loaded machine may be slow; waiting longer than this is a failure.
const READY_LIMIT: Duration = Duration::from_secs(120);

/// Runs the JVM and ends it when our end of the pipe closes, so also when the test process dies.
const KEEPER: &str = r#"log=$1; shift
java "$@" >>"$log" 2>&1 </dev/null &
cat >/dev/null
kill -9 $! 2>/dev/null
wait"#;

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
        let keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(&log)
            .args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .args(["-cp", &format!("{}/*", jars().display()), MAIN])
            .args(["--no-reload-conf", "-n", name, "-f"])
            .arg(&config)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
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

/// The jars, fetched on the first call on this machine.
fn jars() -> PathBuf {
    assert!(
        runs("java", "-version"),
        "java is missing; type:  {APT_LINE}"
    );
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pom = root.join("tests/flume/pom.xml");
    let cache = std::env::var_os("FOREBAY_CACHE").map_or_else(|| root.join("target"), Into::into);
    fs::create_dir_all(&cache).unwrap();
    let lock = File::create(cache.join("flume-jars.lock")).unwrap();
    lock.lock().unwrap();
    let jars = cache.join("flume-jars");
    let sum = crc32fast::hash(&fs::read(&pom).unwrap());
    let complete = jars.join(format!(".complete-{sum:08x}"));
    if !complete.exists() {
        assert!(runs("mvn", "-v"), "mvn is missing; type:  {APT_LINE}");
        fs::remove_dir_all(&jars).ok();
        let output = Command::new("mvn")
            .args(["-q", "-B", "-f"])
            .arg(&pom)
            .arg("package")
            .arg(format!("-Djars.dir={}", jars.display()))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "Maven could not fetch the jars of Flume:\n{said}"
        );
        fs::write(&complete, "").unwrap();
    }
    jars
}

fn runs(program: &str, argument: &str) -> bool {
    let mut command = Command::new(program);
    command
        .arg(argument)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
