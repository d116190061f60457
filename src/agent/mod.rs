//! The agent: who runs, in what order, and how it ends.
//!
//! *Place in the flow*: [`run`] is behind `forebay agent`. It reads the configuration, lets
//! [`wiring`] make one [`flow::Flow`] of every channel with what is on it, and waits for signals.
//!
//! *Contract for scripts*: the log and the closing report go to stderr, nothing goes to stdout;
//! the exit code says how it ended (see [`crate::cli::exit`]).
//!
//! *Invariants*: only the configuration, a lock that somebody else holds, and a cloned log end
//! the agent from inside; everything else is retried and reported.
//!
//! *Crash*: the agent itself stores nothing.

pub mod counters;
pub mod flow;
pub mod logging;
pub mod metrics;
pub mod registry;
mod report;
pub mod status;
pub mod status_command;
pub mod supervisor;
mod wiring;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::flow::{Flow, FlowEnd, Orders, Phase};
use self::registry::Registry;
use crate::cli::{AgentArgs, exit};
use crate::config::{AgentConfig, Lookups, Severity};
use crate::env::clock;
use crate::source::Shutdown;

/// How often `--until-drained` looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long tasks that were told to stop at once may take before the process leaves them.
const LEAVE_AFTER: Duration = Duration::from_secs(5);
/// Where metrics are served unless told otherwise.
const LOOPBACK: &str = "127.0.0.1";

/// Runs an agent until it is stopped; returns the exit code. What cannot go to the log yet
/// (errors of the configuration) and the closing report go to `err`.
pub fn run(args: &AgentArgs, err: &mut dyn Write) -> u8 {
    match prepare(args, err) {
        Ok(None) => exit::CLEAN,
        Ok(Some(prepared)) => serve(prepared, err),
        Err(reason) => {
            tell(err, &format!("error: {reason}"));
            exit::USAGE
        }
    }
}

/// A configuration that can be run.
struct Prepared {
    config: AgentConfig,
    monitoring: Option<SocketAddr>,
    hadoop_conf: Option<std::path::PathBuf>,
    drain_timeout: Duration,
    until_drained: bool,
}

/// Writes one line for the operator; a stderr that is gone is nobody's loss.
fn tell(err: &mut dyn Write, line: &str) {
    drop(writeln!(err, "{line}"));
}

/// Reads and checks everything that can be checked without starting anything.
fn prepare(args: &AgentArgs, err: &mut dyn Write) -> Result<Option<Prepared>, String> {
    logging::start(args.log_format, args.level())?;
    for option in args.without_effect() {
        tracing::warn!("{option} has no effect: there is no JVM here");
    }
    let system = args.system_properties();
    let lookups = Lookups::of_process(system.clone());
    let loaded = crate::config::load(&args.conf_file, &args.name, &lookups)
        .map_err(|error| error.to_string())?;
    for found in loaded.found.sorted() {
        match found.severity {
            Severity::Error => tell(err, &found.to_string()),
            Severity::Warning => tracing::warn!("{found}"),
            Severity::Note => tracing::info!("{found}"),
        }
    }
    let file = args.conf_file.display();
    let config = loaded
        .config
        .ok_or_else(|| format!("{file} cannot be used, see above"))?;
    let monitoring = monitoring(&system)?;
    if args.dryrun {
        tell(err, &format!("{file}: agent {} can be started", args.name));
        return Ok(None);
    }
    Ok(Some(Prepared {
        config,
        monitoring,
        hadoop_conf: args.conf.clone(),
        drain_timeout: args.drain_timeout,
        until_drained: args.until_drained,
    }))
}

/// Where to serve metrics, from Flume's system properties.
fn monitoring(system: &[(String, String)]) -> Result<Option<SocketAddr>, String> {
    let value = |name: &str| {
        let full = format!("flume.monitoring.{name}");
        system
            .iter()
            .rev()
            .find(|(key, _)| *key == full)
            .map(|(_, value)| value.trim())
    };
    match value("type") {
        None => return Ok(None),
        Some(kind) if kind.eq_ignore_ascii_case("http") => {}
        Some(other) => {
            return Err(format!(
                "-Dflume.monitoring.type={other} is not supported yet; http is"
            ));
        }
    }
    // Flume's own default port.
    let port = value("port").unwrap_or("41414");
    let port: u16 = port
        .parse()
        .map_err(|_| format!("-Dflume.monitoring.port={port} is not a port (0 to 65535)"))?;
    let host = value("host").unwrap_or(LOOPBACK);
    let host = host.parse().map_err(|_| {
        format!("-Dflume.monitoring.host={host} is not an IP address, like 0.0.0.0 or ::1")
    })?;
    Ok(Some(SocketAddr::new(host, port)))
}

fn serve(prepared: Prepared, err: &mut dyn Write) -> u8 {
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            tell(err, &format!("error: cannot start threads: {error}"));
            return exit::FAILED;
        }
    };
    let code = runtime.block_on(serve_on(prepared, err));
    // A thread that hangs in a system call must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    code
}

async fn serve_on(prepared: Prepared, err: &mut dyn Write) -> u8 {
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => {
            tell(err, &format!("error: cannot listen for signals: {error}"));
            return exit::FAILED;
        }
    };
    let clock = clock::system();
    let place = wiring::Surroundings {
        clock: Arc::clone(&clock),
        hadoop: prepared.hadoop_conf,
    };
    let wired = match wiring::wire(&prepared.config, &place) {
        Ok(wired) => wired,
        Err(reason) => {
            tell(err, &format!("error: {reason}"));
            return exit::USAGE;
        }
    };
    let registry = Arc::new(wired.registry);
    let (monitoring_stop, shutdown) = Shutdown::new();
    let monitoring = prepared
        .monitoring
        .map(|address| tokio::spawn(monitor(address, Arc::clone(&registry), shutdown)));
    let (phase, phases) = watch::channel(Phase::Run);
    let orders = Orders {
        phase: phases,
        until_drained: prepared.until_drained,
        clock,
    };
    let running = RunningAgent::start(wired.flows, &orders, phase, prepared.drain_timeout);
    let ends = running
        .until_stopped(&mut signals, prepared.until_drained)
        .await;
    monitoring_stop.stop();
    if let Some(monitoring) = monitoring {
        // A client that keeps its connection open is not waited for.
        drop(tokio::time::timeout(Duration::from_secs(1), monitoring).await);
    }
    let audited = wired.report.print(err).await;
    verdict(&ends, &registry, audited, err)
}

/// Serves metrics; an address that is in use is tried again, as everything else.
async fn monitor(address: SocketAddr, registry: Arc<Registry>, shutdown: Shutdown) {
    let mut failures = 0;
    while !shutdown.requested() {
        let served = metrics::serve(address, Arc::clone(&registry), shutdown.clone()).await;
        let Err(error) = served else { return };
        failures += 1;
        let pause = supervisor::backoff(failures);
        tracing::error!(%address, %error, "metrics cannot be served; tried again in {pause:?}");
        shutdown.wait_for(pause).await;
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// All flows, and what they have been told.
struct RunningAgent {
    flows: JoinSet<FlowEnd>,
    idle: Vec<Arc<std::sync::atomic::AtomicBool>>,
    phase: watch::Sender<Phase>,
    drain_timeout: Duration,
    /// When the next phase begins by itself.
    deadline: Option<Instant>,
}

impl RunningAgent {
    fn start(
        flows: Vec<Flow>,
        orders: &Orders,
        phase: watch::Sender<Phase>,
        drain_timeout: Duration,
    ) -> Self {
        let idle = flows.iter().map(|flow| Arc::clone(&flow.idle)).collect();
        let mut running = Self {
            flows: JoinSet::new(),
            idle,
            phase,
            drain_timeout,
            deadline: None,
        };
        for flow in flows {
            running.flows.spawn(flow.run(orders.clone()));
        }
        running
    }

    /// Waits for a reason to stop, then for the stop; says how each flow has ended.
    async fn until_stopped(mut self, signals: &mut Signals, until_drained: bool) -> Vec<FlowEnd> {
        let mut ends = Vec::new();
        loop {
            let deadline = self.deadline.unwrap_or_else(Instant::now);
            tokio::select! {
                joined = self.flows.join_next() => match joined {
                    None => return ends,
                    Some(joined) => {
                        let end = joined.unwrap_or_else(|error| FlowEnd::Fatal {
                            exit: exit::FAILED,
                            reason: format!("broke down: {error}"),
                        });
                        if matches!(end, FlowEnd::Fatal { .. }) {
                            self.stop("a channel cannot go on");
                        }
                        ends.push(end);
                    }
                },
                name = signals.next() => {
                    let phase = *self.phase.borrow();
                    match phase {
                        Phase::Run => self.stop(name),
                        Phase::Stop | Phase::Abort => self.abort(name),
                    }
                }
                () = tokio::time::sleep_until(deadline), if self.deadline.is_some() => {
                    if *self.phase.borrow() == Phase::Abort {
                        ends.push(FlowEnd::NotDrained("left behind".to_owned()));
                        return ends;
                    }
                    self.abort("the time for stopping is over");
                }
                () = tokio::time::sleep(LOOK_EVERY), if until_drained => {
                    if self.idle.iter().all(|idle| idle.load(Ordering::Relaxed)) {
                        self.stop("everything that can end has ended");
                    }
                }
            }
        }
    }

    /// Begins to stop in order; does nothing where that has begun.
    fn stop(&mut self, why: &str) {
        if *self.phase.borrow() == Phase::Run {
            tracing::info!("stopping: {why}; at most {:?}", self.drain_timeout);
            self.phase.send_replace(Phase::Stop);
            self.deadline = Some(Instant::now() + self.drain_timeout);
        }
    }

    /// Stops at once.
    fn abort(&mut self, why: &str) {
        tracing::warn!("stopping at once: {why}; what is not published is left to the next start");
        self.phase.send_replace(Phase::Abort);
        self.deadline = Some(Instant::now() + LEAVE_AFTER);
    }
}

/// The exit code, and on stderr why it is not 0.
fn verdict(ends: &[FlowEnd], registry: &Registry, audited: bool, err: &mut dyn Write) -> u8 {
    for end in ends {
        if let FlowEnd::Fatal { exit, reason } = end {
            tell(err, &format!("error: {reason}"));
            return *exit;
        }
    }
    for end in ends {
        if let FlowEnd::NotDrained(reason) = end {
            tell(err, &format!("stopped before drained: {reason}"));
            return exit::NOT_DRAINED;
        }
    }
    let damaged: u64 = registry
        .channels
        .iter()
        .map(|channel| channel.view().corrupt_seen)
        .sum();
    if damaged > 0 {
        tell(
            err,
            &format!("{damaged} events were lost to damage, see the log"),
        );
        return exit::FINDING;
    }
    if audited { exit::CLEAN } else { exit::FINDING }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(k, v)| (format!("flume.monitoring.{k}"), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn metrics_are_served_on_loopback_unless_told_otherwise() {
        assert_eq!(monitoring(&[]), Ok(None));
        let some = monitoring(&system(&[("type", "http"), ("port", "1234")])).unwrap();
        assert_eq!(some.unwrap().to_string(), "127.0.0.1:1234");
        let all = system(&[("type", "HTTP"), ("port", "1"), ("host", "0.0.0.0")]);
        assert_eq!(monitoring(&all).unwrap().unwrap().to_string(), "0.0.0.0:1");
    }

    #[test]
    fn monitoring_that_cannot_work_is_refused_and_named() {
        let ganglia = monitoring(&system(&[("type", "ganglia")])).unwrap_err();
        assert!(ganglia.contains("ganglia"), "{ganglia}");
        let port = monitoring(&system(&[("type", "http"), ("port", "70000")])).unwrap_err();
        assert!(port.contains("70000"), "{port}");
    }

    #[test]
    fn the_worst_end_gives_the_exit_code() {
        let fatal = FlowEnd::Fatal {
            exit: exit::IN_USE,
            reason: "in use".to_owned(),
        };
        let left = FlowEnd::NotDrained("c1".to_owned());
        let registry = Registry::default();
        let code = |ends: &[FlowEnd], audited| verdict(ends, &registry, audited, &mut Vec::new());
        assert_eq!(
            code(&[FlowEnd::Clean, left.clone(), fatal], true),
            exit::IN_USE
        );
        assert_eq!(code(&[left, FlowEnd::Clean], false), exit::NOT_DRAINED);
        assert_eq!(code(&[FlowEnd::Clean], false), exit::FINDING);
        assert_eq!(code(&[FlowEnd::Clean], true), exit::CLEAN);
    }
}
