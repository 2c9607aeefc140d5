//! Which models make room.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use plimsoll_events::{Candidate, Skipped};

use super::entry::{Entry, Named, Seat};
use super::{Books, Io, RAM};
use crate::policy::{Policy, Resident, choose};
use crate::residency::Phase;

/// What was considered for a decision.
#[derive(Debug, Clone, Default)]
pub(crate) struct Choice {
    pub(crate) considered: Vec<Candidate>,
    /// How many more there were than are listed.
    pub(crate) besides: u64,
}

/// How many of the models that stay are listed with a decision: those that would have gone next,
/// and as many that could not go. With thousands of models the rest says nothing.
const MOST_SPARED: usize = 16;

/// How much a choice has to free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aim {
    /// So many bytes, or nothing at all.
    AtLeast(u64),
    /// So many bytes, or as many as there are.
    AsFarAsPossible(u64),
}

impl<I: Io> Books<I> {
    /// Whether models that are not leased make up so many bytes; where it `spares` them, without those
    /// that leases would rather have there.
    pub(super) fn could_free(
        &self,
        tier: usize,
        needed: u64,
        wanted: &[Seat<I::Model>],
        spares: bool,
    ) -> bool {
        let mut freed = 0_u64;
        for entry in self.accounts[tier].resident.values() {
            let slot = &entry.slots[tier];
            let is_wanted = wanted
                .iter()
                .any(|seat| seat.tier == tier && Arc::ptr_eq(&seat.entry, entry));
            let is_spared = spares && slot.preferred() > 0;
            if freed < needed && !is_wanted && !is_spared && slot.pins.count() == 0 {
                freed += slot.charge;
            }
        }
        freed >= needed
    }

    /// How many bytes a tier could have for new models without waiting, and without what leases pin or
    /// would rather have there.
    pub(crate) fn could_make(&mut self, tier: usize, wanted: &[Seat<I::Model>]) -> u64 {
        self.reap();
        let account = &self.accounts[tier];
        let idle = account.resident.values().filter(|entry| {
            let slot = &entry.slots[tier];
            slot.pins.count() == 0 && slot.preferred() == 0 && !is_wanted(entry, tier, wanted)
        });
        let idle = idle.map(|entry| entry.slots[tier].charge);
        let taken = account.committed().saturating_sub(idle.sum());
        account.budget.saturating_sub(taken)
    }

    /// Chooses models to evict, and shuts their doors. `None` where there are not enough.
    pub(super) fn choose_victims(
        &mut self,
        tier: usize,
        aim: Aim,
        wanted: &[Seat<I::Model>],
        spares: bool,
        policy: &dyn Policy,
    ) -> Option<(Vec<Seat<I::Model>>, Choice)> {
        loop {
            let (eligible, skipped) = self.eligible(tier, wanted, policy);
            let (chosen, freed) = pick(tier, &eligible, aim, spares);
            if matches!(aim, Aim::AtLeast(needed) if freed < needed) {
                return None;
            }
            // A lease may slip in between the look and the shutting of a door: then look again.
            let shut: Vec<usize> = chosen
                .iter()
                .copied()
                .filter(|index| eligible[*index].1.slots[tier].pins.close())
                .collect();
            if shut.len() < chosen.len() {
                for index in shut {
                    eligible[index].1.slots[tier].pins.open(0);
                }
                continue;
            }
            let victims = chosen
                .iter()
                .map(|index| Seat::new(&eligible[*index].1, tier))
                .collect();
            return Some((victims, told(tier, &eligible, &chosen, &skipped)));
        }
    }

    /// Whether models that are not leased, or drained, make up so many bytes.
    pub(super) fn will_free(&self, tier: usize, needed: u64, wanted: &[Seat<I::Model>]) -> bool {
        let all = self.accounts[tier].resident.values();
        let goes = all.filter(|entry| {
            let pins = &entry.slots[tier].pins;
            (pins.is_draining() || pins.count() == 0) && !is_wanted(entry, tier, wanted)
        });
        let freed = goes.fold(0_u64, |sum, entry| {
            sum.saturating_add(entry.slots[tier].charge)
        });
        freed >= needed
    }

    /// Asks leases to stay away from the models that would have to go, leased ones included.
    pub(super) fn drain_for(
        &mut self,
        tier: usize,
        needed: u64,
        wanted: &[Seat<I::Model>],
        policy: &dyn Policy,
    ) -> Vec<Seat<I::Model>> {
        let all: Vec<Arc<Entry<I::Model>>> = self.accounts[tier]
            .resident
            .values()
            .filter(|entry| !is_wanted(entry, tier, wanted))
            .cloned()
            .collect();
        let scores: Vec<(f64, u64)> = all
            .iter()
            .map(|entry| (self.score(entry, tier, policy), entry.slots[tier].charge))
            .collect();
        let chosen = choose(&scores, needed).unwrap_or_default();
        let drained = chosen.into_iter().map(|index| Seat::new(&all[index], tier));
        let drained = drained.filter(|seat| seat.slot().pins.count() > 0);
        let drained: Vec<Seat<I::Model>> = drained.collect();
        for seat in &drained {
            seat.slot().pins.drain(true);
        }
        drained
    }

    #[expect(clippy::type_complexity, reason = "two lists over the same entries")]
    fn eligible(
        &self,
        tier: usize,
        wanted: &[Seat<I::Model>],
        policy: &dyn Policy,
    ) -> (
        Vec<(f64, Arc<Entry<I::Model>>)>,
        Vec<(Arc<Entry<I::Model>>, Skipped)>,
    ) {
        let mut eligible = Vec::new();
        let mut skipped = Vec::new();
        for entry in self.accounts[tier].resident.values() {
            let leases = entry.slots[tier].pins.count();
            if is_wanted(entry, tier, wanted) {
                skipped.push((Arc::clone(entry), Skipped::Wanted));
            } else if leases > 0 {
                let leases = u32::try_from(leases).unwrap_or(u32::MAX);
                skipped.push((Arc::clone(entry), Skipped::Leased { leases }));
            } else if entry.slots[tier].preferred() > 0 {
                // It has no score: it goes after all that have one.
                eligible.push((f64::INFINITY, Arc::clone(entry)));
            } else {
                eligible.push((self.score(entry, tier, policy), Arc::clone(entry)));
            }
        }
        (eligible, skipped)
    }

    /// What bringing a model back to a tier took the last time, nanoseconds: from RAM where it is
    /// there too, else from its files. 0 where that was never done.
    pub(crate) fn reload_ns(&self, entry: &Entry<I::Model>, tier: usize) -> u64 {
        let slot = &entry.slots[tier];
        // What is made of a model comes to a device from that, and not from its own copy in RAM.
        let from_ram = tier != RAM && !entry.model.is_made();
        if from_ram && self.phase_of(entry, RAM) == Phase::Resident {
            slot.from_ram_ns.load(Relaxed)
        } else {
            slot.from_file_ns.load(Relaxed)
        }
    }

    /// What the policy holds a resident model to be worth.
    pub(crate) fn score(&self, entry: &Entry<I::Model>, tier: usize, policy: &dyn Policy) -> f64 {
        let slot = &entry.slots[tier];
        let tiers = 0..self.accounts.len();
        let elsewhere = tiers
            .filter(|other| *other != tier)
            .any(|other| self.phase_of(entry, other) == Phase::Resident);
        policy.score(&Resident {
            name: entry.model.name(),
            bytes: slot.charge,
            last_leased_ns: slot.last_leased_ns.load(Relaxed),
            leases: slot.leases.load(Relaxed),
            reload_ns: self.reload_ns(entry, tier),
            reload_bytes: slot.reload.bytes(),
            elsewhere,
        })
    }
}

/// The victims among what nobody pins, and what they free. What leases would rather have there goes
/// only where everything else is not enough, the last parts of their wholes first.
fn pick<M: Named>(
    tier: usize,
    eligible: &[(f64, Arc<Entry<M>>)],
    aim: Aim,
    spares: bool,
) -> (Vec<usize>, u64) {
    let (Aim::AtLeast(needed) | Aim::AsFarAsPossible(needed)) = aim;
    let charge = |index: usize| eligible[index].1.slots[tier].charge;
    let is_preferred = |index: &usize| eligible[*index].1.slots[tier].preferred() > 0;
    let (mut preferred, idle): (Vec<usize>, Vec<usize>) =
        (0..eligible.len()).partition(is_preferred);
    let scores: Vec<(f64, u64)> = idle
        .iter()
        .map(|index| (eligible[*index].0, charge(*index)))
        .collect();
    if let Some(chosen) = choose(&scores, needed) {
        let chosen: Vec<usize> = chosen.into_iter().map(|at| idle[at]).collect();
        let freed = chosen.iter().map(|index| charge(*index));
        let freed = freed.fold(0, u64::saturating_add);
        return (chosen, freed);
    }
    let mut freed = idle.iter().map(|index| charge(*index)).sum::<u64>();
    let mut chosen = idle;
    let position = |index: &usize| eligible[*index].1.model.position();
    preferred.sort_by(|a, b| position(b).total_cmp(&position(a)));
    for index in preferred {
        if freed >= needed || spares {
            break;
        }
        freed = freed.saturating_add(charge(index));
        chosen.push(index);
    }
    (chosen, freed)
}

fn is_wanted<M>(entry: &Arc<Entry<M>>, tier: usize, wanted: &[Seat<M>]) -> bool {
    wanted
        .iter()
        .any(|seat| seat.tier == tier && Arc::ptr_eq(&seat.entry, entry))
}

/// The decision, as events tell it: all victims and, of the others, those that would have gone
/// next.
fn told<M: Named>(
    tier: usize,
    eligible: &[(f64, Arc<Entry<M>>)],
    chosen: &[usize],
    skipped: &[(Arc<Entry<M>>, Skipped)],
) -> Choice {
    let candidate = |entry: &Entry<M>, score: Option<f64>, skipped| Candidate {
        model: entry.model.name().to_owned(),
        bytes: entry.slots[tier].charge,
        score: score.filter(|score| score.is_finite()),
        skipped,
        reload_bytes: entry.slots[tier].reload.bytes(),
    };
    let mut spared: Vec<&(f64, Arc<Entry<M>>)> = eligible
        .iter()
        .enumerate()
        .filter(|(index, _)| !chosen.contains(index))
        .map(|(_, one)| one)
        .collect();
    spared.sort_by(|a, b| a.0.total_cmp(&b.0));
    let gone = chosen.iter().map(|index| {
        let (score, entry) = &eligible[*index];
        candidate(entry, Some(*score), None)
    });
    let spared = spared
        .iter()
        .map(|(score, entry)| candidate(entry, Some(*score), Some(Skipped::NotNeeded)));
    let out = skipped
        .iter()
        .map(|(entry, why)| candidate(entry, None, Some(*why)));
    let considered: Vec<Candidate> = gone
        .chain(spared.take(MOST_SPARED))
        .chain(out.take(MOST_SPARED))
        .collect();
    Choice {
        besides: (eligible.len() + skipped.len() - considered.len()) as u64,
        considered,
    }
}
