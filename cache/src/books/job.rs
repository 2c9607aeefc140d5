//! The loads that an admitted lease brings about, one after the other.

use std::sync::Arc;
use std::task::Waker;

use plimsoll_events::EvictReason;

use super::claims::{Claim, Route, Task};
use super::entry::Seat;
use super::gate::Gate;
use super::loading::Outcome;
use super::{Io, RAM};
use crate::residency::Phase;

/// Loads to be done, by whichever thread. Dropping it withdraws what has not begun.
pub(crate) struct Job<I: Io> {
    gate: Arc<Gate<I>>,
    /// RAM first.
    tasks: Vec<Task<I>>,
    /// Copies in RAM from which devices are loaded.
    sources: Vec<Claim<I>>,
    staging: u64,
    /// Bytes of these loads in each tier for which no pages are kept yet.
    more: Vec<u64>,
    /// Bytes for which pages are kept in each tier and that none of these loads will use.
    surplus: Vec<u64>,
    wakers: Vec<Waker>,
}

impl<I: Io> Job<I> {
    pub(super) fn new(
        gate: &Arc<Gate<I>>,
        tasks: Vec<Task<I>>,
        sources: Vec<Claim<I>>,
        staging: u64,
    ) -> Job<I> {
        Job {
            gate: Arc::clone(gate),
            tasks,
            sources,
            staging,
            more: Vec::new(),
            surplus: Vec::new(),
            wakers: Vec::new(),
        }
    }

    /// Has pages kept for exactly these loads, where so many bytes were expected before, and tasks
    /// woken before the first.
    pub(super) fn prepare(&mut self, loads: &[u64], expected: &[u64], wakers: Vec<Waker>) {
        self.wakers = wakers;
        let both = || loads.iter().zip(expected);
        let less = |(bytes, before): (&u64, &u64)| bytes.saturating_sub(*before);
        self.more = both().map(less).collect();
        self.surplus = both()
            .map(|(bytes, before)| less((before, bytes)))
            .collect();
    }

    /// Tells devices what to expect: not when it is granted, which is under the lock.
    fn announce(&mut self) {
        for (tier, bytes) in std::mem::take(&mut self.more).into_iter().enumerate() {
            if bytes > 0 {
                self.gate.io.expect(tier, bytes);
            }
        }
        for (tier, bytes) in std::mem::take(&mut self.surplus).into_iter().enumerate() {
            if bytes > 0 {
                self.gate.io.unexpect(tier, bytes);
            }
        }
    }

    /// Does all of it. A load that fails ends it; what was still to come is withdrawn, and so is
    /// what nobody waits for any more.
    pub(crate) fn run(mut self) {
        self.wakers.drain(..).for_each(Waker::wake);
        self.announce();
        while !self.tasks.is_empty() {
            if self.withdraw_unwanted() {
                continue;
            }
            if self.tasks[0].route == Route::Ram && !self.source_is_there() {
                return;
            }
            let task = self.tasks.remove(0);
            if !self.gate.load(&task) {
                return;
            }
            self.drop_source(&task);
        }
    }

    /// Withdraws the next task if nobody has claimed it, nor what is to be loaded from it.
    fn withdraw_unwanted(&mut self) -> bool {
        let mut books = self.gate.books();
        let seat = &self.tasks[0].seat;
        let sources = self.sources.iter().filter(|claim| claim.seat == *seat);
        let sources = sources.count();
        let claims = |seat: &Seat<I::Model>| match books.phase(seat) {
            Phase::Loading { claims } => claims as usize,
            _ => 0,
        };
        let mut loaded_from_it = self
            .tasks
            .iter()
            .filter(|task| task.route == Route::Ram && Arc::ptr_eq(&task.seat.entry, &seat.entry));
        if claims(seat) > sources
            || (seat.tier == RAM && loaded_from_it.any(|task| claims(&task.seat) > 0))
        {
            return false;
        }
        let task = self.tasks.remove(0);
        books.end(&task.seat, &task.loading, Outcome::Withdrawn);
        self.gate.changed(books);
        self.gate.io.unexpect(task.seat.tier, task.seat.charge());
        true
    }

    /// How a load ends that has not begun. Where the copy that it needed could not be loaded, be it
    /// for a panic, with that reason: withdrawn, it would be asked for again, and fail again, without
    /// end.
    fn why_not(&self, task: &Task<I>) -> Outcome<I::Error> {
        let mut sources = self.sources.iter();
        let source = sources.find(|claim| Arc::ptr_eq(&claim.seat.entry, &task.seat.entry));
        let loading = source.and_then(|claim| claim.loading.as_ref());
        match loading.and_then(|loading| loading.outcome()) {
            Some(Outcome::Failed(error)) if task.route == Route::Ram => {
                Outcome::Failed(error.clone())
            }
            _ => Outcome::Withdrawn,
        }
    }

    /// Waits for the copy in RAM that the next task needs. Without it the job ends: where that copy
    /// was withdrawn, whoever wants the model asks again, without it.
    fn source_is_there(&self) -> bool {
        let entry = &self.tasks[0].seat.entry;
        let mut sources = self.sources.iter();
        let Some(source) = sources.find(|claim| Arc::ptr_eq(&claim.seat.entry, entry)) else {
            return false;
        };
        match &source.loading {
            None => true,
            Some(loading) => match self.gate.join(loading) {
                Outcome::Loaded => true,
                Outcome::Withdrawn | Outcome::Failed(_) => false,
            },
        }
    }

    /// Once a device has a model, its copy in RAM goes where copies are not kept.
    fn drop_source(&mut self, task: &Task<I>) {
        let entry = &task.seat.entry;
        let is_source = |claim: &Claim<I>| Arc::ptr_eq(&claim.seat.entry, entry);
        if task.seat.tier == RAM || self.gate.rules.keep_ram_copy {
            return;
        }
        let needed = self
            .tasks
            .iter()
            .any(|other| Arc::ptr_eq(&other.seat.entry, entry));
        if let Some(at) = self.sources.iter().position(is_source)
            && !needed
        {
            let source = self.sources.remove(at);
            self.gate.let_go(std::slice::from_ref(&source));
            self.gate.evict_idle(&[source.seat], &EvictReason::NotKept);
        }
    }
}

impl<I: Io> Drop for Job<I> {
    fn drop(&mut self) {
        self.wakers.drain(..).for_each(Waker::wake);
        self.announce();
        for task in &self.tasks {
            self.gate.io.unexpect(task.seat.tier, task.seat.charge());
        }
        if !self.tasks.is_empty() {
            // All at once: whoever saw that one was withdrawn, and not yet that another failed,
            // would ask again.
            let mut books = self.gate.books();
            for task in &self.tasks {
                books.end(&task.seat, &task.loading, self.why_not(task));
            }
            self.gate.changed(books);
        }
        if self.staging > 0 {
            let mut books = self.gate.books();
            books.accounts[RAM].staging -= self.staging;
            books.accounts[RAM].used -= self.staging;
            self.gate.changed(books);
        }
        if !self.sources.is_empty() {
            self.gate.let_go(&self.sources);
        }
    }
}
