//! The corpora of the fuzz targets `scan_segment` and `damaged_log`, on stable: every committed
//! input, and some thousand changed ones, keep to the oracle that the target runs.
//!
//! The inputs named below are made by `seeds()` and `scripts()`; `FOREBAY_REGENERATE=1 cargo test
//! -p wal-format --test fuzz_seeds` writes them. Other files are what the fuzzer has found.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use wal_format::{
    EncodedPut, Epoch, FRAME_HEADER_BYTES, FrameHeader, FrameKind, Identity, Lsn, Open, Part,
    Producer, PutEncoder, Range, Record, Route, Routes, SegmentRef, Snapshot, encode_frame_room,
};

#[path = "../../fuzz/oracles/scan_segment.rs"]
mod oracle;

#[path = "../../fuzz/oracles/damaged_log.rs"]
mod damaged_log;

use oracle::{BEGIN, HEAD, MARKER, SALT, SEGMENT};

/// Bytes of a log behind the head of an input. Sums are markers, so that a change to a frame
/// leaves it a frame; [`Log::spoil`] makes one bad.
#[derive(Clone, Default)]
struct Log {
    bytes: Vec<u8>,
    frames: Vec<usize>,
    real_sums: bool,
}

impl Log {
    fn at(&self) -> u32 {
        BEGIN + u32::try_from(self.bytes.len()).unwrap()
    }

    /// Appends a frame whose watermark is its own place: all before it was durable.
    fn frame(&mut self, mut frame: EncodedPut, kind: FrameKind) {
        let lsn = Lsn::new(SEGMENT, self.at());
        let header = FrameHeader {
            kind,
            first_of_transaction: true,
            last_of_transaction: true,
            compression_id: 0,
            body_len: frame.body_len,
            body_crc: frame.body_crc,
            sequence: 1,
            count: frame.count,
            control: 2,
            put_time_ms: 3,
            watermark: lsn,
        };
        header.encode(SALT, lsn, frame.header_room().unwrap());
        if !self.real_sums {
            frame.buffer[..4].copy_from_slice(&MARKER);
            frame.buffer[12..16].copy_from_slice(&MARKER);
        }
        self.frames.push(self.bytes.len());
        self.bytes.extend_from_slice(&frame.buffer);
    }

    fn put(&mut self, body: &[u8]) {
        let mut put = PutEncoder::new();
        put.event([("h", "\u{e9}")].into_iter(), body, Some((0, 1000)));
        put.event([].into_iter(), b"", Some((0, 990)));
        put.event([].into_iter(), b"x", None);
        put.position(b"file", b"inode");
        self.frame(put.finish(), FrameKind::Put);
    }

    fn record(&mut self, record: &Record) {
        self.frame(encode_frame_room(record), record.kind());
    }

    /// Frame `n` with another body sum.
    fn spoil(mut self, n: usize) -> Self {
        self.set(n, 12, &[0; 4]);
        self
    }

    /// Overwrites a field of the header of frame `n`.
    fn set(&mut self, n: usize, field: usize, bytes: &[u8]) {
        let at = self.frames[n] + field;
        self.bytes[at..][..bytes.len()].copy_from_slice(bytes);
    }

    fn zeros(mut self, count: usize) -> Self {
        self.bytes.resize(self.bytes.len() + count, 0);
        self
    }

    /// The input: nothing known durable, all blocks readable.
    fn input(self) -> Vec<u8> {
        self.input_with(0, 0)
    }

    fn input_with(self, known: u16, unreadable: u8) -> Vec<u8> {
        let [low, high] = known.to_le_bytes();
        let head: [u8; HEAD] = [low, high, unreadable];
        [&head[..], &self.bytes].concat()
    }
}

fn epoch() -> Epoch {
    let part = Part {
        staged_name: "0".into(),
        final_path: "/l/f".into(),
        count: 5,
        length: 300,
        crc32: 4,
    };
    Epoch {
        epoch: 200,
        range: Range { first: 1, last: 5 },
        claimed: true,
        sink: "k".into(),
        store: "file:///".into(),
        base: "/l".into(),
        attempt: "/l/a".into(),
        parts: vec![part],
    }
}

/// One of each kind, the segment seal last.
fn records() -> Vec<Record> {
    let range = Range {
        first: 7,
        last: 300,
    };
    let identity = Identity {
        inode: 1,
        filesystem: 2,
        machine: 3,
    };
    let segment = SegmentRef {
        segment: 2,
        salt: 8,
        first_sequence: 1,
        end: 8192,
    };
    let route = Route {
        first_index: 0,
        count: 9,
        channels: vec!["c1".into(), "c2".into()],
    };
    let routes = Routes {
        batch: 1,
        fingerprint: 2,
        routes: vec![route],
    };
    let open = Open {
        incarnation: 2,
        nonce: 77,
        identity,
        opened_at_ms: 9,
        previous: Some(segment),
    };
    let producer = Producer {
        id: b"p".to_vec(),
        epoch: 1,
        last: 4,
    };
    let snapshot = Snapshot {
        acked: vec![range],
        positions: vec![(b"k".to_vec(), b"v".to_vec())],
        producers: vec![producer],
        routes: vec![routes.clone()],
        incarnations: vec![(1, 76), (2, 77)],
        epochs: vec![epoch()],
        segments: vec![segment],
        ..Snapshot::default()
    };
    vec![
        Record::Snapshot(Box::new(snapshot)),
        Record::Incarnation(open),
        Record::Ack(vec![range]),
        Record::Routes(routes),
        Record::Seal(epoch()),
        Record::Claimed(epoch()),
        Record::Done { epoch: 200 },
        Record::Abandon { epoch: 201 },
        Record::Fence { through: 1 },
        Record::Watermark,
        Record::SegmentSeal {
            frames: 11,
            next_sequence: 8,
        },
    ]
}

fn puts(count: u8, bytes: usize) -> Log {
    let mut log = Log::default();
    for n in 0..count {
        log.put(&vec![n + 1; bytes]);
    }
    log
}

fn whole(real_sums: bool) -> Log {
    let mut log = Log {
        real_sums,
        ..Log::default()
    };
    let records = records();
    for (n, record) in records.iter().enumerate() {
        if n == 2 {
            log.put(b"event");
        }
        log.record(record);
    }
    log
}

/// A bad frame with `inner` frames inside its body, the second of them bad too; another frame
/// behind all of them, or none.
fn inside(inner: u8, behind: bool) -> Log {
    let mut log = puts(1, 10);
    log.put(&[0; 600]);
    let from = log.frames[1] + 128;
    let mut nested = Log::default().zeros(from);
    for n in 0..inner {
        nested.put(&[n + 1; 20]);
    }
    if inner > 1 {
        nested = nested.spoil(1);
    }
    log.bytes[from..nested.bytes.len()].copy_from_slice(&nested.bytes[from..]);
    if behind {
        log.put(b"behind");
    }
    log.spoil(1)
}

/// Every input that is made, by file name.
fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let records = records();
    let sealed_with_rest = {
        let mut log = puts(2, 20);
        log.record(&records[10]);
        log.zeros(200).input_with(u16::MAX, 0)
    };
    let changed = |field: usize, bytes: &[u8]| {
        let mut log = puts(4, 30);
        log.set(1, field, bytes);
        log.zeros(64).input()
    };
    let bad_bodies = {
        let mut log = whole(false);
        for n in 0..log.frames.len() {
            let from = log.frames[n] + FRAME_HEADER_BYTES;
            if let Some(byte) = log.bytes.get_mut(from) {
                *byte = 0xff;
            }
        }
        log
    };
    // Proves the frame before it, not the last one.
    let mut believed_too_far = puts(4, 30).spoil(0).spoil(3);
    believed_too_far.set(1, 48, &[0xff; 8]);
    let mut last_has_no_room = puts(3, 30);
    last_has_no_room.bytes.extend_from_slice(&[7; 40]);
    vec![
        ("empty", Log::default().input()),
        ("only_zeros", Log::default().zeros(300).input()),
        ("every_kind", whole(false).zeros(100).input()),
        ("every_kind_real_sums", whole(true).zeros(100).input()),
        ("sealed_then_zeros_known_durable", sealed_with_rest),
        ("torn_last_frame", puts(4, 50).spoil(3).zeros(100).input()),
        ("damage_proven_by_watermark", puts(5, 50).spoil(2).input()),
        (
            "damage_known_durable",
            puts(4, 50).spoil(3).zeros(80).input_with(u16::MAX, 0),
        ),
        (
            "zeros_known_durable",
            puts(2, 50).zeros(400).input_with(u16::MAX, 0),
        ),
        (
            "frame_inside_a_bad_body",
            inside(1, false).zeros(80).input(),
        ),
        (
            "frames_inside_and_behind",
            inside(1, true).zeros(80).input(),
        ),
        (
            "damage_inside_a_bad_body",
            inside(3, false).zeros(80).input(),
        ),
        ("too_short_a_rest", last_has_no_room.input()),
        ("unknown_kind", changed(4, &[13])),
        ("unknown_flags", changed(5, &[7])),
        ("unknown_compression", changed(6, &[1])),
        ("reserved_not_zero", changed(28, &[1])),
        ("absurd_length", changed(8, &[0xff; 4])),
        ("watermark_beyond_itself", believed_too_far.input()),
        ("count_too_high", changed(24, &[0xff; 4])),
        ("bodies_of_a_wrong_writer", bad_bodies.input()),
        ("unreadable_middle", puts(10, 900).input_with(0, 0b10)),
        (
            "unreadable_and_damaged",
            puts(10, 900).spoil(1).spoil(3).input_with(0, 0b100),
        ),
    ]
}

/// Every input of `damaged_log` that is made, by file name; see the oracle for the bytes.
fn scripts() -> Vec<(&'static str, Vec<u8>)> {
    let mut all = damages();
    all.extend(rewrites());
    all
}

/// An input: frames of 120 bytes each.
fn script(frames: u8, known: u8, lag: u8, damages: &[[u8; 4]]) -> Vec<u8> {
    let mut bytes = vec![frames - 1, known];
    for _ in 0..frames {
        bytes.extend_from_slice(&[12, lag]);
    }
    bytes.extend(damages.iter().flatten());
    bytes
}

fn damages() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("whole", script(8, 0, 1, &[])),
        ("rot_in_the_middle", script(8, 0, 0, &[[0, 0x50, 1, 1]])),
        (
            "rot_in_two_frames",
            script(8, 0, 1, &[[0, 5, 0, 9], [0, 0x60, 1, 1]]),
        ),
        ("lost_tail", script(8, 0, 2, &[[2, 0x10, 3, 0]])),
        (
            "hole_before_the_last",
            script(8, 0, 3, &[[1, 0xe0, 2, 250]]),
        ),
        ("all_lost_known_durable", script(8, 5, 0, &[[2, 0, 0, 0]])),
        (
            "last_rotten_known_durable",
            script(4, 4, 3, &[[0, 0x90, 1, 8]]),
        ),
        (
            "garbage_behind_the_end",
            script(2, 0, 0, &[[0, 0x20, 1, 7]]),
        ),
        (
            "a_copy_over_another_frame",
            script(8, 0, 0, &[[3, 0x78, 0, 3]]),
        ),
        (
            "unknown_kind_with_a_right_sum",
            script(8, 0, 0, &[[4, 2, 0, 6], [4, 5, 0, 9]]),
        ),
    ]
}

/// Changes by the writer, with right sums, and damages behind them.
fn rewrites() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        (
            "another_body_and_rot",
            script(8, 0, 1, &[[5, 4, 0, 9], [0, 0x60, 1, 1]]),
        ),
        (
            "wrong_watermarks_and_rot",
            script(
                8,
                0,
                3,
                &[[6, 5, 0, 4], [6, 3, 0, 33], [0, 0x20, 0, 1], [2, 0, 3, 0]],
            ),
        ),
        (
            "every_kind",
            script(
                8,
                0,
                0,
                &[[7, 1, 0, 1], [7, 2, 0, 10], [7, 6, 0, 11], [0, 9, 0, 1]],
            ),
        ),
        (
            "absurd_numbers",
            script(4, 0, 0, &[[8, 2, 0, 255], [0, 0x10, 0, 1]]),
        ),
        ("a_frame_inside", {
            let mut bytes = script(4, 0, 0, &[[9, 1, 0, 40], [0, 0x90, 0, 1]]);
            // The second frame has room for another.
            bytes[4] = 60;
            bytes
        }),
        (
            "swallowed_and_damaged",
            script(6, 0, 0, &[[10, 1, 0, 0], [0, 0x90, 0, 1]]),
        ),
    ]
}

fn folder(target: &str) -> PathBuf {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    corpus.join(target)
}

fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let files = std::fs::read_dir(folder(target)).unwrap().map(|file| {
        let file = file.unwrap();
        let name = file.file_name().into_string().unwrap();
        (name, std::fs::read(file.path()).unwrap())
    });
    let mut files: Vec<_> = files.collect();
    files.sort();
    files
}

#[test]
fn the_committed_corpora_hold_what_the_generators_make() {
    let regenerate = std::env::var_os("FOREBAY_REGENERATE").is_some_and(|value| value == "1");
    for (target, seeds) in [("scan_segment", seeds()), ("damaged_log", scripts())] {
        for (name, input) in seeds {
            let path = folder(target).join(name);
            if regenerate {
                std::fs::create_dir_all(folder(target)).unwrap();
                std::fs::write(&path, &input).unwrap();
            }
            let committed = std::fs::read(&path).unwrap();
            assert!(committed == input, "{name}: not what the generator makes");
        }
    }
}

#[test]
fn every_input_of_the_corpus_keeps_to_the_oracle_and_together_they_reach_everything() {
    let mut kinds = BTreeSet::new();
    let mut events = BTreeSet::new();
    for (name, input) in corpus("scan_segment") {
        let seen = std::panic::catch_unwind(|| oracle::check(&input));
        let seen = seen.unwrap_or_else(|_| panic!("input {name}, see above"));
        kinds.extend(seen.kinds);
        events.extend(seen.events);
    }
    let all = FrameKind::ALL.into_iter().map(FrameKind::code);
    assert_eq!(kinds, all.collect());
    let expected = [
        "corrupt",
        "corrupt to the end",
        "end",
        "frame",
        "refused put",
        "refused record",
        "torn",
        "unreadable",
    ];
    assert_eq!(events, BTreeSet::from(expected));
}

/// Runs the corpus of a target, then `rounds` changed copies of each input.
fn run_changed(target: &str, rounds: u32, check: fn(&[u8])) {
    let mut state = 0x5eed_u64;
    let mut random = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap() % bound
    };
    // The interpreter (Miri) takes each input once, changed.
    let rounds = if cfg!(miri) { 1 } else { rounds };
    for (name, input) in corpus(target) {
        check(&input);
        for round in 0..rounds {
            let mut changed = input.clone();
            for _ in 0..=random(4) {
                let at = random(changed.len());
                match random(4) {
                    0 => changed[at] = u8::try_from(random(256)).unwrap(),
                    1 => changed[at] ^= 1 << random(8),
                    2 => changed.truncate(at.max(1)),
                    _ => {
                        let from = random(changed.len());
                        let length = random(256).min(changed.len() - at.max(from));
                        changed.copy_within(from..from + length, at);
                    }
                }
            }
            let result = std::panic::catch_unwind(|| check(&changed));
            assert!(result.is_ok(), "input {name}, round {round}, see above");
        }
    }
}

#[test]
fn changed_inputs_keep_to_the_oracle_of_any_bytes() {
    run_changed("scan_segment", 200, |input| drop(oracle::check(input)));
}

#[test]
fn no_damage_to_a_written_log_makes_durable_frames_vanish() {
    run_changed("damaged_log", 500, damaged_log::check);
}
