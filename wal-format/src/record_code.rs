//! How each control record is written and read, field by field, in the order of the tables in the
//! crate's documentation.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::code::{Cursor, put_bytes, put_length, put_varint};
use crate::error::BodyError;
use crate::frame::FrameKind;
use crate::record::{
    Epoch, Identity, Open, Part, Producer, Range, Record, Route, Routes, SegmentRef, Snapshot,
};

/// A value with one encoding.
trait Coded: Sized {
    /// Fewest bytes of the encoding: bounds a list before anything is allocated for it.
    const SMALLEST: usize;
    fn write(&self, out: &mut Vec<u8>);
    fn read(cursor: &mut Cursor<'_>) -> Result<Self, BodyError>;
}

fn put_list<T: Coded>(out: &mut Vec<u8>, list: &[T]) {
    put_length(out, list.len());
    for element in list {
        element.write(out);
    }
}

fn read_list<T: Coded>(cursor: &mut Cursor<'_>) -> Result<Vec<T>, BodyError> {
    cursor.list(T::SMALLEST, T::read)
}

fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

impl Coded for Range {
    const SMALLEST: usize = 2;

    fn write(&self, out: &mut Vec<u8>) {
        put_varint(out, self.first);
        // A range that runs backwards wraps, and reading it overflows: refused, not changed.
        put_varint(out, self.last.wrapping_sub(self.first));
    }

    fn read(cursor: &mut Cursor<'_>) -> Result<Self, BodyError> {
        let first = cursor.u64_varint()?;
        let at = cursor.at();
        let more = cursor.u64_varint()?;
        let last = first
            .checked_add(more)
            .ok_or(BodyError::NumberTooLarge { at })?;
        Ok(Self { first, last })
    }
}

impl Coded for Part {
    const SMALLEST: usize = 8;

    fn write(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.staged_name.as_bytes());
        put_bytes(out, self.final_path.as_bytes());
        put_varint(out, self.count);
        put_varint(out, self.length);
        out.extend_from_slice(&self.crc32.to_le_bytes());
    }

    fn read(cursor: &mut Cursor<'_>) -> Result<Self, BodyError> {
        Ok(Self {
            staged_name: cursor.string()?,
            final_path: cursor.string()?,
            count: cursor.u64_varint()?,
            length: cursor.u64_varint()?,
            crc32: cursor.u32_fixed()?,
        })
    }
}

impl Coded for Epoch {
    const SMALLEST: usize = 9;

    fn write(&self, out: &mut Vec<u8>) {
        put_varint(out, self.epoch);
        self.range.write(out);
        out.push(u8::from(self.claimed));
        put_bytes(out, self.sink.as_bytes());
        put_bytes(out, self.store.as_bytes());
        put_bytes(out, self.base.as_bytes());
        put_bytes(out, self.attempt.as_bytes());
        put_list(out, &self.parts);
    }

    fn read(cursor: &mut Cursor<'_>) -> Result<Self, BodyError> {
        Ok(Self {
            epoch: cursor.u64_varint()?,
            range: Range::read(cursor)?,
            claimed: cursor.flag()?,
            sink: cursor.string()?,
            store: cursor.string()?,
            base: cursor.string()?,
            attempt: cursor.string()?,
            parts: read_list(cursor)?,
        })
    }
}

impl Coded for Identity {
    const SMALLEST: usize = 24;

    fn write(&self, out: &mut Vec<u8>) {
        put_u64(out, self.inode);
        put_u64(out, self.filesystem);
        put_u64(out, self.machine);
    }

    fn read(cursor: &mut Cursor<'_>) -> Result<Self, BodyError> {
        Ok(Self {
            inode: cursor.u64_fixed()?,
            filesystem: cursor.u64_fixed()?,
            machine: cursor.u64_fixed()?,
        })
    }
}

impl Coded for SegmentRef {
    const SMALLEST: usize = 11;

    fn write(&self, out: &mut Vec<u8>) {
        put_varint(out, u64::from(self.segment));
        put_u64(out, self.salt);
        put_varint(out, self.first_sequence);
        put_varint(out, u64::from(self.end));
    }

    fn read(cursor: &mut Cursor<'_>) -> Result<Self, BodyError> {
        Ok(Self {
            segment: cursor.u32_varint()?,
            salt: cursor.u64_fixed()?,
            first_sequence: cursor.u64_varint()?,
            end: cursor.u32_varint()?,
        })
    }
}

impl Coded for Open {
    const SMALLEST: usize = 35;

    fn write(&self, out: &mut Vec<u8>) {
        put_varint(out, u64::from(self.incarnation));
        put_u64(out, self.nonce);
        self.identity.write(out);
        put_varint(out, self.opened_at_ms);
        out.push(u8::from(self.previous.is_some()));
        if let Some(previous) = &self.previous {
            previous.write(out);
        }
    }

    fn read(cursor: &mut Cursor<'_>) -> Result<Self, BodyError> {
        Ok(Self {
            incarnation: cursor.u32_varint()?,
            nonce: cursor.u64_fixed()?,
            identity: Identity::read(cursor)?,
            opened_at_ms: cursor.u64_varint()?,
            previous: if cursor.flag()? {
                Some(SegmentRef::read(cursor)?)
            } else {
                None
            },
        })
    }
}

impl Coded for Producer {
    const SMALLEST: usize = 3;

    fn write(&self, out: &mut Vec<u8>) {
        put_bytes(out, &self.id);
        put_varint(out, u64::from(self.epoch));
        put_varint(out, self.last);
    }

    fn read(cursor: &mut Cursor<'_>) -> Result<Self, BodyError> {
        Ok(Self {
            id: Vec::from(cursor.bytes()?),
            epoch: cursor.u32_varint()?,
            last: cursor.u64_varint()?,
        })
    }
}

impl Coded for Route {
    const SMALLEST: usize = 3;

    fn write(&self, out: &mut Vec<u8>) {
        put_varint(out, u64::from(self.first_index));
        put_varint(out, u64::from(self.count));
        put_length(out, self.channels.len());
        for channel in &self.channels {
            put_bytes(out, channel.as_bytes());
        }
    }

    fn read(cursor: &mut Cursor<'_>) -> Result<Self, BodyError> {
        Ok(Self {
            first_index: cursor.u32_varint()?,
            count: cursor.u32_varint()?,
            channels: cursor.list(1, Cursor::string)?,
        })
    }
}

impl Coded for Routes {
    const SMALLEST: usize = 10;

    fn write(&self, out: &mut Vec<u8>) {
        put_varint(out, self.batch);
        put_u64(out, self.fingerprint);
        put_list(out, &self.routes);
    }

    fn read(cursor: &mut Cursor<'_>) -> Result<Self, BodyError> {
        Ok(Self {
            batch: cursor.u64_varint()?,
            fingerprint: cursor.u64_fixed()?,
            routes: read_list(cursor)?,
        })
    }
}

/// Key and value of a source position.
impl Coded for (Vec<u8>, Vec<u8>) {
    const SMALLEST: usize = 2;

    fn write(&self, out: &mut Vec<u8>) {
        put_bytes(out, &self.0);
        put_bytes(out, &self.1);
    }

    fn read(cursor: &mut Cursor<'_>) -> Result<Self, BodyError> {
        Ok((Vec::from(cursor.bytes()?), Vec::from(cursor.bytes()?)))
    }
}

/// Number and nonce of an incarnation.
impl Coded for (u32, u64) {
    const SMALLEST: usize = 9;

    fn write(&self, out: &mut Vec<u8>) {
        put_varint(out, u64::from(self.0));
        put_u64(out, self.1);
    }

    fn read(cursor: &mut Cursor<'_>) -> Result<Self, BodyError> {
        Ok((cursor.u32_varint()?, cursor.u64_fixed()?))
    }
}

impl Coded for Snapshot {
    const SMALLEST: usize = 37;

    fn write(&self, out: &mut Vec<u8>) {
        put_varint(out, self.acked_below);
        put_list(out, &self.acked);
        put_list(out, &self.lost);
        put_list(out, &self.positions);
        put_list(out, &self.producers);
        put_list(out, &self.routes);
        put_varint(out, u64::from(self.incarnation));
        put_list(out, &self.incarnations);
        put_varint(out, u64::from(self.fenced_through));
        self.identity.write(out);
        put_varint(out, self.next_epoch);
        put_list(out, &self.epochs);
        put_list(out, &self.segments);
        out.push(u8::from(self.control_lost));
    }

    fn read(cursor: &mut Cursor<'_>) -> Result<Self, BodyError> {
        Ok(Self {
            acked_below: cursor.u64_varint()?,
            acked: read_list(cursor)?,
            lost: read_list(cursor)?,
            positions: read_list(cursor)?,
            producers: read_list(cursor)?,
            routes: read_list(cursor)?,
            incarnation: cursor.u32_varint()?,
            incarnations: read_list(cursor)?,
            fenced_through: cursor.u32_varint()?,
            identity: Identity::read(cursor)?,
            next_epoch: cursor.u64_varint()?,
            epochs: read_list(cursor)?,
            segments: read_list(cursor)?,
            control_lost: cursor.flag()?,
        })
    }
}

impl Record {
    /// Appends the record's body.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Ack(ranges) => put_list(out, ranges),
            Self::Routes(routes) => routes.write(out),
            Self::Seal(epoch) | Self::Claimed(epoch) => epoch.write(out),
            Self::Done { epoch } | Self::Abandon { epoch } => put_varint(out, *epoch),
            Self::Fence { through } => put_varint(out, u64::from(*through)),
            Self::Incarnation(open) => open.write(out),
            Self::Watermark => {}
            Self::Snapshot(snapshot) => snapshot.write(out),
            Self::SegmentSeal {
                frames,
                next_sequence,
            } => {
                put_varint(out, u64::from(*frames));
                put_varint(out, *next_sequence);
            }
        }
    }

    /// Reads the record's body; bytes may be left.
    pub(crate) fn read(kind: FrameKind, cursor: &mut Cursor<'_>) -> Result<Self, BodyError> {
        Ok(match kind {
            FrameKind::Put => return Err(BodyError::NotAControlRecord),
            FrameKind::Ack => Self::Ack(read_list(cursor)?),
            FrameKind::Routes => Self::Routes(Routes::read(cursor)?),
            FrameKind::Seal => Self::Seal(Epoch::read(cursor)?),
            FrameKind::Claimed => Self::Claimed(Epoch::read(cursor)?),
            FrameKind::Done => Self::Done {
                epoch: cursor.u64_varint()?,
            },
            FrameKind::Abandon => Self::Abandon {
                epoch: cursor.u64_varint()?,
            },
            FrameKind::Fence => Self::Fence {
                through: cursor.u32_varint()?,
            },
            FrameKind::Incarnation => Self::Incarnation(Open::read(cursor)?),
            FrameKind::Watermark => Self::Watermark,
            FrameKind::Snapshot => Self::Snapshot(Box::new(Snapshot::read(cursor)?)),
            FrameKind::SegmentSeal => Self::SegmentSeal {
                frames: cursor.u32_varint()?,
                next_sequence: cursor.u64_varint()?,
            },
        })
    }
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
