//! The end of the log: writes groups into the active segment, syncs them, rolls.
//!
//! *Place in the flow*: whoever holds the committer's role (see `group_commit`) owns the one
//! [`LogWriter`]; nothing else stores to a segment.
//!
//! *Invariants*:
//! - INV-1: an operation is applied and its waiter answered only after the sync that covers it
//!   (in the default mode).
//! - INV-2: the watermark of a frame is the end of the last group whose sync had returned when
//!   the frame's group was closed.
//! - INV-3: nothing is stored into segment S+1 before S with its seal is durable.
//! - INV-4: after a failed store or sync nothing is stored or synced again.
//!
//! *Crash*: a group that was not synced may be on the medium in any part; recovery believes what
//! it has copied and synced itself.

use std::io;
use std::sync::Arc;

use wal_format::{
    EncodedPut, FRAME_HEADER_BYTES, FrameHeader, FrameKind, Lsn, Record, SEGMENT_HEADER_BYTES,
    encode_frame_room, frame_bytes,
};

use crate::env::clock::Clock;
use crate::env::disk::DiskFile;
use crate::planted::{Bug, planted};

use super::prepare::Spare;
use super::state::{Op, is_numbered};

/// Frames of one transaction or record, encoded with room for their headers.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) kind: FrameKind,
    pub(super) frames: Vec<EncodedPut>,
    pub(super) op: EntryOp,
    /// Put time to keep (frames copied by recovery); otherwise now.
    pub(super) put_time_ms: Option<u64>,
}

/// What an entry does to the state once it is durable.
#[derive(Debug)]
pub(super) enum EntryOp {
    Put {
        count: u64,
        positions: Vec<(Vec<u8>, Vec<u8>)>,
    },
    Record(Record),
}

impl Entry {
    pub(super) fn record(record: Record) -> Self {
        let frame = encode_frame_room(&record);
        Self {
            kind: record.kind(),
            frames: vec![frame],
            op: EntryOp::Record(record),
            put_time_ms: None,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.frames.iter().map(|f| f.buffer.len()).sum()
    }
}

/// The segment that is being written.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) number: u32,
    pub(super) salt: u64,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) frames_end: u32,
    pub(super) tail: u32,
    pub(super) frames: u32,
}

impl Active {
    pub(super) fn of(spare: &Spare) -> Self {
        Self {
            number: spare.number,
            salt: spare.salt,
            file: Arc::clone(&spare.file),
            frames_end: spare.size - SEGMENT_HEADER_BYTES,
            tail: SEGMENT_HEADER_BYTES,
            frames: 0,
        }
    }

    pub(super) fn lsn(&self) -> Lsn {
        Lsn::new(self.number, self.tail)
    }

    /// Bytes that frames may still take, with room kept for a watermark and the seal.
    pub(super) fn room(&self) -> usize {
        room_between(self.tail, self.frames_end)
    }

    /// The same of an empty segment of `size` bytes.
    pub(super) fn room_of(size: u32) -> usize {
        room_between(SEGMENT_HEADER_BYTES, size - SEGMENT_HEADER_BYTES)
    }
}

fn room_between(tail: u32, frames_end: u32) -> usize {
    let kept = match planted(Bug::NoSealRoom) {
        true => 0,
        false => SEAL_ROOM,
    };
    (frames_end - tail).saturating_sub(kept) as usize
}

/// Kept free in every segment: a watermark frame and the seal.
const SEAL_ROOM: u32 = 512;

/// See the module head.
#[derive(Debug)]
pub(super) struct LogWriter {
    pub(super) active: Active,
    /// Next numbers to give; ahead of the durable state by what is written and not synced.
    pub(super) next_sequence: u64,
    pub(super) next_control: u64,
    /// End of the log as of the last sync that returned: the next watermark.
    pub(super) durable: Lsn,
    /// Written, not yet synced.
    pub(super) unsynced: Vec<Op>,
    /// Bytes behind the last sync; bounded in every sync mode, because recovery copies them.
    pub(super) unsynced_bytes: u32,
    /// By how much positions that were written and not synced may let their table grow.
    pub(super) position_growth: usize,
    /// Whether frames were written since the last watermark record.
    pub(super) unproven: bool,
    /// A store or sync has failed or panicked, or the log is sealed for good: nothing may be
    /// written any more (INV-4).
    pub(super) ended: bool,
    pub(super) clock: Arc<dyn Clock>,
}

impl LogWriter {
    /// Stores the entries as one group behind the tail. The caller has checked `Active::room`.
    pub(super) fn write_group(&mut self, entries: &mut [Entry]) -> io::Result<()> {
        self.check_open()?;
        // Until the store has returned, also by a panic, nobody else may go on.
        self.ended = true;
        let put_time_ms = self.clock.wall_ms();
        let mut offset = self.active.tail;
        for entry in entries.iter_mut() {
            let put_time_ms = entry.put_time_ms.unwrap_or(put_time_ms);
            offset = self.stamp(entry, offset, put_time_ms);
        }
        assert!(
            offset <= self.active.frames_end,
            "INV-3: a group never leaves its segment"
        );
        let pieces: Vec<&[u8]> = entries
            .iter()
            .flat_map(|e| e.frames.iter().map(|f| f.buffer.as_slice()))
            .collect();
        if planted(Bug::SyncBeforeStore) {
            self.active.file.sync()?;
        }
        self.active
            .file
            .store_at(u64::from(self.active.tail), &pieces)?;
        self.unsynced_bytes += offset - self.active.tail;
        self.active.tail = offset;
        self.unproven = true;
        self.ended = false;
        Ok(())
    }

    fn check_open(&self) -> io::Result<()> {
        match self.ended {
            true => Err(io::Error::other("the log instance has ended")),
            false => Ok(()),
        }
    }

    /// Gives the entry its numbers and fills its headers in; returns the offset behind it.
    fn stamp(&mut self, entry: &mut Entry, mut offset: u32, put_time_ms: u64) -> u32 {
        let last = entry.frames.len().saturating_sub(1);
        let first_sequence = self.next_sequence;
        for (index, frame) in entry.frames.iter_mut().enumerate() {
            let header = FrameHeader {
                kind: entry.kind,
                first_of_transaction: index == 0,
                last_of_transaction: index == last,
                compression_id: 0,
                body_len: frame.body_len,
                body_crc: frame.body_crc,
                sequence: self.next_sequence,
                count: frame.count,
                control: self.next_control,
                put_time_ms,
                watermark: self.watermark(offset),
            };
            fill_header(
                frame,
                &header,
                self.active.salt,
                Lsn::new(self.active.number, offset),
            );
            self.next_sequence += u64::from(frame.count);
            self.active.frames += 1;
            offset += u32::try_from(frame.buffer.len()).unwrap_or(u32::MAX);
        }
        let done = EntryOp::Put {
            count: 0,
            positions: Vec::new(),
        };
        let op = match std::mem::replace(&mut entry.op, done) {
            EntryOp::Put { count, positions } => Op::Put {
                first: first_sequence,
                count,
                positions,
            },
            EntryOp::Record(record) => {
                if is_numbered(&record) {
                    self.next_control += 1;
                }
                Op::Record(record)
            }
        };
        self.unsynced.push(op);
        offset
    }

    fn watermark(&self, written: u32) -> Lsn {
        if planted(Bug::WatermarkStuck) {
            return Lsn(0);
        }
        if planted(Bug::WatermarkTooFar) {
            return Lsn::new(self.active.number, written);
        }
        self.durable
    }

    /// Syncs the active segment and hands back what became durable. The caller applies it.
    ///
    /// # Errors
    /// The state of the medium is unknown: the log instance has ended (INV-4).
    pub(super) fn sync(&mut self) -> io::Result<Vec<Op>> {
        self.check_open()?;
        self.ended = !planted(Bug::GoOnAfterError);
        self.sync_file()?;
        self.ended = false;
        Ok(self.counts_as_durable())
    }

    fn sync_file(&self) -> io::Result<()> {
        if planted(Bug::NoSync) || planted(Bug::SyncBeforeStore) {
            return Ok(());
        }
        match self.active.file.sync() {
            Err(_) if planted(Bug::SwallowSyncError) => Ok(()),
            Err(_) if planted(Bug::RetrySync) => self.active.file.sync(),
            synced => synced,
        }
    }

    /// What is written is on the medium; hands it back.
    pub(super) fn counts_as_durable(&mut self) -> Vec<Op> {
        self.durable = self.active.lsn();
        self.unsynced_bytes = 0;
        self.position_growth = 0;
        std::mem::take(&mut self.unsynced)
    }

    /// Writes the seal behind everything in the active segment; the caller syncs.
    pub(super) fn write_seal(&mut self) -> io::Result<()> {
        let seal = Record::SegmentSeal {
            frames: self.active.frames,
            next_sequence: self.next_sequence,
        };
        self.write_group(&mut [Entry::record(seal)])
    }
}

/// Bytes of a frame with a body of `len`.
pub(super) fn record_bytes(record: &Record) -> usize {
    frame_bytes(record.encode().len())
}

pub(super) fn fill_header(frame: &mut EncodedPut, header: &FrameHeader, salt: u64, lsn: Lsn) {
    let mut bytes = [0; FRAME_HEADER_BYTES];
    header.encode(salt, lsn, &mut bytes);
    frame.buffer[..FRAME_HEADER_BYTES].copy_from_slice(&bytes);
}
