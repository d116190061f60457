//! How often segments were seen dead, counted anew from the snapshot of the base.

use std::path::PathBuf;

use wal_format::Snapshot;

use super::super::accepted;
use super::*;

fn segment(number: u32, first_sequence: u64) -> Segment {
    let found = Found {
        number,
        dir: 0,
        path: PathBuf::from("segment"),
        len: 1 << 20,
        shown: None,
    };
    let reference = SegmentRef {
        segment: number,
        salt: 0,
        first_sequence,
        end: 8192,
    };
    old_segment(&found, &reference)
}

/// The base knows that all below event 10 is acknowledged, and that event 20 is the next one.
#[test]
fn the_snapshot_of_the_base_counts_once_and_for_a_segment_without_events_so_do_those_before_it() {
    let base = Base {
        header: accepted::header(FrameKind::Snapshot, 20, 0),
        snapshot: Snapshot {
            acked_below: 10,
            ..Snapshot::default()
        },
        behind: SEGMENT_HEADER_BYTES,
    };
    let firsts = [(1, 1), (2, 5), (3, 5), (4, 10), (5, 20)];
    let mut segments = firsts.map(|(number, first)| segment(number, first));
    count_coverage(&mut segments, &base);
    let covered = segments.map(|segment| (segment.number, segment.covered));
    assert_eq!(covered, [(1, 1), (2, 4), (3, 1), (4, 0), (5, 1)]);
}
