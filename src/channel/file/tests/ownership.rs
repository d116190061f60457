//! Who has to wait for the stores, and what they have said.

use super::*;
use crate::channel::journal::{Opening, Refusal};

fn must_wait(channel: &FileChannel) -> bool {
    channel.journal().directory_changed()
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// INV-11, N8: a clone that was stopped before the verdict waits at its next start as well.
#[test]
fn n8_a_copied_log_waits_at_every_start_until_the_stores_have_said_that_it_is_the_owner() {
    let dir = tempfile::tempdir().unwrap();
    let channel = open(&options(dir.path()));
    put(&channel, 0, 10);
    assert!(!must_wait(&channel), "a fresh log");
    channel.close().unwrap();
    let channel = open(&options(dir.path()));
    assert!(!must_wait(&channel), "where it always lay");
    drop(channel);
    let copy = dir.path().join("copy");
    copy_dir(&dir.path().join("data"), &copy.join("data"));
    for start in 1..4 {
        let channel = open(&options(&copy));
        assert!(must_wait(&channel), "start {start} of the copy");
        drop(channel);
    }
    let channel = open(&options(&copy));
    runtime().block_on(channel.journal().owned()).unwrap();
    drop(channel);
    let channel = open(&options(&copy));
    assert!(!must_wait(&channel), "it is the owner here");
    drop(channel);
    let channel = open(&options(dir.path()));
    assert!(!must_wait(&channel), "the original has not moved");
    assert_eq!(take_all(&channel).0, all(0..10));
}

#[test]
fn a_refused_log_waits_at_its_next_start_until_the_stores_take_it_back() {
    let dir = tempfile::tempdir().unwrap();
    let channel = open(&options(dir.path()));
    put(&channel, 0, 10);
    assert_eq!(channel.journal().refusal(), None);
    let refuse = |channel: &FileChannel, first: u64| {
        let refusal = Refusal {
            by: "hdfs://nn/out/owner.2".to_owned(),
            first: Seq(first),
        };
        runtime()
            .block_on(channel.journal().refuse(refusal))
            .unwrap();
    };
    refuse(&channel, 4);
    refuse(&channel, 9);
    put(&channel, 10, 2);
    let words = channel.journal().refusal().unwrap();
    assert!(words.contains("events 4 to 12 are only"), "{words}");
    assert!(words.contains("forebay wal adopt /"), "{words}");
    drop(channel);
    let channel = open(&options(dir.path()));
    assert!(must_wait(&channel));
    let words = channel.journal().refusal().unwrap();
    assert!(words.contains("events 4 to 12 are only"), "{words}");
    runtime().block_on(channel.journal().owned()).unwrap();
    assert_eq!(channel.journal().refusal(), None);
    drop(channel);
    assert!(!must_wait(&open(&options(dir.path()))));
}

#[test]
fn openings_since_the_last_fence_are_told_with_their_next_sequence_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let openings = |channel: &FileChannel| -> Vec<(u32, u64)> {
        let told = channel.journal().openings();
        let plain = |o: &Opening| (o.incarnation.number, o.next.0);
        assert!(told.iter().all(|o| channel.journal().knows(o.incarnation)));
        told.iter().map(plain).collect()
    };
    let channel = open(&options(dir.path()));
    put(&channel, 0, 10);
    assert_eq!(openings(&channel), [(1, 1)], "not the number of now");
    drop(channel);
    let channel = open(&options(dir.path()));
    // Enough for another segment, so that not every segment begins with an opening.
    for first in (10..30_010).step_by(1000) {
        put(&channel, first, 1000);
    }
    drop(channel);
    let channel = open(&options(dir.path()));
    assert_eq!(openings(&channel), [(1, 1), (2, 11), (3, 30_011)]);
    runtime().block_on(channel.journal().fenced(2)).unwrap();
    drop(channel);
    let channel = open(&options(dir.path()));
    assert_eq!(openings(&channel), [(3, 30_011), (4, 30_011)]);
}

/// Row R4 with a repeated Incarnation record among the suspects: the copy of it does not stand for
/// the one that ends a recovery.
#[test]
fn a_recovery_that_copies_an_incarnation_is_complete_only_with_its_own() {
    use super::super::log::Entry;
    use crate::env::disk_sim::SimDisk;
    let options = FileChannelOptions {
        data_dirs: vec![PathBuf::from("/data")],
        max_file_size: 64 << 10,
        ..options(Path::new("/"))
    };
    let open = |disk: &SimDisk| {
        let disk = Arc::new(disk.clone());
        FileChannel::open("c1", options.clone(), disk, clock::system())
    };
    let disk = SimDisk::default();
    let channel = open(&disk).unwrap();
    put(&channel, 0, 10);
    {
        // One group: what a confirmed directory writes, and events that are acknowledged with it.
        let core = &channel.core;
        let repeated = Record::Incarnation(wal_format::Open {
            incarnation: core.incarnation.number,
            nonce: core.incarnation.nonce,
            identity: wal_format::Identity::default(),
            opened_at_ms: 0,
            previous: None,
        });
        let events = encode_put(batch(10, 20, 700), options.frame_body_target());
        let mut writer = core.writer();
        writer
            .write_group(&mut [Entry::record(repeated), events])
            .unwrap();
        core.sync_and_publish(&mut writer).unwrap();
    }
    drop(channel);
    for cut in 1..25 {
        for seed in 0..8 {
            let once = disk.kill();
            once.cut_power_after(cut);
            drop(open(&once));
            let channel = open(&once.crash(cut * 100 + seed)).unwrap();
            assert_eq!(take_all(&channel).0, all(0..30), "cut {cut} seed {seed}");
        }
    }
}
