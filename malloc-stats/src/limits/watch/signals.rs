//! What wakes a wait from elsewhere in the process.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rustix::event::{EventfdFlags, eventfd};

use super::Woken;

/// Ends the waits of a [`PressureWatch`](super::PressureWatch) from another thread. Not for signal
/// handlers: it takes a lock.
#[derive(Debug, Clone)]
pub struct Stopper {
    signals: Arc<Signals>,
}

impl Stopper {
    pub(super) fn of(signals: &Arc<Signals>) -> Self {
        Self {
            signals: Arc::clone(signals),
        }
    }

    /// Ends every wait in progress, and every later one, with [`Woken::Stopped`].
    pub fn stop(&self) {
        self.signals.tell(|told| told.stopped = true);
    }

    /// Ends one wait, in progress or the next, with [`Woken::Nudged`]. Several before a wait are
    /// as one.
    pub fn nudge(&self) {
        self.signals.tell(|told| told.nudged = true);
    }
}

/// What was told, and not yet heard. An eventfd stands beside the condition variable since `poll`
/// can wait for that alone; without one a watch can still poll by the clock.
#[derive(Debug, Default)]
pub(super) struct Signals {
    told: Mutex<Told>,
    changed: Condvar,
    /// Readable while something is told; written and drained only under the lock.
    descriptor: Option<OwnedFd>,
}

#[derive(Debug, Default)]
struct Told {
    stopped: bool,
    nudged: bool,
}

impl Signals {
    pub(super) fn with_descriptor() -> Result<Self, String> {
        let descriptor = new_eventfd()?;
        Ok(Self {
            descriptor: Some(descriptor),
            ..Self::default()
        })
    }

    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.descriptor.as_ref().map(AsFd::as_fd)
    }

    /// What this wait has to return, where it was told something.
    pub(super) fn take(&self) -> Option<Woken> {
        self.take_from(&mut self.lock())
    }

    /// Waits to be told something.
    pub(super) fn wait(&self, deadline: Option<Instant>) -> Woken {
        let mut told = self.lock();
        loop {
            if let Some(woken) = self.take_from(&mut told) {
                return woken;
            }
            told = match deadline {
                None => self
                    .changed
                    .wait(told)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Woken::Timeout;
                    }
                    let waited = self.changed.wait_timeout(told, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    fn take_from(&self, told: &mut Told) -> Option<Woken> {
        if told.stopped {
            return Some(Woken::Stopped);
        }
        if !std::mem::take(&mut told.nudged) {
            return None;
        }
        if let Some(descriptor) = &self.descriptor {
            drain(descriptor);
        }
        Some(Woken::Nudged)
    }

    fn tell(&self, what: impl FnOnce(&mut Told)) {
        let mut told = self.lock();
        what(&mut told);
        self.changed.notify_all();
        if let Some(descriptor) = &self.descriptor {
            // It fails only where the counter is full, and so readable as it should be.
            let _ = rustix::io::write(descriptor, &1_u64.to_ne_bytes());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        // Nothing in it is half-written at any point where a thread could panic.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn new_eventfd() -> Result<OwnedFd, String> {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        .map_err(|error| format!("eventfd: {error}"))
}

/// Whether the eventfd had counted anything, which it then has not any more.
pub(super) fn drain(eventfd: &OwnedFd) -> bool {
    rustix::io::read(eventfd, &mut [0_u8; 8]).is_ok()
}
