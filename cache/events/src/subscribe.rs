//! Hearing a stream from inside the process, without ever slowing it down.
//!
//! What a [`Subscription`] guarantees:
//!
//! - **Telling never waits.** A subscriber has a queue with room for so many events. If it is full,
//!   the *new* event is dropped for this subscriber, and counted; the sink and other subscribers
//!   get it all the same. A subscriber that never reads costs at most its capacity.
//! - **A gap shows where it is.** [`Received::Dropped`] comes in order, between the last event
//!   before the gap and the first one after it, with the exact number.
//! - **One event, built once.** All subscribers share it.
//! - **The end is told.** When the last clone of the [`Stream`](crate::Stream) is gone, a
//!   subscriber still receives what it has not read, and then learns that no more will come.
//!   A subscription does not keep a stream, or its sink, alive.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::VERSION;
use crate::event::{Event, Kind, Sink};

/// What a subscriber receives.
#[derive(Debug, Clone, PartialEq)]
pub enum Received {
    /// The next event.
    Event(Arc<Event>),
    /// So many events were dropped here, because the queue was full.
    Dropped(u64),
}

/// Why nothing was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecvError {
    /// There is nothing yet, or nothing came in time.
    #[error("no event yet")]
    Empty,
    /// The stream is gone, and everything was received.
    #[error("the stream has ended")]
    Closed,
}

/// Hears a stream. Dropping it unsubscribes. Where threads share one, each event goes to one of
/// them.
pub struct Subscription {
    hearers: Arc<Hearers>,
    queue: Arc<Queue>,
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.queue.waiting();
        f.debug_struct("Subscription")
            .field("capacity", &self.queue.capacity)
            .field("waiting", &waiting.events.len())
            .field("dropped", &waiting.dropped)
            .finish_non_exhaustive()
    }
}

impl Subscription {
    /// Waits for what comes next; `None` once the stream is gone and everything was received.
    #[must_use]
    pub fn recv(&self) -> Option<Received> {
        self.queue.next(Wait::Forever).ok()
    }

    /// Waits for what comes next, for so long at most.
    ///
    /// # Errors
    /// [`RecvError::Empty`] if nothing came in time, [`RecvError::Closed`] if nothing will come.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Received, RecvError> {
        // A deadline beyond what the clock can name is none.
        self.queue.next(match Instant::now().checked_add(timeout) {
            Some(deadline) => Wait::Until(deadline),
            None => Wait::Forever,
        })
    }

    /// What comes next, if it is there.
    ///
    /// # Errors
    /// [`RecvError::Empty`] if it is not, [`RecvError::Closed`] if nothing will come.
    pub fn try_recv(&self) -> Result<Received, RecvError> {
        self.queue.next(Wait::Not)
    }

    /// Events dropped so far, in all, those included whose gap was not received yet.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.queue.waiting().dropped
    }

    /// Takes no more events; those that wait can still be received.
    pub(crate) fn close(&self) {
        self.queue.close();
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // Not under the lock of the stream: whoever leaves never waits for a slow sink. The empty
        // queue is forgotten at the next event or subscription.
        self.queue.leave();
        self.hearers.count.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Who hears a stream, and how far its numbers are. Apart from the stream, so that subscribers do
/// not keep it open.
pub(crate) struct Hearers {
    started: Instant,
    /// Subscriptions that were not dropped.
    count: AtomicUsize,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    next_seq: u64,
    queues: Vec<Arc<Queue>>,
    over: bool,
}

/// A place in a stream: the events told before it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// The number of the last event told, 0 before the first.
    pub(crate) last_seq: u64,
    /// Microseconds since the stream began.
    pub(crate) at_us: u64,
}

impl Default for Hearers {
    fn default() -> Self {
        Hearers {
            started: Instant::now(),
            count: AtomicUsize::new(0),
            told: Mutex::default(),
        }
    }
}

impl Hearers {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn at_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn moment(&self, told: &Told) -> Moment {
        Moment {
            last_seq: told.next_seq.saturating_sub(1),
            at_us: self.at_us(),
        }
    }

    /// Where the stream is.
    pub(crate) fn now(&self) -> Moment {
        self.moment(&self.told())
    }

    /// The number that the next event gets.
    pub(crate) fn next_seq(&self) -> u64 {
        self.told().next_seq
    }

    /// Whether there is a subscription.
    pub(crate) fn any(&self) -> bool {
        self.count.load(Ordering::SeqCst) > 0
    }

    pub(crate) fn tell(&self, kind: Kind, sink: Option<&dyn Sink>) {
        let mut told = self.told();
        let event = Event {
            v: VERSION,
            seq: told.next_seq,
            at_us: self.at_us(),
            kind,
        };
        told.next_seq += 1;
        // Subscribers first, so that a sink that panics takes no event from them.
        if told.queues.is_empty() {
            if let Some(sink) = sink {
                sink.event(&event);
            }
        } else {
            let event = Arc::new(event);
            told.queues.retain(|queue| queue.push(&event));
            if let Some(sink) = sink {
                sink.event(&event);
            }
        }
    }

    /// Subscribes; `wake` is called, on the thread that tells, whenever there is something to
    /// receive. The moment is the one from which on events are received.
    pub(crate) fn subscribe(
        self: &Arc<Self>,
        capacity: usize,
        wake: Option<Box<dyn Fn() + Send + Sync>>,
    ) -> (Subscription, Moment) {
        let queue = Arc::new(Queue {
            capacity: capacity.max(1),
            waiting: Mutex::default(),
            came: Condvar::new(),
            wake,
        });
        let mut told = self.told();
        told.queues.retain(|queue| !queue.waiting().left);
        if told.over {
            queue.close();
        } else {
            told.queues.push(Arc::clone(&queue));
        }
        self.count.fetch_add(1, Ordering::SeqCst);
        let moment = self.moment(&told);
        drop(told);
        let subscription = Subscription {
            hearers: Arc::clone(self),
            queue,
        };
        (subscription, moment)
    }

    /// The stream is gone.
    pub(crate) fn close(&self) {
        let mut told = self.told();
        told.over = true;
        for queue in told.queues.drain(..) {
            queue.close();
        }
    }
}

/// How long to wait for an event.
#[derive(Clone, Copy)]
enum Wait {
    Not,
    Until(Instant),
    Forever,
}

struct Queue {
    capacity: usize,
    waiting: Mutex<Waiting>,
    came: Condvar,
    wake: Option<Box<dyn Fn() + Send + Sync>>,
}

#[derive(Default)]
struct Waiting {
    /// Events, each with the number of those dropped just before it: gaps take no room.
    events: VecDeque<(u64, Arc<Event>)>,
    /// Dropped since the last of `events`.
    gap: u64,
    /// Dropped in all.
    dropped: u64,
    closed: bool,
    left: bool,
}

impl Waiting {
    fn take(&mut self) -> Option<Received> {
        let gap = match self.events.front_mut() {
            Some((gap, _)) => gap,
            None => &mut self.gap,
        };
        match std::mem::take(gap) {
            0 => {
                let (_, event) = self.events.pop_front()?;
                Some(Received::Event(event))
            }
            dropped => Some(Received::Dropped(dropped)),
        }
    }
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the subscriber is still there.
    fn push(&self, event: &Arc<Event>) -> bool {
        let mut waiting = self.waiting();
        if waiting.left || waiting.closed {
            return false;
        }
        if waiting.events.len() < self.capacity {
            let gap = std::mem::take(&mut waiting.gap);
            waiting.events.push_back((gap, Arc::clone(event)));
        } else {
            waiting.gap += 1;
            waiting.dropped += 1;
        }
        drop(waiting);
        self.came.notify_one();
        self.wake();
        true
    }

    fn wake(&self) {
        if let Some(wake) = &self.wake {
            wake();
        }
    }

    fn close(&self) {
        self.waiting().closed = true;
        self.came.notify_all();
        self.wake();
    }

    fn leave(&self) {
        let events = {
            let mut waiting = self.waiting();
            waiting.left = true;
            std::mem::take(&mut waiting.events)
        };
        drop(events);
    }

    fn next(&self, wait: Wait) -> Result<Received, RecvError> {
        let mut waiting = self.waiting();
        loop {
            if let Some(received) = waiting.take() {
                return Ok(received);
            }
            if waiting.closed {
                return Err(RecvError::Closed);
            }
            waiting = match wait {
                Wait::Not => return Err(RecvError::Empty),
                Wait::Forever => self
                    .came
                    .wait(waiting)
                    .unwrap_or_else(PoisonError::into_inner),
                Wait::Until(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(RecvError::Empty);
                    }
                    self.came
                        .wait_timeout(waiting, left)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
        }
    }
}
