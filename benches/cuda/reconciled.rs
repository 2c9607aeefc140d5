//! Where the device's memory is, by the cache, the driver and NVML, in one table.

use malloc_stats::gpu::{self, Vram};
use malloc_stats::{Metric, Size};
use plimsoll_cache::Model;
use plimsoll_cache::device::{Cuda, Device};
use plimsoll_events::DeviceFigures;
use plimsoll_tui::table::{Align, Table};
use serde_json::{Value, json};

use crate::Failure;
use crate::report::Report;
use crate::samples::Threshold;

/// What the rows may miss of the total: a large page of the device's. Other processes change theirs.
const MISSED: u64 = 2 << 20;

/// Prints where everything is, with these models on the device and nothing else of the cache's.
///
/// # Errors
/// The device tells nothing.
pub fn measure(report: &mut Report, device: &Cuda, models: &[Model]) -> Result<(), Failure> {
    let figures = device.figures().ok_or("the device tells nothing")?;
    let nvml = nvml(&figures);
    if let Err(reason) = &nvml {
        report.say(format!("\nNVML: {reason}"));
    }
    let charges: Vec<u64> = models.iter().map(|model| device.charge(model)).collect();
    let weights = Metric::Exact(charges.iter().sum());
    let idle = figures.pool_reserved.minus_saturating(figures.pool_used);
    // What the pool has handed out beyond what is counted: tensors that somebody holds.
    let held = (figures.pool_used.plus(figures.outside)).minus_saturating(weights);
    let ours = figures.pool_reserved.plus(figures.outside);
    let process = nvml.as_ref().map_or(Metric::Unavailable, |v| v.process);
    let in_use = figures.total.minus_saturating(figures.free);
    let beside = in_use.minus_saturating(ours);
    let (context, others) = match process {
        Metric::Unavailable => (Metric::Unavailable, Metric::Unavailable),
        process => (
            process.minus_saturating(ours),
            in_use.minus_saturating(process),
        ),
    };
    let mut rows: Vec<(String, Metric)> = models
        .iter()
        .zip(&charges)
        .map(|(model, charge)| {
            (
                format!("weights of {}", model.name()),
                Metric::Exact(*charge),
            )
        })
        .collect();
    rows.extend([
        ("held after leases".to_owned(), held),
        ("pool, reserved and idle".to_owned(), idle),
    ]);
    if process.is_unavailable() {
        rows.push(("context and other processes".to_owned(), beside));
    } else {
        rows.push(("context and the program's own".to_owned(), context));
        rows.push(("other processes".to_owned(), others));
    }
    rows.push(("free".to_owned(), figures.free));
    let sum = rows
        .iter()
        .fold(Metric::Exact(0), |sum, row| sum.plus(row.1));

    report.say(format!(
        "\nwhere the memory of {} is, with {} models resident",
        figures.name,
        models.len()
    ));
    let mut table = Table::new([
        ("what", Align::Left),
        ("size", Align::Right),
        ("bytes", Align::Right),
    ]);
    let mut found = serde_json::Map::new();
    let nvml = nvml.unwrap_or_default();
    let below = [
        ("sum", sum),
        ("total, by the driver", figures.total),
        ("pool, handed out", figures.pool_used),
        ("weights outside the pool", figures.outside),
        ("NVML: total", nvml.total),
        ("NVML: used", nvml.used),
        ("NVML: free", nvml.free),
        ("NVML: this process", nvml.process),
        ("staging, page-locked RAM", figures.staging),
        ("largest block, when last tried", figures.largest_block),
    ];
    let below = below.map(|(what, metric)| (what.to_owned(), metric));
    for (what, metric) in rows.into_iter().chain(below) {
        let bytes = metric.bytes();
        table.row([
            what.clone(),
            bytes.map_or_else(|| "n/a".to_owned(), |bytes| Size(bytes).to_string()),
            bytes.map_or_else(|| "n/a".to_owned(), |bytes| bytes.to_string()),
        ]);
        found.insert(what, json!(metric));
    }
    report.say(table);
    report.put(&["reconciled"], Value::Object(found));
    let apart = |one: Metric, other: Metric| Some(one.bytes()?.abs_diff(other.bytes()?));
    for (what, apart, most) in [
        (
            "the rows and the driver's total",
            apart(sum, figures.total),
            MISSED,
        ),
        (
            "weights counted and handed out by the pool",
            apart(weights, figures.pool_used.plus(figures.outside)),
            MISSED,
        ),
        // NVML counts what the driver keeps for itself as used, and so in its total.
        (
            "what is free by the driver and by NVML",
            apart(figures.free, nvml.free),
            MISSED,
        ),
    ] {
        report.threshold(Threshold::new(
            format!("reconciled: {what}"),
            apart.map(|apart| apart <= most),
            apart.map_or_else(
                || "n/a".to_owned(),
                |apart| format!("{apart} bytes apart, at most {most}"),
            ),
        ));
    }
    Ok(())
}

/// What NVML says of the same device. It numbers devices in another order, so that it has to be the
/// only one of its name.
fn nvml(figures: &DeviceFigures) -> Result<Vram, String> {
    let (devices, reason) = gpu::read_for(std::process::id())?;
    let mut named = devices.into_iter().filter(|vram| vram.name == figures.name);
    let found = named.next().ok_or("it knows no device of that name")?;
    if named.next().is_some() {
        return Err("it has several devices of that name".to_owned());
    }
    if let Some(reason) = reason {
        eprintln!("NVML: {reason}");
    }
    Ok(found)
}
