//! `forebay check`: says what a configuration will do, what it will not, and why.
//!
//! *Place in the flow*: the same reading as the agent's; nothing is started or written.

mod report;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use super::diagnostic::{Diagnostics, Location, Severity};
use super::{Loaded, Lookups, advice, hadoop, model, properties, read_file};
use crate::cli::{CheckArgs, exit};

/// What was found out about a file.
struct Checked {
    file: Arc<str>,
    /// Findings that belong to no agent.
    found: Diagnostics,
    agents: Vec<Loaded>,
    hadoop: Option<String>,
}

impl Checked {
    fn count(&self, severity: Severity) -> usize {
        let agents = self.agents.iter().map(|agent| agent.found.count(severity));
        self.found.count(severity) + agents.sum::<usize>()
    }

    fn nothing_yet(args: &CheckArgs) -> Self {
        Self {
            file: args.file.display().to_string().into(),
            found: Diagnostics::default(),
            agents: Vec::new(),
            hadoop: None,
        }
    }
}

/// Checks a file and prints the result to `out`.
///
/// Returns 0 where the configuration can be used, 2 where it cannot (under `--strict` also for
/// warnings), 1 where `out` cannot be written.
pub fn run(args: &CheckArgs, out: &mut impl Write) -> u8 {
    let checked = check(args, &Lookups::of_process(args.system_properties()));
    show(&checked, args, out)
}

/// The same for a text that has been read already, with lookups of one's own.
pub fn run_on(text: &[u8], args: &CheckArgs, lookups: &Lookups, out: &mut impl Write) -> u8 {
    show(&check_text(text, args, lookups), args, out)
}

fn show(checked: &Checked, args: &CheckArgs, out: &mut impl Write) -> u8 {
    let written = if args.json {
        report::json(checked, out)
    } else {
        report::human(checked, out)
    };
    match written.and_then(|()| out.flush()) {
        Ok(()) if checked.count(Severity::Error) > 0 => exit::USAGE,
        Ok(()) => exit::CLEAN,
        Err(_) => exit::FAILED,
    }
}

fn check(args: &CheckArgs, lookups: &Lookups) -> Checked {
    match read_file(&args.file) {
        Ok((_, bytes)) => check_text(&bytes, args, lookups),
        Err(error) => {
            let mut checked = Checked::nothing_yet(args);
            let message = format!("cannot be read: {}", error.source);
            let at = Location::whole(&checked.file);
            checked.found.error(&at, "", message);
            checked
        }
    }
}

fn check_text(bytes: &[u8], args: &CheckArgs, lookups: &Lookups) -> Checked {
    let mut checked = Checked::nothing_yet(args);
    let names = match &args.name {
        Some(name) => vec![name.clone()],
        None => {
            // Findings about the grammar come again with each agent.
            let mut unused = Diagnostics::default();
            model::agent_names(&properties::parse(bytes, &checked.file, &mut unused))
        }
    };
    if names.is_empty() {
        let message = "there is no agent in this file; keys are AGENT.sources, AGENT.channels, ...";
        checked
            .found
            .error(&Location::whole(&checked.file), "", message);
    }
    for name in names {
        let mut agent = super::parse(bytes, &checked.file, &name, lookups);
        stores(
            &mut agent,
            args.conf.as_deref(),
            lookups,
            &mut checked.hadoop,
        );
        if args.strict {
            agent.found.make_strict();
        }
        checked.agents.push(agent);
    }
    checked
}

/// Where the default file system comes from, if a sink needs it.
fn stores(agent: &mut Loaded, conf: Option<&Path>, lookups: &Lookups, shown: &mut Option<String>) {
    let Some(config) = &agent.config else { return };
    let Some(sink) = advice::needs_default_fs(&agent.raw, config) else {
        return;
    };
    let at = sink.entry("hdfs.path").map_or(&sink.at, |entry| &entry.at);
    let key = format!("{}hdfs.path", sink.prefix);
    match hadoop::find(conf, lookups) {
        Ok(Some(found)) if found.default_fs.is_some() => *shown = Some(found.to_string()),
        Ok(Some(found)) => {
            let message = format!("is without hdfs://, and {found} holds no fs.defaultFS");
            agent.found.warning(at, key, message);
        }
        Ok(None) => {
            let message = "is without hdfs://, and no Hadoop configuration says where it is; \
                           give -c DIR or set HADOOP_CONF_DIR";
            agent.found.warning(at, key, message);
        }
        Err(error) => agent.found.error(at, key, error.to_string()),
    }
}
