//! The epoch journal: the part of a channel that a staged publisher talks to.
//!
//! The file channel keeps it in the log, the memory channel only in memory. Records move
//! SEALED -> CLAIMED -> DONE; each call returns when its record is durable.

use async_trait::async_trait;

use super::ChannelError;
use crate::event::{Seq, SeqRange};

/// One output file of an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochPart {
    /// Name of the closed file inside the attempt directory's `parts/`.
    pub staged_name: String,
    /// Absolute path in the store under which it will be published.
    pub final_path: String,
    /// Events in the part.
    pub count: u64,
    /// Bytes of the closed file.
    pub length: u64,
    /// CRC-32 of the file's bytes.
    pub crc32: u32,
}

/// What a sink hands over at SEAL. From here the epoch belongs to the resolver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealRequest {
    /// Last sequence number of the epoch; the first is the first one held by the lease.
    pub last: Seq,
    /// Name of the sink, a label only.
    pub sink: String,
    /// URI of the store, `hdfs://nn:8020`, `hdfs://nameservice` or `file://`.
    pub store: String,
    /// Directory of the sink's staging, absolute in the store.
    pub base: String,
    /// Attempt directory, absolute: `<base>/_staging/<chan>/i<inc>/a<attempt>`.
    pub attempt: String,
    /// Parts with `{epoch}` not yet in their final names: the journal replaces the token
    /// [`EPOCH_TOKEN`] in each final path by the 16-digit epoch number.
    pub parts: Vec<EpochPart>,
}

/// Stands in a final path of a [`SealRequest`] where the epoch number belongs, because the number
/// is only known at SEAL.
pub const EPOCH_TOKEN: &str = "{epoch}";

/// A sealed epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochRecord {
    /// Dense number, per channel, given at SEAL.
    pub epoch: u64,
    /// The run of events it publishes.
    pub range: SeqRange,
    /// Sink that made it.
    pub sink: String,
    /// URI of the store.
    pub store: String,
    /// Directory of the sink's staging.
    pub base: String,
    /// Attempt directory.
    pub attempt: String,
    /// Parts with complete final paths.
    pub parts: Vec<EpochPart>,
    /// Whether CLAIMED is durable.
    pub claimed: bool,
}

/// One open of the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incarnation {
    /// Counts the opens of the channel, from 1.
    pub number: u32,
    /// Random, to tell a clone's incarnation of the same number from ours.
    pub nonce: u64,
}

/// One open of the channel, and the next sequence number at that moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Which open.
    pub incarnation: Incarnation,
    /// The number of the first event that this incarnation could accept.
    pub next: Seq,
}

/// A store has refused this log, because another copy of it has published since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What gave the other copy away, a path in the store.
    pub by: String,
    /// From here on the events of this log are not those of the other copy.
    pub first: Seq,
}

/// The journal of one channel.
#[async_trait]
pub trait EpochJournal: Send + Sync {
    /// First 12 hexadecimal digits of the channel's id.
    fn channel_id(&self) -> String;
    /// The incarnation that is running.
    fn incarnation(&self) -> Incarnation;
    /// Whether this log wrote the nonce (now or in an earlier incarnation).
    fn knows(&self, incarnation: Incarnation) -> bool;
    /// Incarnations before the running one since the last recorded fence, ascending.
    fn unfenced(&self) -> Vec<u32>;
    /// Records that every incarnation up to `through` is fenced.
    async fn fenced(&self, through: u32) -> Result<(), ChannelError>;
    /// Next sequence number that the channel will give.
    fn next_sequence(&self) -> Seq;
    /// Next epoch number that the channel will give.
    fn next_epoch(&self) -> u64;
    /// Sealed epochs that are not done, by number.
    fn open_epochs(&self) -> Vec<EpochRecord>;
    /// Records that the claim rename of `epoch` has succeeded.
    async fn claimed(&self, epoch: u64) -> Result<(), ChannelError>;
    /// Records that `epoch` is published; acknowledges its range.
    async fn done(&self, epoch: u64) -> Result<(), ChannelError>;
    /// Gives up `epoch` and returns its range to the head (`forebay resolve --again`).
    async fn abandon(&self, epoch: u64) -> Result<(), ChannelError>;
    /// Whether damage may hide a control record, so that the store may rightly know more than
    /// this log: staged sinks must halt with a report.
    fn control_may_be_lost(&self) -> bool;
    /// Whether the directory is not the one in which this log was last found to be the owner
    /// (moved, copied, restored), or a store has refused the log before: sources must wait for
    /// the store's verdict.
    fn directory_changed(&self) -> bool;
    /// The opens since the last recorded fence, ascending; the running one is the last.
    fn openings(&self) -> Vec<Opening> {
        vec![Opening {
            incarnation: self.incarnation(),
            next: self.next_sequence(),
        }]
    }
    /// Every store has said that this log is the owner of its channel: the directory is its place
    /// from now on, an earlier refusal is forgotten.
    async fn owned(&self) -> Result<(), ChannelError> {
        Ok(())
    }
    /// Records that a store has refused this log; durable on `Ok`.
    async fn refuse(&self, refusal: Refusal) -> Result<(), ChannelError> {
        let _forgotten = refusal;
        Ok(())
    }
    /// A recorded refusal in words: which events are only here as of now, and what to type.
    fn refusal(&self) -> Option<String> {
        None
    }
    /// False for a journal that forgets at a crash: staging is emptied at start.
    fn is_durable(&self) -> bool;
}
