//! How runs move inside the queue: to the head, into blocks, between leases.

use std::time::Instant;

use super::{Lease, LeaseId, Queue, ReadHint, Run, STALL, SeqRange, end_of};

impl Queue {
    /// Whether a new lease would get something now, or the only taker has unread events.
    pub fn has_ready(&mut self, now: Instant) -> bool {
        if !self.has_free() {
            self.pass_on_stalled(None, now);
        }
        self.has_free() || self.leases.values().any(|l| !l.contended && l.has_unread())
    }

    /// Whether the holder of `lease` has something to do: it may take, must seal, is exhausted,
    /// or has lost it.
    pub fn lease_ready(&mut self, id: LeaseId, now: Instant) -> bool {
        self.freeze_above_head(id, now);
        if self.is_empty(id) && !self.has_free() {
            self.pass_on_stalled(Some(id), now);
        }
        let Some(lease) = self.leases.get(&id) else {
            return true;
        };
        if lease.must_seal || lease.has_unread() || self.exhausted(id) {
            return true;
        }
        if lease.is_empty() {
            return self.has_free();
        }
        self.returned.contains_key(&lease.block_end)
            || (lease.block_end == self.tail && self.tail < self.end)
    }

    /// The next time after `now` at which events may pass on from a stalled holder without
    /// anything else happening: ask again then.
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let unread = self
            .leases
            .values()
            .filter(|l| l.has_unread() && l.contended);
        let unread = unread.filter_map(|l| l.unread_since);
        let head = self.head_since.filter(|(first, _)| {
            self.returned.contains_key(first)
                && self
                    .leases
                    .values()
                    .any(|l| l.is_staged() && !l.frozen && l.first > *first)
        });
        let all = unread
            .chain(head.map(|(_, since)| since))
            .map(|since| since + STALL);
        all.filter(|at| *at > now).min()
    }

    /// Whether anything waits that no lease has kept for itself.
    fn has_free(&self) -> bool {
        self.tail < self.end || !self.returned.is_empty()
    }

    pub(super) fn has_unread(&self, id: LeaseId) -> bool {
        self.leases.get(&id).is_some_and(Lease::has_unread)
    }

    pub(super) fn is_empty(&self, id: LeaseId) -> bool {
        self.leases.get(&id).is_some_and(Lease::is_empty)
    }

    /// The counter of what leases of this mode have taken.
    pub(super) fn taken(&mut self, id: LeaseId) -> &mut u64 {
        match self.leases.get(&id) {
            Some(lease) if lease.is_staged() => &mut self.staged,
            _ => &mut self.leased,
        }
    }

    /// Lets the block of `id` grow by waiting runs that follow it (or, if it holds nothing, by
    /// the lowest one), as far as it has room. False when there was nothing to add.
    pub(super) fn extend(&mut self, id: LeaseId) -> bool {
        let Some(lease) = self.leases.get_mut(&id) else {
            return false;
        };
        let at = if lease.is_empty() {
            self.returned
                .first_key_value()
                .map_or(self.tail, |(first, _)| *first)
        } else {
            lease.block_end
        };
        let (end, hint) = match self.returned.get(&at) {
            Some(run) => (run.end, run.hint),
            None if at == self.tail => (self.end, self.tail_hint),
            None => return false,
        };
        let cut = at.saturating_add(lease.room()).min(end);
        if cut == at {
            return false;
        }
        if self.returned.remove(&at).is_none() {
            self.tail = cut;
            self.tail_hint = None;
        } else if cut < end {
            self.returned.insert(cut, Run { end, hint: None });
        }
        if lease.is_empty() {
            lease.first = at;
            lease.read_end = at;
            lease.taken_end = at;
            lease.first_hint = hint;
            lease.next_hint = hint;
        } else if lease.read_end == at {
            lease.next_hint = lease.next_hint.or(hint);
        }
        lease.block_end = cut;
        true
    }

    /// Puts `first..end` among the waiting runs (the counter is the caller's).
    pub(super) fn give_back(&mut self, mut first: u64, mut end: u64, mut hint: Option<ReadHint>) {
        if first >= end {
            return;
        }
        if let Some((&before, run)) = self.returned.range(..first).next_back()
            && run.end == first
        {
            hint = run.hint;
            first = before;
            self.returned.remove(&before);
        }
        if let Some(run) = self.returned.remove(&end) {
            end = run.end;
        }
        if end == self.tail {
            self.tail = first;
            self.tail_hint = hint;
        } else {
            self.returned.insert(first, Run { end, hint });
        }
    }

    /// Returns runs that no lease held.
    pub(super) fn take_back(&mut self, runs: &[(u64, u64)]) {
        for (first, end) in runs {
            self.waiting += end - first;
            self.give_back(*first, *end, None);
        }
        self.debug_check();
    }

    /// Takes everything below `end` out of the block of `id`; it must have been read.
    pub(super) fn cut_front(&mut self, id: LeaseId, end: u64) {
        let Some(lease) = self.leases.get_mut(&id) else {
            return;
        };
        let count = end - lease.first;
        lease.first = end;
        lease.first_hint = lease.next_hint.filter(|_| end == lease.read_end);
        lease.must_seal = false;
        *self.taken(id) -= count;
        self.reset_if_empty(id);
    }

    /// A lease that holds nothing is as good as a new one.
    pub(super) fn reset_if_empty(&mut self, id: LeaseId) {
        let contended = self.leases.len() > 1;
        if let Some(lease) = self.leases.get_mut(&id).filter(|l| l.is_empty()) {
            *lease = Lease::new(lease.mode, contended);
        }
    }

    /// Bounds the block of `id` because another taker has come.
    pub(super) fn contend(&mut self, id: LeaseId) {
        let Some(lease) = self.leases.get_mut(&id) else {
            return;
        };
        lease.contended = true;
        if let super::TakeMode::Staged { block_events } = lease.mode {
            let bound = lease.first.saturating_add(block_events.max(1));
            self.trim(id, bound);
        }
    }

    /// Gives the unread part of the block of `id` from `bound` on back to the head.
    fn trim(&mut self, id: LeaseId, bound: u64) {
        let Some(lease) = self.leases.get_mut(&id) else {
            return;
        };
        let keep = bound.max(lease.taken_end);
        if keep < lease.block_end {
            let hint = lease.unread_hint().filter(|_| keep == lease.read_end);
            let end = std::mem::replace(&mut lease.block_end, keep);
            self.give_back(keep, end, hint);
        }
    }

    /// The unread rest of `id` passes on and its block never grows again.
    fn freeze(&mut self, id: LeaseId) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.frozen = true;
            lease.unread_since = None;
            self.trim(id, 0);
            self.reset_if_empty(id);
        }
    }

    /// Somebody (`starved`, if it is a lease) finds nothing to take: blocks whose events have
    /// lain unread for [`STALL`] since this was first seen pass them on.
    pub(super) fn pass_on_stalled(&mut self, starved: Option<LeaseId>, now: Instant) {
        let mut stalled = Vec::new();
        for (id, lease) in &mut self.leases {
            if Some(*id) == starved || !lease.has_unread() || !lease.contended {
                continue;
            }
            let since = *lease.unread_since.get_or_insert(now);
            if now.saturating_duration_since(since) >= STALL {
                stalled.push(*id);
            }
        }
        stalled.into_iter().for_each(|id| self.freeze(id));
        self.debug_check();
    }

    /// A returned run below the block of the staged lease `id` waits for a new lease: after
    /// [`STALL`] the block stops growing, so that its holder seals it and opens one.
    pub(super) fn freeze_above_head(&mut self, id: LeaseId, now: Instant) {
        let Some(head) = self.returned.first_key_value().map(|(first, _)| *first) else {
            self.head_since = None;
            return;
        };
        let above = |l: &&Lease| l.is_staged() && !l.frozen && !l.is_empty() && l.first > head;
        if self.leases.get(&id).filter(above).is_none() {
            return;
        }
        match self.head_since.filter(|(first, _)| *first == head) {
            Some((_, since)) if now.saturating_duration_since(since) >= STALL => self.freeze(id),
            Some(_) => {}
            None => self.head_since = Some((head, now)),
        }
    }

    /// Makes `range` acknowledged for good.
    pub(super) fn acknowledge(&mut self, range: SeqRange) {
        let (first, end) = (range.first.0, end_of(range));
        self.acked.insert(first.max(self.cursor), end);
        self.lost.remove(first, end);
        self.advance_cursor();
        self.debug_check();
    }

    /// Moves the cursor over what is acknowledged right behind it.
    pub(super) fn advance_cursor(&mut self) {
        if let Some((first, end)) = self.acked.first().filter(|(f, _)| *f == self.cursor) {
            self.acked.remove(first, end);
            self.cursor = end;
        }
        self.lost.remove(0, self.cursor);
    }

    pub(super) fn debug_check(&self) {
        if cfg!(debug_assertions) {
            let checked = self.check();
            debug_assert!(checked.is_ok(), "{checked:?} in {self:?}");
        }
    }

    /// Proves the invariants: the places tile `[cursor, durable end)` and the counters add up.
    /// The error says which one is broken.
    pub fn check(&self) -> Result<(), String> {
        let mut places = Vec::new();
        let sets = [
            (&self.acked, "acked"),
            (&self.acking, "acking"),
            (&self.sealed, "sealed"),
        ];
        for (set, name) in sets {
            places.extend(set.iter().map(|(f, e)| (f, e, name)));
        }
        places.extend(
            self.returned
                .iter()
                .map(|(f, run)| (*f, run.end, "returned")),
        );
        let (leased, staged) = self.check_leases(&mut places)?;
        places.push((self.tail, self.end, "tail"));
        places.sort_unstable();
        let mut at = self.cursor;
        for (first, end, name) in &places {
            if *first != at || (first >= end && *name != "tail") {
                return Err(format!(
                    "{name} {first}..{end} where {at} comes next: {places:?}"
                ));
            }
            at = *end;
        }
        if at != self.end {
            return Err(format!("the places end at {at}, not at {}", self.end));
        }
        let mut ends = self.returned.values().map(|run| run.end);
        if ends.any(|end| end == self.tail || self.returned.contains_key(&end)) {
            return Err(format!("returned runs touch: {places:?}"));
        }
        let outside: u64 = sets.iter().map(|(set, _)| set.count()).sum();
        let total = self.waiting + leased + staged + outside;
        let counted = (total, self.leased, self.staged);
        if counted != (self.end - self.cursor, leased, staged) {
            return Err(format!(
                "counters {counted:?}, true {leased} leased, {staged} staged"
            ));
        }
        if self
            .lost
            .first()
            .is_some_and(|(first, _)| first < self.cursor)
        {
            return Err("lost below the cursor".to_owned());
        }
        Ok(())
    }

    /// Adds the blocks to `places`; returns how much batch and staged leases have taken.
    fn check_leases(
        &self,
        places: &mut Vec<(u64, u64, &'static str)>,
    ) -> Result<(u64, u64), String> {
        let (mut leased, mut staged) = (0, 0);
        for lease in self.leases.values().filter(|l| !l.is_empty()) {
            let marks = [
                lease.first,
                lease.read_end,
                lease.taken_end,
                lease.block_end,
            ];
            if !marks.is_sorted() || (!lease.is_staged() && lease.has_unread()) {
                return Err(format!("lease out of order: {lease:?}"));
            }
            places.push((lease.first, lease.block_end, "lease"));
            let taken = if lease.is_staged() {
                &mut staged
            } else {
                &mut leased
            };
            *taken += lease.taken_end - lease.first;
        }
        Ok((leased, staged))
    }
}
