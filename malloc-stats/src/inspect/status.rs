//! What a process is, and its resident memory.

use std::io::{self, Read};

use procfs::Current;
use serde::{Deserialize, Serialize};

use super::target::{Target, field};
use crate::process::{Process, parse_status, rss_grade};

/// The most that is kept of the arguments, in bytes; a process may have megabytes of them.
const MOST_ARGUMENTS: u64 = 64 << 10;

/// A process in numbers.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Its short name (`comm`), at most 15 bytes; control characters and all.
    pub command: String,
    /// Its arguments, control characters and all; what is beyond 64 KiB is left out.
    pub arguments: Vec<String>,
    /// The user it runs as (effective).
    pub uid: u32,
    /// Its threads.
    pub threads: u64,
    /// For how long it has lived, in seconds.
    pub age_s: f64,
    /// What the kernel's choice of whom to kill goes by: 0 to 2000, more is sooner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score: Option<i64>,
    /// What an administrator added to that: −1000 (never) to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i64>,
    /// Its resident memory.
    #[serde(flatten)]
    pub memory: Process,
}

impl Status {
    /// Reads what everybody may know of a process; no permission is needed.
    ///
    /// # Errors
    ///
    /// As [`Target::file`].
    pub fn read(target: &Target) -> io::Result<Self> {
        let status = target.bytes("status")?;
        let stat = target.stat()?;
        let release = rustix::system::uname();
        let grade = rss_grade(&release.release().to_string_lossy());
        let mut memory = parse_status(&status, grade);
        memory.minor_faults = stat.minflt;
        memory.major_faults = stat.majflt;
        let text = String::from_utf8_lossy(&status);
        let number = |name| target.text(name).ok()?.trim().parse().ok();
        Ok(Self {
            command: stat.comm,
            arguments: target.arguments().unwrap_or_default(),
            uid: field(&text, "Uid")
                .and_then(|ids| ids.split_ascii_whitespace().nth(1)?.parse().ok())
                .unwrap_or_default(),
            threads: u64::try_from(stat.num_threads).unwrap_or(0),
            age_s: age(stat.starttime),
            oom_score: number("oom_score"),
            oom_score_adj: number("oom_score_adj"),
            memory,
        })
    }
}

/// Seconds since a number of clock ticks after the start of the system.
fn age(started: u64) -> f64 {
    let ticks = procfs::ticks_per_second().max(1) as f64;
    procfs::Uptime::current().map_or(0.0, |up| (up.uptime - started as f64 / ticks).max(0.0))
}

impl Target {
    /// Its arguments, as they are in its memory now: it may have written anything there.
    ///
    /// # Errors
    ///
    /// As [`file`](Self::file).
    pub fn arguments(&self) -> io::Result<Vec<String>> {
        let mut bytes = Vec::new();
        let file = self.file("cmdline")?;
        file.take(MOST_ARGUMENTS).read_to_end(&mut bytes)?;
        if bytes.last() == Some(&0) {
            bytes.pop();
        }
        if bytes.is_empty() {
            return Ok(Vec::new());
        }
        let arguments = bytes.split(|byte| *byte == 0);
        Ok(arguments
            .map(|argument| String::from_utf8_lossy(argument).into_owned())
            .collect())
    }
}
