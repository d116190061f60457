//! Properties of one agent, sorted into components; keys and values are still text.
//!
//! *Place in the flow*: between the grammar (`properties`) and the typed options (`options`).
//! *Invariants*: later duplicates win and are named; other agents, and components that no list
//! of the agent names, are ignored and named in a note; every entry keeps its place.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::diagnostic::{Diagnostics, Location};
use super::keys::{self, SECTIONS, Section, Table, TypeMatch};
use super::lookup::Lookups;
use super::properties::Property;
use super::secret::is_secret_key;

/// One key of a component, with its value looked up and trimmed.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// Key below the component: `hdfs.path`.
    pub key: String,
    /// Value.
    pub value: String,
    /// Where it stands.
    pub at: Location,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} = {}", self.at, self.key, self.shown())
    }
}

impl Entry {
    /// The value as it may be shown: `..` for secrets.
    pub fn shown(&self) -> &str {
        if is_secret_key(&self.key) {
            ".."
        } else {
            &self.value
        }
    }
}

/// A source, channel or sink that its agent lists.
#[derive(Clone, Debug)]
pub struct Component {
    /// Which list names it.
    pub section: Section,
    /// Name in the configuration.
    pub name: String,
    /// The table of its kind.
    pub kind: &'static Table,
    /// All its keys, `type` included, in the order of the file.
    pub keys: Vec<Entry>,
    /// Keys whose `${..}` had no answer; they have their errors and no entry.
    pub unresolved: Vec<String>,
    /// Where its `type` stands.
    pub at: Location,
    /// `a1.sinks.k1.`, to make full keys of short ones.
    pub prefix: String,
}

impl Component {
    /// The entry for a key, if the file has it.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.keys.iter().find(|entry| entry.key == key)
    }
}

/// The components of one agent.
#[derive(Clone, Debug)]
pub struct RawAgent {
    /// Name of the agent.
    pub name: String,
    /// The file.
    pub file: Arc<str>,
    /// Names in the list of channels, those with errors too.
    pub listed_channels: Vec<String>,
    /// Sources in the order of their list.
    pub sources: Vec<Component>,
    /// Channels in the order of their list.
    pub channels: Vec<Component>,
    /// Sinks in the order of their list.
    pub sinks: Vec<Component>,
}

/// What stands in front of an agent's keys in a file that is being sorted.
struct Sorting<'a> {
    agent: &'a str,
    lookups: &'a Lookups,
    found: &'a mut Diagnostics,
    /// `sources`, `sinks`, ...: value and place.
    lists: BTreeMap<&'static str, (String, Location)>,
    /// Section word and component name: its entries in the order of the file.
    components: BTreeMap<(&'static str, String), Vec<Entry>>,
}

const GROUPS: &str = "sinkgroups";
const FILTERS: &str = "configfilters";
const WORDS: [&str; 5] = ["sources", "channels", "sinks", GROUPS, FILTERS];

/// Names of the agents of a file, in order of appearance: every first part of a key whose
/// second part is one of Flume's words.
pub fn agent_names(properties: &[Property]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for property in properties {
        let mut parts = property.key.trim().splitn(3, '.');
        let (Some(name), Some(word)) = (parts.next(), parts.next()) else {
            continue;
        };
        if WORDS.contains(&word) && !name.is_empty() && !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

/// Sorts the properties of `agent` into components.
pub fn select(
    properties: &[Property],
    agent: &str,
    file: &Arc<str>,
    lookups: &Lookups,
    found: &mut Diagnostics,
) -> RawAgent {
    let names = agent_names(properties);
    if !names.iter().any(|name| name == agent) {
        let message = match names.as_slice() {
            [] => format!("there is no agent '{agent}', nor any other, in this file"),
            names => format!(
                "there is no agent '{agent}' in this file; it has: {} (choose with -n NAME)",
                names.join(", ")
            ),
        };
        found.error(&Location::whole(file), "", message);
    }
    let mut sorting = Sorting {
        agent,
        lookups,
        found,
        lists: BTreeMap::new(),
        components: BTreeMap::new(),
    };
    let own = last_of_each(properties, agent, sorting.found);
    for property in own {
        sorting.sort(property);
    }
    sorting.groups();
    let [sources, channels, sinks] = SECTIONS.map(|section| sorting.section(section, file));
    let named = |word: &str| {
        sorting
            .lists
            .get(word)
            .map_or("", |(list, _)| list.as_str())
    };
    let listed_channels = named("channels")
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    if named("sources").is_empty() && named("sinks").is_empty() && names.contains(&agent.into()) {
        let message = "neither sources nor sinks are listed; there is nothing to do";
        sorting.found.error(&Location::whole(file), agent, message);
    }
    sorting.leftovers();
    RawAgent {
        name: agent.to_owned(),
        file: Arc::clone(file),
        listed_channels,
        sources,
        channels,
        sinks,
    }
}

/// The agent's properties where each key stands once: the last one wins, as in Java.
fn last_of_each<'a>(
    properties: &'a [Property],
    agent: &str,
    found: &mut Diagnostics,
) -> Vec<&'a Property> {
    let mut own: Vec<&Property> = Vec::new();
    let mut index: BTreeMap<&str, usize> = BTreeMap::new();
    let mut others = 0_usize;
    for property in properties {
        let key = property.key.trim();
        let Some((name, rest)) = key.split_once('.') else {
            found.warning(
                &property.at,
                key,
                "ignored: a key begins with the name of an agent",
            );
            continue;
        };
        if name != agent || rest.is_empty() {
            others += 1;
            continue;
        }
        if let Some(&earlier) = index.get(key) {
            let message = format!(
                "stands twice: line {} is overruled by line {}",
                own[earlier].at.line, property.at.line
            );
            found.warning(&property.at, key, message);
            own[earlier] = property;
        } else {
            index.insert(key, own.len());
            own.push(property);
        }
    }
    if others > 0
        && let Some(first) = properties.first()
    {
        let message = format!("{others} properties of other agents are ignored");
        found.note(&Location::whole(&first.at.file), "", message);
    }
    own
}

impl Sorting<'_> {
    fn sort(&mut self, property: &Property) {
        let full = property.key.trim();
        let rest = &full[self.agent.len() + 1..];
        let value = property.value.trim();
        if value.is_empty() {
            self.found
                .warning(&property.at, full, "has no value; ignored, as in Flume");
            return;
        }
        let (word, below) = match rest.split_once('.') {
            Some((word, below)) => (word, Some(below)),
            None => (rest, None),
        };
        let Some(word) = WORDS.into_iter().find(|known| *known == word) else {
            return self.unknown_word(property, full, word);
        };
        let Some(below) = below else {
            if let Some(value) = self.resolve(property, full, value) {
                self.lists.insert(word, (value, property.at.clone()));
            }
            return;
        };
        match below.split_once('.') {
            Some((name, key)) if !name.is_empty() && !key.is_empty() => {
                // Looked up later, and only where the component is listed.
                let entry = Entry {
                    key: key.to_owned(),
                    value: value.to_owned(),
                    at: property.at.clone(),
                };
                self.components
                    .entry((word, name.trim().to_owned()))
                    .or_default()
                    .push(entry);
                if property.utf8 {
                    self.found.warning(
                        &property.at,
                        full,
                        "characters beyond ASCII are read as UTF-8; Flume 1.11 reads ISO-8859-1",
                    );
                }
            }
            _ => {
                let message = format!("ignored: a key below {word} is {word}.NAME.KEY");
                self.found.warning(&property.at, full, message);
            }
        }
    }

    fn unknown_word(&mut self, property: &Property, full: &str, word: &str) {
        let nearest = WORDS
            .into_iter()
            .min_by_key(|known| keys::distance(known, word));
        match nearest.filter(|known| keys::distance(known, word) <= 2) {
            Some(known) => {
                let message = format!("unknown key; did you mean {}.{known}?", self.agent);
                self.found.error(&property.at, full, message);
            }
            None => self
                .found
                .warning(&property.at, full, "ignored: unknown key of an agent"),
        }
    }

    fn resolve(&mut self, property: &Property, full: &str, value: &str) -> Option<String> {
        match self.lookups.resolve(value) {
            Ok(value) => Some(value.trim().to_owned()),
            Err(message) => {
                self.found.error(&property.at, full, message);
                None
            }
        }
    }

    /// Sink groups and configuration filters: only what changes nothing is accepted.
    fn groups(&mut self) {
        if let Some((_, at)) = self.lists.get(FILTERS) {
            let key = format!("{}.{FILTERS}", self.agent);
            let message = "configuration filters are not supported yet; use ${env:NAME}";
            self.found.error(&at.clone(), key, message);
        }
        let Some((list, at)) = self.lists.get(GROUPS).cloned() else {
            return;
        };
        for name in list.split_whitespace() {
            let entries = self
                .components
                .remove(&(GROUPS, name.to_owned()))
                .unwrap_or_default();
            let prefix = format!("{}.{GROUPS}.{name}", self.agent);
            let value = |key: &str| entries.iter().find(|entry| entry.key == key);
            if let Some(kind) = value("processor.type")
                && !kind.value.eq_ignore_ascii_case("default")
            {
                let message = format!("sink processor '{}' is not supported yet", kind.value);
                self.found
                    .error(&kind.at, format!("{prefix}.processor.type"), message);
                continue;
            }
            match value("sinks") {
                Some(sinks) if sinks.value.split_whitespace().count() > 1 => {
                    let message = "the default sink processor takes one sink, as in Flume; \
                                   sinks on one channel share its events without a group";
                    self.found
                        .error(&sinks.at, format!("{prefix}.sinks"), message);
                }
                _ => self
                    .found
                    .note(&at, &prefix, "the default sink processor changes nothing"),
            }
        }
    }

    fn section(&mut self, section: Section, file: &Arc<str>) -> Vec<Component> {
        let list_key = format!("{}.{}", self.agent, section.word());
        let Some((list, at)) = self.lists.get(section.word()).cloned() else {
            if section == Section::Channels {
                let message = "no channels are listed; an agent needs at least one";
                self.found.error(&Location::whole(file), list_key, message);
            }
            return Vec::new();
        };
        let mut names: Vec<&str> = Vec::new();
        for name in list.split_whitespace() {
            if name.contains('/') || name.chars().any(char::is_control) {
                // Names become parts of file names.
                self.found.error(
                    &at,
                    &list_key,
                    format!("'{name}' holds a character that file names cannot have"),
                );
            } else if names.contains(&name) {
                self.found
                    .warning(&at, &list_key, format!("'{name}' is listed twice"));
            } else {
                names.push(name);
            }
        }
        let found = names
            .into_iter()
            .map(|name| self.component(section, name, &list_key, &at));
        found.collect::<Vec<_>>().into_iter().flatten().collect()
    }

    fn component(
        &mut self,
        section: Section,
        name: &str,
        list_key: &str,
        list_at: &Location,
    ) -> Option<Component> {
        let prefix = format!("{list_key}.{name}.");
        let mut entries = self
            .components
            .remove(&(section.word(), name.to_owned()))
            .unwrap_or_default();
        let unresolved = self.look_up(&mut entries, &prefix);
        let Some(kind) = entries.iter().find(|entry| entry.key == "type") else {
            if !unresolved.iter().any(|key| key == "type") {
                let hint = if name.contains(',') {
                    " (blanks separate names)"
                } else {
                    ""
                };
                let message = format!("lists '{name}', but there is no {prefix}type{hint}");
                self.found.error(list_at, list_key, message);
            }
            return None;
        };
        let at = kind.at.clone();
        let message = match keys::find_type(section, &kind.value) {
            TypeMatch::Supported(table) => {
                let name = name.to_owned();
                return Some(Component {
                    section,
                    name,
                    kind: table,
                    keys: entries,
                    unresolved,
                    at,
                    prefix,
                });
            }
            TypeMatch::NotYet => {
                format!(
                    "{} type '{}' is not supported yet",
                    section.singular(),
                    kind.value
                )
            }
            TypeMatch::Unknown(nearest) => {
                let (singular, given) = (section.singular(), &kind.value);
                let advice = match nearest {
                    Some(nearest) => format!("the nearest is '{nearest}'"),
                    None => format!("there are {}", keys::aliases(section).join(", ")),
                };
                format!("unknown {singular} type '{given}'; {advice}")
            }
        };
        self.found.error(&at, format!("{prefix}type"), message);
        None
    }

    /// Answers the lookups of a component's values; gives the keys that have no answer.
    fn look_up(&mut self, entries: &mut Vec<Entry>, prefix: &str) -> Vec<String> {
        let mut unresolved = Vec::new();
        entries.retain_mut(|entry| match self.lookups.resolve(&entry.value) {
            Ok(value) => {
                entry.value = value.trim().to_owned();
                if entry.value.is_empty() {
                    let message = "its lookup gave an empty text; ignored";
                    self.found
                        .warning(&entry.at, format!("{prefix}{}", entry.key), message);
                }
                !entry.value.is_empty()
            }
            Err(message) => {
                self.found
                    .error(&entry.at, format!("{prefix}{}", entry.key), message);
                unresolved.push(entry.key.clone());
                false
            }
        });
        unresolved
    }

    /// Components that no list names.
    fn leftovers(&mut self) {
        for ((word, name), entries) in std::mem::take(&mut self.components) {
            let Some(first) = entries.first() else {
                continue;
            };
            let key = format!("{}.{word}.{name}", self.agent);
            let message = format!("ignored: {}.{word} does not list it", self.agent);
            self.found.note(&first.at, key, message);
        }
    }
}
