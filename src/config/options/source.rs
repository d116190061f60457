//! Options of sources.

use std::path::PathBuf;
use std::time::Duration;

use super::super::diagnostic::Location;
use super::super::section::Reader;
use super::SourceKind;
use crate::source::taildir::pattern::whole_name;

/// One file group of a `TAILDIR` source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileGroup {
    /// Name in `filegroups`.
    pub name: String,
    /// The directory; taken literally.
    pub directory: PathBuf,
    /// Pattern that a whole file name must match; known to compile.
    pub pattern: String,
    /// Headers of all its events, in the order of the file.
    pub headers: Vec<(String, String)>,
    /// Where it stands.
    pub at: Location,
}

/// Options of a `TAILDIR` source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaildirConfig {
    /// File groups in the order of `filegroups`.
    pub groups: Vec<FileGroup>,
    /// Flume's position file, read once by a channel that has no positions of this source. Need
    /// not exist; empty where the file is silent and there is no home directory.
    pub position_file: PathBuf,
    /// Most lines in one transaction.
    pub batch_size: usize,
    /// Start files without a position at their end.
    pub skip_to_end: bool,
    /// Close a file that has not grown for so long.
    pub idle_timeout: Duration,
    /// Add the header `byteoffset`.
    pub byte_offset_header: bool,
    /// Name of the header that holds the file's path, if one is wanted.
    pub file_header: Option<String>,
    /// Most batches from one file before the next has its turn.
    pub max_batch_count: u64,
    /// How much longer to wait after each scan that brought no line.
    pub backoff_sleep_increment: Duration,
    /// Longest wait between two scans.
    pub max_backoff_sleep: Duration,
    /// Longest line in bytes, without its line end.
    pub max_line_length: usize,
}

/// Options of a `netcat` source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetcatConfig {
    /// Host name or address to listen on.
    pub bind: String,
    /// Port; 0 lets the system choose.
    pub port: u16,
    /// Most characters of a line with its line end, counted in UTF-16 units.
    pub max_line_length: usize,
    /// Answer `OK` when a line is durable.
    pub ack_every_event: bool,
}

pub(super) fn read(reader: &mut Reader<'_>) -> SourceKind {
    match reader.component.kind.alias {
        "TAILDIR" => SourceKind::Taildir(taildir(reader)),
        _ => SourceKind::Netcat(netcat(reader)),
    }
}

fn netcat(reader: &mut Reader<'_>) -> NetcatConfig {
    reader.choice("encoding");
    NetcatConfig {
        bind: reader.text("bind").unwrap_or_default(),
        port: u16::try_from(reader.number("port")).unwrap_or(0),
        max_line_length: reader.count("max-line-length"),
        ack_every_event: reader.boolean("ack-every-event"),
    }
}

fn taildir(reader: &mut Reader<'_>) -> TaildirConfig {
    let header_key = reader.text("fileHeaderKey");
    TaildirConfig {
        groups: groups(reader),
        position_file: reader.path("positionFile"),
        batch_size: reader.count("batchSize"),
        skip_to_end: reader.boolean("skipToEnd"),
        idle_timeout: Duration::from_millis(reader.number("idleTimeout")),
        byte_offset_header: reader.boolean("byteOffsetHeader"),
        file_header: if reader.boolean("fileHeader") {
            header_key
        } else {
            None
        },
        max_batch_count: reader.number("maxBatchCount"),
        backoff_sleep_increment: Duration::from_millis(reader.number("backoffSleepIncrement")),
        max_backoff_sleep: Duration::from_millis(reader.number("maxBackoffSleep")),
        max_line_length: reader.count("maxLineLength"),
    }
}

fn groups(reader: &mut Reader<'_>) -> Vec<FileGroup> {
    let Some(list) = reader.entry("filegroups") else {
        return Vec::new();
    };
    let names: Vec<&str> = list.value.split_whitespace().collect();
    for entry in &reader.component.keys {
        let mut parts = entry.key.splitn(3, '.');
        let family = parts
            .next()
            .filter(|family| matches!(*family, "filegroups" | "headers"));
        let group = parts.next();
        if let (Some(_), Some(group)) = (family, group)
            && !names.contains(&group)
        {
            reader.warning(
                entry,
                format!("ignored: filegroups does not list '{group}'"),
            );
        }
    }
    let mut groups = Vec::new();
    for name in names {
        if groups.iter().any(|group: &FileGroup| group.name == name) {
            reader.error(list, format!("lists '{name}' twice"));
            continue;
        }
        groups.extend(group(reader, name));
    }
    groups
}

fn group(reader: &mut Reader<'_>, name: &str) -> Option<FileGroup> {
    let key = format!("filegroups.{name}");
    let Some(entry) = reader.entry(&key) else {
        reader.missing(&key, "is missing, but filegroups lists its name");
        return None;
    };
    let Some((directory, pattern)) = entry.value.rsplit_once('/') else {
        let message = "is no path; give a directory and a pattern, as /var/log/app/.*\\.log";
        reader.error(entry, message);
        return None;
    };
    if pattern.is_empty() {
        reader.error(
            entry,
            "ends in '/'; a pattern for the file name must follow",
        );
        return None;
    }
    if let Err(error) = whole_name(pattern) {
        reader.error(entry, error);
        return None;
    }
    let prefix = format!("headers.{name}.");
    let headers = reader
        .component
        .keys
        .iter()
        .filter_map(|entry| {
            let key = entry.key.strip_prefix(&prefix)?;
            Some((key.to_owned(), entry.value.clone()))
        })
        .collect();
    let directory = PathBuf::from(if directory.is_empty() { "/" } else { directory });
    let (pattern, at) = (pattern.to_owned(), entry.at.clone());
    Some(FileGroup {
        name: name.to_owned(),
        directory,
        pattern,
        headers,
        at,
    })
}
