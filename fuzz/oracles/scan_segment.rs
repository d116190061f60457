//! What must hold when any bytes are scanned as the frames of a segment. Included by the fuzz
//! target `scan_segment` and by `wal-format/tests/fuzz_seeds.rs`, which runs the corpus on stable.
//!
//! *Claims*: the scan ends, within a number of steps and reads that the input's length bounds; each
//! step moves strictly forward; a final verdict repeats itself; no read leaves the scanned bytes,
//! so that no window is larger than the input; a frame is given out only when both of its sums are
//! right, computed here and not by the crate; all verdicts are those of a second, naive
//! implementation of "The verdict" in docs/FORMAT.md; a record that decodes has the very bytes that
//! were decoded; with unreadable blocks no frame that touches one is given out, and nothing is
//! called torn that readable bytes would prove.
//!
//! *Input*: u16 known durable (0: nothing, n: up to `BEGIN` + 8 (n - 1)), u8 unreadable blocks (bit
//! n: bytes [4096 n, 4096 (n + 1)) behind `BEGIN`), then the bytes from `BEGIN` to the end of the
//! scan. No fuzzer guesses a CRC-32: where the header sum of a possible frame is `MARKER`, the sum
//! is filled in, and where its body's sum is too, that one first.

use std::cell::RefCell;
use std::collections::BTreeSet;

use wal_format::{
    FRAME_HEADER_BYTES, FrameHeader, FrameKind, Lsn, PutBody, PutEncoder, ReadAt, Record, Scanner,
    Step,
};

/// Number of the scanned segment.
pub(crate) const SEGMENT: u32 = 3;
/// Its salt.
pub(crate) const SALT: u64 = 0x5a17_0000_feed_beef;
/// Offset of the first scanned byte.
pub(crate) const BEGIN: u32 = 4096;
/// Stands for a sum that is to be right.
pub(crate) const MARKER: [u8; 4] = *b"SUM?";
/// Bytes of the input before the scanned ones.
pub(crate) const HEAD: usize = 3;

const BLOCK: usize = 4096;
/// Reads that one step may need while the segment fits into one window: a frame, the last byte
/// that is not zero, and two walks and two searches behind and inside a bad frame.
const READS_PER_STEP: usize = 8;

/// What one input has led to, so that a test can see that a corpus reaches everything.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Numbers of the kinds whose frames were found and whose bodies were decoded.
    pub(crate) kinds: BTreeSet<u8>,
    /// Names of the other things that happened.
    pub(crate) events: BTreeSet<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Frame(usize),
    End(usize),
    Torn(usize, usize),
    Corrupt(usize, Option<usize>),
}

impl Verdict {
    fn is_final(self) -> bool {
        !matches!(self, Self::Frame(_) | Self::Corrupt(_, Some(_)))
    }

    fn name(self) -> &'static str {
        match self {
            Self::Frame(_) => "frame",
            Self::End(_) => "end",
            Self::Torn(..) => "torn",
            Self::Corrupt(_, Some(_)) => "corrupt",
            Self::Corrupt(_, None) => "corrupt to the end",
        }
    }
}

/// Scans the input and panics where a claim does not hold.
pub(crate) fn check(input: &[u8]) -> Seen {
    let mut seen = Seen::default();
    let Some((&[low, high, unreadable], bytes)) = input.split_first_chunk::<HEAD>() else {
        return seen;
    };
    let mut bytes = bytes.to_vec();
    fill_sums(&mut bytes);
    let known = match u64::from(u16::from_le_bytes([low, high])) {
        0 => Lsn(0),
        n => Lsn(lsn(0).0 + 8 * (n - 1)),
    };
    let model = Model::new(&bytes, known);
    let found = scan(&model, unreadable, &mut seen);
    if unreadable == 0 {
        assert_eq!(found, model.verdicts(), "scanner beside the naive rule");
    }
    seen
}

/// From the back, so that every sum covers bytes that are final.
fn fill_sums(bytes: &mut [u8]) {
    for at in (0..bytes.len()).step_by(8).rev() {
        let Some((header, rest)) = bytes[at..].split_at_mut_checked(FRAME_HEADER_BYTES) else {
            continue;
        };
        if header[..4] != MARKER {
            continue;
        }
        let length = usize::try_from(u32_at(header, 8)).expect("32 bits at least");
        if header[12..16] == MARKER
            && let Some(body) = rest.get(..length)
        {
            header[12..16].copy_from_slice(&crc32fast::hash(body).to_le_bytes());
        }
        let sum = header_sum(header, at);
        header[..4].copy_from_slice(&sum.to_le_bytes());
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let field = bytes[at..].first_chunk().expect("inside the header");
    u32::from_le_bytes(*field)
}

fn lsn(at: usize) -> Lsn {
    let at = u32::try_from(at).expect("a short input");
    Lsn(u64::from(SEGMENT) << 32 | u64::from(BEGIN + at))
}

fn header_sum(header: &[u8], at: usize) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&SALT.to_le_bytes());
    sum.update(&lsn(at).0.to_le_bytes());
    sum.update(&header[4..FRAME_HEADER_BYTES]);
    sum.finalize()
}

/// Where a good frame ends and what it proves.
#[derive(Clone, Copy, Debug)]
struct Good {
    kind: u8,
    body_end: usize,
    end: usize,
    mark: u64,
}

/// The rule of docs/FORMAT.md, as plainly as it can be written. Offsets count from `BEGIN`.
struct Model<'a> {
    bytes: &'a [u8],
    known: Lsn,
    /// The good frame at each multiple of 8.
    good: Vec<Option<Good>>,
}

impl<'a> Model<'a> {
    fn new(bytes: &'a [u8], known: Lsn) -> Self {
        let good = (0..bytes.len()).step_by(8).map(|at| good_at(bytes, at));
        Self {
            bytes,
            known,
            good: good.collect(),
        }
    }

    fn good(&self, at: usize) -> Option<Good> {
        if at.is_multiple_of(8) {
            self.good.get(at / 8).copied().flatten()
        } else {
            None
        }
    }

    fn zero_from(&self, at: usize) -> bool {
        self.bytes[at..].iter().all(|&b| b == 0)
    }

    /// Candidates for a bad frame at `at`: behind its length, then inside it.
    fn candidates(&self, at: usize) -> Vec<usize> {
        let size = self.bytes.len();
        let mut behind = at + 8;
        if let Some(header) = self.bytes[at..].get(..FRAME_HEADER_BYTES)
            && u32_at(header, 0) == header_sum(header, at)
        {
            let length = usize::try_from(u32_at(header, 8)).expect("32 bits at least");
            behind = (at + FRAME_HEADER_BYTES + length).next_multiple_of(8);
        }
        let mut found = Vec::new();
        for (from, to) in [(behind, size), (at + 8, behind.min(size))] {
            let mut at = from;
            while at < to {
                match self.good(at) {
                    Some(good) => {
                        found.push(at);
                        at = good.end;
                    }
                    None => at += 8,
                }
            }
        }
        found
    }

    fn is_proven(&self, at: usize, candidates: &[usize]) -> bool {
        let marks = candidates.iter().filter_map(|&at| self.good(at));
        let mark = marks.map(|good| good.mark).max();
        mark.max(Some(self.known.0)) > Some(lsn(at).0)
    }

    fn verdicts(&self) -> Vec<Verdict> {
        let size = self.bytes.len();
        let (mut at, mut sealed, mut all) = (0, false, Vec::new());
        loop {
            let verdict = if at >= size {
                Verdict::End(size)
            } else if let Some(good) = self.good(at) {
                Verdict::Frame(good.end)
            } else if self.zero_from(at) {
                let lost = !sealed && size - at >= FRAME_HEADER_BYTES && self.known > lsn(at);
                if lost {
                    Verdict::Corrupt(at, None)
                } else {
                    Verdict::End(at)
                }
            } else {
                let candidates = self.candidates(at);
                if self.is_proven(at, &candidates) {
                    Verdict::Corrupt(at, candidates.first().copied())
                } else {
                    let last = self.bytes.iter().rposition(|&b| b != 0);
                    Verdict::Torn(at, last.map_or(at, |last| last + 1))
                }
            };
            match verdict {
                Verdict::Frame(end) => {
                    sealed = self.good(at).is_some_and(|good| good.kind == 12);
                    all.push(Verdict::Frame(at));
                    at = end.min(size);
                }
                Verdict::Corrupt(_, Some(resume)) => {
                    all.push(verdict);
                    sealed = false;
                    at = resume;
                }
                last => {
                    all.push(last);
                    return all;
                }
            }
        }
    }
}

/// Every condition of a good frame in docs/FORMAT.md, "Frame".
fn good_at(bytes: &[u8], at: usize) -> Option<Good> {
    let header = bytes.get(at..)?.get(..FRAME_HEADER_BYTES)?;
    let (kind, flags) = (header[4], header[5]);
    let count = u32_at(header, 24);
    let known_kind = (1..=12).contains(&kind);
    let flags_fit = flags <= 3 && (kind == 1 || flags == 3);
    let reserved = header[6..8] == [0; 2] && header[28..32] == [0; 4] && header[56..] == [0; 8];
    if !known_kind || !flags_fit || !reserved || (kind != 1 && count != 0) {
        return None;
    }
    if u32_at(header, 0) != header_sum(header, at) {
        return None;
    }
    let body_at = at + FRAME_HEADER_BYTES;
    let length = usize::try_from(u32_at(header, 8)).ok()?;
    let body_end = body_at.checked_add(length)?;
    if u32_at(header, 12) != crc32fast::hash(bytes.get(body_at..body_end)?) {
        return None;
    }
    let watermark = u64::from(u32_at(header, 52)) << 32 | u64::from(u32_at(header, 48));
    Some(Good {
        kind,
        body_end,
        end: body_end.next_multiple_of(8),
        mark: watermark.min(lsn(at).0),
    })
}

/// The bytes as a disk of which blocks may be unreadable; counts the reads.
struct Disk<'a> {
    bytes: &'a [u8],
    unreadable: u8,
    reads: &'a RefCell<usize>,
}

#[derive(Debug, PartialEq, Eq)]
struct Unreadable;

fn touches(unreadable: u8, from: usize, to: usize) -> bool {
    (0..8).any(|block| {
        unreadable & (1 << block) != 0 && from < (block + 1) * BLOCK && to > block * BLOCK
    })
}

impl ReadAt for Disk<'_> {
    type Error = Unreadable;

    fn read_at(&mut self, offset: u32, buf: &mut [u8]) -> Result<(), Unreadable> {
        *self.reads.borrow_mut() += 1;
        assert!(!buf.is_empty(), "a read of nothing");
        let from = offset
            .checked_sub(BEGIN)
            .expect("a read before the scan's begin");
        let from = usize::try_from(from).expect("32 bits at least");
        let to = from + buf.len();
        let wanted = self
            .bytes
            .get(from..to)
            .expect("a read beyond the scan's end");
        if touches(self.unreadable, from, to) {
            return Err(Unreadable);
        }
        buf.copy_from_slice(wanted);
        Ok(())
    }
}

fn scan(model: &Model<'_>, unreadable: u8, seen: &mut Seen) -> Vec<Verdict> {
    let reads = RefCell::new(0);
    let size = model.bytes.len();
    let disk = Disk {
        bytes: model.bytes,
        unreadable,
        reads: &reads,
    };
    let end = BEGIN + u32::try_from(size).expect("a short input");
    let mut scanner = Scanner::new(disk, SEGMENT, SALT, BEGIN, end, model.known);
    let mut all = Vec::new();
    for steps in 1.. {
        assert!(steps <= size / 8 + 2, "more steps than places for a frame");
        let before = scanner.offset();
        let verdict = match scanner.step() {
            Ok(step) => verdict_of(model, unreadable, step, seen),
            Err(Unreadable) => {
                assert_ne!(unreadable, 0, "an error from a disk without one");
                assert!(scanner.step().is_err(), "a retry reads again");
                assert_eq!(scanner.offset(), before, "an error moves nothing");
                assert!(scanner.skip_unreadable() > before, "a skip moves forward");
                seen.events.insert("unreadable");
                continue;
            }
        };
        if unreadable == 0 {
            let most = READS_PER_STEP * (steps + 1);
            assert!(
                *reads.borrow() <= most,
                "{} reads in {steps} steps",
                reads.borrow()
            );
        }
        seen.events.insert(verdict.name());
        all.push(verdict);
        if verdict.is_final() {
            let again = scanner.step().expect("a final verdict reads nothing");
            let again = verdict_of(model, unreadable, again, seen);
            assert_eq!(again, verdict, "a final verdict repeats itself");
            return all;
        }
        assert!(scanner.offset() > before, "each step moves forward");
    }
    all
}

/// Checks one step against the bytes.
fn verdict_of(model: &Model<'_>, unreadable: u8, step: Step<'_>, seen: &mut Seen) -> Verdict {
    let local = |offset: u32| usize::try_from(offset - BEGIN).expect("32 bits at least");
    match step {
        Step::Frame {
            lsn: place,
            header,
            body,
        } => {
            let at = local(place.offset());
            assert_eq!(place, lsn(at), "a frame of another segment");
            let good = model.good(at).expect("a frame whose sums are wrong");
            assert!(!touches(unreadable, at, good.body_end), "unread bytes");
            let raw = &model.bytes[at..good.body_end];
            assert_eq!(body, &raw[FRAME_HEADER_BYTES..], "another body");
            let mut again = [0; FRAME_HEADER_BYTES];
            header.encode(SALT, place, &mut again);
            assert_eq!(again, raw[..FRAME_HEADER_BYTES], "another header");
            check_body(&header, body, seen);
            Verdict::Frame(at)
        }
        Step::End { offset } => Verdict::End(local(offset)),
        Step::Torn {
            offset,
            nonzero_end,
        } => {
            let at = local(offset);
            let proven = model.is_proven(at, &model.candidates(at));
            assert!(!proven, "called torn at {at}, and proven durable");
            Verdict::Torn(at, local(nonzero_end))
        }
        Step::Corrupt { offset, resume, .. } => Verdict::Corrupt(local(offset), resume.map(local)),
    }
}

/// A right sum does not make a body right: the writer may be wrong or newer.
fn check_body(header: &FrameHeader, body: &[u8], seen: &mut Seen) {
    let kind = header.kind;
    if kind != FrameKind::Put {
        match Record::decode(kind, body) {
            Ok(record) => {
                assert_eq!(record.encode(), body, "{record:?} has two encodings");
                seen.kinds.insert(kind.code());
            }
            Err(_) => {
                seen.events.insert("refused record");
            }
        }
        return;
    }
    let events = PutBody::parse(body, header.count)
        .and_then(|put| Ok((put, put.events().collect::<Result<Vec<_>, _>>()?)));
    let Ok((put, events)) = events else {
        seen.events.insert("refused put");
        return;
    };
    assert_eq!(
        events.len(),
        usize::try_from(header.count).expect("32 bits")
    );
    let mut encoder = PutEncoder::with_capacity(body.len());
    for event in &events {
        let place = event.body_offset..event.body_offset + event.body.len();
        assert_eq!(body.get(place), Some(event.body), "another place");
        let headers: Vec<_> = event.headers().collect();
        assert_eq!(headers.len(), event.header_count());
        encoder.event(headers.into_iter(), event.body, event.position);
    }
    for (key, value) in put.positions().flatten() {
        encoder.position(key, value);
    }
    // Positions can be written in two ways, so not the bytes but what they mean comes back.
    let again = encoder.finish();
    let length = usize::try_from(again.body_len).expect("32 bits at least");
    let again_body = &again.buffer[FRAME_HEADER_BYTES..][..length];
    let again = PutBody::parse(again_body, again.count).expect("our own encoding");
    assert!(again.positions().eq(put.positions()), "other positions");
    let plain = |event: &wal_format::EventRef<'_>| {
        let headers = event.headers().map(|(n, v)| (n.to_owned(), v.to_owned()));
        (
            headers.collect::<Vec<_>>(),
            event.position,
            event.body.to_vec(),
        )
    };
    let again = again
        .events()
        .map(|event| plain(&event.expect("our own encoding")));
    assert!(again.eq(events.iter().map(plain)), "other events");
    seen.kinds.insert(kind.code());
}
