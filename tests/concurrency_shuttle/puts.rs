//! Puts: who leads, who waits, who gets room.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use forebay::channel::file::SyncMode;
use forebay::channel::{Channel, ChannelError, Position, TakeMode, TakeTransaction};

use crate::bench::{Bench, below, block_on, dawdle, event, explore, files, options, spawn};

/// A thread that commits these one after another, from a thread or as a task, and says which were
/// answered Ok.
fn producer(
    bench: &Bench,
    numbers: std::ops::Range<u64>,
    as_task: bool,
    size: usize,
) -> shuttle::thread::JoinHandle<Vec<u64>> {
    let (channel, disk) = (Arc::clone(&bench.channel), bench.disk.clone());
    spawn(move || {
        let mut done = Vec::new();
        for number in numbers {
            let put = match as_task {
                true => block_on(channel.commit_put(event(number, size))),
                false => channel.commit_put_blocking(event(number, size)),
            };
            match put {
                Ok(_) => done.push(number),
                Err(ChannelError::Full { .. }) => continue,
                Err(error) => panic!("{error}"),
            }
            assert!(
                crate::bench::keeps(&disk, number),
                "{number} is answered and not on the medium"
            );
        }
        done
    })
}

#[test]
fn every_put_is_answered_and_only_once_it_is_on_the_medium() {
    explore(|| {
        let bench = Bench::open(options());
        let producers = [
            producer(&bench, 0..2, false, 40),
            producer(&bench, 2..4, false, 40),
            producer(&bench, 4..6, true, 40),
        ];
        let done: BTreeSet<u64> = producers
            .into_iter()
            .flat_map(|p| p.join().unwrap())
            .collect();
        assert_eq!(done, (0..6).collect());
        assert_eq!(bench.channel.status().next_sequence, 7, "numbers are dense");
        bench.channel.close().unwrap();
        bench.finish(&done, &BTreeSet::new(), &done);
    });
}

#[test]
fn puts_that_wait_for_capacity_go_on_when_events_are_acknowledged() {
    explore(|| {
        let mut options = options();
        options.capacity = 2;
        let bench = Bench::open(options);
        let producers = [
            producer(&bench, 0..2, false, 40),
            producer(&bench, 2..4, true, 40),
            producer(&bench, 4..6, false, 40),
        ];
        let channel = bench.dynamic();
        let consumer = spawn(move || {
            let mut gone = BTreeSet::new();
            while gone.len() < 6 {
                block_on(channel.wait_ready(Duration::from_secs(60)));
                let dynamic = Arc::clone(&channel);
                let mut take = TakeTransaction::begin(dynamic, TakeMode::Batch).unwrap();
                let batch = take.take(2, usize::MAX).unwrap();
                let numbers = crate::bench::numbers_of(&batch);
                dawdle(3);
                match below(3) {
                    0 => continue,
                    // Whoever acknowledges may go away once the record is on its way.
                    1 => {
                        let mut ack = Box::pin(take.commit());
                        let poll_once = std::future::poll_fn(|context| {
                            std::task::Poll::Ready(ack.as_mut().poll(context).is_ready())
                        });
                        let _left_alone = block_on(poll_once);
                    }
                    _ => block_on(take.commit()).unwrap(),
                }
                gone.extend(numbers);
            }
            gone
        });
        let mut done: BTreeSet<u64> = producers
            .into_iter()
            .flat_map(|p| p.join().unwrap())
            .collect();
        let gone = consumer.join().unwrap();
        assert_eq!(done, (0..6).collect());
        assert_eq!(gone, done);
        // What was left alone is written before anything later; a close would drop it.
        bench.channel.commit_put_blocking(event(6, 40)).unwrap();
        assert_eq!(bench.channel.status().take_events, 6);
        done.insert(6);
        bench.channel.close().unwrap();
        bench.finish(&done, &gone, &done);
    });
}

#[test]
fn capacity_is_promised_to_one_put_only() {
    explore(|| {
        let mut options = options();
        options.capacity = 3;
        options.keep_alive = Duration::ZERO;
        let bench = Bench::open(options);
        let producers = [
            producer(&bench, 0..2, false, 40),
            producer(&bench, 2..4, true, 40),
            producer(&bench, 4..6, false, 40),
        ];
        let done: BTreeSet<u64> = producers
            .into_iter()
            .flat_map(|p| p.join().unwrap())
            .collect();
        assert_eq!(done.len(), 3, "{done:?}");
        assert_eq!(bench.channel.status().waiting, 3);
        bench.channel.close().unwrap();
        bench.finish(&done, &BTreeSet::new(), &(0..6).collect());
    });
}

#[test]
fn room_on_disk_is_promised_to_one_put_only_and_never_from_the_reserve() {
    explore(|| {
        let mut options = options();
        options.keep_alive = Duration::ZERO;
        let bench = Bench::open(options);
        // Nothing more can be prepared: the reserve is four.
        bench.disk.set_free(0);
        let producers = [
            producer(&bench, 0..5, false, 12_000),
            producer(&bench, 5..10, true, 12_000),
            producer(&bench, 10..15, false, 12_000),
        ];
        let done: BTreeSet<u64> = producers
            .into_iter()
            .flat_map(|p| p.join().unwrap())
            .collect();
        assert!(done.len() >= 4, "{done:?}");
        let left = files(&bench.disk, "spare-").len();
        assert!(
            left >= 4,
            "{left} prepared segments are left after {done:?}"
        );
        bench.channel.close().unwrap();
        bench.finish(&done, &BTreeSet::new(), &(0..15).collect());
    });
}

#[test]
fn a_put_that_is_refused_for_its_positions_gives_its_room_to_the_next() {
    explore(|| {
        let mut options = options();
        options.capacity = 1;
        let bench = Bench::open(options);
        let channel = Arc::clone(&bench.channel);
        let refused = spawn(move || {
            let mut batch = event(0, 40);
            batch.positions.push(Position {
                key: "r1/file".into(),
                value: vec![b'p'; 5_000].into(),
            });
            let put = channel.commit_put_blocking(batch);
            assert!(matches!(put, Err(ChannelError::Full { .. })), "{put:?}");
        });
        let done: BTreeSet<u64> = producer(&bench, 1..2, below(2) == 0, 40)
            .join()
            .unwrap()
            .into_iter()
            .collect();
        // The other one may have come last and waits for the event to go.
        let mut take = TakeTransaction::begin(bench.dynamic(), TakeMode::Batch).unwrap();
        let batch = take.take(1, usize::MAX).unwrap();
        assert_eq!(crate::bench::numbers_of(&batch), [1]);
        block_on(take.commit()).unwrap();
        refused.join().unwrap();
        bench.channel.close().unwrap();
        bench.finish(&done, &done, &done);
    });
}

#[test]
fn records_that_need_a_new_segment_wait_for_the_preparer_and_no_longer() {
    explore(|| {
        let mut options = options();
        options.keep_alive = Duration::ZERO;
        options.sync = SyncMode::Commit;
        // Nothing is prepared ahead; the active segment is filled to the brim.
        let bench = Bench::open_fresh(options);
        let mut put = BTreeSet::new();
        for size in [
            15_000, 15_000, 15_000, 7_000, 3_000, 1_000, 400, 200, 100, 40, 10,
        ] {
            let number = put.len() as u64;
            match bench.channel.commit_put_blocking(event(number, size)) {
                Ok(_) => drop(put.insert(number)),
                Err(ChannelError::Full { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        let mut take = TakeTransaction::begin(bench.dynamic(), TakeMode::Batch).unwrap();
        let batch = take.take(100, usize::MAX).unwrap();
        assert_eq!(batch.events.len(), put.len());
        drop(batch);
        block_on(take.commit()).unwrap();
        bench.channel.close().unwrap();
        bench.finish(&put, &put, &put);
    });
}
