//! The corpus of a fuzz target on stable: every committed input, and changed copies of each.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Runs `check` on every input of the corpus in `fuzz/corpus/<target>` and on `rounds` changed
/// copies of each; the changes are the same at every run.
pub(crate) fn run(target: &str, rounds: u32, mut check: impl FnMut(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|file| file.expect("a directory entry").path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{}: no input", folder.display());
    for path in files {
        let input = std::fs::read(&path).expect("an input");
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let mut run = |input: &[u8], what: &str| {
            let result = catch_unwind(AssertUnwindSafe(|| check(input)));
            assert!(
                result.is_ok(),
                "{target}: input {name}{what}, see above: {input:?}"
            );
        };
        run(&input, "");
        let mut random = Random(0x5eed);
        for round in 0..rounds {
            run(&changed(&input, &mut random), &format!(", round {round}"));
        }
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("31 bits") % bound.max(1)
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).expect("a byte")
    }
}

fn changed(input: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=random.below(4) {
        if bytes.is_empty() {
            bytes.push(0);
        }
        let at = random.below(bytes.len());
        match random.below(6) {
            0 => bytes[at] = random.byte(),
            1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes.truncate(at.max(1)),
            3 => bytes.insert(at, random.byte()),
            4 => {
                let end = bytes.len().min(at + random.below(16));
                bytes.drain(at..end);
            }
            _ => {
                let from = random.below(bytes.len());
                let length = random.below(64).min(bytes.len() - at.max(from));
                bytes.copy_within(from..from + length, at);
            }
        }
    }
    bytes
}
