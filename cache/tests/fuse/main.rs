//! Files on a file system that fails: reads that err, files that end before their end, and a server
//! that goes away while its file is mapped. `/dev/fuse` and the right to mount are needed.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod server;
#[path = "../support/mod.rs"]
mod support;

use std::fmt::Debug;
use std::sync::{Mutex, Once};

use plimsoll_cache::{Cache, Error, Lease, Mapping, Model, Storage};
use server::{Broken, Mount, Served};
use support::{Folder, MIB, cache, content, verify};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};

#[global_allocator]
static ALLOCATOR: plimsoll_profiles::Selected = plimsoll_profiles::Selected;

const TENSOR: usize = 256 << 10;
/// A page inside the second tensor: the header and the first are sound.
const BROKEN: usize = TENSOR + (64 << 10);

/// A model of two tensors, `t0` and `t1`, whose header fills a page.
fn bytes() -> Vec<u8> {
    let end = 2 * TENSOR;
    let mut header = format!(
        r#"{{"t0":{{"dtype":"U8","shape":[{TENSOR}],"data_offsets":[0,{TENSOR}]}},"t1":{{"dtype":"U8","shape":[{TENSOR}],"data_offsets":[{TENSOR},{end}]}}}}"#
    );
    header += &" ".repeat(4096 - 8 - header.len());
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    (0..2).for_each(|index| bytes.extend(content("m", index, TENSOR)));
    bytes
}

fn served(broken: Option<Broken>) -> Served {
    Served {
        bytes: bytes(),
        broken: broken.map(|how| (BROKEN, how)),
        has_statfs: true,
    }
}

fn stored(storage: Storage, anywhere: bool) -> Cache {
    let mapping = Mapping {
        anywhere,
        guard: true,
        ..Mapping::default()
    };
    cache(|builder| builder.ram(8 * MIB).storage(storage).mapping(mapping)).0
}

/// That another model is as it should be, and that nothing is left of the one that failed.
fn is_usable(cache: &Cache, other: &Model) {
    verify(&cache.lease([other]).unwrap(), other);
    assert!(cache.evict(other));
    assert_eq!(cache.usage().used_bytes, 0);
}

/// Keeps what is said of storage.
struct Said;

static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());

impl tracing::Subscriber for Said {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::INFO
    }

    fn event(&self, event: &tracing::Event<'_>) {
        struct Line(String);
        impl Visit for Line {
            fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
                self.0 += &format!("{}={value:?} ", field.name());
            }
        }
        let mut line = Line(String::new());
        event.record(&mut line);
        SAID.lock().unwrap().push(line.0);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing::subscriber::set_global_default(Said).unwrap());
}

/// What was said of the storage of a model that only one test has.
fn said_of(model: &Model) -> String {
    let said = SAID.lock().unwrap().clone();
    let name = format!("model={} ", model.name());
    let line = said.iter().find(|line| line.contains(&name));
    line.unwrap_or_else(|| panic!("{said:?}")).clone()
}

fn is_sound(lease: &Lease, model: &Model, tensor: u64) {
    let bytes = lease
        .get(model)
        .unwrap()
        .bytes(&format!("t{tensor}"))
        .unwrap();
    assert!(*bytes == content("m", tensor, TENSOR)[..], "t{tensor}");
}

fn poisoned(lease: &Lease, words: &[&str]) {
    let error = lease.check().expect_err("it is not what was mapped");
    assert!(matches!(error, Error::Poisoned { .. }), "{error:?}");
    let said = error.to_string();
    for word in words {
        assert!(said.contains(word), "{word}: {said}");
    }
}

#[test]
fn weights_that_cannot_be_read_fail_their_lease_alone() {
    let folder = Folder::new();
    let other = folder.model("other", MIB);
    for (broken, word) in [
        (Broken::Fails, "Input/output error (os error 5)"),
        (Broken::Ends, "bytes early"),
    ] {
        let Some(mount) = Mount::new(served(Some(broken))) else {
            return;
        };
        let model = Model::open(mount.file()).expect("its header is sound");
        // Mapped storage goes to `anonymous` here.
        for storage in [Storage::Heap, Storage::Anonymous, Storage::Mapped] {
            let cache = stored(storage, false);
            for _ in 0..3 {
                let said = cache.lease([&model]).unwrap_err().to_string();
                let path = mount.file().display().to_string();
                assert!(
                    said.contains(&path) && said.contains(word),
                    "{storage}: {said}"
                );
                is_usable(&cache, &other);
            }
        }
    }
}

#[test]
fn a_file_on_a_network_file_system_is_not_mapped_unless_that_is_asked_for() {
    listen();
    let Some(mount) = Mount::new(served(None)) else {
        return;
    };
    let model = Model::open(mount.file()).unwrap().with_name("told");
    let lease = stored(Storage::Mapped, false).lease([&model]).unwrap();
    is_sound(&lease, &model, 0);
    is_sound(&lease, &model, 1);
    let said = said_of(&model);
    assert!(said.contains("storage=anonymous"), "{said}");
    assert!(said.contains("file system of type fuse"), "{said}");
}

#[test]
fn a_file_system_that_does_not_tell_its_type_counts_as_a_network_one() {
    listen();
    let mount = Mount::new(Served {
        has_statfs: false,
        ..served(None)
    });
    let Some(mount) = mount else { return };
    let model = Model::open(mount.file()).unwrap().with_name("untold");
    let lease = stored(Storage::Mapped, false).lease([&model]).unwrap();
    is_sound(&lease, &model, 1);
    let said = said_of(&model);
    assert!(said.contains("storage=anonymous"), "{said}");
    assert!(said.contains("does not tell its type"), "{said}");
}

#[test]
fn mapped_pages_that_cannot_be_read_are_zeros_and_poison_the_lease() {
    let folder = Folder::new();
    let other = folder.model("other", MIB);
    let Some(mount) = Mount::new(served(Some(Broken::Fails))) else {
        return;
    };
    let model = Model::open(mount.file()).unwrap();
    let cache = stored(Storage::Mapped, true);
    let lease = cache.lease([&model, &other]).unwrap();
    is_sound(&lease, &model, 0);
    lease.check().unwrap();
    let weights = lease.get(&model).unwrap();
    let second = weights.bytes("t1").unwrap();
    let sound = BROKEN - TENSOR - 4096;
    assert!(second[..sound] == content("m", 1, TENSOR)[..sound]);
    assert!(second[sound..].iter().all(|byte| *byte == 0));
    drop(second);
    let path = mount.file().display().to_string();
    poisoned(&lease, &[&path, &format!("byte {BROKEN}"), "zeros"]);
    verify(&lease, &other);
    drop(lease);
    assert_eq!(cache.usage().resident_models, 1, "the other one");
    is_usable(&cache, &other);
}

#[test]
fn a_server_that_goes_away_under_a_lease_poisons_it_and_spares_the_process() {
    let folder = Folder::new();
    let other = folder.model("other", MIB);
    let Some(mut mount) = Mount::new(served(None)) else {
        return;
    };
    let model = Model::open(mount.file()).unwrap();
    let cache = stored(Storage::Mapped, true);
    let lease = cache.lease([&model, &other]).unwrap();
    is_sound(&lease, &model, 0);
    lease.check().unwrap();
    mount.abort();
    let weights = lease.get(&model).unwrap();
    let second = weights.bytes("t1").unwrap();
    // The kernel may have read ahead of the first.
    let is_zero = |page: &[u8]| page.iter().all(|byte| *byte == 0);
    assert!(is_zero(&second[TENSOR - 4096..]));
    drop(second);
    is_sound(&lease, &model, 0);
    let path = mount.file().display().to_string();
    poisoned(&lease, &[&path, "not connected", "read as zeros"]);
    verify(&lease, &other);
    drop(lease);
    let again = cache.lease([&model]).unwrap_err().to_string();
    assert!(
        again.contains(&path) && again.contains("os error"),
        "{again}"
    );
    is_usable(&cache, &other);
}

#[test]
fn headers_that_cannot_be_read_or_end_while_they_are_read_are_refused_in_every_format() {
    let gguf = [&b"GGUF\x03\0\0\0"[..], &[1; 16], &[0; 200 << 10]].concat();
    let torch = [&b"PK\x03\x04"[..], &[0; 200 << 10]].concat();
    for bytes in [bytes(), gguf, torch] {
        for (how, word) in [
            (Broken::Fails, "Input/output error (os error 5)"),
            (Broken::Ends, "download it again"),
        ] {
            let mount = Mount::new(Served {
                bytes: bytes.clone(),
                broken: Some((20, how)),
                has_statfs: true,
            });
            let Some(mount) = mount else { return };
            let said = Model::open(mount.file()).unwrap_err().to_string();
            let path = mount.file().display().to_string();
            assert!(said.contains(&path) && said.contains(word), "{said}");
        }
    }
}
