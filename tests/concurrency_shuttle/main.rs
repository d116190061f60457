//! The file channel under a scheduler that decides at every lock, wake-up, answer and disk call
//! who goes on: thousands of schedules of small histories, on the simulated disk.
//!
//! Time stands still unless a test lets it pass, so a wake-up that is lost is a deadlock, and a
//! deadlock fails the test. A failure names the file of its schedule; to run it again:
//!
//! ```text
//! FOREBAY_REPLAY=target/shuttle/schedule000.txt cargo test --features shuttle \
//!     --test concurrency_shuttle NAME
//! ```
//!
//! `FOREBAY_SCHEDULES` (how many a test) and `FOREBAY_SEED` say more; `tests/long/concurrency.sh`
//! sets both.

#![allow(clippy::unwrap_used, reason = "a failed step fails its test")]
#![allow(
    clippy::print_stdout,
    reason = "a test tells how many schedules it has tried"
)]

mod bench;
mod ends;
mod epochs;
mod puts;
mod segments;
mod takes;
