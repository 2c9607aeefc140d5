//! C programs with heaps of every sort: what the walk finds is what they say, byte for byte.

use std::process::Command;

use malloc_stats::heap::Heap;

use crate::agreement::{self, Differences};
use crate::glibcs::{self, Glibc};
use crate::look;
use crate::target::Target;
use crate::truth::Truth;

/// Runs `heap` with these arguments on every glibc.
fn agree(arguments: &str) {
    agree_in(arguments, &[]);
}

fn agree_in(arguments: &str, environment: &[(&str, &str)]) {
    let mut failures = Vec::new();
    for glibc in Glibc::all() {
        let Some(mut command) = glibc.heap() else {
            continue;
        };
        command.args(arguments.split(' '));
        let name = format!("{glibc}, heap {arguments} {environment:?}");
        failures.extend(disagreements(&name, command, environment));
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

fn disagreements(name: &str, command: Command, environment: &[(&str, &str)]) -> Vec<String> {
    let (mut target, truth) = Target::start::<Truth>(command, environment).unwrap();
    let heaps = match look::heaps(truth.pid) {
        Ok(heaps) => heaps,
        Err(error) => return vec![format!("{name}: {error}")],
    };
    let mut lines = closest(&heaps, |heap| agreement::differences(&truth, heap));
    if let Some(second) = &truth.second {
        lines.extend(closest(&heaps, |heap| {
            let mut found = Differences::default();
            found.of_mallinfo(second, &heap.totals.mallinfo);
            found.of_whole(truth.minor(), heap);
            found
        }));
    }
    let again: Truth = target.ask("again");
    let unchanged = again.mallinfo == truth.mallinfo && again.second == truth.second;
    if !unchanged {
        lines.push("the process did not hold still while it was looked at".to_owned());
    }
    lines
        .into_iter()
        .map(|line| format!("{name}: {line}"))
        .collect()
}

/// How the heap that differs least differs.
fn closest(heaps: &[Heap], differences: impl Fn(&Heap) -> Differences) -> Vec<String> {
    let each = heaps.iter().map(|heap| differences(heap).lines().to_vec());
    each.min_by_key(Vec::len)
        .unwrap_or_else(|| vec!["no heap was found".to_owned()])
}

#[test]
fn one_thread() {
    agree("1");
}

#[test]
fn four_threads() {
    agree("4");
}

#[test]
fn eight_threads() {
    agree("8");
}

#[test]
fn a_static_stripped_program() {
    for arguments in ["1", "4", "4 sbrk=3", "4 fence", "4 raise=20"] {
        let Some(mut command) = glibcs::static_heap() else {
            return;
        };
        command.args(arguments.split(' '));
        let failures = disagreements(&format!("static, {arguments}"), command, &[]);
        assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    }
}

#[test]
fn blocks_aligned_and_resized_within_arenas() {
    agree("4 reshape");
}

#[test]
fn a_break_that_others_move() {
    agree("4 sbrk=3");
}

#[test]
fn a_main_arena_that_is_not_contiguous() {
    agree("4 fence");
}

#[test]
fn arenas_of_threads_that_are_gone() {
    agree("4 given_up=6");
}

#[test]
fn arenas_of_several_heaps() {
    agree("2 heaps=150");
}

#[test]
fn arenas_whose_later_heaps_are_gone() {
    agree("2 deleted=150");
}

#[test]
fn many_chunks_in_bins() {
    agree("4 spread=60");
}

#[test]
fn a_second_c_library() {
    agree("3 dlmopen");
}

#[test]
fn a_forked_child() {
    agree("4 fork");
}

#[test]
fn no_fastbins_and_large_ones() {
    agree("4 mxfast=0");
    agree("4 mxfast=160");
}

#[test]
fn a_threshold_that_has_risen() {
    agree("4 raise=20");
}

#[test]
fn thresholds_that_were_set() {
    agree("2 mmap_threshold=1048576 top_pad=0");
    agree("2 trim_threshold=65536");
    agree("2 mmap_max=3");
}

#[test]
fn one_and_two_arenas() {
    agree("4 arena_max=1");
    agree("4 arena_max=2");
}

fn tuned(arguments: &str, tunables: &str) {
    agree_in(arguments, &[("GLIBC_TUNABLES", tunables)]);
}

#[test]
fn no_caches() {
    tuned("4 tcache=0", "glibc.malloc.tcache_count=0");
}

#[test]
fn large_caches() {
    tuned("4 tcache=100", "glibc.malloc.tcache_count=100");
}

#[test]
fn caches_of_large_blocks() {
    // Before glibc 2.42 the largest that is kept is 1032 bytes, whatever is asked for.
    tuned("4 large_cached", "glibc.malloc.tcache_max=100000");
}

#[test]
fn transparent_huge_pages() {
    tuned("4 huge=1", "glibc.malloc.hugetlb=1");
}

#[test]
fn huge_pages() {
    // Without huge pages set aside, ordinary ones are taken, with the layout of huge ones.
    tuned("4 huge=2", "glibc.malloc.hugetlb=2");
}
