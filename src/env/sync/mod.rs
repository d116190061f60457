//! The door to locks, condition variables, threads and time-outs, for all that threads share.
//!
//! *Place in the flow*: the file channel takes them from here and from nowhere else. In every
//! build that runs they are those of the standard library and of tokio. With the feature `shuttle`
//! they are those of a scheduler that decides at every one of them who goes on, and of a clock
//! that stands still until a test lets time pass (see `controlled`); the simulated disk then lets
//! others in between its calls. `tests/signal_loom.rs` puts a third kind behind the same names.
//!
//! tokio's asynchronous mutex needs no second kind: a task that waits for it is known to any
//! executor by its waker. Counters that only a status shows stay plain atomics.

#[cfg(feature = "shuttle")]
mod controlled;

#[cfg(feature = "shuttle")]
pub use controlled::*;
#[cfg(not(feature = "shuttle"))]
pub use real::*;

pub use std::sync::PoisonError;

#[cfg(not(feature = "shuttle"))]
mod real {
    use std::time::{Duration, Instant};

    pub use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, atomic};
    pub use std::thread;

    pub use tokio::sync::{Notify, oneshot};

    /// The time by which waits are measured.
    pub fn now() -> Instant {
        Instant::now()
    }

    /// What `future` gives, or `None` when it gives nothing within `limit`.
    pub async fn timeout<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
        tokio::time::timeout(limit, future).await.ok()
    }

    /// A place where another thread may come in between.
    #[cfg(any(test, feature = "simulation"))]
    #[inline]
    pub fn point() {}
}
