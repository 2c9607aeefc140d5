//! Bad input: a clear error with path and numbers, exit code 2, nothing written.

use std::path::Path;

use crate::world::World;

/// A file with this header length and content.
fn file(world: &World, length: u64, rest: &[u8]) -> String {
    let folder = world.path("bad");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("m.safetensors");
    std::fs::write(&path, [&length.to_le_bytes()[..], rest].concat()).unwrap();
    folder.to_str().unwrap().to_owned()
}

fn header(world: &World, header: &str, data: usize) -> String {
    let rest = [header.as_bytes(), &vec![0; data]].concat();
    file(world, header.len() as u64, &rest)
}

/// Both commands that open models refuse the folder and name the file; no recording is begun.
fn refused(world: &World, folder: &str, words: &[&str]) {
    let said = world.refused(&["run", "--models", folder, "--record", "never.jsonl"]);
    assert!(
        !Path::new(&world.path("never.jsonl")).exists(),
        "something was written"
    );
    for word in words {
        assert!(said.contains(word), "`{word}` is not in: {said}");
    }
    let scanned = world.run(&["scan", folder]);
    assert_eq!(scanned.status.code(), Some(2), "scan {folder}");
}

#[test]
fn folders_that_are_absent_or_without_models() {
    let world = World::new();
    refused(&world, "no-such-folder", &["no-such-folder"]);
    std::fs::create_dir(world.path("empty")).unwrap();
    refused(&world, "empty", &["empty", "no models"]);
    std::fs::write(world.path("empty/m.gguf"), "GGUF").unwrap();
    refused(&world, "empty", &["m.gguf", "GGUF"]);
}

#[test]
fn headers_that_lie_about_their_length() {
    let world = World::new();
    let folder = world.path("bad");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("m.safetensors"), "").unwrap();
    refused(&world, "bad", &["m.safetensors"]);
    let folder = file(&world, 1000, b"{}");
    refused(&world, &folder, &["m.safetensors", "1000"]);
    let folder = file(&world, 1 << 60, b"{}");
    refused(&world, &folder, &["m.safetensors", "1152921504606846976"]);
}

#[test]
fn headers_that_are_no_json_or_too_much_of_it() {
    let world = World::new();
    let folder = header(&world, "{\"a\":", 0);
    refused(&world, &folder, &["m.safetensors"]);
    let folder = header(&world, &"[".repeat(100_000), 0);
    refused(&world, &folder, &["m.safetensors"]);
    let folder = file(&world, 99_999_000, &vec![b'{'; 99_999_000]);
    refused(&world, &folder, &["m.safetensors"]);
}

#[test]
fn tensors_that_do_not_fit_their_file() {
    let world = World::new();
    let tensor = |shape: &str, begin: u64, end: u64| {
        format!("{{\"dtype\":\"U8\",\"shape\":{shape},\"data_offsets\":[{begin},{end}]}}")
    };
    let cases = [
        // Overlapping, with a gap, outside, of another size, overflowing, twice, reversed.
        (
            format!(
                "{{\"a\":{},\"b\":{}}}",
                tensor("[8]", 0, 8),
                tensor("[8]", 4, 12)
            ),
            12,
        ),
        (
            format!(
                "{{\"a\":{},\"b\":{}}}",
                tensor("[8]", 0, 8),
                tensor("[8]", 12, 20)
            ),
            20,
        ),
        (format!("{{\"a\":{}}}", tensor("[800]", 0, 800)), 8),
        (format!("{{\"a\":{}}}", tensor("[7]", 0, 8)), 8),
        (
            format!("{{\"a\":{}}}", tensor("[4294967296,4294967296,16]", 0, 8)),
            8,
        ),
        (
            format!(
                "{{\"a\":{},\"a\":{}}}",
                tensor("[4]", 0, 4),
                tensor("[4]", 4, 8)
            ),
            8,
        ),
        (format!("{{\"a\":{}}}", tensor("[8]", 8, 0)), 8),
    ];
    for (text, data) in cases {
        let folder = header(&world, &text, data);
        refused(&world, &folder, &["m.safetensors"]);
    }
}

#[test]
fn an_index_that_names_what_is_not_there_or_must_not_be() {
    let world = World::new();
    let folder = world.path("sharded");
    std::fs::create_dir_all(&folder).unwrap();
    for (shard, word) in [
        ("gone.safetensors", "gone.safetensors"),
        ("../../etc/passwd", "../../etc/passwd"),
    ] {
        std::fs::write(
            folder.join("m.safetensors.index.json"),
            format!("{{\"weight_map\":{{\"a\":\"{shard}\"}}}}"),
        )
        .unwrap();
        refused(&world, "sharded", &[word]);
    }
}

#[test]
fn a_file_cut_short() {
    let world = World::new();
    let folder = world.models(&[("m", 10_000)]);
    let path = folder.join("m.safetensors");
    std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(5_000)
        .unwrap();
    refused(
        &world,
        folder.to_str().unwrap(),
        &["m.safetensors", "6666", "4728", "cut off"],
    );
}

#[test]
fn profiles_and_knobs_that_do_not_exist() {
    let world = World::new();
    let said = world.refused(&["run", "--profile", "glibc-defualt"]);
    assert!(said.contains("`glibc-default`"), "{said}");
    let knob = "name = 'x'\nwhy = 'x'\nallocator = 'jemalloc'\n[knobs]\ndirty_decay = 1\n";
    std::fs::write(world.path("x.toml"), knob).unwrap();
    let said = world.refused(&["run", "--profile", "x.toml"]);
    assert!(
        said.contains("x.toml") && said.contains("dirty_decay_ms"),
        "{said}"
    );
}

#[test]
fn workloads_that_make_no_sense() {
    let world = World::new();
    let folder = world.models(&[("m", 1000)]);
    let folder = folder.to_str().unwrap();
    for (line, word) in [
        ("{\"lease\":[\"nobody\"]}", "no model `nobody`"),
        ("{\"lease\":[]}", "names no model"),
        ("{\"lease\":[\"m\"],\"on\":\"gpu\"}", "gpu"),
        ("{\"lease\":[\"m\"],\"hold\":1}", "hold"),
        ("nonsense", "no JSON object"),
        ("[[\"m\"],\"cpu\",0,0]", "no JSON object"),
        ("\u{feff}{\"lease\":[\"m\"]}", "byte order mark"),
    ] {
        std::fs::write(
            world.path("w.jsonl"),
            format!("{{\"lease\":[\"m\"]}}\n\n{line}\n"),
        )
        .unwrap();
        let said = world.refused(&[
            "run",
            "--models",
            folder,
            "--workload",
            "w.jsonl",
            "--record",
            "r",
        ]);
        assert!(
            said.contains("w.jsonl, line 3") && said.contains(word),
            "{said}"
        );
        assert!(!world.path("r").exists());
    }
    assert!(
        world
            .refused(&["run", "--models", folder, "--workload", "cyclik"])
            .contains("cyclik")
    );
    assert!(
        world
            .refused(&["run", "--models", folder, "--workload", "./none"])
            .contains("./none")
    );
}

#[test]
fn numbers_that_are_none() {
    let world = World::new();
    for arguments in [
        ["run", "--ram", "lots"],
        ["run", "--ram=-1", "--json"],
        ["run", "--ram", "99999999TB"],
        ["run", "--scale", "NaN"],
        ["run", "--scale", "0"],
        ["run", "--steps", "0"],
        ["run", "--settle=-1", "--json"],
        ["run", "--settle", "inf"],
        ["run", "--synthetic", "none"],
        ["run", "--storage", "cloud"],
    ] {
        let said = world.refused(&arguments);
        assert!(
            said.contains(
                arguments[1]
                    .trim_start_matches('-')
                    .split('=')
                    .next()
                    .unwrap()
            ),
            "{arguments:?}: {said}"
        );
    }
    assert!(!world.path("cache").exists(), "nothing was made");
}

#[test]
fn names_from_files_cannot_move_the_cursor() {
    let world = World::new();
    let folder = world.models(&[("m", 1000)]);
    std::fs::rename(
        folder.join("m.safetensors"),
        folder.join("a\x1b[2Jb.safetensors"),
    )
    .unwrap();
    for arguments in [&["run", "--models", "models"][..], &["scan", "models"]] {
        let output = world.run(arguments);
        assert!(output.status.success());
        assert!(!output.stdout.contains(&0x1b), "{arguments:?}");
    }
}

#[test]
fn a_recording_that_cannot_be_begun_makes_no_models_either() {
    let world = World::new();
    let said = world.refused(&["run", "--scale", "0.02", "--record", "none/x.jsonl"]);
    assert!(said.contains("none/x.jsonl"), "{said}");
    assert!(!world.path("cache").exists(), "models were made");
    let said = world.refused(&["run", "--scale", "0.02", "--record", "/dev/null"]);
    assert!(said.contains("name a new file"), "{said}");
}

#[test]
fn arguments_cannot_move_the_cursor() {
    let world = World::new();
    for arguments in [
        ["replay", "\x1b[31mX"],
        ["scan", "\x1b[31mX"],
        ["run", "--workload=./\x1b[31mX"],
        ["run", "--record=/none/\x1b[31mX"],
        ["run", "--profile=./\x1b[31mX"],
    ] {
        let output = world.run(&arguments);
        assert!(!output.stderr.contains(&0x1b), "{arguments:?}");
        assert_eq!(output.status.code(), Some(2));
    }
}

#[test]
fn a_full_device_in_place_of_output_is_an_error_and_no_panic() {
    let world = World::new();
    let full = || {
        std::fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap()
    };
    let output = world.command(["profiles"]).stdout(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("standard output"), "{said}");
    let output = world
        .command(["scan", "/none"])
        .stderr(full())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn options_of_another_storage_say_which() {
    let world = World::new();
    for (options, wanted) in [
        (&["--advise", "populate"][..], "mapped"),
        (&["--page-cache", "drop"], "mapped"),
        (&["--mapped-anywhere", "--storage", "heap"], "mapped"),
        (&["--huge-pages", "--storage", "mapped"], "anonymous"),
    ] {
        let said = world.refused(&[&["run"], options].concat());
        let expected = format!("it is for --storage {wanted}");
        assert!(said.contains(&expected), "{said}");
        assert!(said.contains(options[0]), "{said}");
    }
}
