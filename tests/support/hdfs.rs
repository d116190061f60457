//! A real HDFS on loopback: NameNode and DataNodes as separate JVMs; see `tests/hdfs/README.md`.
//!
//! Include it with `#[path = "support/hdfs.rs"] mod hdfs;`. Tests that need no faults take
//! [`shared`]; tests that kill or freeze start a [`Cluster`] of their own.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(
    clippy::unwrap_used,
    reason = "a failed step of the harness fails its test"
)]

#[path = "jvm.rs"]
mod jvm;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Daemons are small: 200 to 250 MB each.
const JVM_FLAGS: [&str; 3] = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"];
pub(crate) const NAMENODE: &str = "org.apache.hadoop.hdfs.server.namenode.NameNode";
pub(crate) const DATANODE: &str = "org.apache.hadoop.hdfs.server.datanode.DataNode";
/// Starting on a loaded machine may be slow; waiting longer than this is a failure.
pub(crate) const READY_LIMIT: Duration = Duration::from_secs(180);

/// One daemon of the cluster.
#[derive(Debug)]
pub(crate) struct Daemon {
    class: &'static str,
    conf: PathBuf,
    log: PathBuf,
    running: Option<(Child, Pid)>,
}

impl Daemon {
    pub(crate) fn start(&mut self) {
        assert!(self.running.is_none(), "{} runs already", self.class);
        let mut keeper = jvm::java(&self.log)
            .args(java_arguments(&self.conf))
            .arg(self.class)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(keeper.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let pid = Pid::from_raw(line.trim().parse().unwrap()).unwrap();
        self.running = Some((keeper, pid));
    }

    /// SIGKILL, and waits until the process is gone. Nothing where it does not run.
    pub(crate) fn kill(&mut self) {
        let Some((mut keeper, _)) = self.running.take() else {
            return;
        };
        drop(keeper.stdin.take());
        keeper.wait().unwrap();
    }

    /// SIGSTOP: connections stay open and nothing answers.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let (_, pid) = self.running.as_ref().expect("the daemon runs");
        kill_process(*pid, signal).unwrap();
    }

    /// Panics with the end of the log where the daemon has ended by itself.
    pub(crate) fn check_alive(&self) {
        let Some((_, pid)) = &self.running else {
            return;
        };
        let status = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
        let dead = status.map_or(true, |s| s.contains(") Z "));
        if dead {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(30).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            panic!(
                "{} ended; the end of {}:\n{}",
                self.class,
                self.log.display(),
                tail.join("\n")
            );
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A NameNode and its DataNodes.
#[derive(Debug)]
pub(crate) struct Cluster {
    dir: PathBuf,
    /// Held so that two runs never share a directory.
    _lock: File,
    rpc_port: u16,
    http_port: u16,
    replication: usize,
    namenode: Daemon,
    datanodes: Vec<(Daemon, u16)>,
}

impl Cluster {
    /// Formats and starts a cluster; files get `replication` copies. `name` is its directory under
    /// `target/hdfs`.
    pub(crate) fn start(name: &str, datanodes: usize, replication: usize) -> Self {
        let (dir, lock) = own_directory(name);
        let namenode = daemon(&dir, "namenode", NAMENODE);
        let mut cluster = Self {
            _lock: lock,
            rpc_port: free_port(),
            http_port: free_port(),
            replication,
            namenode,
            datanodes: Vec::new(),
            dir,
        };
        cluster.write_conf("namenode", &[]);
        cluster.write_conf("client", &[]);
        cluster.format();
        cluster.namenode.start();
        for i in 0..datanodes {
            let name = format!("datanode{i}");
            cluster
                .datanodes
                .push((daemon(&cluster.dir, &name, DATANODE), 0));
            cluster.start_datanode(i);
        }
        cluster.wait_ready();
        cluster
    }

    /// `hdfs://127.0.0.1:port`.
    pub(crate) fn uri(&self) -> String {
        format!("hdfs://127.0.0.1:{}", self.rpc_port)
    }

    /// Directory with `core-site.xml` and `hdfs-site.xml` for clients.
    pub(crate) fn conf_dir(&self) -> PathBuf {
        self.dir.join("client")
    }

    /// The NameNode, to freeze and thaw.
    pub(crate) fn namenode(&self) -> &Daemon {
        &self.namenode
    }

    /// A DataNode, to freeze and thaw.
    pub(crate) fn datanode(&self, i: usize) -> &Daemon {
        &self.datanodes[i].0
    }

    /// SIGKILL of the NameNode.
    pub(crate) fn kill_namenode(&mut self) {
        self.namenode.kill();
    }

    /// Starts a killed NameNode and waits until it serves writes.
    pub(crate) fn restart_namenode(&mut self) {
        self.namenode.start();
        self.wait_ready();
    }

    /// SIGKILL of a DataNode. The NameNode counts it as live for up to 12 s.
    pub(crate) fn kill_datanode(&mut self, i: usize) {
        self.datanodes[i].0.kill();
    }

    /// Starts a killed DataNode and waits until the NameNode knows it.
    pub(crate) fn restart_datanode(&mut self, i: usize) {
        self.start_datanode(i);
        self.wait_ready();
    }

    /// Thaws and restarts whatever a failed test left behind.
    pub(crate) fn repair(&mut self) {
        match self.namenode.running {
            Some(_) => self.namenode.thaw(),
            None => self.namenode.start(),
        }
        for i in 0..self.datanodes.len() {
            match self.datanodes[i].0.running {
                Some(_) => self.datanodes[i].0.thaw(),
                None => self.start_datanode(i),
            }
        }
        self.wait_ready();
    }

    /// Starts a DataNode on a fresh port, by which its registration is told from an older one.
    fn start_datanode(&mut self, i: usize) {
        let port = free_port();
        let name = format!("datanode{i}");
        self.write_conf(
            &name,
            &[("dfs.datanode.address", &format!("127.0.0.1:{port}"))],
        );
        let (daemon, known) = &mut self.datanodes[i];
        *known = port;
        daemon.start();
    }

    /// Waits until the NameNode is out of safe mode and knows every running DataNode.
    pub(crate) fn wait_ready(&self) {
        let start = Instant::now();
        while !self.ready() {
            self.namenode.check_alive();
            self.datanodes
                .iter()
                .for_each(|(daemon, _)| daemon.check_alive());
            assert!(
                start.elapsed() < READY_LIMIT,
                "HDFS is not ready after {READY_LIMIT:?}; logs are in {}",
                self.dir.display()
            );
            pause(Duration::from_millis(100));
        }
    }

    fn ready(&self) -> bool {
        let Some(info) = jmx(self.http_port, "NameNodeInfo") else {
            return false;
        };
        let live = info["LiveNodes"].as_str().unwrap_or("");
        let mut running = self
            .datanodes
            .iter()
            .filter(|(daemon, _)| daemon.running.is_some());
        info["Safemode"].as_str() == Some("")
            && running.all(|(_, port)| live.contains(&format!("\"127.0.0.1:{port}\"")))
    }

    fn format(&self) {
        let conf = self.dir.join("namenode/conf");
        let log = File::create(self.dir.join("format.log")).unwrap();
        let status = Command::new("java")
            .args(java_arguments(&conf))
            .args([NAMENODE, "-format", "-force", "-nonInteractive"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .status()
            .unwrap();
        assert!(
            status.success(),
            "formatting failed: see {}/format.log",
            self.dir.display()
        );
    }

    fn write_conf(&self, daemon: &str, more: &[(&str, &str)]) {
        let home = self.dir.join(daemon);
        let conf = if daemon == "client" {
            home.clone()
        } else {
            home.join("conf")
        };
        fs::create_dir_all(&conf).unwrap();
        let core = [("fs.defaultFS", self.uri())];
        let replication = self.replication.to_string();
        let http = format!("127.0.0.1:{}", self.http_port);
        let name = format!("file://{}", home.join("name").display());
        let data = format!("file://{}", home.join("data").display());
        let mut site = vec![
            ("dfs.replication", replication.as_str()),
            ("dfs.namenode.http-address", http.as_str()),
            ("dfs.namenode.name.dir", name.as_str()),
            ("dfs.datanode.data.dir", data.as_str()),
            ("dfs.datanode.http.address", "127.0.0.1:0"),
            ("dfs.datanode.ipc.address", "127.0.0.1:0"),
            (
                "dfs.namenode.datanode.registration.ip-hostname-check",
                "false",
            ),
            ("dfs.namenode.safemode.extension", "0"),
            ("dfs.namenode.fs-limits.min-block-size", "65536"),
            // A dead DataNode is known after 12 s instead of 10.5 minutes.
            ("dfs.heartbeat.interval", "1"),
            ("dfs.namenode.heartbeat.recheck-interval", "1000"),
        ];
        site.extend_from_slice(more);
        let core = core.iter().map(|(k, v)| (*k, v.as_str()));
        fs::write(conf.join("core-site.xml"), xml(core)).unwrap();
        fs::write(conf.join("hdfs-site.xml"), xml(site.into_iter())).unwrap();
        fs::write(conf.join("log4j.properties"), LOG4J).unwrap();
    }
}

pub(crate) const LOG4J: &str = "log4j.rootLogger=INFO,err\n\
    log4j.appender.err=org.apache.log4j.ConsoleAppender\n\
    log4j.appender.err.target=System.err\n\
    log4j.appender.err.layout=org.apache.log4j.PatternLayout\n\
    log4j.appender.err.layout.ConversionPattern=%d{ISO8601} %p %c{1}: %m%n\n";

/// An HDFS that tests share and leave running.
#[derive(Debug)]
pub(crate) struct Shared {
    /// `hdfs://host:port`.
    pub(crate) uri: String,
    /// Client configuration; `None` for a cluster from outside.
    pub(crate) conf_dir: Option<PathBuf>,
    _cluster: Option<Cluster>,
}

/// The HDFS of `FOREBAY_HDFS_URI`, else one cluster of two DataNodes for this test binary.
pub(crate) fn shared() -> &'static Shared {
    static SHARED: OnceLock<Shared> = OnceLock::new();
    SHARED.get_or_init(|| match std::env::var("FOREBAY_HDFS_URI") {
        Ok(uri) => Shared {
            uri,
            conf_dir: None,
            _cluster: None,
        },
        Err(_) => {
            let cluster = Cluster::start(&format!("shared-{}", binary_name()), 2, 2);
            let (uri, conf_dir) = (cluster.uri(), Some(cluster.conf_dir()));
            Shared {
                uri,
                conf_dir,
                _cluster: Some(cluster),
            }
        }
    })
}

/// Waits in a test that looks for a state again and again.
pub(crate) fn pause(time: Duration) {
    #[allow(
        clippy::disallowed_methods,
        reason = "polling a process we do not control"
    )]
    std::thread::sleep(time);
}

fn binary_name() -> String {
    let path = std::env::current_exe().unwrap();
    let name = path.file_stem().unwrap().to_string_lossy().into_owned();
    // Cargo appends a hash that changes with every build.
    name.rsplit_once('-')
        .map_or_else(|| name.clone(), |(stem, _)| stem.to_owned())
}

pub(crate) fn xml<'a>(properties: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let line = |(k, v)| format!("<property><name>{k}</name><value>{v}</value></property>\n");
    let properties: String = properties.map(line).collect();
    format!("<?xml version=\"1.0\"?>\n<configuration>\n{properties}</configuration>\n")
}

pub(crate) fn daemon(dir: &Path, name: &str, class: &'static str) -> Daemon {
    let (conf, log) = (dir.join(name).join("conf"), dir.join(format!("{name}.log")));
    Daemon {
        class,
        conf,
        log,
        running: None,
    }
}

pub(crate) fn java_arguments(conf: &Path) -> Vec<String> {
    let class_path = format!("{}:{}/*", conf.display(), jars().display());
    let flags = JVM_FLAGS.iter().map(|flag| (*flag).to_owned());
    // Jetty unpacks its web applications there and a killed JVM does not clear them away.
    let temporary = format!("-Djava.io.tmpdir={}", conf.display());
    flags
        .chain([temporary, "-cp".to_owned(), class_path])
        .collect()
}

/// `target/hdfs/<name>`, emptied; with a number behind it where another run holds it.
pub(crate) fn own_directory(name: &str) -> (PathBuf, File) {
    let root = jvm::target().join("hdfs");
    fs::create_dir_all(&root).unwrap();
    for i in 0.. {
        let name = if i == 0 {
            name.to_owned()
        } else {
            format!("{name}.{i}")
        };
        let lock = File::create(root.join(format!("{name}.lock"))).unwrap();
        if lock.try_lock().is_ok() {
            let dir = root.join(name);
            fs::remove_dir_all(&dir).ok();
            fs::create_dir_all(&dir).unwrap();
            return (dir, lock);
        }
    }
    unreachable!("the loop has no end")
}

fn jars() -> &'static Path {
    static JARS: OnceLock<PathBuf> = OnceLock::new();
    JARS.get_or_init(|| jvm::jars("hdfs"))
}

/// A port nobody listens on, below the range from which the kernel gives ports to connections: a
/// daemon binds it only seconds later, and again after it was killed.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    const FIRST: u32 = 20_000;
    const COUNT: u32 = 12_000;
    // Test processes that run at the same time start at different places.
    let start = std::process::id().wrapping_mul(61);
    for _ in 0..COUNT {
        let n = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(FIRST + n % COUNT).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port on loopback");
}

/// One bean of the NameNode's `/jmx`; `None` while it does not answer.
pub(crate) fn jmx(port: u16, bean: &str) -> Option<serde_json::Value> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let path = format!("/jmx?qry=Hadoop:service=NameNode,name={bean}");
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let body = answer.split_once("\r\n\r\n")?.1;
    let mut json: serde_json::Value = serde_json::from_str(body).ok()?;
    // The server answers before its beans are registered.
    json.get_mut("beans")?
        .get_mut(0)
        .map(serde_json::Value::take)
}
