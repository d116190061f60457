//! Lifecycle, wiring, supervision, status and metrics.

pub mod counters;
pub mod flow;
pub mod logging;
pub mod metrics;
pub mod registry;
pub mod status;
pub mod supervisor;
