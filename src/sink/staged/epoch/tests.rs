use std::collections::{HashSet, VecDeque};

use super::*;
use crate::channel::journal::EpochPart;
use crate::event::{Seq, SeqRange};

fn record(parts: usize, claimed: bool) -> EpochRecord {
    let part = |k: usize| EpochPart {
        staged_name: format!("p{k}"),
        final_path: format!("/b/d{}/f{k}", k / 2),
        count: 1,
        length: 1,
        crc32: 0,
    };
    EpochRecord {
        epoch: 5,
        range: SeqRange {
            first: Seq(0),
            last: Seq(9),
        },
        sink: "k".into(),
        store: "sim://".into(),
        base: "/b".into(),
        attempt: "/b/_staging/c/i1/a1".into(),
        parts: (0..parts).map(part).collect(),
        claimed,
    }
}

fn answers() -> Vec<Answer> {
    let e = |error: fn(String) -> StoreError| Answer::Failed(error("x".into()));
    vec![
        Answer::Ok,
        Answer::Missing,
        e(StoreError::NotFound),
        e(StoreError::ParentNotFound),
        e(StoreError::AlreadyExists),
        e(StoreError::NotEmpty),
        e(StoreError::Unknown),
        e(StoreError::Unavailable),
        e(StoreError::Refused),
        Answer::Foreign("owner".into()),
        Answer::JournalFailed("disk".into()),
    ]
}

/// What decides the future of a machine; rounds are left out, they only lengthen pauses.
type Key = (State, Vec<Part>, bool, bool, u32, bool, Proofs);

/// What an observer of actions and answers knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Proofs {
    /// The claim is proven: an Ok of the rename, or seen behind a change inside it.
    claim: bool,
    /// A delete inside the claimed directory was answered `true` since the last look.
    changed: bool,
    /// CLAIMED is durable.
    claimed: bool,
    /// The last answer was `true` to the delete of the emptied parts directory.
    emptied: bool,
}

fn key(epoch: &Epoch, proofs: Proofs) -> Key {
    let (fault, pause) = (epoch.fault.is_some(), epoch.pause.is_some());
    let parts = epoch.parts.clone();
    (
        epoch.state,
        parts,
        fault,
        pause,
        epoch.counted,
        epoch.record.claimed,
        proofs,
    )
}

fn observe(epoch: &Epoch, answer: &Answer, proofs: &mut Proofs) {
    let ok = *answer == Answer::Ok;
    let emptied = proofs.emptied;
    proofs.emptied = false;
    match epoch.next() {
        Action::Rename { from, to } if from == epoch.record.attempt => {
            assert_eq!(to, "/b/_staging/c/sealed/e0000000000000005");
            proofs.claim |= ok;
        }
        Action::Rename { from, .. } => {
            assert!(
                proofs.claimed,
                "{from} is renamed before CLAIMED is durable"
            );
        }
        Action::Delete { path } if path.ends_with("/claim") => proofs.changed = ok,
        Action::Delete { path } => {
            assert!(path.ends_with("/sealed/e0000000000000005/parts"));
            assert!(proofs.claimed);
            proofs.emptied = ok;
        }
        Action::Stat { path } if path.contains("/sealed/") => {
            proofs.claim |= ok && proofs.changed;
            proofs.changed = false;
        }
        Action::Mkdirs {
            path,
            create_parent,
        } => {
            let ours = path.contains("/_staging/");
            assert_eq!(create_parent, !ours, "{path}");
        }
        Action::RecordClaimed => {
            assert!(proofs.claim, "CLAIMED without proof");
            proofs.claimed |= ok;
        }
        Action::RecordDone => {
            assert!(emptied, "DONE without proof");
            assert!(proofs.claimed);
            // A repeated record rests on the same proof.
            proofs.emptied = true;
        }
        Action::Pause { .. } => proofs.emptied = emptied,
        _ => {}
    }
}

/// Walks every reachable state with every answer.
fn walk(start: Epoch, proofs: Proofs) -> HashSet<State> {
    let mut seen = HashSet::new();
    let mut states = HashSet::new();
    let mut todo = VecDeque::from([(start, proofs)]);
    while let Some((epoch, proofs)) = todo.pop_front() {
        if !seen.insert(key(&epoch, proofs)) {
            continue;
        }
        states.insert(epoch.state());
        if matches!(
            epoch.state(),
            State::Finished | State::Halted | State::Stopped
        ) {
            continue;
        }
        for answer in answers() {
            let (mut epoch, mut proofs) = (epoch.clone(), proofs);
            observe(&epoch, &answer, &mut proofs);
            epoch.on(answer);
            assert!(epoch.counted <= PATIENCE);
            todo.push_back((epoch, proofs));
        }
    }
    states
}

#[test]
fn every_answer_in_every_state_keeps_the_promises() {
    for parts in 0..=3 {
        let states = walk(Epoch::new(record(parts, false), "c"), Proofs::default());
        let ends = [
            State::Finished,
            State::Halted,
            State::Stopped,
            State::Owner,
            State::Reclaim,
        ];
        assert!(
            ends.iter().all(|end| states.contains(end)),
            "{parts}: {states:?}"
        );
        let claimed = Proofs {
            claim: true,
            claimed: true,
            ..Proofs::default()
        };
        let states = walk(Epoch::new(record(parts, true), "c"), claimed);
        assert!(states.contains(&State::Finished));
        assert!(
            !states.contains(&State::Claim),
            "a claimed epoch is never claimed again"
        );
    }
}

/// Feeds answers; panics when the machine has ended early.
fn feed(epoch: &mut Epoch, answers: impl IntoIterator<Item = Answer>) {
    for answer in answers {
        while let Action::Pause { .. } = epoch.next() {
            epoch.on(Answer::Ok);
        }
        epoch.on(answer);
    }
    while let Action::Pause { .. } = epoch.next() {
        epoch.on(Answer::Ok);
    }
}

fn not_found() -> Answer {
    Answer::Failed(StoreError::NotFound("x".into()))
}

fn not_empty() -> Answer {
    Answer::Failed(StoreError::NotEmpty("x".into()))
}

#[test]
fn the_normal_run_takes_one_call_for_each_step() {
    let mut epoch = Epoch::new(record(2, false), "c");
    let mut steps = 0;
    while !matches!(epoch.next(), Action::Finished { .. }) {
        epoch.on(Answer::Ok);
        steps += 1;
    }
    // claim, sync, CLAIMED, one mkdirs, two renames, sync, mkdirs, delete, DONE
    assert_eq!(steps, 10);
}

#[test]
fn unclear_answers_alone_never_halt_and_never_finish() {
    for claimed in [false, true] {
        let mut epoch = Epoch::new(record(2, claimed), "c");
        for _ in 0..500 {
            feed(
                &mut epoch,
                [Answer::Failed(StoreError::Unknown("x".into()))],
            );
        }
        assert!(!matches!(epoch.state(), State::Finished | State::Halted));
    }
}

#[test]
fn a_foreign_file_under_a_final_name_halts_and_is_named() {
    let mut epoch = Epoch::new(record(1, true), "c");
    let exists = || Answer::Failed(StoreError::AlreadyExists("x".into()));
    for _ in 0..PATIENCE {
        feed(
            &mut epoch,
            [Answer::Ok, exists(), Answer::Ok, Answer::Ok, not_empty()],
        );
    }
    assert_eq!(
        epoch.next(),
        Action::Halted(Halt::Occupied("/b/d0/f0".into()))
    );
}

#[test]
fn a_part_taken_by_a_fast_consumer_is_done_and_named_once() {
    let mut epoch = Epoch::new(record(1, true), "c");
    feed(
        &mut epoch,
        [
            Answer::Ok,
            not_found(),
            Answer::Ok,
            Answer::Ok,
            Answer::Ok,
            Answer::Ok,
        ],
    );
    feed(&mut epoch, [Answer::Missing]);
    assert_eq!(
        epoch.next(),
        Action::Finished {
            unseen: vec!["/b/d0/f0".into()]
        }
    );
}
