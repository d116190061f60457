//! Arguments of all commands.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::Secret;

const EXAMPLES: &str = "\
Examples:
  forebay check flume.conf                        say what a Flume configuration will do
  forebay agent -n a1 -f flume.conf               run it, as flume-ng would
  forebay agent -n a1 -f flume.conf -c /etc/hadoop/conf
                                                  the same, into an HDFS
  forebay status data/c1                          how many events wait
  forebay audit hdfs://nn:8020/logs               is anything missing or double?

Exit codes: 0 clean, 1 failed while running, 2 usage or configuration, 3 directory in use or
cloned log, 4 stopped before drained (nothing lost), 5 damage or audit finding.

Every command has its own examples: forebay COMMAND --help";

/// Moves event streams into HDFS exactly once, from the configuration of Apache Flume.
#[derive(Debug, Parser)]
#[command(name = "forebay", version, about, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run an agent
    Agent(AgentArgs),
    /// Read a configuration and say what it will do, and what not
    Check(CheckArgs),
    /// Show how many events a channel holds, also while its agent runs
    Status(StatusArgs),
    /// Look into the log of a file channel
    Wal(WalArgs),
    /// Prove from the names of published files that no event is missing or double
    Audit(AuditArgs),
    /// Decide on an epoch that has halted
    Resolve(ResolveArgs),
    /// Print the version
    Version,
}

const AGENT_EXAMPLES: &str = "\
Examples:
  forebay agent -n a1 -f flume.conf
  forebay agent --name a1 --conf-file flume.conf --conf /etc/hadoop/conf
  forebay agent -n a1 -f flume.conf -Dflume.monitoring.type=http -Dflume.monitoring.port=41414
  forebay agent -n a1 -f flume.conf --until-drained     run to the end of the input, then stop
  forebay agent -n a1 -f flume.conf --dryrun            check everything, start nothing

Ctrl-C or SIGTERM: sources stop, what was acknowledged is published, exit code 0.
The log goes to stderr; nothing goes to stdout.";

/// Arguments of `forebay agent`, those of `flume-ng agent` among them.
#[derive(Debug, Args)]
#[command(after_help = AGENT_EXAMPLES)]
pub struct AgentArgs {
    /// Name of the agent in the configuration
    #[arg(short, long, value_name = "NAME")]
    pub name: String,
    /// The configuration, a Flume .properties file
    #[arg(short = 'f', long, value_name = "FILE")]
    pub conf_file: PathBuf,
    /// Directory with Hadoop's core-site.xml and hdfs-site.xml
    #[arg(short, long, value_name = "DIR")]
    pub conf: Option<PathBuf>,
    /// Do not read the configuration again when it changes
    #[arg(long)]
    pub no_reload_conf: bool,
    /// Check the configuration and start nothing
    #[arg(short, long)]
    pub dryrun: bool,
    /// Set a system property, for ${sys:KEY} and for flume.monitoring.*
    #[arg(short = 'D', value_name = "KEY=VALUE")]
    pub define: Vec<Define>,
    /// How long a stop may take before the agent exits with code 4
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub drain_timeout: Duration,
    /// Stop by itself when every source that can end has ended and all is published
    #[arg(long)]
    pub until_drained: bool,
    /// Form of the log lines on stderr
    #[arg(long, value_enum, default_value_t = LogFormat::Human)]
    pub log_format: LogFormat,
    /// Least level of the log [default: info, or that of -Dflume.root.logger]
    #[arg(long, value_enum)]
    pub log_level: Option<LogLevel>,
    /// Settings of the JVM: accepted for flume-ng's sake, without effect
    #[arg(short = 'X', value_name = "OPTION", hide = true)]
    pub jvm: Vec<String>,
    /// Class path of the JVM: accepted for flume-ng's sake, without effect
    #[arg(short = 'C', long, value_name = "PATH", hide = true)]
    pub classpath: Option<String>,
}

impl AgentArgs {
    /// The least level to log: `--log-level`, else `-Dflume.root.logger=LEVEL,...`, else info.
    pub fn level(&self) -> LogLevel {
        let logger = self
            .define
            .iter()
            .rev()
            .find(|define| define.key == "flume.root.logger");
        let named = logger.and_then(|define| {
            let level = define.value.expose().split(',').next()?.trim();
            LogLevel::from_str(level, true).ok()
        });
        self.log_level.or(named).unwrap_or(LogLevel::Info)
    }

    /// Options of flume-ng that are accepted and do nothing, as they were written.
    pub fn without_effect(&self) -> Vec<String> {
        let jvm = self.jvm.iter().map(|option| format!("-X{option}"));
        jvm.chain(
            self.classpath
                .iter()
                .map(|path| format!("--classpath {path}")),
        )
        .collect()
    }

    /// The system properties of the command line; later ones win.
    pub fn system_properties(&self) -> Vec<(String, String)> {
        pairs(&self.define)
    }
}

fn pairs(define: &[Define]) -> Vec<(String, String)> {
    define
        .iter()
        .map(|one| (one.key.clone(), one.value.expose().to_owned()))
        .collect()
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        // A day is more than any supervisor waits, and keeps clocks far from their ends.
        Ok(seconds) if seconds <= 86_400 => Ok(Duration::from_secs(seconds)),
        _ => Err("a whole number of seconds from 0 to 86400".to_owned()),
    }
}

/// One `-Dkey=value`.
#[derive(Clone, PartialEq, Eq)]
pub struct Define {
    /// What stands before the first `=`.
    pub key: String,
    /// What stands behind it; may be a password, so it is never printed.
    pub value: Secret,
}

impl fmt::Debug for Define {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "-D{}=..", self.key)
    }
}

impl std::str::FromStr for Define {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        if key.is_empty() {
            return Err("KEY=VALUE, with a key".to_owned());
        }
        Ok(Self {
            key: key.to_owned(),
            value: Secret::new(value),
        })
    }
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For eyes.
    Human,
    /// One JSON object a line.
    Json,
}

/// Levels of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum LogLevel {
    /// Only what failed.
    Error,
    /// And what may fail.
    Warn,
    /// And what happens.
    Info,
    /// And why.
    Debug,
    /// And how.
    Trace,
}

const CHECK_EXAMPLES: &str = "\
Examples:
  forebay check flume.conf                     every agent of the file
  forebay check flume.conf -n a1 --strict      warnings count as errors
  forebay check flume.conf --json | jq .agents[0].findings
  LOGS=/var/log forebay check flume.conf -Dport=4141    answers for ${env:LOGS}, ${sys:port}

Exit codes: 0 the configuration can be used, 2 it cannot.";

/// Arguments of `forebay check`.
#[derive(Debug, Args)]
#[command(after_help = CHECK_EXAMPLES)]
pub struct CheckArgs {
    /// The configuration
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Check this agent only [default: all agents of the file]
    #[arg(short, long, value_name = "NAME")]
    pub name: Option<String>,
    /// Directory with Hadoop's core-site.xml and hdfs-site.xml
    #[arg(short, long, value_name = "DIR")]
    pub conf: Option<PathBuf>,
    /// Take warnings for errors
    #[arg(long)]
    pub strict: bool,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
    /// Set a system property, for ${sys:KEY}
    #[arg(short = 'D', value_name = "KEY=VALUE")]
    pub define: Vec<Define>,
}

impl CheckArgs {
    /// The system properties of the command line; later ones win.
    pub fn system_properties(&self) -> Vec<(String, String)> {
        pairs(&self.define)
    }
}

const STATUS_EXAMPLES: &str = "\
Examples:
  forebay status data/c1                          a data directory
  forebay status flume.conf -n a1                 all file channels of an agent
  forebay status --json data/c1 | jq .waiting

A channel is drained when waiting, leased and sealed_unpublished are all 0.";

/// Arguments of `forebay status`.
#[derive(Debug, Args)]
#[command(after_help = STATUS_EXAMPLES)]
pub struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// The channel's first data directory, or a configuration
    #[arg(value_name = "DIR|FILE")]
    pub place: PathBuf,
    /// Name of the agent, where the configuration has several
    #[arg(short, long, value_name = "NAME")]
    pub name: Option<String>,
    /// Set a system property, for ${sys:KEY}
    #[arg(short = 'D', value_name = "KEY=VALUE")]
    pub define: Vec<Define>,
}

impl StatusArgs {
    /// The system properties of the command line; later ones win.
    pub fn system_properties(&self) -> Vec<(String, String)> {
        pairs(&self.define)
    }
}

const WAL_EXAMPLES: &str = "\
Examples:
  forebay wal inspect data/c1             segments, sequence numbers, epochs
  forebay wal verify data/c1              read everything, check every rule; 5 on damage
  forebay wal dump --json data/c1 | head  the frames, one a line
  forebay wal adopt data/c1               keep what only a refused copy of a log has
  forebay wal salvage data/c1 --to data/new   what is intact of a damaged log as a new channel

The agent may run meanwhile; for adopt and salvage it must not.";

/// Arguments of `forebay wal`.
#[derive(Debug, Args)]
#[command(after_help = WAL_EXAMPLES)]
pub struct WalArgs {
    /// What to do with the log.
    #[command(subcommand)]
    pub command: WalCommand,
}

/// The commands of `forebay wal`.
#[derive(Debug, Subcommand)]
pub enum WalCommand {
    /// Show segments, sequence numbers and epochs
    Inspect(WalDirArgs),
    /// Read everything and check every checksum and rule; exit code 5 on damage
    Verify(WalDirArgs),
    /// Print the frames
    Dump(WalDirArgs),
    /// Give the events that only this copy of a log holds a channel id of their own
    Adopt(WalAdoptArgs),
    /// Copy what is intact in a damaged log into a new channel directory
    Salvage(WalSalvageArgs),
}

const SALVAGE_EXAMPLES: &str = "\
Examples:
  forebay wal salvage data/c1 --to data/c1-new
  forebay wal salvage data/a data/b --to data/new     all data directories that are left
  forebay wal salvage data/c1 --to data/new --possibly-delivered leave-out
  forebay wal salvage data/c1 --to data/new --json | jq .lost

Nothing in DIR is changed; it may be mounted read-only. NEWDIR gets a channel with an id of its
own, which opens when the command has ended; it may be killed and given again at any time. The
report names by sequence number what was kept, lost, delivered, and possibly delivered: where
damage may hide that a sink has acknowledged an event. --possibly-delivered keep (the default)
copies those events, which may come twice; leave-out does not, and they may never come.

Exit codes: 0 every event is in NEWDIR or was delivered, 2 the directories cannot be used, 3 an
agent has DIR open, 5 events are lost or possibly delivered.";

/// Arguments of `forebay wal salvage`.
#[derive(Debug, Args)]
#[command(after_help = SALVAGE_EXAMPLES)]
pub struct WalSalvageArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// The directory of the new channel; made, or empty
    #[arg(long, value_name = "NEWDIR")]
    pub to: PathBuf,
    /// What to do with intact events that may have been delivered
    #[arg(long, value_name = "WHAT", default_value = "keep")]
    pub possibly_delivered: PossiblyDeliveredArg,
    /// The damaged log's data directories, all that are left
    #[arg(value_name = "DIR", required = true)]
    pub dirs: Vec<PathBuf>,
}

/// What `--possibly-delivered` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PossiblyDeliveredArg {
    /// Copy them: nothing is lost, some may come twice
    Keep,
    /// Do not: nothing comes twice, some may never come
    LeaveOut,
}

impl WalSalvageArgs {
    /// What is asked for.
    pub fn request(&self) -> crate::channel::file::salvage::Request {
        use crate::channel::file::salvage::PossiblyDelivered;
        crate::channel::file::salvage::Request {
            dirs: self.dirs.clone(),
            to: self.to.clone(),
            possibly_delivered: match self.possibly_delivered {
                PossiblyDeliveredArg::Keep => PossiblyDelivered::Keep,
                PossiblyDeliveredArg::LeaveOut => PossiblyDelivered::LeaveOut,
            },
        }
    }
}

const ADOPT_EXAMPLES: &str = "\
Examples:
  forebay wal adopt data/c1                   after an agent has ended with exit code 3 because
                                              another copy of its log has taken over
  forebay wal adopt data/a data/b             all data directories, in the order of dataDirs
  forebay wal adopt --json data/c1 | jq .events

What the other copy has is the other copy's to publish. What only this log has gets a new channel
id, and the next start of the agent publishes it. The old log is kept in DIR/before-adopt-ID. The
command may be killed and given again at any time.

Exit codes: 0 adopted, 2 no store has refused this log, 3 an agent has it open, 5 some of the
events are lost to damage.";

/// Arguments of `forebay wal adopt`.
#[derive(Debug, Args)]
#[command(after_help = ADOPT_EXAMPLES)]
pub struct WalAdoptArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// The channel's data directories, all of them, in the order of dataDirs
    #[arg(value_name = "DIR", required = true)]
    pub dirs: Vec<PathBuf>,
}

/// Arguments of the commands of `forebay wal`.
#[derive(Debug, Args)]
#[command(after_help = WAL_EXAMPLES)]
pub struct WalDirArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// The channel's data directories, all of them
    #[arg(value_name = "DIR", required = true)]
    pub dirs: Vec<PathBuf>,
}

const AUDIT_EXAMPLES: &str = "\
Examples:
  forebay audit out/logs
  forebay audit hdfs://nn:8020/logs -c /etc/hadoop/conf
  forebay audit /data/a /data/b                    several targets of one channel
  forebay audit out/logs --log data/c1             what the log says of the same events beside it:
                                                   done and in no file, in a file and still
                                                   waiting, sealed and not finished, damaged

The agent may run meanwhile. Exit codes: 0 every range is there once, 5 something is missing or
double.";

/// Arguments of `forebay audit`.
#[derive(Debug, Args)]
#[command(after_help = AUDIT_EXAMPLES)]
pub struct AuditArgs {
    /// Where the files were published: local or hdfs://
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Compare with the channel's log; give --log once for each of its data directories
    #[arg(long, value_name = "DIR")]
    pub log: Vec<PathBuf>,
    /// Directory with Hadoop's core-site.xml and hdfs-site.xml
    #[arg(short, long, value_name = "DIR")]
    pub conf: Option<PathBuf>,
}

const RESOLVE_EXAMPLES: &str = "\
Examples:
  forebay resolve 17 --done data/c1      its files are where they belong: acknowledge it
  forebay resolve 17 --again data/c1     publish it once more
  forebay resolve damage data/c1         go on although damage may hide a decision

The facts about the epoch are printed first; the agent must not run.";

/// Arguments of `forebay resolve`.
#[derive(Debug, Args)]
#[command(after_help = RESOLVE_EXAMPLES)]
pub struct ResolveArgs {
    /// Number of the epoch, or `damage`
    #[arg(value_name = "EPOCH")]
    pub what: Subject,
    /// Its files are published: acknowledge the range
    #[arg(long, conflicts_with = "again")]
    pub done: bool,
    /// Publish it again
    #[arg(long)]
    pub again: bool,
    /// All data directories of the channel, in the order of dataDirs
    #[arg(value_name = "DIR", required = true)]
    pub dirs: Vec<PathBuf>,
}

/// What `forebay resolve` decides on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A halted epoch.
    Epoch(u64),
    /// Damage that may hide a decision.
    Damage,
}

impl std::str::FromStr for Subject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "damage" => Ok(Self::Damage),
            number => number
                .parse()
                .map(Self::Epoch)
                .map_err(|_| "give the number of an epoch, or the word damage".to_owned()),
        }
    }
}

impl ResolveArgs {
    /// What was decided, or why the words do not say it.
    pub fn decision(&self) -> Result<crate::tools::resolve::Decision, &'static str> {
        use crate::tools::resolve::Decision;
        match (self.what, self.done, self.again) {
            (Subject::Epoch(epoch), true, false) => Ok(Decision::Done(epoch)),
            (Subject::Epoch(epoch), false, true) => Ok(Decision::Again(epoch)),
            (Subject::Epoch(_), ..) => Err("say --done or --again"),
            (Subject::Damage, false, false) => Ok(Decision::AcceptDamage),
            (Subject::Damage, ..) => Err("damage takes neither --done nor --again"),
        }
    }
}
