//! The header block of a segment: who it belongs to, its number, size and salt.
//!
//! *Place in the flow*: the preallocator writes the block at offset 0 and again in the last 4096
//! bytes before the segment gets its name; it never changes afterwards. A reader that finds one
//! copy bad takes the other.

use alloc::vec::Vec;

use crate::code::widen;
use crate::error::SegmentError;

/// Bytes of the header block, at either end of the segment.
pub const SEGMENT_HEADER_BYTES: u32 = 4096;
/// Smallest segment, in bytes.
pub const SEGMENT_BYTES_MIN: u32 = 64 * 1024;
/// Largest segment, in bytes.
pub const SEGMENT_BYTES_MAX: u32 = 128 << 20;
/// The version of the format that this crate writes and reads.
pub const FORMAT_VERSION: u16 = 1;

/// First bytes of every segment.
const MAGIC: [u8; 8] = *b"FOREBAYL";
/// Incompatible feature flags that this version knows: none yet.
const INCOMPATIBLE_KNOWN: u32 = 0;
/// Where the summed bytes begin: behind the magic and the sum itself.
const SUMMED_FROM: usize = 12;

/// What a segment says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Features that a reader must know to read the segment; unknown bits refuse it.
    pub incompatible: u32,
    /// Features that a reader may ignore.
    pub compatible: u32,
    /// Random identity of the channel.
    pub channel_id: [u8; 16],
    /// Number of the segment in the log, from 1.
    pub segment: u32,
    /// Bytes of the whole segment, both header copies included; a multiple of 4096.
    pub size: u32,
    /// Random number that seeds every frame header's checksum in this segment.
    pub salt: u64,
    /// Wall clock when the segment was prepared, in milliseconds since the Unix epoch.
    pub prepared_at_ms: u64,
    /// Cipher of the frames' bodies; 0 = none, the only one known.
    pub cipher_id: u16,
    /// Key of the cipher; 0 without one.
    pub key_id: u32,
    /// Compression of the frames' bodies; 0 = none, the only one known.
    pub compression_id: u16,
}

impl SegmentHeader {
    /// The header block: exactly 4096 bytes, the rest zero.
    pub fn encode(&self) -> Vec<u8> {
        let mut summed = Vec::with_capacity(widen(SEGMENT_HEADER_BYTES));
        summed.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        summed.extend_from_slice(&self.cipher_id.to_le_bytes());
        summed.extend_from_slice(&self.incompatible.to_le_bytes());
        summed.extend_from_slice(&self.compatible.to_le_bytes());
        summed.extend_from_slice(&self.channel_id);
        summed.extend_from_slice(&self.segment.to_le_bytes());
        summed.extend_from_slice(&self.size.to_le_bytes());
        summed.extend_from_slice(&self.salt.to_le_bytes());
        summed.extend_from_slice(&self.prepared_at_ms.to_le_bytes());
        summed.extend_from_slice(&self.key_id.to_le_bytes());
        summed.extend_from_slice(&self.compression_id.to_le_bytes());
        summed.resize(widen(SEGMENT_HEADER_BYTES).saturating_sub(SUMMED_FROM), 0);
        let mut block = Vec::with_capacity(widen(SEGMENT_HEADER_BYTES));
        block.extend_from_slice(&MAGIC);
        block.extend_from_slice(&crc32fast::hash(&summed).to_le_bytes());
        block.extend_from_slice(&summed);
        block
    }

    /// Reads a header block from the first 4096 of `bytes`.
    ///
    /// # Errors
    /// In this order: too short, all zero, wrong magic, bad checksum, unknown version, unknown
    /// incompatible features, size out of bounds, unknown cipher or compression. Bytes behind the
    /// last field are covered by the checksum and otherwise ignored: compatible features live
    /// there.
    pub fn decode(bytes: &[u8]) -> Result<Self, SegmentError> {
        let block = bytes
            .get(..widen(SEGMENT_HEADER_BYTES))
            .ok_or(SegmentError::TooShort)?;
        if block.iter().all(|&b| b == 0) {
            return Err(SegmentError::Blank);
        }
        let mut fields = Fields(block);
        if fields.next::<8>()? != MAGIC {
            return Err(SegmentError::NotASegment);
        }
        let sum = u32::from_le_bytes(fields.next()?);
        if sum != crc32fast::hash(fields.0) {
            return Err(SegmentError::BadChecksum);
        }
        let version = u16::from_le_bytes(fields.next()?);
        if version != FORMAT_VERSION {
            return Err(SegmentError::UnknownVersion(version));
        }
        let cipher_id = u16::from_le_bytes(fields.next()?);
        let header = Self {
            cipher_id,
            incompatible: u32::from_le_bytes(fields.next()?),
            compatible: u32::from_le_bytes(fields.next()?),
            channel_id: fields.next()?,
            segment: u32::from_le_bytes(fields.next()?),
            size: u32::from_le_bytes(fields.next()?),
            salt: u64::from_le_bytes(fields.next()?),
            prepared_at_ms: u64::from_le_bytes(fields.next()?),
            key_id: u32::from_le_bytes(fields.next()?),
            compression_id: u16::from_le_bytes(fields.next()?),
        };
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> Result<(), SegmentError> {
        let unknown = self.incompatible & !INCOMPATIBLE_KNOWN;
        if unknown != 0 {
            return Err(SegmentError::UnknownIncompatible(unknown));
        }
        let in_bounds = (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&self.size);
        if !in_bounds || !self.size.is_multiple_of(SEGMENT_HEADER_BYTES) {
            return Err(SegmentError::BadSize(self.size));
        }
        if self.cipher_id != 0 {
            return Err(SegmentError::UnknownCipher(self.cipher_id));
        }
        if self.compression_id != 0 {
            return Err(SegmentError::UnknownCompression(self.compression_id));
        }
        Ok(())
    }

    /// Offset of the first frame.
    pub fn frames_begin(&self) -> u32 {
        SEGMENT_HEADER_BYTES
    }

    /// Offset behind the last byte that a frame may use: where the second header copy begins.
    pub fn frames_end(&self) -> u32 {
        self.size.saturating_sub(SEGMENT_HEADER_BYTES)
    }
}

/// Fixed fields taken from the front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn next<const N: usize>(&mut self) -> Result<[u8; N], SegmentError> {
        let (field, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(SegmentError::TooShort)?;
        self.0 = rest;
        Ok(*field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            incompatible: 0,
            compatible: 0x8000_0001,
            channel_id: *b"0123456789abcdef",
            segment: 7,
            size: 1 << 20,
            salt: 0x1122_3344_5566_7788,
            prepared_at_ms: 1_700_000_000_123,
            cipher_id: 0,
            key_id: 9,
            compression_id: 0,
        }
    }

    #[test]
    fn a_header_comes_back_and_fills_its_block() {
        let block = header().encode();
        assert_eq!(block.len(), 4096);
        assert_eq!(SegmentHeader::decode(&block), Ok(header()));
        assert_eq!(
            (header().frames_begin(), header().frames_end()),
            (4096, (1 << 20) - 4096)
        );
    }

    #[test]
    fn a_flip_of_any_bit_is_refused() {
        let good = header().encode();
        // The interpreter (Miri) tries some of them.
        let step = if cfg!(miri) { 611 } else { 1 };
        for bit in (0..good.len() * 8).step_by(step) {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let error = SegmentHeader::decode(&bad).unwrap_err();
            let expected = if bit < 64 {
                SegmentError::NotASegment
            } else {
                SegmentError::BadChecksum
            };
            assert_eq!(error, expected, "bit {bit}");
        }
    }

    #[test]
    fn what_this_version_does_not_know_is_refused() {
        let decode = |change: fn(&mut SegmentHeader)| {
            let mut h = header();
            change(&mut h);
            SegmentHeader::decode(&h.encode()).unwrap_err()
        };
        assert_eq!(
            decode(|h| h.incompatible = 6),
            SegmentError::UnknownIncompatible(6)
        );
        assert_eq!(decode(|h| h.cipher_id = 1), SegmentError::UnknownCipher(1));
        assert_eq!(
            decode(|h| h.compression_id = 2),
            SegmentError::UnknownCompression(2)
        );
        for size in [0, 65_535, 4096, (128 << 20) + 4096, 70_000, u32::MAX] {
            let mut h = header();
            h.size = size;
            assert_eq!(
                SegmentHeader::decode(&h.encode()),
                Err(SegmentError::BadSize(size))
            );
        }
    }

    #[test]
    fn another_version_a_blank_a_short_and_a_foreign_block_are_told_apart() {
        let mut block = header().encode();
        block[12] = 2;
        let sum = crc32fast::hash(&block[12..]);
        block[8..12].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(
            SegmentHeader::decode(&block),
            Err(SegmentError::UnknownVersion(2))
        );
        assert_eq!(SegmentHeader::decode(&[0; 4096]), Err(SegmentError::Blank));
        assert_eq!(
            SegmentHeader::decode(&block[..4095]),
            Err(SegmentError::TooShort)
        );
        assert_eq!(
            SegmentHeader::decode(&[7; 4096]),
            Err(SegmentError::NotASegment)
        );
    }
}
