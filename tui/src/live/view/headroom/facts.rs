//! What the panel tells of, taken out of a state: bounds in the order in which they are met, and
//! numbers with what became of them since the mark.

use malloc_stats::inspect::Growth;
use malloc_stats::limits::{Bound, Cgroup, Room};
use malloc_stats::{Limits, Metric};

use crate::inspect::headroom::{Row, row_of_host, rows_of_cgroups};
use crate::inspect::prose::{compact, compact_metric, lasting, middle};
use crate::live::State;
use crate::live::screen::theme::{Role, Theme};
use crate::live::state::Dated;
use crate::live::view::Scene;
use crate::live::view::draw::Mark;
use crate::paint::{Paint, safe};

/// No host nests cgroups deeper, nor has more GPUs or tiers; an edited recording may.
pub(super) const MOST: usize = 32;
/// What is met sooner comes before what leaves less, seconds.
const SOON: f64 = 3_600.0;
/// What is older shows its age, microseconds.
const FRESH: u64 = 3_000_000;

/// What a part of a gauge stands for.
pub(super) type Kind = (Role, Mark);
/// Anonymous memory; what a process itself has; what leases pin.
pub(super) const ANON: Kind = (Role::Anon, Mark::Full);
/// Shared memory.
pub(super) const SHMEM: Kind = (Role::Shmem, Mark::Dense);
/// What is left: the kernel's own, and what nobody told.
pub(super) const REST: Kind = (Role::Rest, Mark::Half);
/// Page cache, or whatever else could be dropped.
pub(super) const FILE: Kind = (Role::File, Mark::Light);

/// What the panel is drawn from.
pub(super) struct Facts<'a> {
    pub(super) state: &'a State,
    pub(super) since: Option<&'a State>,
    pub(super) theme: Theme,
    pub(super) paint: Paint,
    pub(super) now_us: u64,
    growth: Option<Growth>,
    /// What may still be taken, now and at the mark.
    pub(super) room: Option<Room>,
    pub(super) room_was: Option<Room>,
}

/// A bound, and when it is met if it goes on so.
pub(super) struct Approached<'a> {
    pub(super) row: Row<'a>,
    /// Seconds.
    pub(super) soon: Option<f64>,
    /// What was taken of it at the mark.
    pub(super) was: Metric,
}

impl<'a> Facts<'a> {
    pub(super) fn of(scene: &Scene<'a>) -> Facts<'a> {
        Facts {
            state: scene.state,
            since: scene.since,
            theme: scene.theme,
            paint: scene.theme.paint(0),
            now_us: scene.now_us,
            growth: scene.state.growth(),
            room: room(scene.state),
            room_was: scene.since.and_then(room),
        }
    }

    pub(super) fn limits(&self) -> Option<&'a Dated<Limits>> {
        self.state.vitals.limits.as_ref()
    }

    /// The bounds: what is met soon first, then what leaves least.
    pub(super) fn bounds(&self) -> Vec<Approached<'a>> {
        let times = self.growth.iter().flat_map(|growth| &growth.time_to);
        let times: Vec<_> = times.take(MOST).collect();
        let before = self.since.map_or_else(Vec::new, rows);
        let approached = |row: Row<'a>| {
            let soon = times.iter().find(|time| time.bound == row.bound);
            let was = before.iter().find(|was| was.bound == row.bound);
            Approached {
                soon: soon.map(|time| time.seconds),
                was: was.map_or(Metric::Unavailable, |was| was.current),
                row,
            }
        };
        let mut bounds: Vec<_> = rows(self.state).into_iter().map(approached).collect();
        bounds.sort_by(|a, b| {
            let soon = |it: &Approached<'_>| it.soon.filter(|s| *s < SOON).unwrap_or(SOON);
            let left = |it: &Approached<'_>| it.row.left.bytes().unwrap_or(u64::MAX);
            let by_time = soon(a).total_cmp(&soon(b));
            by_time.then_with(|| left(a).cmp(&left(b)))
        });
        bounds
    }

    /// The cgroup that the nearest bound is of; else its own.
    pub(super) fn cgroup(&self, bounds: &[Approached<'a>]) -> Option<&'a Cgroup> {
        let of_bound = bounds.iter().find_map(|bound| bound.row.cgroup);
        of_bound.or_else(|| self.limits()?.value.cgroups.first())
    }

    /// A number, and what became of it since the mark.
    pub(super) fn number(&self, read: impl Fn(&'a State) -> Metric) -> String {
        let then = self.since.map_or(Metric::Unavailable, &read);
        self.since_then(read(self.state), then)
    }

    /// The same, of what is no reading of a state.
    pub(super) fn since_then(&self, now: Metric, then: Metric) -> String {
        let text = compact_metric(&self.paint, now);
        match change(now, then).filter(|_| self.since.is_some()) {
            Some(change) => format!("{text}({change})"),
            None => text,
        }
    }

    /// How old something is, where that is worth a word: ` 12 s ago`.
    pub(super) fn age(&self, at_us: u64) -> String {
        age(self.now_us, at_us).map_or(String::new(), |age| format!("  {age}"))
    }
}

fn room(state: &State) -> Option<Room> {
    state.vitals.limits.as_ref()?.value.room()
}

/// All bounds of a state, in any order.
fn rows(state: &State) -> Vec<Row<'_>> {
    let vitals = &state.vitals;
    let limits = vitals.limits.as_ref();
    let of_cgroups = limits.map(|limits| rows_of_cgroups(&limits.value).take(MOST));
    let mut rows: Vec<_> = of_cgroups.into_iter().flatten().collect();
    let told = limits.map(|limits| (limits.at_us, row_of_host(&limits.value)));
    let seen = vitals.host.as_ref().map(|host| {
        let (total, available) = (host.value.total, host.value.available);
        let row = Row {
            bound: Bound::Host,
            limit: total,
            current: total.minus_saturating(available),
            left: available,
            cgroup: None,
        };
        (host.at_us, row)
    });
    let host = match (told, seen) {
        (Some(told), Some(seen)) if seen.0 >= told.0 => Some(seen),
        (told, seen) => told.or(seen),
    };
    rows.extend(
        host.map(|(_, row)| row)
            .filter(|row| !row.left.is_unavailable()),
    );
    rows
}

impl Approached<'_> {
    /// What it is full of. The kernel's counters are not read at one moment, so they may exceed
    /// their sum.
    pub(super) fn parts(&self, state: &State) -> Vec<(Role, Mark, u64)> {
        let Some(taken) = self.row.current.bytes() else {
            return Vec::new();
        };
        let (anon, shmem, file) = match self.row.cgroup {
            Some(cgroup) => (cgroup.anon, cgroup.shmem, cgroup.file),
            // What is the process's own, and what is others'.
            None => (
                state.vitals.process.anon,
                state.vitals.process.shmem,
                Metric::Unavailable,
            ),
        };
        let mut rest = taken;
        let mut part = |(role, mark): Kind, metric: Metric| {
            let bytes = metric.bytes().unwrap_or(0).min(rest);
            rest -= bytes;
            (role, mark, bytes)
        };
        let (anon, shmem, file) = (part(ANON, anon), part(SHMEM, shmem), part(FILE, file));
        // What could be dropped lies next to what is free.
        vec![anon, shmem, (REST.0, REST.1, rest), file]
    }

    /// How bad it is. Beyond `memory.high` nothing is killed.
    pub(super) fn role(&self) -> Role {
        let worst = match self.row.bound {
            Bound::CgroupHigh(_) => Role::Warn,
            _ => Role::Bad,
        };
        match (self.row.current.bytes(), self.row.limit.bytes()) {
            (Some(taken), Some(limit)) => fullness(taken, limit, worst),
            _ => Role::Text,
        }
    }
}

/// The colour of something that is so full.
pub(super) fn fullness(taken: u64, of: u64, worst: Role) -> Role {
    match u128::from(taken) * 100 / u128::from(of.max(1)) {
        0..80 => Role::Good,
        80..95 => Role::Warn,
        _ => worst,
    }
}

/// What became of a number: `+310M`, `-1.20G`, `=`.
pub(super) fn change(now: Metric, then: Metric) -> Option<String> {
    let (now, then) = (now.bytes()?, then.bytes()?);
    Some(match now.cmp(&then) {
        std::cmp::Ordering::Less => format!("-{}", compact(then - now)),
        std::cmp::Ordering::Equal => "=".to_owned(),
        std::cmp::Ordering::Greater => format!("+{}", compact(now - then)),
    })
}

/// A time that is a guess, in one unit: `~57 min`.
pub(in crate::live::view) fn about(seconds: f64) -> String {
    // Casting saturates, and turns what is no number into 0.
    let seconds = seconds.round() as u64;
    match seconds {
        0..120 => format!("~{seconds} s"),
        120..7_200 => format!("~{} min", (seconds + 30) / 60),
        7_200..172_800 => format!("~{} h", (seconds + 1_800) / 3_600),
        172_800..8_640_000 => format!("~{} d", (seconds + 43_200) / 86_400),
        _ => ">99 d".to_owned(),
    }
}

/// How long ago something was, where that is worth a word.
pub(in crate::live::view) fn age(now_us: u64, at_us: u64) -> Option<String> {
    let age = now_us.saturating_sub(at_us);
    (age > FRESH).then(|| format!("{} ago", lasting((age / 1_000_000) as f64)))
}

/// A bound in a few columns: `max /kubepods/pod7`.
pub(in crate::live::view) fn short_label(bound: &Bound) -> String {
    let label = crate::inspect::headroom::label(bound);
    middle(&safe(&label), 32).into_owned()
}
