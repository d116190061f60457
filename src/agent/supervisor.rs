//! Keeps one component running: starts it, waits for it, and starts it again after a failure.
//!
//! *Place in the flow*: [`super::flow`] hands every resolver, sink and source of a channel to
//! [`supervise`], one task each.
//!
//! *Invariants*: a component that cannot start or fails never ends the agent; it is tried again
//! with growing pauses, and each failure is reported with the pause that follows. Only what can
//! not pass by itself (configuration, lock, clone) is passed up as fatal. A failure of the
//! channel is not retried here: the flow joins everything and reopens the channel first.
//!
//! *Crash*: nothing here is stored; all state that matters is in the channels.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::registry::{Entry, State};
use crate::channel::{Channel, ChannelError};
use crate::env::clock::Clock;
use crate::source::Shutdown;

/// First pause after a failure.
const BACKOFF_FIRST: Duration = Duration::from_millis(250);
/// Longest pause after a failure.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A component that ran this long is taken to have recovered: its next failure is a first one.
const STEADY_AFTER: Duration = Duration::from_secs(60);

/// Why a component ended without having been asked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// May pass by itself: try again after a pause.
    Retry(String),
    /// The channel's log instance has ended: everything on the channel must be joined and the
    /// channel reopened.
    Poisoned(String),
    /// Will not pass by itself: the agent must end with this exit code.
    Fatal {
        /// Exit code of the agent.
        exit: u8,
        /// What to tell the operator.
        reason: String,
    },
}

impl From<ChannelError> for Failure {
    fn from(error: ChannelError) -> Self {
        match error {
            ChannelError::Poisoned { .. } | ChannelError::Closed { .. } => {
                Self::Poisoned(error.to_string())
            }
            other => Self::Retry(other.to_string()),
        }
    }
}

/// A future that a task can own.
pub type Run = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

/// What a component is given when it is started.
#[derive(Clone)]
pub struct RunContext {
    /// Its channel, open.
    pub channel: Arc<dyn Channel>,
    /// When to finish what has begun and return.
    pub shutdown: Shutdown,
}

impl std::fmt::Debug for RunContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunContext")
            .field("channel", &self.channel.name())
            .finish_non_exhaustive()
    }
}

/// When a component is stopped, relative to the others on its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Stopped first.
    Source,
    /// Stopped when the sources have been joined.
    Sink,
    /// Stopped last; goes on retrying while it is being stopped, until the time-out.
    Resolver,
}

/// How to start a component, as often as needed.
pub struct ComponentSpec {
    /// Where its state and counters are shown.
    pub entry: Arc<Entry>,
    /// Its place in the order of stopping.
    pub tier: Tier,
    /// Whether everything it could read has been read and acknowledged; `None` for what never
    /// comes to an end. `--until-drained` waits for it.
    pub ended: Option<Box<dyn Fn() -> bool + Send + Sync>>,
    /// Starts it.
    pub start: Box<dyn Fn(RunContext) -> Run + Send + Sync>,
}

impl std::fmt::Debug for ComponentSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ComponentSpec")
            .field("entry", &self.entry.name)
            .finish_non_exhaustive()
    }
}

/// The pause after the `failures`-th failure in a row (1 is the first).
pub fn backoff(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    BACKOFF_FIRST
        .saturating_mul(1 << doublings)
        .min(BACKOFF_MAX)
}

/// Runs a component until it has stopped, has ended, or has failed in a way that is not its own
/// to repair; such a failure is sent to `failures`.
pub async fn supervise(
    spec: Arc<ComponentSpec>,
    context: RunContext,
    clock: Arc<dyn Clock>,
    failures: mpsc::UnboundedSender<Failure>,
) {
    let mut failed_in_a_row = 0;
    let shutdown = context.shutdown.clone();
    loop {
        let started = clock.now();
        spec.entry.enter(State::Running, clock.as_ref());
        let outcome = attempt((spec.start)(context.clone())).await;
        let stopping = shutdown.requested();
        let reason = match outcome {
            Ok(()) => {
                let state = if stopping {
                    State::Stopped
                } else {
                    State::Ended
                };
                spec.entry.enter(state, clock.as_ref());
                return;
            }
            Err(Failure::Retry(reason)) => reason,
            Err(other) => {
                spec.entry.enter(State::Stopped, clock.as_ref());
                // Only fails when the flow has gone, which nobody needs to be told.
                let _gone = failures.send(other);
                return;
            }
        };
        if stopping && spec.tier != Tier::Resolver {
            tracing::warn!(component = %spec.entry.label(), %reason, "failed while stopping");
            spec.entry.enter(State::Stopped, clock.as_ref());
            return;
        }
        if clock.now().duration_since(started) >= STEADY_AFTER {
            failed_in_a_row = 0;
        }
        failed_in_a_row += 1;
        let pause = backoff(failed_in_a_row);
        tracing::error!(
            component = %spec.entry.label(), %reason, failures = failed_in_a_row,
            "failed; starts again in {pause:?}"
        );
        spec.entry.enter(
            State::Retrying {
                reason,
                failures: failed_in_a_row,
            },
            clock.as_ref(),
        );
        if stopping {
            tokio::time::sleep(pause).await;
        } else if shutdown.wait_for(pause).await && spec.tier != Tier::Resolver {
            spec.entry.enter(State::Stopped, clock.as_ref());
            return;
        }
    }
}

/// Runs one attempt in a task of its own, so that a panic is a failure of this component only.
async fn attempt(run: Run) -> Result<(), Failure> {
    let mut task = JoinSet::new();
    task.spawn(run);
    match task.join_next().await {
        Some(Ok(outcome)) => outcome,
        Some(Err(error)) => Err(Failure::Retry(format!("broke down: {error}"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_are_bounded() {
        let pauses: Vec<_> = (1..=10).map(backoff).collect();
        assert_eq!(pauses[0], BACKOFF_FIRST);
        assert_eq!(pauses[1], BACKOFF_FIRST * 2);
        assert!(pauses.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!(backoff(u32::MAX), BACKOFF_MAX);
    }

    #[test]
    fn a_failed_channel_is_not_retried_by_its_components() {
        let poisoned = ChannelError::Poisoned {
            channel: "c1".to_owned(),
            reason: "EIO".to_owned(),
        };
        assert!(matches!(Failure::from(poisoned), Failure::Poisoned(_)));
        let full = ChannelError::Full {
            channel: "c1".to_owned(),
            reason: "events".to_owned(),
        };
        assert!(matches!(Failure::from(full), Failure::Retry(_)));
    }
}
