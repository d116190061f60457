//! What can be wrong with bytes that claim to be a log. Each error says what was found; the
//! caller adds the file and, for a frame, its position.

use core::fmt;

/// Why a segment header block was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentError {
    /// Fewer than 4096 bytes were given.
    TooShort,
    /// The block does not begin with the magic bytes.
    NotASegment,
    /// The block's checksum does not match: try the other copy.
    BadChecksum,
    /// A format version that this reader does not know.
    UnknownVersion(u16),
    /// Incompatible feature flags that this reader does not know (only the unknown bits).
    UnknownIncompatible(u32),
    /// A segment size outside the bounds, or not a multiple of 4096.
    BadSize(u32),
    /// A cipher that this reader does not know.
    UnknownCipher(u16),
    /// A compression that this reader does not know.
    UnknownCompression(u16),
    /// The block is all zero: prepared, or lost.
    Blank,
}

impl fmt::Display for SegmentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort => f.write_str("segment header is shorter than 4096 bytes"),
            Self::NotASegment => f.write_str("not a segment of this log: wrong magic bytes"),
            Self::BadChecksum => {
                f.write_str("segment header has a bad checksum; the other copy may be good")
            }
            Self::UnknownVersion(v) => {
                write!(
                    f,
                    "segment has format version {v}; a newer reader is needed"
                )
            }
            Self::UnknownIncompatible(flags) => {
                write!(
                    f,
                    "segment needs unknown features {flags:#010x}; a newer reader is needed"
                )
            }
            Self::BadSize(size) => write!(
                f,
                "segment size {size} is not a multiple of 4096 between {} and {}",
                crate::SEGMENT_BYTES_MIN,
                crate::SEGMENT_BYTES_MAX
            ),
            Self::UnknownCipher(id) => {
                write!(
                    f,
                    "segment is encrypted with unknown cipher {id}; a newer reader is needed"
                )
            }
            Self::UnknownCompression(id) => {
                write!(
                    f,
                    "segment has unknown compression {id}; a newer reader is needed"
                )
            }
            Self::Blank => f.write_str("segment header is all zero"),
        }
    }
}

impl core::error::Error for SegmentError {}

/// Why a frame was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// All 64 header bytes are zero: never a frame.
    Zero,
    /// Fewer than 64 bytes are left.
    TooShort,
    /// The header's checksum does not match for this salt and LSN.
    HeaderChecksum,
    /// A frame kind that this reader does not know.
    UnknownKind(u8),
    /// Unknown flag bits, or a control frame that is not a whole transaction.
    BadFlags(u8),
    /// A reserved field is not zero, or a control frame counts events.
    ReservedNotZero,
    /// The body would reach beyond the bound.
    BodyTooLong {
        /// Length that the header claims, in bytes.
        len: u32,
        /// Longest body that fits, in bytes.
        max: u32,
    },
    /// The body's length or checksum does not match the header.
    BodyChecksum,
    /// A compression that this reader does not know.
    UnknownCompression(u8),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zero => f.write_str("zeros where a frame should be"),
            Self::TooShort => f.write_str("fewer than 64 bytes left for a frame header"),
            Self::HeaderChecksum => f.write_str("frame header has a bad checksum"),
            Self::UnknownKind(kind) => {
                write!(f, "unknown frame kind {kind}; a newer reader is needed")
            }
            Self::BadFlags(flags) => write!(f, "bad frame flags {flags:#04x}"),
            Self::ReservedNotZero => f.write_str("reserved field of the frame header is not zero"),
            Self::BodyTooLong { len, max } => {
                write!(f, "frame body of {len} bytes where at most {max} fit")
            }
            Self::BodyChecksum => f.write_str("frame body has a bad checksum"),
            Self::UnknownCompression(id) => {
                write!(
                    f,
                    "frame has unknown compression {id}; a newer reader is needed"
                )
            }
        }
    }
}

impl core::error::Error for FrameError {}

/// Why the body of a frame was refused although its checksum is right: the writer was wrong or
/// newer. Every `at` is a byte offset in the frame's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// A field reaches beyond the end of the body.
    Truncated {
        /// Where the field begins.
        at: usize,
    },
    /// A varint is longer than it needs to be.
    VarintOverlong {
        /// Where the varint begins.
        at: usize,
    },
    /// A number does not fit its field.
    NumberTooLarge {
        /// Where the number begins.
        at: usize,
    },
    /// A string is not UTF-8.
    NotUtf8 {
        /// Where the string's bytes begin.
        at: usize,
    },
    /// A truth value or an option tag is neither 0 nor 1.
    BadFlag {
        /// Where the byte is.
        at: usize,
        /// What it is.
        value: u8,
    },
    /// A count is higher than the bytes that follow can hold.
    CountTooHigh {
        /// Where the count begins; 0 for the event count of the frame header.
        at: usize,
        /// The count.
        count: u64,
    },
    /// Bytes are left over behind the last field.
    TrailingBytes {
        /// Where they begin.
        at: usize,
    },
    /// An event refers to the position before it, and there is none.
    NoEarlierPosition {
        /// Where the reference begins.
        at: usize,
    },
    /// A put frame's body was given to the control record decoder.
    NotAControlRecord,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { at } => write!(f, "field at byte {at} reaches beyond the body"),
            Self::VarintOverlong { at } => write!(f, "varint at byte {at} is overlong"),
            Self::NumberTooLarge { at } => write!(f, "number at byte {at} is too large"),
            Self::NotUtf8 { at } => write!(f, "string at byte {at} is not UTF-8"),
            Self::BadFlag { at, value } => write!(f, "byte {at} is {value}, expected 0 or 1"),
            Self::CountTooHigh { at, count } => {
                write!(
                    f,
                    "count {count} at byte {at} is more than the body can hold"
                )
            }
            Self::TrailingBytes { at } => write!(f, "left-over bytes from byte {at}"),
            Self::NoEarlierPosition { at } => {
                write!(
                    f,
                    "byte {at} refers to an earlier position, and there is none"
                )
            }
            Self::NotAControlRecord => f.write_str("a put frame is not a control record"),
        }
    }
}

impl core::error::Error for BodyError {}

/// A read reached beyond the bytes at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfRange;

impl fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("read beyond the end of the segment's bytes")
    }
}

impl core::error::Error for OutOfRange {}
