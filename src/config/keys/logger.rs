//! Keys of the `logger` sink.

use super::{Key, KeyType, Section, Table, common};

pub(super) static TABLE: Table = Table {
    section: Section::Sinks,
    alias: "logger",
    class: "org.apache.flume.sink.LoggerSink",
    common: common::SINK,
    keys: &[Key::new(
        "maxBytesToLog",
        KeyType::Integer {
            min: 0,
            max: 1 << 20,
        },
        "most bytes of a body to show",
    )
    .default("16")
    .unit("bytes")],
};
