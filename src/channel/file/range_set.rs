//! A set of sequence numbers as disjoint, merged runs.

use std::collections::BTreeMap;

/// Runs `first -> last`, disjoint and not adjacent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RangeSet(BTreeMap<u64, u64>);

impl RangeSet {
    pub(super) fn insert(&mut self, mut first: u64, mut last: u64) {
        // The run before may reach into or touch the new one; runs inside are swallowed.
        if let Some((&f, &l)) = self.0.range(..=first).next_back()
            && l.saturating_add(1) >= first
        {
            first = f;
            last = last.max(l);
        }
        while let Some((&f, &l)) = self.0.range(first..).next()
            && f <= last.saturating_add(1)
        {
            last = last.max(l);
            self.0.remove(&f);
        }
        self.0.insert(first, last);
    }

    /// Whether all of `first..=last` is in the set.
    pub(super) fn covers(&self, first: u64, last: u64) -> bool {
        self.0
            .range(..=first)
            .next_back()
            .is_some_and(|(_, &l)| l >= last)
    }

    /// Removes everything below `end`.
    pub(super) fn remove_below(&mut self, end: u64) {
        let keep = self.0.split_off(&end);
        let straddling = self
            .0
            .last_key_value()
            .map(|(_, &l)| l)
            .filter(|&l| l >= end);
        self.0 = keep;
        if let Some(last) = straddling {
            self.0.insert(end, last);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().map(|(&f, &l)| (f, l))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_merge_and_inner_runs_vanish() {
        let mut set = RangeSet::default();
        for (first, last) in [(5, 6), (1, 2), (3, 3), (9, 9), (4, 8)] {
            set.insert(first, last);
        }
        assert_eq!(set.iter().collect::<Vec<_>>(), [(1, 9)]);
        assert!(set.covers(1, 9) && !set.covers(1, 10) && !set.covers(0, 3));
        set.remove_below(4);
        assert_eq!(set.iter().collect::<Vec<_>>(), [(4, 9)]);
    }
}
