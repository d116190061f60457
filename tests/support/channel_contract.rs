//! The channel contract as claims that every channel must keep, whichever it is.
//!
//! Each function takes a factory that opens a fresh, empty channel with the given options.

#[path = "channel_contract_epochs.rs"]
mod epochs;

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay::channel::{
    Channel, ChannelError, Position, PutBatch, PutTransaction, TakeMode, TakeTransaction,
    TakenBatch,
};
use forebay::event::{Event, Seq, SeqRange};

use epochs::seal_through;
pub(crate) use epochs::{
    abandon_returns, done_acknowledges, seal_is_a_compare_and_set, seal_takes_the_front,
    unread_events_cannot_be_sealed,
};

/// What a claim asks of the channel it is tried on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// Most events waiting or in open take batches.
    pub(crate) capacity: u64,
    /// Most events in one put transaction.
    pub(crate) transaction_capacity: usize,
    /// How long a put waits for room.
    pub(crate) keep_alive: Duration,
}

impl Default for Options {
    fn default() -> Self {
        let keep_alive = Duration::from_secs(30);
        Self {
            capacity: 10_000,
            transaction_capacity: 1_000,
            keep_alive,
        }
    }
}

/// Options of a channel of `capacity` that does not wait for room.
fn impatient(capacity: u64) -> Options {
    Options {
        capacity,
        transaction_capacity: 10,
        keep_alive: Duration::ZERO,
    }
}

/// Only bounds a wait that hangs; no claim depends on its length.
const HANG: Duration = Duration::from_secs(60);
const ALL: usize = usize::MAX;
const STAGED: TakeMode = TakeMode::Staged {
    block_events: 1_000,
};

async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANG, what).await.expect("hangs")
}

fn run(first: u64, last: u64) -> SeqRange {
    SeqRange::new(Seq(first), Seq(last)).expect("a run")
}

fn batch(bodies: std::ops::Range<u64>) -> PutBatch {
    let event = |n: u64| Event::from_body(n.to_string());
    let put = |n| forebay::channel::PutEvent {
        event: event(n),
        position: None,
    };
    PutBatch {
        events: bodies.map(put).collect(),
        positions: Vec::new(),
    }
}

/// Puts the numbers as events, ten a transaction; returns the run they got.
async fn put(channel: &Arc<dyn Channel>, numbers: std::ops::Range<u64>) -> SeqRange {
    let mut first = None;
    let mut last = None;
    for start in numbers.clone().step_by(10) {
        let part = batch(start..(start + 10).min(numbers.end));
        let got = in_time(channel.commit_put(part))
            .await
            .expect("room")
            .expect("events");
        first = first.or(Some(got.first));
        last = Some(got.last);
    }
    SeqRange::new(first.expect("events"), last.expect("events")).expect("ascending")
}

fn bodies(taken: &TakenBatch) -> Vec<u64> {
    let body = |b: &Bytes| {
        std::str::from_utf8(b)
            .expect("text")
            .parse()
            .expect("a number")
    };
    taken.events.iter().map(|t| body(&t.event.body)).collect()
}

fn numbers(taken: &TakenBatch) -> Vec<u64> {
    taken.events.iter().map(|t| t.seq.0).collect()
}

fn lease(channel: &Arc<dyn Channel>, mode: TakeMode) -> TakeTransaction {
    TakeTransaction::begin(channel.clone(), mode).expect("open")
}

/// Takes exactly `count` more events, in as many takes as it needs.
async fn take(lease: &mut TakeTransaction, count: usize) -> TakenBatch {
    let mut all = TakenBatch::default();
    while all.events.len() < count {
        let more = lease.take(count - all.events.len(), ALL).expect("held");
        if more.is_empty() {
            in_time(lease.wait(HANG)).await;
        }
        all.events.extend(more.events);
        all.lost.extend(more.lost);
    }
    all
}

/// Events come out in the order they went in, numbered densely, with headers and put time.
pub(crate) async fn put_then_take_in_order(open: impl Fn(Options) -> Arc<dyn Channel>) {
    let channel = open(Options::default());
    let mut event = Event::from_body("0");
    event.headers.set("host", "a");
    let mut tx = PutTransaction::begin(channel.clone());
    tx.put(event.clone());
    let first = tx.commit().await.expect("room").expect("events").first.0;
    let rest = put(&channel, 1..100).await;
    assert_eq!(rest, run(first + 1, first + 99));
    let mut lease = lease(&channel, TakeMode::Batch);
    let taken = take(&mut lease, 100).await;
    assert_eq!(bodies(&taken), (0..100).collect::<Vec<_>>());
    assert_eq!(numbers(&taken), (first..first + 100).collect::<Vec<_>>());
    assert_eq!(taken.events[0].event.headers, event.headers);
    assert!(taken.events.iter().all(|t| t.event.put_time_ms > 0));
    lease.commit().await.expect("held");
    let status = channel.status();
    assert_eq!(
        (status.waiting, status.leased, status.take_events),
        (0, 0, 100)
    );
}

/// The blocking put and the async put are the same put.
pub(crate) async fn a_blocking_put_is_the_same_put(open: impl Fn(Options) -> Arc<dyn Channel>) {
    let channel = open(Options::default());
    let blocking = channel.clone();
    let put = move || blocking.commit_put_blocking(batch(0..3));
    let range = tokio::task::spawn_blocking(put)
        .await
        .expect("joined")
        .expect("room");
    assert_eq!(range.map(SeqRange::count), Some(3));
    assert_eq!(
        bodies(&take(&mut lease(&channel, TakeMode::Batch), 3).await),
        [0, 1, 2]
    );
}

/// A byte limit ends a take early but never before its first event; nothing is skipped.
pub(crate) async fn a_take_stops_at_its_byte_limit(open: impl Fn(Options) -> Arc<dyn Channel>) {
    let channel = open(Options::default());
    put(&channel, 0..50).await;
    let mut lease = lease(&channel, TakeMode::Batch);
    let first = lease.take(50, 1).expect("held");
    assert!(!first.is_empty() && first.events.len() < 50);
    let mut all = bodies(&first);
    all.extend(bodies(&take(&mut lease, 50 - first.events.len()).await));
    assert_eq!(all, (0..50).collect::<Vec<_>>());
}

/// Rollback and drop return everything in order with the same numbers.
pub(crate) async fn rollback_returns_in_order(open: impl Fn(Options) -> Arc<dyn Channel>) {
    let channel = open(Options::default());
    put(&channel, 0..30).await;
    for mode in [TakeMode::Batch, STAGED] {
        let mut a = lease(&channel, mode);
        let before = take(&mut a, 10).await;
        a.rollback();
        let mut b = lease(&channel, mode);
        let again = take(&mut b, 10).await;
        assert_eq!(before, again);
        drop(b);
        let mut c = lease(&channel, mode);
        assert_eq!(bodies(&take(&mut c, 30).await), (0..30).collect::<Vec<_>>());
    }
    assert_eq!((channel.status().waiting, channel.status().leased), (30, 0));
}

/// Commit of a prefix acknowledges just that; the rest returns.
pub(crate) async fn commit_of_a_prefix_keeps_the_rest(open: impl Fn(Options) -> Arc<dyn Channel>) {
    let channel = open(Options::default());
    let all = put(&channel, 0..10).await;
    let mut a = lease(&channel, TakeMode::Batch);
    take(&mut a, 10).await;
    a.commit_through(Seq(all.first.0 + 3)).await.expect("held");
    assert_eq!(a.held(), Some(run(all.first.0 + 4, all.last.0)));
    drop(a);
    let mut b = lease(&channel, TakeMode::Batch);
    assert_eq!(bodies(&take(&mut b, 6).await), (4..10).collect::<Vec<_>>());
    b.commit().await.expect("held");
    assert_eq!(channel.status().waiting, 0);
}

/// No more than the capacity is stored; without room in time the put is refused and counted.
pub(crate) async fn a_full_channel_refuses_after_the_keep_alive(
    open: impl Fn(Options) -> Arc<dyn Channel>,
) {
    let channel = open(impatient(20));
    put(&channel, 0..20).await;
    let refused = in_time(channel.commit_put(batch(20..21))).await;
    assert!(
        matches!(refused, Err(ChannelError::Full { .. })),
        "{refused:?}"
    );
    let mut a = lease(&channel, TakeMode::Batch);
    take(&mut a, 5).await;
    let still = in_time(channel.commit_put(batch(20..21))).await;
    assert!(
        matches!(still, Err(ChannelError::Full { .. })),
        "taken, not committed: {still:?}"
    );
    a.commit().await.expect("held");
    put(&channel, 20..25).await;
    let over = in_time(channel.commit_put(batch(25..26))).await;
    assert!(matches!(over, Err(ChannelError::Full { .. })), "{over:?}");
    assert_eq!(channel.status().refused, 3);
}

/// A put that waits for room goes on as soon as a take commits, blocking or not.
pub(crate) async fn a_waiting_put_goes_on_when_room_is_made(
    open: impl Fn(Options) -> Arc<dyn Channel>,
) {
    let channel = open(Options {
        capacity: 20,
        transaction_capacity: 10,
        keep_alive: HANG * 10,
    });
    put(&channel, 0..20).await;
    let (one, two) = (channel.clone(), channel.clone());
    let one = tokio::spawn(async move { one.commit_put(batch(20..30)).await });
    let two = tokio::task::spawn_blocking(move || two.commit_put_blocking(batch(30..40)));
    let mut a = lease(&channel, TakeMode::Batch);
    take(&mut a, 20).await;
    a.commit().await.expect("held");
    assert!(in_time(one).await.expect("joined").expect("room").is_some());
    assert!(in_time(two).await.expect("joined").expect("room").is_some());
    let mut b = lease(&channel, TakeMode::Batch);
    let got: BTreeSet<u64> = bodies(&take(&mut b, 20).await).into_iter().collect();
    assert_eq!(got, (20..40).collect());
}

/// Events that return may exceed the capacity; only new puts wait.
pub(crate) async fn returned_events_may_exceed_capacity(
    open: impl Fn(Options) -> Arc<dyn Channel>,
) {
    let channel = open(impatient(20));
    put(&channel, 0..20).await;
    let mut a = lease(&channel, STAGED);
    take(&mut a, 20).await;
    put(&channel, 20..40).await;
    a.rollback();
    assert_eq!(channel.status().waiting, 40);
    let refused = in_time(channel.commit_put(batch(40..41))).await;
    assert!(
        matches!(refused, Err(ChannelError::Full { .. })),
        "{refused:?}"
    );
    let mut b = lease(&channel, TakeMode::Batch);
    assert_eq!(bodies(&take(&mut b, 40).await), (0..40).collect::<Vec<_>>());
}

/// Capacity 1,000, all rolls off: staged events stop counting, so 100,000 events pass into one
/// epoch.
pub(crate) async fn staged_events_stop_counting(open: impl Fn(Options) -> Arc<dyn Channel>) {
    let channel = open(Options {
        capacity: 1_000,
        transaction_capacity: 500,
        keep_alive: HANG * 10,
    });
    let producer = channel.clone();
    let puts = tokio::spawn(async move {
        for start in (0..100_000).step_by(500) {
            producer
                .commit_put(batch(start..start + 500))
                .await
                .expect("room");
        }
    });
    let mut a = lease(
        &channel,
        TakeMode::Staged {
            block_events: 1_000_000,
        },
    );
    let taken = take(&mut a, 100_000).await;
    assert_eq!(bodies(&taken), (0..100_000).collect::<Vec<_>>());
    in_time(puts).await.expect("joined");
    let last = a.held().expect("held").last;
    let record = a.seal(seal_through(last, 100_000)).await.expect("held");
    channel.journal().done(record.epoch).await.expect("open");
    let status = channel.status();
    assert_eq!(
        (status.waiting, status.leased, status.sealed_unpublished),
        (0, 0, 0)
    );
}

/// Sinks on one channel share its events: each goes to exactly one of them.
pub(crate) async fn competing_takers_partition(open: impl Fn(Options) -> Arc<dyn Channel>) {
    let channel = open(Options::default());
    put(&channel, 0..100).await;
    let mut a = lease(&channel, TakeMode::Batch);
    let mut b = lease(&channel, TakeMode::Batch);
    let mut all = Vec::new();
    for _ in 0..10 {
        all.extend(bodies(&take(&mut a, 5).await));
        let more = take(&mut b, 5).await;
        all.extend(bodies(&more));
        a.commit().await.expect("held");
        b.commit().await.expect("held");
        a = lease(&channel, TakeMode::Batch);
        b = lease(&channel, TakeMode::Batch);
    }
    assert_eq!(all, (0..100).collect::<Vec<_>>());
}

/// Two staged sinks: blocks of at most `block_events`, no event in both.
pub(crate) async fn competing_blocks_are_bounded(open: impl Fn(Options) -> Arc<dyn Channel>) {
    let channel = open(Options::default());
    put(&channel, 0..100).await;
    let mode = TakeMode::Staged { block_events: 30 };
    let mut a = lease(&channel, mode);
    let mut b = lease(&channel, mode);
    assert_eq!(bodies(&take(&mut a, 30).await), (0..30).collect::<Vec<_>>());
    assert!(a.take(ALL, ALL).expect("held").is_empty());
    assert!(a.exhausted());
    assert_eq!(
        bodies(&take(&mut b, 30).await),
        (30..60).collect::<Vec<_>>()
    );
    assert!(b.exhausted());
}

/// A block at the durable end grows with it, and is not exhausted.
pub(crate) async fn a_single_block_grows(open: impl Fn(Options) -> Arc<dyn Channel>) {
    let channel = open(Options::default());
    let mut a = lease(&channel, TakeMode::Staged { block_events: 10 });
    for start in [0, 20, 40] {
        put(&channel, start..start + 20).await;
        let expected: Vec<u64> = (start..start + 20).collect();
        assert_eq!(bodies(&take(&mut a, 20).await), expected);
        assert!(!a.exhausted());
    }
    assert_eq!(a.held().map(SeqRange::count), Some(60));
}

/// A transaction that can never fit is refused at once, whole.
pub(crate) async fn too_large_is_refused(open: impl Fn(Options) -> Arc<dyn Channel>) {
    let options = Options {
        capacity: 100,
        transaction_capacity: 10,
        keep_alive: Duration::from_secs(600),
    };
    let channel = open(options);
    let refused = in_time(channel.commit_put(batch(0..11))).await;
    assert!(
        matches!(
            refused,
            Err(ChannelError::TooLarge {
                size: 11,
                limit: 10,
                ..
            })
        ),
        "{refused:?}"
    );
    assert_eq!(channel.transaction_capacity(), 10);
    assert_eq!(channel.status().waiting, 0);
    put(&channel, 0..10).await;
}

/// Positions come back by prefix, the newest value of each key; an empty value forgets the key.
pub(crate) async fn positions_come_back(open: impl Fn(Options) -> Arc<dyn Channel>) {
    let channel = open(Options::default());
    let at = |key: &str, value: &str| Position {
        key: key.to_owned(),
        value: Bytes::copy_from_slice(value.as_bytes()),
    };
    for (n, position) in [
        at("r1/a", "1"),
        at("r1/b", "1"),
        at("r10/a", "1"),
        at("r1/a", "2"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut tx = PutTransaction::begin(channel.clone());
        let index = tx.position(position);
        tx.put_at(Event::from_body(n.to_string()), index, 1);
        tx.commit().await.expect("room");
    }
    assert_eq!(channel.positions("r1/"), [at("r1/a", "2"), at("r1/b", "1")]);
    let forget = PutBatch {
        events: Vec::new(),
        positions: vec![at("r1/b", "")],
    };
    channel.commit_put(forget).await.expect("room");
    assert_eq!(channel.positions("r1/"), [at("r1/a", "2")]);
    assert_eq!(channel.positions("").len(), 2);
}

/// A batch of positions alone is stored even in a full channel, and gives no sequence number.
pub(crate) async fn positions_alone_need_no_room(open: impl Fn(Options) -> Arc<dyn Channel>) {
    let channel = open(impatient(10));
    let all = put(&channel, 0..10).await;
    let position = Position {
        key: "r/f".to_owned(),
        value: Bytes::from_static(b"7"),
    };
    let only = PutBatch {
        events: Vec::new(),
        positions: vec![position.clone()],
    };
    assert_eq!(
        in_time(channel.commit_put(only))
            .await
            .expect("no room needed"),
        None
    );
    assert_eq!(channel.positions("r/"), [position]);
    assert_eq!(channel.journal().next_sequence(), all.last.next());
}

/// Many producers and consumers, with rollbacks: what comes out is what went in, each once.
pub(crate) async fn nothing_lost_and_nothing_twice(open: impl Fn(Options) -> Arc<dyn Channel>) {
    const EACH: u64 = 2_000;
    let channel = open(Options {
        capacity: 500,
        transaction_capacity: 50,
        keep_alive: HANG * 10,
    });
    let mut producers = Vec::new();
    for p in 0..4 {
        let channel = channel.clone();
        producers.push(tokio::spawn(async move {
            for start in (p * EACH..(p + 1) * EACH).step_by(25) {
                channel
                    .commit_put(batch(start..start + 25))
                    .await
                    .expect("room");
            }
        }));
    }
    let out = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut consumers = Vec::new();
    for c in 0..4usize {
        let (channel, out) = (channel.clone(), out.clone());
        let consume = async move {
            for round in c.. {
                if out.lock().expect("unpoisoned").len() >= 8_000 {
                    break;
                }
                consume_once(&channel, c % 2 == 0, round, &out).await;
            }
        };
        consumers.push(tokio::spawn(consume));
    }
    for task in producers.into_iter().chain(consumers) {
        in_time(task).await.expect("joined");
    }
    let mut all = out.lock().expect("unpoisoned").clone();
    all.sort_unstable();
    assert_eq!(all, (0..4 * EACH).collect::<Vec<_>>());
    let status = channel.status();
    assert_eq!(
        (status.waiting, status.leased, status.sealed_unpublished),
        (0, 0, 0)
    );
}

/// One round of a consumer: takes some, and publishes them or gives them back.
async fn consume_once(
    channel: &Arc<dyn Channel>,
    staged: bool,
    round: usize,
    out: &std::sync::Mutex<Vec<u64>>,
) {
    let mode = TakeMode::Staged { block_events: 64 };
    let mut lease = lease(channel, if staged { mode } else { TakeMode::Batch });
    let taken = lease.take(40, ALL).expect("held");
    if taken.is_empty() {
        // Another consumer may end it all while this one waits, so wait in short steps.
        lease.wait(Duration::from_millis(20)).await;
    } else if round.is_multiple_of(5) {
        lease.rollback();
    } else if staged {
        let last = lease.held().expect("held").last;
        let record = lease.seal(seal_through(last, 40)).await.expect("held");
        if round.is_multiple_of(7) {
            channel.journal().abandon(record.epoch).await.expect("open");
        } else {
            channel.journal().done(record.epoch).await.expect("open");
            out.lock().expect("unpoisoned").extend(bodies(&taken));
        }
    } else {
        lease.commit().await.expect("held");
        out.lock().expect("unpoisoned").extend(bodies(&taken));
    }
}

/// A taker that waits is woken by the next put; so is one that waits without a lease.
pub(crate) async fn a_put_wakes_waiting_takers(open: impl Fn(Options) -> Arc<dyn Channel>) {
    let channel = open(Options::default());
    let other = channel.clone();
    let free = tokio::spawn(async move { other.wait_ready(HANG * 10).await });
    let other = channel.clone();
    let holder = tokio::spawn(async move {
        let mut lease = lease(&other, TakeMode::Batch);
        bodies(&take(&mut lease, 1).await)
    });
    put(&channel, 7..8).await;
    in_time(free).await.expect("joined");
    assert_eq!(in_time(holder).await.expect("joined"), [7]);
}

/// Close wakes everybody who waits, and everything after it says closed.
pub(crate) async fn close_wakes_all_waiters(open: impl Fn(Options) -> Arc<dyn Channel>) {
    let channel = open(Options {
        capacity: 10,
        transaction_capacity: 10,
        keep_alive: HANG * 10,
    });
    put(&channel, 0..10).await;
    let mut held = lease(&channel, TakeMode::Batch);
    take(&mut held, 10).await;
    let (one, two, three) = (channel.clone(), channel.clone(), channel.clone());
    let put_async = tokio::spawn(async move { one.commit_put(batch(0..1)).await });
    let put_blocking = tokio::task::spawn_blocking(move || two.commit_put_blocking(batch(0..1)));
    let ready = tokio::spawn(async move { three.wait_ready(HANG * 10).await });
    let four = channel.clone();
    let leased = tokio::spawn(async move {
        let lease = four.open_lease(TakeMode::Batch).expect("open");
        four.wait_lease(lease, HANG * 10).await;
    });
    tokio::task::yield_now().await;
    let closing = channel.clone();
    let closed = tokio::task::spawn_blocking(move || closing.close());
    in_time(closed).await.expect("joined").expect("closes");
    for put in [in_time(put_async).await, in_time(put_blocking).await] {
        let put = put.expect("joined");
        assert!(matches!(put, Err(ChannelError::Closed { .. })), "{put:?}");
    }
    in_time(ready).await.expect("joined");
    // Depending on who was first, the lease was open before the close or could not be opened.
    drop(in_time(leased).await);
    channel.close().expect("idempotent");
    let late = in_time(channel.commit_put(batch(0..1))).await;
    assert!(matches!(late, Err(ChannelError::Closed { .. })), "{late:?}");
    let late = channel.open_lease(TakeMode::Batch);
    assert!(matches!(late, Err(ChannelError::Closed { .. })), "{late:?}");
    assert_eq!(channel.status().leased, 0, "close releases open leases");
}
