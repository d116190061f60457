//! Bugs of the file channel on purpose: what its tests have to catch. See [`wal_format::planted`]
//! for how one is chosen, and docs/TESTING.md for who has caught which.
//!
//! *Invariant*: no build without the feature `planted` holds any of them, and the binary refuses
//! to run with it.

use wal_format::Snapshot;

wal_format::planted_bugs! {
    // What is durable when.
    AnswerBeforeSync "answer-before-sync"
        "INV-1: a put is answered before the sync that covers it.",
    NoSync "no-sync" "INV-1: nothing is ever synced.",
    SyncBeforeStore "sync-before-store"
        "INV-1: the sync comes before the copy into the segment is complete.",
    RecordsUnwaited "records-unwaited"
        "INV-1: SEAL, CLAIMED, DONE and acknowledgements are answered before they are durable.",
    ControlUnsynced "control-unsynced" "INV-1: control records are not synced in the lazy modes.",
    AckUnwritten "ack-unwritten" "An acknowledgement is answered and never written.",
    WritesBehindSeal "writes-behind-seal"
        "INV-1: a late put is stored behind the seal of a closed log.",
    PublishBeforeSync "publish-before-sync"
        "The durable end moves, and sinks read, before the sync.",
    SwallowSyncError "sync-error-swallowed"
        "INV-4: a sync that failed counts as done: the page cache is believed after EIO.",
    RetrySync "sync-retried" "INV-4: a failed sync is repeated.",
    GoOnAfterError "go-on-after-error"
        "INV-4: whoever holds the writer next stores and syncs again.",
    NoSyncSpare "spare-unsynced" "A prepared segment gets its name before its bytes are synced.",
    NoDirSyncSpare "no-dir-sync-spare"
        "No sync of the directory behind the name of a prepared segment.",
    NoDirSyncSegment "no-dir-sync-segment"
        "INV-3: no sync of the directory when a prepared segment becomes a segment.",
    NoDirSyncRemoval "no-dir-sync-removal"
        "No sync of the directory behind the removal of segments.",
    NoDirSyncMarker "no-dir-sync-marker"
        "No sync of the directory behind a small file (channel, refused).",
    NoSyncMarker "marker-unsynced" "A small file gets its name before its bytes are synced.",
    NoDirSyncOwned "no-dir-sync-owned" "No sync of the directory behind the removal of a refusal.",
    NoDirSyncMoved "no-dir-sync-moved"
        "INV-12: an adoption does not sync the directories it moves files between.",
    NoDirSyncPhase "no-dir-sync-phase"
        "INV-12: an adoption does not sync the name of its next step.",
    // The writer.
    WatermarkStuck "watermark-stuck" "INV-2: the watermark never moves.",
    WatermarkTooFar "watermark-too-far"
        "INV-2: the watermark is the end of what is written, not of what is synced.",
    NoQuietWatermark "no-quiet-watermark" "No watermark after a second of quiet.",
    GroupSpansSegment "group-spans-segment" "INV-3: a group may leave its segment.",
    NoSealRoom "no-seal-room" "Puts fill the room that is kept for the seal.",
    RollWithoutSync "roll-without-sync"
        "INV-3: the next segment begins, with a snapshot of what is not durable, before the old \
         one is synced.",
    UnboundedUnsynced "unbounded-unsynced"
        "A lazy mode writes on without bound: the tail does not fit a segment at the next open.",
    SequenceAgain "sequence-again"
        "INV-5: an empty log gives its numbers from the beginning again.",
    PositionAhead "position-ahead" "A position is in the state before its events are in the log.",
    // Waiters and wake-ups.
    LoseWaiter "lose-waiter" "INV-6: the last waiter of a group of several is never answered.",
    LoseWaiterAtPoison "lose-waiter-at-poison" "INV-6: a failed log forgets a waiter.",
    WakeBeforeSync "wake-before-sync" "Sinks are woken before the sync and not behind it.",
    // Room.
    LeakAtRefusal "leak-at-refusal" "A refused put keeps its share of the capacity.",
    ReleaseForgets "release-forgets" "A take that is rolled back returns nothing.",
    SameRoomTwice "same-room-twice" "Two puts are promised the same room.",
    PutsTakeReserve "puts-take-reserve" "Puts take the prepared segments of the reserve.",
    PutsFillReserve "puts-fill-reserve" "Puts fill a segment that was taken from the reserve.",
    NoPositionBound "no-position-bound" "INV-10: positions outgrow the snapshot.",
    // Epochs.
    TurnEndsEarly "turn-ends-early"
        "INV-8: the journal's turn ends before its record is applied: an epoch number is given \
         twice.",
    AbandonDeleted "abandon-deleted"
        "An epoch is given up although one of its segments is deleted.",
    DoneForgets "done-forgets" "DONE ends the epoch in the log and acknowledges nothing.",
    SealedComeBack "sealed-come-back"
        "The events of open epochs wait at the head again after a start.",
    // Snapshots and deletion.
    SnapshotForgetsEpochs "snapshot-forgets-epochs" "A snapshot leaves the open epochs out.",
    SnapshotForgetsNextEpoch "snapshot-forgets-next-epoch"
        "INV-8: a snapshot takes the next epoch number from the open epochs.",
    SnapshotForgetsAcked "snapshot-forgets-acked"
        "A snapshot leaves acknowledged ranges above the cursor out.",
    SnapshotForgetsCursor "snapshot-forgets-cursor" "A snapshot begins at the first event again.",
    SnapshotForgetsLost "snapshot-forgets-lost" "INV-9: a snapshot leaves out what was lost.",
    SnapshotForgetsControlLost "snapshot-forgets-control-lost"
        "INV-9: a snapshot forgets that a decision may be lost.",
    SnapshotForgetsPositions "snapshot-forgets-positions"
        "A snapshot leaves read positions out: the last one goes with its segment.",
    SnapshotForgetsFence "snapshot-forgets-fence"
        "A snapshot forgets which incarnations are fenced.",
    SnapshotForgetsIncarnations "snapshot-forgets-incarnations"
        "A snapshot forgets the nonces of earlier incarnations.",
    SnapshotForgetsSegments "snapshot-forgets-segments"
        "A snapshot names no older segment: the next open removes them.",
    OneSnapshotEnough "one-snapshot-enough"
        "INV-7: a segment goes when one later snapshot covers it.",
    NoSnapshotNeeded "no-snapshot-needed" "INV-7: a dead segment goes whatever snapshots say.",
    LiveCountsAsDead "live-counts-as-dead"
        "INV-7: a segment goes behind two snapshots although its events live.",
    // Recovery.
    CutAtFirstBad "cut-at-first-bad"
        "INV-9: the log ends at the first bad frame, whatever stands behind it.",
    BelieveSuspects "believe-suspects"
        "Frames that nothing proves are believed in place, without a copy.",
    NoSyncAtOpen "no-sync-at-open" "The copied tail is believed before it is synced.",
    TailNotCopied "tail-not-copied"
        "What nothing proves is dropped: acknowledged events go at a kill.",
    WriteIntoOld "write-into-old" "The end of the old tail is overwritten.",
    CutAtProof "cut-at-proof" "The old segment is cut where the proof ends.",
    HalfTransactions "half-transactions" "The front of a transaction that was cut short is copied.",
    NoSequenceCheck "no-sequence-check"
        "Unproven frames behind a gap of sequence numbers are copied.",
    NoControlCheck "no-control-check"
        "Unproven records behind a gap of control numbers are copied.",
    NoRepeatCheck "no-repeat-check" "What an earlier open has copied already ends the tail.",
    EmptyPutAgain "empty-put-again"
        "INV-15: the copy of a put without events counts again, behind a later one.",
    UnknownOpenUnseen "unknown-open-unseen"
        "INV-13: what an open has left behind as torn is believed when all its records rot.",
    TailNotSettled "tail-not-settled"
        "INV-13: before an open whose records rot, a half transaction counts, and copies twice.",
    LostEndSilent "lost-end-silent"
        "INV-5: numbers that only frames behind a lost end tell are given again.",
    NoHeaderNoFrames "no-header-no-frames"
        "INV-9: a newest segment without a readable header counts as empty.",
    AnyOpenIsTheFirst "any-open-is-the-first"
        "INV-5: the only segment that is left, with a torn open in it, begins the channel anew.",
    CopiesUnused "copies-unused"
        "INV-9: the copies of a recovery that was cut short fill no gap of the unproven tail.",
    MisplacedUnseen "misplaced-unseen"
        "INV-9: a segment under the name of another is opened, and counts as a torn tail.",
    CutEndSilent "cut-end-silent"
        "INV-9: a file that was cut between two frames, below what was durable, is not reported.",
    EndNotFixed "end-not-fixed"
        "INV-21: a look shows what a running agent stores while it reads.",
    FirstLookBelieved "first-look-believed"
        "INV-21: a look counts although a running agent has deleted segments during it.",
    HoleSilent "hole-silent" "INV-9: events in a hole are passed over and not recorded as lost.",
    ControlHoleSilent "control-hole-silent" "INV-9: a hole in the control numbers is passed over.",
    NoHoleBeforeTail "no-hole-before-tail"
        "INV-5: a hole in front of the unproven tail is not looked for.",
    RotAsTorn "rot-as-torn" "Proof in later segments does not count: rot reads as a torn tail.",
    WatermarkBehindTornUnseen "watermark-behind-torn-unseen"
        "INV-9: a watermark behind a torn frame of the last segment proves nothing.",
    NoKnownEnds "no-known-ends" "What an earlier open has left behind as torn is read again.",
    OpeningUnchecked "opening-unchecked" "A recovery that was cut short counts as complete.",
    EraseBeforeRename "erase-before-rename"
        "A dead segment that is used again loses its bytes before its name is gone for ever.",
    ProofOfOpeningUnseen "proof-of-opening-unseen"
        "A rotten Incarnation record counts as a recovery that was cut short, whatever proves it.",
    CopiedEndBelieved "copied-end-believed"
        "An Incarnation record that was copied with the tail says where the log ended.",
    IncarnationAgain "incarnation-again"
        "The number of an incarnation that only the unproven tail names is given again.",
    AnyIncarnation "any-incarnation" "A recovery is complete with a copied Incarnation record.",
    OneHeader "one-header" "The second copy of a segment's header is not looked at.",
    // Reading.
    NoSumsAtTake "no-sums-at-take" "INV-9: bodies are not checked again at take.",
    ReaderHoleSilent "reader-hole-silent"
        "INV-9: a take passes over a hole and reports nothing lost.",
    UnreadableAsZeros "unreadable-as-zeros" "INV-9: a sector that cannot be read counts as zeros.",
    // Verify.
    EndUnasked "end-unasked"
        "INV-9: verify does not ask where a segment without a seal ends.",
    // Ownership and adoption.
    CopyIsOwner "copy-is-owner"
        "INV-11: a copied directory counts as the log's own at its second start.",
    RefusalMovesUp "refusal-moves-up"
        "INV-11: a later refusal replaces an earlier one that began lower.",
    HalfAdoptedOpens "half-adopted-opens"
        "INV-12: an agent opens a log whose adoption was cut short.",
}

/// Leaves out of a snapshot what the planted bug says.
pub(crate) fn leave_out(snapshot: &mut Snapshot) {
    if planted(Bug::SnapshotForgetsNextEpoch) {
        snapshot.next_epoch = snapshot.epochs.last().map_or(1, |e| e.epoch + 1);
    }
    if planted(Bug::SnapshotForgetsEpochs) {
        snapshot.epochs.clear();
    }
    if planted(Bug::SnapshotForgetsAcked) {
        snapshot.acked.clear();
    }
    if planted(Bug::SnapshotForgetsCursor) {
        snapshot.acked_below = 1;
    }
    if planted(Bug::SnapshotForgetsLost) {
        snapshot.lost.clear();
    }
    if planted(Bug::SnapshotForgetsControlLost) {
        snapshot.control_lost = false;
    }
    if planted(Bug::SnapshotForgetsPositions) {
        snapshot.positions.clear();
    }
    if planted(Bug::SnapshotForgetsFence) {
        snapshot.fenced_through = 0;
    }
    if planted(Bug::SnapshotForgetsIncarnations) {
        snapshot.incarnations.truncate(1);
    }
    if planted(Bug::SnapshotForgetsSegments) {
        snapshot.segments.clear();
    }
}

#[cfg(all(test, feature = "planted"))]
mod tests {
    use std::collections::BTreeSet;

    /// `tests/long/planted-bugs.sh` reads the list from here, and so cannot ask for a bug that is
    /// not there.
    #[test]
    fn every_bug_has_a_name_of_its_own_and_says_what_it_breaks() {
        let format = wal_format::planted::Bug::ALL.iter();
        let format = format.map(|(_, name, what)| (*name, *what));
        let channel = super::Bug::ALL.iter().map(|(_, name, what)| (*name, *what));
        let mut names = BTreeSet::new();
        for (name, what) in channel.chain(format) {
            assert!(names.insert(name) && !name.contains(' '), "{name}");
            assert!(what.ends_with('.') && !what.contains('|'), "{what}");
            println!("bug {name} {what}");
        }
    }
}
