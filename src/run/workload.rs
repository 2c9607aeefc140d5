//! Which models are leased, when, and for how long.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use malloc_stats::Size;
use plimsoll_tui::paint::shortened;
use serde::Deserialize;

use super::random::Random;

/// Where a lease is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum On {
    /// On the run's device, which may be the CPU.
    #[default]
    Device,
    /// On the CPU.
    Cpu,
}

/// One lease of a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    /// Indices of the models.
    pub(crate) models: Vec<usize>,
    /// Where they are wanted.
    pub(crate) on: On,
    /// How long the lease is held.
    pub(crate) hold: Duration,
    /// When it is asked for, from the start; at once where absent.
    pub(crate) at: Option<Duration>,
}

/// What is wrong with a workload.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkloadError {
    #[error("no workload `{name}`: cyclic, zipf, random, or a file (with a slash or an extension)")]
    Unknown { name: String },
    #[error("cannot read workload {}: {source}", path.display())]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{}, line {line}: {reason}", path.display())]
    Line {
        path: PathBuf,
        line: usize,
        reason: String,
    },
    #[error("{}: {} is no workload; the most that is read is {}", path.display(), Size(*bytes), Size(LARGEST_FILE))]
    TooLarge { path: PathBuf, bytes: u64 },
    #[error("{}: no step in it", path.display())]
    Empty { path: PathBuf },
    #[error("--steps {steps}: takes 1 to {MOST_STEPS}")]
    Steps { steps: usize },
}

const LARGEST_FILE: u64 = 64 << 20;
const MOST_STEPS: usize = 10_000_000;
const LONGEST_HOLD_MS: u64 = 86_400_000;

/// Columns of a file's own words in an error.
const LONGEST_ECHO: usize = 80;

/// How steep the zipf workload is: the exponent of its ranks, the order of which is the models'.
const ZIPF_EXPONENT: f64 = 1.1;

/// Leases for each model where nothing is said.
const STEPS_PER_MODEL: usize = 4;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    lease: Vec<String>,
    #[serde(default)]
    on: Option<String>,
    #[serde(default)]
    hold_ms: u64,
    #[serde(default)]
    at_ms: Option<u64>,
}

/// The steps of a workload over models.
pub(crate) fn read(
    name: &str,
    models: &[String],
    steps: Option<usize>,
    seed: u64,
) -> Result<Vec<Step>, WorkloadError> {
    if let Some(steps) = steps
        && !(1..=MOST_STEPS).contains(&steps)
    {
        return Err(WorkloadError::Steps { steps });
    }
    let count = steps.unwrap_or(models.len() * STEPS_PER_MODEL);
    let one = |model| Step {
        models: vec![model],
        on: On::default(),
        hold: Duration::ZERO,
        at: None,
    };
    let mut random = Random::new(seed);
    match name {
        "cyclic" => Ok((0..count).map(|step| one(step % models.len())).collect()),
        "random" => Ok((0..count)
            .map(|_| one(random.below(models.len() as u64) as usize))
            .collect()),
        "zipf" => {
            let weights: Vec<f64> = (1..=models.len())
                .map(|rank| (rank as f64).powf(-ZIPF_EXPONENT))
                .collect();
            let total: f64 = weights.iter().sum();
            Ok((0..count)
                .map(|_| {
                    let mut left = random.fraction() * total;
                    let chosen = weights.iter().position(|weight| {
                        left -= weight;
                        left < 0.0
                    });
                    one(chosen.unwrap_or(models.len() - 1))
                })
                .collect())
        }
        path if path.contains('/') || path.contains('.') => {
            let all = from_file(Path::new(path), models)?;
            Ok(all
                .iter()
                .cycle()
                .take(steps.unwrap_or(all.len()))
                .cloned()
                .collect())
        }
        other => Err(WorkloadError::Unknown {
            name: other.escape_debug().to_string(),
        }),
    }
}

fn from_file(path: &Path, models: &[String]) -> Result<Vec<Step>, WorkloadError> {
    let io = |source| WorkloadError::Io {
        path: path.to_owned(),
        source,
    };
    let meta = std::fs::metadata(path).map_err(io)?;
    if !meta.is_file() {
        return Err(io(std::io::Error::other("not a regular file")));
    }
    if meta.len() > LARGEST_FILE {
        return Err(WorkloadError::TooLarge {
            path: path.to_owned(),
            bytes: meta.len(),
        });
    }
    let file = File::open(path).map_err(io)?;
    let mut names: HashMap<&str, usize> = HashMap::with_capacity(models.len());
    for (index, name) in models.iter().enumerate() {
        names.insert(name, index);
    }
    let mut steps = Vec::new();
    let lines = BufReader::new(file.take(LARGEST_FILE)).split(b'\n');
    for (number, line) in lines.enumerate() {
        let line = line.map_err(io)?;
        if line.trim_ascii().is_empty() {
            continue;
        }
        let step = step(&line, &names).map_err(|reason| WorkloadError::Line {
            path: path.to_owned(),
            line: number + 1,
            reason,
        })?;
        steps.push(step);
    }
    if steps.is_empty() {
        return Err(WorkloadError::Empty {
            path: path.to_owned(),
        });
    }
    Ok(steps)
}

fn step(line: &[u8], models: &HashMap<&str, usize>) -> Result<Step, String> {
    if line.starts_with(b"\xef\xbb\xbf") {
        return Err("begins with a byte order mark; save the file without one".to_owned());
    }
    if !line.trim_ascii_start().starts_with(b"{") {
        return Err("is no JSON object, such as {\"lease\":[\"m0\"]}".to_owned());
    }
    let line: Line = serde_json::from_slice(line).map_err(|error| {
        let text = error.to_string();
        // The position is within the line, which is named already.
        let words = text.split(" at line ").next().unwrap_or(&text);
        format!(
            "{} (column {})",
            shortened(words, LONGEST_ECHO),
            error.column()
        )
    })?;
    if line.lease.is_empty() {
        return Err("`lease` names no model".to_owned());
    }
    let on = match line.on.as_deref() {
        None | Some("device") => On::Device,
        Some("cpu") => On::Cpu,
        Some(other) => {
            let other = other.escape_debug().to_string();
            return Err(format!(
                "no device `{}` here: cpu, or device, which is what --device names",
                shortened(&other, LONGEST_ECHO)
            ));
        }
    };
    if line.hold_ms.max(line.at_ms.unwrap_or(0)) > LONGEST_HOLD_MS {
        return Err(format!(
            "`hold_ms` and `at_ms` take at most {LONGEST_HOLD_MS}"
        ));
    }
    let mut step = Step {
        models: Vec::new(),
        on,
        hold: Duration::from_millis(line.hold_ms),
        at: line.at_ms.map(Duration::from_millis),
    };
    let mut seen = HashSet::new();
    for name in &line.lease {
        let index = *models.get(name.as_str()).ok_or_else(|| {
            let mut known: Vec<&str> = models.keys().copied().collect();
            known.sort_unstable();
            let more = if known.len() > 12 { ", …" } else { "" };
            known.truncate(12);
            let name = name.escape_debug().to_string();
            format!(
                "no model `{}`; there are {}{more}",
                shortened(&name, LONGEST_ECHO),
                known.join(", ").escape_debug()
            )
        })?;
        if seen.insert(index) {
            step.models.push(index);
        }
    }
    Ok(step)
}
