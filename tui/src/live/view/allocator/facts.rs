//! Facts in a line each: the name, settings, what a trim would return, whether the walk is whole,
//! why there is no heap.

use malloc_stats::heap::{DEFAULT_MMAP_THRESHOLD, Heap, InForce, Trim};
use malloc_stats::{Metric, SettingGrade};

use super::totals::{More, change};
use crate::inspect::heap;
use crate::inspect::prose::{compact, compact_metric, metric, spoken, wrapped};
use crate::live::State;
use crate::live::screen::theme::{Role, Theme};
use crate::live::view::Scene;
use crate::live::view::draw::{Line, Pen};

/// The settings that matter, in a line: those in force, or those that were asked for.
pub(super) fn settings(theme: &Theme, state: &State, columns: u16) -> Option<Line> {
    let look = state.look.as_ref();
    let heap = look.and_then(|look| look.value.heap.as_ref());
    if let Some(settings) = heap.and_then(|heap| heap.settings.as_ref()) {
        return Some(in_force(theme, settings, columns));
    }
    let knobs = &state.vitals.settings;
    (!knobs.is_empty()).then(|| {
        knobs
            .iter()
            .take(8)
            .fold(Line::default(), |line, (knob, setting)| {
                let (role, origin) = match setting.grade {
                    SettingGrade::Verified | SettingGrade::Probed => (Role::Text, ""),
                    SettingGrade::Requested => (Role::Text, " asked for"),
                    SettingGrade::Refused => (Role::Bad, " refused"),
                };
                line.and(Role::Faint, format!("{knob} "))
                    .and(role, format!("{}{origin}  ", setting.value))
            })
    })
}

fn in_force(theme: &Theme, settings: &InForce, columns: u16) -> Line {
    let at_least = if theme.unicode { "≥" } else { ">=" };
    let mut line = Line::of(Role::Faint, "mmap ").and(
        if settings.has_risen() {
            Role::Warn
        } else {
            Role::Text
        },
        format!("{at_least}{}", compact(settings.mmap_threshold)),
    );
    if settings.has_risen() {
        let from = compact(DEFAULT_MMAP_THRESHOLD);
        line = line.and(Role::Warn, format!(" risen from {from}"));
    } else if !settings.dynamic {
        line = line.and(Role::Faint, " fixed");
    }
    // M_TRIM_THRESHOLD of -1 turns trimming off (mallopt(3)).
    let trim = match settings.trim_threshold {
        bytes if bytes > u64::MAX / 2 => "never".to_owned(),
        bytes => format!("{at_least}{}", compact(bytes)),
    };
    let arenas = match settings.arena_max {
        0 => "by cores".to_owned(),
        most => format!("at most {most}"),
    };
    let more = [("  trim ", trim), ("  arenas ", arenas)];
    let more = more.map(|(name, value)| Line::of(Role::Faint, name).text(value));
    line.with(more, columns.into())
}

/// A word for a walk that is not whole; `None` where it is.
pub(super) fn torn(heap: &Heap) -> Option<Line> {
    let torn = &heap.torn;
    (torn.unresolved > 0).then(|| {
        let words = format!(
            "TORN: {} of {} stretches not followed, {} in no count",
            torn.unresolved,
            torn.segments,
            compact(torn.unresolved_bytes)
        );
        Line::of(Role::Warn, words)
    })
}

/// The name of the allocator, with its version where it says.
pub(super) fn name(state: &State) -> Option<String> {
    if let Some(look) = &state.look
        && !matches!(look.value.allocator.name.as_str(), "" | "unknown")
    {
        return Some(heap::name(&look.value.allocator));
    }
    let reading = state.vitals.allocator.as_ref();
    let reading = reading.filter(|reading| !reading.value.name.is_empty());
    reading.map(|reading| reading.value.name.clone())
}

/// What a trim would return, and what none would.
pub(super) fn trim(theme: &Theme, trim: &Trim, before: Option<&Trim>, columns: u16) -> Line {
    let paint = theme.paint(columns.into());
    let number = |metric| compact_metric(&paint, metric);
    let stuck = stuck(trim);
    let mut line = Line::of(Role::Text, "trimmable ");
    let changed = |line: Line, now, then: fn(&Trim) -> Metric| match before {
        Some(before) => match change(now, then(before), More::Bad) {
            Some((text, role)) => line.and(role, format!(" {text}")),
            None => line,
        },
        None => line,
    };
    line = line.and(Role::Strong, number(trim.releasable));
    line = changed(line, trim.releasable, |trim| trim.releasable);
    line = line
        .and(Role::Text, "  stuck ")
        .and(Role::Strong, number(stuck));
    line = changed(line, stuck, self::stuck);
    let sub_page = stuck.minus_saturating(trim.secondary_tops);
    let parts = [
        ("sub-page", sub_page),
        ("arena tops", trim.secondary_tops),
        ("and in thread caches", trim.tcache),
    ];
    let mut joint = "  ";
    let parts = parts
        .into_iter()
        .filter(|(_, part)| part.bytes().is_some_and(|bytes| bytes > 0));
    let parts = parts.map(|(name, part)| {
        let line = Line::of(Role::Faint, format!("{joint}{name} {}", number(part)));
        joint = ", ";
        line
    });
    line.with(parts, columns.into())
}

/// Free and resident, and no trim returns it. Thread caches are beside it: malloc counts them as in
/// use.
pub(super) fn stuck(trim: &Trim) -> Metric {
    trim.free_resident.minus_saturating(trim.releasable)
}

/// Why there is no heap, and what else is known.
pub(super) fn draw_absent(scene: &Scene<'_>, pen: &mut Pen<'_>, from: u16) {
    let theme = scene.theme;
    let width = usize::from(pen.width());
    let paint = theme.paint(width);
    let mut lines = Vec::new();
    let mut say = |role: Role, text: &str| {
        let text = wrapped(&spoken(&paint, text), 0, width);
        lines.extend(text.lines().map(|line| Line::of(role, line)));
    };
    match &scene.state.look {
        None => say(
            Role::Faint,
            "its heap was not walked: arenas and pins are not known",
        ),
        Some(look) => {
            let look = &look.value;
            let reason = look.heap_absent.as_ref();
            let reason = reason.or(look.allocator.reason.as_ref());
            let reason = reason.map_or("its heap was not looked into", String::as_str);
            say(Role::Warn, &format!("n/a: {reason}"));
            if !look.allocator.mappings_rss.is_unavailable() {
                let rss = metric(&paint, look.allocator.mappings_rss);
                say(
                    Role::Text,
                    &format!("mappings it seems to own: {rss} resident"),
                );
            }
        }
    }
    if let Some(reading) = &scene.state.vitals.allocator {
        for note in reading.value.notes.iter().take(3) {
            say(Role::Faint, note);
        }
    }
    for (at, line) in lines.iter().enumerate() {
        let Ok(at) = u16::try_from(at) else { break };
        pen.line(from.saturating_add(at), line);
    }
}
