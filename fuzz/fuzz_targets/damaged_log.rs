//! A written log, damaged anywhere: see the oracle for what must hold.
#![no_main]

#[path = "../oracles/damaged_log.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    oracle::check(input);
});
