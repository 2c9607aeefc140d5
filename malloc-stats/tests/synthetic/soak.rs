//! The fuzzer's entry without a fuzzer: damaged heaps, a few always, and many where asked for.

use std::time::{Duration, Instant};

use crate::agreement::noise;
use crate::bounds::MOST_MEMORY;
use crate::dice::scatter;
use crate::entry;
use crate::weight::weighed;

/// Tries `seed` and what follows it, until `enough` says so. Prints what came of it.
fn soak(seed: u64, mut enough: impl FnMut(u64) -> bool) {
    let (mut tries, mut found, mut most) = (0_u64, 0_u64, 0);
    while !enough(tries) {
        let seed = seed + tries;
        let bytes = noise(seed, 64 + (scatter(seed) % 3000) as usize);
        let tried = std::panic::catch_unwind(|| weighed(|| entry::once(&bytes)));
        let (is_heap, bytes) = tried.unwrap_or_else(|cause| {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(cause)
        });
        assert!(bytes <= MOST_MEMORY, "{bytes} bytes with seed {seed}");
        most = bytes.max(most);
        found += u64::from(is_heap);
        tries += 1;
    }
    println!("{tries} tries from seed {seed}, {found} heaps found, at most {most} bytes each");
    assert!(found > 0, "of {tries} damaged heaps not one was read");
}

#[test]
fn damaged_heaps_are_read_or_refused() {
    soak(1, |tries| tries == 1000);
}

/// `PLIMSOLL_FUZZ_SECONDS=3600 cargo test -p malloc-stats --test synthetic -- --ignored --nocapture`
#[test]
#[ignore = "runs as long as PLIMSOLL_FUZZ_SECONDS says, from PLIMSOLL_FUZZ_SEED on"]
fn damaged_heaps_for_as_long_as_asked() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seconds = Duration::from_secs(number("PLIMSOLL_FUZZ_SECONDS").unwrap_or(10));
    let start = Instant::now();
    soak(number("PLIMSOLL_FUZZ_SEED").unwrap_or(1 << 32), |_| {
        start.elapsed() >= seconds
    });
}
