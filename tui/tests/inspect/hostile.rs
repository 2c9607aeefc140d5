//! The process is a stranger: nothing it is called moves the cursor, reorders a line or breaks it.

use malloc_stats::heap::{Fault, Hint};
use malloc_stats::inspect::Inspection;
use plimsoll_tui::inspect::{View, text};
use plimsoll_tui::paint::Paint;

use crate::fits;
use crate::process::{file, heap, pin, process};

/// Every text of a process is this.
fn named(name: &str) -> Inspection {
    let name = name.to_owned();
    let mut inspection = process();
    inspection.process.command = name.clone();
    inspection.process.arguments = vec![name.clone(); 3];
    inspection.allocator.name = name.clone();
    inspection.allocator.version = Some(name.clone());
    inspection.allocator.placement = name.clone();
    inspection.allocator.object = Some(name.clone());
    inspection.allocator.others = vec![inspection.allocator.clone()];
    for cgroup in &mut inspection.limits.cgroups {
        cgroup.path = name.clone();
    }
    inspection.limits.notes = vec![name.clone()];
    inspection.files = vec![file(&name)];
    inspection.files[0].reason = Some(name.clone());
    inspection.vram[0].name = name.clone();
    inspection.verdicts[0].lint = name.clone();
    inspection.verdicts[0].finding = name.clone();
    inspection.verdicts[0].remedy = name.clone();
    inspection.growth.as_mut().unwrap().slopes[0].of = name.clone();
    inspection.notes = vec![name.clone()];
    let mut heap = heap();
    heap.layout.versions = name.clone();
    heap.layout.object = name.clone();
    heap.notes = vec![name.clone()];
    heap.pins = vec![
        pin(0, Some(Hint::Text(name.clone()))),
        pin(1, Some(Hint::Python(name.clone()))),
        pin(2, Some(Hint::PointsInto(name.clone(), Default::default()))),
    ];
    heap.torn.faults = vec![Fault {
        arena: 0,
        address: Default::default(),
        reason: name,
        stable: false,
    }];
    inspection.other_heaps = vec![heap.clone()];
    inspection.heap = Some(heap);
    inspection
}

fn page(name: &str, width: usize) -> String {
    let paint = Paint {
        width,
        ..Paint::plain()
    };
    let view = View {
        user: Some(name),
        ..View::default()
    };
    text(&paint, &named(name), &view)
}

#[test]
fn control_characters_and_reordering_are_escaped() {
    let page = page("a\u{1b}[2J\r\n\t\u{7}\u{9b}\u{202e}z", 100);
    let strays = |c: &char| (c.is_control() && *c != '\n') || ('\u{202a}'..='\u{202e}').contains(c);
    assert_eq!(page.chars().find(strays), None, "{page}");
    assert!(page.contains("\\u{1b}[2J\\r\\n"), "{page}");
    fits(&page, 100);
}

#[test]
fn long_and_wide_names_keep_their_columns() {
    let long = format!("/{}", "x".repeat(4095));
    let wide = "模".repeat(500);
    let words = "word ".repeat(800);
    for name in [&long, &wide, &words] {
        for width in [60, 80, 200] {
            fits(&page(name, width), width);
        }
    }
}

#[test]
fn empty_names_are_drawn() {
    fits(&page("", 60), 60);
}
