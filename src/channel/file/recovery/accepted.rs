//! Whether the next open would believe what this one is going to write.
//!
//! *Place in the flow*: after reading, before the first change. The rules look at one record and
//! its own frame, so a log that keeps them all may still add up to a state that breaks them: two
//! incarnations in the wrong order, an acknowledgement whose frame has named a number too high. No
//! channel writes such a log; one that was accepted once must be accepted again.

use wal_format::{FrameHeader, FrameKind, Record};

use super::Recovered;
use super::rules::broken_by;
use crate::channel::file::copy::whole_state;
use crate::channel::file::segment::Segment;
use crate::channel::file::state::{LogState, is_numbered};

/// Why the next open would refuse the first group that opening as `incarnation` writes, or the
/// snapshot that the next segment begins with.
pub(in crate::channel::file) fn refused_next_time(
    recovered: &Recovered,
    incarnation: u32,
) -> Option<&'static str> {
    let mut now = recovered.state.clone();
    now.incarnation = incarnation;
    let mut later = whole_state(recovered);
    later.incarnation = incarnation;
    later.incarnations.push((incarnation, 0));
    let broken = snapshot_of(recovered, &now);
    let broken = broken.or_else(|| copies(recovered));
    broken.or_else(|| snapshot_of(recovered, &later))
}

fn snapshot_of(recovered: &Recovered, state: &LogState) -> Option<&'static str> {
    let references = recovered.segments.iter().map(Segment::reference).collect();
    let record = Record::Snapshot(Box::new(state.to_snapshot(references)));
    let header = header(FrameKind::Snapshot, state.next_sequence, state.next_control);
    broken_by(&header, Some(&record))
}

/// The suspects under the numbers that they are written with, which are not those that their
/// frames have named.
fn copies(recovered: &Recovered) -> Option<&'static str> {
    let mut sequence = recovered.state.next_sequence;
    let mut control = recovered.state.next_control;
    for suspect in &recovered.suspects {
        let kind = suspect.header.kind;
        let record = match kind {
            FrameKind::Put => None,
            kind => Record::decode(kind, &suspect.body).ok(),
        };
        let broken = broken_by(&header(kind, sequence, control), record.as_ref());
        if broken.is_some() {
            return broken;
        }
        sequence += u64::from(suspect.header.count);
        control += u64::from(record.as_ref().is_some_and(is_numbered));
    }
    None
}

/// Of a frame, what the rules look at.
fn header(kind: FrameKind, sequence: u64, control: u64) -> FrameHeader {
    FrameHeader {
        kind,
        first_of_transaction: true,
        last_of_transaction: true,
        compression_id: 0,
        body_len: 0,
        body_crc: 0,
        sequence,
        count: 0,
        control,
        put_time_ms: 0,
        watermark: wal_format::Lsn(0),
    }
}
