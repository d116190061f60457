//! The `logger` sink: logs headers and the front of each body, as Flume's does.

use std::fmt::Write as _;
use std::sync::Arc;

use async_trait::async_trait;

use super::null::drain;
use super::{Sink, SinkError};
use crate::agent::counters::SinkCounters;
use crate::channel::Channel;
use crate::event::Event;
use crate::source::Shutdown;

/// Logs events at level `info`.
#[derive(Debug)]
pub struct LoggerSink {
    /// Name from the configuration.
    pub name: String,
    /// Most bytes of a body to show.
    pub max_bytes_to_log: usize,
    /// What it counts.
    pub counters: Arc<SinkCounters>,
}

/// Events taken at once. Flume's takes one; a batch is acknowledged as a whole.
const BATCH: usize = 100;

#[async_trait]
impl Sink for LoggerSink {
    async fn run(&self, channel: Arc<dyn Channel>, shutdown: Shutdown) -> Result<(), SinkError> {
        drain(channel, shutdown, BATCH, &self.counters, |batch| {
            for taken in &batch.events {
                let event = show(&taken.event, self.max_bytes_to_log);
                tracing::info!(sink = %self.name, "Event: {event}");
            }
        })
        .await
    }
}

/// `{ headers:{a=b} body: 68 65 6C 6C 6F                                  hello }`: 16 bytes a
/// line, in hexadecimal and with `.` for what cannot be shown.
pub fn show(event: &Event, max_bytes: usize) -> String {
    let headers: Vec<String> = event
        .headers
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    let mut out = format!("{{ headers:{{{}}} body:", headers.join(", "));
    let body = &event.body[..event.body.len().min(max_bytes)];
    let many = body.len() > 16;
    for (line, bytes) in body.chunks(16).enumerate() {
        // Writing to a String cannot fail.
        let mut put = |text: std::fmt::Arguments<'_>| if out.write_fmt(text).is_err() {};
        if many {
            put(format_args!("\n{:08X}", line * 16));
        }
        for byte in bytes {
            put(format_args!(" {byte:02X}"));
        }
        let gap = 3 * (16 - bytes.len()) + 1;
        put(format_args!("{:gap$}", ""));
        for byte in bytes {
            let shown = if (b' '..127).contains(byte) {
                char::from(*byte)
            } else {
                '.'
            };
            put(format_args!("{shown}"));
        }
    }
    out.push_str(" }");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_body_stands_on_one_line_in_hex_and_text() {
        let mut event = Event::from_body("hello\n");
        event.headers.set("a", "b");
        let gap = " ".repeat(31);
        let expected = format!("{{ headers:{{a=b}} body: 68 65 6C 6C 6F 0A{gap}hello. }}");
        assert_eq!(show(&event, 16), expected);
    }

    #[test]
    fn no_more_than_the_limit_is_shown() {
        let event = Event::from_body(vec![b'x'; 100]);
        assert_eq!(show(&event, 16).matches('x').count(), 16);
        assert_eq!(show(&event, 40).lines().count(), 4);
    }
}
