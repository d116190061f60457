//! Keys of the `null` sink.

use super::{Key, KeyType, Section, Table, common};

pub(super) static TABLE: Table = Table {
    section: Section::Sinks,
    alias: "null",
    class: "org.apache.flume.sink.NullSink",
    common: common::SINK,
    keys: &[
        Key::new(
            "batchSize",
            KeyType::Integer {
                min: 1,
                max: 1_000_000,
            },
            "most events taken at once",
        )
        .default("100")
        .unit("events"),
        Key::new(
            "logEveryNEvents",
            KeyType::Integer {
                min: 1,
                max: i64::MAX,
            },
            "log progress after so many events",
        )
        .default("10000")
        .unit("events"),
    ],
};
