//! Any text as names of published files: see the oracle for what must hold.
#![no_main]

#[path = "../oracles/audit_names.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    oracle::check(input);
});
