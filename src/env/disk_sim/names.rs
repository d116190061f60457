//! Names: what the directory shows, what is on the medium, and the changes between.
//!
//! *Model*. Each create, rename, remove and new directory is one piece, whole or not at all. A
//! crash keeps any set of them in which a piece has what it rests on: the earlier changes of the
//! same name or the same file, and the directory it stands in. So two new files may appear in the
//! other order, a later removal may survive an earlier create, and a directory may be missing
//! with all that was made in it. ext4 and XFS keep less: a prefix of all changes of the file
//! system, which is one of these sets.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::crash::Choose;

pub(super) type NodeId = usize;

/// A directory tree. The root always exists.
#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    pub(super) files: BTreeMap<Arc<Path>, NodeId>,
    dirs: BTreeSet<Arc<Path>>,
}

impl Tree {
    pub(super) fn is_dir(&self, path: &Path) -> bool {
        path.parent().is_none() || path.as_os_str().is_empty() || self.dirs.contains(path)
    }

    pub(super) fn hash_dirs(&self, hasher: &mut impl Hasher) {
        self.dirs.hash(hasher);
    }

    pub(super) fn dirs_in<'a>(&'a self, dir: &'a Path) -> impl Iterator<Item = &'a Path> {
        let dirs = self.dirs.iter().map(AsRef::as_ref);
        dirs.filter(move |path: &&Path| path.parent() == Some(dir))
    }

    /// What hangs on a directory that is not there is not there either.
    fn drop_unreachable(&mut self) {
        let mut reachable = Self::default();
        for dir in std::mem::take(&mut self.dirs) {
            // Parents sort before what they hold.
            if dir.parent().is_some_and(|up| reachable.is_dir(up)) {
                reachable.dirs.insert(dir);
            }
        }
        self.dirs = reachable.dirs;
        let dirs = &self.dirs;
        let has_parent = |path: &Path| {
            let parent = path.parent();
            parent.is_none_or(|up| up.parent().is_none() || dirs.contains(up))
        };
        self.files.retain(|path, _| has_parent(path));
    }
}

/// One pending change.
#[derive(Clone, Debug)]
pub(super) enum NameOp {
    Link(Arc<Path>, NodeId),
    Rename(Arc<Path>, Arc<Path>, NodeId),
    Remove(Arc<Path>, NodeId),
    MakeDir(Arc<Path>),
}

impl NameOp {
    /// The directory whose sync makes it durable.
    fn dir(&self) -> Option<&Path> {
        let (Self::Link(path, _)
        | Self::Rename(_, path, _)
        | Self::Remove(path, _)
        | Self::MakeDir(path)) = self;
        path.parent()
    }

    fn paths(&self) -> [Option<&Path>; 2] {
        match self {
            Self::Rename(from, to, _) => [Some(from), Some(to)],
            Self::Link(path, _) | Self::Remove(path, _) | Self::MakeDir(path) => [Some(path), None],
        }
    }

    fn node(&self) -> Option<NodeId> {
        match self {
            Self::Link(_, node) | Self::Rename(_, _, node) | Self::Remove(_, node) => Some(*node),
            Self::MakeDir(_) => None,
        }
    }

    fn touches(&self, path: &Path) -> bool {
        self.paths().into_iter().flatten().any(|own| own == path)
    }

    /// Whether this change needs `earlier` to have happened.
    fn rests_on(&self, earlier: &Self) -> bool {
        let same_file = self.node().is_some() && self.node() == earlier.node();
        let stands_in = |path: &Path| match earlier {
            Self::MakeDir(dir) => path.parent() == Some(&**dir),
            _ => false,
        };
        let mut paths = self.paths().into_iter().flatten();
        same_file || paths.any(|path| earlier.touches(path) || stands_in(path))
    }

    fn apply(&self, tree: &mut Tree) {
        match self {
            Self::Link(path, node) => {
                tree.files.insert(Arc::clone(path), *node);
            }
            Self::Rename(from, to, node) => {
                tree.files.remove(from);
                tree.files.insert(Arc::clone(to), *node);
            }
            Self::Remove(path, _) => {
                tree.files.remove(path);
            }
            Self::MakeDir(path) => {
                tree.dirs.insert(Arc::clone(path));
            }
        }
    }
}

/// See the module head.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    pub(super) cache: Tree,
    disk: Tree,
    pending: Vec<NameOp>,
}

impl Names {
    pub(super) fn change(&mut self, op: NameOp) {
        op.apply(&mut self.cache);
        self.pending.push(op);
    }

    pub(super) fn node(&self, path: &Path) -> io::Result<NodeId> {
        self.cache
            .files
            .get(path)
            .copied()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The name of an open file, if it has one.
    pub(super) fn name_of(&self, node: NodeId) -> Option<PathBuf> {
        let mut files = self.cache.files.iter();
        files
            .find(|(_, n)| **n == node)
            .map(|(p, _)| p.to_path_buf())
    }

    /// What an operation on `path` needs of the directory it is in.
    pub(super) fn check_parent(&self, path: &Path) -> io::Result<()> {
        let Some(parent) = path.parent() else {
            return Ok(());
        };
        if self.cache.is_dir(parent) {
            return Ok(());
        }
        if parent
            .ancestors()
            .any(|up| self.cache.files.contains_key(up))
        {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Err(io::ErrorKind::NotFound.into())
    }

    /// Whether a sync of the directory would change the medium.
    pub(super) fn is_pending_in(&self, dir: &Path) -> bool {
        self.pending.iter().any(|op| op.dir() == Some(dir))
    }

    /// Makes the changes in `dir` durable, with the earlier ones of the same files and names.
    pub(super) fn sync_dir(&mut self, dir: &Path) {
        let pending = std::mem::take(&mut self.pending);
        let mut durable = vec![false; pending.len()];
        for index in (0..pending.len()).rev() {
            durable[index] |= pending[index].dir() == Some(dir);
            if durable[index] {
                for earlier in 0..index {
                    let is_dir = matches!(pending[earlier], NameOp::MakeDir(_));
                    durable[earlier] |= !is_dir && pending[index].rests_on(&pending[earlier]);
                }
            }
        }
        for (op, durable) in pending.into_iter().zip(durable) {
            if durable {
                op.apply(&mut self.disk);
            } else {
                self.pending.push(op);
            }
        }
    }

    /// Gives the files new numbers, in the order of their names. Nothing may be pending.
    pub(super) fn renumber(&mut self, mut number: impl FnMut(NodeId) -> NodeId) {
        for node in self.cache.files.values_mut() {
            *node = number(*node);
        }
        self.disk = self.cache.clone();
    }

    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The names after a power loss.
    pub(super) fn crashed(&self, choose: &mut Choose<'_>) -> Self {
        let mut tree = self.disk.clone();
        let mut dropped: Vec<&NameOp> = Vec::new();
        let in_order = choose.names_in_order();
        for op in &self.pending {
            let possible = match in_order {
                true => dropped.is_empty(),
                false => !dropped.iter().any(|earlier| op.rests_on(earlier)),
            };
            if possible && choose.state(2) == 1 {
                op.apply(&mut tree);
            } else {
                dropped.push(op);
            }
        }
        tree.drop_unreachable();
        Self {
            cache: tree.clone(),
            disk: tree,
            pending: Vec::new(),
        }
    }
}
