//! Everything in a small scope: all histories up to a length over a small alphabet, and for each
//! operation on the disk in their last step every state in which a crash may leave it. Nothing is
//! sampled; images that are the same to the last byte, with the same to be expected of them, are
//! recovered once.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use forebay::channel::file::SyncMode;
use forebay::env::disk::WriteBackend;
use forebay::env::disk_sim::SimDisk;

use super::check::{Checked, Violation};
use super::crash::{Examiner, Expect};
use super::driver::Driver;
use super::endings::UNDISTURBED;
use super::history::{End, Op, Random, Setup};
use super::queue::Spec;

/// What a history is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Letter {
    /// A put of one event, without a position.
    One,
    /// A put of two events, with a position.
    Two,
    /// Takes one event and acknowledges it.
    Ack,
    /// Seals an epoch of one event; or claims the one that is open; or ends it.
    Epoch,
    /// Prepares a segment and rolls onto it.
    Roll,
    /// A second of quiet.
    Idle,
    /// A power loss that keeps nothing, and the next open.
    Crash,
    /// A clean close, and the next open.
    Reopen,
}

/// The alphabet.
pub(crate) const LETTERS: [Letter; 8] = [
    Letter::One,
    Letter::Two,
    Letter::Ack,
    Letter::Epoch,
    Letter::Roll,
    Letter::Idle,
    Letter::Crash,
    Letter::Reopen,
];

/// How far a search goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope {
    /// Longest history.
    pub(crate) length: u32,
    /// Longest history for which every recovery is crashed again at every operation, in every
    /// state.
    pub(crate) twice: u32,
}

/// What was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) histories: u64,
    /// Moments: operations on the disk before which the power may go.
    pub(crate) moments: u64,
    /// States in which a crash may leave the disk, at all moments.
    pub(crate) states: u64,
    /// Those that were not the same as one before, all of them recovered and checked.
    pub(crate) recovered: u64,
    /// Those of them in the middle of a recovery.
    pub(crate) in_recovery: u64,
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.histories += other.histories;
        self.moments += other.moments;
        self.states += other.states;
        self.recovered += other.recovered;
        self.in_recovery += other.in_recovery;
    }
}

/// Goes through part `part` of `parts` of all histories.
///
/// # Errors
/// The history, and what it broke.
pub(crate) fn search(
    scope: Scope,
    (part, parts): (u64, u64),
    mut progress: impl FnMut(&Count),
) -> Result<Count, (Vec<Letter>, Violation)> {
    let mut count = Count::default();
    for length in 0..=scope.length {
        let histories = (LETTERS.len() as u64).pow(length);
        for number in (0..histories).filter(|number| number % parts == part) {
            let word = word(number, length);
            let one = super::guarded(|_| history(&word, length <= scope.twice));
            let seen = one.map_err(|violation| (word, violation))?;
            count += seen;
            progress(&count);
        }
    }
    Ok(count)
}

fn word(mut number: u64, length: u32) -> Vec<Letter> {
    let mut word = Vec::new();
    for _ in 0..length {
        let at = usize::try_from(number % LETTERS.len() as u64).unwrap_or(0);
        word.push(LETTERS[at]);
        number /= LETTERS.len() as u64;
    }
    word
}

fn setup() -> Setup {
    Setup {
        backend: WriteBackend::Pwrite,
        dirs: 1,
        sync: SyncMode::Commit,
        capacity: 1000,
        keep_alive: Duration::ZERO,
        keep_dead: Duration::ZERO,
        room: None,
        byte_capacity: None,
        images: 0,
        depth: 0,
    }
}

/// Runs one history; crashes in its last step.
fn history(word: &[Letter], twice: bool) -> Checked<Count> {
    let mut states = States {
        twice,
        ..States::default()
    };
    states.count.histories = 1;
    let mut driver = Driver::new(setup(), UNDISTURBED)?;
    let Some((last, before)) = word.split_last() else {
        return Ok(states.count);
    };
    for letter in before {
        take(&mut driver, *letter, None)?;
    }
    take(&mut driver, *last, Some(&mut states))?;
    let mut count = states.count;
    count.in_recovery = driver.stats.in_recovery;
    Ok(count)
}

fn take(driver: &mut Driver, letter: Letter, mut states: Option<&mut States>) -> Checked {
    let mut op = |driver: &mut Driver, op: Op| match states.as_deref_mut() {
        Some(states) => states.around(driver, &op),
        None => driver.plain(&op),
    };
    match letter {
        Letter::One => op(driver, put(&[40], 0)),
        Letter::Two => op(driver, put(&[9, 30], 1)),
        Letter::Ack => {
            driver.plain(&Op::OpenLease { block_events: None })?;
            driver.plain(&Op::Take {
                lease: 0,
                events: 1,
                bytes: 1,
            })?;
            op(
                driver,
                Op::Ack {
                    lease: 0,
                    events: 1,
                },
            )?;
            op(driver, Op::Lead)?;
            driver.plain(&Op::Release(0))
        }
        Letter::Epoch => {
            let open = driver.spec.durable_state().epochs.pop_first();
            match open {
                None => {
                    driver.plain(&Op::OpenLease {
                        block_events: Some(8),
                    })?;
                    driver.plain(&Op::Take {
                        lease: 0,
                        events: 1,
                        bytes: 1,
                    })?;
                    op(
                        driver,
                        Op::Seal {
                            lease: 0,
                            events: 1,
                            parts: 1,
                        },
                    )?;
                }
                Some((_, epoch)) if epoch.claimed => op(driver, Op::Done(0))?,
                Some(_) => op(driver, Op::Claimed(0))?,
            }
            op(driver, Op::Lead)?;
            driver.plain(&Op::Release(0))
        }
        Letter::Roll => {
            op(driver, Op::Prepare)?;
            op(driver, Op::Roll)
        }
        Letter::Idle => op(driver, Op::Idle(Duration::from_millis(1100))),
        Letter::Crash => op(driver, Op::End(End::PowerDropAll)),
        Letter::Reopen => op(driver, Op::End(End::Close)),
    }
}

fn put(sizes: &[usize], positions: usize) -> Op {
    Op::Put {
        sizes: sizes.to_vec(),
        positions,
        now: true,
    }
}

/// Crash states around the operations of one step.
#[derive(Default)]
struct States {
    twice: bool,
    seen: HashSet<u64>,
    count: Count,
}

impl States {
    fn around(&mut self, driver: &mut Driver, op: &Op) -> Checked {
        let (spec, least) = (driver.spec.clone(), driver.spec.durable);
        let mut expect = Expect {
            in_cache: least,
            on_disk: least,
            most: least,
            unknown_opens: 0,
            durable_end: Some(driver.durable_end()),
            tears: true,
            rotten: false,
        };
        let recorded = driver.recorded(op)?;
        // What is written in the step stands behind what was there; an open of its own is judged
        // from what was there before it.
        let opens = matches!(op, Op::End(_));
        let after = if opens { spec } else { driver.spec.clone() };
        expect.most = after.written;
        expect.unknown_opens = usize::from(opens);
        for disk in &recorded {
            self.every_state(driver, &after, disk, &expect, self.twice)?;
        }
        let (disk, spec) = (driver.disk.clone(), driver.spec.clone());
        let settled = Expect {
            in_cache: spec.durable,
            on_disk: spec.durable,
            most: spec.written,
            unknown_opens: 0,
            ..expect
        };
        self.every_state(driver, &spec, &disk, &settled, self.twice)
    }

    fn every_state(
        &mut self,
        driver: &mut Driver,
        spec: &Spec,
        disk: &SimDisk,
        expect: &Expect,
        again: bool,
    ) -> Checked {
        self.count.moments += 1;
        for image in disk.every_crash() {
            self.count.states += 1;
            if !self.seen.insert(key(&image, spec, expect)) {
                continue;
            }
            self.count.recovered += 1;
            let recorded = again.then(|| image.kill());
            driver
                .examiner(&mut Random::new(1))
                .examine(spec, image, expect.clone(), 0)?;
            if let Some(image) = recorded {
                self.in_recovery(driver, spec, &image, expect)?;
            }
        }
        Ok(())
    }

    /// Crashes before every operation of the recovery of `image`.
    fn in_recovery(
        &mut self,
        driver: &mut Driver,
        spec: &Spec,
        image: &SimDisk,
        expect: &Expect,
    ) -> Checked {
        image.record();
        let mut random = Random::new(1);
        let examiner: Examiner<'_> = driver.examiner(&mut random);
        drop(examiner.open(image));
        let moments = image.recorded();
        let expect = Expect {
            unknown_opens: expect.unknown_opens + 1,
            ..expect.clone()
        };
        for moment in moments {
            let before = self.count.recovered;
            self.every_state(driver, spec, &moment, &expect, false)?;
            driver.stats.in_recovery += self.count.recovered - before;
        }
        Ok(())
    }
}

fn key(image: &SimDisk, spec: &Spec, expect: &Expect) -> u64 {
    let mut hasher = DefaultHasher::new();
    image.fingerprint().hash(&mut hasher);
    (
        expect.on_disk,
        expect.most,
        expect.unknown_opens,
        spec.entries.len(),
    )
        .hash(&mut hasher);
    hasher.finish()
}
