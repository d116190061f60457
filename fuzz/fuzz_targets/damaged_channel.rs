//! A whole log, damaged anywhere: see the oracle for what must hold.
#![no_main]

#[path = "../oracles/damaged_channel.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    oracle::check(input);
});
