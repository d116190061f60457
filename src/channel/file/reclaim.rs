//! Deletion of segments, and how a full disk makes room by itself.
//!
//! *Invariant* INV-7: a segment is deleted only when it holds no live event and the durable
//! snapshots of two later segments say so. Deletion is lazy: after a while, or at once when space
//! is needed; then files that an earlier process has written fill the reserve where they are. When
//! space is short and dead segments lack coverage, the log rolls early onto a prepared segment; so
//! a full disk always drains (INV-19).

use std::time::Duration;

use super::Core;
use super::log::{Active, Entry, LogWriter, record_bytes};
use super::options::{DEAD_SEGMENTS_KEPT, SPARES_RESERVED};
use super::prepare::Spare;
use super::segment::Segment;
use crate::channel::ChannelError;
use crate::env::sync::atomic::Ordering;
use crate::event::SeqRange;
use crate::planted::{Bug, planted};
use wal_format::Record;

impl Core {
    /// Makes `spare` the active segment: its snapshot is durable on `Ok`.
    pub(super) fn open_segment(&self, writer: &mut LogWriter, spare: Spare) -> std::io::Result<()> {
        let references = self
            .table()
            .segments
            .iter()
            .map(Segment::reference)
            .collect();
        let snapshot = Record::Snapshot(Box::new(self.state().to_snapshot(references)));
        if record_bytes(&snapshot) > self.options.segment_bytes() as usize / 4 {
            return Err(std::io::Error::other(
                "the snapshot is larger than a quarter of a segment; raise maxFileSize",
            ));
        }
        self.adopt(&spare, writer.next_sequence);
        writer.active = Active::of(&spare);
        writer.write_group(&mut [Entry::record(snapshot)])?;
        self.sync_and_publish(writer)?;
        self.count_coverage();
        self.note_room(writer, 0);
        Ok(())
    }

    /// Enters the spare into the table as the active segment and maps it for hot reads.
    pub(super) fn adopt(&self, spare: &Spare, first_sequence: u64) {
        if let Err(error) = spare.file.map(0) {
            // Reads fall back to pread: slower, not wrong.
            tracing::warn!(channel = %self.name, segment = spare.number, "not mapped: {error}");
        }
        self.table().push(Segment {
            number: spare.number,
            salt: spare.salt,
            path: spare.path.clone(),
            len: u64::from(spare.size),
            first_sequence,
            end: wal_format::SEGMENT_HEADER_BYTES,
            hot: Some(std::sync::Arc::clone(&spare.file)),
            was_mapped: true,
            covered: 0,
            dead_since: None,
        });
        let mut pool = self.spares.lock();
        pool.in_hand = pool.in_hand.saturating_sub(1);
    }

    /// After a snapshot became durable: it covers every segment that it saw dead.
    pub(super) fn count_coverage(&self) {
        let state = self.state();
        let space_needed = self.space_is_short();
        let now = self.now();
        let mut table = self.table();
        let count = table.segments.len().saturating_sub(1);
        for index in 0..count {
            let end = table.end_sequence(index, state.next_sequence);
            let segment = &mut table.segments[index];
            let dead = state.is_dead(segment.first_sequence, end, space_needed)
                || planted(Bug::LiveCountsAsDead);
            if dead {
                segment.covered = segment.covered.saturating_add(1);
                segment.dead_since.get_or_insert(now);
            }
        }
    }

    /// Events that counted as gone live again: snapshots that saw them dead count no more.
    pub(super) fn uncover(&self, range: SeqRange) {
        for segment in &mut self.table().segments {
            if segment.first_sequence <= range.last.0 {
                segment.covered = 0;
                segment.dead_since = None;
            }
        }
    }

    pub(super) fn space_is_short(&self) -> bool {
        self.spares.lock().short_of_space.is_some()
    }

    /// Whether an early roll would let dead segments go. Segments that an early roll itself
    /// leaves behind hold no events; they do not ask for another roll until three of them wait.
    /// The last prepared segment is given only for one that this very roll sets free.
    pub(super) fn wants_pressure_roll(&self) -> bool {
        if !self.space_is_short() {
            return false;
        }
        let spares = self.spares.available();
        let state = self.state();
        let table = self.table();
        let (mut empty, mut held, mut next_to_go) = (0, false, false);
        for index in 0..table.segments.len() {
            let segment = &table.segments[index];
            let end = table.end_sequence(index, state.next_sequence);
            if segment.covered >= 2 || !state.is_dead(segment.first_sequence, end, true) {
                continue;
            }
            let whole = segment.len >= u64::from(self.options.segment_bytes());
            next_to_go |= whole && segment.covered == 1;
            held |= end > segment.first_sequence;
            empty += u32::from(end == segment.first_sequence);
        }
        (held || empty > 3) && (spares >= 2 || (spares == 1 && next_to_go))
    }

    /// Deletes what may go, or hands it to the preparer. Errors are logged; what stays is removed
    /// at the next open.
    pub(super) fn reclaim(&self) {
        let short = self.space_is_short();
        let mut victims = self.take_victims(short);
        if victims.is_empty() {
            return;
        }
        if short {
            self.keep_for_reuse(&mut victims);
        }
        for victim in &victims {
            tracing::debug!(channel = %self.name, segment = victim.number, "segment deleted");
            if let Err(error) = self.disk.remove(&victim.path) {
                tracing::warn!(path = %victim.path.display(), "cannot delete segment: {error}");
            }
        }
        for dir in &self.options.data_dirs {
            if planted(Bug::NoDirSyncRemoval) {
                break;
            }
            if let Err(error) = self.disk.sync_dir(dir) {
                tracing::warn!(dir = %dir.display(), "cannot sync directory: {error}");
            }
        }
        self.spares.wake();
        self.room.raise();
    }

    /// On a full disk the reserve is filled with the files of dead segments where they are: what a
    /// deletion frees is anybody's, and a new file may need more.
    fn keep_for_reuse(&self, victims: &mut Vec<Segment>) {
        let whole = u64::from(self.options.segment_bytes());
        let mut pool = self.spares.lock();
        victims.retain(|victim| {
            let wanted = pool.ready.len() + pool.reusable.len() < SPARES_RESERVED;
            let reuse = wanted && !victim.was_mapped && victim.len == whole;
            if reuse {
                pool.reusable.push(victim.path.clone());
            }
            !reuse
        });
    }

    fn take_victims(&self, short: bool) -> Vec<Segment> {
        let state = self.state();
        let mut table = self.table();
        let count = table.segments.len().saturating_sub(1);
        let mut deletable = Vec::new();
        for index in 0..count {
            let end = table.end_sequence(index, state.next_sequence);
            let segment = &table.segments[index];
            let dead =
                state.is_dead(segment.first_sequence, end, short) || planted(Bug::LiveCountsAsDead);
            if segment.covered >= snapshots_needed() && dead {
                deletable.push(index);
            }
        }
        let excess = deletable.len().saturating_sub(DEAD_SEGMENTS_KEPT);
        let (keep_dead, now) = (self.options.keep_dead, self.now());
        deletable.retain({
            let mut position = 0;
            let segments = &table.segments;
            move |&index| {
                position += 1;
                let old = segments[index]
                    .dead_since
                    .is_some_and(|t| now.duration_since(t) >= keep_dead);
                short || old || position <= excess
            }
        });
        deletable
            .into_iter()
            .rev()
            .map(|index| table.segments.remove(index))
            .collect()
    }

    /// The preparer's thread: keeps the reserve and what lies ahead filled.
    pub(super) fn run_preparer(&self) {
        loop {
            let mut pool = self.spares.lock();
            while !pool.wants_more() && !pool.stop {
                pool = self.spares.wait(pool, Duration::from_secs(1));
            }
            if pool.stop {
                return;
            }
            drop(pool);
            if !self.prepare_next() {
                let pool = self.spares.lock();
                if !pool.stop {
                    drop(self.spares.wait(pool, Duration::from_millis(200)));
                }
            }
        }
    }

    /// Prepares one segment; false when that was refused.
    pub(super) fn prepare_next(&self) -> bool {
        let (number, ready, reusable) = {
            let mut pool = self.spares.lock();
            // One in hand may be counted twice, never not at all.
            let ready = pool.ready.len() + pool.in_hand;
            (pool.next_number, ready, pool.reusable.pop())
        };
        let result = match (reusable, self.space_refusal(number, ready)) {
            (Some(old), _) => self.preparer.reuse(&old, number).map_err(|e| {
                tracing::warn!(path = %old.display(), "cannot be used again: {e}");
                e.to_string()
            }),
            (None, Some(reason)) => Err(reason),
            (None, None) => self.preparer.prepare(number).map_err(|e| e.to_string()),
        };
        match result {
            Ok(spare) => {
                self.spare_is_ready(spare);
                true
            }
            Err(reason) => {
                self.out_of_space(reason);
                false
            }
        }
    }

    fn spare_is_ready(&self, spare: Spare) {
        let mut pool = self.spares.lock();
        pool.next_number = spare.number + 1;
        pool.ready.push(spare);
        if pool.ready.len() > SPARES_RESERVED {
            pool.short_of_space = None;
            if std::mem::take(&mut pool.held_back) {
                tracing::info!(channel = %self.name, "room on disk again, puts go on");
            }
        }
        drop(pool);
        self.spares.wake();
        self.room.raise();
    }

    fn out_of_space(&self, reason: String) {
        let mut pool = self.spares.lock();
        if pool.ready.len() <= SPARES_RESERVED && !std::mem::replace(&mut pool.held_back, true) {
            tracing::warn!(
                channel = %self.name,
                "puts are held back, takes and acknowledgements go on: {reason}"
            );
        }
        pool.short_of_space = Some(reason);
        drop(pool);
        self.reclaim();
        self.queue().ask_oldest_staged_to_seal();
        self.ready.raise();
    }

    /// Why the next segment may not be prepared now, if so.
    fn space_refusal(&self, number: u32, ready: usize) -> Option<String> {
        let size = u64::from(self.options.segment_bytes());
        let dir = &self.options.data_dirs[number as usize % self.options.data_dirs.len()];
        // The reserve may take all there is: it is what makes room again.
        let floor = if ready < SPARES_RESERVED {
            0
        } else {
            self.options.minimum_required_space
        };
        let free = match self.disk.space(dir) {
            Ok(space) => space.free,
            Err(error) => return Some(format!("{}: {error}", dir.display())),
        };
        if free < size + floor {
            return Some(format!(
                "{} has {free} bytes free; a segment of {size} and {floor} to leave free \
                 (minimumRequiredSpace) do not fit",
                dir.display()
            ));
        }
        let used = self.table().bytes() + ready as u64 * size;
        match self.options.byte_capacity {
            Some(limit) if used + size > limit => Some(format!(
                "segments hold {used} of at most {limit} bytes (byteCapacity)"
            )),
            _ => None,
        }
    }

    /// The error of a put of `events` that found no room in time.
    pub(super) fn full(&self, events: u64) -> ChannelError {
        let counts = self.queue().counts();
        let used = counts.waiting + counts.leased + counts.committed + counts.reserved;
        let pool = self.spares.lock();
        let (disk, ready) = (pool.short_of_space.clone(), pool.ready.len());
        drop(pool);
        let reason = if used + events > self.options.capacity {
            format!(
                "{used} of its capacity of {} events are in use, {events} more do not fit",
                self.options.capacity
            )
        } else {
            disk.unwrap_or_else(|| {
                format!(
                    "the next segment is still being prepared on disk ({ready} are ready, {} make \
                     the reserve, the active one has room for {} bytes)",
                    SPARES_RESERVED,
                    self.active_room.load(Ordering::Acquire)
                )
            })
        };
        ChannelError::Full {
            channel: self.name.clone(),
            reason,
        }
    }
}

/// Snapshots of later segments that have to cover a segment before it goes (INV-7).
fn snapshots_needed() -> u8 {
    match () {
        () if planted(Bug::NoSnapshotNeeded) => 0,
        () if planted(Bug::OneSnapshotEnough) => 1,
        () => 2,
    }
}
