//! Tests of the simulation itself: each fault is really there, and nothing else is.

use super::*;

const A: &str = "/a";
const B: &str = "/b";

async fn store_with_a() -> SimStore {
    let store = SimStore::perfect();
    store.mkdirs(A, false).await.unwrap();
    store
}

fn names(store: &SimStore) -> Vec<String> {
    store.tree().into_iter().map(|(path, _)| path).collect()
}

#[tokio::test]
async fn an_unjournaled_edit_is_seen_by_all_and_undone_by_a_failover() {
    let store = store_with_a().await;
    store.plan(1, SimFault::LostUnjournaled);
    assert!(matches!(
        store.rename(A, B).await,
        Err(StoreError::Unknown(_))
    ));
    // Reads and refusals rest on it, without making it durable.
    assert!(store.stat(B).await.unwrap().is_some());
    assert!(matches!(
        store.rename(A, B).await,
        Err(StoreError::NotFound(_))
    ));
    store.mkdirs(B, false).await.unwrap();
    store.failover();
    assert_eq!(names(&store), [A]);
    store.rename(A, B).await.unwrap();
    store.failover();
    assert_eq!(names(&store), [B]);
}

#[tokio::test]
async fn an_answered_change_journals_every_change_before_it() {
    let store = store_with_a().await;
    store.plan(1, SimFault::LostUnjournaled);
    assert!(store.rename(A, B).await.is_err());
    store.mkdirs("/c", false).await.unwrap();
    store.failover();
    assert_eq!(names(&store), [B, "/c"]);
}

#[tokio::test]
async fn the_ex_active_says_no_and_dies_of_saying_yes() {
    let store = store_with_a().await;
    store.plan(1, SimFault::LostUnjournaled);
    assert!(store.rename(A, B).await.is_err());
    store.failover();
    store.set_faults(SimFaults {
        stale: 1000,
        ..SimFaults::default()
    });
    assert!(store.stat(B).await.unwrap().is_some());
    assert!(matches!(
        store.rename(A, B).await,
        Err(StoreError::NotFound(_))
    ));
    assert!(!store.delete(A, false).await.unwrap());
    assert!(matches!(
        store.delete(B, false).await,
        Err(StoreError::Unknown(_))
    ));
    // From here only the true active is left.
    assert!(store.delete(A, false).await.unwrap());
    assert_eq!(names(&store), [""; 0]);
}

#[tokio::test]
async fn a_late_change_happens_after_its_answer_was_given_up() {
    let store = store_with_a().await;
    store.plan(1, SimFault::Late(2));
    assert!(matches!(
        store.rename(A, B).await,
        Err(StoreError::Unknown(_))
    ));
    assert!(store.stat(A).await.unwrap().is_some());
    assert!(store.stat(A).await.unwrap().is_none());
    assert_eq!(names(&store), [B]);
}

#[tokio::test]
async fn a_change_made_twice_denies_itself() {
    let store = store_with_a().await;
    store.plan(1, SimFault::Double);
    assert!(matches!(
        store.rename(A, B).await,
        Err(StoreError::NotFound(_))
    ));
    assert_eq!(names(&store), [B]);
}

#[tokio::test]
async fn what_is_dropped_or_unavailable_has_not_happened() {
    let store = store_with_a().await;
    store.plan(1, SimFault::Dropped);
    store.plan(2, SimFault::Unavailable);
    assert!(matches!(
        store.rename(A, B).await,
        Err(StoreError::Unknown(_))
    ));
    assert!(matches!(
        store.rename(A, B).await,
        Err(StoreError::Unavailable(_))
    ));
    store.settle();
    assert_eq!(names(&store), [A]);
}

#[tokio::test]
async fn a_consumer_takes_a_file_once_and_a_fork_does_not_notice() {
    let store = store_with_a().await;
    let mut writer = store.create("/a/f").await.unwrap();
    writer.write(Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(store.consume("/a/f"), None, "it is open");
    writer.close().await.unwrap();
    let fork = store.fork();
    assert_eq!(store.consume("/a/f"), Some(Bytes::from_static(b"x")));
    assert_eq!(store.consume("/a/f"), None);
    assert_eq!(fork.read("/a/f").await.unwrap(), "x");
    assert!(store.put_foreign("/a/f", Bytes::from_static(b"y")));
    assert_eq!(store.read("/a/f").await.unwrap(), "y");
}

/// A few hundred calls on few names under all faults.
async fn wander(seed: u64) -> String {
    let store = SimStore::new(seed, SimFaults::harsh());
    let paths = ["/a", "/b", "/a/x", "/a/y", "/b/x"];
    let mut dice = SimStore::new(!seed, SimFaults::default()).lock().clone();
    for _ in 0..300 {
        let mut pick = || paths[usize::try_from(dice.next_random() % 5).unwrap()];
        let (one, two) = (pick(), pick());
        let changed = match dice.next_random() % 5 {
            0 => store.mkdirs(one, false).await.is_ok(),
            1 => store.rename(one, two).await.is_ok(),
            2 => matches!(store.delete(one, two == one).await, Ok(true)),
            3 => match store.create(one).await {
                Ok(writer) => writer.close().await.is_ok(),
                Err(_) => false,
            },
            _ => {
                store.list(one).await.ok();
                false
            }
        };
        let world = store.lock();
        if changed && world.pending.is_empty() {
            assert_eq!(
                world.journaled,
                world.active,
                "seed {seed}\n{}",
                world.history.len()
            );
        }
    }
    store.settle();
    store.history()
}

#[tokio::test]
async fn a_seed_gives_one_history() {
    for seed in 0..50 {
        assert_eq!(wander(seed).await, wander(seed).await, "seed {seed}");
    }
    assert_ne!(wander(1).await, wander(2).await);
}
