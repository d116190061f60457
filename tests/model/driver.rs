//! Runs one history on a channel and on the specification, step by step.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay::channel::file::SyncMode;
use forebay::channel::file::simulation::{Inside, SteppedChannel, Turn};
use forebay::channel::{Channel, ChannelError, LeaseId, PutTransaction, TakeMode};
use forebay::env::clock::Clock;
use forebay::env::disk::Disk;
use forebay::env::disk_sim::{Crash, Fault, SimDisk};
use forebay::event::{Seq, SeqRange};

use super::Stats;
use super::calls::{Call, What, batch, request};
use super::check::{self, CAPACITY, Checked, DENSE, DRAINS, ENDED, ORDER, Sums, broken, require};
use super::crash::{Examiner, Expect, HandClock, SEGMENT, Way};
use super::history::{End, Op, Random, Setup, Step};
use super::queue::{Entry, Item, Spec, State};

/// A lease, and the first and last number it holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lease {
    pub(crate) id: LeaseId,
    pub(crate) staged: bool,
    pub(crate) held: Option<(u64, u64)>,
}

pub(crate) struct Driver {
    pub(crate) setup: Setup,
    pub(crate) clock: Arc<HandClock>,
    pub(crate) disk: SimDisk,
    channel: Option<SteppedChannel>,
    pub(crate) spec: Spec,
    pub(crate) leases: Vec<Lease>,
    pub(crate) calls: Vec<Call>,
    pub(crate) stats: Stats,
    pub(crate) closed: bool,
    failed: bool,
    transactions: u64,
    /// Faults met when the step began.
    met: u64,
    /// Segment and durable end of the log when it was opened.
    opened_at: (u32, u32),
    /// Entries that somebody was told of in this step as durable, and at which operation.
    pub(crate) told: Vec<(usize, u64)>,
    /// Where the disk is kept before each operation of the next open.
    keep: Option<Vec<SimDisk>>,
}

/// The marks before a step, for crashes in the middle of it.
struct Before {
    written: usize,
    durable: usize,
    end: (u32, u32),
    operations: u64,
}

impl Driver {
    pub(crate) fn new(setup: Setup, seed: u64) -> Checked<Self> {
        let disk = SimDisk::default();
        if let Some(room) = setup.room {
            disk.set_free(room * SEGMENT);
        }
        let mut driver = Self {
            setup,
            clock: HandClock::new(),
            disk: disk.clone(),
            channel: None,
            spec: Spec::default(),
            leases: Vec::new(),
            calls: Vec::new(),
            stats: Stats::default(),
            closed: false,
            failed: false,
            transactions: 0,
            met: 0,
            opened_at: (0, 0),
            told: Vec::new(),
            keep: None,
        };
        let nothing = Expect {
            in_cache: 0,
            on_disk: 0,
            most: 0,
            unknown_opens: 0,
            durable_end: None,
            tears: false,
            rotten: false,
        };
        driver.reopen(disk, nothing, seed)?;
        Ok(driver)
    }

    /// The open channel.
    pub(crate) fn channel(&self) -> &SteppedChannel {
        match &self.channel {
            Some(channel) => channel,
            None => unreachable!("a channel is open between two steps"),
        }
    }

    pub(crate) fn commits(&self) -> bool {
        self.setup.sync == SyncMode::Commit
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed
    }

    fn now_ms(&self) -> u64 {
        self.clock.wall_ms()
    }

    /// One step, and everything that is to be checked after it.
    pub(crate) fn step(&mut self, step: &Step) -> Checked {
        let mut random = Random::new(step.seed);
        self.stats.steps += 1;
        self.met = self.disk.faults_met();
        self.told.clear();
        let before = self.before();
        self.disk.record();
        let done = self.take_step(&step.op, &mut random);
        let recorded = self.disk.recorded();
        done?;
        if let Op::End(end) = step.op {
            self.explore(&before, &recorded, &mut random)?;
            return self.end(end, &mut random);
        }
        if !self.failed {
            self.compare()?;
        }
        self.explore(&before, &recorded, &mut random)?;
        if self.failed {
            let ends = [End::Kill, End::Kill, End::KillWithoutWriteBack, End::Power];
            return self.end(ends[random.below(4)], &mut random);
        }
        Ok(())
    }

    /// A step without crashes around it.
    pub(crate) fn plain(&mut self, op: &Op) -> Checked {
        self.recorded(op).map(drop)
    }

    /// The same; returns the disk before each operation that changed something.
    pub(crate) fn recorded(&mut self, op: &Op) -> Checked<Vec<SimDisk>> {
        let mut random = Random::new(1);
        self.met = self.disk.faults_met();
        self.disk.record();
        let done = self.take_step(op, &mut random);
        let mut recorded = self.disk.recorded();
        done?;
        if let Op::End(end) = op {
            self.keep = Some(Vec::new());
            self.end(*end, &mut random)?;
            recorded.extend(self.keep.take().unwrap_or_default());
            return Ok(recorded);
        }
        self.compare().map(|()| recorded)
    }

    pub(crate) fn durable_end(&self) -> (u32, u32) {
        durable_end(&self.channel().inside())
    }

    fn before(&self) -> Before {
        Before {
            written: self.spec.written,
            durable: self.spec.durable,
            end: durable_end(&self.channel().inside()),
            operations: self.disk.operations(),
        }
    }

    fn take_step(&mut self, op: &Op, random: &mut Random) -> Checked {
        let channel = Arc::clone(self.channel().channel());
        match op {
            Op::Put {
                sizes,
                positions,
                now,
            } => self.put(sizes, *positions, *now)?,
            Op::PutRolledBack => {
                let mut put = PutTransaction::begin(channel as _);
                put.put(self.item(0, 50).to_put().event);
                put.rollback();
            }
            Op::GoAway(which) => {
                if let Some(at) = which.checked_rem(self.calls.len()) {
                    drop(self.calls.remove(at));
                }
            }
            Op::Lead => self.lead()?,
            Op::OpenLease { block_events } => self.open_lease(*block_events)?,
            Op::Take {
                lease,
                events,
                bytes,
            } => self.take(*lease, *events, *bytes)?,
            Op::Ack { lease, events } => {
                if let Some((id, range)) = self.front(*lease, *events) {
                    self.cut(id, range.last.0);
                    self.call(Call::ack(&channel, id, range))?;
                }
            }
            Op::Release(which) => {
                if let Some(at) = which.checked_rem(self.leases.len()) {
                    channel.release_lease(self.leases.remove(at).id);
                }
            }
            Op::Seal {
                lease,
                events,
                parts,
            } => {
                if let Some((id, range)) = self.front(*lease, *events) {
                    let request = request(range.last.0, *parts);
                    self.call(Call::seal(&channel, id, request))?;
                }
            }
            Op::Claimed(n) => self.of_an_epoch(*n, What::Claimed)?,
            Op::Done(n) => self.of_an_epoch(*n, What::Done)?,
            Op::Abandon(n) => self.of_an_epoch(*n, What::Abandon)?,
            Op::Fence(n) => self.call(Call::record(&channel, What::Fence(*n)))?,
            Op::Roll => drop(self.channel().roll()),
            Op::Idle(time) => {
                self.clock.pass(*time);
                self.channel().end_round(true);
            }
            Op::EndRound => self.channel().end_round(false),
            Op::Prepare => drop(self.channel().prepare()),
            Op::Space(segments) => self.change_space(*segments)?,
            Op::Fault(fault) => {
                self.disk.inject(fault.clone());
                self.stats.faults += 1;
            }
            Op::End(End::Close) => {
                self.closed = true;
                if let Err(error) = channel.close() {
                    let met = self.disk.faults_met() > self.met;
                    require(met, ENDED, || {
                        format!("close fails without a cause: {error}")
                    })?;
                    self.failed = true;
                }
            }
            Op::End(_) => {}
        }
        let _unused = random;
        self.settle()?;
        self.poll_all()
    }

    fn item(&self, index: usize, size: usize) -> Item {
        Item {
            transaction: self.transactions,
            index,
            size,
            written_ms: 0,
        }
    }

    fn put(&mut self, sizes: &[usize], positions: usize, now: bool) -> Checked {
        self.transactions += 1;
        let events: Vec<Item> = sizes
            .iter()
            .enumerate()
            .map(|(n, s)| self.item(n, *s))
            .collect();
        let position = |n: usize| {
            let key = format!("r1/{}", (self.transactions as usize + n) % 4);
            // Now and then a key is forgotten.
            let value = match (self.transactions + n as u64) % 11 {
                0 => String::new(),
                _ => format!("{}:{}", self.transactions, events.len()),
            };
            (key, Bytes::from(value))
        };
        let positions: Vec<_> = (0..positions).map(position).collect();
        let batch = batch(&events, &positions);
        let channel = Arc::clone(self.channel().channel());
        self.call(Call::put(&channel, What::Put { events, positions }, batch))?;
        if now { self.lead() } else { Ok(()) }
    }

    fn lead(&mut self) -> Checked {
        if self.channel().lead() == Turn::NoSpare {
            let _prepared = self.channel().prepare();
            let _turn = self.channel().lead();
        }
        Ok(())
    }

    fn open_lease(&mut self, block_events: Option<u64>) -> Checked {
        if self.leases.len() >= 4 {
            return Ok(());
        }
        let mode = match block_events {
            Some(block_events) => TakeMode::Staged { block_events },
            None => TakeMode::Batch,
        };
        match self.channel().channel().open_lease(mode) {
            Ok(id) => {
                let staged = block_events.is_some();
                let held = None;
                self.leases.push(Lease { id, staged, held });
                Ok(())
            }
            Err(error) => broken(ENDED, format!("no lease: {error}")),
        }
    }

    /// The first `events` of what a lease holds.
    fn front(&self, which: usize, events: u64) -> Option<(LeaseId, SeqRange)> {
        let lease = self.leases[which.checked_rem(self.leases.len())?];
        let (first, last) = lease.held?;
        let end = if events == 0 {
            last
        } else {
            last.min(first + events - 1)
        };
        Some((lease.id, SeqRange::new(Seq(first), Seq(end))?))
    }

    fn of_an_epoch(&mut self, which: usize, what: impl Fn(u64) -> What) -> Checked {
        let open: Vec<u64> = self.spec.durable_state().epochs.keys().copied().collect();
        let Some(at) = which.checked_rem(open.len()) else {
            return Ok(());
        };
        let channel = Arc::clone(self.channel().channel());
        self.call(Call::record(&channel, what(open[at])))
    }

    fn change_space(&mut self, segments: i8) -> Checked {
        if self.setup.room.is_none() {
            return Ok(());
        }
        let free = self
            .disk
            .space(std::path::Path::new("/"))
            .map_or(0, |space| space.free);
        let change = u64::from(segments.unsigned_abs()) * SEGMENT;
        self.disk.set_free(match segments > 0 {
            true => free + change,
            false => free.saturating_sub(change),
        });
        Ok(())
    }

    fn take(&mut self, which: usize, events: usize, bytes: usize) -> Checked {
        let Some(at) = which.checked_rem(self.leases.len()) else {
            return Ok(());
        };
        let lease = self.leases[at];
        let places = self.places();
        let batch = match self.channel().channel().lease_take(lease.id, events, bytes) {
            Ok(batch) => batch,
            Err(error) => {
                let met = self.disk.faults_met() > self.met;
                let may = met && matches!(error, ChannelError::Read { .. });
                return require(may, ORDER, || {
                    format!("a take fails without a cause: {error}")
                });
            }
        };
        require(batch.lost.is_empty(), check::VERDICT, || {
            format!("lost: {:?}", batch.lost)
        })?;
        require(batch.events.len() <= events, ORDER, || {
            format!(
                "{} events where {events} were asked for",
                batch.events.len()
            )
        })?;
        let mut next = lease.held.map(|(_, last)| last + 1);
        let alone = self.leases.len() == 1;
        let first_free = places.waiting.first().copied();
        let due = match (alone, next) {
            (true, None) => first_free,
            (true, Some(next)) if !lease.staged => {
                Some(next).filter(|n| places.waiting.contains(n))
            }
            _ => None,
        };
        require(due.is_none() || !batch.events.is_empty(), ORDER, || {
            format!("nothing is given to the only lease while {due:?} waits")
        })?;
        if next.is_none() && self.leases.iter().all(|l| !l.staged) {
            next = first_free;
        }
        for taken in &batch.events {
            let number = taken.seq.0;
            let follows = next.is_none_or(|next| next == number);
            require(follows && places.waiting.contains(&number), ORDER, || {
                format!("{number} was given to {lease:?}, next is {next:?}")
            })?;
            check::is_what_was_put(taken, &places.durable)?;
            next = Some(number + 1);
            let first = self.leases[at].held.map_or(number, |held| held.0);
            self.leases[at].held = Some((first, number));
        }
        self.stats.taken += batch.events.len() as u64;
        Ok(())
    }

    /// Asks the channel how far it has come, and moves the marks of the specification.
    fn settle(&mut self) -> Checked {
        let inside = self.channel().inside();
        let poisoned = self.channel().channel().status().poisoned;
        if let Some(reason) = poisoned {
            if !self.failed {
                let cause = self.disk.faults_met() > 0;
                require(cause, ENDED, || format!("without a cause: {reason}"))?;
                self.failed = true;
                self.stats.failures += 1;
            }
            self.spec
                .written_up_to(self.spec.entries.len(), self.now_ms());
            return Ok(());
        }
        if self.closed {
            // What had not been written is refused, and never will be.
            self.spec.entries.truncate(self.spec.written);
            self.spec.durable = self.spec.written;
            return Ok(());
        }
        let written = self.spec.entries.len() - inside.pending;
        self.spec.written_up_to(written, self.now_ms());
        let durable = written - inside.unsynced;
        require(durable >= self.spec.durable, check::ONCE, || {
            format!("{durable} entries are durable, {} were", self.spec.durable)
        })?;
        self.spec.durable = durable;
        Ok(())
    }

    /// The channel against the specification, between two steps.
    fn compare(&self) -> Checked {
        let places = self.places();
        check::same_state(&self.channel().log(), &places.durable)?;
        check::same_sums(&self.channel().channel().status(), places.sums())?;
        let unsynced = self.commits() && self.channel().inside().unsynced > 0;
        require(!unsynced, check::ONCE, || {
            "a group is left without a sync".to_owned()
        })
    }

    /// Where every durable event is.
    pub(crate) fn places(&self) -> Places {
        let durable = self.spec.durable_state();
        let mut gone: BTreeSet<u64> = durable.acked.clone();
        let mut sealed: BTreeSet<u64> = durable.sealed().collect();
        let mut committed = 0;
        for entry in &self.spec.entries[self.spec.durable..] {
            match entry {
                Entry::Ack(range) => gone.extend(range.first.0..=range.last.0),
                Entry::Seal(epoch) => sealed.extend(epoch.range.first.0..=epoch.range.last.0),
                Entry::Put { events, .. } => committed += events.len() as u64,
                _ => {}
            }
        }
        let held = |n: u64| {
            self.leases
                .iter()
                .find(|l| l.held.is_some_and(|h| h.0 <= n && n <= h.1))
        };
        let (mut waiting, mut leased, mut staged) = (BTreeSet::new(), 0, 0);
        let leaving = gone.len() + sealed.len() - durable.acked.len() - durable.sealed().count();
        for n in 1..=durable.events.len() as u64 {
            match held(n) {
                _ if gone.contains(&n) || sealed.contains(&n) => {}
                Some(lease) if lease.staged => staged += 1,
                Some(_) => leased += 1,
                None => drop(waiting.insert(n)),
            }
        }
        Places {
            durable,
            waiting,
            leased,
            staged,
            sealed: sealed.len() as u64,
            committed,
            leaving: leaving as u64,
        }
    }

    /// INV-16: whether the channel may say that it has no room for these events; the error says
    /// why it has. A put that `waits` is not told of what leaves before that is durable.
    pub(crate) fn is_full_for(&self, events: &[Item], waits: bool) -> Result<(), String> {
        let places = self.places();
        let mut used = places.waiting.len() as u64 + places.leased + places.committed;
        if waits {
            used += places.leaving;
        }
        if !events.is_empty() && used + events.len() as u64 > self.setup.capacity {
            return Ok(());
        }
        let inside = self.channel().inside();
        let frames = |items: &[Item]| items.iter().map(|i| i.size + 200).sum::<usize>() + 400;
        let queued = &self.spec.entries[self.spec.written..];
        let puts = queued.iter().map(|entry| match entry {
            Entry::Put { events, .. } => frames(events),
            _ => 1000,
        });
        let bytes = frames(events) + puts.sum::<usize>();
        let sure = !inside.short_of_space
            && (bytes <= inside.active_room || (inside.spares >= 6 && bytes <= 60_000));
        match sure {
            true => Err(format!(
                "{used} of {} events, {bytes} bytes, {inside:?}",
                self.setup.capacity
            )),
            false => Ok(()),
        }
    }

    /// Looks at crashes before any operation of the step, and after it.
    fn explore(&mut self, before: &Before, recorded: &[SimDisk], random: &mut Random) -> Checked {
        let images = match recorded.is_empty() {
            true => usize::from(random.one_in(4)),
            false => self.setup.images,
        };
        let end = durable_end(&self.channel().inside());
        for _ in 0..images {
            let at = random.below(recorded.len() + 1);
            let in_step = recorded.get(at);
            let way = Way::random(random);
            let mut expect = Expect {
                in_cache: match in_step {
                    Some(_) => self
                        .told_by(before.operations + at as u64)
                        .max(before.written),
                    None if self.failed => before.written,
                    None => self.spec.written,
                },
                on_disk: match in_step {
                    Some(_) => self
                        .told_by(before.operations + at as u64)
                        .max(before.durable),
                    None if self.failed => before.durable,
                    None => self.spec.durable,
                },
                most: self
                    .spec
                    .entries
                    .len()
                    .min(self.spec.written.max(before.written)),
                unknown_opens: 0,
                durable_end: Some(before.end),
                tears: self.disk.faults_met() > 0,
                rotten: false,
            };
            let image = way.of(in_step.unwrap_or(&self.disk));
            // Behind a rotten snapshot nobody can tell what was torn from what has rotted.
            let whole = !matches!(way, Way::Power(Crash::Mixed(_)));
            let steady = in_step.is_none() && !self.failed && !self.closed;
            if whole && steady && random.one_in(2) {
                expect.rotten = self.rot_newest_snapshot(&image, end, random);
            }
            let depth = random.below(self.setup.depth + 1);
            let spec = self.spec.clone();
            let expect = way.narrow(&expect);
            let place = (at, recorded.len());
            let examined = self
                .examiner(random)
                .examine(&spec, image, expect.clone(), depth);
            examined.map_err(|violation| {
                let what = violation.what;
                let what = format!("{what}; image {way:?} at {place:?}, depth {depth}, {expect:?}");
                check::Violation { what, ..violation }
            })?;
        }
        Ok(())
    }

    /// INV-1: what somebody was told of before this operation must be durable by then.
    fn told_by(&self, operation: u64) -> usize {
        let told = self.told.iter().filter(|(_, rung)| *rung <= operation);
        told.map(|(entry, _)| entry + 1).max().unwrap_or(0)
    }

    /// Damages the snapshot of the newest segment, where a later group has proven it.
    fn rot_newest_snapshot(&self, image: &SimDisk, end: (u32, u32), random: &mut Random) -> bool {
        let inside = self.channel().inside();
        let rolled = end.0 != self.opened_at.0;
        let proven = rolled || end.1 > self.opened_at.1;
        let [.., _, newest] = inside.segments.as_slice() else {
            return false;
        };
        let at = 4096 + random.below(100);
        proven && image.flip(&newest.path, at, 3).is_ok()
    }

    pub(crate) fn examiner(&mut self, random: &mut Random) -> Examiner<'_> {
        Examiner {
            setup: &self.setup,
            clock: &self.clock,
            stats: &mut self.stats,
            random: Random::new(random.next()),
        }
    }

    /// The process ends, and the next one opens the channel.
    fn end(&mut self, end: End, random: &mut Random) -> Checked {
        let way = match end {
            End::Close | End::Kill => Way::Kill,
            End::KillWithoutWriteBack => Way::KillWithoutWriteBack,
            End::PowerDropAll => Way::Power(Crash::DropAll),
            End::PowerKeepAll => Way::Power(Crash::KeepAll),
            End::Power => Way::Power(Crash::Mixed(random.next())),
        };
        let expect = Expect {
            in_cache: if self.failed {
                self.spec.durable
            } else {
                self.spec.written
            },
            on_disk: self.spec.durable,
            most: self.spec.written,
            unknown_opens: 0,
            durable_end: Some(durable_end(&self.channel().inside())),
            tears: self.disk.faults_met() > 0,
            rotten: false,
        };
        let image = way.of(&self.disk);
        self.calls.clear();
        self.leases.clear();
        self.channel = None;
        let seed = if self.keep.is_some() {
            UNDISTURBED
        } else {
            random.next()
        };
        self.reopen(image, way.narrow(&expect), seed)
    }

    /// Opens the channel; by seed the open is disturbed once.
    fn reopen(&mut self, mut image: SimDisk, mut expect: Expect, seed: u64) -> Checked {
        let mut random = Random::new(seed);
        if seed != UNDISTURBED && random.one_in(5) {
            image.inject(disturbance(&mut random));
        }
        if self.keep.is_some() {
            image.record();
        }
        let mut tries = 0;
        let channel = loop {
            let error = match self.examiner(&mut random).open(&image) {
                Ok(channel) => break channel,
                Err(error) => error,
            };
            let cause = image.faults_met() > 0 || self.setup.room.is_some();
            require(cause && tries < 2, check::AGAIN, || {
                format!("a sound log is refused: {error}")
            })?;
            tries += 1;
            self.stats.opens_failed += 1;
            let way = Way::random(&mut random);
            expect = way.narrow(&expect);
            expect.unknown_opens += 1;
            expect.tears = true;
            image = way.of(&image);
            if self.setup.room.is_some() {
                image.set_free(12 * SEGMENT);
            }
        };
        self.stats.crashes += 1;
        if self.keep.is_some() {
            self.keep = Some(image.recorded());
        }
        let (kept, opened) = super::crash::recognised(&self.spec, &channel, &expect)?;
        self.spec.fix(kept, opened.into_iter());
        self.opened_at = durable_end(&channel.inside());
        self.disk = image;
        self.channel = Some(channel);
        self.closed = false;
        self.failed = false;
        self.met = self.disk.faults_met();
        self.compare()?;
        check::drained(self.channel().channel(), &self.spec.durable_state())
    }

    /// The end of a history: everything drains, a put goes through, and what is left is nothing.
    pub(crate) fn finish(&mut self) -> Checked {
        let mut random = Random::new(self.stats.steps);
        self.end(End::Kill, &mut random)?;
        if self.setup.room.is_some() {
            self.disk.set_free(64 * SEGMENT);
        }
        for round in 0.. {
            let places = self.places();
            if places.waiting.is_empty()
                && places.durable.epochs.is_empty()
                && self.calls.is_empty()
            {
                break;
            }
            require(round < 200, DRAINS, || {
                format!("{places:?} after {round} rounds")
            })?;
            let random = &mut random;
            self.take_step(&Op::OpenLease { block_events: None }, random)?;
            self.take_step(
                &Op::Take {
                    lease: 0,
                    events: 100,
                    bytes: usize::MAX,
                },
                random,
            )?;
            self.take_step(
                &Op::Ack {
                    lease: 0,
                    events: 0,
                },
                random,
            )?;
            self.take_step(&Op::Done(0), random)?;
            self.take_step(&Op::Lead, random)?;
            self.take_step(&Op::Prepare, random)?;
            self.take_step(&Op::Idle(Duration::from_millis(300)), random)?;
            self.take_step(&Op::Release(0), random)?;
        }
        self.one_more_put(&mut random)?;
        self.take_step(&Op::End(End::Close), &mut random)?;
        self.end(End::Close, &mut random)?;
        let places = self.places();
        require(places.waiting.len() == 1, DENSE, || {
            format!("{:?} is left", places.waiting)
        })
    }

    fn one_more_put(&mut self, random: &mut Random) -> Checked {
        for round in 0.. {
            if self.calls.is_empty() {
                self.put(&[10], 1, true)?;
            }
            self.take_step(&Op::Lead, random)?;
            let written = State::of(&self.spec.entries[..self.spec.written]);
            if written.events.len() == written.acked.len() + 1 {
                return Ok(());
            }
            require(round < 50, CAPACITY, || {
                "no put goes through any more".to_owned()
            })?;
            self.take_step(&Op::Prepare, random)?;
            self.take_step(&Op::Idle(Duration::from_millis(300)), random)?;
        }
        Ok(())
    }
}

/// Where the durable frames end.
fn durable_end(inside: &Inside) -> (u32, u32) {
    inside
        .segments
        .last()
        .map_or((0, 0), |segment| (segment.number, segment.end))
}

/// The seed of an open that nothing disturbs.
pub(crate) const UNDISTURBED: u64 = 0;

/// An error in the middle of an open.
fn disturbance(random: &mut Random) -> Fault {
    use forebay::env::disk_sim::Call;
    let calls = [
        Call::Create,
        Call::Fill,
        Call::Store,
        Call::Sync,
        Call::Read,
        Call::Truncate,
        Call::Open,
        Call::List,
        Call::Lock,
        Call::Rename,
        Call::Remove,
        Call::SyncDir,
        Call::Map,
    ];
    let skip = u32::try_from(random.below(4)).unwrap_or(0);
    Fault::io(calls[random.below(calls.len())]).after(skip)
}

/// Where every durable event is, and what is on its way.
#[derive(Debug)]
pub(crate) struct Places {
    pub(crate) durable: State,
    pub(crate) waiting: BTreeSet<u64>,
    pub(crate) leased: u64,
    pub(crate) staged: u64,
    pub(crate) sealed: u64,
    /// Handed in and not yet durable.
    pub(crate) committed: u64,
    /// Acknowledged or sealed, and that is not yet durable.
    pub(crate) leaving: u64,
}

impl Places {
    fn sums(&self) -> Sums {
        Sums {
            waiting: self.waiting.len() as u64,
            held: self.leased + self.staged,
            sealed: self.sealed,
        }
    }
}
