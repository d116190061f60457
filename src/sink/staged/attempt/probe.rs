//! Probes, and what is left of an attempt that was given up.

use crate::sink::staged::names::MAX_NAME;
use crate::sink::staged::startup::delete_surely;
use crate::sink::staged::store::{FileStore, StoreError};

/// What is left of something that was given up.
#[derive(Debug, Clone)]
pub(in crate::sink::staged) struct Remains {
    /// A directory, with all in it.
    pub(in crate::sink::staged) dir: String,
    /// Probes that may lie in target directories, each with the name it came from.
    pub(in crate::sink::staged) probes: Vec<(String, String)>,
}

impl Remains {
    /// A directory alone.
    pub(in crate::sink::staged) fn of(dir: String) -> Self {
        Self {
            dir,
            probes: Vec::new(),
        }
    }

    /// Deletes it. The directory goes last, because its marks are what leads to the probes.
    pub(in crate::sink::staged) async fn remove(
        &self,
        store: &dyn FileStore,
    ) -> Result<(), StoreError> {
        for (from, to) in &self.probes {
            remove_probe(store, from, to).await?;
        }
        store.delete(&self.dir, true).await.map(|_gone| ())
    }
}

/// Removes a probe for good: first the name it came from, so that no late rename brings it back.
pub(in crate::sink::staged) async fn remove_probe(
    store: &dyn FileStore,
    from: &str,
    to: &str,
) -> Result<(), StoreError> {
    for path in [from, to] {
        match delete_surely(store, path).await {
            // Where there is no directory there is no probe.
            Ok(()) | Err(StoreError::ParentNotFound(_) | StoreError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Name of a probe in its attempt directory.
pub(super) fn probe_name(identity: &str, number: u32) -> String {
    format!("probe-{identity}-{number}")
}

/// Name of the mark that says into which directory a probe goes; `None` where it is too long.
pub(super) fn probe_mark(number: u32, dir: &str) -> Option<String> {
    let encoded = dir.replace('%', "%25").replace('/', "%2F");
    let mark = format!("probed-{number}-{encoded}");
    (mark.len() <= MAX_NAME).then_some(mark)
}

/// The probe that an attempt directory `i<inc>/a<attempt>-<nonce>` with this mark may have left:
/// its name in the attempt directory, and its path in the target.
pub(in crate::sink::staged) fn left_probe(
    incarnation: u32,
    attempt: &str,
    mark: &str,
) -> Option<(String, String)> {
    let (number, nonce) = attempt.strip_prefix('a')?.split_once('-')?;
    let (probe, dir) = mark.strip_prefix("probed-")?.split_once('-')?;
    let dir = dir.replace("%2F", "/").replace("%25", "%");
    let identity = format!("i{incarnation}-{nonce}-a{number}");
    let name = probe_name(&identity, probe.parse().ok()?);
    Some((name.clone(), format!("{dir}/_{name}")))
}
