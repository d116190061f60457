//! The scanner: frame, end, torn or corrupt, with the offset.
//!
//! *Rule*: a bad frame at X is corrupt when something later proves that the log was durable
//! beyond X: the caller's `known_durable`, or a good frame behind X in this segment whose
//! watermark passes X. Otherwise X ends the log: torn, or the end where only zeros follow.

use alloc::vec;
use alloc::vec::Vec;

use crate::code::widen;
use crate::error::{FrameError, OutOfRange};
use crate::frame::{FRAME_ALIGN, FRAME_HEADER_BYTES, FrameHeader};
use crate::lsn::Lsn;

/// Bytes by offset in a segment.
pub trait ReadAt {
    /// What a failed read says.
    type Error;
    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// Nothing was concluded; the scan may be repeated.
    fn read_at(&mut self, offset: u32, buf: &mut [u8]) -> Result<(), Self::Error>;
}

impl ReadAt for &[u8] {
    type Error = OutOfRange;

    fn read_at(&mut self, offset: u32, buf: &mut [u8]) -> Result<(), OutOfRange> {
        let start = widen(offset);
        let from = self
            .get(start..start.saturating_add(buf.len()))
            .ok_or(OutOfRange)?;
        buf.copy_from_slice(from);
        Ok(())
    }
}

/// What the scanner found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// A good frame.
    Frame {
        /// Where it begins.
        lsn: Lsn,
        /// Its header.
        header: FrameHeader,
        /// Its body.
        body: &'a [u8],
    },
    /// Only zeros follow.
    End {
        /// Where the frames end.
        offset: u32,
    },
    /// Bad bytes that nothing proves to have been durable.
    Torn {
        /// Where the frames end.
        offset: u32,
        /// Behind this offset there are only zeros.
        nonzero_end: u32,
    },
    /// Bad bytes that were durable once.
    Corrupt {
        /// Where they begin.
        offset: u32,
        /// What is wrong there.
        why: FrameError,
        /// Where the next good frame begins; the scan goes on there.
        resume: Option<u32>,
    },
}

/// Bytes read at once.
const WINDOW: u32 = 256 << 10;

/// Scans the frames of one segment.
#[derive(Clone, Debug)]
pub struct Scanner<R> {
    reader: R,
    segment: u32,
    salt: u64,
    at: u32,
    end: u32,
    known_durable: Lsn,
    window: Vec<u8>,
    window_at: u32,
}

enum Parsed {
    Good(FrameHeader),
    Bad(FrameError),
}

impl<R: ReadAt> Scanner<R> {
    /// A scanner of `[begin, end)`; `known_durable` is what the caller knows from elsewhere.
    pub fn new(
        reader: R,
        segment: u32,
        salt: u64,
        begin: u32,
        end: u32,
        known_durable: Lsn,
    ) -> Self {
        let window = Vec::new();
        Self {
            reader,
            segment,
            salt,
            at: begin,
            end,
            known_durable,
            window,
            window_at: begin,
        }
    }

    /// Where the next step looks.
    pub fn offset(&self) -> u32 {
        self.at
    }

    /// Goes on at `offset`.
    pub fn skip_to(&mut self, offset: u32) {
        self.at = offset;
    }

    /// The next frame, or why there is none.
    ///
    /// # Errors
    /// The reader's; the scanner has not moved.
    pub fn step(&mut self) -> Result<Step<'_>, R::Error> {
        let at = self.at;
        let lsn = Lsn::new(self.segment, at);
        match self.parse(at)? {
            Parsed::Good(header) => {
                let body = self.body_range(&header, at);
                self.at = behind(at, &header);
                let body = self.window.get(body).unwrap_or(&[]);
                Ok(Step::Frame { lsn, header, body })
            }
            Parsed::Bad(why) => self.bad(at, why),
        }
    }

    fn bad(&mut self, at: u32, why: FrameError) -> Result<Step<'_>, R::Error> {
        let lsn = Lsn::new(self.segment, at);
        let nonzero_end = self.nonzero_end(at)?;
        let (mut resume, mut proven) = (None, self.known_durable > lsn);
        let mut probe = at.saturating_add(narrow_align());
        while probe < nonzero_end {
            if self.may_be_header(probe)?
                && let Parsed::Good(header) = self.parse(probe)?
            {
                resume.get_or_insert(probe);
                proven |= header.watermark > lsn;
                if proven {
                    break;
                }
                probe = behind(probe, &header);
            } else {
                probe = probe.saturating_add(narrow_align());
            }
        }
        if proven {
            self.at = resume.unwrap_or(at);
            return Ok(Step::Corrupt {
                offset: at,
                why,
                resume,
            });
        }
        if nonzero_end <= at {
            return Ok(Step::End { offset: at });
        }
        Ok(Step::Torn {
            offset: at,
            nonzero_end,
        })
    }

    /// Behind this offset there are only zeros.
    fn nonzero_end(&mut self, at: u32) -> Result<u32, R::Error> {
        let mut end = self.end;
        while end > at {
            let start = at.max(end.saturating_sub(WINDOW));
            let mut chunk = vec![0; widen(end.saturating_sub(start))];
            self.reader.read_at(start, &mut chunk)?;
            if let Some(last) = chunk.iter().rposition(|b| *b != 0) {
                let used = u32::try_from(last).unwrap_or(u32::MAX).saturating_add(1);
                return Ok(start.saturating_add(used));
            }
            end = start;
        }
        Ok(at)
    }

    /// A cheap look before the sums are computed: a known kind, and a non-zero sum.
    fn may_be_header(&mut self, at: u32) -> Result<bool, R::Error> {
        if self.end.saturating_sub(at) < HEADER {
            return Ok(false);
        }
        self.fill(at, HEADER)?;
        let start = widen(at.saturating_sub(self.window_at));
        let kind = self
            .window
            .get(start.saturating_add(4))
            .copied()
            .unwrap_or(0);
        Ok((1..=12).contains(&kind))
    }

    fn parse(&mut self, at: u32) -> Result<Parsed, R::Error> {
        let room = self.end.saturating_sub(at);
        if room < HEADER {
            return Ok(Parsed::Bad(if room == 0 {
                FrameError::Zero
            } else {
                FrameError::TooShort
            }));
        }
        self.fill(at, HEADER)?;
        let start = widen(at.saturating_sub(self.window_at));
        let bytes = self.window.get(start..).unwrap_or(&[]);
        let max = room.saturating_sub(HEADER);
        let header = match FrameHeader::decode(bytes, self.salt, Lsn::new(self.segment, at), max) {
            Ok(header) => header,
            Err(why) => return Ok(Parsed::Bad(why)),
        };
        self.fill(at, HEADER.saturating_add(header.body_len))?;
        let body = self.body_range(&header, at);
        let checked = header.check_body(self.window.get(body).unwrap_or(&[]));
        Ok(checked.map_or_else(Parsed::Bad, |()| Parsed::Good(header)))
    }

    fn body_range(&self, header: &FrameHeader, at: u32) -> core::ops::Range<usize> {
        let start = widen(at.saturating_sub(self.window_at).saturating_add(HEADER));
        start..start.saturating_add(widen(header.body_len))
    }

    /// Makes `[at, at + len)` part of the window.
    fn fill(&mut self, at: u32, len: u32) -> Result<(), R::Error> {
        let have = u32::try_from(self.window.len()).unwrap_or(u32::MAX);
        let window_end = self.window_at.saturating_add(have);
        if at >= self.window_at && at.saturating_add(len) <= window_end {
            return Ok(());
        }
        let want = len.max(WINDOW).min(self.end.saturating_sub(at));
        let mut window = core::mem::take(&mut self.window);
        window.resize(widen(want), 0);
        let read = self.reader.read_at(at, &mut window);
        if read.is_err() {
            window.clear();
        }
        self.window = window;
        self.window_at = at;
        read
    }
}

const HEADER: u32 = 64;
const _: () = assert!(FRAME_HEADER_BYTES == 64 && FRAME_ALIGN == 8);

const fn narrow_align() -> u32 {
    8
}

fn behind(at: u32, header: &FrameHeader) -> u32 {
    at.saturating_add(header.frame_bytes())
}
