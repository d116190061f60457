//! What the file channel promises about a whole log that was written well and then damaged.
//! Included by the fuzz target `damaged_channel` and by `tests/fuzz_seeds.rs`.
//!
//! *Claims* for damage that no writer has made (0 to 11): an event that is delivered is the one
//! that was put under its number; what is whole and was durable is delivered, and so is what
//! follows the proof without a gap; what is not whole and lies below the proof is lost by name, in
//! the channel and in the report of `forebay wal verify`; the two agree. An acknowledgement is
//! forgotten, or an epoch, only where the channel says that decisions may be lost or the tail of
//! the log is damaged, and none is invented. Positions are not behind what is whole, nor ahead of
//! the log. The log is refused only where no snapshot is left, a file stands in a wrong place, or
//! a segment has no header left; directories in a wrong order are always refused. A log that is
//! whole is sound for both.
//! *Claims* for all damage, also that of a writer which is wrong, with right sums (12 to 15):
//! those of `opened_log`; and an event whose frame nobody touched, and whose number no changed
//! frame claims, is delivered as it was put.
//!
//! *The proof* is the highest watermark of a whole frame (one above its own frame counts as that);
//! in front of an open whose records are all damaged, only what that open must have believed.
//!
//! *Input*: u8 recipe (see `written_log`), then damages of six bytes: u8 what (modulo 16), u8
//! segment (from the last one backwards), u8 frame, u16 where, u8 value.
//!
//! | what | damage |
//! |---|---|
//! | 0 | exclusive-or of a byte of the frame |
//! | 1 | zeros from there on, eight times the value |
//! | 2 | zeros from there to the end of the segment |
//! | 3 | a copy of another frame of any segment, as it is |
//! | 4 | a byte of the first or second copy of the segment's header |
//! | 5 | the file is cut there |
//! | 6 | the file is missing |
//! | 7 | the file has another number |
//! | 8 | a copy of the file has another number, as a segment or as a prepared one |
//! | 9 | two files are exchanged |
//! | 10 | sectors that cannot be read |
//! | 11 | the directories are given in another order |
//! | 12 | a field of the frame's header, sum repaired |
//! | 13 | a byte of the body, sums repaired |
//! | 14 | a field of the segment's header, sum repaired, in both copies |
//! | 15 | a copy of another frame, its sum right for this place |

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use forebay::channel::file::examine::LogReport;
use forebay::env::disk::{Disk, WriteBackend};
use forebay::env::disk_sim::SimDisk;

#[allow(dead_code, reason = "each oracle needs a part of it")]
#[path = "opened_log.rs"]
mod opened_log;
#[allow(dead_code, reason = "each oracle needs a part of it")]
#[path = "written_log.rs"]
mod written_log;

use opened_log::Shown;
use written_log::{BLOCK, Frame, HEADER, Segment, Written, header_sum, kind, recipe, u32_at};

/// What the inputs of a corpus have led to together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) opened: u32,
    pub(crate) refused: u32,
    pub(crate) lost: u32,
    pub(crate) torn: u32,
}

/// The log with its damages.
struct Damaged<'a> {
    log: &'a Written,
    /// Segment files by path.
    files: BTreeMap<PathBuf, Vec<u8>>,
    /// Bytes that cannot be read: file, from, to.
    unreadable: Vec<(PathBuf, usize, usize)>,
    reversed: bool,
    /// A writer was wrong, and said so with right sums.
    lies: bool,
    /// A file stands under the name of another.
    misplaced: bool,
}

struct Damage {
    what: u8,
    segment: u8,
    frame: u8,
    place: usize,
    value: u8,
}

/// Damages a log, opens it, and panics where a promise is broken.
pub(crate) fn check(input: &[u8]) -> Seen {
    let Some((number, rest)) = input.split_first() else {
        return Seen::default();
    };
    let log = recipe(*number);
    let mut damaged = Damaged {
        log: &log,
        files: files_of(&log),
        unreadable: Vec::new(),
        reversed: false,
        lies: false,
        misplaced: false,
    };
    for bytes in rest.chunks_exact(6).take(12) {
        damaged.apply(&Damage {
            what: bytes[0] % 16,
            segment: bytes[1],
            frame: bytes[2],
            place: u16::from_le_bytes([bytes[3], bytes[4]]).into(),
            value: bytes[5],
        });
    }
    damaged.check()
}

fn files_of(log: &Written) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = log.disk.files().into_iter();
    let segments = files.filter(|path| path.to_string_lossy().contains("segment-"));
    segments
        .map(|path| {
            let content = log.disk.content(&path).expect("a file");
            (path, content)
        })
        .collect()
}

impl Damaged<'_> {
    fn segment(&self, back: u8) -> &Segment {
        let segments = &self.log.segments;
        &segments[segments.len() - 1 - usize::from(back) % segments.len()]
    }

    fn apply(&mut self, damage: &Damage) {
        let segment = self.segment(damage.segment).clone();
        if segment.frames.is_empty() {
            return;
        }
        let frame = &segment.frames[usize::from(damage.frame) % segment.frames.len()];
        let at = frame.at + damage.place % (frame.body_end - frame.at);
        match damage.what {
            5..=8 => self.rename_or_cut(damage, &segment, at),
            9 => {
                let other = self.segment(damage.value).path.clone();
                let (a, b) = (self.files.remove(&segment.path), self.files.remove(&other));
                self.files.extend(b.map(|b| (segment.path.clone(), b)));
                self.files.extend(a.map(|a| (other.clone(), a)));
                self.misplaced |= other != segment.path;
            }
            10 => {
                // A kernel reads whole pages.
                let to = (at + 1 + usize::from(damage.value) * 16).next_multiple_of(BLOCK);
                self.unreadable.push((segment.path, at - at % BLOCK, to));
            }
            11 => self.reversed = true,
            _ => self.change(damage, &segment, frame, at),
        }
    }

    fn rename_or_cut(&mut self, damage: &Damage, segment: &Segment, at: usize) {
        let prefix = if damage.place.is_multiple_of(2) {
            "segment"
        } else {
            "spare"
        };
        let name = format!("{prefix}-{:010}.wal", damage.value);
        let other = segment.path.with_file_name(name);
        match damage.what {
            5 => {
                if let Some(bytes) = self.files.get_mut(&segment.path) {
                    bytes.truncate(at);
                }
            }
            6 => drop(self.files.remove(&segment.path)),
            7 if prefix == "segment" && !self.files.contains_key(&other) => {
                let bytes = self.files.remove(&segment.path);
                self.misplaced |= bytes.is_some();
                self.files.extend(bytes.map(|bytes| (other, bytes)));
            }
            8 if !self.files.contains_key(&other) && self.log.disk.content(&other).is_err() => {
                let bytes = self.files.get(&segment.path).cloned();
                self.misplaced |= bytes.is_some();
                self.files.extend(bytes.map(|bytes| (other, bytes)));
            }
            _ => {}
        }
    }

    /// Changes bytes inside the file.
    fn change(&mut self, damage: &Damage, segment: &Segment, frame: &Frame, at: usize) {
        let value = damage.value;
        let copied = matches!(damage.what, 3 | 15).then(|| {
            let from = self.segment(value);
            let frames = &from.frames;
            let frame = frames.get(damage.place % frames.len().max(1));
            frame.map(|frame| from.bytes[frame.at..frame.body_end].to_vec())
        });
        let Some(bytes) = self.files.get_mut(&segment.path) else {
            return;
        };
        let end = bytes.len().min(segment.bytes.len());
        if frame.body_end > end {
            return;
        }
        match damage.what {
            0 => bytes[at] ^= value,
            1 => bytes[at..end.min(at + usize::from(value) * 8)].fill(0),
            2 => bytes[at..end].fill(0),
            3 => {
                let copied = copied.flatten().unwrap_or_default();
                let length = copied.len().min(end - at);
                bytes[at..at + length].copy_from_slice(&copied[..length]);
            }
            4 => {
                let base = if value & 1 == 0 { 0 } else { end - BLOCK };
                bytes[base + damage.place % BLOCK] ^= value | 2;
            }
            12 => {
                change_field(&mut bytes[frame.at..frame.body_end], damage.place, value);
                self.lies = true;
            }
            13 if frame.body_end > frame.at + HEADER => {
                let length = frame.body_end - frame.at - HEADER;
                bytes[frame.at + HEADER + damage.place % length] ^= value;
                let sum = crc32fast::hash(&bytes[frame.at + HEADER..frame.body_end]);
                bytes[frame.at + 12..][..4].copy_from_slice(&sum.to_le_bytes());
                self.lies = true;
            }
            14 => {
                change_segment_header(bytes, damage.place, value);
                self.lies = true;
            }
            15 => {
                let copied = copied.flatten().unwrap_or_default();
                if frame.at + copied.len() <= end {
                    bytes[frame.at..][..copied.len()].copy_from_slice(&copied);
                }
                self.lies = true;
            }
            // No body: its header's sum stays what it is.
            _ => return,
        }
        if damage.what >= 12 && damage.what != 14 {
            let sum = header_sum(&bytes[frame.at..], segment.salt, segment.lsn(frame.at));
            bytes[frame.at..][..4].copy_from_slice(&sum.to_le_bytes());
        }
    }

    /// The disk with the damaged files.
    fn disk(&self) -> SimDisk {
        let disk = self.log.disk.kill();
        let before = files_of(self.log);
        for path in before.keys() {
            if self.files.get(path) != before.get(path) {
                disk.remove(path).expect("a file");
            }
        }
        for (path, bytes) in &self.files {
            if before.get(path) != Some(bytes) {
                let length = u64::try_from(bytes.len()).expect("64 bits");
                let file = disk.create_zeroed(path, length, WriteBackend::Pwrite);
                let file = file.expect("a new file");
                file.store_at(0, &[bytes]).expect("a store");
            }
        }
        for (path, from, to) in &self.unreadable {
            let range =
                u64::try_from(*from).expect("64 bits")..u64::try_from(*to).expect("64 bits");
            // A file that is missing cannot be read anyhow.
            let _missing = disk.fail_reads(path, range);
        }
        disk
    }

    fn check(&self) -> Seen {
        let disk = self.disk();
        let mut dirs = self.log.dirs.clone();
        if self.reversed {
            dirs.reverse();
        }
        let shown = opened_log::check(&disk, &dirs, self.lies);
        let report = opened_log::verify(&disk, &dirs);
        if self.reversed && dirs.len() > 1 {
            assert!(shown.is_none(), "opened with its directories exchanged");
            return Seen::default();
        }
        let judge = Judge::new(self);
        if std::env::var_os("FOREBAY_EXPLAIN").is_some() {
            judge.explain(shown.as_ref(), report.as_ref());
        }
        let Some(shown) = shown else {
            judge.refused();
            return Seen {
                refused: 1,
                ..Seen::default()
            };
        };
        judge.untouched(&shown);
        if !self.lies {
            // What is whole behind the damage is delivered, whatever is lost.
            assert_eq!(shown.error, None, "takes end with an error");
            judge.opened(&shown);
            judge.verified(&shown, report.as_ref());
        }
        Seen {
            opened: 1,
            refused: 0,
            lost: u32::from(!shown.lost.is_empty()),
            torn: u32::from(shown.found.torn.is_some()),
        }
    }
}

/// Another value of a field of a frame's header.
fn change_field(header: &mut [u8], place: usize, value: u8) {
    const FIELDS: [(usize, usize); 7] =
        [(4, 1), (5, 1), (16, 8), (24, 4), (32, 8), (48, 8), (40, 8)];
    let (at, length) = FIELDS[place % FIELDS.len()];
    let field = &mut header[at..at + length];
    match value {
        0..=63 => field[usize::from(value) % length] ^= 1 << (value / 8),
        64..=127 => field.fill(if value.is_multiple_of(2) { 0xff } else { 0 }),
        _ => field[0] = field[0].wrapping_add(value),
    }
}

fn change_segment_header(bytes: &mut [u8], place: usize, value: u8) {
    let copies = [0, bytes.len().saturating_sub(BLOCK)];
    for base in copies {
        let Some(block) = bytes.get_mut(base..base + BLOCK) else {
            continue;
        };
        block[12 + place % 60] ^= value;
        let sum = crc32fast::hash(&block[12..]);
        block[8..12].copy_from_slice(&sum.to_le_bytes());
    }
}

/// What is left of the log, frame by frame, and what may be asked of it.
struct Judge<'a> {
    damaged: &'a Damaged<'a>,
    /// Believed frames in order, and whether they are whole.
    frames: Vec<(&'a Segment, &'a Frame, bool)>,
    proof: u64,
    /// Numbers of events that have to be delivered.
    kept: BTreeSet<u64>,
    /// Numbers of events that have to be lost by name, unless a copy is left.
    gone: BTreeSet<u64>,
    /// The highest position of each key that has to be known.
    positions: BTreeMap<Vec<u8>, u64>,
    /// Something behind the proof is not whole.
    tail_damaged: bool,
}

impl<'a> Judge<'a> {
    fn new(damaged: &'a Damaged<'a>) -> Self {
        let mut judge = Self {
            damaged,
            frames: Vec::new(),
            proof: 0,
            kept: BTreeSet::new(),
            gone: BTreeSet::new(),
            positions: BTreeMap::new(),
            tail_damaged: false,
        };
        for segment in &damaged.log.segments {
            let readable = damaged.header_is_good(segment);
            for frame in &segment.frames {
                let whole = readable && damaged.is_whole(segment, frame);
                if whole {
                    let mark = frame.watermark.min(segment.lsn(frame.at));
                    judge.proof = judge.proof.max(mark);
                }
                judge.frames.push((segment, frame, whole));
            }
        }
        judge.expect();
        judge
    }

    /// For whoever looks into a finding.
    fn explain(&self, shown: Option<&Shown>, report: Option<&LogReport>) {
        eprintln!(
            "proof {:#x}, tail damaged: {}",
            self.proof, self.tail_damaged
        );
        for (segment, frame, whole) in &self.frames {
            eprintln!("{} {whole} {frame:?}", segment.number);
        }
        for (path, bytes) in &self.damaged.files {
            eprintln!("{} {}", path.display(), bytes.len());
        }
        eprintln!("unreadable {:?}", self.damaged.unreadable);
        if let Some(shown) = shown {
            let events: Vec<_> = shown.events.keys().collect();
            eprintln!("{:?}\n{:?}\n{events:?}", shown.view, shown.found);
            eprintln!("lost {:?}, error {:?}", shown.lost, shown.error);
        }
        eprintln!("verify: {:#?}", report.map(|report| &report.damage));
    }

    fn expect(&mut self) {
        let (mut follows, mut open) = (true, Vec::new());
        // The segment in whose tail a bad frame was met, which an open may have taken for torn.
        let mut torn = None;
        let frames = self.frames.clone();
        for (segment, frame, whole) in frames {
            let proven = segment.lsn(frame.at) < self.proof;
            let believed = proven && segment.lsn(frame.at) < self.proof_in(segment);
            follows &= proven || whole;
            self.tail_damaged |= !whole && !proven;
            if !whole && proven && !believed {
                torn = Some(segment.number);
            }
            let numbers = frame.sequence..frame.sequence + frame.count;
            if frame.kind != kind::PUT {
            } else if !whole && proven {
                self.gone.extend(numbers);
                open.clear();
            } else if believed {
                self.kept.extend(numbers);
                note_positions(&mut self.positions, segment, frame);
            } else if proven && torn == Some(segment.number) {
                open.clear();
            } else if follows || proven {
                // The whole transaction, or nothing of it.
                open.push((segment, frame));
                if frame.last_of_transaction {
                    for (segment, frame) in open.drain(..) {
                        self.kept
                            .extend(frame.sequence..frame.sequence + frame.count);
                        note_positions(&mut self.positions, segment, frame);
                    }
                }
            }
        }
        // A copy of a later segment counts, not the original behind the end of an earlier one.
        self.gone.retain(|number| !self.kept.contains(number));
    }

    /// The proof as far as it concerns a segment. Where the records of the open behind it are all
    /// damaged, what was written behind that open proves nothing in front of it (row R10): frames
    /// behind a torn one were left there for ever, and their numbers given again.
    fn proof_in(&self, segment: &Segment) -> u64 {
        let behind = |(other, ..): &&(&Segment, _, _)| other.number > segment.number;
        let behind = self.frames.iter().filter(behind);
        let Some(next) = behind.clone().map(|(other, ..)| other.number).min() else {
            return self.proof;
        };
        let of_next = behind.filter(|(other, ..)| other.number == next);
        let is = |kind| move |frame: &Frame| frame.kind == kind;
        let opened = of_next
            .clone()
            .any(|(_, frame, _)| is(kind::INCARNATION)(frame));
        let tells = is(if opened {
            kind::INCARNATION
        } else {
            kind::SNAPSHOT
        });
        if of_next
            .clone()
            .any(|(_, frame, whole)| *whole && tells(frame))
        {
            return self.proof;
        }
        let whole = self.frames.iter().filter(|(.., whole)| *whole);
        let marks = whole.map(|(other, frame, _)| frame.watermark.min(other.lsn(frame.at)));
        let inside = marks.filter(|mark| mark >> 32 <= u64::from(segment.number));
        inside.max().unwrap_or(0)
    }

    /// A log may be refused where nothing can be believed, a file is not what its name says, or
    /// nothing tells how a segment is read.
    fn refused(&self) {
        let mut segments = self.damaged.log.segments.iter();
        let headless = segments.any(|s| !self.damaged.header_is_good(s));
        if self.damaged.lies || self.damaged.misplaced || headless {
            return;
        }
        for segment in &self.damaged.log.segments {
            let mut frames = self.frames.iter().filter(|f| f.0.number == segment.number);
            let run = frames.by_ref().take_while(|(.., whole)| *whole);
            let run: Vec<u8> = run.map(|(_, frame, _)| frame.kind).collect();
            // An opening snapshot counts with its own Incarnation only, behind those it has copied.
            let opens = |kind: &&u8| **kind == kind::INCARNATION;
            let own = segment.frames.iter().map(|frame| &frame.kind);
            let own = own.filter(opens).count().max(1);
            let opened = run.iter().filter(opens).count() == own;
            let base = run.first() == Some(&kind::SNAPSHOT) && opened;
            assert!(!base, "refused, but {} is whole", segment.path.display());
        }
    }

    /// Delivered as it was put, if nobody has touched its frame.
    fn untouched(&self, shown: &Shown) {
        let log = self.damaged.log;
        let mut touched = BTreeSet::new();
        for &(segment, frame, whole) in &self.frames {
            if !whole && frame.kind == kind::PUT {
                touched.extend(frame.sequence..frame.sequence + frame.count);
                touched.extend(self.damaged.claimed(segment, frame));
            }
        }
        for (number, content) in &shown.events {
            let free = self.damaged.lies && touched.contains(number);
            let written = log.events.get(number);
            assert!(
                free || self.damaged.lies && written.is_none() || written == Some(content),
                "event {number} was not written so"
            );
        }
    }

    fn opened(&self, shown: &Shown) {
        let log = self.damaged.log;
        let view = &shown.view;
        let forgotten = view.control_lost || self.tail_damaged;
        let is_done = |number: u64| {
            let mut acked = view.acked.iter();
            number < view.cursor || acked.any(|run| (run.first.0..=run.last.0).contains(&number))
        };
        for epoch in &view.epochs {
            let range = (epoch.range.first.0, epoch.range.last.0);
            let open = log.epochs.get(&epoch.epoch) == Some(&range);
            assert!(open || forgotten, "epoch {} is open again", epoch.epoch);
        }
        let sealed: BTreeSet<u64> = view.epochs.iter().map(|e| e.epoch).collect();
        for (epoch, range) in &log.epochs {
            let known = sealed.contains(epoch);
            assert!(
                known || forgotten,
                "epoch {epoch} of {range:?} is forgotten"
            );
        }
        // A store that was cut short is never an error of reading.
        let mut bad = self.damaged.unreadable.iter();
        let bad = bad.any(|(path, from, _)| {
            let file = self.damaged.files.get(path);
            file.is_some_and(|bytes| *from < bytes.len())
        });
        // Of a log that was not, the incarnations are counted on, also where no event is left.
        let first = view.incarnations.iter().all(|(number, _)| *number == 1);
        let fresh = view.next_sequence == 1 && first && !log.events.is_empty();
        assert!(!(bad && fresh), "a log that cannot be read was begun anew");
        for number in log.events.keys().copied() {
            let done = is_done(number);
            assert!(
                !done || log.done.contains(&number),
                "{number} was never acknowledged"
            );
            let was_done = log.done.contains(&number);
            assert!(
                done || !was_done || forgotten,
                "{number} is acknowledged no more"
            );
            let known = number < view.next_sequence;
            let asked = self.kept.contains(&number) || self.gone.contains(&number);
            assert!(known || !asked, "{number} may be given again");
            let lost = shown.is_lost(number);
            assert!(
                !lost || !self.kept.contains(&number),
                "whole event {number} called lost"
            );
        }
        for (key, position) in &self.positions {
            let mut known = view.positions.iter().filter(|p| p.key.as_bytes() == key);
            let value = known.next().map(|p| number_in(&p.value));
            assert!(value >= Some(*position), "{value:?} is behind {position}");
        }
        for position in &view.positions {
            let value = number_in(&position.value);
            assert!(
                value < view.next_sequence,
                "{position:?} is ahead of the log"
            );
        }
        if self.is_whole() {
            assert!(
                shown.lost.is_empty() && !view.control_lost,
                "lost: {:?}",
                shown.lost
            );
            assert_eq!(shown.found, Default::default(), "a whole log is damaged");
            let last = log.events.last_key_value().map_or(0, |(number, _)| *number);
            assert_eq!(view.next_sequence, last + 1);
        }
    }

    fn is_whole(&self) -> bool {
        self.damaged.files == files_of(self.damaged.log) && self.damaged.unreadable.is_empty()
    }

    /// What `forebay wal verify` says of it.
    fn verified(&self, shown: &Shown, report: Option<&LogReport>) {
        let Some(report) = report else {
            assert!(self.frames.iter().all(|(.., whole)| !whole), "not examined");
            return;
        };
        assert!(report.is_sound() || !self.is_whole(), "{:?}", report.damage);
        let named = |number: u64| {
            let lost = report.damage.iter().filter_map(|damage| damage.lost);
            lost.clone()
                .any(|(first, last)| (first..=last).contains(&number))
        };
        for &(segment, frame, whole) in &self.frames {
            let proven = segment.lsn(frame.at) < self.proof;
            let there = self.damaged.files.contains_key(&segment.path);
            if whole || !proven || !there || !self.damaged.header_is_good(segment) {
                continue;
            }
            let at = u32::try_from(frame.at).expect("32 bits");
            let reported = report.damage.iter().any(|damage| {
                let resume = damage.resume.unwrap_or(u32::MAX);
                damage.segment == segment.number && damage.offset <= at && at < resume
            });
            // Cut off between two frames: no byte is bad, and a jump of the numbers names it, of
            // events or of control records.
            let cut = self.damaged.files[&segment.path].len() <= frame.at;
            let decisions = report.damage.iter().any(|damage| damage.control_lost);
            assert!(
                reported || cut && (decisions || named(frame.sequence)),
                "damage at {at} of {} unreported",
                segment.path.display()
            );
        }
        let log = self.damaged.log;
        let sealed = |number: &u64| {
            let mut epochs = log.epochs.values();
            epochs.any(|(first, last)| (first..=last).contains(&number))
        };
        // Segments of events that are done with may be deleted.
        let needed = |number: &&u64| !log.done.contains(*number) && !sealed(number);
        for number in self.gone.iter().filter(needed) {
            let mut again = shown.view.epochs.iter().map(|epoch| epoch.range);
            let again = again.any(|range| (range.first.0..=range.last.0).contains(number));
            let left = again || shown.events.contains_key(number);
            assert!(
                left || named(*number),
                "{number} is lost, and verify names it not"
            );
        }
        for number in &self.kept {
            assert!(!named(*number), "verify calls {number} lost");
        }
    }
}

fn number_in(value: &[u8]) -> u64 {
    let text = std::str::from_utf8(value).expect("a number");
    text.parse().expect("a number")
}

fn note_positions(positions: &mut BTreeMap<Vec<u8>, u64>, segment: &Segment, frame: &Frame) {
    let body = &segment.bytes[frame.at + HEADER..frame.body_end];
    let count = u32_at(&segment.bytes, frame.at + 24);
    let parsed = wal_format::PutBody::parse(body, count).expect("a body");
    for (key, value) in parsed.positions().flatten() {
        let known = positions.entry(key.to_vec()).or_default();
        *known = number_in(value).max(*known);
    }
}

impl Damaged<'_> {
    fn is_readable(&self, segment: &Segment, from: usize, to: usize) -> bool {
        let mut bad = self.unreadable.iter();
        !bad.any(|(path, begin, end)| *path == segment.path && *begin < to && from < *end)
    }

    fn is_whole(&self, segment: &Segment, frame: &Frame) -> bool {
        let place = frame.at..frame.body_end;
        let bytes = self.files.get(&segment.path);
        let found = bytes.and_then(|bytes| bytes.get(place.clone()));
        found == Some(&segment.bytes[place.clone()])
            && self.is_readable(segment, place.start, place.end)
    }

    /// Numbers that the header of a frame claims now. Of two frames with right sums and one number
    /// nothing tells which of them lies.
    fn claimed(&self, segment: &Segment, frame: &Frame) -> std::ops::Range<u64> {
        let bytes = self.files.get(&segment.path);
        let Some(header) = bytes.and_then(|bytes| bytes.get(frame.at..frame.at + HEADER)) else {
            return 0..0;
        };
        let sequence = u64::from(u32_at(header, 16)) | u64::from(u32_at(header, 20)) << 32;
        let count = u64::from(u32_at(header, 24)).min(1000);
        sequence..sequence.saturating_add(count)
    }

    fn header_is_good(&self, segment: &Segment) -> bool {
        let good = &segment.bytes[..BLOCK];
        let Some(bytes) = self.files.get(&segment.path) else {
            return false;
        };
        let copies = [0, bytes.len().saturating_sub(BLOCK)];
        copies.iter().any(|&at| {
            bytes.get(at..at + BLOCK) == Some(good) && self.is_readable(segment, at, at + BLOCK)
        })
    }
}
