//! The epoch journal of the file channel: its records are control records of the log.
//!
//! *Durability*: each call returns when its record is durable. Records of epochs are written one
//! at a time, so the epoch number in a SEAL is the durable state's next one.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::OwnedMutexGuard;
use wal_format::{Epoch, Part, Range, Record};

use super::Core;
use super::layout;
use super::log::{Entry, record_bytes};
use crate::channel::journal::{EPOCH_TOKEN, Incarnation, Opening, Refusal};
use crate::channel::{ChannelError, EpochJournal, EpochPart, EpochRecord, LeaseId, SealRequest};
use crate::event::{Seq, SeqRange};
use crate::planted::{Bug, planted};

/// Journal handle of a file channel.
#[derive(Debug)]
pub(super) struct FileJournal(pub(super) Arc<Core>);

impl Core {
    pub(super) fn refused(&self, reason: String) -> ChannelError {
        ChannelError::Refused {
            channel: self.name.clone(),
            reason,
        }
    }

    /// Writes one control record; durable on `Ok`.
    pub(super) async fn write_record(
        &self,
        record: Record,
        turn: Option<OwnedMutexGuard<()>>,
    ) -> Result<(), ChannelError> {
        self.submit(Entry::record(record), 0, turn)
            .await
            .map(|_| ())
    }

    /// Records of epochs go one at a time, also when their callers do not wait for them.
    async fn turn(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.journal_turn).lock_owned().await
    }

    pub(super) async fn seal_lease(
        &self,
        lease: LeaseId,
        request: SealRequest,
    ) -> Result<EpochRecord, ChannelError> {
        let turn = self.turn().await;
        let (number, snapshot) = {
            let state = self.state();
            (
                state.next_epoch,
                Record::Snapshot(Box::new(state.to_snapshot(Vec::new()))),
            )
        };
        // INV-8: SEAL is a compare-and-set on the lease still being held.
        let range =
            self.queue()
                .seal(lease, request.last)
                .map_err(|_| ChannelError::LeaseLost {
                    channel: self.name.clone(),
                })?;
        let epoch = to_epoch(number, range, request);
        let record = Record::Seal(epoch.clone());
        let limit = self.options.segment_bytes() as usize / 8;
        let needed = record_bytes(&snapshot) + record_bytes(&record);
        if needed > limit {
            self.queue().unseal(range);
            // The events wait again, also for others.
            self.ready.raise();
            return Err(self.refused(format!(
                "too many epochs wait for their store: their records take {needed} of {limit} \
                 bytes; raise maxFileSize or lower hdfs.maxOpenFiles"
            )));
        }
        let turn = (!planted(Bug::TurnEndsEarly)).then_some(turn);
        match self.write_record(record, turn).await {
            Ok(()) => Ok(from_epoch(&epoch)),
            Err(error) => {
                self.queue().unseal(range);
                self.ready.raise();
                Err(error)
            }
        }
    }

    fn epoch(&self, number: u64) -> Result<Epoch, ChannelError> {
        let state = self.state();
        let epoch = state.epochs.get(&number).cloned();
        drop(state);
        epoch.ok_or_else(|| self.refused(format!("epoch {number} is not open")))
    }
}

#[async_trait]
impl EpochJournal for FileJournal {
    fn channel_id(&self) -> String {
        layout::hex(&self.0.channel_id).chars().take(12).collect()
    }

    fn incarnation(&self) -> Incarnation {
        self.0.incarnation
    }

    fn knows(&self, incarnation: Incarnation) -> bool {
        self.0
            .state()
            .incarnations
            .contains(&(incarnation.number, incarnation.nonce))
    }

    fn unfenced(&self) -> Vec<u32> {
        let fenced = self.0.state().fenced_through;
        (fenced + 1..self.0.incarnation.number).collect()
    }

    async fn fenced(&self, through: u32) -> Result<(), ChannelError> {
        let turn = self.0.turn().await;
        self.0
            .write_record(Record::Fence { through }, Some(turn))
            .await
    }

    fn next_sequence(&self) -> Seq {
        Seq(self.0.state().next_sequence)
    }

    fn next_epoch(&self) -> u64 {
        self.0.state().next_epoch
    }

    fn open_epochs(&self) -> Vec<EpochRecord> {
        self.0.state().epochs.values().map(from_epoch).collect()
    }

    async fn claimed(&self, epoch: u64) -> Result<(), ChannelError> {
        let turn = self.0.turn().await;
        let mut sealed = self.0.epoch(epoch)?;
        sealed.claimed = true;
        self.0
            .write_record(Record::Claimed(sealed), Some(turn))
            .await
    }

    async fn done(&self, epoch: u64) -> Result<(), ChannelError> {
        let turn = self.0.turn().await;
        self.0.epoch(epoch)?;
        self.0
            .write_record(Record::Done { epoch }, Some(turn))
            .await?;
        Ok(())
    }

    async fn abandon(&self, epoch: u64) -> Result<(), ChannelError> {
        let turn = self.0.turn().await;
        let range = seq_range(self.0.epoch(epoch)?.range);
        // First no segment of it may go any more, then it is seen whether one has gone.
        self.0.state().giving_up.insert(epoch);
        if !self.0.holds(range) && !planted(Bug::AbandonDeleted) {
            self.0.state().giving_up.remove(&epoch);
            return Err(self.0.refused(format!(
                "the segments of epoch {epoch} (events {} to {}) are deleted already",
                range.first, range.last
            )));
        }
        self.0
            .write_record(Record::Abandon { epoch }, Some(turn))
            .await?;
        Ok(())
    }

    fn control_may_be_lost(&self) -> bool {
        self.0.state().control_lost
    }

    fn directory_changed(&self) -> bool {
        self.0.ownership.must_wait()
    }

    fn openings(&self) -> Vec<Opening> {
        self.0.openings()
    }

    async fn owned(&self) -> Result<(), ChannelError> {
        let turn = self.0.turn().await;
        self.0.owned(turn).await
    }

    async fn refuse(&self, refusal: Refusal) -> Result<(), ChannelError> {
        let _turn = self.0.turn().await;
        self.0.refuse(refusal)
    }

    fn refusal(&self) -> Option<String> {
        self.0.refusal()
    }

    fn is_durable(&self) -> bool {
        true
    }
}

fn to_epoch(number: u64, range: SeqRange, request: SealRequest) -> Epoch {
    let token = format!("{number:016}");
    let parts = request.parts.into_iter().map(|p| Part {
        staged_name: p.staged_name,
        final_path: p.final_path.replace(EPOCH_TOKEN, &token),
        count: p.count,
        length: p.length,
        crc32: p.crc32,
    });
    Epoch {
        epoch: number,
        range: Range {
            first: range.first.0,
            last: range.last.0,
        },
        claimed: false,
        sink: request.sink,
        store: request.store,
        base: request.base,
        attempt: request.attempt,
        parts: parts.collect(),
    }
}

pub(super) fn from_epoch(epoch: &Epoch) -> EpochRecord {
    let parts = epoch.parts.iter().map(|p| EpochPart {
        staged_name: p.staged_name.clone(),
        final_path: p.final_path.clone(),
        count: p.count,
        length: p.length,
        crc32: p.crc32,
    });
    EpochRecord {
        epoch: epoch.epoch,
        range: seq_range(Range {
            first: epoch.range.first,
            last: epoch.range.last,
        }),
        sink: epoch.sink.clone(),
        store: epoch.store.clone(),
        base: epoch.base.clone(),
        attempt: epoch.attempt.clone(),
        parts: parts.collect(),
        claimed: epoch.claimed,
    }
}

pub(super) fn seq_range(range: Range) -> SeqRange {
    SeqRange {
        first: Seq(range.first),
        last: Seq(range.last),
    }
}
