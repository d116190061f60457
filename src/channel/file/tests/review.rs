//! What a review of the file channel found: each test names the promise that did not hold.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use wal_format::{FrameHeader, FrameKind, Lsn};

use super::super::examine::examine;
use super::super::options::SPARES_RESERVED;
use super::super::simulation::SteppedChannel;
use super::super::*;
use super::{batch, runtime, take_all};
use crate::env::clock;
use crate::env::disk::Disk;
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
    let rolled = channel.core.roll(&mut channel.core.writer()).unwrap();
    assert!(rolled);
    let put = channel.commit_put_blocking(batch(0, 1, 100));
    assert!(matches!(put, Err(ChannelError::Full { .. })), "{put:?}");
}

/// INV-7: one snapshot is one sector away from being none.
#[test]
fn a_dead_segment_stays_until_two_later_snapshots_have_covered_it() {
    let disk = SimDisk::default();
    let channel = open_with(
        &disk,
        FileChannelOptions {
            keep_dead: Duration::ZERO,
            ..options()
        },
    );
    put(&channel, 0, 2);
    assert_eq!(super::ack(&channel, 2), [0, 1]);
    let oldest = segments(&disk).remove(0);
    for rolls in 1..=2 {
        assert!(segments(&disk).contains(&oldest), "before roll {rolls}");
        while !channel.core.roll(&mut channel.core.writer()).unwrap() {
            std::thread::yield_now();
        }
        channel.core.reclaim();
    }
    assert!(!segments(&disk).contains(&oldest));
}

/// What a kill leaves to be copied fits a segment beside the snapshot, in every sync mode.
#[test]
fn a_segment_full_of_unsynced_events_can_be_copied_forward_after_a_kill() {
    for sync in [SyncMode::Os, SyncMode::Interval(Duration::from_secs(3600))] {
        let disk = SimDisk::default();
        let lazy = FileChannelOptions { sync, ..options() };
        let channel = open_with(&disk, lazy.clone());
        let mut events = 0;
        // A segment that a roll has opened holds no Incarnation record; its copy needs room for
        // one more.
        while segments(&disk).len() < 2 || channel.core.active_room.load(Ordering::Acquire) > 900 {
            put(&channel, events, 1);
            events += 1;
        }
        let room = channel.core.active_room.load(Ordering::Acquire);
        let fits = |size: &usize| encode_put(batch(events, 1, *size), 1 << 10).bytes() <= room;
        let size = (9..900).rev().find(fits).unwrap();
        let last = batch(events, 1, size);
        channel.commit_put_blocking(last).unwrap();
        events += 1;
        assert!(channel.core.active_room.load(Ordering::Acquire) < 16);
        drop(channel);
        let channel = FileChannel::open("c1", lazy.clone(), Arc::new(disk.kill()), clock::system())
            .unwrap_or_else(|e| panic!("{sync:?}: {e}"));
        assert_eq!(take_all(&channel).0, (0..events).collect::<Vec<_>>());
    }
}

/// Segments were larger when it was written. A larger `maxFileSize` is all that it needs.
#[test]
fn a_tail_that_fits_no_segment_any_more_is_refused_before_anything_is_changed() {
    let large = FileChannelOptions {
        sync: SyncMode::Os,
        max_file_size: 1 << 20,
        ..options()
    };
    let disk = SimDisk::default();
    let channel = open_with(&disk, large.clone());
    for n in 0..60 {
        put(&channel, 2 * n, 2);
    }
    drop(channel);
    let disk = disk.kill();
    let (before, shared) = (disk.operations(), Arc::new(disk.clone()));
    let error = FileChannel::open("c1", options(), shared, clock::system()).unwrap_err();
    assert!(error.to_string().contains("raise maxFileSize"), "{error}");
    assert_eq!(disk.operations(), before, "nothing was touched");
    assert_eq!(take_all(&open_with(&disk, large)).0.len(), 120);
}

/// INV-10: the first roll would have ended the log, long after the open.
#[test]
fn positions_that_would_keep_the_log_from_rolling_are_refused_before_anything_is_changed() {
    let large = FileChannelOptions {
        max_file_size: 1 << 20,
        ..options()
    };
    let disk = SimDisk::default();
    let channel = open_with(&disk, large.clone());
    let mut many = batch(0, 2, 700);
    many.positions = (0..200)
        .map(|n| Position {
            key: format!("r1/{n:080}"),
            value: n.to_string().into(),
        })
        .collect();
    channel.commit_put_blocking(many).unwrap();
    drop(channel);
    let disk = disk.kill();
    let (before, shared) = (disk.operations(), Arc::new(disk.clone()));
    let error = FileChannel::open("c1", options(), shared, clock::system()).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("a quarter of a segment; raise maxFileSize"),
        "{error}"
    );
    assert_eq!(disk.operations(), before, "nothing was touched");
    assert_eq!(take_all(&open_with(&disk, large)).0.len(), 2);
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

/// What an open has left behind as torn stays unbelieved when the records rot that say so, also
/// when an open in between was cut short.
#[test]
fn a_torn_tail_is_not_believed_later_when_the_snapshot_that_ended_it_rots() {
    torn_tail_and_then_rot_in(FrameKind::Snapshot);
}

#[test]
fn a_torn_tail_is_not_believed_later_when_the_incarnation_that_ended_it_rots() {
    torn_tail_and_then_rot_in(FrameKind::Incarnation);
}

/// A log in which four events are synced, and what `more` puts behind them is not. Its segment.
fn four_synced(disk: &SimDisk, more: impl Fn(&FileChannel)) -> segment::Segment {
    let lazy = FileChannelOptions {
        sync: SyncMode::Os,
        ..options()
    };
    let channel = open_with(disk, lazy);
    put(&channel, 0, 4);
    let mut writer = channel.core.writer();
    channel.core.sync_and_publish(&mut writer).unwrap();
    drop(writer);
    let mut segment = channel.core.table().segments.last().unwrap().clone();
    more(&channel);
    segment.end = 60_000;
    segment
}

/// A frame of the log with this first event.
fn put_of(disk: &SimDisk, segment: &segment::Segment, sequence: u64) -> usize {
    let frames = frames(disk, segment);
    let mut puts = frames.iter().filter(|(_, h)| h.kind == FrameKind::Put);
    let found = puts.find(|(_, header)| header.sequence >= sequence);
    found.unwrap().0.offset() as usize
}

/// Opens the log, puts sixteen events more and makes the first blocks of the newest segment
/// unreadable: the snapshot, the copies, the Incarnation record and the first watermark of an open
/// often lie in one of them. What is whole behind them is delivered as it was put, and nothing
/// else but the first four events.
fn all_records_of_an_open_rot(disk: &SimDisk, check: impl Fn(&FileChannel)) {
    let channel = open(disk);
    for n in 2..10 {
        assert_eq!(put(&channel, 2 * n, 2), Some(range(2 * n + 1, 2 * n + 2)));
    }
    let newest = channel.core.table().segments.last().unwrap().clone();
    drop(channel);
    let frames = frames(disk, &newest);
    for bad_blocks in 1..3 {
        let disk = disk.kill();
        let bad = 4096..4096 * (bad_blocks + 1);
        let mut whole = frames.iter().filter(|(lsn, header)| {
            header.kind == FrameKind::Put && u64::from(lsn.offset()) >= bad.end
        });
        let first = whole.next().unwrap().1.sequence;
        assert!((6..18).contains(&first), "{first}");
        disk.fail_reads(&newest.path, bad).unwrap();
        for _ in 0..2 {
            let report = examine(&disk, &options().data_dirs, |_, _| {}).unwrap();
            let named: Vec<_> = report.damage.iter().filter_map(|d| d.lost).collect();
            assert_eq!(named, [(5, first - 1)], "{:?}", report.damage);
            let channel = open(&disk);
            let (found, lost) = take_all(&channel);
            let expected = (0..4).chain(first - 1..20).collect::<Vec<_>>();
            assert_eq!(found, expected);
            assert_eq!(lost, [range(5, first - 1)]);
            check(&channel);
        }
    }
}

/// INV-13: what was never acknowledged has the numbers of what was.
#[test]
fn a_torn_tail_is_not_believed_later_when_all_records_of_the_open_that_ended_it_rot() {
    for sealed in [false, true] {
        let disk = SimDisk::default();
        let old = four_synced(&disk, |channel| {
            for n in [4, 26, 28] {
                put(channel, n, 2);
            }
            if sealed {
                channel.core.writer().write_seal().unwrap();
            }
        });
        let disk = disk.kill();
        // The first two of them do not reach the disk.
        let torn = put_of(&disk, &old, 5);
        disk.flip(&old.path, torn + 200, 3).unwrap();
        if sealed {
            // An open that is short of space gives no end of a segment back.
            disk.set_free((1 << 20) + options().max_file_size - 1);
        }
        all_records_of_an_open_rot(&disk, |_| ());
        let cut = disk.content(&old.path).unwrap().len() < 1 << 16;
        assert_ne!(cut, sealed);
    }
}

/// INV-13: the front of a transaction that was torn is not believed either.
#[test]
fn half_a_transaction_is_not_believed_later_when_all_records_of_the_next_open_rot() {
    let disk = SimDisk::default();
    let old = four_synced(&disk, |channel| {
        channel.commit_put_blocking(batch(26, 100, 20)).unwrap();
    });
    let disk = disk.kill();
    let torn = put_of(&disk, &old, 6);
    disk.flip(&old.path, torn + 200, 3).unwrap();
    all_records_of_an_open_rot(&disk, |_| ());
}

/// INV-15: a recovery that was cut short has left the copy of the first of two positions.
#[test]
fn a_position_does_not_go_back_when_all_records_of_an_open_rot() {
    let at = |value: &str| PutBatch {
        events: Vec::new(),
        positions: vec![Position {
            key: "k".into(),
            value: value.to_owned().into(),
        }],
    };
    let disk = SimDisk::default();
    four_synced(&disk, |channel| {
        channel.commit_put_blocking(at("1")).unwrap();
        channel.commit_put_blocking(at("2")).unwrap();
    });
    let disk = disk.kill();
    let channel = open(&disk);
    let newest = channel.core.table().segments.last().unwrap().clone();
    drop(channel);
    let frames = frames(&disk, &newest);
    let mut puts = frames.iter().filter(|(_, h)| h.kind == FrameKind::Put);
    let second = puts.nth(1).unwrap().0.offset() as usize;
    disk.zero(&newest.path, second..16384).unwrap();
    all_records_of_an_open_rot(&disk.kill(), |channel| {
        assert_eq!(channel.positions("k")[0].value, "2");
    });
}

/// INV-9: it looked like one of an open or of a roll that was cut short.
#[test]
fn a_newest_segment_without_a_header_is_read_by_its_frames_or_refused() {
    for rolled in [false, true] {
        let disk = SimDisk::default();
        let channel = open(&disk);
        put(&channel, 0, 4);
        let (channel, disk) = if rolled {
            while !channel.core.roll(&mut channel.core.writer()).unwrap() {
                std::thread::yield_now();
            }
            (channel, disk)
        } else {
            drop(channel);
            let disk = disk.kill();
            (open(&disk), disk)
        };
        put(&channel, 4, 4);
        let newest = channel.core.table().segments.last().unwrap().clone();
        drop(channel);
        let disk = disk.kill();
        let end = disk.content(&newest.path).unwrap().len();
        for header in [0, end - 4096] {
            disk.zero(&newest.path, header..header + 512).unwrap();
        }
        let channel = open(&disk.kill());
        assert_eq!(take_all(&channel).0, (0..8).collect::<Vec<_>>());
        assert_eq!(put(&channel, 8, 2), Some(range(9, 10)));
        drop(channel);
        // Not even two of its frames are whole.
        for (lsn, _) in frames(&disk, &newest).iter().skip(1) {
            let at = lsn.offset() as usize + 8;
            disk.flip(&newest.path, at, 3).unwrap();
        }
        let image = disk.kill();
        let (before, shared) = (image.operations(), Arc::new(image.clone()));
        let error = FileChannel::open("c1", options(), shared, clock::system()).unwrap_err();
        assert!(error.to_string().contains("wal salvage"), "{error}");
        assert_eq!(image.operations(), before, "nothing was touched");
    }
}

/// INV-5: a segment is cut below what was durable, and of the open behind it a copy is left.
#[test]
fn numbers_that_only_a_frame_behind_the_lost_end_tells_are_not_given_again() {
    let disk = SimDisk::default();
    let channel = open(&disk);
    for n in 0..3 {
        put(&channel, 2 * n, 2);
    }
    let mut old = channel.core.table().segments.last().unwrap().clone();
    drop(channel);
    old.end = 60_000;
    let disk = disk.kill();
    let cut = put_of(&disk, &old, 3);
    let channel = open(&disk);
    let mut newest = channel.core.table().segments.last().unwrap().clone();
    drop(channel);
    newest.end = 60_000;
    for (lsn, header) in frames(&disk, &newest) {
        if header.kind != FrameKind::Put {
            disk.flip(&newest.path, lsn.offset() as usize + 8, 3)
                .unwrap();
        }
    }
    let len = disk.content(&old.path).unwrap().len();
    disk.zero(&old.path, cut..len).unwrap();
    let report = examine(&disk, &options().data_dirs, |_, _| {}).unwrap();
    let named = report.damage.iter().find_map(|damage| damage.lost);
    assert_eq!(named, Some((3, 6)), "{:?}", report.damage);
    let channel = open(&disk);
    assert_eq!(take_all(&channel).0, [0, 1]);
    let lost: Vec<_> = channel.core.state().lost.iter().collect();
    assert_eq!(lost, [(3, 6)]);
    assert_eq!(put(&channel, 6, 2), Some(range(7, 8)));
}

fn torn_tail_and_then_rot_in(kind: FrameKind) {
    let lazy = FileChannelOptions {
        sync: SyncMode::Os,
        ..options()
    };
    let mut cut_short = 0;
    for cut in 1..18 {
        let disk = SimDisk::default();
        let channel = open_with(&disk, lazy.clone());
        put(&channel, 0, 2);
        put(&channel, 2, 2);
        let torn = {
            let mut writer = channel.core.writer();
            channel.core.sync_and_publish(&mut writer).unwrap();
            writer.durable.offset() as usize
        };
        // Never synced; the first of them does not reach the disk, those behind it do.
        for n in 4..7 {
            put(&channel, 2 * n, 2);
        }
        drop(channel);
        let before = segments(&disk).len();
        let disk = disk.kill();
        disk.flip(&segments(&disk)[0], torn + 200, 3).unwrap();
        // Whether the preparer had spares ready is chance, and moves the cuts.
        for path in disk.files() {
            if path.display().to_string().contains("spare-") {
                disk.remove(&path).unwrap();
            }
        }
        disk.cut_power_after(cut);
        let image = Arc::new(disk.clone());
        let opened = SteppedChannel::open("c1", lazy.clone(), image, clock::system());
        cut_short += u64::from(opened.is_err() && segments(&disk).len() > before);
        drop(opened);
        let disk = disk.kill();
        let channel = open(&disk);
        assert_eq!(put(&channel, 4, 2), Some(range(5, 6)));
        let newest = channel.core.table().segments.last().unwrap().clone();
        drop(channel);
        let at = frames(&disk, &newest)
            .into_iter()
            .find(|(_, header)| header.kind == kind);
        let at = at.unwrap().0.offset() as usize;
        // Behind the header of the frame, in what every record of the kind has.
        disk.flip(&newest.path, at + 70, 3).unwrap();
        // Only what rots is damage: where the old segment ends is known.
        let image = Arc::new(disk.kill());
        let stepped = SteppedChannel::open("c1", options(), image, clock::system()).unwrap();
        let damaged = stepped.found().damage.into_iter().map(|(at, ..)| at);
        assert_eq!(damaged.collect::<Vec<_>>(), [newest.number], "cut {cut}");
        let found = take_all(&open(&disk.kill()));
        assert_eq!(found, ((0..6).collect(), Vec::new()), "cut {cut}");
    }
    assert!(cut_short > 0, "no cut left a segment without its snapshot");
}

/// INV-9: nothing of the newest segment can be believed, but a frame of it is whole and tells how
/// far the log was durable when it was written.
#[test]
fn a_watermark_behind_a_torn_frame_proves_what_lies_before_it() {
    let disk = SimDisk::default();
    let channel = open(&disk);
    put(&channel, 0, 2);
    put(&channel, 2, 2);
    let old = channel.core.table().segments.last().unwrap().clone();
    drop(channel);
    let disk = disk.kill();
    let channel = open(&disk);
    let mut new = channel.core.table().segments.last().unwrap().clone();
    // The last record of an open is not synced.
    new.end = 60_000;
    drop(channel);
    let disk = disk.kill();
    let puts = frames(&disk, &old);
    let puts = puts.iter().filter(|(_, h)| h.kind == FrameKind::Put);
    let proofs = frames(&disk, &new);
    let proofs = proofs
        .iter()
        .filter(|(_, h)| matches!(h.kind, FrameKind::Snapshot | FrameKind::Watermark));
    for (segment, (lsn, _)) in puts.map(|f| (&old, f)).chain(proofs.map(|f| (&new, f))) {
        let at = lsn.offset() as usize;
        disk.flip(&segment.path, at + 8, 3).unwrap();
    }
    let report = examine(&disk, &options().data_dirs, |_, _| {}).unwrap();
    assert_eq!(report.damage.len(), 1, "{:?}", report.damage);
    let opened = open::open_core("c1", options(), Arc::new(disk), clock::system());
    let (_, _, verdict) = opened.unwrap();
    let found = verdict.damage.iter().map(|d| (d.segment, d.offset));
    assert_eq!(found.collect::<Vec<_>>(), [(0, report.damage[0].offset)]);
}

/// INV-9: as where a segment in the middle is missing.
#[test]
fn events_of_an_oldest_segment_that_is_missing_are_lost_by_name_and_the_rest_is_delivered() {
    let disk = SimDisk::default();
    let channel = open(&disk);
    for n in 0..60 {
        put(&channel, 2 * n, 2);
    }
    let table = channel.core.table().segments.clone();
    let gone = table[1].first_sequence - 1;
    assert!(gone > 10);
    drop(channel);
    let disk = disk.kill();
    disk.remove(&table[0].path).unwrap();
    let (taken, lost) = take_all(&open(&disk));
    assert_eq!(taken, (gone..120).collect::<Vec<_>>());
    assert_eq!(lost, [range(1, gone)]);
}

pub(super) fn frames(disk: &SimDisk, segment: &segment::Segment) -> Vec<(Lsn, FrameHeader)> {
    let file = segment::open_cold(disk, segment).unwrap();
    let mut scanner = wal_format::Scanner::new(
        reader::Salvage(file.as_ref()),
        segment.number,
        segment.salt,
        wal_format::SEGMENT_HEADER_BYTES,
        segment.end,
        Lsn(0),
    );
    let mut frames = Vec::new();
    while let Ok(wal_format::Step::Frame { lsn, header, .. }) = scanner.step() {
        frames.push((lsn, header));
    }
    frames
}

fn request(last: u64) -> SealRequest {
    SealRequest {
        last: Seq(last),
        sink: "k1".into(),
        store: "file://".into(),
        base: "/out".into(),
        attempt: format!("/out/_staging/c/i1/a{last}"),
        parts: Vec::new(),
    }
}

/// INV-8: an epoch number is given once, also when the caller of the first SEAL went away.
#[test]
fn a_seal_whose_caller_went_away_keeps_its_number() {
    let disk = SimDisk::default();
    let channel = open(&disk);
    put(&channel, 0, 4);
    let staged = TakeMode::Staged { block_events: 100 };
    let lease = channel.open_lease(staged).unwrap();
    assert_eq!(
        channel.lease_take(lease, 10, 1 << 20).unwrap().events.len(),
        4
    );
    runtime().block_on(async {
        let writer = channel.core.writer();
        let mut first = Box::pin(channel.seal(lease, request(2)));
        assert!(poll_once(&mut first).is_none());
        drop(first);
        let mut second = Box::pin(channel.seal(lease, request(4)));
        assert!(poll_once(&mut second).is_none());
        drop(writer);
        assert_eq!(second.await.unwrap().epoch, 2);
    });
    let open: Vec<_> = channel.journal().open_epochs();
    assert_eq!(
        open.iter().map(|e| (e.epoch, e.range)).collect::<Vec<_>>(),
        [(1, range(1, 2)), (2, range(3, 4))]
    );
    // The same for DONE: the events of the epoch are not kept for ever.
    runtime().block_on(async {
        let writer = channel.core.writer();
        let journal = channel.journal();
        let mut done = Box::pin(journal.done(1));
        assert!(poll_once(&mut done).is_none());
        drop(done);
        drop(writer);
        journal.done(2).await.unwrap();
    });
    assert_eq!(channel.status().sealed_unpublished, 0);
}

/// Polls once, as a caller does that goes away afterwards.
fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::Pin::new(future).poll(&mut context) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

/// Promise 1: what is given back to the head can be read; where it cannot, nothing changes.
#[test]
fn an_epoch_with_a_deleted_segment_in_its_middle_is_not_given_up() {
    let disk = SimDisk::default();
    let channel = open(&disk);
    let held = channel.open_lease(TakeMode::Batch).unwrap();
    put(&channel, 0, 1);
    assert_eq!(
        channel.lease_take(held, 1, 1 << 20).unwrap().events.len(),
        1
    );
    let mut last = 1;
    while segments(&disk).len() < 5 {
        put(&channel, last, 10);
        last += 10;
    }
    let staged = TakeMode::Staged {
        block_events: 10_000,
    };
    let lease = channel.open_lease(staged).unwrap();
    let mut taken = 1;
    while taken < last {
        taken += channel
            .lease_take(lease, 10_000, 1 << 30)
            .unwrap()
            .events
            .len() as u64;
    }
    let (journal, runtime) = (channel.journal(), runtime());
    runtime
        .block_on(channel.seal(lease, request(last)))
        .unwrap();
    runtime.block_on(journal.claimed(1)).unwrap();
    let everything = segments(&disk);
    disk.set_free(0);
    // Short of space, the claimed epoch pins no segment; the first one holds an open take.
    while segments(&disk).contains(&everything[1]) {
        let _may_be_out_of_spares = channel.core.roll(&mut channel.core.writer()).unwrap();
        channel.core.reclaim();
        std::thread::yield_now();
    }
    assert!(segments(&disk).contains(&everything[0]));
    let refused = runtime.block_on(journal.abandon(1)).unwrap_err();
    assert!(refused.to_string().contains("deleted already"), "{refused}");
    assert_eq!(journal.open_epochs().len(), 1);
}

/// INV-2: the watermark moves with every group (one that is stuck proves nothing).
#[test]
fn the_watermark_of_each_group_is_the_end_of_the_group_before() {
    let disk = SimDisk::default();
    let channel = open(&disk);
    let mut ends = vec![channel.core.durable_end()];
    for n in 0..200 {
        put(&channel, n, 1);
        ends.push(channel.core.durable_end());
    }
    assert!(ends.windows(2).all(|w| w[0] < w[1]), "the end moves");
    let segment = channel.core.table().segments.last().unwrap().clone();
    drop(channel);
    let mut puts = 0;
    for (lsn, header) in frames(&disk, &segment) {
        if header.kind == FrameKind::Put {
            assert_eq!(header.watermark, lsn, "each put was a group of its own");
            puts += 1;
        }
    }
    assert!(puts > 10);
}

/// INV-6: a put that waits for capacity is woken by a staged take, not only by its deadline.
#[test]
fn a_staged_take_wakes_a_put_that_waits_for_capacity() {
    let dir = tempfile::tempdir().unwrap();
    let options = FileChannelOptions {
        capacity: 10,
        keep_alive: Duration::from_secs(600),
        ..super::options(dir.path())
    };
    let channel = super::open(&options);
    super::put(&channel, 0, 10);
    let producer = Arc::clone(&channel);
    let waiting = std::thread::spawn(move || super::put(&producer, 10, 5));
    let dynamic: Arc<dyn Channel> = Arc::clone(&channel) as _;
    let mode = TakeMode::Staged { block_events: 100 };
    let mut take = crate::channel::TakeTransaction::begin(dynamic, mode).unwrap();
    while channel.status().put_attempts < 15 {
        std::thread::yield_now();
    }
    #[allow(
        clippy::disallowed_methods,
        reason = "lets the producer reach its wait"
    )]
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(take.take(10, usize::MAX).unwrap().events.len(), 10);
    let start = Instant::now();
    while !waiting.is_finished() {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "the put was not woken"
        );
        std::thread::yield_now();
    }
    waiting.join().unwrap();
}
