//! One test per rule of the queue; the model is in `model`.

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
