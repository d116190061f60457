//! The corpora of the fuzz targets that need more than `wal-format`, on stable: every committed
//! input, and some hundred changed ones, keep to the oracle that the target runs. Those of
//! `scan_segment` and `damaged_log` are run by `wal-format/tests/fuzz_seeds.rs`.

#![allow(
    dead_code,
    clippy::duplicate_mod,
    clippy::print_stderr,
    reason = "two oracles share files, each test uses a part, and findings are explained"
)]

#[path = "support/corpus.rs"]
mod corpus;

#[path = "../fuzz/oracles/audit_names.rs"]
mod audit_names;
#[path = "../fuzz/oracles/config_text.rs"]
mod config_text;
#[path = "../fuzz/oracles/damaged_channel.rs"]
mod damaged_channel;
#[path = "../fuzz/oracles/netcat_input.rs"]
mod netcat_input;
#[path = "../fuzz/oracles/snapshot.rs"]
mod snapshot;

#[test]
fn any_file_names_are_read_and_audited_by_the_rule() {
    let mut names = 0;
    corpus::run("audit_names", 1000, |input| {
        names += audit_names::check(input)
    });
    assert!(names > 3000, "{names} names were read");
}

#[test]
fn any_text_is_read_as_java_reads_it_and_nothing_in_it_is_ignored_in_silence() {
    let (mut usable, mut findings) = (0, 0);
    corpus::run("config_text", 120, |input| {
        let seen = config_text::check(input);
        usable += seen.usable;
        findings += seen.findings;
    });
    assert!(usable > 10, "{usable} usable agents");
    assert!(findings > 500, "{findings} findings");
}

#[test]
fn any_bytes_in_any_pieces_are_lines_to_netcat_and_each_is_answered() {
    corpus::run("netcat_input", 500, netcat_input::check);
}

#[test]
fn no_damage_to_a_whole_log_loses_an_event_unnamed_or_makes_one_up() {
    let mut all = damaged_channel::Seen::default();
    corpus::run("damaged_channel", 60, |input| {
        let seen = damaged_channel::check(input);
        all.opened += seen.opened;
        all.refused += seen.refused;
        all.lost += seen.lost;
        all.torn += seen.torn;
    });
    assert!(all.opened > 100 && all.refused > 10, "{all:?}");
    assert!(all.lost > 10 && all.torn > 10, "{all:?}");
}

#[test]
fn any_bytes_as_a_snapshot_are_refused_or_leave_a_log_that_adds_up() {
    let mut all = snapshot::Seen::default();
    corpus::run("snapshot", 40, |input| {
        let seen = snapshot::check(input);
        all.decoded += seen.decoded;
        all.opened += seen.opened;
        all.refused += seen.refused;
    });
    assert!(all.opened > 100 && all.refused > 10, "{all:?}");
    assert!(all.decoded > 50, "{all:?}");
}
