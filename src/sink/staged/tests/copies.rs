//! Where two copies of a log have parted: what a refused one must publish by itself.

use super::super::startup::{Place, fence, inspect, take_ownership};
use super::*;
use crate::event::Seq;

fn copy(log: &Arc<Mutex<Log>>) -> Arc<Mutex<Log>> {
    Arc::new(Mutex::new(log.lock().unwrap().clone()))
}

/// More events, as a source puts them.
fn accept(log: &Arc<Mutex<Log>>, count: usize) {
    let mut log = log.lock().unwrap();
    for _ in 0..count {
        let line = format!("line {}", log.events.len());
        log.events.push(Event::from_body(line));
    }
}

async fn publish(log: &Arc<Mutex<Log>>, store: &SimStore, nonce: u64) {
    let end = live(log, store, nonce, Crash::never()).await;
    assert!(matches!(end, End::Clean), "{end:?}");
}

/// A start that ends before it has asked the store anything.
fn killed_at_once(log: &Arc<Mutex<Log>>, nonce: u64) {
    drop(TestChannel::open(log, nonce, Crash::never()));
}

/// Starts a log that must be refused; the first event that is only there, by message and record.
async fn refused_from(log: &Arc<Mutex<Log>>, store: &SimStore, nonce: u64) -> u64 {
    let end = live(log, store, nonce, Crash::never()).await;
    let End::Refused(SinkError::Publish(PublishFailure::Clone { first, .. })) = end else {
        panic!("{end:?}");
    };
    let recorded = log.lock().unwrap().refusal.clone().unwrap();
    assert_eq!(recorded.first, first);
    assert!(recorded.by.contains("/owner."), "{recorded:?}");
    first.0
}

#[tokio::test]
async fn n8_the_copies_part_at_the_first_start_of_the_winner_and_not_at_its_last_one() {
    let (z, store) = (log(4), SimStore::perfect());
    publish(&z, &store, 1).await;
    let s = copy(&z);
    for nonce in 2..6 {
        publish(&z, &store, nonce).await;
        accept(&z, 3);
    }
    // Fewer than the winner has at its last start: that start would tell of nothing.
    accept(&s, 5);
    assert_eq!(refused_from(&s, &store, 10).await, 4);
    assert_eq!(refused_from(&s, &store, 11).await, 4, "at every start");
}

#[tokio::test]
async fn n8_starts_of_the_winner_that_never_came_to_own_the_channel_count() {
    let (z, store) = (log(4), SimStore::perfect());
    publish(&z, &store, 1).await;
    let s = copy(&z);
    killed_at_once(&z, 2);
    // Accepted by the start that was killed.
    accept(&z, 3);
    publish(&z, &store, 3).await;
    accept(&s, 5);
    assert_eq!(refused_from(&s, &store, 10).await, 4);
}

#[tokio::test]
async fn n8_the_copies_part_at_the_first_start_of_the_refused_one_where_that_was_earlier() {
    let (z, store) = (log(4), SimStore::perfect());
    publish(&z, &store, 1).await;
    publish(&z, &store, 2).await;
    let s = copy(&z);
    // The original runs on, and starts again only behind six more events.
    accept(&z, 6);
    publish(&z, &store, 3).await;
    killed_at_once(&s, 10);
    accept(&s, 2);
    assert_eq!(refused_from(&s, &store, 11).await, 4);
}

#[tokio::test]
async fn n8_a_copy_of_a_copy_parts_from_the_original_where_the_first_copy_did() {
    let (a, store) = (log(4), SimStore::perfect());
    publish(&a, &store, 1).await;
    let b = copy(&a);
    publish(&b, &store, 2).await;
    accept(&b, 2);
    publish(&b, &store, 3).await;
    let c = copy(&b);
    killed_at_once(&c, 4);
    accept(&c, 1);
    publish(&c, &store, 5).await;
    accept(&a, 9);
    assert_eq!(refused_from(&a, &store, 10).await, 4);
    accept(&b, 3);
    assert_eq!(refused_from(&b, &store, 11).await, 6);
}

#[tokio::test]
async fn starts_without_events_in_between_leave_one_entry_in_the_store() {
    let (z, store) = (log(4), SimStore::perfect());
    for nonce in 1..8 {
        publish(&z, &store, nonce).await;
    }
    accept(&z, 1);
    publish(&z, &store, 8).await;
    let tree = store.tree();
    let entries: Vec<_> = tree
        .iter()
        .filter_map(|(path, _)| path.split("/starts/").nth(1))
        .collect();
    assert_eq!(entries, ["7-0000000000000007-4", "8-0000000000000008-5"]);
}

#[tokio::test]
async fn a_copy_that_the_store_has_outrun_is_refused_and_leaves_the_owner_alone() {
    let (z, store) = (log(8), SimStore::perfect());
    publish(&z, &store, 1).await;
    let backup = copy(&z);
    accept(&z, 4);
    // The same incarnation goes on: its owner file is the one that the backup knows.
    z.lock().unwrap().incarnations.clear();
    z.lock().unwrap().openings.clear();
    publish(&z, &store, 1).await;
    let before = store.tree();
    accept(&backup, 2);
    let end = live(&backup, &store, 9, Crash::never()).await;
    assert!(
        matches!(
            end,
            End::Refused(SinkError::Publish(PublishFailure::OldBackup { .. }))
        ),
        "{end:?}"
    );
    assert_eq!(store.tree(), before);
    let recorded = backup.lock().unwrap().refusal.clone().unwrap();
    assert_eq!(
        recorded.first,
        Seq(10),
        "what was put before this start is in doubt"
    );
}

/// The original publishes between the copy's first look and its turn: refused after it had taken
/// the owner file the copy would have shut both out.
#[tokio::test]
async fn a_copy_that_is_outrun_while_it_starts_does_not_take_the_owner_file() {
    let (z, store) = (log(4), SimStore::perfect());
    publish(&z, &store, 1).await;
    let backup = copy(&z);
    let journal = TestChannel::open(&backup, 9, Crash::never());
    let place = Place {
        store: &store,
        journal: &journal,
        root: "/base/_staging/0123456789ab",
    };
    inspect(place).await.unwrap();
    accept(&z, 4);
    z.lock().unwrap().incarnations.clear();
    z.lock().unwrap().openings.clear();
    publish(&z, &store, 1).await;
    fence(place, &[1]).await.unwrap();
    let end = take_ownership(place).await;
    assert!(
        matches!(end, Err(PublishFailure::OldBackup { .. })),
        "{end:?}"
    );
    publish(&z, &store, 2).await;
    assert_exactly_once(&z, &store, "the owner goes on");
}
