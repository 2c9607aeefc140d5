//! What the cache's one lock guards: which model is in which phase, and how many bytes count.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use plimsoll_events::{Candidate, Skipped};
use plimsoll_profiles::window::Orphan;

use super::entry::{Entry, Identity};
use super::loading::Loading;
use crate::policy::{Policy, Resident, choose};
use crate::residency::{Impossible, Input, Phase};

/// Bytes of an evicted model that tensors still hold.
#[derive(Debug)]
struct Held {
    orphan: Orphan,
    bytes: u64,
}

/// The books.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) entries: Vec<Arc<Entry>>,
    by_identity: HashMap<Identity, usize>,
    phases: Vec<Phase>,
    loads: HashMap<usize, Arc<Loading>>,
    held: Vec<Held>,
    /// Bytes that exist or are reserved: loading, resident, evicting, and held after eviction.
    used: u64,
    held_bytes: u64,
    /// Leases that wait for room, first come first served.
    queue: VecDeque<u64>,
    next_ticket: u64,
}

/// The victims of a decision, with all that was considered.
pub(crate) struct Choice {
    pub(crate) victims: Vec<Arc<Entry>>,
    pub(crate) considered: Vec<Candidate>,
    /// How many more there were than are listed.
    pub(crate) besides: u64,
}

/// How many of the models that stay are listed with a decision: those that would have gone next,
/// and as many that could not go. With thousands of models the rest says nothing.
const MOST_SPARED: usize = 16;

impl Ledger {
    /// The entry of a model, made when it is first met.
    pub(crate) fn register(
        &mut self,
        identity: Identity,
        make: impl FnOnce(usize) -> Entry,
    ) -> Arc<Entry> {
        if let Some(index) = self.by_identity.get(&identity) {
            return Arc::clone(&self.entries[*index]);
        }
        let index = self.entries.len();
        let entry = Arc::new(make(index));
        self.entries.push(Arc::clone(&entry));
        self.phases.push(Phase::Absent);
        self.by_identity.insert(identity, index);
        entry
    }

    pub(crate) fn phase(&self, entry: &Entry) -> Phase {
        self.phases[entry.index]
    }

    /// Moves a model to its next phase, and the bytes with it.
    pub(crate) fn step(&mut self, entry: &Entry, input: Input) -> Result<Phase, Impossible> {
        let before = self.phases[entry.index];
        let after = before.after(input)?;
        match (before, after) {
            (Phase::Absent, Phase::Loading { .. }) => self.used += entry.charge,
            (Phase::Loading { .. } | Phase::Evicting, Phase::Absent) => {
                self.used -= entry.charge;
            }
            _ => {}
        }
        self.phases[entry.index] = after;
        Ok(after)
    }

    /// The load that is under way for a model, for those who join it.
    pub(crate) fn load_of(&self, entry: &Entry) -> Option<Arc<Loading>> {
        self.loads.get(&entry.index).cloned()
    }

    pub(crate) fn begin_load(&mut self, entry: &Entry) -> Arc<Loading> {
        let loading = Arc::new(Loading::default());
        self.loads.insert(entry.index, Arc::clone(&loading));
        loading
    }

    pub(crate) fn end_load(&mut self, entry: &Entry) {
        self.loads.remove(&entry.index);
    }

    /// Bytes that count.
    pub(crate) fn used(&self) -> u64 {
        self.used
    }

    /// The part of them that was evicted and is still held.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// Keeps counting the bytes of an evicted model that tensors hold.
    pub(crate) fn hold(&mut self, orphan: Orphan) {
        let bytes = orphan.bytes() as u64;
        self.used += bytes;
        self.held_bytes += bytes;
        self.held.push(Held { orphan, bytes });
    }

    /// Stops counting what is no longer held. Returns whether any was.
    pub(crate) fn reap(&mut self) -> bool {
        let mut gone = 0;
        self.held.retain(|held| {
            let is_gone = held.orphan.is_gone();
            if is_gone {
                gone += held.bytes;
            }
            !is_gone
        });
        self.used -= gone;
        self.held_bytes -= gone;
        gone > 0
    }

    pub(crate) fn any_held(&self) -> bool {
        !self.held.is_empty()
    }

    /// Takes a place in the queue.
    pub(crate) fn enqueue(&mut self) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.queue.push_back(ticket);
        ticket
    }

    pub(crate) fn is_first(&self, ticket: u64) -> bool {
        self.queue.front() == Some(&ticket)
    }

    pub(crate) fn dequeue(&mut self, ticket: u64) {
        self.queue.retain(|waiting| *waiting != ticket);
    }

    /// Bytes that cannot be freed now: all but what is resident and not leased.
    pub(crate) fn pinned_bytes(&self) -> u64 {
        let evictable: u64 = self
            .entries
            .iter()
            .filter(|entry| self.phase(entry) == Phase::Resident && entry.pins.count() == 0)
            .map(|entry| entry.charge)
            .sum();
        self.used.saturating_sub(evictable)
    }

    /// Chooses victims that free `needed` bytes, and shuts their doors. `None` where there are not
    /// enough.
    pub(crate) fn choose_victims(
        &mut self,
        needed: u64,
        wanted: &[Arc<Entry>],
        policy: &dyn Policy,
    ) -> Option<Choice> {
        use std::sync::atomic::Ordering::Relaxed;
        let resident: Vec<Arc<Entry>> = self
            .entries
            .iter()
            .filter(|entry| self.phase(entry) == Phase::Resident)
            .cloned()
            .collect();
        loop {
            let mut eligible = Vec::new();
            let mut skipped = Vec::new();
            for entry in &resident {
                let leases = entry.pins.count();
                if wanted.iter().any(|wanted| wanted.index == entry.index) {
                    skipped.push((entry, Skipped::Wanted));
                } else if leases > 0 {
                    let leases = u32::try_from(leases).unwrap_or(u32::MAX);
                    skipped.push((entry, Skipped::Leased { leases }));
                } else {
                    let score = policy.score(&Resident {
                        name: entry.name(),
                        bytes: entry.charge,
                        last_leased_ns: entry.last_leased_ns.load(Relaxed),
                        leases: entry.leases.load(Relaxed),
                        reload_ns: entry.reload_ns.load(Relaxed),
                    });
                    eligible.push((score, entry));
                }
            }
            let scores: Vec<(f64, u64)> = eligible
                .iter()
                .map(|(score, entry)| (*score, entry.charge))
                .collect();
            let chosen = choose(&scores, needed)?;
            // A lease may slip in between the look and the shutting of a door: then look again.
            let shut: Vec<usize> = chosen
                .iter()
                .copied()
                .filter(|index| eligible[*index].1.pins.close())
                .collect();
            if shut.len() < chosen.len() {
                for index in shut {
                    eligible[index].1.pins.open(0);
                }
                continue;
            }
            let victims = chosen
                .iter()
                .map(|index| Arc::clone(eligible[*index].1))
                .collect();
            let mut spared: Vec<(f64, &Arc<Entry>)> = eligible
                .iter()
                .enumerate()
                .filter(|(index, _)| !chosen.contains(index))
                .map(|(_, (score, entry))| (*score, *entry))
                .collect();
            spared.sort_by(|a, b| a.0.total_cmp(&b.0));
            let candidate = |entry: &Entry, score: Option<f64>, skipped| Candidate {
                model: entry.name().to_owned(),
                bytes: entry.charge,
                score: score.filter(|score| score.is_finite()),
                skipped,
            };
            let gone = chosen
                .iter()
                .map(|index| candidate(eligible[*index].1, Some(eligible[*index].0), None));
            let spared = spared
                .iter()
                .map(|(score, entry)| candidate(entry, Some(*score), Some(Skipped::NotNeeded)));
            let skipped = skipped
                .iter()
                .map(|(entry, why)| candidate(entry, None, Some(*why)));
            let considered: Vec<Candidate> = gone
                .chain(spared.take(MOST_SPARED))
                .chain(skipped.take(MOST_SPARED))
                .collect();
            return Some(Choice {
                victims,
                besides: (resident.len() - considered.len()) as u64,
                considered,
            });
        }
    }
}
