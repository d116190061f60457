//! Random histories on the file channel over the simulated disk, held against a specification
//! of one page (`queue`).
//!
//! *Parts*: `history` (what happens, made from bytes), `queue` (the specification), `driver` (runs
//! a history), `deeds` (what sources and sinks do), `calls` (what waits for an answer), `endings`
//! (how processes end), `crash` (crash images, recovered and crashed again), `check` (comparisons,
//! each with the number of its promise).
//!
//! *Use*: [`run`] is a plain function from bytes to a result; the test, the long form, the fuzz
//! target and the suite of planted bugs all call it.

#![allow(dead_code, reason = "each driver uses a part of it")]

mod calls;
pub(crate) mod check;
mod crash;
mod deeds;
mod driver;
mod dump;
mod endings;
pub(crate) mod exhaustive;
pub(crate) mod history;
mod queue;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub(crate) use check::Violation;

use driver::Driver;
use history::{History, UNIT};

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stats {
    pub(crate) histories: u64,
    pub(crate) steps: u64,
    /// Disk images that were recovered and checked.
    pub(crate) crashes: u64,
    /// Those of them that were crashes inside a recovery.
    pub(crate) in_recovery: u64,
    /// Most recoveries behind one another that were cut short.
    pub(crate) deepest: usize,
    pub(crate) answers: u64,
    pub(crate) taken: u64,
    pub(crate) full: u64,
    /// Errors that were ordered.
    pub(crate) faults: u64,
    /// Logs that ended by an error.
    pub(crate) failures: u64,
    pub(crate) opens_failed: u64,
    pub(crate) refused_for_space: u64,
}

impl std::ops::AddAssign for Stats {
    fn add_assign(&mut self, other: Self) {
        self.histories += other.histories;
        self.steps += other.steps;
        self.crashes += other.crashes;
        self.in_recovery += other.in_recovery;
        self.deepest = self.deepest.max(other.deepest);
        self.answers += other.answers;
        self.taken += other.taken;
        self.full += other.full;
        self.faults += other.faults;
        self.failures += other.failures;
        self.opens_failed += other.opens_failed;
        self.refused_for_space += other.refused_for_space;
    }
}

/// Runs the history that `bytes` are.
///
/// # Errors
/// The first promise that was seen broken. A panic of the channel counts as one.
pub(crate) fn run(bytes: &[u8]) -> Result<Stats, Violation> {
    guarded(|step| run_history(bytes, step))
}

/// Runs a history where it may wait for time, with its own random numbers, and catches a panic.
fn guarded<T>(
    history: impl FnOnce(&Cell<Option<usize>>) -> Result<T, Violation>,
) -> Result<T, Violation> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    let _entered = runtime.as_ref().map(tokio::runtime::Runtime::enter);
    forebay::env::random::seed_this_thread(Some(0x0f0e_bea1));
    let step = Cell::new(None);
    let outcome = catch_unwind(AssertUnwindSafe(|| history(&step)));
    forebay::env::random::seed_this_thread(None);
    let violation = match outcome {
        Ok(Ok(done)) => return Ok(done),
        Ok(Err(violation)) => violation,
        Err(panic) => Violation {
            promise: "a panic: an assertion",
            what: said(panic.as_ref()),
            step: None,
        },
    };
    Err(Violation {
        step: step.get(),
        ..violation
    })
}

fn run_history(bytes: &[u8], at: &Cell<Option<usize>>) -> Result<Stats, Violation> {
    let history = History::decode(bytes);
    let mut driver = Driver::new(history.setup, 0)?;
    for (number, step) in history.steps.iter().enumerate() {
        at.set(Some(number));
        driver.step(step)?;
    }
    at.set(None);
    driver.finish()?;
    driver.stats.histories = 1;
    Ok(driver.stats)
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("without words").to_owned()
}

/// A shorter history that breaks the same promise.
pub(crate) fn minimised(bytes: &[u8], violation: &Violation) -> Vec<u8> {
    let breaks = |bytes: &[u8]| run(bytes).is_err_and(|v| v.promise == violation.promise);
    let end = violation.step.map_or(bytes.len(), |step| (step + 2) * UNIT);
    let mut best = bytes[..end.min(bytes.len())].to_vec();
    if !breaks(&best) {
        best = bytes.to_vec();
    }
    let mut size = best.len() / UNIT / 2;
    while size > 0 {
        let mut at = UNIT;
        while at < best.len() {
            let mut shorter = best.clone();
            shorter.drain(at..(at + size * UNIT).min(best.len()));
            if breaks(&shorter) {
                best = shorter;
            } else {
                at += size * UNIT;
            }
        }
        size /= 2;
    }
    best
}

/// A history for people, with what to type to run it again.
pub(crate) fn described(bytes: &[u8]) -> String {
    let history = History::decode(bytes);
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let steps = history.steps.iter().enumerate();
    let steps: String = steps
        .map(|(n, step)| format!("  {n:3} {:?}\n", step.op))
        .collect();
    format!(
        "{:?}\n{steps}again: tests/long/crash-model.sh --bytes {hex}",
        history.setup
    )
}
