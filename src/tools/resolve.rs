//! `forebay resolve`: a person decides what no rule may guess.
//!
//! A halted epoch is acknowledged (`--done`) or given back to the channel (`--again`); damage that
//! may hide a decision about published files is accepted (`damage`). The facts are printed first;
//! the agent must not run, which the directory lock makes sure of.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use crate::channel::file::{FileChannel, FileChannelOptions, OpenError};
use crate::channel::{Channel, ChannelError, EpochRecord};
use crate::env::clock;
use crate::env::disk::Disk;
use crate::env::disk_real::RealDisk;

/// What the person has decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The epoch's files are where they belong: acknowledge its range.
    Done(u64),
    /// Publish the epoch's range again; its files must have been removed.
    Again(u64),
    /// Staged sinks may go on in spite of control records that damage may have hidden.
    AcceptDamage,
}

/// Carries a decision out on the channel in `dirs`. Exit code 3 when an agent has it open.
///
/// # Errors
/// Only those of `out` and `err`.
pub fn run(
    decision: Decision,
    dirs: &[PathBuf],
    out: &mut impl Write,
    err: &mut impl Write,
) -> std::io::Result<u8> {
    let channel = match open(dirs) {
        Ok(channel) => channel,
        Err(error) => {
            writeln!(err, "error: {error}")?;
            return Ok(if matches!(error, OpenError::InUse { .. }) {
                3
            } else {
                1
            });
        }
    };
    let outcome = match decision {
        Decision::Done(epoch) | Decision::Again(epoch) => {
            let epochs = channel.journal().open_epochs();
            let Some(record) = epochs.iter().find(|e| e.epoch == epoch) else {
                return refuse(epoch, &epochs, err);
            };
            print_facts(record, out)?;
            settle(&channel, decision)
        }
        Decision::AcceptDamage => channel.accept_damage(),
    };
    let closed = outcome.and_then(|()| channel.close());
    match (closed, decision) {
        (Err(error), _) => {
            writeln!(err, "error: {error}; nothing has changed for the store")?;
            return Ok(1);
        }
        (Ok(()), Decision::Done(epoch)) => writeln!(out, "epoch {epoch} is acknowledged")?,
        (Ok(()), Decision::Again(epoch)) => {
            writeln!(
                out,
                "epoch {epoch} is given back; its events are published again"
            )?;
        }
        (Ok(()), Decision::AcceptDamage) => {
            writeln!(
                out,
                "the damage is accepted; staged sinks go on at the next start"
            )?;
        }
    }
    Ok(0)
}

fn open(dirs: &[PathBuf]) -> Result<Arc<FileChannel>, OpenError> {
    let mut size = 0;
    for dir in dirs {
        let entries = RealDisk.list(dir).map_err(|source| OpenError::Io {
            what: "list",
            path: dir.clone(),
            source,
        })?;
        // The size in use; a segment whose tail was cut is smaller.
        let ours = entries.iter().filter(|e| e.name.ends_with(".wal"));
        size = ours.map(|e| e.len).max().unwrap_or(0).max(size);
    }
    let Some(first) = dirs.first().filter(|_| size > 0) else {
        return Err(OpenError::Directory {
            dir: dirs.first().cloned().unwrap_or_default(),
            reason: "holds no log of a Forebay channel".into(),
        });
    };
    tracing::debug!(dir = %first.display(), size, "opening");
    let options = FileChannelOptions {
        data_dirs: dirs.to_vec(),
        max_file_size: size,
        minimum_required_space: 0,
        ..FileChannelOptions::default()
    };
    FileChannel::open("resolve", options, Arc::new(RealDisk), clock::system())
}

fn refuse(epoch: u64, open: &[EpochRecord], err: &mut impl Write) -> std::io::Result<u8> {
    writeln!(err, "error: epoch {epoch} is not open in this channel")?;
    match open {
        [] => writeln!(err, "no epoch is open: every sealed epoch is published")?,
        open => {
            let numbers: Vec<String> = open.iter().map(|e| e.epoch.to_string()).collect();
            writeln!(err, "open epochs: {}", numbers.join(", "))?;
        }
    }
    Ok(2)
}

fn print_facts(record: &EpochRecord, out: &mut impl Write) -> std::io::Result<()> {
    let state = if record.claimed {
        "claimed"
    } else {
        "sealed, not claimed"
    };
    writeln!(
        out,
        "epoch {}: events {} to {} of sink {}, {state}",
        record.epoch, record.range.first, record.range.last, record.sink
    )?;
    writeln!(out, "  attempt {}{}", record.store, record.attempt)?;
    for part in &record.parts {
        writeln!(
            out,
            "  {}{} ({} events, {} bytes)",
            record.store, part.final_path, part.count, part.length
        )?;
    }
    Ok(())
}

fn settle(channel: &Arc<FileChannel>, decision: Decision) -> Result<(), ChannelError> {
    let failed = |e: std::io::Error| ChannelError::Refused {
        channel: channel.name().to_owned(),
        reason: e.to_string(),
    };
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().map_err(failed)?;
    let journal = channel.journal();
    runtime.block_on(async {
        match decision {
            Decision::Done(epoch) => journal.done(epoch).await,
            Decision::Again(epoch) => journal.abandon(epoch).await,
            Decision::AcceptDamage => Ok(()),
        }
    })
}
