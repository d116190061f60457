//! Any bytes as the snapshot of a segment: see the oracle for what must hold.
#![no_main]

#[path = "../oracles/snapshot.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    oracle::check(input);
});
