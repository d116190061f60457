//! Comparison of what the channel shows with what the specification says. Each finding names the
//! number of the promise that is broken (docs/INVARIANTS.md).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use forebay::channel::file::FileChannel;
use forebay::channel::file::examine::examine;
use forebay::channel::file::simulation::{LogView, SteppedChannel};
use forebay::channel::{Channel, ChannelStatus, TakeMode, TakenEvent};
use forebay::env::disk_sim::SimDisk;

use super::queue::{Entry, State};

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    /// Its number and name.
    pub(crate) promise: &'static str,
    pub(crate) what: String,
    /// The step after which it was found; steps count from 0.
    pub(crate) step: Option<usize>,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let step = self
            .step
            .map_or_else(|| "the end".to_owned(), |step| format!("step {step}"));
        write!(f, "{} broken at {step}: {}", self.promise, self.what)
    }
}

pub(crate) type Checked<T = ()> = Result<T, Violation>;

pub(crate) const ONCE: &str = "INV-1 (acknowledged is present exactly once)";
pub(crate) const ENDED: &str = "INV-4 (a log ends by an error and by nothing else)";
pub(crate) const DENSE: &str = "INV-5 (sequence numbers are dense and given once)";
pub(crate) const ANSWERED: &str = "INV-6 (every waiter is answered)";
pub(crate) const EPOCHS: &str = "INV-8 (epochs are numbered once and not forgotten)";
pub(crate) const WHOLE: &str = "INV-13 (a crash keeps whole transactions from the beginning on)";
pub(crate) const ORDER: &str = "INV-14 (order and numbers are those of the put, at every delivery)";
pub(crate) const POSITIONS: &str = "INV-15 (positions go with their events)";
pub(crate) const CAPACITY: &str = "INV-16 (capacity accounts exactly)";
pub(crate) const AGAIN: &str = "INV-17 (recovery is idempotent and never refuses a sound log)";
pub(crate) const VERDICT: &str = "INV-18 (torn and rot are told apart)";
pub(crate) const DRAINS: &str = "INV-19 (what waits can always be drained)";

pub(crate) fn broken<T>(promise: &'static str, what: impl Into<String>) -> Checked<T> {
    Err(Violation {
        promise,
        what: what.into(),
        step: None,
    })
}

pub(crate) fn require(
    holds: bool,
    promise: &'static str,
    what: impl FnOnce() -> String,
) -> Checked {
    match holds {
        true => Ok(()),
        false => broken(promise, what()),
    }
}

/// Whether the channel's durable state is that of the specification.
pub(crate) fn same_state(view: &LogView, state: &State) -> Checked {
    let next = state.events.len() as u64 + 1;
    require(view.next_sequence == next, DENSE, || {
        format!(
            "next sequence number {}, expected {next}",
            view.next_sequence
        )
    })?;
    require(view.lost.is_empty() && !view.control_lost, VERDICT, || {
        format!(
            "undamaged, and yet lost: {:?}, {}",
            view.lost, view.control_lost
        )
    })?;
    let shown = view.positions.iter().map(|p| (&p.key, &p.value));
    require(shown.eq(state.positions.iter()), POSITIONS, || {
        format!("{:?}, expected {:?}", view.positions, state.positions)
    })?;
    let epochs = view.epochs.iter().eq(state.epochs.values());
    require(
        epochs && view.next_epoch == state.next_epoch,
        EPOCHS,
        || {
            let (shown, all) = (&view.epochs, &state.epochs);
            format!(
                "next {} of {shown:?}, expected {} of {all:?}",
                view.next_epoch, state.next_epoch
            )
        },
    )?;
    require(view.fenced_through == state.fenced_through, EPOCHS, || {
        format!(
            "fenced through {}, expected {}",
            view.fenced_through, state.fenced_through
        )
    })?;
    let cursor = state.cursor();
    let ranges = view.acked.iter().flat_map(|r| r.first.0..=r.last.0);
    let above = state.acked.range(cursor..).copied();
    require(view.cursor == cursor && ranges.eq(above), ONCE, || {
        let acked = &state.acked;
        format!(
            "cursor {} with {:?}, expected {cursor} of {acked:?}",
            view.cursor, view.acked
        )
    })?;
    require(view.incarnations == state.opened, EPOCHS, || {
        format!(
            "incarnations {:?}, expected {:?}",
            view.incarnations, state.opened
        )
    })?;
    require(view.next_control == state.controls, WHOLE, || {
        format!("{} records, expected {}", view.next_control, state.controls)
    })
}

/// Which beginnings of a list a crash may have kept.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    pub(crate) least: usize,
    pub(crate) most: usize,
    /// Opens that failed: each may have left a record of itself or not.
    pub(crate) unknown_opens: usize,
}

/// Which beginning it is, and the opens behind it (the last is the running one).
pub(crate) fn recognise(
    view: &LogView,
    entries: &[Entry],
    bounds: &Bounds,
) -> Checked<(usize, Vec<(u32, u64)>)> {
    let mut state = State::of(&entries[..bounds.least]);
    let mut nearest: Option<Violation> = None;
    let mut found = None;
    for kept in bounds.least..=bounds.most {
        if kept > bounds.least {
            state.apply(&entries[kept - 1]);
        }
        match behind(view, &state, bounds.unknown_opens) {
            Ok(opened) => found = Some((kept, opened)),
            // The one that agrees in the numbers of events tells most.
            Err(why) if nearest.as_ref().is_none_or(|n| n.promise == DENSE) => nearest = Some(why),
            Err(_) => {}
        }
    }
    match (found, nearest) {
        (Some(found), _) => Ok(found),
        (None, Some(mut violation)) => {
            let Bounds { least, most, .. } = bounds;
            let events = State::of(&entries[..*least]).events.len();
            if violation.promise == DENSE {
                let too_few = view.next_sequence <= events as u64;
                violation.promise = if too_few { ONCE } else { WHOLE };
            }
            violation.what = format!(
                "no beginning of {least} to {most} entries ({events} events at least) is what is \
                 shown; the nearest: {}",
                violation.what
            );
            Err(violation)
        }
        (None, None) => broken(WHOLE, "no beginning is possible"),
    }
}

/// Whether this is the state with some opens behind it.
fn behind(view: &LogView, state: &State, unknown: usize) -> Checked<Vec<(u32, u64)>> {
    let known = state.opened.len().min(view.incarnations.len());
    let opened = view.incarnations[known..].to_vec();
    require((1..=unknown + 1).contains(&opened.len()), EPOCHS, || {
        let expected = &state.opened;
        format!("incarnations {:?} after {expected:?}", view.incarnations)
    })?;
    let numbers = opened.iter().map(|(number, _)| *number as usize);
    require(numbers.eq(known + 1..=known + opened.len()), EPOCHS, || {
        format!("incarnations are not counted: {:?}", view.incarnations)
    })?;
    let mut with_opens = state.clone();
    for (number, nonce) in &opened {
        with_opens.apply(&Entry::Opened(*number, *nonce));
    }
    same_state(view, &with_opens).map(|()| opened)
}

/// The sums of the status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) waiting: u64,
    pub(crate) held: u64,
    pub(crate) sealed: u64,
}

pub(crate) fn same_sums(status: &ChannelStatus, sums: Sums) -> Checked {
    let shown = Sums {
        waiting: status.waiting,
        held: status.leased,
        sealed: status.sealed_unpublished,
    };
    require(shown == sums && status.corrupt == 0, CAPACITY, || {
        format!(
            "{shown:?} and {} corrupt, expected {sums:?}",
            status.corrupt
        )
    })
}

/// Whether an event is, to the last byte, what was put under its number.
pub(crate) fn is_what_was_put(taken: &TakenEvent, state: &State) -> Checked {
    let place = usize::try_from(taken.seq.0).unwrap_or(0).checked_sub(1);
    let item = place.and_then(|place| state.events.get(place));
    require(item.is_some_and(|item| item.is(taken)), ORDER, || {
        let (size, time) = (taken.event.body.len(), taken.event.put_time_ms);
        format!(
            "event {} of {size} bytes at {time} is not what was put: {item:?}",
            taken.seq
        )
    })
}

/// Takes everything that waits, and looks at every event.
pub(crate) fn drained(channel: &Arc<FileChannel>, state: &State) -> Checked {
    let sealed: std::collections::BTreeSet<u64> = state.sealed().collect();
    let numbers = 1..=state.events.len() as u64;
    let mut waiting = numbers.filter(|n| !state.acked.contains(n) && !sealed.contains(n));
    let failed = |e| broken(ORDER, format!("what waits cannot be taken: {e}"));
    let mut leases = Vec::new();
    loop {
        // A lease holds one run; what is acknowledged or sealed in the middle ends it.
        let lease = match channel.open_lease(TakeMode::Batch) {
            Ok(lease) => lease,
            Err(error) => return failed(error),
        };
        leases.push(lease);
        let mut given = 0;
        loop {
            let batch = match channel.lease_take(lease, 1000, usize::MAX) {
                Ok(batch) => batch,
                Err(error) => return failed(error),
            };
            require(batch.lost.is_empty(), VERDICT, || {
                format!("lost: {:?}", batch.lost)
            })?;
            if batch.is_empty() {
                break;
            }
            for taken in &batch.events {
                let expected = waiting.next();
                require(expected == Some(taken.seq.0), ORDER, || {
                    format!("event {} was given, expected {expected:?}", taken.seq)
                })?;
                is_what_was_put(taken, state)?;
                given += 1;
            }
        }
        if given == 0 {
            break;
        }
    }
    leases
        .into_iter()
        .for_each(|lease| channel.release_lease(lease));
    let missing = waiting.next();
    require(missing.is_none(), ONCE, || {
        format!("event {missing:?} is missing")
    })
}

/// What an open has found, where nothing is damaged: no damage; and a torn tail only behind what
/// was durable, or not at all.
pub(crate) fn verdict(
    channel: &SteppedChannel,
    durable_end: Option<(u32, u32)>,
    tears: bool,
) -> Checked {
    let found = channel.found();
    require(found.damage.is_empty(), VERDICT, || {
        format!("undamaged, and yet damage is reported: {:?}", found.damage)
    })?;
    let Some((segment, offset, _)) = found.torn else {
        return Ok(());
    };
    require(tears, VERDICT, || {
        format!("nothing was torn, and yet a torn tail at {segment}:{offset}")
    })?;
    let behind = durable_end.is_none_or(|end| (segment, offset) >= end);
    require(behind, VERDICT, || {
        format!("torn at {segment}:{offset}, in front of the durable end {durable_end:?}")
    })
}

/// INV-18 for `forebay wal verify`: whatever a crash has left, none of it is damage. (A first start
/// that was cut short has left no segment, or no `channel` file.)
pub(crate) fn verified(image: &SimDisk, dirs: &[PathBuf]) -> Checked {
    let Ok(report) = examine(image, dirs, |_, _| {}) else {
        return Ok(());
    };
    let marker = |path: &Path| path.file_name().is_some_and(|name| name == "channel");
    let mut damage = report.damage.iter().filter(|damage| !marker(&damage.path));
    let first = damage.next();
    require(first.is_none(), VERDICT, || {
        format!("undamaged, and yet verify reports damage: {first:?}")
    })
}
