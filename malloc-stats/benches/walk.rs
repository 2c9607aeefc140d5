//! What it costs to walk another process's heap, and what it costs that process.
//!
//! ```sh
//! cargo bench -p malloc-stats --bench walk
//! ```
//!
//! The target is this program again: a heap of about 460 000 chunks and 1 GiB, a third of them
//! free, and a thread that maps, touches and unmaps memory all the while and times itself. Walks
//! with windows of several sizes stand beside a reader that fetches each header by itself.

#![allow(clippy::unwrap_used, missing_docs)]

use std::alloc::System;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use malloc_stats::Metric;
use malloc_stats::heap::{self, AddressSpace, NamedLibc, Options};
use malloc_stats::inspect::{self, ProcessMemory, Target};

#[global_allocator]
static ALLOCATOR: System = System;

const CHUNKS: usize = 460_000;
const ROUNDS: usize = 7;

fn main() {
    if std::env::var_os("PLIMSOLL_WALK_TARGET").is_some() {
        return target();
    }
    let mut target = Running::start();
    let pid = Target::open(target.child.id()).unwrap();
    let chunks = look(&pid, 64 << 10).1;
    println!(
        "target: {chunks} chunks, {:.2} GiB of heap",
        gib(look(&pid, 64 << 10).2)
    );

    let mut times: Vec<(&str, Vec<Duration>)> = Vec::new();
    let windows = [
        ("walk, 16 KiB windows", 16 << 10),
        ("walk, 32 KiB windows", 32 << 10),
        ("walk, 64 KiB windows", 64 << 10),
        ("walk, 4 MiB windows", 4 << 20),
    ];
    for round in 0..ROUNDS {
        for (name, window) in windows {
            note(&mut times, round, name, look(&pid, window).0);
        }
        note(&mut times, round, "bare headers", bare(&pid));
    }
    let base = median(
        &times
            .iter()
            .find(|(name, _)| *name == "bare headers")
            .unwrap()
            .1,
    );
    println!(
        "\n{:<24} {:>12} {:>22}",
        "reader", "median, ms", "× bare header reads"
    );
    for (name, times) in &times {
        let time = median(times);
        println!(
            "{name:<24} {:>12.1} {:>22.2}",
            ms(time),
            ms(time) / ms(base)
        );
    }

    println!("\nthe target's own mmap + touch + munmap of 256 KiB, µs");
    println!(
        "{:<24} {:>8} {:>8} {:>16}",
        "meanwhile", "p50", "p99", "p99 × at rest"
    );
    let rest = target.latency(|| std::thread::sleep(Duration::from_secs(3)));
    println!(
        "{:<24} {:>8.1} {:>8.1} {:>16.2}",
        "at rest", rest.0, rest.1, 1.0
    );
    for (name, window) in [
        ("16 KiB windows", 16 << 10),
        ("32 KiB windows", 32 << 10),
        ("64 KiB windows", 64 << 10),
        ("256 KiB windows", 256 << 10),
        ("4 MiB windows", 4 << 20),
    ] {
        let during = target.latency(|| {
            let start = Instant::now();
            while start.elapsed() < Duration::from_secs(3) {
                look(&pid, window);
            }
        });
        println!(
            "{name:<24} {:>8.1} {:>8.1} {:>16.2}",
            during.0,
            during.1,
            during.1 / rest.1
        );
    }
}

/// One walk: its time, the chunks and the bytes of the heap.
fn look(target: &Target, window: usize) -> (Duration, u64, u64) {
    let memory = ProcessMemory::open(target).unwrap();
    let options = Options {
        window,
        libcs: libcs(target),
        ..Options::default()
    };
    let start = Instant::now();
    let heaps = heap::walk(&memory, &options).unwrap();
    let time = start.elapsed();
    let heap = heaps.first().unwrap();
    let chunks = heap.arenas.iter().map(|a| a.chunks_in_use + a.chunks_free);
    (time, chunks.sum(), heap.totals.mallinfo.arena)
}

/// The C library by its name, as `inspect` has it: without, each layout that fits is tried.
fn libcs(target: &Target) -> Vec<NamedLibc> {
    let mappings = target.mappings().unwrap();
    inspect::detect(target, &mappings, &|_| Metric::Unavailable).named()
}

/// Every header by a call of its own.
fn bare(target: &Target) -> Duration {
    let memory = ProcessMemory::open(target).unwrap();
    let heap = heap::walk(&memory, &Options::default()).unwrap().remove(0);
    let range = heap
        .owned
        .iter()
        .map(|owned| &owned.range)
        .max_by_key(|r| r.end - r.start);
    let range = range.unwrap();
    let start = Instant::now();
    let mut chunk = range.start;
    let mut header = [0; 16];
    while chunk + 16 <= range.end {
        memory.read(chunk, &mut header).unwrap();
        let size = u64::from_le_bytes(*header.last_chunk().unwrap()) & !7;
        if size == 0 {
            break;
        }
        chunk += size;
    }
    std::hint::black_box(chunk);
    start.elapsed()
}

fn note(
    times: &mut Vec<(&'static str, Vec<Duration>)>,
    round: usize,
    name: &'static str,
    time: Duration,
) {
    // The first round warms up.
    match times.iter_mut().find(|(known, _)| *known == name) {
        _ if round == 0 => {}
        Some((_, times)) => times.push(time),
        None => times.push((name, vec![time])),
    }
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort();
    times[times.len() / 2]
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

struct Running {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Running {
    fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env("PLIMSOLL_WALK_TARGET", "1")
            .env("MALLOC_MMAP_THRESHOLD_", "33554432")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut running = Self {
            child,
            stdin,
            stdout,
        };
        assert_eq!(running.line(), "ready");
        running
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// p50 and p99 in µs while something is done.
    fn latency(&mut self, meanwhile: impl FnOnce()) -> (f64, f64) {
        writeln!(self.stdin, "start").unwrap();
        meanwhile();
        writeln!(self.stdin, "stop").unwrap();
        let line = self.line();
        let (p50, p99) = line.split_once(' ').unwrap();
        (p50.parse().unwrap(), p99.parse().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn target() {
    let mut seed = 1_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let mut blocks: Vec<Option<Vec<u8>>> = (0..CHUNKS)
        .map(|_| Some(vec![1; 16 + (random() % 4640) as usize]))
        .collect();
    for block in &mut blocks {
        if random() % 3 == 0 {
            *block = None;
        }
    }
    println!("ready");
    let running = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut mapper = None;
    for line in std::io::stdin().lock().lines() {
        if line.unwrap() == "start" {
            running.store(true, std::sync::atomic::Ordering::SeqCst);
            let running = running.clone();
            mapper = Some(std::thread::spawn(move || map_and_unmap(&running)));
        } else {
            running.store(false, std::sync::atomic::Ordering::SeqCst);
            let mut times: Vec<Duration> = mapper.take().unwrap().join().unwrap();
            times.sort();
            let at = |share: f64| times[(times.len() as f64 * share) as usize].as_secs_f64() * 1e6;
            println!("{} {}", at(0.5), at(0.99));
        }
    }
    drop(blocks);
}

fn map_and_unmap(running: &std::sync::atomic::AtomicBool) -> Vec<Duration> {
    const LENGTH: usize = 256 << 10;
    let mut times = Vec::with_capacity(1 << 20);
    while running.load(std::sync::atomic::Ordering::Relaxed) && times.len() < 1 << 20 {
        let start = Instant::now();
        // SAFETY: a new private mapping, written within its length, and unmapped.
        unsafe {
            let at = libc::mmap(
                std::ptr::null_mut(),
                LENGTH,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            assert_ne!(at, libc::MAP_FAILED);
            for page in (0..LENGTH).step_by(4096) {
                at.cast::<u8>().add(page).write_volatile(1);
            }
            libc::munmap(at, LENGTH);
        }
        times.push(start.elapsed());
        std::thread::sleep(Duration::from_micros(50));
    }
    times
}
