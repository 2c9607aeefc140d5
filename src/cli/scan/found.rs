//! What is said of one model.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use malloc_stats::{Metric, page_cache};
use plimsoll_cache::Storage;
use plimsoll_cache::model::{self, Model};
use plimsoll_cache::storage::in_place_bytes;
use serde::{Serialize, Serializer};

use super::fit::{Fit, Room};

/// Kernels before 6.5 tell only page by page what is cached: longer than this is not waited.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug, Serialize)]
pub(super) struct Found {
    pub(super) name: String,
    #[serde(serialize_with = "as_text")]
    pub(super) path: PathBuf,
    pub(super) format: &'static str,
    pub(super) kind: Kind,
    pub(super) shards: usize,
    pub(super) dtypes: Vec<Share>,
    pub(super) tensors: usize,
    /// Elements, of tied tensors once.
    pub(super) parameters: u64,
    /// Of its tensors, tied ones once.
    pub(super) bytes: u64,
    pub(super) largest_tensor_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) alignment: Option<u64>,
    pub(super) misaligned: usize,
    /// Tensors in shards that the index does not name.
    pub(super) unmapped: usize,
    /// Of its bytes, those that mapped storage can use where they lie.
    pub(super) in_place_bytes: u64,
    pub(super) page_cache: Cached,
    /// What it counts in RAM, by storage.
    pub(super) storage: Charges,
    /// As anonymous storage, which is the default.
    pub(super) ram: Fit,
    pub(super) vram: Fit,
    #[serde(skip)]
    pub(super) dtype_mix: String,
    /// The whole answer, for print.
    #[serde(skip)]
    pub(super) what: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Kind {
    pub(super) role: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) family: Option<String>,
    /// Whether no other known family has this form.
    pub(super) is_sure: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rank: Option<usize>,
    pub(super) evidence: String,
}

impl From<model::Kind> for Kind {
    fn from(kind: model::Kind) -> Self {
        Self {
            role: kind.role.name(),
            family: kind.family.map(|family| family.to_string()),
            is_sure: kind.is_sure,
            rank: kind.rank,
            evidence: kind.evidence,
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Share {
    pub(super) dtype: String,
    pub(super) tensors: usize,
    pub(super) bytes: u64,
}

/// What of a model's files is in the page cache.
#[derive(Debug, Serialize)]
pub(super) struct Cached {
    pub(super) cached: Metric,
    /// Bytes of the files, headers included.
    pub(super) of: u64,
    /// Why it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) unavailable: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Charges {
    pub(super) anonymous: u64,
    pub(super) mapped: u64,
    /// On a device.
    pub(super) vram: u64,
}

impl Found {
    pub(super) fn new(model: &Model, room: &Room) -> Self {
        let summary = model.summary();
        let kind = model.kind();
        let shares = summary.dtypes.iter().map(|share| Share {
            dtype: share.dtype.to_string(),
            tensors: share.tensors,
            bytes: share.bytes,
        });
        // A device takes a model as it lies in anonymous storage.
        let anonymous = Storage::Anonymous.charge(model);
        Self {
            name: model.name().to_owned(),
            path: model.path().to_owned(),
            format: model.format().name(),
            what: kind.to_string(),
            kind: kind.into(),
            shards: model.files().len(),
            dtypes: shares.collect(),
            tensors: summary.tensors,
            parameters: model.parameters(),
            bytes: summary.bytes,
            largest_tensor_bytes: summary.largest,
            alignment: summary.alignment,
            misaligned: summary.misaligned,
            unmapped: summary.unmapped,
            in_place_bytes: in_place_bytes(model),
            page_cache: Cached::of(model),
            storage: Charges {
                anonymous,
                mapped: Storage::Mapped.charge(model),
                vram: anonymous,
            },
            ram: Fit::of(anonymous, room.ram),
            vram: Fit::of(anonymous, room.roomiest()),
            dtype_mix: summary.dtype_mix().to_string(),
        }
    }
}

impl Cached {
    fn of(model: &Model) -> Self {
        let sizes = model.files().iter().map(|file| file.identity.size);
        let of = sizes.fold(0, u64::saturating_add);
        match cached(model) {
            Ok(bytes) => Self {
                cached: Metric::Exact(bytes),
                of,
                unavailable: None,
            },
            Err(reason) => Self {
                cached: Metric::Unavailable,
                of,
                unavailable: Some(reason),
            },
        }
    }
}

fn cached(model: &Model) -> Result<u64, String> {
    let begun = Instant::now();
    let mut sum = 0_u64;
    for (index, file) in model.files().iter().enumerate() {
        if begun.elapsed() > PATIENCE {
            return Err(format!(
                "the kernel told of {index} of {} files in {PATIENCE:?}; \
                 since Linux 6.5 it tells at once (cachestat(2))",
                model.files().len()
            ));
        }
        let open = model
            .reopen_file(index)
            .map_err(|error| error.to_string())?;
        sum = sum.saturating_add(page_cache::cached(&open, file.identity.size)?);
    }
    Ok(sum)
}

/// A path that is not UTF-8 is no error in a report.
pub(super) fn as_text<S: Serializer>(path: &Path, json: S) -> Result<S::Ok, S::Error> {
    json.serialize_str(&path.to_string_lossy())
}
