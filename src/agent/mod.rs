//! Lifecycle, wiring, supervision, status and metrics.
