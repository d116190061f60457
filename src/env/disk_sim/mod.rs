//! The simulated disk: cache view and disk view kept apart, crashes and errors to order.
//!
//! *Model*
//! - A store is pending from its instant, however it is made: at a crash each 512-byte sector of
//!   it holds, independently of all others, what was last synced or any version stored since; all
//!   versions are kept. A mixed crash may also cut a sector's newest store in the middle.
//! - Pages have 4 KiB. After a failed sync they count as clean: reads show the new bytes, later
//!   syncs say Ok, the medium never gets them; but a later store into such a page makes all of it
//!   dirty again, as write-back knows nothing smaller.
//! - Names, removals, renames and new directories are pending until their directory is synced,
//!   lengths until their file is (see `names` for what a crash may keep). Syncing a file does not
//!   make its name durable, though ext4 would.
//! - A bad sector fails reads, whether its page is cached or not.
//!
//! *Not modelled*: stale or foreign bytes in sectors that were never written to, misdirected
//! writes, sectors that rot by themselves (see [`SimDisk::flip`]), a rename that leaves two names
//! or none, errors of `read` on a map (a signal), the time anything takes.
//!
//! *Faults*: [`Fault`] orders an error of any call; [`SimDisk::set_free`] gives a budget of bytes;
//! [`SimDisk::cut_power_after`] fails every change from then on. A clone of a disk shares pages
//! and sectors, so a crash costs some microseconds.

mod content;
mod crash;
mod faults;
mod image;
mod names;
mod port;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use crash::{Crash, EveryCrash};
pub use faults::{Call, Fault};

use content::Node;
use crash::Choose;
use faults::{Failure, Faults};
use names::{Names, NodeId};

#[derive(Clone, Debug, Default)]
struct World {
    nodes: Vec<Node>,
    names: Names,
    locks: BTreeSet<PathBuf>,
    operations: u64,
    cut_at: Option<u64>,
    faults: Faults,
    free: Option<u64>,
    syncs: u64,
    /// The disk before each operation, while it is recorded.
    record: Option<Vec<SimDisk>>,
}

/// See the module head. Clones are handles on the same disk.
#[derive(Clone, Debug, Default)]
pub struct SimDisk(Arc<Mutex<World>>);

impl World {
    /// Counts an operation that changes something; the power may be gone, or an error ordered.
    fn step(&mut self, call: Call, path: Option<&Path>) -> Result<(), Failure> {
        if self.record.is_some() {
            let before = self.after_kill();
            if let Some(record) = &mut self.record {
                record.push(before);
            }
        }
        self.operations += 1;
        if self.cut_at.is_some_and(|at| self.operations >= at) {
            return Err(Failure {
                error: io::Error::other("simulated power cut"),
                kept: 0,
                in_part: None,
            });
        }
        self.look(call, path)
    }

    /// An operation that changes nothing: only an ordered error stops it.
    fn look(&mut self, call: Call, path: Option<&Path>) -> Result<(), Failure> {
        self.faults.meet(call, path).map_or(Ok(()), Err)
    }

    fn power_is_off(&self) -> bool {
        self.cut_at.is_some_and(|at| self.operations >= at)
    }

    fn node_mut(&mut self, path: &Path) -> io::Result<&mut Node> {
        let node = self.names.node(path)?;
        Ok(&mut self.nodes[node])
    }

    /// Takes `bytes` from what is free.
    fn allocate(&mut self, bytes: u64) -> io::Result<()> {
        if let Some(free) = &mut self.free {
            *free = free.checked_sub(bytes).ok_or(io::ErrorKind::StorageFull)?;
        }
        Ok(())
    }

    fn give_back(&mut self, bytes: u64) {
        if let Some(free) = &mut self.free {
            *free += bytes;
        }
    }

    fn after_kill(&self) -> SimDisk {
        SimDisk::of(Self {
            nodes: self.nodes.clone(),
            names: self.names.clone(),
            free: self.free,
            ..Self::default()
        })
    }

    fn states(&self) -> u64 {
        let mut states = 0_u64;
        crash::for_every_tree(&self.names, |names| {
            let nodes = names.cache.files.values();
            let product = nodes.fold(1_u64, |product, node| {
                product.saturating_mul(self.nodes[*node].states())
            });
            states = states.saturating_add(product);
        });
        states
    }
}

impl SimDisk {
    fn of(world: World) -> Self {
        Self(Arc::new(Mutex::new(world)))
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn crash_by(&self, choose: &mut Choose<'_>) -> Self {
        let world = self.world();
        let mut names = world.names.crashed(choose);
        let mut nodes = Vec::with_capacity(names.cache.files.len());
        names.renumber(|node: NodeId| {
            nodes.push(world.nodes[node].crashed(choose));
            nodes.len() - 1
        });
        Self::of(World {
            nodes,
            names,
            free: world.free,
            ..World::default()
        })
    }

    /// The disk as it is found after a power loss now; `seed` decides what of the pending
    /// stores and names has reached it.
    pub fn crash(&self, seed: u64) -> Self {
        self.crash_as(Crash::Mixed(seed))
    }

    /// The disk as it is found after a power loss now.
    pub fn crash_as(&self, crash: Crash) -> Self {
        self.crash_by(&mut Choose::by(crash))
    }

    /// Every state in which a power loss now may leave the disk, each once; sectors are whole.
    pub fn every_crash(&self) -> EveryCrash {
        EveryCrash::of(self.kill())
    }

    /// How many states [`Self::every_crash`] gives.
    pub fn crash_states(&self) -> u64 {
        self.world().states()
    }

    /// Versions of sectors, lengths and changes of names that wait for a sync.
    pub fn pending(&self) -> usize {
        let world = self.world();
        world.nodes.iter().map(Node::pending).sum::<usize>() + world.names.pending()
    }

    /// What a process crash leaves: the cache stays, locks are free, faults are over.
    pub fn kill(&self) -> Self {
        self.world().after_kill()
    }

    /// From now on keeps the disk as it is before each operation that changes something.
    pub fn record(&self) {
        self.world().record = Some(Vec::new());
    }

    /// What was kept since [`Self::record`], which ends.
    pub fn recorded(&self) -> Vec<Self> {
        self.world().record.take().unwrap_or_default()
    }

    /// Operations so far that changed something.
    pub fn operations(&self) -> u64 {
        self.world().operations
    }

    /// Syncs of files so far.
    pub fn syncs(&self) -> u64 {
        self.world().syncs
    }

    /// The power goes before the `count`-th operation from now.
    pub fn cut_power_after(&self, count: u64) {
        let mut world = self.world();
        world.cut_at = Some(world.operations + count);
    }

    /// Orders an error.
    pub fn inject(&self, fault: Fault) {
        self.world().faults.add(fault);
    }

    /// Ordered errors that have been met.
    pub fn faults_met(&self) -> u64 {
        self.world().faults.fired
    }

    /// The next `count` syncs of files named `segment-*` fail as a kernel fails them: once, and
    /// the pages count as clean.
    pub fn fail_syncs(&self, count: u32) {
        // Only segments of the log: the preparer's own syncs would take the failure away.
        let mut world = self.world();
        world.faults.forget(Call::Sync, "segment-");
        if count > 0 {
            let fault = Fault::io(Call::Sync).on("segment-").times(count);
            world.faults.add(fault);
        }
    }

    /// Write-back fails for all that is pending in files, and nobody is told: what happens when
    /// the process that would have synced has been killed.
    pub fn fail_write_back(&self) {
        for node in &mut self.world().nodes {
            node.lose(|| false);
        }
    }

    /// Bytes that new files may still take.
    pub fn set_free(&self, bytes: u64) {
        self.world().free = Some(bytes);
    }

    /// Changes one bit of a file, on the medium and in the cache.
    pub fn flip(&self, path: &Path, offset: usize, bit: u8) -> io::Result<()> {
        let mut world = self.world();
        world
            .node_mut(path)?
            .rot(offset, |byte| *byte ^= 1 << (bit & 7));
        Ok(())
    }

    /// Zeroes a range of a file, on the medium and in the cache.
    pub fn zero(&self, path: &Path, range: Range<usize>) -> io::Result<()> {
        let mut world = self.world();
        let node = world.node_mut(path)?;
        for offset in range {
            node.rot(offset, |byte| *byte = 0);
        }
        Ok(())
    }

    /// Reads of this range of a file fail from now on.
    pub fn fail_reads(&self, path: &Path, range: Range<u64>) -> io::Result<()> {
        self.world().node_mut(path)?.fail_reads(range);
        Ok(())
    }

    /// What reads of a file show.
    pub fn content(&self, path: &Path) -> io::Result<Vec<u8>> {
        Ok(self.world().node_mut(path)?.bytes())
    }

    /// A hash of all names and of what reads show: equal disks, as far as no store is pending.
    pub fn fingerprint(&self) -> u64 {
        let world = self.world();
        let mut hasher = DefaultHasher::new();
        world.names.cache.hash_dirs(&mut hasher);
        for (path, node) in &world.names.cache.files {
            path.hash(&mut hasher);
            world.nodes[*node].hash(&mut hasher);
        }
        hasher.finish()
    }

    /// Paths of all files.
    pub fn files(&self) -> Vec<PathBuf> {
        let world = self.world();
        let files = world.names.cache.files.keys();
        files.map(|path| path.to_path_buf()).collect()
    }
}
