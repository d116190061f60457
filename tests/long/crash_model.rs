//! The long form of the crash model: as many crashes as wanted, from a seed on; or every crash of
//! every short history. Started by `crash-model.sh`.

#![allow(clippy::print_stdout, reason = "it reports to whoever started it")]

#[path = "../model/mod.rs"]
mod model;

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use model::exhaustive::{self, Scope};
use model::{Stats, Violation};

const USAGE: &str = "crash-model [--from SEED] [--crashes N] [--jobs N]
crash-model --bytes HEX
crash-model --all LENGTH [--twice LENGTH] [--jobs N]";

/// What was asked for.
struct Wanted {
    from: u64,
    crashes: u64,
    jobs: usize,
    bytes: Option<Vec<u8>>,
    /// All histories up to this length.
    all: Option<u32>,
    /// With every crash inside every recovery up to this one.
    twice: u32,
}

fn wanted() -> Option<Wanted> {
    let mut wanted = Wanted {
        from: 0,
        crashes: 1_000_000,
        jobs: 2,
        bytes: None,
        all: None,
        twice: 0,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next()?;
        match word.as_str() {
            "--from" => wanted.from = value.parse().ok()?,
            "--crashes" => wanted.crashes = value.parse().ok()?,
            "--jobs" => wanted.jobs = value.parse().ok()?,
            "--bytes" => wanted.bytes = Some(of_hex(&value)?),
            "--all" => wanted.all = Some(value.parse().ok()?),
            "--twice" => wanted.twice = value.parse().ok()?,
            _ => return None,
        }
    }
    Some(wanted)
}

fn of_hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    rest.is_empty().then(|| pairs.iter().map(byte).collect())?
}

fn main() -> ExitCode {
    let Some(wanted) = wanted() else {
        println!("{USAGE}");
        return ExitCode::from(2);
    };
    // A panic of the channel is a finding and is told as one.
    std::panic::set_hook(Box::new(|_| {}));
    if let Some(bytes) = wanted.bytes {
        return match model::run(&bytes) {
            Ok(stats) => {
                println!("no promise broken; {stats:?}");
                ExitCode::SUCCESS
            }
            Err(violation) => {
                println!("{violation}\n{}", model::described(&bytes));
                ExitCode::FAILURE
            }
        };
    }
    let begun = Instant::now();
    if let Some(length) = wanted.all {
        return every_history(length, wanted.twice, wanted.jobs.max(1) as u64, begun);
    }
    let long = Long::new(&wanted);
    std::thread::scope(|scope| {
        for _ in 0..wanted.jobs.max(1) {
            scope.spawn(|| long.work(begun));
        }
    });
    long.report(begun)
}

/// All histories up to a length, shared by some threads.
fn every_history(length: u32, twice: u32, jobs: u64, begun: Instant) -> ExitCode {
    let scope = Scope { length, twice };
    let parts = std::thread::scope(|scope_of_threads| {
        let search = move |part| {
            let mut said = 0;
            exhaustive::search(scope, (part, jobs), |count| {
                let seconds = begun.elapsed().as_secs();
                if part == 0 && seconds >= said + 10 {
                    said = seconds;
                    println!("{seconds:5} s  part 1 of {jobs}: {count:?}");
                }
            })
        };
        let threads: Vec<_> = (0..jobs)
            .map(|part| scope_of_threads.spawn(move || search(part)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join())
            .collect::<Vec<_>>()
    });
    let mut all = exhaustive::Count::default();
    for part in parts {
        match part {
            Ok(Ok(count)) => all += count,
            Ok(Err((word, violation))) => {
                println!("{word:?}: {violation}");
                return ExitCode::FAILURE;
            }
            Err(_) => return ExitCode::FAILURE,
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("{all:#?}\nall histories of up to {length} steps ({twice} with crashes in recovery)");
    println!(
        "in {seconds:.1} s, {:.0} recoveries a second; 0 violations",
        all.recovered as f64 / seconds
    );
    ExitCode::SUCCESS
}

/// A long run, shared by its threads.
struct Long {
    crashes: u64,
    next: AtomicU64,
    stop: AtomicBool,
    done: Mutex<Stats>,
    broken: Mutex<Option<(u64, Violation)>>,
    said: AtomicU64,
}

impl Long {
    fn new(wanted: &Wanted) -> Self {
        Self {
            crashes: wanted.crashes,
            next: AtomicU64::new(wanted.from),
            stop: AtomicBool::new(false),
            done: Mutex::default(),
            broken: Mutex::default(),
            said: AtomicU64::new(0),
        }
    }

    fn stats(&self) -> std::sync::MutexGuard<'_, Stats> {
        self.done
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn work(&self, begun: Instant) {
        while !self.stop.load(Ordering::Relaxed) {
            let seed = self.next.fetch_add(1, Ordering::Relaxed);
            match model::run(&model::history::bytes_of_seed(seed)) {
                Ok(stats) => {
                    let mut all = self.stats();
                    *all += stats;
                    let enough = all.crashes >= self.crashes;
                    self.progress(&all, seed, begun);
                    drop(all);
                    self.stop.fetch_or(enough, Ordering::Relaxed);
                }
                Err(violation) => {
                    self.stop.store(true, Ordering::Relaxed);
                    let mut broken = self.broken.lock();
                    if let Ok(broken) = &mut broken {
                        broken.get_or_insert((seed, violation));
                    }
                }
            }
        }
    }

    /// Every ten seconds.
    fn progress(&self, all: &Stats, seed: u64, begun: Instant) {
        let seconds = begun.elapsed().as_secs();
        if seconds >= self.said.load(Ordering::Relaxed) + 10 {
            self.said.store(seconds, Ordering::Relaxed);
            let rate = all.crashes / seconds.max(1);
            println!(
                "{seconds:5} s  {:9} crashes  {rate:6} a second  seed {seed}",
                all.crashes
            );
        }
    }

    fn report(&self, begun: Instant) -> ExitCode {
        let all = *self.stats();
        let seconds = begun.elapsed().as_secs_f64();
        println!("{all:#?}");
        println!(
            "{} crashes ({} inside a recovery) in {seconds:.1} s: {:.0} a second; go on with \
             --from {}",
            all.crashes,
            all.in_recovery,
            all.crashes as f64 / seconds,
            self.next.load(Ordering::Relaxed)
        );
        let broken = self
            .broken
            .lock()
            .map(|broken| broken.clone())
            .unwrap_or_default();
        let Some((seed, violation)) = broken else {
            println!("0 violations");
            return ExitCode::SUCCESS;
        };
        let bytes = model::history::bytes_of_seed(seed);
        println!("seed {seed}: {violation}\n{}", model::described(&bytes));
        let small = model::minimised(&bytes, &violation);
        let why = model::run(&small).err();
        println!("minimised: {why:?}\n{}", model::described(&small));
        ExitCode::FAILURE
    }
}
