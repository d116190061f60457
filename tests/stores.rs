//! One contract, every store: what the publisher concludes from an answer must hold on the local
//! file system, in the simulation and on a real HDFS. Then faults that only a real HDFS has.

#![allow(clippy::unwrap_used, reason = "a failed step fails its test")]

#[path = "support/hdfs.rs"]
mod hdfs;
#[path = "support/proxy.rs"]
mod proxy;

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use forebay::sink::staged::store::{FileInfo, FileStore, StoreError};
use forebay::sink::staged::store_hdfs::{HdfsOptions, HdfsStore};
use forebay::sink::staged::store_local::LocalStore;
use hdfs::Cluster;
use proxy::Proxy;

macro_rules! assert_answer {
    ($call:expr, $pattern:pat) => {{
        let answer = $call.await.map(|_| ());
        assert!(
            matches!(answer, $pattern),
            "{}: {answer:?}",
            stringify!($call)
        );
    }};
}

/// Three megabytes in which every offset can be told.
fn three_megabytes() -> Bytes {
    (0..750_000u32).flat_map(u32::to_le_bytes).collect()
}

async fn write(store: &dyn FileStore, path: &str, bytes: &Bytes) -> Result<(), StoreError> {
    let mut writer = store.create(path).await?;
    for start in (0..bytes.len()).step_by(700_001) {
        writer
            .write(bytes.slice(start..bytes.len().min(start + 700_001)))
            .await?;
    }
    writer.close().await
}

async fn names(store: &dyn FileStore, dir: &str) -> Vec<String> {
    let entries = store.list(dir).await.unwrap();
    let name = |entry: &FileInfo| entry.path.rsplit('/').next().unwrap().to_owned();
    entries.iter().map(name).collect()
}

/// The contract. `root` exists and is empty.
async fn conforms(store: &dyn FileStore, root: &str) {
    directories(store, root).await;
    files(store, root).await;
    renames(store, root).await;
    deletes(store, root).await;
    fences(store, root).await;
}

async fn directories(store: &dyn FileStore, root: &str) {
    let (a, ab) = (format!("{root}/a"), format!("{root}/a/b"));
    assert_answer!(store.mkdirs(&ab, false), Err(StoreError::ParentNotFound(_)));
    assert_eq!(store.stat(&a).await.unwrap(), None);
    store.mkdirs(&ab, true).await.unwrap();
    // An existing directory is as good as a new one, and keeps what it holds.
    store.mkdirs(&a, false).await.unwrap();
    store.mkdirs(&a, true).await.unwrap();
    let expected = FileInfo {
        path: a.clone(),
        length: 0,
        is_dir: true,
    };
    assert_eq!(store.stat(&a).await.unwrap(), Some(expected));
    assert_eq!(names(store, &a).await, ["b"]);
    assert_eq!(store.list(&format!("{root}/none")).await.unwrap(), []);
    store.sync_dirs(&[&a, root]).await.unwrap();
    // Under a deleted directory nothing can be made: fencing rests on it.
    assert!(store.delete(&a, true).await.unwrap());
    assert_answer!(store.mkdirs(&ab, false), Err(StoreError::ParentNotFound(_)));
    for bad in ["relative", "/a/../b", ""] {
        assert_answer!(store.mkdirs(bad, true), Err(StoreError::Refused(_)));
    }
}

async fn files(store: &dyn FileStore, root: &str) {
    let (dir, file) = (format!("{root}/files"), format!("{root}/files/f"));
    assert_answer!(store.create(&file), Err(StoreError::ParentNotFound(_)));
    assert_eq!(store.stat(&dir).await.unwrap(), None);
    store.mkdirs(&dir, false).await.unwrap();
    let bytes = three_megabytes();
    write(store, &file, &bytes).await.unwrap();
    let expected = FileInfo {
        path: file.clone(),
        length: 3_000_000,
        is_dir: false,
    };
    assert_eq!(store.stat(&file).await.unwrap().as_ref(), Some(&expected));
    assert_eq!(store.list(&dir).await.unwrap(), [expected]);
    assert!(
        store.read(&file).await.unwrap() == bytes,
        "the bytes differ"
    );
    // The name is taken, whoever asks; a directory's too.
    assert_answer!(store.create(&file), Err(StoreError::AlreadyExists(_)));
    assert_answer!(store.create(&dir), Err(StoreError::AlreadyExists(_)));
    assert_answer!(
        store.mkdirs(&file, false),
        Err(StoreError::AlreadyExists(_))
    );
    assert_eq!(store.stat(&file).await.unwrap().unwrap().length, 3_000_000);
    let open = format!("{dir}/open");
    let writer = store.create(&open).await.unwrap();
    assert_answer!(store.create(&open), Err(StoreError::AlreadyExists(_)));
    writer.close().await.unwrap();
    assert_eq!(store.read(&open).await.unwrap(), Bytes::new());
    assert_answer!(
        store.read(&format!("{dir}/none")),
        Err(StoreError::NotFound(_))
    );
    assert_answer!(store.list(&file), Err(StoreError::Refused(_)));
}

async fn renames(store: &dyn FileStore, root: &str) {
    let at = |name: &str| format!("{root}/renames/{name}");
    store.mkdirs(&at("full/x"), true).await.unwrap();
    store.mkdirs(&at("empty"), true).await.unwrap();
    store.mkdirs(&at("dir/parts"), true).await.unwrap();
    write(store, &at("dir/parts/p"), &Bytes::from_static(b"1"))
        .await
        .unwrap();
    write(store, &at("taken"), &Bytes::from_static(b"2"))
        .await
        .unwrap();
    // No rename replaces anything or moves into anything, and all stay as they were.
    for to in ["empty", "full", "taken", "dir"] {
        assert_answer!(
            store.rename(&at("dir"), &at(to)),
            Err(StoreError::AlreadyExists(_))
        );
    }
    for to in ["empty", "full", "taken"] {
        let part = at("dir/parts/p");
        assert_answer!(
            store.rename(&part, &at(to)),
            Err(StoreError::AlreadyExists(_))
        );
    }
    assert_eq!(names(store, &at("empty")).await, [""; 0]);
    assert_eq!(store.read(&at("taken")).await.unwrap(), "2");
    assert_answer!(
        store.rename(&at("none"), &at("x")),
        Err(StoreError::NotFound(_))
    );
    assert_answer!(
        store.rename(&at("none/p"), &at("x")),
        Err(StoreError::NotFound(_))
    );
    let missing = at("none/x");
    assert_answer!(
        store.rename(&at("dir"), &missing),
        Err(StoreError::ParentNotFound(_))
    );
    assert_answer!(
        store.rename(&at("taken"), &missing),
        Err(StoreError::ParentNotFound(_))
    );
    // Both missing: the source counts.
    assert_answer!(
        store.rename(&at("none"), &missing),
        Err(StoreError::NotFound(_))
    );
    let inside = at("dir/parts/y");
    assert_answer!(
        store.rename(&at("dir"), &inside),
        Err(StoreError::Refused(_))
    );
    // A whole tree moves at once, a file alone too.
    store.rename(&at("dir"), &at("claimed")).await.unwrap();
    assert_eq!(store.stat(&at("dir")).await.unwrap(), None);
    store
        .rename(&at("claimed/parts/p"), &at("final"))
        .await
        .unwrap();
    assert_eq!(store.read(&at("final")).await.unwrap(), "1");
    // The repeat after a lost answer.
    assert_answer!(
        store.rename(&at("dir"), &at("claimed")),
        Err(StoreError::NotFound(_))
    );
}

async fn deletes(store: &dyn FileStore, root: &str) {
    let at = |name: &str| format!("{root}/deletes/{name}");
    store.mkdirs(&at("parts"), true).await.unwrap();
    write(store, &at("parts/p"), &Bytes::from_static(b"1"))
        .await
        .unwrap();
    assert_answer!(
        store.delete(&at("parts"), false),
        Err(StoreError::NotEmpty(_))
    );
    assert_eq!(names(store, &at("parts")).await, ["p"]);
    // The proof that every part has left.
    store.rename(&at("parts/p"), &at("p")).await.unwrap();
    assert!(store.delete(&at("parts"), false).await.unwrap());
    assert!(!store.delete(&at("parts"), false).await.unwrap());
    assert!(!store.delete(&at("parts"), true).await.unwrap());
    assert!(!store.delete(&at("none/parts"), false).await.unwrap());
    assert!(store.delete(&at("p"), false).await.unwrap());
    store.mkdirs(&at("tree/a/b"), true).await.unwrap();
    write(store, &at("tree/a/b/p"), &Bytes::from_static(b"1"))
        .await
        .unwrap();
    assert!(store.delete(&at("tree"), true).await.unwrap());
    assert_eq!(names(store, &format!("{root}/deletes")).await, [""; 0]);
}

/// After `i<n>` is deleted nothing of that incarnation comes to light any more.
async fn fences(store: &dyn FileStore, root: &str) {
    let at = |name: &str| format!("{root}/fences/{name}");
    store.mkdirs(&at("i1/a1/parts"), true).await.unwrap();
    store.mkdirs(&at("sealed"), true).await.unwrap();
    let mut zombie = store.create(&at("i1/a1/parts/p")).await.unwrap();
    zombie
        .write(Bytes::from_static(b"from the grave"))
        .await
        .unwrap();
    assert!(store.delete(&at("i1"), true).await.unwrap());
    let written = zombie.write(three_megabytes()).await;
    let closed = match written {
        Ok(()) => zombie.close().await,
        Err(error) => Err(error),
    };
    assert!(closed.is_err(), "a file in a deleted directory was closed");
    assert_answer!(
        store.create(&at("i1/a1/parts/q")),
        Err(StoreError::ParentNotFound(_))
    );
    assert_answer!(
        store.mkdirs(&at("i1/a2"), false),
        Err(StoreError::ParentNotFound(_))
    );
    let claim = at("sealed/e7");
    assert_answer!(
        store.rename(&at("i1/a1"), &claim),
        Err(StoreError::NotFound(_))
    );
    assert_eq!(names(store, &at("sealed")).await, [""; 0]);
    // An open file goes with its directory, and its writer with it.
    store.mkdirs(&at("i2/a1/parts"), true).await.unwrap();
    let mut writer = store.create(&at("i2/a1/parts/p")).await.unwrap();
    store.rename(&at("i2/a1"), &at("sealed/e8")).await.unwrap();
    writer.write(Bytes::from_static(b"moved")).await.unwrap();
    writer.close().await.unwrap();
    assert_eq!(store.read(&at("sealed/e8/parts/p")).await.unwrap(), "moved");
}

#[tokio::test]
async fn the_local_store_conforms() {
    let dir = tempfile::tempdir().unwrap();
    conforms(&LocalStore::new(), dir.path().to_str().unwrap()).await;
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().flatten().collect();
    assert!(
        left.iter()
            .all(|e| !e.file_name().to_string_lossy().starts_with('.')),
        "{left:?}"
    );
}

#[cfg(feature = "simulation")]
#[tokio::test]
async fn the_simulated_store_conforms() {
    let store = forebay::sink::staged::store_sim::SimStore::perfect();
    store.mkdirs("/root", false).await.unwrap();
    conforms(&store, "/root").await;
}

#[tokio::test]
async fn hdfs_conforms() {
    let shared = hdfs::shared();
    let store = HdfsStore::connect(&shared.uri, shared.conf_dir.clone(), HdfsOptions::default());
    let store = store.unwrap();
    let root = format!("/conformance-{}", std::process::id());
    store.mkdirs(&root, true).await.unwrap();
    conforms(&store, &root).await;
    store.delete(&root, true).await.unwrap();
}

#[tokio::test]
async fn hdfs_refuses_what_the_user_may_not_do() {
    let shared = hdfs::shared();
    let options = HdfsOptions {
        user: Some("stranger".into()),
        ..HdfsOptions::default()
    };
    let store = HdfsStore::connect(&shared.uri, shared.conf_dir.clone(), options).unwrap();
    assert_answer!(
        store.mkdirs("/not-for-strangers", true),
        Err(StoreError::Refused(_))
    );
    assert_answer!(store.create("/file"), Err(StoreError::Refused(_)));
}

/// The cluster whose daemons are killed and frozen, one test at a time.
fn faulty() -> MutexGuard<'static, Cluster> {
    static CLUSTER: OnceLock<Mutex<Cluster>> = OnceLock::new();
    let cluster = CLUSTER.get_or_init(|| Mutex::new(Cluster::start("stores-faults", 2, 2)));
    let mut guard = cluster.lock().unwrap_or_else(PoisonError::into_inner);
    guard.repair();
    guard
}

fn connect(uri: &str, cluster: &Cluster, call_timeout: u64) -> HdfsStore {
    let options = HdfsOptions {
        call_timeout: Duration::from_secs(call_timeout),
        ..HdfsOptions::default()
    };
    HdfsStore::connect(uri, Some(cluster.conf_dir()), options).unwrap()
}

/// Test bodies hold the cluster's lock over awaits, so each has a runtime of its own.
fn run<T>(body: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    runtime.unwrap().block_on(body)
}

#[test]
fn a_frozen_namenode_gives_unknown_and_the_next_client_works_after_the_thaw() {
    let cluster = faulty();
    let store = connect(&cluster.uri(), &cluster, 2);
    run(async {
        store.mkdirs("/frozen/a", true).await.unwrap();
        cluster.namenode().freeze();
        assert_answer!(
            store.rename("/frozen/a", "/frozen/b"),
            Err(StoreError::Unknown(_))
        );
        assert_answer!(store.stat("/frozen/a"), Err(StoreError::Unknown(_)));
        cluster.namenode().thaw();
        // The frozen NameNode may have the rename in its socket and execute it now or never.
        match store.rename("/frozen/a", "/frozen/b").await {
            Ok(()) | Err(StoreError::NotFound(_)) => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(names(&store, "/frozen").await, ["b"]);
        write(&store, "/frozen/b/f", &three_megabytes())
            .await
            .unwrap();
    });
}

#[test]
fn a_hung_connection_is_given_up_and_later_calls_get_a_new_client() {
    let cluster = faulty();
    let proxy = Proxy::start(cluster.uri().trim_start_matches("hdfs://"));
    let store = connect(&proxy.uri(), &cluster, 5);
    run(async {
        store.mkdirs("/hung", true).await.unwrap();
        proxy.hang_connections();
        assert_answer!(store.mkdirs("/hung/a", false), Err(StoreError::Unknown(_)));
        store.mkdirs("/hung/b", false).await.unwrap();
        assert_eq!(names(&store, "/hung").await, ["b"]);
    });
}

#[test]
fn a_killed_namenode_is_unavailable_and_an_open_file_is_never_half_published() {
    let mut cluster = faulty();
    let store = connect(&cluster.uri(), &cluster, 20);
    run(async {
        store.mkdirs("/killed", true).await.unwrap();
        let mut writer = store.create("/killed/f").await.unwrap();
        writer.write(three_megabytes()).await.unwrap();
        cluster.kill_namenode();
        // The first call may still meet the dying connection.
        match store.mkdirs("/killed/x", false).await {
            Err(StoreError::Unknown(_) | StoreError::Unavailable(_)) => {}
            other => panic!("{other:?}"),
        }
        assert_answer!(
            store.mkdirs("/killed/y", false),
            Err(StoreError::Unavailable(_))
        );
        cluster.restart_namenode();
        store.mkdirs("/killed/y", false).await.unwrap();
        if writer.close().await.is_ok() {
            assert!(store.read("/killed/f").await.unwrap() == three_megabytes());
        }
        assert!(store.delete("/killed/f", false).await.unwrap());
        write(&store, "/killed/f", &three_megabytes())
            .await
            .unwrap();
    });
}

#[test]
fn a_datanode_killed_while_writing_never_gives_wrong_bytes() {
    let mut cluster = faulty();
    let store = connect(&cluster.uri(), &cluster, 20);
    run(async {
        store.mkdirs("/datanode", true).await.unwrap();
        let bytes = three_megabytes();
        let mut writer = store.create("/datanode/a0").await.unwrap();
        writer.write(bytes.slice(..1_500_000)).await.unwrap();
        cluster.kill_datanode(0);
        let mut answer = writer.write(bytes.slice(1_500_000..)).await;
        if answer.is_ok() {
            answer = writer.close().await;
        }
        let mut attempt = 0;
        // Whole attempts are repeated under new names; within 12 s the NameNode knows.
        while let Err(error) = answer {
            eprintln!("attempt {attempt}: {error}");
            store
                .delete(&format!("/datanode/a{attempt}"), true)
                .await
                .unwrap();
            attempt += 1;
            assert!(attempt < 30, "{error}");
            tokio::time::sleep(Duration::from_secs(1)).await;
            answer = write(&store, &format!("/datanode/a{attempt}"), &bytes).await;
        }
        let file = format!("/datanode/a{attempt}");
        assert_eq!(store.stat(&file).await.unwrap().unwrap().length, 3_000_000);
        assert!(
            store.read(&file).await.unwrap() == bytes,
            "the bytes differ"
        );
        assert_eq!(names(&store, "/datanode").await, [format!("a{attempt}")]);
    });
}

#[test]
fn a_lost_answer_is_unknown_and_the_repeat_tells_what_happened() {
    let cluster = faulty();
    let proxy = Proxy::start(cluster.uri().trim_start_matches("hdfs://"));
    let store = connect(&proxy.uri(), &cluster, 10);
    run(async {
        store.mkdirs("/lost/i1/a1/parts", true).await.unwrap();
        store.mkdirs("/lost/sealed", true).await.unwrap();
        proxy.lose_answers(true);
        assert_answer!(
            store.rename("/lost/i1/a1", "/lost/sealed/e1"),
            Err(StoreError::Unknown(_))
        );
        proxy.lose_answers(false);
        let repeat = store.rename("/lost/i1/a1", "/lost/sealed/e1");
        assert_answer!(repeat, Err(StoreError::NotFound(_)));
        assert_eq!(names(&store, "/lost/sealed").await, ["e1"]);
        // The proof: mkdirs makes `parts` again, so that some delete gets its `true`.
        proxy.lose_answers(true);
        let parts = "/lost/sealed/e1/parts";
        assert_answer!(store.delete(parts, false), Err(StoreError::Unknown(_)));
        proxy.lose_answers(false);
        assert!(!store.delete(parts, false).await.unwrap());
        store.mkdirs(parts, false).await.unwrap();
        assert!(store.delete(parts, false).await.unwrap());
    });
}

#[test]
fn a_rename_that_arrives_late_finds_its_source_fenced() {
    let cluster = faulty();
    let proxy = Proxy::start(cluster.uri().trim_start_matches("hdfs://"));
    let zombie = connect(&proxy.uri(), &cluster, 1);
    let store = connect(&cluster.uri(), &cluster, 10);
    run(async {
        store.mkdirs("/late/i1/a1/parts", true).await.unwrap();
        store.mkdirs("/late/sealed", true).await.unwrap();
        assert!(zombie.stat("/late").await.unwrap().is_some());
        proxy.hold_requests();
        assert_answer!(
            zombie.rename("/late/i1/a1", "/late/sealed/e1"),
            Err(StoreError::Unknown(_))
        );
        proxy.wait_held();
        assert!(store.delete("/late/i1", true).await.unwrap());
        proxy.release_and_wait_for_answer();
        assert_eq!(names(&store, "/late/sealed").await, [""; 0]);
    });
}
