//! The one file with `unsafe`: a mapped file as a region of bytes.
//!
//! *Contract*: the log stores a byte range at most once between two syncs that matter to readers,
//! and never again once it is durable; slices are given out for such ranges only. The directory
//! lock keeps other processes of ours away; a foreign process that writes or truncates the file
//! breaks the contract, as it would break any database.
//!
//! Raw pointers only: no `&mut [u8]` over the map ever exists, so no two Rust references over
//! the same bytes disagree. The same code runs over a heap buffer, for the interpreter that
//! checks it.

use std::fs::File;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use memmap2::{Advice, MmapOptions, MmapRaw};

/// Bytes that outlive the file's name: dropped when the last slice is.
#[derive(Debug)]
pub struct Region {
    memory: Memory,
    len: usize,
    writable: bool,
}

#[derive(Debug)]
enum Memory {
    Map(MmapRaw),
    Heap(*mut [u8]),
}

// SAFETY: the memory is owned, its address never changes, and all access goes through the checked
// methods below, whose contract keeps stores and slices of the same bytes apart.
unsafe impl Send for Region {}
// SAFETY: as above; `store` takes `&self` and is called by one committer at a time.
unsafe impl Sync for Region {}

impl Drop for Region {
    fn drop(&mut self) {
        if let Memory::Heap(pointer) = self.memory {
            // SAFETY: `heap` made the pointer by `Box::into_raw` and nobody else frees it.
            drop(unsafe { Box::from_raw(pointer) });
        }
    }
}

impl Region {
    /// Maps the whole file shared; `writable` for stores.
    pub fn map(file: &File, len: usize, writable: bool) -> io::Result<Self> {
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
        })
    }

    /// A zeroed region on the heap.
    pub fn heap(len: usize) -> Self {
        let boxed = vec![0_u8; len].into_boxed_slice();
        Self {
            memory: Memory::Heap(Box::into_raw(boxed)),
            len,
            writable: true,
        }
    }

    fn pointer(&self) -> *mut u8 {
        match &self.memory {
            Memory::Map(map) => map.as_mut_ptr(),
            Memory::Heap(pointer) => pointer.cast::<u8>(),
        }
    }

    fn check(&self, offset: usize, len: usize) -> io::Result<()> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "outside of the mapped region",
            )),
        }
    }

    /// Copies `bytes` to `offset`. The region must be writable and no slice may cover the range.
    pub fn store(&self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        self.check(offset, bytes.len())?;
        if !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        // SAFETY: `check` keeps offset inside the region.
        let target = unsafe { self.pointer().add(offset) };
        // SAFETY: source and target are valid for the length (`check`, `writable`) and do not
        // overlap: the source is a Rust slice, the target memory that no Rust reference covers
        // (contract).
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len()) };
        Ok(())
    }

    /// A view of a range that will not be stored to again; keeps the region alive.
    pub fn slice(self: &Arc<Self>, offset: usize, len: usize) -> Option<Bytes> {
        self.check(offset, len).ok()?;
        Some(Bytes::from_owner(View {
            region: Arc::clone(self),
            offset,
            len,
        }))
    }

    /// Reads `[0, len)` ahead into the map, without dirtying it.
    pub fn populate(&self, len: usize) {
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
        // SAFETY: the range is initialised (file bytes or zeroed heap), lives as long as `self`
        // holds the region, and is never stored to again (contract).
        unsafe { std::slice::from_raw_parts(start, self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_outlive_the_handle_and_ranges_are_checked() {
        let region = Arc::new(Region::heap(64));
        region.store(8, b"forebay").unwrap();
        let slice = region.slice(8, 7).unwrap();
        region.store(15, b"behind").unwrap();
        assert!(region.store(60, b"too long").is_err());
        assert!(region.slice(usize::MAX, 2).is_none());
        drop(region);
        assert_eq!(&slice[..], b"forebay");
    }
}
