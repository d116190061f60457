//! Text in, typed and checked configuration out.
//!
//! *Place in the flow*:
//!
//! ```text
//! bytes -> properties -> model (one agent's components) -> options (typed) -> agent
//!                             keys (tables)  ^    ^ lookup (${env:X})
//! ```
//!
//! *Invariants*: all findings of a file are reported at once, each with file, line and key; what
//! is not supported is refused, so that nothing is ever silently different from Flume.

mod advice;
pub mod check;
pub mod diagnostic;
pub mod hadoop;
pub mod keys;
pub mod lookup;
pub mod model;
pub mod options;
pub mod properties;
pub mod secret;
mod section;

use std::path::Path;
use std::sync::Arc;

pub use diagnostic::{Diagnostic, Diagnostics, Location, Severity};
pub use lookup::Lookups;
pub use options::AgentConfig;
pub use secret::Secret;

/// What reading one agent of a file brought.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration; `None` where there are errors.
    pub config: Option<AgentConfig>,
    /// The components as text, for `check`.
    pub raw: model::RawAgent,
    /// Everything there is to say.
    pub found: Diagnostics,
}

/// The file could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the configuration {file}: {source}")]
pub struct ReadError {
    /// The file.
    pub file: String,
    /// What the system said.
    pub source: std::io::Error,
}

/// Reads `agent` from a file.
///
/// # Errors
/// Only where the file cannot be read; what is wrong with its content is in [`Loaded::found`].
pub fn load(file: &Path, agent: &str, lookups: &Lookups) -> Result<Loaded, ReadError> {
    let (name, bytes) = read_file(file)?;
    Ok(parse(&bytes, &name, agent, lookups))
}

/// Reads the bytes of a file; also gives its name as shown in messages.
pub(crate) fn read_file(file: &Path) -> Result<(Arc<str>, Vec<u8>), ReadError> {
    let name: Arc<str> = file.display().to_string().into();
    match std::fs::read(file) {
        Ok(bytes) => Ok((name, bytes)),
        Err(source) => Err(ReadError {
            file: name.to_string(),
            source,
        }),
    }
}

/// Reads `agent` from the text of a file called `file`.
pub fn parse(bytes: &[u8], file: &Arc<str>, agent: &str, lookups: &Lookups) -> Loaded {
    let mut found = Diagnostics::default();
    let properties = properties::parse(bytes, file, &mut found);
    let raw = model::select(&properties, agent, file, lookups, &mut found);
    let config = options::build(&raw, lookups, &mut found);
    if !found.has_errors() {
        advice::add(&raw, &config, &mut found);
    }
    let config = (!found.has_errors()).then_some(config);
    Loaded { config, raw, found }
}
