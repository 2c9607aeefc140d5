//! A load on its way through a simulated link.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use xxhash_rust::xxh3::Xxh3;

use super::weights::SimulatedWeights;
use super::{CHUNK, Occupied, Simulated};
use crate::device::{Fault, Piece};
use crate::error::LoadError;
use crate::model::Model;
use crate::storage::{Copies, HostWeights, Region};

/// A load under way.
pub(super) struct Transfer<'a> {
    pub(super) device: &'a Simulated,
    pub(super) model: &'a Model,
    pub(super) region: Region,
    pub(super) sums: Vec<u64>,
    /// The hash of the tensor that is being written.
    pub(super) hash: (usize, Xxh3),
    pub(super) fault: Option<Fault>,
    /// Bytes that have not passed the link yet: small tensors pass it together.
    pub(super) packed: usize,
    /// When the link will have taken what it was given last.
    pub(super) passes_at: Option<Instant>,
}

impl Transfer<'_> {
    pub(super) fn take(&mut self, piece: Piece<'_>) -> Result<(), LoadError> {
        self.suffer(&piece)?;
        self.packed += piece.bytes.len();
        if self.packed >= CHUNK {
            self.pass();
        }
        self.region.write(piece.tensor, piece.offset, piece.bytes);
        if self.hash.0 != piece.tensor {
            self.hash = (piece.tensor, Xxh3::new());
        }
        self.hash.1.update(piece.bytes);
        self.sums[piece.tensor] = self.hash.1.digest();
        Ok(())
    }

    /// Gives the link what has gathered, and waits for what it was given before: two are in flight,
    /// and bytes are copied while the link takes its time, as a device's own engine does.
    fn pass(&mut self) {
        let bytes = std::mem::take(&mut self.packed);
        let is_slow = self.fault == Some(Fault::Slow);
        let passes_at = self.device.pass_link(bytes, is_slow);
        sleep_until(std::mem::replace(&mut self.passes_at, passes_at));
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

    pub(super) fn finish(mut self, memory: Occupied) -> SimulatedWeights {
        if self.packed > 0 {
            self.pass();
        }
        sleep_until(self.passes_at);
        self.region.loaded();
        for (index, tensor) in self.model.tensors().iter().enumerate() {
            if let Some(tied) = tensor.tied_to {
                self.sums[index] = self.sums[tied as usize];
            }
        }
        SimulatedWeights {
            device: self.device.name.clone(),
            model: self.model.clone(),
            weights: Some(Box::new(HostWeights::over(
                self.model,
                self.region,
                &Arc::new(Copies::default()),
            ))),
            sums: self.sums.into(),
            memory,
        }
    }
}

impl Simulated {
    /// When the link will have taken so many bytes; `None` where it takes no time.
    fn pass_link(&self, bytes: usize, slow: bool) -> Option<Instant> {
        let mut takes = self.link.latency;
        if let Some(rate) = self.link.bytes_per_second {
            takes += Duration::from_secs_f64(bytes as f64 / rate);
        }
        if slow {
            takes = (takes * 10).max(Duration::from_millis(1 + (bytes >> 20) as u64));
        }
        if takes.is_zero() {
            return None;
        }
        let mut state = self.inner.state();
        let now = Instant::now();
        let begin = state.link_free_at.map_or(now, |at| at.max(now));
        Some(*state.link_free_at.insert(begin + takes))
    }
}

fn sleep_until(at: Option<Instant>) {
    if let Some(at) = at {
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
    }
}
