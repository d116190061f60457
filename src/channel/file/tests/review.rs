//! What a review of the file channel found: each test names the promise that did not hold.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::super::options::SPARES_RESERVED;
use super::super::*;
use super::{batch, take_all};
use crate::env::clock;
use crate::env::disk_sim::SimDisk;

fn options() -> FileChannelOptions {
    FileChannelOptions {
        data_dirs: vec![PathBuf::from("/data")],
        max_file_size: 64 << 10,
        minimum_required_space: 1 << 20,
        keep_alive: Duration::from_millis(200),
        ..FileChannelOptions::default()
    }
}

fn open_with(disk: &SimDisk, options: FileChannelOptions) -> Arc<FileChannel> {
    FileChannel::open("c1", options, Arc::new(disk.clone()), clock::system()).unwrap()
}

fn open(disk: &SimDisk) -> Arc<FileChannel> {
    open_with(disk, options())
}

fn put(channel: &FileChannel, first: u64, count: u64) -> Option<SeqRange> {
    channel
        .commit_put_blocking(batch(first, count, 700))
        .unwrap()
}

fn segments(disk: &SimDisk) -> Vec<PathBuf> {
    let mut paths = disk.files();
    paths.retain(|p| p.display().to_string().contains("segment-"));
    paths
}

fn range(first: u64, last: u64) -> SeqRange {
    SeqRange {
        first: Seq(first),
        last: Seq(last),
    }
}

/// INV-2, INV-9: the group behind the damage proves it, and is itself whole.
#[test]
fn rot_in_the_group_before_the_last_costs_that_group_and_not_the_last_one() {
    let disk = SimDisk::default();
    let channel = open(&disk);
    put(&channel, 0, 2);
    let rotten = channel.core.durable_end().offset();
    put(&channel, 2, 2);
    put(&channel, 4, 2);
    drop(channel);
    let killed = disk.kill();
    killed
        .flip(&segments(&killed)[0], rotten as usize + 200, 3)
        .unwrap();
    let channel = open(&killed);
    let (numbers, lost) = take_all(&channel);
    assert_eq!(numbers, [0, 1, 4, 5]);
    assert_eq!(lost, [range(3, 4)]);
    assert_eq!(put(&channel, 6, 1), Some(range(7, 7)));
}

/// INV-5, INV-9: the seal of a clean close proves the last group, so its loss is named and its
/// numbers are not given again.
#[test]
fn rot_in_the_last_group_before_a_seal_is_named_and_its_numbers_are_not_given_again() {
    let disk = SimDisk::default();
    let channel = open(&disk);
    put(&channel, 0, 2);
    let rotten = channel.core.durable_end().offset();
    put(&channel, 2, 2);
    channel.close().unwrap();
    drop(channel);
    disk.flip(&segments(&disk)[0], rotten as usize + 200, 3)
        .unwrap();
    let channel = open(&disk);
    assert_eq!(take_all(&channel), (vec![0, 1], vec![range(3, 4)]));
    assert_eq!(put(&channel, 4, 1), Some(range(5, 5)));
}

/// The same for a control record: nobody may believe that nothing was decided.
#[test]
fn rot_in_a_decision_before_the_last_group_is_reported_as_a_lost_decision() {
    let disk = SimDisk::default();
    let channel = open(&disk);
    put(&channel, 0, 4);
    let rotten = channel.core.durable_end().offset();
    assert_eq!(super::ack(&channel, 2), [0, 1]);
    channel.close().unwrap();
    drop(channel);
    disk.flip(&segments(&disk)[0], rotten as usize + 66, 3)
        .unwrap();
    let channel = open(&disk);
    assert!(channel.journal().control_may_be_lost());
}

fn full(disk: &SimDisk) -> Arc<FileChannel> {
    let small = FileChannelOptions {
        byte_capacity: Some(10 * (64 << 10)),
        keep_alive: Duration::from_millis(50),
        ..options()
    };
    let channel = open_with(disk, small);
    let mut refused = 0;
    // A refusal may come of a preparer that is behind; a full log refuses for ever.
    while refused < 5 {
        let full = channel.commit_put_blocking(batch(0, 3, 700)).is_err();
        refused += usize::from(full);
    }
    assert_eq!(channel.core.spares.available(), SPARES_RESERVED);
    channel
}

/// Promise 4: producers that pass admission at the same moment do not share the same room, so
/// that the one who comes second does not roll onto the reserve.
#[test]
fn room_that_was_promised_to_one_put_is_not_promised_to_another() {
    let channel = full(&SimDisk::default());
    let room = channel.core.active_room.load(Ordering::Acquire);
    assert!(room > 0 && channel.core.try_reserve(room, 1));
    assert!(!channel.core.try_reserve(room, 1));
}

/// Promise 4: a segment that an acknowledgement took from the reserve is not filled by puts.
#[test]
fn puts_do_not_fill_what_an_acknowledgement_took_from_the_reserve_of_a_full_log() {
    let channel = full(&SimDisk::default());
    for _ in 0..SPARES_RESERVED {
        let rolled = channel.core.roll(&mut channel.core.writer()).unwrap();
        assert!(rolled);
        let put = channel.commit_put_blocking(batch(0, 1, 100));
        assert!(matches!(put, Err(ChannelError::Full { .. })), "{put:?}");
    }
}

/// What a kill leaves to be copied fits a segment beside the snapshot, in every sync mode.
#[test]
fn a_segment_full_of_unsynced_events_can_be_copied_forward_after_a_kill() {
    for sync in [SyncMode::Os, SyncMode::Interval(Duration::from_secs(3600))] {
        let disk = SimDisk::default();
        let lazy = FileChannelOptions { sync, ..options() };
        let channel = open_with(&disk, lazy.clone());
        // Makes the next snapshot larger than the one of this segment.
        let position = Position {
            key: "r1/".to_owned() + &"long".repeat(500),
            value: "1".into(),
        };
        let positions = PutBatch {
            events: Vec::new(),
            positions: vec![position],
        };
        channel.commit_put_blocking(positions).unwrap();
        let mut events = 0;
        while channel.core.active_room.load(Ordering::Acquire) > 900 {
            put(&channel, events, 1);
            events += 1;
        }
        drop(channel);
        let channel = FileChannel::open("c1", lazy.clone(), Arc::new(disk.kill()), clock::system())
            .unwrap_or_else(|e| panic!("{sync:?}: {e}"));
        assert_eq!(take_all(&channel).0, (0..events).collect::<Vec<_>>());
    }
}

/// INV-1: a producer that comes late writes nothing behind the seal, where no open would look.
#[test]
fn nothing_is_acknowledged_behind_the_seal_of_a_closed_log() {
    let disk = SimDisk::default();
    let channel = open(&disk);
    put(&channel, 0, 2);
    assert!(channel.end_log(true).is_none());
    let late = channel.commit_put_blocking(batch(2, 2, 700)).is_ok();
    drop(channel);
    let found = take_all(&open(&disk.kill())).0.len();
    assert_eq!(found, if late { 4 } else { 2 });
}

/// INV-4: after a failed sync the kernel says Ok to the next one although the bytes are gone.
#[test]
fn a_failed_sync_is_never_repeated_by_whoever_holds_the_writer_next() {
    let disk = SimDisk::default();
    let lazy = FileChannelOptions {
        sync: SyncMode::Os,
        ..options()
    };
    let channel = open_with(&disk, lazy);
    put(&channel, 0, 2);
    while channel.core.spares.available() < 5 {
        std::thread::yield_now();
    }
    let mut writer = channel.core.writer();
    disk.fail_syncs(1);
    assert!(channel.core.sync_and_publish(&mut writer).is_err());
    let syncs = disk.syncs();
    assert!(channel.core.sync_and_publish(&mut writer).is_err());
    assert!(writer.write_seal().is_err());
    assert_eq!(disk.syncs(), syncs);
    drop(writer);
    assert_eq!(channel.core.state().next_sequence, 1);
}
