//! What the publisher may conclude while NameNodes fail over: real ones, over a JournalNode.

#![allow(clippy::unwrap_used, reason = "a failed step fails its test")]

#[path = "support/hdfs.rs"]
mod hdfs;
#[path = "support/hdfs_ha.rs"]
mod hdfs_ha;

use std::time::{Duration, Instant};

use bytes::Bytes;
use forebay::sink::staged::store::{FileStore, StoreError};
use forebay::sink::staged::store_hdfs::{HdfsOptions, HdfsStore};
use hdfs_ha::HaCluster;

/// A client of the name service: it looks for the active by itself.
fn connect(cluster: &HaCluster) -> HdfsStore {
    HdfsStore::connect(
        "hdfs://ns1",
        Some(cluster.conf_dir()),
        HdfsOptions::default(),
    )
    .unwrap()
}

/// A client of one NameNode that takes its word for what it is.
fn connect_to(cluster: &HaCluster, i: usize) -> HdfsStore {
    let once = (
        "dfs.client.failover.max.attempts".to_owned(),
        "0".to_owned(),
    );
    let options = HdfsOptions {
        call_timeout: Duration::from_secs(10),
        properties: [once].into(),
        ..HdfsOptions::default()
    };
    HdfsStore::connect(&cluster.uri_of(i), Some(cluster.conf_dir()), options).unwrap()
}

async fn write(store: &HdfsStore, path: &str, bytes: &'static [u8]) -> Result<(), StoreError> {
    let mut writer = store.create(path).await?;
    writer.write(Bytes::from_static(bytes)).await?;
    writer.close().await
}

/// Five JVMs at a time are enough.
static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// An ex-active that was frozen, not dead, still answers reads and refusals from its old memory.
/// It never gives a yes to a change: that is what the publisher's proof rests on. A client of the
/// name service finds the new active by itself.
#[tokio::test]
async fn an_ex_active_may_deny_but_never_confirms() {
    let _one = ONE.lock().await;
    let mut cluster = HaCluster::start("stores-failover");
    let service = connect(&cluster);
    let parts = "/ha/sealed/e1/parts";
    service.mkdirs(parts, true).await.unwrap();
    write(&service, &format!("{parts}/p"), b"events")
        .await
        .unwrap();
    let old = connect_to(&cluster, 0);
    let new = connect_to(&cluster, 1);
    assert!(old.stat(parts).await.unwrap().is_some());
    let standby = new.mkdirs("/ha/x", false).await;
    assert!(
        matches!(standby, Err(StoreError::Unavailable(_))),
        "{standby:?}"
    );

    cluster.namenode(0).freeze();
    cluster.make_active(1);
    new.rename(&format!("{parts}/p"), "/ha/final")
        .await
        .unwrap();
    cluster.namenode(0).thaw();

    // The old memory: the part has not left, and the final name is free.
    assert!(old.stat("/ha/final").await.unwrap().is_none());
    let denied = old.delete(parts, false).await;
    assert!(matches!(denied, Err(StoreError::NotEmpty(_))), "{denied:?}");
    // A change that would succeed there kills it; its answer never comes.
    let moved = old.rename(&format!("{parts}/p"), "/ha/twice").await;
    assert!(matches!(moved, Err(StoreError::Unknown(_))), "{moved:?}");

    assert!(new.stat("/ha/twice").await.unwrap().is_none());
    assert!(new.delete(parts, false).await.unwrap());
    // The name service's own client had the old one as its active.
    let start = Instant::now();
    loop {
        match service.mkdirs(parts, false).await {
            Ok(()) => break,
            Err(StoreError::Unknown(_) | StoreError::Unavailable(_)) => {}
            Err(other) => panic!("{other}"),
        }
        assert!(
            start.elapsed() < Duration::from_secs(120),
            "the client does not find the active"
        );
    }
    assert!(service.delete(parts, false).await.unwrap());
    assert_eq!(service.read("/ha/final").await.unwrap(), "events");
}

/// A change whose answer is lost may be seen by everybody, and refuse its own repetition, and be
/// gone after the failover: a refusal proves nothing, only a yes does.
#[tokio::test]
async fn an_unjournaled_rename_denies_its_repeat_and_is_undone_by_the_failover() {
    let _one = ONE.lock().await;
    let mut cluster = HaCluster::start("stores-unjournaled");
    let (old, new) = (connect_to(&cluster, 0), connect_to(&cluster, 1));
    let (from, to) = ("/ha/i1/a1", "/ha/sealed");
    old.mkdirs(from, true).await.unwrap();

    cluster.freeze_journal();
    let first = old.rename(from, to).await;
    assert!(matches!(first, Err(StoreError::Unknown(_))), "{first:?}");
    assert!(old.stat(to).await.unwrap().is_some());
    let repeat = old.rename(from, to).await;
    assert!(matches!(repeat, Err(StoreError::NotFound(_))), "{repeat:?}");

    cluster.replace_journal(0);
    cluster.make_active(1);
    assert!(new.stat(to).await.unwrap().is_none());
    new.rename(from, to).await.unwrap();
}
