//! What of the CUDA benchmark needs no GPU: its shapes, its files, its arithmetic, its talk with
//! PyTorch's side where that cannot start, and, on a simulated device, what it does with the cache.

#![allow(clippy::unwrap_used)]
#![allow(dead_code, reason = "the benchmark uses the rest")]

#[path = "../../benches/cuda/cycles.rs"]
mod cycles;
#[path = "../../cache/tests/cuda/driver/mod.rs"]
mod driver;
#[path = "../../benches/cuda/files.rs"]
mod files;
mod on_a_simulated_device;
#[path = "../../benches/cuda/options.rs"]
mod options;
#[path = "../../benches/cuda/ours.rs"]
mod ours;
#[path = "../../benches/cuda/reconciled.rs"]
mod reconciled;
mod removal;
#[path = "../../benches/cuda/report.rs"]
mod report;
#[path = "../../benches/cuda/samples.rs"]
mod samples;
#[path = "../../benches/cuda/shapes.rs"]
mod shapes;
#[path = "../../benches/cuda/torch.rs"]
mod torch;

use std::collections::HashSet;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use plimsoll_cache::Model;

use files::Scratch;
use options::Options;
use samples::{Samples, Threshold};
use shapes::{Planned, Set};
use torch::{Scheme, Torch};

type Failure = Box<dyn std::error::Error>;

fn planned(name: &str) -> Planned {
    let all = Set::ALL.into_iter().flat_map(|set| set.models(false));
    all.into_iter().find(|model| model.name == name).unwrap()
}

#[test]
fn every_model_has_the_parameters_of_its_original() {
    // By the published checkpoints.
    for (name, parameters, tensors) in [
        ("unet", 2_567_463_684, 1680),
        ("clip-l", 123_060_480, 196),
        ("clip-g", 694_659_840, 517),
        ("vae", 83_653_863, 248),
        ("flux", 11_901_408_320, 1160),
        ("llama-8b", 8_030_261_248, 291),
    ] {
        let model = planned(name);
        assert_eq!(model.parameters(), parameters, "{name}");
        assert_eq!(model.tensors.len(), tensors, "{name}");
        assert_eq!(model.bytes(), 2 * parameters, "{name}");
    }
}

#[test]
fn no_model_has_a_name_twice_at_any_size() {
    for is_quick in [false, true] {
        for model in Set::ALL.into_iter().flat_map(|set| set.models(is_quick)) {
            let names: HashSet<&str> = model.tensors.iter().map(|(name, _)| &**name).collect();
            assert_eq!(names.len(), model.tensors.len(), "{}", model.name);
        }
    }
}

#[test]
fn quick_models_are_small() {
    for set in Set::ALL {
        let bytes: u64 = set.models(true).iter().map(Planned::bytes).sum();
        assert!(bytes < 600 << 20, "{}: {bytes}", set.name());
    }
}

#[test]
fn a_written_model_is_the_one_that_was_planned_and_goes_with_its_folder() {
    let within = tempfile::tempdir().unwrap();
    let scratch = Scratch::new(within.path()).unwrap();
    let planned = Planned::mlp(640, 2560, 3);
    let path = files::write(scratch.path(), &planned).unwrap();
    let model = Model::open(&path).unwrap();
    assert_eq!(model.bytes(), planned.bytes());
    assert_eq!(model.tensors().len(), planned.tensors.len());
    for (name, shape) in &planned.tensors {
        let (_, tensor) = model.tensor(name).unwrap();
        assert!(tensor.shape.iter().eq(shape), "{name}");
        assert_eq!(tensor.dtype.to_string(), "BF16");
    }
    // Every piece was written: nothing of it is a hole.
    let bytes = std::fs::read(&path).unwrap();
    let data = &bytes[bytes.len() - planned.bytes() as usize..];
    assert!(data.chunks(4096).all(|page| page.iter().any(|b| *b != 0)));
    drop(scratch);
    assert_eq!(std::fs::read_dir(within.path()).unwrap().count(), 0);
}

#[test]
fn what_a_killed_process_left_goes_and_what_a_living_one_has_stays() {
    let within = tempfile::tempdir().unwrap();
    let folder = |name: String| {
        let folder = within.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("unet.safetensors"), "bytes").unwrap();
        folder
    };
    // Beyond the largest number that a process can have.
    let left = folder(format!("plimsoll-cuda-{}", 1 << 23));
    let living = folder("plimsoll-cuda-1".to_owned());
    let another = folder("plimsoll-cuda-results".to_owned());
    let scratch = Scratch::new(within.path()).unwrap();
    assert!(!left.exists());
    assert!(living.exists() && another.exists() && scratch.path().exists());
}

#[test]
fn a_set_without_room_is_refused_with_the_numbers() {
    let within = tempfile::tempdir().unwrap();
    let error = files::require_room(within.path(), "flux", 1 << 60).unwrap_err();
    let error = error.to_string();
    for part in ["flux: ", "1.00 EiB", " free; ", "--models", "--scratch"] {
        assert!(error.contains(part), "{error}");
    }
    files::require_room(within.path(), "nothing", 0).unwrap();
    assert!(files::ram_needed(u64::MAX) == u64::MAX);
}

#[test]
fn a_median_lies_between_and_ratios_need_both() {
    let samples = |seconds: &[f64]| Samples(seconds.to_vec());
    assert_eq!(samples(&[3.0, 1.0, 2.0]).median(), Some(2.0));
    assert_eq!(samples(&[4.0, 1.0, 2.0, 3.0]).median(), Some(2.5));
    assert_eq!(samples(&[]).median(), None);
    assert_eq!(samples(&[0.25, 0.5]).shown(), ["375.00", "250.00..500.00"]);
    assert_eq!(samples(&[]).shown(), ["n/a", "n/a"]);
    let both = samples::sums(&samples(&[1.0, 2.0]), &samples(&[0.5, 0.5]));
    assert_eq!(both.0, [1.5, 2.5]);
    assert_eq!(samples::ratio(Some(1.0), None), None);
    assert_eq!(samples::ratio(Some(1.0), Some(4.0)), Some(0.25));
}

#[test]
fn thresholds_are_met_missed_or_not_known() {
    let word = |number| Threshold::at_least("it", number, 0.95).to_string();
    assert_eq!(word(Some(0.95)), "met     it: 0.950, at least 0.95");
    assert_eq!(word(Some(0.9)), "MISSED  it: 0.900, at least 0.95");
    assert_eq!(word(None), "n/a     it: n/a, at least 0.95");
    assert!(word(Some(f64::NAN)).starts_with("MISSED"));
}

#[test]
fn options_are_read_and_wrong_ones_say_how() {
    let parse = |text: &str| Options::parse(text.split_whitespace().map(str::to_owned));
    let options = parse("--bench --models sdxl,llama --rounds 3 --out a.json --quick").unwrap();
    assert_eq!(options.sets, [Set::Sdxl, Set::Llama]);
    assert_eq!((options.rounds, options.is_quick), (3, true));
    assert_eq!(parse("").unwrap().sets, Set::ALL);
    for wrong in [
        "--models sdxl,",
        "--rounds 0",
        "--device -1",
        "--out",
        "--what",
    ] {
        let error = parse(wrong).unwrap_err().to_string();
        assert!(error.contains("--scratch DIR"), "{wrong}: {error}");
    }
}

#[test]
fn without_python_there_is_a_reason() {
    let absent = Torch::start("/nowhere/python3", 0).unwrap_err();
    assert!(absent.starts_with("/nowhere/python3: "), "{absent}");
    // What ends without a word.
    let silent = Torch::start("true", 0).unwrap_err();
    assert!(silent.contains("it ended: exit status: 0"), "{silent}");
    // What says something else.
    let other = Torch::start("echo", 0).unwrap_err();
    assert!(other.contains("-u -c"), "{other}");
}

/// A python that finds this as `torch`; `None` where there is no python.
fn python_with(torch: &str) -> Option<(tempfile::TempDir, String)> {
    if Command::new("python3").arg("--version").output().is_err() {
        println!("skipped: there is no python3");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    std::fs::write(folder.path().join("torch.py"), torch).unwrap();
    let script = format!("#!/bin/sh\nPYTHONPATH={path} exec python3 \"$@\"\n");
    let python = folder.path().join("python");
    std::fs::write(&python, script).unwrap();
    std::fs::set_permissions(&python, Permissions::from_mode(0o700)).unwrap();
    let python = python.to_str().unwrap().to_owned();
    Some((folder, python))
}

#[test]
fn a_torch_that_cannot_be_imported_or_has_no_such_device_says_why() {
    let Some((_folder, python)) = python_with("raise ImportError('none')") else {
        return;
    };
    let error = Torch::start(&python, 0).unwrap_err();
    assert_eq!(error, "torch cannot be imported: none");
    let Some((_folder, python)) = python_with(STAND_IN) else {
        return;
    };
    let error = Torch::start(&python, 7).unwrap_err();
    let expected = "torch stand-in has no such device: invalid device ordinal";
    assert_eq!(error, expected);
}

/// It answers as PyTorch would.
const STAND_IN: &str = include_str!("torch.py");

#[test]
fn both_sides_understand_each_other_under_every_scheme() {
    let Some((folder, python)) = python_with(STAND_IN) else {
        return;
    };
    let planned = Planned::mlp(64, 128, 2);
    let path = files::write(folder.path(), &planned).unwrap();
    let mut torch = Torch::start(&python, 0).unwrap();
    assert_eq!(torch.about.device, "RAM");
    assert_eq!(torch.about.cuda, None);
    // Before anything is there to be loaded, and with what is not there.
    assert!(torch.round(false).unwrap_err().contains("NoneType"));
    let absent = torch.prepare(Scheme::To, &["/nowhere".into()]).unwrap_err();
    assert!(absent.contains("FileNotFoundError"), "{absent}");
    for scheme in Scheme::ALL {
        torch.prepare(scheme, std::slice::from_ref(&path)).unwrap();
        for gives_back in [false, true, false] {
            let round = torch.round(gives_back).unwrap();
            assert_eq!(round.allocated, planned.bytes(), "{scheme:?}");
            assert_eq!(round.left, 0, "{scheme:?}");
            assert!(round.load_s > 0.0 && round.unload_s > 0.0);
        }
    }
    torch.release().unwrap();
}
