//! Options of sinks.

use std::path::PathBuf;
use std::time::Duration;

use jiff::tz::{Offset, TimeZone};

use super::super::section::Reader;
use super::{SinkKind, StoreKind, Target};

/// Compression of published files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// As they come.
    None,
    /// gzip.
    Gzip,
}

/// How an event becomes bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serializer {
    /// The body alone.
    Text {
        /// Followed by a newline.
        append_newline: bool,
    },
}

/// Unit of [`Rounding`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoundUnit {
    /// Seconds of the minute.
    Second,
    /// Minutes of the hour.
    Minute,
    /// Hours of the day.
    Hour,
}

/// Rounding down of the time that path escapes show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rounding {
    /// To a multiple of so many units: 1 to 60, for hours 1 to 24.
    pub value: u32,
    /// The unit.
    pub unit: RoundUnit,
}

/// Options of an `hdfs` sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HdfsSinkConfig {
    /// Store and path of the files; the path may hold escapes.
    pub target: Target,
    /// Directory of `_staging` and `_rejected`: same store, no escapes, never `/`.
    pub base: Target,
    /// How file names begin; may hold escapes.
    pub file_prefix: String,
    /// How file names end: `hdfs.fileSuffix`, or that of the codec.
    pub file_suffix: String,
    /// Seal after so long, counted from the first event; `None`: never.
    pub roll_interval: Option<Duration>,
    /// Next part after so many bytes before compression; `None`: never.
    pub roll_size: Option<u64>,
    /// Next part after so many events; `None`: never.
    pub roll_count: Option<u64>,
    /// Seal when no event came for so long; `None`: never.
    pub idle_timeout: Option<Duration>,
    /// Most events taken at once.
    pub batch_size: usize,
    /// Compression.
    pub codec: Codec,
    /// Most parts open at once.
    pub max_open_files: usize,
    /// Limit of one call to the store; afterwards its outcome counts as unknown.
    pub call_timeout: Duration,
    /// Rounding of the time, if any.
    pub rounding: Option<Rounding>,
    /// Time zone of the escapes; `None`: the machine's.
    pub time_zone: Option<TimeZone>,
    /// Use the put time instead of the header `timestamp`.
    pub use_local_time_stamp: bool,
    /// How an event becomes bytes.
    pub serializer: Serializer,
}

/// Options of a `file_roll` sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRollConfig {
    /// Directory of the files; also its own base.
    pub directory: PathBuf,
    /// How file names begin.
    pub file_prefix: String,
    /// How file names end; empty, or a dot and an extension.
    pub file_suffix: String,
    /// Seal after so long; `None`: at stop, or when the channel needs room.
    pub roll_interval: Option<Duration>,
    /// Most events taken at once.
    pub batch_size: usize,
    /// How an event becomes bytes.
    pub serializer: Serializer,
}

/// Options of a `logger` sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggerConfig {
    /// Most bytes of a body to show.
    pub max_bytes_to_log: usize,
}

/// Options of a `null` sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NullConfig {
    /// Most events taken at once.
    pub batch_size: usize,
    /// Log progress after so many events.
    pub log_every_n_events: u64,
}

pub(super) fn read(reader: &mut Reader<'_>) -> SinkKind {
    match reader.component.kind.alias {
        "hdfs" => SinkKind::Hdfs(hdfs(reader)),
        "file_roll" => SinkKind::FileRoll(file_roll(reader)),
        "logger" => SinkKind::Logger(LoggerConfig {
            max_bytes_to_log: reader.count("maxBytesToLog"),
        }),
        _ => SinkKind::Null(NullConfig {
            batch_size: reader.count("batchSize"),
            log_every_n_events: reader.number("logEveryNEvents"),
        }),
    }
}

fn file_roll(reader: &mut Reader<'_>) -> FileRollConfig {
    reader.choice("sink.serializer");
    check_name(reader, "sink.pathManager.prefix");
    check_name(reader, "sink.pathManager.extension");
    let extension = reader.text("sink.pathManager.extension");
    FileRollConfig {
        directory: reader.path("sink.directory"),
        file_prefix: reader.text("sink.pathManager.prefix").unwrap_or_default(),
        file_suffix: extension.map_or_else(String::new, |extension| format!(".{extension}")),
        roll_interval: seconds(reader, "sink.rollInterval"),
        batch_size: reader.count("sink.batchSize"),
        serializer: Serializer::Text {
            append_newline: reader.boolean("sink.serializer.appendNewline"),
        },
    }
}

fn hdfs(reader: &mut Reader<'_>) -> HdfsSinkConfig {
    reader.choice("serializer");
    check_name(reader, "hdfs.filePrefix");
    check_name(reader, "hdfs.fileSuffix");
    let codec = codec(reader);
    let (target, base) = places(reader);
    HdfsSinkConfig {
        target,
        base,
        file_prefix: reader.text("hdfs.filePrefix").unwrap_or_default(),
        file_suffix: file_suffix(reader, codec),
        roll_interval: seconds(reader, "hdfs.rollInterval"),
        roll_size: Some(reader.number("hdfs.rollSize")).filter(|size| *size > 0),
        roll_count: Some(reader.number("hdfs.rollCount")).filter(|count| *count > 0),
        idle_timeout: seconds(reader, "hdfs.idleTimeout"),
        batch_size: reader.count("hdfs.batchSize"),
        codec,
        max_open_files: reader.count("hdfs.maxOpenFiles"),
        call_timeout: Duration::from_millis(reader.number("hdfs.callTimeout")),
        rounding: rounding(reader),
        time_zone: time_zone(reader),
        use_local_time_stamp: reader.boolean("hdfs.useLocalTimeStamp"),
        serializer: Serializer::Text {
            append_newline: reader.boolean("serializer.appendNewline"),
        },
    }
}

fn seconds(reader: &mut Reader<'_>, key: &str) -> Option<Duration> {
    Some(reader.number(key))
        .filter(|seconds| *seconds > 0)
        .map(Duration::from_secs)
}

/// A part of a file name: no slash, and nothing at its front that hides the file from readers.
fn check_name(reader: &mut Reader<'_>, key: &str) {
    let Some(entry) = reader.entry(key) else {
        return;
    };
    if entry.value.contains('/') {
        reader.error(entry, "holds '/'; it is a part of a file name");
    } else if entry.value.chars().any(char::is_control) {
        reader.error(
            entry,
            "holds a control character; it is a part of a file name",
        );
    } else if key.ends_with("refix") && entry.value.starts_with(['_', '.']) {
        let message = "begins with '_' or '.'; such files are invisible to Hadoop, and the \
                       names are kept for files in progress";
        reader.error(entry, message);
    }
}

fn file_suffix(reader: &mut Reader<'_>, codec: Codec) -> String {
    let Some(entry) = reader.entry("hdfs.fileSuffix") else {
        return if codec == Codec::Gzip {
            ".gz".to_owned()
        } else {
            String::new()
        };
    };
    if entry.value.starts_with(|c: char| c.is_ascii_digit()) {
        let message = "begins with a digit; the number before it in the file name could not \
                       be told from it. Begin it with '.'";
        reader.error(entry, message);
    }
    entry.value.clone()
}

/// `hdfs.fileType` and `hdfs.codeC` together.
fn codec(reader: &mut Reader<'_>) -> Codec {
    let file_type = reader.choice("hdfs.fileType");
    let codec = reader
        .entry("hdfs.codeC")
        .filter(|e| !e.value.eq_ignore_ascii_case("none"));
    match (file_type, codec) {
        ("SequenceFile", _) => {
            // A value that is none of the three has its message already.
            let known = reader.entry("hdfs.fileType");
            if known.is_none_or(|entry| entry.value.eq_ignore_ascii_case("SequenceFile")) {
                sequence_file(reader);
            }
            Codec::None
        }
        ("CompressedStream", None) => {
            let key = "hdfs.codeC";
            let message = "is missing; fileType CompressedStream needs it: add the line\n    ";
            let line = format!("{message}{} = gzip", reader.full(key));
            reader.missing(key, line);
            Codec::None
        }
        ("CompressedStream", Some(entry)) => {
            let gzip = [
                "gzip",
                "GzipCodec",
                "org.apache.hadoop.io.compress.GzipCodec",
            ];
            if !gzip
                .iter()
                .any(|name| name.eq_ignore_ascii_case(&entry.value))
            {
                let message = format!("codec '{}' is not supported yet; gzip is", entry.value);
                reader.error(entry, message);
            }
            Codec::Gzip
        }
        (_, Some(entry)) => {
            let message = "fileType DataStream does not compress; take the line out, or use \
                           hdfs.fileType = CompressedStream";
            reader.error(entry, message);
            Codec::None
        }
        _ => Codec::None,
    }
}

fn sequence_file(reader: &mut Reader<'_>) {
    let key = "hdfs.fileType";
    let line = format!("\n    {} = DataStream", reader.full(key));
    match reader.entry(key) {
        Some(entry) => {
            let message = "SequenceFile is not supported yet. For text files change the line to";
            reader.error(entry, format!("{message}{line}"));
        }
        None => {
            let message = "is missing, and Flume's default SequenceFile is not supported yet. \
                           For text files add the line";
            reader.missing(key, format!("{message}{line}"));
        }
    }
}

/// Target and base; where the file has errors in them, the root stands in.
fn places(reader: &mut Reader<'_>) -> (Target, Target) {
    let root = Target {
        store: StoreKind::DefaultFs,
        path: "/".to_owned(),
    };
    let parsed = |reader: &mut Reader<'_>, key: &str| {
        let entry = reader.entry(key)?;
        Target::parse(&entry.value)
            .map_err(|message| reader.error(entry, message))
            .ok()
    };
    let target = parsed(reader, "hdfs.path");
    let staging = parsed(reader, "hdfs.stagingPath");
    let Some(target) = target else {
        return (root.clone(), root);
    };
    check_target(reader, &target);
    let Some(entry) = reader.entry("hdfs.stagingPath") else {
        let base = target.base();
        if base.path == "/"
            && let Some(path) = reader.entry("hdfs.path")
        {
            let message = format!(
                "has no directory before its first escape, so files in progress have no place. \
                 Add the line\n    {} = /some/directory",
                reader.full("hdfs.stagingPath")
            );
            reader.error(path, message);
        }
        return (target, base);
    };
    let Some(staging) = staging else {
        return (target, root);
    };
    if staging.has_escape() {
        reader.error(
            entry,
            "holds an escape; it must be the same directory for all events",
        );
    } else if staging.path == "/" {
        reader.error(entry, "is the root; name a directory");
    } else if staging.store != target.store {
        let message = "is in another store than hdfs.path; a rename cannot cross stores";
        reader.error(entry, message);
    }
    (target, staging)
}

fn check_target(reader: &mut Reader<'_>, target: &Target) {
    let Some(entry) = reader.entry("hdfs.path") else {
        return;
    };
    if let Some(part) = target
        .path
        .split('/')
        .find(|part| part.starts_with(['_', '.']))
    {
        let message = format!(
            "the component '{part}' hides all files below it from Hadoop's readers and the audit"
        );
        reader.warning(entry, message);
    }
}

fn rounding(reader: &mut Reader<'_>) -> Option<Rounding> {
    let value = reader.number("hdfs.roundValue");
    let unit = match reader.choice("hdfs.roundUnit") {
        "hour" => RoundUnit::Hour,
        "minute" => RoundUnit::Minute,
        _ => RoundUnit::Second,
    };
    if unit == RoundUnit::Hour
        && value > 24
        && let Some(entry) = reader.entry("hdfs.roundValue")
    {
        reader.error(entry, format!("{value} is more than the 24 hours of a day"));
    }
    let wanted = reader.boolean("hdfs.round");
    wanted.then(|| Rounding {
        value: u32::try_from(value).unwrap_or(1),
        unit,
    })
}

/// A name of the time zone database, or Java's `GMT+8`, `GMT+08:00`, `GMT-0130`.
fn time_zone(reader: &mut Reader<'_>) -> Option<TimeZone> {
    let entry = reader.entry("hdfs.timeZone")?;
    let zone = custom_zone(&entry.value).or_else(|| TimeZone::get(&entry.value).ok());
    if zone.is_none() {
        let message = format!(
            "unknown time zone '{}'; write Area/City or GMT+hh:mm (Java would take GMT)",
            entry.value
        );
        reader.error(entry, message);
    }
    zone
}

fn custom_zone(text: &str) -> Option<TimeZone> {
    let rest = text.strip_prefix("GMT")?;
    let sign = match rest.chars().next()? {
        '+' => 1,
        '-' => -1,
        _ => return None,
    };
    let digits = &rest[1..];
    if !digits.chars().all(|c| c.is_ascii_digit() || c == ':') {
        return None;
    }
    let (hours, minutes) = match digits.split_once(':') {
        Some((hours, minutes)) if minutes.len() == 2 => (hours, minutes),
        Some(_) => return None,
        None if digits.len() > 2 => digits.split_at(digits.len() - 2),
        None => (digits, "0"),
    };
    if !(1..=2).contains(&hours.len()) {
        return None;
    }
    let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    let offset = Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok()?;
    Some(TimeZone::fixed(offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn custom_time_zones_are_those_of_java() {
        let seconds = |text: &str| {
            let zone = custom_zone(text)?;
            Some(zone.to_offset(jiff::Timestamp::UNIX_EPOCH).seconds())
        };
        assert_eq!(seconds("GMT+8"), Some(8 * 3600));
        assert_eq!(seconds("GMT+08:30"), Some(8 * 3600 + 1800));
        assert_eq!(seconds("GMT-0130"), Some(-5400));
        for bad in [
            "GMT", "GMT+", "GMT+24", "GMT+1:2", "GMT+:30", "GMT+é", "UTC+8", "GMT+1:60",
        ] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }
}
