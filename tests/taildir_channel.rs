//! TAILDIR on the real file channel: the positions it goes on from are those of the log.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use forebay::agent::counters::SourceCounters;
use forebay::channel::file::{FileChannel, FileChannelOptions};
use forebay::channel::{Channel, TakeMode, TakeTransaction};
use forebay::env::clock;
use forebay::env::disk_real::RealDisk;
use forebay::source::taildir::{FileGroup, Taildir, TaildirOptions, pattern};
use forebay::source::{Shutdown, Source, SourceContext};

fn options(logs: &Path) -> TaildirOptions {
    TaildirOptions {
        groups: vec![FileGroup {
            name: "g".to_owned(),
            directory: logs.to_owned(),
            pattern: pattern::whole_name(r"app\.log").unwrap(),
            headers: Vec::new(),
        }],
        position_file: None,
        batch_size: 100,
        skip_to_end: false,
        idle_timeout: Duration::from_secs(120),
        byte_offset_header: false,
        file_header: None,
        max_batch_count: u64::MAX,
        backoff_sleep_increment: Duration::from_millis(20),
        max_backoff_sleep: Duration::from_millis(20),
        max_line_length: 1 << 20,
        files_max: 100,
        keep_vanished: Duration::from_secs(3600),
    }
}

fn open(dir: &Path) -> Arc<FileChannel> {
    let options = FileChannelOptions {
        data_dirs: vec![dir.join("wal")],
        max_file_size: 1 << 20,
        minimum_required_space: 1 << 20,
        ..FileChannelOptions::default()
    };
    FileChannel::open("c", options, Arc::new(RealDisk), clock::system()).unwrap()
}

async fn take_lines(channel: &Arc<FileChannel>) -> Vec<String> {
    let channel = Arc::clone(channel) as Arc<dyn Channel>;
    let mut take = TakeTransaction::begin(channel, TakeMode::Batch).unwrap();
    let mut lines = Vec::new();
    while let batch = take.take(1000, 1 << 20).unwrap()
        && !batch.is_empty()
    {
        for taken in batch.events {
            lines.push(String::from_utf8(taken.event.body.to_vec()).unwrap());
        }
    }
    take.commit().await.unwrap();
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reopened_log_knows_where_each_file_was_and_takes_up_rotated_ones() {
    let dir = tempfile::tempdir().unwrap();
    let logs = dir.path().join("logs");
    std::fs::create_dir(&logs).unwrap();
    let (mut got, mut expected) = (Vec::new(), Vec::new());
    for round in 0..4 {
        let log = logs.join("app.log");
        let write = |numbers: std::ops::Range<u32>, expected: &mut Vec<String>| {
            let mut file = std::fs::File::options()
                .append(true)
                .create(true)
                .open(&log)
                .unwrap();
            for n in numbers {
                expected.push(format!("round {round} line {n}"));
                writeln!(file, "round {round} line {n}").unwrap();
            }
        };
        write(0..500, &mut expected);
        // The last lines of the file of the last round were written while nothing ran.
        let channel = open(dir.path());
        let source = Arc::new(Taildir::new(options(&logs)));
        let (trigger, shutdown) = Shutdown::new();
        let context = SourceContext {
            name: "tail".to_owned(),
            channel: Arc::clone(&channel) as Arc<dyn Channel>,
            counters: Arc::new(SourceCounters::default()),
            shutdown,
        };
        let run = tokio::spawn({
            let source = Arc::clone(&source);
            async move { source.run(context).await }
        });
        while !source.has_ended() {
            tokio::task::yield_now().await;
        }
        trigger.stop();
        run.await.unwrap().unwrap();
        got.extend(take_lines(&channel).await);
        if round % 2 == 0 {
            channel.close().unwrap();
        }
        drop(channel);
        write(500..600, &mut expected);
        std::fs::rename(&log, logs.join(format!("old-{round}"))).unwrap();
    }
    expected.truncate(got.len());
    assert_eq!(got.len(), 4 * 500 + 3 * 100);
    assert_eq!(got, expected);
}
