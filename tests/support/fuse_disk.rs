//! A disk that can lose its power, refuse writes and lie: one file served over FUSE, for a loop
//! device to stand on. A flush of the file system above arrives here as `fsync`.
//!
//! The server runs in this process, in a thread of its own. *The cut* falls between two requests:
//! from then on nothing that arrives changes anything, and the victim (the agent) has its SIGKILL
//! before the request in flight is answered, so that it can tell nobody of what it was answered.
//!
//! Include it with `#[path = "support/fuse_disk.rs"] mod fuse_disk;`, beside `medium`.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyWrite, Request, Session, WriteFlags,
};
use rustix::process::{Pid, Signal, kill_process};

use crate::medium::{Keep, Lost, Medium, Seeded};

/// What the disk does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Flushes are answered and forgotten.
    Lies,
    /// Flushes fail; what was written stays pending.
    FailFlushes,
    /// Writes and flushes fail.
    FailWrites,
}

/// The kind of request at which the power went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CutAt {
    Write,
    Flush,
    /// Nothing was asked of the disk.
    Quiet,
}

struct State {
    medium: Medium,
    fault: Fault,
    /// Counts the lives of the disk; requests through a file of an earlier one change nothing.
    generation: u64,
    writes: u64,
    flushes: u64,
    /// Writes and flushes until the cut.
    until_cut: Option<u64>,
    cut: Option<CutAt>,
    victim: Option<Pid>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the disk panics")
    }

    fn cut(&self, state: &mut State, at: CutAt) {
        if state.cut.is_some() {
            return;
        }
        state.cut = Some(at);
        if let Some(victim) = state.victim.take() {
            // It may have ended by itself.
            kill_process(victim, Signal::KILL).ok();
        }
        self.changed.notify_all();
    }

    /// Counts a request; the one at which the count is down is the first that nobody executes.
    fn count(&self, state: &mut State, at: CutAt) {
        match at {
            CutAt::Write => state.writes += 1,
            CutAt::Flush => state.flushes += 1,
            CutAt::Quiet => {}
        }
        if let Some(left) = &mut state.until_cut {
            *left -= 1;
            if *left == 0 {
                state.until_cut = None;
                self.cut(state, at);
            }
        }
    }
}

/// See the module head.
pub(crate) struct FuseDisk {
    shared: Arc<Shared>,
    session: Option<BackgroundSession>,
    dir: tempfile::TempDir,
}

impl FuseDisk {
    pub(crate) fn serve(medium: Medium) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                medium,
                fault: Fault::None,
                generation: 0,
                writes: 0,
                flushes: 0,
                until_cut: None,
                cut: None,
                victim: None,
            }),
            changed: Condvar::new(),
        });
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("powercut".into())];
        let server = Server(Arc::clone(&shared));
        let session = Session::new(server, dir.path(), &config).unwrap_or_else(|error| {
            panic!(
                "cannot mount FUSE: {error}; it needs root and /dev/fuse: \
                 modprobe fuse; sudo -E cargo test --test powercut"
            )
        });
        let session = session.spawn().expect("a thread for the server");
        Self {
            shared,
            session: Some(session),
            dir,
        }
    }

    /// The file for the loop device of this life.
    pub(crate) fn image(&self) -> PathBuf {
        let generation = self.shared.lock().generation;
        self.dir.path().join(format!("image-{generation}"))
    }

    /// The power goes at the `requests`-th write or flush from now on.
    pub(crate) fn arm(&self, requests: u64) {
        self.shared.lock().until_cut = Some(requests.max(1));
    }

    /// Whom the cut takes along. `false`: the power has gone before.
    pub(crate) fn set_victim(&self, process: Option<u32>) -> bool {
        let process = process.and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let mut state = self.shared.lock();
        match (state.cut, process) {
            (Some(_), Some(process)) => {
                kill_process(process, Signal::KILL).ok();
                false
            }
            _ => {
                state.victim = process;
                state.cut.is_none()
            }
        }
    }

    pub(crate) fn cut_now(&self) {
        let mut state = self.shared.lock();
        self.shared.cut(&mut state, CutAt::Quiet);
    }

    pub(crate) fn cut(&self) -> Option<CutAt> {
        self.shared.lock().cut
    }

    /// Waits for the cut, at most this long.
    pub(crate) fn wait_for_cut(&self, at_most: Duration) -> Option<CutAt> {
        let deadline = Instant::now() + at_most;
        let mut state = self.shared.lock();
        while state.cut.is_none() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.expect("no holder of the disk panics").0;
        }
        state.cut
    }

    /// Power is back; a loop device of before talks to a file that is no more.
    pub(crate) fn revive(&self, keep: Keep, seed: &mut Seeded) -> Lost {
        let mut state = self.shared.lock();
        state.generation += 1;
        (state.cut, state.until_cut, state.victim) = (None, None, None);
        state.medium.cut(keep, seed)
    }

    pub(crate) fn set_fault(&self, fault: Fault) {
        self.shared.lock().fault = fault;
    }

    /// Writes and flushes that have arrived so far.
    pub(crate) fn requests(&self) -> (u64, u64) {
        let state = self.shared.lock();
        (state.writes, state.flushes)
    }

    pub(crate) fn pending(&self) -> u64 {
        self.shared.lock().medium.pending()
    }

    /// Keeps what is on the platter for whoever looks into a failure.
    pub(crate) fn save(&self, path: &Path) -> std::io::Result<()> {
        use std::os::unix::fs::FileExt;
        let state = self.shared.lock();
        let file = std::fs::File::create(path)?;
        file.set_len(state.medium.len() as u64)?;
        for (i, block) in state.medium.durable().chunks(4096).enumerate() {
            if block.iter().any(|byte| *byte != 0) {
                file.write_all_at(block, i as u64 * 4096)?;
            }
        }
        Ok(())
    }
}

impl Drop for FuseDisk {
    fn drop(&mut self) {
        self.cut_now();
        if let Some(session) = self.session.take() {
            // A loop device that something still holds keeps the file; it goes with its holder.
            session.umount_and_join().ok();
        }
    }
}

struct Server(Arc<Shared>);

/// Nobody changes the image beside the server, so the kernel may believe an answer for long.
const BELIEVE: Duration = Duration::from_secs(3600);
const FIRST_IMAGE: u64 = 2;

impl Server {
    fn attributes(&self, inode: u64) -> FileAttr {
        let is_dir = inode == u64::from(INodeNo::ROOT);
        let size = if is_dir {
            0
        } else {
            self.0.lock().medium.len() as u64
        };
        FileAttr {
            ino: INodeNo(inode),
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if is_dir {
                FileType::Directory
            } else {
                FileType::RegularFile
            },
            perm: 0o700,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for Server {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let number = name.to_str().and_then(|name| name.strip_prefix("image-"));
        match number.and_then(|number| number.parse::<u64>().ok()) {
            Some(n) => reply.entry(&BELIEVE, &self.attributes(FIRST_IMAGE + n), Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&BELIEVE, &self.attributes(u64::from(inode)));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // The page cache above the loop device is enough; a second one would hide what is asked.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let state = self.0.lock();
        reply.data(state.medium.read(offset as usize, size as usize));
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut state = self.0.lock();
        let alive = state.cut.is_none() && u64::from(inode) == FIRST_IMAGE + state.generation;
        if alive && state.fault == Fault::FailWrites {
            return reply.error(Errno::EIO);
        }
        if offset as usize + data.len() > state.medium.len() {
            return reply.error(Errno::ENOSPC);
        }
        if alive {
            // The write at which the power goes may have reached the platter in part.
            state.medium.write(offset as usize, data);
            self.0.count(&mut state, CutAt::Write);
        }
        reply.written(data.len() as u32);
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // This is close(2), and promises nothing.
        reply.ok();
    }

    fn fsync(&self, _: &Request, inode: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let mut state = self.0.lock();
        if state.cut.is_none() && u64::from(inode) == FIRST_IMAGE + state.generation {
            match state.fault {
                Fault::FailFlushes | Fault::FailWrites => return reply.error(Errno::EIO),
                Fault::Lies => self.0.count(&mut state, CutAt::Flush),
                Fault::None => {
                    self.0.count(&mut state, CutAt::Flush);
                    if state.cut.is_none() {
                        state.medium.flush();
                    }
                }
            }
        }
        reply.ok();
    }
}
