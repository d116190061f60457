//! Compares what the names of published files say with what the log says.
//!
//! *Place in the flow*: behind `forebay audit --log`, after [`super::audit`] has judged the names
//! alone. Pure: two looks at the log, and the names that were listed between them.
//!
//! *Algorithm*: a running agent moves events one way only: waiting, sealed, published, done. So
//! whatever the log called done *before* the listing must be in a file, and whatever is in a file
//! must be sealed or done in the log *after* it. Anything else is a finding, agent or not.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::audit::{ChannelAudit, Finding};
use crate::channel::EpochRecord;
use crate::channel::file::peek::Standing;
use crate::channel::queue::ranges::{RangeSet, end_of};
use crate::event::{Seq, SeqRange};
use crate::sink::staged::names::PartName;

/// Something on which log and store do not agree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "finding", rename_all = "snake_case")]
pub enum LogFinding {
    /// The files belong to other channels.
    OtherChannel {
        /// Channels whose files were found.
        found: Vec<String>,
    },
    /// The log says done, no file has them.
    Missing {
        /// First event.
        first: u64,
        /// Last event.
        last: u64,
    },
    /// In a file, and the log would publish them again.
    Double {
        /// First event.
        first: u64,
        /// Last event.
        last: u64,
        /// The epoch whose files hold them.
        epoch: u64,
        /// The epoch under which the log has sealed them again; none: they wait.
        sealed_as: Option<u64>,
    },
    /// In a file, but the log has not given these numbers: it is older than the store.
    Ahead {
        /// The epoch.
        epoch: u64,
        /// Its first event.
        first: u64,
        /// Its last event.
        last: u64,
    },
    /// Damaged in the log before they were published; in no file.
    Lost {
        /// First event.
        first: u64,
        /// Last event.
        last: u64,
    },
    /// Damage of the log may hide a decision about published files.
    DecisionLost,
}

impl std::fmt::Display for LogFinding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::OtherChannel { found } => write!(
                f,
                "another channel: no file is of this log's channel; found: {}",
                found.join(", ")
            ),
            Self::Missing { first, last } => write!(
                f,
                "missing: events {first} to {last} are done in the log and in no file here (moved \
                 away, in a PATH that was not given, or taken by a sink without files)"
            ),
            Self::Double {
                first,
                last,
                epoch,
                sealed_as: None,
            } => write!(
                f,
                "double: events {first} to {last} are in the files of epoch {epoch} and wait in \
                 the log: they would be published again"
            ),
            Self::Double {
                first,
                last,
                epoch,
                sealed_as: Some(again),
            } => write!(
                f,
                "double: events {first} to {last} are in the files of epoch {epoch} and the log \
                 has sealed them as epoch {again}: they would be published again"
            ),
            Self::Ahead { epoch, first, last } => write!(
                f,
                "ahead: epoch {epoch} (events {first} to {last}) is published, but this log has \
                 not given these numbers: it is an old copy"
            ),
            Self::Lost { first, last } => write!(
                f,
                "lost: events {first} to {last} are damaged in the log and in no file"
            ),
            Self::DecisionLost => f.write_str(
                "damage may hide a decision about published files; staged sinks halt until \
                 `forebay resolve damage`",
            ),
        }
    }
}

/// An epoch that is sealed and not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OpenEpoch {
    /// Its number.
    pub epoch: u64,
    /// Its first event.
    pub first: u64,
    /// Its last event.
    pub last: u64,
    /// The sink that sealed it.
    pub sink: String,
    /// URI of the store.
    pub store: String,
    /// Directory of the sink's staging.
    pub base: String,
    /// Whether its number is taken in the store.
    pub claimed: bool,
    /// Files it has.
    pub parts: usize,
    /// Files of it that stand under their final names.
    pub published: usize,
}

/// What the comparison says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LogAudit {
    /// First 12 hexadecimal digits of the id of the log's channel.
    pub channel: String,
    /// Next sequence number of the log.
    pub next_sequence: u64,
    /// Events that are done in the log and in a file.
    pub published: u64,
    /// Events in epochs that are sealed and not done.
    pub sealed: u64,
    /// Events that no epoch holds yet.
    pub waiting: u64,
    /// Ranges that a sink without files has acknowledged, as far as the log still names them.
    pub taken_without_files: Vec<(u64, u64)>,
    /// Epochs that are sealed and not done.
    pub epochs: Vec<OpenEpoch>,
    /// What is wrong.
    pub findings: Vec<LogFinding>,
}

/// The log at two moments, and what a full read of it has found.
#[derive(Debug)]
pub struct LogFacts {
    /// Before the names were listed.
    pub before: Standing,
    /// After the names were listed.
    pub after: Standing,
    /// Events that damage has made unreadable.
    pub damaged: Vec<SeqRange>,
    /// Events that a sink without files has acknowledged.
    pub taken: Vec<SeqRange>,
}

/// Compares the log with the names of all channels that were found.
pub fn compare(log: &LogFacts, names: &[PartName]) -> LogAudit {
    let after = &log.after;
    let own: Vec<&PartName> = names
        .iter()
        .filter(|n| n.channel == after.channel)
        .collect();
    let epochs: BTreeMap<u64, SeqRange> = own.iter().map(|n| (n.epoch, n.range)).collect();
    let published: RangeSet = epochs.values().copied().collect();
    let (done_before, done): (RangeSet, RangeSet) = (set(&log.before.done), set(&after.done));
    let sealed: RangeSet = after.epochs.iter().map(|e| e.range).collect();
    let lost = lost(log, &[&done, &sealed, &published]);
    let mut waiting = RangeSet::default();
    waiting.insert(1, after.next_sequence.0);
    for gone in [&done, &sealed, &lost] {
        subtract(&mut waiting, gone);
    }
    let mut missing = done_before;
    subtract(&mut missing, &published);
    subtract(&mut missing, &set(&log.taken));

    let mut findings = other_channels(&own, names);
    if after.control_lost {
        findings.push(LogFinding::DecisionLost);
    }
    findings.extend(missing.to_vec().iter().map(|r| LogFinding::Missing {
        first: r.first.0,
        last: r.last.0,
    }));
    findings.extend(doubles(&epochs, after, &waiting));
    findings.extend(lost.to_vec().iter().map(|r| LogFinding::Lost {
        first: r.first.0,
        last: r.last.0,
    }));
    let mut done_in_files = done;
    let mut elsewhere = done_in_files.clone();
    subtract(&mut elsewhere, &published);
    subtract(&mut done_in_files, &elsewhere);
    let pairs = |ranges: &[SeqRange]| ranges.iter().map(|r| (r.first.0, r.last.0)).collect();
    LogAudit {
        channel: after.channel.clone(),
        next_sequence: after.next_sequence.0,
        published: done_in_files.count(),
        sealed: sealed.count(),
        waiting: waiting.count(),
        taken_without_files: pairs(&log.taken),
        epochs: after.epochs.iter().map(|e| open_epoch(e, &own)).collect(),
        findings,
    }
}

/// Takes back what the names alone made of events that the log accounts for: a gap is missing,
/// sealed, waiting or lost, and parts of an epoch that is not done may still be on their way.
pub fn explain(audits: &mut [ChannelAudit], log: &LogFacts) {
    let open: BTreeSet<u64> = [&log.before, &log.after]
        .iter()
        .flat_map(|standing| standing.epochs.iter().map(|e| e.epoch))
        .collect();
    let own = audits.iter_mut().filter(|a| a.channel == log.after.channel);
    for audit in own {
        audit.findings.retain(|finding| match finding {
            Finding::Gap { .. } => false,
            Finding::PartMissing { epoch, .. } => !open.contains(epoch),
            _ => true,
        });
    }
}

fn set(ranges: &[SeqRange]) -> RangeSet {
    ranges.iter().copied().collect()
}

fn subtract(from: &mut RangeSet, what: &RangeSet) {
    what.iter().for_each(|(first, end)| from.remove(first, end));
}

/// What neither the log nor a file can give any more.
fn lost(log: &LogFacts, safe: &[&RangeSet]) -> RangeSet {
    let mut lost = set(&log.after.lost);
    lost.extend(log.damaged.iter().copied());
    lost.remove(log.after.next_sequence.0, u64::MAX);
    safe.iter().for_each(|safe| subtract(&mut lost, safe));
    lost
}

fn other_channels(own: &[&PartName], names: &[PartName]) -> Vec<LogFinding> {
    let found: BTreeSet<&String> = names.iter().map(|n| &n.channel).collect();
    if !own.is_empty() || found.is_empty() {
        return Vec::new();
    }
    let found = found.into_iter().cloned().collect();
    vec![LogFinding::OtherChannel { found }]
}

/// Published epochs that the log neither calls done nor is about to finish.
fn doubles(
    epochs: &BTreeMap<u64, SeqRange>,
    log: &Standing,
    waiting: &RangeSet,
) -> Vec<LogFinding> {
    let mut findings = Vec::new();
    for (&epoch, &range) in epochs {
        if range.last >= log.next_sequence || epoch >= log.next_epoch {
            findings.push(LogFinding::Ahead {
                epoch,
                first: range.first.0,
                last: range.last.0,
            });
        }
        for (first, end) in waiting.within(range.first.0, end_of(range)) {
            findings.push(LogFinding::Double {
                first,
                last: end - 1,
                epoch,
                sealed_as: None,
            });
        }
        for other in log.epochs.iter().filter(|e| e.epoch != epoch) {
            let first = range.first.max(other.range.first);
            let last = range.last.min(other.range.last);
            if let Some(both) = SeqRange::new(first, last) {
                findings.push(LogFinding::Double {
                    first: both.first.0,
                    last: both.last.0,
                    epoch,
                    sealed_as: Some(other.epoch),
                });
            }
        }
    }
    findings
}

fn open_epoch(record: &EpochRecord, own: &[&PartName]) -> OpenEpoch {
    let there: BTreeSet<u32> = own
        .iter()
        .filter(|name| name.epoch == record.epoch)
        .map(|name| name.part)
        .collect();
    let SeqRange { first, last } = record.range;
    OpenEpoch {
        epoch: record.epoch,
        first: first.0,
        last: last.0,
        sink: record.sink.clone(),
        store: record.store.clone(),
        base: record.base.clone(),
        claimed: record.claimed,
        parts: record.parts.len(),
        published: there.len(),
    }
}

/// The comparison for eyes.
pub fn human(audit: &LogAudit, shown_max: usize) -> String {
    let LogAudit {
        channel,
        next_sequence,
        published,
        sealed,
        waiting,
        ..
    } = audit;
    let mut text = format!(
        "log of channel {channel}, next event {next_sequence}: {published} events done and \
         published, {sealed} sealed, {waiting} waiting"
    );
    for (first, last) in audit.taken_without_files.iter().take(shown_max) {
        text += &format!("\n  events {first} to {last} were taken by a sink without files");
    }
    for epoch in audit.epochs.iter().take(shown_max) {
        text += &format!("\n  {}", epoch_line(epoch));
    }
    if audit.epochs.len() > shown_max {
        text += &format!("\n  and {} more epochs", audit.epochs.len() - shown_max);
    }
    for finding in audit.findings.iter().take(shown_max) {
        text += &format!("\n  {finding}");
    }
    if audit.findings.len() > shown_max {
        text += &format!("\n  and {} more findings", audit.findings.len() - shown_max);
    }
    if audit.findings.is_empty() {
        text += "\n  log and files agree";
    }
    text
}

fn epoch_line(epoch: &OpenEpoch) -> String {
    let state = if epoch.claimed {
        "sealed and claimed"
    } else {
        "sealed"
    };
    format!(
        "epoch {}, events {} to {}, {state} by {} in {}{}: {} of {} files published; the agent \
         finishes it",
        epoch.epoch,
        epoch.first,
        epoch.last,
        epoch.sink,
        epoch.store,
        epoch.base,
        epoch.published,
        epoch.parts
    )
}

/// Both ends of the ranges that a full read of the log has named, where they make a range.
pub fn ranges(pairs: impl IntoIterator<Item = (u64, u64)>) -> Vec<SeqRange> {
    let pairs = pairs.into_iter();
    pairs
        .filter_map(|(first, last)| SeqRange::new(Seq(first), Seq(last)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::staged::names::PartKind;

    const CHANNEL: &str = "0123456789ab";

    fn range(first: u64, last: u64) -> SeqRange {
        SeqRange::new(Seq(first), Seq(last)).unwrap()
    }

    fn file(epoch: u64, (first, last): (u64, u64)) -> PartName {
        PartName {
            label: "x-k1".to_owned(),
            channel: CHANNEL.to_owned(),
            epoch,
            part: 1,
            parts: 1,
            range: range(first, last),
            count: last - first + 1,
            kind: PartKind::Events,
            suffix: String::new(),
        }
    }

    /// A log with 100 events given; `done` are done, epoch `n` of `sealed` is sealed.
    fn log(done: &[(u64, u64)], sealed: &[(u64, (u64, u64))]) -> Standing {
        let epoch = |&(epoch, (first, last)): &(u64, (u64, u64))| EpochRecord {
            epoch,
            range: range(first, last),
            sink: "k1".into(),
            store: "file://".into(),
            base: "/out".into(),
            attempt: "/out/_staging/x".into(),
            parts: Vec::new(),
            claimed: true,
        };
        Standing {
            channel: CHANNEL.to_owned(),
            next_sequence: Seq(101),
            next_epoch: 9,
            done: done.iter().map(|&(f, l)| range(f, l)).collect(),
            epochs: sealed.iter().map(epoch).collect(),
            lost: Vec::new(),
            control_lost: false,
        }
    }

    fn facts(before: Standing, after: Standing) -> LogFacts {
        LogFacts {
            before,
            after,
            damaged: Vec::new(),
            taken: Vec::new(),
        }
    }

    fn still(standing: &Standing) -> LogFacts {
        facts(standing.clone(), standing.clone())
    }

    #[test]
    fn a_log_whose_done_events_are_in_files_agrees() {
        let standing = log(&[(1, 40)], &[(3, (41, 60))]);
        let names = [file(1, (1, 20)), file(2, (21, 40)), file(3, (41, 60))];
        let audit = compare(&still(&standing), &names);
        assert_eq!(audit.findings, []);
        assert_eq!((audit.published, audit.sealed, audit.waiting), (40, 20, 40));
        assert_eq!((audit.epochs[0].epoch, audit.epochs[0].published), (3, 1));
    }

    #[test]
    fn what_is_done_and_in_no_file_is_missing_unless_a_sink_without_files_took_it() {
        let standing = log(&[(1, 40)], &[]);
        let mut facts = still(&standing);
        let names = [file(1, (1, 20)), file(3, (31, 40))];
        let missing = |first, last| LogFinding::Missing { first, last };
        assert_eq!(compare(&facts, &names).findings, [missing(21, 30)]);
        facts.taken = vec![range(21, 25)];
        assert_eq!(compare(&facts, &names).findings, [missing(26, 30)]);
        assert_eq!(
            compare(&facts, &[]).findings,
            [missing(1, 20), missing(26, 40)]
        );
    }

    #[test]
    fn what_is_in_a_file_and_waits_or_is_sealed_anew_would_be_double() {
        let standing = log(&[(1, 20)], &[(3, (21, 30))]);
        let names = [file(1, (1, 20)), file(2, (26, 45))];
        let double = |first, last, sealed_as| LogFinding::Double {
            first,
            last,
            epoch: 2,
            sealed_as,
        };
        assert_eq!(
            compare(&still(&standing), &names).findings,
            [double(31, 45, None), double(26, 30, Some(3))]
        );
    }

    #[test]
    fn a_store_that_knows_more_than_the_log_is_ahead_of_it() {
        let standing = log(&[(1, 100)], &[]);
        let ahead = |epoch, first, last| LogFinding::Ahead { epoch, first, last };
        let names = [file(1, (1, 100)), file(2, (101, 120))];
        assert_eq!(
            compare(&still(&standing), &names).findings,
            [ahead(2, 101, 120)]
        );
        let names = [file(9, (1, 100))];
        assert_eq!(
            compare(&still(&standing), &names).findings,
            [ahead(9, 1, 100)]
        );
    }

    #[test]
    fn what_an_agent_does_between_the_two_looks_is_no_finding() {
        // Before: 1 to 20 done, 21 to 40 sealed. The listing sees 21 to 40 and 41 to 60 in files.
        // After: all of them done, 61 to 80 sealed.
        let before = log(&[(1, 20)], &[(2, (21, 40))]);
        let after = log(&[(1, 60)], &[(4, (61, 80))]);
        let names = [file(1, (1, 20)), file(2, (21, 40)), file(3, (41, 60))];
        assert_eq!(compare(&facts(before, after), &names).findings, []);
        // Done after the listing: not in a listed file, and not missing.
        let (before, after) = (log(&[(1, 20)], &[]), log(&[(1, 40)], &[]));
        assert_eq!(compare(&facts(before, after), &names[..1]).findings, []);
    }

    #[test]
    fn damage_counts_only_where_neither_a_file_nor_an_epoch_has_the_events() {
        let mut standing = log(&[(1, 20)], &[(2, (21, 30))]);
        standing.lost = vec![range(90, 91)];
        let mut facts = still(&standing);
        facts.damaged = vec![range(15, 50), range(99, 200)];
        let audit = compare(&facts, &[file(1, (1, 20))]);
        let lost = |first, last| LogFinding::Lost { first, last };
        assert_eq!(audit.findings, [lost(31, 50), lost(90, 91), lost(99, 100)]);
        assert_eq!(audit.waiting, 100 - 30 - 20 - 2 - 2);
        standing.control_lost = true;
        let audit = compare(&still(&standing), &[file(1, (1, 20))]);
        assert_eq!(audit.findings[0], LogFinding::DecisionLost);
    }

    #[test]
    fn files_of_another_channel_are_named() {
        let standing = log(&[], &[]);
        let mut other = file(1, (1, 20));
        other.channel = "ba9876543210".to_owned();
        let found = vec![other.channel.clone()];
        let audit = compare(&still(&standing), &[other.clone()]);
        assert_eq!(audit.findings, [LogFinding::OtherChannel { found }]);
        let standing = log(&[(1, 20)], &[]);
        let audit = compare(&still(&standing), &[other, file(1, (1, 20))]);
        assert_eq!(audit.findings, []);
    }

    #[test]
    fn gaps_and_unfinished_epochs_are_left_to_the_log_and_doubles_are_not() {
        let mut channel = ChannelAudit {
            channel: CHANNEL.to_owned(),
            ..ChannelAudit::default()
        };
        let part = |epoch| Finding::PartMissing {
            epoch,
            part: 1,
            of: 2,
        };
        let twice = Finding::PartTwice { epoch: 1, part: 1 };
        let gap = Finding::Gap { first: 1, last: 2 };
        channel.findings = vec![gap.clone(), part(3), part(1), twice.clone()];
        let other = ChannelAudit {
            channel: "ba9876543210".to_owned(),
            findings: vec![gap.clone()],
            ..ChannelAudit::default()
        };
        let mut audits = [channel, other];
        explain(&mut audits, &still(&log(&[(1, 2)], &[(3, (3, 4))])));
        assert_eq!(audits[0].findings, [part(1), twice]);
        assert_eq!(audits[1].findings, [gap]);
    }
}
