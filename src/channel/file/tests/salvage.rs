//! `forebay wal salvage` on the simulated disk: what is kept of which damage, and a crash at every
//! step. `tests/rot_exhaustive.rs` salvages logs that are ruined at random.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::super::salvage::{
    PossiblyDelivered, Request, SalvageError, SalvageReport, Span, salvage_within,
};
use super::super::*;
use super::{ack, batch, runtime, take_all};
use crate::channel::TakeTransaction;
use crate::env::clock;
use crate::env::disk::WriteBackend;
use crate::env::disk_sim::SimDisk;

fn dirs() -> Vec<PathBuf> {
    ["/a", "/b"].map(PathBuf::from).to_vec()
}

fn to() -> PathBuf {
    PathBuf::from("/new/c1")
}

fn options(dirs: Vec<PathBuf>) -> FileChannelOptions {
    FileChannelOptions {
        data_dirs: dirs,
        max_file_size: 64 << 10,
        minimum_required_space: 1 << 20,
        keep_alive: Duration::from_secs(10),
        ..FileChannelOptions::default()
    }
}

fn try_open(disk: &SimDisk, dirs: Vec<PathBuf>) -> Result<Arc<FileChannel>, OpenError> {
    let disk = Arc::new(disk.clone());
    FileChannel::open("c1", options(dirs), disk, clock::system())
}

fn open(disk: &SimDisk) -> Arc<FileChannel> {
    try_open(disk, dirs()).unwrap()
}

fn request(possibly_delivered: PossiblyDelivered) -> Request {
    Request {
        dirs: dirs(),
        to: to(),
        possibly_delivered,
    }
}

fn run(disk: &SimDisk, request: &Request) -> Result<SalvageReport, SalvageError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let patience = Duration::from_millis(200);
    salvage_within(patience, &disk, &clock::system(), request, |_, _| {})
}

/// Salvages; the old log is what it was in every byte and name.
fn salvage(disk: &SimDisk, choice: PossiblyDelivered) -> SalvageReport {
    let before = old_log(disk);
    let report = run(disk, &request(choice)).unwrap();
    assert!(old_log(disk) == before, "INV-20: the old log was changed");
    report
}

fn old_log(disk: &SimDisk) -> Vec<(PathBuf, Vec<u8>)> {
    let files = disk.files().into_iter();
    let old = files.filter(|path| dirs().iter().any(|dir| path.starts_with(dir)));
    old.map(|path| (path.clone(), disk.content(&path).unwrap()))
        .collect()
}

/// Puts numbers `range`, four a transaction.
fn put(channel: &FileChannel, range: Range<u64>) {
    for first in range.step_by(4) {
        channel.commit_put_blocking(batch(first, 4, 700)).unwrap();
    }
}

/// 200 events over several segments of two directories, of which 10 are acknowledged.
fn log() -> SimDisk {
    let disk = SimDisk::default();
    let channel = open(&disk);
    put(&channel, 0..100);
    assert_eq!(ack(&channel, 10).len(), 10);
    put(&channel, 100..200);
    drop(channel);
    disk.kill()
}

fn segments(disk: &SimDisk) -> Vec<PathBuf> {
    let mut segments: Vec<PathBuf> = disk.files();
    segments.retain(|p| super::crash::is_segment(p));
    segments.sort_by_key(|p| p.file_name().unwrap().to_owned());
    segments
}

/// Offset of the body of event `number` (from 0) in its segment.
fn find(disk: &SimDisk, number: u64) -> (PathBuf, usize) {
    let text = format!("{number:08} ").into_bytes();
    let place = |path: &PathBuf| {
        let bytes = disk.content(path).unwrap();
        bytes.windows(9).position(|w| w == text)
    };
    let segments = segments(disk).into_iter().rev();
    let mut found = segments.filter_map(|path| Some((path.clone(), place(&path)?)));
    found.next().unwrap()
}

/// What the new channel holds, and its read position.
fn content(disk: &SimDisk) -> (Vec<u64>, String) {
    let channel = try_open(disk, vec![to()]).unwrap();
    let (numbers, lost) = take_all(&channel);
    assert!(lost.is_empty(), "{lost:?}");
    let position = channel.positions("").remove(0).value;
    (numbers, String::from_utf8_lossy(&position).into_owned())
}

fn spans(spans: &[Span]) -> Vec<(u64, u64)> {
    spans.iter().map(|s| (s.first, s.last)).collect()
}

fn kept(report: &SalvageReport) -> Vec<(u64, u64)> {
    report.kept.iter().map(|r| (r.first, r.last)).collect()
}

fn all(range: Range<u64>) -> Vec<u64> {
    range.collect()
}

#[test]
fn a_sound_log_comes_along_whole_with_its_positions_and_without_what_was_delivered() {
    let disk = log();
    let report = salvage(&disk, PossiblyDelivered::Keep);
    assert_eq!(kept(&report), [(11, 200)]);
    assert_eq!(report.kept[0].new_first, 1);
    assert_eq!(spans(&report.delivered), [(1, 10)]);
    assert!(report.is_complete() && report.tail.is_none(), "{report:?}");
    assert!(report.positions_complete && report.positions_before.is_empty());
    assert_ne!(report.old_channel, report.new_channel);
    assert_eq!(content(&disk), (all(10..200), "200".to_owned()));
    let again = run(&disk, &request(PossiblyDelivered::Keep)).unwrap();
    assert_eq!(again, report, "a repeated call tells what was done");
}

#[test]
fn without_any_snapshot_every_event_and_acknowledgement_that_is_left_counts() {
    let disk = log();
    for path in segments(&disk) {
        disk.flip(&path, 4096 + 70, 2).unwrap();
    }
    let error = try_open(&disk.kill(), dirs()).unwrap_err().to_string();
    assert!(
        error.contains("no segment has a readable snapshot"),
        "{error}"
    );
    let report = salvage(&disk, PossiblyDelivered::Keep);
    assert_eq!(kept(&report), [(11, 200)]);
    assert_eq!(spans(&report.delivered), [(1, 10)]);
    assert!(
        report.unknown.is_none() && report.is_complete(),
        "{report:?}"
    );
    assert_eq!(content(&disk), (all(10..200), "200".to_owned()));
}

#[test]
fn without_any_snapshot_and_the_first_segment_what_stood_before_is_unknown() {
    let disk = log();
    let segments = segments(&disk);
    disk.remove(&segments[0]).unwrap();
    for path in &segments[1..] {
        disk.flip(path, 4096 + 70, 2).unwrap();
    }
    let report = salvage(&disk, PossiblyDelivered::Keep);
    let unknown = report.unknown.unwrap();
    assert_eq!(unknown.first, 1);
    assert!(!report.positions_complete && !report.is_complete());
    assert_eq!(kept(&report).last().unwrap().1, 200);
    assert_eq!(kept(&report)[0].0, unknown.last + 1);
    assert_eq!(content(&disk).0, all(unknown.last..200));
}

#[test]
fn events_of_a_missing_segment_are_lost_by_name_and_the_rest_is_kept() {
    let disk = log();
    let segments = segments(&disk);
    assert_eq!(segments.len(), 3, "{segments:?}");
    disk.remove(&segments[1]).unwrap();
    let report = salvage(&disk, PossiblyDelivered::Keep);
    let [(first, last)] = spans(&report.lost)[..] else {
        panic!("{report:?}")
    };
    assert_eq!(kept(&report), [(11, first - 1), (last + 1, 200)]);
    let left = [all(10..first - 1), all(last..200)].concat();
    assert_eq!(content(&disk).0, left);
}

/// The salt of all but the newest segment stands in a later snapshot; that of the newest one is
/// found out from its frames.
#[test]
fn a_segment_without_its_headers_is_read_by_its_frames() {
    for newest in [false, true] {
        let disk = log();
        let segments = segments(&disk);
        let at = if newest { segments.len() - 1 } else { 1 };
        let len = disk.content(&segments[at]).unwrap().len();
        for at_header in [0, len - 4096] {
            disk.zero(&segments[at], at_header..at_header + 512)
                .unwrap();
        }
        let report = salvage(&disk, PossiblyDelivered::Keep);
        assert_eq!(kept(&report), [(11, 200)], "newest: {newest}");
        assert_eq!(report.salts_found.len(), usize::from(newest));
        assert_eq!(content(&disk), (all(10..200), "200".to_owned()));
    }
}

#[test]
fn either_copy_of_a_header_tells_the_salt() {
    for copy in [0, 1] {
        let disk = log();
        let newest = segments(&disk).pop().unwrap();
        let end = disk.content(&newest).unwrap().len();
        let at = [0, end - 4096][copy];
        disk.zero(&newest, at..at + 512).unwrap();
        let report = salvage(&disk, PossiblyDelivered::Keep);
        assert_eq!(report.salts_found, Vec::<u32>::new(), "copy {copy}");
        assert_eq!(kept(&report), [(11, 200)]);
    }
}

/// The snapshot behind it is lost too: the record of the start that followed it tells the salt.
#[test]
fn the_salt_of_a_segment_is_known_by_the_start_behind_it() {
    let disk = log().kill();
    put(&open(&disk), 200..204);
    let disk = disk.kill();
    let [.., before, newest] = &segments(&disk)[..] else {
        panic!("one segment");
    };
    let len = disk.content(before).unwrap().len();
    for at_header in [0, len - 4096] {
        disk.zero(before, at_header..at_header + 512).unwrap();
    }
    disk.flip(newest, 4096 + 70, 3).unwrap();
    let report = salvage(&disk, PossiblyDelivered::Keep);
    assert_eq!(report.salts_found, Vec::<u32>::new());
    assert_eq!(kept(&report), [(11, 204)]);
}

#[test]
fn an_unreadable_sector_and_a_cut_file_cost_what_stood_there() {
    let disk = log();
    let (path, at) = find(&disk, 30);
    let bad = at as u64 / 4096 * 4096;
    disk.fail_reads(&path, bad..bad + 4096).unwrap();
    let cut = segments(&disk).remove(1);
    let file = disk.open(&cut, true, WriteBackend::Pwrite).unwrap();
    file.truncate(40_000).unwrap();
    drop(file);
    let report = salvage(&disk, PossiblyDelivered::Keep);
    let lost = spans(&report.lost);
    assert!(
        lost.iter()
            .any(|(first, last)| (*first..=*last).contains(&31))
    );
    assert_eq!(lost.len(), 2, "{lost:?}");
    let is_left = |n: &u64| {
        !lost
            .iter()
            .any(|(first, last)| (*first..=*last).contains(n))
    };
    let left: Vec<u64> = (11..201).filter(is_left).map(|n| n - 1).collect();
    assert_eq!(content(&disk).0, left);
}

/// Seals the next events as an epoch.
fn seal(channel: &Arc<FileChannel>, events: usize) -> EpochRecord {
    let dynamic: Arc<dyn Channel> = Arc::clone(channel) as _;
    let mode = TakeMode::Staged { block_events: 1000 };
    let mut take = TakeTransaction::begin(dynamic, mode).unwrap();
    take.take(events, usize::MAX).unwrap();
    let request = SealRequest {
        last: take.held().unwrap().last,
        sink: "k1".into(),
        store: "hdfs://nn:8020".into(),
        base: "/out".into(),
        attempt: "/out/_staging/c/i1/a1".into(),
        parts: vec![crate::channel::EpochPart {
            staged_name: "p".into(),
            final_path: "/out/day/part-{epoch}".into(),
            count: 1,
            length: 1,
            crc32: 1,
        }],
    };
    runtime().block_on(take.seal(request)).unwrap()
}

#[test]
fn events_of_a_claimed_epoch_are_possibly_delivered_and_the_choice_decides() {
    let disk = SimDisk::default();
    let channel = open(&disk);
    put(&channel, 0..40);
    seal(&channel, 8);
    seal(&channel, 4);
    runtime().block_on(channel.journal().claimed(1)).unwrap();
    drop(channel);
    for choice in [PossiblyDelivered::Keep, PossiblyDelivered::LeaveOut] {
        let disk = disk.kill();
        let report = salvage(&disk, choice);
        let named: Vec<_> = report
            .possibly_delivered
            .iter()
            .map(|p| (p.first, p.last))
            .collect();
        assert_eq!(named, [(1, 8)], "only the claimed one: {report:?}");
        let first = match choice {
            PossiblyDelivered::Keep => 0,
            PossiblyDelivered::LeaveOut => 8,
        };
        assert_eq!(content(&disk).0, all(first..40));
        let epochs = &report.open_epochs;
        assert_eq!((epochs[0].claimed, epochs[1].claimed), (true, false));
        assert_eq!(
            epochs[0].files,
            ["hdfs://nn:8020/out/day/part-0000000000000001"]
        );
        let claim = format!("/sealed/e{:016}", 1);
        assert!(epochs[0].advice.contains(&claim), "{}", epochs[0].advice);
        assert!(!report.is_complete());
    }
}

#[test]
fn where_an_acknowledgement_has_rotted_only_what_it_could_name_is_doubtful() {
    let disk = SimDisk::default();
    let channel = open(&disk);
    put(&channel, 0..20);
    let rotten = channel.core.durable_end().offset() as usize;
    assert_eq!(ack(&channel, 6).len(), 6);
    put(&channel, 20..40);
    drop(channel);
    let disk = disk.kill();
    disk.flip(&segments(&disk)[0], rotten + 66, 0).unwrap();
    let report = salvage(&disk, PossiblyDelivered::LeaveOut);
    let doubtful: Vec<_> = report
        .possibly_delivered
        .iter()
        .map(|p| (p.first, p.last))
        .collect();
    assert_eq!(doubtful, [(1, 20)]);
    assert_eq!(spans(&report.left_out), [(1, 20)]);
    assert_eq!(content(&disk).0, all(20..40));
}

#[test]
fn a_torn_tail_may_hide_an_acknowledgement_and_events_and_both_are_named() {
    let disk = log();
    let newest = segments(&disk).pop().unwrap();
    let (_, at) = find(&disk, 199);
    disk.flip(&newest, at, 1).unwrap();
    let report = salvage(&disk, PossiblyDelivered::Keep);
    let tail = report.tail.clone().unwrap();
    assert_eq!(tail.possibly_acknowledged_from, 197);
    assert_eq!(report.possibly_delivered.len(), 1);
    assert_eq!(report.possibly_delivered[0].last, 196);
    // The position goes back with its events: the source sends them again.
    assert_eq!(content(&disk), (all(10..196), "196".to_owned()));
}

#[test]
fn a_log_that_has_lost_its_marker_is_known_by_its_headers() {
    let disk = log();
    for dir in dirs() {
        disk.remove(&dir.join("channel")).unwrap();
    }
    assert!(try_open(&disk.kill(), dirs()).is_err());
    let report = salvage(&disk, PossiblyDelivered::Keep);
    assert_eq!(kept(&report), [(11, 200)]);
    assert!(report.is_complete());
}

#[test]
fn of_two_directories_one_is_enough() {
    let disk = log();
    let only = Request {
        dirs: vec![dirs().remove(1)],
        ..request(PossiblyDelivered::Keep)
    };
    let report = run(&disk, &only).unwrap();
    assert!(report.kept_events() > 40, "{report:?}");
    let counted = report.kept_events()
        + report.lost.iter().map(Span::count).sum::<u64>()
        + report.delivered.iter().map(Span::count).sum::<u64>();
    assert_eq!(
        counted + report.unknown.map_or(0, |s| s.count()),
        report.next_sequence - 1
    );
}

/// INV-20: every step of the table in `salvage.rs`, stopped before each operation, by a kill and by
/// a power cut, and given again.
#[test]
fn a_salvage_that_was_cut_short_at_any_step_ends_the_same_when_it_is_given_again() {
    let base = log();
    let (path, at) = find(&base, 60);
    base.flip(&path, at, 1).unwrap();
    let before = old_log(&base);
    let (mut steps, mut refusals) = (0, 0);
    for cut in 1.. {
        let disk = base.kill();
        disk.cut_power_after(cut);
        if run(&disk, &request(PossiblyDelivered::Keep)).is_ok() {
            break;
        }
        steps += 1;
        for found in [disk.kill(), disk.crash(cut), disk.crash(cut + 1000)] {
            let context = format!("step {cut}");
            assert!(
                old_log(&found) == before,
                "{context}: the old log was changed"
            );
            let agent = found.kill();
            match agent.list(&to()) {
                // Before the first step an agent would begin a channel there.
                Err(_) => {}
                Ok(names) if names.iter().all(|n| n.name.starts_with("lock")) => {}
                Ok(names)
                    if names.iter().any(|n| n.name == "salvage.unfinished.new")
                        && names.len() <= 2 => {}
                Ok(_) => match try_open(&agent, vec![to()]) {
                    // The last step was done and not yet known to be.
                    Ok(channel) => assert_eq!(take_all(&channel).0.len(), 188, "{context}"),
                    Err(error) => {
                        refusals += 1;
                        let said = error.to_string();
                        assert!(said.contains("run it again"), "{context}: {said}");
                    }
                },
            }
            let done = run(&found, &request(PossiblyDelivered::Keep));
            let done = done.unwrap_or_else(|e| panic!("{context}: {e}"));
            assert_eq!(spans(&done.lost), [(61, 62)], "{context}");
            let left = [all(10..60), all(62..200)].concat();
            assert_eq!(content(&found), (left, "200".to_owned()), "{context}");
            assert!(
                old_log(&found) == before,
                "{context}: the old log was changed"
            );
        }
    }
    assert!(
        steps > 60 && refusals > 20,
        "{steps} steps, {refusals} refusals"
    );
}

#[test]
fn a_log_in_use_and_a_directory_that_is_not_empty_are_refused() {
    let disk = SimDisk::default();
    let channel = open(&disk);
    put(&channel, 0..4);
    let busy = run(&disk, &request(PossiblyDelivered::Keep)).unwrap_err();
    assert!(
        matches!(busy, SalvageError::Open(OpenError::InUse { .. })),
        "{busy}"
    );
    drop(channel);
    let inside = Request {
        to: dirs()[1].join("new"),
        ..request(PossiblyDelivered::Keep)
    };
    let before = disk.files();
    for wrong in [
        inside,
        Request {
            to: dirs().remove(0),
            ..request(PossiblyDelivered::Keep)
        },
    ] {
        let error = run(&disk, &wrong).unwrap_err();
        assert!(matches!(error, SalvageError::Usage { .. }), "{error}");
    }
    assert_eq!(disk.files(), before);
    salvage(&disk, PossiblyDelivered::Keep);
    let other = run(&disk, &request(PossiblyDelivered::LeaveOut)).unwrap_err();
    assert!(other.to_string().contains("another salvage"), "{other}");
    let nothing = run(&SimDisk::default(), &request(PossiblyDelivered::Keep));
    assert!(nothing.is_err(), "no log at all");
}

#[test]
fn a_log_that_a_store_has_refused_gives_up_what_the_other_copy_publishes() {
    let disk = SimDisk::default();
    let channel = open(&disk);
    put(&channel, 0..20);
    let refusal = super::super::super::journal::Refusal {
        by: "file:///out/_staging/c/owner.2-x".to_owned(),
        first: Seq(9),
    };
    runtime()
        .block_on(channel.journal().refuse(refusal))
        .unwrap();
    drop(channel);
    let report = salvage(&disk, PossiblyDelivered::LeaveOut);
    assert_eq!(spans(&report.left_out), [(1, 8)]);
    assert_eq!(content(&disk).0, all(8..20));
}
