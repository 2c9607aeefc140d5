//! Model-like files of a process, and how much of them the page cache holds.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use serde::{Deserialize, Serialize};

use super::smaps::SmapsEntry;
use super::target::Target;
use crate::mappings::{Backing, Mapping};
use crate::metric::Metric;
use crate::page_cache;

/// A file, and its pages in RAM.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FilePages {
    /// Its path, as the process names it; control characters and all.
    pub path: String,
    /// Its size, in bytes.
    pub size: Metric,
    /// Whether the process has it mapped.
    pub mapped: bool,
    /// Whether the process has it open.
    pub open: bool,
    /// Whether it was deleted.
    pub deleted: bool,
    /// How much of it the page cache holds, whoever read it.
    pub cached: Metric,
    /// How much of it this process has mapped and resident: counted in its RSS. Without pages of
    /// its own that it wrote over a private mapping.
    pub rss: Metric,
    /// Why something is unavailable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The extensions of files of weights.
const EXTENSIONS: [&str; 13] = [
    "safetensors",
    "gguf",
    "bin",
    "pt",
    "pth",
    "onnx",
    "ckpt",
    "ggml",
    "npz",
    "npy",
    "h5",
    "msgpack",
    "tflite",
];

/// A file without such an extension whose name is a hash is a model from this size on: caches of
/// Hugging Face and Ollama name files by their hash, small ones too.
const LARGE: u64 = 64 << 20;

/// At most as many open files are looked at; a process may have a million.
const MOST_OPEN: usize = 4096;

/// At most as many files are reported.
const MOST_FILES: usize = 1024;

/// Whether a file of this path seems to hold weights, by its extension or as it is named by a hash.
pub(super) fn is_model_name(path: &str) -> bool {
    has_model_extension(path) || is_hash(path)
}

fn has_model_extension(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.rsplit_once('.').is_some_and(|(_, extension)| {
        EXTENSIONS
            .iter()
            .any(|known| extension.eq_ignore_ascii_case(known))
    })
}

/// Whether it is named by an SHA-1 or SHA-256, as blobs of Hugging Face and Ollama are.
fn is_hash(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let digits = name.strip_prefix("sha256-").unwrap_or(name);
    matches!(digits.len(), 40 | 64) && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The model-like regular files that a process has mapped or open, the largest first, and what
/// could not be looked at. `entries` are its mappings. Nothing is read of any file.
#[must_use]
pub fn model_files(target: &Target, entries: &[SmapsEntry]) -> (Vec<FilePages>, Vec<String>) {
    let mut found = Found {
        target,
        files: BTreeMap::new(),
        notes: Vec::new(),
    };
    for entry in entries {
        found.mapped(entry);
    }
    found.open();
    let (mut files, mut notes) = (Vec::new(), found.notes);
    for (_, file) in found.files {
        files.extend(file.pages());
    }
    files.sort_by_key(|file| std::cmp::Reverse(file.size.bytes()));
    if files.len() > MOST_FILES {
        notes.push(format!(
            "only the {MOST_FILES} largest of {} model files are shown",
            files.len()
        ));
        files.truncate(MOST_FILES);
    }
    (files, notes)
}

struct Found<'a> {
    target: &'a Target,
    /// By device and inode, as `stat(2)` has them where the file could be reached, else as the
    /// mapping has them.
    files: BTreeMap<(u64, u64), Candidate>,
    notes: Vec<String>,
}

struct Candidate {
    pages: FilePages,
    file: Result<OwnedFd, String>,
    writable: bool,
}

impl Found<'_> {
    fn mapped(&mut self, entry: &SmapsEntry) {
        let mapping = &entry.mapping;
        let Backing::File { path, deleted } = &mapping.backing else {
            return;
        };
        // Device and inode tell one file from another; shared memory is none.
        if mapping.inode == 0 || !path.starts_with('/') || !is_model_name(path) {
            return;
        }
        let shown = (
            rustix::fs::makedev(mapping.device.0, mapping.device.1),
            mapping.inode,
        );
        let resident = Metric::Exact(entry.rss.saturating_sub(entry.anonymous));
        if let Some(known) = self.files.get_mut(&shown) {
            known.pages.rss = known.pages.rss.plus(resident);
            return;
        }
        let pages = FilePages {
            path: path.clone(),
            mapped: true,
            deleted: *deleted,
            rss: resident,
            ..FilePages::default()
        };
        let candidate = Candidate {
            pages,
            file: reach_mapped(self.target, mapping, path),
            writable: false,
        };
        self.files.insert(shown, candidate);
    }

    fn open(&mut self) {
        let descriptors = match self.target.numbers_in("fd", MOST_OPEN + 1) {
            Ok(descriptors) => descriptors,
            Err(error) => {
                self.notes
                    .push(format!("open files are not known: {error}"));
                return;
            }
        };
        if descriptors.len() > MOST_OPEN {
            self.notes.push(format!(
                "the process has more than {MOST_OPEN} files open; model files beyond those are not shown unless they are mapped"
            ));
        }
        for descriptor in descriptors.into_iter().take(MOST_OPEN) {
            self.descriptor(&format!("fd/{descriptor}"));
        }
    }

    fn descriptor(&mut self, name: &str) {
        let Some(link) = self.target.link(name) else {
            return;
        };
        let kept = link.strip_suffix(" (deleted)");
        let path = kept.unwrap_or(&link);
        if !path.starts_with('/') || path.starts_with("/memfd:") || !is_model_name(path) {
            return;
        }
        let directory = self.target.directory();
        let Ok(file) = rustix::fs::openat(directory, name, REACH, Mode::empty()) else {
            return;
        };
        let Ok(stat) = rustix::fs::fstat(&file) else {
            return;
        };
        let key = (stat.st_dev, stat.st_ino);
        // A mapping may name another device for the same file (btrfs, overlayfs).
        let same_inode = |(_, inode): &(u64, u64), file: &Candidate| {
            *inode == stat.st_ino && file.pages.path == path
        };
        let known = self
            .files
            .iter()
            .find(|(shown, file)| **shown == key || same_inode(shown, file))
            .map_or(key, |(shown, _)| *shown);
        let for_writing = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|link| Mode::from_raw_mode(link.st_mode).contains(Mode::WUSR));
        let candidate = self.files.entry(known).or_insert_with(|| Candidate {
            pages: FilePages {
                path: path.to_owned(),
                deleted: kept.is_some(),
                rss: Metric::Exact(0),
                ..FilePages::default()
            },
            file: Err(String::new()),
            writable: false,
        });
        candidate.pages.open = true;
        candidate.writable |= for_writing;
        if candidate.file.is_err() {
            candidate.file = Ok(file);
        }
    }
}

/// To know a file without opening it: what a path shows may be a pipe or a device, which would
/// notice.
const REACH: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// Reaches the file that a mapping shows.
fn reach_mapped(target: &Target, mapping: &Mapping, path: &str) -> Result<OwnedFd, String> {
    let (start, end) = (mapping.range.start, mapping.range.end);
    // The very file, even where it has no path any more; but only for who may restore processes.
    let by_mapping = format!("map_files/{start:x}-{end:x}");
    if let Ok(file) = rustix::fs::openat(target.directory(), by_mapping, REACH, Mode::empty()) {
        return Ok(file);
    }
    let is_it =
        |file: &OwnedFd| rustix::fs::fstat(file).is_ok_and(|stat| stat.st_ino == mapping.inode);
    let theirs = open_in_root_of(target, path);
    if let Ok(file) = &theirs
        && is_it(file)
    {
        return theirs.map_err(|error| error.to_string());
    }
    // The kernel writes paths as they are seen from here, where they can be.
    let ours = rustix::fs::open(path, REACH, Mode::empty());
    match (ours, theirs) {
        (Ok(file), _) if is_it(&file) => Ok(file),
        (_, Err(error)) => Err(error.to_string()),
        (_, Ok(_)) => Err("its path shows another file by now".to_owned()),
    }
}

/// Opens a path as the process sees it, whose links cannot lead out of there.
fn open_in_root_of(target: &Target, path: &str) -> io::Result<OwnedFd> {
    let root = rustix::fs::openat(target.directory(), "root", REACH, Mode::empty())?;
    let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(
        &root,
        path,
        REACH,
        Mode::empty(),
        within,
    )?)
}

impl Candidate {
    /// `None` where it is no regular file, or none that seems to hold weights.
    fn pages(self) -> Option<FilePages> {
        let mut pages = self.pages;
        let file = match self.file {
            Ok(file) => file,
            Err(reason) => {
                pages.reason = Some(format!("it cannot be reached: {reason}"));
                return has_model_extension(&pages.path).then_some(pages);
            }
        };
        let stat = match rustix::fs::fstat(&file) {
            Ok(stat) => stat,
            Err(error) => {
                pages.reason = Some(error.to_string());
                return Some(pages);
            }
        };
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let is_model = has_model_extension(&pages.path) || (size >= LARGE && !self.writable);
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || !is_model {
            return None;
        }
        pages.size = Metric::Exact(size);
        pages.deleted |= stat.st_nlink == 0;
        match reopen(&file)
            .map_err(|error| format!("it cannot be opened: {error}"))
            .and_then(|file| page_cache::cached(&file, size))
        {
            Ok(bytes) => pages.cached = Metric::Exact(bytes),
            Err(reason) => pages.reason = Some(reason),
        }
        Some(pages)
    }
}

/// Opens a regular file that was reached, for questions and not for reading.
fn reopen(file: &OwnedFd) -> io::Result<File> {
    let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let open = |flags| rustix::fs::open(path.as_str(), flags, Mode::empty());
    // Only its owner may ask for its time of access to stay.
    let opened = open(flags | OFlags::NOATIME).or_else(|_| open(flags))?;
    Ok(opened.into())
}
