//! Applying a profile to this process, which may have to start afresh.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use malloc_stats::AllocatorKind;

use crate::error::Error;
use crate::knob::Route;
use crate::malloc::Malloc;
use crate::profile::Profile;
use crate::selected::{ALLOCATOR_VARIABLE, serving};

use super::variables::{TUNABLES, jemalloc_conf, merge_tunables};

/// Names the process that has been executed again for a profile, so that it happens once. The
/// process identifier survives `execve`, and children that inherit the variable have another.
const LAUNCHED_VARIABLE: &str = "PLIMSOLL_LAUNCHED";

/// What the jemalloc that is linked into this program reads at start-up (its prefix is `_rjem_`).
const LINKED_JEMALLOC_CONF: &str = "_RJEM_MALLOC_CONF";

/// A variable and its value; `None` where it has to be absent.
type Variable = (&'static str, Option<OsString>);

/// Puts this process under a profile. Call it first thing in `main`, while there is one thread.
///
/// Where the profile needs another allocator, or knobs that are read at start-up only, the program
/// is executed again, once, with the same arguments, working directory
/// and descriptors; the call then does not return. Inherited malloc settings that contradict the
/// profile are removed in the same way, since `glibc-default` has to mean what it says.
///
/// # Errors
/// [`Error::OnlyForeign`] where the allocator is for other programs, [`Error::Reexec`] where the
/// program cannot be executed again, [`Error::NotTaken`] where that did not bring the profile's
/// allocator.
pub fn apply(profile: &Profile) -> Result<(), Error> {
    let kind = profile.allocator.serves_here().ok_or(Error::OnlyForeign {
        profile: profile.name.clone(),
        allocator: profile.allocator.name(),
    })?;
    let variables = own_environment(profile, kind);
    let satisfied = serving() == kind && variables.iter().all(in_force);
    if !satisfied {
        let launched = std::env::var(LAUNCHED_VARIABLE).ok();
        if launched == Some(std::process::id().to_string()) {
            return Err(Error::NotTaken {
                profile: profile.name.clone(),
                wanted: profile.allocator.name(),
                serving: Malloc::from(serving()).name(),
            });
        }
        return Err(Error::Reexec {
            profile: profile.name.clone(),
            reason: execute_again(&variables).to_string(),
        });
    }
    for (knob, value) in profile.knobs() {
        if let Route::Mallopt(parameter) = knob.route {
            let value = value.parse::<libc::c_int>().map_err(|_| Error::Broken {
                origin: profile.name.clone(),
                reason: format!(
                    "knob `{}`: mallopt takes at most {}, not {value}",
                    knob.name,
                    libc::c_int::MAX
                ),
            })?;
            // SAFETY: `mallopt` takes the parameter and value by value and locks by itself.
            let taken = unsafe { libc::mallopt(parameter, value) };
            tracing::debug!(knob = knob.name, value, taken, "mallopt");
        }
    }
    Ok(())
}

fn in_force((name, value): &Variable) -> bool {
    std::env::var_os(name) == *value
}

fn execute_again(variables: &[Variable]) -> std::io::Error {
    let mut arguments = std::env::args_os();
    let mut command = std::process::Command::new(own_path());
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command
        .args(arguments)
        .env(LAUNCHED_VARIABLE, std::process::id().to_string());
    for (name, value) in variables {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.exec()
}

/// The path of this program as long as it leads to it, so that the process keeps the name that tools
/// list it by; else the link that always does.
fn own_path() -> PathBuf {
    let link = PathBuf::from("/proc/self/exe");
    let identity = |path: &Path| path.metadata().map(|file| (file.dev(), file.ino())).ok();
    match std::fs::read_link(&link) {
        Ok(path) if identity(&path).is_some_and(|file| identity(&link) == Some(file)) => path,
        _ => link,
    }
}

/// The environment in which this program has to start for a profile.
fn own_environment(profile: &Profile, kind: AllocatorKind) -> Vec<Variable> {
    let mut variables: Vec<Variable> = crate::knob::KNOBS
        .iter()
        .filter(|knob| knob.allocator == Malloc::Glibc)
        .flat_map(|knob| knob.variables)
        .map(|variable| (*variable, None))
        .collect();
    let tunables = profile
        .knobs()
        .filter(|(knob, _)| knob.route == Route::Tunable)
        .map(|(knob, value)| (knob.name, value));
    let inherited = std::env::var_os(TUNABLES);
    variables.push((TUNABLES, merge_tunables(inherited.as_deref(), tunables)));
    let conf = jemalloc_conf(profile).map(OsString::from);
    variables.push((LINKED_JEMALLOC_CONF, conf));
    variables.push((
        ALLOCATOR_VARIABLE,
        match kind {
            // Unset and "glibc" mean the same; leaving a user's value alone saves a fresh start.
            AllocatorKind::Libc => {
                std::env::var_os(ALLOCATOR_VARIABLE).filter(|value| value != "jemalloc")
            }
            AllocatorKind::Jemalloc => Some("jemalloc".into()),
        },
    ));
    variables
}
