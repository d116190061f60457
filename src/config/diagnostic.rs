//! What the configuration reader has to say: every finding with file, line and key, all of them
//! at once.
//!
//! *Place in the flow*: filled by every step from text to typed options; printed by `check` and
//! logged by the agent.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

/// A place in a configuration file.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// The file as the user named it.
    pub file: Arc<str>,
    /// Line, counted from 1; 0 stands for the file as a whole.
    pub line: u32,
}

impl Location {
    /// The file as a whole.
    pub fn whole(file: &Arc<str>) -> Self {
        Self {
            file: Arc::clone(file),
            line: 0,
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            return f.write_str(&self.file);
        }
        write!(f, "{}:{}", self.file, self.line)
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can be used, but probably does not mean what was meant. An error under `--strict`.
    Warning,
    /// Good to know: ignored components, defaults that differ from Flume's.
    Note,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Diagnostic {
    /// How much it matters.
    pub severity: Severity,
    /// Where.
    pub at: Location,
    /// The full key, as `a1.sinks.k1.hdfs.path`; empty where the finding is about the file.
    pub key: String,
    /// What is the matter and what to do about it. Never holds the value of a secret.
    pub message: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: ", self.severity, self.at)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// All findings of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics {
    all: Vec<Diagnostic>,
    /// The same, so that a file with a finding a line is checked in time.
    known: HashSet<Diagnostic>,
}

impl Diagnostics {
    /// Adds a finding.
    pub fn push(
        &mut self,
        severity: Severity,
        at: &Location,
        key: impl Into<String>,
        message: impl Into<String>,
    ) {
        self.add(Diagnostic {
            severity,
            at: at.clone(),
            key: key.into(),
            message: message.into(),
        });
    }

    fn add(&mut self, found: Diagnostic) {
        if self.known.insert(found.clone()) {
            self.all.push(found);
        }
    }

    /// Adds an error.
    pub fn error(&mut self, at: &Location, key: impl Into<String>, message: impl Into<String>) {
        self.push(Severity::Error, at, key, message);
    }

    /// Adds a warning.
    pub fn warning(&mut self, at: &Location, key: impl Into<String>, message: impl Into<String>) {
        self.push(Severity::Warning, at, key, message);
    }

    /// Adds a note.
    pub fn note(&mut self, at: &Location, key: impl Into<String>, message: impl Into<String>) {
        self.push(Severity::Note, at, key, message);
    }

    /// All findings in order of line.
    pub fn sorted(&self) -> Vec<&Diagnostic> {
        let mut all: Vec<&Diagnostic> = self.all.iter().collect();
        all.sort_by(|a, b| (&a.at, a.severity, &a.key).cmp(&(&b.at, b.severity, &b.key)));
        all
    }

    /// How many findings have this severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.all
            .iter()
            .filter(|found| found.severity == severity)
            .count()
    }

    /// Whether the configuration cannot be used.
    pub fn has_errors(&self) -> bool {
        self.count(Severity::Error) > 0
    }

    /// Makes errors of all warnings (`--strict`).
    pub fn make_strict(&mut self) {
        for found in &mut self.all {
            if found.severity == Severity::Warning {
                found.severity = Severity::Error;
            }
        }
        self.known = self.all.iter().cloned().collect();
    }

    /// Takes over the findings of `other`.
    pub fn append(&mut self, other: Self) {
        for found in other.all {
            self.add(found);
        }
    }
}
