//! What a channel would hold if it were opened now: for `forebay status` while no agent runs, and
//! for the audit against the log.
//!
//! Takes no lock and writes nothing. Frames that only a recovery could prove are counted, because
//! recovery will keep them.

use std::path::PathBuf;

use super::OpenError;
use super::copy::whole_state;
use super::journal::from_epoch;
use super::layout::{self, Listing};
use super::open::queue_of;
use super::recovery::{Recovered, read_log};
use super::state::LogState;
use super::still;
use crate::channel::queue::ranges::{RangeSet, closed};
use crate::channel::{ChannelStatus, EpochRecord};
use crate::env::disk::Disk;
use crate::event::{Seq, SeqRange};

/// How often a log is read again that an agent has changed meanwhile.
const ROUNDS: usize = 8;

/// Reads the log in all of a channel's directories.
///
/// # Errors
/// The directories do not hold one channel's log, or cannot be read.
pub fn peek(disk: &dyn Disk, dirs: &[PathBuf]) -> Result<ChannelStatus, OpenError> {
    let (_, listing, state) = read_state(disk, dirs)?;
    let found = listing.segments.iter().chain(&listing.spares);
    let (segments, disk_bytes) = found.fold((0, 0), |(n, bytes), f| (n + 1, bytes + f.len));
    let counts = queue_of(&state, 0).counts();
    Ok(ChannelStatus {
        waiting: counts.waiting,
        leased: counts.leased,
        sealed_unpublished: counts.sealed,
        corrupt: counts.lost,
        next_sequence: state.next_sequence,
        segments,
        disk_bytes,
        ..ChannelStatus::default()
    })
}

/// What the log says of every sequence number that it has given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// First 12 hexadecimal digits of the channel's id.
    pub channel: String,
    /// Next sequence number.
    pub next_sequence: Seq,
    /// Number of the next epoch.
    pub next_epoch: u64,
    /// Events that a sink has acknowledged, by a published epoch or without files.
    pub done: Vec<SeqRange>,
    /// Epochs that are sealed and not done.
    pub epochs: Vec<EpochRecord>,
    /// Events that the log has recorded as lost to damage and no sink has reported.
    pub lost: Vec<SeqRange>,
    /// Whether damage may hide a decision about published files.
    pub control_lost: bool,
}

/// Reads the log in all of a channel's directories, also beside a running agent.
///
/// # Errors
/// The directories do not hold one channel's log, or cannot be read.
pub fn standing(disk: &dyn Disk, dirs: &[PathBuf]) -> Result<Standing, OpenError> {
    let (id, _, state) = read_state(disk, dirs)?;
    let closed_ranges = |set: &super::range_set::RangeSet| {
        set.iter()
            .filter_map(|(first, last)| SeqRange::new(Seq(first), Seq(last)))
            .collect::<Vec<_>>()
    };
    let mut done: RangeSet = closed_ranges(&state.acked).into_iter().collect();
    // Events count from 1.
    done.extend(closed(1, state.cursor));
    Ok(Standing {
        channel: layout::hex(&id).chars().take(12).collect(),
        next_sequence: Seq(state.next_sequence),
        next_epoch: state.next_epoch,
        done: done.to_vec(),
        epochs: state.epochs.values().map(from_epoch).collect(),
        lost: closed_ranges(&state.lost),
        control_lost: state.control_lost,
    })
}

/// The state that an open would find, the frames that it would copy forward included.
fn read_state(
    disk: &dyn Disk,
    dirs: &[PathBuf],
) -> Result<([u8; 16], Listing, LogState), OpenError> {
    let id = layout::owner(disk, dirs)?;
    let (listing, recovered) = read_steadily(disk, dirs, id)?;
    // What the open itself would refuse to copy is named by it; here its numbers count.
    let state = whole_state(&recovered);
    Ok((id, listing, state))
}

/// INV-21: a running agent deletes segments that have just been listed, or erases and uses them
/// again while they are read. They lose their names first, so a look counts when all are there
/// after it.
fn read_steadily(
    disk: &dyn Disk,
    dirs: &[PathBuf],
    id: [u8; 16],
) -> Result<(Listing, Recovered), OpenError> {
    let mut rounds = 1..ROUNDS;
    loop {
        let listing = still::list(disk, dirs)?;
        let recovered = read_log(disk, &listing, id);
        let moved = still::has_moved(disk, &listing);
        if !moved || rounds.next().is_none() {
            return Ok((listing, recovered?));
        }
    }
}
