//! Reading one followed file, and handing what was read to the channel.

use std::time::Instant;

use super::lines::{Limits, Line, Lines, ReadError};
use super::position::Mismatch;
use super::scan::FileId;
use super::tail::Tailer;
use super::tracked::{OpenError, Tracked};
use crate::channel::{Position, PutBatch, PutEvent};
use crate::event::Event;
use crate::source::SourceError;
use crate::source::runner::PutError;

/// Most body bytes of one transaction, beyond its first line.
const BATCH_BYTES: usize = 1 << 20;

/// How a visit to a file has ended.
pub(super) enum After {
    More,
    AtEnd,
    /// Not now: an error, a file that has moved, or the source is being stopped.
    NotNow,
}

/// What became of a batch.
pub(super) enum Delivered {
    /// Lines delivered or refused.
    Yes(u64),
    /// Nothing was stored; the reader is back at the last acknowledged line. Ask for less.
    TooLarge,
    /// The same, because the source is being stopped.
    Stopped,
}

impl From<ReadError> for OpenError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Io(error) => Self::Io(error),
            ReadError::Replaced(why) => Self::Replaced(why),
        }
    }
}

impl Tailer {
    /// Reads a file that has changed until its end or until its turn is over.
    pub(super) fn visit(
        &mut self,
        file: &mut Tracked,
        now: Instant,
        wall_ms: u64,
        lines: &mut u64,
    ) -> Result<After, SourceError> {
        let stamp = match file.stamp() {
            Ok(Some(stamp)) => stamp,
            Ok(None) => return Ok(After::NotNow),
            Err(error) => {
                self.count_error(file, &error.to_string());
                return Ok(After::NotNow);
            }
        };
        if file.seen == Some(stamp) {
            return Ok(After::AtEnd);
        }
        let after = self.read_on(file, now, wall_ms, lines)?;
        if matches!(after, After::AtEnd) {
            // The state before reading: a change since then is looked at by the next poll.
            file.seen = Some(stamp);
        }
        if let Some(reader) = &mut file.reader {
            reader.settle();
        }
        Ok(after)
    }

    fn read_on(
        &mut self,
        file: &mut Tracked,
        now: Instant,
        wall_ms: u64,
        lines: &mut u64,
    ) -> Result<After, SourceError> {
        let batch_events = self.runner.batch_events(self.options.batch_size);
        let mut limits = self.limits(batch_events);
        let mut batches = 0;
        while batches < self.options.max_batch_count {
            let Some(read) = self.next_lines(file, now, limits) else {
                return Ok(After::NotNow);
            };
            let at_end = read.at_end;
            if read.mark.is_some() {
                file.grown = now;
                let count = read.lines.len();
                match self.deliver(file, read, wall_ms)? {
                    Delivered::Yes(n) => *lines += n,
                    Delivered::TooLarge => {
                        limits.lines = (count / 2).max(1);
                        continue;
                    }
                    Delivered::Stopped => return Ok(After::NotNow),
                }
                limits.lines = batch_events;
                batches += 1;
            }
            if at_end {
                return Ok(After::AtEnd);
            }
        }
        Ok(After::More)
    }

    /// The next lines of a file; `None` if there is an error, which is counted and reported.
    fn next_lines(&mut self, file: &mut Tracked, now: Instant, limits: Limits) -> Option<Lines> {
        // Twice: the first attempt may show that the file is another one.
        for _ in 0..2 {
            let read = match file.open(now) {
                Ok(reader) => reader
                    .batch(limits, &mut self.scratch)
                    .map_err(OpenError::from),
                Err(error) => Err(error),
            };
            match read {
                Ok(read) => {
                    file.failing = None;
                    return Some(read);
                }
                Err(OpenError::Replaced(why)) => self.replaced(file, why),
                Err(OpenError::Io(error)) => {
                    self.count_error(file, &error.to_string());
                    file.reader = None;
                    return None;
                }
                Err(OpenError::Moved) => return None,
            }
        }
        None
    }

    pub(super) fn limits(&self, lines: usize) -> Limits {
        Limits {
            lines,
            bytes: BATCH_BYTES,
            line: self.options.max_line_length,
        }
    }

    /// Puts lines and position. The reader stands behind them afterwards, or at the last
    /// acknowledged line if they do not fit; a single line that can never fit is refused.
    pub(super) fn deliver(
        &mut self,
        file: &mut Tracked,
        read: Lines,
        wall_ms: u64,
    ) -> Result<Delivered, SourceError> {
        let Some(mark) = read.mark else {
            return Ok(Delivered::Yes(0));
        };
        let count = read.lines.len() + read.refused.len();
        for refused in &read.refused {
            let why = format!("longer than {} bytes", self.options.max_line_length);
            self.refused(file, refused.start, refused.end, &why);
        }
        let batch_is_refusals = read.lines.is_empty();
        let only = read
            .lines
            .first()
            .filter(|_| read.lines.len() == 1)
            .map(|l| (l.start, l.end));
        let mut batch = PutBatch {
            events: read
                .lines
                .into_iter()
                .map(|line| self.event(file, line))
                .collect(),
            positions: vec![file.position(mark, wall_ms)],
        };
        batch.positions.append(&mut self.forget);
        match self.runner.put_blocking(batch) {
            Ok(_) => {}
            Err(PutError::Stopped) => {
                go_back(file);
                return Ok(Delivered::Stopped);
            }
            Err(error @ PutError::TooLarge(_)) if batch_is_refusals => {
                return Err(self.ended(error));
            }
            Err(PutError::TooLarge(why)) => {
                let Some((start, end)) = only else {
                    go_back(file);
                    return Ok(Delivered::TooLarge);
                };
                self.refused(file, start, end, &why.to_string());
                self.store(vec![file.position(mark, wall_ms)])?;
            }
            Err(error) => return Err(self.ended(error)),
        }
        file.acknowledged(mark, wall_ms);
        Ok(Delivered::Yes(u64::try_from(count).unwrap_or(u64::MAX)))
    }

    pub(super) fn event(&self, file: &Tracked, line: Line) -> PutEvent {
        let mut headers = file.headers.clone();
        if self.options.byte_offset_header {
            headers.set("byteoffset", line.start.to_string());
        }
        let event = Event {
            headers,
            body: line.body,
            put_time_ms: 0,
        };
        PutEvent {
            event,
            position: Some((0, line.end)),
        }
    }

    pub(super) fn refused(&self, file: &Tracked, start: u64, end: u64, why: &str) {
        self.context().counters.event_read_fails.increment();
        tracing::error!(source = %self.context().name, path = %file.current.display(),
            inode = file.id.inode, start, end, "line refused, it is not delivered: {why}");
    }

    pub(super) fn replaced(&mut self, file: &mut Tracked, why: Mismatch) {
        self.context().counters.processing_fails.increment();
        tracing::warn!(source = %self.context().name, path = %file.current.display(),
            inode = file.id.inode, offset = file.mark.offset,
            "the file was truncated or replaced: {why}; reading it from its beginning. Lines \
             that were written behind the offset before that are lost; rotate by renaming to \
             avoid it");
        file.start_over();
        if let Some(group) = file.group {
            file.headers = self.headers_of(file, group);
        }
    }

    pub(super) fn count_error(&self, file: &mut Tracked, error: &str) {
        self.context().counters.event_read_fails.increment();
        if file.failing.as_deref() != Some(error) {
            tracing::warn!(source = %self.context().name, path = %file.current.display(),
                "cannot read: {error}; trying again at every poll");
            file.failing = Some(error.to_owned());
        }
    }

    /// Stores positions without events.
    pub(super) fn store(&mut self, positions: Vec<Position>) -> Result<(), SourceError> {
        if positions.is_empty() {
            return Ok(());
        }
        match self.runner.put_blocking(PutBatch {
            events: Vec::new(),
            positions,
        }) {
            Ok(_) | Err(PutError::Stopped) => Ok(()),
            Err(error) => Err(self.ended(error)),
        }
    }

    /// Closes files that have not grown for the idle time; of one that was rotated away, what is
    /// left without line end is the last line.
    pub(super) fn close_idle(&mut self, now: Instant, wall_ms: u64) -> Result<u64, SourceError> {
        let idle = |file: &&Tracked| {
            let quiet = now.saturating_duration_since(file.grown) >= self.options.idle_timeout;
            file.reader.is_some() && quiet && file.seen.is_some()
        };
        let ids: Vec<FileId> = self
            .files
            .values()
            .filter(idle)
            .map(|file| file.id)
            .collect();
        let mut lines = 0;
        for id in ids {
            let Some(mut file) = self.files.remove(&id) else {
                continue;
            };
            let finished = match file.away {
                Some(_) => self.finish(&mut file, wall_ms, &mut lines),
                None => Ok(true),
            };
            if let Ok(true) = finished {
                let deleted = file.away.is_some() && file.is_unlinked();
                if file.away.take().is_some() {
                    file.missing = Some(now);
                    file.current = file.real_path().unwrap_or(file.current);
                }
                file.reader = None;
                if deleted {
                    self.files.insert(id, file);
                    self.drop_file(id);
                    continue;
                }
            }
            self.files.insert(id, file);
            finished?;
        }
        Ok(lines)
    }

    /// Delivers the unterminated rest; false if that has to wait.
    pub(super) fn finish(
        &mut self,
        file: &mut Tracked,
        wall_ms: u64,
        lines: &mut u64,
    ) -> Result<bool, SourceError> {
        let limits = self.limits(1);
        let Some(reader) = &mut file.reader else {
            return Ok(true);
        };
        // What waits is not kept between two visits: read it again.
        let read = match reader.batch(limits, &mut self.scratch) {
            Ok(read) if read.at_end && read.mark.is_none() => reader.rest(limits),
            // It has grown: the next poll reads it.
            Ok(_) => {
                file.seen = None;
                return Ok(file.rewind().is_err());
            }
            Err(_) => return Ok(true),
        };
        Ok(match self.deliver(file, read, wall_ms)? {
            Delivered::Yes(n) => {
                *lines += n;
                true
            }
            Delivered::TooLarge => true,
            Delivered::Stopped => false,
        })
    }

    /// The last deed of a run: deleted files, and files that were moved to another directory,
    /// are read to their ends, because no later run could find them.
    pub(super) fn stop(&mut self, now: Instant, wall_ms: u64) -> Result<(), SourceError> {
        for file in self.files.values() {
            let rest = file
                .seen
                .map_or(0, |seen| seen.size.saturating_sub(file.mark.offset));
            if rest > 0 && file.missing.is_none() {
                tracing::info!(source = %self.context().name, path = %file.current.display(),
                    offset = file.mark.offset, bytes = rest, "the last line has no line end yet; \
                     it is delivered when that is written");
            }
        }
        let leaving = self
            .files
            .values()
            .filter(|f| f.away.is_some() && f.is_unreachable());
        for id in leaving.map(|file| file.id).collect::<Vec<_>>() {
            let Some(mut file) = self.files.remove(&id) else {
                continue;
            };
            let mut lines = 0;
            let mut after = self.visit(&mut file, now, wall_ms, &mut lines)?;
            while matches!(after, After::More) {
                after = self.visit(&mut file, now, wall_ms, &mut lines)?;
            }
            let complete =
                matches!(after, After::AtEnd) && self.finish(&mut file, wall_ms, &mut lines)?;
            if !complete {
                tracing::error!(source = %self.context().name, path = %file.origin.display(),
                    inode = id.inode, offset = file.mark.offset, "a deleted file could not be \
                    read to its end before the stop; what is behind the offset is lost");
            }
        }
        Ok(())
    }
}

/// Lines that were read and not stored are read again. If that fails, opening the file by its
/// path shows why.
fn go_back(file: &mut Tracked) {
    if file.rewind().is_err() {
        file.reader = None;
    }
}
