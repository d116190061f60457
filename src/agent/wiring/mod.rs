//! From the configuration to flows: the only file that knows concrete kinds.
//!
//! *Place in the flow*: [`super::run`] calls [`wire`] once; what comes back opens and starts
//! channels, resolvers, sinks and sources as often as supervision wants.
//!
//! *Invariant*: nothing is opened here. Whatever can fail at start fails inside a flow, where it
//! is reported and retried.

mod sinks;

use std::path::PathBuf;
use std::sync::Arc;

use super::counters::SourceCounters;
use super::flow::{Flow, Opening};
use super::registry::{ChannelEntry, Counters, Entry, Registry};
use super::report::Report;
use super::supervisor::{ComponentSpec, Failure, RunContext, Tier};
use crate::channel::Channel;
use crate::channel::file::{FileChannel, FileChannelOptions, OpenError, SyncMode};
use crate::channel::memory::{MemoryChannel, MemoryOptions};
use crate::cli::exit;
use crate::config::AgentConfig;
use crate::config::options::{
    self, ChannelConfig, ChannelKind, FileChannelConfig, MemoryChannelConfig, SourceConfig,
    SourceKind,
};
use crate::env::clock::Clock;
use crate::env::disk::{Disk, WriteBackend};
use crate::env::disk_real::RealDisk;
use crate::sink::staged::resolver::Publisher;
use crate::sink::staged::startup::PublishFailure;
use crate::sink::staged::store::FileStore;
use crate::source::netcat::{Netcat, NetcatOptions};
use crate::source::taildir::{Taildir, TaildirOptions};
use crate::source::{Source, SourceContext, SourceError};

/// What every component of the agent shares.
pub(super) struct Surroundings {
    /// The clocks.
    pub(super) clock: Arc<dyn Clock>,
    /// Directory with Hadoop's configuration, from the command line.
    pub(super) hadoop: Option<PathBuf>,
}

/// What [`wire`] has made.
pub(super) struct Wired {
    pub(super) registry: Registry,
    pub(super) flows: Vec<Flow>,
    pub(super) report: Report,
}

/// One flow for each channel, with its sinks and sources.
///
/// # Errors
/// A configuration that looks right key by key but cannot be used, with its place.
pub(super) fn wire(config: &AgentConfig, place: &Surroundings) -> Result<Wired, String> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let mut wired = Wired {
        registry: Registry::default(),
        flows: Vec::new(),
        report: Report {
            targets: Vec::new(),
            hadoop: place.hadoop.clone(),
        },
    };
    for channel in &config.channels {
        let mut flow = flow(channel, &disk, &place.clock);
        wired.registry.channels.push(Arc::clone(&flow.entry));
        let configs: Vec<_> = config
            .sinks
            .iter()
            .filter(|sink| sink.channel == channel.name)
            .collect();
        let sinks = sinks::make(&channel.name, &configs, place)?;
        let verdict = Verdict {
            publisher: sinks.publisher,
            targets: sinks.targets,
        };
        for spec in sinks.specs {
            if spec.tier == Tier::Sink {
                wired.registry.sinks.push(Arc::clone(&spec.entry));
            }
            flow.components.push(Arc::new(spec));
        }
        wired.report.targets.extend(sinks.published);
        for source in config
            .sources
            .iter()
            .filter(|source| source.channel == channel.name)
        {
            let spec = source_spec(source, &verdict);
            wired.registry.sources.push(Arc::clone(&spec.entry));
            flow.components.push(Arc::new(spec));
        }
        wired.flows.push(flow);
    }
    Ok(wired)
}

/// What the stores say about a log whose directory is not the one of its last incarnation.
#[derive(Clone)]
struct Verdict {
    publisher: Arc<Publisher>,
    targets: Vec<(Arc<dyn FileStore>, String)>,
}

impl Verdict {
    /// Returns at once for a log that lies where it always lay. Otherwise every store must say
    /// that no other copy of the log has taken over, before anything new is acknowledged.
    async fn wait(&self, channel: &Arc<dyn Channel>) -> Result<(), Failure> {
        if !channel.journal().directory_changed() {
            return Ok(());
        }
        tracing::warn!(
            channel = channel.name(),
            "the log's directory has been moved, copied or restored, or a store has refused this \
             log before: sources wait for the stores"
        );
        let Some(session) = self.publisher.session(channel).await else {
            return Err(Failure::Retry("the publisher has not started".to_owned()));
        };
        for (store, base) in &self.targets {
            match session.ready(store.uri(), base).await {
                // Damage halts publishing; sources go on.
                Ok(()) | Err(PublishFailure::Damage { .. }) => {}
                Err(failure) => return Err(sinks::publish_failure(failure)),
            }
        }
        Ok(())
    }
}

fn flow(config: &ChannelConfig, disk: &Arc<dyn Disk>, clock: &Arc<dyn Clock>) -> Flow {
    let (kind, durable, status_dir) = match &config.kind {
        ChannelKind::File(file) => ("file", true, file.data_dirs.first().cloned()),
        ChannelKind::Memory(_) => ("memory", false, None),
    };
    let open: Box<dyn Fn() -> Opening + Send + Sync> = match &config.kind {
        ChannelKind::File(file) => {
            let (name, options) = (config.name.clone(), file_channel_options(file));
            let (disk, clock) = (Arc::clone(disk), Arc::clone(clock));
            Box::new(move || {
                let (name, options) = (name.clone(), options.clone());
                let (disk, clock) = (Arc::clone(&disk), Arc::clone(&clock));
                Box::pin(open_file_channel(name, options, disk, clock))
            })
        }
        ChannelKind::Memory(memory) => {
            let (name, options) = (config.name.clone(), memory_options(memory, clock));
            Box::new(move || {
                let opened = MemoryChannel::open(name.clone(), options.clone());
                Box::pin(async move { opened.map_err(Failure::from) })
            })
        }
    };
    Flow {
        entry: ChannelEntry::new(&config.name, kind),
        durable,
        status_dir,
        open,
        components: Vec::new(),
        idle: Arc::default(),
    }
}

/// Opening reads and syncs: not on a thread that others wait for.
async fn open_file_channel(
    name: String,
    options: FileChannelOptions,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn Channel>, Failure> {
    let opened =
        tokio::task::spawn_blocking(move || FileChannel::open(&name, options, disk, clock)).await;
    match opened {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => Err(open_failure(&error)),
        Err(panicked) => Err(Failure::Retry(panicked.to_string())),
    }
}

/// Which of a channel's refusals can pass by themselves.
fn open_failure(error: &OpenError) -> Failure {
    let reason = error.to_string();
    match error {
        OpenError::InUse { .. } => Failure::Fatal {
            exit: exit::IN_USE,
            reason,
        },
        OpenError::Directory { .. } | OpenError::Option { .. } => Failure::Fatal {
            exit: exit::USAGE,
            reason,
        },
        OpenError::Io { .. } => Failure::Retry(reason),
    }
}

fn file_channel_options(config: &FileChannelConfig) -> FileChannelOptions {
    FileChannelOptions {
        data_dirs: config.data_dirs.clone(),
        capacity: config.capacity,
        transaction_capacity: config.transaction_capacity,
        keep_alive: config.keep_alive,
        max_file_size: config.max_file_size,
        minimum_required_space: config.minimum_required_space,
        sync: match config.sync_mode {
            options::SyncMode::Commit => SyncMode::Commit,
            options::SyncMode::Interval(interval) => SyncMode::Interval(interval),
            options::SyncMode::Os => SyncMode::Os,
        },
        backend: match config.write_backend {
            options::WriteBackend::Pwrite => WriteBackend::Pwrite,
            options::WriteBackend::Map => WriteBackend::Map,
        },
        ..FileChannelOptions::default()
    }
}

fn memory_options(config: &MemoryChannelConfig, clock: &Arc<dyn Clock>) -> MemoryOptions {
    MemoryOptions {
        capacity: config.capacity,
        transaction_capacity: config.transaction_capacity,
        keep_alive: config.keep_alive,
        // The share for headers has been taken off already.
        byte_capacity: Some(config.body_bytes_max.unwrap_or(u64::MAX)),
        byte_capacity_buffer_percentage: 0,
        clock: Arc::clone(clock),
    }
}

/// A source that can be run, or why its configuration cannot be used after all.
type MadeSource = Result<Arc<dyn Source>, SourceError>;

fn source_spec(config: &SourceConfig, verdict: &Verdict) -> ComponentSpec {
    let (kind, made): (_, MadeSource) = match &config.kind {
        SourceKind::Taildir(taildir) => {
            let options = TaildirOptions::from_config(taildir);
            (
                "TAILDIR",
                options.map(|options| Arc::new(Taildir::new(options)) as Arc<dyn Source>),
            )
        }
        SourceKind::Netcat(netcat) => {
            let source = Netcat::new(NetcatOptions::from(netcat));
            ("netcat", Ok(Arc::new(source)))
        }
    };
    let counters = Arc::new(SourceCounters::default());
    let entry = Entry::new(&config.name, kind, Counters::Source(Arc::clone(&counters)));
    let ended = made
        .as_ref()
        .ok()
        .filter(|source| source.can_end())
        .map(|source| {
            let source = Arc::clone(source);
            Box::new(move || source.has_ended()) as Box<dyn Fn() -> bool + Send + Sync>
        });
    let name = config.name.clone();
    let made = made.map_err(source_failure);
    let verdict = verdict.clone();
    let start = move |context: RunContext| {
        let (made, verdict) = (made.clone(), verdict.clone());
        let context = SourceContext {
            name: name.clone(),
            channel: context.channel,
            counters: Arc::clone(&counters),
            shutdown: context.shutdown,
        };
        Box::pin(async move {
            let made = made?;
            tokio::select! {
                verdict = verdict.wait(&context.channel) => verdict?,
                () = context.shutdown.wait() => return Ok(()),
            }
            made.run(context).await.map_err(source_failure)
        }) as _
    };
    ComponentSpec {
        entry,
        tier: Tier::Source,
        ended,
        start: Box::new(start),
    }
}

fn source_failure(error: SourceError) -> Failure {
    let reason = error.to_string();
    match error {
        SourceError::ChannelPoisoned { .. } => Failure::Poisoned(reason),
        SourceError::Channel { error, .. } => error.into(),
        SourceError::Config { .. } => Failure::Fatal {
            exit: exit::USAGE,
            reason,
        },
        SourceError::Unavailable { .. } | SourceError::Position { .. } => Failure::Retry(reason),
    }
}
