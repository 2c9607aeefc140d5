//! A server of models in small whose memory is gated in CI, as `docs/ci.md` shows: 24 models of 4 MiB
//! in a budget of 80 MiB, requests that make activations and begin sessions, everything dropped after
//! each cycle. It marks its moments:
//!
//! ```text
//! cargo build --example gated
//! plimsoll check --baseline memory.json --update -- target/debug/examples/gated
//! plimsoll check --baseline memory.json -- target/debug/examples/gated
//! ```
//!
//! `PLANT` plants one of the regressions that such a gate is for:
//!
//! | `PLANT` | what goes wrong |
//! |---|---|
//! | `leak` | of the bytes that a cycle loads, 0.1 % are never freed |
//! | `survivor` | one block of 128 bytes survives each load, between the tensors of a model |
//! | `threshold` | the mmap threshold is not set any more, and rises by itself |
//! | `over-budget` | the cache's budget is 5 % too large |

use std::collections::VecDeque;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use malloc_stats::mark;
use plimsoll_cache::model::TensorInfo;
use plimsoll_cache::{Budget, Cache, LoadObserver, Model, Storage};
use safetensors::tensor::{Dtype, TensorView};

type Failure = Box<dyn Error + Send + Sync>;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const MODELS: usize = 24;
const MODEL: usize = 4 * MIB;
/// Models for which the budget has room; of 20, one more is 5 %.
const ROOM: usize = 20;
const CYCLES: usize = 12;
const REQUESTS: usize = 4;
/// Sessions that are kept; the oldest goes first.
const SESSIONS: usize = 16;
const SESSION: usize = 256 * KIB;
/// `glibc-mmap-128k`: larger blocks go back to the system the moment they are freed.
const THRESHOLD: i32 = 128 << 10;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Plant {
    None,
    Leak,
    Survivor,
    Threshold,
    OverBudget,
}

impl Plant {
    fn of_environment() -> Result<Plant, Failure> {
        match std::env::var("PLANT").as_deref() {
            Err(_) | Ok("") => Ok(Plant::None),
            Ok("leak") => Ok(Plant::Leak),
            Ok("survivor") => Ok(Plant::Survivor),
            Ok("threshold") => Ok(Plant::Threshold),
            Ok("over-budget") => Ok(Plant::OverBudget),
            Ok(other) => Err(format!(
                "PLANT is `{}`, and it is leak, survivor, threshold or over-budget",
                other.escape_debug()
            )
            .into()),
        }
    }
}

fn main() -> Result<(), Failure> {
    let plant = Plant::of_environment()?;
    if plant != Plant::Threshold {
        // SAFETY: sets a number inside malloc; no other thread runs yet.
        unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, THRESHOLD) };
    }
    let folder = tempfile::tempdir()?;
    let mut dice = Dice(7);
    let paths = (0..MODELS).map(|number| write_model(folder.path(), number, &mut dice));
    let models = paths
        .map(|path| Ok(Model::open(path?)?))
        .collect::<Result<Vec<Model>, Failure>>()?;
    let budget = match plant {
        Plant::OverBudget => ROOM * MODEL * 105 / 100,
        _ => ROOM * MODEL,
    };
    let loader = Arc::new(Loader {
        plant,
        state: Mutex::default(),
    });
    let cache = Cache::builder()
        .ram(Budget::fixed(budget as u64))
        .storage(Storage::Heap)
        .observer(loader.clone())
        .build()?;
    let mut server = Server {
        cache,
        sessions: VecDeque::new(),
        dice,
    };
    for _ in 0..2 * SESSIONS {
        server.answer(&[]);
    }
    mark::tell("baseline");
    for _ in 0..CYCLES {
        for model in &models {
            server.serve(model)?;
        }
        if !server.cache.clear().leased.is_empty() {
            return Err("a model is leased with nobody there".into());
        }
        mark::tell("cycle");
    }
    mark::tell("dropped");
    Ok(())
}

struct Server {
    cache: Cache,
    sessions: VecDeque<Vec<u8>>,
    dice: Dice,
}

impl Server {
    fn serve(&mut self, model: &Model) -> Result<(), Failure> {
        let lease = self.cache.lease([model])?;
        let weights = lease.get(model)?;
        for request in 0..REQUESTS {
            let tensor = &weights.tensors()[request % weights.tensors().len()];
            self.answer(&weights.bytes(&tensor.name)?);
        }
        Ok(())
    }

    /// Activations that are let go of, and a session that stays for a while.
    fn answer(&mut self, weights: &[u8]) {
        for _ in 0..2 {
            let mut activation = vec![1_u8; self.dice.between(16 * KIB, 512 * KIB)];
            let common = activation.len().min(weights.len());
            activation[..common].copy_from_slice(&weights[..common]);
        }
        self.sessions.push_back(vec![1; SESSION]);
        if self.sessions.len() > SESSIONS {
            self.sessions.pop_front();
        }
    }
}

/// What loaders do between tensors: they read each by way of a staging buffer.
struct Loader {
    plant: Plant,
    state: Mutex<Loading>,
}

#[derive(Default)]
struct Loading {
    staging: Vec<u8>,
    survivors: Vec<Box<[u8]>>,
}

impl LoadObserver for Loader {
    fn before_tensor(&self, _: &Model, tensor: &TensorInfo) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.staging = vec![1; tensor.bytes as usize];
    }

    fn after_tensor(&self, model: &Model, tensor: &TensorInfo) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.staging = Vec::new();
        match self.plant {
            Plant::Leak => std::mem::forget(vec![1_u8; tensor.bytes as usize / 1000]),
            Plant::Survivor if model.tensor(&tensor.name).is_some_and(|(at, _)| at == 0) => {
                state.survivors.push(vec![1; 128].into_boxed_slice());
            }
            _ => {}
        }
    }
}

/// A model of exactly [`MODEL`] bytes: norms, projections, and here and there a large tensor.
fn write_model(folder: &Path, number: usize, dice: &mut Dice) -> Result<PathBuf, Failure> {
    let data = vec![number as u8; MODEL];
    let mut tensors = Vec::new();
    let mut rest = data.as_slice();
    while !rest.is_empty() {
        let bytes = [16, 64, 128, 256, 512][dice.between(0, 5)] * KIB;
        let (tensor, others) = rest.split_at(bytes.min(rest.len()));
        let view = TensorView::new(Dtype::U8, vec![tensor.len()], tensor)?;
        tensors.push((format!("layer.{}", tensors.len()), view));
        rest = others;
    }
    let path = folder.join(format!("model-{number}.safetensors"));
    safetensors::serialize_to_file(tensors, None, &path)?;
    Ok(path)
}

/// The same numbers at every run: Knuth's MMIX generator.
struct Dice(u64);

impl Dice {
    fn between(&mut self, from: usize, to: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = self.0.wrapping_add(1_442_695_040_888_963_407);
        from + (self.0 >> 33) as usize % (to - from)
    }
}
