//! Transactions on their way into the log, and who waits for them.

use std::collections::VecDeque;

use tokio::sync::OwnedMutexGuard;

use super::log::Entry;
use crate::channel::ChannelError;
use crate::env::sync::oneshot;
use crate::event::SeqRange;
use crate::planted::{Bug, planted};

/// Answer to a waiter: the run of sequence numbers of its put.
pub(super) type Answer = Result<Option<SeqRange>, ChannelError>;

/// A transaction that is ready to be written.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) entry: Entry,
    pub(super) events: u64,
    pub(super) waiter: oneshot::Sender<Answer>,
    /// The journal's turn, given back once the record is applied.
    pub(super) turn: Option<OwnedMutexGuard<()>>,
}

/// Transactions between their producers and the log.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) queue: VecDeque<Ready>,
    /// Bytes queued, and gathered but not yet stored.
    pub(super) bytes: usize,
    /// Bytes of puts that have been admitted and are not queued yet.
    pub(super) promised: usize,
    /// A sync of what is written only was asked for.
    pub(super) sync_wanted: bool,
    /// It was asked for when nothing was written: the next group is to be synced.
    pub(super) sync_awaited: bool,
    pub(super) stop: bool,
}

impl Pending {
    /// Takes everything out; returns who waits for it.
    pub(super) fn drain(&mut self) -> Vec<oneshot::Sender<Answer>> {
        self.bytes = 0;
        std::mem::take(&mut self.queue)
            .into_iter()
            .map(|r| r.waiter)
            .collect()
    }
}

/// A waiter whose group is written.
pub(super) struct Written {
    pub(super) waiter: oneshot::Sender<Answer>,
    /// Held until the answer.
    pub(super) turn: Option<OwnedMutexGuard<()>>,
    pub(super) range: Option<SeqRange>,
    pub(super) events: u64,
    pub(super) put: bool,
}

/// Tells everyone of a group how it went.
pub(super) fn answer(waiters: &mut Vec<Written>) {
    if planted(Bug::LoseWaiter) && waiters.len() > 1 {
        std::mem::forget(waiters.pop());
    }
    for waiter in waiters.drain(..) {
        // A caller that has gone away no longer wants its answer.
        let _gone = waiter.waiter.send(Ok(waiter.range));
        drop(waiter.turn);
    }
}
