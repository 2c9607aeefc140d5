//! Models of known content, made by the safetensors library.

#![allow(dead_code, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use plimsoll_cache::{Builder, Cache, Model};
use plimsoll_events::{Event, Kind, Sink, Stream};
use safetensors::tensor::{Dtype, TensorView};

pub const MIB: u64 = 1 << 20;

/// A folder of models that goes away at the end.
pub struct Folder {
    dir: tempfile::TempDir,
}

impl Folder {
    pub fn new() -> Folder {
        Folder {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A model of about `bytes`, in tensors of odd sizes and several types.
    pub fn model(&self, name: &str, bytes: u64) -> Model {
        Model::open(self.file(name, bytes)).unwrap()
    }

    pub fn file(&self, name: &str, bytes: u64) -> PathBuf {
        let mut tensors = BTreeMap::new();
        let mut left = bytes;
        let mut index = 0_u64;
        while left > 0 {
            let (dtype, width) = match index % 4 {
                0 => (Dtype::F16, 2),
                1 => (Dtype::F32, 4),
                2 => (Dtype::U8, 1),
                _ => (Dtype::BF16, 2),
            };
            let want = (7 + index * 999_983 % 3_000_017).min(left);
            let count = (want / width).max(1);
            let data = content(name, index, (count * width) as usize);
            tensors.insert(format!("t{index:03}"), (dtype, vec![count as usize], data));
            left = left.saturating_sub(count * width);
            index += 1;
        }
        let path = self.dir.path().join(format!("{name}.safetensors"));
        let views = tensors.iter().map(|(name, (dtype, shape, data))| {
            (name, TensorView::new(*dtype, shape.clone(), data).unwrap())
        });
        safetensors::serialize_to_file(views, None, &path).unwrap();
        path
    }
}

/// Bytes that tell which tensor of which model they are of.
pub fn content(model: &str, tensor: u64, len: usize) -> Vec<u8> {
    let mut state = model.bytes().fold(tensor + 1, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    });
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        bytes.extend((state >> 16).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// What every tensor of a model has to be, in the order of its tensors.
pub type Contents = Arc<Vec<Vec<u8>>>;

/// Made once for each model, since models are verified often.
pub fn contents(model: &Model) -> Contents {
    static KNOWN: Mutex<BTreeMap<u64, Contents>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap();
    let made = known.entry(model.id().get()).or_insert_with(|| {
        let tensors = model.tensors().iter().map(|tensor| {
            let number = tensor.name[1..].parse().unwrap();
            content(model.name(), number, tensor.bytes as usize)
        });
        Arc::new(tensors.collect())
    });
    Arc::clone(made)
}

/// Whether every byte of a leased model is as it was made.
pub fn verify(lease: &plimsoll_cache::Lease, model: &Model) {
    let weights = lease.get(model).unwrap();
    let contents = contents(model);
    for (index, tensor) in weights.tensors().iter().enumerate() {
        let bytes = weights.bytes(&tensor.name).unwrap();
        assert!(
            *bytes == contents[index][..],
            "tensor {index} of {} has other bytes",
            model.name()
        );
    }
}

/// Keeps all events.
#[derive(Default)]
pub struct Kept(Mutex<Vec<Event>>);

impl Kept {
    pub fn kinds(&self) -> Vec<Kind> {
        self.0
            .lock()
            .unwrap()
            .iter()
            .map(|event| event.kind.clone())
            .collect()
    }
}

impl Sink for Kept {
    fn event(&self, event: &Event) {
        self.0.lock().unwrap().push(event.clone());
    }
}

/// A cache whose events are kept.
pub fn cache(set: impl FnOnce(Builder) -> Builder) -> (Cache, Arc<Kept>) {
    let kept = Arc::new(Kept::default());
    let builder = Cache::builder().stream(Stream::new(Arc::clone(&kept)));
    (set(builder).build().unwrap(), kept)
}

/// Resident anonymous memory of this process, bytes.
pub fn anonymous_rss() -> u64 {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = rollup
        .lines()
        .find(|line| line.starts_with("Anonymous:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        * 1024
}

/// As [`verify`], on one of the devices where the lease holds it.
pub fn verify_on(lease: &plimsoll_cache::Lease, model: &Model, tier: plimsoll_cache::Tier) {
    let weights = lease.get_on(model, tier).unwrap();
    assert_eq!(weights.tier(), tier);
    let contents = contents(model);
    for (index, tensor) in weights.tensors().iter().enumerate() {
        assert!(
            *weights.bytes(&tensor.name).unwrap() == contents[index][..],
            "tensor {index} of {} has other bytes in {tier:?}",
            model.name()
        );
    }
}

/// Waits until something is so, and fails where it does not become so for a long time.
#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !is_so() {
        assert!(
            begun.elapsed() < std::time::Duration::from_secs(10),
            "in vain: {what}"
        );
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
}

impl Kept {
    /// The loads that succeeded, as `model in tier from origin`.
    pub fn loads(&self) -> Vec<String> {
        let kinds = self.kinds().into_iter();
        kinds
            .filter_map(|kind| match kind {
                Kind::Load(load) if load.error.is_none() => Some(format!(
                    "{} in {} from {:?}",
                    load.model, load.tier, load.from
                )),
                _ => None,
            })
            .collect()
    }

    /// Evictions, in their order.
    pub fn evictions(&self) -> Vec<plimsoll_events::Evict> {
        let kinds = self.kinds().into_iter();
        kinds
            .filter_map(|kind| match kind {
                Kind::Evict(evict) => Some(*evict),
                _ => None,
            })
            .collect()
    }
}
