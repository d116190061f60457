//! A condition that both threads and tasks can wait for.

use std::time::Duration;

use crate::env::sync::{self, Condvar, Mutex, Notify, PoisonError};

/// Counts up at each `raise`; waiters name the count they have seen, so no wake-up is lost.
#[derive(Debug, Default)]
pub(super) struct Signal {
    count: Mutex<u64>,
    condvar: Condvar,
    notify: Notify,
}

impl Signal {
    pub(super) fn seen(&self) -> u64 {
        *self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn raise(&self) {
        *self.count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.condvar.notify_all();
        self.notify.notify_waiters();
    }

    /// Waits until the count passes `seen` or `timeout`; true when it did.
    pub(super) fn wait(&self, seen: u64, timeout: Duration) -> bool {
        let deadline = sync::now() + timeout;
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if *count != seen {
                return true;
            }
            let left = deadline.saturating_duration_since(sync::now());
            if left.is_zero() {
                return false;
            }
            count = self
                .condvar
                .wait_timeout(count, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// The same for a task.
    pub(super) async fn wait_async(&self, seen: u64, timeout: Duration) -> bool {
        let notified = self.notify.notified();
        if self.seen() != seen {
            return true;
        }
        sync::timeout(timeout, notified).await.is_some()
    }
}
