//! What sources and sinks do to a channel, and what they must be given.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use forebay::channel::file::simulation::Turn;
use forebay::channel::{Channel, ChannelError, LeaseId, TakeMode};
use forebay::env::disk::Disk;
use forebay::event::{Seq, SeqRange};

use super::calls::{Call, What, batch, request};
use super::check::{self, Checked, ENDED, ORDER, broken, require};
use super::crash::SEGMENT;
use super::driver::{Driver, Lease};
use super::queue::Item;

impl Driver {
    pub(super) fn item(&self, index: usize, size: usize) -> Item {
        Item {
            transaction: self.transactions,
            index,
            size,
            written_ms: 0,
        }
    }

    pub(super) fn put(&mut self, sizes: &[usize], positions: usize, now: bool) -> Checked {
        self.transactions += 1;
        let events: Vec<Item> = sizes
            .iter()
            .enumerate()
            .map(|(n, s)| self.item(n, *s))
            .collect();
        let position = |n: usize| {
            let key = format!("r1/{}", (self.transactions as usize + n) % 4);
            // Now and then a key is forgotten.
            let value = match (self.transactions + n as u64) % 11 {
                0 => String::new(),
                _ => format!("{}:{}", self.transactions, events.len()),
            };
            (key, Bytes::from(value))
        };
        let positions: Vec<_> = (0..positions).map(position).collect();
        let batch = batch(&events, &positions);
        let channel = Arc::clone(self.channel().channel());
        self.call(Call::put(&channel, What::Put { events, positions }, batch))?;
        if now { self.lead() } else { Ok(()) }
    }

    pub(super) fn lead(&mut self) -> Checked {
        if self.channel().lead() == Turn::NoSpare {
            let _prepared = self.channel().prepare();
            let _turn = self.channel().lead();
        }
        Ok(())
    }

    pub(super) fn open_lease(&mut self, block_events: Option<u64>) -> Checked {
        if self.leases.len() >= 4 {
            return Ok(());
        }
        let mode = match block_events {
            Some(block_events) => TakeMode::Staged { block_events },
            None => TakeMode::Batch,
        };
        match self.channel().channel().open_lease(mode) {
            Ok(id) => {
                let staged = block_events.is_some();
                let held = None;
                self.leases.push(Lease { id, staged, held });
                Ok(())
            }
            Err(error) => broken(ENDED, format!("no lease: {error}")),
        }
    }

    pub(super) fn acknowledge(&mut self, which: usize, events: u64) -> Checked {
        let Some((id, range)) = self.front(which, events) else {
            return Ok(());
        };
        self.cut(id, range.last.0);
        let channel = Arc::clone(self.channel().channel());
        self.call(Call::ack(&channel, id, range))
    }

    pub(super) fn seal(&mut self, which: usize, events: u64, parts: usize) -> Checked {
        let Some((id, range)) = self.front(which, events) else {
            return Ok(());
        };
        let channel = Arc::clone(self.channel().channel());
        self.call(Call::seal(&channel, id, request(range.last.0, parts)))
    }

    /// The first `events` of what a lease holds.
    pub(super) fn front(&self, which: usize, events: u64) -> Option<(LeaseId, SeqRange)> {
        let lease = self.leases[which.checked_rem(self.leases.len())?];
        let (first, last) = lease.held?;
        let end = if events == 0 {
            last
        } else {
            last.min(first + events - 1)
        };
        Some((lease.id, SeqRange::new(Seq(first), Seq(end))?))
    }

    pub(super) fn of_an_epoch(&mut self, which: usize, what: impl Fn(u64) -> What) -> Checked {
        let open: Vec<u64> = self.spec.durable_state().epochs.keys().copied().collect();
        let Some(at) = which.checked_rem(open.len()) else {
            return Ok(());
        };
        let channel = Arc::clone(self.channel().channel());
        self.call(Call::record(&channel, what(open[at])))
    }

    pub(super) fn change_space(&mut self, segments: i8) -> Checked {
        if self.setup.room.is_none() {
            return Ok(());
        }
        let free = self
            .disk
            .space(Path::new("/"))
            .map_or(0, |space| space.free);
        let change = u64::from(segments.unsigned_abs()) * SEGMENT;
        self.disk.set_free(match segments > 0 {
            true => free + change,
            false => free.saturating_sub(change),
        });
        Ok(())
    }

    pub(super) fn take(&mut self, which: usize, events: usize, bytes: usize) -> Checked {
        let Some(at) = which.checked_rem(self.leases.len()) else {
            return Ok(());
        };
        let lease = self.leases[at];
        let places = self.places();
        let batch = match self.channel().channel().lease_take(lease.id, events, bytes) {
            Ok(batch) => batch,
            Err(error) => {
                let met = self.disk.faults_met() > self.met;
                let may = met && matches!(error, ChannelError::Read { .. });
                return require(may, ORDER, || {
                    format!("a take fails without a cause: {error}")
                });
            }
        };
        require(batch.lost.is_empty(), check::VERDICT, || {
            format!("lost: {:?}", batch.lost)
        })?;
        require(batch.events.len() <= events, ORDER, || {
            format!(
                "{} events where {events} were asked for",
                batch.events.len()
            )
        })?;
        let mut next = lease.held.map(|(_, last)| last + 1);
        let alone = self.leases.len() == 1;
        let first_free = places.waiting.first().copied();
        let due = match (alone, next) {
            (true, None) => first_free,
            (true, Some(next)) if !lease.staged => {
                Some(next).filter(|n| places.waiting.contains(n))
            }
            _ => None,
        };
        require(due.is_none() || !batch.events.is_empty(), ORDER, || {
            format!("nothing is given to the only lease while {due:?} waits")
        })?;
        if next.is_none() && self.leases.iter().all(|l| !l.staged) {
            next = first_free;
        }
        for taken in &batch.events {
            let number = taken.seq.0;
            let follows = next.is_none_or(|next| next == number);
            require(follows && places.waiting.contains(&number), ORDER, || {
                format!("{number} was given to {lease:?}, next is {next:?}")
            })?;
            check::is_what_was_put(taken, &places.durable)?;
            next = Some(number + 1);
            let first = self.leases[at].held.map_or(number, |held| held.0);
            self.leases[at].held = Some((first, number));
        }
        self.stats.taken += batch.events.len() as u64;
        Ok(())
    }
}
