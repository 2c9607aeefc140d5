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

/// The memory of every GPU. NVML is initialised at the first call, once.
///
/// # Errors
///
/// The reason as a text, where there is no driver, it refuses, or the program was built without
/// the feature `nvml`.
pub fn read() -> Result<Vec<Vram>, String> {
    nvml::read()
}

#[cfg(not(feature = "nvml"))]
mod nvml {
    pub(super) fn read() -> Result<Vec<super::Vram>, String> {
        Err("malloc-stats was built without the feature `nvml`".to_owned())
    }
}

#[cfg(feature = "nvml")]
mod nvml {
    use std::ffi::OsStr;
    use std::sync::OnceLock;

    use nvml_wrapper::enums::device::UsedGpuMemory;
    use nvml_wrapper::error::NvmlError;
    use nvml_wrapper::{Device, Nvml};

    use super::Vram;
    use crate::metric::Metric;

    pub(super) fn read() -> Result<Vec<Vram>, String> {
        static NVML: OnceLock<Result<Nvml, String>> = OnceLock::new();
        let nvml = NVML.get_or_init(init).as_ref().map_err(Clone::clone)?;
        let devices = nvml
            .device_count()
            .map_err(|e| format!("NVML counts no devices: {e}"))?;
        Ok((0..devices)
            .filter_map(|index| Some(vram(index, &nvml.device_by_index(index).ok()?)))
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

    fn vram(index: u32, device: &Device<'_>) -> Vram {
        let memory = device.memory_info().ok();
        Vram {
            index,
            name: device.name().unwrap_or_default(),
            total: memory.as_ref().map(|memory| memory.total).into(),
            used: memory.as_ref().map(|memory| memory.used).into(),
            free: memory.as_ref().map(|memory| memory.free).into(),
            process: used_by_this_process(device),
        }
    }

    fn used_by_this_process(device: &Device<'_>) -> Metric {
        if !in_first_pid_namespace() {
            return Metric::Unavailable;
        }
        let pid = std::process::id();
        let (Ok(compute), Ok(graphics)) = (
            device.running_compute_processes(),
            device.running_graphics_processes(),
        ) else {
            return Metric::Unavailable;
        };
        // A process in both lists is one process, with one use.
        let mut used = None;
        for process in compute
            .iter()
            .chain(&graphics)
            .filter(|process| process.pid == pid)
        {
            match process.used_gpu_memory {
                UsedGpuMemory::Used(bytes) => used = used.max(Some(bytes)),
                UsedGpuMemory::Unavailable => return Metric::Unavailable,
            }
        }
        Metric::Exact(used.unwrap_or(0))
    }

    /// Whether PIDs here are those of the host. The first namespace has a fixed inode number
    /// (`PROC_PID_INIT_INO`, include/linux/proc_ns.h).
    fn in_first_pid_namespace() -> bool {
        std::fs::read_link("/proc/self/ns/pid")
            .is_ok_and(|link| link.as_os_str() == "pid:[4026531836]")
    }
}
