//! What is told of mapped weights that are resident: in pictures, to policies, with decisions.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use malloc_stats::Metric;
use plimsoll_cache::policy::{Policy, Resident};
use plimsoll_cache::{Cache, Model};
use plimsoll_events::{Kind, PageCache};

use crate::support::{Folder, MIB, cache, verify};
use crate::{dropping, mapped, turn};

/// What is told of a model, and of all of them.
fn told(cache: &Cache, model: &Model) -> (PageCache, PageCache) {
    // Looks are a second apart.
    std::thread::sleep(Duration::from_millis(1100));
    let picture = cache.residency();
    let its = picture.models.iter().find(|one| one.model == model.name());
    let place = its.unwrap().places[0].page_cache;
    (place.unwrap(), picture.tiers[0].page_cache.unwrap())
}

#[test]
fn a_picture_tells_what_is_resident_and_what_coming_back_would_read() {
    let _turn = turn();
    let folder = Folder::new();
    let model = folder.model("a", 8 * MIB);
    let (cache, _) = cache(|builder| mapped(builder.ram(16 * MIB)));
    let lease = cache.lease([&model]).unwrap();
    verify(&lease, &model);
    let (its, all) = told(&cache, &model);
    assert_eq!(its, all);
    assert!(its.mapped_bytes >= model.bytes());
    // It was written and read just now, and nobody is short of memory.
    assert_eq!(its.resident, Metric::Upper(its.mapped_bytes));
    assert_eq!(its.reload.bytes(), Some(0));
    drop(lease);
    assert!(cache.evict(&model));
    assert_eq!(cache.residency().tiers[0].page_cache, None);
}

#[test]
fn what_is_dropped_at_unload_has_to_be_read_again_wholly() {
    let _turn = turn();
    let folder = Folder::new();
    let model = folder.model("a", 8 * MIB);
    let (cache, _) = cache(|builder| dropping(builder.ram(16 * MIB)));
    drop(cache.lease([&model]).unwrap());
    let (its, _) = told(&cache, &model);
    assert_eq!(its.reload, Metric::Exact(its.mapped_bytes));
}

type Heard = Vec<(String, Option<u64>)>;

/// Keeps what it was told of each model, and evicts by it.
#[derive(Default)]
struct CheapestFirst(Arc<Mutex<Heard>>);

impl Policy for CheapestFirst {
    fn name(&self) -> &'static str {
        "cheapest-first"
    }

    fn score(&self, resident: &Resident<'_>) -> f64 {
        let told = (resident.name.to_owned(), resident.reload_bytes);
        self.0.lock().unwrap().push(told);
        resident.reload_bytes.map_or(f64::MAX, |bytes| bytes as f64)
    }
}

#[test]
fn a_policy_and_its_decision_are_told_what_coming_back_would_read() {
    let _turn = turn();
    let folder = Folder::new();
    let [a, b, c] = ["a", "b", "c"].map(|name| folder.model(name, 8 * MIB));
    let policy = CheapestFirst::default();
    let heard = Arc::clone(&policy.0);
    let (cache, kept) = cache(|builder| mapped(builder.ram(18 * MIB)).policy(policy));
    for model in [&a, &b] {
        verify(&cache.lease([model]).unwrap(), model);
    }
    told(&cache, &a);
    drop(cache.lease([&c]).unwrap());
    let heard = heard.lock().unwrap();
    assert!(heard.contains(&("a".to_owned(), Some(0))), "{heard:?}");
    let kinds = kept.kinds();
    let evict = kinds.iter().find_map(|kind| match kind {
        Kind::Evict(evict) => Some(evict),
        _ => None,
    });
    let considered = &evict.unwrap().considered;
    assert_eq!(considered.len(), 2);
    assert!(considered.iter().all(|one| one.reload_bytes == Some(0)));
}
