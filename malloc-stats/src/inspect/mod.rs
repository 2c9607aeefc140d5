//! Any live process, unmodified: what its malloc holds, what of that is resident, what its other
//! memory is, how near its limits are, and what could be done.

mod allocator;
mod chunks;
mod claims;
mod classes;
mod exit;
mod family;
mod files;
mod growth;
mod look;
mod looker;
mod memory;
pub mod pause;
mod permission;
mod pulse;
mod refusal;
mod report;
mod search;
mod sharing;
mod smaps;
mod stacks;
mod status;
mod target;
mod users;
mod verdict;

pub use allocator::{Detected, Detection, LibcObject, detect};
pub use chunks::{ChunksError, chunks};
pub use claims::{Python, find_claims};
pub use classes::{Class, ClassKind, Owned, OwnedRange, classify};
pub use exit::{Ending, Watch};
pub use family::{Ended, Family, FamilyReading, MemberReading};
pub use files::{FilePages, model_files};
pub use growth::{Growth, Look, Slope, TimeTo};
pub use look::{Ask, InspectError, inspect};
pub use looker::{Found, Looker};
pub use memory::ProcessMemory;
pub use pulse::{Pulse, pulse};
pub use refusal::{Barrier, Denial, Match, TargetError};
pub use report::{Inspection, SCHEMA};
pub use smaps::{Rollup, SmapsEntry, SmapsParser, parse_rollup, read_smaps};
pub use stacks::parse_stack_pointer;
pub use status::Status;
pub use target::{Change, Target, proc_numbers_are_ours};
pub use users::Users;
pub use verdict::{LINTS, Lint, Severity, Verdict, judge};
