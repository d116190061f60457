//! A set of sequence numbers kept as disjoint runs; adjacent runs are one.
//!
//! *Place in the flow*: the queue keeps acknowledged, sealed and lost events in it. Its size
//! follows the number of runs, never the number of events.

use std::collections::BTreeMap;

use crate::event::{Seq, SeqRange};

/// Disjoint half-open runs `first..end`; no two of them touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RangeSet(BTreeMap<u64, u64>);

impl RangeSet {
    /// Adds `first..end`, merged with what it overlaps or touches. An empty run adds nothing.
    pub(crate) fn insert(&mut self, mut first: u64, mut end: u64) {
        if first >= end {
            return;
        }
        while let Some((&f, &e)) = self
            .0
            .range(..=end)
            .next_back()
            .filter(|(_, e)| **e >= first)
        {
            self.0.remove(&f);
            first = first.min(f);
            end = end.max(e);
        }
        self.0.insert(first, end);
    }

    /// Takes `first..end` out, wherever it is in the set.
    pub(crate) fn remove(&mut self, first: u64, end: u64) {
        let touched: Vec<_> = self.overlaps(first, end).collect();
        for (f, e) in touched {
            self.0.remove(&f);
            if f < first {
                self.0.insert(f, first);
            }
            if end < e {
                self.0.insert(end, e);
            }
        }
    }

    /// Runs that share at least one number with `first..end`, ascending and whole.
    fn overlaps(&self, first: u64, end: u64) -> impl Iterator<Item = (u64, u64)> {
        let from = self
            .0
            .range(..=first)
            .next_back()
            .filter(|(_, e)| **e > first);
        let from = from.map_or(first, |(f, _)| *f);
        // An empty run overlaps nothing; `max` keeps the bounds in order.
        let to = if first < end { end } else { from };
        self.0.range(from..to.max(from)).map(|(f, e)| (*f, *e))
    }

    /// The parts of `first..end` that are in the set, ascending.
    pub(crate) fn within(&self, first: u64, end: u64) -> impl Iterator<Item = (u64, u64)> {
        self.overlaps(first, end)
            .map(move |(f, e)| (f.max(first), e.min(end)))
    }

    /// Whether all of `first..end` is in the set.
    pub(crate) fn covers(&self, first: u64, end: u64) -> bool {
        first >= end
            || self
                .0
                .range(..=first)
                .next_back()
                .is_some_and(|(_, e)| *e >= end)
    }

    /// How many numbers are in the set.
    pub(crate) fn count(&self) -> u64 {
        self.0.iter().map(|(f, e)| e - f).sum()
    }

    /// The lowest run.
    pub(crate) fn first(&self) -> Option<(u64, u64)> {
        self.0.first_key_value().map(|(f, e)| (*f, *e))
    }

    /// One past the highest number in the set.
    pub(crate) fn end(&self) -> Option<u64> {
        self.0.last_key_value().map(|(_, e)| *e)
    }

    /// All runs, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().map(|(f, e)| (*f, *e))
    }

    /// All runs in the form the contract uses.
    pub(crate) fn to_vec(&self) -> Vec<SeqRange> {
        self.iter().filter_map(|(f, e)| closed(f, e)).collect()
    }
}

impl FromIterator<SeqRange> for RangeSet {
    fn from_iter<I: IntoIterator<Item = SeqRange>>(ranges: I) -> Self {
        let mut set = Self::default();
        set.extend(ranges);
        set
    }
}

impl Extend<SeqRange> for RangeSet {
    fn extend<I: IntoIterator<Item = SeqRange>>(&mut self, ranges: I) {
        for range in ranges {
            self.insert(range.first.0, end_of(range));
        }
    }
}

/// One past the last number of `range`; the very last number of all is never given.
pub(crate) fn end_of(range: SeqRange) -> u64 {
    range.last.0.saturating_add(1)
}

/// `first..end` with both ends included, or `None` where it is empty.
pub(crate) fn closed(first: u64, end: u64) -> Option<SeqRange> {
    SeqRange::new(Seq(first), Seq(end.checked_sub(1)?))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_set_of_numbers(
            ops in prop::collection::vec((any::<bool>(), 0u64..40, 0u64..12), 0..60),
            probe in (0u64..40, 0u64..12),
        ) {
            let mut set = RangeSet::default();
            let mut model = BTreeSet::new();
            for (add, first, len) in ops {
                if add {
                    set.insert(first, first + len);
                    model.extend(first..first + len);
                } else {
                    set.remove(first, first + len);
                    model.retain(|n| !(first..first + len).contains(n));
                }
            }
            let all: Vec<u64> = set.iter().flat_map(|(f, e)| f..e).collect();
            prop_assert_eq!(&all, &model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(set.count(), u64::try_from(model.len()).unwrap());
            let runs: Vec<_> = set.iter().collect();
            prop_assert!(runs.windows(2).all(|w| w[0].1 < w[1].0), "touching runs {:?}", runs);
            let (first, end) = (probe.0, probe.0 + probe.1);
            let within: Vec<u64> = set.within(first, end).flat_map(|(f, e)| f..e).collect();
            prop_assert_eq!(within, model.range(first..end).copied().collect::<Vec<_>>());
            prop_assert_eq!(set.covers(first, end), (first..end).all(|n| model.contains(&n)));
        }
    }
}
