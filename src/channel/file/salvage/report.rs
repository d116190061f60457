//! What became of every sequence number, and how a salvage says it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use wal_format::Epoch;

use super::{PossiblyDelivered, Request};
use crate::channel::file::copy::{Copied, Run};
use crate::channel::file::range_set::RangeSet;
use crate::channel::file::recovery::Remains;
use crate::channel::file::state::LogState;
use crate::channel::queue::ranges::RangeSet as OpenSet;

/// A run of sequence numbers of the damaged log, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// First number.
    pub first: u64,
    /// Last number.
    pub last: u64,
}

impl Span {
    /// How many numbers.
    pub fn count(&self) -> u64 {
        self.last - self.first + 1
    }
}

/// Events of which the log cannot say whether they have been delivered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Possibly {
    /// First number.
    pub first: u64,
    /// Last number.
    pub last: u64,
    /// Why it cannot.
    pub why: String,
}

/// An epoch that was sealed and not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenEpoch {
    /// Its number under the old channel id.
    pub epoch: u64,
    /// Its first event.
    pub first: u64,
    /// Its last event.
    pub last: u64,
    /// The sink that sealed it.
    pub sink: String,
    /// Whether its number was taken in the store: then its files may have their final names.
    pub claimed: bool,
    /// Where its files were written.
    pub attempt: String,
    /// Where they stand once it is claimed.
    pub claim: String,
    /// Their final names.
    pub files: Vec<String>,
    /// What a person has to do about it.
    pub advice: String,
}

/// Bad bytes at the end of the log, which nothing proves to have been durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnprovenTail {
    /// Segment number.
    pub segment: u32,
    /// Offset at which they begin.
    pub offset: u32,
    /// How many bytes.
    pub bytes: u32,
    /// They may have held events from this number on. Those were acknowledged to their producers
    /// only if the disk has damaged what it had synced last.
    pub possibly_acknowledged_from: u64,
}

/// The outcome of a salvage; stands in the new directory as `salvage.done`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SalvageReport {
    /// The damaged log.
    pub dirs: Vec<PathBuf>,
    /// The new channel.
    pub to: PathBuf,
    /// What was to be done with events that may have been delivered.
    pub possibly_delivered_option: PossiblyDelivered,
    /// Id of the damaged log's channel, hexadecimal.
    pub old_channel: String,
    /// Id of the new channel.
    pub new_channel: String,
    /// The sequence number that the damaged log would have given next.
    pub next_sequence: u64,
    /// Events that are in the new channel, with their new numbers.
    pub kept: Vec<Run>,
    /// Events that are readable nowhere and that no record calls delivered.
    pub lost: Vec<Span>,
    /// Events that sinks had acknowledged.
    pub delivered: Vec<Span>,
    /// Events of which the log cannot say whether they were delivered.
    pub possibly_delivered: Vec<Possibly>,
    /// Those of them that are intact and were left out.
    pub left_out: Vec<Span>,
    /// Events before the first good frame of a log without a snapshot: acknowledged and deleted,
    /// unless a file of the log is missing.
    pub unknown: Option<Span>,
    /// Bad bytes at the end.
    pub tail: Option<UnprovenTail>,
    /// Epochs that were sealed and not done.
    pub open_epochs: Vec<OpenEpoch>,
    /// Keys of the read positions that came along.
    pub positions: Vec<String>,
    /// Whether a snapshot told them; otherwise sources that wrote nothing into what is left of the
    /// log have none.
    pub positions_complete: bool,
    /// Events that are gone with the read positions in their frames: a source whose position was
    /// not written again behind them sends them, and what follows them, again.
    pub positions_before: Vec<Span>,
    /// Files of the log that are of no use, and why.
    pub unusable_files: Vec<(PathBuf, String)>,
    /// Segments whose header was lost and whose salt was found out from their frames.
    pub salts_found: Vec<u32>,
    /// Files in the directories that are not the channel's.
    pub foreign_files: Vec<PathBuf>,
}

impl SalvageReport {
    /// Whether every event of the old log is in the new one or delivered for certain.
    pub fn is_complete(&self) -> bool {
        self.lost.is_empty() && self.possibly_delivered.is_empty() && self.unknown.is_none()
    }

    /// Events in the new channel.
    pub fn kept_events(&self) -> u64 {
        self.kept.iter().map(Run::count).sum()
    }

    pub(super) fn is_for(&self, request: &Request) -> bool {
        (&self.dirs, &self.to, self.possibly_delivered_option)
            == (&request.dirs, &request.to, request.possibly_delivered)
    }
}

/// What the log says of every sequence number.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    /// Acknowledged by a sink; below `unknown_below` nothing is.
    delivered: RangeSet,
    unknown_below: u64,
    possibly: Vec<Possibly>,
}

impl Verdicts {
    /// `refused_below`: another copy of the log publishes the events before this one.
    pub(super) fn of(remains: &Remains, state: &LogState, refused_below: u64) -> Self {
        let mut delivered = state.acked.clone();
        if state.cursor > 1 {
            delivered.insert(1, state.cursor - 1);
        }
        let unknown_below = remains.unknown_below.clamp(1, state.next_sequence.max(1));
        delivered.remove_below(unknown_below);
        // What no reason below has named yet; the first reason that fits is told.
        let mut open = OpenSet::default();
        open.insert(unknown_below, state.next_sequence);
        delivered
            .iter()
            .for_each(|(first, last)| open.remove(first, last + 1));
        let mut possibly = Vec::new();
        let mut name = |first: u64, end: u64, why: &str| {
            for (first, end) in open.within(first, end).collect::<Vec<_>>() {
                open.remove(first, end);
                let (last, why) = (end - 1, why.to_owned());
                possibly.push(Possibly { first, last, why });
            }
        };
        for epoch in state.epochs.values().filter(|epoch| epoch.claimed) {
            let why = format!(
                "epoch {} is claimed and not done: its files may have their final names",
                epoch.epoch
            );
            name(epoch.range.first, epoch.range.last + 1, &why);
        }
        if refused_below > 1 {
            let why = "a store has refused this log: another copy of it publishes them";
            name(1, refused_below, why);
        }
        if remains.recovered.hidden_below > 1 {
            let why = "damage may hide that they were acknowledged";
            name(1, remains.recovered.hidden_below, why);
        }
        possibly.sort_by_key(|p| p.first);
        Self {
            delivered,
            unknown_below,
            possibly,
        }
    }

    /// What is not to be copied.
    pub(super) fn to_skip(&self, choice: PossiblyDelivered) -> RangeSet {
        let mut skip = self.delivered.clone();
        if self.unknown_below > 1 {
            skip.insert(1, self.unknown_below - 1);
        }
        if choice == PossiblyDelivered::LeaveOut {
            self.possibly
                .iter()
                .for_each(|p| skip.insert(p.first, p.last));
        }
        skip
    }
}

/// All that a report is made of.
pub(super) struct Facts<'a> {
    pub(super) request: &'a Request,
    pub(super) old_channel: String,
    pub(super) new_channel: String,
    pub(super) remains: &'a Remains,
    pub(super) state: &'a LogState,
    pub(super) verdicts: Verdicts,
    pub(super) copied: Copied,
    pub(super) foreign: Vec<PathBuf>,
}

fn spans(ranges: impl IntoIterator<Item = (u64, u64)>) -> Vec<Span> {
    let span = |(first, last)| Span { first, last };
    ranges.into_iter().map(span).collect()
}

pub(super) fn compose(facts: Facts<'_>) -> SalvageReport {
    let Facts {
        request,
        remains,
        state,
        verdicts,
        copied,
        ..
    } = facts;
    let recovered = &remains.recovered;
    let left_out = match request.possibly_delivered {
        PossiblyDelivered::Keep => Vec::new(),
        PossiblyDelivered::LeaveOut => verdicts
            .possibly
            .iter()
            .map(|p| (p.first, p.last))
            .collect(),
    };
    let unknown = (verdicts.unknown_below > 1).then(|| Span {
        first: 1,
        last: verdicts.unknown_below - 1,
    });
    // Holes that the frames showed; those before the snapshot cost no position.
    let mut holes = state.lost.clone();
    holes.remove_below(remains.read_from);
    let tail = recovered.torn.map(|torn| UnprovenTail {
        segment: torn.segment,
        offset: torn.offset,
        bytes: torn.nonzero_end - torn.offset,
        possibly_acknowledged_from: state.next_sequence,
    });
    let root = |epoch: &Epoch| {
        let id = &facts.old_channel[..12.min(facts.old_channel.len())];
        format!("{}{}/_staging/{id}", epoch.store, epoch.base)
    };
    let keys = state.positions.keys();
    let open_epochs = state.epochs.values().map(|epoch| {
        let doubtful = |p: &Possibly| p.first <= epoch.range.last && epoch.range.first <= p.last;
        open_epoch(epoch, &root(epoch), verdicts.possibly.iter().any(doubtful))
    });
    let open_epochs = open_epochs.collect();
    SalvageReport {
        dirs: request.dirs.clone(),
        to: request.to.clone(),
        possibly_delivered_option: request.possibly_delivered,
        next_sequence: state.next_sequence,
        kept: copied.runs,
        lost: spans(copied.missing),
        delivered: spans(verdicts.delivered.iter()),
        possibly_delivered: verdicts.possibly,
        left_out: spans(left_out),
        unknown,
        tail,
        open_epochs,
        positions: keys
            .map(|key| String::from_utf8_lossy(key).into_owned())
            .collect(),
        positions_complete: remains.unknown_below <= 1,
        positions_before: spans(holes.iter()),
        unusable_files: remains.unusable.clone(),
        salts_found: remains.salts_found.clone(),
        foreign_files: facts.foreign,
        old_channel: facts.old_channel,
        new_channel: facts.new_channel,
    }
}

/// `doubtful`: it may be claimed, or done.
fn open_epoch(epoch: &Epoch, root: &str, doubtful: bool) -> OpenEpoch {
    let claim = format!("{root}/sealed/e{:016}", epoch.epoch);
    let attempt = format!("{}{}", epoch.store, epoch.attempt);
    let advice = match doubtful {
        true => format!(
            "move what is left in {claim}/parts to the final names and use --possibly-delivered \
             leave-out; or remove the files with these names and {claim}, and keep the events"
        ),
        false => format!(
            "no file of it has a final name as far as the log tells: remove {attempt} and {claim}"
        ),
    };
    OpenEpoch {
        epoch: epoch.epoch,
        first: epoch.range.first,
        last: epoch.range.last,
        sink: epoch.sink.clone(),
        claimed: epoch.claimed,
        attempt,
        claim,
        files: epoch
            .parts
            .iter()
            .map(|part| format!("{}{}", epoch.store, part.final_path))
            .collect(),
        advice,
    }
}
