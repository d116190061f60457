//! Keys of the `TAILDIR` source.

use super::{Key, KeyType, Section, Table, common};

const MILLISECONDS_MAX: i64 = i32::MAX as i64;

pub(super) static TABLE: Table = Table {
    section: Section::Sources,
    alias: "TAILDIR",
    class: "org.apache.flume.source.taildir.TaildirSource",
    common: common::SOURCE,
    keys: &[
        Key::new("filegroups", KeyType::NameList, "names of the file groups").required(),
        Key::new(
            "filegroups.*",
            KeyType::Path,
            "directory, and a pattern for the file name",
        ),
        Key::new(
            "headers.*.*",
            KeyType::Text,
            "a header for all events of a file group",
        ),
        Key::new(
            "positionFile",
            KeyType::Path,
            "read once, by a channel without positions of its own",
        )
        .default("~/.flume/taildir_position.json"),
        Key::new(
            "batchSize",
            KeyType::Integer {
                min: 1,
                max: 1_000_000,
            },
            "most lines in one transaction",
        )
        .default("100")
        .unit("events"),
        Key::new(
            "skipToEnd",
            KeyType::Boolean,
            "start unknown files at their end",
        )
        .default("false"),
        Key::new(
            "idleTimeout",
            KeyType::Integer {
                min: 0,
                max: MILLISECONDS_MAX,
            },
            "close a file that has not grown for so long",
        )
        .default("120000")
        .unit("ms"),
        Key::new(
            "writePosInterval",
            KeyType::Integer {
                min: 0,
                max: MILLISECONDS_MAX,
            },
            "how often the position file is written",
        )
        .default("3000")
        .unit("ms")
        .no_effect("positions are stored in the channel together with the events"),
        Key::new(
            "byteOffsetHeader",
            KeyType::Boolean,
            "add the header `byteoffset`",
        )
        .default("false"),
        Key::new(
            "cachePatternMatching",
            KeyType::Boolean,
            "list directories only after they changed",
        )
        .default("true")
        .no_effect("every scan lists the directories, so that no file is seen late"),
        Key::new(
            "fileHeader",
            KeyType::Boolean,
            "add a header with the path of the file",
        )
        .default("false"),
        Key::new("fileHeaderKey", KeyType::Text, "name of that header").default("file"),
        Key::new(
            "maxBatchCount",
            KeyType::Positive,
            "most batches from one file before the next has its turn",
        )
        .default("9223372036854775807")
        .unit("batches"),
        Key::new(
            "backoffSleepIncrement",
            KeyType::Integer {
                min: 0,
                max: MILLISECONDS_MAX,
            },
            "how much longer to wait after each scan without a new line",
        )
        .default("1000")
        .unit("ms"),
        Key::new(
            "maxBackoffSleep",
            KeyType::Integer {
                min: 0,
                max: MILLISECONDS_MAX,
            },
            "longest wait between two scans",
        )
        .default("5000")
        .unit("ms"),
        Key::new(
            "maxLineLength",
            KeyType::Integer {
                min: 1,
                max: 16 << 20,
            },
            "longest line without its line end; a longer one is reported, counted and passed over",
        )
        .default("1048576")
        .unit("bytes")
        .ours(),
    ],
};
