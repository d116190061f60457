//! The life of one sealed epoch as a pure state machine: no clock, no store, no journal.
//!
//! *Place in the flow*: SEAL makes an [`Epoch`]; the resolver performs [`Epoch::next`] and feeds
//! the answer to [`Epoch::on`] until the action is [`Action::Finished`], [`Action::Halted`] or
//! [`Action::Stopped`]. A crash forgets the machine; the next start makes it again from the
//! journal's record, at *Claim* (SEALed) or *Dirs* (CLAIMED), and repeats what was done: every
//! step may be repeated.
//!
//! # Decision table
//! `again` is: pause, then the same action. Counted rows halt after [`PATIENCE`] rounds, because a
//! negative answer may come from a NameNode that is no longer active. `Unknown`, `Unavailable`
//! and `Refused` are never a reason to go on and never a reason to halt.
//!
//! | state | action | Ok | other answers |
//! |---|---|---|---|
//! | Claim | rename attempt to `sealed/e` | SyncClaim | NotFound, ParentNotFound, AlreadyExists: ProbeMake; else again |
//! | ProbeMake | mkdirs `sealed/e/claim` | ProbeDrop | NotFound, ParentNotFound: Reclaim (counted); else again |
//! | ProbeDrop | delete `sealed/e/claim` | ProbeLook | Missing: ProbeMake; else ProbeMake with pause |
//! | ProbeLook | stat our first part in `sealed/e/parts` | SyncClaim | Missing: Owner; else ProbeMake with pause |
//! | Reclaim | mkdirs `sealed` | Claim | NotFound, ParentNotFound: halt *staging gone* when counted out; else again |
//! | Owner | look at the owner file | mine: Claim (counted, halt *not ours*) | foreign: halt *clone*; else again |
//! | SyncClaim | sync both parents | Claimed | again |
//! | Claimed | record CLAIMED | Dirs | journal failed: Stopped |
//! | Dirs | mkdirs target of each part | next, then Move | a fault is noted for the pass, next |
//! | Move | rename each part | next; all moved: SyncMoves | NotFound: perhaps moved; AlreadyExists: occupied; else a fault; a pass with a fault: pause, Dirs |
//! | SyncMoves | sync all parents | ProofMake | again |
//! | ProofMake | mkdirs `sealed/e/parts` | ProofDrop | NotFound, ParentNotFound: halt *claimed directory gone* (counted); else again |
//! | ProofDrop | delete `sealed/e/parts`, not recursive | **proven**: Done | NotEmpty: Dirs (counted; halt *occupied* or *foreign entry*); Missing: ProofMake; else ProofMake with pause |
//! | Done | record DONE | Look or Finished | journal failed: Stopped |
//! | Look | stat each part whose rename was never answered Ok | next, then Finished | Missing: named in the warning |
//!
//! *Invariants*, walked by the tests over every (state, answer): no part is renamed before CLAIMED
//! is durable; CLAIMED is recorded only after an Ok of the claim rename or after our part was seen
//! behind a journaled change inside the claimed directory; DONE is recorded only straight after the
//! delete of the emptied `parts/` has answered `true`; nothing is ever overwritten.

use crate::channel::journal::EpochRecord;

use super::store::{StoreError, parent_of};

/// Rounds of a counted answer before the epoch is halted.
pub const PATIENCE: u32 = 8;

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Rename without overwrite.
    Rename {
        /// Source.
        from: String,
        /// Target.
        to: String,
    },
    /// Make a directory.
    Mkdirs {
        /// Absolute path.
        path: String,
        /// Whether missing parents may be made.
        create_parent: bool,
    },
    /// Delete one empty directory (never recursive).
    Delete {
        /// Absolute path.
        path: String,
    },
    /// Look up; `Ok` where it is there, `Missing` where it is not.
    Stat {
        /// Absolute path.
        path: String,
    },
    /// Make names durable.
    SyncDirs {
        /// Directories.
        paths: Vec<String>,
    },
    /// Look whose the newest owner file is.
    CheckOwner,
    /// Write CLAIMED.
    RecordClaimed,
    /// Write DONE.
    RecordDone,
    /// Wait; longer with each round.
    Pause {
        /// Failures in a row, from 1.
        round: u32,
        /// The last of them.
        reason: String,
    },
    /// Published and recorded. Parts named here were not seen at their final place: somebody has
    /// moved them on already.
    Finished {
        /// Final paths.
        unseen: Vec<String>,
    },
    /// Only an operator can go on (`forebay resolve`).
    Halted(Halt),
    /// The journal has failed; the next incarnation goes on.
    Stopped(String),
}

/// Why an epoch has been halted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// Another copy of the log owns the channel.
    #[error("another copy of this channel's log has taken over: {0}")]
    Clone(String),
    /// The number is taken by a directory without our parts, though we own the channel.
    #[error("{0} exists and does not hold this epoch's parts")]
    NotOurs(String),
    /// The attempt directory is gone and the claim is not there.
    #[error("neither the attempt directory {0} nor its claim is in the store")]
    AttemptGone(String),
    /// The claimed directory is gone.
    #[error("the claimed directory {0} is gone")]
    ClaimGone(String),
    /// Another file stands under a final name.
    #[error("another file stands under the final name {0}")]
    Occupied(String),
    /// The parts have left, but something else lies with them.
    #[error("{0} holds an entry that is not ours")]
    ForeignEntry(String),
}

/// What came of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done (`true` of a delete, found by a stat, recorded, paused, the owner is ours).
    Ok,
    /// `false` of a delete, nothing found by a stat.
    Missing,
    /// The store has thrown.
    Failed(StoreError),
    /// The newest owner file is not ours; the text holds what is known.
    Foreign(String),
    /// The journal has failed.
    JournalFailed(String),
}

impl From<Result<(), StoreError>> for Answer {
    fn from(result: Result<(), StoreError>) -> Self {
        result.map_or_else(Self::Failed, |()| Self::Ok)
    }
}

impl From<Result<bool, StoreError>> for Answer {
    fn from(result: Result<bool, StoreError>) -> Self {
        match result {
            Ok(true) => Self::Ok,
            Ok(false) => Self::Missing,
            Err(error) => Self::Failed(error),
        }
    }
}

/// Where an epoch stands; see the table above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// The claim rename.
    Claim,
    /// First half of the journaled change that proves an unclear claim.
    ProbeMake,
    /// Second half.
    ProbeDrop,
    /// Are the parts in there ours?
    ProbeLook,
    /// The claim is not there: make sure of `sealed/` and claim again.
    Reclaim,
    /// The number is taken: by whom?
    Owner,
    /// Make the claim's names durable.
    SyncClaim,
    /// Write CLAIMED.
    Claimed,
    /// Make the target directory of part `n`.
    Dirs(usize),
    /// Rename part `n`.
    Move(usize),
    /// Make the renames durable.
    SyncMoves,
    /// First half of the proof.
    ProofMake,
    /// Second half.
    ProofDrop,
    /// Write DONE.
    Done,
    /// Look for part `n` under its final name.
    Look(usize),
    /// Over.
    Finished,
    /// Over, by an operator.
    Halted,
    /// Over in this incarnation.
    Stopped,
}

/// What is known of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Part {
    /// In the claimed directory, as far as we know.
    Staged,
    /// Our rename was answered Ok.
    Moved,
    /// The source was not found: an earlier rename of ours must have taken it.
    Perhaps,
    /// Something stands under the final name.
    Occupied,
}

/// One sealed epoch.
#[derive(Clone, Debug)]
pub struct Epoch {
    record: EpochRecord,
    sealed_root: String,
    sealed: String,
    state: State,
    parts: Vec<Part>,
    /// A fault of this pass over the parts.
    fault: Option<String>,
    pause: Option<String>,
    round: u32,
    counted: u32,
    halt: Option<Halt>,
    stopped: String,
    unseen: Vec<String>,
}

/// `<base>/_staging/<chan>`.
pub fn staging_root(base: &str, channel: &str) -> String {
    format!("{}/_staging/{channel}", base.trim_end_matches('/'))
}

/// `<base>/_staging/<chan>/sealed/e<epoch>`.
pub fn sealed_dir(base: &str, channel: &str, epoch: u64) -> String {
    format!("{}/sealed/e{epoch:016}", staging_root(base, channel))
}

impl Epoch {
    /// The machine for a record of the journal.
    pub fn new(record: EpochRecord, channel: &str) -> Self {
        let state = if record.claimed {
            State::Dirs(0)
        } else {
            State::Claim
        };
        let parts = vec![Part::Staged; record.parts.len()];
        let sealed = sealed_dir(&record.base, channel, record.epoch);
        Self {
            sealed_root: parent_of(&sealed).to_owned(),
            sealed,
            state,
            parts,
            fault: None,
            pause: None,
            round: 0,
            counted: 0,
            halt: None,
            stopped: String::new(),
            unseen: Vec::new(),
            record,
        }
        .settled()
    }

    /// The record it was made from.
    pub fn record(&self) -> &EpochRecord {
        &self.record
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether CLAIMED is durable.
    pub fn is_claimed(&self) -> bool {
        self.record.claimed
    }

    /// Failures in a row, for reports; 0 while all goes well.
    pub fn failures(&self) -> u32 {
        self.round
    }

    /// The next action; the same until [`Epoch::on`] is called.
    pub fn next(&self) -> Action {
        if let Some(reason) = &self.pause {
            return Action::Pause {
                round: self.round,
                reason: reason.clone(),
            };
        }
        let mkdirs = |path: String| Action::Mkdirs {
            path,
            create_parent: false,
        };
        match self.state {
            State::Claim => Action::Rename {
                from: self.record.attempt.clone(),
                to: self.sealed.clone(),
            },
            State::ProbeMake => mkdirs(self.probe()),
            State::ProbeDrop => Action::Delete { path: self.probe() },
            State::ProbeLook => Action::Stat {
                path: self.first_staged(),
            },
            State::Reclaim => mkdirs(self.sealed_root.clone()),
            State::Owner => Action::CheckOwner,
            State::SyncClaim => {
                let from = parent_of(&self.record.attempt).to_owned();
                Action::SyncDirs {
                    paths: vec![from, self.sealed_root.clone()],
                }
            }
            State::Claimed => Action::RecordClaimed,
            State::Dirs(i) => Action::Mkdirs {
                path: self.target_dir(i).to_owned(),
                create_parent: true,
            },
            State::Move(i) => Action::Rename {
                from: self.staged(i),
                to: self.target(i).to_owned(),
            },
            State::SyncMoves => Action::SyncDirs {
                paths: self.touched(),
            },
            State::ProofMake => mkdirs(self.parts_dir()),
            State::ProofDrop => Action::Delete {
                path: self.parts_dir(),
            },
            State::Done => Action::RecordDone,
            State::Look(i) => Action::Stat {
                path: self.target(i).to_owned(),
            },
            State::Finished => Action::Finished {
                unseen: self.unseen.clone(),
            },
            State::Halted => {
                let gone = || Halt::ClaimGone(self.sealed.clone());
                Action::Halted(self.halt.clone().unwrap_or_else(gone))
            }
            State::Stopped => Action::Stopped(self.stopped.clone()),
        }
    }

    /// Takes the answer to the action that [`Epoch::next`] gave.
    pub fn on(&mut self, answer: Answer) {
        if self.pause.take().is_some() {
            return;
        }
        if let Answer::JournalFailed(reason) = answer {
            self.stopped = reason;
            self.state = State::Stopped;
            return;
        }
        match self.state {
            State::Claim
            | State::ProbeMake
            | State::ProbeDrop
            | State::ProbeLook
            | State::Reclaim
            | State::Owner
            | State::SyncClaim => self.on_claiming(answer),
            State::Claimed => match answer {
                Answer::Ok => {
                    self.record.claimed = true;
                    (self.counted, self.round) = (0, 0);
                    self.go(State::Dirs(0));
                }
                other => self.again(&other),
            },
            State::Dirs(_) | State::Move(_) => self.on_moving(answer),
            State::SyncMoves | State::ProofMake | State::ProofDrop => self.on_proving(answer),
            State::Done => match answer {
                Answer::Ok => self.go(State::Look(0)),
                other => self.again(&other),
            },
            State::Look(i) => {
                if answer == Answer::Missing {
                    self.unseen.push(self.target(i).to_owned());
                }
                self.go(State::Look(i + 1));
            }
            State::Finished | State::Halted | State::Stopped => {}
        }
    }

    fn on_claiming(&mut self, answer: Answer) {
        use StoreError::{AlreadyExists, NotFound, ParentNotFound};
        match (self.state, answer) {
            (State::Claim, Answer::Ok) => self.go(State::SyncClaim),
            (State::Claim, Answer::Failed(NotFound(_) | ParentNotFound(_) | AlreadyExists(_))) => {
                self.go(State::ProbeMake);
            }
            (State::ProbeMake, Answer::Ok) => self.go(State::ProbeDrop),
            (State::ProbeMake, Answer::Failed(NotFound(why) | ParentNotFound(why))) => {
                let gone = Halt::AttemptGone(self.record.attempt.clone());
                self.count(State::Reclaim, why, gone);
            }
            (State::ProbeDrop, Answer::Ok) => self.go(State::ProbeLook),
            (State::ProbeLook, Answer::Ok) => self.go(State::SyncClaim),
            (State::ProbeLook, Answer::Missing) => self.go(State::Owner),
            (State::ProbeDrop | State::ProbeLook, other) => {
                self.again(&other);
                self.state = State::ProbeMake;
            }
            (State::Reclaim, Answer::Ok) => self.go(State::Claim),
            (State::Reclaim, Answer::Failed(NotFound(why) | ParentNotFound(why))) => {
                let gone = Halt::AttemptGone(self.record.attempt.clone());
                self.count(State::Reclaim, why, gone);
            }
            (State::Owner, Answer::Ok) => {
                let why = format!("{} is taken", self.sealed);
                self.count(State::Claim, why, Halt::NotOurs(self.sealed.clone()));
            }
            (State::Owner, Answer::Foreign(facts)) => self.halt(Halt::Clone(facts)),
            (State::SyncClaim, Answer::Ok) => self.go(State::Claimed),
            (_, other) => self.again(&other),
        }
    }

    /// One pass: every directory, then every part. A fault of one part does not hold up the others.
    fn on_moving(&mut self, answer: Answer) {
        use StoreError::{AlreadyExists, NotFound};
        match (self.state, answer) {
            (State::Dirs(i), Answer::Ok) => self.go(State::Dirs(i + 1)),
            (State::Move(i), Answer::Ok) => self.moved(i, Part::Moved),
            (State::Move(i), Answer::Failed(NotFound(_))) => self.moved(i, Part::Perhaps),
            (State::Move(i), Answer::Failed(AlreadyExists(_))) => self.moved(i, Part::Occupied),
            (State::Dirs(i), other) => {
                self.fault = Some(describe(&other));
                self.go(State::Dirs(i + 1));
            }
            (State::Move(i), other) => {
                self.fault = Some(describe(&other));
                self.go(State::Move(i + 1));
            }
            (_, other) => self.again(&other),
        }
    }

    fn on_proving(&mut self, answer: Answer) {
        use StoreError::{NotEmpty, NotFound, ParentNotFound};
        match (self.state, answer) {
            (State::SyncMoves, Answer::Ok) => self.go(State::ProofMake),
            (State::ProofMake, Answer::Ok) => self.go(State::ProofDrop),
            (State::ProofMake, Answer::Failed(NotFound(why) | ParentNotFound(why))) => {
                self.count(State::ProofMake, why, Halt::ClaimGone(self.sealed.clone()));
            }
            (State::ProofDrop, Answer::Ok) => {
                self.round = 0;
                self.go(State::Done);
            }
            (State::ProofDrop, Answer::Failed(NotEmpty(why))) => {
                let occupied = self.parts.iter().position(|p| *p == Part::Occupied);
                let halt = occupied.map_or_else(
                    || Halt::ForeignEntry(self.parts_dir()),
                    |i| Halt::Occupied(self.target(i).to_owned()),
                );
                // A part whose rename was answered Ok by a NameNode that lost it is staged again.
                self.parts.fill(Part::Staged);
                self.count(State::Dirs(0), why, halt);
            }
            (State::ProofDrop, other) => {
                self.again(&other);
                self.state = State::ProofMake;
            }
            (_, other) => self.again(&other),
        }
    }

    fn moved(&mut self, i: usize, part: Part) {
        // An Ok is remembered: it is what makes a later look for the final file unnecessary.
        self.parts[i] = part;
        self.go(State::Move(i + 1));
    }

    fn go(&mut self, state: State) {
        self.state = self.settle(state);
    }

    fn settled(mut self) -> Self {
        self.state = self.settle(self.state);
        self
    }

    /// Skips states that have nothing to do.
    fn settle(&mut self, mut state: State) -> State {
        let n = self.parts.len();
        loop {
            state = match state {
                State::Dirs(i) if i >= n => State::Move(0),
                State::Dirs(i) if self.first_with_dir(i) < i => State::Dirs(i + 1),
                State::Dirs(i) if self.parts[i] != Part::Staged => State::Dirs(i + 1),
                State::Move(i) if i < n && self.parts[i] != Part::Staged => State::Move(i + 1),
                State::Move(i) if i >= n => match self.fault.take() {
                    Some(fault) => {
                        self.again_because(fault);
                        return State::Dirs(0);
                    }
                    None => {
                        self.round = 0;
                        State::SyncMoves
                    }
                },
                State::Look(i) if i < n && self.parts[i] == Part::Moved => State::Look(i + 1),
                State::Look(i) if i >= n => State::Finished,
                other => return other,
            };
        }
    }

    fn again(&mut self, answer: &Answer) {
        self.again_because(describe(answer));
    }

    fn again_because(&mut self, reason: String) {
        self.round = self.round.saturating_add(1);
        self.pause = Some(reason);
    }

    /// A negative answer: pause and go to `state`; halt when patience is at its end.
    fn count(&mut self, state: State, reason: String, halt: Halt) {
        self.counted += 1;
        if self.counted >= PATIENCE {
            self.halt(halt);
        } else {
            self.go(state);
            self.round = self.round.max(self.counted - 1);
            self.again_because(reason);
        }
    }

    fn halt(&mut self, halt: Halt) {
        self.halt = Some(halt);
        self.state = State::Halted;
    }

    fn parts_dir(&self) -> String {
        format!("{}/parts", self.sealed)
    }

    fn probe(&self) -> String {
        format!("{}/claim", self.sealed)
    }

    fn staged(&self, i: usize) -> String {
        format!("{}/parts/{}", self.sealed, self.record.parts[i].staged_name)
    }

    fn first_staged(&self) -> String {
        match self.record.parts.first() {
            Some(_) => self.staged(0),
            None => self.parts_dir(),
        }
    }

    fn target(&self, i: usize) -> &str {
        &self.record.parts[i].final_path
    }

    fn target_dir(&self, i: usize) -> &str {
        parent_of(self.target(i))
    }

    fn first_with_dir(&self, i: usize) -> usize {
        let dir = self.target_dir(i);
        (0..i)
            .find(|j| self.target_dir(*j) == dir && self.parts[*j] == Part::Staged)
            .unwrap_or(i)
    }

    /// Every directory that a rename of the parts has changed.
    fn touched(&self) -> Vec<String> {
        let mut dirs = vec![self.parts_dir()];
        dirs.extend((0..self.parts.len()).map(|i| self.target_dir(i).to_owned()));
        dirs.sort();
        dirs.dedup();
        dirs
    }
}

fn describe(answer: &Answer) -> String {
    match answer {
        Answer::Failed(error) => error.to_string(),
        other => format!("unexpected answer {other:?}"),
    }
}

#[cfg(test)]
mod tests;
