//! Calls that wait: futures polled by hand, and what the specification says of their answers.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use forebay::channel::file::FileChannel;
use forebay::channel::{
    Channel, ChannelError, EpochPart, EpochRecord, LeaseId, Position, PutBatch, SealRequest,
};
use forebay::env::disk_sim::SimDisk;
use forebay::event::{Seq, SeqRange};

use super::check::{ANSWERED, CAPACITY, Checked, ENDED, EPOCHS, ORDER, broken, require};
use super::driver::{Driver, Lease};
use super::queue::{Entry, Item, State};

/// What a call answers.
#[derive(Debug)]
pub(crate) enum Answer {
    Put(Option<SeqRange>),
    Done,
    Sealed(EpochRecord),
}

type Answering = Pin<Box<dyn Future<Output = Result<Answer, ChannelError>> + Send>>;

/// What was called.
#[derive(Clone, Debug)]
pub(crate) enum What {
    Put {
        events: Vec<Item>,
        positions: Vec<(String, Bytes)>,
    },
    Ack(SeqRange),
    Seal(LeaseId, SealRequest),
    Claimed(u64),
    Done(u64),
    Abandon(u64),
    Fence(u32),
}

/// A call without an answer yet.
pub(crate) struct Call {
    pub(crate) what: What,
    /// Its entry, once it is queued.
    pub(crate) entry: Option<usize>,
    future: Answering,
    bell: Arc<Bell>,
}

/// Notes, in operations of the disk, when a caller was last woken: from then on it may have told
/// the whole world, whatever the log does next.
pub(crate) struct Bell {
    disk: SimDisk,
    rung: AtomicU64,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rung.store(self.disk.operations(), Ordering::Relaxed);
    }
}

impl Call {
    pub(crate) fn put(channel: &Arc<FileChannel>, what: What, batch: PutBatch) -> Self {
        let channel = Arc::clone(channel);
        let future = async move { channel.commit_put(batch).await.map(Answer::Put) };
        Self::of(what, Box::pin(future))
    }

    pub(crate) fn ack(channel: &Arc<FileChannel>, lease: LeaseId, range: SeqRange) -> Self {
        let channel = Arc::clone(channel);
        let future = async move {
            channel
                .lease_ack(lease, range.last)
                .await
                .map(|()| Answer::Done)
        };
        Self::of(What::Ack(range), Box::pin(future))
    }

    pub(crate) fn seal(channel: &Arc<FileChannel>, lease: LeaseId, request: SealRequest) -> Self {
        let channel = Arc::clone(channel);
        let what = What::Seal(lease, request.clone());
        let future = async move { channel.seal(lease, request).await.map(Answer::Sealed) };
        Self::of(what, Box::pin(future))
    }

    pub(crate) fn record(channel: &Arc<FileChannel>, what: What) -> Self {
        let journal = channel.journal();
        let call = what.clone();
        let future = async move {
            match call {
                What::Claimed(epoch) => journal.claimed(epoch).await,
                What::Done(epoch) => journal.done(epoch).await,
                What::Abandon(epoch) => journal.abandon(epoch).await,
                What::Fence(through) => journal.fenced(through).await,
                What::Put { .. } | What::Ack(_) | What::Seal(..) => Ok(()),
            }
            .map(|()| Answer::Done)
        };
        Self::of(what, Box::pin(future))
    }

    fn of(what: What, future: Answering) -> Self {
        let bell = Arc::new(Bell {
            disk: SimDisk::default(),
            rung: AtomicU64::new(u64::MAX),
        });
        Self {
            what,
            entry: None,
            future,
            bell,
        }
    }

    fn poll(&mut self) -> Poll<Result<Answer, ChannelError>> {
        let waker = Waker::from(Arc::clone(&self.bell));
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }
}

pub(crate) fn request(last: u64, parts: usize) -> SealRequest {
    let part = |n: usize| EpochPart {
        staged_name: format!("p{n}"),
        final_path: format!("/out/{{epoch}}-{n}"),
        count: n as u64,
        length: last * 10,
        crc32: 7,
    };
    SealRequest {
        last: Seq(last),
        sink: "k1".into(),
        store: "file://".into(),
        base: "/out".into(),
        attempt: format!("/out/_staging/c/i1/a{last}"),
        parts: (0..parts).map(part).collect(),
    }
}

fn record(epoch: u64, range: SeqRange, request: &SealRequest) -> EpochRecord {
    let mut parts = request.parts.clone();
    for part in &mut parts {
        part.final_path = part.final_path.replace("{epoch}", &format!("{epoch:016}"));
    }
    EpochRecord {
        epoch,
        range,
        sink: request.sink.clone(),
        store: request.store.clone(),
        base: request.base.clone(),
        attempt: request.attempt.clone(),
        parts,
        claimed: false,
    }
}

pub(crate) fn batch(events: &[Item], positions: &[(String, Bytes)]) -> PutBatch {
    let mut batch = PutBatch {
        events: events.iter().map(|item| item.to_put()).collect(),
        positions: Vec::new(),
    };
    for (key, value) in positions {
        batch.positions.push(Position {
            key: key.clone(),
            value: value.clone(),
        });
    }
    if !positions.is_empty() {
        for (index, event) in batch.events.iter_mut().enumerate() {
            event.position = Some((0, index as u64));
        }
    }
    batch
}

impl Driver {
    /// Makes a call and polls it for the first time.
    pub(crate) fn call(&mut self, mut call: Call) -> Checked {
        call.bell = Arc::new(Bell {
            disk: self.disk.clone(),
            rung: AtomicU64::new(u64::MAX),
        });
        self.calls.push(call);
        self.poll(self.calls.len() - 1).map(drop)
    }

    /// Polls all calls until none gets on.
    pub(crate) fn poll_all(&mut self) -> Checked {
        loop {
            let mut moved = false;
            let mut at = 0;
            while at < self.calls.len() {
                let queued = self.calls[at].entry.is_some();
                let answered = self.poll(at)?;
                moved |= answered || queued != self.calls[at].entry.is_some();
                at += usize::from(!answered);
            }
            if !moved {
                return self.nobody_hangs();
            }
        }
    }

    /// Polls one call; an answered one is taken out.
    fn poll(&mut self, at: usize) -> Checked<bool> {
        let before = self.channel().pending();
        let polled = self.calls[at].poll();
        let queued = self.channel().pending() > before;
        if queued {
            self.queued(at)?;
        }
        match polled {
            Poll::Pending => Ok(false),
            Poll::Ready(answer) => {
                let call = self.calls.remove(at);
                self.answered(&call, answer)?;
                Ok(true)
            }
        }
    }

    /// The call has been handed to the log: it is an entry from now on.
    fn queued(&mut self, at: usize) -> Checked {
        let call = &self.calls[at];
        if call.entry.is_some() {
            return broken(ANSWERED, format!("queued twice: {:?}", call.what));
        }
        let entry = match call.what.clone() {
            What::Put { events, positions } => {
                self.has_room_for(&events)?;
                Entry::Put { events, positions }
            }
            What::Ack(range) => Entry::Ack(range),
            What::Seal(lease, request) => {
                let first = self.lease(lease).and_then(|l| l.held).map(|held| held.0);
                let range = first.and_then(|first| SeqRange::new(Seq(first), request.last));
                let Some(range) = range else {
                    return broken(EPOCHS, format!("sealed without a lease: {request:?}"));
                };
                self.cut(lease, range.last.0);
                let number = State::of(&self.spec.entries).next_epoch;
                Entry::Seal(record(number, range, &request))
            }
            What::Claimed(epoch) => Entry::Claimed(epoch),
            What::Done(epoch) => Entry::Done(epoch),
            What::Abandon(epoch) => Entry::Abandon(epoch),
            What::Fence(through) => Entry::Fence(through),
        };
        self.calls[at].entry = Some(self.spec.entries.len());
        self.spec.entries.push(entry);
        Ok(())
    }

    pub(crate) fn lease(&self, id: LeaseId) -> Option<&Lease> {
        self.leases.iter().find(|l| l.id == id)
    }

    /// Takes everything up to `last` out of a lease.
    pub(crate) fn cut(&mut self, id: LeaseId, last: u64) {
        let lease = self.leases.iter_mut().find(|l| l.id == id);
        if let Some(lease) = lease {
            let rest = lease.held.map(|(_, end)| (last + 1, end));
            lease.held = rest.filter(|(first, end)| first <= end);
        }
    }

    fn answered(&mut self, call: &Call, answer: Result<Answer, ChannelError>) -> Checked {
        self.stats.answers += 1;
        match answer {
            Ok(answer) => self.granted(call, answer),
            Err(error) => self.refused(call, &error),
        }
    }

    fn granted(&mut self, call: &Call, answer: Answer) -> Checked {
        let Some(at) = call.entry else {
            return broken(
                ANSWERED,
                format!("Ok to what was never queued: {:?}", call.what),
            );
        };
        let lazy = matches!(call.what, What::Put { .. }) && !self.commits();
        let reached = if lazy {
            self.spec.written
        } else {
            self.spec.durable
        };
        require(at < reached, ANSWERED, || {
            let Spec { written, durable } = self.marks();
            format!("Ok to entry {at}, with {written} written and {durable} durable")
        })?;
        if !lazy {
            self.told.push((at, call.bell.rung.load(Ordering::Relaxed)));
        }
        match (answer, &self.spec.entries[at]) {
            (Answer::Put(range), Entry::Put { events, .. }) => {
                let first = State::of(&self.spec.entries[..at]).events.len() as u64 + 1;
                let last = (first + events.len() as u64).saturating_sub(1);
                let expected = SeqRange::new(Seq(first), Seq(last));
                require(range == expected, ORDER, || {
                    format!("a put was given {range:?}, expected {expected:?}")
                })
            }
            (Answer::Sealed(epoch), Entry::Seal(expected)) => {
                require(epoch == *expected, EPOCHS, || {
                    format!("sealed as {epoch:?}, expected {expected:?}")
                })
            }
            (Answer::Done, _) => Ok(()),
            (answer, entry) => broken(ANSWERED, format!("{answer:?} to {entry:?}")),
        }
    }

    fn marks(&self) -> Spec {
        Spec {
            written: self.spec.written,
            durable: self.spec.durable,
        }
    }

    fn refused(&mut self, call: &Call, error: &ChannelError) -> Checked {
        let unexpected = || broken(ANSWERED, format!("{error} to {:?}", call.what));
        match (error, &call.what) {
            (ChannelError::Poisoned { .. }, _) => require(self.has_failed(), ENDED, || {
                format!("{error} while the log goes on")
            }),
            (ChannelError::Closed { .. }, _) => require(self.closed, ENDED, || {
                format!("{error} while the log is open")
            }),
            _ if call.entry.is_some() => unexpected(),
            (ChannelError::Full { .. }, What::Put { events, .. }) => {
                self.stats.full += 1;
                self.is_full_for(events, false)
                    .or_else(|why| broken(CAPACITY, format!("{error}: {why}")))
            }
            // A close ends all leases; and where the log has failed, an earlier seal that could
            // not be written has given its events back.
            (ChannelError::LeaseLost { .. }, What::Seal(..))
                if self.closed || self.has_failed() =>
            {
                Ok(())
            }
            (ChannelError::LeaseLost { .. }, What::Seal(lease, request)) => {
                let held = self.lease(*lease).and_then(|l| l.held);
                let holds = held.is_some_and(|(f, l)| f <= request.last.0 && request.last.0 <= l);
                require(!holds, EPOCHS, || {
                    format!("{error} with {held:?} to {request:?}")
                })
            }
            (
                ChannelError::Refused { .. },
                What::Claimed(epoch) | What::Done(epoch) | What::Abandon(epoch),
            ) => {
                let open = self.spec.durable_state().epochs.get(epoch).cloned();
                let given_up = matches!(call.what, What::Abandon(_));
                // With space short the events of a claimed epoch may be gone.
                let gone = given_up && open.as_ref().is_some_and(|e| e.claimed);
                require(open.is_none() || gone, EPOCHS, || {
                    format!("{error}: {open:?}")
                })
            }
            (ChannelError::Refused { .. }, What::Seal(..)) => {
                let many = self.spec.durable_state().epochs.len() > 8;
                require(many, EPOCHS, || format!("{error} with few epochs open"))
            }
            _ => unexpected(),
        }
    }

    /// INV-6, and INV-16 for those who wait for room.
    fn nobody_hangs(&self) -> Checked {
        for call in &self.calls {
            let what = &call.what;
            require(!self.has_failed() && !self.closed, ANSWERED, || {
                format!("the log has ended and nobody answers {what:?}")
            })?;
            match (call.entry, what) {
                (Some(at), _) => {
                    let lazy = matches!(what, What::Put { .. }) && !self.commits();
                    let done = if lazy {
                        self.spec.written
                    } else {
                        self.spec.durable
                    };
                    require(at >= done, ANSWERED, || {
                        format!("entry {at} of {done} is done and nobody answers {what:?}")
                    })?;
                }
                (None, What::Put { events, .. }) => {
                    if let Err(why) = self.is_full_for(events, true) {
                        return broken(CAPACITY, format!("a put waits although {why}"));
                    }
                }
                // For its turn; whoever has it is queued.
                (None, _) => require(self.channel().pending() > 0, ANSWERED, || {
                    format!("nothing is pending, and yet {what:?} waits for its turn")
                })?,
            }
        }
        Ok(())
    }
}

struct Spec {
    written: usize,
    durable: usize,
}
