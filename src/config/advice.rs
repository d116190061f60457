//! Warnings about a configuration that is right in each part and doubtful as a whole.

use std::collections::BTreeMap;

use super::diagnostic::Diagnostics;
use super::model::{Component, RawAgent};
use super::options::{
    AgentConfig, ChannelConfig, ChannelKind, HdfsSinkConfig, SinkKind, SourceKind, StoreKind,
};

/// Adds the warnings for an agent whose parts are right.
pub(super) fn add(raw: &RawAgent, agent: &AgentConfig, found: &mut Diagnostics) {
    let advice = Advice { raw, agent };
    advice.ends(found);
    advice.bases(found);
    for sink in &agent.sinks {
        let (SinkKind::Hdfs(options), Some(component)) = (
            &sink.kind,
            raw.sinks
                .iter()
                .find(|component| component.name == sink.name),
        ) else {
            continue;
        };
        time(component, options, found);
        let channel = agent
            .channels
            .iter()
            .find(|channel| channel.name == sink.channel);
        if let Some(channel) = channel {
            roll(component, options, channel, found);
        }
    }
}

struct Advice<'a> {
    raw: &'a RawAgent,
    agent: &'a AgentConfig,
}

impl Advice<'_> {
    /// Channels that nobody fills or empties.
    fn ends(&self, found: &mut Diagnostics) {
        for channel in &self.agent.channels {
            let key = format!("{}.channels.{}", self.agent.name, channel.name);
            if !self
                .agent
                .sinks
                .iter()
                .any(|sink| sink.channel == channel.name)
            {
                found.warning(&channel.at, &key, "no sink takes from it; it will fill up");
            }
            if !self
                .agent
                .sources
                .iter()
                .any(|source| source.channel == channel.name)
            {
                found.warning(&channel.at, &key, "no source puts into it");
            }
        }
    }

    /// Staged sinks of one channel should share one base.
    fn bases(&self, found: &mut Diagnostics) {
        let mut first: BTreeMap<&str, (&str, String)> = BTreeMap::new();
        for sink in &self.agent.sinks {
            let (base, key) = match &sink.kind {
                SinkKind::Hdfs(options) => (options.base.to_string(), "hdfs.path"),
                SinkKind::FileRoll(options) => (
                    format!("file://{}", options.directory.display()),
                    "sink.directory",
                ),
                SinkKind::Logger(_) | SinkKind::Null(_) => continue,
            };
            let Some((other, other_base)) = first.get(sink.channel.as_str()) else {
                first.insert(&sink.channel, (&sink.name, base));
                continue;
            };
            let component = self
                .raw
                .sinks
                .iter()
                .find(|component| component.name == sink.name);
            let Some(component) = component.filter(|_| *other_base != base) else {
                continue;
            };
            let message = format!(
                "its base {base} is not that of sink {other} ({other_base}) on the same channel: \
                 a copied log is then not always noticed; hdfs.stagingPath sets the base"
            );
            warn(component, key, message, found);
        }
    }
}

fn warn(component: &Component, key: &str, message: String, found: &mut Diagnostics) {
    let at = component
        .entry(key)
        .map_or(&component.at, |entry| &entry.at);
    found.warning(at, format!("{}{key}", component.prefix), message);
}

/// Time escapes need a time.
fn time(component: &Component, options: &HdfsSinkConfig, found: &mut Diagnostics) {
    if options.use_local_time_stamp {
        return;
    }
    let named = [
        ("hdfs.path", &options.target.path),
        ("hdfs.filePrefix", &options.file_prefix),
    ];
    for (key, text) in named {
        let Some(escape) = time_escape(text) else {
            continue;
        };
        let message = format!(
            "%{escape} needs events with the header `timestamp`; if the source does not set it, \
             add {}hdfs.useLocalTimeStamp = true",
            component.prefix
        );
        warn(component, key, message, found);
    }
}

/// The letter of the first time escape.
fn time_escape(text: &str) -> Option<char> {
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        let mut chars = rest[at + 1..].chars();
        match chars.next() {
            Some(letter) if letter.is_ascii_alphabetic() => return Some(letter),
            // `%%` is a percent sign; `%{` and `%[` are no times.
            Some('%') => rest = chars.as_str(),
            _ => rest = &rest[at + 1..],
        }
    }
    None
}

/// A roll should be small against its channel.
fn roll(
    component: &Component,
    options: &HdfsSinkConfig,
    channel: &ChannelConfig,
    found: &mut Diagnostics,
) {
    let (name, capacity) = (&channel.name, channel.kind.capacity());
    if let Some(count) = options.roll_count.filter(|count| *count > capacity / 2) {
        let message = format!(
            "{count} events are more than half the capacity {capacity} of channel {name}; after \
             a crash so many come back at once and hold its sources up"
        );
        warn(component, "hdfs.rollCount", message, found);
    }
    let ChannelKind::Memory(memory) = &channel.kind else {
        return;
    };
    let Some(bytes) = memory.body_bytes_max else {
        return;
    };
    if let Some(size) = options.roll_size.filter(|size| *size > bytes / 2) {
        let message = format!(
            "{size} bytes are more than half of the {bytes} that channel {name} holds, which \
             keeps events until they are published; files will be smaller"
        );
        warn(component, "hdfs.rollSize", message, found);
    }
}

/// Whether a sink needs `fs.defaultFS`; gives the place of its path.
pub(super) fn needs_default_fs<'a>(
    raw: &'a RawAgent,
    agent: &AgentConfig,
) -> Option<&'a Component> {
    let sink = agent.sinks.iter().find(|sink| match &sink.kind {
        SinkKind::Hdfs(options) => options.target.store == StoreKind::DefaultFs,
        _ => false,
    })?;
    raw.sinks
        .iter()
        .find(|component| component.name == sink.name)
}

/// Two sources cannot listen on one port.
pub(super) fn ports(raw: &RawAgent, agent: &AgentConfig, found: &mut Diagnostics) {
    let mut owners: BTreeMap<(&str, u16), &str> = BTreeMap::new();
    for source in &agent.sources {
        let SourceKind::Netcat(options) = &source.kind else {
            continue;
        };
        if options.port == 0 {
            continue;
        }
        let Some(owner) = owners.insert((&options.bind, options.port), &source.name) else {
            continue;
        };
        let component = raw
            .sources
            .iter()
            .find(|component| component.name == source.name);
        let Some(component) = component else { continue };
        let at = component
            .entry("port")
            .map_or(&component.at, |entry| &entry.at);
        let message = format!(
            "source {owner} listens on {}:{} already",
            options.bind, options.port
        );
        found.error(at, format!("{}port", component.prefix), message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_escapes_are_told_from_others() {
        assert_eq!(time_escape("/a/%{host}/%Y/%m"), Some('Y'));
        assert_eq!(time_escape("/a/%{host}/%[localhost]/100%%Y/%"), None);
        assert_eq!(time_escape("%%%d"), Some('d'));
    }
}
