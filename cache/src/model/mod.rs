//! Models: named tensors in files, known by their headers alone.
//!
//! Opening a model reads the header of its file, or of each of its shards, and nothing of the
//! weights. What comes out is a cheap handle that needs no cache, holds no file open, and can be
//! cloned and sent anywhere. Everything a header claims is checked against the file before it is
//! believed, because what a header says becomes offsets, lengths and allocations later: see
//! [`parse_header`].
//!
//! Read are single `.safetensors` files, GGUF files, whole and split, PyTorch checkpoints (`.bin`,
//! `.pt`, `.pth`, `.ckpt`: zip files, of which nothing is run), and sharded models
//! (`.safetensors.index.json`, `.bin.index.json`). Of a sharded model, the tensors that its index
//! names are the model; what else the shards hold is left out and counted in [`Summary::unmapped`]. A
//! name that two shards hold is refused even if the index names it, because programs differ in which
//! of the two they take.
//!
//! | file | what it has |
//! |---|---|
//! | `open.rs`, `join.rs` | paths → models, joining shards |
//! | `header.rs`, `header_json.rs` | the header of a safetensors file, and its JSON |
//! | `header_fault.rs` | what can be wrong with it |
//! | `shard_index.rs` | the index of a sharded model |
//! | `gguf/` | GGUF files |
//! | `file.rs` | opening regular files, and their identities |
//! | `tensor.rs`, `names.rs` | a tensor, and finding one by name |
//! | `made.rs` | models that are made of another: parts of it, and changes |
//! | `kind/` | what a model is: its role and family |
//! | `summary.rs`, `groups.rs` | a model in a few numbers, and in a few groups of tensors |
//! | `discover.rs` | models in folders |
//! | `torch/` | PyTorch checkpoints |
//! | `error.rs`, `escape.rs` | what went wrong, and names made safe to print |
//!
//! ## Size
//!
//! A handle is one pointer. What it points at is about 250 bytes and the paths, and per tensor 64
//! bytes, its name, 8 per dimension and about 8 for finding it by name.

mod discover;
mod dtype;
mod error;
mod escape;
mod file;
mod gguf;
mod groups;
mod header;
mod header_fault;
mod header_json;
mod join;
mod kind;
mod made;
mod metadata;
mod names;
mod open;
mod shard_index;
mod summary;
mod tensor;
mod torch;

use std::any::Any;
use std::fmt;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

pub use discover::{Discovery, Entry, MAX_DEPTH, OtherFile, discover};
pub use dtype::Dtype;
pub use error::OpenError;
pub use escape::{Escaped, LONGEST, escape, escape_path};
pub use file::FileIdentity;
pub use gguf::{GgufFault, GgufHeader, MAX_GGUF_BYTES, SplitFault, parse_gguf};
pub use header::{Header, MAX_DIMENSIONS, MAX_HEADER_BYTES, header_length, parse_header};
pub use header_fault::HeaderFault;
pub use kind::{Family, Kind, Role};
pub use metadata::Metadata;
pub use shard_index::{IndexFault, MAX_INDEX_BYTES, ShardIndex, parse_index};
pub use summary::{DtypeShare, Summary};
pub use tensor::TensorInfo;
pub use torch::TorchFault;

use made::Made;
pub(crate) use made::{Compute, Recipe};
use names::NameIndex;

/// A model: named tensors and the files they lie in, as they were when it was opened.
///
/// Clones are the same model. Opening a file twice gives two models, with two [`id`](Self::id)s.
#[derive(Clone)]
pub struct Model {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    name: Box<str>,
    path: Box<Path>,
    id: ModelId,
    parts: Parts,
    residences: Residences,
    made: Option<Made>,
}

/// Where caches have this model, remembered so that a lease need not look it up. The first is found
/// without a lock.
#[derive(Default)]
struct Residences {
    first: OnceLock<Residence>,
    others: Mutex<Vec<Residence>>,
}

impl Clone for Residences {
    /// What a cache has is the model that this is copied from.
    fn clone(&self) -> Self {
        Self::default()
    }
}

struct Residence {
    cache: u64,
    entry: Weak<dyn Any + Send + Sync>,
}

/// What opening finds.
#[derive(Clone)]
struct Parts {
    files: Arc<[ModelFile]>,
    tensors: Box<[TensorInfo]>,
    names: NameIndex,
    bytes: u64,
    unmapped: usize,
    format: Format,
    metadata: Metadata,
}

/// The format of a model's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// One safetensors file.
    Safetensors,
    /// Several safetensors files, joined by an index.
    Sharded,
    /// GGUF, one file or several.
    Gguf,
    /// A zip file with a pickle, as `torch.save` writes it.
    PyTorch,
}

impl Format {
    /// Its name: `safetensors`, `sharded`, `gguf`, `pytorch`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Format::Safetensors => "safetensors",
            Format::Sharded => "sharded",
            Format::Gguf => "gguf",
            Format::PyTorch => "pytorch",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Which model: unique in this process, never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelId(u64);

impl ModelId {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        // Only uniqueness is asked for, no order with anything else.
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// The number itself, for records of events.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A file that holds tensors of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFile {
    /// Its path, absolute where the working directory was known at opening.
    pub path: Box<Path>,
    /// What it was when it was opened.
    pub identity: FileIdentity,
    /// Where the data begins, counted from the start of the file.
    pub data_offset: u64,
}

impl ModelFile {
    fn new(path: &Path, identity: FileIdentity, data_offset: u64) -> Self {
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Self {
            path: absolute.into(),
            identity,
            data_offset,
        }
    }

    fn changed(&self, is: Option<FileIdentity>) -> Result<(), OpenError> {
        if is == Some(self.identity) {
            return Ok(());
        }
        Err(OpenError::Changed {
            path: self.path.clone(),
            was: self.identity,
            is,
        })
    }
}

impl Model {
    /// Opens a `.safetensors` file, a GGUF file with the other parts of a split model by its first, a
    /// PyTorch checkpoint, or a sharded model by its `.safetensors.index.json` or `.bin.index.json`,
    /// reading headers only. A file that begins as GGUF files or zip files do is a GGUF file or a
    /// checkpoint whatever its name; any other is read as a safetensors file, unless its extension is
    /// that of another format.
    ///
    /// # Errors
    /// An [`OpenError`] that names the file, what is wrong with it, and what to do. Only regular
    /// files are read (or symbolic links to them), so a FIFO or device is an error and not a wait.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        let path = path.as_ref();
        Ok(Self::from_parts(path, open::open(path)?))
    }

    fn from_parts(path: &Path, parts: Parts) -> Self {
        let inner = Inner {
            name: open::stem(path).into(),
            path: path.into(),
            id: ModelId::next(),
            parts,
            residences: Residences::default(),
            made: None,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Its name: what precedes `.safetensors`, `.gguf` or, of a split model, `-00001-of-00003.gguf`,
    /// the extension of a PyTorch checkpoint, or these and `.index.json` in the file's name, unless it
    /// was given another. Print it through [`escape`](escape()).
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The same model under another name. Meant for a model just opened: if there are other handles
    /// of it, they keep the name and the [`id`](Self::id) they have, and this becomes a model of
    /// its own with a copy of the tensor table.
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.rename(&name.into());
        self
    }

    fn rename(&mut self, name: &str) {
        let shared = Arc::get_mut(&mut self.inner).is_none();
        let inner = Arc::make_mut(&mut self.inner);
        inner.name = name.into();
        if shared {
            inner.id = ModelId::next();
        }
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Which model this is, in this process.
    pub fn id(&self) -> ModelId {
        self.inner.id
    }

    /// The files that hold its tensors: one, or its shards in the order of their names.
    pub fn files(&self) -> &[ModelFile] {
        &self.inner.parts.files
    }

    /// Its tensors in the order of their bytes: by file, then by offset.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.inner.parts.tensors
    }

    /// The tensor of that name and its position in [`tensors`](Self::tensors), in constant time.
    pub fn tensor(&self, name: &str) -> Option<(usize, &TensorInfo)> {
        let position = self.inner.parts.names.position(name, self.tensors())?;
        Some((position, &self.tensors()[position]))
    }

    /// What format its files have.
    pub fn format(&self) -> Format {
        self.inner.parts.format
    }

    /// What its file says of itself besides its tensors; of several files, the first.
    pub fn metadata(&self) -> &Metadata {
        &self.inner.parts.metadata
    }

    /// The bytes of all its tensors, tied ones once, without headers.
    pub fn bytes(&self) -> u64 {
        self.inner.parts.bytes
    }

    /// What it is made of. Walks the tensor table.
    pub fn summary(&self) -> Summary {
        Summary::of(self.tensors(), self.inner.parts.unmapped)
    }

    /// Looks whether the files are still those that were opened.
    ///
    /// # Errors
    /// [`OpenError::Changed`] with both identities, at the first file that is another, or gone.
    pub fn changed(&self) -> Result<(), OpenError> {
        let mut files = self.files().iter();
        files.try_for_each(|file| file.changed(FileIdentity::at(&file.path)?))
    }

    /// Opens one of [`files`](Self::files) for reading, and makes sure by the open descriptor that
    /// it is the file that was opened then: offsets of this model hold for it.
    ///
    /// # Errors
    /// [`OpenError::Changed`] if it is another file, [`OpenError::NoSuchFile`] if the model has no
    /// file of that index, and what opening files gives otherwise.
    pub fn reopen_file(&self, index: usize) -> Result<File, OpenError> {
        let file = self
            .files()
            .get(index)
            .ok_or_else(|| OpenError::NoSuchFile {
                path: self.inner.path.clone(),
                index,
                files: self.files().len(),
            })?;
        match file::open_regular(&file.path) {
            Ok((open, is)) => file.changed(Some(is)).map(|()| open),
            Err(error) if error.is_absence() => Err(file.changed(None).err().unwrap_or(error)),
            Err(error) => Err(error),
        }
    }
}

impl Model {
    /// What a cache has remembered here, unless it is no longer `valid`. A model knows no cache, so
    /// what it is has no type.
    pub(crate) fn remembered_by<T: Send + Sync + 'static>(
        &self,
        cache: u64,
        valid: impl Fn(&T) -> bool,
    ) -> Option<Arc<T>> {
        let residences = &self.inner.residences;
        let of = |residence: &Residence| {
            let entry = (residence.cache == cache).then(|| residence.entry.upgrade());
            let entry = entry.flatten()?.downcast::<T>().ok()?;
            valid(&entry).then_some(entry)
        };
        residences.first.get().and_then(of).or_else(|| {
            let others = residences.others.lock();
            let others = others.unwrap_or_else(PoisonError::into_inner);
            others.iter().find_map(of)
        })
    }

    /// Remembers something for a cache, in place of what it remembered before.
    pub(crate) fn remember<T: Send + Sync + 'static>(&self, cache: u64, entry: &Arc<T>) {
        let entry: Weak<dyn Any + Send + Sync> = Arc::downgrade(entry) as _;
        let residence = Residence { cache, entry };
        let residences = &self.inner.residences;
        if let Err(residence) = residences.first.set(residence) {
            let others = residences.others.lock();
            let mut others = others.unwrap_or_else(PoisonError::into_inner);
            others.retain(|other| other.cache != cache && other.entry.strong_count() > 0);
            others.push(residence);
        }
    }

    /// How many handles of it there are, clones included.
    pub(crate) fn handles(&self) -> usize {
        Arc::strong_count(&self.inner)
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model")
            .field("name", &self.inner.name)
            .field("id", &self.inner.id.0)
            .field("path", &self.inner.path)
            .field("files", &self.files().len())
            .field("tensors", &self.tensors().len())
            .field("bytes", &self.bytes())
            .finish()
    }
}
