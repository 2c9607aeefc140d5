//! The programs and libraries that a process has mapped, each opened once, as a file.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::elf::{self, Facts};
use super::names::Names;
use crate::inspect::Target;
use crate::mappings::{Backing, Mapping};

/// More files than that with code in them are left out; the largest programs have a thousand.
const MOST_OBJECTS: usize = 8192;
/// How much of a text of the other process is read, such as its environment, in bytes.
const MOST_TEXT: u64 = 1 << 20;
/// `AT_PHDR`: where the program's headers are (`getauxval(3)`).
const AT_PHDR: u64 = 3;
/// `AT_BASE`: where the loader is; 0 where the kernel loaded none.
const AT_BASE: u64 = 7;

/// A mapped file with code in it.
#[derive(Debug)]
pub(super) struct Object {
    /// As the kernel names it.
    pub(super) path: String,
    pub(super) device: (u32, u32),
    pub(super) inode: u64,
    /// Where each copy of it begins; `dlmopen(3)` makes further ones.
    pub(super) bases: Vec<u64>,
    /// What it says, or why it could not be read.
    pub(super) facts: Result<Facts, String>,
    /// The file itself, of the program and of what defines `malloc`.
    pub(super) file: Option<File>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Objects {
    /// In order of address.
    pub(super) all: Vec<Object>,
    /// Which of them the kernel started.
    pub(super) program: Option<usize>,
    /// Which of them the kernel loaded to load the rest.
    pub(super) loader: Option<usize>,
}

impl Object {
    /// The last part of its path.
    pub(super) fn file_name(&self) -> &str {
        file_name(&self.path)
    }

    /// Whether a library that is needed under this name is this one.
    pub(super) fn is_called(&self, name: &str) -> bool {
        let soname = self.facts.as_ref().ok().and_then(|f| f.soname.as_deref());
        soname == Some(file_name(name)) || self.file_name() == file_name(name)
    }
}

impl Objects {
    pub(super) fn of(target: &Target, mappings: &[Mapping]) -> Self {
        let auxiliary = auxiliary(target);
        let holds = |mapping: &&Mapping, key| {
            let address = auxiliary.get(&key).copied().unwrap_or(0);
            address != 0 && mapping.range.contains(&address)
        };
        let key = |mapping: &Mapping| (mapping.device, mapping.inode);
        let program = mappings.iter().find(|m| holds(m, AT_PHDR)).map(key);
        let loader = mappings.iter().find(|m| holds(m, AT_BASE)).map(key);
        let mut parts: HashMap<_, Vec<&Mapping>> = HashMap::new();
        let mut order = Vec::new();
        for mapping in mappings
            .iter()
            .filter(|m| m.path().is_some() && m.inode != 0)
        {
            parts
                .entry(key(mapping))
                .or_insert_with(|| {
                    order.push(key(mapping));
                    Vec::new()
                })
                .push(mapping);
        }
        // A program may have moved its code to huge pages of no file.
        order.retain(|key| Some(*key) == program || parts[key].iter().any(|m| m.executable));
        order.truncate(MOST_OBJECTS);
        let at = |wanted: Option<_>| order.iter().position(|key| Some(*key) == wanted);
        Self {
            program: at(program),
            loader: at(loader),
            all: order
                .iter()
                .map(|key| object(target, &parts[key], Some(*key) == program))
                .collect(),
        }
    }
}

fn object(target: &Target, parts: &[&Mapping], is_program: bool) -> Object {
    let first = parts[0];
    let (path, deleted) = match &first.backing {
        Backing::File { path, deleted } => (path.clone(), *deleted),
        _ => (String::new(), false),
    };
    let (file, facts) = match open(target, parts, &path, deleted) {
        Ok(file) => {
            let facts = elf::read(&file, is_program).map_err(str::to_owned);
            // A large program has more libraries than a process may have open files.
            let keep = is_program || facts.as_ref().is_ok_and(|f| f.exports.has(Names::MALLOC));
            (keep.then_some(file), facts)
        }
        Err(why) => (None, Err(why)),
    };
    Object {
        path,
        device: first.device,
        inode: first.inode,
        bases: bases(parts),
        facts,
        file,
    }
}

/// Where each copy begins. Copies are counted by the first stretch of code, since a small file may
/// show its first page twice in one copy, as code and as data.
fn bases(parts: &[&Mapping]) -> Vec<u64> {
    let code = parts.iter().filter(|m| m.executable);
    let Some(first) = code.clone().map(|m| m.offset).min() else {
        return parts.first().map(|m| m.range.start).into_iter().collect();
    };
    code.filter(|m| m.offset == first)
        .map(|code| {
            let headers = parts
                .iter()
                .rev()
                .find(|m| m.offset == 0 && m.range.start <= code.range.start);
            headers.unwrap_or(code).range.start
        })
        .collect()
}

/// Opens the file that is mapped, and no other: through the mapping itself where that is allowed
/// (`CAP_CHECKPOINT_RESTORE`), else by its path as the process sees it.
fn open(target: &Target, parts: &[&Mapping], path: &str, deleted: bool) -> Result<File, String> {
    let range = &parts[0].range;
    let mapped = format!("map_files/{:x}-{:x}", range.start, range.end);
    if let Ok(file) = regular(target, &mapped) {
        return Ok(file);
    }
    if deleted {
        return Err("it was deleted, and opening it through the mapping is not permitted".into());
    }
    let file = within_root(target, path).map_err(|error| format!("cannot open it: {error}"))?;
    // Only the inode: overlayfs and btrfs show stat(2) another device than they show in `maps`.
    let inode = file.metadata().map_err(|error| error.to_string())?.ino();
    if inode == parts[0].inode {
        Ok(file)
    } else {
        Err("another file stands in its place by now".into())
    }
}

/// A file of the process's own file system, by its path there.
pub(super) fn within_root(target: &Target, path: &str) -> io::Result<File> {
    // The kernel escapes newlines.
    let path = path.replace("\\012", "\n");
    let root = rustix::fs::openat(
        target.directory(),
        "root",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    // Links are followed as the process itself would, not out of its container.
    let found = rustix::fs::openat2(
        root,
        Path::new(&path),
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )?;
    readable(found)
}

fn regular(target: &Target, name: &str) -> io::Result<File> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    readable(rustix::fs::openat(
        target.directory(),
        name,
        flags,
        Mode::empty(),
    )?)
}

/// Opens for reading what is known by its place only. To open a device may set something off, and
/// to open a FIFO may wait for ever, so neither is.
fn readable(place: impl AsFd) -> io::Result<File> {
    let stat = rustix::fs::fstat(place.as_fd())?;
    if !rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let path = format!("/proc/self/fd/{}", place.as_fd().as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

/// A text of the process, cut off where it is unreasonably long; empty where it cannot be read.
pub(super) fn text(file: io::Result<File>) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = file {
        // What was read before an error is still of use.
        let _ = file.take(MOST_TEXT).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The auxiliary vector (`proc_pid_auxv(5)`), of 64-bit processes: pairs of words.
fn auxiliary(target: &Target) -> HashMap<u64, u64> {
    let mut bytes = Vec::new();
    if let Ok(file) = target.file("auxv") {
        let _ = file.take(MOST_TEXT).read_to_end(&mut bytes);
    }
    let words = |size: usize| {
        bytes.chunks_exact(size).map(move |word| {
            let mut wide = [0; 8];
            if cfg!(target_endian = "big") {
                wide[8 - size..].copy_from_slice(word);
            } else {
                wide[..size].copy_from_slice(word);
            }
            u64::from_ne_bytes(wide)
        })
    };
    let pairs = |size| {
        let words: Vec<u64> = words(size).collect();
        words
            .chunks_exact(2)
            .map(|pair| (pair[0], pair[1]))
            .collect::<HashMap<_, _>>()
    };
    let wide: HashMap<_, _> = pairs(8);
    // Taken as 64-bit words, the keys of a 32-bit process make no sense.
    if wide.contains_key(&AT_PHDR) {
        wide
    } else {
        pairs(4)
    }
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mappings;

    #[test]
    fn copies_are_told_from_parts_of_one() {
        let maps = "\
7f10000000-7f10028000 r--p 00000000 fe:00 7 /lib/libc.so.6
7f10028000-7f1017d000 r-xp 00028000 fe:00 7 /lib/libc.so.6
7f1017d000-7f101d0000 r--p 0017d000 fe:00 7 /lib/libc.so.6
7f20000000-7f20028000 r--p 00000000 fe:00 7 /lib/libc.so.6
7f20028000-7f2017d000 r-xp 00028000 fe:00 7 /lib/libc.so.6
";
        let parsed = mappings::parse(maps);
        let parts: Vec<_> = parsed.iter().collect();
        assert_eq!(bases(&parts), [0x7f10000000, 0x7f20000000]);
        let small = "\
400000-401000 r-xp 00000000 fe:00 8 /bin/small
600000-601000 r--p 00000000 fe:00 8 /bin/small
601000-602000 rw-p 00001000 fe:00 8 /bin/small
";
        let parsed = mappings::parse(small);
        let parts: Vec<_> = parsed.iter().collect();
        assert_eq!(bases(&parts), [0x400000]);
    }
}
