//! Keys that every component of a section has.

use super::{Key, KeyType};

pub(super) const SOURCE: &[Key] = &[
    Key::new("type", KeyType::Text, "alias or class of the source").required(),
    Key::new("channels", KeyType::NameList, "the channel it puts into").required(),
    Key::new(
        "selector.type",
        KeyType::Choice(&["replicating"]),
        "how events choose channels",
    )
    .default("replicating"),
    Key::new(
        "selector.optional",
        KeyType::NameList,
        "channels whose failure does not matter",
    )
    .refused("a source puts into exactly one channel for now"),
    Key::new(
        "selector.*",
        KeyType::Text,
        "settings of the multiplexing selector",
    )
    .no_effect("only the multiplexing selector reads it"),
    Key::new(
        "interceptors",
        KeyType::NameList,
        "changes to events before the channel",
    )
    .refused("interceptors are not supported yet"),
    Key::new(
        "interceptors.*",
        KeyType::Text,
        "settings of the interceptors",
    )
    .no_effect("nothing reads it unless `interceptors` lists the name"),
];

pub(super) const CHANNEL: &[Key] =
    &[Key::new("type", KeyType::Text, "alias or class of the channel").required()];

pub(super) const SINK: &[Key] = &[
    Key::new("type", KeyType::Text, "alias or class of the sink").required(),
    Key::new("channel", KeyType::Text, "the channel it takes from").required(),
];
