//! `TAILDIR`: lines of growing and rotating files, each exactly once.
//!
//! *Place in the flow*: a thread of its own polls the file groups, reads complete lines and puts
//! them into the channel together with the position behind them, in one transaction. There is no
//! position file; what the channel holds is where the source goes on.
//!
//! *Invariants*: a position is at the end of a record. A file is recognised by its inode and two
//! fingerprints of its content ([`position`]), never by its name. A file that was rotated away
//! by renaming is read to its end first, also across a restart while it is in the same
//! directory. A file that was truncated or replaced is reported and read from its beginning.
//!
//! *A crash leaves* the lines and positions of the last acknowledged transaction; the next run
//! goes on exactly there.
//!
//! Where we differ from Flume's source: a last line without line end waits for it however long
//! the file is idle (Flume delivers the half after `idleTimeout`, and the other half as another
//! line); only when the file has been rotated away or deleted and has not grown for
//! `idleTimeout` is the rest delivered as a line. A line longer than `maxLineLength` is
//! refused, named in the log and counted, never cut in two. `fileHeader` holds the path under
//! which the file was first found, for all its lines. Renaming re-sends nothing.

mod legacy;
mod lines;
pub mod pattern;
mod position;
mod read;
mod scan;
mod tail;
#[cfg(test)]
mod tests;
mod tracked;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use regex::Regex;

use self::tail::{Polled, Tailer};
use super::runner::Runner;
use super::{Shutdown, Source, SourceContext, SourceError};
use crate::config::options::{self, TaildirConfig};
use crate::env::clock;

/// How long all files must have been at their ends before the source has ended.
const QUIET: Duration = Duration::from_secs(2);
/// The wait after a poll that brought lines, but no full batch.
const SHORT_WAIT: Duration = Duration::from_millis(100);

/// The shortest wait after a poll that brought nothing, whatever is configured.
const IDLE_WAIT_MIN: Duration = Duration::from_millis(10);

/// Files with the same headers.
#[derive(Clone, Debug)]
pub struct FileGroup {
    /// Name in `filegroups`.
    pub name: String,
    /// The directory; absolute.
    pub directory: PathBuf,
    /// Matches whole file names; see [`pattern::whole_name`].
    pub pattern: Regex,
    /// Headers of every event.
    pub headers: Vec<(String, String)>,
}

/// What a source is made of.
#[derive(Clone, Debug)]
pub struct TaildirOptions {
    /// In the order of `filegroups`; the first that matches a file has it.
    pub groups: Vec<FileGroup>,
    /// Flume's position file: the starting point of a channel without positions of this source.
    pub position_file: Option<PathBuf>,
    /// Most lines in one transaction.
    pub batch_size: usize,
    /// Start files that have no position at their end, when the source starts.
    pub skip_to_end: bool,
    /// Close a file that has not grown for so long.
    pub idle_timeout: Duration,
    /// Add the header `byteoffset`: where the line begins.
    pub byte_offset_header: bool,
    /// Name of the header that holds the file's path, if one is wanted.
    pub file_header: Option<String>,
    /// Most batches from one file before the next has its turn.
    pub max_batch_count: u64,
    /// How much longer to wait after each poll without a new line.
    pub backoff_sleep_increment: Duration,
    /// Longest wait between two polls.
    pub max_backoff_sleep: Duration,
    /// Longest line in bytes, without its line end.
    pub max_line_length: usize,
    /// Most files whose positions are kept.
    pub files_max: usize,
    /// How long the position of a file that is gone is kept.
    pub keep_vanished: Duration,
}

impl TaildirOptions {
    /// The options of a checked configuration.
    ///
    /// # Errors
    /// [`SourceError::Config`] if a pattern is not supported or a path cannot be made absolute.
    pub fn from_config(config: &TaildirConfig) -> Result<Self, SourceError> {
        let group = |group: &options::FileGroup| {
            let key = format!("filegroups.{}", group.name);
            let error = |reason| SourceError::Config {
                key: key.clone(),
                reason,
            };
            let directory = std::path::absolute(&group.directory);
            Ok(FileGroup {
                name: group.name.clone(),
                directory: directory.map_err(|e| error(e.to_string()))?,
                pattern: pattern::whole_name(&group.pattern).map_err(error)?,
                headers: group.headers.clone(),
            })
        };
        Ok(Self {
            groups: config
                .groups
                .iter()
                .map(group)
                .collect::<Result<_, SourceError>>()?,
            position_file: Some(config.position_file.clone()),
            batch_size: config.batch_size,
            skip_to_end: config.skip_to_end,
            idle_timeout: config.idle_timeout,
            byte_offset_header: config.byte_offset_header,
            file_header: config.file_header.clone(),
            max_batch_count: config.max_batch_count,
            backoff_sleep_increment: config.backoff_sleep_increment,
            max_backoff_sleep: config.max_backoff_sleep,
            max_line_length: config.max_line_length,
            files_max: 4096,
            keep_vanished: Duration::from_secs(3600),
        })
    }
}

/// The source.
#[derive(Debug)]
pub struct Taildir {
    options: TaildirOptions,
    ended: std::sync::Arc<AtomicBool>,
}

impl Taildir {
    /// A source that has not read anything yet.
    pub fn new(options: TaildirOptions) -> Self {
        Self {
            options,
            ended: std::sync::Arc::default(),
        }
    }
}

#[async_trait]
impl Source for Taildir {
    async fn run(&self, mut context: SourceContext) -> Result<(), SourceError> {
        self.ended.store(false, Ordering::SeqCst);
        // The thread has a signal of its own, so that it also stops when this future is dropped.
        let (trigger, own) = Shutdown::new();
        let outer = std::mem::replace(&mut context.shutdown, own);
        let source_name = context.name.clone();
        let options = self.options.clone();
        let ended = std::sync::Arc::clone(&self.ended);
        let (send, mut done) = tokio::sync::oneshot::channel();
        let unavailable = |reason| SourceError::Unavailable {
            source_name: source_name.clone(),
            reason,
        };
        let thread = std::thread::Builder::new()
            .name(format!("taildir-{source_name}"))
            .spawn(move || {
                // The receiver is gone only if nobody waits for the result any more.
                drop(send.send(poll_until_stopped(options, context, &ended)));
            })
            .map_err(|error| unavailable(format!("cannot start its thread: {error}")))?;
        let result = tokio::select! {
            result = &mut done => result,
            () = outer.wait() => {
                trigger.stop();
                done.await
            }
        };
        let result = result.map_err(|_| unavailable("its thread has panicked".to_owned()));
        // The thread has sent its result or has panicked: it ends now.
        drop(thread.join());
        result?
    }

    fn can_end(&self) -> bool {
        true
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }
}

fn poll_until_stopped(
    options: TaildirOptions,
    context: SourceContext,
    ended: &AtomicBool,
) -> Result<(), SourceError> {
    let (increment, longest) = (options.backoff_sleep_increment, options.max_backoff_sleep);
    let shutdown = context.shutdown.clone();
    let clock = clock::system();
    let mut tailer = Tailer::start(options, Runner::new(context), clock.now(), clock.wall_ms())?;
    let mut quiet_since: Option<Instant> = None;
    let mut empty_polls = 0;
    while !shutdown.requested() {
        let now = clock.now();
        let Polled {
            lines,
            more,
            at_end,
        } = tailer.poll(now, clock.wall_ms())?;
        if lines > 0 || !at_end {
            quiet_since = None;
        }
        if at_end {
            let since = *quiet_since.get_or_insert(now);
            ended.store(
                now.saturating_duration_since(since) >= QUIET,
                Ordering::SeqCst,
            );
        } else {
            ended.store(false, Ordering::SeqCst);
        }
        empty_polls = if lines > 0 { 0 } else { empty_polls + 1 };
        let wait = match lines {
            _ if more => Duration::ZERO,
            0 => increment
                .saturating_mul(empty_polls)
                .min(longest)
                .max(IDLE_WAIT_MIN),
            _ => SHORT_WAIT.min(increment),
        };
        if shutdown.wait_blocking(wait) {
            break;
        }
    }
    tailer.stop(clock.now(), clock.wall_ms())
}
