//! The thread that stops a process, holds it, and lets it go.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::c_int;
use std::sync::mpsc::{Receiver, SyncSender};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::thread::{gettid, sched_yield};

use super::procfs::{Process, Status};
use super::{PATIENCE, PauseError, kernel, permission};

/// Told once every thread has stopped.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub(super) threads: usize,
    pub(super) since: Instant,
}

/// A thread of the process that was seized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tracee {
    Running,
    /// To be let go with this signal (0: none).
    Stopped {
        signal: c_int,
    },
    /// A leader that ended before the threads of its process: it stays, and does nothing.
    Ended,
}

/// What a thread is that may not be seized.
enum WhyNot {
    Gone,
    Is(Tracee),
    Unclear,
}

/// Stops the process, says so to `held`, and lets it go when the other end of `release` is
/// dropped. Returns for how long it was stopped.
///
/// To be run on a thread that ends then: with it ends the tracing of any thread that never
/// stopped, which nothing else could end.
pub(super) fn run(
    process: &Process,
    held: &SyncSender<Held>,
    release: &Receiver<Infallible>,
) -> Result<Duration, PauseError> {
    let mut tracer = Tracer {
        process,
        tracees: BTreeMap::new(),
        begun: Instant::now(),
    };
    let outcome = tracer.stop().map(|held_now| {
        // Both errors are the other end dropped: a caller that waits no more, and the release.
        let _ = held.send(held_now);
        let _ = release.recv();
    });
    let all_there = tracer.let_go();
    let stopped_for = tracer.begun.elapsed();
    reap(process);
    outcome?;
    if !all_there {
        return Err(PauseError::Gone { pid: process.pid });
    }
    Ok(stopped_for)
}

/// Clears away the threads that were seized by this program, and have ended. Also for another
/// thread of this program while the tracing one is held up: seizing waits for `execve`, which
/// waits for the ended threads to be cleared away.
pub(super) fn reap(process: &Process) {
    for tid in process.threads().unwrap_or_default() {
        if !is_leader(process, tid) {
            // What is not seized by this program is not its to reap, which is the error.
            let _ = kernel::reap(tid);
        }
    }
}

fn is_leader(process: &Process, tid: i32) -> bool {
    u32::try_from(tid) == Ok(process.pid)
}

struct Tracer<'a> {
    process: &'a Process,
    tracees: BTreeMap<i32, Tracee>,
    /// The first interrupt.
    begun: Instant,
}

impl Tracer<'_> {
    fn stop(&mut self) -> Result<Held, PauseError> {
        // Seizing stops nothing, so what can be is seized before the first interrupt; a second
        // look finds those born during the first.
        for _ in 0..2 {
            self.seize_unknown()?;
        }
        self.begun = Instant::now();
        let deadline = self.begun + PATIENCE;
        for tid in self.running() {
            self.interrupt(tid)?;
        }
        loop {
            self.await_stops(deadline)?;
            // Those that still run may have made others, which may have made others.
            let mut at_rest = true;
            for tid in self.seize_unknown()? {
                self.interrupt(tid)?;
                at_rest = false;
            }
            if at_rest && self.all_stopped()? {
                break;
            }
            if Instant::now() > deadline {
                return Err(self.restless());
            }
        }
        let stopped = |tracee: &&Tracee| matches!(tracee, Tracee::Stopped { .. });
        let threads = self.tracees.values().filter(stopped).count();
        if threads == 0 {
            let pid = self.process.pid;
            return Err(match self.process.status()?.has_ended() {
                true => PauseError::Zombie { pid },
                false => PauseError::Gone { pid },
            });
        }
        Ok(Held {
            threads,
            since: self.begun,
        })
    }

    /// Seizes the threads that are not yet; returns those to interrupt.
    fn seize_unknown(&mut self) -> Result<Vec<i32>, PauseError> {
        let mut seized = Vec::new();
        for tid in self.process.threads()? {
            if self.tracees.contains_key(&tid) {
                continue;
            }
            if let Some(tracee) = self.seize(tid)? {
                self.tracees.insert(tid, tracee);
                if tracee == Tracee::Running {
                    seized.push(tid);
                }
            }
        }
        Ok(seized)
    }

    /// Seizes a thread; `None` where it is gone by now.
    fn seize(&self, tid: i32) -> Result<Option<Tracee>, PauseError> {
        for _ in 0..SEIZINGS {
            match kernel::seize(tid) {
                Ok(()) => return Ok(Some(Tracee::Running)),
                Err(Errno::SRCH) => return Ok(None),
                Err(Errno::PERM) => match self.why_not(tid)? {
                    WhyNot::Gone => return Ok(None),
                    WhyNot::Is(tracee) => return Ok(Some(tracee)),
                    // To seize a leader during execve waits for the end of that, and fails then: the
                    // leader has ended, and another thread has its number.
                    WhyNot::Unclear => sleep(SEIZING),
                },
                Err(error) => return Err(self.failed("seizing a thread", error)),
            }
        }
        let reason = permission::why_denied(self.process, self.process.status()?);
        Err(PauseError::Denied {
            pid: self.process.pid,
            reason,
        })
    }

    /// What a thread is that the kernel does not let us seize.
    fn why_not(&self, tid: i32) -> Result<WhyNot, PauseError> {
        let pid = self.process.pid;
        let Ok(thread) = self.process.thread(tid) else {
            return Ok(WhyNot::Gone);
        };
        if thread.tracer == gettid().as_raw_nonzero().get().unsigned_abs() {
            // It came here under another number, by execve.
            return Ok(WhyNot::Is(Tracee::Running));
        }
        if thread.tracer != 0 {
            let tracer = Status::of(thread.tracer).map_or(thread.tracer, |status| status.process);
            return Err(PauseError::Traced {
                pid,
                tid,
                tracer,
                tracer_name: Status::of(tracer).unwrap_or_default().name,
            });
        }
        if thread.has_ended() {
            return Ok(match is_leader(self.process, tid) {
                true => WhyNot::Is(Tracee::Ended),
                false => WhyNot::Gone,
            });
        }
        if self
            .process
            .flags()
            .is_some_and(|flags| flags & kernel::PF_KTHREAD != 0)
        {
            return Err(PauseError::KernelThread { pid });
        }
        Ok(WhyNot::Unclear)
    }

    fn interrupt(&mut self, tid: i32) -> Result<(), PauseError> {
        match kernel::interrupt(tid) {
            // Whether it has ended is found out when its stop is awaited.
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(self.failed("interrupting a thread", error)),
        }
    }

    /// Waits until each seized thread has stopped or ended.
    fn await_stops(&mut self, deadline: Instant) -> Result<(), PauseError> {
        let mut running = self.running();
        for round in 0_u32.. {
            let is_slow = round >= QUICK_ROUNDS;
            let mut still = Vec::new();
            for tid in running {
                if !self.has_come_to_rest(tid, is_slow)? {
                    still.push(tid);
                }
            }
            let Some(first) = still.first() else {
                break;
            };
            if Instant::now() > deadline {
                return Err(self.stuck(*first));
            }
            if is_slow {
                // By execve, a thread that was never interrupted can take the number of one that
                // was.
                for tid in &still {
                    self.interrupt(*tid)?;
                }
                sleep(SLEEP * (round - QUICK_ROUNDS).clamp(1, 20));
            } else {
                sched_yield();
            }
            running = still;
        }
        Ok(())
    }

    fn has_come_to_rest(&mut self, tid: i32, is_slow: bool) -> Result<bool, PauseError> {
        match kernel::stop_signal(tid) {
            Ok(signal) => {
                self.tracees.insert(tid, Tracee::Stopped { signal });
                return Ok(true);
            }
            Err(Errno::SRCH) => {}
            Err(error) => return Err(self.failed("asking whether a thread stopped", error)),
        }
        let leader = is_leader(self.process, tid);
        let ended = if leader {
            kernel::has_ended(tid)
        } else {
            kernel::reap(tid)
        };
        match ended {
            Ok(true) if leader => {
                self.tracees.insert(tid, Tracee::Ended);
                Ok(true)
            }
            Ok(true) | Err(Errno::CHILD) => {
                self.tracees.remove(&tid);
                Ok(true)
            }
            // The end of a leader is kept back until all its threads have ended.
            Ok(false) if is_slow && leader && self.is_zombie(tid) => {
                self.tracees.insert(tid, Tracee::Ended);
                Ok(true)
            }
            Ok(false) => Ok(false),
            Err(error) => Err(self.failed("asking whether a thread ended", error)),
        }
    }

    /// Whether every thread of the process is one of ours, and stopped *now*: a thread that is,
    /// stays so, unless a running one makes the process execute another program.
    fn all_stopped(&mut self) -> Result<bool, PauseError> {
        let listed = self.process.threads()?;
        let count = self.process.status()?.threads;
        let mut all = listed.len() == count;
        for (tid, tracee) in self.tracees.clone() {
            if !listed.contains(&tid) {
                // It ended, or its number went to a thread of another process before it was
                // seized, which is to be let go.
                self.let_one_go(tid);
                self.tracees.remove(&tid);
                continue;
            }
            match tracee {
                Tracee::Stopped { .. } if kernel::stop_signal(tid).is_err() => {
                    self.tracees.insert(tid, Tracee::Running);
                    all = false;
                }
                Tracee::Ended if !self.is_zombie(tid) => {
                    self.tracees.remove(&tid);
                    all = false;
                }
                _ => {}
            }
        }
        Ok(all && listed.iter().all(|tid| self.tracees.contains_key(tid)))
    }

    /// Lets every thread go that stopped; `false` where one has ended since.
    fn let_go(&mut self) -> bool {
        // Asked of all before the first goes: those that went may already execute another program,
        // which ends the others.
        let all_there = self.tracees.iter().all(|(tid, tracee)| match tracee {
            Tracee::Stopped { .. } => kernel::stop_signal(*tid).is_ok(),
            Tracee::Running | Tracee::Ended => true,
        });
        for (tid, tracee) in std::mem::take(&mut self.tracees) {
            match tracee {
                Tracee::Stopped { signal } => drop(kernel::detach(tid, signal)),
                Tracee::Running => self.let_one_go(tid),
                Tracee::Ended => {}
            }
        }
        all_there
    }

    /// Lets a thread go of which it is not known whether it stopped. Where it did not, the end of
    /// this thread does.
    fn let_one_go(&self, tid: i32) {
        // To interrupt it first lets one go that was seized by mistake.
        let _ = kernel::interrupt(tid);
        if let Ok(signal) = kernel::stop_signal(tid) {
            let _ = kernel::detach(tid, signal);
        }
    }

    fn running(&self) -> Vec<i32> {
        let running = self
            .tracees
            .iter()
            .filter(|(_, tracee)| **tracee == Tracee::Running);
        running.map(|(tid, _)| *tid).collect()
    }

    fn is_zombie(&self, tid: i32) -> bool {
        self.process
            .thread(tid)
            .is_ok_and(|thread| thread.has_ended())
    }

    fn stuck(&self, tid: i32) -> PauseError {
        let thread = self.process.thread(tid).unwrap_or_default();
        PauseError::Stuck {
            pid: self.process.pid,
            tid,
            name: thread.name,
            state: thread.state,
            waited: PATIENCE,
        }
    }

    fn restless(&self) -> PauseError {
        PauseError::Restless {
            pid: self.process.pid,
            threads: self.process.threads().map_or(0, |threads| threads.len()),
            waited: PATIENCE,
        }
    }

    fn failed(&self, what: &'static str, error: Errno) -> PauseError {
        PauseError::Failed {
            pid: self.process.pid,
            what,
            source: error.into(),
        }
    }
}

/// How often a thread is tried that may not be seized for no reason that can be seen.
const SEIZINGS: u32 = 50;

/// The time between two such tries.
const SEIZING: Duration = Duration::from_millis(1);

/// Most threads stop within microseconds: they are given way to before anything sleeps.
const QUICK_ROUNDS: u32 = 50;

/// The first sleep between two rounds, of at most twenty times that.
const SLEEP: Duration = Duration::from_micros(50);
