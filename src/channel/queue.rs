//! The queue of a channel: one cursor, leases, returned runs, capacity. Pure state: no I/O, no
//! lock, no clock of its own (times are passed in).
//!
//! *Place in the flow*: a channel keeps one `Queue` behind its lock, tells it what was put, became
//! durable, was acknowledged, sealed or done, and asks it which run a lease may read next.
//!
//! *Invariants*, checked by [`Queue::check`] after every change in debug builds: every number from
//! the cursor to the durable end is in exactly one place (INV-14, INV-16): acknowledged,
//! acknowledgement pending, sealed, held by one lease, returned, or never taken yet (the tail).
//! Memory follows the number of leases, sealed epochs and gaps, never the number of events.
//!
//! *Who gets what.* Returned runs are served first, lowest first. A staged lease owns a *block*:
//! alone on the channel it reaches to the durable end and grows with it; once another lease has
//! been open beside it, it covers at most `block_events`. Blocks are cut from durable events at
//! once, read or not; only the block that ends at the durable end grows, and it takes every new
//! event until it is full, so that nobody else gets one before. A holder that leaves events of its
//! block unread for [`STALL`] while another taker goes without loses the unread rest, and its
//! block never grows again. So does a staged lease that would keep a lower returned run waiting
//! that long, because only a new lease can take that run.
//!
//! *What a crash leaves*: nothing of this is stored. [`Queue::new`] builds it from what the log
//! proves; leases are gone and their events wait at the head again.

mod flow;
pub(crate) mod ranges;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use self::ranges::{RangeSet, closed, end_of};
use super::{LeaseId, TakeMode};
use crate::event::{Seq, SeqRange};

/// How long events may lie unread in a block while another taker goes without.
pub const STALL: Duration = Duration::from_secs(5);

/// Where the first event of a run can be found; opaque to the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadHint {
    /// Segment number.
    pub segment: u32,
    /// Byte offset of the frame in the segment.
    pub offset: u32,
    /// Events of that frame to skip.
    pub skip: u32,
}

/// The lease is not held, or does not hold what the call names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the lease is no longer held")]
pub struct Lost;

/// The next run a lease may read. It counts as taken until [`Queue::granted`] or
/// [`Queue::ungrant`] says how far the reader came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Contiguous with what the lease holds.
    pub range: SeqRange,
    /// Where the first event of `range` is, if that is known.
    pub hint: Option<ReadHint>,
    /// Sub-runs of `range` known to be lost to damage: not to be read. They do not count against
    /// the number of events asked for.
    pub lost: Vec<SeqRange>,
}

/// Sums in events; see [`Queue::counts`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Durable and read by nobody: the tail, returned runs, unread parts of blocks.
    pub waiting: u64,
    /// In the log, not yet durable.
    pub committed: u64,
    /// Room promised to puts that are not in the log yet.
    pub reserved: u64,
    /// Read by batch leases.
    pub leased: u64,
    /// Read by staged leases.
    pub staged: u64,
    /// Acknowledgement begun, not yet durable.
    pub acking: u64,
    /// In sealed epochs that are not done.
    pub sealed: u64,
    /// Lost to damage and not yet acknowledged, wherever they are.
    pub lost: u64,
}

/// One lease. Its block is `first..block_end`: read up to `read_end`, being read up to
/// `taken_end`, the rest kept for it. It holds nothing when `first == block_end`.
#[derive(Debug)]
struct Lease {
    mode: TakeMode,
    first: u64,
    read_end: u64,
    taken_end: u64,
    block_end: u64,
    /// Where `first` is.
    first_hint: Option<ReadHint>,
    /// Where `read_end` is.
    next_hint: Option<ReadHint>,
    /// Another lease has been open beside it, so its block is bounded.
    contended: bool,
    /// Lost its rest: never grows again.
    frozen: bool,
    must_seal: bool,
    /// When another taker was first seen to go without while this one had unread events.
    unread_since: Option<Instant>,
}

impl Lease {
    fn new(mode: TakeMode, contended: bool) -> Self {
        Self {
            mode,
            first: 0,
            read_end: 0,
            taken_end: 0,
            block_end: 0,
            first_hint: None,
            next_hint: None,
            contended,
            frozen: false,
            must_seal: false,
            unread_since: None,
        }
    }

    fn is_empty(&self) -> bool {
        self.first == self.block_end
    }

    fn is_staged(&self) -> bool {
        matches!(self.mode, TakeMode::Staged { .. })
    }

    fn has_unread(&self) -> bool {
        self.block_end > self.taken_end
    }

    /// How many more events the block may cover.
    fn room(&self) -> u64 {
        let covered = self.block_end - self.first;
        match self.mode {
            TakeMode::Staged { .. } if self.frozen => 0,
            TakeMode::Staged { block_events } if self.contended => {
                block_events.max(1).saturating_sub(covered)
            }
            _ => u64::MAX,
        }
    }

    /// Where the first unread event is, if the reader got that far.
    fn unread_hint(&self) -> Option<ReadHint> {
        self.next_hint.filter(|_| self.read_end == self.taken_end)
    }
}

/// A waiting run that was held before and came back.
#[derive(Clone, Copy, Debug)]
struct Run {
    end: u64,
    hint: Option<ReadHint>,
}

/// The state machine of one channel; see the module.
#[derive(Debug)]
pub struct Queue {
    capacity: u64,
    reserved: u64,
    committed: u64,
    /// All below is acknowledged.
    cursor: u64,
    acked: RangeSet,
    acking: RangeSet,
    sealed: RangeSet,
    lost: RangeSet,
    /// Waiting runs below the tail, by first number; no two touch, none touches the tail.
    returned: BTreeMap<u64, Run>,
    /// The tail is `tail..end`.
    tail: u64,
    tail_hint: Option<ReadHint>,
    /// Exclusive durable end.
    end: u64,
    leases: BTreeMap<LeaseId, Lease>,
    next_lease: u64,
    waiting: u64,
    leased: u64,
    staged: u64,
    /// The lowest returned run, and when it was first seen waiting under an open block.
    head_since: Option<(u64, Instant)>,
}

impl Queue {
    /// The queue of a channel as its log proves it: everything below `cursor` and in `acked` is
    /// acknowledged, `sealed` are the epochs not yet done, `lost` is known damage, `end` the next
    /// number that can become durable. All the rest waits at the head.
    ///
    /// Where the ranges disagree, acknowledged wins over sealed, and `end` moves past all of them,
    /// so that no number is ever given twice.
    pub fn new(
        capacity: u64,
        cursor: Seq,
        acked: &[SeqRange],
        sealed: &[SeqRange],
        lost: &[SeqRange],
        end: Seq,
    ) -> Self {
        let mut acked: RangeSet = acked.iter().copied().collect();
        let mut sealed: RangeSet = sealed.iter().copied().collect();
        let ends = [Some(end.0), Some(cursor.0), acked.end(), sealed.end()];
        let end = ends.into_iter().flatten().max().unwrap_or(0);
        acked.remove(0, cursor.0);
        sealed.remove(0, cursor.0);
        acked.iter().for_each(|(f, e)| sealed.remove(f, e));
        let mut queue = Self {
            capacity,
            reserved: 0,
            committed: 0,
            cursor: cursor.0,
            acked,
            acking: RangeSet::default(),
            sealed,
            lost: lost.iter().copied().collect(),
            returned: BTreeMap::new(),
            tail: end,
            tail_hint: None,
            end,
            leases: BTreeMap::new(),
            next_lease: 1,
            waiting: 0,
            leased: 0,
            staged: 0,
            head_since: None,
        };
        let mut gaps = RangeSet::default();
        gaps.insert(cursor.0, end);
        queue
            .acked
            .iter()
            .chain(queue.sealed.iter())
            .for_each(|(f, e)| gaps.remove(f, e));
        for (first, end) in gaps.iter() {
            queue.waiting += end - first;
            queue.give_back(first, end, None);
        }
        queue.advance_cursor();
        queue.debug_check();
        queue
    }

    /// Promises room for `events`; false when the channel is full. Counted against the capacity:
    /// what waits, is promised, is committed and not durable, or is held by batch leases. Staged
    /// and sealed events do not count. Returned events may exceed it: only new puts wait.
    pub fn try_reserve(&mut self, events: u64) -> bool {
        let occupied = self.waiting + self.leased + self.committed + self.reserved;
        let fits = events == 0 || occupied.saturating_add(events) <= self.capacity;
        if fits {
            self.reserved += events;
        }
        fits
    }

    /// Gives promised room back: the put failed.
    pub fn unreserve(&mut self, events: u64) {
        debug_assert!(
            events <= self.reserved,
            "{events} given back, {} reserved",
            self.reserved
        );
        self.reserved = self.reserved.saturating_sub(events);
    }

    /// Promised events are in the log and not yet durable.
    pub fn committed(&mut self, events: u64) {
        self.unreserve(events);
        self.committed = self.committed.saturating_add(events);
    }

    /// Everything below `end` is durable and may be taken. A lower `end` than before is ignored.
    pub fn publish_durable(&mut self, end: Seq) {
        let added = end.0.saturating_sub(self.end);
        self.committed = self.committed.saturating_sub(added);
        self.waiting += added;
        self.end += added;
        let grower = self.leases.iter().find(|(_, l)| {
            l.is_staged() && !l.is_empty() && l.block_end == self.tail && l.room() > 0
        });
        if let Some(id) = grower.map(|(id, _)| *id) {
            self.extend(id);
        }
        self.debug_check();
    }

    /// Opens an empty lease. From now on every open staged lease is bounded to its `block_events`;
    /// what it has kept beyond them without reading it goes back.
    pub fn open_lease(&mut self, mode: TakeMode) -> LeaseId {
        let id = LeaseId(self.next_lease);
        self.next_lease += 1;
        let others: Vec<LeaseId> = self.leases.keys().copied().collect();
        for other in &others {
            self.contend(*other);
        }
        self.leases.insert(id, Lease::new(mode, !others.is_empty()));
        self.debug_check();
        id
    }

    /// The next run for `lease` to read, of at most `max_events` events that are not lost, or
    /// `None` when there is none now (or a read of this lease is under way).
    pub fn grant(
        &mut self,
        lease: LeaseId,
        max_events: u64,
        now: Instant,
    ) -> Result<Option<Grant>, Lost> {
        let held = self.leases.get_mut(&lease).ok_or(Lost)?;
        held.unread_since = None;
        if held.taken_end > held.read_end || max_events == 0 {
            return Ok(None);
        }
        self.freeze_above_head(lease, now);
        if !self.has_unread(lease) && !self.extend(lease) && self.is_empty(lease) {
            self.pass_on_stalled(Some(lease), now);
            self.extend(lease);
        }
        let grant = self.grant_unread(lease, max_events);
        self.debug_check();
        Ok(grant)
    }

    /// Marks up to `max_events` of the kept events of `lease` as taken.
    fn grant_unread(&mut self, id: LeaseId, max_events: u64) -> Option<Grant> {
        let lease = self.leases.get_mut(&id).filter(|l| l.has_unread())?;
        let first = lease.taken_end;
        let lost: Vec<_> = self.lost.within(first, lease.block_end).collect();
        let mut end = first.saturating_add(max_events);
        for (lost_first, lost_end) in &lost {
            if *lost_first >= end {
                break;
            }
            end = end.saturating_add(lost_end - lost_first);
        }
        let end = end.min(lease.block_end);
        lease.taken_end = end;
        let hint = lease.next_hint;
        let rest = (end, lease.block_end);
        self.waiting -= end - first;
        if lease.is_staged() {
            self.staged += end - first;
        } else {
            self.leased += end - first;
            lease.block_end = end;
            self.give_back(rest.0, rest.1, None);
        }
        let clip = |(f, e): (u64, u64)| closed(f, e.min(end));
        let lost = lost.into_iter().filter_map(clip).collect();
        closed(first, end).map(|range| Grant { range, hint, lost })
    }

    /// The reader of the last grant came up to and including `through`, and `next_hint` is where
    /// the event after it is. A staged lease keeps the rest of its block; the rest of a batch
    /// lease's grant waits at the head for the first who asks.
    pub fn granted(&mut self, lease: LeaseId, through: Seq, next_hint: Option<ReadHint>) {
        let end = through.0.saturating_add(1);
        let Some(held) = self.leases.get_mut(&lease) else {
            return;
        };
        debug_assert!(
            held.read_end <= end && end <= held.taken_end,
            "outside the grant"
        );
        if held.read_end < end {
            held.next_hint = next_hint;
        }
        self.settle(lease, end);
    }

    /// Nothing of the last grant could be read: all of it waits again.
    pub fn ungrant(&mut self, lease: LeaseId) {
        if let Some(read_end) = self.leases.get(&lease).map(|l| l.read_end) {
            self.settle(lease, read_end);
        }
    }

    /// Ends a read at `end`.
    fn settle(&mut self, id: LeaseId, end: u64) {
        let Some(lease) = self.leases.get_mut(&id) else {
            return;
        };
        let end = end.clamp(lease.read_end, lease.taken_end);
        let unread = lease.taken_end - end;
        lease.read_end = end;
        lease.taken_end = end;
        self.waiting += unread;
        let hint = lease.next_hint;
        let keep = lease.is_staged() && lease.first < end;
        let rest = if keep { lease.block_end } else { end };
        let back = (rest, lease.block_end);
        lease.block_end = rest;
        *self.taken(id) -= unread;
        self.give_back(back.0, back.1, hint);
        if end == self.tail && hint.is_some() {
            self.tail_hint = hint;
        } else if let Some(run) = self.returned.get_mut(&end) {
            run.hint = run.hint.or(hint);
        }
        self.reset_if_empty(id);
        self.debug_check();
    }

    /// Whether `lease` cannot grow any more: it is gone, frozen, full, or another holds what
    /// follows. Commit or seal it and open another. A lease that holds nothing is as good as new.
    pub fn exhausted(&self, lease: LeaseId) -> bool {
        let Some(lease) = self.leases.get(&lease) else {
            return true;
        };
        let follows = lease.block_end == self.tail || self.returned.contains_key(&lease.block_end);
        !lease.is_empty() && !lease.has_unread() && (lease.room() == 0 || !follows)
    }

    /// Begins to acknowledge `[held.first, through]`: it leaves the lease and the capacity, and no
    /// release can return it. Follow with [`Queue::finish_ack`] when the acknowledgement is
    /// durable, or [`Queue::cancel_ack`] when it could not be written; whoever writes it must do
    /// so even when the caller is gone. Refused unless all of it was read under this lease.
    pub fn begin_ack(&mut self, lease: LeaseId, through: Seq) -> Result<SeqRange, Lost> {
        let range = self.check_seal(lease, through)?;
        self.cut_front(lease, end_of(range));
        self.acking.insert(range.first.0, end_of(range));
        self.debug_check();
        Ok(range)
    }

    /// The acknowledgement of `range` is durable.
    pub fn finish_ack(&mut self, range: SeqRange) {
        debug_assert!(
            self.acking.covers(range.first.0, end_of(range)),
            "{range:?} not begun"
        );
        self.acking.remove(range.first.0, end_of(range));
        self.acknowledge(range);
    }

    /// The acknowledgement of `range` could not be written: the run goes back to the head.
    pub fn cancel_ack(&mut self, range: SeqRange) {
        let (first, end) = (range.first.0, end_of(range));
        let runs: Vec<_> = self.acking.within(first, end).collect();
        self.acking.remove(first, end);
        self.take_back(&runs);
    }

    /// [`Queue::begin_ack`] and [`Queue::finish_ack`] in one, for a channel without a log.
    pub fn ack(&mut self, lease: LeaseId, through: Seq) -> Result<SeqRange, Lost> {
        let range = self.begin_ack(lease, through)?;
        self.finish_ack(range);
        Ok(range)
    }

    /// The run that [`Queue::seal`] would take out of `lease`; refused unless the lease is held
    /// and has read all of it.
    pub fn check_seal(&self, lease: LeaseId, last: Seq) -> Result<SeqRange, Lost> {
        let lease = self.leases.get(&lease).ok_or(Lost)?;
        if last.0 >= lease.read_end {
            return Err(Lost);
        }
        SeqRange::new(Seq(lease.first), last).ok_or(Lost)
    }

    /// Takes `[held.first, last]` out of `lease` as sealed; the rest stays held. A compare-and-set
    /// on the lease: refused unless it is still held and has read all of the run. If the SEAL
    /// record then cannot be written: [`Queue::unseal`].
    pub fn seal(&mut self, lease: LeaseId, last: Seq) -> Result<SeqRange, Lost> {
        let range = self.check_seal(lease, last)?;
        self.cut_front(lease, end_of(range));
        self.sealed.insert(range.first.0, end_of(range));
        self.debug_check();
        Ok(range)
    }

    /// The SEAL record of `range` could not be written: the run goes back to the head.
    pub fn unseal(&mut self, range: SeqRange) {
        self.abandon(range);
    }

    /// The sealed epoch of `range` is published: its events are acknowledged.
    pub fn done(&mut self, range: SeqRange) {
        debug_assert!(
            self.sealed.covers(range.first.0, end_of(range)),
            "{range:?} not sealed"
        );
        self.sealed.remove(range.first.0, end_of(range));
        self.acknowledge(range);
    }

    /// The sealed epoch of `range` is given up: the run goes back to the head.
    pub fn abandon(&mut self, range: SeqRange) {
        let (first, end) = (range.first.0, end_of(range));
        let runs: Vec<_> = self.sealed.within(first, end).collect();
        self.sealed.remove(first, end);
        self.take_back(&runs);
    }

    /// Ends `lease`: everything it holds goes back to the head, in order. A read under way is
    /// void; its result must be dropped. Idempotent.
    pub fn release(&mut self, lease: LeaseId) {
        let Some(taken) = self.leases.get(&lease).map(|l| l.taken_end - l.first) else {
            return;
        };
        *self.taken(lease) -= taken;
        self.waiting += taken;
        if let Some(l) = self.leases.remove(&lease) {
            self.give_back(l.first, l.block_end, l.first_hint);
        }
        self.debug_check();
    }

    /// Ends every lease; see [`Queue::release`].
    pub fn release_all(&mut self) {
        let open: Vec<LeaseId> = self.leases.keys().copied().collect();
        open.into_iter().for_each(|lease| self.release(lease));
    }

    /// Records damage found while reading. Numbers that are acknowledged or in a sealed epoch are
    /// left out: they have been read.
    pub fn add_lost(&mut self, range: SeqRange) {
        let (first, end) = (range.first.0.max(self.cursor), end_of(range).min(self.end));
        let mut hole = RangeSet::default();
        hole.insert(first, end);
        for set in [&self.acked, &self.acking, &self.sealed] {
            set.within(first, end).for_each(|(f, e)| hole.remove(f, e));
        }
        hole.iter().for_each(|(f, e)| self.lost.insert(f, e));
        self.debug_check();
    }

    /// Bytes are short: asks the staged lease with the lowest numbers to seal now. The same lease
    /// is named again until it has sealed or is released. `None`: no staged lease has read any.
    pub fn ask_oldest_staged_to_seal(&mut self) -> Option<LeaseId> {
        let read = self
            .leases
            .iter_mut()
            .filter(|(_, l)| l.is_staged() && l.read_end > l.first);
        let (id, lease) = read.min_by_key(|(_, l)| l.first)?;
        lease.must_seal = true;
        Some(*id)
    }

    /// Whether `lease` has been asked to seal since it last did.
    pub fn must_seal(&self, lease: LeaseId) -> bool {
        self.leases.get(&lease).is_some_and(|l| l.must_seal)
    }

    /// All numbers below are acknowledged.
    pub fn cursor(&self) -> Seq {
        Seq(self.cursor)
    }

    /// What is acknowledged above the cursor, ascending, adjacent runs as one.
    pub fn acked_ranges(&self) -> Vec<SeqRange> {
        self.acked.to_vec()
    }

    /// Damage not yet acknowledged, ascending.
    pub fn lost_ranges(&self) -> Vec<SeqRange> {
        self.lost.to_vec()
    }

    /// One past the last durable number.
    pub fn durable_end(&self) -> Seq {
        Seq(self.end)
    }

    /// Sums for the status.
    pub fn counts(&self) -> Counts {
        Counts {
            waiting: self.waiting,
            committed: self.committed,
            reserved: self.reserved,
            leased: self.leased,
            staged: self.staged,
            acking: self.acking.count(),
            sealed: self.sealed.count(),
            lost: self.lost.count(),
        }
    }
}
