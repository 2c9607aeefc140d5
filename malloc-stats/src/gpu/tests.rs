//! What NVML may do, against a driver that is simulated: a libnvidia-ml.so.1 compiled on the spot.

use std::path::Path;
use std::process::Command;

use super::nvml::{self, normalised};
use super::{GpuProcess, Vram};
use crate::metric::Metric;

#[path = "../../tests/own_process/mod.rs"]
mod own_process;

const GIB: u64 = 1 << 30;
const SOURCE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/fixtures/nvml/simulated.rs"
);
/// Where the file is that the driver reads at every call.
const ASKED: &str = "SIMULATED_NVML";
/// What every function of a driver may return, and what it says of that.
const CODES: [(u32, &str); 4] = [
    (3, "Not Supported (simulated)"),
    (4, "Insufficient Permissions (simulated)"),
    (15, "GPU is lost (simulated)"),
    (999, "Unknown Error (simulated)"),
];

/// Runs `fact` in a process of its own, where the driver is the simulated one and does as `asked`
/// says; prints why that is skipped where there is no compiler.
fn with_driver(name: &str, asked: &str, fact: impl FnOnce()) {
    if std::env::var_os(ASKED).is_some() {
        return own_process::in_own_process(name, &[], fact);
    }
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("libnvidia-ml.so.1");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut compiler = Command::new(rustc);
    compiler
        .args(["--edition", "2024", "--crate-type", "cdylib", "-o"])
        .args([library.as_os_str(), SOURCE.as_ref()]);
    match compiler.output() {
        Err(error) => return println!("skipped: rustc cannot be run: {error}"),
        Ok(output) if !output.status.success() => {
            panic!("{}", String::from_utf8_lossy(&output.stderr))
        }
        Ok(_) => {}
    }
    let file = folder.path().join("asked");
    std::fs::write(&file, asked).unwrap();
    let environment = [
        ("LD_LIBRARY_PATH", folder.path().to_str().unwrap()),
        (ASKED, file.to_str().unwrap()),
    ];
    own_process::in_own_process(name, &environment, fact);
}

/// What the driver does from now on.
fn ask(asked: &str) {
    let file = std::env::var_os(ASKED).unwrap();
    std::fs::write(Path::new(&file), asked).unwrap();
}

/// The first or second GPU when nothing fails.
fn simulated(index: u32, process: Metric) -> Vram {
    let gib = |count: u64| Metric::Exact(count * GIB * u64::from(index + 1));
    Vram {
        index,
        name: format!("simulated GPU {}", index + 1),
        pci_bus: format!("000{index}:{:02x}:00.0", 0xaf + index),
        uuid: format!("GPU-simulated-{}", index + 1),
        mig: false,
        total: gib(80),
        used: gib(9),
        free: gib(70),
        reserved: gib(1),
        process,
        absent: None,
    }
}

/// The same when it tells nothing but what it is.
fn absent(index: u32, words: &str) -> Vram {
    let of = simulated(index, Metric::Unavailable);
    Vram {
        index,
        name: of.name,
        pci_bus: of.pci_bus,
        uuid: of.uuid,
        absent: Some(words.to_owned()),
        ..Vram::default()
    }
}

#[test]
fn two_gpus_are_told_of_with_what_each_process_uses() {
    let name = "gpu::tests::two_gpus_are_told_of_with_what_each_process_uses";
    with_driver(name, "", || {
        let own = std::process::id();
        let of = |pid| nvml::read(Some(pid)).unwrap();
        let both = |one, two| vec![simulated(0, one), simulated(1, two)];
        let none = Metric::Exact(0);
        assert_eq!(of(own), (both(none, none), None));
        assert_eq!(nvml::processes().unwrap(), []);

        // One in both lists, of which one has the whole; and one that is told without a number.
        ask(&format!(
            "compute 0 {own} 4096\ngraphics 0 {own} 9000\ncompute 0 7 100\ncompute 1 7 -\n"
        ));
        assert_eq!(of(own), (both(Metric::Exact(9000), none), None));
        let (vram, untold) = of(7);
        assert_eq!(vram, both(Metric::Exact(100), Metric::Unavailable));
        let untold = untold.unwrap();
        assert!(
            untold.contains("GPU 1") && untold.contains("without a number"),
            "{untold}"
        );
        let process = |pid, index, used| GpuProcess { pid, index, used };
        let mut all = nvml::processes().unwrap();
        all.sort_by_key(|one| (one.index, one.pid));
        let mut first = [
            process(own, 0, Metric::Exact(9000)),
            process(7, 0, Metric::Exact(100)),
        ];
        first.sort_by_key(|one| one.pid);
        assert_eq!(all[..2], first);
        assert_eq!(all[2..], [process(7, 1, Metric::Unavailable)]);

        // All of it adds up, and reads back from JSON.
        for vram in of(own).0 {
            assert_eq!(vram.used.plus(vram.reserved).plus(vram.free), vram.total);
            let json = serde_json::to_string(&vram).unwrap();
            assert_eq!(serde_json::from_str::<Vram>(&json).unwrap(), vram);
        }

        // Nobody was asked for.
        let (vram, untold) = nvml::read(None).unwrap();
        assert_eq!(vram, both(Metric::Unavailable, Metric::Unavailable));
        assert_eq!(untold, None);
    });
}

#[test]
fn what_a_gpu_does_not_say_of_itself_is_empty_until_it_does() {
    let name = "gpu::tests::what_a_gpu_does_not_say_of_itself_is_empty_until_it_does";
    with_driver(name, "", || {
        let read = || nvml::read(Some(1)).unwrap();
        for (code, _) in CODES {
            for function in [
                "nvmlDeviceGetName",
                "nvmlDeviceGetPciInfo_v3",
                "nvmlDeviceGetUUID",
            ] {
                ask(&format!("fail {function} {code}\n"));
                let mut expected = simulated(0, Metric::Exact(0));
                match function {
                    "nvmlDeviceGetName" => expected.name.clear(),
                    "nvmlDeviceGetUUID" => expected.uuid.clear(),
                    _ => expected.pci_bus.clear(),
                }
                let (vram, untold) = read();
                assert_eq!((&vram[0], untold), (&expected, None), "{function} {code}");
            }
        }
        ask("");
        assert_eq!(read().0[0], simulated(0, Metric::Exact(0)));
    });
}

#[test]
fn each_call_that_fails_leaves_a_word_and_the_rest() {
    let name = "gpu::tests::each_call_that_fails_leaves_a_word_and_the_rest";
    with_driver(name, "", || {
        let own = std::process::id();
        for (code, words) in CODES {
            let fail = |function: &str| {
                ask(&format!("compute 0 {own} 4096\nfail {function} {code}\n"));
                nvml::read(Some(own))
            };
            assert!(!fail("nvmlDeviceGetMigMode").unwrap().0[0].mig);
            assert!(nvml::processes().is_ok());

            // It said what it is when it could.
            ask("");
            nvml::read(None).unwrap();
            let (vram, untold) = fail("nvmlDeviceGetMemoryInfo_v2").unwrap();
            assert_eq!(vram, [absent(0, words), absent(1, words)]);
            assert_eq!(untold, None);

            let (vram, untold) = fail("nvmlDeviceGetHandleByIndex_v2").unwrap();
            assert_eq!(vram, [absent(0, words), absent(1, words)]);
            assert_eq!(untold, None);
            assert_eq!(nvml::processes().unwrap(), []);

            for function in [
                "nvmlDeviceGetComputeRunningProcesses_v3",
                "nvmlDeviceGetGraphicsRunningProcesses_v3",
            ] {
                let (vram, untold) = fail(function).unwrap();
                let expected = [0, 1].map(|index| simulated(index, Metric::Unavailable));
                assert_eq!(vram, expected, "{function} {code}");
                let untold = untold.unwrap();
                assert!(untold.contains(words), "{untold}");
                match nvml::processes() {
                    // Nothing runs on what is lost.
                    Ok(all) => assert_eq!((all, code), (Vec::new(), 15)),
                    Err(why) => assert!(why.contains(words) && code != 15, "{why}"),
                }
            }

            let why = fail("nvmlDeviceGetCount_v2").unwrap_err();
            assert!(why.contains(words), "{why}");
            assert!(fail("nvmlSystemGetDriverVersion").is_ok());
        }
        // An error that the driver has no words for still has some.
        ask("fail nvmlDeviceGetMemoryInfo_v2 12345\n");
        let (vram, _) = nvml::read(None).unwrap();
        let words = vram[0].absent.as_deref().unwrap();
        assert!(words.contains("12345"), "{words}");
    });
}

#[test]
fn a_driver_that_refuses_at_the_start_says_why() {
    let name = "gpu::tests::a_driver_that_refuses_at_the_start_says_why";
    // Once for each process, since it is asked once.
    for (code, _) in CODES {
        with_driver(name, &format!("fail nvmlInit_v2 {code}\n"), || {
            let why = nvml::read(Some(1)).unwrap_err();
            assert!(why.starts_with("NVML could not be initialised: "), "{why}");
            assert_eq!(nvml::processes().unwrap_err(), why);
            assert_eq!(super::read().unwrap_err(), why);
        });
    }
}

#[test]
fn a_gpu_that_is_lost_stays_in_the_list_with_its_name() {
    let name = "gpu::tests::a_gpu_that_is_lost_stays_in_the_list_with_its_name";
    with_driver(name, "", || {
        let none = Metric::Exact(0);
        let read = || nvml::read(Some(1)).unwrap();
        assert_eq!(read().0, [simulated(0, none), simulated(1, none)]);
        ask("lost 1\ncompute 0 1 4096\n");
        let lost = absent(1, "GPU is lost (simulated)");
        let first = simulated(0, Metric::Exact(4096));
        assert_eq!(read(), (vec![first, lost.clone()], None));
        assert_eq!(nvml::processes().unwrap().len(), 1);
        let json = serde_json::to_string(&lost).unwrap();
        assert!(json.contains("absent") && !json.contains("total"), "{json}");
        assert_eq!(serde_json::from_str::<Vram>(&json).unwrap(), lost);
        // Back after a reset.
        ask("");
        assert_eq!(read().0, [simulated(0, none), simulated(1, none)]);
    });
}

#[test]
fn a_gpu_that_was_lost_from_the_start_has_but_its_number() {
    let name = "gpu::tests::a_gpu_that_was_lost_from_the_start_has_but_its_number";
    with_driver(name, "lost 0\n", || {
        let (vram, untold) = nvml::read(Some(1)).unwrap();
        let lost = Vram {
            absent: Some("GPU is lost (simulated)".to_owned()),
            ..Vram::default()
        };
        assert_eq!(vram, [lost, simulated(1, Metric::Exact(0))]);
        assert_eq!(untold, None);
    });
}

#[test]
fn a_partitioned_gpu_says_so_and_a_count_beyond_reason_ends() {
    let name = "gpu::tests::a_partitioned_gpu_says_so_and_a_count_beyond_reason_ends";
    with_driver(name, "mig 1\n", || {
        let mig = |vram: &[Vram]| -> Vec<bool> { vram.iter().map(|gpu| gpu.mig).collect() };
        assert_eq!(mig(&nvml::read(None).unwrap().0), [false, true]);
        ask("count 4294967295\n");
        let (vram, _) = nvml::read(None).unwrap();
        assert_eq!(vram.len(), 256);
        assert!(vram[2..].iter().all(|gpu| gpu.absent.is_some()));
        ask("count 0\n");
        assert_eq!(nvml::read(Some(1)).unwrap(), (Vec::new(), None));
    });
}

#[test]
fn a_bus_is_written_as_the_kernel_does() {
    for (nvml, kernel) in [
        ("00000000:65:00.0", "0000:65:00.0"),
        ("00000000:AF:00.0", "0000:af:00.0"),
        ("0001:00:1E.0", "0001:00:1e.0"),
        ("00010A3B:00:00.0", "10a3b:00:00.0"),
        ("", ""),
        ("65", "65"),
    ] {
        assert_eq!(normalised(nvml), kernel);
    }
}

#[test]
fn what_was_written_before_reads_still() {
    let old = r#"{"index":1,"name":"A100","total":{"bytes":8,"grade":"exact"}}"#;
    let read: Vram = serde_json::from_str(old).unwrap();
    let expected = Vram {
        index: 1,
        name: "A100".to_owned(),
        total: Metric::Exact(8),
        ..Vram::default()
    };
    assert_eq!(read, expected);
    // And nothing is written of what is not there.
    assert_eq!(serde_json::to_string(&read).unwrap(), old);
}
