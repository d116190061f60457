//! Reading for `forebay wal salvage`: as an open reads, and on where an open refuses.
//!
//! *Differences from [`super::read_log`]*: a file that cannot be used is passed over and named; a
//! segment whose header copies are both bad gets its salt from what later segments say of it, or
//! by `salt`; without any snapshot that may be believed (row R8) the frames are applied from the
//! oldest good one on, and what became of the events before it counts as unknown.
//!
//! *Invariants*: nothing is written; a frame is believed only when both of its sums are right and
//! no later open says that the log had ended before it.

use std::path::PathBuf;

use wal_format::{FrameHeader, Lsn, SEGMENT_HEADER_BYTES, Snapshot};

use super::base::{Base, try_base};
use super::replay::Replay;
use super::scanned::{File, for_each_frame, open_file};
use super::{Recovered, salt};
use crate::channel::file::layout::{Found, Listing, segment_name};
use crate::channel::file::options::OpenError;
use crate::channel::file::state::LogState;
use crate::env::disk::Disk;

/// What is left of a log.
#[derive(Debug)]
pub(in crate::channel::file) struct Remains {
    pub(in crate::channel::file) recovered: Recovered,
    /// Nothing in the log says what became of events below this one.
    pub(in crate::channel::file) unknown_below: u64,
    /// From this sequence number on every frame was read for what it says; before it a snapshot
    /// speaks.
    pub(in crate::channel::file) read_from: u64,
    /// Files that are of no use, and why.
    pub(in crate::channel::file) unusable: Vec<(PathBuf, String)>,
    /// Segments whose salt had to be found out.
    pub(in crate::channel::file) salts_found: Vec<u32>,
}

/// Reads what is left of the channel's log.
pub(in crate::channel::file) fn read_remains(
    disk: &dyn Disk,
    listing: &Listing,
    channel_id: [u8; 16],
) -> Result<Remains, OpenError> {
    let (mut files, mut unusable) = (Vec::new(), Vec::new());
    for found in &listing.segments {
        match open_file(disk, found, channel_id) {
            Ok(file) => files.push(file),
            Err(error) => unusable.push((found.path.clone(), error.to_string())),
        }
    }
    let salts_found = find_salts(&mut files);
    for file in files.iter().filter(|file| file.salt.is_none()) {
        let why = "both copies of its header are bad, and nothing else tells its salt";
        unusable.push((file.found.path.clone(), why.to_owned()));
    }
    let believable = (0..files.len())
        .rev()
        .find_map(|at| Some((at, try_base(&files[at..])?)));
    let (at, base, unknown_below) = match believable {
        Some((at, base)) => (at, base, 0),
        None => match first_frame(&files) {
            Some((at, header)) => (at, without_snapshot(&header), header.sequence),
            None => return Ok(nothing(unusable)),
        },
    };
    let newest_is_missing = missing_newest(listing);
    if let Some(number) = newest_is_missing {
        let name = PathBuf::from(segment_name(number));
        let why = "is not there, though a later one was prepared: it may hold the end of the log";
        unusable.push((name, why.to_owned()));
    }
    let older: Vec<Found> = files[..at].iter().map(|f| f.found.clone()).collect();
    let mut replay = Replay::new(&base);
    replay.scan(&files[at..], &base)?;
    let mut recovered = replay.finish(&files[at..], &older, &base);
    if newest_is_missing.is_some() {
        recovered.hidden_below = u64::MAX;
    }
    Ok(Remains {
        recovered,
        unknown_below,
        read_from: base.header.sequence,
        unusable,
        salts_found,
    })
}

/// Prepared segments are used in order, so a number between the newest segment and them was a
/// segment, or a prepared one that was dropped.
fn missing_newest(listing: &Listing) -> Option<u32> {
    let after = listing.segments.last()?.number.checked_add(1)?;
    let spare = listing.spares.first()?.number;
    (spare > after).then_some(after)
}

fn nothing(unusable: Vec<(PathBuf, String)>) -> Remains {
    Remains {
        recovered: Recovered {
            state: LogState::fresh(),
            proven: Lsn(0),
            suspects: Vec::new(),
            segments: Vec::new(),
            leftovers: Vec::new(),
            damage: Vec::new(),
            torn: None,
            cut: None,
            hidden_below: 0,
        },
        unknown_below: 1,
        read_from: 1,
        unusable,
        salts_found: Vec::new(),
    }
}

/// The first good frame of the log and the index of its file.
fn first_frame(files: &[File]) -> Option<(usize, FrameHeader)> {
    files.iter().enumerate().find_map(|(at, file)| {
        let mut first = None;
        for_each_frame(file, |header, _| {
            first.get_or_insert_with(|| header.clone());
        });
        Some((at, first?))
    })
}

/// The state before the first good frame, as far as that frame tells it.
fn without_snapshot(first: &FrameHeader) -> Base {
    Base {
        header: FrameHeader {
            watermark: Lsn(0),
            ..first.clone()
        },
        snapshot: Snapshot {
            acked_below: first.sequence,
            next_epoch: 1,
            control_lost: first.control > 0,
            ..Snapshot::default()
        },
        behind: SEGMENT_HEADER_BYTES,
    }
}

/// Salts of segments whose header is lost, from the references of later segments or from the
/// frames themselves; returns the segments of the second kind.
fn find_salts(files: &mut [File]) -> Vec<u32> {
    salt::tell(files);
    let mut found = Vec::new();
    for file in files.iter_mut().filter(|file| file.salt.is_none()) {
        file.salt = salt::find(file);
        found.extend(file.salt.map(|_| file.found.number));
    }
    found
}

#[cfg(test)]
mod tests {
    use wal_format::FrameKind;

    use super::super::accepted;
    use super::*;

    fn found(number: u32) -> Found {
        Found {
            number,
            dir: 0,
            path: PathBuf::from(segment_name(number)),
            len: 0,
            shown: None,
        }
    }

    fn missing(segments: &[u32], spares: &[u32]) -> Option<u32> {
        missing_newest(&Listing {
            segments: segments.iter().copied().map(found).collect(),
            spares: spares.iter().copied().map(found).collect(),
            ..Listing::default()
        })
    }

    #[test]
    fn a_number_between_the_newest_segment_and_the_prepared_ones_may_have_been_the_end() {
        assert_eq!(missing(&[1, 3], &[5, 6]), Some(4));
        assert_eq!(missing(&[1, 3], &[4, 6]), None, "used in order");
        assert_eq!(missing(&[1, 3], &[]), None);
        assert_eq!(missing(&[1, 3], &[2]), None, "an old one");
        assert_eq!(missing(&[], &[2]), None);
    }

    /// Nothing is known but what the frame's own numbers say.
    #[test]
    fn without_a_snapshot_all_before_the_first_frame_is_done_with_and_decisions_may_be_lost() {
        let header = |control| FrameHeader {
            watermark: Lsn(9),
            ..accepted::header(FrameKind::Put, 7, control)
        };
        let base = without_snapshot(&header(0));
        assert_eq!(base.header.watermark, Lsn(0), "its frame is read again");
        assert_eq!(
            (base.snapshot.acked_below, base.snapshot.next_epoch),
            (7, 1)
        );
        assert!(!base.snapshot.control_lost);
        assert!(without_snapshot(&header(1)).snapshot.control_lost);
    }
}
