//! Many cycles of a small set, and what is left of them.

use std::sync::Arc;

use malloc_stats::Size;
use plimsoll_cache::Model;
use plimsoll_cache::device::{Cuda, Device};
use plimsoll_tui::table::{Align, Table};
use serde_json::{Value, json};

use crate::Failure;
use crate::ours::{BACK, Ours, free, ways};
use crate::report::Report;
use crate::samples::{Threshold, n_a};

/// Cycles before the first look: what is made once is there then.
const FIRST: usize = 50;

/// What resident memory may differ by: the allocator's own pages come and go.
const RESIDENT: u64 = 4 << 20;

/// What the device and this process have at one moment, bytes.
#[derive(Debug, Clone, Copy)]
struct Look {
    free: Option<u64>,
    pool_reserved: Option<u64>,
    staging: Option<u64>,
    /// By the kernel's count. Drivers may lock pages without its knowing.
    locked: Option<u64>,
    resident: Option<u64>,
}

impl Look {
    fn now(gpu: &Cuda) -> Look {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = |key: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(key))?;
            let kib: u64 = value.split_whitespace().next()?.parse().ok()?;
            Some(kib << 10)
        };
        let figures = gpu.figures();
        let locked = line("VmLck:").zip(line("VmPin:"));
        Look {
            free: free(gpu),
            pool_reserved: figures.as_ref().and_then(|f| f.pool_reserved.bytes()),
            staging: figures.as_ref().and_then(|f| f.staging.bytes()),
            locked: locked.map(|(locked, pinned)| locked + pinned),
            resident: line("VmRSS:"),
        }
    }

    fn all(&self) -> [(&'static str, Option<u64>); 5] {
        [
            ("free on the device", self.free),
            ("pool, reserved", self.pool_reserved),
            ("staging, page-locked", self.staging),
            ("VmLck + VmPin", self.locked),
            ("VmRSS", self.resident),
        ]
    }
}

/// Loads and unloads so many times.
///
/// # Errors
/// The cache's.
pub fn measure(
    report: &mut Report,
    gpu: &Arc<Cuda>,
    models: &[Model],
    cycles: usize,
) -> Result<(), Failure> {
    let best = ways().into_iter().flatten().next().ok_or("no storage")?;
    let bytes: u64 = models.iter().map(Model::bytes).sum();
    let ours = Ours::new(gpu, models, best)?;
    let mut looks = Vec::new();
    for (upto, title) in [
        (FIRST, "before"),
        (cycles / 2, "halfway"),
        (cycles - cycles / 2, "after"),
    ] {
        for _ in 0..upto {
            ours.unload(ours.load()?.0)?;
            // What waits to be heard is memory too.
            ours.notes();
        }
        looks.push((title, Look::now(gpu)));
    }
    let [(_, before), (_, halfway), (_, after)] = looks[..] else {
        return Ok(());
    };
    report.say(format!(
        "\n{FIRST} cycles, then {} more, of {} in {} models, from {best}",
        cycles,
        Size(bytes),
        models.len(),
    ));
    let mut table = Table::new([
        ("what", Align::Left),
        ("before", Align::Right),
        ("halfway", Align::Right),
        ("after", Align::Right),
        ("bytes more", Align::Right),
    ]);
    let size = |bytes: Option<u64>| bytes.map_or_else(n_a, |bytes| Size(bytes).to_string());
    let mut found = serde_json::Map::new();
    let columns = before.all().into_iter().zip(halfway.all()).zip(after.all());
    for (((what, before), (_, halfway)), (_, after)) in columns {
        let more = before.zip(after);
        let more = more.map(|(before, after)| after.cast_signed() - before.cast_signed());
        table.row([
            what.to_owned(),
            size(before),
            size(halfway),
            size(after),
            more.map_or_else(n_a, |more| more.to_string()),
        ]);
        let value = json!({ "before": before, "halfway": halfway, "after": after });
        found.insert(what.to_owned(), value);
        // Less free is growth; of everything else more is.
        let (sign, most) = match what {
            "free on the device" => (-1, BACK),
            "VmRSS" => (1, RESIDENT),
            _ => (1, 0),
        };
        report.threshold(Threshold::new(
            format!("{cycles} cycles, growth by {what}"),
            more.map(|more| sign * more <= most.cast_signed()),
            format!(
                "{} bytes, at most {most}",
                more.map_or_else(n_a, |more| (sign * more).to_string())
            ),
        ));
    }
    report.put(&["cycles"], Value::Object(found));
    report.say(table);
    Ok(())
}
