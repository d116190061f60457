//! What the configuration reader says, compared word for word, and that no text makes it panic.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::sync::Arc;

use forebay::cli::CheckArgs;
use forebay::config::keys::{Key, SECTIONS, Status, TABLES, Table};
use forebay::config::{Loaded, Lookups, check, parse};
use proptest::prelude::*;
use proptest::string::string_regex as regex;

/// A flow without any finding; line 1 to 12.
const FLOW: &str = "\
a1.sources = r1
a1.channels = c1
a1.sinks = k1
a1.sources.r1.type = netcat
a1.sources.r1.bind = 127.0.0.1
a1.sources.r1.port = 44444
a1.sources.r1.channels = c1
a1.channels.c1.type = file
a1.channels.c1.dataDirs = data/c1
a1.sinks.k1.type = logger
a1.sinks.k1.channel = c1
";

/// The same with an hdfs sink; line 12 begins what a test adds.
const HDFS: &str = "\
a1.sources = r1
a1.channels = c1
a1.sinks = k1
a1.sources.r1.type = netcat
a1.sources.r1.bind = 127.0.0.1
a1.sources.r1.port = 44444
a1.sources.r1.channels = c1
a1.channels.c1.type = file
a1.channels.c1.dataDirs = data/c1
a1.sinks.k1.type = hdfs
a1.sinks.k1.channel = c1
";

const PATH: &str = "a1.sinks.k1.hdfs.path = /logs\n";
const TEXT: &str = "a1.sinks.k1.hdfs.fileType = DataStream\n";

fn load(text: &str) -> Loaded {
    let lookups = Lookups::fixed([], [("DIR".to_owned(), "d".to_owned())]);
    parse(text.as_bytes(), &Arc::from("x.conf"), "a1", &lookups)
}

fn findings(text: &str) -> Vec<String> {
    load(text)
        .found
        .sorted()
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// What is found in `FLOW` followed by `lines`; the first of them is line 12.
fn flow(lines: &str) -> Vec<String> {
    findings(&format!("{FLOW}{lines}"))
}

/// What is found in `HDFS` followed by `lines`; the first of them is line 12.
fn hdfs(lines: &str) -> Vec<String> {
    findings(&format!("{HDFS}{lines}"))
}

fn replaced(from: &str, to: &str) -> Vec<String> {
    assert!(FLOW.contains(from));
    findings(&FLOW.replace(from, to))
}

#[test]
fn a_right_file_has_no_findings() {
    assert_eq!(flow(""), [""; 0]);
    assert_eq!(hdfs(&format!("{PATH}{TEXT}")), [""; 0]);
    assert!(load(FLOW).config.is_some());
}

#[test]
fn a_key_near_a_known_one_is_an_error_with_the_nearest_name() {
    assert_eq!(
        flow("a1.channels.c1.capasity = 5\n"),
        [
            "error: x.conf:12: a1.channels.c1.capasity: unknown key; did you mean \
          a1.channels.c1.capacity?"
        ]
    );
    assert_eq!(
        hdfs(&format!("{PATH}{TEXT}a1.sinks.k1.hdfs.rollsize = 5\n")),
        [
            "error: x.conf:14: a1.sinks.k1.hdfs.rollsize: unknown key; did you mean \
          a1.sinks.k1.hdfs.rollSize?"
        ]
    );
    assert_eq!(
        flow("a1.soruces = r1\n"),
        ["error: x.conf:12: a1.soruces: unknown key; did you mean a1.sources?"]
    );
}

#[test]
fn other_unknown_keys_are_warnings() {
    assert_eq!(
        flow("a1.channels.c1.colour = red\na1.colour = blue\n"),
        [
            "warning: x.conf:12: a1.channels.c1.colour: unknown key of file; ignored",
            "warning: x.conf:13: a1.colour: ignored: unknown key of an agent",
        ]
    );
    assert_eq!(
        hdfs(&format!("{PATH}{TEXT}a1.sinks.k1.rollInterval = 5\n")),
        [
            "warning: x.conf:14: a1.sinks.k1.rollInterval: unknown key of hdfs; ignored; did you \
          mean a1.sinks.k1.hdfs.rollInterval?"
        ]
    );
}

#[test]
fn types_are_refused_by_name() {
    assert_eq!(
        replaced("type = netcat", "type = netcta"),
        [
            "error: x.conf:4: a1.sources.r1.type: unknown source type 'netcta'; the nearest is \
          'netcat'"
        ]
    );
    assert_eq!(
        replaced("type = netcat", "type = foo"),
        [
            "error: x.conf:4: a1.sources.r1.type: unknown source type 'foo'; there are TAILDIR, \
          netcat"
        ]
    );
    assert_eq!(
        replaced("type = netcat", "type = exec"),
        ["error: x.conf:4: a1.sources.r1.type: source type 'exec' is not supported yet"]
    );
    assert_eq!(
        replaced("type = file", "type = SPILLABLEMEMORY"),
        [
            "error: x.conf:8: a1.channels.c1.type: channel type 'SPILLABLEMEMORY' is not supported \
          yet"
        ]
    );
    assert_eq!(
        replaced(
            "type = netcat",
            "type = org.apache.flume.source.NetcatSource"
        ),
        [""; 0]
    );
}

#[test]
fn what_is_not_supported_yet_is_refused() {
    let channels = "a1.channels = c1 c2\na1.channels.c2.type = memory\n\
                    a1.sources.r1.channels = c1 c2\na1.sinks = k1 k2\n\
                    a1.sinks.k2.type = null\na1.sinks.k2.channel = c2\n";
    let found = flow(channels);
    let refusal = "error: x.conf:14: a1.sources.r1.channels: a source with more than one channel \
                   is not supported yet; sinks on one channel share its events";
    assert!(found.contains(&refusal.to_owned()), "{found:#?}");
    assert_eq!(
        flow("a1.sources.r1.interceptors = i1\na1.sources.r1.interceptors.i1.type = host\n"),
        ["error: x.conf:12: a1.sources.r1.interceptors: interceptors are not supported yet"]
    );
    assert_eq!(
        flow("a1.sources.r1.selector.type = multiplexing\n"),
        [
            "error: x.conf:12: a1.sources.r1.selector.type: 'multiplexing' is not supported yet, \
          only replicating"
        ]
    );
    assert_eq!(
        flow(
            "a1.sinkgroups = g1\na1.sinkgroups.g1.sinks = k1\n\
              a1.sinkgroups.g1.processor.type = failover\n"
        ),
        [
            "error: x.conf:14: a1.sinkgroups.g1.processor.type: sink processor 'failover' is not \
          supported yet"
        ]
    );
    assert_eq!(
        flow("a1.sinkgroups = g1\na1.sinkgroups.g1.sinks = k1\n"),
        ["note: x.conf:12: a1.sinkgroups.g1: the default sink processor changes nothing"]
    );
    assert_eq!(
        flow("a1.channels.c1.encryption.activeKey = k\n"),
        [
            "error: x.conf:12: a1.channels.c1.encryption.activeKey: encryption of the log is not \
          supported yet"
        ]
    );
    assert_eq!(
        hdfs(&format!(
            "{PATH}{TEXT}a1.sinks.k1.hdfs.kerberosPrincipal = p\n"
        )),
        [
            "error: x.conf:14: a1.sinks.k1.hdfs.kerberosPrincipal: Kerberos and impersonation are \
          not supported yet"
        ]
    );
    assert_eq!(
        hdfs(&format!(
            "{PATH}{TEXT}a1.sinks.k1.serializer = avro_event\n"
        )),
        ["error: x.conf:14: a1.sinks.k1.serializer: 'avro_event' is not supported yet, only TEXT"]
    );
}

#[test]
fn sequence_files_are_refused_with_the_line_to_add() {
    assert_eq!(
        hdfs(PATH),
        [
            "error: x.conf:10: a1.sinks.k1.hdfs.fileType: is missing, and Flume's default \
          SequenceFile is not supported yet. For text files add the line\n    \
          a1.sinks.k1.hdfs.fileType = DataStream"
        ]
    );
    assert_eq!(
        hdfs(&format!("{PATH}a1.sinks.k1.hdfs.fileType = sequencefile\n")),
        [
            "error: x.conf:13: a1.sinks.k1.hdfs.fileType: SequenceFile is not supported yet. For \
          text files change the line to\n    a1.sinks.k1.hdfs.fileType = DataStream"
        ]
    );
    assert_eq!(
        hdfs(&format!("{PATH}a1.sinks.k1.hdfs.fileType = Text\n")),
        [
            "error: x.conf:13: a1.sinks.k1.hdfs.fileType: 'Text' is none of SequenceFile, \
          DataStream, CompressedStream"
        ]
    );
}

#[test]
fn compression_needs_its_file_type_and_a_codec_we_have() {
    let compressed = format!("{PATH}a1.sinks.k1.hdfs.fileType = CompressedStream\n");
    assert_eq!(
        hdfs(&compressed),
        [
            "error: x.conf:10: a1.sinks.k1.hdfs.codeC: is missing; fileType CompressedStream needs \
          it: add the line\n    a1.sinks.k1.hdfs.codeC = gzip"
        ]
    );
    assert_eq!(
        hdfs(&format!("{compressed}a1.sinks.k1.hdfs.codeC = snappy\n")),
        ["error: x.conf:14: a1.sinks.k1.hdfs.codeC: codec 'snappy' is not supported yet; gzip is"]
    );
    assert_eq!(
        hdfs(&format!("{PATH}{TEXT}a1.sinks.k1.hdfs.codeC = gzip\n")),
        [
            "error: x.conf:14: a1.sinks.k1.hdfs.codeC: fileType DataStream does not compress; take \
          the line out, or use hdfs.fileType = CompressedStream"
        ]
    );
}

#[test]
fn names_and_paths_that_would_break_the_promise_are_refused() {
    assert_eq!(
        hdfs(&format!("{PATH}{TEXT}a1.sinks.k1.hdfs.fileSuffix = 7z\n")),
        [
            "error: x.conf:14: a1.sinks.k1.hdfs.fileSuffix: begins with a digit; the number before \
          it in the file name could not be told from it. Begin it with '.'"
        ]
    );
    assert_eq!(
        hdfs(&format!("{TEXT}a1.sinks.k1.hdfs.path = /%{{host}}/x\n")),
        [
            "error: x.conf:13: a1.sinks.k1.hdfs.path: has no directory before its first escape, so \
          files in progress have no place. Add the line\n    \
          a1.sinks.k1.hdfs.stagingPath = /some/directory"
        ]
    );
    let staged = "a1.sinks.k1.hdfs.path = /%{host}/x\na1.sinks.k1.hdfs.stagingPath = /st\n";
    assert_eq!(hdfs(&format!("{TEXT}{staged}")), [""; 0]);
    assert_eq!(
        hdfs(&format!(
            "{TEXT}{PATH}a1.sinks.k1.hdfs.stagingPath = file:///st\n"
        )),
        [
            "error: x.conf:14: a1.sinks.k1.hdfs.stagingPath: is in another store than hdfs.path; a \
          rename cannot cross stores"
        ]
    );
    assert_eq!(
        hdfs(&format!("{PATH}{TEXT}a1.sinks.k1.hdfs.filePrefix = _x\n")),
        [
            "error: x.conf:14: a1.sinks.k1.hdfs.filePrefix: begins with '_' or '.'; such files are \
          invisible to Hadoop, and the names are kept for files in progress"
        ]
    );
    assert_eq!(
        hdfs(&format!("{TEXT}a1.sinks.k1.hdfs.path = logs/x\n")),
        ["error: x.conf:13: a1.sinks.k1.hdfs.path: 'logs/x' has no absolute path"]
    );
}

#[test]
fn all_errors_of_a_file_are_reported_at_once() {
    let text = "a1.sources = r1 r9\na1.channels = c1\na1.sinks = k1\n\
        a1.sources.r1.type = netcat\na1.sources.r1.port = 70000\na1.sources.r1.channels = c7\n\
        a1.channels.c1.type = file\na1.channels.c1.keep-alive = soon\n\
        a1.channels.c1.dataDirs = ${env:NO}\n\
        a1.sinks.k1.type = null\na1.sinks.k1.batchSize = 0\na1.sinks.k1.cannel = c1\n\
        a1.channels.c1.fsyncPerTransaction = yes\nx=\\u1\n";
    assert_eq!(
        findings(text),
        [
            "error: x.conf:1: a1.sources: lists 'r9', but there is no a1.sources.r9.type",
            "error: x.conf:4: a1.sources.r1.bind: is missing",
            "error: x.conf:5: a1.sources.r1.port: '70000' is not a whole number from 0 to 65535",
            "error: x.conf:6: a1.sources.r1.channels: a1.channels does not list 'c7'",
            "error: x.conf:8: a1.channels.c1.keep-alive: 'soon' is not a whole number from 0 to \
             86400",
            "error: x.conf:9: a1.channels.c1.dataDirs: environment variable NO is not set",
            "error: x.conf:10: a1.sinks.k1.channel: is missing",
            "error: x.conf:11: a1.sinks.k1.batchSize: '0' is not a whole number from 1 to \
             1000000",
            "error: x.conf:12: a1.sinks.k1.cannel: unknown key; did you mean \
             a1.sinks.k1.channel?",
            "error: x.conf:13: a1.channels.c1.fsyncPerTransaction: 'yes' is neither true nor \
             false",
            "error: x.conf:14: malformed \\uxxxx escape: four hex digits must follow",
        ]
    );
    assert!(load(text).config.is_none());
}

#[test]
fn the_later_of_two_lines_wins_and_both_are_named() {
    let loaded = load(&format!(
        "{FLOW}a1.channels.c1.capacity = 5000000\n\
                                a1.channels.c1.capacity = 6000000\n"
    ));
    let found: Vec<String> = loaded
        .found
        .sorted()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        found,
        [
            "warning: x.conf:13: a1.channels.c1.capacity: stands twice: line 12 is overruled by \
          line 13"
        ]
    );
    assert_eq!(
        loaded.config.unwrap().channels[0].kind.capacity(),
        6_000_000
    );
}

#[test]
fn other_agents_and_unlisted_components_are_ignored_whatever_they_hold() {
    assert_eq!(
        flow(
            "b.sources = x\nb.sources.x.type = nonsense ${date:yyyy}\n\
              a1.sinks.old.type = nonsense\na1.sinks.old.x = ${env:NO}\n"
        ),
        [
            "note: x.conf: 2 properties of other agents are ignored",
            "note: x.conf:14: a1.sinks.old: ignored: a1.sinks does not list it",
        ]
    );
    assert_eq!(
        findings(&FLOW.replace("a1.", "b.")),
        [
            "error: x.conf: there is no agent 'a1' in this file; it has: b (choose with -n NAME)",
            "error: x.conf: a1.channels: no channels are listed; an agent needs at least one",
            "note: x.conf: 11 properties of other agents are ignored",
        ]
    );
}

#[test]
fn capacities_and_batches_must_fit_each_other() {
    assert_eq!(
        flow("a1.channels.c1.capacity = 1000\n"),
        [
            "warning: x.conf:12: a1.channels.c1.capacity: below the default transactionCapacity \
          10000, which is lowered to 1000; Flume refuses this"
        ]
    );
    assert_eq!(
        flow("a1.channels.c1.capacity = 1000\na1.channels.c1.transactionCapacity = 2000\n"),
        [
            "error: x.conf:13: a1.channels.c1.transactionCapacity: 2000 is more than the capacity \
          1000"
        ]
    );
    let sink = format!("{PATH}{TEXT}a1.sinks.k1.hdfs.batchSize = 20000\n");
    assert_eq!(
        hdfs(&sink),
        [
            "error: x.conf:14: a1.sinks.k1.hdfs.batchSize: 20000 is more than the \
          transactionCapacity 10000 of channel c1"
        ]
    );
    assert_eq!(
        flow("a1.channels.c1.capacity = -1\n"),
        [
            "warning: x.conf:12: a1.channels.c1.capacity: -1 is not positive; 1000000 applies, as \
          in Flume"
        ]
    );
}

#[test]
fn what_is_doubtful_as_a_whole_is_a_warning() {
    let file = "a1.sinks = k1 k2\na1.sinks.k2.type = file_roll\na1.sinks.k2.channel = c1\n\
                a1.sinks.k2.sink.directory = out\n";
    let found = hdfs(&format!(
        "{PATH}{TEXT}a1.sinks.k1.hdfs.rollCount = 600000\n{file}"
    ));
    let expected = [
        "warning: x.conf:14: a1.sinks.k1.hdfs.rollCount: 600000 events are more than half the \
         capacity 1000000 of channel c1; after a crash so many come back at once and hold its \
         sources up",
        "warning: x.conf:18: a1.sinks.k2.sink.directory: its base file://out is not that of \
         sink k1 (/logs) on the same channel: a copied log is then not always noticed; \
         hdfs.stagingPath sets the base",
    ];
    for line in expected {
        assert!(found.contains(&line.to_owned()), "{line}\n{found:#?}");
    }
    assert_eq!(
        hdfs(&format!("{TEXT}a1.sinks.k1.hdfs.path = /logs/%Y\n")),
        [
            "warning: x.conf:13: a1.sinks.k1.hdfs.path: %Y needs events with the header \
          `timestamp`; if the source does not set it, add \
          a1.sinks.k1.hdfs.useLocalTimeStamp = true"
        ]
    );
}

#[test]
fn secrets_are_in_no_finding_and_no_report() {
    let text = format!("{FLOW}a1.channels.c1.encryption.keyProvider.password = swordfish\n");
    let loaded = load(&text);
    assert!(loaded.found.has_errors());
    assert!(!format!("{loaded:?}").contains("swordfish"));
    for json in [false, true] {
        assert!(
            !report(&text, &["--json"][..usize::from(json)])
                .1
                .contains("swordfish")
        );
    }
}

fn report(text: &str, options: &[&str]) -> (u8, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.conf");
    std::fs::write(&file, text).unwrap();
    let mut args = CheckArgs {
        file,
        name: None,
        conf: Some(dir.path().to_owned()),
        strict: false,
        json: false,
        define: Vec::new(),
    };
    for option in options {
        match *option {
            "--json" => args.json = true,
            "--strict" => args.strict = true,
            other => panic!("{other}"),
        }
    }
    let mut out = Vec::new();
    let code = check::run(&args, &mut out);
    let path = args.file.display().to_string();
    (
        code,
        String::from_utf8(out).unwrap().replace(&path, "x.conf"),
    )
}

#[test]
fn check_prints_what_is_honoured_what_not_and_why() {
    let lines = "a1.channels.c1.checkpointDir = cp\na1.channels.c1.colour = red\n";
    let (code, out) = report(&format!("{FLOW}{lines}"), &[]);
    let expected = "\
x.conf: agent a1
  source r1: netcat
    bind = 127.0.0.1
    port = 44444
    channels = c1
  channel c1: file
    dataDirs = data/c1
    no effect: checkpointDir = cp (there is no checkpoint: every segment begins with a snapshot, \
and opening reads one segment)
    default: maxFileSize = 67108864 bytes (Flume: 1623195647)
  sink k1: logger
    channel = c1

warning: x.conf:13: a1.channels.c1.colour: unknown key of file; ignored
x.conf: can be used: 0 errors, 1 warning
";
    assert_eq!((code, out.as_str()), (0, expected));
    let (code, out) = report(&format!("{FLOW}{lines}"), &["--strict"]);
    assert_eq!(code, 2);
    assert!(
        out.ends_with("x.conf: cannot be used: 1 error, 0 warnings\n"),
        "{out}"
    );
}

#[test]
fn check_prints_json_for_scripts() {
    let (code, out) = report(&format!("{HDFS}{PATH}"), &["--json"]);
    assert_eq!(code, 2);
    let value: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(value["usable"], false);
    assert_eq!(value["errors"], 1);
    let agent = &value["agents"][0];
    assert_eq!(agent["findings"][0]["line"], 10);
    assert_eq!(agent["findings"][0]["key"], "a1.sinks.k1.hdfs.fileType");
    assert_eq!(agent["components"][2]["keys"][2]["value"], "/logs");
    assert_eq!(
        agent["components"][2]["differing_defaults"][0]["flume"],
        "30"
    );
}

#[test]
fn a_file_that_cannot_be_read_or_holds_no_agent_is_an_error() {
    let (code, out) = report("", &[]);
    assert_eq!(code, 2);
    assert!(out.contains("there is no agent in this file"), "{out}");
    let args = CheckArgs {
        file: "no/such/file".into(),
        name: None,
        conf: None,
        strict: false,
        json: false,
        define: Vec::new(),
    };
    let mut out = Vec::new();
    assert_eq!(check::run(&args, &mut out), 2);
    let out = String::from_utf8(out).unwrap();
    assert!(
        out.starts_with("error: no/such/file: cannot be read: "),
        "{out}"
    );
}

#[test]
fn the_binary_answers_with_the_documented_exit_codes() {
    let run = |args: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_forebay"))
            .args(args)
            .output();
        let output = output.unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.conf");
    std::fs::write(&file, FLOW).unwrap();
    let path = file.to_str().unwrap();
    assert_eq!(run(&["check", path]).0, Some(0));
    assert_eq!(run(&["check", path, "-n", "b"]).0, Some(2));
    assert_eq!(run(&["check"]), (Some(2), String::new()));
    assert_eq!(
        run(&["version"]).1,
        format!("forebay {}\n", env!("CARGO_PKG_VERSION"))
    );
}

/// One row of docs/FROM-FLUME.md.
fn row(key: &Key) -> String {
    let code = |text: &str| format!("`{}`", text.replace('|', "\\|"));
    let unit = if key.unit.is_empty() {
        String::new()
    } else {
        format!(" {}", key.unit)
    };
    let default = match key.default {
        Some(default) => format!("{}{unit}", code(default)),
        None if key.required => "required".to_owned(),
        None => "none".to_owned(),
    };
    let flume = match key.flume_default {
        _ if key.ours => "not in Flume".to_owned(),
        Some(flume) => flume.to_owned(),
        None => "the same".to_owned(),
    };
    let status = match key.status {
        Status::Honoured => "honoured".to_owned(),
        Status::NoEffect(why) => format!("no effect: {why}"),
        Status::Refused(why) => format!("refused: {why}"),
    };
    format!(
        "| {} | {default} | {flume} | {status} | {} |",
        code(key.name),
        key.help
    )
}

fn table(table: &Table, keys: &[Key]) -> String {
    let rows: Vec<String> = keys.iter().map(row).collect();
    format!(
        "### `{}` {} (`{}`)\n\n| key | default | Flume's default | here | what it is for |\n\
         |---|---|---|---|---|\n{}\n",
        table.alias,
        table.section.singular(),
        table.class,
        rows.join("\n")
    )
}

#[test]
fn every_key_stands_in_from_flume_with_its_default_and_status() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/FROM-FLUME.md");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut expected: Vec<String> = TABLES.iter().map(|one| table(one, one.keys)).collect();
    for section in SECTIONS {
        let one = TABLES
            .iter()
            .find(|table| table.section == section)
            .unwrap();
        let rows: Vec<String> = one.common.iter().map(row).collect();
        expected.push(rows.join("\n"));
    }
    let missing: Vec<&String> = expected
        .iter()
        .filter(|part| !text.contains(*part))
        .collect();
    let all = missing
        .iter()
        .map(|part| part.as_str())
        .collect::<Vec<_>>()
        .join("\n");
    assert!(
        missing.is_empty(),
        "docs/FROM-FLUME.md must hold, word for word:\n{all}"
    );
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        parse(&bytes, &Arc::from("f"), "a1", &Lookups::default());
    }

    #[test]
    fn no_text_of_flumes_words_makes_the_reader_panic(
        lines in proptest::collection::vec(line(), 0..60),
    ) {
        let text = lines.concat();
        let loaded = load(&text);
        prop_assert_eq!(loaded.config.is_none(), loaded.found.has_errors());
        for found in loaded.found.sorted() {
            prop_assert!(found.at.line as usize <= lines.len() * 4);
        }
    }

    #[test]
    fn any_value_of_any_key_is_taken_or_refused_in_words(
        table in 0..TABLES.len(),
        index in any::<proptest::sample::Index>(),
        value in value(),
    ) {
        let table = TABLES[table];
        let keys: Vec<&Key> = table.all().collect();
        let key = index.get(&keys).name.replace('*', "x");
        let section = table.section.word();
        load(&format!("a1.{section} = z\na1.{section}.z.type = {}\n\
                       a1.{section}.z.{key} = {value}\n", table.alias));
    }
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        "[-+]?[0-9]{1,20}",
        "(true|false|r1|c1|k1|x y|a,b| )",
        "(hdfs|file|GMT)?[:+/%{}a-zA-Z0-9.*()\\[\\]\\\\-]{0,30}",
        "\\PC{0,20}",
        "\\$\\{(env|sys|x)?:?[A-Z]{0,4}(:-)?[a-z${}]{0,4}\\}",
    ]
}

#[test]
fn the_quickstart_configuration_can_be_used() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/quickstart.properties");
    let text = std::fs::read_to_string(path).unwrap();
    let loaded = load(&text);
    assert!(loaded.config.is_some(), "{:?}", loaded.found);
}

fn line() -> impl Strategy<Value = String> {
    let section = "(sources|channels|sinks|sinkgroups|configfilters)";
    let kinds = "(taildir|netcat|file|memory|hdfs|file_roll|logger|null|avro)";
    prop_oneof![
        regex(&format!("a1\\.{section} = (r1|c1|k1)( (r1|c1|k1|k2))?\n")).unwrap(),
        regex(&format!("a1\\.{section}\\.(r1|c1|k1)\\.type = {kinds}\n")).unwrap(),
        (
            "a1\\.(sources|channels|sinks)\\.(r1|c1|k1)\\.[a-zA-Z.]{1,20}[ =:]",
            value()
        )
            .prop_map(|(key, value)| format!("{key}{value}\n")),
        "[ \\PC\\\\\t]{0,40}(\n|\r|\r\n|\\\\\n)",
    ]
}
