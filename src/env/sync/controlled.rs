//! The door under a controlled scheduler: every lock, wake-up, answer and wait is a place where
//! the scheduler may let somebody else go on, and nothing else is.
//!
//! *Time* belongs to the test: it stands still until [`pass_time`] moves it to the next time-out
//! that anybody waits for. While it stands still a wait ends by a wake-up alone, so that a
//! wake-up that is lost is a deadlock, which the scheduler reports; in a real run the next
//! time-out would hide it.
//!
//! Works only inside a run of the scheduler (`shuttle::Runner`).

use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LockResult, TryLockError, TryLockResult};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use shuttle::rand::Rng;

pub use shuttle::sync::atomic;
pub use shuttle::thread;

use super::PoisonError;

/// A place where another thread may come in between.
pub fn point() {
    // Any operation on an atomic of the scheduler is one.
    let place = atomic::AtomicBool::new(false);
    place.load(Ordering::SeqCst);
}

/// A mutex of the scheduler.
#[derive(Debug, Default)]
pub struct Mutex<T>(shuttle::sync::Mutex<T>);

/// Holds a [`Mutex`].
#[derive(Debug)]
pub struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    held: shuttle::sync::MutexGuard<'a, T>,
}

impl<T> Mutex<T> {
    /// A mutex that nobody holds.
    pub fn new(value: T) -> Self {
        Self(shuttle::sync::Mutex::new(value))
    }

    /// As [`std::sync::Mutex::lock`].
    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        let guard = |held| MutexGuard { mutex: self, held };
        match self.0.lock() {
            Ok(held) => Ok(guard(held)),
            Err(poisoned) => Err(PoisonError::new(guard(poisoned.into_inner()))),
        }
    }

    /// As [`std::sync::Mutex::try_lock`].
    pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        let guard = |held| MutexGuard { mutex: self, held };
        match self.0.try_lock() {
            Ok(held) => Ok(guard(held)),
            Err(TryLockError::WouldBlock) => Err(TryLockError::WouldBlock),
            Err(TryLockError::Poisoned(poisoned)) => Err(TryLockError::Poisoned(PoisonError::new(
                guard(poisoned.into_inner()),
            ))),
        }
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.held
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.held
    }
}

/// One thread in a wait.
#[derive(Debug)]
struct Waiter {
    thread: thread::Thread,
    woken: AtomicBool,
    timed_out: AtomicBool,
}

impl Waiter {
    fn wake(&self) {
        self.woken.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

impl Ring for Waiter {
    fn ring(&self) {
        if !self.woken.load(Ordering::SeqCst) {
            self.timed_out.store(true, Ordering::SeqCst);
            self.wake();
        }
    }
}

/// A condition variable whose wake-ups go to nobody but a thread that waits already. (That of
/// the scheduler knows no time-outs.)
#[derive(Debug, Default)]
pub struct Condvar {
    // A plain lock: it is never held where another thread could come in.
    waiting: std::sync::Mutex<Vec<Arc<Waiter>>>,
}

/// Whether a wait ended by its time-out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    /// As [`std::sync::WaitTimeoutResult::timed_out`].
    pub fn timed_out(&self) -> bool {
        self.0
    }
}

impl Condvar {
    /// A condition that nobody waits for.
    pub fn new() -> Self {
        Self::default()
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Waiter>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`std::sync::Condvar::wait_timeout`].
    pub fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        limit: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        let waiter = Arc::new(Waiter {
            thread: thread::current(),
            woken: AtomicBool::new(false),
            timed_out: AtomicBool::new(false),
        });
        let mutex = guard.mutex;
        // Others may come in before the release and not between it and the next line: to let go
        // of the lock and to wait is one step.
        drop(guard);
        self.waiting().push(Arc::clone(&waiter));
        let alarm = Alarm::set(limit, Arc::clone(&waiter) as Arc<dyn Ring>);
        while !waiter.woken.load(Ordering::SeqCst) {
            thread::park();
        }
        drop(alarm);
        self.waiting().retain(|other| !Arc::ptr_eq(other, &waiter));
        let result = WaitTimeoutResult(waiter.timed_out.load(Ordering::SeqCst));
        match mutex.lock() {
            Ok(guard) => Ok((guard, result)),
            Err(poisoned) => Err(PoisonError::new((poisoned.into_inner(), result))),
        }
    }

    /// As [`std::sync::Condvar::notify_one`]: any one of those that wait.
    pub fn notify_one(&self) {
        point();
        let waiting = self.waiting();
        let asleep: Vec<_> = waiting
            .iter()
            .filter(|w| !w.woken.load(Ordering::SeqCst))
            .cloned()
            .collect();
        drop(waiting);
        match asleep.as_slice() {
            [] => {}
            [one] => one.wake(),
            many => many[shuttle::rand::thread_rng().gen_range(0..many.len())].wake(),
        }
    }

    /// As [`std::sync::Condvar::notify_all`].
    pub fn notify_all(&self) {
        point();
        let waiting = self.waiting().clone();
        // All at once: none of them runs before the last is woken.
        for waiter in &waiting {
            waiter.woken.store(true, Ordering::SeqCst);
        }
        waiting.iter().for_each(|waiter| waiter.thread.unpark());
    }
}

/// A cell that is written once.
#[derive(Debug, Default)]
pub struct OnceLock<T>(std::sync::OnceLock<T>);

impl<T> OnceLock<T> {
    /// An empty cell.
    pub fn new() -> Self {
        Self(std::sync::OnceLock::new())
    }

    /// As [`std::sync::OnceLock::get`].
    pub fn get(&self) -> Option<&T> {
        point();
        self.0.get()
    }

    /// As [`std::sync::OnceLock::get_or_init`]; `init` must not wait.
    pub fn get_or_init(&self, init: impl FnOnce() -> T) -> &T {
        point();
        self.0.get_or_init(init)
    }
}

/// tokio's, with a place to come in before each call.
#[derive(Debug, Default)]
pub struct Notify(tokio::sync::Notify);

impl Notify {
    /// As [`tokio::sync::Notify::notified`].
    pub fn notified(&self) -> tokio::sync::futures::Notified<'_> {
        point();
        self.0.notified()
    }

    /// As [`tokio::sync::Notify::notify_waiters`].
    pub fn notify_waiters(&self) {
        point();
        self.0.notify_waiters();
    }
}

/// tokio's, with a place to come in before each call.
pub mod oneshot {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    pub use tokio::sync::oneshot::error;

    use super::point;

    /// As [`tokio::sync::oneshot::Sender`].
    #[derive(Debug)]
    pub struct Sender<T>(tokio::sync::oneshot::Sender<T>);

    /// As [`tokio::sync::oneshot::Receiver`].
    #[derive(Debug)]
    pub struct Receiver<T>(tokio::sync::oneshot::Receiver<T>);

    /// As [`tokio::sync::oneshot::channel`].
    pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        (Sender(sender), Receiver(receiver))
    }

    impl<T> Sender<T> {
        /// As [`tokio::sync::oneshot::Sender::send`].
        pub fn send(self, value: T) -> Result<(), T> {
            point();
            self.0.send(value)
        }
    }

    impl<T> Receiver<T> {
        /// As [`tokio::sync::oneshot::Receiver::try_recv`].
        pub fn try_recv(&mut self) -> Result<T, error::TryRecvError> {
            point();
            self.0.try_recv()
        }

        /// As [`tokio::sync::oneshot::Receiver::blocking_recv`].
        pub fn blocking_recv(self) -> Result<T, error::RecvError> {
            shuttle::future::block_on(self)
        }
    }

    impl<T> Future for Receiver<T> {
        type Output = Result<T, error::RecvError>;

        fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
            point();
            Pin::new(&mut self.0).poll(context)
        }
    }
}

/// Whoever an alarm wakes.
trait Ring: Send + Sync + std::fmt::Debug {
    fn ring(&self);
}

/// The clock of one run, and the time-outs that are waited for.
#[derive(Debug, Default)]
struct Clock {
    passed: Duration,
    next: u64,
    alarms: Vec<(Duration, u64, Arc<dyn Ring>)>,
}

shuttle::lazy_static! {
    static ref CLOCK: std::sync::Mutex<Clock> = std::sync::Mutex::new(Clock::default());
}

fn clock() -> std::sync::MutexGuard<'static, Clock> {
    CLOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One time-out, until it is dropped.
#[derive(Debug)]
struct Alarm(u64);

impl Alarm {
    fn set(limit: Duration, who: Arc<dyn Ring>) -> Self {
        let mut clock = clock();
        let (id, at) = (clock.next, clock.passed + limit);
        clock.next += 1;
        clock.alarms.push((at, id, who));
        Self(id)
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        clock().alarms.retain(|(_, id, _)| *id != self.0);
    }
}

/// Moves time on to the next time-out that anybody waits for, and ends that wait. False when
/// nobody waits for any.
pub fn pass_time() -> bool {
    point();
    let mut clock = clock();
    let next = clock.alarms.iter().enumerate();
    let Some(index) = next.min_by_key(|(_, a)| (a.0, a.1)).map(|(index, _)| index) else {
        return false;
    };
    let (at, _, who) = clock.alarms.remove(index);
    clock.passed = clock.passed.max(at);
    drop(clock);
    who.ring();
    true
}

/// How far time has come in this run.
pub fn passed() -> Duration {
    clock().passed
}

/// The time by which waits are measured.
pub fn now() -> Instant {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *START.get_or_init(Instant::now) + passed()
}

#[derive(Debug, Default)]
struct TaskAlarm {
    rang: AtomicBool,
    waker: std::sync::Mutex<Option<Waker>>,
}

impl Ring for TaskAlarm {
    fn ring(&self) {
        self.rang.store(true, Ordering::SeqCst);
        let waker = self
            .waker
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// What `future` gives, or `None` when it gives nothing within `limit`.
pub async fn timeout<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    let mut future = Box::pin(future);
    let task = Arc::new(TaskAlarm::default());
    let _alarm = Alarm::set(limit, Arc::clone(&task) as Arc<dyn Ring>);
    std::future::poll_fn(move |context: &mut Context<'_>| {
        if let Poll::Ready(value) = Pin::as_mut(&mut future).poll(context) {
            return Poll::Ready(Some(value));
        }
        let mut waker = task.waker.lock().unwrap_or_else(PoisonError::into_inner);
        *waker = Some(context.waker().clone());
        match task.rang.load(Ordering::SeqCst) {
            true => Poll::Ready(None),
            false => Poll::Pending,
        }
    })
    .await
}
