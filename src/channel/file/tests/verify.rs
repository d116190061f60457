//! What `forebay wal verify` says of a segment that ends without a seal.

use super::planted::{put_stepped, roll, segment_files, small, stepped};
use super::*;
use crate::env::disk_sim::SimDisk;

fn verified(disk: &SimDisk) -> Vec<(u32, u32)> {
    let report = examine(disk, &small(&["/data"]).data_dirs, |_, _| {}).unwrap();
    let damage = report.damage.iter();
    damage.map(|d| (d.segment, d.offset)).collect()
}

/// INV-9: the record of the next segment that names the end is damaged, and the seal is cut off: of
/// the first damage nothing but the missing end tells.
#[test]
fn a_segment_that_was_cut_in_front_of_its_seal_is_named_beside_a_rotten_snapshot() {
    let disk = SimDisk::default();
    let channel = stepped(&disk);
    put_stepped(&channel, 0, 2);
    roll(&channel);
    put_stepped(&channel, 2, 2);
    let sealed_at = channel.channel().core.durable_end().offset();
    roll(&channel);
    put_stepped(&channel, 4, 2);
    drop(channel);
    let disk = disk.kill();
    assert_eq!(verified(&disk), []);
    let files = segment_files(&disk);
    let cut = disk.open(&files[1], true, WriteBackend::Pwrite).unwrap();
    cut.truncate(u64::from(sealed_at)).unwrap();
    assert_eq!(verified(&disk), [(1, sealed_at)], "segment 2 tells the end");
    disk.flip(&files[2], 4096 + 70, 3).unwrap();
    assert_eq!(verified(&disk), [(1, sealed_at), (2, 4096)]);
}
