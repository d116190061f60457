//! The sink side of the publisher: takes leases, writes attempts, seals.
//!
//! *Place in the flow*: one task a sink. It waits until its base is ready, then: lease -> attempt
//! -> SEAL -> hand over to the resolver, and goes on with the rest of the lease at once, so that
//! several epochs are in flight.
//!
//! *Invariants*: nothing is sealed that was not closed and measured; an attempt that fails before
//! SEAL is deleted and its events return to the channel; an attempt whose SEAL has an unknown
//! outcome is left alone.
//!
//! *Crash*: before SEAL the events are in the channel and the attempt is fenced at the next start;
//! after it the resolver goes on from the journal.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::agent::counters::SinkCounters;
use crate::channel::{ChannelError, SealRequest, TakeMode, TakeTransaction};
use crate::source::Shutdown;

use super::attempt::{Attempt, AttemptError, KnownBuckets, Remains};
use super::options::StagedOptions;
use super::resolver::Session;
use super::startup::PublishFailure;
use super::store::FileStore;

/// Most bytes of bodies taken at once.
const TAKE_BYTES: usize = 4 * 1024 * 1024;
/// Longest wait without a look at timers.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// One staged sink.
#[derive(Clone)]
pub struct StagedSink {
    store: Arc<dyn FileStore>,
    options: Arc<StagedOptions>,
    counters: Arc<SinkCounters>,
}

impl std::fmt::Debug for StagedSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StagedSink")
            .field("sink", &self.options.sink)
            .finish_non_exhaustive()
    }
}

/// Why work on a lease has ended.
enum Lease {
    /// Asked to stop; all that was taken is sealed.
    Stopped,
    /// The lease cannot grow any more.
    Exhausted,
}

/// Why work on a lease has failed.
enum Fault {
    Attempt(AttemptError),
    Channel(ChannelError),
}

impl From<AttemptError> for Fault {
    fn from(error: AttemptError) -> Self {
        Self::Attempt(error)
    }
}

impl From<ChannelError> for Fault {
    fn from(error: ChannelError) -> Self {
        Self::Channel(error)
    }
}

impl StagedSink {
    /// A sink that publishes into `store`.
    pub fn new(
        store: Arc<dyn FileStore>,
        options: StagedOptions,
        counters: Arc<SinkCounters>,
    ) -> Self {
        Self {
            store,
            options: Arc::new(options),
            counters,
        }
    }

    /// Store and base, for [`Publisher::new`](super::resolver::Publisher::new).
    pub fn target(&self) -> (Arc<dyn FileStore>, String) {
        (Arc::clone(&self.store), self.options.base.clone())
    }

    /// Publishes until `shutdown`; then seals what it has taken and returns. What is sealed is
    /// finished by the resolver.
    ///
    /// # Errors
    /// A refusal that trying again cannot cure, or the failure of the channel.
    pub async fn run(
        &self,
        session: Arc<Session>,
        shutdown: Shutdown,
    ) -> Result<(), PublishFailure> {
        let options = &self.options;
        session.register(&options.sink, Arc::clone(&self.counters));
        let ready = tokio::select! {
            ready = session.ready(self.store.uri(), &options.base) => ready,
            () = shutdown.wait() => return Ok(()),
        };
        match ready {
            Ok(()) => {}
            Err(PublishFailure::Damage { .. }) => {
                // Reported by the resolver; sources go on.
                shutdown.wait().await;
                return Ok(());
            }
            Err(failure) => return Err(failure),
        }
        let mut known = KnownBuckets::default();
        let mut round = 0;
        while !shutdown.requested() {
            let pause = match self
                .lease(&session, &shutdown, &mut known, &mut round)
                .await
            {
                Ok(Lease::Stopped) => return Ok(()),
                Ok(Lease::Exhausted) => continue,
                Err(Fault::Channel(
                    error @ (ChannelError::Poisoned { .. } | ChannelError::Closed { .. }),
                )) => return Err(error.into()),
                Err(fault) => {
                    known.clear();
                    round += 1;
                    self.report(&session, fault, round).await?;
                    session.backoff().pause(round)
                }
            };
            shutdown.wait_for(pause).await;
        }
        Ok(())
    }

    async fn report(
        &self,
        session: &Session,
        fault: Fault,
        round: u32,
    ) -> Result<(), PublishFailure> {
        let sink = &self.options.sink;
        match fault {
            Fault::Channel(error) => {
                self.counters.channel_read_fails.increment();
                tracing::warn!(%sink, round, %error, "the channel: trying again");
            }
            Fault::Attempt(error) => {
                self.counters.event_write_fails.increment();
                self.counters.connections_failed.increment();
                tracing::warn!(%sink, round, %error, "attempt given up; its events come again");
                if matches!(error, AttemptError::StagingGone(_)) {
                    match session.recheck(&*self.store, &self.options.base).await {
                        Err(failure) if failure.is_final() => return Err(failure),
                        Err(failure) => tracing::warn!(%sink, %failure, "staging directory"),
                        Ok(()) => {}
                    }
                }
            }
        }
        Ok(())
    }

    async fn lease(
        &self,
        session: &Session,
        shutdown: &Shutdown,
        known: &mut KnownBuckets,
        round: &mut u32,
    ) -> Result<Lease, Fault> {
        let mode = TakeMode::Staged {
            block_events: self.options.block_events,
        };
        let mut tx = TakeTransaction::begin(Arc::clone(session.channel()), mode)?;
        let mut attempt = None;
        let worked = self
            .work(session, shutdown, known, round, &mut tx, &mut attempt)
            .await;
        let unknown = matches!(
            &worked,
            Err(Fault::Channel(
                ChannelError::Poisoned { .. } | ChannelError::Closed { .. }
            ))
        );
        if let (false, Some(attempt)) = (unknown, attempt.take()) {
            self.give_up(session, attempt).await;
        }
        worked
    }

    async fn give_up(&self, session: &Session, attempt: Attempt) {
        let (uri, base) = (self.store.uri(), &self.options.base);
        session.discard(uri, base, attempt.remains()).await;
    }

    async fn work(
        &self,
        session: &Session,
        shutdown: &Shutdown,
        known: &mut KnownBuckets,
        round: &mut u32,
        tx: &mut TakeTransaction,
        slot: &mut Option<Attempt>,
    ) -> Result<Lease, Fault> {
        loop {
            let stopping = shutdown.requested();
            let mut took = 0;
            if !stopping {
                took = self.take(session, known, tx, slot).await?;
            }
            if let Some(attempt) = slot.as_mut().filter(|a| a.range().is_some())
                && (stopping || tx.must_seal() || tx.exhausted() || self.is_due(attempt))
            {
                let request = attempt.close().await?;
                self.counters.connections_closed.add(files(attempt));
                tokio::select! {
                    () = session.admit() => {}
                    () = shutdown.wait() => {}
                }
                self.seal(session, tx, request).await?;
                // Sealed: the attempt's directory belongs to the resolver.
                *slot = None;
                *round = 0;
            }
            if stopping {
                return Ok(Lease::Stopped);
            }
            if took > 0 {
                continue;
            }
            let exhausted = tx.exhausted() && tx.held().is_none();
            let limit = self.next_look(slot.as_ref());
            let ready = async {
                // An exhausted lease has nothing to wait for: what comes is for the next one.
                if exhausted {
                    session.channel().wait_ready(limit).await;
                } else {
                    tx.wait(limit).await;
                }
            };
            tokio::select! {
                () = ready => {}
                () = shutdown.wait() => {}
            }
            if exhausted {
                return Ok(Lease::Exhausted);
            }
        }
    }

    async fn take(
        &self,
        session: &Session,
        known: &mut KnownBuckets,
        tx: &mut TakeTransaction,
        slot: &mut Option<Attempt>,
    ) -> Result<usize, Fault> {
        let batch = tx.take(self.options.batch_size, TAKE_BYTES)?;
        let took = batch.events.len();
        match took {
            0 => self.counters.batches_empty.increment(),
            n if n < self.options.batch_size => self.counters.batches_underflow.increment(),
            _ => self.counters.batches_complete.increment(),
        }
        if batch.is_empty() {
            return Ok(0);
        }
        self.counters
            .drain_attempts
            .add(u64::try_from(took).unwrap_or(0));
        if slot.is_none() {
            let (store, options) = (Arc::clone(&self.store), Arc::clone(&self.options));
            let number = session.next_attempt();
            match Attempt::begin(store, options, &**session.journal(), number).await {
                Ok(attempt) => *slot = Some(attempt),
                Err((dir, error)) => {
                    let (uri, base) = (self.store.uri(), &self.options.base);
                    session.discard(uri, base, Remains::of(dir)).await;
                    return Err(error.into());
                }
            }
        }
        if let Some(attempt) = slot {
            let before = files(attempt);
            let added = attempt.add(&batch, known).await;
            self.counters
                .connections_created
                .add(files(attempt) - before);
            added?;
        }
        Ok(took.max(1))
    }

    async fn seal(
        &self,
        session: &Session,
        tx: &mut TakeTransaction,
        request: SealRequest,
    ) -> Result<(), ChannelError> {
        let record = tx.seal(request).await?;
        self.counters.epochs_sealed.increment();
        tracing::debug!(
            sink = %self.options.sink, epoch = record.epoch,
            first = %record.range.first, last = %record.range.last,
            parts = record.parts.len(), "sealed"
        );
        session.submit(record);
        Ok(())
    }

    fn is_due(&self, attempt: &Attempt) -> bool {
        attempt.is_full()
            || self
                .deadline(attempt)
                .is_some_and(|deadline| deadline <= Instant::now())
    }

    /// When the epoch is to be sealed if nothing more comes.
    fn deadline(&self, attempt: &Attempt) -> Option<Instant> {
        let rolled = self
            .options
            .roll_interval
            .map(|limit| attempt.first_at + limit);
        let idle = self
            .options
            .idle_timeout
            .map(|limit| attempt.last_at + limit);
        match (rolled, idle) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    fn next_look(&self, attempt: Option<&Attempt>) -> Duration {
        let deadline = attempt.and_then(|attempt| self.deadline(attempt));
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        left.map_or(LOOK_EVERY, |left| left.min(LOOK_EVERY))
    }
}

fn files(attempt: &Attempt) -> u64 {
    u64::try_from(attempt.files()).unwrap_or(u64::MAX)
}
