//! Starting a command so that it cannot tell the difference: the same group, terminal, signals,
//! input and environment as if the shell had started it.
//!
//! What is ours to keep: the terminal is given to the command's group before it runs, and a command
//! whose watcher is killed is killed with it.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::fs::FileType;
use rustix::process::{Pid, getpid};
use rustix::stdio::{stderr, stdin, stdout};

use super::kernel::{self, Inheritance};
use super::origin;

/// In which process group a command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    /// In ours, as a command of a script runs in the script's.
    Ours,
    /// In one of its own, as a shell gives one to each job.
    Own,
}

impl Group {
    /// The one that comes nearest to what the command would have had without us.
    ///
    /// A job of an interactive shell leads its group, so the command leads one. Not in a pipeline:
    /// its programs have to be in one group, or only one of them has the terminal. Nor in a
    /// session of ours: its group has no parent outside that could continue it, so it is not
    /// stopped by keys, and one of its own would be.
    pub(crate) fn as_without_us() -> Group {
        let leads = kernel::group() == Some(getpid());
        let leads_session = kernel::session() == Some(getpid());
        let is_piped = [stdin().as_fd(), stdout().as_fd(), stderr().as_fd()]
            .into_iter()
            .filter_map(|fd| rustix::fs::fstat(fd).ok())
            .map(|stat| FileType::from_raw_mode(stat.st_mode))
            .any(|kind| matches!(kind, FileType::Fifo | FileType::Socket));
        if leads && !leads_session && !is_piped && Terminal::controlling().is_some() {
            Group::Own
        } else {
            Group::Ours
        }
    }
}

/// Where what a command prints and reads comes from and goes to.
#[derive(Debug)]
pub(crate) enum Streams {
    /// As ours.
    Inherited,
    /// Nothing to read, and these files to print to.
    Files { stdout: File, stderr: File },
}

/// A command, all questions answered.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) program: PathBuf,
    /// The name it is called by, and its arguments.
    pub(crate) arguments: Vec<OsString>,
    /// Variables to set, or to remove.
    pub(crate) environment: Vec<(String, Option<OsString>)>,
    pub(crate) group: Group,
    pub(crate) streams: Streams,
}

/// The controlling terminal.
#[derive(Debug)]
pub(crate) struct Terminal {
    file: File,
}

impl Terminal {
    /// `None` where there is none.
    pub(crate) fn controlling() -> Option<Terminal> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOCTTY | libc::O_CLOEXEC)
            .open("/dev/tty")
            .ok()?;
        Some(Terminal { file })
    }

    /// Whether our group has it: whether we are in the foreground.
    pub(crate) fn is_ours(&self) -> bool {
        kernel::group().is_some_and(|ours| self.belongs_to(ours))
    }

    /// Whether a group has it.
    pub(crate) fn belongs_to(&self, group: Pid) -> bool {
        rustix::termios::tcgetpgrp(&self.file).is_ok_and(|has_it| has_it == group)
    }

    /// Makes a group the one that the terminal's keys go to. From the background the kernel asks
    /// by `SIGTTOU` whether that is meant, so that is blocked meanwhile.
    pub(crate) fn give_to(&self, group: Pid) -> io::Result<()> {
        let mut before = unmasked();
        let mut ttou = unmasked();
        // SAFETY: both sets are initialised, and live here.
        unsafe {
            libc::sigaddset(&raw mut ttou, libc::SIGTTOU);
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const ttou, &raw mut before);
        }
        let given = rustix::termios::tcsetpgrp(&self.file, group);
        // SAFETY: `before` was filled by the call above.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut())
        };
        Ok(given?)
    }
}

impl AsFd for Terminal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Starts it.
///
/// # Errors
/// What `fork` or `execve` say.
pub(crate) fn start(
    start: Start,
    inheritance: Inheritance,
    terminal: Option<&Terminal>,
) -> io::Result<Child> {
    let mut command = Command::new(&start.program);
    let mut arguments = start.arguments.into_iter();
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command.args(arguments);
    for (name, value) in start.environment {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let is_inherited = matches!(start.streams, Streams::Inherited);
    if let Streams::Files { stdout, stderr } = start.streams {
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
    }
    if start.group == Group::Own {
        command.process_group(0);
    }
    let terminal = terminal
        .filter(|terminal| start.group == Group::Own && terminal.is_ours())
        .map(|terminal| terminal.file.as_raw_fd());
    let parent = std::process::id();
    // SAFETY: between fork and exec; `arrange` makes system calls only, on copies it owns.
    unsafe { command.pre_exec(move || arrange(terminal, inheritance, is_inherited, parent)) };
    let child = command.spawn()?;
    if is_inherited {
        let_go();
    }
    Ok(child)
}

/// Lets go of input and output, which are the command's: whoever writes to it or reads from it
/// waits for the end of all who have them.
fn let_go() {
    let Ok(nowhere) = OpenOptions::new().read(true).write(true).open("/dev/null") else {
        return;
    };
    // Where that fails they stay ours too, and all but the end of them is as it should be.
    let _ = rustix::stdio::dup2_stdin(&nowhere);
    let _ = rustix::stdio::dup2_stdout(&nowhere);
}

/// In the child, before it becomes the command.
fn arrange(
    terminal: Option<RawFd>,
    inheritance: Inheritance,
    streams_too: bool,
    parent: u32,
) -> io::Result<()> {
    // SAFETY: system calls with arguments by value, or pointers to sets that live here; none of
    // them allocates or locks (signal-safety(7)).
    unsafe {
        // Gone with us: a watcher that is killed must not leave what it watched behind.
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if u32::try_from(libc::getppid()) != Ok(parent) {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        if let Some(terminal) = terminal {
            let mut ttou = unmasked();
            libc::sigaddset(&raw mut ttou, libc::SIGTTOU);
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const ttou, std::ptr::null_mut());
            libc::tcsetpgrp(terminal, libc::getpid());
        }
        for fd in (0..3).filter(|fd| streams_too && origin::lacked(*fd)) {
            libc::close(fd);
        }
    }
    // The standard library empties the mask; without us it would have been inherited.
    inheritance.take_up();
    Ok(())
}

/// A set of no signals.
fn unmasked() -> libc::sigset_t {
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: `sigemptyset` fills the whole set.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
    }
}
