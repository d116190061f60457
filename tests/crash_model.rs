//! Short forms of the crash model: random histories, and every history of a few steps. The long
//! form is `tests/long/crash-model.sh`; what is checked, and under which number, stands in
//! `tests/model/check.rs`: INV-1, INV-4, INV-5, INV-6, INV-8 and INV-13 to INV-19.

#![cfg(feature = "simulation")]

#[path = "model/mod.rs"]
mod model;

use model::exhaustive::{self, Scope};
use model::history::bytes_of_seed;
use model::{Stats, described, minimised, run};

/// The seeds of the long form begin at 0; these are others.
const FIRST_SEED: u64 = 1 << 32;

fn run_or_explain(bytes: &[u8], name: &str) -> Stats {
    run(bytes).unwrap_or_else(|violation| {
        let small = minimised(bytes, &violation);
        panic!(
            "{name}: {violation}\n{}\nminimised to {:?}\n{}",
            described(bytes),
            run(&small).err().map(|violation| violation.to_string()),
            described(&small)
        )
    })
}

/// INV-1, INV-4, INV-5, INV-6, INV-8, INV-13, INV-14, INV-15, INV-16, INV-17, INV-18, INV-19.
#[test]
fn random_histories_with_crashes_keep_every_promise() {
    let mut all = Stats::default();
    let mut seed = FIRST_SEED;
    while all.crashes < 5_000 {
        all += run_or_explain(&bytes_of_seed(seed), &format!("seed {seed}"));
        seed += 1;
    }
    println!("{all:#?}");
    // What must have happened for this to mean something.
    assert!(all.in_recovery > 1_000 && all.deepest >= 4, "{all:?}");
    assert!(all.answers > 300 && all.taken > 300, "{all:?}");
    assert!(
        all.full > 0 && all.failures > 0 && all.opens_failed > 0,
        "{all:?}"
    );
}

/// INV-1, INV-5, INV-8, INV-13 to INV-18, without any sampling.
#[test]
fn every_crash_of_every_history_of_two_steps_keeps_every_promise() {
    let scope = Scope {
        length: 2,
        twice: 1,
    };
    let count = exhaustive::search(scope, (0, 1), |_| ());
    let count = count.unwrap_or_else(|(word, violation)| panic!("{word:?}: {violation}"));
    println!("{count:#?}");
    assert_eq!(count.histories, 1 + 8 + 64);
    assert!(
        count.states > 1_500 && count.in_recovery > 1_000,
        "{count:?}"
    );
}

#[test]
fn the_same_bytes_are_the_same_history_to_the_last_crash() {
    for seed in 0..3 {
        let bytes = bytes_of_seed(seed);
        assert_eq!(run(&bytes), run(&bytes), "seed {seed}");
    }
}

/// Histories that broke a promise once.
#[test]
fn what_the_model_has_found_stays_mended() {
    let found = [
        // A copied record of an earlier open named the end of a segment behind it.
        ("copied incarnation", "4aebfad6f1d02a18fb9519a6d6576159"),
        // Two incarnations with one number, after a failed write-back and two more crashes.
        ("incarnation given twice", "ac9ff9ead738c12e23905733"),
        // A put that nobody woke when a batch lease was sealed.
        (
            "put not woken",
            "13210fb419d1ffe11264fc7e2b8f4d311217d4a31d8da01854d07d6268724051907e1e4c",
        ),
        // The copy of a put that held nothing but a position, left by an open that was cut short,
        // counted again behind the one that followed it (found by the fuzz target `history`).
        (
            "a position that goes back",
            "7902bdf200000008000000ff0000002106f0340720005115c69af2ee3d3932daca",
        ),
        // Verify called it damage when removals had reached the disk in another order.
        (
            "a gap of segments behind one without frames",
            "e470e0aaf51d6bbcf1cfbd58fb106f6ef24c2764c5901062",
        ),
        // Verify judged a segment that an open had given up for another one.
        (
            "a segment that was given up",
            "ee8773a4d1b92302fc77a3f3dfa04126",
        ),
    ];
    for (name, hex) in found {
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
        let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
        run_or_explain(&bytes, name);
    }
}
