//! What goes on in the background: budgets that follow, models that nobody leased for long, and
//! memory that was freed and did not come back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use malloc_stats::limits::watch::{PressureWatch, Stopper, Woken};
use malloc_stats::{Depth, Metric, Snapshot};
use plimsoll_events::{EvictReason, Kind, Reclaim as Reclaimed, Settled};
use plimsoll_profiles::Reclaim;

use super::budgets::Budgets;
use super::{Gate, Seat};
use crate::books::{Io, RAM};

/// How often budgets are measured where the kernel does not call.
const TICK: Duration = Duration::from_millis(500);
/// How long the kernel's call is waited for at a time.
const LISTEN: Duration = Duration::from_secs(60);
/// Between two calls of the kernel that are heeded.
const BREATHER: Duration = Duration::from_millis(20);
/// What is missing has to be worth a walk over the whole heap.
const WORTH_RECLAIMING: u64 = 1 << 20;
/// Between two reclaims, at least; and so many times what the last one took.
const RECLAIM_GAP: Duration = Duration::from_secs(1);
const RECLAIM_SHARE: u32 = 50;
/// After one that gained next to nothing the gap doubles, up to this.
const LONGEST_GAP: Duration = Duration::from_secs(60);
/// When the net gain of a reclaim is looked at.
const SETTLE: Duration = Duration::from_secs(60);

/// What unloads freed and the system has not got back.
#[derive(Default)]
pub(crate) struct Owed {
    state: Mutex<Todo>,
    changed: Condvar,
}

#[derive(Default)]
struct Todo {
    missing: u64,
    pressure: bool,
    stop: bool,
    unsettled: Vec<Unsettled>,
}

impl Owed {
    fn todo(&self) -> std::sync::MutexGuard<'_, Todo> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an unload that freed so many bytes, of which so many are back or in use again.
    pub(super) fn unloaded(&self, freed: u64, back: u64) {
        // A tenth may be somebody else's allocation meanwhile.
        let missing = freed.saturating_sub(back);
        if missing > freed / 10 {
            self.todo().missing += missing;
            self.changed.notify_all();
        }
    }

    /// What is missing, which is about to be asked back.
    pub(super) fn take_missing(&self) -> u64 {
        std::mem::take(&mut self.todo().missing)
    }

    fn press(&self) {
        self.todo().pressure = true;
        self.changed.notify_all();
    }

    /// Has the keeper look at what there is to do: it may have become more.
    pub(super) fn look_again(&self) {
        drop(self.todo());
        self.changed.notify_all();
    }

    fn stop(&self) {
        self.todo().stop = true;
        self.changed.notify_all();
    }
}

/// What the keeper is to do.
pub(super) struct Duties {
    pub(super) keep_alive: Duration,
    pub(super) reclaim: Reclaim,
    pub(super) budgets: Arc<Budgets>,
}

/// The keeper's threads. They end when this is dropped.
pub(super) struct Keeper {
    gate: Weak<Gate>,
    watch: Option<Stopper>,
    threads: Vec<JoinHandle<()>>,
    /// A forked child has none of the threads, and must not wait for them.
    process: u32,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            return;
        }
        if let Some(watch) = &self.watch {
            watch.stop();
        }
        if let Some(gate) = self.gate.upgrade() {
            gate.io.owed.stop();
        }
        // What the cache holds is to be gone when the cache is. A listener of its events may drop
        // the last handle on one of these threads, which cannot wait for itself.
        for thread in self.threads.drain(..) {
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

impl Keeper {
    /// Begins, where there is anything to do.
    pub(super) fn begin(gate: &Arc<Gate>, duties: Duties) -> Keeper {
        let mut keeper = Keeper {
            gate: Arc::downgrade(gate),
            watch: None,
            threads: Vec::new(),
            process: std::process::id(),
        };
        let follows = duties.budgets.any();
        if duties.keep_alive.is_zero() && duties.reclaim == Reclaim::None && !follows {
            return keeper;
        }
        if follows {
            let watch = PressureWatch::of_self();
            tracing::info!(source = %watch.source(), "budgets follow the machine");
            keeper.watch = Some(watch.stopper());
            let gate = Arc::downgrade(gate);
            keeper.start("plimsoll-watch", move || listen(&watch, &gate));
        }
        let gate = Arc::downgrade(gate);
        keeper.start("plimsoll-keeper", move || keep(&gate, &duties));
        keeper
    }

    fn start(&mut self, name: &str, work: impl FnOnce() + Send + 'static) {
        match std::thread::Builder::new().name(name.into()).spawn(work) {
            Ok(thread) => self.threads.push(thread),
            Err(error) => {
                tracing::warn!(%error, thread = name, "budgets, keep-alive, reclaim stand still");
            }
        }
    }
}

fn listen(watch: &PressureWatch, gate: &Weak<Gate>) {
    loop {
        match watch.wait(LISTEN) {
            Woken::Stopped => return,
            Woken::Pressure => {
                let Some(gate) = gate.upgrade() else {
                    return;
                };
                gate.io.owed.press();
                drop(gate);
                std::thread::sleep(BREATHER);
            }
            Woken::Timeout | Woken::Nudged => {}
        }
    }
}

/// A reclaim whose net gain is still to be looked at.
struct Unsettled {
    due: Instant,
    action: String,
    missing: u64,
    took_us: u64,
    gain: Metric,
    /// Resident memory less what the cache counted, before the action.
    besides: Option<i128>,
}

/// What a reclaim did.
pub(super) struct Reclaiming {
    pub(super) gain: Metric,
    took: Duration,
    pub(super) failed: Option<std::io::Error>,
}

/// Reclaims whose net gain is looked at, at most.
const MOST_UNSETTLED: usize = 64;

struct Keeping<'a> {
    duties: &'a Duties,
    last_reclaim: Option<Instant>,
    gap: Duration,
}

fn keep(gate: &Weak<Gate>, duties: &Duties) {
    let mut keeping = Keeping {
        duties,
        last_reclaim: None,
        gap: RECLAIM_GAP,
    };
    while let Some(gate) = gate.upgrade() {
        let (missing, pressure, stop) = keeping.wait(&gate);
        if stop {
            return;
        }
        let round = AssertUnwindSafe(|| keeping.round(&gate, missing, pressure));
        if catch_unwind(round).is_err() {
            tracing::error!("a sink has panicked in the background; the cache goes on");
        }
    }
}

impl Keeping<'_> {
    fn round(&mut self, gate: &Arc<Gate>, missing: u64, pressure: bool) {
        if self.duties.budgets.any() {
            let cause = if pressure { "pressure" } else { "poll" };
            self.duties.budgets.follow(gate, cause);
        }
        if !self.duties.keep_alive.is_zero() {
            evict_idle(gate, self.duties.keep_alive);
        }
        self.reclaim(gate, missing);
        gate.settle();
    }

    /// How long there is nothing to do, if nobody calls.
    fn pause(&self, todo: &Todo, now: Instant) -> Duration {
        let mut limit = Duration::from_secs(3600);
        if self.duties.budgets.any() {
            limit = limit.min(TICK);
        }
        if !self.duties.keep_alive.is_zero() {
            let often = self.duties.keep_alive / 4;
            limit = limit.min(often.clamp(Duration::from_millis(10), Duration::from_secs(1)));
        }
        let dues = todo.unsettled.iter().map(|one| one.due);
        dues.fold(limit, |limit, due| {
            limit.min(due.saturating_duration_since(now))
        })
    }

    /// Waits until there is something to do. Returns what is missing, whether the kernel called,
    /// and whether to end.
    fn wait(&self, gate: &Gate) -> (u64, bool, bool) {
        let reclaims = self.duties.reclaim != Reclaim::None;
        let began = Instant::now();
        let mut todo = gate.io.owed.todo();
        loop {
            let now = Instant::now();
            let until = began + self.pause(&todo, began);
            let reclaim_at = self.last_reclaim.map_or(now, |last| last + self.gap);
            let worth = reclaims && todo.missing >= WORTH_RECLAIMING;
            let due = if worth { until.min(reclaim_at) } else { until };
            if todo.stop || todo.pressure || now >= due {
                let pressure = std::mem::take(&mut todo.pressure);
                let missing = if worth && now >= reclaim_at {
                    std::mem::take(&mut todo.missing)
                } else {
                    0
                };
                return (missing, pressure, todo.stop);
            }
            todo = gate
                .io
                .owed
                .changed
                .wait_timeout(todo, due.saturating_duration_since(now))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn reclaim(&mut self, gate: &Gate, missing: u64) {
        if missing == 0 {
            return;
        }
        let action = self.duties.reclaim;
        let done = gate.reclaim(action, missing);
        if let Some(error) = done.failed {
            tracing::warn!(%error, %action, "reclaim failed");
        }
        self.gap = if done.gain.bytes().unwrap_or(0) < missing / 20 {
            (self.gap * 2).min(LONGEST_GAP)
        } else {
            RECLAIM_GAP.max(done.took * RECLAIM_SHARE)
        };
        self.last_reclaim = Some(Instant::now());
    }
}

impl Gate {
    /// Asks freed memory back from the allocator, and tells of it.
    pub(super) fn reclaim(&self, action: Reclaim, missing: u64) -> Reclaiming {
        let before = self.io.brackets.take(Depth::Bracket);
        let besides = besides(self, &before);
        let started = Instant::now();
        let failed = action.run().err();
        let took = started.elapsed();
        let after = self.io.brackets.take(Depth::Bracket);
        let fell = before.process.rss.bytes().zip(after.process.rss.bytes());
        // Others allocate and free meanwhile.
        let gain = fell.map_or(Metric::Unavailable, |(before, after)| {
            Metric::Estimated(before.saturating_sub(after))
        });
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.io.stream.emit(Kind::Reclaim(Box::new(Reclaimed {
            action: action.to_string(),
            missing_bytes: missing,
            took_us,
            gain,
            settled: None,
        })));
        let mut todo = self.io.owed.todo();
        if todo.unsettled.len() < MOST_UNSETTLED {
            todo.unsettled.push(Unsettled {
                due: Instant::now() + SETTLE,
                action: action.to_string(),
                missing,
                took_us,
                gain,
                besides,
            });
        }
        drop(todo);
        Reclaiming { gain, took, failed }
    }

    /// Tells what became of reclaims a while ago.
    pub(super) fn settle(&self) {
        let now = Instant::now();
        let due: Vec<Unsettled> = {
            let mut todo = self.io.owed.todo();
            todo.unsettled
                .extract_if(.., |one| one.due <= now)
                .collect()
        };
        for one in due {
            let snapshot = self.io.brackets.take(Depth::Bracket);
            let net = one.besides.zip(besides(self, &snapshot));
            let Some(net) = net.map(|(before, after)| before - after) else {
                continue;
            };
            self.io.stream.emit(Kind::Reclaim(Box::new(Reclaimed {
                action: one.action,
                missing_bytes: one.missing,
                took_us: one.took_us,
                gain: one.gain,
                settled: Some(Settled {
                    after_s: SETTLE.as_secs(),
                    net_bytes: net.clamp(i64::MIN.into(), i64::MAX.into()) as i64,
                }),
            })));
        }
    }
}

/// What is resident besides the weights that are counted.
fn besides(gate: &Gate, snapshot: &Snapshot) -> Option<i128> {
    let rss = snapshot.process.rss.bytes()?;
    let books = gate.books();
    let counted: u64 = books.accounts[RAM].used();
    Some(i128::from(rss) - i128::from(counted))
}

/// Evicts what was not leased for that long.
fn evict_idle(gate: &Arc<Gate>, keep_alive: Duration) {
    let now_ns = gate.io.now_ns();
    let limit = u64::try_from(keep_alive.as_nanos()).unwrap_or(u64::MAX);
    let mut idle = Vec::new();
    {
        let books = gate.books();
        for account in &books.accounts {
            for entry in account.resident() {
                let slot = &entry.slots[account.tier];
                if slot.pins.count() > 0 || slot.preferred() > 0 {
                    slot.last_leased_ns.store(now_ns, Ordering::Relaxed);
                } else if now_ns.saturating_sub(slot.last_leased_ns.load(Ordering::Relaxed))
                    >= limit
                {
                    idle.push(Seat::new(entry, account.tier));
                }
            }
        }
    }
    let reason = EvictReason::Idle {
        keep_alive_ms: u64::try_from(keep_alive.as_millis()).unwrap_or(u64::MAX),
    };
    gate.evict_idle(&idle, &reason);
}
