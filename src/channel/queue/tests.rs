//! One test per rule of the queue; random histories against a naive queue are in `model`.

mod model;

use std::time::{Duration, Instant};

use super::*;

fn run(first: u64, last: u64) -> SeqRange {
    SeqRange::new(Seq(first), Seq(last)).expect("a run")
}

fn staged(block_events: u64) -> TakeMode {
    TakeMode::Staged { block_events }
}

/// An empty channel of the given capacity that starts at 0.
fn empty(capacity: u64) -> Queue {
    Queue::new(capacity, Seq(0), &[], &[], &[], Seq(0))
}

/// A channel in which 0..events wait.
fn waiting(events: u64) -> Queue {
    Queue::new(1_000_000, Seq(0), &[], &[], &[], Seq(events))
}

/// Grants and reads all of the grant.
fn take(queue: &mut Queue, lease: LeaseId, max: u64, now: Instant) -> Option<SeqRange> {
    let grant = queue.grant(lease, max, now).expect("held")?;
    queue.granted(lease, grant.range.last, None);
    Some(grant.range)
}

#[test]
fn take_ack_moves_the_cursor() {
    let (mut q, now) = (waiting(10), Instant::now());
    let a = q.open_lease(TakeMode::Batch);
    assert_eq!(take(&mut q, a, 4, now), Some(run(0, 3)));
    assert_eq!(q.ack(a, Seq(1)), Ok(run(0, 1)));
    assert_eq!(q.cursor(), Seq(2));
    assert_eq!(q.ack(a, Seq(3)), Ok(run(2, 3)));
    assert_eq!(q.cursor(), Seq(4));
    assert_eq!(take(&mut q, a, 99, now), Some(run(4, 9)));
}

#[test]
fn released_events_come_back_in_order_with_the_same_numbers() {
    let (mut q, now) = (waiting(10), Instant::now());
    let a = q.open_lease(TakeMode::Batch);
    let b = q.open_lease(TakeMode::Batch);
    assert_eq!(take(&mut q, a, 4, now), Some(run(0, 3)));
    assert_eq!(take(&mut q, b, 4, now), Some(run(4, 7)));
    q.release(b);
    q.release(a);
    let c = q.open_lease(TakeMode::Batch);
    assert_eq!(take(&mut q, c, 99, now), Some(run(0, 9)));
}

fn hint(offset: u32) -> Option<ReadHint> {
    Some(ReadHint {
        segment: 1,
        offset,
        skip: 0,
    })
}

/// Puts `events` that are durable at once.
fn put(queue: &mut Queue, events: u64) {
    assert!(queue.try_reserve(events));
    queue.committed(events);
    queue.publish_durable(Seq(queue.durable_end().0 + events));
}

#[test]
fn what_the_log_does_not_prove_done_waits_at_the_head() {
    let (acked, sealed) = ([run(4, 5), run(9, 9)], [run(6, 7)]);
    let mut q = Queue::new(1, Seq(2), &acked, &sealed, &[run(0, 3)], Seq(12));
    let (a, now) = (q.open_lease(TakeMode::Batch), Instant::now());
    assert_eq!(q.counts().waiting, 5);
    for expected in [run(2, 3), run(8, 8), run(10, 11)] {
        assert_eq!(
            q.grant(a, 99, now).expect("held").map(|g| g.range),
            Some(expected)
        );
        q.granted(a, expected.last, None);
        q.ack(a, expected.last).expect("held");
    }
    assert_eq!(q.acked_ranges(), [run(8, 11)]);
    q.done(run(6, 7));
    assert_eq!((q.cursor(), q.counts()), (Seq(12), Counts::default()));
}

#[test]
fn contradicting_ranges_never_give_a_number_twice() {
    let q = Queue::new(
        1,
        Seq(5),
        &[run(0, 9)],
        &[run(8, 12)],
        &[run(11, 50)],
        Seq(3),
    );
    assert_eq!((q.cursor(), q.durable_end()), (Seq(10), Seq(13)));
    assert_eq!(q.counts().sealed, 3);
    q.check().expect("tiled");
}

#[test]
fn only_durable_events_are_granted() {
    let (mut q, now) = (empty(10), Instant::now());
    assert!(q.try_reserve(5));
    q.committed(5);
    let a = q.open_lease(TakeMode::Batch);
    assert_eq!(take(&mut q, a, 9, now), None);
    q.publish_durable(Seq(3));
    assert_eq!(take(&mut q, a, 9, now), Some(run(0, 2)));
    assert_eq!((q.counts().committed, q.counts().leased), (2, 3));
}

#[test]
fn capacity_counts_reserved_committed_waiting_and_batches_but_not_staged() {
    let (mut q, now) = (empty(10), Instant::now());
    put(&mut q, 4);
    assert!(q.try_reserve(3) && q.try_reserve(3) && !q.try_reserve(1));
    q.unreserve(3);
    q.committed(3);
    assert!(q.try_reserve(3) && !q.try_reserve(1));
    q.unreserve(3);
    let a = q.open_lease(TakeMode::Batch);
    take(&mut q, a, 4, now);
    assert!(!q.try_reserve(4), "a batch counts until it is acknowledged");
    q.release(a);
    let b = q.open_lease(staged(100));
    take(&mut q, b, 4, now);
    assert!(
        q.try_reserve(7) && !q.try_reserve(1),
        "staged events do not count"
    );
    q.unreserve(7);
    q.release(b);
    q.publish_durable(Seq(7));
    assert!(q.try_reserve(0) && q.try_reserve(3) && !q.try_reserve(1));
    assert!(!q.try_reserve(u64::MAX));
}

#[test]
fn returned_events_may_exceed_capacity_and_positions_alone_still_fit() {
    let (mut q, now) = (empty(10), Instant::now());
    put(&mut q, 10);
    let a = q.open_lease(staged(100));
    take(&mut q, a, 10, now);
    put(&mut q, 10);
    q.release(a);
    assert_eq!(q.counts().waiting, 20);
    assert!(!q.try_reserve(1) && q.try_reserve(0));
}

#[test]
fn returned_runs_are_served_lowest_first_before_the_tail() {
    let (mut q, now) = (waiting(40), Instant::now());
    let ids: Vec<_> = (0..4).map(|_| q.open_lease(TakeMode::Batch)).collect();
    for id in &ids {
        take(&mut q, *id, 5, now);
    }
    q.release(ids[2]);
    q.release(ids[0]);
    let a = q.open_lease(TakeMode::Batch);
    assert_eq!(take(&mut q, a, 99, now), Some(run(0, 4)));
    assert_eq!(
        take(&mut q, a, 99, now),
        None,
        "what follows is held by another"
    );
    assert!(q.exhausted(a));
    let b = q.open_lease(TakeMode::Batch);
    assert_eq!(take(&mut q, b, 99, now), Some(run(10, 14)));
    let c = q.open_lease(TakeMode::Batch);
    assert_eq!(take(&mut q, c, 99, now), Some(run(20, 39)));
}

#[test]
fn hints_follow_the_start_of_every_run() {
    let (mut q, now) = (waiting(20), Instant::now());
    let a = q.open_lease(TakeMode::Batch);
    q.grant(a, 5, now).expect("held");
    q.granted(a, Seq(2), hint(3));
    let grant = q.grant(a, 2, now).expect("held").expect("more");
    assert_eq!((grant.range, grant.hint), (run(3, 4), hint(3)));
    q.granted(a, Seq(4), hint(5));
    let b = q.open_lease(TakeMode::Batch);
    let grant = q.grant(b, 5, now).expect("held").expect("more");
    assert_eq!((grant.range, grant.hint), (run(5, 9), hint(5)));
    q.ungrant(b);
    q.ack(a, Seq(3)).expect("held");
    q.release(a);
    let grant = q.grant(b, 9, now).expect("held").expect("more");
    assert_eq!(
        (grant.range, grant.hint),
        (run(4, 12), None),
        "4 is in the middle of a read"
    );
}

#[test]
fn a_single_block_grows_without_bound_with_the_durable_end() {
    let (mut q, now) = (empty(1_000_000), Instant::now());
    let a = q.open_lease(staged(10));
    for n in 0..10 {
        put(&mut q, 100);
        assert_eq!(
            take(&mut q, a, 1_000, now),
            Some(run(n * 100, n * 100 + 99))
        );
        assert!(!q.exhausted(a));
    }
}

#[test]
fn a_second_taker_bounds_the_block_and_gets_what_lies_beyond() {
    let (mut q, now) = (waiting(100), Instant::now());
    let a = q.open_lease(staged(10));
    assert_eq!(take(&mut q, a, 4, now), Some(run(0, 3)));
    let b = q.open_lease(staged(10));
    assert_eq!(
        take(&mut q, b, 99, now),
        Some(run(10, 19)),
        "blocks are cut unread"
    );
    assert_eq!(take(&mut q, a, 99, now), Some(run(4, 9)));
    assert!(q.exhausted(a) && q.exhausted(b));
    let c = q.open_lease(TakeMode::Batch);
    assert_eq!(take(&mut q, c, 99, now), Some(run(20, 99)));
}

#[test]
fn only_the_block_at_the_durable_end_grows_and_only_to_its_bound() {
    let (mut q, now) = (waiting(4), Instant::now());
    let a = q.open_lease(staged(10));
    let b = q.open_lease(staged(10));
    assert_eq!(take(&mut q, a, 99, now), Some(run(0, 3)));
    put(&mut q, 4);
    assert_eq!(
        take(&mut q, b, 99, now),
        None,
        "new events belong to the growing block"
    );
    assert!(!q.exhausted(a));
    put(&mut q, 4);
    assert_eq!(take(&mut q, b, 99, now), Some(run(10, 11)), "it is full");
    assert_eq!(take(&mut q, a, 99, now), Some(run(4, 9)));
    assert!(q.exhausted(a) && !q.exhausted(b));
}

#[test]
fn unread_events_pass_on_after_the_stall_and_the_block_is_frozen() {
    let (mut q, t0) = (waiting(4), Instant::now());
    let a = q.open_lease(staged(10));
    let b = q.open_lease(staged(10));
    assert_eq!(take(&mut q, a, 2, t0), Some(run(0, 1)));
    assert_eq!(take(&mut q, b, 9, t0), None);
    assert_eq!(q.next_deadline(t0), Some(t0 + STALL));
    let early = t0 + STALL - Duration::from_millis(1);
    assert!(!q.lease_ready(b, early));
    assert_eq!(take(&mut q, b, 9, early), None);
    assert!(q.lease_ready(b, t0 + STALL) && q.exhausted(a));
    assert_eq!(take(&mut q, b, 9, t0 + STALL), Some(run(2, 3)));
    put(&mut q, 4);
    assert_eq!(take(&mut q, a, 9, t0 + STALL), None);
    assert_eq!(take(&mut q, b, 9, t0 + STALL), Some(run(4, 7)));
    assert_eq!(
        q.seal(a, Seq(1)),
        Ok(run(0, 1)),
        "what was read is still held"
    );
    assert!(
        !q.exhausted(a),
        "a lease that holds nothing is as good as new"
    );
}

#[test]
fn a_holder_that_reads_keeps_its_block() {
    let (mut q, t0) = (waiting(4), Instant::now());
    let a = q.open_lease(staged(10));
    let b = q.open_lease(staged(10));
    for n in 0..4 {
        let now = t0 + STALL * u32::try_from(n).expect("small");
        assert_eq!(take(&mut q, a, 1, now), Some(run(n, n)));
        assert_eq!(take(&mut q, b, 9, now), None);
    }
    assert_eq!(
        q.next_deadline(t0 + STALL * 4),
        None,
        "all is read: nothing can pass on"
    );
}

#[test]
fn a_lower_returned_run_stops_an_endless_block() {
    let (mut q, t0) = (waiting(10), Instant::now());
    let a = q.open_lease(staged(100));
    take(&mut q, a, 5, t0);
    q.seal(a, Seq(4)).expect("held");
    assert_eq!(take(&mut q, a, 9, t0), Some(run(5, 9)));
    q.abandon(run(0, 4));
    assert!(!q.lease_ready(a, t0));
    put(&mut q, 1);
    assert_eq!(take(&mut q, a, 9, t0 + STALL / 2), Some(run(10, 10)));
    assert!(q.lease_ready(a, t0 + STALL) && q.exhausted(a));
    q.seal(a, Seq(10)).expect("held");
    assert_eq!(take(&mut q, a, 9, t0 + STALL), Some(run(0, 4)));
}

#[test]
fn seal_is_a_compare_and_set_on_what_the_lease_has_read() {
    let (mut q, now) = (waiting(10), Instant::now());
    let a = q.open_lease(staged(100));
    take(&mut q, a, 5, now);
    assert_eq!(q.seal(a, Seq(5)), Err(Lost), "kept for it, not read");
    assert_eq!(q.seal(a, Seq(2)), Ok(run(0, 2)));
    assert_eq!(q.seal(a, Seq(2)), Err(Lost), "sealed already");
    q.release(a);
    assert_eq!(q.seal(a, Seq(4)), Err(Lost));
    assert_eq!(q.begin_ack(a, Seq(4)), Err(Lost));
    assert_eq!(q.grant(a, 1, now), Err(Lost));
    assert_eq!((q.counts().sealed, q.counts().waiting), (3, 7));
}

#[test]
fn a_pending_acknowledgement_cannot_be_released_and_comes_back_if_cancelled() {
    let (mut q, now) = (waiting(10), Instant::now());
    let a = q.open_lease(TakeMode::Batch);
    take(&mut q, a, 6, now);
    let (one, two) = (q.begin_ack(a, Seq(2)), q.begin_ack(a, Seq(4)));
    q.release(a);
    assert_eq!((q.counts().acking, q.cursor()), (5, Seq(0)));
    q.finish_ack(two.expect("held"));
    assert_eq!((q.cursor(), q.acked_ranges()), (Seq(0), vec![run(3, 4)]));
    q.cancel_ack(one.expect("held"));
    let b = q.open_lease(TakeMode::Batch);
    assert_eq!(take(&mut q, b, 9, now), Some(run(0, 2)));
}

#[test]
fn a_release_during_a_read_voids_its_result() {
    let (mut q, now) = (waiting(10), Instant::now());
    let a = q.open_lease(staged(100));
    q.grant(a, 5, now).expect("held");
    assert_eq!(q.seal(a, Seq(0)), Err(Lost), "not read yet");
    q.release(a);
    q.granted(a, Seq(4), hint(5));
    q.ungrant(a);
    assert_eq!(q.counts().waiting, 10);
}

/// A hole is told with its whole length: it may reach over what another lease has read.
#[test]
fn a_hole_leaves_out_what_is_sealed_and_what_is_not_there_yet() {
    let (mut q, now) = (waiting(100), Instant::now());
    let a = q.open_lease(staged(1_000));
    q.grant(a, 10, now).expect("held").expect("more");
    q.granted(a, Seq(9), None);
    q.seal(a, Seq(9)).expect("held");
    q.add_lost(run(5, 5_000));
    assert_eq!(q.lost_ranges(), [run(10, 99)]);
}

#[test]
fn lost_runs_are_named_and_do_not_count_against_the_request() {
    let (mut q, now) = (waiting(100), Instant::now());
    let a = q.open_lease(staged(1_000));
    q.add_lost(run(2, 50));
    let grant = q.grant(a, 4, now).expect("held").expect("more");
    assert_eq!((grant.range, grant.lost), (run(0, 52), vec![run(2, 50)]));
    q.granted(a, Seq(52), None);
    assert_eq!(q.counts().lost, 49);
    q.ack(a, Seq(20)).expect("held");
    assert_eq!(q.lost_ranges(), [run(21, 50)]);
    q.add_lost(run(0, 21));
    assert_eq!(
        q.lost_ranges(),
        [run(21, 50)],
        "acknowledged events are not lost"
    );
}

#[test]
fn short_of_bytes_the_lowest_staged_lease_is_asked_until_it_seals() {
    let (mut q, now) = (waiting(100), Instant::now());
    let a = q.open_lease(staged(10));
    assert_eq!(q.ask_oldest_staged_to_seal(), None, "it holds nothing");
    let b = q.open_lease(staged(10));
    let c = q.open_lease(TakeMode::Batch);
    take(&mut q, c, 10, now);
    take(&mut q, b, 10, now);
    take(&mut q, a, 10, now);
    assert_eq!(q.ask_oldest_staged_to_seal(), Some(b));
    assert_eq!(q.ask_oldest_staged_to_seal(), Some(b));
    assert!(q.must_seal(b) && !q.must_seal(a) && q.lease_ready(b, now));
    q.seal(b, Seq(19)).expect("held");
    assert!(!q.must_seal(b));
    assert_eq!(q.ask_oldest_staged_to_seal(), Some(a));
}

#[test]
fn memory_follows_ranges_not_events() {
    let (mut q, now) = (empty(u64::MAX), Instant::now());
    let a = q.open_lease(TakeMode::Batch);
    put(&mut q, u64::MAX / 4);
    assert_eq!(
        take(&mut q, a, u64::MAX, now),
        Some(run(0, u64::MAX / 4 - 1))
    );
    q.ack(a, Seq(u64::MAX / 4 - 1)).expect("held");
    assert_eq!(q.acked_ranges(), []);
}
