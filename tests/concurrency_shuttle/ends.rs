//! How a channel ends: a failed sync, a panic of whoever commits, a close, a drop. Nobody is left
//! waiting, and nothing that was answered Ok is lost.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forebay::channel::{Channel, ChannelError, TakeMode, TakeTransaction};
use forebay::env::disk_sim::{Call, Fault};

use crate::bench::{
    Bench, below, block_on, dawdle, event, explore, keeps, options, spawn, stepped,
};

const LONG: Duration = Duration::from_secs(60);

type Numbers = Arc<Mutex<BTreeSet<u64>>>;

/// Whether the channel has ended for this caller; anything else is a defect.
fn has_ended<T>(result: &Result<T, ChannelError>) -> bool {
    match result {
        Ok(_) => false,
        Err(
            ChannelError::Poisoned { .. }
            | ChannelError::Closed { .. }
            | ChannelError::LeaseLost { .. },
        ) => true,
        Err(error) => panic!("{error}"),
    }
}

/// Everybody that may be waiting for a channel: blocking puts and puts of tasks, with and without
/// room for them, takers that wait for events or for more in their lease, acknowledgements.
struct Crowd {
    threads: Vec<shuttle::thread::JoinHandle<()>>,
    acknowledged: Numbers,
    gone: Numbers,
}

impl Crowd {
    fn gather(bench: &Bench) -> Self {
        let (acknowledged, gone) = (Numbers::default(), Numbers::default());
        let mut threads = Vec::new();
        for (index, first) in [0_u64, 10, 20].into_iter().enumerate() {
            let (channel, disk) = (Arc::clone(&bench.channel), bench.disk.clone());
            let acknowledged = Arc::clone(&acknowledged);
            threads.push(spawn(move || {
                for number in first..first + 3 {
                    let put = || match index {
                        0 => block_on(channel.commit_put(event(number, 40))),
                        _ => channel.commit_put_blocking(event(number, 40)),
                    };
                    // A panic that was ordered meets whoever leads.
                    let Ok(answer) = catch_unwind(AssertUnwindSafe(put)) else {
                        return;
                    };
                    if has_ended(&answer) {
                        return;
                    }
                    assert!(
                        keeps(&disk, number),
                        "{number} is answered, not on the medium"
                    );
                    acknowledged.lock().unwrap().insert(number);
                }
            }));
        }
        let (channel, counted) = (bench.dynamic(), Arc::clone(&gone));
        threads.push(spawn(move || Self::consume(&channel, &counted)));
        let channel = bench.dynamic();
        threads.push(spawn(move || Self::wait_for_more(&channel)));
        Self {
            threads,
            acknowledged,
            gone,
        }
    }

    fn consume(channel: &Arc<dyn Channel>, gone: &Numbers) {
        loop {
            block_on(channel.wait_ready(LONG));
            let take = TakeTransaction::begin(Arc::clone(channel), TakeMode::Batch);
            if has_ended(&take) {
                return;
            }
            let mut take = take.unwrap();
            let batch = take.take(2, usize::MAX);
            if has_ended(&batch) {
                return;
            }
            let numbers = crate::bench::numbers_of(&batch.unwrap());
            // Acknowledged or not by the log: the answer alone says so.
            gone.lock().unwrap().extend(&numbers);
            if has_ended(&block_on(take.commit())) {
                return;
            }
        }
    }

    fn wait_for_more(channel: &Arc<dyn Channel>) {
        let mode = TakeMode::Staged { block_events: 1 };
        loop {
            let take = TakeTransaction::begin(Arc::clone(channel), mode);
            if has_ended(&take) {
                return;
            }
            let mut take = take.unwrap();
            block_on(take.wait(LONG));
            if has_ended(&take.take(1, usize::MAX)) {
                return;
            }
            // It gives back what it was given, again and again, and must not keep others away.
            drop(take);
            shuttle::thread::yield_now();
        }
    }

    /// All of them come back, and what was answered Ok is there.
    fn disperse(self, bench: Bench) {
        self.threads.into_iter().for_each(|t| t.join().unwrap());
        let put = [0..3, 10..13, 20..23].into_iter().flatten().collect();
        let acknowledged = std::mem::take(&mut *self.acknowledged.lock().unwrap());
        let gone = std::mem::take(&mut *self.gone.lock().unwrap());
        // What a sink has taken without an answer may be there or not.
        let kept: BTreeSet<u64> = acknowledged.difference(&gone).copied().collect();
        let put: BTreeSet<u64> = put;
        bench.finish(&kept, &BTreeSet::new(), &put);
    }
}

fn crowded() -> Bench {
    let mut options = options();
    options.capacity = 3;
    Bench::open(options)
}

#[test]
fn after_a_failed_sync_everybody_is_told_and_nobody_waits() {
    explore(|| {
        let bench = crowded();
        let fault = Fault::io(Call::Sync).on("segment-");
        bench
            .disk
            .inject(fault.after(u32::try_from(below(4)).unwrap()));
        let crowd = Crowd::gather(&bench);
        // Where the fault was not met the close ends them.
        if bench.disk.faults_met() == 0 {
            dawdle(300);
        }
        let closed = bench.channel.close();
        assert!(closed.is_ok() || bench.disk.faults_met() > 0, "{closed:?}");
        crowd.disperse(bench);
    });
}

#[test]
fn a_failed_sync_ends_the_log_without_any_help() {
    explore(|| {
        let bench = crowded();
        bench.disk.inject(Fault::io(Call::Sync).on("segment-"));
        // The first put fails, and nobody closes.
        Crowd::gather(&bench).disperse(bench);
    });
}

#[test]
fn a_panic_of_whoever_commits_ends_the_log_without_any_help() {
    explore(|| {
        let bench = crowded();
        let call = if below(2) == 0 {
            Call::Sync
        } else {
            Call::Store
        };
        bench.disk.inject(Fault::panic(call).on("segment-"));
        Crowd::gather(&bench).disperse(bench);
    });
}

#[test]
fn a_close_during_commits_answers_everybody_and_nothing_is_written_behind_the_seal() {
    explore(|| {
        let bench = crowded();
        let crowd = Crowd::gather(&bench);
        dawdle(400);
        bench.channel.close().unwrap();
        let operations = bench.disk.operations();
        let again = bench.channel.commit_put_blocking(event(99, 40));
        assert!(
            matches!(again, Err(ChannelError::Closed { .. })),
            "{again:?}"
        );
        let disk = bench.disk.clone();
        for thread in crowd.threads {
            thread.join().unwrap();
        }
        assert_eq!(
            disk.operations(),
            operations,
            "somebody wrote after the close"
        );
        let opened = stepped(&disk.kill(), options());
        assert_eq!(opened.found(), Default::default(), "a clean close");
        drop(opened);
        let crowd = Crowd {
            threads: Vec::new(),
            ..crowd
        };
        crowd.disperse(bench);
    });
}

#[test]
fn whoever_closes_second_and_whoever_accepts_damage_meanwhile_come_back() {
    explore(|| {
        let bench = crowded();
        let channel = Arc::clone(&bench.channel);
        let accept = spawn(move || {
            let accepted = channel.accept_damage();
            assert!(accepted.is_ok() || has_ended(&accepted));
        });
        let channel = Arc::clone(&bench.channel);
        let second = spawn(move || channel.close().unwrap());
        let put = bench.channel.commit_put_blocking(event(0, 40));
        bench.channel.close().unwrap();
        accept.join().unwrap();
        second.join().unwrap();
        let done = if has_ended(&put) { vec![] } else { vec![0] };
        bench.finish(&done.into_iter().collect(), &BTreeSet::new(), &[0].into());
    });
}

#[test]
fn a_drop_ends_the_threads_wherever_they_are() {
    explore(|| {
        let fresh = below(2) == 0;
        let bench = match fresh {
            true => Bench::open_fresh(options()),
            false => Bench::open(options()),
        };
        let done: BTreeSet<u64> = (0..below(3) as u64).collect();
        for number in &done {
            bench
                .channel
                .commit_put_blocking(event(*number, 40))
                .unwrap();
        }
        dawdle(200);
        bench.finish(&done, &BTreeSet::new(), &done);
    });
}
