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

    fn pass(&mut self) {
        let bytes = std::mem::take(&mut self.packed);
        let is_slow = self.fault == Some(Fault::Slow);
        self.device.pass_link(bytes, is_slow);
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
