//! Takes snapshots of this process.

use std::fs::File;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::limits::{Host, Limits, Location, Pressure};
use crate::metric::Metric;
use crate::process::{Process, Status, read_counter};
use crate::reading::{AllocatorReading, name_of};
use crate::{Allocator, Depth, Error, Snapshot, gpu, limits};

/// Takes snapshots of this process; to be kept, and shared between threads.
///
/// A [`bracket`](Self::bracket) reads through descriptors that stay open. A [`full`](Self::full)
/// capture reads everything, and leaves its reading of the allocator for the brackets after it.
/// Neither fails: a part that cannot be read is unavailable.
///
/// A child made by `fork` has to make its own: brackets taken there through the parent's
/// descriptors would show the parent, so they have no process part.
#[derive(Debug)]
pub struct Reader {
    allocator: Allocator,
    pid: u32,
    status: Status,
    latest: Mutex<Latest>,
}

/// What full captures leave for brackets.
#[derive(Debug)]
struct Latest {
    /// `memory.current` of the cgroup. A process can be moved to another one, so each full capture
    /// opens it anew.
    cgroup_current: Option<File>,
    reading: Option<(u64, AllocatorReading)>,
    cost: Option<Duration>,
}

impl Reader {
    /// A reader for this process, whose Rust heap `allocator` serves.
    ///
    /// # Errors
    ///
    /// [`Error::Open`] where `/proc/self/status` cannot be opened.
    pub fn new(allocator: Allocator) -> Result<Self, Error> {
        Ok(Self {
            allocator,
            pid: std::process::id(),
            status: Status::open()?,
            latest: Mutex::new(Latest {
                cgroup_current: limits::own_location()
                    .ok()
                    .and_then(|own| own.open_current()),
                reading: None,
                cost: None,
            }),
        })
    }

    /// The allocator and settings it was told.
    #[must_use]
    pub fn allocator(&self) -> &Allocator {
        &self.allocator
    }

    /// Who serves the Rust heap, in words: `glibc 2.36`, or
    /// `jemalloc (preloaded, /usr/lib/libjemalloc.so.2)`.
    #[must_use]
    pub fn allocator_name(&self) -> String {
        name_of(self.allocator.kind)
    }

    /// What the latest full capture cost, by which a caller can pace them. `None` before the first.
    #[must_use]
    pub fn last_full_cost(&self) -> Option<Duration> {
        self.latest().cost
    }

    /// The cheap snapshot: process and cgroup, with the latest reading of the allocator and its
    /// age.
    #[must_use]
    pub fn bracket(&self) -> Snapshot {
        let begin = Instant::now();
        let at_us = now_us();
        let process = self.process();
        let latest = self.latest();
        let cgroup_current = latest.cgroup_current.as_ref().and_then(read_counter).into();
        let (allocator, allocator_age_us) = match &latest.reading {
            Some((read_at, reading)) => (Some(reading.clone()), at_us.saturating_sub(*read_at)),
            None => (None, 0),
        };
        drop(latest);
        Snapshot {
            depth: Depth::Bracket,
            at_us,
            process,
            cgroup_current,
            allocator,
            allocator_age_us,
            cost_us: micros(begin.elapsed()),
            ..Snapshot::default()
        }
    }

    /// The whole snapshot. Its cost grows with the number of free chunks of the allocator, and is
    /// in [`last_full_cost`](Self::last_full_cost) afterwards.
    #[must_use]
    pub fn full(&self) -> Snapshot {
        let begin = Instant::now();
        let at_us = now_us();
        // The allocator comes first: whatever the rest allocates is not in its numbers.
        let reading = AllocatorReading::read(&self.allocator);
        let process = self.process();
        let location = limits::own_location();
        let limits = Limits::at(
            Path::new("/"),
            "self",
            location.as_ref().map_err(String::as_str),
        );
        let own_current = location.as_ref().ok().and_then(Location::open_current);
        let cgroup_current: Metric = own_current.as_ref().and_then(read_counter).into();
        let host = Host::read();
        let pressure = Pressure::at(location.as_ref().ok());
        let (vram, vram_absent) = match gpu::read() {
            Ok(devices) => (devices, None),
            Err(reason) => (Vec::new(), Some(reason)),
        };
        let mut latest = self.latest();
        latest.cgroup_current = own_current;
        latest.reading = Some((at_us, reading.clone()));
        let cost = begin.elapsed();
        latest.cost = Some(cost);
        drop(latest);
        Snapshot {
            depth: Depth::Full,
            at_us,
            cost_us: micros(cost),
            process,
            cgroup_current,
            allocator: Some(reading),
            allocator_age_us: 0,
            settings: self.allocator.settings.clone(),
            limits: Some(limits),
            host,
            pressure,
            vram,
            vram_absent,
        }
    }

    fn process(&self) -> Process {
        if std::process::id() == self.pid {
            self.status.read()
        } else {
            Process::default()
        }
    }

    fn latest(&self) -> MutexGuard<'_, Latest> {
        // Nothing in it is half-written at any point where a thread could panic.
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn now_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds
        .saturating_mul(1_000_000)
        .saturating_add(nanoseconds / 1000)
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
