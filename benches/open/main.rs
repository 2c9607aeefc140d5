//! Opening models of 400 GB by their headers: sparse files, as safetensors with an index and as split
//! GGUF, beside what candle does with the same files.
//!
//! Each sample is a fresh process, and the loaders take turns, so that what changes on the machine
//! changes for all. Printed are medians, and ratios to the peer.
//!
//! `cargo bench --bench open` (15 rounds), `cargo bench --bench open -- 5`.

mod files;

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::quantized::gguf_file::Content;
use candle_core::safetensors::MmapedSafetensors;
use malloc_stats::{Metric, Reader, Size};
use plimsoll_cache::Model;
use plimsoll_tui::table::{Align, Table};
use rustix::time::{ClockId, clock_gettime};

#[global_allocator]
static ALLOCATOR: plimsoll_profiles::Selected = plimsoll_profiles::Selected;

type Failure = Box<dyn std::error::Error>;

const OURS: &str = "plimsoll";
/// `MmapedSafetensors::multi`.
const MAPPED: &str = "candle, mapped";
/// `gguf_file::Content::read` of each part.
const CONTENT: &str = "candle, each part";

/// What one opening took and gave.
#[derive(Debug, Clone, Copy)]
struct Sample {
    wall_ms: f64,
    cpu_ms: f64,
    /// New resident memory at its highest, bytes.
    peak: f64,
    /// New resident memory with the model open, bytes.
    open: f64,
    tensors: f64,
    files: f64,
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    if let [what, loader, folder] = &arguments[..]
        && what == "sample"
    {
        return sample(loader, Path::new(folder));
    }
    let rounds: usize = arguments.first().map_or(Ok(15), |text| text.parse())?;
    let folder = std::env::temp_dir().join(format!("plimsoll-open-{}", std::process::id()));
    let outcome = compare(&folder, rounds.max(1));
    std::fs::remove_dir_all(&folder)?;
    outcome
}

fn compare(folder: &Path, rounds: usize) -> Result<(), Failure> {
    println!("sparse files, page cache warm, glibc, {rounds} rounds\n");
    let mut table = Table::new([
        ("model", Align::Left),
        ("loader", Align::Left),
        ("wall ms", Align::Right),
        ("min", Align::Right),
        ("max", Align::Right),
        ("CPU ms", Align::Right),
        ("x peer", Align::Right),
        ("peak RSS", Align::Right),
        ("open", Align::Right),
        ("tensors", Align::Right),
        ("files", Align::Right),
        ("GB", Align::Right),
    ]);
    for (name, model) in [("dense", files::dense()), ("experts", files::experts())] {
        for (format, peer, write) in [
            ("safetensors", MAPPED, files::safetensors as files::Write),
            ("split GGUF", CONTENT, files::gguf),
        ] {
            let folder = folder.join(format!("{name}-{format}"));
            std::fs::create_dir_all(&folder)?;
            let bytes = write(&folder, &model)?;
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for _ in 0..rounds {
                ours.push(spawn(OURS, &folder)?);
                theirs.push(spawn(peer, &folder)?);
            }
            let peer_ms = median(&theirs, |s| s.wall_ms);
            for (loader, samples) in [(OURS, &ours), (peer, &theirs)] {
                let wall = || samples.iter().map(|s| s.wall_ms);
                let size = |bytes: f64| Size(bytes as u64).to_string();
                table.row([
                    format!("{name}, {format}"),
                    loader.to_owned(),
                    format!("{:.2}", median(samples, |s| s.wall_ms)),
                    format!("{:.2}", wall().fold(f64::MAX, f64::min)),
                    format!("{:.2}", wall().fold(0.0, f64::max)),
                    format!("{:.2}", median(samples, |s| s.cpu_ms)),
                    format!("{:.2}", median(samples, |s| s.wall_ms) / peer_ms),
                    size(median(samples, |s| s.peak)),
                    size(median(samples, |s| s.open)),
                    median(samples, |s| s.tensors).to_string(),
                    median(samples, |s| s.files).to_string(),
                    format!("{:.0}", bytes as f64 / 1e9),
                ]);
            }
            std::fs::remove_dir_all(&folder)?;
        }
    }
    print!("{table}");
    Ok(())
}

fn median(samples: &[Sample], pick: fn(&Sample) -> f64) -> f64 {
    let mut values: Vec<f64> = samples.iter().map(pick).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn spawn(loader: &str, folder: &Path) -> Result<Sample, Failure> {
    let output = std::process::Command::new(std::env::current_exe()?)
        .args(["sample", loader])
        .arg(folder)
        .env(plimsoll_profiles::ALLOCATOR_VARIABLE, "glibc")
        .stderr(std::process::Stdio::inherit())
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let numbers: Result<Vec<f64>, _> = text.split_whitespace().map(str::parse).collect();
    match numbers.as_deref() {
        Ok(&[wall_ms, cpu_ms, peak, open, tensors, files]) if output.status.success() => {
            Ok(Sample {
                wall_ms,
                cpu_ms,
                peak,
                open,
                tensors,
                files,
            })
        }
        _ => Err(format!("{loader}: {}: {text}", output.status).into()),
    }
}

/// A model that is open, whoever opened it.
enum Opened {
    Ours(Model),
    Mapped(MmapedSafetensors, usize),
    Contents(Vec<Content>),
}

/// Opens once and prints what it took. What is resident of a file's own mapping counts as resident.
fn sample(loader: &str, folder: &Path) -> Result<(), Failure> {
    // The peer is told its files; ours finds them by the index, or by the first part.
    let mut paths = std::fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<PathBuf>, std::io::Error>>()?;
    paths.sort();
    let index = paths.iter().position(|path| path.ends_with(files::INDEX));
    let index = index.map(|at| paths.remove(at));
    let model = index.as_ref().or(paths.first()).ok_or("no files")?;

    let reader = Reader::new(malloc_stats::Allocator {
        kind: plimsoll_profiles::serving(),
        ..malloc_stats::Allocator::default()
    })?;
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let before = reader.bracket().process;
    let cpu = processor_ms();
    let started = Instant::now();
    let opened = match loader {
        OURS => Opened::Ours(Model::open(model)?),
        MAPPED => {
            // SAFETY: nobody changes the files while they are mapped.
            let mapped = unsafe { MmapedSafetensors::multi(&paths)? };
            Opened::Mapped(mapped, paths.len())
        }
        _ => {
            let contents = paths.iter().map(|path| {
                let mut file = BufReader::with_capacity(64 << 10, File::open(path)?);
                Ok(Content::read(&mut file)?)
            });
            Opened::Contents(contents.collect::<Result<_, Failure>>()?)
        }
    };
    let wall_ms = started.elapsed().as_secs_f64() * 1e3;
    let cpu_ms = processor_ms() - cpu;
    let after = reader.bracket().process;
    let (tensors, files) = match &opened {
        Opened::Ours(model) => (model.tensors().len(), model.files().len()),
        Opened::Mapped(mapped, files) => (mapped.tensors().len(), *files),
        Opened::Contents(contents) => {
            let tensors = contents.iter().map(|content| content.tensor_infos.len());
            (tensors.sum(), contents.len())
        }
    };
    let new = |after: Metric| {
        let bytes = after.bytes().unwrap_or(0);
        bytes.saturating_sub(before.rss.bytes().unwrap_or(0))
    };
    let (peak, open) = (new(after.hwm).max(new(after.rss)), new(after.rss));
    println!("{wall_ms} {cpu_ms} {peak} {open} {tensors} {files}");
    Ok(())
}

/// Processor time of this process, all threads.
fn processor_ms() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}
