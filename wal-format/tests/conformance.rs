//! The encoding of many random values, remembered as one sum a kind: a change of any byte of the
//! format, also where no golden file looks, fails here. Each value must come back as well.
//!
//! `tests/conformance.txt` holds the sums: kind, values, bytes, FNV-1a (64 bits) over all the
//! bytes. `FOREBAY_REGENERATE=1 cargo test -p wal-format --test conformance` writes it anew, which
//! is right only together with a new format version.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fmt::Write as _;
use std::path::Path;

use wal_format::{
    EncodedPut, Epoch, FRAME_HEADER_BYTES, FrameHeader, FrameKind, Identity, Lsn, Open, Part,
    Producer, PutBody, PutEncoder, Range, Record, Route, Routes, SEGMENT_BYTES_MAX,
    SEGMENT_BYTES_MIN, SegmentHeader, SegmentRef, Snapshot, encode_frame_room,
};

const VALUES: u32 = 500;

/// xorshift64*, so that the values are the same with every version of every library.
struct Random(u64);

impl Random {
    fn u64(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u32) -> u32 {
        u32::try_from(self.u64() >> 32).unwrap() % bound
    }

    /// Of any width, so that every length of varint is met.
    fn wide(&mut self) -> u64 {
        let bits = self.below(65);
        self.u64().checked_shr(bits).unwrap_or(0)
    }

    fn wide_u32(&mut self) -> u32 {
        let bits = self.below(33);
        let value = u32::try_from(self.u64() >> 32).unwrap();
        value.checked_shr(bits).unwrap_or(0)
    }

    fn flag(&mut self) -> bool {
        self.below(2) == 1
    }

    /// Mostly short, sometimes with a length of two bytes.
    fn length(&mut self) -> u32 {
        if self.below(16) == 0 {
            self.below(300)
        } else {
            self.below(12)
        }
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = self.length();
        (0..length)
            .map(|_| u8::try_from(self.below(256)).unwrap())
            .collect()
    }

    fn text(&mut self) -> String {
        let letters = ['a', 'z', '/', '0', '\u{e9}', '\u{20ac}', '\u{1f600}', '\0'];
        let length = self.length();
        let index = |letter: u32| usize::try_from(letter).unwrap();
        (0..length).map(|_| letters[index(self.below(8))]).collect()
    }

    fn list<T>(&mut self, bound: u32, mut element: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let length = self.below(bound);
        (0..length).map(|_| element(self)).collect()
    }
}

/// FNV-1a, 64 bits.
struct Sum {
    hash: u64,
    bytes: usize,
}

impl Sum {
    fn new() -> Self {
        Self {
            hash: 0xcbf2_9ce4_8422_2325,
            bytes: 0,
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.bytes += bytes.len();
    }
}

fn range(r: &mut Random) -> Range {
    let first = r.wide();
    Range {
        first,
        last: first.saturating_add(r.wide()),
    }
}

fn part(r: &mut Random) -> Part {
    Part {
        staged_name: r.text(),
        final_path: r.text(),
        count: r.wide(),
        length: r.wide(),
        crc32: r.wide_u32(),
    }
}

fn epoch(r: &mut Random) -> Epoch {
    Epoch {
        epoch: r.wide(),
        range: range(r),
        claimed: r.flag(),
        sink: r.text(),
        store: r.text(),
        base: r.text(),
        attempt: r.text(),
        parts: r.list(4, part),
    }
}

fn identity(r: &mut Random) -> Identity {
    Identity {
        inode: r.wide(),
        filesystem: r.wide(),
        machine: r.wide(),
    }
}

fn segment_ref(r: &mut Random) -> SegmentRef {
    SegmentRef {
        segment: r.wide_u32(),
        salt: r.u64(),
        first_sequence: r.wide(),
        end: r.wide_u32(),
    }
}

fn routes(r: &mut Random) -> Routes {
    let route = |r: &mut Random| Route {
        first_index: r.wide_u32(),
        count: r.wide_u32(),
        channels: r.list(4, Random::text),
    };
    Routes {
        batch: r.wide(),
        fingerprint: r.u64(),
        routes: r.list(4, route),
    }
}

fn open(r: &mut Random) -> Open {
    Open {
        incarnation: r.wide_u32(),
        nonce: r.u64(),
        identity: identity(r),
        opened_at_ms: r.wide(),
        previous: r.flag().then(|| segment_ref(r)),
    }
}

fn snapshot(r: &mut Random) -> Snapshot {
    let producer = |r: &mut Random| Producer {
        id: r.bytes(),
        epoch: r.wide_u32(),
        last: r.wide(),
    };
    Snapshot {
        acked_below: r.wide(),
        acked: r.list(6, range),
        lost: r.list(3, range),
        positions: r.list(4, |r| (r.bytes(), r.bytes())),
        producers: r.list(3, producer),
        routes: r.list(3, routes),
        incarnation: r.wide_u32(),
        incarnations: r.list(5, |r| (r.wide_u32(), r.u64())),
        fenced_through: r.wide_u32(),
        identity: identity(r),
        next_epoch: r.wide(),
        epochs: r.list(3, epoch),
        segments: r.list(4, segment_ref),
        control_lost: r.flag(),
    }
}

fn record(kind: FrameKind, r: &mut Random) -> Record {
    match kind {
        FrameKind::Put => unreachable!("a put is no control record"),
        FrameKind::Ack => Record::Ack(r.list(9, range)),
        FrameKind::Routes => Record::Routes(routes(r)),
        FrameKind::Seal => Record::Seal(epoch(r)),
        FrameKind::Claimed => Record::Claimed(epoch(r)),
        FrameKind::Done => Record::Done { epoch: r.wide() },
        FrameKind::Abandon => Record::Abandon { epoch: r.wide() },
        FrameKind::Fence => Record::Fence {
            through: r.wide_u32(),
        },
        FrameKind::Incarnation => Record::Incarnation(open(r)),
        FrameKind::Watermark => Record::Watermark,
        FrameKind::Snapshot => Record::Snapshot(Box::new(snapshot(r))),
        FrameKind::SegmentSeal => Record::SegmentSeal {
            frames: r.wide_u32(),
            next_sequence: r.wide(),
        },
    }
}

/// A frame of random events, which come back.
fn put(r: &mut Random) -> EncodedPut {
    type Event = (Vec<(String, String)>, Option<(u32, u64)>, Vec<u8>);
    let event = |r: &mut Random| -> Event {
        let headers = r.list(4, |r| (r.text(), r.text()));
        let position = r.flag().then(|| (r.below(3), r.wide()));
        (headers, position, r.bytes())
    };
    let events = r.list(9, event);
    let table = r.list(4, |r| (r.bytes(), r.bytes()));
    let mut put = PutEncoder::new();
    for (headers, position, body) in &events {
        let headers = headers.iter().map(|(n, v)| (n.as_str(), v.as_str()));
        put.event(headers, body, *position);
    }
    for (key, value) in &table {
        put.position(key, value);
    }
    let put = put.finish();
    let body = body(&put);
    let parsed = PutBody::parse(body, put.count).unwrap();
    let found = parsed.events().map(|event| {
        let event = event.unwrap();
        let headers = event.headers().map(|(n, v)| (n.to_owned(), v.to_owned()));
        (headers.collect(), event.position, event.body.to_vec())
    });
    assert_eq!(found.collect::<Vec<Event>>(), events);
    let found = parsed.positions().map(|entry| {
        let (key, value) = entry.unwrap();
        (key.to_vec(), value.to_vec())
    });
    assert_eq!(found.collect::<Vec<_>>(), table);
    put
}

fn body(frame: &EncodedPut) -> &[u8] {
    &frame.buffer[FRAME_HEADER_BYTES..][..usize::try_from(frame.body_len).unwrap()]
}

/// The bytes of a random frame of this kind; what is in them comes back.
fn frame(kind: FrameKind, r: &mut Random) -> Vec<u8> {
    let mut frame = if kind == FrameKind::Put {
        put(r)
    } else {
        let record = record(kind, r);
        let frame = encode_frame_room(&record);
        assert_eq!(Record::decode(kind, body(&frame)), Ok(record));
        frame
    };
    let (salt, lsn) = (r.u64(), Lsn(r.u64()));
    let header = FrameHeader {
        kind,
        first_of_transaction: kind.is_control() || r.flag(),
        last_of_transaction: kind.is_control() || r.flag(),
        compression_id: 0,
        body_len: frame.body_len,
        body_crc: frame.body_crc,
        sequence: r.wide(),
        count: frame.count,
        control: r.wide(),
        put_time_ms: r.wide(),
        watermark: Lsn(r.wide()),
    };
    header.encode(salt, lsn, frame.header_room().unwrap());
    let decoded = FrameHeader::decode(&frame.buffer, salt, lsn, header.body_len);
    assert_eq!(decoded, Ok(header));
    frame.buffer
}

fn segment_header(r: &mut Random) -> Vec<u8> {
    let pages = r.below((SEGMENT_BYTES_MAX - SEGMENT_BYTES_MIN) / 4096 + 1);
    let mut channel_id = [0; 16];
    channel_id[..8].copy_from_slice(&r.u64().to_le_bytes());
    channel_id[8..].copy_from_slice(&r.u64().to_le_bytes());
    let header = SegmentHeader {
        incompatible: 0,
        compatible: r.wide_u32(),
        channel_id,
        segment: r.wide_u32(),
        size: SEGMENT_BYTES_MIN + pages * 4096,
        salt: r.u64(),
        prepared_at_ms: r.wide(),
        cipher_id: 0,
        key_id: r.wide_u32(),
        compression_id: 0,
    };
    let block = header.encode();
    assert_eq!(SegmentHeader::decode(&block), Ok(header));
    block
}

#[test]
fn encodings_of_random_values_are_those_of_this_format_version() {
    let mut lines = String::new();
    // In the interpreter (Miri) the encoders run over fewer values, whose sums nobody knows.
    let values = if cfg!(miri) { 3 } else { VALUES };
    let mut line = |name: String, seed: u64, value: &dyn Fn(&mut Random) -> Vec<u8>| {
        let (mut random, mut sum) = (Random(seed), Sum::new());
        for _ in 0..values {
            sum.add(&value(&mut random));
        }
        writeln!(lines, "{name} {VALUES} {} {:016x}", sum.bytes, sum.hash).unwrap();
    };
    line("segment_header".into(), 0xf0e_bae, &segment_header);
    for kind in FrameKind::ALL {
        let seed = 0xf0e_bae + u64::from(kind.code());
        line(format!("{kind:?}"), seed, &|r| frame(kind, r));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance.txt");
    if std::env::var_os("FOREBAY_REGENERATE").is_some_and(|value| value == "1") {
        std::fs::write(&path, &lines).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    if cfg!(miri) {
        assert_eq!(lines.lines().count(), committed.lines().count());
        return;
    }
    assert_eq!(
        lines, committed,
        "the format has changed: a defect, or a new format version"
    );
}
