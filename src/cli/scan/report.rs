//! What is found at the paths that were given.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use plimsoll_cache::model::{discover, escape_path};
use serde::Serialize;

use super::fit::Room;
use super::found::{Found, as_text};
use super::progress::{Bar, searching};
use crate::cli::{BAD_INPUT, FAILED};

/// A file that cannot be read, or a path that cannot be used.
#[derive(Debug, Serialize)]
pub(super) struct Bad {
    #[serde(serialize_with = "as_text")]
    path: PathBuf,
    pub(super) error: String,
}

impl Bad {
    fn new(path: &Path, error: impl ToString) -> Self {
        Self {
            path: path.to_owned(),
            error: error.to_string(),
        }
    }
}

/// A model in a format that is not read.
#[derive(Debug, Serialize)]
pub(super) struct Other {
    #[serde(serialize_with = "as_text")]
    pub(super) path: PathBuf,
    pub(super) format: &'static str,
    pub(super) bytes: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) free: Room,
    /// Sorted by path, as are the others.
    pub(super) models: Vec<Found>,
    /// Files in folders that cannot be read.
    pub(super) bad: Vec<Bad>,
    /// Models in formats that are not read.
    pub(super) other: Vec<Other>,
    /// Paths that were given and cannot be used.
    pub(super) unusable: Vec<Bad>,
}

impl Report {
    pub(super) fn of(paths: &[PathBuf], free: Room) -> Self {
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
        report.models.sort_by(|a, b| a.path.cmp(&b.path));
        report.bad.sort_by(|a, b| a.path.cmp(&b.path));
        report.other.sort_by(|a, b| a.path.cmp(&b.path));
        report
    }

    fn add(&mut self, path: &Path) {
        let found = match searching(path, || discover(path)) {
            Ok(found) => found,
            Err(error) => return self.unusable.push(Bad::new(path, &error)),
        };
        if found.entries.is_empty() {
            let what = match &found.other[..] {
                [other] if other.path == path => {
                    format!(
                        "is {}, which is not read; convert it to safetensors",
                        other.format
                    )
                }
                _ => "no models here; no file is safetensors or in another format that is read"
                    .to_owned(),
            };
            let error = format!("{}: {what}", escape_path(path));
            self.unusable.push(Bad::new(path, error));
        }
        let bar = Bar::new(found.entries.len());
        for entry in found.entries {
            bar.next(&entry.path);
            match entry.model {
                Ok(model) => self.models.push(Found::new(&model, &self.free)),
                Err(error) if entry.path == path => self.unusable.push(Bad::new(path, &error)),
                Err(error) => self.bad.push(Bad::new(&entry.path, &error)),
            }
        }
        drop(bar);
        let other = found.other.into_iter().filter(|other| other.path != path);
        self.other.extend(other.map(|other| Other {
            path: other.path,
            format: other.format,
            bytes: other.bytes,
        }));
    }

    pub(super) fn exit_code(&self) -> ExitCode {
        if !self.unusable.is_empty() || self.models.is_empty() {
            ExitCode::from(BAD_INPUT)
        } else if !self.bad.is_empty() {
            ExitCode::from(FAILED)
        } else {
            ExitCode::SUCCESS
        }
    }
}
