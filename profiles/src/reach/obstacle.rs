//! What can stand in the way, in words.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::malloc::Malloc;

/// Something about a program's file that keeps a profile from it, or is worth knowing. Prints as a
/// sentence with what would work instead.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Obstacle {
    /// There is no such file, or no way to it.
    Missing {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        reason: String,
    },
    /// It is a folder, a FIFO, a socket or a device.
    NotAFile {
        /// What is there.
        path: PathBuf,
        /// What it is, with its article.
        what: &'static str,
    },
    /// It may not be executed.
    NotExecutable {
        /// The file.
        path: PathBuf,
    },
    /// It may be executed and not read, so nothing is known about it.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        reason: String,
    },
    /// The kernel has no way to run it.
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// It is a script; what it starts inherits the environment.
    Script {
        /// The script.
        path: PathBuf,
        /// The program that runs it.
        interpreter: PathBuf,
    },
    /// Scripts that name scripts as their interpreters, more than the kernel follows.
    ScriptLoop {
        /// The first of them.
        path: PathBuf,
    },
    /// The script's first line clears the environment, or a variable of the profile.
    ClearsEnvironment {
        /// The script.
        path: PathBuf,
        /// What it clears.
        what: String,
    },
    /// The loader it asks for is not there.
    NoLoader {
        /// The program.
        path: PathBuf,
        /// Its loader.
        loader: PathBuf,
    },
    /// It is a loader, started with a program as its argument.
    IsLoader {
        /// The loader.
        path: PathBuf,
    },
    /// It is static: no loader, so nothing is preloaded.
    Static {
        /// The program.
        path: PathBuf,
        /// What it was built with.
        runtime: Runtime,
        /// The allocator of the profile.
        wanted: Malloc,
        /// Whether the profile sets knobs.
        knobs: bool,
    },
    /// It runs on musl.
    Musl {
        /// The program.
        path: PathBuf,
        /// The allocator of the profile.
        wanted: Malloc,
    },
    /// It is for another machine than this program, or for other addresses.
    OtherMachine {
        /// The program.
        path: PathBuf,
        /// Its machine.
        machine: String,
        /// The allocator of the profile.
        wanted: Malloc,
    },
    /// The kernel marks it as privileged (`AT_SECURE`), and its loader then ignores preloads and
    /// settings of malloc.
    Privileged {
        /// The program.
        path: PathBuf,
        /// Why it is.
        by: Privilege,
        /// Whether the profile asks for anything.
        asks: bool,
    },
    /// It brings an allocator that the loader finds before the profile's.
    OwnMalloc {
        /// The program.
        path: PathBuf,
        /// The library that has it; `None` where the program has it itself.
        library: Option<String>,
        /// The allocator's name, or `unknown`.
        serves: String,
        /// The allocator of the profile.
        wanted: Malloc,
    },
    /// It is a Go program: only the C code in it calls `malloc`.
    Go {
        /// The program.
        path: PathBuf,
    },
}

/// What a static program was built with, as far as its file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// glibc of 2.26 or later: it reads tunables.
    Glibc,
    /// Go.
    Go,
    /// No text of glibc's tunables is in it: musl, or an older glibc.
    Other,
}

/// What makes a program privileged to the one who starts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// It runs as another user, of this number.
    SetUser(u32),
    /// It runs as another group, of this number.
    SetGroup(u32),
    /// It has file capabilities.
    Capabilities,
}

impl Obstacle {
    /// Whether it makes the profile pointless, rather than being only worth knowing.
    #[must_use]
    pub fn blocks(&self) -> bool {
        match self {
            Self::Unreadable { .. }
            | Self::Script { .. }
            | Self::IsLoader { .. }
            | Self::Go { .. } => false,
            Self::Static {
                runtime, wanted, ..
            } => (*runtime, *wanted) != (Runtime::Glibc, Malloc::Glibc),
            // Tunables are read there just so.
            Self::OtherMachine { wanted, .. } => *wanted != Malloc::Glibc,
            Self::Privileged { asks, .. } => *asks,
            Self::Missing { .. }
            | Self::NotAFile { .. }
            | Self::NotExecutable { .. }
            | Self::UnknownFormat { .. }
            | Self::ScriptLoop { .. }
            | Self::ClearsEnvironment { .. }
            | Self::NoLoader { .. }
            | Self::Musl { .. }
            | Self::OwnMalloc { .. } => true,
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { path, reason } => write!(f, "{}: {reason}", Shown(path)),
            Self::NotAFile { path, what } => {
                write!(f, "{} is {what}: name the file of a program", Shown(path))
            }
            Self::NotExecutable { path } => write!(
                f,
                "{} may not be executed: give it the permission (chmod +x), or name its \
                 interpreter before it",
                Shown(path)
            ),
            Self::Unreadable { path, reason } => write!(
                f,
                "{} cannot be read ({reason}), so whether the profile reaches it shows only once \
                 it runs",
                Shown(path)
            ),
            Self::UnknownFormat { path, reason } => write!(
                f,
                "{} cannot be run: {reason}; a shell script without a first line takes `sh` before \
                 it",
                Shown(path)
            ),
            Self::Script { path, interpreter } => write!(
                f,
                "{} is a script for {}: both it and what it starts inherit the profile",
                Shown(path),
                Shown(interpreter)
            ),
            Self::ScriptLoop { path } => write!(
                f,
                "{} is a script whose interpreter is a script, and so on, further than the kernel \
                 follows: name the program that runs it",
                Shown(path)
            ),
            Self::ClearsEnvironment { path, what } => write!(
                f,
                "the first line of {} clears {what}, and the profile with it: name the interpreter \
                 before the script",
                Shown(path)
            ),
            Self::NoLoader { path, loader } => write!(
                f,
                "{} asks for the loader {}, which is not here: it is for another C library or \
                 system; run it in its own container",
                Shown(path),
                Shown(loader)
            ),
            Self::IsLoader { path } => write!(
                f,
                "{} is a loader: what is said of a program holds for the one it is given",
                Shown(path)
            ),
            Self::Static {
                path,
                runtime,
                wanted,
                knobs,
            } => write_static(f, path, *runtime, *wanted, *knobs),
            Self::Musl { path, wanted } => write_musl(f, path, *wanted),
            Self::OtherMachine {
                path,
                machine,
                wanted: Malloc::Glibc,
            } => write!(
                f,
                "{} is a {machine} program: it reads the settings, but whether they hold cannot be \
                 read from outside",
                Shown(path)
            ),
            Self::OtherMachine {
                path,
                machine,
                wanted,
            } => write!(
                f,
                "{} is a {machine} program, and the {wanted} found here is for another machine: \
                 name one for it in {}, or take a glibc profile",
                Shown(path),
                wanted.path_variable().unwrap_or_default()
            ),
            Self::Privileged { path, by, .. } => {
                let why = match by {
                    Privilege::SetUser(id) => format!("runs as user {id} (setuid)"),
                    Privilege::SetGroup(id) => format!("runs as group {id} (setgid)"),
                    Privilege::Capabilities => "has file capabilities".to_owned(),
                };
                write!(
                    f,
                    "{} {why}, so its loader ignores preloads and malloc settings: start it as \
                     that user, or a copy without the privilege",
                    Shown(path)
                )
            }
            Self::OwnMalloc {
                path,
                library: Some(library),
                serves,
                wanted,
            } => write!(
                f,
                "{} needs {}, so {serves} serves its malloc and not {wanted}: take a profile of \
                 {serves}, or one that preloads",
                Shown(path),
                Shown(Path::new(library))
            ),
            Self::OwnMalloc {
                path,
                library: None,
                serves,
                wanted,
            } => write!(
                f,
                "{} has a malloc of its own ({serves}), which comes before {wanted} whatever is \
                 preloaded: build it without, or tune that one",
                Shown(path)
            ),
            Self::Go { path } => write!(
                f,
                "{} is a Go program: its runtime allocates by itself (see GOGC and GOMEMLIMIT), \
                 and the profile reaches only C code in it",
                Shown(path)
            ),
        }
    }
}

fn write_static(
    f: &mut fmt::Formatter<'_>,
    path: &Path,
    runtime: Runtime,
    wanted: Malloc,
    knobs: bool,
) -> fmt::Result {
    let path = Shown(path);
    match (runtime, wanted) {
        (Runtime::Glibc, Malloc::Glibc) if knobs => write!(
            f,
            "{path} is static; nothing can be preloaded into it, but its glibc reads the settings"
        ),
        (Runtime::Glibc, Malloc::Glibc) => {
            write!(f, "{path} is static, with a glibc of its own")
        }
        (Runtime::Glibc, _) => write!(
            f,
            "{path} is static, so {wanted} cannot be preloaded: take a glibc profile, which it \
             reads, or link it dynamically"
        ),
        (Runtime::Go, _) => write!(
            f,
            "{path} is a static Go program, whose runtime allocates by itself: see GOGC and \
             GOMEMLIMIT instead"
        ),
        (Runtime::Other, _) => write!(
            f,
            "{path} is static and has no glibc with tunables (it is musl's, or older than 2.26): \
             neither preloads nor settings reach it; link it dynamically, or build an allocator in"
        ),
    }
}

fn write_musl(f: &mut fmt::Formatter<'_>, path: &Path, wanted: Malloc) -> fmt::Result {
    let path = Shown(path);
    match wanted {
        Malloc::Glibc => write!(
            f,
            "{path} runs on musl, to which glibc's settings mean nothing: build it for glibc, or \
             with an allocator of its own"
        ),
        wanted => write!(
            f,
            "{path} runs on musl, and a {wanted} that was built for glibc cannot be loaded into \
             it: preload one built for musl, in its own system"
        ),
    }
}

/// A path without its control characters.
struct Shown<'a>(&'a Path);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.to_string_lossy().chars() {
            if character.is_control() {
                write!(f, "{}", character.escape_default())?;
            } else {
                write!(f, "{character}")?;
            }
        }
        Ok(())
    }
}
