//! Sinks, one file each; `staged` is the exactly-once publisher.
//!
//! *Place in the flow*: the agent runs each [`Sink`] as one task on its open channel. A sink is
//! made once from the configuration and run as often as needed; sinks that publish share the
//! channel's [`Publisher`], which the agent runs beside them and stops after them.

pub mod file_roll;
pub mod hdfs;
pub mod logger;
pub mod null;
pub mod staged;

use std::sync::Arc;

use async_trait::async_trait;

use crate::channel::{Channel, ChannelError};
use crate::source::Shutdown;

use staged::resolver::Publisher;
use staged::sink::StagedSink;
use staged::startup::PublishFailure;

/// Why a sink has ended without having been asked to.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SinkError {
    /// The channel.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The store refuses this log, or the channel's journal has failed.
    #[error(transparent)]
    Publish(#[from] PublishFailure),
}

/// Takes events out of a channel.
#[async_trait]
pub trait Sink: Send + Sync + std::fmt::Debug {
    /// Runs until `shutdown`, then finishes what it has taken and returns. Dropping the future is
    /// as good as a crash: what was not acknowledged or sealed returns to the channel.
    ///
    /// # Errors
    /// What the sink cannot cure by trying again; a running sink retries everything else itself.
    async fn run(&self, channel: Arc<dyn Channel>, shutdown: Shutdown) -> Result<(), SinkError>;
}

/// A staged sink together with the publisher of its channel.
#[derive(Debug)]
pub struct PublishingSink {
    /// The sink.
    pub sink: StagedSink,
    /// Its channel's publisher; [`Publisher::run`] must run beside the sink.
    pub publisher: Arc<Publisher>,
}

#[async_trait]
impl Sink for PublishingSink {
    async fn run(&self, channel: Arc<dyn Channel>, shutdown: Shutdown) -> Result<(), SinkError> {
        let session = tokio::select! {
            session = self.publisher.session(&channel) => session,
            () = shutdown.wait() => None,
        };
        match session {
            Some(session) => Ok(self.sink.run(session, shutdown).await?),
            None => Ok(()),
        }
    }
}
