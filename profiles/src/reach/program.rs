//! What the file of a program says.

use std::fs::File;
use std::path::Path;

use super::obstacle::{Obstacle, Runtime};
use super::{asks_nothing, privilege};
use crate::elf::{self, Elf, Machine};
use crate::malloc::Malloc;
use crate::profile::Profile;

/// Begins what the Go toolchain writes about a program into it.
const GO_MARK: &[u8] = b"\xff Go buildinf:";
/// The variable's name is in whatever reads it.
const TUNABLES_MARK: &[u8] = b"GLIBC_TUNABLES";

pub(super) fn judge(path: &Path, file: &File, profile: &Profile, obstacles: &mut Vec<Obstacle>) {
    let wanted = profile.allocator;
    let path = || path.to_path_buf();
    let facts = match Elf::read(file) {
        Ok(facts) if facts.loadable => facts,
        Ok(_) => {
            obstacles.push(Obstacle::UnknownFormat {
                path: path(),
                reason: "it is an object file or a core, not a program",
            });
            return;
        }
        Err(reason) => {
            obstacles.push(Obstacle::UnknownFormat {
                path: path(),
                reason,
            });
            return;
        }
    };
    if Machine::own().is_some_and(|own| own != facts.machine) {
        obstacles.push(Obstacle::OtherMachine {
            path: path(),
            machine: facts.machine.name(),
            wanted,
        });
    }
    if let Some(by) = privilege::of(file) {
        obstacles.push(Obstacle::Privileged {
            path: path(),
            by,
            asks: !asks_nothing(profile),
        });
    }
    let Some(loader) = &facts.loader else {
        obstacles.push(if is_loader(&facts) {
            Obstacle::IsLoader { path: path() }
        } else {
            Obstacle::Static {
                path: path(),
                runtime: runtime(file, &facts),
                wanted,
                knobs: !profile.knobs.is_empty(),
            }
        });
        return;
    };
    if std::fs::metadata(loader).is_err() {
        obstacles.push(Obstacle::NoLoader {
            path: path(),
            loader: loader.clone(),
        });
    }
    if is_musl(&loader.to_string_lossy()) {
        obstacles.push(Obstacle::Musl {
            path: path(),
            wanted,
        });
    }
    if facts.go {
        obstacles.push(Obstacle::Go { path: path() });
    }
    if let Some((library, serves)) = own_malloc(&facts, wanted) {
        obstacles.push(Obstacle::OwnMalloc {
            path: path(),
            library,
            serves,
            wanted,
        });
    }
}

/// What serves `malloc` before the profile's allocator: the program's own comes before whatever is
/// preloaded, and a library that it needs comes before glibc.
fn own_malloc(facts: &Elf, wanted: Malloc) -> Option<(Option<String>, String)> {
    if let Some(own) = facts.malloc.filter(|own| *own != wanted.name()) {
        return Some((None, own.to_owned()));
    }
    if wanted != Malloc::Glibc {
        return None;
    }
    facts.needed.iter().find_map(|library| {
        let other = [Malloc::Jemalloc, Malloc::Mimalloc, Malloc::Tcmalloc]
            .into_iter()
            .find(|malloc| library.starts_with(&format!("lib{malloc}")))?;
        Some((Some(library.clone()), other.name().to_owned()))
    })
}

fn runtime(file: &File, facts: &Elf) -> Runtime {
    match elf::holds(file, [TUNABLES_MARK, GO_MARK]) {
        // A Go program with static C code in it has both.
        Ok([_, true]) => Runtime::Go,
        _ if facts.go => Runtime::Go,
        Ok([true, _]) => Runtime::Glibc,
        _ => Runtime::Other,
    }
}

fn is_loader(facts: &Elf) -> bool {
    let name = facts.soname.as_deref().unwrap_or_default();
    ["ld-linux", "ld64.so", "ld.so.", "libc.musl-", "ld-musl-"]
        .iter()
        .any(|start| name.starts_with(start))
}

fn is_musl(loader: &str) -> bool {
    let name = loader.rsplit('/').next().unwrap_or_default();
    name.starts_with("ld-musl-")
}
