//! What a walk says a trim would give back, against a real trim.

use malloc_stats::heap::Heap;

use crate::glibcs::Glibc;
use crate::look;
use crate::target::Target;
use crate::truth::{Trimmed, Truth};

const MIB: u64 = 1 << 20;

fn only_heap(pid: u32) -> Heap {
    let mut heaps = look::heaps(pid).unwrap();
    assert_eq!(heaps.len(), 1);
    heaps.remove(0)
}

fn free_resident(heap: &Heap) -> u64 {
    heap.trim.free_resident.bytes().unwrap()
}

#[test]
fn a_trim_returns_what_was_predicted_and_looks_bring_nothing_back() {
    for glibc in Glibc::all() {
        let Some(mut command) = glibc.heap() else {
            return;
        };
        command.args(["4", "spread=800"]);
        let (mut target, truth) = Target::start::<Truth>(command, &[]).unwrap();
        let predicted = only_heap(truth.pid).trim.releasable.bytes().unwrap();
        let trimmed: Trimmed = target.ask("trim");
        let fell = trimmed.anonymous_before - trimmed.anonymous_after;
        assert!(fell >= 500 * MIB, "{glibc}: only {fell} B were there");
        let tolerance = (fell / 200).max(MIB);
        let off = predicted.abs_diff(fell);
        eprintln!("{glibc}: predicted {predicted} B, fell by {fell} B, off by {off} B");
        assert!(
            off <= tolerance,
            "{glibc}: {predicted} B predicted, {fell} B returned"
        );

        let resident = look::anonymous(truth.pid);
        let (first, second) = (only_heap(truth.pid), only_heap(truth.pid));
        assert!(
            free_resident(&first) + fell / 2 < predicted,
            "{glibc}: {:?}",
            first.trim
        );
        assert!(
            free_resident(&second) <= free_resident(&first),
            "{glibc}: {:?}, then {:?}",
            first.trim,
            second.trim
        );
        assert_eq!(
            look::anonymous(truth.pid),
            resident,
            "{glibc}: looking made it resident"
        );
        let releasable = second.trim.releasable.bytes().unwrap();
        assert!(
            releasable <= MIB,
            "{glibc}: {releasable} B are left to release"
        );
    }
}
