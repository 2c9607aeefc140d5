//! Files that others change while they are mapped.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::PermissionsExt;

use std::sync::{Arc, Mutex, PoisonError};

use plimsoll_cache::device::{Device as _, Fault, Host, Simulated};
use plimsoll_cache::{Budget, Cache, Error, Lease, LoadError, Model, Storage};
use plimsoll_events::{Event, Kind, Sink, Stream};

use crate::support::{Folder, MIB, cache, until, verify};
use crate::{guarded, mapped, turn};

/// The times of files move in ticks of the kernel's clock.
fn tick() {
    std::thread::sleep(std::time::Duration::from_millis(20));
}

fn overwrite(model: &Model) {
    tick();
    let file = OpenOptions::new().write(true).open(model.path()).unwrap();
    let middle = file.metadata().unwrap().len() / 2;
    file.write_at(b"other weights", middle).unwrap();
}

fn poisoned(result: Result<(), Error>) -> String {
    match result {
        Err(error @ Error::Poisoned { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

fn is_dropped(cache: &Cache) -> bool {
    cache.usage().resident_models == 0 && cache.usage().used_bytes == 0
}

fn lease(cache: &Cache, model: &Model) -> Lease {
    let lease = cache.lease([model]).unwrap();
    verify(&lease, model);
    lease
}

#[test]
fn a_file_overwritten_under_a_lease_is_noticed_and_the_next_open_is_fresh() {
    let folder = Folder::new();
    let model = folder.model("a", 3 * MIB);
    let (cache, kept) = cache(|builder| mapped(builder.ram(8 * MIB)));
    let held = lease(&cache, &model);
    held.check().unwrap();
    overwrite(&model);
    let said = poisoned(held.check());
    assert!(said.contains("overwritten in place"), "{said}");
    drop(held);
    assert!(is_dropped(&cache), "{:?}", cache.usage());
    let noted = kept
        .kinds()
        .into_iter()
        .any(|kind| matches!(kind, Kind::Note { text } if text == said));
    assert!(noted);
    // The old handle is of a file that is no more.
    assert!(matches!(cache.lease([&model]), Err(Error::Load(_))));
    let fresh = Model::open(model.path()).unwrap();
    let fresh_lease = cache.lease([&fresh]).unwrap();
    let weights = fresh_lease.get(&fresh).unwrap();
    let found = weights.tensors().iter().any(|tensor| {
        let bytes = weights.bytes(&tensor.name).unwrap();
        bytes.windows(13).any(|part| part == b"other weights")
    });
    assert!(found, "the new bytes are there");
}

#[test]
fn a_file_overwritten_between_leases_is_noticed_at_the_next() {
    let folder = Folder::new();
    let model = folder.model("a", 3 * MIB);
    let (cache, _) = cache(|builder| mapped(builder.ram(8 * MIB)));
    drop(lease(&cache, &model));
    overwrite(&model);
    let said = cache.lease([&model]).map(drop);
    let said = poisoned(said);
    assert!(said.contains("open the model again"), "{said}");
    assert!(is_dropped(&cache), "{:?}", cache.usage());
    let fresh = Model::open(model.path()).unwrap();
    cache.lease([&fresh]).unwrap();
}

#[test]
fn a_file_replaced_by_another_leaves_the_old_lease_its_bytes() {
    let folder = Folder::new();
    let model = folder.model("a", 3 * MIB);
    let (cache, _) = cache(|builder| mapped(builder.ram(16 * MIB)));
    let old = lease(&cache, &model);
    let other = folder.model("b", 2 * MIB);
    std::fs::rename(other.path(), model.path()).unwrap();
    old.check().unwrap();
    verify(&old, &model);
    let replaced = Model::open(model.path()).unwrap().with_name("b");
    verify(&cache.lease([&replaced]).unwrap(), &replaced);
    verify(&old, &model);
    drop(old);
    // What is mapped is whole: it may be leased again, for as long as it stays.
    verify(&cache.lease([&model]).unwrap(), &model);
}

#[test]
fn another_mode_or_name_of_a_file_is_no_change_of_its_weights() {
    let folder = Folder::new();
    let model = folder.model("a", MIB);
    let (cache, _) = cache(|builder| mapped(builder.ram(8 * MIB)));
    let held = lease(&cache, &model);
    tick();
    std::fs::set_permissions(model.path(), PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::hard_link(model.path(), folder.path().join("link")).unwrap();
    held.check().unwrap();
    drop(held);
    verify(&cache.lease([&model]).unwrap(), &model);
}

#[test]
fn a_file_cut_short_poisons_its_lease_and_spares_the_process() {
    let _turn = turn();
    let folder = Folder::new();
    let (model, other) = (folder.model("a", 6 * MIB), folder.model("b", 2 * MIB));
    let (cache, _) = cache(|builder| guarded(builder.ram(16 * MIB)));
    let held = lease(&cache, &model);
    let besides = lease(&cache, &other);
    let file = OpenOptions::new().write(true).open(model.path()).unwrap();
    file.set_len(MIB).unwrap();
    let weights = held.get(&model).unwrap();
    let last = weights
        .bytes(&weights.tensors().last().unwrap().name)
        .unwrap();
    assert!(
        last.iter().all(|byte| *byte == 0),
        "missing pages are zeros"
    );
    drop(last);
    let said = poisoned(held.check());
    assert!(said.contains("cut short"), "{said}");
    verify(&besides, &other);
    besides.check().unwrap();
    drop(held);
    assert_eq!(cache.usage().resident_models, 1);
    verify(&besides, &other);
}

#[test]
fn a_file_cut_short_that_nobody_read_is_noticed_all_the_same() {
    let folder = Folder::new();
    let model = folder.model("a", 6 * MIB);
    let (cache, _) = cache(|builder| mapped(builder.ram(16 * MIB)));
    let held = cache.lease([&model]).unwrap();
    held.get(&model).unwrap();
    let file = OpenOptions::new().write(true).open(model.path()).unwrap();
    file.set_len(MIB).unwrap();
    let said = poisoned(held.check());
    assert!(said.contains("bytes"), "{said}");
}

#[test]
fn a_file_overwritten_while_its_copy_goes_to_a_device_fails_that_load() {
    let folder = Folder::new();
    let model = folder.model("a", 3 * MIB);
    let device = Arc::new(Simulated::new(8 * MIB));
    let (cache, _) = cache(|builder| {
        let budget = Budget::fixed(8 * MIB);
        mapped(builder.ram(8 * MIB)).device(Arc::clone(&device), budget)
    });
    drop(lease(&cache, &model));
    device.inject(Fault::Stuck);
    std::thread::scope(|scope| {
        let leased = scope.spawn(|| cache.lease([model.on(&device)]));
        until("the transfer is stuck", || device.stuck() == 1);
        overwrite(&model);
        device.unstick();
        match leased.join().unwrap() {
            Err(Error::Load(error)) => {
                assert!(matches!(*error, LoadError::Copy { .. }), "{error}");
                assert!(error.to_string().contains("overwritten in place"));
            }
            other => panic!("{other:?}"),
        }
    });
    let fresh = Model::open(model.path()).unwrap();
    let lease = cache.lease([fresh.on(&device)]).unwrap();
    assert_eq!(lease.get(&fresh).unwrap().tier(), device.tier());
}

#[test]
fn a_file_mapped_in_another_tier_of_host_memory_is_looked_at_too() {
    let folder = Folder::new();
    let model = folder.model("a", 3 * MIB);
    let host = Arc::new(Host::new(Storage::Mapped, 8 * MIB));
    let (cache, _) = cache(|builder| {
        let budget = Budget::fixed(8 * MIB);
        builder.ram(MIB).device(Arc::clone(&host), budget)
    });
    drop(cache.lease([model.on(&host)]).unwrap());
    overwrite(&model);
    poisoned(cache.lease([model.on(&host)]).map(drop));
    assert_eq!(cache.usage_of(&host).unwrap().used_bytes, 0);
}

/// Panics at notes.
struct Panics(Mutex<Vec<String>>);

impl Sink for Panics {
    fn event(&self, event: &Event) {
        if let Kind::Note { text } = &event.kind {
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(text.clone());
            panic!("a sink that panics");
        }
    }
}

#[test]
fn a_panic_of_who_hears_of_it_leaves_no_pin() {
    let folder = Folder::new();
    let model = folder.model("a", 3 * MIB);
    let heard = Arc::new(Panics(Mutex::default()));
    let stream = Stream::new(Arc::clone(&heard));
    let builder = mapped(Cache::builder().ram(8 * MIB)).stream(stream);
    let cache = builder.build().unwrap();
    let lease = lease(&cache, &model);
    overwrite(&model);
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(lease)));
    assert!(ended.is_err(), "the panic goes on");
    let heard = heard.0.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(heard[0].contains("overwritten in place"), "{heard:?}");
    assert!(is_dropped(&cache));
}
