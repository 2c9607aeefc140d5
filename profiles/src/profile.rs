//! A profile: an allocator, its knobs, and what to do after an unload, with the reason why.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::knob::{self, Knob};
use crate::malloc::Malloc;

/// What to do after an unload, so that freed memory goes back to the system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reclaim {
    /// Nothing: the allocator keeps what it likes.
    #[default]
    None,
    /// `malloc_trim(0)`: whole free pages of every glibc arena.
    Trim,
    /// jemalloc's `arena.4096.purge`: all unused pages of every arena.
    Purge,
}

impl std::fmt::Display for Reclaim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Reclaim::None => "none",
            Reclaim::Trim => "trim",
            Reclaim::Purge => "purge",
        })
    }
}

/// How memory is to be managed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// A paragraph: for whom, and at what price.
    pub why: String,
    /// The allocator that is to serve.
    pub allocator: Malloc,
    /// What to do after an unload.
    pub reclaim: Reclaim,
    /// Values of its knobs as the allocator reads them, in the order of the file's keys.
    pub knobs: BTreeMap<&'static str, String>,
}

/// The file's form, before knobs are looked up.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    why: String,
    allocator: String,
    #[serde(default)]
    reclaim: Reclaim,
    #[serde(default)]
    knobs: toml::Table,
}

const FIELDS: &[&str] = &["name", "why", "allocator", "reclaim", "knobs"];

/// A profile file is a few lines; what is larger is something else.
const LARGEST_FILE: u64 = 64 << 10;

impl Profile {
    /// Reads a profile from TOML. `origin` is named in errors.
    ///
    /// # Errors
    /// Broken TOML, a field or knob that does not exist (with the nearest name), a value that the
    /// knob does not take, or a reclaim action that the allocator does not have.
    pub fn from_toml(text: &str, origin: &str) -> Result<Profile, Error> {
        let broken = |reason: String| Error::Broken {
            origin: origin.to_owned(),
            reason,
        };
        let table: toml::Table = text
            .parse()
            .map_err(|error: toml::de::Error| broken(error.to_string().trim_end().to_owned()))?;
        if let Some(field) = table.keys().find(|key| !FIELDS.contains(&key.as_str())) {
            let hint = match nearest(field, FIELDS.iter().copied()) {
                Some(near) => format!("; did you mean `{near}`?"),
                None if knob::KNOBS.iter().any(|knob| knob.name == field) => {
                    "; knobs belong under [knobs]".to_owned()
                }
                None => String::new(),
            };
            return Err(broken(format!("no field `{field}`{hint}")));
        }
        let file: File = table
            .try_into()
            .map_err(|error: toml::de::Error| broken(error.message().to_owned()))?;
        let allocator = Malloc::from_name(&file.allocator).ok_or_else(|| {
            broken(format!(
                "no allocator `{}`: {}",
                file.allocator.escape_debug(),
                Malloc::ALL.map(Malloc::name).join(", ")
            ))
        })?;
        match (file.reclaim, allocator) {
            (Reclaim::None, _)
            | (Reclaim::Trim, Malloc::Glibc)
            | (Reclaim::Purge, Malloc::Jemalloc) => {}
            (Reclaim::Trim, Malloc::Jemalloc) => {
                return Err(broken(
                    "reclaim = \"trim\" is glibc's; jemalloc has purge".into(),
                ));
            }
            (Reclaim::Purge, Malloc::Glibc) => {
                return Err(broken(
                    "reclaim = \"purge\" is jemalloc's; glibc has trim".into(),
                ));
            }
            (reclaim, Malloc::Mimalloc | Malloc::Tcmalloc) => {
                return Err(broken(format!(
                    "reclaim = \"{reclaim}\": {allocator} serves other programs only, and has no \
                     action to be run from outside; leave it at none, and see its knobs"
                )));
            }
        }
        let mut knobs = BTreeMap::new();
        for (name, value) in &file.knobs {
            let knob = knob::find(allocator, name).ok_or_else(|| Error::UnknownKnob {
                origin: origin.to_owned(),
                allocator: file.allocator.clone(),
                knob: name.escape_debug().to_string(),
                hint: knob_hint(allocator, name),
            })?;
            let value = knob
                .parse(value)
                .map_err(|reason| broken(format!("knob `{name}` {reason}")))?;
            knobs.insert(knob.name, value);
        }
        if file.name.is_empty() || file.name.chars().any(char::is_control) {
            return Err(broken("the name is empty or has control characters".into()));
        }
        Ok(Profile {
            name: file.name,
            why: file.why.split_whitespace().collect::<Vec<_>>().join(" "),
            allocator,
            reclaim: file.reclaim,
            knobs,
        })
    }

    /// The profile of that name, or of that file: whatever has a slash or ends in `.toml` is a
    /// path.
    ///
    /// # Errors
    /// An unknown name (with the nearest), an unreadable file, or what [`Profile::from_toml`] says.
    pub fn find(name_or_path: &str) -> Result<Profile, Error> {
        if name_or_path.contains('/') || name_or_path.ends_with(".toml") {
            return Profile::from_file(Path::new(name_or_path));
        }
        crate::builtin::all()
            .iter()
            .find(|profile| profile.name == name_or_path)
            .cloned()
            .ok_or_else(|| Error::UnknownProfile {
                name: name_or_path.escape_debug().to_string(),
                hint: nearest(
                    name_or_path,
                    crate::builtin::all()
                        .iter()
                        .map(|profile| profile.name.as_str()),
                )
                .map_or_else(
                    || "; `plimsoll profiles` lists them".to_owned(),
                    |near| format!("; did you mean `{near}`?"),
                ),
            })
    }

    /// Reads a profile file.
    ///
    /// # Errors
    /// As [`Profile::find`].
    pub fn from_file(path: &Path) -> Result<Profile, Error> {
        let unreadable = |reason: String| Error::Unreadable {
            path: PathBuf::from(path),
            reason,
        };
        let meta = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?;
        if !meta.is_file() {
            return Err(unreadable("not a regular file".into()));
        }
        if meta.len() > LARGEST_FILE {
            return Err(unreadable(format!(
                "{} bytes; a profile has at most {LARGEST_FILE}",
                meta.len()
            )));
        }
        let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
        Profile::from_toml(&text, &path.display().to_string())
    }

    /// The profile as a TOML file.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut text = format!(
            "name = {}\nwhy = {}\nallocator = \"{}\"\nreclaim = \"{}\"\n",
            toml::Value::from(self.name.as_str()),
            toml::Value::from(self.why.as_str()),
            self.allocator,
            self.reclaim
        );
        if !self.knobs.is_empty() {
            text.push_str("\n[knobs]\n");
            for (knob, value) in self.knobs() {
                text.push_str(&format!("{} = {value}\n", knob.name));
            }
        }
        text
    }

    /// The knobs that are set, each with its value.
    pub fn knobs(&self) -> impl Iterator<Item = (&'static Knob, &str)> {
        self.knobs.iter().filter_map(|(name, value)| {
            knob::find(self.allocator, name).map(|knob| (knob, value.as_str()))
        })
    }
}

fn knob_hint(allocator: Malloc, name: &str) -> String {
    let own = knob::KNOBS
        .iter()
        .filter(|knob| knob.allocator == allocator);
    if let Some(near) = nearest(name, own.map(|knob| knob.name)) {
        return format!("; did you mean `{near}`?");
    }
    match knob::KNOBS.iter().find(|knob| knob.name == name) {
        Some(other) => format!("; it is {}'s", other.allocator),
        None => "; `plimsoll profiles show` lists them".to_owned(),
    }
}

/// The candidate that is likely meant, if any is near enough.
fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Bounded, since the distance is quadratic and names come from files.
    let name: String = name.chars().take(64).collect();
    candidates
        .map(|candidate| (strsim::jaro_winkler(&name, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
