//! What runs in the agent right now, for everybody who asks: metrics, status, readiness.
//!
//! *Place in the flow*: the supervisor writes states, components add to counters,
//! [`super::metrics`] and [`super::status`] read. Nothing here decides anything.

use std::sync::{Arc, Mutex, PoisonError};

use super::counters::{SinkCounters, SourceCounters};
use crate::channel::{Channel, ChannelStatus};
use crate::env::clock::Clock;

/// What a component does now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Not started yet.
    Waiting,
    /// Started.
    Running,
    /// Failed, and will be started again.
    Retrying {
        /// The last failure.
        reason: String,
        /// Failures in a row.
        failures: u32,
    },
    /// Came to its end by itself.
    Ended,
    /// Stopped because it was asked to, or because its channel failed.
    Stopped,
}

/// The counters of a component.
#[derive(Clone, Debug)]
pub enum Counters {
    /// Of a source.
    Source(Arc<SourceCounters>),
    /// Of a sink.
    Sink(Arc<SinkCounters>),
    /// Of a component that counts nothing of its own (a resolver).
    None,
}

/// A component that is not a channel.
#[derive(Debug)]
pub struct Entry {
    /// Name from the configuration.
    pub name: String,
    /// `TAILDIR`, `hdfs`, ...
    pub kind: String,
    /// Its counters.
    pub counters: Counters,
    state: Mutex<State>,
}

impl Entry {
    /// A component that has not been started.
    pub fn new(name: impl Into<String>, kind: impl Into<String>, counters: Counters) -> Arc<Self> {
        let state = Mutex::new(State::Waiting);
        Arc::new(Self {
            name: name.into(),
            kind: kind.into(),
            counters,
            state,
        })
    }

    /// What messages call it: `source r1 (TAILDIR)`.
    pub fn label(&self) -> String {
        let role = match self.counters {
            Counters::Source(_) => "source",
            Counters::Sink(_) => "sink",
            Counters::None => "resolver of channel",
        };
        format!("{role} {} ({})", self.name, self.kind)
    }

    /// What it does now.
    pub fn state(&self) -> State {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Notes a change of state, with its time in the counters.
    pub fn enter(&self, state: State, clock: &dyn Clock) {
        match (&state, &self.counters) {
            (State::Running, Counters::Source(counters)) => counters.started(clock),
            (State::Running, Counters::Sink(counters)) => counters.started(clock),
            (State::Ended | State::Stopped, Counters::Source(counters)) => counters.stopped(clock),
            (State::Ended | State::Stopped, Counters::Sink(counters)) => counters.stopped(clock),
            _ => {}
        }
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }
}

/// A channel, open or not.
#[derive(Debug)]
pub struct ChannelEntry {
    /// Name from the configuration.
    pub name: String,
    /// `file` or `memory`.
    pub kind: String,
    slot: Mutex<Slot>,
}

#[derive(Default)]
struct Slot {
    channel: Option<Arc<dyn Channel>>,
    last: ChannelStatus,
    opened_ms: u64,
    closed_ms: u64,
    /// Why it is not open.
    trouble: Option<String>,
    /// The most events that were seen as lost to damage at any time since the agent started.
    corrupt_seen: u64,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot")
            .field("open", &self.channel.is_some())
            .finish_non_exhaustive()
    }
}

/// A channel at one moment.
#[derive(Clone, Debug, Default)]
pub struct ChannelView {
    /// Its counters; the last known ones while it is not open.
    pub status: ChannelStatus,
    /// Whether it is open and has not failed.
    pub open: bool,
    /// Why it is not open.
    pub trouble: Option<String>,
    /// Milliseconds since the Unix epoch at which it was last opened; 0 if never.
    pub opened_ms: u64,
    /// Milliseconds since the Unix epoch at which it was closed; 0 while it is open.
    pub closed_ms: u64,
    /// The most events that were seen as lost to damage at any time since the agent started.
    pub corrupt_seen: u64,
}

impl ChannelEntry {
    /// A channel that has not been opened.
    pub fn new(name: impl Into<String>, kind: impl Into<String>) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            kind: kind.into(),
            slot: Mutex::default(),
        })
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the channel is open.
    pub fn opened(&self, channel: Arc<dyn Channel>, clock: &dyn Clock) {
        let mut slot = self.slot();
        slot.channel = Some(channel);
        (slot.opened_ms, slot.closed_ms, slot.trouble) = (clock.wall_ms(), 0, None);
    }

    /// Notes that the channel is closed; its last counters stay visible.
    pub fn closed(&self, clock: &dyn Clock) {
        let last = self.view().status;
        let mut slot = self.slot();
        (slot.last, slot.channel, slot.closed_ms) = (last, None, clock.wall_ms());
    }

    /// Notes why the channel cannot be opened.
    pub fn failed(&self, reason: &str) {
        self.slot().trouble = Some(reason.to_owned());
    }

    /// The channel at this moment.
    pub fn view(&self) -> ChannelView {
        // The status is asked for outside the lock: a channel may be slow to answer.
        let channel = self.slot().channel.clone();
        let status = channel.as_ref().map(|channel| channel.status());
        let mut slot = self.slot();
        let open = status
            .as_ref()
            .is_some_and(|status| status.poisoned.is_none());
        let status = status.unwrap_or_else(|| slot.last.clone());
        slot.corrupt_seen = slot.corrupt_seen.max(status.corrupt);
        ChannelView {
            open,
            trouble: slot.trouble.clone().or_else(|| status.poisoned.clone()),
            status,
            opened_ms: slot.opened_ms,
            closed_ms: slot.closed_ms,
            corrupt_seen: slot.corrupt_seen,
        }
    }
}

/// Everything that the configuration names.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    /// Channels in the order of the configuration.
    pub channels: Vec<Arc<ChannelEntry>>,
    /// Sources in the order of the configuration.
    pub sources: Vec<Arc<Entry>>,
    /// Sinks in the order of the configuration.
    pub sinks: Vec<Arc<Entry>>,
}

impl Registry {
    /// What keeps the agent from being ready: one sentence each, none when it is ready.
    pub fn not_ready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        for channel in &self.channels {
            let view = channel.view();
            if !view.open {
                let why = view.trouble.unwrap_or_else(|| "not opened yet".to_owned());
                reasons.push(format!("channel {}: {why}", channel.name));
            }
        }
        for entry in self.sources.iter().chain(&self.sinks) {
            match entry.state() {
                State::Running | State::Ended => {}
                State::Waiting => reasons.push(format!("{}: not started yet", entry.label())),
                State::Stopped => reasons.push(format!("{}: stopped", entry.label())),
                State::Retrying { reason, .. } => {
                    reasons.push(format!("{}: {reason}", entry.label()));
                }
            }
        }
        reasons
    }
}
