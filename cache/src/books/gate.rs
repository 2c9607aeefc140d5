//! The lock, the waiting, and the order of it all.

use std::sync::{Arc, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Condvar, Mutex, MutexGuard};

use super::account::{Account, Remains};
use super::admission::{Denied, Wait};
use super::entry::Seat;
use super::pending::{Grant, Pending, Step};
use super::pins::Left;
use super::plan::Reserved;
use super::{Books, Io, Rules};
use crate::policy::Policy;

/// Held memory is let go by whoever drops a tensor, inside the allocator, where nobody can be
/// notified. Who waits while some is held looks again this often.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The books with their lock, and what is done outside of it.
pub(crate) struct Gate<I: Io> {
    pub(crate) io: I,
    pub(crate) rules: Rules,
    pub(crate) policy: Box<dyn Policy>,
    books: Mutex<Books<I>>,
    changed: Condvar,
    waiters: AtomicUsize,
    /// Something counts beyond a budget.
    beyond: AtomicBool,
    tiers: usize,
}

impl<I: Io> Gate<I> {
    pub(crate) fn new(
        io: I,
        rules: Rules,
        policy: Box<dyn Policy>,
        accounts: Vec<Account<I::Model>>,
    ) -> Arc<Gate<I>> {
        Arc::new(Gate {
            tiers: accounts.len(),
            beyond: AtomicBool::new(false),
            io,
            rules,
            policy,
            books: Mutex::new(Books::new(accounts)),
            changed: Condvar::new(),
            waiters: AtomicUsize::new(0),
        })
    }

    pub(crate) fn books(&self) -> MutexGuard<'_, Books<I>> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a change of the books: whoever waits looks again.
    pub(super) fn changed(&self, mut books: MutexGuard<'_, Books<I>>) {
        let wakers = self.notify(&mut books);
        drop(books);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Whoever waits looks again, once this lock is free; tasks, once they are woken.
    #[must_use]
    pub(super) fn notify(&self, books: &mut Books<I>) -> Vec<Waker> {
        self.changed.notify_all();
        let wakers = std::mem::take(&mut books.wakers);
        wakers.into_values().collect()
    }

    /// Wakes whoever waits, if anyone does. The lock is taken so that none is between its look and
    /// its sleep.
    pub(crate) fn wake(&self) {
        if self.waiters.load(Ordering::SeqCst) > 0 {
            self.changed(self.books());
        }
    }

    /// Wakes tasks, and whoever else waits.
    pub(crate) fn wake_tasks(&self) {
        self.changed(self.books());
    }

    /// Has tasks woken after a while even if nothing happens: by a thread that sleeps for all. Takes
    /// the lock with it, since where no thread can be had the sleep is done here.
    pub(crate) fn wake_after(
        self: &Arc<Self>,
        mut books: MutexGuard<'_, Books<I>>,
        limit: Option<Duration>,
    ) {
        let any_held = books.accounts.iter().any(Account::any_held);
        let look_again = any_held.then_some(LOOK_AGAIN);
        let limits = limit.into_iter().chain(look_again);
        let Some(at) = limits.min().map(|limit| Instant::now() + limit) else {
            return;
        };
        if books.alarm.is_some_and(|alarm| alarm <= at) {
            return;
        }
        books.alarm = Some(at);
        drop(books);
        let gate = Arc::downgrade(self);
        self.io.spawn(Box::new(move || {
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            if let Some(gate) = gate.upgrade() {
                let mut books = gate.books();
                // An earlier one may have been set since.
                if books.alarm == Some(at) {
                    books.alarm = None;
                }
                gate.changed(books);
            }
        }));
    }

    pub(super) fn note_beyond(&self, beyond: bool) {
        self.beyond.store(beyond, Ordering::SeqCst);
    }

    /// Whether something counts beyond a budget.
    pub(super) fn is_beyond(&self) -> bool {
        self.beyond.load(Ordering::SeqCst)
    }

    /// How many tiers there are.
    pub(super) fn tiers(&self) -> usize {
        self.tiers
    }

    /// Takes pins back with what was reserved with them, and wakes those who wait for
    /// room. All of it is given back before anything is evicted, which may panic.
    pub(crate) fn leave<'a>(
        self: &Arc<Self>,
        seats: impl Iterator<Item = &'a Seat<I::Model>>,
        reserved: &Reserved,
    ) {
        let mut any_empty = false;
        let mut doomed = Vec::new();
        for seat in seats {
            match seat.slot().pins.leave() {
                Left::Others => {}
                Left::Empty => any_empty = true,
                Left::Doomed => doomed.push(seat),
            }
        }
        self.end_reserved(reserved);
        self.evict_doomed(doomed);
        if any_empty {
            if self.is_beyond() {
                self.repair();
            }
            self.wake();
        }
    }

    /// Gives back what a lease has kept besides models.
    pub(crate) fn end_reserved(&self, reserved: &Reserved) {
        if reserved.is_nothing() {
            return;
        }
        let mut books = self.books();
        for account in &mut books.accounts {
            account.end_besides(reserved);
        }
        self.changed(books);
    }

    /// Gives back a pool, and goes on counting what somebody still holds of what was in it.
    pub(crate) fn end_pool(&self, tier: usize, held: Vec<Box<dyn Remains>>, reserved: &Reserved) {
        let now_ns = self.io.now_ns();
        let mut books = self.books();
        for remains in held.into_iter().filter(|remains| !remains.is_gone()) {
            books.accounts[tier].hold(remains, None, now_ns);
        }
        for account in &mut books.accounts {
            account.end_besides(reserved);
        }
        self.changed(books);
    }

    /// Announces a waiter, a thread or a task. To be called before the last look at whatever is
    /// waited for.
    pub(super) fn announce(&self) {
        self.waiters.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn renounce(&self) {
        self.waiters.fetch_sub(1, Ordering::SeqCst);
    }

    /// Announces a waiter for as long as the result lives.
    pub(super) fn waiting(&self) -> Waiting<'_, I> {
        self.announce();
        Waiting(self)
    }

    /// Sleeps until something changed, or for so long.
    pub(super) fn sleep<'a>(
        &self,
        books: MutexGuard<'a, Books<I>>,
        limit: Option<Duration>,
    ) -> MutexGuard<'a, Books<I>> {
        let any_held = books.accounts.iter().any(Account::any_held);
        let limit = if any_held {
            Some(limit.map_or(LOOK_AGAIN, |limit| limit.min(LOOK_AGAIN)))
        } else {
            limit
        };
        match limit {
            Some(limit) => {
                self.changed
                    .wait_timeout(books, limit)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
            None => self
                .changed
                .wait(books)
                .unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Leases: waits for room and for loads, on this thread.
    pub(crate) fn lease(
        self: &Arc<Self>,
        pending: &mut Pending<I>,
        wait: Wait,
    ) -> Result<Grant<I::Model>, Denied<I::Error>> {
        self.lease_if(pending, wait, matches!(wait, Wait::Never))
    }

    /// The same, but refuses at once, if it is in a hurry, where it would have to wait for room:
    /// loads may take as long as it may wait.
    pub(crate) fn lease_if(
        self: &Arc<Self>,
        pending: &mut Pending<I>,
        wait: Wait,
        in_a_hurry: bool,
    ) -> Result<Grant<I::Model>, Denied<I::Error>> {
        loop {
            let mut books = self.books();
            let limit = match pending.step(&mut books, in_a_hurry) {
                Step::Done(done) => {
                    drop(books);
                    return pending.finish(done);
                }
                Step::Work(work) => {
                    drop(books);
                    work.run();
                    continue;
                }
                Step::Load(job) => {
                    drop(books);
                    // Who may give up must not be caught in a transfer that is stuck.
                    match wait {
                        Wait::Until { .. } => self.io.spawn(Box::new(|| job.run())),
                        Wait::Never | Wait::Forever => job.run(),
                    }
                    continue;
                }
                Step::Sleep { limit, for_room } => {
                    if for_room && in_a_hurry {
                        drop(books);
                        return Err(pending.refuse(|tier, asked| Denied::NoRoom { tier, asked }));
                    }
                    limit
                }
            };
            let left = wait
                .deadline()
                .map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                drop(books);
                return Err(pending.refuse(|tier, asked| Denied::Timeout { tier, asked }));
            }
            let limit = match (limit, left) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            drop(self.sleep(books, limit));
        }
    }
}

/// A waiter, announced.
pub(super) struct Waiting<'a, I: Io>(&'a Gate<I>);

impl<I: Io> Drop for Waiting<'_, I> {
    fn drop(&mut self) {
        self.0.renounce();
    }
}
