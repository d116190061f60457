//! The durable state of a channel: what the log says, up to the last sync that returned.
//!
//! *Place in the flow*: the committer applies each operation after the sync that covers it;
//! recovery applies the same operations while it scans; a snapshot is this state written down.
//! *Invariant* INV-15: nothing is applied before it is durable, and a put with its positions at
//! once, so a snapshot never says more than the disk held before it.

use std::collections::BTreeMap;

use wal_format::{Epoch, Identity, Open, Producer, Range, Record, Routes, SegmentRef, Snapshot};

use super::range_set::RangeSet;
use crate::planted::{self, Bug, planted};

/// One written operation, kept in memory until its sync has returned.
#[derive(Debug)]
pub(super) enum Op {
    /// Events `first .. first + count`, and the positions behind them.
    Put {
        first: u64,
        count: u64,
        positions: Vec<(Vec<u8>, Vec<u8>)>,
    },
    /// A control record.
    Record(Record),
}

/// Whether losing a record of this kind would lose something that is written nowhere else. Only
/// such records are numbered, so that a hole without them is known to hide no decision.
pub(super) fn is_numbered(record: &Record) -> bool {
    !matches!(
        record,
        Record::Watermark | Record::Snapshot(_) | Record::SegmentSeal { .. }
    )
}

/// See the module head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LogState {
    pub(super) next_sequence: u64,
    pub(super) next_control: u64,
    pub(super) cursor: u64,
    pub(super) acked: RangeSet,
    pub(super) lost: RangeSet,
    pub(super) positions: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What the positions take in a snapshot, in bytes.
    pub(super) position_bytes: usize,
    pub(super) producers: Vec<Producer>,
    pub(super) routes: Vec<Routes>,
    pub(super) incarnation: u32,
    pub(super) incarnations: Vec<(u32, u64)>,
    pub(super) fenced_through: u32,
    pub(super) identity: Identity,
    pub(super) next_epoch: u64,
    pub(super) epochs: BTreeMap<u64, Epoch>,
    pub(super) control_lost: bool,
}

/// A position in a snapshot: key and value with the lengths of both.
fn position_bytes(key: &[u8], value: &[u8]) -> usize {
    key.len() + value.len() + 8
}

/// Nonces of that many newest incarnations are remembered.
const INCARNATIONS_KEPT: usize = 256;

impl LogState {
    /// The state of a channel before its first event; events and epochs count from 1.
    pub(super) fn fresh() -> Self {
        Self {
            next_sequence: 1,
            cursor: 1,
            next_epoch: 1,
            ..Self::default()
        }
    }

    pub(super) fn from_snapshot(sequence: u64, control: u64, snapshot: &Snapshot) -> Self {
        let mut state = Self {
            next_sequence: sequence,
            next_control: control,
            cursor: snapshot.acked_below,
            positions: snapshot.positions.iter().cloned().collect(),
            producers: snapshot.producers.clone(),
            routes: snapshot.routes.clone(),
            incarnation: snapshot.incarnation,
            incarnations: snapshot.incarnations.clone(),
            fenced_through: snapshot.fenced_through,
            identity: snapshot.identity,
            next_epoch: snapshot.next_epoch,
            epochs: snapshot
                .epochs
                .iter()
                .map(|e| (e.epoch, e.clone()))
                .collect(),
            control_lost: snapshot.control_lost,
            ..Self::default()
        };
        let entries = state.positions.iter();
        state.position_bytes = entries.map(|(k, v)| position_bytes(k, v)).sum();
        for range in &snapshot.acked {
            state.acked.insert(range.first, range.last);
        }
        for range in &snapshot.lost {
            state.lost.insert(range.first, range.last);
        }
        state
    }

    pub(super) fn to_snapshot(&self, segments: Vec<SegmentRef>) -> Snapshot {
        let ranges = |set: &RangeSet| {
            set.iter()
                .map(|(first, last)| Range { first, last })
                .collect()
        };
        let mut snapshot = Snapshot {
            acked_below: self.cursor,
            acked: ranges(&self.acked),
            lost: ranges(&self.lost),
            positions: self
                .positions
                .iter()
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect(),
            producers: self.producers.clone(),
            routes: self.routes.clone(),
            incarnation: self.incarnation,
            incarnations: self.incarnations.clone(),
            fenced_through: self.fenced_through,
            identity: self.identity,
            next_epoch: self.next_epoch,
            epochs: self.epochs.values().cloned().collect(),
            segments,
            control_lost: self.control_lost,
        };
        planted::leave_out(&mut snapshot);
        snapshot
    }

    pub(super) fn apply(&mut self, op: Op) {
        match op {
            Op::Put {
                first,
                count,
                positions,
            } => {
                debug_assert_eq!(
                    first, self.next_sequence,
                    "INV-5: sequence numbers are dense"
                );
                self.next_sequence = first + count;
                for (key, value) in positions {
                    self.set_position(key, value);
                }
            }
            Op::Record(record) => self.apply_record(record),
        }
    }

    pub(super) fn set_position(&mut self, key: Vec<u8>, value: Vec<u8>) {
        if let Some(old) = self.positions.remove(&key) {
            self.position_bytes -= position_bytes(&key, &old);
        }
        if !value.is_empty() {
            self.position_bytes += position_bytes(&key, &value);
            self.positions.insert(key, value);
        }
    }

    /// By how much the table of positions grows at most when these are applied.
    pub(super) fn position_growth(&self, positions: &[(Vec<u8>, Vec<u8>)]) -> usize {
        let growth = |(key, value): &(Vec<u8>, Vec<u8>)| match self.positions.get(key) {
            _ if value.is_empty() => 0,
            Some(old) => value.len().saturating_sub(old.len()),
            None => position_bytes(key, value),
        };
        positions.iter().map(growth).sum()
    }

    fn apply_record(&mut self, record: Record) {
        if is_numbered(&record) {
            self.next_control += 1;
        }
        match record {
            Record::Ack(ranges) => {
                for range in ranges {
                    self.acknowledge(range.first, range.last);
                }
            }
            Record::Routes(routes) => {
                // Channels differ by at most one batch, so the newest route table is enough.
                self.routes = vec![routes];
            }
            Record::Seal(epoch) | Record::Claimed(epoch) => {
                self.next_epoch = self.next_epoch.max(epoch.epoch + 1);
                self.epochs.insert(epoch.epoch, epoch);
            }
            Record::Done { epoch } => {
                if let Some(done) = self.epochs.remove(&epoch)
                    && !planted(Bug::DoneForgets)
                {
                    self.acknowledge(done.range.first, done.range.last);
                }
            }
            Record::Abandon { epoch } => {
                self.epochs.remove(&epoch);
            }
            Record::Fence { through } => self.fenced_through = self.fenced_through.max(through),
            Record::Incarnation(open) => self.opened(&open),
            Record::Watermark | Record::Snapshot(_) | Record::SegmentSeal { .. } => {}
        }
    }

    fn opened(&mut self, open: &Open) {
        self.incarnation = open.incarnation;
        self.identity = open.identity;
        let named = (open.incarnation, open.nonce);
        if self.incarnations.last() == Some(&named) {
            // Repeated once the stores have said that the directory is its place.
            return;
        }
        self.incarnations.push(named);
        if self.incarnations.len() > INCARNATIONS_KEPT {
            self.incarnations.remove(0);
        }
    }

    fn acknowledge(&mut self, first: u64, last: u64) {
        self.acked.insert(first, last);
        let lowest = self.acked.iter().next();
        if let Some((_, l)) = lowest.filter(|(f, _)| *f <= self.cursor) {
            self.cursor = self.cursor.max(l + 1);
            self.acked.remove_below(self.cursor);
            self.lost.remove_below(self.cursor);
        }
    }

    /// Whether every event of `first .. end` is acknowledged, so that the segment that holds
    /// them pins nothing. Events of claimed epochs count as gone where space is needed: their
    /// parts are closed in the store.
    pub(super) fn is_dead(&self, first: u64, end: u64, space_needed: bool) -> bool {
        if end <= first || end <= self.cursor {
            return true;
        }
        let first = first.max(self.cursor);
        if self.acked.covers(first, end - 1) {
            return true;
        }
        if !space_needed {
            return false;
        }
        let mut gone = self.acked.clone();
        for epoch in self.epochs.values().filter(|e| e.claimed) {
            gone.insert(epoch.range.first, epoch.range.last);
        }
        gone.covers(first, end - 1)
    }
}
