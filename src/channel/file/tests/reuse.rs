//! A disk on which nothing new can be made: dead segments are used again where they are.

use std::sync::Arc;

use super::super::examine::examine;
use super::super::*;
use super::findings::{SEGMENT, options};
use super::{batch, take_all};
use crate::env::clock;
use crate::env::disk_sim::{Call, Fault, SimDisk};

/// Full: not even the space of a deleted file can be had again.
fn full(disk: &SimDisk) -> SimDisk {
    let disk = disk.kill();
    disk.set_free(0);
    disk.inject(Fault::no_space(Call::Create).times(u32::MAX));
    disk
}

fn open(disk: &SimDisk) -> Result<Arc<FileChannel>, OpenError> {
    FileChannel::open("c1", options(), Arc::new(disk.clone()), clock::system())
}

/// A channel with three events whose reserve is whole.
fn begun() -> SimDisk {
    let disk = SimDisk::default();
    let channel = open(&disk).unwrap();
    channel.commit_put_blocking(batch(0, 3, 700)).unwrap();
    while channel.core.spares.available() < 6 {
        std::thread::yield_now();
    }
    drop(channel);
    disk
}

/// INV-19: a full disk opens as often as one likes.
#[test]
fn a_channel_starts_any_number_of_times_on_a_disk_where_nothing_new_can_be_made() {
    let mut disk = begun();
    for start in 0..30 {
        disk = full(&disk);
        let channel = open(&disk).unwrap_or_else(|e| panic!("start {start}: {e}"));
        assert_eq!(take_all(&channel).0, [0, 1, 2], "start {start}");
        // Its own threads may come to make the reserve whole, or not.
        if start % 3 == 0 {
            channel.core.reclaim();
            channel.core.prepare_next();
        }
        drop(channel);
    }
    let report = examine(&disk.kill(), &options().data_dirs, |_, _| {}).unwrap();
    assert!(report.is_sound(), "{:?}", report.damage);
}

/// INV-7: a file that is used again loses its name for ever before it loses a byte, so that a power
/// cut leaves no damaged segment behind. A cut during a start costs one prepared segment more, so
/// the start behind it is given some room.
#[test]
fn a_power_cut_at_any_step_of_a_reuse_leaves_a_sound_log_that_opens() {
    let mut disk = begun();
    let mut cuts = 0;
    for _ in 0..12 {
        let nothing_prepared = !names(&disk).contains("spare-");
        for cut in (1..).take_while(|_| nothing_prepared) {
            let cut_short = full(&disk);
            cut_short.cut_power_after(cut);
            let ended = open(&cut_short).is_ok();
            for seed in 0..6 {
                let found = cut_short.crash(seed);
                let report = examine(&found, &options().data_dirs, |_, _| {}).unwrap();
                let context = format!("cut {cut}, seed {seed}");
                assert!(report.is_sound(), "{context}: {:?}", report.damage);
                found.set_free(16 * SEGMENT);
                let channel = open(&found).unwrap_or_else(|e| panic!("{context}: {e}"));
                assert_eq!(take_all(&channel).0, [0, 1, 2], "{context}");
            }
            cuts += 1;
            if ended {
                break;
            }
        }
        disk = full(&disk);
        drop(open(&disk).unwrap());
    }
    assert!(
        cuts > 40,
        "{cuts} cuts, hardly any start found nothing prepared"
    );
}

/// INV-19: a reuse that fails at any of its calls costs room at most. The log stays sound, and no
/// segment stands in the table whose file has gone.
#[test]
fn an_error_at_any_call_of_a_reuse_leaves_a_sound_log_that_opens() {
    let mut disk = begun();
    let mut refused = 0;
    for _ in 0..12 {
        if !names(&disk).contains("spare-") {
            for (call, after) in calls() {
                let sick = full(&disk);
                sick.inject(Fault::io(call).after(after));
                let opened = open(&sick);
                refused += u32::from(opened.is_err());
                if let Ok(channel) = opened {
                    every_segment_has_its_file(&channel, &sick);
                }
                for found in [sick.kill(), sick.crash(u64::from(after))] {
                    let context = format!("{call:?} fails after {after}");
                    let report = examine(&found, &options().data_dirs, |_, _| {}).unwrap();
                    assert!(report.is_sound(), "{context}: {:?}", report.damage);
                    found.set_free(16 * SEGMENT);
                    let channel = open(&found).unwrap_or_else(|e| panic!("{context}: {e}"));
                    assert_eq!(take_all(&channel).0, [0, 1, 2], "{context}");
                }
            }
        }
        disk = full(&disk);
        drop(open(&disk).unwrap());
    }
    assert!(refused > 20, "only {refused} starts met their error");
}

/// The channel's own threads may delete some meanwhile.
fn every_segment_has_its_file(channel: &FileChannel, disk: &SimDisk) {
    let before = channel.core.table().segments.clone();
    let files = disk.files();
    let after = channel.core.table();
    for segment in before
        .iter()
        .filter(|s| after.by_number(s.number).is_some())
    {
        assert!(files.contains(&segment.path), "{:?} has gone", segment.path);
    }
}

fn calls() -> impl Iterator<Item = (Call, u32)> {
    let calls = [
        Call::Open,
        Call::Rename,
        Call::SyncDir,
        Call::Store,
        Call::Sync,
        Call::Remove,
    ];
    calls
        .into_iter()
        .flat_map(|call| (0..12).map(move |after| (call, after)))
}

fn names(disk: &SimDisk) -> String {
    let files = disk.files();
    files
        .iter()
        .map(|path| path.display().to_string())
        .collect()
}
