//! Looking into a process, on a thread of its own: a walk of a large heap takes seconds.
//!
//! Looks are paced: on average they take 1 % of the time at most, and are at least an interval
//! apart. What was not collected is replaced by what is newer, so nothing piles up.

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use rustix::time::{ClockId, clock_gettime};

use super::{Ask, InspectError, Inspection, Target, inspect};
use crate::heap::ChunksSeen;

/// A look of one second is followed by none for so many.
const REST: u32 = 100;

/// The longest rest: one walk in which the machine was stopped is not the end of all looks.
const LONGEST_REST: Duration = Duration::from_secs(3600);

/// The most chunks that are read at a time: more than a screen can show, and few enough to keep,
/// at 32 bytes each.
const MOST_CHUNKS: usize = 1 << 16;

/// A thread that looks into a process again and again ([`inspect`] as of [`Ask::default`]: its heap
/// is walked, and it is never stopped).
///
/// On average looks take 1 % of the time at most, by the clock and of a processor alike: one that
/// took a second is followed by none for a hundred, or for an hour at most. The first comes at once,
/// whatever it takes. Dropping this ends the thread: at once where it rests, else after the look
/// under way, for which nobody waits.
#[derive(Debug)]
pub struct Looker {
    desk: Arc<Desk>,
}

/// What came of looking.
#[derive(Debug, Default)]
pub struct Found {
    /// The latest look.
    pub inspection: Option<Box<Inspection>>,
    /// The chunks that were asked for, at most 65536 of them; or why there are none.
    pub chunks: Option<Result<Box<ChunksSeen>, String>>,
    /// Why a look came to nothing.
    pub trouble: Option<String>,
}

#[derive(Debug)]
struct Desk {
    orders: Mutex<Orders>,
    rung: Condvar,
    /// Readable while something was found that nobody has taken.
    bell: OwnedFd,
    /// The processor time of the thread until now, in nanoseconds.
    cpu_ns: AtomicU64,
}

#[derive(Debug)]
struct Orders {
    target: Arc<Target>,
    /// Look now, whatever the pace.
    look: bool,
    /// The chunks that were asked for last.
    chunks: Option<(usize, Range<u64>)>,
    looking: bool,
    /// There is another target than that of the look under way.
    stale: bool,
    stopped: bool,
    found: Found,
}

impl Looker {
    /// Begins to look, at once and then at least `interval` apart.
    ///
    /// # Errors
    ///
    /// There is no descriptor left, or no thread.
    pub fn begin(target: Arc<Target>, interval: Duration) -> std::io::Result<Looker> {
        let desk = Arc::new(Desk {
            orders: Mutex::new(Orders {
                target,
                look: true,
                chunks: None,
                looking: false,
                stale: false,
                stopped: false,
                found: Found::default(),
            }),
            rung: Condvar::new(),
            bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            cpu_ns: AtomicU64::new(0),
        });
        let looker = Looker {
            desk: Arc::clone(&desk),
        };
        std::thread::Builder::new()
            .name("plimsoll-look".to_owned())
            .spawn(move || desk.serve(interval))?;
        Ok(looker)
    }

    /// Looks now, unless it does already.
    pub fn look_now(&self) {
        let mut orders = self.desk.orders();
        if !orders.looking {
            orders.look = true;
            self.desk.rung.notify_one();
        }
    }

    /// Reads chunks after the look under way. Of several requests the last one counts.
    pub fn read_chunks(&self, arena: usize, range: Range<u64>) {
        self.desk.orders().chunks = Some((arena, range));
        self.desk.rung.notify_one();
    }

    /// Looks into another process from now on, at once. A look at the one before that
    /// was not taken is dropped, and chunks that were asked for are answered with an error.
    pub fn turn_to(&self, target: Arc<Target>) {
        {
            let mut orders = self.desk.orders();
            orders.target = target;
            let asked = orders.chunks.take().is_some();
            let gone = asked.then(|| Err("it runs another program now".to_owned()));
            orders.found = Found {
                chunks: orders.found.chunks.take().or(gone),
                ..Found::default()
            };
            orders.look = true;
            orders.stale = orders.looking;
        }
        self.desk.rung.notify_one();
        self.desk.ring();
    }

    /// What was found since this was last asked.
    pub fn take(&self) -> Found {
        let mut orders = self.desk.orders();
        let _ = rustix::io::read(&self.desk.bell, &mut [0; 8]);
        std::mem::take(&mut orders.found)
    }

    /// The processor time that looking has taken until now; without that of a look under way.
    #[must_use]
    pub fn cpu(&self) -> Duration {
        Duration::from_nanos(self.desk.cpu_ns.load(Ordering::Relaxed))
    }

    /// Readable (`poll(2)`) while something was found that was not taken.
    #[must_use]
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.desk.bell.as_fd()
    }
}

impl Drop for Looker {
    fn drop(&mut self) {
        self.desk.orders().stopped = true;
        self.desk.rung.notify_one();
    }
}

/// What the thread is to do next.
enum Order {
    Look(Arc<Target>),
    Chunks(Arc<Target>, usize, Range<u64>),
    Stop,
}

impl Desk {
    fn orders(&self) -> MutexGuard<'_, Orders> {
        // Nothing in it is half-written at any point where a thread could panic.
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, interval: Duration) {
        let mut next = Instant::now();
        loop {
            match self.next_order(next) {
                Order::Look(target) => {
                    let begun = Instant::now();
                    let cpu = thread_time();
                    let looked = inspect(&target, &Ask::default());
                    let cost = begun.elapsed().max(thread_time().saturating_sub(cpu));
                    next = begun + rest(interval, cost);
                    // Before the news of the look, so that whoever hears of it knows what it took.
                    self.note_cpu();
                    self.looked(looked);
                }
                Order::Chunks(target, arena, range) => {
                    let chunks = chunks(&target, arena, range, MOST_CHUNKS);
                    self.note_cpu();
                    self.orders().found.chunks = Some(chunks.map(Box::new));
                    self.ring();
                }
                Order::Stop => return,
            }
        }
    }

    fn next_order(&self, next_look: Instant) -> Order {
        let mut orders = self.orders();
        loop {
            if orders.stopped {
                return Order::Stop;
            }
            if let Some((arena, range)) = orders.chunks.take() {
                return Order::Chunks(Arc::clone(&orders.target), arena, range);
            }
            let left = next_look.saturating_duration_since(Instant::now());
            if std::mem::take(&mut orders.look) || left.is_zero() {
                orders.looking = true;
                return Order::Look(Arc::clone(&orders.target));
            }
            let waited = self.rung.wait_timeout(orders, left);
            orders = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn looked(&self, looked: Result<Inspection, InspectError>) {
        {
            // Under one lock: between two of them the process may come to run another program.
            let mut orders = self.orders();
            orders.looking = false;
            if std::mem::take(&mut orders.stale) {
                return;
            }
            match looked {
                Ok(inspection) => orders.found.inspection = Some(Box::new(inspection)),
                // Whoever watches the process says what has become of it.
                Err(InspectError::Changed { .. }) => return,
                Err(error) => orders.found.trouble = Some(error.to_string()),
            }
        }
        self.ring();
    }

    fn note_cpu(&self) {
        let cpu = u64::try_from(thread_time().as_nanos()).unwrap_or(u64::MAX);
        self.cpu_ns.store(cpu, Ordering::Relaxed);
    }

    fn ring(&self) {
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }
}

/// From the beginning of a look to that of the next.
fn rest(interval: Duration, cost: Duration) -> Duration {
    cost.saturating_mul(REST).min(LONGEST_REST).max(interval)
}

/// The chunks of a stretch of an arena, at most so many.
fn chunks(
    target: &Target,
    arena: usize,
    range: Range<u64>,
    most: usize,
) -> Result<ChunksSeen, String> {
    super::chunks(target, arena, range, most).map_err(|error| error.to_string())
}

/// The processor time of this thread.
pub(super) fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_take_a_hundredth_of_the_time_at_most() {
        let interval = Duration::from_secs(1);
        assert_eq!(rest(interval, Duration::from_millis(2)), interval);
        let costly = rest(interval, Duration::from_secs(3));
        assert_eq!(costly, Duration::from_secs(300));
        assert_eq!(rest(interval, Duration::MAX), LONGEST_REST);
    }
}
