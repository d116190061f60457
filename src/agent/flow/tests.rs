//! Order of start and stop, reopening after a failure, and the time-out, with components that
//! only write down what happens to them. The channel is a status that the test sets.

use std::sync::Mutex;
use std::sync::atomic::AtomicU32;

use async_trait::async_trait;

use super::*;
use crate::agent::registry::{Counters, Entry};
use crate::channel::journal::Incarnation;
use crate::channel::{
    ChannelError, ChannelStatus, EpochJournal, EpochRecord, LeaseId, Position, PutBatch,
    SealRequest, TakeMode, TakenBatch,
};
use crate::env::clock;
use crate::event::{Seq, SeqRange};

/// What happened, in order.
type Story = Arc<Mutex<Vec<String>>>;

#[derive(Debug)]
struct Told {
    status: Mutex<ChannelStatus>,
    story: Story,
    number: u32,
}

impl Told {
    fn set(&self, change: impl FnOnce(&mut ChannelStatus)) {
        change(&mut self.status.lock().unwrap());
    }
}

/// A log that a store has refused; says what had happened when it was asked for the words.
struct RefusedLog(Story);

#[async_trait]
impl EpochJournal for RefusedLog {
    fn channel_id(&self) -> String {
        String::new()
    }
    fn incarnation(&self) -> Incarnation {
        Incarnation {
            number: 1,
            nonce: 1,
        }
    }
    fn knows(&self, _incarnation: Incarnation) -> bool {
        true
    }
    fn unfenced(&self) -> Vec<u32> {
        Vec::new()
    }
    async fn fenced(&self, _through: u32) -> Result<(), ChannelError> {
        Ok(())
    }
    fn next_sequence(&self) -> Seq {
        Seq(1)
    }
    fn next_epoch(&self) -> u64 {
        1
    }
    fn open_epochs(&self) -> Vec<EpochRecord> {
        Vec::new()
    }
    async fn claimed(&self, _epoch: u64) -> Result<(), ChannelError> {
        Ok(())
    }
    async fn done(&self, _epoch: u64) -> Result<(), ChannelError> {
        Ok(())
    }
    async fn abandon(&self, _epoch: u64) -> Result<(), ChannelError> {
        Ok(())
    }
    fn control_may_be_lost(&self) -> bool {
        false
    }
    fn directory_changed(&self) -> bool {
        false
    }
    fn is_durable(&self) -> bool {
        true
    }
    fn refusal(&self) -> Option<String> {
        self.0.lock().unwrap().last().cloned()
    }
}

#[async_trait]
impl Channel for Told {
    fn name(&self) -> &str {
        "c1"
    }
    fn transaction_capacity(&self) -> usize {
        1
    }
    async fn commit_put(&self, _batch: PutBatch) -> Result<Option<SeqRange>, ChannelError> {
        unreachable!("no component here puts")
    }
    fn commit_put_blocking(&self, _batch: PutBatch) -> Result<Option<SeqRange>, ChannelError> {
        unreachable!("no component here puts")
    }
    fn open_lease(&self, _mode: TakeMode) -> Result<LeaseId, ChannelError> {
        unreachable!("no component here takes")
    }
    fn lease_take(&self, _: LeaseId, _: usize, _: usize) -> Result<TakenBatch, ChannelError> {
        unreachable!("no component here takes")
    }
    fn lease_exhausted(&self, _lease: LeaseId) -> bool {
        false
    }
    async fn wait_ready(&self, _timeout: Duration) {}
    fn must_seal(&self, _lease: LeaseId) -> bool {
        false
    }
    async fn lease_ack(&self, _lease: LeaseId, _through: Seq) -> Result<(), ChannelError> {
        unreachable!("no component here takes")
    }
    fn release_lease(&self, _lease: LeaseId) {}
    async fn seal(&self, _: LeaseId, _: SealRequest) -> Result<EpochRecord, ChannelError> {
        unreachable!("no component here takes")
    }
    fn journal(&self) -> Arc<dyn EpochJournal> {
        Arc::new(RefusedLog(Arc::clone(&self.story)))
    }
    fn positions(&self, _prefix: &str) -> Vec<Position> {
        Vec::new()
    }
    fn status(&self) -> ChannelStatus {
        self.status.lock().unwrap().clone()
    }
    fn close(&self) -> Result<(), ChannelError> {
        self.story
            .lock()
            .unwrap()
            .push(format!("close {}", self.number));
        Ok(())
    }
}

/// A flow under test and the means to steer it.
struct Stage {
    story: Story,
    /// The channel of the present incarnation.
    channel: Arc<Mutex<Option<Arc<Told>>>>,
    phase: watch::Sender<Phase>,
    orders: Orders,
    flow: Flow,
}

/// A component that runs until it is stopped, or fails as often as told first.
fn component(story: &Story, tier: Tier, failures: Vec<Failure>) -> Arc<ComponentSpec> {
    let left = Arc::new(Mutex::new(failures));
    let story = Arc::clone(story);
    Arc::new(ComponentSpec {
        entry: Entry::new(format!("{tier:?}"), "test", Counters::None),
        tier,
        ended: None,
        start: Box::new(move |context| {
            let (story, left) = (Arc::clone(&story), Arc::clone(&left));
            Box::pin(async move {
                story.lock().unwrap().push(format!("start {tier:?}"));
                if let Some(failure) = left.lock().unwrap().pop() {
                    return Err(failure);
                }
                context.shutdown.wait().await;
                story.lock().unwrap().push(format!("stop {tier:?}"));
                Ok(())
            })
        }),
    })
}

fn stage(durable: bool, components: impl FnOnce(&Story) -> Vec<Arc<ComponentSpec>>) -> Stage {
    let story = Story::default();
    let channel = Arc::new(Mutex::new(None));
    let opens = Arc::new(AtomicU32::new(0));
    let (phase, phases) = watch::channel(Phase::Run);
    let clock = clock::system();
    let flow = Flow {
        entry: ChannelEntry::new("c1", "test"),
        durable,
        status_dir: None,
        open: {
            let (story, channel) = (Arc::clone(&story), Arc::clone(&channel));
            Box::new(move || {
                let number = opens.fetch_add(1, Ordering::Relaxed) + 1;
                story.lock().unwrap().push(format!("open {number}"));
                let status = Mutex::default();
                let told = Arc::new(Told {
                    status,
                    story: Arc::clone(&story),
                    number,
                });
                *channel.lock().unwrap() = Some(Arc::clone(&told));
                Box::pin(async move { Ok(told as Arc<dyn Channel>) })
            })
        },
        components: components(&story),
        idle: Arc::default(),
    };
    let orders = Orders {
        phase: phases,
        until_drained: false,
        clock,
    };
    Stage {
        story,
        channel,
        phase,
        orders,
        flow,
    }
}

/// Waits until something is so; a test that waits for ever is ended by its caller's patience.
async fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn all_tiers(story: &Story) -> Vec<Arc<ComponentSpec>> {
    let tiers = [Tier::Source, Tier::Sink, Tier::Resolver];
    tiers
        .into_iter()
        .map(|tier| component(story, tier, Vec::new()))
        .collect()
}

fn has_come(story: &Story, moment: &str) -> bool {
    story.lock().unwrap().iter().any(|what| what == moment)
}

fn starts(story: &Story) -> usize {
    story
        .lock()
        .unwrap()
        .iter()
        .filter(|what| what.starts_with("start"))
        .count()
}

#[tokio::test]
async fn sources_stop_first_and_the_channel_closes_last() {
    let stage = stage(true, all_tiers);
    let flow = tokio::spawn(stage.flow.run(stage.orders));
    until(|| starts(&stage.story) == 3).await;
    stage.phase.send_replace(Phase::Stop);
    assert_eq!(flow.await.unwrap(), FlowEnd::Clean);
    let story = stage.story.lock().unwrap();
    let (started, stopped) = story.split_at(4);
    assert_eq!(started[0], "open 1");
    assert_eq!(
        stopped,
        ["stop Source", "stop Sink", "stop Resolver", "close 1"]
    );
}

#[tokio::test]
async fn a_failed_channel_is_reopened_after_everything_on_it_has_stopped() {
    let stage = stage(true, all_tiers);
    let flow = tokio::spawn(stage.flow.run(stage.orders));
    until(|| starts(&stage.story) == 3).await;
    let failed = stage.channel.lock().unwrap().clone().unwrap();
    failed.set(|status| status.poisoned = Some("sync failed".to_owned()));
    until(|| starts(&stage.story) == 6).await;
    stage.phase.send_replace(Phase::Stop);
    assert_eq!(flow.await.unwrap(), FlowEnd::Clean);
    let story = stage.story.lock().unwrap();
    let at = |what: &str| story.iter().position(|line| line == what).unwrap();
    for stopped in ["stop Source", "stop Sink", "stop Resolver"] {
        assert!(at(stopped) < at("close 1"), "{story:?}");
    }
    assert!(at("close 1") < at("open 2"), "{story:?}");
    assert_eq!(story.last().map(String::as_str), Some("close 2"));
}

#[tokio::test]
async fn a_stop_while_the_channel_cannot_be_opened_is_not_a_clean_one() {
    let mut stage = stage(true, all_tiers);
    let opens = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&opens);
    stage.flow.open = Box::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { Err(Failure::Retry("read-only".to_owned())) })
    });
    let flow = tokio::spawn(stage.flow.run(stage.orders));
    until(|| opens.load(Ordering::Relaxed) == 2).await;
    stage.phase.send_replace(Phase::Stop);
    let FlowEnd::NotDrained(reason) = flow.await.unwrap() else {
        panic!("nobody knows what the log still holds");
    };
    assert!(
        reason.contains("could not be opened: read-only"),
        "{reason}"
    );
    assert_eq!(starts(&stage.story), 0);
}

#[tokio::test]
async fn a_component_that_fails_is_started_again_and_the_others_do_not_notice() {
    let stage = stage(true, |story| {
        let failing = vec![Failure::Retry("no such host".to_owned())];
        vec![
            component(story, Tier::Sink, failing),
            component(story, Tier::Source, Vec::new()),
        ]
    });
    let flow = tokio::spawn(stage.flow.run(stage.orders));
    until(|| starts(&stage.story) == 3).await;
    stage.phase.send_replace(Phase::Stop);
    assert_eq!(flow.await.unwrap(), FlowEnd::Clean);
    let story = stage.story.lock().unwrap();
    assert_eq!(story.iter().filter(|what| *what == "start Sink").count(), 2);
    assert_eq!(
        story.iter().filter(|what| *what == "start Source").count(),
        1
    );
    assert_eq!(
        story.iter().filter(|what| what.starts_with("open")).count(),
        1
    );
}

#[tokio::test]
async fn a_panic_is_a_failure_of_one_component_only() {
    let stage = stage(true, |story| {
        let mut specs = vec![component(story, Tier::Source, Vec::new())];
        let broken = AtomicBool::new(false);
        let again = component(story, Tier::Sink, Vec::new());
        specs.push(Arc::new(ComponentSpec {
            entry: Entry::new("k1", "test", Counters::None),
            tier: Tier::Sink,
            ended: None,
            start: Box::new(move |context| {
                if !broken.swap(true, Ordering::Relaxed) {
                    return Box::pin(async { panic!("a bug") });
                }
                (again.start)(context)
            }),
        }));
        specs
    });
    let flow = tokio::spawn(stage.flow.run(stage.orders));
    until(|| has_come(&stage.story, "start Sink")).await;
    stage.phase.send_replace(Phase::Stop);
    assert_eq!(flow.await.unwrap(), FlowEnd::Clean);
}

#[tokio::test]
async fn a_fatal_failure_ends_the_flow_with_its_exit_code() {
    let stage = stage(true, |story| {
        let cloned = Failure::Fatal {
            exit: 3,
            reason: "another copy has run".to_owned(),
        };
        vec![
            component(story, Tier::Resolver, vec![cloned]),
            component(story, Tier::Source, vec![]),
        ]
    });
    let end = stage.flow.run(stage.orders).await;
    // The events of a refused log are counted when no source can add to them any more.
    assert_eq!(
        end,
        FlowEnd::Fatal {
            exit: 3,
            reason: "another copy has run; stop Source".to_owned()
        }
    );
}

#[tokio::test]
async fn a_stop_that_is_cut_short_says_that_it_was_not_drained() {
    let stage = stage(true, |story| {
        let stubborn = ComponentSpec {
            entry: Entry::new("k1", "test", Counters::None),
            tier: Tier::Sink,
            ended: None,
            start: Box::new(|_| Box::pin(std::future::pending())),
        };
        vec![
            component(story, Tier::Source, Vec::new()),
            Arc::new(stubborn),
        ]
    });
    let flow = tokio::spawn(stage.flow.run(stage.orders));
    until(|| starts(&stage.story) == 1).await;
    stage.phase.send_replace(Phase::Stop);
    until(|| has_come(&stage.story, "stop Source")).await;
    assert!(!flow.is_finished());
    stage.phase.send_replace(Phase::Abort);
    assert!(matches!(flow.await.unwrap(), FlowEnd::NotDrained(_)));
    assert_eq!(
        stage.story.lock().unwrap().last().map(String::as_str),
        Some("close 1")
    );
}

#[tokio::test]
async fn what_is_only_in_memory_is_taken_before_the_sinks_stop() {
    let stage = stage(false, all_tiers);
    let flow = tokio::spawn(stage.flow.run(stage.orders));
    until(|| starts(&stage.story) == 3).await;
    let channel = stage.channel.lock().unwrap().clone().unwrap();
    channel.set(|status| status.waiting = 1);
    stage.phase.send_replace(Phase::Stop);
    until(|| has_come(&stage.story, "stop Source")).await;
    tokio::time::sleep(WATCH_EVERY * 2).await;
    assert!(!has_come(&stage.story, "stop Sink"));
    channel.set(|status| status.waiting = 0);
    assert_eq!(flow.await.unwrap(), FlowEnd::Clean);
}

#[tokio::test]
async fn a_flow_is_idle_when_its_sources_have_ended_and_nothing_waits() {
    let ended = Arc::new(AtomicBool::new(false));
    let stage = stage(true, |_| {
        let ended = Arc::clone(&ended);
        vec![Arc::new(ComponentSpec {
            entry: Entry::new("r1", "test", Counters::None),
            tier: Tier::Source,
            ended: Some(Box::new(move || ended.load(Ordering::Relaxed))),
            start: Box::new(|context| {
                Box::pin(async move {
                    context.shutdown.wait().await;
                    Ok(())
                })
            }),
        })]
    });
    let idle = Arc::clone(&stage.flow.idle);
    let flow = tokio::spawn(stage.flow.run(stage.orders));
    until(|| stage.channel.lock().unwrap().is_some()).await;
    stage
        .channel
        .lock()
        .unwrap()
        .clone()
        .unwrap()
        .set(|status| status.waiting = 1);
    ended.store(true, Ordering::Relaxed);
    tokio::time::sleep(WATCH_EVERY * 4).await;
    assert!(!idle.load(Ordering::Relaxed), "an event still waits");
    stage
        .channel
        .lock()
        .unwrap()
        .clone()
        .unwrap()
        .set(|status| status.waiting = 0);
    until(|| idle.load(Ordering::Relaxed)).await;
    stage.phase.send_replace(Phase::Stop);
    assert_eq!(flow.await.unwrap(), FlowEnd::Clean);
}
