//! Sources: they read from outside and put events into a channel.
//!
//! *Place in the flow*: the agent makes a [`Source`] from its configuration and runs it with a
//! [`SourceContext`]; the source hands batches to its [`runner::Runner`], which puts them into
//! the channel. A source can be run again after it has returned: it keeps nothing in memory that
//! it needs, because its read positions are in the channel, in the frames of the events.
//!
//! *Invariant*: a client is told that an event is safe, or a position moves on, only after the
//! channel has acknowledged the event.

pub mod listener;
pub mod netcat;
pub mod runner;
pub mod shutdown;
pub mod taildir;
#[cfg(test)]
pub(crate) mod testing;

use std::sync::Arc;

use async_trait::async_trait;

use crate::agent::counters::SourceCounters;
use crate::channel::{Channel, ChannelError};
pub use shutdown::{Shutdown, Trigger};

/// What one run of a source works with.
#[derive(Clone)]
pub struct SourceContext {
    /// The source's name in the configuration; the first part of its position keys.
    pub name: String,
    /// Where its events go. A new run gets a new handle after the channel was reopened.
    pub channel: Arc<dyn Channel>,
    /// What it counts.
    pub counters: Arc<SourceCounters>,
    /// When to stop.
    pub shutdown: Shutdown,
}

impl std::fmt::Debug for SourceContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let channel = self.channel.name();
        f.debug_struct("SourceContext")
            .field("name", &self.name)
            .field("to", &channel)
            .finish()
    }
}

/// Why a run of a source has ended before it was asked to, and what the agent does next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The source cannot work now (address in use, no such directory yet): run it again after a
    /// pause.
    #[error("source {source_name}: {reason}")]
    Unavailable {
        /// Name of the source.
        source_name: String,
        /// What failed, and what to do.
        reason: String,
    },
    /// The channel's log instance has ended: reopen the channel, then run the source again on
    /// the new handle. What was in flight is unknown until then; nothing was acknowledged.
    #[error("source {source_name}: {error}")]
    ChannelPoisoned {
        /// Name of the source.
        source_name: String,
        /// What the channel said.
        error: ChannelError,
    },
    /// The channel refused in a way that waiting does not mend (closed, misuse).
    #[error("source {source_name}: {error}")]
    Channel {
        /// Name of the source.
        source_name: String,
        /// What the channel said.
        error: ChannelError,
    },
    /// A stored read position cannot be understood. Going on would lose lines or send them
    /// twice, so an operator decides.
    #[error("source {source_name}: {reason}")]
    Position {
        /// Name of the source.
        source_name: String,
        /// Which key, and what to do.
        reason: String,
    },
    /// The configuration is wrong.
    #[error("{key}: {reason}")]
    Config {
        /// The key as it stands in the component, for example `filegroups.f1`.
        key: String,
        /// What is wrong with its value.
        reason: String,
    },
}

/// A source, made from its configuration.
#[async_trait]
pub trait Source: Send + Sync + std::fmt::Debug + 'static {
    /// Runs until the shutdown signal (`Ok`), or until it cannot go on. On return nothing of the
    /// run is left: no thread, no socket, no open file.
    async fn run(&self, context: SourceContext) -> Result<(), SourceError>;

    /// Whether the source can come to an end at all; `--until-drained` waits for those that can.
    fn can_end(&self) -> bool {
        false
    }

    /// Whether all that there is has been read and acknowledged. It may become false again when
    /// there is more to read.
    fn has_ended(&self) -> bool {
        false
    }
}
