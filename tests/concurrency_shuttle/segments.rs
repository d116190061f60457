//! Rolls, deletion of segments and the preparer against takes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use forebay::channel::{Channel, ChannelError, SealRequest, TakeMode, TakeTransaction};
use forebay::env::sync;

use crate::bench::{Bench, below, block_on, dawdle, event, explore, files, numbers_of, options};
use crate::bench::{events_after, spawn, stepped};

const LONG: Duration = Duration::from_secs(60);
/// Four of them fill a segment.
const LARGE: usize = 14_000;

/// Puts that roll again and again, beside a taker that acknowledges, keeps what it has taken and
/// stands where segments end.
fn roll_and_take(time_passes: bool) {
    const EVENTS: u64 = 14;
    let mut options = options();
    options.capacity = 6;
    let bench = Bench::open(options);
    let channel = Arc::clone(&bench.channel);
    let producer = spawn(move || {
        for number in 0..EVENTS {
            // Where time passes, more of it than a put waits may pass before a segment is prepared.
            let full = |put: &Result<_, ChannelError>| {
                time_passes && matches!(put, Err(ChannelError::Full { .. }))
            };
            let mut put = channel.commit_put_blocking(event(number, LARGE));
            while full(&put) {
                put = channel.commit_put_blocking(event(number, LARGE));
            }
            put.unwrap();
        }
    });
    let channel = bench.dynamic();
    let consumer = spawn(move || {
        let (mut next, mut held) = (0, Vec::new());
        while next < EVENTS {
            block_on(channel.wait_ready(LONG));
            let mut take = TakeTransaction::begin(Arc::clone(&channel), TakeMode::Batch).unwrap();
            let batch = take.take(1 + below(3), usize::MAX).unwrap();
            assert!(batch.lost.is_empty(), "{:?}", batch.lost);
            for number in numbers_of(&batch) {
                assert_eq!(number, next, "in order");
                next += 1;
            }
            held.push(batch);
            dawdle(8);
            block_on(take.commit()).unwrap();
        }
        // What was taken is still what it was, though its segments are gone.
        let all: Vec<u64> = held.iter().flat_map(numbers_of).collect();
        assert_eq!(all, (0..EVENTS).collect::<Vec<_>>());
    });
    if time_passes {
        for _ in 0..below(60) {
            shuttle::thread::yield_now();
            dawdle(30);
            sync::pass_time();
        }
    }
    producer.join().unwrap();
    consumer.join().unwrap();
    let names = files(&bench.disk, "segment-");
    assert!(names.len() < 6, "dead segments go: {names:?}");
    bench.channel.close().unwrap();
    let all = (0..EVENTS).collect();
    bench.finish(&all, &all, &all);
}

#[test]
fn a_taker_reads_on_while_segments_roll_and_are_deleted() {
    explore(|| roll_and_take(false));
}

#[test]
fn a_taker_reads_on_while_segments_roll_and_time_passes() {
    explore(|| roll_and_take(true));
}

#[test]
fn an_epoch_that_is_given_up_is_given_back_whole_or_not_at_all() {
    explore(|| {
        let bench = Bench::open(options());
        let disk = bench.disk.kill();
        drop(bench);
        let channel = Arc::new(stepped(&disk, options()));
        // Threads that take the turns, as the channel's own would.
        let dynamic = Arc::clone(channel.channel());
        for number in 0..2 {
            dynamic.commit_put_blocking(event(number, LARGE)).unwrap();
        }
        let stop = Arc::new(AtomicBool::new(false));
        let (turns, stopped) = (Arc::clone(&channel), Arc::clone(&stop));
        let committer = spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                turns.lead();
                shuttle::thread::yield_now();
            }
        });
        let lease = dynamic
            .open_lease(TakeMode::Staged { block_events: 9 })
            .unwrap();
        dynamic.lease_take(lease, 2, usize::MAX).unwrap();
        let request = SealRequest {
            last: forebay::event::Seq(2),
            sink: "k1".into(),
            store: "s".into(),
            base: "/b".into(),
            attempt: "a".into(),
            parts: Vec::new(),
        };
        let epoch = block_on(dynamic.seal(lease, request)).unwrap().epoch;
        let journal = dynamic.journal();
        block_on(journal.claimed(epoch)).unwrap();
        // The disk is full: what is claimed pins no segment once two snapshots have seen it.
        disk.set_free(0);
        while channel.prepare() == Some(true) {}
        assert!(channel.roll());
        // The next roll is the second to see it, and deletes it.
        let turns = Arc::clone(&channel);
        let roller = spawn(move || {
            dawdle(60);
            assert!(turns.roll());
        });
        dawdle(20);
        let given_up = block_on(journal.abandon(epoch)).is_ok();
        roller.join().unwrap();
        let lease = dynamic.open_lease(TakeMode::Batch).unwrap();
        let batch = dynamic.lease_take(lease, 9, usize::MAX).unwrap();
        assert!(batch.lost.is_empty(), "given up and lost: {:?}", batch.lost);
        assert_eq!(batch.events.len(), if given_up { 2 } else { 0 });
        stop.store(true, Ordering::SeqCst);
        committer.join().unwrap();
        dynamic.close().unwrap();
        drop((journal, dynamic, channel));
        let there = events_after(&disk.kill());
        let wanted: BTreeSet<u64> = if given_up {
            [0, 1].into()
        } else {
            BTreeSet::new()
        };
        assert_eq!(there, wanted);
    });
}
