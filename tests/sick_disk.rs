//! A real file system that goes bad under the running agent: read-only, shut down, or on a device
//! that fails writes or flushes. Nothing acknowledged is lost, nothing hangs, the agent says what
//! is wrong, stops with the documented code, and goes on by itself where the cause has gone.
//!
//! A plain `mount -o remount,ro` is refused by the kernel while a log is open for writing (the
//! last test says so); what turns a file system read-only under a writer is an error in it.

#![allow(
    clippy::unwrap_used,
    reason = "a failed step of the harness fails its test"
)]

#[path = "support/bed.rs"]
mod bed;
#[path = "support/fuse_disk.rs"]
mod fuse_disk;
#[path = "support/job.rs"]
mod job;
#[allow(unreachable_pub, reason = "shared by tests")]
#[path = "support/loopfs.rs"]
mod loopfs;
#[path = "support/medium.rs"]
mod medium;
#[path = "support/netcat_client.rs"]
mod netcat_client;
#[path = "support/rig.rs"]
mod rig;
#[path = "support/workload.rs"]
mod workload;

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use bed::Bed;
use fuse_disk::Fault;
use loopfs::{Kind, run};
use medium::{Keep, Seeded};
use workload::{Agent, pause};

/// Past it something hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// Exit code of a stop that leaves work to the next start.
const NOT_DRAINED: i32 = 4;

/// A bed with an agent that has begun to work.
fn at_work(kind: Kind) -> (Bed, Agent) {
    let mut bed = Bed::new(kind);
    assert!(bed.mount());
    let mut agent = bed.job.agent();
    work(&mut bed, &mut agent);
    (bed, agent)
}

fn work(bed: &mut Bed, agent: &mut Agent) {
    bed.job.client.connect();
    for _ in 0..10 {
        bed.job.feed(100, 30);
    }
    let connected = bed.job.client.is_connected();
    assert!(connected, "hung up on\n{}", agent.log_tail());
}

/// Feeds until netcat hangs up, which it does without having answered `OK` to what is not durable.
fn until_hung_up(bed: &mut Bed, agent: &Agent) {
    let start = Instant::now();
    while bed.job.client.is_connected() {
        bed.job.feed(20, 10);
        let log = agent.log_tail();
        assert!(
            start.elapsed() < PATIENCE,
            "goes on as if nothing were\n{log}"
        );
    }
    bed.job.client.disconnect();
}

/// The sick file system is unmounted beneath the agent, which must not hold it for ever.
fn let_go(bed: &mut Bed, agent: &Agent) {
    let start = Instant::now();
    let mut mounted = bed.mounted.take().unwrap();
    loop {
        match mounted.unmount() {
            Ok(()) => return,
            Err((still, why)) => {
                mounted = still;
                let log = agent.log_tail();
                assert!(start.elapsed() < PATIENCE, "still held: {why}\n{log}");
                pause(Duration::from_millis(5));
            }
        }
    }
}

/// The last agent drains and every line is judged.
fn judge(bed: &mut Bed) {
    bed.job.client.disconnect();
    bed.job.drain().unwrap_or_else(|why| panic!("{why}"));
    let verdict = bed.job.verdict;
    assert!(verdict.answered > 0 && verdict.tailed > 0, "{verdict}");
}

/// The device fails; the agent says so and is stopped; the device is replaced by one that holds
/// what the seed says.
fn stopped_on_a_failing_device(kind: Kind, fault: Fault) {
    for seed in 1..=2 {
        let (mut bed, mut agent) = at_work(kind);
        bed.disk.set_fault(fault);
        until_hung_up(&mut bed, &agent);
        agent.wait_for_log("channel has failed; everything on it is stopped", PATIENCE);
        agent.assert_alive();
        let begin = Instant::now();
        let code = agent.stop();
        assert_eq!(code, NOT_DRAINED, "{}", agent.log_tail());
        let took = begin.elapsed();
        assert!(
            took < PATIENCE,
            "the stop took {took:?}\n{}",
            agent.log_tail()
        );
        bed.mounted = None;
        bed.disk.set_fault(Fault::None);
        let mut seed = Seeded::new(seed);
        bed.disk.revive(Keep::by_seed(&mut seed), &mut seed);
        assert!(bed.mount());
        bed.job.check_as_found().unwrap();
        judge(&mut bed);
    }
}

#[test]
fn a_stop_on_ext4_whose_device_fails_flushes_is_4_and_nothing_is_lost() {
    stopped_on_a_failing_device(Kind::Ext4, Fault::FailFlushes);
}

#[test]
fn a_stop_on_ext4_whose_device_fails_writes_is_4_and_nothing_is_lost() {
    stopped_on_a_failing_device(Kind::Ext4, Fault::FailWrites);
}

#[test]
fn a_stop_on_xfs_whose_device_fails_flushes_is_4_and_nothing_is_lost() {
    stopped_on_a_failing_device(Kind::Xfs, Fault::FailFlushes);
}

#[test]
fn a_stop_on_xfs_whose_device_fails_writes_is_4_and_nothing_is_lost() {
    stopped_on_a_failing_device(Kind::Xfs, Fault::FailWrites);
}

/// The agent runs through it all: what is broken is mounted again beneath it.
fn repaired_beneath_the_agent(kind: Kind, break_it: impl Fn(&Bed), says: &str) {
    let (mut bed, mut agent) = at_work(kind);
    break_it(&bed);
    until_hung_up(&mut bed, &agent);
    agent.wait_for_log("channel has failed; everything on it is stopped", PATIENCE);
    agent.wait_for_log(says, PATIENCE);
    let_go(&mut bed, &agent);
    bed.disk.set_fault(Fault::None);
    assert!(bed.mount());
    work(&mut bed, &mut agent);
    assert_eq!(agent.stop(), 0, "{}", agent.log_tail());
    judge(&mut bed);
}

#[test]
fn an_ext4_that_turns_read_only_is_told_and_mounted_again_beneath_the_running_agent() {
    let break_it = |bed: &Bed| {
        let mounted = bed.mounted.as_ref().unwrap();
        mounted.remount("errors=remount-ro").unwrap();
        let trigger = format!("/sys/fs/ext4/{}/trigger_fs_error", mounted.device());
        fs::write(trigger, "a test").unwrap();
    };
    repaired_beneath_the_agent(Kind::Ext4, break_it, "Read-only file system");
}

#[test]
fn an_xfs_that_shuts_down_is_told_and_mounted_again_beneath_the_running_agent() {
    let break_it = |bed: &Bed| {
        let mount = bed.mounted.as_ref().unwrap().path();
        let mut command = Command::new("xfs_io");
        let advice = "install it as root: apt-get install -y xfsprogs";
        let done = run(command.args(["-x", "-c", "shutdown"]).arg(mount));
        done.unwrap_or_else(|why| panic!("{why}\n{advice}"));
    };
    repaired_beneath_the_agent(Kind::Xfs, break_it, "Input/output error");
}

#[test]
fn an_ext4_on_a_device_that_fails_and_heals_is_mounted_again_beneath_the_running_agent() {
    let break_it = |bed: &Bed| bed.disk.set_fault(Fault::FailWrites);
    repaired_beneath_the_agent(Kind::Ext4, break_it, "Input/output error");
}

#[test]
fn an_xfs_on_a_device_that_fails_and_heals_is_mounted_again_beneath_the_running_agent() {
    let break_it = |bed: &Bed| bed.disk.set_fault(Fault::FailFlushes);
    repaired_beneath_the_agent(Kind::Xfs, break_it, "Input/output error");
}

/// Started on a read-only mount, the agent waits; when the mount is writable it goes on by itself.
fn read_only_at_the_start(kind: Kind) {
    let (mut bed, mut agent) = at_work(kind);
    let why = bed.mounted.as_ref().unwrap().remount("ro").unwrap_err();
    assert!(why.contains("busy"), "{why}");
    bed.job.client.disconnect();
    assert_eq!(agent.stop(), 0, "{}", agent.log_tail());
    bed.mounted.as_ref().unwrap().remount("ro").unwrap();
    bed.job.writer.write(100);

    let mut stopped = bed.job.agent();
    stopped.wait_for_log("Read-only file system", PATIENCE);
    assert_eq!(stopped.stop(), NOT_DRAINED, "{}", stopped.log_tail());

    let mut agent = bed.job.agent();
    agent.wait_for_log("channel cannot be opened; tried again", PATIENCE);
    assert!(
        !bed.job.client.connect_while(once()),
        "a port without a channel"
    );
    bed.mounted.as_ref().unwrap().remount("rw").unwrap();
    work(&mut bed, &mut agent);
    assert_eq!(agent.stop(), 0, "{}", agent.log_tail());
    judge(&mut bed);
}

fn once() -> impl FnMut() -> bool {
    let mut hope = true;
    move || std::mem::replace(&mut hope, false)
}

#[test]
fn an_agent_on_a_read_only_ext4_waits_and_goes_on_when_it_is_writable() {
    read_only_at_the_start(Kind::Ext4);
}

#[test]
fn an_agent_on_a_read_only_xfs_waits_and_goes_on_when_it_is_writable() {
    read_only_at_the_start(Kind::Xfs);
}
