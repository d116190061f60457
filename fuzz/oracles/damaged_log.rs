//! What recovery promises about a log that was written well and then damaged. Included by the fuzz
//! target `damaged_log` and by `wal-format/tests/fuzz_seeds.rs`, which runs the corpus on stable.
//!
//! *Claims*: every frame given out is one that was written, at its place, byte for byte; every
//! frame below what is provably durable is given out or lies in a reported damage, so that nothing
//! durable vanishes in silence; no undamaged frame lies in a reported damage; where everything
//! durable is whole no damage is reported, whatever became of the tail. A whole frame at the front,
//! or behind one that is given out, is given out too: the last group may have been acknowledged
//! though nothing proves it. The log ends at the first frame that is not given out, and is called
//! torn there exactly when bytes are left. A frame inside the body of another is given out only
//! where that other one is damaged.
//!
//! *Input*: u8 frames - 1 (modulo 16), u8 known durable (0: nothing, n: up to frame n - 1), for
//! each frame u8 body length / 4 and u8 lag (modulo 4: how many frames before it the watermark
//! stands), then changes of four bytes: u8 what (modulo 11), u16 where, u8 value. From 5 on they
//! are made by the writer, before any damage, and all sums are right again; `where` is a frame.
//!
//! | what | change |
//! |---|---|
//! | 0 | exclusive-or of one byte with the value |
//! | 1 | zeros over a run of that length |
//! | 2 | everything from here on never reached the disk |
//! | 3 | a copy of another frame as it is stands here |
//! | 4 | a frame gets a header that no version of the format has, with a right sum |
//! | 5 | a byte of the body is another |
//! | 6 | the watermark is wrong: too high, too low, in the middle of a frame |
//! | 7 | another kind; behind a segment's seal there is nothing |
//! | 8 | other sequence numbers, count and time |
//! | 9 | a frame in the body of this one, good at its place |
//! | 10 | the frame swallows the next one |

use wal_format::{FRAME_HEADER_BYTES, FrameHeader, FrameKind, Lsn, PutEncoder, Scanner, Step};

const SEGMENT: u32 = 9;
const SALT: u64 = 0xda3a_6ed1_0600_0001;
const BEGIN: u32 = 4096;
/// Zeros behind the last frame, as a prepared segment has them.
const ROOM: usize = 256;

/// A frame as it was written; offsets count from `BEGIN`.
#[derive(Clone, Debug)]
struct Written {
    at: usize,
    body_end: usize,
    header: FrameHeader,
}

impl Written {
    /// Everything before this offset is proven durable by this frame.
    fn proves(&self) -> usize {
        let mark = self.header.watermark.min(lsn(self.at));
        match mark.segment() {
            SEGMENT => usize::try_from(mark.offset())
                .expect("32 bits")
                .saturating_sub(4096),
            _ => 0,
        }
    }
}

/// The log as it was written.
struct Log {
    bytes: Vec<u8>,
    /// From the front, each where the one before ends.
    frames: Vec<Written>,
    /// Frames inside the bodies of others.
    inner: Vec<Written>,
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

    /// The changes: what, where, value.
    fn changes(mut self) -> Vec<(u8, usize, u8)> {
        let mut changes = Vec::new();
        while !self.0.is_empty() {
            let what = self.u8() % 11;
            let place = u16::from_le_bytes([self.u8(), self.u8()]);
            changes.push((what, place.into(), self.u8()));
        }
        changes
    }
}

fn lsn(at: usize) -> Lsn {
    let at = u32::try_from(at).expect("a short log");
    Lsn::new(SEGMENT, BEGIN + at)
}

fn put(fill: u8, length: usize) -> (FrameHeader, Vec<u8>) {
    let mut put = PutEncoder::new();
    put.event([].into_iter(), &vec![fill; length], None);
    let frame = put.finish();
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
        watermark: Lsn(0),
    };
    (header, frame.buffer)
}

impl Log {
    fn write(script: &mut Script<'_>, frames: usize) -> Self {
        let mut log = Self {
            bytes: Vec::new(),
            frames: Vec::new(),
            inner: Vec::new(),
        };
        let mut highest = 0;
        for n in 0..frames {
            let length = 4 * usize::from(script.u8());
            let lag = usize::from(script.u8() % 4);
            let (mut header, frame) = put(u8::try_from(n + 1).expect("few frames"), length);
            let at = log.bytes.len();
            let durable = n
                .checked_sub(lag)
                .map_or(0, |n| log.frames.get(n).map_or(at, |f| f.at));
            highest = durable.max(highest);
            header.watermark = lsn(highest);
            let body = usize::try_from(header.body_len).expect("32 bits at least");
            log.bytes.extend_from_slice(&frame);
            log.frames.push(Written {
                at,
                body_end: at + FRAME_HEADER_BYTES + body,
                header,
            });
        }
        log.bytes.resize(log.bytes.len() + ROOM, 0);
        log
    }

    /// What a writer has done that is newer than this reader, or wrong.
    fn rewrite(&mut self, (what, place, value): (u8, usize, u8)) {
        let n = place % self.frames.len();
        let frame = self.frames[n].clone();
        let body = frame.at + FRAME_HEADER_BYTES..frame.body_end;
        let header = &mut self.frames[n].header;
        match what {
            5 if !body.is_empty() => self.bytes[body.start + place % body.len()] ^= value,
            6 => {
                header.watermark = match value {
                    0 => Lsn(0),
                    1 => lsn(frame.body_end),
                    2 => Lsn::new(SEGMENT + 1, BEGIN),
                    3 => Lsn::new(SEGMENT - 1, u32::MAX),
                    4 => Lsn(u64::MAX),
                    _ => lsn(8 * usize::from(value)),
                }
            }
            7 => {
                header.kind = FrameKind::ALL[usize::from(value) % FrameKind::ALL.len()];
                header.count = 0;
                if header.kind == FrameKind::SegmentSeal {
                    self.frames.truncate(n + 1);
                    self.inner.retain(|inner| inner.at < frame.body_end);
                    self.bytes[frame.body_end..].fill(0);
                }
            }
            8 => {
                header.sequence = u64::from(value) << (place % 57);
                header.put_time_ms = header.sequence;
                if header.kind == FrameKind::Put {
                    header.count = u32::from(value) << (place % 25);
                }
            }
            9 => self.nest(&body, value),
            10 if n + 1 < self.frames.len() => {
                let mut next = self.frames.remove(n + 1);
                // It proves nothing: whether it is met depends on what is damaged.
                next.header.watermark = Lsn(0);
                self.frames[n].body_end = next.body_end;
                self.inner.push(next);
            }
            _ => {}
        }
    }

    fn nest(&mut self, body: &std::ops::Range<usize>, value: u8) {
        let (header, frame) = put(0xee, usize::from(value % 32));
        let at = body.start.next_multiple_of(8) + 8 * usize::from(value / 32);
        let free = |inner: &Written| inner.body_end <= at || at + frame.len() <= inner.at;
        if at + frame.len() > body.end || !self.inner.iter().all(free) {
            return;
        }
        self.bytes[at..at + frame.len()].copy_from_slice(&frame);
        let length = usize::try_from(header.body_len).expect("32 bits at least");
        self.inner.push(Written {
            at,
            body_end: at + FRAME_HEADER_BYTES + length,
            header,
        });
    }

    /// Makes all sums right, those of inner frames first.
    fn seal(&mut self) {
        // A swallowed frame may itself hold others; what begins last is innermost.
        self.inner.sort_by_key(|inner| std::cmp::Reverse(inner.at));
        for frame in self.inner.iter_mut().chain(&mut self.frames) {
            let (head, body) =
                self.bytes[frame.at..frame.body_end].split_at_mut(FRAME_HEADER_BYTES);
            frame.header.body_len = u32::try_from(body.len()).expect("a short log");
            frame.header.body_crc = crc32fast::hash(body);
            let head = head.first_chunk_mut().expect("room for the header");
            frame.header.encode(SALT, lsn(frame.at), head);
        }
    }
}

fn damage(log: &mut [u8], written: &Log, (what, place, value): (u8, usize, u8)) {
    let at = place % log.len();
    match what {
        0 => log[at] ^= value,
        1 => log[at..]
            .iter_mut()
            .take(value.into())
            .for_each(|byte| *byte = 0),
        2 => log[at..].fill(0),
        3 => {
            let frame = &written.frames[usize::from(value) % written.frames.len()];
            let copy = &written.bytes[frame.at..frame.body_end];
            let length = copy.len().min(log.len() - at);
            log[at..at + length].copy_from_slice(&copy[..length]);
        }
        4 => {
            let frame = &written.frames[place % written.frames.len()];
            let at = frame.at;
            // Whoever wrote it has not damaged its length: a right sum is believed.
            let header = at..at + FRAME_HEADER_BYTES;
            log[header.clone()].copy_from_slice(&written.bytes[header]);
            let (field, wrong) = match value % 5 {
                0 => (4, 0),
                1 => (4, 13 + value / 5),
                2 => (5, 4 | (value / 5)),
                3 => (6, 1 + value / 5),
                _ => (28 + usize::from(value / 5) % 4, 1),
            };
            log[at + field] = wrong;
            let mut sum = crc32fast::Hasher::new();
            sum.update(&SALT.to_le_bytes());
            sum.update(&lsn(at).0.to_le_bytes());
            sum.update(&log[at + 4..at + FRAME_HEADER_BYTES]);
            let sum = sum.finalize();
            log[at..at + 4].copy_from_slice(&sum.to_le_bytes());
        }
        _ => {}
    }
}

/// A part of the log that the scan called damaged.
struct Lost {
    from: usize,
    to: usize,
}

/// How the scan ended: where, and behind the last byte that is not zero where it is torn.
type End = (usize, Option<usize>);

/// Frames given out, damages reported, and the end; none where damage reaches it.
fn scan(log: &[u8], known: Lsn) -> (Vec<usize>, Vec<Lost>, Option<End>) {
    let mut segment = vec![0; usize::try_from(BEGIN).expect("32 bits at least")];
    segment.extend_from_slice(log);
    let end = u32::try_from(segment.len()).expect("a short log");
    let local = |offset: u32| usize::try_from(offset - BEGIN).expect("32 bits at least");
    let mut scanner = Scanner::new(&segment[..], SEGMENT, SALT, BEGIN, end, known);
    let (mut found, mut lost) = (Vec::new(), Vec::new());
    for _ in 0..=log.len() / 8 + 1 {
        match scanner.step().expect("memory can be read") {
            Step::Frame { lsn, .. } => found.push(local(lsn.offset())),
            Step::End { offset } => return (found, lost, Some((local(offset), None))),
            Step::Torn {
                offset,
                nonzero_end,
            } => {
                let end = (local(offset), Some(local(nonzero_end)));
                return (found, lost, Some(end));
            }
            Step::Corrupt { offset, resume, .. } => {
                let to = resume.map_or(log.len(), local);
                lost.push(Lost {
                    from: local(offset),
                    to,
                });
                if resume.is_none() {
                    return (found, lost, None);
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
    let known = usize::from(script.u8());
    let mut written = Log::write(&mut script, frames);
    let changes = script.changes();
    for change in changes.iter().filter(|(what, ..)| *what >= 5) {
        written.rewrite(*change);
    }
    written.seal();
    let mut log = written.bytes.clone();
    for change in changes {
        damage(&mut log, &written, change);
    }

    let known = known % (written.frames.len() + 1);
    let known_at = known.checked_sub(1).map_or(0, |n| written.frames[n].at);
    let known = if known == 0 { Lsn(0) } else { lsn(known_at) };
    let (found, lost, end) = scan(&log, known);
    judge(&log, &written, known_at, &found, &lost);
    judge_the_end(&log, &written, &found, end);
}

/// What nothing proves may have been acknowledged all the same.
fn judge_the_end(log: &[u8], written: &Log, found: &[usize], end: Option<End>) {
    let mut follows = true;
    for frame in &written.frames {
        let place = frame.at..frame.body_end;
        let whole = log[place.clone()] == written.bytes[place];
        let given = found.contains(&frame.at);
        assert!(
            given || !(follows && whole),
            "whole frame at {} behind what was given has vanished",
            frame.at
        );
        follows = given;
    }
    let Some((end, torn)) = end else { return };
    assert!(
        found.last().is_none_or(|at| *at < end),
        "a frame behind the end"
    );
    let rest = log[end..].iter().rposition(|byte| *byte != 0);
    assert_eq!(torn, rest.map(|at| end + at + 1), "torn at {end}");
}

fn judge(log: &[u8], written: &Log, known_at: usize, found: &[usize], lost: &[Lost]) {
    let whole = |frame: &Written| {
        let place = frame.at..frame.body_end;
        log[place.clone()] == written.bytes[place]
    };
    let frames = &written.frames;
    let marks = frames.iter().filter(|f| whole(f)).map(Written::proves);
    let durable = marks.max().unwrap_or(0).max(known_at);
    for at in found {
        let outer = frames.iter().rfind(|frame| frame.at <= *at);
        let outer = outer.filter(|frame| *at < frame.body_end);
        let inner = written.inner.iter().find(|frame| frame.at == *at);
        let was_written = match outer {
            Some(outer) if outer.at == *at => whole(outer),
            Some(outer) => !whole(outer) && inner.is_some_and(whole),
            None => false,
        };
        assert!(was_written, "frame at {at} was not written");
    }
    assert!(found.is_sorted(), "frames out of order");
    for frame in frames {
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
    let rotten = frames
        .iter()
        .any(|frame| frame.at < durable && !whole(frame));
    assert_eq!(
        !lost.is_empty(),
        rotten,
        "damage is what was durable and is not whole"
    );
}
