//! A cheap look at a process from outside, to be taken on a clock: no maps, no heap.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use procfs::FromRead;
use procfs::process::Stat;

use super::Target;
use crate::gpu;
use crate::limits::{self, Host, Limits, Location, Pressure};
use crate::metric::{Grade, Metric};
use crate::process::{parse_status, rss_grade};
use crate::reader::{micros, now_us};
use crate::{Depth, Process, Snapshot};

/// Takes a process's pulse: its resident memory and faults, its limits, the host, the pressure,
/// and VRAM. To be kept between two readings: it keeps files open, and where the cgroup lies.
///
/// A reading takes about 0.3 ms (Linux 6.18, two cgroups deep), most of it in the kernel, which sums up the memory of
/// each cgroup for `memory.stat`; NVML adds its own where there is a GPU. No permission is needed.
#[derive(Debug)]
pub struct Pulse {
    pid: u32,
    status: File,
    stat: File,
    grade: Grade,
    cgroup: File,
    /// What `/proc/PID/cgroup` said when `location` was found: a process can be moved.
    membership: Vec<u8>,
    location: Result<Location, String>,
}

impl Pulse {
    /// Begins with a process.
    ///
    /// # Errors
    ///
    /// As [`Target::file`].
    pub fn of(target: &Target) -> io::Result<Self> {
        let release = rustix::system::uname();
        Ok(Self {
            pid: target.pid(),
            status: target.file("status")?,
            stat: target.file("stat")?,
            grade: rss_grade(&release.release().to_string_lossy()),
            cgroup: target.file("cgroup")?,
            membership: Vec::new(),
            location: Err("its cgroup was not looked for yet".to_owned()),
        })
    }

    /// Takes it. What cannot be read is unavailable, with the reason among the notes of the limits
    /// or in `vram_absent`. Of its allocator nothing is known.
    ///
    /// # Errors
    ///
    /// `ESRCH` once the process is gone.
    pub fn read(&mut self) -> io::Result<Snapshot> {
        let begun = Instant::now();
        let at_us = now_us();
        self.find_cgroup()?;
        let limits = Limits::at(
            Path::new("/"),
            &self.pid.to_string(),
            self.location.as_ref().map_err(String::as_str),
        );
        // The memory of a cgroup whose controller is off is charged to an ancestor.
        let charged = limits.cgroups.iter().map(|cgroup| cgroup.current);
        let cgroup_current = charged
            .into_iter()
            .find(|current| !current.is_unavailable())
            .unwrap_or(Metric::Unavailable);
        let host = Host::read();
        let pressure = Pressure::at(self.location.as_ref().ok());
        let (vram, vram_absent) = match gpu::read_for(self.pid) {
            Ok((devices, _)) => (devices, None),
            Err(reason) => (Vec::new(), Some(reason)),
        };
        // Last, and through files of the process itself: if it answers now, then what was read by
        // its number was about it.
        let process = self.process()?;
        Ok(Snapshot {
            depth: Depth::Full,
            at_us,
            cost_us: micros(begun.elapsed()),
            process,
            cgroup_current,
            limits: Some(limits),
            host,
            pressure,
            vram,
            vram_absent,
            ..Snapshot::default()
        })
    }

    fn process(&self) -> io::Result<Process> {
        let mut process = parse_status(&whole(&self.status)?, self.grade);
        let stat = Stat::from_read(whole(&self.stat)?.as_slice()).map_err(io::Error::other)?;
        process.minor_faults = stat.minflt;
        process.major_faults = stat.majflt;
        Ok(process)
    }

    /// Where its cgroup lies, looked for anew only where it was moved or its cgroup went.
    fn find_cgroup(&mut self) -> io::Result<()> {
        let membership = whole(&self.cgroup)?;
        let stays = self.location.as_ref().is_ok_and(|location| {
            let own = location.directories().next();
            own.is_some_and(|(directory, _)| directory.is_dir())
        });
        if !stays || membership != self.membership {
            self.location = limits::location_of(&self.pid.to_string());
            self.membership = membership;
        }
        Ok(())
    }
}

/// One [`Pulse`] of a process.
///
/// # Errors
///
/// As [`Pulse::of`] and [`Pulse::read`].
pub fn pulse(target: &Target) -> io::Result<Snapshot> {
    Pulse::of(target)?.read()
}

/// A file of the kernel, from its beginning.
fn whole(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4096];
    let mut length = 0;
    loop {
        let room = bytes.get_mut(length..).unwrap_or_default();
        match file.read_at(room, length as u64) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if length == bytes.len() {
            bytes.resize(2 * length, 0);
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}
