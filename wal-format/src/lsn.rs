//! The log sequence number: one position in the whole log.

use core::fmt;

/// A log-wide byte position: segment number in the upper 32 bits, byte offset in that segment in
/// the lower 32. Orders as the log does. `Lsn(0)` means "nothing": no segment's frames begin at
/// offset 0, so no frame has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

#[allow(
    clippy::as_conversions,
    reason = "From is not const; both directions keep every bit meant"
)]
impl Lsn {
    /// The position `offset` bytes into segment number `segment`.
    pub const fn new(segment: u32, offset: u32) -> Self {
        Self(((segment as u64) << 32) | offset as u64)
    }

    /// Number of the segment.
    pub const fn segment(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Byte offset in the segment.
    pub const fn offset(self) -> u32 {
        (self.0 & 0xffff_ffff) as u32
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.segment(), self.offset())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segment_and_offset_come_back_and_order_is_the_logs() {
        for (s, o) in [
            (0, 0),
            (1, 4096),
            (u32::MAX, u32::MAX),
            (7, u32::MAX),
            (u32::MAX, 0),
        ] {
            let lsn = Lsn::new(s, o);
            assert_eq!((lsn.segment(), lsn.offset()), (s, o));
        }
        assert!(Lsn::new(1, u32::MAX) < Lsn::new(2, 0));
        assert!(Lsn::new(2, 8) < Lsn::new(2, 16));
        assert_eq!(alloc::format!("{}", Lsn::new(3, 4096)), "3:4096");
    }
}
