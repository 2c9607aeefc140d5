//! Why a process cannot be inspected, and the way out.

use std::fmt;
use std::io;

use crate::metric::Metric;

/// Why there is nothing to look at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// Nobody has this number.
    #[error("there is no process {pid}; `plimsoll ps` lists those there are")]
    NoSuchProcess {
        /// The number.
        pid: u32,
    },
    /// Nobody is called so.
    #[error("no process is called {}{}", quoted(name), similar(near))]
    NoSuchName {
        /// What was asked for.
        name: String,
        /// Names that are like it.
        near: Vec<String>,
    },
    /// Several are called so.
    #[error("{} processes are called {}: say which PID\n{}", matches.len(), quoted(name), listed(matches))]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// Those that are called so, the largest first.
        matches: Vec<Match>,
    },
    /// It exists, but `/proc` does not show it.
    #[error(
        "process {pid} exists, but /proc hides it from you (mount option hidepid): sudo plimsoll inspect {pid}"
    )]
    Hidden {
        /// The number.
        pid: u32,
    },
    /// The mounted `/proc` numbers processes otherwise than the kernel does for us, so that one
    /// number means two of them.
    #[error(
        "cannot tell which process is {pid}: /proc was mounted in another namespace of PIDs than ours; mount it in this one (`unshare --mount-proc`, `mount -t proc proc /proc`)"
    )]
    OtherNumbers {
        /// The number.
        pid: u32,
    },
    /// It is a thread of another process.
    #[error("{pid} is a thread of process {process}: plimsoll inspect {process}")]
    Thread {
        /// The number.
        pid: u32,
        /// The process.
        process: u32,
    },
    /// It runs in the kernel.
    #[error(
        "{pid} ({}) is a thread of the kernel: it has no memory of its own to inspect",
        shown(name, 40)
    )]
    KernelThread {
        /// The number.
        pid: u32,
        /// Its name.
        name: String,
    },
    /// It has ended.
    #[error(
        "{pid} ({}) has ended and holds no memory any more: it is a zombie until its parent {parent} ({}) waits for it",
        shown(name, 40),
        shown(parent_name, 40)
    )]
    Zombie {
        /// The number.
        pid: u32,
        /// Its name.
        name: String,
        /// Who should wait for it.
        parent: u32,
        /// The parent's name.
        parent_name: String,
    },
    /// Its first thread has ended while others go on.
    #[error(
        "the first thread of {pid} ({}) has ended while {threads} others go on: the kernel shows no memory for such a process, and it cannot be inspected",
        shown(name, 40)
    )]
    FirstThreadEnded {
        /// The number.
        pid: u32,
        /// Its name.
        name: String,
        /// Those that live.
        threads: u64,
    },
    /// It is a program of 32 bits.
    #[error(
        "{pid} runs {}, a program of 32 bits; only those of 64 can be inspected",
        shown(program, 200)
    )]
    ThirtyTwoBits {
        /// The number.
        pid: u32,
        /// The program.
        program: String,
    },
    /// Its memory may not be read.
    #[error("{0}")]
    Denied(Denial),
    /// `/proc` cannot be read.
    #[error("/proc/{pid}/{file}: {source}; is /proc mounted?")]
    Unreadable {
        /// The number.
        pid: u32,
        /// The file.
        file: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// One of several processes of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// Its number.
    pub pid: u32,
    /// The user it runs as, by name where `/etc/passwd` has one.
    pub user: String,
    /// Its resident memory.
    pub rss: Metric,
    /// Its arguments with spaces between, control characters and all.
    pub command: String,
}

/// That the memory of a process may not be read, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// The process.
    pub pid: u32,
    /// What stands in the way.
    pub why: Barrier,
    /// Whether root would be let through: `CAP_SYS_PTRACE` can be had from here. Containers are
    /// mostly without it, root's too.
    pub root_can: bool,
}

/// What keeps the memory of a process from being read (`ptrace(2)`, "Ptrace access mode checking").
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Barrier {
    /// It belongs to another user.
    OtherUser {
        /// Its effective user.
        theirs: u32,
        /// Ours.
        ours: u32,
    },
    /// It belongs to the same user, with another group.
    OtherGroup {
        /// Its effective group.
        theirs: u32,
        /// Ours.
        ours: u32,
    },
    /// It is not dumpable: it came from a setuid program or one that may not be read, or asked
    /// for it by `prctl(PR_SET_DUMPABLE)`.
    NotDumpable,
    /// It has capabilities that this process lacks.
    Capabilities,
    /// Yama's `kernel.yama.ptrace_scope`, 1 to 3.
    Yama(u8),
    /// It lives in a user namespace over which there is no power here.
    UserNamespace,
    /// A security module (SELinux, AppArmor) or seccomp; with its label, where it has one.
    Policy(Option<String>),
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pid = self.pid;
        write!(f, "the memory of process {pid} may not be read: ")?;
        match &self.why {
            Barrier::OtherUser { theirs, ours } => {
                write!(f, "it belongs to uid {theirs}, you are uid {ours}")
            }
            Barrier::OtherGroup { theirs, ours } => {
                write!(f, "it runs with gid {theirs}, you with gid {ours}")
            }
            Barrier::NotDumpable => f.write_str(
                "it is not dumpable (a setuid program, one that may not be read, or prctl(PR_SET_DUMPABLE, 0))",
            ),
            Barrier::Capabilities => f.write_str("it has capabilities that you lack"),
            Barrier::Yama(1) => f.write_str(
                "kernel.yama.ptrace_scope is 1, which lets only its ancestors read it",
            ),
            Barrier::Yama(scope) => write!(
                f,
                "kernel.yama.ptrace_scope is {scope}, which lets {} read it",
                if *scope == 2 { "only root" } else { "nobody" }
            ),
            Barrier::UserNamespace => {
                f.write_str("it lives in a user namespace over which you have no power")
            }
            Barrier::Policy(label) => {
                f.write_str("a security policy (SELinux, AppArmor or seccomp) forbids it")?;
                match label {
                    Some(label) => write!(f, "; the process has the label {}", quoted(label)),
                    None => Ok(()),
                }
            }
        }?;
        f.write_str(": ")?;
        match &self.why {
            Barrier::Yama(3) => f.write_str(
                "it can be lowered only by starting the system with kernel.yama.ptrace_scope=1 or less",
            ),
            Barrier::Policy(_) => {
                f.write_str("allow ptrace in that policy, or run outside of the confinement")
            }
            _ if !self.root_can => f.write_str(
                "CAP_SYS_PTRACE cannot be had in this container, not even by sudo; run it on the host, or with docker run --cap-add SYS_PTRACE --pid=container:ID",
            ),
            Barrier::UserNamespace => write!(
                f,
                "on the host, in the first user namespace: sudo plimsoll inspect {pid}"
            ),
            Barrier::Yama(_) => write!(
                f,
                "sudo plimsoll inspect {pid}, or sudo sysctl kernel.yama.ptrace_scope=0"
            ),
            _ => write!(f, "sudo plimsoll inspect {pid}"),
        }
    }
}

/// A text of a stranger, safe on a terminal, cut after `most` characters.
pub(crate) fn shown(text: &str, most: usize) -> String {
    let mut shown: String = text.chars().take(most).collect();
    if text.chars().nth(most).is_some() {
        shown.push('…');
    }
    // What `escape_debug` does to quotes no terminal minds.
    shown
        .chars()
        .flat_map(|c| match c {
            '"' | '\'' | '\\' => c.to_string().chars().collect::<Vec<_>>(),
            c => c.escape_debug().collect(),
        })
        .collect()
}

fn quoted(name: &str) -> String {
    format!("`{}`", shown(name, 80))
}

fn similar(near: &[String]) -> String {
    if near.is_empty() {
        return "; `plimsoll ps` lists those there are".to_owned();
    }
    let near: Vec<String> = near.iter().map(|name| quoted(name)).collect();
    format!("; did you mean {}?", near.join(" or "))
}

/// The most that are listed of the processes of one name.
const MOST_LISTED: usize = 20;

fn listed(matches: &[Match]) -> String {
    let mut lines: Vec<String> = matches
        .iter()
        .take(MOST_LISTED)
        .map(|found| {
            format!(
                "{:>9}  {:<10}  {:>10}  {}",
                found.pid,
                shown(&found.user, 32),
                found.rss.to_string(),
                shown(&found.command, 100)
            )
        })
        .collect();
    if matches.len() > MOST_LISTED {
        lines.push(format!("… and {} more", matches.len() - MOST_LISTED));
    }
    lines.join("\n")
}
