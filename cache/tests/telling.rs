//! Who hears what a cache does.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use plimsoll_cache::device::{Device, Simulated};
use plimsoll_cache::{BuildError, Cache};
use plimsoll_events::{Heard, Kind, Received, connect};
use support::{Folder, MIB};

#[global_allocator]
static ALLOCATOR: plimsoll_profiles::Selected = plimsoll_profiles::Selected;

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_live_screen_hears_first_where_everything_is_and_then_what_happens() {
    let folder = Folder::new();
    let (a, b) = (folder.model("a", MIB), folder.model("b", MIB));
    let device = Simulated::new(8 * MIB);
    let gpu = device.tier();
    let cache = Cache::builder()
        .ram(8 * MIB)
        .device(device, 4 * MIB)
        .build()
        .unwrap();
    let lease = cache.lease([a.on(gpu)]).unwrap();
    let path = folder.path().join("live.sock");
    let published = cache.publish(Some(path.clone())).unwrap();
    let mut screen = connect(&path).unwrap();
    let mut next = || match screen.next_within(PATIENCE).unwrap() {
        Heard::Event(event) => event.kind,
        other => panic!("{other:?}"),
    };
    let Kind::Opened(opened) = next() else {
        panic!("it begins with who it is");
    };
    assert_eq!(opened.pid, std::process::id());
    assert_eq!(opened.budget_bytes, Some(8 * MIB));
    assert!(opened.devices[0].simulated && opened.devices[0].tier == "simulated");
    let Kind::Sample(sample) = next() else {
        panic!("then how its memory is");
    };
    assert_eq!(sample.memory.live_bytes, 2 * cache.usage().used_bytes);
    let Kind::Picture(picture) = next() else {
        panic!("then where everything is");
    };
    let places = &picture.models[0].places;
    let on_device = places
        .iter()
        .find(|place| place.tier == "simulated")
        .unwrap();
    assert_eq!(
        (on_device.phase.as_str(), on_device.leases),
        ("resident", 1)
    );
    drop(cache.lease([&b]).unwrap());
    loop {
        if let Kind::Load(load) = next() {
            assert_eq!((load.model.as_str(), load.tier.as_str()), ("b", "ram"));
            break;
        }
    }
    drop(lease);
    drop(published);
    assert!(!path.exists(), "removed when it ends");
}

#[test]
fn a_subscriber_that_never_reads_holds_nobody_up_and_learns_what_it_missed() {
    let folder = Folder::new();
    let models = [0, 1, 2].map(|index| folder.model(&format!("m{index}"), MIB));
    let cache = Cache::builder().ram(2 * MIB).build().unwrap();
    let subscription = cache.subscribe(2);
    for round in 0..20 {
        drop(cache.lease([&models[round % 3]]).unwrap());
    }
    let mut events = 0;
    let mut dropped = 0;
    while let Ok(received) = subscription.try_recv() {
        match received {
            Received::Event(_) => events += 1,
            Received::Dropped(count) => dropped += count,
        }
    }
    assert_eq!(events, 2, "no more than its capacity waited");
    assert_eq!(dropped, subscription.dropped());
    assert!(dropped > 30, "twenty loads, and nearly as many evictions");
}

#[test]
fn two_devices_that_events_could_not_tell_apart_are_refused() {
    let build = |second: Simulated| {
        Cache::builder()
            .device(Simulated::new(MIB), MIB)
            .device(second, MIB)
            .build()
    };
    let refused = build(Simulated::new(MIB)).unwrap_err();
    assert!(matches!(refused, BuildError::SameName { .. }), "{refused}");
    build(Simulated::new(MIB).named("two")).unwrap();
    let one = Arc::new(Simulated::new(MIB));
    let twice = Cache::builder()
        .device(Arc::clone(&one), MIB)
        .device(one, MIB)
        .build();
    assert!(matches!(twice, Err(BuildError::Twice { .. })));
}
