//! A job whose log and output lie on a real file system on a disk that can fail.
//!
//! Include it with `#[path = "support/bed.rs"] mod bed;`, beside `fuse_disk`, `job`, `loopfs` and
//! `medium` and what these need.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "a failed step fails its test")]

use std::fs;
use std::path::PathBuf;

use crate::fuse_disk::FuseDisk;
use crate::job::Job;
use crate::loopfs::{Kind, Mounted, mount_advice};
use crate::medium::Medium;

const DISK: u64 = 96 << 20;

/// See the module head. Dropped in this order: the agent's files, the mount, the disk below it.
pub(crate) struct Bed {
    pub(crate) job: Job,
    pub(crate) mounted: Option<Mounted>,
    pub(crate) disk: FuseDisk,
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
        Self {
            job,
            mounted: None,
            disk,
            mount,
        }
    }

    /// Mounts what is on the disk; `false` when the power went meanwhile.
    pub(crate) fn mount(&mut self) -> bool {
        match Mounted::new(&self.disk.image(), &self.mount) {
            Ok(mounted) => {
                self.mounted = Some(mounted);
                self.disk.cut().is_none()
            }
            Err(_) if self.disk.cut().is_some() => false,
            Err(why) => panic!("the file system does not mount: {why}\n{}", mount_advice()),
        }
    }
}

/// Fresh from the maker; only blocks that are not zero take memory.
pub(crate) fn formatted(kind: Kind) -> Medium {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    kind.make(&image, DISK);
    let bytes = fs::read(&image).unwrap();
    let mut medium = Medium::new(bytes.len());
    for (i, block) in bytes.chunks(4096).enumerate() {
        if block.iter().any(|byte| *byte != 0) {
            medium.preset(i * 4096, block);
        }
    }
    medium
}
