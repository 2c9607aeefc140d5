//! A simulated device: host memory that behaves like a device's.
//!
//! It holds real bytes of its own, takes time to transfer them, refuses what does not fit, and
//! verifies by checksum what is read from it. It says *simulated* wherever it appears. Its tensors
//! are candle's CPU tensors over its own memory.

mod syntax;
mod transfer;
mod weights;

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use malloc_stats::Metric;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

pub use syntax::SimulatedSyntax;

use super::{
    Device, DeviceMemory, DeviceWeights, Fault, Held, Injection, Load, Piece, Source, Tier, stream,
};
use crate::error::LoadError;
use crate::model::{Dtype, Model};
use crate::storage::{Recycler, Region, Storage};
use transfer::Transfer;

/// How much is transferred at a time.
const CHUNK: usize = 4 << 20;

/// What links can run at, bytes a second.
const SLOWEST: f64 = 1e6;
const FASTEST: f64 = 1e13;

/// How the device is connected. Transfers share it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// Bytes a second, from 10^6 to 10^13; `None` where copying takes what it takes.
    pub bytes_per_second: Option<f64>,
    /// What each transfer takes besides.
    pub latency: Duration,
}

impl Default for Link {
    fn default() -> Self {
        Link {
            bytes_per_second: None,
            latency: Duration::ZERO,
        }
    }
}

/// A simulated device.
pub struct Simulated {
    tier: Tier,
    name: String,
    link: Link,
    lacks: Vec<Dtype>,
    /// Its memory is there before a load comes: where one is expected, pages of its own wait.
    recycler: Arc<Recycler>,
    inner: Arc<Inner>,
}

struct Inner {
    total: u64,
    state: Mutex<State>,
    unstuck: Condvar,
}

#[derive(Default)]
struct State {
    allocated: u64,
    /// Memory of unloaded weights that tensors hold; part of `allocated`.
    held: Vec<Arc<dyn Held>>,
    /// When the link is free again.
    link_free_at: Option<Instant>,
    loads: u64,
    next_faults: VecDeque<Fault>,
    injections: Vec<Injection>,
    /// Transfers that are stuck go on when this changes.
    unstuck: u64,
    stuck: u64,
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut gone = 0;
        state.held.retain(|held| {
            if held.is_gone() {
                gone += held.bytes();
            }
            !held.is_gone()
        });
        state.allocated -= gone;
        state
    }

    fn free(&self, bytes: u64) {
        self.state().allocated -= bytes;
    }
}

impl fmt::Debug for Simulated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulated")
            .field("name", &self.name)
            .field("bytes", &self.inner.total)
            .field("link", &self.link)
            .finish_non_exhaustive()
    }
}

impl Simulated {
    /// A device with so many bytes of memory.
    #[must_use]
    pub fn new(bytes: u64) -> Simulated {
        Simulated {
            tier: Tier::unique(),
            name: "simulated".to_owned(),
            link: Link::default(),
            lacks: Vec::new(),
            recycler: Arc::new(Recycler::new(bytes)),
            inner: Arc::new(Inner {
                total: bytes,
                state: Mutex::default(),
                unstuck: Condvar::new(),
            }),
        }
    }

    /// The same with another name: `simulated-` and so on.
    #[must_use]
    pub fn named(mut self, suffix: &str) -> Simulated {
        self.name = format!("simulated-{suffix}");
        self
    }

    /// The same, connected so. A rate that no link can run at is taken for the nearest one that one
    /// can.
    #[must_use]
    pub fn link(mut self, link: Link) -> Simulated {
        let possible = |rate: f64| match rate.clamp(SLOWEST, FASTEST) {
            nan if nan.is_nan() => SLOWEST,
            rate => rate,
        };
        self.link = Link {
            bytes_per_second: link.bytes_per_second.map(possible),
            latency: link.latency,
        };
        self
    }

    /// The same, unable to hold elements of these types.
    #[must_use]
    pub fn without(mut self, dtypes: impl IntoIterator<Item = Dtype>) -> Simulated {
        self.lacks.extend(dtypes);
        self
    }

    /// Has the next load go wrong. Faults come in the order in which they are asked for, one a load.
    pub fn inject(&self, fault: Fault) {
        self.inner.state().next_faults.push_back(fault);
    }

    /// Has loads go wrong again and again.
    pub fn inject_every(&self, injection: Injection) {
        self.inner.state().injections.push(injection);
    }

    /// Lets transfers that are stuck go on.
    pub fn unstick(&self) {
        self.inner.state().unstuck += 1;
        self.inner.unstuck.notify_all();
    }

    /// How many transfers are stuck.
    #[must_use]
    pub fn stuck(&self) -> u64 {
        self.inner.state().stuck
    }

    /// Takes memory as a program's own work on the device would.
    ///
    /// # Errors
    /// Returns the bytes that are free, where they are fewer.
    pub fn occupy(&self, bytes: u64) -> Result<Occupied, u64> {
        let mut state = self.inner.state();
        let free = self.inner.total - state.allocated;
        if bytes > free {
            return Err(free);
        }
        state.allocated += bytes;
        Ok(Occupied {
            inner: Arc::clone(&self.inner),
            bytes,
        })
    }

    /// The fault of the load that begins now.
    fn next_fault(&self) -> Option<Fault> {
        let mut state = self.inner.state();
        state.loads += 1;
        let number = state.loads;
        let mut due = state.injections.iter();
        let due = due.find(|injection| number.is_multiple_of(injection.every));
        let due = due.map(|injection| injection.fault);
        state.next_faults.pop_front().or(due)
    }

    fn allocate(&self, model: &Model, fault: Option<Fault>) -> Result<Occupied, LoadError> {
        let asked = self.charge(model);
        let refused = |free, injected| LoadError::OutOfMemory {
            device: self.name.clone(),
            model: model.name().to_owned(),
            asked,
            free,
            total: self.inner.total,
            reason: None,
            injected,
        };
        if fault == Some(Fault::OutOfMemory) {
            let free = self.inner.total - self.inner.state().allocated;
            return Err(refused(free, true));
        }
        self.occupy(asked).map_err(|free| refused(free, false))
    }
}

impl Device for Simulated {
    fn tier(&self) -> Tier {
        self.tier
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn is_simulated(&self) -> bool {
        true
    }

    fn memory(&self) -> DeviceMemory {
        let free = self.inner.total - self.inner.state().allocated;
        DeviceMemory {
            total: Metric::Exact(self.inner.total),
            free: Metric::Exact(free),
        }
    }

    fn charge(&self, model: &Model) -> u64 {
        Storage::Anonymous.charge(model)
    }

    fn holds(&self, dtype: Dtype) -> bool {
        !self.lacks.contains(&dtype)
    }

    fn load(&self, load: &Load<'_>) -> Result<Box<dyn DeviceWeights>, LoadError> {
        let fault = self.next_fault();
        let model = load.model;
        let memory = self.allocate(model, fault);
        let memory = memory.inspect_err(|_| self.unexpect(self.charge(model)))?;
        let mut transfer = Transfer {
            device: self,
            model,
            region: Region::reserve(model, &self.recycler)?,
            sums: vec![xxh3_64(&[]); model.tensors().len()],
            hash: (usize::MAX, Xxh3::new()),
            fault,
            packed: 0,
            passes_at: None,
        };
        match load.source {
            Source::Files { staging } => {
                stream(model, staging, load.observer, |piece| transfer.take(piece))?;
            }
            Source::Ram(weights) => {
                for index in 0..model.tensors().len() {
                    let bytes = weights.bytes(index).map_err(|error| LoadError::Copy {
                        model: model.name().to_owned(),
                        reason: error.to_string(),
                    })?;
                    for (chunk, bytes) in bytes.chunks(CHUNK).enumerate() {
                        transfer.take(Piece {
                            tensor: index,
                            offset: chunk * CHUNK,
                            bytes,
                        })?;
                    }
                }
            }
        }
        Ok(Box::new(transfer.finish(memory)))
    }

    fn expect(&self, bytes: u64) {
        self.recycler.expect(bytes as usize);
    }

    fn unexpect(&self, bytes: u64) {
        self.recycler.unexpect(bytes as usize);
    }

    fn take_given(&self) -> u64 {
        self.recycler.take_given()
    }

    fn kept_bytes(&self) -> u64 {
        self.recycler.warm_bytes() as u64
    }
}

/// Memory of a simulated device, taken until this is dropped.
pub struct Occupied {
    inner: Arc<Inner>,
    bytes: u64,
}

impl fmt::Debug for Occupied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Occupied").field(&self.bytes).finish()
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        self.inner.free(self.bytes);
    }
}
