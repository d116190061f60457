//! The tailer on real files: rotation, truncation, restarts, refused puts.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::*;
use crate::source::testing::{Fake, context};
use crate::source::{Trigger, runner::Runner};

struct Rig {
    dir: tempfile::TempDir,
    channel: Arc<Fake>,
    options: TaildirOptions,
    tailer: Option<Tailer>,
    trigger: Option<Trigger>,
    counters: Arc<crate::agent::counters::SourceCounters>,
    now: Instant,
}

impl Rig {
    fn new(pattern: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let group = FileGroup {
            name: "g".to_owned(),
            directory: dir.path().to_owned(),
            pattern: pattern::whole_name(pattern).unwrap(),
            headers: Vec::new(),
        };
        let options = TaildirOptions {
            groups: vec![group],
            position_file: None,
            batch_size: 3,
            skip_to_end: false,
            idle_timeout: Duration::from_secs(120),
            byte_offset_header: false,
            file_header: None,
            max_batch_count: u64::MAX,
            backoff_sleep_increment: Duration::from_millis(20),
            max_backoff_sleep: Duration::from_millis(20),
            max_line_length: 100,
            files_max: 100,
            keep_vanished: Duration::from_secs(3600),
        };
        let (now, channel, counters) = (Instant::now(), Fake::new(), Arc::default());
        let (tailer, trigger) = (None, None);
        Self {
            dir,
            channel,
            options,
            tailer,
            trigger,
            counters,
            now,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn append(&self, name: &str, text: &str) -> File {
        let open = OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.path(name));
        let mut file = open.unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    /// Truncates and writes: the inode stays.
    fn rewrite(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// As after `kill -9`: only what the channel holds is left.
    fn crash(&mut self) {
        self.tailer = None;
    }

    fn try_poll(&mut self) -> Result<Polled, SourceError> {
        if self.tailer.is_none() {
            let (trigger, context) = context(&self.channel, "s");
            self.trigger = Some(trigger);
            self.counters = Arc::clone(&context.counters);
            let runner = Runner::new(context);
            self.tailer = Some(Tailer::start(self.options.clone(), runner, self.now, 1)?);
        }
        self.tailer.as_mut().unwrap().poll(self.now, 1)
    }

    fn poll(&mut self) -> Polled {
        self.try_poll().unwrap()
    }

    /// As the agent does when the channel has failed: start again from what it holds.
    fn poll_or_crash(&mut self) {
        if self.try_poll().is_err() {
            self.crash();
        }
    }

    /// Polls until there is nothing more.
    fn drain(&mut self) {
        self.channel.poison_never();
        while self.poll()
            != (Polled {
                lines: 0,
                more: false,
                at_end: true,
            })
        {}
    }

    /// The lines that came since the last call.
    fn lines_after(&self, known: usize) -> Vec<String> {
        self.channel.lines().split_off(known)
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn positions(&self) -> usize {
        crate::channel::Channel::positions(&*self.channel, "s/").len()
    }
}

fn header(event: &crate::event::Event, name: &str) -> String {
    event.headers.get(name).unwrap_or("-").to_owned()
}

#[test]
fn rotation_by_rename_sends_nothing_twice_and_keeps_the_order() {
    let mut rig = Rig::new(r"app\.log(\.\d+)?");
    rig.append("app.log", "1\n2\n");
    rig.poll();
    rig.append("app.log", "3\n");
    rig.rename("app.log", "app.log.1");
    rig.append("app.log", "5\n");
    rig.append("app.log.1", "4\n");
    rig.poll();
    rig.rename("app.log.1", "app.log.2");
    rig.rename("app.log", "app.log.1");
    rig.append("app.log", "6\n");
    rig.crash();
    rig.poll();
    assert_eq!(rig.channel.lines(), ["1", "2", "3", "4", "5", "6"]);
    assert_eq!(rig.counters.processing_fails.get(), 0);
}

#[test]
fn a_file_renamed_out_of_its_group_is_read_to_its_end_and_its_rest_is_a_line() {
    let mut rig = Rig::new(r"app\.log");
    let mut writer = rig.append("app.log", "1\n");
    rig.poll();
    writer.write_all(b"2\n").unwrap();
    rig.rename("app.log", "old");
    rig.append("app.log", "4\n");
    writer.write_all(b"3\nhalf").unwrap();
    rig.poll();
    assert_eq!(rig.channel.lines(), ["1", "2", "3", "4"]);
    rig.pass(119);
    rig.poll();
    assert_eq!(rig.channel.lines().len(), 4);
    rig.pass(1);
    rig.poll();
    assert_eq!(rig.lines_after(4), ["half"]);
    // Its writer goes on after all: nothing is lost, nothing comes twice.
    writer.write_all(b" more\n5\n").unwrap();
    rig.poll();
    assert_eq!(rig.lines_after(5), [" more", "5"]);
}

#[test]
fn a_file_renamed_out_of_its_group_while_stopped_is_found_by_its_inode() {
    let mut rig = Rig::new(r"app\.log");
    rig.append("app.log", "1\n");
    rig.poll();
    rig.crash();
    rig.append("app.log", "2\n");
    rig.rename("app.log", "app.log-20260101");
    rig.append("app.log", "3\n");
    rig.append("unrelated", "no\n");
    rig.poll();
    assert_eq!(rig.channel.lines(), ["1", "2", "3"]);
}

#[test]
fn an_idle_file_that_was_closed_and_then_renamed_is_read_to_its_end() {
    let mut rig = Rig::new(r"app\.log");
    rig.append("app.log", "1\n");
    rig.poll();
    rig.pass(120);
    rig.poll();
    assert!(
        rig.tailer
            .as_ref()
            .unwrap()
            .files()
            .all(|(_, _, open)| !open)
    );
    rig.append("app.log", "2\n");
    rig.rename("app.log", "old");
    rig.append("app.log", "3\n");
    rig.poll();
    assert_eq!(rig.channel.lines(), ["1", "2", "3"]);
}

#[test]
fn copytruncate_is_seen_while_running_even_if_the_file_is_longer_than_before() {
    let mut rig = Rig::new(r"app\.log");
    rig.append("app.log", "banner\nold 1\nold 2\n");
    rig.poll();
    rig.rewrite("app.log", "banner\nnew 1\nnew 2\nnew 3\n");
    rig.poll();
    assert_eq!(rig.lines_after(3), ["banner", "new 1", "new 2", "new 3"]);
    assert_eq!(rig.counters.processing_fails.get(), 1);
    rig.rewrite("app.log", "");
    rig.poll();
    rig.append("app.log", "x\n");
    rig.poll();
    assert_eq!(rig.lines_after(7), ["x"]);
}

/// A14, first case.
#[test]
fn the_same_inode_with_the_same_header_and_more_bytes_is_another_file_after_a_restart() {
    let header = "time,host,text\n".repeat(200);
    let mut rig = Rig::new(r".*\.csv");
    rig.append("a.csv", &format!("{header}{}", "old\n".repeat(10)));
    rig.poll();
    assert_eq!(rig.channel.lines().len(), 210);
    rig.crash();
    rig.rewrite("a.csv", &format!("{header}{}", "new\n".repeat(50)));
    rig.poll();
    let lines = rig.lines_after(210);
    assert_eq!(lines.len(), 250, "the new content comes from its beginning");
    assert_eq!(lines.iter().filter(|line| *line == "new").count(), 50);
    assert_eq!(rig.counters.processing_fails.get(), 1, "and it is reported");
}

/// A14, second case.
#[test]
fn another_device_number_sends_nothing_again() {
    let mut rig = Rig::new(r"app\.log");
    rig.append("app.log", "1\n2\n");
    rig.poll();
    rig.crash();
    let stored = crate::channel::Channel::positions(&*rig.channel, "s/").remove(0);
    let mut position = position::FilePosition::decode(&stored.value).unwrap();
    position.device ^= 0x55;
    rig.channel.store_position(&stored.key, position.encode());
    rig.append("app.log", "3\n");
    rig.poll();
    assert_eq!(rig.channel.lines(), ["1", "2", "3"]);
    assert_eq!(rig.positions(), 1);
}

/// A14, third case.
#[test]
fn a_fingerprint_taken_of_a_short_file_still_fits_when_it_has_grown() {
    let mut rig = Rig::new(r"app\.log");
    rig.append("app.log", &format!("{}\n", "x".repeat(39)));
    rig.poll();
    rig.crash();
    rig.append("app.log", &"y\n".repeat(10_000));
    rig.poll();
    assert_eq!(rig.channel.lines().len(), 10_001);
    rig.crash();
    rig.append("app.log", "z\n");
    rig.poll();
    assert_eq!(rig.lines_after(10_001), ["z"]);
    assert_eq!(rig.counters.processing_fails.get(), 0);
}

#[test]
fn a_recreated_file_is_read_from_its_beginning() {
    let mut rig = Rig::new(r"app\.log");
    rig.append("app.log", "1\n2\n");
    rig.poll();
    fs::remove_file(rig.path("app.log")).unwrap();
    rig.append("app.log", "1\n2\n3\n");
    rig.poll();
    assert_eq!(rig.channel.lines(), ["1", "2", "1", "2", "3"]);
}

#[test]
fn a_half_line_waits_however_long_and_comes_whole_also_across_a_restart() {
    let mut rig = Rig::new(r"app\.log");
    rig.append("app.log", "1\nha");
    rig.poll();
    rig.pass(1000);
    assert_eq!(
        rig.poll(),
        Polled {
            lines: 0,
            more: false,
            at_end: true
        }
    );
    rig.append("app.log", "lf");
    rig.poll();
    rig.crash();
    rig.poll();
    assert_eq!(rig.channel.lines(), ["1"]);
    rig.append("app.log", "\n2\n");
    rig.poll();
    assert_eq!(rig.channel.lines(), ["1", "half", "2"]);
}

#[test]
fn groups_give_headers_in_their_order_and_the_file_header_stays_the_same() {
    let mut rig = Rig::new(r"a\.log");
    let mut all = rig.options.groups[0].clone();
    all.pattern = pattern::whole_name(r".*\.log").unwrap();
    all.headers = vec![("kind".to_owned(), "other".to_owned())];
    rig.options.groups[0].headers = vec![("kind".to_owned(), "first".to_owned())];
    rig.options.groups.push(all);
    rig.options.file_header = Some("file".to_owned());
    rig.options.byte_offset_header = true;
    rig.append("b.log", "b\n");
    rig.append("a.log", "a1\na2\n");
    rig.append("c.txt", "c\n");
    rig.poll();
    rig.rename("a.log", "a2.log");
    rig.append("a2.log", "a3\n");
    rig.crash();
    rig.poll();
    let events = rig.channel.events();
    let of = |name: &str| events.iter().map(|e| header(e, name)).collect::<Vec<_>>();
    assert_eq!(rig.channel.lines(), ["a1", "a2", "b", "a3"]);
    assert_eq!(of("kind"), ["first", "first", "other", "first"]);
    assert_eq!(of("byteoffset"), ["0", "3", "0", "6"]);
    let a = rig.path("a.log").display().to_string();
    assert_eq!(
        of("file"),
        [
            a.clone(),
            a.clone(),
            rig.path("b.log").display().to_string(),
            a
        ]
    );
}

#[test]
fn skip_to_end_skips_once_and_never_again() {
    let mut rig = Rig::new(r".*\.log");
    rig.options.skip_to_end = true;
    rig.append("a.log", "old\nha");
    rig.append("empty.log", "");
    rig.poll();
    rig.crash();
    rig.append("a.log", "lf\n");
    rig.append("empty.log", "1\n");
    rig.poll();
    let mut lines = rig.channel.lines();
    lines.sort();
    assert_eq!(lines, ["1", "half"]);
    rig.append("later.log", "2\n");
    rig.poll();
    assert_eq!(rig.lines_after(2), ["2"]);
}

#[test]
fn flumes_position_file_is_the_start_of_a_new_channel_and_of_no_other() {
    use std::os::unix::fs::MetadataExt;
    let mut rig = Rig::new(r".*\.log");
    rig.append("a.log", "1\n2\n3\n");
    rig.append("b.log", "4\n");
    let inode = |name: &str| fs::metadata(rig.path(name)).unwrap().ino();
    let entry = |name: &str, inode: u64, pos: u64| {
        let file = rig.path(name).display().to_string();
        serde_json::json!({"inode": inode, "pos": pos, "file": file})
    };
    let json = serde_json::json!([
        entry("a.log", inode("a.log"), 4),
        entry("b.log", inode("b.log") + 1_000_000, 2),
        entry("gone.log", 7, 2),
    ]);
    fs::write(rig.path("positions.json"), json.to_string()).unwrap();
    rig.options.position_file = Some(rig.path("positions.json"));
    rig.poll();
    assert_eq!(rig.channel.lines(), ["3", "4"]);
    rig.crash();
    rig.append("a.log", "5\n");
    rig.poll();
    assert_eq!(rig.lines_after(2), ["5"]);
    fs::write(rig.path("positions.json"), "{").unwrap();
    rig.crash();
    rig.poll();
    rig.channel = Fake::new();
    rig.crash();
    let error = rig.try_poll().unwrap_err().to_string();
    assert!(
        error.contains("positions.json") && error.contains("positionFile"),
        "{error}"
    );
}

#[test]
fn positions_of_vanished_files_expire_and_the_table_is_bounded() {
    let mut rig = Rig::new(r".*\.log");
    rig.options.files_max = 5;
    for n in 0..20 {
        let name = format!("{n}.log");
        rig.append(&name, &format!("{n}\n"));
        rig.poll();
        rig.pass(130);
        rig.rename(&name, &format!("{n}.old"));
        rig.poll();
        rig.pass(130);
        rig.poll();
        assert!(rig.positions() <= 5, "{}", rig.positions());
    }
    assert_eq!(rig.channel.lines().len(), 20);
    rig.pass(3600);
    rig.poll();
    assert_eq!(rig.positions(), 0);
    for n in 0..6 {
        rig.append(&format!("live{n}.log"), "x\n");
    }
    rig.poll();
    assert_eq!(
        rig.lines_after(20).len(),
        5,
        "one too many is reported and waits"
    );
    fs::remove_file(rig.path("live0.log")).unwrap();
    rig.poll();
    rig.pass(130);
    rig.poll();
    rig.poll();
    assert_eq!(rig.lines_after(20).len(), 6);
}

#[test]
fn a_line_that_can_never_fit_is_refused_counted_and_passed_over() {
    let mut rig = Rig::new(r"a\.log");
    let long = "x".repeat(101);
    rig.append("a.log", &format!("1\n{long}\n2\n{}\n3\n", "y".repeat(60)));
    rig.channel.bytes_max.store(50, Ordering::SeqCst);
    rig.poll();
    assert_eq!(rig.channel.lines(), ["1", "2", "3"]);
    assert!(rig.counters.event_read_fails.get() >= 2);
    rig.crash();
    rig.poll();
    assert_eq!(rig.channel.lines().len(), 3);
}

#[test]
fn a_deleted_file_is_read_to_its_end_before_the_source_stops() {
    let mut rig = Rig::new(r"a\.log");
    let mut writer = rig.append("a.log", "1\n");
    rig.poll();
    fs::remove_file(rig.path("a.log")).unwrap();
    rig.poll();
    writer.write_all(b"2\nrest").unwrap();
    rig.trigger.as_ref().unwrap().stop();
    let now = rig.now;
    rig.tailer.as_mut().unwrap().stop(now, 1).unwrap();
    assert_eq!(rig.channel.lines(), ["1", "2", "rest"]);
}

#[test]
fn a_stop_while_the_channel_is_full_loses_nothing_of_a_deleted_file() {
    let mut rig = Rig::new(r"a\.log");
    let mut writer = rig.append("a.log", "1\n");
    rig.poll();
    writer.write_all(b"2\n3\n4\n5\n").unwrap();
    fs::remove_file(rig.path("a.log")).unwrap();
    rig.channel.refuse.store(1, Ordering::SeqCst);
    rig.trigger.as_ref().unwrap().stop();
    rig.poll();
    let now = rig.now;
    rig.tailer.as_mut().unwrap().stop(now, 1).unwrap();
    assert_eq!(rig.channel.lines(), ["1", "2", "3", "4", "5"]);
}

#[test]
fn a_position_of_a_newer_version_stops_the_source_instead_of_sending_all_again() {
    let mut rig = Rig::new(r"a\.log");
    rig.channel
        .store_position("s/0000000000000001", bytes::Bytes::from_static(b"\x09abc"));
    let error = rig.try_poll().unwrap_err();
    assert!(matches!(error, SourceError::Position { .. }));
    assert!(error.to_string().contains("s/0000000000000001"), "{error}");
}

/// SplitMix64: the same histories on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % n
    }
}

/// One history: numbered lines in pieces, rotation by rename into and out of the group, stops,
/// crashes, full and failing channels.
fn history(seed: u64) {
    let mut random = Random(seed);
    let mut rig = Rig::new(r"app\.log(\.[0-9]+)?");
    rig.options.batch_size = 1 + usize::try_from(random.below(5)).unwrap();
    rig.options.max_batch_count = 1 + random.below(3);
    let mut file = rig.append("app.log", "");
    let (mut pending, mut line, mut rotation) = (String::new(), 0, 0);
    for _ in 0..120 {
        match random.below(12) {
            0..=4 => {
                for _ in 0..random.below(8) {
                    pending.push_str(&format!("line {line}\n"));
                    line += 1;
                }
                let cut = usize::try_from(random.below(pending.len() as u64 + 1)).unwrap();
                file.write_all(&pending.as_bytes()[..cut]).unwrap();
                pending.drain(..cut);
            }
            5 => {
                rotation += 1;
                pending.push_str(&format!("line {line}\n"));
                line += 1;
                file.write_all(pending.as_bytes()).unwrap();
                pending.clear();
                if rotation % 3 == 0 {
                    // Nobody can find a file that leaves the group before it was ever read.
                    rig.drain();
                    file.write_all(format!("line {line}\n").as_bytes()).unwrap();
                    line += 1;
                    rig.rename("app.log", &format!("gone-{rotation}"));
                } else {
                    rig.rename("app.log", &format!("app.log.{rotation}"));
                }
                file = rig.append("app.log", "");
            }
            6 => rig.crash(),
            7 => {
                rig.channel.poison_once(random.below(3));
                rig.poll_or_crash();
            }
            8 => rig.pass(random.below(130)),
            9 => rig.channel.refuse.store(random.below(2), Ordering::SeqCst),
            _ => rig.poll_or_crash(),
        }
    }
    file.write_all(pending.as_bytes()).unwrap();
    rig.channel.poison_never();
    while rig.poll()
        != (Polled {
            lines: 0,
            more: false,
            at_end: true,
        })
    {}
    let mut got = rig.channel.lines();
    got.sort_by_key(|text| text[5..].parse::<u64>().unwrap());
    let expected: Vec<String> = (0..line).map(|n| format!("line {n}")).collect();
    assert_eq!(got, expected, "seed {seed}");
}

#[test]
fn every_line_comes_once_whatever_the_moments_of_restarts_and_rotations() {
    for seed in 0..40 {
        history(seed);
    }
}

#[tokio::test]
async fn a_run_tails_until_stopped_and_ends_when_all_files_are_quiet() {
    let rig = Rig::new(r"a\.log");
    rig.append("a.log", "1\n2\nhalf");
    let source = Arc::new(Taildir::new(rig.options.clone()));
    for _ in 0..2 {
        let (trigger, context) = context(&rig.channel, "s");
        let run = tokio::spawn({
            let source = Arc::clone(&source);
            async move { source.run(context).await }
        });
        while !source.has_ended() {
            tokio::task::yield_now().await;
        }
        trigger.stop();
        run.await.unwrap().unwrap();
    }
    assert_eq!(rig.channel.lines(), ["1", "2"]);
}
