//! `plimsoll ps`: the processes here by memory.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use malloc_stats::inspect::{Ask, Detected, Inspection, Status, Target, Users};
use malloc_stats::limits::Tightest;
use malloc_stats::{Limits, Metric, Waste};
use plimsoll_tui::inspect::waste;
use plimsoll_tui::paint::Tone;
use plimsoll_tui::ps;
use serde::Serialize;

use super::Done;
use crate::output::{Output, terminal_size};

/// List processes by memory, with their allocator, its waste, and the limit that leaves least.
#[derive(Debug, Args)]
#[command(after_help = "\
Columns:
  RSS, ANON, SWAP  resident, the anonymous part of that, and what is in swap
  ALLOCATOR        who serves malloc
  WASTE            resident in the heap beyond what is in use, where that can be read; else why
                   not: the name of an allocator that cannot be walked, `perm` without permission,
                   `gone` where the process ended meanwhile, `-` where nobody looked (--no-heaps)
  LEFT             what the limit leaves that leaves least, and which that is: a cgroup, the host
  VRAM             of all GPUs together

Kernel threads and zombies hold no memory, and are left out. Heaps are read from outside, only of
the processes that are shown, while they go on running; --sort waste reads those of all. In tables
K, M, G and T are powers of 1024; `~` is an estimate, `<=` an upper bound, `n/a` not known.

Examples:
  plimsoll ps
  plimsoll ps --sort waste --top 5
  plimsoll ps --all --no-heaps
  plimsoll ps --json | jq '.[] | select(.nearest.headroom.bytes < 1e9) | .pid'")]
pub(crate) struct Ps {
    /// Print one JSON array
    #[arg(long)]
    json: bool,
    /// Show the first N [default: what fits the terminal, or 20]
    #[arg(long, value_name = "N", conflicts_with = "all")]
    top: Option<usize>,
    /// Show every process
    #[arg(long)]
    all: bool,
    /// What comes first: the most memory, the most waste, or the least left
    #[arg(long, value_enum, default_value_t)]
    sort: Sort,
    /// Do not look into heaps: quicker, without waste
    #[arg(long)]
    no_heaps: bool,
}

/// What comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Sort {
    /// The most resident memory
    #[default]
    Rss,
    /// The most waste in the heap
    Waste,
    /// The least left by a limit
    Limit,
}

/// Rows where the output has no height.
const ROWS: usize = 20;
/// Lines of a terminal that rows leave to headings, remarks and the prompt.
const OTHER_LINES: usize = 5;
/// So long nobody needs a bar.
const SHORT: Duration = Duration::from_secs(1);

/// A process; an element of the JSON.
#[derive(Debug, Serialize)]
struct Entry {
    pid: u32,
    uid: u32,
    user: String,
    /// Its short name.
    name: String,
    /// Its command line, or its name in brackets where it has none.
    command: String,
    rss: Metric,
    anon: Metric,
    swap: Metric,
    #[serde(skip_serializing_if = "Option::is_none")]
    allocator: Option<Detected>,
    /// What is resident in the heap beyond what is in use.
    waste: Metric,
    /// The same as a part of the heap's resident memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    waste_fraction: Option<f64>,
    /// Why there is no waste: a word, and a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    waste_absent: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waste_reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nearest: Option<Tightest>,
    vram: Metric,
}

impl Entry {
    fn new(pid: u32, status: Status, users: &Users) -> Entry {
        let command = if status.arguments.is_empty() {
            format!("[{}]", status.command)
        } else {
            status.arguments.join(" ")
        };
        Entry {
            pid,
            uid: status.uid,
            user: users.name_or_number(status.uid),
            name: status.command,
            command,
            rss: status.memory.rss,
            anon: status.memory.anon,
            swap: status.memory.swap,
            allocator: None,
            waste: Metric::Unavailable,
            waste_fraction: None,
            waste_absent: Some("-"),
            waste_reason: None,
            nearest: None,
            vram: Metric::Unavailable,
        }
    }

    /// Looks into it. What cannot be read leaves its reason.
    fn look(&mut self, heap: bool) {
        let looked = Target::open(self.pid).map_err(|error| error.to_string());
        let looked = looked.and_then(|target| {
            let ask = Ask {
                heap,
                surroundings: false,
                ..Ask::default()
            };
            match malloc_stats::inspect::inspect(&target, &ask) {
                Ok(inspection) => Ok((target, inspection)),
                Err(error) if target.readable().is_err() => {
                    self.waste_absent = Some("perm");
                    Err(error.to_string())
                }
                Err(error) => Err(error.to_string()),
            }
        });
        match looked {
            Ok((target, inspection)) => self.fill(&target, inspection, heap),
            Err(reason) => {
                if self.waste_absent != Some("perm") {
                    self.waste_absent = Some("gone");
                }
                self.waste_reason = Some(reason);
            }
        }
    }

    fn fill(&mut self, target: &Target, inspection: Inspection, heap: bool) {
        let memory = inspection.process.memory;
        (self.rss, self.anon, self.swap) = (memory.rss, memory.anon, memory.swap);
        self.nearest = inspection.limits.tightest();
        // On a GPU that is lost nothing is used.
        let gpus = inspection.vram.iter().filter(|vram| vram.absent.is_none());
        let used = gpus.map(|vram| vram.process);
        self.vram = used.reduce(Metric::plus).unwrap_or_default();
        let of_heap = inspection.heap.as_ref();
        match of_heap.and_then(|heap| waste(&heap.totals)) {
            Some(waste) => {
                self.waste = waste.bytes;
                self.waste_fraction = Some(waste.fraction);
                self.waste_absent = None;
            }
            // Nobody asked.
            None if !heap => {}
            None => {
                let allocator = &inspection.allocator;
                self.waste_absent = Some(if target.readable().is_err() {
                    "perm"
                } else {
                    word(allocator)
                });
                let reason = inspection.heap_absent.or(allocator.reason.clone());
                self.waste_reason = reason;
            }
        }
        self.allocator = Some(inspection.allocator);
    }

    fn allocator_name(&self) -> String {
        let Some(allocator) = &self.allocator else {
            return String::new();
        };
        let version = allocator.version.as_deref().unwrap_or_default();
        format!("{} {version}", allocator.name).trim().to_owned()
    }

    fn row<'a>(&'a self, allocator: &'a str) -> ps::Row<'a> {
        let waste = self.waste_fraction.map(|fraction| Waste {
            fraction,
            bytes: self.waste,
        });
        ps::Row {
            pid: self.pid,
            user: &self.user,
            rss: self.rss,
            anon: self.anon,
            swap: self.swap,
            allocator,
            waste: waste.ok_or(self.waste_absent.unwrap_or("n/a")),
            nearest: self.nearest.as_ref(),
            vram: self.vram,
            command: &self.command,
        }
    }
}

/// An allocator whose heap cannot be walked, in a word.
fn word(allocator: &Detected) -> &'static str {
    ["musl", "jemalloc", "mimalloc", "tcmalloc"]
        .into_iter()
        .find(|name| allocator.name == *name)
        .unwrap_or("n/a")
}

pub(crate) fn run(options: &Ps) -> Done {
    let output = Output::new(options.json);
    let users = Users::read();
    let mut entries = all(&users)?;
    let total = entries.len();
    let most = match (options.all, options.top) {
        (true, _) => usize::MAX,
        (false, Some(top)) => top,
        (false, None) => {
            terminal_size().map_or(ROWS, |(_, rows)| rows.saturating_sub(OTHER_LINES).max(1))
        }
    };
    if options.sort == Sort::Waste {
        if options.no_heaps {
            return Err("--sort waste needs to look into heaps: without --no-heaps".into());
        }
    } else {
        if options.sort == Sort::Limit {
            for entry in &mut entries {
                entry.nearest = Limits::of_process(entry.pid).tightest();
            }
        }
        sort(&mut entries, options.sort);
        entries.truncate(most);
    }
    look_into(&mut entries, !options.no_heaps);
    // What was found by looking is newer than what the rows were chosen by.
    sort(&mut entries, options.sort);
    entries.truncate(most);
    if output.json {
        output.value(&entries)?;
    } else {
        output.text(&page(&output, &entries, total))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What is not known is last, and the largest of equals first.
fn sort(entries: &mut [Entry], by: Sort) {
    entries.sort_by_key(|entry| (Reverse(entry.rss.bytes()), entry.pid));
    match by {
        Sort::Rss => {}
        Sort::Waste => entries.sort_by_key(|entry| Reverse(entry.waste.bytes())),
        Sort::Limit => entries.sort_by_key(|entry| {
            let nearest = entry.nearest.as_ref();
            let left = nearest.and_then(|nearest| nearest.headroom.bytes());
            (left.is_none(), left)
        }),
    }
}

/// Every process that has memory. Those that end meanwhile are left out.
fn all(users: &Users) -> std::io::Result<Vec<Entry>> {
    let known = |pid| {
        let status = Status::read(&Target::open(pid).ok()?).ok()?;
        Some(Entry::new(pid, status, users))
    };
    let entries = Target::pids()?.into_iter().filter_map(known);
    Ok(entries
        .filter(|entry| !entry.rss.is_unavailable())
        .collect())
}

/// Looks into each, with a bar where that lasts and stderr is a terminal.
fn look_into(entries: &mut [Entry], heaps: bool) {
    let bar =
        ProgressBar::with_draw_target(Some(entries.len() as u64), ProgressDrawTarget::hidden());
    if let Ok(style) = ProgressStyle::with_template("heaps {wide_bar:.dim} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    let begun = Instant::now();
    for entry in entries {
        if bar.is_hidden() && begun.elapsed() > SHORT {
            bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        bar.set_message(format!("PID {}", entry.pid));
        entry.look(heaps);
        bar.inc(1);
    }
    bar.finish_and_clear();
}

fn page(output: &Output, entries: &[Entry], total: usize) -> String {
    let paint = &output.paint;
    let names: Vec<String> = entries.iter().map(Entry::allocator_name).collect();
    let rows = entries.iter().zip(&names);
    let rows: Vec<ps::Row<'_>> = rows.map(|(entry, name)| entry.row(name)).collect();
    let mut text = ps::text(paint, &rows);
    let mut absent: BTreeMap<&str, usize> = BTreeMap::new();
    for word in entries.iter().filter_map(|entry| entry.waste_absent) {
        *absent.entry(word).or_default() += 1;
    }
    let mut remarks = Vec::new();
    if entries.len() < total {
        remarks.push(format!("{} of {total} processes (--all)", entries.len()));
    }
    if let Some(count) = absent.get("perm") {
        remarks.push(format!(
            "perm: {count} may not be read by this user; try sudo"
        ));
    }
    if !remarks.is_empty() {
        text.push_str(&paint.tone(Tone::Faint, &remarks.join("; ")));
        text.push('\n');
    }
    text
}
