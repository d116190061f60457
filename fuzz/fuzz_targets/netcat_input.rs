//! Any bytes in any pieces to netcat: see the oracle for what must hold.
#![no_main]

#[path = "../oracles/netcat_input.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    oracle::check(input);
});
