//! This process's own memory: what is resident, of which kind, and how often it faulted.
//!
//! Read before and after every load of a model, so the descriptor stays open, the text goes into a
//! buffer on the stack, and it is parsed by hand.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::metric::{Grade, Metric};

const STATUS: &str = "/proc/self/status";

/// The resident memory of a process, split as `/proc/PID/status` splits it, and its page faults.
///
/// How far the numbers can be trusted depends on the kernel. From Linux 6.2 to 6.16 the counters
/// are kept per CPU and read without the parts not yet folded in, off by up to `max(32, 2 × CPUs)`
/// pages for each CPU; before 6.2 each thread keeps up to 64 events to itself. So these are
/// `Estimated` there. Linux 6.17 ("mm: fix the inaccurate memory statistics issue for users")
/// sums the parts when the file is read, and on 6.18 `VmRSS` equals the `Rss` of
/// `/proc/self/smaps_rollup`: `Exact` from there. Stable kernels that took the same patch are
/// graded by their version number, so too low.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    /// All that is resident: `VmRSS`, the sum of the next three.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub rss: Metric,
    /// Resident anonymous memory: heaps, stacks, private pages that were written to. `RssAnon`,
    /// since Linux 4.5.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub anon: Metric,
    /// Resident pages of mapped files: `RssFile`. The kernel can drop the clean ones, so this is
    /// no leak.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub file: Metric,
    /// Resident shared memory (tmpfs, memfd, System V): `RssShmem`.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub shmem: Metric,
    /// The most that was resident at any time: `VmHWM`. Never better than `Estimated`: the kernel
    /// notes the peak from the unsummed counters, and only now and then.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub hwm: Metric,
    /// Anonymous memory in swap: `VmSwap`; without shared memory.
    #[serde(skip_serializing_if = "Metric::is_unavailable")]
    pub swap: Metric,
    /// Page faults that needed no I/O, of all threads, since the start (`getrusage(2)`).
    pub minor_faults: u64,
    /// Page faults that waited for I/O, of all threads, since the start (`getrusage(2)`).
    pub major_faults: u64,
}

/// The grade of the RSS counters on a kernel of this release (`uname -r`, such as
/// `6.18.2-arch1-1`).
#[must_use]
pub fn rss_grade(release: &str) -> Grade {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|digits| digits.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= (6, 17) {
        Grade::Exact
    } else {
        Grade::Estimated
    }
}

/// Takes the memory out of the text of `/proc/PID/status`; the faults stay 0.
///
/// A field that is missing or malformed is unavailable. Allocates nothing.
#[must_use]
pub fn parse_status(status: &[u8], grade: Grade) -> Process {
    let mut process = Process::default();
    for line in status.split(|byte| *byte == b'\n') {
        // Of sixty lines six matter; their first letters tell most others apart.
        if !matches!(line.first(), Some(b'V' | b'R')) {
            continue;
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let (name, value) = line.split_at(colon);
        let field = match name {
            b"VmHWM" => &mut process.hwm,
            b"VmRSS" => &mut process.rss,
            b"RssAnon" => &mut process.anon,
            b"RssFile" => &mut process.file,
            b"RssShmem" => &mut process.shmem,
            b"VmSwap" => {
                process.swap =
                    kibibytes(value).map_or(Metric::Unavailable, |b| Metric::graded(b, grade));
                break;
            }
            _ => continue,
        };
        *field = kibibytes(value).map_or(Metric::Unavailable, |b| Metric::graded(b, grade));
    }
    process.hwm = process.hwm.at_best(Grade::Estimated);
    process
}

/// The bytes in `:   1234 kB`.
fn kibibytes(value: &[u8]) -> Option<u64> {
    let number = value.get(1..)?.trim_ascii().strip_suffix(b" kB")?;
    decimal(number)?.checked_mul(1024)
}

/// A number of decimal digits and nothing else.
pub(crate) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| digit - b'0')?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// `/proc/self/status`, kept open.
#[derive(Debug)]
pub(crate) struct Status {
    file: File,
    grade: Grade,
}

impl Status {
    pub(crate) fn open() -> Result<Self, Error> {
        let file = File::open(STATUS).map_err(|source| Error::Open {
            path: STATUS.into(),
            source,
        })?;
        let release = rustix::system::uname();
        let grade = rss_grade(&release.release().to_string_lossy());
        Ok(Self { file, grade })
    }

    pub(crate) fn read(&self) -> Process {
        // A status is 1.5 KiB; a long list of supplementary groups comes before the memory.
        let mut buffer = [0; 8192];
        let read = self.file.read_at(&mut buffer, 0).unwrap_or(0);
        let mut process = parse_status(buffer.get(..read).unwrap_or_default(), self.grade);
        let (minor, major) = faults();
        process.minor_faults = minor;
        process.major_faults = major;
        process
    }
}

/// Minor and major page faults of this process.
fn faults() -> (u64, u64) {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: getrusage(2) writes one rusage, or nothing where it fails; zeroes are a valid rusage.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let count = |faults: libc::c_long| u64::try_from(faults).unwrap_or(0);
    (count(usage.ru_minflt), count(usage.ru_majflt))
}

/// Reads a small file of the kernel, such as a cgroup's counter.
pub(crate) fn read_counter(file: &File) -> Option<u64> {
    let mut buffer = [0; 32];
    let read = file.read_at(&mut buffer, 0).ok()?;
    decimal(buffer.get(..read)?.trim_ascii())
}

/// The lines of a file, never more than one of them in memory: a buffer that doubles would pass
/// through glibc's mmap threshold, and freeing it would raise the threshold for good.
pub(crate) fn for_each_line(path: &Path, mut with: impl FnMut(&str)) -> std::io::Result<()> {
    use std::io::{BufRead, BufReader};

    let mut lines = BufReader::with_capacity(16 << 10, File::open(path)?);
    let mut line = Vec::with_capacity(512);
    while lines.read_until(b'\n', &mut line)? > 0 {
        with(String::from_utf8_lossy(&line).trim_end_matches('\n'));
        line.clear();
    }
    Ok(())
}
