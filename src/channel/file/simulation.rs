//! A file channel without threads of its own, for tests on the simulated disk.
//!
//! *Place in the flow*: whoever drives it says when the committer and the preparer take a turn, so
//! that a history of calls, turns and faults is the same at every run. The turns are those of the
//! threads in `group_commit` and `reclaim`; only the waiting between them is left out.
//!
//! Calls that wait do so for ever unless somebody else takes the turns: a driver on one thread
//! polls futures by hand, and calls `commit_put_blocking` only where nothing else is pending.

use std::sync::{Arc, Mutex, PoisonError};

use super::group_commit::{Lead, Rounds};
use super::open::{Verdict, open_core};
use super::{FileChannel, FileChannelOptions, OpenError};
use crate::channel::{Channel, EpochRecord, Position};
use crate::env::clock::Clock;
use crate::env::disk::Disk;
use crate::event::{Seq, SeqRange};

/// See the module head.
#[derive(Debug)]
pub struct SteppedChannel {
    channel: Arc<FileChannel>,
    rounds: Mutex<Rounds>,
    verdict: Verdict,
}

/// How a turn of the committer went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing was pending.
    Idle,
    /// A group was written (or the log has failed over it).
    Done,
    /// A prepared segment is needed first.
    NoSpare,
}

/// The durable state, as the log says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogView {
    /// Next sequence number.
    pub next_sequence: u64,
    /// Next number of a control record.
    pub next_control: u64,
    /// All below is acknowledged.
    pub cursor: u64,
    /// Acknowledged above the cursor.
    pub acked: Vec<SeqRange>,
    /// Lost to damage.
    pub lost: Vec<SeqRange>,
    /// Positions by key.
    pub positions: Vec<Position>,
    /// Incarnations up to this one are fenced.
    pub fenced_through: u32,
    /// Number and nonce of the incarnations that are remembered.
    pub incarnations: Vec<(u32, u64)>,
    /// Next epoch number.
    pub next_epoch: u64,
    /// Epochs sealed and not done.
    pub epochs: Vec<EpochRecord>,
    /// Whether damage may hide a decision.
    pub control_lost: bool,
}

/// What is in memory and between memory and disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inside {
    /// Transactions and records that no group has taken up.
    pub pending: usize,
    /// Operations stored and not synced.
    pub unsynced: usize,
    /// Prepared segments.
    pub spares: usize,
    /// Whether the last preparation was refused.
    pub short_of_space: bool,
    /// Bytes that frames may still take in the active segment.
    pub active_room: usize,
    /// Segments of the log, the active one last.
    pub segments: Vec<SegmentView>,
}

/// One segment in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentView {
    /// Its number.
    pub number: u32,
    /// Its file.
    pub path: std::path::PathBuf,
    /// First event in it, or the next one where it holds none.
    pub first_sequence: u64,
    /// Where its durable frames end.
    pub end: u32,
    /// Durable snapshots of later segments that saw it dead.
    pub covered: u8,
}

/// What the open has found wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Damage: segment, offset, and the next good frame.
    pub damage: Vec<(u32, u32, Option<u32>)>,
    /// A torn tail: segment, offset, and behind its last byte that is not zero.
    pub torn: Option<(u32, u32, u32)>,
}

impl SteppedChannel {
    /// Opens a channel as [`FileChannel::open`] does, without starting its threads.
    ///
    /// # Errors
    /// Those of [`FileChannel::open`].
    pub fn open(
        name: &str,
        options: FileChannelOptions,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        let (core, locks, verdict) = open_core(name, options, disk, clock)?;
        let rounds = Mutex::new(Rounds::new(core.now()));
        let channel = Arc::new(FileChannel::around(core, Vec::new(), locks));
        Ok(Self {
            channel,
            rounds,
            verdict,
        })
    }

    /// The channel itself.
    pub fn channel(&self) -> &Arc<FileChannel> {
        &self.channel
    }

    /// What the open has found wrong.
    pub fn found(&self) -> Found {
        let damage = self.verdict.damage.iter();
        Found {
            damage: damage.map(|d| (d.segment, d.offset, d.resume)).collect(),
            torn: self
                .verdict
                .torn
                .map(|t| (t.segment, t.offset, t.nonzero_end)),
        }
    }

    /// Transactions and records that no group has taken up.
    pub fn pending(&self) -> usize {
        self.channel.core.pending_and_room().0
    }

    /// A turn of the committer: leads one group, if something is pending.
    pub fn lead(&self) -> Turn {
        let core = &self.channel.core;
        if core.has_ended() {
            return Turn::Idle;
        }
        match core.lead(&mut core.writer()) {
            Lead::Idle => Turn::Idle,
            Lead::Done => Turn::Done,
            Lead::NoSpare => Turn::NoSpare,
        }
    }

    /// What the committer does between groups: a sync that is due or was asked for, or the
    /// quiet-time work. `idle`: no group was led since the last call.
    pub fn end_round(&self, idle: bool) {
        let core = &self.channel.core;
        if core.has_ended() {
            return;
        }
        let wanted = core.take_wish_to_sync();
        let mut rounds = self.rounds.lock().unwrap_or_else(PoisonError::into_inner);
        core.end_round(&mut core.writer(), &mut rounds, wanted, idle);
    }

    /// A turn of the preparer: whether a segment was prepared, `None` where none is wanted.
    pub fn prepare(&self) -> Option<bool> {
        let core = &self.channel.core;
        if core.spares.lock().stop || !core.spares.lock().wants_more() {
            return None;
        }
        Some(core.prepare_next())
    }

    /// Rolls now, as pressure does; false where no segment is prepared.
    pub fn roll(&self) -> bool {
        let core = &self.channel.core;
        if core.has_ended() {
            return false;
        }
        match core.roll(&mut core.writer()) {
            Ok(rolled) => rolled,
            Err(error) => {
                core.poison(&error.to_string());
                false
            }
        }
    }

    /// The durable state.
    pub fn log(&self) -> LogView {
        let ranges = |set: &super::range_set::RangeSet| {
            let ranges = set.iter();
            ranges
                .filter_map(|(first, last)| SeqRange::new(Seq(first), Seq(last)))
                .collect()
        };
        let positions = self.channel.positions("");
        let epochs = self.channel.journal().open_epochs();
        let state = self.channel.core.state();
        LogView {
            next_sequence: state.next_sequence,
            next_control: state.next_control,
            cursor: state.cursor,
            acked: ranges(&state.acked),
            lost: ranges(&state.lost),
            positions,
            fenced_through: state.fenced_through,
            incarnations: state.incarnations.clone(),
            next_epoch: state.next_epoch,
            epochs,
            control_lost: state.control_lost,
        }
    }

    /// Memory, and what is between it and the disk.
    pub fn inside(&self) -> Inside {
        let core = &self.channel.core;
        let (pending, active_room) = core.pending_and_room();
        let unsynced = core.writer().unsynced.len();
        let (spares, short_of_space) = {
            let pool = core.spares.lock();
            (pool.ready.len(), pool.short_of_space.is_some())
        };
        let table = core.table();
        let segments = table.segments.iter().map(|s| SegmentView {
            number: s.number,
            path: s.path.clone(),
            first_sequence: s.first_sequence,
            end: s.end,
            covered: s.covered,
        });
        Inside {
            pending,
            unsynced,
            spares,
            short_of_space,
            active_room,
            segments: segments.collect(),
        }
    }
}
