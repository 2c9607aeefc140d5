use std::io;
use std::time::Duration;

/// Why a process was not stopped, or did not stay so. In every case all of it that was stopped
/// runs again, unless it had ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PauseError {
    /// There is none.
    #[error("there is no process {pid}, or /proc hides it (mount option hidepid)")]
    NoProcess {
        /// The number asked for.
        pid: u32,
    },

    /// The program asked to stop itself, or one of its own threads.
    #[error("{pid} is this program itself, which cannot look on while it is stopped")]
    Own {
        /// The number asked for.
        pid: u32,
    },

    /// It has ended, and its parent has not asked how.
    #[error("process {pid} has ended (it is a zombie until its parent waits for it)")]
    Zombie {
        /// The process.
        pid: u32,
    },

    /// It is no program.
    #[error("{pid} is a thread of the kernel, which cannot be stopped and has no heap")]
    KernelThread {
        /// Its number.
        pid: u32,
    },

    /// It ended while it was being stopped or held, so what was read of it meanwhile may be torn.
    #[error("process {pid} ended while it was being stopped or held")]
    Gone {
        /// The process.
        pid: u32,
    },

    /// A debugger or the like has it, and the kernel allows only one.
    #[error(
        "process {pid} is already traced by process {tracer} ({tracer_name:?}), and a process can have one tracer only: end that one, or look without a pause"
    )]
    Traced {
        /// The process.
        pid: u32,
        /// The thread of it at which that was seen.
        tid: i32,
        /// The process that traces it.
        tracer: u32,
        /// The name of that process.
        tracer_name: String,
    },

    /// The kernel does not permit it.
    #[error("no permission to stop process {pid}: {reason}")]
    Denied {
        /// The process.
        pid: u32,
        /// Which rule, and what would satisfy it.
        reason: String,
    },

    /// A thread did not stop, as it sleeps in the kernel where nothing can interrupt it: waiting
    /// for a disk or a network file system, for the child of its `vfork`, or in a frozen cgroup.
    #[error(
        "thread {tid} ({name:?}) of process {pid} did not stop within {waited:?}: it is {}; try again when it is not, or look without a pause",
        in_words(*state)
    )]
    Stuck {
        /// The process.
        pid: u32,
        /// The thread.
        tid: i32,
        /// The thread's name.
        name: String,
        /// The thread's state, as a letter of `proc_pid_status(5)`; `D` is uninterruptible sleep.
        state: char,
        /// How long was waited for it.
        waited: Duration,
    },

    /// It makes and ends threads faster than they can be stopped, or is held up in `execve`.
    #[error(
        "process {pid} ({threads} threads) did not come to rest within {waited:?}: it makes threads faster than they can be stopped, or is held up in execve; try again, or look without a pause"
    )]
    Restless {
        /// The process.
        pid: u32,
        /// Its threads at the last count.
        threads: usize,
        /// How long was tried.
        waited: Duration,
    },

    /// `/proc` shows the processes of another PID namespace, so its numbers name other processes
    /// than `ptrace` would stop.
    #[error(
        "process {pid} cannot be stopped through this /proc, which is of another PID namespace than this program: mount one of its own (mount -t proc proc /proc)"
    )]
    ForeignProc {
        /// The number asked for.
        pid: u32,
    },

    /// Anything else that the kernel refused.
    #[error("cannot stop process {pid}: {what}: {source}")]
    Failed {
        /// The process.
        pid: u32,
        /// What was being done.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

fn in_words(state: char) -> String {
    let words = match state {
        'D' => "in uninterruptible sleep",
        'R' => "running in the kernel, or waiting for a processor",
        'I' => "idle in the kernel",
        _ => return format!("in state {state}"),
    };
    format!("{words} ({state})")
}
