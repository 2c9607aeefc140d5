//! The profiles that come with Plimsoll. Each is a file beside this one, written as a user would
//! write it.

use std::sync::OnceLock;

use crate::profile::Profile;

const FILES: &[(&str, &str)] = &[
    ("glibc-default", include_str!("builtin/glibc-default.toml")),
    ("glibc-mmap-1m", include_str!("builtin/glibc-mmap-1m.toml")),
    (
        "glibc-mmap-128k",
        include_str!("builtin/glibc-mmap-128k.toml"),
    ),
    ("glibc-trim", include_str!("builtin/glibc-trim.toml")),
    (
        "glibc-mmap-1m-trim",
        include_str!("builtin/glibc-mmap-1m-trim.toml"),
    ),
    (
        "jemalloc-default",
        include_str!("builtin/jemalloc-default.toml"),
    ),
    (
        "jemalloc-purge",
        include_str!("builtin/jemalloc-purge.toml"),
    ),
    (
        "jemalloc-decay-0",
        include_str!("builtin/jemalloc-decay-0.toml"),
    ),
    (
        "jemalloc-background-1s",
        include_str!("builtin/jemalloc-background-1s.toml"),
    ),
    (
        "mimalloc-default",
        include_str!("builtin/mimalloc-default.toml"),
    ),
    (
        "mimalloc-purge-0",
        include_str!("builtin/mimalloc-purge-0.toml"),
    ),
    (
        "tcmalloc-default",
        include_str!("builtin/tcmalloc-default.toml"),
    ),
    (
        "tcmalloc-release",
        include_str!("builtin/tcmalloc-release.toml"),
    ),
];

/// The name of the profile that is used when none is named: it changes nothing.
pub const DEFAULT: &str = "glibc-default";

/// All built-in profiles, in the order in which they are listed: those whose allocator
/// [serves here](crate::Malloc::serves_here), then those for other programs only.
#[must_use]
pub fn all() -> &'static [Profile] {
    static ALL: OnceLock<Vec<Profile>> = OnceLock::new();
    ALL.get_or_init(|| {
        FILES
            .iter()
            // A test holds that every file parses.
            .filter_map(|(name, text)| Profile::from_toml(text, name).ok())
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_builtin_profile_parses_and_bears_its_files_name() {
        for (name, text) in FILES {
            let profile = Profile::from_toml(text, name);
            assert_eq!(profile.map(|p| p.name).as_deref().ok(), Some(*name));
        }
        assert_eq!(all().len(), FILES.len());
        assert!(all().iter().any(|profile| profile.name == DEFAULT));
    }
}
