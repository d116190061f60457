//! The on-disk format of Forebay's log: pure codec, no I/O, no panic on any input.
//!
#![doc = include_str!("../../docs/FORMAT.md")]
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        clippy::panic,
        clippy::unwrap_used,
        clippy::expect_used
    )
)]

extern crate alloc;
#[cfg(any(test, feature = "planted"))]
extern crate std;

mod code;
mod error;
mod frame;
mod lsn;
#[doc(hidden)]
pub mod planted;
mod put;
mod record;
mod record_code;
mod scan;
mod segment;
mod window;

pub use error::{BodyError, FrameError, OutOfRange, SegmentError};
pub use frame::{FRAME_ALIGN, FRAME_HEADER_BYTES, FrameHeader, FrameKind, frame_bytes};
pub use lsn::Lsn;
pub use put::{EncodedPut, EventRef, PutBody, PutEncoder, PutEvents};
pub use record::{
    Epoch, Identity, Open, Part, Producer, Range, Record, Route, Routes, SegmentRef, Snapshot,
    encode_frame_room,
};
pub use scan::{ReadAt, Scanner, Step};
pub use segment::{
    FORMAT_VERSION, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SEGMENT_HEADER_BYTES, SegmentHeader,
};
