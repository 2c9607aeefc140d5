//! What a cache tells on a clock, and that it has no clock while nobody is there. One test: it
//! looks for a thread by its name.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use plimsoll_cache::device::{Device, Simulated};
use plimsoll_cache::{Cache, Storage};
use plimsoll_events::{Follow, Heard, Kind, Point, Received, Sample, Stream, connect};
use support::{Folder, MIB, until};

#[global_allocator]
static ALLOCATOR: plimsoll_profiles::Selected = plimsoll_profiles::Selected;

fn ticks() -> bool {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    threads.flatten().any(|thread| {
        let name = std::fs::read_to_string(thread.path().join("comm"));
        name.is_ok_and(|name| name.trim_end() == "plimsoll-ticks")
    })
}

fn next(follow: &mut Follow) -> Kind {
    match follow.next_within(Duration::from_secs(30)).unwrap() {
        Heard::Event(event) => event.kind,
        other => panic!("{other:?}"),
    }
}

fn tick(follow: &mut Follow) -> Sample {
    loop {
        if let Kind::Sample(sample) = next(follow) {
            return *sample;
        }
    }
}

#[test]
fn a_clock_ticks_for_all_while_a_screen_is_there_and_is_gone_when_the_last_leaves() {
    let folder = Folder::new();
    let [a, b] = ["a", "b"].map(|name| folder.model(name, MIB));
    let device = Simulated::new(8 * MIB);
    let gpu = device.tier();
    let cache = Cache::builder()
        .ram(8 * MIB)
        .storage(Storage::Anonymous)
        .device(device, 8 * MIB)
        .build()
        .unwrap();
    let path = folder.path().join("s.sock");
    let published = cache.publish(Some(path.clone())).unwrap();
    let heard = cache.subscribe(4096);
    assert!(!ticks(), "nobody is there");
    drop(cache.lease([a.on(gpu), (&b).into()]).unwrap());
    drop(cache.lease([&b]).unwrap());

    let mut screens = [(); 2].map(|()| connect(&path).unwrap());
    for screen in &mut screens {
        assert!(matches!(next(screen), Kind::Opened(_)));
        let greeted = tick(screen);
        let first = tick(screen);
        assert_eq!(first.point, Point::Tick);
        let usage = |tier| cache.usage_of(tier).unwrap().used_bytes;
        let live = cache.usage().used_bytes + usage(gpu);
        assert_eq!(
            first.memory.live_bytes, live,
            "a simulated device is memory of this host"
        );
        assert_eq!(greeted.memory, first.memory);
        assert!(matches!(next(screen), Kind::Picture(_)));
    }
    assert!(ticks());
    let [one, mut two] = screens;
    drop(one);
    tick(&mut two);
    drop(two);
    until("the clock is gone", || !ticks());
    // All that was told to the screens was told to everybody: nothing comes after.
    let mut hits = 0;
    let (mut samples, mut pictures) = (0, 0);
    while let Ok(Received::Event(event)) = heard.try_recv() {
        match &event.kind {
            Kind::Sample(_) => samples += 1,
            Kind::Picture(_) => pictures += 1,
            Kind::Tally(tally) => hits += tally.hits.values().sum::<u64>(),
            _ => {}
        }
    }
    assert!(
        samples >= 2 && samples == pictures,
        "{samples} samples, {pictures} pictures"
    );
    assert_eq!(hits, 1, "what the fast path counted is told by the clock");

    let mut again = connect(&path).unwrap();
    tick(&mut again);
    tick(&mut again);
    assert!(ticks());
    drop(cache);
    assert!(!ticks(), "it ends with the cache");
    drop(published);

    // A program may have its own clock, which costs nothing while nobody hears.
    let stream = Stream::silent();
    let cache = Cache::builder()
        .stream(stream.clone())
        .ticks(Duration::from_millis(10))
        .build()
        .unwrap();
    until("there is a clock", ticks);
    let heard = stream.subscribe(64);
    for _ in 0..4 {
        assert!(matches!(heard.recv(), Some(Received::Event(_))));
    }
    drop(cache);
    assert!(!ticks());
}
