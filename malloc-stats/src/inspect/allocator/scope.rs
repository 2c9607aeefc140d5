//! In which order the loader looks for a function: the program, what is preloaded, then the
//! libraries they need, breadth first (`ld.so(8)`, the System V ABI). What was loaded later, with
//! `dlopen(3)`, is not part of that.

use std::collections::VecDeque;

use super::names::Names;
use super::objects::{self, Object, Objects};
use crate::inspect::Target;

/// The order, as far as it can be told from outside.
#[derive(Debug, Default)]
pub(super) struct Scope {
    /// Places in [`Objects::all`].
    pub(super) order: Vec<usize>,
    /// Which of them are preloaded.
    pub(super) preloaded: Vec<usize>,
    /// Which is taken for preloaded by where it lies, though nothing says so (any more).
    pub(super) guessed: Option<usize>,
    /// The program proper: not the loader, where that was started to run it.
    pub(super) program: Option<usize>,
}

impl Scope {
    pub(super) fn of(target: &Target, objects: &Objects) -> Self {
        let (program, loader, mut names) = started(target, objects);
        names.extend(preload_list(&environment(target)));
        let of_system = objects::within_root(target, "/etc/ld.so.preload");
        names.extend(preload_list(&objects::text(of_system)));
        let mut scope = Self {
            program,
            ..Self::default()
        };
        scope.order.extend(program);
        for name in names {
            if let Some(found) = find(target, objects, &name)
                && !scope.order.contains(&found)
            {
                scope.order.push(found);
                scope.preloaded.push(found);
            }
        }
        match program.map(|at| &objects.all[at].facts) {
            Some(Ok(_)) => scope.follow(objects),
            // Without the program there is no telling what it needs: the loader goes downwards.
            _ => {
                let rest = (0..objects.all.len()).rev();
                let rest: Vec<_> = rest.filter(|at| !scope.order.contains(at)).collect();
                scope.order.extend(rest);
            }
        }
        // Of musl the loader is the C library; glibc's own malloc of its start comes last as well.
        if let Some(loader) = loader {
            scope.order.retain(|at| *at != loader);
            scope.guess(objects, loader);
            scope.order.push(loader);
        }
        scope
    }

    /// What those in the order need, and what that needs.
    fn follow(&mut self, objects: &Objects) {
        let mut next: VecDeque<usize> = self.order.iter().copied().collect();
        while let Some(at) = next.pop_front() {
            let needed = objects.all[at].facts.as_ref().map(|f| f.needed.as_slice());
            for name in needed.unwrap_or_default() {
                let found = objects.all.iter().position(|o| o.is_called(name));
                if let Some(found) = found
                    && !self.order.contains(&found)
                {
                    self.order.push(found);
                    next.push_back(found);
                }
            }
        }
    }

    /// A process may have written over its environment (to change its title, say), and with it
    /// `LD_PRELOAD`. The loader maps one below the other: itself, what is preloaded, what is
    /// needed, and what is loaded later. So an allocator between itself and all that is needed was
    /// preloaded.
    fn guess(&mut self, objects: &Objects, loader: usize) {
        let start = |at: usize| objects.all[at].bases.first().copied().unwrap_or(0);
        let libraries = self.order.iter().filter(|at| Some(**at) != self.program);
        let Some(highest) = libraries.map(|at| start(*at)).max() else {
            return;
        };
        let between = highest..start(loader);
        let found = (0..objects.all.len()).rev().find(|at| {
            let exports = objects.all[*at].facts.as_ref().map(|f| f.exports);
            !self.order.contains(at)
                && between.contains(&start(*at))
                && exports.is_ok_and(|names| names.has(Names::MALLOC))
        });
        if let Some(found) = found {
            let behind_program = usize::from(self.program.is_some());
            self.order.insert(behind_program, found);
            self.preloaded.push(found);
            self.guessed = Some(found);
        }
    }
}

/// The program, its loader, and what its command line preloads. A loader may be started itself,
/// with the program as an argument; the kernel then takes it for the program.
fn started(target: &Target, objects: &Objects) -> (Option<usize>, Option<usize>, Vec<String>) {
    let facts = |at: usize| objects.all[at].facts.as_ref().ok();
    let is_loader = |at: usize| {
        objects.loader.is_none()
            && facts(at).is_some_and(|f| {
                !f.interpreter && f.exports.has(Names::GLIBC_LOADER.or(Names::MUSL))
            })
    };
    let Some(loader) = objects.program.filter(|at| is_loader(*at)) else {
        return (objects.program, objects.loader, Vec::new());
    };
    let line = objects::text(target.file("cmdline"));
    let mut arguments = line.split('\0').skip(1);
    let mut preloads = Vec::new();
    let mut program = None;
    while let Some(argument) = arguments.next() {
        match argument {
            "--preload" => preloads.extend(arguments.next().map(preload_list).unwrap_or_default()),
            "--library-path"
            | "--argv0"
            | "--audit"
            | "--inhibit-rpath"
            | "--glibc-hwcaps-prepend"
            | "--glibc-hwcaps-mask" => {
                arguments.next();
            }
            option if option.starts_with("--") => {}
            path => {
                program = find(target, objects, path);
                break;
            }
        }
    }
    // The command line may have been written over, too.
    let marked = || (0..objects.all.len()).find(|at| facts(*at).is_some_and(|f| f.executable));
    (program.or_else(marked), Some(loader), preloads)
}

/// The mapped object that goes by this name or path.
fn find(target: &Target, objects: &Objects, name: &str) -> Option<usize> {
    let inode = |name| {
        let file = objects::within_root(target, name).ok()?;
        Some(std::os::unix::fs::MetadataExt::ino(&file.metadata().ok()?))
    };
    let same_file = |object: &Object, inode| Some(object.inode) == inode;
    let by_file = name.starts_with('/').then(|| inode(name)).flatten();
    let by_file = by_file.and_then(|i| objects.all.iter().position(|o| same_file(o, Some(i))));
    by_file.or_else(|| objects.all.iter().position(|o| o.is_called(name)))
}

/// `LD_PRELOAD` of the environment the process was started with.
fn environment(target: &Target) -> String {
    let environment = objects::text(target.file("environ"));
    let mut variables = environment.split('\0');
    let found = variables.find_map(|variable| variable.strip_prefix("LD_PRELOAD="));
    found.unwrap_or_default().to_owned()
}

/// Names of libraries, separated as `ld.so(8)` has it.
fn preload_list(text: &str) -> Vec<String> {
    text.lines()
        .map(|line| line.split('#').next().unwrap_or_default())
        .flat_map(|line| line.split([':', ' ', '\t']))
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_preloads_are_separated_by_colons_blanks_and_lines() {
        let list = "/usr/lib/libjemalloc.so.2:b.so c.so\t d.so\n# of the system\n/e.so # why\n";
        let names = ["/usr/lib/libjemalloc.so.2", "b.so", "c.so", "d.so", "/e.so"];
        assert_eq!(preload_list(list), names);
        assert!(preload_list("").is_empty());
    }
}
