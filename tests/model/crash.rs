//! Crash images: recovered, looked at, crashed again.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use forebay::channel::Channel;
use forebay::channel::file::simulation::SteppedChannel;
use forebay::channel::file::{FileChannelOptions, OpenError};
use forebay::env::clock::Clock;
use forebay::env::disk_sim::{Crash, SimDisk};

use super::Stats;
use super::check::{self, AGAIN, Bounds, Checked, Sums, broken, require};
use super::dump::dump;
use super::history::{Random, Setup};
use super::queue::Spec;

/// The smallest segment there is.
pub(crate) const SEGMENT: u64 = 64 << 10;

/// A clock that is moved by hand.
#[derive(Debug)]
pub(crate) struct HandClock {
    begin: Instant,
    passed_ms: AtomicU64,
}

impl HandClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            begin: Instant::now(),
            passed_ms: AtomicU64::new(0),
        })
    }

    pub(crate) fn pass(&self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap_or(0);
        self.passed_ms.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Clock for HandClock {
    fn wall_ms(&self) -> u64 {
        // Some day in 2023; far from zero.
        1_700_000_000_000 + self.passed_ms.load(Ordering::Relaxed)
    }

    fn now(&self) -> Instant {
        self.begin + Duration::from_millis(self.passed_ms.load(Ordering::Relaxed))
    }
}

pub(crate) fn options(setup: &Setup) -> FileChannelOptions {
    FileChannelOptions {
        data_dirs: (0..setup.dirs)
            .map(|n| PathBuf::from(format!("/d{n}")))
            .collect(),
        capacity: setup.capacity,
        transaction_capacity: 100,
        keep_alive: setup.keep_alive,
        max_file_size: SEGMENT,
        minimum_required_space: SEGMENT,
        byte_capacity: setup.byte_capacity.map(|segments| segments * SEGMENT),
        sync: setup.sync,
        backend: setup.backend,
        keep_dead: setup.keep_dead,
    }
}

/// What may be found on an image.
#[derive(Clone, Debug)]
pub(crate) struct Expect {
    /// At least this many entries are there while the kernel has not gone down.
    pub(crate) in_cache: usize,
    /// At least this many entries are there after a power loss.
    pub(crate) on_disk: usize,
    pub(crate) most: usize,
    pub(crate) unknown_opens: usize,
    /// Segment and offset up to which all is durable.
    pub(crate) durable_end: Option<(u32, u32)>,
    /// Whether a torn tail is possible.
    pub(crate) tears: bool,
    /// The newest snapshot has been damaged.
    pub(crate) rotten: bool,
}

/// How an image comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Kill,
    KillWithoutWriteBack,
    Power(Crash),
}

impl Way {
    pub(crate) fn random(random: &mut Random) -> Self {
        match random.below(12) {
            0 => Self::Power(Crash::DropAll),
            1 => Self::Power(Crash::KeepAll),
            2 => Self::Kill,
            3 => Self::KillWithoutWriteBack,
            _ => Self::Power(Crash::Mixed(random.next())),
        }
    }

    pub(crate) fn of(self, disk: &SimDisk) -> SimDisk {
        match self {
            Self::Kill => disk.kill(),
            Self::KillWithoutWriteBack => {
                let image = disk.kill();
                image.fail_write_back();
                image
            }
            Self::Power(crash) => disk.crash_as(crash),
        }
    }

    /// What is expected of an image of this kind.
    pub(crate) fn narrow(self, expect: &Expect) -> Expect {
        let mut expect = expect.clone();
        match self {
            Self::Kill | Self::KillWithoutWriteBack => {}
            Self::Power(_) => expect.in_cache = expect.on_disk,
        }
        expect.tears |= matches!(self, Self::Power(Crash::Mixed(_)));
        expect
    }
}

/// Looks at crash images of one channel.
pub(crate) struct Examiner<'a> {
    pub(crate) setup: &'a Setup,
    pub(crate) clock: &'a Arc<HandClock>,
    pub(crate) stats: &'a mut Stats,
    pub(crate) random: Random,
    /// Whether any image of these was damaged: a recovery leaves that where it is.
    pub(crate) rot: bool,
}

impl Examiner<'_> {
    pub(crate) fn open(&self, disk: &SimDisk) -> Result<SteppedChannel, OpenError> {
        let clock: Arc<dyn Clock> = Arc::clone(self.clock) as _;
        SteppedChannel::open("c1", options(self.setup), Arc::new(disk.clone()), clock)
    }

    /// Opens an image on which nothing is wrong but, perhaps, its space.
    fn open_sound(
        &mut self,
        image: SimDisk,
        expect: &mut Expect,
    ) -> Checked<(SimDisk, SteppedChannel)> {
        match self.open(&image) {
            Ok(channel) => Ok((image, channel)),
            Err(_) if self.setup.room.is_some() => {
                self.stats.refused_for_space += 1;
                expect.unknown_opens += 1;
                let image = image.kill();
                image.set_free(64 * SEGMENT);
                match self.open(&image) {
                    Ok(channel) => Ok((image, channel)),
                    Err(error) => broken(AGAIN, format!("a sound log is refused: {error}")),
                }
            }
            Err(error) => broken(AGAIN, format!("a sound log is refused: {error}")),
        }
    }

    /// Recovers one image and checks all of it; then crashes in that recovery and behind it.
    pub(crate) fn examine(
        &mut self,
        spec: &Spec,
        image: SimDisk,
        mut expect: Expect,
        depth: usize,
    ) -> Checked {
        self.stats.crashes += 1;
        self.stats.deepest = self.stats.deepest.max(self.setup.depth - depth + 1);
        let found = image.kill();
        self.rot |= expect.rotten;
        let verified = match !self.rot && self.random.one_in(4) {
            true => check::verified(&found, &options(self.setup).data_dirs),
            false => Ok(()),
        };
        verified
            .and_then(|()| self.recovered(spec, image, &mut expect, depth))
            .map_err(|violation| {
                let what = format!("{}\n  on this image:\n{}", violation.what, dump(&found));
                check::Violation { what, ..violation }
            })
    }

    fn recovered(
        &mut self,
        spec: &Spec,
        image: SimDisk,
        expect: &mut Expect,
        depth: usize,
    ) -> Checked {
        if depth > 0 {
            image.record();
        }
        let (image, channel) = self.open_sound(image, expect)?;
        let recorded = image.recorded();
        let (kept, opened) = recognised(spec, &channel, expect)?;
        let mut after = spec.clone();
        after.fix(kept, opened.into_iter());
        let state = after.durable_state();
        let sealed = state.sealed().count() as u64;
        let waiting = state.events.len() as u64 - state.acked.len() as u64 - sealed;
        let sums = Sums {
            waiting,
            sealed,
            held: 0,
        };
        check::same_sums(&channel.channel().status(), sums)?;
        check::drained(channel.channel(), &state)?;
        if depth == 0 {
            return self.again(&image, &after, channel);
        }
        drop(channel);
        self.crash_in_recovery(spec, &recorded, expect, depth)?;
        let behind = Expect {
            in_cache: after.durable,
            on_disk: after.durable,
            most: after.durable,
            unknown_opens: 0,
            durable_end: None,
            tears: true,
            rotten: false,
        };
        if !self.random.one_in(3) {
            return Ok(());
        }
        let way = Way::random(&mut self.random);
        self.examine(&after, way.of(&image), way.narrow(&behind), depth - 1)
            .map_err(|v| inside(v, "behind a recovery", way))
    }

    fn crash_in_recovery(
        &mut self,
        spec: &Spec,
        recorded: &[SimDisk],
        expect: &Expect,
        depth: usize,
    ) -> Checked {
        if recorded.is_empty() || expect.rotten {
            return Ok(());
        }
        let disk = &recorded[self.random.below(recorded.len())];
        let way = Way::random(&mut self.random);
        let mut expect = way.narrow(expect);
        expect.unknown_opens += 1;
        expect.tears = true;
        self.stats.in_recovery += 1;
        self.examine(spec, way.of(disk), expect, depth - 1)
            .map_err(|v| inside(v, "a recovery", way))
    }

    /// INV-17: opening again what was opened gives the same state.
    fn again(&mut self, image: &SimDisk, after: &Spec, channel: SteppedChannel) -> Checked {
        if !self.random.one_in(8) {
            return Ok(());
        }
        drop(channel);
        let mut expect = Expect {
            in_cache: after.durable,
            on_disk: after.durable,
            most: after.durable,
            unknown_opens: 0,
            durable_end: None,
            tears: false,
            rotten: false,
        };
        self.stats.crashes += 1;
        let (_, channel) = self.open_sound(image.kill(), &mut expect)?;
        let torn = channel.found().torn;
        require(torn.is_none(), AGAIN, || {
            format!("a second open finds {torn:?}")
        })?;
        recognised(after, &channel, &expect).map(drop)
    }
}

fn inside(violation: check::Violation, place: &str, way: Way) -> check::Violation {
    let what = format!("{}; crashed {place} as {way:?}", violation.what);
    check::Violation { what, ..violation }
}

/// Which beginning an opened channel shows, and whether its verdict is right.
pub(crate) fn recognised(
    spec: &Spec,
    channel: &SteppedChannel,
    expect: &Expect,
) -> Checked<(usize, Vec<(u32, u64)>)> {
    if !expect.rotten {
        check::verdict(channel, expect.durable_end, expect.tears)?;
    }
    let bounds = Bounds {
        least: expect.in_cache,
        most: expect.most,
        unknown_opens: expect.unknown_opens,
    };
    check::recognise(&channel.log(), &spec.entries, &bounds)
}
