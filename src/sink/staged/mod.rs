//! The exactly-once publisher: staged files, epochs, claims.
pub mod store;
pub mod store_local;
