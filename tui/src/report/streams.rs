//! Models that were leased in part, and what patches brought.

use std::fmt::{Result, Write};

use malloc_stats::Size;
use plimsoll_events::Report;

use super::LONGEST_NAME;
use crate::decision::{percent, seconds};
use crate::paint::{Paint, Tone, safe, shortened};
use crate::table::{Align, Table};

/// What was there in part, what streamed, and how long was waited for it.
pub(super) fn write(out: &mut String, paint: &Paint, report: &Report) -> Result {
    if report.patched_bytes > 0 {
        writeln!(
            out,
            "\n{} {} loaded",
            paint.tone(Tone::Strong, "patches"),
            Size(report.patched_bytes)
        )?;
    }
    if report.streams.is_empty() {
        return Ok(());
    }
    let mut table = Table::new([
        ("  model", Align::Left),
        ("tier", Align::Left),
        ("leases", Align::Right),
        ("there", Align::Right),
        ("pool", Align::Right),
        ("streamed", Align::Right),
        ("transfers", Align::Right),
        ("waited", Align::Right),
        ("out of order", Align::Right),
    ]);
    for one in &report.streams {
        let low = percent(
            one.resident_low_bytes.min(one.resident_high_bytes),
            one.bytes,
        );
        let high = percent(one.resident_high_bytes, one.bytes);
        let there = match low == high {
            true => high,
            false => format!("{low} to {high}"),
        };
        table.row([
            format!("  {}", shortened(&safe(&one.model), LONGEST_NAME)),
            safe(&one.tier).into_owned(),
            one.leases.to_string(),
            there,
            Size(one.pool_bytes).to_string(),
            Size(one.streamed_bytes).to_string(),
            one.transfers.to_string(),
            seconds((one.waited_seconds * 1e6) as u64),
            one.out_of_order.to_string(),
        ]);
    }
    writeln!(out, "\n{}", paint.tone(Tone::Strong, "there in part"))?;
    write!(out, "{table}")
}
