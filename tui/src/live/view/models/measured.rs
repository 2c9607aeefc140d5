//! What is measured of a model: bytes by tier, who goes next.

use plimsoll_events::{GroupSeen, PlacePicture, TierPicture};

use crate::live::screen::theme::Role;
use crate::live::state::{Row, State};
use crate::live::view::draw::{Mark, Pen};

/// The tier that is RAM.
pub(super) const RAM: &str = "ram";

/// What a model counts in RAM, and on devices.
pub(super) fn bytes(row: &Row) -> (u64, u64) {
    row.places.iter().fold((0, 0), |(ram, device), place| {
        let bytes = place.charged_bytes;
        if place.tier == RAM {
            (bytes.saturating_add(ram), device)
        } else {
            (ram, bytes.saturating_add(device))
        }
    })
}

/// The score by which it goes: the lowest of its places, else that of the last decision.
pub(super) fn score(row: &Row) -> Option<f64> {
    let scores = row.places.iter().filter_map(|place| place.score);
    scores
        .min_by(|a, b| rank(*a).total_cmp(&rank(*b)))
        .or(row.score)
}

/// Scores in the order in which a cache evicts: what is no number goes first.
pub(in crate::live::view) fn rank(score: f64) -> f64 {
    if score.is_nan() {
        f64::NEG_INFINITY
    } else {
        score
    }
}

/// What bringing it back would take, microseconds: as told for where it is, else as it took last.
pub(super) fn reload_us(row: &Row) -> Option<u64> {
    let told = row.places.iter().find_map(|place| place.reload_us);
    let seen = || {
        let here = row.places.iter();
        let mut here = here.filter_map(|place| row.reload_us.get(&place.tier));
        here.next().or_else(|| row.reload_us.get(RAM)).copied()
    };
    told.or_else(seen)
        .or_else(|| row.reload_us.values().next().copied())
}

/// The model that goes next from each tier: the lowest score of those that no lease holds.
pub(super) fn next_to_go(state: &State) -> Vec<Option<&str>> {
    let mut next: Vec<Option<(f64, &str)>> = vec![None; state.tiers.len()];
    for row in state.models.iter() {
        for place in &row.places {
            let Some(score) = place.score.map(rank) else {
                continue;
            };
            if place.leases > 0 || place.phase != "resident" {
                continue;
            }
            let tier = state.tiers.iter().position(|tier| tier.tier == place.tier);
            let Some(best) = tier.and_then(|tier| next.get_mut(tier)) else {
                continue;
            };
            if best.is_none_or(|(lowest, _)| score.total_cmp(&lowest).is_lt()) {
                *best = Some((score, &row.name));
            }
        }
    }
    next.into_iter().map(|best| Some(best?.1)).collect()
}

/// The colour of a tier.
pub(in crate::live::view) fn tier_role(tier: &TierPicture) -> Role {
    if tier.simulated {
        Role::Simulated
    } else if tier.tier == RAM {
        Role::Live
    } else {
        Role::Device
    }
}

fn look_of(place: &PlacePicture, tier: &TierPicture) -> (Role, Mark) {
    match place.phase.as_str() {
        "loading" => (Role::Load, Mark::Half),
        "evicting" => (Role::Evict, Mark::Light),
        _ => (tier_role(tier), Mark::Full),
    }
}

/// The share of a model's bytes that is in a tier. Its groups show as segments, where each has two
/// cells or more.
pub(in crate::live::view) fn bar_of(
    pen: &mut Pen<'_>,
    columns: u16,
    row: &Row,
    place: Option<&PlacePicture>,
    tier: &TierPicture,
) {
    let Some(place) = place else {
        return pen.bar(columns, &[], 1);
    };
    let (role, mark) = look_of(place, tier);
    let part = place.charged_bytes < row.bytes;
    if part || row.groups.len() < 2 || row.groups.len() * 2 > usize::from(columns) {
        let there = place.charged_bytes.min(row.bytes);
        return match row.bytes {
            0 => pen.bar(columns, &[(role, mark, 1)], 1),
            bytes => pen.bar(columns, &[(role, mark, there)], bytes),
        };
    }
    bar_of_groups(pen, columns, &row.groups, (role, mark));
}

/// The groups of a model one after the other, neighbours told apart.
fn bar_of_groups(
    pen: &mut Pen<'_>,
    columns: u16,
    groups: &[GroupSeen],
    (role, mark): (Role, Mark),
) {
    let total: u128 = groups.iter().map(|group| u128::from(group.bytes)).sum();
    let (total, wide) = (total.max(1), u128::from(columns));
    let (mut sum, mut drawn) = (0_u128, 0_u16);
    for (at, group) in groups.iter().enumerate() {
        sum += u128::from(group.bytes);
        let end = ((sum * wide + total / 2) / total).min(wide) as u16;
        let mark = match mark {
            Mark::Full if at % 2 == 1 => Mark::Dense,
            other => other,
        };
        pen.cells(end.saturating_sub(drawn), role, mark);
        drawn = end.max(drawn);
    }
    pen.cells(columns.saturating_sub(drawn), Role::Released, Mark::Absent);
}
