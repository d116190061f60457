//! Every step of the verdict rule, on small segments.

use super::*;
use crate::{PutEncoder, Record, encode_frame_room};
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;

const SALT: u64 = 0x5a17;
const SEGMENT: u32 = 3;
const BEGIN: u32 = 4096;

/// Frames of a segment as a writer makes them; bytes before `BEGIN` are zero.
struct Image {
    bytes: Vec<u8>,
    used: usize,
    frames: Vec<u32>,
}

impl Image {
    fn new(size: usize) -> Self {
        Self {
            bytes: vec![0; size],
            used: widen(BEGIN),
            frames: vec![],
        }
    }

    fn frame(&mut self, mut frame: crate::EncodedPut, kind: FrameKind, watermark: u32) -> u32 {
        let at = crate::code::narrow(self.used);
        let header = FrameHeader {
            kind,
            first_of_transaction: true,
            last_of_transaction: true,
            compression_id: 0,
            body_len: frame.body_len,
            body_crc: frame.body_crc,
            sequence: 1,
            count: frame.count,
            control: 0,
            put_time_ms: 0,
            watermark: Lsn::new(SEGMENT, watermark),
        };
        header.encode(SALT, Lsn::new(SEGMENT, at), frame.header_room().unwrap());
        self.bytes[self.used..][..frame.buffer.len()].copy_from_slice(&frame.buffer);
        self.used += frame.buffer.len();
        self.frames.push(at);
        at
    }

    fn put(&mut self, body: &[u8], watermark: u32) -> u32 {
        let mut put = PutEncoder::new();
        put.event([].into_iter(), body, None);
        self.frame(put.finish(), FrameKind::Put, watermark)
    }

    fn record(&mut self, record: &Record, watermark: u32) -> u32 {
        self.frame(encode_frame_room(record), record.kind(), watermark)
    }

    fn end(&self) -> u32 {
        crate::code::narrow(self.bytes.len())
    }

    fn scan_from(&self, begin: u32, known: u32) -> Vec<Seen> {
        let known = if known == 0 {
            Lsn(0)
        } else {
            Lsn::new(SEGMENT, known)
        };
        let reader = &self.bytes[..];
        steps(Scanner::new(
            reader,
            SEGMENT,
            SALT,
            begin,
            self.end(),
            known,
        ))
    }

    fn scan(&self) -> Vec<Seen> {
        self.scan_from(BEGIN, 0)
    }

    /// A scan of a disk whose blocks in `bad` cannot be read.
    fn with_bad_blocks<'a>(
        &'a self,
        begin: u32,
        bad: &'a RefCell<Vec<u32>>,
    ) -> Scanner<BadBlocks<'a>> {
        let bytes = &self.bytes;
        let reader = BadBlocks { bytes, bad };
        Scanner::new(reader, SEGMENT, SALT, begin, self.end(), Lsn(0))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Frame(u32),
    End(u32),
    Torn(u32, u32),
    Corrupt(u32, FrameError, Option<u32>),
}
use Seen::{Corrupt, End, Frame, Torn};

fn seen(step: Step<'_>) -> Seen {
    match step {
        Step::Frame { lsn, header, body } => {
            assert_eq!(header.check_body(body), Ok(()));
            Frame(lsn.offset())
        }
        Step::End { offset } => End(offset),
        Step::Torn {
            offset,
            nonzero_end,
        } => Torn(offset, nonzero_end),
        Step::Corrupt {
            offset,
            why,
            resume,
        } => Corrupt(offset, why, resume),
    }
}

/// All steps to the final one, which must repeat itself.
fn steps(mut scanner: Scanner<&[u8]>) -> Vec<Seen> {
    let mut all = vec![];
    loop {
        let before = scanner.offset();
        let step = seen(scanner.step().unwrap());
        all.push(step.clone());
        if matches!(step, End(_) | Torn(..) | Corrupt(_, _, None)) {
            assert_eq!(
                seen(scanner.step().unwrap()),
                step,
                "a final answer repeats"
            );
            return all;
        }
        assert!(scanner.offset() > before, "each step moves forward");
    }
}

/// Five frames; each but the first says that all before it was durable.
fn five() -> Image {
    let mut image = Image::new(8192);
    for n in 0..5u8 {
        let watermark = crate::code::narrow(image.used);
        image.put(&[n + 1; 20], watermark);
    }
    image
}

fn frames(image: &Image, which: &[usize]) -> Vec<Seen> {
    which.iter().map(|&n| Frame(image.frames[n])).collect()
}

#[test]
fn good_frames_then_zeros_are_frames_then_the_end() {
    let image = five();
    let mut expected = frames(&image, &[0, 1, 2, 3, 4]);
    expected.push(End(crate::code::narrow(image.used)));
    assert_eq!(image.scan(), expected);
    assert_eq!(Image::new(8192).scan(), [End(BEGIN)]);
}

#[test]
fn a_bad_last_frame_is_torn_with_the_end_of_its_bytes() {
    let mut image = five();
    let last = image.frames[4];
    image.bytes[widen(last) + 64] ^= 1;
    let mut expected = frames(&image, &[0, 1, 2, 3]);
    // The body ends in the zero length of its table.
    expected.push(Torn(last, last + 64 + 3 + 20));
    assert_eq!(image.scan(), expected);
}

#[test]
fn a_bad_frame_below_a_later_watermark_is_corrupt_and_the_rest_is_given() {
    for (at, why) in [
        (0, FrameError::HeaderChecksum),
        (64, FrameError::BodyChecksum),
    ] {
        let mut image = five();
        image.bytes[widen(image.frames[2]) + at] ^= 0x10;
        let mut expected = frames(&image, &[0, 1]);
        expected.push(Corrupt(image.frames[2], why, Some(image.frames[3])));
        expected.extend(frames(&image, &[3, 4]));
        expected.push(End(crate::code::narrow(image.used)));
        assert_eq!(image.scan(), expected);
    }
}

#[test]
fn a_zero_header_before_a_later_watermark_is_corrupt_zero() {
    let mut image = five();
    let (from, to) = (widen(image.frames[1]), widen(image.frames[3]));
    image.bytes[from..to].fill(0);
    let corrupt = Corrupt(image.frames[1], FrameError::Zero, Some(image.frames[3]));
    assert_eq!(image.scan()[1], corrupt);
    assert_eq!(image.scan()[2..4], frames(&image, &[3, 4]));
}

#[test]
fn a_later_frame_without_a_watermark_past_the_bad_one_proves_nothing() {
    let mut image = Image::new(8192);
    let first = image.put(b"durable", 0);
    let bad = image.put(b"torn", first);
    // Same group: its watermark stands at the torn frame, not past it.
    image.put(b"reached the disk before it", bad);
    image.bytes[widen(bad) + 70] ^= 1;
    assert!(matches!(image.scan()[..], [Frame(_), Torn(at, _)] if at == bad));
    // The next group proves it; the frame between, which does not, is the one to resume at.
    let next = crate::code::narrow(image.used);
    image.put(b"next group", next);
    let corrupt = Corrupt(bad, FrameError::BodyChecksum, Some(image.frames[2]));
    assert_eq!(image.scan()[1], corrupt);
    assert_eq!(image.scan()[2..4], frames(&image, &[2, 3]));
}

#[test]
fn a_later_frame_whose_own_sums_are_bad_proves_nothing() {
    for at in [10, 66] {
        let mut image = five();
        image.bytes[widen(image.frames[3]) + 64] ^= 1;
        image.bytes[widen(image.frames[4]) + at] ^= 1;
        assert!(matches!(image.scan()[3], Torn(x, _) if x == image.frames[3]));
    }
}

#[test]
fn a_watermark_beyond_its_own_frame_proves_nothing_about_what_follows() {
    let mut image = Image::new(8192);
    image.put(b"liar", 8000);
    let bad = image.put(b"torn", 0);
    image.bytes[widen(bad)] ^= 1;
    assert!(matches!(image.scan()[1], Torn(at, _) if at == bad));
}

#[test]
fn what_is_known_durable_from_elsewhere_makes_corruption_of_a_torn_tail() {
    let mut image = five();
    let last = image.frames[4];
    image.bytes[widen(last) + 64] ^= 1;
    assert!(
        matches!(image.scan_from(BEGIN, last)[4], Torn(..)),
        "exclusive bound"
    );
    let corrupt = Corrupt(last, FrameError::BodyChecksum, None);
    assert_eq!(image.scan_from(BEGIN, last + 8)[4], corrupt);
    // All of it zeroed is a loss too, but zeros behind the bound are not.
    image.bytes[widen(last)..].fill(0);
    assert_eq!(
        image.scan_from(BEGIN, last + 8)[4],
        Corrupt(last, FrameError::Zero, None)
    );
    assert_eq!(image.scan_from(BEGIN, last)[4], End(last));
}

#[test]
fn zeros_behind_the_segment_seal_are_the_end_whatever_is_durable() {
    let mut image = five();
    image.record(
        &Record::SegmentSeal {
            frames: 5,
            next_sequence: 6,
        },
        0,
    );
    let end = End(crate::code::narrow(image.used));
    let reader = &image.bytes[..];
    let known = Lsn::new(SEGMENT + 1, 4096);
    let all = steps(Scanner::new(
        reader,
        SEGMENT,
        SALT,
        BEGIN,
        image.end(),
        known,
    ));
    assert_eq!(all.last(), Some(&end));
}

#[test]
fn behind_a_bad_body_its_own_length_is_searched_first_then_everywhere() {
    let mut image = Image::new(16384);
    // A body that has room for a frame made for its place inside it.
    let outer = image.put(&[0; 400], 0);
    let inner = outer + 64 + 8 * 8;
    let mut scratch = Image::new(16384);
    scratch.used = widen(inner);
    scratch.put(b"inner", inner);
    image.bytes[widen(inner)..][..128].copy_from_slice(&scratch.bytes[widen(inner)..][..128]);
    // Nothing behind the outer frame: the inner one is found.
    let corrupt = Corrupt(outer, FrameError::BodyChecksum, Some(inner));
    assert_eq!(image.scan()[..2], [corrupt, Frame(inner)]);
    // Something behind it: the outer frame's own length is believed.
    let next = crate::code::narrow(image.used);
    image.put(b"next", next);
    let corrupt = Corrupt(outer, FrameError::BodyChecksum, Some(next));
    assert_eq!(image.scan()[..2], [corrupt, Frame(next)]);
}

#[test]
fn a_scan_that_goes_on_inside_a_bad_body_still_sees_what_proves_the_next_bad_frame() {
    let mut image = Image::new(16384);
    let outer = image.put(&[0; 800], 0);
    let mut scratch = Image::new(16384);
    scratch.used = widen(outer) + 128;
    let from = scratch.used;
    let [a, b, c] = [1, 2, 3].map(|n| {
        let watermark = crate::code::narrow(scratch.used);
        scratch.put(&[n; 20], watermark)
    });
    image.bytes[from..scratch.used].copy_from_slice(&scratch.bytes[from..scratch.used]);
    image.bytes[widen(b) + 64] ^= 1;
    let expected = [
        Corrupt(outer, FrameError::BodyChecksum, Some(a)),
        Frame(a),
        Corrupt(b, FrameError::BodyChecksum, Some(c)),
        Frame(c),
        End(crate::code::narrow(scratch.used)),
    ];
    assert_eq!(image.scan(), expected);
}

#[test]
fn a_copy_of_frames_in_an_event_is_never_a_frame() {
    let log = five();
    let copy = &log.bytes[widen(BEGIN)..log.used];
    let mut image = Image::new(16384);
    let first = image.put(b"x", 0);
    // At every alignment of the copy; then the carrying frame's header rots.
    for pad in 0..8 {
        let body: Vec<u8> = core::iter::repeat_n(0, pad)
            .chain(copy.iter().copied())
            .collect();
        image.put(&body, first);
    }
    let last = crate::code::narrow(image.used);
    image.put(b"y", last);
    for carrier in (1..9).step_by(if cfg!(miri) { 7 } else { 1 }) {
        let mut image = Image {
            bytes: image.bytes.clone(),
            used: image.used,
            ..Image::new(0)
        };
        image.frames.clone_from(&frames_of(&image));
        let at = image.frames[carrier];
        image.bytes[widen(at) + 20] ^= 1;
        let next = image.frames[carrier + 1];
        let all = image.scan();
        assert_eq!(
            all[carrier],
            Corrupt(at, FrameError::HeaderChecksum, Some(next))
        );
        assert_eq!(all.len(), 11);
    }
}

fn frames_of(image: &Image) -> Vec<u32> {
    let offsets = image.scan().into_iter();
    offsets
        .filter_map(|s| if let Frame(at) = s { Some(at) } else { None })
        .collect()
}

#[test]
fn a_header_that_claims_more_than_the_segment_is_refused_before_anything_is_allocated() {
    let mut image = Image::new(8192);
    let mut frame = encode_frame_room(&Record::Watermark);
    frame.body_len = u32::MAX;
    let at = image.frame(frame, FrameKind::Watermark, 0);
    let why = FrameError::BodyTooLong {
        len: u32::MAX,
        max: 8192 - BEGIN - 64,
    };
    assert_eq!(image.scan_from(BEGIN, at + 1), [Corrupt(at, why, None)]);
}

#[test]
fn no_flip_of_any_bit_makes_a_wrong_frame() {
    let good = five();
    let originals = good.scan();
    // The interpreter (Miri) tries some of them.
    let step = if cfg!(miri) { 611 } else { 1 };
    for bit in (widen(BEGIN) * 8..(good.used + 100) * 8).step_by(step) {
        let mut image = Image {
            bytes: good.bytes.clone(),
            used: good.used,
            frames: vec![],
        };
        image.bytes[bit / 8] ^= 1 << (bit % 8);
        let all = image.scan();
        for step in &all {
            if let Frame(at) = step {
                assert!(originals.contains(step), "bit {bit} made a frame at {at}");
                let from = widen(*at);
                let to = from + 64 + 3 + 20 + 4;
                assert_eq!(image.bytes[from..to], good.bytes[from..to], "bit {bit}");
            }
        }
        let frames = all.iter().filter(|s| matches!(s, Frame(_))).count();
        assert!(frames >= 4, "bit {bit}: one flip costs one frame at most");
    }
}

#[test]
#[cfg_attr(miri, ignore = "four megabytes take the interpreter hours")]
fn many_bad_frames_are_each_reported_and_frames_larger_than_the_window_pass() {
    let mut image = Image::new(4 << 20);
    for n in 0..60usize {
        let watermark = crate::code::narrow(image.used);
        image.put(&vec![7; if n % 20 == 7 { 600_000 } else { 100 }], watermark);
    }
    for n in (0..59).step_by(2) {
        image.bytes[widen(image.frames[n]) + 66] ^= 1;
    }
    let all = image.scan();
    assert_eq!(all.iter().filter(|s| matches!(s, Frame(_))).count(), 30);
    assert_eq!(all.iter().filter(|s| matches!(s, Corrupt(..))).count(), 30);
}

#[test]
fn fewer_bytes_than_a_header_are_the_end_when_zero_and_torn_when_not() {
    let mut image = Image::new(4096 + 64 + 40);
    image.record(&Record::Watermark, 0);
    assert_eq!(image.scan(), [Frame(BEGIN), End(BEGIN + 64)]);
    image.bytes[4096 + 70] = 1;
    assert_eq!(image.scan(), [Frame(BEGIN), Torn(BEGIN + 64, BEGIN + 71)]);
    let corrupt = Corrupt(BEGIN + 64, FrameError::TooShort, None);
    assert_eq!(image.scan_from(BEGIN, BEGIN + 72)[1], corrupt);
}

#[test]
fn a_scan_may_begin_at_the_end_or_beyond_it() {
    let image = five();
    assert_eq!(image.scan_from(8192, 0), [End(8192)]);
    assert_eq!(image.scan_from(u32::MAX, 0), [End(8192)]);
}

/// A disk whose blocks in `bad` cannot be read, and which counts what it allocates for.
struct BadBlocks<'a> {
    bytes: &'a [u8],
    bad: &'a RefCell<Vec<u32>>,
}

impl ReadAt for BadBlocks<'_> {
    type Error = &'static str;

    fn read_at(&mut self, offset: u32, buf: &mut [u8]) -> Result<(), Self::Error> {
        let first = offset / 4096;
        let last = (offset + crate::code::narrow(buf.len()) - 1) / 4096;
        if self.bad.borrow().iter().any(|b| (first..=last).contains(b)) {
            return Err("bad sector");
        }
        (&mut &*self.bytes)
            .read_at(offset, buf)
            .map_err(|_| "range")
    }
}

#[test]
fn an_unreadable_block_costs_its_own_frames_only_and_can_be_retried() {
    let mut image = Image::new(1 << 17);
    for _ in 0..100 {
        let watermark = crate::code::narrow(image.used);
        image.put(&[1; 1000], watermark);
    }
    let bad = RefCell::new(vec![10]);
    let mut scanner = image.with_bad_blocks(BEGIN, &bad);
    let mut seen_frames = vec![];
    let mut errors = 0;
    loop {
        match scanner.step().map(seen) {
            Ok(Frame(at)) => seen_frames.push(at),
            Ok(End(_)) => break,
            Ok(Corrupt(_, _, Some(_))) => {}
            Ok(other) => panic!("{other:?}"),
            Err(_) => {
                assert!(scanner.step().is_err(), "a retry reads again");
                errors += 1;
                scanner.skip_unreadable();
            }
        }
    }
    let touched = |at: &&u32| **at / 4096 == 10 || (**at + 64 + 1008) / 4096 == 10;
    let untouched: Vec<u32> = image
        .frames
        .iter()
        .filter(|at| !touched(at))
        .copied()
        .collect();
    assert!(errors > 0);
    assert_eq!(seen_frames, untouched);
    // The sector heals: the same scan finds all.
    scanner.skip_to(BEGIN);
    bad.borrow_mut().clear();
    let mut count = 0;
    while let Frame(_) = seen(scanner.step().unwrap()) {
        count += 1;
    }
    assert_eq!(count, 100);
}

#[test]
fn no_verdict_hangs_on_bytes_that_cannot_be_read() {
    let mut image = Image::new(1 << 16);
    for _ in 0..20 {
        let watermark = crate::code::narrow(image.used);
        image.put(&[1; 1000], watermark);
    }
    let torn = image.frames[15];
    image.bytes[widen(torn) + 64] ^= 1;
    // All frames behind it are unreadable: whether it is torn cannot be said.
    let first = (torn + 64 + 1007) / 4096 + 1;
    let after = image
        .frames
        .iter()
        .filter(|&&at| at > torn)
        .map(|at| at / 4096);
    let bad = RefCell::new(
        after
            .chain(first..16)
            .filter(|b| *b != torn / 4096)
            .collect(),
    );
    let mut scanner = image.with_bad_blocks(torn, &bad);
    assert!(scanner.step().is_err());
    bad.borrow_mut().clear();
    assert_eq!(
        scanner.step().map(seen),
        Ok(Corrupt(
            torn,
            FrameError::BodyChecksum,
            Some(image.frames[16])
        ))
    );
}

#[test]
fn zeros_that_could_not_be_read_at_first_are_the_end_once_they_can() {
    let image = Image::new(1 << 16);
    let bad = RefCell::new(vec![8]);
    let mut scanner = image.with_bad_blocks(BEGIN, &bad);
    assert!(scanner.step().is_err());
    bad.borrow_mut().clear();
    assert_eq!(scanner.step().map(seen), Ok(End(BEGIN)));
}

#[test]
fn a_proof_behind_bytes_that_cannot_be_read_is_a_proof() {
    let mut image = Image::new(1 << 16);
    for _ in 0..20 {
        // Only frames behind the third block say that anything was durable.
        let own = crate::code::narrow(image.used);
        image.put(&[1; 1000], if own < 3 * 4096 { BEGIN } else { own });
    }
    let rotten = image.frames[1];
    image.bytes[widen(rotten) + 64] ^= 1;
    let bad = RefCell::new(vec![2]);
    let mut scanner = image.with_bad_blocks(rotten, &bad);
    let corrupt = Corrupt(rotten, FrameError::BodyChecksum, Some(image.frames[2]));
    assert_eq!(scanner.step().map(seen), Ok(corrupt));
    assert_eq!(scanner.step().map(seen), Ok(Frame(image.frames[2])));
    assert!(
        scanner.step().is_err(),
        "the next frame reaches into the bad block"
    );
}

#[test]
fn the_last_byte_that_is_not_zero_is_found_at_every_place() {
    for len in [0, 1, 255, 256, 257, 700] {
        let mut bytes = vec![0; len];
        assert_eq!(last_nonzero(&bytes), None, "{len} zeros");
        for at in 0..len {
            bytes[at] = 1;
            assert_eq!(last_nonzero(&bytes), Some(at), "of {len}");
        }
    }
}
