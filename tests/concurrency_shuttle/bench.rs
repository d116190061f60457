//! One channel on a simulated disk, and the runs that try schedules on it.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once, OnceLock};
use std::time::{Duration, Instant};

use forebay::channel::file::simulation::SteppedChannel;
use forebay::channel::file::{FileChannel, FileChannelOptions};
use forebay::channel::{Channel, PutBatch, PutEvent, TakeMode, TakenBatch};
use forebay::env::clock::Clock;
use forebay::env::disk_sim::{Crash, SimDisk};
use forebay::env::sync;
use forebay::event::Event;
use shuttle::rand::Rng;
use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler};
use shuttle::{Config, FailurePersistence, Runner};

/// The clock of the run, which passes when the test says so.
#[derive(Debug)]
pub(crate) struct RunClock;

impl Clock for RunClock {
    fn wall_ms(&self) -> u64 {
        1_700_000_000_000 + u64::try_from(sync::passed().as_millis()).unwrap()
    }

    fn now(&self) -> Instant {
        sync::now()
    }
}

/// Small segments; a put waits for ever as long as time stands still.
pub(crate) fn options() -> FileChannelOptions {
    FileChannelOptions {
        data_dirs: vec![PathBuf::from("/log")],
        capacity: 1_000,
        max_file_size: 64 << 10,
        minimum_required_space: 0,
        keep_alive: Duration::from_secs(60),
        keep_dead: Duration::ZERO,
        ..FileChannelOptions::default()
    }
}

/// A disk with a channel that was opened and closed and has all its prepared segments, so that
/// most schedules do not begin with the same long open.
fn prepared_disk() -> SimDisk {
    let disk = SimDisk::default();
    let channel = stepped(&disk, options());
    while channel.prepare() == Some(true) {}
    channel.channel().close().unwrap();
    drop(channel);
    disk.kill()
}

/// Opens without threads: the test takes their turns.
pub(crate) fn stepped(disk: &SimDisk, options: FileChannelOptions) -> SteppedChannel {
    SteppedChannel::open("c1", options, Arc::new(disk.clone()), Arc::new(RunClock)).unwrap()
}

static PREPARED: OnceLock<SimDisk> = OnceLock::new();

/// A channel with its threads, and its disk.
pub(crate) struct Bench {
    pub(crate) disk: SimDisk,
    pub(crate) channel: Arc<FileChannel>,
}

impl Bench {
    pub(crate) fn open(options: FileChannelOptions) -> Self {
        Self::on(PREPARED.get().unwrap().kill(), options)
    }

    /// On an empty disk: nothing is prepared ahead.
    pub(crate) fn open_fresh(options: FileChannelOptions) -> Self {
        Self::on(SimDisk::default(), options)
    }

    fn on(disk: SimDisk, options: FileChannelOptions) -> Self {
        let clock = Arc::new(RunClock);
        let channel = FileChannel::open("c1", options, Arc::new(disk.clone()), clock).unwrap();
        disk.count_unsynced_reads();
        Self { disk, channel }
    }

    pub(crate) fn dynamic(&self) -> Arc<dyn Channel> {
        Arc::clone(&self.channel) as _
    }

    /// Ends the run: nothing was read that was not on the medium, and a power loss leaves every
    /// one of `acknowledged` that is not in `gone`, and nothing of what was never put.
    pub(crate) fn finish(
        self,
        acknowledged: &BTreeSet<u64>,
        gone: &BTreeSet<u64>,
        put: &BTreeSet<u64>,
    ) {
        assert_eq!(self.disk.unsynced_reads(), 0, "read before the sync");
        drop(self.channel);
        let there = events_after(&self.disk.crash_as(Crash::DropAll));
        let lost: Vec<_> = acknowledged
            .difference(gone)
            .filter(|n| !there.contains(n))
            .collect();
        assert!(
            lost.is_empty(),
            "acknowledged and lost: {lost:?}, there: {there:?}"
        );
        let invented: Vec<_> = there.difference(put).collect();
        assert!(invented.is_empty(), "never put: {invented:?}");
        let again: Vec<_> = there.intersection(gone).collect();
        assert!(
            again.is_empty(),
            "acknowledged by a sink and there again: {again:?}"
        );
    }
}

fn marker(number: u64) -> String {
    format!("<{number:06}>")
}

/// Whether an event is in a segment's durable bytes.
pub(crate) fn keeps(disk: &SimDisk, number: u64) -> bool {
    let medium = disk.crash_as(Crash::DropAll);
    let marker = marker(number);
    files(&medium, "segment-").iter().any(|path| {
        let bytes = medium.content(path).unwrap();
        memchr::memmem::find(&bytes, marker.as_bytes()).is_some()
    })
}

/// Files whose name begins like this.
pub(crate) fn files(disk: &SimDisk, name: &str) -> Vec<PathBuf> {
    let named = |path: &PathBuf| {
        let file = path.file_name().map(|n| n.to_string_lossy().into_owned());
        file.is_some_and(|n| n.starts_with(name))
    };
    disk.files().into_iter().filter(named).collect()
}

/// What an open of this disk finds waiting.
pub(crate) fn events_after(disk: &SimDisk) -> BTreeSet<u64> {
    let channel = stepped(disk, options());
    let channel = channel.channel();
    let mut numbers = BTreeSet::new();
    loop {
        // A lease is contiguous: one for each run between what is acknowledged or sealed.
        let lease = channel.open_lease(TakeMode::Batch).unwrap();
        let before = numbers.len();
        loop {
            let batch = channel.lease_take(lease, 100, usize::MAX).unwrap();
            assert!(batch.lost.is_empty(), "{:?}", batch.lost);
            if batch.is_empty() {
                break;
            }
            for number in numbers_of(&batch) {
                assert!(numbers.insert(number), "{number} is there twice");
            }
        }
        if numbers.len() == before {
            return numbers;
        }
    }
}

/// One event of this number and size.
pub(crate) fn event(number: u64, size: usize) -> PutBatch {
    let mut body = marker(number).into_bytes();
    body.resize(size.max(body.len()), b'.');
    PutBatch {
        events: vec![PutEvent {
            event: Event::from_body(body),
            position: None,
        }],
        positions: Vec::new(),
    }
}

/// Numbers of taken events, whose bodies are whole.
pub(crate) fn numbers_of(batch: &TakenBatch) -> Vec<u64> {
    let number = |body: &[u8]| {
        assert!(body[8..].iter().all(|b| *b == b'.'), "a body is not whole");
        std::str::from_utf8(&body[1..7]).unwrap().parse().unwrap()
    };
    batch.events.iter().map(|e| number(&e.event.body)).collect()
}

/// A random number below `bound`, part of the schedule.
pub(crate) fn below(bound: usize) -> usize {
    shuttle::rand::thread_rng().gen_range(0..bound)
}

/// Lets others go on for a while.
pub(crate) fn dawdle(most: usize) {
    for _ in 0..below(most + 1) {
        sync::point();
    }
}

pub(crate) fn spawn<T: Send + 'static>(
    run: impl FnOnce() -> T + Send + 'static,
) -> shuttle::thread::JoinHandle<T> {
    shuttle::thread::spawn(run)
}

pub(crate) use shuttle::future::block_on;

fn config() -> Config {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/shuttle");
    std::fs::create_dir_all(&dir).unwrap();
    let mut config = Config::new();
    config.stack_size = 1 << 19;
    config.silence_warnings = true;
    config.failure_persistence = FailurePersistence::File(Some(dir));
    config
}

/// The scheduler's panic hook writes the schedule down. Not for panics that a test has ordered.
fn be_quiet_about_ordered_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let text = info.payload_as_str().unwrap_or_default();
            if !text.starts_with("simulated panic") {
                report(info);
            }
        }));
    });
}

fn number_from(name: &str, or: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
        Err(_) => or,
    }
}

/// Runs what the scheduler orders; a failure says at which schedule.
fn run(scheduler: impl Scheduler + 'static, scenario: fn()) -> usize {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let runner = Runner::new(scheduler, config());
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        runner.run(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            scenario();
        })
    }));
    outcome.unwrap_or_else(|panic| {
        println!(
            "failed at schedule {} of this scheduler",
            count.load(Ordering::Relaxed)
        );
        resume_unwind(panic)
    })
}

/// Tries schedules of a scenario: half of them by chance at every step, half with few changes of
/// who runs at unlikely moments (PCT).
pub(crate) fn explore(scenario: fn()) {
    run(RandomScheduler::new_from_seed(0, 1), || {
        PREPARED.get_or_init(prepared_disk);
    });
    be_quiet_about_ordered_panics();
    if let Ok(path) = std::env::var("FOREBAY_REPLAY") {
        run(ReplayScheduler::new_from_file(&path).unwrap(), scenario);
        return;
    }
    let count = usize::try_from(number_from("FOREBAY_SCHEDULES", 200)).unwrap();
    let seed = number_from("FOREBAY_SEED", 1);
    let start = Instant::now();
    let mut tried = run(
        RandomScheduler::new_from_seed(seed, count.div_ceil(2)),
        scenario,
    );
    for depth in [2, 3, 5] {
        let each = count.div_ceil(6);
        tried += run(PctScheduler::new_from_seed(seed, depth, each), scenario);
    }
    let thread = std::thread::current();
    let name = thread.name().unwrap_or_default();
    println!(
        "{name}: {tried} schedules from seed {seed} in {:.1?}",
        start.elapsed()
    );
}
