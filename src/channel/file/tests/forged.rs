//! Records with right sums that no channel writes: what an open believes of them. `recovery::rules`
//! says which they are; here they stand in a log.

use wal_format::{FRAME_HEADER_BYTES, FrameHeader, FrameKind, Range, Record};

use super::planted::{drive, put_stepped, roll, small, stepped};
use super::review::frames;
use super::*;
use crate::channel::file::salvage::{PossiblyDelivered, Request, salvage};
use crate::channel::file::simulation::SteppedChannel;
use crate::env::disk_sim::SimDisk;

/// Two segments: events 1 and 2 in the first, 3 to 6 and an acknowledgement of 1 in the second.
fn log() -> (SimDisk, [segment::Segment; 2]) {
    let disk = SimDisk::default();
    let channel = stepped(&disk);
    put_stepped(&channel, 0, 2);
    roll(&channel);
    put_stepped(&channel, 2, 2);
    let dynamic: Arc<dyn Channel> = Arc::clone(channel.channel()) as _;
    let mut take = TakeTransaction::begin(dynamic, TakeMode::Batch).unwrap();
    take.take(1, usize::MAX).unwrap();
    drive(&channel, take.commit()).unwrap();
    put_stepped(&channel, 4, 2);
    let core = &channel.channel().core;
    let mut table = core.table().segments.clone();
    let (mut second, first) = (table.pop().unwrap(), table.pop().unwrap());
    second.end = core.durable_end().offset();
    (disk.kill(), [first, second])
}

/// Changes the last frame of this kind in a segment; its sums are right again.
fn forge(
    disk: &SimDisk,
    segment: &segment::Segment,
    kind: FrameKind,
    change: impl Fn(&mut FrameHeader, &mut [u8], Option<&mut Record>),
) -> u32 {
    let mut found = frames(disk, segment).into_iter();
    let (lsn, mut header) = found.rfind(|(_, header)| header.kind == kind).unwrap();
    let file = disk
        .open(&segment.path, true, WriteBackend::Pwrite)
        .unwrap();
    let mut body = vec![0; header.body_len as usize];
    let behind = u64::from(lsn.offset()) + FRAME_HEADER_BYTES as u64;
    file.read_at(behind, &mut body).unwrap();
    let mut record = Record::decode(kind, &body).ok();
    change(&mut header, &mut body, record.as_mut());
    let forged = record.map_or_else(|| body.clone(), |record| record.encode());
    assert_eq!(forged.len(), body.len(), "it must fit its place");
    header.body_crc = crc32fast::hash(&forged);
    let mut bytes = [0; FRAME_HEADER_BYTES];
    header.encode(segment.salt, lsn, &mut bytes);
    file.store_at(u64::from(lsn.offset()), &[&bytes, &forged])
        .unwrap();
    lsn.offset()
}

/// Damage by segment and offset, and the events that are delivered.
type Seen = (Vec<(u32, u32)>, Vec<u64>);

/// What opening finds, or why it is refused.
fn opened(disk: &SimDisk) -> Result<Seen, String> {
    let (before, options) = (disk.operations(), small(&["/data"]));
    let (shared, clock) = (Arc::new(disk.clone()), clock::system());
    let channel = SteppedChannel::open("c1", options, shared, clock).map_err(|error| {
        assert_eq!(disk.operations(), before, "nothing is touched");
        error.to_string()
    })?;
    let damage = channel.found().damage.into_iter();
    let (taken, lost) = take_all(channel.channel());
    assert_eq!(lost, []);
    Ok((
        damage.map(|(segment, at, _)| (segment, at)).collect(),
        taken,
    ))
}

#[test]
fn a_log_that_nobody_forged_is_opened_without_a_word() {
    let (disk, _) = log();
    assert_eq!(opened(&disk), Ok((Vec::new(), all(1..6))));
}

#[test]
fn an_acknowledgement_of_what_was_never_put_refuses_the_log() {
    let (disk, [_, second]) = log();
    forge(&disk, &second, FrameKind::Ack, |_, _, record| {
        let all = Range {
            first: 1,
            last: 100,
        };
        *record.unwrap() = Record::Ack(vec![all]);
    });
    let why = opened(&disk).unwrap_err();
    assert!(why.contains("events that were never put"), "{why}");
}

/// The numbers of all headers are looked at before any frame is believed, by verify as well.
#[test]
fn a_number_beyond_all_numbers_refuses_the_log() {
    let (disk, [_, second]) = log();
    forge(&disk, &second, FrameKind::Put, |header, _, _| {
        header.sequence = u64::MAX;
    });
    disk.flip(&second.path, 4096 + 100, 3).unwrap();
    let why = opened(&disk).unwrap_err();
    assert!(why.contains("numbers are beyond"), "{why}");
    let report = examine(&disk, &small(&["/data"]).data_dirs, |_, _| {}).unwrap();
    assert!(!report.is_sound());
}

/// Nothing proves the last put, so it would have to be copied.
#[test]
fn a_tail_that_cannot_be_decoded_refuses_the_log_before_anything_is_changed() {
    for (count, fill) in [(0, None), (2, Some(0xff))] {
        let (disk, [_, second]) = log();
        forge(&disk, &second, FrameKind::Put, |header, body, _| {
            header.count = count;
            if let Some(byte) = fill {
                body.fill(byte);
            }
        });
        let why = opened(&disk).unwrap_err();
        assert!(why.contains("a put frame is not readable"), "{why}");
        assert!(why.contains("wal salvage"), "{why}");
        let request = Request {
            dirs: small(&["/data"]).data_dirs,
            to: "/new".into(),
            possibly_delivered: PossiblyDelivered::Keep,
        };
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let report = salvage(&shared, &clock::system(), &request, |_, _| {}).unwrap();
        assert_eq!(report.kept_events(), 3, "{report:?}");
    }
}

/// The base is the segment before, and the snapshot is met again on the way.
#[test]
fn a_snapshot_that_contradicts_itself_is_damage_and_costs_nothing() {
    let (disk, [_, second]) = log();
    let at = forge(&disk, &second, FrameKind::Snapshot, |_, _, record| {
        unlikely(record);
    });
    assert_eq!(opened(&disk), Ok((vec![(second.number, at)], all(1..6))));
}

/// One that counts events which no frame shows is not passed over: they may be lost.
#[test]
fn a_snapshot_that_contradicts_itself_and_the_frames_before_it_refuses_the_log() {
    let (disk, [_, second]) = log();
    forge(&disk, &second, FrameKind::Snapshot, |header, _, record| {
        header.sequence += 1;
        unlikely(record);
    });
    let why = opened(&disk).unwrap_err();
    assert!(why.contains("events that were never put"), "{why}");
}

/// Says that event 99 is the first that is not acknowledged.
fn unlikely(record: Option<&mut Record>) {
    if let Some(Record::Snapshot(snapshot)) = record {
        snapshot.acked_below = 99;
    }
}
