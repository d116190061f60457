use super::*;
use crate::channel::{PutTransaction, TakeTransaction};

fn open(options: MemoryOptions) -> Arc<dyn Channel> {
    MemoryChannel::open("c1", options).expect("opens")
}

async fn put(channel: &Arc<dyn Channel>, bytes: usize) -> Result<Option<SeqRange>, ChannelError> {
    let mut tx = PutTransaction::begin(channel.clone());
    tx.put(Event::from_body(vec![0; bytes]));
    tx.commit().await
}

fn of_bytes(byte_capacity: u64, keep_alive: Duration) -> MemoryOptions {
    let byte_capacity = Some(byte_capacity);
    MemoryOptions {
        byte_capacity,
        keep_alive,
        ..MemoryOptions::default()
    }
}

#[tokio::test]
async fn bytes_are_bounded_less_the_buffer() {
    let channel = open(of_bytes(100, Duration::ZERO));
    put(&channel, 80)
        .await
        .expect("80 of 100 bytes, 20 % kept back");
    assert!(matches!(
        put(&channel, 1).await,
        Err(ChannelError::Full { .. })
    ));
    assert!(matches!(
        put(&channel, 81).await,
        Err(ChannelError::TooLarge { limit: 80, .. })
    ));
    assert!(channel.status().held_back.is_some());
}

#[tokio::test]
async fn short_of_bytes_the_open_epoch_is_asked_to_seal_and_done_makes_room() {
    let channel = open(of_bytes(100, Duration::from_secs(600)));
    put(&channel, 80).await.expect("room");
    let mode = TakeMode::Staged { block_events: 10 };
    let mut lease = TakeTransaction::begin(channel.clone(), mode).expect("open");
    let taken = lease.take(10, usize::MAX).expect("held");
    assert!(!lease.must_seal());
    let waiting = channel.clone();
    let waiting = tokio::spawn(async move { put(&waiting, 80).await });
    while !lease.must_seal() {
        lease.wait(Duration::from_secs(600)).await;
    }
    let request = SealRequest {
        last: taken.events[0].seq,
        sink: "k1".into(),
        store: "file://".into(),
        base: "/b".into(),
        attempt: "/b/a".into(),
        parts: Vec::new(),
    };
    let epoch = lease.seal(request).await.expect("held").epoch;
    assert!(!lease.must_seal());
    channel.journal().done(epoch).await.expect("open");
    assert!(waiting.await.expect("joined").is_ok());
}

#[tokio::test]
async fn every_open_has_another_channel_id() {
    let (a, b) = (
        open(MemoryOptions::default()),
        open(MemoryOptions::default()),
    );
    let (a, b) = (a.journal(), b.journal());
    assert_ne!(a.channel_id(), b.channel_id());
    assert_eq!(a.channel_id().len(), 12);
    assert!(a.knows(a.incarnation()) && !a.knows(b.incarnation()));
    assert!(!a.is_durable());
}

#[test]
fn a_transaction_larger_than_the_channel_is_refused_at_open() {
    let options = MemoryOptions {
        transaction_capacity: 101,
        ..MemoryOptions::default()
    };
    let refused = MemoryChannel::open("c1", options)
        .err()
        .expect("refused")
        .to_string();
    assert!(refused.contains("transactionCapacity 101"), "{refused}");
}
