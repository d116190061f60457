//! The report of `check`, for eyes and for scripts.

use std::io::{self, Write};

use serde::Serialize;

use super::super::diagnostic::{Diagnostic, Severity};
use super::super::keys::{Section, Status};
use super::super::model::{Component, Entry};
use super::super::secret::is_secret_key;
use super::{Checked, Loaded};

#[derive(Serialize)]
struct File<'a> {
    file: &'a str,
    usable: bool,
    errors: usize,
    warnings: usize,
    hadoop_conf: Option<&'a str>,
    findings: Vec<Finding<'a>>,
    agents: Vec<Agent<'a>>,
}

#[derive(Serialize)]
struct Agent<'a> {
    name: &'a str,
    usable: bool,
    components: Vec<Part<'a>>,
    findings: Vec<Finding<'a>>,
}

#[derive(Serialize)]
struct Part<'a> {
    section: Section,
    name: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    line: u32,
    keys: Vec<Used<'a>>,
    /// Defaults that apply and are not Flume's.
    differing_defaults: Vec<Differing>,
}

#[derive(Serialize)]
struct Used<'a> {
    key: &'a str,
    value: &'a str,
    line: u32,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'static str>,
}

#[derive(Serialize)]
struct Differing {
    key: &'static str,
    value: &'static str,
    unit: &'static str,
    flume: &'static str,
}

#[derive(Serialize)]
struct Finding<'a> {
    severity: Severity,
    line: Option<u32>,
    key: &'a str,
    message: &'a str,
}

impl<'a> From<&'a Diagnostic> for Finding<'a> {
    fn from(found: &'a Diagnostic) -> Self {
        let line = Some(found.at.line).filter(|line| *line > 0);
        Self {
            severity: found.severity,
            line,
            key: &found.key,
            message: &found.message,
        }
    }
}

fn used<'a>(component: &Component, entry: &'a Entry) -> Used<'a> {
    let (status, why) = match component.kind.find(&entry.key).map(|key| key.status) {
        Some(Status::Honoured) => ("honoured", None),
        Some(Status::NoEffect(why)) => ("no_effect", Some(why)),
        Some(Status::Refused(why)) => ("refused", Some(why)),
        None => ("unknown", None),
    };
    Used {
        key: &entry.key,
        value: entry.shown(),
        line: entry.at.line,
        status,
        why,
    }
}

fn differing(component: &Component) -> Vec<Differing> {
    let keys = component
        .kind
        .all()
        .filter(|key| component.entry(key.name).is_none());
    let differing = keys.filter_map(|key| {
        Some(Differing {
            key: key.name,
            value: key.default?,
            unit: key.unit,
            flume: key.flume_default?,
        })
    });
    differing.collect()
}

fn components(agent: &Loaded) -> impl Iterator<Item = &Component> {
    agent
        .raw
        .sources
        .iter()
        .chain(&agent.raw.channels)
        .chain(&agent.raw.sinks)
}

/// Prints one JSON document.
pub(super) fn json(checked: &Checked, out: &mut impl Write) -> io::Result<()> {
    let agents = checked.agents.iter().map(|agent| Agent {
        name: &agent.raw.name,
        usable: !agent.found.has_errors(),
        components: components(agent)
            .map(|component| Part {
                section: component.section,
                name: &component.name,
                kind: component.kind.alias,
                line: component.at.line,
                keys: component
                    .keys
                    .iter()
                    .map(|entry| used(component, entry))
                    .collect(),
                differing_defaults: differing(component),
            })
            .collect(),
        findings: agent
            .found
            .sorted()
            .into_iter()
            .map(Finding::from)
            .collect(),
    });
    let document = File {
        file: &checked.file,
        usable: checked.count(Severity::Error) == 0,
        errors: checked.count(Severity::Error),
        warnings: checked.count(Severity::Warning),
        hadoop_conf: checked.hadoop.as_deref(),
        findings: checked
            .found
            .sorted()
            .into_iter()
            .map(Finding::from)
            .collect(),
        agents: agents.collect(),
    };
    serde_json::to_writer_pretty(&mut *out, &document)?;
    out.write_all(b"\n")
}

/// Prints for eyes.
pub(super) fn human(checked: &Checked, out: &mut impl Write) -> io::Result<()> {
    for agent in &checked.agents {
        writeln!(out, "{}: agent {}", checked.file, agent.raw.name)?;
        for component in components(agent) {
            human_component(component, out)?;
        }
        writeln!(out)?;
    }
    if let Some(hadoop) = &checked.hadoop {
        writeln!(out, "Hadoop configuration: {hadoop}")?;
    }
    let agents = checked.agents.iter().flat_map(|agent| agent.found.sorted());
    for found in checked.found.sorted().into_iter().chain(agents) {
        writeln!(out, "{found}")?;
    }
    let errors = checked.count(Severity::Error);
    let verdict = if errors == 0 {
        "can be used"
    } else {
        "cannot be used"
    };
    let warnings = checked.count(Severity::Warning);
    let (e, w) = (plural(errors), plural(warnings));
    writeln!(
        out,
        "{}: {verdict}: {errors} error{e}, {warnings} warning{w}",
        checked.file
    )
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

fn human_component(component: &Component, out: &mut impl Write) -> io::Result<()> {
    let section = component.section.singular();
    writeln!(
        out,
        "  {section} {}: {}",
        component.name, component.kind.alias
    )?;
    let keys: Vec<Used<'_>> = component
        .keys
        .iter()
        .filter(|entry| entry.key != "type")
        .map(|entry| used(component, entry))
        .collect();
    for key in keys.iter().filter(|key| key.status == "honoured") {
        writeln!(out, "    {} = {}", key.key, key.value)?;
    }
    for (status, word) in [("no_effect", "no effect"), ("refused", "refused")] {
        for Used {
            key, value, why, ..
        } in keys.iter().filter(|key| key.status == status)
        {
            writeln!(out, "    {word}: {key} = {value} ({})", why.unwrap_or(""))?;
        }
    }
    for Differing {
        key,
        value,
        unit,
        flume,
    } in differing(component)
    {
        let blank = if unit.is_empty() { "" } else { " " };
        writeln!(
            out,
            "    default: {key} = {value}{blank}{unit} (Flume: {flume})"
        )?;
    }
    debug_assert!(
        !keys
            .iter()
            .any(|key| is_secret_key(key.key) && key.value != "..")
    );
    Ok(())
}
