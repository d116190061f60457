//! Commands for operators: look into a log, check it, audit what was published.

pub mod audit;
pub mod audit_command;
pub mod wal;
