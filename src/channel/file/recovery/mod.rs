//! Opening: what the log says, read without writing a byte into what is there.
//!
//! *Algorithm*
//! 1. The newest segment with a good snapshot is the base. A snapshot written at an open counts
//!    only when its Incarnation record follows in an unbroken run of frames, or a watermark tells
//!    that its first group was synced: until then the frames between them are still being copied,
//!    and the originals are the truth.
//! 2. Frames behind the snapshot are applied once a later frame's watermark proves them durable.
//!    What is left over when the log ends are the *suspects*, `[W, X)`: valid in the page cache,
//!    perhaps not on the medium (after a failed sync the cache shows what the disk lacks). Among
//!    them are the copies of opens that were cut short; they fill the gaps of their originals.
//! 3. The caller writes the state at W, the suspects and a new Incarnation into a prepared
//!    segment, syncs, and only then believes them. The old segment ends at W for ever.
//!
//! | row | base snapshot | bad bytes at X | proof behind X | verdict |
//! |---|---|---|---|---|
//! | R1 | newest segment | none (zeros) | - | clean end |
//! | R2 | newest segment | yes | none | torn tail: reported, never cut |
//! | R3 | newest segment | yes | later frame | damage: reported, read on behind it |
//! | R4 | opening snapshot, no Incarnation behind it | - | - | recovery was cut short: older base |
//! | R5 | bad | - | later frame in the segment | damage: older base, replay on through |
//! | R6 | bad | - | none | roll was cut short: older base, segment contributes nothing |
//! | R7 | none good, one segment, no proof | - | - | first open was cut short: fresh channel |
//! | R8 | none good | - | - | refused, nothing touched |
//! | R9 | opening snapshot, a hole before its Incarnation | - | watermark in this segment | damage: read on from it |
//! | R10 | bad, nothing tells whether a roll or an open came before | in the segment before | later frame | damage: the tail of the segment before ends here, in whole transactions; replay on through |
//!
//! *Invariants*: INV-17, INV-18. *Crash* in recovery: the old segments are untouched, so the next
//! open sees what this one saw.

mod accepted;
mod base;
mod damaged;
mod frames;
mod replay;
mod rules;
mod salt;
mod scanned;
mod tail;

use wal_format::{FrameHeader, Identity, Lsn, Open, Record, SegmentRef};

pub(super) use self::accepted::refused_next_time;
pub(super) use self::base::is_opening;
pub(super) use self::damaged::{Remains, read_remains};
pub(super) use self::frames::{put_op, rebuild};
pub(super) use self::rules::broken_by;

use self::base::{has_other_snapshot, try_base};
use self::replay::Replay;
use self::scanned::{File, for_each_header, has_damage, open_file};
use super::layout::{Found, Listing};
use super::options::OpenError;
use super::segment::Segment;
use super::state::LogState;
use crate::env::disk::Disk;
use crate::planted::{Bug, planted};

/// A valid frame that nothing proves durable.
#[derive(Clone, Debug)]
pub(super) struct Suspect {
    pub(super) header: FrameHeader,
    pub(super) body: Vec<u8>,
    end: Lsn,
}

/// A stretch of bad bytes below what was durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Damage {
    pub(super) segment: u32,
    pub(super) offset: u32,
    pub(super) why: String,
    pub(super) resume: Option<u32>,
}

/// What lies behind the end of the log, if it is not all zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TornTail {
    pub(super) segment: u32,
    pub(super) offset: u32,
    pub(super) nonzero_end: u32,
}

/// The outcome of reading the log.
#[derive(Debug)]
pub(super) struct Recovered {
    /// State at W.
    pub(super) state: LogState,
    /// W itself.
    pub(super) proven: Lsn,
    /// Whole transactions of `[W, X)`.
    pub(super) suspects: Vec<Suspect>,
    /// Segments that stay, oldest first.
    pub(super) segments: Vec<Segment>,
    /// Segment files that nothing refers to any more.
    pub(super) leftovers: Vec<Found>,
    pub(super) damage: Vec<Damage>,
    pub(super) torn: Option<TornTail>,
    /// The last segment, and where its last non-zero byte ends.
    pub(super) cut: Option<(Found, u32)>,
    /// Damage may hide what became of events below this one.
    pub(super) hidden_below: u64,
}

impl Recovered {
    /// The segment in which the proof ends. Those behind it (recoveries that were cut short) hold
    /// nothing that is believed.
    pub(super) fn last_believed(&self) -> Option<SegmentRef> {
        let number = self.proven.segment();
        let proven = self.segments.iter().find(|s| s.number == number);
        proven
            .or_else(|| self.segments.last())
            .map(Segment::reference)
    }

    /// The directory in which the log lay last, also where only the unproven tail says so.
    pub(super) fn last_identity(&self) -> Identity {
        let told = self.unproven_opens().last();
        told.map_or(self.state.identity, |open| open.identity)
    }

    /// The newest incarnation, also where only the unproven tail names it: its number is given.
    pub(super) fn last_incarnation(&self) -> u32 {
        let told = self.unproven_opens().map(|open| open.incarnation).max();
        let told = told.filter(|_| !planted(Bug::IncarnationAgain));
        told.unwrap_or(0).max(self.state.incarnation)
    }

    fn unproven_opens(&self) -> impl Iterator<Item = Open> {
        let decoded = |s: &Suspect| Record::decode(s.header.kind, &s.body);
        self.suspects.iter().filter_map(move |s| match decoded(s) {
            Ok(Record::Incarnation(open)) => Some(open),
            _ => None,
        })
    }
}

/// Reads the log from its newest good snapshot on. Writes nothing.
pub(super) fn read_log(
    disk: &dyn Disk,
    listing: &Listing,
    channel_id: [u8; 16],
) -> Result<Recovered, OpenError> {
    let mut files: Vec<File> = Vec::new();
    let mut older = listing.segments.as_slice();
    while let Some((found, rest)) = older.split_last() {
        older = rest;
        files.insert(0, open_file(disk, found, channel_id)?);
        refuse_misplaced(&files[0])?;
        find_salt(&mut files)?;
        if let Some(base) = try_base(&files) {
            let mut replay = Replay::new(&base);
            replay.scan(&files, &base)?;
            return Ok(replay.finish(&files, older, &base));
        }
    }
    without_base(files)
}

/// INV-9: a segment gets its name with its header, so no crash leaves it under another one. What it
/// holds would pass for a torn tail, and what its name holds for the end of the log.
fn refuse_misplaced(file: &File) -> Result<(), OpenError> {
    match file.holds_other() {
        Some(number) if !planted(Bug::MisplacedUnseen) => Err(OpenError::Directory {
            dir: file.found.path.clone(),
            reason: format!(
                "it holds segment {number}; nothing was touched. Give it its own name back, or \
                 move it away where that segment is there as well"
            ),
        }),
        _ => Ok(()),
    }
}

/// INV-9: both copies of the newest header are bad, which no crash leaves: a segment gets its name
/// when they are synced. What it holds, or held where nothing but zeros is left, must not be taken
/// for nothing.
fn find_salt(files: &mut [File]) -> Result<(), OpenError> {
    salt::tell(files);
    let Some(file) = files.first_mut().filter(|file| file.salt.is_none()) else {
        return Ok(());
    };
    file.salt = salt::find(file).filter(|_| !planted(Bug::NoHeaderNoFrames));
    if file.salt.is_some() || planted(Bug::NoHeaderNoFrames) {
        return Ok(());
    }
    Err(OpenError::Directory {
        dir: file.found.path.clone(),
        reason: "both copies of its header are bad, and nothing tells how its frames are read; \
                 nothing was touched. `forebay wal salvage` makes a new channel of what is whole"
            .into(),
    })
}

/// Whether a frame tells of events or segments before it, as none of the very first open does.
fn tells_of_more(file: &File) -> bool {
    let mut more = false;
    for_each_header(file, |header| {
        more |= header.sequence > 1 || header.watermark > Lsn(0);
    });
    more && !planted(Bug::AnyOpenIsTheFirst)
}

/// Rows R7 and R8.
fn without_base(files: Vec<File>) -> Result<Recovered, OpenError> {
    let proof = files.iter().any(|f| {
        // A store that was cut short is never an error of reading, and no frame proves it; nor does
        // it shorten a file.
        let harmed = f.salt.is_none() || f.is_cut() || !f.is_readable() || has_damage(f);
        harmed || has_other_snapshot(f) || tells_of_more(f)
    });
    if let Some(file) = files.first()
        && (files.len() > 1 || proof)
    {
        return Err(OpenError::Directory {
            dir: file.found.path.clone(),
            reason: "no segment has a readable snapshot; nothing was touched. `forebay wal \
                     verify` names the damage"
                .into(),
        });
    }
    Ok(Recovered {
        state: LogState::fresh(),
        proven: Lsn(0),
        suspects: Vec::new(),
        segments: Vec::new(),
        leftovers: files.into_iter().map(|f| f.found).collect(),
        damage: Vec::new(),
        torn: None,
        cut: None,
        hidden_below: 0,
    })
}
