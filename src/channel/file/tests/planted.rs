//! Promises that nothing else looked at: each test was written because a planted bug went by.
//! `tests/long/planted-bugs.sh` shows that they see it now.

use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use super::super::options::{SPARES_AHEAD, SPARES_RESERVED};
use super::super::simulation::{SteppedChannel, Turn};
use super::*;
use crate::channel::journal::Refusal;
use crate::env::clock::Clock;
use crate::env::disk_sim::{Crash, SimDisk};

const SMALL: u64 = 64 << 10;

pub(super) fn small(dirs: &[&str]) -> FileChannelOptions {
    FileChannelOptions {
        data_dirs: dirs.iter().map(PathBuf::from).collect(),
        max_file_size: SMALL,
        minimum_required_space: 1 << 20,
        keep_alive: Duration::from_millis(50),
        keep_dead: Duration::ZERO,
        ..FileChannelOptions::default()
    }
}

/// A clock that stands until it is moved.
#[derive(Debug)]
struct ByHand(Instant, Mutex<Duration>);

impl ByHand {
    fn new() -> Arc<Self> {
        Arc::new(Self(Instant::now(), Mutex::default()))
    }

    fn pass(&self, time: Duration) {
        *self.1.lock().unwrap() += time;
    }
}

impl Clock for ByHand {
    fn wall_ms(&self) -> u64 {
        1_700_000_000_000
    }

    fn now(&self) -> Instant {
        self.0 + *self.1.lock().unwrap()
    }
}

fn stepped_with(disk: &SimDisk, options: FileChannelOptions) -> SteppedChannel {
    SteppedChannel::open("c1", options, Arc::new(disk.clone()), ByHand::new()).unwrap()
}

pub(super) fn stepped(disk: &SimDisk) -> SteppedChannel {
    stepped_with(disk, small(&["/data"]))
}

fn prepare_all(channel: &SteppedChannel) {
    while let Some(prepared) = channel.prepare() {
        assert!(prepared, "room on the disk");
    }
}

/// Rolls, and deletes what may go.
pub(super) fn roll(channel: &SteppedChannel) {
    prepare_all(channel);
    assert!(channel.roll());
    channel.end_round(true);
}

fn poll<F: Future + ?Sized>(future: &mut Pin<Box<F>>) -> Option<F::Output> {
    match future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// Runs a call to its end, with a turn of the committer whenever it waits.
pub(super) fn drive<F: Future>(channel: &SteppedChannel, call: F) -> F::Output {
    let mut call = Box::pin(call);
    for _ in 0..100 {
        if let Some(output) = poll(&mut call) {
            return output;
        }
        if channel.lead() == Turn::NoSpare {
            prepare_all(channel);
        }
    }
    panic!("nobody answers");
}

pub(super) fn put_stepped(channel: &SteppedChannel, first: u64, count: u64) {
    let put = channel.channel().commit_put(batch(first, count, 700));
    drive(channel, put).unwrap();
}

pub(super) fn segment_files(disk: &SimDisk) -> Vec<PathBuf> {
    let mut files = disk.files();
    files.retain(|p| crash::is_segment(p));
    files
}

/// What is prepared is a reserve only when it is still there after the power was cut.
#[test]
fn prepared_segments_survive_a_power_cut() {
    let disk = SimDisk::default();
    let channel = stepped(&disk);
    prepare_all(&channel);
    let crashed = disk.crash_as(Crash::DropAll);
    drop(channel);
    let spares = crashed.files().into_iter();
    let spares = spares
        .filter(|p| p.display().to_string().contains("spare-"))
        .count();
    assert_eq!(spares, SPARES_RESERVED + SPARES_AHEAD);
    assert_eq!(
        stepped(&crashed).inside().spares,
        spares - 1,
        "each can be used"
    );
}

/// INV-7: a segment that was deleted, and its space given away, does not come back.
#[test]
fn a_deleted_segment_stays_deleted_over_a_power_cut() {
    let disk = SimDisk::default();
    let channel = stepped(&disk);
    put_stepped(&channel, 0, 2);
    let first = segment_files(&disk).remove(0);
    let mut take =
        TakeTransaction::begin(Arc::clone(channel.channel()) as _, TakeMode::Batch).unwrap();
    assert_eq!(take.take(10, usize::MAX).unwrap().events.len(), 2);
    drive(&channel, take.commit()).unwrap();
    while segment_files(&disk).contains(&first) {
        roll(&channel);
    }
    let crashed = segment_files(&disk.crash_as(Crash::DropAll));
    assert!(!crashed.contains(&first), "{crashed:?}");
}

/// A channel in several directories opens after a power cut at any moment of its first open and
/// of what comes behind it.
#[test]
fn a_channel_in_two_directories_opens_after_a_power_cut_at_any_step() {
    let disk = SimDisk::default();
    disk.record();
    let two = small(&["/data", "/second"]);
    let channel = stepped_with(&disk, two.clone());
    put_stepped(&channel, 0, 2);
    prepare_all(&channel);
    put_stepped(&channel, 2, 2);
    let mut states = disk.recorded();
    states.push(disk.kill());
    drop(channel);
    for (step, state) in states.iter().enumerate() {
        for crash in [
            Crash::DropAll,
            Crash::KeepAll,
            Crash::Mixed(1),
            Crash::Mixed(2),
        ] {
            let crashed = state.crash_as(crash);
            let opened = FileChannel::open("c1", two.clone(), Arc::new(crashed), clock::system());
            let channel = opened.unwrap_or_else(|e| panic!("step {step} {crash:?}: {e}"));
            let (found, _) = take_all(&channel);
            assert_eq!(found, all(0..found.len() as u64), "step {step} {crash:?}");
        }
    }
}

/// INV-11: what the stores have taken back does not wait again after a power cut.
#[test]
fn a_log_that_was_taken_back_is_not_refused_again_after_a_power_cut() {
    let disk = SimDisk::default();
    let channel = stepped(&disk);
    let journal = channel.channel().journal();
    let refusal = Refusal {
        by: "hdfs://nn/out/owner.2".to_owned(),
        first: Seq(1),
    };
    drive(&channel, journal.refuse(refusal)).unwrap();
    let crashed = disk.crash_as(Crash::DropAll);
    assert!(stepped(&crashed).channel().journal().refusal().is_some());
    drive(&channel, journal.owned()).unwrap();
    let crashed = disk.crash_as(Crash::DropAll);
    assert_eq!(stepped(&crashed).channel().journal().refusal(), None);
}

/// INV-6: everyone whose transaction was in one group is answered, by his own numbers.
#[test]
fn every_producer_of_one_group_is_answered() {
    let channel = stepped(&SimDisk::default());
    let puts = (0..5).map(|n| channel.channel().commit_put(batch(n, 1, 100)));
    let mut puts: Vec<_> = puts.map(Box::pin).collect();
    assert!(puts.iter_mut().all(|put| poll(put).is_none()));
    assert_eq!(channel.lead(), Turn::Done);
    for (n, put) in (1..).zip(&mut puts) {
        let range = poll(put)
            .unwrap_or_else(|| panic!("put {n} waits for ever"))
            .unwrap();
        assert_eq!(range, SeqRange::new(Seq(n), Seq(n)));
    }
}

/// INV-6: those who queued behind a group that failed get the error as well.
#[test]
fn everyone_who_waits_for_a_log_that_fails_is_answered() {
    let disk = SimDisk::default();
    let channel = stepped(&disk);
    prepare_all(&channel);
    // More than one group takes.
    let puts = (0..8).map(|n| channel.channel().commit_put(batch(n * 10, 10, 700)));
    let mut puts: Vec<_> = puts.map(Box::pin).collect();
    assert!(puts.iter_mut().all(|put| poll(put).is_none()));
    disk.fail_syncs(1);
    channel.lead();
    for (n, put) in puts.iter_mut().enumerate() {
        let answer = poll(put).unwrap_or_else(|| panic!("put {n} waits for ever"));
        assert!(
            matches!(answer, Err(ChannelError::Poisoned { .. })),
            "{n}: {answer:?}"
        );
    }
}

/// A put that is refused has taken no part of the capacity with it.
#[test]
fn a_refused_put_gives_its_capacity_back() {
    let tight = FileChannelOptions {
        capacity: 10,
        ..small(&["/data"])
    };
    let channel = stepped_with(&SimDisk::default(), tight);
    let bulky = PutBatch {
        positions: vec![Position {
            key: "k".repeat(5000),
            value: "1".into(),
        }],
        ..batch(0, 10, 100)
    };
    let refused = drive(&channel, channel.channel().commit_put(bulky));
    assert!(
        matches!(refused, Err(ChannelError::Full { .. })),
        "{refused:?}"
    );
    put_stepped(&channel, 0, 10);
}

/// INV-8, INV-9: all that a log says is in its snapshots: after rolls that delete the segments
/// in which it was written, and a power cut, the same is known.
#[test]
fn nothing_that_a_log_says_is_forgotten_with_its_segments() {
    let disk = SimDisk::default();
    let old = stepped(&disk);
    put_stepped(&old, 0, 4);
    drop(old);
    // A decision and two events are lost to rot.
    let killed = disk.kill();
    let channel = stepped(&killed);
    let rotten = channel.channel().core.durable_end().offset() as usize;
    drive(&channel, channel.channel().journal().fenced(1)).unwrap();
    put_stepped(&channel, 4, 2);
    put_stepped(&channel, 6, 4);
    let newest = segment_files(&killed).pop().unwrap();
    drop(channel);
    killed.flip(&newest, rotten + 70, 3).unwrap();
    let at = killed.content(&newest).unwrap();
    let at = at.windows(9).position(|w| w == b"00000004 ").unwrap();
    killed.flip(&newest, at, 3).unwrap();
    let disk = killed.kill();
    let channel = stepped(&disk);
    assert!(channel.log().control_lost && channel.log().lost.len() == 1);
    let journal = channel.channel().journal();
    drive(&channel, journal.fenced(2)).unwrap();
    // One epoch done, one claimed, one sealed; a lease in front of them keeps the cursor.
    let held = channel.channel().open_lease(TakeMode::Batch).unwrap();
    channel.channel().lease_take(held, 1, 1 << 20).unwrap();
    let staged = TakeMode::Staged { block_events: 100 };
    let lease = channel.channel().open_lease(staged).unwrap();
    while !channel
        .channel()
        .lease_take(lease, 100, 1 << 20)
        .unwrap()
        .is_empty()
    {}
    for last in [2, 3, 8] {
        drive(&channel, channel.channel().seal(lease, request(last))).unwrap();
    }
    drive(&channel, journal.claimed(2)).unwrap();
    drive(&channel, journal.done(3)).unwrap();
    drive(&channel, journal.done(1)).unwrap();
    for _ in 0..4 {
        roll(&channel);
    }
    let said = channel.log();
    let crashed = disk.crash_as(Crash::DropAll);
    drop(channel);
    let again = stepped(&crashed);
    let mut found = again.log();
    let own = found.incarnations.pop();
    assert_eq!(
        own.map(|(number, _)| number),
        Some(said.incarnations.len() as u32 + 1)
    );
    found.next_control = said.next_control;
    assert_eq!(found, said);
    assert_eq!(again.channel().status().sealed_unpublished, 1, "{said:?}");
}

/// After a second of quiet the last group is proven, so that rot in it has a name.
#[test]
fn a_quiet_second_lets_rot_in_the_last_group_be_named() {
    let disk = SimDisk::default();
    let clock = ByHand::new();
    let shared: Arc<dyn Clock> = Arc::clone(&clock) as _;
    let channel =
        SteppedChannel::open("c1", small(&["/data"]), Arc::new(disk.clone()), shared).unwrap();
    let rotten = channel.channel().core.durable_end().offset() as usize;
    put_stepped(&channel, 0, 2);
    channel.end_round(false);
    clock.pass(Duration::from_secs(2));
    channel.end_round(true);
    drop(channel);
    let crashed = disk.crash_as(Crash::DropAll);
    crashed
        .flip(&segment_files(&crashed)[0], rotten + 200, 3)
        .unwrap();
    assert_eq!(
        stepped(&crashed).log().lost,
        [SeqRange::new(Seq(1), Seq(2)).unwrap()]
    );
}

/// Notes at each wake-up whether there is something to take.
struct Looks(Arc<FileChannel>, Mutex<Vec<bool>>);

impl std::task::Wake for Looks {
    fn wake(self: Arc<Self>) {
        let ready = self.0.core.queue().has_ready(Instant::now());
        self.1.lock().unwrap().push(ready);
    }
}

/// INV-6: a sink that is woken too early finds nothing, waits again, and nobody wakes it.
#[test]
fn a_sink_that_is_woken_finds_what_it_was_woken_for() {
    let channel = stepped(&SimDisk::default());
    let (runtime, looks) = (
        runtime(),
        Arc::new(Looks(Arc::clone(channel.channel()), Mutex::default())),
    );
    let _entered = runtime.enter();
    let waker = Waker::from(Arc::clone(&looks));
    let mut ready = channel.channel().wait_ready(Duration::from_secs(600));
    assert!(
        ready
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
    );
    put_stepped(&channel, 0, 2);
    assert_eq!(
        *looks.1.lock().unwrap(),
        [true],
        "woken once, with events to take"
    );
}

fn request(last: u64) -> SealRequest {
    SealRequest {
        last: Seq(last),
        sink: "k1".into(),
        store: "file://".into(),
        base: "/out".into(),
        attempt: format!("/out/_staging/c/i1/a{last}"),
        parts: Vec::new(),
    }
}

/// INV-1: acknowledgements and decisions about epochs are on the medium when their call returns,
/// in every sync mode.
#[test]
fn what_is_decided_survives_a_power_cut_in_every_sync_mode() {
    for sync in [SyncMode::Commit, SyncMode::Os] {
        let disk = SimDisk::default();
        let lazy = FileChannelOptions {
            sync,
            ..small(&["/data"])
        };
        let channel = stepped_with(&disk, lazy.clone());
        let after = || {
            let crashed = disk.crash_as(Crash::DropAll);
            stepped_with(&crashed, lazy.clone()).log()
        };
        put_stepped(&channel, 0, 6);
        channel.channel().core.want_sync();
        channel.end_round(false);
        let mode = TakeMode::Staged { block_events: 100 };
        let mut take = TakeTransaction::begin(Arc::clone(channel.channel()) as _, mode).unwrap();
        assert_eq!(
            take.take(6, usize::MAX).unwrap().events.len(),
            6,
            "{sync:?}"
        );
        let journal = channel.channel().journal();
        for (epoch, last) in [(1, 2), (2, 4)] {
            drive(&channel, take.seal(request(last))).unwrap();
            assert_eq!(after().epochs.len() as u64, epoch, "{sync:?}");
        }
        drive(&channel, journal.claimed(2)).unwrap();
        assert!(after().epochs[1].claimed, "{sync:?}");
        drive(&channel, journal.done(1)).unwrap();
        assert_eq!((after().epochs.len(), after().cursor), (1, 3), "{sync:?}");
        drive(&channel, journal.abandon(2)).unwrap();
        assert_eq!(after().epochs.len(), 0, "{sync:?}");
        drive(&channel, journal.fenced(7)).unwrap();
        assert_eq!(after().fenced_through, 7, "{sync:?}");
        drive(&channel, take.commit()).unwrap();
        assert_eq!(
            after().acked,
            [SeqRange::new(Seq(5), Seq(6)).unwrap()],
            "{sync:?}"
        );
    }
}

/// Rot at the end of a sealed segment is proven by the next one: damage, not a torn tail.
#[test]
fn rot_in_a_seal_is_damage_because_the_next_segment_proves_it() {
    let disk = SimDisk::default();
    let channel = stepped(&disk);
    put_stepped(&channel, 0, 2);
    let seal = channel.channel().core.durable_end().offset();
    roll(&channel);
    put_stepped(&channel, 2, 2);
    let files = segment_files(&disk);
    drop(channel);
    let killed = disk.kill();
    killed.flip(&files[0], seal as usize + 10, 3).unwrap();
    // So that the old segment is read again.
    killed.flip(&files[1], 4096 + 100, 3).unwrap();
    let found = stepped(&killed).found();
    let places: Vec<_> = found
        .damage
        .iter()
        .map(|(segment, at, _)| (*segment, *at))
        .collect();
    assert_eq!(places, [(0, seal), (1, 4096)]);
    assert_eq!(found.torn, None);
}

/// Row R2, INV-9: what cannot be read behind the end of the log is not taken for nothing, and costs
/// nothing that stands in other sectors.
#[test]
fn an_unreadable_tail_is_reported_as_torn() {
    let disk = SimDisk::default();
    let channel = stepped(&disk);
    put_stepped(&channel, 0, 2);
    // One that ends with its sector, so that the next begins in one of its own.
    let end = || channel.channel().core.durable_end().offset();
    let bytes = |size: usize| encode_put(batch(2, 1, size), 1 << 10).bytes();
    let fits = |size: &usize| (end() as usize + bytes(*size)).is_multiple_of(4096);
    let size = (9..5000).find(fits).unwrap();
    drive(&channel, channel.channel().commit_put(batch(2, 1, size))).unwrap();
    let begin = end();
    put_stepped(&channel, 3, 2);
    let newest = segment_files(&disk).pop().unwrap();
    drop(channel);
    let killed = disk.kill();
    let sector = u64::from(begin)..u64::from(begin) + 4096;
    killed.fail_reads(&newest, sector).unwrap();
    let opened = stepped(&killed);
    let torn = opened.found().torn;
    assert!(torn.is_some_and(|(_, at, _)| at == begin), "{torn:?}");
    assert_eq!(
        opened.log().next_sequence,
        4,
        "what stands in front of it is readable"
    );
}

/// INV-3: however much waits, each group ends at the end of its segment, and the next one begins in
/// the next.
#[test]
fn a_queue_of_puts_goes_into_as_many_segments_as_it_needs() {
    let disk = SimDisk::default();
    let channel = stepped(&disk);
    let mut next = 0;
    for round in 0..6 {
        prepare_all(&channel);
        // Of different sizes, so that a segment's end meets groups in different places.
        let counts = (0..9).map(|n| 3 + (7 * n + 5 * round) % 10);
        let puts = counts.map(|count| {
            next += count;
            let put = batch(next - count, count, 430);
            Box::pin(channel.channel().commit_put(put))
        });
        let mut puts: Vec<_> = puts.collect();
        assert!(
            puts.iter_mut().all(|put| poll(put).is_none()),
            "round {round}"
        );
        while channel.lead() != Turn::Idle {
            prepare_all(&channel);
        }
        for put in &mut puts {
            poll(put).unwrap().unwrap();
        }
    }
    drop(channel);
    assert_eq!(
        take_all(&crash_open(&disk.crash_as(Crash::DropAll))).0,
        all(0..next)
    );
}

fn crash_open(disk: &SimDisk) -> Arc<FileChannel> {
    let options = small(&["/data"]);
    FileChannel::open("c1", options, Arc::new(disk.clone()), clock::system()).unwrap()
}

/// INV-3: puts leave room for the watermark and the seal, to the last byte.
#[test]
fn a_segment_that_is_full_to_the_brim_is_proven_sealed_and_followed() {
    let channel = stepped(&SimDisk::default());
    prepare_all(&channel);
    let room = || channel.inside().active_room;
    let mut next = 0;
    while room() > 2000 {
        put_stepped(&channel, next, 1);
        next += 1;
    }
    let fits = |size: &usize| encode_put(batch(next, 1, *size), 1 << 10).bytes() <= room();
    let size = (9..2000).rev().find(fits).unwrap();
    let last = batch(next, 1, size);
    drive(&channel, channel.channel().commit_put(last)).unwrap();
    assert!(room() < 16, "{}", room());
    let segments = channel.inside().segments.len();
    assert!(channel.roll());
    assert_eq!(channel.inside().segments.len(), segments + 1);
}

/// Events of a take that is rolled back are there for the next one, and their room is taken.
#[test]
fn a_take_that_is_rolled_back_returns_its_events() {
    let channel = stepped(&SimDisk::default());
    put_stepped(&channel, 0, 6);
    for _ in 0..3 {
        assert_eq!(take_all(channel.channel()).0, all(0..6));
        let status = channel.channel().status();
        assert_eq!((status.waiting, status.leased), (6, 0));
    }
}
