//! Epochs: numbers are given once, also when callers go away; a seal and a release of one lease
//! exclude each other.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use forebay::channel::{Channel, ChannelError, EpochPart, SealRequest, TakeMode, TakeTransaction};
use forebay::event::Seq;

use crate::bench::{Bench, below, block_on, dawdle, event, explore, numbers_of, options, spawn};

const LONG: Duration = Duration::from_secs(60);

fn request(last: Seq, name_bytes: usize) -> SealRequest {
    SealRequest {
        last,
        sink: "k1".into(),
        store: "s".into(),
        base: "/b".into(),
        attempt: "a".into(),
        parts: vec![EpochPart {
            staged_name: "x".repeat(name_bytes),
            final_path: "/b/f".into(),
            count: 1,
            length: 1,
            crc32: 0,
        }],
    }
}

/// Polls a future this often and goes away; what it gave, if it gave anything.
fn poll_and_leave<T>(mut future: Pin<Box<dyn Future<Output = T> + '_>>, times: usize) -> Option<T> {
    let mut left = times;
    block_on(std::future::poll_fn(|context| {
        match future.as_mut().poll(context) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => {
                left -= 1;
                Poll::Pending
            }
        }
    }))
}

#[test]
fn epoch_numbers_are_dense_and_given_once_whoever_goes_away() {
    explore(|| {
        let bench = Bench::open(options());
        for number in 0..6 {
            bench
                .channel
                .commit_put_blocking(event(number, 40))
                .unwrap();
        }
        let sealers: Vec<_> = (0..3)
            .map(|_| {
                let channel = bench.dynamic();
                spawn(move || {
                    let mode = TakeMode::Staged { block_events: 2 };
                    let mut take = TakeTransaction::begin(channel, mode).unwrap();
                    let batch = take.take(2, usize::MAX).unwrap();
                    let last = batch.events.last().map(|e| e.seq)?;
                    let stays = below(2) == 0;
                    let times = if stays { usize::MAX } else { below(3) };
                    let sealed = poll_and_leave(Box::pin(take.seal(request(last, 8))), times);
                    sealed.map(|s| s.unwrap().epoch)
                })
            })
            .collect();
        let told: Vec<u64> = sealers
            .into_iter()
            .filter_map(|s| s.join().unwrap())
            .collect();
        // What a caller has left behind is written before anything later.
        bench.channel.commit_put_blocking(event(6, 40)).unwrap();
        let journal = bench.channel.journal();
        let open = journal.open_epochs();
        let numbers: Vec<u64> = open.iter().map(|e| e.epoch).collect();
        assert_eq!(
            numbers,
            (1..journal.next_epoch()).collect::<Vec<_>>(),
            "dense"
        );
        assert!(
            told.iter().all(|n| numbers.contains(n)),
            "{told:?} of {numbers:?}"
        );
        assert_eq!(
            told.iter().collect::<BTreeSet<_>>().len(),
            told.len(),
            "given twice"
        );
        // No event is in two epochs, and all others wait.
        let mut sealed = BTreeSet::new();
        for epoch in &open {
            for number in epoch.range.first.0..=epoch.range.last.0 {
                assert!(sealed.insert(number), "{number} is in two epochs");
            }
        }
        let status = bench.channel.status();
        assert_eq!(status.sealed_unpublished, sealed.len() as u64);
        assert_eq!(status.waiting + sealed.len() as u64, 7, "{status:?}");
        bench.channel.close().unwrap();
        let all: BTreeSet<u64> = (0..7).collect();
        let gone = sealed.iter().map(|sequence| sequence - 1).collect();
        bench.finish(&all, &gone, &all);
    });
}

#[test]
fn a_seal_and_a_release_of_the_same_lease_exclude_each_other() {
    explore(|| {
        let bench = Bench::open(options());
        for number in 0..2 {
            bench
                .channel
                .commit_put_blocking(event(number, 40))
                .unwrap();
        }
        let lease = bench
            .channel
            .open_lease(TakeMode::Staged { block_events: 2 })
            .unwrap();
        bench.channel.lease_take(lease, 2, usize::MAX).unwrap();
        let channel = bench.dynamic();
        let revoke = spawn(move || channel.release_lease(lease));
        let sealed = block_on(bench.channel.seal(lease, request(Seq(2), 8)));
        revoke.join().unwrap();
        let status = bench.channel.status();
        let expected = match sealed {
            Ok(_) => (0, 2),
            Err(ChannelError::LeaseLost { .. }) => (2, 0),
            Err(error) => panic!("{error}"),
        };
        assert_eq!((status.waiting, status.sealed_unpublished), expected);
        bench.channel.close().unwrap();
        let all: BTreeSet<u64> = (0..2).collect();
        let gone = if expected.0 == 0 {
            all.clone()
        } else {
            BTreeSet::new()
        };
        bench.finish(&all, &gone, &all);
    });
}

#[test]
fn events_of_a_seal_that_is_refused_are_offered_to_whoever_waits() {
    explore(|| {
        let bench = Bench::open(options());
        bench.channel.commit_put_blocking(event(0, 40)).unwrap();
        let channel = bench.dynamic();
        let mode = TakeMode::Staged { block_events: 2 };
        let mut take = TakeTransaction::begin(Arc::clone(&channel), mode).unwrap();
        take.take(1, usize::MAX).unwrap();
        let other = spawn(move || {
            loop {
                block_on(channel.wait_ready(LONG));
                let mut take =
                    TakeTransaction::begin(Arc::clone(&channel), TakeMode::Batch).unwrap();
                let numbers = numbers_of(&take.take(1, usize::MAX).unwrap());
                if !numbers.is_empty() {
                    block_on(take.commit()).unwrap();
                    return numbers;
                }
            }
        });
        dawdle(30);
        let refused = block_on(take.seal(request(Seq(1), 9_000)));
        assert!(
            matches!(refused, Err(ChannelError::Refused { .. })),
            "{refused:?}"
        );
        // The lease stays open meanwhile.
        assert_eq!(other.join().unwrap(), [0]);
        drop(take);
        bench.channel.close().unwrap();
        bench.finish(&[0].into(), &[0].into(), &[0].into());
    });
}
