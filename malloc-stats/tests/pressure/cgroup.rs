//! Cgroups of this machine that tests make, fill, and remove again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::Duration;

use malloc_stats::limits::{CgroupVersion, locate, parse_memberships, parse_mount};

/// A cgroup below that of this process. Dropped, it is removed, with whatever still runs in it.
pub struct Cgroup {
    pub directory: PathBuf,
}

impl Cgroup {
    /// `None`, with words on stderr, where this process may not make one or `needed` is not there.
    pub fn make(version: CgroupVersion, name: &str, needed: &str) -> Option<Self> {
        let made = Self::try_make(version, name, needed);
        if let Err(reason) = &made {
            eprintln!("skipped, as there is no cgroup of {version:?} to test with: {reason}");
        }
        made.ok()
    }

    fn try_make(version: CgroupVersion, name: &str, needed: &str) -> Result<Self, String> {
        let mut memberships = parse_memberships(&fs::read_to_string("/proc/self/cgroup").unwrap());
        memberships.retain(|membership| membership.version == version);
        let mounts: Vec<_> = fs::read_to_string("/proc/self/mountinfo")
            .unwrap()
            .lines()
            .filter_map(parse_mount)
            .collect();
        let location = locate(&memberships, &mounts).ok_or("none is mounted")?;
        let (own, _) = location.directories().next().unwrap();
        let directory = own.join(format!("malloc-stats-{name}-{}", std::process::id()));
        fs::create_dir(&directory).map_err(|e| format!("{}: {e}", directory.display()))?;
        let made = Self { directory };
        match made.directory.join(needed) {
            needed if needed.exists() => Ok(made),
            needed => Err(format!("{} is missing", needed.display())),
        }
    }

    /// Limits memory, and memory with swap where that is counted (version 1), so that filling it
    /// cannot end up in swap.
    pub fn limit(&self, bytes: u64) {
        fs::write(
            self.directory.join("memory.limit_in_bytes"),
            bytes.to_string(),
        )
        .unwrap();
        let both = self.directory.join("memory.memsw.limit_in_bytes");
        if both.exists() {
            fs::write(both, bytes.to_string()).unwrap();
        }
    }

    /// Starts a program inside.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", r#"echo $$ > "$0/cgroup.procs" && exec "$@""#])
            .arg(&self.directory)
            .arg(program);
        command
    }

    pub fn remove(&self) -> bool {
        fs::remove_dir(&self.directory).is_ok() || !self.directory.exists()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The kernel lets go of the dead a little after they died.
        for _ in 0..500 {
            if self.remove() {
                return;
            }
            let inside = fs::read_to_string(self.directory.join("cgroup.procs"));
            for pid in inside.unwrap_or_default().lines() {
                let pid = pid.parse().ok().and_then(rustix::process::Pid::from_raw);
                if let Some(pid) = pid {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
            sleep(Duration::from_millis(10));
        }
        eprintln!("{} could not be removed", self.directory.display());
    }
}

/// A process that is killed when dropped.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Allocates without end; the first that is killed for want of memory.
pub fn eater() -> Running {
    let eat = "echo 1000 > /proc/self/oom_score_adj; exec tail /dev/zero";
    Running(Command::new("sh").args(["-c", eat]).spawn().unwrap())
}

/// Files that stand for a machine where this process is in one cgroup of version 2: the host's
/// pressure and that cgroup are the real ones.
pub fn machine_of_version_2(root: &Path, cgroup: &Path) {
    fs::create_dir_all(root.join("proc/self")).unwrap();
    fs::write(root.join("proc/self/cgroup"), "0::/own\n").unwrap();
    let mount = "30 1 0:26 / /cg rw - cgroup2 cgroup2 rw\n";
    fs::write(root.join("proc/self/mountinfo"), mount).unwrap();
    fs::create_dir_all(root.join("cg")).unwrap();
    std::os::unix::fs::symlink(cgroup, root.join("cg/own")).unwrap();
    std::os::unix::fs::symlink("/proc/pressure", root.join("proc/pressure")).unwrap();
}
