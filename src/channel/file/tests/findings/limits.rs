//! Transactions, sync modes, room: what is whole, what may be taken, and that nothing wedges.

use super::super::super::options::SPARES_RESERVED;
use super::super::crash::check;
use super::*;

/// A11: the holder of a staged lease never seals; `capacity` alone makes nobody wait for ever.
#[test]
fn a11_staged_events_do_not_fill_the_capacity() {
    let disk = SimDisk::default();
    let small = FileChannelOptions {
        capacity: 10,
        ..options()
    };
    let channel = open_with(&disk, small);
    let dynamic: Arc<dyn Channel> = Arc::clone(&channel) as _;
    let mode = TakeMode::Staged {
        block_events: 1_000_000,
    };
    let mut take = TakeTransaction::begin(dynamic, mode).unwrap();
    for n in 0..200 {
        put(&channel, n * 5, 5);
        assert_eq!(take.take(5, usize::MAX).unwrap().events.len(), 5);
    }
    assert_eq!(take.held(), Some(range(1, 1000)));
}

/// A11: when bytes run short the oldest open epoch is asked to seal, and its claim gives room.
#[test]
fn a11_short_of_bytes_the_oldest_open_epoch_is_asked_to_seal() {
    let disk = SimDisk::default();
    let small = FileChannelOptions {
        byte_capacity: Some(10 * SEGMENT),
        keep_alive: Duration::from_millis(100),
        ..options()
    };
    let channel = open_with(&disk, small);
    let dynamic: Arc<dyn Channel> = Arc::clone(&channel) as _;
    let mode = TakeMode::Staged {
        block_events: 1_000_000,
    };
    let mut take = TakeTransaction::begin(dynamic, mode).unwrap();
    let (mut next, mut sealed) = (0, 0);
    while sealed < 5 {
        if channel.commit_put_blocking(batch(next, 5, 700)).is_ok() {
            next += 5;
        }
        while !take.take(1000, usize::MAX).unwrap().events.is_empty() {}
        if take.must_seal() {
            let last = take.held().unwrap().last;
            let journal = channel.journal();
            runtime().block_on(async {
                let epoch = take.seal(request(last)).await.unwrap().epoch;
                journal.claimed(epoch).await.unwrap();
                journal.done(epoch).await.unwrap();
            });
            sealed += 1;
        }
    }
    assert!(next > 300, "{next} events passed");
}

/// B19: a full disk, a pinned head, and any number of restarts: the log still opens and drains.
#[test]
fn b19_a_full_disk_survives_restarts_with_a_pinned_head_and_drains() {
    let disk = SimDisk::default();
    let small = FileChannelOptions {
        keep_alive: Duration::from_millis(1),
        ..options()
    };
    let channel = open_with(&disk, small.clone());
    let (mut next, mut refused) = (0, 0);
    while channel.core.spares.available() < SPARES_RESERVED {
        std::thread::yield_now();
    }
    disk.set_free(3 * SEGMENT);
    while refused < 20 {
        match channel.commit_put_blocking(batch(next, 2, 700)) {
            Ok(_) => next += 2,
            Err(ChannelError::Full { .. }) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    drop(channel);
    let mut disk = disk;
    for start in 0..1000 {
        disk = disk.kill();
        let channel =
            FileChannel::open("c1", small.clone(), Arc::new(disk.clone()), clock::system())
                .unwrap_or_else(|e| panic!("start {start}: {e}"));
        let held = channel.open_lease(TakeMode::Batch).unwrap();
        assert_eq!(
            channel.lease_take(held, 1, 1 << 20).unwrap().events.len(),
            1
        );
    }
    let channel = open_with(&disk.kill(), small);
    assert_eq!(super::super::ack(&channel, usize::MAX), numbers(0..next));
    let drained = Instant::now();
    while channel.commit_put_blocking(batch(next, 2, 700)).is_err() {
        assert!(drained.elapsed() < Duration::from_secs(60), "wedged");
    }
}

/// B20: a transaction of many frames is there as a whole or not at all, wherever the power is cut.
#[test]
fn b20_a_transaction_of_many_frames_is_whole_or_absent() {
    let wide = FileChannelOptions {
        max_file_size: 4 << 20,
        ..lazy(SyncMode::Os)
    };
    let mut outcomes = [0, 0];
    for seed in 0..60 {
        let disk = SimDisk::default();
        let channel = open_with(&disk, wide.clone());
        channel.commit_put_blocking(batch(0, 2, 700)).unwrap();
        // Six frames of one event each; nothing has synced them.
        channel.commit_put_blocking(batch(2, 6, 70 << 10)).unwrap();
        let writer = channel.core.writer();
        assert!(writer.unsynced_bytes > 400 << 10);
        drop(writer);
        let crashed = disk.crash(seed);
        drop(channel);
        let (found, lost) = take_all(&open_with(&crashed, wide.clone()));
        assert!(lost.is_empty(), "seed {seed}");
        assert!([0, 2, 8].contains(&found.len()), "seed {seed}: {found:?}");
        outcomes[usize::from(found.len() == 8)] += 1;
    }
    // One byte of it gone: all of it is gone, frame by frame.
    for frame in 0..6 {
        let disk = SimDisk::default();
        let channel = open_with(&disk, wide.clone());
        channel.commit_put_blocking(batch(0, 2, 700)).unwrap();
        let begin = channel.core.writer().active.tail as usize;
        channel.commit_put_blocking(batch(2, 6, 70 << 10)).unwrap();
        drop(channel);
        let killed = disk.kill();
        let at = begin + frame * (70 << 10) + 5000;
        killed.flip(&segments(&killed)[0], at, 1).unwrap();
        let (found, _) = take_all(&open_with(&killed, wide.clone()));
        assert_eq!(found, [0, 1], "frame {frame}");
    }
    assert!(outcomes[0] > 0, "{outcomes:?}");
}

/// B20: what can never fit is refused at once and changes nothing.
#[test]
fn b20_a_transaction_larger_than_a_segment_is_refused() {
    let disk = SimDisk::default();
    let channel = open(&disk);
    let refused = channel.commit_put_blocking(batch(0, 10, 10 << 10));
    assert!(
        matches!(refused, Err(ChannelError::TooLarge { .. })),
        "{refused:?}"
    );
    assert_eq!(put(&channel, 0, 1), Some(range(1, 1)));
    assert_eq!(take_all(&channel).0, [0]);
}

/// B21: a snapshot never says more than the disk held before it: no position ahead of its events
/// after a power cut, in the modes that answer before they sync.
#[test]
fn b21_a_position_is_never_ahead_of_its_events_in_any_sync_mode() {
    for sync in [SyncMode::Os, SyncMode::Interval(Duration::from_secs(3600))] {
        for seed in 0..60 {
            let disk = SimDisk::default();
            let channel = open_with(&disk, lazy(sync));
            for n in 0..30 + seed {
                put(&channel, 2 * n, 2);
            }
            let crashed = disk.crash(seed);
            drop(channel);
            let context = format!("{sync:?} seed {seed}");
            check(&crashed, 0, 2 * (30 + seed), &context);
        }
    }
}

/// B22 and 1.9: in every sync mode a take gets what is put, and what it got survives a power cut
/// under the same numbers.
#[test]
fn b22_what_a_sink_was_given_is_durable_in_every_sync_mode() {
    for sync in [
        SyncMode::Commit,
        SyncMode::Os,
        SyncMode::Interval(Duration::from_secs(3600)),
    ] {
        for seed in 0..20 {
            let disk = SimDisk::default();
            let channel = open_with(&disk, lazy(sync));
            put(&channel, 0, 6);
            let lease = channel.open_lease(TakeMode::Batch).unwrap();
            let taken = loop {
                let taken = channel.lease_take(lease, 4, 1 << 20).unwrap();
                if !taken.is_empty() {
                    break taken;
                }
                runtime().block_on(channel.wait_ready(Duration::from_secs(10)));
            };
            put(&channel, 6, 2);
            let crashed = disk.crash(seed);
            drop(channel);
            let channel = open_with(&crashed, lazy(sync));
            let lease = channel.open_lease(TakeMode::Batch).unwrap();
            let again = channel.lease_take(lease, 4, 1 << 20).unwrap();
            assert_eq!(taken, again, "{sync:?} seed {seed}");
        }
    }
}

/// INV-10, N3: the snapshot has a bound of its own; what would break it is refused before it is
/// written, and the log goes on.
#[test]
fn n3_positions_that_would_outgrow_the_snapshot_are_refused() {
    let disk = SimDisk::default();
    let channel = open(&disk);
    let position = |n: u64| PutBatch {
        events: Vec::new(),
        positions: vec![Position {
            key: format!("r1/{n:0100}"),
            value: "0".into(),
        }],
    };
    let mut accepted = 0;
    let refused = loop {
        match channel.commit_put_blocking(position(accepted)) {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
        assert!(accepted < 1000, "never refused");
    };
    assert!(matches!(refused, ChannelError::Full { .. }), "{refused}");
    // A known key may move, a forgotten one makes room, and the log rolls and opens.
    channel.commit_put_blocking(position(0)).unwrap();
    let mut forget = position(1);
    forget.positions[0].value = Default::default();
    channel.commit_put_blocking(forget).unwrap();
    channel.commit_put_blocking(position(accepted)).unwrap();
    roll(&channel);
    put(&channel, 0, 2);
    drop(channel);
    let channel = open(&disk.kill());
    assert_eq!(channel.positions("r1/0").len() as u64, accepted);
    assert_eq!(take_all(&channel).0, [0, 1]);
}

/// N5: SEAL takes the front of a lease; the rest stays leased under the same lease.
#[test]
fn n5_seal_takes_the_front_and_the_rest_stays_leased() {
    let disk = SimDisk::default();
    let channel = open(&disk);
    put(&channel, 0, 10);
    let dynamic: Arc<dyn Channel> = Arc::clone(&channel) as _;
    let mode = TakeMode::Staged { block_events: 100 };
    let mut take = TakeTransaction::begin(dynamic, mode).unwrap();
    take.take(10, usize::MAX).unwrap();
    let first = runtime().block_on(take.seal(request(Seq(4)))).unwrap();
    assert_eq!((first.epoch, first.range), (1, range(1, 4)));
    assert_eq!(take.held(), Some(range(5, 10)));
    let second = runtime().block_on(take.seal(request(Seq(10)))).unwrap();
    assert_eq!((second.epoch, second.range), (2, range(5, 10)));
}

/// N6: events that return at a crash may exceed the capacity; only new puts wait.
#[test]
fn n6_returned_events_may_exceed_the_capacity_and_only_new_puts_wait() {
    let disk = SimDisk::default();
    let small = FileChannelOptions {
        capacity: 10,
        keep_alive: Duration::from_millis(20),
        ..options()
    };
    let channel = open_with(&disk, small.clone());
    let mode = TakeMode::Staged { block_events: 1000 };
    let lease = channel.open_lease(mode).unwrap();
    for n in 0..6 {
        put(&channel, n * 5, 5);
        channel.lease_take(lease, 5, 1 << 20).unwrap();
    }
    drop(channel);
    let channel = open_with(&disk.kill(), small);
    assert_eq!(channel.status().waiting, 30);
    let refused = channel.commit_put_blocking(batch(30, 1, 700));
    assert!(
        matches!(refused, Err(ChannelError::Full { .. })),
        "{refused:?}"
    );
    assert_eq!(super::super::ack(&channel, 25), numbers(0..25));
    assert_eq!(put(&channel, 30, 5), Some(range(31, 35)));
    assert_eq!(take_all(&channel).0, numbers(25..35));
}
