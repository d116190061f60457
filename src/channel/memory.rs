//! The memory channel: the contract of a channel without a disk.
//!
//! *Place in the flow*: between source and sink, as the file channel is; type `memory` in a
//! configuration. Its epoch journal is volatile: a fresh random channel id at every open.
//!
//! *Invariants*: everything is "durable" the moment it is committed; an event and its bytes are
//! kept until it is acknowledged or its epoch is done, so that it can always be given again.
//!
//! *What a crash leaves*: nothing. What was in memory is lost; nothing is published twice or half.

mod journal;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;

use super::queue::Queue;
use super::{
    Channel, ChannelError, ChannelStatus, EpochJournal, EpochRecord, LeaseId, Position, PutBatch,
    SealRequest, TakeMode, TakenBatch, TakenEvent,
};
use crate::channel::journal::{EPOCH_TOKEN, Incarnation};
use crate::env::clock::{self, Clock};
use crate::event::{Event, Seq, SeqRange};

/// Most bytes the default bound lets a memory channel keep.
const LARGEST_DEFAULT_BYTES: u64 = 1 << 30;

/// Options of a memory channel; the defaults are Flume's where Flume's are sane.
#[derive(Clone, Debug)]
pub struct MemoryOptions {
    /// Most events waiting or in an open take batch (`capacity`).
    pub capacity: u64,
    /// Most events in one put transaction (`transactionCapacity`).
    pub transaction_capacity: usize,
    /// How long a put waits for room (`keep-alive`).
    pub keep_alive: Duration,
    /// Most bytes of events, acknowledged ones excepted (`byteCapacity`). `None`: a quarter of
    /// the machine's memory, at most 1 GiB.
    pub byte_capacity: Option<u64>,
    /// Per cent of `byte_capacity` left for what is not counted
    /// (`byteCapacityBufferPercentage`), 0 to 100.
    pub byte_capacity_buffer_percentage: u8,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
}

impl Default for MemoryOptions {
    fn default() -> Self {
        Self {
            capacity: 100,
            transaction_capacity: 100,
            keep_alive: Duration::from_secs(3),
            byte_capacity: None,
            byte_capacity_buffer_percentage: 20,
            clock: clock::system(),
        }
    }
}

impl MemoryOptions {
    /// Bytes of headers and bodies that may be kept.
    fn byte_limit(&self) -> u64 {
        let all = self.byte_capacity.unwrap_or_else(|| {
            let info = rustix::system::sysinfo();
            let ram = info.totalram.saturating_mul(u64::from(info.mem_unit));
            (ram / 4).min(LARGEST_DEFAULT_BYTES)
        });
        let usable = u64::from(100u8.saturating_sub(self.byte_capacity_buffer_percentage));
        (all / 100).saturating_mul(usable) + (all % 100) * usable / 100
    }
}

/// The memory channel; see the module.
#[derive(Debug)]
pub struct MemoryChannel {
    shared: Arc<Shared>,
}

/// What the channel and its journal share.
#[derive(Debug)]
struct Shared {
    name: String,
    id: String,
    incarnation: Incarnation,
    options: MemoryOptions,
    byte_limit: u64,
    state: Mutex<State>,
    /// Room may have been made; for waiting puts, blocking and not.
    room: Notify,
    room_blocking: Condvar,
    /// Something may have become ready for takers.
    ready: Notify,
}

#[derive(Debug)]
struct State {
    queue: Queue,
    /// Events from number `base` on; `None` once acknowledged.
    events: VecDeque<Option<Event>>,
    base: u64,
    bytes: u64,
    positions: BTreeMap<String, Bytes>,
    epochs: BTreeMap<u64, EpochRecord>,
    next_epoch: u64,
    closed: bool,
    held_back: Option<String>,
    /// How often a lease has been asked to seal.
    seal_asks: u64,
    refused: u64,
    put_events: u64,
    put_attempts: u64,
    take_attempts: u64,
    take_events: u64,
}

/// Why a put cannot be stored now.
struct NoRoom(String);

fn event_bytes(event: &Event) -> u64 {
    let headers = event.headers.iter().map(|(k, v)| k.len() + v.len());
    u64::try_from(event.body.len() + headers.sum::<usize>()).unwrap_or(u64::MAX)
}

fn batch_bytes(batch: &PutBatch) -> u64 {
    batch
        .events
        .iter()
        .map(|e| event_bytes(&e.event))
        .fold(0, u64::saturating_add)
}

fn length(batch: &PutBatch) -> u64 {
    u64::try_from(batch.events.len()).unwrap_or(u64::MAX)
}

impl MemoryChannel {
    /// Opens an empty channel.
    ///
    /// # Errors
    /// `Refused` where a transaction could be larger than the channel, or the system gives no
    /// random bytes.
    pub fn open(
        name: impl Into<String>,
        options: MemoryOptions,
    ) -> Result<Arc<dyn Channel>, ChannelError> {
        let channel = name.into();
        let refused = |reason: String| ChannelError::Refused {
            channel: channel.clone(),
            reason,
        };
        let capacity = options.capacity;
        if u64::try_from(options.transaction_capacity).unwrap_or(u64::MAX) > capacity {
            let reason = format!(
                "transactionCapacity {} is larger than capacity {capacity}; raise capacity",
                options.transaction_capacity
            );
            return Err(refused(reason));
        }
        let random = || getrandom::u64().map_err(|e| refused(format!("no random bytes: {e}")));
        let state = State {
            queue: Queue::new(capacity, Seq(0), &[], &[], &[], Seq(0)),
            events: VecDeque::new(),
            base: 0,
            bytes: 0,
            positions: BTreeMap::new(),
            epochs: BTreeMap::new(),
            next_epoch: 1,
            closed: false,
            held_back: None,
            seal_asks: 0,
            refused: 0,
            put_events: 0,
            put_attempts: 0,
            take_attempts: 0,
            take_events: 0,
        };
        let shared = Shared {
            id: format!("{:016x}", random()?)[..12].to_owned(),
            incarnation: Incarnation {
                number: 1,
                nonce: random()?,
            },
            byte_limit: options.byte_limit(),
            options,
            state: Mutex::new(state),
            room: Notify::new(),
            room_blocking: Condvar::new(),
            ready: Notify::new(),
            name: channel,
        };
        Ok(Arc::new(Self {
            shared: Arc::new(shared),
        }))
    }
}

impl State {
    /// Stores the batch, or says why it must wait.
    fn try_put(
        &mut self,
        batch: &mut PutBatch,
        shared: &Shared,
    ) -> Result<Option<SeqRange>, NoRoom> {
        let (events, bytes) = (length(batch), batch_bytes(batch));
        if self.bytes.saturating_add(bytes) > shared.byte_limit {
            if self.queue.ask_oldest_staged_to_seal().is_some() {
                self.seal_asks += 1;
            }
            let limit = shared.byte_limit;
            return Err(NoRoom(format!("{} of {limit} bytes in use", self.bytes)));
        }
        if !self.queue.try_reserve(events) {
            return Err(NoRoom(format!(
                "capacity of {} events",
                shared.options.capacity
            )));
        }
        let first = self.queue.durable_end();
        let put_time_ms = shared.options.clock.wall_ms();
        self.bytes += bytes;
        for put in batch.events.drain(..) {
            self.events.push_back(Some(Event {
                put_time_ms,
                ..put.event
            }));
        }
        for position in batch.positions.drain(..) {
            if position.value.is_empty() {
                self.positions.remove(&position.key);
            } else {
                self.positions.insert(position.key, position.value);
            }
        }
        let end = Seq(first.0 + events);
        self.queue.committed(events);
        self.queue.publish_durable(end);
        self.put_events += events;
        self.held_back = None;
        Ok((events > 0).then(|| SeqRange {
            first,
            last: Seq(end.0 - 1),
        }))
    }

    fn event(&self, seq: u64) -> Option<&Event> {
        let index = usize::try_from(seq.checked_sub(self.base)?).ok()?;
        self.events.get(index)?.as_ref()
    }

    /// Forgets the events of an acknowledged run.
    fn forget(&mut self, range: SeqRange) {
        for seq in range.first.0..=range.last.0 {
            let index = seq
                .checked_sub(self.base)
                .and_then(|i| usize::try_from(i).ok());
            let slot = index.and_then(|i| self.events.get_mut(i));
            if let Some(event) = slot.and_then(Option::take) {
                self.bytes -= event_bytes(&event);
            }
        }
        while self.base < self.queue.cursor().0 && self.events.pop_front().is_some() {
            self.base += 1;
        }
        self.take_events += range.count();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, unless the channel is closed.
    fn open(&self) -> Result<MutexGuard<'_, State>, ChannelError> {
        let state = self.lock();
        if state.closed {
            return Err(ChannelError::Closed {
                channel: self.name.clone(),
            });
        }
        Ok(state)
    }

    fn lease_lost(&self) -> ChannelError {
        ChannelError::LeaseLost {
            channel: self.name.clone(),
        }
    }

    fn wake_puts(&self, state: &mut State) {
        state.held_back = None;
        self.room.notify_waiters();
        self.room_blocking.notify_all();
    }

    fn check_size(&self, batch: &PutBatch) -> Result<(), ChannelError> {
        let (events, bytes) = (length(batch), batch_bytes(batch));
        let most = u64::try_from(self.options.transaction_capacity).unwrap_or(u64::MAX);
        let (size, limit, unit) = if events > most {
            (events, most, "events")
        } else if bytes > self.byte_limit {
            (bytes, self.byte_limit, "bytes")
        } else {
            return Ok(());
        };
        Err(ChannelError::TooLarge {
            channel: self.name.clone(),
            size,
            limit,
            unit,
        })
    }

    /// One try of a put. `Err(NoRoom)`: wait for room and come again.
    fn put_once(
        &self,
        state: &mut State,
        batch: &mut PutBatch,
    ) -> Result<Option<SeqRange>, NoRoom> {
        let stored = state.try_put(batch, self);
        if let Err(NoRoom(reason)) = &stored {
            state.held_back = Some(reason.clone());
        }
        self.ready.notify_waiters();
        stored
    }

    /// Counts a put that found no room in time.
    fn full(&self, NoRoom(reason): NoRoom) -> ChannelError {
        self.lock().refused += 1;
        ChannelError::Full {
            channel: self.name.clone(),
            reason,
        }
    }

    /// When a put that comes now stops waiting.
    fn put_deadline(&self) -> Instant {
        let now = Instant::now();
        let year = Duration::from_secs(365 * 24 * 3600);
        now + self.options.keep_alive.min(year)
    }

    /// Waits until `look` says so, the channel is closed, or `timeout`.
    async fn wait(&self, timeout: Duration, look: impl Fn(&mut State, Instant) -> bool) {
        let wait = async {
            loop {
                let notified = self.ready.notified();
                tokio::pin!(notified);
                notified.as_mut().enable();
                let now = self.options.clock.now();
                let deadline = {
                    let mut state = self.lock();
                    if state.closed || look(&mut state, now) {
                        return;
                    }
                    state.queue.next_deadline(now)
                };
                match deadline.map(|at| at.saturating_duration_since(now)) {
                    None => notified.await,
                    // An elapsed deadline only means: look again.
                    Some(pause) => drop(tokio::time::timeout(pause, notified).await),
                }
            }
        };
        drop(tokio::time::timeout(timeout, wait).await);
    }
}

#[async_trait]
impl Channel for MemoryChannel {
    fn name(&self) -> &str {
        &self.shared.name
    }

    fn transaction_capacity(&self) -> usize {
        self.shared.options.transaction_capacity
    }

    async fn commit_put(&self, mut batch: PutBatch) -> Result<Option<SeqRange>, ChannelError> {
        let shared = &*self.shared;
        shared.open()?.put_attempts += length(&batch);
        shared.check_size(&batch)?;
        let deadline = tokio::time::Instant::from_std(shared.put_deadline());
        loop {
            let room = shared.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            let stored = shared.put_once(&mut *shared.open()?, &mut batch);
            let no_room = match stored {
                Ok(range) => return Ok(range),
                Err(no_room) => no_room,
            };
            if tokio::time::timeout_at(deadline, room).await.is_err() {
                return Err(shared.full(no_room));
            }
        }
    }

    fn commit_put_blocking(&self, mut batch: PutBatch) -> Result<Option<SeqRange>, ChannelError> {
        let shared = &*self.shared;
        let mut state = shared.open()?;
        state.put_attempts += length(&batch);
        shared.check_size(&batch)?;
        let deadline = shared.put_deadline();
        loop {
            let no_room = match shared.put_once(&mut state, &mut batch) {
                Ok(range) => return Ok(range),
                Err(no_room) => no_room,
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(state);
                return Err(shared.full(no_room));
            }
            let woken = shared.room_blocking.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
            if state.closed {
                return Err(ChannelError::Closed {
                    channel: shared.name.clone(),
                });
            }
        }
    }

    fn open_lease(&self, mode: TakeMode) -> Result<LeaseId, ChannelError> {
        let lease = self.shared.open()?.queue.open_lease(mode);
        // A block may have been cut to its bound.
        self.shared.ready.notify_waiters();
        Ok(lease)
    }

    fn lease_take(
        &self,
        lease: LeaseId,
        max_events: usize,
        max_bytes: usize,
    ) -> Result<TakenBatch, ChannelError> {
        let shared = &*self.shared;
        let mut state = shared.open()?;
        let most = u64::try_from(max_events).unwrap_or(u64::MAX);
        let most_bytes = u64::try_from(max_bytes).unwrap_or(u64::MAX);
        let grant = state.queue.grant(lease, most, shared.options.clock.now());
        let grant = grant.map_err(|_| shared.lease_lost())?;
        state.take_attempts += 1;
        let mut taken = TakenBatch::default();
        let Some(grant) = grant else { return Ok(taken) };
        let mut bytes = 0;
        for seq in grant.range.first.0..=grant.range.last.0 {
            let Some(event) = state.event(seq) else { break };
            bytes += event_bytes(event);
            if bytes > most_bytes && !taken.events.is_empty() {
                break;
            }
            taken.events.push(TakenEvent {
                seq: Seq(seq),
                event: event.clone(),
            });
        }
        match taken.events.last().map(|e| e.seq) {
            Some(last) => state.queue.granted(lease, last, None),
            None => state.queue.ungrant(lease),
        }
        shared.wake_puts(&mut state);
        shared.ready.notify_waiters();
        Ok(taken)
    }

    fn lease_exhausted(&self, lease: LeaseId) -> bool {
        self.shared.lock().queue.exhausted(lease)
    }

    async fn wait_ready(&self, timeout: Duration) {
        let asked = self.shared.lock().seal_asks;
        let look = |s: &mut State, now| s.seal_asks != asked || s.queue.has_ready(now);
        self.shared.wait(timeout, look).await;
    }

    async fn wait_lease(&self, lease: LeaseId, timeout: Duration) {
        self.shared
            .wait(timeout, |state, now| state.queue.lease_ready(lease, now))
            .await;
    }

    fn must_seal(&self, lease: LeaseId) -> bool {
        self.shared.lock().queue.must_seal(lease)
    }

    async fn lease_ack(&self, lease: LeaseId, through: Seq) -> Result<(), ChannelError> {
        let mut state = self.shared.open()?;
        let range = state
            .queue
            .ack(lease, through)
            .map_err(|_| self.shared.lease_lost())?;
        state.forget(range);
        self.shared.wake_puts(&mut state);
        Ok(())
    }

    fn release_lease(&self, lease: LeaseId) {
        self.shared.lock().queue.release(lease);
        self.shared.ready.notify_waiters();
    }

    async fn seal(
        &self,
        lease: LeaseId,
        request: SealRequest,
    ) -> Result<EpochRecord, ChannelError> {
        let mut state = self.shared.open()?;
        let sealed = state.queue.seal(lease, request.last);
        let range = sealed.map_err(|_| self.shared.lease_lost())?;
        let epoch = state.next_epoch;
        let number = format!("{epoch:016}");
        let SealRequest {
            sink,
            store,
            base,
            attempt,
            mut parts,
            ..
        } = request;
        for part in &mut parts {
            part.final_path = part.final_path.replace(EPOCH_TOKEN, &number);
        }
        let record = EpochRecord {
            epoch,
            range,
            sink,
            store,
            base,
            attempt,
            parts,
            claimed: false,
        };
        state.next_epoch += 1;
        state.epochs.insert(epoch, record.clone());
        Ok(record)
    }

    fn journal(&self) -> Arc<dyn EpochJournal> {
        self.shared.clone()
    }

    fn positions(&self, prefix: &str) -> Vec<Position> {
        let state = self.shared.lock();
        let from = state.positions.range(prefix.to_owned()..);
        from.take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, value)| Position {
                key: key.clone(),
                value: value.clone(),
            })
            .collect()
    }

    fn status(&self) -> ChannelStatus {
        let state = self.shared.lock();
        let counts = state.queue.counts();
        ChannelStatus {
            waiting: counts.waiting + counts.committed,
            leased: counts.leased + counts.staged + counts.acking,
            sealed_unpublished: counts.sealed,
            corrupt: counts.lost,
            refused: state.refused,
            capacity: self.shared.options.capacity,
            next_sequence: state.queue.durable_end().0,
            put_events: state.put_events,
            put_attempts: state.put_attempts,
            take_attempts: state.take_attempts,
            take_events: state.take_events,
            segments: 0,
            disk_bytes: 0,
            held_back: state.held_back.clone(),
            poisoned: None,
        }
    }

    fn close(&self) -> Result<(), ChannelError> {
        let mut state = self.shared.lock();
        state.closed = true;
        state.queue.release_all();
        self.shared.wake_puts(&mut state);
        self.shared.ready.notify_waiters();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
