//! Random partial and plain leases, against a simple model of what may count.

use std::sync::{Arc, LazyLock};

use plimsoll_cache::device::{Device, Simulated};
use plimsoll_cache::{Error, Lease, Model, Partial};
use plimsoll_events::Kind;
use proptest::prelude::*;
use tempfile::TempDir;

use super::files::folder;
use super::models::layers;
use super::support::{MIB, cache};
use super::watch::on_device;

static MODELS: LazyLock<(TempDir, Vec<Model>)> = LazyLock::new(|| {
    let folder = folder();
    let models = [(9, 144), (5, 160), (12, 100)];
    let models = models.iter().enumerate();
    let models =
        models.map(|(at, (count, width))| layers(&folder, &format!("m{at}"), *count, *width));
    let models = models.collect();
    (folder, models)
});

#[derive(Debug, Clone)]
enum Step {
    Plain(usize),
    Partly {
        model: usize,
        share: u64,
        is_firm: bool,
    },
    Read {
        lease: usize,
        from: usize,
    },
    Grow(usize),
    End(usize),
    Evict(usize),
    Clear,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0_usize..3).prop_map(Step::Plain),
        4 => (0_usize..3, 20_u64..120, prop::bool::weighted(0.2))
            .prop_map(|(model, share, is_firm)| Step::Partly { model, share, is_firm }),
        6 => (any::<usize>(), any::<usize>()).prop_map(|(lease, from)| Step::Read { lease, from }),
        2 => any::<usize>().prop_map(Step::Grow),
        3 => any::<usize>().prop_map(Step::End),
        1 => (0_usize..3).prop_map(Step::Evict),
        1 => Just(Step::Clear),
    ]
}

/// Whether some tensors, from one on, are as in the file.
fn read(lease: &Lease, model: &Model, from: usize) {
    let file = std::fs::read(model.path()).unwrap();
    let leased = lease.get(model).unwrap();
    let count = model.tensors().len();
    for at in (from % count..count).take(6) {
        let tensor = &model.tensors()[at];
        let begin = tensor.offset as usize;
        let wanted = &file[begin..begin + tensor.bytes as usize];
        assert!(
            *leased.bytes(&tensor.name).unwrap() == *wanted,
            "{}",
            tensor.name
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn counted_bytes_are_loads_less_evictions_and_pools(
        steps in prop::collection::vec(step(), 1..40),
        budget in 400_u64..1600,
        ram in prop_oneof![Just(64_u64 << 10), 300_u64..1400],
    ) {
        let models = &MODELS.1;
        let gpu = Arc::new(Simulated::new(64 * MIB));
        let (cache, kept) = cache(|builder| {
            builder.ram(ram << 10).device(Arc::clone(&gpu), budget << 10)
        });
        let mut leases: Vec<(usize, bool, Lease)> = Vec::new();
        for step in steps {
            match step {
                Step::Plain(model) => match cache.try_lease([models[model].on(&*gpu)]) {
                    Ok(lease) => leases.push((model, false, lease)),
                    Err(Error::NoRoom { .. } | Error::ExceedsBudget { .. }) => {}
                    Err(error) => panic!("{error}"),
                },
                Step::Partly { model, share, is_firm } => {
                    let most = gpu.charge(&models[model]) * share / 100;
                    let partial = Partial::default().up_to(most);
                    let partial = if is_firm { partial.firm() } else { partial };
                    match cache.try_lease([models[model].on(&*gpu).partial(partial)]) {
                        Ok(lease) => leases.push((model, true, lease)),
                        Err(Error::NoRoom { .. } | Error::ExceedsBudget { .. }) => {}
                        Err(Error::PartialTooSmall { asked, required, pool, .. }) => {
                            prop_assert!(asked == most && required + pool > most);
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
                Step::Read { lease, from } if !leases.is_empty() => {
                    let (model, _, lease) = &leases[lease % leases.len()];
                    read(lease, &models[*model], from);
                }
                Step::Grow(lease) if !leases.is_empty() => {
                    let (model, is_partial, lease) = &leases[lease % leases.len()];
                    let came = lease.grow(&models[*model]).unwrap();
                    prop_assert!(*is_partial || came == 0);
                }
                Step::End(lease) if !leases.is_empty() => {
                    let at = lease % leases.len();
                    leases.swap_remove(at);
                }
                Step::Evict(model) => {
                    let gone = cache.evict(&models[model]);
                    let is_leased = leases.iter().any(|one| one.0 == model);
                    prop_assert!(!(gone && is_leased));
                }
                Step::Clear => {
                    cache.clear();
                }
                _ => {}
            }
            let pools: u64 = leases
                .iter()
                .map(|(model, _, lease)| lease.get(&models[*model]).unwrap().residency().pool_bytes)
                .sum();
            let told = kept.kinds().iter().fold(pools, |used, kind| match kind {
                Kind::Load(load) if load.tier == "simulated" && load.error.is_none() => {
                    used + load.charged_bytes
                }
                Kind::Evict(evict) if evict.tier == "simulated" => used - evict.freed_bytes,
                _ => used,
            });
            let usage = cache.usage_of(&*gpu).unwrap();
            prop_assert_eq!(usage.used_bytes, told);
            prop_assert!(usage.used_bytes <= usage.budget_bytes);
            prop_assert!(on_device(&gpu) <= usage.used_bytes);
            let in_ram = cache.usage();
            prop_assert!(in_ram.used_bytes <= in_ram.budget_bytes, "{in_ram:?}");
        }
        leases.clear();
        cache.clear();
        prop_assert_eq!(cache.usage_of(&*gpu).unwrap().used_bytes, 0);
        prop_assert_eq!(cache.usage().used_bytes, 0);
        prop_assert_eq!(on_device(&gpu), 0);
    }
}
