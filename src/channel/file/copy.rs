//! Copies the events of a log that was read into a new log, for `forebay wal adopt` and
//! `forebay wal salvage`.
//!
//! *Invariants*: events are copied in order, once, with the time of their put and the read
//! positions that stood in their frame; nothing that is to be skipped is copied; whatever is
//! neither copied nor skipped is named. The old log is only read.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use wal_format::{
    BodyError, FrameHeader, FrameKind, Lsn, PutBody, Record, SEGMENT_HEADER_BYTES, Scanner, Step,
};

use super::layout::Listing;
use super::range_set::RangeSet;
use super::reader::Salvage;
use super::recovery::{Recovered, put_op};
use super::segment::{Segment, open_cold, read_header};
use super::state::{LogState, Op};
use super::{FileChannel, FileChannelOptions, OpenError, SyncMode};
use crate::channel::{Channel, ChannelError, Position, PutBatch, PutEvent};
use crate::env::clock::Clock;
use crate::env::disk::{Disk, WriteBackend};
use crate::event::{Event, Headers};

/// Why a copy ended early.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A body whose sums are right is not readable.
    #[error(
        "segment {segment}: a put frame is not readable ({reason}); written by a newer Forebay?"
    )]
    Unreadable {
        /// Its segment.
        segment: u32,
        /// Why.
        reason: String,
    },
    /// A segment cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The new log could not be written.
    #[error("the new log: {0}")]
    Write(#[from] ChannelError),
}

/// A run of events that were copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// First sequence number in the old log.
    pub first: u64,
    /// Last sequence number in the old log.
    pub last: u64,
    /// The number of the first one in the new log; the others follow.
    pub new_first: u64,
}

impl Run {
    /// How many events.
    pub fn count(&self) -> u64 {
        self.last - self.first + 1
    }
}

/// The outcome of a copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Copied {
    pub(super) runs: Vec<Run>,
    /// Runs that were neither copied nor to be skipped: first and last number in the old log.
    pub(super) missing: Vec<(u64, u64)>,
}

/// The clock of the new log: events keep the time at which they were put.
#[derive(Debug)]
struct PutTime {
    ms: AtomicU64,
    clock: Arc<dyn Clock>,
}

impl Clock for PutTime {
    fn wall_ms(&self) -> u64 {
        match self.ms.load(Ordering::Acquire) {
            0 => self.clock.wall_ms(),
            ms => ms,
        }
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }
}

/// A log that is being filled; nobody believes it before [`NewLog::finish`] has returned.
pub(super) struct NewLog {
    channel: Arc<FileChannel>,
    put_time: Arc<PutTime>,
}

impl NewLog {
    /// An empty log under a fresh id; waits `patience` at most for room on the disk.
    pub(super) fn create(
        patience: Duration,
        disk: &Arc<dyn Disk>,
        clock: &Arc<dyn Clock>,
        dirs: &[PathBuf],
        segment_bytes: u64,
    ) -> Result<Self, OpenError> {
        let put_time = Arc::new(PutTime {
            ms: AtomicU64::new(0),
            clock: Arc::clone(clock),
        });
        let options = FileChannelOptions {
            data_dirs: dirs.to_vec(),
            capacity: u64::MAX >> 1,
            transaction_capacity: usize::MAX,
            keep_alive: patience,
            max_file_size: segment_bytes,
            minimum_required_space: 0,
            // It is closed before anybody believes it, which syncs it.
            sync: SyncMode::Os,
            ..FileChannelOptions::default()
        };
        let clock = Arc::clone(&put_time) as _;
        let channel = FileChannel::open("copy", options, Arc::clone(disk), clock)?;
        Ok(Self { channel, put_time })
    }

    fn put(&self, batch: PutBatch, put_time_ms: u64) -> Result<u64, ChannelError> {
        self.put_time.ms.store(put_time_ms, Ordering::Release);
        let given = self.channel.commit_put_blocking(batch)?;
        Ok(given.map_or(0, |range| range.first.0))
    }

    /// Writes the read positions and closes the log: durable on `Ok`.
    pub(super) fn finish<'a>(
        self,
        positions: impl IntoIterator<Item = (&'a Vec<u8>, &'a Vec<u8>)>,
    ) -> Result<(), ChannelError> {
        let batch = PutBatch {
            events: Vec::new(),
            positions: positions.into_iter().map(position).collect(),
        };
        self.put(batch, 0)?;
        self.channel.close()
    }
}

fn position((key, value): (&Vec<u8>, &Vec<u8>)) -> Position {
    Position {
        key: String::from_utf8_lossy(key).into_owned(),
        value: value.clone().into(),
    }
}

/// Bytes of the old log's segments; one whose tail was cut off says so in its header.
pub(super) fn segment_size(disk: &dyn Disk, listing: &Listing) -> u64 {
    let found = listing.segments.iter().chain(&listing.spares);
    let newest = listing.segments.last().and_then(|found| {
        let file = disk.open(&found.path, false, WriteBackend::Pwrite).ok()?;
        Some(u64::from(read_header(file.as_ref()).ok()?.size))
    });
    found.map(|f| f.len).chain(newest).max().unwrap_or(0)
}

/// The state with the unproven tail, which the copy makes durable.
pub(super) fn whole_state(recovered: &Recovered) -> LogState {
    let mut state = recovered.state.clone();
    for suspect in &recovered.suspects {
        // A put that cannot be decoded has its numbers; whoever copies it says what is wrong.
        let op = match suspect.header.kind {
            FrameKind::Put => Some(put_op(suspect).unwrap_or_else(|_| Op::Put {
                first: suspect.header.sequence,
                count: suspect.header.count.into(),
                positions: Vec::new(),
            })),
            kind => Record::decode(kind, &suspect.body).ok().map(Op::Record),
        };
        if let Some(op) = op {
            state.apply(op);
        }
    }
    state
}

/// Copies events in order, from frame to frame.
pub(super) struct Copying<'a> {
    disk: &'a dyn Disk,
    new: &'a NewLog,
    skip: &'a RangeSet,
    want: u64,
    copied: Copied,
    lenient: Option<&'a mut dyn FnMut(u64)>,
}

impl<'a> Copying<'a> {
    /// Copies from sequence number `from` on what is not in `skip`.
    pub(super) fn new(disk: &'a dyn Disk, new: &'a NewLog, skip: &'a RangeSet, from: u64) -> Self {
        Self {
            disk,
            new,
            skip,
            want: from,
            copied: Copied::default(),
            lenient: None,
        }
    }

    /// A segment that cannot be opened and a frame that cannot be decoded count as missing instead
    /// of as an error; `progress` is told the bytes of each segment that has been read.
    pub(super) fn leniently(self, progress: &'a mut dyn FnMut(u64)) -> Self {
        Self {
            lenient: Some(progress),
            ..self
        }
    }

    /// Everything below `end`.
    pub(super) fn all(&mut self, recovered: &Recovered, end: u64) -> Result<(), CopyError> {
        for (index, segment) in recovered.segments.iter().enumerate() {
            let behind = recovered.segments.get(index + 1);
            if behind.is_none_or(|next| next.first_sequence > self.want) {
                self.segment(segment)?;
            }
            if let Some(progress) = &mut self.lenient {
                progress(segment.len);
            }
        }
        for suspect in &recovered.suspects {
            if suspect.header.kind == FrameKind::Put {
                self.frame(&suspect.header, &suspect.body, recovered.proven.segment())?;
            }
        }
        self.missing_up_to(end);
        Ok(())
    }

    pub(super) fn done(self) -> Copied {
        self.copied
    }

    fn segment(&mut self, segment: &Segment) -> Result<(), CopyError> {
        let file = match open_cold(self.disk, segment) {
            Ok(file) => file,
            Err(error) if self.lenient.is_some() => {
                tracing::warn!(path = %segment.path.display(), "passed over: {error}");
                return Ok(());
            }
            Err(error) => return Err(OpenError::io("open", &segment.path, error).into()),
        };
        let mut scanner = Scanner::new(
            Salvage(file.as_ref()),
            segment.number,
            segment.salt,
            SEGMENT_HEADER_BYTES,
            segment.end,
            Lsn::new(segment.number, segment.end),
        );
        loop {
            let Ok(step) = scanner.step();
            match step {
                Step::Frame { header, body, .. } if header.kind == FrameKind::Put => {
                    self.frame(&header, body, segment.number)?;
                }
                Step::Frame { .. }
                | Step::Corrupt {
                    resume: Some(_), ..
                } => {}
                Step::Corrupt { .. } | Step::End { .. } | Step::Torn { .. } => return Ok(()),
            }
        }
    }

    fn frame(&mut self, header: &FrameHeader, body: &[u8], segment: u32) -> Result<(), CopyError> {
        let end = header.sequence.saturating_add(header.count.into());
        if end <= self.want {
            return Ok(());
        }
        let (sequences, batch) = match self.decoded(header, body) {
            Ok(decoded) => decoded,
            Err(error) if self.lenient.is_some() => {
                tracing::warn!(segment, sequence = header.sequence, "passed over: {error}");
                return Ok(());
            }
            Err(error) => {
                return Err(CopyError::Unreadable {
                    segment,
                    reason: error.to_string(),
                });
            }
        };
        self.missing_up_to(header.sequence);
        self.want = end;
        if !batch.events.is_empty() {
            let new_first = self.new.put(batch, header.put_time_ms)?;
            for (sequence, new) in sequences.into_iter().zip(new_first..) {
                self.copied.note(sequence, new);
            }
        }
        Ok(())
    }

    /// What is to be copied of a frame, and the numbers that it has.
    fn decoded(
        &self,
        header: &FrameHeader,
        body: &[u8],
    ) -> Result<(Vec<u64>, PutBatch), BodyError> {
        let put = PutBody::parse(body, header.count)?;
        let mut batch = PutBatch::default();
        for found in put.positions() {
            let (key, value) = found?;
            let found = position((&key.to_vec(), &value.to_vec()));
            batch.positions.push(found);
        }
        let mut sequences = Vec::new();
        for (sequence, event) in (header.sequence..).zip(put.events()) {
            let event = event?;
            if sequence < self.want || self.skip.covers(sequence, sequence) {
                continue;
            }
            let mut headers = Headers::new();
            for (name, value) in event.headers() {
                headers.set(name, value);
            }
            sequences.push(sequence);
            batch.events.push(PutEvent {
                event: Event {
                    headers,
                    body: event.body.to_vec().into(),
                    put_time_ms: header.put_time_ms,
                },
                position: event.position,
            });
        }
        Ok((sequences, batch))
    }

    /// Names what is neither there nor to be skipped.
    fn missing_up_to(&mut self, end: u64) {
        while self.want < end {
            let mut skip = self.skip.iter();
            let next = skip.find(|(_, last)| *last >= self.want);
            match next {
                Some((first, last)) if first <= self.want => self.want = last + 1,
                next => {
                    let until = next.map_or(end, |(first, _)| first.min(end));
                    self.copied.missing.push((self.want, until - 1));
                    self.want = until;
                }
            }
        }
    }
}

impl Copied {
    fn note(&mut self, sequence: u64, new: u64) {
        match self.runs.last_mut() {
            Some(run) if run.last + 1 == sequence && run.new_first + run.count() == new => {
                run.last = sequence;
            }
            _ => self.runs.push(Run {
                first: sequence,
                last: sequence,
                new_first: new,
            }),
        }
    }
}
