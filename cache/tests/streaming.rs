//! Models that go to a device though RAM has no room for them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use plimsoll_cache::device::{Device, Simulated};
use plimsoll_cache::{Cache, Cpu, Error, LoadObserver, Model, Storage, Tier};
use plimsoll_events::{Event, Kind, Sink, Stream};
use support::{Folder, MIB, cache, verify_on};

#[global_allocator]
static ALLOCATOR: plimsoll_profiles::Selected = plimsoll_profiles::Selected;

/// Looks at the cache whenever it tells of something.
#[derive(Default)]
struct Watch {
    cache: OnceLock<Cache>,
    tiers: Mutex<Vec<Tier>>,
    looks: AtomicU64,
}

impl Watch {
    /// What exists is counted, at this moment.
    fn look(&self) {
        let Some(cache) = self.cache.get() else {
            return;
        };
        let picture = cache.residency();
        for tier in &picture.tiers {
            let places = picture.models.iter().flat_map(|model| &model.places);
            let there = places.filter(|place| place.tier == tier.tier);
            let charged: u64 = there.map(|place| place.charged_bytes).sum();
            assert!(
                tier.used_bytes >= charged + tier.held_bytes,
                "{} of {charged} counted: {picture:?}",
                tier.used_bytes
            );
            assert!(tier.used_bytes <= tier.budget_bytes, "{picture:?}");
        }
        for tier in self.tiers.lock().unwrap().iter() {
            let usage = cache.usage_of(*tier).unwrap();
            assert!(usage.pinned_bytes <= usage.used_bytes);
        }
        self.looks.fetch_add(1, Ordering::Relaxed);
    }
}

impl Sink for Watch {
    fn event(&self, event: &Event) {
        if matches!(event.kind, Kind::Load(_) | Kind::Evict(_)) {
            self.look();
        }
    }
}

impl LoadObserver for Watch {
    fn bytes_read(&self, _: u64) {
        self.look();
    }
}

#[test]
fn a_model_that_was_evicted_from_ram_is_leased_on_a_device_by_its_old_handle() {
    for keep in [true, false] {
        let folder = Folder::new();
        let (a, b) = (folder.model("a", 5 * MIB), folder.model("b", 5 * MIB));
        let device = Simulated::new(12 * MIB);
        let tier = device.tier();
        let watch = Arc::new(Watch::default());
        let cache = Cache::builder()
            .ram(8 * MIB)
            .device(device, 12 * MIB)
            .keep_ram_copy(keep)
            .observer(Arc::clone(&watch) as Arc<dyn LoadObserver>)
            .stream(Stream::new(Arc::clone(&watch)))
            .build()
            .unwrap();
        watch.tiers.lock().unwrap().extend([Tier::RAM, tier]);
        let _ = watch.cache.set(cache.clone());
        verify_on(&cache.lease([a.on(Cpu)]).unwrap(), &a, Tier::RAM);
        let held = cache.lease([b.on(Cpu)]).unwrap();
        verify_on(&held, &b, Tier::RAM);
        assert_eq!(
            cache.usage().resident_models,
            1,
            "b has taken the room of a"
        );
        // RAM is full of what is leased, so a goes through staging.
        let lease = cache.lease([a.on(tier)]).unwrap();
        verify_on(&lease, &a, tier);
        drop((held, lease));
        // And now through RAM, or not, as copies are kept.
        assert!(cache.evict(&a));
        verify_on(&cache.lease([a.on(tier)]).unwrap(), &a, tier);
        verify_on(&cache.lease([a.on(Cpu)]).unwrap(), &a, Tier::RAM);
        assert!(watch.looks.load(Ordering::Relaxed) > 6);
    }
}

/// A model of zeros, sparse on the disk, with bytes here and there that tell where they are.
fn sparse(folder: &Path, name: &str, tensors: u64, each: u64) -> Model {
    let header: serde_json::Map<String, serde_json::Value> = (0..tensors)
        .map(|n| {
            let place = serde_json::json!({
                "dtype": "U8", "shape": [each], "data_offsets": [n * each, (n + 1) * each],
            });
            (format!("t{n:03}"), place)
        })
        .collect();
    let header = serde_json::Value::Object(header).to_string();
    let path = folder.join(format!("{name}.safetensors"));
    let file = std::fs::File::create(&path).unwrap();
    file.write_all_at(&(header.len() as u64).to_le_bytes(), 0)
        .unwrap();
    file.write_all_at(header.as_bytes(), 8).unwrap();
    let data = 8 + header.len() as u64;
    file.set_len(data + tensors * each).unwrap();
    for at in marks(tensors * each) {
        file.write_all_at(&mark(at), data + at).unwrap();
    }
    Model::open(path).unwrap()
}

fn marks(bytes: u64) -> impl Iterator<Item = u64> {
    (0..bytes - 8).step_by(1_000_003)
}

fn mark(at: u64) -> [u8; 8] {
    (at + 1).to_be_bytes()
}

/// Whether the marks of a sparse model are where they were made, over the borders of tensors too.
fn verify_marks(lease: &plimsoll_cache::Lease, model: &Model) {
    let weights = lease.get(model).unwrap();
    let each = model.tensors()[0].bytes;
    let mut tensor = (u64::MAX, None);
    for at in marks(model.bytes()) {
        for (byte, wanted) in (at..).zip(mark(at)) {
            if tensor.0 != byte / each {
                let name = format!("t{:03}", byte / each);
                tensor = (byte / each, Some(weights.bytes(&name).unwrap()));
            }
            assert_eq!(
                tensor.1.as_ref().unwrap()[(byte % each) as usize],
                wanted,
                "at {byte}"
            );
        }
    }
}

/// The most of RAM that counted while files were read.
#[derive(Default)]
struct Most {
    cache: OnceLock<Cache>,
    used: AtomicU64,
    staging: AtomicU64,
    read: AtomicU64,
}

impl LoadObserver for Most {
    fn bytes_read(&self, bytes: u64) {
        let usage = self.cache.get().unwrap().usage();
        assert_eq!(usage.used_bytes, usage.staging_bytes, "nothing but staging");
        self.used.fetch_max(usage.used_bytes, Ordering::Relaxed);
        self.staging
            .fetch_max(usage.staging_bytes, Ordering::Relaxed);
        self.read.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Leases a model that RAM cannot hold, and returns the most that counted there meanwhile.
fn stream_through(ram: u64, model: &Model) -> u64 {
    let device = Simulated::new(1 << 30);
    let tier = device.tier();
    let most = Arc::new(Most::default());
    let (cache, kept) = cache(|builder| {
        let observer = Arc::clone(&most) as Arc<dyn LoadObserver>;
        builder.ram(ram).device(device, 1 << 30).observer(observer)
    });
    let _ = most.cache.set(cache.clone());
    let error = cache.lease([model.on(Cpu)]).unwrap_err();
    assert!(
        matches!(&error, Error::ExceedsBudget { tier, .. } if tier == "ram"),
        "{error}"
    );
    let lease = cache.lease([model.on(tier)]).unwrap();
    verify_marks(&lease, model);
    assert_eq!(cache.usage().used_bytes, 0, "nothing of it stays in RAM");
    assert_eq!(
        kept.loads(),
        [format!("{} in simulated from File", model.name())]
    );
    assert_eq!(most.read.load(Ordering::Relaxed), model.bytes());
    most.staging.load(Ordering::Relaxed)
}

#[test]
fn a_model_larger_than_ram_streams_through_a_bounded_buffer() {
    let folder = Folder::new();
    let model = sparse(folder.path(), "large", 15, 32 * MIB);
    assert_eq!(model.bytes(), 480 * MIB);
    let staging = stream_through(400 * MIB, &model);
    assert!(staging > 0 && staging <= 8 * MIB, "{staging}");
}

#[test]
fn the_buffer_is_smaller_where_ram_is() {
    let folder = Folder::new();
    let model = sparse(folder.path(), "large", 7, 2 * MIB + 77_777);
    for ram in [MIB, 200 << 10, 128 << 10] {
        let staging = stream_through(ram, &model);
        assert!(staging > 0 && staging <= ram, "{staging} of {ram}");
    }
}

#[test]
fn ram_too_small_for_any_buffer_is_told() {
    let folder = Folder::new();
    let model = sparse(folder.path(), "large", 7, MIB);
    let device = Simulated::new(64 * MIB);
    let tier = device.tier();
    let (cache, _) = cache(|builder| builder.ram((128 << 10) - 1).device(device, 64 * MIB));
    let error = cache.lease([model.on(tier)]).unwrap_err();
    assert!(
        matches!(&error, Error::ExceedsBudget { tier, asked, .. }
            if tier == "ram" && *asked == 128 << 10),
        "{error}"
    );
    // What is smaller than a buffer needs no more than itself.
    let small = folder.model("small", 50_000);
    verify_on(&cache.lease([small.on(tier)]).unwrap(), &small, tier);
}

/// Room that the lease itself takes in RAM is none for its buffer.
#[test]
fn ram_that_is_full_of_the_same_lease_is_told() {
    let folder = Folder::new();
    let (a, b) = (folder.model("a", 4 * MIB), folder.model("b", 5 * MIB));
    let device = Simulated::new(64 * MIB);
    let tier = device.tier();
    let ram = Storage::default().charge(&a);
    let (cache, _) = cache(|builder| builder.ram(ram).device(device, 64 * MIB));
    let long = Duration::from_secs(2);
    let error = cache
        .lease_timeout([a.on(Cpu), b.on(tier)], long)
        .unwrap_err();
    assert!(
        matches!(&error, Error::ExceedsBudget { tier, asked, .. }
            if tier == "ram" && *asked == ram + (128 << 10)),
        "{error}"
    );
    // What is leased in RAM is the source of the device, and needs no buffer.
    let lease = cache.lease_timeout([a.on(Cpu), a.on(tier)], long).unwrap();
    verify_on(&lease, &a, tier);
}

#[test]
fn streams_at_the_same_time_share_ram_that_has_room_for_one() {
    let folder = Folder::new();
    let models = ["a", "b", "c"].map(|name| sparse(folder.path(), name, 3, MIB + 9999));
    let device = Simulated::new(64 * MIB);
    let tier = device.tier();
    let (cache, _) = cache(|builder| builder.ram(200 << 10).device(device, 64 * MIB));
    std::thread::scope(|scope| {
        for model in &models {
            let cache = &cache;
            scope.spawn(move || {
                for _ in 0..5 {
                    verify_marks(&cache.lease([model.on(tier)]).unwrap(), model);
                    assert!(cache.usage().used_bytes <= 200 << 10);
                    let _ = cache.evict(model);
                }
            });
        }
    });
    assert_eq!(cache.usage().used_bytes, 0);
}

/// Reading fails, as on a broken disk.
struct Broken;

impl LoadObserver for Broken {
    fn before_read(&self, _: &Path, _: u64, _: u64) -> std::io::Result<()> {
        Err(std::io::Error::other("the disk is broken"))
    }
}

#[test]
fn a_read_that_fails_on_the_way_to_a_device_is_the_error_of_the_lease() {
    for keep in [true, false] {
        let folder = Folder::new();
        let a = folder.model("a", 3 * MIB);
        let device = Simulated::new(12 * MIB);
        let tier = device.tier();
        let (cache, _) = cache(|builder| {
            let builder = builder.ram(8 * MIB).device(device, 12 * MIB);
            builder.keep_ram_copy(keep).observer(Arc::new(Broken))
        });
        let (told, result) = std::sync::mpsc::channel();
        let (there, wanted) = (cache.clone(), a.clone());
        std::thread::spawn(move || told.send(there.lease([wanted.on(tier)]).map(drop)));
        let result = result.recv_timeout(Duration::from_secs(10));
        let error = result.expect("the lease goes on for ever").unwrap_err();
        assert!(error.to_string().contains("the disk is broken"), "{error}");
        for tier in [Tier::RAM, tier] {
            assert_eq!(cache.usage_of(tier).unwrap().used_bytes, 0);
        }
    }
}
