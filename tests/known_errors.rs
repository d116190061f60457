//! Every defect that fuzzing or the model has found, by name and with the smallest input. Each test
//! failed before its defect was mended; most run the oracle that found it.

#![allow(
    dead_code,
    clippy::duplicate_mod,
    clippy::print_stderr,
    reason = "two oracles share files, each test uses a part, and findings are explained"
)]

#[path = "../fuzz/oracles/audit_names.rs"]
mod audit_names;
#[path = "../fuzz/oracles/config_text.rs"]
mod config_text;

#[path = "../fuzz/oracles/damaged_channel.rs"]
mod damaged_channel;
#[path = "../fuzz/oracles/snapshot.rs"]
mod snapshot;

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

/// `damaged_channel`: one bit in the Incarnation record of a channel's first segment, and the
/// channel began anew: everything acknowledged was gone, and the segment deleted.
#[test]
fn rot_in_the_first_incarnation_record_does_not_begin_the_channel_anew() {
    damaged_channel::check(&[0x16, 0, 0, 1, 0x46, 0, 1]);
}

/// `damaged_channel`: a page that cannot be read in the only segment of a channel.
#[test]
fn a_log_that_cannot_be_read_is_refused_and_not_begun_anew() {
    damaged_channel::check(&[0x16, 10, 2, 0x16, 0xfb, 0xe4, 0xcf]);
}

/// `damaged_channel`: reads that met a bad page filled up to 4095 good bytes beside it with
/// nonsense too.
#[test]
fn a_bad_page_costs_no_event_beside_it() {
    damaged_channel::check(include_bytes!(
        "../fuzz/corpus/damaged_channel/bad_sectors_1"
    ));
}

/// `damaged_channel`: verify took the last 4096 bytes of a cut file for its second header, and
/// called it sound.
#[test]
fn verify_reads_a_cut_segment_up_to_its_end() {
    damaged_channel::check(include_bytes!(
        "../fuzz/corpus/damaged_channel/a_copy_over_a_frame_1"
    ));
}

/// `damaged_channel`: where the oldest segments cannot be read, verify named no lost event.
#[test]
fn verify_names_the_events_before_everything_it_can_read() {
    damaged_channel::check(include_bytes!(
        "../fuzz/corpus/damaged_channel/exchanged_oldest_segments"
    ));
}

/// `snapshot`: the only snapshot of a log has right sums and does not decode, as one of a newer
/// version may: the channel began anew.
#[test]
fn a_snapshot_of_another_version_does_not_begin_the_channel_anew() {
    snapshot::check(&[0x16, 0, 0]);
}

/// `snapshot`, seen while its oracle was written: numbers near the last one overflowed, and an
/// acknowledgement beyond the last event made the channel skip those that came.
#[test]
fn a_snapshot_that_contradicts_its_own_frame_is_not_believed() {
    snapshot::check(&[0x16, 0, 1, 3, 0, 0, 0x3f]);
}

/// `damaged_channel`: a snapshot with a control number that is never given was passed over, but its
/// number was believed and written down, and the next open refused that.
#[test]
fn what_an_open_has_accepted_the_next_one_accepts() {
    damaged_channel::check(&[0x2f, 0x0c, 0, 0, 0, 0x7f, 0x37]);
}

/// `snapshot`: a list of segments whose first events do not rise. Events are found in it by
/// halving, so that eight of them were lost or not by the number of segments behind, at each open
/// anew.
#[test]
fn a_snapshot_whose_segments_are_not_in_order_is_not_believed() {
    snapshot::check(&[0x2c, 0x0e, 0x3f, 0x03, 0, 9, 0, 0, 0]);
}

/// `damaged_channel`: a put frame in a segment that no open scans, with right sums and the last
/// number of all: the sum of its number and its count overflowed when it was read.
#[test]
fn a_number_near_the_last_one_in_an_old_segment_is_read_over() {
    damaged_channel::check(include_bytes!(
        "../fuzz/corpus/damaged_channel/last_number_of_all_in_an_old_segment"
    ));
}

/// `damaged_channel`: a frame whose body cannot be decoded, though its sums are right, and of which
/// only events behind the bad one were wanted: the take looked at it for ever.
#[test]
fn a_take_that_wants_what_stands_behind_an_undecodable_event_ends() {
    damaged_channel::check(&[
        0x09, 0x05, 0x03, 0x00, 0x06, 0x6d, 0x7d, 0x08, 0x2e, 0x10, 0xa7, 0x6f, 0xfd, 0xfd, 0xfe,
        0xdd, 0xf1, 0x4c, 0x9d,
    ]);
}

/// `damaged_channel`: a segment that was cut to its header and had held nothing but a snapshot left
/// no gap in any numbers, and verify called the log sound there.
#[test]
fn a_segment_cut_between_two_frames_is_reported_by_verify() {
    damaged_channel::check(&[0x4c, 5, 2, 0x0a, 0, 0, 0, 0x34, 0, 0x24, 0xe0, 0xe0, 0x24]);
}

/// `config_text`: `a.sinks.` was taken for `a.sinks`.
#[test]
fn a_list_with_a_dot_behind_it_is_no_list_and_is_named() {
    let text = b"a.sources=s\n@type=netcat\na.sinks.= k\n&type=null\n";
    config_text::check(text);
}

/// `config_text`: at the beginning of a line that goes on, a character that is white to Unicode and
/// no blank to Java (a vertical tab, a no-break space) was lost.
#[test]
fn a_line_that_goes_on_begins_behind_the_blanks_of_java() {
    let white = [
        "\u{b}",
        "\u{85}",
        "\u{a0}",
        "\u{3000}",
        "\u{a0}\u{a0}",
        "\t\u{b} ",
    ];
    for white in white {
        for end in ["\n", "\r", "\r\n"] {
            let text =
                format!("a.sources=s\n@type=net\\{end}{white}cat\\{end}{white}\n@port={white}1");
            config_text::check(text.as_bytes());
        }
    }
}

/// `damaged_channel`: bytes left over in the last frame, with right sums, were an error only to
/// takes that wanted events behind it: all was delivered, and takes failed from the next put on.
#[test]
fn a_frame_with_bytes_left_over_is_bad_for_every_take() {
    damaged_channel::check(&[
        0x07, 0x01, 0xfc, 0xfd, 0xfd, 0xfd, 0xfd, 0xfd, 0x7e, 0xfd, 0xfd, 0xfd, 0xfd, 0xfd, 0xfd,
        0x02, 0x19, 0x63, 0x19, 0xfa,
    ]);
}

/// `damaged_channel`: a frame of an old segment, with right sums, claimed numbers that came later:
/// a take of the events that really got them looked there first, and failed.
#[test]
fn a_frame_that_claims_numbers_of_a_later_segment_is_passed_over() {
    damaged_channel::check(&[
        0x1c, 0xff, 0xff, 0xff, 0x05, 0x8e, 0x42, 0xfe, 0xff, 0x24, 0xfe, 0xe9, 0x72, 0x9c, 0x63,
        0x63, 0x63, 0x0b, 0xf1, 0x63, 0x63, 0x0b, 0xf1,
    ]);
}

/// `damaged_channel`: a segment was cut in front of its seal, and the record of the next segment
/// that names its end was damaged: verify told the second damage and was silent of the first.
#[test]
fn a_segment_without_its_seal_whose_end_nothing_tells_is_reported_by_verify() {
    damaged_channel::check(b"seg\0\0\0t-00000000.wa.wal\xc5");
}

/// `damaged_channel`: a snapshot with right sums claimed that 2^48 events had been put before it.
/// What is missing was found anew by every take, a hundred numbers at a time.
#[test]
fn a_hole_of_numbers_without_end_is_stepped_over_at_once() {
    damaged_channel::check(&[
        0xd5, 0xac, 0x06, 0x12, 0x27, 0xa4, 0x06, 0x02, 0x27, 0x1b, 0x75, 0x0a, 0x02, 0x19, 0xcf,
        0xcb, 0x41, 0x67,
    ]);
}

/// `damaged_channel`: of the newest segment nothing could be believed, but one of its frames was
/// whole and its watermark told how far the segments before it had been durable: damage there was
/// taken for a torn tail.
#[test]
fn a_watermark_behind_a_torn_frame_proves_what_lies_before_it() {
    damaged_channel::check(&[
        0xe8, 0xf1, 0xff, 0xe0, 0x20, 0x18, 0x66, 0xb2, 0xd6, 0xa6, 0x9d, 0x08, 0x02, 0x20, 0x18,
        0x66, 0xb2, 0x04, 0x01, 0x20, 0x82,
    ]);
}

/// `damaged_channel`: the record that told where the first segment ended was damaged, so its old
/// tail counted; the snapshot behind it was written before that tail was copied and names fewer
/// events. The segments seemed to go backwards, and the whole log was refused.
#[test]
fn an_old_tail_in_front_of_a_damaged_open_does_not_get_the_log_refused() {
    damaged_channel::check(&[
        0x09, 0x05, 0xfd, 0x6c, 0x2f, 0x0c, 0x00, 0x00, 0x00, 0x00, 0x6f, 0x63, 0x6b, 0xff, 0xf9,
        0x90, 0x02, 0xe3, 0x02, 0x01, 0x2a, 0xf1, 0x4c, 0x5b, 0xa3,
    ]);
}

/// `damaged_channel`: the only segment of a log was cut to its header, and the channel begun anew.
#[test]
fn a_log_that_was_cut_to_its_header_is_not_begun_anew() {
    damaged_channel::check(&[
        0x46, 0x65, 0x06, 0x00, 0x00, 0x00, 0x00, 0x41, 0x63, 0x02, 0x00, 0xc4, 0xfe, 0x00, 0xf7,
        0x00, 0xfa, 0x00, 0x00, 0xfa, 0xfa, 0xfa, 0x10, 0xfa, 0xfa, 0xfa, 0xfa, 0xfa, 0xfa, 0xfa,
        0xfa,
    ]);
}

/// `damaged_channel`: a snapshot with right sums claimed one event less than there were: the number
/// of the last one was given again, and a take delivered the old event for the new one.
#[test]
fn the_last_numbers_of_a_frame_may_be_those_of_a_later_segment() {
    damaged_channel::check(&[
        0xb9, 0xb9, 0xb9, 0xb9, 0xb9, 0x49, 0x6e, 0x63, 0x61, 0xb9, 0xb9, 0xb9, 0xb9, 0xb9, 0xb9,
        0xb9, 0xb9, 0xec, 0xec, 0xec, 0xee, 0xf7, 0xec, 0x8d, 0x00, 0x2d, 0x89, 0x87, 0x7b,
    ]);
}

/// `damaged_channel`: the oldest segment of a log was missing, and every take ended with an error,
/// for ever, also of what was whole. (The oracle had let that pass, and found it by an event that
/// no take came to and verify did not call lost.)
#[test]
fn a_log_whose_oldest_segment_is_missing_delivers_what_is_there() {
    damaged_channel::check(&[
        0x0f, 0x09, 0x00, 0x16, 0xa3, 0xef, 0xe9, 0x76, 0x72, 0x46, 0x2f, 0x62, 0x72, 0x14, 0x16,
        0x14, 0x14, 0x76, 0x14,
    ]);
}

/// `damaged_channel`: an unproven put with right sums could not be decoded. The log was refused, as
/// it must be, but only when the put was to be copied: prepared segments and dead ones were gone.
#[test]
fn a_tail_that_cannot_be_copied_is_refused_before_anything_is_changed() {
    damaged_channel::check(&[
        0x0c, 0x4c, 0x05, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0xff, 0x05, 0x2c, 0x00,
        0x4c, 0x05, 0xff, 0xff, 0xff, 0xff,
    ]);
}

/// `damaged_channel`: no defect of the channel. The oracle repaired the sum of a frame without a
/// body, which another damage had changed, and took it for a frame that nobody forged.
#[test]
fn a_frame_without_a_body_is_not_forged_by_accident() {
    damaged_channel::check(&[
        0x00, 0x72, 0x75, 0x73, 0x65, 0x66, 0x65, 0x5d, 0x11, 0x3b, 0x03, 0x00, 0x3b,
    ]);
}

/// `damaged_channel`: no defect of the channel. A forged frame claimed the number of an event in a
/// later segment whose snapshot was gone: of two frames with right sums either may be the one.
#[test]
fn a_number_that_two_frames_claim_is_one_of_them() {
    damaged_channel::check(&[
        0x2f, 0x0c, 0xbe, 0xb8, 0x75, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x8f, 0xfc, 0xfb,
        0xfe, 0x0f, 0x7f, 0x37, 0x25,
    ]);
}

/// `damaged_channel`: the beginning of an unproven tail was gone, and so was the record that would
/// have told that the open behind it was complete. What was missing in front of the rest of the
/// tail was called lost, although whole copies of it stood in the next segment.
#[test]
fn copies_count_where_the_beginning_of_their_originals_is_gone() {
    damaged_channel::check(&[
        0x2c, 0x0a, 0x01, 0x1e, 0xf7, 0x21, 0x00, 0x72, 0x0a, 0x2f, 0x0d, 0x1e, 0xb0, 0xa0, 0x33,
        0x07, 0xee, 0xc6, 0xc9,
    ]);
}

/// `damaged_channel`: a file was cut in a frame of which only zeros were left, fewer than a header.
/// Verify named the end of the file, not where the frame had begun.
#[test]
fn a_file_that_was_cut_in_a_blank_header_is_damaged_from_that_frame_on() {
    damaged_channel::check(&[
        0x73, 0x65, 0x67, 0x6d, 0x11, 0x5a, 0xee, 0x11, 0xca, 0xcb, 0x7d, 0xdd, 0xfd, 0x00, 0x00,
        0x00, 0x04, 0x11,
    ]);
}

/// `damaged_channel`: both copies of a segment's header were bad and so was the snapshot behind it,
/// but an Incarnation record named the segment. Verify read it with what that record tells, and
/// called nothing lost; an open lost all of it.
#[test]
fn a_segment_without_a_header_is_read_with_what_a_later_record_tells() {
    damaged_channel::check(&[
        0xff, 0x01, 0x00, 0x00, 0x02, 0x30, 0x08, 0x24, 0x7e, 0x22, 0x03, 0x00, 0x04, 0xa3, 0xa3,
        0x66, 0x01, 0x00,
    ]);
}

/// `damaged_channel`: a segment was cut below what was durable. The one whole frame behind it stood
/// behind a bad one, so its watermark counted and its number did not: numbers were given again.
#[test]
fn a_frame_behind_a_torn_one_tells_which_numbers_were_given() {
    damaged_channel::check(&[
        0x6f, 0x10, 0x09, 0x44, 0x6e, 0x65, 0x10, 0x00, 0x00, 0x00, 0x21, 0x44, 0x6f, 0x02, 0xb4,
        0xed, 0xe9, 0x84, 0xb4, 0x25, 0x24, 0x0c, 0x02, 0xb4, 0xed,
    ]);
}

/// `damaged_channel`: the oldest segment had lost both copies of its header and stood under a high
/// number. Its frames were read with a salt that made up for the number, and the log began anew
/// with its snapshot. (Found the hour after newest segments without a header were read at all.)
#[test]
fn a_segment_without_a_header_under_a_wrong_number_is_not_the_newest() {
    damaged_channel::check(&[
        0x40, 0x14, 0x07, 0x19, 0x02, 0x0c, 0x00, 0x00, 0x00, 0x00, 0x00, 0x14, 0x14, 0x07, 0x19,
        0x14, 0xe2, 0x51, 0xe2, 0x51,
    ]);
}

/// `damaged_channel`: the oldest segment was missing, and of the only other one no more than the
/// snapshot was whole. It was taken for a first open that was cut short: the channel began anew.
#[test]
fn a_log_of_which_one_snapshot_is_left_is_not_begun_anew() {
    damaged_channel::check(&[
        0x23, 0x22, 0xca, 0xc7, 0xc8, 0x58, 0x26, 0x06, 0x01, 0xff, 0x00, 0xff, 0xdf, 0x23, 0xca,
        0xff, 0x3a, 0xff, 0x6c, 0x6f, 0x63, 0x6b,
    ]);
}

/// `damaged_channel`: all records of an open could not be read, nor the end of a transaction in
/// front of it. That open may have left this half behind for ever, so nobody can know more than
/// that its numbers are lost; the oracle had called what is left of it whole and durable.
#[test]
fn half_a_transaction_in_front_of_an_unreadable_open_is_lost_by_name() {
    damaged_channel::check(&[
        0x83, 0x0a, 0x30, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x55, 0xfd, 0xfa, 0x03,
        0x0a, 0x00, 0xa3, 0xac,
    ]);
}

/// `damaged_channel`: a segment was cut between two frames, before the Incarnation record of an
/// open and below a watermark that only a frame behind a torn one had: nobody reported it.
#[test]
fn a_segment_cut_below_a_watermark_that_nobody_believes_is_reported() {
    damaged_channel::check(&[
        0x58, 0x25, 0x07, 0x2e, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x3e, 0x65, 0x21,
        0x08, 0xf7, 0x00, 0x40, 0x00, 0x36, 0xe6, 0xf7, 0x02, 0xbf,
    ]);
}

/// `damaged_channel`: the newest segment was lost, and a file that holds another one stood under
/// its name; it counted as a torn tail, and what the newest had decided as never decided.
#[test]
fn a_segment_under_the_name_of_the_newest_is_not_its_torn_tail() {
    damaged_channel::check(&[
        0x1e, 0x09, 0x02, 0x4c, 0x2a, 0x0b, 0x00, 0x1b, 0x06, 0x5b, 0x1b, 0x06, 0x5b, 0xa4, 0xa4,
        0x02, 0x1e, 0x24, 0x0c, 0x56, 0xf7, 0xfe, 0xfa, 0x00, 0x00, 0x3b, 0xa2, 0xff, 0x00, 0xff,
        0x00,
    ]);
}

/// `damaged_channel`: every segment was damaged, and of one open only the snapshot and a copied
/// Incarnation record were left: refused, and rightly so. The oracle had taken any such record for
/// that open's own.
#[test]
fn a_copied_incarnation_does_not_make_an_open_complete() {
    damaged_channel::check(&[
        0x58, 0x25, 0x07, 0xfe, 0x2a, 0xee, 0x0a, 0x01, 0x00, 0x00, 0x01, 0x08, 0x1c, 0x04, 0xc0,
        0x02, 0x08, 0x02, 0x21, 0x21, 0x08, 0x00, 0x3a, 0x00, 0xf7, 0x29, 0x00, 0xc9,
    ]);
}

/// `damaged_channel`: the end of a transaction was bad, and all records of what came behind its
/// segment were gone. Verify called the whole of it lost, though a watermark proved its beginning.
#[test]
fn a_proven_half_of_a_transaction_is_not_called_lost_by_verify() {
    damaged_channel::check(&[
        0x0a, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x0c, 0x01, 0xe0, 0xdc, 0x7b, 0xc4, 0xf9, 0xf6, 0x97, 0x02, 0x94, 0xaa,
        0xea, 0x00, 0x16, 0x94, 0x94, 0xaa, 0xea,
    ]);
}

/// `damaged_channel`: a segment had lost both copies of its header, and only its snapshot told
/// where an older one ends. Verify read that one on, into what an open had left behind.
#[test]
fn a_segment_without_a_header_tells_of_older_ones() {
    damaged_channel::check(&[
        0xff, 0xd4, 0xd4, 0xd4, 0x30, 0x30, 0x30, 0x30, 0x30, 0x30, 0x31, 0x33, 0x2e, 0x77, 0x61,
        0x6c, 0xd4, 0xd4, 0xd4, 0xd4, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x2c, 0xb5,
        0x81, 0xdf, 0x02, 0x24, 0x24, 0x24, 0x0c, 0x0f, 0x0f,
    ]);
}

/// `damaged_channel`: the newest segment could not be read, and the Incarnation record of the only
/// other one was bad: named, and the numbers of incarnations go on behind it. The oracle had taken
/// that for a log begun anew.
#[test]
fn a_log_whose_first_incarnation_is_bad_is_not_begun_anew() {
    damaged_channel::check(&[
        0x40, 0x23, 0x05, 0x01, 0x09, 0xe0, 0xb6, 0x1a, 0x02, 0x00, 0x1a, 0x00, 0x00, 0x0a, 0x00,
        0xff, 0xff, 0xff, 0xff, 0xff, 0x06, 0x00,
    ]);
}
