//! What comes to stay: the copy in RAM, and parts on the device, now and again later.

use std::sync::Arc;

use super::streaming::{Core, Streaming};
use crate::books::{Ask, Denied, Fault as _, Grant, Io as _, Pending, RAM, Wait};
use crate::cache::{Known, Seat};
use crate::error::Error;

impl Streaming {
    /// What brings the model into RAM, for what streams, and onto its device as many of its parts as
    /// there is room for, and then begins to fetch what will be asked for first of the rest. To be done
    /// by any thread, whatever becomes of the lease meanwhile.
    ///
    /// # Errors
    /// A part that cannot be loaded, other than for want of memory.
    pub(crate) fn settle_in(&self) -> impl FnOnce() -> Result<(), Error> + Send + use<> {
        let core = Arc::clone(&self.core);
        move || {
            core.grow()?;
            let mut units = 0..core.kept.division.units.len();
            if units.any(|unit| !core.is_resident(unit)) {
                let mut state = core.state();
                core.ensure_running(&mut state);
            }
            Ok(())
        }
    }

    /// Brings as many parts as there is room for without waiting, in the order of use: what nobody
    /// cares for goes for them, nothing else. Returns the bytes that came.
    ///
    /// # Errors
    /// A part that cannot be loaded, other than for want of memory.
    pub(crate) fn grow(&self) -> Result<u64, Error> {
        self.core.grow()
    }
}

impl Core {
    /// Whether a copy in RAM is what streams.
    pub(super) fn uses_ram(&self) -> bool {
        let streams = !self.kept.division.units.is_empty();
        self.kept.tier != RAM && streams && self.gate.rules.keep_ram_copy
    }

    pub(super) fn in_ram(&self) -> Seat {
        Seat::new(&self.whole.entry, RAM)
    }

    fn grow(self: &Arc<Self>) -> Result<u64, Error> {
        self.bring_in_ram();
        let mut missing = self.missing();
        while !missing.is_empty() {
            match self.ask(&missing) {
                Ok(grant) => return Ok(self.keep(grant)),
                Err(Denied::Load(error)) if error.wants_room().is_none() => return Err(error),
                // Somebody was faster, or the memory is not what the budget says.
                Err(_) => missing.truncate(missing.len() / 2),
            }
        }
        Ok(0)
    }

    /// Where RAM has no room for a copy, it streams from its files; where those cannot be read, that
    /// will be said of its parts.
    fn bring_in_ram(&self) {
        let seat = self.in_ram();
        if !self.uses_ram() || seat.slot().pins.is_open() {
            return;
        }
        let room = self.gate.books().could_make(RAM, &[]);
        if seat.charge() <= room
            && let Ok(grant) = self.ask(std::slice::from_ref(&seat))
        {
            let seats = grant.seats.iter().map(|(seat, _)| seat);
            self.gate.leave(seats, &grant.reserved);
        }
    }

    fn ask(&self, seats: &[Seat]) -> Result<Grant<Known>, Denied<Error>> {
        let ask = |seat: &Seat| Ask::new(Arc::clone(&seat.entry), vec![seat.tier]);
        let spare = |ask: Ask<Known>| Ask {
            spares: true,
            ..ask
        };
        let asks = seats.iter().map(ask).map(spare).collect();
        let mut pending = Pending::new(&self.gate, asks, None);
        self.gate.lease(&mut pending, Wait::Never)
    }

    /// The parts that are wanted and that there is room for, as many as may be, from the first on.
    fn missing(&self) -> Vec<Seat> {
        let kept = self.firm();
        let mut room = self.gate.books().could_make(self.kept.tier, &self.seats);
        let mut missing = Vec::new();
        for seat in &self.seats[1..self.wanted] {
            if !seat.slot().pins.is_open() {
                let Some(left) = room.checked_sub(seat.charge()) else {
                    break;
                };
                room = left;
            } else if !self.kept.is_firm || kept.seats.contains(seat) {
                continue;
            }
            missing.push(seat.clone());
        }
        missing
    }

    /// Keeps what has come: pinned where it is to stay. Returns the bytes of what was not there.
    fn keep(&self, grant: Grant<Known>) -> u64 {
        let now_ns = self.gate.io.now_ns();
        let mut bytes = 0;
        for (seat, was_there) in &grant.seats {
            seat.slot().leased(now_ns, *was_there);
            bytes += if *was_there { 0 } else { seat.charge() };
        }
        let seats = grant.seats.into_iter().map(|(seat, _)| seat);
        let mut seats: Vec<Seat> = seats.collect();
        if self.kept.is_firm {
            let mut firm = self.firm();
            // Another thread may have brought the same.
            let has_ended = firm.has_ended;
            let new = seats.extract_if(.., |seat| !has_ended && !firm.seats.contains(seat));
            let new: Vec<Seat> = new.collect();
            if let Some(holder) = &firm.holder {
                holder.holds(new.len());
            }
            firm.seats.extend(new);
        }
        self.gate.leave(seats.iter(), &grant.reserved);
        bytes
    }
}
