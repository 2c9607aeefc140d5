//! What is offered to attach to.

use std::process::Command;

use malloc_stats::Metric;
use plimsoll_tui::live::source::candidates;

use crate::LONG;
use crate::program::Program;

/// A program that holds so many megabytes.
fn holder(mebibytes: u32) -> Option<Program> {
    let script = format!("a = bytearray({mebibytes} << 20); print(len(a), flush=True); input()");
    let found = Command::new("python3").arg("--version").output().is_ok();
    if !found {
        eprintln!("skipped: there is no python3");
        return None;
    }
    let mut program = Program::start(Command::new("python3").args(["-c", &script]));
    assert_eq!(program.next_line(), (mebibytes << 20).to_string());
    Some(program)
}

#[test]
fn large_processes_are_offered_the_largest_first_and_small_ones_are_not() {
    let (Some(larger), Some(large)) = (holder(200), holder(80)) else {
        return;
    };
    let small = Program::shell("read line");
    let begun = std::time::Instant::now();
    let found = candidates();
    assert!(begun.elapsed() < LONG);
    let place = |program: &Program| found.iter().position(|it| it.pid == program.pid());
    let (first, second) = (place(&larger).unwrap(), place(&large).unwrap());
    assert!(first < second, "{found:?}");
    assert_eq!(place(&small), None);
    assert_eq!(
        found
            .iter()
            .filter(|it| it.pid == std::process::id())
            .count(),
        0
    );
    let larger = &found[first];
    assert!(larger.name.starts_with("python"), "{larger:?}");
    assert!(larger.rss.bytes().unwrap() >= 200 << 20);
    assert!(!larger.user.is_empty());
    assert_eq!(larger.socket, None);
    let nearest = larger.nearest.as_ref().unwrap();
    assert_ne!(nearest.headroom, Metric::Unavailable);
}
