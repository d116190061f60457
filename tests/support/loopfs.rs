//! A small file system of its own in a file: made, mounted, and unmounted on drop, also when the
//! test has panicked. Needs root and the tools of the file system; what is missing is named with
//! the command that brings it.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Which file system to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ext4,
    Xfs,
}

impl Kind {
    /// The maker, its arguments, and the package that holds it.
    fn maker(self) -> (&'static str, &'static [&'static str], &'static str) {
        match self {
            // Without blocks kept for root: the tests run as root and would use them.
            Self::Ext4 => ("mkfs.ext4", &["-q", "-F", "-m", "0"], "e2fsprogs"),
            // Sizes below 300 MB are for tests only; this is one.
            Self::Xfs => ("mkfs.xfs", &["-q", "-f", "--unsupported"], "xfsprogs"),
        }
    }
}

/// A mounted file system.
#[derive(Debug)]
pub struct LoopFs {
    mount: PathBuf,
    _dir: tempfile::TempDir,
}

impl LoopFs {
    /// Makes and mounts a file system of `bytes`.
    pub fn new(kind: Kind, bytes: u64) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let image = dir.path().join("image");
        let mount = dir.path().join("mount");
        std::fs::create_dir(&mount).expect("a mount point");
        let file = std::fs::File::create(&image).expect("an image file");
        file.set_len(bytes).expect("a sparse image");
        let (maker, arguments, package) = kind.maker();
        let advice = format!("install it as root: apt-get install -y {package}");
        run(Command::new(maker).args(arguments).arg(&image), &advice);
        let advice = "mounting needs root: sudo -E cargo test --test full_disk";
        let mut command = Command::new("mount");
        run(command.args(["-o", "loop"]).arg(&image).arg(&mount), advice);
        Self { mount, _dir: dir }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mount
    }
}

impl Drop for LoopFs {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.mount).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            // Something still holds a file in it: it goes when that is closed.
            let _lazily = Command::new("umount").arg("-l").arg(&self.mount).status();
        }
    }
}

fn run(command: &mut Command, advice: &str) {
    let shown = format!("{command:?}");
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{shown}: {error}\n{advice}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shown}: {said}\n{advice}");
}
