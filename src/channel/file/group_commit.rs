//! Group commit: who writes and syncs, and who waits for whom.
//!
//! Producers encode and checksum in their own threads and queue their transactions. The role of
//! the committer is a lock: a producer that finds it free leads its own group (no hand-over
//! between threads for a lone producer); what gathers while it syncs is led by the background
//! thread, so a leader serves others at most once. There is no timer: the next group is whatever
//! has gathered while the last one was synced. (The idea of letting the first waiter sync for
//! the rest is old; okaywal and PostgreSQL do it.)
//!
//! *Invariant* INV-6: every waiter is answered on every path; a failed sync answers all of them
//! with the error and ends the log instance.

use std::time::{Duration, Instant};

use tokio::sync::OwnedMutexGuard;
use wal_format::{FrameKind, Record};

use super::Core;
use super::journal::seq_range;
use super::log::{Entry, EntryOp, LogWriter};
use super::options::{SPARES_RESERVED, SyncMode};
use super::pending::{Answer, Pending, Ready, Written, answer};
use super::state::{LogState, Op};
use crate::channel::ChannelError;
use crate::env::sync::atomic::Ordering;
use crate::env::sync::{self, MutexGuard, PoisonError, oneshot};
use crate::event::{Seq, SeqRange};
use crate::planted::{Bug, planted};

/// What the committer remembers from round to round.
#[derive(Debug)]
pub(super) struct Rounds {
    quiet_since: Instant,
    last_sync: Instant,
    last_chores: Instant,
}

impl Rounds {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            quiet_since: now,
            last_sync: now,
            last_chores: now,
        }
    }
}

/// How leading a group went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lead {
    /// Nothing was pending.
    Idle,
    /// A group was led.
    Done,
    /// A prepared segment is needed first.
    NoSpare,
}

impl Core {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a transaction. Refuses when the instance has ended.
    fn enqueue(&self, ready: Ready) -> Result<(), ChannelError> {
        let mut pending = self.pending();
        let bytes = ready.entry.bytes();
        if ready.entry.kind == FrameKind::Put {
            pending.promised = pending.promised.saturating_sub(bytes);
        }
        if pending.stop {
            return Err(self.closed());
        }
        // Checked under the lock that `poison` takes to drain the queue: no one slips in behind.
        self.check_alive()?;
        if planted(Bug::PositionAhead)
            && let EntryOp::Put { positions, .. } = &ready.entry.op
        {
            let mut state = self.state();
            let ahead = positions.iter().cloned();
            ahead.for_each(|(key, value)| state.set_position(key, value));
        }
        pending.bytes += bytes;
        pending.queue.push_back(ready);
        Ok(())
    }

    /// Commits from a thread; leads the group when the role is free.
    pub(super) fn submit_blocking(&self, entry: Entry, events: u64) -> Answer {
        let (waiter, mut answer) = oneshot::channel();
        self.enqueue(Ready {
            entry,
            events,
            waiter,
            turn: None,
        })?;
        if let Some(mut writer) = self.try_writer() {
            self.lead(&mut writer);
            drop(writer);
            let done = answer.try_recv();
            if !matches!(done, Err(oneshot::error::TryRecvError::Empty)) {
                self.wake_committer_if_pending();
                return done.unwrap_or_else(|_| Err(self.gone()));
            }
        }
        self.wake_committer_if_pending();
        answer.blocking_recv().unwrap_or_else(|_| Err(self.gone()))
    }

    /// Commits from a task: the background thread leads.
    pub(super) async fn submit(
        &self,
        entry: Entry,
        events: u64,
        turn: Option<OwnedMutexGuard<()>>,
    ) -> Answer {
        let (waiter, answer) = oneshot::channel();
        let is_record = entry.kind != FrameKind::Put;
        self.enqueue(Ready {
            entry,
            events,
            waiter,
            turn,
        })?;
        self.pending_changed.notify_one();
        if planted(Bug::RecordsUnwaited) && is_record {
            return Ok(None);
        }
        answer.await.unwrap_or_else(|_| Err(self.gone()))
    }

    fn wake_committer_if_pending(&self) {
        if !self.pending().queue.is_empty() {
            self.pending_changed.notify_one();
        }
    }

    /// Asks for a sync of what is written only (sync modes other than `commit`).
    pub(super) fn want_sync(&self) {
        if self.options.sync != SyncMode::Commit {
            self.pending().sync_wanted = true;
            self.pending_changed.notify_one();
        }
    }

    /// A group is written and not synced: the background thread syncs it, if a taker waits.
    fn pass_on_wish_to_sync(&self) {
        let mut pending = self.pending();
        if std::mem::take(&mut pending.sync_awaited) {
            pending.sync_wanted = true;
            drop(pending);
            self.pending_changed.notify_one();
        }
    }

    /// Writes and syncs one group of what is pending.
    pub(super) fn lead(&self, writer: &mut LogWriter) -> Lead {
        let Some(first) = self.first_pending_bytes() else {
            return Lead::Idle;
        };
        if first > writer.active.room() {
            match self.roll(writer) {
                Ok(true) => {}
                Ok(false) => return Lead::NoSpare,
                Err(error) => {
                    self.poison(&format!("roll: {error}"));
                    return Lead::Done;
                }
            }
        }
        let (mut entries, waiters) = self.gather(writer);
        if entries.is_empty() {
            return Lead::Done;
        }
        let result = self.commit_group(writer, &mut entries, waiters);
        if let Err(error) = result {
            self.poison(&error.to_string());
        }
        Lead::Done
    }

    fn first_pending_bytes(&self) -> Option<usize> {
        self.pending().queue.front().map(|r| r.entry.bytes())
    }

    /// Takes as many transactions as fit into one group. Those whose positions would outgrow the
    /// snapshot are answered at once.
    fn gather(&self, writer: &mut LogWriter) -> (Vec<Entry>, Vec<Written>) {
        let room = writer.active.room();
        let limit = self.options.group_bytes_max();
        let mut pending = self.pending();
        let (mut entries, mut waiters, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut refused = false;
        while let Some(next) = pending.queue.front().map(|r| r.entry.bytes()) {
            let fits = bytes + next <= room || planted(Bug::GroupSpansSegment);
            if !fits || (bytes > 0 && bytes + next > limit) {
                break;
            }
            let Some(ready) = pending.queue.pop_front() else {
                break;
            };
            if let Err(refusal) = self.admit_positions(writer, &ready.entry) {
                pending.bytes = pending.bytes.saturating_sub(next);
                if !planted(Bug::LeakAtRefusal) {
                    self.queue().unreserve(ready.events);
                }
                let _gone = ready.waiter.send(Err(refusal));
                refused = true;
                continue;
            }
            bytes += next;
            let put = ready.entry.kind == FrameKind::Put;
            waiters.push(Written {
                waiter: ready.waiter,
                turn: ready.turn,
                range: None,
                events: ready.events,
                put,
            });
            entries.push(ready.entry);
        }
        drop(pending);
        if refused {
            // Its room is for whoever waits for some.
            self.room.raise();
        }
        (entries, waiters)
    }

    /// INV-10: the table of positions stands in every snapshot, so it has a bound.
    fn admit_positions(&self, writer: &mut LogWriter, entry: &Entry) -> Result<(), ChannelError> {
        let EntryOp::Put { positions, .. } = &entry.op else {
            return Ok(());
        };
        if positions.is_empty() {
            return Ok(());
        }
        let state = self.state();
        let growth = state.position_growth(positions);
        let used = state.position_bytes + writer.position_growth;
        drop(state);
        let limit = self.options.position_bytes_max();
        if growth > 0 && used + growth > limit && !planted(Bug::NoPositionBound) {
            return Err(ChannelError::Full {
                channel: self.name.clone(),
                reason: format!(
                    "the read positions of its sources take {used} of at most {limit} bytes, \
                     {growth} more do not fit; let sources forget files that are gone, \
                     or raise maxFileSize"
                ),
            });
        }
        writer.position_growth += growth;
        Ok(())
    }

    fn commit_group(
        &self,
        writer: &mut LogWriter,
        entries: &mut [Entry],
        mut waiters: Vec<Written>,
    ) -> std::io::Result<()> {
        let mut next = writer.next_sequence;
        let mut control = false;
        for (waiter, entry) in waiters.iter_mut().zip(entries.iter()) {
            control |= !waiter.put;
            let count = entry.frames.iter().map(|f| u64::from(f.count)).sum::<u64>();
            waiter.range = (count > 0).then(|| SeqRange {
                first: Seq(next),
                last: Seq(next + count - 1),
            });
            next += count;
        }
        let bytes = entries.iter().map(Entry::bytes).sum();
        // An error drops the waiters: their receivers turn that into the poison error.
        writer.write_group(entries)?;
        self.note_room(writer, bytes);
        let events: u64 = waiters.iter().map(|w| w.events).sum();
        self.queue().committed(events);
        if planted(Bug::AnswerBeforeSync) {
            answer(&mut waiters);
        }
        if planted(Bug::PublishBeforeSync) {
            self.publish(writer);
        }
        control &= !planted(Bug::ControlUnsynced);
        let full = writer.unsynced_bytes as usize >= self.options.group_bytes_max() / 2
            && !planted(Bug::UnboundedUnsynced);
        if control || full || self.options.sync == SyncMode::Commit {
            self.sync_and_publish(writer)?;
        } else {
            self.pass_on_wish_to_sync();
        }
        answer(&mut waiters);
        Ok(())
    }

    /// Syncs, applies what became durable, and lets sinks take it.
    pub(super) fn sync_and_publish(&self, writer: &mut LogWriter) -> std::io::Result<()> {
        if planted(Bug::WakeBeforeSync) {
            self.ready.raise();
        }
        let ops = writer.sync()?;
        self.apply_durable(writer, ops);
        Ok(())
    }

    fn apply_durable(&self, writer: &LogWriter, ops: Vec<Op>) {
        let mut ended = Vec::new();
        let mut sealed = false;
        {
            let mut state = self.state();
            for op in ops {
                ended.extend(ends(&state, &op));
                sealed |= matches!(op, Op::Record(Record::Seal(_)));
                state.apply(op);
            }
        }
        // Here and not in the caller's task, which may have gone away meanwhile: puts wait for it.
        if sealed {
            self.room.raise();
        }
        for end in ended {
            match end {
                End::Acked(range) => self.acknowledged(range.count()),
                End::Done(range) => {
                    self.queue().done(range);
                    self.acknowledged(range.count());
                }
                End::GivenUp(range) => {
                    self.queue().abandon(range);
                    self.uncover(range);
                }
            }
        }
        self.publish(writer);
    }

    /// Lets sinks take what is durable.
    fn publish(&self, writer: &LogWriter) {
        if let Some(active) = self.table().active_mut() {
            active.end = writer.active.tail;
        }
        self.queue().publish_durable(Seq(writer.next_sequence));
        if !planted(Bug::WakeBeforeSync) {
            self.ready.raise();
        }
    }

    /// Ends the log instance: every waiter, now and later, gets the error.
    pub(super) fn poison(&self, reason: &str) {
        let mut pending = self.pending();
        self.poisoned.get_or_init(|| {
            tracing::error!(
                channel = %self.name,
                "the log has failed and must be reopened as a new incarnation: {reason}"
            );
            reason.to_owned()
        });
        let mut waiters = pending.drain();
        drop(pending);
        if planted(Bug::LoseWaiterAtPoison) {
            std::mem::forget(waiters.pop());
        }
        for waiter in waiters {
            let _gone = waiter.send(Err(self.gone()));
        }
        self.room.raise();
        self.ready.raise();
        self.spares.wake();
    }

    /// The background committer; returns when the channel closes or has failed.
    pub(super) fn run_committer(&self) {
        let mut rounds = Rounds::new(self.now());
        loop {
            let wanted = self.wait_for_work();
            if self.poisoned.get().is_some() || self.stopped() {
                return;
            }
            let mut writer = self.writer();
            let mut idle = true;
            loop {
                match self.lead(&mut writer) {
                    Lead::Done => idle = false,
                    Lead::Idle => break,
                    Lead::NoSpare => {
                        drop(writer);
                        self.spares.wait_for_one(Duration::from_millis(50));
                        writer = self.writer();
                        if self.poisoned.get().is_some() || self.stopped() {
                            return;
                        }
                    }
                }
            }
            self.end_round(&mut writer, &mut rounds, wanted, idle);
        }
    }

    /// What the committer does when no transaction waits (any more): a sync that was asked for or
    /// is due, or the quiet-time work. `idle`: no group was led in this round.
    pub(super) fn end_round(
        &self,
        writer: &mut LogWriter,
        rounds: &mut Rounds,
        wanted: bool,
        idle: bool,
    ) {
        let now = self.now();
        if !idle {
            rounds.quiet_since = now;
        }
        let due = match self.options.sync {
            SyncMode::Interval(every) => now.duration_since(rounds.last_sync) >= every,
            SyncMode::Commit | SyncMode::Os => false,
        };
        if self.poisoned.get().is_some() {
            return;
        }
        if wanted && writer.unsynced.is_empty() {
            self.pending().sync_awaited = true;
        }
        let result = if (wanted || due) && !writer.unsynced.is_empty() {
            rounds.last_sync = now;
            self.sync_and_publish(writer)
        } else if idle || now.duration_since(rounds.last_chores) >= QUIET_TICK {
            rounds.last_chores = now;
            self.quiet_work(writer, now.duration_since(rounds.quiet_since))
        } else {
            Ok(())
        };
        if let Err(error) = result {
            self.poison(&error.to_string());
        }
    }

    /// Waits for transactions, a wish to sync, or a tick of the quiet-time clock.
    fn wait_for_work(&self) -> bool {
        let mut pending = self.pending();
        let deadline = sync::now() + QUIET_TICK;
        while pending.queue.is_empty() && !pending.sync_wanted && !pending.stop {
            let left = deadline.saturating_duration_since(sync::now());
            if left.is_zero() {
                break;
            }
            pending = self
                .pending_changed
                .wait_timeout(pending, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        std::mem::take(&mut pending.sync_wanted)
    }

    #[cfg(any(test, feature = "simulation"))]
    pub(super) fn take_wish_to_sync(&self) -> bool {
        std::mem::take(&mut self.pending().sync_wanted)
    }

    /// Transactions that no group has taken up, and the room in the active segment.
    #[cfg(any(test, feature = "simulation"))]
    pub(super) fn pending_and_room(&self) -> (usize, usize) {
        let pending = self.pending();
        (
            pending.queue.len(),
            self.active_room.load(Ordering::Acquire),
        )
    }

    fn stopped(&self) -> bool {
        self.pending().stop
    }

    /// After a second of quiet: a watermark, so that rot in the last group can be told from a
    /// torn tail; under pressure: an early roll, so that dead segments can go.
    fn quiet_work(&self, writer: &mut LogWriter, quiet: Duration) -> std::io::Result<()> {
        if self.wants_pressure_roll() {
            self.roll(writer)?;
            return Ok(());
        }
        self.reclaim();
        let quiet = quiet >= QUIET_BEFORE_WATERMARK && !planted(Bug::NoQuietWatermark);
        if quiet && writer.unproven && writer.unsynced.is_empty() && writer.active.room() > 0 {
            writer.write_group(&mut [Entry::record(Record::Watermark)])?;
            self.sync_and_publish(writer)?;
            writer.unproven = false;
        }
        Ok(())
    }

    /// Seals the active segment and opens the next prepared one with a snapshot; both durable on
    /// `Ok(true)`. `Ok(false)`: no prepared segment; nothing was written.
    pub(super) fn roll(&self, writer: &mut LogWriter) -> std::io::Result<bool> {
        let Some(mut spare) = self.spares.take() else {
            return Ok(false);
        };
        writer.write_seal()?;
        if planted(Bug::RollWithoutSync) {
            let ops = writer.counts_as_durable();
            self.apply_durable(writer, ops);
        } else {
            self.sync_and_publish(writer)?;
        }
        self.preparer.activate(&mut spare)?;
        self.open_segment(writer, spare)?;
        self.reclaim();
        self.room.raise();
        Ok(true)
    }

    /// `stored` bytes have left the queue for the active segment.
    pub(super) fn note_room(&self, writer: &LogWriter, stored: usize) {
        let mut pending = self.pending();
        pending.bytes = pending.bytes.saturating_sub(stored);
        self.active_room
            .store(writer.active.room(), Ordering::Release);
    }

    /// Admits a put of `bytes` when the log has room for it and `also` agrees. What is admitted
    /// counts from this moment on, so that two producers never share the same room.
    pub(super) fn try_promise(&self, bytes: usize, also: impl FnOnce() -> bool) -> bool {
        let mut pending = self.pending();
        let needed = pending.bytes + pending.promised + bytes;
        let admitted = self.has_disk_room(needed) && also();
        if admitted && !planted(Bug::SameRoomTwice) {
            pending.promised += bytes;
        }
        admitted
    }

    /// Whether the active and the prepared segments hold `needed` bytes without the reserve.
    fn has_disk_room(&self, needed: usize) -> bool {
        let active_room = self.active_room.load(Ordering::Acquire);
        let spares = self.spares.lock();
        let available = spares.ready.len();
        let short = spares.short_of_space.is_some();
        drop(spares);
        if needed <= active_room {
            // An active segment that was taken from the reserve belongs to the reserve.
            return available >= SPARES_RESERVED || !short || planted(Bug::PutsFillReserve);
        }
        // A segment may waste a quarter on a transaction that does not fit and a quarter on its
        // snapshot, so half of it is sure.
        let sure = (self.options.segment_bytes() as usize / 2).max(1);
        let reserved = if planted(Bug::PutsTakeReserve) {
            0
        } else {
            SPARES_RESERVED
        };
        available >= (needed - active_room).div_ceil(sure) + reserved
    }
}

/// What becomes of a run of events when an operation is durable.
enum End {
    Acked(SeqRange),
    /// Its epoch is published.
    Done(SeqRange),
    /// Its epoch is given up.
    GivenUp(SeqRange),
}

/// The runs that `op` decides about.
fn ends(state: &LogState, op: &Op) -> Vec<End> {
    let epoch = |number| state.epochs.get(number).map(|e| seq_range(e.range));
    match op {
        Op::Record(Record::Ack(ranges)) => {
            let ranges = ranges.iter();
            ranges.map(|r| End::Acked(seq_range(*r))).collect()
        }
        Op::Record(Record::Done { epoch: number }) => {
            epoch(number).map(End::Done).into_iter().collect()
        }
        Op::Record(Record::Abandon { epoch: number }) => {
            epoch(number).map(End::GivenUp).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

const QUIET_TICK: Duration = Duration::from_millis(200);
const QUIET_BEFORE_WATERMARK: Duration = Duration::from_secs(1);
