//! The resolver: one for each channel; finishes sealed epochs, whoever sealed them.
//!
//! *Place in the flow*: the agent makes one [`Publisher`] for each channel and runs it beside the
//! sinks. [`Publisher::run`] starts a [`Session`] for the open channel: start-up of every base
//! (those of the configuration and those that sealed epochs name), then one task an epoch. Sinks
//! get the session from [`Publisher::session`], wait for their base and hand over what they seal.
//!
//! *Invariants*: a base takes no attempts before its start-up is over; sealed epochs are resolved
//! at the paths their record names, whatever the configuration says now; a store that is away
//! holds up its own bases only; nothing but DONE removes an epoch.
//!
//! *Crash*: everything here is remade from the journal.

mod publisher;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use crate::agent::counters::SinkCounters;
use crate::channel::Channel;
use crate::channel::journal::{EpochJournal, EpochRecord};

use super::attempt::Remains;
use super::epoch::{Action, Answer, Epoch, Halt, State, sealed_dir, staging_root};
use super::startup::{Place, PublishFailure, fence, file_name, inspect, take_ownership};
use super::store::{FileStore, StoreError};

pub use publisher::Publisher;

/// Most epochs that may be sealed and not done; beyond it sinks wait.
pub const MAX_OPEN_EPOCHS: usize = 1_000;
/// Tombstones kept in each base.
pub const KEPT_TOMBSTONES: usize = 64;
/// How long a stop waits for a start-up that has nothing to publish.
const START_GRACE: Duration = Duration::from_secs(2);
/// Calls under way at once, over all epochs of a channel.
const CALLS_AT_ONCE: usize = 16;

/// Opens the store that a sealed epoch names.
pub type StoreOpener = Arc<dyn Fn(&str) -> Result<Arc<dyn FileStore>, StoreError> + Send + Sync>;

/// Pauses between tries.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// The first.
    pub first: Duration,
    /// The longest.
    pub longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(100),
            longest: Duration::from_secs(30),
        }
    }
}

impl Backoff {
    /// The pause after `round` failures in a row.
    pub fn pause(&self, round: u32) -> Duration {
        self.first
            .saturating_mul(1 << round.saturating_sub(1).min(16))
            .min(self.longest)
    }
}

/// A store and a base in it.
type TargetKey = (String, String);

#[derive(Clone, Debug)]
enum TargetState {
    Starting,
    Ready,
    Refused(PublishFailure),
}

struct Target {
    store: Arc<dyn FileStore>,
    base: String,
    root: String,
    state: watch::Sender<TargetState>,
    /// Epochs that are done and whose tombstone is still there.
    tombs: Mutex<BTreeSet<u64>>,
    /// What could not be deleted yet.
    trash: Mutex<Vec<Remains>>,
}

/// Where an epoch stands, for reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochView {
    /// Its record.
    pub record: EpochRecord,
    /// Where it stands.
    pub state: State,
    /// Failures in a row.
    pub failures: u32,
    /// Why it goes no further by itself.
    pub halted: Option<Halt>,
    /// The last failure.
    pub trouble: Option<String>,
}

/// One open channel and its sealed epochs.
pub struct Session {
    channel: Arc<dyn Channel>,
    journal: Arc<dyn EpochJournal>,
    backoff: Backoff,
    targets: Mutex<BTreeMap<TargetKey, Arc<Target>>>,
    epochs: Mutex<BTreeMap<u64, EpochView>>,
    counters: Mutex<HashMap<String, Arc<SinkCounters>>>,
    changed: Notify,
    calls: Semaphore,
    attempts: AtomicU64,
    sealed: mpsc::UnboundedSender<EpochRecord>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("channel", &self.channel.name())
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How one epoch's task ended.
enum Ended {
    Done,
    /// Halted for this epoch alone.
    Halted,
    Failed(PublishFailure),
}

impl Session {
    fn new(
        channel: Arc<dyn Channel>,
        backoff: Backoff,
        sealed: mpsc::UnboundedSender<EpochRecord>,
    ) -> Self {
        Self {
            journal: channel.journal(),
            channel,
            backoff,
            targets: Mutex::default(),
            epochs: Mutex::default(),
            counters: Mutex::default(),
            changed: Notify::new(),
            calls: Semaphore::new(CALLS_AT_ONCE),
            attempts: AtomicU64::new(0),
            sealed,
        }
    }

    /// The channel.
    pub fn channel(&self) -> &Arc<dyn Channel> {
        &self.channel
    }

    /// The channel's journal.
    pub fn journal(&self) -> &Arc<dyn EpochJournal> {
        &self.journal
    }

    /// Epochs that are sealed and not done.
    pub fn open_epochs(&self) -> Vec<EpochView> {
        lock(&self.epochs).values().cloned().collect()
    }

    /// Counters that the epochs of sink `name` go on adding to after SEAL.
    pub fn register(&self, name: &str, counters: Arc<SinkCounters>) {
        lock(&self.counters).insert(name.to_owned(), counters);
    }

    /// A number for an attempt, used once in this incarnation.
    pub(super) fn next_attempt(&self) -> u64 {
        self.attempts.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Pauses between tries.
    pub(super) fn backoff(&self) -> Backoff {
        self.backoff
    }

    /// Hands over an epoch that was just sealed.
    pub(super) fn submit(&self, record: EpochRecord) {
        self.note(
            &Epoch::new(record.clone(), &self.journal.channel_id()),
            None,
        );
        // The resolver is gone only when the session has ended; the next start reads the journal.
        if self.sealed.send(record).is_err() {}
    }

    /// Waits until fewer than [`MAX_OPEN_EPOCHS`] are open.
    pub(super) async fn admit(&self) {
        loop {
            let changed = self.changed.notified();
            if lock(&self.epochs).len() < MAX_OPEN_EPOCHS {
                return;
            }
            changed.await;
        }
    }

    /// Waits until a base may be written to.
    ///
    /// # Errors
    /// The base refuses this log; see [`PublishFailure::is_final`].
    pub async fn ready(&self, uri: &str, base: &str) -> Result<(), PublishFailure> {
        let mut state = loop {
            let changed = self.changed.notified();
            let key = (uri.to_owned(), base.to_owned());
            if let Some(target) = lock(&self.targets).get(&key) {
                break target.state.subscribe();
            }
            changed.await;
        };
        let gone = || StoreError::Unavailable("the resolver has stopped".into());
        let state = state
            .wait_for(|s| !matches!(s, TargetState::Starting))
            .await;
        match state.map_err(|_| gone())?.clone() {
            TargetState::Refused(failure) => Err(failure),
            _ => Ok(()),
        }
    }

    /// Looks again whether the channel is still ours, and remakes this incarnation's directory:
    /// for a sink whose attempts find it gone.
    pub(super) async fn recheck(
        &self,
        store: &dyn FileStore,
        base: &str,
    ) -> Result<(), PublishFailure> {
        let root = staging_root(base, &self.journal.channel_id());
        let place = Place {
            store,
            journal: &*self.journal,
            root: &root,
        };
        inspect(place).await?;
        take_ownership(place).await
    }

    /// Deletes what an abandoned attempt has left, now or later.
    pub(super) async fn discard(&self, uri: &str, base: &str, remains: Remains) {
        let target = lock(&self.targets)
            .get(&(uri.to_owned(), base.to_owned()))
            .cloned();
        let Some(target) = target else { return };
        if remains.remove(&*target.store).await.is_err() {
            lock(&target.trash).push(remains);
        }
    }

    fn note(&self, epoch: &Epoch, trouble: Option<String>) {
        let halted = match epoch.next() {
            Action::Halted(halt) => Some(halt),
            _ => None,
        };
        let view = EpochView {
            record: epoch.record().clone(),
            state: epoch.state(),
            failures: epoch.failures(),
            halted,
            trouble,
        };
        lock(&self.epochs).insert(view.record.epoch, view);
    }

    /// Performs actions until the epoch is over, or (for start-up) until its claim is decided.
    async fn drive(&self, target: &Target, epoch: &mut Epoch, only_claim: bool) -> Option<Ended> {
        let number = epoch.record().epoch;
        loop {
            if only_claim && epoch.is_claimed() {
                return None;
            }
            let action = epoch.next();
            let answer = match action {
                Action::Pause { round, reason } => {
                    if round == 1 || round % 16 == 0 {
                        let state = epoch.state();
                        tracing::warn!(epoch = number, ?state, round, %reason, "trying again");
                    }
                    self.note(epoch, Some(reason));
                    tokio::time::sleep(self.backoff.pause(round)).await;
                    Answer::Ok
                }
                Action::Finished { unseen } => {
                    for path in unseen {
                        tracing::warn!(epoch = number, %path, "published, and moved on already");
                    }
                    self.finished(target, epoch).await;
                    return Some(Ended::Done);
                }
                Action::Halted(halt) => {
                    self.note(epoch, None);
                    return Some(self.halted(target, number, halt).await);
                }
                Action::Stopped(reason) => {
                    let channel = self.channel.name().to_owned();
                    let failed = crate::channel::ChannelError::Poisoned { channel, reason };
                    return Some(Ended::Failed(failed.into()));
                }
                action => self.perform(target, number, action).await,
            };
            epoch.on(answer);
        }
    }

    async fn halted(&self, target: &Target, number: u64, halt: Halt) -> Ended {
        tracing::error!(
            epoch = number, reason = %halt,
            "epoch halted; its events stay in the channel: `forebay resolve {number}`"
        );
        if matches!(halt, Halt::Clone(_)) {
            let place = self.place(target);
            if let Err(failure @ PublishFailure::Clone { .. }) = place.owner().await {
                return Ended::Failed(failure);
            }
        }
        Ended::Halted
    }

    fn place<'a>(&'a self, target: &'a Target) -> Place<'a> {
        Place {
            store: &*target.store,
            journal: &*self.journal,
            root: &target.root,
        }
    }

    async fn perform(&self, target: &Target, number: u64, action: Action) -> Answer {
        let store = &target.store;
        // The semaphore is never closed.
        let _permit = self.calls.acquire().await.ok();
        match action {
            Action::Rename { from, to } => store.rename(&from, &to).await.into(),
            Action::Mkdirs {
                path,
                create_parent,
            } => store.mkdirs(&path, create_parent).await.into(),
            Action::Delete { path } => store.delete(&path, false).await.into(),
            Action::Stat { path } => store.stat(&path).await.map(|found| found.is_some()).into(),
            Action::SyncDirs { paths } => sync_each(target, &paths).await.into(),
            Action::CheckOwner => match self.place(target).owner().await {
                Ok(_) => Answer::Ok,
                Err(failure @ PublishFailure::Clone { .. }) => Answer::Foreign(failure.to_string()),
                Err(PublishFailure::Store(error)) => Answer::Failed(error),
                Err(other) => Answer::JournalFailed(other.to_string()),
            },
            Action::RecordClaimed => recorded(self.journal.claimed(number).await),
            Action::RecordDone => recorded(self.journal.done(number).await),
            _ => Answer::Ok,
        }
    }

    async fn finished(&self, target: &Target, epoch: &Epoch) {
        let record = epoch.record();
        lock(&self.epochs).remove(&record.epoch);
        self.changed.notify_waiters();
        if let Some(counters) = lock(&self.counters).get(&record.sink) {
            counters.drain_successes.add(record.range.count());
            counters
                .files_published
                .add(u64::try_from(record.parts.len()).unwrap_or(0));
        }
        lock(&target.tombs).insert(record.epoch);
        self.sweep(target).await;
    }

    /// Deletes old tombstones and what could not be deleted before; failures wait for the next
    /// sweep.
    async fn sweep(&self, target: &Target) {
        loop {
            let oldest = {
                let mut tombs = lock(&target.tombs);
                if tombs.len() <= KEPT_TOMBSTONES {
                    break;
                }
                tombs.pop_first()
            };
            let Some(oldest) = oldest else { break };
            let dir = sealed_dir(&target.base, &self.journal.channel_id(), oldest);
            // A late mkdirs may have left these, empty.
            let mut gone = true;
            for path in [format!("{dir}/claim"), format!("{dir}/parts"), dir] {
                gone &= target.store.delete(&path, false).await.is_ok();
            }
            if !gone {
                lock(&target.tombs).insert(oldest);
                break;
            }
        }
        let trash = std::mem::take(&mut *lock(&target.trash));
        for remains in trash {
            if remains.remove(&*target.store).await.is_err() {
                lock(&target.trash).push(remains);
            }
        }
    }

    /// Start-up of one base, until it is ready or refused.
    async fn start_target(&self, target: &Target, unfenced: &[u32]) -> Result<(), PublishFailure> {
        let mut round = 0;
        loop {
            match self.try_start(target, unfenced).await {
                Ok(()) => {
                    target.state.send_replace(TargetState::Ready);
                    return Ok(());
                }
                Err(PublishFailure::Store(error)) => {
                    round += 1;
                    if round == 1 || round % 16 == 0 {
                        let base = &target.base;
                        tracing::warn!(%base, round, %error, "start-up of the store: trying again");
                    }
                    tokio::time::sleep(self.backoff.pause(round)).await;
                }
                Err(failure) => {
                    target
                        .state
                        .send_replace(TargetState::Refused(failure.clone()));
                    return Err(failure);
                }
            }
        }
    }

    async fn try_start(&self, target: &Target, unfenced: &[u32]) -> Result<(), PublishFailure> {
        let place = self.place(target);
        inspect(place).await?;
        let channel = self.journal.channel_id();
        for record in self.journal.open_epochs() {
            if record.claimed || !target.holds(&record) {
                continue;
            }
            let mut epoch = Epoch::new(record, &channel);
            if let Some(Ended::Failed(failure)) = self.drive(target, &mut epoch, true).await {
                return Err(failure);
            }
        }
        fence(place, unfenced).await?;
        take_ownership(place).await?;
        // Only what the listing shows is cleaned away; nothing is concluded from it.
        let open: BTreeSet<u64> = self.journal.open_epochs().iter().map(|e| e.epoch).collect();
        let sealed = place.sealed().await?;
        lock(&target.tombs).extend(sealed.into_iter().filter(|e| !open.contains(e)));
        let own = self.journal.incarnation().number;
        for info in target.store.list(&target.root).await? {
            let number = file_name(&info)
                .strip_prefix('i')
                .and_then(|n| n.parse::<u32>().ok());
            if number.is_some_and(|n| n < own) {
                lock(&target.trash).push(Remains::of(info.path));
            }
        }
        self.sweep(target).await;
        Ok(())
    }

    /// Leaves nothing but the owner file and empty tombstones; a journal that forgets leaves
    /// nothing at all.
    async fn clean_up(&self) {
        let targets: Vec<_> = lock(&self.targets).values().cloned().collect();
        for target in targets {
            if !matches!(*target.state.borrow(), TargetState::Ready) {
                continue;
            }
            let busy = lock(&self.epochs).values().any(|e| target.holds(&e.record));
            let mut paths = vec![self.place(&target).incarnation_dir()];
            if !self.journal.is_durable() && !busy {
                paths = vec![target.root.clone()];
            }
            lock(&target.trash).extend(paths.into_iter().map(Remains::of));
            for round in 1..=3 {
                self.sweep(&target).await;
                if lock(&target.trash).is_empty() {
                    break;
                }
                tokio::time::sleep(self.backoff.pause(round)).await;
            }
        }
    }
}

impl Target {
    fn holds(&self, record: &EpochRecord) -> bool {
        record.store == self.store.uri() && record.base == self.base
    }
}

/// Syncs directories one by one. One that is gone has no names left to keep: a crash behind the
/// proof leaves an epoch whose emptied `parts` is deleted already.
async fn sync_each(target: &Target, paths: &[String]) -> Result<(), StoreError> {
    for path in paths {
        match target.store.sync_dirs(&[path]).await {
            Ok(()) | Err(StoreError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn recorded(result: Result<(), crate::channel::ChannelError>) -> Answer {
    result.map_or_else(
        |error| Answer::JournalFailed(error.to_string()),
        |()| Answer::Ok,
    )
}

enum Event {
    Started(Result<(), PublishFailure>, Arc<Target>),
    Ended(Ended),
}

impl Session {
    fn target_of(&self, record: &EpochRecord) -> Option<Arc<Target>> {
        lock(&self.targets)
            .get(&(record.store.clone(), record.base.clone()))
            .cloned()
    }

    /// Whether no task works on the epoch: it was sealed before this start.
    fn is_idle(&self, record: &EpochRecord) -> bool {
        let epochs = lock(&self.epochs);
        epochs
            .get(&record.epoch)
            .is_some_and(|view| view.halted.is_none())
            && self.sealed_before(record)
    }

    fn sealed_before(&self, record: &EpochRecord) -> bool {
        let own = format!("/i{}/", self.journal.incarnation().number);
        !record.attempt.contains(&own)
    }

    fn spawn(
        self: &Arc<Self>,
        tasks: &mut JoinSet<Event>,
        target: Arc<Target>,
        record: EpochRecord,
    ) {
        let session = Arc::clone(self);
        tasks.spawn(async move {
            let mut epoch = Epoch::new(record, &session.journal.channel_id());
            let ended = session.drive(&target, &mut epoch, false).await;
            Event::Ended(ended.unwrap_or(Ended::Done))
        });
    }

    /// Whether every sealed epoch has its store; a base that cannot be reached is not fenced.
    fn reaches_every_epoch(&self) -> bool {
        self.journal
            .open_epochs()
            .iter()
            .all(|record| self.target_of(record).is_some())
    }

    /// Every base has said that this log is the owner of its channel.
    async fn all_started(&self, unfenced: &[u32]) -> Result<(), PublishFailure> {
        self.journal.owned().await?;
        if self.reaches_every_epoch() {
            self.record_fence(unfenced).await?;
        }
        Ok(())
    }

    /// Where there is no store to ask, nobody waits for one.
    async fn owned_without_stores(&self, stores: usize) -> Result<(), PublishFailure> {
        match stores {
            0 => Ok(self.journal.owned().await?),
            _ => Ok(()),
        }
    }

    /// Records the fence once every base has been fenced.
    async fn record_fence(&self, unfenced: &[u32]) -> Result<(), PublishFailure> {
        if let Some(last) = unfenced.iter().max() {
            self.journal.fenced(*last).await?;
        }
        Ok(())
    }
}
