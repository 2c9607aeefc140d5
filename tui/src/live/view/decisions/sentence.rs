//! A decision in a sentence with its numbers.

use std::borrow::Cow;

use malloc_stats::Metric;
use plimsoll_events::{BudgetChange, Evict, EvictReason, Load, Origin, Reclaim, Refuse, Settled};

use crate::decision::{refused, seconds};
use crate::inspect::prose::{compact, compact_metric, lasting};
use crate::live::screen::theme::{Role, Theme};
use crate::live::state::What;
use crate::live::view::draw::{Line, figures, matches};
use crate::live::view::models::{enough, rank};

/// Names of a list that are told; a list may be long.
const NAMES: usize = 3;

/// What it is in a word, and its colour.
pub(in crate::live::view) fn word(what: &What) -> (Role, &'static str) {
    match what {
        What::Load(load, ..) if load.error.is_some() => (Role::Bad, "FAILED"),
        What::Load(..) => (Role::Load, "LOAD"),
        What::Evict(..) => (Role::Evict, "EVICT"),
        What::Refuse(_) => (Role::Bad, "REFUSE"),
        What::Budget(_) => (Role::Warn, "BUDGET"),
        What::Reclaim(done) => match done.action.as_str() {
            "trim" => (Role::Rss, "TRIM"),
            "purge" => (Role::Rss, "PURGE"),
            _ => (Role::Rss, "RECLAIM"),
        },
    }
}

/// The models it is about, and the tier; empty where it is about none.
pub(in crate::live::view) fn subject(what: &What) -> (Cow<'_, str>, &str) {
    match what {
        What::Load(load, ..) => (Cow::Borrowed(&load.model), &load.tier),
        What::Evict(evict, ..) => (Cow::Borrowed(&evict.model), &evict.tier),
        What::Refuse(refuse) => (names(&refuse.models), &refuse.tier),
        What::Budget(change) => (Cow::Borrowed(""), &change.tier),
        What::Reclaim(_) => (Cow::Borrowed(""), ""),
    }
}

/// Some names, and how many more there are.
fn names(all: &[String]) -> Cow<'_, str> {
    match all {
        [] => Cow::Borrowed(""),
        [one] => Cow::Borrowed(one),
        _ if all.len() <= NAMES => Cow::Owned(all.join(" + ")),
        [first, ..] => Cow::Owned(format!("{first} + {} more", all.len() - 1)),
    }
}

/// Whether it is about what is looked for.
pub(super) fn matched(what: &What, filter: &str) -> bool {
    let (_, word) = word(what);
    let any = |texts: &[&str]| texts.iter().any(|text| matches(text, filter));
    if any(&[what.kind(), word]) {
        return true;
    }
    let among = |names: &[String]| names.iter().any(|name| matches(name, filter));
    match what {
        What::Load(load, ..) => {
            let error = load.error.as_deref();
            any(&[&load.model, &load.tier]) || error.is_some_and(|error| any(&[error]))
        }
        What::Evict(evict, ..) => {
            any(&[&evict.model, &evict.tier])
                || match &evict.reason {
                    EvictReason::Room { wanted_for, .. } => among(wanted_for),
                    other => any(&[&cause(other)]),
                }
        }
        What::Refuse(refuse) => {
            any(&[&refuse.tier, refused(refuse.reason)]) || among(&refuse.models)
        }
        What::Budget(change) => any(&[&change.tier, &change.bound, &change.cause]),
        What::Reclaim(done) => any(&[&done.action]),
    }
}

/// What made it go, in a word or two.
fn cause(reason: &EvictReason) -> Cow<'_, str> {
    match reason {
        EvictReason::Room { wanted_for, .. } => match names(wanted_for) {
            names if names.is_empty() => Cow::Borrowed("for room"),
            names => Cow::Owned(format!("for {names}")),
        },
        EvictReason::Dropped => Cow::Borrowed("dropped"),
        EvictReason::Cleared => Cow::Borrowed("cleared"),
        EvictReason::Idle { .. } => Cow::Borrowed("idle"),
        EvictReason::Pressure { .. } => Cow::Borrowed("pressure"),
        EvictReason::Requested { .. } => Cow::Borrowed("requested"),
        EvictReason::DeviceFull { .. } => Cow::Borrowed("device full"),
        EvictReason::Offloaded => Cow::Borrowed("offloaded to ram"),
        EvictReason::NotKept => Cow::Borrowed("no copy kept in ram"),
    }
}

/// Why a model went, with the numbers of that.
pub(in crate::live::view) fn reason(reason: &EvictReason) -> Line {
    let why = Line::default().text(cause(reason));
    match reason {
        EvictReason::Room {
            asked_bytes,
            free_bytes,
            ..
        } => why
            .faint(": asked ")
            .text(compact(*asked_bytes))
            .faint(", free ")
            .text(compact(*free_bytes)),
        EvictReason::Idle { keep_alive_ms } => {
            why.faint(format!(" for {}", lasting(*keep_alive_ms as f64 / 1e3)))
        }
        EvictReason::Pressure {
            budget_bytes,
            used_bytes,
        } => why
            .faint(": budget now ")
            .text(compact(*budget_bytes))
            .faint(", used ")
            .text(compact(*used_bytes)),
        EvictReason::Requested { asked_bytes } => why
            .faint(": the program asked for ")
            .text(compact(*asked_bytes)),
        EvictReason::DeviceFull { asked_bytes } => why
            .faint(": the device refused ")
            .text(compact(*asked_bytes)),
        EvictReason::Dropped
        | EvictReason::Cleared
        | EvictReason::Offloaded
        | EvictReason::NotKept => why,
    }
}

/// A decision in a sentence, what matters first.
pub(in crate::live::view) fn sentence(what: &What, theme: &Theme) -> Line {
    match what {
        What::Load(load, before, after) => {
            let grown = after.rss.since(before.rss);
            loaded(load, grown, theme)
        }
        What::Evict(evict, ..) => evicted(evict, theme),
        What::Refuse(refuse) => refusal(refuse),
        What::Budget(change) => budget(change, theme),
        What::Reclaim(done) => reclaim(done, theme),
    }
}

fn loaded(load: &Load, grown: Option<i64>, theme: &Theme) -> Line {
    let took = seconds(load.took_us);
    if let Some(error) = &load.error {
        return Line::of(Role::Bad, error.clone())
            .faint(format!(", after {took}; {} asked", compact(load.bytes)));
    }
    let from = match load.from {
        Origin::File => "file",
        Origin::Ram => "ram",
    };
    let mut says = Line::default()
        .text(compact(load.bytes))
        .faint(" from ")
        .text(from)
        .faint(" in ")
        .text(took);
    if let Some(rate) = figures::rate(load.bytes, load.took_us) {
        says = says.faint(", ").text(rate);
    }
    if load.recycled_bytes > 0 {
        says = says
            .faint("; recycled ")
            .and(Role::Good, compact(load.recycled_bytes));
    }
    if !matches!(load.gave_back, Metric::Exact(0) | Metric::Unavailable) {
        let back = compact_metric(&theme.paint(0), load.gave_back);
        says = says.faint("; gave back ").text(back);
    }
    if let Some(why) = &load.degraded {
        says = says.faint("; ").and(Role::Warn, why.clone());
    }
    if let Some(grown) = grown {
        says = says
            .faint("; RSS ")
            .text(figures::change(i128::from(grown)));
    }
    says
}

fn evicted(evict: &Evict, theme: &Theme) -> Line {
    // What came of it first: the rest may be cut.
    let (role, words) = outcome(evict, theme);
    let mut says = Line::of(role, words);
    if evict.held_bytes > 0 {
        let held = format!("{} still held", compact(evict.held_bytes));
        says = says.faint(", ").and(Role::Warn, held);
    }
    if evict.recycled_bytes > 0 {
        says = says
            .faint(", recycled ")
            .text(compact(evict.recycled_bytes));
    }
    says = says.faint("; ");
    says.0.extend(reason(&evict.reason).0);
    let scores = || evict.considered.iter().filter_map(|one| one.score);
    let victim = evict.considered.iter().find(|one| one.model == evict.model);
    if let Some(score) = victim.and_then(|one| one.score) {
        let eligible = scores().count();
        // Of several that went together, all but one had a higher score than the first.
        let is_lowest = scores().all(|other| rank(score) <= rank(other));
        let lowest = if is_lowest { "lowest of " } else { "of " };
        let more = if evict.considered_besides > 0 {
            "+"
        } else {
            ""
        };
        says = says
            .faint("; score ")
            .text(figures::score(score))
            .faint(format!(", {lowest}{eligible}{more} eligible"));
    }
    says
}

/// What the system got back of what was freed; in capitals where that is too little.
pub(in crate::live::view) fn outcome(evict: &Evict, theme: &Theme) -> (Role, String) {
    let due = evict.due_bytes();
    let returned = evict.returned.bytes();
    let (role, word) = match returned.and_then(|returned| enough(returned, due)) {
        Some(false) => (Role::Warn, "RETURNED"),
        Some(true) => (Role::Good, "returned"),
        None => (Role::Text, "returned"),
    };
    let back = compact_metric(&theme.paint(0), evict.returned);
    (
        role,
        format!("{word} {back} of {}", compact(evict.freed_bytes)),
    )
}

fn refusal(refuse: &Refuse) -> Line {
    Line::default()
        .faint("needs ")
        .text(compact(refuse.asked_bytes))
        .faint(" of budget ")
        .text(compact(refuse.budget_bytes))
        .faint(", pinned ")
        .text(compact(refuse.pinned_bytes))
        .faint(": ")
        .and(Role::Bad, refused(refuse.reason))
}

fn budget(change: &BudgetChange, theme: &Theme) -> Line {
    let arrow = arrow(theme);
    let mut says = Line::default();
    if let Some(was) = change.was_bytes {
        says = says.text(compact(was)).faint(format!(" {arrow} "));
    }
    says = says.and(Role::Strong, compact(change.budget_bytes));
    if let Some(was) = change.was_bytes {
        let moved = i128::from(change.budget_bytes) - i128::from(was);
        let role = if moved < 0 { Role::Warn } else { Role::Good };
        says = says
            .faint(" (")
            .and(role, figures::change(moved))
            .faint(")");
    }
    says.faint(", bound by ")
        .text(change.bound.clone())
        .faint(", seen by ")
        .text(change.cause.clone())
}

/// From here to there.
pub(in crate::live::view) fn arrow(theme: &Theme) -> &'static str {
    if theme.unicode { "→" } else { "->" }
}

fn reclaim(done: &Reclaim, theme: &Theme) -> Line {
    let gain = compact_metric(&theme.paint(0), done.gain);
    let says = Line::default();
    match done.settled {
        None => says
            .text("gained ")
            .and(Role::Good, gain)
            .faint(" of ")
            .text(compact(done.missing_bytes))
            .faint(" missing, in ")
            .text(seconds(done.took_us)),
        Some(Settled { after_s, net_bytes }) => {
            let role = if net_bytes < 0 {
                Role::Warn
            } else {
                Role::Good
            };
            says.text(format!("{} later ", lasting(after_s as f64)))
                .and(role, figures::change(i128::from(net_bytes)))
                .faint(" of the ")
                .text(gain)
                .faint(" gained is left")
        }
    }
}
