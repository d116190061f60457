//! A window of a segment's bytes, refilled as the scan moves: what bounds the scanner's memory.

use alloc::vec::Vec;

use crate::code::widen;
use crate::scan::ReadAt;

/// Bytes read at once.
pub(crate) const WINDOW_BYTES: u32 = 256 * 1024;
/// What a failed read is narrowed to: a bad sector spoils one block, not its neighbours.
pub(crate) const BLOCK_BYTES: u32 = 4096;

/// The next multiple of the block size above `offset`.
pub(crate) fn block_end(offset: u32) -> u32 {
    (offset & !BLOCK_BYTES.wrapping_sub(1)).saturating_add(BLOCK_BYTES)
}

/// Bytes [at, at + len) of the segment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Window {
    bytes: Vec<u8>,
    at: u32,
    len: u32,
}

impl Window {
    /// Bytes [offset, offset + need), or `None` where the window does not hold them all.
    pub(crate) fn get(&self, offset: u32, need: u32) -> Option<&[u8]> {
        let from = offset.checked_sub(self.at)?;
        let to = from.checked_add(need).filter(|&to| to <= self.len)?;
        self.bytes.get(widen(from)..widen(to))
    }

    /// Bytes [offset, offset + need), read if they are not here; the caller has checked that they
    /// lie before `end`. Reads ahead up to the window size; where that fails, only the blocks
    /// that are needed.
    pub(crate) fn load<R: ReadAt>(
        &mut self,
        reader: &mut R,
        offset: u32,
        need: u32,
        end: u32,
    ) -> Result<&[u8], R::Error> {
        if self.get(offset, need).is_none() {
            let left = end.saturating_sub(offset);
            let ahead = need.max(WINDOW_BYTES).min(left);
            if self.fill(reader, offset, ahead).is_err() {
                let last = offset.saturating_add(need).saturating_sub(1);
                let narrow = block_end(last).min(end).saturating_sub(offset);
                self.fill(reader, offset, narrow)?;
            }
        }
        Ok(self.get(offset, need).unwrap_or_default())
    }

    fn fill<R: ReadAt>(&mut self, reader: &mut R, at: u32, len: u32) -> Result<(), R::Error> {
        self.len = 0;
        if self.bytes.len() < widen(len) {
            self.bytes.resize(widen(len), 0);
        } else if self.bytes.len() > widen(len.max(WINDOW_BYTES)) {
            // A large frame made it grow; it is behind us.
            self.bytes.truncate(widen(len.max(WINDOW_BYTES)));
            self.bytes.shrink_to_fit();
        }
        if let Some(buffer) = self.bytes.get_mut(..widen(len)) {
            reader.read_at(at, buffer)?;
        }
        (self.at, self.len) = (at, len);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A segment of zeros that is as large as anyone asks for.
    struct Zeros;

    impl ReadAt for Zeros {
        type Error = core::convert::Infallible;

        fn read_at(&mut self, _: u32, buf: &mut [u8]) -> Result<(), Self::Error> {
            buf.fill(0);
            Ok(())
        }
    }

    #[test]
    fn a_window_that_a_large_frame_has_grown_shrinks_behind_it() {
        let mut window = Window::default();
        let end = 16 * WINDOW_BYTES;
        let Ok(frame) = window.load(&mut Zeros, 0, 3 * WINDOW_BYTES, end);
        assert_eq!(frame.len(), widen(3 * WINDOW_BYTES));
        let Ok(next) = window.load(&mut Zeros, 3 * WINDOW_BYTES, 1, end);
        assert_eq!(next.len(), 1);
        assert!(window.bytes.capacity() < widen(2 * WINDOW_BYTES));
    }
}
