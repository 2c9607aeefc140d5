//! All memory of a process, by what it is, and what is left without a name.

use std::cmp::Reverse;
use std::fmt::Result;

use malloc_stats::Metric;
use malloc_stats::inspect::{Class, ClassKind, Inspection};

use super::grid::{Column, Grid, Text};
use super::prose::{compact, compact_metric};
use super::{absent, title};
use crate::paint::{Paint, Tone};

pub(crate) fn words(kind: ClassKind) -> &'static str {
    match kind {
        ClassKind::Malloc => "malloc",
        ClassKind::PythonArenas => "Python's own arenas",
        ClassKind::Stacks => "stacks",
        ClassKind::Anonymous => "other anonymous",
        ClassKind::Objects => "program, libraries",
        ClassKind::ModelFiles => "model files",
        ClassKind::Files => "other files",
        ClassKind::Shared => "shared memory",
        ClassKind::Devices => "devices",
        ClassKind::Kernel => "kernel",
        ClassKind::Reserved => "reserved addresses",
    }
}

pub(super) fn write(out: &mut String, paint: &Paint, inspection: &Inspection) -> Result {
    title(out, paint, "memory by what it is")?;
    if inspection.classes.is_empty() && inspection.unattributed.is_unavailable() {
        return absent(out, paint, "its mappings could not be read");
    }
    let mut grid = Grid::new([
        Column::left("class"),
        Column::right("mappings").rank(2),
        Column::right("virtual").rank(1),
        Column::right("resident"),
        Column::right("anonymous"),
        Column::right("swapped"),
    ]);
    let mut classes: Vec<&Class> = inspection.classes.iter().collect();
    classes.sort_by_key(|class| Reverse(class.rss.bytes()));
    let number = |metric: Metric| Text::from(compact_metric(paint, metric));
    for class in classes {
        grid.row([
            words(class.kind).into(),
            class.mappings.to_string().into(),
            compact(class.size).into(),
            number(class.rss),
            number(class.anonymous),
            number(class.swap),
        ]);
    }
    // What has no name is shown however small it is, and is not a row like the others: it is
    // within them.
    let unattributed = compact_metric(paint, inspection.unattributed);
    grid.row([
        Text::toned(Tone::Strong, "unattributed"),
        Text::default(),
        Text::default(),
        Text::default(),
        Text::toned(Tone::Strong, unattributed),
    ]);
    grid.write(out, paint)
}
