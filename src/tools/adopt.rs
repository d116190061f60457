//! `forebay wal adopt`: the events that only a refused copy of a log holds get a channel id of
//! their own, so that the next start of the agent publishes them.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use crate::channel::file::OpenError;
use crate::channel::file::adopt::{AdoptError, Adoption, adopt};
use crate::cli::exit;
use crate::env::clock;
use crate::env::disk::Disk;
use crate::env::disk_real::RealDisk;

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    adoption: &'a Adoption,
    kept: Vec<PathBuf>,
}

/// Adopts in the channel whose data directories these are. Exit code 3 when an agent has it open,
/// 2 when no store has refused it, 5 when damage has destroyed some of the events.
///
/// # Errors
/// Only those of `out` and `err`.
pub fn run(
    dirs: &[PathBuf],
    json: bool,
    out: &mut impl Write,
    err: &mut impl Write,
) -> std::io::Result<u8> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let done = match adopt(&disk, &clock::system(), dirs) {
        Ok(done) => done,
        Err(error) => {
            writeln!(err, "error: {error}")?;
            return Ok(exit_code(&error));
        }
    };
    for dir in dirs {
        // Empty now; where it is not, it does no harm.
        let _left = std::fs::remove_dir(dir.join("adopting"));
    }
    let kept = dirs.iter().map(|dir| dir.join(done.kept_in())).collect();
    if json {
        let adoption = &done;
        let report = Report { adoption, kept };
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        print(&done, &kept, out)?;
    }
    for (first, last) in &done.lost {
        writeln!(err, "LOST events {first} to {last}: damage of the old log")?;
    }
    Ok(match done.lost.is_empty() {
        true => exit::CLEAN,
        false => exit::FINDING,
    })
}

fn print(done: &Adoption, kept: &[PathBuf], out: &mut impl Write) -> std::io::Result<()> {
    let (old, new) = (&done.old_channel[..12], &done.new_channel[..12]);
    if done.first < done.end {
        writeln!(
            out,
            "channel {old}: events {} to {} were only in this log; {} of them have no place yet \
             and are now the events of channel {new}",
            done.first,
            done.end - 1,
            done.events
        )?;
    } else {
        writeln!(
            out,
            "channel {old}: no event was only in this log; the channel is now {new}, without \
             events"
        )?;
    }
    writeln!(out, "start the agent again: it publishes under the new id")?;
    for dir in kept {
        writeln!(
            out,
            "the old log is in {}; remove it when `forebay audit` finds nothing",
            dir.display()
        )?;
    }
    Ok(())
}

fn exit_code(error: &AdoptError) -> u8 {
    match error {
        AdoptError::Open(OpenError::InUse { .. }) => exit::IN_USE,
        AdoptError::NotRefused { .. } | AdoptError::Open(OpenError::Directory { .. }) => {
            exit::USAGE
        }
        _ => exit::FAILED,
    }
}
