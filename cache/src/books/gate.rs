//! The lock, the waiting, and the order of it all.

use std::sync::{Arc, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use plimsoll_events::EvictReason;

use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Condvar, Mutex, MutexGuard};

use super::account::Account;
use super::admission::{Admission, Ask, Denied, Look, Wait};
use super::choice::Choice;
use super::claims::{Claims, Job, Progress};
use super::entry::Seat;
use super::holder::Holder;
use super::leaving::Leaving;
use super::pins::Left;
use super::{Books, Io, Rules};
use crate::policy::Policy;

/// Held memory is let go by whoever drops a tensor, inside the allocator, where nobody can be
/// notified. Who waits while some is held looks again this often.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The books with their lock, and what is done outside of it.
pub(crate) struct Gate<I: Io> {
    pub(crate) io: I,
    pub(crate) rules: Rules,
    pub(super) policy: Box<dyn Policy>,
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
        let wakers = std::mem::take(&mut books.wakers);
        drop(books);
        self.changed.notify_all();
        wakers.into_iter().for_each(Waker::wake);
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

    /// Has tasks woken after a while even if nothing happens: by a thread that sleeps for all.
    pub(crate) fn wake_after(self: &Arc<Self>, books: &mut Books<I>, limit: Option<Duration>) {
        let any_held = books.accounts.iter().any(Account::any_held);
        let Some(limit) = limit.or(any_held.then_some(LOOK_AGAIN)) else {
            return;
        };
        let limit = if any_held {
            limit.min(LOOK_AGAIN)
        } else {
            limit
        };
        if std::mem::replace(&mut books.alarm, true) {
            return;
        }
        let gate = Arc::downgrade(self);
        self.io.spawn(Box::new(move || {
            std::thread::sleep(limit);
            if let Some(gate) = gate.upgrade() {
                gate.books().alarm = false;
                gate.wake_tasks();
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

    /// Takes a pin back, and wakes those who wait for room.
    pub(crate) fn leave(self: &Arc<Self>, seat: &Seat<I::Model>) {
        match seat.slot().pins.leave() {
            Left::Others => {}
            Left::Empty => {
                if self.is_beyond() {
                    self.repair();
                }
                self.wake();
            }
            Left::Doomed => self.evict_doomed(seat),
        }
    }

    /// Gives back declared working memory.
    pub(crate) fn end_working(&self, working: &[u64]) {
        if working.iter().all(|bytes| *bytes == 0) {
            return;
        }
        let mut books = self.books();
        for (account, bytes) in books.accounts.iter_mut().zip(working) {
            account.working -= bytes;
        }
        self.changed(books);
    }

    /// Announces a waiter, for as long as the result lives. To be called before the last look at
    /// whatever is waited for.
    pub(super) fn waiting(&self) -> Waiting<'_> {
        self.waiters.fetch_add(1, Ordering::SeqCst);
        Waiting(&self.waiters)
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
        let _waiting = self.waiting();
        let in_a_hurry = matches!(wait, Wait::Never);
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
pub(crate) struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What a lease holds.
pub(crate) struct Grant<M> {
    /// Models, with whether each was there, or on its way, already.
    pub(crate) seats: Vec<(Seat<M>, bool)>,
    /// Declared working memory by tier.
    pub(crate) working: Vec<u64>,
}

/// A lease on its way, for threads that sleep and for tasks that are polled. Dropping it gives up.
pub(crate) struct Pending<I: Io> {
    gate: Arc<Gate<I>>,
    admission: Admission<I::Model>,
    holder: Option<Arc<Holder>>,
    /// Bytes for which pages of evictions are kept, in each tier.
    expected: Vec<u64>,
    queued: bool,
    claims: Option<Claims<I>>,
}

/// What to do next.
pub(crate) enum Step<I: Io> {
    /// To be finished outside the lock.
    Done(Result<(), Denied<I::Error>>),
    /// Evictions, then look again.
    Work(Work<I>),
    /// Loads, then look again; at once if they are done elsewhere.
    Load(Job<I>),
    /// Nothing: wait until something changes, or for so long.
    Sleep {
        limit: Option<Duration>,
        /// For other leases to end, and not for what is under way.
        for_room: bool,
    },
}

/// Evictions for a lease, with their doors shut already.
pub(crate) struct Work<I: Io> {
    gate: Arc<Gate<I>>,
    leaving: Vec<(Leaving<I>, EvictReason, Choice)>,
    expect: Vec<(usize, u64)>,
    unexpect: Vec<(usize, u64)>,
}

impl<I: Io> Work<I> {
    pub(crate) fn run(self) {
        for (tier, bytes) in self.expect {
            self.gate.io.expect(tier, bytes);
        }
        for (leaving, reason, choice) in self.leaving {
            leaving.evict(&reason, &choice);
        }
        for (tier, bytes) in self.unexpect {
            self.gate.io.unexpect(tier, bytes);
        }
    }
}

impl<I: Io> Pending<I> {
    pub(crate) fn new(
        gate: &Arc<Gate<I>>,
        asks: Vec<Ask<I::Model>>,
        holder: Option<Arc<Holder>>,
    ) -> Pending<I> {
        let now_ns = gate.io.now_ns();
        let mut books = gate.books();
        let ticket = books.enqueue(holder.clone());
        let tiers = books.accounts.len();
        drop(books);
        Pending {
            gate: Arc::clone(gate),
            admission: Admission::new(asks, ticket, now_ns),
            holder,
            expected: vec![0; tiers],
            queued: true,
            claims: None,
        }
    }

    /// Asks once more, maybe for something else, in the place in the queue that it had.
    pub(crate) fn ask_again(&mut self, asks: Vec<Ask<I::Model>>) {
        drop(self.claims.take());
        self.admission.asks = asks;
        let mut books = self.gate.books();
        books.dequeue(self.admission.ticket);
        books.requeue(self.admission.ticket, self.holder.clone());
        self.queued = true;
        if self.expected.is_empty() {
            self.expected = vec![0; books.accounts.len()];
        }
    }

    /// The next step. Called under the lock, so that nothing is missed between it and a sleep.
    pub(crate) fn step(&mut self, books: &mut Books<I>, in_a_hurry: bool) -> Step<I> {
        if let Some(claims) = &self.claims {
            return match claims.progress() {
                Progress::Whole => Step::Done(Ok(())),
                Progress::Failed(error) => Step::Done(Err(Denied::Load(error))),
                Progress::AskAgain => Step::Done(Err(Denied::Retired)),
                Progress::Loading => Step::Sleep {
                    limit: None,
                    for_room: false,
                },
            };
        }
        let now_ns = self.gate.io.now_ns();
        let gate = Arc::clone(&self.gate);
        match books.look(
            &mut self.admission,
            &gate.rules,
            gate.policy.as_ref(),
            now_ns,
            in_a_hurry,
        ) {
            Look::Denied(denied) => Step::Done(Err(denied)),
            Look::Granted(granted) => {
                books.give_up(&mut self.admission);
                self.queued = false;
                // The next in the queue looks, once this lock is free.
                self.gate.changed.notify_all();
                std::mem::take(&mut books.wakers)
                    .into_iter()
                    .for_each(Waker::wake);
                let loads = granted.loads(books.accounts.len());
                let (claims, job) = Claims::new(&gate, granted);
                self.claims = Some(claims);
                // Each load takes its own part of what is expected.
                let expected = std::mem::take(&mut self.expected);
                match job {
                    // All of it is there, or others load it.
                    None => self.step(books, in_a_hurry),
                    Some(mut job) => {
                        job.expect(&loads, &expected);
                        Step::Load(job)
                    }
                }
            }
            Look::Evict { leaving, expected } => {
                let ticket = Some(self.admission.ticket);
                let leaving = leaving
                    .into_iter()
                    .map(|(seat, reason, choice)| {
                        (Leaving::begin(&gate, books, seat, ticket), reason, choice)
                    })
                    .collect();
                let mut expect = Vec::new();
                for (tier, bytes) in expected.into_iter().enumerate() {
                    if bytes > self.expected[tier] {
                        expect.push((tier, bytes - self.expected[tier]));
                        self.expected[tier] = bytes;
                    }
                }
                Step::Work(Work {
                    gate,
                    leaving,
                    expect,
                    unexpect: Vec::new(),
                })
            }
            Look::Settle => Step::Sleep {
                limit: None,
                for_room: false,
            },
            Look::Wait { look_again_ns } => {
                if self.expected.iter().any(|bytes| *bytes > 0) {
                    // Nothing is kept while waiting, pages neither.
                    return Step::Work(self.expect_nothing());
                }
                self.wait(books, look_again_ns, now_ns)
            }
        }
    }

    fn wait(&self, books: &mut Books<I>, look_again_ns: Option<u64>, now_ns: u64) -> Step<I> {
        let mut until = look_again_ns;
        if let (Some(after), Some((since, pins))) =
            (self.gate.rules.deadlock_after_ns, books.stalled(now_ns))
        {
            let at = since.saturating_add(after);
            if now_ns >= at && books.gives_way(self.admission.ticket) {
                let (tier, asked) = books.shortage(&self.admission.asks, &self.gate.rules);
                return Step::Done(Err(if pins > 0 {
                    Denied::Deadlock { tier, asked }
                } else {
                    // Nobody is in the way: it is a budget that shrank.
                    Denied::Exceeds { tier, asked }
                }));
            }
            if now_ns < at {
                until = Some(until.map_or(at, |until| until.min(at)));
            }
        }
        Step::Sleep {
            limit: until.map(|until| Duration::from_nanos(until.saturating_sub(now_ns).max(1))),
            for_room: true,
        }
    }

    fn expect_nothing(&mut self) -> Work<I> {
        let expected = self.expected.iter_mut().enumerate();
        let unexpect = expected
            .map(|(tier, bytes)| (tier, std::mem::take(bytes)))
            .filter(|(_, bytes)| *bytes > 0)
            .collect();
        Work {
            gate: Arc::clone(&self.gate),
            leaving: Vec::new(),
            expect: Vec::new(),
            unexpect,
        }
    }

    /// Has this task woken at the next change.
    pub(crate) fn wake_by(&self, books: &mut Books<I>, waker: &Waker) {
        books.wakers.push(waker.clone());
    }

    /// Ends it, outside the lock, with what the last step said.
    pub(crate) fn finish(
        &mut self,
        done: Result<(), Denied<I::Error>>,
    ) -> Result<Grant<I::Model>, Denied<I::Error>> {
        let claims = self.claims.take();
        done?;
        let Some(claims) = claims else {
            return Err(Denied::Retired);
        };
        let grant = claims.keep();
        if let Some(holder) = &self.holder {
            holder.holds(grant.seats.len());
        }
        Ok(grant)
    }

    /// The refusal, with what it is short of.
    pub(crate) fn refuse(
        &self,
        why: impl FnOnce(usize, u64) -> Denied<I::Error>,
    ) -> Denied<I::Error> {
        let books = self.gate.books();
        let (tier, asked) = books.shortage(&self.admission.asks, &self.gate.rules);
        drop(books);
        why(tier, asked)
    }
}

impl<I: Io> Drop for Pending<I> {
    fn drop(&mut self) {
        self.expect_nothing().run();
        if self.queued {
            let mut books = self.gate.books();
            books.give_up(&mut self.admission);
            self.gate.changed(books);
        }
    }
}
