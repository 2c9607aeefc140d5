//! What NVML tells. Every call of it may fail, at any time.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::sync::{Mutex, OnceLock, PoisonError};

use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use super::{GpuProcess, Vram};
use crate::metric::Metric;

/// No host has more GPUs; a driver in trouble may say so.
const MOST: u32 = 256;

/// With what the process uses, if one is given, and the reason where that is not told of every GPU.
pub(super) fn read(pid: Option<u32>) -> Result<(Vec<Vram>, Option<String>), String> {
    let mut untold = None;
    let mut all = Vec::new();
    for (index, device) in devices()? {
        let (vram, reason) = match device {
            Ok(device) => vram(index, &device, pid),
            Err(absent) => {
                let vram = of(index, known(index).unwrap_or_default());
                let absent = Some(absent);
                (Vram { absent, ..vram }, None)
            }
        };
        untold = untold.or(reason);
        all.push(vram);
    }
    Ok((all, untold))
}

pub(super) fn processes() -> Result<Vec<GpuProcess>, String> {
    let mut all = Vec::new();
    for (index, device) in devices()? {
        // Nothing runs on what is lost.
        let Ok(device) = device else { continue };
        let used = match used_by_process(&device) {
            Ok(used) => used,
            Err(error) if is_lost(&error) => continue,
            Err(error) => {
                let words = words(error);
                return Err(format!(
                    "NVML does not list the processes of GPU {index}: {words}"
                ));
            }
        };
        all.extend(
            used.into_iter()
                .map(|(pid, used)| GpuProcess { pid, index, used }),
        );
    }
    Ok(all)
}

/// A GPU by its index, or why there is none, in the driver's words.
type Found = (u32, Result<Device<'static>, String>);

fn devices() -> Result<Vec<Found>, String> {
    let nvml = nvml().as_ref().map_err(Clone::clone)?;
    let count = nvml
        .device_count()
        .map_err(|error| format!("NVML counts no devices: {}", words(error)))?;
    Ok((0..count.min(MOST))
        .map(|index| (index, nvml.device_by_index(index).map_err(words)))
        .collect())
}

fn nvml() -> &'static Result<Nvml, String> {
    static NVML: OnceLock<Result<Nvml, String>> = OnceLock::new();
    NVML.get_or_init(|| {
        Nvml::init().map_err(|error| match error {
            NvmlError::LibloadingError(_) => "no NVIDIA driver: libnvidia-ml is absent".to_owned(),
            error => format!("NVML could not be initialised: {error}"),
        })
    })
}

/// What the driver says of its error; what is no error of the driver's, in the words of the wrapper.
fn words(error: NvmlError) -> String {
    let wrapped = error.to_string();
    if matches!(
        error,
        NvmlError::Utf8Error(_) | NvmlError::FailedToLoadSymbol(_)
    ) {
        return wrapped;
    }
    let Ok(nvml) = nvml() else { return wrapped };
    let Ok(error_string) = &nvml.lib().nvmlErrorString else {
        return wrapped;
    };
    // SAFETY: NVML is initialised, takes any code, and returns a string of its own that stays, or
    // NULL.
    let told = unsafe {
        let told = error_string(error.into());
        (!told.is_null()).then(|| CStr::from_ptr(told))
    };
    match told.map(CStr::to_string_lossy) {
        Some(told) if !told.is_empty() => told.into_owned(),
        _ => wrapped,
    }
}

fn is_lost(error: &NvmlError) -> bool {
    matches!(error, NvmlError::GpuLost | NvmlError::ResetRequired)
}

/// What of a GPU stays the same.
#[derive(Debug, Clone, Default)]
struct Identity {
    name: String,
    pci_bus: String,
    uuid: String,
    mig: bool,
}

/// Those of GPUs that were told, by index: a GPU that is lost tells nothing of itself any more.
static KNOWN: Mutex<BTreeMap<u32, Identity>> = Mutex::new(BTreeMap::new());

fn known(index: u32) -> Option<Identity> {
    let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.get(&index).cloned()
}

fn identity(index: u32, device: &Device<'_>) -> Identity {
    if let Some(known) = known(index) {
        return known;
    }
    let (name, pci, uuid) = (device.name(), device.pci_info(), device.uuid());
    let told = name.is_ok() && pci.is_ok() && uuid.is_ok();
    let identity = Identity {
        name: name.unwrap_or_default(),
        pci_bus: pci.map_or_else(|_| String::new(), |pci| normalised(&pci.bus_id)),
        uuid: uuid.unwrap_or_default(),
        // Most GPUs have none, and say that it is not supported.
        mig: device.mig_mode().is_ok_and(|mode| mode.current != 0),
    };
    if told {
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(index, identity.clone());
    }
    identity
}

/// `0000:65:00.0` as the kernel writes it; NVML writes the domain with eight digits.
pub(super) fn normalised(bus_id: &str) -> String {
    let bus_id = bus_id.to_ascii_lowercase();
    match bus_id.split_once(':') {
        Some((domain, rest)) => format!("{:0>4}:{rest}", domain.trim_start_matches('0')),
        None => bus_id,
    }
}

fn of(index: u32, identity: Identity) -> Vram {
    Vram {
        index,
        name: identity.name,
        pci_bus: identity.pci_bus,
        uuid: identity.uuid,
        mig: identity.mig,
        ..Vram::default()
    }
}

/// And why it is not told what the process uses.
fn vram(index: u32, device: &Device<'_>, pid: Option<u32>) -> (Vram, Option<String>) {
    let identity = identity(index, device);
    let memory = match device.memory_info() {
        Ok(memory) => memory,
        Err(error) => {
            let absent = Some(words(error));
            let vram = of(index, identity);
            return (Vram { absent, ..vram }, None);
        }
    };
    let used = pid.map(|pid| {
        let used = used_by_process(device).map_err(words)?;
        let used = used.get(&pid).copied().unwrap_or(Metric::Exact(0));
        match used {
            Metric::Unavailable => Err("it lists the process without a number".to_owned()),
            used => Ok(used),
        }
    });
    let (process, untold) = match used {
        None => (Metric::Unavailable, None),
        Some(Ok(used)) => (used, None),
        Some(Err(words)) => (
            Metric::Unavailable,
            Some(format!(
                "the NVIDIA driver does not tell what each process uses of GPU {index}: {words}"
            )),
        ),
    };
    let vram = Vram {
        total: Metric::Exact(memory.total),
        used: Metric::Exact(memory.used),
        free: Metric::Exact(memory.free),
        reserved: Metric::Exact(memory.reserved),
        process,
        ..of(index, identity)
    };
    (vram, untold)
}

/// What each process uses.
fn used_by_process(device: &Device<'_>) -> Result<BTreeMap<u32, Metric>, NvmlError> {
    let compute = device.running_compute_processes()?;
    let graphics = device.running_graphics_processes()?;
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
    Ok(used)
}
