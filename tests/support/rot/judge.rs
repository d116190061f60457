//! What must hold whatever rots in one place of the log: while it is opened and drained, while it
//! is verified, and while it is salvaged.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use forebay::channel::file::examine::{DamageReport, LogReport, examine};
use forebay::channel::file::salvage::{
    PossiblyDelivered, Request, SalvageError, SalvageReport, salvage,
};
use forebay::channel::file::simulation::{Found, LogView, SteppedChannel};
use forebay::channel::{Channel, TakeMode, TakeTransaction, TakenEvent};
use forebay::env::clock::Clock;
use forebay::env::disk::Disk;
use forebay::env::disk_sim::SimDisk;

use wal_format::Record;

use super::log::{Frame, Segment, Truth, data, open_at};

/// What was done to one file.
#[derive(Clone, Debug)]
pub(crate) enum Rot {
    /// One bit.
    Flip { at: usize, bit: u8 },
    /// Bytes are zeros.
    Zero(Range<usize>),
    /// Bytes cannot be read.
    Unreadable(Range<usize>),
}

/// One place that rots.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) path: PathBuf,
    pub(crate) rot: Rot,
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.path.display(), self.rot)
    }
}

impl Case {
    /// The log with the rot in it.
    pub(crate) fn disk(&self, truth: &Truth) -> SimDisk {
        let disk = truth.disk.kill();
        match &self.rot {
            Rot::Flip { at, bit } => disk.flip(&self.path, *at, *bit).unwrap(),
            Rot::Zero(range) => disk.zero(&self.path, range.clone()).unwrap(),
            Rot::Unreadable(range) => {
                let range = range.start as u64..range.end as u64;
                disk.fail_reads(&self.path, range).unwrap();
            }
        }
        disk
    }

    fn range(&self) -> Range<usize> {
        match &self.rot {
            Rot::Flip { at, .. } => *at..at + 1,
            Rot::Zero(range) | Rot::Unreadable(range) => range.clone(),
        }
    }

    /// Whether bytes in `part` are not what they were.
    fn hits(&self, segment: &Segment, part: Range<usize>) -> bool {
        let (from, to) = (
            part.start.max(self.range().start),
            part.end.min(self.range().end),
        );
        from < to
            && match self.rot {
                Rot::Zero(_) => segment.bytes[from..to].iter().any(|byte| *byte != 0),
                _ => true,
            }
    }
}

/// What the rot has hit, and what can be known of it.
struct Hit<'a> {
    truth: &'a Truth,
    segment: Option<&'a Segment>,
    /// Frames that are not whole any more; those that a later open had ended are left out.
    frames: Vec<&'a Frame>,
}

impl<'a> Hit<'a> {
    fn of(case: &Case, truth: &'a Truth) -> Self {
        let segment = truth.segments.iter().find(|s| s.path == case.path);
        let frames = truth.frames.iter().filter(|frame| {
            let inside = segment.filter(|s| s.number == frame.segment && frame.believed);
            inside.is_some_and(|s| case.hits(s, frame.at..frame.end))
        });
        Self {
            truth,
            segment,
            frames: frames.collect(),
        }
    }

    fn is_hit(&self, frame: &Frame) -> bool {
        let same = |f: &&&Frame| f.segment == frame.segment && f.at == frame.at;
        self.frames.iter().any(|f| same(&f))
    }

    /// Whether a frame that is whole says that this one was durable.
    fn proven(&self, frame: &Frame) -> bool {
        let mut whole = self
            .truth
            .frames
            .iter()
            .filter(|f| f.believed && !self.is_hit(f));
        whole.any(|f| f.header.watermark.min(f.lsn()) > frame.lsn())
    }

    /// Events of the hit frames that no other frame holds.
    fn events(&self) -> BTreeSet<u64> {
        let hit: BTreeSet<u64> = self.frames.iter().flat_map(|f| f.sequences()).collect();
        hit.difference(&self.copies()).copied().collect()
    }

    fn proven_events(&self) -> BTreeSet<u64> {
        let proven = self.frames.iter().filter(|f| self.proven(f));
        let hit: BTreeSet<u64> = proven.flat_map(|f| f.sequences()).collect();
        hit.difference(&self.copies()).copied().collect()
    }

    /// Events of whole frames that a later open had ended and copied: the originals of what it
    /// copied. They count again, and must be given, where the same place has taken everything that
    /// told of that end: the Incarnation record and the snapshot that opens the segment.
    fn copies(&self) -> BTreeSet<u64> {
        let told = |f: &&Frame| match &f.record {
            Some(Record::Incarnation(open)) => open.previous.is_some(),
            Some(Record::Snapshot(snapshot)) => {
                // It names its incarnation before that one is in the list.
                snapshot.incarnations.last().map(|(n, _)| *n) != Some(snapshot.incarnation)
                    && f.segment == 3
            }
            _ => false,
        };
        if self
            .truth
            .frames
            .iter()
            .filter(told)
            .any(|f| !self.is_hit(f))
        {
            return BTreeSet::new();
        }
        let ended = self.truth.frames.iter().filter(|f| !f.believed);
        ended.flat_map(|f| f.sequences()).collect()
    }
}

/// How a case was found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// The open named it.
    Open,
    /// Named when the events were taken.
    Take,
    /// It hit nothing that is still needed; verify names it.
    Verify,
    /// The open refused the directory.
    Refused,
    /// It cannot be told from a write that was cut short: possibly acknowledged.
    Possibly,
    /// It left no trace at all: zeros over the whole unproven tail.
    Traceless,
    /// It hit nothing that was ever written.
    Unused,
}

/// What a drain has brought.
struct Drained {
    events: Vec<TakenEvent>,
    named: BTreeSet<u64>,
    view: LogView,
}

/// Takes everything that waits.
fn drain(channel: &SteppedChannel) -> Drained {
    let view = channel.log();
    let dynamic: Arc<dyn Channel> = Arc::clone(channel.channel()) as _;
    let mut take = TakeTransaction::begin(dynamic, TakeMode::Batch).unwrap();
    let (mut events, mut named) = (Vec::new(), BTreeSet::new());
    for _ in 0..1000 {
        let batch = take.take(7, 1 << 20).unwrap();
        if batch.is_empty() {
            let lost = channel.log().lost;
            named.extend(lost.iter().flat_map(|r| r.first.0..=r.last.0));
            return Drained {
                events,
                named,
                view,
            };
        }
        events.extend(batch.events);
        named.extend(batch.lost.iter().flat_map(|r| r.first.0..=r.last.0));
    }
    panic!("takes do not end");
}

/// Opens, drains and verifies the log with one place rotten; panics where a promise is broken.
pub(crate) fn judge(case: &Case, truth: &Truth) -> Outcome {
    let disk = case.disk(truth);
    let hit = Hit::of(case, truth);
    let report = examine(&disk, &[data()], |_, _| {}).unwrap();
    let seen = judge_report(case, &hit, &report);
    let Some(_) = hit.segment else {
        return match open_at(&disk, &truth.clock, data()) {
            // Its digits, or its unused rest.
            Ok(channel) => {
                judge_drained(&hit, channel.found(), &drain(&channel));
                Outcome::Unused
            }
            Err(_) => {
                assert!(
                    !report.is_sound(),
                    "verify is content with what no agent opens"
                );
                Outcome::Refused
            }
        };
    };
    let channel = match open_at(&disk, &truth.clock, data()) {
        Ok(channel) => channel,
        Err(error) => panic!("one place rots and the log does not open: {error}"),
    };
    let drained = drain(&channel);
    let outcome = judge_drained(&hit, channel.found(), &drained);
    match (outcome, seen) {
        (Outcome::Unused, true) => Outcome::Verify,
        (outcome, _) => outcome,
    }
}

fn judge_drained(hit: &Hit<'_>, found: Found, drained: &Drained) -> Outcome {
    let truth = hit.truth;
    let numbers: Vec<u64> = drained.events.iter().map(|e| e.seq.0).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "order: {numbers:?}");
    for taken in &drained.events {
        let written = truth.events.get(&taken.seq.0);
        assert_eq!(Some(&taken.event), written, "a wrong event {}", taken.seq);
    }
    let given: BTreeSet<u64> = numbers.into_iter().collect();
    let waiting: BTreeSet<u64> = truth.waiting.iter().copied().collect();
    let (events, proven) = (hit.events(), hit.proven_events());
    let missing: BTreeSet<u64> = waiting.difference(&given).copied().collect();
    assert!(
        missing.is_subset(&events),
        "whole and not given: {missing:?}"
    );
    for n in &missing {
        let named = drained.named.contains(n);
        assert!(
            named || !proven.contains(n),
            "event {n} vanished in silence"
        );
        assert!(
            named || *n >= drained.view.next_sequence,
            "event {n} is neither given nor named"
        );
    }
    assert!(drained.named.is_subset(&events), "whole and called lost");
    judge_decisions(hit, &found, drained, &given, &waiting);

    let proven_here = |f: &&&Frame| hit.proven(f) && f.segment == 3;
    if hit.frames.iter().any(|f| proven_here(&f)) {
        assert!(!found.damage.is_empty(), "the open is silent: {found:?}");
    }
    if hit.frames.iter().any(|f| !hit.proven(f)) {
        return match found.torn {
            Some(_) => Outcome::Possibly,
            None if hit.frames.iter().any(|f| hit.proven(f)) => Outcome::Open,
            None => Outcome::Traceless,
        };
    }
    match (found.damage.is_empty(), missing.is_empty()) {
        (false, _) => Outcome::Open,
        (true, false) => Outcome::Take,
        (true, true) => Outcome::Unused,
    }
}

/// Acknowledgements, epochs and read positions are what they were, or a lost decision is reported.
fn judge_decisions(
    hit: &Hit<'_>,
    found: &Found,
    drained: &Drained,
    given: &BTreeSet<u64>,
    waiting: &BTreeSet<u64>,
) {
    let (truth, view) = (hit.truth, &drained.view);
    let numbered: Vec<_> = hit.frames.iter().filter(|f| f.is_numbered()).collect();
    let doubtful = view.control_lost || found.torn.is_some();
    if view.control_lost {
        assert!(!numbered.is_empty(), "no decision is lost");
    }
    let again: BTreeSet<u64> = given.difference(waiting).copied().collect();
    assert!(again.is_empty() || doubtful, "delivered again: {again:?}");
    let epochs: Vec<_> = view
        .epochs
        .iter()
        .map(|e| (e.epoch, e.claimed, e.range.first.0, e.range.last.0))
        .collect();
    assert!(epochs == truth.epochs || doubtful, "epochs {epochs:?}");
    let positions: Vec<(String, String)> = view
        .positions
        .iter()
        .map(|p| {
            (
                p.key.clone(),
                String::from_utf8_lossy(&p.value).into_owned(),
            )
        })
        .collect();
    for (position, (key, newest)) in positions.iter().zip(&truth.positions) {
        let number = |text: &str| text.parse::<u64>().unwrap();
        assert_eq!(position.0, *key);
        assert!(number(&position.1) <= number(newest), "{position:?}");
    }
    let puts_are_whole = hit.events().is_empty();
    assert!(
        positions == truth.positions || !puts_are_whole,
        "positions {positions:?}"
    );
}

/// Whether verify has reported something; panics where it must have.
fn judge_report(case: &Case, hit: &Hit<'_>, report: &LogReport) -> bool {
    let lost: BTreeSet<u64> = report
        .damage
        .iter()
        .filter_map(|d| d.lost)
        .flat_map(|(first, last)| first..=last)
        .collect();
    assert!(
        lost.is_subset(&hit.events()),
        "whole and called lost: {lost:?}"
    );
    let proven = hit.proven_events();
    assert!(
        proven.is_subset(&lost),
        "lost in silence: {proven:?} {report:?}"
    );
    let decision = |f: &&&Frame| f.is_numbered() && hit.proven(f);
    if hit.frames.iter().any(|f| decision(&f)) {
        let said = report.damage.iter().any(|d| d.control_lost);
        assert!(said, "a decision is lost in silence: {report:?}");
    }
    let other_copy = |d: &DamageReport| d.why.contains("its other copy is good");
    let has_other = hit.segment.is_some_and(|s| s.two_headers);
    assert!(
        has_other || !report.damage.iter().any(other_copy),
        "it has no other copy: {:?}",
        report.damage
    );
    let torn = report.segments.iter().any(|s| s.torn_bytes > 0);
    let Some(segment) = hit.segment else {
        return !report.is_sound();
    };
    let sound = report.is_sound();
    if hit.frames.iter().any(|f| hit.proven(f)) || rotten_outside_frames(case, segment, hit.truth) {
        assert!(!sound, "verify is content: {report:?}");
    } else {
        assert!(
            sound,
            "nothing below the watermark rots: {:?}",
            report.damage
        );
    }
    torn || !sound
}

/// Header copies, the padding of frames, the zeros behind a seal.
fn rotten_outside_frames(case: &Case, segment: &Segment, truth: &Truth) -> bool {
    let len = segment.bytes.len();
    let second = segment.two_headers.then_some(len - 4096..len);
    let mut parts: Vec<_> = std::iter::once(0..4096).chain(second).collect();
    let padding = truth
        .frames
        .iter()
        .filter(|f| f.segment == segment.number && f.believed);
    // What cannot be read is damage of the frame in front of it, or of none.
    if !matches!(case.rot, Rot::Unreadable(_)) {
        parts.extend(padding.map(|f| f.end..f.next));
        if segment.sealed {
            parts.push(segment.end..len - 4096);
        }
    }
    parts.into_iter().any(|part| case.hits(segment, part))
}

pub(crate) fn salvaged_to() -> PathBuf {
    PathBuf::from("/salvaged/c1")
}

/// Salvages; the damaged log must be what it was.
pub(crate) fn salvage_from(
    disk: &SimDisk,
    truth: &Truth,
    choice: PossiblyDelivered,
) -> Result<SalvageReport, SalvageError> {
    let request = Request {
        dirs: vec![data()],
        to: salvaged_to(),
        possibly_delivered: choice,
    };
    let content = |disk: &SimDisk| -> Vec<(PathBuf, Vec<u8>)> {
        let old = disk.files().into_iter().filter(|p| p.starts_with(data()));
        old.map(|p| (p.clone(), disk.content(&p).unwrap()))
            .collect()
    };
    let before = content(disk);
    let clock: Arc<dyn Clock> = Arc::clone(&truth.clock) as _;
    let port: Arc<dyn Disk> = Arc::new(disk.clone());
    let report = salvage(&port, &clock, &request, |_, _| {});
    assert!(content(disk) == before, "the damaged log was changed");
    report
}

/// Events of which a decision stood in a part of the log's end that has become zeros, or has gone
/// with its file: nothing can show that there ever was one.
fn traceless(disk: &SimDisk, truth: &Truth) -> BTreeSet<u64> {
    let mut events = BTreeSet::new();
    for frame in truth.frames.iter().rev() {
        let segment = &truth.segments[frame.segment as usize];
        let bytes = disk.content(&segment.path).unwrap_or_default();
        let frames_end = segment.end.min(bytes.len());
        let rest = bytes.get(frame.at..frames_end).unwrap_or_default();
        if rest.iter().any(|byte| *byte != 0) {
            break;
        }
        let ranges = match &frame.record {
            Some(Record::Ack(ranges)) => ranges.clone(),
            Some(Record::Seal(epoch) | Record::Claimed(epoch)) => vec![epoch.range],
            // Whatever is not in an older segment.
            Some(Record::Done { .. } | Record::Snapshot(_)) => {
                vec![wal_format::Range { first: 1, last: 23 }]
            }
            _ => Vec::new(),
        };
        events.extend(ranges.iter().flat_map(|r| r.first..=r.last));
    }
    events
}

/// Salvages the log with any number of places rotten and judges what comes of it.
pub(crate) fn judge_salvage(
    disk: &SimDisk,
    truth: &Truth,
    choice: PossiblyDelivered,
) -> SalvageReport {
    let report = salvage_from(disk, truth, choice).unwrap_or_else(|e| panic!("{e}"));
    judge_salvaged(disk, truth, report)
}

/// Checks a report against what was written, and the new channel against the report.
pub(crate) fn judge_salvaged(
    disk: &SimDisk,
    truth: &Truth,
    report: SalvageReport,
) -> SalvageReport {
    let mut fates: Vec<(u64, &str)> = Vec::new();
    let mut note = |first: u64, last: u64, fate| fates.extend((first..=last).map(|n| (n, fate)));
    report
        .kept
        .iter()
        .for_each(|r| note(r.first, r.last, "kept"));
    report
        .lost
        .iter()
        .for_each(|r| note(r.first, r.last, "lost"));
    report
        .delivered
        .iter()
        .for_each(|r| note(r.first, r.last, "delivered"));
    report
        .unknown
        .iter()
        .for_each(|r| note(r.first, r.last, "unknown"));
    report
        .left_out
        .iter()
        .for_each(|r| note(r.first, r.last, "left out"));
    fates.sort_unstable();
    let numbers: Vec<u64> = fates.iter().map(|(n, _)| *n).collect();
    assert_eq!(
        numbers,
        (1..report.next_sequence).collect::<Vec<_>>(),
        "one fate each: {fates:?}"
    );
    let possibly: BTreeSet<u64> = report
        .possibly_delivered
        .iter()
        .flat_map(|p| p.first..=p.last)
        .collect();
    let traceless = traceless(disk, truth);
    for (n, fate) in fates.iter().filter(|(n, _)| !traceless.contains(n)) {
        let truly = truth.delivered.contains(n);
        assert!(
            *fate != "delivered" || truly,
            "event {n} was never delivered"
        );
        let may_come_twice = *fate == "kept" && truly && !possibly.contains(n);
        assert!(
            !may_come_twice,
            "event {n} was delivered, and nobody says so"
        );
        let claimed = truth
            .epochs
            .iter()
            .any(|(_, c, a, b)| *c && (a..=b).contains(&n));
        let silent = claimed && *fate == "kept" && !possibly.contains(n);
        assert!(!silent, "event {n} may have its file, and nobody says so");
    }
    judge_new_channel(disk, truth, &report);
    report
}

fn judge_new_channel(disk: &SimDisk, truth: &Truth, report: &SalvageReport) {
    let channel = open_at(disk, &truth.clock, salvaged_to()).unwrap();
    let drained = drain(&channel);
    assert!(drained.named.is_empty() && channel.found() == Found::default());
    assert!(drained.view.epochs.is_empty() && !drained.view.control_lost);
    let mut kept = report
        .kept
        .iter()
        .flat_map(|run| (run.first..=run.last).zip(run.new_first..));
    let mut count = 0;
    for taken in &drained.events {
        let (old, new) = kept.next().expect("more events than the report names");
        assert_eq!(taken.seq.0, new, "its number in the new channel");
        assert_eq!(
            Some(&taken.event),
            truth.events.get(&old),
            "a wrong event {old}"
        );
        count += 1;
    }
    assert_eq!(
        kept.next(),
        None,
        "the report names more than {count} events"
    );
    for position in &drained.view.positions {
        let newest = truth.positions.iter().find(|(key, _)| *key == position.key);
        let value = String::from_utf8_lossy(&position.value).into_owned();
        let number = |text: &str| text.parse::<u64>().unwrap();
        assert!(
            number(&value) <= number(&newest.unwrap().1),
            "a position nobody wrote"
        );
    }
}
