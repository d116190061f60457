//! Prepared segments: made ahead by a background thread, so that no write on the commit path
//! allocates. A full disk meets the preparer and nobody else.
//!
//! *Crash*: a file named `*.new` was not finished and is removed at open; a spare is complete.
//! On a full disk a file that holds nothing any more becomes a spare where it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use wal_format::{SEGMENT_HEADER_BYTES, SegmentHeader};

use crate::env::clock::Clock;
use crate::env::disk::{Disk, DiskFile, WriteBackend};
use crate::env::random;
use crate::env::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use crate::planted::{Bug, planted};

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
    /// Taken, and not yet in the table of segments.
    pub(super) in_hand: usize,
    /// Files of dead segments, to be made into spares: they count as neither until then.
    pub(super) reusable: Vec<PathBuf>,
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

    /// Waits until a spare is ready, or for `timeout`, or until somebody is to look again.
    pub(super) fn wait_for_one(&self, timeout: std::time::Duration) {
        let pool = self.lock();
        // It may have come since the caller found none.
        if pool.ready.is_empty() && !pool.stop {
            drop(self.wait(pool, timeout));
        }
    }

    /// Takes the lowest spare, if there is one.
    pub(super) fn take(&self) -> Option<Spare> {
        let mut pool = self.lock();
        let spare = if pool.ready.is_empty() {
            None
        } else {
            pool.in_hand += 1;
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
        let new = self.dirs[dir].join(layout::unfinished_spare(number));
        let file = self
            .disk
            .create_zeroed(&new, u64::from(self.size), self.backend)?;
        self.finish(number, dir, &new, file)
    }

    /// Makes spare `number` of a whole file that holds nothing any more, which takes no space. Only
    /// for a file that this process has never mapped: a slice of it may still be with a sink.
    ///
    /// # Durability
    /// As [`Self::prepare`]; the old name is gone for ever before a byte of the file changes.
    ///
    /// # Errors
    /// The file is as it was, also its name, or it is gone.
    pub(super) fn reuse(&self, old: &Path, number: u32) -> std::io::Result<Spare> {
        let parent = old.parent();
        let dir = self.dirs.iter().position(|dir| Some(&**dir) == parent);
        let file = self.disk.open(old, true, self.backend)?;
        let (Some(dir), true) = (dir, file.len() == u64::from(self.size)) else {
            return Err(std::io::Error::other("not a whole segment of this channel"));
        };
        let new = self.dirs[dir].join(layout::unfinished_spare(number));
        if new != old {
            self.disk.rename(old, &new)?;
        }
        let erase = || {
            if !planted(Bug::EraseBeforeRename) {
                self.disk.sync_dir(&self.dirs[dir])?;
            }
            let zeros = vec![0; 256 << 10];
            let mut at = 0;
            while at < self.size {
                let left = (self.size - at) as usize;
                file.store_at(u64::from(at), &[&zeros[..left.min(zeros.len())]])?;
                at = at.saturating_add(zeros.len() as u32);
            }
            Ok(())
        };
        if let Err(error) = erase() {
            let _ignored = self.disk.remove(&new);
            return Err(error);
        }
        self.finish(number, dir, &new, file)
    }

    /// Headers, sync, name.
    fn finish(
        &self,
        number: u32,
        dir: usize,
        new: &Path,
        file: Arc<dyn DiskFile>,
    ) -> std::io::Result<Spare> {
        let path = self.dirs[dir].join(layout::spare_name(number));
        let name_it = || {
            let salt = random::u64()?;
            let header = self.header(number, salt);
            file.store_at(0, &[&header])?;
            file.store_at(u64::from(self.size - SEGMENT_HEADER_BYTES), &[&header])?;
            if !planted(Bug::NoSyncSpare) {
                file.sync()?;
            }
            self.disk.rename(new, &path)?;
            if !planted(Bug::NoDirSyncSpare) {
                self.disk.sync_dir(&self.dirs[dir])?;
            }
            Ok(salt)
        };
        match name_it() {
            Ok(salt) => Ok(Spare {
                number,
                salt,
                dir,
                path,
                size: self.size,
                file,
            }),
            Err(error) => {
                // Best effort: what stays is removed at the next open.
                let _ignored = self.disk.remove(new);
                let _ignored = self.disk.remove(&path);
                Err(error)
            }
        }
    }

    fn header(&self, segment: u32, salt: u64) -> Vec<u8> {
        SegmentHeader {
            incompatible: 0,
            compatible: 0,
            channel_id: self.channel_id,
            segment,
            size: self.size,
            salt,
            prepared_at_ms: self.clock.wall_ms(),
            cipher_id: 0,
            key_id: 0,
            compression_id: 0,
        }
        .encode()
    }

    /// Gives a spare its name as a segment; durable on `Ok`. Only then may it be stored to.
    pub(super) fn activate(&self, spare: &mut Spare) -> std::io::Result<()> {
        let path = self.dirs[spare.dir].join(layout::segment_name(spare.number));
        self.disk.rename(&spare.path, &path)?;
        spare.path = path;
        if planted(Bug::NoDirSyncSegment) {
            return Ok(());
        }
        self.disk.sync_dir(&self.dirs[spare.dir])
    }
}
