//! What must hold of any bytes as the snapshot of a segment. Included by the fuzz target
//! `snapshot` and by `tests/fuzz_seeds.rs`.
//!
//! *Claims*: decoding ends, in memory that the bytes bound, and what decodes has these very bytes.
//! A log whose snapshots are such, with right sums, is refused untouched or opened, and then the
//! claims of `opened_log` hold: every number is in one place, the next open shows the same, a new
//! event gets the next number and is delivered. An event whose frame nobody touched is delivered
//! as it was put. Bytes that do not decode cost nothing: no event, no acknowledgement, no epoch.
//!
//! *Input*: u8 recipe (see `written_log`), u8 segments from the end whose snapshot is replaced - 1
//! (modulo 3), u8 mode. Mode 0 (modulo 2): the rest is the body. Mode 1: changes of the body that
//! was written, u8 what (modulo 4), u16 where, u8 value: a byte is another; bytes are cut out; a
//! byte is put in; a number (varint) is put in place of one byte. The frames behind it are laid out
//! anew with right sums.

use std::collections::BTreeMap;

use forebay::env::disk::{Disk, WriteBackend};
use wal_format::{FrameKind, Record, Snapshot};

#[allow(dead_code, reason = "each oracle needs a part of it")]
#[path = "opened_log.rs"]
mod opened_log;
#[allow(dead_code, reason = "each oracle needs a part of it")]
#[path = "written_log.rs"]
mod written_log;

use written_log::{BLOCK, HEADER, SEGMENT_BYTES, Segment, Written, header_sum, kind, recipe};

/// What an input has led to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) decoded: u32,
    pub(crate) opened: u32,
    pub(crate) refused: u32,
}

/// Writes a log with such snapshots, opens it, and panics where a promise is broken.
pub(crate) fn check(input: &[u8]) -> Seen {
    let Some((&[number, segments, mode], rest)) = input.split_first_chunk::<3>() else {
        return Seen::default();
    };
    let log = recipe(number);
    let disk = log.disk.kill();
    let count = log.segments.len();
    let first = count.saturating_sub(1 + usize::from(segments % 3));
    let mut bodies = Vec::new();
    for segment in &log.segments[first..] {
        let Some(frame) = segment.frames.first().filter(|f| f.kind == kind::SNAPSHOT) else {
            return Seen::default();
        };
        let written = &segment.bytes[frame.at + HEADER..frame.body_end];
        let body = match mode % 2 {
            0 => rest.to_vec(),
            _ => changed(written.to_vec(), rest),
        };
        let Some(bytes) = laid_out(segment, &body) else {
            return Seen::default();
        };
        disk.remove(&segment.path).expect("a segment");
        let length = u64::try_from(bytes.len()).expect("64 bits");
        let file = disk.create_zeroed(&segment.path, length, WriteBackend::Pwrite);
        file.and_then(|file| file.store_at(0, &[&bytes]))
            .expect("a new segment");
        bodies.push(decode(&body));
    }
    if std::env::var_os("FOREBAY_EXPLAIN").is_some() {
        eprintln!("snapshots: {bodies:#?}");
    }
    let decoded = bodies.iter().flatten().count();
    let shown = opened_log::check(&disk, &log.dirs, decoded > 0);
    let _examined = opened_log::verify(&disk, &log.dirs);
    if let Some(shown) = &shown {
        judge(&log, shown, decoded > 0);
    }
    Seen {
        decoded: u32::from(decoded > 0),
        opened: u32::from(shown.is_some()),
        refused: u32::from(shown.is_none()),
    }
}

/// Decodes within bounds, and to what has these very bytes.
fn decode(body: &[u8]) -> Option<Snapshot> {
    let record = Record::decode(FrameKind::Snapshot, body).ok()?;
    assert_eq!(record.encode(), body, "{record:?} has two encodings");
    let Record::Snapshot(snapshot) = record else {
        panic!("another record: {record:?}");
    };
    let entries = snapshot.acked.capacity()
        + snapshot.lost.capacity()
        + snapshot.positions.capacity()
        + snapshot.producers.capacity()
        + snapshot.routes.capacity()
        + snapshot.incarnations.capacity()
        + snapshot.epochs.capacity()
        + snapshot.segments.capacity();
    // The smallest entry has two bytes; a vector may grow by doubling, and by four from nothing.
    assert!(entries <= body.len() + 32, "room for {entries} entries");
    Some(*snapshot)
}

fn changed(mut body: Vec<u8>, changes: &[u8]) -> Vec<u8> {
    for change in changes.chunks_exact(4).take(16) {
        let place = usize::from(u16::from_le_bytes([change[1], change[2]]));
        let at = place % (body.len() + 1);
        let value = change[3];
        match change[0] % 4 {
            0 if at < body.len() => body[at] ^= value,
            1 => drop(body.drain(at..(at + usize::from(value % 9)).min(body.len()))),
            2 => body.insert(at, value),
            3 if at < body.len() => {
                let mut number = 1_u64 << (value % 64);
                number = number.wrapping_sub(u64::from(value / 64));
                let mut bytes = Vec::new();
                while number >= 0x80 {
                    bytes.push(number.to_le_bytes()[0] | 0x80);
                    number >>= 7;
                }
                bytes.push(number.to_le_bytes()[0]);
                body.splice(at..=at, bytes);
            }
            _ => {}
        }
    }
    body
}

/// The segment with this body for its snapshot, and all other frames behind it; `None` where that
/// has no room.
fn laid_out(segment: &Segment, body: &[u8]) -> Option<Vec<u8>> {
    let size = usize::try_from(SEGMENT_BYTES).expect("64 KiB");
    let mut bytes = segment.bytes[..BLOCK].to_vec();
    for (index, frame) in segment.frames.iter().enumerate() {
        let body = match index {
            0 => body,
            _ => &segment.bytes[frame.at + HEADER..frame.body_end],
        };
        let at = bytes.len();
        let mut header = segment.bytes[frame.at..frame.at + HEADER].to_vec();
        let length = u32::try_from(body.len()).ok()?;
        header[8..12].copy_from_slice(&length.to_le_bytes());
        header[12..16].copy_from_slice(&crc32fast::hash(body).to_le_bytes());
        if index > 0 {
            // Everything before it was durable.
            header[48..56].copy_from_slice(&segment.lsn(at).to_le_bytes());
        }
        let sum = header_sum(&header, segment.salt, segment.lsn(at));
        header[..4].copy_from_slice(&sum.to_le_bytes());
        bytes.extend(header);
        bytes.extend_from_slice(body);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    if bytes.len() > size - BLOCK {
        return None;
    }
    bytes.resize(size - BLOCK, 0);
    bytes.extend_from_slice(&segment.bytes[..BLOCK]);
    Some(bytes)
}

/// Nobody has touched an event. What a snapshot says of it is believed; bytes that say nothing cost
/// nothing.
fn judge(log: &Written, shown: &opened_log::Shown, said: bool) {
    for (number, content) in &shown.events {
        let written = log.events.get(number);
        assert!(
            written == Some(content),
            "event {number} was not written so"
        );
    }
    if said {
        return;
    }
    let view = &shown.view;
    assert!(
        shown.lost.is_empty() && !view.control_lost,
        "{:?}",
        shown.lost
    );
    let sealed: BTreeMap<u64, (u64, u64)> = view
        .epochs
        .iter()
        .map(|e| (e.epoch, (e.range.first.0, e.range.last.0)))
        .collect();
    assert_eq!(sealed, log.epochs, "epochs");
    for number in log.events.keys() {
        let mut epochs = sealed.values();
        let elsewhere = log.done.contains(number)
            || epochs.any(|(first, last)| (first..=last).contains(&number));
        let delivered = shown.events.contains_key(number);
        assert!(
            delivered != elsewhere,
            "event {number}: delivered {delivered}, {view:?}"
        );
    }
}
