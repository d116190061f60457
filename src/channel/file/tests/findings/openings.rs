//! Openings that were cut short, one behind the other, and callers who go away: what the crash
//! model found.

use std::pin::Pin;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll, Wake, Waker};

use super::super::super::simulation::{LogView, SteppedChannel, Turn};
use super::super::planted::{drive, put_stepped, roll, segment_files, stepped};
use super::*;
use crate::channel::{ChannelError, PutBatch};
use crate::env::disk_sim::Crash;

fn step_open(disk: &SimDisk) -> SteppedChannel {
    let disk = Arc::new(disk.clone());
    SteppedChannel::open("c1", options(), disk, clock::system()).unwrap()
}

/// A log whose snapshots are longer by `pad` bytes, so that what follows them falls into sectors
/// in other ways.
fn log(pad: usize) -> SimDisk {
    let disk = SimDisk::default();
    let channel = step_open(&disk);
    let batch = PutBatch {
        events: Vec::new(),
        positions: vec![Position {
            key: "r1/file".into(),
            value: "7".repeat(pad + 1).into(),
        }],
    };
    channel.channel().commit_put_blocking(batch).unwrap();
    disk
}

/// Opens every state of the disk that a crash in the middle of the next open may leave.
fn crashed_in_the_next_open(disk: &SimDisk, mut see: impl FnMut(&LogView)) {
    disk.record();
    drop(step_open(disk));
    for moment in disk.recorded() {
        for crashed in moment.every_crash() {
            see(&step_open(&crashed).log());
        }
    }
}

#[test]
fn an_incarnation_that_was_copied_by_a_recovery_cut_short_is_not_forgotten() {
    let mut images = 0;
    for pad in (0..512).step_by(32) {
        // The opens are durable, the proof that they are is not: they are copied by the next one.
        let mut disk = log(pad);
        let mut opened = Vec::new();
        for _ in 0..2 {
            disk = disk.crash_as(Crash::DropAll);
            opened = step_open(&disk).log().incarnations;
        }
        disk = disk.crash_as(Crash::DropAll);
        crashed_in_the_next_open(&disk, |view| {
            images += 1;
            let known = view.incarnations.starts_with(&opened);
            assert!(known, "pad {pad}: {opened:?}, then {:?}", view.incarnations);
        });
    }
    assert!(images > 300, "{images} images");
}

#[test]
fn the_number_of_an_incarnation_that_was_only_in_the_page_cache_is_not_given_again() {
    let mut images = 0;
    for pad in (0..512).step_by(32) {
        let disk = log(pad).crash_as(Crash::DropAll);
        disk.record();
        drop(step_open(&disk));
        for moment in disk.recorded() {
            // Killed in the middle of an open; what it wrote stays in the cache for ever.
            let killed = moment.kill();
            killed.fail_write_back();
            crashed_in_the_next_open(&killed, |view| {
                images += 1;
                let numbers: Vec<u32> = view.incarnations.iter().map(|(n, _)| *n).collect();
                let counted = numbers.windows(2).all(|pair| pair[0] < pair[1]);
                assert!(counted, "pad {pad}: {:?}", view.incarnations);
            });
        }
    }
    assert!(images > 1000, "{images} images");
}

/// Its copies may lack what its snapshot counts on, and a later segment proves nothing of them.
#[test]
fn an_open_that_was_cut_short_is_no_base_when_the_snapshot_behind_it_rots() {
    let mut cut_short = 0;
    let disk = SimDisk::default();
    // Nothing proves the put to be durable, so the next open copies it.
    put_stepped(&stepped(&disk), 0, 2);
    let disk = disk.kill();
    disk.record();
    drop(stepped(&disk));
    for moment in disk.recorded() {
        for crashed in moment.every_crash() {
            let before = segment_files(&crashed).len();
            let channel = stepped(&crashed);
            put_stepped(&channel, 2, 2);
            put_stepped(&channel, 4, 2);
            put_stepped(&channel, 6, 2);
            drop(channel);
            let disk = crashed.kill();
            let files = segment_files(&disk);
            cut_short += u32::from(before > 1 && files.len() > 2);
            let newest = files.last().unwrap();
            let one = disk.kill();
            one.flip(newest, 4096 + 70, 3).unwrap();
            let found = take_all(stepped(&one).channel());
            assert_eq!(found, (numbers(0..8), Vec::new()), "{files:?}");
            // With the copies and the record of the start goes some of what was put behind them.
            disk.fail_reads(newest, 4096..8192).unwrap();
            let (taken, lost) = take_all(stepped(&disk).channel());
            assert!(
                taken.starts_with(&[0, 1]),
                "{taken:?}, lost {lost:?}, {files:?}"
            );
        }
    }
    assert!(cut_short > 10, "{cut_short} opens were cut short");
}

/// INV-7: of two snapshots that saw a segment dead, both are on the medium before it goes.
#[test]
fn a_snapshot_that_nothing_proves_does_not_count_for_the_deletion_of_a_segment() {
    let covered = |puts: u64| {
        let disk = SimDisk::default();
        let channel = stepped(&disk);
        put_stepped(&channel, 0, 2);
        let dynamic: Arc<dyn Channel> = Arc::clone(channel.channel()) as _;
        let mut take = TakeTransaction::begin(dynamic, TakeMode::Batch).unwrap();
        take.take(2, usize::MAX).unwrap();
        drive(&channel, take.commit()).unwrap();
        roll(&channel);
        for n in 0..puts {
            put_stepped(&channel, 2 + n, 1);
        }
        drop(channel);
        let again = stepped(&disk.kill());
        again.inside().segments[0].covered
    };
    // The watermark of the put lies behind the snapshot.
    assert_eq!([covered(0), covered(1)], [1, 2]);
}

/// Counts how often somebody is woken.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

type Polled<'a, T> = Pin<Box<dyn Future<Output = Result<T, ChannelError>> + Send + 'a>>;

fn poll<T>(future: &mut Polled<'_, T>, bell: &Arc<Bell>) -> Poll<Result<T, ChannelError>> {
    let waker = Waker::from(Arc::clone(bell));
    future.as_mut().poll(&mut Context::from_waker(&waker))
}

/// `leave` makes room by a call whose caller goes away before its record is written.
fn a_waiting_put_is_woken_by(leave: impl for<'a> Fn(&'a FileChannel, LeaseId) -> Polled<'a, ()>) {
    let runtime = runtime();
    let _entered = runtime.enter();
    let options = FileChannelOptions {
        capacity: 3,
        ..options()
    };
    let disk = Arc::new(SimDisk::default());
    let stepped = SteppedChannel::open("c1", options, disk, clock::system()).unwrap();
    let channel = Arc::clone(stepped.channel());
    put(&channel, 0, 3);
    let lease = channel.open_lease(TakeMode::Batch).unwrap();
    assert_eq!(
        channel.lease_take(lease, 2, 1 << 20).unwrap().events.len(),
        2
    );
    let (bell, nobody) = (Arc::new(Bell::default()), Arc::new(Bell::default()));
    let mut waits: Polled<'_, _> = channel.commit_put(batch(3, 1, 100));
    assert!(poll(&mut waits, &bell).is_pending(), "the channel is full");
    let mut gone = leave(&channel, lease);
    assert!(poll(&mut gone, &nobody).is_pending());
    drop(gone);
    assert_eq!(stepped.lead(), Turn::Done);
    assert!(bell.0.load(Ordering::Relaxed) > 0, "nobody woke the put");
    assert!(poll(&mut waits, &bell).is_pending(), "admitted");
    assert_eq!(stepped.lead(), Turn::Done);
    assert!(poll(&mut waits, &bell).is_ready());
}

#[test]
fn a_put_is_woken_by_an_acknowledgement_whose_caller_has_gone_away() {
    a_waiting_put_is_woken_by(|channel, lease| channel.lease_ack(lease, Seq(2)));
}

#[test]
fn a_put_is_woken_by_a_seal_whose_caller_has_gone_away() {
    a_waiting_put_is_woken_by(|channel, lease| {
        Box::pin(async move { channel.seal(lease, request(Seq(2))).await.map(drop) })
    });
}
