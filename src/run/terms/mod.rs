//! What leases ask for besides models: patches, and making do with a part.

mod said;

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use malloc_stats::Size;
use plimsoll_cache::model::escape_path;
use plimsoll_cache::patch::{Fit, FitError, Patch, Strictness};
use plimsoll_cache::{Model, Partial, Wanted};

pub(crate) use said::{As, Named, Share};

use super::Touch;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Larger files are no lists of tensors.
const LARGEST_ORDER: u64 = 64 << 20;

/// What is asked for, as the command line says it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    pub(crate) patches: Vec<Named>,
    pub(crate) patch_as: As,
    pub(crate) lenient: bool,
    pub(crate) partial: Option<Share>,
    pub(crate) required: Vec<String>,
    pub(crate) order: Option<PathBuf>,
}

/// What leases ask for, model by model.
#[derive(Debug)]
pub(crate) struct Terms {
    asked: Asked,
    models: Vec<OfModel>,
}

#[derive(Debug, Default)]
struct OfModel {
    patches: Vec<(Patch, f64)>,
    /// The tensors that they change.
    changed: BTreeSet<usize>,
    partial: Option<Partial>,
    /// The tensors in the order in which they are touched.
    order: Option<Arc<[String]>>,
}

/// What is asked for, its files open.
#[derive(Debug)]
pub(crate) struct Opened {
    asked: Asked,
    patches: Vec<Patch>,
    order: Option<Vec<String>>,
}

impl Opened {
    /// Finds which models it is for.
    pub(crate) fn of(self, models: &[Model], touch: Touch) -> Result<Terms, Failure> {
        let Opened {
            asked,
            patches,
            order,
        } = self;
        let mut all: Vec<OfModel> = models.iter().map(|_| OfModel::default()).collect();
        for (named, patch) in asked.patches.iter().zip(&patches) {
            let taken = fitting(patch, models, asked.lenient)?;
            for (at, fit) in taken {
                let of_model = &mut all[at];
                of_model.patches.push((patch.clone(), named.strength));
                let changed = fit.edits.iter().map(|edit| edit.target);
                of_model.changed.extend(changed);
            }
        }
        if let Some(order) = &order {
            let known = |name: &&String| models.iter().any(|model| model.tensor(name).is_some());
            if let Some(unknown) = order.iter().find(|name| !known(name)) {
                let path = asked.order.as_deref().unwrap_or(Path::new(""));
                return Err(format!(
                    "{}: no model has a tensor `{}`; one name a line, in the order of use",
                    escape_path(path),
                    unknown.escape_debug()
                )
                .into());
            }
        }
        for (model, of_model) in models.iter().zip(&mut all) {
            of_model.order = order_of(model, order.as_deref(), touch);
            let Some(share) = asked.partial else {
                continue;
            };
            let required = asked.required.iter().filter(|name| has(model, name));
            let mut partial = Partial::at_least(required.cloned());
            if let Some(order) = &of_model.order {
                partial = partial.in_order(order.iter().cloned());
            }
            of_model.partial = Some(match share {
                Share::Auto => partial,
                Share::Bytes(bytes) => partial.up_to(bytes),
                Share::Percent(percent) => {
                    partial.up_to((model.bytes() as f64 * percent / 100.0) as u64)
                }
            });
        }
        let unknown = |name: &&String| !models.iter().any(|model| has(model, name));
        if let Some(name) = asked.required.iter().find(unknown) {
            return Err(format!(
                "--at-least {}: no model has such a tensor",
                name.escape_debug()
            )
            .into());
        }
        Ok(Terms { asked, models: all })
    }
}

impl Asked {
    /// Opens what is named.
    pub(crate) fn open(self) -> Result<Opened, Failure> {
        let patches = self.patches.iter().map(|named| Patch::open(&named.path));
        Ok(Opened {
            patches: patches.collect::<Result<_, _>>()?,
            order: self.order.as_deref().map(read_order).transpose()?,
            asked: self,
        })
    }

    /// What is wrong with the options, if anything is.
    pub(crate) fn fault(&self) -> Option<String> {
        let without = |option: &str, of: &str| {
            Some(format!(
                "{option} says nothing without {of}, which was not given"
            ))
        };
        if self.partial.is_none() && !self.required.is_empty() {
            return without("--at-least", "--partial");
        }
        if self.partial.is_none() && self.order.is_some() {
            return without("--order", "--partial");
        }
        if self.patches.is_empty() && self.patch_as != As::Auto {
            return without("--patch-as", "--patch");
        }
        if self.patches.is_empty() && self.lenient {
            return without("--patch-lenient", "--patch");
        }
        None
    }
}

impl Terms {
    /// Asks for a model on these terms.
    pub(crate) fn ask<'a>(&self, model: usize, mut wanted: Wanted<'a>) -> Wanted<'a> {
        let Some(of_model) = self.models.get(model) else {
            return wanted;
        };
        for (patch, strength) in &of_model.patches {
            wanted = wanted.with(patch, *strength);
        }
        if self.asked.lenient {
            wanted = wanted.lenient();
        }
        wanted = match self.asked.patch_as {
            As::Auto => wanted,
            As::Merged => wanted.merged(),
            As::Beside => wanted.beside(),
        };
        match &of_model.partial {
            Some(partial) => wanted.partial(partial.clone()),
            None => wanted,
        }
    }

    /// What merging a model's patches takes besides it, about: bytes.
    pub(crate) fn patched_bytes(&self, models: &[Model], at: usize) -> u64 {
        let changed = self.models.get(at).map(|of_model| &of_model.changed);
        let tensors = models[at].tensors();
        let bytes = changed.into_iter().flatten().map(|at| tensors[*at].bytes);
        // And what their alignment takes.
        let margin = |bytes: u64| bytes + bytes / 8 + (64 << 10);
        match bytes.fold(0, u64::saturating_add) {
            0 => 0,
            bytes => margin(bytes),
        }
    }

    /// Whether models are leased in part.
    pub(crate) fn is_partial(&self) -> bool {
        self.asked.partial.is_some()
    }

    /// The order in which a model's tensors are touched, where that is said.
    pub(crate) fn order(&self, model: usize) -> Option<&[String]> {
        self.models.get(model)?.order.as_deref()
    }

    /// What was asked for, by the names of the options; what was not is left out.
    pub(crate) fn options(&self) -> Vec<(&'static str, String)> {
        let mut options = Vec::new();
        let asked = &self.asked;
        if !asked.patches.is_empty() {
            let all: Vec<String> = asked.patches.iter().map(ToString::to_string).collect();
            options.push(("patch", all.join(" ")));
            let how = match asked.patch_as {
                As::Auto => "auto",
                As::Merged => "merged",
                As::Beside => "beside",
            };
            options.push(("patch-as", how.to_owned()));
        }
        if let Some(share) = asked.partial {
            options.push(("partial", share.to_string()));
        }
        if !asked.required.is_empty() {
            options.push(("at-least", asked.required.join(" ")));
        }
        if let Some(order) = &asked.order {
            options.push(("order", escape_path(order).to_string()));
        }
        options
    }
}

/// The models that a patch fits. One that fits a model wholly is for that, and for none that it fits in
/// part, as models of a family share names and shapes; where it fits none wholly, it takes leniency.
fn fitting(patch: &Patch, models: &[Model], lenient: bool) -> Result<Vec<(usize, Fit)>, Failure> {
    let mut wholly = Vec::new();
    let mut in_part = Vec::new();
    let mut misfit = None;
    for (at, model) in models.iter().enumerate() {
        match patch.fit(model, Strictness::Strict) {
            Ok(fit) => wholly.push((at, fit)),
            Err(error @ FitError::Unmatched { .. }) => {
                in_part.push(at);
                misfit = Some(error);
            }
            // That it fits in part says more.
            Err(error) => misfit = misfit.or(Some(error)),
        }
    }
    if !wholly.is_empty() {
        return Ok(wholly);
    }
    if lenient && !in_part.is_empty() {
        let fits = in_part.into_iter();
        let fits = fits.map(|at| Ok((at, patch.fit(&models[at], Strictness::Lenient)?)));
        return fits.collect();
    }
    let way_out = match in_part.is_empty() {
        true => "",
        false => " with --patch-lenient",
    };
    let besides = match models.len() {
        0 | 1 => String::new(),
        count => format!(" (nor the {} other models here)", count - 1),
    };
    Err(match misfit {
        Some(misfit) => format!("{misfit}{way_out}{besides}").into(),
        None => "there is no model to patch".into(),
    })
}

/// Whether a model has a tensor of that name, or one that begins so where it ends in `*`.
fn has(model: &Model, name: &str) -> bool {
    model.tensor(name).is_some()
        || name.strip_suffix('*').is_some_and(|prefix| {
            let mut tensors = model.tensors().iter();
            tensors.any(|tensor| tensor.name.starts_with(prefix))
        })
}

/// The order in which a model's tensors are touched, where that is not the file's.
fn order_of(model: &Model, said: Option<&[String]>, touch: Touch) -> Option<Arc<[String]>> {
    let names = || model.tensors().iter().map(|tensor| tensor.name.to_string());
    if let Some(said) = said {
        let known = said.iter().filter(|name| model.tensor(name).is_some());
        let mut order: Vec<String> = known.cloned().collect();
        let listed: HashSet<String> = order.iter().cloned().collect();
        order.extend(names().filter(|name| !listed.contains(name)));
        return Some(order.into());
    }
    (touch == Touch::Checksum).then(|| {
        let mut order: Vec<String> = names().collect();
        order.sort_unstable();
        order.into()
    })
}

/// Names of tensors, one a line.
fn read_order(path: &Path) -> Result<Vec<String>, Failure> {
    let wrong = |what: String| Failure::from(format!("{}: {what}", escape_path(path)));
    let meta = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?;
    if !meta.is_file() {
        return Err(wrong("not a regular file".to_owned()));
    }
    if meta.len() > LARGEST_ORDER {
        let most = Size(LARGEST_ORDER);
        let found = Size(meta.len());
        return Err(wrong(format!(
            "{found} is no list of tensors; at most {most} are read"
        )));
    }
    let text = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let text = String::from_utf8(text).map_err(|_| wrong("not UTF-8".to_owned()))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let names: Vec<String> = lines.map(str::to_owned).collect();
    match names.is_empty() {
        true => Err(wrong(
            "no name in it; one a line, in the order of use".to_owned(),
        )),
        false => Ok(names),
    }
}
