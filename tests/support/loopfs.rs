//! A small file system of its own in a file: made, mounted, and unmounted on drop, also when the
//! test has panicked. Needs root and the tools of the file system; what is missing is named with
//! the command that brings it.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// Which file system to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ext4,
    /// Blocks of 1 KiB instead of 4.
    Ext4SmallBlocks,
    Xfs,
    /// Blocks of 1 KiB, the smallest that checksummed metadata allow.
    XfsSmallBlocks,
}

impl Kind {
    /// Whichever its blocks.
    pub fn is_ext4(self) -> bool {
        matches!(self, Self::Ext4 | Self::Ext4SmallBlocks)
    }

    /// The maker, its arguments, and the package that holds it.
    fn maker(self) -> (&'static str, &'static [&'static str], &'static str) {
        match self {
            // Without blocks kept for root: the tests run as root and would use them.
            Self::Ext4 => ("mkfs.ext4", &["-q", "-F", "-m", "0"], "e2fsprogs"),
            Self::Ext4SmallBlocks => {
                let arguments = &["-q", "-F", "-m", "0", "-b", "1024"];
                ("mkfs.ext4", arguments, "e2fsprogs")
            }
            // Sizes below 300 MB are for tests only; this is one.
            Self::Xfs => ("mkfs.xfs", &["-q", "-f", "--unsupported"], "xfsprogs"),
            Self::XfsSmallBlocks => {
                let arguments = &["-q", "-f", "--unsupported", "-b", "size=1024"];
                ("mkfs.xfs", arguments, "xfsprogs")
            }
        }
    }

    /// Makes the file system in a new sparse file.
    pub fn make(self, image: &Path, bytes: u64) {
        let file = std::fs::File::create(image).expect("an image file");
        file.set_len(bytes).expect("a sparse image");
        let (maker, arguments, package) = self.maker();
        let advice = format!("install it as root: apt-get install -y {package}");
        let made = run(Command::new(maker).args(arguments).arg(image));
        made.unwrap_or_else(|why| panic!("{why}\n{advice}"));
    }
}

/// A mounted image, unmounted on drop.
#[derive(Debug)]
pub struct Mounted {
    at: PathBuf,
}

impl Mounted {
    /// Mounts the image on a loop device of its own, or says what `mount` says.
    pub fn new(image: &Path, at: &Path) -> Result<Self, String> {
        Self::with(image, at, "loop")
    }

    /// The same with options; `loop` among them.
    pub fn with(image: &Path, at: &Path, options: &str) -> Result<Self, String> {
        let mut command = Command::new("mount");
        run(command.args(["-o", options]).arg(image).arg(at))?;
        Ok(Self { at: at.to_owned() })
    }

    /// An empty file system in memory into which nothing can be written.
    pub fn read_only_memory(at: &Path) -> Result<Self, String> {
        let mut command = Command::new("mount");
        run(command.args(["-t", "tmpfs", "-o", "ro", "none"]).arg(at))?;
        Ok(Self { at: at.to_owned() })
    }

    /// Name of its block device, without the directory.
    pub fn device(&self) -> String {
        let mounts = std::fs::read_to_string("/proc/mounts").expect("mounts can be read");
        let at = self.at.to_str().expect("a path of ours");
        // The topmost mount stands last.
        let mut fields = mounts.lines().rev().map(|line| line.split(' '));
        let device = fields.find_map(|mut f| f.next().filter(|_| f.next() == Some(at)));
        let device = device.expect("it is mounted");
        device.trim_start_matches("/dev/").to_owned()
    }

    /// `umount`; an error while something holds a file in it.
    pub fn unmount(self) -> Result<(), (Self, String)> {
        match run(Command::new("umount").arg(&self.at)) {
            Ok(()) => {
                std::mem::forget(self);
                Ok(())
            }
            Err(why) => Err((self, why)),
        }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// `mount -o remount,OPTION`.
    pub fn remount(&self, option: &str) -> Result<(), String> {
        let mut command = Command::new("mount");
        run(command
            .arg("-o")
            .arg(format!("remount,{option}"))
            .arg(&self.at))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if run(Command::new("umount").arg(&self.at)).is_err() {
            // Something still holds a file in it: it goes when that is closed.
            run(Command::new("umount").arg("-l").arg(&self.at)).ok();
        }
    }
}

/// What to type where a mount was refused.
pub fn mount_advice() -> String {
    let test = std::env::current_exe().ok();
    let name = test.as_deref().and_then(Path::file_stem);
    let name = name.map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let test = name
        .rsplit_once('-')
        .map_or(name.as_str(), |(test, _)| test);
    format!("mounting needs root: sudo -E cargo test --test {test}")
}

/// A file system in a file of its own.
#[derive(Debug)]
pub struct LoopFs {
    mounted: Mounted,
    _dir: tempfile::TempDir,
}

impl LoopFs {
    /// Makes and mounts a file system of `bytes`.
    pub fn new(kind: Kind, bytes: u64) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let image = dir.path().join("image");
        let mount = dir.path().join("mount");
        std::fs::create_dir(&mount).expect("a mount point");
        kind.make(&image, bytes);
        let mounted = Mounted::new(&image, &mount);
        let mounted = mounted.unwrap_or_else(|why| panic!("{why}\n{}", mount_advice()));
        Self { mounted, _dir: dir }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.mounted.path()
    }

    /// `mount -o remount,OPTION`.
    pub fn remount(&self, option: &str) -> Result<(), String> {
        self.mounted.remount(option)
    }
}

/// Runs a command to its end; an error shows it and what it said.
pub fn run(command: &mut Command) -> Result<(), String> {
    let shown = format!("{command:?}");
    let output = command
        .output()
        .map_err(|error| format!("{shown}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{shown}: {said}")),
    }
}
