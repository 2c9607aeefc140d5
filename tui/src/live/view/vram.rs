//! What the memory of a device is taken by: what its cache says, reconciled with NVML.

use malloc_stats::{Grade, Metric};
use plimsoll_events::{DeviceFigures, TierPicture};

use crate::live::State;
use crate::live::state::{Dated, beside, is_of};

/// The memory of a device. The parts, what is free and nothing else add up to the total, as far as
/// all of them are known.
pub(super) struct Account<'a> {
    pub(super) figures: &'a DeviceFigures,
    /// Why NVML's numbers are not used, where it has any for it.
    pub(super) but: Option<&'a str>,
    pub(super) total: Metric,
    pub(super) free: Metric,
    /// What the cache's pool has handed out.
    pub(super) tensors: Metric,
    /// What that pool has besides.
    pub(super) kept: Metric,
    /// Weights outside of the pool.
    pub(super) outside: Metric,
    /// What else the process has: its context, its kernels, and whatever it allocates itself; and
    /// when that was so. `None` where NVML does not tell.
    pub(super) context: Option<Dated<Metric>>,
    /// What other processes have: what is used, less all of the above.
    pub(super) others: Metric,
    /// What those two have together, which is known of more often.
    pub(super) besides: Metric,
    /// What the driver keeps for itself; absent where the total is without it.
    pub(super) reserved: Option<Metric>,
}

const MIG: &str = "partitioned (MIG), and NVML counts all of the GPU";

/// The account of a tier's device; `None` where it has no driver.
pub(super) fn account<'a>(state: &'a State, tier: &'a TierPicture) -> Option<Account<'a>> {
    let figures = tier.device.as_deref()?;
    let seen = state.vitals.vram.value.iter();
    let seen = seen.into_iter().find(|gpu| is_of(gpu, tier));
    let but = seen.and_then(|gpu| match gpu.mig {
        true => Some(MIG),
        false => gpu.absent.as_deref(),
    });
    let gpu = seen.filter(|_| but.is_none());
    let (total, reserved) = match gpu {
        Some(gpu) => {
            let reserved = Some(gpu.reserved).filter(|bytes| !bytes.is_unavailable());
            (gpu.total, reserved)
        }
        None => (figures.total, None),
    };
    // The device's driver was asked later.
    let seen = gpu.map_or(Metric::Unavailable, |gpu| gpu.free);
    let free = match figures.free {
        Metric::Unavailable => seen,
        free => free,
    };
    let used = total
        .minus_saturating(reserved.unwrap_or(Metric::Exact(0)))
        .minus_saturating(free);
    let own = figures.pool_reserved.plus(figures.outside);
    let besides = used.minus_saturating(own).at_best(Grade::Estimated);
    let told = gpu.filter(|gpu| !gpu.process.is_unavailable());
    let context = told.map(|gpu| match state.contexts.get(&tier.tier) {
        Some(known) => known.clone(),
        None => Dated {
            at_us: state.at_us,
            value: beside(gpu, figures),
        },
    });
    let context = context.map(|dated| Dated {
        value: at_most(dated.value, besides),
        ..dated
    });
    let value = context.as_ref().map_or(Metric::Unavailable, |it| it.value);
    Some(Account {
        figures,
        but,
        total,
        free,
        tensors: figures.pool_used,
        kept: figures.pool_reserved.minus_saturating(figures.pool_used),
        outside: figures.outside,
        others: besides.minus_saturating(value),
        context,
        besides,
        reserved,
    })
}

/// The lesser, where both are known.
fn at_most(metric: Metric, most: Metric) -> Metric {
    match (metric.bytes(), most.bytes()) {
        (Some(bytes), Some(most)) => Metric::graded(bytes.min(most), metric.grade()),
        _ => metric,
    }
}

#[cfg(test)]
mod tests {
    use malloc_stats::{Snapshot, Vram};
    use plimsoll_events::{Event, Kind, Picture, VERSION};
    use proptest::prelude::*;

    use super::*;

    const GIB: u64 = 1 << 30;

    fn state(figures: DeviceFigures, gpu: Option<Vram>) -> State {
        let mut state = State::default();
        state.tiers = vec![TierPicture {
            tier: "cuda:0".to_owned(),
            device: Some(Box::new(figures)),
            ..TierPicture::default()
        }];
        state.vitals.vram.value.extend(gpu);
        state
    }

    fn figures(total: u64, free: u64, used: u64, reserved: u64, outside: u64) -> DeviceFigures {
        DeviceFigures {
            pci_bus: "0000:AF:00.0".to_owned(),
            total: Metric::Exact(total),
            free: Metric::Exact(free),
            pool_used: Metric::Exact(used),
            pool_reserved: Metric::Exact(reserved),
            outside: Metric::Exact(outside),
            ..DeviceFigures::default()
        }
    }

    fn gpu(used: u64, reserved: u64, free: u64, process: Metric) -> Vram {
        Vram {
            pci_bus: "0000:af:00.0".to_owned(),
            total: Metric::Exact(used + reserved + free),
            used: Metric::Exact(used),
            reserved: Metric::Exact(reserved),
            free: Metric::Exact(free),
            process,
            ..Vram::default()
        }
    }

    fn sum(account: &Account<'_>) -> Option<u64> {
        let ours = account.tensors.plus(account.kept).plus(account.outside);
        let all = match &account.context {
            None => ours.plus(account.besides),
            Some(context) => ours.plus(context.value).plus(account.others),
        };
        let driver = account.reserved.unwrap_or(Metric::Exact(0));
        all.plus(driver).plus(account.free).bytes()
    }

    #[test]
    fn without_nvml_what_is_not_the_caches_is_one_sum() {
        let state = state(figures(80 * GIB, 60 * GIB, 10 * GIB, 12 * GIB, GIB), None);
        let account = account(&state, &state.tiers[0]).unwrap();
        assert_eq!(account.context, None);
        assert_eq!(account.others, Metric::Unavailable);
        assert_eq!(account.besides, Metric::Estimated(7 * GIB));
        assert_eq!(sum(&account), Some(80 * GIB));
    }

    #[test]
    fn another_gpu_a_lost_one_and_a_partitioned_one_are_not_counted_by() {
        let own = figures(80 * GIB, 60 * GIB, 10 * GIB, 12 * GIB, GIB);
        let seen = gpu(9 * GIB, GIB, 10 * GIB, Metric::Exact(GIB));
        let other = Vram {
            pci_bus: String::new(),
            ..seen.clone()
        };
        let lost = Vram {
            absent: Some("GPU is lost".to_owned()),
            ..seen.clone()
        };
        let mig = Vram { mig: true, ..seen };
        for (gpu, but) in [(other, None), (lost, Some("GPU is lost")), (mig, Some(MIG))] {
            let state = state(own.clone(), Some(gpu));
            let account = account(&state, &state.tiers[0]).unwrap();
            assert_eq!((account.context, account.reserved), (None, None));
            assert_eq!((account.but, account.total), (but, Metric::Exact(80 * GIB)));
        }
        let bare = TierPicture::default();
        assert!(account(&State::default(), &bare).is_none());
    }

    #[test]
    fn while_models_move_the_context_stays_as_it_was_seen() {
        let gpus = |process| vec![gpu(20 * GIB, GIB, 59 * GIB, Metric::Exact(process))];
        let picture = |free, used| {
            let device = figures(79 * GIB, free, used, used, 0);
            let state = state(device, None);
            Kind::Picture(Box::new(Picture {
                tiers: state.tiers,
                ..Picture::default()
            }))
        };
        let mut state = State::default();
        let mut seq = 0;
        let mut tell = |state: &mut State, at_us, kind| {
            let v = VERSION;
            state.fold(&Event {
                v,
                seq,
                at_us,
                kind,
            });
            seq += 1;
        };
        let mut sample = Snapshot::default();
        sample.process.rss = Metric::Exact(GIB);
        sample.vram = gpus(13 * GIB);
        tell(&mut state, 1_000_000, Kind::Pulse(Box::new(sample)));
        tell(&mut state, 1_000_900, picture(59 * GIB, 12 * GIB));
        // A second later 10 GiB are gone, and NVML was not asked again.
        tell(&mut state, 2_000_900, picture(69 * GIB, 2 * GIB));
        let account = account(&state, &state.tiers[0]).unwrap();
        let context = account.context.as_ref().unwrap();
        assert_eq!(context.value, Metric::Estimated(GIB));
        assert_eq!(context.at_us, 1_000_900);
        assert_eq!(account.others, Metric::Estimated(7 * GIB));
        assert_eq!(account.free, Metric::Exact(69 * GIB));
        assert_eq!(sum(&account), Some(80 * GIB));
    }

    proptest! {
        #[test]
        fn what_is_known_adds_up_to_the_total(
            (pool, kept, outside) in (0..GIB, 0..GIB, 0..GIB),
            (context, others) in (0..GIB, 0..GIB),
            (driver, free) in (0..GIB, 0..GIB),
            told: bool,
            // Less than there is: NVML was read before.
            behind in 0..GIB,
        ) {
            let own = pool + kept + outside;
            let used = own + context + others;
            let seen = (own + context).saturating_sub(behind);
            let process = if told { Metric::Exact(seen) } else { Metric::Unavailable };
            let total = used + free;
            let figures = figures(total, free, pool, pool + kept, outside);
            let state = state(figures, Some(gpu(used, driver, free, process)));
            let account = account(&state, &state.tiers[0]).unwrap();
            prop_assert_eq!(sum(&account), Some(total + driver));
            prop_assert_eq!(account.total, Metric::Exact(total + driver));
            if told && behind == 0 {
                let told = account.context.as_ref().map(|it| it.value);
                prop_assert_eq!(told, Some(Metric::Estimated(context)));
                prop_assert_eq!(account.others, Metric::Estimated(others));
            }
        }
    }
}
