//! Keys of the `hdfs` sink.

use super::{Key, KeyType, Section, Table, common};

const SECONDS_MAX: i64 = i32::MAX as i64;
/// As in Flume, less than 0 means what 0 means.
const LEAST: i64 = i64::MIN;
const STAGED: &str = "files in progress lie under `_staging`, never under the path itself";
const KERBEROS: &str = "Kerberos and impersonation are not supported yet";
const REPLICAS: &str =
    "a missing replica does not roll a file; a write that fails is repeated whole";
const ATTEMPTS: &str =
    "a file that cannot be closed is written anew from the channel, with back-off, until it can";

pub(super) static TABLE: Table = Table {
    section: Section::Sinks,
    alias: "hdfs",
    class: "org.apache.flume.sink.hdfs.HDFSEventSink",
    common: common::SINK,
    keys: &[
        Key::new(
            "hdfs.path",
            KeyType::Text,
            "directory of the files: hdfs://, file:// or absolute; with escapes",
        )
        .required(),
        Key::new(
            "hdfs.stagingPath",
            KeyType::Text,
            "directory of `_staging`; default: the path up to its first escape",
        )
        .ours(),
        Key::new(
            "hdfs.filePrefix",
            KeyType::Text,
            "how file names begin; with escapes",
        )
        .default("FlumeData"),
        Key::new(
            "hdfs.fileSuffix",
            KeyType::Text,
            "how file names end; default with gzip: .gz",
        ),
        Key::new(
            "hdfs.inUsePrefix",
            KeyType::Text,
            "prefix while a file is written",
        )
        .no_effect(STAGED),
        Key::new(
            "hdfs.inUseSuffix",
            KeyType::Text,
            "suffix while a file is written",
        )
        .default(".tmp")
        .no_effect(STAGED),
        Key::new(
            "hdfs.emptyInUseSuffix",
            KeyType::Boolean,
            "no suffix while a file is written",
        )
        .default("false")
        .no_effect(STAGED),
        Key::new(
            "hdfs.rollInterval",
            KeyType::Integer {
                min: LEAST,
                max: SECONDS_MAX,
            },
            "publish after so long; 0 or less is never",
        )
        .differs("60", "30")
        .unit("s"),
        Key::new(
            "hdfs.rollSize",
            KeyType::Integer {
                min: LEAST,
                max: i64::MAX,
            },
            "next file after so many bytes before compression; 0 or less is never",
        )
        .differs("134217728", "1024")
        .unit("bytes"),
        Key::new(
            "hdfs.rollCount",
            KeyType::Integer {
                min: LEAST,
                max: i64::MAX,
            },
            "next file after so many events; 0 or less is never",
        )
        .differs("0", "10")
        .unit("events"),
        Key::new(
            "hdfs.idleTimeout",
            KeyType::Integer {
                min: LEAST,
                max: SECONDS_MAX,
            },
            "publish when no event came for so long; 0 or less is never",
        )
        .default("0")
        .unit("s"),
        Key::new(
            "hdfs.batchSize",
            KeyType::Integer {
                min: 1,
                max: 1_000_000,
            },
            "most events taken at once",
        )
        .default("100")
        .unit("events"),
        Key::new(
            "hdfs.codeC",
            KeyType::Text,
            "compression; gzip only for now",
        ),
        Key::new(
            "hdfs.fileType",
            KeyType::Choice(&["SequenceFile", "DataStream", "CompressedStream"]),
            "format of the files; SequenceFile, also by default, is refused for now",
        )
        .default("SequenceFile"),
        Key::new(
            "hdfs.writeFormat",
            KeyType::Text,
            "content of sequence files",
        )
        .default("Writable")
        .no_effect("only SequenceFile reads it"),
        Key::new(
            "hdfs.maxOpenFiles",
            KeyType::Integer {
                min: 1,
                max: 1_000_000,
            },
            "most files open at once; publishes to make room",
        )
        .default("5000")
        .unit("files"),
        Key::new(
            "hdfs.minBlockReplicas",
            KeyType::Text,
            "roll when a block has fewer replicas",
        )
        .no_effect(REPLICAS),
        Key::new(
            "hdfs.callTimeout",
            KeyType::Integer {
                min: 1,
                max: i32::MAX as i64,
            },
            "limit of one call to HDFS; afterwards its outcome counts as unknown",
        )
        .default("30000")
        .unit("ms"),
        Key::new(
            "hdfs.threadsPoolSize",
            KeyType::Text,
            "threads for HDFS calls",
        )
        .default("10")
        .no_effect("calls do not block threads"),
        Key::new(
            "hdfs.rollTimerPoolSize",
            KeyType::Text,
            "threads for timers",
        )
        .default("1")
        .no_effect("timers need no threads"),
        Key::new("hdfs.kerberosPrincipal", KeyType::Text, "principal").refused(KERBEROS),
        Key::new("hdfs.kerberosKeytab", KeyType::Text, "keytab").refused(KERBEROS),
        Key::new("hdfs.proxyUser", KeyType::Text, "user to act for").refused(KERBEROS),
        Key::new(
            "hdfs.round",
            KeyType::Boolean,
            "round the time in the path down",
        )
        .default("false"),
        Key::new(
            "hdfs.roundValue",
            KeyType::Integer { min: 1, max: 60 },
            "to a multiple of this (at most 24 for hours)",
        )
        .default("1"),
        Key::new(
            "hdfs.roundUnit",
            KeyType::Choice(&["second", "minute", "hour"]),
            "of this unit",
        )
        .default("second"),
        Key::new(
            "hdfs.timeZone",
            KeyType::Text,
            "time zone of the path; default: the machine's",
        ),
        Key::new(
            "hdfs.useLocalTimeStamp",
            KeyType::Boolean,
            "use the put time instead of the header `timestamp`",
        )
        .default("false"),
        Key::new(
            "hdfs.closeTries",
            KeyType::Text,
            "how often to try to close a file",
        )
        .default("0")
        .no_effect(ATTEMPTS),
        Key::new(
            "hdfs.retryInterval",
            KeyType::Text,
            "time between two tries",
        )
        .default("180")
        .unit("s")
        .no_effect(ATTEMPTS),
        Key::new(
            "hdfs.useRawLocalFileSystem",
            KeyType::Boolean,
            "write file:// without checksum files",
        )
        .default("false")
        .no_effect("file:// never writes checksum files here"),
        Key::new(
            "hdfs.append.support",
            KeyType::Boolean,
            "append to files that exist (a Hadoop setting)",
        )
        .default("false")
        .no_effect("nothing is ever appended; every file has its own name"),
        Key::new(
            "serializer",
            KeyType::Choice(&["TEXT"]),
            "how an event becomes bytes",
        )
        .default("TEXT"),
        Key::new(
            "serializer.appendNewline",
            KeyType::Boolean,
            "end every event with a newline",
        )
        .default("true"),
        Key::new(
            "serializer.*",
            KeyType::Text,
            "settings of other serializers",
        )
        .no_effect("TEXT does not read it"),
    ],
};
