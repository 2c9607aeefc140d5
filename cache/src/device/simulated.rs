//! A simulated device: host memory that behaves like a device's.
//!
//! It holds real bytes of its own, takes time to transfer them, refuses what does not fit, and
//! verifies by checksum what is read from it. It says *simulated* wherever it appears. Its tensors
//! are candle's CPU tensors over its own memory.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use candle_core::Tensor;
use malloc_stats::{Metric, Size};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::{
    Device, DeviceMemory, DeviceWeights, Fault, Held, Injection, Load, Piece, Source, Tier,
    Unloaded, stream,
};
use crate::error::{Error, LoadError};
use crate::model::Model;
use crate::storage::{Copies, HostWeights, Recycler, Region, Storage, WeightBytes};

/// How much of the copy in RAM is transferred at a time.
const CHUNK: usize = 4 << 20;

/// How the device is connected. Transfers share it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// Bytes a second; `None` where copying takes what it takes.
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

    /// The same, connected so.
    #[must_use]
    pub fn link(mut self, link: Link) -> Simulated {
        self.link = link;
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

    fn load(&self, load: &Load<'_>) -> Result<Box<dyn DeviceWeights>, LoadError> {
        let fault = self.next_fault();
        let model = load.model;
        let memory = self.allocate(model, fault)?;
        // Pages of its own: none that evictions in RAM left behind.
        let recycler = Arc::new(Recycler::new(memory.bytes));
        let mut transfer = Transfer {
            device: self,
            model,
            region: Region::reserve(model, &recycler)?,
            sums: vec![xxh3_64(&[]); model.tensors().len()],
            hash: (usize::MAX, Xxh3::new()),
            fault,
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
}

/// A load under way.
struct Transfer<'a> {
    device: &'a Simulated,
    model: &'a Model,
    region: Region,
    sums: Vec<u64>,
    /// The hash of the tensor that is being written.
    hash: (usize, Xxh3),
    fault: Option<Fault>,
}

impl Transfer<'_> {
    fn take(&mut self, piece: Piece<'_>) -> Result<(), LoadError> {
        self.suffer(&piece)?;
        self.device
            .pass_link(piece.bytes.len(), self.fault == Some(Fault::Slow));
        self.region.write(piece.tensor, piece.offset, piece.bytes);
        if self.hash.0 != piece.tensor {
            self.hash = (piece.tensor, Xxh3::new());
        }
        self.hash.1.update(piece.bytes);
        self.sums[piece.tensor] = self.hash.1.digest();
        Ok(())
    }

    fn suffer(&mut self, piece: &Piece<'_>) -> Result<(), LoadError> {
        let halfway = piece.tensor >= self.model.tensors().len() / 2;
        match self.fault {
            Some(Fault::Transfer) if halfway => Err(LoadError::Transfer {
                device: self.device.name.clone(),
                model: self.model.name().to_owned(),
                tensor: self.model.tensors()[piece.tensor].name.to_string(),
                offset: piece.offset as u64,
                reason: "injected".to_owned(),
            }),
            Some(Fault::Stuck) if halfway => {
                self.fault = None;
                let mut state = self.device.inner.state();
                state.stuck += 1;
                let before = state.unstuck;
                while state.unstuck == before {
                    state = self
                        .device
                        .inner
                        .unstuck
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner);
                }
                state.stuck -= 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn finish(mut self, memory: Occupied) -> SimulatedWeights {
        self.region.loaded();
        SimulatedWeights {
            device: self.device.name.clone(),
            model: self.model.clone(),
            weights: Box::new(HostWeights::over(
                self.model,
                self.region,
                &Arc::new(Copies::default()),
            )),
            sums: self.sums.into(),
            memory,
        }
    }
}

impl Simulated {
    /// Waits until the link has taken so many bytes.
    fn pass_link(&self, bytes: usize, slow: bool) {
        let mut takes = self.link.latency;
        if let Some(rate) = self.link.bytes_per_second {
            takes += Duration::from_secs_f64(bytes as f64 / rate);
        }
        if slow {
            takes = (takes * 10).max(Duration::from_millis(1 + (bytes >> 20) as u64));
        }
        if takes.is_zero() {
            return;
        }
        let until = {
            let mut state = self.inner.state();
            let now = Instant::now();
            let begin = state.link_free_at.map_or(now, |at| at.max(now));
            *state.link_free_at.insert(begin + takes)
        };
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
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

/// Weights on a simulated device.
#[derive(Debug)]
struct SimulatedWeights {
    device: String,
    model: Model,
    weights: Box<HostWeights>,
    /// XXH3-64 of each tensor as it was written.
    sums: Box<[u64]>,
    memory: Occupied,
}

impl DeviceWeights for SimulatedWeights {
    fn tensor(&self, index: usize) -> Result<Tensor, Error> {
        drop(self.bytes(index)?);
        self.weights.tensor(index)
    }

    fn bytes(&self, index: usize) -> Result<WeightBytes<'_>, Error> {
        let bytes = self.weights.bytes(index)?;
        let found = xxh3_64(&bytes);
        if found == self.sums[index] {
            return Ok(bytes);
        }
        Err(Error::Corrupt {
            device: self.device.clone(),
            model: self.model.name().to_owned(),
            tensor: self.model.tensors()[index].name.to_string(),
            expected: self.sums[index],
            found,
        })
    }

    fn unload(mut self: Box<Self>) -> Unloaded {
        let unloaded = self.weights.unload();
        let Some(held) = unloaded.held else {
            // `memory` is freed as it is dropped.
            return Unloaded {
                returned_bytes: Some(self.memory.bytes),
                ..unloaded
            };
        };
        // Tensors hold a part of it, and the device has it back when they go.
        let held: Arc<dyn Held> = Arc::from(held);
        let bytes = held.bytes().min(self.memory.bytes);
        self.memory.bytes -= bytes;
        self.memory.inner.state().held.push(Arc::clone(&held));
        Unloaded {
            held: Some(Box::new(StillHeld(held))),
            returned_bytes: Some(self.memory.bytes),
            recycled_bytes: 0,
        }
    }
}

struct StillHeld(Arc<dyn Held>);

impl Held for StillHeld {
    fn bytes(&self) -> u64 {
        self.0.bytes()
    }

    fn is_gone(&self) -> bool {
        self.0.is_gone()
    }
}

/// Why a text is no simulated device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{}` is no simulated device: simulated:SIZE[,GBPS], such as simulated:8GiB or \
     simulated:8GiB,25", text.escape_debug()
)]
pub struct SimulatedSyntax {
    /// The text.
    pub text: String,
}

impl FromStr for Simulated {
    type Err = SimulatedSyntax;

    fn from_str(text: &str) -> Result<Simulated, SimulatedSyntax> {
        let syntax = || SimulatedSyntax {
            text: text.to_owned(),
        };
        let spec = text.strip_prefix("simulated:").ok_or_else(syntax)?;
        let (size, rate) = match spec.split_once(',') {
            Some((size, rate)) => (size, Some(rate)),
            None => (spec, None),
        };
        let Size(bytes) = size.parse().map_err(|_| syntax())?;
        let bytes_per_second = match rate {
            None => None,
            Some(rate) => {
                let rate: f64 = rate.parse().map_err(|_| syntax())?;
                if !((0.001..=10_000.0).contains(&rate)) {
                    return Err(syntax());
                }
                Some(rate * 1e9)
            }
        };
        Ok(Simulated::new(bytes).link(Link {
            bytes_per_second,
            ..Link::default()
        }))
    }
}
