//! The main job: a workload of leases over real files, watched from all sides.
//!
//! | file | what |
//! |---|---|
//! | `models` | which models, opened or made |
//! | `workload` | which of them are leased, where, when, and for how long |
//! | `tiers` | how much may be where, and what is to go wrong |
//! | `place` | the device |
//! | `terms` | patches, and making do with a part |
//! | `churn` | what real loaders do to the heap besides |
//! | `touch` | what is done with the weights |
//! | `drive` | the run itself |
//! | `leasing` | its leases |
//! | `opening` | how its stream begins |
//! | `audience` | who hears the events: the report, the recording, the reader |
//! | `shown` | live screens that hear them too |

mod audience;
mod churn;
mod drive;
mod leasing;
pub(crate) mod models;
mod opening;
pub(crate) mod place;
mod random;
mod shown;
pub(crate) mod terms;
pub(crate) mod tiers;
mod touch;
pub(crate) mod workload;

use std::path::PathBuf;
use std::time::Duration;

use plimsoll_cache::{Mapping, Model, Snapshots, Storage};
use plimsoll_profiles::Profile;

pub(crate) use audience::Recording;
pub(crate) use drive::{drive, interruptible};
pub(crate) use touch::Touch;

/// The exit code of a run that SIGINT or SIGTERM ended, as shells count it.
pub(crate) const INTERRUPTED: u8 = 130;

/// Whether the heap is churned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Churning {
    /// No.
    None,
    /// Beside the loads.
    Beside,
    /// Instead of them.
    Only,
}

/// Where a run is shown to live screens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Publishing {
    /// Where live screens look, if that can be.
    Usual,
    /// There, or the run does not begin.
    At(PathBuf),
    /// Nowhere.
    Not,
}

/// A run, all questions answered.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) profile: Profile,
    pub(crate) models: Vec<Model>,
    pub(crate) steps: Vec<workload::Step>,
    /// How often all steps are taken, with everything dropped after each time.
    pub(crate) cycles: u32,
    pub(crate) tiers: tiers::Tiers,
    pub(crate) terms: terms::Terms,
    pub(crate) storage: Storage,
    pub(crate) mapping: Mapping,
    pub(crate) huge_pages: bool,
    /// How much of RAM may be page-locked, bytes.
    pub(crate) pinned_at_most: Option<u64>,
    pub(crate) churning: Churning,
    pub(crate) touch: Touch,
    pub(crate) snapshots: Snapshots,
    pub(crate) settle: Duration,
    pub(crate) seed: u64,
    pub(crate) workload: String,
    pub(crate) publishing: Publishing,
}
