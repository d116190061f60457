//! A whole log, damaged anywhere: see the oracle for what must hold.
#![no_main]

#[allow(dead_code, reason = "every user of it needs another part")]
#[path = "../oracles/opened_log.rs"]
mod opened_log;
#[allow(dead_code, reason = "every user of it needs another part")]
#[path = "../oracles/written_log.rs"]
mod written_log;
#[path = "../oracles/damaged_channel.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    oracle::check(input);
});
