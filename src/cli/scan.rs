//! `plimsoll scan`: the models in files and folders, and whether they fit here.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use malloc_stats::{Grade, Limits, Metric, Size, Vram, gpu};
use plimsoll_cache::Model;
use plimsoll_cache::model::{discover, escape, escape_path};
use plimsoll_tui::paint::{Paint, Tone, safe};
use plimsoll_tui::table::{Align, Table};
use serde::{Serialize, Serializer};

use super::{BAD_INPUT, Done, FAILED};
use crate::output::{Output, complain};

/// List the models in files and folders, and whether they fit here.
#[derive(Debug, Args)]
#[command(after_help = "\
Only headers are read. Folders are searched 16 deep; an index stands for its shards.

Columns:
  alignment    the power of two that divides every tensor's place in its file
  misaligned   tensors that cannot be used in place, because their type needs more
  RAM, VRAM    whether the weights fit into what is free now: ~ is an estimate,
               `maybe` that at most enough is free, n/a that it is not known

Exit codes:
  0  every path had models, and all can be read
  1  some files in a folder cannot be read
  2  a path cannot be used, or there are no models

Examples:
  plimsoll scan ~/models
  plimsoll scan unet.safetensors --json")]
pub(crate) struct Scan {
    /// Files of models, and folders to search
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What is free here.
#[derive(Debug, Serialize)]
struct Room {
    /// Of RAM, within the limits of this process.
    ram: Metric,
    /// What bounds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    ram_bound: Option<String>,
    vram: Vec<Vram>,
    /// Why nothing is known of VRAM.
    #[serde(skip_serializing_if = "Option::is_none")]
    vram_unavailable: Option<String>,
}

impl Room {
    fn here() -> Self {
        let tightest = Limits::of_self().tightest();
        let (vram, vram_unavailable) = match gpu::read() {
            Ok(vram) => (vram, None),
            Err(reason) => (Vec::new(), Some(reason)),
        };
        Self {
            ram: tightest
                .as_ref()
                .map_or(Metric::Unavailable, |tightest| tightest.headroom),
            ram_bound: tightest.map(|tightest| tightest.bound.to_string()),
            vram,
            vram_unavailable,
        }
    }

    /// The GPU with the most free memory: a model that fits nowhere else fits there.
    fn roomiest(&self) -> Metric {
        let free = self.vram.iter().map(|vram| vram.free);
        free.max_by_key(|free| free.bytes()).unwrap_or_default()
    }
}

/// Whether something fits, as far as can be told. `fits` is absent where that is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Fit {
    #[serde(skip_serializing_if = "Option::is_none")]
    fits: Option<bool>,
    grade: Grade,
}

impl Fit {
    fn of(bytes: u64, free: Metric) -> Self {
        let fits = free.bytes().map(|free| bytes <= free);
        let grade = match (free.grade(), fits) {
            // What exceeds even an upper bound does not fit, and nothing is estimated about that.
            (Grade::Upper, Some(false)) => Grade::Exact,
            (grade, _) => grade,
        };
        Self { fits, grade }
    }

    fn text(self) -> &'static str {
        match (self.fits, self.grade) {
            (None, _) => "n/a",
            (Some(true), Grade::Upper) => "maybe",
            (Some(true), Grade::Estimated) => "~yes",
            (Some(false), Grade::Estimated) => "~no",
            (Some(true), _) => "yes",
            (Some(false), _) => "no",
        }
    }
}

#[derive(Debug, Serialize)]
struct Found {
    name: String,
    #[serde(serialize_with = "as_text")]
    path: PathBuf,
    /// `safetensors`, or `sharded` for an index of several such files.
    format: &'static str,
    shards: usize,
    dtypes: Vec<Share>,
    tensors: usize,
    bytes: u64,
    largest_tensor_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    alignment: Option<u64>,
    misaligned: usize,
    /// Tensors in shards that the index does not name.
    unmapped: usize,
    ram: Fit,
    vram: Fit,
    #[serde(skip)]
    dtype_mix: String,
}

#[derive(Debug, Serialize)]
struct Share {
    dtype: String,
    tensors: usize,
    bytes: u64,
}

impl Found {
    fn new(model: &Model, room: &Room) -> Self {
        let summary = model.summary();
        let sharded = model
            .path()
            .extension()
            .is_some_and(|extension| extension == "json");
        let shares = summary.dtypes.iter().map(|share| Share {
            dtype: share.dtype.to_string(),
            tensors: share.tensors,
            bytes: share.bytes,
        });
        Self {
            name: model.name().to_owned(),
            path: model.path().to_owned(),
            format: if sharded { "sharded" } else { "safetensors" },
            shards: model.files().len(),
            dtypes: shares.collect(),
            tensors: summary.tensors,
            bytes: summary.bytes,
            largest_tensor_bytes: summary.largest,
            alignment: summary.alignment,
            misaligned: summary.misaligned,
            unmapped: summary.unmapped,
            ram: Fit::of(summary.bytes, room.ram),
            vram: Fit::of(summary.bytes, room.roomiest()),
            dtype_mix: summary.dtype_mix().to_string(),
        }
    }
}

/// A file that cannot be read, or a path that cannot be used.
#[derive(Debug, Serialize)]
struct Bad {
    #[serde(serialize_with = "as_text")]
    path: PathBuf,
    error: String,
}

/// A model in a format that is not read.
#[derive(Debug, Serialize)]
struct Other {
    #[serde(serialize_with = "as_text")]
    path: PathBuf,
    format: &'static str,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct Report {
    free: Room,
    models: Vec<Found>,
    /// Files in folders that cannot be read.
    bad: Vec<Bad>,
    /// Models in formats that are not read.
    other: Vec<Other>,
    /// Paths that were given and cannot be used.
    unusable: Vec<Bad>,
}

impl Report {
    fn of(paths: &[PathBuf], free: Room) -> Self {
        let mut report = Self {
            free,
            models: Vec::new(),
            bad: Vec::new(),
            other: Vec::new(),
            unusable: Vec::new(),
        };
        for path in paths {
            report.add(path);
        }
        report
    }

    fn add(&mut self, path: &Path) {
        let found = match discover(path) {
            Ok(found) => found,
            Err(error) => return self.unusable.push(bad(path, &error)),
        };
        if found.entries.is_empty() {
            let what = match &found.other[..] {
                [other] if other.path == path => {
                    format!(
                        "is {}, which is not read; convert it to safetensors",
                        other.format
                    )
                }
                _ => {
                    "no models here; looked for .safetensors and .safetensors.index.json".to_owned()
                }
            };
            self.unusable
                .push(bad(path, format!("{}: {what}", escape_path(path))));
        }
        for entry in found.entries {
            match entry.model {
                Ok(model) => self.models.push(Found::new(&model, &self.free)),
                Err(error) if entry.path == path => self.unusable.push(bad(path, &error)),
                Err(error) => self.bad.push(bad(&entry.path, &error)),
            }
        }
        self.other.extend(
            found
                .other
                .into_iter()
                .filter(|other| other.path != path)
                .map(|other| Other {
                    path: other.path,
                    format: other.format,
                    bytes: other.bytes,
                }),
        );
    }

    fn exit_code(&self) -> ExitCode {
        if !self.unusable.is_empty() || self.models.is_empty() {
            ExitCode::from(BAD_INPUT)
        } else if !self.bad.is_empty() {
            ExitCode::from(FAILED)
        } else {
            ExitCode::SUCCESS
        }
    }

    fn text(&self, paint: &Paint) -> String {
        let mut parts = Vec::new();
        if !self.models.is_empty() {
            parts.push(format!("{}\n{}", self.table(), self.notes()));
        }
        if !self.bad.is_empty() {
            let lines = self.bad.iter().map(|bad| format!("  {}\n", bad.error));
            let heading = paint.tone(Tone::Bad, "cannot be read");
            parts.push(format!("{heading}\n{}", lines.collect::<String>()));
        }
        if !self.other.is_empty() {
            let lines = self.other.iter().map(|other| {
                let (path, size) = (escape_path(&other.path), Size(other.bytes));
                format!("  {path}: {}, {size}\n", other.format)
            });
            let heading = paint.tone(Tone::Warn, "not read by Plimsoll, convert to safetensors");
            parts.push(format!("{heading}\n{}", lines.collect::<String>()));
        }
        parts.join("\n")
    }

    fn table(&self) -> Table {
        let mut names: HashMap<&str, usize> = HashMap::new();
        for model in &self.models {
            *names.entry(&model.name).or_default() += 1;
        }
        let mut table = Table::new([
            ("model", Align::Left),
            ("format", Align::Left),
            ("shards", Align::Right),
            ("dtypes", Align::Left),
            ("tensors", Align::Right),
            ("bytes", Align::Right),
            ("alignment", Align::Right),
            ("misaligned", Align::Right),
            ("RAM", Align::Left),
            ("VRAM", Align::Left),
        ]);
        for model in &self.models {
            // Models of two of the given paths may have one name.
            let unique = names.get(&*model.name) == Some(&1);
            table.row([
                if unique {
                    escape(&model.name)
                } else {
                    escape_path(&model.path)
                }
                .to_string(),
                model.format.to_owned(),
                model.shards.to_string(),
                model.dtype_mix.clone(),
                model.tensors.to_string(),
                Size(model.bytes).to_string(),
                model
                    .alignment
                    .map_or_else(|| "-".to_owned(), |bytes| Size(bytes).to_string()),
                model.misaligned.to_string(),
                model.ram.text().to_owned(),
                model.vram.text().to_owned(),
            ]);
        }
        table
    }

    fn notes(&self) -> String {
        let total = self
            .models
            .iter()
            .fold(0, |sum: u64, model| sum.saturating_add(model.bytes));
        let bound = self
            .free
            .ram_bound
            .as_deref()
            .unwrap_or("nothing that could be read");
        let mut notes = format!(
            "{} models, {}\nfree RAM:  {}, by {}\n",
            self.models.len(),
            Size(total),
            self.free.ram,
            safe(bound)
        );
        for vram in &self.free.vram {
            notes += &format!(
                "free VRAM: {} on GPU {}, {}\n",
                vram.free,
                vram.index,
                safe(&vram.name)
            );
        }
        if let Some(reason) = &self.free.vram_unavailable {
            notes += &format!("free VRAM: n/a, {}\n", safe(reason));
        }
        for model in self.models.iter().filter(|model| model.unmapped > 0) {
            notes += &format!(
                "{}: {} tensors in its shards are not named by the index, and left out\n",
                escape(&model.name),
                model.unmapped
            );
        }
        notes
    }
}

/// A path that is not UTF-8 is no error in a report.
fn as_text<S: Serializer>(path: &Path, json: S) -> Result<S::Ok, S::Error> {
    json.serialize_str(&path.to_string_lossy())
}

fn bad(path: &Path, error: impl ToString) -> Bad {
    Bad {
        path: path.to_owned(),
        error: error.to_string(),
    }
}

pub(crate) fn run(options: &Scan) -> Done {
    let output = Output::new(options.json);
    let report = Report::of(&options.paths, Room::here());
    if options.json {
        output.value(&report)?;
    } else {
        output.text(&report.text(&output.paint))?;
    }
    for bad in &report.unusable {
        complain(&bad.error);
    }
    Ok(report.exit_code())
}

#[cfg(test)]
mod tests;
