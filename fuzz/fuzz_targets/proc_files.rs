//! The files of `/proc` and of cgroups, and sizes on the command line: no text makes a reader panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use malloc_stats::inspect::{Owned, classify, parse_rollup, parse_stack_pointer, read_smaps};
use malloc_stats::{Grade, Size, limits, mappings, process};

fuzz_target!(|bytes: &[u8]| {
    let _ = process::parse_status(bytes, Grade::Exact);
    let _ = parse_rollup(bytes);
    if let Ok(entries) = read_smaps(bytes) {
        let _ = classify(&entries, &Owned::default());
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let _ = mappings::parse(text);
    let _ = parse_stack_pointer(text);
    let _ = limits::parse_limit(text);
    let _ = limits::parse_stat(text, "file");
    let _ = limits::parse_meminfo(text);
    let _ = limits::parse_pressure(text);
    let _ = limits::parse_rlimits(text);
    let memberships = limits::parse_memberships(text);
    let mounts: Vec<_> = text.lines().filter_map(limits::parse_mount).collect();
    let _ = limits::locate(&memberships, &mounts);
    if let Ok(size) = text.parse::<Size>() {
        let _ = size.to_string();
    }
});
