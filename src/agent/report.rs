//! The closing report: how many lines in how many files, and what an audit of their names says.
//!
//! *Place in the flow*: printed to stderr after the last flow has ended. It only reads listings;
//! a store that does not answer in time is named and nothing else.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use crate::sink::staged::names::PartName;
use crate::sink::staged::store::{FileStore, StoreError};
use crate::sink::staged::store_hdfs::HdfsOptions;
use crate::sink::staged::store_open::{open_store, split_target};
use crate::tools::audit::{ChannelAudit, Finding, audit, collect_names};

/// How long all listings together may take: the agent is about to end.
const LIST_WITHIN: Duration = Duration::from_secs(10);

/// Where one staged sink publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Published {
    /// Name of the channel.
    pub(super) channel: String,
    /// A directory below which files are published or named, `file:///..` or `hdfs://..`.
    pub(super) dir: String,
}

impl Published {
    fn is_inside(&self, outer: &Self) -> bool {
        let inside = self.dir.strip_prefix(&outer.dir);
        self.channel == outer.channel
            && inside.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// What the closing report looks at.
#[derive(Clone, Debug, Default)]
pub(super) struct Report {
    pub(super) targets: Vec<Published>,
    /// Hadoop's configuration, from the command line.
    pub(super) hadoop: Option<PathBuf>,
}

impl Report {
    /// Prints one line for each channel; false where something is there twice or contradicts
    /// itself. What is missing does not count: a reader may have moved files away.
    pub(super) async fn print(&self, err: &mut dyn Write) -> bool {
        let mut targets = self.targets.clone();
        targets.sort_by(|a, b| (&a.channel, &a.dir).cmp(&(&b.channel, &b.dir)));
        targets.dedup();
        // What lies inside another directory is listed with it.
        let all = targets.clone();
        targets.retain(|one| !all.iter().any(|other| other != one && one.is_inside(other)));
        let mut sound = true;
        for group in targets.chunk_by(|a, b| a.channel == b.channel) {
            let listed = tokio::time::timeout(LIST_WITHIN, self.list(group)).await;
            let line = match listed {
                Ok(Ok(names)) => {
                    let audits = audit(names);
                    let mut findings = audits.iter().flat_map(|audit| &audit.findings);
                    sound &= findings.all(Finding::is_absence);
                    lines(&audits)
                }
                Ok(Err(error)) => format!("not audited: {error}"),
                Err(_) => format!("not audited: no listing within {LIST_WITHIN:?}"),
            };
            let dirs: Vec<&str> = group.iter().map(|target| target.dir.as_str()).collect();
            // Nobody is left to tell when stderr is gone.
            drop(writeln!(
                err,
                "channel {}: {}: {line}",
                group[0].channel,
                dirs.join(", ")
            ));
        }
        sound
    }

    async fn list(&self, targets: &[Published]) -> Result<Vec<PartName>, StoreError> {
        let mut names = Vec::new();
        for target in targets {
            let (_, path) = split_target(&target.dir)?;
            let options = HdfsOptions::default();
            let store = open_store(&target.dir, self.hadoop.clone(), options)?;
            names.extend(collect_names(store.as_ref() as &dyn FileStore, &path).await?);
        }
        Ok(names)
    }
}

/// The numbers of all channel ids below the bases: more than one where files of an earlier
/// channel lie there too.
fn lines(audits: &[ChannelAudit]) -> String {
    let many = |n: u64, what: &str| {
        if n == 1 {
            format!("1 {what}")
        } else {
            format!("{n} {what}s")
        }
    };
    let parts = audits.iter().map(|audit| {
        let mut text = format!(
            "{} in {}",
            many(audit.events, "line"),
            many(audit.files, "file")
        );
        if audit.rejected > 0 {
            text += &format!(", {} rejected", audit.rejected);
        }
        if audit.lost > 0 {
            text += &format!(", {} lost to damage", audit.lost);
        }
        format!("{text}; {}", audit.verdict())
    });
    let parts: Vec<String> = parts.collect();
    match parts.is_empty() {
        true => "no files yet".to_owned(),
        false => parts.join(" | "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_in_words_and_verdicts_follow() {
        let one = ChannelAudit {
            files: 1,
            events: 1,
            first: 1,
            last: 1,
            ..Default::default()
        };
        assert_eq!(
            lines(&[one]),
            "1 line in 1 file; events 1 to 1: no gap, no overlap"
        );
        assert_eq!(lines(&[]), "no files yet");
        let gap = vec![Finding::Gap { first: 1, last: 2 }];
        let two = ChannelAudit {
            files: 2,
            events: 5,
            findings: gap,
            ..Default::default()
        };
        assert_eq!(
            lines(&[two]),
            "5 lines in 2 files; gap: events 1 to 2 are in no file"
        );
    }

    #[tokio::test]
    async fn what_is_there_twice_makes_the_report_unsound() {
        let dir = tempfile::tempdir().unwrap();
        let base = format!("file://{}", dir.path().display());
        let target = Published {
            channel: "c1".to_owned(),
            dir: base,
        };
        let report = Report {
            targets: vec![target],
            hadoop: None,
        };
        let name = |epoch: u64, first: u64, last: u64| {
            let count = last - first + 1;
            format!("x-k1-0123456789ab-e{epoch:016}-p1of1-{first:020}-{last:020}-{count}")
        };
        let mut text = Vec::new();
        std::fs::write(dir.path().join(name(1, 1, 10)), "").unwrap();
        assert!(report.print(&mut text).await);
        std::fs::write(dir.path().join(name(2, 10, 12)), "").unwrap();
        assert!(!report.print(&mut text).await);
        let text = String::from_utf8(text).unwrap();
        assert!(
            text.contains("10 lines in 1 file; events 1 to 10: no gap"),
            "{text}"
        );
        assert!(text.contains("overlap: events 10 to 10"), "{text}");
    }
}
