//! What is stored of a tailed file, and how its content is recognised again.
//!
//! *Place in the flow*: [`FilePosition`] is the value of a channel position, written in the same
//! frame as the lines it covers. After a restart the file that has the stored inode is the same
//! file only if [`Mark::verify`] finds the stored fingerprints in it.
//!
//! *Invariants*: both fingerprints cover only bytes before the offset, which were delivered and
//! which a log that is only appended to never changes. The head's length is stored, because the
//! file may have been shorter then. The tail, the last up to 4 KiB before the offset, tells a
//! truncated or replaced file apart even if it begins with the same header line and has grown
//! past the old offset. The device number is only a hint: it changes at reboots.

use std::fs::File;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use bytes::Bytes;

/// Most bytes under the fingerprint of the head.
pub(super) const HEAD_BYTES: usize = 1024;
/// Most bytes under the fingerprint before the offset.
pub(super) const TAIL_BYTES: usize = 4096;

const VERSION: u8 = 1;
/// Version, inode, device, time, offset, two fingerprints.
const FIXED_BYTES: usize = 1 + 4 * 8 + 4 * 4;

/// CRC-32 of a run of bytes, and its length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fingerprint {
    pub(super) len: u32,
    pub(super) crc: u32,
}

impl Fingerprint {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        Self {
            len,
            crc: crc32fast::hash(bytes),
        }
    }

    /// The fingerprint of what this one covers and `bytes` behind it.
    pub(super) fn and(self, bytes: &[u8]) -> Self {
        let mut hasher = crc32fast::Hasher::new_with_initial_len(self.crc, u64::from(self.len));
        hasher.update(bytes);
        let len = self
            .len
            .saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        Self {
            len,
            crc: hasher.finalize(),
        }
    }

    fn usize_len(self) -> usize {
        usize::try_from(self.len).unwrap_or(usize::MAX)
    }
}

/// Why a file is not the one that was read before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mismatch {
    /// It is shorter than the position.
    Shorter,
    /// It begins differently.
    Head,
    /// It begins alike, but the bytes before the position differ.
    Tail,
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Shorter => "it is shorter than what was read of it",
            Self::Head => "it begins differently",
            Self::Tail => "the bytes before the position are different",
        })
    }
}

/// An offset at the end of a record, and the fingerprints of what lies before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) offset: u64,
    pub(super) head: Fingerprint,
    pub(super) tail: Fingerprint,
}

impl Mark {
    /// The mark of `file` at `offset`; `None` if the file is shorter.
    pub(super) fn compute(file: &File, offset: u64) -> io::Result<Option<Self>> {
        let span = usize::try_from(offset).unwrap_or(usize::MAX);
        let mut head = vec![0; span.min(HEAD_BYTES)];
        let mut tail = vec![0; span.min(TAIL_BYTES)];
        let at = offset - tail.len() as u64;
        if read_at(file, &mut head, 0)? < head.len() || read_at(file, &mut tail, at)? < tail.len() {
            return Ok(None);
        }
        let (head, tail) = (Fingerprint::of(&head), Fingerprint::of(&tail));
        Ok(Some(Self { offset, head, tail }))
    }

    /// Looks for both fingerprints in `file`. `Ok(Ok)` gives the bytes under the tail.
    pub(super) fn verify(&self, file: &File) -> io::Result<Result<Vec<u8>, Mismatch>> {
        let mut tail = vec![0; self.tail.usize_len()];
        let read = read_at(
            file,
            &mut tail,
            self.offset.saturating_sub(u64::from(self.tail.len)),
        )?;
        if read < tail.len() {
            return Ok(Err(Mismatch::Shorter));
        }
        let mut head = vec![0; self.head.usize_len()];
        if read_at(file, &mut head, 0)? < head.len() || Fingerprint::of(&head) != self.head {
            return Ok(Err(Mismatch::Head));
        }
        if Fingerprint::of(&tail) != self.tail {
            return Ok(Err(Mismatch::Tail));
        }
        Ok(Ok(tail))
    }
}

/// Reads until `buffer` is full or the file ends; returns how much was read.
pub(super) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// The stored position of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FilePosition {
    /// Path under which the file was first found; absolute.
    pub(super) path: PathBuf,
    pub(super) inode: u64,
    /// Only a hint.
    pub(super) device: u64,
    /// When the position was written, in milliseconds since the Unix epoch.
    pub(super) written_ms: u64,
    pub(super) mark: Mark,
}

impl FilePosition {
    /// Little-endian: version 1 (u8), inode, device, time, offset (u64 each), length and CRC-32
    /// of head and tail (u32 each), then the path to the end.
    pub(super) fn encode(&self) -> Bytes {
        let path = self.path.as_os_str().as_bytes();
        let mut out = Vec::with_capacity(FIXED_BYTES + path.len());
        out.push(VERSION);
        for number in [self.inode, self.device, self.written_ms, self.mark.offset] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for number in [self.mark.head, self.mark.tail]
            .iter()
            .flat_map(|f| [f.len, f.crc])
        {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(path);
        out.into()
    }

    /// The reverse of [`FilePosition::encode`]; the error says what is wrong with the bytes.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, String> {
        match bytes.first() {
            Some(&VERSION) => {}
            Some(other) => return Err(format!("version {other} is not known to this program")),
            None => return Err("it is empty".to_owned()),
        }
        let short = || format!("{} bytes are too few", bytes.len());
        let (fixed, path) = bytes.split_at_checked(FIXED_BYTES).ok_or_else(short)?;
        let long = |n: usize| {
            let at = 1 + 8 * n;
            fixed[at..at + 8]
                .iter()
                .rev()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
        };
        let int = |n: usize| {
            let at = 1 + 4 * 8 + 4 * n;
            fixed[at..at + 4]
                .iter()
                .rev()
                .fold(0, |sum, byte| sum << 8 | u32::from(*byte))
        };
        let head = Fingerprint {
            len: int(0),
            crc: int(1),
        };
        let tail = Fingerprint {
            len: int(2),
            crc: int(3),
        };
        if head.usize_len() > HEAD_BYTES || tail.usize_len() > TAIL_BYTES {
            return Err("a fingerprint is longer than any that is written".to_owned());
        }
        let path = PathBuf::from(std::ffi::OsString::from_vec(path.to_vec()));
        let mark = Mark {
            offset: long(3),
            head,
            tail,
        };
        Ok(Self {
            path,
            inode: long(0),
            device: long(1),
            written_ms: long(2),
            mark,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(content: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        file
    }

    #[test]
    fn a_position_reads_back_and_a_bad_one_is_an_error() {
        let fingerprint = Fingerprint {
            len: 7,
            crc: 0xdead_beef,
        };
        let mark = Mark {
            offset: 1 << 40,
            head: fingerprint,
            tail: Fingerprint::of(b"abc"),
        };
        let path = PathBuf::from("/var/log/app.log");
        let position = FilePosition {
            path,
            inode: u64::MAX,
            device: 3,
            written_ms: 4,
            mark,
        };
        let bytes = position.encode();
        assert_eq!(FilePosition::decode(&bytes), Ok(position));
        for n in 0..FIXED_BYTES {
            assert!(FilePosition::decode(&bytes[..n]).is_err(), "{n}");
        }
        let mut newer = bytes.to_vec();
        newer[0] = 2;
        assert!(
            FilePosition::decode(&newer)
                .unwrap_err()
                .contains("version 2")
        );
    }

    #[test]
    fn a_fingerprint_grows_with_its_bytes() {
        assert_eq!(
            Fingerprint::of(b"abc").and(b"def"),
            Fingerprint::of(b"abcdef")
        );
        assert_eq!(Fingerprint::default().and(b""), Fingerprint::of(b""));
    }

    #[test]
    fn the_same_header_and_more_bytes_do_not_make_it_the_same_file() {
        let old: Vec<u8> = [b"time,level,text\n".repeat(100), b"old\n".repeat(5000)].concat();
        let new: Vec<u8> = [b"time,level,text\n".repeat(100), b"new\n".repeat(9000)].concat();
        let mark = Mark::compute(&file(&old), old.len() as u64)
            .unwrap()
            .unwrap();
        assert!(mark.verify(&file(&old)).unwrap().is_ok());
        assert_eq!(mark.verify(&file(&new)).unwrap(), Err(Mismatch::Tail));
        assert_eq!(
            mark.verify(&file(&old[1..])).unwrap(),
            Err(Mismatch::Shorter)
        );
        assert_eq!(
            mark.verify(&file(&[b"x", &old[..]].concat())).unwrap(),
            Err(Mismatch::Head)
        );
        let longer = [&old[..], b"more\n"].concat();
        assert!(mark.verify(&file(&longer)).unwrap().is_ok());
    }
}
