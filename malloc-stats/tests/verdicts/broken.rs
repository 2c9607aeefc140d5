//! Malloc's own records, broken on purpose; and such as only look broken.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use malloc_stats::inspect::{Ask, Severity::Bad};

use super::holder::{Holder, MIB, build, must, must_not, of_process};

fn program() -> Option<&'static Path> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    BUILT.get_or_init(|| build("breaks")).as_deref()
}

#[test]
fn broken_records_are_corrupt_and_the_rest_is_counted() {
    let Some(program) = program() else {
        return;
    };
    for (mode, word) in [
        (
            "ring-out",
            "its next arena is said to be at 0x4545454545454540",
        ),
        ("ring-itself", "its next arena is said to be"),
        ("heap-of-none", "no heap of this arena begins here"),
        ("heap-too-long", "its heaps do not lead back"),
    ] {
        let holder = Holder::start(Command::new(program).arg(mode));
        let inspection = holder.inspect();
        let heap = inspection.heap.as_ref().unwrap();
        assert_eq!(heap.arenas.len(), 2, "{mode}");
        assert!(heap.totals.held.bytes().unwrap() < 64 * MIB, "{mode}");
        let whole = mode.starts_with("ring");
        assert_eq!(heap.torn.unresolved, u64::from(!whole), "{mode}");
        assert_eq!(heap.torn.unresolved_bytes == 0, whole, "{mode}");
        let verdicts = of_process(inspection);
        let found = must(&verdicts, "heap-corrupt", Bad);
        assert!(found.finding.contains(word), "{found:?}");
        must_not(&verdicts, "not-walkable");
    }
}

#[test]
fn a_pause_in_the_middle_of_an_operation_is_no_corruption() {
    let Some(program) = program() else {
        return;
    };
    let holder = Holder::start(Command::new(program).arg("grow"));
    let ask = Ask {
        pause: true,
        ..Ask::default()
    };
    for _ in 0..10 {
        let inspection = holder.inspect_as(&ask);
        let whole = inspection.heap.as_ref().unwrap().torn.faults.is_empty();
        let said = inspection.notes.iter().any(|note| note.contains("middle"));
        assert!(whole || said, "{:?}", inspection.notes);
        must_not(&of_process(inspection), "heap-corrupt");
    }
}
