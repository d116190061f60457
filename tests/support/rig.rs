//! A directory with a configuration, an input and a target: what the tests of whole runs share.
//!
//! Include it with `#[path = "support/rig.rs"] mod rig;`, beside `workload`.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(
    clippy::unwrap_used,
    reason = "a failed step of the harness fails its test"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use forebay::sink::staged::names::PartName;
use forebay::sink::staged::store::FileStore;
use forebay::sink::staged::store_hdfs::HdfsOptions;
use forebay::sink::staged::store_open::open_store;

use crate::workload::{Agent, number};

/// See the module head.
pub(crate) struct Rig {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) store: Arc<dyn FileStore>,
    /// Target directory in the store.
    pub(crate) out: String,
    pub(crate) runtime: tokio::runtime::Runtime,
}

impl Rig {
    /// `target` and `config` are told the directory; the target is a URI with a path.
    pub(crate) fn new(
        target: impl FnOnce(&Path) -> String,
        config: impl FnOnce(&Path, &str) -> String,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let target = target(dir.path());
        let at = target.find("://").unwrap() + 3;
        let out = target[at..]
            .find('/')
            .map(|slash| target[at + slash..].to_owned())
            .unwrap();
        let store = open_store(&target, None, HdfsOptions::default()).unwrap();
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build().unwrap();
        fs::write(
            dir.path().join("a1.properties"),
            config(dir.path(), &target),
        )
        .unwrap();
        Self {
            dir,
            store,
            out,
            runtime,
        }
    }

    pub(crate) fn agent(&self) -> Agent {
        Agent::start(self.dir.path(), &self.dir.path().join("a1.properties"))
    }

    /// Published files: path and parsed name.
    pub(crate) fn published(&self) -> Vec<(String, PartName)> {
        self.files()
            .into_iter()
            .filter(|path| !path.contains("/_"))
            .map(|path| {
                let name = path.rsplit('/').next().unwrap();
                let part = PartName::parse(name).unwrap_or_else(|| panic!("foreign file {path}"));
                (path, part)
            })
            .collect()
    }

    pub(crate) fn files(&self) -> Vec<String> {
        let (mut files, mut open) = (Vec::new(), vec![self.out.clone()]);
        self.runtime.block_on(async {
            while let Some(dir) = open.pop() {
                for entry in self.store.list(&dir).await.unwrap() {
                    if entry.is_dir {
                        open.push(entry.path);
                    } else {
                        files.push(entry.path);
                    }
                }
            }
        });
        files
    }

    pub(crate) fn lines(&self) -> Vec<u64> {
        let mut numbers = Vec::new();
        for (path, part) in self.published() {
            let bytes = self.runtime.block_on(self.store.read(&path)).unwrap();
            let text = std::str::from_utf8(&bytes).unwrap();
            let before = numbers.len() as u64;
            numbers.extend(text.lines().map(number));
            assert_eq!(numbers.len() as u64 - before, part.count, "{path}");
        }
        numbers
    }

    pub(crate) fn config_path(&self) -> PathBuf {
        self.dir.path().join("a1.properties")
    }

    /// Only the owner file and empty tombstones stay under `_staging`.
    pub(crate) fn assert_nothing_left(&self) {
        let staged: Vec<String> = self
            .files()
            .into_iter()
            .filter(|path| path.contains("/_staging/"))
            .collect();
        let is_owner = |p: &&String| p.rsplit('/').next().unwrap().starts_with("owner.");
        assert_eq!(
            staged.iter().filter(is_owner).count(),
            staged.len(),
            "left over: {staged:?}"
        );
    }

    /// `forebay audit` on the target finds nothing missing and nothing double.
    pub(crate) fn assert_audit_agrees(&self) {
        let target = format!("{}{}", self.store.uri(), self.out);
        let binary = env!("CARGO_BIN_EXE_forebay");
        let output = std::process::Command::new(binary)
            .args(["audit", &target])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{text}{errors}");
    }
}

/// TAILDIR `r1` over `<dir>/logs` and file channel `c1`; sinks are the caller's.
pub(crate) fn tail_into_file_channel(dir: &Path, sinks: &str, channel: &str) -> String {
    let dir = dir.display();
    format!(
        "a1.sources = r1\na1.channels = c1\na1.sinks = {sinks}\n\
         a1.sources.r1.type = TAILDIR\na1.sources.r1.channels = c1\n\
         a1.sources.r1.filegroups = f1\n\
         a1.sources.r1.filegroups.f1 = {dir}/logs/app[.]log.*\n\
         a1.sources.r1.batchSize = 500\n\
         a1.channels.c1.type = file\na1.channels.c1.dataDirs = {dir}/c1\n\
         a1.channels.c1.maxFileSize = 4194304\na1.channels.c1.minimumRequiredSpace = 1048576\n\
         {channel}\n"
    )
}

/// An hdfs sink `name` on `c1` that writes plain text.
pub(crate) fn text_sink(name: &str, target: &str, rolls: (u64, u64)) -> String {
    let (interval, count) = rolls;
    format!(
        "a1.sinks.{name}.type = hdfs\na1.sinks.{name}.channel = c1\n\
         a1.sinks.{name}.hdfs.path = {target}\na1.sinks.{name}.hdfs.fileType = DataStream\n\
         a1.sinks.{name}.hdfs.rollInterval = {interval}\na1.sinks.{name}.hdfs.rollSize = 0\n\
         a1.sinks.{name}.hdfs.rollCount = {count}\na1.sinks.{name}.hdfs.batchSize = 500\n"
    )
}
