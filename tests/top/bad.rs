//! Bad input: what is said, with which numbers, and that nothing hangs.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::world::{World, text};

/// The recording that is kept, line by line.
fn lines(world: &World) -> Vec<String> {
    let whole = std::fs::read_to_string(world.recording()).unwrap();
    whole.lines().map(|line| format!("{line}\n")).collect()
}

#[test]
fn what_is_no_recording_is_refused_with_its_path() {
    let world = World::new();
    let line = "{\"v\":99,\"seq\":0,\"at_us\":0,\"event\":\"opened\"}\n";
    for (name, bytes, says) in [
        ("notes.txt", b"dear diary\n".as_slice(), "line 1"),
        ("empty.jsonl", b"", "empty"),
        ("newer.jsonl", line.as_bytes(), "version 99"),
        ("binary.bin", &[0xff; 4096], "no whole event in 4096 bytes"),
        ("half.jsonl", &lines(&world)[0].as_bytes()[..200], "200"),
    ] {
        std::fs::write(world.path(name), bytes).unwrap();
        for once in [vec![], vec!["--json"]] {
            let mut arguments = vec!["top", name, "--once"];
            arguments.extend(once);
            let said = world.refused(&arguments);
            assert!(said.contains(name) && said.contains(says), "{name}: {said}");
        }
    }
    for (path, says) in [
        ("/nonexistent/trace.jsonl", "No such file"),
        ("/dev/zero", "/dev/zero"),
        ("run", "run"),
        ("no-such-process", "no-such-process"),
        ("4194305", "4194305"),
    ] {
        let said = world.refused(["top", path, "--once"]);
        assert!(said.contains(path) && said.contains(says), "{path}: {said}");
    }
}

#[test]
fn a_fifo_that_nobody_writes_is_refused_and_not_waited_for() {
    let world = World::new();
    let path = world.path("pipe.jsonl");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).unwrap();
    let said = world.refused(["top", "pipe.jsonl", "--once"]);
    assert!(said.contains("pipe.jsonl"), "{said}");
}

#[test]
fn broken_lines_are_told_with_their_places_and_the_rest_is_shown() {
    let world = World::new();
    let mut broken = lines(&world);
    broken.insert(40, "{\"v\":2,\"seq\":\n".to_owned());
    std::fs::write(world.path("broken.jsonl"), broken.concat()).unwrap();
    let whole = lines(&world).concat();
    std::fs::write(world.path("cut.jsonl"), &whole[..whole.len() - 300]).unwrap();

    for (name, place) in [("broken.jsonl", "line 41"), ("cut.jsonl", "cut off")] {
        let output = world.run(&["top", name, "--once", "--keys", "5"]);
        let (frame, said) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(place), "{said}");
        assert!(
            frame.contains("5 MODELS") && frame.contains("m5"),
            "{frame}"
        );
    }
    // On the screen too, and again where it was left.
    let mut top = world.top(&["broken.jsonl", "--at", "1h"], (80, 24));
    top.wait_text("11.8/11.8 s");
    top.send("q");
    assert_eq!(top.wait().code(), Some(2));
    assert!(top.text().contains("line 41"), "{}", top.text());
}

#[test]
fn names_of_any_bytes_are_shown_escaped() {
    let world = World::new();
    let name = OsStr::from_bytes(b"tr\xffa\x1b[31mce.jsonl");
    std::fs::copy(world.recording(), world.path("").join(name)).unwrap();
    let top = OsStr::new("top");
    let output = world
        .command([top, name, OsStr::new("--once")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let frame = text(&output.stdout);
    assert!(
        !frame.contains('\x1b') && frame.contains("5 MODELS"),
        "{frame}"
    );

    let missing = OsStr::from_bytes(b"/no\xff\x1b[31m/trace.jsonl");
    let said = world.refused([top, missing, OsStr::new("--once")]);
    assert!(
        !said.contains('\x1b') && said.contains("trace.jsonl"),
        "{said}"
    );
}

#[test]
fn a_clock_that_jumps_shows_the_latest_moment_and_goes_on() {
    let world = World::new();
    let jumping: String = lines(&world)
        .iter()
        .enumerate()
        .map(|(at, line)| {
            let (before, after) = line.split_once("\"at_us\":").unwrap();
            let (number, rest) = after.split_at(after.find(',').unwrap());
            let number = match at {
                30 => u64::MAX - 5,
                50 => 0,
                _ => number.parse().unwrap(),
            };
            format!("{before}\"at_us\":{number}{rest}")
        })
        .collect();
    std::fs::write(world.path("jumps.jsonl"), jumping).unwrap();
    for at in ["0s", "5s", "1000000h"] {
        let output = world.run(&["top", "jumps.jsonl", "--once", "--at", at]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(text(&output.stdout).contains("5 MODELS"));
    }
    let seen = world.json(&["top", "jumps.jsonl", "--once", "--json"]);
    assert_eq!(seen["sums"]["evictions"], 25);
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let world = World::new();
    let recording = world.recording();
    std::fs::write(world.path("bad.toml"), "theme = \"pink\"\n").unwrap();
    let me = std::process::id().to_string();
    for (arguments, says) in [
        (
            vec!["top", recording, "--once", "--keys", "6 flop"],
            "`flop` is no key",
        ),
        (vec!["top", recording, "--keys", "6"], "--once"),
        (vec!["top", recording, "--json"], "--once"),
        (
            vec!["top", recording, "--once", "--config", "bad.toml"],
            "bad.toml: there is no theme `pink`",
        ),
        (
            vec!["top", recording, "--once", "--config", "none.toml"],
            "none.toml",
        ),
        (
            vec!["top", recording, "--once", "--config", "/dev/null/x"],
            "/dev/null/x",
        ),
        (
            vec!["top", recording, "--once", "--at", "5"],
            "`5` is no moment",
        ),
        (vec!["top", recording, "--once", "--at", "-1s"], "--at"),
        (vec!["top", recording, "--speed", "0"], "0.1 to 1000"),
        (vec!["top", recording, "--speed", "NaN"], "0.1 to 1000"),
        (vec!["top", recording, "--interval", "1ms"], "100ms to 60s"),
        (vec!["top", &me, "--once", "--at", "5s"], "for recordings"),
        (vec!["top", &me, "--once", "--speed", "2"], "for recordings"),
        (
            vec!["top", &me, "--once", "--record", recording],
            "never overwritten",
        ),
    ] {
        let said = world.refused(&arguments);
        assert!(said.contains(says), "{arguments:?}: {said}");
    }
}
