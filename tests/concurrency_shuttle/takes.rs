//! Takes against puts: what is taken is on the medium, and who waits for events is woken.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use forebay::channel::file::SyncMode;
use forebay::channel::{Channel, TakeMode, TakeTransaction};

use crate::bench::spawn;
use crate::bench::{Bench, below, block_on, dawdle, event, explore, keeps, numbers_of, options};

/// Only bounds what never happens: time stands still.
const LONG: Duration = Duration::from_secs(60);

/// Takes until `count` events are acknowledged by all of `gone` together.
fn consumer(
    bench: &Bench,
    mode: fn() -> TakeMode,
    count: usize,
    gone: &Arc<std::sync::Mutex<BTreeSet<u64>>>,
) -> shuttle::thread::JoinHandle<()> {
    let (channel, disk, gone) = (bench.dynamic(), bench.disk.clone(), Arc::clone(gone));
    spawn(move || {
        loop {
            if gone.lock().unwrap().len() == count {
                return;
            }
            block_on(channel.wait_ready(LONG));
            let Ok(mut take) = TakeTransaction::begin(Arc::clone(&channel), mode()) else {
                return;
            };
            let most_bytes = if below(2) == 0 { 1 } else { usize::MAX };
            let Ok(batch) = take.take(1 + below(4), most_bytes) else {
                return;
            };
            assert!(batch.lost.is_empty());
            let numbers = numbers_of(&batch);
            for number in &numbers {
                assert!(
                    keeps(&disk, *number),
                    "{number} is taken and not on the medium"
                );
            }
            dawdle(4);
            if below(3) == 0 || numbers.is_empty() {
                // Rolled back: somebody else gets them.
                continue;
            }
            if block_on(take.commit()).is_err() {
                return;
            }
            let mut gone = gone.lock().unwrap();
            for number in numbers {
                assert!(gone.insert(number), "{number} is delivered twice");
            }
            if gone.len() == count {
                drop(gone);
                // Whoever still waits for events is told that there are no more.
                channel.close().unwrap();
                return;
            }
        }
    })
}

fn deliver(sync: SyncMode, modes: &[fn() -> TakeMode]) {
    let mut options = options();
    options.sync = sync;
    let bench = Bench::open(options);
    let gone = Arc::new(std::sync::Mutex::new(BTreeSet::new()));
    let modes = modes.iter();
    let consumers: Vec<_> = modes
        .map(|mode| consumer(&bench, *mode, 6, &gone))
        .collect();
    let producers: Vec<_> = [0..2, 2..4, 4..6]
        .into_iter()
        .enumerate()
        .map(|(index, numbers)| {
            let channel = Arc::clone(&bench.channel);
            spawn(move || {
                for number in numbers {
                    match index {
                        0 => block_on(channel.commit_put(event(number, 40))).unwrap(),
                        _ => channel.commit_put_blocking(event(number, 40)).unwrap(),
                    };
                }
            })
        })
        .collect();
    producers.into_iter().for_each(|p| p.join().unwrap());
    consumers.into_iter().for_each(|c| c.join().unwrap());
    let gone = std::mem::take(&mut *gone.lock().unwrap());
    assert_eq!(gone, (0..6).collect());
    bench.finish(&gone, &gone, &gone);
}

fn batch() -> TakeMode {
    TakeMode::Batch
}

fn staged() -> TakeMode {
    TakeMode::Staged { block_events: 3 }
}

#[test]
fn what_is_taken_is_on_the_medium_and_whoever_waits_is_woken() {
    explore(|| deliver(SyncMode::Commit, &[batch]));
}

#[test]
fn takers_of_what_is_only_written_get_their_sync() {
    explore(|| deliver(SyncMode::Os, &[batch]));
}

#[test]
fn takers_get_their_sync_before_the_interval_is_over() {
    explore(|| deliver(SyncMode::Interval(LONG), &[batch]));
}

#[test]
fn takers_compete_and_none_misses_what_another_gives_back() {
    explore(|| deliver(SyncMode::Commit, &[batch, batch]));
}

#[test]
fn takers_of_blocks_and_of_batches_compete() {
    explore(|| deliver(SyncMode::Commit, &[batch, staged]));
}

#[test]
fn what_one_taker_gives_back_is_offered_to_another_while_it_goes_on() {
    explore(|| {
        let bench = Bench::open(options());
        for number in 0..2 {
            let put = bench.channel.commit_put_blocking(event(number, 40));
            put.unwrap();
        }
        let channel = bench.dynamic();
        let other = spawn(move || {
            loop {
                block_on(channel.wait_ready(LONG));
                let dynamic = Arc::clone(&channel);
                let mut take = TakeTransaction::begin(dynamic, TakeMode::Batch).unwrap();
                let numbers = numbers_of(&take.take(1, usize::MAX).unwrap());
                if !numbers.is_empty() {
                    block_on(take.commit()).unwrap();
                    return numbers;
                }
            }
        });
        // It is granted both, reads one and keeps its lease until the other has come.
        let mut take = TakeTransaction::begin(bench.dynamic(), TakeMode::Batch).unwrap();
        let first = numbers_of(&take.take(2, 1).unwrap());
        let second = other.join().unwrap();
        drop(take);
        assert!(first.len() + second.len() >= 1);
        bench.channel.close().unwrap();
        let gone = second.into_iter().collect();
        bench.finish(&[0, 1].into(), &gone, &[0, 1].into());
    });
}
