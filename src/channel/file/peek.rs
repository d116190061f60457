//! What a channel would hold if it were opened now: for `forebay status` while no agent runs.
//!
//! Takes no lock and writes nothing. Frames that only a recovery could prove are counted, because
//! recovery will keep them.

use std::path::PathBuf;

use wal_format::{FrameKind, Record};

use super::OpenError;
use super::layout;
use super::open::queue_of;
use super::recovery::{put_op, read_log};
use super::state::Op;
use crate::channel::ChannelStatus;
use crate::env::disk::Disk;

/// Reads the log in all of a channel's directories.
///
/// # Errors
/// The directories do not hold one channel's log, or cannot be read.
pub fn peek(disk: &dyn Disk, dirs: &[PathBuf]) -> Result<ChannelStatus, OpenError> {
    let id = layout::owner(disk, dirs)?;
    let listing = layout::list(disk, dirs)?;
    let found = listing.segments.iter().chain(&listing.spares);
    let (segments, disk_bytes) = found.fold((0, 0), |(n, bytes), f| (n + 1, bytes + f.len));
    let recovered = read_log(disk, &listing, id)?;
    let mut state = recovered.state;
    for suspect in &recovered.suspects {
        // A body that cannot be decoded is refused by the open itself; here it counts for nothing.
        let op = match suspect.header.kind {
            FrameKind::Put => put_op(suspect).ok(),
            kind => Record::decode(kind, &suspect.body).ok().map(Op::Record),
        };
        if let Some(op) = op {
            state.apply(op);
        }
    }
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
