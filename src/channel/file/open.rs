//! Opening a file channel: lock, read the log, copy the tail forward, start the threads.
//!
//! *Crash*: until the new segment's first group is synced nothing has changed but prepared segments
//! and those that nothing refers to any more; afterwards the old segment ends where the snapshot
//! says.

mod first_group;
mod room;

use std::path::Path;
use std::sync::Arc;

use wal_format::{Identity, Open};

use super::home::Home;
use super::layout::{self, Found, Listing};
use super::log::LogWriter;
use super::options::SPARES_RESERVED;
use super::ownership::{self, Ownership};
use super::prepare::{PoolState, Preparer, Spare, SparePool};
use super::recovery::{self, Damage, Recovered, TornTail};
use super::segment::{SegmentTable, read_header};
use super::state::LogState;
use super::{Core, FileChannel, FileChannelOptions, OpenError, unpoisoned};
use crate::channel::journal::Incarnation;
use crate::channel::queue::Queue;
use crate::env::clock::Clock;
use crate::env::disk::{DirLock, Disk, WriteBackend};
use crate::env::random;
use crate::env::sync::atomic::{AtomicBool, AtomicUsize};
use crate::env::sync::{Condvar, Mutex, OnceLock, thread};
use crate::event::{Seq, SeqRange};
use crate::planted::{Bug, planted};

/// How many prepared segments are tried when the first group of an open cannot be written.
const ATTEMPTS: usize = 4;

impl FileChannel {
    /// Opens the channel, recovering what an earlier process left, and starts its threads.
    ///
    /// # Errors
    /// A log that cannot be read, or believed, is refused before anything is changed. After that a
    /// disk that is full or fails may have cost prepared segments and dead ones, but no event.
    ///
    /// # Durability
    /// On `Ok` everything the channel shows is on the medium, also what was only in the page
    /// cache before.
    pub fn open(
        name: &str,
        options: FileChannelOptions,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, OpenError> {
        let (core, locks, _) = open_core(name, options, disk, clock)?;
        let threads = start_threads(&core)?;
        Ok(Arc::new(Self::around(core, threads, locks)))
    }

    pub(super) fn around(
        core: Arc<Core>,
        threads: Vec<thread::JoinHandle<()>>,
        locks: Vec<Box<dyn DirLock>>,
    ) -> Self {
        Self {
            core,
            threads: Mutex::new(threads),
            shut: AtomicBool::new(false),
            locks: Mutex::new(locks),
        }
    }
}

/// What an open has found wrong with the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) damage: Vec<Damage>,
    pub(super) torn: Option<TornTail>,
}

/// A channel that nobody works for yet.
type Opened = (Arc<Core>, Vec<Box<dyn DirLock>>, Verdict);

/// Everything of an open but its threads.
pub(super) fn open_core(
    name: &str,
    options: FileChannelOptions,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
) -> Result<Opened, OpenError> {
    options.check()?;
    let mut fresh_id = [0; 16];
    random::fill(&mut fresh_id).map_err(|e| OpenError::io("get random bytes", "", e))?;
    let (channel_id, locks) = layout::claim(disk.as_ref(), &options.data_dirs, fresh_id)?;
    let disk = Home::bind(disk, &options.data_dirs)
        .map_err(|e| OpenError::io("look at", &options.data_dirs[0], e))?;
    for dir in &options.data_dirs {
        if let Some(caution) = disk.caution(dir) {
            tracing::warn!(channel = name, dir = %dir.display(), "{caution}");
        }
    }
    let listing = layout::list(disk.as_ref(), &options.data_dirs)?;
    let recovered = recovery::read_log(disk.as_ref(), &listing, channel_id)?;
    report(name, &recovered);
    let verdict = Verdict {
        damage: recovered.damage.clone(),
        torn: recovered.torn,
    };
    let preparer = Preparer {
        disk: Arc::clone(&disk),
        clock,
        dirs: options.data_dirs.clone(),
        channel_id,
        size: options.segment_bytes(),
        backend: options.backend,
    };
    let mut opening = Opening {
        name,
        options,
        disk,
        preparer,
        recovered,
    };
    opening.check_acceptable()?;
    let (ownership, open) = opening.next_incarnation()?;
    opening.check_first_group(&open)?;
    let numbered = listing.segments.iter().chain(&listing.spares);
    let mut prepared = Prepared {
        spares: opening.usable_spares(&listing),
        next_number: numbered.map(|f| f.number + 1).max().unwrap_or(0),
    };
    opening.sweep(&listing, &mut prepared);
    opening.make_room_for_a_start(&mut prepared);
    let core = opening.begin(channel_id, prepared, ownership, &open)?;
    Ok((Arc::new(core), locks, verdict))
}

fn report(name: &str, recovered: &Recovered) {
    for damage in &recovered.damage {
        tracing::error!(
            channel = name,
            segment = damage.segment,
            offset = damage.offset,
            resume = damage.resume,
            "the log is damaged here ({}); what follows is read on",
            damage.why
        );
    }
    if let Some(torn) = recovered.torn {
        let next = recovered.state.next_sequence
            + recovered
                .suspects
                .iter()
                .map(|s| u64::from(s.header.count))
                .sum::<u64>();
        tracing::warn!(
            channel = name,
            segment = torn.segment,
            offset = torn.offset,
            "torn tail of {} bytes; they may have held events from {next} on, acknowledged only \
             if the disk damaged its last synced group; they stay where they are",
            torn.nonzero_end - torn.offset
        );
    }
    if recovered.state.control_lost {
        tracing::error!(
            channel = name,
            "damage may hide a decision about published files: staged sinks of this channel halt; \
             `forebay resolve` ends it"
        );
    }
}

/// Prepared segments, and the number of the next.
struct Prepared {
    spares: Vec<Spare>,
    next_number: u32,
}

struct Opening<'a> {
    name: &'a str,
    options: FileChannelOptions,
    disk: Arc<dyn Disk>,
    preparer: Preparer,
    recovered: Recovered,
}

impl Opening<'_> {
    /// What is accepted now is accepted at the next start too.
    fn check_acceptable(&self) -> Result<(), OpenError> {
        let number = self.recovered.last_incarnation().saturating_add(1);
        match recovery::refused_next_time(&self.recovered, number) {
            None => Ok(()),
            Some(why) => Err(OpenError::Directory {
                dir: self.options.data_dirs[0].clone(),
                reason: format!(
                    "all sums of the log are right, but what it adds up to was written by no \
                     channel: {why}; nothing was touched"
                ),
            }),
        }
    }

    /// Prepared segments of an earlier process that fit; others are removed.
    fn usable_spares(&self, listing: &Listing) -> Vec<Spare> {
        let newest = listing.segments.last().map_or(-1, |f| i64::from(f.number));
        let mut spares = Vec::new();
        for found in &listing.spares {
            match self.open_spare(found) {
                Some(spare) if i64::from(found.number) > newest => spares.push(spare),
                _ => {
                    if let Err(error) = self.disk.remove(&found.path) {
                        tracing::warn!(path = %found.path.display(), "cannot remove: {error}");
                    }
                }
            }
        }
        spares
    }

    fn open_spare(&self, found: &Found) -> Option<Spare> {
        let file = self
            .disk
            .open(&found.path, true, self.options.backend)
            .ok()?;
        let header = read_header(file.as_ref()).ok()?;
        let fits = header.channel_id == self.preparer.channel_id
            && header.segment == found.number
            && header.size == self.preparer.size
            && file.len() == u64::from(header.size);
        fits.then(|| Spare {
            number: found.number,
            salt: header.salt,
            dir: found.dir,
            path: found.path.clone(),
            size: header.size,
            file,
        })
    }

    /// Whether the log lies where it was last found to be the owner, and was not refused.
    fn ownership(&self, dir: &Path) -> Result<Ownership, OpenError> {
        let identity = self
            .disk
            .identity(dir)
            .map_err(|e| OpenError::io("look at", dir, e))?;
        let identity = Identity {
            inode: identity.inode,
            filesystem: identity.filesystem,
            machine: identity.machine,
        };
        let opened_before = self.recovered.state.incarnation > 0;
        let changed = opened_before && self.recovered.last_identity() != identity;
        let refusal = ownership::read_refusal(self.disk.as_ref(), dir)?;
        Ok(Ownership::new(identity, changed, refusal))
    }

    /// What the Incarnation record is going to say.
    fn next_incarnation(&mut self) -> Result<(Ownership, Open), OpenError> {
        let dir = &self.options.data_dirs[0].clone();
        let ownership = self.ownership(dir)?;
        let number = self.recovered.last_incarnation() + 1;
        self.recovered.state.incarnation = number;
        let nonce = random::u64().map_err(|e| OpenError::io("get random bytes", dir, e))?;
        let open = Open {
            incarnation: number,
            nonce,
            identity: ownership.recorded_identity(),
            opened_at_ms: self.preparer.clock.wall_ms(),
            previous: self.recovered.last_believed(),
        };
        Ok((ownership, open))
    }

    /// Writes the first group of this incarnation and returns the channel's core.
    fn begin(
        &mut self,
        channel_id: [u8; 16],
        mut prepared: Prepared,
        ownership: Ownership,
        open: &Open,
    ) -> Result<Core, OpenError> {
        let dir = &self.options.data_dirs[0].clone();
        let (number, nonce) = (open.incarnation, open.nonce);
        let mut last_error = None;
        for _ in 0..ATTEMPTS {
            let spare = match self.next_spare(&mut prepared) {
                Ok(spare) => spare,
                Err(error) => {
                    last_error = Some(error);
                    break;
                }
            };
            let path = spare.path.clone();
            match self.first_group(spare, open) {
                Ok((spare, writer, state)) => {
                    let incarnation = Incarnation { number, nonce };
                    let few = prepared.spares.len() < SPARES_RESERVED;
                    let short = few && self.space_is_short();
                    let short_of_space = short.then(|| "the disk is full".to_owned());
                    let pool = PoolState {
                        ready: prepared.spares,
                        next_number: prepared.next_number,
                        short_of_space,
                        ..PoolState::default()
                    };
                    self.cut_old_tail();
                    return Ok(self.core(
                        channel_id,
                        incarnation,
                        ownership,
                        pool,
                        (spare, writer, state),
                    ));
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), "dropped, trying another: {error}");
                    let _best_effort = self.disk.remove(&path);
                    last_error = Some(error);
                }
            }
        }
        let error = last_error.unwrap_or_else(|| std::io::Error::other("no prepared segment"));
        Err(OpenError::io(
            "write the first group into a new segment of",
            dir,
            error,
        ))
    }

    fn next_spare(&self, prepared: &mut Prepared) -> std::io::Result<Spare> {
        let mut spare = if prepared.spares.is_empty() {
            let spare = self.preparer.prepare(prepared.next_number)?;
            prepared.next_number += 1;
            spare
        } else {
            prepared.spares.remove(0)
        };
        self.preparer.activate(&mut spare)?;
        Ok(spare)
    }

    /// Gives back the zeros behind the old tail, so that a crash loop does not cost a segment a
    /// start.
    fn cut_old_tail(&mut self) {
        let Some((found, nonzero_end)) = &self.recovered.cut else {
            return;
        };
        let nonzero_end = match planted(Bug::CutAtProof) {
            true => &self.recovered.proven.offset(),
            false => nonzero_end,
        };
        let len = u64::from(*nonzero_end).next_multiple_of(4096);
        // On a full disk another process might take what is cut off: the segment goes as a whole,
        // when it is dead, and the reserve gets its room.
        if len >= found.len || self.space_is_short() {
            return;
        }
        let cut = self
            .disk
            .open(&found.path, true, WriteBackend::Pwrite)
            .and_then(|file| {
                if planted(Bug::WriteIntoOld) {
                    file.store_at(u64::from(*nonzero_end) - 8, &[&[0; 8]])?;
                }
                file.truncate(len)
            });
        match cut {
            Ok(()) => {
                let old = self
                    .recovered
                    .segments
                    .iter_mut()
                    .find(|s| s.number == found.number);
                if let Some(segment) = old {
                    segment.len = len;
                }
            }
            Err(error) => tracing::warn!(path = %found.path.display(), "not cut: {error}"),
        }
    }

    fn core(
        &mut self,
        channel_id: [u8; 16],
        incarnation: Incarnation,
        ownership: Ownership,
        pool: PoolState,
        (spare, writer, state): (Spare, LogWriter, LogState),
    ) -> Core {
        let queue = queue_of(&state, self.options.capacity);
        let table = SegmentTable {
            segments: std::mem::take(&mut self.recovered.segments),
        };
        let (first_sequence, end) = (self.recovered.state.next_sequence, writer.durable.offset());
        let core = Core {
            name: self.name.to_owned(),
            options: self.options.clone(),
            disk: Arc::clone(&self.disk),
            channel_id,
            incarnation,
            ownership: ownership.opened_at(Seq(state.next_sequence)),
            preparer: self.preparer.clone(),
            active_room: AtomicUsize::new(writer.active.room()),
            writer: Mutex::new(writer),
            pending: Mutex::default(),
            pending_changed: Condvar::new(),
            state: Mutex::new(state),
            table: Mutex::new(table),
            queue: Mutex::new(queue),
            windows: Mutex::default(),
            spares: SparePool::new(pool),
            journal_turn: Arc::default(),
            room: super::Signal::default(),
            ready: super::Signal::default(),
            poisoned: OnceLock::new(),
            closed: AtomicBool::new(false),
            stats: super::Stats::default(),
        };
        core.adopt(&spare, first_sequence);
        if let Some(active) = core.table().active_mut() {
            active.end = end;
        }
        core.count_coverage();
        core
    }
}

/// The queue as the state describes it: everything neither acknowledged nor sealed waits.
pub(super) fn queue_of(state: &LogState, capacity: u64) -> Queue {
    let ranges = |set: &super::range_set::RangeSet| {
        set.iter()
            .filter_map(|(first, last)| SeqRange::new(Seq(first), Seq(last)))
            .collect::<Vec<_>>()
    };
    let sealed: Vec<SeqRange> = state
        .epochs
        .values()
        .filter(|_| !planted(Bug::SealedComeBack))
        .filter_map(|e| SeqRange::new(Seq(e.range.first), Seq(e.range.last)))
        .collect();
    Queue::new(
        capacity,
        Seq(state.cursor),
        &ranges(&state.acked),
        &sealed,
        &ranges(&state.lost),
        Seq(state.next_sequence),
    )
}

fn start_threads(core: &Arc<Core>) -> Result<Vec<thread::JoinHandle<()>>, OpenError> {
    let spawn = |suffix: &str, run: fn(&Core)| {
        let core = Arc::clone(core);
        thread::Builder::new()
            .name(format!("{}-{suffix}", core.name))
            .spawn(move || {
                let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&core)));
                if outcome.is_err() {
                    core.poison("a background thread panicked");
                }
            })
            .map_err(|e| OpenError::io("start a thread for", "", e))
    };
    Ok(vec![
        spawn("commit", Core::run_committer)?,
        spawn("prepare", Core::run_preparer)?,
    ])
}

impl Core {
    /// Answers whoever still waits when the channel closes.
    pub(super) fn end_waiters(&self) {
        let waiters = unpoisoned(&self.pending).drain();
        for waiter in waiters {
            let _gone = waiter.send(Err(self.closed()));
        }
    }

    /// End of the log as of the last sync.
    #[cfg(test)]
    pub(super) fn durable_end(&self) -> wal_format::Lsn {
        self.writer().durable
    }
}
