//! A lease on its way.

use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use plimsoll_events::EvictReason;

use super::admission::{Admission, Ask, Denied, Look};
use super::choice::Choice;
use super::claims::{Claims, Progress};
use super::entry::Seat;
use super::gate::Gate;
use super::holder::Holder;
use super::job::Job;
use super::leaving::Leaving;
use super::plan::Reserved;
use super::{Books, Io};

/// What a lease holds.
pub(crate) struct Grant<M> {
    /// Models, with whether each was there, or on its way, already.
    pub(crate) seats: Vec<(Seat<M>, bool)>,
    /// What it keeps besides.
    pub(crate) reserved: Reserved,
    /// The seat of each ask, by its position.
    pub(crate) asked: Vec<usize>,
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
    /// Tasks that may go on. Never woken under the lock: they may take it.
    wakers: Vec<Waker>,
}

impl<I: Io> Work<I> {
    /// Whether it wakes tasks and no more.
    pub(crate) fn is_light(&self) -> bool {
        self.leaving.is_empty() && self.unexpect.is_empty()
    }

    /// Announces the loads that the evictions are for, outside the lock and before they are handed
    /// to another thread: who gives up takes it back, and that has to come after.
    pub(crate) fn announce(&mut self) {
        for (tier, bytes) in self.expect.drain(..) {
            self.gate.io.expect(tier, bytes);
        }
    }

    pub(crate) fn run(mut self) {
        self.announce();
        self.wakers.into_iter().for_each(Waker::wake);
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
        gate.announce();
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
                let wakers = self.gate.notify(books);
                let loads = granted.loads(books.accounts.len());
                let (claims, job) = Claims::new(&gate, granted);
                self.claims = Some(claims);
                match job {
                    // All of it is there, or others load it.
                    None => {
                        let mut work = self.expect_nothing();
                        work.wakers = wakers;
                        Step::Work(work)
                    }
                    Some(mut job) => {
                        // Each load takes its own part of what is expected.
                        let expected = std::mem::take(&mut self.expected);
                        job.prepare(&loads, &expected, wakers);
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
                    wakers: Vec::new(),
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
            wakers: Vec::new(),
        }
    }

    /// Has this task woken at the next change. Returns the waker that this one replaces, to be
    /// dropped outside the lock.
    #[must_use = "what a waker drops may take the lock"]
    pub(crate) fn wake_by(&self, books: &mut Books<I>, waker: &Waker) -> Option<Waker> {
        books.wakers.insert(self.admission.ticket, waker.clone())
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
        let mut books = self.gate.books();
        let waker = books.wakers.remove(&self.admission.ticket);
        if self.queued {
            books.give_up(&mut self.admission);
            self.gate.changed(books);
        } else {
            drop(books);
        }
        // What a waker drops may take the lock.
        drop(waker);
        self.gate.renounce();
    }
}
