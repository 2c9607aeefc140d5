//! Looking into a process, on a thread of its own: a walk of a large heap takes seconds.
//!
//! Looks are paced: on average they take 1 % of the time at most, and are at least an interval
//! apart. What was not collected is replaced by what is newer, so nothing piles up.

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use malloc_stats::heap::ChunksSeen;
use malloc_stats::inspect::{Ask, InspectError, Inspection, Target, inspect};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::time::{ClockId, clock_gettime};

/// A look of one second is followed by none for so many.
const REST: u32 = 100;

/// The longest rest: one walk in which the machine was stopped is not the end of all looks.
const LONGEST_REST: Duration = Duration::from_secs(3600);

/// More chunks than a screen can show, and few enough to keep: 32 bytes each.
const MOST_CHUNKS: usize = 1 << 16;

/// The looking thread. Dropping it ends the thread: at once where it rests, else after the look
/// under way, for which nobody waits.
#[derive(Debug)]
pub(super) struct Looker {
    desk: Arc<Desk>,
}

/// What came of looking.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) inspection: Option<Box<Inspection>>,
    pub(super) chunks: Option<Result<Box<ChunksSeen>, String>>,
    /// Why a look came to nothing.
    pub(super) trouble: Option<String>,
}

#[derive(Debug)]
struct Desk {
    orders: Mutex<Orders>,
    rung: Condvar,
    /// Readable while something was found that nobody has taken.
    bell: OwnedFd,
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
    pub(super) fn begin(target: Arc<Target>, interval: Duration) -> std::io::Result<Looker> {
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
    pub(super) fn look_now(&self) {
        let mut orders = self.desk.orders();
        if !orders.looking {
            orders.look = true;
            self.desk.rung.notify_one();
        }
    }

    /// Reads chunks after the look under way. Of several requests the last one counts.
    pub(super) fn read_chunks(&self, arena: usize, range: Range<u64>) {
        self.desk.orders().chunks = Some((arena, range));
        self.desk.rung.notify_one();
    }

    /// Looks into another process from now on, at once.
    pub(super) fn turn_to(&self, target: Arc<Target>) {
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
    pub(super) fn take(&self) -> Found {
        let mut orders = self.desk.orders();
        let _ = rustix::io::read(&self.desk.bell, &mut [0; 8]);
        std::mem::take(&mut orders.found)
    }

    /// Readable while something was found that was not taken.
    pub(super) fn bell(&self) -> BorrowedFd<'_> {
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
                    self.looked(looked);
                }
                Order::Chunks(target, arena, range) => {
                    let chunks = chunks(&target, arena, range, MOST_CHUNKS);
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
    malloc_stats::inspect::chunks(target, arena, range, most).map_err(|error| error.to_string())
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Sleeps until one of these can be read, or so long.
pub(super) fn sleep_on<const N: usize>(fds: [Option<BorrowedFd<'_>>; N], timeout: Duration) {
    let timeout = Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(timeout.subsec_nanos()),
    };
    let fds = fds.into_iter().flatten();
    let mut fds: Vec<_> = fds
        .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
        .collect();
    // Interrupted, or for want of memory: whoever called looks again at what there is.
    let _ = poll(&mut fds, Some(&timeout));
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
