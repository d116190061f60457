//! The simulated disk keeps its own model.

mod conformance;

use super::*;
use crate::env::disk::{Disk, DiskFile, WriteBackend};

const PWRITE: WriteBackend = WriteBackend::Pwrite;

fn dir() -> &'static Path {
    Path::new("/d")
}

fn path() -> &'static Path {
    Path::new("/d/segment-f")
}

/// A disk with a file of 8 KiB that is durable with its name.
fn file(disk: &SimDisk) -> Arc<dyn DiskFile> {
    disk.create_dir_all(dir()).unwrap();
    let file = disk.create_zeroed(path(), 8192, PWRITE).unwrap();
    disk.sync_dir(dir()).unwrap();
    file
}

fn first_bytes(disk: &SimDisk) -> BTreeSet<Vec<u8>> {
    let images = disk.every_crash();
    images
        .map(|image| {
            let bytes = image.content(path()).unwrap();
            vec![bytes[0], bytes[512], bytes[1024]]
        })
        .collect()
}

#[test]
fn unsynced_sectors_are_kept_or_dropped_one_by_one_at_any_version() {
    let disk = SimDisk::default();
    let f = file(&disk);
    f.store_at(0, &[&[1; 512], &[2; 512]]).unwrap();
    assert_eq!(first_bytes(&disk).len(), 4);
    for version in 3..20 {
        f.store_at(0, &[&[version; 100]]).unwrap();
    }
    let images = first_bytes(&disk);
    assert_eq!(images.len(), 19 * 2, "every version is kept");
    assert_eq!(disk.crash_states(), 19 * 2);
    f.store_at(0, &[&[19; 100]]).unwrap();
    assert_eq!(disk.crash_states(), 19 * 2, "the same bytes are no version");
    f.sync().unwrap();
    assert_eq!(first_bytes(&disk), BTreeSet::from([vec![19, 2, 0]]));
    assert_eq!(disk.pending(), 0);
}

#[test]
fn seeds_meet_every_mixture_and_cut_sectors_and_repeat_themselves() {
    let disk = SimDisk::default();
    let f = file(&disk);
    f.store_at(0, &[&[1; 512], &[2; 512]]).unwrap();
    let whole: BTreeSet<_> = disk
        .every_crash()
        .map(|d| d.content(path()).unwrap())
        .collect();
    let seeds = 0..200;
    let drawn: BTreeSet<_> = seeds
        .map(|s| disk.crash(s).content(path()).unwrap())
        .collect();
    assert!(drawn.is_superset(&whole));
    let cut = drawn.difference(&whole).next().unwrap();
    assert!(cut[..1024].contains(&0));
    for seed in 0..20 {
        let again = disk.crash(seed).content(path()).unwrap();
        assert_eq!(disk.crash(seed).content(path()).unwrap(), again);
    }
}

#[test]
fn nothing_or_all_of_what_is_pending_may_be_kept() {
    let disk = SimDisk::default();
    let f = file(&disk);
    f.store_at(0, &[&[1; 512]]).unwrap();
    f.store_at(0, &[&[0; 512]]).unwrap();
    f.store_at(512, &[&[2; 512]]).unwrap();
    disk.create_zeroed(Path::new("/d/g"), 512, PWRITE).unwrap();
    let none = disk.crash_as(Crash::DropAll);
    assert_eq!(none.files(), [path()]);
    assert_eq!(none.content(path()).unwrap(), [0; 8192]);
    let all = disk.crash_as(Crash::KeepAll);
    assert_eq!(all.files().len(), 2);
    let bytes = all.content(path()).unwrap();
    assert_eq!(
        (bytes[0], bytes[512]),
        (0, 2),
        "the newest, also where it was there before"
    );
}

#[test]
fn a_name_without_a_directory_sync_may_vanish() {
    let disk = SimDisk::default();
    disk.create_dir_all(dir()).unwrap();
    disk.create_zeroed(path(), 2048, PWRITE).unwrap();
    let found: Vec<bool> = disk
        .every_crash()
        .map(|d| d.content(path()).is_ok())
        .collect();
    assert_eq!(found, [false, true]);
    disk.sync_dir(dir()).unwrap();
    assert!(disk.every_crash().all(|d| d.content(path()).is_ok()));
    disk.remove(path()).unwrap();
    let found: Vec<usize> = disk.every_crash().map(|d| d.files().len()).collect();
    assert_eq!(found, [1, 0], "a removal too");
}

#[test]
fn changes_of_different_files_survive_in_any_order_and_those_of_one_in_theirs() {
    let disk = SimDisk::default();
    disk.create_dir_all(dir()).unwrap();
    for name in ["a", "b"] {
        let new = dir().join("x.new");
        disk.create_zeroed(&new, 512, PWRITE).unwrap();
        disk.rename(&new, &dir().join(name)).unwrap();
    }
    let names = |disk: &SimDisk| -> Vec<String> {
        let files = disk.files().into_iter();
        files
            .map(|p| p.file_name().unwrap().to_str().unwrap().to_owned())
            .collect()
    };
    // `b` used the name `x.new` after `a`, so it rests on what became of `a`.
    let found: Vec<_> = disk.every_crash().map(|d| names(&d)).collect();
    let expected: [&[&str]; 5] = [&[], &["x.new"], &["a"], &["a", "x.new"], &["a", "b"]];
    assert_eq!(found, expected);
    disk.sync_dir(dir()).unwrap();
    disk.remove(&dir().join("a")).unwrap();
    disk.remove(&dir().join("b")).unwrap();
    let found: BTreeSet<_> = disk.every_crash().map(|d| names(&d).concat()).collect();
    assert_eq!(found, ["", "a", "b", "ab"].map(String::from).into());
    let seeds = 0..300;
    let ordered: BTreeSet<_> = seeds.map(|s| names(&disk.crash(s)).concat()).collect();
    assert_eq!(ordered, found);
}

#[test]
fn a_directory_without_a_sync_of_its_parent_takes_its_files_with_it() {
    let disk = SimDisk::default();
    disk.create_dir_all(dir()).unwrap();
    disk.inject(Fault::io(Call::SyncDir).on("/d"));
    disk.create_dir_all(Path::new("/d/e")).unwrap_err();
    let below = Path::new("/d/e/f");
    disk.create_zeroed(below, 512, PWRITE).unwrap();
    disk.sync_dir(Path::new("/d/e")).unwrap();
    let found: Vec<usize> = disk.every_crash().map(|d| d.files().len()).collect();
    assert_eq!(found, [0, 1]);
    disk.create_dir_all(Path::new("/d/e")).unwrap();
    assert_eq!(disk.crash_as(Crash::DropAll).files(), [below]);
}

#[test]
fn lengths_wait_for_the_sync_of_their_file() {
    let disk = SimDisk::default();
    let f = file(&disk);
    f.store_at(0, &[&[7; 8192]]).unwrap();
    f.sync().unwrap();
    f.truncate(600).unwrap();
    let found: Vec<_> = disk
        .every_crash()
        .map(|d| d.content(path()).unwrap())
        .collect();
    assert_eq!(found, [vec![7; 8192], vec![7; 600]]);
    f.truncate(1024).unwrap();
    let mut grown = vec![7; 600];
    grown.resize(1024, 0);
    let found: Vec<_> = disk
        .every_crash()
        .map(|d| d.content(path()).unwrap())
        .collect();
    assert_eq!(found, [vec![7; 8192], vec![7; 600], grown.clone()]);
    f.sync().unwrap();
    assert_eq!(
        disk.crash_as(Crash::DropAll).content(path()).unwrap(),
        grown
    );
}

#[test]
fn a_file_that_was_being_made_has_any_length() {
    let disk = SimDisk::default();
    disk.create_dir_all(dir()).unwrap();
    disk.cut_power_after(3);
    disk.create_zeroed(path(), 8192, PWRITE).unwrap_err();
    let lens: Vec<_> = disk
        .every_crash()
        .map(|d| d.content(path()).map_or(0, |bytes| 1 + bytes.len()))
        .collect();
    assert_eq!(lens, [0, 1, 4097, 8193], "no name, then empty, half, whole");
}

#[test]
fn after_a_failed_sync_the_cache_shows_what_the_disk_never_gets() {
    let disk = SimDisk::default();
    let f = file(&disk);
    f.store_at(0, &[&[9; 512]]).unwrap();
    disk.fail_syncs(1);
    assert!(f.sync().is_err());
    assert_eq!(disk.content(path()).unwrap()[0], 9);
    f.sync().unwrap();
    assert_eq!(first_bytes(&disk), BTreeSet::from([vec![0, 0, 0]]));
    let same_kernel = disk.kill();
    assert_eq!(same_kernel.content(path()).unwrap()[0], 9);
    assert_eq!(first_bytes(&same_kernel), BTreeSet::from([vec![0, 0, 0]]));
    f.store_at(4096, &[&[1; 512]]).unwrap();
    f.sync().unwrap();
    assert_eq!(first_bytes(&disk), BTreeSet::from([vec![0, 0, 0]]));
    f.store_at(1024, &[&[5; 512]]).unwrap();
    f.sync().unwrap();
    let whole_page = BTreeSet::from([vec![9, 0, 5]]);
    assert_eq!(first_bytes(&disk), whole_page, "pages are written whole");
}

#[test]
fn a_failed_sync_may_reach_the_disk_in_part_and_write_back_fails_unheard() {
    let mut reached = BTreeSet::new();
    for seed in 0..40 {
        let disk = SimDisk::default();
        let f = file(&disk);
        f.store_at(0, &[&[1; 512], &[2; 512]]).unwrap();
        disk.inject(Fault::sync_in_part(seed));
        assert!(f.sync().is_err());
        f.sync().unwrap();
        let left = first_bytes(&disk);
        assert_eq!(left.len(), 1, "what is there is there for good");
        reached.extend(left);
    }
    assert_eq!(reached.len(), 4);
    let disk = SimDisk::default();
    let f = file(&disk);
    f.store_at(0, &[&[1; 512]]).unwrap();
    disk.fail_write_back();
    f.sync().unwrap();
    assert_eq!(disk.content(path()).unwrap()[0], 1);
    assert_eq!(first_bytes(&disk), BTreeSet::from([vec![0, 0, 0]]));
}

/// One failing call each, what it answers and what it leaves.
#[test]
fn any_call_can_be_told_to_fail_and_leaves_what_the_contract_says() {
    let disk = SimDisk::default();
    let f = file(&disk);
    let other = dir().join("g");
    disk.inject(Fault::no_space(Call::Create).on("/d/g"));
    let kind = |e: io::Error| e.kind();
    let create = || disk.create_zeroed(&other, 512, PWRITE).map_err(kind).err();
    assert_eq!(create(), Some(io::ErrorKind::StorageFull));
    disk.inject(Fault::no_space(Call::Fill).on("/d/g"));
    assert_eq!(create(), Some(io::ErrorKind::StorageFull));
    assert_eq!(disk.files(), [path()], "nothing is left behind");
    disk.inject(Fault::io(Call::Rename).after(1).times(2));
    disk.rename(path(), &other).unwrap();
    for _ in 0..2 {
        assert_eq!(
            disk.rename(&other, path()).unwrap_err().raw_os_error(),
            Some(5)
        );
    }
    disk.rename(&other, path()).unwrap();
    disk.inject(Fault::io(Call::Remove));
    disk.remove(path()).unwrap_err();
    disk.inject(Fault::io(Call::SyncDir));
    disk.sync_dir(dir()).unwrap_err();
    disk.inject(Fault::no_memory());
    assert_eq!(f.map(0).map_err(kind), Err(io::ErrorKind::OutOfMemory));
    assert_eq!(f.slice(0, 1), None);
    disk.inject(Fault::short_store(700));
    f.store_at(100, &[&[3; 512], &[4; 512]]).unwrap_err();
    let bytes = disk.content(path()).unwrap();
    assert_eq!(
        (bytes[99], bytes[100], bytes[799], bytes[800]),
        (0, 3, 4, 0)
    );
    disk.inject(Fault::io(Call::Read));
    assert!(f.read_at(0, &mut [0]).is_err());
    f.read_at(0, &mut [0]).unwrap();
    disk.fail_reads(path(), 512..513).unwrap();
    assert!(f.read_at(0, &mut [0; 1024]).is_err());
    f.read_at(0, &mut [0; 512]).unwrap();
    let calls = [
        (Call::Open, disk.open(path(), false, PWRITE).err()),
        (Call::List, disk.list(dir()).err()),
    ];
    assert!(calls.iter().all(|(_, error)| error.is_none()));
    for (call, _) in calls {
        disk.inject(Fault::io(call));
    }
    assert!(disk.open(path(), false, PWRITE).is_err() && disk.list(dir()).is_err());
    assert_eq!(disk.faults_met(), 11);
}

#[test]
fn space_is_taken_and_given_back() {
    let disk = SimDisk::default();
    let f = file(&disk);
    disk.set_free(1000);
    let other = dir().join("g");
    let error = disk.create_zeroed(&other, 1001, PWRITE).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(disk.space(dir()).unwrap().free, 1000);
    f.truncate(8000).unwrap();
    disk.create_zeroed(&other, 1192, PWRITE).unwrap();
    assert_eq!(disk.space(dir()).unwrap().free, 0);
    disk.remove(&other).unwrap();
    assert_eq!(disk.space(dir()).unwrap().free, 1192);
}

#[test]
fn a_recorded_disk_can_be_crashed_before_each_of_its_operations() {
    let disk = SimDisk::default();
    let f = file(&disk);
    disk.record();
    f.store_at(0, &[&[1; 512]]).unwrap();
    f.sync().unwrap();
    disk.remove(path()).unwrap();
    let states: Vec<u64> = disk.recorded().iter().map(SimDisk::crash_states).collect();
    assert_eq!(states, [1, 2, 1]);
    assert_eq!(disk.crash_states(), 2);
}
