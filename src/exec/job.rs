//! Attending a command until it and what it left behind have ended: its signals, its stops, its
//! terminal.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use malloc_stats::inspect::proc_numbers_are_ours;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Pid;

use super::kernel::{self, Sent, Signals, Used, Waited};
use super::start::{Group, Terminal};
use super::witness::Witness;

/// What a command has to end after it was asked to, before it is made to.
const GRACE: Duration = Duration::from_secs(10);

/// How often it is looked for processes that are to be ended.
const HUNT: Duration = Duration::from_millis(20);

/// What is done with signals that are meant for the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manners {
    /// They are handed on, as if we were it.
    Transparent,
    /// One that asks us to end ends the command, and all that it started: it is one of many.
    Measured,
}

/// How a command is attended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attendance {
    pub(crate) manners: Manners,
    /// Wait for what it left behind too.
    pub(crate) follow: bool,
    /// Ask it to end after so long.
    pub(crate) limit: Option<Duration>,
}

/// How it went.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attended {
    pub(crate) status: ExitStatus,
    pub(crate) used: Used,
    /// From the start to the end of the command itself.
    pub(crate) lasted: Duration,
    /// It was ended because its time was over.
    pub(crate) was_limited: bool,
    /// It had to be killed, since it did not end when asked to.
    pub(crate) was_killed: bool,
    /// The signal that asked us to end meanwhile.
    pub(crate) interrupted: Option<i32>,
}

/// A command that runs.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    pub(crate) pid: u32,
    pub(crate) group: Group,
    pub(crate) terminal: Option<&'a Terminal>,
    pub(crate) signals: &'a Signals,
    /// Knows whether a signal came to our whole group.
    pub(crate) witness: Option<&'a Witness>,
    pub(crate) begun: Instant,
}

/// The end of things, as it comes.
#[derive(Debug, Default)]
struct Ends {
    status: Option<(ExitStatus, Duration)>,
    used: Used,
    childless: bool,
    /// When it was asked to end.
    asked: Option<Instant>,
    was_limited: bool,
    was_killed: bool,
    interrupted: Option<i32>,
    /// Nobody waits any more for what it left behind.
    leave: bool,
}

impl Job<'_> {
    /// Attends it. `left` is called once, when the command has ended and others of its processes
    /// go on that are waited for.
    pub(crate) fn attend(
        &self,
        attendance: Attendance,
        mut left: impl FnMut(ExitStatus),
    ) -> io::Result<Attended> {
        let mut ends = Ends::default();
        let mut told = false;
        loop {
            self.reap(attendance.manners, &mut ends)?;
            if let Some((status, lasted)) = ends.status {
                if ends.childless || ends.leave || !attendance.follow {
                    return Ok(Attended {
                        status,
                        used: ends.used,
                        lasted,
                        was_limited: ends.was_limited,
                        was_killed: ends.was_killed,
                        interrupted: ends.interrupted,
                    });
                }
                if !std::mem::replace(&mut told, true) {
                    left(status);
                }
            }
            let due = self.end_what_is_due(attendance, &mut ends);
            self.wait(due)?;
            while let Some(sent) = self.signals.take()? {
                self.hear(sent, attendance, &mut ends);
            }
        }
    }

    /// Takes what became of children.
    fn reap(&self, manners: Manners, ends: &mut Ends) -> io::Result<()> {
        loop {
            match kernel::wait_for_any()? {
                Waited::Child { pid, status, used } => {
                    if status.code().is_some() || status.signal().is_some() {
                        ends.used.add(used);
                    }
                    if pid != self.pid {
                        continue;
                    }
                    if let Some(signal) = status.stopped_signal() {
                        if manners == Manners::Transparent {
                            self.stop(signal);
                        }
                    } else if !status.continued() {
                        ends.status = Some((status, self.begun.elapsed()));
                        self.take_terminal_back();
                    }
                }
                Waited::Nothing => return Ok(()),
                Waited::Childless => {
                    ends.childless = true;
                    return Ok(());
                }
            }
        }
    }

    /// Ends what is to end by now; gives the time of the next look.
    fn end_what_is_due(&self, attendance: Attendance, ends: &mut Ends) -> Option<Instant> {
        let now = Instant::now();
        let limit = attendance
            .limit
            .and_then(|limit| self.begun.checked_add(limit));
        if ends.asked.is_none() && limit.is_some_and(|limit| limit <= now) {
            ends.was_limited = true;
            self.ask_to_end(libc::SIGTERM, ends);
        }
        let Some(asked) = ends.asked else {
            return limit;
        };
        let last = asked + GRACE;
        if now < last {
            return Some(last);
        }
        ends.was_killed = true;
        for pid in self.processes() {
            kernel::send(pid, libc::SIGKILL);
        }
        Some(now + HUNT)
    }

    fn ask_to_end(&self, signal: i32, ends: &mut Ends) {
        ends.asked = Some(Instant::now());
        for pid in self.processes() {
            kernel::send(pid, signal);
            // One that is stopped would not hear of it.
            kernel::send(pid, libc::SIGCONT);
        }
    }

    /// All processes that descend from this one, which has no children but those of the command.
    fn processes(&self) -> Vec<i32> {
        let mut found = Vec::new();
        let mut parents = Vec::new();
        if proc_numbers_are_ours() {
            parents.push(std::process::id());
        }
        while let Some(parent) = parents.pop() {
            let Ok(threads) = std::fs::read_dir(format!("/proc/{parent}/task")) else {
                continue;
            };
            for thread in threads.flatten() {
                let children = std::fs::read_to_string(thread.path().join("children"));
                let children = children.unwrap_or_default();
                for pid in children
                    .split_ascii_whitespace()
                    .flat_map(str::parse::<u32>)
                {
                    found.extend(i32::try_from(pid));
                    parents.push(pid);
                }
            }
        }
        let witness = self.witness.map(|witness| witness.pid().cast_signed());
        found.retain(|pid| Some(*pid) != witness);
        if found.is_empty() {
            // Where the kernel lists no children, or by other numbers than ours.
            found.extend(i32::try_from(self.pid));
        }
        found
    }

    /// Waits for a signal, or until then.
    fn wait(&self, until: Option<Instant>) -> io::Result<()> {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let left = left.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        let mut fds = [PollFd::from_borrowed_fd(
            self.signals.as_fd(),
            PollFlags::IN,
        )];
        match poll(&mut fds, left.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// What is to be done about a signal that was sent to us.
    fn hear(&self, sent: Sent, attendance: Attendance, ends: &mut Ends) {
        let stops = matches!(sent.signal, libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU);
        if stops && (ends.status.is_some() || attendance.manners == Manners::Measured) {
            self.stop_all(sent.signal);
            return;
        }
        let asks_to_end = matches!(
            sent.signal,
            libc::SIGINT | libc::SIGTERM | libc::SIGHUP | libc::SIGQUIT
        );
        if sent.signal == libc::SIGCHLD {
            return;
        }
        if ends.status.is_some() {
            // The command cannot be meant any more.
            if asks_to_end {
                ends.interrupted = Some(sent.signal);
                ends.leave |= attendance.manners == Manners::Transparent;
            } else {
                return;
            }
        }
        match attendance.manners {
            Manners::Transparent if ends.status.is_none() => self.hand_on(sent),
            Manners::Transparent => {}
            Manners::Measured if asks_to_end => {
                ends.interrupted = Some(sent.signal);
                if ends.asked.is_none() {
                    self.ask_to_end(libc::SIGTERM, ends);
                } else {
                    // Asked twice: at once.
                    ends.asked = Instant::now().checked_sub(GRACE);
                }
            }
            Manners::Measured => {}
        }
    }

    /// Stops with all processes of the command, until we are continued.
    fn stop_all(&self, signal: i32) {
        for pid in self.processes() {
            kernel::send(pid, libc::SIGSTOP);
        }
        kernel::suffer(signal);
        for pid in self.processes() {
            kernel::send(pid, libc::SIGCONT);
        }
    }

    fn hand_on(&self, sent: Sent) {
        let pid = self.pid.cast_signed();
        // Without a witness: what the kernel sends is mostly a key of the terminal, which is for
        // the group.
        let to_group = self.witness.and_then(|witness| witness.has(sent.signal));
        let to_group = to_group.unwrap_or(sent.by_kernel);
        if self.group == Group::Own && sent.signal == libc::SIGCONT {
            self.give_terminal();
        }
        match (self.group, to_group) {
            // It came to the command too.
            (Group::Ours, true) => {}
            (Group::Own, true) => kernel::send(-pid, sent.signal),
            (_, false) => kernel::pass_on(pid, sent),
        }
    }

    fn its_group(&self) -> Option<Pid> {
        Pid::from_raw(self.pid.cast_signed()).filter(|_| self.group == Group::Own)
    }

    /// Whoever gave us the terminal meant the command to have it.
    fn give_terminal(&self) {
        if let (Some(terminal), Some(group)) = (self.terminal, self.its_group())
            && terminal.is_ours()
        {
            let _ = terminal.give_to(group);
        }
    }

    /// From the command, not from whoever else has it: in the background that is the shell.
    fn take_terminal_back(&self) {
        if let (Some(terminal), Some(group)) = (self.terminal, self.its_group())
            && terminal.belongs_to(group)
            && let Some(ours) = kernel::group()
        {
            let _ = terminal.give_to(ours);
        }
    }

    /// It has stopped: so do we, in the same way, until we are continued. The shell then sees what
    /// it would have seen.
    fn stop(&self, signal: i32) {
        let pid = self.pid.cast_signed();
        let asks_for_terminal = signal == libc::SIGTTIN || signal == libc::SIGTTOU;
        if asks_for_terminal
            && let (Some(terminal), Some(group)) = (self.terminal, self.its_group())
        {
            // It asked for it before it had it, or may have it now.
            self.give_terminal();
            if terminal.belongs_to(group) {
                kernel::send(-pid, libc::SIGCONT);
                return;
            }
        }
        if kernel::is_pending(libc::SIGCONT) {
            // A stop of ours would undo it, though it came after that of the command.
            return;
        }
        kernel::suffer(signal);
        // Continued: the signal that did it is held back, and is handed on when it is read. Where
        // there was no stop, as in a group that nobody could continue, there is none.
        if !kernel::is_pending(libc::SIGCONT) {
            let to = if self.group == Group::Own { -pid } else { pid };
            kernel::send(to, libc::SIGCONT);
        }
    }
}
