//! What recovery promises about a log that was written well and then damaged. Included by the fuzz
//! target `damaged_log` and by `wal-format/tests/fuzz_seeds.rs`, which runs the corpus on stable.
//!
//! *Claims*: every frame given out is one that was written, at its place, byte for byte; every
//! frame below what is provably durable is given out or lies in a reported damage, so that nothing
//! durable vanishes in silence; no undamaged frame lies in a reported damage; where everything
//! durable is whole no damage is reported, whatever became of the tail.
//!
//! *Input*: u8 frames - 1 (modulo 16), u8 known durable (0: nothing, n: up to frame n - 1), for
//! each frame u8 body length / 4 and u8 lag (modulo 4: how many frames before it the watermark
//! stands), then damages of four bytes: u8 what (modulo 3: 0 exclusive-or of one byte, 1 zeros over
//! a run, 2 everything from here on never reached the disk), u16 where (modulo the log), u8 value
//! or length.

use wal_format::{FRAME_HEADER_BYTES, FrameHeader, FrameKind, Lsn, PutEncoder, Scanner, Step};

const SEGMENT: u32 = 9;
const SALT: u64 = 0xda3a_6ed1_0600_0001;
const BEGIN: u32 = 4096;
/// Zeros behind the last frame, as a prepared segment has them.
const ROOM: usize = 256;

/// A frame as it was written; offsets count from `BEGIN`.
#[derive(Clone, Copy, Debug)]
struct Written {
    at: usize,
    body_end: usize,
    watermark: usize,
}

/// Bytes of the input, zeros behind its end.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn u8(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }
}

fn lsn(at: usize) -> Lsn {
    let at = u32::try_from(at).expect("a short log");
    Lsn::new(SEGMENT, BEGIN + at)
}

/// The log as it was written, and its frames.
fn write(script: &mut Script<'_>, frames: usize) -> (Vec<u8>, Vec<Written>) {
    let (mut log, mut all) = (Vec::new(), Vec::<Written>::new());
    for n in 0..frames {
        let length = 4 * usize::from(script.u8());
        let lag = usize::from(script.u8() % 4);
        let mut put = PutEncoder::new();
        let fill = u8::try_from(n + 1).expect("few frames");
        put.event([].into_iter(), &vec![fill; length], None);
        let mut frame = put.finish();
        let at = log.len();
        let durable = n
            .checked_sub(lag)
            .map_or(0, |n| all.get(n).map_or(at, |f| f.at));
        let before = all.last().map_or(0, |frame| frame.watermark);
        let watermark = durable.max(before);
        let header = FrameHeader {
            kind: FrameKind::Put,
            first_of_transaction: true,
            last_of_transaction: true,
            compression_id: 0,
            body_len: frame.body_len,
            body_crc: frame.body_crc,
            sequence: 1,
            count: frame.count,
            control: 0,
            put_time_ms: 0,
            watermark: lsn(watermark),
        };
        let room = frame.header_room().expect("room for the header");
        header.encode(SALT, lsn(at), room);
        let body = usize::try_from(frame.body_len).expect("32 bits at least");
        log.extend_from_slice(&frame.buffer);
        all.push(Written {
            at,
            body_end: at + FRAME_HEADER_BYTES + body,
            watermark,
        });
    }
    log.resize(log.len() + ROOM, 0);
    (log, all)
}

fn damage(script: &mut Script<'_>, log: &mut [u8]) {
    while !script.0.is_empty() {
        let what = script.u8() % 3;
        let place = u16::from_le_bytes([script.u8(), script.u8()]);
        let value = script.u8();
        let at = usize::from(place) % log.len();
        match what {
            0 => log[at] ^= value,
            1 => log[at..]
                .iter_mut()
                .take(value.into())
                .for_each(|byte| *byte = 0),
            _ => log[at..].fill(0),
        }
    }
}

/// A part of the log that the scan called damaged.
struct Lost {
    from: usize,
    to: usize,
}

/// Frames given out and damages reported.
fn scan(log: &[u8], known: Lsn) -> (Vec<usize>, Vec<Lost>) {
    let mut segment = vec![0; usize::try_from(BEGIN).expect("32 bits at least")];
    segment.extend_from_slice(log);
    let end = u32::try_from(segment.len()).expect("a short log");
    let local = |offset: u32| usize::try_from(offset - BEGIN).expect("32 bits at least");
    let mut scanner = Scanner::new(&segment[..], SEGMENT, SALT, BEGIN, end, known);
    let (mut found, mut lost) = (Vec::new(), Vec::new());
    for _ in 0..=log.len() / 8 + 1 {
        match scanner.step().expect("memory can be read") {
            Step::Frame { lsn, .. } => found.push(local(lsn.offset())),
            Step::End { .. } | Step::Torn { .. } => return (found, lost),
            Step::Corrupt { offset, resume, .. } => {
                let to = resume.map_or(log.len(), local);
                lost.push(Lost {
                    from: local(offset),
                    to,
                });
                if resume.is_none() {
                    return (found, lost);
                }
            }
        }
    }
    panic!("more steps than places for a frame");
}

/// Writes the log, damages it, scans it, and panics where a promise is broken.
pub(crate) fn check(input: &[u8]) {
    let mut script = Script(input);
    let frames = usize::from(script.u8() % 16) + 1;
    let known = usize::from(script.u8()) % (frames + 1);
    let (good, written) = write(&mut script, frames);
    let mut log = good.clone();
    damage(&mut script, &mut log);

    let known_at = known.checked_sub(1).map_or(0, |n| written[n].at);
    let known = if known == 0 { Lsn(0) } else { lsn(known_at) };
    let (found, lost) = scan(&log, known);

    let whole = |frame: &Written| {
        let place = frame.at..frame.body_end;
        log[place.clone()] == good[place]
    };
    let marks = written.iter().filter(|f| whole(f)).map(|f| f.watermark);
    let durable = marks.max().unwrap_or(0).max(known_at);
    for at in &found {
        let frame = written.iter().find(|frame| frame.at == *at);
        assert!(frame.is_some_and(whole), "frame at {at} was not written");
    }
    assert!(found.is_sorted(), "frames out of order");
    for frame in &written {
        let at = frame.at;
        let given = found.contains(&at);
        let reported = lost.iter().any(|lost| (lost.from..lost.to).contains(&at));
        assert!(!(given && reported), "frame at {at} is given and lost");
        assert!(
            !(reported && whole(frame)),
            "whole frame at {at} called lost"
        );
        if at < durable {
            assert!(given || reported, "durable frame at {at} has vanished");
        }
    }
    let rotten = written
        .iter()
        .any(|frame| frame.at < durable && !whole(frame));
    assert_eq!(
        !lost.is_empty(),
        rotten,
        "damage is what was durable and is not whole"
    );
}
