//! Metrics over HTTP: Flume's JSON, Prometheus text, health and readiness.
//!
//! *Place in the flow*: reads the [`Registry`]; started by `-Dflume.monitoring.type=http`.
//! Listens on loopback unless `-Dflume.monitoring.host` says otherwise, because the numbers and
//! names are nobody else's business.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | Flume's JSON: `{"CHANNEL.c1":{"ChannelSize":"0",..},..}`, all values strings |
//! | `/metrics/prometheus` | the same numbers as Prometheus text |
//! | `/healthz` | 200 while the process runs |
//! | `/readyz` | 200 when every channel is open and every component runs, else 503 and why |

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Map, Value};

use super::counters::{CHANNEL_TABLE, Described, fill_percentage};
use super::registry::{Counters, Entry, Registry};
use crate::source::Shutdown;

/// Serves until `stop`; an error means that the address cannot be used now.
pub async fn serve(
    address: SocketAddr,
    registry: Arc<Registry>,
    shutdown: Shutdown,
) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::bind(address).await?;
    tracing::info!(address = %listener.local_addr()?, "metrics over http");
    axum::serve(listener, router(registry))
        .with_graceful_shutdown(async move { shutdown.wait().await })
        .await
}

fn router(registry: Arc<Registry>) -> Router {
    Router::new()
        .route("/metrics", get(flume))
        .route("/metrics/prometheus", get(prometheus))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readiness))
        .fallback(async || {
            (
                StatusCode::NOT_FOUND,
                "ask for /metrics, /metrics/prometheus, /healthz, /readyz\n",
            )
        })
        .with_state(registry)
}

async fn flume(Shared(registry): Shared<Arc<Registry>>) -> Response {
    let body = flume_json(&registry).to_string();
    (
        [(header::CONTENT_TYPE, "application/json;charset=utf-8")],
        body,
    )
        .into_response()
}

async fn prometheus(Shared(registry): Shared<Arc<Registry>>) -> Response {
    let body = prometheus_text(&registry);
    (
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        body,
    )
        .into_response()
}

async fn readiness(Shared(registry): Shared<Arc<Registry>>) -> Response {
    let reasons = registry.not_ready();
    if reasons.is_empty() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n").into_response()
}

fn values(entry: &Entry) -> (&'static str, Vec<(Described, u64)>) {
    match &entry.counters {
        Counters::Source(counters) => ("SOURCE", counters.values()),
        Counters::Sink(counters) => ("SINK", counters.values()),
        Counters::None => ("OTHER", Vec::new()),
    }
}

/// Flume's JSON. Every value is a string, as Flume prints them.
fn flume_json(registry: &Registry) -> Value {
    let text = |value: u64| Value::String(value.to_string());
    let mut all = Map::new();
    for channel in &registry.channels {
        let view = channel.view();
        let mut group = Map::new();
        for (row, value) in CHANNEL_TABLE {
            group.insert(row.flume.to_owned(), text(value(&view.status)));
        }
        let fill = format!("{:?}", fill_percentage(&view.status));
        group.insert("ChannelFillPercentage".to_owned(), Value::String(fill));
        group.insert("StartTime".to_owned(), text(view.opened_ms));
        group.insert("StopTime".to_owned(), text(view.closed_ms));
        group.insert("Type".to_owned(), Value::String("CHANNEL".to_owned()));
        group.insert("Open".to_owned(), Value::String(view.open.to_string()));
        all.insert(format!("CHANNEL.{}", channel.name), Value::Object(group));
    }
    for entry in registry.sources.iter().chain(&registry.sinks) {
        let (role, values) = values(entry);
        let mut group = Map::new();
        for (row, value) in values {
            group.insert(row.flume.to_owned(), text(value));
        }
        group.insert("Type".to_owned(), Value::String(role.to_owned()));
        all.insert(format!("{role}.{}", entry.name), Value::Object(group));
    }
    Value::Object(all)
}

/// One sample of a family.
struct Sample {
    component: String,
    value: String,
}

/// A family: its row, the role it belongs to, and its samples.
struct Family {
    role: &'static str,
    row: Described,
    samples: Vec<Sample>,
}

fn prometheus_text(registry: &Registry) -> String {
    let mut text = String::new();
    for family in families(registry) {
        let name = prometheus_name(family.role, &family.row);
        let kind = if family.row.gauge { "gauge" } else { "counter" };
        // Writing to a String cannot fail.
        let _infallible = writeln!(text, "# HELP {name} {}", family.row.help);
        let _infallible = writeln!(text, "# TYPE {name} {kind}");
        for sample in family.samples {
            let (role, component, value) =
                (family.role, escape_label(&sample.component), sample.value);
            let _infallible = writeln!(text, "{name}{{{role}=\"{component}\"}} {value}");
        }
    }
    text
}

fn families(registry: &Registry) -> Vec<Family> {
    let mut families = channel_families(registry);
    for (role, entries) in [("source", &registry.sources), ("sink", &registry.sinks)] {
        let mut of_role: Vec<Family> = Vec::new();
        for entry in entries {
            for (row, value) in values(entry).1 {
                let sample = Sample {
                    component: entry.name.clone(),
                    value: value.to_string(),
                };
                match of_role.iter_mut().find(|family| family.row == row) {
                    Some(family) => family.samples.push(sample),
                    None => of_role.push(Family {
                        role,
                        row,
                        samples: vec![sample],
                    }),
                }
            }
        }
        families.append(&mut of_role);
    }
    families
}

fn channel_families(registry: &Registry) -> Vec<Family> {
    let views: Vec<_> = registry
        .channels
        .iter()
        .map(|c| (&c.name, c.view()))
        .collect();
    let rows = CHANNEL_TABLE.iter();
    let mut families: Vec<Family> = rows
        .map(|(row, value)| {
            let samples = views.iter().map(|(name, view)| Sample {
                component: (*name).clone(),
                value: value(&view.status).to_string(),
            });
            Family {
                role: "channel",
                row: *row,
                samples: samples.collect(),
            }
        })
        .collect();
    let open = Described {
        flume: "Open",
        field: "open",
        unit: "boolean",
        gauge: true,
        help: "1 while the channel is open and has not failed.",
    };
    let samples = views.iter().map(|(name, view)| Sample {
        component: (*name).clone(),
        value: u8::from(view.open).to_string(),
    });
    families.push(Family {
        role: "channel",
        row: open,
        samples: samples.collect(),
    });
    families
}

/// `forebay_<role>_<field>_<unit>`, with `_total` for what only grows; the unit is left out where
/// the field already says it.
fn prometheus_name(role: &str, row: &Described) -> String {
    let said = row.unit == "boolean" || row.field.contains(row.unit);
    let unit = if said {
        String::new()
    } else {
        format!("_{}", row.unit)
    };
    let total = if row.gauge { "" } else { "_total" };
    format!("forebay_{role}_{}{unit}{total}", row.field)
}

fn escape_label(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::super::counters::{SinkCounters, SourceCounters};
    use super::super::registry::ChannelEntry;
    use super::*;
    use std::collections::BTreeSet;

    fn registry() -> Registry {
        let source = Arc::new(SourceCounters::default());
        source.events_received.add(5);
        let sink = Arc::new(SinkCounters::default());
        sink.drain_successes.add(3);
        Registry {
            channels: vec![ChannelEntry::new("c1", "file")],
            sources: vec![Entry::new("r1", "netcat", Counters::Source(source))],
            sinks: vec![Entry::new("k\"1", "hdfs", Counters::Sink(sink))],
        }
    }

    #[test]
    fn flume_json_has_flumes_groups_names_and_string_values() {
        let json = flume_json(&registry());
        assert_eq!(json["SOURCE.r1"]["EventReceivedCount"], "5");
        assert_eq!(json["SINK.k\"1"]["EventDrainSuccessCount"], "3");
        assert_eq!(json["SINK.k\"1"]["Type"], "SINK");
        let channel = json["CHANNEL.c1"].as_object().unwrap();
        for name in [
            "ChannelSize",
            "ChannelCapacity",
            "ChannelFillPercentage",
            "EventPutAttemptCount",
            "EventPutSuccessCount",
            "EventTakeAttemptCount",
            "EventTakeSuccessCount",
            "StartTime",
            "StopTime",
            "Type",
        ] {
            assert!(channel[name].is_string(), "{name}");
        }
        assert_eq!(channel["ChannelFillPercentage"], "0.0");
    }

    #[test]
    fn prometheus_text_names_each_family_once_and_escapes_labels() {
        let text = prometheus_text(&registry());
        let families: Vec<&str> = text.lines().filter(|l| l.starts_with("# TYPE")).collect();
        assert_eq!(
            families.iter().collect::<BTreeSet<_>>().len(),
            families.len()
        );
        assert!(text.contains("forebay_source_events_received_total{source=\"r1\"} 5\n"));
        assert!(text.contains("{sink=\"k\\\"1\"} 3\n"));
    }

    #[test]
    fn an_agent_without_open_channels_is_not_ready() {
        let reasons = registry().not_ready();
        assert!(
            reasons[0].contains("channel c1: not opened yet"),
            "{reasons:?}"
        );
        assert_eq!(reasons.len(), 3);
    }

    /// The tables of docs/OPERATIONS.md are the tables of the code, row by row.
    #[test]
    fn operations_manual_lists_every_counter() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/OPERATIONS.md");
        let manual = std::fs::read_to_string(path).unwrap();
        let channel: Vec<Described> = CHANNEL_TABLE.iter().map(|(row, _)| *row).collect();
        let tables = [
            ("channel", channel.as_slice()),
            ("source", SourceCounters::TABLE),
            ("sink", SinkCounters::TABLE),
        ];
        for (role, table) in tables {
            for row in table {
                let name = prometheus_name(role, row);
                let line = format!(
                    "| `{}` | `{name}` | {} | {} |",
                    row.flume, row.unit, row.help
                );
                assert!(
                    manual.contains(&line),
                    "docs/OPERATIONS.md lacks the line\n{line}"
                );
            }
        }
    }
}
