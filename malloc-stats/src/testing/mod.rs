//! For tests: does this code give its memory back, or does it leak or fragment?
//!
//! ```no_run
//! # fn load() {}
//! # fn serve_one_model() {}
//! use malloc_stats::testing::{Fragmentation, assert_returns_memory};
//!
//! #[test]
//! fn unloading_returns_memory() {
//!     assert_returns_memory(|| {
//!         let model = load();
//!         drop(model);
//!     });
//! }
//!
//! #[test]
//! fn a_server_does_not_fragment() {
//!     let seen = Fragmentation::over(20, || serve_one_model());
//!     assert!(seen.leak_per_cycle() < 4096.0, "{seen}");
//!     assert!(seen.retained() < 8 << 20, "{seen}");
//! }
//! ```
//!
//! # One process for each measurement
//!
//! The memory of a process is that of all its tests. So each measurement starts the running test
//! binary again for this one test (`NAME --exact --nocapture --test-threads=1 --include-ignored`),
//! under `cargo test` and `cargo nextest` alike and with any number of test threads. There the test
//! runs up to the same call, which runs the closure, measures, and ends that process at once; here
//! the call gives the numbers, and the closure never runs. The allocator's tuning (`GLIBC_TUNABLES`,
//! `LD_PRELOAD`) is inherited.
//!
//! So the test has to take the same way both times; earlier measurements of the same test give the
//! same numbers there as here. What comes before a measurement runs again for each.
//!
//! The name of the test is that of its thread, the argument after `--exact`, or the function where
//! the closure stands. Where none of them is the test's,
//! [`named`](Measure::named) tells it, and [`arguments`](Measure::arguments) tells how to start a
//! program that has no libtest.
//!
//! A process that panics, aborts, is killed, never comes to the call, or is not done after ten
//! minutes ([`SECONDS`]) makes the call panic with the reason and the end of its standard error.
//!
//! # What is measured
//!
//! The closure runs once to warm up. Then the allocator is told to give back what it can
//! (`malloc_trim(0)`, or jemalloc's `arena.4096.purge`), and what is resident then is the baseline.
//! Then come the cycles, and after the last one more such probe, which tells memory that the
//! allocator holds back from memory that something pins. The probes make this the one part of the
//! crate that changes what it measures, and only in the process made for it.

mod fragmentation;
mod name;
mod paper;
mod probe;
mod process;
mod take;
mod verdict;

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::Allocator;

pub use fragmentation::{CycleMemory, Fragmentation};
pub use paper::VARIABLE;
pub use process::SECONDS;

/// More cycles than any test needs; each takes 80 bytes in the result.
const MOST_CYCLES: usize = 100_000;

/// Fails where `closure` keeps memory: it is called once to warm up and then five times, and after
/// that no more than 1 MiB, or 5 % of what it took at its peak where that is more, may be resident
/// beyond the baseline, nor may what is in use grow by more each time than a page, or 0.1 % of what
/// it took.
///
/// Why so much: glibc keeps 128 KiB at the end of its heap by default and 128 KiB more as padding,
/// thread caches keep up to about 200 KiB, and a kernel before 6.17 may be off by 256 KiB for each
/// thread (`proc_pid_status(5)`): below 1 MiB nothing can be told. 5 % of a large model is what
/// alignment and partly used pages explain. A leak is told from the allocator's own numbers, which
/// are exact, so a page is enough there.
///
/// # Panics
///
/// With the numbers and a remedy where memory is kept, and where it could not be measured (see the
/// [module](self)).
#[track_caller]
pub fn assert_returns_memory<R>(closure: impl FnMut() -> R) {
    Fragmentation::measure().over(closure).assert_returned();
}

/// How to measure; made by [`Fragmentation::measure`].
#[derive(Debug, Clone)]
#[must_use = "nothing is measured before `over`"]
pub struct Measure {
    cycles: usize,
    warm_up: usize,
    allocator: Allocator,
    name: Option<String>,
    arguments: Option<Vec<String>>,
}

impl Default for Measure {
    fn default() -> Self {
        Self {
            cycles: 5,
            warm_up: 1,
            allocator: Allocator::default(),
            name: None,
            arguments: None,
        }
    }
}

impl Measure {
    /// How often the closure is called and memory read after it; 5 by default.
    ///
    /// # Panics
    ///
    /// With 0, or more than 100 000.
    #[track_caller]
    pub fn cycles(self, cycles: usize) -> Self {
        assert!(
            (1..=MOST_CYCLES).contains(&cycles),
            "{cycles} cycles: from 1 to {MOST_CYCLES} can be measured"
        );
        Self { cycles, ..self }
    }

    /// How often it is called before that; once by default. What the first calls set up for good
    /// (tables, pools, threads) is not held against it then; with 0 it is.
    pub fn warm_up(self, times: usize) -> Self {
        Self {
            warm_up: times,
            ..self
        }
    }

    /// Which allocator serves Rust's heap; `malloc` of the process by default, whoever implements
    /// that. A program whose global allocator is `tikv-jemallocator` has to say so.
    pub fn allocator(self, allocator: Allocator) -> Self {
        Self { allocator, ..self }
    }

    /// The name of the test as `--list` prints it (`module::test`, without the crate): where the
    /// measurement is not taken on the test's own thread. The same for all measurements of a test.
    pub fn named(self, name: impl Into<String>) -> Self {
        Self {
            name: Some(name.into()),
            ..self
        }
    }

    /// With which arguments this program is to be started so that it comes to this call: for one
    /// that has no libtest (`harness = false`). Other programs are started for the one test.
    pub fn arguments<A: Into<String>>(self, arguments: impl IntoIterator<Item = A>) -> Self {
        Self {
            arguments: Some(arguments.into_iter().map(Into::into).collect()),
            ..self
        }
    }

    /// Measures `closure`, in a process of its own. What it gives is dropped within the cycle.
    ///
    /// # Panics
    ///
    /// Where it could not be measured (see the [module](self)).
    #[track_caller]
    pub fn over<R>(self, closure: impl FnMut() -> R) -> Fragmentation {
        match paper::asked() {
            None => match self.ask(&closure) {
                Ok(seen) => seen,
                Err(reason) => panic!("{reason}"),
            },
            Some(Err(reason)) => panic!("{reason}"),
            Some(Ok(asked)) => match self.comes_to(asked) {
                Turn::Earlier(seen) => seen,
                Turn::Wrong(reason) => panic!("{reason}"),
                Turn::Now => take::and_leave(&self, closure),
            },
        }
    }

    /// In the test: has it measured elsewhere.
    fn ask<F>(&self, closure: &F) -> Result<Fragmentation, String> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => name::of_test(closure)?,
        };
        let (index, earlier) = {
            let mut asked = ASKED.lock().unwrap_or_else(PoisonError::into_inner);
            let earlier: Vec<_> = of(&asked, &name).cloned().collect();
            let under_way = Err("measurements of one test come one after the other".to_owned());
            asked.push((name.clone(), under_way));
            (earlier.len(), earlier)
        };
        let seen = process::measure(&name, self.arguments.as_deref(), index, earlier);
        let mut asked = ASKED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, outcome)) = asked.iter_mut().filter(|(n, _)| *n == name).nth(index) {
            outcome.clone_from(&seen);
        }
        seen
    }

    /// In the process made for a measurement: whether this call is the one.
    fn comes_to(&self, asked: &paper::Asked) -> Turn {
        if take::is_measuring() {
            return Turn::Wrong(
                "a measurement inside a measurement: measure one thing in each closure".to_owned(),
            );
        }
        if let Some(name) = self.name.as_ref().filter(|name| **name != asked.test) {
            return Turn::Wrong(format!(
                "a measurement named {name:?} in the test {:?}: one test has one name",
                asked.test
            ));
        }
        match asked.earlier.get(CALLS.fetch_add(1, Ordering::Relaxed)) {
            None => Turn::Now,
            Some(Ok(seen)) => Turn::Earlier(seen.clone()),
            Some(Err(reason)) => Turn::Wrong(reason.clone()),
        }
    }
}

enum Turn {
    Earlier(Fragmentation),
    Now,
    Wrong(String),
}

type Outcome = Result<Fragmentation, String>;

/// What each test of this process has had measured, in order.
static ASKED: Mutex<Vec<(String, Outcome)>> = Mutex::new(Vec::new());

/// In the process made for a measurement: how many calls came before.
static CALLS: AtomicUsize = AtomicUsize::new(0);

fn of<'a>(asked: &'a [(String, Outcome)], name: &str) -> impl Iterator<Item = &'a Outcome> {
    asked
        .iter()
        .filter(move |(of, _)| of == name)
        .map(|(_, outcome)| outcome)
}
