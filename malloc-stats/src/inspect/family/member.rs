//! One process of a family.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::io::Errno;

use super::kernel::share_memory;
use super::lineage::open_list;
use super::reading::{Ended, MemberReading};
use super::stat::{self, Line};
use crate::metric::{Grade, Metric};
use crate::process::{Process, parse_status};

/// Of so many members the files stay open, three of each: a process may have 1024 descriptors, as
/// a rule, and others want some too.
const MOST_HELD: usize = 64;

/// The most that is read of a file, in bytes. With 65536 groups a status has less than this.
const LONGEST: usize = 1 << 20;

/// What all members are looked at with.
#[derive(Debug)]
pub(super) struct Means {
    pub(super) buffer: Vec<u8>,
    /// How far the kernel's counters can be trusted.
    pub(super) grade: Grade,
    /// A clock tick, in microseconds.
    pub(super) tick_us: u64,
    /// Of how many members the files are open.
    pub(super) held: usize,
    /// When this look is taken.
    pub(super) at_us: u64,
}

/// A process, known by its number and when it started: it is looked at in an order that shows
/// whether another process got the number meanwhile.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) seen: MemberReading,
    pub(super) state: State,
    /// Which look was the last.
    pub(super) turn: u64,
    files: Option<Files>,
    began_us: u64,
    /// Its own resident memory when that was last seen.
    rss: Metric,
    /// The most that it held, whatever program it ran.
    peak: Metric,
    only_forked: bool,
    stack: u64,
    /// Its memory was seen to be no other's; it stays so.
    own_memory: bool,
}

/// What has become of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It runs.
    Lives,
    /// It runs, but could not be read.
    Unread,
    /// It has ended, and its parent has not waited for it.
    Zombie,
    /// It is no more.
    Gone,
}

#[derive(Debug)]
struct Files {
    status: File,
    stat: File,
    /// The children of its first thread; opened where they are asked for.
    children: Option<File>,
}

impl Files {
    fn open(pid: u32) -> io::Result<Self> {
        Ok(Self {
            status: File::open(format!("/proc/{pid}/status"))?,
            stat: File::open(format!("/proc/{pid}/stat"))?,
            children: None,
        })
    }
}

impl Member {
    /// Looks at a process for the first time. Its end is no error, so long as it is there.
    pub(super) fn open(pid: u32, turn: u64, means: &mut Means) -> io::Result<Self> {
        let files = Files::open(pid)?;
        let line = read_text(&files.stat, &mut means.buffer)?;
        let started = stat::parse(line).ok_or_else(malformed)?.started;
        let mut member = Self {
            seen: MemberReading {
                pid,
                started,
                ..MemberReading::default()
            },
            state: State::Lives,
            turn,
            files: None,
            began_us: means.at_us,
            rss: Metric::Unavailable,
            peak: Metric::Unavailable,
            only_forked: true,
            stack: 0,
            own_memory: false,
        };
        let seen = member.look_through(&files, means);
        // It runs another program, but not since it was looked at before.
        member.seen.executed = false;
        member.take(seen, files, means)?;
        Ok(member)
    }

    /// Looks at it again.
    pub(super) fn look(&mut self, turn: u64, means: &mut Means) {
        self.turn = turn;
        let files = match self.files.take() {
            Some(files) => {
                means.held -= 1;
                Ok(files)
            }
            None => Files::open(self.seen.pid),
        };
        let looked = files.and_then(|files| {
            let seen = self.look_through(&files, means);
            self.take(seen, files, means)
        });
        if let Err(error) = looked {
            self.state = if is_gone(&error) {
                State::Gone
            } else {
                self.seen.process = with_faults(Process::default(), faults(&self.seen.process));
                State::Unread
            };
        }
    }

    fn take(&mut self, seen: io::Result<State>, files: Files, means: &mut Means) -> io::Result<()> {
        self.state = seen?;
        if self.state == State::Lives && means.held < MOST_HELD {
            means.held += 1;
            self.files = Some(files);
        }
        Ok(())
    }

    /// Its list of children, where it is held.
    pub(super) fn list(&mut self) -> Option<&File> {
        let files = self.files.as_mut()?;
        if files.children.is_none() {
            files.children = open_list(self.seen.pid).ok();
        }
        files.children.as_ref()
    }

    /// Lets its files go.
    pub(super) fn into_ended(mut self, means: &mut Means) -> Ended {
        if self.files.take().is_some() {
            means.held -= 1;
        }
        Ended {
            pid: self.seen.pid,
            started: self.seen.started,
            name: self.seen.name,
            peak: self.peak,
            rss: self.rss,
            minor_faults: self.seen.process.minor_faults,
            major_faults: self.seen.process.major_faults,
            cpu_us: self.seen.cpu_us,
            began_us: self.began_us,
            ended_us: means.at_us,
        }
    }

    fn look_through(&mut self, files: &Files, means: &mut Means) -> io::Result<State> {
        let status = read_text(&files.status, &mut means.buffer)?;
        let mut memory = parse_status(status, means.grade);
        // Afterwards: if this is still about the process that was found first, then so was that.
        let line = read_text(&files.stat, &mut means.buffer)?;
        let line = stat::parse(line).ok_or_else(malformed)?;
        if line.started != self.seen.started {
            return Ok(State::Gone);
        }
        let ended = line.has_ended();
        let leader_ended = line.leader_ended();
        self.note(&line, means.tick_us, &mut memory);
        if ended {
            // The faults are its last; the memory is gone.
            self.seen.process = with_faults(Process::default(), faults(&memory));
            return Ok(State::Zombie);
        }
        if leader_ended {
            let other = memory_of_another_thread(self.seen.pid, means);
            memory = with_faults(other.unwrap_or_default(), faults(&memory));
        }
        self.seen.shares_memory = self.shares(&memory, means);
        if !self.seen.shares_memory && !memory.rss.is_unavailable() {
            self.rss = memory.rss;
            self.peak = larger(self.peak, memory.hwm);
            memory.hwm = self.peak;
        }
        self.seen.process = memory;
        Ok(State::Lives)
    }

    fn note(&mut self, line: &Line<'_>, tick_us: u64, memory: &mut Process) {
        memory.minor_faults = line.minor_faults;
        memory.major_faults = line.major_faults;
        let seen = &mut self.seen;
        if seen.name.as_bytes() != line.name {
            seen.name = String::from_utf8_lossy(line.name).into_owned();
        }
        seen.parent = line.parent;
        seen.cpu_us = line.ticks.saturating_mul(tick_us);
        seen.threads = line.threads;
        let other_stack = self.stack != 0 && line.stack != 0 && line.stack != self.stack;
        seen.executed = other_stack || self.only_forked && !line.only_forked();
        self.only_forked = line.only_forked();
        self.stack = line.stack;
    }

    /// Whether its memory is another's: from `vfork(2)` until it runs a program of its own.
    fn shares(&mut self, memory: &Process, means: &mut Means) -> bool {
        if self.own_memory || !self.only_forked || memory.rss.is_unavailable() {
            self.own_memory |= !self.only_forked;
            return false;
        }
        let (pid, parent) = (self.seen.pid, self.seen.parent);
        let shares = share_memory(pid, parent).unwrap_or_else(|| {
            // A copy made by `fork(2)` lacks the pages of files at first; and the parent stands
            // still while it waits for what it made by `vfork(2)`.
            let memory = with_faults(*memory, (0, 0));
            memory_of(&format!("/proc/{parent}/status"), means) == Some(memory)
        });
        self.own_memory = !shares;
        shares
    }
}

/// The memory of a process whose first thread has ended, which has none any more, as another of
/// its threads has it.
fn memory_of_another_thread(pid: u32, means: &mut Means) -> Option<Process> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let statuses = threads.flatten().map(|thread| thread.path().join("status"));
    statuses
        .filter_map(|status| memory_of(status.to_str()?, means))
        .find(|memory| !memory.rss.is_unavailable())
}

fn memory_of(status: &str, means: &mut Means) -> Option<Process> {
    let file = File::open(status).ok()?;
    let status = read_text(&file, &mut means.buffer).ok()?;
    Some(parse_status(status, means.grade))
}

fn faults(process: &Process) -> (u64, u64) {
    (process.minor_faults, process.major_faults)
}

fn with_faults(memory: Process, (minor_faults, major_faults): (u64, u64)) -> Process {
    Process {
        minor_faults,
        major_faults,
        ..memory
    }
}

fn larger(one: Metric, other: Metric) -> Metric {
    if other.bytes() > one.bytes() {
        other
    } else {
        one
    }
}

/// The text of a file that the kernel makes in one piece: a read that leaves room was all of it.
pub(super) fn read_text<'b>(file: &File, buffer: &'b mut Vec<u8>) -> io::Result<&'b [u8]> {
    let read = loop {
        match file.read_at(buffer, 0) {
            Ok(read) if read < buffer.len() || buffer.len() >= LONGEST => break read,
            Ok(_) => buffer.resize(2 * buffer.len(), 0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    };
    Ok(buffer.get(..read).unwrap_or_default())
}

/// When the process with this number started.
pub(super) fn started(pid: u32, buffer: &mut Vec<u8>) -> io::Result<u64> {
    let file = File::open(format!("/proc/{pid}/stat"))?;
    let line = stat::parse(read_text(&file, buffer)?).ok_or_else(malformed)?;
    Ok(line.started)
}

pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::NOENT | Errno::SRCH)
    )
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not as proc_pid_stat(5) has it")
}
