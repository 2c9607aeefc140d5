//! The models' files, made on the spot and gone with the program.

#[allow(dead_code, reason = "shared with the synthetic sets, which use more")]
#[path = "../../src/synthetic/fill.rs"]
mod fill;

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use malloc_stats::Size;
use malloc_stats::limits::Limits;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::Failure;
use crate::shapes::Planned;

/// How the folder's name begins; the number of the process follows.
const PREFIX: &str = "plimsoll-cuda-";

/// What each thread makes between two writes.
const PIECE: u64 = 8 << 20;

/// RAM that is left to everything else.
const SPARE: u64 = 2 << 30;

/// A folder that goes with this, with a panic, and with a signal that ends the process.
#[derive(Debug)]
pub struct Scratch {
    folder: PathBuf,
}

impl Scratch {
    /// A folder of its own. What processes left here that were killed goes first.
    ///
    /// # Errors
    /// It cannot be made, with its path.
    pub fn new(within: &Path) -> Result<Scratch, Failure> {
        remove_leftovers(within);
        let folder = within.join(format!("{PREFIX}{}", std::process::id()));
        let made = DirBuilder::new().mode(0o700).create(&folder);
        made.map_err(|error| format!("{}: {error}; name a --scratch DIR", folder.display()))?;
        Ok(Scratch { folder })
    }

    /// Removes it when a signal ends the process too.
    ///
    /// # Errors
    /// Signals cannot be heard.
    pub fn heed_signals(&self) -> Result<(), Failure> {
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        let folder = self.folder.clone();
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                let Some(signal) = signals.forever().next() else {
                    return;
                };
                // The main thread may be writing to it still.
                for _ in 0..100 {
                    if fs::remove_dir_all(&folder).is_ok() || !folder.exists() {
                        break;
                    }
                }
                // Not by `exit`: what the driver does there may wait for what is under way.
                signal_hook::low_level::exit(128 + signal);
            })?;
        Ok(())
    }

    pub fn path(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            eprintln!("{}: cannot be removed: {error}", self.folder.display());
        }
    }
}

fn remove_leftovers(within: &Path) {
    for entry in fs::read_dir(within).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        let pid = pid.and_then(|pid| pid.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            // Somebody else's stays.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// What measuring so many bytes takes beside the files: a bare copy's memory, and the cache's copy.
pub fn ram_needed(bytes: u64) -> u64 {
    bytes.saturating_mul(3).saturating_add(SPARE)
}

/// What PyTorch takes to keep so many bytes: page-locked, up to twice as many, as it rounds each
/// tensor up to a power of two.
pub fn ram_needed_by_torch(bytes: u64) -> u64 {
    bytes.saturating_mul(2).saturating_add(SPARE)
}

/// What this process may still take of RAM, with the page cache that could be dropped for it.
pub fn ram_free() -> Option<u64> {
    Limits::of_self().room().and_then(|room| room.bytes())
}

/// Makes sure that there is room for files of so many bytes and for measuring them.
///
/// # Errors
/// There is not, with the numbers.
pub fn require_room(folder: &Path, what: &str, bytes: u64) -> Result<(), Failure> {
    let way_out = "leave it out with --models, or try --quick";
    let system = rustix::fs::statvfs(folder)
        .map_err(|error| format!("{}: free space: {error}", folder.display()))?;
    let free = system.f_bavail.saturating_mul(system.f_frsize);
    if bytes > free {
        return Err(format!(
            "{what}: files of {} are to be made in {}, which has {} free; name a roomier --scratch \
             DIR, {way_out}",
            Size(bytes),
            folder.display(),
            Size(free),
        )
        .into());
    }
    let needed = ram_needed(bytes);
    if let Some(free) = ram_free().filter(|free| *free < needed) {
        return Err(format!(
            "{what}: {} of RAM are needed (its files in the page cache, a bare copy's memory and \
             the cache's own copy), and {} can be had; {way_out}",
            Size(needed),
            Size(free),
        )
        .into());
    }
    Ok(())
}

/// Writes a model, and waits for the disk: what is still being written would be in the way of what
/// is measured.
///
/// # Errors
/// The system's, with the path.
pub fn write(folder: &Path, model: &Planned) -> Result<PathBuf, Failure> {
    let path = folder.join(format!("{}.safetensors", model.name));
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let header = header(model);
    let file = File::create_new(&path).map_err(failed)?;
    file.write_all_at(&header, 0).map_err(failed)?;
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let write = || write_pieces(&file, header.len() as u64, model, &next);
        let threads: Vec<_> = (1..threads.min(8)).map(|_| scope.spawn(write)).collect();
        let mut outcome = write();
        for thread in threads {
            let other = thread.join();
            outcome = outcome.and(other.unwrap_or_else(|_| Err(std::io::Error::other("a panic"))));
        }
        outcome
    })
    .map_err(failed)?;
    file.sync_data().map_err(failed)?;
    Ok(path)
}

fn header(model: &Planned) -> Vec<u8> {
    let mut end = 0;
    let entries: Vec<String> = (model.tensors.iter())
        .map(|(name, shape)| {
            let begin = end;
            end += shape.iter().product::<usize>() * model.dtype.bitsize() / 8;
            let dtype = model.dtype;
            format!(
                "\"{name}\":{{\"dtype\":\"{dtype:?}\",\"shape\":{shape:?},\
                 \"data_offsets\":[{begin},{end}]}}"
            )
        })
        .collect();
    let mut json = format!("{{{}}}", entries.join(","));
    json.push_str(&" ".repeat(json.len().next_multiple_of(8) - json.len()));
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.extend_from_slice(json.as_bytes());
    header
}

fn write_pieces(file: &File, begin: u64, model: &Planned, next: &AtomicU64) -> std::io::Result<()> {
    let bytes = model.bytes();
    let mut piece = vec![0; PIECE as usize];
    loop {
        let at = next.fetch_add(PIECE, Ordering::Relaxed);
        if at >= bytes {
            return Ok(());
        }
        let piece = &mut piece[..PIECE.min(bytes - at) as usize];
        fill::fill(piece, 1, at, model.dtype);
        file.write_all_at(piece, begin + at)?;
    }
}
