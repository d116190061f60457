//! The channel's signal under every schedule there is of two threads, and every one with few
//! preemptions of three: no wake-up is lost, whoever waits, be it a
//! thread or a task.
//!
//! The source is compiled a second time, with loom's locks behind the names of `env::sync`. loom
//! knows no time: a wait ends by a wake-up or not at all, and not at all is a deadlock, which it
//! reports. `LOOM_CHECKPOINT_FILE` and `LOOM_LOG` show a failing schedule step by step.

#![allow(clippy::unwrap_used, reason = "a failed step fails its test")]
#![allow(
    clippy::print_stdout,
    reason = "a test tells how many schedules there were"
)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use loom::sync::Arc;
use signal::Signal;

#[path = "../src/channel/file/signal.rs"]
mod signal;

/// What `src/channel/file/signal.rs` finds under `crate::env`.
mod env {
    pub(crate) mod sync {
        use std::time::{Duration, Instant};

        pub(crate) use loom::sync::{Condvar, Mutex};
        pub(crate) use std::sync::PoisonError;

        /// tokio's, with a place to come in before each call.
        #[derive(Debug, Default)]
        pub(crate) struct Notify(tokio::sync::Notify, loom::sync::atomic::AtomicUsize);

        impl Notify {
            fn point(&self) {
                self.1.load(std::sync::atomic::Ordering::SeqCst);
            }

            pub(crate) fn notified(&self) -> tokio::sync::futures::Notified<'_> {
                self.point();
                self.0.notified()
            }

            pub(crate) fn notify_waiters(&self) {
                self.point();
                self.0.notify_waiters();
            }
        }

        /// Time stands still.
        pub(crate) fn now() -> Instant {
            static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
            *START.get_or_init(Instant::now)
        }

        pub(crate) async fn timeout<F: Future>(_: Duration, future: F) -> Option<F::Output> {
            Some(future.await)
        }
    }
}

const LONG: Duration = Duration::from_secs(60);

/// Runs every schedule and says how many there were. Three threads have too many: with a bound,
/// every schedule in which at most that often somebody is stopped who could go on.
fn every_schedule(name: &str, bound: Option<usize>, run: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = bound;
    let count = std::sync::Arc::new(AtomicUsize::new(0));
    let counted = std::sync::Arc::clone(&count);
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        run();
    });
    let count = count.load(Ordering::Relaxed);
    println!("{name}: {count} schedules");
    assert!(count > 1, "nothing was left to the scheduler");
}

/// What waiters wait for: the signal counts up after each change.
#[derive(Default)]
struct Place {
    signal: Signal,
    free: loom::sync::atomic::AtomicUsize,
}

impl Place {
    fn give(&self) {
        self.free.fetch_add(1, Ordering::SeqCst);
        self.signal.raise();
    }

    fn try_take(&self) -> bool {
        let one_less = |free: usize| free.checked_sub(1);
        let both = Ordering::SeqCst;
        self.free.fetch_update(both, both, one_less).is_ok()
    }

    /// As `commit_put_blocking` waits for room.
    fn take(&self) {
        loop {
            let seen = self.signal.seen();
            if self.try_take() {
                return;
            }
            assert!(self.signal.wait(seen, LONG), "no time passes");
        }
    }

    /// As `commit_put` waits for room.
    async fn take_async(&self) {
        loop {
            let seen = self.signal.seen();
            if self.try_take() {
                return;
            }
            self.signal.wait_async(seen, LONG).await;
        }
    }
}

#[test]
fn a_thread_that_waits_is_woken() {
    every_schedule("thread", None, || {
        let place = Arc::new(Place::default());
        let other = Arc::clone(&place);
        let waiter = loom::thread::spawn(move || other.take());
        place.give();
        waiter.join().unwrap();
    });
}

#[test]
fn a_task_that_waits_is_woken() {
    every_schedule("task", None, || {
        let place = Arc::new(Place::default());
        let other = Arc::clone(&place);
        let waiter = loom::thread::spawn(move || loom::future::block_on(other.take_async()));
        place.give();
        waiter.join().unwrap();
    });
}

#[test]
fn a_thread_and_a_task_that_wait_are_both_woken() {
    every_schedule("thread and task", Some(2), || {
        let place = Arc::new(Place::default());
        let (one, two) = (Arc::clone(&place), Arc::clone(&place));
        let thread = loom::thread::spawn(move || one.take());
        let task = loom::thread::spawn(move || loom::future::block_on(two.take_async()));
        place.give();
        place.give();
        thread.join().unwrap();
        task.join().unwrap();
    });
}
