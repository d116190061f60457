//! A channel id of their own for the events that only this copy of a log holds.
//!
//! *Place in the flow*: behind `forebay wal adopt`, for a log that its store has refused because
//! another copy of it has published since. What both copies hold is the other one's to publish;
//! what this one has accepted since they parted is written into a new log under a new id, which
//! then takes the old log's place. The old log is kept beside it.
//!
//! | step | in the directories | what a repeated run does |
//! |---|---|---|
//! | A1 | old log; `adopting/` is being written | writes it anew |
//! | A2 | old log; `adopting/` complete, `adopt.swap` in the first directory | moves on |
//! | A3 | part of the old log in `before-adopt-<id>/` | moves the rest |
//! | A4 | `adopt.swap` renamed to `adopt.move`; no log in place | moves on |
//! | A5 | part of the new log in place | moves the rest |
//! | A6 | `adopt.move` renamed to `adopt.done` | tells what was done |
//!
//! *Invariants* INV-12: the old log is not written to; from A2 to A6 no agent opens the
//! directories; each step is durable before the next one begins.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::OpenError;
use super::copy::{Copied, CopyError, Copying, NewLog, Run, segment_size, whole_state};
use super::layout::{
    self, ADOPT_DONE, ADOPT_MOVE, ADOPT_SWAP, ADOPTING, BEFORE_ADOPT, REFUSED, is_log_file,
    move_files,
};
use super::ownership::read_refusal;
use super::recovery::read_log;
use super::state::LogState;
use crate::channel::ChannelError;
use crate::env::clock::Clock;
use crate::env::disk::{DirLock, Disk};
use crate::event::Seq;

/// How long the new log waits for room on the disk.
const PATIENCE: Duration = Duration::from_secs(30);

/// What an adoption has done; stands in the directory as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adoption {
    /// Id of the channel before, hexadecimal.
    pub old_channel: String,
    /// Its new id.
    pub new_channel: String,
    /// First sequence number, in the old log, that the other copy lacks.
    pub first: u64,
    /// The number behind the last one.
    pub end: u64,
    /// Events that were written into the new log.
    pub events: u64,
    /// Runs of them that damage has destroyed: first and last number in the old log.
    pub lost: Vec<(u64, u64)>,
    /// The data directories.
    pub directories: usize,
}

impl Adoption {
    /// Name of the directory, in each data directory, that keeps the old log.
    pub fn kept_in(&self) -> String {
        format!(
            "{BEFORE_ADOPT}{}",
            &self.old_channel[..12.min(self.old_channel.len())]
        )
    }
}

/// Why nothing was adopted.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// No store has refused the log.
    #[error(
        "{dir}: no store has refused this log, so there is nothing to adopt; an agent whose log \
         is refused exits with code 3 and says so"
    )]
    NotRefused {
        /// The first data directory.
        dir: PathBuf,
    },
    /// Events that are only here are in files already, under the old id.
    #[error(
        "epoch {epoch} holds events {first} to {last} and is claimed in {store}{base}: its files \
         appear under the old channel id; end it with `forebay resolve {epoch}`, then adopt the \
         rest"
    )]
    Claimed {
        /// The epoch.
        epoch: u64,
        /// Its first event.
        first: u64,
        /// Its last event.
        last: u64,
        /// Its store.
        store: String,
        /// Its base.
        base: String,
    },
    /// What was published cannot be told.
    #[error(
        "{dir}: damage may hide which events were published already; see `forebay wal verify`, \
         accept it with `forebay resolve damage`, then adopt"
    )]
    Damaged {
        /// The first data directory.
        dir: PathBuf,
    },
    /// The directories are not usable now.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// An event could not be copied.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// The new log could not be closed.
    #[error("the new log: {0}")]
    Write(#[from] ChannelError),
}

/// Gives the events that only this log holds a new channel id, or finishes an adoption that was
/// cut short, or tells what the last one has done.
///
/// # Errors
/// Up to A2 nothing has changed; behind it a repeated call goes on.
pub fn adopt(
    disk: &Arc<dyn Disk>,
    clock: &Arc<dyn Clock>,
    dirs: &[PathBuf],
) -> Result<Adoption, AdoptError> {
    adopt_within(PATIENCE, disk, clock, dirs)
}

/// Waits `patience` at most for room on the disk.
pub(super) fn adopt_within(
    patience: Duration,
    disk: &Arc<dyn Disk>,
    clock: &Arc<dyn Clock>,
    dirs: &[PathBuf],
) -> Result<Adoption, AdoptError> {
    let at = disk.as_ref();
    let Some(home) = dirs.first() else {
        return Err(no_directory().into());
    };
    if phase(at, home)?.is_none() {
        // A directory that holds no log gets no lock file.
        layout::owner(at, dirs)?;
    }
    let _locks = dirs
        .iter()
        .map(|dir| layout::lock(at, dir))
        .collect::<Result<Vec<Box<dyn DirLock>>, _>>()?;
    let (moving, done) = match phase(at, home)? {
        Some(found) => found,
        None => match read_refusal(at, home)? {
            Some(refusal) => (
                false,
                write_new_log(patience, disk, clock, dirs, refusal.first)?,
            ),
            None => return already_done(at, home),
        },
    };
    if done.directories != dirs.len() {
        return Err(wrong_directories(home, &done).into());
    }
    if !moving {
        set_old_log_aside(at, dirs, &done)?;
    }
    put_new_log_in_place(at, dirs)?;
    Ok(done)
}

fn no_directory() -> OpenError {
    OpenError::Option {
        key: "dataDirs",
        reason: "names no directory".into(),
    }
}

fn wrong_directories(home: &Path, done: &Adoption) -> OpenError {
    OpenError::Directory {
        dir: home.to_owned(),
        reason: format!(
            "an adoption over {} data directories was cut short here; name all of them, in the \
             order of dataDirs",
            done.directories
        ),
    }
}

fn already_done(disk: &dyn Disk, home: &Path) -> Result<Adoption, AdoptError> {
    let last = layout::read_text(disk, home, ADOPT_DONE)?;
    let last = last.and_then(|text| serde_json::from_str(&text).ok());
    last.ok_or_else(|| AdoptError::NotRefused {
        dir: home.to_owned(),
    })
}

/// An adoption that is past A1, and whether the old log is away.
fn phase(disk: &dyn Disk, home: &Path) -> Result<Option<(bool, Adoption)>, OpenError> {
    for (name, moving) in [(ADOPT_MOVE, true), (ADOPT_SWAP, false)] {
        if let Some(text) = layout::read_text(disk, home, name)? {
            let done = serde_json::from_str(&text).map_err(|e| OpenError::Directory {
                dir: home.join(name),
                reason: format!("is not readable ({e})"),
            })?;
            return Ok(Some((moving, done)));
        }
    }
    Ok(None)
}

/// A1: the whole new log, complete and durable in `adopting/`; then A2.
fn write_new_log(
    patience: Duration,
    disk: &Arc<dyn Disk>,
    clock: &Arc<dyn Clock>,
    dirs: &[PathBuf],
    first: Seq,
) -> Result<Adoption, AdoptError> {
    let at = disk.as_ref();
    let id = layout::owner(at, dirs)?;
    let listing = layout::list(at, dirs)?;
    let recovered = read_log(at, &listing, id)?;
    let state = whole_state(&recovered);
    check(&state, first, &dirs[0])?;
    let new_dirs: Vec<PathBuf> = dirs.iter().map(|dir| dir.join(ADOPTING)).collect();
    for dir in &new_dirs {
        at.create_dir_all(dir)
            .map_err(|e| OpenError::io("create", dir, e))?;
        remove_files(at, dir)?;
    }
    let size = segment_size(at, &listing);
    let new = NewLog::create(patience, disk, clock, &new_dirs, size)?;
    let mut copy = Copying::new(at, &new, &state.acked, first.0.max(state.cursor));
    copy.all(&recovered, state.next_sequence)?;
    let Copied { runs, missing } = copy.done();
    new.finish(&state.positions)?;
    let done = Adoption {
        old_channel: layout::hex(&id),
        new_channel: layout::hex(&layout::owner(at, &new_dirs)?),
        first: first.0,
        end: state.next_sequence,
        events: runs.iter().map(Run::count).sum(),
        lost: missing,
        directories: dirs.len(),
    };
    serde_json::to_string(&done)
        .map_err(std::io::Error::other)
        .and_then(|text| layout::write_text(at, &dirs[0], ADOPT_SWAP, &text))
        .map_err(|e| OpenError::io("write", dirs[0].join(ADOPT_SWAP), e))?;
    Ok(done)
}

fn check(state: &LogState, first: Seq, home: &Path) -> Result<(), AdoptError> {
    if state.control_lost {
        return Err(AdoptError::Damaged {
            dir: home.to_owned(),
        });
    }
    // Sealed only: the other copy has deleted its files, its events are taken from the log.
    let mut claimed = state.epochs.values().filter(|epoch| epoch.claimed);
    match claimed.find(|epoch| epoch.range.last >= first.0) {
        Some(epoch) => Err(AdoptError::Claimed {
            epoch: epoch.epoch,
            first: epoch.range.first,
            last: epoch.range.last,
            store: epoch.store.clone(),
            base: epoch.base.clone(),
        }),
        None => Ok(()),
    }
}

fn remove_files(disk: &dyn Disk, dir: &Path) -> Result<(), OpenError> {
    let entries = disk.list(dir).map_err(|e| OpenError::io("list", dir, e))?;
    for entry in entries.iter().filter(|e| e.is_file) {
        let path = dir.join(&entry.name);
        layout::remove_if_there(disk, &path).map_err(|e| OpenError::io("remove", &path, e))?;
    }
    Ok(())
}

/// A3 and A4.
fn set_old_log_aside(disk: &dyn Disk, dirs: &[PathBuf], done: &Adoption) -> Result<(), OpenError> {
    for dir in dirs {
        let kept = dir.join(done.kept_in());
        disk.create_dir_all(&kept)
            .map_err(|e| OpenError::io("create", &kept, e))?;
        move_files(disk, dir, &kept, |name| {
            is_log_file(name) || name == REFUSED
        })?;
    }
    next_phase(disk, &dirs[0], ADOPT_SWAP, ADOPT_MOVE)
}

/// A5 and A6.
fn put_new_log_in_place(disk: &dyn Disk, dirs: &[PathBuf]) -> Result<(), OpenError> {
    for dir in dirs {
        let new = dir.join(ADOPTING);
        move_files(disk, &new, dir, is_log_file)?;
        remove_files(disk, &new)?;
    }
    let done = dirs[0].join(ADOPT_DONE);
    layout::remove_if_there(disk, &done).map_err(|e| OpenError::io("remove", &done, e))?;
    next_phase(disk, &dirs[0], ADOPT_MOVE, ADOPT_DONE)
}

fn next_phase(disk: &dyn Disk, home: &Path, from: &str, to: &str) -> Result<(), OpenError> {
    disk.rename(&home.join(from), &home.join(to))
        .and_then(|()| disk.sync_dir(home))
        .map_err(|e| OpenError::io("rename", home.join(from), e))
}
