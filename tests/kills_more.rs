//! Kills beside the main job: netcat's promise, two sinks on one channel, a tiny capacity with
//! all rolls off, a sink renamed and moved between two kills.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of the harness fails its test"
)]

#[path = "support/netcat_client.rs"]
mod netcat_client;
#[path = "support/rig.rs"]
mod rig;
#[path = "support/workload.rs"]
mod workload;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use netcat_client::{Client, free_port};
use rig::{Rig, tail_into_file_channel, text_sink};
use workload::{Agent, LineWriter, compare, is_long, pause};

fn local(dir: &Path) -> String {
    format!("file://{}/out", dir.display())
}

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn drain(rig: &Rig) {
    let more = ["--until-drained", "--drain-timeout", "300"];
    let mut last = Agent::start_with(rig.dir.path(), &rig.config_path(), &more);
    let code = last.wait(Duration::from_secs(900));
    assert_eq!(code, 0, "the last run drains and ends\n{}", last.log_tail());
}

#[allow(clippy::print_stdout, reason = "the figures are the point of the test")]
#[test]
fn every_line_answered_ok_is_there_after_kills_and_no_line_twice() {
    let port = free_port();
    let rig = Rig::new(local, |_, target| {
        format!(
            "a1.sources = r1\na1.channels = c1\na1.sinks = k1\n\
             a1.sources.r1.type = netcat\na1.sources.r1.channels = c1\n\
             a1.sources.r1.bind = 127.0.0.1\na1.sources.r1.port = {port}\n\
             a1.channels.c1.type = file\na1.channels.c1.dataDirs = c1\n\
             a1.channels.c1.maxFileSize = 4194304\n\
             a1.channels.c1.minimumRequiredSpace = 1048576\n{}",
            text_sink("k1", target, (1, 500))
        )
    });
    let kills = if is_long() { 50 } else { 6 };
    let mut client = Client::new(port, 0);
    let mut seed = 0x0c1e_0f0e_ba12_3457_u64;
    for _ in 0..kills {
        let mut agent = rig.agent();
        client.connect();
        let pid = rustix::process::Pid::from_raw(i32::try_from(agent.id()).unwrap()).unwrap();
        let delay = Duration::from_millis(100 + random(&mut seed) % 900);
        // From a thread, so that the kill falls into a write or an answer.
        let killer = std::thread::spawn(move || {
            pause(delay);
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        });
        while !killer.is_finished() && client.is_connected() {
            client.send(1 + random(&mut seed) % 40);
        }
        killer.join().unwrap();
        agent.reap();
        client.disconnect();
    }
    let mut agent = rig.agent();
    client.connect();
    client.send(100);
    assert_eq!(agent.stop(), 0, "{}", agent.log_tail());
    let lines = rig.lines();
    let there: BTreeSet<u64> = lines.iter().copied().collect();
    let missing = client.acknowledged.difference(&there).count();
    println!(
        "{} lines sent, {} answered OK, {} there, {kills} kills: {missing} of the answered \
         missing, \
         {} twice",
        client.next,
        client.acknowledged.len(),
        there.len(),
        lines.len() - there.len()
    );
    assert_eq!(missing, 0, "answered OK and not there");
    assert_eq!(lines.len(), there.len(), "a line twice");
    rig.assert_audit_agrees();
}

#[test]
fn two_sinks_on_one_channel_killed_at_random_lose_and_double_nothing() {
    let rig = Rig::new(local, |dir, target| {
        tail_into_file_channel(dir, "k1 k2", "")
            + &text_sink("k1", &format!("{target}/a"), (1, 300))
            + &text_sink("k2", &format!("{target}/b"), (1, 300))
            + &format!("a1.sinks.k1.hdfs.stagingPath = {target}\n")
            + &format!("a1.sinks.k2.hdfs.stagingPath = {target}\n")
    });
    let (rounds, lines) = if is_long() { (50, 10_000) } else { (6, 3_000) };
    let mut writer = LineWriter::new(&rig.dir.path().join("logs"), 5_000);
    let mut seed = 0x2517_c0de_2517_c0df_u64;
    for _ in 0..rounds {
        let mut agent = rig.agent();
        writer.write(lines);
        pause(Duration::from_millis(500 + random(&mut seed) % 2_000));
        agent.assert_alive();
        agent.kill();
    }
    drain(&rig);
    assert_eq!(compare(rig.lines(), writer.written()), (0, 0));
    rig.assert_audit_agrees();
    rig.assert_nothing_left();
}

#[test]
fn capacity_of_a_thousand_with_all_rolls_off_ends() {
    let rig = Rig::new(local, |dir, target| {
        let channel = "a1.channels.c1.capacity = 1000\na1.channels.c1.transactionCapacity = 500\n";
        tail_into_file_channel(dir, "k1", channel) + &text_sink("k1", target, (0, 0))
    });
    let mut writer = LineWriter::new(&rig.dir.path().join("logs"), 100_000);
    writer.write(if is_long() { 1_000_000 } else { 100_000 });
    drain(&rig);
    assert_eq!(compare(rig.lines(), writer.written()), (0, 0));
    rig.assert_audit_agrees();
}

#[test]
fn a_sink_renamed_and_moved_between_kills_leaves_sealed_epochs_at_their_sealed_paths() {
    let rig = Rig::new(local, |dir, target| {
        tail_into_file_channel(dir, "k1", "") + &text_sink("k1", &format!("{target}/old"), (1, 100))
    });
    let mut writer = LineWriter::new(&rig.dir.path().join("logs"), 5_000);
    let mut agent = rig.agent();
    // Frozen with an epoch that is sealed and not done, then killed.
    let log = rig.dir.path().join("c1");
    let start = Instant::now();
    let epoch = loop {
        writer.write(400);
        pause(Duration::from_millis(23));
        agent.freeze();
        let report = forebay::channel::file::examine::examine(
            &forebay::env::disk_real::RealDisk,
            std::slice::from_ref(&log),
            |_, _| {},
        );
        if let Some(open) = report.ok().and_then(|r| r.open_epochs.first().copied()) {
            break open.0;
        }
        agent.thaw();
        assert!(
            start.elapsed() < Duration::from_secs(90),
            "no epoch was caught sealed"
        );
    };
    agent.kill();
    let target = format!("{}{}", rig.store.uri(), rig.out);
    let moved = tail_into_file_channel(rig.dir.path(), "k9", "")
        + &text_sink("k9", &format!("{target}/new"), (1, 100));
    fs::write(rig.config_path(), moved).unwrap();
    drain(&rig);
    assert_eq!(compare(rig.lines(), writer.written()), (0, 0));
    let published = rig.published();
    let sealed: Vec<_> = published
        .iter()
        .filter(|(_, part)| part.epoch == epoch)
        .collect();
    assert!(!sealed.is_empty());
    assert!(
        sealed
            .iter()
            .all(|(path, part)| path.contains("/old/") && part.label.ends_with("-k1")),
        "{sealed:?}"
    );
    assert!(published.iter().any(|(path, _)| path.contains("/new/")));
    rig.assert_audit_agrees();
}
