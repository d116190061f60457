//! Whether this log may publish, as far as the log and its directory know.
//!
//! *Place in the flow*: the publisher tells the verdict of the stores ([`Core::owned`],
//! [`Core::refuse`]); sources ask whether they have to wait for it; `forebay wal adopt` begins
//! where a recorded refusal says.
//!
//! *Invariants* INV-11: a directory counts as the log's own only after the stores have said so
//! there; a recorded refusal never moves up, so that no event is forgotten.
//!
//! *Crash*: a verdict that was not recorded is asked for again at the next start.

use std::path::Path;
use tokio::sync::OwnedMutexGuard;
use wal_format::{Identity, Lsn, Open, Record, SEGMENT_HEADER_BYTES, Scanner, Step};

use super::layout::{self, REFUSED};
use super::options::OpenError;
use super::reader::Salvage;
use super::recovery::is_opening;
use super::segment::{Segment, open_cold};
use super::{Core, unpoisoned};
use crate::channel::ChannelError;
use crate::channel::journal::{Incarnation, Opening, Refusal};
use crate::env::disk::Disk;
use crate::env::sync::atomic::{AtomicBool, Ordering};
use crate::env::sync::{Mutex, MutexGuard, PoisonError};
use crate::event::{Seq, SeqRange};
use crate::planted::{Bug, planted};

/// What is known at an open.
#[derive(Debug)]
pub(super) struct Ownership {
    identity: Identity,
    next: Seq,
    unconfirmed: AtomicBool,
    /// Whether a refusal was on record at the open.
    refused_before: bool,
    refusal: Mutex<Option<Refusal>>,
}

impl Ownership {
    pub(super) fn new(
        identity: Identity,
        directory_changed: bool,
        refusal: Option<Refusal>,
    ) -> Self {
        Self {
            identity,
            next: Seq(0),
            unconfirmed: AtomicBool::new(directory_changed),
            refused_before: refusal.is_some(),
            refusal: Mutex::new(refusal),
        }
    }

    /// With the next sequence number at the open.
    pub(super) fn opened_at(self, next: Seq) -> Self {
        Self { next, ..self }
    }

    /// What an open writes down. Until the stores have said that a moved or copied log is the
    /// owner, no directory counts as its own: a second start in the new place waits as well.
    pub(super) fn recorded_identity(&self) -> Identity {
        match self.unconfirmed.load(Ordering::Acquire) {
            true if !planted(Bug::CopyIsOwner) => Identity::default(),
            _ => self.identity,
        }
    }

    /// Whether sources wait for the stores.
    pub(super) fn must_wait(&self) -> bool {
        self.unconfirmed.load(Ordering::Acquire) || self.refused_before
    }
}

/// A refusal on record.
pub(super) fn read_refusal(disk: &dyn Disk, dir: &Path) -> Result<Option<Refusal>, OpenError> {
    let Some(text) = layout::read_text(disk, dir, REFUSED)? else {
        return Ok(None);
    };
    parse_refusal(&text)
        .map(Some)
        .ok_or_else(|| OpenError::Directory {
            dir: dir.to_owned(),
            reason: "its `refused` file is damaged; remove it and start the agent, which asks \
                     the stores again"
                .into(),
        })
}

fn parse_refusal(text: &str) -> Option<Refusal> {
    let mut lines = text.lines();
    (lines.next()? == "forebay refused 1").then_some(())?;
    let first = Seq(lines.next()?.strip_prefix("first ")?.parse().ok()?);
    let by = lines.next()?.strip_prefix("by ")?.to_owned();
    Some(Refusal { by, first })
}

impl Core {
    fn recorded_refusal(&self) -> MutexGuard<'_, Option<Refusal>> {
        let lock = self.ownership.refusal.lock();
        lock.unwrap_or_else(PoisonError::into_inner)
    }

    /// The stores have said that this log is the owner, here.
    pub(super) async fn owned(&self, turn: OwnedMutexGuard<()>) -> Result<(), ChannelError> {
        if self.ownership.unconfirmed.load(Ordering::Acquire) {
            let Incarnation { number, nonce } = self.incarnation;
            let record = Record::Incarnation(Open {
                incarnation: number,
                nonce,
                identity: self.ownership.identity,
                opened_at_ms: self.preparer.clock.wall_ms(),
                previous: None,
            });
            self.write_record(record, Some(turn)).await?;
            self.ownership.unconfirmed.store(false, Ordering::Release);
        }
        let mut refusal = self.recorded_refusal();
        if refusal.is_some() {
            let dir = &self.options.data_dirs[0];
            layout::remove_if_there(self.disk.as_ref(), &dir.join(REFUSED))
                .and_then(|()| match planted(Bug::NoDirSyncOwned) {
                    true => Ok(()),
                    false => self.disk.sync_dir(dir),
                })
                .map_err(|e| self.refused(format!("{}: {e}", dir.join(REFUSED).display())))?;
            *refusal = None;
        }
        Ok(())
    }

    /// A store has refused this log.
    pub(super) fn refuse(&self, mut new: Refusal) -> Result<(), ChannelError> {
        let mut refusal = self.recorded_refusal();
        if let Some(old) = &*refusal
            && !planted(Bug::RefusalMovesUp)
        {
            new.first = new.first.min(old.first);
            if *old == new {
                return Ok(());
            }
        }
        let text = format!("forebay refused 1\nfirst {}\nby {}\n", new.first, new.by);
        let dir = &self.options.data_dirs[0];
        layout::write_text(self.disk.as_ref(), dir, REFUSED, &text)
            .map_err(|e| self.refused(format!("{}: {e}", dir.join(REFUSED).display())))?;
        *refusal = Some(new);
        Ok(())
    }

    /// The recorded refusal in words, as the end of a sentence about why.
    pub(super) fn refusal(&self) -> Option<String> {
        let Refusal { first, .. } = self.recorded_refusal().clone()?;
        let next = self.state().next_sequence;
        let only_here = match SeqRange::new(first, Seq(next.saturating_sub(1))) {
            Some(SeqRange { first, last }) => {
                format!("events {first} to {last} are only in this log")
            }
            None => "this log holds no event that the other copy lacks".to_owned(),
        };
        let dirs: Vec<String> = self
            .options
            .data_dirs
            .iter()
            .map(|d| self.word(d))
            .collect();
        Some(format!(
            "the sources have stopped, and {only_here}. To go on with a channel id of its own, so \
             that the next start publishes what is only here, type:\n  forebay wal adopt {}",
            dirs.join(" ")
        ))
    }

    /// A path as a shell takes it.
    fn word(&self, dir: &Path) -> String {
        let path = self.disk.absolute(dir).display().to_string();
        let plain = |c: char| c.is_alphanumeric() || "/._-+:@%,=".contains(c);
        match path.chars().all(plain) {
            true => path,
            false => format!("'{}'", path.replace('\'', r"'\''")),
        }
    }

    /// The opens since the last recorded fence; the running one is the last.
    pub(super) fn openings(&self) -> Vec<Opening> {
        let (fenced, known) = {
            let state = self.state();
            (state.fenced_through, state.incarnations.clone())
        };
        let segments = unpoisoned(&self.table).segments.clone();
        let mut openings = vec![Opening {
            incarnation: self.incarnation,
            next: self.ownership.next,
        }];
        for segment in segments.iter().rev() {
            let Some((number, opening)) = opening_in(self.disk.as_ref(), segment) else {
                continue;
            };
            if number <= fenced {
                break;
            }
            let opening = opening.filter(|o| {
                let Incarnation { number, nonce } = o.incarnation;
                number < self.incarnation.number && known.contains(&(number, nonce))
            });
            openings.extend(opening);
        }
        openings.reverse();
        openings
    }
}

/// The incarnation that wrote a segment, and its opening if the segment begins with it.
fn opening_in(disk: &dyn Disk, segment: &Segment) -> Option<(u32, Option<Opening>)> {
    let file = open_cold(disk, segment).ok()?;
    let mut scanner = Scanner::new(
        Salvage(file.as_ref()),
        segment.number,
        segment.salt,
        SEGMENT_HEADER_BYTES,
        segment.end,
        Lsn::new(segment.number, segment.end),
    );
    let Ok(Step::Frame { header, body, .. }) = scanner.step() else {
        return None;
    };
    let Ok(Record::Snapshot(snapshot)) = Record::decode(header.kind, body) else {
        return None;
    };
    if !is_opening(&snapshot) {
        return Some((snapshot.incarnation, None));
    }
    while let Ok(Step::Frame { header, body, .. }) = scanner.step() {
        let Ok(Record::Incarnation(open)) = Record::decode(header.kind, body) else {
            continue;
        };
        if open.incarnation != snapshot.incarnation {
            // An earlier one, copied.
            continue;
        }
        let incarnation = Incarnation {
            number: open.incarnation,
            nonce: open.nonce,
        };
        let next = Seq(header.sequence);
        return Some((open.incarnation, Some(Opening { incarnation, next })));
    }
    Some((snapshot.incarnation, None))
}
