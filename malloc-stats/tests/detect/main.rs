#![allow(clippy::unwrap_used)]
//! Who serves `malloc` in live processes, told from outside.

mod hostile;
mod live;
mod loaded;

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use malloc_stats::Metric;
use malloc_stats::inspect::{Detection, Target, detect};
use malloc_stats::mappings::Mapping;

/// A program of this folder, built in a directory of its own.
struct Built {
    directory: tempfile::TempDir,
    path: PathBuf,
}

impl Built {
    /// `None` where the compiler is missing or cannot do that; which is said.
    fn with(compiler: &str, source: &str, flags: &[&str]) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(source.replace(".c", ".built"));
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/detect");
        let built = Command::new(compiler)
            .arg(sources.join(source))
            .arg("-o")
            .arg(&path)
            .args(flags)
            .output();
        match built {
            Ok(output) if output.status.success() => Some(Self { directory, path }),
            Ok(output) => {
                let why = String::from_utf8_lossy(&output.stderr);
                println!("skipped: {compiler} {flags:?} cannot build {source}: {why}");
                None
            }
            Err(error) => {
                println!("skipped: {compiler} is not there: {error}");
                None
            }
        }
    }
}

/// A process that waits for the end of its input, and is ended with this.
struct Waiting {
    child: Child,
    /// The first line it wrote: it is past its start, then.
    said: String,
}

impl Waiting {
    fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let output = child.stdout.as_mut().unwrap();
        BufReader::new(output).read_line(&mut said).unwrap();
        let said = said.trim_end().to_owned();
        Self { child, said }
    }

    fn program(path: &Path) -> Self {
        Self::start(&mut Command::new(path))
    }

    fn preloading(path: &Path, library: impl AsRef<OsStr>) -> Self {
        Self::start(Command::new(path).env("LD_PRELOAD", library))
    }

    fn detection(&self) -> Detection {
        let target = Target::open(self.child.id()).unwrap();
        let mappings = target.mappings().unwrap();
        detect(&target, &mappings, &|mapping| resident(&target, mapping))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `Rss` of a mapping in `/proc/PID/smaps`.
fn resident(target: &Target, mapping: &Mapping) -> Metric {
    let smaps = target.text("smaps").unwrap();
    let start = format!("{:08x}-{:08x} ", mapping.range.start, mapping.range.end);
    let of_mapping = smaps.lines().skip_while(|line| !line.starts_with(&start));
    let line = of_mapping
        .skip(1)
        .find_map(|line| line.strip_prefix("Rss:"));
    let kilobytes = line.and_then(|l| l.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Metric::from(kilobytes.map(|k| k * 1024))
}

/// Where a library of a package lies; says so where it does not.
fn library(name: &str) -> Option<PathBuf> {
    let folders = [
        format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH),
        "/usr/lib64".to_owned(),
        "/usr/lib".to_owned(),
    ];
    let found = folders
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.exists());
    if found.is_none() {
        println!("skipped: {name} is not installed");
    }
    found
}
