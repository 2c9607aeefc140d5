//! What a program came to that was run under `exec`, and seen from outside.

use malloc_stats::inspect::Verdict;
use malloc_stats::{Metric, Process, Settings, Vram};
use serde::{Deserialize, Serialize};

/// The version of the outcome's JSON form.
pub const SCHEMA: u32 = 1;

/// What a program came to. The JSON form of this is what `exec --json` prints.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outcome {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The command and its arguments.
    pub command: Vec<String>,
    /// The profile's name.
    pub profile: String,
    /// How it ended.
    pub ended: Ended,
    /// Who served `malloc` in the program that held most of those that were looked into, in words;
    /// empty where nobody looked, or they held next to nothing.
    pub allocator: String,
    /// The settings that the profile asked for, each with whether it is in force there.
    pub settings: Settings,
    /// What the profile asks for and is not in force, in words, each with the program: without
    /// those that never held a twentieth of the peak.
    pub not_in_force: Vec<String>,
    /// The processes with the most memory, the largest first.
    pub processes: Vec<Member>,
    /// How many processes were seen in all.
    pub processes_seen: u64,
    /// Processes that were still there when nobody looked any more.
    pub processes_left: u64,
    /// The most that was resident in all processes together: at a reading, or in one of them alone
    /// as the kernel noted it, if that is more. Pages that several share count in each.
    pub peak_rss: Metric,
    /// What was resident when most was read, by kind.
    pub at_peak: Process,
    /// What was resident on the mean over time.
    pub mean_rss: Metric,
    /// What was resident when it was last seen.
    pub last_rss: Metric,
    /// How long before the end that was, in seconds.
    pub last_seen_before_end_seconds: f64,
    /// What was resident at its mark `baseline`; the first that was seen, without one.
    pub baseline_rss: Metric,
    /// Whether it made that mark.
    pub baseline_marked: bool,
    /// What was resident, and in use, at each of its marks `cycle`.
    pub cycles: Vec<Cycle>,
    /// What was resident at its last mark `dropped`.
    pub dropped_rss: Metric,
    /// Seconds that it waited at its marks while its memory was read; part of `wall_seconds`.
    pub marks_seconds: f64,
    /// Page faults without I/O, of all processes that were waited for.
    pub minor_faults: u64,
    /// Page faults with I/O.
    pub major_faults: u64,
    /// Seconds of processor time in the program.
    pub user_seconds: f64,
    /// Seconds of processor time in the kernel.
    pub system_seconds: f64,
    /// Seconds from the start to the end.
    pub wall_seconds: f64,
    /// The heap when it was last looked into, of the process with the most memory; at its mark
    /// `dropped`, if it made that.
    pub heap: Option<HeapSeen>,
    /// The largest waste of all looks.
    pub worst_waste: Option<HeapSeen>,
    /// The most that its cgroup was charged.
    pub cgroup_peak: Metric,
    /// The limit that it came nearest to, in words, with what that left.
    pub nearest_limit: Option<(String, Metric)>,
    /// The GPUs when it used most of them.
    pub vram: Vec<Vram>,
    /// Resident memory over time: seconds and bytes, the most of each of some equal parts.
    pub curve: Vec<(f64, u64)>,
    /// How often memory was read.
    pub samples: u64,
    /// How often the heap was walked.
    pub looks: u64,
    /// Processor time that the sampling took, in seconds.
    pub sampling_seconds: f64,
    /// What the last look concluded.
    pub verdicts: Vec<Verdict>,
    /// What is worth a sentence.
    pub notes: Vec<String>,
}

/// How a program ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ended {
    /// Its exit code, where it exited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// The signal that killed it, where one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// The cgroup in which the kernel killed for want of memory at about that time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom: Option<String>,
    /// In words.
    pub how: String,
}

/// One of the processes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Member {
    /// Its number.
    pub pid: u32,
    /// Its name, at the end; control characters and all.
    pub name: String,
    /// The most that was resident in it.
    pub peak_rss: Metric,
    /// What was resident when it was last seen.
    pub last_rss: Metric,
    /// Page faults without I/O when it was last seen.
    pub minor_faults: u64,
}

/// Memory at a mark `cycle`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cycle {
    /// Resident in all processes.
    pub rss: Metric,
    /// In use by the count of the allocator of the process that made the mark.
    pub in_use: Metric,
}

/// A heap, at one look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HeapSeen {
    /// The process.
    pub pid: u32,
    /// When, in seconds since the start.
    pub at_seconds: f64,
    /// In blocks handed out and not freed.
    pub in_use: Metric,
    /// Resident because of the allocator.
    pub heap_rss: Metric,
    /// Free, and resident.
    pub free_resident: Metric,
    /// What `malloc_trim(0)` would return.
    pub releasable: Metric,
}
