//! What a disk holds, and what it would hold if the power went now: a pure model, no I/O.
//!
//! A write is *pending* from the moment it arrives until the next flush. At a cut each *unit*
//! (a sector of 512 bytes, or 4 KiB on a disk of such physical sectors) by itself holds what was
//! last flushed or is as it was after any write since, as [`Keep`] and the seed say; nothing is
//! ever half a unit (*powersafe overwrite*, see docs/DURABILITY.md).

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::BTreeMap;

/// The unit of reads and writes, and on some disks of what is written whole.
pub(crate) const SECTOR: usize = 512;

type Sector = Box<[u8; SECTOR]>;

/// Numbers from a seed (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Seeded(u64);

impl Seeded {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// `0..bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Which pending sectors a cut keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Keep {
    /// The disk's cache is gone.
    Nothing,
    /// The disk's cache was written out just in time.
    Everything,
    /// The writes that arrived first, as many as the seed says.
    Front,
    /// Each unit by itself, with this chance in a hundred, as it was after any of its writes.
    Each(u8),
}

impl Keep {
    /// One of all ways, by seed.
    pub(crate) fn by_seed(seed: &mut Seeded) -> Self {
        match seed.below(8) {
            0 => Self::Nothing,
            1 => Self::Everything,
            2 | 3 => Self::Front,
            4 => Self::Each(10),
            5 | 6 => Self::Each(50),
            _ => Self::Each(90),
        }
    }
}

/// How a cut ended for the sectors that were pending.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lost {
    pub(crate) pending: u64,
    pub(crate) dropped: u64,
}

/// See the module head.
pub(crate) struct Medium {
    /// What is on the platter.
    durable: Vec<u8>,
    /// What a reader sees.
    cache: Vec<u8>,
    /// Every version of each sector since the last flush, with the number of its write.
    pending: BTreeMap<u64, Vec<(u64, Sector)>>,
    writes: u64,
    /// Bytes, aligned, that are written whole or not at all.
    unit: u64,
}

impl Medium {
    /// A disk of zeros. Memory is taken only for what is written.
    pub(crate) fn new(bytes: usize, unit: usize) -> Self {
        assert!(bytes.is_multiple_of(SECTOR) && unit.is_multiple_of(SECTOR));
        Self {
            durable: vec![0; bytes],
            cache: vec![0; bytes],
            pending: BTreeMap::new(),
            writes: 0,
            unit: unit as u64,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.cache.len()
    }

    /// Bytes from the factory: durable at once.
    pub(crate) fn preset(&mut self, at: usize, bytes: &[u8]) {
        self.durable[at..at + bytes.len()].copy_from_slice(bytes);
        self.cache[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub(crate) fn read(&self, at: usize, len: usize) -> &[u8] {
        let end = at.saturating_add(len).min(self.cache.len());
        &self.cache[at.min(end)..end]
    }

    /// What a power cut with an empty cache would leave.
    pub(crate) fn durable(&self) -> &[u8] {
        &self.durable
    }

    pub(crate) fn pending(&self) -> u64 {
        self.pending.len() as u64
    }

    pub(crate) fn write(&mut self, at: usize, bytes: &[u8]) {
        self.cache[at..at + bytes.len()].copy_from_slice(bytes);
        self.writes += 1;
        for sector in at / SECTOR..(at + bytes.len()).div_ceil(SECTOR) {
            let from = sector * SECTOR;
            let now: [u8; SECTOR] = self.cache[from..from + SECTOR]
                .try_into()
                .expect("a sector");
            let versions = self.pending.entry(sector as u64).or_default();
            versions.push((self.writes, Box::new(now)));
        }
    }

    /// Everything that has arrived is on the platter.
    pub(crate) fn flush(&mut self) {
        for (sector, versions) in std::mem::take(&mut self.pending) {
            let (_, newest) = versions.last().expect("a pending sector has a version");
            self.settle(sector, &newest[..]);
        }
    }

    /// The power goes and comes back.
    pub(crate) fn cut(&mut self, keep: Keep, seed: &mut Seeded) -> Lost {
        let pending = std::mem::take(&mut self.pending);
        let mut lost = Lost {
            pending: pending.len() as u64,
            dropped: 0,
        };
        let front = last_of_the_front(&pending, self.writes, seed);
        let sectors: Vec<_> = pending.into_iter().collect();
        let sectors_a_unit = self.unit / SECTOR as u64;
        let unit_of = |sector: u64| sector / sectors_a_unit;
        for unit in sectors.chunk_by(|(a, _), (b, _)| unit_of(*a) == unit_of(*b)) {
            let until = match keep {
                Keep::Nothing => 0,
                Keep::Everything => u64::MAX,
                Keep::Front => front,
                Keep::Each(percent) if seed.below(100) < u64::from(percent) => {
                    let writes: Vec<u64> = unit.iter().flat_map(|(_, v)| v).map(|v| v.0).collect();
                    writes[seed.below(writes.len() as u64) as usize]
                }
                Keep::Each(_) => 0,
            };
            for (sector, versions) in unit {
                lost.dropped += u64::from(!self.keep(*sector, versions, until));
            }
        }
        lost
    }

    /// Leaves a sector as it was after the write numbered `until`; false if none of its versions
    /// is so old.
    fn keep(&mut self, sector: u64, versions: &[(u64, Sector)], until: u64) -> bool {
        match versions.iter().rev().find(|(write, _)| *write <= until) {
            Some((_, bytes)) => {
                self.settle(sector, &bytes[..]);
                true
            }
            None => {
                let from = sector as usize * SECTOR;
                let range = from..from + SECTOR;
                self.cache[range.clone()].copy_from_slice(&self.durable[range]);
                false
            }
        }
    }

    fn settle(&mut self, sector: u64, bytes: &[u8]) {
        let from = sector as usize * SECTOR;
        self.durable[from..from + SECTOR].copy_from_slice(bytes);
        self.cache[from..from + SECTOR].copy_from_slice(bytes);
    }
}

/// The number of some write that is still pending, or of the one before them.
fn last_of_the_front(
    pending: &BTreeMap<u64, Vec<(u64, Sector)>>,
    newest: u64,
    seed: &mut Seeded,
) -> u64 {
    let first = pending.values().filter_map(|v| v.first()).map(|(n, _)| *n);
    let oldest = first.min().unwrap_or(newest);
    oldest.saturating_sub(1) + seed.below(newest - oldest.min(newest) + 2)
}
