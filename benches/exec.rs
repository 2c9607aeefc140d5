//! What `plimsoll exec` costs the program that it looks at: the same program bare and under it, in
//! turns, by the processor time of everything that ran.
//!
//!     cargo bench --bench exec

#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;
use std::process::{Command, Stdio};
use std::time::Duration;

use malloc_stats::Size;
use plimsoll_trials::statistics::{Spread, probability_of_difference};
use plimsoll_tui::table::{Align, Table};

const ROUNDS: usize = 15;

/// Which program this process is to be.
const PROGRAM: &str = "BENCH_PROGRAM";

/// What is compared: a name, blocks that are alive at a time in each thread, their largest size,
/// and how often one is replaced.
const PROGRAMS: [(&str, usize, usize, u64); 3] = [
    ("small blocks", 4_000, 512, 180_000_000),
    ("tensors and small blocks", 600, 4 << 20, 1_500_000),
    (
        "a heap of 0.5 GiB in small blocks",
        1_000_000,
        1_000,
        24_000_000,
    ),
];

fn main() {
    if let Ok(program) = std::env::var(PROGRAM) {
        let (_, alive, largest, times) = PROGRAMS[program.parse::<usize>().unwrap()];
        return allocate(alive, largest, times);
    }
    println!("Processor time of all that ran, {ROUNDS} rounds in turns, medians\n");
    let mut table = Table::new([
        ("program", Align::Left),
        ("bare", Align::Right),
        ("+-", Align::Right),
        ("exec", Align::Right),
        ("+-", Align::Right),
        ("exec / bare", Align::Right),
        ("p", Align::Right),
        ("its account", Align::Right),
        ("wall / bare", Align::Right),
        ("peak RSS", Align::Right),
        ("looks", Align::Right),
    ]);
    for (number, (name, ..)) in PROGRAMS.iter().enumerate() {
        let (mut bare, mut exec) = (Vec::new(), Vec::new());
        let (mut bare_wall, mut exec_wall) = (Vec::new(), Vec::new());
        let (mut seen, mut sampling) = (serde_json::Value::Null, Vec::new());
        for _ in 0..ROUNDS {
            let (cpu, wall) = time(Command::new(std::env::current_exe().unwrap()), number);
            bare.push(cpu);
            bare_wall.push(wall);
            let report = tempfile::NamedTempFile::new().unwrap();
            let mut command = Command::new(env!("CARGO_BIN_EXE_plimsoll"));
            command.args(["exec", "--json", "-o"]).arg(report.path());
            command.arg("--").arg(std::env::current_exe().unwrap());
            let (cpu, wall) = time(command, number);
            exec.push(cpu);
            exec_wall.push(wall);
            seen = serde_json::from_reader(report.as_file()).unwrap();
            sampling.push(seen["sampling_seconds"].as_f64().unwrap());
        }
        let (b, e) = (Spread::of(&bare).unwrap(), Spread::of(&exec).unwrap());
        let (bw, ew) = (
            Spread::of(&bare_wall).unwrap(),
            Spread::of(&exec_wall).unwrap(),
        );
        let sampling = Spread::of(&sampling).unwrap().median;
        let peak = seen["peak_rss"]["bytes"].as_u64().unwrap_or(0);
        table.row([
            (*name).to_owned(),
            format!("{:.2} s", b.median),
            format!("{:.2}", b.half_range()),
            format!("{:.2} s", e.median),
            format!("{:.2}", e.half_range()),
            format!("{:.4}", e.median / b.median),
            format!("{:.3}", probability_of_difference(&bare, &exec).unwrap()),
            format!("{:.2} %", 100.0 * sampling / b.median),
            format!("{:.4}", ew.median / bw.median),
            Size(peak).to_string(),
            seen["looks"].to_string(),
        ]);
    }
    println!("{table}");
}

/// Processor and wall time of a command, and of what it waited for, in seconds.
fn time(mut command: Command, program: usize) -> (f64, f64) {
    let before = children();
    let begun = std::time::Instant::now();
    let status = command
        .env(PROGRAM, program.to_string())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let wall = begun.elapsed();
    ((children() - before).as_secs_f64(), wall.as_secs_f64())
}

/// What all children that were waited for took.
fn children() -> Duration {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: of plain numbers, so zeroed memory is one, and the kernel fills it.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr());
        usage.assume_init()
    };
    let time = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64)
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// Two threads that replace blocks of many sizes, and touch them.
fn allocate(alive: usize, largest: usize, times: u64) {
    let threads: Vec<_> = (0..2_u64)
        .map(|thread| {
            std::thread::spawn(move || {
                let mut random = 0x9e37_79b9_7f4a_7c15 ^ (thread + 1);
                let mut next = move || {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    random as usize
                };
                let mut blocks: Vec<Vec<u8>> = vec![Vec::new(); alive / 2];
                for _ in 0..times / 2 {
                    let (at, bytes) = (next() % blocks.len(), 16 + next() % largest);
                    let mut block = Vec::with_capacity(bytes);
                    block.resize(bytes.min(256), 1);
                    blocks[at] = black_box(block);
                }
                black_box(blocks);
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}
