//! What a look at a family says.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::member::{Member, State};
use crate::metric::{Grade, Metric};
use crate::process::Process;

/// The most that are kept of the members that ended.
const MOST_ENDED: usize = 256;

/// The memory of a family at a moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FamilyReading {
    /// When, by `CLOCK_MONOTONIC`, in microseconds; as [`Snapshot::at_us`](crate::Snapshot::at_us).
    pub at_us: u64,
    /// The memory of all that live, and the faults of all until now, those that have ended too.
    /// All unavailable where none lives.
    ///
    /// Where several live, these are upper bounds: a page that several have in memory counts in
    /// each of them. `hwm` is the sum of their peaks, which need not have come at the same time.
    pub total: Process,
    /// The processor time of all until now, those that have ended too, in microseconds; as the
    /// kernel counts it, by ticks of 10 ms as a rule. Of those that came and went between two
    /// looks nothing is known.
    pub cpu_us: u64,
    /// Those that live, by number.
    pub members: Vec<MemberReading>,
    /// Whom it met since the reading before: number and name.
    pub began: Vec<(u32, String)>,
    /// Whose end it noticed since the reading before: number and name. One that ended before it
    /// was met twice is in both lists.
    pub ended: Vec<(u32, String)>,
    /// How many live whose memory could not be read. The total is without them, and estimated.
    pub unread: usize,
    /// Some descendants are not followed: there are too many, or there were no descriptors left.
    pub truncated: bool,
    /// The processor time of this reading, and of what was discovered since the one before.
    pub cost: Duration,
}

/// A member that lives.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MemberReading {
    /// Its number.
    pub pid: u32,
    /// That of its parent. Where that has ended, of whom the kernel gave it to.
    pub parent: u32,
    /// When it started, in clock ticks since the system did.
    pub started: u64,
    /// Its short name, as it set it: control characters and all, but for newlines and backslashes,
    /// which the kernel escapes.
    pub name: String,
    /// Its memory and faults. `hwm` is the most that it held in all programs that it ran, where the
    /// kernel counts anew for each (`execve(2)`). Unavailable while it exits.
    pub process: Process,
    /// Its processor time in microseconds, without that of its children.
    pub cpu_us: u64,
    /// Its threads.
    pub threads: u32,
    /// Since it was looked at before it came to run another program (`execve(2)`): all its memory
    /// was replaced. Where its addresses may not be known, only the first time is noticed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub executed: bool,
    /// Its memory is its parent's, and left out of the total: it was made by `vfork(2)`, or another
    /// way with `CLONE_VM`, and runs no program of its own yet.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub shares_memory: bool,
}

/// What a member came to that has ended: what was seen of it last. What it held after that is not
/// known, but for its faults and processor time where its parent had not waited for it yet.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Ended {
    /// Its number, which others can have by now.
    pub pid: u32,
    /// When it started, in clock ticks since the system did.
    pub started: u64,
    /// Its short name, as [`MemberReading::name`].
    pub name: String,
    /// The most that was resident until it was seen last. Unavailable where it was never seen with
    /// memory of its own.
    pub peak: Metric,
    /// What was resident when it was seen last.
    pub rss: Metric,
    /// Its minor page faults.
    pub minor_faults: u64,
    /// Its major page faults.
    pub major_faults: u64,
    /// Its processor time in microseconds, without that of its children.
    pub cpu_us: u64,
    /// When it was met, as [`FamilyReading::at_us`].
    pub began_us: u64,
    /// When its end was noticed, as [`FamilyReading::at_us`].
    pub ended_us: u64,
}

/// All that ended.
#[derive(Debug, Default)]
pub(super) struct Departed {
    /// The largest of them, the largest first.
    pub(super) largest: Vec<Ended>,
    pub(super) count: u64,
    minor_faults: u64,
    major_faults: u64,
    cpu_us: u64,
}

impl Departed {
    pub(super) fn add(&mut self, ended: Ended) {
        self.count = self.count.saturating_add(1);
        self.minor_faults = self.minor_faults.saturating_add(ended.minor_faults);
        self.major_faults = self.major_faults.saturating_add(ended.major_faults);
        self.cpu_us = self.cpu_us.saturating_add(ended.cpu_us);
        let peak = ended.peak.bytes();
        let at = self
            .largest
            .partition_point(|other| other.peak.bytes() >= peak);
        if at < MOST_ENDED {
            self.largest.insert(at, ended);
            self.largest.truncate(MOST_ENDED);
        }
    }
}

impl FamilyReading {
    /// Of those that live and those that ended; the rest is for whoever took it to say.
    pub(super) fn of<'a>(
        living: impl Iterator<Item = &'a Member> + Clone,
        departed: &Departed,
    ) -> Self {
        let members: Vec<MemberReading> =
            living.clone().map(|member| member.seen.clone()).collect();
        let unread = living.filter(|member| member.state == State::Unread);
        let unread = unread.count();
        let mut total = memory_of(&members);
        if unread > 0 {
            total = graded(total, Grade::Estimated);
        }
        let sum = |of_departed: u64, of: fn(&MemberReading) -> u64| {
            members
                .iter()
                .map(of)
                .fold(of_departed, u64::saturating_add)
        };
        total.minor_faults = sum(departed.minor_faults, |member| member.process.minor_faults);
        total.major_faults = sum(departed.major_faults, |member| member.process.major_faults);
        Self {
            total,
            cpu_us: sum(departed.cpu_us, |member| member.cpu_us),
            members,
            unread,
            ..Self::default()
        }
    }
}

/// The memory of all that have some of their own; the faults stay 0.
fn memory_of(members: &[MemberReading]) -> Process {
    let own =
        |member: &&MemberReading| !member.shares_memory && !member.process.rss.is_unavailable();
    let mut own = members.iter().filter(own).map(|member| Process {
        minor_faults: 0,
        major_faults: 0,
        ..member.process
    });
    let Some(first) = own.next() else {
        return Process::default();
    };
    own.fold(first, |sum, other| {
        let sum = Process {
            rss: sum.rss.plus(other.rss),
            anon: sum.anon.plus(other.anon),
            file: sum.file.plus(other.file),
            shmem: sum.shmem.plus(other.shmem),
            hwm: sum.hwm.plus(other.hwm),
            swap: sum.swap.plus(other.swap),
            ..sum
        };
        graded(sum, Grade::Upper)
    })
}

/// The same memory, trusted no further than so.
fn graded(memory: Process, grade: Grade) -> Process {
    Process {
        rss: memory.rss.at_best(grade),
        anon: memory.anon.at_best(grade),
        file: memory.file.at_best(grade),
        shmem: memory.shmem.at_best(grade),
        hwm: memory.hwm.at_best(grade),
        swap: memory.swap.at_best(grade),
        ..memory
    }
}
