//! A program of its own (`harness = false`) that measures: no test names, no threads of libtest.

use std::hint::black_box;

use malloc_stats::testing::Fragmentation;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        return;
    }
    let case = arguments.first().map(String::as_str);
    if case != Some("only-second") {
        measure("first", 48, &[]).assert_returned();
    }
    measure("second", 96, &["only-second"]).assert_returned();
    println!("both measured");
}

fn measure(name: &str, mebibytes: usize, arguments: &[&str]) -> Fragmentation {
    let seen = Fragmentation::measure()
        .named(name)
        .arguments(arguments.iter().copied())
        .over(|| black_box(vec![1_u8; mebibytes << 20]));
    let took = seen.took().bytes().unwrap_or(0);
    assert!(took > (mebibytes as u64 - 8) << 20, "{seen}");
    seen
}
