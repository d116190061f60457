//! The log on stderr: lines for eyes, or one JSON object a line.

use tracing_subscriber::EnvFilter;

use crate::cli::{LogFormat, LogLevel};

/// Variable that overrides the level, in the syntax of `tracing`'s filters.
const FILTER_VARIABLE: &str = "FOREBAY_LOG";

/// Starts the log of this process. A second call changes nothing.
///
/// # Errors
/// `FOREBAY_LOG` is set and is not a filter.
pub fn start(format: LogFormat, level: LogLevel) -> Result<(), String> {
    let filter = match std::env::var(FILTER_VARIABLE) {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(&text)
            .map_err(|error| format!("{FILTER_VARIABLE} is not a log filter: {error}"))?,
        _ => EnvFilter::new(default_filter(level)),
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Human => log.with_ansi(false).with_target(false).try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
    // Only fails where a log has been started already, in tests within one process.
    drop(started);
    Ok(())
}

/// Our own lines at `level`; the libraries below us only from a warning on, unless debugging.
fn default_filter(level: LogLevel) -> String {
    let name = match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    let others = if level == LogLevel::Error {
        "error"
    } else {
        "warn"
    };
    format!("{others},forebay={name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_quiet_while_the_agent_talks() {
        assert_eq!(default_filter(LogLevel::Debug), "warn,forebay=debug");
        assert!(EnvFilter::try_new(default_filter(LogLevel::Error)).is_ok());
    }
}
