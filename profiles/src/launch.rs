//! Applying a profile: to this process, which may have to start afresh, or to a foreign program,
//! by the environment it is started with.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use malloc_stats::AllocatorKind;

use crate::error::Error;
use crate::knob::Route;
use crate::profile::{Profile, allocator_name};
use crate::selected::{ALLOCATOR_VARIABLE, serving};

/// Names the process that has been executed again for a profile, so that it happens once. The
/// process identifier survives `execve`, and children that inherit the variable have another.
const LAUNCHED_VARIABLE: &str = "PLIMSOLL_LAUNCHED";

const TUNABLES: &str = "GLIBC_TUNABLES";
const TUNABLE_PREFIX: &str = "glibc.malloc.";

/// What the jemalloc that is linked into this program reads at start-up (its prefix is `_rjem_`).
const LINKED_JEMALLOC_CONF: &str = "_RJEM_MALLOC_CONF";

/// A variable and its value; `None` where it has to be absent.
type Variable = (&'static str, Option<String>);

/// Puts this process under a profile. Call it first thing in `main`, while there is one thread.
///
/// Where the profile needs another allocator, or knobs that are read at start-up only, the program
/// is executed again, once, with the same arguments, working directory
/// and descriptors; the call then does not return. Inherited malloc settings that contradict the
/// profile are removed in the same way, since `glibc-default` has to mean what it says.
///
/// # Errors
/// [`Error::Reexec`] where the program cannot be executed again, [`Error::NotTaken`] where that did
/// not bring the profile's allocator.
pub fn apply(profile: &Profile) -> Result<(), Error> {
    let variables = own_environment(profile);
    let satisfied = serving() == profile.allocator && variables.iter().all(in_force);
    if !satisfied {
        let launched = std::env::var(LAUNCHED_VARIABLE).ok();
        if launched == Some(std::process::id().to_string()) {
            return Err(Error::NotTaken {
                profile: profile.name.clone(),
                wanted: allocator_name(profile.allocator),
                serving: allocator_name(serving()),
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
    std::env::var_os(name) == value.as_ref().map(OsString::from)
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
fn own_environment(profile: &Profile) -> Vec<Variable> {
    let mut variables: Vec<Variable> = crate::knob::KNOBS
        .iter()
        .filter_map(|knob| knob.variable)
        .map(|variable| (variable, None))
        .collect();
    let tunables = profile
        .knobs()
        .filter(|(knob, _)| knob.route == Route::Tunable)
        .map(|(knob, value)| (knob.name, value));
    variables.push((TUNABLES, merge_tunables(tunables)));
    let conf = jemalloc_conf(profile);
    variables.push((LINKED_JEMALLOC_CONF, conf));
    variables.push((
        ALLOCATOR_VARIABLE,
        match profile.allocator {
            // Unset and "glibc" mean the same; leaving a user's value alone saves a fresh start.
            AllocatorKind::Libc => std::env::var(ALLOCATOR_VARIABLE)
                .ok()
                .filter(|value| value != "jemalloc"),
            AllocatorKind::Jemalloc => Some("jemalloc".into()),
        },
    ));
    variables
}

/// The tunables of the environment, with those of malloc replaced.
fn merge_tunables<'a>(ours: impl Iterator<Item = (&'static str, &'a str)>) -> Option<String> {
    let inherited = std::env::var(TUNABLES).unwrap_or_default();
    let kept = inherited
        .split(':')
        .filter(|entry| !entry.is_empty() && !entry.starts_with(TUNABLE_PREFIX))
        .map(str::to_owned);
    let ours = ours.map(|(name, value)| format!("{TUNABLE_PREFIX}{name}={value}"));
    let all = kept.chain(ours).collect::<Vec<_>>().join(":");
    (!all.is_empty()).then_some(all)
}

fn jemalloc_conf(profile: &Profile) -> Option<String> {
    let options = profile
        .knobs()
        .filter(|(knob, _)| knob.route == Route::Option)
        .map(|(knob, value)| format!("{}:{value}", knob.name))
        .collect::<Vec<_>>()
        .join(",");
    (!options.is_empty()).then_some(options)
}

/// What to export so that a foreign program starts under a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignEnvironment {
    /// Variables with their values, in order.
    pub variables: Vec<(String, String)>,
    /// What the environment cannot do, in words.
    pub notes: Vec<String>,
}

/// The environment that puts a foreign, dynamically linked program under a profile.
#[must_use]
pub fn foreign_environment(profile: &Profile) -> ForeignEnvironment {
    let mut variables = Vec::new();
    let mut notes = Vec::new();
    match profile.allocator {
        AllocatorKind::Libc => {
            let tunables = profile.knobs().map(|(knob, value)| (knob.name, value));
            if let Some(tunables) = merge_tunables(tunables) {
                variables.push((TUNABLES.to_owned(), tunables));
            }
        }
        AllocatorKind::Jemalloc => {
            match find_jemalloc() {
                Some(path) => variables.push(("LD_PRELOAD".into(), path.display().to_string())),
                None => {
                    variables.push(("LD_PRELOAD".into(), "libjemalloc.so.2".into()));
                    notes.push(
                        "no libjemalloc.so.2 was found here: install it (Debian: libjemalloc2), \
                         or the program starts without it and only warns"
                            .into(),
                    );
                }
            }
            if let Some(conf) = jemalloc_conf(profile) {
                variables.push(("MALLOC_CONF".into(), conf));
            }
        }
    }
    if profile.reclaim != crate::Reclaim::None {
        notes.push(format!(
            "reclaim = \"{}\" is an action after each unload: a foreign program has to do it itself",
            profile.reclaim
        ));
    }
    ForeignEnvironment { variables, notes }
}

/// A jemalloc to preload, where distributions put it.
#[must_use]
pub fn find_jemalloc() -> Option<PathBuf> {
    let arch = std::env::consts::ARCH;
    [
        format!("/usr/lib/{arch}-linux-gnu"),
        "/usr/lib64".into(),
        "/usr/lib".into(),
        "/usr/local/lib".into(),
    ]
    .into_iter()
    .map(|folder| PathBuf::from(folder).join("libjemalloc.so.2"))
    .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_program_gets_every_knob_as_a_tunable() {
        let profile = Profile::find("glibc-mmap-1m").unwrap();
        let environment = foreign_environment(&profile);
        let (name, value) = &environment.variables[0];
        assert_eq!(name, "GLIBC_TUNABLES");
        assert!(value.ends_with("glibc.malloc.mmap_threshold=1048576"));
    }

    #[test]
    fn jemalloc_options_are_joined_as_its_manual_says() {
        let profile = Profile::find("jemalloc-background-1s").unwrap();
        assert_eq!(
            jemalloc_conf(&profile).as_deref(),
            Some("background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0")
        );
    }
}
