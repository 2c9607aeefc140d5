//! A trace of transfers and computing, as a viewer reads it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use plimsoll_cache::device::{Device, Link, Simulated};
use plimsoll_cache::observe::{Trace, Transferred};
use plimsoll_cache::{Cache, LoadObserver, Partial};
use safetensors::Dtype;
use serde_json::Value;

use super::files::{File, folder};
use super::models::layers;
use super::support::MIB;

fn events(trace: &Trace) -> Vec<Value> {
    let mut written = Vec::new();
    trace.write(&mut written).unwrap();
    serde_json::from_slice(&written).unwrap()
}

#[derive(Default)]
struct Counting(AtomicU64);

impl LoadObserver for Counting {
    fn transferred(&self, transferred: &Transferred<'_>) {
        self.0.fetch_add(transferred.bytes, Ordering::Relaxed);
    }
}

#[test]
fn transfers_lie_under_what_is_computed_meanwhile() {
    let folder = folder();
    let model = layers(&folder, "m", 16, 512);
    let gpu = Simulated::new(64 * MIB).link(Link {
        bytes_per_second: Some(4e9),
        latency: Duration::ZERO,
    });
    let gpu = Arc::new(gpu);
    let besides = Arc::new(Counting::default());
    let trace = Arc::new(Trace::new().and(besides.clone()));
    let cache = Cache::builder()
        .ram(64 * MIB)
        .device(Arc::clone(&gpu), gpu.charge(&model) / 2)
        .observer(trace.clone())
        .build()
        .unwrap();
    let lease = cache
        .lease([model.on(&*gpu).partial(Partial::default())])
        .unwrap();
    let leased = lease.get(&model).unwrap();
    for _ in 0..3 {
        for tensor in model.tensors() {
            let weights = leased.tensor(&tensor.name).unwrap();
            let _span = trace.span("compute", &tensor.name);
            // Longer than any transfer, also in a build that is not optimised.
            let began = Instant::now();
            while began.elapsed() < Duration::from_millis(4) {
                std::hint::black_box(weights.sum_all().unwrap());
            }
        }
    }
    let residency = leased.residency();
    drop(lease);
    let overlap = trace.overlap();
    println!("{overlap:?} {:.2} {residency:?}", overlap.share());
    assert!(overlap.transfers > Duration::from_millis(1));
    // Fetched only when they are asked for, none of them would.
    assert!(overlap.share() > 0.1, "{overlap:?}");

    let events = events(&trace);
    let of = |phase: &str, category: Option<&str>| {
        let phase = phase.to_owned();
        let category = category.map(str::to_owned);
        events
            .iter()
            .filter(move |one| one["ph"] == *phase)
            .filter(move |one| one.get("cat").and_then(Value::as_str) == category.as_deref())
            .collect::<Vec<_>>()
    };
    let transfers = of("X", Some("transfer"));
    let bytes = transfers
        .iter()
        .map(|one| one["args"]["bytes"].as_u64().unwrap());
    let bytes: u64 = bytes.sum();
    assert_eq!(bytes, besides.0.load(Ordering::Relaxed));
    assert!(bytes >= residency.streamed_bytes && bytes > model.bytes());
    assert_eq!(of("X", Some("compute")).len(), 3 * model.tensors().len());
    let names: Vec<_> = of("M", None)
        .into_iter()
        .map(|one| (one["tid"].clone(), one["args"]["name"].as_str().unwrap()))
        .collect();
    assert!(
        names
            .iter()
            .any(|one| one.1 == "transfers of m to simulated")
    );
    assert!(
        names.iter().any(|one| one.1.starts_with("thread ")),
        "{names:?}"
    );
    // Every event is on a line with a name, and has a beginning and a length.
    for event in events.iter().filter(|one| one["ph"] == "X") {
        assert!(names.iter().any(|one| one.0 == event["tid"]), "{event}");
        assert!(event["ts"].as_f64().unwrap() >= 0.0 && event["dur"].as_f64().unwrap() >= 0.0);
        assert!(event["pid"].is_u64());
    }
}

#[test]
fn hostile_names_stay_text_and_memory_is_bounded() {
    let folder = folder();
    let names = [
        "\"},{\"ph\":\"X",
        "a\u{0}\u{1b}[31m\n\\",
        "\u{202e}right to left",
    ];
    let long = "x".repeat(100_000);
    let mut file = File::new();
    for name in names.iter().copied().chain([&*long, "last"]) {
        let numbers = vec![0.5; 32 << 10];
        file = file.with(name, Dtype::F32, &[128, 256], &numbers);
    }
    let model = file.model(&folder, "m");
    let gpu = Arc::new(Simulated::new(64 * MIB));
    let trace = Arc::new(Trace::new().at_most(12));
    let cache = Cache::builder()
        .ram(64 * MIB)
        .device(Arc::clone(&gpu), gpu.charge(&model) * 7 / 10)
        .observer(trace.clone())
        .build()
        .unwrap();
    let lease = cache
        .lease([model.on(&*gpu).partial(Partial::default())])
        .unwrap();
    for _ in 0..20 {
        for tensor in model.tensors() {
            drop(lease.get(&model).unwrap().tensor(&tensor.name).unwrap());
            let _span = trace.span("compute", &tensor.name);
        }
    }
    drop(lease);
    let events = events(&trace);
    assert_eq!(events.iter().filter(|one| one["ph"] == "X").count(), 12);
    assert!(trace.missed() > 20);
    for event in &events {
        assert!(event.to_string().len() < 1000, "{event}");
    }
    for name in names {
        assert!(events.iter().any(|one| one["name"] == name), "{name:?}");
    }
}

#[test]
fn a_trace_of_nothing_is_one() {
    let trace = Trace::new();
    assert!(events(&trace).is_empty());
    assert!((trace.overlap().share() - 1.0).abs() < f64::EPSILON);
}

#[test]
fn the_panic_of_another_observer_leaves_the_trace_as_it_was() {
    let trace = Trace::new();
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _span = trace.span("compute", "a");
        panic!("within");
    }));
    assert!(ended.is_err());
    assert_eq!(
        events(&trace)
            .iter()
            .filter(|one| one["name"] == "a")
            .count(),
        1
    );
}
