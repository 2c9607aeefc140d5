//! What a live screen asks for, done, and said in a sentence.

use std::collections::BTreeSet;
use std::sync::Arc;

use malloc_stats::size::Size;
use malloc_stats::{AllocatorKind, Depth, Metric};
use plimsoll_events::{Answer, BudgetChange, EvictReason, Kind, Received, Request, Subscription};
use plimsoll_profiles::Reclaim;

use super::{Cache, Entry, Seat};
use crate::budget::Budget;
use crate::model::escape;
use crate::residency::Phase;

/// Names that are listed where one was not found.
const MOST_NAMES: usize = 3;

/// Events among which those of a request are looked for.
const CAPACITY: usize = 1024;

impl Cache {
    /// Does what was asked for.
    pub(super) fn answer(&self, request: &Request) -> Answer {
        let answer = match request {
            Request::Trim => self.trim(),
            Request::Evict { model, tier } => self.evict_named(model, tier.as_deref()),
            Request::Drop { model } => self.drop_named(model),
            Request::Budget { tier, bytes } => self.set_budget_named(tier, *bytes),
            _ => Err("this cache is older than that request".to_owned()),
        };
        answer.unwrap_or_else(Answer::refused)
    }

    fn trim(&self) -> Result<Answer, String> {
        let gate = &self.shared.gate;
        let action = match (gate.io.about.reclaim, plimsoll_profiles::serving()) {
            (Reclaim::None, AllocatorKind::Jemalloc) => Reclaim::Purge,
            (Reclaim::None, _) => Reclaim::Trim,
            (action, _) => action,
        };
        let allocator = gate.io.brackets.allocator_name();
        let done = gate.reclaim(action, gate.io.owed.take_missing());
        if let Some(error) = done.failed {
            return Err(format!("{action} of {allocator} failed: {error}"));
        }
        gate.io.owed.look_again();
        let said = match done.gain.bytes() {
            Some(gain) => format!(
                "{action} of {allocator}: the system got {} back",
                Size(gain)
            ),
            None => format!("{action} of {allocator}: done; resident memory cannot be read"),
        };
        let mut answer = Answer::done(said);
        answer.gain = done.gain;
        Ok(answer)
    }

    fn evict_named(&self, name: &str, tier: Option<&str>) -> Result<Answer, String> {
        let entry = self.find(name)?;
        let shown = escape(name);
        let tiers = match tier {
            Some(tier) => {
                let tier = self.find_tier(tier)?;
                tier..tier + 1
            }
            None => 0..entry.slots.len(),
        };
        let there = self.places(&entry);
        let all = self.shared.with_made(&entry);
        let tiers = tiers.filter(|tier| there.iter().any(|(at, _)| at == tier));
        let tiers: Vec<usize> = tiers.collect();
        let seats = tiers.iter().flat_map(|tier| {
            let there = all.iter().map(|one| Seat::new(one, *tier));
            there.collect::<Vec<Seat>>()
        });
        let seats: Vec<Seat> = seats.collect();
        if seats.is_empty() {
            return Err(match tier {
                Some(tier) => format!("{shown} is not in {tier}; it is in {}", self.list(&there)),
                None => format!("{shown} is gone already"),
            });
        }
        let watch = self.watch();
        self.shared.gate.evict_idle(&seats, &EvictReason::Dropped);
        let gone = watch.end(name);
        let left: Vec<(usize, u64)> = self.places(&entry);
        let stays: Vec<(usize, u64)> = left
            .into_iter()
            .filter(|(tier, _)| tiers.contains(tier))
            .collect();
        if stays.len() == tiers.len() {
            return Err(format!("{shown} stays: {}", self.list(&stays)));
        }
        let mut answer = gone.answer(format!("evicted {shown}"));
        if !stays.is_empty() {
            answer.said += &format!("; it stays: {}", self.list(&stays));
        }
        Ok(answer)
    }

    fn drop_named(&self, name: &str) -> Result<Answer, String> {
        let entry = self.find(name)?;
        let watch = self.watch();
        let dropped = self.shared.drop_entry(&entry);
        let mut answer = watch.end(name).answer(format!("dropped {}", escape(name)));
        if !dropped {
            let stays = self.list(&self.places(&entry));
            answer.said += &format!("; it goes when it is no longer leased: {stays}");
        }
        Ok(answer)
    }

    fn set_budget_named(&self, tier: &str, bytes: Option<u64>) -> Result<Answer, String> {
        let position = self.find_tier(tier)?;
        let shared = &self.shared;
        let (was, reserve) = {
            let books = shared.gate.books();
            let account = &books.accounts[position];
            (account.budget, account.reserve)
        };
        // What the program leaves to everything else is not for a screen to change.
        let budget = match bytes {
            Some(bytes) => Budget::fixed(bytes.saturating_add(reserve)).reserve(reserve),
            None if reserve > 0 => Budget::auto().reserve(reserve),
            None => Budget::auto(),
        };
        let watch = self.watch();
        if let Some(bytes) = bytes {
            let (counted_bytes, _) = shared.gate.counted(position);
            let change = BudgetChange {
                tier: tier.to_owned(),
                was_bytes: Some(was),
                budget_bytes: bytes.min(u64::MAX - reserve),
                counted_bytes,
                working_bytes: 0,
                unused: Metric::Unavailable,
                reclaimable: Metric::Unavailable,
                reserve_bytes: reserve,
                bound: "what was asked for".to_owned(),
                cause: "request".to_owned(),
            };
            shared.gate.io.stream.emit(Kind::Budget(Box::new(change)));
        }
        let set = shared.budgets.set(&shared.gate, position, budget);
        set.map_err(|reason| format!("the budget of {tier} cannot follow: {reason}"))?;
        let gain = watch.gain();
        let (now, used) = {
            let mut books = shared.gate.books();
            books.reap();
            let account = &books.accounts[position];
            (account.budget, account.used())
        };
        let follows = if bytes.is_none() { " and follows" } else { "" };
        let mut said = format!(
            "the budget of {tier} is {} now{follows}, and was {}",
            Size(now),
            Size(was)
        );
        if used > now {
            said += &format!(
                "; {} more are in use, and go as leases end",
                Size(used - now)
            );
        }
        let mut answer = Answer::done(said);
        answer.gain = gain;
        Ok(answer)
    }

    /// The model of that name that is in some tier, or on its way.
    fn find(&self, name: &str) -> Result<Arc<Entry>, String> {
        let mut found = Vec::new();
        let mut names = BTreeSet::new();
        {
            let books = self.shared.gate.books();
            for (entry, _) in books.somewhere() {
                let known = entry.model.told_name();
                // Parts are evicted and dropped with the whole.
                let whole = entry.model.base.as_ref();
                let whole = whole.filter(|_| entry.model.model.is_part());
                let whole = whole.unwrap_or(entry);
                let is_known = |one: &Arc<Entry>| Arc::ptr_eq(one, whole);
                if known == name {
                    if !found.iter().any(is_known) {
                        found.push(Arc::clone(whole));
                    }
                } else if names.len() < MOST_LOOKED_AT {
                    names.insert(known.to_owned());
                }
            }
        }
        let shown = escape(name);
        // What was dropped is only waiting for its leases to end.
        if found.len() > 1 {
            found.retain(|entry| !entry.is_retired());
        }
        match found.len() {
            0 => Err(missing(name, &names)),
            1 => {
                let entry = found.swap_remove(0);
                if !entry.is_retired() {
                    return Ok(entry);
                }
                let stays = self.list(&self.places(&entry));
                Err(format!(
                    "{shown} was dropped already, and goes when it is no longer leased: {stays}"
                ))
            }
            count => Err(format!(
                "{count} models are called {shown}: the name alone does not tell which"
            )),
        }
    }

    fn find_tier(&self, name: &str) -> Result<usize, String> {
        let devices = &self.shared.gate.io.devices;
        let mut names = devices.iter().map(|device| device.name());
        names.position(|known| known == name).ok_or_else(|| {
            let names: Vec<&str> = devices.iter().map(|device| device.name()).collect();
            let shown = escape(name);
            format!("no tier is called {shown}; there are: {}", names.join(", "))
        })
    }

    /// Where a model is, or anything that is made of it, with how many leases hold it there or wait
    /// for it.
    fn places(&self, entry: &Arc<Entry>) -> Vec<(usize, u64)> {
        let all = self.shared.with_made(entry);
        let books = self.shared.gate.books();
        let leases = |one: &Arc<Entry>, tier: usize| {
            let slot = &one.slots[tier];
            match books.phase_of(one, tier) {
                Phase::Absent => None,
                Phase::Loading { claims } => Some(u64::from(claims)),
                Phase::Resident => Some(slot.pins.count() + slot.preferred()),
                Phase::Evicting => Some(0),
            }
        };
        let tiers = 0..entry.slots.len();
        let places = tiers.filter_map(|tier| {
            let most = all.iter().filter_map(|one| leases(one, tier)).max();
            most.map(|leases| (tier, leases))
        });
        places.collect()
    }

    /// Places, as a sentence has them.
    fn list(&self, places: &[(usize, u64)]) -> String {
        let place = |(tier, leases): &(usize, u64)| {
            let tier = self.shared.gate.io.tier_name(*tier);
            match leases {
                0 => tier.to_owned(),
                1 => format!("{tier}, leased once"),
                leases => format!("{tier}, leased {leases} times"),
            }
        };
        if places.is_empty() {
            return "no tier".to_owned();
        }
        let places: Vec<String> = places.iter().map(place).collect();
        places.join("; ")
    }

    fn watch(&self) -> Watch<'_> {
        Watch {
            cache: self,
            events: self.subscribe(CAPACITY),
            rss: self.rss(),
        }
    }

    fn rss(&self) -> Option<u64> {
        let snapshot = self.shared.gate.io.brackets.look(Depth::Bracket);
        snapshot.process.rss.bytes()
    }
}

/// Beyond so many models none is looked at for a name like the one asked for.
const MOST_LOOKED_AT: usize = 4096;

/// That there is no such model, and which there are.
fn missing(name: &str, names: &BTreeSet<String>) -> String {
    let shown = escape(name);
    if names.is_empty() {
        return format!("no model is called {shown}: none is in any tier");
    }
    let asked = name.to_lowercase();
    let alike = |known: &&String| {
        let known = known.to_lowercase();
        let common = known.bytes().zip(asked.bytes()).take_while(|(a, b)| a == b);
        known.contains(&asked) || asked.contains(&known) || common.count() >= 3
    };
    let list = |names: Vec<&String>| {
        let names: Vec<String> = names.iter().map(|name| escape(name).to_string()).collect();
        names.join(", ")
    };
    let near: Vec<&String> = names.iter().filter(alike).take(MOST_NAMES).collect();
    if near.is_empty() {
        let some = list(names.iter().take(MOST_NAMES).collect());
        let besides = match names.len().saturating_sub(MOST_NAMES) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("no model called {shown} is in any tier; there are {some}{besides}")
    } else {
        format!(
            "no model called {shown} is in any tier; there is {}",
            list(near)
        )
    }
}

/// What happens while a request is done.
struct Watch<'a> {
    cache: &'a Cache,
    events: Subscription,
    rss: Option<u64>,
}

/// What evictions of a model came to.
struct Gone {
    tiers: Vec<String>,
    freed: u64,
    held: u64,
    returned: Metric,
    gain: Metric,
}

impl Watch<'_> {
    /// By how much resident memory fell. Others allocate and free meanwhile.
    fn gain(&self) -> Metric {
        let fell = self.rss.zip(self.cache.rss());
        fell.map_or(Metric::Unavailable, |(before, after)| {
            Metric::Estimated(before.saturating_sub(after))
        })
    }

    /// What evictions of this model came to.
    fn end(self, name: &str) -> Gone {
        let mut gone = Gone {
            tiers: Vec::new(),
            freed: 0,
            held: 0,
            returned: Metric::Exact(0),
            gain: self.gain(),
        };
        while let Ok(received) = self.events.try_recv() {
            let Received::Event(event) = received else {
                continue;
            };
            if let Kind::Evict(evict) = &event.kind
                && evict.part_of.as_ref().unwrap_or(&evict.model) == name
                && evict.reason == EvictReason::Dropped
            {
                if !gone.tiers.contains(&evict.tier) {
                    gone.tiers.push(evict.tier.clone());
                }
                gone.freed = gone.freed.saturating_add(evict.freed_bytes);
                gone.held = gone.held.saturating_add(evict.held_bytes);
                gone.returned = match (gone.returned, evict.returned) {
                    (Metric::Exact(sum), Metric::Exact(more)) => {
                        Metric::Exact(sum.saturating_add(more))
                    }
                    (sum, more) => match (sum.bytes(), more.bytes()) {
                        (Some(sum), Some(more)) => Metric::Estimated(sum.saturating_add(more)),
                        _ => Metric::Unavailable,
                    },
                };
            }
        }
        gone
    }
}

impl Gone {
    fn answer(&self, mut said: String) -> Answer {
        if !self.tiers.is_empty() {
            said += &format!(
                " from {}: freed {}",
                self.tiers.join(" and "),
                Size(self.freed)
            );
            said += &match self.returned {
                Metric::Unavailable => String::new(),
                returned => format!(", the system got {returned} back"),
            };
        }
        if self.held > 0 {
            said += &format!("; tensors still hold {} of it", Size(self.held));
        }
        let mut answer = Answer::done(said);
        answer.gain = self.gain;
        answer
    }
}
