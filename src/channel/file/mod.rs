//! The file channel: a crash-safe, memory-mapped, segmented log with transactional put and take.
//!
//! *Place in the flow*: the facade; threads and locks live only here. `log` writes, `group_commit`
//! decides who writes, `recovery` reads the log at open, `take` grants events, `reader` reads them
//! back, `reclaim` deletes, `prepare` makes segments ahead, `state` is what the log says, `journal`
//! the epochs.
//!
//! *Durability*: when a put returns Ok in the default mode, its events survive `kill -9`, kernel
//! panic and power loss, provided the disk honours flush. See docs/DURABILITY.md.
//!
//! *Lock order*: journal turn, then writer, then one of {pending -> (queue, state or
//! spares), state -> table, queue, spares}.

pub mod adopt;
mod copy;
mod encode;
pub mod examine;
mod group_commit;
mod home;
mod journal;
mod layout;
mod log;
mod open;
mod options;
mod ownership;
pub mod peek;
mod pending;
mod prepare;
mod range_set;
mod reader;
mod reclaim;
mod recovery;
pub mod salvage;
mod segment;
mod signal;
#[cfg(any(test, feature = "simulation"))]
pub mod simulation;
mod state;
mod still;
mod take;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use wal_format::{Range, Record};

pub use options::{FileChannelOptions, OpenError, SyncMode};

use self::encode::encode_put;
use self::log::{Entry, LogWriter};
use self::pending::Pending;
use self::prepare::{Preparer, SparePool};
use self::reader::Window;
use self::segment::SegmentTable;
use self::signal::Signal;
use self::state::LogState;
use super::journal::Incarnation;
use super::queue::Queue;
use super::{
    Channel, ChannelError, ChannelStatus, EpochJournal, EpochRecord, LeaseId, Position, PutBatch,
    SealRequest, TakeMode, TakenBatch,
};
use crate::env::disk::{DirLock, Disk};
use crate::env::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::env::sync::thread::JoinHandle;
use crate::env::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use crate::event::{Seq, SeqRange};
use crate::planted::{Bug, planted};

/// Counters since open.
#[derive(Debug, Default)]
struct Stats {
    put_attempts: AtomicU64,
    put_events: AtomicU64,
    take_attempts: AtomicU64,
    take_events: AtomicU64,
    refused: AtomicU64,
}

/// What the threads of one open channel share.
#[derive(Debug)]
pub(super) struct Core {
    name: String,
    options: FileChannelOptions,
    disk: Arc<dyn Disk>,
    channel_id: [u8; 16],
    incarnation: Incarnation,
    ownership: ownership::Ownership,
    preparer: Preparer,
    writer: Mutex<LogWriter>,
    pending: Mutex<Pending>,
    pending_changed: Condvar,
    state: Mutex<LogState>,
    table: Mutex<SegmentTable>,
    queue: Mutex<Queue>,
    windows: Mutex<HashMap<LeaseId, Window>>,
    spares: SparePool,
    /// Kept by a record in flight, so that it outlives a caller who goes away.
    journal_turn: Arc<tokio::sync::Mutex<()>>,
    /// Room of the active segment after the last group, for admission without the writer's lock.
    /// Changed under the lock of `pending`, together with the bytes that wait for it.
    active_room: AtomicUsize,
    room: Signal,
    ready: Signal,
    poisoned: OnceLock<String>,
    closed: AtomicBool,
    stats: Stats,
}

fn unpoisoned<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Core {
    fn state(&self) -> MutexGuard<'_, LogState> {
        unpoisoned(&self.state)
    }

    fn table(&self) -> MutexGuard<'_, SegmentTable> {
        unpoisoned(&self.table)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        unpoisoned(&self.queue)
    }

    fn now(&self) -> Instant {
        self.preparer.clock.now()
    }

    /// The committer's role.
    fn writer(&self) -> Role<'_> {
        let writer = unpoisoned(&self.writer);
        Role::new(self, writer)
    }

    /// The committer's role, if it is free.
    fn try_writer(&self) -> Option<Role<'_>> {
        let writer = self.writer.try_lock().ok()?;
        Some(Role::new(self, writer))
    }

    fn check_alive(&self) -> Result<(), ChannelError> {
        match self.poisoned.get() {
            Some(_) => Err(self.gone()),
            None if self.closed.load(Ordering::Acquire) => Err(self.closed()),
            None => Ok(()),
        }
    }

    /// Whether nothing will ever come any more, so that nobody may wait for it.
    fn has_ended(&self) -> bool {
        self.poisoned.get().is_some() || self.closed.load(Ordering::Acquire)
    }

    /// The error of a waiter whose group never became durable.
    fn gone(&self) -> ChannelError {
        let reason = self.poisoned.get().cloned();
        ChannelError::Poisoned {
            channel: self.name.clone(),
            reason: reason.unwrap_or_else(|| "the committer has gone".to_owned()),
        }
    }

    fn closed(&self) -> ChannelError {
        ChannelError::Closed {
            channel: self.name.clone(),
        }
    }

    fn acknowledged(&self, events: u64) {
        self.stats.take_events.fetch_add(events, Ordering::Relaxed);
        self.room.raise();
    }

    /// Encodes a batch and checks it against the bounds of one transaction.
    fn admit(&self, batch: PutBatch) -> Result<(Entry, u64), ChannelError> {
        self.check_alive()?;
        let events = batch.events.len();
        self.stats
            .put_attempts
            .fetch_add(events as u64, Ordering::Relaxed);
        let too_large = |size: usize, limit: usize, unit| ChannelError::TooLarge {
            channel: self.name.clone(),
            size: size as u64,
            limit: limit as u64,
            unit,
        };
        if events > self.options.transaction_capacity {
            return Err(too_large(
                events,
                self.options.transaction_capacity,
                "events",
            ));
        }
        let entry = encode_put(batch, self.options.frame_body_target());
        let limit = self.options.group_bytes_max();
        if entry.bytes() > limit {
            return Err(too_large(entry.bytes(), limit, "bytes"));
        }
        Ok((entry, events as u64))
    }

    fn try_reserve(&self, bytes: usize, events: u64) -> bool {
        self.try_promise(bytes, || self.queue().try_reserve(events))
    }

    fn no_room(&self, events: u64) -> ChannelError {
        self.stats.refused.fetch_add(1, Ordering::Relaxed);
        self.full(events)
    }

    fn finish_put(
        &self,
        events: u64,
        answer: pending::Answer,
    ) -> Result<Option<SeqRange>, ChannelError> {
        // On an error the instance has ended and nobody can say whether the events are in the
        // log, so their reservation is not given back.
        if answer.is_ok() {
            self.stats.put_events.fetch_add(events, Ordering::Relaxed);
        }
        answer
    }
}

/// The committer's role, held. A panic of whoever holds it ends the log instance at once, so that
/// nobody waits for what will never come.
struct Role<'a> {
    core: &'a Core,
    writer: MutexGuard<'a, LogWriter>,
    panicking: bool,
}

impl<'a> Role<'a> {
    fn new(core: &'a Core, writer: MutexGuard<'a, LogWriter>) -> Self {
        let panicking = std::thread::panicking();
        Self {
            core,
            writer,
            panicking,
        }
    }
}

impl std::ops::Deref for Role<'_> {
    type Target = LogWriter;

    fn deref(&self) -> &LogWriter {
        &self.writer
    }
}

impl std::ops::DerefMut for Role<'_> {
    fn deref_mut(&mut self) -> &mut LogWriter {
        &mut self.writer
    }
}

impl Drop for Role<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.panicking {
            self.core.poison("a commit panicked");
        }
    }
}

/// A crash-safe channel in files. See the module head.
pub struct FileChannel {
    core: Arc<Core>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    shut: AtomicBool,
    /// Held for life; released when the channel is dropped or closed.
    locks: Mutex<Vec<Box<dyn DirLock>>>,
}

impl std::fmt::Debug for FileChannel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileChannel")
            .field("name", &self.core.name)
            .finish_non_exhaustive()
    }
}

impl Drop for FileChannel {
    fn drop(&mut self) {
        self.shut_down(false);
    }
}

impl FileChannel {
    /// Forgets that damage may hide control records, durably: a person has looked at the store.
    ///
    /// # Errors
    /// The log has failed; nothing is forgotten.
    pub fn accept_damage(&self) -> Result<(), ChannelError> {
        let core = &self.core;
        let deadline = core.now() + core.options.keep_alive;
        loop {
            core.check_alive()?;
            let mut writer = core.writer();
            core.state().control_lost = false;
            match core.roll(&mut writer) {
                Ok(true) => return Ok(()),
                Ok(false) => drop(writer),
                Err(error) => core.poison(&error.to_string()),
            }
            if core.now() >= deadline {
                return Err(core.full(0));
            }
            core.spares.wait_for_one(Duration::from_millis(50));
        }
    }

    /// Stops the threads; with `seal`, writes the seal first.
    fn shut_down(&self, seal: bool) -> Option<std::io::Error> {
        if self.shut.swap(true, Ordering::AcqRel) {
            return None;
        }
        let threads = std::mem::take(&mut *unpoisoned(&self.threads));
        self.core.closed.store(true, Ordering::Release);
        unpoisoned(&self.core.pending).stop = true;
        self.core.pending_changed.notify_all();
        self.core.spares.lock().stop = true;
        self.core.spares.wake();
        for thread in threads {
            if thread.join().is_err() {
                self.core.poison("a background thread panicked");
            }
        }
        let error = self.end_log(seal);
        self.core.queue().release_all();
        unpoisoned(&self.core.windows).clear();
        self.core.room.raise();
        self.core.ready.raise();
        unpoisoned(&self.locks).clear();
        error
    }

    /// With the writer's lock held throughout: a producer that has queued its transaction and
    /// not led it yet must find nothing to write behind the seal, nor once the directory is free.
    fn end_log(&self, seal: bool) -> Option<std::io::Error> {
        let mut writer = self.core.writer();
        self.core.end_waiters();
        let sealed = if seal && self.core.poisoned.get().is_none() {
            writer
                .write_seal()
                .and_then(|()| self.core.sync_and_publish(&mut writer))
        } else {
            Ok(())
        };
        writer.ended = !planted(Bug::WritesBehindSeal);
        sealed
            .err()
            .inspect(|error| self.core.poison(&error.to_string()))
    }
}

#[async_trait]
impl Channel for FileChannel {
    fn name(&self) -> &str {
        &self.core.name
    }

    fn transaction_capacity(&self) -> usize {
        self.core.options.transaction_capacity
    }

    async fn commit_put(&self, batch: PutBatch) -> Result<Option<SeqRange>, ChannelError> {
        let core = &self.core;
        let (entry, events) = core.admit(batch)?;
        let deadline = core.now() + core.options.keep_alive;
        loop {
            let seen = core.room.seen();
            // Behind the look at the signal: whoever ends the log raises it afterwards.
            core.check_alive()?;
            if core.try_reserve(entry.bytes(), events) {
                break;
            }
            let left = deadline.saturating_duration_since(core.now());
            if left.is_zero() {
                return Err(core.no_room(events));
            }
            core.room.wait_async(seen, left).await;
        }
        let answer = core.submit(entry, events, None).await;
        core.finish_put(events, answer)
    }

    fn commit_put_blocking(&self, batch: PutBatch) -> Result<Option<SeqRange>, ChannelError> {
        let core = &self.core;
        let (entry, events) = core.admit(batch)?;
        let deadline = core.now() + core.options.keep_alive;
        loop {
            let seen = core.room.seen();
            // Behind the look at the signal: whoever ends the log raises it afterwards.
            core.check_alive()?;
            if core.try_reserve(entry.bytes(), events) {
                break;
            }
            let left = deadline.saturating_duration_since(core.now());
            if !core.room.wait(seen, left) {
                return Err(core.no_room(events));
            }
        }
        let answer = core.submit_blocking(entry, events);
        core.finish_put(events, answer)
    }

    fn open_lease(&self, mode: TakeMode) -> Result<LeaseId, ChannelError> {
        self.core.check_alive()?;
        Ok(self.core.queue().open_lease(mode))
    }

    fn lease_take(
        &self,
        lease: LeaseId,
        max_events: usize,
        max_bytes: usize,
    ) -> Result<TakenBatch, ChannelError> {
        self.core.take(lease, max_events, max_bytes)
    }

    fn lease_exhausted(&self, lease: LeaseId) -> bool {
        self.core.queue().exhausted(lease)
    }

    async fn wait_ready(&self, timeout: Duration) {
        let seen = self.core.ready.seen();
        if self.core.queue().has_ready(self.core.now()) || self.core.has_ended() {
            return;
        }
        self.core.want_sync();
        self.core.ready.wait_async(seen, timeout).await;
    }

    async fn wait_lease(&self, lease: LeaseId, timeout: Duration) {
        let deadline = self.core.now() + timeout;
        loop {
            let seen = self.core.ready.seen();
            let now = self.core.now();
            let (ready, wake) = {
                let mut queue = self.core.queue();
                let ready = queue.lease_ready(lease, now);
                // Events of a stalled holder pass on by time alone.
                let wake = queue.next_deadline(now);
                (ready, wake.map_or(deadline, |at| at.min(deadline)))
            };
            if ready || self.core.has_ended() || now >= deadline {
                return;
            }
            self.core.want_sync();
            let pause = wake
                .saturating_duration_since(now)
                .max(Duration::from_millis(1));
            self.core.ready.wait_async(seen, pause).await;
        }
    }

    fn must_seal(&self, lease: LeaseId) -> bool {
        self.core.queue().must_seal(lease)
    }

    async fn lease_ack(&self, lease: LeaseId, through: Seq) -> Result<(), ChannelError> {
        self.core.check_alive()?;
        let lost = |_| ChannelError::LeaseLost {
            channel: self.core.name.clone(),
        };
        let range = self.core.queue().ack(lease, through).map_err(lost)?;
        let record = Record::Ack(vec![Range {
            first: range.first.0,
            last: range.last.0,
        }]);
        if planted(Bug::AckUnwritten) {
            return Ok(());
        }
        self.core.write_record(record, None).await
    }

    fn release_lease(&self, lease: LeaseId) {
        if planted(Bug::ReleaseForgets) {
            return;
        }
        self.core.queue().release(lease);
        unpoisoned(&self.core.windows).remove(&lease);
        self.core.ready.raise();
    }

    async fn seal(
        &self,
        lease: LeaseId,
        request: SealRequest,
    ) -> Result<EpochRecord, ChannelError> {
        self.core.check_alive()?;
        self.core.seal_lease(lease, request).await
    }

    fn journal(&self) -> Arc<dyn EpochJournal> {
        Arc::new(journal::FileJournal(Arc::clone(&self.core)))
    }

    fn positions(&self, prefix: &str) -> Vec<Position> {
        let state = self.core.state();
        let from = state.positions.range(prefix.as_bytes().to_vec()..);
        from.take_while(|(key, _)| key.starts_with(prefix.as_bytes()))
            .map(|(key, value)| Position {
                key: String::from_utf8_lossy(key).into_owned(),
                value: value.clone().into(),
            })
            .collect()
    }

    fn status(&self) -> ChannelStatus {
        self.core.status()
    }

    fn close(&self) -> Result<(), ChannelError> {
        match self.shut_down(true) {
            Some(_) => Err(self.core.gone()),
            None => Ok(()),
        }
    }
}

impl Core {
    fn status(&self) -> ChannelStatus {
        let counts = self.queue().counts();
        let spares = self.spares.lock();
        let (ready, short) = (spares.ready.len() as u64, spares.short_of_space.clone());
        let held_back = short.filter(|_| spares.ready.len() <= options::SPARES_RESERVED);
        drop(spares);
        let next_sequence = self.state().next_sequence;
        let table = self.table();
        ChannelStatus {
            waiting: counts.waiting,
            leased: counts.leased + counts.staged + counts.acking,
            sealed_unpublished: counts.sealed,
            corrupt: counts.lost,
            refused: self.stats.refused.load(Ordering::Relaxed),
            capacity: self.options.capacity,
            next_sequence,
            put_events: self.stats.put_events.load(Ordering::Relaxed),
            put_attempts: self.stats.put_attempts.load(Ordering::Relaxed),
            take_attempts: self.stats.take_attempts.load(Ordering::Relaxed),
            take_events: self.stats.take_events.load(Ordering::Relaxed),
            segments: table.segments.len() as u64 + ready,
            disk_bytes: table.bytes() + ready * u64::from(self.options.segment_bytes()),
            held_back,
            poisoned: self.poisoned.get().cloned(),
        }
    }
}
