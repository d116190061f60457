//! A new channel from what is left of a damaged log.
//!
//! *Place in the flow*: behind `forebay wal salvage`, also for a log that no agent opens any more.
//! The damaged log is only read; the events that are provably intact and not acknowledged become
//! those of a channel with a fresh id in a new directory, with their read positions.
//!
//! *A fresh id*, because a log in which a decision about published files may be missing must not
//! go on under its old one: it might give an epoch number again that its store knows. A log whose
//! decisions are all there opens by itself, at another place too.
//!
//! *What became of an event* is told by the newest snapshot and the records behind it. Where
//! records are missing, every event that was in the log before them and does not count as
//! delivered is *possibly delivered*: those before a hole in the control numbers, all of them when
//! the log ends in bad bytes, and those of a claimed epoch, whose files may have their final names.
//!
//! | step | in the new directory | what an agent does | what a repeated run does |
//! |---|---|---|---|
//! | S1 | nothing, or a lock file | begins a new channel there | begins |
//! | S2 | `salvage.unfinished`; `salvaging/` is being written | refuses | begins anew |
//! | S3 | parts of the new log in place | refuses | begins anew |
//! | S4 | all of it, and `salvage.done` | refuses | begins anew |
//! | S5 | `salvage.unfinished` removed | opens it | tells what was done |
//!
//! *Invariants* INV-20: the damaged log is not changed in any byte, name or time; no agent opens
//! the new directory before S5; each step is durable before the next one begins.

mod report;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use report::{OpenEpoch, Possibly, SalvageReport, Span, UnprovenTail};

use super::OpenError;
use super::copy::{CopyError, Copying, NewLog, segment_size, whole_state};
use super::layout::{self, MARKER, SALVAGE_DONE, SALVAGE_UNFINISHED, SALVAGING};
use super::ownership::read_refusal;
use super::recovery::{Remains, read_remains};
use crate::channel::ChannelError;
use crate::env::clock::Clock;
use crate::env::disk::{DirLock, Disk};
use report::Verdicts;

/// How long the new log waits for room on the disk.
const PATIENCE: Duration = Duration::from_secs(30);
/// Size of the new log's segments where no header of the old ones can be read.
const SEGMENT_BYTES_UNKNOWN: u64 = 64 << 20;

/// What to do with events that may have been delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PossiblyDelivered {
    /// They come along: nothing is lost, some events may come twice.
    #[default]
    Keep,
    /// They stay behind: nothing comes twice, some events may never come.
    LeaveOut,
}

/// Where from, where to, and how.
#[derive(Clone, Debug)]
pub struct Request {
    /// The data directories of the damaged log, as many of them as are left.
    pub dirs: Vec<PathBuf>,
    /// The directory of the new channel.
    pub to: PathBuf,
    /// What to do with events that may have been delivered.
    pub possibly_delivered: PossiblyDelivered,
}

/// Why nothing was salvaged.
#[derive(Debug, thiserror::Error)]
pub enum SalvageError {
    /// The directories cannot be used for this.
    #[error("{dir}: {reason}")]
    Usage {
        /// Which one.
        dir: PathBuf,
        /// Why.
        reason: String,
    },
    /// A directory is not usable now.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// An event could not be copied.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// The new log could not be closed.
    #[error("the new log: {0}")]
    Write(#[from] ChannelError),
}

fn usage(dir: &Path, reason: impl Into<String>) -> SalvageError {
    SalvageError::Usage {
        dir: dir.to_owned(),
        reason: reason.into(),
    }
}

/// Copies what is intact into a new channel directory, or tells what an earlier run has done there.
/// `progress` is told the bytes read and those in all.
///
/// # Errors
/// The damaged log is unchanged; a repeated call begins anew.
///
/// # Durability
/// On `Ok` the new channel is on the medium.
pub fn salvage(
    disk: &Arc<dyn Disk>,
    clock: &Arc<dyn Clock>,
    request: &Request,
    progress: impl FnMut(u64, u64),
) -> Result<SalvageReport, SalvageError> {
    salvage_within(PATIENCE, disk, clock, request, progress)
}

/// Waits `patience` at most for room on the disk.
pub(super) fn salvage_within(
    patience: Duration,
    disk: &Arc<dyn Disk>,
    clock: &Arc<dyn Clock>,
    request: &Request,
    progress: impl FnMut(u64, u64),
) -> Result<SalvageReport, SalvageError> {
    let at = disk.as_ref();
    let request = absolute(at, request);
    let _locks = lock_old(at, &request.dirs)?;
    check_places(at, &request)?;
    let to = &request.to;
    at.create_dir_all(to)
        .map_err(|e| OpenError::io("create", to, e))?;
    let _lock = layout::lock(at, to)?;
    if let Some(done) = already_done(at, &request)? {
        return Ok(done);
    }
    begin_anew(at, to)?;
    let report = write_new_log(patience, disk, clock, &request, progress)?;
    put_in_place(at, to, &report)?;
    Ok(report)
}

fn absolute(disk: &dyn Disk, request: &Request) -> Request {
    Request {
        dirs: request.dirs.iter().map(|dir| disk.absolute(dir)).collect(),
        to: disk.absolute(&request.to),
        ..request.clone()
    }
}

/// Keeps agents away from the damaged log without making a file in it.
fn lock_old(disk: &dyn Disk, dirs: &[PathBuf]) -> Result<Vec<Box<dyn DirLock>>, SalvageError> {
    let mut locks = Vec::new();
    for dir in dirs {
        disk.list(dir).map_err(|e| OpenError::io("list", dir, e))?;
        locks.extend(layout::lock_existing(disk, dir)?);
    }
    Ok(locks)
}

fn check_places(disk: &dyn Disk, request: &Request) -> Result<(), SalvageError> {
    let Request { dirs, to, .. } = request;
    for (index, dir) in dirs.iter().enumerate() {
        if to.starts_with(dir) {
            let why = "lies in the damaged log's directory, which is not to be changed; give \
                       another one";
            return Err(usage(to, why));
        }
        if dirs[..index].contains(dir) {
            return Err(usage(dir, "is given twice"));
        }
        if let Some(why) = layout::cut_short(disk, dir)? {
            return Err(usage(dir, why));
        }
    }
    if layout::list(disk, dirs)?.segments.is_empty() {
        return Err(usage(&dirs[0], "holds no segment of a Forebay log"));
    }
    Ok(())
}

/// The report of an earlier run with the same request; refuses a directory with anything else.
fn already_done(disk: &dyn Disk, request: &Request) -> Result<Option<SalvageReport>, SalvageError> {
    let to = &request.to;
    if layout::read_text(disk, to, SALVAGE_UNFINISHED)?.is_some() {
        return Ok(None);
    }
    if let Some(text) = layout::read_text(disk, to, SALVAGE_DONE)? {
        let done: Option<SalvageReport> = serde_json::from_str(&text).ok();
        return match done {
            Some(done) if done.is_for(request) => Ok(Some(done)),
            _ => Err(usage(
                to,
                "holds the outcome of another salvage; give another directory",
            )),
        };
    }
    let entries = disk.list(to).map_err(|e| OpenError::io("list", to, e))?;
    let ours = |name: &str| {
        let unfinished = name.strip_suffix(".new") == Some(SALVAGE_UNFINISHED);
        unfinished || name == layout::LOCK
    };
    match entries.iter().find(|entry| !ours(&entry.name)) {
        Some(entry) => {
            let why = format!("is not empty (it holds {}); give another one", entry.name);
            Err(usage(to, why))
        }
        None => Ok(None),
    }
}

/// S2, without what an earlier run has left.
fn begin_anew(disk: &dyn Disk, to: &Path) -> Result<(), OpenError> {
    let text = "forebay salvage 1\n";
    layout::write_text(disk, to, SALVAGE_UNFINISHED, text)
        .map_err(|e| OpenError::io("write", to.join(SALVAGE_UNFINISHED), e))?;
    let new = to.join(SALVAGING);
    disk.create_dir_all(&new)
        .map_err(|e| OpenError::io("create", &new, e))?;
    for (dir, keep) in [(new.as_path(), ""), (to, SALVAGE_UNFINISHED)] {
        let entries = disk.list(dir).map_err(|e| OpenError::io("list", dir, e))?;
        for entry in entries.iter().filter(|entry| entry.is_file) {
            if entry.name != keep && entry.name != layout::LOCK {
                let path = dir.join(&entry.name);
                layout::remove_if_there(disk, &path)
                    .map_err(|e| OpenError::io("remove", &path, e))?;
            }
        }
        disk.sync_dir(dir)
            .map_err(|e| OpenError::io("sync", dir, e))?;
    }
    Ok(())
}

fn write_new_log(
    patience: Duration,
    disk: &Arc<dyn Disk>,
    clock: &Arc<dyn Clock>,
    request: &Request,
    mut progress: impl FnMut(u64, u64),
) -> Result<SalvageReport, SalvageError> {
    let at = disk.as_ref();
    let listing = layout::list(at, &request.dirs)?;
    let id = layout::likely_owner(at, &request.dirs, &listing).ok_or_else(|| {
        usage(
            &request.dirs[0],
            "neither a `channel` file nor any segment's header can be read",
        )
    })?;
    let remains = read_remains(at, &listing, id)?;
    let state = whole_state(&remains.recovered);
    let refused_below = match request.dirs.first() {
        // A `refused` file that cannot be read hides up to where the other copy has published.
        Some(home) => read_refusal(at, home).map_or(u64::MAX, |r| r.map_or(0, |r| r.first.0)),
        None => 0,
    };
    let verdicts = Verdicts::of(&remains, &state, refused_below);
    let new_dir = request.to.join(SALVAGING);
    let size = match segment_size(at, &listing) {
        0 => SEGMENT_BYTES_UNKNOWN,
        size => size.max(u64::from(wal_format::SEGMENT_BYTES_MIN)),
    };
    let new = NewLog::create(patience, disk, clock, std::slice::from_ref(&new_dir), size)?;
    let skip = verdicts.to_skip(request.possibly_delivered);
    let total = total_bytes(&remains);
    let mut read = 0;
    let mut segment_read = |bytes: u64| {
        read += bytes;
        progress(read, total);
    };
    let mut copy = Copying::new(at, &new, &skip, 1).leniently(&mut segment_read);
    copy.all(&remains.recovered, state.next_sequence)?;
    let copied = copy.done();
    new.finish(&state.positions)?;
    let new_id = layout::owner(at, &[new_dir])?;
    Ok(report::compose(report::Facts {
        request,
        old_channel: layout::hex(&id),
        new_channel: layout::hex(&new_id),
        remains: &remains,
        state: &state,
        verdicts,
        copied,
        foreign: listing.foreign,
    }))
}

fn total_bytes(remains: &Remains) -> u64 {
    remains.recovered.segments.iter().map(|s| s.len).sum()
}

/// S3 to S5.
fn put_in_place(disk: &dyn Disk, to: &Path, report: &SalvageReport) -> Result<(), OpenError> {
    let new = to.join(SALVAGING);
    layout::move_files(disk, &new, to, |name| {
        layout::is_log_file(name) && name != MARKER
    })?;
    layout::move_files(disk, &new, to, |name| name == MARKER)?;
    let lock = new.join(layout::LOCK);
    layout::remove_if_there(disk, &lock).map_err(|e| OpenError::io("remove", &lock, e))?;
    serde_json::to_string(report)
        .map_err(std::io::Error::other)
        .and_then(|text| layout::write_text(disk, to, SALVAGE_DONE, &text))
        .map_err(|e| OpenError::io("write", to.join(SALVAGE_DONE), e))?;
    let unfinished = to.join(SALVAGE_UNFINISHED);
    layout::remove_if_there(disk, &unfinished)
        .and_then(|()| disk.sync_dir(to))
        .map_err(|e| OpenError::io("remove", &unfinished, e))
}
