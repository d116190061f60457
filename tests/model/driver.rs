//! Runs one history on a channel and on the specification, step by step.

use std::collections::BTreeSet;
use std::sync::Arc;

use forebay::channel::file::SyncMode;
use forebay::channel::file::simulation::{Inside, SteppedChannel};
use forebay::channel::{Channel, LeaseId, PutTransaction};
use forebay::env::clock::Clock;
use forebay::env::disk_sim::SimDisk;

use super::Stats;
use super::calls::{Call, What};
use super::check::{self, CAPACITY, Checked, ENDED, Sums, require};
use super::crash::{Expect, HandClock, SEGMENT};
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
    pub(super) channel: Option<SteppedChannel>,
    pub(crate) spec: Spec,
    pub(crate) leases: Vec<Lease>,
    pub(crate) calls: Vec<Call>,
    pub(crate) stats: Stats,
    pub(crate) closed: bool,
    pub(super) failed: bool,
    pub(super) transactions: u64,
    /// Faults met when the step began.
    pub(super) met: u64,
    /// Segment and durable end of the log when it was opened.
    pub(super) opened_at: (u32, u32),
    /// Entries that somebody was told of in this step as durable, and at which operation.
    pub(crate) told: Vec<(usize, u64)>,
    /// Where the disk is kept before each operation of the next open.
    pub(super) keep: Option<Vec<SimDisk>>,
}

/// The marks before a step, for crashes in the middle of it.
pub(super) struct Before {
    pub(super) written: usize,
    pub(super) durable: usize,
    pub(super) end: (u32, u32),
    pub(super) operations: u64,
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

    pub(super) fn now_ms(&self) -> u64 {
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
        let done = self.take_step(&step.op);
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
        let done = self.take_step(op);
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

    pub(super) fn before(&self) -> Before {
        Before {
            written: self.spec.written,
            durable: self.spec.durable,
            end: durable_end(&self.channel().inside()),
            operations: self.disk.operations(),
        }
    }

    pub(super) fn take_step(&mut self, op: &Op) -> Checked {
        self.act(op)?;
        self.settle()?;
        self.poll_all()
    }

    fn act(&mut self, op: &Op) -> Checked {
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
            Op::Ack { lease, events } => self.acknowledge(*lease, *events)?,
            Op::Release(which) => {
                if let Some(at) = which.checked_rem(self.leases.len()) {
                    channel.release_lease(self.leases.remove(at).id);
                }
            }
            Op::Seal {
                lease,
                events,
                parts,
            } => self.seal(*lease, *events, *parts)?,
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
            Op::End(End::Close) => self.close()?,
            Op::End(_) => {}
        }
        Ok(())
    }

    fn close(&mut self) -> Checked {
        self.closed = true;
        if let Err(error) = self.channel().channel().close() {
            let met = self.disk.faults_met() > self.met;
            require(met, ENDED, || {
                format!("close fails without a cause: {error}")
            })?;
            self.failed = true;
        }
        Ok(())
    }

    /// Asks the channel how far it has come, and moves the marks of the specification.
    pub(super) fn settle(&mut self) -> Checked {
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
    pub(super) fn compare(&self) -> Checked {
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

    /// INV-16: a put was let in.
    pub(crate) fn has_room_for(&self, events: &[Item]) -> Checked {
        let places = self.places();
        let used = places.waiting.len() as u64 + places.leased + places.committed;
        let (more, capacity) = (events.len() as u64, self.setup.capacity);
        require(more == 0 || used + more <= capacity, CAPACITY, || {
            format!("{more} events were let in with {used} of {capacity} in use")
        })
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
}

/// Where the durable frames end.
pub(super) fn durable_end(inside: &Inside) -> (u32, u32) {
    inside
        .segments
        .last()
        .map_or((0, 0), |segment| (segment.number, segment.end))
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
    pub(super) fn sums(&self) -> Sums {
        Sums {
            waiting: self.waiting.len() as u64,
            held: self.leased + self.staged,
            sealed: self.sealed,
        }
    }
}
