//! Commands for operators: look into a log, check it.

pub mod wal;
