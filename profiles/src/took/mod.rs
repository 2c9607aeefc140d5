//! Did a profile take in another process? Told from outside: by the allocator that serves there, by
//! the settings its heap works by, and by the environment it was started with.

mod environment;
mod glibc;
mod served;

use std::path::Path;

use malloc_stats::inspect::Inspection;
use malloc_stats::{Setting, SettingGrade, Settings};

use crate::elf;
use crate::knob::{Knob, Route};
use crate::malloc::Malloc;
use crate::profile::Profile;
use environment::Environment;

/// What of a profile is in force in another process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Took {
    /// The allocator that serves there, as [`Detected::name`](malloc_stats::inspect::Detected);
    /// `unknown` where that could not be told.
    pub allocator: String,
    /// The setting `allocator`, then the knobs of the profile, each with how well it is known to be
    /// in force. Values are bytes, numbers or flags as the allocator writes them.
    pub settings: Settings,
    /// What is not in force, each with its reason, in sentences. Empty where nothing is known to
    /// have failed.
    pub refused: Vec<String>,
    /// What could not be found out, in sentences.
    pub unknown: Vec<String>,
}

impl Took {
    /// Whether nothing of the profile is known to have failed.
    #[must_use]
    pub fn is_in_force(&self) -> bool {
        self.refused.is_empty()
    }

    fn verified(&mut self, name: &str, value: impl Into<String>) {
        self.insert(name, value.into(), SettingGrade::Verified);
    }

    fn requested(&mut self, name: &str, value: impl Into<String>) {
        self.insert(name, value.into(), SettingGrade::Requested);
    }

    fn refuse(&mut self, name: &str, value: impl Into<String>, why: String) {
        self.insert(name, value.into(), SettingGrade::Refused);
        self.refused.push(why);
    }

    fn insert(&mut self, name: &str, value: String, grade: SettingGrade) {
        self.settings.insert(name, Setting { value, grade });
    }
}

/// Compares a process with the profile that it was started under.
///
/// `seen` is one look at it, with its heap ([`Ask::heap`](malloc_stats::inspect::Ask)); `environ` are
/// the bytes of its `/proc/PID/environ`, where they could be read. A look right after the start can
/// come before the loader is done, and find no allocator yet: look again.
#[must_use]
pub fn took(profile: &Profile, seen: &Inspection, environ: Option<&[u8]>) -> Took {
    let environment = Environment::new(environ);
    let name = seen.allocator.name.as_str();
    let mut took = Took {
        allocator: if name.is_empty() { "unknown" } else { name }.to_owned(),
        settings: Settings::default(),
        refused: Vec::new(),
        unknown: Vec::new(),
    };
    let serves = served::check(profile, seen, &environment, &mut took);
    match (profile.allocator, &seen.heap) {
        (Malloc::Glibc, Some(heap)) if serves => match &heap.settings {
            Some(in_force) => glibc::compare(profile, in_force, &environment, &mut took),
            None => by_environment(profile, seen, &environment, &mut took),
        },
        _ if serves => by_environment(profile, seen, &environment, &mut took),
        _ => {
            let instead = format!("{} serves", took.allocator);
            for (knob, value) in profile.knobs() {
                took.refuse(knob.name, value, format!("{}: {instead}", knob.name));
            }
        }
    }
    took
}

/// What the allocator does not tell: whether the process was at least started with the settings,
/// and whether its allocator reads them.
fn by_environment(
    profile: &Profile,
    seen: &Inspection,
    environment: &Environment<'_>,
    took: &mut Took,
) {
    let object = seen.allocator.object.as_deref();
    for (knob, value) in profile.knobs() {
        let ignored =
            object.is_some_and(|path| reads(&within(seen.pid, path), knob) == Some(false));
        if ignored {
            let why = format!(
                "{}: this version of {} has no such knob, and ignores it",
                knob.name, knob.allocator
            );
            took.refuse(knob.name, value, why);
        } else {
            environment::check(knob, value, environment, took);
        }
    }
    if !profile.knobs.is_empty() && profile.allocator == Malloc::Glibc {
        let why = seen
            .heap_absent
            .as_deref()
            .unwrap_or("its settings were not found");
        took.unknown
            .push(format!("the settings in force could not be read: {why}"));
    }
}

/// A file of another process, as that process sees it.
fn within(pid: u32, path: &str) -> std::path::PathBuf {
    let root = std::path::PathBuf::from(format!("/proc/{pid}/root"));
    root.join(path.trim_start_matches('/'))
}

/// Whether the allocator in a file reads a knob that it takes from its environment; `None` where that
/// cannot be told. Versions of mimalloc differ, and none says a word about what it does not know.
pub(crate) fn reads(library: &Path, knob: &Knob) -> Option<bool> {
    if knob.route != Route::Environment {
        return None;
    }
    let file = elf::open(library).ok()?;
    let mut known = false;
    for variable in knob.variables {
        // mimalloc makes the variable of the option's name; tcmalloc has it whole.
        let text = match variable.strip_prefix("MIMALLOC_") {
            Some(option) => format!("{}\0", option.to_ascii_lowercase()),
            None => format!("{variable}\0"),
        };
        let [here] = elf::holds(&file, [text.as_bytes()]).ok()?;
        known |= here && !is_deprecated(&file, variable);
    }
    Some(known)
}

/// A name that only ends a longer one: `deprecated_` is what mimalloc puts before an option that it
/// keeps for its place alone.
fn is_deprecated(file: &std::fs::File, variable: &str) -> bool {
    let Some(option) = variable.strip_prefix("MIMALLOC_") else {
        return false;
    };
    let text = format!("deprecated_{}\0", option.to_ascii_lowercase());
    matches!(elf::holds(file, [text.as_bytes()]), Ok([true]))
}
