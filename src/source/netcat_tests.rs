//! netcat on real sockets.

use std::sync::atomic::Ordering;

use super::*;
use crate::source::Trigger;
use crate::source::testing::{Fake, context};

struct Rig {
    channel: Arc<Fake>,
    address: SocketAddr,
    trigger: Trigger,
    counters: Arc<crate::agent::counters::SourceCounters>,
    run: tokio::task::JoinHandle<Result<(), SourceError>>,
}

impl Rig {
    async fn new(ack_every_event: bool) -> Self {
        let channel = Fake::new();
        let (trigger, context) = context(&channel, "s");
        let counters = Arc::clone(&context.counters);
        let source = Arc::new(Netcat::new(NetcatOptions {
            bind: "127.0.0.1".to_owned(),
            port: 0,
            max_line_length: 512,
            ack_every_event,
            connections_max: 10,
        }));
        let run = tokio::spawn({
            let source = Arc::clone(&source);
            async move { source.run(context).await }
        });
        let address = source.listening().await.unwrap();
        Self {
            channel,
            address,
            trigger,
            counters,
            run,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends all, ends, and returns all answers.
    async fn talk(&self, bytes: &[u8]) -> String {
        let mut client = self.connect().await;
        client.write_all(bytes).await.unwrap();
        client.shutdown().await.unwrap();
        let mut answers = String::new();
        client.read_to_string(&mut answers).await.unwrap();
        answers
    }
}

const TOO_LONG: &str = "FAILED: Event exceeds the maximum length (512 chars, including newline)\n";

#[tokio::test]
async fn pipelined_lines_of_one_read_are_one_transaction_and_all_are_answered() {
    let rig = Rig::new(true).await;
    assert_eq!(rig.talk(b"a\n\nb\r\n\xff\xfe\n").await, "OK\n".repeat(4));
    let bodies: Vec<Bytes> = rig.channel.events().into_iter().map(|e| e.body).collect();
    assert_eq!(bodies, [&b"a"[..], b"", b"b\r", b"\xff\xfe"]);
    assert_eq!(rig.channel.batches().len(), 1);
}

#[tokio::test]
async fn lines_that_come_during_a_sync_share_the_next_one_and_stay_in_order() {
    let rig = Rig::new(true).await;
    rig.channel.close_gate();
    let mut client = rig.connect().await;
    client.write_all(b"0\n").await.unwrap();
    while rig.channel.arrived.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let text: String = (1..500).map(|n| format!("{n}\n")).collect();
    client.write_all(text.as_bytes()).await.unwrap();
    let mut byte = [0];
    assert!(
        client.try_read(&mut byte).is_err(),
        "no answer before the line is durable"
    );
    rig.channel.open_gate();
    client.shutdown().await.unwrap();
    let mut answers = String::new();
    client.read_to_string(&mut answers).await.unwrap();
    assert_eq!(answers, "OK\n".repeat(500));
    assert_eq!(
        rig.channel.lines(),
        (0..500).map(|n| n.to_string()).collect::<Vec<_>>()
    );
    assert!(
        rig.channel.batches().len() <= 6,
        "{}",
        rig.channel.batches().len()
    );
}

#[tokio::test]
async fn a_transaction_holds_no_more_than_the_channel_takes() {
    let rig = Rig::new(true).await;
    rig.channel.events_max.store(7, Ordering::SeqCst);
    let text: String = (0..100).map(|n| format!("{n}\n")).collect();
    assert_eq!(rig.talk(text.as_bytes()).await, "OK\n".repeat(100));
    assert_eq!(rig.channel.lines().len(), 100);
}

#[tokio::test]
async fn a_line_over_the_maximum_is_answered_failed_after_the_lines_before_it() {
    let rig = Rig::new(true).await;
    for long in [
        "x".repeat(512),
        "é".repeat(512),
        "😀".repeat(256),
        "y".repeat(3_000_000),
    ] {
        let text = format!("ok\n{long}\nnever\n");
        assert_eq!(rig.talk(text.as_bytes()).await, format!("OK\n{TOO_LONG}"));
    }
    for fits in [
        "x".repeat(511),
        "é".repeat(511),
        "😀".repeat(255),
        "€".repeat(511),
    ] {
        assert_eq!(rig.talk(format!("{fits}\n").as_bytes()).await, "OK\n");
    }
    assert_eq!(rig.talk(&[0x80; 1537]).await, TOO_LONG);
    assert_eq!(rig.channel.lines().len(), 8);
    assert_eq!(rig.counters.event_read_fails.get(), 5);
}

#[tokio::test]
async fn a_half_closed_connection_is_answered_and_its_unfinished_line_is_none() {
    let rig = Rig::new(true).await;
    assert_eq!(rig.talk(b"a\nlast").await, "OK\n");
    assert_eq!(rig.talk(b"").await, "");
    assert_eq!(rig.channel.lines(), ["a"]);
    let quiet = Rig::new(false).await;
    assert_eq!(quiet.talk(b"a\nb\n").await, "");
    assert_eq!(quiet.talk(&[b'x'; 600]).await, TOO_LONG);
    assert_eq!(quiet.channel.lines(), ["a", "b"]);
}

#[tokio::test]
async fn a_full_channel_stops_the_reading_and_loses_nothing() {
    let rig = Rig::new(true).await;
    rig.channel.close_gate();
    let client = rig.connect().await;
    let line = format!("{}\n", "x".repeat(500));
    let (mut read, mut write) = client.into_split();
    let text = line.repeat(100);
    let mut sent = 0;
    // 100 MB do not fit into the socket's buffers.
    let stuck = loop {
        let send = write.write_all(text.as_bytes());
        if tokio::time::timeout(Duration::from_millis(500), send)
            .await
            .is_err()
        {
            break true;
        }
        sent += 100;
        if sent >= 200_000 {
            break false;
        }
    };
    assert!(
        stuck,
        "the source has read {sent} lines that the channel did not take"
    );
    assert!(sent < 50_000, "{sent}");
    drop(write);
    rig.channel.open_gate();
    let mut answers = String::new();
    read.read_to_string(&mut answers).await.unwrap();
    let ok = answers.matches("OK\n").count();
    assert_eq!(answers.len(), ok * 3);
    assert!(ok >= sent, "{ok} of {sent}");
    assert_eq!(rig.channel.lines().len(), ok);
}

#[tokio::test]
async fn a_line_that_can_never_fit_gets_its_own_answer_in_order() {
    let rig = Rig::new(true).await;
    rig.channel.bytes_max.store(20, Ordering::SeqCst);
    let answers = rig
        .talk(format!("a\n{}\nb\n", "x".repeat(30)).as_bytes())
        .await;
    let answers: Vec<&str> = answers.lines().collect();
    assert_eq!((answers[0], answers[2], answers.len()), ("OK", "OK", 3));
    assert!(
        answers[1].starts_with("FAILED: transaction too large"),
        "{answers:?}"
    );
    assert_eq!(rig.channel.lines(), ["a", "b"]);
}

#[tokio::test]
async fn a_stop_answers_what_is_stored_and_nothing_else() {
    let rig = Rig::new(true).await;
    let mut idle = rig.connect().await;
    let mut waiting = rig.connect().await;
    waiting.write_all(b"a\n").await.unwrap();
    assert_eq!(waiting.read_u8().await.unwrap(), b'O');
    rig.channel.refuse.store(u64::MAX, Ordering::SeqCst);
    waiting.write_all(b"b\n").await.unwrap();
    rig.channel.refused.notified().await;
    rig.trigger.stop();
    rig.run.await.unwrap().unwrap();
    let mut answers = String::new();
    waiting.read_to_string(&mut answers).await.unwrap();
    assert_eq!(answers, "K\n");
    assert_eq!(idle.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(rig.channel.lines(), ["a"]);
    assert!(TcpStream::connect(rig.address).await.is_err());
}

#[tokio::test]
async fn a_failed_channel_ends_the_source_without_an_answer() {
    let rig = Rig::new(true).await;
    let mut idle = rig.connect().await;
    rig.channel.poison("sync failed");
    assert_eq!(rig.talk(b"a\n").await, "");
    let error = rig.run.await.unwrap().unwrap_err();
    assert!(
        matches!(error, SourceError::ChannelPoisoned { .. }),
        "{error}"
    );
    assert_eq!(idle.read(&mut [0]).await.unwrap(), 0);
}
