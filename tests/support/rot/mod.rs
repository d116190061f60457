//! Rot in a small log: the log, and what must hold.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "shared by tests that use parts of it; a failed step fails its test"
)]

pub(crate) mod judge;
pub(crate) mod log;
