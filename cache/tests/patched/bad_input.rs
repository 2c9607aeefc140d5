//! Patches that do not fit, say impossible things, vanish or change, and strengths of every kind.

use std::path::Path;

use plimsoll_cache::patch::Patch;
use plimsoll_cache::{Cache, Cpu, Error, LoadError, Model, Storage};
use safetensors::Dtype;
use tempfile::TempDir;

use super::files::{File, KOHYA, PEFT, encode, folder, says};
use super::support::MIB;

const NAME: &str = "lin.weight";

fn base(folder: &TempDir, dtype: Dtype) -> Model {
    File::new()
        .with(NAME, dtype, &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
        .with("lin.bias", dtype, &[2], &[7.0, 8.0])
        .model(folder, "base")
}

/// Adds 1 to the first row, and 2 to the second.
fn lora() -> File {
    File::new()
        .with("lin.lora_A.weight", Dtype::F32, &[1, 3], &[1.0; 3])
        .with("lin.lora_B.weight", Dtype::F32, &[2, 1], &[1.0, 2.0])
}

fn cache(storage: Storage) -> Cache {
    Cache::builder().ram(MIB).storage(storage).build().unwrap()
}

#[track_caller]
fn counts_nothing(cache: &Cache) {
    let usage = cache.usage();
    assert_eq!((usage.used_bytes, usage.pinned_bytes), (0, 0));
}

#[test]
fn a_patch_for_another_model_is_refused_before_anything_is_loaded() {
    let folder = folder();
    let model = base(&folder, Dtype::F32);
    let cache = cache(Storage::Anonymous);
    let other = File::new()
        .pair("lora_unet_elsewhere", KOHYA, &[2, 3], &[2, 2])
        .patch(&folder, "other");
    let wide = File::new()
        .pair("lin", PEFT, &[2, 4], &[2, 2])
        .patch(&folder, "wide");
    for patch in [&other, &wide] {
        for strength in [1.0, 0.0, -1.0] {
            for wanted in [
                model.on(Cpu).with(patch, strength),
                model.on(Cpu).with(patch, strength).lenient(),
                model.on(Cpu).with(patch, strength).beside(),
            ] {
                let error = cache.lease([wanted]).unwrap_err();
                assert!(matches!(error, Error::Fit(_)), "{error}");
                let name = patch.model().name();
                says(&error.to_string(), &[name, "base"]);
                counts_nothing(&cache);
            }
        }
    }
    // One that is left out has to fit all the same, whichever others act.
    let good = lora().patch(&folder, "good");
    for _ in 0..2 {
        let wanted = model.on(Cpu).with(&good, 1.0).with(&other, 0.0);
        let error = cache.lease([wanted]).unwrap_err();
        assert!(matches!(error, Error::Fit(_)), "{error}");
        drop(cache.lease([model.on(Cpu).with(&good, 1.0)]).unwrap());
    }
}

#[test]
fn lenient_takes_what_fits_and_lists_the_rest() {
    let folder = folder();
    let model = base(&folder, Dtype::F32);
    let cache = cache(Storage::Anonymous);
    let patch = lora()
        .pair("elsewhere", PEFT, &[1, 3], &[2, 1])
        .patch(&folder, "half");
    let strict = cache.lease([model.on(Cpu).with(&patch, 1.0)]).unwrap_err();
    assert!(matches!(strict, Error::Fit(_)), "{strict}");
    says(&strict.to_string(), &["elsewhere"]);
    for wanted in [
        model.on(Cpu).with(&patch, 1.0).lenient().merged(),
        model.on(Cpu).with(&patch, 1.0).lenient().beside(),
    ] {
        let lease = cache.lease([wanted]).unwrap();
        let leased = lease.get(&model).unwrap();
        let unmatched: Vec<_> = leased.unmatched().collect();
        let [(name, parts)] = unmatched[..] else {
            panic!("{unmatched:?}");
        };
        assert_eq!((name, parts.len()), ("half", 1));
        assert!(parts[0].key.contains("elsewhere"), "{:?}", parts[0]);
        match leased.is_merged() {
            Some(true) => assert_eq!(leased.patched_bytes(), 24),
            merged => {
                assert_eq!(merged, Some(false));
                assert_eq!(leased.patched_bytes(), 12 + 8, "without what fits nothing");
                assert_eq!(leased.beside(NAME).unwrap().len(), 1);
            }
        }
    }
}

#[test]
fn ranks_that_disagree_are_no_patch() {
    lora()
        .and(File::new())
        .with("b.lora_A.weight", Dtype::F32, &[2, 3], &[0.0; 6])
        .with("b.lora_B.weight", Dtype::F32, &[2, 3], &[0.0; 6])
        .refused(&["b", "rank"]);
}

#[test]
fn an_alpha_that_is_no_number_is_refused_before_anything_is_loaded() {
    let folder = folder();
    let model = base(&folder, Dtype::F32);
    let cache = cache(Storage::Anonymous);
    for alpha in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let patch = File::new()
            .with(
                "lora_unet_lin.lora_down.weight",
                Dtype::F32,
                &[1, 3],
                &[1.0; 3],
            )
            .with(
                "lora_unet_lin.lora_up.weight",
                Dtype::F32,
                &[2, 1],
                &[1.0; 2],
            )
            .with("lora_unet_lin.alpha", Dtype::F32, &[], &[alpha])
            .patch(&folder, &format!("alpha{alpha}"));
        for wanted in [
            model.on(Cpu).with(&patch, 1.0),
            model.on(Cpu).with(&patch, 1.0).merged(),
            model.on(Cpu).with(&patch, 1.0).beside(),
        ] {
            let error = cache.lease([wanted]).unwrap_err();
            assert!(matches!(error, Error::Patch(_)), "{error}");
            says(&error.to_string(), &["lora_unet_lin.alpha"]);
            counts_nothing(&cache);
        }
    }
}

#[test]
fn a_strength_that_is_no_number_is_refused_alone_and_with_the_patchs_own_scale() {
    let folder = folder();
    let model = base(&folder, Dtype::F32);
    let cache = cache(Storage::Anonymous);
    let patch = File::new()
        .with(
            "lora_unet_lin.lora_down.weight",
            Dtype::F32,
            &[1, 3],
            &[1.0; 3],
        )
        .with(
            "lora_unet_lin.lora_up.weight",
            Dtype::F32,
            &[2, 1],
            &[1.0; 2],
        )
        .with("lora_unet_lin.alpha", Dtype::F32, &[], &[64.0])
        .patch(&folder, "scaled");
    for strength in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e308, -1e308] {
        for wanted in [
            model.on(Cpu).with(&patch, strength),
            model
                .on(Cpu)
                .with(&patch, 0.5)
                .with(&patch, strength)
                .merged(),
            model.on(Cpu).with(&patch, strength).beside(),
        ] {
            let error = cache.lease([wanted]).unwrap_err();
            assert!(matches!(error, Error::Strength { .. }), "{error}");
            says(&error.to_string(), &["scaled", "not finite"]);
            counts_nothing(&cache);
        }
    }
}

#[test]
fn strength_0_is_the_model_as_it_is_and_counts_nothing_besides() {
    let folder = folder();
    let model = base(&folder, Dtype::F16);
    let patch = lora().patch(&folder, "lora");
    let cache = cache(Storage::Anonymous);
    for wanted in [
        model.on(Cpu).with(&patch, 0.0),
        model.on(Cpu).with(&patch, -0.0).merged(),
        model.on(Cpu).with(&patch, 0.0).with(&patch, 0.0).beside(),
    ] {
        let lease = cache.lease([wanted]).unwrap();
        let leased = lease.get(&model).unwrap();
        assert_eq!(leased.is_merged(), None);
        assert_eq!(leased.patched_bytes(), 0);
        assert!(leased.beside(NAME).unwrap().is_empty());
        let file = encode(Dtype::F16, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert!(*leased.bytes(NAME).unwrap() == file[..]);
        let usage = cache.usage();
        assert_eq!(usage.used_bytes, Storage::Anonymous.charge(&model));
        assert_eq!(usage.resident_models, 1);
    }
}

#[test]
fn what_is_added_and_taken_away_is_the_model_again() {
    let folder = folder();
    let model = base(&folder, Dtype::F32);
    let patch = lora().patch(&folder, "lora");
    let cache = cache(Storage::Anonymous);
    let bytes = |strengths: &[f64]| {
        let wanted = strengths.iter().fold(model.on(Cpu).merged(), |wanted, by| {
            wanted.with(&patch, *by)
        });
        let lease = cache.lease([wanted]).unwrap();
        lease.get(&model).unwrap().bytes(NAME).unwrap().to_vec()
    };
    assert_eq!(bytes(&[0.5, -0.5]), bytes(&[0.0]));
    assert_eq!(bytes(&[0.5, 0.5]), bytes(&[1.0]));
    assert_eq!(
        bytes(&[-1.0]),
        encode(Dtype::F32, &[0.0, 1.0, 2.0, 2.0, 3.0, 4.0])
    );
}

/// The same patch again is a hit, where its file has gone and it is there.
fn again(cache: &Cache, model: &Model, patch: &Patch) -> Result<(), Error> {
    let merged = cache.lease([model.on(Cpu).with(patch, 1.0).merged()]);
    merged.map(drop)
}

type Harm = fn(&Path);

const HARMS: [(&str, Harm); 4] = [
    ("vanished", |path| std::fs::remove_file(path).unwrap()),
    ("cut", |path| {
        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(file.metadata().unwrap().len() - 5).unwrap();
    }),
    ("replaced", |path| {
        let new = path.with_extension("new");
        std::fs::copy(path, &new).unwrap();
        std::fs::rename(new, path).unwrap();
    }),
    ("written to", |path| {
        let mut bytes = std::fs::read(path).unwrap();
        *bytes.last_mut().unwrap() ^= 0x40;
        std::thread::sleep(std::time::Duration::from_millis(20));
        std::fs::write(path, bytes).unwrap();
    }),
];

#[test]
fn a_patch_that_is_no_longer_what_was_opened_is_refused_and_nothing_counts() {
    for storage in [Storage::Heap, Storage::Anonymous, Storage::Mapped] {
        for (what, harm) in HARMS {
            for beside in [false, true] {
                let folder = folder();
                let model = base(&folder, Dtype::F32);
                let path = lora().save(folder.path(), "lora");
                let patch = Patch::open(&path).unwrap();
                let cache = cache(storage);
                let wanted = || {
                    let wanted = model.on(Cpu).with(&patch, 1.0);
                    if beside { wanted.beside() } else { wanted }
                };
                // Between two loads: what is there stays what it was.
                let lease = cache.lease([wanted()]).unwrap();
                harm(&path);
                drop(cache.lease([wanted()]).unwrap());
                drop(lease);
                assert!(cache.clear().leased.is_empty());
                let error = cache.lease([wanted()]).unwrap_err();
                assert!(matches!(error, Error::Load(_)), "{what}: {error}");
                says(&error.to_string(), &["lora.safetensors"]);
                assert_eq!(cache.usage().pinned_bytes, 0);
                cache.clear();
                counts_nothing(&cache);
                // The base is as it was.
                drop(cache.lease([&model]).unwrap());
            }
        }
    }
}

#[test]
fn a_patch_that_is_gone_before_it_was_ever_loaded_is_refused() {
    for (what, harm) in HARMS {
        let folder = folder();
        let model = base(&folder, Dtype::F32);
        let path = lora().save(folder.path(), "lora");
        let patch = Patch::open(&path).unwrap();
        let cache = cache(Storage::Anonymous);
        harm(&path);
        let error = cache.lease([model.on(Cpu).with(&patch, 1.0)]).unwrap_err();
        says(&error.to_string(), &["lora.safetensors"]);
        assert!(matches!(error, Error::Load(_)), "{what}: {error}");
        counts_nothing(&cache);
    }
}

#[test]
fn a_base_that_changed_is_refused_with_its_patches() {
    for storage in [Storage::Heap, Storage::Anonymous, Storage::Mapped] {
        let folder = folder();
        let model = base(&folder, Dtype::F32);
        let patch = lora().patch(&folder, "lora");
        let cache = cache(storage);
        drop(cache.lease([model.on(Cpu).with(&patch, 1.0)]).unwrap());
        HARMS[2].1(&model.files()[0].path);
        cache.clear();
        let error = again(&cache, &model, &patch).unwrap_err();
        assert!(matches!(error, Error::Load(_)), "{error}");
        says(&error.to_string(), &["base.safetensors"]);
        counts_nothing(&cache);
        let new = Model::open(&*model.files()[0].path).unwrap();
        again(&cache, &new, &patch).unwrap();
    }
}

#[test]
fn a_change_beyond_the_type_of_the_weights_is_an_error_with_a_way_out() {
    let folder = folder();
    let model = base(&folder, Dtype::F16);
    let patch = lora().patch(&folder, "lora");
    let cache = cache(Storage::Anonymous);
    for wanted in [
        model.on(Cpu).with(&patch, 1e6),
        model.on(Cpu).with(&patch, 1e6).merged(),
    ] {
        let error = cache.lease([wanted]).unwrap_err();
        let Error::Load(error) = error else {
            panic!("{error}");
        };
        assert!(matches!(*error, LoadError::Merge { .. }), "{error}");
        says(
            &error.to_string(),
            &[NAME, "F16", "smaller strengths", "beside"],
        );
        assert_eq!(cache.usage().pinned_bytes, 0);
        cache.clear();
        counts_nothing(&cache);
    }
    // As it says.
    drop(
        cache
            .lease([model.on(Cpu).with(&patch, 1e6).beside()])
            .unwrap(),
    );
}
