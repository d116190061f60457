//! A highly available HDFS on loopback: two NameNodes over one JournalNode, so that an ex-active
//! is fenced as in production: it goes on answering reads, and dies of its first write.
//!
//! Needs `mod hdfs` beside it.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of the harness fails its test"
)]

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::hdfs::{
    DATANODE, Daemon, LOG4J, NAMENODE, READY_LIMIT, daemon, free_port, java_arguments, jmx,
    own_directory, pause, xml,
};

const JOURNALNODE: &str = "org.apache.hadoop.hdfs.qjournal.server.JournalNode";
const HA_ADMIN: &str = "org.apache.hadoop.hdfs.tools.DFSHAAdmin";

/// Two NameNodes `nn0` and `nn1` of the name service `ns1`, one JournalNode, one DataNode.
#[derive(Debug)]
pub(crate) struct HaCluster {
    dir: PathBuf,
    _lock: File,
    rpc: [u16; 2],
    http: [u16; 2],
    journal: u16,
    // In the order in which they end: whoever writes before what is written to.
    namenodes: [Daemon; 2],
    datanode: Daemon,
    journalnode: Daemon,
}

impl HaCluster {
    /// Formats and starts; `nn0` is active.
    pub(crate) fn start(name: &str) -> Self {
        let (dir, lock) = own_directory(name);
        let mut cluster = Self {
            _lock: lock,
            rpc: [free_port(), free_port()],
            http: [free_port(), free_port()],
            journal: free_port(),
            namenodes: [daemon(&dir, "nn0", NAMENODE), daemon(&dir, "nn1", NAMENODE)],
            datanode: daemon(&dir, "datanode", DATANODE),
            journalnode: daemon(&dir, "journalnode", JOURNALNODE),
            dir,
        };
        for daemon in ["nn0", "nn1", "datanode", "journalnode", "client"] {
            cluster.write_conf(daemon);
        }
        cluster.journalnode.start();
        let journal = cluster.journal;
        cluster.wait("the JournalNode", |_| {
            TcpStream::connect(("127.0.0.1", journal)).is_ok()
        });
        let conf = cluster.dir.join("nn0/conf");
        cluster.java(&conf, &[NAMENODE, "-format", "-force", "-nonInteractive"]);
        // What bootstrapStandby does, without another JVM: the image is fresh and the same.
        let image = cluster.dir.join("nn1/name");
        let mut copy = Command::new("cp");
        copy.arg("-r").arg(cluster.dir.join("nn0/name")).arg(image);
        assert!(copy.status().unwrap().success());
        cluster.namenodes.iter_mut().for_each(Daemon::start);
        cluster.datanode.start();
        cluster.wait("both NameNodes", |c| (0..2).all(|i| c.state(i).is_some()));
        cluster.make_active(0);
        cluster
    }

    /// Directory for clients of `hdfs://ns1`.
    pub(crate) fn conf_dir(&self) -> PathBuf {
        self.dir.join("client/conf")
    }

    /// One NameNode by its address, past the name service.
    pub(crate) fn uri_of(&self, i: usize) -> String {
        format!("hdfs://127.0.0.1:{}", self.rpc[i])
    }

    /// A NameNode, to kill, freeze and thaw.
    pub(crate) fn namenode(&mut self, i: usize) -> &mut Daemon {
        &mut self.namenodes[i]
    }

    /// SIGSTOP of the JournalNode: changes are made in the active's memory and not journaled.
    pub(crate) fn freeze_journal(&self) {
        self.journalnode.freeze();
    }

    /// SIGKILL of a frozen JournalNode, with whatever edits were on their way to it, and a new
    /// start; the active has died of it before this returns.
    pub(crate) fn replace_journal(&mut self, active: usize) {
        self.journalnode.kill();
        self.wait_gone(active);
        self.namenodes[active].kill();
        self.journalnode.start();
        let journal = self.journal;
        self.wait("the JournalNode", |_| {
            TcpStream::connect(("127.0.0.1", journal)).is_ok()
        });
    }

    fn wait_gone(&self, i: usize) {
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.rpc[i])).is_ok() {
            assert!(
                start.elapsed() < READY_LIMIT,
                "nn{i} lives without a journal"
            );
            pause(Duration::from_millis(100));
        }
    }

    /// Makes this one active, whatever the other believes, and waits until it serves writes.
    pub(crate) fn make_active(&self, i: usize) {
        let conf = self.conf_dir();
        let id = format!("nn{i}");
        self.java(
            &conf,
            &[HA_ADMIN, "-transitionToActive", "--forceactive", &id],
        );
        self.wait("the active", |c| c.serves(i));
    }

    fn state(&self, i: usize) -> Option<String> {
        let bean = jmx(self.http[i], "NameNodeStatus")?;
        bean["State"].as_str().map(str::to_owned)
    }

    fn serves(&self, i: usize) -> bool {
        let Some(info) = jmx(self.http[i], "NameNodeInfo") else {
            return false;
        };
        let live = info["LiveNodes"].as_str().unwrap_or("");
        let state = self.state(i);
        state.as_deref() == Some("active")
            && info["Safemode"].as_str() == Some("")
            && live.contains("xferaddr")
    }

    fn wait(&self, what: &str, ready: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !ready(self) {
            let daemons = self
                .namenodes
                .iter()
                .chain([&self.datanode, &self.journalnode]);
            daemons.for_each(Daemon::check_alive);
            let late = start.elapsed() > READY_LIMIT;
            assert!(
                !late,
                "{what} did not come up; logs are in {}",
                self.dir.display()
            );
            pause(Duration::from_millis(100));
        }
    }

    fn java(&self, conf: &std::path::Path, arguments: &[&str]) {
        let log = self.dir.join("commands.log");
        let log = File::options().create(true).append(true).open(log).unwrap();
        let status = Command::new("java")
            .args(java_arguments(conf))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .status()
            .unwrap();
        assert!(
            status.success(),
            "{arguments:?} failed: see {}/commands.log",
            self.dir.display()
        );
    }

    fn write_conf(&self, daemon: &str) {
        let home = self.dir.join(daemon);
        let conf = home.join("conf");
        fs::create_dir_all(&conf).unwrap();
        let directory = |name: &str| format!("file://{}", home.join(name).display());
        let address = |port: u16| format!("127.0.0.1:{port}");
        let mut site: Vec<(String, String)> = [
            ("dfs.nameservices", "ns1".to_owned()),
            ("dfs.ha.namenodes.ns1", "nn0,nn1".to_owned()),
            (
                "dfs.namenode.shared.edits.dir",
                format!("qjournal://{}/ns1", address(self.journal)),
            ),
            // Time for tests to look while the JournalNode is frozen.
            ("dfs.qjournal.write-txns.timeout.ms", "120000".to_owned()),
            ("dfs.ha.fencing.methods", "shell(true)".to_owned()),
            ("dfs.ha.tail-edits.period", "1".to_owned()),
            ("dfs.journalnode.rpc-address", address(self.journal)),
            ("dfs.journalnode.http-address", address(0)),
            (
                "dfs.journalnode.edits.dir",
                home.join("edits").display().to_string(),
            ),
            ("dfs.namenode.name.dir", directory("name")),
            ("dfs.datanode.data.dir", directory("data")),
            ("dfs.datanode.address", address(0)),
            ("dfs.datanode.http.address", address(0)),
            ("dfs.datanode.ipc.address", address(0)),
            ("dfs.replication", "1".to_owned()),
            (
                "dfs.namenode.datanode.registration.ip-hostname-check",
                "false".to_owned(),
            ),
            ("dfs.namenode.safemode.extension", "0".to_owned()),
            ("dfs.heartbeat.interval", "1".to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .to_vec();
        for i in 0..2 {
            site.push((
                format!("dfs.namenode.rpc-address.ns1.nn{i}"),
                address(self.rpc[i]),
            ));
            site.push((
                format!("dfs.namenode.http-address.ns1.nn{i}"),
                address(self.http[i]),
            ));
        }
        if daemon.starts_with("nn") {
            site.push(("dfs.ha.namenode.id".to_owned(), daemon.to_owned()));
        }
        let site = site
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()));
        let core = [("fs.defaultFS", "hdfs://ns1")];
        fs::write(conf.join("core-site.xml"), xml(core.into_iter())).unwrap();
        fs::write(conf.join("hdfs-site.xml"), xml(site)).unwrap();
        fs::write(conf.join("log4j.properties"), LOG4J).unwrap();
    }
}
