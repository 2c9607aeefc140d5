//! Leases for tasks, whatever runtime polls them.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use super::Shared;
use super::hands::Hands;
use super::items::Item;
use super::wanted::Wanted;
use crate::books::{Io, Pending, Step, Wait};
use crate::error::{Error, LoadError};
use crate::lease::Lease;

/// A lease on its way. Dropping it gives up: what was reserved is given back, and a load that has
/// begun goes on for whoever else wants it.
#[must_use = "futures do nothing unless they are awaited"]
pub struct LeaseFuture {
    shared: Arc<Shared>,
    state: State,
}

enum State {
    /// Found at once, or refused at once.
    Ready(Option<Result<Lease, Error>>),
    Waiting {
        items: Vec<Item>,
        pending: Option<Pending<Hands>>,
        /// Set while evictions and loads for it are done elsewhere.
        busy: Arc<AtomicBool>,
        /// A lease that is brought the rest of what it can have, once that is done.
        settled: Option<Settled>,
    },
}

/// Where a lease is put that another thread has completed.
type Settled = Arc<Mutex<Option<Result<Lease, Error>>>>;

impl std::fmt::Debug for LeaseFuture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeaseFuture").finish_non_exhaustive()
    }
}

impl LeaseFuture {
    pub(super) fn new(shared: Arc<Shared>, wanted: &[Wanted<'_>]) -> LeaseFuture {
        let state = match shared.hit(wanted) {
            // A task may go on on another thread than the one it began on.
            Some(lease) => State::Ready(Some(Ok(lease.of_nobody()))),
            None => match shared.items(wanted) {
                Err(error) => State::Ready(Some(Err(error))),
                Ok(items) => State::Waiting {
                    items,
                    pending: None,
                    busy: Arc::default(),
                    settled: None,
                },
            },
        };
        LeaseFuture { shared, state }
    }
}

impl Future for LeaseFuture {
    type Output = Result<Lease, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = self.look(context);
        if polled.is_ready() {
            // It may live on, and must not keep its place in the queue meanwhile.
            self.state = State::Ready(None);
        }
        polled
    }
}

impl LeaseFuture {
    fn look(&mut self, context: &mut Context<'_>) -> Poll<Result<Lease, Error>> {
        let (items, pending, busy, settled) = match &mut self.state {
            State::Ready(result) => {
                let polled_again = Err(Error::NoModel);
                return Poll::Ready(result.take().unwrap_or(polled_again));
            }
            State::Waiting {
                items,
                pending,
                busy,
                settled,
            } => (items, pending, busy, settled),
        };
        let shared = &self.shared;
        loop {
            let one = match pending {
                Some(one) => one,
                None => {
                    shared.prepare(items)?;
                    let asks = shared.asks(items);
                    pending.insert(Pending::new(&shared.gate, asks, None))
                }
            };
            let mut books = shared.gate.books();
            if busy.load(Ordering::Acquire) {
                let replaced = one.wake_by(&mut books, context.waker());
                drop((books, replaced));
                return Poll::Pending;
            }
            if let Some(settled) = settled {
                // Without an answer, a panic has ended it.
                let abandoned = || {
                    let model = items.first().map_or("", |item| item.name()).to_owned();
                    Err(LoadError::Abandoned { model }.into())
                };
                return Poll::Ready(lock(settled).take().unwrap_or_else(abandoned));
            }
            // What can do with less does not wait for more.
            let in_a_hurry = items.iter().any(Item::is_trying);
            let work = match one.step(&mut books, in_a_hurry) {
                Step::Done(done) => {
                    drop(books);
                    match one.finish(done) {
                        Ok(grant) => {
                            let lease = shared.hand_out(items, grant, None);
                            if !lease.is_partial() {
                                return Poll::Ready(Ok(lease));
                            }
                            busy.store(true, Ordering::Release);
                            let mut books = shared.gate.books();
                            let replaced = one.wake_by(&mut books, context.waker());
                            drop((books, replaced));
                            let done = Done {
                                busy: Arc::clone(busy),
                                shared: Arc::clone(shared),
                            };
                            let settled = Arc::clone(settled.get_or_insert_default());
                            shared.gate.io.spawn(Box::new(move || {
                                let _done = done;
                                let result = lease.settle_in(Wait::Forever).map(|()| lease);
                                let mut settled = lock(&settled);
                                *settled = Some(result);
                            }));
                            return Poll::Pending;
                        }
                        Err(denied) => shared.after(denied, items, Wait::Forever)?,
                    }
                    shared.prepare(items)?;
                    one.ask_again(shared.asks(items));
                    continue;
                }
                Step::Sleep { for_room: true, .. } if in_a_hurry => {
                    drop(books);
                    shared.try_next(items)?;
                    shared.prepare(items)?;
                    one.ask_again(shared.asks(items));
                    continue;
                }
                Step::Sleep { limit, .. } => {
                    let _replaced = one.wake_by(&mut books, context.waker());
                    shared.gate.wake_after(books, limit);
                    return Poll::Pending;
                }
                Step::Work(work) if work.is_light() => {
                    drop(books);
                    work.run();
                    continue;
                }
                Step::Work(work) => Ok(work),
                Step::Load(job) => Err(job),
            };
            busy.store(true, Ordering::Release);
            let replaced = one.wake_by(&mut books, context.waker());
            drop((books, replaced));
            let work: Box<dyn FnOnce() + Send> = match work {
                Ok(mut work) => {
                    work.announce();
                    Box::new(move || work.run())
                }
                Err(job) => Box::new(move || job.run()),
            };
            let done = Done {
                busy: Arc::clone(busy),
                shared: Arc::clone(shared),
            };
            shared.gate.io.spawn(Box::new(move || {
                let _done = done;
                work();
            }));
            return Poll::Pending;
        }
    }
}

fn lock(settled: &Settled) -> MutexGuard<'_, Option<Result<Lease, Error>>> {
    settled.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has the task looked at again once its work is done, however that ended.
struct Done {
    busy: Arc<AtomicBool>,
    shared: Arc<Shared>,
}

impl Drop for Done {
    fn drop(&mut self) {
        self.busy.store(false, Ordering::Release);
        self.shared.gate.wake_tasks();
    }
}
