//! What the benchmark does with the cache, over a simulated driver.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use plimsoll_cache::Model;
use plimsoll_cache::device::{Cuda, Device};

use crate::cycles;
use crate::driver::{Count, Simulated};
use crate::files::{self, Scratch};
use crate::ours::{Ours, free, ways};
use crate::reconciled;
use crate::report::Report;
use crate::shapes::Planned;

struct Setting {
    simulated: Simulated,
    gpu: Arc<Cuda>,
    models: Vec<Model>,
    _folder: (Scratch, tempfile::TempDir),
}

fn setting() -> Setting {
    let within = tempfile::tempdir().unwrap();
    let scratch = Scratch::new(within.path()).unwrap();
    let plans = [Planned::mlp(192, 640, 3), Planned::mlp(256, 1024, 2)];
    let models = (0..).zip(&plans).map(|(number, planned)| {
        let folder = scratch.path().join(format!("{number}"));
        std::fs::create_dir(&folder).unwrap();
        let path = files::write(&folder, planned).unwrap();
        Model::open(path).unwrap().with_name(format!("m{number}"))
    });
    let models = models.collect();
    let simulated = Simulated::new();
    let gpu = Arc::new(simulated.device(64 << 20).unwrap());
    Setting {
        simulated,
        gpu,
        models,
        _folder: (scratch, within),
    }
}

#[test]
fn every_way_brings_the_files_bytes_and_gives_all_memory_back() {
    let setting = setting();
    let before = free(&setting.gpu).unwrap();
    let bytes: u64 = setting.models.iter().map(Model::bytes).sum();
    for way in ways().into_iter().flatten() {
        let ours = Ours::new(&setting.gpu, &setting.models, way).unwrap();
        for _ in 0..3 {
            let (lease, _) = ours.load().unwrap();
            assert!(before - free(&setting.gpu).unwrap() >= bytes, "{way}");
            ours.verify(&lease).unwrap();
            ours.unload(lease).unwrap();
            assert_eq!(free(&setting.gpu), Some(before), "{way}");
        }
    }
    assert_eq!(setting.simulated.count(Count::Violations), 0);
}

#[test]
fn verifying_tells_bytes_that_are_not_the_files() {
    let setting = setting();
    let way = ways().into_iter().flatten().last().unwrap();
    let ours = Ours::new(&setting.gpu, &setting.models, way).unwrap();
    let (lease, _) = ours.load().unwrap();
    let model = &setting.models[1];
    let tensor = model.tensors().last().unwrap();
    let file = OpenOptions::new().write(true).open(model.path()).unwrap();
    let changed = file.metadata().unwrap().modified().unwrap();
    let bytes = vec![0; tensor.bytes as usize];
    file.write_all_at(&bytes, tensor.offset).unwrap();
    // Otherwise the file itself would be refused.
    file.set_modified(changed).unwrap();
    let error = ours.verify(&lease).unwrap_err().to_string();
    assert_eq!(error, format!("{} of m1 is another there", tensor.name));
}

#[test]
fn a_model_that_is_leased_elsewhere_is_no_unload() {
    let setting = setting();
    let way = ways().into_iter().flatten().next().unwrap();
    let ours = Ours::new(&setting.gpu, &setting.models, way).unwrap();
    let (lease, _) = ours.load().unwrap();
    let (held, _) = ours.load().unwrap();
    let error = ours.unload(lease).unwrap_err().to_string();
    assert_eq!(error, "m0 stays on the device");
    ours.unload(held).unwrap();
}

#[test]
fn cycles_leave_nothing_on_the_device() {
    let setting = setting();
    let mut report = Report::new(None);
    cycles::measure(&mut report, &setting.gpu, &setting.models, 20).unwrap();
    let of_the_device = ["free on the device", "pool, reserved", "staging"];
    for what in of_the_device {
        let found = report.thresholds.iter().find(|t| t.what.contains(what));
        let found = found.unwrap();
        assert_eq!(found.is_met, Some(true), "{found}");
    }
}

#[test]
fn the_rows_of_the_reconciliation_add_up_to_the_drivers_total() {
    let setting = setting();
    setting.simulated.elsewhere(5 << 20);
    let way = ways().into_iter().flatten().next().unwrap();
    let ours = Ours::new(&setting.gpu, &setting.models, way).unwrap();
    let (lease, _) = ours.load().unwrap();
    let held = lease.get_on(&setting.models[0], &*setting.gpu).unwrap();
    let charge: u64 = setting.models.iter().map(|m| setting.gpu.charge(m)).sum();
    let name = &setting.models[0].tensors()[0].name;
    let tensor = held.tensor(name).unwrap();
    let mut report = Report::new(Some(setting.models[0].path().with_extension("json")));
    reconciled::measure(&mut report, &setting.gpu, &setting.models).unwrap();
    report.save().unwrap();
    drop(tensor);
    ours.unload(lease).unwrap();
    for what in ["the rows", "weights counted"] {
        let found = report.thresholds.iter().find(|t| t.what.contains(what));
        let found = found.unwrap();
        assert_eq!(found.is_met, Some(true), "{found}");
        assert!(found.numbers.starts_with("0 bytes"), "{found}");
    }
    let json = std::fs::read(setting.models[0].path().with_extension("json")).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let row = |what: &str| json["reconciled"][what]["bytes"].as_u64();
    let others = row("context and other processes").or(row("other processes"));
    assert!(others.unwrap() >= 5 << 20);
    let weights = ["weights of m0", "weights of m1"].map(|what| row(what).unwrap());
    assert_eq!(weights.iter().sum::<u64>(), charge);
    assert_eq!(json["thresholds"].as_array().unwrap().len(), 3);
}
