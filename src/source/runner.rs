//! From a source's batches to put transactions.
//!
//! *Place in the flow*: a source calls [`Runner::put`] (or [`Runner::put_blocking`] from its own
//! thread) with one batch. A full channel holds the source back: the same batch is tried again
//! until it fits or the source is stopped, so nothing is lost and nothing overtakes.
//!
//! *Invariant*: `Ok` is returned after the channel has acknowledged the batch, never before.
//! After an error the batch is not acknowledged: either it was not stored
//! ([`PutError::Stopped`], [`PutError::TooLarge`]), or its outcome is unknown until the channel
//! has been reopened, which then tells by the positions it holds.

use std::time::Duration;

use crate::channel::{ChannelError, PutBatch};
use crate::event::SeqRange;
use crate::source::{SourceContext, SourceError};

/// First and longest pause between two attempts to put a batch into a full channel. The channel
/// itself has waited for its keep-alive time before it says that it is full.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Why a batch was not acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// The source was asked to stop while the channel was full. Nothing was stored.
    #[error("stopped while the channel was full")]
    Stopped,
    /// The batch can never fit as it is. Nothing was stored; split it or refuse the event.
    #[error("{0}")]
    TooLarge(ChannelError),
    /// The run has to end.
    #[error(transparent)]
    Ended(SourceError),
}

/// Puts batches of one source into its channel.
#[derive(Clone, Debug)]
pub struct Runner {
    context: SourceContext,
}

/// What to do after a refused attempt.
enum Next {
    Pause(Duration),
    Fail(PutError),
}

impl Runner {
    /// A runner for one run of a source.
    pub fn new(context: SourceContext) -> Self {
        Self { context }
    }

    /// What the run works with.
    pub fn context(&self) -> &SourceContext {
        &self.context
    }

    /// Most events in one batch: `wanted`, or the channel's transaction capacity if that is less.
    pub fn batch_events(&self, wanted: usize) -> usize {
        wanted
            .min(self.context.channel.transaction_capacity())
            .max(1)
    }

    /// Puts one batch and waits until it is acknowledged. One call at a time keeps the order.
    pub async fn put(&self, batch: PutBatch) -> Result<Option<SeqRange>, PutError> {
        let events = self.received(&batch);
        let mut attempt = 0;
        loop {
            match self.context.channel.commit_put(batch.clone()).await {
                Ok(range) => return Ok(self.accepted(events, attempt, range)),
                Err(error) => match self.refused(error, attempt) {
                    Next::Fail(error) => return Err(error),
                    Next::Pause(pause) => {
                        if self.context.shutdown.wait_for(pause).await {
                            return Err(PutError::Stopped);
                        }
                    }
                },
            }
            attempt += 1;
        }
    }

    /// The same from a plain thread; must not be called on an async worker.
    pub fn put_blocking(&self, batch: PutBatch) -> Result<Option<SeqRange>, PutError> {
        let events = self.received(&batch);
        let mut attempt = 0;
        loop {
            match self.context.channel.commit_put_blocking(batch.clone()) {
                Ok(range) => return Ok(self.accepted(events, attempt, range)),
                Err(error) => match self.refused(error, attempt) {
                    Next::Fail(error) => return Err(error),
                    Next::Pause(pause) => {
                        if self.context.shutdown.wait_blocking(pause) {
                            return Err(PutError::Stopped);
                        }
                    }
                },
            }
            attempt += 1;
        }
    }

    fn received(&self, batch: &PutBatch) -> u64 {
        let events = u64::try_from(batch.events.len()).unwrap_or(u64::MAX);
        if events > 0 {
            self.context.counters.events_received.add(events);
            self.context.counters.batches_received.increment();
        }
        events
    }

    fn accepted(&self, events: u64, attempt: u32, range: Option<SeqRange>) -> Option<SeqRange> {
        if events > 0 {
            self.context.counters.events_accepted.add(events);
            self.context.counters.batches_accepted.increment();
        }
        if attempt > 0 {
            tracing::info!(source = %self.context.name, attempts = attempt,
                channel = self.context.channel.name(), "the channel has room again");
        }
        range
    }

    fn refused(&self, error: ChannelError, attempt: u32) -> Next {
        self.context.counters.channel_write_fails.increment();
        let source_name = self.context.name.clone();
        match error {
            ChannelError::Full { .. } => {
                if attempt == 0 {
                    tracing::warn!(source = %source_name, %error,
                        "waiting for room; the same batch is tried again until it fits");
                }
                Next::Pause(
                    PAUSE_MIN
                        .saturating_mul(1 << attempt.min(10))
                        .min(PAUSE_MAX),
                )
            }
            ChannelError::TooLarge { .. } => Next::Fail(PutError::TooLarge(error)),
            ChannelError::Poisoned { .. } => {
                Next::Fail(PutError::Ended(SourceError::ChannelPoisoned {
                    source_name,
                    error,
                }))
            }
            error => Next::Fail(PutError::Ended(SourceError::Channel { source_name, error })),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::event::Event;
    use crate::source::testing::{Fake, context};

    fn batch(lines: &[&str]) -> PutBatch {
        let mut batch = PutBatch::default();
        for line in lines {
            let event = Event::from_body(line.as_bytes().to_vec());
            batch.events.push(crate::channel::PutEvent {
                event,
                position: None,
            });
        }
        batch
    }

    #[tokio::test]
    async fn a_full_channel_gets_the_same_batch_until_it_fits() {
        let channel = Fake::new();
        channel.refuse.store(3, Ordering::SeqCst);
        let (_trigger, context) = context(&channel, "s");
        let runner = Runner::new(context);
        runner.put(batch(&["a", "b"])).await.unwrap();
        channel.refuse.store(2, Ordering::SeqCst);
        let runner = tokio::task::spawn_blocking(move || {
            runner.put_blocking(batch(&["c"])).unwrap();
            runner
        });
        let counters = &runner.await.unwrap().context.counters;
        assert_eq!(channel.lines(), ["a", "b", "c"]);
        assert_eq!(counters.channel_write_fails.get(), 5);
        assert_eq!(counters.events_received.get(), 3);
        assert_eq!(counters.events_accepted.get(), 3);
        assert_eq!(counters.batches_accepted.get(), 2);
    }

    #[tokio::test]
    async fn a_stop_ends_the_wait_for_room_and_stores_nothing() {
        let channel = Fake::new();
        channel.refuse.store(u64::MAX, Ordering::SeqCst);
        let (trigger, context) = context(&channel, "s");
        let runner = Runner::new(context);
        let put = tokio::spawn(async move { runner.put(batch(&["a"])).await });
        channel.refused.notified().await;
        trigger.stop();
        assert!(matches!(put.await.unwrap(), Err(PutError::Stopped)));
        assert!(channel.lines().is_empty());
    }

    #[tokio::test]
    async fn a_poisoned_channel_is_reported_and_not_tried_again() {
        let channel = Fake::new();
        channel.poison("sync failed");
        let (_trigger, context) = context(&channel, "s");
        let counters = std::sync::Arc::clone(&context.counters);
        let error = Runner::new(context).put(batch(&["a"])).await.unwrap_err();
        assert!(
            matches!(error, PutError::Ended(SourceError::ChannelPoisoned { .. })),
            "{error}"
        );
        assert_eq!(counters.channel_write_fails.get(), 1);
        assert_eq!(counters.events_accepted.get(), 0);
    }
}
