//! Keys of the `memory` channel.

use super::{Key, KeyType, Section, Table, common};

pub(super) static TABLE: Table = Table {
    section: Section::Channels,
    alias: "memory",
    class: "org.apache.flume.channel.MemoryChannel",
    common: common::CHANNEL,
    keys: &[
        Key::new(
            "capacity",
            KeyType::Positive,
            "most events waiting or in an open batch",
        )
        .default("100")
        .unit("events"),
        Key::new(
            "transactionCapacity",
            KeyType::Positive,
            "most events in one transaction",
        )
        .default("100")
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
            "byteCapacity",
            KeyType::Integer {
                min: 0,
                max: i64::MAX,
            },
            "most bytes of events; 0 is no bound",
        )
        .differs("67108864", "80 % of the JVM's heap")
        .unit("bytes"),
        Key::new(
            "byteCapacityBufferPercentage",
            KeyType::Integer { min: 0, max: 99 },
            "share of byteCapacity set aside for headers",
        )
        .default("20")
        .unit("%"),
    ],
};
