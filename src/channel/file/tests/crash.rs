//! Crashes at every step, on the simulated disk: power cuts, cut recoveries, failed syncs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use wal_format::FrameKind;

use super::super::examine::examine;
use super::super::options::{SPARES_AHEAD, SPARES_RESERVED};
use super::super::salvage::{PossiblyDelivered, Request, salvage};
use super::super::simulation::SteppedChannel;
use super::super::*;
use super::planted::{put_stepped, roll, segment_files, small, stepped};
use super::{batch, take_all};
use crate::env::clock;
use crate::env::disk::{Disk, DiskFile, WriteBackend};
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

fn try_open(disk: &SimDisk) -> Result<Arc<FileChannel>, OpenError> {
    FileChannel::open("c1", options(), Arc::new(disk.clone()), clock::system())
}

fn open(disk: &SimDisk) -> Arc<FileChannel> {
    try_open(disk).unwrap()
}

/// Puts transactions of two events until one fails; returns how many were acknowledged.
pub(super) fn put_until_error(channel: &FileChannel, first: u64, most: u64) -> u64 {
    for done in 0..most {
        if channel
            .commit_put_blocking(batch(first + 2 * done, 2, 700))
            .is_err()
        {
            return done;
        }
    }
    most
}

/// The invariant of every crash test: the events are a gapless run from 0, hold everything that
/// was acknowledged, and no half transaction.
pub(super) fn check(disk: &SimDisk, acknowledged: u64, attempted: u64, context: &str) -> u64 {
    let channel = try_open(disk).unwrap_or_else(|e| panic!("{context}: {e}"));
    let (numbers, lost) = take_all(&channel);
    let count = numbers.len() as u64;
    assert_eq!(numbers, (0..count).collect::<Vec<_>>(), "{context}");
    assert!(lost.is_empty(), "{context}: lost {lost:?}");
    assert!(
        count >= acknowledged,
        "{context}: {count} of {acknowledged} acknowledged"
    );
    assert!(
        count <= attempted,
        "{context}: {count} of {attempted} attempted"
    );
    assert_eq!(count % 2, 0, "{context}: half a transaction");
    let position = channel.positions("").first().map(|p| p.value.clone());
    let position = position.map_or(0, |p| std::str::from_utf8(&p).unwrap().parse().unwrap());
    assert_eq!(
        position, count,
        "{context}: the position goes with its events"
    );
    count
}

/// INV-1, INV-2, INV-3: a power cut before any operation loses nothing that was acknowledged.
#[test]
fn a_power_cut_at_any_step_loses_nothing_acknowledged_and_invents_nothing() {
    let mut outcomes = BTreeSet::new();
    for cut in 1..260 {
        let disk = SimDisk::default();
        let channel = open(&disk);
        disk.cut_power_after(cut);
        let acknowledged = 2 * put_until_error(&channel, 0, 90);
        drop(channel);
        for seed in 0..3 {
            let crashed = disk.crash(cut * 31 + seed);
            let context = format!("cut {cut} seed {seed}");
            outcomes.insert(check(&crashed, acknowledged, acknowledged + 2, &context));
        }
    }
    assert!(outcomes.len() > 50, "the cuts fall in different places");
}

/// Row R4, and crashes in the recovery of a recovery.
#[test]
fn a_recovery_that_was_cut_short_is_done_again_from_the_old_segments() {
    for cut in 1..40 {
        for seed in 0..6 {
            let disk = SimDisk::default();
            let channel = open(&disk);
            let acknowledged = 2 * put_until_error(&channel, 0, 30);
            drop(channel);
            let once = disk.crash(seed);
            once.cut_power_after(cut);
            // Whether it opened depends on where the cut falls; both are fine.
            drop(try_open(&once));
            let twice = once.crash(seed + 100);
            twice.cut_power_after(cut / 2 + 1);
            drop(try_open(&twice));
            let context = format!("cut {cut} seed {seed}");
            check(
                &twice.crash(seed + 200),
                acknowledged,
                acknowledged,
                &context,
            );
        }
    }
}

/// INV-4 and INV-6: the failed group's fate is unknown to its producer, but after reopening it
/// is one thing for ever, whatever the page cache says.
#[test]
fn after_a_failed_sync_every_waiter_gets_the_error_and_reopening_believes_only_what_it_copied() {
    let mut tried = 0;
    for seed in 0..200 {
        let disk = SimDisk::default();
        let channel = open(&disk);
        let acknowledged = 2 * put_until_error(&channel, 0, 5);
        // The preparer syncs too; once it has nothing left to do, the failure meets the commit.
        while channel.core.spares.available() < SPARES_RESERVED + SPARES_AHEAD {
            std::thread::yield_now();
        }
        disk.fail_syncs(1);
        let Err(error) = channel.commit_put_blocking(batch(10, 2, 700)) else {
            // The thread that prepares segments syncs too, and has met the failure first.
            continue;
        };
        tried += 1;
        assert!(matches!(error, ChannelError::Poisoned { .. }), "{error}");
        let later = channel.commit_put_blocking(batch(12, 2, 700)).unwrap_err();
        assert!(
            matches!(later, ChannelError::Poisoned { .. }),
            "never retried: {later}"
        );
        drop(channel);
        // The same kernel: its cache still shows the failed group.
        let again = disk.kill();
        let seen = check(&again, acknowledged, acknowledged + 2, "reopened");
        let cut = again.crash(seed);
        let after = check(&cut, seen, seen, &format!("seed {seed}"));
        assert_eq!(
            seen, after,
            "what a reopening showed survives the power loss behind it"
        );
    }
    assert!(tried >= 100, "only {tried} of 200 failures met a commit");
}

/// Row R6.
#[test]
fn a_roll_that_was_cut_short_opens_from_the_sealed_segment() {
    let disk = SimDisk::default();
    let channel = open(&disk);
    let acknowledged = 2 * put_until_error(&channel, 0, 80);
    channel.close().unwrap();
    drop(channel);
    let newest = newest_segment(&disk);
    let file = disk.open(&newest, true, WriteBackend::Pwrite).unwrap();
    let len = usize::try_from(file.len()).unwrap();
    let torn = vec![0x5a; 700];
    blank(file.as_ref(), 4096, len - 8192);
    file.store_at(4096, &[&torn]).unwrap();
    file.sync().unwrap();
    let channel = open(&disk);
    let (numbers, _) = take_all(&channel);
    // The newest segment's own events are gone with it; what was sealed before is whole.
    assert!(!numbers.is_empty() && (numbers.len() as u64) < acknowledged);
    assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>());
}

/// Row R7.
#[test]
fn a_first_open_that_was_cut_short_is_a_fresh_channel() {
    for cut in 1..30 {
        for seed in 0..10 {
            let disk = SimDisk::default();
            disk.cut_power_after(cut);
            drop(try_open(&disk));
            let crashed = disk.crash(seed);
            let channel = open(&crashed);
            assert_eq!(put_until_error(&channel, 0, 3), 3, "cut {cut} seed {seed}");
            assert_eq!(take_all(&channel).0, [0, 1, 2, 3, 4, 5]);
        }
    }
}

/// Row R8.
#[test]
fn a_log_without_any_readable_snapshot_is_refused_untouched() {
    let disk = SimDisk::default();
    let channel = open(&disk);
    put_until_error(&channel, 0, 80);
    drop(channel);
    let segments: Vec<_> = disk
        .files()
        .into_iter()
        .filter(|p| p.display().to_string().contains("segment-"))
        .collect();
    for path in &segments {
        disk.flip(path, 4096 + 80, 3).unwrap();
    }
    let before = disk.operations();
    let error = try_open(&disk).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("no segment has a readable snapshot"),
        "{error}"
    );
    assert_eq!(disk.operations(), before, "nothing was touched");
}

/// Row R9: there is no older base to go back to.
#[test]
fn rot_in_the_first_incarnation_record_costs_no_event() {
    let disk = SimDisk::default();
    let channel = open(&disk);
    assert_eq!(put_until_error(&channel, 0, 2), 2);
    let first = channel.core.table().segments.last().unwrap().clone();
    drop(channel);
    let disk = disk.kill();
    let frames = super::review::frames(&disk, &first);
    let mut opened = frames
        .iter()
        .filter(|(_, header)| header.kind == FrameKind::Incarnation);
    let at = opened.next().unwrap().0.offset() as usize;
    disk.flip(&first.path, at + 70, 3).unwrap();
    assert_eq!(take_all(&open(&disk)).0.len(), 4);
}

/// A log killed with so many transactions in its first segment and opened again, into its second.
fn opened_twice(puts: u64) -> (SimDisk, segment::Segment, segment::Segment) {
    let newest = |channel: &FileChannel| channel.core.table().segments.last().unwrap().clone();
    let disk = SimDisk::default();
    let channel = open(&disk);
    put_until_error(&channel, 0, puts);
    let first = newest(&channel);
    drop(channel);
    let disk = disk.kill();
    let channel = open(&disk);
    let second = newest(&channel);
    drop(channel);
    (disk.kill(), first, second)
}

/// Row R8, INV-5: the segment before it is missing; of the open in it only the snapshot is left.
#[test]
fn the_only_segment_left_of_a_log_is_not_taken_for_a_first_open() {
    // Without events only its watermark tells of what was there before.
    for puts in [0, 2] {
        let (disk, first, second) = opened_twice(puts);
        disk.remove(&first.path).unwrap();
        let behind = super::review::frames(&disk, &second)[1].0.offset() as usize;
        disk.zero(&second.path, behind..behind + 4096).unwrap();
        let before = disk.operations();
        let error = try_open(&disk).unwrap_err().to_string();
        assert!(error.contains("nothing was touched"), "{error}");
        assert_eq!(disk.operations(), before);
    }
}

/// INV-9: nothing is left in the newest segment, or it has no length: its name alone tells that
/// there was a header at least.
#[test]
fn a_newest_segment_in_which_nothing_is_left_is_refused_untouched() {
    for len in [None, Some(0), Some(100)] {
        let (disk, _, second) = opened_twice(3);
        let end = disk.content(&second.path).unwrap().len();
        disk.zero(&second.path, 0..end).unwrap();
        if let Some(len) = len {
            let file = disk.open(&second.path, true, WriteBackend::Pwrite).unwrap();
            file.truncate(len).unwrap();
        }
        let before = disk.operations();
        let error = try_open(&disk).unwrap_err().to_string();
        assert!(error.contains("wal salvage"), "{len:?}: {error}");
        assert_eq!(disk.operations(), before, "nothing was touched");
        // What the error tells to do, and the other way: whoever takes it away has said so.
        let request = Request {
            dirs: options().data_dirs,
            to: "/new".into(),
            possibly_delivered: PossiblyDelivered::Keep,
        };
        let shared: Arc<dyn Disk> = Arc::new(disk.kill());
        let report = salvage(&shared, &clock::system(), &request, |_, _| {}).unwrap();
        assert_eq!(report.kept_events(), 6, "{len:?}: {report:?}");
        disk.remove(&second.path).unwrap();
        assert_eq!(take_all(&open(&disk)), ((0..6).collect(), Vec::new()));
    }
}

/// INV-9: no byte is bad where a file was cut between two frames, and no event behind it tells that
/// some are missing: only a watermark does, in a frame that nobody believes.
#[test]
fn a_file_cut_between_two_frames_below_what_was_durable_is_damage() {
    let (disk, first, second) = opened_twice(3);
    let opened = super::review::frames(&disk, &second);
    let is_open = |header: &wal_format::FrameHeader| header.kind == FrameKind::Incarnation;
    let own = opened
        .iter()
        .position(|(_, header)| is_open(header))
        .unwrap();
    let (at, header) = &opened[own];
    let behind = (at.offset() + header.frame_bytes()) as usize;
    disk.zero(&second.path, behind..60_000).unwrap();
    // Snapshot and copies: only the Incarnation is left, with a watermark.
    disk.zero(&second.path, 4096..at.offset() as usize).unwrap();
    let frames = super::review::frames(&disk, &first);
    let (cut, _) = &frames[frames.len() - 2];
    assert!(header.watermark > *cut);
    let file = disk.open(&first.path, true, WriteBackend::Pwrite).unwrap();
    file.truncate(u64::from(cut.offset())).unwrap();
    drop(file);
    let report = examine(&disk, &options().data_dirs, |_, _| {}).unwrap();
    let damage: Vec<_> = report
        .damage
        .iter()
        .map(|d| (d.segment, d.offset))
        .collect();
    assert_eq!(damage, [(first.number, cut.offset())]);
    assert_eq!(report.damage[0].lost, Some((3, 6)));
    let image = Arc::new(disk.kill());
    let stepped = SteppedChannel::open("c1", options(), image, clock::system()).unwrap();
    let found = (first.number, cut.offset(), None);
    assert_eq!(stepped.found().damage, [found]);
    let lost = SeqRange::new(Seq(3), Seq(6)).unwrap();
    assert_eq!(take_all(&open(&disk)), (vec![0, 1], vec![lost]));
}

/// INV-9: no crash puts a segment under the name of another one.
#[test]
fn a_segment_under_the_name_of_another_is_refused_untouched() {
    let disk = SimDisk::default();
    let channel = open(&disk);
    put_until_error(&channel, 0, 2);
    let mut named = channel.core.table().segments.last().unwrap().clone();
    drop(channel);
    let own = named.path.clone();
    named.path.set_file_name("segment-0000000007.wal");
    disk.rename(&own, &named.path).unwrap();
    let disk = disk.kill();
    let before = disk.operations();
    let error = try_open(&disk).unwrap_err().to_string();
    assert!(
        error.contains("-0000000007.wal: it holds segment 0"),
        "{error}"
    );
    assert_eq!(disk.operations(), before, "nothing was touched");
    disk.rename(&named.path, &own).unwrap();
    assert_eq!(take_all(&open(&disk)).0, [0, 1, 2, 3]);
}

/// Row R8: a first open that was cut short leaves a whole header and one segment.
#[test]
fn what_no_first_open_leaves_is_refused_although_no_frame_can_be_read() {
    let begun = |rolls: usize| {
        let disk = SimDisk::default();
        let channel = stepped(&disk);
        put_stepped(&channel, 0, 2);
        (0..rolls).for_each(|_| roll(&channel));
        drop(channel);
        disk.kill()
    };
    let opened = |disk: &SimDisk| {
        let options = small(&["/data"]);
        FileChannel::open("c1", options, Arc::new(disk.clone()), clock::system())
    };
    let refused = |disk: &SimDisk| {
        let error = opened(disk).unwrap_err().to_string();
        error.contains("no segment has a readable snapshot")
    };
    let disk = begun(0);
    for (path, end) in lengths(&disk) {
        disk.flip(&path, 40, 3).unwrap();
        disk.flip(&path, end - 4096 + 40, 3).unwrap();
    }
    let frames_tell = take_all(&opened(&disk).unwrap()).0;
    assert_eq!(frames_tell, [0, 1], "no copy of the header");
    let disk = begun(0);
    for (path, _) in lengths(&disk) {
        let file = disk.open(&path, true, WriteBackend::Pwrite).unwrap();
        file.truncate(4096).unwrap();
    }
    assert!(refused(&disk), "cut to its header");
    let disk = begun(0);
    for (path, end) in lengths(&disk) {
        disk.fail_reads(&path, 4096..end as u64 - 4096).unwrap();
    }
    assert!(refused(&disk), "unreadable");
    let disk = begun(0);
    for (path, _) in lengths(&disk) {
        disk.flip(&path, 4096 + 70, 3).unwrap();
    }
    assert!(refused(&disk), "a snapshot that a later frame proves");
    let disk = begun(1);
    for (path, end) in lengths(&disk) {
        let file = disk.open(&path, true, WriteBackend::Pwrite).unwrap();
        blank(file.as_ref(), 4096, end - 8192);
        file.store_at(4096, &[&[0x5a; 700]]).unwrap();
    }
    assert!(refused(&disk), "two segments");
}

fn lengths(disk: &SimDisk) -> Vec<(PathBuf, usize)> {
    let files = segment_files(disk).into_iter();
    let length = |path: &Path| disk.content(path).unwrap().len();
    files.map(|path| (path.clone(), length(&path))).collect()
}

/// INV-9: a sector that cannot be read is a report, not a signal and not a stop.
#[test]
fn a_bad_sector_in_a_cold_segment_is_reported_and_the_rest_is_delivered() {
    let disk = SimDisk::default();
    let channel = open(&disk);
    let acknowledged = 2 * put_until_error(&channel, 0, 200);
    drop(channel);
    let oldest = disk.files().into_iter().find(|p| is_segment(p)).unwrap();
    disk.fail_reads(&oldest, 20_000..20_001).unwrap();
    let channel = open(&disk);
    let (numbers, lost) = take_all(&channel);
    let gone: u64 = lost.iter().map(|r| r.count()).sum();
    assert!(gone > 0 && gone < 20, "{lost:?}");
    assert_eq!(numbers.len() as u64 + gone, acknowledged);
}

pub(super) fn is_segment(path: &Path) -> bool {
    path.display().to_string().contains("segment-")
}

pub(super) fn newest_segment(disk: &SimDisk) -> PathBuf {
    disk.files().into_iter().rfind(|p| is_segment(p)).unwrap()
}

fn blank(file: &dyn DiskFile, offset: u64, len: usize) {
    file.store_at(offset, &[&vec![0; len]]).unwrap();
}
