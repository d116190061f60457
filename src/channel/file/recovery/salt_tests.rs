//! Segments whose header copies are gone, with frames under one salt or under many.

use std::path::PathBuf;

use wal_format::PutEncoder;

use super::super::super::layout::Found;
use super::super::scanned::open_file;
use super::*;
use crate::env::disk::{Disk, WriteBackend};
use crate::env::disk_sim::SimDisk;

const SEGMENT: u32 = 7;

/// A file without a header that holds one frame under each of these salts.
fn file(salts: &[u64]) -> File {
    let mut bytes = vec![0; SEGMENT_HEADER_BYTES as usize];
    for (number, salt) in (1..).zip(salts) {
        let mut put = PutEncoder::with_capacity(100);
        put.event(
            std::iter::empty(),
            format!("event {number}").as_bytes(),
            None,
        );
        let mut frame = put.finish();
        let mut header = super::super::accepted::header(FrameKind::Put, number, 0);
        (header.count, header.body_len) = (1, frame.body_len);
        header.body_crc = frame.body_crc;
        let lsn = Lsn::new(SEGMENT, u32::try_from(bytes.len()).unwrap());
        header.watermark = lsn;
        let mut encoded = [0; FRAME_HEADER_BYTES];
        header.encode(*salt, lsn, &mut encoded);
        frame.buffer[..FRAME_HEADER_BYTES].copy_from_slice(&encoded);
        bytes.extend(&frame.buffer);
        bytes.resize(bytes.len().next_multiple_of(FRAME_ALIGN), 0);
    }
    bytes.resize(bytes.len().next_multiple_of(4096) + 8192, 0);
    let (disk, path) = (SimDisk::default(), PathBuf::from("/data/segment"));
    disk.create_dir_all("/data".as_ref()).unwrap();
    let len = bytes.len() as u64;
    let written = disk
        .create_zeroed(&path, len, WriteBackend::Pwrite)
        .unwrap();
    written.store_at(0, &[&bytes]).unwrap();
    let found = Found {
        number: SEGMENT,
        dir: 0,
        path,
        len,
        shown: None,
    };
    open_file(&disk, &found, [0; 16]).unwrap()
}

/// Salts of 64 bits, none like another.
fn salts() -> impl Iterator<Item = u64> {
    (1_u64..).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn many_and_two(many: usize) -> File {
    let last = salts().nth(1000).unwrap();
    file(&salts().take(many).chain([last, last]).collect::<Vec<_>>())
}

#[test]
fn a_salt_is_found_with_which_every_frame_of_the_segment_is_good() {
    for salt in salts().take(20) {
        let file = file(&[salt; 5]);
        let found = find(&file).unwrap();
        assert!(found < 1 << 32, "{found:x}");
        assert_eq!(watermarks(&file, found).len(), 5, "salt {salt:x}");
        assert_eq!(watermarks(&file, salt).len(), 5);
        assert_eq!(
            watermarks(&file, found ^ 1).len(),
            0,
            "no other one below 2^32"
        );
    }
}

#[test]
fn the_salt_of_one_frame_alone_proves_nothing() {
    assert_eq!(find(&file(&[])), None);
    assert_eq!(find(&file(&[5])), None);
    assert_eq!(find(&file(&[5, 6, 7])), None, "three salts");
}

#[test]
fn frames_under_other_salts_are_passed_over_and_after_some_the_segment_is_given_up() {
    let file = many_and_two(TRIES - 1);
    assert_eq!(watermarks(&file, find(&file).unwrap()).len(), 2);
    assert_eq!(find(&many_and_two(TRIES)), None);
}

/// It would be read from another place of the log, and the sums would be right.
#[test]
fn a_salt_does_not_make_up_for_a_wrong_number() {
    let mut file = file(&[5, 5, 5]);
    assert!(find(&file).is_some());
    file.found.number = SEGMENT + 1;
    assert_eq!(find(&file), None);
}
