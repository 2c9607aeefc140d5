//! A program of ours, what it printed, and its end.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::TICK;
use crate::live::source::SourceError;

/// What is tried to end it, one after the other, and how long it may take each time.
const ENDING: [(Signal, Stopped, Duration); 3] = [
    (Signal::INT, Stopped::Interrupted, Duration::from_secs(5)),
    (Signal::TERM, Stopped::Terminated, Duration::from_secs(2)),
    (Signal::KILL, Stopped::Killed, Duration::from_secs(5)),
];

/// What is quoted of its standard error, bytes.
const QUOTED: u64 = 4096;

/// What outlives the screen: how a program ended, and what it printed. Clones are of one program.
#[derive(Debug, Clone)]
pub struct ChildHandle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    program: String,
    pid: u32,
    running: Mutex<Running>,
    stdout: File,
    stderr: File,
}

#[derive(Debug)]
struct Running {
    child: Child,
    outcome: Option<ExitStatus>,
    stopped: Option<Stopped>,
}

impl Running {
    fn outcome(&mut self) -> Option<ExitStatus> {
        if self.outcome.is_none() {
            self.outcome = self.child.try_wait().ok().flatten();
        }
        self.outcome
    }
}

/// What it took to end a program that was still running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// An interrupt, as by Ctrl-C.
    Interrupted,
    /// `SIGTERM`, since it did not heed an interrupt.
    Terminated,
    /// `SIGKILL`, since it heeded neither. What it would have written at its end is missing.
    Killed,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stopped::Interrupted => "it was interrupted, and ended",
            Stopped::Terminated => "it did not end when interrupted for 5 s: ended by SIGTERM",
            Stopped::Killed => {
                "it did not end when interrupted for 5 s, nor by SIGTERM for 2 s: killed by SIGKILL"
            }
        })
    }
}

impl ChildHandle {
    pub(super) fn start(mut command: Command) -> Result<ChildHandle, SourceError> {
        let program = command.get_program().to_string_lossy().into_owned();
        let run = |source| SourceError::Run {
            program: program.clone(),
            source,
        };
        let stdout = nameless_file().map_err(run)?;
        let stderr = nameless_file().map_err(run)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(stdout.try_clone().map_err(run)?)
            .stderr(stderr.try_clone().map_err(run)?)
            .process_group(0)
            .spawn()
            .map_err(run)?;
        let shared = Shared {
            program,
            pid: child.id(),
            running: Mutex::new(Running {
                child,
                outcome: None,
                stopped: None,
            }),
            stdout,
            stderr,
        };
        Ok(ChildHandle {
            shared: Arc::new(shared),
        })
    }

    /// The program, as it was called; control characters and all.
    #[must_use]
    pub fn program(&self) -> &str {
        &self.shared.program
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.shared.pid
    }

    /// How it ended; `None` while it runs.
    #[must_use]
    pub fn outcome(&self) -> Option<ExitStatus> {
        self.running().outcome()
    }

    /// What was done to end it; `None` if it ended by itself, or runs.
    #[must_use]
    pub fn stopped(&self) -> Option<Stopped> {
        self.running().stopped
    }

    /// Ends it and what it started, if it runs: by an interrupt, after 5 s by `SIGTERM`, after 2 s
    /// more by `SIGKILL`. Returns once it is gone, or when it has not gone 5 s after that, as a
    /// process cannot that waits for a broken disk.
    pub fn stop(&self) {
        for (signal, stopped, patience) in ENDING {
            if !self.signal(signal, stopped) || self.ends_within(patience) {
                return;
            }
        }
    }

    /// Whether it was still there to be told.
    fn signal(&self, signal: Signal, stopped: Stopped) -> bool {
        let mut running = self.running();
        // Its number is its own until it was waited for, which needs the same lock.
        match (running.outcome(), Pid::from_raw(self.pid().cast_signed())) {
            (None, Some(group)) => {
                running.stopped = Some(stopped);
                let _ = kill_process_group(group, signal);
                true
            }
            _ => false,
        }
    }

    fn ends_within(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        while self.outcome().is_none() {
            if Instant::now() >= until {
                return false;
            }
            std::thread::sleep(TICK);
        }
        true
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        let running = self.shared.running.lock();
        running.unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes out what it printed on its standard output until now; gives the bytes.
    ///
    /// # Errors
    /// It cannot be read, or not be written.
    pub fn write_stdout(&self, into: &mut dyn Write) -> io::Result<u64> {
        copy(&self.shared.stdout, into)
    }

    /// Writes out what it printed on its standard error until now; gives the bytes.
    ///
    /// # Errors
    /// It cannot be read, or not be written.
    pub fn write_stderr(&self, into: &mut dyn Write) -> io::Result<u64> {
        copy(&self.shared.stderr, into)
    }

    /// The last of its standard error.
    pub(super) fn quote(&self) -> String {
        let stderr = &self.shared.stderr;
        let size = stderr.metadata().map_or(0, |metadata| metadata.len());
        let mut bytes = [0; QUOTED as usize];
        let read = stderr.read_at(&mut bytes, size.saturating_sub(QUOTED));
        let bytes = &bytes[..read.unwrap_or(0)];
        String::from_utf8_lossy(bytes).trim().to_owned()
    }
}

/// Copies a file from its start, without moving where others write to it.
fn copy(file: &File, into: &mut dyn Write) -> io::Result<u64> {
    let mut bytes = vec![0; 64 << 10];
    let mut from = 0;
    loop {
        match file.read_at(&mut bytes, from) {
            Ok(0) => return Ok(from),
            Ok(read) => {
                into.write_all(&bytes[..read])?;
                from += read as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A file that is appended to, in the folder for passing files, under no name: it is gone when
/// nobody has it open.
fn nameless_file() -> io::Result<File> {
    static MADE: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("plimsoll-{}-{number}.out", std::process::id());
        let path = std::env::temp_dir().join(name);
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        match file {
            // Somebody else's, perhaps of a process that had this number.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => {
                let what = format!("no place in {} for what it prints: {error}", path.display());
                return Err(io::Error::new(error.kind(), what));
            }
            Ok(file) => {
                fs::remove_file(&path)?;
                return Ok(file);
            }
        }
    }
}
