//! Memory at a moment, in a page.

use std::fmt::Write;

use malloc_stats::{Metric, SettingGrade, Size, Snapshot};

use crate::paint::{Paint, Tone, safe};
use crate::table::{Align, Table};

/// A full snapshot as text: process, allocator, limits, host, pressure, VRAM.
#[must_use]
pub fn text(paint: &Paint, snapshot: &Snapshot) -> String {
    let mut out = String::new();
    // Writing to a `String` cannot fail.
    let _ = write(&mut out, paint, snapshot);
    out
}

fn section(
    out: &mut String,
    paint: &Paint,
    title: &str,
    rows: &[(&str, String)],
) -> std::fmt::Result {
    let mut table = Table::new([("", Align::Left), ("", Align::Right)]);
    for (name, value) in rows {
        table.row([format!("  {name}"), value.clone()]);
    }
    writeln!(out, "{}", paint.tone(Tone::Strong, title))?;
    writeln!(
        out,
        "{}",
        table.to_string().trim_start_matches('\n').trim_end()
    )
}

fn write(out: &mut String, paint: &Paint, snapshot: &Snapshot) -> std::fmt::Result {
    let process = &snapshot.process;
    let metric = |metric: Metric| metric.to_string();
    section(
        out,
        paint,
        "process",
        &[
            ("resident", metric(process.rss)),
            ("anonymous", metric(process.anon)),
            ("file", metric(process.file)),
            ("shared", metric(process.shmem)),
            ("peak", metric(process.hwm)),
            ("swap", metric(process.swap)),
            ("minor faults", process.minor_faults.to_string()),
            ("major faults", process.major_faults.to_string()),
        ],
    )?;
    if let Some(reading) = &snapshot.allocator {
        let waste = reading.waste().map_or("n/a".to_owned(), |waste| {
            format!("{:.1} %, {}", waste.fraction * 100.0, waste.bytes)
        });
        section(
            out,
            paint,
            &format!("allocator: {}", safe(&reading.name)),
            &[
                ("in use", metric(reading.in_use)),
                ("held (virtual)", metric(reading.held)),
                ("free (virtual)", metric(reading.free_virtual)),
                ("internal waste", metric(reading.internal_waste)),
                ("cached, resident", metric(reading.cached_resident)),
                ("returned (virtual)", metric(reading.returned_virtual)),
                ("metadata", metric(reading.metadata)),
                ("top of main arena", metric(reading.top_main)),
                ("heap, resident", metric(reading.heap_rss)),
                ("waste", waste),
            ],
        )?;
        if let Some(stats) = &reading.jemalloc {
            section(
                out,
                paint,
                "jemalloc, as it counts itself",
                &[
                    ("allocated", Size(stats.allocated).to_string()),
                    ("active", Size(stats.active).to_string()),
                    ("metadata", Size(stats.metadata).to_string()),
                    ("resident (upper bound)", Size(stats.resident).to_string()),
                    ("mapped", Size(stats.mapped).to_string()),
                    ("retained (virtual)", Size(stats.retained).to_string()),
                    ("dirty", Size(stats.dirty).to_string()),
                    ("muzzy", Size(stats.muzzy).to_string()),
                ],
            )?;
        }
        if let Some(info) = &reading.glibc {
            let title = if reading.jemalloc.is_some() {
                "glibc: what C libraries hold apart from it"
            } else {
                "glibc, as it counts itself (mallinfo2)"
            };
            section(
                out,
                paint,
                title,
                &[
                    ("arena", Size(info.arena).to_string()),
                    ("ordblks", info.ordblks.to_string()),
                    ("smblks", info.smblks.to_string()),
                    ("hblks", info.hblks.to_string()),
                    ("hblkhd", Size(info.hblkhd).to_string()),
                    ("usmblks", info.usmblks.to_string()),
                    ("fsmblks", Size(info.fsmblks).to_string()),
                    ("uordblks", Size(info.uordblks).to_string()),
                    ("fordblks (virtual)", Size(info.fordblks).to_string()),
                    ("keepcost (main arena)", Size(info.keepcost).to_string()),
                ],
            )?;
        }
        for note in &reading.notes {
            writeln!(out, "{} {}", paint.tone(Tone::Warn, "note:"), safe(note))?;
        }
    }
    if !snapshot.settings.is_empty() {
        writeln!(out, "{}", paint.tone(Tone::Strong, "settings"))?;
        for (knob, setting) in snapshot.settings.iter() {
            let grade = match setting.grade {
                SettingGrade::Verified => "verified",
                SettingGrade::Probed => "probed",
                SettingGrade::Requested => "requested, unverified",
                SettingGrade::Refused => "NOT in force",
            };
            writeln!(out, "  {knob} = {}  ({grade})", safe(&setting.value))?;
        }
    }
    write_limits(out, paint, snapshot)
}

fn write_limits(out: &mut String, paint: &Paint, snapshot: &Snapshot) -> std::fmt::Result {
    if let Some(limits) = &snapshot.limits {
        let headroom = limits.headroom().to_string();
        let tightest = match limits.tightest() {
            Some(tightest) => format!("{headroom}, by {}", safe(&tightest.bound.to_string())),
            None => headroom,
        };
        section(
            out,
            paint,
            "limits",
            &[
                ("headroom", tightest),
                ("charged to the cgroup", snapshot.cgroup_current.to_string()),
                ("host available", limits.host_available.to_string()),
                ("host total", limits.host_total.to_string()),
            ],
        )?;
        for note in &limits.notes {
            writeln!(out, "{} {}", paint.tone(Tone::Warn, "note:"), safe(note))?;
        }
    }
    if let Some(pressure) = &snapshot.pressure {
        writeln!(
            out,
            "{}\n  some {:.2} %, full {:.2} % of the last 10 s",
            paint.tone(Tone::Strong, "memory pressure"),
            pressure.some.avg10,
            pressure.full.avg10
        )?;
    }
    for vram in &snapshot.vram {
        section(
            out,
            paint,
            &format!("VRAM {}: {}", vram.index, safe(&vram.name)),
            &[
                ("total", vram.total.to_string()),
                ("used", vram.used.to_string()),
                ("free", vram.free.to_string()),
                ("reserved", vram.reserved.to_string()),
                ("this process", vram.process.to_string()),
            ],
        )?;
        if let Some(why) = &vram.absent {
            writeln!(out, "  n/a: {}", safe(why))?;
        }
    }
    if let Some(reason) = &snapshot.vram_absent {
        writeln!(
            out,
            "{}\n  n/a: {}",
            paint.tone(Tone::Strong, "VRAM"),
            safe(reason)
        )?;
    }
    Ok(())
}
