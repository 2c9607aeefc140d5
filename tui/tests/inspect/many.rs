//! More of everything than a page holds.

use malloc_stats::heap::{Fault, Pin};

use crate::process::{arena, file, pin, process};
use crate::{fits, plain, section};
use plimsoll_tui::inspect::{View, most_wasteful, text};
use plimsoll_tui::paint::Paint;

#[test]
fn of_two_hundred_arenas_the_worst_ten_are_shown_and_the_rest_summed() {
    let mut inspection = process();
    let heap = inspection.heap.as_mut().unwrap();
    heap.arenas = (0..200).map(|at| arena(at, 10, 10 + at as u64)).collect();
    heap.arenas[150].locked = true;
    heap.arenas[195].locked = true;
    assert_eq!(most_wasteful(heap), Some(199));
    let page = plain(&inspection, 80);
    fits(&page, 80);
    let arenas = section(&page, "arenas: 200");
    let rows: Vec<&str> = arenas.lines().skip(2).collect();
    assert_eq!(rows.len(), 12, "{arenas}");
    assert!(rows[0].trim_start().starts_with("199 "), "{arenas}");
    assert!(rows[4].trim_start().starts_with("*195 "), "{arenas}");
    assert!(rows[9].trim_start().starts_with("190 "), "{arenas}");
    // 0 + 1 + … + 189 MiB.
    assert_eq!(
        rows[10],
        "  and 190 more: 1.86G in use, 17.53G free and resident"
    );
    assert!(rows[11].contains("somebody held its lock"), "{arenas}");
    let view = View {
        arena: Some(3),
        ..View::default()
    };
    let page = text(&Paint::plain(), &inspection, &view);
    let first = section(&page, "arenas: 200").lines().nth(2).unwrap();
    assert!(
        first.trim_start().starts_with("3 "),
        "the chosen one is shown: {first}"
    );
}

#[test]
fn pins_files_and_faults_end_with_how_many_more_there_are() {
    let mut inspection = process();
    let heap = inspection.heap.as_mut().unwrap();
    heap.pins = (0..200).map(|at| pin(at, None)).collect::<Vec<Pin>>();
    let fault = |at| Fault {
        arena: at,
        reason: "x".into(),
        ..faultless()
    };
    heap.torn.faults = (0..200).map(fault).collect();
    inspection.files = (0..200).map(|at| file(&format!("/{at}.gguf"))).collect();
    let page = plain(&inspection, 80);
    for (heading, more) in [
        ("pins", "  and 190 more"),
        ("walk", "  and 195 more"),
        ("model files: 200", "  and 185 more"),
    ] {
        let section = section(&page, heading);
        assert_eq!(section.lines().last(), Some(more), "{section}");
    }
}

fn faultless() -> Fault {
    Fault {
        arena: 0,
        address: malloc_stats::heap::Address(0),
        reason: String::new(),
        stable: false,
    }
}
