//! The claims of the channel contract about leases that become epochs.

use std::sync::Arc;

use forebay::channel::{Channel, ChannelError, EpochPart, SealRequest};
use forebay::event::Seq;

use super::{ALL, Options, STAGED, bodies, lease, put, run, take};

/// A seal request of one part.
pub(super) fn seal_through(last: Seq, count: u64) -> SealRequest {
    let part = EpochPart {
        staged_name: "p1".to_owned(),
        final_path: "/out/x-e{epoch}".to_owned(),
        count,
        length: 1,
        crc32: 0,
    };
    SealRequest {
        last,
        sink: "k1".to_owned(),
        store: "file://".to_owned(),
        base: "/out".to_owned(),
        attempt: "/out/_staging/c/i1/a1".to_owned(),
        parts: vec![part],
    }
}

/// A lease that was released can neither seal nor acknowledge nor take.
pub(crate) async fn seal_is_a_compare_and_set(open: impl Fn(Options) -> Arc<dyn Channel>) {
    let channel = open(Options::default());
    let all = put(&channel, 0..10).await;
    let id = channel.open_lease(STAGED).expect("open");
    assert_eq!(
        channel.lease_take(id, ALL, ALL).expect("held").events.len(),
        10
    );
    channel.release_lease(id);
    let late = channel.seal(id, seal_through(all.last, 10)).await;
    assert!(
        matches!(late, Err(ChannelError::LeaseLost { .. })),
        "{late:?}"
    );
    let late = channel.lease_ack(id, all.last).await;
    assert!(
        matches!(late, Err(ChannelError::LeaseLost { .. })),
        "{late:?}"
    );
    let late = channel.lease_take(id, ALL, ALL);
    assert!(
        matches!(late, Err(ChannelError::LeaseLost { .. })),
        "{late:?}"
    );
    assert!(channel.lease_exhausted(id));
    assert!(channel.journal().open_epochs().is_empty());
    assert_eq!(channel.status().waiting, 10);
}

/// What a lease has not read it can neither seal nor acknowledge.
pub(crate) async fn unread_events_cannot_be_sealed(open: impl Fn(Options) -> Arc<dyn Channel>) {
    let channel = open(Options::default());
    let all = put(&channel, 0..10).await;
    let mut a = lease(&channel, STAGED);
    take(&mut a, 5).await;
    let early = a.seal(seal_through(all.last, 10)).await;
    assert!(
        matches!(early, Err(ChannelError::LeaseLost { .. })),
        "{early:?}"
    );
    assert_eq!(a.held(), Some(run(all.first.0, all.first.0 + 4)));
}

/// Seal takes the front out of the lease as the next epoch; the rest stays held.
pub(crate) async fn seal_takes_the_front(open: impl Fn(Options) -> Arc<dyn Channel>) {
    let channel = open(Options::default());
    let all = put(&channel, 0..10).await;
    let journal = channel.journal();
    let mut a = lease(&channel, STAGED);
    take(&mut a, 10).await;
    let next = journal.next_epoch();
    let one = a
        .seal(seal_through(Seq(all.first.0 + 3), 4))
        .await
        .expect("held");
    assert_eq!(
        (one.epoch, one.range),
        (next, run(all.first.0, all.first.0 + 3))
    );
    assert_eq!(one.parts[0].final_path, format!("/out/x-e{next:016}"));
    assert_eq!(a.held(), Some(run(all.first.0 + 4, all.last.0)));
    let two = a
        .seal(seal_through(Seq(all.first.0 + 5), 2))
        .await
        .expect("held");
    assert_eq!((two.epoch, two.range.first.0), (next + 1, all.first.0 + 4));
    assert_eq!(journal.open_epochs(), [one, two]);
    let status = channel.status();
    assert_eq!((status.sealed_unpublished, status.leased), (6, 4));
    a.rollback();
    let mut b = lease(&channel, STAGED);
    assert_eq!(bodies(&take(&mut b, 4).await), [6, 7, 8, 9]);
}

/// Claimed is kept, done acknowledges, and a finished epoch is not known any more.
pub(crate) async fn done_acknowledges(open: impl Fn(Options) -> Arc<dyn Channel>) {
    let channel = open(Options::default());
    let all = put(&channel, 0..10).await;
    let journal = channel.journal();
    let mut a = lease(&channel, STAGED);
    take(&mut a, 10).await;
    let epoch = a
        .seal(seal_through(all.last, 10))
        .await
        .expect("held")
        .epoch;
    drop(a);
    assert_eq!(channel.status().waiting, 0, "sealed events do not return");
    journal.claimed(epoch).await.expect("open");
    assert!(journal.open_epochs()[0].claimed);
    journal.done(epoch).await.expect("open");
    assert!(journal.open_epochs().is_empty());
    let again = journal.done(epoch).await;
    assert!(
        matches!(again, Err(ChannelError::Refused { .. })),
        "{again:?}"
    );
    assert_eq!(channel.status().sealed_unpublished, 0);
    assert_eq!(channel.status().take_events, 10);
    assert!(
        lease(&channel, STAGED)
            .take(ALL, ALL)
            .expect("held")
            .is_empty()
    );
}

/// Abandon returns the epoch's events to the head, before what came later.
pub(crate) async fn abandon_returns(open: impl Fn(Options) -> Arc<dyn Channel>) {
    let channel = open(Options::default());
    let all = put(&channel, 0..10).await;
    let mut a = lease(&channel, STAGED);
    take(&mut a, 4).await;
    let epoch = a
        .seal(seal_through(Seq(all.first.0 + 3), 4))
        .await
        .expect("held")
        .epoch;
    drop(a);
    channel.journal().abandon(epoch).await.expect("open");
    assert!(channel.journal().open_epochs().is_empty());
    let mut b = lease(&channel, STAGED);
    assert_eq!(bodies(&take(&mut b, 10).await), (0..10).collect::<Vec<_>>());
    assert!(
        channel.journal().next_epoch() > epoch,
        "a number is never given twice"
    );
}
