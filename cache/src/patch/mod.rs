//! Patches: files that change the weights of other models, which LoRAs and embeddings do.
//!
//! [`Patch::open`] reads headers, and sorts the tensors of a file into parts by their names.
//! [`Patch::fit`] finds which tensors of a model each part changes. [`Factors`] are the matrices of
//! one change, read from the file, and [`Merge`] makes new weights of them and the old ones, stretch
//! by stretch.
//!
//! | file | what it has |
//! |---|---|
//! | `keys.rs` | what names mean, and who writes them |
//! | `settings.rs` | alpha, where it is said in metadata |
//! | `parts.rs` | which matrices belong together |
//! | `names.rs` | finding a model's tensor by the name that a patch has for it |
//! | `unet.rs` | the two names that modules of UNets have |
//! | `fit.rs`, `places.rs` | which tensors a patch changes, and into what shape |
//! | `factors.rs` | the matrices of a change |
//! | `scale.rs` | how strongly a change is made by the patch itself |
//! | `recipe.rs` | merged tensors as a model of their own, computed when it is loaded |
//! | `merge.rs`, `merge/` | new weights of old ones and changes |
//! | `element.rs`, `lanes.rs` | numbers widened and rounded once, in the widest registers |
//! | `error.rs`, `merge_error.rs`, `unmatched.rs` | what went wrong, what fits nothing |

mod element;
mod error;
mod factors;
mod fit;
mod keys;
mod lanes;
mod merge;
mod merge_error;
mod names;
mod parts;
mod places;
mod recipe;
mod scale;
mod settings;
mod unet;
mod unmatched;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

pub use error::{Broken, Fault, FitError, PatchError};
pub use factors::Factors;
pub use fit::{Change, Edit, Fit, Strictness};
pub use keys::Unsupported;
pub use merge::{Base, Merge, Merged, Term, merged};
pub use merge_error::MergeError;
pub use unmatched::{Unmatched, Why};

pub(crate) use recipe::{Fitted, merged_model, patched_name};
pub(crate) use scale::scale_of;

use crate::model::Model;
use parts::Parts;

/// A file that changes the weights of other models, known by its header.
///
/// Clones are the same patch.
#[derive(Debug, Clone)]
pub struct Patch {
    model: Model,
    parts: Arc<Parts>,
    only: Option<Component>,
    embedding: Option<Arc<str>>,
}

/// Which of the models that work together a part of a patch is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Component {
    /// The UNet or transformer that denoises.
    Denoiser,
    /// A text encoder, counted from 1 as diffusers and kohya-ss do.
    TextEncoder(u8),
    /// It is not said.
    Any,
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Component::Denoiser => f.write_str("the denoiser"),
            Component::TextEncoder(number) => write!(f, "text encoder {number}"),
            Component::Any => f.write_str("any model"),
        }
    }
}

/// Where the alpha of a low-rank change is said.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Alpha {
    /// In a tensor of the patch, by its index.
    Tensor(usize),
    /// In the metadata, or in PEFT's `adapter_config.json` beside the file.
    Said(f64),
    /// Nowhere. Then it is the rank, as ComfyUI and diffusers take it, and nothing is scaled.
    Unsaid,
}

/// How a low-rank change is scaled before any strength.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    /// Where alpha is said.
    pub alpha: Alpha,
    /// The rank of the factors, at least 1.
    pub rank: usize,
    /// Whether alpha is divided by the root of the rank and not by the rank (rsLoRA,
    /// arXiv:2312.03732).
    pub is_rank_stabilised: bool,
}

impl Scale {
    /// The factor itself, for the alpha that was found where [`alpha`](Self::alpha) says.
    #[must_use]
    pub fn factor(&self, alpha: Option<f64>) -> f64 {
        let rank = self.rank as f64;
        let divisor = match self.is_rank_stabilised {
            true => rank.sqrt(),
            false => rank,
        };
        alpha.map_or(1.0, |alpha| alpha / divisor)
    }
}

impl PartialEq for Patch {
    fn eq(&self, other: &Patch) -> bool {
        self.is(other)
    }
}

impl Patch {
    /// Opens the file of a patch, in any format that [`Model::open`] reads. Reads headers, and
    /// `adapter_config.json` beside the file where that says the alpha.
    ///
    /// # Errors
    /// A [`PatchError`] if it cannot be opened, is no patch, is of a kind that is not applied, or
    /// contradicts itself.
    pub fn open(path: impl AsRef<Path>) -> Result<Patch, PatchError> {
        Patch::of(&Model::open(path)?)
    }

    /// The same for a file that was opened.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn of(model: &Model) -> Result<Patch, PatchError> {
        Ok(Patch {
            model: model.clone(),
            parts: Arc::new(parts::parts(model)?),
            only: None,
            embedding: None,
        })
    }

    /// The file as a model: its tensors are what [`Change`] counts.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// How many parts it has, each of which changes one tensor or adds to it.
    #[must_use]
    pub fn parts(&self) -> usize {
        self.parts
            .parts
            .iter()
            .filter(|part| self.takes(part.component))
            .count()
    }

    /// The components it is for, each once.
    #[must_use]
    pub fn components(&self) -> Vec<Component> {
        let parts = self.parts.parts.iter().map(|part| part.component);
        let mut components: Vec<Component> =
            parts.filter(|component| self.takes(*component)).collect();
        components.sort_unstable();
        components.dedup();
        components
    }

    /// The same patch without its parts for other components. Parts that do not say what they are
    /// for stay.
    #[must_use]
    pub fn only(&self, component: Component) -> Patch {
        Patch {
            only: Some(component),
            ..self.clone()
        }
    }

    /// The same patch, whose rows go to the end of that tensor of the model, and not to the
    /// embedding of its width.
    #[must_use]
    pub fn with_embedding(&self, tensor: &str) -> Patch {
        Patch {
            embedding: Some(tensor.into()),
            ..self.clone()
        }
    }

    /// Whether both are the same file, opened once, and take the same of it.
    fn is(&self, other: &Patch) -> bool {
        self.model.id() == other.model.id()
            && self.only == other.only
            && self.embedding == other.embedding
    }

    fn takes(&self, component: Component) -> bool {
        let only = self.only.unwrap_or(component);
        component == Component::Any || component == only
    }
}
