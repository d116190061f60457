use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::names::PartName;
use super::options::StagedOptions;
use super::resolver::{Backoff, Publisher, StoreOpener};
use super::sink::StagedSink;
use super::startup::PublishFailure;
use super::store::{FileStore, StoreError};
use super::store_sim::{SimFault, SimFaults, SimStore};
use super::testing::{Crash, CrashStore, Log, TestChannel};
use crate::channel::Channel;
use crate::event::Event;
use crate::sink::{PublishingSink, Sink, SinkError};
use crate::source::Shutdown;

const QUICK: Backoff = Backoff {
    first: Duration::from_micros(100),
    longest: Duration::from_millis(2),
};

/// Two buckets and a rejected event now and then.
fn options() -> StagedOptions {
    let options = StagedOptions::new("k-1", "/base/%{b}").unwrap();
    let roll_count = Some(4);
    StagedOptions {
        roll_count,
        batch_size: 3,
        max_open_files: 2,
        ..options
    }
}

fn log(events: usize) -> Arc<Mutex<Log>> {
    let event = |i: usize| {
        let mut event = Event::from_body(format!("line {i}"));
        event
            .headers
            .set("b", if i.is_multiple_of(3) { "x" } else { "y" });
        event
    };
    Arc::new(Mutex::new(Log {
        events: (0..events).map(event).collect(),
        ..Log::default()
    }))
}

/// How one life of the process ended.
#[derive(Debug)]
enum End {
    Clean,
    Crashed(String),
    Refused(SinkError),
}

fn opener(store: Arc<dyn FileStore>) -> StoreOpener {
    Arc::new(move |uri| {
        if uri == store.uri() {
            Ok(Arc::clone(&store))
        } else {
            Err(StoreError::Refused("no such store".into()))
        }
    })
}

/// One life of the process: until everything is published, refused, or crashed.
async fn live(log: &Arc<Mutex<Log>>, store: &SimStore, nonce: u64, crash: Arc<Crash>) -> End {
    live_with(log, store, nonce, crash, Some(options())).await
}

async fn live_with(
    log: &Arc<Mutex<Log>>,
    store: &SimStore,
    nonce: u64,
    crash: Arc<Crash>,
    options: Option<StagedOptions>,
) -> End {
    let store: Arc<dyn FileStore> = Arc::new(CrashStore {
        inner: store.clone(),
        crash: Arc::clone(&crash),
    });
    live_on(log, store, nonce, crash, options).await
}

async fn live_on(
    log: &Arc<Mutex<Log>>,
    store: Arc<dyn FileStore>,
    nonce: u64,
    crash: Arc<Crash>,
    options: Option<StagedOptions>,
) -> End {
    let opened = TestChannel::open(log, nonce, Arc::clone(&crash));
    let channel: Arc<dyn Channel> = Arc::new(opened);
    let sink = options.map(|options| StagedSink::new(Arc::clone(&store), options, Arc::default()));
    let targets = sink.iter().map(StagedSink::target).collect();
    let publisher = Arc::new(Publisher::new(opener(store), targets, QUICK));
    let (stop_sink, sink_stops) = Shutdown::new();
    let (stop_resolver, resolver_stops) = Shutdown::new();
    let resolver = {
        let (publisher, channel) = (Arc::clone(&publisher), Arc::clone(&channel));
        async move {
            publisher
                .run(channel, resolver_stops)
                .await
                .map_err(SinkError::from)
        }
    };
    let sinks = {
        let channel = Arc::clone(&channel);
        async move {
            match sink {
                Some(sink) => {
                    PublishingSink { sink, publisher }
                        .run(channel, sink_stops)
                        .await
                }
                None => Ok(()),
            }
        }
    };
    let watch = async {
        while channel.status().waiting > 0 {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        stop_sink.stop();
        while channel.status().leased > 0 {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        stop_resolver.stop();
        Ok(())
    };
    let all = async { tokio::try_join!(resolver, sinks, watch) };
    tokio::select! {
        biased;
        ended = all => ended.map_or_else(End::Refused, |_| End::Clean),
        point = crash.reached() => End::Crashed(point),
    }
}

/// A life without faults and crashes; it must end cleanly.
async fn finish(log: &Arc<Mutex<Log>>, store: &SimStore, what: &str) {
    store.set_faults(SimFaults::default());
    store.settle();
    store.end_stale();
    let life = live(log, store, 1_000, Crash::never());
    match tokio::time::timeout(Duration::from_secs(20), life).await {
        Ok(End::Clean) => {}
        Ok(other) => panic!("{what}: {other:?}\n{}", store.history()),
        Err(_) => panic!(
            "{what}: hangs\n{:?}\n{}",
            log.lock().unwrap(),
            store.history()
        ),
    }
}

/// Every line is there once, the names agree, and nothing of ours is left over.
fn assert_exactly_once(log: &Arc<Mutex<Log>>, store: &SimStore, what: &str) {
    let tree = store.tree();
    let mut lines: BTreeMap<String, usize> = BTreeMap::new();
    let mut names = Vec::new();
    for (path, bytes) in &tree {
        let staging = path.contains("/_staging");
        match bytes {
            Some(bytes) if !staging => {
                names.push(path.as_str());
                for line in String::from_utf8_lossy(bytes).lines() {
                    *lines.entry(line.to_owned()).or_default() += 1;
                }
            }
            Some(_) => {
                let name = path.rsplit('/').next().unwrap();
                assert!(
                    name.starts_with("owner."),
                    "{what}: {path} is left\n{}",
                    store.history()
                );
            }
            None if staging => {
                let rest = path.split("/_staging/0123456789ab").nth(1).unwrap_or("");
                // A late mkdirs may leave an empty directory in a tombstone.
                let bare = rest.trim_end_matches("/parts").trim_end_matches("/claim");
                let tombstone = bare.starts_with("/sealed/e") && bare.matches('/').count() == 2;
                let starts = rest == "/starts" || rest.starts_with("/starts/");
                assert!(
                    tombstone || starts || rest.is_empty() || rest == "/sealed",
                    "{what}: {path} is left\n{}",
                    store.history()
                );
            }
            None => {}
        }
    }
    let log = log.lock().unwrap();
    for event in &log.events {
        let line = String::from_utf8_lossy(&event.body).into_owned();
        let times = lines.remove(&line).unwrap_or(0);
        assert_eq!(
            times,
            1,
            "{what}: {line} is there {times} times\n{}",
            store.history()
        );
    }
    assert!(lines.is_empty(), "{what}: {lines:?}");
    let parsed: Vec<PartName> = names
        .into_iter()
        .map(|name| PartName::parse(name).unwrap_or_else(|| panic!("{what}: foreign {name}")))
        .collect();
    let audits = crate::tools::audit::audit(parsed);
    assert!(audits.iter().all(|a| a.is_sound()), "{what}: {audits:?}");
    assert_eq!(audits[0].first, 0, "{what}");
    assert!(log.epochs.is_empty(), "{what}");
}

#[tokio::test]
async fn a_run_without_faults_publishes_everything_once() {
    let (log, store) = (log(40), SimStore::perfect());
    assert!(matches!(
        live(&log, &store, 1, Crash::never()).await,
        End::Clean
    ));
    assert_exactly_once(&log, &store, "perfect");
}

#[tokio::test]
async fn a_crash_at_any_call_loses_nothing_and_doubles_nothing() {
    let mut points = 0;
    loop {
        let (log, store) = (log(11), SimStore::perfect());
        let end = live(&log, &store, 1, Crash::at(points)).await;
        let what = format!("crash at {points}: {end:?}");
        finish(&log, &store, &what).await;
        assert_exactly_once(&log, &store, &what);
        if matches!(end, End::Clean) {
            break;
        }
        points += 1;
    }
    assert!(points > 80, "{points}");
}

#[tokio::test]
async fn a_lost_late_or_doubled_answer_at_any_change_is_harmless() {
    for fault in SimFault::ALL {
        for change in 0.. {
            let (log, store) = (log(11), SimStore::perfect());
            store.plan(change, fault);
            let what = format!("{fault:?} at change {change}");
            let ended = live(&log, &store, 1, Crash::never());
            let ended = tokio::time::timeout(Duration::from_secs(20), ended).await;
            assert!(
                matches!(ended, Ok(End::Clean)),
                "{what}: {ended:?}\n{}",
                store.history()
            );
            finish(&log, &store, &what).await;
            assert_exactly_once(&log, &store, &what);
            if store.changes() <= change + 40 {
                break;
            }
        }
    }
}

mod copies;
mod counterexamples;
mod limits;

#[test]
fn every_test_that_the_tables_name_exists() {
    let doc = include_str!("../../../../docs/EXACTLY-ONCE.md");
    let sources = [
        include_str!("mod.rs"),
        include_str!("copies.rs"),
        include_str!("counterexamples.rs"),
        include_str!("../epoch/tests.rs"),
        include_str!("../../../channel/file/tests/adopt.rs"),
        include_str!("../../../channel/file/tests/ownership.rs"),
        include_str!("../../../../tests/adopt.rs"),
    ];
    let names = doc
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|w| w.matches('_').count() > 4);
    let mut found = 0;
    for name in names.filter(|w| w.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')) {
        found += 1;
        let test = format!("fn {name}()");
        assert!(
            sources.iter().any(|s| s.contains(&test)),
            "{name} is no test"
        );
    }
    assert!(found >= 18, "{found}");
    for row in doc
        .lines()
        .filter(|l| l.starts_with("| ") && !l.ends_with("| test |"))
    {
        assert!(row.ends_with("` |"), "no test in: {row}");
    }
}
