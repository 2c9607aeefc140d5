//! The two snapshots around every load and unload, and what they may cost.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use malloc_stats::{Allocator, Depth, Reader, Snapshot};
use serde::{Deserialize, Serialize};

/// How deep the snapshots around loads and unloads look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Snapshots {
    /// The full pair while its measured cost stays under 1 % of the time spent loading; beyond that
    /// the bracket, with the latest reading of the allocator and its age.
    #[default]
    Auto,
    /// Process memory, faults and the cgroup's use only.
    Bracket,
    /// Everything, whatever it costs: `mallinfo2` takes 120 ms at 10^6 free chunks.
    Full,
}

/// The share of load time that full snapshots may cost.
const SHARE: f64 = 0.01;

/// What a load is guessed to run at before one was measured, bytes a second. A high guess makes the
/// first full pair cheap or absent, not dear.
const FIRST_RATE: f64 = 4e9;

/// Takes snapshots within their means.
#[derive(Debug)]
pub(crate) struct Brackets {
    reader: Reader,
    mode: Snapshots,
    pace: Mutex<Pace>,
}

#[derive(Debug, Default)]
struct Pace {
    full: Duration,
    loading: Duration,
    loaded_bytes: u64,
}

impl Brackets {
    pub(crate) fn new(reader: Reader, mode: Snapshots) -> Brackets {
        Brackets {
            reader,
            mode,
            pace: Mutex::new(Pace::default()),
        }
    }

    /// The allocator that serves, in words.
    pub(crate) fn allocator_name(&self) -> String {
        self.reader.allocator_name()
    }

    /// How deep to look around a load or unload of so many bytes.
    pub(crate) fn depth(&self, bytes: u64) -> Depth {
        match self.mode {
            Snapshots::Bracket => Depth::Bracket,
            Snapshots::Full => Depth::Full,
            Snapshots::Auto => {
                let Some(cost) = self.reader.last_full_cost() else {
                    return Depth::Bracket;
                };
                let pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
                let rate = if pace.loaded_bytes > 0 && !pace.loading.is_zero() {
                    pace.loaded_bytes as f64 / pace.loading.as_secs_f64()
                } else {
                    FIRST_RATE
                };
                let expected = pace.loading.as_secs_f64() + bytes as f64 / rate;
                if (pace.full + 2 * cost).as_secs_f64() <= SHARE * expected {
                    Depth::Full
                } else {
                    Depth::Bracket
                }
            }
        }
    }

    /// Takes a snapshot.
    pub(crate) fn take(&self, depth: Depth) -> Snapshot {
        match depth {
            Depth::Bracket => self.reader.bracket(),
            Depth::Full => {
                let snapshot = self.reader.full();
                let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
                pace.full += Duration::from_micros(snapshot.cost_us);
                snapshot
            }
        }
    }

    /// Takes a snapshot beside loads and unloads, which does not count as theirs.
    pub(crate) fn look(&self, depth: Depth) -> Snapshot {
        match depth {
            Depth::Bracket => self.reader.bracket(),
            Depth::Full => self.reader.full(),
        }
    }

    /// The allocator that serves, with its settings where they are known.
    pub(crate) fn allocator(&self) -> &Allocator {
        self.reader.allocator()
    }

    /// Accounts for a load.
    pub(crate) fn loaded(&self, bytes: u64, took: Duration) {
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        pace.loading += took;
        pace.loaded_bytes += bytes;
    }
}
