//! `forebay status DIR|FILE`: asks the running agent, or reads the log where none runs.
//!
//! *Place in the flow*: behind the command line; the agent's end of it is [`super::status`].
//! Nothing is changed, no lock is taken.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::status::{self, ChannelReport};
use crate::channel::file::peek::peek;
use crate::cli::{StatusArgs, exit};
use crate::config::model::agent_names;
use crate::config::options::ChannelKind;
use crate::config::{Diagnostics, Lookups, properties};
use crate::env::disk_real::RealDisk;

/// What is printed for a configuration: the sums, and each channel.
#[derive(Debug, Default, Serialize)]
struct AgentReport {
    waiting: u64,
    leased: u64,
    sealed_unpublished: u64,
    refused: u64,
    corrupt: u64,
    channels: Vec<ChannelReport>,
}

/// A file channel: its name and its data directories.
struct Place {
    channel: String,
    dirs: Vec<PathBuf>,
}

/// Prints the status; returns the exit code.
pub fn run(args: &StatusArgs, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let printed = collect(args).and_then(|(reports, single)| {
        let text = match (args.json, single) {
            (true, true) => serde_json::to_string_pretty(&reports[0]),
            (true, false) => serde_json::to_string_pretty(&total(reports)),
            (false, _) => Ok(reports.iter().map(human).collect::<Vec<_>>().join("\n")),
        };
        let text = text.map_err(|error| error.to_string())?;
        writeln!(out, "{text}").map_err(|error| error.to_string())
    });
    match printed {
        Ok(()) => exit::CLEAN,
        Err(reason) => {
            // Nobody is left to tell when stderr is gone.
            drop(writeln!(err, "error: {reason}"));
            exit::USAGE
        }
    }
}

/// The reports, and whether a single directory was asked for.
fn collect(args: &StatusArgs) -> Result<(Vec<ChannelReport>, bool), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    if args.place.is_dir() {
        let place = Place {
            channel: String::new(),
            dirs: vec![args.place.clone()],
        };
        return Ok((vec![runtime.block_on(report(&place))?], true));
    }
    let places = file_channels(args)?;
    let reports: Result<Vec<_>, String> = places
        .iter()
        .map(|place| runtime.block_on(report(place)))
        .collect();
    Ok((reports?, false))
}

/// The file channels of a configuration.
fn file_channels(args: &StatusArgs) -> Result<Vec<Place>, String> {
    let file = args.place.display();
    let lookups = Lookups::of_process(args.system_properties());
    let bytes = std::fs::read(&args.place)
        .map_err(|error| format!("{file}: {error}; name a data directory or a configuration"))?;
    let shown = file.to_string().into();
    let names = agent_names(&properties::parse(
        &bytes,
        &shown,
        &mut Diagnostics::default(),
    ));
    let name = match (&args.name, names.as_slice()) {
        (Some(name), _) => name,
        (None, [name]) => name,
        (None, names) => {
            return Err(format!(
                "{file} has the agents {}; choose with -n",
                names.join(", ")
            ));
        }
    };
    let loaded = crate::config::parse(&bytes, &shown, name, &lookups);
    let config = loaded
        .config
        .ok_or_else(|| format!("{file} cannot be used; `forebay check {file}` says why"))?;
    let channels = config.channels.into_iter();
    let places = channels.filter_map(|channel| match channel.kind {
        ChannelKind::File(options) => Some(Place {
            channel: channel.name,
            dirs: options.data_dirs,
        }),
        ChannelKind::Memory(_) => None,
    });
    let places: Vec<Place> = places.collect();
    match places.is_empty() {
        true => Err(format!(
            "{file}: agent {name} has no file channel; see its metrics"
        )),
        false => Ok(places),
    }
}

async fn report(place: &Place) -> Result<ChannelReport, String> {
    let Some(first) = place.dirs.first() else {
        return Err(format!("channel {} has no data directory", place.channel));
    };
    match status::ask(first).await {
        Ok(Some(report)) => Ok(report),
        Ok(None) => stopped(place, first),
        Err(error) => Err(format!("{}: {error}", first.display())),
    }
}

/// Reads the log of a channel that nobody has open.
fn stopped(place: &Place, first: &Path) -> Result<ChannelReport, String> {
    let status = peek(&RealDisk, &place.dirs).map_err(|error| error.to_string())?;
    Ok(ChannelReport {
        channel: place.channel.clone(),
        directory: first.to_owned(),
        running: false,
        waiting: status.waiting,
        leased: status.leased,
        sealed_unpublished: status.sealed_unpublished,
        refused: status.refused,
        corrupt: status.corrupt,
        capacity: status.capacity,
        next_sequence: status.next_sequence,
        segments: status.segments,
        disk_bytes: status.disk_bytes,
        held_back: None,
        trouble: None,
    })
}

fn total(channels: Vec<ChannelReport>) -> AgentReport {
    let mut total = AgentReport::default();
    for channel in &channels {
        total.waiting += channel.waiting;
        total.leased += channel.leased;
        total.sealed_unpublished += channel.sealed_unpublished;
        total.refused += channel.refused;
        total.corrupt += channel.corrupt;
    }
    total.channels = channels;
    total
}

fn human(report: &ChannelReport) -> String {
    let ChannelReport {
        waiting,
        leased,
        sealed_unpublished,
        refused,
        corrupt,
        ..
    } = report;
    let name = match report.channel.as_str() {
        "" => report.directory.display().to_string(),
        name => format!("{name} ({})", report.directory.display()),
    };
    let state = if report.running {
        "running"
    } else {
        "not running"
    };
    let mut text = format!(
        "{name}: {state}\n  waiting {waiting}, leased {leased}, \
         sealed_unpublished {sealed_unpublished}, refused {refused}, corrupt {corrupt}\n  \
         next sequence {}, {} segments, {} MiB on disk",
        report.next_sequence,
        report.segments,
        report.disk_bytes >> 20
    );
    for (label, reason) in [
        ("held back", &report.held_back),
        ("trouble", &report.trouble),
    ] {
        if let Some(reason) = reason {
            text += &format!("\n  {label}: {reason}");
        }
    }
    text
}
