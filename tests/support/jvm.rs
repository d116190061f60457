//! Java for tests: the jars that Maven fetches, and JVMs that end with the test process.
//!
//! Included by `hdfs.rs` and `flume.rs`.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of the harness fails its test"
)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const APT_LINE: &str = "apt-get update && apt-get install -y --no-install-recommends \
                        default-jdk-headless maven";

/// Script that runs the JVM, its output in the file named first, and prints its process id; it
/// ends the JVM when our end of the pipe closes, so also when the test process dies.
const KEEPER: &str = r#"log=$1; shift
java "$@" >>"$log" 2>&1 </dev/null &
echo $!
cat >/dev/null
kill -9 $! 2>/dev/null
wait"#;

/// A JVM to be spawned; the caller adds its arguments, holds the pipe, and closes it to kill.
pub(crate) fn java(log: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", KEEPER, "keeper"]).arg(log);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// The directory for build products.
pub(crate) fn target() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target")
}

/// The jars of `tests/<name>/pom.xml`, fetched on the first call on this machine.
pub(crate) fn jars(name: &str) -> PathBuf {
    assert!(
        runs("java", "-version"),
        "java is missing; type:  {APT_LINE}"
    );
    let pom = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/{name}/pom.xml"));
    let cache = std::env::var_os("FOREBAY_CACHE").map_or_else(target, PathBuf::from);
    fs::create_dir_all(&cache).unwrap();
    let lock = File::create(cache.join(format!("{name}-jars.lock"))).unwrap();
    lock.lock().unwrap();
    let jars = cache.join(format!("{name}-jars"));
    let wanted = fs::read(&pom).unwrap_or_else(|e| panic!("{}: {e}", pom.display()));
    let complete = jars.join(format!(".complete-{:08x}", crc32fast::hash(&wanted)));
    if !complete.exists() {
        fetch(&pom, &jars);
        fs::write(&complete, "").unwrap();
    }
    jars
}

fn fetch(pom: &Path, jars: &Path) {
    assert!(runs("mvn", "-v"), "mvn is missing; type:  {APT_LINE}");
    fs::remove_dir_all(jars).ok();
    let output = Command::new("mvn")
        .args(["-q", "-B", "-f"])
        .arg(pom)
        .arg("package")
        .arg(format!("-Djars.dir={}", jars.display()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "Maven could not fetch the jars of {}:\n{said}",
        pom.display()
    );
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
