//! What may be believed after a crash, and for how long.

use super::super::super::options::{SPARES_AHEAD, SPARES_RESERVED};
use super::super::crash::{check, newest_segment, put_until_error};
use super::*;
use crate::env::disk_sim::{Call, Fault};

/// A1: what a reopening shows after a failed sync is on the medium, although the page cache
/// showed it before it was; and what is acknowledged behind it stands on firm ground.
#[test]
fn a1_nothing_is_believed_from_the_cache_after_a_failed_sync() {
    let mut met = 0;
    for seed in 0..100 {
        let disk = SimDisk::default();
        let channel = open(&disk);
        put_until_error(&channel, 0, 4);
        while channel.core.spares.available() < SPARES_RESERVED + SPARES_AHEAD {
            std::thread::yield_now();
        }
        disk.fail_syncs(1);
        met += u32::from(channel.commit_put_blocking(batch(8, 2, 700)).is_err());
        drop(channel);
        let again = disk.kill();
        let channel = open(&again);
        let seen = take_all(&channel).0.len() as u64;
        assert!((8..=10).contains(&seen), "seed {seed}: {seen}");
        let later = 2 * put_until_error(&channel, seen, 3);
        drop(channel);
        let all = seen + later;
        check(&again.crash(seed), all, all, &format!("seed {seed}"));
    }
    assert!(met > 50, "only {met} failures met a commit");
}

/// A2: the segments that held a position, an acknowledgement and an epoch are gone, the newest
/// snapshot is rotten: all three are still known.
#[test]
fn a2_state_outlives_the_segments_that_held_it_and_one_snapshot() {
    let disk = SimDisk::default();
    let channel = open(&disk);
    let idle = Position {
        key: "r1/idle".into(),
        value: "4711".into(),
    };
    let batch_of_positions = PutBatch {
        events: Vec::new(),
        positions: vec![idle],
    };
    channel.commit_put_blocking(batch_of_positions).unwrap();
    put(&channel, 0, 10);
    let epoch = seal(&channel, 10).epoch;
    runtime().block_on(channel.journal().done(epoch)).unwrap();
    let first = segments(&disk).remove(0);
    roll(&channel);
    put(&channel, 10, 5);
    for _ in 0..4 {
        roll(&channel);
    }
    assert!(!segments(&disk).contains(&first), "deleted");
    drop(channel);
    let killed = disk.kill();
    killed
        .flip(&newest_segment(&killed), 4096 + 100, 3)
        .unwrap();
    let channel = open(&killed);
    assert_eq!(channel.positions("r1/idle")[0].value, "4711");
    assert_eq!(channel.journal().next_epoch(), epoch + 1);
    assert_eq!(take_all(&channel).0, numbers(10..15));
    assert_eq!(put(&channel, 15, 1), Some(range(16, 16)));
}

/// A2: a segment in the middle holds the acknowledgement of events of an older one that is still
/// needed; once it is gone they do not come back.
#[test]
fn a2_acknowledgements_in_a_deleted_middle_segment_are_not_forgotten() {
    let disk = SimDisk::default();
    let channel = open(&disk);
    put(&channel, 0, 10);
    let held = channel.open_lease(TakeMode::Batch).unwrap();
    assert_eq!(
        channel.lease_take(held, 1, 1 << 20).unwrap().events.len(),
        1
    );
    roll(&channel);
    let middle = segments(&disk).remove(1);
    assert_eq!(super::super::ack(&channel, 9), numbers(1..10));
    for _ in 0..4 {
        roll(&channel);
    }
    assert!(!segments(&disk).contains(&middle), "deleted");
    drop(channel);
    assert_eq!(take_all(&open(&disk.kill())).0, [0]);
}

/// A6: a backlog is read by pread, where a bad sector is an answer and not a signal; only the
/// newest segments are mapped.
#[test]
fn a6_a_bad_sector_in_the_backlog_of_a_running_channel_is_named() {
    let disk = SimDisk::default();
    let channel = open(&disk);
    let all = 2 * put_until_error(&channel, 0, 200);
    let mapped: Vec<bool> = channel
        .core
        .table()
        .segments
        .iter()
        .map(|s| s.hot.is_some())
        .collect();
    assert!(mapped.len() > 3 && !mapped[0], "{mapped:?}");
    assert!(mapped.iter().filter(|m| **m).count() <= 2, "{mapped:?}");
    disk.fail_reads(&segments(&disk)[0], 20_000..20_001)
        .unwrap();
    let (found, lost) = take_all(&channel);
    let gone: u64 = lost.iter().map(|r| r.count()).sum();
    assert!(gone > 0 && gone < 20, "{lost:?}");
    assert_eq!(found.len() as u64 + gone, all);
}

/// Reads that go wrong and are right at the second look cost no event; where they go on to do so,
/// the take ends with an error and loses nothing, instead of looking again for ever.
#[test]
fn a6_a_passing_error_of_reading_loses_nothing_and_is_not_looked_at_for_ever() {
    let (mut passed, mut given_up) = (0, 0);
    for (every, pairs) in (3..9).flat_map(|every| [(every, 1), (every, 60)]) {
        let disk = SimDisk::default();
        let channel = open(&disk);
        let all = 2 * put_until_error(&channel, 0, 200);
        let oldest = segments(&disk).remove(0);
        let name = oldest.file_name().unwrap().to_str().unwrap();
        for pair in 0..pairs {
            let fault = Fault::io(Call::Read).on(name).after(pair * every);
            disk.inject(fault.times(2));
        }
        let dynamic: Arc<dyn Channel> = Arc::clone(&channel) as _;
        let mut take = TakeTransaction::begin(dynamic, TakeMode::Batch).unwrap();
        match take.take(777, 1 << 20) {
            Ok(batch) if batch.lost.is_empty() => passed += 1,
            // Both looks have met an error.
            Ok(_) => continue,
            Err(error) => {
                given_up += 1;
                assert!(error.to_string().contains("nothing is lost"), "{error}");
            }
        }
        drop(take);
        assert_eq!(channel.status().corrupt, 0);
        drop(channel);
        assert_eq!(
            take_all(&open(&disk.kill())),
            ((0..all).collect(), Vec::new())
        );
    }
    assert!(
        passed > 3 && given_up > 0,
        "{passed} passed, {given_up} given up"
    );
}

/// A12 and 1.5: rot in a SEAL is never taken for "nothing was decided": the staged sinks are told
/// to halt, sources go on.
#[test]
fn a12_rot_in_a_seal_is_a_lost_decision_and_sources_go_on() {
    let disk = SimDisk::default();
    let channel = open(&disk);
    put(&channel, 0, 10);
    let rotten = channel.core.durable_end().offset() as usize;
    seal(&channel, 4);
    put(&channel, 10, 1);
    put(&channel, 11, 1);
    drop(channel);
    let killed = disk.kill();
    killed.flip(&segments(&killed)[0], rotten + 70, 3).unwrap();
    let channel = open(&killed);
    assert!(channel.journal().control_may_be_lost());
    assert_eq!(put(&channel, 12, 1), Some(range(13, 13)));
}

/// A12: a hole that hides only events says so: no halt.
#[test]
fn a12_rot_in_events_is_known_to_hide_no_decision() {
    let disk = SimDisk::default();
    let channel = open(&disk);
    put(&channel, 0, 2);
    let rotten = channel.core.durable_end().offset() as usize;
    put(&channel, 2, 2);
    seal(&channel, 2);
    put(&channel, 4, 2);
    drop(channel);
    let killed = disk.kill();
    killed.flip(&segments(&killed)[0], rotten + 200, 3).unwrap();
    let channel = open(&killed);
    assert!(!channel.journal().control_may_be_lost());
    assert_eq!(channel.journal().open_epochs().len(), 1);
}

/// A15: no frame of a segment counts before the one before it with its seal: a power cut at every
/// step of a roll, with every mix of what reached the disk.
#[test]
fn a15_nothing_behind_a_roll_is_durable_before_the_sealed_segment() {
    for cut in 0..24 {
        let disk = SimDisk::default();
        let channel = open(&disk);
        let before = 2 * put_until_error(&channel, 0, 36);
        disk.cut_power_after(cut + 1);
        let acknowledged = before + 2 * put_until_error(&channel, before, 8);
        drop(channel);
        for seed in 0..8 {
            let context = format!("cut {cut} seed {seed}");
            check(
                &disk.crash(cut * 97 + seed),
                acknowledged,
                acknowledged + 2,
                &context,
            );
        }
    }
}

/// A15: rot in the last group that was acknowledged cannot be told from a torn tail without a
/// later proof; nothing is invented in its place. With the watermark of a quiet second behind it
/// it is damage, by name.
#[test]
fn a15_rot_in_the_last_acknowledged_group_is_named_once_anything_proves_it() {
    for proven in [false, true] {
        let disk = SimDisk::default();
        let channel = open(&disk);
        put(&channel, 0, 2);
        let rotten = channel.core.durable_end().offset() as usize;
        put(&channel, 2, 2);
        if proven {
            let mut writer = channel.core.writer();
            writer
                .write_group(&mut [Entry::record(Record::Watermark)])
                .unwrap();
            channel.core.sync_and_publish(&mut writer).unwrap();
        }
        drop(channel);
        let killed = disk.kill();
        killed.flip(&segments(&killed)[0], rotten + 200, 3).unwrap();
        let (found, lost) = take_all(&open(&killed));
        assert_eq!(found, [0, 1]);
        let named = if proven {
            vec![range(3, 4)]
        } else {
            Vec::new()
        };
        assert_eq!(lost, named);
    }
}

/// A16: sector 0 of every segment, sealed and active, is gone: everything is delivered.
#[test]
fn a16_a_zeroed_first_sector_costs_no_event() {
    let disk = SimDisk::default();
    let channel = open(&disk);
    let all = 2 * put_until_error(&channel, 0, 100);
    drop(channel);
    let killed = disk.kill();
    for path in segments(&killed) {
        let backend = crate::env::disk::WriteBackend::Pwrite;
        let file = killed.open(&path, true, backend).unwrap();
        file.store_at(0, &[&[0; 4096]]).unwrap();
    }
    assert_eq!(take_all(&open(&killed)), (numbers(0..all), Vec::new()));
}

/// 1.7: the one snapshot that covers a deleted segment rots; the one before it covers it too.
#[test]
fn f1_7_one_rotten_snapshot_never_costs_a_position() {
    for rolls in 1..6 {
        let disk = SimDisk::default();
        let channel = open(&disk);
        put(&channel, 0, 4);
        assert_eq!(super::super::ack(&channel, 4), numbers(0..4));
        for _ in 0..rolls {
            roll(&channel);
        }
        drop(channel);
        let killed = disk.kill();
        killed
            .flip(&newest_segment(&killed), 4096 + 100, 3)
            .unwrap();
        let channel = open(&killed);
        assert_eq!(channel.positions("r1/")[0].value, "4", "{rolls} rolls");
        assert_eq!(take_all(&channel).0, numbers(0..0), "{rolls} rolls");
        assert_eq!(put(&channel, 4, 1), Some(range(5, 5)), "{rolls} rolls");
    }
}

/// N4: a recovery changes no byte of an older segment but the zeros behind its end.
#[test]
fn n4_recovery_writes_into_no_old_segment() {
    for seed in 0..40 {
        let disk = SimDisk::default();
        let channel = open_with(&disk, lazy(SyncMode::Os));
        put_until_error(&channel, 0, 60);
        drop(channel);
        let crashed = disk.crash(seed);
        let before: Vec<_> = segments(&crashed)
            .into_iter()
            .map(|p| (content(&crashed, &p), p))
            .collect();
        drop(open(&crashed));
        for (old, path) in &before {
            let now = content(&crashed, path);
            assert_eq!(now, old[..now.len()], "seed {seed} {}", path.display());
            // What may be cut off: zeros, and the second copy of the header behind them.
            let cut = old[now.len()..].len().saturating_sub(4096);
            let zeros = &old[now.len()..now.len() + cut];
            assert!(zeros.iter().all(|b| *b == 0), "seed {seed}");
        }
    }
}
