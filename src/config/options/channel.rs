//! Options of channels.

use std::path::PathBuf;
use std::time::Duration;

use super::super::section::Reader;
use super::ChannelKind;

/// The largest segment.
const SEGMENT_BYTES_MAX: u64 = 128 << 20;
/// The least space that is left free.
const FREE_BYTES_MIN: u64 = 1 << 20;

/// When a commit of the file channel returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMode {
    /// When its events are durable.
    Commit,
    /// When they are written; a sync follows within this time, and a power loss before it loses
    /// them. A killed process loses nothing.
    Interval(Duration),
    /// When they are written; the system syncs when it likes.
    Os,
}

/// How frames reach the page cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteBackend {
    /// `pwrite` into the mapped file.
    Pwrite,
    /// Stores through the map.
    Map,
}

/// Options of a `file` channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileChannelConfig {
    /// Directories of the log; at least one, none twice.
    pub data_dirs: Vec<PathBuf>,
    /// Most events waiting or in an open batch.
    pub capacity: u64,
    /// Most events in one transaction; not more than `capacity`.
    pub transaction_capacity: usize,
    /// How long a put waits for room.
    pub keep_alive: Duration,
    /// Size of a segment, 1 MiB to 128 MiB.
    pub max_file_size: u64,
    /// Bytes to leave free on the disk, at least 1 MiB.
    pub minimum_required_space: u64,
    /// When a commit returns.
    pub sync_mode: SyncMode,
    /// How frames reach the page cache.
    pub write_backend: WriteBackend,
}

/// Options of a `memory` channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryChannelConfig {
    /// Most events waiting or in an open batch.
    pub capacity: u64,
    /// Most events in one transaction; not more than `capacity`.
    pub transaction_capacity: usize,
    /// How long a put waits for room.
    pub keep_alive: Duration,
    /// Most bytes of bodies, the share for headers already taken off; `None` is no bound.
    pub body_bytes_max: Option<u64>,
}

pub(super) fn read(reader: &mut Reader<'_>) -> ChannelKind {
    match reader.component.kind.alias {
        "file" => ChannelKind::File(file(reader)),
        _ => ChannelKind::Memory(memory(reader)),
    }
}

fn file(reader: &mut Reader<'_>) -> FileChannelConfig {
    let (capacity, transaction_capacity) = capacities(reader);
    FileChannelConfig {
        data_dirs: data_dirs(reader),
        capacity,
        transaction_capacity,
        keep_alive: Duration::from_secs(reader.number("keep-alive")),
        max_file_size: max_file_size(reader),
        minimum_required_space: minimum_required_space(reader),
        sync_mode: sync_mode(reader),
        write_backend: match reader.choice("writeBackend") {
            "map" => WriteBackend::Map,
            _ => WriteBackend::Pwrite,
        },
    }
}

fn memory(reader: &mut Reader<'_>) -> MemoryChannelConfig {
    let (capacity, transaction_capacity) = capacities(reader);
    let bytes = reader.number("byteCapacity");
    let headers = reader.number("byteCapacityBufferPercentage");
    let bodies = u128::from(bytes) * u128::from(100_u64.saturating_sub(headers)) / 100;
    MemoryChannelConfig {
        capacity,
        transaction_capacity,
        keep_alive: Duration::from_secs(reader.number("keep-alive")),
        body_bytes_max: u64::try_from(bodies).ok().filter(|_| bytes > 0),
    }
}

fn capacities(reader: &mut Reader<'_>) -> (u64, usize) {
    let capacity = reader.number("capacity");
    let transaction = reader.number("transactionCapacity");
    let kept = transaction.min(capacity);
    if transaction > capacity {
        match reader.entry("transactionCapacity") {
            Some(entry) => {
                let message = format!("{transaction} is more than the capacity {capacity}");
                reader.error(entry, message);
            }
            None => {
                if let Some(entry) = reader.entry("capacity") {
                    let message = format!(
                        "below the default transactionCapacity {transaction}, which is lowered \
                         to {capacity}; Flume refuses this"
                    );
                    reader.warning(entry, message);
                }
            }
        }
    }
    (capacity, usize::try_from(kept).unwrap_or(usize::MAX))
}

fn data_dirs(reader: &mut Reader<'_>) -> Vec<PathBuf> {
    let Some(entry) = reader.entry("dataDirs") else {
        let directory = reader.path("dataDirs");
        if directory.as_os_str().is_empty() {
            reader.missing(
                "dataDirs",
                "is missing, and there is no HOME for its default",
            );
        }
        return vec![directory];
    };
    let mut directories: Vec<PathBuf> = Vec::new();
    for part in entry
        .value
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let directory = PathBuf::from(part);
        if directories.contains(&directory) {
            reader.error(entry, format!("lists {part} twice"));
        } else {
            directories.push(directory);
        }
    }
    if directories.is_empty() {
        reader.error(entry, "names no directory");
    }
    directories
}

fn max_file_size(reader: &mut Reader<'_>) -> u64 {
    let size = reader.number("maxFileSize");
    if size > SEGMENT_BYTES_MAX
        && let Some(entry) = reader.entry("maxFileSize")
    {
        reader.warning(
            entry,
            format!("lowered from {size} to {SEGMENT_BYTES_MAX} (128 MiB)"),
        );
    }
    size.min(SEGMENT_BYTES_MAX)
}

fn minimum_required_space(reader: &mut Reader<'_>) -> u64 {
    let space = reader.number("minimumRequiredSpace");
    if space < FREE_BYTES_MIN
        && let Some(entry) = reader.entry("minimumRequiredSpace")
    {
        reader.warning(
            entry,
            format!("raised from {space} to {FREE_BYTES_MIN}, as in Flume"),
        );
    }
    space.max(FREE_BYTES_MIN)
}

/// `syncMode` where it stands; otherwise Flume's `fsyncPerTransaction = false` means an interval.
fn sync_mode(reader: &mut Reader<'_>) -> SyncMode {
    let interval = Duration::from_secs(reader.number("fsyncInterval"));
    let per_transaction = reader.boolean("fsyncPerTransaction");
    let mode = reader.choice("syncMode");
    if let (Some(entry), Some(_)) = (
        reader.entry("syncMode"),
        reader.entry("fsyncPerTransaction"),
    ) && per_transaction != (mode == "commit")
    {
        let message = format!("{mode} contradicts fsyncPerTransaction = {per_transaction}");
        reader.error(entry, message);
    }
    let mode = match (reader.entry("syncMode"), per_transaction) {
        (None, false) => "interval",
        _ => mode,
    };
    if mode != "interval"
        && let Some(entry) = reader.entry("fsyncInterval")
    {
        reader.warning(entry, format!("has no effect: syncMode is {mode}"));
    }
    match mode {
        "interval" => SyncMode::Interval(interval),
        "os" => SyncMode::Os,
        _ => SyncMode::Commit,
    }
}
