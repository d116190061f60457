//! Names of published files: everything an outside auditor needs stands in the name.
//!
//! ```text
//! <prefix>-<sink>-<chan12>-e<epoch:016>-p<k>of<n>-<first:020>-<last:020>-<count><suffix>
//! ```
//! `first` and `last` are the epoch's, `count` is the part's. Rejected events and runs lost to
//! damage are parts of the same epoch under `<base>/_rejected/`, with `-reject` or
//! `-lost-<a>-<b>` before the suffix. Parts are numbered 1 to n over all three kinds, and their
//! counts add up to the epoch's range.
//!
//! *Place in the flow*: the attempt renders names for SEAL with [`EPOCH_TOKEN`] in place of the
//! number, the audit parses them. Names are parsed **from the right**, because prefix and sink may
//! hold `-`; the two are one label.

use std::sync::LazyLock;

use regex::Regex;

use crate::channel::journal::EPOCH_TOKEN;
use crate::event::{Seq, SeqRange};

/// Longest file name that HDFS (by default) and Linux file systems take, in bytes.
pub const MAX_NAME: usize = 255;

/// What a part holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartKind {
    /// Published events.
    Events,
    /// Events that could not be given a place or a form.
    Reject,
    /// No events: names a run that damage has destroyed.
    Lost(SeqRange),
}

/// The content of a file name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartName {
    /// `<prefix>-<sink>`.
    pub label: String,
    /// First 12 hexadecimal digits of the channel's id.
    pub channel: String,
    /// Epoch number.
    pub epoch: u64,
    /// Number of the part, from 1.
    pub part: u32,
    /// Parts of the epoch.
    pub parts: u32,
    /// The epoch's range.
    pub range: SeqRange,
    /// Events in this part.
    pub count: u64,
    /// What the part holds.
    pub kind: PartKind,
    /// How the name ends.
    pub suffix: String,
}

impl PartName {
    /// The name with its epoch number.
    pub fn render(&self) -> String {
        self.render_as(&format!("{:016}", self.epoch))
    }

    /// The name with [`EPOCH_TOKEN`] where the number belongs, for a
    /// [`SealRequest`](crate::channel::journal::SealRequest).
    pub fn render_unsealed(&self) -> String {
        self.render_as(EPOCH_TOKEN)
    }

    fn render_as(&self, epoch: &str) -> String {
        let kind = match self.kind {
            PartKind::Events => String::new(),
            PartKind::Reject => "-reject".to_owned(),
            PartKind::Lost(run) => format!("-lost-{}-{}", run.first, run.last),
        };
        format!(
            "{}-{}-e{epoch}-p{}of{}-{:020}-{:020}-{}{kind}{}",
            self.label,
            self.channel,
            self.part,
            self.parts,
            self.range.first.0,
            self.range.last.0,
            self.count,
            self.suffix,
        )
    }

    /// Reads a file name (no directory). `None` for a name that is not ours.
    pub fn parse(name: &str) -> Option<Self> {
        let found = grammar()?.captures(name)?;
        let text = |i: usize| found.get(i).map_or("", |m| m.as_str());
        let number = |i: usize| text(i).parse::<u64>().ok();
        // The very last number of all is never given to an event.
        let run = |a: usize, b: usize| {
            let last = number(b).filter(|last| *last < u64::MAX)?;
            SeqRange::new(Seq(number(a)?), Seq(last))
        };
        let kind = match text(9) {
            "" => PartKind::Events,
            "-reject" => PartKind::Reject,
            _ => PartKind::Lost(run(10, 11)?),
        };
        Some(Self {
            label: text(1).to_owned(),
            channel: text(2).to_owned(),
            epoch: number(3)?,
            part: text(4).parse().ok()?,
            parts: text(5).parse().ok()?,
            range: run(6, 7)?,
            count: number(8)?,
            kind,
            suffix: text(12).to_owned(),
        })
    }
}

fn grammar() -> Option<&'static Regex> {
    static GRAMMAR: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(concat!(
            r"(?s)^(.*)-([0-9a-f]{12})-e([0-9]{16,20})-p([0-9]+)of([0-9]+)",
            r"-([0-9]{20})-([0-9]{20})-([0-9]+)(-reject|-lost-([0-9]+)-([0-9]+))?([^0-9-].*)?$",
        ))
        .ok()
    });
    GRAMMAR.as_ref()
}

/// Why a suffix cannot be used; `None` where it can.
pub fn suffix_fault(suffix: &str) -> Option<&'static str> {
    if suffix.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
        return Some("begins with a digit or '-' and would run into the count before it");
    }
    label_fault(suffix)
}

/// Why a text cannot stand in a file name of ours; `None` where it can.
pub fn label_fault(text: &str) -> Option<&'static str> {
    if text.contains('/') {
        return Some("holds '/'");
    }
    if text.contains(EPOCH_TOKEN) {
        return Some("holds {epoch}, which stands for the epoch number");
    }
    let probe = format!("-{text}");
    let ours = format!("{probe}-");
    (PartName::parse(&probe).is_some() || PartName::parse(&ours).is_some())
        .then_some("looks like the name of a published file")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kind() -> impl Strategy<Value = PartKind> {
        prop_oneof![
            Just(PartKind::Events),
            Just(PartKind::Reject),
            (0..u64::MAX, 0..u64::MAX).prop_map(|(a, b)| {
                PartKind::Lost(SeqRange {
                    first: Seq(a.min(b)),
                    last: Seq(a.max(b)),
                })
            }),
        ]
    }

    proptest! {
        #[test]
        fn every_name_reads_back_as_written(
            label in "[ -.0-~]{0,20}-[a-z0-9-]{1,10}",
            chan in "[0-9a-f]{12}",
            epoch in any::<u64>(),
            (part, parts) in (1u32..999, 1u32..999),
            (a, b, count) in (0..u64::MAX, 0..u64::MAX, any::<u64>()),
            kind in kind(),
            suffix in "(|[._a-z][ -.0-~]{0,8})",
        ) {
            let name = PartName {
                label, channel: chan, epoch, part, parts,
                range: SeqRange { first: Seq(a.min(b)), last: Seq(a.max(b)) },
                count, kind, suffix,
            };
            prop_assert_eq!(PartName::parse(&name.render()), Some(name.clone()));
            let unsealed = name.render_unsealed().replace(EPOCH_TOKEN, &format!("{epoch:016}"));
            prop_assert_eq!(unsealed, name.render());
        }

        #[test]
        fn no_name_makes_the_parser_panic(name in ".{0,120}") {
            let _found = PartName::parse(&name);
        }
    }

    #[test]
    fn sinks_with_dashes_and_nested_names_are_read_from_the_right() {
        let inner = "p-k-0123456789ab-e0000000000000001-p1of1-00000000000000000000-\
                     00000000000000000001-2";
        let name = PartName {
            label: format!("{inner}-k-1"),
            channel: "ba9876543210".into(),
            epoch: 7,
            part: 1,
            parts: 2,
            range: SeqRange {
                first: Seq(10),
                last: Seq(19),
            },
            count: 10,
            kind: PartKind::Events,
            suffix: ".log".into(),
        };
        assert_eq!(PartName::parse(&name.render()), Some(name));
        assert!(PartName::parse("part-00000").is_none());
    }

    #[test]
    fn a_suffix_that_runs_into_the_count_is_refused() {
        assert!(suffix_fault("2024").is_some());
        assert!(suffix_fault("-reject").is_some());
        assert!(suffix_fault(".a/b").is_some());
        assert!(suffix_fault("{epoch}").is_some());
        assert_eq!(suffix_fault(".log.gz"), None);
        assert_eq!(suffix_fault(""), None);
        assert_eq!(suffix_fault(".v2-final"), None);
    }
}
