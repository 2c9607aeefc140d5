//! Who is whose child, and whether anything was forked at all.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, PROC_SUPER_MAGIC};

use super::super::Target;
use super::member::read_text;
use super::stat;
use crate::process::decimal;

/// Of so many threads of a process the children are listed.
const MOST_THREADS: usize = 4096;

/// The most that is read of one list, in bytes: some hundred thousand children.
const LONGEST_LIST: usize = 1 << 20;

/// Whether all children of a process were listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listed {
    /// They were.
    All,
    /// Some may have moved about meanwhile.
    Restless,
    /// There are too many, or too many threads.
    TooMany,
}

/// How children are found.
#[derive(Debug)]
pub(super) enum Lineage {
    /// The kernel lists those of each thread (`CONFIG_PROC_CHILDREN`).
    Listed,
    /// It does not: by the parents of all processes there are, as last read.
    Scanned(HashMap<u32, Vec<u32>>),
}

impl Lineage {
    /// As this kernel has it.
    pub(super) fn of_kernel() -> Self {
        if File::open("/proc/thread-self/children").is_ok() {
            Self::Listed
        } else {
            Self::Scanned(HashMap::new())
        }
    }

    /// To be called before children are asked for.
    pub(super) fn prepare(&mut self, buffer: &mut Vec<u8>) {
        let Self::Scanned(children) = self else {
            return;
        };
        children.clear();
        for pid in Target::pids().unwrap_or_default() {
            let stat = File::open(format!("/proc/{pid}/stat"));
            let Ok(stat) = stat.and_then(|file| read_text(&file, buffer)) else {
                continue;
            };
            if let Some(line) = stat::parse(stat) {
                children.entry(line.parent).or_default().push(pid);
            }
        }
    }

    /// Appends the children of a process; `list` is the list of its first thread, where that is
    /// open.
    pub(super) fn children_of(
        &self,
        pid: u32,
        list: Option<&File>,
        buffer: &mut Vec<u8>,
        into: &mut Vec<u32>,
    ) -> Listed {
        match self {
            Self::Listed => list_children(pid, list, buffer, into).unwrap_or(Listed::Restless),
            Self::Scanned(children) => {
                into.extend(children.get(&pid).into_iter().flatten());
                Listed::All
            }
        }
    }
}

fn list_children(
    pid: u32,
    list: Option<&File>,
    buffer: &mut Vec<u8>,
    into: &mut Vec<u32>,
) -> io::Result<Listed> {
    let tasks = format!("/proc/{pid}/task");
    // A directory has two links, and this one another for each thread. Most processes have one
    // thread, and need not be listed.
    let links = rustix::fs::statat(CWD, &tasks, AtFlags::empty())?.st_nlink;
    if links == 3 {
        return match list {
            Some(list) => read_list(list, buffer, into),
            None => read_list(&open_list(pid)?, buffer, into),
        };
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut tasks = Dir::new(rustix::fs::openat(CWD, tasks, flags, Mode::empty())?)?;
    let mut listed = Listed::All;
    let mut threads = 0;
    while let Some(entry) = tasks.next() {
        let entry = entry?;
        let Some(thread) = decimal(entry.file_name().to_bytes()) else {
            continue;
        };
        threads += 1;
        if threads > MOST_THREADS {
            return Ok(Listed::TooMany);
        }
        // A thread that has ended meanwhile left its children to another one.
        let list = open_in(tasks.fd()?, &format!("{thread}/children"));
        match list.and_then(|list| read_list(&list, buffer, into)) {
            Ok(Listed::All) => {}
            Ok(other) => return Ok(other),
            Err(_) => listed = Listed::Restless,
        }
    }
    Ok(listed)
}

fn open_in(directory: BorrowedFd<'_>, name: &str) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(directory, name, flags, Mode::empty())?.into())
}

/// The list of children of the first thread of a process.
pub(super) fn open_list(pid: u32) -> io::Result<File> {
    File::open(format!("/proc/{pid}/task/{pid}/children"))
}

/// Appends the numbers of a list, which the kernel hands out by pages.
fn read_list(list: &File, buffer: &mut Vec<u8>, into: &mut Vec<u32>) -> io::Result<Listed> {
    let mut length = 0;
    let mut listed = Listed::All;
    loop {
        if length == buffer.len() {
            if length >= LONGEST_LIST {
                listed = Listed::TooMany;
                break;
            }
            buffer.resize(2 * length, 0);
        }
        let room = buffer.get_mut(length..).unwrap_or_default();
        match list.read_at(room, length as u64) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let text = buffer.get(..length).unwrap_or_default();
    let numbers = text.split(u8::is_ascii_whitespace).filter_map(decimal);
    into.extend(numbers.filter_map(|number| u32::try_from(number).ok()));
    Ok(listed)
}

/// The number that was given out last, to a process or a thread.
#[derive(Debug)]
pub(super) struct Forks(Option<File>);

impl Forks {
    pub(super) fn open() -> Self {
        let file = File::open("/proc/loadavg").ok();
        // A container may have another put in its place (lxcfs), which lags behind.
        Self(
            file.filter(|file| {
                rustix::fs::fstatfs(file).is_ok_and(|of| of.f_type == PROC_SUPER_MAGIC)
            }),
        )
    }

    /// While this stays the same nothing was forked (but with a number of its own choice, as
    /// checkpoints are restored). `None` where that is not known.
    pub(super) fn newest(&self) -> Option<u64> {
        let mut text = [0; 128];
        let read = self.0.as_ref()?.read_at(&mut text, 0).ok()?;
        let words = text.get(..read)?.trim_ascii();
        let newest = decimal(words.rsplit(|byte| *byte == b' ').next()?)?;
        // A kernel that is made up says 0.
        Some(newest).filter(|newest| *newest > 0)
    }
}
