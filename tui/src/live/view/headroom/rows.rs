//! The other lines of the panel.

use malloc_stats::limits::{Cgroup, PressureOf, Room};
use malloc_stats::{Metric, Process};

use super::facts::{ANON, Approached, FILE, Facts, Kind, MOST, REST, SHMEM, short_label};
use super::gauges::RAM;
use crate::inspect::prose::{compact, compact_metric, middle};
use crate::live::State;
use crate::live::screen::theme::Role;
use crate::live::state::Row;
use crate::live::view::draw::Line;
use crate::paint::safe;

type OfCgroup = fn(&Cgroup) -> Metric;
type OfProcess = fn(&Process) -> Metric;

/// What a cgroup's memory is; what is left is the kernel's.
const CGROUP: [(Kind, &str, &str, OfCgroup); 4] = [
    (ANON, "anon", "only swap or an end of it frees it", |it| {
        it.anon
    }),
    (
        FILE,
        "file",
        "page cache, the kernel drops what is not in use",
        |it| it.file,
    ),
    (SHMEM, "shm", "shared memory, tmpfs: as anonymous", |it| {
        it.shmem
    }),
    (
        REST,
        "kern",
        "the kernel's own, and what was counted meanwhile",
        |it| {
            let known = it.anon.plus(it.shmem).plus(it.file);
            it.current.minus_saturating(known)
        },
    ),
];
/// What a process's resident memory is, and what of it is in swap.
const PROCESS: [(Kind, &str, &str, OfProcess); 4] = [
    (
        ANON,
        "anon",
        "malloc, stacks, weights that were read",
        |it| it.anon,
    ),
    (
        FILE,
        "file",
        "mapped files, programs: the kernel may drop them",
        |it| it.file,
    ),
    (
        SHMEM,
        "shm",
        "shared memory, pinned buffers among it",
        |it| it.shmem,
    ),
    (REST, "swap", "not resident", |it| it.swap),
];

/// The cgroup whose bound is nearest, where something of it is known; and its numbers.
fn cgroup<'a>(
    facts: &Facts<'a>,
    bounds: &[Approached<'a>],
) -> Option<(&'a Cgroup, impl Fn(&State, OfCgroup) -> Metric)> {
    let cgroup = facts.cgroup(bounds).filter(|cgroup| {
        let parts = [cgroup.anon, cgroup.file, cgroup.shmem];
        parts.iter().any(|part| !part.is_unavailable())
    })?;
    let read = move |state: &State, read: OfCgroup| {
        let limits = state.vitals.limits.as_ref();
        let mut cgroups = limits.iter().flat_map(|it| &it.value.cgroups).take(MOST);
        let found = cgroups.find(|it| it.path == cgroup.path);
        found.map_or(Metric::Unavailable, read)
    };
    Some((cgroup, read))
}

/// A part, with its mark: `#anon 15.82G`.
fn part(facts: &Facts<'_>, kind: Kind, name: &str, number: &str) -> Line {
    Line::of(kind.0, kind.1.symbol(facts.theme.unicode))
        .faint(name)
        .text(format!(" {number}"))
}

/// What memory of the nearest cgroup is. Names the marks of the gauges.
pub(super) fn composition(
    facts: &Facts<'_>,
    bounds: &[Approached<'_>],
    width: usize,
) -> Option<Line> {
    let (_, read) = cgroup(facts, bounds)?;
    let mut line = Line::default();
    let gap = if width < 60 { " " } else { "  " };
    for (kind, name, _, of) in CGROUP {
        let number = facts.number(|state| read(state, of));
        line = line.then(gap).append(part(facts, kind, name, &number));
    }
    let name = Line::of(Role::Faint, "cgroup:");
    Some(name.join(line, 1, width).unwrap_or_else(|(_, line)| line))
}

/// The memory of the process. What comes last matters least.
pub(super) fn process(facts: &Facts<'_>, width: usize) -> Line {
    let vitals = &facts.state.vitals;
    let Some(at_us) = vitals.at_us else {
        return Line::of(Role::Faint, "RSS n/a: it was not read yet");
    };
    let gap = if width < 60 { " " } else { "  " };
    let parts = PROCESS.map(|(kind, name, _, of)| {
        let number = facts.number(|state| of(&state.vitals.process));
        let line = Line::of(Role::Faint, gap);
        match name {
            // It is in no gauge.
            "swap" => line.faint(name).text(format!(" {number}")),
            _ => line.append(part(facts, kind, name, &number)),
        }
    });
    let age = Line::of(Role::Faint, facts.age(at_us));
    let width = width.saturating_sub(age.width());
    rss(facts).faint(":").with(parts, width).append(age)
}

/// What of the process is resident.
pub(super) fn rss(facts: &Facts<'_>) -> Line {
    let number = facts.number(|state| state.vitals.process.rss);
    Line::of(Role::Faint, "RSS ").text(number)
}

/// A number with its name, a bar of its share, and what it is.
fn in_full(
    facts: &Facts<'_>,
    (kind, name, words): (Kind, &str, &str),
    (number, bytes, whole): (String, Metric, u64),
    width: usize,
) -> Line {
    let line = part(facts, kind, name, "").to(8);
    let end = if facts.since.is_some() { 26 } else { 16 };
    let line = line.until(end, Role::Text, &number).text("  ");
    let room = width.saturating_sub(line.width() + 54).min(80);
    let parts = [(kind.0, kind.1, bytes.bytes().unwrap_or(0))];
    let line = match room {
        0..10 => line,
        room => line.gauge(&facts.theme, room, &parts, whole).text("  "),
    };
    line.faint(words)
}

/// The memory of the process, a line for each part.
pub(super) fn process_in_full(facts: &Facts<'_>, width: usize) -> Vec<Line> {
    let Some(at_us) = facts.state.vitals.at_us else {
        return vec![process(facts, width)];
    };
    let now = &facts.state.vitals.process;
    let whole = now.rss.bytes().unwrap_or(0);
    let head = rss(facts)
        .faint(" of the process, of that")
        .faint(facts.age(at_us));
    let parts = PROCESS.map(|(kind, name, words, of)| {
        let number = facts.number(|state| of(&state.vitals.process));
        in_full(facts, (kind, name, words), (number, of(now), whole), width)
    });
    [head].into_iter().chain(parts).collect()
}

/// The memory of the nearest cgroup, a line for each part.
pub(super) fn cgroup_in_full(
    facts: &Facts<'_>,
    bounds: &[Approached<'_>],
    width: usize,
) -> Vec<Line> {
    let Some((cgroup, read)) = cgroup(facts, bounds) else {
        return Vec::new();
    };
    let whole = cgroup.current.bytes().unwrap_or(0);
    let current = facts.number(|state| read(state, |it| it.current));
    let head = Line::of(Role::Faint, "")
        .text(current)
        .faint(" of the cgroup ")
        .text(middle(&safe(&cgroup.path), 48))
        .faint(" with all its processes, of that");
    let parts = CGROUP.map(|(kind, name, words, of)| {
        let number = facts.number(|state| read(state, of));
        in_full(
            facts,
            (kind, name, words),
            (number, of(cgroup), whole),
            width,
        )
    });
    [head].into_iter().chain(parts).collect()
}

/// What may still be taken, and what of page cache on top.
pub(super) fn room(facts: &Facts<'_>, width: usize, in_short: bool) -> Line {
    let Some(limits) = facts.limits() else {
        return Line::default().and(Role::Faint, "limits n/a: nobody has read them yet");
    };
    let number = |read: fn(&Room) -> Metric| {
        let of = |room: &Option<Room>| room.as_ref().map_or(Metric::Unavailable, read);
        facts.since_then(of(&facts.room), of(&facts.room_was))
    };
    let line = Line::default()
        .and(Role::Faint, if in_short { "left " } else { "headroom " })
        .and(Role::Strong, number(|room| room.unused))
        .and(Role::Faint, " + reclaimable ")
        .and(Role::Text, number(|room| room.reclaimable));
    let note = limits.value.notes.first();
    let line = match (limits.value.cgroup_version, note) {
        (None, why) => {
            let why = why.map(|why| Line::of(Role::Faint, format!(": {why}")));
            line.faint("  cgroup n/a").with(why, width)
        }
        _ => line,
    };
    line.and(Role::Faint, facts.age(limits.at_us))
}

/// What the host has, in a few words.
pub(super) fn host_in_short(facts: &Facts<'_>) -> Option<Line> {
    let host = facts.state.vitals.host.as_ref()?;
    let available = compact_metric(&facts.paint, host.value.available);
    let line = Line::default().and(Role::Faint, "host ");
    Some(line.and(Role::Text, available))
}

/// What the host has.
pub(super) fn host(facts: &Facts<'_>) -> Option<Line> {
    let host = facts.state.vitals.host.as_ref()?;
    let of = |state: &State, read: fn(&malloc_stats::Host) -> Metric| {
        let host = state.vitals.host.as_ref();
        host.map_or(Metric::Unavailable, |host| read(&host.value))
    };
    let mut line = Line::default()
        .and(Role::Faint, "host available ")
        .and(
            Role::Text,
            facts.number(|state| of(state, |it| it.available)),
        )
        .and(Role::Faint, "  free ")
        .and(Role::Text, facts.number(|state| of(state, |it| it.free)))
        .and(Role::Faint, "  swap free ");
    line = match host.value.swap_total {
        Metric::Exact(0) => line.and(Role::Text, "none there"),
        _ => line.and(
            Role::Text,
            facts.number(|state| of(state, |it| it.swap_free)),
        ),
    };
    Some(line.and(Role::Faint, facts.age(host.at_us)))
}

/// Time lost, and kills.
pub(super) fn pressure_and_kills(facts: &Facts<'_>, in_short: bool) -> Line {
    let mut line = Line::default();
    let percent = |share: f64| {
        if share.is_finite() {
            format!("{:.1}", share.clamp(0.0, 100.0))
        } else {
            "n/a".to_owned()
        }
    };
    match &facts.state.vitals.pressure {
        None => line.push(Role::Faint, "PSI n/a"),
        Some(dated) => {
            let (some, full) = (dated.value.some.avg10, dated.value.full.avg10);
            let role = match (some, full) {
                (_, 10.0..) => Role::Bad,
                (10.0.., _) | (_, 1.0..) => Role::Warn,
                _ => Role::Text,
            };
            let of = match dated.value.of {
                PressureOf::Cgroup => "PSI",
                PressureOf::Host => "PSI of host",
            };
            line = line
                .and(Role::Faint, format!("{of} some "))
                .and(role, percent(some))
                .and(Role::Faint, " full ")
                .and(role, percent(full))
                .and(Role::Faint, " %")
                .and(Role::Faint, facts.age(dated.at_us));
        }
    }
    let cgroups = facts.limits().map(|limits| &limits.value.cgroups);
    let cgroups = cgroups.into_iter().flatten().take(MOST);
    let known = cgroups.filter_map(|it| Some((it.path.as_str(), it.oom_kills.bytes()?)));
    let known: Vec<_> = known.collect();
    let met = known.iter().filter(|(_, count)| *count > 0);
    let met: Vec<String> = met
        .map(|(path, count)| format!("{count} in {path}"))
        .collect();
    let since = facts.since.and_then(|since| {
        let before = since
            .vitals
            .limits
            .as_ref()?
            .value
            .cgroups
            .iter()
            .take(MOST);
        let most = before.filter_map(|it| it.oom_kills.bytes()).max()?;
        let now = known.iter().map(|(_, count)| *count).max()?;
        let more = now.checked_sub(most).filter(|more| *more > 0)?;
        Some(Line::of(Role::Bad, format!("(+{more})")))
    });
    let since = since.unwrap_or_default();
    line.push(Role::Faint, "  OOM kills ");
    match (known.is_empty(), met.first()) {
        (true, _) => line.and(Role::Faint, "n/a"),
        (false, None) => line.and(Role::Good, "0"),
        (false, Some(_)) if in_short => {
            let most = known.iter().map(|(_, count)| *count).max();
            line.and(Role::Bad, most.unwrap_or(0).to_string())
                .append(since)
        }
        (false, Some(_)) => line.and(Role::Bad, met.join(", ")).append(since),
    }
}

/// Whether the largest model that is nowhere would come in.
pub(super) fn next_load(facts: &Facts<'_>, width: usize) -> Option<Line> {
    let ram = facts
        .state
        .tiers
        .iter()
        .take(MOST)
        .find(|tier| tier.tier == RAM)?;
    let gone = |row: &&Row| row.places.is_empty() && !row.dropped && row.bytes > 0;
    let gone = facts.state.models.iter().filter(gone);
    let start = Line::default().and(Role::Faint, "next: ");
    let Some(model) = gone.max_by_key(|row| row.bytes) else {
        let any = facts.state.models.iter().len() > 0;
        return any.then(|| start.and(Role::Faint, "every model that is known is in a tier"));
    };
    let evictable = ram.used_bytes.saturating_sub(ram.pinned_bytes);
    let limits = &facts.room;
    // What nothing bounds is as large as need be.
    let budget = match ram.budget_bytes {
        u64::MAX => u64::MAX,
        budget => budget.saturating_sub(ram.used_bytes),
    };
    let room = limits.as_ref().and_then(|room| room.bytes());
    let room = room.unwrap_or(u64::MAX);
    let (short_of_budget, short_of_limit) = (
        model.bytes.saturating_sub(budget),
        model.bytes.saturating_sub(room),
    );
    let worst = short_of_budget.max(short_of_limit);
    let line = start
        .and(Role::Text, middle(&safe(&model.name), 24))
        .and(Role::Text, format!(" needs ~{}, ", compact(model.bytes)));
    Some(if worst == 0 {
        let left = budget.min(room).saturating_sub(model.bytes);
        match left {
            0 | u64::MAX.. => line.and(Role::Good, "fits"),
            left => line.and(Role::Good, format!("fits, {} to spare", compact(left))),
        }
    } else if worst <= evictable {
        line.and(
            Role::Warn,
            format!("fits once ~{} is evicted", compact(worst)),
        )
    } else {
        let short = format!("short ~{}", compact(worst - evictable));
        let by = match (limits, short_of_budget >= short_of_limit) {
            (Some(room), false) => short_label(&room.bound),
            _ => "budget".to_owned(),
        };
        let by = Line::default().and(Role::Faint, format!("({by})"));
        let line = line.and(Role::Bad, short);
        line.join(by, 1, width).unwrap_or_else(|(line, _)| line)
    })
}
