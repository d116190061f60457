//! Whole logs, written by the real file channel on the simulated disk, and what they hold: events,
//! acknowledgements, epochs, positions, and the place of every frame. Used by the oracles of
//! `damaged_channel` and `snapshot`.
//!
//! *Recipe*: a number stands for a log, the same at every run but for salts and nonces. A recipe
//! puts, takes, seals, publishes, gives up, fences, rolls and rests, kills and cuts the power, also
//! during an open, over one or two directories; at the end the process is gone.
//!
//! Frames are found here by a walk of their own from docs/FORMAT.md, not by the crate.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use forebay::channel::file::simulation::{SteppedChannel, Turn};
use forebay::channel::file::{FileChannelOptions, OpenError};
use forebay::channel::{
    Channel, EpochPart, Position, PutBatch, PutEvent, SealRequest, TakeMode, TakeTransaction,
};
use forebay::env::clock::Clock;
use forebay::env::disk::Disk;
use forebay::env::disk_sim::SimDisk;
use forebay::event::{Event, Headers, Seq};

/// Bytes of a segment: the smallest.
pub(crate) const SEGMENT_BYTES: u64 = 64 << 10;
/// Events that a channel holds.
pub(crate) const CAPACITY: u64 = 1_000_000;
/// Both header copies and where frames begin.
pub(crate) const BLOCK: usize = 4096;
/// Bytes of a frame's header.
pub(crate) const HEADER: usize = 64;
/// How many recipes there are.
pub(crate) const RECIPES: u8 = 48;

/// Number of a kind in a frame header.
pub(crate) mod kind {
    pub(crate) const PUT: u8 = 1;
    pub(crate) const INCARNATION: u8 = 9;
    pub(crate) const SNAPSHOT: u8 = 11;
}

/// Headers and body of an event.
pub(crate) type Content = (Vec<(String, String)>, Vec<u8>);

/// A frame that the channel believed when it was last open.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) at: usize,
    /// Behind its body, without padding.
    pub(crate) body_end: usize,
    pub(crate) kind: u8,
    pub(crate) last_of_transaction: bool,
    pub(crate) sequence: u64,
    pub(crate) count: u64,
    pub(crate) watermark: u64,
}

/// A segment that the channel had when it was last open.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) number: u32,
    pub(crate) path: PathBuf,
    pub(crate) salt: u64,
    pub(crate) bytes: Vec<u8>,
    pub(crate) frames: Vec<Frame>,
}

impl Segment {
    pub(crate) fn lsn(&self, at: usize) -> u64 {
        u64::from(self.number) << 32 | u64::try_from(at).expect("a short log")
    }
}

/// See the module head.
#[derive(Clone, Debug, Default)]
pub(crate) struct Written {
    pub(crate) disk: SimDisk,
    pub(crate) dirs: Vec<PathBuf>,
    /// Every event whose put was answered.
    pub(crate) events: BTreeMap<u64, Content>,
    /// Numbers of events that were acknowledged or published.
    pub(crate) done: BTreeSet<u64>,
    /// Epochs that were sealed and neither done nor given up: first and last.
    pub(crate) epochs: BTreeMap<u64, (u64, u64)>,
    /// Segments in order, the active one last.
    pub(crate) segments: Vec<Segment>,
}

/// The log of a recipe, written once in a process.
pub(crate) fn recipe(number: u8) -> Arc<Written> {
    static LOGS: OnceLock<Mutex<BTreeMap<u8, Arc<Written>>>> = OnceLock::new();
    let logs = LOGS.get_or_init(Mutex::default);
    let mut logs = logs.lock().unwrap_or_else(|broken| broken.into_inner());
    let number = number % RECIPES;
    Arc::clone(logs.entry(number).or_insert_with(|| {
        let mut writer = Writer::new(number);
        for _ in 0..writer.random.between(4, 60) {
            writer.step();
        }
        Arc::new(writer.finish(number))
    }))
}

/// Options of every channel here.
pub(crate) fn options(dirs: &[PathBuf]) -> FileChannelOptions {
    FileChannelOptions {
        data_dirs: dirs.to_vec(),
        capacity: CAPACITY,
        max_file_size: SEGMENT_BYTES,
        minimum_required_space: 0,
        keep_dead: Duration::ZERO,
        ..FileChannelOptions::default()
    }
}

/// A clock that stands still until it is told.
#[derive(Debug)]
pub(crate) struct Still {
    begin: Instant,
    ms: AtomicU64,
}

impl Still {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            begin: Instant::now(),
            ms: AtomicU64::new(0),
        })
    }

    fn pass(&self, ms: u64) {
        self.ms.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Clock for Still {
    fn wall_ms(&self) -> u64 {
        1_700_000_000_000 + self.ms.load(Ordering::Relaxed)
    }

    fn now(&self) -> Instant {
        self.begin + Duration::from_millis(self.ms.load(Ordering::Relaxed))
    }
}

/// Opens the channel without threads.
pub(crate) fn open(
    disk: Arc<dyn Disk>,
    dirs: &[PathBuf],
    clock: &Arc<Still>,
) -> Result<SteppedChannel, OpenError> {
    let clock: Arc<dyn Clock> = Arc::<Still>::clone(clock);
    SteppedChannel::open("c", options(dirs), disk, clock)
}

/// Polls, and takes the turns of the channel's threads in between.
pub(crate) fn drive<F: Future>(channel: &SteppedChannel, future: F) -> F::Output {
    let mut future = pin!(future);
    for _ in 0..1000 {
        if let Poll::Ready(output) = future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            return output;
        }
        if channel.lead() == Turn::NoSpare {
            assert!(channel.prepare().is_some(), "no segment, and none wanted");
        }
    }
    panic!("a call that never ends");
}

/// Fills the pool of prepared segments.
pub(crate) fn prepare(channel: &SteppedChannel) {
    while channel.prepare() == Some(true) {}
}

/// Numbers from a seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        low + (self.0 >> 33) % (high - low + 1)
    }
}

struct Writer {
    random: Random,
    clock: Arc<Still>,
    channel: Option<SteppedChannel>,
    log: Written,
}

impl Writer {
    fn new(number: u8) -> Self {
        let dirs = ["/a", "/b"].iter().take(1 + usize::from(number % 2));
        let mut writer = Self {
            random: Random::new(u64::from(number) + 1),
            clock: Still::new(),
            channel: None,
            log: Written {
                dirs: dirs.map(PathBuf::from).collect(),
                ..Written::default()
            },
        };
        writer.reopen();
        writer
    }

    fn reopen(&mut self) {
        self.channel = None;
        let disk: Arc<dyn Disk> = Arc::new(self.log.disk.clone());
        let channel = open(disk, &self.log.dirs, &self.clock).expect("an undamaged log");
        prepare(&channel);
        self.channel = Some(channel);
    }

    fn channel(&self) -> &SteppedChannel {
        self.channel.as_ref().expect("an open channel")
    }

    fn step(&mut self) {
        prepare(self.channel());
        match self.random.between(0, 23) {
            0..=8 => self.put(),
            9..=11 => self.take(false),
            12..=14 => self.take(true),
            15 => self.end_an_epoch(),
            16 => {
                let journal = self.channel().channel().journal();
                let through = journal.incarnation().number - 1;
                drive(self.channel(), journal.fenced(through)).expect("a fence");
            }
            17 => self.rest(),
            18 | 19 => assert!(self.channel().roll(), "a roll"),
            20 => {
                let journal = self.channel().channel().journal();
                drive(self.channel(), journal.owned()).expect("an owner");
            }
            _ => self.end(),
        }
    }

    fn rest(&mut self) {
        for _ in 0..4 {
            self.clock.pass(700);
            self.channel().end_round(true);
        }
    }

    /// Ends the process in one way or another, and opens again.
    fn end(&mut self) {
        let seed = self.random.between(0, u64::from(u32::MAX));
        match self.random.between(0, 4) {
            0 => self.channel().channel().close().expect("a seal"),
            1 => self.log.disk = self.log.disk.crash(seed),
            2 => {
                // And once more while it opens.
                self.log.disk = self.log.disk.crash(seed);
                self.log.disk.cut_power_after(self.random.between(1, 40));
                let disk: Arc<dyn Disk> = Arc::new(self.log.disk.clone());
                let cut = open(disk, &self.log.dirs, &self.clock);
                drop(cut);
                self.log.disk = self.log.disk.crash(seed + 1);
            }
            _ => {}
        }
        self.channel = None;
        self.log.disk = self.log.disk.kill();
        self.reopen();
    }

    fn put(&mut self) {
        let next = self.channel().log().next_sequence;
        let count = self.random.between(0, 6);
        let large = self.random.between(0, 5) == 0;
        let mut batch = PutBatch::default();
        for sequence in next..next + count {
            let length = self.random.between(0, if large { 2600 } else { 90 });
            let (headers, body) = content(sequence, length);
            let mut set = Headers::new();
            headers
                .iter()
                .for_each(|(name, value)| set.set(name, value));
            let mut event = Event::from_body(body.clone());
            event.headers = set;
            let position = (self.random.between(0, 1) == 0).then_some((0, sequence));
            batch.events.push(PutEvent { event, position });
            self.log.events.insert(sequence, (headers, body));
        }
        let key = self.random.between(0, 3);
        batch.positions = vec![Position {
            key: format!("r/{key}"),
            value: (next + count - 1).to_string().into(),
        }];
        let range = self.channel().channel().commit_put_blocking(batch);
        let range = range.expect("a put").map(|r| (r.first.0, r.last.0));
        assert_eq!(range, (count > 0).then_some((next, next + count - 1)));
    }

    fn take(&mut self, seal: bool) {
        let most = usize::try_from(self.random.between(1, 40)).expect("few");
        let channel = self.channel.take().expect("an open channel");
        let dynamic: Arc<dyn Channel> = Arc::clone(channel.channel()) as _;
        let mode = TakeMode::Staged { block_events: 100 };
        let mode = if seal { mode } else { TakeMode::Batch };
        let mut take = TakeTransaction::begin(dynamic, mode).expect("a lease");
        take.take(most, 1 << 20).expect("a take");
        if let Some(held) = take.held() {
            let last = self.random.between(held.first.0, held.last.0);
            if seal {
                let sealed = drive(&channel, take.seal(request(last))).expect("a seal");
                let range = (sealed.range.first.0, sealed.range.last.0);
                self.log.epochs.insert(sealed.epoch, range);
            } else {
                drive(&channel, take.commit_through(Seq(last))).expect("an acknowledgement");
                self.log.done.extend(held.first.0..=last);
            }
        }
        drop(take);
        self.channel = Some(channel);
        if seal && self.random.between(0, 1) == 0 {
            self.end_an_epoch();
        }
    }

    /// Claims, and perhaps publishes, the oldest epoch; or gives it up.
    fn end_an_epoch(&mut self) {
        let Some((&epoch, &(first, last))) = self.log.epochs.first_key_value() else {
            return;
        };
        let journal = self.channel().channel().journal();
        if self.random.between(0, 3) == 0 {
            drive(self.channel(), journal.abandon(epoch)).expect("given up");
            self.log.epochs.remove(&epoch);
            return;
        }
        drive(self.channel(), journal.claimed(epoch)).expect("a claim");
        if self.random.between(0, 2) > 0 {
            drive(self.channel(), journal.done(epoch)).expect("published");
            self.log.epochs.remove(&epoch);
            self.log.done.extend(first..=last);
        }
    }

    /// Kills the process, and finds the frames that it believed.
    fn finish(mut self, number: u8) -> Written {
        let channel = self.channel.take().expect("an open channel");
        if number.is_multiple_of(5) {
            channel.channel().close().expect("a seal");
        }
        for segment in channel.inside().segments {
            let bytes = self.log.disk.content(&segment.path).expect("a segment");
            let salt = u64_at(&bytes, 48);
            let mut found = Segment {
                number: segment.number,
                path: segment.path,
                salt,
                bytes,
                frames: Vec::new(),
            };
            found.frames = walk(&found, usize::try_from(segment.end).expect("32 bits"));
            self.log.segments.push(found);
        }
        drop(channel);
        self.log.disk = self.log.disk.kill();
        self.log
    }
}

fn content(sequence: u64, length: u64) -> Content {
    let headers = (0..sequence % 3).map(|n| (format!("h{n}"), format!("{sequence}é")));
    let body = (0..length).map(|n| sequence.wrapping_add(n).to_le_bytes()[0]);
    (headers.collect(), body.collect())
}

fn request(last: u64) -> SealRequest {
    let part = EpochPart {
        staged_name: "0".into(),
        final_path: "/l/{epoch}".into(),
        count: 1,
        length: 2,
        crc32: 3,
    };
    SealRequest {
        last: Seq(last),
        sink: "k".into(),
        store: "file:///".into(),
        base: "/l".into(),
        attempt: "/l/a".into(),
        parts: vec![part],
    }
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let field = bytes[at..].first_chunk().expect("inside the header");
    u32::from_le_bytes(*field)
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at + 4)) << 32 | u64::from(u32_at(bytes, at))
}

/// The sum of a frame header at its place.
pub(crate) fn header_sum(header: &[u8], salt: u64, lsn: u64) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&salt.to_le_bytes());
    sum.update(&lsn.to_le_bytes());
    sum.update(&header[4..HEADER]);
    sum.finalize()
}

fn walk(segment: &Segment, end: usize) -> Vec<Frame> {
    let (mut at, mut frames) = (BLOCK, Vec::new());
    while at < end {
        let header = &segment.bytes[at..at + HEADER];
        let sum = header_sum(header, segment.salt, segment.lsn(at));
        assert_eq!(u32_at(header, 0), sum, "a bad frame in a fresh log");
        let length = usize::try_from(u32_at(header, 8)).expect("32 bits");
        let body_end = at + HEADER + length;
        let body = &segment.bytes[at + HEADER..body_end];
        assert_eq!(u32_at(header, 12), crc32fast::hash(body), "a bad body");
        frames.push(Frame {
            at,
            body_end,
            kind: header[4],
            last_of_transaction: header[5] & 2 != 0,
            sequence: u64_at(header, 16),
            count: u32_at(header, 24).into(),
            watermark: u64_at(header, 48),
        });
        at = body_end.next_multiple_of(8);
    }
    frames
}
