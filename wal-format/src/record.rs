//! The control records: everything in the log that is not an event.
//!
//! *Place in the flow*: the channel appends a record for each change of its state that must
//! survive; a snapshot repeats all live state at the head of every segment. *Invariant*: a record
//! decodes to exactly what was encoded, or not at all.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use crate::code::Cursor;
use crate::error::BodyError;
use crate::frame::{FRAME_HEADER_BYTES, FrameKind};
use crate::put::EncodedPut;

/// A run of sequence numbers, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    /// First number.
    pub first: u64,
    /// Last number; not below `first`, or the record will be refused when it is read.
    pub last: u64,
}

/// One output file of an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Name of the closed file in the attempt's directory.
    pub staged_name: String,
    /// Absolute path under which it is published.
    pub final_path: String,
    /// Events in the file.
    pub count: u64,
    /// Bytes of the file.
    pub length: u64,
    /// CRC-32 of the file.
    pub crc32: u32,
}

/// A sealed epoch: body of `Seal` and `Claimed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Epoch {
    /// Its number.
    pub epoch: u64,
    /// The events it publishes.
    pub range: Range,
    /// Whether the claim has succeeded.
    pub claimed: bool,
    /// Name of the sink.
    pub sink: String,
    /// URI of the store.
    pub store: String,
    /// Directory of the sink's staging.
    pub base: String,
    /// Directory of the attempt.
    pub attempt: String,
    /// The output files.
    pub parts: Vec<Part>,
}

/// Identity of the directory that holds the log, to notice a copy or a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Identity {
    /// Inode of the directory.
    pub inode: u64,
    /// Identity of the file system.
    pub filesystem: u64,
    /// Identity of the machine, hashed.
    pub machine: u64,
}

/// What a later segment knows about an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SegmentRef {
    /// Its number.
    pub segment: u32,
    /// Its salt, should both of its header blocks be lost.
    pub salt: u64,
    /// Sequence number of its first event, or the next one when it has none.
    pub first_sequence: u64,
    /// Offset where its believed frames end.
    pub end: u32,
}

/// One open of the channel: body of `Incarnation`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// Number of the incarnation, from 1.
    pub incarnation: u32,
    /// Random number that tells a clone's incarnation from ours.
    pub nonce: u64,
    /// The directory.
    pub identity: Identity,
    /// Wall clock at the open, in milliseconds since the Unix epoch.
    pub opened_at_ms: u64,
    /// Where the segment before ends; repeated here so that a rotten snapshot does not lose it.
    pub previous: Option<SegmentRef>,
}

/// A client that numbers its events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Producer {
    /// Its identity.
    pub id: Vec<u8>,
    /// Its epoch.
    pub epoch: u32,
    /// Last number taken from it.
    pub last: u64,
}

/// Where the events of one source batch were routed: body of `Routes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routes {
    /// Number of the batch in its source.
    pub batch: u64,
    /// Fingerprint of the selector's configuration.
    pub fingerprint: u64,
    /// Runs of events and their channels.
    pub routes: Vec<Route>,
}

/// A run of events of a batch that went to the same channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Index of the first event in the batch.
    pub first_index: u32,
    /// Events in the run.
    pub count: u32,
    /// Names of the channels.
    pub channels: Vec<String>,
}

/// All live state of the channel: the first frame of every segment.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// Every sequence number below this is done with.
    pub acked_below: u64,
    /// Ranges above it that are done with, ascending.
    pub acked: Vec<Range>,
    /// Ranges reported lost to damage.
    pub lost: Vec<Range>,
    /// Position of each source: key and value.
    pub positions: Vec<(Vec<u8>, Vec<u8>)>,
    /// Clients that number their events.
    pub producers: Vec<Producer>,
    /// Routes of the batches that may have to be replayed.
    pub routes: Vec<Routes>,
    /// The running incarnation.
    pub incarnation: u32,
    /// Number and nonce of the incarnations still remembered, newest last.
    pub incarnations: Vec<(u32, u64)>,
    /// Incarnations up to this are fenced.
    pub fenced_through: u32,
    /// The directory.
    pub identity: Identity,
    /// Number of the next epoch.
    pub next_epoch: u64,
    /// Epochs sealed or claimed, not done.
    pub epochs: Vec<Epoch>,
    /// Live older segments, oldest first; the last is the one before.
    pub segments: Vec<SegmentRef>,
    /// Damage may hide a control record.
    pub control_lost: bool,
}

/// A control record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// These ranges are done with.
    Ack(Vec<Range>),
    /// Where a batch was routed.
    Routes(Routes),
    /// An epoch was sealed.
    Seal(Epoch),
    /// The claim of an epoch succeeded.
    Claimed(Epoch),
    /// An epoch is published; its range is done with.
    Done {
        /// Its number.
        epoch: u64,
    },
    /// An epoch was given up; its range is open again.
    Abandon {
        /// Its number.
        epoch: u64,
    },
    /// Incarnations are fenced.
    Fence {
        /// The last of them.
        through: u32,
    },
    /// The channel was opened.
    Incarnation(Open),
    /// Nothing but the watermark in the frame's header.
    Watermark,
    /// All live state.
    Snapshot(Box<Snapshot>),
    /// The segment is complete.
    SegmentSeal {
        /// Frames in the segment before this one.
        frames: u32,
        /// The next sequence number to be given.
        next_sequence: u64,
    },
}

impl Record {
    /// The frame kind that holds this record.
    pub fn kind(&self) -> FrameKind {
        match self {
            Self::Ack(_) => FrameKind::Ack,
            Self::Routes(_) => FrameKind::Routes,
            Self::Seal(_) => FrameKind::Seal,
            Self::Claimed(_) => FrameKind::Claimed,
            Self::Done { .. } => FrameKind::Done,
            Self::Abandon { .. } => FrameKind::Abandon,
            Self::Fence { .. } => FrameKind::Fence,
            Self::Incarnation(_) => FrameKind::Incarnation,
            Self::Watermark => FrameKind::Watermark,
            Self::Snapshot(_) => FrameKind::Snapshot,
            Self::SegmentSeal { .. } => FrameKind::SegmentSeal,
        }
    }

    /// The body of the record's frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    /// Reads a record from the body of a frame of this kind.
    ///
    /// # Errors
    /// Whatever is not exactly one record: cut fields, bad text, ranges that run backwards, counts
    /// beyond the bytes, left-over bytes; and any body of a put frame.
    pub fn decode(kind: FrameKind, body: &[u8]) -> Result<Self, BodyError> {
        let mut cursor = Cursor::new(body, 0);
        let record = Self::read(kind, &mut cursor)?;
        cursor.finish()?;
        Ok(record)
    }
}

/// The frame of a record, ready for its header: like [`crate::PutEncoder::finish`], with count 0.
pub fn encode_frame_room(record: &Record) -> EncodedPut {
    let mut buffer = vec![0; FRAME_HEADER_BYTES];
    record.write(&mut buffer);
    EncodedPut::seal(buffer, 0)
}
