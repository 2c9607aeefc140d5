//! What has to hold, in as few words as possible: no order, no policy, no threads.

use crate::world::MERGED;

/// A model in a tier, as it was at some time: a dropped model and its successor are two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seat {
    pub model: usize,
    pub generation: u64,
    pub tier: usize,
}

/// What the reference has to know to tell whether a lease can be given.
pub struct Situation<'a> {
    pub charges: &'a [u64],
    pub budgets: [u64; 2],
    /// Held after eviction.
    pub held: [u64; 2],
    /// Declared by leases that live.
    pub working: [u64; 2],
    /// Leased, or seen by tensors: no eviction frees them.
    pub fixed: &'a [Seat],
    pub resident: &'a [Seat],
}

impl Situation<'_> {
    /// Whether a request fits, for one choice of tiers, beside what no eviction can free.
    pub fn fits(&self, wanted: &[(Seat, u64)]) -> bool {
        // Devices are loaded from the copy in RAM, which must not go then, or from files, through
        // staging that is as large as a small model, as everything is that patches change.
        [true, false].into_iter().any(|from_ram| {
            let mut stay: Vec<Seat> = self.fixed.to_vec();
            let mut working = self.working;
            let mut staging = 0;
            for (seat, bytes) in wanted {
                working[seat.tier] += bytes;
                stay.push(*seat);
            }
            for (seat, _) in wanted.iter().filter(|(seat, _)| seat.tier == 1) {
                let in_ram = Seat { tier: 0, ..*seat };
                if self.resident.contains(seat) || wanted.iter().any(|(one, _)| *one == in_ram) {
                } else if from_ram && seat.model != MERGED && self.resident.contains(&in_ram) {
                    stay.push(in_ram);
                } else {
                    staging = staging.max(self.charges[seat.model]);
                }
            }
            stay.sort();
            stay.dedup();
            [0, 1].into_iter().all(|tier| {
                let seats = stay.iter().filter(|seat| seat.tier == tier);
                let bytes: u64 = seats.map(|seat| self.charges[seat.model]).sum();
                let staging = if tier == 0 { staging } else { 0 };
                let more = staging > 0
                    || working[tier] > self.working[tier]
                    || wanted
                        .iter()
                        .any(|(seat, _)| seat.tier == tier && !self.resident.contains(seat));
                // What asks for nothing new there needs no room.
                !more || bytes + self.held[tier] + working[tier] + staging <= self.budgets[tier]
            })
        })
    }
}
