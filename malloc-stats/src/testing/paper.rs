//! What the test and the process made for its measurement hand to each other: a piece of memory
//! (`memfd_create(2)`) that both have open. No file is left behind, whoever is killed.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::sync::OnceLock;

use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use super::{Fragmentation, Outcome};

/// The environment variable by which a process knows that it was made for a measurement: the
/// number of a descriptor.
pub const VARIABLE: &str = "MALLOC_STATS_MEASURE";

/// The result of the most cycles, with room to spare.
const LONGEST: u64 = 64 << 20;

/// What stands on it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Written {
    /// By the test.
    Asked(Asked),
    /// By the process: it has come to the call.
    Begun,
    /// By the process.
    Measured(Fragmentation),
    /// By the process: why it could not.
    Failed(String),
}

/// Which measurement is to be taken: the one after the `earlier`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Asked {
    pub(super) test: String,
    pub(super) earlier: Vec<Outcome>,
    /// Who asks. Processes that the closure starts inherit the variable, and are not meant.
    parent: u32,
}

impl Asked {
    pub(super) fn new(test: &str, earlier: Vec<Outcome>) -> Self {
        Self {
            test: test.to_owned(),
            earlier,
            parent: std::process::id(),
        }
    }
}

#[derive(Debug)]
pub(super) struct Paper(File);

impl Paper {
    /// A new one, that processes started from here inherit.
    pub(super) fn new() -> io::Result<Self> {
        let descriptor = memfd_create("malloc-stats measurement", MemfdFlags::empty())?;
        Ok(Self(File::from(descriptor)))
    }

    /// The one that a process was given by number. Opened anew: so nothing has to be believed of
    /// that number.
    fn given(number: &str) -> io::Result<Self> {
        let number: u32 = number
            .parse()
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let path = format!("/proc/self/fd/{number}");
        let file = File::options().read(true).write(true).open(path)?;
        Ok(Self(file))
    }

    pub(super) fn number(&self) -> String {
        self.0.as_raw_fd().to_string()
    }

    pub(super) fn write(&self, what: &Written) -> io::Result<()> {
        let text = serde_json::to_vec(what)?;
        let mut file = &self.0;
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&text)
    }

    pub(super) fn read(&self) -> io::Result<Written> {
        let mut text = Vec::new();
        let mut file = &self.0;
        file.seek(SeekFrom::Start(0))?;
        file.take(LONGEST).read_to_end(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    }
}

/// What this process was made to measure; `None` in an ordinary one.
pub(super) fn asked() -> Option<&'static Result<Asked, String>> {
    static ASKED: OnceLock<Option<Result<Asked, String>>> = OnceLock::new();
    ASKED
        .get_or_init(|| {
            let number = std::env::var_os(VARIABLE)?;
            let read = Paper::given(&number.to_string_lossy()).and_then(|paper| paper.read());
            let parent = rustix::process::getppid();
            let parent = parent.map(|pid| pid.as_raw_nonzero().get());
            Some(match read {
                Ok(Written::Asked(asked)) if parent.map(i64::from) == Some(asked.parent.into()) => {
                    Ok(asked)
                }
                _ => Err(format!(
                    "{VARIABLE} is set, and not for this process: is it one that a measured closure \
                     started? It cannot measure as well; else unset the variable"
                )),
            })
        })
        .as_ref()
}

/// The same piece of memory, to write the result to.
pub(super) fn own() -> io::Result<Paper> {
    Paper::given(&std::env::var(VARIABLE).unwrap_or_default())
}
