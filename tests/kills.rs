//! Kills: TAILDIR into a file channel into HDFS (a local directory, and the real one), SIGKILL at
//! chosen moments of an epoch's life, every line compared.
//!
//! *Method*: the agent runs for a random short time and is frozen by SIGSTOP; its log and its
//! target say in which phase its epochs are; while that phase still wants kills it is killed
//! there, else it goes on. The table at the end says where each kill fell.
//!
//! Short form in the test command; `FOREBAY_LONG=1` for a million lines, 300 epochs, 50 kills.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of the harness fails its test"
)]

#[path = "support/hdfs.rs"]
mod hdfs;
#[path = "support/rig.rs"]
mod rig;
#[path = "support/workload.rs"]
mod workload;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use forebay::channel::file::examine::examine;
use forebay::env::disk_real::RealDisk;
use forebay::sink::staged::names::PartName;
use rig::{Rig, tail_into_file_channel, text_sink};
use workload::{Agent, LineWriter, compare, is_long, pause};

/// Where a kill falls in the life of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    BeforeSeal,
    Sealed,
    Claimed,
    BetweenRenames,
    BeforeDone,
}

const PHASES: [Phase; 5] = [
    Phase::BeforeSeal,
    Phase::Sealed,
    Phase::Claimed,
    Phase::BetweenRenames,
    Phase::BeforeDone,
];

struct Size {
    lines: u64,
    per_file: u64,
    kills_each: u64,
    epochs: u64,
    /// How long the hunt for rare phases may take before the rest is killed anywhere.
    hunt: Duration,
}

fn size() -> Size {
    if is_long() {
        Size {
            lines: 1_000_000,
            per_file: 40_000,
            kills_each: 10,
            epochs: 300,
            hunt: Duration::from_secs(1500),
        }
    } else {
        Size {
            lines: 40_000,
            per_file: 4_000,
            kills_each: 2,
            epochs: 5,
            hunt: Duration::from_secs(60),
        }
    }
}

fn config(dir: &Path, target: &str) -> String {
    tail_into_file_channel(dir, "k1", "") + &text_sink("k1", target, (1, 200))
}

/// Phases in which epochs of the frozen agent are.
fn phases(rig: &Rig) -> Vec<Phase> {
    let Ok(report) = examine(&RealDisk, &[rig.dir.path().join("c1")], |_, _| {}) else {
        return Vec::new();
    };
    if report.open_epochs.is_empty() {
        return vec![Phase::BeforeSeal];
    }
    let mut published: Option<Vec<(String, PartName)>> = None;
    let mut phases = Vec::new();
    for (epoch, _, _, claimed) in report.open_epochs {
        if !claimed {
            phases.push(Phase::Sealed);
            continue;
        }
        let files = published.get_or_insert_with(|| rig.published());
        let parts: Vec<_> = files
            .iter()
            .filter(|(_, part)| part.epoch == epoch)
            .collect();
        phases.push(match parts.first() {
            None => Phase::Claimed,
            Some((_, part)) if parts.len() < part.parts as usize => Phase::BetweenRenames,
            Some(_) => Phase::BeforeDone,
        });
    }
    phases
}

/// xorshift: where the agent is frozen.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Feeds lines while the agent is frozen, looked at and killed; returns where the kills fell.
fn hunt(rig: &Rig, writer: &mut LineWriter, size: &Size) -> BTreeMap<Phase, u64> {
    let mut kills: BTreeMap<Phase, u64> = PHASES.iter().map(|p| (*p, 0)).collect();
    let (mut agent, mut seed) = (rig.agent(), 0x5eed_f0be_baf0_0d11_u64);
    let mut looks = 0_u64;
    let start = Instant::now();
    let share = (size.lines / (5 * size.kills_each * 40)).max(1);
    while kills.values().any(|n| *n < size.kills_each) && start.elapsed() < size.hunt {
        if writer.written() < size.lines {
            writer.write(share.min(size.lines - writer.written()));
        } else {
            // More lines than planned, so that there is always something to kill.
            writer.write(50);
        }
        pause(Duration::from_micros(2_000 + random(&mut seed) % 60_000));
        agent.assert_alive();
        agent.freeze();
        looks += 1;
        let phases = phases(rig);
        let wanted = phases.iter().find(|p| kills[p] < size.kills_each);
        match wanted {
            // The common phase is spread over the run instead of being used up at its start.
            Some(Phase::BeforeSeal) if !looks.is_multiple_of(25) => agent.thaw(),
            Some(phase) => {
                *kills.get_mut(phase).unwrap() += 1;
                agent.kill();
                agent = rig.agent();
            }
            None => agent.thaw(),
        }
    }
    writer.write(size.lines.saturating_sub(writer.written()));
    agent.assert_alive();
    drop(agent);
    kills
}

#[allow(clippy::print_stdout, reason = "the table is the point of the test")]
fn run(rig: &Rig) {
    let size = size();
    let mut writer = LineWriter::new(&rig.dir.path().join("logs"), size.per_file);
    let mut kills = hunt(rig, &mut writer, &size);
    // One more kill, by the drop of the last agent, wherever it was.
    let phase = phases(rig).first().copied().unwrap_or(Phase::BeforeSeal);
    *kills.entry(phase).or_default() += 1;
    let path = rig.config_path();
    let more = ["--until-drained", "--drain-timeout", "300"];
    let mut last = Agent::start_with(rig.dir.path(), &path, &more);
    let code = last.wait(Duration::from_secs(600));
    assert_eq!(code, 0, "the last run drains and ends\n{}", last.log_tail());

    let (missing, double) = compare(rig.lines(), writer.written());
    let published = rig.published();
    let epochs = published.iter().map(|(_, p)| p.epoch).max().unwrap_or(0);
    println!("kills by phase into {}:", rig.out);
    for (phase, count) in &kills {
        println!("  {phase:<15?} {count:>4}");
    }
    println!(
        "{} lines, {} rotations, {epochs} epochs, {} files, {} kills: {missing} lost, \
         {double} twice",
        writer.written(),
        writer.rotations,
        published.len(),
        kills.values().sum::<u64>()
    );
    assert_eq!((missing, double), (0, 0));
    assert!(epochs >= size.epochs, "{epochs} epochs");
    rig.assert_nothing_left();
    rig.assert_audit_agrees();
    if is_long() {
        assert!(writer.rotations >= 20);
        assert!(
            kills.values().all(|n| *n >= 5),
            "each phase at least five times: {kills:?}"
        );
    }
}

#[test]
fn kills_at_every_phase_into_a_local_directory_lose_and_double_nothing() {
    run(&Rig::new(
        |dir| format!("file://{}/out", dir.display()),
        config,
    ));
}

#[test]
fn kills_at_every_phase_into_real_hdfs_lose_and_double_nothing() {
    let uri = &hdfs::shared().uri;
    let name = format!("kills-{}", std::process::id());
    run(&Rig::new(|_| format!("{uri}/{name}"), config));
}
