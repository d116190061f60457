//! SIGKILL to the real agent, thousands of times: while it starts and recovers, while it is fed,
//! while it publishes, and while it stops. Every tailed line and every line that netcat answered
//! `OK` is published once.
//!
//! `tests/kills.rs` freezes the agent and looks for rare phases; this one does not look, it is
//! made for many. A *life* is some rounds on one log, each of them a start and a kill; at its end
//! the agent drains and every line is judged.
//!
//! Short form in the test command; `FOREBAY_LONG=1` for 2,000 kills, `FOREBAY_SEED=N` to begin at
//! a life, `FOREBAY_KILLS=N` for another number.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of the harness fails its test"
)]

#[path = "support/job.rs"]
mod job;
#[path = "support/medium.rs"]
mod medium;
#[path = "support/netcat_client.rs"]
mod netcat_client;
#[path = "support/rig.rs"]
mod rig;
#[path = "support/workload.rs"]
mod workload;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use job::{Epochs, Job, Verdict};
use medium::Seeded;
use rustix::process::{Pid, Signal, kill_process};
use workload::{Agent, is_long, number_from, pause};

const PATIENCE: Duration = Duration::from_secs(60);

/// What the agent was doing when it was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// Before the port answers: recovery, or the very first open.
    Start,
    Feed,
    /// Nothing comes any more: publishing, preparation of segments.
    Quiet,
    /// Between SIGTERM and its end.
    Stop,
}

impl Stage {
    fn by_seed(seed: &mut Seeded) -> Self {
        match seed.below(20) {
            0..=5 => Self::Start,
            6..=12 => Self::Feed,
            13 => Self::Quiet,
            _ => Self::Stop,
        }
    }
}

/// A log that lives through many kills. How long a start and a stop take is learnt, so that kills
/// spread over all of both on any machine.
struct Life {
    seed: Seeded,
    job: Job,
    start: Duration,
    stop: Duration,
}

impl Life {
    fn new(seed: u64) -> Self {
        Self {
            seed: Seeded::new(seed),
            job: Job::new(|dir| dir.join("disk")),
            start: Duration::from_millis(100),
            stop: Duration::from_millis(50),
        }
    }

    fn part_of(&mut self, time: Duration) -> Duration {
        time * self.seed.below(1_100) as u32 / 1_000
    }

    /// Starts the agent and kills it; `None` when it had ended by itself in good order.
    fn round(&mut self) -> Option<Stage> {
        let aim = Stage::by_seed(&mut self.seed);
        let begin = Instant::now();
        let limit = match aim {
            Stage::Start => self.part_of(self.start),
            _ => PATIENCE,
        };
        let mut agent = self.job.agent();
        let connected = self.job.client.connect_while(|| begin.elapsed() < limit);
        if !connected {
            assert_eq!(aim, Stage::Start, "no answer\n{}", agent.log_tail());
            agent.kill();
            return Some(Stage::Start);
        }
        self.start = begin.elapsed();
        let stage = match aim {
            Stage::Start | Stage::Feed => self.kill_while_fed(&mut agent),
            Stage::Quiet | Stage::Stop => {
                for _ in 0..3 {
                    self.feed();
                }
                agent.assert_alive();
                self.kill_when_fed(&mut agent, aim)
            }
        };
        self.job.client.disconnect();
        stage
    }

    fn feed(&mut self) {
        self.job.feed(self.seed.below(60), 1 + self.seed.below(30));
    }

    /// From a thread, so that the kill falls into a write or an answer.
    fn kill_while_fed(&mut self, agent: &mut Agent) -> Option<Stage> {
        let pid = Pid::from_raw(i32::try_from(agent.id()).unwrap()).unwrap();
        let delay = Duration::from_micros(self.seed.below(120_000));
        let killer = std::thread::spawn(move || {
            pause(delay);
            kill_process(pid, Signal::KILL).unwrap();
        });
        while self.job.client.is_connected() {
            self.feed();
        }
        killer.join().unwrap();
        agent.reap_killed();
        Some(Stage::Feed)
    }

    fn kill_when_fed(&mut self, agent: &mut Agent, aim: Stage) -> Option<Stage> {
        if aim == Stage::Quiet {
            pause(Duration::from_millis(self.seed.below(1_300)));
            agent.kill();
            return Some(aim);
        }
        let begin = Instant::now();
        agent.terminate();
        let limit = self.part_of(self.stop);
        while begin.elapsed() < limit && agent.is_running() {
            pause(Duration::from_millis(1));
        }
        if agent.is_running() {
            agent.kill();
            // Kills come later next time, until one comes too late.
            self.stop = self.stop * 21 / 20;
            return Some(aim);
        }
        self.stop = begin.elapsed();
        assert_eq!(agent.wait(PATIENCE), 0, "{}", agent.log_tail());
        None
    }
}

#[derive(Default)]
struct Table {
    kills: BTreeMap<(Stage, Epochs), u64>,
    /// Stops that were over before the kill came.
    clean: u64,
    verdict: Verdict,
}

impl Table {
    fn total(&self) -> u64 {
        self.kills.values().sum()
    }

    #[allow(clippy::print_stdout, reason = "the table is the point of the test")]
    fn print(&self, took: Duration) {
        println!(
            "{} kills in {} s, {} clean ends",
            self.total(),
            took.as_secs(),
            self.clean
        );
        println!("  killed    epochs in the log   kills");
        for ((stage, epochs), count) in &self.kills {
            println!(
                "  {:<9} {:<19} {count:>5}",
                format!("{stage:?}"),
                format!("{epochs:?}")
            );
        }
        println!("  {}", self.verdict);
    }
}

fn live(number: u64, kills: u64, table: &mut Table) -> Result<(), String> {
    let mut life = Life::new(number);
    let end = table.total() + kills;
    while table.total() < end {
        let Some(stage) = life.round() else {
            table.clean += 1;
            continue;
        };
        *table.kills.entry((stage, life.job.epochs())).or_default() += 1;
        if life.seed.below(5) == 0 {
            life.job.check_as_found()?;
        }
    }
    life.job.drain()?;
    table.verdict.add(life.job.verdict);
    Ok(())
}

#[allow(clippy::print_stdout, reason = "a long run shows how far it is")]
#[test]
fn kills_at_random_lose_and_double_nothing() {
    let start = Instant::now();
    let long = is_long();
    let kills = number_from("FOREBAY_KILLS").unwrap_or(if long { 2_000 } else { 40 });
    let mut number = number_from("FOREBAY_SEED").unwrap_or(1);
    let mut table = Table::default();
    while table.total() < kills {
        let a_life = (if long { 50 } else { 20 }).min(kills - table.total());
        if let Err(why) = live(number, a_life, &mut table) {
            panic!(
                "life {number} of {a_life} kills: {why}\nagain: FOREBAY_SEED={number} \
                 FOREBAY_KILLS={a_life} cargo test --test kill_loop"
            );
        }
        if long {
            println!("life {number}: {} kills, {}", table.total(), table.verdict);
        }
        number += 1;
    }
    table.print(start.elapsed());
    assert!(table.verdict.is_sound());
    assert!(table.verdict.answered > 0 && table.verdict.tailed > 0);
}
