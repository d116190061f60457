//! The content of one file: what reads show, what is on the medium, and what lies between.
//!
//! *Pending* is every version of a sector and every length since the last sync, without a bound:
//! a log syncs so often that few ever gather, and a limit would hide the one that matters.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::crash::Choose;
use super::image::{Image, PAGE, SECTOR, Sector};

/// See the module head.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    cache: Image,
    disk: Image,
    /// Versions of sectors since the last sync, oldest first.
    dirty: BTreeMap<usize, Vec<Arc<Sector>>>,
    /// Lengths since the last sync, oldest first.
    lens: Vec<usize>,
    /// Sectors whose write failed: the kernel believes them clean, and they are not on the medium.
    lost: BTreeSet<usize>,
    bad_reads: Vec<Range<u64>>,
}

impl Hash for Node {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.cache.hash(state);
    }
}

impl Node {
    pub(super) fn len(&self) -> usize {
        self.cache.len()
    }

    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let end = offset.saturating_add(buf.len() as u64);
        let bad = |r: &Range<u64>| r.start < end && offset < r.end;
        if self.bad_reads.iter().any(bad) {
            return Err(io::Error::from_raw_os_error(super::faults::EIO));
        }
        if end > self.cache.len() as u64 && !buf.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.cache
            .read(usize::try_from(offset).unwrap_or(usize::MAX), buf);
        Ok(())
    }

    pub(super) fn fail_reads(&mut self, range: Range<u64>) {
        self.bad_reads.push(range);
    }

    /// A store into the page cache. What it hits becomes pending at once; so does what a failed
    /// write has left in the same pages, because pages are written back whole.
    pub(super) fn store(&mut self, at: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let end = at + bytes.len();
        if end > self.cache.len() {
            self.set_len(end);
        }
        self.cache.write(at, bytes);
        for sector in at / SECTOR..end.div_ceil(SECTOR) {
            self.lost.remove(&sector);
            self.note_version(sector);
        }
        let pages = at / PAGE * (PAGE / SECTOR)..end.div_ceil(PAGE) * (PAGE / SECTOR);
        let again: Vec<usize> = self.lost.range(pages).copied().collect();
        for sector in again {
            self.lost.remove(&sector);
            self.note_version(sector);
        }
    }

    fn note_version(&mut self, sector: usize) {
        let bytes = self.cache.sector(sector);
        let versions = self.dirty.get(&sector).and_then(|v| v.last());
        let unchanged = match versions {
            Some(newest) => **newest == bytes,
            None => self.disk.sector(sector) == bytes,
        };
        if !unchanged {
            self.dirty.entry(sector).or_default().push(Arc::new(bytes));
        }
    }

    pub(super) fn set_len(&mut self, len: usize) {
        self.cache.set_len(len);
        self.lens.push(len);
    }

    pub(super) fn sync(&mut self) {
        for len in std::mem::take(&mut self.lens) {
            self.disk.set_len(len);
        }
        for (sector, versions) in std::mem::take(&mut self.dirty) {
            if let Some(newest) = versions.last() {
                self.disk.set_sector(sector, newest);
            }
        }
    }

    /// A write-back that failed: the kernel believes the pages clean, reads show the new bytes,
    /// later syncs say Ok, and the medium has none of it, or of each sector what `reached` says.
    pub(super) fn lose(&mut self, mut reached: impl FnMut() -> bool) {
        for (sector, versions) in std::mem::take(&mut self.dirty) {
            match versions.last() {
                Some(newest) if reached() => self.disk.set_sector(sector, newest),
                _ => {
                    self.lost.insert(sector);
                }
            }
        }
    }

    /// Changes bytes on the medium and in the cache alike: rot.
    pub(super) fn rot(&mut self, at: usize, change: impl Fn(&mut u8)) {
        for view in [&mut self.cache, &mut self.disk] {
            if at < view.len() {
                let mut byte = [0];
                view.read(at, &mut byte);
                change(&mut byte[0]);
                view.write(at, &byte);
            }
        }
    }

    /// What reads show of `len` bytes from `at`.
    pub(super) fn slice(&self, at: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.cache.read(at, &mut bytes);
        bytes
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.slice(0, self.cache.len())
    }

    /// The file after a power loss, by what `choose` keeps of each pending piece.
    pub(super) fn crashed(&self, choose: &mut Choose<'_>) -> Self {
        if choose.keeps_all() {
            let mut all = self.clone();
            all.sync();
            return Self::found(all.disk, &self.bad_reads);
        }
        let mut disk = self.disk.clone();
        let lens = self.len_choices();
        let kept = choose.state(lens.len());
        for len in &self.lens[..lens[kept]] {
            disk.set_len(*len);
        }
        for sector in self.dirty.keys() {
            if sector * SECTOR < disk.len() {
                let states = self.sector_choices(*sector);
                let at = choose.state(states.len());
                let mut bytes = *states[at];
                if at > 0 && choose.tears() {
                    let cut = choose.below(SECTOR / 8) * 8;
                    bytes[cut..].copy_from_slice(&states[at - 1][cut..]);
                }
                disk.set_sector(*sector, &bytes);
            }
        }
        Self::found(disk, &self.bad_reads)
    }

    /// A file as it is found on a medium.
    fn found(disk: Image, bad_reads: &[Range<u64>]) -> Self {
        Self {
            cache: disk.clone(),
            disk,
            bad_reads: bad_reads.to_vec(),
            ..Self::default()
        }
    }

    /// How many of the pending lengths may have been reached, without repeats.
    fn len_choices(&self) -> Vec<usize> {
        let mut seen = vec![self.disk.len()];
        let mut choices = vec![0];
        for (index, len) in self.lens.iter().enumerate() {
            if !seen.contains(len) {
                seen.push(*len);
                choices.push(index + 1);
            }
        }
        choices
    }

    /// What a sector may hold after a crash: what is synced first, then by age, without repeats.
    fn sector_choices(&self, sector: usize) -> Vec<Arc<Sector>> {
        let mut states = vec![Arc::new(self.disk.sector(sector))];
        for version in self.dirty.get(&sector).into_iter().flatten() {
            if !states.contains(version) {
                states.push(Arc::clone(version));
            }
        }
        states
    }

    /// How many states a crash may leave the file in.
    pub(super) fn states(&self) -> u64 {
        let mut states = 0_u64;
        for reached in self.len_choices() {
            let mut len = self.disk.len();
            if let Some(last) = reached.checked_sub(1) {
                len = self.lens[last];
            }
            let dirty = self.dirty.keys().filter(|sector| *sector * SECTOR < len);
            let product = dirty.fold(1_u64, |product, sector| {
                product.saturating_mul(self.sector_choices(*sector).len() as u64)
            });
            states = states.saturating_add(product);
        }
        states
    }

    /// Versions of sectors and lengths that wait for a sync.
    pub(super) fn pending(&self) -> usize {
        self.dirty.values().map(Vec::len).sum::<usize>() + self.lens.len()
    }
}
