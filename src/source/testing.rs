//! A channel for the tests of the sources: it keeps events and positions in memory, can refuse,
//! fail, and be "crashed" in between, which the real channels do only at moments of their own.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Notify, Semaphore};

use super::{Shutdown, SourceContext, Trigger};
use crate::agent::counters::SourceCounters;
use crate::channel::{
    Channel, ChannelError, ChannelStatus, EpochJournal, EpochRecord, LeaseId, Position, PutBatch,
    SealRequest, TakeMode, TakenBatch,
};
use crate::event::{Event, Seq, SeqRange};

#[derive(Debug, Default)]
struct Stored {
    batches: Vec<PutBatch>,
    positions: BTreeMap<String, Bytes>,
    poisoned: Option<String>,
    /// Fails one put, after so many.
    poison_in: Option<u64>,
}

/// See the head of the module.
#[derive(Debug)]
pub(crate) struct Fake {
    stored: Mutex<Stored>,
    /// How many puts to refuse as full before the next is stored.
    pub(crate) refuse: AtomicU64,
    /// Told at each refusal.
    pub(crate) refused: Notify,
    /// Puts wait for a permit: a closed gate has none.
    pub(crate) gate: Semaphore,
    /// Puts that have come to the gate.
    pub(crate) arrived: AtomicUsize,
    /// Most events in a transaction.
    pub(crate) events_max: AtomicUsize,
    /// Most body bytes in a transaction.
    pub(crate) bytes_max: AtomicUsize,
}

impl Fake {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            stored: Mutex::default(),
            refuse: AtomicU64::new(0),
            refused: Notify::new(),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            arrived: AtomicUsize::new(0),
            events_max: AtomicUsize::new(1000),
            bytes_max: AtomicUsize::new(usize::MAX),
        })
    }

    pub(crate) fn poison(&self, reason: &str) {
        self.stored.lock().unwrap().poisoned = Some(reason.to_owned());
    }

    /// Fails one put, after `puts` more have been stored.
    pub(crate) fn poison_once(&self, puts: u64) {
        self.stored.lock().unwrap().poison_in = Some(puts);
    }

    pub(crate) fn poison_never(&self) {
        self.stored.lock().unwrap().poison_in = None;
    }

    /// Takes away all permits: puts wait until [`Fake::open_gate`].
    pub(crate) fn close_gate(&self) {
        self.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub(crate) fn open_gate(&self) {
        self.gate
            .add_permits(Semaphore::MAX_PERMITS - self.gate.available_permits());
    }

    pub(crate) fn batches(&self) -> Vec<PutBatch> {
        self.stored.lock().unwrap().batches.clone()
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.batches()
            .into_iter()
            .flat_map(|b| b.events)
            .map(|e| e.event)
            .collect()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.events()
            .iter()
            .map(|e| String::from_utf8_lossy(&e.body).into_owned())
            .collect()
    }

    pub(crate) fn store_position(&self, key: &str, value: Bytes) {
        self.stored
            .lock()
            .unwrap()
            .positions
            .insert(key.to_owned(), value);
    }

    fn store(&self, batch: PutBatch) -> Result<Option<SeqRange>, ChannelError> {
        let channel = "fake".to_owned();
        let mut stored = self.stored.lock().unwrap();
        if let Some(reason) = stored.poisoned.clone() {
            return Err(ChannelError::Poisoned { channel, reason });
        }
        match stored.poison_in {
            Some(0) => {
                stored.poison_in = None;
                let reason = "a test says so".to_owned();
                return Err(ChannelError::Poisoned { channel, reason });
            }
            Some(puts) => stored.poison_in = Some(puts - 1),
            None => {}
        }
        let bytes: usize = batch.events.iter().map(|e| e.event.body.len()).sum();
        if bytes > self.bytes_max.load(Ordering::SeqCst) {
            let (size, limit, unit) = (bytes as u64, 0, "bytes");
            return Err(ChannelError::TooLarge {
                channel,
                size,
                limit,
                unit,
            });
        }
        assert!(
            batch.events.len() <= self.events_max.load(Ordering::SeqCst),
            "batch too large"
        );
        if self.refuse.load(Ordering::SeqCst) > 0 {
            self.refuse.fetch_sub(1, Ordering::SeqCst);
            self.refused.notify_one();
            return Err(ChannelError::Full {
                channel,
                reason: "a test says so".to_owned(),
            });
        }
        for position in &batch.positions {
            match position.value.is_empty() {
                true => stored.positions.remove(&position.key),
                false => stored
                    .positions
                    .insert(position.key.clone(), position.value.clone()),
            };
        }
        let first = stored
            .batches
            .iter()
            .map(|b| b.events.len() as u64)
            .sum::<u64>();
        let last = (first + batch.events.len() as u64).checked_sub(1);
        stored.batches.push(batch);
        Ok(last.and_then(|last| SeqRange::new(Seq(first), Seq(last))))
    }
}

/// What one run of the source `name` works with, on the fake channel.
pub(crate) fn context(channel: &Arc<Fake>, name: &str) -> (Trigger, SourceContext) {
    let (trigger, shutdown) = Shutdown::new();
    let channel = Arc::clone(channel) as Arc<dyn Channel>;
    let counters = Arc::new(SourceCounters::default());
    (
        trigger,
        SourceContext {
            name: name.to_owned(),
            channel,
            counters,
            shutdown,
        },
    )
}

#[async_trait]
impl Channel for Fake {
    fn name(&self) -> &str {
        "fake"
    }

    fn transaction_capacity(&self) -> usize {
        self.events_max.load(Ordering::SeqCst)
    }

    async fn commit_put(&self, batch: PutBatch) -> Result<Option<SeqRange>, ChannelError> {
        self.arrived.fetch_add(1, Ordering::SeqCst);
        self.gate.acquire().await.unwrap().forget();
        self.store(batch)
    }

    fn commit_put_blocking(&self, batch: PutBatch) -> Result<Option<SeqRange>, ChannelError> {
        self.store(batch)
    }

    fn open_lease(&self, _mode: TakeMode) -> Result<LeaseId, ChannelError> {
        unreachable!("sources take nothing")
    }

    fn lease_take(
        &self,
        _lease: LeaseId,
        _max_events: usize,
        _max_bytes: usize,
    ) -> Result<TakenBatch, ChannelError> {
        unreachable!("sources take nothing")
    }

    fn lease_exhausted(&self, _lease: LeaseId) -> bool {
        unreachable!("sources take nothing")
    }

    async fn wait_ready(&self, _timeout: Duration) {}

    fn must_seal(&self, _lease: LeaseId) -> bool {
        false
    }

    async fn lease_ack(&self, _lease: LeaseId, _through: Seq) -> Result<(), ChannelError> {
        unreachable!("sources take nothing")
    }

    fn release_lease(&self, _lease: LeaseId) {}

    async fn seal(
        &self,
        _lease: LeaseId,
        _request: SealRequest,
    ) -> Result<EpochRecord, ChannelError> {
        unreachable!("sources take nothing")
    }

    fn journal(&self) -> Arc<dyn EpochJournal> {
        unreachable!("sources have no epochs")
    }

    fn positions(&self, prefix: &str) -> Vec<Position> {
        let stored = self.stored.lock().unwrap();
        let kept = stored
            .positions
            .iter()
            .filter(|(key, _)| key.starts_with(prefix));
        kept.map(|(key, value)| Position {
            key: key.clone(),
            value: value.clone(),
        })
        .collect()
    }

    fn status(&self) -> ChannelStatus {
        ChannelStatus::default()
    }

    fn close(&self) -> Result<(), ChannelError> {
        Ok(())
    }
}
