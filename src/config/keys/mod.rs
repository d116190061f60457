//! The key tables: one table for each kind of component, with every key of Flume 1.11 and ours.
//!
//! *Place in the flow*: read by the typed options (defaults, ranges), by `check` (what has no
//! effect, what is refused and why) and by the test that compares them with
//! `docs/FROM-FLUME.md`.
//! *Invariant*: a key that a table does not hold is unknown; nothing is honoured that is not in
//! a table.

mod common;
mod file_channel;
mod file_roll;
mod hdfs;
mod logger;
mod memory_channel;
mod netcat;
mod null;
mod taildir;
mod types;

pub use types::{SECTIONS, TypeMatch, find_type};

/// The three kinds of components.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Section {
    /// `a1.sources`
    Sources,
    /// `a1.channels`
    Channels,
    /// `a1.sinks`
    Sinks,
}

impl Section {
    /// The word in the keys: `sources`, `channels`, `sinks`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Sources => "sources",
            Self::Channels => "channels",
            Self::Sinks => "sinks",
        }
    }

    /// One of them: `source`, `channel`, `sink`.
    pub fn singular(self) -> &'static str {
        match self {
            Self::Sources => "source",
            Self::Channels => "channel",
            Self::Sinks => "sink",
        }
    }
}

/// What a value must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    /// Any text.
    Text,
    /// `true` or `false`, in any case.
    Boolean,
    /// A whole number in this range, both ends included.
    Integer {
        /// Least value.
        min: i64,
        /// Greatest value.
        max: i64,
    },
    /// A count where, as in Flume, 0 and less mean the default (said in a warning).
    Positive,
    /// One of these words, in any case.
    Choice(&'static [&'static str]),
    /// A file or directory.
    Path,
    /// Directories, separated by commas.
    PathList,
    /// Names, separated by blanks.
    NameList,
}

/// What we do with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It does what Flume's guide says, or what its help says.
    Honoured,
    /// Accepted; changes nothing, for this reason.
    NoEffect(&'static str),
    /// A configuration that holds it is refused, for this reason.
    Refused(&'static str),
}

/// One key of a component.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Name below the component; `*` stands for one name, at the end for all that follows.
    pub name: &'static str,
    /// What a value must look like.
    pub kind: KeyType,
    /// The value that applies where the file is silent; `None`: nothing.
    pub default: Option<&'static str>,
    /// Flume's default where ours differs from it.
    pub flume_default: Option<&'static str>,
    /// Unit of the value; empty where it has none.
    pub unit: &'static str,
    /// The component cannot do without it.
    pub required: bool,
    /// Flume does not know it.
    pub ours: bool,
    /// What we do with it.
    pub status: Status,
    /// What it is for, in one line.
    pub help: &'static str,
}

impl Key {
    /// A honoured key of Flume's without a default.
    const fn new(name: &'static str, kind: KeyType, help: &'static str) -> Self {
        Self {
            name,
            kind,
            default: None,
            flume_default: None,
            unit: "",
            required: false,
            ours: false,
            status: Status::Honoured,
            help,
        }
    }

    const fn default(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self
    }

    /// Our default is `default`, because Flume's is a trap or makes no sense here.
    const fn differs(mut self, default: &'static str, flume: &'static str) -> Self {
        self.default = Some(default);
        self.flume_default = Some(flume);
        self
    }

    const fn unit(mut self, unit: &'static str) -> Self {
        self.unit = unit;
        self
    }

    const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    const fn ours(mut self) -> Self {
        self.ours = true;
        self
    }

    const fn no_effect(mut self, why: &'static str) -> Self {
        self.status = Status::NoEffect(why);
        self
    }

    const fn refused(mut self, why: &'static str) -> Self {
        self.status = Status::Refused(why);
        self
    }

    /// The name this key would have if `written` were meant to be it: its wildcards filled from
    /// `written`. `None` where `written` is too short to fill them.
    fn instance(&self, written: &str) -> Option<String> {
        if !self.name.contains('*') {
            return Some(self.name.to_owned());
        }
        let pattern: Vec<&str> = self.name.split('.').collect();
        let parts: Vec<&str> = written.splitn(pattern.len(), '.').collect();
        if parts.len() < pattern.len() || parts.iter().any(|part| part.is_empty()) {
            return None;
        }
        let filled: Vec<&str> = pattern
            .iter()
            .zip(&parts)
            .map(|(own, given)| if *own == "*" { *given } else { *own })
            .collect();
        Some(filled.join("."))
    }

    /// Whether `written` is this key, or one of its family.
    pub fn matches(&self, written: &str) -> bool {
        self.instance(written)
            .is_some_and(|instance| instance == written)
    }
}

/// All keys of one kind of component.
#[derive(Debug)]
pub struct Table {
    /// Which list of the agent the component stands in.
    pub section: Section,
    /// Flume's alias, as its guide writes it.
    pub alias: &'static str,
    /// Flume's class.
    pub class: &'static str,
    /// The component's own keys.
    pub keys: &'static [Key],
    /// Keys that every component of the section has.
    pub common: &'static [Key],
}

/// What a key that is in no table may have been meant to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nearest {
    /// The known name.
    pub name: String,
    /// Edit distance; 0 where only upper and lower case differ.
    pub distance: usize,
}

impl Table {
    /// All keys, the component's own first.
    pub fn all(&self) -> impl Iterator<Item = &'static Key> {
        self.keys.iter().chain(self.common)
    }

    /// The entry for a key as written in a file.
    pub fn find(&self, written: &str) -> Option<&'static Key> {
        self.all()
            .find(|key| key.name == written)
            .or_else(|| self.all().find(|key| key.matches(written)))
    }

    /// The known key nearest to an unknown one.
    pub fn nearest(&self, written: &str) -> Option<Nearest> {
        self.all()
            .filter_map(|key| key.instance(written))
            .map(|name| Nearest {
                distance: distance(&name, written),
                name,
            })
            .min_by_key(|nearest| nearest.distance)
    }
}

/// Edit distance, where a swap of neighbours counts once and a difference in case not at all.
pub(crate) fn distance(a: &str, b: &str) -> usize {
    if a.eq_ignore_ascii_case(b) {
        0
    } else {
        strsim::osa_distance(a, b)
    }
}

/// Every table.
pub const TABLES: [&Table; 8] = [
    &taildir::TABLE,
    &netcat::TABLE,
    &file_channel::TABLE,
    &memory_channel::TABLE,
    &hdfs::TABLE,
    &file_roll::TABLE,
    &logger::TABLE,
    &null::TABLE,
];

/// Aliases of the components of a section.
pub fn aliases(section: Section) -> Vec<&'static str> {
    let tables = TABLES.iter().filter(|table| table.section == section);
    tables.map(|table| table.alias).collect()
}

#[cfg(test)]
mod tests;
