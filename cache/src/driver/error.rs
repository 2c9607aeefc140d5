//! What a driver refuses, in its own words.

/// Why NVIDIA's driver does not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DriverError {
    /// There is no driver.
    #[error("no NVIDIA driver: {reason}")]
    Absent {
        /// The loader's words.
        reason: String,
    },
    /// The driver lacks a function: it is older than CUDA 11.2, which has memory pools.
    #[error(
        "the NVIDIA driver is too old: it is for CUDA {}, and lacks {lacks}; \
         one for CUDA 11.2 (R460) or newer is needed",
        shown(*version)
    )]
    TooOld {
        /// The version it is for, 1000 times the major and 10 times the minor number.
        version: Option<u32>,
        /// The function.
        lacks: String,
    },
    /// There is no device of this number.
    #[error(
        "there is no device cuda:{ordinal}: the driver shows {devices}{}",
        visible()
    )]
    NoDevice {
        /// The number.
        ordinal: u32,
        /// How many there are.
        devices: u32,
    },
    /// The device cannot do it.
    #[error("cuda:{ordinal} ({name}) has no {lacks}")]
    Unable {
        /// Its number.
        ordinal: u32,
        /// Its name.
        name: String,
        /// What it lacks.
        lacks: &'static str,
    },
    /// A call failed.
    #[error("{call}: {name}: {text}{}", hint(*code))]
    Call {
        /// The function.
        call: String,
        /// `CUresult`.
        code: u32,
        /// Its name, such as `CUDA_ERROR_OUT_OF_MEMORY`.
        name: String,
        /// The driver's words.
        text: String,
    },
    /// The tensor library failed.
    #[error("the tensor library cannot use the device: {reason}")]
    Library {
        /// Its words.
        reason: String,
    },
}

const OUT_OF_MEMORY: u32 = 2;
const NO_DEVICE: u32 = 100;
const DEVICE_UNAVAILABLE: u32 = 46;

impl DriverError {
    /// Whether memory is what lacked.
    #[must_use]
    pub fn is_out_of_memory(&self) -> bool {
        matches!(self, DriverError::Call { code, .. } if *code == OUT_OF_MEMORY)
    }

    /// Whether the context is lost: every later call gives the same, until the process ends.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        // From illegal addresses to launches that failed, uncorrectable errors of memory and links,
        // and connections that were lost: `cuda.h` says of each that the process must be ended.
        matches!(
            self,
            DriverError::Call {
                code: 214 | 220 | 226 | 700 | 702 | 709 | 710 | 714..=719 | 721 | 810,
                ..
            }
        )
    }
}

fn shown(version: Option<u32>) -> String {
    version.map_or_else(
        || "an unknown version".to_owned(),
        |version| format!("{}.{}", version / 1000, version % 1000 / 10),
    )
}

fn visible() -> String {
    match std::env::var("CUDA_VISIBLE_DEVICES") {
        Ok(which) => format!(
            " (CUDA_VISIBLE_DEVICES is `{}`)",
            which.escape_debug().collect::<String>()
        ),
        Err(_) => String::new(),
    }
}

fn hint(code: u32) -> &'static str {
    match code {
        NO_DEVICE => " (is the GPU visible to this container, and CUDA_VISIBLE_DEVICES right?)",
        DEVICE_UNAVAILABLE => {
            " (another process has the device for itself: its compute mode is exclusive)"
        }
        _ => "",
    }
}
