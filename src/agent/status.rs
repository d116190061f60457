//! `forebay status`: what is in a channel, asked of the running agent through a socket in the
//! channel's first data directory.
//!
//! *Place in the flow*: [`super::flow`] holds a [`StatusSocket`] while the channel is open; the
//! command connects, reads one JSON document and prints it. A socket and not a file, because a
//! file would have to be written every second onto the disk whose commits are to be fast, and
//! could not be written when that disk is full.
//!
//! *Invariant*: the socket lies beside the channel's lock and is only made by whoever holds the
//! lock; one that is left over from a killed agent refuses connections and is replaced.

use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use super::registry::ChannelEntry;

/// Name of the socket in the first data directory.
pub const SOCKET_NAME: &str = "status.sock";
/// How long a running agent may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Longest answer that is believed.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// What the command prints for one channel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelReport {
    /// Name from the configuration; empty where only a directory is known.
    pub channel: String,
    /// First data directory.
    pub directory: PathBuf,
    /// Whether an agent runs on it now.
    pub running: bool,
    /// Durable or committed events that no sink holds.
    pub waiting: u64,
    /// Events held by open leases.
    pub leased: u64,
    /// Events in epochs that are sealed and not yet published.
    pub sealed_unpublished: u64,
    /// Put transactions refused because the channel was full, since the channel was opened.
    pub refused: u64,
    /// Events lost to damage and not yet reported by a sink.
    pub corrupt: u64,
    /// Capacity in events; 0 where it is not known.
    pub capacity: u64,
    /// Next sequence number to be given.
    pub next_sequence: u64,
    /// Segments on disk, prepared ones included.
    pub segments: u64,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Why puts are held back right now.
    pub held_back: Option<String>,
    /// Why the channel is not usable right now.
    pub trouble: Option<String>,
}

impl ChannelReport {
    /// Of a running channel.
    fn of(entry: &ChannelEntry, directory: &Path) -> Self {
        let view = entry.view();
        let status = view.status;
        Self {
            channel: entry.name.clone(),
            directory: directory.to_owned(),
            running: true,
            waiting: status.waiting,
            leased: status.leased,
            sealed_unpublished: status.sealed_unpublished,
            refused: status.refused,
            corrupt: status.corrupt,
            capacity: status.capacity,
            next_sequence: status.next_sequence,
            segments: status.segments,
            disk_bytes: status.disk_bytes,
            held_back: status.held_back,
            trouble: view.trouble,
        }
    }

    /// Whether everything that was acknowledged has been published.
    pub fn is_drained(&self) -> bool {
        self.waiting == 0 && self.leased == 0 && self.sealed_unpublished == 0
    }
}

/// The agent's end: answers until it is dropped.
#[derive(Debug)]
pub struct StatusSocket {
    path: PathBuf,
    task: JoinHandle<()>,
}

/// A path to `name` in `dir` that is short however long the path of `dir` is: a socket's path
/// must fit into 107 bytes. Valid while the handle lives.
fn short_path(dir: &Path, name: &str) -> io::Result<(std::fs::File, PathBuf)> {
    let handle = std::fs::File::open(dir)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", handle.as_raw_fd()));
    Ok((handle, path))
}

impl StatusSocket {
    /// Starts to answer in `dir`. Only for the holder of the directory's lock.
    pub fn open(dir: &Path, entry: Arc<ChannelEntry>) -> io::Result<Self> {
        let path = dir.join(SOCKET_NAME);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let (_handle, short) = short_path(dir, SOCKET_NAME)?;
        let listener = UnixListener::bind(short)?;
        let task = tokio::spawn(answer_all(listener, entry, dir.to_owned()));
        Ok(Self { path, task })
    }
}

impl Drop for StatusSocket {
    fn drop(&mut self) {
        self.task.abort();
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, "status socket was already gone");
        }
    }
}

async fn answer_all(listener: UnixListener, entry: Arc<ChannelEntry>, dir: PathBuf) {
    loop {
        let mut stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // For example too many open files: wait for some to be closed.
                tracing::debug!(%error, "status socket");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let report = ChannelReport::of(&entry, &dir);
        let Ok(text) = serde_json::to_vec(&report) else {
            continue;
        };
        // An asker that does not read is not waited for.
        let written = tokio::time::timeout(ANSWER_WITHIN, stream.write_all(&text)).await;
        if !matches!(written, Ok(Ok(()))) {
            tracing::debug!("nobody read the status that was asked for");
        }
    }
}

/// Asks the agent that runs on `dir`. `None`: no agent runs there.
///
/// # Errors
/// The directory cannot be read, or something other than an agent answers; nothing was changed.
pub async fn ask(dir: &Path) -> io::Result<Option<ChannelReport>> {
    let (_handle, short) = short_path(dir, SOCKET_NAME)?;
    let stream = match UnixStream::connect(short).await {
        Ok(stream) => stream,
        Err(error) => {
            return match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
                _ => Err(error),
            };
        }
    };
    let mut text = Vec::new();
    let mut answer = stream.take(ANSWER_BYTES_MAX);
    tokio::time::timeout(ANSWER_WITHIN, answer.read_to_end(&mut text))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the agent does not answer"))??;
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_running_agent_answers_and_a_stopped_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        // Longer than a socket's path may be.
        let deep = dir.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        assert_eq!(ask(&deep).await.unwrap(), None);
        let entry = ChannelEntry::new("c1", "file");
        let socket = StatusSocket::open(&deep, Arc::clone(&entry)).unwrap();
        let report = ask(&deep).await.unwrap().unwrap();
        assert_eq!(
            (report.channel.as_str(), report.running, report.waiting),
            ("c1", true, 0)
        );
        drop(socket);
        assert_eq!(ask(&deep).await.unwrap(), None);
        assert!(!deep.join(SOCKET_NAME).exists());
    }

    #[tokio::test]
    async fn a_socket_left_by_a_killed_agent_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let left = std::os::unix::net::UnixListener::bind(dir.path().join(SOCKET_NAME)).unwrap();
        drop(left);
        assert_eq!(ask(dir.path()).await.unwrap(), None);
        let socket = StatusSocket::open(dir.path(), ChannelEntry::new("c1", "file")).unwrap();
        assert!(ask(dir.path()).await.unwrap().is_some());
        drop(socket);
    }
}
