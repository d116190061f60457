//! Room for a start: what nothing refers to goes, and on a full disk what is dead becomes the
//! segment to start with.
//!
//! *Why reuse*: a file that is deleted gives its blocks to whoever comes first, and a new one may
//! need more than it gave (XFS with small blocks wants room for an inode and its own trees). A
//! name that changes and bytes that are overwritten need nothing.

use std::path::Path;

use super::{Opening, Prepared};
use crate::channel::file::layout::{self, Listing};

impl Opening<'_> {
    /// Removes what nothing refers to. Failures only cost space.
    pub(super) fn sweep(&self, listing: &Listing, prepared: &mut Prepared) {
        let left_over = self.recovered.leftovers.iter().map(|f| &f.path);
        for path in listing.unfinished.iter().chain(left_over) {
            if self.is_wanting(prepared) && self.reuse(path, prepared) {
                continue;
            }
            if let Err(error) = layout::remove_if_there(self.disk.as_ref(), path) {
                tracing::warn!(path = %path.display(), "cannot remove: {error}");
            }
        }
        for path in &listing.foreign {
            tracing::warn!(path = %path.display(), "not a file of this channel; left alone");
        }
    }

    /// With nothing prepared and no room to prepare: uses again or deletes what two durable
    /// snapshots have seen without live events (INV-7), so that a full disk opens as often as one
    /// likes.
    pub(super) fn make_room_for_a_start(&mut self, prepared: &mut Prepared) {
        if !self.is_wanting(prepared) {
            return;
        }
        let mut segments = std::mem::take(&mut self.recovered.segments);
        let behind: Vec<u64> = segments.iter().skip(1).map(|s| s.first_sequence).collect();
        let mut behind = behind.into_iter();
        segments.retain(|segment| {
            let end = behind.next();
            let state = &self.recovered.state;
            let dead = end.is_some_and(|end| state.is_dead(segment.first_sequence, end, false));
            if !dead || segment.covered < 2 {
                return true;
            }
            // One is enough: the running channel does the same for its reserve.
            if prepared.spares.is_empty() && self.reuse(&segment.path, prepared) {
                return false;
            }
            // A reuse that failed may have taken its name already.
            match layout::remove_if_there(self.disk.as_ref(), &segment.path) {
                Ok(()) => false,
                Err(error) => {
                    tracing::warn!(path = %segment.path.display(), "cannot remove: {error}");
                    true
                }
            }
        });
        self.recovered.segments = segments;
    }

    fn is_wanting(&self, prepared: &Prepared) -> bool {
        prepared.spares.is_empty() && self.space_is_short()
    }

    /// Makes a prepared segment of a file that holds nothing any more, if it can be one.
    fn reuse(&self, path: &Path, prepared: &mut Prepared) -> bool {
        match self.preparer.reuse(path, prepared.next_number) {
            Ok(spare) => {
                prepared.next_number += 1;
                prepared.spares.push(spare);
                true
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), "cannot be used again: {error}");
                false
            }
        }
    }

    /// Whether there is too little free space to give any away.
    pub(super) fn space_is_short(&self) -> bool {
        let size = u64::from(self.options.segment_bytes());
        let wanted = size + self.options.minimum_required_space;
        let mut dirs = self.options.data_dirs.iter();
        dirs.any(|dir| self.disk.space(dir).is_ok_and(|space| space.free < wanted))
    }
}
