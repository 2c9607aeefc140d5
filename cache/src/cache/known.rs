//! The models that a cache knows, found by what their files are.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::Entry;
use crate::books::{Named, RAM, Reload};
use crate::device::{DeviceWeights, PageCacheSeen, PageCached};
use crate::model::{FileIdentity, Model};

/// Weights in a tier, shared by the leases that have looked at them.
pub(crate) type Shared = Arc<Box<dyn DeviceWeights>>;

/// A model that the cache knows, with its weights in each tier.
pub(crate) struct Known {
    pub(crate) model: Model,
    /// The entry of the model that this one is made of, as it was then.
    pub(super) base: Option<Arc<Entry>>,
    /// Written only while the tier's door is closed and nobody is inside.
    weights: Box<[RwLock<Option<Shared>>]>,
    /// The files that its weights in RAM are, where they are mapped.
    page_cache: Mutex<Option<Looked>>,
    /// Whether its stream has told what it is.
    told: AtomicBool,
    /// Whether its stream has told that a part of it stays in RAM.
    told_of_rest: AtomicBool,
}

impl Known {
    pub(crate) fn new(model: Model, base: Option<Arc<Entry>>, tiers: usize) -> Known {
        Known {
            model,
            base,
            weights: (0..tiers).map(|_| RwLock::new(None)).collect(),
            page_cache: Mutex::default(),
            told: AtomicBool::new(false),
            told_of_rest: AtomicBool::new(false),
        }
    }

    /// Whether a handle is of this model.
    pub(crate) fn is_of(&self, model: &Model) -> bool {
        Known::is_same(&self.model, model)
    }

    /// Whether two handles are of one model.
    pub(crate) fn is_same(one: &Model, other: &Model) -> bool {
        one.id() == other.id() || Identity(one.clone()) == Identity(other.clone())
    }

    /// The model that it is a part of, for events.
    pub(super) fn part_of(&self) -> Option<String> {
        let base = self.model.base().filter(|_| self.model.is_part())?;
        Some(base.name().to_owned())
    }

    /// The model that it is a part of, or itself.
    pub(super) fn whole(&self) -> &Model {
        let base = self.model.base().filter(|_| self.model.is_part());
        base.unwrap_or(&self.model)
    }

    /// What it is called where parts are not told apart.
    pub(super) fn told_name(&self) -> &str {
        self.whole().name()
    }

    /// Whether it is what a patch changes, or the patch.
    pub(super) fn is_patch(&self) -> bool {
        self.model.base().is_some() && !self.model.is_part()
    }

    /// Whether this is the first time that somebody hears of it.
    pub(crate) fn is_news(&self) -> bool {
        !self.told.swap(true, Ordering::Relaxed)
    }

    /// Whether this is the first time that a part of it stays in RAM.
    pub(super) fn stays_in_part(&self) -> bool {
        !self.told_of_rest.swap(true, Ordering::Relaxed)
    }

    /// The weights in a tier, for whoever is inside.
    pub(crate) fn weights(&self, tier: usize) -> Option<Shared> {
        self.weights[tier]
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn page_cache(&self) -> MutexGuard<'_, Option<Looked>> {
        let page_cache = self.page_cache.lock();
        page_cache.unwrap_or_else(PoisonError::into_inner)
    }

    /// What of its weights in RAM is page cache, by the last look.
    pub(crate) fn page_cache_seen(&self) -> Option<PageCacheSeen> {
        self.page_cache().as_ref().and_then(|looked| looked.seen)
    }

    /// Looks what of its weights in RAM is page cache, and notes what coming back would read.
    pub(crate) fn look_at_page_cache(&self, reload: &Reload) {
        let looked = self.page_cache().as_ref().map(|one| Arc::clone(&one.at));
        let Some(at) = looked else { return };
        let seen = at.look();
        // It may have gone meanwhile, and come back as another.
        if let Some(looked) = self.page_cache().as_mut()
            && Arc::ptr_eq(&looked.at, &at)
        {
            looked.seen = Some(seen);
            reload.set(seen.reload().bytes());
        }
    }

    pub(crate) fn set_weights(&self, tier: usize, weights: Box<dyn DeviceWeights>) {
        if tier == RAM {
            let looked = |at| Looked { at, seen: None };
            *self.page_cache() = weights.page_cache().map(looked);
        }
        *self.weights[tier]
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(weights));
    }

    pub(crate) fn take_weights(&self, tier: usize) -> Option<Shared> {
        if tier == RAM {
            *self.page_cache() = None;
        }
        self.weights[tier]
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

/// Mapped files, and what was seen of them.
struct Looked {
    at: Arc<dyn PageCached>,
    seen: Option<PageCacheSeen>,
}

impl Named for Known {
    fn name(&self) -> &str {
        self.model.name()
    }

    fn told_name(&self) -> &str {
        Known::told_name(self)
    }

    fn scratch(&self) -> u64 {
        self.model.recipe().map_or(0, |recipe| recipe.scratch())
    }

    fn is_made(&self) -> bool {
        self.model.base().is_some()
    }

    fn whole(&self) -> Option<&Arc<Entry>> {
        self.base.as_ref().filter(|_| self.model.is_part())
    }

    fn position(&self) -> f64 {
        self.model.position()
    }
}

/// What makes two handles the same model: the same files, unchanged, and the same tensors of them,
/// made in the same way. (Two indexes over the same shards may name different ones.)
#[derive(Debug, Clone)]
struct Identity(Model);

impl Identity {
    fn files(&self) -> impl Iterator<Item = &FileIdentity> {
        self.0.files().iter().map(|file| &file.identity)
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Identity) -> bool {
        self.files().eq(other.files())
            && self.0.tensors() == other.0.tensors()
            && self.0.is_made_as(&other.0)
    }
}

impl Eq for Identity {}

impl Hash for Identity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.files().for_each(|file| file.hash(state));
        self.0.tensors().len().hash(state);
        let recipe = self.0.recipe();
        recipe.map(|recipe| recipe.key()).hash(state);
    }
}

/// Which entry a model has. Its lock comes before that of the books.
#[derive(Default)]
pub(crate) struct Registry {
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    by_identity: HashMap<Identity, Arc<Entry>>,
    /// How many there were when those without handles were last forgotten.
    after_sweep: usize,
}

/// Below this, entries that nobody can ask for cost nothing worth looking for.
const FEW: usize = 64;

impl Registry {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entry of a model, made when it is first met. `forget` is asked for entries that nobody
    /// has a handle of, and says whether they could be forgotten.
    pub(crate) fn entry(
        &self,
        model: &Model,
        make: impl FnOnce() -> Arc<Entry>,
        forget: impl Fn(&Arc<Entry>) -> bool,
    ) -> Arc<Entry> {
        let mut entries = self.entries();
        let identity = Identity(model.clone());
        if let Some(entry) = entries.by_identity.get(&identity) {
            return Arc::clone(entry);
        }
        if entries.by_identity.len() > 2 * entries.after_sweep + FEW {
            entries.by_identity.retain(|identity, entry| {
                // The key and the entry have a handle each; both of the same model.
                let handles = identity.0.handles() - 2;
                handles > 0 || !forget(entry)
            });
            entries.after_sweep = entries.by_identity.len();
        }
        let entry = make();
        entries.by_identity.insert(identity, Arc::clone(&entry));
        entry
    }

    /// Takes an entry out: the next to ask gets another.
    pub(crate) fn remove(&self, entry: &Arc<Entry>) {
        let mut entries = self.entries();
        let identity = Identity(entry.model.model.clone());
        let is_this = entries.by_identity.get(&identity);
        if is_this.is_some_and(|known| Arc::ptr_eq(known, entry)) {
            entries.by_identity.remove(&identity);
        }
    }
}
