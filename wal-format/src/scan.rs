//! The scanner: bytes of a segment in; frame, end, torn or corrupt out.
//!
//! *Place in the flow*: recovery, cold reads, scrub, `wal verify` and the fuzz targets all judge
//! with this one piece of code. *Invariants*: a frame is given out only when both of its sums are
//! right at its place; each step moves forward; memory is two windows, one of which grows to the
//! largest good frame at most; nothing is allocated for a length before the header's sum was right
//! and the length fits. The rule is printed in the crate's documentation under "The verdict".
//!
//! *Judging a bad frame* needs to know whether a good frame behind it carries a watermark beyond
//! it. A second cursor, the scout, walks ahead to find out, remembers the highest watermark it has
//! seen and never walks the same bytes again, so that a scan with any number of bad frames reads
//! the segment about twice.

use crate::code::widen;
use crate::error::{FrameError, OutOfRange};
use crate::frame::{
    FRAME_HEADER_BYTES, FrameHeader, FrameKind, claimed_body_len, frame_bytes, may_be_header,
    sum_is_right,
};
use crate::lsn::Lsn;
use crate::planted::{Bug, planted};
use crate::window::{BLOCK_BYTES, WINDOW_BYTES, Window, block_end};

/// [`FRAME_HEADER_BYTES`] as an offset.
const HEADER: u32 = 64;
/// [`crate::FRAME_ALIGN`] as an offset.
const ALIGN: u32 = 8;
const _: () = assert!(widen(HEADER) == FRAME_HEADER_BYTES && widen(ALIGN) == crate::FRAME_ALIGN);

/// A segment's bytes, wherever they are.
pub trait ReadAt {
    /// What a failed read gives.
    type Error;

    /// Fills `buf` from `offset` bytes into the segment.
    ///
    /// # Errors
    /// Any byte that cannot be read; `buf` is then of no value.
    fn read_at(&mut self, offset: u32, buf: &mut [u8]) -> Result<(), Self::Error>;
}

impl ReadAt for &[u8] {
    type Error = OutOfRange;

    fn read_at(&mut self, offset: u32, buf: &mut [u8]) -> Result<(), OutOfRange> {
        let bytes = self
            .get(widen(offset)..)
            .and_then(|rest| rest.get(..buf.len()));
        buf.copy_from_slice(bytes.ok_or(OutOfRange)?);
        Ok(())
    }
}

/// One step of the scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// A good frame.
    Frame {
        /// Where it stands.
        lsn: Lsn,
        /// Its header.
        header: FrameHeader,
        /// Its body.
        body: &'a [u8],
    },
    /// Only zeros follow. Final: the next step says the same.
    End {
        /// Where they begin.
        offset: u32,
    },
    /// A bad frame, and nothing proves that it was ever durable. Final.
    Torn {
        /// Where it begins.
        offset: u32,
        /// Behind the last byte that is not zero.
        nonzero_end: u32,
    },
    /// A bad frame that was durable once: damage.
    Corrupt {
        /// Where it begins.
        offset: u32,
        /// What is wrong with it.
        why: FrameError,
        /// The next good frame, where the next step goes on; `None`: nothing good follows, final.
        resume: Option<u32>,
    },
}

/// A final answer.
#[derive(Clone, Copy, Debug)]
enum Final {
    End { offset: u32 },
    Torn { offset: u32, nonzero_end: u32 },
    Corrupt { offset: u32, why: FrameError },
}

impl From<Final> for Step<'_> {
    fn from(verdict: Final) -> Self {
        match verdict {
            Final::End { offset } => Self::End { offset },
            Final::Torn {
                offset,
                nonzero_end,
            } => Self::Torn {
                offset,
                nonzero_end,
            },
            Final::Corrupt { offset, why } => Self::Corrupt {
                offset,
                why,
                resume: None,
            },
        }
    }
}

/// A bad frame.
#[derive(Clone, Copy, Debug)]
struct Bad {
    at: u32,
    why: FrameError,
    /// Where the search for good frames begins: behind its length if its header's sum was right.
    behind: u32,
}

/// Scans the frames of one segment.
#[derive(Clone, Debug)]
pub struct Scanner<R> {
    reader: R,
    segment: u32,
    salt: u64,
    offset: u32,
    end: u32,
    /// Proven durable: what the caller knew, and the highest watermark of a good frame.
    proven: Lsn,
    main: Window,
    ahead: Window,
    /// Every good frame before this offset has been counted in `proven`.
    scouted: u32,
    /// (from, end): the last byte in [from, scan end) that is not zero is before `end`.
    nonzero: Option<(u32, u32)>,
    /// The frame before was the segment's seal: zeros behind it are no loss.
    sealed: bool,
    verdict: Option<Final>,
    /// Where to go on when the frame at `offset` cannot be read.
    unreadable_until: u32,
}

impl<R: ReadAt> Scanner<R> {
    /// Scans the frames of a segment from `begin` (inclusive) to `end` (exclusive, at most the
    /// header's `frames_end`; for a segment with a successor, the `end` of its `SegmentRef`).
    /// `known_durable`: the log is known durable up to here from elsewhere.
    pub fn new(
        reader: R,
        segment: u32,
        salt: u64,
        begin: u32,
        end: u32,
        known_durable: Lsn,
    ) -> Self {
        let mut scanner = Self {
            reader,
            segment,
            salt,
            offset: 0,
            end,
            proven: known_durable,
            main: Window::default(),
            ahead: Window::default(),
            scouted: 0,
            nonzero: None,
            sealed: false,
            verdict: None,
            unreadable_until: 0,
        };
        scanner.skip_to(begin);
        scanner
    }

    /// Where the next step looks.
    pub fn offset(&self) -> u32 {
        self.offset
    }

    /// The log was durable up to here, by what the caller knew and by the good frames met so far;
    /// after [`Step::Torn`] also by those behind it, which nobody believes but whose watermarks are
    /// true.
    pub fn proven(&self) -> Lsn {
        self.proven
    }

    /// Goes on at `offset`, rounded up to a multiple of 8 and down to the end of the scan.
    pub fn skip_to(&mut self, offset: u32) {
        self.offset = align(offset).min(self.end);
        self.verdict = None;
        self.sealed = false;
        self.unreadable_until = 0;
    }

    /// After an I/O error: goes on behind the frame that could not be read where its header could,
    /// else at the next block of 4096 bytes. Returns the new offset.
    pub fn skip_unreadable(&mut self) -> u32 {
        let to = self.unreadable_until.max(block_end(self.offset));
        self.skip_to(to);
        self.offset
    }

    /// The next frame or verdict.
    ///
    /// # Errors
    /// The reader's error, when bytes that are needed cannot be read; nothing is judged by bytes
    /// that could not. The next call tries again; [`Self::skip_unreadable`] goes on behind.
    pub fn step(&mut self) -> Result<Step<'_>, R::Error> {
        if let Some(verdict) = self.verdict {
            return Ok(verdict.into());
        }
        let at = self.offset;
        if at >= self.end {
            return Ok(self.finally(Final::End { offset: at }));
        }
        self.unreadable_until = 0;
        match self.look()? {
            Ok(header) => {
                let lsn = self.lsn(at);
                self.prove(&header, lsn);
                self.sealed = header.kind == FrameKind::SegmentSeal;
                self.offset = at.saturating_add(header.frame_bytes()).min(self.end);
                let from = at.saturating_add(HEADER);
                let body = self.main.get(from, header.body_len).unwrap_or_default();
                Ok(Step::Frame { lsn, header, body })
            }
            Err(bad) => self.judge(bad),
        }
    }

    fn lsn(&self, offset: u32) -> Lsn {
        Lsn::new(self.segment, offset)
    }

    /// What lies below the watermark of a good frame was durable once.
    fn prove(&mut self, header: &FrameHeader, lsn: Lsn) {
        if !planted(Bug::NoWatermark) {
            self.proven = self.proven.max(header.watermark.min(lsn));
        }
    }

    fn is_proven(&self, lsn: Lsn) -> bool {
        self.proven > lsn || (planted(Bug::WatermarkInclusive) && self.proven == lsn)
    }

    fn finally(&mut self, verdict: Final) -> Step<'static> {
        self.verdict = Some(verdict);
        verdict.into()
    }

    /// The frame at the main cursor: good (and its body in the main window) or bad.
    fn look(&mut self) -> Result<Result<FrameHeader, Bad>, R::Error> {
        let at = self.offset;
        let left = self.end.saturating_sub(at);
        let bytes = self
            .main
            .load(&mut self.reader, at, HEADER.min(left), self.end)?;
        let body_max = left.saturating_sub(HEADER);
        let lsn = Lsn::new(self.segment, at);
        let mut behind = at.saturating_add(ALIGN);
        let header = match FrameHeader::decode(bytes, self.salt, lsn, body_max) {
            Ok(header) => header,
            Err(why) => {
                let block = bytes.first_chunk::<FRAME_HEADER_BYTES>();
                if let Some(block) = block.filter(|b| sum_is_right(b, self.salt, lsn)) {
                    behind = behind_frame(at, claimed_body_len(block));
                }
                return Ok(Err(Bad {
                    at,
                    why,
                    behind: behind.min(self.end),
                }));
            }
        };
        behind = at.saturating_add(header.frame_bytes()).min(self.end);
        self.unreadable_until = behind;
        // Header and body together: the window holds the whole frame, and one read brings both.
        let need = HEADER.saturating_add(header.body_len);
        let frame = self.main.load(&mut self.reader, at, need, self.end)?;
        let body = frame.get(FRAME_HEADER_BYTES..).unwrap_or_default();
        Ok(header
            .check_body(body)
            .map_err(|why| Bad { at, why, behind })
            .map(|()| header))
    }

    /// Torn, corrupt or the end: the rule of the crate's documentation.
    fn judge(&mut self, bad: Bad) -> Result<Step<'_>, R::Error> {
        let lsn = self.lsn(bad.at);
        let nonzero_end = self.nonzero_end(bad.at)?;
        if nonzero_end <= bad.at {
            let room = self.end.saturating_sub(bad.at) >= HEADER;
            let silent = planted(Bug::NoBlankCheck);
            let lost = room && !self.sealed && self.is_proven(lsn) && !silent;
            let at = bad.at;
            let why = FrameError::Zero;
            let end = Final::End { offset: at };
            return Ok(self.finally(if lost {
                Final::Corrupt { offset: at, why }
            } else {
                end
            }));
        }
        let inside = bad.at.saturating_add(ALIGN);
        if !self.is_proven(lsn) {
            self.scout(bad.behind, nonzero_end, lsn)?;
        }
        if !self.is_proven(lsn) && bad.behind > inside {
            // The outer walk has reached the end; this one must not move the scout back.
            let scouted = core::mem::replace(&mut self.scouted, inside);
            let walked = self.scout(inside, bad.behind, lsn);
            self.scouted = scouted;
            walked?;
        }
        if !self.is_proven(lsn) {
            return Ok(self.finally(Final::Torn {
                offset: bad.at,
                nonzero_end,
            }));
        }
        let mut resume = self.find(bad.behind, nonzero_end)?;
        if resume.is_none() && bad.behind > inside {
            resume = self.find(inside, bad.behind.min(nonzero_end))?;
            // The scout has walked behind this frame's length; the scan goes on before that.
            self.scouted = self.scouted.min(inside);
        }
        let Some((resume, _)) = resume.filter(|_| !planted(Bug::NoResume)) else {
            return Ok(self.finally(Final::Corrupt {
                offset: bad.at,
                why: bad.why,
            }));
        };
        self.offset = resume;
        self.sealed = false;
        Ok(Step::Corrupt {
            offset: bad.at,
            why: bad.why,
            resume: Some(resume),
        })
    }

    /// Walks good frames in [from, to), from where the walk before ended, until `proven` passes
    /// `lsn`. Bytes that cannot be read are passed over, and are an error only when the rest does
    /// not prove it: then the verdict hangs on them.
    fn scout(&mut self, from: u32, to: u32, lsn: Lsn) -> Result<(), R::Error> {
        if planted(Bug::NoScout) {
            return Ok(());
        }
        let mut at = self.scouted.max(from);
        let mut unreadable = None;
        while !self.is_proven(lsn) && at < to {
            match self.find(at, to) {
                Ok(None) => at = to,
                Ok(Some((found, header))) => {
                    self.prove(&header, self.lsn(found));
                    at = found.saturating_add(header.frame_bytes());
                }
                Err(error) => {
                    at = block_end(self.unreadable_until.max(at));
                    unreadable.get_or_insert(error);
                }
            }
        }
        match unreadable {
            Some(error) if !self.is_proven(lsn) => Err(error),
            _ => {
                self.scouted = at;
                Ok(())
            }
        }
    }

    /// The first good frame that begins in [from, to).
    fn find(&mut self, from: u32, to: u32) -> Result<Option<(u32, FrameHeader)>, R::Error> {
        let mut at = align(from);
        while at < to && self.end.saturating_sub(at) >= HEADER {
            self.unreadable_until = at;
            let bytes = self.ahead.load(&mut self.reader, at, HEADER, self.end)?;
            let block = bytes.first_chunk::<FRAME_HEADER_BYTES>();
            if block.is_some_and(may_be_header)
                && let Some(header) = self.good_at(at)?
            {
                return Ok(Some((at, header)));
            }
            at = at.saturating_add(ALIGN);
        }
        Ok(None)
    }

    /// The header of the frame at `at`, if both sums are right. The body passes through the
    /// window in pieces.
    fn good_at(&mut self, at: u32) -> Result<Option<FrameHeader>, R::Error> {
        let body_max = self.end.saturating_sub(at).saturating_sub(HEADER);
        let lsn = self.lsn(at);
        let bytes = self.ahead.load(&mut self.reader, at, HEADER, self.end)?;
        let Ok(header) = FrameHeader::decode(bytes, self.salt, lsn, body_max) else {
            return Ok(None);
        };
        let mut sum = crc32fast::Hasher::new();
        let mut from = at.saturating_add(HEADER);
        let mut left = header.body_len;
        while left > 0 {
            let piece = left.min(WINDOW_BYTES);
            self.unreadable_until = from;
            sum.update(self.ahead.load(&mut self.reader, from, piece, self.end)?);
            from = from.saturating_add(piece);
            left = left.saturating_sub(piece);
        }
        let right = sum.finalize() == header.body_crc || planted(Bug::NoBodySum);
        Ok(right.then_some(header))
    }

    /// Offset behind the last byte in [from, end) that is not zero; at most `from` when all are.
    /// Reads backwards, so that a full segment costs one read.
    fn nonzero_end(&mut self, from: u32) -> Result<u32, R::Error> {
        if let Some((since, end)) = self.nonzero
            && since <= from
        {
            return Ok(end);
        }
        let mut to = self.end;
        let mut unreadable = false;
        while to > from {
            let mut begin = to.saturating_sub(WINDOW_BYTES).max(from);
            let piece = to.saturating_sub(begin);
            let mut read = self.ahead.load(&mut self.reader, begin, piece, to);
            if read.is_err() {
                begin = (to.saturating_sub(1) & !BLOCK_BYTES.wrapping_sub(1)).max(from);
                let block = to.saturating_sub(begin);
                read = self.ahead.load(&mut self.reader, begin, block, to);
            }
            match read {
                Ok(bytes) => {
                    if let Some(last) = last_nonzero(bytes) {
                        to = begin
                            .saturating_add(crate::code::narrow(last))
                            .saturating_add(1);
                        break;
                    }
                }
                // What cannot be read may be anything: it counts as not zero.
                Err(_) => {
                    unreadable = true;
                    break;
                }
            }
            to = begin;
        }
        if !unreadable {
            self.nonzero = Some((from, to));
        }
        Ok(to)
    }
}

/// Where the last byte is that is not zero. Most of a segment is zeros: blocks of them are passed
/// over as wholes.
fn last_nonzero(bytes: &[u8]) -> Option<usize> {
    const BLOCK: usize = 256;
    let mut end = bytes.len();
    for block in bytes.rchunks(BLOCK) {
        let begin = end.saturating_sub(block.len());
        if block.iter().fold(0, |all, byte| all | byte) != 0 {
            let last = block.iter().rposition(|&byte| byte != 0)?;
            return Some(begin.saturating_add(last));
        }
        end = begin;
    }
    None
}

/// The next multiple of the frame alignment at or above `offset`.
fn align(offset: u32) -> u32 {
    offset.saturating_add(ALIGN.wrapping_sub(1)) & !ALIGN.wrapping_sub(1)
}

/// Where a frame of this length ends, padding included; beyond every segment when it is absurd.
fn behind_frame(at: u32, body_len: u32) -> u32 {
    at.saturating_add(crate::code::narrow(frame_bytes(widen(body_len))))
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
