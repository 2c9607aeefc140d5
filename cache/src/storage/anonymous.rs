//! Storage `anonymous`, the default: one exactly sized region per model, made of recycled pages
//! where an eviction left some, and gone at unload. Regions of locked pages ([`pinned`](super::pinned))
//! are laid out and filled in the same way.

use std::sync::Arc;

use plimsoll_profiles::window::Orphan;

use super::pinned::{GRANULE, LockedPages, Stretch, Unlocked};
use super::place::Place;
use super::read::{MOST_THREADS, Target, open_sources, read_targets};
use super::recycler::{Piece, Recycler};
use crate::device::Held;
use crate::error::LoadError;
use crate::model::Model;
use crate::observe::LoadObserver;

/// Tensors begin on cache lines, which vector instructions like too.
const ALIGNMENT: u64 = 64;

/// Where each tensor lies in the region, and the region's length in whole pages.
#[derive(Debug)]
pub(crate) struct Plan {
    offsets: Vec<u64>,
    len: u64,
}

impl Plan {
    /// Lays tensors out in file order.
    pub(crate) fn new(model: &Model) -> Plan {
        let mut end = 0_u64;
        let mut offsets: Vec<u64> = Vec::with_capacity(model.tensors().len());
        for tensor in model.tensors() {
            if let Some(tied) = tensor.tied_to {
                offsets.push(offsets[tied as usize]);
                continue;
            }
            // Sparse files can claim sizes whose sum overflows. What saturates exceeds any memory,
            // and is refused as that.
            let at = end.checked_next_multiple_of(ALIGNMENT).unwrap_or(u64::MAX);
            end = at.saturating_add(tensor.bytes);
            offsets.push(at);
        }
        let page = rustix::param::page_size() as u64;
        Plan {
            offsets,
            len: end
                .checked_next_multiple_of(page)
                .unwrap_or(u64::MAX)
                .max(page),
        }
    }

    /// What the region counts against the budget: all its pages.
    pub(crate) fn bytes(&self) -> u64 {
        self.len
    }
}

/// The memory of one model.
#[derive(Debug)]
pub(crate) struct Region {
    plan: Plan,
    sizes: Vec<usize>,
    /// The first address.
    base: usize,
    /// `None` only while the region is being taken apart.
    pages: Option<Pages>,
    /// Bytes that lay in recycled pages when the region was made.
    recycled_bytes: usize,
    /// Whether it was read to the end. If not, its recycled pages were used by nobody.
    is_loaded: bool,
}

/// What a region is made of.
#[derive(Debug)]
enum Pages {
    /// Recycled pages and fresh ones.
    Plain {
        place: Place,
        pieces: Vec<Piece>,
        recycler: Arc<Recycler>,
    },
    /// Locked ones.
    Locked {
        stretch: Stretch,
        pool: Arc<LockedPages>,
    },
}

/// What became of a region's pages at unload.
#[derive(Debug, Default)]
pub(crate) struct Released {
    /// Kept for a load that is under way.
    pub(crate) recycled_bytes: u64,
    /// Back with the system.
    pub(crate) returned_bytes: u64,
    /// Still held by tensors, with what tells when they are gone.
    pub(crate) held: Option<Remains>,
}

/// Memory of a region that tensors still hold.
#[derive(Debug)]
pub(crate) struct Remains {
    orphan: Orphan,
    bytes: u64,
}

impl Held for Remains {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn is_gone(&self) -> bool {
        self.orphan.is_gone()
    }
}

impl Region {
    /// Makes a region for a model and reads it. Takes the region's bytes from what the recycler was
    /// told to expect, whether it succeeds or not.
    pub(crate) fn load(
        model: &Model,
        recycler: &Arc<Recycler>,
        observer: &dyn LoadObserver,
    ) -> Result<Region, LoadError> {
        Region::reserve(model, recycler)?.filled(model, observer)
    }

    /// The same of locked pages.
    ///
    /// # Errors
    /// Why they cannot be locked, or why the load failed.
    pub(crate) fn load_locked(
        model: &Model,
        pool: &Arc<LockedPages>,
        observer: &dyn LoadObserver,
    ) -> Result<Region, NotLocked> {
        let plan = Plan::new(model);
        let memory = |reason| {
            NotLocked::Failed(LoadError::Memory {
                model: model.name().to_owned(),
                bytes: plan.len,
                reason,
            })
        };
        let len = usize::try_from(plan.len).map_err(|error| memory(error.to_string()))?;
        let (stretch, recycled_bytes) = pool.take(len).map_err(|why| match why {
            Unlocked::NoMemory(reason) => memory(reason),
            Unlocked::Refused(reason) => NotLocked::Refused(reason),
        })?;
        let base = stretch.base();
        let pool = Arc::clone(pool);
        let region = Region::over(
            model,
            plan,
            base,
            Pages::Locked { stretch, pool },
            recycled_bytes,
        );
        region.filled(model, observer).map_err(NotLocked::Failed)
    }

    fn over(model: &Model, plan: Plan, base: usize, pages: Pages, recycled_bytes: usize) -> Region {
        let len = plan.len as usize;
        let region = Region {
            sizes: model
                .tensors()
                .iter()
                .map(|tensor| tensor.bytes as usize)
                .collect(),
            plan,
            base,
            pages: Some(pages),
            recycled_bytes,
            is_loaded: false,
        };
        if recycled_bytes > 0 {
            region.zero_padding(base, len);
        }
        region
    }

    /// Reads the model into it.
    fn filled(mut self, model: &Model, observer: &dyn LoadObserver) -> Result<Region, LoadError> {
        let region = &mut self;
        observer.recycled(region.recycled_bytes());
        for tensor in model.tensors() {
            observer.before_tensor(model, tensor);
            observer.after_tensor(model, tensor);
        }
        let base = region.base;
        let targets: Vec<Target> = model
            .tensors()
            .iter()
            .zip(&region.plan.offsets)
            .filter(|(tensor, _)| tensor.tied_to.is_none())
            .map(|(tensor, offset)| Target {
                file: tensor.file,
                offset: tensor.offset,
                at: base + *offset as usize,
                bytes: tensor.bytes as usize,
            })
            .collect();
        let sources = open_sources(model)?;
        // SAFETY: the region is this function's own until it is returned. When reading fails it is
        // dropped, which gives its pages back.
        unsafe { read_targets(model, &sources, &targets, MOST_THREADS, observer) }?;
        sources.still_the_same(model)?;
        region.loaded();
        Ok(self)
    }

    /// Makes a region for a model, to be filled by [`write`](Self::write).
    pub(crate) fn reserve(model: &Model, recycler: &Arc<Recycler>) -> Result<Region, LoadError> {
        let plan = Plan::new(model);
        let memory = |reason: String| LoadError::Memory {
            model: model.name().to_owned(),
            bytes: plan.len,
            reason,
        };
        let len = usize::try_from(plan.len).map_err(|error| memory(error.to_string()))?;
        let place = Place::reserve(len).map_err(|reason| {
            recycler.unexpect(len);
            memory(reason)
        })?;
        let base = place.base().as_ptr() as usize;
        // SAFETY: the place is whole pages of address space that was reserved just now.
        let gathered =
            unsafe { recycler.gather(base, len) }.map_err(|errno| memory(errno.to_string()))?;
        let pages = Pages::Plain {
            place,
            pieces: gathered.pieces,
            recycler: Arc::clone(recycler),
        };
        Ok(Region::over(
            model,
            plan,
            base,
            pages,
            gathered.recycled_bytes,
        ))
    }

    fn place(&self) -> Option<&Place> {
        match self.pages.as_ref()? {
            Pages::Plain { place, .. } => Some(place),
            Pages::Locked { stretch, .. } => stretch.place(),
        }
    }

    /// Where its pages are locked: how many bytes at once.
    pub(crate) fn locked(&self) -> Option<usize> {
        matches!(self.pages, Some(Pages::Locked { .. })).then_some(GRANULE)
    }

    /// Puts bytes into a tensor that nobody has seen yet.
    pub(crate) fn write(&mut self, tensor: usize, offset: usize, bytes: &[u8]) {
        let end = offset.checked_add(bytes.len());
        assert!(
            end.is_some_and(|end| end <= self.sizes[tensor]),
            "beyond the tensor"
        );
        let at = self.base + self.plan.offsets[tensor] as usize + offset;
        // SAFETY: the range lies in the tensor, which lies in the region; `&mut self` says that
        // nobody reads it.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), at as *mut u8, bytes.len()) };
    }

    /// Notes that all of it was filled.
    pub(crate) fn loaded(&mut self) {
        self.is_loaded = true;
    }

    /// Bytes that lay in pages which an eviction had left, when the region was made.
    pub(crate) fn recycled_bytes(&self) -> u64 {
        self.recycled_bytes as u64
    }

    /// Clears what no tensor covers: the bytes of another model must not outlive it there.
    fn zero_padding(&self, base: usize, len: usize) {
        let mut end = 0;
        let starts = self.plan.offsets.iter().map(|offset| *offset as usize);
        let sizes = self.sizes.iter().copied().chain([0]);
        for (start, size) in starts.chain([len]).zip(sizes) {
            // A tied tensor lies in the bytes of one before it.
            if start > end {
                // SAFETY: the gap lies in the region, which is writable and not shared yet.
                unsafe { std::ptr::write_bytes((base + end) as *mut u8, 0, start - end) };
            }
            end = end.max(start + size);
        }
    }

    /// The bytes of a tensor.
    pub(crate) fn bytes(&self, tensor: usize) -> &[u8] {
        if self.pages.is_none() {
            return &[];
        }
        let at = self.base + self.plan.offsets[tensor] as usize;
        // SAFETY: `load` filled the range, it lives as long as `self`, and once it is adopted it is
        // read through its vector alone (see `Weights::bytes`).
        unsafe { std::slice::from_raw_parts(at as *const u8, self.sizes[tensor]) }
    }

    /// A vector over a tensor's memory; `None` where it cannot be adopted.
    ///
    /// # Safety
    /// There must be no other vector over this tensor, nor a slice of its [`bytes`](Self::bytes),
    /// now or later.
    pub(crate) unsafe fn adopt<T: 'static>(&self, tensor: usize) -> Option<Vec<T>> {
        let Some(Place::Span(span)) = self.place() else {
            return None;
        };
        let begin = self.base - span.base().as_ptr() as usize;
        let offset = begin + self.plan.offsets[tensor] as usize;
        let len = self.sizes[tensor] / size_of::<T>();
        // SAFETY: the range holds the tensor's bytes, and any bytes are numbers of type `T`. It
        // stays mapped until the last block is gone, since `release` orphans a span with blocks.
        // The rest is the caller's promise.
        unsafe { span.adopt(offset, len) }
    }

    /// Takes the region apart: pages go to the recycler or the system, except where tensors still
    /// hold them.
    pub(crate) fn release(mut self) -> Released {
        self.take_apart()
    }

    fn take_apart(&mut self) -> Released {
        match self.pages.take() {
            None => Released::default(),
            Some(Pages::Plain {
                place,
                pieces,
                recycler,
            }) => self.scatter(place, &pieces, &recycler),
            Some(Pages::Locked { stretch, pool }) => self.unlock(stretch, &pool),
        }
    }

    fn scatter(&self, place: Place, pieces: &[Piece], recycler: &Recycler) -> Released {
        let place = match place {
            Place::Span(span) => match span.orphan() {
                Ok(span) => Place::Span(span),
                Err(orphan) => {
                    recycler.abandon(pieces);
                    return self.held(orphan);
                }
            },
            plain @ Place::Plain(_) => plain,
        };
        // SAFETY: the pieces lie at `base`, and nobody can reach the memory: no block is alive,
        // and this region is being dropped.
        let (kept, returned) = unsafe { recycler.scatter(self.base, pieces) };
        if !self.is_loaded {
            recycler.given(returned.min(self.recycled_bytes));
        }
        drop(place);
        Released {
            recycled_bytes: kept as u64,
            returned_bytes: returned as u64,
            held: None,
        }
    }

    fn unlock(&self, stretch: Stretch, pool: &LockedPages) -> Released {
        if stretch.is_held() {
            // Its pages are not locked any more, whoever holds them.
            if let Some(orphan) = pool.leave(stretch) {
                return self.held(orphan);
            }
            return Released {
                returned_bytes: self.plan.len,
                ..Released::default()
            };
        }
        let (kept, returned) = pool.put(stretch);
        if !self.is_loaded {
            pool.given(returned.min(self.recycled_bytes));
        }
        Released {
            recycled_bytes: kept as u64,
            returned_bytes: returned as u64,
            held: None,
        }
    }

    fn held(&self, orphan: Orphan) -> Released {
        Released {
            held: Some(Remains {
                orphan,
                bytes: self.plan.len,
            }),
            ..Released::default()
        }
    }
}

/// Why a model is not kept in locked pages.
pub(crate) enum NotLocked {
    /// They cannot be locked, and why. It is to be kept in others.
    Refused(String),
    /// The load failed.
    Failed(LoadError),
}

impl Drop for Region {
    fn drop(&mut self) {
        self.take_apart();
    }
}
