//! What is asked for that cannot be, and consumers that do as they like.

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use plimsoll_cache::device::{Device, Simulated};
use plimsoll_cache::{Cache, Error, Model, Partial};
use plimsoll_events::Kind;
use safetensors::Dtype;

use super::files::{File, folder};
use super::models::{compute, in_file_order, layers, shuffled};
use super::support::{MIB, cache};
use super::watch::on_device;

/// 24 units, a device for half of them.
fn world() -> (tempfile::TempDir, Model, Arc<Simulated>, Cache) {
    let folder = folder();
    let model = layers(&folder, "m", 24, 144);
    let gpu = Arc::new(Simulated::new(64 * MIB));
    let budget = gpu.charge(&model) / 2;
    let cache = Cache::builder()
        .ram(64 * MIB)
        .device(Arc::clone(&gpu), budget)
        .build()
        .unwrap();
    (folder, model, gpu, cache)
}

#[test]
fn what_cannot_be_is_refused_and_nothing_is_kept() {
    let (_folder, model, gpu, cache) = world();
    let refused = |partial: Partial| {
        let error = cache.lease([model.on(&*gpu).partial(partial)]).unwrap_err();
        assert_eq!(cache.usage_of(&*gpu).unwrap().used_bytes, 0, "{error}");
        error
    };
    for partial in [
        Partial::at_least(["l000.weight", "nothing"]),
        Partial::at_least(["nothing.*"]),
        Partial::default().in_order(["l001.bias", ""]),
    ] {
        let error = refused(partial);
        assert!(matches!(error, Error::NoTensor { .. }), "{error}");
    }
    let error = refused(Partial::at_least(["l0*"]).up_to(MIB));
    let Error::PartialTooSmall {
        asked, required, ..
    } = error
    else {
        panic!("{error}");
    };
    assert!(asked == MIB && required > MIB);
    let error = refused(Partial::default().up_to(4096));
    assert!(matches!(error, Error::PartialTooSmall { .. }), "{error}");
    let error = refused(Partial::default().pool(4096));
    let Error::PoolTooSmall {
        asked: 4096, least, ..
    } = error
    else {
        panic!("{error}");
    };
    assert!(least >= 144 * 144 * 4);
    for partial in [
        Partial::at_least(["*"]),
        Partial::default().pool(MIB * 32),
        Partial::default().pool(u64::MAX),
    ] {
        let error = refused(partial);
        assert!(matches!(error, Error::ExceedsBudget { .. }), "{error}");
    }
    // The most that is possible, said in any way.
    let all = Partial::default().up_to(u64::MAX).pool(least);
    let lease = cache.lease([model.on(&*gpu).partial(all)]).unwrap();
    assert!(lease.get(&model).unwrap().residency().resident_bytes > model.bytes() / 3);
}

#[test]
fn the_default_pool_is_smaller_where_there_is_no_more() {
    let (_folder, model, gpu, cache) = world();
    let usual = Partial::default();
    let lease = cache.lease([model.on(&*gpu).partial(usual)]).unwrap();
    let pool = lease.get(&model).unwrap().residency().pool_bytes;
    let first = lease.get(&model).unwrap().residency().charged_bytes;
    drop(lease);
    cache.clear();
    assert!(first > pool);
    let least = pool / 2;
    let little = Partial::default().up_to(2 * least + 4096);
    let lease = cache.lease([model.on(&*gpu).partial(little)]).unwrap();
    let residency = lease.get(&model).unwrap().residency();
    assert!(
        residency.pool_bytes < pool && residency.pool_bytes >= least,
        "{residency:?}"
    );
    assert!(residency.pool_bytes + residency.charged_bytes <= 2 * least + 4096);
    let order = in_file_order(&model);
    compute(&lease, &model, &order);
}

#[test]
fn another_order_than_the_one_declared_gives_the_same_and_is_said_once() {
    let folder = folder();
    let model = layers(&folder, "m", 24, 144);
    let order = shuffled(&model);
    let gpu = Arc::new(Simulated::new(64 * MIB));
    let budget = gpu.charge(&model) / 2;
    let (cache, kept) = cache(|builder| builder.ram(64 * MIB).device(Arc::clone(&gpu), budget));
    let roomy = Cache::builder().ram(64 * MIB).build().unwrap();
    let wanted = compute(&roomy.lease([&model]).unwrap(), &model, &order);
    let lease = cache
        .lease([model.on(&*gpu).partial(Partial::default())])
        .unwrap();
    for _ in 0..3 {
        assert_eq!(compute(&lease, &model, &order), wanted);
    }
    let residency = lease.get(&model).unwrap().residency();
    assert!(residency.out_of_order > 3, "{residency:?}");
    drop(lease);
    let kinds = kept.kinds();
    let notes = kinds
        .iter()
        .filter(|kind| matches!(kind, Kind::Note { .. }));
    assert_eq!(notes.count(), 1);
    let told = kinds.iter().find_map(|kind| match kind {
        Kind::Streamed(told) => Some(told),
        _ => None,
    });
    let told = told.unwrap();
    assert_eq!(told.out_of_order, residency.out_of_order);
    assert_eq!(told.pool_bytes, residency.pool_bytes);
}

#[test]
fn who_keeps_all_tensors_is_told_and_goes_on_once_they_are_dropped() {
    let (_folder, model, gpu, cache) = world();
    let lease = cache
        .lease([model.on(&*gpu).partial(Partial::default())])
        .unwrap();
    let leased = lease.get(&model).unwrap();
    let began = Instant::now();
    let mut all = Vec::new();
    let error = model
        .tensors()
        .iter()
        .find_map(|tensor| leased.tensor(&tensor.name).map(|one| all.push(one)).err());
    let Some(Error::PoolHeld {
        asked, pool, held, ..
    }) = error
    else {
        panic!("{error:?}");
    };
    assert!(
        asked <= pool && held <= pool && held + asked > pool,
        "{asked} {held} {pool}"
    );
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(on_device(&gpu) <= cache.usage_of(&*gpu).unwrap().budget_bytes);
    all.clear();
    let order = in_file_order(&model);
    compute(&lease, &model, &order);
    // Held beyond the end of the lease they count on.
    let kept: Vec<_> = ["l023.weight", "l023.bias"]
        .map(|name| leased.tensor(name).unwrap())
        .into();
    drop(lease);
    cache.clear();
    let usage = cache.usage_of(&*gpu).unwrap();
    assert!(
        usage.held_bytes > 0 && usage.used_bytes == usage.held_bytes,
        "{usage:?}"
    );
    assert_eq!(usage.used_bytes, on_device(&gpu));
    drop(kept);
    assert_eq!(cache.usage_of(&*gpu).unwrap().used_bytes, 0);
    assert_eq!(on_device(&gpu), 0);
}

#[test]
fn tensors_that_another_thread_drops_in_time_are_waited_for() {
    let (_folder, model, gpu, cache) = world();
    let partial = Partial::default();
    let lease = cache.lease([model.on(&*gpu).partial(partial)]).unwrap();
    let leased = lease.get(&model).unwrap();
    let (send, receive) = std::sync::mpsc::channel::<candle_core::Tensor>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while let Ok(tensor) = receive.recv() {
                std::thread::sleep(Duration::from_millis(5));
                drop(tensor);
            }
        });
        for tensor in model.tensors().iter().chain(model.tensors()) {
            send.send(leased.tensor(&tensor.name).unwrap()).unwrap();
        }
        drop(send);
    });
}

#[test]
fn models_of_no_tensor_of_one_and_of_only_empty_ones_are_leased_in_part() {
    let folder = folder();
    let none = File::new().model(&folder, "none");
    let one = File::new().zeros("only", &[100, 100]).model(&folder, "one");
    let empty = File::new()
        .with("a", Dtype::F32, &[0, 3], &[])
        .with("b", Dtype::F16, &[2, 0], &[])
        .model(&folder, "empty");
    let gpu = Arc::new(Simulated::new(64 * MIB));
    let cache = Cache::builder()
        .ram(MIB)
        .device(Arc::clone(&gpu), MIB)
        .build()
        .unwrap();
    for model in [&none, &one, &empty] {
        for partial in [
            Partial::default(),
            Partial::at_least(["*"][..model.tensors().len().min(1)].to_vec()),
        ] {
            let lease = cache.lease([model.on(&*gpu).partial(partial)]).unwrap();
            compute(&lease, model, &in_file_order(model));
            let residency = lease.get(model).unwrap().residency();
            assert_eq!(residency.resident_bytes, model.bytes());
            assert_eq!((residency.pool_bytes, residency.streamed_bytes), (0, 0));
        }
    }
    cache.clear();
    assert_eq!(on_device(&gpu), 0);
}

#[test]
fn sizes_beyond_all_numbers_are_refused() {
    const EACH: u64 = (1 << 61) - MIB;
    let Ok(folder) = tempfile::tempdir_in("/dev/shm") else {
        println!("skipped: no /dev/shm");
        return;
    };
    let path = folder.path().join("m.safetensors");
    let tensors = [0, 1, 2].map(|n| {
        let (at, end) = (n * EACH, (n + 1) * EACH);
        format!(r#""t{n}":{{"dtype":"U8","shape":[{EACH}],"data_offsets":[{at},{end}]}}"#)
    });
    let header = format!("{{{}}}", tensors.join(","));
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes())
        .unwrap();
    file.write_all(header.as_bytes()).unwrap();
    if file.set_len(8 + header.len() as u64 + 3 * EACH).is_err() {
        println!("skipped: no files of that size");
        return;
    }
    let model = Model::open(path).unwrap();
    let gpu = Arc::new(Simulated::new(u64::MAX));
    for budget in [MIB, u64::MAX] {
        let cache = Cache::builder()
            .ram(MIB)
            .device(Arc::clone(&gpu), budget)
            .build()
            .unwrap();
        for partial in [
            Partial::default(),
            Partial::at_least(["t1"]),
            Partial::default().up_to(u64::MAX),
            Partial::default().pool(u64::MAX),
            Partial::at_least(["*"]),
        ] {
            let error = cache.lease([model.on(&*gpu).partial(partial)]).unwrap_err();
            println!("{error}");
            assert_eq!(cache.usage_of(&*gpu).unwrap().used_bytes, 0, "{error}");
            assert_eq!(cache.usage().used_bytes, 0, "{error}");
        }
        let error = cache.lease([model.on(&*gpu)]).unwrap_err();
        println!("{error}");
    }
}
