//! Every counter of the agent, in one table: field, Flume's name, unit and help.
//!
//! *Place in the flow*: sources and sinks hold an `Arc` of their counters and add to them;
//! [`super::metrics`] prints them under Flume's names and under Prometheus names. What a channel
//! counts stands in its [`ChannelStatus`] and is only named here.
//!
//! *Invariant*: a counter that is not in the table cannot exist, because the table makes the
//! field. Counters only grow while the process lives; a component that is started again goes on
//! from where it was.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::channel::ChannelStatus;
use crate::env::clock::Clock;

/// A number that sources and sinks add to from any thread.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Takes one off: only for numbers of things that are open.
    pub fn decrement(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// Replaces the value: only for points in time and for numbers counted elsewhere.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The present value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Described {
    /// Name in Flume's JSON.
    pub flume: &'static str,
    /// Name of the field, which is also the middle of the Prometheus name.
    pub field: &'static str,
    /// What is counted: `events`, `batches`, `connections`, `milliseconds`, `percent`, ...
    pub unit: &'static str,
    /// Whether the number can fall.
    pub gauge: bool,
    /// One sentence for operators.
    pub help: &'static str,
}

macro_rules! counters {
    ($(#[$doc:meta])* $name:ident { $($field:ident $kind:ident $flume:literal $unit:literal
        $help:literal;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        pub struct $name { $(#[doc = $help] pub $field: Counter,)* }

        impl $name {
            /// The rows of the table, in the order of the fields.
            pub const TABLE: &'static [Described] = &[$(Described {
                flume: $flume,
                field: stringify!($field),
                unit: $unit,
                gauge: counters!(@$kind),
                help: $help,
            },)*];

            /// The present values, row by row.
            pub fn values(&self) -> Vec<(Described, u64)> {
                let values = [$(self.$field.get(),)*];
                Self::TABLE.iter().copied().zip(values).collect()
            }

            /// Notes that the component runs from now on.
            pub fn started(&self, clock: &dyn Clock) {
                self.start_time.set(clock.wall_ms());
                self.stop_time.set(0);
            }

            /// Notes that the component has stopped.
            pub fn stopped(&self, clock: &dyn Clock) {
                self.stop_time.set(clock.wall_ms());
            }
        }
    };
    (@gauge) => { true };
    (@count) => { false };
}

counters! {
    /// What a source counts.
    SourceCounters {
        events_received count "EventReceivedCount" "events"
            "Events read from outside, whether or not they reached the channel.";
        events_accepted count "EventAcceptedCount" "events"
            "Events that the channel has acknowledged.";
        appends_received count "AppendReceivedCount" "requests"
            "Requests that carry one event.";
        appends_accepted count "AppendAcceptedCount" "requests"
            "Requests with one event that were answered with success.";
        batches_received count "AppendBatchReceivedCount" "batches"
            "Batches offered to the channel.";
        batches_accepted count "AppendBatchAcceptedCount" "batches"
            "Batches that the channel has acknowledged.";
        open_connections gauge "OpenConnectionCount" "connections"
            "Connections that are open now.";
        channel_write_fails count "ChannelWriteFail" "batches"
            "Batches that the channel refused or could not acknowledge; they are tried again.";
        event_read_fails count "EventReadFail" "errors"
            "Errors while reading from outside.";
        processing_fails count "GenericProcessingFail" "errors"
            "Other errors; the log names each.";
        start_time gauge "StartTime" "milliseconds"
            "When the component was last started, since the Unix epoch; 0 if never.";
        stop_time gauge "StopTime" "milliseconds"
            "When the component stopped, since the Unix epoch; 0 while it runs.";
    }
}

counters! {
    /// What a sink counts.
    SinkCounters {
        connections_created count "ConnectionCreatedCount" "files"
            "Files or connections opened for writing.";
        connections_closed count "ConnectionClosedCount" "files"
            "Files or connections closed in good order.";
        connections_failed count "ConnectionFailedCount" "files"
            "Files or connections that could not be opened or closed; they are tried again.";
        batches_empty count "BatchEmptyCount" "batches"
            "Takes that brought nothing.";
        batches_underflow count "BatchUnderflowCount" "batches"
            "Takes that brought less than a full batch.";
        batches_complete count "BatchCompleteCount" "batches"
            "Takes that brought a full batch.";
        drain_attempts count "EventDrainAttemptCount" "events"
            "Events taken in order to write them out; a repeated attempt counts again.";
        drain_successes count "EventDrainSuccessCount" "events"
            "Events that left the channel for good: published, or written where nothing publishes.";
        channel_read_fails count "ChannelReadFail" "errors"
            "Takes that failed.";
        event_write_fails count "EventWriteFail" "errors"
            "Attempts to write that failed; their events are written again.";
        epochs_sealed count "EpochSealedCount" "epochs"
            "Epochs sealed since the agent started.";
        files_published count "FilePublishedCount" "files"
            "Files that became visible under their final names since the agent started.";
        start_time gauge "StartTime" "milliseconds"
            "When the component was last started, since the Unix epoch; 0 if never.";
        stop_time gauge "StopTime" "milliseconds"
            "When the component stopped, since the Unix epoch; 0 while it runs.";
    }
}

/// A row of [`CHANNEL_TABLE`].
type ChannelRow = (Described, fn(&ChannelStatus) -> u64);

const fn channel_row(
    flume: &'static str,
    field: &'static str,
    gauge: bool,
    help: &'static str,
    value: fn(&ChannelStatus) -> u64,
) -> ChannelRow {
    (
        Described {
            flume,
            field,
            unit: "events",
            gauge,
            help,
        },
        value,
    )
}

/// What a channel's status shows as counters, and where each number comes from.
pub const CHANNEL_TABLE: &[ChannelRow] = &[
    channel_row(
        "ChannelSize",
        "size",
        true,
        "Events that no sink has taken.",
        |s| s.waiting,
    ),
    channel_row(
        "ChannelCapacity",
        "capacity",
        true,
        "Events that fit.",
        |s| s.capacity,
    ),
    channel_row(
        "EventPutAttemptCount",
        "put_attempts",
        false,
        "Events that sources tried to put since the channel was opened.",
        |s| s.put_attempts,
    ),
    channel_row(
        "EventPutSuccessCount",
        "puts",
        false,
        "Events that were put since the channel was opened.",
        |s| s.put_events,
    ),
    channel_row(
        "EventTakeAttemptCount",
        "take_attempts",
        false,
        "Takes that sinks tried since the channel was opened.",
        |s| s.take_attempts,
    ),
    channel_row(
        "EventTakeSuccessCount",
        "takes",
        false,
        "Events acknowledged by sinks since the channel was opened.",
        |s| s.take_events,
    ),
    channel_row(
        "WaitingCount",
        "waiting",
        true,
        "Events that no sink holds.",
        |s| s.waiting,
    ),
    channel_row(
        "LeasedCount",
        "leased",
        true,
        "Events held by sinks.",
        |s| s.leased,
    ),
    channel_row(
        "SealedUnpublishedCount",
        "sealed_unpublished",
        true,
        "Events in epochs that are sealed and not yet published.",
        |s| s.sealed_unpublished,
    ),
    (
        Described {
            flume: "RefusedPutCount",
            field: "refused",
            unit: "transactions",
            gauge: false,
            help: "Put transactions refused because the channel was full.",
        },
        |s| s.refused,
    ),
    channel_row(
        "CorruptCount",
        "corrupt",
        true,
        "Events lost to damage and not yet reported by a sink.",
        |s| s.corrupt,
    ),
    (
        Described {
            flume: "SegmentCount",
            field: "segments",
            unit: "segments",
            gauge: true,
            help: "Log segments on disk, prepared ones included.",
        },
        |s| s.segments,
    ),
    (
        Described {
            flume: "DiskBytes",
            field: "disk",
            unit: "bytes",
            gauge: true,
            help: "Bytes that the log takes on disk.",
        },
        |s| s.disk_bytes,
    ),
];

/// Flume's `ChannelFillPercentage`: how much of the capacity is in use, 0 to 100.
pub fn fill_percentage(status: &ChannelStatus) -> f64 {
    if status.capacity == 0 {
        return 0.0;
    }
    // Exact below 2^53 events, far beyond any capacity.
    let (size, capacity) = (precise(status.waiting), precise(status.capacity));
    size / capacity * 100.0
}

fn precise(n: u64) -> f64 {
    let high = u32::try_from(n >> 32).unwrap_or(u32::MAX);
    let low = u32::try_from(n & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    f64::from(high) * 4_294_967_296.0 + f64::from(low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_counter_has_its_own_names_and_help() {
        let channel: Vec<Described> = CHANNEL_TABLE.iter().map(|(row, _)| *row).collect();
        for table in [SourceCounters::TABLE, SinkCounters::TABLE, &channel] {
            let names: BTreeSet<_> = table.iter().map(|row| row.flume).collect();
            let fields: BTreeSet<_> = table.iter().map(|row| row.field).collect();
            assert_eq!((names.len(), fields.len()), (table.len(), table.len()));
            assert!(
                table
                    .iter()
                    .all(|row| row.help.ends_with('.') && !row.unit.is_empty())
            );
        }
    }

    #[test]
    fn values_stand_in_the_row_of_their_field() {
        let counters = SinkCounters::default();
        counters.drain_successes.add(7);
        let row = counters
            .values()
            .into_iter()
            .find(|(row, _)| row.field == "drain_successes");
        assert_eq!(
            row.map(|(row, n)| (row.flume, n)),
            Some(("EventDrainSuccessCount", 7))
        );
    }

    #[test]
    fn fill_is_a_percentage_of_the_capacity() {
        let status = ChannelStatus {
            waiting: 2,
            leased: 1,
            capacity: 8,
            ..ChannelStatus::default()
        };
        assert!((fill_percentage(&status) - 25.0).abs() < f64::EPSILON);
        assert!(fill_percentage(&ChannelStatus::default()).abs() < f64::EPSILON);
    }
}
