//! Start-up of one channel in one base: who owns the channel, and nobody of an older incarnation
//! can write here any more.
//!
//! *Place in the flow*: the resolver runs [`inspect`], repeats the claims of epochs that are
//! SEALed and not CLAIMED, then runs [`fence`] and [`take_ownership`]; only then may sinks write.
//! Every function may be repeated; a crash at any point leaves what the next start repeats.
//!
//! *Invariants*: nothing in the store is changed before the owner file has been looked at, so that
//! a refused copy of a log deletes nothing of the rightful owner. A directory counts as deleted
//! only when its delete was answered `true`: a `false` may come from a NameNode that is no longer
//! active. No decision rests on a listing being complete: what a listing hides is met again by the
//! claim of an epoch number.

use crate::channel::ChannelError;
use crate::channel::journal::{EpochJournal, Incarnation, Opening, Refusal};
use crate::event::Seq;

use super::attempt::{left_probe, remove_probe};
use super::store::{FileInfo, FileStore, StoreError};

/// Why a channel must not publish into a base.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PublishFailure {
    /// Another copy of the log has opened the channel since this one did.
    #[error(
        "channel {channel}: another copy of this log has taken over: {root}/{owner} was not \
         written by this log"
    )]
    Clone {
        /// Channel id.
        channel: String,
        /// Directory of the channel's staging.
        root: String,
        /// Name of the winner's owner file.
        owner: String,
        /// First sequence number behind what both copies hold.
        first: Seq,
    },
    /// The store knows epochs that the log does not.
    #[error(
        "channel {channel}: {root}/sealed holds epoch {highest}, but this log would give number \
         {next} next: it is an old copy"
    )]
    OldBackup {
        /// Channel id.
        channel: String,
        /// Directory of the channel's staging.
        root: String,
        /// Highest epoch in the store.
        highest: u64,
        /// Next epoch of the log.
        next: u64,
    },
    /// Damage may hide a control record.
    #[error(
        "channel {channel}: damage may hide control records, so nothing is published: the store \
         at {root} knows {store}; the log would give epoch {next} next. Sources go on; see \
         `forebay wal verify`, end it with `forebay resolve`"
    )]
    Damage {
        /// Channel id.
        channel: String,
        /// Directory of the channel's staging.
        root: String,
        /// Highest epoch and owner in the store, in words.
        store: String,
        /// Next epoch of the log.
        next: u64,
    },
    /// The journal has failed; the channel must be reopened.
    #[error(transparent)]
    Journal(#[from] ChannelError),
    /// Not now; the caller tries again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl PublishFailure {
    /// Exit code of an agent that ends for this reason; `None` where trying again may help.
    pub fn exit_code(&self) -> Option<u8> {
        match self {
            Self::Clone { .. } | Self::OldBackup { .. } => Some(3),
            Self::Damage { .. } => Some(5),
            Self::Journal(_) | Self::Store(_) => None,
        }
    }

    /// Whether trying again cannot help.
    pub fn is_final(&self) -> bool {
        self.exit_code().is_some()
    }
}

/// An owner file: `owner.<inc>-<nonce>-<next sequence>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Who wrote it.
    pub incarnation: Incarnation,
    /// The writer's next sequence number at that moment.
    pub next: Seq,
}

/// The name before anybody owns the channel.
const UNOWNED: &str = "owner.0";
/// Below a channel's staging: an empty directory `<inc>-<nonce>-<next sequence>` for each start of
/// the owners, one after the other. Copies of a log find out by it where they parted.
const STARTS: &str = "starts";
/// Most of them.
const STARTS_KEPT: usize = 256;

impl From<Opening> for Owner {
    fn from(opening: Opening) -> Self {
        let Opening { incarnation, next } = opening;
        Self { incarnation, next }
    }
}

impl Owner {
    /// The file's name.
    pub fn name(&self) -> String {
        format!("owner.{}", self.stem())
    }

    fn stem(&self) -> String {
        let Incarnation { number, nonce } = self.incarnation;
        format!("{number}-{nonce:016x}-{}", self.next)
    }

    /// Reads a name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::parse_stem(name.strip_prefix("owner.")?)
    }

    fn parse_stem(stem: &str) -> Option<Self> {
        let mut fields = stem.splitn(3, '-');
        let number = fields.next()?.parse().ok()?;
        let nonce = u64::from_str_radix(fields.next()?, 16).ok()?;
        let next = Seq(fields.next()?.parse().ok()?);
        Some(Self {
            incarnation: Incarnation { number, nonce },
            next,
        })
    }
}

/// A channel's staging in one base of one store.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The store.
    pub store: &'a dyn FileStore,
    /// The channel's journal.
    pub journal: &'a dyn EpochJournal,
    /// `<base>/_staging/<chan>`.
    pub root: &'a str,
}

impl std::fmt::Debug for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Place")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

/// The last component of a path.
pub(super) fn file_name(info: &FileInfo) -> &str {
    info.path.rsplit('/').next().unwrap_or("")
}

impl Place<'_> {
    async fn owners(&self) -> Result<Vec<Owner>, StoreError> {
        let listing = self.store.list(self.root).await?;
        let mut owners: Vec<_> = listing
            .iter()
            .filter_map(|i| Owner::parse(file_name(i)))
            .collect();
        owners.sort_by_key(|o| (o.incarnation.number, !self.journal.knows(o.incarnation)));
        owners.reverse();
        // Of two with one number the foreign one stands first.
        Ok(owners)
    }

    /// Whether the newest owner file is of this log; `None`: nobody's.
    pub async fn owner(&self) -> Result<Option<Owner>, PublishFailure> {
        let newest = self.owners().await?.first().copied();
        match newest {
            Some(owner) if !self.journal.knows(owner.incarnation) => {
                Err(self.foreign(owner).await?)
            }
            other => Ok(other),
        }
    }

    /// The refusal by a foreign owner; on record before anybody hears of it.
    async fn foreign(&self, owner: Owner) -> Result<PublishFailure, PublishFailure> {
        let first = self.parted_at(owner).await?;
        self.refused_by(&owner.name(), first).await?;
        Ok(PublishFailure::Clone {
            channel: self.journal.channel_id(),
            root: self.root.to_owned(),
            owner: owner.name(),
            first,
        })
    }

    async fn refused_by(&self, what: &str, first: Seq) -> Result<(), PublishFailure> {
        let by = format!("{}{}/{what}", self.store.uri(), self.root);
        self.journal.refuse(Refusal { by, first }).await?;
        Ok(())
    }

    /// The first sequence number behind what this log and that of a foreign owner both hold: that
    /// of the first start which the two do not share, whoever it belongs to. The owner file alone
    /// does not tell, because its log may have started again and again since.
    async fn parted_at(&self, owner: Owner) -> Result<Seq, StoreError> {
        let starts = self.starts().await?;
        let known = |o: &&Owner| self.journal.knows(o.incarnation);
        let shared = starts.iter().filter(known).map(|o| o.incarnation.number);
        let shared = shared.max();
        let theirs = starts.iter().filter(|o| !known(o)).map(|o| o.next);
        let openings = self.journal.openings();
        let ours = openings.iter().filter(|o| {
            // Without a shared start on record nothing is known of ours either.
            shared.is_some_and(|shared| o.incarnation.number > shared)
        });
        let parted = theirs.chain(ours.map(|o| o.next)).min();
        Ok(parted.map_or(owner.next, |parted| parted.min(owner.next)))
    }

    /// Starts of the owners, ascending.
    async fn starts(&self) -> Result<Vec<Owner>, StoreError> {
        let listing = self.store.list(&format!("{}/{STARTS}", self.root)).await?;
        let mut starts: Vec<_> = listing
            .iter()
            .filter_map(|i| Owner::parse_stem(file_name(i)))
            .collect();
        starts.sort_by_key(|start| start.incarnation.number);
        Ok(starts)
    }

    /// Writes down every start of this log since the last fence, also those that never came to
    /// own the channel: their events are behind them. Making a directory may be repeated at will.
    async fn record_starts(&self) -> Result<(), StoreError> {
        if !self.journal.is_durable() {
            return Ok(());
        }
        let dir = format!("{}/{STARTS}", self.root);
        self.store.mkdirs(&dir, false).await?;
        let mut starts = self.starts().await?;
        for opening in self.journal.openings() {
            let start = Owner::from(opening);
            if !starts.contains(&start) {
                let path = format!("{dir}/{}", start.stem());
                self.store.mkdirs(&path, false).await?;
                starts.push(start);
            }
        }
        self.store.sync_dirs(&[&dir]).await?;
        let ours = |start: &Owner| self.journal.knows(start.incarnation);
        for start in superfluous(&starts).into_iter().filter(ours) {
            let path = format!("{dir}/{}", start.stem());
            self.store.delete(&path, false).await?;
        }
        Ok(())
    }

    /// Epochs that have a directory under `sealed/`, ascending.
    pub async fn sealed(&self) -> Result<Vec<u64>, StoreError> {
        let listing = self.store.list(&format!("{}/sealed", self.root)).await?;
        let number = |i: &FileInfo| file_name(i).strip_prefix('e')?.parse().ok();
        let mut epochs: Vec<u64> = listing.iter().filter_map(number).collect();
        epochs.sort_unstable();
        Ok(epochs)
    }

    /// Refuses a log that is older than the store. What it has accepted since it last was the
    /// owner is only here; what it held then is for a person to compare.
    async fn check_highest(&self, owner: Option<Owner>) -> Result<(), PublishFailure> {
        let next = self.journal.next_epoch();
        let highest = match self.sealed().await?.last() {
            Some(highest) if *highest >= next => *highest,
            _ => return Ok(()),
        };
        let openings = self.journal.openings();
        let since = openings
            .iter()
            .find(|o| owner.is_some_and(|owner| o.incarnation.number > owner.incarnation.number))
            .or_else(|| openings.last());
        let first = since.map_or_else(|| self.journal.next_sequence(), |o| o.next);
        self.refused_by(&format!("sealed/e{highest}"), first)
            .await?;
        Err(PublishFailure::OldBackup {
            channel: self.journal.channel_id(),
            root: self.root.to_owned(),
            highest,
            next,
        })
    }

    /// Directory of this incarnation's attempts.
    pub fn incarnation_dir(&self) -> String {
        format!("{}/i{}", self.root, self.journal.incarnation().number)
    }
}

/// Starts, ascending, that tell nothing which a later one does not: those before which no event
/// lies that does not lie before the next one as well, and the oldest beyond a bound.
fn superfluous(starts: &[Owner]) -> Vec<Owner> {
    let (mut gone, mut kept) = (Vec::new(), Vec::new());
    for (index, start) in starts.iter().enumerate() {
        let next = starts.get(index + 1);
        match next.is_some_and(|next| next.next == start.next) {
            true => gone.push(*start),
            false => kept.push(*start),
        }
    }
    let excess = kept.len().saturating_sub(STARTS_KEPT);
    gone.extend(kept.drain(..excess));
    gone
}

/// Looks before anything is changed: damage, a foreign owner, an epoch that the log does not know.
/// Then makes the channel's staging.
pub async fn inspect(place: Place<'_>) -> Result<(), PublishFailure> {
    if place.journal.control_may_be_lost() {
        let owner = place
            .owners()
            .await?
            .first()
            .map_or_else(String::new, Owner::name);
        let highest = place.sealed().await?.last().copied();
        let highest = highest.map_or_else(|| "no epoch".to_owned(), |e| format!("epoch {e}"));
        return Err(PublishFailure::Damage {
            channel: place.journal.channel_id(),
            root: place.root.to_owned(),
            store: format!("{highest} and owner {owner:?}"),
            next: place.journal.next_epoch(),
        });
    }
    let owner = place.owner().await?;
    place.check_highest(owner).await?;
    place.store.mkdirs(place.root, true).await?;
    place
        .store
        .mkdirs(&format!("{}/sealed", place.root), false)
        .await?;
    Ok(())
}

/// Deletes the attempts of every older incarnation since the last recorded fence. To be called when
/// no epoch of this base is SEALed and not CLAIMED any more.
pub async fn fence(place: Place<'_>, incarnations: &[u32]) -> Result<(), PublishFailure> {
    let own = place.journal.incarnation().number;
    for number in incarnations.iter().filter(|n| **n < own) {
        let dir = format!("{}/i{number}", place.root);
        remove_probes(place.store, *number, &dir).await?;
        delete_surely(place.store, &dir).await?;
    }
    Ok(())
}

/// Removes the empty files that attempts have left in target directories when they were stopped
/// in the middle of a probe.
async fn remove_probes(store: &dyn FileStore, number: u32, dir: &str) -> Result<(), StoreError> {
    for attempt in store.list(dir).await? {
        for mark in store.list(&attempt.path).await? {
            let probe = left_probe(number, file_name(&attempt), file_name(&mark));
            if let Some((name, to)) = probe {
                remove_probe(store, &format!("{}/{name}", attempt.path), &to).await?;
            }
        }
    }
    Ok(())
}

/// Deletes a directory with all in it; `Ok` only after an answer of `true`, which a NameNode gives
/// when it has journaled the delete.
pub(super) async fn delete_surely(store: &dyn FileStore, dir: &str) -> Result<(), StoreError> {
    const ROUNDS: u32 = 10;
    for _ in 0..ROUNDS {
        if store.delete(dir, true).await? {
            return Ok(());
        }
        store.mkdirs(dir, false).await?;
    }
    Err(StoreError::Unavailable(format!(
        "{dir} was made and not found, {ROUNDS} times"
    )))
}

/// Takes the owner file over, checks the highest epoch, makes this incarnation's directory.
///
/// The owner file is handed on by renaming it, so that of two copies that start at the same time
/// only one finds it under its old name.
pub async fn take_ownership(place: Place<'_>) -> Result<(), PublishFailure> {
    let incarnation = place.journal.incarnation();
    let before = place.owner().await?;
    // Behind the fence nobody else takes a number: what the listing shows now was decided before,
    // and whoever took it stays the owner.
    place.check_highest(before).await?;
    if before.is_none_or(|owner| owner.incarnation != incarnation) {
        let unowned = format!("{}/{UNOWNED}", place.root);
        let from = match before {
            Some(owner) => format!("{}/{}", place.root, owner.name()),
            None => {
                match place.store.create(&unowned).await {
                    Ok(writer) => writer.close().await?,
                    Err(StoreError::AlreadyExists(_)) => {}
                    Err(error) => return Err(error.into()),
                }
                unowned.clone()
            }
        };
        // Not the next number of now: sources may have gone on since the open.
        let openings = place.journal.openings();
        let opened = openings.last().copied().map(Owner::from);
        let own = opened.unwrap_or_else(|| Owner {
            incarnation,
            next: place.journal.next_sequence(),
        });
        let to = format!("{}/{}", place.root, own.name());
        place.store.rename(&from, &to).await?;
        place.store.sync_dirs(&[place.root]).await?;
        // A copy that had started at the same moment would stand beside ours now.
        if let Err(foreign) = place.owner().await {
            place.store.delete(&to, false).await?;
            return Err(foreign);
        }
        if before.is_some() {
            place.store.delete(&unowned, false).await?;
        }
    }
    for old in place
        .owners()
        .await?
        .iter()
        .filter(|o| o.incarnation != incarnation)
    {
        if place.journal.knows(old.incarnation) {
            place
                .store
                .delete(&format!("{}/{}", place.root, old.name()), false)
                .await?;
        }
    }
    place.record_starts().await?;
    place.check_highest(before).await?;
    place.store.mkdirs(&place.incarnation_dir(), false).await?;
    Ok(())
}
