//! The report as text: a line a model, and what needs more words below.

use std::collections::{BTreeMap, HashMap};

use malloc_stats::Size;
use plimsoll_cache::model::{escape, escape_path};
use plimsoll_tui::paint::{Paint, Tone, safe, shortened};
use plimsoll_tui::table::{Align, Table};

use super::found::{Cached, Found};
use super::report::Report;

/// Mixes of more types than fit are cut.
const DTYPES: usize = 14;

/// Names of more columns are cut: one of a file can take 1500, and all rows are as wide.
const NAME: usize = 120;

pub(super) fn text(report: &Report, paint: &Paint, long: bool) -> String {
    let mut parts = Vec::new();
    if !report.models.is_empty() {
        let names = names(report);
        let lines = if long {
            format!(
                "{}\n{}",
                long_table(report, &names),
                evidence(report, &names)
            )
        } else {
            table(report, &names).to_string()
        };
        parts.push(format!("{lines}\n{}", notes(report)));
    }
    if !report.bad.is_empty() {
        let lines = report.bad.iter().map(|bad| format!("  {}\n", bad.error));
        let heading = paint.tone(Tone::Bad, "cannot be read");
        parts.push(format!("{heading}\n{}", lines.collect::<String>()));
    }
    if !report.other.is_empty() {
        let lines = report.other.iter().map(|other| {
            let (path, size) = (escape_path(&other.path), Size(other.bytes));
            format!("  {path}: {}, {size}\n", other.format)
        });
        let heading = paint.tone(
            Tone::Warn,
            "not read by Plimsoll; what is a model can be converted to safetensors",
        );
        parts.push(format!("{heading}\n{}", lines.collect::<String>()));
    }
    parts.join("\n")
}

/// Models of two of the given paths may have one name: those are told apart by their paths.
fn names(report: &Report) -> Vec<String> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for model in &report.models {
        *counts.entry(&model.name).or_default() += 1;
    }
    let name = |model: &Found| match counts.get(&*model.name) {
        Some(1) => escape(&model.name).to_string(),
        _ => escape_path(&model.path).to_string(),
    };
    report.models.iter().map(name).collect()
}

fn table(report: &Report, names: &[String]) -> Table {
    let mut table = Table::new([
        ("model", Align::Left),
        ("what", Align::Left),
        ("params", Align::Right),
        ("dtypes", Align::Left),
        ("bytes", Align::Right),
        ("in place", Align::Right),
        ("cached", Align::Right),
        ("RAM", Align::Left),
        ("VRAM", Align::Left),
    ]);
    for (model, name) in report.models.iter().zip(names) {
        // What tells paths apart may be at their ends.
        let columns = if name.contains('/') { usize::MAX } else { NAME };
        table.row([
            shortened(name, columns).into_owned(),
            model.what.clone(),
            count(model.parameters),
            shortened(&model.dtype_mix, DTYPES).into_owned(),
            Size(model.bytes).to_string(),
            share(model.in_place_bytes, model.bytes),
            cached(&model.page_cache),
            model.ram.text().to_owned(),
            model.vram.text().to_owned(),
        ]);
    }
    table
}

fn long_table(report: &Report, names: &[String]) -> Table {
    let mut table = Table::new([
        ("model", Align::Left),
        ("format", Align::Left),
        ("shards", Align::Right),
        ("what", Align::Left),
        ("params", Align::Right),
        ("dtypes", Align::Left),
        ("tensors", Align::Right),
        ("bytes", Align::Right),
        ("alignment", Align::Right),
        ("misaligned", Align::Right),
        ("in place", Align::Right),
        ("cached", Align::Right),
        ("anonymous", Align::Right),
        ("mapped", Align::Right),
        ("RAM", Align::Left),
        ("VRAM", Align::Left),
    ]);
    for (model, name) in report.models.iter().zip(names) {
        table.row([
            name.clone(),
            model.format.to_owned(),
            model.shards.to_string(),
            model.what.clone(),
            count(model.parameters),
            model.dtype_mix.clone(),
            model.tensors.to_string(),
            Size(model.bytes).to_string(),
            model
                .alignment
                .map_or_else(|| "-".to_owned(), |bytes| Size(bytes).to_string()),
            model.misaligned.to_string(),
            share(model.in_place_bytes, model.bytes),
            cached(&model.page_cache),
            Size(model.storage.anonymous).to_string(),
            Size(model.storage.mapped).to_string(),
            model.ram.text().to_owned(),
            model.vram.text().to_owned(),
        ]);
    }
    table
}

fn evidence(report: &Report, names: &[String]) -> String {
    let models = report.models.iter().zip(names);
    models
        .map(|(model, name)| format!("{name}: {}; {}\n", model.what, model.kind.evidence))
        .collect()
}

fn notes(report: &Report) -> String {
    let bytes = report.models.iter().map(|model| model.bytes);
    let bound = report.free.ram_bound.as_deref();
    let models = match report.models.len() {
        1 => "1 model".to_owned(),
        count => format!("{count} models"),
    };
    let mut notes = format!(
        "{models}, {}\nfree RAM:  {}, by {}\n",
        Size(bytes.fold(0, u64::saturating_add)),
        report.free.ram,
        safe(bound.unwrap_or("nothing that could be read"))
    );
    for vram in &report.free.vram {
        notes += &format!(
            "free VRAM: {} on GPU {}, {}\n",
            vram.free,
            vram.index,
            safe(&vram.name)
        );
        if let Some(why) = &vram.absent {
            notes += &format!("           {}\n", safe(why));
        }
    }
    if let Some(reason) = &report.free.vram_unavailable {
        notes += &format!("free VRAM: n/a, {}\n", safe(reason));
    }
    let mut untold: BTreeMap<&str, usize> = BTreeMap::new();
    let reasons = report.models.iter().map(|model| &model.page_cache);
    for reason in reasons.filter_map(|cached| cached.unavailable.as_deref()) {
        *untold.entry(reason).or_default() += 1;
    }
    for (reason, models) in untold {
        notes += &format!("cached:    n/a of {models}, {}\n", safe(reason));
    }
    for model in report.models.iter().filter(|model| model.unmapped > 0) {
        notes += &format!(
            "{}: {} tensors in its shards are not named by the index, and left out\n",
            escape(&model.name),
            model.unmapped
        );
    }
    notes
}

/// A number of parameters as people say it: `1.1 B`.
pub(super) fn count(number: u64) -> String {
    if number < 1000 {
        return number.to_string();
    }
    let mut scaled = number as f64;
    let mut unit = "";
    for next in ["K", "M", "B", "T"] {
        // 999950 would print as 1000.0 K.
        if scaled < 999.95 {
            break;
        }
        scaled /= 1000.0;
        unit = next;
    }
    format!("{scaled:.1} {unit}")
}

/// A part in percent; what is not nothing is not 0 %, and what is not all not 100 %.
pub(super) fn share(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    let percent = 100.0 * part as f64 / whole as f64;
    match percent {
        percent if percent > 0.0 && percent < 1.0 => "<1%".to_owned(),
        percent if part < whole && percent > 99.0 => ">99%".to_owned(),
        percent => format!("{percent:.0}%"),
    }
}

fn cached(cached: &Cached) -> String {
    match cached.cached.bytes() {
        Some(bytes) => format!(
            "{}{}",
            cached.cached.grade().mark(),
            share(bytes, cached.of)
        ),
        None => "n/a".to_owned(),
    }
}
