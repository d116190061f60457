//! `src/env/region.rs` for the interpreter; see `tests/long/miri.sh`.

#![allow(missing_debug_implementations, reason = "as in the file itself")]

#[path = "../../../src/env/region.rs"]
pub mod region;
