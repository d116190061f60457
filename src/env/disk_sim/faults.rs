//! Errors to order: which call on which files fails, when, how often and how.

use std::io;
use std::path::Path;

pub(super) const EIO: i32 = 5;
const ENOMEM: i32 = 12;
const ENOSPC: i32 = 28;

/// A call that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// The name of a new file.
    Create,
    /// The zeros of a new file.
    Fill,
    /// A store.
    Store,
    /// A sync of a file.
    Sync,
    /// A map.
    Map,
    /// A read.
    Read,
    /// A cut.
    Truncate,
    /// Opening a file.
    Open,
    /// Listing a directory.
    List,
    /// Locking a directory.
    Lock,
    /// A new directory.
    MakeDir,
    /// A rename.
    Rename,
    /// A removal.
    Remove,
    /// A sync of a directory.
    SyncDir,
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Errno(i32),
    /// A store that keeps its first bytes.
    Short(usize),
    /// A sync that fails after some sectors have reached the medium, by this seed.
    InPart(u64),
    /// A defect in our own code.
    Panic,
}

/// An order for errors: see [`super::SimDisk::inject`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    call: Call,
    name: String,
    skip: u32,
    times: u32,
    how: How,
}

impl Fault {
    fn new(call: Call, how: How) -> Self {
        Self {
            call,
            name: String::new(),
            skip: 0,
            times: 1,
            how,
        }
    }

    /// An I/O error. A sync loses what was pending: the kernel believes the pages clean.
    pub fn io(call: Call) -> Self {
        Self::new(call, How::Errno(EIO))
    }

    /// No space left on the device.
    pub fn no_space(call: Call) -> Self {
        Self::new(call, How::Errno(ENOSPC))
    }

    /// A map without memory for it.
    pub fn no_memory() -> Self {
        Self::new(Call::Map, How::Errno(ENOMEM))
    }

    /// A store that ends in an I/O error behind its first `bytes`.
    pub fn short_store(bytes: usize) -> Self {
        Self::new(Call::Store, How::Short(bytes))
    }

    /// A sync that ends in an I/O error when some sectors have reached the medium.
    pub fn sync_in_part(seed: u64) -> Self {
        Self::new(Call::Sync, How::InPart(seed))
    }

    /// A panic of whoever calls, before anything is done.
    pub fn panic(call: Call) -> Self {
        Self::new(call, How::Panic)
    }

    /// Only calls on paths that contain `name`.
    #[must_use]
    pub fn on(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Not the first `count` such calls.
    #[must_use]
    pub fn after(mut self, count: u32) -> Self {
        self.skip = count;
        self
    }

    /// This many calls; once unless told otherwise.
    #[must_use]
    pub fn times(mut self, count: u32) -> Self {
        self.times = count;
        self
    }
}

/// What a call meets.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: io::Error,
    /// Bytes of a store that are kept.
    pub(super) kept: usize,
    /// Seed of what a failed sync brought to the medium; `None`: nothing.
    pub(super) in_part: Option<u64>,
}

/// Orders that are not used up.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    orders: Vec<Fault>,
    pub(super) fired: u64,
}

impl Faults {
    pub(super) fn add(&mut self, fault: Fault) {
        self.orders.push(fault);
    }

    /// Takes back the orders for a call on such names.
    pub(super) fn forget(&mut self, call: Call, name: &str) {
        self.orders.retain(|f| f.call != call || f.name != name);
    }

    pub(super) fn meet(&mut self, call: Call, path: Option<&Path>) -> Option<Failure> {
        if self.orders.is_empty() {
            return None;
        }
        let path = path.map(Path::to_string_lossy).unwrap_or_default();
        let mut how = None;
        for order in &mut self.orders {
            if order.call != call || !path.contains(&order.name) {
                continue;
            }
            if order.skip > 0 {
                order.skip -= 1;
            } else if how.is_none() {
                order.times = order.times.saturating_sub(1);
                how = Some(order.how);
            }
        }
        self.orders.retain(|order| order.times > 0);
        let how = how?;
        self.fired += 1;
        let (errno, kept, in_part) = match how {
            How::Errno(errno) => (errno, 0, None),
            How::Short(bytes) => (EIO, bytes, None),
            How::InPart(seed) => (EIO, 0, Some(seed)),
            How::Panic => panic!("simulated panic in {call:?}"),
        };
        Some(Failure {
            error: io::Error::from_raw_os_error(errno),
            kept,
            in_part,
        })
    }
}
