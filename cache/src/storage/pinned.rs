//! Storage `pinned`: regions whose pages are locked, so that devices read them by themselves.
//!
//! Locking takes about as long as reading does, so the region of an evicted model is kept for a load
//! that is under way, cut or grown to what that needs. What no load is expected for is unlocked and
//! goes back to the system at once: an idle cache keeps nothing, and an eviction under pressure gives
//! all of it back.

use std::sync::{Mutex, MutexGuard, PoisonError};

use malloc_stats::Size;
use malloc_stats::limits::{Limit, Limits};
use plimsoll_profiles::window::Orphan;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

use super::place::Place;
use crate::driver::{Lock, PageLocker, keep_to_this_process};

/// So much is locked at once: the last of it can be unlocked without the rest.
pub(crate) const GRANULE: usize = 64 << 20;

/// The share of RAM, or of the cgroup's limit, that is locked at most where nothing is said.
const SHARE: u64 = 2;

/// The pages that may be locked, and those that wait for a model.
#[derive(Debug)]
pub(crate) struct LockedPages {
    /// `None` where the cache has no device that can lock any.
    locker: Option<PageLocker>,
    most: Most,
    state: Mutex<State>,
}

/// How much may be locked.
#[derive(Debug)]
struct Most {
    bytes: u64,
    /// What says so.
    reason: String,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<Stretch>,
    /// Bytes that loads under way will still take.
    expected: usize,
    /// Bytes that waited for a load, were not used by one, and went back; not told yet.
    given: usize,
    locked: u64,
    /// The longest region so far: others are given as many addresses, to grow into.
    longest: usize,
}

/// Addresses of which the first `len` are locked pages.
#[derive(Debug)]
pub(crate) struct Stretch {
    place: Option<Place>,
    /// The first, a multiple of [`GRANULE`].
    base: usize,
    len: usize,
    room: usize,
    locks: Vec<Lock>,
}

/// Why there are none.
#[derive(Debug)]
pub(crate) enum Unlocked {
    /// Not even memory.
    NoMemory(String),
    /// They cannot be locked.
    Refused(String),
}

impl Stretch {
    fn reserve(room: usize) -> Result<Stretch, Unlocked> {
        let whole = room
            .checked_add(GRANULE)
            .ok_or_else(|| Unlocked::NoMemory("there are not so many addresses".to_owned()))?;
        let place = Place::reserve(whole).map_err(Unlocked::NoMemory)?;
        Ok(Stretch {
            base: (place.base().as_ptr() as usize).next_multiple_of(GRANULE),
            place: Some(place),
            len: 0,
            room,
            locks: Vec::new(),
        })
    }

    pub(super) fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    /// Maps and locks more, or less, until it has so many bytes.
    fn resize(&mut self, len: usize, locker: &PageLocker) -> Result<(), Unlocked> {
        if len == self.len && self.locked() == len {
            return Ok(());
        }
        // What is locked at once is unlocked at once.
        let whole = len.min(self.len) / GRANULE * GRANULE;
        while self.locked() > whole {
            if let Some(lock) = self.locks.pop()
                && let Err(error) = lock.end()
            {
                // The driver still takes it for locked: nothing else may come to lie there.
                std::mem::forget(self.place.take());
                return Err(Unlocked::Refused(error.to_string()));
            }
        }
        if len < self.len {
            self.map(len, self.len, ProtFlags::empty())?;
        } else {
            self.map(self.len, len, ProtFlags::READ | ProtFlags::WRITE)?;
        }
        self.len = len;
        while self.locked() < len {
            let at = self.locked();
            let next = (len - at).min(GRANULE);
            // SAFETY: mapped above, not locked yet, and unlocked before it is unmapped.
            let lock = unsafe { locker.lock(self.base + at, next) };
            self.locks
                .push(lock.map_err(|error| Unlocked::Refused(error.to_string()))?);
        }
        Ok(())
    }

    fn locked(&self) -> usize {
        self.locks.iter().map(Lock::bytes).sum()
    }

    fn map(&self, from: usize, to: usize, access: ProtFlags) -> Result<(), Unlocked> {
        if from >= to {
            return Ok(());
        }
        // SAFETY: its own addresses, of which nobody uses this part.
        let mapped = unsafe {
            mmap_anonymous(
                (self.base + from) as *mut _,
                to - from,
                access,
                MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED,
            )
        };
        let at = mapped.map_err(|errno| Unlocked::NoMemory(errno.to_string()))?;
        // SAFETY: just mapped.
        unsafe { keep_to_this_process(at as usize, to - from) };
        Ok(())
    }

    /// Unlocks all of it. Returns its place, unless the driver still takes that for locked.
    fn unlock(&mut self) -> Option<Place> {
        let place = self.place.take();
        let ended = self.locks.drain(..).map(Lock::end);
        // Every one is tried.
        if ended.filter(Result::is_err).count() > 0 {
            std::mem::forget(place);
            return None;
        }
        place
    }

    /// The first address.
    pub(super) fn base(&self) -> usize {
        self.base
    }

    /// Whether tensors hold its memory.
    pub(super) fn is_held(&self) -> bool {
        matches!(&self.place, Some(Place::Span(span)) if span.adopted() > 0)
    }
}

impl Drop for Stretch {
    fn drop(&mut self) {
        drop(self.unlock());
    }
}

impl LockedPages {
    /// Locks by this, at most so many bytes, or as many as this machine bears.
    pub(crate) fn new(locker: Option<PageLocker>, most: Option<u64>) -> LockedPages {
        LockedPages {
            locker,
            most: Most::of(most, &Limits::of_self(), may_lock_any()),
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn expect(&self, bytes: usize) {
        let mut state = self.state();
        state.expected = state.expected.saturating_add(bytes);
    }

    pub(crate) fn unexpect(&self, bytes: usize) {
        let mut state = self.state();
        state.expected = state.expected.saturating_sub(bytes);
        let loose = state.give_back();
        drop(state);
        drop(loose);
    }

    /// Bytes that waited for a load and went back, since the last call.
    pub(crate) fn take_given(&self) -> u64 {
        std::mem::take(&mut self.state().given) as u64
    }

    /// Notes pages that a load had taken and that went back with it.
    pub(super) fn given(&self, bytes: usize) {
        self.state().given += bytes;
    }

    /// Bytes that wait for a load.
    pub(crate) fn idle_bytes(&self) -> usize {
        self.state().idle.iter().map(|idle| idle.len).sum()
    }

    /// Bytes that are locked, in models and waiting.
    pub(crate) fn locked_bytes(&self) -> u64 {
        self.state().locked
    }

    /// Locked pages for a model of so many bytes, and how many of them were locked already.
    ///
    /// # Errors
    /// There is no memory, or it cannot be locked: then it is to be kept without.
    pub(super) fn take(&self, len: usize) -> Result<(Stretch, usize), Unlocked> {
        let mut state = self.state();
        state.expected = state.expected.saturating_sub(len);
        let Some(locker) = &self.locker else {
            return Err(Unlocked::Refused(
                "no device of this cache can lock pages".to_owned(),
            ));
        };
        let fits = |idle: &&Stretch| idle.room >= len;
        let best = state.idle.iter().filter(fits).map(|idle| idle.len).max();
        let best = state
            .idle
            .iter()
            .position(|idle| idle.room >= len && Some(idle.len) == best);
        let had = best.map_or(0, |best| state.idle[best].len);
        let locked = (state.locked - had as u64).saturating_add(len as u64);
        if locked > self.most.bytes {
            let loose = state.give_back();
            drop(state);
            drop(loose);
            return Err(Unlocked::Refused(format!(
                "{} would be locked, and {} may be: {}",
                Size(locked),
                Size(self.most.bytes),
                self.most.reason
            )));
        }
        state.longest = state.longest.max(len);
        let mut stretch = match best {
            Some(best) => state.idle.swap_remove(best),
            // Room to grow into, but not so much that a small one takes what addresses there are.
            None => Stretch::reserve(state.longest.min(len.saturating_mul(4)).max(len))?,
        };
        // Counted before it is so: locking takes its time, and others are not kept waiting for it.
        state.locked = locked;
        state.given += had.saturating_sub(len);
        let loose = state.give_back();
        drop(state);
        drop(loose);
        match stretch.resize(len, locker) {
            Ok(()) => Ok((stretch, had.min(len))),
            Err(why) => {
                drop(stretch);
                let mut state = self.state();
                state.locked -= len as u64;
                state.given += had.min(len);
                Err(why)
            }
        }
    }

    /// Takes pages back that nobody uses, and keeps those that a load is expected for. Returns the
    /// bytes kept and the bytes that went back to the system.
    pub(super) fn put(&self, stretch: Stretch) -> (usize, usize) {
        let state = self.state();
        let len = stretch.len;
        let wanted = state.expected.saturating_sub(
            state
                .idle
                .iter()
                .map(|idle| idle.len)
                .fold(0, usize::saturating_add),
        );
        let keep = match &self.locker {
            Some(locker) if wanted > 0 && wanted <= stretch.room => Some((locker, wanted.min(len))),
            _ => None,
        };
        drop(state);
        let mut stretch = stretch;
        // The driver takes its time, and others are not kept waiting for it.
        let kept = keep.filter(|(locker, keep)| stretch.resize(*keep, locker).is_ok());
        let Some((_, kept)) = kept else {
            drop(stretch);
            self.state().locked -= len as u64;
            return (0, len);
        };
        let mut state = self.state();
        state.locked -= (len - kept) as u64;
        state.idle.push(stretch);
        // The load may not come any more.
        let loose = state.give_back();
        drop(state);
        drop(loose);
        (kept, len - kept)
    }

    /// Unlocks pages that tensors still hold. Returns what tells when those are gone, unless they
    /// just were.
    pub(super) fn leave(&self, mut stretch: Stretch) -> Option<Orphan> {
        let place = stretch.unlock();
        self.state().locked -= stretch.len as u64;
        match place {
            Some(Place::Span(span)) => span.orphan().err(),
            _ => None,
        }
    }
}

impl State {
    /// Takes out what waits beyond what loads under way expect, to be unlocked once nobody waits for
    /// the state.
    fn give_back(&mut self) -> Vec<Stretch> {
        let mut left = self.expected;
        let (wanted, loose): (Vec<_>, Vec<_>) = self.idle.drain(..).partition(|idle| {
            let is_wanted = idle.len <= left;
            if is_wanted {
                left -= idle.len;
            }
            is_wanted
        });
        self.idle = wanted;
        let given: usize = loose.iter().map(|idle| idle.len).sum();
        self.given += given;
        self.locked -= given as u64;
        loose
    }
}

impl Most {
    fn of(asked: Option<u64>, limits: &Limits, may_lock_any: bool) -> Most {
        let tightest = limits.room().and_then(|room| {
            let total = room.total.bytes()?;
            Some((total, room.bound.to_string()))
        });
        let mut most = match (asked, tightest) {
            (Some(asked), Some((total, bound))) if total < asked => Most {
                bytes: total,
                reason: format!("all of {bound}"),
            },
            (Some(asked), _) => Most {
                bytes: asked,
                reason: "as was asked for".to_owned(),
            },
            (None, Some((total, bound))) => Most {
                bytes: total / SHARE,
                reason: format!("half of {bound}"),
            },
            (None, None) => Most {
                bytes: 0,
                reason: "how much memory there is cannot be told; say how much may be".to_owned(),
            },
        };
        if let Limit::Bytes(limit) = limits.rlimits.locked
            && limit < most.bytes
            && !may_lock_any
        {
            most = Most {
                bytes: limit,
                reason: "RLIMIT_MEMLOCK (raise it with `ulimit -l`, or LimitMEMLOCK= of the unit)"
                    .to_owned(),
            };
        }
        most
    }
}

/// Whether this process may lock as much as it likes: it has `CAP_IPC_LOCK` (`capabilities(7)`).
fn may_lock_any() -> bool {
    const IPC_LOCK: u32 = 14;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|value| u64::from_str_radix(value.trim(), 16).ok());
    effective.is_some_and(|effective| effective >> IPC_LOCK & 1 == 1)
}
