//! Models that are made of another one: a part of its tensors, or tensors that are computed from
//! them. They are loaded, counted, shared and evicted as any other.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use super::names::NameIndex;
use super::summary::total_bytes;
use super::{Inner, Metadata, Model, ModelFile, ModelId, Parts, Residences, TensorInfo};
use crate::error::LoadError;
use crate::observe::LoadObserver;

/// How a model comes of another.
#[derive(Clone)]
pub(super) struct Made {
    base: Model,
    how: How,
}

#[derive(Clone)]
enum How {
    /// Some of its tensors. Where they stand in it, from 0 to 1.
    Part(f64),
    /// Those of a patch that change a model.
    Factors,
    /// Computed.
    By(Arc<dyn Recipe>),
}

/// Tensors that are computed, not read. Their [`TensorInfo::offset`]s say where each begins when all
/// of them are laid one behind the other; what a file of that index holds there is nothing.
pub(crate) trait Recipe: fmt::Debug + Send + Sync {
    /// What tells it from another recipe for the same tensors.
    fn key(&self) -> &str;

    /// The memory that it takes while it is at work, bytes, besides what it makes.
    fn scratch(&self) -> u64;

    /// Opens whatever it takes.
    ///
    /// # Errors
    /// A file that is gone, or changed since it was opened.
    fn begin(self: Arc<Self>, model: &Model) -> Result<Box<dyn Compute>, LoadError>;
}

/// A recipe at work, for several threads at once.
pub(crate) trait Compute: Send + Sync {
    /// Computes the bytes that begin at an offset.
    ///
    /// # Errors
    /// A file that cannot be read, numbers that cannot be computed.
    fn compute(
        &self,
        offset: u64,
        into: &mut [u8],
        observer: &dyn LoadObserver,
    ) -> Result<(), LoadError>;

    /// Whether what was taken is still what it was.
    ///
    /// # Errors
    /// The first file that changed.
    fn still_the_same(&self) -> Result<(), LoadError>;
}

impl Model {
    /// Some of this model's tensors, by their positions in ascending order, as a model of its own.
    /// Tied tensors have to come with the one whose bytes they share.
    pub(crate) fn part(&self, name: String, tensors: &[usize], position: f64) -> Model {
        self.subset(name, tensors, How::Part(position))
    }

    fn subset(&self, name: String, tensors: &[usize], how: How) -> Model {
        let mut places: HashMap<u32, u32> = HashMap::new();
        let mut table: Vec<TensorInfo> = Vec::with_capacity(tensors.len());
        for &index in tensors {
            let mut tensor = self.tensors()[index].clone();
            tensor.tied_to = tensor.tied_to.and_then(|home| places.get(&home).copied());
            places.insert(index as u32, table.len() as u32);
            table.push(tensor);
        }
        let files = self.files_of(&mut table);
        self.made(name, table, files, how)
    }

    /// The files that these tensors lie in; of several, those alone.
    fn files_of(&self, tensors: &mut [TensorInfo]) -> Arc<[ModelFile]> {
        let all = &self.inner.parts.files;
        let used: BTreeSet<u32> = tensors.iter().map(|tensor| tensor.file).collect();
        if used.len() == all.len() {
            return Arc::clone(all);
        }
        for tensor in tensors {
            tensor.file = used.range(..tensor.file).count() as u32;
        }
        used.iter()
            .map(|file| all[*file as usize].clone())
            .collect()
    }

    /// The tensors of a patch that change a model, as a model of their own, likewise.
    pub(crate) fn factors(&self, tensors: &[usize]) -> Model {
        let name = self.name().to_owned();
        self.subset(name, tensors, How::Factors)
    }

    /// Tensors that are computed of this model's and of what other files hold.
    pub(crate) fn changed_by(
        &self,
        name: String,
        tensors: Vec<TensorInfo>,
        files: Arc<[ModelFile]>,
        recipe: Arc<dyn Recipe>,
    ) -> Model {
        self.made(name, tensors, files, How::By(recipe))
    }

    fn made(
        &self,
        name: String,
        tensors: Vec<TensorInfo>,
        files: Arc<[ModelFile]>,
        how: How,
    ) -> Model {
        let parts = Parts {
            names: match NameIndex::new(&tensors[..]) {
                Ok(names) => names,
                Err(_) => unreachable!("names of one model differ"),
            },
            bytes: total_bytes(&tensors),
            tensors: tensors.into(),
            files,
            unmapped: 0,
            format: self.format(),
            // There may be thousands of parts.
            metadata: Metadata::default(),
        };
        let inner = Inner {
            name: name.into(),
            path: self.path().into(),
            id: ModelId::next(),
            parts,
            residences: Residences::default(),
            made: Some(Made {
                base: self.clone(),
                how,
            }),
        };
        Model {
            inner: Arc::new(inner),
        }
    }

    /// The model that this one is made of, where it is.
    pub(crate) fn base(&self) -> Option<&Model> {
        self.inner.made.as_ref().map(|made| &made.base)
    }

    /// How it is computed, where it is.
    pub(crate) fn recipe(&self) -> Option<&Arc<dyn Recipe>> {
        match &self.inner.made.as_ref()?.how {
            How::By(recipe) => Some(recipe),
            How::Part(_) | How::Factors => None,
        }
    }

    /// Whether it is some tensors of a larger one.
    pub(crate) fn is_part(&self) -> bool {
        let how = self.inner.made.as_ref().map(|made| &made.how);
        matches!(how, Some(How::Part(_)))
    }

    /// Where it stands in the whole, from 0 to 1.
    pub(crate) fn position(&self) -> f64 {
        match self.inner.made.as_ref().map(|made| &made.how) {
            Some(How::Part(position)) => *position,
            Some(How::By(_) | How::Factors) | None => 0.0,
        }
    }

    /// Whether both come of their bases in the same way, if those are the same.
    pub(crate) fn is_made_as(&self, other: &Model) -> bool {
        let how = |model: &Model| model.inner.made.as_ref().map(|made| made.how.clone());
        match (how(self), how(other)) {
            (None, None) => true,
            (Some(How::Part(_)), Some(How::Part(_))) => true,
            (Some(How::Factors), Some(How::Factors)) => true,
            (Some(How::By(a)), Some(How::By(b))) => a.key() == b.key(),
            _ => false,
        }
    }
}
