//! Churn: what real loaders do to the heap besides loading, by a seeded recipe.
//!
//! Around each tensor a staging buffer of twice its size, and one metadata block of 32 to 256 bytes
//! that survives its model. After each step 96 buffers of 16 KiB to 6 MiB, sizes spread evenly over
//! their logarithm, at most 8 alive at once, every page written; 4 of them stay, at most 16 in all,
//! the oldest going first.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use plimsoll_cache::model::TensorInfo;
use plimsoll_cache::{LoadObserver, Model};

use super::random::Random;

const BUFFERS: usize = 96;
const STAY_PER_STEP: usize = 4;
const STAY_IN_ALL: usize = 16;
const AT_ONCE: usize = 8;
const SMALLEST: f64 = (16 << 10) as f64;
const LARGEST: f64 = (6 << 20) as f64;

/// The churn of a run.
#[derive(Debug)]
pub(crate) struct Churn {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    random: Random,
    staging: Vec<u8>,
    metadata: Vec<Box<[u8]>>,
    metadata_bytes: u64,
    staying: VecDeque<Vec<u8>>,
}

impl Churn {
    pub(crate) fn new(seed: u64) -> Churn {
        Churn {
            state: Mutex::new(State {
                random: Random::new(seed ^ 0x0063_6875_726e),
                staging: Vec::new(),
                metadata: Vec::new(),
                metadata_bytes: 0,
                staying: VecDeque::new(),
            }),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The buffers of one step.
    pub(crate) fn step(&self) {
        let state = &mut *self.state();
        let mut alive: VecDeque<Vec<u8>> = VecDeque::new();
        for buffer in 0..BUFFERS {
            let exponent = state.random.fraction();
            let bytes = SMALLEST * (LARGEST / SMALLEST).powf(exponent);
            let block = written(bytes as usize);
            if buffer % (BUFFERS / STAY_PER_STEP) == BUFFERS / STAY_PER_STEP / 2 {
                state.staying.push_back(block);
                if state.staying.len() > STAY_IN_ALL {
                    state.staying.pop_front();
                }
            } else {
                alive.push_back(block);
                if alive.len() > AT_ONCE {
                    alive.pop_front();
                }
            }
        }
    }

    /// Frees the buffers that stayed. The metadata goes on living.
    pub(crate) fn drop_buffers(&self) {
        self.state().staying = VecDeque::new();
    }

    /// Bytes that are alive.
    pub(crate) fn live_bytes(&self) -> u64 {
        let state = self.state();
        let staying: usize = state.staying.iter().map(Vec::len).sum();
        staying as u64 + state.metadata_bytes
    }
}

/// A block with every page written; an empty one where memory is short, since churn is a load on
/// the heap and no reason to end the program.
fn written(bytes: usize) -> Vec<u8> {
    let mut block = Vec::new();
    if block.try_reserve_exact(bytes).is_ok() {
        block.resize(bytes, 1);
    }
    block
}

impl LoadObserver for Churn {
    fn before_tensor(&self, _: &Model, tensor: &TensorInfo) {
        let bytes = usize::try_from(tensor.bytes.saturating_mul(2)).unwrap_or(0);
        self.state().staging = written(bytes);
    }

    fn after_tensor(&self, _: &Model, _: &TensorInfo) {
        let state = &mut *self.state();
        let bytes = 32 + state.random.below(225) as usize;
        state.metadata.push(vec![1; bytes].into_boxed_slice());
        state.metadata_bytes += bytes as u64;
        state.staging = Vec::new();
    }
}
