//! Random histories on the queue and on a naive one that keeps a state per event must agree.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Where one event is. Kept but unread events of a block are `Waiting`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Waiting,
    Held(LeaseId),
    Acking,
    Sealed,
    Acked,
}

#[derive(Clone, Debug)]
enum Op {
    Put(u64),
    Open(Option<u64>),
    /// Lease, events asked for, events really read (of the grant), seconds passed.
    Take(usize, u64, u64, u64),
    Ack(usize, u64),
    Seal(usize, u64),
    EndAck(usize, bool),
    EndSeal(usize, bool),
    Release(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (1u64..12).prop_map(Op::Put),
        1 => prop::option::of(1u64..20).prop_map(Op::Open),
        6 => (any::<usize>(), 1u64..15, 0u64..15, 0u64..7)
            .prop_map(|(l, max, read, s)| Op::Take(l, max, read, s)),
        2 => (any::<usize>(), 0u64..12).prop_map(|(l, n)| Op::Ack(l, n)),
        2 => (any::<usize>(), 0u64..12).prop_map(|(l, n)| Op::Seal(l, n)),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(n, ok)| Op::EndAck(n, ok)),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(n, ok)| Op::EndSeal(n, ok)),
        1 => any::<usize>().prop_map(Op::Release),
    ]
}

const CAPACITY: u64 = 40;

struct Pair {
    queue: Queue,
    model: BTreeMap<u64, At>,
    leases: Vec<(LeaseId, TakeMode)>,
    acking: Vec<SeqRange>,
    sealed: Vec<SeqRange>,
    now: Instant,
}

fn pick<T: Copy>(of: &[T], n: usize) -> Option<T> {
    of.get(n.checked_rem(of.len())?).copied()
}

impl Pair {
    fn new() -> Self {
        let (leases, acking, sealed) = (Vec::new(), Vec::new(), Vec::new());
        let model = BTreeMap::new();
        Self {
            queue: empty(CAPACITY),
            model,
            leases,
            acking,
            sealed,
            now: Instant::now(),
        }
    }

    fn count(&self, is: impl Fn(At) -> bool) -> u64 {
        u64::try_from(self.model.values().filter(|at| is(**at)).count()).expect("small")
    }

    fn set(&mut self, range: SeqRange, at: At) {
        for seq in range.first.0..=range.last.0 {
            self.model.insert(seq, at);
        }
    }

    fn held(&self, lease: LeaseId) -> Option<SeqRange> {
        let mut held = self.model.iter().filter(|(_, at)| **at == At::Held(lease));
        let first = *held.next()?.0;
        let last = held.next_back().map_or(first, |(seq, _)| *seq);
        SeqRange::new(Seq(first), Seq(last))
    }

    fn held_by(&self, staged: bool) -> u64 {
        let of_mode = |(_, mode): &&(LeaseId, TakeMode)| (*mode == TakeMode::Batch) != staged;
        let leases = self.leases.iter().filter(of_mode);
        leases
            .map(|(id, _)| self.count(|at| at == At::Held(*id)))
            .sum()
    }

    fn take(&mut self, lease: LeaseId, max: u64, read: u64) {
        let before = self.held(lease);
        let Some(grant) = self.queue.grant(lease, max, self.now).expect("held") else {
            return;
        };
        let range = grant.range;
        assert!(range.count() <= max);
        for seq in range.first.0..=range.last.0 {
            assert_eq!(
                self.model.get(&seq),
                Some(&At::Waiting),
                "{seq} of {range:?}"
            );
        }
        if let Some(held) = before {
            assert_eq!(range.first, held.last.next(), "contiguous");
        } else if self.leases.iter().all(|(_, mode)| *mode == TakeMode::Batch) {
            let lowest = self.model.iter().find(|(_, at)| **at == At::Waiting);
            assert_eq!(
                Some(&range.first.0),
                lowest.map(|(seq, _)| seq),
                "lowest first"
            );
        }
        if read == 0 {
            self.queue.ungrant(lease);
            return;
        }
        let last = Seq(range.last.0.min(range.first.0 + read - 1));
        self.queue.granted(lease, last, None);
        self.set(
            SeqRange {
                first: range.first,
                last,
            },
            At::Held(lease),
        );
        if let Some((_, TakeMode::Staged { block_events })) =
            self.leases.iter().find(|(id, _)| *id == lease)
            && self.leases.len() > 1
            && before.is_none()
        {
            assert!(
                last.0 - range.first.0 < *block_events,
                "bounded beside another taker"
            );
        }
    }

    /// Both kinds of leaving the lease at the front.
    fn leave(&mut self, lease: LeaseId, through: u64, seal: bool) {
        let held = self.held(lease);
        let last = Seq(held.map_or(0, |h| h.first.0) + through);
        let expected = held.filter(|h| last <= h.last).map(|h| SeqRange {
            first: h.first,
            last,
        });
        let got = if seal {
            self.queue.seal(lease, last)
        } else {
            self.queue.begin_ack(lease, last)
        };
        assert_eq!(got.ok(), expected);
        let Some(range) = expected else { return };
        self.set(range, if seal { At::Sealed } else { At::Acking });
        if seal {
            &mut self.sealed
        } else {
            &mut self.acking
        }
        .push(range);
    }

    #[allow(clippy::too_many_lines, reason = "one arm per operation")]
    fn apply(&mut self, op: &Op) {
        let lease = |pair: &Self, n| pick(&pair.leases, n).map(|(id, _)| id);
        match *op {
            Op::Put(events) => {
                let batch = self.held_by(false);
                let fits = self.count(|at| at == At::Waiting) + batch + events <= CAPACITY;
                assert_eq!(self.queue.try_reserve(events), fits);
                if fits {
                    let end = self.queue.durable_end().0;
                    self.queue.committed(events);
                    self.queue.publish_durable(Seq(end + events));
                    self.set(run(end, end + events - 1), At::Waiting);
                }
            }
            Op::Open(block) => {
                let mode = block.map_or(TakeMode::Batch, staged);
                let id = self.queue.open_lease(mode);
                self.leases.push((id, mode));
            }
            Op::Take(n, max, read, seconds) => {
                self.now += Duration::from_secs(seconds);
                if let Some(id) = lease(self, n) {
                    self.take(id, max, read);
                }
            }
            Op::Ack(n, through) => {
                if let Some(id) = lease(self, n) {
                    self.leave(id, through, false);
                }
            }
            Op::Seal(n, through) => {
                if let Some(id) = lease(self, n) {
                    self.leave(id, through, true);
                }
            }
            Op::EndAck(n, ok) => {
                if let Some(range) = pick(&self.acking, n) {
                    self.acking.retain(|r| *r != range);
                    if ok {
                        self.queue.finish_ack(range)
                    } else {
                        self.queue.cancel_ack(range)
                    }
                    self.set(range, if ok { At::Acked } else { At::Waiting });
                }
            }
            Op::EndSeal(n, ok) => {
                if let Some(range) = pick(&self.sealed, n) {
                    self.sealed.retain(|r| *r != range);
                    if ok {
                        self.queue.done(range)
                    } else {
                        self.queue.abandon(range)
                    }
                    self.set(range, if ok { At::Acked } else { At::Waiting });
                }
            }
            Op::Release(n) => {
                if let Some(id) = lease(self, n) {
                    self.queue.release(id);
                    self.leases.retain(|(other, _)| *other != id);
                    if let Some(held) = self.held(id) {
                        self.set(held, At::Waiting);
                    }
                }
            }
        }
    }

    fn agree(&self) {
        self.queue.check().expect("tiled");
        let counts = self.queue.counts();
        assert_eq!(counts.waiting, self.count(|at| at == At::Waiting));
        assert_eq!(counts.acking, self.count(|at| at == At::Acking));
        assert_eq!(counts.sealed, self.count(|at| at == At::Sealed));
        assert_eq!(
            (counts.leased, counts.staged),
            (self.held_by(false), self.held_by(true))
        );
        let cursor = self.model.iter().find(|(_, at)| **at != At::Acked);
        let cursor = cursor.map_or_else(|| self.queue.durable_end().0, |(seq, _)| *seq);
        assert_eq!(self.queue.cursor(), Seq(cursor));
        let acked = self.queue.acked_ranges();
        let acked: Vec<u64> = acked.iter().flat_map(|r| r.first.0..=r.last.0).collect();
        let above = self
            .model
            .range(cursor..)
            .filter(|(_, at)| **at == At::Acked);
        assert_eq!(acked, above.map(|(seq, _)| *seq).collect::<Vec<_>>());
    }

    /// With all leases gone one new taker gets everything that waits, in order.
    fn drain(&mut self) {
        for (id, _) in std::mem::take(&mut self.leases) {
            self.queue.release(id);
            if let Some(held) = self.held(id) {
                self.set(held, At::Waiting);
            }
        }
        self.agree();
        let all: Vec<u64> = self
            .model
            .iter()
            .filter(|(_, at)| **at == At::Waiting)
            .map(|(s, _)| *s)
            .collect();
        let mut drained = Vec::new();
        let last = self.queue.open_lease(staged(7));
        while let Some(range) = take(&mut self.queue, last, 5, self.now) {
            drained.extend(range.first.0..=range.last.0);
            self.queue.ack(last, range.last).expect("held");
        }
        assert_eq!(drained, all);
        assert!(!self.queue.has_ready(self.now));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn random_histories_agree_with_a_state_per_event(ops in prop::collection::vec(op(), 1..120)) {
        let mut pair = Pair::new();
        for op in &ops {
            pair.apply(op);
            pair.agree();
        }
        pair.drain();
    }
}
