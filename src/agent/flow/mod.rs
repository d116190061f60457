//! One channel with everything on it: opened, started, watched, reopened, stopped in order.
//!
//! *Place in the flow*: [`super::run`] starts one task of [`Flow::run`] for each channel. Nothing
//! here knows a concrete kind: the channel is opened and the components are started by what
//! [`super::wiring`] gave.
//!
//! *Order*: channel, resolver, sinks, sources; a source is only started when its channel can
//! acknowledge, so a port that answers can also keep what it is given. Stopping goes the other
//! way: sources are joined, then sinks (they seal and publish what they have begun), then the
//! resolver (it finishes what is sealed), then the channel is closed.
//!
//! *Invariants*: a channel is never reopened while anything of its last incarnation still runs.
//!
//! *Crash*: any step may be the last one; every one of them leaves what `kill -9` leaves.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::registry::ChannelEntry;
use super::status::StatusSocket;
use super::supervisor::{ComponentSpec, Failure, RunContext, Tier, backoff, supervise};
use crate::channel::Channel;
use crate::cli::exit;
use crate::env::clock::Clock;
use crate::source::{Shutdown, Trigger};

/// How often a running channel is asked whether it has failed or run dry.
const WATCH_EVERY: Duration = Duration::from_millis(100);
/// How long the sinks of a durable channel may go on taking once the sources have stopped.
const CATCH_UP_FOR: Duration = Duration::from_secs(2);
/// How often they are looked at meanwhile.
const TAKEN_EVERY: Duration = Duration::from_millis(10);
/// How long the components of a failed channel may take to notice.
const JOIN_FAILED_WITHIN: Duration = Duration::from_secs(20);

/// What opening a channel gives: a future that a task can own.
pub type Opening = Pin<Box<dyn Future<Output = Result<Arc<dyn Channel>, Failure>> + Send>>;

/// What the agent asks all its flows to do. Only ever moves forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Run.
    Run,
    /// Stop in order: what has begun is finished.
    Stop,
    /// Stop at once: what has begun is left to the next start.
    Abort,
}

/// What the agent shares with its flows.
#[derive(Clone, Debug)]
pub struct Orders {
    /// What to do.
    pub phase: watch::Receiver<Phase>,
    /// With [`Phase::Stop`]: take everything that waits before stopping the sinks.
    pub until_drained: bool,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
}

/// How a flow came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlowEnd {
    /// Stopped in order.
    Clean,
    /// Stopped at once, or with work left; the log still has all of it.
    NotDrained(String),
    /// Something that needs an operator; the agent must end with this exit code.
    Fatal {
        /// Exit code.
        exit: u8,
        /// Why.
        reason: String,
    },
}

/// A channel and everything on it.
pub struct Flow {
    /// Where the channel's state is shown.
    pub entry: Arc<ChannelEntry>,
    /// Whether what the channel holds survives the process; if not, it is emptied before a stop.
    pub durable: bool,
    /// Directory in which a running agent answers `forebay status`, if the channel has one.
    pub status_dir: Option<std::path::PathBuf>,
    /// Opens the channel, as often as needed.
    pub open: Box<dyn Fn() -> Opening + Send + Sync>,
    /// Resolver, sinks and sources.
    pub components: Vec<Arc<ComponentSpec>>,
    /// Set while every source that can end has ended and nothing waits in the channel.
    pub idle: Arc<AtomicBool>,
}

impl std::fmt::Debug for Flow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flow")
            .field("channel", &self.entry.name)
            .finish_non_exhaustive()
    }
}

/// The components of one tier that are running.
struct RunningTier {
    tasks: JoinSet<()>,
    trigger: Trigger,
}

/// What is running on an open channel.
struct Running {
    tiers: Vec<(Tier, RunningTier)>,
    failures: mpsc::UnboundedReceiver<Failure>,
}

/// Why an incarnation of a channel has to stop.
enum Cause {
    Ordered,
    Failed(Failure),
}

impl Flow {
    /// Runs the channel through as many incarnations as it takes, until the agent stops.
    pub async fn run(self, mut orders: Orders) -> FlowEnd {
        let mut failed_in_a_row = 0;
        loop {
            let channel = match self.open(&mut orders).await {
                Ok(Some(channel)) => channel,
                Ok(None) => return FlowEnd::Clean,
                Err(end) => return end,
            };
            let opened = orders.clock.now();
            let cause = self.incarnation(&channel, &mut orders).await;
            let end = match cause {
                Ok(end) => end,
                Err(reason) => {
                    // The failed instance must let go of its lock before the next can take it.
                    self.close(channel, &orders).await;
                    if orders.clock.now().duration_since(opened) > JOIN_FAILED_WITHIN {
                        failed_in_a_row = 0;
                    }
                    failed_in_a_row += 1;
                    let pause = backoff(failed_in_a_row);
                    tracing::error!(
                        channel = %self.entry.name, %reason,
                        "channel has failed; everything on it is stopped and it is opened again \
                         in {pause:?}"
                    );
                    tokio::select! {
                        _ = orders.phase.wait_for(|phase| *phase != Phase::Run) => {
                            return FlowEnd::NotDrained(reason);
                        }
                        () = tokio::time::sleep(pause) => continue,
                    }
                }
            };
            return match (end, self.close(channel, &orders).await) {
                (FlowEnd::Clean, Some(reason)) => FlowEnd::NotDrained(reason),
                (end, _) => end,
            };
        }
    }

    /// Opens the channel, with pauses between failures. `None`: stopped before it was open. A
    /// stop between failures is not a clean one: nobody knows what a log holds that does not open.
    async fn open(&self, orders: &mut Orders) -> Result<Option<Arc<dyn Channel>>, FlowEnd> {
        let name = &self.entry.name;
        let (mut failures, mut failed) = (0, None);
        loop {
            if *orders.phase.borrow() != Phase::Run {
                return failed.map_or(Ok(None), |reason| Err(FlowEnd::NotDrained(reason)));
            }
            let reason = match (self.open)().await {
                Ok(channel) => {
                    self.entry
                        .opened(Arc::clone(&channel), orders.clock.as_ref());
                    let waiting = channel.status().waiting;
                    tracing::info!(channel = %name, waiting, "channel is open");
                    return Ok(Some(channel));
                }
                Err(Failure::Fatal { exit, reason }) => {
                    self.entry.failed(&reason);
                    tracing::error!(channel = %name, %reason, "channel cannot be opened");
                    return Err(FlowEnd::Fatal { exit, reason });
                }
                Err(Failure::Retry(reason) | Failure::Poisoned(reason)) => reason,
            };
            self.entry.failed(&reason);
            failures += 1;
            let pause = backoff(failures);
            tracing::error!(
                channel = %name, %reason, failures,
                "channel cannot be opened; tried again in {pause:?}"
            );
            tokio::select! {
                _ = orders.phase.wait_for(|phase| *phase != Phase::Run) => {}
                () = tokio::time::sleep(pause) => {}
            }
            failed = Some(format!("channel {name} could not be opened: {reason}"));
        }
    }

    /// Runs everything on an open channel. `Err`: the channel has failed and must be reopened.
    async fn incarnation(
        &self,
        channel: &Arc<dyn Channel>,
        orders: &mut Orders,
    ) -> Result<FlowEnd, String> {
        let _socket = self.status_socket();
        let mut running = self.start(channel, orders);
        let cause = self.watch(channel, &mut running, orders).await;
        self.idle.store(false, Ordering::Relaxed);
        match cause {
            Cause::Ordered => Ok(self.stop(channel, running, orders).await),
            Cause::Failed(failure) => {
                running.join_all(Instant::now() + JOIN_FAILED_WITHIN).await;
                match failure {
                    Failure::Retry(reason) | Failure::Poisoned(reason) => Err(reason),
                    Failure::Fatal { exit, reason } => {
                        let reason = in_full(channel, exit, reason);
                        tracing::error!(channel = %self.entry.name, %reason, "the agent must stop");
                        Ok(FlowEnd::Fatal { exit, reason })
                    }
                }
            }
        }
    }

    fn status_socket(&self) -> Option<StatusSocket> {
        let dir = self.status_dir.as_deref()?;
        match StatusSocket::open(dir, Arc::clone(&self.entry)) {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::warn!(
                    channel = %self.entry.name, %error,
                    "`forebay status` will not see the running agent: no socket in {}",
                    dir.display()
                );
                None
            }
        }
    }

    fn start(&self, channel: &Arc<dyn Channel>, orders: &Orders) -> Running {
        let (failed, failures) = mpsc::unbounded_channel();
        let mut running = Running {
            tiers: Vec::new(),
            failures,
        };
        for tier in [Tier::Resolver, Tier::Sink, Tier::Source] {
            let (trigger, shutdown) = Shutdown::new();
            let mut tasks = JoinSet::new();
            for spec in self.components.iter().filter(|spec| spec.tier == tier) {
                let context = RunContext {
                    channel: Arc::clone(channel),
                    shutdown: shutdown.clone(),
                };
                let clock = Arc::clone(&orders.clock);
                tasks.spawn(supervise(Arc::clone(spec), context, clock, failed.clone()));
            }
            running.tiers.push((tier, RunningTier { tasks, trigger }));
        }
        running
    }

    /// Waits until the incarnation has to stop; keeps `idle` up to date meanwhile.
    async fn watch(
        &self,
        channel: &Arc<dyn Channel>,
        running: &mut Running,
        orders: &mut Orders,
    ) -> Cause {
        let mut idle_before = false;
        loop {
            tokio::select! {
                _ = orders.phase.wait_for(|phase| *phase != Phase::Run) => return Cause::Ordered,
                Some(failure) = running.failures.recv() => return Cause::Failed(failure),
                () = tokio::time::sleep(WATCH_EVERY) => {}
            }
            let status = channel.status();
            if let Some(reason) = status.poisoned {
                return Cause::Failed(Failure::Poisoned(reason));
            }
            // Twice in a row: between a source's put and its `ended` nothing is promised.
            let mut can_end = self
                .components
                .iter()
                .filter_map(|spec| spec.ended.as_ref());
            let idle = can_end.all(|ended| ended()) && status.waiting == 0;
            self.idle.store(idle && idle_before, Ordering::Relaxed);
            idle_before = idle;
        }
    }

    /// Stops everything in order. The agent moves to [`Phase::Abort`] when the time is over.
    async fn stop(
        &self,
        channel: &Arc<dyn Channel>,
        mut running: Running,
        orders: &mut Orders,
    ) -> FlowEnd {
        let name = &self.entry.name;
        let mut aborted = orders.phase.clone();
        let in_order = async {
            running.join(Tier::Source).await;
            tracing::info!(channel = %name, "sources have stopped");
            // What is only in memory would be lost with the process. What a log holds is safe, but
            // lines that have just been acknowledged belong to the files that are sealed now.
            let limit = match orders.until_drained || !self.durable {
                true => Duration::MAX,
                false => CATCH_UP_FOR,
            };
            // Past the limit the rest stays in the log.
            drop(tokio::time::timeout(limit, all_taken(channel)).await);
            running.join(Tier::Sink).await;
            running.join(Tier::Resolver).await;
        };
        tokio::select! {
            () = in_order => {}
            _ = aborted.wait_for(|phase| *phase == Phase::Abort) => {
                return FlowEnd::NotDrained(self.left_behind(channel));
            }
        }
        if let Ok(Failure::Fatal { exit, reason }) = running.failures.try_recv() {
            let reason = in_full(channel, exit, reason);
            return FlowEnd::Fatal { exit, reason };
        }
        let status = channel.status();
        if let Some(reason) = status.poisoned {
            return FlowEnd::NotDrained(format!("channel {name} has failed: {reason}"));
        }
        if status.sealed_unpublished > 0 {
            let left = status.sealed_unpublished;
            return FlowEnd::NotDrained(format!(
                "channel {name}: {left} events are sealed and not published"
            ));
        }
        FlowEnd::Clean
    }

    /// What a stop that was cut short leaves, in words.
    fn left_behind(&self, channel: &Arc<dyn Channel>) -> String {
        let (name, status) = (&self.entry.name, channel.status());
        let left = status.waiting + status.leased + status.sealed_unpublished;
        match self.durable {
            true => format!("channel {name}: {left} events are not published; the log keeps them"),
            false => format!("channel {name}: {left} events were only in memory and are lost"),
        }
    }

    /// Closes the channel; the reason if that fails.
    async fn close(&self, channel: Arc<dyn Channel>, orders: &Orders) -> Option<String> {
        self.entry.closed(orders.clock.as_ref());
        // The last sync may take as long as the disk likes.
        let closed = tokio::task::spawn_blocking(move || channel.close()).await;
        let failed = match closed {
            Ok(closed) => closed.err().map(|error| error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(reason) = &failed {
            tracing::warn!(channel = %self.entry.name, %reason, "channel did not close well");
        }
        failed
    }
}

/// What to tell about a fatal end now that the sources have stopped: only now is it known how
/// many events a log that its store has refused has accepted.
fn in_full(channel: &Arc<dyn Channel>, code: u8, reason: String) -> String {
    let refusal = (code == exit::IN_USE)
        .then(|| channel.journal().refusal())
        .flatten();
    match refusal {
        Some(refusal) => format!("{reason}; {refusal}"),
        None => reason,
    }
}

/// Waits until no event waits for a sink, or the channel has failed.
async fn all_taken(channel: &Arc<dyn Channel>) {
    loop {
        let status = channel.status();
        if status.waiting == 0 || status.poisoned.is_some() {
            return;
        }
        tokio::time::sleep(TAKEN_EVERY).await;
    }
}

impl Running {
    /// Stops a tier and waits for it.
    async fn join(&mut self, tier: Tier) {
        for (of, running) in &mut self.tiers {
            if *of == tier {
                running.trigger.stop();
                while running.tasks.join_next().await.is_some() {}
            }
        }
    }

    /// Stops everything at once and waits; what has not ended by `deadline` is cut off at its
    /// next wait.
    async fn join_all(mut self, deadline: Instant) {
        for (_, running) in &self.tiers {
            running.trigger.stop();
        }
        for (tier, running) in &mut self.tiers {
            let join = async { while running.tasks.join_next().await.is_some() {} };
            if tokio::time::timeout_at(deadline.into(), join)
                .await
                .is_err()
            {
                tracing::warn!(?tier, "did not stop in time and is cut off");
                running.tasks.shutdown().await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
