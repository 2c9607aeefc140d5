//! What its limits leave, which of them leaves least, and whether one was met already.

use std::fmt::Result;

use malloc_stats::inspect::Inspection;
use malloc_stats::limits::{Bound, Cgroup, CgroupVersion, Limit, PressureOf, Rlimits};
use malloc_stats::{Limits, Metric, Size, Vram};

use super::grid::{Column, Cut, Grid, Text, bar};
use super::prose::{compact_metric, metric, percent, spoken};
use super::{absent, line, title, toned_line};
use crate::paint::{Paint, Tone};

/// A bound in few words: `max /kubepods/pod7`, `host`.
pub(crate) fn label(bound: &Bound) -> String {
    match bound {
        Bound::CgroupMax(path) => format!("max {path}"),
        Bound::CgroupHigh(path) => format!("high {path}"),
        Bound::CgroupMemorySwap(path) => format!("mem+swap {path}"),
        Bound::Host => "host".to_owned(),
    }
}

/// One thing that is bounded.
pub(crate) struct Row<'a> {
    pub(crate) bound: Bound,
    pub(crate) limit: Metric,
    pub(crate) current: Metric,
    pub(crate) left: Metric,
    /// The cgroup whose bound it is; `None` for the host's.
    pub(crate) cgroup: Option<&'a Cgroup>,
}

impl<'a> Row<'a> {
    fn of(bound: Bound, limit: Limit, current: Metric, cgroup: &'a Cgroup) -> Option<Row<'a>> {
        let limit = match limit {
            Limit::Unlimited => return None,
            Limit::Bytes(bytes) => Metric::Exact(bytes),
            Limit::Unknown => Metric::Unavailable,
        };
        Some(Row {
            bound,
            limit,
            current,
            left: limit.minus_saturating(current),
            cgroup: Some(cgroup),
        })
    }
}

/// The bounds of cgroups, the process's own first.
pub(crate) fn rows_of_cgroups(limits: &Limits) -> impl Iterator<Item = Row<'_>> {
    let v1 = limits.cgroup_version == Some(CgroupVersion::V1);
    let of = move |cgroup| rows_of(cgroup, v1);
    limits.cgroups.iter().flat_map(of)
}

fn rows_of(cgroup: &Cgroup, v1: bool) -> impl Iterator<Item = Row<'_>> {
    let path = || cgroup.path.clone();
    let row = |bound, limit, current| Row::of(bound, limit, current, cgroup);
    let high = row(Bound::CgroupHigh(path()), cgroup.high, cgroup.current);
    let max = row(Bound::CgroupMax(path()), cgroup.max, cgroup.current);
    let both = Bound::CgroupMemorySwap(path());
    let both = row(both, cgroup.memsw_max, cgroup.memsw_current);
    // Each version has one that the other has not.
    [high.filter(|_| !v1), max, both.filter(|_| v1)]
        .into_iter()
        .flatten()
}

/// The bound that the host is.
pub(crate) fn row_of_host(limits: &Limits) -> Row<'static> {
    Row {
        bound: Bound::Host,
        limit: limits.host_total,
        current: limits.host_total.minus_saturating(limits.host_available),
        left: limits.host_available,
        cgroup: None,
    }
}

/// How full something is, drawn.
fn gauge(paint: &Paint, current: Metric, limit: Metric, columns: usize) -> Text {
    let (Some(current), Some(limit)) = (current.bytes(), limit.bytes()) else {
        return Text::default();
    };
    let tone = match u128::from(current) * 100 / u128::from(limit.max(1)) {
        0..80 => Tone::Good,
        80..95 => Tone::Warn,
        _ => Tone::Bad,
    };
    let mark = if paint.unicode { '█' } else { '#' };
    let part = (tone, mark, current);
    let filled = bar(&[part], limit, columns);
    Text::from("[").and(filled).and("]")
}

/// Columns of a gauge that leave room for numbers, and for a path in front.
fn gauge_columns(paint: &Paint) -> usize {
    (paint.width / 5).clamp(8, 30)
}

fn columns(name: &'static str) -> [Column; 6] {
    [
        Column::left(""),
        Column::left(name).cut(Cut::Middle),
        Column::left("").rank(1),
        Column::right("used"),
        Column::right("of"),
        Column::right("left"),
    ]
}

pub(super) fn write(out: &mut String, paint: &Paint, inspection: &Inspection) -> Result {
    let limits = &inspection.limits;
    title(out, paint, "headroom")?;
    let tightest = limits.tightest().map(|tightest| tightest.bound);
    let mut grid = Grid::new(columns("bound")).flush();
    for row in rows_of_cgroups(limits).chain([row_of_host(limits)]) {
        let is_tightest = tightest.as_ref() == Some(&row.bound);
        let left = compact_metric(paint, row.left);
        grid.row([
            if is_tightest { ">" } else { " " }.into(),
            spoken(paint, &label(&row.bound)).into(),
            gauge(paint, row.current, row.limit, gauge_columns(paint)),
            compact_metric(paint, row.current).into(),
            compact_metric(paint, row.limit).into(),
            if is_tightest {
                Text::toned(Tone::Strong, left)
            } else {
                left.into()
            },
        ]);
    }
    grid.write(out, paint)?;
    match tightest {
        Some(bound) => line(out, paint, &format!("> leaves least: {bound}"))?,
        None => line(out, paint, "which limit leaves least is not known")?,
    }
    line(out, paint, &cgroup(limits))?;
    let reclaimable = limits.room().map(|room| room.reclaimable);
    if let Some(bytes) = reclaimable.filter(|bytes| !bytes.is_unavailable()) {
        let bytes = metric(paint, bytes);
        let what = format!("page cache that could be dropped, on top: {bytes}");
        line(out, paint, &what)?;
    }
    kills(out, paint, limits)?;
    line(out, paint, &pressure(inspection))?;
    line(out, paint, &oom_score(inspection))?;
    line(out, paint, &resident(paint, inspection))?;
    line(out, paint, &swap(paint, inspection))?;
    if let Some(ulimits) = ulimits(&limits.rlimits) {
        line(out, paint, &ulimits)?;
    }
    vram(
        out,
        paint,
        &inspection.vram,
        inspection.vram_absent.as_deref(),
    )
}

fn cgroup(limits: &Limits) -> String {
    let Some(version) = limits.cgroup_version else {
        return "cgroup n/a".to_owned();
    };
    let version = match version {
        CgroupVersion::V1 => 1,
        CgroupVersion::V2 => 2,
    };
    let Some(own) = limits.cgroups.first() else {
        return format!("cgroup of version {version}, of which nothing can be read");
    };
    let is_free = |cgroup: &Cgroup| {
        [cgroup.max, cgroup.high, cgroup.memsw_max]
            .iter()
            .all(|limit| *limit == Limit::Unlimited)
    };
    let unlimited = if limits.cgroups.iter().all(is_free) {
        ", without a limit, as all above it"
    } else {
        ""
    };
    format!("cgroup {} (version {version}){unlimited}", own.path)
}

fn kills(out: &mut String, paint: &Paint, limits: &Limits) -> Result {
    // Counts that are carried as metrics.
    let known = |cgroup: &Cgroup| Some((cgroup.path.clone(), cgroup.oom_kills.bytes()?));
    let known: Vec<_> = limits.cgroups.iter().filter_map(known).collect();
    let some: Vec<String> = known
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(path, count)| format!("{count} in {path}"))
        .collect();
    match (known.is_empty(), some.is_empty()) {
        (true, _) => line(out, paint, "kills for want of memory: n/a"),
        (false, true) => line(out, paint, "kills for want of memory: none"),
        (false, false) => {
            let what = format!("KILLS for want of memory: {}", some.join(", "));
            toned_line(out, paint, Tone::Bad, &what)
        }
    }
}

fn pressure(inspection: &Inspection) -> String {
    match &inspection.pressure {
        None => "memory pressure: n/a".to_owned(),
        Some(pressure) => format!(
            "memory pressure of the {}: some {:.2} %, full {:.2} % of the last 10 s",
            match pressure.of {
                PressureOf::Cgroup => "cgroup",
                PressureOf::Host => "host",
            },
            pressure.some.avg10,
            pressure.full.avg10
        ),
    }
}

fn oom_score(inspection: &Inspection) -> String {
    let process = &inspection.process;
    let Some(score) = process.oom_score else {
        return "oom_score: n/a".to_owned();
    };
    let adjusted = match process.oom_score_adj {
        Some(0) | None => String::new(),
        Some(-1000) => ", never killed (oom_score_adj -1000)".to_owned(),
        Some(by) => format!(", with {by:+} by oom_score_adj"),
    };
    format!("oom_score: {score} of 2000{adjusted}")
}

fn resident(paint: &Paint, inspection: &Inspection) -> String {
    let memory = &inspection.process.memory;
    format!(
        "RSS {}: anonymous {}, file {}, shared {}; peak {}",
        metric(paint, memory.rss),
        metric(paint, memory.anon),
        metric(paint, memory.file),
        metric(paint, memory.shmem),
        metric(paint, memory.hwm)
    )
}

fn swap(paint: &Paint, inspection: &Inspection) -> String {
    let own = metric(paint, inspection.process.memory.swap);
    let Some(host) = inspection.host else {
        return format!("swap: {own} of it");
    };
    if host.swap_total == Metric::Exact(0) {
        return format!("swap: {own} of it; the host has none");
    }
    let limits = inspection.limits.cgroups.iter();
    let limited: String = limits
        .filter_map(|cgroup| {
            let limit = Size(cgroup.swap_max.bytes()?);
            let used = metric(paint, cgroup.swap_current);
            Some(format!(
                "; {} has {used} of the {limit} it may have",
                cgroup.path
            ))
        })
        .collect();
    let (free, total) = (host.swap_free, host.swap_total);
    let (free, total) = (metric(paint, free), metric(paint, total));
    format!("swap: {own} of it; the host has {free} of {total} free{limited}")
}

fn ulimits(rlimits: &Rlimits) -> Option<String> {
    let parts: Vec<String> = [
        ("address space", rlimits.address_space),
        ("data", rlimits.data),
    ]
    .iter()
    .filter_map(|(name, limit)| Some(format!("{name} {}", Size(limit.bytes()?))))
    .collect();
    (!parts.is_empty()).then(|| format!("ulimit: {}", parts.join(", ")))
}

fn vram(out: &mut String, paint: &Paint, devices: &[Vram], reason: Option<&str>) -> Result {
    if devices.is_empty() {
        return match reason {
            Some(reason) => line(out, paint, &format!("VRAM n/a: {reason}")),
            None => Ok(()),
        };
    }
    title(out, paint, "VRAM")?;
    let numbers = ["used", "of", "free", "this process", "share"];
    let numbers = numbers.map(Column::right);
    let device = [
        Column::left("device").cut(Cut::End),
        Column::left("").rank(1),
    ];
    let mut grid = Grid::new(device.into_iter().chain(numbers));
    for vram in devices {
        let share = vram.process.bytes().zip(vram.total.bytes());
        let share = share.filter(|(_, total)| *total > 0);
        grid.row([
            spoken(paint, &format!("{} {}", vram.index, vram.name)).into(),
            gauge(paint, vram.used, vram.total, gauge_columns(paint)),
            compact_metric(paint, vram.used).into(),
            compact_metric(paint, vram.total).into(),
            compact_metric(paint, vram.free).into(),
            compact_metric(paint, vram.process).into(),
            share
                .map_or("n/a".to_owned(), |(own, total)| {
                    percent(own as f64 / total as f64)
                })
                .into(),
        ]);
    }
    grid.write(out, paint)?;
    for vram in devices {
        if let Some(why) = &vram.absent {
            absent(out, paint, &format!("GPU {}: {why}", vram.index))?;
        } else if vram.mig {
            let index = vram.index;
            let what = format!("GPU {index} is partitioned (MIG): these are numbers of all of it");
            line(out, paint, &what)?;
        }
    }
    match reason {
        Some(reason) => absent(out, paint, reason),
        None => Ok(()),
    }
}
