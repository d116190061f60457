//! What is bounded: tombstones, and epochs that wait for a store that does not take them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;

use super::super::resolver::{KEPT_TOMBSTONES, MAX_OPEN_EPOCHS};
use super::super::store::{FileInfo, StoreWriter};
use super::*;

/// One event an epoch.
fn tiny_epochs() -> StagedOptions {
    let options = StagedOptions::new("k-1", "/base/all").unwrap();
    StagedOptions {
        batch_size: 1,
        max_parts: 1,
        ..options
    }
}

/// A store that takes no claim while it is shut: safe mode, say, that begins behind an upload.
struct Gate {
    inner: SimStore,
    open: AtomicBool,
    refused: AtomicUsize,
}

#[async_trait]
impl FileStore for Gate {
    fn uri(&self) -> &str {
        self.inner.uri()
    }
    async fn mkdirs(&self, path: &str, create_parent: bool) -> Result<(), StoreError> {
        self.inner.mkdirs(path, create_parent).await
    }
    async fn create(&self, path: &str) -> Result<Box<dyn StoreWriter>, StoreError> {
        self.inner.create(path).await
    }
    async fn rename(&self, from: &str, to: &str) -> Result<(), StoreError> {
        if to.contains("/sealed/e") && !self.open.load(Ordering::Relaxed) {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(StoreError::Unavailable("safe mode".into()));
        }
        self.inner.rename(from, to).await
    }
    async fn delete(&self, path: &str, recursive: bool) -> Result<bool, StoreError> {
        self.inner.delete(path, recursive).await
    }
    async fn stat(&self, path: &str) -> Result<Option<FileInfo>, StoreError> {
        self.inner.stat(path).await
    }
    async fn list(&self, path: &str) -> Result<Vec<FileInfo>, StoreError> {
        self.inner.list(path).await
    }
    async fn read(&self, path: &str) -> Result<Bytes, StoreError> {
        self.inner.read(path).await
    }
    async fn sync_dirs(&self, paths: &[&str]) -> Result<(), StoreError> {
        self.inner.sync_dirs(paths).await
    }
}

/// Directories below `sealed`, by their epoch.
fn tombstones(store: &SimStore) -> Vec<u64> {
    let tree = store.tree();
    let names = tree.iter().filter(|(_, bytes)| bytes.is_none());
    let sealed = names.filter_map(|(path, _)| path.split("/sealed/e").nth(1)?.parse().ok());
    let mut epochs: Vec<u64> = sealed.collect();
    epochs.sort_unstable();
    epochs
}

#[tokio::test]
async fn of_all_tombstones_only_the_newest_stay() {
    let events = KEPT_TOMBSTONES + 40;
    let (log, store) = (log(events), SimStore::perfect());
    let life = live_with(&log, &store, 1, Crash::never(), Some(tiny_epochs())).await;
    assert!(matches!(life, End::Clean), "{life:?}");
    assert_exactly_once(&log, &store, "tombstones");
    let kept = tombstones(&store);
    let last = log.lock().unwrap().next_epoch - 1;
    assert_eq!(kept.len(), KEPT_TOMBSTONES, "{kept:?}");
    // Epochs end in any order, so the oldest one that stayed may be a few numbers further back.
    assert_eq!(kept.last(), Some(&last));
    let epochs = u64::try_from(events).unwrap();
    assert!(last >= epochs - 1, "one event an epoch, {last} of {epochs}");
}

#[tokio::test]
async fn a_store_that_takes_no_claim_holds_the_sink_and_when_it_does_everything_is_published() {
    let events = MAX_OPEN_EPOCHS + 60;
    let (log, store) = (log(events), SimStore::perfect());
    let gate = Arc::new(Gate {
        inner: store.clone(),
        open: AtomicBool::new(false),
        refused: AtomicUsize::new(0),
    });
    let watch = async {
        let open = || log.lock().unwrap().epochs.len();
        while open() < MAX_OPEN_EPOCHS {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Hundreds of refusals later not one more has been sealed.
        let then = gate.refused.load(Ordering::Relaxed) + 3_000;
        while gate.refused.load(Ordering::Relaxed) < then {
            assert_eq!(open(), MAX_OPEN_EPOCHS);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        gate.open.store(true, Ordering::Relaxed);
    };
    let dynamic: Arc<dyn FileStore> = Arc::clone(&gate) as _;
    let life = live_on(&log, dynamic, 1, Crash::never(), Some(tiny_epochs()));
    let both = async { tokio::join!(life, watch).0 };
    let life = tokio::time::timeout(Duration::from_secs(120), both).await;
    assert!(matches!(life, Ok(End::Clean)), "{life:?}");
    assert_exactly_once(&log, &store, "gate");
}
