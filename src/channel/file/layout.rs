//! Names and ownership of the files of a channel.
//!
//! ```text
//! <data dir>/lock                      held for life by the one process that has the channel open
//! <data dir>/channel                   which channel this is, and which of how many directories
//! <data dir>/segment-0000000042.wal    a segment of the log
//! <data dir>/spare-0000000043.wal      a prepared segment: zeros between its two headers
//! <data dir>/*.new                     being prepared; removed at open
//! <data dir>/refused                   a store has refused this log: by what, and from which event
//! <data dir>/adopting/                 a log under a new id, being written by `forebay wal adopt`
//! <data dir>/adopt.swap, adopt.move    that log is complete and takes this one's place
//! <data dir>/adopt.done                what the last adoption has done
//! <data dir>/before-adopt-<id>/        the log before an adoption
//! <data dir>/salvage.unfinished        `forebay wal salvage` makes a channel here
//! <data dir>/salvaging/                where it writes the channel's log
//! <data dir>/salvage.done              what it has done
//! ```
//! A spare becomes a segment by a rename that is synced before the first byte is stored, so a
//! file that is still called a spare is known to hold nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::env::disk::{DirLock, Disk, WriteBackend};
use crate::planted::{Bug, planted};

use super::options::OpenError;
use super::segment::read_header;

pub(super) const MARKER: &str = "channel";
pub(super) const REFUSED: &str = "refused";
pub(super) const ADOPTING: &str = "adopting";
/// The new log is complete: the old one is moved away.
pub(super) const ADOPT_SWAP: &str = "adopt.swap";
/// The old log is away: the new one is moved to its place.
pub(super) const ADOPT_MOVE: &str = "adopt.move";
pub(super) const ADOPT_DONE: &str = "adopt.done";
pub(super) const BEFORE_ADOPT: &str = "before-adopt-";
pub(super) const LOCK: &str = "lock";
/// A log is being salvaged to here.
pub(super) const SALVAGE_UNFINISHED: &str = "salvage.unfinished";
pub(super) const SALVAGE_DONE: &str = "salvage.done";
pub(super) const SALVAGING: &str = "salvaging";
const MARKER_BYTES: u64 = 4096;
/// Longer texts are not ours.
const TEXT_BYTES_MAX: u64 = 16 << 20;

pub(super) fn segment_name(number: u32) -> String {
    format!("segment-{number:010}.wal")
}

pub(super) fn spare_name(number: u32) -> String {
    format!("spare-{number:010}.wal")
}

/// The name of a prepared segment that is not finished.
pub(super) fn unfinished_spare(number: u32) -> String {
    format!("{}.new", spare_name(number))
}

/// A file of the log found in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) number: u32,
    pub(super) dir: usize,
    pub(super) path: PathBuf,
    pub(super) len: u64,
    /// What lies behind this offset was stored after the listing and is no part of it, see
    /// [`super::still`].
    pub(super) shown: Option<u32>,
}

impl Found {
    /// Whether a running agent has taken its name away since the listing.
    pub(super) fn has_gone(&self, disk: &dyn Disk) -> bool {
        let opened = disk.open(&self.path, false, WriteBackend::Pwrite);
        opened.is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound)
    }
}

/// What the directories hold.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Segments by number.
    pub(super) segments: Vec<Found>,
    /// Prepared segments by number.
    pub(super) spares: Vec<Found>,
    /// Files whose preparation was cut short.
    pub(super) unfinished: Vec<PathBuf>,
    /// Files that are not ours; left alone.
    pub(super) foreign: Vec<PathBuf>,
}

fn number_in(name: &str, prefix: &str) -> Option<u32> {
    let digits = name.strip_prefix(prefix)?.strip_suffix(".wal")?;
    let number = (digits.len() == 10).then(|| digits.parse().ok()).flatten();
    // Behind the last number that is left no segment can follow.
    number.filter(|number| *number < u32::MAX / 2)
}

fn is_unfinished(name: &str) -> bool {
    let what = name.strip_suffix(".new").unwrap_or("");
    what.ends_with(".wal") || [MARKER, REFUSED, ADOPT_SWAP, SALVAGE_DONE].contains(&what)
}

fn is_known(name: &str) -> bool {
    let adoption = [ADOPTING, ADOPT_SWAP, ADOPT_MOVE, ADOPT_DONE];
    let salvage = [SALVAGE_UNFINISHED, SALVAGE_DONE, SALVAGING];
    [LOCK, MARKER, REFUSED, "status.sock"].contains(&name)
        || adoption.contains(&name)
        || salvage.contains(&name)
        || name.starts_with(BEFORE_ADOPT)
}

pub(super) fn list(disk: &dyn Disk, dirs: &[PathBuf]) -> Result<Listing, OpenError> {
    let mut listing = Listing::default();
    for (index, dir) in dirs.iter().enumerate() {
        for entry in disk.list(dir).map_err(|e| OpenError::io("list", dir, e))? {
            let path = dir.join(&entry.name);
            let found = |number| Found {
                number,
                dir: index,
                path: path.clone(),
                len: entry.len,
                shown: None,
            };
            if let Some(number) = number_in(&entry.name, "segment-") {
                listing.segments.push(found(number));
            } else if let Some(number) = number_in(&entry.name, "spare-") {
                listing.spares.push(found(number));
            } else if is_unfinished(&entry.name) {
                listing.unfinished.push(path);
            } else if !is_known(&entry.name) {
                listing.foreign.push(path);
            }
        }
    }
    listing.segments.sort_by_key(|f| f.number);
    listing.spares.sort_by_key(|f| f.number);
    Ok(listing)
}

/// The channel's id and the locks on its directories.
pub(super) type Claim = ([u8; 16], Vec<Box<dyn DirLock>>);

/// Makes and locks the directories, refuses what is not this channel's, and returns its id.
pub(super) fn claim(
    disk: &dyn Disk,
    dirs: &[PathBuf],
    fresh_id: [u8; 16],
) -> Result<Claim, OpenError> {
    let mut locks = Vec::new();
    for dir in dirs {
        disk.create_dir_all(dir)
            .map_err(|e| OpenError::io("create", dir, e))?;
        locks.push(lock(disk, dir)?);
        refuse_flume(disk, dir)?;
        refuse_unfinished(disk, dir)?;
    }
    let markers = dirs
        .iter()
        .map(|dir| read_marker(disk, dir))
        .collect::<Result<Vec<Option<Marker>>, _>>()?;
    let id = markers.iter().flatten().next().map(|m| m.id);
    let in_use = !list(disk, dirs)?.segments.is_empty();
    for (index, (dir, marker)) in dirs.iter().zip(&markers).enumerate() {
        check_marker(disk, dir, marker.as_ref(), id, (index, dirs.len()), in_use)?;
    }
    let id = id.unwrap_or(fresh_id);
    for (index, (dir, marker)) in dirs.iter().zip(&markers).enumerate() {
        if marker.is_none() {
            write_marker(
                disk,
                dir,
                &Marker {
                    id,
                    index,
                    of: dirs.len(),
                },
            )
            .map_err(|e| OpenError::io("write", dir.join(MARKER), e))?;
        }
    }
    Ok((id, locks))
}

/// Locks a directory that exists.
pub(super) fn lock(disk: &dyn Disk, dir: &Path) -> Result<Box<dyn DirLock>, OpenError> {
    disk.lock(dir, LOCK).map_err(|e| lock_error(dir, e))
}

/// Locks a directory without making a file in it; `None`: nobody ever opened a log there.
pub(super) fn lock_existing(
    disk: &dyn Disk,
    dir: &Path,
) -> Result<Option<Box<dyn DirLock>>, OpenError> {
    disk.lock_existing(dir, LOCK)
        .map_err(|e| lock_error(dir, e))
}

fn lock_error(dir: &Path, error: std::io::Error) -> OpenError {
    match error.kind() {
        std::io::ErrorKind::WouldBlock => OpenError::InUse {
            dir: dir.to_owned(),
        },
        _ => OpenError::io("lock", dir.join(LOCK), error),
    }
}

/// INV-12, INV-20: half of the old and half of the new log are no log.
fn refuse_unfinished(disk: &dyn Disk, dir: &Path) -> Result<(), OpenError> {
    match cut_short(disk, dir)? {
        Some(reason) => Err(OpenError::Directory {
            dir: dir.to_owned(),
            reason,
        }),
        None => Ok(()),
    }
}

/// The command that was cut short in a directory, in words.
pub(super) fn cut_short(disk: &dyn Disk, dir: &Path) -> Result<Option<String>, OpenError> {
    let phases = [
        (ADOPT_SWAP, "adopt"),
        (ADOPT_MOVE, "adopt"),
        (SALVAGE_UNFINISHED, "salvage"),
    ];
    for (phase, command) in phases {
        if read_text(disk, dir, phase)?.is_some() && !planted(Bug::HalfAdoptedOpens) {
            return Ok(Some(format!(
                "`forebay wal {command}` was cut short here; run it again, it goes on where it was"
            )));
        }
    }
    Ok(None)
}

/// The id of the channel whose directories these are, all of them; takes no lock.
pub(super) fn owner(disk: &dyn Disk, dirs: &[PathBuf]) -> Result<[u8; 16], OpenError> {
    let mut owner = None;
    for (index, dir) in dirs.iter().enumerate() {
        let marker = read_marker(disk, dir)?;
        let Some(found) = &marker else {
            let reason = "holds no log of Forebay".to_owned();
            return Err(OpenError::Directory {
                dir: dir.clone(),
                reason,
            });
        };
        let id = *owner.get_or_insert(found.id);
        check_marker(
            disk,
            dir,
            marker.as_ref(),
            Some(id),
            (index, dirs.len()),
            true,
        )?;
    }
    owner.ok_or_else(|| OpenError::Option {
        key: "dataDirs",
        reason: "names no directory".into(),
    })
}

/// The id of the channel whose directories these most likely are, in whatever state they may be:
/// what a readable marker says, else what most segments do.
pub(super) fn likely_owner(
    disk: &dyn Disk,
    dirs: &[PathBuf],
    listing: &Listing,
) -> Option<[u8; 16]> {
    let marker = |dir: &PathBuf| read_marker(disk, dir).ok().flatten();
    if let Some(marker) = dirs.iter().find_map(marker) {
        return Some(marker.id);
    }
    let mut votes: BTreeMap<[u8; 16], usize> = BTreeMap::new();
    for found in &listing.segments {
        let file = disk.open(&found.path, false, WriteBackend::Pwrite).ok();
        if let Some(header) = file.and_then(|file| read_header(file.as_ref()).ok()) {
            *votes.entry(header.channel_id).or_default() += 1;
        }
    }
    let most = votes.into_iter().max_by_key(|(_, count)| *count);
    most.map(|(id, _)| id)
}

fn refuse_flume(disk: &dyn Disk, dir: &Path) -> Result<(), OpenError> {
    let entries = disk.list(dir).map_err(|e| OpenError::io("list", dir, e))?;
    let flume = entries.iter().find(|e| {
        e.name
            .strip_prefix("log-")
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    });
    match flume {
        Some(entry) => Err(OpenError::Directory {
            dir: dir.to_owned(),
            reason: format!(
                "holds {} of an Apache Flume file channel; let Flume drain it, then give Forebay \
                 an empty directory (dataDirs)",
                entry.name
            ),
        }),
        None => Ok(()),
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Marker {
    id: [u8; 16],
    index: usize,
    of: usize,
}

fn check_marker(
    disk: &dyn Disk,
    dir: &Path,
    marker: Option<&Marker>,
    id: Option<[u8; 16]>,
    (index, of): (usize, usize),
    in_use: bool,
) -> Result<(), OpenError> {
    let refuse = |reason: String| {
        Err(OpenError::Directory {
            dir: dir.to_owned(),
            reason,
        })
    };
    match (marker, id) {
        (None, None) => {
            let listing = list(disk, &[dir.to_owned()])?;
            match listing.segments.first() {
                Some(found) => refuse(format!(
                    "holds {} but no `channel` file, so it cannot be told whose log it is",
                    found.path.display()
                )),
                None => Ok(()),
            }
        }
        // Claiming writes the markers one by one: a crash between them leaves a channel without
        // any segment, which may be completed. With segments, a directory is missing.
        (None, Some(_)) if !in_use => Ok(()),
        (None, Some(_)) => refuse(
            "holds no `channel` file while the other dataDirs hold this channel's log: not \
             mounted? (a directory cannot be added to a channel that has data)"
                .into(),
        ),
        (Some(m), Some(id)) if m.id != id => {
            refuse("belongs to another channel than the first of dataDirs".into())
        }
        (Some(m), _) if m.index != index || m.of != of => refuse(format!(
            "is directory {} of {} of its channel, but dataDirs names it as {} of {}",
            m.index + 1,
            m.of,
            index + 1,
            of
        )),
        (Some(_), _) => Ok(()),
    }
}

fn read_marker(disk: &dyn Disk, dir: &Path) -> Result<Option<Marker>, OpenError> {
    let Some(text) = read_text(disk, dir, MARKER)? else {
        return Ok(None);
    };
    parse_marker(&text)
        .map(Some)
        .ok_or_else(|| OpenError::Directory {
            dir: dir.to_owned(),
            reason: "its `channel` file is damaged or of an unknown version; restore it from the \
                 id in `forebay wal inspect`"
                .into(),
        })
}

/// What a directory's `channel` file says: the id, which directory of the channel it is (from 0),
/// and of how many; `None` where there is none.
pub(super) fn marked(
    disk: &dyn Disk,
    dir: &Path,
) -> Result<Option<([u8; 16], usize, usize)>, OpenError> {
    Ok(read_marker(disk, dir)?.map(|marker| (marker.id, marker.index, marker.of)))
}

/// The text of a small file; `None` where it is not there.
pub(super) fn read_text(
    disk: &dyn Disk,
    dir: &Path,
    name: &str,
) -> Result<Option<String>, OpenError> {
    let path = dir.join(name);
    let file = match disk.open(&path, false, WriteBackend::Pwrite) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(OpenError::io("open", path, e)),
    };
    let mut text = vec![0; usize::try_from(file.len().min(TEXT_BYTES_MAX)).unwrap_or(0)];
    file.read_at(0, &mut text)
        .map_err(|e| OpenError::io("read", &path, e))?;
    let text = String::from_utf8_lossy(&text);
    Ok(Some(text.trim_end_matches('\0').to_owned()))
}

fn parse_marker(text: &str) -> Option<Marker> {
    let mut lines = text.lines();
    (lines.next()? == "forebay channel 1").then_some(())?;
    let hex = lines.next()?.strip_prefix("id ")?;
    let id = u128::from_str_radix(hex, 16).ok()?.to_be_bytes_portable();
    let (index, of) = lines
        .next()?
        .strip_prefix("directory ")?
        .split_once(" of ")?;
    let index: usize = index.parse().ok()?;
    Some(Marker {
        id,
        index: index.checked_sub(1)?,
        of: of.parse().ok()?,
    })
}

/// Byte order of an id in text: most significant first, as people write hexadecimal.
trait TextOrder {
    fn to_be_bytes_portable(self) -> [u8; 16];
}

impl TextOrder for u128 {
    fn to_be_bytes_portable(self) -> [u8; 16] {
        let mut bytes = self.to_le_bytes();
        bytes.reverse();
        bytes
    }
}

pub(super) fn hex(id: &[u8; 16]) -> String {
    id.iter().map(|b| format!("{b:02x}")).collect()
}

fn write_marker(disk: &dyn Disk, dir: &Path, marker: &Marker) -> std::io::Result<()> {
    let text = format!(
        "forebay channel 1\nid {}\ndirectory {} of {}\n",
        hex(&marker.id),
        marker.index + 1,
        marker.of
    );
    write_text(disk, dir, MARKER, &text)
}

/// Writes a small file in place of an earlier one. Durable on `Ok`; a crash leaves the new text,
/// or none.
pub(super) fn write_text(
    disk: &dyn Disk,
    dir: &Path,
    name: &str,
    text: &str,
) -> std::io::Result<()> {
    let new = dir.join(format!("{name}.new"));
    remove_if_there(disk, &new)?;
    let len = (text.len() as u64).next_multiple_of(MARKER_BYTES);
    let file = disk.create_zeroed(&new, len, WriteBackend::Pwrite)?;
    file.store_at(0, &[text.as_bytes()])?;
    if !planted(Bug::NoSyncMarker) {
        file.sync()?;
    }
    remove_if_there(disk, &dir.join(name))?;
    disk.rename(&new, &dir.join(name))?;
    if planted(Bug::NoDirSyncMarker) {
        return Ok(());
    }
    disk.sync_dir(dir)
}

pub(super) fn remove_if_there(disk: &dyn Disk, path: &Path) -> std::io::Result<()> {
    match disk.remove(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// A file that makes up a log, the marker included.
pub(super) fn is_log_file(name: &str) -> bool {
    let segment = name.starts_with("segment-") || name.starts_with("spare-");
    name == MARKER || (segment && name.ends_with(".wal"))
}

/// Moves files from one directory to another, durably.
pub(super) fn move_files(
    disk: &dyn Disk,
    from: &Path,
    to: &Path,
    which: impl Fn(&str) -> bool,
) -> Result<(), OpenError> {
    let mut entries = disk
        .list(from)
        .map_err(|e| OpenError::io("list", from, e))?;
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    for entry in entries.iter().filter(|e| e.is_file && which(&e.name)) {
        let path = from.join(&entry.name);
        disk.rename(&path, &to.join(&entry.name))
            .map_err(|e| OpenError::io("move away", &path, e))?;
    }
    for dir in [to, from] {
        if planted(Bug::NoDirSyncMoved) {
            continue;
        }
        disk.sync_dir(dir)
            .map_err(|e| OpenError::io("sync", dir, e))?;
    }
    Ok(())
}
