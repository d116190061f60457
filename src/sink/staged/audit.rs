//! The outside auditor: from nothing but the names of published files, shows that every event of a
//! channel was published once.
//!
//! *Place in the flow*: `forebay audit PATH`, and every test of the publisher. It reads no log and
//! asks no running agent: all that it needs stands in the names (see [`super::names`]).
//!
//! What is checked, for each channel, over all sinks and directories below the path: the ranges of
//! the epochs, sorted by their first number, tile without gap and overlap; the parts of an epoch
//! are numbered 1 to n, each once; their counts add up to the range. Rejected and lost events
//! count and are named. Where the oldest files were taken away the ranges simply begin later; the
//! audit cannot know what came before the first or after the last name. A channel with sinks that
//! are not staged has gaps by nature.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use serde::Serialize;

use super::names::{PartKind, PartName};
use super::store::{FileStore, StoreError};
use crate::event::SeqRange;

/// A run of sequence numbers in a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Run {
    /// First number.
    pub first: u64,
    /// Last number.
    pub last: u64,
}

impl From<SeqRange> for Run {
    fn from(range: SeqRange) -> Self {
        Self {
            first: range.first.0,
            last: range.last.0,
        }
    }
}

/// One channel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ChannelAudit {
    /// First 12 digits of its id.
    pub channel: String,
    /// Epochs seen.
    pub epochs: u64,
    /// Files seen.
    pub files: u64,
    /// Events in published files.
    pub published: u64,
    /// Events in reject parts.
    pub rejected: u64,
    /// Runs that damage has destroyed.
    pub lost: Vec<Run>,
    /// From the first to the last number seen.
    pub covers: Option<Run>,
    /// Numbers that no epoch covers.
    pub missing: Vec<Run>,
    /// Numbers that more than one epoch covers.
    pub double: Vec<Run>,
    /// Epochs whose parts or counts are wrong, in words.
    pub faults: Vec<String>,
}

impl ChannelAudit {
    /// Whether everything is there once.
    pub fn is_clean(&self) -> bool {
        self.missing.is_empty() && self.double.is_empty() && self.faults.is_empty()
    }
}

/// The result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// By channel id.
    pub channels: Vec<ChannelAudit>,
    /// Files whose names are not ours.
    pub other_files: u64,
}

impl Audit {
    /// Whether there is no finding.
    pub fn is_clean(&self) -> bool {
        self.channels.iter().all(ChannelAudit::is_clean)
    }

    /// Judges file names; directories before the last `/` are left out of account.
    pub fn of_names<'a>(paths: impl IntoIterator<Item = &'a str>) -> Self {
        let mut audit = Self::default();
        let mut channels: BTreeMap<String, Vec<PartName>> = BTreeMap::new();
        for path in paths {
            match PartName::parse(path.rsplit('/').next().unwrap_or("")) {
                Some(name) => channels.entry(name.channel.clone()).or_default().push(name),
                None => audit.other_files += 1,
            }
        }
        audit.channels = channels
            .into_iter()
            .map(|(id, names)| judge(id, &names))
            .collect();
        audit
    }

    /// For people.
    ///
    /// # Errors
    /// Writing to `out` has failed.
    pub fn write_human(&self, out: &mut dyn Write) -> std::io::Result<()> {
        for channel in &self.channels {
            let c = channel;
            let covers = c
                .covers
                .map_or_else(String::new, |r| format!(", {}", words(r)));
            writeln!(
                out,
                "channel {}: {} epochs, {} files{covers}: {} events published, {} rejected",
                c.channel, c.epochs, c.files, c.published, c.rejected
            )?;
            for (label, runs) in [
                ("LOST to damage", &c.lost),
                ("MISSING", &c.missing),
                ("DOUBLE", &c.double),
            ] {
                for run in runs {
                    writeln!(out, "  {label}: {} ({} events)", words(*run), count(*run))?;
                }
            }
            for fault in &c.faults {
                writeln!(out, "  FAULT: {fault}")?;
            }
        }
        if self.other_files > 0 {
            writeln!(out, "{} other files", self.other_files)?;
        }
        let verdict = match (self.channels.is_empty(), self.is_clean()) {
            (true, _) => "no published files found",
            (_, true) => "every event is there once",
            _ => "NOT every event is there once",
        };
        writeln!(out, "{verdict}")
    }
}

fn count(run: Run) -> u64 {
    (run.last - run.first).saturating_add(1)
}

fn words(run: Run) -> String {
    format!("sequence numbers {} to {}", run.first, run.last)
}

fn judge(channel: String, names: &[PartName]) -> ChannelAudit {
    let mut audit = ChannelAudit {
        channel,
        ..ChannelAudit::default()
    };
    let mut epochs: BTreeMap<(Run, u64), Vec<&PartName>> = BTreeMap::new();
    for name in names {
        audit.files += 1;
        match name.kind {
            PartKind::Events => audit.published += name.count,
            PartKind::Reject => audit.rejected += name.count,
            PartKind::Lost(run) => audit.lost.push(run.into()),
        }
        epochs
            .entry((name.range.into(), name.epoch))
            .or_default()
            .push(name);
    }
    audit.lost.sort_unstable();
    let mut numbers = BTreeSet::new();
    let mut covered: Option<Run> = None;
    for ((run, epoch), parts) in &epochs {
        audit.epochs += 1;
        if !numbers.insert(*epoch) {
            audit
                .faults
                .push(format!("epoch {epoch} stands for two ranges"));
        }
        if let Some(fault) = part_fault(*run, parts) {
            audit
                .faults
                .push(format!("epoch {epoch}, {}: {fault}", words(*run)));
        }
        let before = covered.map(|c| c.last);
        match before {
            Some(last) if run.first <= last => {
                audit.double.push(Run {
                    first: run.first,
                    last: run.last.min(last),
                });
            }
            Some(last) if run.first > last.saturating_add(1) => {
                audit.missing.push(Run {
                    first: last + 1,
                    last: run.first - 1,
                });
            }
            _ => {}
        }
        covered = Some(Run {
            first: covered.map_or(run.first, |c| c.first),
            last: before.map_or(run.last, |last| last.max(run.last)),
        });
    }
    audit.covers = covered;
    audit
}

fn part_fault(run: Run, parts: &[&PartName]) -> Option<String> {
    let n = parts.first()?.parts;
    if parts.iter().any(|p| p.parts != n) {
        return Some("files disagree on the number of parts".into());
    }
    let mut seen = BTreeSet::new();
    for part in parts {
        if !seen.insert(part.part) {
            return Some(format!("part {} is there twice", part.part));
        }
    }
    let missing: Vec<String> = (1..=n)
        .filter(|k| !seen.contains(k))
        .take(20)
        .map(|k| k.to_string())
        .collect();
    if !missing.is_empty() {
        return Some(format!("of {n} parts, missing: {}", missing.join(", ")));
    }
    if seen.len() != usize::try_from(n).unwrap_or(0) {
        return Some(format!("a part has a number above {n}"));
    }
    let total = parts
        .iter()
        .try_fold(0_u64, |sum, p| sum.checked_add(p.count));
    (total != Some(count(run))).then(|| {
        format!(
            "its files hold {} events of {}",
            total.unwrap_or(u64::MAX),
            count(run)
        )
    })
}

/// Paths of all published and `_rejected` files below `path`; hidden directories are left out.
///
/// # Errors
/// A directory cannot be listed.
pub async fn listing(store: &dyn FileStore, path: &str) -> Result<Vec<String>, StoreError> {
    let mut files = Vec::new();
    let mut todo = vec![path.to_owned()];
    while let Some(dir) = todo.pop() {
        for info in store.list(&dir).await? {
            let name = info.path.rsplit('/').next().unwrap_or("");
            if info.is_dir && (name == "_rejected" || !name.starts_with(['_', '.'])) {
                todo.push(info.path);
            } else if !info.is_dir && !name.starts_with(['_', '.']) {
                files.push(info.path);
            }
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// `forebay audit PATH`: writes the report to `out`; exit code 0, 1 (cannot list) or 5 (findings).
pub async fn run(store: &dyn FileStore, path: &str, out: &mut dyn Write, json: bool) -> u8 {
    let audit = match listing(store, path).await {
        Ok(files) => Audit::of_names(files.iter().map(String::as_str)),
        Err(error) => {
            tracing::error!(%path, %error, "cannot be listed");
            return 1;
        }
    };
    let written = if json {
        serde_json::to_writer_pretty(&mut *out, &audit)
            .map_err(std::io::Error::from)
            .and_then(|()| writeln!(out))
    } else {
        audit.write_human(out)
    };
    match written {
        Err(error) => {
            tracing::error!(%error, "the report cannot be written");
            1
        }
        Ok(()) if audit.is_clean() => 0,
        Ok(()) => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Seq;

    fn name(epoch: u64, (k, n): (u32, u32), (a, b): (u64, u64), count: u64) -> PartName {
        PartName {
            label: "p-k".into(),
            channel: "0123456789ab".into(),
            epoch,
            part: k,
            parts: n,
            range: SeqRange {
                first: Seq(a),
                last: Seq(b),
            },
            count,
            kind: PartKind::Events,
            suffix: ".log".into(),
        }
    }

    fn audit(names: &[PartName]) -> ChannelAudit {
        let names: Vec<String> = names.iter().map(|n| format!("/x/{}", n.render())).collect();
        Audit::of_names(names.iter().map(String::as_str))
            .channels
            .remove(0)
    }

    #[test]
    fn tiling_ranges_over_sinks_and_directories_are_clean() {
        let mut lost = name(3, (2, 2), (10, 19), 4);
        lost.kind = PartKind::Lost(SeqRange {
            first: Seq(12),
            last: Seq(15),
        });
        let mut reject = name(2, (2, 2), (20, 29), 1);
        reject.kind = PartKind::Reject;
        let found = audit(&[
            name(2, (1, 2), (20, 29), 9),
            name(1, (1, 1), (0, 9), 10),
            name(3, (1, 2), (10, 19), 6),
            lost,
            reject,
        ]);
        assert!(found.is_clean(), "{found:?}");
        assert_eq!((found.published, found.rejected), (25, 1));
        assert_eq!(
            found.lost,
            [Run {
                first: 12,
                last: 15
            }]
        );
    }

    #[test]
    fn every_kind_of_fault_is_found() {
        let whole = name(1, (1, 1), (0, 9), 10);
        let cases = [
            (name(2, (1, 1), (11, 20), 10), "missing"),
            (name(2, (1, 1), (9, 20), 12), "double"),
            (name(2, (1, 1), (10, 20), 10), "count"),
            (name(2, (1, 2), (10, 20), 11), "part"),
            (name(1, (1, 1), (10, 20), 11), "epoch"),
            (name(2, (2, 1), (10, 20), 11), "number"),
        ];
        for (second, why) in cases {
            let found = audit(&[whole.clone(), second]);
            assert!(!found.is_clean(), "{why}");
        }
        let twice = audit(&[whole.clone(), whole]);
        assert!(!twice.is_clean(), "the same name in two directories");
    }

    #[test]
    fn an_overlap_inside_a_long_range_is_named_exactly() {
        let found = audit(&[
            name(1, (1, 1), (0, 99), 100),
            name(2, (1, 1), (10, 19), 10),
            name(3, (1, 1), (100, 109), 10),
        ]);
        assert_eq!(
            found.double,
            [Run {
                first: 10,
                last: 19
            }]
        );
        assert!(found.missing.is_empty());
    }
}
