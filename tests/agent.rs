//! The contract for scripts, tried with nothing but a .properties file and the binary: exit
//! codes, streams, directories, ports, signals.

#![allow(clippy::unwrap_used, reason = "a failed step fails its test")]

#[path = "support/agent.rs"]
mod support;

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;

use support::{
    Agent, Netcat, Signal, assert_published_once, free_port, get, published, status_json,
    until_taken,
};

/// A directory with a configuration: netcat on a port of its own, file channel, file_roll.
struct Bench {
    dir: tempfile::TempDir,
    port: u16,
}

impl Bench {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            port: free_port(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn out(&self) -> PathBuf {
        self.path("deep/out")
    }

    fn data(&self) -> PathBuf {
        self.path("deep/data/c1")
    }

    /// Writes the configuration, with further lines at its end, which win.
    fn config(&self, more: &[&str]) -> PathBuf {
        let port = self.port;
        let text = format!(
            "a1.sources = r1\na1.channels = c1\na1.sinks = k1\n\
             a1.sources.r1.type = netcat\na1.sources.r1.channels = c1\n\
             a1.sources.r1.bind = 127.0.0.1\na1.sources.r1.port = {port}\n\
             a1.channels.c1.type = file\na1.channels.c1.dataDirs = deep/data/c1\n\
             a1.channels.c1.maxFileSize = 4194304\n\
             a1.channels.c1.minimumRequiredSpace = 1048576\n\
             a1.sinks.k1.type = file_roll\na1.sinks.k1.channel = c1\n\
             a1.sinks.k1.sink.directory = deep/out\na1.sinks.k1.sink.rollInterval = 0\n"
        );
        let path = self.path("flume.properties");
        fs::write(&path, text + &more.join("\n") + "\n").unwrap();
        path
    }

    fn start(&self) -> Agent {
        Agent::start(&self.config(&[]), &[])
    }

    fn send(&self, lines: &[String]) {
        Netcat::connect(self.port).send(lines);
    }

    /// Waits until the sink has taken everything: what waits in the log at a stop stays there.
    fn wait_until_taken(&self) {
        until_taken(&self.data());
    }
}

fn lines(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|n| format!("line {n}")).collect()
}

#[test]
fn sigterm_publishes_what_was_acknowledged_and_exits_0_with_nothing_on_stdout() {
    let bench = Bench::new();
    let agent = bench.start();
    bench.send(&lines(0..100));
    let ended = agent.stop().expect(0);
    assert_eq!(ended.out, "");
    assert_published_once(&bench.out(), &lines(0..100));
    assert!(ended.log.contains("100 lines in 1 file"), "{}", ended.log);
}

#[test]
fn sigint_prints_how_many_lines_in_how_many_files_and_the_verdict_of_the_audit() {
    let bench = Bench::new();
    let agent = bench.start();
    bench.send(&lines(0..7));
    bench.wait_until_taken();
    agent.signal(Signal::INT);
    let ended = agent.wait().expect(0);
    let report = ended
        .log
        .lines()
        .find(|line| line.contains("7 lines in 1 file"));
    assert!(
        report.is_some_and(|line| line.contains("no gap, no overlap")),
        "{}",
        ended.log
    );
}

#[test]
fn a_stop_without_events_leaves_no_empty_file() {
    let bench = Bench::new();
    let agent = bench.start();
    drop(Netcat::connect(bench.port));
    agent.stop().expect(0);
    assert_eq!(published(&bench.out()), Vec::<PathBuf>::new());
}

#[test]
fn a_second_start_goes_on_where_the_first_ended() {
    let bench = Bench::new();
    let agent = bench.start();
    bench.send(&lines(0..10));
    bench.wait_until_taken();
    agent.stop().expect(0);
    let agent = bench.start();
    bench.send(&lines(10..20));
    bench.wait_until_taken();
    agent.stop().expect(0);
    assert_published_once(&bench.out(), &lines(0..20));
}

#[test]
fn after_a_sigkill_the_port_binds_at_once_and_no_acknowledged_line_is_missing() {
    let bench = Bench::new();
    let mut sent = 0;
    for _ in 0..5 {
        let agent = bench.start();
        let mut client = Netcat::connect(bench.port);
        client.send(&lines(sent..sent + 50));
        sent += 50;
        // The client is still connected: its socket must not keep the port from the next start.
        agent.kill();
    }
    let agent = bench.start();
    bench.send(&lines(sent..sent + 1));
    bench.wait_until_taken();
    agent.stop().expect(0);
    assert_published_once(&bench.out(), &lines(0..sent + 1));
}

#[test]
fn a_second_agent_on_the_same_directory_exits_3_and_the_first_goes_on() {
    let bench = Bench::new();
    let agent = bench.start();
    bench.send(&lines(0..1));
    let second = Agent::start(&bench.config(&[]), &[]).wait().expect(3);
    assert!(second.log.contains("in use"), "{}", second.log);
    bench.send(&lines(1..2));
    bench.wait_until_taken();
    agent.stop().expect(0);
    assert_published_once(&bench.out(), &lines(0..2));
}

#[test]
fn a_configuration_with_an_error_exits_2_and_names_file_line_and_nearest_name() {
    let bench = Bench::new();
    let config = bench.config(&["a1.sinks.k1.type = fil_roll"]);
    let ended = Agent::start(&config, &[]).wait().expect(2);
    assert_eq!(ended.out, "");
    assert!(ended.log.contains("flume.properties:16"), "{}", ended.log);
    assert!(ended.log.contains("file_roll"), "{}", ended.log);
    assert!(!bench.path("deep").exists(), "something was started");
}

#[test]
fn a_missing_configuration_and_a_wrong_option_exit_2() {
    let bench = Bench::new();
    let ended = Agent::start(&bench.path("missing.properties"), &[])
        .wait()
        .expect(2);
    assert!(ended.log.contains("missing.properties"), "{}", ended.log);
    Agent::start(&bench.config(&[]), &["--no-such-option"])
        .wait()
        .expect(2);
    let wrong = [
        "-Dflume.monitoring.type=http",
        "-Dflume.monitoring.port=none",
    ];
    Agent::start(&bench.config(&[]), &wrong).wait().expect(2);
}

#[test]
fn dryrun_checks_and_starts_nothing() {
    let bench = Bench::new();
    let ended = Agent::start(&bench.config(&[]), &["--dryrun"])
        .wait()
        .expect(0);
    assert_eq!(ended.out, "");
    assert!(!bench.path("deep").exists());
}

#[test]
fn a_port_in_use_is_tried_again_until_it_is_free() {
    let bench = Bench::new();
    let taken = TcpListener::bind(("127.0.0.1", bench.port)).unwrap();
    let mut agent = bench.start();
    agent.wait_for_log("starts again in");
    assert!(agent.is_running());
    drop(taken);
    bench.send(&lines(0..3));
    bench.wait_until_taken();
    agent.stop().expect(0);
    assert_published_once(&bench.out(), &lines(0..3));
}

#[test]
fn an_unreachable_namenode_does_not_keep_lines_from_being_acknowledged() {
    let bench = Bench::new();
    let path = format!(
        "a1.sinks.k1.hdfs.path = hdfs://127.0.0.1:{}/logs",
        free_port()
    );
    let hdfs = [
        "a1.sinks.k1.type = hdfs",
        "a1.sinks.k1.hdfs.fileType = DataStream",
        &path,
    ];
    let agent = Agent::start(&bench.config(&hdfs), &["--drain-timeout", "2"]);
    bench.send(&lines(0..10));
    let status = status_json(&bench.data());
    assert_eq!(status["running"], true);
    agent.signal(Signal::TERM);
    let code = agent.wait().status.code();
    assert!(matches!(code, Some(0 | 4)), "exit code {code:?}");
    // The same log into a directory that can be reached.
    let agent = bench.start();
    drop(Netcat::connect(bench.port));
    support::until("the lines are taken", || {
        status_json(&bench.data())["waiting"] == 0
    });
    agent.stop().expect(0);
    assert_published_once(&bench.out(), &lines(0..10));
}

#[test]
fn until_drained_reads_files_to_their_end_publishes_and_exits_0() {
    let bench = Bench::new();
    fs::create_dir(bench.path("logs")).unwrap();
    let text: String = lines(0..1000)
        .iter()
        .map(|line| format!("{line}\n"))
        .collect();
    fs::write(bench.path("logs/app.log"), text).unwrap();
    let config = bench.config(&[
        "a1.sources.r1.type = TAILDIR",
        "a1.sources.r1.filegroups = f1",
        "a1.sources.r1.filegroups.f1 = logs/.*[.]log",
    ]);
    let text = fs::read_to_string(&config).unwrap();
    let kept = text
        .lines()
        .filter(|line| !line.contains(".bind") && !line.contains(".port"));
    fs::write(
        &config,
        kept.map(|line| format!("{line}\n")).collect::<String>(),
    )
    .unwrap();
    let ended = Agent::start(&config, &["--until-drained"]).wait().expect(0);
    assert_eq!(ended.out, "");
    assert_published_once(&bench.out(), &lines(0..1000));
    let status = status_json(&bench.data());
    for field in [
        "waiting",
        "leased",
        "sealed_unpublished",
        "refused",
        "corrupt",
    ] {
        assert_eq!(status[field], 0, "{field}");
    }
    assert_eq!(status["running"], false);
}

#[test]
fn status_tells_what_waits_while_the_agent_runs_and_after_it_was_killed() {
    let bench = Bench::new();
    let agent = bench.start();
    bench.send(&lines(0..25));
    let held = |status: &serde_json::Value| {
        status["waiting"].as_u64().unwrap() + status["leased"].as_u64().unwrap()
    };
    let status = status_json(&bench.data());
    assert_eq!((held(&status), &status["running"]), (25, &true.into()));
    agent.kill();
    let status = status_json(&bench.data());
    assert_eq!((held(&status), &status["running"]), (25, &false.into()));
}

#[test]
fn metrics_have_flumes_names_and_readiness_follows_the_components() {
    let bench = Bench::new();
    let port = free_port();
    let taken = TcpListener::bind(("127.0.0.1", bench.port)).unwrap();
    let on = format!("-Dflume.monitoring.port={port}");
    let args = ["-Dflume.monitoring.type=http", &on];
    let agent = Agent::start(&bench.config(&[]), &args);
    support::until("the agent lives", || {
        get(port, "/healthz").is_some_and(|a| a.0 == 200)
    });
    support::until("the taken port is the reason", || {
        get(port, "/readyz").is_some_and(|(code, text)| code == 503 && text.contains("r1"))
    });
    drop(taken);
    support::until("the agent is ready", || {
        get(port, "/readyz").is_some_and(|a| a.0 == 200)
    });
    bench.send(&lines(0..9));
    let json: serde_json::Value = serde_json::from_str(&get(port, "/metrics").unwrap().1).unwrap();
    assert_eq!(json["CHANNEL.c1"]["EventPutSuccessCount"], "9");
    assert_eq!(json["CHANNEL.c1"]["Type"], "CHANNEL");
    assert_eq!(json["SOURCE.r1"]["EventAcceptedCount"], "9");
    assert_eq!(json["SINK.k1"]["Type"], "SINK");
    let text = get(port, "/metrics/prometheus").unwrap().1;
    assert!(
        text.contains("forebay_channel_puts_events_total{channel=\"c1\"} 9\n"),
        "{text}"
    );
    agent.stop().expect(0);
}

/// A memory channel has to be emptied before a stop, and its sink cannot: the stop must not hang.
fn stuck(bench: &Bench, args: &[&str]) -> Agent {
    let path = format!(
        "a1.sinks.k1.hdfs.path = hdfs://127.0.0.1:{}/logs",
        free_port()
    );
    let config = bench.config(&[
        "a1.sinks.k1.type = hdfs",
        "a1.sinks.k1.hdfs.fileType = DataStream",
        "a1.channels.c1.type = memory",
        &path,
    ]);
    let agent = Agent::start(&config, args);
    bench.send(&lines(0..10));
    agent
}

#[test]
fn a_stop_that_takes_longer_than_the_drain_timeout_exits_4_and_says_what_is_left() {
    let bench = Bench::new();
    let ended = stuck(&bench, &["--drain-timeout", "1"]).stop().expect(4);
    assert!(
        ended.log.contains("10 events were only in memory"),
        "{}",
        ended.log
    );
}

#[test]
fn a_second_signal_stops_at_once() {
    let bench = Bench::new();
    let mut agent = stuck(&bench, &["--drain-timeout", "3600"]);
    agent.signal(Signal::TERM);
    agent.wait_for_log("sources have stopped");
    assert!(agent.is_running());
    agent.stop().expect(4);
}
