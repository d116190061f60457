//! `forebay wal salvage`: what is intact in a damaged log becomes a new channel; the report says
//! what became of every sequence number.

use std::io::Write;
use std::sync::Arc;

use crate::channel::file::OpenError;
use crate::channel::file::salvage::{
    PossiblyDelivered, Request, SalvageError, SalvageReport, Span, salvage,
};
use crate::cli::exit;
use crate::env::clock;
use crate::env::disk::Disk;
use crate::env::disk_real::RealDisk;

/// Salvages; returns exit code 5 when an event is lost or may have been delivered already.
///
/// # Errors
/// Only those of `out` and `err`.
pub fn run(
    request: &Request,
    json: bool,
    out: &mut impl Write,
    err: &mut impl Write,
) -> std::io::Result<u8> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let bar = super::wal::bytes_bar();
    let done = salvage(&disk, &clock::system(), request, |read, total| {
        bar.set_length(total);
        bar.set_position(read);
    });
    bar.finish_and_clear();
    let report = match done {
        Ok(report) => report,
        Err(error) => {
            writeln!(err, "error: {error}")?;
            return Ok(exit_code(&error));
        }
    };
    // Empty now; where it is not, it does no harm.
    let _left = std::fs::remove_dir(report.to.join("salvaging"));
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        print(&report, out)?;
    }
    Ok(match report.is_complete() {
        true => exit::CLEAN,
        false => exit::FINDING,
    })
}

fn exit_code(error: &SalvageError) -> u8 {
    match error {
        SalvageError::Open(OpenError::InUse { .. }) => exit::IN_USE,
        SalvageError::Usage { .. } => exit::USAGE,
        _ => exit::FAILED,
    }
}

/// `events 1 to 5`, or `event 5`.
fn events(first: u64, last: u64) -> String {
    match first == last {
        true => format!("event {first}"),
        false => format!("events {first} to {last}"),
    }
}

fn print(report: &SalvageReport, out: &mut impl Write) -> std::io::Result<()> {
    let short = |id: &str| id.chars().take(12).collect::<String>();
    writeln!(
        out,
        "channel {}: {} events of it are now the channel {} in {}",
        short(&report.old_channel),
        report.kept_events(),
        short(&report.new_channel),
        report.to.display()
    )?;
    for run in &report.kept {
        let (last, new_last) = (run.last, run.new_first + run.count() - 1);
        writeln!(
            out,
            "kept      {} (new numbers {} to {new_last})",
            events(run.first, last),
            run.new_first
        )?;
    }
    for Span { first, last } in &report.delivered {
        writeln!(
            out,
            "delivered {}: acknowledged by sinks, not copied",
            events(*first, *last)
        )?;
    }
    for Span { first, last } in &report.lost {
        writeln!(out, "LOST      {}: unreadable", events(*first, *last))?;
    }
    print_doubts(report, out)?;
    print_epochs(report, out)?;
    print_positions(report, out)?;
    for (path, why) in &report.unusable_files {
        writeln!(out, "unusable  {}: {why}", path.display())?;
    }
    for segment in &report.salts_found {
        writeln!(
            out,
            "header    of segment {segment} is lost; its frames prove each other"
        )?;
    }
    let from: Vec<String> = report
        .dirs
        .iter()
        .map(|dir| dir.display().to_string())
        .collect();
    writeln!(
        out,
        "next      set dataDirs to {} and start the agent. Never start one on {} again: it would \
         publish the same events under the old id",
        report.to.display(),
        from.join(", ")
    )
}

fn print_doubts(report: &SalvageReport, out: &mut impl Write) -> std::io::Result<()> {
    let came = match report.possibly_delivered_option {
        PossiblyDelivered::Keep => "kept, so they may come twice",
        PossiblyDelivered::LeaveOut => "left out, so they may never come",
    };
    for p in &report.possibly_delivered {
        writeln!(
            out,
            "POSSIBLY DELIVERED {}: {}; those that are intact are {came}",
            events(p.first, p.last),
            p.why
        )?;
    }
    if let Some(Span { first, last }) = report.unknown {
        writeln!(
            out,
            "UNKNOWN   {}: no snapshot is left to tell; acknowledged and deleted, unless a file \
             of the log is missing",
            events(first, last)
        )?;
    }
    if let Some(tail) = &report.tail {
        writeln!(
            out,
            "tail      segment {} ends in {} bad bytes at {}: a write that was cut short, or \
             damage of the last synced group; possibly acknowledged: events from {} on",
            tail.segment, tail.bytes, tail.offset, tail.possibly_acknowledged_from
        )?;
    }
    Ok(())
}

fn print_epochs(report: &SalvageReport, out: &mut impl Write) -> std::io::Result<()> {
    for epoch in &report.open_epochs {
        let state = match epoch.claimed {
            true => "claimed, not done",
            false => "sealed, not claimed",
        };
        writeln!(
            out,
            "epoch {}   {} of sink {}, {state}: {}",
            epoch.epoch,
            events(epoch.first, epoch.last),
            epoch.sink,
            epoch.advice
        )?;
        for file in &epoch.files {
            writeln!(out, "          {file}")?;
        }
    }
    Ok(())
}

fn print_positions(report: &SalvageReport, out: &mut impl Write) -> std::io::Result<()> {
    let count = report.positions.len();
    match report.positions_complete {
        true => writeln!(out, "positions {count} read positions came along")?,
        false => writeln!(
            out,
            "positions {count} read positions came along, those of the events that are left; a \
             file without one is read from its beginning"
        )?,
    }
    for Span { first, last } in &report.positions_before {
        writeln!(
            out,
            "          the positions in {} are gone: a source that wrote none behind them reads \
             from there again",
            events(*first, *last)
        )?;
    }
    Ok(())
}
