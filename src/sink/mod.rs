//! Sinks, one file each; `staged` is the exactly-once publisher.
pub mod staged;
