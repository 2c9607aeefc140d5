//! How fast it grows, and when it meets a limit.

use std::fmt::Result;

use malloc_stats::inspect::Growth;

use super::grid::{Column, Cut, Grid, Text};
use super::prose::{compact, compact_metric, lasting, metric, spoken};
use super::{line, title, toned_line};
use crate::paint::{Paint, Tone};

/// Slower than this a limit is out of sight.
const SOON: f64 = 3_600.0;

/// Bytes a second as bytes a minute, which people compare with what they see.
fn a_minute(bytes_per_second: f64) -> String {
    let bytes = (bytes_per_second * 60.0).round();
    match bytes {
        0.0 => "0".to_owned(),
        // Casting saturates, and turns what is no number into 0.
        ..0.0 => format!("-{}", compact(bytes.abs() as u64)),
        _ => format!("+{}", compact(bytes as u64)),
    }
}

pub(super) fn write(out: &mut String, paint: &Paint, growth: &Growth) -> Result {
    title(
        out,
        paint,
        &format!("growth within {}", lasting(growth.seconds)),
    )?;
    let mut grid = Grid::new([
        Column::left("").cut(Cut::End),
        Column::right("before").rank(1),
        Column::right("after"),
        Column::right("a minute"),
    ]);
    for slope in &growth.slopes {
        let cells: [Text; 4] = [
            spoken(paint, &slope.of).into(),
            compact_metric(paint, slope.before).into(),
            compact_metric(paint, slope.after).into(),
            a_minute(slope.bytes_per_second).into(),
        ];
        grid.row(cells);
    }
    grid.write(out, paint)?;
    if growth.time_to.is_empty() {
        return line(out, paint, "no limit comes nearer");
    }
    for time in &growth.time_to {
        let left = metric(paint, time.headroom);
        let after = format!("if it goes on so: ~{}", lasting(time.seconds));
        let what = format!("{after} to {} ({left} left)", time.bound);
        let tone = if time.seconds < SOON {
            Tone::Bad
        } else {
            Tone::Warn
        };
        toned_line(out, paint, tone, &what)?;
    }
    Ok(())
}
