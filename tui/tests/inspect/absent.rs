//! What is not known is `n/a` with a reason, and never zero.

use malloc_stats::inspect::{Detected, FilePages, Inspection};
use malloc_stats::{Metric, Vram};
use plimsoll_tui::inspect::{MapSize, View, text};
use plimsoll_tui::paint::Paint;

use crate::process::{exact, process};
use crate::{fits, plain, section};

#[test]
fn nothing_known_is_no_zero_anywhere() {
    let nothing = Inspection {
        heap_absent: Some("permission denied".into()),
        ..Inspection::default()
    };
    let page = plain(&nothing, 80);
    fits(&page, 80);
    assert!(!page.contains("0 B") && !page.contains("0B"), "{page}");
    assert_eq!(
        section(&page, "verdict"),
        "verdict\n  NOTE  nothing to complain of in what could be seen: the heap could not be\n        \
         looked into; what its limits leave is not known"
    );
    assert_eq!(
        section(&page, "allocator"),
        "allocator\n  unknown allocator\n  n/a: permission denied"
    );
    let headroom = section(&page, "headroom");
    for line in [
        "   host      n/a  n/a   n/a",
        "which limit leaves least is not known",
        "cgroup n/a",
        "kills for want of memory: n/a",
        "memory pressure: n/a",
        "oom_score: n/a",
        "RSS n/a: anonymous n/a, file n/a, shared n/a; peak n/a",
        "swap: n/a of it",
    ] {
        assert!(headroom.contains(line), "{line} is not in {headroom}");
    }
    assert!(section(&page, "memory by").contains("n/a: its mappings could not be read"));
    for heading in ["arenas", "pins", "chunks", "walk", "growth", "model files"] {
        assert!(!page.contains(&format!("\n{heading}")), "{heading}");
    }
}

#[test]
fn another_allocator_is_named_with_what_is_known_of_it() {
    let mut inspection = process();
    inspection.heap = None;
    inspection.allocator = Detected {
        name: "jemalloc".into(),
        placement: "preloaded".into(),
        reason: Some("its heap has no layout that is known".into()),
        mappings_rss: Metric::Upper(exact(300).bytes().unwrap()),
        others: vec![Detected {
            name: "glibc".into(),
            version: Some("2.36".into()),
            reason: Some("its malloc is shadowed".into()),
            ..Detected::default()
        }],
        ..Detected::default()
    };
    let page = plain(&inspection, 80);
    assert_eq!(
        section(&page, "allocator"),
        "allocator\n  jemalloc, preloaded\n  n/a: its heap has no layout that is known\n  \
         mappings it seems to own: <= 300.0 MiB resident\n  \
         beside it glibc 2.36: its malloc is shadowed"
    );
}

#[test]
fn a_gpu_that_is_lost_and_one_that_is_partitioned_say_so() {
    let mut inspection = process();
    inspection.vram[0].mig = true;
    let lost = Vram {
        index: 1,
        absent: Some("GPU is lost".into()),
        ..Vram::default()
    };
    inspection.vram.push(lost);
    let page = plain(&inspection, 90);
    let section = section(&page, "VRAM");
    let lines: Vec<&str> = section.lines().collect();
    assert!(lines[3].starts_with("  1 "), "{section}");
    assert_eq!(lines[3].matches("n/a").count(), 5, "{section}");
    assert_eq!(
        lines[4..6],
        [
            "  GPU 0 is partitioned (MIG): these are numbers of all of it",
            "  n/a: GPU 1: GPU is lost",
        ]
    );
}

#[test]
fn a_heap_with_unknown_parts_has_them_as_unknown() {
    let mut inspection = process();
    let heap = inspection.heap.as_mut().unwrap();
    heap.settings = None;
    heap.totals.heap_rss = Metric::Unavailable;
    heap.arenas[1].rss = Metric::Unavailable;
    heap.arenas[1].free_resident = Metric::Unavailable;
    heap.notes = vec!["mp_ was not found".into()];
    inspection.files = vec![FilePages {
        path: "/m.gguf".into(),
        open: true,
        reason: Some("cachestat: permission denied".into()),
        ..FilePages::default()
    }];
    inspection.vram = Vec::new();
    inspection.vram_absent = Some("no driver".into());
    let page = plain(&inspection, 80);
    for line in [
        "  settings in force: n/a\n",
        "  heap, resident           n/a\n",
        "  waste                    n/a\n",
        "  VRAM n/a: no driver\n",
        "  n/a: cachestat: permission denied\n",
        "note: mp_ was not found\n",
    ] {
        assert!(page.contains(line), "{line} is not in {page}");
    }
    let arenas = section(&page, "arenas: 3");
    let last = arenas.lines().last().unwrap();
    assert!(
        last.trim_start().starts_with("1 "),
        "unknown waste is last: {arenas}"
    );
}

#[test]
fn a_map_without_a_heap_says_so() {
    let view = View {
        map: Some(MapSize::of_width(&Paint::plain(), 8)),
        ..View::default()
    };
    let page = text(&Paint::plain(), &Inspection::default(), &view);
    assert_eq!(
        section(&page, "map"),
        "map\n  n/a: there is no heap to draw"
    );
}
