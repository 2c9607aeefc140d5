//! Where an allocator to preload is.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::elf::{self, Elf, Machine, Unopened};
use crate::error::Error;
use crate::malloc::Malloc;
use crate::profile::Profile;

/// Looks a variable up.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The library that a profile preloads; `None` for glibc.
///
/// # Errors
/// [`Error::NotInstalled`] where there is none, [`Error::NoLibrary`] where one was named that cannot
/// be preloaded.
pub(super) fn library(profile: &Profile, variable: Lookup<'_>) -> Result<Option<PathBuf>, Error> {
    let malloc = profile.allocator;
    let Some(named_by) = malloc.path_variable() else {
        return Ok(None);
    };
    if let Some(path) = variable(named_by).filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        return match usable(&path) {
            Ok(()) => Ok(Some(path)),
            Err(reason) => Err(Error::NoLibrary {
                variable: named_by,
                path,
                reason,
            }),
        };
    }
    let folders = folders(variable("LD_LIBRARY_PATH"));
    // A name is looked for everywhere before the next: the first is the preferred one.
    let candidates = malloc
        .libraries()
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    match candidates.into_iter().find(|path| usable(path).is_ok()) {
        Some(path) => Ok(Some(path)),
        None => Err(not_installed(profile, malloc, named_by, folders)),
    }
}

fn not_installed(
    profile: &Profile,
    malloc: Malloc,
    variable: &'static str,
    looked_in: Vec<PathBuf>,
) -> Error {
    Error::NotInstalled {
        profile: profile.name.clone(),
        library: malloc.libraries().join(" or "),
        looked_in,
        packages: malloc.packages(),
        variable,
    }
}

/// The folders of `LD_LIBRARY_PATH`, then those that loaders and distributions have. Relative ones
/// are left out: they would mean another folder to a program that is started elsewhere.
fn folders(library_path: Option<OsString>) -> Vec<PathBuf> {
    let arch = std::env::consts::ARCH;
    let listed = library_path.unwrap_or_default();
    let listed = listed
        .as_bytes()
        .split(|byte| matches!(byte, b':' | b';'))
        .map(|folder| PathBuf::from(OsString::from_vec(folder.to_vec())))
        .filter(|folder| folder.is_absolute());
    let known = [
        "/usr/local/lib".into(),
        format!("/usr/local/lib/{arch}-linux-gnu"),
        format!("/usr/lib/{arch}-linux-gnu"),
        "/usr/lib64".into(),
        "/usr/local/lib64".into(),
        "/usr/lib".into(),
    ];
    let mut folders: Vec<PathBuf> = Vec::new();
    for folder in listed.chain(known.map(PathBuf::from)) {
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    folders
}

/// Whether the loader would take it, and for whom: a library for this machine.
fn usable(path: &Path) -> Result<(), String> {
    let name = path.as_os_str().as_bytes();
    if !path.is_absolute() {
        return Err("the path has to be absolute, since the program may start elsewhere".into());
    }
    if name.iter().any(|byte| matches!(byte, b':' | b' ')) {
        return Err("LD_PRELOAD takes no path with a blank or colon: link to it by another".into());
    }
    let file = elf::open(path).map_err(|error| match error {
        Unopened::Io(error) => error.to_string(),
        Unopened::NotAFile(what) => format!("it is {what}"),
    })?;
    let facts = Elf::read(&file)?;
    if !facts.loadable || !facts.shared {
        return Err("it is no shared object".into());
    }
    if facts.loader.is_some() && facts.soname.is_none() {
        return Err("it is a program, not a library".into());
    }
    match Machine::own() {
        Some(own) if own != facts.machine => Err(format!(
            "it is for {} and this system's programs are {}",
            facts.machine.name(),
            own.name()
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_searched_once_each_and_relative_ones_not_at_all() {
        let folders = folders(Some("/opt/a:b:;/usr/lib:.".into()));
        assert_eq!(folders[0], Path::new("/opt/a"));
        assert_eq!(folders[1], Path::new("/usr/lib"));
        assert!(folders.iter().all(|folder| folder.is_absolute()));
        let again = folders.iter().filter(|f| *f == Path::new("/usr/lib"));
        assert_eq!(again.count(), 1);
    }

    #[test]
    fn only_a_library_for_this_machine_is_preloaded() {
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().join("text.so");
        std::fs::write(&text, "no library").unwrap();
        assert!(usable(&text).is_err());
        assert!(usable(folder.path()).unwrap_err().contains("a directory"));
        assert!(usable(Path::new("libmimalloc.so.2")).is_err());
        assert!(usable(Path::new("/with a/blank.so")).is_err());
        let own = std::env::current_exe().unwrap();
        assert!(usable(&own).unwrap_err().contains("a program"));
    }
}
