//! The `null` sink: takes events batch by batch and forgets them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{Sink, SinkError};
use crate::agent::counters::SinkCounters;
use crate::channel::{Channel, ChannelError, TakeMode, TakeTransaction, TakenBatch};
use crate::source::Shutdown;

/// Most bytes of bodies in one batch.
const TAKE_BYTES: usize = 4 * 1024 * 1024;
/// Longest wait for events.
const WAIT: Duration = Duration::from_millis(500);
/// Pause after a take or a commit that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Takes batches until `shutdown`, hands each to `with`, and acknowledges it. A batch whose
/// acknowledgement failed comes again: at least once.
pub(super) async fn drain(
    channel: Arc<dyn Channel>,
    shutdown: Shutdown,
    batch_size: usize,
    counters: &SinkCounters,
    mut with: impl FnMut(&TakenBatch) + Send,
) -> Result<(), SinkError> {
    while !shutdown.requested() {
        let failed = match one_batch(&channel, batch_size, counters, &mut with).await {
            Ok(true) => continue,
            Ok(false) => {
                tokio::select! {
                    () = channel.wait_ready(WAIT) => {}
                    () = shutdown.wait() => {}
                }
                continue;
            }
            Err(error) => error,
        };
        counters.channel_read_fails.increment();
        if matches!(
            failed,
            ChannelError::Poisoned { .. } | ChannelError::Closed { .. }
        ) {
            return Err(failed.into());
        }
        tracing::warn!(channel = channel.name(), error = %failed, "trying again");
        shutdown.wait_for(PAUSE).await;
    }
    Ok(())
}

async fn one_batch(
    channel: &Arc<dyn Channel>,
    batch_size: usize,
    counters: &SinkCounters,
    with: &mut (impl FnMut(&TakenBatch) + Send),
) -> Result<bool, ChannelError> {
    let mut tx = TakeTransaction::begin(Arc::clone(channel), TakeMode::Batch)?;
    let batch = tx.take(batch_size, TAKE_BYTES)?;
    let taken = u64::try_from(batch.events.len()).unwrap_or(u64::MAX);
    match batch.events.len() {
        0 => counters.batches_empty.increment(),
        n if n < batch_size => counters.batches_underflow.increment(),
        _ => counters.batches_complete.increment(),
    }
    if batch.is_empty() {
        return Ok(false);
    }
    for run in &batch.lost {
        tracing::error!(first = %run.first, last = %run.last, "events lost to damage");
    }
    counters.drain_attempts.add(taken);
    with(&batch);
    tx.commit().await?;
    counters.drain_successes.add(taken);
    Ok(true)
}

/// Forgets events.
#[derive(Debug)]
pub struct NullSink {
    /// Name from the configuration.
    pub name: String,
    /// Most events taken at once.
    pub batch_size: usize,
    /// Log progress after so many events; 0: never.
    pub log_every_n_events: u64,
    /// What it counts.
    pub counters: Arc<SinkCounters>,
}

#[async_trait]
impl Sink for NullSink {
    async fn run(&self, channel: Arc<dyn Channel>, shutdown: Shutdown) -> Result<(), SinkError> {
        let mut total = 0_u64;
        let every = self.log_every_n_events;
        drain(
            channel,
            shutdown,
            self.batch_size,
            &self.counters,
            |batch| {
                let before = total;
                total += u64::try_from(batch.events.len()).unwrap_or(0);
                if every > 0 && total / every > before / every {
                    tracing::info!(sink = %self.name, events = total / every * every, "forgotten");
                }
            },
        )
        .await
    }
}
