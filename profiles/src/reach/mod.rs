//! Can a profile reach a program at all? Told before it is started, from its file: most of what
//! keeps a preload or a variable from working does so without a word.

mod obstacle;
mod privilege;
mod program;
mod resolve;
mod script;

use std::path::{Path, PathBuf};

pub use obstacle::{Obstacle, Privilege, Runtime};
pub use resolve::{NotFound, resolve};

use crate::profile::Profile;

/// What stands between a profile and a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// The program that is run in the end: the interpreter, where the file is a script.
    pub program: PathBuf,
    /// What stands in the way, and what is worth knowing, in the order in which it is met.
    pub obstacles: Vec<Obstacle>,
}

impl Reach {
    /// Whether nothing known makes the profile pointless.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.obstacles.iter().all(|obstacle| !obstacle.blocks())
    }

    /// What makes it pointless.
    pub fn blocking(&self) -> impl Iterator<Item = &Obstacle> {
        self.obstacles.iter().filter(|obstacle| obstacle.blocks())
    }

    /// What is only worth knowing.
    pub fn notes(&self) -> impl Iterator<Item = &Obstacle> {
        self.obstacles.iter().filter(|obstacle| !obstacle.blocks())
    }
}

/// Looks at the file of a program that is to be started under a profile: follows scripts to their
/// interpreters, and reads what the program's file says. `program` is a path, as
/// [`resolve`] finds it. Nothing is run, and nothing but plain files is opened.
///
/// No obstacle is no promise: a library that the program needs may bring an allocator, and the
/// program may start others. [`took`](crate::took()) tells from outside.
#[must_use]
pub fn reach(program: &Path, profile: &Profile) -> Reach {
    let mut obstacles = Vec::new();
    let program = script::follow(program, profile, &mut obstacles);
    if let Some((path, file)) = &program.file {
        program::judge(path, file, profile, &mut obstacles);
    }
    Reach {
        program: program.path,
        obstacles,
    }
}

/// Whether a profile asks for anything: glibc as it comes needs nothing to be brought to a program.
fn asks_nothing(profile: &Profile) -> bool {
    profile.allocator == crate::Malloc::Glibc && profile.knobs.is_empty()
}
