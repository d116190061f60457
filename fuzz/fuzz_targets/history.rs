//! Any bytes as a history of the file channel, held against the specification of one page.
#![no_main]

#[path = "../../tests/model/mod.rs"]
mod model;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    if let Err(violation) = model::run(input) {
        panic!("{violation:?}\n{}", model::described(input));
    }
});
