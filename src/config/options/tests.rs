use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::config::{Lookups, parse};

fn lookups() -> Lookups {
    Lookups::fixed([], [("HOME".to_owned(), "/h/u".to_owned())])
}

fn agent(text: &str) -> AgentConfig {
    let loaded = parse(text.as_bytes(), &Arc::from("f"), "a1", &lookups());
    let found: Vec<String> = loaded
        .found
        .sorted()
        .iter()
        .map(ToString::to_string)
        .collect();
    loaded.config.unwrap_or_else(|| panic!("{found:#?}"))
}

const FLOW: &str = "a1.sources=r1\na1.channels=c1\na1.sinks=k1\n\
    a1.sources.r1.type=netcat\na1.sources.r1.bind=0.0.0.0\na1.sources.r1.port=44444\n\
    a1.sources.r1.channels=c1\na1.channels.c1.type=file\n\
    a1.sinks.k1.type=hdfs\na1.sinks.k1.channel=c1\na1.sinks.k1.hdfs.path=/logs/%Y\n\
    a1.sinks.k1.hdfs.fileType=DataStream\n";

fn with(lines: &str) -> AgentConfig {
    agent(&format!("{FLOW}{lines}"))
}

fn hdfs(lines: &str) -> HdfsSinkConfig {
    match with(lines).sinks.remove(0).kind {
        SinkKind::Hdfs(options) => options,
        other => panic!("{other:?}"),
    }
}

fn file_channel(lines: &str) -> FileChannelConfig {
    match with(lines).channels.remove(0).kind {
        ChannelKind::File(options) => options,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_silent_file_gets_the_documented_defaults() {
    let options = hdfs("");
    assert_eq!(options.roll_interval, Some(Duration::from_secs(60)));
    assert_eq!(
        (options.roll_size, options.roll_count),
        (Some(128 << 20), None)
    );
    assert_eq!(options.base.path, "/logs");
    assert_eq!(
        (options.file_prefix.as_str(), options.file_suffix.as_str()),
        ("FlumeData", "")
    );
    let options = file_channel("");
    assert_eq!(
        options.data_dirs,
        [std::path::Path::new("/h/u/.flume/file-channel/data")]
    );
    assert_eq!(
        (options.capacity, options.transaction_capacity),
        (1_000_000, 10_000)
    );
    assert_eq!(
        (options.max_file_size, options.sync_mode),
        (64 << 20, SyncMode::Commit)
    );
}

#[test]
fn flumes_roll_defaults_are_kept_where_the_file_says_them() {
    let options = hdfs(
        "a1.sinks.k1.hdfs.rollInterval=30\na1.sinks.k1.hdfs.rollSize=1024\n\
         a1.sinks.k1.hdfs.rollCount=10\n",
    );
    assert_eq!(options.roll_interval, Some(Duration::from_secs(30)));
    assert_eq!(
        (options.roll_size, options.roll_count),
        (Some(1024), Some(10))
    );
}

#[test]
fn less_than_zero_is_never_for_every_roll() {
    let options = hdfs(
        "a1.sinks.k1.hdfs.rollInterval=-1\na1.sinks.k1.hdfs.rollSize=-1\n\
         a1.sinks.k1.hdfs.rollCount=-1\na1.sinks.k1.hdfs.idleTimeout=-1\n",
    );
    let times = (options.roll_interval, options.idle_timeout);
    assert_eq!(
        (times, options.roll_size, options.roll_count),
        ((None, None), None, None)
    );
}

#[test]
fn sync_modes_come_from_our_key_or_from_flumes() {
    let mode = |lines: &str| file_channel(lines).sync_mode;
    let interval = "a1.channels.c1.fsyncPerTransaction=false\na1.channels.c1.fsyncInterval=2\n";
    assert_eq!(mode(interval), SyncMode::Interval(Duration::from_secs(2)));
    assert_eq!(mode("a1.channels.c1.syncMode=OS\n"), SyncMode::Os);
    let both = "a1.channels.c1.syncMode=interval\na1.channels.c1.fsyncPerTransaction=false\n";
    assert_eq!(mode(both), SyncMode::Interval(Duration::from_secs(5)));
}

#[test]
fn segments_are_lowered_to_the_largest_size() {
    let options = file_channel("a1.channels.c1.maxFileSize=2146435071\n");
    assert_eq!(options.max_file_size, 128 << 20);
}

#[test]
fn a_compressed_stream_has_the_suffix_of_its_codec_unless_told_otherwise() {
    let gzip = "a1.sinks.k1.hdfs.fileType=compressedstream\na1.sinks.k1.hdfs.codeC=GzipCodec\n";
    let options = hdfs(gzip);
    assert_eq!(
        (options.codec, options.file_suffix.as_str()),
        (Codec::Gzip, ".gz")
    );
    let options = hdfs(&format!("{gzip}a1.sinks.k1.hdfs.fileSuffix=.log\n"));
    assert_eq!(options.file_suffix, ".log");
}

#[test]
fn file_groups_keep_their_order_and_their_headers() {
    let text = "a1.sources=r1\na1.channels=c1\na1.sources.r1.type=TAILDIR\n\
        a1.sources.r1.channels=c1\na1.sources.r1.filegroups=g2 g1\n\
        a1.sources.r1.filegroups.g1=/var/log/.*\\\\.log\na1.sources.r1.filegroups.g2=/x\n\
        a1.sources.r1.headers.g1.host=h\na1.sources.r1.headers.g1.a.b=c\n\
        a1.channels.c1.type=memory\n";
    let mut agent = agent(text);
    let SourceKind::Taildir(options) = agent.sources.remove(0).kind else {
        panic!()
    };
    let [g2, g1] = options.groups.as_slice() else {
        panic!()
    };
    assert_eq!(
        (g2.name.as_str(), g2.directory.to_str(), g2.pattern.as_str()),
        ("g2", Some("/"), "x")
    );
    assert_eq!(
        (g1.directory.to_str(), g1.pattern.as_str()),
        (Some("/var/log"), ".*\\.log")
    );
    let headers = [
        ("host".to_owned(), "h".to_owned()),
        ("a.b".to_owned(), "c".to_owned()),
    ];
    assert_eq!(g1.headers, headers);
    let ChannelKind::Memory(options) = &agent.channels[0].kind else {
        panic!()
    };
    assert_eq!(options.body_bytes_max, Some((64 << 20) * 80 / 100));
}

fn taildir(lines: &str) -> String {
    format!(
        "a1.sources=r1\na1.channels=c1\na1.sources.r1.type=TAILDIR\na1.sources.r1.channels=c1\n\
         a1.sources.r1.filegroups=g\na1.channels.c1.type=memory\n{lines}"
    )
}

#[test]
fn a_pattern_that_the_source_would_refuse_is_refused_with_its_line() {
    // The engine takes it for a difference of classes, Java for a range.
    let text = taildir("a1.sources.r1.filegroups.g=/var/log/[a--b].log\n");
    let loaded = parse(text.as_bytes(), &Arc::from("f"), "a1", &lookups());
    let found = loaded.found.sorted();
    let [only] = found.as_slice() else {
        panic!("{found:?}")
    };
    let expected =
        "error: f:7: a1.sources.r1.filegroups.g: cannot use the pattern '[a--b].log': '--'";
    assert!(only.to_string().starts_with(expected), "{only}");
}

#[test]
fn the_longest_line_of_taildir_is_one_mebibyte_unless_the_file_says_otherwise() {
    let longest = |lines: &str| {
        let group = "a1.sources.r1.filegroups.g=/x\n";
        match agent(&taildir(&format!("{group}{lines}")))
            .sources
            .remove(0)
            .kind
        {
            SourceKind::Taildir(config) => config.max_line_length,
            SourceKind::Netcat(_) => panic!("the source is TAILDIR"),
        }
    };
    assert_eq!(longest(""), 1 << 20);
    assert_eq!(longest("a1.sources.r1.maxLineLength=70000\n"), 70_000);
}
