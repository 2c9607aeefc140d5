//! How a run's stream begins: who writes it, under which settings.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use malloc_stats::limits::Limits;
use malloc_stats::{Allocator, Size};
use plimsoll_cache::{Model, Storage};
use plimsoll_events::Opened;

use super::tiers::Limit;
use super::{Churning, Plan};

/// The first event of a run. A budget that follows the machine is told later, by the cache.
pub(super) fn opened(plan: &Plan, allocator: Allocator, allocator_name: String) -> Opened {
    let cached = plan.churning != Churning::Only;
    let unix = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let budget_bytes = match plan.tiers.ram {
        Limit::Fixed(bytes) if cached => Some(bytes),
        Limit::Fixed(_) | Limit::Auto => None,
    };
    Opened {
        unix_ms: u64::try_from(unix.as_millis()).unwrap_or(u64::MAX),
        pid: std::process::id(),
        program: concat!("plimsoll ", env!("CARGO_PKG_VERSION")).to_owned(),
        profile: plan.profile.name.clone(),
        allocator_name,
        allocator: Some(allocator),
        storage: plan.storage.to_string(),
        budget_bytes,
        devices: if cached {
            plan.tiers.devices_seen()
        } else {
            Vec::new()
        },
        options: options(plan, cached),
        models: plan.models.iter().map(Model::seen).collect(),
    }
}

fn options(plan: &Plan, cached: bool) -> BTreeMap<String, String> {
    let settle = format!("{} s", plan.settle.as_secs_f64());
    let mut options = BTreeMap::from([
        ("workload".to_owned(), plan.workload.clone()),
        ("steps".to_owned(), plan.steps.len().to_string()),
        ("seed".to_owned(), plan.seed.to_string()),
        ("touch".to_owned(), plan.touch.to_string()),
        ("settle".to_owned(), settle),
    ]);
    if plan.cycles > 1 {
        options.insert("cycles".to_owned(), plan.cycles.to_string());
    }
    if cached && plan.storage == Storage::Mapped {
        options.insert("advise".to_owned(), plan.mapping.advice.to_string());
        options.insert("page-cache".to_owned(), plan.mapping.page_cache.to_string());
        if plan.mapping.anywhere {
            options.insert("mapped-anywhere".to_owned(), "yes".to_owned());
        }
    }
    if cached && plan.huge_pages {
        options.insert("huge-pages".to_owned(), "yes".to_owned());
    }
    if let Some(most) = plan.pinned_at_most.filter(|_| cached) {
        options.insert("pinned-at-most".to_owned(), Size(most).to_string());
    }
    if plan.churning != Churning::None {
        let churn = if cached { "beside" } else { "only" };
        options.insert("churn".to_owned(), churn.to_owned());
    }
    if cached {
        let asked = plan.tiers.options().into_iter().chain(plan.terms.options());
        options.extend(asked.map(|(name, value)| (name.to_owned(), value)));
    }
    options
}

/// A warning of a fixed budget above what the limits leave, which is an out-of-memory kill in
/// waiting.
pub(super) fn beyond_the_limits(plan: &Plan) -> Option<String> {
    let Limit::Fixed(budget) = plan.tiers.ram else {
        return None;
    };
    let limits = Limits::of_self();
    let (headroom, tightest) = (limits.headroom().bytes()?, limits.tightest()?);
    (headroom < budget && plan.churning != Churning::Only).then(|| {
        format!(
            "the budget of {} is more than the {} that {} leaves",
            Size(budget),
            Size(headroom),
            tightest.bound
        )
    })
}
