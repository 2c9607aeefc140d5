//! Any live process, unmodified: what its malloc holds, what of that is resident, what its other
//! memory is, how near its limits are, and what could be done.

mod allocator;
mod memory;
pub mod pause;
mod permission;
mod refusal;
mod search;
mod smaps;
mod stacks;
mod status;
mod target;

pub use allocator::{Detected, Detection, LibcObject, detect};
pub use memory::ProcessMemory;
pub use refusal::{Barrier, Denial, Match, TargetError};
pub use smaps::{Rollup, SmapsEntry, SmapsParser, parse_rollup, read_smaps};
pub use stacks::parse_stack_pointer;
pub use status::Status;
pub use target::{Change, Target};
