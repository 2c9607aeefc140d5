//! What snapshots cost: a pair of brackets, and a full capture by the number of free chunks.
//!
//! `cargo bench -p malloc-stats --bench snapshot`. The largest step holds 2.1 GiB for a moment.

use std::ffi::c_void;
use std::time::{Duration, Instant};

use malloc_stats::{Allocator, Reader};

const PAIRS: usize = 1000;
/// Above what thread caches take (1032 bytes), so that every freed chunk is in a bin.
const BLOCK: usize = 1040;
const PLOT_WIDTH: usize = 48;

fn main() {
    let reader = match Reader::new(Allocator::default()) {
        Ok(reader) => reader,
        Err(error) => return eprintln!("{error}"),
    };
    // Run as a test, the bench shows that it works.
    let largest = if std::env::args().any(|argument| argument == "--bench") {
        6
    } else {
        3
    };
    println!("allocator: {}\n", reader.allocator_name());
    brackets(&reader, "before any full capture");
    drop(reader.full());
    brackets(&reader, "carrying a reading");
    println!();
    full(&reader, largest);
}

fn brackets(reader: &Reader, when: &str) {
    let mut costs: Vec<Duration> = (0..PAIRS)
        .map(|_| {
            let begin = Instant::now();
            std::hint::black_box((reader.bracket(), reader.bracket()));
            begin.elapsed()
        })
        .collect();
    costs.sort_unstable();
    println!(
        "bracket pair, {when:<24} median {:>6.1} µs   p99 {:>6.1} µs",
        micros(costs[PAIRS / 2]),
        micros(costs[PAIRS * 99 / 100]),
    );
}

fn full(reader: &Reader, largest: u32) {
    println!(
        "{:>42} {:>31}",
        "freed in order of address", "freed in any order"
    );
    println!(
        "{:>12} {:>17} {:>12} {:>17} {:>12}",
        "free chunks", "mallinfo2, ms", "full, ms", "mallinfo2, ms", "full, ms"
    );
    let mut points = Vec::new();
    for power in 3..=largest {
        let count = 10_usize.pow(power);
        let (mallinfo2, ordered) = capture_with(reader, count, false);
        let (scattered_mallinfo2, scattered) = capture_with(reader, count, true);
        println!(
            "{count:>12} {:>17.2} {:>12.2} {:>17.2} {:>12.2}",
            millis(mallinfo2),
            millis(ordered),
            millis(scattered_mallinfo2),
            millis(scattered),
        );
        points.push((count, millis(scattered)));
    }
    plot(&points);
}

/// Median cost of mallinfo2 alone and of a full capture, with so many free chunks.
fn capture_with(reader: &Reader, count: usize, scattered: bool) -> (Duration, Duration) {
    let blocks = punctured(count, scattered);
    let mut costs: Vec<_> = (0..5).map(|_| one_capture(reader)).collect();
    costs.sort_unstable();
    let (full, mallinfo2, chunks) = costs[costs.len() / 2];
    // Neighbours that joined would make the row a lie.
    assert!(
        chunks as usize >= count / 10 * 9,
        "{chunks} free chunks of {count}"
    );
    blocks.into_iter().for_each(release);
    (mallinfo2, full)
}

/// Blocks with as many free chunks between them. The bins list chunks in the order in which they
/// were freed, and mallinfo2 follows them: through memory in order, or by a miss per chunk.
fn punctured(count: usize, scattered: bool) -> Vec<*mut c_void> {
    let mut freed = Vec::with_capacity(count);
    let mut kept = Vec::with_capacity(count);
    for _ in 0..count {
        // SAFETY: malloc may be asked for any size; the blocks stay untouched.
        unsafe {
            freed.push(libc::malloc(BLOCK));
            kept.push(libc::malloc(BLOCK));
        }
    }
    if scattered {
        // Fisher and Yates with Marsaglia's xorshift: the same order in every run.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for last in (1..freed.len()).rev() {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            freed.swap(last, (state % (last as u64 + 1)) as usize);
        }
    }
    freed.into_iter().for_each(release);
    kept
}

fn release(block: *mut c_void) {
    // SAFETY: each block comes from malloc, and is given up once.
    unsafe { libc::free(block) }
}

/// Cost of a full capture and of mallinfo2 alone, and the free chunks that it counted.
fn one_capture(reader: &Reader) -> (Duration, Duration, u64) {
    drop(reader.full());
    let full = reader.last_full_cost().unwrap_or_default();
    let begin = Instant::now();
    let chunks = malloc_stats::glibc::mallinfo().map_or(0, |info| info.ordblks);
    (full, begin.elapsed(), chunks)
}

/// Both axes are logarithmic: a row per decade of chunks, a mark by the cost.
fn plot(points: &[(usize, f64)]) {
    let (low, high) = (-2.0, 4.0);
    println!("\nfull capture, freed in any order, ms (log-log)\n");
    for (count, cost) in points {
        let at = (cost.max(0.01).log10() - low) / (high - low);
        let column = (at.clamp(0.0, 1.0) * (PLOT_WIDTH - 1) as f64).round() as usize;
        println!("{count:>9} |{:width$}*", "", width = column);
    }
    println!("{:>9} +{}", "", "-------+".repeat(6));
    let labels: String = ["0.1", "1", "10", "100", "1000", "10000"]
        .map(|l| format!("{l:>8}"))
        .concat();
    println!("{:>9}  {labels}", "");
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
