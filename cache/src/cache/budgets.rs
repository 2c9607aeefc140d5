//! Budgets that follow the machine: measuring, and changing what the books allow.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use malloc_stats::Metric;
use malloc_stats::limits::Limits;
use plimsoll_events::{BudgetChange, Kind};

use super::Gate;
use crate::books::{Io, RAM};
use crate::budget::{Budget, DEVICE_RESERVE, Follower, Limit, ram_reserve};
use crate::device::Device;

/// What was found below the tightest bound of a tier.
pub(super) struct Found {
    unused: Metric,
    reclaimable: Metric,
    total: u64,
    bound: String,
}

impl Found {
    /// What this process may still take of RAM.
    fn in_ram() -> Result<Found, String> {
        let limits = Limits::of_self();
        let room = limits.room().ok_or_else(|| limits.notes.join("; "))?;
        let total = room.total.bytes().ok_or("the limit is unknown")?;
        Ok(Found {
            unused: room.unused,
            reclaimable: room.reclaimable,
            total,
            bound: room.bound.to_string(),
        })
    }

    fn on(device: &dyn Device) -> Result<Found, String> {
        let memory = device.memory();
        match (memory.total.bytes(), memory.free) {
            (Some(total), free) if !free.is_unavailable() => Ok(Found {
                unused: free,
                reclaimable: Metric::Unavailable,
                total,
                bound: format!("the memory of {}", device.name()),
            }),
            _ => Err("its driver does not say how much memory it has".to_owned()),
        }
    }

    /// What could be had.
    fn free(&self) -> u64 {
        let parts = [self.unused, self.reclaimable];
        let there = parts.iter().filter_map(|part| part.bytes());
        there.fold(0, u64::saturating_add)
    }

    /// The budget, where the cache itself has `counted` bytes there and the program uses `working`
    /// bytes that it had declared.
    fn budget(&self, counted: u64, working: u64, reserve: u64) -> u64 {
        self.free()
            .saturating_add(counted)
            .saturating_add(working)
            .saturating_sub(reserve)
    }
}

/// What a tier begins with.
pub(super) struct Start {
    pub(super) budget: u64,
    pub(super) ceiling: u64,
    pub(super) reserve: u64,
    pub(super) followed: Option<Followed>,
}

/// A tier whose budget follows.
pub(super) struct Followed {
    tier: usize,
    reserve: u64,
    follower: Follower,
    /// What everything else took when no working memory was declared, bytes.
    idle_others: Option<u64>,
}

impl Followed {
    /// How much of the declared working memory is in use, by what everything else has grown since
    /// none was declared: the reserve is there for it, and must not be left free besides.
    fn working_in_use(&mut self, found: &Found, counted: u64, declared: u64) -> u64 {
        let others = found
            .total
            .saturating_sub(found.free())
            .saturating_sub(counted);
        if declared == 0 {
            self.idle_others = Some(others);
        }
        let idle = *self.idle_others.get_or_insert(others);
        others.saturating_sub(idle).min(declared)
    }
}

/// Finds out what a tier begins with.
///
/// # Errors
/// Why an automatic budget cannot be had.
pub(super) fn start(tier: usize, device: &dyn Device, budget: Budget) -> Result<Start, String> {
    match budget.limit {
        Limit::Fixed(bytes) => {
            let reserve = budget.reserve.unwrap_or(0);
            let bytes = bytes.saturating_sub(reserve);
            Ok(Start {
                budget: bytes,
                ceiling: bytes,
                reserve,
                followed: None,
            })
        }
        Limit::Auto => {
            let found = find(tier, device)?;
            let default = if tier == RAM {
                ram_reserve(found.total)
            } else {
                DEVICE_RESERVE
            };
            let reserve = budget.reserve.unwrap_or(default);
            Ok(Start {
                budget: found.budget(0, 0, reserve),
                ceiling: found.total.saturating_sub(reserve),
                reserve,
                followed: Some(Followed {
                    tier,
                    reserve,
                    follower: Follower::default(),
                    idle_others: None,
                }),
            })
        }
    }
}

fn find(tier: usize, device: &dyn Device) -> Result<Found, String> {
    if tier == RAM {
        Found::in_ram()
    } else {
        Found::on(device)
    }
}

/// How recent a measurement has to be for a lease, nanoseconds.
const RECENT_NS: u64 = 50_000_000;

/// All budgets that follow.
#[derive(Default)]
pub(super) struct Budgets {
    followed: Mutex<Looked>,
    any: AtomicBool,
}

#[derive(Default)]
struct Looked {
    followed: Vec<Followed>,
    budgets: Vec<Option<u64>>,
    at_ns: Option<u64>,
}

impl Budgets {
    pub(super) fn new(followed: Vec<Followed>) -> Budgets {
        Budgets {
            any: AtomicBool::new(!followed.is_empty()),
            followed: Mutex::new(Looked {
                budgets: followed.iter().map(|_| None).collect(),
                followed,
                at_ns: None,
            }),
        }
    }

    /// Whether any budget follows.
    pub(super) fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// Measures again before a lease, unless that was done just now.
    pub(super) fn before_lease(&self, gate: &Arc<Gate>) {
        if !self.any() {
            return;
        }
        let recent = {
            let looked = self.followed.lock();
            let looked = looked.unwrap_or_else(PoisonError::into_inner);
            let now_ns = gate.io.now_ns();
            let at = looked.at_ns;
            at.is_some_and(|at| now_ns.saturating_sub(at) < RECENT_NS)
        };
        if !recent {
            self.follow(gate, "lease");
        }
    }

    /// Sets another budget for a tier: it follows from now on, or no longer.
    ///
    /// # Errors
    /// Why an automatic budget cannot be had; then the old one stays.
    pub(super) fn set(&self, gate: &Arc<Gate>, tier: usize, budget: Budget) -> Result<(), String> {
        let start = start(tier, gate.io.devices[tier].as_ref(), budget)?;
        let follows = start.followed.is_some();
        let looked = self.followed.lock();
        let mut looked = looked.unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = looked.followed.iter().position(|one| one.tier == tier) {
            looked.followed.remove(at);
            looked.budgets.remove(at);
        }
        looked.followed.extend(start.followed);
        let count = looked.followed.len();
        looked.budgets.resize(count, None);
        self.any.store(count > 0, Ordering::Relaxed);
        gate.books().accounts[tier].reserve = start.reserve;
        if follows {
            looked.follow(gate, "start").end(gate, looked);
            gate.io.owed.look_again();
        } else {
            gate.set_budget(tier, start.budget, start.ceiling);
            drop(looked);
            gate.wake_tasks();
            gate.repair();
        }
        Ok(())
    }

    /// Measures, and changes the budgets that are to change.
    pub(super) fn follow(&self, gate: &Arc<Gate>, cause: &str) {
        let mut looked = match self.followed.try_lock() {
            Ok(looked) => looked,
            Err(TryLockError::Poisoned(looked)) => looked.into_inner(),
            // Whoever comes while another measures need not measure as well.
            Err(TryLockError::WouldBlock) => return,
        };
        looked.follow(gate, cause).end(gate, looked);
    }
}

/// Budgets that have changed, to be told of.
struct Changes(Vec<Kind>);

impl Changes {
    /// Tells of them and evicts what no longer fits, which is not done under the lock.
    fn end(self, gate: &Arc<Gate>, looked: MutexGuard<'_, Looked>) {
        drop(looked);
        if self.0.is_empty() {
            return;
        }
        gate.wake_tasks();
        self.0
            .into_iter()
            .for_each(|kind| gate.io.stream.emit(kind));
        gate.repair();
    }
}

impl Looked {
    /// Measures, and changes the budgets in the books: whoever sets another meanwhile comes after.
    fn follow(&mut self, gate: &Arc<Gate>, cause: &str) -> Changes {
        let now_ns = gate.io.now_ns();
        self.at_ns = Some(now_ns);
        let mut changes = Vec::new();
        let Looked {
            followed, budgets, ..
        } = self;
        for (one, was) in followed.iter_mut().zip(budgets) {
            let device = gate.io.devices[one.tier].as_ref();
            // What cannot be read now leaves the budget as it is.
            let Ok(found) = find(one.tier, device) else {
                continue;
            };
            let (counted, declared) = gate.counted(one.tier);
            let working = one.working_in_use(&found, counted, declared);
            let measured = found.budget(counted, working, one.reserve);
            let Some(budget) = one.follower.next(measured, now_ns) else {
                continue;
            };
            let ceiling = found.total.saturating_sub(one.reserve).max(budget);
            gate.set_budget(one.tier, budget, ceiling);
            changes.push(Kind::Budget(Box::new(BudgetChange {
                tier: device.name().to_owned(),
                was_bytes: was.replace(budget),
                budget_bytes: budget,
                counted_bytes: counted,
                working_bytes: working,
                unused: found.unused,
                reclaimable: found.reclaimable,
                reserve_bytes: one.reserve,
                bound: found.bound,
                cause: cause.to_owned(),
            })));
        }
        Changes(changes)
    }
}

impl Gate {
    /// The bytes of a tier that the cache has for sure: what counts, less what has not arrived, and
    /// what is kept for loads under way. With the working memory that leases have declared.
    pub(super) fn counted(&self, tier: usize) -> (u64, u64) {
        let kept = self.io.devices[tier].kept_bytes();
        let (used, declared) = {
            let books = self.books();
            let account = &books.accounts[tier];
            let begun = account.used().saturating_sub(books.awaited(tier));
            (begun, account.working_bytes())
        };
        let arriving = if tier == RAM {
            self.io.arriving.load(Ordering::Relaxed)
        } else {
            0
        };
        // Page cache is already in what the machine says can be had.
        let page_cache = self.io.devices[tier].page_cache_bytes();
        let counted = used.saturating_sub(arriving).saturating_sub(page_cache);
        (counted.saturating_add(kept), declared)
    }
}
