//! Bodies of control records.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use crate::code::{Cursor, put_bytes, put_length, put_varint};
use crate::error::BodyError;
use crate::frame::FrameKind;
use crate::put::{EncodedPut, finish, room};

macro_rules! record {
    ($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident : $ty:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $name { $($(#[$fdoc])* pub $field: $ty),* }
        impl Field for $name {
            fn put(&self, out: &mut Vec<u8>) { $(self.$field.put(out);)* }
            fn get(cursor: &mut Cursor<'_>) -> Result<Self, BodyError> {
                Ok(Self { $($field: Field::get(cursor)?),* })
            }
        }
    };
}

/// A field of a body: how it is written, and read back.
trait Field: Sized {
    fn put(&self, out: &mut Vec<u8>);
    fn get(cursor: &mut Cursor<'_>) -> Result<Self, BodyError>;
}

impl Field for u64 {
    fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, *self);
    }
    fn get(cursor: &mut Cursor<'_>) -> Result<Self, BodyError> {
        cursor.u64_varint()
    }
}

impl Field for u32 {
    fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, u64::from(*self));
    }
    fn get(cursor: &mut Cursor<'_>) -> Result<Self, BodyError> {
        cursor.u32_varint()
    }
}

impl Field for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn get(cursor: &mut Cursor<'_>) -> Result<Self, BodyError> {
        cursor.flag()
    }
}

impl Field for String {
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.as_bytes());
    }
    fn get(cursor: &mut Cursor<'_>) -> Result<Self, BodyError> {
        cursor.string()
    }
}

/// Raw bytes behind their length.
impl Field for Vec<u8> {
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(out, self);
    }
    fn get(cursor: &mut Cursor<'_>) -> Result<Self, BodyError> {
        Ok(cursor.bytes()?.to_vec())
    }
}

impl<A: Field, B: Field> Field for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }
    fn get(cursor: &mut Cursor<'_>) -> Result<Self, BodyError> {
        Ok((A::get(cursor)?, B::get(cursor)?))
    }
}

impl<T: Field> Field for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }
    fn get(cursor: &mut Cursor<'_>) -> Result<Self, BodyError> {
        Ok(if bool::get(cursor)? {
            Some(T::get(cursor)?)
        } else {
            None
        })
    }
}

/// Lists of structures; each element takes at least one byte.
trait Element: Field {}
impl Element for Range {}
impl Element for Part {}
impl Element for Epoch {}
impl Element for SegmentRef {}
impl Element for Producer {}
impl Element for Route {}
impl Element for Routes {}
impl Element for String {}
impl Element for (Vec<u8>, Vec<u8>) {}
impl Element for (u32, u64) {}

impl<T: Element> Field for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        put_length(out, self.len());
        for element in self {
            element.put(out);
        }
    }
    fn get(cursor: &mut Cursor<'_>) -> Result<Self, BodyError> {
        cursor.list(1, T::get)
    }
}

record! {
    /// A run of sequence numbers, both ends included.
    Range { /// First.
        first: u64, /// Last.
        last: u64 }
}
record! {
    /// One output file of an epoch.
    Part { /// Name in the attempt directory.
        staged_name: String, /// Path when published.
        final_path: String, /// Events.
        count: u64, /// Bytes.
        length: u64, /// CRC-32 of the bytes.
        crc32: u32 }
}
record! {
    /// Body of SEAL and CLAIMED.
    Epoch { /// Number.
        epoch: u64, /// Events.
        range: Range, /// Whether the claim is durable.
        claimed: bool, /// Sink.
        sink: String, /// Store URI.
        store: String, /// Base directory.
        base: String, /// Attempt directory.
        attempt: String, /// Parts.
        parts: Vec<Part> }
}
record! {
    /// What the data directory was.
    Identity { /// Inode.
        inode: u64, /// File system id.
        filesystem: u64, /// Machine.
        machine: u64 }
}
record! {
    /// A segment, and where it ends.
    SegmentRef { /// Number.
        segment: u32, /// Salt.
        salt: u64, /// First sequence number.
        first_sequence: u64, /// End of its frames.
        end: u32 }
}
record! {
    /// Body of Incarnation.
    Open { /// Number.
        incarnation: u32, /// Nonce.
        nonce: u64, /// Directory.
        identity: Identity, /// Wall clock.
        opened_at_ms: u64, /// Where the segment before ends.
        previous: Option<SegmentRef> }
}
record! {
    /// A numbered producer.
    Producer { /// Id.
        id: Vec<u8>, /// Producer epoch.
        epoch: u32, /// Last number admitted.
        last: u64 }
}
record! {
    /// Events of a batch that went to the same channels.
    Route { /// Index in the batch.
        first_index: u32, /// How many.
        count: u32, /// Channels.
        channels: Vec<String> }
}
record! {
    /// The route table of a batch.
    Routes { /// Batch.
        batch: u64, /// Selector fingerprint.
        fingerprint: u64, /// Routes.
        routes: Vec<Route> }
}
record! {
    /// All live state of a channel.
    Snapshot { /// All below is acknowledged.
        acked_below: u64, /// Acknowledged above that.
        acked: Vec<Range>, /// Lost to damage.
        lost: Vec<Range>, /// Positions.
        positions: Vec<(Vec<u8>, Vec<u8>)>, /// Producers.
        producers: Vec<Producer>, /// Route tables.
        routes: Vec<Routes>, /// Running incarnation.
        incarnation: u32, /// Newest incarnations and their nonces.
        incarnations: Vec<(u32, u64)>, /// Fenced.
        fenced_through: u32, /// Directory.
        identity: Identity, /// Next epoch number.
        next_epoch: u64, /// Epochs not done.
        epochs: Vec<Epoch>, /// Live older segments.
        segments: Vec<SegmentRef>, /// Whether control records may be lost.
        control_lost: bool }
}

/// A control record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Acknowledged runs.
    Ack(Vec<Range>),
    /// Route table.
    Routes(Routes),
    /// SEAL.
    Seal(Epoch),
    /// CLAIMED.
    Claimed(Epoch),
    /// DONE.
    Done {
        /// Epoch number.
        epoch: u64,
    },
    /// An epoch given up.
    Abandon {
        /// Epoch number.
        epoch: u64,
    },
    /// Fenced incarnations.
    Fence {
        /// Up to this one.
        through: u32,
    },
    /// An open.
    Incarnation(Open),
    /// Only carries a watermark.
    Watermark,
    /// State.
    Snapshot(Box<Snapshot>),
    /// End of a segment.
    SegmentSeal {
        /// Frames before it.
        frames: u32,
        /// Next sequence number.
        next_sequence: u64,
    },
}

impl Record {
    /// Its frame kind.
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

    /// The body.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.put(&mut out);
        out
    }

    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Ack(ranges) => ranges.put(out),
            Self::Routes(routes) => routes.put(out),
            Self::Seal(epoch) | Self::Claimed(epoch) => epoch.put(out),
            Self::Done { epoch } | Self::Abandon { epoch } => epoch.put(out),
            Self::Fence { through } => through.put(out),
            Self::Incarnation(open) => open.put(out),
            Self::Watermark => {}
            Self::Snapshot(snapshot) => snapshot.put(out),
            Self::SegmentSeal {
                frames,
                next_sequence,
            } => {
                frames.put(out);
                next_sequence.put(out);
            }
        }
    }

    /// Reads a body back.
    ///
    /// # Errors
    /// The first thing that is wrong, with its offset.
    pub fn decode(kind: FrameKind, body: &[u8]) -> Result<Self, BodyError> {
        let mut cursor = Cursor::new(body, 0);
        let c = &mut cursor;
        let record = match kind {
            FrameKind::Put => return Err(BodyError::NotAControlRecord),
            FrameKind::Ack => Self::Ack(Field::get(c)?),
            FrameKind::Routes => Self::Routes(Field::get(c)?),
            FrameKind::Seal => Self::Seal(Field::get(c)?),
            FrameKind::Claimed => Self::Claimed(Field::get(c)?),
            FrameKind::Done => Self::Done {
                epoch: Field::get(c)?,
            },
            FrameKind::Abandon => Self::Abandon {
                epoch: Field::get(c)?,
            },
            FrameKind::Fence => Self::Fence {
                through: Field::get(c)?,
            },
            FrameKind::Incarnation => Self::Incarnation(Field::get(c)?),
            FrameKind::Watermark => Self::Watermark,
            FrameKind::Snapshot => Self::Snapshot(Box::new(Field::get(c)?)),
            FrameKind::SegmentSeal => Self::SegmentSeal {
                frames: Field::get(c)?,
                next_sequence: Field::get(c)?,
            },
        };
        cursor.finish()?;
        Ok(record)
    }
}

/// Header room, body and padding of a record.
pub fn encode_frame_room(record: &Record) -> EncodedPut {
    let mut buffer = room();
    record.put(&mut buffer);
    finish(buffer, 0)
}
