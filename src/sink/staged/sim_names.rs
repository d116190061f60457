//! The namespace of the simulated store: what one NameNode holds in memory.
//!
//! A pure state machine: [`Names::apply`] changes everything or nothing and answers as HDFS 3.4.1
//! did when asked (`tests/stores.rs` runs one contract on both).

use std::collections::BTreeMap;

use super::store::{FileInfo, StoreError, parent_of};

/// A file or a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    /// A directory.
    Dir,
    /// A file; its bytes lie with the DataNodes, under its inode.
    File {
        /// Number that survives renames.
        inode: u64,
        /// Known length; 0 while the file is open.
        length: u64,
        /// Whether its writer has not closed it yet.
        open: bool,
    },
}

/// A change of the namespace, as a journal would hold it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Edit {
    /// mkdirs
    Mkdirs { path: String, create_parent: bool },
    /// create, by the writer of `inode`
    Create { path: String, inode: u64 },
    /// rename without overwrite
    Rename { from: String, to: String },
    /// delete
    Delete { path: String, recursive: bool },
    /// complete: the file of `inode` is closed with this length
    Close { inode: u64, length: u64 },
}

/// A positive answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Done {
    /// Something has changed: the answer waits for the journal.
    Changed,
    /// Nothing had to be changed (an existing directory, a delete of nothing): the answer does not
    /// wait for the journal, and may rest on an edit that is not in it.
    Nothing,
}

/// All names, each with its absolute path; the root is not listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Names {
    nodes: BTreeMap<String, Node>,
}

impl Names {
    pub(super) fn get(&self, path: &str) -> Option<&Node> {
        if path == "/" {
            Some(&Node::Dir)
        } else {
            self.nodes.get(path)
        }
    }

    /// Everything, sorted by path.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(path, node)| (path.as_str(), node))
    }

    fn below(&self, path: &str) -> impl Iterator<Item = (&String, &Node)> {
        let prefix = if path == "/" {
            "/".to_owned()
        } else {
            format!("{path}/")
        };
        let start = prefix.clone();
        self.nodes
            .range(start..)
            .take_while(move |(name, _)| name.starts_with(&prefix))
    }

    fn of_inode(&self, wanted: u64) -> Option<String> {
        let is = |node: &Node| matches!(node, Node::File { inode, .. } if *inode == wanted);
        self.nodes
            .iter()
            .find(|(_, node)| is(node))
            .map(|(path, _)| path.clone())
    }

    pub(super) fn stat(&self, path: &str) -> Option<FileInfo> {
        let path = path.to_owned();
        Some(match self.get(&path)? {
            Node::Dir => FileInfo {
                path,
                length: 0,
                is_dir: true,
            },
            Node::File { length, .. } => FileInfo {
                path,
                length: *length,
                is_dir: false,
            },
        })
    }

    pub(super) fn list(&self, path: &str) -> Result<Vec<FileInfo>, StoreError> {
        self.check_way(path)?;
        match self.get(path) {
            None => Ok(Vec::new()),
            Some(Node::File { .. }) => {
                Err(StoreError::Refused(format!("list {path}: not a directory")))
            }
            Some(Node::Dir) => {
                let children = self.below(path).filter(|(name, _)| parent_of(name) == path);
                Ok(children.filter_map(|(name, _)| self.stat(name)).collect())
            }
        }
    }

    /// Only a look-up goes through a file as if it were a directory, and finds nothing.
    pub(super) fn check_way(&self, path: &str) -> Result<(), StoreError> {
        let mut above = parent_of(path);
        while above != "/" {
            if let Some(Node::File { .. }) = self.get(above) {
                return Err(StoreError::Refused(format!(
                    "{path}: {above} is not a directory"
                )));
            }
            above = parent_of(above);
        }
        Ok(())
    }

    /// Makes one change, or none and says why.
    pub(super) fn apply(&mut self, edit: &Edit) -> Result<Done, StoreError> {
        match edit {
            Edit::Mkdirs { path, .. } | Edit::Create { path, .. } | Edit::Delete { path, .. } => {
                self.check_way(path)?;
            }
            Edit::Rename { from, to } => {
                self.check_way(from)?;
                self.check_way(to)?;
            }
            Edit::Close { .. } => {}
        }
        match edit {
            Edit::Mkdirs {
                path,
                create_parent,
            } => self.mkdirs(path, *create_parent),
            Edit::Create { path, inode } => self.create(path, *inode),
            Edit::Rename { from, to } => self.rename(from, to),
            Edit::Delete { path, recursive } => self.delete(path, *recursive),
            Edit::Close { inode, length } => self.close(*inode, *length),
        }
    }

    fn check_parent(&self, path: &str) -> Result<(), StoreError> {
        let parent = parent_of(path);
        match self.get(parent) {
            Some(_) => Ok(()),
            None => Err(StoreError::ParentNotFound(format!(
                "{path}: {parent} is missing"
            ))),
        }
    }

    fn mkdirs(&mut self, path: &str, create_parent: bool) -> Result<Done, StoreError> {
        match self.get(path) {
            Some(Node::Dir) => return Ok(Done::Nothing),
            Some(Node::File { .. }) => return Err(StoreError::AlreadyExists(path.to_owned())),
            None => {}
        }
        let mut missing = vec![path];
        let mut parent = parent_of(path);
        while create_parent && self.get(parent).is_none() {
            missing.push(parent);
            parent = parent_of(parent);
        }
        self.check_parent(missing[missing.len() - 1])?;
        for path in missing {
            self.nodes.insert(path.to_owned(), Node::Dir);
        }
        Ok(Done::Changed)
    }

    fn create(&mut self, path: &str, inode: u64) -> Result<Done, StoreError> {
        if self.get(path).is_some() {
            return Err(StoreError::AlreadyExists(path.to_owned()));
        }
        self.check_parent(path)?;
        self.nodes.insert(
            path.to_owned(),
            Node::File {
                inode,
                length: 0,
                open: true,
            },
        );
        Ok(Done::Changed)
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<Done, StoreError> {
        let text = format!("rename {from} to {to}");
        if self.get(from).is_none() {
            return Err(StoreError::NotFound(text));
        }
        if to.starts_with(&format!("{from}/")) || from == "/" {
            return Err(StoreError::Refused(text));
        }
        if self.get(to).is_some() {
            return Err(StoreError::AlreadyExists(text));
        }
        self.check_parent(to)?;
        let moved: Vec<String> = self.below(from).map(|(name, _)| name.clone()).collect();
        for name in moved.iter().map(String::as_str).chain([from]) {
            if let Some(node) = self.nodes.remove(name) {
                self.nodes
                    .insert(format!("{to}{}", &name[from.len()..]), node);
            }
        }
        Ok(Done::Changed)
    }

    fn delete(&mut self, path: &str, recursive: bool) -> Result<Done, StoreError> {
        if path == "/" {
            return Err(StoreError::Refused("delete /".to_owned()));
        }
        if self.get(path).is_none() {
            return Ok(Done::Nothing);
        }
        let below: Vec<String> = self.below(path).map(|(name, _)| name.clone()).collect();
        if !below.is_empty() && !recursive {
            return Err(StoreError::NotEmpty(path.to_owned()));
        }
        for name in below.iter().map(String::as_str).chain([path]) {
            self.nodes.remove(name);
        }
        Ok(Done::Changed)
    }

    fn close(&mut self, inode: u64, length: u64) -> Result<Done, StoreError> {
        let Some(path) = self.of_inode(inode) else {
            return Err(StoreError::NotFound(format!("inode {inode} was deleted")));
        };
        self.nodes.insert(
            path,
            Node::File {
                inode,
                length,
                open: false,
            },
        );
        Ok(Done::Changed)
    }
}
