//! A small log that holds everything a log can hold, and what is true of it.
//!
//! | segment | records |
//! |---|---|
//! | 0 | snapshot, incarnation, puts, ack, watermark, seal of the segment |
//! | 1 | snapshot, puts, an epoch that is done, one that is claimed, one that was given up, fence |
//! | 2 | snapshot, puts, an epoch that is sealed, an ack in the middle; ended by a kill, and cut |
//! | 3 | opening snapshot, a copied tail, incarnation, watermark, puts, ack; not closed |

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use forebay::channel::file::FileChannelOptions;
use forebay::channel::file::simulation::SteppedChannel;
use forebay::channel::{
    Channel, EpochPart, Position, PutBatch, PutEvent, SealRequest, TakeMode, TakeTransaction,
};
use forebay::env::clock::Clock;
use forebay::env::disk_sim::SimDisk;
use forebay::event::{Event, Seq};
use wal_format::{
    FrameHeader, FrameKind, Lsn, Record, SEGMENT_HEADER_BYTES, Scanner, SegmentHeader, Step,
};

/// A clock that is moved by hand.
#[derive(Debug)]
pub(crate) struct Hand {
    start: Instant,
    ms: AtomicU64,
}

impl Hand {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            ms: AtomicU64::new(0),
        })
    }

    fn forward(&self, ms: u64) {
        self.ms.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Clock for Hand {
    fn wall_ms(&self) -> u64 {
        1_700_000_000_000 + self.ms.load(Ordering::Relaxed)
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.ms.load(Ordering::Relaxed))
    }
}

pub(crate) fn data() -> PathBuf {
    PathBuf::from("/data")
}

pub(crate) fn options_at(dir: PathBuf) -> FileChannelOptions {
    FileChannelOptions {
        data_dirs: vec![dir],
        max_file_size: 64 << 10,
        minimum_required_space: 1 << 20,
        keep_alive: Duration::from_millis(50),
        ..FileChannelOptions::default()
    }
}

pub(crate) fn open_at(
    disk: &SimDisk,
    clock: &Arc<Hand>,
    dir: PathBuf,
) -> Result<SteppedChannel, forebay::channel::file::OpenError> {
    let clock: Arc<dyn Clock> = Arc::clone(clock) as _;
    SteppedChannel::open("c1", options_at(dir), Arc::new(disk.clone()), clock)
}

/// Takes turns until the future has ended.
fn finish<T>(channel: &SteppedChannel, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..100 {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        channel.lead();
        channel.end_round(false);
        channel.prepare();
    }
    panic!("nothing comes of it");
}

fn prepare(channel: &SteppedChannel) {
    while channel.prepare() == Some(true) {}
}

fn as_channel(channel: &SteppedChannel) -> Arc<dyn Channel> {
    Arc::clone(channel.channel()) as _
}

/// What event `n` is: every one differs in length, header and body.
pub(crate) fn event(n: u64) -> Event {
    let mut event = Event::from_body(format!("event {n} {}", "abcdefg".repeat(n as usize % 4)));
    event.headers.set("n", n.to_string());
    if n.is_multiple_of(3) {
        event.headers.set("host", "ä");
    }
    event
}

fn put(channel: &SteppedChannel, clock: &Hand, first: u64, last: u64) {
    clock.forward(3);
    let source = first % 2;
    let batch = PutBatch {
        events: (first..=last)
            .map(|n| PutEvent {
                event: event(n),
                position: Some((0, n)),
            })
            .collect(),
        positions: vec![Position {
            key: format!("r{source}/file"),
            value: last.to_string().into(),
        }],
    };
    let range = finish(channel, as_channel(channel).commit_put(batch)).unwrap();
    let range = range.unwrap();
    assert_eq!((range.first, range.last), (Seq(first), Seq(last)));
}

fn ack(channel: &SteppedChannel, events: usize) {
    let mut take = TakeTransaction::begin(as_channel(channel), TakeMode::Batch).unwrap();
    take.take(events, usize::MAX).unwrap();
    finish(channel, take.commit()).unwrap();
}

fn seal(channel: &SteppedChannel, events: usize) {
    let mode = TakeMode::Staged { block_events: 100 };
    let mut take = TakeTransaction::begin(as_channel(channel), mode).unwrap();
    take.take(events, usize::MAX).unwrap();
    let last = take.held().unwrap().last;
    let request = SealRequest {
        last,
        sink: "k1".into(),
        store: "file://".into(),
        base: "/out".into(),
        attempt: "/out/_staging/c/i1/a1".into(),
        parts: vec![EpochPart {
            staged_name: format!("p{last}"),
            final_path: format!("/out/part-{{epoch}}-{last}"),
            count: events as u64,
            length: 77,
            crc32: 5,
        }],
    };
    finish(channel, take.seal(request)).unwrap();
}

fn quiet(channel: &SteppedChannel, clock: &Hand) {
    for _ in 0..4 {
        clock.forward(700);
        channel.end_round(true);
    }
}

/// The log as a kill has left it.
pub(crate) fn write(clock: &Arc<Hand>) -> SimDisk {
    let disk = SimDisk::default();
    let channel = open_at(&disk, clock, data()).unwrap();
    let journal = channel.channel().journal();
    prepare(&channel);
    put(&channel, clock, 1, 3);
    put(&channel, clock, 4, 5);
    ack(&channel, 2);
    quiet(&channel, clock);
    put(&channel, clock, 6, 7);
    assert!(channel.roll());
    prepare(&channel);
    put(&channel, clock, 8, 10);
    seal(&channel, 2);
    finish(&channel, journal.claimed(1)).unwrap();
    finish(&channel, journal.done(1)).unwrap();
    seal(&channel, 2);
    finish(&channel, journal.claimed(2)).unwrap();
    seal(&channel, 1);
    finish(&channel, journal.abandon(3)).unwrap();
    finish(&channel, journal.fenced(0)).unwrap();
    put(&channel, clock, 11, 12);
    assert!(channel.roll());
    prepare(&channel);
    put(&channel, clock, 13, 15);
    seal(&channel, 2);
    ack(&channel, 2);
    put(&channel, clock, 16, 17);
    drop((channel, journal));
    let disk = disk.kill();
    let channel = open_at(&disk, clock, data()).unwrap();
    prepare(&channel);
    put(&channel, clock, 18, 19);
    put(&channel, clock, 20, 21);
    ack(&channel, 2);
    put(&channel, clock, 22, 23);
    drop(channel);
    disk.kill()
}

/// A frame of the log.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) segment: u32,
    pub(crate) at: usize,
    /// Behind the body.
    pub(crate) end: usize,
    /// Behind the padding.
    pub(crate) next: usize,
    pub(crate) header: FrameHeader,
    pub(crate) record: Option<Record>,
    /// Whether no later open has ended the log before it.
    pub(crate) believed: bool,
}

impl Frame {
    pub(crate) fn lsn(&self) -> Lsn {
        Lsn::new(self.segment, self.at as u32)
    }

    pub(crate) fn sequences(&self) -> std::ops::Range<u64> {
        match self.header.kind {
            FrameKind::Put => {
                self.header.sequence..self.header.sequence + u64::from(self.header.count)
            }
            _ => 0..0,
        }
    }

    /// Whether losing it loses a decision.
    pub(crate) fn is_numbered(&self) -> bool {
        !matches!(
            self.header.kind,
            FrameKind::Put | FrameKind::Watermark | FrameKind::Snapshot | FrameKind::SegmentSeal
        )
    }
}

/// One file of the log.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) number: u32,
    pub(crate) path: PathBuf,
    pub(crate) bytes: Vec<u8>,
    /// Behind its last frame.
    pub(crate) end: usize,
    pub(crate) sealed: bool,
    /// Whether its header stands at its end too.
    pub(crate) two_headers: bool,
}

/// The log and what is true of it.
#[derive(Debug)]
pub(crate) struct Truth {
    pub(crate) disk: SimDisk,
    pub(crate) clock: Arc<Hand>,
    pub(crate) segments: Vec<Segment>,
    pub(crate) frames: Vec<Frame>,
    /// Every event that was put.
    pub(crate) events: BTreeMap<u64, Event>,
    /// What sinks had acknowledged.
    pub(crate) delivered: Vec<u64>,
    /// What waits.
    pub(crate) waiting: Vec<u64>,
    /// Open epochs: number, claimed, first and last event.
    pub(crate) epochs: Vec<(u64, bool, u64, u64)>,
    pub(crate) positions: Vec<(String, String)>,
}

impl Truth {
    pub(crate) fn new() -> Self {
        let clock = Hand::new();
        let disk = write(&clock);
        let segments = segments(&disk);
        let frames = frames(&segments);
        let times: BTreeMap<u64, u64> = frames
            .iter()
            .flat_map(|f| f.sequences().map(|n| (n, f.header.put_time_ms)))
            .collect();
        let events = (1..=23).map(|n| {
            let put_time_ms = times[&n];
            (
                n,
                Event {
                    put_time_ms,
                    ..event(n)
                },
            )
        });
        let truth = Self {
            events: events.collect(),
            delivered: [(1..5), (9..13)].into_iter().flatten().collect(),
            waiting: (13..24).collect(),
            epochs: vec![(2, true, 5, 6), (4, false, 7, 8)],
            positions: vec![
                ("r0/file".into(), "23".into()),
                ("r1/file".into(), "15".into()),
            ],
            disk,
            clock,
            segments,
            frames,
        };
        truth.check();
        truth
    }

    /// The log holds what the head of this file says.
    fn check(&self) {
        let kinds = |n: u32| -> Vec<FrameKind> {
            let of = self.frames.iter().filter(|f| f.segment == n);
            of.map(|f| f.header.kind).collect()
        };
        let all: Vec<FrameKind> = (0..4).flat_map(kinds).collect();
        for kind in FrameKind::ALL {
            // Nothing writes routes yet.
            assert!(all.contains(&kind) || kind == FrameKind::Routes, "{kind:?}");
        }
        assert_eq!(self.segments.len(), 4);
        let sealed: Vec<bool> = self.segments.iter().map(|s| s.sealed).collect();
        assert_eq!(sealed, [true, true, false, false]);
        let two: Vec<bool> = self.segments.iter().map(|s| s.two_headers).collect();
        assert_eq!(two, [true, true, false, true]);
        let stale = self.frames.iter().filter(|f| !f.believed).count();
        assert!(stale > 0, "a tail that was copied forward");
        let last = self.frames.last().unwrap();
        assert_eq!(last.sequences(), 22..24, "the last group is events");
    }
}

pub(crate) fn segments(disk: &SimDisk) -> Vec<Segment> {
    let mut found = Vec::new();
    for path in disk.files() {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let Some(digits) = name.strip_prefix("segment-") else {
            continue;
        };
        let bytes = disk.content(&path).unwrap();
        let header = SegmentHeader::decode(&bytes[..4096]).unwrap();
        found.push(Segment {
            number: digits.trim_end_matches(".wal").parse().unwrap(),
            path,
            two_headers: header.size as usize == bytes.len(),
            bytes,
            end: 0,
            sealed: false,
        });
    }
    found.sort_by_key(|s| s.number);
    for segment in &mut found {
        for frame in frames_of(segment) {
            segment.end = frame.next;
            segment.sealed |= frame.header.kind == FrameKind::SegmentSeal;
        }
    }
    found
}

fn frames_of(segment: &Segment) -> Vec<Frame> {
    let header = SegmentHeader::decode(&segment.bytes[..4096]).unwrap();
    let end = header.frames_end().min(segment.bytes.len() as u32);
    let mut scanner = Scanner::new(
        &segment.bytes[..],
        segment.number,
        header.salt,
        SEGMENT_HEADER_BYTES,
        end,
        Lsn(0),
    );
    let mut frames = Vec::new();
    while let Step::Frame { lsn, header, body } = scanner.step().unwrap() {
        let at = lsn.offset() as usize;
        frames.push(Frame {
            segment: segment.number,
            at,
            end: at + 64 + body.len(),
            next: at + wal_format::frame_bytes(body.len()),
            record: Record::decode(header.kind, body).ok(),
            header,
            believed: true,
        });
    }
    frames
}

fn frames(segments: &[Segment]) -> Vec<Frame> {
    let mut frames: Vec<Frame> = segments.iter().flat_map(frames_of).collect();
    let mut ends = BTreeMap::new();
    for frame in &frames {
        if let Some(Record::Incarnation(open)) = &frame.record
            && let Some(previous) = open.previous
        {
            ends.insert(previous.segment, previous.end as usize);
        }
    }
    for frame in &mut frames {
        let end = ends.get(&frame.segment).copied().unwrap_or(usize::MAX);
        frame.believed = frame.at < end;
    }
    frames
}
