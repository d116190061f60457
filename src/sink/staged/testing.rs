//! What the publisher's tests share: a log that survives crashes, a channel on it, a store that
//! stops the process at a chosen call.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;

use super::store::{FileInfo, FileStore, StoreError, StoreWriter};
use crate::channel::journal::{EPOCH_TOKEN, Incarnation, Opening, Refusal};
use crate::channel::{
    Channel, ChannelError, ChannelStatus, EpochJournal, EpochRecord, LeaseId, Position, PutBatch,
    SealRequest, TakeMode, TakenBatch, TakenEvent,
};
use crate::event::{Event, Seq, SeqRange};

/// The durable state of a channel. A copy is a clone or a backup.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    pub(crate) events: Vec<Event>,
    pub(crate) lost: BTreeSet<u64>,
    pub(crate) acknowledged: BTreeSet<u64>,
    pub(crate) epochs: BTreeMap<u64, EpochRecord>,
    pub(crate) next_epoch: u64,
    pub(crate) incarnations: Vec<Incarnation>,
    pub(crate) openings: Vec<Opening>,
    pub(crate) refusal: Option<Refusal>,
    pub(crate) fenced: u32,
    pub(crate) damaged: bool,
}

#[derive(Debug, Default)]
struct Leases {
    waiting: BTreeSet<u64>,
    held: BTreeMap<LeaseId, BTreeSet<u64>>,
    next: u64,
}

/// One open channel on a log.
#[derive(Debug)]
pub(crate) struct TestChannel {
    log: Arc<Mutex<Log>>,
    incarnation: Incarnation,
    leases: Mutex<Leases>,
    ring: Notify,
    crash: Arc<Crash>,
    /// Most events of one lease.
    pub(crate) block: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TestChannel {
    pub(crate) fn open(log: &Arc<Mutex<Log>>, nonce: u64, crash: Arc<Crash>) -> Arc<Self> {
        let mut state = lock(log);
        let number = u32::try_from(state.incarnations.len()).unwrap() + 1;
        let incarnation = Incarnation { number, nonce };
        state.incarnations.push(incarnation);
        let next = Seq(u64::try_from(state.events.len()).unwrap());
        state.openings.push(Opening { incarnation, next });
        let sealed: BTreeSet<u64> = state
            .epochs
            .values()
            .flat_map(|e| e.range.first.0..=e.range.last.0)
            .collect();
        let all = 0..u64::try_from(state.events.len()).unwrap();
        let waiting = all.filter(|s| !state.acknowledged.contains(s) && !sealed.contains(s));
        let leases = Leases {
            waiting: waiting.collect(),
            ..Leases::default()
        };
        drop(state);
        Arc::new(Self {
            log: Arc::clone(log),
            incarnation,
            leases: Mutex::new(leases),
            ring: Notify::new(),
            crash,
            block: usize::MAX,
        })
    }

    fn refused(&self, reason: &str) -> ChannelError {
        ChannelError::Refused {
            channel: "test".into(),
            reason: reason.into(),
        }
    }
}

#[async_trait]
impl Channel for Arc<TestChannel> {
    fn name(&self) -> &str {
        "test"
    }
    fn transaction_capacity(&self) -> usize {
        1000
    }
    async fn commit_put(&self, batch: PutBatch) -> Result<Option<SeqRange>, ChannelError> {
        self.commit_put_blocking(batch)
    }
    fn commit_put_blocking(&self, batch: PutBatch) -> Result<Option<SeqRange>, ChannelError> {
        let mut log = lock(&self.log);
        let first = u64::try_from(log.events.len()).unwrap();
        log.events.extend(batch.events.into_iter().map(|e| e.event));
        let next = u64::try_from(log.events.len()).unwrap();
        lock(&self.leases).waiting.extend(first..next);
        self.ring.notify_waiters();
        Ok(next
            .checked_sub(1)
            .and_then(|last| SeqRange::new(Seq(first), Seq(last))))
    }
    fn open_lease(&self, _mode: TakeMode) -> Result<LeaseId, ChannelError> {
        let mut leases = lock(&self.leases);
        leases.next += 1;
        let id = LeaseId(leases.next);
        leases.held.insert(id, BTreeSet::new());
        Ok(id)
    }
    fn lease_take(
        &self,
        lease: LeaseId,
        max_events: usize,
        _max_bytes: usize,
    ) -> Result<TakenBatch, ChannelError> {
        let log = lock(&self.log);
        let mut leases = lock(&self.leases);
        let mut batch = TakenBatch::default();
        for _ in 0..max_events {
            let held = leases.held[&lease].clone();
            let Some(seq) = leases.waiting.first().copied() else {
                break;
            };
            if held.last().is_some_and(|last| last + 1 != seq) || held.len() >= self.block {
                break;
            }
            leases.waiting.remove(&seq);
            leases.held.get_mut(&lease).unwrap().insert(seq);
            if log.lost.contains(&seq) {
                batch.lost.push(SeqRange {
                    first: Seq(seq),
                    last: Seq(seq),
                });
                continue;
            }
            let event = log.events[usize::try_from(seq).unwrap()].clone();
            batch.events.push(TakenEvent {
                seq: Seq(seq),
                event,
            });
        }
        Ok(batch)
    }
    fn lease_exhausted(&self, lease: LeaseId) -> bool {
        let leases = lock(&self.leases);
        let held = &leases.held[&lease];
        let next = leases.waiting.first();
        held.len() >= self.block
            || matches!((held.last(), next), (Some(last), Some(next)) if last + 1 != *next)
    }
    async fn wait_ready(&self, timeout: Duration) {
        let short = timeout.min(Duration::from_millis(5));
        let _rung = tokio::time::timeout(short, self.ring.notified()).await;
    }
    fn must_seal(&self, _lease: LeaseId) -> bool {
        false
    }
    async fn lease_ack(&self, _lease: LeaseId, _through: Seq) -> Result<(), ChannelError> {
        Err(self.refused("only staged sinks here"))
    }
    fn release_lease(&self, lease: LeaseId) {
        let mut leases = lock(&self.leases);
        let held = leases.held.remove(&lease).unwrap_or_default();
        leases.waiting.extend(held);
    }
    async fn seal(
        &self,
        lease: LeaseId,
        request: SealRequest,
    ) -> Result<EpochRecord, ChannelError> {
        self.crash.point("before SEAL").await;
        let record = {
            let mut log = lock(&self.log);
            let mut leases = lock(&self.leases);
            let held = leases
                .held
                .get_mut(&lease)
                .ok_or_else(|| self.refused("no lease"))?;
            let first = Seq(*held.first().ok_or_else(|| self.refused("nothing held"))?);
            held.retain(|seq| *seq > request.last.0);
            let epoch = log.next_epoch;
            log.next_epoch += 1;
            let mut parts = request.parts;
            for part in &mut parts {
                part.final_path = part
                    .final_path
                    .replace(EPOCH_TOKEN, &format!("{epoch:016}"));
            }
            let record = EpochRecord {
                epoch,
                range: SeqRange {
                    first,
                    last: request.last,
                },
                sink: request.sink,
                store: request.store,
                base: request.base,
                attempt: request.attempt,
                parts,
                claimed: false,
            };
            log.epochs.insert(epoch, record.clone());
            record
        };
        self.crash.point("after SEAL").await;
        Ok(record)
    }
    fn journal(&self) -> Arc<dyn EpochJournal> {
        Arc::new(Self::clone(self))
    }
    fn positions(&self, _prefix: &str) -> Vec<Position> {
        Vec::new()
    }
    fn status(&self) -> ChannelStatus {
        let (log, leases) = (lock(&self.log), lock(&self.leases));
        let count = |n: usize| u64::try_from(n).unwrap();
        ChannelStatus {
            waiting: count(leases.waiting.len()),
            leased: count(leases.held.values().map(BTreeSet::len).sum()),
            sealed_unpublished: log.epochs.values().map(|e| e.range.count()).sum(),
            ..ChannelStatus::default()
        }
    }
    fn close(&self) -> Result<(), ChannelError> {
        Ok(())
    }
}

#[async_trait]
impl EpochJournal for Arc<TestChannel> {
    fn channel_id(&self) -> String {
        "0123456789ab".into()
    }
    fn incarnation(&self) -> Incarnation {
        self.incarnation
    }
    fn knows(&self, incarnation: Incarnation) -> bool {
        lock(&self.log).incarnations.contains(&incarnation)
    }
    fn unfenced(&self) -> Vec<u32> {
        (lock(&self.log).fenced + 1..self.incarnation.number).collect()
    }
    async fn fenced(&self, through: u32) -> Result<(), ChannelError> {
        self.crash.point("before FENCE").await;
        lock(&self.log).fenced = through;
        Ok(())
    }
    fn next_sequence(&self) -> Seq {
        Seq(u64::try_from(lock(&self.log).events.len()).unwrap())
    }
    fn next_epoch(&self) -> u64 {
        lock(&self.log).next_epoch
    }
    fn open_epochs(&self) -> Vec<EpochRecord> {
        lock(&self.log).epochs.values().cloned().collect()
    }
    async fn claimed(&self, epoch: u64) -> Result<(), ChannelError> {
        self.crash.point("before CLAIMED").await;
        if let Some(record) = lock(&self.log).epochs.get_mut(&epoch) {
            record.claimed = true;
        }
        self.crash.point("after CLAIMED").await;
        Ok(())
    }
    async fn done(&self, epoch: u64) -> Result<(), ChannelError> {
        self.crash.point("before DONE").await;
        {
            let mut log = lock(&self.log);
            let record = log
                .epochs
                .remove(&epoch)
                .ok_or_else(|| self.refused("not open"))?;
            log.acknowledged
                .extend(record.range.first.0..=record.range.last.0);
        }
        self.crash.point("after DONE").await;
        Ok(())
    }
    async fn abandon(&self, epoch: u64) -> Result<(), ChannelError> {
        lock(&self.log).epochs.remove(&epoch);
        Ok(())
    }
    fn control_may_be_lost(&self) -> bool {
        lock(&self.log).damaged
    }
    fn directory_changed(&self) -> bool {
        false
    }
    fn openings(&self) -> Vec<Opening> {
        let log = lock(&self.log);
        let openings = log.openings.iter().copied();
        openings
            .filter(|o| o.incarnation.number > log.fenced)
            .collect()
    }
    async fn refuse(&self, refusal: Refusal) -> Result<(), ChannelError> {
        lock(&self.log).refusal = Some(refusal);
        Ok(())
    }
    fn is_durable(&self) -> bool {
        true
    }
}

/// Stops a process at a chosen point: from there on no call returns.
#[derive(Debug, Default)]
pub(crate) struct Crash {
    wanted: Wanted,
    state: Mutex<Passed>,
    crashed: Notify,
}

#[derive(Debug, Default)]
enum Wanted {
    #[default]
    Nothing,
    /// The point that so many others came before.
    Count(u64),
    /// The first point with this in its name. Tasks side by side reach their points in another
    /// order on a busy machine, so a number does not say which one it is.
    Name(String),
}

#[derive(Debug, Default)]
struct Passed {
    points: u64,
    /// The point at which everything stopped.
    stopped: Option<String>,
}

impl Crash {
    pub(crate) fn never() -> Arc<Self> {
        Arc::default()
    }
    pub(crate) fn at(point: u64) -> Arc<Self> {
        Self::when(Wanted::Count(point))
    }
    pub(crate) fn named(part: &str) -> Arc<Self> {
        Self::when(Wanted::Name(part.to_owned()))
    }
    fn when(wanted: Wanted) -> Arc<Self> {
        Arc::new(Self {
            wanted,
            ..Self::default()
        })
    }
    /// Where it has stopped, once it has.
    pub(crate) async fn reached(&self) -> String {
        loop {
            let crashed = self.crashed.notified();
            if let Some(at) = lock(&self.state).stopped.clone() {
                return at;
            }
            crashed.await;
        }
    }
    pub(crate) async fn point(&self, what: &str) {
        let stop = {
            let mut state = lock(&self.state);
            let here = match &self.wanted {
                Wanted::Nothing => false,
                Wanted::Count(count) => state.points == *count,
                Wanted::Name(part) => what.contains(part),
            };
            state.points += 1;
            if here && state.stopped.is_none() {
                state.stopped = Some(what.to_owned());
            }
            state.stopped.is_some()
        };
        if stop {
            self.crashed.notify_waiters();
            std::future::pending::<()>().await;
        }
    }
}

/// A store whose every call may be the last of its process, before or after it is carried out.
pub(crate) struct CrashStore<S> {
    pub(crate) inner: S,
    pub(crate) crash: Arc<Crash>,
}

struct CrashWriter {
    inner: Box<dyn StoreWriter>,
    crash: Arc<Crash>,
}

#[async_trait]
impl StoreWriter for CrashWriter {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.inner.write(bytes).await
    }
    async fn close(self: Box<Self>) -> Result<(), StoreError> {
        self.crash.point("before close").await;
        self.inner.close().await
    }
}

#[async_trait]
impl<S: FileStore> FileStore for CrashStore<S> {
    fn uri(&self) -> &str {
        self.inner.uri()
    }
    async fn mkdirs(&self, path: &str, create_parent: bool) -> Result<(), StoreError> {
        self.crash.point(&format!("before mkdirs {path}")).await;
        let answer = self.inner.mkdirs(path, create_parent).await;
        self.crash.point(&format!("after mkdirs {path}")).await;
        answer
    }
    async fn create(&self, path: &str) -> Result<Box<dyn StoreWriter>, StoreError> {
        self.crash.point(&format!("before create {path}")).await;
        let inner = self.inner.create(path).await?;
        Ok(Box::new(CrashWriter {
            inner,
            crash: Arc::clone(&self.crash),
        }))
    }
    async fn rename(&self, from: &str, to: &str) -> Result<(), StoreError> {
        self.crash
            .point(&format!("before rename {from} {to}"))
            .await;
        let answer = self.inner.rename(from, to).await;
        self.crash.point(&format!("after rename {from} {to}")).await;
        answer
    }
    async fn delete(&self, path: &str, recursive: bool) -> Result<bool, StoreError> {
        self.crash.point(&format!("before delete {path}")).await;
        let answer = self.inner.delete(path, recursive).await;
        self.crash.point(&format!("after delete {path}")).await;
        answer
    }
    async fn stat(&self, path: &str) -> Result<Option<FileInfo>, StoreError> {
        self.inner.stat(path).await
    }
    async fn list(&self, path: &str) -> Result<Vec<FileInfo>, StoreError> {
        self.inner.list(path).await
    }
    async fn read(&self, path: &str) -> Result<Bytes, StoreError> {
        self.inner.read(path).await
    }
    async fn sync_dirs(&self, paths: &[&str]) -> Result<(), StoreError> {
        self.inner.sync_dirs(paths).await
    }
}
