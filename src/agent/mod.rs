//! Lifecycle, wiring, supervision, status and metrics.

pub mod counters;
