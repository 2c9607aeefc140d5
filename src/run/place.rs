//! The device of a run, as the command line names it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use plimsoll_cache::device::{Device, Simulated};

/// Where leases are asked for that say nothing else.
#[derive(Debug, Clone)]
pub(crate) enum Named {
    Cpu,
    Simulated(String, Arc<Simulated>),
    Cuda(u32),
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Named, String> {
        let no_device = || {
            format!(
                "no device `{}` here: cpu, cuda:N such as cuda:0, or simulated:SIZE[,GBPS] such as \
                 simulated:8GiB,25",
                text.escape_debug()
            )
        };
        if text.starts_with("simulated") {
            let device: Simulated = text.parse().map_err(|error| format!("{error}"))?;
            return Ok(Named::Simulated(text.to_owned(), Arc::new(device)));
        }
        match text.strip_prefix("cuda") {
            Some("") => Ok(Named::Cuda(0)),
            Some(number) => {
                let number = number.strip_prefix(':').ok_or_else(no_device)?;
                number.parse().map(Named::Cuda).map_err(|_| no_device())
            }
            None if text == "cpu" => Ok(Named::Cpu),
            None => Err(no_device()),
        }
    }
}

impl Named {
    /// Opens the device.
    ///
    /// # Errors
    /// Its driver's answer, or that this program was built without what it needs.
    pub(crate) fn open(&self) -> Result<Place, String> {
        match self {
            Named::Cpu => Ok(Place::Cpu),
            Named::Simulated(text, device) => Ok(Place::Device(Chosen {
                text: text.clone(),
                device: Arc::clone(device) as Arc<dyn Device>,
                simulated: Some(Arc::clone(device)),
            })),
            Named::Cuda(ordinal) => Ok(Place::Device(Chosen {
                text: format!("cuda:{ordinal}"),
                device: cuda(*ordinal)?,
                simulated: None,
            })),
        }
    }
}

#[cfg(feature = "cuda")]
fn cuda(ordinal: u32) -> Result<Arc<dyn Device>, String> {
    let device = plimsoll_cache::device::Cuda::new(ordinal);
    let device = device.map_err(|error| format!("--device cuda:{ordinal}: {error}"))?;
    Ok(Arc::new(device))
}

#[cfg(not(feature = "cuda"))]
fn cuda(ordinal: u32) -> Result<Arc<dyn Device>, String> {
    let why = match plimsoll_cache::driver::Driver::installed() {
        Ok(_) => {
            "this program was built without CUDA: use plimsoll-cuda, which scripts/build-cuda \
                  builds"
                .to_owned()
        }
        Err(error) => error.to_string(),
    };
    Err(format!("--device cuda:{ordinal}: {why}"))
}

/// A device that is not the CPU.
#[derive(Clone)]
pub(crate) struct Chosen {
    /// As the command line says it.
    pub(super) text: String,
    pub(super) device: Arc<dyn Device>,
    /// The same, where it only pretends to be one.
    pub(super) simulated: Option<Arc<Simulated>>,
}

impl fmt::Debug for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Chosen").field(&self.text).finish()
    }
}

impl Chosen {
    /// All its memory, bytes.
    pub(super) fn total(&self) -> u64 {
        self.device.memory().total.bytes().unwrap_or(0)
    }
}

/// Where leases are asked for that say nothing else, opened.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    Cpu,
    Device(Chosen),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_by_a_kind_and_a_number_or_size() {
        assert!(matches!("cpu".parse(), Ok(Named::Cpu)));
        assert!(matches!("cuda".parse(), Ok(Named::Cuda(0))));
        assert!(matches!("cuda:7".parse(), Ok(Named::Cuda(7))));
        assert!(matches!(
            "simulated:1GiB".parse(),
            Ok(Named::Simulated(_, _))
        ));
        for wrong in [
            "",
            "gpu",
            "cuda:",
            "cuda:-1",
            "cuda:x",
            "cuda0",
            "cpu:0",
            "cuda:\u{1b}",
        ] {
            let error = wrong.parse::<Named>().unwrap_err();
            assert!(!error.contains(char::is_control), "{error:?}");
        }
    }
}
