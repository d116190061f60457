//! Our netcat source and that of Apache Flume 1.11 get the same bytes: answers and stored bodies
//! must be the same, except where the head of `src/source/netcat.rs` says why they are not.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "support/flume.rs"]
mod flume;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use forebay::agent::counters::SourceCounters;
use forebay::channel::file::{FileChannel, FileChannelOptions};
use forebay::channel::{Channel, TakeMode, TakeTransaction};
use forebay::env::clock;
use forebay::env::disk_real::RealDisk;
use forebay::source::netcat::{Netcat, NetcatOptions};
use forebay::source::{Shutdown as Stop, Source, SourceContext};

const TOO_LONG: &str = "FAILED: Event exceeds the maximum length (512 chars, including newline)\n";

/// What a client sends, piece by piece: a pause between two lets the server read the first.
fn inputs() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let one = |text: &str| vec![text.as_bytes().to_vec()];
    let line = |what: &str, n: usize| one(&format!("{}\n", what.repeat(n)));
    vec![
        ("one line", one("hello\n")),
        ("two lines in one write", one("a\nb\n")),
        ("empty line", one("\n")),
        ("CRLF", one("windows\r\n")),
        ("UTF-8", one("grüße €\n")),
        ("NUL", one("a\0b\n")),
        ("longest line", line("x", 511)),
        ("one too long", line("x", 512)),
        ("longest line of two bytes a character", line("é", 511)),
        ("one too long of two bytes a character", line("é", 512)),
        ("longest line of two units a character", line("😀", 255)),
        ("one too long of two units a character", line("😀", 256)),
        (
            "long line after a good one",
            one(&format!("ok\n{}\nno\n", "y".repeat(600))),
        ),
        ("long line without end", one(&"z".repeat(600))),
        ("nothing", Vec::new()),
        ("last line without end", one("whole\nhalf")),
        (
            "a character in two pieces",
            vec![b"caf\xc3".to_vec(), b"\xa9\n".to_vec()],
        ),
        (
            "a line in two pieces",
            vec![b"first ".to_vec(), b"second\nthird\n".to_vec()],
        ),
        (
            "many",
            one(&(0..500).map(|n| format!("many {n}\n")).collect::<String>()),
        ),
    ]
}

fn talk(address: SocketAddr, pieces: &[Vec<u8>]) -> String {
    let mut client = TcpStream::connect(address).unwrap();
    client
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    for (n, piece) in pieces.iter().enumerate() {
        if n > 0 {
            flume::pause();
        }
        client.write_all(piece).unwrap();
    }
    // Refused only if the server has closed the connection already.
    client.shutdown(Shutdown::Write).ok();
    let mut answers = String::new();
    client.read_to_string(&mut answers).unwrap();
    answers
}

fn theirs(dir: &std::path::Path, ports: [u16; 2]) -> flume::Flume {
    let out = dir.join("out");
    std::fs::create_dir_all(&out).unwrap();
    let mut properties = "a.sources = s0 s1\na.channels = c\na.sinks = k\n".to_owned();
    for (n, port) in ports.iter().enumerate() {
        properties.push_str(&format!(
            "a.sources.s{n}.type = netcat\na.sources.s{n}.bind = 127.0.0.1\n\
             a.sources.s{n}.port = {port}\na.sources.s{n}.channels = c\n\
             a.sources.s{n}.ack-every-event = {}\n",
            n == 0
        ));
    }
    properties.push_str(&format!(
        "a.channels.c.type = memory\na.channels.c.capacity = 100000\n\
         a.sinks.k.type = file_roll\na.sinks.k.channel = c\na.sinks.k.sink.rollInterval = 0\n\
         a.sinks.k.sink.directory = {}\n",
        out.display()
    ));
    flume::Flume::start(dir, "a", &properties, &ports)
}

async fn ours(
    channel: &Arc<FileChannel>,
    ack_every_event: bool,
) -> (SocketAddr, forebay::source::Trigger) {
    let source = Arc::new(Netcat::new(NetcatOptions {
        bind: "127.0.0.1".to_owned(),
        port: 0,
        max_line_length: 512,
        ack_every_event,
        connections_max: 10,
    }));
    let (trigger, shutdown) = Stop::new();
    let context = SourceContext {
        name: "s".to_owned(),
        channel: Arc::clone(channel) as Arc<dyn Channel>,
        counters: Arc::new(SourceCounters::default()),
        shutdown,
    };
    let run = Arc::clone(&source);
    tokio::spawn(async move { run.run(context).await });
    (source.listening().await.unwrap(), trigger)
}

async fn bodies(channel: Arc<dyn Channel>) -> Vec<u8> {
    let mut take = TakeTransaction::begin(channel, TakeMode::Batch).unwrap();
    let mut all = Vec::new();
    while let batch = take.take(1000, 1 << 20).unwrap()
        && !batch.is_empty()
    {
        for taken in batch.events {
            all.extend_from_slice(&taken.event.body);
            all.push(b'\n');
        }
    }
    take.commit().await.unwrap();
    all
}

/// What Flume's sink has written, once it is as long as `length` or no longer grows.
fn written(dir: &std::path::Path, length: usize) -> Vec<u8> {
    let mut all = Vec::new();
    for _ in 0..200 {
        all.clear();
        for entry in std::fs::read_dir(dir.join("out")).unwrap() {
            all.extend(std::fs::read(entry.unwrap().path()).unwrap());
        }
        if all.len() >= length {
            break;
        }
        flume::pause();
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn netcat_answers_and_stores_what_real_flume_does() {
    let dir = tempfile::tempdir().unwrap();
    let ports = [flume::free_port(), flume::free_port()];
    let flume = theirs(dir.path(), ports);
    let options = FileChannelOptions {
        data_dirs: vec![dir.path().join("wal")],
        max_file_size: 8 << 20,
        minimum_required_space: 1 << 20,
        ..FileChannelOptions::default()
    };
    let channel = FileChannel::open("c", options, Arc::new(RealDisk), clock::system()).unwrap();
    let mut triggers = Vec::new();
    for (port, ack) in ports.into_iter().zip([true, false]) {
        let (address, trigger) = ours(&channel, ack).await;
        triggers.push(trigger);
        for (what, pieces) in inputs() {
            let real = talk(([127, 0, 0, 1], port).into(), &pieces);
            let answers = talk(address, &pieces);
            // Flume writes its answer and closes while bytes may be unread; ours never drops one.
            assert_eq!(answers, real, "{what}, ack-every-event = {ack}");
            let too_long = what.contains("too long") || what.starts_with("long line");
            assert_eq!(answers.ends_with(TOO_LONG), too_long, "{what}");
        }
    }
    let stored = bodies(Arc::clone(&channel) as Arc<dyn Channel>).await;
    let real = written(dir.path(), stored.len());
    assert!(stored == real, "the stored bodies differ");
    different_on_purpose(&channel, ports[0]).await;
    drop(flume);
}

/// Bytes that are not UTF-8: Flume closes without an answer and loses the good line before them.
async fn different_on_purpose(channel: &Arc<FileChannel>, flume_port: u16) {
    let (address, _trigger) = ours(channel, true).await;
    let pieces = [b"good\n\xff\xfe\n".to_vec()];
    assert_eq!(talk(([127, 0, 0, 1], flume_port).into(), &pieces), "");
    assert_eq!(talk(address, &pieces), "OK\nOK\n");
    let stored = bodies(Arc::clone(channel) as Arc<dyn Channel>).await;
    assert_eq!(stored, b"good\n\xff\xfe\n");
}
