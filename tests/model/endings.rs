//! How processes end, and how the next one begins: crash images around each step, kills, power
//! losses, disturbed opens, and the end of a history.

use std::time::Duration;

use forebay::env::disk_sim::{Call, Crash, Fault, SimDisk};

use super::check::{self, CAPACITY, Checked, DENSE, DRAINS, require};
use super::crash::{Examiner, Expect, SEGMENT, Way};
use super::driver::{Before, Driver, durable_end};
use super::history::{End, Op, Random};
use super::queue::State;

impl Driver {
    /// Looks at crashes before any operation of the step, and after it.
    pub(super) fn explore(
        &mut self,
        before: &Before,
        recorded: &[SimDisk],
        random: &mut Random,
    ) -> Checked {
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
    pub(super) fn told_by(&self, operation: u64) -> usize {
        let told = self.told.iter().filter(|(_, rung)| *rung <= operation);
        told.map(|(entry, _)| entry + 1).max().unwrap_or(0)
    }

    /// Damages the snapshot of the newest segment, where a later group has proven it.
    pub(super) fn rot_newest_snapshot(
        &self,
        image: &SimDisk,
        end: (u32, u32),
        random: &mut Random,
    ) -> bool {
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
            rot: false,
        }
    }

    /// The process ends, and the next one opens the channel; by seed the open is disturbed once.
    pub(super) fn end(&mut self, end: End, random: &mut Random) -> Checked {
        let seed = match self.keep {
            Some(_) => UNDISTURBED,
            None => random.next(),
        };
        self.end_and_open(end, random, seed)
    }

    fn end_and_open(&mut self, end: End, random: &mut Random, seed: u64) -> Checked {
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
        self.reopen(image, way.narrow(&expect), seed)
    }

    /// Opens the channel; by seed the open is disturbed once.
    pub(super) fn reopen(&mut self, mut image: SimDisk, mut expect: Expect, seed: u64) -> Checked {
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
        // What a disturbed open has not met would meet the last put.
        self.end_and_open(End::Kill, &mut random, UNDISTURBED)?;
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
            self.take_step(&Op::OpenLease { block_events: None })?;
            self.take_step(&Op::Take {
                lease: 0,
                events: 100,
                bytes: usize::MAX,
            })?;
            self.take_step(&Op::Ack {
                lease: 0,
                events: 0,
            })?;
            self.take_step(&Op::Done(0))?;
            self.take_step(&Op::Lead)?;
            self.take_step(&Op::Prepare)?;
            self.take_step(&Op::Idle(Duration::from_millis(300)))?;
            self.take_step(&Op::Release(0))?;
        }
        self.one_more_put()?;
        self.take_step(&Op::End(End::Close))?;
        self.end(End::Close, &mut random)?;
        let places = self.places();
        require(places.waiting.len() == 1, DENSE, || {
            format!("{:?} is left", places.waiting)
        })
    }

    pub(super) fn one_more_put(&mut self) -> Checked {
        for round in 0.. {
            if self.calls.is_empty() {
                self.put(&[10], 1, true)?;
            }
            self.take_step(&Op::Lead)?;
            let written = State::of(&self.spec.entries[..self.spec.written]);
            if written.events.len() == written.acked.len() + 1 {
                return Ok(());
            }
            require(round < 50, CAPACITY, || {
                "no put goes through any more".to_owned()
            })?;
            self.take_step(&Op::Prepare)?;
            self.take_step(&Op::Idle(Duration::from_millis(300)))?;
        }
        Ok(())
    }
}

/// The seed of an open that nothing disturbs.
pub(crate) const UNDISTURBED: u64 = 0;

/// An error in the middle of an open.
fn disturbance(random: &mut Random) -> Fault {
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
