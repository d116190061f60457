//! Keys of the `netcat` source.

use super::{Key, KeyType, Section, Table, common};

pub(super) static TABLE: Table = Table {
    section: Section::Sources,
    alias: "netcat",
    class: "org.apache.flume.source.NetcatSource",
    common: common::SOURCE,
    keys: &[
        Key::new("bind", KeyType::Text, "host name or address to listen on").required(),
        Key::new(
            "port",
            KeyType::Integer {
                min: 0,
                max: 65_535,
            },
            "port; 0 lets the system choose",
        )
        .required(),
        Key::new(
            "max-line-length",
            KeyType::Integer {
                min: 1,
                max: 16 << 20,
            },
            "longest line with its line end; counted as Java does, in UTF-16 units",
        )
        .default("512")
        .unit("characters"),
        Key::new(
            "ack-every-event",
            KeyType::Boolean,
            "answer `OK` when a line is durable",
        )
        .default("true"),
        Key::new(
            "encoding",
            KeyType::Choice(&["utf-8", "utf8", "us-ascii", "ascii"]),
            "character set of the lines",
        )
        .default("utf-8"),
    ],
};
