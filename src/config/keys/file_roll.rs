//! Keys of the `file_roll` sink.

use super::{Key, KeyType, Section, Table, common};

pub(super) static TABLE: Table = Table {
    section: Section::Sinks,
    alias: "file_roll",
    class: "org.apache.flume.sink.RollingFileSink",
    common: common::SINK,
    keys: &[
        Key::new(
            "sink.directory",
            KeyType::Path,
            "directory of the files; made where it is missing",
        )
        .required(),
        Key::new(
            "sink.rollInterval",
            KeyType::Integer {
                min: i64::MIN,
                max: i32::MAX as i64,
            },
            "publish after so long; 0 or less: at stop, or when the channel needs room",
        )
        .default("30")
        .unit("s"),
        Key::new(
            "sink.batchSize",
            KeyType::Integer {
                min: 1,
                max: 1_000_000,
            },
            "most events taken at once",
        )
        .default("100")
        .unit("events"),
        Key::new(
            "sink.serializer",
            KeyType::Choice(&["TEXT"]),
            "how an event becomes bytes",
        )
        .default("TEXT"),
        Key::new(
            "sink.serializer.appendNewline",
            KeyType::Boolean,
            "end every event with a newline",
        )
        .default("true"),
        Key::new(
            "sink.serializer.*",
            KeyType::Text,
            "settings of other serializers",
        )
        .no_effect("TEXT does not read it"),
        Key::new("sink.pathManager", KeyType::Text, "how files are named")
            .default("DEFAULT")
            .no_effect("names carry channel and sequence numbers, so that they can be audited"),
        Key::new(
            "sink.pathManager.prefix",
            KeyType::Text,
            "how file names begin",
        )
        .differs("FlumeData", "empty"),
        Key::new(
            "sink.pathManager.extension",
            KeyType::Text,
            "extension of the files, without the dot",
        ),
    ],
};
