//! Audits published files by their names alone: every event once, nothing missing, nothing twice.
//!
//! *Place in the flow*: behind `forebay audit` and the agent's closing report. Needs no log and
//! asks nobody but the store for listings, so an outsider can come to the same verdict.
//!
//! *Algorithm*: all names of a channel are sorted by epoch. Each epoch's parts must be 1 to n,
//! each once, and their counts must add up to the epoch's range; the ranges of all epochs must
//! tile the sequence numbers from the channel's first one on. Rejected events, and runs lost to
//! damage, are parts too and count.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::event::{Seq, SeqRange};
use crate::sink::staged::names::{PartKind, PartName};
use crate::sink::staged::store::{FileStore, StoreError};

/// Directory below a base in which rejected and lost events are named.
const REJECTED: &str = "_rejected";

/// Most missing parts that are named for one hole in an epoch.
const MISSING_PARTS_MAX: usize = 1000;

/// Something that should not be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "finding", rename_all = "snake_case")]
pub enum Finding {
    /// No file holds these events.
    Gap {
        /// First missing event.
        first: u64,
        /// Last missing event.
        last: u64,
    },
    /// Two epochs cover the same events.
    Overlap {
        /// First event that is covered twice.
        first: u64,
        /// Last event that is covered twice.
        last: u64,
        /// The epochs.
        epochs: [u64; 2],
    },
    /// Parts of an epoch are missing.
    PartMissing {
        /// The epoch.
        epoch: u64,
        /// Number of the part.
        part: u32,
        /// Parts that the epoch has.
        of: u32,
    },
    /// A part of an epoch is there more than once.
    PartTwice {
        /// The epoch.
        epoch: u64,
        /// Number of the part.
        part: u32,
    },
    /// The names of an epoch disagree on its range or its number of parts.
    Contradiction {
        /// The epoch.
        epoch: u64,
    },
    /// All parts are there, but their counts do not add up to the range.
    WrongCount {
        /// The epoch.
        epoch: u64,
        /// Events that the names count.
        counted: u64,
        /// Events in the range.
        expected: u64,
    },
}

impl Finding {
    /// Whether something is missing that may have been moved away by a reader of the files.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::Gap { .. } | Self::PartMissing { .. })
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Gap { first, last } => write!(f, "gap: events {first} to {last} are in no file"),
            Self::Overlap {
                first,
                last,
                epochs: [a, b],
            } => {
                write!(
                    f,
                    "overlap: events {first} to {last} are in epochs {a} and {b}"
                )
            }
            Self::PartMissing { epoch, part, of } => {
                write!(f, "missing: part {part} of {of} of epoch {epoch}")
            }
            Self::PartTwice { epoch, part } => {
                write!(
                    f,
                    "double: part {part} of epoch {epoch} is there more than once"
                )
            }
            Self::Contradiction { epoch } => {
                write!(f, "contradiction: the names of epoch {epoch} disagree")
            }
            Self::WrongCount {
                epoch,
                counted,
                expected,
            } => write!(
                f,
                "wrong count: the files of epoch {epoch} count {counted} events, its range has \
                 {expected}"
            ),
        }
    }
}

/// What the names of one channel say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ChannelAudit {
    /// First 12 hexadecimal digits of the channel's id.
    pub channel: String,
    /// Published files.
    pub files: u64,
    /// Events in them.
    pub events: u64,
    /// Events that were rejected.
    pub rejected: u64,
    /// Events that were lost to damage and are named as such.
    pub lost: u64,
    /// Epochs.
    pub epochs: u64,
    /// First event that any name covers.
    pub first: u64,
    /// Last event that any name covers.
    pub last: u64,
    /// What is wrong; empty when every event is there once.
    pub findings: Vec<Finding>,
}

impl ChannelAudit {
    /// Whether every event from 1 to `last` is there exactly once.
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }

    /// The verdict in words.
    pub fn verdict(&self) -> String {
        if self.is_sound() {
            return format!("events {} to {}: no gap, no overlap", self.first, self.last);
        }
        let more = self.findings.len().saturating_sub(3);
        let mut words: Vec<String> = self
            .findings
            .iter()
            .take(3)
            .map(Finding::to_string)
            .collect();
        if more > 0 {
            words.push(format!("and {more} more findings"));
        }
        words.join("; ")
    }
}

/// The names of one epoch.
struct EpochNames {
    range: SeqRange,
    parts: u32,
    /// How often each part number was seen.
    seen: BTreeMap<u32, u32>,
    counted: u64,
    agree: bool,
}

/// A channel under audit, with its epochs by number.
type Gathered = (ChannelAudit, BTreeMap<u64, EpochNames>);

/// Audits names; one result for each channel that occurs.
pub fn audit(names: impl IntoIterator<Item = PartName>) -> Vec<ChannelAudit> {
    let mut channels: BTreeMap<String, Gathered> = BTreeMap::new();
    for name in names {
        let (channel, epochs) = channels.entry(name.channel.clone()).or_default();
        match name.kind {
            PartKind::Events => {
                channel.files += 1;
                channel.events = channel.events.saturating_add(name.count);
            }
            PartKind::Reject => channel.rejected = channel.rejected.saturating_add(name.count),
            PartKind::Lost(_) => channel.lost = channel.lost.saturating_add(name.count),
        }
        let epoch = epochs.entry(name.epoch).or_insert_with(|| EpochNames {
            range: name.range,
            parts: name.parts,
            seen: BTreeMap::new(),
            counted: 0,
            agree: true,
        });
        epoch.agree &= epoch.range == name.range && epoch.parts == name.parts;
        epoch.counted = epoch.counted.saturating_add(name.count);
        *epoch.seen.entry(name.part).or_default() += 1;
    }
    let judged = channels.into_iter().map(|(id, (mut channel, epochs))| {
        channel.channel = id;
        channel.epochs = epochs.len() as u64;
        channel.findings = tiling(&epochs);
        channel.findings.extend(
            epochs
                .iter()
                .flat_map(|(number, names)| parts(*number, names)),
        );
        let ranges = || epochs.values().map(|names| names.range);
        channel.first = ranges().map(|range| range.first.0).min().unwrap_or(0);
        channel.last = ranges().map(|range| range.last.0).max().unwrap_or(0);
        channel
    });
    judged.collect()
}

/// Gaps and overlaps between the ranges of epochs.
fn tiling(epochs: &BTreeMap<u64, EpochNames>) -> Vec<Finding> {
    let mut ranges: Vec<(SeqRange, u64)> = epochs
        .iter()
        .map(|(number, names)| (names.range, *number))
        .collect();
    ranges.sort();
    let mut findings = Vec::new();
    // A memory channel counts from 0.
    let begin = if ranges
        .first()
        .is_some_and(|(range, _)| range.first == Seq(0))
    {
        0
    } else {
        1
    };
    let (mut expected, mut before) = (Seq(begin), None);
    for (range, number) in ranges {
        if range.first > expected {
            findings.push(Finding::Gap {
                first: expected.0,
                last: range.first.0 - 1,
            });
        }
        // Event 0 does not exist: before the first epoch nothing can be covered twice.
        if range.first < expected
            && let Some(before) = before
        {
            let last = range.last.0.min(expected.0 - 1);
            let epochs = [before, number];
            findings.push(Finding::Overlap {
                first: range.first.0,
                last,
                epochs,
            });
        }
        if range.last >= expected {
            expected = range.last.next();
            before = Some(number);
        }
    }
    findings
}

/// What is wrong inside one epoch.
fn parts(epoch: u64, names: &EpochNames) -> Vec<Finding> {
    if !names.agree {
        return vec![Finding::Contradiction { epoch }];
    }
    let of = names.parts;
    let outside = names.seen.keys().any(|part| *part == 0 || *part > of);
    if outside {
        return vec![Finding::Contradiction { epoch }];
    }
    let mut findings = Vec::new();
    // The number behind the last part may be one that no part can have.
    let mut next = 1;
    for (part, times) in &names.seen {
        findings.extend(missing(epoch, next..u64::from(*part), of));
        next = u64::from(*part) + 1;
        if *times > 1 {
            findings.push(Finding::PartTwice { epoch, part: *part });
        }
    }
    findings.extend(missing(epoch, next..u64::from(of) + 1, of));
    let expected = names.range.count();
    if findings.is_empty() && names.counted != expected {
        findings.push(Finding::WrongCount {
            epoch,
            counted: names.counted,
            expected,
        });
    }
    findings
}

/// Findings for missing parts. Names come from outside: one that claims four thousand million
/// parts must not cost as many findings.
fn missing(epoch: u64, parts: std::ops::Range<u64>, of: u32) -> impl Iterator<Item = Finding> {
    parts
        .take(MISSING_PARTS_MAX)
        .filter_map(|part| u32::try_from(part).ok())
        .map(move |part| Finding::PartMissing { epoch, part, of })
}

/// All names of ours below a directory: published files, and what `_rejected` names. Directories
/// that begin with `_` or `.` hold nothing that is published.
pub async fn collect_names(store: &dyn FileStore, path: &str) -> Result<Vec<PartName>, StoreError> {
    let mut names = Vec::new();
    let mut open = vec![path.to_owned()];
    while let Some(dir) = open.pop() {
        for info in store.list(&dir).await? {
            let name = info.path.rsplit('/').next().unwrap_or_default();
            let hidden = name.starts_with(['_', '.']);
            if info.is_dir {
                if !hidden || name == REJECTED {
                    open.push(info.path);
                }
            } else if !hidden && let Some(name) = PartName::parse(name) {
                names.push(name);
            }
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(epoch: u64, (part, parts): (u32, u32), range: (u64, u64), count: u64) -> PartName {
        PartName {
            label: "FlumeData-k1".to_owned(),
            channel: "0123456789ab".to_owned(),
            epoch,
            part,
            parts,
            range: SeqRange {
                first: Seq(range.0),
                last: Seq(range.1),
            },
            count,
            kind: PartKind::Events,
            suffix: String::new(),
        }
    }

    fn findings(names: Vec<PartName>) -> Vec<Finding> {
        audit(names).remove(0).findings
    }

    #[test]
    fn ranges_that_tile_with_all_parts_are_sound() {
        let mut reject = part(2, (2, 2), (11, 20), 4);
        reject.kind = PartKind::Reject;
        let names = vec![
            part(2, (1, 2), (11, 20), 6),
            reject,
            part(1, (1, 1), (1, 10), 10),
        ];
        let found = audit(names).remove(0);
        assert!(found.is_sound(), "{:?}", found.findings);
        assert_eq!((found.files, found.events, found.rejected), (2, 16, 4));
        assert_eq!((found.first, found.last, found.epochs), (1, 20, 2));
        assert_eq!(found.verdict(), "events 1 to 20: no gap, no overlap");
    }

    #[test]
    fn a_missing_file_is_found_at_the_front_in_the_middle_and_among_parts() {
        let front = findings(vec![part(2, (1, 1), (11, 20), 10)]);
        assert_eq!(front, [Finding::Gap { first: 1, last: 10 }]);
        let middle = findings(vec![
            part(1, (1, 1), (1, 10), 10),
            part(3, (1, 1), (21, 30), 10),
        ]);
        assert_eq!(
            middle,
            [Finding::Gap {
                first: 11,
                last: 20
            }]
        );
        let among = findings(vec![
            part(1, (1, 3), (1, 10), 3),
            part(1, (3, 3), (1, 10), 3),
        ]);
        assert_eq!(
            among,
            [Finding::PartMissing {
                epoch: 1,
                part: 2,
                of: 3
            }]
        );
    }

    #[test]
    fn what_is_there_twice_is_found_in_ranges_and_in_parts() {
        let ranges = findings(vec![
            part(1, (1, 1), (1, 10), 10),
            part(2, (1, 1), (8, 20), 13),
        ]);
        assert_eq!(
            ranges,
            [Finding::Overlap {
                first: 8,
                last: 10,
                epochs: [1, 2]
            }]
        );
        // The same part in two directories has the same name.
        let parts = findings(vec![
            part(1, (1, 1), (1, 10), 10),
            part(1, (1, 1), (1, 10), 10),
        ]);
        assert_eq!(parts, [Finding::PartTwice { epoch: 1, part: 1 }]);
        let inside = findings(vec![
            part(1, (1, 1), (1, 99), 99),
            part(2, (1, 1), (5, 6), 2),
        ]);
        assert_eq!(
            inside,
            [Finding::Overlap {
                first: 5,
                last: 6,
                epochs: [1, 2]
            }]
        );
    }

    #[test]
    fn names_that_do_not_add_up_are_found() {
        let count = findings(vec![part(1, (1, 1), (1, 10), 9)]);
        assert_eq!(
            count,
            [Finding::WrongCount {
                epoch: 1,
                counted: 9,
                expected: 10
            }]
        );
        let of = findings(vec![
            part(1, (1, 2), (1, 10), 5),
            part(1, (2, 3), (1, 10), 5),
        ]);
        assert_eq!(of, [Finding::Contradiction { epoch: 1 }]);
    }

    #[test]
    fn channels_are_judged_apart() {
        let mut other = part(1, (1, 1), (1, 10), 10);
        other.channel = "ba9876543210".to_owned();
        let found = audit(vec![part(1, (1, 1), (1, 10), 10), other]);
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(ChannelAudit::is_sound));
    }
}
