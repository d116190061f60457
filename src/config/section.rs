//! Reads the keys of one component by its table: types, ranges, defaults, unknown keys.

use std::path::PathBuf;

use super::diagnostic::Diagnostics;
use super::keys::{Key, KeyType, Status};
use super::lookup::Lookups;
use super::model::{Component, Entry};

/// How far a key may be from a known one and still be taken for a typing error.
const TYPING_ERROR_MAX: usize = 2;

/// A component being read.
pub(super) struct Reader<'a> {
    pub(super) component: &'a Component,
    pub(super) found: &'a mut Diagnostics,
    pub(super) lookups: &'a Lookups,
}

impl<'a> Reader<'a> {
    /// Reports refused, unknown and missing keys. Keys without effect are not reported here:
    /// `check` lists them.
    pub(super) fn check_keys(&mut self) {
        for entry in &self.component.keys {
            match self.component.kind.find(&entry.key) {
                Some(Key {
                    status: Status::Refused(why),
                    ..
                }) => self.error(entry, *why),
                Some(_) => {}
                None => self.unknown(entry),
            }
        }
        for key in self.component.kind.all().filter(|key| key.required) {
            if self.component.entry(key.name).is_none() && key.name != "type" {
                self.missing(key.name, "is missing");
            }
        }
    }

    fn unknown(&mut self, entry: &Entry) {
        let table = self.component.kind;
        let full = self.full(&entry.key);
        let nearest = table.nearest(&entry.key);
        match nearest.filter(|nearest| nearest.distance <= TYPING_ERROR_MAX) {
            Some(nearest) => {
                let message = format!("unknown key; did you mean {}?", self.full(&nearest.name));
                self.found.error(&entry.at, full, message);
            }
            None => {
                let prefixed = format!("{}.{}", table.alias, entry.key);
                let hint = match table.find(&prefixed) {
                    Some(_) => format!("; did you mean {}?", self.full(&prefixed)),
                    None => String::new(),
                };
                let message = format!("unknown key of {}; ignored{hint}", table.alias);
                self.found.warning(&entry.at, full, message);
            }
        }
    }

    /// `a1.sinks.k1.` and the key.
    pub(super) fn full(&self, key: &str) -> String {
        format!("{}{key}", self.component.prefix)
    }

    /// An error at an entry.
    pub(super) fn error(&mut self, entry: &Entry, message: impl Into<String>) {
        let full = self.full(&entry.key);
        self.found.error(&entry.at, full, message);
    }

    /// A warning at an entry.
    pub(super) fn warning(&mut self, entry: &Entry, message: impl Into<String>) {
        let full = self.full(&entry.key);
        self.found.warning(&entry.at, full, message);
    }

    /// An error about a key that the file does not have, placed at the component's `type`.
    pub(super) fn missing(&mut self, key: &str, message: impl Into<String>) {
        if self
            .component
            .unresolved
            .iter()
            .any(|unresolved| unresolved == key)
        {
            return;
        }
        let full = self.full(key);
        self.found.error(&self.component.at, full, message);
    }

    /// The entry as the file has it.
    pub(super) fn entry(&self, key: &str) -> Option<&'a Entry> {
        self.component.entry(key)
    }

    fn table_key(&self, key: &str) -> &'static Key {
        self.component
            .kind
            .find(key)
            .expect("options read only keys of their own table")
    }

    /// The text of a key, or its default, or nothing.
    pub(super) fn text(&self, key: &str) -> Option<String> {
        match self.entry(key) {
            Some(entry) => Some(entry.value.clone()),
            None => self.table_key(key).default.map(str::to_owned),
        }
    }

    /// The number of a key, or its default.
    pub(super) fn number(&mut self, key: &str) -> u64 {
        let known = self.table_key(key);
        let default = known
            .default
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        let Some(entry) = self.entry(key) else {
            return default;
        };
        let parsed = entry.value.parse::<i64>().ok();
        match (known.kind, parsed) {
            (KeyType::Integer { min, max }, Some(number)) if (min..=max).contains(&number) => {
                // Ranges that reach below 0 are those where less means the same as 0.
                u64::try_from(number).unwrap_or(0)
            }
            (KeyType::Integer { min, max }, _) => {
                let range = match (min, max) {
                    (i64::MIN, i64::MAX) => String::new(),
                    (i64::MIN, max) => format!(" up to {max}"),
                    (min, i64::MAX) => format!(" {min} or more"),
                    (min, max) => format!(" from {min} to {max}"),
                };
                let message = format!("'{}' is not a whole number{range}", entry.value);
                self.error(entry, message);
                default
            }
            (_, Some(number)) if number > 0 => u64::try_from(number).unwrap_or(default),
            (_, Some(number)) => {
                let message = format!("{number} is not positive; {default} applies, as in Flume");
                self.warning(entry, message);
                default
            }
            (_, None) => {
                let message = format!("'{}' is not a whole number", entry.value);
                self.error(entry, message);
                default
            }
        }
    }

    /// The number of a key as a count.
    pub(super) fn count(&mut self, key: &str) -> usize {
        usize::try_from(self.number(key)).unwrap_or(usize::MAX)
    }

    /// `true` or `false`, or the default.
    pub(super) fn boolean(&mut self, key: &str) -> bool {
        let default = self.table_key(key).default == Some("true");
        let Some(entry) = self.entry(key) else {
            return default;
        };
        if entry.value.eq_ignore_ascii_case("true") {
            return true;
        }
        if !entry.value.eq_ignore_ascii_case("false") {
            let message = format!("'{}' is neither true nor false", entry.value);
            self.error(entry, message);
        }
        false
    }

    /// One of the words of the key's table entry, as the table writes it.
    pub(super) fn choice(&mut self, key: &str) -> &'static str {
        let known = self.table_key(key);
        let default = known.default.unwrap_or("");
        let Some(entry) = self.entry(key) else {
            return default;
        };
        let KeyType::Choice(words) = known.kind else {
            return default;
        };
        if let Some(word) = words
            .iter()
            .find(|word| word.eq_ignore_ascii_case(&entry.value))
        {
            return word;
        }
        let message = match words {
            [only] => format!("'{}' is not supported yet, only {only}", entry.value),
            words => format!("'{}' is none of {}", entry.value, words.join(", ")),
        };
        self.error(entry, message);
        default
    }

    /// A path; `~/` of a default stands for the home directory. Empty where the file is silent
    /// and there is no home.
    pub(super) fn path(&mut self, key: &str) -> PathBuf {
        if let Some(entry) = self.entry(key) {
            return PathBuf::from(&entry.value);
        }
        let default = self.table_key(key).default.unwrap_or("");
        match (default.strip_prefix("~/"), self.lookups.sys("user.home")) {
            (Some(below), Some(home)) => PathBuf::from(home).join(below),
            (Some(_), None) => PathBuf::new(),
            (None, _) => PathBuf::from(default),
        }
    }
}
