//! Chunks by size: what is in use against what is free.

use std::fmt::Result;

use malloc_stats::heap::Heap;

use super::grid::{Column, Grid, Text, bar};
use super::prose::compact;
use super::title;
use crate::paint::{Paint, Tone};

/// The marks of what is in use, and of what is free.
pub(super) const fn marks(paint: &Paint) -> (char, char) {
    if paint.unicode {
        ('█', '░')
    } else {
        ('#', '.')
    }
}

pub(super) fn write(out: &mut String, paint: &Paint, heap: &Heap) -> Result {
    let total =
        |class: &malloc_stats::heap::SizeClass| class.in_use.bytes.saturating_add(class.free.bytes);
    let Some(most) = heap.histogram.iter().map(total).max() else {
        return Ok(());
    };
    let (used, free) = marks(paint);
    title(
        out,
        paint,
        &format!("chunks by size ({used} in use, {free} free)"),
    )?;
    let mut grid = Grid::new([
        Column::right("from"),
        Column::right("in use"),
        Column::right("chunks").rank(2),
        Column::right("free"),
        Column::right("chunks").rank(1),
        Column::left(""),
    ]);
    let columns = paint.width.saturating_sub(56).clamp(12, 60);
    for class in &heap.histogram {
        let parts = [
            (Tone::Good, used, class.in_use.bytes),
            (Tone::Warn, free, class.free.bytes),
        ];
        let cells: [Text; 6] = [
            compact(class.from).into(),
            compact(class.in_use.bytes).into(),
            class.in_use.count.to_string().into(),
            compact(class.free.bytes).into(),
            class.free.count.to_string().into(),
            bar(&parts, most, columns),
        ];
        grid.row(cells);
    }
    grid.write(out, paint)
}
