//! Keys of the `file` channel.

use super::{Key, KeyType, Section, Table, common};

const SNAPSHOTS: &str =
    "there is no checkpoint: every segment begins with a snapshot, and opening reads one segment";
const ENCRYPTION: &str = "encryption of the log is not supported yet";

pub(super) static TABLE: Table = Table {
    section: Section::Channels,
    alias: "file",
    class: "org.apache.flume.channel.file.FileChannel",
    common: common::CHANNEL,
    keys: &[
        Key::new(
            "dataDirs",
            KeyType::PathList,
            "directories of the log; segments go round",
        )
        .default("~/.flume/file-channel/data"),
        Key::new(
            "capacity",
            KeyType::Positive,
            "most events waiting or in an open batch",
        )
        .default("1000000")
        .unit("events"),
        Key::new(
            "transactionCapacity",
            KeyType::Positive,
            "most events in one transaction",
        )
        .default("10000")
        .unit("events"),
        Key::new(
            "keep-alive",
            KeyType::Integer {
                min: 0,
                max: 86_400,
            },
            "how long a put waits for room",
        )
        .default("3")
        .unit("s"),
        Key::new(
            "maxFileSize",
            KeyType::Integer {
                min: 1 << 20,
                max: i64::MAX,
            },
            "size of a segment; more than 128 MiB is lowered to it",
        )
        .differs("67108864", "1623195647")
        .unit("bytes"),
        Key::new(
            "minimumRequiredSpace",
            KeyType::Integer {
                min: 0,
                max: i64::MAX,
            },
            "free space to leave on the disk; less than 1 MiB is raised to it",
        )
        .default("524288000")
        .unit("bytes"),
        Key::new(
            "fsyncPerTransaction",
            KeyType::Boolean,
            "`false` is syncMode=interval",
        )
        .default("true"),
        Key::new(
            "fsyncInterval",
            KeyType::Integer {
                min: 1,
                max: 86_400,
            },
            "time between two syncs in syncMode=interval",
        )
        .default("5")
        .unit("s"),
        Key::new(
            "syncMode",
            KeyType::Choice(&["commit", "interval", "os"]),
            "when a commit is durable: at once, after fsyncInterval, when the system likes",
        )
        .default("commit")
        .ours(),
        Key::new(
            "writeBackend",
            KeyType::Choice(&["pwrite", "map"]),
            "expert: how frames reach the page cache",
        )
        .default("pwrite")
        .ours(),
        Key::new(
            "checkpointDir",
            KeyType::Path,
            "directory of the checkpoint",
        )
        .default("~/.flume/file-channel/checkpoint")
        .no_effect(SNAPSHOTS),
        Key::new(
            "useDualCheckpoints",
            KeyType::Boolean,
            "keep a second checkpoint",
        )
        .default("false")
        .no_effect(SNAPSHOTS),
        Key::new(
            "backupCheckpointDir",
            KeyType::Path,
            "directory of the second checkpoint",
        )
        .no_effect(SNAPSHOTS),
        Key::new(
            "compressBackupCheckpoint",
            KeyType::Boolean,
            "compress the second checkpoint",
        )
        .default("false")
        .no_effect(SNAPSHOTS),
        Key::new(
            "checkpointInterval",
            KeyType::Positive,
            "time between two checkpoints",
        )
        .default("30000")
        .unit("ms")
        .no_effect(SNAPSHOTS),
        Key::new(
            "checkpointOnClose",
            KeyType::Boolean,
            "checkpoint at a clean stop",
        )
        .default("true")
        .no_effect(SNAPSHOTS),
        Key::new("use-log-replay-v1", KeyType::Boolean, "older replay")
            .default("false")
            .no_effect(SNAPSHOTS),
        Key::new(
            "use-fast-replay",
            KeyType::Boolean,
            "replay without the queue",
        )
        .default("false")
        .no_effect(SNAPSHOTS),
        Key::new("encryption.activeKey", KeyType::Text, "key for new files").refused(ENCRYPTION),
        Key::new("encryption.cipherProvider", KeyType::Text, "cipher").refused(ENCRYPTION),
        Key::new(
            "encryption.keyProvider",
            KeyType::Text,
            "where keys come from",
        )
        .refused(ENCRYPTION),
        Key::new(
            "encryption.keyProvider.*",
            KeyType::Text,
            "settings of the key provider",
        )
        .refused(ENCRYPTION),
    ],
};
