//! A lease's way in. All of its bytes are reserved before the first is read; a lease that waits
//! keeps nothing, and leases are admitted in the order in which they came.

use std::sync::Arc;
use std::time::{Duration, Instant};

use malloc_stats::size::Size;
use plimsoll_events::{EvictReason, Kind, Refuse, RefuseReason};

use super::entry::Entry;
use super::evict::Leaving;
use super::ledger::Ledger;
use super::loading::{Loading, Outcome};
use super::shared::Shared;
use crate::error::Error;
use crate::lease::Lease;
use crate::residency::{Input, Phase};
use crate::storage::Storage;

/// How long a lease may wait for room.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wait {
    Never,
    Forever,
    Until { started: Instant, timeout: Duration },
}

impl Wait {
    fn deadline(self) -> Option<Instant> {
        match self {
            Wait::Until { started, timeout } => started.checked_add(timeout),
            Wait::Never | Wait::Forever => None,
        }
    }

    fn is_over(self) -> bool {
        match self {
            Wait::Never => true,
            Wait::Forever => false,
            Wait::Until { .. } => self.deadline().is_some_and(|at| Instant::now() >= at),
        }
    }
}

/// What an admitted lease has claimed. Dropping it lets go of all of it, however far the lease came
/// and whatever ended it: an error, or a panic of an observer or a sink.
struct Claims<'a> {
    shared: &'a Shared,
    /// Pinned already.
    inside: Vec<Arc<Entry>>,
    /// Ours to load.
    to_load: Vec<(Arc<Entry>, Arc<Loading>)>,
    /// Being loaded by others, claimed.
    joined: Vec<(Arc<Entry>, Arc<Loading>)>,
}

impl Claims<'_> {
    /// The lease is whole: every claim is a pin, which from here on is the lease's.
    fn keep(mut self) {
        self.inside.clear();
        self.to_load.clear();
        self.joined.clear();
    }
}

impl Drop for Claims<'_> {
    fn drop(&mut self) {
        for entry in &self.inside {
            self.shared.leave(entry);
        }
        for (entry, loading) in &self.to_load {
            match loading.outcome() {
                None => self.shared.withdraw(entry, loading),
                Some(Outcome::Loaded) => self.shared.leave(entry),
                Some(Outcome::Failed(_) | Outcome::Withdrawn) => {}
            }
        }
        for (entry, loading) in &self.joined {
            self.shared.unclaim(entry, loading);
        }
    }
}

impl Shared {
    /// Admits a lease, loads what is missing, and hands it out.
    pub(super) fn admit(
        self: &Arc<Self>,
        entries: Vec<Arc<Entry>>,
        wait: Wait,
    ) -> Result<Lease, Error> {
        loop {
            self.refuse_stale(&entries)?;
            let claims = self.reserve(&entries, wait)?;
            let loaded: Vec<usize> = claims
                .to_load
                .iter()
                .map(|(entry, _)| entry.index)
                .collect();
            match self.fulfil(claims)? {
                Fulfilled::Whole => {
                    let now = self.now_ns();
                    for entry in &entries {
                        entry.leased(now, !loaded.contains(&entry.index));
                    }
                    return Ok(self.hand_out(entries));
                }
                Fulfilled::AskAgain => {}
            }
        }
    }

    /// Reserves every byte that the lease needs, evicting for it where that helps.
    fn reserve(&self, entries: &[Arc<Entry>], wait: Wait) -> Result<Claims<'_>, Error> {
        // Files can claim sizes whose sum overflows: that exceeds any budget. Within a budget none
        // of the sums below can.
        let asked = entries
            .iter()
            .try_fold(0_u64, |sum, entry| sum.checked_add(entry.charge));
        let asked = match asked {
            Some(asked) if asked <= self.budget => asked,
            beyond => {
                let asked = beyond.unwrap_or(u64::MAX);
                return Err(self.refuse(entries, RefuseReason::ExceedsBudget, asked, wait));
            }
        };
        let mut place = Place {
            shared: self,
            ticket: self.ledger().enqueue(),
            expected: 0,
        };
        let _waiting = self.waiting();
        let mut ledger = self.ledger();
        loop {
            ledger.reap();
            let settled = entries
                .iter()
                .all(|entry| ledger.phase(entry) != Phase::Evicting);
            if settled && ledger.is_first(place.ticket) {
                let missing: u64 = entries
                    .iter()
                    .filter(|entry| ledger.phase(entry) == Phase::Absent)
                    .map(|entry| entry.charge)
                    .sum();
                let free = self.budget.saturating_sub(ledger.used());
                if missing <= free {
                    let claims = self.take(&mut ledger, entries);
                    drop(ledger);
                    place.hand_over(missing);
                    return Ok(claims);
                }
                let needed = missing - free;
                if let Some(choice) = ledger.choose_victims(needed, entries, self.policy.as_ref()) {
                    let victims: Vec<Leaving> = choice
                        .victims
                        .into_iter()
                        .map(|victim| Leaving::begin(self, &mut ledger, victim))
                        .collect();
                    drop(ledger);
                    place.expect(missing);
                    let reason = EvictReason::Room {
                        wanted_for: names(entries),
                        asked_bytes: missing,
                        free_bytes: free,
                    };
                    for victim in victims {
                        self.evict(victim, &reason, &choice.considered, choice.besides);
                    }
                    ledger = self.ledger();
                    continue;
                }
            }
            if wait.is_over() {
                drop(ledger);
                drop(place);
                let reason = match wait {
                    Wait::Never => RefuseReason::Leased,
                    _ => RefuseReason::Timeout,
                };
                return Err(self.refuse(entries, reason, asked, wait));
            }
            if place.expected > 0 {
                // Nothing is kept while waiting, pages neither.
                drop(ledger);
                place.expect_nothing();
                ledger = self.ledger();
                continue;
            }
            ledger = self.sleep(ledger, wait.deadline());
        }
    }

    /// Claims every model of a lease, in one step under the lock.
    fn take(&self, ledger: &mut Ledger, entries: &[Arc<Entry>]) -> Claims<'_> {
        let mut claims = Claims {
            shared: self,
            inside: Vec::new(),
            to_load: Vec::new(),
            joined: Vec::new(),
        };
        for entry in entries {
            let before = ledger.phase(entry);
            let stepped = ledger.step(entry, Input::Claim);
            debug_assert!(stepped.is_ok(), "a model on its way out was claimed");
            match before {
                Phase::Resident => {
                    // Doors are shut only under this lock, and this one's model is resident.
                    let entered = entry.pins.enter();
                    debug_assert!(entered);
                    claims.inside.push(Arc::clone(entry));
                }
                Phase::Loading { .. } => {
                    if let Some(loading) = ledger.load_of(entry) {
                        claims.joined.push((Arc::clone(entry), loading));
                    }
                }
                Phase::Absent | Phase::Evicting => {
                    let loading = ledger.begin_load(entry);
                    claims.to_load.push((Arc::clone(entry), loading));
                }
            }
        }
        claims
    }

    /// Loads what is ours, then waits for what others load.
    fn fulfil(&self, claims: Claims<'_>) -> Result<Fulfilled, Error> {
        for (entry, loading) in &claims.to_load {
            self.load(entry, loading)?;
        }
        for (_, loading) in &claims.joined {
            match self.join(loading) {
                Outcome::Loaded => {}
                Outcome::Failed(error) => return Err(error),
                Outcome::Withdrawn => return Ok(Fulfilled::AskAgain),
            }
        }
        claims.keep();
        Ok(Fulfilled::Whole)
    }

    /// Takes back a claim on what another lease loads. Once that has succeeded the claim is a pin.
    fn unclaim(&self, entry: &Entry, loading: &Loading) {
        let mut ledger = self.ledger();
        match loading.outcome() {
            None => {
                let stepped = ledger.step(entry, Input::Unclaim);
                debug_assert!(stepped.is_ok());
            }
            Some(Outcome::Loaded) => {
                drop(ledger);
                self.leave(entry);
            }
            Some(Outcome::Failed(_) | Outcome::Withdrawn) => {}
        }
    }

    fn join(&self, loading: &Loading) -> Outcome {
        let _waiting = self.waiting();
        let mut ledger = self.ledger();
        loop {
            if let Some(outcome) = loading.outcome() {
                return outcome.clone();
            }
            ledger = self.sleep(ledger, None);
        }
    }

    fn refuse(
        &self,
        entries: &[Arc<Entry>],
        reason: RefuseReason,
        asked: u64,
        wait: Wait,
    ) -> Error {
        let models = names(entries);
        let (pinned, free) = {
            let ledger = self.ledger();
            let free = self.budget.saturating_sub(ledger.used());
            (ledger.pinned_bytes(), free)
        };
        self.tell_hits();
        self.stream.emit(Kind::Refuse(Box::new(Refuse {
            models: models.clone(),
            tier: "ram".to_owned(),
            reason,
            asked_bytes: asked,
            budget_bytes: self.budget,
            pinned_bytes: pinned,
        })));
        let budget = self.budget;
        tracing::debug!(?models, ?reason, asked = %Size(asked), budget = %Size(budget), "refused");
        match (reason, wait) {
            (RefuseReason::ExceedsBudget, _) => Error::ExceedsBudget {
                models,
                asked,
                budget,
            },
            (RefuseReason::Timeout, Wait::Until { started, .. }) => Error::Timeout {
                models,
                asked,
                budget,
                pinned,
                waited: started.elapsed(),
            },
            _ => Error::NoRoom {
                models,
                asked,
                free,
                budget,
                pinned,
            },
        }
    }
}

enum Fulfilled {
    Whole,
    AskAgain,
}

fn names(entries: &[Arc<Entry>]) -> Vec<String> {
    entries
        .iter()
        .map(|entry| entry.name().to_owned())
        .collect()
}

/// A place in the queue, given up however the lease ends.
struct Place<'a> {
    shared: &'a Shared,
    ticket: u64,
    /// Bytes that the recycler was told to keep pages for.
    expected: u64,
}

impl Place<'_> {
    /// Keeps the pages of coming evictions for so many bytes of loads.
    fn expect(&mut self, bytes: u64) {
        if self.shared.storage == Storage::Anonymous && bytes > self.expected {
            self.shared
                .recycler
                .expect((bytes - self.expected) as usize);
            self.expected = bytes;
        }
    }

    /// Leaves the expectation to the loads, each of which takes its own part of it.
    fn hand_over(mut self, bytes: u64) {
        self.expect(bytes);
        let surplus = self.expected.saturating_sub(bytes);
        if surplus > 0 {
            self.shared.recycler.unexpect(surplus as usize);
        }
        self.expected = 0;
    }

    fn expect_nothing(&mut self) {
        let expected = std::mem::take(&mut self.expected);
        if expected > 0 {
            self.shared.recycler.unexpect(expected as usize);
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.expect_nothing();
        self.shared.ledger().dequeue(self.ticket);
        self.shared.notify();
    }
}
