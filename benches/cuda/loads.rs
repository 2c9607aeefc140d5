//! Loads and unloads of a set of models, beside what the bare driver and the machine take.

use std::sync::Arc;

use malloc_stats::Size;
use plimsoll_cache::Model;
use plimsoll_cache::device::{Cuda, Device};
use plimsoll_tui::table::{Align, Table};
use serde_json::json;

use crate::Failure;
use crate::bare::Bare;
use crate::ours::{BACK, Ours, free, ways};
use crate::report::Report;
use crate::samples::{Samples, Threshold, n_a, ratio, shown};

/// What an unload may take in any case, seconds.
const SOON: f64 = 5e-3;

/// From pinned RAM copies, of a bare pinned copy.
const OF_BARE: f64 = 0.95;
/// From others, of the lesser of that and a parallel copy into staging.
const OF_STAGED: f64 = 0.8;

/// One way's rounds.
#[derive(Default)]
struct Rounds {
    load: Samples,
    unload: Samples,
    copy: Samples,
    allocate: Samples,
    stage: Samples,
    frees: Samples,
    /// The most that free memory differed by after an unload, bytes.
    apart: Option<u64>,
}

/// Measures all ways.
///
/// # Errors
/// The cache's or the driver's.
pub fn measure(
    report: &mut Report,
    name: &str,
    gpu: &Arc<Cuda>,
    models: &[Model],
    rounds: usize,
) -> Result<(), Failure> {
    let bytes: u64 = models.iter().map(Model::bytes).sum();
    let candle = gpu.candle().ok_or("no candle device")?;
    let bare = Bare::new(&candle, bytes)?;
    if let Some(reason) = bare.refused() {
        report.say(format!("the bare copy is not page-locked: {reason}"));
    }
    let sizes: Vec<u64> = models.iter().map(|model| gpu.charge(model)).collect();
    report.say(format!("\n{name}: loads and unloads, ms"));
    let mut table = Table::new([
        ("from", Align::Left),
        ("n", Align::Right),
        ("load", Align::Right),
        ("min..max", Align::Right),
        ("GB/s", Align::Right),
        ("bare copy", Align::Right),
        ("of it", Align::Right),
        ("staging alone", Align::Right),
        ("of the lesser", Align::Right),
        ("unload", Align::Right),
        ("min..max", Align::Right),
        ("bare frees", Align::Right),
        ("bare alloc", Align::Right),
        ("free apart", Align::Right),
    ]);
    for way in ways() {
        let way = match way {
            Ok(way) => way,
            Err(absent) => {
                table.row([absent.to_owned(), n_a()]);
                threshold(report, name, absent, None, bare.refused().is_none());
                continue;
            }
        };
        let ours = Ours::new(gpu, models, way)?;
        let (lease, _) = ours.load()?;
        ours.verify(&lease)?;
        ours.unload(lease)?;
        let mut done = Rounds::default();
        for _ in 0..rounds {
            let copied = bare.copy()?;
            done.copy.push(copied.copying);
            done.allocate.push(copied.allocating);
            done.stage.push(bare.stage());
            done.frees.push(bare.frees(&sizes)?);
            let before = free(gpu);
            let (lease, took) = ours.load()?;
            done.load.push(took);
            done.unload.push(ours.unload(lease)?);
            if let (Some(before), Some(after)) = (before, free(gpu)) {
                let apart = done.apart.get_or_insert(0);
                *apart = (*apart).max(before.abs_diff(after));
            }
        }
        row(&mut table, &way.to_string(), bytes, &done);
        report.put(
            &["sets", name, "loads", &way.to_string()],
            json!({
                "bytes": bytes,
                "load": done.load.json(),
                "unload": done.unload.json(),
                "bare_copy": done.copy.json(),
                "bare_allocate": done.allocate.json(),
                "staging_alone": done.stage.json(),
                "bare_frees": done.frees.json(),
                "free_apart_bytes": done.apart,
            }),
        );
        threshold(
            report,
            name,
            &way.to_string(),
            Some(&done),
            bare.refused().is_none(),
        );
        for note in ours.notes() {
            report.say(format!("{way}: {note}"));
        }
    }
    report.say(table.to_string());
    Ok(())
}

/// The rate of a way as a share of a bare copy's, and of the lesser of that and a copy into staging.
fn shares(done: &Rounds) -> (Option<f64>, Option<f64>) {
    let load = done.load.median();
    let copy = done.copy.median();
    let slower = done.stage.median().zip(copy).map(|(one, two)| one.max(two));
    (ratio(copy, load), ratio(slower, load))
}

fn row(table: &mut Table, way: &str, bytes: u64, done: &Rounds) {
    let [load, load_range] = done.load.shown();
    let [unload, unload_range] = done.unload.shown();
    let (of_copy, of_lesser) = shares(done);
    table.row([
        way.to_owned(),
        done.load.0.len().to_string(),
        load,
        load_range,
        shown(ratio(Some(bytes as f64 / 1e9), done.load.median()), 2),
        done.copy.shown()[0].clone(),
        shown(of_copy, 3),
        done.stage.shown()[0].clone(),
        shown(of_lesser, 3),
        unload,
        unload_range,
        done.frees.shown()[0].clone(),
        done.allocate.shown()[0].clone(),
        done.apart.map_or_else(n_a, |bytes| Size(bytes).to_string()),
    ]);
}

fn threshold(report: &mut Report, name: &str, way: &str, done: Option<&Rounds>, is_bare: bool) {
    // Where even the bare copy is not from locked memory there is nothing to compare with.
    let shares = done.filter(|_| is_bare).map(shares);
    match way {
        "pinned" => report.threshold(Threshold::at_least(
            format!("{name}, from pinned, of a bare pinned copy"),
            shares.and_then(|shares| shares.0),
            OF_BARE,
        )),
        "anonymous" | "mapped" => report.threshold(Threshold::at_least(
            format!("{name}, from {way}, of the lesser of a bare copy and staging alone"),
            shares.and_then(|shares| shares.1),
            OF_STAGED,
        )),
        _ => {}
    }
    let Some(done) = done else { return };
    if let (Some(unload), Some(frees)) = (done.unload.median(), done.frees.median()) {
        let most = SOON.max(1.5 * frees);
        report.threshold(Threshold::new(
            format!("{name}, unload under {way}"),
            Some(unload <= most),
            format!("{:.2} ms, at most {:.2} ms", unload * 1e3, most * 1e3),
        ));
    }
    report.threshold(Threshold::new(
        format!("{name}, free memory back after unloads under {way}"),
        done.apart.map(|apart| apart <= BACK),
        format!(
            "{} apart, at most {}",
            done.apart.map_or_else(n_a, |bytes| Size(bytes).to_string()),
            Size(BACK)
        ),
    ));
}
