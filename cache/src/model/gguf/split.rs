//! GGUF models in several files, as `llama-gguf-split` makes them: `model-00001-of-00003.gguf` and
//! so on, each a GGUF file that says which part it is and holds some of the tensors. The first
//! stands for all, and alone has the metadata.

use std::fs::File;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::fault::GgufFault;
use super::parse::{GgufHeader, MOST_TENSORS, once};
use super::read_header;
use crate::model::error::OpenError;
use crate::model::escape::escape_path;
use crate::model::file::{FileIdentity, open_regular};
use crate::model::names::{NameIndex, Twice};
use crate::model::summary::total_bytes;
use crate::model::tensor::TensorInfo;
use crate::model::{Format, ModelFile, Parts};

/// Why the parts of a split model are none.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SplitFault {
    /// It is not the first part.
    #[error(
        "is part {part} of {parts} of a model; open the first, {}",
        first.as_deref().map_or_else(|| "of which its name does not tell the name".to_owned(), |path| escape_path(path).to_string())
    )]
    NotFirst {
        /// Which it is, from 1.
        part: u64,
        /// How many there are.
        parts: u64,
        /// The first, if the name tells.
        first: Option<Box<Path>>,
    },

    /// It is the first of several, and its name does not tell how the others are called.
    #[error(
        "is the first of {parts} parts of a model, and its name does not end with `-00001-of-{parts:05}.gguf`, by which the others are found; give all of them the names they had"
    )]
    Named {
        /// How many there are.
        parts: u64,
    },

    /// A part is not there.
    #[error(
        "is the first of {parts} parts of a model, of which part {part}, {}, is missing; download that file, or restore it",
        escape_path(missing)
    )]
    Missing {
        /// Which it is, from 1.
        part: u64,
        /// How many there are.
        parts: u64,
        /// Where it should be.
        missing: Box<Path>,
    },

    /// A file does not say that it is the part that its name says.
    #[error(
        "should be part {part} of {parts} of a model, and says that it is {}; the parts are of different models, or were renamed: download them again",
        said(*number, *count)
    )]
    OtherPart {
        /// Which it should be, from 1.
        part: u64,
        /// How many there are.
        parts: u64,
        /// Which it says that it is, from 0.
        number: Option<u64>,
        /// How many it says there are.
        count: Option<u64>,
    },

    /// All parts together have other tensors than the first says.
    #[error(
        "says that its {parts} parts have {says} tensors, and they have {have}; the parts are of different models: download them again"
    )]
    Tensors {
        /// How many parts there are.
        parts: u64,
        /// How many tensors there should be.
        says: u64,
        /// How many there are.
        have: u64,
    },
}

fn said(number: Option<u64>, count: Option<u64>) -> String {
    match (number, count) {
        (Some(number), Some(count)) => {
            format!("part {} of {count}", number.saturating_add(1))
        }
        _ => "no part".to_owned(),
    }
}

/// What the name of a part tells: `model-00001-of-00003.gguf`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::model) struct PartName {
    /// What the names of all parts begin with.
    pub(in crate::model) prefix: String,
    /// Which part, from 1.
    pub(in crate::model) part: u64,
    /// How many.
    pub(in crate::model) parts: u64,
}

impl PartName {
    /// What a file name tells, if it is one of a part.
    pub(in crate::model) fn of(file_name: &str) -> Option<PartName> {
        let (dot, _) = file_name.rmatch_indices('.').next()?;
        let (stem, extension) = file_name.split_at(dot);
        if !extension.eq_ignore_ascii_case(".gguf") {
            return None;
        }
        let (rest, parts) = stem.rsplit_once("-of-")?;
        let (prefix, part) = rest.rsplit_once('-')?;
        let number = |digits: &str| {
            let is_one = digits.len() == 5 && digits.bytes().all(|byte| byte.is_ascii_digit());
            is_one.then(|| digits.parse::<u64>().ok()).flatten()
        };
        let (part, parts) = (number(part)?, number(parts)?);
        (1..=parts).contains(&part).then(|| PartName {
            prefix: prefix.to_owned(),
            part,
            parts,
        })
    }

    /// The path of another part, beside the one at `path`.
    fn beside(&self, path: &Path, part: u64) -> PathBuf {
        let Self { prefix, parts, .. } = self;
        let extension = path.extension().unwrap_or_default().to_string_lossy();
        path.with_file_name(format!("{prefix}-{part:05}-of-{parts:05}.{extension}"))
    }
}

/// Opens a GGUF file, with the other parts of its model where there are any.
pub(in crate::model) fn open(
    path: &Path,
    file: &File,
    identity: FileIdentity,
) -> Result<Parts, OpenError> {
    let header = read_header(path, file, &identity)?;
    let first = ModelFile::new(path, identity, header.data_offset);
    let Some(parts) = header.split.count.filter(|parts| *parts > 1) else {
        let names = once(&header.tensors).map_err(|fault| OpenError::gguf(path, fault))?;
        return Ok(Parts {
            bytes: total_bytes(&header.tensors),
            files: vec![first].into(),
            tensors: header.tensors.into(),
            names,
            unmapped: 0,
            format: Format::Gguf,
            metadata: header.metadata,
        });
    };
    join(path, first, header, parts)
}

fn join(path: &Path, first: ModelFile, header: GgufHeader, parts: u64) -> Result<Parts, OpenError> {
    let refuse = |fault| Err(OpenError::split(path, fault));
    // A name that is not UTF-8 leads to no other file.
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name
        .and_then(PartName::of)
        .filter(|name| name.parts == parts);
    if let Some(number) = header.split.number.filter(|number| *number > 0) {
        if let Some(PartName { part: 1, .. }) = name {
            return refuse(SplitFault::OtherPart {
                part: 1,
                parts,
                number: Some(number),
                count: Some(parts),
            });
        }
        return refuse(SplitFault::NotFirst {
            part: number.saturating_add(1),
            parts,
            first: name.map(|name| name.beside(path, 1).into()),
        });
    }
    let Some(name) = name.filter(|name| name.part == 1) else {
        return refuse(SplitFault::Named { parts });
    };
    let mut files = vec![first];
    let mut tensors = header.tensors;
    for part in 2..=parts {
        let beside = name.beside(path, part);
        let (part_header, identity) = read_part(path, &beside, part, parts)?;
        files.push(ModelFile::new(&beside, identity, part_header.data_offset));
        let before = tensors.len() as u32;
        if u64::from(before) + part_header.tensors.len() as u64 > MOST_TENSORS {
            return Err(OpenError::gguf(&beside, GgufFault::LongTable));
        }
        tensors.extend(part_header.tensors.into_iter().map(|tensor| TensorInfo {
            file: (part - 1) as u32,
            tied_to: tensor.tied_to.map(|tied| tied + before),
            ..tensor
        }));
    }
    let have = tensors.len() as u64;
    if let Some(says) = header.split.tensors.filter(|says| *says != have) {
        return refuse(SplitFault::Tensors { parts, says, have });
    }
    let names = NameIndex::new(&tensors[..]).map_err(|Twice(first, second)| {
        let tensor = tensors[first].name.clone();
        let [first, second] = [first, second].map(|at| tensors[at].file as usize);
        if first == second {
            let fault = GgufFault::DuplicateName { tensor };
            return OpenError::gguf(&files[first].path, fault);
        }
        OpenError::TwoShards {
            path: path.into(),
            tensor,
            first: files[first].path.clone(),
            second: files[second].path.clone(),
        }
    })?;
    Ok(Parts {
        bytes: total_bytes(&tensors),
        files: files.into(),
        tensors: tensors.into(),
        names,
        unmapped: 0,
        format: Format::Gguf,
        metadata: header.metadata,
    })
}

/// Reads the header of another part than the first, which is at `first`.
fn read_part(
    first: &Path,
    path: &Path,
    part: u64,
    parts: u64,
) -> Result<(GgufHeader, FileIdentity), OpenError> {
    let (file, identity) = open_regular(path).map_err(|error| match error {
        error if error.is_absence() => OpenError::split(
            first,
            SplitFault::Missing {
                part,
                parts,
                missing: path.into(),
            },
        ),
        error => error,
    })?;
    let header = read_header(path, &file, &identity)?;
    let (number, count) = (header.split.number, header.split.count);
    if (number, count) != (Some(part - 1), Some(parts)) {
        return Err(OpenError::split(
            path,
            SplitFault::OtherPart {
                part,
                parts,
                number,
                count,
            },
        ));
    }
    Ok((header, identity))
}
