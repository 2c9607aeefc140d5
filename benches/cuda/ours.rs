//! The cache, as a program uses it.

use std::fmt;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Instant;

use plimsoll_cache::device::{Cuda, Device};
use plimsoll_cache::{Cache, Lease, Model, Storage};
use plimsoll_events::{Kind, Received, Subscription};

use crate::Failure;

/// Where weights come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// A copy in RAM that stays there.
    Kept(Storage),
    /// The files, every time.
    Files,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Way::Kept(storage) => storage.fmt(f),
            Way::Files => f.write_str("files"),
        }
    }
}

/// The ways there are, the first of them the best: page-locked copies where the cache has them.
pub fn ways() -> Vec<Result<Way, &'static str>> {
    let kept = ["pinned", "anonymous", "mapped"].map(|name| {
        let storage: Result<Storage, _> = name.parse();
        storage.map(Way::Kept).map_err(|_| name)
    });
    kept.into_iter().chain([Ok(Way::Files)]).collect()
}

/// What free memory may differ by after an unload.
pub const BACK: u64 = 2 << 20;

/// What the cache may take of RAM and the device beyond what it counts for the models.
const SLACK: u64 = 256 << 20;

/// Models in a cache of their own.
pub struct Ours {
    pub cache: Cache,
    pub models: Vec<Model>,
    gpu: Arc<Cuda>,
    way: Way,
    heard: Subscription,
}

impl Ours {
    /// # Errors
    /// The cache's.
    pub fn new(gpu: &Arc<Cuda>, models: &[Model], way: Way) -> Result<Ours, Failure> {
        let sum = |charge: &dyn Fn(&Model) -> u64| models.iter().map(charge).sum::<u64>();
        let (storage, ram) = match way {
            Way::Kept(storage) => (storage, sum(&|model| storage.charge(model))),
            Way::Files => (Storage::default(), 0),
        };
        let cache = Cache::builder()
            .ram(ram + SLACK)
            .storage(storage)
            .keep_ram_copy(way != Way::Files)
            .device(Arc::clone(gpu), sum(&|model| gpu.charge(model)) + SLACK)
            .build()?;
        Ok(Ours {
            heard: cache.subscribe(4096),
            cache,
            models: models.to_vec(),
            gpu: Arc::clone(gpu),
            way,
        })
    }

    /// Brings all of them to the device: the lease, and seconds.
    ///
    /// # Errors
    /// The cache's.
    pub fn load(&self) -> Result<(Lease, f64), Failure> {
        let began = Instant::now();
        let wanted = self.models.iter().map(|model| model.on(&*self.gpu));
        let lease = self.cache.lease(wanted)?;
        Ok((lease, began.elapsed().as_secs_f64()))
    }

    /// Takes all of them off the device: seconds.
    ///
    /// # Errors
    /// The cache's; or one stays.
    pub fn unload(&self, lease: Lease) -> Result<f64, Failure> {
        let began = Instant::now();
        drop(lease);
        for model in &self.models {
            let is_gone = match self.way {
                Way::Kept(_) => self.cache.offload(model)?,
                Way::Files => self.cache.evict(model),
            };
            if !is_gone {
                return Err(format!("{} stays on the device", model.name()).into());
            }
        }
        Ok(began.elapsed().as_secs_f64())
    }

    /// Makes sure that the device has what the files have: of each model the first tensor, one in
    /// the middle, and the last.
    ///
    /// # Errors
    /// It has not.
    pub fn verify(&self, lease: &Lease) -> Result<(), Failure> {
        for model in &self.models {
            let leased = lease.get_on(model, &*self.gpu)?;
            let tensors = model.tensors();
            let last = tensors.len() - 1;
            for tensor in [0, last / 2, last].map(|index| &tensors[index]) {
                let file = model.reopen_file(tensor.file as usize)?;
                let mut expected = vec![0; tensor.bytes as usize];
                file.read_exact_at(&mut expected, tensor.offset)?;
                if leased.bytes(&tensor.name)?[..] != expected[..] {
                    let name = &tensor.name;
                    return Err(format!("{name} of {} is another there", model.name()).into());
                }
            }
        }
        Ok(())
    }

    /// What the driver says is free on the device, bytes.
    pub fn free(&self) -> Option<u64> {
        free(&self.gpu)
    }

    /// What the cache had to remark, each once.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        while let Ok(received) = self.heard.try_recv() {
            if let Received::Event(event) = received
                && let Kind::Note { text } = &event.kind
                && !notes.contains(text)
            {
                notes.push(text.clone());
            }
        }
        notes
    }
}

/// What the driver says is free on the device, bytes.
pub fn free(gpu: &Cuda) -> Option<u64> {
    gpu.figures()?.free.bytes()
}
