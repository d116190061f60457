//! The table of followed files, and one poll over it.
//!
//! *Place in the flow*: [`Tailer::poll`] lists the groups, matches what it finds with the files
//! it knows, reads each file that has changed, and puts lines and position in one transaction.
//! Files that were rotated away come first, so that their last lines stay before those of their
//! successors.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::time::Instant;

use super::position::FilePosition;
#[cfg(test)]
use super::position::Mark;
use super::read::After;
use super::scan::{self, FileId, Found, Listing};
use super::tracked::{Tracked, end_mark};
use super::{TaildirOptions, legacy};
use crate::channel::{Position, PutBatch};
use crate::event::Headers;
use crate::source::runner::{PutError, Runner};
use crate::source::{SourceContext, SourceError};

/// Behind the source's name: the key that says that Flume's position file was taken over.
const MARKER: &str = "@flume-positions";

/// What one poll brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Polled {
    /// Lines delivered or refused.
    pub(super) lines: u64,
    /// A file had its turn cut short: poll again at once.
    pub(super) more: bool,
    /// Every file was read up to its end; only lines without line end are left.
    pub(super) at_end: bool,
}

/// See the head of the module.
#[derive(Debug)]
pub(super) struct Tailer {
    pub(super) options: TaildirOptions,
    pub(super) runner: Runner,
    pub(super) files: BTreeMap<FileId, Tracked>,
    /// Position keys to delete with the next transaction.
    pub(super) forget: Vec<Position>,
    pub(super) scratch: Vec<u8>,
    pub(super) first_poll: bool,
    /// What is wrong at the moment, so that it is logged once.
    pub(super) complaints: BTreeMap<String, String>,
}

impl Tailer {
    /// Reads the positions of the channel, or Flume's if the channel has none.
    pub(super) fn start(
        options: TaildirOptions,
        runner: Runner,
        now: Instant,
        wall_ms: u64,
    ) -> Result<Self, SourceError> {
        let mut this = Self {
            options,
            runner,
            files: BTreeMap::new(),
            forget: Vec::new(),
            scratch: Vec::new(),
            first_poll: true,
            complaints: BTreeMap::new(),
        };
        let prefix = format!("{}/", this.context().name);
        let stored = this.context().channel.positions(&prefix);
        if stored.is_empty() {
            this.take_over(now, wall_ms)?;
        }
        for Position { key, value } in stored {
            if key[prefix.len()..] == *MARKER {
                continue;
            }
            let position = FilePosition::decode(&value).map_err(|why| SourceError::Position {
                source_name: this.context().name.clone(),
                reason: format!(
                    "cannot understand the stored position '{key}': {why}; run the version that \
                     wrote it, or give the source another name to read all files again"
                ),
            })?;
            let file = Tracked::stored(key, position, now);
            if let Some(older) = this.files.insert(file.id, file) {
                this.forget.push(Position {
                    key: older.key,
                    value: bytes::Bytes::new(),
                });
            }
        }
        Ok(this)
    }

    pub(super) fn context(&self) -> &SourceContext {
        self.runner.context()
    }

    fn take_over(&mut self, now: Instant, wall_ms: u64) -> Result<(), SourceError> {
        let Some(path) = self.options.position_file.clone() else {
            return Ok(());
        };
        let name = self.context().name.clone();
        let read = legacy::read(&path).map_err(|reason| SourceError::Position {
            source_name: name.clone(),
            reason: format!("{reason}; correct positionFile, or remove the file"),
        })?;
        let Some(legacy::PositionFile { taken, refused }) = read else {
            return Ok(());
        };
        for why in &refused {
            tracing::warn!(source = %name, "position of Flume not taken over: {why}");
        }
        let mut batch = PutBatch::default();
        for entry in taken {
            let mut file = Tracked::new(entry.id, self.free_key(entry.id), entry.path, now);
            batch.positions.push(file.position(entry.mark, wall_ms));
            file.acknowledged(entry.mark, wall_ms);
            self.files.insert(entry.id, file);
        }
        tracing::info!(source = %name, file = %path.display(), files = batch.positions.len(),
            not_found = refused.len(), "the channel is new: starting where Flume's position file \
            says; from now on the positions are in the channel and this file is not used");
        let value = wall_ms.to_le_bytes().to_vec().into();
        batch.positions.push(Position {
            key: format!("{name}/{MARKER}"),
            value,
        });
        match self.runner.put_blocking(batch) {
            Ok(_) => Ok(()),
            // Nothing was stored: the next run takes the file over.
            Err(PutError::Stopped) => {
                self.files.clear();
                Ok(())
            }
            Err(error) => Err(self.ended(error)),
        }
    }

    pub(super) fn ended(&self, error: PutError) -> SourceError {
        match error {
            PutError::Ended(error) => error,
            other => SourceError::Unavailable {
                source_name: self.context().name.clone(),
                reason: format!("cannot store positions: {other}"),
            },
        }
    }

    fn free_key(&self, id: FileId) -> String {
        let base = format!("{}/{:016x}", self.context().name, id.inode);
        let twins = self.files.range(
            FileId {
                inode: id.inode,
                device: 0,
            }..=FileId {
                inode: id.inode,
                device: u64::MAX,
            },
        );
        let used: BTreeSet<&str> = twins.map(|(_, file)| file.key.as_str()).collect();
        let mut key = base.clone();
        let mut n = 1;
        while used.contains(key.as_str()) {
            n += 1;
            key = format!("{base}-{n}");
        }
        key
    }

    /// One turn over all files.
    pub(super) fn poll(&mut self, now: Instant, wall_ms: u64) -> Result<Polled, SourceError> {
        let listing = scan::list(&self.options.groups);
        for (directory, error) in &listing.failed {
            complain(
                &mut self.complaints,
                &directory.display().to_string(),
                &error.to_string(),
            );
        }
        let listed: BTreeSet<FileId> = listing.files.iter().map(|found| found.id).collect();
        let mut fresh = Vec::new();
        for found in &listing.files {
            self.notice(found, &listed, now, wall_ms, &mut fresh)?;
        }
        self.first_poll = false;
        self.look_for_missing(&listing, &listed, now);
        self.store(fresh)?;
        let mut order: Vec<FileId> = self.away_files();
        // A file that was renamed holds older lines than the one that took its name, even if its
        // writer was the last to write.
        let renamed = |id: &FileId| self.files.get(id).is_some_and(|f| f.current != f.origin);
        let (older, rest): (Vec<FileId>, Vec<FileId>) = listing
            .files
            .iter()
            .map(|found| found.id)
            .partition(renamed);
        order.extend(older);
        order.extend(rest);
        let mut polled = Polled {
            // A directory that does not exist holds no file that could still bring something.
            at_end: listing
                .failed
                .values()
                .all(|e| e.kind() == io::ErrorKind::NotFound),
            ..Polled::default()
        };
        for id in order {
            let Some(mut file) = self.files.remove(&id) else {
                continue;
            };
            let after = self.visit(&mut file, now, wall_ms, &mut polled.lines);
            self.files.insert(id, file);
            match after? {
                After::More => polled.more = true,
                After::AtEnd => continue,
                After::NotNow => {}
            }
            polled.at_end = false;
        }
        polled.lines += self.close_idle(now, wall_ms)?;
        self.expire(now)?;
        Ok(polled)
    }

    fn away_files(&self) -> Vec<FileId> {
        let mut away: Vec<(Instant, FileId)> = self
            .files
            .values()
            .filter_map(|file| Some((file.away?, file.id)))
            .collect();
        away.sort();
        away.into_iter().map(|(_, id)| id).collect()
    }

    /// Matches a listed file with what is known.
    fn notice(
        &mut self,
        found: &Found,
        listed: &BTreeSet<FileId>,
        now: Instant,
        wall_ms: u64,
        fresh: &mut Vec<Position>,
    ) -> Result<(), SourceError> {
        if !self.files.contains_key(&found.id) && !self.same_on_other_device(found, listed) {
            if self.files.len() >= self.options.files_max && !self.evict() {
                let limit = format!(
                    "not read: {} files are followed already, the most that fit; narrow the \
                     pattern or remove old files",
                    self.options.files_max
                );
                complain(
                    &mut self.complaints,
                    &found.path.display().to_string(),
                    &limit,
                );
                return Ok(());
            }
            let mut file = Tracked::new(found.id, self.free_key(found.id), found.path.clone(), now);
            if self.options.skip_to_end {
                if self.first_poll {
                    let mark = File::open(&found.path).and_then(|file| end_mark(&file));
                    file.mark = match mark {
                        Ok(mark) => mark,
                        Err(error) => {
                            self.count_error(&mut file, &error.to_string());
                            return Ok(());
                        }
                    };
                }
                // Known from now on: a later start must not skip what comes next.
                fresh.push(file.position(file.mark, wall_ms));
                file.acknowledged(file.mark, wall_ms);
            }
            self.files.insert(found.id, file);
        }
        let Some(mut file) = self.files.remove(&found.id) else {
            return Ok(());
        };
        file.current.clone_from(&found.path);
        (file.away, file.missing) = (None, None);
        if file.group.is_none() {
            file.headers = self.headers_of(&file, found.group);
        }
        file.group = Some(found.group);
        self.files.insert(found.id, file);
        Ok(())
    }

    /// A known file whose device has another number since the last boot.
    fn same_on_other_device(&mut self, found: &Found, listed: &BTreeSet<FileId>) -> bool {
        let inode = found.id.inode;
        let twins = FileId { inode, device: 0 }..=FileId {
            inode,
            device: u64::MAX,
        };
        let Ok(open) = File::open(&found.path) else {
            return false;
        };
        let known = self.files.range(twins).find(|(id, file)| {
            let candidate = !listed.contains(id) && file.reader.is_none() && file.mark.offset > 0;
            candidate && matches!(file.mark.verify(&open), Ok(Ok(_)))
        });
        let Some(id) = known.map(|(id, _)| *id) else {
            return false;
        };
        if let Some(mut file) = self.files.remove(&id) {
            tracing::info!(path = %found.path.display(), inode, old = id.device,
                new = found.id.device, "the device number has changed; the content is the same");
            file.id = found.id;
            self.files.insert(found.id, file);
        }
        true
    }

    /// Group headers and the path header, by the path under which the file was first found.
    pub(super) fn headers_of(&self, file: &Tracked, group: usize) -> Headers {
        let group = self.group_of(&file.origin).unwrap_or(group);
        let mut headers = Headers::new();
        for (name, value) in self
            .options
            .groups
            .get(group)
            .map_or(&[][..], |g| &g.headers)
        {
            headers.set(name, value);
        }
        if let Some(name) = &self.options.file_header {
            headers.set(name, file.origin.to_string_lossy());
        }
        headers
    }

    fn group_of(&self, path: &std::path::Path) -> Option<usize> {
        let name = path.file_name()?.to_string_lossy();
        let matches = |group: &super::FileGroup| {
            path.parent() == Some(group.directory.as_path()) && group.pattern.is_match(&name)
        };
        self.options.groups.iter().position(matches)
    }

    /// Files that no group lists any more: renamed, moved or deleted.
    fn look_for_missing(&mut self, listing: &Listing, listed: &BTreeSet<FileId>, now: Instant) {
        let ids: Vec<FileId> = self
            .files
            .keys()
            .filter(|id| !listed.contains(id))
            .copied()
            .collect();
        for id in ids {
            let Some(mut file) = self.files.remove(&id) else {
                continue;
            };
            if !listing.failed.contains_key(file.directory()) {
                if file.reader.is_some() {
                    file.away.get_or_insert(now);
                } else {
                    self.look_for(&mut file, now);
                }
            }
            self.files.insert(id, file);
        }
    }

    fn look_for(&mut self, file: &mut Tracked, now: Instant) {
        let found = if file.missing.is_none() {
            file.missing = Some(now);
            scan::open_by_inode(file.directory(), file.id.inode)
        } else if matches!(file.stamp(), Ok(Some(stamp)) if Some(stamp) != file.seen)
            && file.seen.is_some()
        {
            // Rotated away and finished, but its writer has gone on.
            File::open(&file.current).map(|open| Some((file.current.clone(), open)))
        } else {
            return;
        };
        // Where nothing was read there is no content to recognise: the inode may be another's now.
        let Some(group) = self.group_of(&file.origin).filter(|_| file.mark.offset > 0) else {
            return;
        };
        let found = found.map(|found| found.map(|(path, open)| (path, file.adopt(open, now))));
        match found {
            Ok(Some((path, Ok(())))) => {
                tracing::info!(path = %path.display(), was = %file.origin.display(),
                    inode = file.id.inode, offset = file.mark.offset,
                    "found under another name; reading it to its end");
                file.current = path;
                (file.away, file.missing) = (Some(now), None);
                file.headers = self.headers_of(file, group);
            }
            Ok(_) => tracing::info!(path = %file.current.display(), inode = file.id.inode,
                offset = file.mark.offset, "no longer in its directory; what may have been \
                written behind the offset was not read"),
            Err(error) => self.count_error(file, &error.to_string()),
        }
    }

    /// Makes room for one more file; false if every known file is still there.
    fn evict(&mut self) -> bool {
        let gone = self.files.values().filter(|file| file.missing.is_some());
        let Some(id) = gone.min_by_key(|file| file.written_ms).map(|file| file.id) else {
            return false;
        };
        self.drop_file(id);
        true
    }

    pub(super) fn drop_file(&mut self, id: FileId) {
        if let Some(file) = self.files.remove(&id)
            && file.stored
        {
            tracing::debug!(path = %file.current.display(), inode = id.inode, "position expired");
            self.forget.push(Position {
                key: file.key,
                value: bytes::Bytes::new(),
            });
        }
    }

    fn expire(&mut self, now: Instant) -> Result<(), SourceError> {
        let old =
            |since: Instant| now.saturating_duration_since(since) >= self.options.keep_vanished;
        let gone = self
            .files
            .values()
            .filter(|file| file.missing.is_some_and(old));
        for id in gone.map(|file| file.id).collect::<Vec<_>>() {
            self.drop_file(id);
        }
        let forget = std::mem::take(&mut self.forget);
        self.store(forget)
    }

    /// The files that are followed.
    #[cfg(test)]
    pub(super) fn files(&self) -> impl Iterator<Item = (&std::path::Path, Mark, bool)> {
        self.files
            .values()
            .map(|f| (f.current.as_path(), f.mark, f.reader.is_some()))
    }
}

fn complain(complaints: &mut BTreeMap<String, String>, what: &str, why: &str) {
    if complaints.get(what).is_none_or(|old| old != why) {
        tracing::warn!("{what}: {why}");
        complaints.insert(what.to_owned(), why.to_owned());
    }
}
