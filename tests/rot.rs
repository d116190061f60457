//! One byte of the log rots below a later watermark: the agent reports it, publishes the rest,
//! and the audit shows the lost run as lost.
#![allow(
    clippy::unwrap_used,
    reason = "a failed step of the harness fails its test"
)]

#[path = "support/rig.rs"]
mod rig;
#[path = "support/workload.rs"]
mod workload;

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use forebay::channel::file::{FileChannel, FileChannelOptions};
use forebay::channel::{Channel, PutBatch, PutEvent};
use forebay::env::{clock, disk_real::RealDisk};
use forebay::event::Event;
use rig::{Rig, tail_into_file_channel, text_sink};
use workload::{Agent, line};

/// Twenty transactions of ten lines each; the sixth then loses a bit.
fn rotten_log(dir: &Path) {
    let options = FileChannelOptions {
        data_dirs: vec![dir.to_owned()],
        max_file_size: 4 << 20,
        minimum_required_space: 1 << 20,
        ..FileChannelOptions::default()
    };
    let channel = FileChannel::open("c1", options, Arc::new(RealDisk), clock::system()).unwrap();
    for first in (0..200).step_by(10) {
        let events = (first..first + 10)
            .map(|n| PutEvent {
                event: Event::from_body(line(n)),
                position: None,
            })
            .collect();
        let batch = PutBatch {
            events,
            positions: Vec::new(),
        };
        channel.commit_put_blocking(batch).unwrap();
    }
    channel.close().unwrap();
    drop(channel);
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let Ok(bytes) = std::fs::read(&path) else {
            continue;
        };
        let wanted = line(55).into_bytes();
        if let Some(at) = bytes.windows(wanted.len()).position(|w| w == wanted) {
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            file.write_all_at(&[bytes[at + 30] ^ 1], at as u64 + 30)
                .unwrap();
        }
    }
}

#[test]
fn rot_below_the_watermark_is_reported_the_rest_is_published_and_the_audit_names_the_lost_run() {
    let rig = Rig::new(
        |dir| format!("file://{}/out", dir.display()),
        |dir, target| tail_into_file_channel(dir, "k1", "") + &text_sink("k1", target, (1, 0)),
    );
    std::fs::create_dir_all(rig.dir.path().join("logs")).unwrap();
    rotten_log(&rig.dir.path().join("c1"));
    let more = ["--until-drained", "--drain-timeout", "60"];
    let mut agent = Agent::start_with(rig.dir.path(), &rig.config_path(), &more);
    let code = agent.wait(Duration::from_secs(120));
    let log = agent.log_tail();
    assert!(code == 0 || code == 5, "exit {code}\n{log}");
    assert!(
        log.contains("damaged") && log.contains("events 51 to 60"),
        "{log}"
    );

    let expected: Vec<u64> = (0..50).chain(60..200).collect();
    let published: Vec<_> = rig.published();
    let mut lines = Vec::new();
    for (path, _) in &published {
        let bytes = rig.runtime.block_on(rig.store.read(path)).unwrap();
        lines.extend(
            std::str::from_utf8(&bytes)
                .unwrap()
                .lines()
                .map(workload::number),
        );
    }
    lines.sort_unstable();
    assert_eq!(lines, expected);
    let binary = env!("CARGO_BIN_EXE_forebay");
    let output = Command::new(binary)
        .args(["audit", &format!("{}{}", rig.store.uri(), rig.out)])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "lost is not missing: {text}");
    assert!(text.contains("10 lost"), "{text}");
}
