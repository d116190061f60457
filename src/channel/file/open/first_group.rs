//! The first group of an incarnation: the state as far as it is proven, the copied tail, the
//! Incarnation record. Once it is synced the log goes on from there, and not before.

use std::sync::Arc;

use wal_format::{EncodedPut, FrameKind, Open, Record, SegmentRef};

use super::super::copy::whole_state;
use super::super::log::{Active, Entry, EntryOp, LogWriter, record_bytes};
use super::super::prepare::Spare;
use super::super::recovery::{self, Suspect};
use super::super::segment::Segment;
use super::super::state::{LogState, Op};
use super::{OpenError, Opening};
use crate::planted::{Bug, planted};

impl Opening<'_> {
    /// What cannot be written is told before the first change: no segment would be good enough.
    pub(super) fn check_first_group(&self, open: &Open) -> Result<(), OpenError> {
        let refused = |reason: String| OpenError::Directory {
            dir: self.options.data_dirs[0].clone(),
            reason: format!("{reason}; nothing was touched"),
        };
        let entries = self.first_entries(open).map_err(|error| {
            refused(format!(
                "the tail of the log has right sums, but {error}; `forebay wal verify` names the \
                 place, `forebay wal salvage` makes a new channel of what is whole"
            ))
        })?;
        let bytes: usize = entries.iter().map(Entry::bytes).sum();
        if bytes > Active::room_of(self.preparer.size) {
            return Err(refused(format!(
                "the snapshot and the copied tail take {bytes} bytes, more than a segment; raise \
                 maxFileSize"
            )));
        }
        let bytes = record_bytes(&self.next_snapshot(open.incarnation));
        if bytes > self.options.segment_bytes() as usize / 4 {
            return Err(refused(format!(
                "the snapshot that the next segment begins with takes {bytes} bytes, more than a \
                 quarter of a segment; raise maxFileSize"
            )));
        }
        Ok(())
    }

    /// What the log would roll with if nothing happened before.
    fn next_snapshot(&self, incarnation: u32) -> Record {
        let recovered = &self.recovered;
        let mut state = whole_state(recovered);
        state.incarnations.push((incarnation, 0));
        let begun = recovered.state.next_sequence;
        let active = SegmentRef {
            segment: u32::MAX,
            salt: 0,
            first_sequence: begun,
            end: 0,
        };
        let references = recovered.segments.iter().map(Segment::reference);
        let references = references.chain([active]).collect();
        Record::Snapshot(Box::new(state.to_snapshot(references)))
    }

    /// Snapshot, suspects and Incarnation.
    fn first_entries(&self, open: &Open) -> std::io::Result<Vec<Entry>> {
        let recovered = &self.recovered;
        let references = recovered.segments.iter().map(Segment::reference).collect();
        let snapshot = recovered.state.to_snapshot(references);
        let mut entries = vec![Entry::record(Record::Snapshot(Box::new(snapshot)))];
        if !planted(Bug::TailNotCopied) {
            entries.extend(copies(&recovered.suspects)?);
        }
        entries.push(Entry::record(Record::Incarnation(open.clone())));
        Ok(entries)
    }

    /// They are written in one synced group: only then they are believed.
    pub(super) fn first_group(
        &self,
        spare: Spare,
        open: &Open,
    ) -> std::io::Result<(Spare, LogWriter, LogState)> {
        let mut entries = self.first_entries(open)?;
        let recovered = &self.recovered;
        let mut state = recovered.state.clone();
        let mut writer = LogWriter {
            active: Active::of(&spare),
            next_sequence: state.next_sequence,
            next_control: state.next_control,
            durable: recovered.proven,
            unsynced: Vec::new(),
            unsynced_bytes: 0,
            position_growth: 0,
            unproven: true,
            ended: false,
            clock: Arc::clone(&self.preparer.clock),
        };
        let bytes = entries.iter().map(Entry::bytes).sum::<usize>();
        debug_assert!(
            bytes <= writer.active.room(),
            "checked before the first change"
        );
        writer.write_group(&mut entries)?;
        let believed = match planted(Bug::NoSyncAtOpen) {
            true => writer.counts_as_durable(),
            false => writer.sync()?,
        };
        for op in believed {
            state.apply(op);
        }
        // Not synced: all it has to tell the next start is that the sync above returned.
        writer.write_group(&mut [Entry::record(Record::Watermark)])?;
        writer.unsynced.clear();
        Ok((spare, writer, state))
    }
}

/// The suspects as entries, frames of one transaction together. Sequence and control numbers
/// come out the same, because suspects are in sequence; header sums are made anew.
fn copies(suspects: &[Suspect]) -> std::io::Result<Vec<Entry>> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut open = false;
    for suspect in suspects {
        let header = &suspect.header;
        let frame = recovery::rebuild(suspect);
        if header.kind == FrameKind::Put {
            let op = recovery::put_op(suspect).map_err(std::io::Error::other)?;
            let Op::Put {
                count, positions, ..
            } = op
            else {
                continue;
            };
            match entries.last_mut() {
                Some(entry) if open => extend_transaction(entry, frame, count, positions),
                _ => entries.push(Entry {
                    kind: FrameKind::Put,
                    frames: vec![frame],
                    op: EntryOp::Put { count, positions },
                    put_time_ms: Some(header.put_time_ms),
                }),
            }
            open = !header.last_of_transaction;
        } else {
            let record = Record::decode(header.kind, &suspect.body)
                .map_err(|e| std::io::Error::other(e.to_string()))?;
            entries.push(Entry {
                kind: header.kind,
                frames: vec![frame],
                op: EntryOp::Record(record),
                put_time_ms: Some(header.put_time_ms),
            });
        }
    }
    Ok(entries)
}

fn extend_transaction(
    entry: &mut Entry,
    frame: EncodedPut,
    more: u64,
    newest: Vec<(Vec<u8>, Vec<u8>)>,
) {
    entry.frames.push(frame);
    if let EntryOp::Put { count, positions } = &mut entry.op {
        *count += more;
        *positions = newest;
    }
}
