//! The channel contract: what a source and a sink may rely on, whichever channel is between them.
//!
//! *Place in the flow*: sources commit put transactions, sinks open take transactions.
//! A **take transaction is a lease**: a contiguous run of sequence numbers handed to one sink.
//! Commit acknowledges it, rollback or drop returns it to the head in order with the same
//! numbers, [`TakeTransaction::seal`] turns the front of it into an epoch.
//!
//! *Invariants*: a channel has one cursor; sinks on it compete; every event goes to exactly one
//! of them. Only durable events are taken, in every sync mode.

pub mod file;
pub mod journal;
pub mod memory;
pub mod queue;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::event::{Event, Seq, SeqRange};
pub use journal::{EpochJournal, EpochPart, EpochRecord, SealRequest};

/// What went wrong in a channel, and what the caller may do next.
#[derive(Debug, thiserror::Error, Clone)]
#[non_exhaustive]
pub enum ChannelError {
    /// No room within the keep-alive time. Nothing was stored; try again later.
    #[error("channel {channel} is full: {reason}")]
    Full {
        /// Channel name.
        channel: String,
        /// Which bound was met (events, bytes, disk space).
        reason: String,
    },
    /// The transaction can never fit. Nothing was stored; split it.
    #[error("transaction too large for channel {channel}: {size} > {limit} {unit}")]
    TooLarge {
        /// Channel name.
        channel: String,
        /// Size of the refused transaction.
        size: u64,
        /// The limit it broke.
        limit: u64,
        /// `events` or `bytes`.
        unit: &'static str,
    },
    /// A sync or write failed, so the log instance has ended. The outcome of transactions in
    /// flight is unknown until the channel has been reopened.
    #[error("channel {channel} has failed and must be reopened: {reason}")]
    Poisoned {
        /// Channel name.
        channel: String,
        /// The first error.
        reason: String,
    },
    /// The lease was revoked or is unknown; its events went back to the head.
    #[error("the lease is no longer held (channel {channel})")]
    LeaseLost {
        /// Channel name.
        channel: String,
    },
    /// The channel is closed.
    #[error("channel {channel} is closed")]
    Closed {
        /// Channel name.
        channel: String,
    },
    /// Reading stored events failed for a reason that may pass (I/O error on a cold segment).
    #[error("channel {channel}: cannot read segment {segment} at {offset}: {reason}")]
    Read {
        /// Channel name.
        channel: String,
        /// Segment number.
        segment: u32,
        /// Byte offset in the segment.
        offset: u32,
        /// What the system said.
        reason: String,
    },
    /// Misuse or a broken rule of the epoch journal.
    #[error("channel {channel}: {reason}")]
    Refused {
        /// Channel name.
        channel: String,
        /// Why.
        reason: String,
    },
}

/// A source's read position: an opaque value under a key, stored in the same frame as the events
/// it belongs to, so the two cannot disagree after a crash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// `<source name>/<what>`, for example the identity of a tailed file.
    pub key: String,
    /// The state after the last event of the transaction. Empty: forget the key.
    pub value: Bytes,
}

/// One event of a put transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutEvent {
    /// The event.
    pub event: Event,
    /// Where in its input it ended: index into [`PutBatch::positions`], and an offset.
    pub position: Option<(u32, u64)>,
}

/// The content of a put transaction: all of it is there after a crash, or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutBatch {
    /// Events in order.
    pub events: Vec<PutEvent>,
    /// Positions after the last event. A batch of positions alone is legal.
    pub positions: Vec<Position>,
}

/// An event with its sequence number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenEvent {
    /// Its number.
    pub seq: Seq,
    /// The event.
    pub event: Event,
}

/// What one [`TakeTransaction::take`] brought: events in order, and the runs between them that
/// damage has destroyed. Together they are contiguous with what the lease held before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TakenBatch {
    /// Events in order of sequence.
    pub events: Vec<TakenEvent>,
    /// Runs lost to damage; they count as taken and must be reported by the sink.
    pub lost: Vec<SeqRange>,
}

impl TakenBatch {
    /// Whether nothing was brought.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.lost.is_empty()
    }
}

/// How a take transaction will be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakeMode {
    /// Batch by batch: events count against the capacity until they are acknowledged.
    Batch,
    /// Towards an epoch: events stop counting as soon as they are taken (they are staged
    /// elsewhere), as after Flume's take commit.
    Staged {
        /// Most events the lease may ever cover where several sinks share the channel.
        block_events: u64,
    },
}

/// Identity of a lease inside its channel; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(pub u64);

/// Counters of a channel, in events unless named otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ChannelStatus {
    /// Durable or committed events that no sink holds.
    pub waiting: u64,
    /// Events held by open leases.
    pub leased: u64,
    /// Events in epochs that are sealed and not yet done.
    pub sealed_unpublished: u64,
    /// Events lost to damage and not yet reported by a sink.
    pub corrupt: u64,
    /// Put transactions refused because the channel was full.
    pub refused: u64,
    /// Capacity in events.
    pub capacity: u64,
    /// Next sequence number to be given.
    pub next_sequence: u64,
    /// Put events committed since the channel was opened.
    pub put_events: u64,
    /// Put attempts (events) since open.
    pub put_attempts: u64,
    /// Take attempts (events) since open.
    pub take_attempts: u64,
    /// Events acknowledged since open.
    pub take_events: u64,
    /// Segments on disk, prepared ones included (0 for memory).
    pub segments: u64,
    /// Bytes on disk (0 for memory).
    pub disk_bytes: u64,
    /// Why puts are held back right now, if they are.
    pub held_back: Option<String>,
    /// Set when the log instance has ended and must be reopened.
    pub poisoned: Option<String>,
}

/// The operations behind [`PutTransaction`] and [`TakeTransaction`], implemented by each channel.
#[async_trait]
pub trait Channel: Send + Sync + 'static {
    /// Name from the configuration.
    fn name(&self) -> &str;

    /// Most events in one put transaction (`transactionCapacity`).
    fn transaction_capacity(&self) -> usize;

    /// Commits a put transaction; waits up to the keep-alive time for room.
    ///
    /// # Durability
    /// On `Ok` of a file channel in its default sync mode the events survive `kill -9`, kernel
    /// panic and power loss. `None` for a batch without events (its positions are durable too).
    async fn commit_put(&self, batch: PutBatch) -> Result<Option<SeqRange>, ChannelError>;

    /// The same, blocking the calling thread; must not be called on an async worker.
    fn commit_put_blocking(&self, batch: PutBatch) -> Result<Option<SeqRange>, ChannelError>;

    /// Opens an empty lease.
    fn open_lease(&self, mode: TakeMode) -> Result<LeaseId, ChannelError>;

    /// Extends a lease by up to `max_events` durable events and about `max_bytes` of bodies.
    /// Never waits; an empty answer means nothing can be added now (see `wait_ready`), or that
    /// the lease cannot grow any more (see `lease_exhausted`).
    fn lease_take(
        &self,
        lease: LeaseId,
        max_events: usize,
        max_bytes: usize,
    ) -> Result<TakenBatch, ChannelError>;

    /// Whether the lease can never grow again (its block is full, or another sink holds what
    /// follows): commit or seal it and open another.
    fn lease_exhausted(&self, lease: LeaseId) -> bool;

    /// Waits until a new lease may be given something, or the channel asks leases to seal, or
    /// `timeout`. The holder of a lease waits with [`Channel::wait_lease`].
    async fn wait_ready(&self, timeout: Duration);

    /// Waits until the holder of `lease` has something to do, or `timeout`: more can be taken, it
    /// must seal, it is exhausted, or it is lost. Never returns early only because other leases
    /// could take what this one cannot.
    async fn wait_lease(&self, lease: LeaseId, timeout: Duration) {
        let _held = lease;
        self.wait_ready(timeout).await;
    }

    /// Whether the channel is short of bytes and asks this lease's holder to seal now.
    fn must_seal(&self, lease: LeaseId) -> bool;

    /// Acknowledges the events of the lease up to and including `through` (durable on `Ok`).
    async fn lease_ack(&self, lease: LeaseId, through: Seq) -> Result<(), ChannelError>;

    /// Ends the lease; what was not acknowledged or sealed goes back to the head.
    fn release_lease(&self, lease: LeaseId);

    /// Seals the front of the lease, `[first, request.last]`, as the next epoch (durable on `Ok`).
    async fn seal(&self, lease: LeaseId, request: SealRequest)
    -> Result<EpochRecord, ChannelError>;

    /// Where epochs are recorded.
    fn journal(&self) -> Arc<dyn EpochJournal>;

    /// Durable positions whose key begins with `prefix`.
    fn positions(&self, prefix: &str) -> Vec<Position>;

    /// Counters.
    fn status(&self) -> ChannelStatus;

    /// Stops background work and seals the log. Open leases are released. Idempotent.
    fn close(&self) -> Result<(), ChannelError>;
}

/// A put transaction: gathers events and stores all of them at commit, or none.
pub struct PutTransaction {
    channel: Arc<dyn Channel>,
    batch: PutBatch,
}

impl std::fmt::Debug for PutTransaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PutTransaction")
            .field("events", &self.batch.events.len())
            .finish()
    }
}

impl PutTransaction {
    /// Begins a transaction; nothing is reserved yet.
    pub fn begin(channel: Arc<dyn Channel>) -> Self {
        Self {
            channel,
            batch: PutBatch::default(),
        }
    }

    /// Adds an event without a position.
    pub fn put(&mut self, event: Event) {
        self.batch.events.push(PutEvent {
            event,
            position: None,
        });
    }

    /// Adds a position; returns its index for [`PutTransaction::put_at`].
    pub fn position(&mut self, position: Position) -> u32 {
        self.batch.positions.push(position);
        u32::try_from(self.batch.positions.len() - 1).unwrap_or(u32::MAX)
    }

    /// Adds an event that ended at `offset` of the input behind position `index`.
    pub fn put_at(&mut self, event: Event, index: u32, offset: u64) {
        self.batch.events.push(PutEvent {
            event,
            position: Some((index, offset)),
        });
    }

    /// Commits; see [`Channel::commit_put`].
    pub async fn commit(self) -> Result<Option<SeqRange>, ChannelError> {
        self.channel.commit_put(self.batch).await
    }

    /// Commits, blocking the thread; see [`Channel::commit_put_blocking`].
    pub fn commit_blocking(self) -> Result<Option<SeqRange>, ChannelError> {
        self.channel.commit_put_blocking(self.batch)
    }

    /// Forgets everything; the same as dropping the transaction.
    pub fn rollback(self) {}
}

/// A take transaction, which is a lease. Rolled back on drop.
pub struct TakeTransaction {
    channel: Arc<dyn Channel>,
    lease: LeaseId,
    held: Option<SeqRange>,
}

impl std::fmt::Debug for TakeTransaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TakeTransaction")
            .field("lease", &self.lease)
            .field("held", &self.held)
            .finish()
    }
}

impl TakeTransaction {
    /// Opens a lease that holds nothing yet.
    pub fn begin(channel: Arc<dyn Channel>, mode: TakeMode) -> Result<Self, ChannelError> {
        let lease = channel.open_lease(mode)?;
        Ok(Self {
            channel,
            lease,
            held: None,
        })
    }

    /// Takes more events; see [`Channel::lease_take`].
    pub fn take(
        &mut self,
        max_events: usize,
        max_bytes: usize,
    ) -> Result<TakenBatch, ChannelError> {
        let batch = self.channel.lease_take(self.lease, max_events, max_bytes)?;
        let firsts = batch.events.first().map(|e| e.seq).into_iter();
        let first = firsts.chain(batch.lost.first().map(|r| r.first)).min();
        let lasts = batch.events.last().map(|e| e.seq).into_iter();
        let last = lasts.chain(batch.lost.last().map(|r| r.last)).max();
        if let (Some(first), Some(last)) = (first, last) {
            let first = self.held.map_or(first, |held| held.first);
            self.held = SeqRange::new(first, last);
        }
        Ok(batch)
    }

    /// What is taken and neither acknowledged nor sealed.
    pub fn held(&self) -> Option<SeqRange> {
        self.held
    }

    /// See [`Channel::lease_exhausted`].
    pub fn exhausted(&self) -> bool {
        self.channel.lease_exhausted(self.lease)
    }

    /// See [`Channel::must_seal`].
    pub fn must_seal(&self) -> bool {
        self.channel.must_seal(self.lease)
    }

    /// See [`Channel::wait_lease`].
    pub async fn wait(&self, timeout: Duration) {
        self.channel.wait_lease(self.lease, timeout).await;
    }

    /// Acknowledges all that is held and ends the lease.
    pub async fn commit(self) -> Result<(), ChannelError> {
        match self.held {
            Some(held) => self.channel.lease_ack(self.lease, held.last).await,
            None => Ok(()),
        }
    }

    /// Acknowledges up to `through`; the rest stays held.
    pub async fn commit_through(&mut self, through: Seq) -> Result<(), ChannelError> {
        self.channel.lease_ack(self.lease, through).await?;
        self.held = self
            .held
            .and_then(|h| SeqRange::new(through.next(), h.last));
        Ok(())
    }

    /// Seals `[held.first, request.last]` as an epoch; the rest stays held.
    pub async fn seal(&mut self, request: SealRequest) -> Result<EpochRecord, ChannelError> {
        let last = request.last;
        let record = self.channel.seal(self.lease, request).await?;
        self.held = self.held.and_then(|h| SeqRange::new(last.next(), h.last));
        Ok(record)
    }

    /// Returns everything to the head; the same as dropping the transaction.
    pub fn rollback(self) {}
}

impl Drop for TakeTransaction {
    fn drop(&mut self) {
        self.channel.release_lease(self.lease);
    }
}
