//! What is on an image, for whoever looks for the reason of a finding.

use forebay::env::disk::Disk;
use forebay::env::disk::WriteBackend::Pwrite;
use forebay::env::disk_sim::SimDisk;
use wal_format::{
    FrameKind, Lsn, ReadAt, Record, SEGMENT_HEADER_BYTES, Scanner, SegmentHeader, Step,
};

struct Bytes(Vec<u8>);

impl ReadAt for Bytes {
    type Error = std::convert::Infallible;

    fn read_at(&mut self, offset: u32, buf: &mut [u8]) -> Result<(), Self::Error> {
        let from = self.0.get(offset as usize..).unwrap_or_default();
        let have = from.len().min(buf.len());
        buf[..have].copy_from_slice(&from[..have]);
        buf[have..].fill(0);
        Ok(())
    }
}

/// All files, and the frames of all segments.
pub(crate) fn dump(image: &SimDisk) -> String {
    let mut text = String::new();
    let mut files = image.files();
    files.sort();
    for path in files {
        let len = image
            .open(&path, false, Pwrite)
            .map_or(0, |file| file.len());
        text.push_str(&format!("{} {len}\n", path.display()));
        let bytes = image.content(&path).unwrap_or_default();
        let header = bytes
            .get(..SEGMENT_HEADER_BYTES as usize)
            .map(SegmentHeader::decode);
        if let Some(Ok(header)) = header
            && path.display().to_string().contains("segment-")
        {
            frames(&mut text, &header, bytes);
        }
    }
    text
}

fn frames(text: &mut String, header: &SegmentHeader, bytes: Vec<u8>) {
    let end = u32::try_from(bytes.len())
        .unwrap_or(0)
        .min(header.frames_end());
    let begin = SEGMENT_HEADER_BYTES;
    let mut scanner = Scanner::new(
        Bytes(bytes),
        header.segment,
        header.salt,
        begin,
        end,
        Lsn(0),
    );
    loop {
        let Ok(step) = scanner.step();
        let (line, over) = match step {
            Step::Frame { lsn, header, body } => {
                let mut record = String::new();
                if header.kind != FrameKind::Put {
                    record = format!("{:?}", Record::decode(header.kind, body));
                    record.truncate(400);
                }
                let mark = header.watermark;
                let (at, kind) = (lsn.offset(), header.kind);
                let numbers = (header.sequence, header.count, header.control);
                let proof = (mark.segment(), mark.offset());
                (
                    format!("{at} {kind:?} {numbers:?} proof {proof:?} {record}"),
                    false,
                )
            }
            Step::Corrupt {
                offset,
                why,
                resume,
            } => (
                format!("{offset} bad: {why}, resume {resume:?}"),
                resume.is_none(),
            ),
            Step::End { offset } => (format!("{offset} end"), true),
            Step::Torn {
                offset,
                nonzero_end,
            } => (format!("{offset} torn to {nonzero_end}"), true),
        };
        text.push_str(&format!("    {line}\n"));
        if over {
            return;
        }
    }
}
