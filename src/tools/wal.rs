//! `forebay wal inspect` and `forebay wal verify`.

use std::io::Write;
use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressStyle};

use crate::channel::file::examine::{LogReport, examine};
use crate::cli::exit;
use crate::env::disk_real::RealDisk;

/// Prints what the log in `dirs` holds; works beside a running agent.
///
/// # Errors
/// Only those of `out` and `err`.
pub fn inspect(
    dirs: &[PathBuf],
    json: bool,
    out: &mut impl Write,
    err: &mut impl Write,
) -> std::io::Result<u8> {
    match examine(&RealDisk, dirs, |_, _| {}) {
        Ok(report) => {
            if json {
                writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
            } else {
                print_segments(&report, out)?;
                print_damage(&report, out)?;
            }
            Ok(exit::CLEAN)
        }
        Err(why) => fail(&why, err),
    }
}

/// Checks every checksum and rule of the log in `dirs`, with a progress bar on stderr; returns
/// exit code 5 when it finds damage.
///
/// # Errors
/// Only those of `out` and `err`.
pub fn verify(
    dirs: &[PathBuf],
    json: bool,
    out: &mut impl Write,
    err: &mut impl Write,
) -> std::io::Result<u8> {
    let bar = bytes_bar();
    let report = examine(&RealDisk, dirs, |read, total| {
        bar.set_length(total);
        bar.set_position(read);
    });
    bar.finish_and_clear();
    match report {
        Ok(report) => {
            if json {
                writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
            } else {
                print_verdict(&report, out)?;
            }
            let sound = report.is_sound();
            Ok(if sound { exit::CLEAN } else { exit::FINDING })
        }
        Err(why) => fail(&why, err),
    }
}

/// A progress bar over bytes, on stderr; nothing where that is no terminal.
pub(super) fn bytes_bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    let style = "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    bar.set_style(
        ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    bar
}

fn fail(why: &str, err: &mut impl Write) -> std::io::Result<u8> {
    writeln!(
        err,
        "error: {why}; give the data directories of one file channel (dataDirs)"
    )?;
    Ok(exit::FAILED)
}

fn print_segments(report: &LogReport, out: &mut impl Write) -> std::io::Result<()> {
    let id = report.channel_id.as_deref().unwrap_or("unknown");
    writeln!(out, "channel {id}, incarnation {}", report.incarnation)?;
    writeln!(
        out,
        "next sequence number {}, acknowledged below {} at the newest snapshot",
        report.next_sequence, report.acknowledged_below
    )?;
    writeln!(
        out,
        "   segment  state      first event     events   frames        end  torn"
    )?;
    for s in &report.segments {
        let first = s
            .first_sequence
            .map_or_else(|| "-".to_owned(), |n| n.to_string());
        writeln!(
            out,
            "{:>10}  {:<9} {first:>12} {:>10} {:>8} {:>10} {:>5}",
            s.segment,
            s.state,
            s.events,
            s.frames.values().sum::<u64>(),
            s.end,
            s.torn_bytes
        )?;
    }
    writeln!(out, "{} prepared segments", report.spares)?;
    for (epoch, first, last, claimed) in &report.open_epochs {
        let state = if *claimed { "claimed" } else { "sealed" };
        writeln!(
            out,
            "epoch {epoch}: events {first} to {last}, {state}, not done"
        )?;
    }
    for path in &report.foreign {
        writeln!(out, "foreign file {}", path.display())?;
    }
    Ok(())
}

fn print_damage(report: &LogReport, out: &mut impl Write) -> std::io::Result<()> {
    for d in &report.damage {
        write!(
            out,
            "DAMAGE segment {} offset {}: {}",
            d.segment, d.offset, d.why
        )?;
        match d.lost {
            Some((first, last)) => write!(out, "; events {first} to {last} are lost")?,
            None => write!(out, "; no event is lost")?,
        }
        if d.control_lost {
            write!(out, "; control records may be lost")?;
        }
        match d.resume {
            Some(at) => writeln!(out, "; read on at {at} ({})", d.path.display())?,
            None => writeln!(out, "; nothing readable follows in {}", d.path.display())?,
        }
    }
    Ok(())
}

fn print_verdict(report: &LogReport, out: &mut impl Write) -> std::io::Result<()> {
    print_damage(report, out)?;
    for s in report.segments.iter().filter(|s| s.torn_bytes > 0) {
        writeln!(
            out,
            "segment {}: torn tail of {} bytes at {}, no damage (a write was cut short)",
            s.segment, s.torn_bytes, s.end
        )?;
    }
    let events: u64 = report.segments.iter().map(|s| s.events).sum();
    let frames: u64 = report.segments.iter().flat_map(|s| s.frames.values()).sum();
    let verdict = if report.is_sound() {
        "sound"
    } else {
        "DAMAGED"
    };
    writeln!(
        out,
        "{} segments, {frames} frames, {events} events: {verdict}",
        report.segments.len()
    )
}
