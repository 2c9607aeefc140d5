//! What can go wrong with a profile.

use std::path::PathBuf;

/// An error of this crate. Every message names what was read and what can be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No built-in profile has this name.
    #[error("no profile `{name}`{hint}")]
    UnknownProfile {
        /// The name, escaped.
        name: String,
        /// The nearest name, or how to list them.
        hint: String,
    },
    /// The allocator has no such knob.
    #[error("{origin}: {allocator} has no knob `{knob}`{hint}")]
    UnknownKnob {
        /// The profile or its file.
        origin: String,
        /// The allocator's name.
        allocator: String,
        /// The knob, escaped.
        knob: String,
        /// The nearest name.
        hint: String,
    },
    /// The profile is not valid.
    #[error("{origin}: {reason}")]
    Broken {
        /// The profile or its file.
        origin: String,
        /// What is wrong.
        reason: String,
    },
    /// The file cannot be read.
    #[error("cannot read profile {}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The program could not be executed again with the profile's environment.
    #[error("profile `{profile}` needs a fresh start of this program, and that failed: {reason}")]
    Reexec {
        /// The profile's name.
        profile: String,
        /// The system's answer.
        reason: String,
    },
    /// The fresh start did not bring the allocator that the profile wants.
    #[error(
        "profile `{profile}` wants {wanted}, and after a fresh start {serving} serves; is \
         `plimsoll_profiles::Selected` the global allocator of this program?"
    )]
    NotTaken {
        /// The profile's name.
        profile: String,
        /// The allocator it wants.
        wanted: &'static str,
        /// The one that serves.
        serving: &'static str,
    },
    /// The allocator cannot serve this program.
    #[error(
        "profile `{profile}` is for other programs only: {allocator} is not linked into this one; \
         start a program under it with `plimsoll exec --profile {profile} -- COMMAND`"
    )]
    OnlyForeign {
        /// The profile's name.
        profile: String,
        /// Its allocator.
        allocator: &'static str,
    },
    /// The library to preload is nowhere.
    #[error(
        "profile `{profile}` preloads {library}, which was not found in {}: install it \
         ({packages}), or name its file in {variable}",
        listed(looked_in)
    )]
    NotInstalled {
        /// The profile's name.
        profile: String,
        /// The files that would do, separated by `or`.
        library: String,
        /// The folders that were searched.
        looked_in: Vec<PathBuf>,
        /// The packages that bring it.
        packages: &'static str,
        /// The variable that names a file instead.
        variable: &'static str,
    },
    /// The library that was named cannot be preloaded.
    #[error("{variable} names {}, which cannot be preloaded: {reason}", path.display())]
    NoLibrary {
        /// The variable that names it.
        variable: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

fn listed(folders: &[PathBuf]) -> String {
    let folders: Vec<_> = folders.iter().map(|f| f.display().to_string()).collect();
    folders.join(", ")
}
