//! What a crash keeps: everything, nothing, a mixture by seed, or every mixture there is.
//!
//! A crash asks one question a pending piece, in an order that depends on nothing but the disk
//! and the answers before. So a seed answers them at random, and an odometer that turns the last
//! answer first goes through all of them, none twice.

use super::SimDisk;
use super::names::Names;

/// What a power loss keeps of what was pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Only what was synced.
    DropAll,
    /// All of it, but what a failed sync has lost.
    KeepAll,
    /// Each piece by the seed. Some seeds keep most, some little; some keep changes of names in
    /// the order in which they were made (as ext4 and XFS do), most do not; some cut a sector's
    /// newest store in the middle, as when it is written back during the copy.
    Mixed(u64),
}

/// xorshift64*: enough for choosing what a crash keeps.
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        // Neighbouring seeds shall not begin alike.
        let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self((mixed ^ (mixed >> 31)) | 1)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let value = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16;
        usize::try_from(value % (bound as u64).max(1)).unwrap_or(0)
    }
}

/// All sequences of answers, one at a time.
#[derive(Debug, Default)]
struct Odometer {
    /// Answer and number of answers of each question so far.
    trail: Vec<(usize, usize)>,
    at: usize,
}

impl Odometer {
    fn answer(&mut self, bound: usize) -> usize {
        if self.at == self.trail.len() {
            self.trail.push((0, bound));
        }
        self.at += 1;
        self.trail[self.at - 1].0
    }

    /// Turns to the next sequence; false when all have been.
    fn turn(&mut self) -> bool {
        self.at = 0;
        while let Some((answer, bound)) = self.trail.pop() {
            if answer + 1 < bound {
                self.trail.push((answer + 1, bound));
                return true;
            }
        }
        false
    }
}

#[derive(Debug)]
enum Source<'a> {
    Oldest,
    Newest,
    Seed {
        random: Random,
        keeps_of_8: usize,
        in_order: bool,
        tears: bool,
    },
    Every(&'a mut Odometer),
}

/// Who answers the questions of a crash.
#[derive(Debug)]
pub(super) struct Choose<'a>(Source<'a>);

impl Choose<'_> {
    pub(super) fn by(crash: Crash) -> Self {
        Self(match crash {
            Crash::DropAll => Source::Oldest,
            Crash::KeepAll => Source::Newest,
            Crash::Mixed(seed) => {
                let mut random = Random::new(seed);
                let keeps_of_8 = [4, 4, 1, 7][random.below(4)];
                let in_order = random.below(4) == 0;
                let tears = random.below(4) == 0;
                Source::Seed {
                    random,
                    keeps_of_8,
                    in_order,
                    tears,
                }
            }
        })
    }

    /// Which of `count` states a piece is in: 0 is the synced one, the last the newest.
    pub(super) fn state(&mut self, count: usize) -> usize {
        match &mut self.0 {
            _ if count < 2 => 0,
            Source::Oldest => 0,
            Source::Newest => count - 1,
            Source::Seed {
                random, keeps_of_8, ..
            } => match random.below(8) < *keeps_of_8 {
                true => 1 + random.below(count - 1),
                false => 0,
            },
            Source::Every(odometer) => odometer.answer(count),
        }
    }

    pub(super) fn keeps_all(&self) -> bool {
        matches!(self.0, Source::Newest)
    }

    pub(super) fn names_in_order(&self) -> bool {
        matches!(self.0, Source::Seed { in_order: true, .. })
    }

    /// Whether the sector at hand is cut in the middle of its newest store.
    pub(super) fn tears(&mut self) -> bool {
        match &mut self.0 {
            Source::Seed { random, tears, .. } => *tears && random.below(2) == 0,
            _ => false,
        }
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        match &mut self.0 {
            Source::Seed { random, .. } => random.below(bound),
            _ => 0,
        }
    }
}

/// Every state in which a crash may leave a disk: see [`SimDisk::every_crash`].
#[derive(Debug)]
pub struct EveryCrash {
    disk: SimDisk,
    odometer: Odometer,
    over: bool,
}

impl EveryCrash {
    pub(super) fn of(disk: SimDisk) -> Self {
        Self {
            disk,
            odometer: Odometer::default(),
            over: false,
        }
    }
}

impl Iterator for EveryCrash {
    type Item = SimDisk;

    fn next(&mut self) -> Option<SimDisk> {
        if self.over {
            return None;
        }
        let mut choose = Choose(Source::Every(&mut self.odometer));
        let crashed = self.disk.crash_by(&mut choose);
        self.over = !self.odometer.turn();
        Some(crashed)
    }
}

/// Shows every tree of names that a crash may leave.
pub(super) fn for_every_tree(names: &Names, mut see: impl FnMut(&Names)) {
    let mut odometer = Odometer::default();
    loop {
        see(&names.crashed(&mut Choose(Source::Every(&mut odometer))));
        if !odometer.turn() {
            return;
        }
    }
}
