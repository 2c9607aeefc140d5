//! `plimsoll run` over a file system that fails. `/dev/fuse` and the right to mount are needed.

#[path = "../../cache/tests/fuse/server.rs"]
mod server;

use server::{Broken, Mount, Served};

use crate::world::{World, text};

/// A model of 600 kB of which the last third cannot be read.
fn mounted(world: &World) -> Option<Mount> {
    let folder = world.models(&[("m", 600_000)]);
    Mount::new(Served {
        bytes: std::fs::read(folder.join("m.safetensors")).unwrap(),
        broken: Some((400_000, Broken::Fails)),
        has_statfs: true,
    })
}

/// The exit code of a run with these options besides, and all that it said.
fn run(world: &World, mount: &Mount, options: &[&str]) -> (Option<i32>, String) {
    let path = mount.file();
    let models = ["run", "--models", path.to_str().unwrap(), "--steps", "2"];
    let output = world.run(&[&models[..], &["--touch", "checksum"], options].concat());
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(!said.contains("panicked"), "{said}");
    (output.status.code(), said)
}

#[test]
fn weights_that_cannot_be_read_fail_the_run_under_every_storage() {
    let world = World::new();
    let Some(mount) = mounted(&world) else { return };
    let path = mount.file().display().to_string();
    for storage in ["heap", "anonymous", "mapped"] {
        let (code, said) = run(&world, &mount, &["--storage", storage]);
        assert_eq!(code, Some(1), "{said}");
        let error = format!("cannot read {path} at byte ");
        assert!(
            said.contains(&error) && said.contains("os error 5"),
            "{said}"
        );
        if storage == "mapped" {
            assert!(said.contains("file system of type fuse"), "{said}");
        }
    }
}

#[test]
fn a_run_over_weights_that_became_zeros_fails_and_gives_no_checksum_of_them() {
    let world = World::new();
    let Some(mount) = mounted(&world) else { return };
    let options = ["--storage", "mapped", "--mapped-anywhere"];
    let (code, said) = run(&world, &mount, &options);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("cannot be trusted"), "{said}");
    assert!(!said.contains("nothing was ever loaded"), "{said}");
    assert!(!said.contains("over all weights read"), "{said}");
}
