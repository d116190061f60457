//! `forebay audit PATH..`: lists the stores and prints the verdict of [`super::audit`]; with
//! `--log`, what the log says of the same events beside it.

use std::io::Write;

use serde::Serialize;

use super::audit::{ChannelAudit, audit, collect_names};
use super::audit_log::{self, LogAudit, LogFacts};
use crate::channel::file::examine::examine;
use crate::channel::file::peek::standing;
use crate::cli::{AuditArgs, exit};
use crate::env::disk_real::RealDisk;
use crate::sink::staged::names::PartName;
use crate::sink::staged::store_hdfs::HdfsOptions;
use crate::sink::staged::store_open::{open_store, split_target};

/// Most findings that are printed for eyes; `--json` has all.
const SHOWN_MAX: usize = 50;

#[derive(Serialize)]
struct Printed<'a> {
    sound: bool,
    channels: &'a [ChannelAudit],
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<&'a LogAudit>,
}

/// What was found, by the names and by the log.
struct Audited {
    channels: Vec<ChannelAudit>,
    log: Option<LogAudit>,
}

impl Audited {
    fn is_sound(&self) -> bool {
        self.channels.iter().all(ChannelAudit::is_sound)
            && self.log.iter().all(|log| log.findings.is_empty())
    }
}

/// Prints the audit; exit code 5 where something is missing or double.
pub fn run(args: &AuditArgs, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    match audited(args).and_then(|audited| print(args, &audited, out)) {
        Ok(true) => exit::CLEAN,
        Ok(false) => exit::FINDING,
        Err((code, reason)) => {
            // Nobody is left to tell when stderr is gone.
            drop(writeln!(err, "error: {reason}"));
            code
        }
    }
}

type Failed = (u8, String);

fn audited(args: &AuditArgs) -> Result<Audited, Failed> {
    if args.log.is_empty() {
        let channels = audit(list_all(args)?);
        return Ok(Audited {
            channels,
            log: None,
        });
    }
    let failed = |error: &dyn std::fmt::Display| (exit::FAILED, format!("--log: {error}"));
    let look = || standing(&RealDisk, &args.log).map_err(|error| failed(&error));
    // The order of the three is what makes the audit right beside a running agent.
    let before = look()?;
    let names = list_all(args)?;
    let after = look()?;
    let read = examine(&RealDisk, &args.log, |_, _| {}).map_err(|error| failed(&error))?;
    let facts = LogFacts {
        before,
        after,
        damaged: audit_log::ranges(read.damage.iter().filter_map(|d| d.lost)),
        taken: audit_log::ranges(read.taken),
    };
    let log = audit_log::compare(&facts, &names);
    let mut channels = audit(names);
    audit_log::explain(&mut channels, &facts);
    Ok(Audited {
        channels,
        log: Some(log),
    })
}

fn list_all(args: &AuditArgs) -> Result<Vec<PartName>, Failed> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| (exit::FAILED, format!("cannot start: {error}")))?;
    runtime.block_on(async {
        let mut names = Vec::new();
        for path in &args.paths {
            names.extend(list(args, path).await?);
        }
        Ok(names)
    })
}

async fn list(args: &AuditArgs, path: &str) -> Result<Vec<PartName>, Failed> {
    let failed = |error: &dyn std::fmt::Display| (exit::FAILED, format!("{path}: {error}"));
    // A path without a scheme is a local one here: that is what whoever types it sees.
    let target = match path.contains("://") {
        true => path.to_owned(),
        false => {
            let absolute = std::path::absolute(path).map_err(|error| failed(&error))?;
            format!("file://{}", absolute.display())
        }
    };
    let (_, dir) = split_target(&target).map_err(|error| failed(&error))?;
    let options = HdfsOptions::default();
    let store = open_store(&target, args.conf.clone(), options).map_err(|error| failed(&error))?;
    match store.stat(&dir).await.map_err(|error| failed(&error))? {
        Some(info) if info.is_dir => {}
        _ => return Err((exit::USAGE, format!("{path}: no such directory"))),
    }
    collect_names(store.as_ref(), &dir)
        .await
        .map_err(|error| failed(&error))
}

fn print(args: &AuditArgs, audited: &Audited, out: &mut dyn Write) -> Result<bool, Failed> {
    let sound = audited.is_sound();
    let channels = &audited.channels;
    let text = if args.json {
        let printed = Printed {
            sound,
            channels,
            log: audited.log.as_ref(),
        };
        serde_json::to_string_pretty(&printed).map_err(|e| (exit::FAILED, e.to_string()))?
    } else {
        let own = audited.log.as_ref().map(|log| log.channel.as_str());
        let mut lines: Vec<String> = channels
            .iter()
            .map(|audit| human(audit, own == Some(&audit.channel)))
            .collect();
        if lines.is_empty() {
            lines.push("no published files".to_owned());
        }
        let log = audited.log.iter();
        lines.extend(log.map(|log| audit_log::human(log, SHOWN_MAX)));
        lines.join("\n")
    };
    writeln!(out, "{text}").map_err(|error| (exit::FAILED, error.to_string()))?;
    Ok(sound)
}

/// One channel for eyes; where its log was given, that has the last word on gaps.
fn human(audit: &ChannelAudit, has_log: bool) -> String {
    let ChannelAudit {
        channel,
        files,
        events,
        epochs,
        rejected,
        lost,
        ..
    } = audit;
    let mut text =
        format!("channel {channel}: {events} events in {files} files of {epochs} epochs");
    if *rejected > 0 {
        text += &format!(", {rejected} rejected");
    }
    if *lost > 0 {
        text += &format!(", {lost} lost to damage");
    }
    if audit.is_sound() {
        let verdict = match has_log {
            true => format!("events {} to {}: no overlap", audit.first, audit.last),
            false => audit.verdict(),
        };
        return format!("{text}\n  {verdict}");
    }
    for finding in audit.findings.iter().take(SHOWN_MAX) {
        text += &format!("\n  {finding}");
    }
    if audit.findings.len() > SHOWN_MAX {
        text += &format!("\n  and {} more findings", audit.findings.len() - SHOWN_MAX);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn run_on(dir: &std::path::Path, more: &[&str]) -> (u8, String, String) {
        let line = ["forebay", "audit"]
            .iter()
            .copied()
            .chain(more.iter().copied());
        let mut line: Vec<String> = line.map(str::to_owned).collect();
        line.push(dir.display().to_string());
        let Command::Audit(args) = Cli::try_parse_from(line).unwrap().command else {
            panic!("not an audit");
        };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = run(&args, &mut out, &mut err);
        (
            code,
            String::from_utf8(out).unwrap(),
            String::from_utf8(err).unwrap(),
        )
    }

    #[test]
    fn a_removed_file_is_named_and_gives_exit_code_5() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("2026-01-01");
        std::fs::create_dir_all(deep.join("_hidden")).unwrap();
        let name = |epoch: u64, first: u64, last: u64| {
            let count = last - first + 1;
            deep.join(format!(
                "x-k1-0123456789ab-e{epoch:016}-p1of1-{first:020}-{last:020}-{count}.txt"
            ))
        };
        for (epoch, first, last) in [(1, 1, 4), (2, 5, 9), (3, 10, 12)] {
            std::fs::write(name(epoch, first, last), "").unwrap();
        }
        // What is not published must not count.
        let staged = name(3, 10, 12);
        std::fs::copy(
            &staged,
            deep.join("_hidden").join(staged.file_name().unwrap()),
        )
        .unwrap();
        let (code, out, _) = run_on(dir.path(), &[]);
        assert_eq!(code, exit::CLEAN, "{out}");
        assert!(out.contains("12 events in 3 files"), "{out}");
        std::fs::remove_file(name(2, 5, 9)).unwrap();
        let (code, out, _) = run_on(dir.path(), &["--json"]);
        let json: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(code, exit::FINDING);
        let gap = &json["channels"][0]["findings"][0];
        assert_eq!(
            (&gap["first"], &gap["last"]),
            (&5.into(), &9.into()),
            "{json}"
        );
    }

    #[test]
    fn a_missing_directory_is_a_usage_error() {
        let (code, _, err) = run_on(std::path::Path::new("/no/such/directory"), &[]);
        assert_eq!(code, exit::USAGE);
        assert!(err.contains("no such directory"), "{err}");
    }
}
