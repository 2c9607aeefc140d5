//! The end of a partial lease.

use std::time::Instant;

use plimsoll_events::Streamed;

use super::fetching::remains_of;
use super::streaming::{Core, PATIENCE, Streaming};
use crate::books::{Io as _, Reserved};
use crate::cache::Seat;

/// What is left to do once a partial lease has ended, together with the rest of its lease: others
/// hear of it, and may panic.
pub(crate) struct Ended {
    /// What it had pinned besides its first part.
    pub(crate) firm: Vec<Seat>,
    /// What there is to tell.
    pub(crate) told: Streamed,
}

impl Streaming {
    /// Ends it: nothing is fetched any more, and what is in the pool goes. A fetch that is stuck
    /// gives back what is kept for it when it ends. To be called once.
    pub(crate) fn end(&self) -> Ended {
        self.core.end()
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        // Of a lease that never came to be.
        if !self.core.state().has_ended {
            let ended = self.core.end();
            let gate = &self.core.gate;
            gate.leave(ended.firm.iter(), &Reserved::default());
        }
    }
}

impl Core {
    /// Has it stay on the device as long as nobody needs the room.
    pub(super) fn prefer(&self) {
        let wanted = &self.seats[1..self.wanted];
        wanted.iter().for_each(|seat| seat.slot().prefer());
        if self.uses_ram() {
            self.in_ram().slot().prefer();
        }
    }

    fn end(&self) -> Ended {
        let residency = self.residency();
        let now_ns = self.gate.io.now_ns();
        for seat in &self.seats[1..self.wanted] {
            let slot = seat.slot();
            slot.forgo();
            // It was used until now.
            slot.used(now_ns);
        }
        if self.uses_ram() {
            self.in_ram().slot().forgo();
            self.in_ram().slot().used(now_ns);
        }
        let firm = self.firm().take();
        let mut state = self.state();
        state.has_ended = true;
        self.changed.notify_all();
        // One that is stuck is not waited for.
        let since = Instant::now();
        while state.is_moving && since.elapsed() < PATIENCE {
            state = self.sleep(state, Some(PATIENCE));
        }
        // Whoever of the two comes last gives back.
        state.is_left = true;
        let is_moving = state.is_moving;
        drop(state);
        if !is_moving {
            self.give_back();
        }
        Ended {
            firm,
            told: Streamed {
                model: self.kept.division.model.name().to_owned(),
                tier: self.gate.io.tier_name(self.kept.tier).to_owned(),
                bytes: residency.bytes,
                resident_bytes: residency.resident_bytes,
                pool_bytes: residency.pool_bytes,
                streamed_bytes: residency.streamed_bytes,
                transfers: residency.transfers,
                waited_us: u64::try_from(residency.waited.as_micros()).unwrap_or(u64::MAX),
                out_of_order: residency.out_of_order,
            },
        }
    }

    /// Gives back everything that the lease kept. What tensors hold is counted on.
    pub(super) fn give_back(&self) {
        self.announce(0);
        let (there, mut held) = {
            let mut state = self.state();
            (state.pool.empty(), state.pool.take_held())
        };
        let there = there.into_iter();
        held.extend(there.filter_map(|one| remains_of(one.weights)));
        self.gate
            .end_pool(self.kept.tier, held, &self.kept.reserved);
    }
}
