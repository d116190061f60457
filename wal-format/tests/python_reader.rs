//! A second reader, in another language and written from the specification alone, must find in a
//! segment what was written: the specification says enough, and says the truth.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fmt::Write as _;
use std::process::Command;

use wal_format::{
    EncodedPut, Epoch, FrameHeader, FrameKind, Identity, Lsn, Open, Part, Producer, PutEncoder,
    Range, Record, Route, Routes, SegmentHeader, SegmentRef, Snapshot, encode_frame_room,
};

const SALT: u64 = 0x0123_4567_89ab_cdef;

fn epoch() -> Epoch {
    let part = Part {
        staged_name: "p0".into(),
        final_path: "/l/\u{fc}".into(),
        count: 300,
        length: 1 << 40,
        crc32: 0xfeed_beef,
    };
    Epoch {
        epoch: 200,
        range: Range {
            first: 5,
            last: 304,
        },
        claimed: true,
        sink: "k".into(),
        store: "file://".into(),
        base: "/l".into(),
        attempt: "/l/a".into(),
        parts: vec![part],
    }
}

const EPOCH: &str = r#"{"epoch": 200, "range": [5, 304], "claimed": true, "sink": "k", "store": "file://", "base": "/l", "attempt": "/l/a", "parts": [{"staged_name": "p0", "final_path": "/l/\u00fc", "count": 300, "length": 1099511627776, "crc32": 4276993775}]}"#;

fn segment_ref() -> SegmentRef {
    SegmentRef {
        segment: 6,
        salt: u64::MAX,
        first_sequence: 129,
        end: 8192,
    }
}

const REF: &str =
    r#"{"segment": 6, "salt": 18446744073709551615, "first_sequence": 129, "end": 8192}"#;

fn routes() -> Routes {
    let routes = vec![Route {
        first_index: 1,
        count: 2,
        channels: vec!["c1".into(), "c2".into()],
    }];
    Routes {
        batch: 3,
        fingerprint: 4,
        routes,
    }
}

const ROUTES: &str = r#"{"batch": 3, "fingerprint": 4, "routes": [{"first_index": 1, "count": 2, "channels": ["c1", "c2"]}]}"#;

/// Every control record beside what the reader must print for it.
#[allow(
    clippy::too_many_lines,
    reason = "one table: values beside what they must read as"
)]
fn records() -> Vec<(Record, &'static str, String)> {
    let identity = Identity {
        inode: 1,
        filesystem: 2,
        machine: 3,
    };
    let id = r#"{"inode": 1, "filesystem": 2, "machine": 3}"#;
    let open = Open {
        incarnation: 9,
        nonce: 8,
        identity,
        opened_at_ms: 1_700_000_000_000,
        previous: Some(segment_ref()),
    };
    let open_text = format!(
        r#"{{"incarnation": 9, "nonce": 8, "identity": {id}, "opened_at_ms": 1700000000000, "previous": {REF}}}"#
    );
    let snapshot = Snapshot {
        acked_below: 7,
        acked: vec![Range { first: 9, last: 9 }],
        lost: vec![Range {
            first: 1,
            last: 200,
        }],
        positions: vec![(vec![1], vec![255])],
        producers: vec![Producer {
            id: vec![16],
            epoch: 4,
            last: 5,
        }],
        routes: vec![routes()],
        incarnation: 2,
        incarnations: vec![(1, 77), (2, 78)],
        fenced_through: 1,
        identity,
        next_epoch: 201,
        epochs: vec![epoch()],
        segments: vec![segment_ref()],
        control_lost: true,
    };
    let snapshot_text = format!(
        r#"{{"acked_below": 7, "acked": [[9, 9]], "lost": [[1, 200]], "positions": [["01", "ff"]], "producers": [{{"id": "10", "epoch": 4, "last": 5}}], "routes": [{ROUTES}], "incarnation": 2, "incarnations": [[1, 77], [2, 78]], "fenced_through": 1, "identity": {id}, "next_epoch": 201, "epochs": [{EPOCH}], "segments": [{REF}], "control_lost": true}}"#
    );
    let ack = Record::Ack(vec![
        Range {
            first: 1,
            last: 300,
        },
        Range {
            first: 400,
            last: 400,
        },
    ]);
    let seal = Record::SegmentSeal {
        frames: 12,
        next_sequence: 4,
    };
    vec![
        (
            Record::Snapshot(Box::new(snapshot)),
            "snapshot",
            snapshot_text,
        ),
        (Record::Incarnation(open), "incarnation", open_text),
        (ack, "ack", r#"{"ranges": [[1, 300], [400, 400]]}"#.into()),
        (Record::Routes(routes()), "routes", ROUTES.into()),
        (Record::Seal(epoch()), "seal", EPOCH.into()),
        (Record::Claimed(epoch()), "claimed", EPOCH.into()),
        (
            Record::Done { epoch: 200 },
            "done",
            r#"{"epoch": 200}"#.into(),
        ),
        (
            Record::Abandon { epoch: 1 },
            "abandon",
            r#"{"epoch": 1}"#.into(),
        ),
        (
            Record::Fence { through: 3 },
            "fence",
            r#"{"through": 3}"#.into(),
        ),
        (Record::Watermark, "watermark", "{}".into()),
        (
            seal,
            "segment_seal",
            r#"{"frames": 12, "next_sequence": 4}"#.into(),
        ),
    ]
}

fn header() -> SegmentHeader {
    SegmentHeader {
        incompatible: 0,
        compatible: 5,
        channel_id: [0xab; 16],
        segment: 7,
        size: 65536,
        salt: SALT,
        prepared_at_ms: 1,
        cipher_id: 0,
        key_id: 0,
        compression_id: 0,
    }
}

/// A segment in the making, and the lines the reader must print for it.
struct Log {
    bytes: Vec<u8>,
    lines: String,
    control: u64,
}

impl Log {
    fn add(&mut self, mut frame: EncodedPut, kind: FrameKind, name: &str, content: &str) {
        let lsn = Lsn::new(7, u32::try_from(self.bytes.len()).unwrap());
        let watermark = Lsn::new(6, 4096);
        FrameHeader {
            kind,
            first_of_transaction: true,
            last_of_transaction: true,
            compression_id: 0,
            body_len: frame.body_len,
            body_crc: frame.body_crc,
            sequence: 1 << 33,
            count: frame.count,
            control: self.control,
            put_time_ms: 99,
            watermark,
        }
        .encode(SALT, lsn, frame.header_room().unwrap());
        self.bytes.extend_from_slice(&frame.buffer);
        let (count, control) = (frame.count, self.control);
        writeln!(
            self.lines,
            r#"{{"lsn": {}, "kind": "{name}", "first": true, "last": true, "sequence": 8589934592, "count": {count}, "control": {control}, "put_time_ms": 99, "watermark": {}, "content": {content}}}"#,
            lsn.0, watermark.0
        )
        .unwrap();
        self.control += u64::from(kind.is_control());
    }
}

#[cfg_attr(miri, ignore = "the interpreter starts no other program")]
#[test]
fn a_reader_written_from_the_specification_finds_what_was_written() {
    let head = format!(
        r#"{{"version": 1, "cipher_id": 0, "incompatible": 0, "compatible": 5, "channel_id": "{}", "segment": 7, "size": 65536, "salt": {SALT}, "prepared_at_ms": 1, "key_id": 0, "compression_id": 0}}"#,
        "ab".repeat(16)
    );
    let mut log = Log {
        bytes: header().encode(),
        lines: head + "\n",
        control: 40,
    };
    for (record, name, text) in records() {
        log.add(encode_frame_room(&record), record.kind(), name, &text);
        if name == "incarnation" {
            let mut put = PutEncoder::new();
            put.event(
                [("h", "\u{e4}"), ("", "")].into_iter(),
                b"one",
                Some((0, 500)),
            );
            put.event([].into_iter(), &[0; 2], None);
            put.event([].into_iter(), b"", Some((0, 490)));
            put.event([].into_iter(), b"4", Some((1, u64::MAX)));
            put.position(b"k", b"v");
            let content = r#"{"events": [{"headers": [["h", "\u00e4"], ["", ""]], "position": [0, 500], "body": "6f6e65"}, {"headers": [], "position": null, "body": "0000"}, {"headers": [], "position": [0, 490], "body": ""}, {"headers": [], "position": [1, 18446744073709551615], "body": "34"}], "positions": [["6b", "76"]]}"#;
            log.add(put.finish(), FrameKind::Put, "put", content);
        }
    }
    let end = log.bytes.len();
    writeln!(log.lines, r#"{{"end": {end}, "only_zeros_follow": true}}"#).unwrap();
    log.bytes.resize(65536 - 4096, 0);
    log.bytes.extend_from_slice(&header().encode());
    let name = format!("forebay-python-reader-{}.segment", std::process::id());
    let path = std::env::temp_dir().join(name);
    // Once with both header blocks, once with only the second.
    for rotten_first in [false, true] {
        if rotten_first {
            log.bytes[..512].fill(0xee);
        }
        std::fs::write(&path, &log.bytes).unwrap();
        let reader = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reader/forebay_read.py");
        let output = Command::new("python3")
            .args([reader.as_ref(), path.as_os_str()])
            .output()
            .expect("this test runs python3: install it (apt-get install python3)");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let found = String::from_utf8(output.stdout).unwrap();
        for (found, expected) in found.lines().zip(log.lines.lines()) {
            assert_eq!(found, expected);
        }
        assert_eq!(found, log.lines);
    }
    std::fs::remove_file(path).unwrap();
}
