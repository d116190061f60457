//! What the audit must say of any file names. Included by the fuzz target `audit_names` and by
//! `tests/fuzz_seeds.rs`.
//!
//! *Claims*: a name is read exactly where a second reader, written by hand from the right and
//! without a regular expression, reads it, and with the same content; what was read is rendered to
//! a name that reads back the same. For each channel: wherever a number up to the last one is in
//! the range of no epoch there is a gap over it, and nowhere else; wherever it is in more than one
//! there is an overlap, and nowhere else; each part of an epoch that is missing or there twice is
//! named (the first thousand of a hole); and a channel that is called sound has as many events,
//! rejected and lost ones as its numbers.
//!
//! *Input*: names, one a line; bytes that are not UTF-8 are replaced. `@` stands for
//! `-0123456789ab-e000000000000000` and `#` for sixteen zeros, so that short inputs hold names.

use std::collections::{BTreeMap, BTreeSet};

use forebay::event::{Seq, SeqRange};
use forebay::sink::staged::names::{PartKind, PartName};
use forebay::tools::audit::{ChannelAudit, Finding, audit};

/// Reads the names, audits them, and panics where a claim does not hold. Returns how many were
/// read, so that a test can see that a corpus is not all garbage.
pub(crate) fn check(input: &[u8]) -> usize {
    let text = String::from_utf8_lossy(input)
        .replace('@', "-0123456789ab-e000000000000000")
        .replace('#', "0000000000000000");
    let mut names = Vec::new();
    for line in text.lines() {
        let read = PartName::parse(line);
        assert_eq!(read, by_hand(line), "{line:?} beside the second reader");
        let Some(name) = read else { continue };
        let again = PartName::parse(&name.render());
        assert_eq!(again.as_ref(), Some(&name), "{line:?} does not come back");
        names.push(name);
    }
    let audits = audit(names.iter().cloned());
    let channels: BTreeSet<&str> = names.iter().map(|name| name.channel.as_str()).collect();
    let audited: Vec<&str> = audits.iter().map(|audit| audit.channel.as_str()).collect();
    assert_eq!(channels.into_iter().collect::<Vec<_>>(), audited);
    for audited in &audits {
        let own: Vec<&PartName> = names
            .iter()
            .filter(|name| name.channel == audited.channel)
            .collect();
        judge(audited, &own);
    }
    names.len()
}

/// `rest` without the number at its end, and that number's digits.
fn digits(rest: &str) -> (&str, &str) {
    let kept = rest.trim_end_matches(|c: char| c.is_ascii_digit());
    rest.split_at(kept.len())
}

/// Takes `<text><digits>` from the end of `rest`; the number of digits must be in `wide`.
fn take<'a>(
    rest: &mut &'a str,
    text: &str,
    wide: std::ops::RangeInclusive<usize>,
) -> Option<&'a str> {
    let (before, number) = digits(rest);
    *rest = before.strip_suffix(text)?;
    wide.contains(&number.len()).then_some(number)
}

/// The fields of `<label>-<chan12>-e<epoch>-p<k>of<n>-<first>-<last>-<count>`.
type Fields<'a> = (&'a str, &'a str, [&'a str; 6]);

fn head(name: &str) -> Option<Fields<'_>> {
    let mut rest = name;
    let any = 1..=usize::MAX;
    let count = take(&mut rest, "-", any.clone())?;
    let last = take(&mut rest, "-", 20..=20)?;
    let first = take(&mut rest, "-", 20..=20)?;
    let parts = take(&mut rest, "of", any.clone())?;
    let part = take(&mut rest, "-p", any)?;
    let epoch = take(&mut rest, "-e", 16..=20)?;
    let at = rest.len().checked_sub(12)?;
    let (label, channel) = (rest.get(..at)?, rest.get(at..)?);
    let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    let label = label
        .strip_suffix('-')
        .filter(|_| channel.chars().all(hex))?;
    Some((label, channel, [epoch, part, parts, first, last, count]))
}

/// Splits off the kind at the end of `rest`, if there is one.
fn kind(rest: &str) -> (&str, Option<Option<(&str, &str)>>) {
    if let Some(before) = rest.strip_suffix("-reject") {
        return (before, Some(None));
    }
    let mut before = rest;
    let (Some(last), Some(first)) = (
        take(&mut before, "-", 1..=usize::MAX),
        take(&mut before, "-lost-", 1..=usize::MAX),
    ) else {
        return (rest, None);
    };
    (before, Some(Some((first, last))))
}

/// The second reader. The suffix is everything behind the rightmost place where a name can end.
fn by_hand(name: &str) -> Option<PartName> {
    let ends = name.char_indices().map(|(at, _)| at).chain([name.len()]);
    for end in ends.collect::<Vec<_>>().into_iter().rev() {
        let (body, suffix) = name.split_at(end);
        if suffix.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
            continue;
        }
        let (before, found) = kind(body);
        let (fields, found) = match (head(before), found) {
            (Some(fields), found) => (fields, found),
            (None, _) => match head(body) {
                Some(fields) => (fields, None),
                None => continue,
            },
        };
        let (label, channel, numbers) = fields;
        let [epoch, part, parts, first, last, count] = numbers;
        let number = |digits: &str| digits.parse::<u64>().ok();
        // The very last number of all is never given to an event.
        let range = |first: &str, last: &str| {
            let last = number(last).filter(|last| *last < u64::MAX)?;
            SeqRange::new(Seq(number(first)?), Seq(last))
        };
        return Some(PartName {
            label: label.to_owned(),
            channel: channel.to_owned(),
            epoch: number(epoch)?,
            part: part.parse().ok()?,
            parts: parts.parse().ok()?,
            range: range(first, last)?,
            count: number(count)?,
            kind: match found {
                None => PartKind::Events,
                Some(None) => PartKind::Reject,
                Some(Some((first, last))) => PartKind::Lost(range(first, last)?),
            },
            suffix: suffix.to_owned(),
        });
    }
    None
}

fn judge(audited: &ChannelAudit, names: &[&PartName]) {
    let mut epochs: BTreeMap<u64, Vec<&PartName>> = BTreeMap::new();
    for name in names {
        epochs.entry(name.epoch).or_default().push(name);
    }
    assert_eq!(audited.epochs, epochs.len() as u64);
    let ranges: Vec<SeqRange> = epochs.values().map(|names| names[0].range).collect();
    tiling(audited, &ranges);
    for (epoch, names) in &epochs {
        parts(audited, *epoch, names);
    }
    if audited.is_sound() {
        let counted: u128 = names.iter().map(|name| u128::from(name.count)).sum();
        let from = audited.first.min(1);
        let expected = u128::from(audited.last) + 1 - u128::from(from);
        assert_eq!(counted, expected, "called sound");
        let told = [audited.events, audited.rejected, audited.lost];
        assert_eq!(told.map(u128::from).iter().sum::<u128>(), counted);
    }
}

/// Looks at both ends of every range and at their neighbours: between these nothing changes.
fn tiling(audited: &ChannelAudit, ranges: &[SeqRange]) {
    let end = ranges.iter().map(|range| range.last.0).max().unwrap_or(0);
    let begin = ranges
        .iter()
        .map(|range| range.first.0)
        .min()
        .unwrap_or(1)
        .min(1);
    let mut places = BTreeSet::from([begin]);
    for SeqRange { first, last } in ranges {
        let around = [
            first.0.checked_sub(1),
            Some(first.0),
            Some(last.0),
            last.0.checked_add(1),
        ];
        places.extend(around.into_iter().flatten());
    }
    let holds = |(first, last): (u64, u64), place| first <= place && place <= last;
    for place in places
        .into_iter()
        .filter(|place| (begin..=end).contains(place))
    {
        let covered = ranges
            .iter()
            .filter(|range| range.contains(Seq(place)))
            .count();
        let gaps = audited.findings.iter().filter(|finding| {
            matches!(finding, Finding::Gap { first, last } if holds((*first, *last), place))
        });
        let overlaps = audited.findings.iter().filter(|finding| {
            matches!(finding, Finding::Overlap { first, last, .. }
                if holds((*first, *last), place))
        });
        let (gaps, overlaps) = (gaps.count(), overlaps.count());
        assert_eq!(gaps, usize::from(covered == 0), "gaps over {place}");
        assert_eq!(overlaps > 0, covered > 1, "overlaps over {place}");
    }
}

/// Most parts that are looked at one by one.
const PARTS: u32 = 300;

fn parts(audited: &ChannelAudit, epoch: u64, names: &[&PartName]) {
    let first = names[0];
    let agree = names
        .iter()
        .all(|n| n.range == first.range && n.parts == first.parts);
    let inside = names.iter().all(|n| (1..=first.parts).contains(&n.part));
    let contradiction = audited.findings.contains(&Finding::Contradiction { epoch });
    assert_eq!(contradiction, !(agree && inside), "epoch {epoch}");
    if contradiction {
        return;
    }
    let last = [first.parts];
    for part in (1..=first.parts.min(PARTS)).chain(last) {
        let there = names.iter().filter(|name| name.part == part).count();
        let of = first.parts;
        let missing = audited
            .findings
            .contains(&Finding::PartMissing { epoch, part, of });
        let twice = audited
            .findings
            .contains(&Finding::PartTwice { epoch, part });
        // Of a long hole only the front is named.
        let named = missing || (part > PARTS && there == 0);
        assert_eq!(
            (named, twice),
            (there == 0, there > 1),
            "part {part} of epoch {epoch}"
        );
    }
}
