//! The publisher: makes the session of an open channel and starts its work.

use std::sync::{Arc, Mutex};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::{
    Backoff, Ended, Epoch, Event, PublishFailure, START_GRACE, Session, StoreOpener, Target,
    TargetState, lock, staging_root,
};
use crate::channel::Channel;
use crate::sink::staged::store::{FileStore, StoreError};
use crate::source::Shutdown;

/// The exactly-once publisher of one channel; lives as long as the configuration.
pub struct Publisher {
    open_store: StoreOpener,
    targets: Vec<(Arc<dyn FileStore>, String)>,
    backoff: Backoff,
    current: watch::Sender<Option<Arc<Session>>>,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher")
            .field("targets", &self.targets.len())
            .finish_non_exhaustive()
    }
}

/// Takes the session away from sinks however `run` ends.
struct Current<'a>(&'a watch::Sender<Option<Arc<Session>>>);

impl Drop for Current<'_> {
    fn drop(&mut self) {
        self.0.send_replace(None);
    }
}

impl Publisher {
    /// A publisher for sinks that write to these stores and bases; `open_store` opens the stores
    /// of epochs that an earlier configuration has sealed.
    pub fn new(
        open_store: StoreOpener,
        targets: Vec<(Arc<dyn FileStore>, String)>,
        backoff: Backoff,
    ) -> Self {
        Self {
            open_store,
            targets,
            backoff,
            current: watch::Sender::new(None),
        }
    }

    /// The session of the open channel; waits until [`Publisher::run`] has made it.
    pub async fn session(&self, channel: &Arc<dyn Channel>) -> Option<Arc<Session>> {
        let mut current = self.current.subscribe();
        let ours =
            |s: &Option<Arc<Session>>| s.as_ref().is_some_and(|s| Arc::ptr_eq(&s.channel, channel));
        current.wait_for(ours).await.ok()?.clone()
    }

    /// Resolves sealed epochs until `shutdown`, and then until none is left that can be finished.
    ///
    /// # Errors
    /// A final refusal ([`PublishFailure::is_final`]), or the failure of the channel.
    pub async fn run(
        &self,
        channel: Arc<dyn Channel>,
        shutdown: Shutdown,
    ) -> Result<(), PublishFailure> {
        let (sealed, mut arrivals) = mpsc::unbounded_channel();
        let session = Arc::new(Session::new(channel, self.backoff, sealed));
        let unfenced = session.journal.unfenced();
        let mut tasks = JoinSet::new();
        let mut starting = 0_usize;
        for target in self.all_targets(&session) {
            starting += 1;
            let (session, unfenced) = (Arc::clone(&session), unfenced.clone());
            tasks.spawn(async move {
                let started = session.start_target(&target, &unfenced).await;
                Event::Started(started, target)
            });
        }
        let _current = Current(&self.current);
        self.current.send_replace(Some(Arc::clone(&session)));
        session.changed.notify_waiters();
        session.owned_without_stores(starting).await?;
        let mut damage = None;
        let mut running = 0_usize;
        loop {
            let idle = running == 0 && starting == 0;
            // With nothing to publish a store that does not answer holds up the stop no longer.
            let may_leave = running == 0 && session.open_epochs().is_empty();
            let patience = async {
                shutdown.wait().await;
                tokio::time::sleep(START_GRACE).await;
            };
            tokio::select! {
                biased;
                Some(record) = arrivals.recv() => {
                    if let Some(target) = session.target_of(&record) {
                        running += 1;
                        session.spawn(&mut tasks, target, record);
                    }
                }
                Some(event) = tasks.join_next() => match event {
                    Ok(Event::Started(Ok(()), target)) => {
                        starting -= 1;
                        if starting == 0 && damage.is_none() {
                            session.all_started(&unfenced).await?;
                        }
                        for record in session.journal.open_epochs() {
                            if target.holds(&record) && session.is_idle(&record) {
                                running += 1;
                                session.spawn(&mut tasks, Arc::clone(&target), record);
                            }
                        }
                    }
                    Ok(Event::Started(Err(failure @ PublishFailure::Damage { .. }), _)) => {
                        starting -= 1;
                        tracing::error!(%failure, "publishing is halted");
                        damage = Some(failure);
                    }
                    Ok(Event::Started(Err(failure), _) | Event::Ended(Ended::Failed(failure))) => {
                        return Err(failure);
                    }
                    Ok(Event::Ended(Ended::Done | Ended::Halted)) => running -= 1,
                    Err(broken) => {
                        let reason = format!("a resolver task has failed: {broken}");
                        return Err(StoreError::Unavailable(reason).into());
                    }
                },
                () = shutdown.wait(), if idle || damage.is_some() => break,
                () = patience, if may_leave => break,
            }
        }
        session.clean_up().await;
        damage.map_or(Ok(()), Err)
    }

    /// Every base of the configuration and of the sealed epochs.
    fn all_targets(&self, session: &Arc<Session>) -> Vec<Arc<Target>> {
        let channel = session.journal.channel_id();
        let mut wanted = self.targets.clone();
        for record in session.journal.open_epochs() {
            session.note(&Epoch::new(record.clone(), &channel), None);
            if wanted
                .iter()
                .any(|(s, base)| s.uri() == record.store && *base == record.base)
            {
                continue;
            }
            let same = wanted.iter().find(|(s, _)| s.uri() == record.store);
            let store = match same {
                Some((store, _)) => Ok(Arc::clone(store)),
                None => (self.open_store)(&record.store),
            };
            match store {
                Ok(store) => wanted.push((store, record.base)),
                Err(error) => tracing::error!(
                    epoch = record.epoch, store = %record.store, %error,
                    "the store of a sealed epoch cannot be opened; its events wait"
                ),
            }
        }
        let mut targets = lock(&session.targets);
        for (store, base) in wanted {
            let key = (store.uri().to_owned(), base.clone());
            let root = staging_root(&base, &channel);
            let state = watch::Sender::new(TargetState::Starting);
            let (tombs, trash) = (Mutex::default(), Mutex::default());
            targets.entry(key).or_insert_with(|| {
                Arc::new(Target {
                    store,
                    base,
                    root,
                    state,
                    tombs,
                    trash,
                })
            });
        }
        targets.values().cloned().collect()
    }
}
