//! The salt of a segment whose header copies are both bad, from what later segments say of it or
//! from its frames.
//!
//! *Algorithm* of the second: a header's sum is a CRC, which is linear: the sum with a salt is the
//! sum with salt 0, changed by the same bits whatever the other bytes are. So one frame whose
//! body's sum (which has no salt) is right gives 32 equations for 32 bits of a salt that makes its
//! header's sum right, and that salt does the same for every other frame of the segment, though it
//! may not be the salt that was written. One frame proves nothing: the salt counts when a second
//! frame is good with it, which happens by chance once in 2^32. A wrong number of the segment is
//! made up for as well, so the number has to be the one that the frames' own watermarks tell.

use std::collections::BTreeMap;

use wal_format::{
    FRAME_ALIGN, FRAME_HEADER_BYTES, FrameHeader, FrameKind, Lsn, Record, SEGMENT_HEADER_BYTES,
    Step,
};

use super::scanned::{File, for_each_frame, step};

/// Frames that are tried before the segment is given up.
const TRIES: usize = 16;

/// Gives segments without a salt the one by which the records of the others name them.
pub(super) fn tell(files: &mut [File]) {
    if files.iter().all(|file| file.salt.is_some()) {
        return;
    }
    let mut told = BTreeMap::new();
    for file in &*files {
        for_each_frame(file, |header, body| {
            let references = match Record::decode(header.kind, body) {
                Ok(Record::Snapshot(snapshot)) => snapshot.segments,
                Ok(Record::Incarnation(open)) => open.previous.into_iter().collect(),
                _ => Vec::new(),
            };
            told.extend(references.iter().map(|r| (r.segment, r.salt)));
        });
    }
    for file in files.iter_mut().filter(|file| file.salt.is_none()) {
        file.salt = told.get(&file.found.number).copied();
    }
}

/// A salt with which at least two frames of the file are good, and tell its number.
pub(super) fn find(file: &File) -> Option<u64> {
    let bytes = file.bytes();
    let begin = SEGMENT_HEADER_BYTES as usize;
    let places = (begin..bytes.len()).step_by(FRAME_ALIGN);
    let mut tries = 0;
    for at in places {
        let Some(block) = bytes.get(at..at + FRAME_HEADER_BYTES) else {
            break;
        };
        let Some(salt) = salt_for(file.found.number, at, block, &bytes[at..]) else {
            continue;
        };
        let marks = watermarks(file, salt);
        let number = marks.iter().map(|mark| mark.segment()).max();
        if marks.len() >= 2 && number == Some(file.found.number) {
            return Some(salt);
        }
        tries += 1;
        if tries == TRIES {
            break;
        }
    }
    None
}

/// The salt with which the header at `at` is good, if its body is.
fn salt_for(segment: u32, at: usize, block: &[u8], rest: &[u8]) -> Option<u64> {
    let lsn = Lsn::new(segment, u32::try_from(at).ok()?);
    let word = |from: usize| {
        block
            .get(from..from + 4)?
            .try_into()
            .ok()
            .map(u32::from_le_bytes)
    };
    let (sum, length, body_sum) = (word(0)?, word(8)?, word(12)?);
    // What no header holds needs no equations: zeros above all.
    if FrameKind::try_from(block[4]).is_err() || block[6..8] != [0, 0] {
        return None;
    }
    let body = rest.get(FRAME_HEADER_BYTES..)?.get(..length as usize)?;
    if crc32fast::hash(body) != body_sum {
        return None;
    }
    let salt = solve(sum, |salt| header_sum(salt, lsn, block));
    let max = u32::try_from(rest.len()).unwrap_or(u32::MAX);
    FrameHeader::decode(block, salt, lsn, max)
        .is_ok()
        .then_some(salt)
}

fn header_sum(salt: u64, lsn: Lsn, block: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&salt.to_le_bytes());
    sum.update(&lsn.0.to_le_bytes());
    sum.update(&block[4..FRAME_HEADER_BYTES]);
    sum.finalize()
}

/// The one salt below 2^32 whose sum is `wanted`: Gauss's elimination over bits.
fn solve(wanted: u32, sum: impl Fn(u64) -> u32) -> u64 {
    let zero = sum(0);
    // Each pivot: what a set of salt bits changes in the sum, and which set it is.
    let mut pivots: Vec<(u32, u64)> = Vec::new();
    let reduce = |pivots: &[(u32, u64)], mut change: u32, mut salt: u64| {
        for (pivot, bits) in pivots {
            if change & (1 << pivot.ilog2()) != 0 {
                change ^= pivot;
                salt ^= bits;
            }
        }
        (change, salt)
    };
    for bit in 0..32 {
        let salt = 1 << bit;
        let reduced = reduce(&pivots, sum(salt) ^ zero, salt);
        if reduced.0 != 0 {
            pivots.push(reduced);
        }
    }
    reduce(&pivots, wanted ^ zero, 0).1
}

/// Those of the frames that are good with this salt.
fn watermarks(file: &File, salt: u64) -> Vec<Lsn> {
    let mut scanner = file.scanner_with(salt, SEGMENT_HEADER_BYTES, file.frames_end(), Lsn(0));
    let mut good = Vec::new();
    loop {
        match step(&mut scanner) {
            Step::Frame { header, .. } => good.push(header.watermark),
            Step::Corrupt {
                resume: Some(_), ..
            } => {}
            Step::Corrupt { .. } | Step::End { .. } | Step::Torn { .. } => return good,
        }
    }
}

#[cfg(test)]
#[path = "salt_tests.rs"]
mod tests;
