//! Another directory in the place of the one that was opened, as a late mount makes it.

use super::*;

fn names_and_bytes(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), std::fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

/// The log that has come to the place has segments of the same numbers, all of them live. The
/// channel that was there before has the same ones dead and would delete them by name.
#[test]
fn a_log_that_comes_to_the_place_of_an_open_one_is_not_touched() {
    let (early, late) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let eager = |dir: &Path| FileChannelOptions {
        keep_dead: Duration::ZERO,
        ..options(dir)
    };
    let other = open(&eager(late.path()));
    for round in 0..3 {
        put(&other, round * 10, 10);
        while !other.core.roll(&mut other.core.writer()).unwrap() {
            std::thread::yield_now();
        }
    }
    drop(other);

    let channel = open(&eager(early.path()));
    put(&channel, 0, 10);
    ack(&channel, 10);
    // So that a roll has something to take, and fails for the right reason.
    while channel.core.spares.available() == 0 {
        std::thread::yield_now();
    }
    let place = early.path().join("data");
    std::fs::rename(&place, early.path().join("hidden")).unwrap();
    std::fs::rename(late.path().join("data"), &place).unwrap();
    let before = names_and_bytes(&place);

    // As the segments that were prepared run out and dead ones are deleted.
    let mut failed = None;
    for _ in 0..8 {
        if failed.is_none() {
            failed = channel.core.roll(&mut channel.core.writer()).err();
        }
        channel.core.reclaim();
        channel.core.prepare_next();
    }
    let said = failed.expect("no roll beside another log").to_string();
    assert!(
        said.contains("no longer the directory that was opened"),
        "{said}"
    );
    assert!(
        names_and_bytes(&place) == before,
        "the other log was changed"
    );
    drop(channel);

    let other = open(&eager(early.path()));
    assert_eq!(take_all(&other), (all(0..30), Vec::new()));
}
