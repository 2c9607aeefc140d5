//! Which models: opened where they are, or made.

use std::path::Path;

use malloc_stats::Size;
use plimsoll_cache::Model;
use plimsoll_cache::model::{discover, escape_path};

use super::audience::bar;
use crate::output::Output;
use crate::synthetic;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Opens the models in a folder, or one file. All of them have to be good: a run over some of what
/// was asked for would answer another question.
pub(crate) fn open(path: &Path) -> Result<Vec<Model>, Error> {
    let found = discover(path)?;
    let mut models = Vec::new();
    let mut bad = Vec::new();
    for entry in found.entries {
        match entry.model {
            Ok(model) => models.push(model),
            Err(error) => bad.push(error.to_string()),
        }
    }
    match &bad[..] {
        [] => {}
        [one] => return Err(one.clone().into()),
        many => {
            let all = many.join("\n  ");
            return Err(format!("{} models cannot be opened:\n  {all}", many.len()).into());
        }
    }
    if models.is_empty() {
        if let [one] = &found.other[..]
            && one.path == path
        {
            return Err(format!(
                "{} is {}, which is not read here; convert it to safetensors",
                escape_path(path),
                one.format
            )
            .into());
        }
        let others: Vec<String> = found
            .other
            .iter()
            .take(8)
            .map(|other| format!("\n  {} is {}", escape_path(&other.path), other.format))
            .collect();
        return Err(format!(
            "{}: no models here; no file is safetensors or in another format that is read{}",
            escape_path(path),
            others.concat()
        )
        .into());
    }
    Ok(models)
}

/// The models of a run: there already, or still to be made.
pub(crate) enum Source {
    Found(Vec<Model>),
    Planned(synthetic::Plan),
}

impl Source {
    /// Their names, which are known before they are made.
    pub(crate) fn names(&self) -> Vec<String> {
        match self {
            Source::Found(models) => models.iter().map(|model| model.name().to_owned()).collect(),
            Source::Planned(plan) => {
                let stems = plan.models.iter().map(|model| &model.file_stem);
                stems.cloned().collect()
            }
        }
    }

    /// The models, made in the user's cache folder if they are not there.
    pub(crate) fn models(self, output: &Output) -> Result<Vec<Model>, Error> {
        match self {
            Source::Found(models) => Ok(models),
            Source::Planned(plan) => make(&plan, output),
        }
    }
}

fn make(plan: &synthetic::Plan, output: &Output) -> Result<Vec<Model>, Error> {
    let folder = synthetic::cache_dir()?;
    let total: u64 = plan.models.iter().map(|model| model.bytes).sum();
    let bar = bar(total, "making");
    let paths = synthetic::make(plan, &folder, &|bytes| bar.inc(bytes));
    let made = bar.position() > 0;
    bar.finish_and_clear();
    let paths = paths?;
    if made && !output.json {
        output.text(&format!(
            "made {} models, {}, in {} (`plimsoll run --clean` removes them)\n",
            plan.models.len(),
            Size(total),
            escape_path(&folder)
        ))?;
    }
    paths
        .iter()
        .map(|path| Model::open(path).map_err(Error::from))
        .collect()
}
