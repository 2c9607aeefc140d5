//! What was decided, why, and what came of it.

use malloc_stats::Metric;
use plimsoll_events::{BudgetChange, DeviceFreed, Evict, Load, Origin, Reclaim, Refuse};

use crate::decision::{refused, seconds};
use crate::inspect::prose::{compact, compact_metric, lasting, percent};
use crate::live::screen::theme::{Role, Theme};
use crate::live::state::{Decision, What};
use crate::live::view::Scene;
use crate::live::view::decisions::{arrow, outcome, reason, subject, word};
use crate::live::view::draw::page::Facts;
use crate::live::view::draw::{Line, figures};

/// Columns of the words before facts.
const LABEL: u16 = 11;

/// Models of a refusal or an eviction that are named.
const NAMED: usize = 50;

/// Everything but the tables.
pub(super) fn facts(scene: &Scene<'_>, decision: &Decision, width: u16) -> Facts {
    let mut facts = Facts::new(LABEL, width.saturating_sub(1));
    let (role, word) = word(&decision.what);
    let (model, tier) = subject(&decision.what);
    let mut head = Line::of(role, word);
    if !model.is_empty() {
        head = head.text("  ").and(Role::Strong, model);
    }
    if !tier.is_empty() {
        head = head.faint("  in ").text(tier);
    }
    let tiers = &scene.state.tiers;
    if tiers.iter().any(|one| one.tier == tier && one.simulated) {
        head = head.text(" ").and(Role::Simulated, "simulated");
    }
    facts.add("what", &head);
    let clock = match figures::clock_name(scene.state) {
        "UTC" => " UTC",
        _ => " since the beginning",
    };
    let when = Line::default()
        .text(figures::moment(scene.state, decision.at_us))
        .faint(clock)
        .faint(format!(
            ", {} ago",
            figures::age(scene.now_us, decision.at_us)
        ));
    let when = match scene.since {
        Some(since) if decision.at_us > since.at_us => when.and(Role::Focus, ", since the mark"),
        Some(_) => when.faint(", before the mark"),
        None => when,
    };
    facts.add("when", &when);
    match &decision.what {
        What::Load(load, ..) => loaded(&mut facts, load, &scene.theme),
        What::Evict(evict, ..) => evicted(&mut facts, evict, &scene.theme),
        What::Refuse(refuse) => refusal(&mut facts, refuse, scene),
        What::Budget(change) => budget(&mut facts, change, &scene.theme),
        What::Reclaim(done) => reclaimed(&mut facts, done, &scene.theme),
    }
    facts
}

fn loaded(facts: &mut Facts, load: &Load, theme: &Theme) {
    let paint = theme.paint(0);
    if let Some(error) = &load.error {
        facts.add("failed", &Line::of(Role::Bad, error.clone()));
    }
    let from = match load.from {
        Origin::File => "its files",
        Origin::Ram => "the copy in RAM",
    };
    facts.add("from", &Line::default().text(from));
    let mut size = Line::default()
        .text(compact(load.bytes))
        .faint(" of weights, ")
        .text(compact(load.charged_bytes))
        .faint(" counted");
    if load.error.is_some() {
        size = size.faint(" while it was tried");
    }
    facts.add("bytes", &size);
    if let Some(why) = &load.degraded {
        facts.add("kept", &Line::of(Role::Warn, why.clone()));
    }
    let mut took = Line::default().text(seconds(load.took_us));
    if let Some(rate) = figures::rate(load.bytes, load.took_us).filter(|_| load.error.is_none()) {
        took = took.faint(", ").and(Role::Strong, rate);
    }
    facts.add("took", &took);
    let mut recycled = Line::default()
        .text(compact(load.recycled_bytes))
        .faint(" in pages that an eviction left behind");
    if load.recycled_bytes > 0 && load.bytes > 0 {
        let share = load.recycled_bytes as f64 / load.bytes as f64;
        recycled = recycled.faint(format!(", {}", percent(share)));
    }
    facts.add("recycled", &recycled);
    let back = Line::default()
        .text(compact_metric(&paint, load.gave_back))
        .faint(" of recycled pages that it did not use");
    facts.add("gave back", &back);
    snapshots(facts, load.snapshots_us);
}

fn snapshots(facts: &mut Facts, took_us: u64) {
    let words = Line::default()
        .text(seconds(took_us))
        .faint(" for the two snapshots");
    facts.add("looking", &words);
}

fn evicted(facts: &mut Facts, evict: &Evict, theme: &Theme) {
    facts.add("why", &reason(&evict.reason));
    if let plimsoll_events::EvictReason::Room { wanted_for, .. } = &evict.reason
        && wanted_for.len() > 1
    {
        facts.add("for", &named(wanted_for));
    }
    let freed = Line::default()
        .text(compact(evict.freed_bytes))
        .faint(" counted, of ")
        .text(compact(evict.bytes))
        .faint(" of weights");
    facts.add("freed", &freed);
    let (role, words) = outcome(evict, theme);
    let mut returned = Line::of(role, words);
    let due = evict.due_bytes();
    if due == 0 {
        returned = returned.faint(": nothing was due");
    } else {
        if let Some(bytes) = evict.returned.bytes() {
            let share = percent(bytes as f64 / due as f64);
            returned = returned
                .faint(": ")
                .and(role, share)
                .faint(" of what was due");
        }
        if role == Role::Warn {
            let kept = due.saturating_sub(evict.returned.bytes().unwrap_or(0));
            returned = returned
                .faint(", ")
                .and(role, compact(kept))
                .faint(" did not come back");
        }
    }
    returned = match evict.returned {
        Metric::Estimated(_) => returned.faint(" (estimated: others were loading)"),
        _ => returned,
    };
    facts.add("returned", &returned);
    let recycled = Line::default()
        .text(compact(evict.recycled_bytes))
        .faint(" waits to become the next model's");
    facts.add("recycled", &recycled);
    let role = if evict.held_bytes > 0 {
        Role::Warn
    } else {
        Role::Text
    };
    let held = Line::of(role, compact(evict.held_bytes))
        .faint(" still held by somebody, and counted until it is let go");
    facts.add("held", &held);
    if let Some(cached) = evict.page_cache {
        let paint = theme.paint(0);
        let mut says = Line::default()
            .text(compact(cached.mapped_bytes))
            .faint(", ")
            .text(compact_metric(&paint, cached.resident))
            .faint(" of it in RAM; ");
        says = match cached.left {
            Some(left) => says
                .text(compact_metric(&paint, left))
                .faint(" is left in the page cache"),
            None => says.faint("tensors still hold it"),
        };
        facts.add("mapped", &says);
    }
    if let Some(freed) = evict.device {
        facts.add("device", &on_device(freed, theme));
    }
    facts.add("took", &Line::default().text(seconds(evict.took_us)));
    snapshots(facts, evict.snapshots_us);
}

/// What the device's driver said before and after.
fn on_device(freed: DeviceFreed, theme: &Theme) -> Line {
    let paint = theme.paint(0);
    let both = |line: Line, before: Metric, after: Metric| {
        let line = line
            .text(compact_metric(&paint, before))
            .faint(format!(" {} ", arrow(theme)))
            .text(compact_metric(&paint, after));
        match after.since(before) {
            Some(moved) => line.text(" ").faint(figures::change(moved.into())),
            None => line,
        }
    };
    let free = both(
        Line::default().faint("free "),
        freed.free_before,
        freed.free_after,
    );
    both(
        free.faint(", held of the pool "),
        freed.pool_before,
        freed.pool_after,
    )
}

fn named(models: &[String]) -> Line {
    let mut names = Line::default();
    for name in models.iter().take(NAMED) {
        names = names.then(", ").text(name.clone());
    }
    match models.len().saturating_sub(NAMED) {
        0 => names,
        more => names.faint(format!(" and {more} more")),
    }
}

fn refusal(facts: &mut Facts, refuse: &Refuse, scene: &Scene<'_>) {
    facts.add("why", &Line::of(Role::Bad, refused(refuse.reason)));
    facts.add("for", &named(&refuse.models));
    let asked = Line::default().text(compact(refuse.asked_bytes));
    facts.add("asked", &asked.faint(" for all of them"));
    let budget = Line::default().text(compact(refuse.budget_bytes));
    facts.add("budget", &budget);
    let share = refuse.pinned_bytes as f64 / refuse.budget_bytes.max(1) as f64;
    let pinned = Line::default()
        .text(compact(refuse.pinned_bytes))
        .faint(format!(
            ", {} of the budget: leases, loads, and tensors that somebody holds",
            percent(share)
        ));
    facts.add("pinned", &pinned);
    let to_go = if refuse.asked_bytes > refuse.budget_bytes {
        Line::of(Role::Bad, "the budget is short of ").text(compact(
            refuse.asked_bytes.saturating_sub(refuse.budget_bytes),
        ))
    } else {
        let room = refuse.budget_bytes.saturating_sub(refuse.pinned_bytes);
        match refuse.asked_bytes.saturating_sub(room) {
            0 => Line::default().text("nothing that is pinned"),
            short => Line::of(Role::Warn, compact(short)).text(" of what is pinned"),
        }
    };
    facts.add("must go", &to_go);
    // What pins it now, which may not be what did.
    let models = scene.state.models.iter();
    let here = models.flat_map(|row| row.places.iter().map(move |place| (row, place)));
    let mut pins: Vec<_> = here
        .filter(|(_, place)| place.tier == refuse.tier && place.leases > 0)
        .collect();
    pins.sort_by_key(|(_, place)| std::cmp::Reverse(place.charged_bytes));
    let mut now = Line::default();
    for (row, place) in pins.iter().take(8) {
        now = now.then(", ").text(row.name.clone()).faint(format!(
            " {} leased by {}",
            compact(place.charged_bytes),
            place.leases
        ));
    }
    if pins.len() > 8 {
        now = now.faint(format!(", and {} more", pins.len() - 8));
    }
    if !pins.is_empty() {
        facts.add("leased now", &now);
    }
}

/// Every term of the sum, one under the other.
fn budget(facts: &mut Facts, change: &BudgetChange, theme: &Theme) {
    let paint = theme.paint(0);
    let cause = Line::default().text(change.cause.clone());
    facts.add("seen by", &cause);
    facts.add("bound by", &Line::default().text(change.bound.clone()));
    if let Some(was) = change.was_bytes {
        let moved = i128::from(change.budget_bytes) - i128::from(was);
        let role = if moved < 0 { Role::Warn } else { Role::Good };
        let words = Line::default()
            .text(compact(was))
            .faint(format!(" {} ", arrow(theme)))
            .text(compact(change.budget_bytes))
            .text("  ")
            .and(role, figures::change(moved));
        facts.add("was", &words);
    }
    facts.blank();
    let exact = Metric::Exact;
    let terms = [
        ("", change.unused, "unused", "below the tightest bound"),
        (
            "+",
            exact(change.counted_bytes),
            "counted",
            "what the cache has",
        ),
        (
            "+",
            change.reclaimable,
            "reclaimable",
            "page cache that the kernel could drop",
        ),
        (
            "+",
            exact(change.working_bytes),
            "working",
            "declared working memory that is in use",
        ),
        (
            "-",
            exact(change.reserve_bytes),
            "reserve",
            "left to everything else",
        ),
        ("=", exact(change.budget_bytes), "budget", ""),
    ];
    for (sign, bytes, word, words) in terms {
        let role = if sign == "=" {
            Role::Strong
        } else {
            Role::Text
        };
        let line = Line::of(
            role,
            format!("{sign:1}{:>9}", compact_metric(&paint, bytes)),
        )
        .text(format!("  {word:<13}"))
        .faint(words);
        facts.add("", &line);
    }
}

fn reclaimed(facts: &mut Facts, done: &Reclaim, theme: &Theme) {
    let paint = theme.paint(0);
    facts.add("action", &Line::default().text(done.action.clone()));
    let missing = Line::default()
        .text(compact(done.missing_bytes))
        .faint(" freed by unloads had not come back");
    facts.add("missing", &missing);
    let mut gain = Line::of(Role::Good, compact_metric(&paint, done.gain));
    if let Some(bytes) = done.gain.bytes().filter(|_| done.missing_bytes > 0) {
        let share = percent(bytes as f64 / done.missing_bytes as f64);
        gain = gain.faint(format!(", {share} of that"));
    }
    facts.add("gained", &gain);
    facts.add("took", &Line::default().text(seconds(done.took_us)));
    let settled = match done.settled {
        None => Line::default().faint("not looked at yet; a later record tells"),
        Some(settled) => {
            let role = if settled.net_bytes < 0 {
                Role::Warn
            } else {
                Role::Good
            };
            Line::of(role, figures::change(i128::from(settled.net_bytes))).faint(format!(
                " of the gain is left after {}",
                lasting(settled.after_s as f64)
            ))
        }
    };
    facts.add("settled", &settled);
}
