//! Random numbers, as a door to the outside: salts, nonces and ids.
//!
//! With the `simulation` feature a thread can be given a seed, so that a history on the simulated
//! disk is the same at every run, down to the last bit of every file.

use std::io;

/// Fills `bytes` with random bytes.
pub fn fill(bytes: &mut [u8]) -> io::Result<()> {
    #[cfg(any(test, feature = "simulation"))]
    if seeded::fill(bytes) {
        return Ok(());
    }
    getrandom::fill(bytes).map_err(|e| io::Error::other(e.to_string()))
}

/// A random number.
pub fn u64() -> io::Result<u64> {
    let mut bytes = [0; 8];
    fill(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// From now on this thread draws from `seed`; `None`: from the system again.
#[cfg(any(test, feature = "simulation"))]
pub fn seed_this_thread(seed: Option<u64>) {
    seeded::set(seed);
}

#[cfg(any(test, feature = "simulation"))]
mod seeded {
    use std::cell::Cell;

    thread_local! {
        static STATE: Cell<Option<u64>> = const { Cell::new(None) };
    }

    pub(super) fn set(seed: Option<u64>) {
        STATE.set(seed);
    }

    /// SplitMix64; false where the thread has no seed.
    pub(super) fn fill(bytes: &mut [u8]) -> bool {
        let Some(mut state) = STATE.get() else {
            return false;
        };
        for chunk in bytes.chunks_mut(8) {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = state;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^= mixed >> 31;
            chunk.copy_from_slice(&mixed.to_le_bytes()[..chunk.len()]);
        }
        STATE.set(Some(state));
        true
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_thread_with_a_seed_draws_the_same_numbers_again() {
        let draw = || {
            super::seed_this_thread(Some(7));
            (super::u64().unwrap(), super::u64().unwrap())
        };
        let first = draw();
        assert_eq!(first, draw());
        assert_ne!(first.0, first.1);
        super::seed_this_thread(None);
        assert_ne!(super::u64().unwrap(), first.0);
    }
}
