//! The sinks of one channel, and the publisher that finishes what they seal.

use std::path::PathBuf;
use std::sync::Arc;

use super::Surroundings;
use crate::agent::counters::SinkCounters;
use crate::agent::registry::{Counters, Entry};
use crate::agent::report::Published;
use crate::agent::supervisor::{ComponentSpec, Failure, RunContext, Tier};
use crate::config::options::{HdfsSinkConfig, SinkConfig, SinkKind, StoreKind};
use crate::sink::logger::LoggerSink;
use crate::sink::null::NullSink;
use crate::sink::staged::options::StagedOptions;
use crate::sink::staged::resolver::{Backoff, Publisher, StoreOpener};
use crate::sink::staged::sink::StagedSink;
use crate::sink::staged::startup::PublishFailure;
use crate::sink::staged::store::FileStore;
use crate::sink::staged::store_hdfs::HdfsOptions;
use crate::sink::staged::store_local::LocalStore;
use crate::sink::staged::store_open::open_store;
use crate::sink::{PublishingSink, Sink, SinkError, file_roll, hdfs};

/// What the sinks of one channel come to.
pub(super) struct Sinks {
    /// The sinks and the publisher.
    pub(super) specs: Vec<ComponentSpec>,
    /// The publisher, for sources that have to wait for its verdict.
    pub(super) publisher: Arc<Publisher>,
    /// Stores and bases of the publisher.
    pub(super) targets: Vec<(Arc<dyn FileStore>, String)>,
    /// Where files are published.
    pub(super) published: Vec<Published>,
}

/// A sink before its channel's publisher is known.
enum Made {
    Staged(StagedSink),
    Plain(Arc<dyn Sink>),
}

/// Makes the sinks that take from `channel`, and its publisher. There is one even without staged
/// sinks: an earlier configuration may have left sealed epochs.
///
/// # Errors
/// A template or a store that cannot be used, with the place in the configuration.
pub(super) fn make(
    channel: &str,
    configs: &[&SinkConfig],
    place: &Surroundings,
) -> Result<Sinks, String> {
    let (mut made, mut targets, mut published) = (Vec::new(), Vec::new(), Vec::new());
    for config in configs {
        let counters = Arc::new(SinkCounters::default());
        let (kind, sink, dirs) = one(config, &counters, place)
            .map_err(|reason| format!("{}: sink {}: {reason}", config.at, config.name))?;
        if let Made::Staged(sink) = &sink {
            targets.push(sink.target());
        }
        published.extend(dirs.into_iter().map(|dir| Published {
            channel: channel.to_owned(),
            dir,
        }));
        made.push((
            Entry::new(&config.name, kind, Counters::Sink(counters)),
            sink,
        ));
    }
    let publisher = Arc::new(Publisher::new(
        opener(place),
        targets.clone(),
        Backoff::default(),
    ));
    let mut specs: Vec<ComponentSpec> = made
        .into_iter()
        .map(|(entry, sink)| sink_spec(entry, sink, &publisher))
        .collect();
    specs.push(publisher_spec(channel, &publisher));
    Ok(Sinks {
        specs,
        publisher,
        targets,
        published,
    })
}

/// Opens the stores of epochs that an earlier configuration has sealed.
fn opener(place: &Surroundings) -> StoreOpener {
    let hadoop = place.hadoop.clone();
    Arc::new(move |uri: &str| open_store(uri, hadoop.clone(), HdfsOptions::default()))
}

/// A sink, its kind, and the directories in which it publishes, as `file:///..` or `hdfs://..`.
fn one(
    config: &SinkConfig,
    counters: &Arc<SinkCounters>,
    place: &Surroundings,
) -> Result<(&'static str, Made, Vec<String>), String> {
    let name = config.name.clone();
    match &config.kind {
        SinkKind::Hdfs(options) => {
            let staged = hdfs::staged_options(&name, options).map_err(|e| e.to_string())?;
            let store = hdfs_store(options, place.hadoop.clone())?;
            let front = options.target.base().path;
            let dirs = vec![front, options.base.path.clone()];
            Ok(staged_sink("hdfs", store, staged, dirs, counters))
        }
        SinkKind::FileRoll(options) => {
            let staged = file_roll::staged_options(&name, options).map_err(|e| e.to_string())?;
            let dirs = vec![staged.base.clone()];
            Ok(staged_sink(
                "file_roll",
                Arc::new(LocalStore::new()),
                staged,
                dirs,
                counters,
            ))
        }
        SinkKind::Logger(options) => {
            let (max_bytes_to_log, counters) = (options.max_bytes_to_log, Arc::clone(counters));
            let sink = LoggerSink {
                name,
                max_bytes_to_log,
                counters,
            };
            Ok(("logger", Made::Plain(Arc::new(sink)), Vec::new()))
        }
        SinkKind::Null(options) => {
            let sink = NullSink {
                name,
                batch_size: options.batch_size,
                log_every_n_events: options.log_every_n_events,
                counters: Arc::clone(counters),
            };
            Ok(("null", Made::Plain(Arc::new(sink)), Vec::new()))
        }
    }
}

fn staged_sink(
    kind: &'static str,
    store: Arc<dyn FileStore>,
    options: StagedOptions,
    dirs: Vec<String>,
    counters: &Arc<SinkCounters>,
) -> (&'static str, Made, Vec<String>) {
    let dirs = dirs
        .into_iter()
        .map(|dir| format!("{}{dir}", store.uri()))
        .collect();
    let sink = StagedSink::new(store, options, Arc::clone(counters));
    (kind, Made::Staged(sink), dirs)
}

fn hdfs_store(
    config: &HdfsSinkConfig,
    hadoop: Option<PathBuf>,
) -> Result<Arc<dyn FileStore>, String> {
    if config.target.store == StoreKind::Local {
        return Ok(Arc::new(
            LocalStore::new().with_call_timeout(config.call_timeout),
        ));
    }
    let options = HdfsOptions {
        call_timeout: config.call_timeout,
        ..HdfsOptions::default()
    };
    open_store(&config.target.to_string(), hadoop, options).map_err(|error| error.to_string())
}

fn sink_spec(entry: Arc<Entry>, made: Made, publisher: &Arc<Publisher>) -> ComponentSpec {
    let sink: Arc<dyn Sink> = match made {
        Made::Staged(sink) => Arc::new(PublishingSink {
            sink,
            publisher: Arc::clone(publisher),
        }),
        Made::Plain(sink) => sink,
    };
    let start = move |context: RunContext| {
        let sink = Arc::clone(&sink);
        Box::pin(async move {
            sink.run(context.channel, context.shutdown)
                .await
                .map_err(sink_failure)
        }) as _
    };
    ComponentSpec {
        entry,
        tier: Tier::Sink,
        ended: None,
        start: Box::new(start),
    }
}

fn publisher_spec(channel: &str, publisher: &Arc<Publisher>) -> ComponentSpec {
    let publisher = Arc::clone(publisher);
    let start = move |context: RunContext| {
        let publisher = Arc::clone(&publisher);
        Box::pin(async move {
            publisher
                .run(context.channel, context.shutdown)
                .await
                .map_err(publish_failure)
        }) as _
    };
    let entry = Entry::new(channel, "publisher", Counters::None);
    ComponentSpec {
        entry,
        tier: Tier::Resolver,
        ended: None,
        start: Box::new(start),
    }
}

fn sink_failure(error: SinkError) -> Failure {
    match error {
        SinkError::Channel(error) => error.into(),
        SinkError::Publish(failure) => publish_failure(failure),
    }
}

/// A refusal by the store is final where trying again cannot cure it (clone, old backup, damage).
pub(super) fn publish_failure(failure: PublishFailure) -> Failure {
    match (failure.exit_code(), failure) {
        (Some(exit), failure) => Failure::Fatal {
            exit,
            reason: failure.to_string(),
        },
        (None, PublishFailure::Journal(error)) => error.into(),
        (None, failure) => Failure::Retry(failure.to_string()),
    }
}
