//! Every record comes back; nothing else is taken for one.

use super::*;
use crate::record::encode_frame_room;
use alloc::string::ToString;
use alloc::vec;

fn epoch() -> Epoch {
    Epoch {
        epoch: 5,
        range: Range {
            first: 10,
            last: 300,
        },
        claimed: true,
        sink: "k1".to_string(),
        store: "hdfs://nn:8020".to_string(),
        base: "/logs".to_string(),
        attempt: "/logs/_staging/c/i1/a2".to_string(),
        parts: vec![Part {
            staged_name: "0".to_string(),
            final_path: "/logs/\u{fc}.log".to_string(),
            count: 291,
            length: 1 << 33,
            crc32: 0xdead_beef,
        }],
    }
}

fn routes() -> Routes {
    let channels = vec!["c1".to_string(), "c2".to_string()];
    let routes = vec![Route {
        first_index: 0,
        count: 200,
        channels,
    }];
    Routes {
        batch: 9,
        fingerprint: u64::MAX - 1,
        routes,
    }
}

fn snapshot() -> Snapshot {
    Snapshot {
        acked_below: 1000,
        acked: vec![
            Range {
                first: 1002,
                last: 1002,
            },
            Range {
                first: 1004,
                last: u64::MAX,
            },
        ],
        lost: vec![Range { first: 3, last: 4 }],
        positions: vec![
            (b"k".to_vec(), b"\xff\x00".to_vec()),
            (vec![], vec![1; 200]),
        ],
        producers: vec![Producer {
            id: b"p".to_vec(),
            epoch: 3,
            last: 99,
        }],
        routes: vec![routes(), routes()],
        incarnation: 7,
        incarnations: vec![(6, 1), (7, u64::MAX)],
        fenced_through: 5,
        identity: Identity {
            inode: 1,
            filesystem: 2,
            machine: 3,
        },
        next_epoch: 6,
        epochs: vec![epoch()],
        segments: vec![SegmentRef {
            segment: 1,
            salt: 8,
            first_sequence: 4,
            end: 4096,
        }],
        control_lost: true,
    }
}

fn records() -> Vec<Record> {
    let previous = Some(SegmentRef {
        segment: 3,
        salt: 4,
        first_sequence: 5,
        end: 6,
    });
    let open = Open {
        incarnation: 7,
        nonce: 8,
        identity: Identity {
            inode: 9,
            filesystem: 10,
            machine: 11,
        },
        opened_at_ms: 12,
        previous,
    };
    vec![
        Record::Ack(vec![]),
        Record::Ack(vec![
            Range {
                first: 0,
                last: u64::MAX,
            },
            Range { first: 5, last: 5 },
        ]),
        Record::Routes(routes()),
        Record::Seal(epoch()),
        Record::Claimed(epoch()),
        Record::Done { epoch: 300 },
        Record::Abandon { epoch: u64::MAX },
        Record::Fence { through: u32::MAX },
        Record::Incarnation(Open {
            previous: None,
            ..open.clone()
        }),
        Record::Incarnation(open),
        Record::Watermark,
        Record::Snapshot(Box::new(snapshot())),
        Record::Snapshot(Box::default()),
        Record::SegmentSeal {
            frames: 9,
            next_sequence: 1 << 50,
        },
    ]
}

#[test]
fn every_record_comes_back() {
    for record in records() {
        let body = record.encode();
        assert_eq!(Record::decode(record.kind(), &body), Ok(record));
    }
}

#[test]
fn a_longer_or_shorter_body_is_refused() {
    for record in records() {
        let mut body = record.encode();
        for length in (0..body.len()).step_by(if cfg!(miri) { 17 } else { 1 }) {
            assert!(
                Record::decode(record.kind(), &body[..length]).is_err(),
                "{record:?}"
            );
        }
        let at = body.len();
        body.push(0);
        let trailing = Err(BodyError::TrailingBytes { at });
        assert_eq!(Record::decode(record.kind(), &body), trailing);
    }
}

#[test]
fn any_changed_body_is_refused_or_is_another_record_with_that_very_encoding() {
    for record in records() {
        let good = record.encode();
        // The interpreter (Miri) tries some of them.
        for bit in (0..good.len() * 8).step_by(if cfg!(miri) { 53 } else { 1 }) {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            if let Ok(other) = Record::decode(record.kind(), &bad) {
                assert_eq!(other.encode(), bad);
            }
        }
    }
}

#[test]
fn the_smallest_encodings_are_as_small_as_said_or_larger() {
    fn check<T: Coded>(value: &T) {
        let mut out = Vec::new();
        value.write(&mut out);
        assert_eq!(out.len(), T::SMALLEST);
    }
    let empty = alloc::string::String::new;
    let range = Range { first: 0, last: 0 };
    check(&range);
    let part = Part {
        staged_name: empty(),
        final_path: empty(),
        count: 0,
        length: 0,
        crc32: 0,
    };
    check(&part);
    check(&Epoch {
        epoch: 0,
        range,
        claimed: false,
        sink: empty(),
        store: empty(),
        base: empty(),
        attempt: empty(),
        parts: vec![],
    });
    check(&Identity::default());
    check(&SegmentRef {
        segment: 0,
        salt: 0,
        first_sequence: 0,
        end: 0,
    });
    let identity = Identity::default();
    check(&Open {
        incarnation: 0,
        nonce: 0,
        identity,
        opened_at_ms: 0,
        previous: None,
    });
    check(&Producer {
        id: vec![],
        epoch: 0,
        last: 0,
    });
    check(&Route {
        first_index: 0,
        count: 0,
        channels: vec![],
    });
    check(&Routes {
        batch: 0,
        fingerprint: 0,
        routes: vec![],
    });
    check(&(0u32, 0u64));
    check(&(Vec::<u8>::new(), Vec::<u8>::new()));
    check(&Snapshot::default());
}

#[test]
fn a_range_that_runs_backwards_is_refused() {
    let body = Record::Ack(vec![Range { first: 5, last: 4 }]).encode();
    assert_eq!(
        Record::decode(FrameKind::Ack, &body),
        Err(BodyError::NumberTooLarge { at: 2 })
    );
}

#[test]
fn a_huge_count_is_refused_before_anything_is_allocated() {
    let mut body = Vec::new();
    put_varint(&mut body, 1 << 62);
    body.extend_from_slice(&[0; 32]);
    let refused = Err(BodyError::CountTooHigh {
        at: 0,
        count: 1 << 62,
    });
    assert_eq!(Record::decode(FrameKind::Ack, &body), refused);
}

#[test]
fn a_put_body_is_no_control_record() {
    assert_eq!(
        Record::decode(FrameKind::Put, &[]),
        Err(BodyError::NotAControlRecord)
    );
}

#[test]
fn the_frame_room_holds_the_same_body_summed_and_padded() {
    for record in records() {
        let body = record.encode();
        let frame = encode_frame_room(&record);
        assert_eq!(frame.buffer[..64], [0; 64]);
        assert_eq!(frame.buffer[64..64 + body.len()], body);
        assert_eq!(frame.body_crc, crc32fast::hash(&body));
        assert_eq!(frame.buffer.len() % 8, 0);
        assert_eq!(frame.count, 0);
    }
}
