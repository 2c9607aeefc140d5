//! Waiting until the kernel says that memory is short, so that a cache can give back what others
//! need *before* something is killed, and need not look all the time.
//!
//! ```
//! use std::time::Duration;
//! use malloc_stats::limits::watch::{PressureWatch, Woken};
//!
//! let watch = PressureWatch::of_self();
//! println!("told by {}", watch.source());
//! let stopper = watch.stopper();
//! let thread = std::thread::spawn(move || {
//!     // Every second at the least: not all that makes memory short is told.
//!     while watch.wait(Duration::from_secs(1)) != Woken::Stopped {
//!         // Look at `Limits::of_self().room()`, and give back what is too much.
//!     }
//! });
//! stopper.stop();
//! # thread.join().map_err(|_| "the thread panicked")?;
//! # Ok::<(), &str>(())
//! ```

mod kernel;
mod signals;

use std::fmt;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use kernel::{Events, Heard};
use signals::Signals;
pub use signals::Stopper;

/// Waits until the kernel says that memory is short. To be kept; may be shared between threads, of
/// which one is told of each shortage.
#[derive(Debug)]
pub struct PressureWatch {
    events: Option<Events>,
    source: Source,
    /// What became of the source when it failed.
    failed: OnceLock<Source>,
    signals: Arc<Signals>,
}

/// What a [`PressureWatch`] listens to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Time lost waiting for memory, which this pressure file (PSI) counts: of the process's own
    /// cgroup of version 2, for whatever reason its processes wait, or of the whole host. Told
    /// when something waited for 100 ms of 2 s (50 ms of one second, where the process may ask for
    /// that), and at most once in that time.
    Psi(PathBuf),
    /// Reclaim that finds little, level `medium`, for the limit of the cgroup of version 1 with
    /// this directory or for that of any ancestor that can be seen. Page cache that is dropped with
    /// ease is not told of; where there is no swap, a shortage of anonymous memory is told of late:
    /// when no page cache is left.
    CgroupLevel(PathBuf),
    /// Nothing: every wait lasts until its timeout.
    Polling {
        /// Why, in words.
        reason: String,
    },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Psi(file) => write!(f, "the memory stalls in {}", file.display()),
            Self::CgroupLevel(directory) => {
                write!(f, "the reclaim events of cgroup {}", directory.display())
            }
            Self::Polling { reason } => write!(f, "polling alone: {reason}"),
        }
    }
}

/// Why a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Woken {
    /// Memory is short, or was since the last wait.
    Pressure,
    /// The time is over.
    Timeout,
    /// [`Stopper::stop`] was called, at any time before.
    Stopped,
    /// [`Stopper::nudge`] was called since the last wait that returned this.
    Nudged,
}

impl PressureWatch {
    /// Watches the memory of this process. Where the kernel cannot be listened to, it is
    /// [`Source::Polling`], with the reason.
    #[must_use]
    pub fn of_self() -> Self {
        Self::under(Path::new("/"), "self")
    }

    /// Watches the memory of the process `proc/PROCESS` (a number, or `self`) where `root` stands
    /// for `/`, as [`Limits::under`](super::Limits::under) does. Files that are not the kernel's
    /// are left as they are.
    ///
    /// A process that moves to another cgroup has to be watched anew.
    #[must_use]
    pub fn under(root: &Path, process: &str) -> Self {
        let (signals, opened) = match Signals::with_descriptor() {
            Ok(signals) => (signals, kernel::open(root, process)),
            Err(reason) => (Signals::default(), Err(reason)),
        };
        let (events, source) = match opened {
            Ok((events, source)) => (Some(events), source),
            Err(reason) => (None, Source::Polling { reason }),
        };
        Self {
            events,
            source,
            failed: OnceLock::new(),
            signals: Arc::new(signals),
        }
    }

    /// What it listens to. This becomes [`Source::Polling`] when the source fails, as when the
    /// cgroup is removed.
    #[must_use]
    pub fn source(&self) -> &Source {
        self.failed.get().unwrap_or(&self.source)
    }

    /// What ends its waits from elsewhere.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper::of(&self.signals)
    }

    /// Waits until memory is short, until it is told to look or to stop, or for `timeout`.
    ///
    /// Who is told to stop is told so first, and a shortage that came while nobody waited ends the
    /// next wait at once. When the source fails the wait goes on to its timeout.
    #[must_use]
    pub fn wait(&self, timeout: Duration) -> Woken {
        // A time beyond what the clock can tell never comes.
        let deadline = Instant::now().checked_add(timeout);
        while let (Some(events), Some(told)) = (self.listening(), self.signals.descriptor()) {
            if let Some(woken) = self.signals.take() {
                return woken;
            }
            match sleep(told, events, deadline) {
                Slept::Over => return self.signals.take().unwrap_or(Woken::Timeout),
                Slept::Told => {}
                Slept::Source(flags) => match events.hear(flags) {
                    Heard::Pressure => return Woken::Pressure,
                    Heard::Nothing => {}
                    Heard::Failed(reason) => self.fail(&reason),
                },
                Slept::Failed(error) => self.fail(&format!("poll: {error}")),
            }
        }
        self.signals.wait(deadline)
    }

    fn listening(&self) -> Option<&Events> {
        self.events.as_ref().filter(|_| self.failed.get().is_none())
    }

    fn fail(&self, why: &dyn fmt::Display) {
        let reason = format!("no more of {}: {why}", self.source);
        // Another thread may have seen it fail first.
        let _ = self.failed.set(Source::Polling { reason });
    }
}

enum Slept {
    Over,
    Told,
    Source(PollFlags),
    Failed(Errno),
}

/// Sleeps until one of the descriptors is ready.
fn sleep(told: BorrowedFd<'_>, events: &Events, deadline: Option<Instant>) -> Slept {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        let mut ready = [
            PollFd::from_borrowed_fd(told, PollFlags::IN),
            events.poll_fd(),
        ];
        let outcome = poll(&mut ready, left.as_ref());
        let [told, source] = ready;
        return match outcome {
            Err(Errno::INTR) => continue,
            Err(error) => Slept::Failed(error),
            Ok(0) => Slept::Over,
            // Their order is that of importance.
            Ok(_) if !told.revents().is_empty() => Slept::Told,
            Ok(_) => Slept::Source(source.revents()),
        };
    }
}
