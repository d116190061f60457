//! A simulated HDFS with the faults of a real one, by seed or at chosen calls.
//!
//! For our own tests only. Two NameNodes are modelled: the *active* one, whose memory may be ahead
//! of the journal (edits made, answer not yet given), and, after a failover, the *ex-active*, whose
//! memory holds edits the journal lacks and who still answers reads and says no, until it tries to
//! journal something. What is certain:
//!
//! - A change answered with `Ok` is in the journal, and so is every change before it.
//! - Everything else (a refusal, "exists", "not there", a delete that found nothing, a read, an
//!   `Ok` of mkdirs on an existing directory) may rest on an edit that a failover will undo, or on
//!   the ex-active's memory.
//! - After [`StoreError::Unknown`] the call has happened, has not, happens later, or twice.
//!
//! Everything is deterministic: one seed and one order of calls give one history. All handles of
//! one store share it, so that a zombie and its successor meet.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use super::sim_names::{Done, Edit, Names, Node};
use super::store::{FileInfo, FileStore, StoreError, StoreWriter, check_path};

/// How often what goes wrong, in thousandths of the calls concerned.
#[derive(Debug, Clone, Default)]
pub struct SimFaults {
    /// A change is made and its answer lost.
    pub lost: u32,
    /// Of those: the change is not in the journal yet.
    pub unjournaled: u32,
    /// The answer is [`StoreError::Unknown`] and the change is never made.
    pub dropped: u32,
    /// The answer is [`StoreError::Unknown`] and the change is tried after 1 to 40 further calls.
    pub late: u32,
    /// The change is tried twice, and the second answer given.
    pub double: u32,
    /// Not now; nothing is done.
    pub unavailable: u32,
    /// A read without an answer.
    pub read_unknown: u32,
    /// A write that fails half-way.
    pub write_fails: u32,
    /// A failover before the call.
    pub failover: u32,
    /// A call that goes to the ex-active, while there is one.
    pub stale: u32,
}

impl SimFaults {
    /// Everything, often.
    pub fn harsh() -> Self {
        Self {
            lost: 60,
            unjournaled: 500,
            dropped: 40,
            late: 40,
            double: 20,
            unavailable: 60,
            read_unknown: 50,
            write_fails: 30,
            failover: 15,
            stale: 300,
        }
    }
}

/// One fault, for a chosen call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SimFault {
    /// Made, journaled, answer lost.
    Lost,
    /// Made in the active's memory, not journaled, answer lost.
    LostUnjournaled,
    /// Not made, no answer.
    Dropped,
    /// No answer; made after this many further calls.
    Late(u32),
    /// Tried twice; the second answer is given.
    Double,
    /// Not made, and the answer says so.
    Unavailable,
    /// A failover comes first, then the call goes to the ex-active.
    StaleAfterFailover,
}

impl SimFault {
    /// One of each, for exhaustive walks.
    pub const ALL: [Self; 7] = [
        Self::Lost,
        Self::LostUnjournaled,
        Self::Dropped,
        Self::Late(3),
        Self::Double,
        Self::Unavailable,
        Self::StaleAfterFailover,
    ];
}

#[derive(Debug, Clone)]
struct Late {
    at_call: u64,
    edit: Edit,
}

#[derive(Debug, Clone)]
struct World {
    journaled: Names,
    active: Names,
    /// Edits in the active's memory that the journal lacks.
    pending: Vec<Edit>,
    ex_active: Option<Names>,
    late: Vec<Late>,
    bytes: BTreeMap<u64, BytesMut>,
    next_inode: u64,
    /// Calls of all kinds so far.
    calls: u64,
    /// Changes asked for so far.
    changes: u64,
    plan: BTreeMap<u64, SimFault>,
    faults: SimFaults,
    random: u64,
    history: VecDeque<String>,
}

/// How many calls the history keeps for the message of a failed test.
const HISTORY: usize = 400;

impl World {
    /// SplitMix64.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn chance(&mut self, thousandths: u32) -> bool {
        thousandths > 0 && self.next_random() % 1000 < u64::from(thousandths)
    }

    fn note(&mut self, line: String) {
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(line);
    }

    /// Counts a call and lets happen what was waiting for it.
    fn begin_call(&mut self) {
        self.calls += 1;
        let now = self.calls;
        let (due, waiting) = self.late.drain(..).partition(|late| late.at_call <= now);
        self.late = waiting;
        for Late { edit, .. } in due {
            let answer = self.execute(&edit, true);
            self.note(format!("   late {edit:?}: {answer:?}"));
        }
        if self.chance(self.faults.failover) {
            self.failover();
        }
    }

    fn failover(&mut self) {
        self.note(format!("   failover, {} edits undone", self.pending.len()));
        self.pending.clear();
        let fresh = self.journaled.clone();
        self.ex_active = Some(std::mem::replace(&mut self.active, fresh));
    }

    /// Writes all pending edits to the journal, in order.
    fn journal(&mut self) {
        for edit in std::mem::take(&mut self.pending) {
            let replayed = self.journaled.apply(&edit);
            assert_eq!(
                replayed,
                Ok(Done::Changed),
                "the journal must replay {edit:?}"
            );
        }
    }

    /// Tries a change on the active.
    fn execute(&mut self, edit: &Edit, journal: bool) -> Result<Done, StoreError> {
        let done = self.active.apply(edit)?;
        if done == Done::Changed {
            self.pending.push(edit.clone());
            if journal {
                self.journal();
            }
        }
        Ok(done)
    }

    /// Asks the ex-active for a change: it can say no, and dies of trying to journal a yes.
    fn execute_stale(&mut self, edit: &Edit) -> Option<Result<Done, StoreError>> {
        let mut memory = self.ex_active.clone()?;
        match memory.apply(edit) {
            Ok(Done::Changed) => {
                self.ex_active = None;
                Some(Err(StoreError::Unknown(
                    "the fenced NameNode died".to_owned(),
                )))
            }
            no => Some(no),
        }
    }

    fn choose_fault(&mut self) -> Option<SimFault> {
        if let Some(fault) = self.plan.remove(&self.changes) {
            return Some(fault);
        }
        let faults = self.faults.clone();
        let unjournaled = self.chance(faults.unjournaled);
        if self.chance(faults.lost) {
            Some(if unjournaled {
                SimFault::LostUnjournaled
            } else {
                SimFault::Lost
            })
        } else if self.chance(faults.dropped) {
            Some(SimFault::Dropped)
        } else if self.chance(faults.late) {
            let calls = 1 + u32::try_from(self.next_random() % 40).unwrap_or(0);
            Some(SimFault::Late(calls))
        } else if self.chance(faults.double) {
            Some(SimFault::Double)
        } else if self.chance(faults.unavailable) {
            Some(SimFault::Unavailable)
        } else {
            None
        }
    }

    fn change(&mut self, edit: &Edit) -> Result<Done, StoreError> {
        self.begin_call();
        let fault = self.choose_fault();
        self.changes += 1;
        let unknown = || StoreError::Unknown(format!("simulated: {edit:?}"));
        let answer = match fault {
            Some(SimFault::Lost | SimFault::LostUnjournaled) => {
                let journal = fault == Some(SimFault::Lost);
                let hidden = self.execute(edit, journal);
                self.note(format!("   in truth {hidden:?}"));
                Err(unknown())
            }
            Some(SimFault::Dropped) => Err(unknown()),
            Some(SimFault::Late(calls)) => {
                let at_call = self.calls + u64::from(calls);
                self.late.push(Late {
                    at_call,
                    edit: edit.clone(),
                });
                Err(unknown())
            }
            Some(SimFault::Double) => {
                let first = self.execute(edit, true);
                self.note(format!("   first {first:?}"));
                self.execute(edit, true)
            }
            Some(SimFault::Unavailable) => {
                Err(StoreError::Unavailable("simulated safe mode".to_owned()))
            }
            Some(SimFault::StaleAfterFailover) => {
                self.failover();
                self.execute_stale(edit).unwrap_or_else(|| Err(unknown()))
            }
            None => {
                let stale = if self.chance(self.faults.stale) {
                    self.execute_stale(edit)
                } else {
                    None
                };
                stale.unwrap_or_else(|| self.execute(edit, true))
            }
        };
        let number = self.changes - 1;
        self.note(format!("#{number} {edit:?} {fault:?}: {answer:?}"));
        answer
    }

    /// The memory that a read sees, or why it sees none.
    fn look(&mut self) -> Result<&Names, StoreError> {
        self.begin_call();
        if self.chance(self.faults.read_unknown) {
            return Err(StoreError::Unknown(
                "simulated: no answer to a read".to_owned(),
            ));
        }
        if self.chance(self.faults.stale) && self.ex_active.is_some() {
            return Ok(self.ex_active.as_ref().unwrap_or(&self.active));
        }
        Ok(&self.active)
    }
}

/// A handle on a simulated store; clones share the store.
#[derive(Debug, Clone)]
pub struct SimStore {
    uri: String,
    world: Arc<Mutex<World>>,
}

impl SimStore {
    /// An empty store with these faults.
    pub fn new(seed: u64, faults: SimFaults) -> Self {
        let world = World {
            journaled: Names::default(),
            active: Names::default(),
            pending: Vec::new(),
            ex_active: None,
            late: Vec::new(),
            bytes: BTreeMap::new(),
            next_inode: 1,
            calls: 0,
            changes: 0,
            plan: BTreeMap::new(),
            faults,
            random: seed,
            history: VecDeque::new(),
        };
        Self {
            uri: "sim://store".to_owned(),
            world: Arc::new(Mutex::new(world)),
        }
    }

    /// An empty store without faults.
    pub fn perfect() -> Self {
        Self::new(0, SimFaults::default())
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the faults, as at the end of a test when all must settle.
    pub fn set_faults(&self, faults: SimFaults) {
        self.lock().faults = faults;
    }

    /// Gives the change number `change` (from 0, see [`SimStore::changes`]) this fault.
    pub fn plan(&self, change: u64, fault: SimFault) {
        self.lock().plan.insert(change, fault);
    }

    /// Changes asked for so far (mkdirs, create, close, rename, delete), for walks over them.
    pub fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// The other NameNode takes over: edits that are not journaled are undone, and the old one goes
    /// on answering where the `stale` fault sends a call to it.
    pub fn failover(&self) {
        self.lock().failover();
    }

    /// The ex-active is gone.
    pub fn end_stale(&self) {
        self.lock().ex_active = None;
    }

    /// All late calls happen now.
    pub fn settle(&self) {
        let mut world = self.lock();
        for Late { edit, .. } in std::mem::take(&mut world.late) {
            let answer = world.execute(&edit, true);
            world.note(format!("   settled {edit:?}: {answer:?}"));
        }
        world.journal();
    }

    /// A separate store in the same state, as of a cluster put back to a backup.
    pub fn fork(&self) -> Self {
        let world = self.lock().clone();
        Self {
            uri: self.uri.clone(),
            world: Arc::new(Mutex::new(world)),
        }
    }

    /// Every file and directory with its contents (`None` for a directory), as the journal has it;
    /// open files too. The truth, without faults.
    pub fn tree(&self) -> Vec<(String, Option<Bytes>)> {
        let world = self.lock();
        let contents = |node: &Node| match node {
            Node::Dir => None,
            Node::File { inode, .. } => Some(
                world
                    .bytes
                    .get(inode)
                    .map_or_else(Bytes::new, |b| b.clone().freeze()),
            ),
        };
        world
            .journaled
            .iter()
            .map(|(path, node)| (path.to_owned(), contents(node)))
            .collect()
    }

    /// A consumer takes a published file away: its bytes, or `None` where the active has no closed
    /// file there. Its answer is definite, so the journal holds all that it saw.
    pub fn consume(&self, path: &str) -> Option<Bytes> {
        let mut world = self.lock();
        let world = &mut *world;
        let Some(Node::File {
            inode, open: false, ..
        }) = world.journaled.get(path)
        else {
            return None;
        };
        let bytes = world
            .bytes
            .get(inode)
            .map_or_else(Bytes::new, |b| b.clone().freeze());
        let delete = Edit::Delete {
            path: path.to_owned(),
            recursive: false,
        };
        world.execute(&delete, true).ok()?;
        Some(bytes)
    }

    /// Somebody else puts a file there; `false` where that cannot be.
    pub fn put_foreign(&self, path: &str, bytes: Bytes) -> bool {
        let mut world = self.lock();
        let inode = world.next_inode;
        world.next_inode += 1;
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        world.bytes.insert(inode, BytesMut::from(bytes));
        let create = Edit::Create {
            path: path.to_owned(),
            inode,
        };
        let made = world.execute(&create, true).is_ok();
        made && world.execute(&Edit::Close { inode, length }, true).is_ok()
    }

    /// The last calls with their answers and what was behind them, for the message of a failed
    /// test.
    pub fn history(&self) -> String {
        let world = self.lock();
        world
            .history
            .iter()
            .map(|line| format!("{line}\n"))
            .collect()
    }

    /// Lets other tasks in, then makes a change.
    async fn change(&self, edit: Edit) -> Result<Done, StoreError> {
        tokio::task::yield_now().await;
        self.lock().change(&edit)
    }
}

#[async_trait]
impl FileStore for SimStore {
    fn uri(&self) -> &str {
        &self.uri
    }

    async fn mkdirs(&self, path: &str, create_parent: bool) -> Result<(), StoreError> {
        let path = check_path(path)?.to_owned();
        self.change(Edit::Mkdirs {
            path,
            create_parent,
        })
        .await
        .map(|_| ())
    }

    async fn create(&self, path: &str) -> Result<Box<dyn StoreWriter>, StoreError> {
        let path = check_path(path)?.to_owned();
        let inode = {
            let mut world = self.lock();
            world.next_inode += 1;
            world.next_inode - 1
        };
        self.change(Edit::Create { path, inode }).await?;
        self.lock().bytes.insert(inode, BytesMut::new());
        Ok(Box::new(SimWriter {
            store: self.clone(),
            inode,
            spoilt: false,
        }))
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), StoreError> {
        let (from, to) = (check_path(from)?.to_owned(), check_path(to)?.to_owned());
        self.change(Edit::Rename { from, to }).await.map(|_| ())
    }

    async fn delete(&self, path: &str, recursive: bool) -> Result<bool, StoreError> {
        let path = check_path(path)?.to_owned();
        let done = self.change(Edit::Delete { path, recursive }).await?;
        Ok(done == Done::Changed)
    }

    async fn stat(&self, path: &str) -> Result<Option<FileInfo>, StoreError> {
        let path = check_path(path)?;
        tokio::task::yield_now().await;
        self.lock().look().map(|names| names.stat(path))
    }

    async fn list(&self, path: &str) -> Result<Vec<FileInfo>, StoreError> {
        let path = check_path(path)?;
        tokio::task::yield_now().await;
        self.lock().look()?.list(path)
    }

    async fn read(&self, path: &str) -> Result<Bytes, StoreError> {
        let path = check_path(path)?;
        tokio::task::yield_now().await;
        let mut world = self.lock();
        let names = world.look()?;
        names.check_way(path)?;
        let node = names.get(path).cloned();
        match node {
            None => Err(StoreError::NotFound(format!("read {path}"))),
            Some(Node::Dir) => Err(StoreError::Refused(format!("read {path}: a directory"))),
            Some(Node::File { inode, .. }) => Ok(world
                .bytes
                .get(&inode)
                .map_or_else(Bytes::new, |b| b.clone().freeze())),
        }
    }

    /// As strict as a local file system: a directory that is gone cannot be synced.
    async fn sync_dirs(&self, paths: &[&str]) -> Result<(), StoreError> {
        let mut world = self.lock();
        let names = world.look()?;
        match paths.iter().find(|path| names.stat(path).is_none()) {
            Some(gone) => Err(StoreError::NotFound(format!("sync {gone}"))),
            None => Ok(()),
        }
    }
}

/// A file of an attempt in the simulation.
struct SimWriter {
    store: SimStore,
    inode: u64,
    spoilt: bool,
}

#[async_trait]
impl StoreWriter for SimWriter {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        tokio::task::yield_now().await;
        let mut world = self.store.lock();
        if self.spoilt {
            return Err(StoreError::Unknown("an earlier write failed".to_owned()));
        }
        world.begin_call();
        // As in HDFS, a write into a deleted file may still be accepted.
        let thousandths = world.faults.write_fails;
        let fails = world.chance(thousandths);
        let taken = if fails { bytes.len() / 2 } else { bytes.len() };
        world
            .bytes
            .entry(self.inode)
            .or_default()
            .extend_from_slice(&bytes[..taken]);
        if fails {
            self.spoilt = true;
            return Err(StoreError::Unknown("simulated: a DataNode died".to_owned()));
        }
        Ok(())
    }

    async fn close(self: Box<Self>) -> Result<(), StoreError> {
        if self.spoilt {
            return Err(StoreError::Unknown("an earlier write failed".to_owned()));
        }
        let length = self
            .store
            .lock()
            .bytes
            .get(&self.inode)
            .map_or(0, BytesMut::len);
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        self.store
            .change(Edit::Close {
                inode: self.inode,
                length,
            })
            .await
            .map(|_| ())
    }
}

#[cfg(test)]
#[path = "store_sim_tests.rs"]
mod tests;
