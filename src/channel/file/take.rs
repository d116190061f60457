//! A take: events are granted to a lease, read back, and given back to the queue where they could
//! not be read.

use super::{ChannelError, Core, LeaseId, Ordering, TakenBatch, unpoisoned};

impl Core {
    /// The next events of a lease, at most so many and so many bytes, and at least one event where
    /// one waits; nothing is durable by it.
    pub(super) fn take(
        &self,
        lease: LeaseId,
        max_events: usize,
        max_bytes: usize,
    ) -> Result<TakenBatch, ChannelError> {
        self.check_alive()?;
        let lost = |_| ChannelError::LeaseLost {
            channel: self.name.clone(),
        };
        self.stats
            .take_attempts
            .fetch_add(max_events as u64, Ordering::Relaxed);
        let grant = self
            .queue()
            .grant(lease, max_events as u64, self.now())
            .map_err(lost)?;
        let Some(grant) = grant else {
            self.want_sync();
            return Ok(TakenBatch::default());
        };
        let mut window = unpoisoned(&self.windows).remove(&lease);
        let read = self.read(grant.range, grant.hint, max_bytes, &mut window);
        let mut queue = self.queue();
        match read {
            Ok(read) => {
                match read.through {
                    Some(through) => queue.granted(lease, through, read.hint),
                    None => queue.ungrant(lease),
                }
                drop(queue);
                // Staged events no longer count against the capacity.
                self.room.raise();
                if read
                    .through
                    .is_none_or(|through| through < grant.range.last)
                {
                    // What was granted and not read waits again, also for others.
                    self.ready.raise();
                }
                if let Some(window) = window {
                    unpoisoned(&self.windows).insert(lease, window);
                }
                Ok(read.batch)
            }
            Err(error) => {
                queue.ungrant(lease);
                drop(queue);
                self.ready.raise();
                Err(error)
            }
        }
    }
}
