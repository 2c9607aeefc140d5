//! What is told on a clock: memory, and where everything is.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use malloc_stats::{Depth, Snapshot};
use plimsoll_events::{Kind, Point, Sample};

use super::Gate;

/// How often a live screen is told.
pub(super) const PERIOD: Duration = Duration::from_secs(1);

/// Full snapshots are so far apart at least, and so many times what the last one cost.
const FULL_GAP: Duration = Duration::from_secs(5);
const FULL_SHARE: u32 = 100;

/// Ticks are so many times apart what the last one took.
const SHARE: u32 = 20;

/// Tells on a clock, on a thread that is there only while somebody is to be told.
pub(super) struct Ticks {
    gate: Weak<Gate>,
    period: Duration,
    /// Whether it ticks with no live screen there.
    always: bool,
    state: Mutex<State>,
    changed: Condvar,
    /// A forked child has no such thread, and must not wait for it.
    process: u32,
}

#[derive(Default)]
struct State {
    /// Live screens.
    clients: usize,
    stop: bool,
    /// Whether the thread has not decided to end.
    runs: bool,
    thread: Option<JoinHandle<()>>,
}

impl Ticks {
    /// Ticks in this period for whoever hears the stream, or else for live screens alone.
    pub(super) fn begin(gate: &Arc<Gate>, period: Option<Duration>) -> Arc<Ticks> {
        let ticks = Arc::new(Ticks {
            gate: Arc::downgrade(gate),
            period: period.unwrap_or(PERIOD),
            always: period.is_some(),
            state: Mutex::default(),
            changed: Condvar::new(),
            process: std::process::id(),
        });
        ticks.attended(0, 0);
        ticks
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_wanted(&self, state: &State) -> bool {
        !state.stop && (self.always || state.clients > 0)
    }

    /// Live screens of one publication came or went.
    pub(super) fn attended(self: &Arc<Self>, before: usize, now: usize) {
        let mut state = self.state();
        state.clients = state.clients.saturating_add(now).saturating_sub(before);
        if !self.is_wanted(&state) {
            self.changed.notify_all();
        } else if !state.runs {
            let ticks = Arc::clone(self);
            let thread = std::thread::Builder::new()
                .name("plimsoll-ticks".to_owned())
                .spawn(move || ticks.run());
            match thread {
                Ok(thread) => {
                    state.runs = true;
                    // The one before has ended, but for returning.
                    state.thread = Some(thread);
                }
                Err(error) => tracing::warn!(%error, "live screens are told of decisions alone"),
            }
        }
    }

    /// Ends the thread, and waits for it.
    pub(super) fn end(&self) {
        if self.process != std::process::id() {
            return;
        }
        let thread = {
            let mut state = self.state();
            state.stop = true;
            self.changed.notify_all();
            state.thread.take()
        };
        // A listener of its events may drop the last handle on this thread, which cannot wait for
        // itself.
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }

    /// Sleeps until then; whether somebody is to be told still.
    fn sleep(&self, until: Instant) -> bool {
        let mut state = self.state();
        loop {
            if !self.is_wanted(&state) {
                state.runs = false;
                return false;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn run(&self) {
        let mut next = Instant::now() + self.period;
        let mut full_at = Instant::now() + FULL_GAP;
        while self.sleep(next) {
            // Without a gate it was told to stop.
            if let Some(gate) = self.gate.upgrade() {
                let begun = Instant::now();
                let tick = AssertUnwindSafe(|| gate.tick(&mut full_at));
                if catch_unwind(tick).is_err() {
                    tracing::error!("a sink has panicked at a tick; the cache goes on");
                }
                next = after(next, self.period, begun, Instant::now());
            }
        }
    }
}

/// When the next tick is due, after one that took from `begun` to `now`. Those that were missed, in
/// a process that was stopped, are not made up for.
fn after(due: Instant, period: Duration, begun: Instant, now: Instant) -> Instant {
    let next = due + period;
    let in_step = if next > now { next } else { now + period };
    in_step.max(now + (now - begun) * SHARE)
}

/// Ends the ticks of a cache with it.
pub(super) struct Ticking(pub(super) Arc<Ticks>);

impl Drop for Ticking {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Gate {
    fn tick(&self, full_at: &mut Instant) {
        if !self.io.stream.is_heard() {
            return;
        }
        let now = Instant::now();
        let depth = if *full_at <= now {
            Depth::Full
        } else {
            Depth::Bracket
        };
        let snapshot = self.io.brackets.look(depth);
        if depth == Depth::Full {
            let cost = Duration::from_micros(snapshot.cost_us);
            *full_at = now + FULL_GAP.max(cost.saturating_mul(FULL_SHARE));
        }
        self.settle();
        self.io.tell_hits();
        self.io.stream.emit(self.sample(snapshot));
        self.look_at_page_cache();
        let picture = self.picture();
        self.io.stream.emit(Kind::Picture(Box::new(picture)));
    }

    /// A snapshot, with what is counted at this moment.
    pub(super) fn sample(&self, snapshot: Snapshot) -> Kind {
        Kind::Sample(Box::new(Sample {
            point: Point::Tick,
            memory: self.memory(),
            snapshot,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_that_were_missed_are_not_made_up_for() {
        let (start, ms) = (Instant::now(), Duration::from_millis(1));
        let at = |passed: u32| start + ms * passed;
        let period = ms * 1000;
        assert_eq!(after(at(1000), period, at(1000), at(1001)), at(2000));
        // A tick that was late leaves the next one in its place.
        assert_eq!(after(at(1000), period, at(1400), at(1401)), at(2000));
        // A process that was stopped for an hour.
        let (begun, now) = (at(3_600_000), at(3_600_001));
        assert_eq!(after(at(1000), period, begun, now), at(3_601_001));
    }

    #[test]
    fn ticks_are_twenty_times_as_far_apart_as_what_they_cost() {
        let (start, ms) = (Instant::now(), Duration::from_millis(1));
        let now = start + ms * 100;
        let next = after(start, ms * 1000, start, now);
        assert_eq!(next, now + ms * 2000);
    }
}
