//! The environment that puts another program under a profile.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::find::{self, Lookup};
use super::variables::{JEMALLOC_CONF, PRELOAD, TUNABLES, jemalloc_conf, merge_tunables, preloads};
use crate::error::Error;
use crate::knob::{KNOBS, Route};
use crate::malloc::Malloc;
use crate::profile::Profile;

/// What glibc reads besides the variables of [`KNOBS`].
const OTHER_GLIBC: [&str; 3] = ["MALLOC_ARENA_TEST", "MALLOC_CHECK_", "MALLOC_PERTURB_"];

/// How the files of allocators begin that are put before another by a preload. What is preloaded
/// for another reason stays, even where it wraps `malloc`: it passes calls on to the next.
const ALLOCATORS: [&str; 8] = [
    "libjemalloc",
    "libmimalloc",
    "libtcmalloc",
    "libhoard",
    "libsnmalloc",
    "librpmalloc",
    "libtbbmalloc",
    "libc_malloc_debug",
];

/// How to start another program so that it is under a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignEnvironment {
    /// Variables with their values; `None` where one has to be absent. All others are inherited.
    pub variables: Vec<(&'static str, Option<OsString>)>,
    /// The library that is preloaded.
    pub library: Option<PathBuf>,
    /// What the environment cannot do, and what was taken out of it, in words.
    pub notes: Vec<String>,
}

impl ForeignEnvironment {
    /// Sets and removes the variables of a command that inherits the rest of this environment.
    pub fn put(&self, command: &mut Command) {
        for (name, value) in &self.variables {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
    }
}

/// The environment that puts another, dynamically linked program under a profile, where it inherits
/// the rest of this one: the profile's own settings, and none that contradict it. Whether a program
/// can be reached so is told by [`reach`](crate::reach()), whether it was by [`took`](crate::took()).
///
/// The library to preload is searched in `LD_LIBRARY_PATH` and where distributions put it;
/// `PLIMSOLL_JEMALLOC`, `PLIMSOLL_MIMALLOC` and `PLIMSOLL_TCMALLOC` name a file instead.
///
/// # Errors
/// [`Error::NotInstalled`] where the allocator's library is not found, [`Error::NoLibrary`] where
/// one was named that cannot be preloaded.
pub fn foreign_environment(profile: &Profile) -> Result<ForeignEnvironment, Error> {
    strict(profile, &|name| std::env::var_os(name))
}

/// The same for being shown: where the library is not installed here, it is named all the same, with
/// a note, since the environment may be for another machine.
#[must_use]
pub fn exported_environment(profile: &Profile) -> ForeignEnvironment {
    lenient(profile, &|name| std::env::var_os(name))
}

fn strict(profile: &Profile, variable: Lookup<'_>) -> Result<ForeignEnvironment, Error> {
    let library = find::library(profile, variable)?;
    Ok(environment(profile, library, variable))
}

fn lenient(profile: &Profile, variable: Lookup<'_>) -> ForeignEnvironment {
    match strict(profile, variable) {
        Ok(environment) => environment,
        Err(error) => {
            let name = profile.allocator.libraries().first().map(PathBuf::from);
            let mut environment = environment(profile, name, variable);
            let what = format!("{error}; without it, a program starts all the same and only warns");
            environment.notes.insert(0, what);
            environment
        }
    }
}

fn environment(
    profile: &Profile,
    library: Option<PathBuf>,
    variable: Lookup<'_>,
) -> ForeignEnvironment {
    let mut notes = Vec::new();
    let mut variables: Vec<(&'static str, Option<OsString>)> = KNOBS
        .iter()
        .flat_map(|knob| knob.variables)
        .chain(&OTHER_GLIBC)
        .map(|name| (*name, None))
        .collect();
    let mut put = |name: &'static str, value: Option<OsString>| {
        variables.retain(|(other, _)| *other != name);
        variables.push((name, value));
    };
    let tunables = profile
        .knobs()
        .filter(|(knob, _)| knob.allocator == Malloc::Glibc)
        .map(|(knob, value)| (knob.name, value));
    put(
        TUNABLES,
        merge_tunables(variable(TUNABLES).as_deref(), tunables),
    );
    put(JEMALLOC_CONF, jemalloc_conf(profile).map(OsString::from));
    for (knob, value) in profile.knobs() {
        if knob.route == Route::Environment {
            for name in knob.variables {
                put(name, Some(value.into()));
            }
        }
    }
    let inherited = variable(PRELOAD).unwrap_or_default();
    put(PRELOAD, preload(&inherited, library.as_deref(), &mut notes));
    if let Some(library) = &library {
        for (knob, _) in profile.knobs() {
            if crate::took::reads(library, knob) == Some(false) {
                notes.push(format!(
                    "{} has no knob `{}`, and ignores it: another version has",
                    library.display(),
                    knob.name
                ));
            }
        }
    }
    if profile.reclaim != crate::Reclaim::None {
        notes.push(format!(
            "reclaim = \"{}\" is an action after each unload: another program has to do it itself",
            profile.reclaim
        ));
    }
    ForeignEnvironment {
        variables,
        library,
        notes,
    }
}

/// What is preloaded: all that was, but for other allocators, and then ours.
fn preload(inherited: &OsStr, library: Option<&Path>, notes: &mut Vec<String>) -> Option<OsString> {
    let mut kept: Vec<&OsStr> = Vec::new();
    for entry in preloads(inherited) {
        if is_allocator(entry) {
            if library.is_none_or(|library| library != entry) {
                notes.push(format!(
                    "{} was in LD_PRELOAD, and is left out",
                    entry.display()
                ));
            }
        } else {
            kept.push(entry);
        }
    }
    kept.extend(library.map(Path::as_os_str));
    let list = kept.join(OsStr::new(":"));
    (!list.is_empty()).then_some(list)
}

fn is_allocator(entry: &OsStr) -> bool {
    let name = Path::new(entry).file_name().unwrap_or(entry).as_bytes();
    ALLOCATORS
        .iter()
        .any(|start| name.starts_with(start.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, inherited: &[(&str, &str)]) -> ForeignEnvironment {
        let lookup = |name: &str| {
            let found = inherited.iter().find(|(other, _)| *other == name);
            found.map(|(_, value)| OsString::from(value))
        };
        lenient(&Profile::find(name).unwrap(), &lookup)
    }

    fn value<'a>(environment: &'a ForeignEnvironment, name: &str) -> Option<&'a OsStr> {
        let mut variables = environment.variables.iter();
        let found = variables.find(|(other, _)| *other == name);
        found.unwrap().1.as_deref()
    }

    #[test]
    fn every_variable_is_named_once_and_every_knob_reaches_one() {
        for profile in crate::builtin::all() {
            let environment = found(&profile.name, &[]);
            let mut names: Vec<_> = environment.variables.iter().map(|(name, _)| name).collect();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), environment.variables.len());
            let set = environment.variables.iter();
            let set: Vec<_> = set.filter_map(|(_, value)| value.as_deref()).collect();
            for (knob, wanted) in profile.knobs() {
                let option = format!("{}:{wanted}", knob.name);
                let reached = |value: &&OsStr| {
                    let value = value.to_string_lossy();
                    value == wanted
                        || value.ends_with(&format!("{}={wanted}", knob.name))
                        || value.split(',').any(|part| part == option)
                };
                assert!(set.iter().any(reached), "{}", knob.name);
            }
        }
    }

    #[test]
    fn a_program_gets_every_knob_as_a_tunable() {
        let environment = found(
            "glibc-mmap-1m",
            &[("GLIBC_TUNABLES", "glibc.malloc.mmap_max=0:glibc.rtld.x=1")],
        );
        assert_eq!(
            value(&environment, "GLIBC_TUNABLES").unwrap(),
            "glibc.rtld.x=1:glibc.malloc.mmap_threshold=1048576"
        );
        assert_eq!(value(&environment, "MALLOC_MMAP_MAX_"), None);
    }

    #[test]
    fn a_plain_glibc_takes_out_what_would_change_it_and_leaves_other_preloads() {
        let environment = found(
            "glibc-default",
            &[
                (
                    "LD_PRELOAD",
                    "/a/libfaketime.so:/b/libjemalloc.so.2 /c/libhook.so",
                ),
                ("MALLOC_ARENA_MAX", "1"),
            ],
        );
        assert_eq!(
            value(&environment, "LD_PRELOAD").unwrap(),
            "/a/libfaketime.so:/c/libhook.so"
        );
        assert_eq!(value(&environment, "MALLOC_ARENA_MAX"), None);
        assert!(environment.notes[0].contains("libjemalloc.so.2"));
        let only_allocators = found("glibc-default", &[("LD_PRELOAD", "libtcmalloc.so.4")]);
        assert_eq!(value(&only_allocators, "LD_PRELOAD"), None);
    }

    #[test]
    fn a_library_that_was_named_and_is_none_is_an_error_with_its_variable() {
        let profile = Profile::find("tcmalloc-default").unwrap();
        let lookup = |name: &str| (name == "PLIMSOLL_TCMALLOC").then(|| "/etc/passwd".into());
        let text = strict(&profile, &lookup).unwrap_err().to_string();
        assert!(text.contains("PLIMSOLL_TCMALLOC") && text.contains("/etc/passwd"));
        let shown = lenient(&profile, &lookup);
        assert_eq!(
            value(&shown, "LD_PRELOAD").unwrap(),
            "libtcmalloc_minimal.so.4"
        );
        assert!(shown.notes[0].contains("/etc/passwd"));
    }
}
