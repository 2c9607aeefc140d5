//! Finding a process by its name.

use super::refusal::{Match, TargetError};
use super::status::Status;
use super::target::Target;
use super::users::Users;

/// The kernel keeps this many bytes of a process's name (`TASK_COMM_LEN` less its end).
const MOST_OF_COMM: usize = 15;

/// The most names that are said to be like one that nobody has.
const MOST_NEAR: usize = 3;

/// What a process goes by.
struct Names {
    /// As the kernel shortened it, or as the process set it.
    comm: String,
    /// The file names of its first argument and of its program.
    files: Vec<String>,
}

impl Names {
    fn of(target: &Target) -> Option<Self> {
        let comm = target.text("comm").ok()?;
        let argument = target.arguments().ok().and_then(|a| a.into_iter().next());
        let program = target.program_path().map(|path| {
            let kept = path.strip_suffix(" (deleted)");
            kept.unwrap_or(&path).to_owned()
        });
        let file_name = |path: String| Some(path.rsplit('/').next()?.to_owned());
        Some(Self {
            comm: comm.strip_suffix('\n').unwrap_or(&comm).to_owned(),
            files: [argument, program]
                .into_iter()
                .flatten()
                .filter_map(file_name)
                .filter(|name| !name.is_empty())
                .collect(),
        })
    }

    fn include(&self, name: &str) -> bool {
        if self.comm == name || self.files.iter().any(|file| file == name) {
            return true;
        }
        // What the kernel cut off is known where a file of that beginning tells.
        name.len() > MOST_OF_COMM
            && self.comm.len() == MOST_OF_COMM
            && name.starts_with(&self.comm)
            && !self.files.iter().any(|file| file.starts_with(&self.comm))
    }

    fn all(self) -> impl Iterator<Item = String> {
        self.files.into_iter().chain([self.comm])
    }
}

impl Target {
    /// Opens a process by its number, or by its name: the kernel's short one (also where that is
    /// the beginning of a longer name), or the file name of its first argument or of its program.
    /// The asking process is not among those it finds by name.
    ///
    /// # Errors
    ///
    /// [`TargetError`] where nobody is called so, or several are, and as [`open`](Self::open).
    pub fn find(name_or_pid: &str) -> Result<Self, TargetError> {
        match name_or_pid.parse() {
            Ok(pid) => Self::open(pid),
            Err(_) => by_name(name_or_pid),
        }
    }
}

fn by_name(name: &str) -> Result<Target, TargetError> {
    let pids = Target::pids().map_err(|source| TargetError::Unreadable {
        pid: std::process::id(),
        file: "..",
        source,
    })?;
    let mut found = Vec::new();
    let mut refused = None;
    let mut others = Vec::new();
    for pid in pids {
        if pid == std::process::id() {
            continue;
        }
        match Target::open(pid) {
            Ok(target) => match Names::of(&target) {
                Some(names) if names.include(name) => found.push(target),
                Some(names) => others.extend(names.all()),
                None => {}
            },
            // Nobody means a zombie where a live process has the name too.
            Err(error) => {
                if error.named() == Some(name) {
                    refused = Some(error);
                }
            }
        }
    }
    if found.len() > 1 {
        return Err(ambiguous(name, &found));
    }
    match (found.pop(), refused) {
        (Some(target), _) => Ok(target),
        (None, Some(refused)) => Err(refused),
        (None, None) => Err(TargetError::NoSuchName {
            name: name.to_owned(),
            near: near(name, others),
        }),
    }
}

impl TargetError {
    /// The name of a process that exists and cannot be inspected.
    fn named(&self) -> Option<&str> {
        match self {
            Self::KernelThread { name, .. }
            | Self::Zombie { name, .. }
            | Self::FirstThreadEnded { name, .. } => Some(name),
            Self::ThirtyTwoBits { program, .. } => program.rsplit('/').next(),
            _ => None,
        }
    }
}

fn ambiguous(name: &str, found: &[Target]) -> TargetError {
    let users = Users::read();
    let mut matches: Vec<Match> = found
        .iter()
        .map(|target| {
            let status = Status::read(target).unwrap_or_default();
            let mut command = status.arguments.join(" ");
            if command.is_empty() {
                command = status.command;
            }
            Match {
                pid: target.pid(),
                user: users.name_or_number(status.uid),
                rss: status.memory.rss,
                command,
            }
        })
        .collect();
    matches.sort_by_key(|found| std::cmp::Reverse(found.rss.bytes()));
    TargetError::Ambiguous {
        name: name.to_owned(),
        matches,
    }
}

/// The names most like one that nobody has.
fn near(name: &str, mut others: Vec<String>) -> Vec<String> {
    others.sort_unstable();
    others.dedup();
    let mut near: Vec<(usize, String)> = others
        .into_iter()
        // A process can call itself anything, at any length.
        .filter(|other| other.len().abs_diff(name.len()) * 3 <= name.len())
        .map(|other| (strsim::osa_distance(name, &other), other))
        .filter(|(distance, other)| distance * 3 <= name.len().max(other.len()))
        .collect();
    near.sort_unstable();
    near.truncate(MOST_NEAR);
    near.into_iter().map(|(_, name)| name).collect()
}
