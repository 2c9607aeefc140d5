//! Storage `mapped`: the files themselves, mapped privately, so that a load costs no reading and
//! no memory but the page cache's, which every process shares.
//!
//! | file | what |
//! |---|---|
//! | `plan` | which stretches of which files, and what is copied beside them |
//! | `options` | how, as the program asks for it |
//! | `file_system` | where files must not be mapped |
//! | `watched` | one mapped file: whether it is still what was mapped, and its page cache |
//!
//! The mapping is writable and private: what candle writes in place is copied page by page, and
//! the file stays as it is. A tensor whose elements are not aligned in the file is copied beside.
//! What is mapped has no life of its own: whoever cuts the file short takes pages away, whoever
//! writes into it changes weights that nobody has touched yet. Both are noticed afterwards
//! ([`Mapped::check`]), and the first does not kill the process where files are guarded.

mod file_system;
mod options;
mod plan;
mod watched;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use malloc_stats::Metric;
use plimsoll_profiles::window::Orphan;
use rustix::mm::{Advice as Madvice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous};

pub use options::{Advice, Mapping, PageCache};

use self::plan::Plan;
use self::watched::{Looker, Watched};
use super::Means;
use super::place::Place;
use super::read::{MOST_THREADS, Sources, Target, open_files, read_targets, still_the_same};
use crate::device::{Held, PageCacheSeen, PageCached as _};
use crate::error::{Error, LoadError};
use crate::model::{Model, OpenError};
use crate::observe::LoadObserver;

/// What a mapped model counts against the budget: all pages that it can come to have, whether they
/// are resident or not.
pub(super) fn charge(model: &Model) -> u64 {
    Plan::new(model).len()
}

/// Bytes of tensors that are used where they lie.
pub(super) fn in_place(model: &Model) -> u64 {
    let copied = Plan::new(model).copied;
    let copied = copied.iter().map(|index| model.tensors()[*index].bytes);
    model
        .bytes()
        .saturating_sub(copied.fold(0, u64::saturating_add))
}

/// The mapped files of one model.
#[derive(Debug)]
pub(crate) struct Mapped {
    plan: Plan,
    sizes: Vec<usize>,
    files: Vec<Watched>,
    counted: Counted,
    /// `None` only while it is taken apart.
    place: Option<Place>,
    drops: bool,
}

/// Bytes of mapped files, counted while they are mapped.
#[derive(Debug, Default)]
struct Counted {
    total: Arc<AtomicU64>,
    bytes: u64,
}

impl Counted {
    fn new(total: &Arc<AtomicU64>, bytes: u64) -> Counted {
        total.fetch_add(bytes, Ordering::Relaxed);
        Counted {
            total: Arc::clone(total),
            bytes,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Why a model's files are not mapped.
#[derive(Debug)]
pub(super) enum NotMapped {
    /// They could be, and must not.
    Unfit(String),
    /// They cannot be.
    Failed(LoadError),
}

impl From<LoadError> for NotMapped {
    fn from(error: LoadError) -> NotMapped {
        NotMapped::Failed(error)
    }
}

impl From<OpenError> for NotMapped {
    fn from(error: OpenError) -> NotMapped {
        NotMapped::Failed(error.into())
    }
}

impl Mapped {
    /// Maps a model's files, and copies what cannot be used in place.
    pub(super) fn load(
        model: &Model,
        means: &Means,
        observer: &dyn LoadObserver,
    ) -> Result<Mapped, NotMapped> {
        let options = means.mapping;
        let files = open_files(model)?;
        if !options.anywhere {
            for (file, known) in files.iter().zip(model.files()) {
                file_system::may_be_mapped(file, &known.path).map_err(NotMapped::Unfit)?;
            }
        }
        let plan = Plan::new(model);
        let memory = |reason: String| LoadError::Memory {
            model: model.name().to_owned(),
            bytes: plan.len(),
            reason,
        };
        let len = usize::try_from(plan.len()).map_err(|error| memory(error.to_string()))?;
        let place = Place::reserve(len).map_err(memory)?;
        let base = place.base().as_ptr() as usize;
        let mut mapped = Mapped {
            sizes: model
                .tensors()
                .iter()
                .map(|tensor| tensor.bytes as usize)
                .collect(),
            files: Vec::with_capacity(plan.stretches.len()),
            counted: Counted::new(&means.mapped_bytes, plan.mapped_bytes()),
            place: Some(place),
            drops: options.page_cache == PageCache::Drop,
            plan,
        };
        for stretch in &mapped.plan.stretches {
            let at = base + stretch.at as usize;
            let bytes = stretch.len as usize;
            let file = &files[stretch.file];
            // SAFETY: the range lies in the place, which is this function's own address space.
            unsafe {
                mmap(
                    at as *mut _,
                    bytes,
                    ProtFlags::READ | ProtFlags::WRITE,
                    MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE,
                    &**file,
                    stretch.offset,
                )
            }
            .map_err(|errno| memory_of(model, stretch.len, &errno.to_string()))?;
            // SAFETY: the mapping made just now.
            unsafe { advise(at, bytes, options.advice) };
            let known = &model.files()[stretch.file];
            mapped
                .files
                .push(Watched::new(file, known, stretch, at, options.guard)?);
        }
        let sources = Sources::Files(files.clone());
        mapped.copy(model, &sources, base, observer)?;
        if mapped.drops {
            // What is only copied from is in the page cache for nothing.
            let is_mapped = |file: usize| mapped.plan.stretches.iter().any(|one| one.file == file);
            for (index, file) in files.iter().enumerate().filter(|(at, _)| !is_mapped(*at)) {
                watched::forget(file, &model.files()[index].path);
            }
        }
        still_the_same(model.files(), &files)?;
        Ok(mapped)
    }

    /// Reads the tensors that are not aligned in their file.
    fn copy(
        &self,
        model: &Model,
        sources: &Sources,
        base: usize,
        observer: &dyn LoadObserver,
    ) -> Result<(), LoadError> {
        for tensor in model.tensors() {
            observer.before_tensor(model, tensor);
            observer.after_tensor(model, tensor);
        }
        let copies = &self.plan.copies;
        if copies.is_empty() {
            return Ok(());
        }
        let bytes = (copies.end - copies.start) as usize;
        // SAFETY: the range lies in the place, which is the caller's own address space.
        unsafe {
            mmap_anonymous(
                (base + copies.start as usize) as *mut _,
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::FIXED,
            )
        }
        .map_err(|errno| memory_of(model, bytes as u64, &errno.to_string()))?;
        let targets: Vec<Target> = self
            .plan
            .copied
            .iter()
            .map(|index| {
                let tensor = &model.tensors()[*index];
                Target {
                    file: tensor.file,
                    offset: tensor.offset,
                    at: base + self.plan.offsets[*index] as usize,
                    bytes: tensor.bytes as usize,
                }
            })
            .collect();
        // SAFETY: the targets lie in the mapping made just now, which nobody else knows yet.
        unsafe { read_targets(model, sources, &targets, MOST_THREADS, observer) }
    }

    /// Tensors that were copied as they are not aligned, and their bytes.
    pub(super) fn copied(&self) -> (u64, u64) {
        let bytes = self
            .plan
            .copied
            .iter()
            .map(|index| self.sizes[*index] as u64);
        (self.plan.copied.len() as u64, bytes.sum())
    }

    /// The bytes of a tensor.
    pub(super) fn bytes(&self, tensor: usize) -> &[u8] {
        let Some(place) = self.place.as_ref().filter(|_| self.sizes[tensor] > 0) else {
            return &[];
        };
        let offset = self.plan.offsets[tensor] as usize;
        // SAFETY: `load` mapped or filled the range, it lives as long as `self`, and once it is
        // adopted it is read through its vector alone. That others may write to the file is the
        // bargain of a mapping, which whoever asks for this storage makes.
        unsafe { std::slice::from_raw_parts(place.base().as_ptr().add(offset), self.sizes[tensor]) }
    }

    /// A vector over a tensor's memory; `None` where it cannot be adopted.
    ///
    /// # Safety
    /// As [`Region::adopt`](super::Region::adopt).
    pub(super) unsafe fn adopt<T: 'static>(&self, tensor: usize) -> Option<Vec<T>> {
        let Some(Place::Span(span)) = &self.place else {
            return None;
        };
        let len = self.sizes[tensor] / size_of::<T>();
        // SAFETY: the range holds the tensor's bytes, and any bytes are values of type `T`. It
        // stays mapped until the last block is gone, since `release` orphans a span with blocks.
        // The rest is the caller's promise.
        unsafe { span.adopt(self.plan.offsets[tensor] as usize, len) }
    }

    /// Whether the files are still what was mapped.
    ///
    /// # Errors
    /// [`Error::Poisoned`] with what became of the first that is not.
    pub(super) fn check(&self, model: &str) -> Result<(), Error> {
        let mut files = self.files.iter();
        files.try_for_each(|file| file.check(model))
    }

    /// What tells how much of what is mapped is resident, as page cache.
    pub(super) fn page_cache(&self) -> Looker {
        Looker::new(&self.files, self.drops)
    }

    /// Unmaps it, and drops its pages where that is asked for; what tensors still hold goes with
    /// the last of them.
    pub(super) fn release(mut self) -> Released {
        self.take_apart()
    }

    fn take_apart(&mut self) -> Released {
        let looker = self.page_cache();
        let before = looker.look();
        let files = std::mem::take(&mut self.files);
        match self.place.take() {
            Some(Place::Span(span)) => match span.orphan() {
                Err(orphan) => Released {
                    before,
                    after: None,
                    held: Some(HeldMapping {
                        files,
                        _counted: std::mem::take(&mut self.counted),
                        orphan: Some(orphan),
                        looker,
                    }),
                },
                Ok(span) => watched::let_go(files, span, &looker, before),
            },
            Some(plain) => watched::let_go(files, plain, &looker, before),
            None => Released {
                before,
                after: None,
                held: None,
            },
        }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // With the cache, tensors may still be alive: their guards stay with what they hold.
        if self.place.is_some() {
            self.take_apart();
        }
    }
}

fn memory_of(model: &Model, bytes: u64, reason: &str) -> LoadError {
    LoadError::Memory {
        model: model.name().to_owned(),
        bytes,
        reason: reason.to_owned(),
    }
}

/// # Safety
/// The range is a mapping of the caller's.
unsafe fn advise(at: usize, bytes: usize, advice: Advice) {
    let advice = match advice {
        Advice::None => return,
        Advice::Sequential => Madvice::Sequential,
        Advice::WillNeed => Madvice::WillNeed,
        Advice::Populate => Madvice::LinuxPopulateRead,
    };
    // SAFETY: as the caller promises; none of these changes what is there. Where the kernel does
    // not know one (before Linux 5.14), pages come when they are touched.
    let _ = unsafe { madvise(at as *mut _, bytes, advice) };
}

/// What became of a mapping.
#[derive(Debug)]
pub(super) struct Released {
    /// What of it was resident before.
    pub(super) before: PageCacheSeen,
    /// What is left of it in the page cache; `None` while tensors hold it.
    pub(super) after: Option<Metric>,
    pub(super) held: Option<HeldMapping>,
}

/// A mapping that tensors still hold.
#[derive(Debug)]
pub(super) struct HeldMapping {
    /// Guarded for as long as somebody may read.
    files: Vec<Watched>,
    _counted: Counted,
    orphan: Option<Orphan>,
    looker: Looker,
}

impl Held for HeldMapping {
    fn bytes(&self) -> u64 {
        self.orphan
            .as_ref()
            .map_or(0, |orphan| orphan.bytes() as u64)
    }

    fn is_gone(&self) -> bool {
        self.orphan.as_ref().is_none_or(Orphan::is_gone)
    }
}

impl Drop for HeldMapping {
    fn drop(&mut self) {
        if self.is_gone() {
            // Under the books' lock: nothing is looked at that nobody is told of.
            let files = std::mem::take(&mut self.files);
            watched::unmap(files, self.orphan.take(), self.looker.drops());
            return;
        }
        // Dropped with the cache, before the tensors. They can still be read, so their guards stay,
        // and with them the addresses, which must not become another's while they are guarded.
        std::mem::forget(std::mem::take(&mut self.files));
        std::mem::forget(self.orphan.take());
    }
}
