//! The one file with `unsafe`: a mapped file as a region of bytes.
//!
//! *Contract*: what has been viewed is never stored to again, and what is being stored to cannot
//! be viewed. [`Frontier`] keeps it for every store through this process, by the map or by
//! `pwrite`; the directory lock keeps other processes of ours away. A foreign process that writes
//! to the file or cuts it breaks the contract, as it would break any database.
//!
//! Raw pointers only: no `&mut [u8]` over the map ever exists, so no two Rust references over
//! the same bytes disagree. The same code runs over a heap buffer, for the interpreter that
//! checks it (`tests/long/miri.sh`).

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use memmap2::{Advice, MmapOptions, MmapRaw};

/// Keeps the stores into one file away from the views of it. A log only grows, so two marks are
/// enough.
#[derive(Debug)]
pub struct Frontier {
    /// Held by the store under way.
    one_store: Mutex<()>,
    /// Held for moments only.
    marks: Mutex<Marks>,
}

#[derive(Debug)]
struct Marks {
    /// Behind the last byte of which there is, or was, a view.
    viewed: usize,
    /// Where the store under way begins; past everything when there is none.
    storing: usize,
}

impl Default for Frontier {
    fn default() -> Self {
        Self {
            one_store: Mutex::default(),
            marks: Mutex::new(Marks {
                viewed: 0,
                storing: usize::MAX,
            }),
        }
    }
}

impl Frontier {
    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a store that touches nothing in front of `offset`.
    ///
    /// # Errors
    /// Something at or behind `offset` has been viewed: nothing is stored.
    pub fn store(&self, offset: usize, store: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let _one = self
            .one_store
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        {
            let mut marks = self.marks();
            if marks.viewed > offset {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "a store into bytes that somebody may be reading",
                ));
            }
            marks.storing = offset;
        }
        let result = store();
        // After a panic the mark stays, and nothing behind it can be viewed.
        self.marks().storing = usize::MAX;
        result
    }

    /// Whether a view up to `end` may be given out. From then on no store may touch it.
    fn view(&self, end: usize) -> bool {
        let mut marks = self.marks();
        let free = end <= marks.storing;
        if free {
            marks.viewed = marks.viewed.max(end);
        }
        free
    }
}

/// Bytes that outlive the file's name: dropped when the last slice is.
#[derive(Debug)]
pub struct Region {
    memory: Memory,
    len: usize,
    writable: bool,
    frontier: Arc<Frontier>,
}

#[derive(Debug)]
enum Memory {
    Map(MmapRaw),
    #[cfg(test)]
    Heap(*mut [u8]),
}

// SAFETY: the memory is owned, its address never changes, and no part of it belongs to a thread:
// a map and a heap buffer may be used and given back by any.
unsafe impl Send for Region {}
// SAFETY: all access through `&self` goes through `store` and through views, which `Frontier`
// keeps apart: stores exclude each other, and no store and no view ever cover the same byte.
unsafe impl Sync for Region {}

#[cfg(test)]
impl Drop for Region {
    fn drop(&mut self) {
        if let Memory::Heap(pointer) = self.memory {
            // SAFETY: `heap` made the pointer by `Box::into_raw` and nobody else frees it.
            drop(unsafe { Box::from_raw(pointer) });
        }
    }
}

impl Region {
    /// Maps the whole file shared; `writable` for stores. Every store into the file, also past
    /// the map, must go through `frontier`.
    pub fn map(
        file: &File,
        len: usize,
        writable: bool,
        frontier: Arc<Frontier>,
    ) -> io::Result<Self> {
        let mut options = MmapOptions::new();
        options.len(len);
        let map = if writable {
            options.map_raw(file)?
        } else {
            options.map_raw_read_only(file)?
        };
        Ok(Self {
            memory: Memory::Map(map),
            len,
            writable,
            frontier,
        })
    }

    /// A zeroed region on the heap.
    #[cfg(test)]
    fn heap(len: usize) -> Self {
        let boxed = vec![0_u8; len].into_boxed_slice();
        Self {
            memory: Memory::Heap(Box::into_raw(boxed)),
            len,
            writable: true,
            frontier: Arc::default(),
        }
    }

    fn pointer(&self) -> *mut u8 {
        match &self.memory {
            Memory::Map(map) => map.as_mut_ptr(),
            #[cfg(test)]
            Memory::Heap(pointer) => pointer.cast::<u8>(),
        }
    }

    /// Where a range ends, if it lies inside.
    fn end(&self, offset: usize, len: usize) -> io::Result<usize> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(end),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "outside of the mapped region",
            )),
        }
    }

    /// Copies `bytes` to `offset`.
    ///
    /// # Errors
    /// The region is not writable, the range is not inside, or something at or behind `offset`
    /// has been viewed.
    pub fn store(&self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        self.end(offset, bytes.len())?;
        if !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.frontier.store(offset, || {
            // SAFETY: `end` keeps offset inside the region.
            let target = unsafe { self.pointer().add(offset) };
            // SAFETY: source and target are valid for the length (`end`, `writable`). They do not
            // overlap, and no reference covers the target: `Frontier` refuses a store under a
            // view and a view under a store, and views are the only references ever made.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len()) };
            Ok(())
        })
    }

    /// A view of a range, which is never stored to again; keeps the region alive. `None` where
    /// the range is not inside or is being stored to.
    pub fn slice(self: &Arc<Self>, offset: usize, len: usize) -> Option<Bytes> {
        let end = self.end(offset, len).ok()?;
        if len == 0 {
            return Some(Bytes::new());
        }
        self.frontier.view(end).then(|| {
            Bytes::from_owner(View {
                region: Arc::clone(self),
                offset,
                len,
            })
        })
    }

    /// Reads `[0, len)` ahead into the map, without dirtying it.
    pub fn populate(&self, len: usize) {
        #[cfg_attr(
            not(test),
            allow(irrefutable_let_patterns, reason = "tests have two kinds")
        )]
        if let Memory::Map(map) = &self.memory
            && len > 0
            && let Err(error) = map.advise_range(Advice::PopulateRead, 0, len.min(self.len))
        {
            tracing::debug!("populate: {error}");
        }
    }
}

/// Owner of the bytes behind one [`Bytes`].
struct View {
    region: Arc<Region>,
    offset: usize,
    len: usize,
}

impl AsRef<[u8]> for View {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `slice` has checked the range.
        let start = unsafe { self.region.pointer().add(self.offset) };
        // SAFETY: the range is initialised (file bytes or zeroed heap) and lives as long as
        // `self` holds the region. It is not written to meanwhile: the store that made it has
        // returned, `slice` has told `Frontier` of it, and `Frontier` refuses every later one.
        unsafe { std::slice::from_raw_parts(start, self.len) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn slices_outlive_the_handle_and_ranges_are_checked() {
        let region = Arc::new(Region::heap(64));
        region.store(8, b"forebay").unwrap();
        let slice = region.slice(8, 7).unwrap();
        region.store(15, b"behind").unwrap();
        assert!(region.store(60, b"too long").is_err());
        assert!(region.store(usize::MAX, b"x").is_err());
        assert!(region.slice(usize::MAX, 2).is_none());
        assert!(region.slice(63, 2).is_none());
        assert_eq!(region.slice(64, 0).unwrap().len(), 0);
        drop(region);
        assert_eq!(&slice[..], b"forebay");
    }

    #[test]
    fn what_is_viewed_is_not_stored_to_again() {
        let region = Arc::new(Region::heap(64));
        region.store(0, b"0123456789").unwrap();
        let slice = region.slice(2, 4).unwrap();
        for offset in [0, 2, 5] {
            let refused = region.store(offset, b"x").unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "at {offset}");
        }
        region.store(6, b"x").unwrap();
        assert_eq!(&slice[..], b"2345");
        // Also after the view is gone: nobody counts them.
        drop(slice);
        assert!(region.store(2, b"x").is_err());
        assert_eq!(&region.slice(0, 10).unwrap()[..], b"012345x789");
    }

    #[test]
    fn what_is_being_stored_to_is_not_viewed() {
        let region = Arc::new(Region::heap(64));
        region.store(0, b"0123").unwrap();
        let under_way = region.frontier.store(4, || {
            assert!(region.slice(0, 5).is_none(), "over the store");
            assert!(region.slice(8, 1).is_none(), "behind where it begins");
            assert_eq!(&region.slice(0, 4).unwrap()[..], b"0123");
            Ok(())
        });
        under_way.unwrap();
        assert_eq!(region.slice(0, 5).unwrap().len(), 5);
    }

    #[test]
    fn a_store_that_panicked_or_failed_leaves_its_range_as_the_contract_wants_it() {
        let frontier = Frontier::default();
        let failed = frontier.store(4, || Err(io::ErrorKind::StorageFull.into()));
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(frontier.view(5), "a failed store has returned");
        let store = || frontier.store(8, || panic!("in the middle"));
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(store));
        assert!(caught.is_err());
        assert!(!frontier.view(9), "nobody knows when it stopped");
        assert!(frontier.view(8));
    }

    /// One thread stores ascending records and says how far it has come; others view what is
    /// there, keep it, hand it on and drop it last.
    #[test]
    fn threads_store_and_view_side_by_side() {
        const RECORDS: usize = if cfg!(miri) { 12 } else { 400 };
        let region = Arc::new(Region::heap(RECORDS * 8));
        let stored = Arc::new(AtomicUsize::new(0));
        let writer = {
            let (region, stored) = (Arc::clone(&region), Arc::clone(&stored));
            std::thread::spawn(move || {
                for record in 0..RECORDS {
                    let bytes = [u8::try_from(record % 251).unwrap(); 8];
                    // Two stores each, as the pieces of a group.
                    region.store(record * 8, &bytes[..3]).unwrap();
                    region.store(record * 8 + 3, &bytes[3..]).unwrap();
                    stored.store(record + 1, Ordering::Release);
                }
            })
        };
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let (region, stored) = (Arc::clone(&region), Arc::clone(&stored));
                std::thread::spawn(move || {
                    let (mut next, mut views) = (0, Vec::new());
                    while next < RECORDS {
                        let end = stored.load(Ordering::Acquire);
                        if end > next {
                            views.push(region.slice(next * 8, (end - next) * 8).unwrap());
                            next = end;
                        }
                        std::thread::yield_now();
                    }
                    views
                })
            })
            .collect();
        let memory = Arc::downgrade(&region);
        drop(region);
        writer.join().unwrap();
        for reader in readers {
            let views = reader.join().unwrap();
            assert!(memory.upgrade().is_some(), "views keep the memory");
            let bytes: Vec<u8> = views.iter().flat_map(|view| view.iter().copied()).collect();
            let part = views[0].slice(1..5);
            drop(views);
            assert_eq!(&part[..], [0; 4]);
            let expected = (0..RECORDS).flat_map(|r| [u8::try_from(r % 251).unwrap(); 8]);
            assert!(bytes.into_iter().eq(expected));
        }
        assert!(memory.upgrade().is_none(), "and nobody else does");
    }
}
