//! Numbers and names of the worst kind.

use std::sync::Arc;

use malloc_stats::Metric;
use plimsoll_events::{DeviceFigures, DeviceFreed};

use super::{around, budget, cache, candidate, evict, group, load, model, place, reclaim, refuse};
use crate::live::State;
use crate::live::state::{Around, Dated, Decision, What};

/// Numbers and names of the worst kind, from a seed.
pub(in crate::live::view) fn hostile(number: u64, score: f64, many: usize) -> State {
    let name = |at: usize| match at % 4 {
        0 => format!("\x1b[2J{at}"),
        1 => format!("模型{at}\u{202e}"),
        2 => "x".repeat(at % 500),
        _ => format!("👩‍👩‍👧{at}\t\n"),
    };
    let mut state = cache();
    state.at_us = number;
    for (at, tier) in state.tiers.iter_mut().enumerate() {
        tier.tier = name(at);
        tier.budget_bytes = number.rotate_left(at as u32);
        tier.used_bytes = number;
        tier.pinned_bytes = number.wrapping_mul(3);
        tier.staging_bytes = number;
        tier.device = Some(Box::new(DeviceFigures {
            name: name(at + 1),
            pci_bus: name(at + 2),
            total: Metric::Exact(number / 2),
            free: Metric::Upper(number),
            pool_used: Metric::Exact(u64::MAX),
            pool_reserved: Metric::Estimated(number),
            outside: Metric::Exact(u64::MAX),
            staging: Metric::Exact(u64::MAX),
            largest_block: Metric::Exact(number.wrapping_add(7)),
        }));
    }
    for (at, gpu) in state.vitals.vram.value.iter_mut().enumerate() {
        gpu.pci_bus = name(at + 2);
        gpu.process = Metric::Upper(number);
        gpu.reserved = Metric::Exact(number);
        gpu.absent = number.is_multiple_of(3).then(|| name(at));
        gpu.mig = number % 3 == 1;
    }
    for at in 0..many {
        let mut row = model(&name(at), 1.0, Vec::new());
        row.bytes = number.wrapping_mul(at as u64);
        row.score = Some(score);
        row.used_us = Some(number.wrapping_add(at as u64));
        row.placed_us = number;
        row.reload_us.insert(name(at), number);
        row.groups = (0..at % 65)
            .map(|at| group(&name(at), &name(at + 1), number, at as u64))
            .collect();
        for tier in 0..at % 4 {
            let mut place = place(&name(tier), 1.0, number % 2, Some(score));
            place.charged_bytes = number.wrapping_sub(at as u64);
            place.phase = ["resident", "loading", "evicting", "\x07"][tier].to_owned();
            place.leases = number.wrapping_mul(tier as u64);
            place.idle_ms = Some(number);
            row.places.push(place);
        }
        state.models.rows.insert(row.name.clone(), row);
        let mut gone = evict(&name(at));
        gone.freed_bytes = number;
        gone.held_bytes = number.wrapping_add(1);
        gone.device = Some(DeviceFreed {
            free_before: Metric::Exact(number),
            free_after: Metric::Exact(u64::MAX - number),
            ..DeviceFreed::default()
        });
        gone.returned = Metric::Upper(number);
        gone.considered_besides = number;
        gone.considered
            .push(candidate(&name(at + 1), Some(score), None));
        let mut came = load(&name(at), &name(0));
        came.took_us = number;
        came.bytes = number;
        came.recycled_bytes = u64::MAX;
        came.error = (at % 2 == 0).then(|| name(at).repeat(30));
        let mut settled = reclaim(Some(number as i64));
        settled.action = name(at);
        let mut sum = budget();
        sum.bound = name(at);
        sum.was_bytes = Some(number);
        sum.budget_bytes = u64::MAX - number;
        let mut no = refuse();
        no.models = (0..at % 70).map(name).collect();
        no.asked_bytes = number;
        let what = match at % 5 {
            0 => What::Evict(Box::new(gone), Around::default(), around(9)),
            1 => What::Load(Box::new(came), around(4), Around::default()),
            2 => What::Reclaim(Box::new(settled)),
            3 => What::Budget(Box::new(sum)),
            _ => What::Refuse(Box::new(no)),
        };
        let decision = Decision {
            seq: at as u64 + 30,
            at_us: number.wrapping_mul(at as u64),
            what,
        };
        state.decisions.kept.push_back(Arc::new(decision));
        state.notes.push_back(Dated {
            at_us: number,
            value: name(at),
        });
    }
    state
}
