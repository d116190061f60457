//! Forebay: a durable write-ahead-log channel, and an agent around it that moves event streams
//! into HDFS exactly once.
//!
//! ```text
//! config -> agent -> source -> channel -> sink       env/ (disk, clock, random): the doors outside
//! ```

pub mod agent;
pub mod channel;
pub mod cli;
pub mod config;
pub mod env;
pub mod event;
pub mod format;
#[doc(hidden)]
pub mod planted;
pub mod sink;
pub mod source;
pub mod tools;
