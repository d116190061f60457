//! Prepared segments: made ahead by a background thread, so that no write on the commit path
//! allocates. A full disk meets the preparer and nobody else.
//!
//! *Crash*: a file named `*.new` was not finished and is removed at open; a spare is complete.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use wal_format::{SEGMENT_HEADER_BYTES, SegmentHeader};

use crate::env::clock::Clock;
use crate::env::disk::{Disk, DiskFile, WriteBackend};
use crate::env::random;

use super::layout;
use super::options::{SPARES_AHEAD, SPARES_RESERVED};

/// A prepared segment.
#[derive(Debug)]
pub(super) struct Spare {
    pub(super) number: u32,
    pub(super) salt: u64,
    pub(super) dir: usize,
    pub(super) path: PathBuf,
    pub(super) size: u32,
    pub(super) file: Arc<dyn DiskFile>,
}

/// What the preparer and the committer share.
#[derive(Debug, Default)]
pub(super) struct SparePool {
    state: Mutex<PoolState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
pub(super) struct PoolState {
    /// Lowest number first.
    pub(super) ready: Vec<Spare>,
    pub(super) next_number: u32,
    /// Why the last preparation was refused; cleared by the next that succeeds.
    pub(super) short_of_space: Option<String>,
    /// Whether the log says that puts are held back.
    pub(super) held_back: bool,
    pub(super) stop: bool,
}

impl PoolState {
    /// Whether the reserve and what lies ahead are not filled.
    pub(super) fn wants_more(&self) -> bool {
        self.ready.len() < SPARES_RESERVED + SPARES_AHEAD
    }
}

impl SparePool {
    pub(super) fn new(state: PoolState) -> Self {
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wake(&self) {
        self.changed.notify_all();
    }

    pub(super) fn wait<'a>(
        &'a self,
        guard: MutexGuard<'a, PoolState>,
        timeout: std::time::Duration,
    ) -> MutexGuard<'a, PoolState> {
        self.changed
            .wait_timeout(guard, timeout)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }

    /// Takes the lowest spare, if there is one.
    pub(super) fn take(&self) -> Option<Spare> {
        let mut pool = self.lock();
        let spare = if pool.ready.is_empty() {
            None
        } else {
            Some(pool.ready.remove(0))
        };
        drop(pool);
        self.changed.notify_all();
        spare
    }

    pub(super) fn available(&self) -> usize {
        self.lock().ready.len()
    }
}

/// Everything needed to prepare a segment.
#[derive(Clone, Debug)]
pub(super) struct Preparer {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) dirs: Vec<PathBuf>,
    pub(super) channel_id: [u8; 16],
    pub(super) size: u32,
    pub(super) backend: WriteBackend,
}

impl Preparer {
    /// Makes spare `number`: zeros and both headers on the medium, then the name.
    ///
    /// # Durability
    /// On `Ok` the file and its name survive power loss. On an error nothing is left but, after
    /// a crash, a `*.new` file.
    pub(super) fn prepare(&self, number: u32) -> std::io::Result<Spare> {
        let dir = number as usize % self.dirs.len();
        let new = self.dirs[dir].join(format!("{}.new", layout::spare_name(number)));
        let path = self.dirs[dir].join(layout::spare_name(number));
        let salt = random::u64()?;
        let header = SegmentHeader {
            incompatible: 0,
            compatible: 0,
            channel_id: self.channel_id,
            segment: number,
            size: self.size,
            salt,
            prepared_at_ms: self.clock.wall_ms(),
            cipher_id: 0,
            key_id: 0,
            compression_id: 0,
        }
        .encode();
        let file = self
            .disk
            .create_zeroed(&new, u64::from(self.size), self.backend)?;
        let finish = || {
            file.store_at(0, &[&header])?;
            file.store_at(u64::from(self.size - SEGMENT_HEADER_BYTES), &[&header])?;
            file.sync()?;
            self.disk.rename(&new, &path)?;
            self.disk.sync_dir(&self.dirs[dir])
        };
        if let Err(error) = finish() {
            // Best effort: what stays is removed at the next open.
            let _ignored = self.disk.remove(&new);
            let _ignored = self.disk.remove(&path);
            return Err(error);
        }
        Ok(Spare {
            number,
            salt,
            dir,
            path,
            size: self.size,
            file,
        })
    }

    /// Gives a spare its name as a segment; durable on `Ok`. Only then may it be stored to.
    pub(super) fn activate(&self, spare: &mut Spare) -> std::io::Result<()> {
        let path = self.dirs[spare.dir].join(layout::segment_name(spare.number));
        self.disk.rename(&spare.path, &path)?;
        spare.path = path;
        self.disk.sync_dir(&self.dirs[spare.dir])
    }
}
