//! What a file channel can be told, with the bounds that make the rest of it safe.

use std::path::PathBuf;
use std::time::Duration;

use crate::env::disk::WriteBackend;

/// When a put is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMode {
    /// After the sync that covers it. Survives power loss.
    Commit,
    /// After the write; synced at least this often. A power loss may take that much.
    Interval(Duration),
    /// After the write; synced when a sink takes, at rolls and at close. A power loss may take
    /// whatever no sink has taken.
    Os,
}

/// Options of a file channel.
#[derive(Clone, Debug)]
pub struct FileChannelOptions {
    /// Directories of the one log; segments are laid out over them in turn.
    pub data_dirs: Vec<PathBuf>,
    /// Most events waiting or in an open take batch.
    pub capacity: u64,
    /// Most events in one put transaction.
    pub transaction_capacity: usize,
    /// How long a put waits for room.
    pub keep_alive: Duration,
    /// Bytes of a segment, 64 KiB to 128 MiB; rounded down to 4 KiB.
    pub max_file_size: u64,
    /// Bytes of the file system that the channel leaves free.
    pub minimum_required_space: u64,
    /// Most bytes of segments, prepared ones included; `None`: what the file system has.
    pub byte_capacity: Option<u64>,
    /// When a put is answered.
    pub sync: SyncMode,
    /// How stores reach a segment.
    pub backend: WriteBackend,
    /// How long a segment without live events stays for `forebay wal dump`, unless its space is
    /// needed.
    pub keep_dead: Duration,
}

impl Default for FileChannelOptions {
    fn default() -> Self {
        Self {
            data_dirs: Vec::new(),
            capacity: 1_000_000,
            transaction_capacity: 10_000,
            keep_alive: Duration::from_secs(3),
            max_file_size: 64 << 20,
            minimum_required_space: 524_288_000,
            byte_capacity: None,
            sync: SyncMode::Commit,
            backend: WriteBackend::Pwrite,
            keep_dead: Duration::from_secs(15 * 60),
        }
    }
}

/// Why a channel could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process, or another channel of this one, holds the directory.
    #[error("{dir} is in use by another process or channel; stop it, or use another directory")]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The directories do not make one channel.
    #[error("{dir}: {reason}")]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// What is wrong with it and what to do.
        reason: String,
    },
    /// An option is out of its range.
    #[error("{key}: {reason}")]
    Option {
        /// The configuration key.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The system refused something.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
}

impl OpenError {
    pub(super) fn io(what: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io {
            what,
            path: path.into(),
            source,
        }
    }
}

/// Bytes of frames that one group may hold; bounds what recovery has to copy forward.
pub(super) const GROUP_BYTES_MAX: usize = 8 << 20;
/// Bytes of a put frame's body from which the next event opens a new frame, so that one bad
/// sector costs little.
const FRAME_BODY_TARGET: usize = 128 << 10;
/// Prepared segments that puts never take: the room in which a full log still drains. Four starts
/// in a row on a full disk need as many: the first one's segment holds the copied tail, and that
/// of the second goes when the third and the fourth have covered it.
pub(super) const SPARES_RESERVED: usize = 4;
/// Prepared segments that the preparer keeps ready beyond the reserve.
pub(super) const SPARES_AHEAD: usize = 2;
/// Dead segments that are kept at most, whatever their age.
pub(super) const DEAD_SEGMENTS_KEPT: usize = 16;

impl FileChannelOptions {
    pub(super) fn segment_bytes(&self) -> u32 {
        u32::try_from(self.max_file_size).unwrap_or(u32::MAX) & !4095
    }

    pub(super) fn check(&self) -> Result<(), OpenError> {
        let bounds =
            u64::from(wal_format::SEGMENT_BYTES_MIN)..=u64::from(wal_format::SEGMENT_BYTES_MAX);
        if !bounds.contains(&self.max_file_size) {
            return Err(OpenError::Option {
                key: "maxFileSize",
                reason: format!(
                    "{} is out of range, use {} to {} bytes",
                    self.max_file_size,
                    bounds.start(),
                    bounds.end()
                ),
            });
        }
        if self.data_dirs.is_empty() {
            return Err(OpenError::Option {
                key: "dataDirs",
                reason: "names no directory".into(),
            });
        }
        Ok(())
    }

    /// Most bytes of source positions: a sixteenth of a segment, so that a snapshot has room for
    /// the open epochs beside them.
    pub(super) fn position_bytes_max(&self) -> usize {
        self.segment_bytes() as usize / 16
    }

    /// Most bytes of frames in one group and in one put transaction: a quarter of a segment, so
    /// that a snapshot and a copied group always fit beside it.
    pub(super) fn group_bytes_max(&self) -> usize {
        (self.segment_bytes() as usize / 4).min(GROUP_BYTES_MAX)
    }

    /// Bytes of a put frame's body from which the next event opens a new frame. Small segments
    /// hold small groups, and a frame that is a group would lose all of it.
    pub(super) fn frame_body_target(&self) -> usize {
        (self.group_bytes_max() / 8).min(FRAME_BODY_TARGET)
    }
}
