//! Which of the unproven frames are copied, case by case: most of these tails no crash of our own
//! writer leaves, but damage can.

use wal_format::{FRAME_HEADER_BYTES, PutEncoder};

use super::super::frames::put_op;
use super::super::frames::tests::{WHOLE, ack, put, record, state, suspect};
use super::*;
use crate::channel::file::state::Op;

fn whole_transactions(suspects: Vec<Suspect>, state: &LogState) -> Vec<Suspect> {
    Tail::new(suspects, state).whole_transactions()
}

/// Sequence and control number of what is copied.
fn copied(suspects: Vec<Suspect>) -> Vec<(FrameKind, u64, u64)> {
    let whole = whole_transactions(suspects, &state());
    let number = |s: &Suspect| (s.header.kind, s.header.sequence, s.header.control);
    whole.iter().map(number).collect()
}

#[test]
fn a_tail_without_gaps_is_copied_whole_and_in_order() {
    let tail = vec![
        put(5, 2, 3, WHOLE),
        ack(7, 3),
        put(7, 1, 4, (true, false)),
        put(8, 1, 4, (false, true)),
    ];
    let expected = [
        (FrameKind::Put, 5, 3),
        (FrameKind::Ack, 7, 3),
        (FrameKind::Put, 7, 4),
        (FrameKind::Put, 8, 4),
    ];
    assert_eq!(copied(tail), expected);
}

#[test]
fn what_has_been_copied_before_is_left_out_and_what_follows_it_is_not() {
    let tail = vec![
        put(3, 2, 3, WHOLE),
        ack(5, 2),
        put(5, 1, 3, WHOLE),
        put(5, 1, 3, WHOLE),
        ack(6, 3),
        ack(6, 3),
        put(6, 1, 4, WHOLE),
    ];
    let expected = [
        (FrameKind::Put, 5, 3),
        (FrameKind::Ack, 6, 3),
        (FrameKind::Put, 6, 4),
    ];
    assert_eq!(copied(tail), expected);
}

#[test]
fn a_gap_of_sequence_numbers_ends_the_tail() {
    let tail = vec![put(5, 1, 3, WHOLE), put(7, 1, 3, WHOLE), ack(8, 3)];
    assert_eq!(copied(tail), [(FrameKind::Put, 5, 3)]);
}

#[test]
fn a_gap_of_control_numbers_ends_the_tail() {
    let events = vec![put(5, 1, 3, WHOLE), put(6, 1, 4, WHOLE)];
    assert_eq!(copied(events), [(FrameKind::Put, 5, 3)]);
    let records = vec![put(5, 1, 3, WHOLE), ack(6, 4), put(6, 1, 5, WHOLE)];
    assert_eq!(copied(records), [(FrameKind::Put, 5, 3)]);
}

#[test]
fn a_transaction_that_was_cut_short_is_not_copied_nor_what_stands_behind_it() {
    let end = vec![put(5, 1, 3, WHOLE), put(6, 1, 3, (true, false))];
    assert_eq!(copied(end), [(FrameKind::Put, 5, 3)]);
    let middle = vec![
        put(5, 1, 3, (true, false)),
        ack(6, 3),
        put(6, 1, 4, (false, true)),
    ];
    assert_eq!(copied(middle), []);
}

#[test]
fn records_that_only_prove_or_describe_are_not_copied_and_cost_no_number() {
    let seal = Record::SegmentSeal {
        frames: 1,
        next_sequence: 5,
    };
    let tail = vec![
        record(&Record::Watermark, 5, 3),
        record(&seal, 5, 3),
        ack(5, 3),
    ];
    assert_eq!(copied(tail), [(FrameKind::Ack, 5, 3)]);
}

/// The snapshot that an open begins with, at these numbers.
fn opening(sequence: u64, control: u64) -> Suspect {
    let snapshot = wal_format::Snapshot {
        incarnation: 2,
        ..wal_format::Snapshot::default()
    };
    record(&Record::Snapshot(Box::new(snapshot)), sequence, control)
}

/// INV-9: an open that was cut short has copied what has become unreadable since.
#[test]
fn copies_fill_a_gap_of_their_originals() {
    let events = vec![
        put(5, 1, 3, WHOLE),
        put(7, 1, 3, WHOLE),
        opening(5, 3),
        put(5, 1, 3, WHOLE),
        put(6, 1, 3, WHOLE),
        put(7, 1, 3, WHOLE),
    ];
    let expected = [5, 6, 7].map(|sequence| (FrameKind::Put, sequence, 3));
    assert_eq!(copied(events), expected);
    let records = vec![ack(5, 4), opening(5, 3), ack(5, 3), ack(5, 4)];
    let expected = [(FrameKind::Ack, 5, 3), (FrameKind::Ack, 5, 4)];
    assert_eq!(copied(records), expected);
    // Of one transaction a part is left here and a part there.
    let parts = vec![
        put(5, 1, 3, (true, false)),
        put(7, 1, 3, (false, true)),
        opening(5, 3),
        put(6, 1, 3, (false, false)),
        put(7, 1, 3, (false, true)),
    ];
    let expected = [5, 6, 7].map(|sequence| (FrameKind::Put, sequence, 3));
    assert_eq!(copied(parts), expected);
}

/// Numbers of the frame that the tail begins with, and the next ones behind its end.
fn followed(suspects: Vec<Suspect>) -> [(u64, u64); 2] {
    let tail = Tail::new(suspects, &state());
    let reached = tail.follow(tail.first, tail.begun).reached;
    [tail.begun, reached].map(|numbers| (numbers.sequence, numbers.control))
}

#[test]
fn the_tail_begins_with_the_copies_where_the_first_originals_are_gone() {
    let left = [put(7, 1, 3, WHOLE), put(8, 1, 3, WHOLE)];
    let copies = [
        opening(5, 3),
        put(5, 1, 3, WHOLE),
        put(6, 1, 3, WHOLE),
        put(7, 1, 3, WHOLE),
    ];
    assert_eq!(
        followed([&left[..], &copies[..]].concat()),
        [(5, 3), (9, 3)]
    );
    // Only control records are missing.
    let records = vec![ack(5, 4), opening(5, 3), ack(5, 3), ack(5, 4)];
    assert_eq!(followed(records), [(5, 3), (5, 5)]);
    // The second of two recoveries goes on where the first one ended.
    let short = [opening(5, 3), put(5, 1, 3, WHOLE)];
    let tail = [&left[..], &short[..], &copies[..]].concat();
    assert_eq!(followed(tail.clone()), [(5, 3), (9, 3)]);
    let expected = [5, 6, 7, 8].map(|sequence| (FrameKind::Put, sequence, 3));
    assert_eq!(copied(tail), expected);
    // The originals go on where the copies end, whether they overlap or not.
    let tail = [&left[..], &copies[..3]].concat();
    assert_eq!(followed(tail), [(5, 3), (9, 3)]);
}

#[test]
fn the_tail_begins_with_its_first_frame_where_copies_would_not_reach_it() {
    let (first, copy) = (put(7, 1, 3, WHOLE), put(5, 1, 3, WHOLE));
    assert_eq!(followed(vec![]), [(5, 3), (5, 3)]);
    let tails = [
        // Too few copies, none at all, or none of what is missing.
        vec![first.clone(), opening(5, 3), copy.clone()],
        vec![first.clone(), copy.clone(), put(6, 1, 3, WHOLE)],
        vec![first.clone(), opening(7, 3), first],
    ];
    for tail in tails {
        assert_eq!(followed(tail), [(7, 3), (8, 3)]);
    }
    let tail = vec![ack(5, 4), opening(5, 4), ack(5, 4)];
    assert_eq!(followed(tail), [(5, 4), (5, 5)]);
    let tail = vec![ack(6, 4), opening(5, 3), copy.clone()];
    assert_eq!(followed(tail), [(6, 4), (6, 5)]);
    // Nothing is missing.
    let tail = vec![copy.clone(), opening(4, 2), put(4, 1, 3, WHOLE), copy];
    assert_eq!(followed(tail), [(5, 3), (6, 3)]);
}

/// INV-5: an earlier open has called 5 and 6 lost and was cut short; it had given their numbers.
#[test]
fn a_number_that_an_open_has_counted_as_given_is_not_given_again() {
    let tail = vec![opening(5, 3), opening(7, 3), put(7, 1, 3, WHOLE)];
    assert_eq!(followed(tail), [(7, 3), (8, 3)]);
    let tail = vec![opening(5, 3), put(5, 1, 3, WHOLE), opening(7, 4)];
    assert_eq!(followed(tail), [(7, 4), (7, 4)]);
    // What was cut short itself counts for nothing.
    let half = put(7, 1, 3, (true, false));
    let tail = vec![put(5, 1, 3, WHOLE), opening(5, 3), opening(6, 3), half];
    assert_eq!(followed(tail), [(5, 3), (6, 3)]);
}

fn opened(sequence: u64, control: u64) -> Suspect {
    let open = wal_format::Open {
        incarnation: 2,
        nonce: 1,
        identity: wal_format::Identity::default(),
        opened_at_ms: 0,
        previous: None,
    };
    record(&Record::Incarnation(open), sequence, control)
}

/// INV-9: what a later open has copied has the numbers of its originals, also behind an earlier
/// Incarnation among them.
#[test]
fn copies_go_on_behind_an_incarnation_where_the_frames_before_are_gone() {
    let tail = vec![
        put(5, 1, 3, WHOLE),
        opened(6, 3),
        put(7, 1, 4, WHOLE),
        opening(5, 3),
        put(6, 1, 4, WHOLE),
        put(7, 1, 4, WHOLE),
    ];
    let expected = [
        (FrameKind::Put, 5, 3),
        (FrameKind::Incarnation, 6, 3),
        (FrameKind::Put, 6, 4),
        (FrameKind::Put, 7, 4),
    ];
    assert_eq!(copied(tail), expected);
}

/// INV-9: the Incarnation of an open that is among the copies may have got the number of a record
/// that is missing in front of the originals.
#[test]
fn originals_do_not_go_on_behind_the_incarnation_of_another_open() {
    let opened = opened(5, 3);
    let tail = vec![put(5, 1, 4, WHOLE), opening(5, 3), opened.clone()];
    assert_eq!(followed(tail), [(5, 4), (6, 4)]);
    // It is theirs where both have a frame behind it.
    let tail = vec![
        put(5, 1, 4, WHOLE),
        put(6, 1, 4, WHOLE),
        opening(5, 3),
        opened,
        put(5, 1, 4, WHOLE),
    ];
    assert_eq!(followed(tail), [(5, 3), (7, 4)]);
}

/// A put of a position and nothing else.
fn without_events(position: &str, sequence: u64, control: u64) -> Suspect {
    let mut encoder = PutEncoder::with_capacity(100);
    encoder.position(b"key", position.as_bytes());
    let frame = encoder.finish();
    let body = frame.buffer[FRAME_HEADER_BYTES..][..frame.body_len as usize].to_vec();
    suspect(FrameKind::Put, sequence, 0, control, WHOLE, body)
}

/// INV-15: an open that was cut short has left the copy of the first of two puts without events.
#[test]
fn the_copy_of_a_put_without_events_does_not_count_behind_a_later_one() {
    let at = |value: &str| without_events(value, 1, 0);
    let opening = wal_format::Snapshot {
        incarnation: 2,
        ..wal_format::Snapshot::default()
    };
    let rolled = wal_format::Snapshot {
        incarnations: vec![(2, 0)],
        ..opening.clone()
    };
    let snapshot = |snapshot: &wal_format::Snapshot| {
        record(&Record::Snapshot(Box::new(snapshot.clone())), 1, 0)
    };
    let last = |suspects: Vec<Suspect>| {
        let whole = whole_transactions(suspects, &LogState::fresh());
        match put_op(whole.last().unwrap()).unwrap() {
            Op::Put { positions, .. } => String::from_utf8(positions[0].1.clone()).unwrap(),
            other => panic!("{other:?}"),
        }
    };
    let copied = vec![at("2"), at("3"), snapshot(&opening), at("2")];
    assert_eq!(last(copied), "3");
    // What is not there as an original counts.
    let torn = vec![at("2"), snapshot(&opening), at("2"), at("3")];
    assert_eq!(last(torn), "3");
    // Behind a roll, and without any, nothing is a copy: a source may go back.
    let back = vec![at("2"), at("3"), snapshot(&rolled), at("2")];
    assert_eq!(last(back), "2");
    assert_eq!(last(vec![at("2"), at("3"), at("2")]), "2");
    // Each copy counts for one of them, also where the first originals are gone.
    let all = [at("2"), at("3"), at("2")];
    assert_eq!(
        last([&all[..], &[snapshot(&opening)], &all[..]].concat()),
        "2"
    );
    assert_eq!(last([&[snapshot(&opening)], &all[..]].concat()), "2");
    let gone = [&all[1..2], &[snapshot(&opening)], &all[..2]].concat();
    assert_eq!(last(gone), "3");
}

/// INV-15: the beginning of the originals is gone, and the copies stand in front of them.
#[test]
fn a_put_without_events_is_an_original_also_behind_copies() {
    let at = |value: &str| without_events(value, 7, 3);
    let originals = [put(6, 1, 3, WHOLE), at("2"), at("3"), at("2")];
    let copies = [opening(5, 3), put(5, 1, 3, WHOLE), put(6, 1, 3, WHOLE)];
    for copied_too in 0..4 {
        let copies = [&copies[..], &originals[1..][..copied_too]].concat();
        let tail = [&originals[..], &copies[..]].concat();
        assert_eq!(copied(tail).len(), 5, "{copied_too}");
    }
}

/// INV-15: another position at the same numbers is another put, and what a run has repeated once it
/// does not repeat again.
#[test]
fn a_put_without_events_repeats_only_its_own_and_that_once() {
    let at = |value: &str| without_events(value, 5, 3);
    let bodies = |suspects: &[&[Suspect]]| {
        let whole = whole_transactions(suspects.concat(), &state());
        whole.into_iter().map(|s| s.body).collect::<Vec<_>>()
    };
    let of = |values: &[&str]| values.iter().map(|v| at(v).body).collect::<Vec<_>>();
    let other: [&[_]; 3] = [&[at("2")], &[opening(5, 3)], &[at("3")]];
    assert_eq!(bodies(&other), of(&["2", "3"]));
    let originals = [at("1"), at("2"), at("3")];
    let back: [&[_]; 3] = [&originals, &[opening(5, 3)], &[at("3"), at("2")]];
    assert_eq!(bodies(&back), of(&["1", "2", "3", "2"]));
}
