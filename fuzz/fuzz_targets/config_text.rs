//! Any text as a configuration: see the oracle for what must hold.
#![no_main]

#[path = "../oracles/config_text.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    oracle::check(input);
});
