//! Commands for operators: look into a log, check it, audit what was published, decide.

pub mod adopt;
pub mod audit;
pub mod audit_command;
pub mod audit_log;
pub mod resolve;
pub mod salvage;
pub mod wal;
