//! Merged tensors as a model of their own, whose bytes are computed when it is loaded.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use xxhash_rust::xxh3::xxh3_128;

use super::error::FitError;
use super::factors::Factors;
use super::merge::{Merge, Term};
use super::{Change, Edit, MergeError, Patch, PatchError};
use crate::error::LoadError;
use crate::model::{Compute, Model, ModelFile, Recipe, TensorInfo, escape};
use crate::observe::LoadObserver;
use crate::storage::{open_files, still_the_same};

/// Where the first computed tensor lies: no tensor is at offset 0.
const BEGIN: u64 = ALIGNMENT;

/// Tensors begin at multiples of the widest element: those that follow each other without a gap are
/// computed in stretches of one length, which must not end within an element.
const ALIGNMENT: u64 = 8;

/// Factors of so many tensors are kept: those at which threads are.
const KEPT: usize = 2;

/// As many again may be at hand to threads that still use them.
const AT_HAND: usize = 2 * KEPT;

/// Fewer bytes of factors do not count: any load takes as much beside its weights.
const LITTLE: u64 = 1 << 20;

/// A patch, how strongly it is made, and what it changes in a model.
#[derive(Debug, Clone)]
pub(crate) struct Fitted {
    pub(crate) patch: Patch,
    pub(crate) strength: f64,
    pub(crate) edits: Vec<Edit>,
}

/// Tensors of a model after changes.
#[derive(Debug)]
struct Merging {
    base: Model,
    patches: Vec<Fitted>,
    tensors: Vec<Touched>,
    key: String,
    scratch: u64,
}

/// A tensor that changes.
#[derive(Debug)]
struct Touched {
    /// In the base.
    index: usize,
    /// The patch and its change, in the order in which they are added.
    changes: Vec<(usize, Change)>,
    /// Where its bytes begin among all that are computed.
    offset: u64,
    bytes: u64,
}

/// The name of a model with patches: `unet + style×0.8`.
pub(crate) fn patched_name(base: &Model, patches: &[Fitted]) -> String {
    let mut name = base.name().to_owned();
    for one in patches {
        let _ = write!(name, " + {}×{}", one.patch.model().name(), one.strength);
    }
    name
}

/// The tensors that patches change, as a model: those alone. `None` where nothing changes.
///
/// # Errors
/// [`FitError::Large`] where rows are appended beyond what has an address.
pub(crate) fn merged_model(base: &Model, patches: Vec<Fitted>) -> Result<Option<Model>, FitError> {
    let mut touched: BTreeMap<usize, Vec<(usize, Change)>> = BTreeMap::new();
    for (number, one) in patches.iter().enumerate() {
        for edit in &one.edits {
            let changes = touched.entry(edit.target).or_default();
            changes.push((number, edit.change.clone()));
        }
    }
    if touched.is_empty() {
        return Ok(None);
    }
    let mut offset = BEGIN;
    let mut table = Vec::with_capacity(touched.len());
    let mut tensors = Vec::with_capacity(touched.len());
    for (index, changes) in touched {
        let old = &base.tensors()[index];
        let rows = changes.iter().map(|(_, change)| change.appended_rows());
        let rows = rows.fold(0, usize::saturating_add);
        let mut shape = old.shape.clone();
        let mut bytes = old.bytes;
        if let Some(first) = shape.first_mut().filter(|_| rows > 0) {
            let width = row_bytes(old);
            *first = first.saturating_add(rows);
            bytes = bytes.saturating_add(width.saturating_mul(rows as u64));
        }
        let end = offset
            .checked_add(bytes)
            .filter(|end| *end <= i64::MAX as u64);
        let end = end.ok_or_else(|| FitError::Large {
            base: escape(base.name()).to_string(),
            tensor: old.name.clone(),
            bytes,
        })?;
        table.push(TensorInfo {
            name: old.name.clone(),
            dtype: old.dtype,
            shape,
            file: 0,
            offset,
            bytes,
            tied_to: None,
        });
        tensors.push(Touched {
            index,
            changes,
            offset,
            bytes,
        });
        offset = end.next_multiple_of(ALIGNMENT);
    }
    let of_patches = patches.iter().flat_map(|one| one.patch.model().files());
    let files: Arc<[ModelFile]> = base.files().iter().chain(of_patches).cloned().collect();
    let name = patched_name(base, &patches);
    let factors = tensors.iter().map(|touched| {
        let taken = touched.changes.iter().flat_map(|(number, change)| {
            let patch = &patches[*number].patch;
            change.tensors().map(|at| patch.info(at).bytes)
        });
        taken.fold(0, u64::saturating_add)
    });
    let mut factors: Vec<u64> = factors.collect();
    factors.sort_unstable();
    let scratch = factors.iter().rev().take(AT_HAND);
    let scratch = scratch.fold(0, |all: u64, one| all.saturating_add(*one));
    let scratch = if scratch < LITTLE { 0 } else { scratch };
    let recipe = Arc::new(Merging {
        key: key(&patches),
        scratch,
        base: base.clone(),
        patches,
        tensors,
    });
    Ok(Some(base.changed_by(name, table, files, recipe)))
}

/// What tells changes of the same tensors by the same files apart: what is taken of them for what,
/// and how strongly.
fn key(patches: &[Fitted]) -> String {
    let mut key = String::new();
    for one in patches {
        let _ = write!(key, "{:016x} {:?};", one.strength.to_bits(), one.edits);
    }
    format!("{:032x}", xxh3_128(key.as_bytes()))
}

/// What a row of a tensor takes, bytes.
fn row_bytes(tensor: &TensorInfo) -> u64 {
    let columns = tensor.shape.iter().skip(1);
    let columns = columns.fold(1_u64, |all, one| all.saturating_mul(*one as u64));
    columns.saturating_mul(tensor.dtype.bitsize() as u64) / 8
}

impl Recipe for Merging {
    fn key(&self) -> &str {
        &self.key
    }

    fn scratch(&self) -> u64 {
        self.scratch
    }

    fn begin(self: Arc<Self>, model: &Model) -> Result<Box<dyn Compute>, LoadError> {
        let mut files = open_files(&self.base)?;
        let base_files = files.len();
        for one in &self.patches {
            files.extend(open_files(one.patch.model())?);
        }
        Ok(Box::new(AtWork {
            model: model.clone(),
            recipe: self,
            files,
            base_files,
            kept: Mutex::default(),
        }))
    }
}

/// A recipe, its files open.
struct AtWork {
    model: Model,
    recipe: Arc<Merging>,
    /// Those of the base first, then of the patches.
    files: Vec<Arc<File>>,
    base_files: usize,
    /// By tensor, the last one used at the end.
    kept: Mutex<Vec<(usize, Arc<Changes>)>>,
}

/// The changes of one tensor, read.
type Changes = Vec<(Factors<'static>, f64)>;

impl AtWork {
    fn changes(&self, at: usize, observer: &dyn LoadObserver) -> Result<Arc<Changes>, LoadError> {
        let kept = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        {
            let mut kept = kept();
            if let Some(place) = kept.iter().position(|(tensor, _)| *tensor == at) {
                let one = kept.remove(place);
                let changes = Arc::clone(&one.1);
                kept.push(one);
                return Ok(changes);
            }
        }
        // Two threads may read the same: that costs less than one that waits for the other.
        let touched = &self.recipe.tensors[at];
        let mut changes = Vec::with_capacity(touched.changes.len());
        for (number, change) in &touched.changes {
            let Fitted {
                patch, strength, ..
            } = &self.recipe.patches[*number];
            for tensor in change.tensors().map(|at| patch.info(at)) {
                let path = &patch.model().files()[tensor.file as usize].path;
                let observed = observer.before_read(path, tensor.offset, tensor.bytes);
                observed.map_err(|source| LoadError::Read {
                    path: path.to_path_buf(),
                    offset: tensor.offset,
                    source,
                })?;
            }
            let factors = Factors::read(patch, change).map_err(|error| match error {
                PatchError::Open(error) => LoadError::Open(error),
                error => self.failed(at, error.to_string()),
            })?;
            changes.push((factors, *strength));
        }
        let changes = Arc::new(changes);
        let mut kept = kept();
        if kept.len() == KEPT {
            kept.remove(0);
        }
        kept.push((at, Arc::clone(&changes)));
        Ok(changes)
    }

    fn failed(&self, at: usize, reason: String) -> LoadError {
        LoadError::Merge {
            model: self.model.name().to_owned(),
            tensor: self.model.tensors()[at].name.to_string(),
            reason,
        }
    }

    /// Reads bytes of a tensor of the base.
    fn read(
        &self,
        tensor: &TensorInfo,
        start: u64,
        into: &mut [u8],
        observer: &dyn LoadObserver,
    ) -> Result<(), LoadError> {
        let index = tensor.file as usize;
        let path = &self.recipe.base.files()[index].path;
        let offset = tensor.offset + start;
        let failed = |source| LoadError::Read {
            path: path.to_path_buf(),
            offset,
            source,
        };
        let bytes = into.len() as u64;
        observer.before_read(path, offset, bytes).map_err(failed)?;
        let read = self.files[index].read_exact_at(into, offset);
        read.map_err(|source| match source.kind() {
            std::io::ErrorKind::UnexpectedEof => LoadError::Truncated {
                path: path.to_path_buf(),
                offset,
                missing: bytes,
            },
            _ => failed(source),
        })
    }

    /// Computes a stretch of one tensor.
    fn stretch(
        &self,
        at: usize,
        start: u64,
        into: &mut [u8],
        observer: &dyn LoadObserver,
    ) -> Result<(), LoadError> {
        let tensor = &self.recipe.base.tensors()[self.recipe.tensors[at].index];
        let old = tensor.bytes.saturating_sub(start).min(into.len() as u64);
        if old > 0 {
            self.read(tensor, start, &mut into[..old as usize], observer)?;
        }
        let changes = self.changes(at, observer)?;
        let terms = changes.iter();
        let terms = terms.map(|(factors, strength)| Term {
            factors,
            strength: *strength,
        });
        let terms: Vec<Term<'_>> = terms.collect();
        let failed = |error: MergeError| self.failed(at, error.to_string());
        let merge = Merge::new(tensor.dtype, &tensor.shape, &terms).map_err(failed)?;
        let non_finite = merge.run(start, into).map_err(failed)?;
        if non_finite > 0 {
            let type_of = tensor.dtype;
            return Err(self.failed(
                at,
                format!(
                    "{non_finite} of its numbers are beyond {type_of}, or none; give smaller \
                     strengths, or take the patch beside the weights"
                ),
            ));
        }
        Ok(())
    }
}

impl Compute for AtWork {
    fn compute(
        &self,
        mut offset: u64,
        mut into: &mut [u8],
        observer: &dyn LoadObserver,
    ) -> Result<(), LoadError> {
        let tensors = &self.recipe.tensors;
        let after = tensors.partition_point(|tensor| tensor.offset <= offset);
        let mut at = after.saturating_sub(1);
        while !into.is_empty() {
            let Some(tensor) = tensors.get(at) else {
                return Ok(());
            };
            let start = offset - tensor.offset;
            let part = (tensor.bytes - start).min(into.len() as u64);
            let (stretch, rest) = into.split_at_mut(part as usize);
            if part > 0 {
                self.stretch(at, start, stretch, observer)?;
            }
            into = rest;
            offset += part;
            at += 1;
        }
        Ok(())
    }

    fn still_the_same(&self) -> Result<(), LoadError> {
        let (base, patches) = self.files.split_at(self.base_files);
        still_the_same(self.recipe.base.files(), base)?;
        let known = self.model.files();
        still_the_same(&known[self.base_files..], patches)
    }
}
