//! A process stopped for a moment, so that its memory can be read as it is at one instant.
//!
//! Every thread is seized by `ptrace(2)` and interrupted, which no handler in the target sees and
//! which needs no signal. The target goes on when [`Paused`] is released or dropped, and when this
//! program ends in any way, killed too: the kernel then lets all its tracees go.
//!
//! A thread of this program's own does it, since `ptrace` heeds only the thread that seized, and
//! since only the *end* of that thread frees a thread that never came to stop. So a [`Paused`] can
//! be sent to, and the target's memory be read from, any thread.
//!
//! # What it does to the target
//!
//! Some calls that block return before their time, with `EINTR`, where a program may not expect it
//! as it has no signal handlers. On Linux 6.18 (`tests/pause`) these are `epoll_wait` and its kin,
//! `semop` and `semtimedop`, `sigtimedwait` and `sigwaitinfo`, `io_getevents`, `io_uring_enter`,
//! and what waits at a socket with a timeout (`SO_RCVTIMEO`, `SO_SNDTIMEO`). `signal(7)`,
//! "Interruption of system calls and library functions by stop signals", lists most of them, and
//! more for old kernels. Others are taken up again where they were: `read`, `poll`, `select`,
//! `futex` (and so mutexes and condition variables), `nanosleep`, `wait4`, `msgrcv`, `flock`.
//!
//! Its clocks go on, so a timeout may expire meanwhile, and a watchdog may bark. Signals that are
//! sent meanwhile arrive afterwards; a process that was stopped by `SIGSTOP` stays so. A
//! set-user-ID program that it executes in the instant between seizing and stopping starts without
//! the other user's rights.
//!
//! What it does not stop: another process that shares its memory, such as one that maps the same
//! file. While a child of its `vfork` has not yet executed its program, the pause fails with
//! [`PauseError::Stuck`].
//!
//! # What it does to this program
//!
//! Each stop of a thread sends it `SIGCHLD`, which is ignored unless it has a handler. Where it
//! stops a child of its own, a `wait` for that child in another of its threads may return the stop
//! as a status. It must not wait for the target while it holds it: output into a pipe that the
//! target reads, for one, can block for ever. And while this program is itself stopped (by Ctrl-Z,
//! say), so is the target.

mod error;
mod kernel;
mod permission;
mod procfs;
mod tracer;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle, sleep};
use std::time::{Duration, Instant};

use rustix::thread::gettid;

use self::procfs::Process;
use self::tracer::Held;

pub use error::PauseError;

/// How long the threads of a process have to stop, from the first interrupt on; those that did are
/// stopped for as long.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often ended threads are cleared away while the target may wait for that.
const REAPING: Duration = Duration::from_millis(10);

/// A process of which every thread is stopped; it goes on when this is released or dropped.
///
/// A `Paused` that is forgotten ([`std::mem::forget`]) holds the process for as long as this
/// program runs.
#[derive(Debug)]
#[must_use = "the process goes on as soon as this is dropped"]
pub struct Paused {
    pid: u32,
    held: Held,
    /// Taken when it is released.
    hold: Option<Hold>,
}

#[derive(Debug)]
struct Hold {
    /// Dropped to release.
    release: SyncSender<Infallible>,
    tracer: JoinHandle<Result<Duration, PauseError>>,
}

impl Paused {
    /// Stops every thread of a process.
    ///
    /// The process is told by its number only. Who holds it in another way, such as an open
    /// directory in `/proc`, and can still read through that once this has returned, has the same.
    ///
    /// # Errors
    ///
    /// Where the process is this one, has ended, is a thread of the kernel, is traced already, may
    /// not be traced, or did not come to rest within two seconds. Then nothing of it stays
    /// stopped.
    pub fn stop(pid: u32) -> Result<Self, PauseError> {
        let process = Process::open(pid)?;
        let status = process.status().map_err(|error| match error {
            PauseError::Gone { pid } => PauseError::NoProcess { pid },
            other => other,
        })?;
        if status.process == std::process::id() {
            return Err(PauseError::Own { pid });
        }
        // The number of a thread stands for its process.
        let process = match status.process == pid {
            true => Arc::new(process),
            false => Arc::new(Process::open(status.process)?),
        };
        Self::hold(&process)
    }

    fn hold(process: &Arc<Process>) -> Result<Self, PauseError> {
        let pid = process.pid;
        let (say_tid, tid) = sync_channel(1);
        let (say_held, held) = sync_channel(1);
        let (release, until_released) = sync_channel(0);
        let for_tracer = Arc::clone(process);
        let trace = move || {
            let _ = say_tid.send(gettid());
            tracer::run(&for_tracer, &say_held, &until_released)
        };
        let named = Builder::new().name("plimsoll-pause".into());
        let tracer = named.spawn(trace).map_err(|source| PauseError::Failed {
            pid,
            what: "starting the thread that traces",
            source,
        })?;
        let begun = Instant::now();
        loop {
            match held.recv_timeout(REAPING) {
                Ok(held) => {
                    let hold = Some(Hold { release, tracer });
                    return Ok(Self { pid, held, hold });
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let outcome = ended(tracer);
                    if let Ok(tid) = tid.recv() {
                        await_end_of_thread(tid);
                    }
                    // Without having held it, its end is an error.
                    return Err(outcome.err().unwrap_or(PauseError::Gone { pid }));
                }
                // Seizing a thread waits while the process is in execve. What waits here is the
                // other thread, which lets go as soon as the kernel lets it.
                Err(RecvTimeoutError::Timeout) if begun.elapsed() > 2 * PATIENCE => {
                    return Err(PauseError::Restless {
                        pid,
                        threads: process.threads().map_or(0, |threads| threads.len()),
                        waited: begun.elapsed(),
                    });
                }
                Err(RecvTimeoutError::Timeout) => tracer::reap(process),
            }
        }
    }

    /// The process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// How many threads of it are stopped: all that it has.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.held.threads
    }

    /// For how long it has been stopped, from the first interrupt on.
    #[must_use]
    pub fn stopped_for(&self) -> Duration {
        self.held.since.elapsed()
    }

    /// Lets the process go on, and returns for how long it was stopped: from the first interrupt to
    /// the last thread let go.
    ///
    /// # Errors
    ///
    /// [`PauseError::Gone`] where it was killed meanwhile, so that what was read of it may be torn.
    pub fn release(mut self) -> Result<Duration, PauseError> {
        match self.hold.take() {
            Some(Hold { release, tracer }) => {
                drop(release);
                ended(tracer)
            }
            None => Ok(self.stopped_for()),
        }
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        if let Some(hold) = self.hold.take() {
            // Not `release`, which hands a panic on: two at once would abort.
            drop(hold.release);
            let _ = hold.tracer.join();
        }
    }
}

/// What the tracing thread returned.
fn ended(tracer: JoinHandle<Result<Duration, PauseError>>) -> Result<Duration, PauseError> {
    tracer
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Waits until a thread of this program that was joined is gone for the kernel, too, which lets its
/// tracees go only shortly after. Not for long: it depends on nothing but a processor.
fn await_end_of_thread(tid: rustix::thread::Pid) {
    let entry = format!("/proc/self/task/{tid}");
    let begun = Instant::now();
    while std::fs::exists(&entry).unwrap_or(false) && begun.elapsed() < PATIENCE {
        sleep(Duration::from_micros(100));
    }
}
