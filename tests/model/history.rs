//! Histories: what happens to a channel, one step after the other.
//!
//! A history *is* bytes: a head of four for the options, then four for each step (what, and three
//! parameters). So any bytes are a history, a seed makes random ones, and leaving a step out
//! leaves all others as they were.

use std::time::Duration;

use forebay::channel::file::SyncMode;
use forebay::env::disk::WriteBackend;
use forebay::env::disk_sim::{Call, Fault};

/// Bytes of the head, and of a step.
pub(crate) const UNIT: usize = 4;
/// Steps beyond this many are left out, so that the time of a history is bounded.
pub(crate) const STEPS_MAX: usize = 120;

/// SplitMix64.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap_or(0) % bound.max(1)
    }

    pub(crate) fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

/// The bytes of the history of a seed.
pub(crate) fn bytes_of_seed(seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed ^ 0x666f_7265_6261_7900);
    let steps = [12, 25, 40, 60][random.below(4)];
    let words = (0..=steps).map(|_| u32::try_from(random.next() >> 32).unwrap_or(0));
    words.flat_map(u32::to_le_bytes).collect()
}

/// The options of a history.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) backend: WriteBackend,
    pub(crate) dirs: usize,
    pub(crate) sync: SyncMode,
    pub(crate) capacity: u64,
    /// How long a put waits for room: not at all, or an hour.
    pub(crate) keep_alive: Duration,
    pub(crate) keep_dead: Duration,
    /// Segments for which there is room on the disk; `None`: any number.
    pub(crate) room: Option<u64>,
    /// Most bytes of all segments, in segments.
    pub(crate) byte_capacity: Option<u64>,
    /// Crash images that are looked at around each step.
    pub(crate) images: usize,
    /// How often a recovery is crashed again inside a recovery.
    pub(crate) depth: usize,
}

impl Setup {
    fn of(head: [u8; UNIT]) -> Self {
        let [a, b, c, d] = head.map(usize::from);
        Self {
            backend: [WriteBackend::Pwrite, WriteBackend::Map][a & 1],
            dirs: [1, 1, 1, 2][(a >> 1) & 3],
            sync: match (a >> 3) & 7 {
                0 => SyncMode::Os,
                1 => SyncMode::Interval(Duration::from_millis(500)),
                _ => SyncMode::Commit,
            },
            capacity: [12, 60, 1_000_000, 1_000_000][(a >> 6) & 3],
            keep_alive: Duration::from_secs([0, 3600][b & 1]),
            keep_dead: Duration::from_secs([0, 0, 0, 900][(b >> 1) & 3]),
            room: [None, None, Some(9), Some(14)][(b >> 3) & 3],
            byte_capacity: [None, None, None, Some(10)][(b >> 5) & 3],
            images: [1, 2, 3, 4][c & 3],
            depth: [1, 2, 3, 4][d & 3],
        }
    }
}

/// One step.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// A put transaction; `now`: the committer takes its turn at once.
    Put {
        sizes: Vec<usize>,
        positions: usize,
        now: bool,
    },
    /// A put transaction that is filled and rolled back.
    PutRolledBack,
    /// Whoever waits longest goes away.
    GoAway(usize),
    Lead,
    OpenLease {
        block_events: Option<u64>,
    },
    Take {
        lease: usize,
        events: usize,
        bytes: usize,
    },
    /// Acknowledges so many of a lease's events; 0: all.
    Ack {
        lease: usize,
        events: u64,
    },
    Release(usize),
    Seal {
        lease: usize,
        events: u64,
        parts: usize,
    },
    Claimed(usize),
    Done(usize),
    Abandon(usize),
    Fence(u32),
    Roll,
    /// Time passes while nothing happens.
    Idle(Duration),
    EndRound,
    Prepare,
    /// So many segments of free space more (or, negative, less).
    Space(i8),
    Fault(Fault),
    End(End),
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Closed and opened again.
    Close,
    /// Killed: the kernel goes on.
    Kill,
    /// Killed, and nobody is told that the write-back fails.
    KillWithoutWriteBack,
    PowerDropAll,
    PowerKeepAll,
    Power,
}

/// A step with the seed of everything random around it.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) op: Op,
    pub(crate) seed: u64,
}

/// A decoded history.
#[derive(Clone, Debug)]
pub(crate) struct History {
    pub(crate) setup: Setup,
    pub(crate) steps: Vec<Step>,
}

impl History {
    pub(crate) fn decode(bytes: &[u8]) -> Self {
        let (units, _) = bytes.as_chunks::<UNIT>();
        let head = units.first().copied().unwrap_or_default();
        let steps = units.iter().skip(1).take(STEPS_MAX).map(|unit| Step {
            op: op(*unit),
            seed: u64::from(u32::from_le_bytes(*unit)) | 0x5eed_0000_0000,
        });
        Self {
            setup: Setup::of(head),
            steps: steps.collect(),
        }
    }
}

/// How often each kind comes up; the order is part of what a byte means.
const WEIGHTS: [usize; 20] = [
    26, 1, 2, 12, 5, 14, 10, 2, 8, 5, 6, 1, 2, 6, 6, 4, 10, 2, 4, 10,
];

fn kind(byte: u8) -> usize {
    let total: usize = WEIGHTS.iter().sum();
    let mut at = usize::from(byte) * total / 256;
    for (kind, weight) in WEIGHTS.iter().enumerate() {
        if at < *weight {
            return kind;
        }
        at -= weight;
    }
    0
}

fn op(unit: [u8; UNIT]) -> Op {
    let [what, a, b, c] = unit;
    let (x, y, z) = (usize::from(a), usize::from(b), usize::from(c));
    let few = [0, 1, 1, 2, 3, 5, 9, 30][y & 7];
    match kind(what) {
        0 => Op::Put {
            sizes: sizes(x, y),
            positions: [0, 1, 1, 2][z & 3],
            now: z & 4 == 0,
        },
        1 => Op::PutRolledBack,
        2 => Op::GoAway(x),
        3 => Op::Lead,
        4 => Op::OpenLease {
            block_events: [None, Some(2), Some(8), Some(1000)][x & 3],
        },
        5 => Op::Take {
            lease: x,
            events: [1, 2, 3, 5, 8, 20, 100, 1000][y & 7],
            bytes: [1, 300, 4000, usize::MAX][z & 3],
        },
        6 => Op::Ack {
            lease: x,
            events: few,
        },
        7 => Op::Release(x),
        8 => Op::Seal {
            lease: x,
            events: few,
            parts: z & 3,
        },
        9 => Op::Claimed(x),
        10 => Op::Done(x),
        11 => Op::Abandon(x),
        12 => Op::Fence(u32::from(a & 7)),
        13 => Op::Roll,
        14 => Op::Idle(Duration::from_millis(
            [1, 200, 1000, 5000, 6000, 1_000_000][x % 6],
        )),
        15 => Op::EndRound,
        16 => Op::Prepare,
        17 => Op::Space([-4, -1, 1, 4][x & 3]),
        18 => Op::Fault(fault(x, y, z)),
        _ => Op::End(
            [
                End::Close,
                End::Kill,
                End::KillWithoutWriteBack,
                End::PowerDropAll,
                End::PowerKeepAll,
                End::Power,
                End::Power,
                End::Power,
            ][x & 7],
        ),
    }
}

/// Sizes of the events of a transaction: mostly few and small, now and then of many frames.
fn sizes(x: usize, y: usize) -> Vec<usize> {
    let count = [0, 1, 1, 1, 2, 2, 3, 7, 40, 1, 2, 3, 1, 2, 5, 1][x & 15];
    let size = [
        0, 3, 9, 40, 40, 120, 120, 300, 300, 700, 700, 1500, 2500, 5000, 90, 12_000,
    ];
    let size = size[(x >> 4) & 15];
    let most = 14_000 / (size + 64);
    let one_more = |index: usize| size + (index * (y & 63)) % 50;
    (0..count.min(most.max(1))).map(one_more).collect()
}

fn fault(x: usize, y: usize, z: usize) -> Fault {
    let skip = u32::try_from(y % 4).unwrap_or(0);
    let fault = match x % 20 {
        0..=3 => Fault::io(Call::Sync).on("segment-"),
        4 => Fault::sync_in_part(z as u64).on("segment-"),
        5 => Fault::io(Call::Sync),
        6 => Fault::io(Call::Read),
        7 => Fault::no_space(Call::Create),
        8 => Fault::no_space(Call::Fill),
        9 | 10 => Fault::short_store(z * 40).on("segment-"),
        11 => Fault::short_store(z * 40),
        12 => Fault::no_memory(),
        13 => Fault::io(Call::Rename),
        14 | 15 => Fault::io(Call::SyncDir),
        16 => Fault::io(Call::Remove),
        17 => Fault::io(Call::Truncate),
        18 => Fault::io(Call::List),
        _ => Fault::io(Call::Open),
    };
    fault.after(skip)
}
