//! Every defect that fuzzing or the model has found, by name and with the smallest input. Each test
//! failed before its defect was mended; most run the oracle that found it.

#[path = "../fuzz/oracles/audit_names.rs"]
mod audit_names;
#[path = "../fuzz/oracles/config_text.rs"]
mod config_text;

use forebay::config::diagnostic::Diagnostics;

/// `audit_names`: the sum of the counts went beyond 64 bits.
#[test]
fn counts_in_names_that_add_up_beyond_64_bits_are_a_wrong_count() {
    audit_names::check(
        b"a@1-p1of2-#0001-#0001-18446744073709551615\n\
          a@1-p2of2-#0001-#0001-18446744073709551615",
    );
}

/// `audit_names`: a range up to the last number of all had 2^64 events, which is 0.
#[test]
fn a_name_with_the_number_that_is_never_given_is_not_ours() {
    audit_names::check(b"a@1-p1of1-00000000000000000000-18446744073709551615-0");
}

/// `audit_names`: the part behind the last one that 32 bits can number.
#[test]
fn the_last_part_that_can_be_numbered_is_a_part() {
    audit_names::check(b"a@1-p4294967295of4294967295-#0001-#0001-1");
}

/// `audit_names`: no epoch of ours has number 0, but an auditor has to say what is there.
#[test]
fn an_overlap_with_an_epoch_0_is_an_overlap() {
    audit_names::check(b"a@0-p1of1-#0001-#0002-2\na@1-p1of1-#0002-#0003-2");
}

/// `config_text`: Java writes characters beyond `\uffff` as two escapes.
#[test]
fn two_escapes_of_a_surrogate_pair_are_one_character() {
    config_text::check(b"a=\\uD83D\\uDE00\nb=\\\\uD83D\\uDE00");
}

/// Found with `config_text` and a time limit: each finding was compared with all before it, so that
/// a file that is no configuration, of half the size that is read, took an hour.
#[test]
fn a_file_with_a_hundred_thousand_findings_is_checked_in_seconds() {
    let text: String = (0..100_000).map(|n| format!("k{n}\n")).collect();
    let mut found = Diagnostics::default();
    let begin = std::time::Instant::now();
    let read = forebay::config::parse(text.as_bytes(), &"f".into(), "a", &Default::default());
    found.append(read.found);
    let count = found.count(forebay::config::diagnostic::Severity::Warning);
    assert_eq!(count, 100_000);
    // The comparison of all with all took five minutes here, and this takes a second.
    assert!(begin.elapsed().as_secs() < 60, "{:?}", begin.elapsed());
}
