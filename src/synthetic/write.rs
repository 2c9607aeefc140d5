//! Writing models so that whole files appear, or none.
//!
//! A file is written without a name (`O_TMPFILE`) and gets its name when it is whole. So nothing is
//! left behind whatever ends the process: an error, an interrupt, a kill. Where the file system has
//! no unnamed files, it is written under a temporary name, which is removed on every error, and by
//! the next [`make`] in that folder if the process was killed.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::error::Error;
use super::fill::fill;
use super::plan::{Plan, PlannedModel};

/// The bytes made between two writes; all the memory that is taken, whatever is written.
const BUFFER: usize = 2 << 20;

/// The suffix of temporary names.
pub(super) const PART: &str = ".plimsoll-part";

/// Writes the models of `plan` into a folder of their own in `dir`, named after set and scale so
/// that sets do not replace each other's files, and gives their paths. Folders are made if need be.
///
/// A file that is there already with the same header and length is kept as it is. `progress` is
/// told of every piece that was written, of at most 2 MiB, how many bytes of tensors it has: never
/// if all files are there already, and [`PlannedModel::bytes`] in all for each that is not.
/// Processes that make models in the same folder wait for each other.
///
/// # Errors
/// [`Error::NoSpace`] before anything is written, if the file system has not enough room;
/// [`Error::Io`] otherwise. Models finished before the error stay, and nothing else.
pub fn make(plan: &Plan, dir: &Path, progress: &dyn Fn(u64)) -> Result<Vec<PathBuf>, Error> {
    make_in(plan, &dir.join(plan.folder_name()), progress)
}

/// Like [`make()`], in `dir` itself.
pub(super) fn make_in(
    plan: &Plan,
    dir: &Path,
    progress: &dyn Fn(u64),
) -> Result<Vec<PathBuf>, Error> {
    fs::create_dir_all(dir).map_err(Error::io(dir, "make the folder"))?;
    let _turn = Turn::take(dir)?;
    let mut files = Vec::with_capacity(plan.models.len());
    let mut needs = 0;
    for model in &plan.models {
        let path = dir.join(format!("{}.safetensors", model.file_stem));
        let header = model.header()?;
        let size = header.len() as u64 + model.bytes;
        let made = is_made(&path, &header, size);
        needs += if made { 0 } else { size };
        files.push((model, path, header, made));
    }
    require_space(dir, needs)?;
    for (model, path, header, made) in &files {
        if !made {
            let output = Output::create(dir, &model.file_stem)?;
            write(output, path, header, model, progress)?;
        }
    }
    Ok(files.into_iter().map(|(_, path, ..)| path).collect())
}

/// A folder's lock, held while models are made in it.
struct Turn(#[expect(dead_code, reason = "the lock lasts as long as the descriptor")] File);

impl Turn {
    /// Waits for other processes that make models here, and removes what killed ones left.
    fn take(dir: &Path) -> Result<Self, Error> {
        let folder = File::open(dir).map_err(Error::io(dir, "open the folder"))?;
        let locked = loop {
            match rustix::fs::flock(&folder, FlockOperation::LockExclusive) {
                Err(Errno::INTR) => {}
                other => break other.is_ok(),
            }
        };
        // Without locks (some network file systems), renaming still keeps files whole, but then
        // a temporary file may be somebody's.
        if locked {
            for entry in fs::read_dir(dir)
                .map_err(Error::io(dir, "list the folder"))?
                .flatten()
            {
                if entry.file_name().to_string_lossy().ends_with(PART) {
                    let path = entry.path();
                    fs::remove_file(&path).map_err(Error::io(path, "remove what was left"))?;
                }
            }
        }
        Ok(Self(folder))
    }
}

/// Whether the file at `path` is what would be written: same header, same size.
pub(super) fn is_made(path: &Path, header: &[u8], size: u64) -> bool {
    let same_size = fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() == size);
    let mut begin = vec![0; header.len()];
    same_size
        && File::open(path)
            .and_then(|mut file| file.read_exact(&mut begin))
            .is_ok()
        && begin == header
}

/// Makes sure that `needs` bytes can be written to the file system of `dir`.
pub(super) fn require_space(dir: &Path, needs: u64) -> Result<(), Error> {
    let system = rustix::fs::statvfs(dir).map_err(Error::io(dir, "look for free space"))?;
    let free = system.f_bavail.saturating_mul(system.f_frsize);
    if needs > free {
        return Err(Error::NoSpace {
            dir: dir.to_owned(),
            needs,
            free,
        });
    }
    Ok(())
}

/// A file that is being written. Dropped before it is published, it is gone.
pub(super) struct Output {
    file: File,
    /// Where it is meanwhile, if it has a name.
    temporary: Option<Temporary>,
}

/// A name that is removed when dropped.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // Nothing more can be done about an error here; the next `make` tries again.
        let _ = fs::remove_file(&self.0);
    }
}

impl Output {
    /// A file without a name, or with a temporary one where there are no unnamed files.
    fn create(dir: &Path, file_stem: &str) -> Result<Self, Error> {
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        match rustix::fs::open(dir, flags, Mode::from_raw_mode(0o644)) {
            Ok(file) => Ok(Self {
                file: file.into(),
                temporary: None,
            }),
            // What kernels and file systems say that do not know unnamed files: see open(2).
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => {
                Self::named(dir, file_stem)
            }
            Err(errno) => Err(Error::io(dir, "make a file in it")(errno)),
        }
    }

    /// A file with a temporary name.
    pub(super) fn named(dir: &Path, file_stem: &str) -> Result<Self, Error> {
        let path = temporary_path(dir, file_stem);
        // A name left by a killed process that had the same number.
        let _ = fs::remove_file(&path);
        let file = File::create_new(&path).map_err(Error::io(&path, "make the file"))?;
        Ok(Self {
            file,
            temporary: Some(Temporary(path)),
        })
    }

    /// Gives the file its name, in place of what bears it.
    fn publish(mut self, path: &Path) -> Result<(), Error> {
        let dir = path.parent().unwrap_or(Path::new("."));
        const NAME: &str = "give the finished file its name";
        let temporary = match self.temporary.take() {
            Some(temporary) => temporary,
            None => match link(&self.file, path) {
                // A link never replaces a file; a rename does, at once.
                Err(Errno::EXIST) => {
                    let name = path.file_stem().unwrap_or_default().to_string_lossy();
                    let name = temporary_path(dir, &name);
                    let _ = fs::remove_file(&name);
                    link(&self.file, &name).map_err(Error::io(path, NAME))?;
                    Temporary(name)
                }
                other => return other.map_err(Error::io(path, NAME)),
            },
        };
        // Then nothing is at the temporary name any more, and dropping it does nothing.
        fs::rename(&temporary.0, path).map_err(Error::io(path, NAME))
    }
}

fn temporary_path(dir: &Path, file_stem: &str) -> PathBuf {
    dir.join(format!(".{file_stem}.{}{PART}", std::process::id()))
}

fn link(file: &File, path: &Path) -> Result<(), Errno> {
    use std::os::fd::AsRawFd;
    let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::linkat(CWD, unnamed, CWD, path, AtFlags::SYMLINK_FOLLOW)
}

/// Writes one model and publishes it.
pub(super) fn write(
    mut output: Output,
    path: &Path,
    header: &[u8],
    model: &PlannedModel,
    progress: &dyn Fn(u64),
) -> Result<(), Error> {
    let mut stream = Stream {
        file: &mut output.file,
        buffer: Vec::new(),
    };
    stream
        .model(header, model, progress)
        .map_err(Error::io(path, "write it"))?;
    output.publish(path)
}

/// A file with one buffer before it.
struct Stream<'f> {
    file: &'f mut File,
    buffer: Vec<u8>,
}

impl Stream<'_> {
    fn model(
        &mut self,
        header: &[u8],
        model: &PlannedModel,
        progress: &dyn Fn(u64),
    ) -> io::Result<()> {
        self.file.write_all(header)?;
        self.buffer.reserve_exact(BUFFER);
        for tensor in &model.tensors {
            let (seed, bytes) = (tensor.seed(&model.file_stem), tensor.bytes());
            let mut offset = 0;
            while offset < bytes {
                let room = (BUFFER - self.buffer.len()) as u64;
                // A piece that is not the last ends where `fill` can go on.
                let piece = if bytes - offset <= room {
                    bytes - offset
                } else {
                    room & !7
                };
                if piece == 0 {
                    self.flush(progress)?;
                    continue;
                }
                let begin = self.buffer.len();
                self.buffer.resize(begin + piece as usize, 0);
                fill(&mut self.buffer[begin..], seed, offset, tensor.dtype);
                offset += piece;
            }
        }
        self.flush(progress)
    }

    fn flush(&mut self, progress: &dyn Fn(u64)) -> io::Result<()> {
        self.file.write_all(&self.buffer)?;
        progress(self.buffer.len() as u64);
        self.buffer.clear();
        Ok(())
    }
}
