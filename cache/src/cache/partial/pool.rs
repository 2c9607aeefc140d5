//! Which units are in the pool, and which goes for which: whatever is needed last.

use crate::books::Remains;
use crate::cache::known;

/// Memory through which units stream.
pub(super) struct Pool {
    bytes: u64,
    /// Bytes of units that are there, coming, or gone but for tensors that somebody holds.
    used: u64,
    /// What each unit takes.
    charges: Box<[u64]>,
    there: Vec<Fetched>,
    held: Vec<(Box<dyn Remains>, u64)>,
    loading: Option<usize>,
    /// The unit that was asked for last.
    cursor: usize,
    /// Units that somebody waits for, each once, the first to be asked for first.
    wanted: Vec<usize>,
}

/// A unit in the pool.
pub(super) struct Fetched {
    pub(super) unit: usize,
    pub(super) weights: known::Shared,
    /// How many look at it now.
    users: usize,
}

/// Whether there is room for a unit.
pub(super) enum Room {
    /// It is reserved.
    Taken,
    /// These go first. Their bytes count until [`Pool::gone`].
    After(Vec<Fetched>),
    /// What is there is needed before it, or held.
    None,
}

impl Pool {
    pub(super) fn new(bytes: u64, charges: Box<[u64]>) -> Pool {
        Pool {
            bytes,
            used: 0,
            // What comes first is next.
            cursor: charges.len().saturating_sub(1),
            charges,
            there: Vec::new(),
            held: Vec::new(),
            loading: None,
            wanted: Vec::new(),
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes that nothing takes.
    pub(super) fn free(&self) -> u64 {
        self.bytes.saturating_sub(self.used)
    }

    /// What a unit takes.
    pub(super) fn charge(&self, unit: usize) -> u64 {
        self.charges[unit]
    }

    /// Bytes that tensors hold of units that are gone.
    pub(super) fn held_bytes(&self) -> u64 {
        self.held.iter().map(|(_, bytes)| bytes).sum()
    }

    /// How far ahead a unit is.
    fn ahead(&self, unit: usize) -> usize {
        let count = self.charges.len();
        (unit + count - self.cursor) % count
    }

    fn is_there(&self, unit: usize) -> bool {
        self.loading == Some(unit) || self.there.iter().any(|one| one.unit == unit)
    }

    /// What to fetch next: what somebody waits for, else what is needed first of what is neither
    /// here nor `resident`.
    pub(super) fn next(&self, resident: impl Fn(usize) -> bool) -> Option<usize> {
        let mut wanted = self.wanted.iter().copied();
        wanted.find(|unit| !self.is_there(*unit)).or_else(|| {
            let count = self.charges.len();
            let ahead = (1..=count).map(|ahead| (self.cursor + ahead) % count);
            let mut missing = ahead.filter(|unit| !resident(*unit));
            missing.find(|unit| !self.is_there(*unit))
        })
    }

    /// Somebody asks for a unit. Whether that was to be expected: it is here, or the next that is
    /// not resident. Where it was not, and `is_again`, the order goes on from where it was.
    pub(super) fn ask(
        &mut self,
        unit: usize,
        is_again: bool,
        resident: impl Fn(usize) -> bool,
    ) -> bool {
        let expected = self.is_there(unit) || unit == self.cursor || {
            let count = self.charges.len();
            let ahead = (1..count).map(|ahead| (self.cursor + ahead) % count);
            ahead.into_iter().find(|unit| !resident(*unit)) == Some(unit)
        };
        self.want(unit);
        if expected || !is_again {
            self.cursor = unit;
        }
        expected || is_again
    }

    /// Somebody waits for a unit, maybe still: another who waited for it may have given up.
    pub(super) fn want(&mut self, unit: usize) -> bool {
        let is_news = !self.is_wanted(unit);
        if is_news {
            self.wanted.push(unit);
        }
        is_news
    }

    pub(super) fn is_wanted(&self, unit: usize) -> bool {
        self.wanted.contains(&unit)
    }

    /// Moves on to a unit that is resident. Returns whether it was not the last one already.
    pub(super) fn pass(&mut self, unit: usize) -> bool {
        let moved = self.cursor != unit;
        self.cursor = unit;
        moved
    }

    /// Gives up waiting for a unit. Who goes on waiting says so again.
    pub(super) fn give_up(&mut self, unit: usize) {
        self.wanted.retain(|wanted| *wanted != unit);
    }

    /// A unit for somebody who waits for it, until [`put_back`](Self::put_back).
    pub(super) fn take(&mut self, unit: usize) -> Option<known::Shared> {
        let fetched = self.there.iter_mut().find(|one| one.unit == unit)?;
        fetched.users += 1;
        let weights = known::Shared::clone(&fetched.weights);
        self.give_up(unit);
        Some(weights)
    }

    pub(super) fn put_back(&mut self, unit: usize) {
        if let Some(fetched) = self.there.iter_mut().find(|one| one.unit == unit) {
            fetched.users -= 1;
        }
    }

    /// Makes room for a unit: by what is needed after it, and, where somebody waits for it, by
    /// anything that nobody waits for.
    pub(super) fn make_room(&mut self, unit: usize) -> Room {
        self.reap();
        let needs = self.charges[unit];
        if needs <= self.free() {
            self.used += needs;
            self.loading = Some(unit);
            return Room::Taken;
        }
        let is_wanted = self.is_wanted(unit);
        // What was asked for last, and is not here, is needed last.
        let needed_in = match self.ahead(unit) {
            0 => self.charges.len(),
            ahead => ahead,
        };
        let goes = |one: &Fetched| {
            let ahead = self.ahead(one.unit);
            one.users == 0
                && !self.is_wanted(one.unit)
                // The one that is in use is not ahead.
                && (is_wanted || ahead > needed_in)
        };
        let candidates = self.there.iter().enumerate();
        let mut candidates: Vec<(usize, usize)> = candidates
            .filter(|(_, one)| goes(one))
            .map(|(at, one)| (self.ahead(one.unit), at))
            .collect();
        candidates.sort_unstable();
        let mut leaving = Vec::new();
        let mut freed = self.free();
        while freed < needs {
            let Some((_, at)) = candidates.pop() else {
                break;
            };
            freed = freed.saturating_add(self.charges[self.there[at].unit]);
            leaving.push(at);
        }
        // One that would not make enough room goes all the same where somebody waits: what is held
        // besides may go at any time.
        if leaving.is_empty() || (freed < needs && !is_wanted) {
            return Room::None;
        }
        leaving.sort_unstable();
        let leaving = leaving.into_iter().rev();
        Room::After(leaving.map(|at| self.there.swap_remove(at)).collect())
    }

    /// Units have gone, but for what tensors hold of them.
    pub(super) fn gone(&mut self, unit: usize, remains: Option<Box<dyn Remains>>) {
        self.used -= self.charges[unit];
        if let Some(remains) = remains {
            let bytes = remains.bytes();
            self.used += bytes;
            self.held.push((remains, bytes));
        }
    }

    /// Stops counting what nobody holds any more.
    fn reap(&mut self) {
        let used = &mut self.used;
        self.held.retain(|(remains, bytes)| {
            let is_gone = remains.is_gone();
            if is_gone {
                *used -= bytes;
            }
            !is_gone
        });
    }

    /// The unit that was coming is here, or failed.
    pub(super) fn fetched(&mut self, unit: usize, weights: Option<known::Shared>) {
        self.loading = None;
        match weights {
            Some(weights) => self.there.push(Fetched {
                unit,
                weights,
                users: 0,
            }),
            None => self.used -= self.charges[unit],
        }
    }

    /// Everything that is here, to be let go of.
    pub(super) fn empty(&mut self) -> Vec<Fetched> {
        std::mem::take(&mut self.there)
    }

    /// What tensors hold of units that are gone.
    pub(super) fn take_held(&mut self) -> Vec<Box<dyn Remains>> {
        let held = std::mem::take(&mut self.held);
        held.into_iter().map(|(remains, _)| remains).collect()
    }
}

#[cfg(test)]
mod tests;
