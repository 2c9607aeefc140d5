//! Input and output.

use std::io::{Read, Write};
use std::process::Stdio;

use crate::world::{BOTH, World, end_of};

/// All byte values, in no order that a buffer could hide.
fn bytes(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[test]
fn ten_megabytes_go_through_unchanged() {
    let sent = bytes(10 << 20);
    for how in BOTH {
        let world = World::new(how);
        let mut cat = world.command(&["sh", "-c", "cat; printf 'a\\0\\377' >&2"]);
        cat.stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut cat = cat.spawn().unwrap();
        let mut input = cat.stdin.take().unwrap();
        let whole = sent.clone();
        let writer = std::thread::spawn(move || input.write_all(&whole).unwrap());
        let mut errors = cat.stderr.take().unwrap();
        let errors = std::thread::spawn(move || {
            let mut all = Vec::new();
            errors.read_to_end(&mut all).unwrap();
            all
        });
        let mut got = Vec::new();
        cat.stdout.take().unwrap().read_to_end(&mut got).unwrap();
        writer.join().unwrap();
        assert!(end_of(&mut cat).success(), "{how:?}");
        assert!(got == sent, "{how:?}: {} bytes came", got.len());
        assert_eq!(errors.join().unwrap(), b"a\0\xff", "{how:?}");
    }
}

#[test]
fn nothing_to_read_and_no_input_at_all_are_told_apart() {
    let seen = BOTH.map(|how| {
        let world = World::new(how);
        let script = "wc -c < /dev/stdin; wc -c; wc -c <&-";
        let mut sh = world.command(&["sh", "-c", script]);
        let output = sh.stdin(Stdio::null()).output().unwrap();
        (output.status.code(), output.stdout)
    });
    assert_eq!(seen[0], seen[1]);
}

/// Whoever reads what it prints sees the end when the program closes it, not when `exec` ends.
#[test]
fn the_end_of_its_output_comes_when_it_closes_it() {
    for how in BOTH {
        let world = World::new(how);
        let mut sh = world.command(&["sh", "-c", "exec >&-; read line; exit 4"]);
        let mut sh = sh
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut rest = Vec::new();
        sh.stdout.take().unwrap().read_to_end(&mut rest).unwrap();
        sh.stdin.take().unwrap().write_all(b"\n").unwrap();
        assert_eq!(end_of(&mut sh).code(), Some(4), "{how:?}");
    }
}
