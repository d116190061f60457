//! The bytes of format version 1, field by field, as files that no encoder wrote: each must be
//! what the encoder makes, and must decode to what it was made of. The files in `tests/golden/`
//! are never regenerated; a difference is a new format version or a defect.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use wal_format::{
    EncodedPut, Epoch, EventRef, FRAME_HEADER_BYTES, FrameHeader, FrameKind, Identity, Lsn, Open,
    Part, Producer, PutBody, PutEncoder, Range, Record, Route, Routes, Scanner, SegmentHeader,
    SegmentRef, Snapshot, Step, encode_frame_room,
};

const SALT: u64 = 0x1122_3344_5566_7788;
const SEGMENT: u32 = 7;
const OFFSET: u32 = 4096;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// The bytes of a golden file: per line hex pairs or `byte*count`, then `# offset: meaning`. Each
/// line has a meaning, and its offset is right.
fn golden(name: &str) -> Vec<u8> {
    let text = std::fs::read_to_string(folder().join(name).with_extension("hex")).unwrap();
    let mut bytes = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let place = format!("{name}.hex:{}", number + 1);
        let (hex, meaning) = line
            .split_once('#')
            .unwrap_or_else(|| panic!("{place}: no #"));
        if hex.is_empty() {
            continue;
        }
        let (offset, meaning) = meaning.split_once(':').unwrap();
        let offset: usize = offset.trim().parse().unwrap();
        assert_eq!(offset, bytes.len(), "{place}: wrong offset");
        assert!(
            !meaning.trim().is_empty(),
            "{place}: bytes without a meaning"
        );
        for item in hex.split_whitespace() {
            let (byte, count) = item.split_once('*').unwrap_or((item, "1"));
            assert_eq!(byte.len(), 2, "{place}: {item}");
            let byte = u8::from_str_radix(byte, 16).unwrap();
            bytes.extend(std::iter::repeat_n(byte, count.parse().unwrap()));
        }
    }
    bytes
}

/// Says where two byte strings part instead of printing both.
fn assert_same(name: &str, made: &[u8], golden: &[u8]) {
    let differs = made
        .iter()
        .zip(golden)
        .position(|(made, golden)| made != golden);
    if let Some(at) = differs {
        let (made, golden) = (made[at], golden[at]);
        panic!("{name}: byte {at} is {made:#04x}, in the golden file {golden:#04x}");
    }
    assert_eq!(made.len(), golden.len(), "{name}: another length");
}

fn segment_header() -> SegmentHeader {
    SegmentHeader {
        incompatible: 0,
        compatible: 0x8000_0001,
        channel_id: std::array::from_fn(|i| 0xa0 + u8::try_from(i).unwrap()),
        segment: SEGMENT,
        size: 1 << 20,
        salt: SALT,
        prepared_at_ms: 1_700_000_000_123,
        cipher_id: 0,
        key_id: 0x0a0b_0c0d,
        compression_id: 0,
    }
}

fn frame_header(kind: FrameKind, frame: &EncodedPut) -> FrameHeader {
    FrameHeader {
        kind,
        first_of_transaction: true,
        last_of_transaction: kind.is_control(),
        compression_id: 0,
        body_len: frame.body_len,
        body_crc: frame.body_crc,
        sequence: 0x0102_0304_0506_0708,
        count: frame.count,
        control: 0x1112_1314_1516_1718,
        put_time_ms: 1_700_000_000_123,
        watermark: Lsn::new(6, 8192),
    }
}

type Event = (
    Vec<(&'static str, String)>,
    Option<(u32, u64)>,
    &'static [u8],
);

fn events() -> Vec<Event> {
    vec![
        (
            vec![("host", "a".into()), ("", "\u{e9}".into())],
            Some((0, 1000)),
            b"first",
        ),
        (vec![], None, b""),
        (vec![], Some((0, 990)), b"\x00\xff"),
        (vec![("k", "v".repeat(130))], Some((1, u64::MAX)), b"third"),
        (vec![], Some((1, 0)), b""),
    ]
}

const POSITIONS: [(&[u8], &[u8]); 2] = [(b"file-a", b"dev:inode"), (b"", b"\x01")];

fn put() -> EncodedPut {
    let mut put = PutEncoder::new();
    for (headers, position, body) in events() {
        let headers = headers.iter().map(|(name, value)| (*name, value.as_str()));
        put.event(headers, body, position);
    }
    for (key, value) in POSITIONS {
        put.position(key, value);
    }
    put.finish()
}

fn epoch(claimed: bool) -> Epoch {
    let part = Part {
        staged_name: "0".into(),
        final_path: "/logs/\u{fc}.log".into(),
        count: 300,
        length: 1 << 33,
        crc32: 0xdead_beef,
    };
    Epoch {
        epoch: 200,
        range: range(10, 309),
        claimed,
        sink: "k1".into(),
        store: "hdfs://nn:8020".into(),
        base: "/logs".into(),
        attempt: "/logs/_staging/i1/a2".into(),
        parts: vec![part],
    }
}

fn range(first: u64, last: u64) -> Range {
    Range { first, last }
}

fn route(first_index: u32, count: u32, channels: &[&str]) -> Route {
    Route {
        first_index,
        count,
        channels: channels.iter().map(|name| (*name).into()).collect(),
    }
}

fn routes() -> Routes {
    Routes {
        batch: 9,
        fingerprint: 0x0f0e_0d0c_0b0a_0908,
        routes: vec![route(0, 200, &["c1", "c2"]), route(200, 1, &[])],
    }
}

const IDENTITY: Identity = Identity {
    inode: 9,
    filesystem: 10,
    machine: u64::MAX,
};

const REF: SegmentRef = SegmentRef {
    segment: 6,
    salt: 0xfedc_ba98_7654_3210,
    first_sequence: 129,
    end: 65536,
};

fn snapshot() -> Snapshot {
    Snapshot {
        acked_below: 1000,
        acked: vec![range(1002, 1002), range(1004, 2000)],
        lost: vec![range(3, 4)],
        positions: vec![
            (b"k".to_vec(), b"\xff\x00".to_vec()),
            (vec![], vec![1; 130]),
        ],
        producers: vec![Producer {
            id: b"p".to_vec(),
            epoch: 3,
            last: 99,
        }],
        routes: vec![routes()],
        incarnation: 7,
        incarnations: vec![(6, 1), (7, u64::MAX)],
        fenced_through: 5,
        identity: IDENTITY,
        next_epoch: 201,
        epochs: vec![epoch(true)],
        segments: vec![REF],
        control_lost: true,
    }
}

fn open(incarnation: u32, nonce: u64, opened_at_ms: u64, previous: Option<SegmentRef>) -> Record {
    Record::Incarnation(Open {
        incarnation,
        nonce,
        identity: IDENTITY,
        opened_at_ms,
        previous,
    })
}

/// Every control record by the name of its golden file.
fn records() -> Vec<(&'static str, Record)> {
    let ranges = vec![range(1, 300), range(u64::MAX, u64::MAX)];
    let seal = Record::SegmentSeal {
        frames: 300,
        next_sequence: 1 << 50,
    };
    let second = open(7, 0x0807_0605_0403_0201, 1_700_000_000_456, Some(REF));
    vec![
        ("ack", Record::Ack(ranges)),
        ("routes", Record::Routes(routes())),
        ("seal", Record::Seal(epoch(false))),
        ("claimed", Record::Claimed(epoch(true))),
        ("done", Record::Done { epoch: 300 }),
        ("abandon", Record::Abandon { epoch: u64::MAX }),
        ("fence", Record::Fence { through: u32::MAX }),
        ("incarnation", second),
        ("incarnation_first", open(1, 1, 0, None)),
        ("watermark", Record::Watermark),
        ("snapshot", Record::Snapshot(Box::new(snapshot()))),
        ("segment_seal", seal),
    ]
}

/// Compares a whole frame byte for byte, then reads the golden one; returns its body.
fn check_frame(name: &str, kind: FrameKind, mut frame: EncodedPut) -> Vec<u8> {
    let header = frame_header(kind, &frame);
    let lsn = Lsn::new(SEGMENT, OFFSET);
    header.encode(SALT, lsn, frame.header_room().unwrap());
    let golden = golden(name);
    assert_same(name, &frame.buffer, &golden);
    let body_max = u32::try_from(golden.len() - FRAME_HEADER_BYTES).unwrap();
    let decoded = FrameHeader::decode(&golden, SALT, lsn, body_max);
    assert_eq!(decoded, Ok(header.clone()), "{name}");
    let body_end = FRAME_HEADER_BYTES + usize::try_from(header.body_len).unwrap();
    let body = golden[FRAME_HEADER_BYTES..body_end].to_vec();
    assert_eq!(header.check_body(&body), Ok(()), "{name}");
    // The scanner finds the same frame at its place in a segment.
    let mut segment = vec![0; usize::try_from(OFFSET).unwrap()];
    segment.extend_from_slice(&golden);
    let end = u32::try_from(segment.len()).unwrap();
    let mut scanner = Scanner::new(&segment[..], SEGMENT, SALT, OFFSET, end, Lsn(0));
    let step = scanner.step().unwrap();
    let body_ref = &body;
    assert_eq!(
        step,
        Step::Frame {
            lsn,
            header,
            body: body_ref
        },
        "{name}"
    );
    assert_eq!(scanner.step(), Ok(Step::End { offset: end }), "{name}");
    body
}

#[test]
fn the_segment_header_is_the_golden_one() {
    let golden = golden("segment_header");
    assert_same("segment_header", &segment_header().encode(), &golden);
    assert_eq!(SegmentHeader::decode(&golden), Ok(segment_header()));
}

#[test]
fn the_put_frame_is_the_golden_one() {
    let body = check_frame("put", FrameKind::Put, put());
    let parsed = PutBody::parse(&body, 5).unwrap();
    let found: Vec<EventRef<'_>> = parsed.events().map(Result::unwrap).collect();
    assert_eq!(found.len(), events().len());
    for (found, (headers, position, body)) in found.iter().zip(events()) {
        let expected: Vec<_> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        assert_eq!(found.headers().collect::<Vec<_>>(), expected);
        assert_eq!((found.position, found.body), (position, body));
    }
    let positions: Vec<_> = parsed.positions().map(Result::unwrap).collect();
    assert_eq!(positions, POSITIONS);
}

#[test]
fn every_control_record_is_the_golden_one() {
    for (name, record) in records() {
        let body = check_frame(name, record.kind(), encode_frame_room(&record));
        assert_eq!(Record::decode(record.kind(), &body), Ok(record), "{name}");
    }
}

#[test]
fn every_kind_has_a_golden_file_and_every_file_a_test() {
    let kinds: BTreeSet<u8> = records().iter().map(|(_, r)| r.kind().code()).collect();
    let all = FrameKind::ALL.into_iter().filter(|kind| kind.is_control());
    assert_eq!(kinds, all.map(FrameKind::code).collect());
    let names = records().into_iter().map(|(name, _)| name);
    let expected: BTreeSet<String> = names
        .chain(["segment_header", "put"])
        .map(|name| format!("{name}.hex"))
        .collect();
    let files = std::fs::read_dir(folder()).unwrap();
    let found = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    assert_eq!(found.collect::<BTreeSet<_>>(), expected);
}
