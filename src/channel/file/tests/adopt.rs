//! `forebay wal adopt` on the simulated disk: the right events, and a crash at every step.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::super::adopt::{AdoptError, Adoption, adopt_within};
use super::super::*;
use super::{batch, runtime, take_all};
use crate::channel::TakeTransaction;
use crate::channel::journal::Refusal;
use crate::env::clock::{self, Clock};
use crate::env::disk_sim::SimDisk;

fn dirs() -> Vec<PathBuf> {
    ["/a", "/b"].map(PathBuf::from).to_vec()
}

fn options() -> FileChannelOptions {
    FileChannelOptions {
        data_dirs: dirs(),
        max_file_size: 64 << 10,
        minimum_required_space: 1 << 20,
        keep_alive: Duration::from_secs(10),
        ..FileChannelOptions::default()
    }
}

fn try_open(disk: &SimDisk) -> Result<Arc<FileChannel>, OpenError> {
    FileChannel::open("c1", options(), Arc::new(disk.clone()), clock::system())
}

fn open(disk: &SimDisk) -> Arc<FileChannel> {
    try_open(disk).unwrap()
}

fn run_adopt(disk: &SimDisk) -> Result<Adoption, AdoptError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    adopt_within(Duration::from_millis(200), &disk, &clock::system(), &dirs())
}

fn put(channel: &FileChannel, first: u64, count: u64) {
    for at in (first..first + count).step_by(10) {
        let put = batch(at, count.min(10), 700);
        channel.commit_put_blocking(put).unwrap();
    }
}

fn refuse(channel: &FileChannel, first: u64) {
    let refusal = Refusal {
        by: "file:///out/_staging/c/owner.2-x".to_owned(),
        first: Seq(first),
    };
    runtime()
        .block_on(channel.journal().refuse(refusal))
        .unwrap();
}

/// 200 events over several segments; the store has refused the log from event 121 on. The last
/// ones come behind the refusal, and nobody has closed the log.
fn refused() -> SimDisk {
    let disk = SimDisk::default();
    let channel = open(&disk);
    for first in (0..180).step_by(4) {
        put(&channel, first, 4);
    }
    refuse(&channel, 121);
    put(&channel, 180, 20);
    drop(channel);
    disk.kill()
}

/// What a channel holds: numbers in the bodies, and the read position.
fn content(disk: &SimDisk) -> (Vec<u64>, String) {
    let channel = open(disk);
    let (numbers, lost) = take_all(&channel);
    assert!(lost.is_empty(), "{lost:?}");
    let position = channel.positions("").remove(0).value;
    (numbers, String::from_utf8_lossy(&position).into_owned())
}

fn channel_id(disk: &SimDisk) -> String {
    open(disk).journal().channel_id()
}

fn count(disk: &SimDisk, below: &Path) -> usize {
    let files = disk.files();
    files.iter().filter(|f| f.parent() == Some(below)).count()
}

#[test]
fn exactly_the_events_behind_the_parting_get_the_new_id() {
    let disk = refused();
    let old = channel_id(&disk.kill());
    let done = run_adopt(&disk).unwrap();
    assert_eq!((done.first, done.end, done.events), (121, 201, 80));
    assert_eq!(done.lost, []);
    assert!(done.old_channel.starts_with(&old));
    assert!(done.new_channel.starts_with(&channel_id(&disk.kill())));
    assert_ne!(done.old_channel, done.new_channel);
    let (numbers, position) = content(&disk);
    assert_eq!(numbers, (120..200).collect::<Vec<_>>());
    assert_eq!(position, "200", "what was read stays read");
    for dir in dirs() {
        assert_eq!(count(&disk, &dir.join("adopting")), 0);
        assert!(count(&disk, &dir.join(done.kept_in())) > 2, "the old log");
    }
}

/// A wall clock that nothing else shows.
#[derive(Debug)]
struct LongAgo;

impl Clock for LongAgo {
    fn wall_ms(&self) -> u64 {
        7
    }

    fn now(&self) -> Instant {
        Instant::now()
    }
}

#[test]
fn events_keep_the_time_of_their_put() {
    let disk = refused();
    let times = |channel: &Arc<FileChannel>, from: usize| {
        let dynamic: Arc<dyn Channel> = Arc::clone(channel) as _;
        let mut take = TakeTransaction::begin(dynamic, TakeMode::Batch).unwrap();
        let mut times = Vec::new();
        loop {
            let batch = take.take(1000, usize::MAX).unwrap();
            if batch.is_empty() {
                return times.split_off(from);
            }
            times.extend(batch.events.iter().map(|e| e.event.put_time_ms));
        }
    };
    let before = times(&open(&disk.kill()), 120);
    let port: Arc<dyn Disk> = Arc::new(disk.clone());
    let clock: Arc<dyn Clock> = Arc::new(LongAgo);
    adopt_within(Duration::from_secs(10), &port, &clock, &dirs()).unwrap();
    assert_eq!(times(&open(&disk), 0), before);
}

/// INV-12: every step of the table in `adopt.rs`, stopped before each operation, by a kill and by a
/// power cut, and given again.
#[test]
fn an_adoption_that_was_cut_short_at_any_step_ends_the_same_when_it_is_given_again() {
    let base = refused();
    let old = channel_id(&base.kill());
    let (mut steps, mut refusals, mut moving) = (0, 0, 0);
    for cut in 1.. {
        let disk = base.kill();
        disk.cut_power_after(cut);
        if run_adopt(&disk).is_ok() {
            break;
        }
        steps += 1;
        // Right behind the name of the step that moves the new log in, many ways to lose that name
        // and to keep what was moved.
        let is_moving = disk.files().iter().any(|p| p.ends_with("adopt.move"));
        moving += u64::from(is_moving);
        let seeds = if is_moving && moving <= 12 { 60 } else { 2 };
        let crashes = (0..seeds).map(|n| disk.crash(cut + 1000 * n));
        for found in std::iter::once(disk.kill()).chain(crashes) {
            let context = format!("step {cut}");
            match try_open(&found.kill()) {
                Ok(channel) if channel.journal().channel_id() == old => {}
                // The last step was done and not yet known to be.
                Ok(_) => assert_eq!(run_adopt(&found).unwrap().events, 80, "{context}"),
                Err(error) => {
                    refusals += 1;
                    let said = error.to_string();
                    assert!(said.contains("run it again"), "{context}: {said}");
                }
            }
            let done = run_adopt(&found).unwrap_or_else(|e| panic!("{context}: {e}"));
            assert_eq!((done.first, done.end, done.events), (121, 201, 80));
            let (numbers, position) = content(&found);
            assert_eq!(numbers, (120..200).collect::<Vec<_>>(), "{context}");
            assert_eq!(position, "200", "{context}");
            assert_eq!(run_adopt(&found).unwrap(), done, "{context}: and again");
        }
    }
    assert!(
        steps > 60 && refusals > 20,
        "{steps} steps, {refusals} refusals"
    );
}

#[test]
fn a_log_that_nobody_has_refused_is_left_alone() {
    let disk = SimDisk::default();
    let channel = open(&disk);
    put(&channel, 0, 4);
    let busy = run_adopt(&disk).unwrap_err();
    assert!(
        matches!(busy, AdoptError::Open(OpenError::InUse { .. })),
        "{busy}"
    );
    drop(channel);
    let before = disk.files();
    let error = run_adopt(&disk).unwrap_err();
    assert!(matches!(error, AdoptError::NotRefused { .. }), "{error}");
    assert_eq!(disk.files(), before);
    assert!(run_adopt(&SimDisk::default()).is_err(), "no log at all");
}

#[test]
fn a_refused_log_without_events_of_its_own_gets_an_id_and_keeps_its_positions() {
    let disk = SimDisk::default();
    let channel = open(&disk);
    put(&channel, 0, 4);
    refuse(&channel, 5);
    drop(channel);
    let done = run_adopt(&disk).unwrap();
    assert_eq!((done.first, done.end, done.events), (5, 5, 0));
    assert_eq!(content(&disk), (Vec::new(), "4".to_owned()));
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
        store: "file://".into(),
        base: "/out".into(),
        attempt: "/out/_staging/c/i1/a1".into(),
        parts: Vec::new(),
    };
    runtime().block_on(take.seal(request)).unwrap()
}

#[test]
fn what_is_acknowledged_stays_so_and_what_is_sealed_and_not_claimed_comes_along() {
    let disk = SimDisk::default();
    let channel = open(&disk);
    put(&channel, 0, 30);
    refuse(&channel, 6);
    assert_eq!(super::ack(&channel, 10).len(), 10);
    let epoch = seal(&channel, 10);
    assert_eq!((epoch.range.first, epoch.range.last), (Seq(11), Seq(20)));
    drop(channel);
    let done = run_adopt(&disk).unwrap();
    assert_eq!((done.first, done.end, done.events), (6, 31, 20));
    assert_eq!(content(&disk).0, (10..30).collect::<Vec<_>>());
}

#[test]
fn an_epoch_that_is_claimed_under_the_old_id_is_for_a_person_to_decide() {
    let disk = SimDisk::default();
    let channel = open(&disk);
    put(&channel, 0, 30);
    refuse(&channel, 6);
    seal(&channel, 10);
    runtime().block_on(channel.journal().claimed(1)).unwrap();
    drop(channel);
    let before = disk.files();
    let error = run_adopt(&disk).unwrap_err().to_string();
    assert!(error.contains("events 1 to 10"), "{error}");
    assert!(error.contains("forebay resolve 1"), "{error}");
    assert_eq!(disk.files(), before);
}

#[test]
fn events_that_damage_has_destroyed_are_named_and_the_rest_is_adopted() {
    let disk = refused();
    let segments: Vec<_> = disk
        .files()
        .into_iter()
        .filter(|p| super::crash::is_segment(p))
        .collect();
    // The segments are laid out over two directories; the last of each holds the newest events.
    let newest = segments.iter().max_by_key(|p| p.file_name()).unwrap();
    disk.flip(newest, 20_000, 3).unwrap();
    let done = run_adopt(&disk).unwrap();
    let lost: u64 = done.lost.iter().map(|(first, last)| last - first + 1).sum();
    assert!(lost > 0, "{done:?}");
    assert_eq!(done.events + lost, 80);
    let (first, last) = done.lost[0];
    let left = (121..201).filter(|seq| *seq < first || *seq > last);
    let numbers: Vec<u64> = left.map(|seq| seq - 1).collect();
    assert_eq!(content(&disk).0, numbers);
}
