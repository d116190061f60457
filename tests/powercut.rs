//! Power cuts under a real ext4 and a real XFS, with the log and the published output on them.
//!
//! The file system lies on a loop device on a file that this test serves over FUSE
//! (`support/fuse_disk.rs`). A flush of the file system arrives there as `fsync`; what has been
//! written since the last one is kept, dropped or mixed by sector at a cut, as the seed says. Then
//! the file system is mounted again, which replays its journal, and the agent recovers.
//!
//! *Lives*: a disk lives through several cuts. After each one the log must verify and the
//! published files be whole before any agent has touched them. Then, by seed, the agent drains
//! and every line is judged, or the next cut falls into the recovery; the last cut of a life is
//! always followed by the judgement. A seed decides what is kept and how many requests pass until
//! the cut; the scheduler decides what the requests are, so a seed is a place to look, not a
//! recording. The disk of a life that failed is kept.
//!
//! Short form in the test command; `FOREBAY_LONG=1` for 200 cuts on each, `FOREBAY_SEED=N` to
//! start at a life, `FOREBAY_CUTS=N` for another number of cuts.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of the harness fails its test"
)]

#[path = "support/bed.rs"]
mod bed;
#[path = "support/fuse_disk.rs"]
mod fuse_disk;
#[path = "support/job.rs"]
mod job;
#[allow(unreachable_pub, reason = "shared by tests")]
#[path = "support/loopfs.rs"]
mod loopfs;
#[path = "support/medium.rs"]
mod medium;
#[path = "support/netcat_client.rs"]
mod netcat_client;
#[path = "support/rig.rs"]
mod rig;
#[path = "support/workload.rs"]
mod workload;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use bed::{Bed, formatted};
use fuse_disk::{CutAt, Fault, FuseDisk};
use job::{Epochs, Verdict};
use loopfs::{Kind, Mounted};
use medium::{Keep, Seeded};
use workload::{Agent, is_long, number_from};

const CUTS_A_LIFE: u64 = 10;
const PATIENCE: Duration = Duration::from_secs(60);

/// What the agent was doing when the power went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// The file system replays its journal.
    Mount,
    /// Before the port answers: recovery, or the very first open.
    Start,
    Feed,
    /// Nothing comes any more: publishing, watermarks, preparation of segments.
    Quiet,
    Stop,
}

const STAGES: [Stage; 5] = [
    Stage::Mount,
    Stage::Start,
    Stage::Feed,
    Stage::Quiet,
    Stage::Stop,
];

impl Stage {
    /// By seed; most of the life of an agent is `Feed`.
    fn by_seed(seed: &mut Seeded) -> Self {
        match seed.below(10) {
            0 => Self::Mount,
            1 | 2 => Self::Start,
            3..=6 => Self::Feed,
            7 => Self::Quiet,
            _ => Self::Stop,
        }
    }

    /// Requests from the begin of the stage to the cut.
    fn requests(self, seed: &mut Seeded) -> u64 {
        let most = match self {
            Self::Mount => 24,
            Self::Start => 60,
            Self::Feed => 400,
            Self::Quiet => 30,
            Self::Stop => 50,
        };
        1 + seed.below(most)
    }
}

/// What lives through the cuts.
struct Life {
    seed: Seeded,
    bed: Bed,
}

impl Life {
    fn new(kind: Kind, seed: u64) -> Self {
        Self {
            seed: Seeded::new(seed),
            bed: Bed::new(kind),
        }
    }

    /// Runs the agent until the power goes at a moment that the seed says.
    fn run_to_the_cut(&mut self) -> Stage {
        let aim = Stage::by_seed(&mut self.seed);
        let requests = aim.requests(&mut self.seed);
        let arm = |stage: Stage, disk: &FuseDisk| {
            if stage == aim {
                disk.arm(requests);
            }
        };
        if self.bed.mounted.is_none() {
            arm(Stage::Mount, &self.bed.disk);
            if !self.bed.mount() {
                return Stage::Mount;
            }
        }
        arm(Stage::Start, &self.bed.disk);
        let mut agent = self.bed.job.agent();
        self.bed.disk.set_victim(Some(agent.id()));
        let stage = self.run_agent(&mut agent, arm);
        self.bed.disk.cut_now();
        agent.reap();
        self.bed.job.client.disconnect();
        stage
    }

    fn run_agent(&mut self, agent: &mut Agent, arm: impl Fn(Stage, &FuseDisk)) -> Stage {
        let start = Instant::now();
        let disk = &self.bed.disk;
        let hope = || disk.cut().is_none() && start.elapsed() < PATIENCE;
        if !self.bed.job.client.connect_while(hope) {
            assert!(disk.cut().is_some(), "no answer\n{}", agent.log_tail());
            return Stage::Start;
        }
        arm(Stage::Feed, disk);
        for _ in 0..20 + self.seed.below(40) {
            self.bed
                .job
                .feed(self.seed.below(120), 1 + self.seed.below(30));
            if disk.cut().is_some() {
                return Stage::Feed;
            }
            assert!(
                self.bed.job.client.is_connected(),
                "hung up\n{}",
                agent.log_tail()
            );
        }
        arm(Stage::Quiet, disk);
        if disk
            .wait_for_cut(Duration::from_millis(self.seed.below(1_500)))
            .is_some()
        {
            return Stage::Quiet;
        }
        arm(Stage::Stop, disk);
        // The cut takes the agent, unless it has ended before.
        agent.terminate();
        while agent.is_running() && disk.cut().is_none() {
            disk.wait_for_cut(Duration::from_millis(5));
        }
        Stage::Stop
    }

    /// The power comes back on a disk of which the seed has kept what it likes.
    fn power_up(&mut self) -> (Keep, medium::Lost) {
        self.bed.mounted = None;
        let keep = Keep::by_seed(&mut self.seed);
        let lost = self.bed.disk.revive(keep, &mut self.seed);
        (keep, lost)
    }
}

/// What the cuts of a run did.
#[derive(Default)]
struct Table {
    cuts: BTreeMap<(Stage, CutAt), u64>,
    epochs: BTreeMap<Epochs, u64>,
    keeps: BTreeMap<Keep, u64>,
    pending: u64,
    dropped: u64,
    judged: u64,
    repairs: u64,
    verdict: Verdict,
}

impl Table {
    fn total(&self) -> u64 {
        self.cuts.values().sum()
    }

    #[allow(clippy::print_stdout, reason = "the table is the point of the test")]
    fn print(&self, kind: Kind, took: Duration) {
        let of = |stage, at| self.cuts.get(&(stage, at)).copied().unwrap_or(0);
        println!("{kind:?}: {} cuts in {} s", self.total(), took.as_secs());
        println!(
            "  {:<8} {:>9} {:>9} {:>9}",
            "stage", "at write", "at flush", "quiet"
        );
        for stage in STAGES {
            let [write, flush, quiet] =
                [CutAt::Write, CutAt::Flush, CutAt::Quiet].map(|at| of(stage, at));
            println!(
                "  {:<8} {write:>9} {flush:>9} {quiet:>9}",
                format!("{stage:?}")
            );
        }
        println!("  epochs in the log as found: {:?}", self.epochs);
        println!("  what was kept: {:?}", self.keeps);
        println!(
            "  {} sectors pending at cuts, {} dropped",
            self.pending, self.dropped
        );
        println!(
            "  {} disks needed e2fsck before they could be mounted",
            self.repairs
        );
        println!("  judged {} times: {}", self.judged, self.verdict);
    }
}

/// One cut and what must hold right after it.
fn cut_once(life: &mut Life, table: &mut Table) -> Result<(), String> {
    let stage = life.run_to_the_cut();
    let at = life.bed.disk.cut().unwrap();
    let (keep, lost) = life.power_up();
    *table.cuts.entry((stage, at)).or_default() += 1;
    *table.keeps.entry(keep).or_default() += 1;
    table.pending += lost.pending;
    table.dropped += lost.dropped;
    let about = format!("cut at {stage:?}, {at:?}, kept {keep:?}, {lost:?}");
    if life.seed.below(4) == 0 {
        // The next cut may fall into the replay of the journal.
        return Ok(());
    }
    assert!(life.bed.mount(), "no cut is armed");
    *table.epochs.entry(life.bed.job.epochs()).or_default() += 1;
    life.bed
        .job
        .check_as_found()
        .map_err(|why| format!("{about}: {why}"))
}

fn judge(life: &mut Life, table: &mut Table) -> Result<(), String> {
    if life.bed.mounted.is_none() {
        assert!(life.bed.mount(), "no cut is armed");
        life.bed.job.check_as_found()?;
    }
    life.bed.job.drain()?;
    table.judged += 1;
    Ok(())
}

fn live(kind: Kind, number: u64, cuts: u64, table: &mut Table) {
    let mut life = Life::new(kind, number);
    for cut in 1..=cuts {
        let mut end = cut_once(&mut life, table);
        let is_last = cut == cuts;
        if end.is_ok() && (is_last || life.bed.mounted.is_some() && life.seed.below(2) == 0) {
            end = judge(&mut life, table);
        }
        if let Err(why) = end {
            let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
            let image = target.join(format!("powercut-{kind:?}-{number}.img"));
            life.bed.disk.save(&image).unwrap();
            panic!(
                "{kind:?}, life {number}, cut {cut} of {cuts}: {why}\nthe disk is in {}; again: \
                 FOREBAY_SEED={number} FOREBAY_CUTS={cuts} cargo test --test powercut",
                image.display()
            );
        }
    }
    // The last judgement counts all lines of the life.
    table.repairs += life.bed.repairs;
    table.verdict.add(life.bed.job.verdict);
}

/// As many lives as the cuts need; every third on the file system of the second kind.
#[allow(clippy::print_stdout, reason = "a long run shows how far it is")]
fn cut_by_cut(kind: Kind, third: Kind) {
    let start = Instant::now();
    let cuts = number_from("FOREBAY_CUTS").unwrap_or_else(|| if is_long() { 200 } else { 6 });
    let a_life = if is_long() { CUTS_A_LIFE } else { 3 };
    let mut number = number_from("FOREBAY_SEED").unwrap_or(1);
    let mut table = Table::default();
    // On a busy machine a few cuts may meet nothing that is pending, or keep it all.
    let most = 5 * cuts;
    while table.total() < cuts || table.dropped == 0 && table.total() < most {
        let kind = if number.is_multiple_of(3) {
            third
        } else {
            kind
        };
        let left = cuts.saturating_sub(table.total());
        let left = if left == 0 { a_life } else { left };
        live(kind, number, a_life.min(left), &mut table);
        if is_long() {
            println!(
                "{kind:?} life {number}: {} cuts, {}",
                table.total(),
                table.verdict
            );
        }
        number += 1;
    }
    table.print(kind, start.elapsed());
    assert!(table.dropped > 0, "no cut has dropped anything");
    assert!(table.verdict.is_sound());
    assert!(table.verdict.answered > 0 && table.verdict.tailed > 0);
}

#[test]
fn power_cuts_on_ext4_lose_and_invent_nothing() {
    cut_by_cut(Kind::Ext4, Kind::Ext4SmallBlocks);
}

#[test]
fn power_cuts_on_xfs_lose_and_invent_nothing() {
    // A directory block of an XFS on small blocks is several of them, which no disk writes whole.
    cut_by_cut(Kind::Xfs, Kind::Xfs);
}

/// Control: the same harness finds a disk that says Ok to a flush and forgets it.
fn a_lie_is_found_out(kind: Kind) {
    let mut life = Life::new(kind, 7);
    assert!(life.bed.mount());
    let mut agent = life.bed.job.agent();
    life.bed.disk.set_victim(Some(agent.id()));
    life.bed.job.client.connect();
    life.bed.job.feed(100, 100);
    life.bed.disk.set_fault(Fault::Lies);
    for _ in 0..5 {
        life.bed.job.feed(100, 100);
    }
    assert!(life.bed.job.client.is_connected(), "{}", agent.log_tail());
    life.bed.disk.cut_now();
    agent.reap();
    life.bed.job.client.disconnect();
    life.bed.mounted = None;
    life.bed.disk.set_fault(Fault::None);
    let lost = life.bed.disk.revive(Keep::Nothing, &mut life.seed);
    assert!(lost.dropped > 0);
    assert!(life.bed.mount());
    life.bed.job.check_as_found().unwrap();
    let found = life.bed.job.drain().unwrap_err();
    let answered = life.bed.job.client.acknowledged.len();
    assert!(
        found.contains(&format!("{answered} answered OK, ")),
        "{found}"
    );
    assert!(!found.contains("answered OK, 0 lost"), "{found}");
}

#[test]
fn a_disk_that_lies_about_flushes_loses_lines_on_ext4_and_the_judge_says_so() {
    a_lie_is_found_out(Kind::Ext4);
}

#[test]
fn a_disk_that_lies_about_flushes_loses_lines_on_xfs_and_the_judge_says_so() {
    a_lie_is_found_out(Kind::Xfs);
}

/// What of a MiB of `new` over a MiB of `old` is there after a cut, synced or not.
fn overwritten(kind: Kind, seed: u64, sync: bool) -> usize {
    const LEN: usize = 1 << 20;
    let disk = FuseDisk::serve(formatted(kind));
    let at = tempfile::tempdir().unwrap();
    let mounted = Mounted::new(&disk.image(), at.path()).unwrap();
    let path = at.path().join("file");
    let mut file = File::create(&path).unwrap();
    file.write_all(&vec![b'o'; LEN]).unwrap();
    let flushes = disk.requests().1;
    file.sync_all().unwrap();
    File::open(at.path()).unwrap().sync_all().unwrap();
    assert!(
        disk.requests().1 > flushes,
        "no flush has arrived for fsync"
    );
    assert_eq!(disk.pending(), 0, "pending behind fsync");
    drop(file);
    // Past the page cache, so that the bytes are at the disk whether it is flushed or not.
    let direct = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).unwrap();
    let file = File::options()
        .write(true)
        .custom_flags(direct)
        .open(&path)
        .unwrap();
    write_aligned(&file, LEN);
    assert!(
        disk.pending() >= (LEN / medium::SECTOR) as u64,
        "not at the disk"
    );
    if sync {
        file.sync_data().unwrap();
    }
    disk.cut_now();
    drop(file);
    drop(mounted);
    disk.revive(Keep::Each(50), &mut Seeded::new(seed));
    let mounted = Mounted::new(&disk.image(), at.path()).unwrap();
    let bytes = fs::read(&path).unwrap();
    assert_eq!(bytes.len(), LEN);
    for sector in bytes.chunks(medium::SECTOR) {
        assert!(
            sector.iter().all(|byte| *byte == sector[0]),
            "half a sector"
        );
        assert!(matches!(sector[0], b'o' | b'n'));
    }
    drop(mounted);
    disk.cut_now();
    bytes.iter().filter(|byte| **byte == b'n').count() / medium::SECTOR
}

/// Writes `len` times `n` from memory that is aligned as direct writes want it.
fn write_aligned(file: &File, len: usize) {
    let buffer = vec![b'n'; len + 4096];
    let from = buffer.as_ptr().align_offset(4096);
    file.write_all_at(&buffer[from..from + len], 0).unwrap();
}

fn flushes_are_the_difference(kind: Kind) {
    let sectors = (1 << 20) / medium::SECTOR;
    for seed in 0..3 {
        assert_eq!(
            overwritten(kind, seed, true),
            sectors,
            "synced, seed {seed}"
        );
        let kept = overwritten(kind, seed, false);
        let half = sectors / 3..sectors * 2 / 3;
        assert!(
            half.contains(&kept),
            "{kept} of {sectors} without a sync, seed {seed}"
        );
    }
}

#[test]
fn an_ext4_on_this_disk_keeps_what_was_synced_and_half_of_what_was_not() {
    flushes_are_the_difference(Kind::Ext4);
}

#[test]
fn an_xfs_on_this_disk_keeps_what_was_synced_and_half_of_what_was_not() {
    flushes_are_the_difference(Kind::Xfs);
}
