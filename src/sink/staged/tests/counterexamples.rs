//! Ways in which earlier versions of the protocol lost or doubled data, by name.

use std::sync::{Arc, Mutex};

use super::super::epoch::{Action, Answer, Epoch, Halt, State, sealed_dir};
use super::*;
use crate::channel::journal::EpochRecord;

const ROOT: &str = "/base/_staging/0123456789ab";

fn copy(log: &Arc<Mutex<Log>>) -> Arc<Mutex<Log>> {
    Arc::new(Mutex::new(log.lock().unwrap().clone()))
}

fn refused(end: &End) -> Option<&PublishFailure> {
    match end {
        End::Refused(SinkError::Publish(failure)) => Some(failure),
        _ => None,
    }
}

/// Stops a life at the first point whose name contains `what`.
async fn stop_at(log: &Arc<Mutex<Log>>, store: &SimStore, nonce: u64, what: &str) {
    let end = live(log, store, nonce, Crash::named(what)).await;
    let there = matches!(&end, End::Crashed(at) if at.contains(what));
    assert!(there, "no point {what}: {end:?}");
}

/// Performs an epoch's actions as its process would, up to the end.
async fn drive(epoch: &mut Epoch, store: &SimStore, owner_is_ours: bool) -> Action {
    for _ in 0..500 {
        let answer = match epoch.next() {
            Action::Rename { from, to } => store.rename(&from, &to).await.into(),
            Action::Mkdirs {
                path,
                create_parent,
            } => store.mkdirs(&path, create_parent).await.into(),
            Action::Delete { path } => store.delete(&path, false).await.into(),
            Action::Stat { path } => store.stat(&path).await.map(|f| f.is_some()).into(),
            Action::CheckOwner if !owner_is_ours => Answer::Foreign("owner.9".into()),
            end @ (Action::Finished { .. } | Action::Halted(_) | Action::Stopped(_)) => return end,
            _ => Answer::Ok,
        };
        epoch.on(answer);
    }
    panic!("no end: {:?}", epoch.state());
}

fn only_epoch(log: &Arc<Mutex<Log>>) -> EpochRecord {
    log.lock().unwrap().epochs.values().next().cloned().unwrap()
}

#[tokio::test]
async fn review_1_1_a_foreign_tombstone_is_not_taken_for_our_published_epoch() {
    let (z, store) = (log(4), SimStore::perfect());
    stop_at(&z, &store, 1, "after SEAL").await;
    // S is a copy from before the seal; it publishes its own epoch of the same number.
    let s = copy(&z);
    {
        let mut s = s.lock().unwrap();
        s.epochs.clear();
        s.next_epoch = 0;
    }
    assert!(matches!(
        live(&s, &store, 2, Crash::never()).await,
        End::Clean
    ));
    // Z wakes up: its attempt is gone, and an empty directory stands under its number.
    let mut epoch = Epoch::new(only_epoch(&z), "0123456789ab");
    let end = drive(&mut epoch, &store, false).await;
    assert!(matches!(end, Action::Halted(Halt::Clone(_))), "{end:?}");
    assert!(!epoch.is_claimed());
    assert_exactly_once(&s, &store, "the winner's events");
}

#[tokio::test]
async fn review_1_2_a_refused_clone_is_refused_at_every_further_start() {
    let (z, store) = (log(4), SimStore::perfect());
    assert!(matches!(
        live(&z, &store, 1, Crash::never()).await,
        End::Clean
    ));
    let s = copy(&z);
    assert!(matches!(
        live(&z, &store, 2, Crash::never()).await,
        End::Clean
    ));
    for nonce in 10..14 {
        let end = live(&s, &store, nonce, Crash::never()).await;
        let clone = refused(&end);
        assert!(
            matches!(clone, Some(PublishFailure::Clone { .. })),
            "{end:?}"
        );
        assert_eq!(clone.and_then(PublishFailure::exit_code), Some(3));
    }
    // The rightful owner is not disturbed, and not by its own earlier starts either.
    for nonce in 20..23 {
        assert!(matches!(
            live(&z, &store, nonce, Crash::never()).await,
            End::Clean
        ));
    }
    assert_exactly_once(&z, &store, "owner");
}

#[tokio::test]
async fn review_1_3_a17_many_starts_and_late_mkdirs_never_wedge_the_fence() {
    let (log, store) = (log(8), SimStore::perfect());
    for nonce in 1..12 {
        // Each start dies in the middle of an attempt, and a late mkdirs makes old places again.
        stop_at(&log, &store, nonce, "before SEAL").await;
        for old in 1..=nonce {
            store
                .mkdirs(&format!("{ROOT}/i{old}"), false)
                .await
                .unwrap();
        }
    }
    finish(&log, &store, "after twelve starts").await;
    assert_exactly_once(&log, &store, "after twelve starts");
}

#[tokio::test]
async fn review_1_4_a4_only_success_proves_that_a_part_has_left() {
    // The rename is made in memory, its answer lost, and a failover undoes it: the next NameNode
    // has the part in staging although it was seen under its final name.
    for change in 0.. {
        let (log, store) = (log(4), SimStore::perfect());
        store.plan(change, SimFault::LostUnjournaled);
        store.plan(change + 1, SimFault::StaleAfterFailover);
        let end = live(&log, &store, 1, Crash::never()).await;
        let what = format!("change {change}: {end:?}");
        if store.changes() <= change + 1 {
            break;
        }
        finish(&log, &store, &what).await;
        assert_exactly_once(&log, &store, &what);
    }
}

#[tokio::test]
async fn review_1_5_damage_that_may_hide_a_control_record_halts_and_is_not_called_a_clone() {
    let (log, store) = (log(4), SimStore::perfect());
    assert!(matches!(
        live(&log, &store, 1, Crash::never()).await,
        End::Clean
    ));
    let before = store.tree();
    {
        let mut log = log.lock().unwrap();
        log.damaged = true;
        log.next_epoch = 0;
    }
    let end = live(&log, &store, 2, Crash::never()).await;
    assert!(
        matches!(refused(&end), Some(PublishFailure::Damage { .. })),
        "{end:?}"
    );
    assert_eq!(store.tree(), before, "nothing in the store is changed");
}

#[tokio::test]
async fn a5_an_old_backup_is_refused() {
    let (log, store) = (log(8), SimStore::perfect());
    stop_at(&log, &store, 1, "before SEAL").await;
    let backup = copy(&log);
    stop_at(&log, &store, 2, "after DONE").await;
    // The copy has not been opened since, so the owner file cannot give it away if it is old too.
    backup.lock().unwrap().incarnations = log.lock().unwrap().incarnations.clone();
    let end = live(&backup, &store, 3, Crash::never()).await;
    assert!(
        matches!(refused(&end), Some(PublishFailure::OldBackup { .. })),
        "{end:?}"
    );
}

#[tokio::test]
async fn a5_of_two_copies_that_seal_the_same_epoch_one_wins() {
    let (z, store) = (log(4), SimStore::perfect());
    stop_at(&z, &store, 1, "after SEAL").await;
    let (mut a, mut b) = (
        Epoch::new(only_epoch(&z), "0123456789ab"),
        Epoch::new(only_epoch(&z), "0123456789ab"),
    );
    // One and the same attempt: whoever comes second finds it done, and no file is there twice.
    assert!(matches!(
        drive(&mut a, &store, true).await,
        Action::Finished { .. }
    ));
    let second = drive(&mut b, &store, true).await;
    assert!(!matches!(second, Action::Finished { .. }), "{second:?}");
    assert_eq!(b.state(), State::Halted);
}

#[tokio::test]
async fn a10_a_sealed_epoch_of_a_removed_sink_is_published_at_its_recorded_paths() {
    for point in ["after SEAL", "after CLAIMED"] {
        let (log, store) = (log(2), SimStore::perfect());
        stop_at(&log, &store, 1, point).await;
        log.lock().unwrap().events.truncate(2);
        let finals: Vec<_> = only_epoch(&log)
            .parts
            .into_iter()
            .map(|p| p.final_path)
            .collect();
        // No sink at all is configured now.
        let end = live_with(&log, &store, 2, Crash::never(), None).await;
        assert!(matches!(end, End::Clean), "{end:?}");
        let tree = store.tree();
        for path in finals {
            assert!(tree.iter().any(|(p, _)| *p == path), "{path}");
        }
    }
}

#[tokio::test]
async fn a_fast_consumer_is_not_taken_for_loss() {
    let (log, store) = (log(2), SimStore::perfect());
    stop_at(&log, &store, 1, "before DONE").await;
    for part in only_epoch(&log).parts {
        assert!(store.consume(&part.final_path).is_some());
    }
    assert!(matches!(
        live(&log, &store, 2, Crash::never()).await,
        End::Clean
    ));
    assert!(log.lock().unwrap().epochs.is_empty());
}

#[tokio::test]
async fn a_claimed_directory_that_somebody_deleted_halts_the_epoch_alone() {
    let (log, store) = (log(4), SimStore::perfect());
    stop_at(&log, &store, 1, "after CLAIMED").await;
    let number = only_epoch(&log).epoch;
    let dir = sealed_dir("/base", "0123456789ab", number);
    assert!(store.delete(&dir, true).await.unwrap());
    let mut epoch = Epoch::new(only_epoch(&log), "0123456789ab");
    let end = drive(&mut epoch, &store, true).await;
    assert_eq!(end, Action::Halted(Halt::ClaimGone(dir)));
}

#[tokio::test]
async fn random_faults_and_crashes_in_any_mixture_lose_and_double_nothing() {
    for seed in 0..60 {
        let (log, store) = (log(13), SimStore::new(seed, SimFaults::harsh()));
        let mut what = format!("seed {seed}");
        for life in 0..4 {
            let crash = Crash::at((seed * 37 + life * 53) % 190);
            let run = live(&log, &store, life + 1, crash);
            let end = tokio::time::timeout(Duration::from_millis(400), run).await;
            what = format!("{what}, {:?}", end.map_err(|_| "killed"));
        }
        finish(&log, &store, &what).await;
        assert_exactly_once(&log, &store, &what);
    }
}
