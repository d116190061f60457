//! The simulated store and the local one are only worth something where they answer like HDFS:
//! random calls on few names go to all of them, and every answer and every listing must agree.

#![cfg(feature = "simulation")]
#![allow(clippy::unwrap_used, reason = "a failed step fails its test")]

#[path = "support/hdfs.rs"]
mod hdfs;

use bytes::Bytes;
use forebay::sink::staged::store::{FileStore, StoreError, StoreWriter};
use forebay::sink::staged::store_hdfs::{HdfsOptions, HdfsStore};
use forebay::sink::staged::store_local::LocalStore;
use forebay::sink::staged::store_sim::SimStore;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngSeed, TestRunner};

#[derive(Debug, Clone)]
enum Call {
    Mkdirs(usize, bool),
    /// The writer stays open until a `Close` of the same slot.
    Create(usize),
    Close(usize),
    Rename(usize, usize),
    Delete(usize, bool),
    Stat(usize),
    List(usize),
    Read(usize),
}

/// Few names, so that calls meet: siblings, children, a file where a directory was.
const NAMES: [&str; 7] = ["a", "b", "a/x", "a/y", "b/x", "a/x/p", "b/x/p"];
const CASES: usize = 40;

fn call() -> impl Strategy<Value = Call> {
    let name = || 0..NAMES.len();
    prop_oneof![
        3 => (name(), any::<bool>()).prop_map(|(n, parents)| Call::Mkdirs(n, parents)),
        2 => name().prop_map(Call::Create),
        2 => name().prop_map(Call::Close),
        4 => (name(), name()).prop_map(|(from, to)| Call::Rename(from, to)),
        2 => (name(), any::<bool>()).prop_map(|(n, recursive)| Call::Delete(n, recursive)),
        1 => name().prop_map(Call::Stat),
        1 => name().prop_map(Call::List),
        1 => name().prop_map(Call::Read),
    ]
}

/// One store with its open files.
struct Side<'a> {
    store: &'a dyn FileStore,
    root: String,
    open: Vec<Vec<Box<dyn StoreWriter>>>,
}

impl<'a> Side<'a> {
    async fn new(store: &'a dyn FileStore, root: String) -> Self {
        store.mkdirs(&root, true).await.unwrap();
        Self {
            store,
            root,
            open: NAMES.iter().map(|_| Vec::new()).collect(),
        }
    }

    /// The answer, reduced to what every store must agree on.
    async fn answer(&mut self, call: &Call) -> String {
        let path = |n: &usize| format!("{}/{}", self.root, NAMES[*n]);
        match call {
            Call::Mkdirs(n, parents) => kind(self.store.mkdirs(&path(n), *parents).await),
            Call::Create(n) => match self.store.create(&path(n)).await {
                Ok(mut writer) => {
                    writer.write(Bytes::from_static(b"event\n")).await.unwrap();
                    self.open[*n].push(writer);
                    "Ok".to_owned()
                }
                Err(error) => kind::<()>(Err(error)),
            },
            Call::Close(n) => match self.open[*n].pop() {
                Some(writer) => kind(writer.close().await),
                None => "no writer".to_owned(),
            },
            Call::Rename(from, to) => kind(self.store.rename(&path(from), &path(to)).await),
            Call::Delete(n, recursive) => kind(self.store.delete(&path(n), *recursive).await),
            Call::Stat(n) => {
                let found = self.store.stat(&path(n)).await;
                kind(found.map(|info| info.map(|info| info.is_dir)))
            }
            Call::List(n) => {
                let found = self.store.list(&path(n)).await;
                kind(found.map(|found| found.len()))
            }
            Call::Read(n) => {
                let read = self.store.read(&path(n)).await;
                // How much of an open file can be read differs and does not matter.
                kind(read.map(|_| ()))
            }
        }
    }

    async fn tree(&self) -> Vec<(String, bool)> {
        let (mut found, mut open) = (Vec::new(), vec![self.root.clone()]);
        while let Some(dir) = open.pop() {
            for entry in self.store.list(&dir).await.unwrap() {
                if entry.is_dir {
                    open.push(entry.path.clone());
                }
                found.push((entry.path[self.root.len()..].to_owned(), entry.is_dir));
            }
        }
        found.sort();
        found
    }
}

fn kind<T: std::fmt::Debug>(answer: Result<T, StoreError>) -> String {
    match answer {
        Ok(value) => format!("Ok({value:?})").replace("Ok(())", "Ok"),
        Err(StoreError::NotFound(_)) => "NotFound".to_owned(),
        Err(StoreError::ParentNotFound(_)) => "ParentNotFound".to_owned(),
        Err(StoreError::AlreadyExists(_)) => "AlreadyExists".to_owned(),
        Err(StoreError::NotEmpty(_)) => "NotEmpty".to_owned(),
        Err(StoreError::Refused(_)) => "Refused".to_owned(),
        Err(other) => format!("{other:?}"),
    }
}

async fn compare(one: &mut Side<'_>, two: &mut Side<'_>, calls: &[Call]) {
    for (i, call) in calls.iter().enumerate() {
        let (expected, given) = (one.answer(call).await, two.answer(call).await);
        let uri = one.store.uri();
        assert_eq!(
            expected, given,
            "call {i} {call:?} of {calls:?}: {uri} says the former"
        );
    }
    assert_eq!(one.tree().await, two.tree().await, "{calls:?}");
}

/// Histories from a fixed seed; a failure prints the whole one.
fn histories(seed: u64) -> Vec<Vec<Call>> {
    let config = ProptestConfig {
        rng_seed: RngSeed::Fixed(seed),
        ..ProptestConfig::default()
    };
    let mut runner = TestRunner::new(config);
    let strategy = prop::collection::vec(call(), 1..60);
    (0..CASES)
        .map(|_| strategy.new_tree(&mut runner).unwrap().current())
        .collect()
}

#[tokio::test]
async fn the_simulation_answers_like_hdfs() {
    let shared = hdfs::shared();
    let options = HdfsOptions::default();
    let hdfs = HdfsStore::connect(&shared.uri, shared.conf_dir.clone(), options).unwrap();
    for (i, calls) in histories(7).iter().enumerate() {
        let sim = SimStore::perfect();
        let root = format!("/differ-{}/{i}", std::process::id());
        let mut real = Side::new(&hdfs, root.clone()).await;
        let mut model = Side::new(&sim, root).await;
        compare(&mut real, &mut model, calls).await;
    }
    hdfs.delete(&format!("/differ-{}", std::process::id()), true)
        .await
        .unwrap();
}

#[tokio::test]
async fn the_local_store_answers_like_the_simulation() {
    let local = LocalStore::new();
    for calls in (8..12).flat_map(histories) {
        let dir = tempfile::tempdir().unwrap();
        let sim = SimStore::perfect();
        let mut model = Side::new(&sim, "/r".to_owned()).await;
        let mut real = Side::new(&local, dir.path().to_str().unwrap().to_owned()).await;
        compare(&mut model, &mut real, &calls).await;
    }
}
