//! What an inspection found.

use serde::{Deserialize, Serialize};

use super::allocator::Detected;
use super::classes::Class;
use super::files::FilePages;
use super::growth::Growth;
use super::status::Status;
use super::verdict::Verdict;
use crate::gpu::Vram;
use crate::heap::Heap;
use crate::limits::{Host, Limits, Pressure};
use crate::metric::Metric;

/// The form of the JSON; raised when a field changes its meaning or goes.
pub const SCHEMA: u32 = 1;

/// A process, looked at from outside at one moment.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Inspection {
    /// [`SCHEMA`].
    pub schema: u32,
    /// When it was begun, in milliseconds since 1970.
    pub taken_unix_ms: u64,
    /// What it cost, in microseconds.
    pub cost_us: u64,
    /// For how long the process was stopped for it, in microseconds; `None` where it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused_us: Option<u64>,
    /// The process.
    pub pid: u32,
    /// Who serves its `malloc`.
    pub allocator: Detected,
    /// What it is, and its resident memory.
    pub process: Status,
    /// Everything that bounds its memory.
    pub limits: Limits,
    /// The memory of the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<Host>,
    /// Time lost waiting for memory, of its cgroup or of the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pressure: Option<Pressure>,
    /// What glibc's malloc holds; its fields stand beside these in JSON. `None` where
    /// [`heap_absent`](Self::heap_absent) has the reason.
    #[serde(flatten)]
    pub heap: Option<Heap>,
    /// Further heaps, of a process with several C libraries.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub other_heaps: Vec<Heap>,
    /// Why there is no `heap`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heap_absent: Option<String>,
    /// All its memory, by what it is.
    pub classes: Vec<Class>,
    /// Anonymous resident memory that belongs to nothing named in `classes`.
    pub unattributed: Metric,
    /// The model-like files it has mapped or open, and how much of them the page cache holds.
    pub files: Vec<FilePages>,
    /// GPUs, with what this process uses of each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vram: Vec<Vram>,
    /// Why there is no `vram`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vram_absent: Option<String>,
    /// How fast it grows, where two looks were taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub growth: Option<Growth>,
    /// What follows from all that, the gravest first.
    pub verdicts: Vec<Verdict>,
    /// What could not be found out, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_of_the_heap_do_not_hide_those_of_the_rest() {
        let notes = |note: &str| vec![note.to_owned()];
        let inspection = Inspection {
            heap: Some(Heap {
                notes: notes("of the heap"),
                ..Heap::default()
            }),
            notes: notes("of the rest"),
            ..Inspection::default()
        };
        let text = serde_json::to_string(&inspection).unwrap();
        let read: Inspection = serde_json::from_str(&text).unwrap();
        assert_eq!(read, inspection, "{text}");
    }
}
