//! Typed options: what the components are started with.
//!
//! *Place in the flow*: made from the sorted text of an agent ([`super::model`]), handed to the
//! agent's wiring.
//! *Invariant*: an [`AgentConfig`] exists only where its file had no error; every value in it
//! is within its range.

mod channel;
mod sink;
mod source;
mod target;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use channel::{FileChannelConfig, MemoryChannelConfig, SyncMode, WriteBackend};
pub use sink::{
    Codec, FileRollConfig, HdfsSinkConfig, LoggerConfig, NullConfig, RoundUnit, Rounding,
    Serializer,
};
pub use source::{FileGroup, NetcatConfig, TaildirConfig};
pub use target::{StoreKind, Target};

use super::diagnostic::{Diagnostics, Location};
use super::lookup::Lookups;
use super::model::{Component, RawAgent};
use super::section::Reader;

/// The checked configuration of one agent.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// Name of the agent.
    pub name: String,
    /// The file it was read from.
    pub file: Arc<str>,
    /// Sources in the order of their list.
    pub sources: Vec<SourceConfig>,
    /// Channels in the order of their list.
    pub channels: Vec<ChannelConfig>,
    /// Sinks in the order of their list.
    pub sinks: Vec<SinkConfig>,
}

/// A source.
#[derive(Clone, Debug)]
pub struct SourceConfig {
    /// Name in the configuration.
    pub name: String,
    /// Where it stands.
    pub at: Location,
    /// Name of the channel it puts into; one of [`AgentConfig::channels`].
    pub channel: String,
    /// Its kind and options.
    pub kind: SourceKind,
}

/// The kinds of sources.
#[derive(Clone, Debug)]
pub enum SourceKind {
    /// `TAILDIR`
    Taildir(TaildirConfig),
    /// `netcat`
    Netcat(NetcatConfig),
}

/// A channel.
#[derive(Clone, Debug)]
pub struct ChannelConfig {
    /// Name in the configuration.
    pub name: String,
    /// Where it stands.
    pub at: Location,
    /// Its kind and options.
    pub kind: ChannelKind,
}

/// The kinds of channels.
#[derive(Clone, Debug)]
pub enum ChannelKind {
    /// `file`
    File(FileChannelConfig),
    /// `memory`
    Memory(MemoryChannelConfig),
}

impl ChannelKind {
    /// Most events in one transaction.
    pub fn transaction_capacity(&self) -> usize {
        match self {
            Self::File(options) => options.transaction_capacity,
            Self::Memory(options) => options.transaction_capacity,
        }
    }

    /// Most events waiting or in an open batch.
    pub fn capacity(&self) -> u64 {
        match self {
            Self::File(options) => options.capacity,
            Self::Memory(options) => options.capacity,
        }
    }
}

/// A sink.
#[derive(Clone, Debug)]
pub struct SinkConfig {
    /// Name in the configuration.
    pub name: String,
    /// Where it stands.
    pub at: Location,
    /// Name of the channel it takes from; one of [`AgentConfig::channels`].
    pub channel: String,
    /// Its kind and options.
    pub kind: SinkKind,
}

/// The kinds of sinks.
#[derive(Clone, Debug)]
pub enum SinkKind {
    /// `hdfs`
    Hdfs(HdfsSinkConfig),
    /// `file_roll`
    FileRoll(FileRollConfig),
    /// `logger`
    Logger(LoggerConfig),
    /// `null`
    Null(NullConfig),
}

/// Makes typed options of the components of an agent; findings go to `found`. The result is to
/// be used only where `found` has no error.
pub(super) fn build(raw: &RawAgent, lookups: &Lookups, found: &mut Diagnostics) -> AgentConfig {
    let mut agent = AgentConfig {
        name: raw.name.clone(),
        file: Arc::clone(&raw.file),
        sources: Vec::new(),
        channels: Vec::new(),
        sinks: Vec::new(),
    };
    for component in &raw.channels {
        let mut reader = Reader {
            component,
            found: &mut *found,
            lookups,
        };
        reader.check_keys();
        let kind = channel::read(&mut reader);
        let (name, at) = (component.name.clone(), component.at.clone());
        agent.channels.push(ChannelConfig { name, at, kind });
    }
    for component in &raw.sources {
        let mut reader = Reader {
            component,
            found: &mut *found,
            lookups,
        };
        reader.check_keys();
        let kind = source::read(&mut reader);
        let Some(channel) = source_channel(&mut reader, raw) else {
            continue;
        };
        let (name, at) = (component.name.clone(), component.at.clone());
        agent.sources.push(SourceConfig {
            name,
            at,
            channel,
            kind,
        });
    }
    for component in &raw.sinks {
        let mut reader = Reader {
            component,
            found: &mut *found,
            lookups,
        };
        reader.check_keys();
        let kind = sink::read(&mut reader);
        let Some(channel) = sink_channel(&mut reader, raw) else {
            continue;
        };
        let (name, at) = (component.name.clone(), component.at.clone());
        agent.sinks.push(SinkConfig {
            name,
            at,
            channel,
            kind,
        });
    }
    batches(raw, &agent, found);
    directories(raw, &agent, found);
    super::advice::ports(raw, &agent, found);
    agent
}

fn source_channel(reader: &mut Reader<'_>, raw: &RawAgent) -> Option<String> {
    reader.choice("selector.type");
    let entry = reader.entry("channels")?;
    let mut names = entry.value.split_whitespace();
    let name = names.next()?;
    if names.next().is_some() {
        let message = "a source with more than one channel is not supported yet; \
                       sinks on one channel share its events";
        reader.error(entry, message);
        return None;
    }
    known_channel(reader, raw, "channels", name)
}

fn sink_channel(reader: &mut Reader<'_>, raw: &RawAgent) -> Option<String> {
    let name = &reader.entry("channel")?.value;
    known_channel(reader, raw, "channel", name)
}

fn known_channel(reader: &mut Reader<'_>, raw: &RawAgent, key: &str, name: &str) -> Option<String> {
    if raw.channels.iter().any(|channel| channel.name == name) {
        return Some(name.to_owned());
    }
    // A channel that is listed and not here has errors of its own.
    if !raw.listed_channels.iter().any(|listed| listed == name) {
        let entry = reader.entry(key)?;
        let message = format!("{}.channels does not list '{name}'", raw.name);
        reader.error(entry, message);
    }
    None
}

/// A batch must fit into one transaction of its channel, as in Flume since 1.9.
fn batches(raw: &RawAgent, agent: &AgentConfig, found: &mut Diagnostics) {
    let capacities: BTreeMap<&str, usize> = agent
        .channels
        .iter()
        .map(|channel| (channel.name.as_str(), channel.kind.transaction_capacity()))
        .collect();
    let sources = agent.sources.iter().map(|source| {
        let batch = match &source.kind {
            SourceKind::Taildir(options) => Some(("batchSize", options.batch_size)),
            SourceKind::Netcat(_) => None,
        };
        (&raw.sources, &source.name, &source.channel, batch)
    });
    let sinks = agent.sinks.iter().map(|sink| {
        let batch = match &sink.kind {
            SinkKind::Hdfs(options) => Some(("hdfs.batchSize", options.batch_size)),
            SinkKind::FileRoll(options) => Some(("sink.batchSize", options.batch_size)),
            SinkKind::Null(options) => Some(("batchSize", options.batch_size)),
            SinkKind::Logger(_) => None,
        };
        (&raw.sinks, &sink.name, &sink.channel, batch)
    });
    for (components, name, channel, batch) in sources.chain(sinks) {
        let (Some((key, size)), Some(&capacity)) = (batch, capacities.get(channel.as_str())) else {
            continue;
        };
        let component = components.iter().find(|component| component.name == *name);
        if let Some(component) = component.filter(|_| size > capacity) {
            let at = component
                .entry(key)
                .map_or(&component.at, |entry| &entry.at);
            let message = format!(
                "{size} is more than the transactionCapacity {capacity} of channel {channel}"
            );
            found.error(at, format!("{}{key}", component.prefix), message);
        }
    }
}

/// Two channels must not share a directory.
fn directories(raw: &RawAgent, agent: &AgentConfig, found: &mut Diagnostics) {
    let mut owners: BTreeMap<&std::path::Path, &str> = BTreeMap::new();
    for channel in &agent.channels {
        let ChannelKind::File(options) = &channel.kind else {
            continue;
        };
        for directory in &options.data_dirs {
            let Some(owner) = owners.insert(directory, &channel.name) else {
                continue;
            };
            let component: Option<&Component> = raw
                .channels
                .iter()
                .find(|component| component.name == channel.name);
            let Some(component) = component else { continue };
            let at = component
                .entry("dataDirs")
                .map_or(&component.at, |entry| &entry.at);
            let message = format!(
                "{} is already a directory of channel {owner}; give each its own",
                directory.display()
            );
            found.error(at, format!("{}dataDirs", component.prefix), message);
        }
    }
}
