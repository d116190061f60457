//! The same operations on the simulated and on the real disk: the same results, the same kinds of
//! errors, the same bytes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::SimDisk;
use super::super::crash::Random;
use crate::env::disk::{DirLock, Disk, DiskFile, WriteBackend};
use crate::env::disk_real::RealDisk;

/// What an operation shows.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Done,
    Failed(io::ErrorKind),
    Bytes(Vec<u8>),
    Entries(Vec<(String, u64, bool)>),
    Nothing,
}

fn seen(result: io::Result<()>) -> Seen {
    result.map_or_else(|e| Seen::Failed(e.kind()), |()| Seen::Done)
}

/// One disk and what a history holds of it.
struct Side {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    files: Vec<(PathBuf, Arc<dyn DiskFile>)>,
    locks: Vec<Box<dyn DirLock>>,
}

#[derive(Clone, Debug)]
enum Op {
    MakeDirs(&'static str),
    List(&'static str),
    Lock(&'static str),
    Unlock,
    Create(&'static str, u64, WriteBackend),
    Open(&'static str, bool, WriteBackend),
    Rename(&'static str, &'static str),
    Remove(&'static str),
    SyncDir(&'static str),
    Read(usize, u64, usize),
    Store(usize, u64, Vec<Vec<u8>>),
    Sync(usize),
    Map(usize),
    Unmap(usize),
    Slice(usize, u64, usize),
    Truncate(usize, u64),
    Len(usize),
}

impl Side {
    fn new(disk: Arc<dyn Disk>, root: &Path) -> Self {
        disk.create_dir_all(root).unwrap();
        Self {
            disk,
            root: root.to_owned(),
            files: Vec::new(),
            locks: Vec::new(),
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        match name {
            "." => self.root.clone(),
            name => self.root.join(name.strip_prefix("./").unwrap_or(name)),
        }
    }

    fn keep(&mut self, path: PathBuf, file: io::Result<Arc<dyn DiskFile>>) -> Seen {
        seen(file.map(|file| self.files.push((path, file))))
    }

    fn on_names(&mut self, op: &Op) -> Seen {
        match op {
            Op::MakeDirs(dir) => seen(self.disk.create_dir_all(&self.at(dir))),
            Op::List(dir) => match self.disk.list(&self.at(dir)) {
                Ok(entries) => {
                    let entries = entries.into_iter();
                    let mut entries: Vec<_> = entries
                        .map(|e| (e.name, if e.is_file { e.len } else { 0 }, e.is_file))
                        .collect();
                    entries.sort();
                    Seen::Entries(entries)
                }
                Err(error) => Seen::Failed(error.kind()),
            },
            Op::Lock(dir) => {
                let lock = self.disk.lock(&self.at(dir), "lock");
                seen(lock.map(|lock| self.locks.push(lock)))
            }
            Op::Unlock => {
                self.locks.clear();
                Seen::Done
            }
            Op::Create(name, len, backend) => {
                let path = self.at(name);
                let file = self.disk.create_zeroed(&path, *len, *backend);
                self.keep(path, file)
            }
            Op::Open(name, writable, backend) => {
                let path = self.at(name);
                let file = self.disk.open(&path, *writable, *backend);
                self.keep(path, file)
            }
            Op::Rename(from, to) => seen(self.disk.rename(&self.at(from), &self.at(to))),
            Op::Remove(name) => seen(self.disk.remove(&self.at(name))),
            Op::SyncDir(dir) => seen(self.disk.sync_dir(&self.at(dir))),
            _ => Seen::Nothing,
        }
    }

    fn on_file(&mut self, op: &Op) -> Seen {
        let (Op::Read(n, ..)
        | Op::Store(n, ..)
        | Op::Sync(n)
        | Op::Map(n)
        | Op::Unmap(n)
        | Op::Slice(n, ..)
        | Op::Truncate(n, _)
        | Op::Len(n)) = op
        else {
            return self.on_names(op);
        };
        let Some(at) = n.checked_rem(self.files.len()) else {
            return Seen::Nothing;
        };
        let file = Arc::clone(&self.files[at].1);
        match op {
            Op::Read(_, offset, len) => {
                let mut bytes = vec![0; *len];
                match file.read_at(*offset, &mut bytes) {
                    Ok(()) => Seen::Bytes(bytes),
                    Err(error) => Seen::Failed(error.kind()),
                }
            }
            Op::Store(_, offset, pieces) => {
                let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
                seen(file.store_at(*offset, &pieces))
            }
            Op::Sync(_) => seen(file.sync()),
            Op::Map(_) => seen(file.map(0)),
            Op::Unmap(_) => {
                file.unmap();
                Seen::Done
            }
            Op::Slice(_, offset, len) => match file.slice(*offset, *len) {
                Some(bytes) => Seen::Bytes(bytes.to_vec()),
                None => Seen::Nothing,
            },
            Op::Truncate(_, len) => {
                // The port's rule: nobody else has the file open, nobody maps it.
                let path = self.files[at].0.clone();
                self.files
                    .retain(|(other, f)| *other != path || Arc::ptr_eq(f, &file));
                file.unmap();
                seen(file.truncate(*len))
            }
            _ => Seen::Bytes(file.len().to_le_bytes().to_vec()),
        }
    }
}

const NAMES: [&str; 7] = ["a", "b", "e/a", "e/b", "e/g/a", "a/below", "none/a"];
const DIRS: [&str; 6] = [".", "e", "e/g", "none", "a", "a/below"];

fn draw(random: &mut Random) -> Op {
    let name = NAMES[random.below(NAMES.len())];
    let dir = DIRS[random.below(4)];
    let backend = [WriteBackend::Pwrite, WriteBackend::Map][random.below(2)];
    let handle = random.below(64);
    let offset = [0, 1, 511, 512, 4000, 4096, 8000, 20_000][random.below(8)];
    let len = [1, 100, 512, 700, 4096, 5000][random.below(6)];
    match random.below(20) {
        0 => Op::MakeDirs(DIRS[random.below(DIRS.len())]),
        1 => Op::List(DIRS[random.below(DIRS.len())]),
        2 => Op::Lock(dir),
        3 => Op::Unlock,
        4 | 5 => Op::Create(name, [512, 4096, 9000, 16_384][random.below(4)], backend),
        6 => Op::Open(name, random.below(3) > 0, backend),
        7 | 8 => Op::Rename(name, NAMES[random.below(NAMES.len())]),
        9 => Op::Remove(name),
        10 => Op::SyncDir(dir),
        11 | 12 => Op::Read(handle, offset, len),
        13..=15 => {
            let pieces = 0..1 + random.below(3);
            let pieces = pieces.map(|n| vec![u8::try_from(n + len % 200).unwrap_or(1); len]);
            Op::Store(handle, offset, pieces.collect())
        }
        16 => [Op::Sync(handle), Op::Len(handle)][random.below(2)].clone(),
        17 => [Op::Map(handle), Op::Unmap(handle)][random.below(2)].clone(),
        18 => Op::Slice(handle, offset, len),
        _ => Op::Truncate(handle, [0, 100, 600, 4096, 5000][random.below(5)]),
    }
}

/// Where the two differ on purpose, and a store only because of the order of two checks.
fn is_outside_of_the_port(op: &Op, sim: &Side) -> bool {
    match op {
        // Nobody opens a directory as a file, or renames one.
        Op::Open(name, ..) | Op::Rename(name, _) => sim.disk.list(&sim.at(name)).is_ok(),
        // Nobody maps what has no bytes.
        Op::Map(n) | Op::Store(n, ..) | Op::Slice(n, ..) => {
            let at = n.checked_rem(sim.files.len());
            at.is_some_and(|at| sim.files[at].1.is_empty())
        }
        _ => false,
    }
}

/// All names, with the bytes of all files.
fn everything(side: &Side) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![String::from(".")];
    while let Some(dir) = open.pop() {
        for entry in side.disk.list(&side.at(&dir)).unwrap() {
            let name = format!("{dir}/{}", entry.name);
            let mut bytes = Vec::new();
            if entry.is_file {
                let file = side.disk.open(&side.at(&name), false, WriteBackend::Pwrite);
                bytes.resize(usize::try_from(entry.len).unwrap(), 0);
                file.unwrap().read_at(0, &mut bytes).unwrap();
            } else {
                open.push(name.clone());
            }
            found.push((name, bytes));
        }
    }
    found.sort();
    found
}

#[test]
fn the_simulated_disk_answers_as_the_real_one() {
    let (mut done, mut failed) = (0, std::collections::BTreeMap::new());
    for seed in 0..60 {
        let temporary = tempfile::tempdir().unwrap();
        let mut random = Random::new(seed);
        let mut real = Side::new(Arc::new(RealDisk), &temporary.path().join("root"));
        let mut sim = Side::new(Arc::new(SimDisk::default()), Path::new("/root"));
        let mut history = Vec::new();
        let first = match seed % 4 {
            0 => Vec::new(),
            _ => vec![
                Op::MakeDirs("e/g"),
                Op::Create("a", 9000, WriteBackend::Map),
                Op::Create("e/a", 9000, WriteBackend::Pwrite),
                Op::Open("a", false, WriteBackend::Map),
                Op::Open("e/a", false, WriteBackend::Pwrite),
            ],
        };
        let drawn = std::iter::repeat_with(|| draw(&mut random)).take(80);
        for op in first.into_iter().chain(drawn) {
            if is_outside_of_the_port(&op, &sim) {
                continue;
            }
            history.push(op.clone());
            let (theirs, ours) = (real.on_file(&op), sim.on_file(&op));
            match &theirs {
                Seen::Failed(kind) => *failed.entry(*kind).or_insert(0) += 1,
                _ => done += 1,
            }
            assert_eq!(ours, theirs, "seed {seed}: {history:#?}");
        }
        assert_eq!(
            everything(&sim),
            everything(&real),
            "seed {seed}: {history:#?}"
        );
    }
    println!("{done} operations done, failed: {failed:?}");
    assert!(done > 2000 && failed.len() >= 9, "{done} done, {failed:?}");
}
