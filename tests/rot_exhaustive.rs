//! A small log that holds a record of every kind rots in every place, one at a time: each bit is
//! flipped, each sector is zeroed or cannot be read. No event is ever wrong, nothing panics or
//! hangs, and all damage below the watermark is reported. `FOREBAY_LONG=1` flips every bit; the
//! short form a stated part of them. See `support/rot/log.rs` for the log, `support/rot/judge.rs`
//! for what must hold.
#![cfg(feature = "simulation")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a failed step fails its test; the counts are the result; a watch looks now and then"
)]

#[path = "support/rot/mod.rs"]
mod rot;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use forebay::channel::file::salvage::{PossiblyDelivered, SalvageError};
use forebay::env::disk_sim::SimDisk;
use rot::judge::{Case, Outcome, Rot, judge, judge_salvage, judge_salvaged, salvage_from};
use rot::log::{Segment, Truth, data, open_at};

/// Unused zeros behind the last frame of which every bit is flipped; behind them one a sector.
const MARGIN: usize = 256;
const SECTOR: usize = 512;
/// No case takes that long.
const HANG: Duration = Duration::from_secs(60);

fn long() -> bool {
    std::env::var_os("FOREBAY_LONG").is_some()
}

/// Ends the process when a case does not end.
struct Watch(Arc<Mutex<(String, Option<Instant>)>>);

impl Watch {
    fn start() -> Self {
        let watch = Self(Arc::default());
        let state = Arc::clone(&watch.0);
        std::thread::spawn(move || {
            while Arc::strong_count(&state) > 1 {
                std::thread::sleep(Duration::from_millis(500));
                let (case, since) = state.lock().unwrap().clone();
                if since.is_some_and(|since| since.elapsed() > HANG) {
                    eprintln!("HANG: {case}");
                    std::process::abort();
                }
            }
        });
        watch
    }

    /// Runs a case; a panic names it.
    fn run<T>(&self, case: &dyn std::fmt::Display, work: impl FnOnce() -> T) -> T {
        *self.0.lock().unwrap() = (case.to_string(), Some(Instant::now()));
        let outcome = catch_unwind(AssertUnwindSafe(work));
        self.0.lock().unwrap().1 = None;
        outcome.unwrap_or_else(|panic| {
            eprintln!("the case is: {case}");
            std::panic::resume_unwind(panic)
        })
    }
}

/// Cases by outcome, and how many salvages were judged.
#[derive(Default)]
struct Counts {
    outcomes: BTreeMap<Outcome, u64>,
    salvages: u64,
}

impl Counts {
    fn print(&self, what: &str, since: Instant) {
        let cases: u64 = self.outcomes.values().sum();
        let seconds = since.elapsed().as_secs_f64();
        eprintln!(
            "{what}: {cases} cases, {:.0} a second, {} of them salvaged; {:?}",
            cases as f64 / seconds.max(0.001),
            self.salvages,
            self.outcomes
        );
    }

    fn of(&self, outcome: Outcome) -> u64 {
        self.outcomes.get(&outcome).copied().unwrap_or(0)
    }
}

/// Judges all cases; every `salvage_each`-th is salvaged too.
fn run(truth: &Truth, cases: impl Iterator<Item = Case>, salvage_each: u64) -> Counts {
    let watch = Watch::start();
    let mut counts = Counts::default();
    for (index, case) in (0..).zip(cases) {
        let outcome = watch.run(&case, || judge(&case, truth));
        *counts.outcomes.entry(outcome).or_default() += 1;
        if index % salvage_each == 0 {
            let choice = match index / salvage_each % 2 {
                0 => PossiblyDelivered::Keep,
                _ => PossiblyDelivered::LeaveOut,
            };
            let report = watch.run(&case, || judge_salvage(&case.disk(truth), truth, choice));
            if outcome == Outcome::Possibly {
                assert!(report.tail.is_some(), "{case}: the tail is not named");
            }
            counts.salvages += 1;
        }
    }
    counts
}

/// The bytes of a segment of which every bit is flipped, and in the short form how many bits of
/// each byte: one, and one in 64 bytes of what no one has written (headers are zeros but for their
/// first 70 bytes).
fn bits(segment: &Segment) -> Vec<(usize, u8)> {
    let len = segment.bytes.len();
    let used_end = (segment.end + MARGIN).min(len);
    let mut bits = Vec::new();
    for at in 0..len {
        let second = if segment.two_headers { len - 4096 } else { len };
        let field = at < 70 || (second..second + 70).contains(&at);
        let header = at < 4096 || at >= second;
        let every: &[u8] = &[0, 1, 2, 3, 4, 5, 6, 7];
        let one = &every[at % 8..=at % 8];
        let chosen = match () {
            () if !header && at >= used_end => match at % SECTOR == 77 {
                true => one,
                false => &[],
            },
            () if long() => every,
            () if (header && !field || !header && at >= segment.end) && at % 64 != 3 => &[],
            () => one,
        };
        bits.extend(chosen.iter().map(|bit| (at, *bit)));
    }
    bits
}

#[test]
fn each_bit_flipped_is_never_a_wrong_event_and_below_the_watermark_always_reported() {
    let truth = Truth::new();
    let since = Instant::now();
    let segments = truth.segments.iter().flat_map(|segment| {
        let flips = bits(segment).into_iter();
        flips.map(|(at, bit)| Case {
            path: segment.path.clone(),
            rot: Rot::Flip { at, bit },
        })
    });
    let marker = (0..4096 * 8).filter(|n| long() || *n < 72 * 8 || n % 4096 == 5);
    let marker = marker.map(|n| Case {
        path: data().join("channel"),
        rot: Rot::Flip {
            at: n / 8,
            bit: (n % 8) as u8,
        },
    });
    let counts = run(&truth, segments.chain(marker), 97);
    counts.print("bits", since);
    for outcome in [
        Outcome::Open,
        Outcome::Take,
        Outcome::Verify,
        Outcome::Possibly,
    ] {
        assert!(counts.of(outcome) > 100, "{outcome:?} is hardly met");
    }
    assert_eq!(
        counts.of(Outcome::Traceless),
        0,
        "a flipped bit leaves a trace"
    );
}

/// Every sector of every file. Zeroing zeros changes nothing, so those are left out of `Rot::Zero`;
/// the short form takes one in 16 of the sectors that no one has written where they cannot be read.
fn sectors(truth: &Truth, rot: fn(std::ops::Range<usize>) -> Rot) -> Vec<Case> {
    let files = truth.disk.files();
    let ours = files.iter().filter(|path| !path.ends_with("lock"));
    let each = ours.flat_map(|path| {
        let content = truth.disk.content(path).unwrap();
        let places = (0..content.len()).step_by(SECTOR);
        places.filter_map(move |at| {
            let range = at..(at + SECTOR).min(content.len());
            let unused = content[range.clone()].iter().all(|byte| *byte == 0);
            let rot = rot(range);
            let taken = match rot {
                _ if !unused => true,
                Rot::Zero(_) => false,
                _ => long() || at / SECTOR % 16 == 7,
            };
            taken.then(|| Case {
                path: path.clone(),
                rot,
            })
        })
    });
    each.collect()
}

/// Frames fill ten sectors: two of them are named at an open or a take, two may be a write that
/// was cut short, and verify alone names those of which all was delivered.
fn met(counts: &Counts) {
    assert!(counts.of(Outcome::Open) + counts.of(Outcome::Take) >= 2);
    assert!(counts.of(Outcome::Possibly) >= 2 && counts.of(Outcome::Verify) > 8);
}

#[test]
fn each_sector_zeroed_is_never_a_wrong_event_and_below_the_watermark_always_reported() {
    let truth = Truth::new();
    let since = Instant::now();
    let counts = run(&truth, sectors(&truth, Rot::Zero).into_iter(), 1);
    counts.print("zeroed sectors", since);
    met(&counts);
}

#[test]
fn each_unreadable_sector_is_never_a_wrong_event_and_below_the_watermark_always_reported() {
    let truth = Truth::new();
    let since = Instant::now();
    let counts = run(&truth, sectors(&truth, Rot::Unreadable).into_iter(), 1);
    counts.print("unreadable sectors", since);
    met(&counts);
}

/// Numbers by seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound.max(1) as u64) as usize
    }
}

/// One to six damages of any kind: bits, zeros, unreadable ranges, cut and missing files.
fn ruin(truth: &Truth, seed: u64) -> (SimDisk, String) {
    use forebay::env::disk::{Disk, WriteBackend};
    let mut dice = Dice(seed);
    let disk = truth.disk.kill();
    let mut told = Vec::new();
    for _ in 0..=dice.below(6) {
        let segment = &truth.segments[dice.below(truth.segments.len())];
        let (path, len) = (&segment.path, segment.bytes.len());
        let used = |dice: &mut Dice| match dice.below(4) {
            0 => dice.below(4096),
            1 => len - 1 - dice.below(4096.min(len)),
            _ => 4096 + dice.below(segment.end - 4096),
        };
        let at = used(&mut dice);
        let to = (at + 1 + dice.below(3000)).min(len);
        let what = dice.below(12);
        told.push(format!("{} {what} {at}..{to}", segment.number));
        // A file that is gone already is damaged enough.
        match what {
            0..=5 => drop(disk.flip(path, at, dice.below(8) as u8)),
            6 | 7 => drop(disk.zero(path, at..to)),
            8 => drop(disk.fail_reads(path, at as u64..to as u64)),
            9 => {
                for at in [0, len - 4096] {
                    drop(disk.zero(path, at..at + 512));
                }
            }
            10 => {
                let cut = disk.open(path, true, WriteBackend::Pwrite);
                drop(cut.and_then(|file| file.truncate(at as u64)));
            }
            _ => drop(disk.remove(path)),
        }
    }
    if dice.below(8) == 0 {
        drop(disk.remove(&data().join("channel")));
        told.push("no marker".to_owned());
    }
    (disk, format!("seed {seed}: {told:?}"))
}

/// Whatever is broken, also so that no agent opens the log: what is salvaged was written, each
/// number has one fate, and nothing that may come twice is kept in silence.
#[test]
fn a_log_ruined_in_any_way_is_salvaged_as_its_report_says() {
    let truth = Truth::new();
    let watch = Watch::start();
    let rounds = if long() { 200_000 } else { 800 };
    let (mut refused, mut nothing, mut kept, mut complete) = (0, 0, 0, 0);
    let since = Instant::now();
    for seed in 0..rounds {
        let (disk, told) = ruin(&truth, seed);
        let choice = match seed % 2 {
            0 => PossiblyDelivered::Keep,
            _ => PossiblyDelivered::LeaveOut,
        };
        watch.run(&told, || {
            refused += u64::from(open_at(&disk.kill(), &truth.clock, data()).is_err());
            let segments = disk.files().iter().any(|p| is_segment(p));
            if !segments {
                nothing += 1;
                return;
            }
            let report = match salvage_from(&disk, &truth, choice) {
                Ok(report) => judge_salvaged(&disk, &truth, report),
                Err(error @ SalvageError::Usage { .. }) => {
                    let said = error.to_string();
                    assert!(said.contains("header can be read"), "{said}");
                    nothing += 1;
                    return;
                }
                Err(error) => panic!("{error}"),
            };
            kept += report.kept_events();
            complete += u64::from(report.is_complete());
        });
    }
    eprintln!(
        "ruined logs: {rounds} ({:.0} a second), {refused} of them do not open, {nothing} without \
         anything to go by; {kept} events kept, {complete} complete",
        rounds as f64 / since.elapsed().as_secs_f64()
    );
    assert!(refused > rounds / 100, "hardly any log is refused");
    assert!(kept > rounds, "hardly any event is kept");
}

fn is_segment(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_str().unwrap();
    path.parent() == Some(data().as_path()) && name.starts_with("segment-")
}
