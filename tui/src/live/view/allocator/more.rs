//! What there is room for on the whole screen: settings with their origin, pins, sizes, mmapped
//! chunks, notes.

use malloc_stats::heap::{DEFAULT_MMAP_THRESHOLD, Evidence, Heap, InForce};
use malloc_stats::{SettingGrade, Settings};
use unicode_width::UnicodeWidthStr;

use super::totals::Share;
use crate::inspect::arenas::seems;
use crate::inspect::heap::wholeness;
use crate::inspect::prose::{compact, compact_metric, counted, spoken, wrapped};
use crate::live::screen::theme::{Role, Theme};
use crate::live::view::Scene;
use crate::live::view::draw::{Line, Pen, stretch};
use crate::paint::{Paint, padded};

/// Rows of each list, at most: they are for reading.
const ROWS: usize = 32;
/// Columns of a column of lines, and between two of them.
const LEAST: u16 = 76;
const GAP: u16 = 3;

fn title(lines: &mut Vec<Line>, words: &str) {
    if !lines.is_empty() {
        lines.push(Line::default());
    }
    lines.push(Line::of(Role::Strong, words));
}

/// Every line; `width` is that of the whole screen.
pub(super) fn lines(scene: &Scene<'_>, width: usize) -> Vec<Line> {
    let (_, column) = columns(u16::try_from(width).unwrap_or(u16::MAX));
    let paint = scene.theme.paint(column.into());
    let mut lines = Vec::new();
    let look = scene.state.look.as_ref();
    let heap = look.and_then(|look| look.value.heap.as_ref());
    if let Some(heap) = heap {
        if let Some(settings) = &heap.settings {
            in_force(&mut lines, settings);
        }
        pins(&mut lines, &paint, heap);
        sizes(&mut lines, &scene.theme, heap, column);
        mmapped(&mut lines, &paint, heap);
    }
    knobs(&mut lines, &scene.state.vitals.settings);
    if let Some(heap) = heap {
        title(&mut lines, "walk");
        let (versions, evidence) = (&heap.layout.versions, heap.layout.evidence);
        let evidence = match evidence {
            Evidence::Named => "by its version",
            Evidence::Structure => "by its structures alone",
        };
        let object = &heap.layout.object;
        let read = format!("read as glibc {versions}, {evidence}, of {object}");
        paragraph(&mut lines, &paint, Role::Text, &read);
        paragraph(&mut lines, &paint, Role::Text, &wholeness(&heap.torn));
        for other in look.into_iter().flat_map(|look| &look.value.other_heaps) {
            let words = format!(
                "another heap, of {}: {} in use, {} free and resident",
                other.layout.object,
                compact_metric(&paint, other.totals.in_use),
                compact_metric(&paint, other.totals.cached_resident),
            );
            paragraph(&mut lines, &paint, Role::Text, &words);
        }
        for fault in heap.torn.faults.iter().take(ROWS) {
            let (arena, at, reason) = (fault.arena, fault.address, &fault.reason);
            let what = format!("arena {arena}, chunk {at}: {reason}");
            paragraph(&mut lines, &paint, Role::Warn, &what);
        }
    }
    let of_look = look.into_iter().flat_map(|look| &look.value.notes);
    let of_heap = heap.into_iter().flat_map(|heap| &heap.notes);
    let reading = scene.state.vitals.allocator.as_ref();
    let of_reading = reading.into_iter().flat_map(|reading| &reading.value.notes);
    let mut notes = of_heap.chain(of_look).chain(of_reading).peekable();
    if notes.peek().is_some() {
        title(&mut lines, "notes");
        for note in notes.take(ROWS) {
            paragraph(&mut lines, &paint, Role::Text, note);
        }
    }
    lines
}

fn paragraph(lines: &mut Vec<Line>, paint: &Paint, role: Role, text: &str) {
    let text = wrapped(&spoken(paint, text), 2, paint.width);
    let first = lines.len();
    lines.extend(text.lines().map(|line| Line::of(role, line)));
    if let Some((_, line)) = lines.get_mut(first).and_then(|line| line.0.first_mut()) {
        line.insert_str(0, "  ");
    }
}

fn in_force(lines: &mut Vec<Line>, settings: &InForce) {
    title(lines, "settings in force, read from the heap itself");
    let moves = if settings.dynamic {
        "still moves"
    } else {
        "fixed"
    };
    let mmap = if settings.has_risen() {
        format!("risen from {}, {moves}", compact(DEFAULT_MMAP_THRESHOLD))
    } else {
        moves.to_owned()
    };
    // M_TRIM_THRESHOLD of -1 turns trimming off (mallopt(3)).
    let trim = match settings.trim_threshold {
        bytes if bytes > u64::MAX / 2 => "never".to_owned(),
        bytes => compact(bytes),
    };
    let arenas = match settings.arena_max {
        0 => ("any".to_owned(), "by the number of cores"),
        most => (most.to_string(), "at most"),
    };
    let caches = match settings.tcache_count {
        0 => ("none".to_owned(), String::new()),
        count => {
            let most = compact(settings.tcache_max);
            (
                count.to_string(),
                format!("blocks of each size, up to {most}"),
            )
        }
    };
    let huge = match (settings.thp_pagesize, settings.hp_pagesize) {
        (0, 0) => ("none".to_owned(), ""),
        (transparent, 0) => (compact(transparent), "transparent"),
        (_, pages) => (compact(pages), "of hugetlbfs"),
    };
    let rows = [
        ("mmap_threshold", compact(settings.mmap_threshold), mmap),
        ("trim_threshold", trim, moves.to_owned()),
        ("top_pad", compact(settings.top_pad), String::new()),
        (
            "mmap_max",
            settings.mmap_max.to_string(),
            "mmapped chunks at most".to_owned(),
        ),
        ("arena_max", arenas.0, arenas.1.to_owned()),
        ("tcache", caches.0, caches.1),
        ("huge pages", huge.0, huge.1.to_owned()),
    ];
    for (name, value, remark) in rows {
        let role = match name == "mmap_threshold" && settings.has_risen() {
            true => Role::Warn,
            false => Role::Text,
        };
        lines.push(
            Line::of(Role::Faint, format!("  {}", padded(name, 16)))
                .and(role, format!("{value:>10}  "))
                .and(Role::Faint, remark),
        );
    }
}

/// Knobs as the program itself set or found them.
fn knobs(lines: &mut Vec<Line>, settings: &Settings) {
    if settings.is_empty() {
        return;
    }
    title(lines, "settings asked for, and what came of it");
    for (knob, setting) in settings.iter().take(ROWS) {
        let (role, origin) = match setting.grade {
            SettingGrade::Verified => (Role::Good, "read back"),
            SettingGrade::Probed => (Role::Good, "behaves so"),
            SettingGrade::Requested => (Role::Text, "asked for, cannot be read back"),
            SettingGrade::Refused => (Role::Bad, "refused"),
        };
        lines.push(
            Line::of(Role::Faint, format!("  {}", padded(knob, 24)))
                .and(Role::Text, format!("{:>12}  ", setting.value))
                .and(role, origin),
        );
    }
}

fn pins(lines: &mut Vec<Line>, paint: &Paint, heap: &Heap) {
    if heap.pins.is_empty() {
        return;
    }
    title(lines, "pins: no automatic shrinking passes these blocks");
    let row = |cells: [&str; 5]| {
        let [arena, address, block, keeps, resident] = cells;
        format!("  {arena:>5}  {address:<14}  {block:>7}  {keeps:>8}  {resident:>9}  ")
    };
    let header = row(["arena", "address", "block", "keeps", "resident"]);
    lines.push(Line::of(Role::Faint, header + "seems to be"));
    for pin in heap.pins.iter().take(ROWS) {
        let arena = match pin.arena {
            0 => "main".to_owned(),
            index => index.to_string(),
        };
        let words = row([
            &arena,
            &format!("{:x}", pin.address.0),
            &compact(pin.size),
            &compact(pin.below_free),
            &compact_metric(paint, pin.below_free_resident),
        ]);
        lines.push(Line::of(Role::Text, words).and(Role::Strong, seems(paint, pin)));
    }
    beyond(lines, heap.pins.len());
}

fn beyond(lines: &mut Vec<Line>, all: usize) {
    let more = all.saturating_sub(ROWS);
    if more > 0 {
        lines.push(Line::of(Role::Faint, format!("  and {more} more")));
    }
}

fn sizes(lines: &mut Vec<Line>, theme: &Theme, heap: &Heap, width: u16) {
    let total =
        |class: &malloc_stats::heap::SizeClass| class.in_use.bytes.saturating_add(class.free.bytes);
    let Some(most) = heap.histogram.iter().map(total).max() else {
        return;
    };
    let ((used, used_role), (free, free_role)) = (Share::InUse.look(), Share::Resident.look());
    let [used, free] = [used, free].map(|mark| mark.symbol(theme.unicode));
    title(
        lines,
        &format!("chunks by size ({used} in use, {free} free)"),
    );
    let header = format!(
        "  {:>7}  {:>8} {:>9}  {:>8} {:>9}",
        "from", "in use", "chunks", "free", "chunks"
    );
    lines.push(Line::of(Role::Faint, header));
    let room = width.saturating_sub(52).min(60);
    for class in heap.histogram.iter().take(2 * ROWS) {
        let in_use = class.in_use.bytes;
        let numbers = format!(
            "  {:>7}  {:>8} {:>9}  {:>8} {:>9}  ",
            compact(class.from),
            compact(in_use),
            class.in_use.count,
            compact(class.free.bytes),
            class.free.count,
        );
        let (_, full) = stretch(0, in_use, most, room);
        let (_, empty) = stretch(in_use, total(class), most, room - full);
        let run = |mark: char, columns: u16| mark.to_string().repeat(columns.into());
        lines.push(
            Line::of(Role::Text, numbers)
                .and(used_role, run(used, full))
                .and(free_role, run(free, empty)),
        );
    }
}

fn mmapped(lines: &mut Vec<Line>, paint: &Paint, heap: &Heap) {
    let mapped = &heap.mmapped;
    title(lines, "mmapped chunks");
    let resident = compact_metric(paint, mapped.resident);
    let mut words = format!(
        "{} by malloc's count, {}; {resident} resident",
        counted(mapped.chunks, "chunk"),
        compact(mapped.bytes),
    );
    if (mapped.found_chunks, mapped.found_bytes) != (mapped.chunks, mapped.bytes) {
        let found = counted(mapped.found_chunks, "chunk");
        words.push_str(&format!("; found {found}, {}", compact(mapped.found_bytes)));
    }
    paragraph(lines, paint, Role::Text, &words);
}

/// How many columns of lines there are, and how wide each is.
fn columns(width: u16) -> (u16, u16) {
    let count = ((width.saturating_add(GAP)) / (LEAST + GAP)).clamp(1, 3);
    (count, width.saturating_sub(GAP * (count - 1)) / count)
}

/// Draws lines in columns as of a newspaper, from one of them on; where it began, which is earlier
/// where there would be room left.
pub(super) fn draw(pen: &mut Pen<'_>, lines: &[Line], from: usize) -> usize {
    let (count, width) = columns(pen.width());
    let height = usize::from(pen.height());
    let room = height * usize::from(count);
    if room == 0 {
        return from;
    }
    let from = from.min(lines.len().saturating_sub(room));
    let mut skipped = 0;
    for (at, line) in lines[from..].iter().enumerate() {
        // A column begins with words.
        if (at - skipped) % height == 0 && line.0.is_empty() {
            skipped += 1;
            continue;
        }
        let (column, y) = ((at - skipped) / height, (at - skipped) % height);
        if column >= usize::from(count) {
            break;
        }
        let (Ok(column), Ok(y)) = (u16::try_from(column), u16::try_from(y)) else {
            break;
        };
        let x = column * (width + GAP);
        pen.part((x, y), (width, 1)).line(0, line);
    }
    let left = lines.len().saturating_sub(from + room);
    if left > 0 {
        let words = format!(" {left} more lines: page down ");
        let columns = u16::try_from(words.width()).unwrap_or(u16::MAX);
        let x = pen.width().saturating_sub(columns);
        let y = pen.height() - 1;
        pen.text((x, y), columns, &words, Role::Key);
    }
    from
}
