//! The epoch journal of a memory channel: the same moves as the log's, forgotten at a crash.

use async_trait::async_trait;

use super::Shared;
use crate::channel::ChannelError;
use crate::channel::journal::{EpochJournal, EpochRecord, Incarnation};
use crate::event::Seq;

impl Shared {
    fn unknown_epoch(&self, epoch: u64) -> ChannelError {
        let reason = format!("epoch {epoch} is not open; it was never sealed, or is finished");
        ChannelError::Refused {
            channel: self.name.clone(),
            reason,
        }
    }
}

#[async_trait]
impl EpochJournal for Shared {
    fn channel_id(&self) -> String {
        self.id.clone()
    }

    fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    fn knows(&self, incarnation: Incarnation) -> bool {
        incarnation == self.incarnation
    }

    fn unfenced(&self) -> Vec<u32> {
        Vec::new()
    }

    async fn fenced(&self, _through: u32) -> Result<(), ChannelError> {
        Ok(())
    }

    fn next_sequence(&self) -> Seq {
        self.lock().queue.durable_end()
    }

    fn next_epoch(&self) -> u64 {
        self.lock().next_epoch
    }

    fn open_epochs(&self) -> Vec<EpochRecord> {
        self.lock().epochs.values().cloned().collect()
    }

    async fn claimed(&self, epoch: u64) -> Result<(), ChannelError> {
        let mut state = self.open()?;
        let record = state
            .epochs
            .get_mut(&epoch)
            .ok_or_else(|| self.unknown_epoch(epoch))?;
        record.claimed = true;
        Ok(())
    }

    async fn done(&self, epoch: u64) -> Result<(), ChannelError> {
        let mut state = self.open()?;
        let record = state
            .epochs
            .remove(&epoch)
            .ok_or_else(|| self.unknown_epoch(epoch))?;
        state.queue.done(record.range);
        state.forget(record.range);
        self.wake_puts(&mut state);
        Ok(())
    }

    async fn abandon(&self, epoch: u64) -> Result<(), ChannelError> {
        let mut state = self.open()?;
        let record = state
            .epochs
            .remove(&epoch)
            .ok_or_else(|| self.unknown_epoch(epoch))?;
        state.queue.abandon(record.range);
        self.ready.notify_waiters();
        Ok(())
    }

    fn control_may_be_lost(&self) -> bool {
        false
    }

    fn directory_changed(&self) -> bool {
        false
    }

    fn is_durable(&self) -> bool {
        false
    }
}
