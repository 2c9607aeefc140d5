//! The memory of GPUs, through NVML, which is loaded at run time where a driver is.

use serde::{Deserialize, Serialize};

use crate::metric::Metric;

/// The memory of one GPU, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Vram {
    /// The index NVML gives it: in the order of PCI buses, which CUDA follows only with
    /// `CUDA_DEVICE_ORDER=PCI_BUS_ID`.
    pub index: u32,
    /// Its name, such as `NVIDIA H200`.
    pub name: String,
    /// What is installed.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub total: Metric,
    /// What all processes and the driver use.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub used: Metric,
    /// What is free.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub free: Metric,
    /// What this process uses. Unavailable where the driver does not tell, and in a container with
    /// PIDs of its own, since the driver names processes by those of the host.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub process: Metric,
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
/// # Errors
///
/// The reason as a text, where there is no driver, it refuses, or the program was built without
/// the feature `nvml`.
pub fn read() -> Result<Vec<Vram>, String> {
    nvml::read(in_first_pid_namespace().then(std::process::id))
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
        return Ok((nvml::read(None)?, Some(FOREIGN_PIDS.to_owned())));
    }
    let vram = nvml::read(Some(pid))?;
    let untold = vram.iter().any(|device| device.process.is_unavailable());
    let reason = "the NVIDIA driver does not tell what each process uses of every GPU";
    Ok((vram, untold.then(|| reason.to_owned())))
}

/// What every process uses of every GPU, as far as the driver tells.
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

    pub(super) fn read(_pid: Option<u32>) -> Result<Vec<Vram>, String> {
        Err(ABSENT.to_owned())
    }

    pub(super) fn processes() -> Result<Vec<GpuProcess>, String> {
        Err(ABSENT.to_owned())
    }
}

#[cfg(feature = "nvml")]
mod nvml {
    use std::collections::BTreeMap;
    use std::ffi::OsStr;
    use std::sync::OnceLock;

    use nvml_wrapper::enums::device::UsedGpuMemory;
    use nvml_wrapper::error::NvmlError;
    use nvml_wrapper::{Device, Nvml};

    use super::{GpuProcess, Vram};
    use crate::metric::Metric;

    /// With what the process uses, if one is given.
    pub(super) fn read(pid: Option<u32>) -> Result<Vec<Vram>, String> {
        let devices = devices()?;
        Ok(devices
            .iter()
            .map(|(index, device)| vram(*index, device, pid))
            .collect())
    }

    pub(super) fn processes() -> Result<Vec<GpuProcess>, String> {
        let mut all = Vec::new();
        for (index, device) in devices()? {
            let Some(used) = used_by_process(&device) else {
                return Err(format!("NVML does not list the processes of GPU {index}"));
            };
            all.extend(
                used.into_iter()
                    .map(|(pid, used)| GpuProcess { pid, index, used }),
            );
        }
        Ok(all)
    }

    fn devices() -> Result<Vec<(u32, Device<'static>)>, String> {
        static NVML: OnceLock<Result<Nvml, String>> = OnceLock::new();
        let nvml = NVML.get_or_init(init).as_ref().map_err(Clone::clone)?;
        let devices = nvml
            .device_count()
            .map_err(|e| format!("NVML counts no devices: {e}"))?;
        Ok((0..devices)
            .filter_map(|index| Some((index, nvml.device_by_index(index).ok()?)))
            .collect())
    }

    fn init() -> Result<Nvml, String> {
        // Drivers install libnvidia-ml.so.1; the name without a number comes with the toolkit.
        Nvml::builder()
            .lib_path(OsStr::new("libnvidia-ml.so.1"))
            .init()
            .or_else(|_| Nvml::init())
            .map_err(|error| match error {
                NvmlError::LibloadingError(_) => {
                    "no NVIDIA driver: libnvidia-ml is absent".to_owned()
                }
                error => format!("NVML could not be initialised: {error}"),
            })
    }

    fn vram(index: u32, device: &Device<'_>, pid: Option<u32>) -> Vram {
        let memory = device.memory_info().ok();
        let process = pid.and_then(|pid| {
            let used = used_by_process(device)?;
            Some(used.get(&pid).copied().unwrap_or(Metric::Exact(0)))
        });
        Vram {
            index,
            name: device.name().unwrap_or_default(),
            total: memory.as_ref().map(|memory| memory.total).into(),
            used: memory.as_ref().map(|memory| memory.used).into(),
            free: memory.as_ref().map(|memory| memory.free).into(),
            process: process.unwrap_or_default(),
        }
    }

    /// What each process uses; `None` where the driver lists none.
    fn used_by_process(device: &Device<'_>) -> Option<BTreeMap<u32, Metric>> {
        let compute = device.running_compute_processes().ok()?;
        let graphics = device.running_graphics_processes().ok()?;
        let mut used: BTreeMap<u32, Metric> = BTreeMap::new();
        for process in compute.iter().chain(&graphics) {
            let told = match process.used_gpu_memory {
                UsedGpuMemory::Used(bytes) => Metric::Exact(bytes),
                UsedGpuMemory::Unavailable => Metric::Unavailable,
            };
            // A process in both lists is one process, with one use.
            used.entry(process.pid)
                .and_modify(|known| {
                    *known = match (known.bytes(), told.bytes()) {
                        (Some(known), Some(told)) => Metric::Exact(known.max(told)),
                        _ => Metric::Unavailable,
                    };
                })
                .or_insert(told);
        }
        Some(used)
    }
}
