//! Lines of one open file.
//!
//! *Place in the flow*: the tailer asks for batches of lines and for the [`Mark`] behind each.
//! A line ends at `\n`; one `\r` before it is taken off, as Flume does; all other bytes are
//! passed on as they are.
//!
//! *Invariant*: a byte is only taken as the continuation of the file if the bytes before it are
//! still the ones that were read before. Every read therefore begins up to 4 KiB earlier than
//! needed and compares, so that a truncation (copytruncate) is seen even if the file has grown
//! past the old end in between.

use std::fs::File;
use std::io;

use bytes::{Bytes, BytesMut};

use super::position::{Fingerprint, HEAD_BYTES, Mark, Mismatch, TAIL_BYTES, read_at};

const CHUNK_BYTES: usize = 256 * 1024;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Offset of its first byte.
    pub(super) start: u64,
    /// Offset behind its line end.
    pub(super) end: u64,
    /// Without line end.
    pub(super) body: Bytes,
}

/// A line that is longer than allowed and was passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) start: u64,
    pub(super) end: u64,
}

/// Lines in order and what lies between them.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pub(super) lines: Vec<Line>,
    pub(super) refused: Vec<Refused>,
    /// Where the batch ends. `None` if it is empty.
    pub(super) mark: Option<Mark>,
    /// Everything up to the end of the file was looked at.
    pub(super) at_end: bool,
}

/// Why there are no more lines.
#[derive(Debug)]
pub(super) enum ReadError {
    Io(io::Error),
    /// The file is not what it was: what was read of it is no longer there.
    Replaced(Mismatch),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// How much one batch may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) lines: usize,
    pub(super) bytes: usize,
    /// Longest line, without its line end.
    pub(super) line: usize,
}

enum Step {
    /// Body in the buffer from..to, offsets of start and end.
    Line(usize, usize, u64, u64),
    Refused(Refused),
    /// A line longer than allowed begins here, and its end is not known yet.
    LongBegins,
    AtEnd,
}

/// Reads one file from a mark on.
#[derive(Debug)]
pub(super) struct LineReader {
    file: File,
    /// Bytes of the file from `base` on: up to 4 KiB that were read before, then new ones.
    buffer: Vec<u8>,
    base: u64,
    /// First byte in the buffer that has not been delivered.
    next: usize,
    /// No line end lies in `next..searched`.
    searched: usize,
    /// Of all that was delivered.
    head: Fingerprint,
    /// Start of the too long line whose end is still to come.
    skipping: Option<u64>,
}

impl LineReader {
    /// Goes on at `mark` if the file is still the one it was taken from.
    pub(super) fn open(file: File, mark: &Mark) -> io::Result<Result<Self, Mismatch>> {
        Ok(mark.verify(&file)?.map(|buffer| {
            let (next, base) = (buffer.len(), mark.offset - buffer.len() as u64);
            let head = mark.head;
            Self {
                file,
                buffer,
                base,
                next,
                searched: next,
                head,
                skipping: None,
            }
        }))
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn into_file(self) -> File {
        self.file
    }

    /// The next lines. `scratch` is memory that several readers share.
    pub(super) fn batch(
        &mut self,
        limits: Limits,
        scratch: &mut Vec<u8>,
    ) -> Result<Lines, ReadError> {
        let mut out = Lines::default();
        let mut bodies = BytesMut::new();
        let mut spans = Vec::new();
        while spans.len() < limits.lines && bodies.len() < limits.bytes {
            let empty = spans.is_empty() && out.refused.is_empty();
            match self.step(limits.line, empty, scratch)? {
                Step::Line(from, to, start, end) => {
                    bodies.extend_from_slice(&self.buffer[from..to]);
                    spans.push((to - from, start, end));
                }
                Step::Refused(refused) => out.refused.push(refused),
                Step::LongBegins => break,
                Step::AtEnd => {
                    out.at_end = true;
                    break;
                }
            }
        }
        let mut bodies = bodies.freeze();
        for (len, start, end) in spans {
            out.lines.push(Line {
                start,
                end,
                body: bodies.split_to(len),
            });
        }
        if !out.lines.is_empty() || !out.refused.is_empty() {
            out.mark = Some(self.mark());
        }
        Ok(out)
    }

    /// The unterminated rest of a file that nobody will write to any more, as a last line.
    pub(super) fn rest(&mut self, limits: Limits) -> Lines {
        let mut out = Lines {
            at_end: true,
            ..Lines::default()
        };
        let (start, end) = (self.offset(self.next), self.offset(self.buffer.len()));
        let len = self.buffer.len() - self.next;
        if let Some(start) = self.skipping.take() {
            out.refused.push(Refused { start, end });
        } else if len > limits.line {
            out.refused.push(Refused { start, end });
        } else if len > 0 {
            let body = Bytes::copy_from_slice(&self.buffer[self.next..]);
            out.lines.push(Line { start, end, body });
        } else {
            return out;
        }
        self.deliver_to(self.buffer.len());
        out.mark = Some(self.mark());
        out
    }

    /// Gives memory back between two visits: what waits for its line end is read again.
    pub(super) fn settle(&mut self) {
        self.buffer.truncate(self.next);
        self.searched = self.next;
        self.forget_delivered();
        self.buffer.shrink_to(TAIL_BYTES);
    }

    fn offset(&self, index: usize) -> u64 {
        self.base + index as u64
    }

    /// The mark at the last delivered byte, which is the end of a record.
    fn mark(&self) -> Mark {
        let tail = &self.buffer[self.next.saturating_sub(TAIL_BYTES)..self.next];
        Mark {
            offset: self.offset(self.next),
            head: self.head,
            tail: Fingerprint::of(tail),
        }
    }

    fn deliver_to(&mut self, index: usize) {
        let known = usize::try_from(self.head.len).unwrap_or(HEAD_BYTES);
        if known < HEAD_BYTES {
            let fresh = &self.buffer[self.next..index];
            self.head = self.head.and(&fresh[..fresh.len().min(HEAD_BYTES - known)]);
        }
        self.next = index;
        self.searched = self.searched.max(index);
    }

    fn step(
        &mut self,
        line_max: usize,
        may_skip: bool,
        scratch: &mut Vec<u8>,
    ) -> Result<Step, ReadError> {
        loop {
            if let Some(found) = memchr::memchr(b'\n', &self.buffer[self.searched..]) {
                return Ok(self.line_to(self.searched + found, line_max));
            }
            self.searched = self.buffer.len();
            // One byte more than the longest line may be the `\r` of its line end.
            if self.skipping.is_none() && self.buffer.len() - self.next > line_max + 1 {
                if !may_skip {
                    return Ok(Step::LongBegins);
                }
                self.skipping = Some(self.offset(self.next));
            }
            if self.skipping.is_some() {
                self.deliver_to(self.buffer.len());
            }
            if !self.fill(scratch)? {
                return Ok(Step::AtEnd);
            }
        }
    }

    fn line_to(&mut self, newline: usize, line_max: usize) -> Step {
        let (from, mut to) = (self.next, newline);
        if to > from && self.buffer[to - 1] == b'\r' {
            to -= 1;
        }
        let (start, end) = (self.offset(from), self.offset(newline + 1));
        self.deliver_to(newline + 1);
        match self.skipping.take() {
            Some(start) => Step::Refused(Refused { start, end }),
            None if to - from > line_max => Step::Refused(Refused { start, end }),
            None => Step::Line(from, to, start, end),
        }
    }

    fn forget_delivered(&mut self) {
        let dead = self.next.saturating_sub(TAIL_BYTES);
        self.buffer.drain(..dead);
        self.base += dead as u64;
        self.next -= dead;
        self.searched -= dead;
    }

    /// Reads on; false at the end of the file.
    fn fill(&mut self, scratch: &mut Vec<u8>) -> Result<bool, ReadError> {
        self.forget_delivered();
        let overlap = self.buffer.len().min(TAIL_BYTES);
        let known = self.buffer.len() - overlap;
        scratch.resize(overlap + CHUNK_BYTES, 0);
        let read = read_at(&self.file, scratch, self.offset(known))?;
        if read < overlap {
            return Err(ReadError::Replaced(Mismatch::Shorter));
        }
        if scratch[..overlap] != self.buffer[known..] {
            return Err(ReadError::Replaced(Mismatch::Tail));
        }
        self.buffer.extend_from_slice(&scratch[overlap..read]);
        Ok(read > overlap)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const LIMITS: Limits = Limits {
        lines: 100,
        bytes: 1 << 20,
        line: 50,
    };

    fn reader(content: &[u8]) -> LineReader {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        LineReader::open(file, &Mark::default()).unwrap().unwrap()
    }

    fn bodies(lines: &Lines) -> Vec<&[u8]> {
        lines.lines.iter().map(|line| &line.body[..]).collect()
    }

    #[test]
    fn lines_end_at_newline_and_lose_one_carriage_return() {
        let mut reader = reader(b"a\r\n\nb\r\r\nc\rd\n\xff\xfe\0\nhalf");
        let lines = reader.batch(LIMITS, &mut Vec::new()).unwrap();
        let expected: [&[u8]; 5] = [b"a", b"", b"b\r", b"c\rd", b"\xff\xfe\0"];
        assert_eq!(bodies(&lines), expected);
        assert!(lines.at_end);
        assert_eq!(lines.lines[1].start..lines.lines[1].end, 3..4);
        assert_eq!(lines.mark, Mark::compute(reader.file(), 16).unwrap());
    }

    #[test]
    fn a_half_line_waits_for_its_end_and_comes_whole() {
        let mut reader = reader(b"one\ntw");
        assert_eq!(
            reader.batch(LIMITS, &mut Vec::new()).unwrap().lines.len(),
            1
        );
        reader.settle();
        assert!(
            reader
                .batch(LIMITS, &mut Vec::new())
                .unwrap()
                .mark
                .is_none()
        );
        reader.settle();
        (&reader.file).write_all(b"o\n").unwrap();
        assert_eq!(
            bodies(&reader.batch(LIMITS, &mut Vec::new()).unwrap()),
            [b"two"]
        );
    }

    #[test]
    fn marks_of_a_reader_are_those_of_the_file_at_every_batch() {
        let content: Vec<u8> = (0..20_000)
            .flat_map(|n| format!("{n} {}\n", "x".repeat(n % 40)).into_bytes())
            .collect();
        let mut reader = reader(&content);
        let (mut scratch, mut got) = (Vec::new(), Vec::new());
        for n in 1.. {
            let lines = reader
                .batch(
                    Limits {
                        lines: n % 61 + 1,
                        ..LIMITS
                    },
                    &mut scratch,
                )
                .unwrap();
            for line in &lines.lines {
                got.extend_from_slice(&line.body);
                got.push(b'\n');
            }
            let Some(mark) = lines.mark else { break };
            assert_eq!(
                Some(mark),
                Mark::compute(reader.file(), got.len() as u64).unwrap()
            );
            if n % 5 == 0 {
                reader.settle();
            }
            if n % 7 == 0 {
                reader = LineReader::open(reader.into_file(), &mark)
                    .unwrap()
                    .unwrap();
            }
        }
        assert!(got == content);
    }

    #[test]
    fn a_line_over_the_maximum_is_passed_over_whole_and_named() {
        for long in [51, 52, 53, 600_000] {
            let content = [b"a\n".to_vec(), vec![b'x'; long], b"\nb\n".to_vec()].concat();
            let mut reader = reader(&content);
            let (mut scratch, mut lines, mut refused) = (Vec::new(), Vec::new(), Vec::new());
            while let got = reader.batch(LIMITS, &mut scratch).unwrap()
                && let Some(mark) = got.mark
            {
                assert_eq!(
                    Some(mark),
                    Mark::compute(reader.file(), mark.offset).unwrap()
                );
                lines.extend(got.lines.iter().map(|line| line.body.clone()));
                refused.extend(got.refused);
            }
            assert_eq!(lines, [&b"a"[..], b"b"], "{long}");
            assert_eq!(
                refused,
                [Refused {
                    start: 2,
                    end: 3 + long as u64
                }],
                "{long}"
            );
        }
        let mut reader = reader(&[vec![b'x'; 50], b"\r\n".to_vec()].concat());
        assert_eq!(
            reader.batch(LIMITS, &mut Vec::new()).unwrap().lines.len(),
            1
        );
    }

    #[test]
    fn a_file_rewritten_under_the_reader_is_seen_even_if_it_is_longer() {
        let mut reader = reader(b"header\nold 1\n");
        assert_eq!(
            reader.batch(LIMITS, &mut Vec::new()).unwrap().lines.len(),
            2
        );
        reader.file.set_len(0).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&reader.file, b"header\nnew 1\nnew 2\n", 0)
            .unwrap();
        let error = reader.batch(LIMITS, &mut Vec::new()).unwrap_err();
        assert!(
            matches!(error, ReadError::Replaced(Mismatch::Tail)),
            "{error:?}"
        );
        reader.file.set_len(3).unwrap();
        let error = reader.batch(LIMITS, &mut Vec::new()).unwrap_err();
        assert!(
            matches!(error, ReadError::Replaced(Mismatch::Shorter)),
            "{error:?}"
        );
    }

    #[test]
    fn the_rest_of_an_abandoned_file_is_one_line() {
        let mut reader = reader(b"a\nrest");
        reader.batch(LIMITS, &mut Vec::new()).unwrap();
        let rest = reader.rest(LIMITS);
        assert_eq!(bodies(&rest), [b"rest"]);
        assert_eq!(rest.mark, Mark::compute(reader.file(), 6).unwrap());
        assert!(reader.rest(LIMITS).mark.is_none());
    }
}
