//! What an admitted lease has claimed, and loads until they end.

use std::mem::ManuallyDrop;
use std::sync::Arc;

use plimsoll_events::EvictReason;

use super::choice::Choice;
use super::entry::{Named, Seat};
use super::gate::Gate;
use super::job::Job;
use super::leaving::Leaving;
use super::loading::{Loading, Outcome};
use super::pending::Grant;
use super::pins::Left;
use super::plan::Reserved;
use super::{Books, Fault, Io};
use crate::residency::{Input, Phase};

/// How a model comes into a tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// From its files, straight into the tier's memory.
    File,
    /// From the copy in RAM.
    Ram,
    /// From the copy in RAM of the model that it is a part of.
    Whole,
    /// From its files, through a staging buffer of so many bytes.
    Stream { staging: u64 },
}

/// A load to be done.
pub(crate) struct Task<I: Io> {
    pub(crate) seat: Seat<I::Model>,
    pub(crate) route: Route,
    pub(crate) loading: Arc<Loading<I::Error>>,
}

/// A model that is pinned, or will be once its load has ended.
pub(super) struct Claim<I: Io> {
    pub(super) seat: Seat<I::Model>,
    pub(super) loading: Option<Arc<Loading<I::Error>>>,
    /// Whether that load is this lease's own.
    pub(super) is_own: bool,
}

/// What a lease was granted, still to be made safe in a [`Claims`] and a [`Job`].
pub(super) struct Granted<I: Io> {
    pub(super) held: Vec<Claim<I>>,
    pub(super) sources: Vec<Claim<I>>,
    pub(super) tasks: Vec<Task<I>>,
    pub(super) staging: u64,
    pub(super) reserved: Reserved,
    /// The one of `held` for each ask, by its position.
    pub(super) asked: Vec<usize>,
}

impl<I: Io> Granted<I> {
    /// The bytes that will be loaded into each tier.
    pub(super) fn loads(&self, tiers: usize) -> Vec<u64> {
        let mut bytes = vec![0; tiers];
        for task in &self.tasks {
            bytes[task.seat.tier] += task.seat.charge();
        }
        bytes
    }
}

impl<I: Io> Books<I> {
    /// Takes back a claim. Once its load has succeeded it is a pin. Returns whether the caller has
    /// to evict the model, which was dropped and has nobody left.
    fn unclaim(&mut self, claim: &Claim<I>) -> Left {
        match claim.loading.as_ref().map(|loading| loading.outcome()) {
            None | Some(Some(Outcome::Loaded)) => claim.seat.slot().pins.leave(),
            Some(None) => {
                let stepped = self.step(&claim.seat, Input::Unclaim);
                debug_assert!(stepped.is_ok());
                Left::Others
            }
            Some(Some(Outcome::Failed(_) | Outcome::Withdrawn)) => Left::Others,
        }
    }

    pub(super) fn end(
        &mut self,
        seat: &Seat<I::Model>,
        loading: &Loading<I::Error>,
        outcome: Outcome<I::Error>,
    ) {
        let input = match outcome {
            Outcome::Loaded => Input::Loaded,
            Outcome::Failed(_) | Outcome::Withdrawn => Input::Failed,
        };
        if let (Phase::Loading { claims }, Outcome::Loaded) = (self.phase(seat), &outcome) {
            seat.slot().pins.open(claims);
            if seat.entry.is_retired() {
                // Dropped while it was being loaded: it is for those who have claimed it alone.
                seat.slot().pins.doom();
            }
        }
        let stepped = self.step(seat, input);
        debug_assert!(stepped.is_ok());
        self.end_load(seat);
        loading.finish(outcome);
    }
}

/// What an admitted lease has claimed. Dropping it lets go of all of it, however far the lease came
/// and whatever ended it.
pub(super) struct Claims<I: Io> {
    gate: Arc<Gate<I>>,
    held: Vec<Claim<I>>,
    reserved: Reserved,
    asked: Vec<usize>,
}

/// How far an admitted lease is.
pub(super) enum Progress<E> {
    Loading,
    Whole,
    Failed(E),
    /// Another lease withdrew a load that this one had joined.
    AskAgain,
}

impl<I: Io> Claims<I> {
    /// Makes what was granted safe: from here on every way out gives it back.
    pub(super) fn new(gate: &Arc<Gate<I>>, granted: Granted<I>) -> (Claims<I>, Option<Job<I>>) {
        let claims = Claims {
            gate: Arc::clone(gate),
            held: granted.held,
            reserved: granted.reserved,
            asked: granted.asked,
        };
        // This is called under the lock, which dropping a job takes.
        let job = (!granted.tasks.is_empty())
            .then(|| Job::new(gate, granted.tasks, granted.sources, granted.staging));
        (claims, job)
    }

    pub(super) fn progress(&self) -> Progress<I::Error> {
        let mut progress = Progress::Whole;
        for claim in &self.held {
            match claim.loading.as_ref().map(|loading| loading.outcome()) {
                None | Some(Some(Outcome::Loaded)) => {}
                Some(Some(Outcome::Failed(error))) => return Progress::Failed(error.clone()),
                Some(Some(Outcome::Withdrawn)) => progress = Progress::AskAgain,
                Some(None) => {
                    if matches!(progress, Progress::Whole) {
                        progress = Progress::Loading;
                    }
                }
            }
        }
        progress
    }

    /// The lease is whole: every claim is a pin, and all of it is the lease's from here on.
    pub(super) fn keep(mut self) -> Grant<I::Model> {
        let held = std::mem::take(&mut self.held);
        let held = held.into_iter();
        Grant {
            seats: held.map(|claim| (claim.seat, !claim.is_own)).collect(),
            reserved: std::mem::take(&mut self.reserved),
            asked: std::mem::take(&mut self.asked),
        }
    }
}

impl<I: Io> Drop for Claims<I> {
    fn drop(&mut self) {
        self.gate.end_reserved(&self.reserved);
        if !self.held.is_empty() {
            self.gate.let_go(&self.held);
        }
    }
}

impl<I: Io> Gate<I> {
    /// Lets go of claims.
    pub(super) fn let_go(self: &Arc<Self>, claims: &[Claim<I>]) {
        let mut books = self.books();
        let mut doomed = Vec::new();
        for claim in claims {
            if books.unclaim(claim) == Left::Doomed {
                doomed.push(&claim.seat);
            }
        }
        self.changed(books);
        self.evict_doomed(doomed);
        if self.is_beyond() {
            self.repair();
        }
    }

    /// Loads a model whose bytes are reserved. On success its door is open, with all who claimed it
    /// inside; on failure its bytes are given back and all of them get the error.
    pub(super) fn load(self: &Arc<Self>, task: &Task<I>) -> bool {
        let ended = Ended { gate: self, task };
        task.loading.begin();
        let (mut result, told) = self.io.load(task);
        let mut untold = vec![told];
        let refused = result.as_ref().err().and_then(Fault::wants_room);
        if let Some(bytes) = refused
            && self.evict_for(task.seat.tier, bytes)
        {
            // The first try has taken its part of what was expected.
            self.io.expect(task.seat.tier, task.seat.charge());
            let again = self.io.load(task);
            result = again.0;
            untold.push(again.1);
        }
        let succeeded = result.is_ok();
        ended.finish(match result {
            Ok(()) => Outcome::Loaded,
            Err(error) => Outcome::Failed(error),
        });
        // A listener is in no hurry, and may panic.
        untold.into_iter().for_each(|told| self.io.tell(told));
        succeeded
    }

    /// Evicts what is not leased, since a device refused so many bytes that its budget had.
    fn evict_for(self: &Arc<Self>, tier: usize, bytes: u64) -> bool {
        let reason = EvictReason::DeviceFull { asked_bytes: bytes };
        self.free(tier, bytes, &reason) > 0
    }

    pub(super) fn join(&self, loading: &Loading<I::Error>) -> Outcome<I::Error> {
        let _waiting = self.waiting();
        let mut books = self.books();
        loop {
            if let Some(outcome) = loading.outcome() {
                return outcome.clone();
            }
            books = self.sleep(books, None);
        }
    }

    /// Evicts models that were dropped while they were leased, once nobody is left.
    pub(super) fn evict_doomed(self: &Arc<Self>, seats: Vec<&Seat<I::Model>>) {
        if seats.is_empty() {
            return;
        }
        // All of them are on their way before the first is told of, which may panic.
        let leaving: Vec<Leaving<I>> = {
            let mut books = self.books();
            let mut begin = |seat: &Seat<I::Model>| {
                let goes = books.phase(seat) == Phase::Resident && seat.slot().pins.close();
                goes.then(|| Leaving::begin(self, &mut books, seat.clone(), None))
            };
            seats.into_iter().filter_map(&mut begin).collect()
        };
        for one in leaving {
            one.evict(&EvictReason::Dropped, &Choice::default());
        }
    }
}

/// Sees to it that a load ends, even by a panic: nobody waits for ever, and no byte stays reserved.
struct Ended<'a, I: Io> {
    gate: &'a Arc<Gate<I>>,
    task: &'a Task<I>,
}

impl<I: Io> Ended<'_, I> {
    fn finish(self, outcome: Outcome<I::Error>) {
        // It ends once, also where what follows panics.
        ManuallyDrop::new(self).settle(outcome);
    }

    fn settle(&self, outcome: Outcome<I::Error>) {
        let seat = &self.task.seat;
        let mut books = self.gate.books();
        books.end(seat, &self.task.loading, outcome);
        self.gate.changed(books);
        // Where nobody has claimed it, nobody will leave either.
        if seat.slot().pins.count() == 0 {
            if seat.entry.is_retired() {
                self.gate.evict_doomed(vec![seat]);
            } else if self.gate.is_beyond() {
                self.gate.repair();
            }
        }
    }
}

impl<I: Io> Drop for Ended<'_, I> {
    fn drop(&mut self) {
        let error = I::Error::abandoned(self.task.seat.entry.model.name());
        self.settle(Outcome::Failed(error));
    }
}
