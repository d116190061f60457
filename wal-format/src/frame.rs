//! The frame: a 64-byte header with its own checksum, a body, zeros up to a multiple of 8.
//!
//! *Place in the flow*: the producer makes the body and its sum; the committer, who alone knows
//! segment, offset and watermark, fills in the header. *Invariant*: nothing in a header is
//! believed before its sum, seeded with the segment's salt and the frame's LSN, is right; so a
//! copy of a frame at any other place is no frame.

use crate::code::{narrow, widen};
use crate::error::FrameError;
use crate::lsn::Lsn;
use crate::planted::{Bug, planted};

/// Bytes of a frame header.
pub const FRAME_HEADER_BYTES: usize = 64;
/// Frames begin at offsets that are multiples of this.
pub const FRAME_ALIGN: usize = 8;

/// Flag bit: first frame of its transaction.
const FLAG_FIRST: u8 = 1;
/// Flag bit: last frame of its transaction.
const FLAG_LAST: u8 = 2;
/// Bytes of salt and LSN before the header bytes in the sum.
const SEED_BYTES: usize = 16;
/// Salt, LSN, and the header but for its sum.
const SUMMED_BYTES: usize = SEED_BYTES + FRAME_HEADER_BYTES - 4;

/// Bytes that a frame with a body of `body_len` bytes takes in the segment.
pub const fn frame_bytes(body_len: usize) -> usize {
    let used = body_len.saturating_add(FRAME_HEADER_BYTES + FRAME_ALIGN - 1);
    used & !(FRAME_ALIGN - 1)
}

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// Events of a put transaction.
    Put = 1,
    /// Ranges of sequence numbers that are done with.
    Ack = 2,
    /// Which events of a batch went to which channels.
    Routes = 3,
    /// An epoch was sealed.
    Seal = 4,
    /// The claim of an epoch succeeded in the store.
    Claimed = 5,
    /// An epoch is published.
    Done = 6,
    /// An epoch was given up; its range is open again.
    Abandon = 7,
    /// Incarnations up to a number are fenced.
    Fence = 8,
    /// The channel was opened.
    Incarnation = 9,
    /// Nothing but the watermark in its header.
    Watermark = 10,
    /// All live state.
    Snapshot = 11,
    /// The segment is complete; no frame follows it.
    SegmentSeal = 12,
}

impl FrameKind {
    /// Every kind, by number.
    pub const ALL: [Self; 12] = [
        Self::Put,
        Self::Ack,
        Self::Routes,
        Self::Seal,
        Self::Claimed,
        Self::Done,
        Self::Abandon,
        Self::Fence,
        Self::Incarnation,
        Self::Watermark,
        Self::Snapshot,
        Self::SegmentSeal,
    ];

    /// Whether the frame is a control record: any but a put.
    pub fn is_control(self) -> bool {
        self != Self::Put
    }

    /// The number that stands for the kind in a frame header.
    #[allow(
        clippy::as_conversions,
        reason = "the one way from a fieldless enum to its number"
    )]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl TryFrom<u8> for FrameKind {
    type Error = FrameError;

    fn try_from(code: u8) -> Result<Self, FrameError> {
        let index = usize::from(code).checked_sub(1);
        let kind = index.and_then(|index| Self::ALL.get(index));
        kind.copied().ok_or(FrameError::UnknownKind(code))
    }
}

/// The header of a frame, but for its own checksum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What the frame holds.
    pub kind: FrameKind,
    /// First frame of its transaction; true for control frames.
    pub first_of_transaction: bool,
    /// Last frame of its transaction; true for control frames.
    pub last_of_transaction: bool,
    /// Compression of the body; 0 = none, the only one known.
    pub compression_id: u8,
    /// Bytes of the body, without padding.
    pub body_len: u32,
    /// CRC-32 of the body, unseeded.
    pub body_crc: u32,
    /// Put: sequence number of its first event. Others: the next one to be given.
    pub sequence: u64,
    /// Put: events in the frame. Others: 0.
    pub count: u32,
    /// Control records written to the log before this frame; so a control frame's own number.
    pub control: u64,
    /// Wall clock at commit, in milliseconds since the Unix epoch.
    pub put_time_ms: u64,
    /// The log was known durable up to here (exclusive) when the group of this frame was closed.
    pub watermark: Lsn,
}

impl FrameHeader {
    /// Writes the header for this place in the log.
    pub fn encode(&self, salt: u64, lsn: Lsn, out: &mut [u8; FRAME_HEADER_BYTES]) {
        let mut flags = 0;
        if self.first_of_transaction {
            flags |= FLAG_FIRST;
        }
        if self.last_of_transaction {
            flags |= FLAG_LAST;
        }
        out[4..8].copy_from_slice(&[self.kind.code(), flags, self.compression_id, 0]);
        out[8..12].copy_from_slice(&self.body_len.to_le_bytes());
        out[12..16].copy_from_slice(&self.body_crc.to_le_bytes());
        out[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        out[24..28].copy_from_slice(&self.count.to_le_bytes());
        out[28..32].copy_from_slice(&[0; 4]);
        out[32..40].copy_from_slice(&self.control.to_le_bytes());
        out[40..48].copy_from_slice(&self.put_time_ms.to_le_bytes());
        out[48..56].copy_from_slice(&self.watermark.0.to_le_bytes());
        out[56..64].copy_from_slice(&[0; 8]);
        let sum = header_sum(salt, lsn, out);
        out[..4].copy_from_slice(&sum.to_le_bytes());
    }

    /// Reads a header from the first 64 of `bytes`, which stand at `lsn`.
    ///
    /// # Errors
    /// In this order: too short, all zero, wrong checksum, unknown kind, bad flags, unknown
    /// compression, reserved fields not zero, a body longer than `body_max`.
    pub fn decode(bytes: &[u8], salt: u64, lsn: Lsn, body_max: u32) -> Result<Self, FrameError> {
        let bytes = bytes
            .first_chunk::<FRAME_HEADER_BYTES>()
            .ok_or(FrameError::TooShort)?;
        if bytes == &[0; FRAME_HEADER_BYTES] {
            return Err(FrameError::Zero);
        }
        if !sum_is_right(bytes, salt, lsn) {
            return Err(FrameError::HeaderChecksum);
        }
        let mut fields = Fields { rest: &bytes[4..] };
        let [kind, flags, compression_id, reserved] = fields.next();
        let kind = FrameKind::try_from(kind)?;
        let whole = FLAG_FIRST | FLAG_LAST;
        if flags & !whole != 0 || (kind.is_control() && flags != whole) {
            return Err(FrameError::BadFlags(flags));
        }
        if compression_id != 0 {
            return Err(FrameError::UnknownCompression(compression_id));
        }
        let body_len = u32::from_le_bytes(fields.next());
        let body_crc = u32::from_le_bytes(fields.next());
        let sequence = u64::from_le_bytes(fields.next());
        let count = u32::from_le_bytes(fields.next());
        let reserved_4: [u8; 4] = fields.next();
        let control = u64::from_le_bytes(fields.next());
        let put_time_ms = u64::from_le_bytes(fields.next());
        let watermark = Lsn(u64::from_le_bytes(fields.next()));
        let reserved_8: [u8; 8] = fields.next();
        let control_counts = kind.is_control() && count != 0;
        if reserved != 0 || reserved_4 != [0; 4] || reserved_8 != [0; 8] || control_counts {
            return Err(FrameError::ReservedNotZero);
        }
        if body_len > body_max && !planted(Bug::NoLengthCheck) {
            return Err(FrameError::BodyTooLong {
                len: body_len,
                max: body_max,
            });
        }
        Ok(Self {
            kind,
            first_of_transaction: flags & FLAG_FIRST != 0,
            last_of_transaction: flags & FLAG_LAST != 0,
            compression_id,
            body_len,
            body_crc,
            sequence,
            count,
            control,
            put_time_ms,
            watermark,
        })
    }

    /// Checks that `body` is the body this header was made for.
    ///
    /// # Errors
    /// [`FrameError::BodyChecksum`] when length or sum differ.
    pub fn check_body(&self, body: &[u8]) -> Result<(), FrameError> {
        let sum_is_right = planted(Bug::NoBodySum) || crc32fast::hash(body) == self.body_crc;
        if narrow(body.len()) != self.body_len || !sum_is_right {
            return Err(FrameError::BodyChecksum);
        }
        Ok(())
    }

    /// Bytes of the whole frame in the segment, padding included.
    pub fn frame_bytes(&self) -> u32 {
        narrow(frame_bytes(widen(self.body_len)))
    }
}

/// CRC-32 over the salt, the LSN (both little-endian) and bytes 4 to 64 of the header.
fn header_sum(salt: u64, lsn: Lsn, header: &[u8; FRAME_HEADER_BYTES]) -> u32 {
    let mut summed = [0u8; SUMMED_BYTES];
    if !planted(Bug::NoSalt) {
        summed[..8].copy_from_slice(&salt.to_le_bytes());
    }
    if !planted(Bug::NoPlace) {
        summed[8..SEED_BYTES].copy_from_slice(&lsn.0.to_le_bytes());
    }
    summed[SEED_BYTES..].copy_from_slice(&header[4..]);
    crc32fast::hash(&summed)
}

/// Whether the header's own checksum holds at this place.
pub(crate) fn sum_is_right(bytes: &[u8; FRAME_HEADER_BYTES], salt: u64, lsn: Lsn) -> bool {
    let [a, b, c, d, ..] = *bytes;
    let right = u32::from_le_bytes([a, b, c, d]) == header_sum(salt, lsn, bytes);
    right || planted(Bug::NoHeaderSum)
}

/// The body length that a header claims; to be believed only where [`sum_is_right`].
pub(crate) fn claimed_body_len(bytes: &[u8; FRAME_HEADER_BYTES]) -> u32 {
    u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]])
}

/// Cheap refusal of bytes that cannot begin a good header, before a sum is spent on them.
pub(crate) fn may_be_header(bytes: &[u8; FRAME_HEADER_BYTES]) -> bool {
    (1..=FrameKind::SegmentSeal.code()).contains(&bytes[4])
        && bytes[5] <= FLAG_FIRST | FLAG_LAST
        && bytes[6] == 0
        && bytes[7] == 0
        && bytes[28..32] == [0; 4]
        && bytes[56..64] == [0; 8]
}

/// Fixed fields taken from the front of a header; zeros behind its end.
struct Fields<'a> {
    rest: &'a [u8],
}

impl Fields<'_> {
    fn next<const N: usize>(&mut self) -> [u8; N] {
        let Some((field, rest)) = self.rest.split_first_chunk::<N>() else {
            return [0; N];
        };
        self.rest = rest;
        *field
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: u64 = 0xfeed_beef_0123_4567;

    fn header() -> FrameHeader {
        FrameHeader {
            kind: FrameKind::Put,
            first_of_transaction: true,
            last_of_transaction: false,
            compression_id: 0,
            body_len: 5,
            body_crc: crc32fast::hash(b"hello"),
            sequence: 1 << 40,
            count: 3,
            control: 77,
            put_time_ms: 1_700_000_000_000,
            watermark: Lsn::new(2, 4096),
        }
    }

    fn encoded(header: &FrameHeader) -> [u8; 64] {
        let mut out = [0xaa; 64];
        header.encode(SALT, Lsn::new(3, 8192), &mut out);
        out
    }

    fn decode(bytes: &[u8]) -> Result<FrameHeader, FrameError> {
        FrameHeader::decode(bytes, SALT, Lsn::new(3, 8192), 1000)
    }

    /// Changes a byte and makes the sum right again.
    fn forged(at: usize, value: u8) -> [u8; 64] {
        let mut bytes = encoded(&header());
        bytes[at] = value;
        let sum = header_sum(SALT, Lsn::new(3, 8192), &bytes);
        bytes[..4].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    #[test]
    fn every_kind_comes_back() {
        for kind in FrameKind::ALL {
            let mut h = header();
            h.kind = kind;
            if kind.is_control() {
                (h.count, h.last_of_transaction) = (0, true);
            }
            assert_eq!(decode(&encoded(&h)), Ok(h));
            assert_eq!(FrameKind::try_from(kind.code()), Ok(kind));
        }
        for code in [0, 13, 255] {
            assert_eq!(
                FrameKind::try_from(code),
                Err(FrameError::UnknownKind(code))
            );
        }
    }

    #[test]
    fn a_flip_of_any_bit_is_refused() {
        let good = encoded(&header());
        for bit in 0..512 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&bad), Err(FrameError::HeaderChecksum), "bit {bit}");
        }
    }

    #[test]
    fn the_same_bytes_are_no_frame_at_another_place_or_under_another_salt() {
        let bytes = encoded(&header());
        for (salt, lsn) in [
            (SALT, Lsn::new(3, 8200)),
            (SALT, Lsn::new(4, 8192)),
            (SALT, Lsn::new(8192, 3)),
            (SALT ^ 1, Lsn::new(3, 8192)),
            (SALT.swap_bytes(), Lsn::new(3, 8192)),
        ] {
            let read = FrameHeader::decode(&bytes, salt, lsn, 1000);
            assert_eq!(read, Err(FrameError::HeaderChecksum));
        }
    }

    #[test]
    fn fields_that_no_writer_makes_are_refused_under_a_right_sum() {
        assert_eq!(decode(&forged(4, 0)), Err(FrameError::UnknownKind(0)));
        assert_eq!(decode(&forged(4, 13)), Err(FrameError::UnknownKind(13)));
        assert_eq!(decode(&forged(5, 4)), Err(FrameError::BadFlags(4)));
        assert_eq!(decode(&forged(4, 2)), Err(FrameError::BadFlags(1)));
        assert_eq!(
            decode(&forged(6, 1)),
            Err(FrameError::UnknownCompression(1))
        );
        for at in [7, 28, 31, 56, 63] {
            assert_eq!(decode(&forged(at, 1)), Err(FrameError::ReservedNotZero));
        }
        let long = Err(FrameError::BodyTooLong {
            len: 0x0405,
            max: 1000,
        });
        assert_eq!(decode(&forged(9, 4)), long);
        let mut counted = header();
        (counted.kind, counted.last_of_transaction) = (FrameKind::Ack, true);
        assert_eq!(decode(&encoded(&counted)), Err(FrameError::ReservedNotZero));
    }

    #[test]
    fn zero_and_short_bytes_are_told_apart_from_a_bad_sum() {
        assert_eq!(decode(&[0; 64]), Err(FrameError::Zero));
        assert_eq!(decode(&[0; 63]), Err(FrameError::TooShort));
        assert_eq!(decode(&[1; 64]), Err(FrameError::HeaderChecksum));
        // A sum alone does not make zeros a frame: the rule does not hang on the checksum.
        let mut zeros = [0; 64];
        let sum = header_sum(SALT, Lsn::new(3, 8192), &zeros);
        zeros[..4].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(decode(&zeros), Err(FrameError::UnknownKind(0)));
    }

    #[test]
    fn a_changed_shortened_or_lengthened_body_is_refused() {
        let h = header();
        assert_eq!(h.check_body(b"hello"), Ok(()));
        for bad in [&b"hallo"[..], b"hell", b"hello\0", b""] {
            assert_eq!(h.check_body(bad), Err(FrameError::BodyChecksum));
        }
    }

    #[test]
    fn frames_take_a_multiple_of_eight() {
        assert_eq!([0, 1, 8, 9].map(frame_bytes), [64, 72, 72, 80]);
        assert_eq!(frame_bytes(usize::MAX) % 8, 0);
    }

    #[test]
    fn the_cheap_refusal_never_refuses_a_good_header() {
        for kind in FrameKind::ALL {
            let mut h = header();
            h.kind = kind;
            if kind.is_control() {
                (h.count, h.last_of_transaction) = (0, true);
            }
            assert!(may_be_header(&encoded(&h)));
        }
    }
}
