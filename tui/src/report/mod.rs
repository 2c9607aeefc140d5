//! A run in a page: what was asked, a curve, the numbers, and a verdict in words.
//!
//! | file | what |
//! |---|---|
//! | `tiers` | where models went, what it took, what was refused |
//! | `streams` | what was there in part, and what streamed |
//! | `numbers` | what it comes to |
//! | `verdict` | the same in sentences |

mod numbers;
mod streams;
mod tiers;
mod verdict;

use std::fmt::Write;

use malloc_stats::{SettingGrade, Size};
use plimsoll_events::Report;

use crate::chart::sparkline;
use crate::paint::{Paint, Tone, safe, shortened};
use crate::table::{Align, Table};

pub use verdict::verdict;

/// Columns of a model's name in a table.
const LONGEST_NAME: usize = 40;

/// The report as text.
#[must_use]
pub fn text(paint: &Paint, report: &Report) -> String {
    let mut out = String::new();
    // Writing to a `String` cannot fail.
    let _ = write(&mut out, paint, report);
    out
}

fn write(out: &mut String, paint: &Paint, report: &Report) -> std::fmt::Result {
    writeln!(out, "{}", paint.tone(Tone::Strong, "what ran"))?;
    writeln!(
        out,
        "  profile {}, allocator {}, storage {}",
        named(&report.profile),
        named(&report.allocator),
        named(&report.storage)
    )?;
    if let Some(allocator) = &report.settings {
        for (knob, setting) in allocator.settings.iter() {
            let (tone, grade) = match setting.grade {
                SettingGrade::Verified => (Tone::Good, "verified"),
                SettingGrade::Probed => (Tone::Good, "probed"),
                SettingGrade::Requested => (Tone::Faint, "requested, unverified"),
                SettingGrade::Refused => (Tone::Bad, "NOT in force"),
            };
            let value = safe(&setting.value);
            writeln!(out, "    {knob} = {value}  {}", paint.tone(tone, grade))?;
        }
    }
    let options: Vec<String> = report
        .options
        .iter()
        .map(|(name, value)| format!("{} {}", safe(name), safe(value)))
        .collect();
    if !options.is_empty() {
        writeln!(out, "  {}", options.join(", "))?;
    }
    write_models(out, paint, report)?;
    tiers::write_tiers(out, paint, report)?;
    tiers::write_transfers(out, paint, report)?;
    streams::write(out, paint, report)?;
    write_curve(out, paint, report)?;
    numbers::write(out, paint, report)?;
    tiers::write_refusals(out, paint, report)?;
    for note in &report.notes {
        writeln!(out, "{} {}", paint.tone(Tone::Warn, "note:"), safe(note))?;
    }
    for known in &report.errors {
        let what = format!("{} (`{}`, {} times)", known.error, known.model, known.count);
        writeln!(out, "{} {}", paint.tone(Tone::Bad, "error:"), safe(&what))?;
    }
    for (tone, sentence) in verdict(report) {
        writeln!(out, "{} {sentence}", paint.tone(tone, "verdict:"))?;
    }
    Ok(())
}

/// A name, or a word for its absence: a recording may have lost its beginning.
fn named(name: &str) -> std::borrow::Cow<'_, str> {
    if name.is_empty() {
        "n/a".into()
    } else {
        safe(name)
    }
}

fn write_models(out: &mut String, paint: &Paint, report: &Report) -> std::fmt::Result {
    if report.models.is_empty() {
        return Ok(());
    }
    let with_checksums = !report.model_checksums.is_empty();
    let mut columns = vec![
        ("  model", Align::Left),
        ("bytes", Align::Right),
        ("tensors", Align::Right),
        ("loads", Align::Right),
        ("hits", Align::Right),
        ("evictions", Align::Right),
        ("refusals", Align::Right),
        ("failed", Align::Right),
    ];
    // Where several tiers are in play, each has a rate of its own.
    let with_rates = !tiers::has_device(report) && !is_mapped(report);
    if with_rates {
        columns.push(("GB/s", Align::Right));
    }
    if with_checksums {
        columns.push(("checksum", Align::Left));
    }
    let mut table = Table::new(columns);
    for model in &report.models {
        let rate = if model.load_seconds > 0.0 {
            let bytes = model.model.bytes as f64 * model.loads as f64;
            format!("{:.2}", bytes / model.load_seconds / 1e9)
        } else {
            "-".to_owned()
        };
        let checksum = report.model_checksums.get(&model.model.name);
        let cells = [
            format!("  {}", shortened(&safe(&model.model.name), LONGEST_NAME)),
            Size(model.model.bytes).to_string(),
            model.model.tensors.to_string(),
            model.loads.to_string(),
            model.hits.to_string(),
            model.evictions.to_string(),
            model.refusals.to_string(),
            model.failed_loads.to_string(),
        ];
        let rate = with_rates.then_some(rate);
        table.row(cells.into_iter().chain(rate).chain(checksum.cloned()));
    }
    writeln!(out, "\n{}", paint.tone(Tone::Strong, "models"))?;
    write!(out, "{table}")
}

/// Whether loads in RAM read nothing, so that their speed says nothing.
fn is_mapped(report: &Report) -> bool {
    report.storage == "mapped"
}

fn write_curve(out: &mut String, paint: &Paint, report: &Report) -> std::fmt::Result {
    if report.steps.len() < 2 {
        return Ok(());
    }
    let baseline = report.baseline_rss_bytes.unwrap_or(0);
    let rss: Vec<u64> = report
        .steps
        .iter()
        .map(|step| step.rss_bytes.saturating_sub(baseline))
        .collect();
    let live: Vec<u64> = report.steps.iter().map(|step| step.live_bytes).collect();
    let top = rss.iter().chain(&live).copied().max().unwrap_or(0);
    let width = paint.width.saturating_sub(28);
    let last = |values: &[u64]| Size(values.last().copied().unwrap_or(0)).to_string();
    writeln!(
        out,
        "\n{}",
        paint.tone(
            Tone::Strong,
            &format!("after each step, 0 to {}", Size(top))
        )
    )?;
    writeln!(
        out,
        "  RSS - base {} {}",
        sparkline(paint, &rss, top, width),
        last(&rss)
    )?;
    writeln!(
        out,
        "  live       {} {}",
        sparkline(paint, &live, top, width),
        last(&live)
    )
}

fn signed(bytes: Option<i64>) -> String {
    match bytes {
        None => "n/a".to_owned(),
        Some(bytes) if bytes < 0 => format!("-{}", Size(bytes.unsigned_abs())),
        Some(bytes) => Size(bytes.unsigned_abs()).to_string(),
    }
}

/// Memory after each step, as a table.
#[must_use]
pub fn steps(report: &Report) -> Table {
    let mut table = Table::new([
        ("step", Align::Right),
        ("RSS", Align::Right),
        ("live", Align::Right),
        ("excess", Align::Right),
    ]);
    let baseline = report.baseline_rss_bytes.unwrap_or(0);
    for step in &report.steps {
        let above = i128::from(step.rss_bytes) - i128::from(baseline);
        let excess = above - i128::from(step.live_bytes);
        let excess = excess.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
        table.row([
            step.step.to_string(),
            Size(step.rss_bytes).to_string(),
            Size(step.live_bytes).to_string(),
            signed(Some(excess)),
        ]);
    }
    table
}
