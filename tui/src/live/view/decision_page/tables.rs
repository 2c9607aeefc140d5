//! Memory around a decision, and the models that were considered.

use malloc_stats::Metric;
use plimsoll_events::{Candidate, Evict, Skipped};

use crate::inspect::prose::{compact, compact_metric};
use crate::live::screen::theme::Role;
use crate::live::state::Around;
use crate::live::view::draw::page::Sheet;
use crate::live::view::draw::{Column, Line, Mark, figures};
use crate::live::view::models::rank;

/// Columns of the table of memory.
pub(super) const MEMORY: u16 = 52;

/// Where the column stands that says what coming back would read.
const MAPPED: usize = 4;

/// Memory before, and after.
pub(super) fn memory(before: Around, after: Around) -> Sheet<'static> {
    let rows = [
        ("RSS", before.rss, after.rss),
        ("anonymous", before.anon, after.anon),
        ("mapped files", before.file, after.file),
        ("cgroup", before.cgroup, after.cgroup),
        ("malloc in use", before.in_use, after.in_use),
        ("malloc resident", before.heap_rss, after.heap_rss),
        (
            "malloc free, res.",
            before.cached_resident,
            after.cached_resident,
        ),
    ];
    Sheet {
        title: Line::of(Role::Strong, "MEMORY"),
        columns: vec![
            Column::left("", 17),
            Column::right("BEFORE", 9),
            Column::right("AFTER", 9),
            Column::right("CHANGE", 10),
        ],
        rows: rows.len(),
        cell: Box::new(move |row, column, pen| {
            let Some((name, before, after)) = rows.get(row) else {
                return;
            };
            let paint = pen.theme.paint(0);
            let (role, text) = match column {
                0 => (Role::Faint, (*name).to_owned()),
                1 => (Role::Text, compact_metric(&paint, *before)),
                2 => (Role::Text, compact_metric(&paint, *after)),
                _ => change(*before, *after),
            };
            pen.write(role, &text);
        }),
    }
}

fn change(before: Metric, after: Metric) -> (Role, String) {
    match before.bytes().zip(after.bytes()) {
        None => (Role::Faint, "n/a".to_owned()),
        Some((before, after)) => match i128::from(after) - i128::from(before) {
            0 => (Role::Faint, "=".to_owned()),
            change if change > 0 => (Role::Load, figures::change(change)),
            change => (Role::Evict, figures::change(change)),
        },
    }
}

/// Candidates in order of their scores, those without one last.
pub(super) fn order(candidates: &[Candidate]) -> Vec<u32> {
    // No decision has as many as a u32 counts.
    let mut order: Vec<u32> = (0..candidates.len() as u32).collect();
    let key = |at: &u32| {
        let one = candidates.get(*at as usize);
        one.and_then(|one| one.score).map_or(f64::INFINITY, rank)
    };
    let without = |at: &u32| {
        let one = candidates.get(*at as usize);
        one.is_none_or(|one| one.score.is_none())
    };
    order.sort_by(|a, b| {
        let skipped = without(a).cmp(&without(b));
        skipped.then_with(|| key(a).total_cmp(&key(b)))
    });
    order
}

/// The models that were considered, and why each went or stayed.
pub(super) fn candidates<'a>(evict: &'a Evict, order: &'a [u32]) -> Sheet<'a> {
    let all = &evict.considered;
    let eligible = all.iter().filter(|one| one.score.is_some()).count();
    let victims = all.iter().filter(|one| went(one)).count();
    let most = all.iter().map(|one| one.bytes).max().unwrap_or(0);
    let title = Line::of(Role::Strong, "CANDIDATES").faint(format!(
        "  {} listed, {eligible} eligible, {victims} went",
        all.len()
    ));
    let title = match evict.considered_besides {
        0 => title,
        more => title.faint(format!(", {more} more were considered")),
    };
    let mut columns = vec![
        Column::right("#", 5).rank(3),
        Column::left("MODEL", 10).up_to(40),
        Column::right("SCORE", 9),
        Column::right("BYTES", 8).rank(1),
        Column::left("", 8).up_to(24).rank(2),
        Column::left("WHY", 32).up_to(60),
    ];
    // Only what is mapped comes back for less than its bytes.
    let any_mapped = all.iter().any(|one| one.reload_bytes.is_some());
    if any_mapped {
        columns.insert(MAPPED, Column::right("TO READ", 8).rank(1));
    }
    Sheet {
        title,
        columns,
        rows: order.len(),
        cell: Box::new(move |row, column, pen| {
            let at = order.get(row).and_then(|at| all.get(*at as usize));
            let Some(one) = at else { return };
            let this = one.model == evict.model;
            if any_mapped && column == MAPPED {
                return match one.reload_bytes {
                    Some(bytes) => pen.write(Role::Text, &compact(bytes)),
                    None => pen.write(Role::Faint, "-"),
                };
            }
            match column - usize::from(any_mapped && column > MAPPED) {
                0 => pen.write(Role::Faint, &(row + 1).to_string()),
                1 if this => pen.write(Role::Strong, &one.model),
                1 => pen.write(Role::Text, &one.model),
                2 => match one.score {
                    Some(score) => pen.write(Role::Text, &figures::score(score)),
                    None => pen.write(Role::Faint, "-"),
                },
                3 => pen.write(Role::Text, &compact(one.bytes)),
                4 => {
                    let role = if went(one) { Role::Evict } else { Role::Live };
                    let room = pen.room();
                    pen.bar(room, &[(role, Mark::Full, one.bytes)], most);
                }
                _ => {
                    let (role, words) = why(one, this);
                    pen.write(role, &words);
                }
            }
        }),
    }
}

fn went(one: &Candidate) -> bool {
    one.skipped.is_none() && one.score.is_some()
}

fn why(one: &Candidate, this: bool) -> (Role, String) {
    match one.skipped {
        None if this => (Role::Evict, "went: this decision".to_owned()),
        None => (Role::Evict, "went with it".to_owned()),
        Some(Skipped::Leased { leases: 1 }) => (Role::Good, "skipped: leased once".to_owned()),
        Some(Skipped::Leased { leases }) => (Role::Good, format!("skipped: leased {leases} times")),
        Some(Skipped::Wanted) => (Role::Good, "skipped: the same lease wants it".to_owned()),
        Some(Skipped::NotNeeded) => (Role::Faint, "stayed: enough room without it".to_owned()),
    }
}
