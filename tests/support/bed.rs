//! A job whose log and output lie on a real file system on a disk that can fail.
//!
//! Include it with `#[path = "support/bed.rs"] mod bed;`, beside `fuse_disk`, `job`, `loopfs` and
//! `medium` and what these need.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "a failed step fails its test")]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::fuse_disk::FuseDisk;
use crate::job::Job;
use crate::loopfs::{Kind, Mounted, mount_advice};
use crate::medium::{Medium, SECTOR};

const DISK: u64 = 96 << 20;

/// See the module head. Dropped in this order: the job, the mount, the disk below it.
pub(crate) struct Bed {
    pub(crate) mounted: Option<Mounted>,
    pub(crate) job: Job,
    /// Under the mount point nothing can be written: an agent that starts while the disk is not
    /// mounted would begin a fresh log there.
    _floor: Mounted,
    pub(crate) disk: FuseDisk,
    /// How often the file system wanted its check before it was mounted.
    pub(crate) repairs: u64,
    kind: Kind,
    mount: PathBuf,
}

impl Bed {
    /// A fresh file system, not mounted.
    pub(crate) fn new(kind: Kind) -> Self {
        let disk = FuseDisk::serve(formatted(kind));
        let mut mount = PathBuf::new();
        let job = Job::new(|dir| {
            mount = dir.join("mount");
            fs::create_dir(&mount).unwrap();
            mount.clone()
        });
        let floor = Mounted::read_only_memory(&mount);
        Self {
            mounted: None,
            job,
            _floor: floor.unwrap_or_else(|why| panic!("{why}\n{}", mount_advice())),
            disk,
            repairs: 0,
            kind,
            mount,
        }
    }

    /// Mounts what is on the disk; `false` when the power went meanwhile.
    ///
    /// The superblock of ext4 is two sectors under one checksum and is written outside the
    /// journal: a cut between the two needs the check that every boot makes before a mount.
    pub(crate) fn mount(&mut self) -> bool {
        let mut mounted = Mounted::new(&self.disk.image(), &self.mount);
        if mounted.is_err() && self.disk.cut().is_none() && self.kind.is_ext4() {
            let mut check = Command::new("e2fsck");
            // 1: errors were corrected.
            let status = check.args(["-f", "-y"]).arg(self.disk.image()).output();
            let status = status.unwrap().status;
            assert!(matches!(status.code(), Some(0 | 1)), "e2fsck: {status}");
            self.repairs += 1;
            mounted = Mounted::new(&self.disk.image(), &self.mount);
        }
        match mounted {
            Ok(mounted) => {
                self.mounted = Some(mounted);
                self.disk.cut().is_none()
            }
            Err(_) if self.disk.cut().is_some() => false,
            Err(why) => panic!("the file system does not mount: {why}\n{}", mount_advice()),
        }
    }
}

/// What the disk writes whole. XFS puts its log sequence number into the first sector of a block
/// of metadata and does not replay into a block that bears a newer one, so a block of which only
/// that sector was written stays broken ("Metadata CRC error", and the mount fails): it needs
/// disks that write its 4 KiB blocks whole, as all with 4 KiB physical sectors do.
fn unit(kind: Kind) -> usize {
    if kind.is_ext4() { SECTOR } else { 4096 }
}

/// Fresh from the maker; only blocks that are not zero take memory.
pub(crate) fn formatted(kind: Kind) -> Medium {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    kind.make(&image, DISK);
    let bytes = fs::read(&image).unwrap();
    let mut medium = Medium::new(bytes.len(), unit(kind));
    for (i, block) in bytes.chunks(4096).enumerate() {
        if block.iter().any(|byte| *byte != 0) {
            medium.preset(i * 4096, block);
        }
    }
    medium
}
