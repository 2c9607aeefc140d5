//! Faults that a simulated device can be asked for.

use std::fmt;
use std::str::FromStr;

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The device has no memory for a load, whatever it said before.
    OutOfMemory,
    /// A transfer fails halfway.
    Transfer,
    /// Transfers of a load take ten times as long, and at least 1 ms for each MiB.
    Slow,
    /// A transfer does not go on, until it is told to.
    Stuck,
}

/// A fault that comes again and again: at every `every`th load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Injection {
    /// What goes wrong.
    pub fault: Fault,
    /// At each load whose number, from 1, is a multiple of this.
    pub every: u64,
}

/// Why a text is no [`Fault`] or [`Injection`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{}` is no fault: oom, transfer, slow or stuck, with `:N` for every Nth load", text.escape_debug()
)]
pub struct FaultSyntax {
    /// The text.
    pub text: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::OutOfMemory => "oom",
            Fault::Transfer => "transfer",
            Fault::Slow => "slow",
            Fault::Stuck => "stuck",
        })
    }
}

impl FromStr for Fault {
    type Err = FaultSyntax;

    fn from_str(text: &str) -> Result<Fault, FaultSyntax> {
        match text {
            "oom" => Ok(Fault::OutOfMemory),
            "transfer" => Ok(Fault::Transfer),
            "slow" => Ok(Fault::Slow),
            "stuck" => Ok(Fault::Stuck),
            _ => Err(FaultSyntax {
                text: text.to_owned(),
            }),
        }
    }
}

impl fmt::Display for Injection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.fault, self.every)
    }
}

impl FromStr for Injection {
    type Err = FaultSyntax;

    fn from_str(text: &str) -> Result<Injection, FaultSyntax> {
        let syntax = || FaultSyntax {
            text: text.to_owned(),
        };
        let (fault, every) = text.split_once(':').unwrap_or((text, "1"));
        let every = every.parse().ok().filter(|every| *every > 0);
        Ok(Injection {
            fault: fault.parse().map_err(|_| syntax())?,
            every: every.ok_or_else(syntax)?,
        })
    }
}
