//! One try to write the parts of an epoch.
//!
//! *Place in the flow*: the sink gives every event of its lease to [`Attempt::add`] and, when it
//! is time, turns the attempt into a [`SealRequest`] with [`Attempt::close`]. Before SEAL every
//! error ends the attempt: it is dropped, its directory deleted, and the events come again from
//! the channel into a new attempt. No file is closed twice, resumed or appended to.
//!
//! *Invariants*: parts are created in `<base>/_staging/<chan>/i<inc>/a<attempt>-<nonce>/parts/`
//! without making parents, so that a fenced incarnation cannot write; the names hold incarnation,
//! nonce and attempt; a target directory is probed before anything for it can be sealed; every
//! event of the range is in exactly one part, and the counts are checked before SEAL.
//!
//! *Crash*: leaves a directory that the next start-up deletes.

mod probe;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::channel::journal::{EpochPart, SealRequest};
use crate::channel::{EpochJournal, TakenBatch};
use crate::event::{Event, Seq, SeqRange};
use crate::format::text::Text;
use crate::format::{Codec, Encoder, Serializer};

use super::bucket::Unplaceable;
use super::epoch::staging_root;
use super::names::{MAX_NAME, PartKind, PartName};
use super::options::StagedOptions;
use super::startup::delete_surely;
use super::store::{FileStore, StoreError, StoreWriter};

pub(super) use probe::{Remains, left_probe, remove_probe};
use probe::{probe_mark, probe_name};

/// Bytes that are gathered before they are given to the store.
const WRITE_SIZE: usize = 256 * 1024;
/// Longest name of a part with events, without prefix, sink and suffix.
const NAME_FRAME: usize = 118;
/// Target directories remembered as good.
const KNOWN_BUCKETS: usize = 10_000;

/// Why an attempt has ended.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum AttemptError {
    /// The store.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// This incarnation's directory is gone: deleted by whoever owns the channel now, or by a
    /// person.
    #[error("the staging directory is gone: {0}")]
    StagingGone(String),
    /// A closed file has another length than was written.
    #[error("{path} has {found:?} bytes after it was closed, {written} were written")]
    Length {
        /// The file.
        path: String,
        /// What the store says.
        found: Option<u64>,
        /// What was written.
        written: u64,
    },
    /// A broken rule of our own.
    #[error("{0}")]
    Broken(String),
}

/// Target directories that have taken a file.
#[derive(Debug, Default)]
pub(super) struct KnownBuckets {
    good: BTreeSet<String>,
    /// Of paths with header values: those that the store has refused.
    refused: BTreeSet<String>,
}

impl KnownBuckets {
    fn keep(set: &mut BTreeSet<String>, dir: &str) {
        if set.len() >= KNOWN_BUCKETS {
            set.clear();
        }
        set.insert(dir.to_owned());
    }

    /// Forgets everything, after a failure that may have to do with a directory.
    pub(super) fn clear(&mut self) {
        self.good.clear();
        self.refused.clear();
    }
}

struct Part {
    kind: PartKind,
    dir: String,
    label: String,
    suffix: String,
    staged_name: String,
    open: Option<(Box<dyn StoreWriter>, Encoder)>,
    crc: crc32fast::Hasher,
    length: u64,
    count: u64,
    body_bytes: u64,
}

/// Where an event goes.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Bucket {
    dir: String,
    prefix: String,
    reject: bool,
}

/// One try.
pub(super) struct Attempt {
    store: Arc<dyn FileStore>,
    options: Arc<StagedOptions>,
    channel: String,
    /// `i<inc>-<nonce>-a<attempt>`, the front of every staged name.
    identity: String,
    dir: String,
    parts: Vec<Part>,
    open: HashMap<Bucket, usize>,
    probes: u32,
    /// Files that may be left in target directories.
    stray: Vec<(String, String)>,
    range: Option<SeqRange>,
    body_bytes: u64,
    scratch: Vec<u8>,
    /// When the first event came.
    pub(super) first_at: Instant,
    /// When the last event came.
    pub(super) last_at: Instant,
    /// A part was closed by its size or count.
    rolled: bool,
}

impl Attempt {
    /// Makes the attempt's directories.
    pub(super) async fn begin(
        store: Arc<dyn FileStore>,
        options: Arc<StagedOptions>,
        journal: &dyn EpochJournal,
        number: u64,
    ) -> Result<Self, (String, AttemptError)> {
        let (channel, incarnation) = (journal.channel_id(), journal.incarnation());
        let root = staging_root(&options.base, &channel);
        let (inc, nonce) = (incarnation.number, incarnation.nonce);
        let dir = format!("{root}/i{inc}/a{number}-{nonce:016x}");
        for path in [dir.clone(), format!("{dir}/parts")] {
            if let Err(error) = store.mkdirs(&path, false).await {
                return Err((dir, in_staging(error)));
            }
        }
        let now = Instant::now();
        Ok(Self {
            identity: format!("i{inc}-{nonce:016x}-a{number}"),
            store,
            options,
            channel,
            dir,
            parts: Vec::new(),
            open: HashMap::new(),
            probes: 0,
            stray: Vec::new(),
            range: None,
            body_bytes: 0,
            scratch: Vec::new(),
            first_at: now,
            last_at: now,
            rolled: false,
        })
    }

    /// What to delete when the attempt is given up: its directory with all in it, and files that
    /// may be left elsewhere.
    pub(super) fn remains(self) -> Remains {
        Remains {
            dir: self.dir,
            probes: self.stray,
        }
    }

    /// The events it holds.
    pub(super) fn range(&self) -> Option<SeqRange> {
        self.range
    }

    /// Writes a batch.
    pub(super) async fn add(
        &mut self,
        batch: &TakenBatch,
        known: &mut KnownBuckets,
    ) -> Result<(), AttemptError> {
        if self.range.is_none() {
            self.first_at = Instant::now();
        }
        self.last_at = Instant::now();
        for run in &batch.lost {
            self.extend(run.first, run.last);
            self.add_lost(*run, known).await?;
        }
        for taken in &batch.events {
            self.extend(taken.seq, taken.seq);
            self.add_event(&taken.event, known).await?;
        }
        Ok(())
    }

    fn extend(&mut self, first: Seq, last: Seq) {
        let range = self.range.get_or_insert(SeqRange { first, last });
        range.first = range.first.min(first);
        range.last = range.last.max(last);
    }

    async fn add_event(
        &mut self,
        event: &Event,
        known: &mut KnownBuckets,
    ) -> Result<(), AttemptError> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let placed = place(&self.options, event).map_err(|e| e.to_string());
        let formed = match self.options.serializer.append(event, &mut scratch) {
            Ok(()) => placed,
            Err(error) => Err(error.to_string()),
        };
        let mut bucket = formed.unwrap_or_else(|reason| {
            tracing::warn!(sink = %self.options.sink, %reason, "event rejected");
            self.reject_bucket()
        });
        if !self.open.contains_key(&bucket) && !self.probe(&bucket, known).await? {
            bucket = self.reject_bucket();
        }
        if bucket.reject {
            scratch.clear();
            // The text form takes every event.
            let formed = Text::default().append(event, &mut scratch);
            formed.map_err(|e| AttemptError::Broken(e.to_string()))?;
            if !self.open.contains_key(&bucket) {
                self.probe(&bucket, known).await?;
            }
        }
        let at = match self.open.get(&bucket) {
            Some(at) => *at,
            None => self.open_part(&bucket).await?,
        };
        let body = u64::try_from(event.body.len()).unwrap_or(u64::MAX);
        self.body_bytes += body;
        self.parts[at].write(&scratch, body).await?;
        self.scratch = scratch;
        let part = &self.parts[at];
        let full = self.options.roll_count.is_some_and(|n| part.count >= n)
            || self.options.roll_size.is_some_and(|n| part.body_bytes >= n);
        if full {
            self.rolled = true;
            self.open.remove(&bucket);
            self.close_part(at).await?;
        }
        Ok(())
    }

    async fn add_lost(
        &mut self,
        run: SeqRange,
        known: &mut KnownBuckets,
    ) -> Result<(), AttemptError> {
        let bucket = self.reject_bucket();
        self.probe(&bucket, known).await?;
        let at = self.create_part(&bucket, PartKind::Lost(run)).await?;
        self.parts[at].count = run.count();
        self.close_part(at).await
    }

    fn reject_bucket(&self) -> Bucket {
        let front = self.options.prefix.literal_front();
        let prefix = if front.is_empty() { "FlumeData" } else { front };
        let dir = format!("{}/_rejected", self.options.base.trim_end_matches('/'));
        Bucket {
            dir,
            prefix: prefix.to_owned(),
            reject: true,
        }
    }

    /// Proves that a file can be renamed into the bucket's directory. `false`: the store refuses,
    /// and the directory comes from header values, so the event is rejected.
    async fn probe(
        &mut self,
        bucket: &Bucket,
        known: &mut KnownBuckets,
    ) -> Result<bool, AttemptError> {
        if known.good.contains(&bucket.dir) {
            return Ok(true);
        }
        let from_headers = self.options.path.has_headers() || self.options.prefix.has_headers();
        if known.refused.contains(&bucket.dir) {
            return Ok(false);
        }
        match self.try_probe(&bucket.dir).await {
            Ok(()) => {
                KnownBuckets::keep(&mut known.good, &bucket.dir);
                Ok(true)
            }
            Err(AttemptError::Store(StoreError::Refused(reason)))
                if from_headers && !bucket.reject =>
            {
                tracing::warn!(dir = %bucket.dir, %reason, "the store refuses; events rejected");
                KnownBuckets::keep(&mut known.refused, &bucket.dir);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    async fn try_probe(&mut self, dir: &str) -> Result<(), AttemptError> {
        self.store.mkdirs(dir, true).await?;
        self.probes += 1;
        let name = probe_name(&self.identity, self.probes);
        let from = format!("{}/{name}", self.dir);
        let writer = self.store.create(&from).await.map_err(in_staging)?;
        writer.close().await?;
        // Says where to look for the probe if we do not live to remove it.
        let mark = probe_mark(self.probes, dir).map(|mark| format!("{}/{mark}", self.dir));
        if let Some(mark) = &mark {
            self.store.mkdirs(mark, false).await.map_err(in_staging)?;
        }
        let to = format!("{dir}/_{name}");
        self.stray.push((from.clone(), to.clone()));
        self.store.rename(&from, &to).await?;
        delete_surely(&*self.store, &to).await?;
        if let Some(mark) = &mark {
            delete_surely(&*self.store, mark).await?;
        }
        self.stray.pop();
        Ok(())
    }

    async fn open_part(&mut self, bucket: &Bucket) -> Result<usize, AttemptError> {
        let kind = if bucket.reject {
            PartKind::Reject
        } else {
            PartKind::Events
        };
        let at = self.create_part(bucket, kind).await?;
        self.open.insert(bucket.clone(), at);
        Ok(at)
    }

    async fn create_part(
        &mut self,
        bucket: &Bucket,
        kind: PartKind,
    ) -> Result<usize, AttemptError> {
        let staged_name = format!("{}-p{}", self.identity, self.parts.len() + 1);
        let path = format!("{}/parts/{staged_name}", self.dir);
        let writer = self.store.create(&path).await.map_err(in_staging)?;
        let codec = if kind == PartKind::Events || kind == PartKind::Reject {
            self.options.codec
        } else {
            Codec::Plain
        };
        self.parts.push(Part {
            kind,
            dir: bucket.dir.clone(),
            label: format!("{}-{}", bucket.prefix, self.options.sink_label()),
            suffix: self.options.suffix.clone(),
            staged_name,
            open: Some((writer, Encoder::new(codec))),
            crc: crc32fast::Hasher::new(),
            length: 0,
            count: 0,
            body_bytes: 0,
        });
        Ok(self.parts.len() - 1)
    }

    /// Closes a part and checks its length in the store.
    async fn close_part(&mut self, at: usize) -> Result<(), AttemptError> {
        let path = format!("{}/parts/{}", self.dir, self.parts[at].staged_name);
        let part = &mut self.parts[at];
        let Some((mut writer, encoder)) = part.open.take() else {
            return Err(AttemptError::Broken(format!("{path} is closed already")));
        };
        let rest = encoder.finish().map_err(broken_codec)?;
        if !rest.is_empty() {
            part.count_bytes(&rest);
            writer.write(Bytes::from(rest)).await?;
        }
        writer.close().await?;
        let written = part.length;
        let found = self.store.stat(&path).await?.map(|info| info.length);
        if found != Some(written) {
            return Err(AttemptError::Length {
                path,
                found,
                written,
            });
        }
        Ok(())
    }

    /// Whether the epoch should be sealed for a reason of its own (size, parts, nothing open).
    pub(super) fn is_full(&self) -> bool {
        let options = &self.options;
        (self.rolled && self.open.is_empty())
            || self.open.len() >= options.max_open_files
            || self.parts.len() >= options.max_parts
            || self.body_bytes >= options.max_epoch_bytes
    }

    /// Closes every part; what SEAL needs.
    pub(super) async fn close(&mut self) -> Result<SealRequest, AttemptError> {
        let mut open: Vec<usize> = self.open.drain().map(|(_, at)| at).collect();
        open.sort_unstable();
        for at in open {
            self.close_part(at).await?;
        }
        let Some(range) = self.range else {
            return Err(AttemptError::Broken("an epoch without events".into()));
        };
        let counted: u64 = self.parts.iter().map(|p| p.count).sum();
        if counted != range.count() {
            let (sink, first, last) = (&self.options.sink, range.first, range.last);
            return Err(AttemptError::Broken(format!(
                "sink {sink}: {counted} events in the parts of {first} to {last}"
            )));
        }
        let incarnation = self.dir.rsplit_once('/').map_or("/", |(front, _)| front);
        let parts_dir = format!("{}/parts", self.dir);
        self.store
            .sync_dirs(&[&parts_dir, &self.dir, incarnation])
            .await?;
        let parts = (1..)
            .zip(&self.parts)
            .map(|(k, part)| self.sealed_part(k, part, range));
        Ok(SealRequest {
            last: range.last,
            sink: self.options.sink.clone(),
            store: self.store.uri().to_owned(),
            base: self.options.base.clone(),
            attempt: self.dir.clone(),
            parts: parts.collect(),
        })
    }

    fn sealed_part(&self, k: u32, part: &Part, range: SeqRange) -> EpochPart {
        let name = PartName {
            label: part.label.clone(),
            channel: self.channel.clone(),
            epoch: 0,
            part: k,
            parts: u32::try_from(self.parts.len()).unwrap_or(u32::MAX),
            range,
            count: part.count,
            kind: part.kind,
            suffix: part.suffix.clone(),
        };
        let dir = part.dir.trim_end_matches('/');
        EpochPart {
            staged_name: part.staged_name.clone(),
            final_path: format!("{dir}/{}", name.render_unsealed()),
            count: part.count,
            length: part.length,
            crc32: part.crc.clone().finalize(),
        }
    }

    /// How many files it has made.
    pub(super) fn files(&self) -> usize {
        self.parts.len()
    }
}

impl Part {
    async fn write(&mut self, bytes: &[u8], body: u64) -> Result<(), AttemptError> {
        self.count += 1;
        self.body_bytes += body;
        let Some((writer, encoder)) = &mut self.open else {
            return Err(AttemptError::Broken(format!(
                "{} is closed",
                self.staged_name
            )));
        };
        encoder.push(bytes).map_err(broken_codec)?;
        if encoder.pending() < WRITE_SIZE {
            return Ok(());
        }
        let bytes = encoder.take();
        self.crc.update(&bytes);
        self.length += u64::try_from(bytes.len()).unwrap_or(0);
        Ok(writer.write(Bytes::from(bytes)).await?)
    }

    fn count_bytes(&mut self, bytes: &[u8]) {
        self.crc.update(bytes);
        self.length += u64::try_from(bytes.len()).unwrap_or(0);
    }
}

/// Directory and name front of an event.
fn place(options: &StagedOptions, event: &Event) -> Result<Bucket, Unplaceable> {
    let mut dir = options.path.render_path(event, &options.time)?;
    let mut prefix = options.prefix.render(event, &options.time)?;
    if let Some((front, name)) = prefix.rsplit_once('/') {
        dir = format!("{}/{}", dir.trim_end_matches('/'), front.trim_matches('/'));
        prefix = name.to_owned();
    }
    let shown = dir.strip_prefix(&options.path.base()).unwrap_or("");
    if shown.split('/').any(is_hidden) {
        let kept = dir.len() - shown.len();
        let visible: Vec<String> = shown.split('/').map(unhide).collect();
        dir = format!("{}{}", &dir[..kept], visible.join("/"));
    }
    if is_hidden(&prefix) {
        prefix = unhide(&prefix);
    }
    let length = prefix.len() + options.sink_label().len() + options.suffix.len() + NAME_FRAME;
    if length > MAX_NAME {
        return Err(Unplaceable::TooLong(length));
    }
    Ok(Bucket {
        dir,
        prefix,
        reject: false,
    })
}

fn is_hidden(component: &str) -> bool {
    component.starts_with(['_', '.'])
}

/// A component that readers see: what an empty header value has left at the front is encoded.
fn unhide(component: &str) -> String {
    match component.chars().next() {
        Some('_') => format!("%5F{}", &component[1..]),
        Some('.') => format!("%2E{}", &component[1..]),
        _ => component.to_owned(),
    }
}

fn in_staging(error: StoreError) -> AttemptError {
    match error {
        StoreError::ParentNotFound(path) | StoreError::NotFound(path) => {
            AttemptError::StagingGone(path)
        }
        other => AttemptError::Store(other),
    }
}

fn broken_codec(error: std::io::Error) -> AttemptError {
    AttemptError::Broken(format!("compression has failed: {error}"))
}
