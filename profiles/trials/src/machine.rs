//! Where runs were measured, and in what that differs from here.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use malloc_stats::Provider;
use serde::{Deserialize, Serialize};

use crate::trial::Trial;
use crate::words::{escaped, hint};

/// What of a machine moves the numbers of memory and time. Empty where it could not be told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Who served `malloc` in the program, in words, such as `glibc 2.36`.
    pub allocator: String,
    /// The C library, such as `glibc 2.36` (`gnu_get_libc_version(3)`).
    pub libc: String,
    /// The processor's architecture (`uname -m`).
    pub arch: String,
    /// The kernel's release (`uname -r`).
    pub kernel: String,
    /// Processors that the program could run on (`sched_getaffinity(2)`).
    pub cores: Option<u32>,
    /// Bytes of a page.
    pub page_bytes: u64,
    /// Transparent huge pages: `always`, `madvise` or `never`
    /// (`/sys/kernel/mm/transparent_hugepage/enabled`).
    pub thp: String,
}

impl Machine {
    /// This one. Which allocator serves the program is told: see [`Machine::serving`].
    #[must_use]
    pub fn here(allocator: impl Into<String>) -> Machine {
        let uname = rustix::system::uname();
        let libc = Provider::of_malloc().libc_version.as_ref();
        let thp = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
        Machine {
            allocator: allocator.into(),
            libc: libc.map_or_else(String::new, |version| format!("glibc {version}")),
            arch: uname.machine().to_string_lossy().into_owned(),
            kernel: uname.release().to_string_lossy().into_owned(),
            cores: rustix::thread::sched_getaffinity(None)
                .ok()
                .map(|set| set.count()),
            page_bytes: rustix::param::page_size() as u64,
            thp: chosen(&thp.unwrap_or_default()),
        }
    }

    /// The allocators that served these runs: one, unless they differ or nobody could tell.
    #[must_use]
    pub fn serving(trials: &[Trial]) -> BTreeSet<&str> {
        let allocators = trials.iter().map(|trial| trial.allocator.as_str());
        allocators.filter(|it| !it.is_empty()).collect()
    }

    /// In what the machine of a baseline differs from this one, as far as that moves numbers: of
    /// allocator and kernel the major and minor version, all else as a whole.
    #[must_use]
    pub fn differences(&self, now: &Machine) -> Vec<Difference> {
        let number = |number: Option<u64>| number.map_or_else(String::new, |it| it.to_string());
        let cores = |machine: &Machine| number(machine.cores.map(u64::from));
        let pages = |machine: &Machine| format!("{} B", machine.page_bytes);
        let both = [
            (
                What::Allocator,
                self.allocator.clone(),
                now.allocator.clone(),
            ),
            (What::Libc, self.libc.clone(), now.libc.clone()),
            (What::Arch, self.arch.clone(), now.arch.clone()),
            (What::Kernel, self.kernel.clone(), now.kernel.clone()),
            (What::Cores, cores(self), cores(now)),
            (What::PageSize, pages(self), pages(now)),
            (What::Thp, self.thp.clone(), now.thp.clone()),
        ];
        both.into_iter()
            .filter(|(what, then, now)| match what {
                What::Allocator => served(then) != served(now),
                What::Kernel => major_minor(then) != major_minor(now),
                _ => then != now,
            })
            .map(|(what, then, now)| Difference::new(what, &then, &now))
            .collect()
    }
}

/// The word in brackets, as the kernel marks the one in force.
fn chosen(text: &str) -> String {
    let rest = text.split_once('[').map_or("", |(_, rest)| rest);
    rest.split_once(']').map_or("", |(word, _)| word).to_owned()
}

/// An allocator's name, and its version up to the minor one.
fn served(words: &str) -> (String, &str) {
    let name = words.split(['(', ',']).next();
    let name = name.unwrap_or_default();
    let is_version = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
    let version = name.split_whitespace().find(is_version);
    let name: Vec<&str> = name
        .split_whitespace()
        .take_while(|word| !is_version(word))
        .collect();
    let name = name.join(" ").to_lowercase();
    (name, version.map_or("", major_minor))
}

/// `6.1` of `6.1.0-18-amd64`; the whole text where it does not begin like that.
fn major_minor(version: &str) -> &str {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let major = digits(version);
    let Some(rest) = version[major..].strip_prefix('.') else {
        return version;
    };
    match digits(rest) {
        0 => version,
        minor => &version[..major + 1 + minor],
    }
}

/// In what a check can differ from its baseline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// What is run: the command, or the options of a run.
    Subject,
    /// The profile, or its knobs.
    Profile,
    /// Who serves `malloc`, up to the minor version.
    Allocator,
    /// The C library.
    Libc,
    /// The processor's architecture.
    Arch,
    /// The kernel, up to the minor version.
    Kernel,
    /// How many processors the program may run on.
    Cores,
    /// The size of a page.
    PageSize,
    /// Transparent huge pages.
    Thp,
}

impl What {
    /// All of them.
    pub const ALL: [What; 9] = [
        What::Subject,
        What::Profile,
        What::Allocator,
        What::Libc,
        What::Arch,
        What::Kernel,
        What::Cores,
        What::PageSize,
        What::Thp,
    ];

    /// Its name on the command line and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            What::Subject => "subject",
            What::Profile => "profile",
            What::Allocator => "allocator",
            What::Libc => "libc",
            What::Arch => "arch",
            What::Kernel => "kernel",
            What::Cores => "cores",
            What::PageSize => "page_size",
            What::Thp => "thp",
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Something that differs. Prints as `kernel: 6.1.0 then, 6.18.44 now`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What.
    pub what: What,
    /// As the baseline has it, escaped.
    pub then: String,
    /// As it is here, escaped.
    pub now: String,
}

impl Difference {
    pub(crate) fn new(what: What, then: &str, now: &str) -> Difference {
        let shown = |text: &str| match text {
            "" => "unknown".to_owned(),
            text => escaped(text),
        };
        Difference {
            what,
            then: shown(then),
            now: shown(now),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { what, then, now } = self;
        write!(f, "{what}: {then} then, {now} now")
    }
}

/// Across which differences a comparison is wanted all the same: `kernel,cores`, or `any`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Across(BTreeSet<What>);

impl FromStr for Across {
    type Err = UnknownDifference;

    fn from_str(text: &str) -> Result<Across, UnknownDifference> {
        let mut across = BTreeSet::new();
        for name in text.split(',').map(str::trim) {
            match What::ALL.into_iter().find(|what| what.name() == name) {
                Some(what) => {
                    across.insert(what);
                }
                None if name == "any" => across.extend(What::ALL),
                None => {
                    let names = What::ALL.iter().map(|what| what.name());
                    return Err(UnknownDifference {
                        name: escaped(name),
                        hint: hint(name, names.chain(["any"])),
                    });
                }
            }
        }
        Ok(Across(across))
    }
}

impl Across {
    /// The differences, where all of them are allowed.
    ///
    /// # Errors
    /// Those that are not allowed.
    pub fn admit(&self, differences: Vec<Difference>) -> Result<Vec<Difference>, Differs> {
        let refused: Vec<Difference> = differences
            .iter()
            .filter(|difference| !self.0.contains(&difference.what))
            .cloned()
            .collect();
        if refused.is_empty() {
            Ok(differences)
        } else {
            let mut across = self.0.clone();
            across.extend(refused.iter().map(|difference| difference.what));
            Err(Differs { refused, across })
        }
    }
}

/// A name that is no difference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no difference `{name}`: {hint}")]
pub struct UnknownDifference {
    name: String,
    hint: String,
}

/// A baseline that was taken elsewhere or of something else. Prints all differences, and both ways
/// out, in a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Differs {
    /// What differs and is not allowed to.
    pub refused: Vec<Difference>,
    /// What would have to be allowed.
    across: BTreeSet<What>,
}

impl fmt::Display for Differs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let refused: Vec<String> = self.refused.iter().map(Difference::to_string).collect();
        let across: Vec<&str> = self.across.iter().map(|what| what.name()).collect();
        write!(
            f,
            "the baseline is not of the same kind ({}); `--update` takes a new one here, `--across \
             {}` compares all the same",
            refused.join("; "),
            across.join(",")
        )
    }
}

impl std::error::Error for Differs {}
