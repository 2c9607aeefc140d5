//! The memory of GPUs, through NVML, which is loaded at run time where a driver is.

#[cfg(feature = "nvml")]
mod nvml;
#[cfg(test)]
#[cfg(feature = "nvml")]
mod tests;

use serde::{Deserialize, Serialize};

use crate::metric::Metric;

/// The memory of one GPU, in bytes. What is used, reserved and free adds up to the total.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Vram {
    /// The index NVML gives it: in the order of PCI buses, which CUDA follows only with
    /// `CUDA_DEVICE_ORDER=PCI_BUS_ID`.
    pub index: u32,
    /// Its name, such as `NVIDIA H200`.
    pub name: String,
    /// Where it is on the PCI bus, `0000:65:00.0`, by which CUDA knows it too; empty where the driver
    /// does not tell.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pci_bus: String,
    /// What the driver calls it whatever the order, `GPU-...`; empty where it does not tell.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uuid: String,
    /// Whether it is partitioned (MIG). All numbers are those of the whole GPU, of which a process
    /// may have an instance only.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub mig: bool,
    /// What is installed.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub total: Metric,
    /// What all processes use, their contexts included.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub used: Metric,
    /// What is free.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub free: Metric,
    /// What the driver and the firmware keep for themselves, whoever uses the GPU.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub reserved: Metric,
    /// What this process uses. Unavailable where the driver does not tell, and in a container with
    /// PIDs of its own, since the driver names processes by those of the host.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub process: Metric,
    /// Why nothing is known of its memory, in the driver's own words: it is lost, or it may not be
    /// asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub absent: Option<String>,
}

/// What one process uses of one GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuProcess {
    /// The process, by its number on the host.
    pub pid: u32,
    /// The index of the GPU, as in [`Vram::index`].
    pub index: u32,
    /// What it uses; unavailable where the driver does not tell.
    pub used: Metric,
}

/// The memory of every GPU. NVML is initialised at the first call, once.
///
/// A GPU that is lost, or that may not be asked, is among them, with [`Vram::absent`].
///
/// # Errors
///
/// The reason as a text, where there is no driver, it refuses, or the program was built without
/// the feature `nvml`.
pub fn read() -> Result<Vec<Vram>, String> {
    let (vram, _) = nvml::read(in_first_pid_namespace().then(std::process::id))?;
    Ok(vram)
}

/// The memory of every GPU, with what the process `pid` uses of each, and the reason where that is
/// unavailable.
///
/// The driver names processes by their numbers on the host. So they are found where `/proc` shows
/// those numbers: not in a container with numbers of its own, but in one that has the host's
/// `/proc` mounted.
///
/// # Errors
///
/// As [`read`].
pub fn read_for(pid: u32) -> Result<(Vec<Vram>, Option<String>), String> {
    if !shows_host_pids() {
        let (vram, _) = nvml::read(None)?;
        return Ok((vram, Some(FOREIGN_PIDS.to_owned())));
    }
    nvml::read(Some(pid))
}

/// What every process uses of every GPU that is not lost, as far as the driver tells.
///
/// # Errors
///
/// As [`read`]; and where `/proc` does not show the numbers that the driver names processes by.
pub fn processes() -> Result<Vec<GpuProcess>, String> {
    if !shows_host_pids() {
        return Err(FOREIGN_PIDS.to_owned());
    }
    nvml::processes()
}

const FOREIGN_PIDS: &str = "the NVIDIA driver names processes by their PIDs on the host, which are not known in this container; run it on the host, or with --pid=host";

/// Whether `/proc` shows the numbers of the host: only there the second process is the kernel's.
fn shows_host_pids() -> bool {
    use procfs::FromRead;
    use procfs::process::{Stat, StatFlags};

    in_first_pid_namespace()
        || Stat::from_file("/proc/2/stat")
            .is_ok_and(|stat| stat.flags & StatFlags::PF_KTHREAD.bits() != 0)
}

/// Whether PIDs here are those of the host. The first namespace has a fixed inode number
/// (`PROC_PID_INIT_INO`, include/linux/proc_ns.h).
fn in_first_pid_namespace() -> bool {
    std::fs::read_link("/proc/self/ns/pid").is_ok_and(|link| link.as_os_str() == "pid:[4026531836]")
}

#[cfg(not(feature = "nvml"))]
mod nvml {
    use super::{GpuProcess, Vram};

    const ABSENT: &str = "malloc-stats was built without the feature `nvml`";

    pub(super) fn read(_pid: Option<u32>) -> Result<(Vec<Vram>, Option<String>), String> {
        Err(ABSENT.to_owned())
    }

    pub(super) fn processes() -> Result<Vec<GpuProcess>, String> {
        Err(ABSENT.to_owned())
    }
}
