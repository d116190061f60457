//! The unproven tail: which of its frames are copied forward.
//!
//! *Runs*: the suspects are the originals behind the proof and then, for each open that was cut
//! short, the copies it has written behind its snapshot. A run repeats the one before it as far as
//! it goes; where damage has taken a part of one, another one may have it whole.
//!
//! *Order*: the originals come first. Only where that leaves a hole, in front of them or in a run,
//! the tail may begin with a later run, and the originals come last: the one is chosen that tells
//! the highest numbers (what was given is not given again), then the one that loses least.

use std::cmp::Reverse;

use wal_format::{FrameHeader, FrameKind, Record};

use super::Suspect;
use super::base::is_opening;
use crate::channel::file::state::LogState;
use crate::planted::{Bug, planted};

/// The numbers that come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Numbers {
    sequence: u64,
    control: u64,
}

impl Numbers {
    fn of(state: &LogState) -> Self {
        Self {
            sequence: state.next_sequence,
            control: state.next_control,
        }
    }

    /// Behind a hole in front of this frame, if there is one.
    fn at(self, header: &FrameHeader) -> Self {
        Self {
            sequence: self.sequence.max(header.sequence),
            control: self.control.max(header.control),
        }
    }

    fn behind(self, header: &FrameHeader) -> Self {
        let numbered = header.kind != FrameKind::Put && is_numbered(header.kind);
        self.at(&FrameHeader {
            sequence: header.sequence + u64::from(header.count),
            control: header.control + u64::from(numbered),
            ..header.clone()
        })
    }
}

/// The suspects in the order in which they are followed.
pub(super) struct Tail {
    suspects: Vec<Suspect>,
    /// Where a run of copies begins.
    copies: Vec<usize>,
    /// Which of them comes first.
    first: usize,
    /// The numbers that it begins with.
    begun: Numbers,
}

impl Tail {
    pub(super) fn new(suspects: Vec<Suspect>, state: &LogState) -> Self {
        let copies = (0..suspects.len()).filter(|at| begins_a_copy(&suspects[*at]));
        let copies = copies.collect();
        let begun = Numbers::of(state);
        let mut tail = Self {
            suspects,
            copies,
            first: 0,
            begun,
        };
        tail.first = tail.best_beginning(begun);
        if !planted(Bug::NoHoleBeforeTail) {
            tail.begun = tail.first().map_or(begun, |header| begun.at(header));
        }
        tail
    }

    /// The frame that the tail begins with; what is missing in front of it is lost.
    pub(super) fn first(&self) -> Option<&FrameHeader> {
        self.suspects.get(self.first).map(|s| &s.header)
    }

    fn best_beginning(&self, next: Numbers) -> usize {
        let told = |numbers: Numbers, s: &Suspect| numbers.behind(&s.header);
        let told = self.suspects.iter().fold(next, told);
        let from = |first: usize| {
            let header = self.suspects.get(first).map(|s| &s.header);
            let begun = header.map_or(next, |header| next.at(header));
            (begun, self.follow(first, begun).reached)
        };
        let originals = from(0);
        if originals == (next, told) || planted(Bug::CopiesUnused) {
            return 0;
        }
        let mut best = (originals, 0);
        for &first in self.copies.iter().filter(|first| **first > 0) {
            let other = from(first);
            if (other.1, Reverse(other.0)) > (best.0.1, Reverse(best.0.0)) {
                best = (other, first);
            }
        }
        best.1
    }

    /// INV-13: what has to be copied: whole transactions in sequence, without repeats and without
    /// records that only prove or describe.
    pub(super) fn whole_transactions(self) -> Vec<Suspect> {
        let mut walk = self.follow(self.first, self.begun);
        if planted(Bug::HalfTransactions) {
            walk.whole.append(&mut walk.open);
        }
        let whole = walk.whole;
        let mut suspects: Vec<_> = self.suspects.into_iter().map(Some).collect();
        whole
            .into_iter()
            .filter_map(|at| suspects[at].take())
            .collect()
    }

    /// From this suspect to the last one, and then those before it.
    fn follow(&self, first: usize, next: Numbers) -> Walk<'_> {
        let mut walk = Walk {
            suspects: &self.suspects,
            next,
            reached: next,
            whole: Vec::new(),
            open: Vec::new(),
            repeated: 0,
            behind_gap: false,
            joined: true,
        };
        for at in (first..self.suspects.len()).chain(0..first) {
            if at == 0 || self.copies.binary_search(&at).is_ok() {
                walk.begin_run(at);
            }
            walk.step(at);
        }
        walk
    }
}

/// What has been followed so far, by index.
struct Walk<'a> {
    suspects: &'a [Suspect],
    next: Numbers,
    /// Behind the last whole transaction.
    reached: Numbers,
    whole: Vec<usize>,
    /// Frames of a transaction whose end has not come yet.
    open: Vec<usize>,
    /// How much of `whole` the run has repeated.
    repeated: usize,
    /// Nothing more of this run counts.
    behind_gap: bool,
    /// Whether the run may go on where those before it end: originals not behind an Incarnation
    /// among copies, which may have got a number of theirs, unless they have a frame in common.
    joined: bool,
}

impl Walk<'_> {
    fn begin_run(&mut self, at: usize) {
        self.repeated = 0;
        self.behind_gap &= planted(Bug::CopiesUnused);
        let opened = |at: &usize| self.suspects[*at].header.kind == FrameKind::Incarnation;
        self.joined = at > 0 || !self.whole.iter().any(opened);
    }

    fn step(&mut self, at: usize) {
        let header = &self.suspects[at].header;
        if self.behind_gap || !is_numbered(header.kind) || self.is_repeat(at) {
            return;
        }
        let put = header.kind == FrameKind::Put;
        let gap = put && header.sequence != self.next.sequence && !planted(Bug::NoSequenceCheck);
        let control_gap = header.control != self.next.control && !planted(Bug::NoControlCheck);
        let torn = !put && !self.open.is_empty();
        if gap || control_gap || torn || !self.joined {
            self.behind_gap = true;
            return;
        }
        self.open.push(at);
        if put {
            self.next.sequence += u64::from(header.count);
        } else {
            self.next.control += 1;
        }
        if !put || header.last_of_transaction {
            self.whole.append(&mut self.open);
            self.reached = self.next;
            self.repeated = self.whole.len();
        }
    }

    /// Whether an earlier run has had it.
    fn is_repeat(&mut self, at: usize) -> bool {
        let header = &self.suspects[at].header;
        let put = header.kind == FrameKind::Put;
        let passed = match put {
            true => header.sequence < self.next.sequence && !planted(Bug::NoRepeatCheck),
            false => header.control < self.next.control,
        };
        // INV-15: a transaction without events has no number of its own that would tell its copy
        // from it; were the copy of an earlier one applied behind a later one, its positions would
        // go back. So each copy counts for the next of its kind only.
        let unnumbered = put && header.count == 0 && !planted(Bug::EmptyPutAgain);
        if !passed && !unnumbered {
            return false;
        }
        let found = self.find(at);
        if let Some(found) = found {
            self.repeated = found + 1;
            self.joined = true;
        }
        passed || found.is_some()
    }

    /// Where the same frame stands in what is whole, behind what the run has repeated.
    fn find(&self, at: usize) -> Option<usize> {
        let wanted = &self.suspects[at];
        let place = |s: &Suspect| (s.header.sequence, s.header.control);
        let whole = |index: &usize| &self.suspects[*index];
        let from = self
            .whole
            .partition_point(|index| place(whole(index)) < place(wanted));
        let from = from.max(self.repeated);
        let equal = self.whole.iter().skip(from).map(whole);
        let mut equal = equal.take_while(|s| place(s) == place(wanted));
        let same = |s: &Suspect| s.header.kind == wanted.header.kind && s.body == wanted.body;
        equal.position(same).map(|behind| from + behind)
    }
}

/// The snapshot of an open: the frames behind it are copies, and that it is here among the unproven
/// ones says that the open was cut short.
fn begins_a_copy(suspect: &Suspect) -> bool {
    let snapshot = suspect.header.kind == FrameKind::Snapshot;
    let decoded = snapshot.then(|| Record::decode(FrameKind::Snapshot, &suspect.body));
    matches!(decoded, Some(Ok(Record::Snapshot(snapshot))) if is_opening(&snapshot))
}

/// Not one that only proves or describes.
fn is_numbered(kind: FrameKind) -> bool {
    !matches!(
        kind,
        FrameKind::Watermark | FrameKind::Snapshot | FrameKind::SegmentSeal
    )
}

#[cfg(test)]
#[path = "tail_tests.rs"]
mod tests;
