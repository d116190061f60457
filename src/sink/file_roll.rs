//! The `file_roll` sink: whole files in one local directory, published like those of `hdfs`.
//!
//! Files appear when they are complete; there are no empty ones. `rollInterval = 0` publishes at
//! stop, or earlier when the channel needs room.

use std::path::Path;
use std::sync::Arc;

use crate::config::options::{FileRollConfig, Serializer};
use crate::format::text::Text;

use super::staged::bucket::{Template, TemplateError};
use super::staged::options::StagedOptions;

/// Options of the staged sink `name` on the local store. A relative directory is taken from the
/// working directory of the process.
///
/// # Errors
/// A directory, prefix or suffix that cannot be used.
pub fn staged_options(name: &str, config: &FileRollConfig) -> Result<StagedOptions, TemplateError> {
    let directory = absolute(&config.directory)?;
    let front = if config.file_prefix.is_empty() {
        "FlumeData"
    } else {
        &config.file_prefix
    };
    let Serializer::Text { append_newline } = config.serializer;
    // A directory's name is taken as it is: `%` is no escape here.
    let literal = |text: &str| Template::parse(&text.replace('%', "%%"));
    let options = StagedOptions::new(name, "/unused")?;
    StagedOptions {
        path: literal(&directory)?,
        base: directory,
        prefix: literal(front)?,
        suffix: config.file_suffix.clone(),
        roll_interval: config.roll_interval,
        batch_size: config.batch_size,
        serializer: Arc::new(Text { append_newline }),
        ..options
    }
    .checked()
}

/// Absolute form without `.`, `..` and repeated slashes.
fn absolute(directory: &Path) -> Result<String, TemplateError> {
    let fail = |reason: String| TemplateError {
        text: directory.display().to_string(),
        reason,
    };
    let path = std::path::absolute(directory).map_err(|error| fail(error.to_string()))?;
    let text = path
        .to_str()
        .ok_or_else(|| fail("is not valid UTF-8".into()))?;
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err(fail("holds '..'; write the path without it".into())),
            part => parts.push(part),
        }
    }
    Ok(format!("/{}", parts.join("/")))
}
