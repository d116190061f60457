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
pub(super) fn header(kind: FrameKind, sequence: u64, control: u64) -> FrameHeader {
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

#[cfg(test)]
mod tests {
    use wal_format::{FRAME_HEADER_BYTES, Lsn, PutEncoder, Range};

    use super::super::Suspect;
    use super::*;

    /// A channel that was opened five times and has nine events.
    fn read() -> Recovered {
        let mut state = LogState::fresh();
        state.next_sequence = 10;
        state.incarnation = 5;
        state.incarnations = (1..=5).map(|number| (number, 7)).collect();
        Recovered {
            state,
            proven: Lsn(0),
            suspects: Vec::new(),
            segments: Vec::new(),
            leftovers: Vec::new(),
            damage: Vec::new(),
            torn: None,
            cut: None,
            hidden_below: 0,
        }
    }

    /// An acknowledgement of event 9 or 20 whose own frame names 100 as the next number.
    fn acknowledgement(number: u64) -> Suspect {
        let record = Record::Ack(vec![Range {
            first: number,
            last: number,
        }]);
        let suspect = Suspect {
            header: header(FrameKind::Ack, 100, 0),
            body: record.encode(),
            end: Lsn(0),
        };
        assert_eq!(broken_by(&suspect.header, Some(&record)), None);
        suspect
    }

    #[test]
    fn what_a_channel_has_written_is_accepted() {
        assert_eq!(refused_next_time(&read(), 6), None);
        let mut tail = read();
        tail.suspects.push(acknowledgement(9));
        assert_eq!(refused_next_time(&tail, 6), None);
    }

    #[test]
    fn a_record_that_only_its_old_frame_allows_is_refused_before_it_is_copied() {
        let mut tail = read();
        tail.suspects.push(acknowledgement(20));
        let why = refused_next_time(&tail, 6);
        assert_eq!(why, Some("it acknowledges events that were never put"));
    }

    /// Once the put behind it is copied too, the snapshot of the next segment would allow it.
    #[test]
    fn a_record_is_refused_that_only_a_later_put_allows() {
        let mut events = PutEncoder::with_capacity(100);
        for _ in 0..20 {
            events.event(std::iter::empty(), b"event", None);
        }
        let frame = events.finish();
        let put = Suspect {
            header: FrameHeader {
                count: 20,
                ..header(FrameKind::Put, 10, 0)
            },
            body: frame.buffer[FRAME_HEADER_BYTES..][..frame.body_len as usize].to_vec(),
            end: Lsn(0),
        };
        let mut tail = read();
        tail.suspects = vec![put.clone(), acknowledgement(20)];
        assert_eq!(refused_next_time(&tail, 6), None);
        tail.suspects = vec![acknowledgement(20), put];
        let why = refused_next_time(&tail, 6);
        assert_eq!(why, Some("it acknowledges events that were never put"));
    }

    #[test]
    fn incarnations_in_the_wrong_order_are_refused_before_they_are_written_down() {
        let mut wrong = read();
        wrong.state.incarnations.push((2, 7));
        let why = refused_next_time(&wrong, 6);
        assert_eq!(why, Some("its incarnations are not in order"));
    }

    #[test]
    fn the_last_number_of_an_incarnation_is_not_given() {
        assert!(refused_next_time(&read(), u32::MAX).is_some());
    }

    #[test]
    fn numbers_that_are_used_up_are_refused_before_they_are_written_down() {
        let mut last = read();
        last.state.next_sequence = (1 << 62) - 1;
        last.state.cursor = last.state.next_sequence;
        assert_eq!(refused_next_time(&last, 6), None);
        last.state.next_control = 1 << 62;
        assert!(refused_next_time(&last, 6).is_some());
    }
}
