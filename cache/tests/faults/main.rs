//! Whatever fails, again and again: the error says what and where, everything is given back, and
//! the next lease works.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod devices;
mod files;
mod panics;
mod stuck;
#[path = "../support/mod.rs"]
mod support;
mod tasks;
mod unread;

use std::sync::Arc;
use std::time::{Duration, Instant};

use plimsoll_cache::device::{Device, Simulated};
use plimsoll_cache::{Builder, Cache, Error, Model, Tier, Wanted};
use support::verify;

#[global_allocator]
static ALLOCATOR: plimsoll_profiles::Selected = plimsoll_profiles::Selected;

/// How often each fault comes.
const ROUNDS: usize = 100;

/// What nothing here takes: beyond it a test hangs.
const SOON: Duration = Duration::from_secs(30);

const KIB: u64 = 1 << 10;

/// Whether a device is loaded from the copy in RAM, or from the files for want of room there.
#[derive(Debug, Clone, Copy)]
enum Way {
    Copy,
    Stream,
}

impl Way {
    const ALL: [Way; 2] = [Way::Copy, Way::Stream];

    /// The budget of RAM that makes it so, for models of 310 to 400 KiB: two of them can be
    /// streamed at once.
    fn ram(self) -> u64 {
        match self {
            Way::Copy => 4096 * KIB,
            Way::Stream => 300 * KIB,
        }
    }
}

/// A cache with a device that has room for two or three models, and an account of all that happens.
fn on_device(
    way: Way,
    set: impl FnOnce(Builder) -> Builder,
) -> (Cache, Arc<Simulated>, Arc<support::Kept>) {
    let device = Arc::new(Simulated::new(1024 * KIB));
    let (cache, kept) = support::cache(|builder| {
        set(builder
            .ram(way.ram())
            .device(Arc::clone(&device), 1024 * KIB))
    });
    (cache, device, kept)
}

/// Whether what counts in each tier is what is there, and no lease holds or waits for any of it.
fn balances(cache: &Cache) {
    let picture = cache.residency();
    for tier in &picture.tiers {
        let places = picture.models.iter().flat_map(|model| &model.places);
        let here: Vec<_> = places.filter(|place| place.tier == tier.tier).collect();
        assert!(
            here.iter()
                .all(|place| place.phase == "resident" && place.leases == 0)
        );
        let charged: u64 = here.iter().map(|place| place.charged_bytes).sum();
        assert_eq!(tier.used_bytes, charged, "{}", tier.tier);
        let besides = (
            tier.pinned_bytes,
            tier.held_bytes,
            tier.staging_bytes,
            tier.working_bytes,
        );
        assert_eq!(besides, (0, 0, 0, 0), "{}", tier.tier);
    }
}

/// Whether everything is given back and can be leased again, with the right bytes.
fn is_whole(cache: &Cache, device: Option<&Arc<Simulated>>, models: &[&Model]) {
    assert_eq!(cache.clear().leased, []);
    balances(cache);
    let tiers = [Some(Tier::RAM), device.map(|device| device.tier())];
    for tier in tiers.into_iter().flatten() {
        let usage = cache.usage_of(tier).unwrap();
        assert_eq!((usage.used_bytes, usage.recyclable_bytes), (0, 0));
    }
    if let Some(device) = device {
        let memory = device.memory();
        assert_eq!(memory.free, memory.total, "the device has all of it back");
    }
    for model in models {
        let wanted = device.map_or_else(|| model.on(Tier::RAM), |device| model.on(&**device));
        lease(cache, wanted, model).unwrap();
    }
    balances(cache);
}

/// Waits until threads that load for others have ended, and let go of what they needed for it.
fn settle(cache: &Cache) {
    let started = Instant::now();
    loop {
        let picture = cache.residency();
        let is_moving = picture.models.iter().any(|model| {
            let mut places = model.places.iter();
            model.dropped || places.any(|place| place.phase != "resident" || place.leases > 0)
        });
        if !is_moving && picture.tiers.iter().all(|tier| tier.pinned_bytes == 0) {
            return;
        }
        assert!(started.elapsed() < SOON, "{picture:?}");
        std::thread::yield_now();
    }
}

/// Leases a model, looks at every byte of it, and lets it go.
fn lease(cache: &Cache, wanted: Wanted<'_>, model: &Model) -> Result<(), Error> {
    let lease = cache.lease([wanted])?;
    verify(&lease, model);
    Ok(())
}

/// Whether an error says all of this.
fn says(error: &Error, all: &[&str]) {
    let text = error.to_string();
    for one in all {
        assert!(text.contains(one), "`{one}` is missing in: {text}");
    }
    assert!(
        text.chars().any(|one| one.is_ascii_digit()),
        "no numbers in: {text}"
    );
}
