//! What a process was started with, as far as it still shows.

use std::os::unix::ffi::OsStrExt;

use super::Took;
use crate::knob::{Knob, Route};
use crate::launch::{JEMALLOC_CONF, PRELOAD, TUNABLES, preloads};

/// The bytes of `/proc/PID/environ`. The process may have written over them, to change its title.
pub(super) struct Environment<'a>(Option<&'a [u8]>);

/// Whether something stands in an environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    Yes,
    No,
    /// The environment could not be read, or was written over.
    Unknown,
}

impl<'a> Environment<'a> {
    pub(super) fn new(bytes: Option<&'a [u8]>) -> Self {
        Self(bytes)
    }

    fn variables(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let entries = self.0.unwrap_or_default().split(|byte| *byte == 0);
        entries.filter_map(|entry| {
            let at = entry.iter().position(|byte| *byte == b'=')?;
            Some((&entry[..at], &entry[at + 1..]))
        })
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a [u8]> {
        let mut variables = self.variables();
        variables.find_map(|(other, value)| (other == name.as_bytes()).then_some(value))
    }

    /// Whether it is still one: without a single variable, it was written over or could not be read.
    fn is_whole(&self) -> bool {
        self.variables().next().is_some()
    }

    pub(super) fn held(&self, is: impl FnOnce(&Self) -> bool) -> Held {
        match (self.is_whole(), is(self)) {
            (_, true) => Held::Yes,
            (true, false) => Held::No,
            (false, false) => Held::Unknown,
        }
    }

    /// Whether `LD_PRELOAD` names a file of this allocator.
    pub(super) fn preloads(&self, start: &str) -> Held {
        self.held(|environment| {
            let list = environment.get(PRELOAD).unwrap_or_default();
            preloads(std::ffi::OsStr::from_bytes(list)).any(|entry| {
                let name = entry.as_bytes().rsplit(|byte| *byte == b'/').next();
                name.is_some_and(|name| name.starts_with(start.as_bytes()))
            })
        })
    }

    /// Whether a knob of a profile was set for it, to this value.
    pub(super) fn sets(&self, knob: &Knob, value: &str) -> Held {
        let entry = |list: &str, between: u8, of: String| {
            let list = self.get(list).unwrap_or_default();
            list.split(|byte| *byte == between)
                .any(|entry| entry == of.as_bytes())
        };
        self.held(|environment| match knob.route {
            Route::Mallopt(_) | Route::Tunable => {
                let name = format!("glibc.malloc.{}", knob.name);
                // Until 2.38 glibc ends each value in place as it reads it, so that what comes
                // after the first tunable stands there like a variable of its own.
                entry(TUNABLES, b':', format!("{name}={value}"))
                    || environment.get(&name) == Some(value.as_bytes())
            }
            Route::Option => entry(JEMALLOC_CONF, b',', format!("{}:{value}", knob.name)),
            Route::Environment => {
                let mut names = knob.variables.iter();
                names.all(|name| environment.get(name) == Some(value.as_bytes()))
            }
        })
    }
}

/// Grades a knob by the environment alone.
pub(super) fn check(knob: &Knob, value: &str, environment: &Environment<'_>, took: &mut Took) {
    match environment.sets(knob, value) {
        Held::No => {
            let why = format!(
                "{}: it is not in the environment the process was started with: something between \
                 cleared it",
                knob.name
            );
            took.refuse(knob.name, value, why);
        }
        Held::Yes | Held::Unknown => took.requested(knob.name, value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Malloc, knob};

    #[test]
    fn a_knob_is_in_an_environment_under_all_its_names_or_not() {
        let threshold = knob::find(Malloc::Glibc, "mmap_threshold").unwrap();
        let decay = knob::find(Malloc::Jemalloc, "dirty_decay_ms").unwrap();
        let purge = knob::find(Malloc::Mimalloc, "purge_delay").unwrap();
        let held = |text: &str, knob: &Knob, value: &str| {
            Environment::new(Some(text.as_bytes())).sets(knob, value)
        };
        let tunables = "A=1\0GLIBC_TUNABLES=glibc.rtld.x=1:glibc.malloc.mmap_threshold=7\0";
        assert_eq!(held(tunables, threshold, "7"), Held::Yes);
        assert_eq!(held(tunables, threshold, "70"), Held::No);
        let ended = "GLIBC_TUNABLES=glibc.rtld.x=1\0glibc.malloc.mmap_threshold=7\0A=1\0";
        assert_eq!(held(ended, threshold, "7"), Held::Yes);
        let conf = "MALLOC_CONF=background_thread:true,dirty_decay_ms:0\0";
        assert_eq!(held(conf, decay, "0"), Held::Yes);
        assert_eq!(held(conf, decay, "10"), Held::No);
        let both = "MIMALLOC_PURGE_DELAY=0\0MIMALLOC_RESET_DELAY=0\0";
        assert_eq!(held(both, purge, "0"), Held::Yes);
        assert_eq!(held("MIMALLOC_PURGE_DELAY=0\0", purge, "0"), Held::No);
        // As `setproctitle(3)` leaves it.
        assert_eq!(held("redis-server *:6379\0\0\0", purge, "0"), Held::Unknown);
        assert_eq!(Environment::new(None).sets(purge, "0"), Held::Unknown);
    }
}
