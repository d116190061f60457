//! The stop signal of a running component, for tasks and for plain threads.
//!
//! *Place in the flow*: the agent holds the [`Trigger`], a component holds a [`Shutdown`]. The
//! signal is given once and stays; a trigger that is dropped gives it too, so that no component
//! outlives whoever started it.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

#[derive(Debug, Default)]
struct Bell {
    rung: Mutex<bool>,
    ring: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.ring.notify_all();
    }
}

/// Gives the signal; dropping it gives the signal too.
#[derive(Debug)]
pub struct Trigger {
    watch: watch::Sender<bool>,
    bell: Arc<Bell>,
}

impl Trigger {
    /// Asks every holder of the signal to stop. Asking again does nothing.
    pub fn stop(&self) {
        self.watch.send_replace(true);
        self.bell.ring();
    }
}

impl Drop for Trigger {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Receives the signal.
#[derive(Clone, Debug)]
pub struct Shutdown {
    watch: watch::Receiver<bool>,
    bell: Arc<Bell>,
}

impl Shutdown {
    /// A signal that has not been given, and its trigger.
    pub fn new() -> (Trigger, Self) {
        let (sender, watch) = watch::channel(false);
        let bell = Arc::new(Bell::default());
        (
            Trigger {
                watch: sender,
                bell: Arc::clone(&bell),
            },
            Self { watch, bell },
        )
    }

    /// Whether the signal has been given.
    pub fn requested(&self) -> bool {
        *self.watch.borrow()
    }

    /// Returns once the signal has been given.
    pub async fn wait(&self) {
        let mut watch = self.watch.clone();
        // An error means that the trigger is gone, which is the signal as well.
        if watch.wait_for(|stop| *stop).await.is_err() {}
    }

    /// Waits up to `limit`; true if the signal was given.
    pub async fn wait_for(&self, limit: Duration) -> bool {
        tokio::time::timeout(limit, self.wait()).await.is_ok()
    }

    /// The same for a plain thread.
    pub fn wait_blocking(&self, limit: Duration) -> bool {
        let rung = self
            .bell
            .rung
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .bell
            .ring
            .wait_timeout_while(rung, limit, |rung| !*rung);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dropped_trigger_stops_tasks_and_threads() {
        let (trigger, shutdown) = Shutdown::new();
        assert!(!shutdown.requested());
        let thread = {
            let shutdown = shutdown.clone();
            std::thread::spawn(move || shutdown.wait_blocking(Duration::from_secs(60)))
        };
        drop(trigger);
        shutdown.wait().await;
        assert!(shutdown.requested());
        assert!(thread.join().unwrap());
    }

    #[tokio::test]
    async fn a_wait_without_a_signal_ends_at_its_limit() {
        let (_trigger, shutdown) = Shutdown::new();
        assert!(!shutdown.wait_for(Duration::from_millis(1)).await);
        assert!(!shutdown.wait_blocking(Duration::from_millis(1)));
    }
}
