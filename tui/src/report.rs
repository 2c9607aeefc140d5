//! A run in a page: what was asked, a curve, the numbers, and a verdict in words.

use std::fmt::Write;

use malloc_stats::{SettingGrade, Size};
use plimsoll_events::Report;

use crate::chart::sparkline;
use crate::decision::seconds;
use crate::paint::{Paint, Tone, safe, shortened};
use crate::table::{Align, Table};

/// Columns of a model's name in a table.
const LONGEST_NAME: usize = 40;

/// Below this, memory that stays is not worth a word: the program's own tables and stacks.
const NEGLIGIBLE: i64 = 16 << 20;

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
    write_curve(out, paint, report)?;
    write_numbers(out, paint, report)?;
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
        ("GB/s", Align::Right),
    ];
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
        table.row([
            format!("  {}", shortened(&safe(&model.model.name), LONGEST_NAME)),
            Size(model.model.bytes).to_string(),
            model.model.tensors.to_string(),
            model.loads.to_string(),
            model.hits.to_string(),
            model.evictions.to_string(),
            model.refusals.to_string(),
            model.failed_loads.to_string(),
            rate,
            checksum.cloned().unwrap_or_default(),
        ]);
    }
    writeln!(out, "\n{}", paint.tone(Tone::Strong, "models"))?;
    write!(out, "{table}")
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

fn write_numbers(out: &mut String, paint: &Paint, report: &Report) -> std::fmt::Result {
    let size = |bytes: Option<u64>| bytes.map_or("n/a".to_owned(), |b| Size(b).to_string());
    let mut table = Table::new([("", Align::Left), ("", Align::Right), ("", Align::Left)]);
    let mut row = |name: &str, value: String, note: String| {
        table.row([format!("  {name}"), value, note]);
    };
    row(
        "budget",
        report
            .budget_bytes
            .map_or("none".into(), |b| Size(b).to_string()),
        String::new(),
    );
    row(
        "baseline RSS",
        size(report.baseline_rss_bytes),
        "before the first load".into(),
    );
    row(
        "live, peak",
        size(Some(report.live_peak_bytes)),
        String::new(),
    );
    row(
        "RSS, peak",
        size(report.rss_peak_bytes),
        "VmHWM, baseline included".into(),
    );
    row(
        "excess",
        signed(report.excess_bytes),
        "worst of RSS - baseline - live after a step".into(),
    );
    row(
        "retained",
        signed(report.retained_bytes),
        "RSS - baseline with everything dropped".into(),
    );
    let grade = if report.returned_exact { "" } else { "~" };
    row(
        "freed / returned",
        format!(
            "{} / {grade}{}",
            Size(report.freed_bytes),
            Size(report.returned_bytes)
        ),
        format!(
            "{} became the next model's without a fault",
            Size(report.recycled_bytes)
        ),
    );
    row(
        "loads / hits",
        format!("{} / {}", report.loads, report.hits),
        format!(
            "{} evicted for room, {} dropped, {} refused, {} failed",
            report.evictions_for_room,
            report.evictions - report.evictions_for_room,
            report.refusals,
            report.failed_loads
        ),
    );
    let rate = if report.load_seconds > 0.0 {
        format!(
            "{:.2} GB/s",
            report.bytes_loaded as f64 / report.load_seconds / 1e9
        )
    } else {
        String::new()
    };
    row(
        "loaded",
        format!(
            "{} in {}",
            Size(report.bytes_loaded),
            seconds((report.load_seconds * 1e6) as u64)
        ),
        rate,
    );
    if report.copied_bytes > 0 {
        row(
            "copied",
            Size(report.copied_bytes).to_string(),
            "tensors whose memory could not be adopted".into(),
        );
    }
    row(
        "minor faults",
        report.minor_faults.to_string(),
        String::new(),
    );
    row(
        "snapshots",
        seconds((report.snapshot_seconds * 1e6) as u64),
        report.snapshot_share().map_or(String::new(), |share| {
            format!("{:.2} % of load time", share * 100.0)
        }),
    );
    row(
        "wall",
        seconds((report.wall_seconds * 1e6) as u64),
        String::new(),
    );
    if let Some(checksum) = &report.checksum {
        row("checksum", checksum.clone(), "over all weights read".into());
    }
    writeln!(out, "\n{}", paint.tone(Tone::Strong, "numbers"))?;
    // The columns have no names.
    writeln!(out, "{}", table.to_string().trim_start_matches('\n'))
}

fn signed(bytes: Option<i64>) -> String {
    match bytes {
        None => "n/a".to_owned(),
        Some(bytes) if bytes < 0 => format!("-{}", Size(bytes.unsigned_abs())),
        Some(bytes) => Size(bytes.unsigned_abs()).to_string(),
    }
}

/// What it comes to, in sentences.
#[must_use]
pub fn verdict(report: &Report) -> Vec<(Tone, String)> {
    let mut sentences = Vec::new();
    if !report.complete {
        let what = "the stream ends early; the numbers are up to its last event".to_owned();
        sentences.push((Tone::Warn, what));
    }
    if report.missing_events > 0 {
        let what = format!("events missing from the stream: {}", report.missing_events);
        sentences.push((Tone::Warn, what));
    }
    let live = Size(report.live_peak_bytes);
    match report.retained_bytes {
        Some(kept) if kept > NEGLIGIBLE.max((report.live_peak_bytes / 50) as i64) => {
            // The cause and the cure are glibc's: a preloaded allocator has others.
            let is_glibc = report.allocator.starts_with("glibc");
            let advice = match (report.storage.as_str(), report.profile.as_str()) {
                ("heap", "glibc-default") if is_glibc => {
                    "; small live blocks pin freed ones below them: try `--profile \
                     glibc-mmap-1m-trim`, or `--storage anonymous`"
                }
                ("heap", profile) if profile.starts_with("jemalloc") => {
                    "; unused pages decay only while the program allocates: try `--profile \
                     jemalloc-purge`, or `--storage anonymous`"
                }
                _ => "",
            };
            let what = format!(
                "{} stayed resident after everything was dropped (live peak {live}){advice}",
                Size(kept.unsigned_abs())
            );
            sentences.push((Tone::Bad, what));
        }
        Some(_) if report.live_peak_bytes == 0 => {
            sentences.push((Tone::Warn, "nothing was ever loaded".to_owned()));
        }
        Some(kept) => {
            let what = format!(
                "everything dropped came back: {} above the baseline, of {live} that were live",
                signed(Some(kept))
            );
            sentences.push((Tone::Good, what));
        }
        None => {}
    }
    if let Some(excess) = report.excess_bytes
        && excess > NEGLIGIBLE.max((report.live_peak_bytes / 20) as i64)
    {
        let what = format!(
            "at its worst {} were resident beyond what was live",
            Size(excess.unsigned_abs())
        );
        sentences.push((Tone::Warn, what));
    }
    if report.failed_loads > 0 {
        sentences.push((
            Tone::Bad,
            format!("loads that failed: {}", report.failed_loads),
        ));
    }
    if report.refusals > 0 {
        let what = format!("leases refused: {}", report.refusals);
        sentences.push((Tone::Warn, what));
    }
    sentences
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
