//! Many producers and competing consumers on one file channel while the process dies again and
//! again: what was acknowledged to a producer is delivered, and what a consumer's acknowledgement
//! has taken is never delivered again.

#![allow(clippy::unwrap_used, reason = "a failed step fails its test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use forebay::channel::file::{FileChannel, FileChannelOptions};
use forebay::channel::{Channel, ChannelError, PutBatch, PutEvent, TakeMode, TakeTransaction};
use forebay::env::clock;
use forebay::env::disk_real::RealDisk;
use forebay::event::Event;

const THREADS: u64 = 8;
const TASKS: u64 = 4;
const CONSUMERS: u64 = 3;
const CRASHES: u64 = 6;
/// Only bounds a hang.
const PATIENCE: Duration = Duration::from_secs(120);

fn open(dir: &Path) -> Arc<FileChannel> {
    let options = FileChannelOptions {
        data_dirs: vec![dir.to_owned()],
        capacity: 20_000,
        max_file_size: 1 << 20,
        minimum_required_space: 1 << 20,
        keep_alive: Duration::from_secs(60),
        keep_dead: Duration::ZERO,
        ..FileChannelOptions::default()
    };
    FileChannel::open("c1", options, Arc::new(RealDisk), clock::system()).unwrap()
}

/// What the world outside has seen, over all lives of the channel.
#[derive(Default)]
struct World {
    next: AtomicU64,
    stop: AtomicBool,
    /// Events of puts that returned Ok.
    acknowledged: Mutex<BTreeSet<u64>>,
    /// Events of puts that a crash cut off: there whole or not at all.
    unknown: Mutex<Vec<std::ops::Range<u64>>>,
    /// Times each event was in a take whose acknowledgement returned Ok.
    delivered: Mutex<BTreeMap<u64, u32>>,
    /// Events in takes whose acknowledgement a crash cut off.
    undecided: Mutex<BTreeSet<u64>>,
}

impl World {
    fn batch(&self) -> (PutBatch, std::ops::Range<u64>) {
        let first = self.next.fetch_add(50, Ordering::Relaxed);
        let numbers = first..first + 1 + first % 50;
        let events = numbers.clone().map(|n| PutEvent {
            event: Event::from_body(format!("{n:012} {}", "x".repeat(300))),
            position: None,
        });
        let batch = PutBatch {
            events: events.collect(),
            positions: Vec::new(),
        };
        (batch, numbers)
    }

    fn put_has_ended(&self, numbers: std::ops::Range<u64>, ok: bool) {
        if ok {
            self.acknowledged.lock().unwrap().extend(numbers);
        } else {
            self.unknown.lock().unwrap().push(numbers);
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

fn must_be_an_end<T>(result: &Result<T, ChannelError>) -> bool {
    match result {
        Ok(_) => true,
        Err(ChannelError::Closed { .. } | ChannelError::LeaseLost { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

async fn consume(world: Arc<World>, channel: Arc<dyn Channel>) {
    let mut turn = 0_u64;
    while !world.stopped() {
        channel.wait_ready(Duration::from_millis(20)).await;
        let Ok(mut take) = TakeTransaction::begin(Arc::clone(&channel), TakeMode::Batch) else {
            return;
        };
        let taken = take.take(200, usize::MAX);
        if !must_be_an_end(&taken) {
            return;
        }
        let batch = taken.unwrap();
        assert!(batch.lost.is_empty());
        let number = |body: &[u8]| std::str::from_utf8(&body[..12]).unwrap().parse().unwrap();
        let numbers: Vec<u64> = batch.events.iter().map(|e| number(&e.event.body)).collect();
        turn += 1;
        if numbers.is_empty() || turn.is_multiple_of(5) {
            // Rolled back: somebody else gets them.
            continue;
        }
        if must_be_an_end(&take.commit().await) {
            let mut delivered = world.delivered.lock().unwrap();
            numbers
                .iter()
                .for_each(|n| *delivered.entry(*n).or_default() += 1);
        } else {
            world.undecided.lock().unwrap().extend(numbers);
        }
    }
}

/// One life of the channel: everybody works until it is cut off after `progress` events.
fn live(runtime: &tokio::runtime::Runtime, world: &Arc<World>, dir: &Path, progress: u64) {
    let channel = open(dir);
    world.stop.store(false, Ordering::Relaxed);
    let (mut threads, mut tasks) = (Vec::new(), Vec::new());
    for _ in 0..THREADS {
        let (world, channel) = (Arc::clone(world), Arc::clone(&channel));
        threads.push(std::thread::spawn(move || {
            while !world.stopped() {
                let (batch, numbers) = world.batch();
                let put = channel.commit_put_blocking(batch);
                world.put_has_ended(numbers, must_be_an_end(&put));
            }
        }));
    }
    for _ in 0..TASKS {
        let (world, channel) = (Arc::clone(world), Arc::clone(&channel));
        tasks.push(runtime.spawn(async move {
            while !world.stopped() {
                let (batch, numbers) = world.batch();
                let put = channel.commit_put(batch).await;
                world.put_has_ended(numbers, must_be_an_end(&put));
            }
        }));
    }
    for _ in 0..CONSUMERS {
        tasks.push(runtime.spawn(consume(Arc::clone(world), Arc::clone(&channel) as _)));
    }
    let deadline = Instant::now() + PATIENCE;
    while channel.status().put_events < progress {
        assert!(
            Instant::now() < deadline,
            "no progress: {:#?}",
            channel.status()
        );
        std::thread::yield_now();
    }
    world.stop.store(true, Ordering::Relaxed);
    // The tasks die where they stand; what they were told by then counts.
    let wait = async {
        for task in tasks {
            task.await.unwrap();
        }
    };
    let bounded = async { tokio::time::timeout(PATIENCE, wait).await };
    runtime.block_on(bounded).expect("a task hangs");
    for thread in threads {
        while !thread.is_finished() {
            assert!(
                Instant::now() < deadline,
                "a thread hangs: {:#?}",
                channel.status()
            );
            std::thread::yield_now();
        }
        thread.join().unwrap();
    }
    // No seal: the same as the death of the process between two groups.
    drop(channel);
}

#[test]
fn acknowledged_is_delivered_once_whoever_competes_and_however_often_it_dies() {
    let dir = tempfile::tempdir().unwrap();
    let world = Arc::new(World::default());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for crash in 0..CRASHES {
        live(&runtime, &world, dir.path(), 15_000 + 1_000 * crash);
    }
    // The last life only drains.
    let channel = open(dir.path());
    let rest = channel.status().waiting;
    world.stop.store(false, Ordering::Relaxed);
    let consumer = runtime.spawn(consume(Arc::clone(&world), Arc::clone(&channel) as _));
    let deadline = Instant::now() + PATIENCE;
    while channel.status().waiting + channel.status().leased > 0 {
        assert!(
            Instant::now() < deadline,
            "{rest} waited: {:#?}",
            channel.status()
        );
        std::thread::yield_now();
    }
    world.stop.store(true, Ordering::Relaxed);
    runtime.block_on(consumer).unwrap();

    let delivered = world.delivered.lock().unwrap();
    let undecided = world.undecided.lock().unwrap();
    let acknowledged = world.acknowledged.lock().unwrap();
    assert!(acknowledged.len() > 50_000);
    let twice: Vec<_> = delivered.iter().filter(|(_, times)| **times > 1).collect();
    assert!(
        twice.is_empty(),
        "delivered again after its acknowledgement: {twice:?}"
    );
    let lost: Vec<u64> = acknowledged
        .iter()
        .filter(|n| !delivered.contains_key(n) && !undecided.contains(n))
        .copied()
        .collect();
    assert!(
        lost.is_empty(),
        "acknowledged and never delivered: {lost:?}"
    );
    for numbers in world.unknown.lock().unwrap().iter() {
        let there = numbers
            .clone()
            .filter(|n| delivered.contains_key(n))
            .count() as u64;
        let whole = there == 0 || there == numbers.end - numbers.start;
        assert!(
            whole || !undecided.is_empty(),
            "{numbers:?}: half a transaction"
        );
    }
}
