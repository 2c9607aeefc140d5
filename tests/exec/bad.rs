//! What cannot be run.

use crate::world::{How, World};

/// The code and what is said.
fn said(world: &World, words: &[&str]) -> (Option<i32>, String) {
    let own = [env!("CARGO_BIN_EXE_plimsoll"), "exec"];
    let words = own.iter().chain(words).map(|word| (*word).to_owned());
    let output = world.plain(words).output().unwrap();
    assert!(output.stdout.is_empty());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!said.contains("panicked"), "{said}");
    (output.status.code(), said)
}

#[test]
fn each_has_the_code_and_the_words_that_say_why() {
    let world = World::new(How::Exec);
    std::fs::write(world.path("plain"), "text").unwrap();
    std::fs::write(world.path("there"), "").unwrap();
    let cases: [(&[&str], i32, &str); 11] = [
        (&["--", "no-such-command"], 127, "no-such-command"),
        (&["--", "./no-such-file"], 127, "no-such-file"),
        (&["--", ""], 127, ""),
        (&["--", "./plain"], 126, "plain"),
        (&["--", "/"], 126, "director"),
        (
            &["--profile", "no-such-profile", "--", "true"],
            125,
            "no-such-profile",
        ),
        (&["--record", "there", "--", "true"], 125, "there"),
        (
            &["-o", "no/such/folder", "--", "true"],
            125,
            "no/such/folder",
        ),
        (&["--interval", "1ms", "--", "true"], 125, "5ms"),
        (&["--for", "0s", "--", "true"], 125, "more than 0"),
        (&[], 125, "COMMAND"),
    ];
    for (words, code, why) in cases {
        let (got, said) = said(&world, words);
        assert_eq!(got, Some(code), "{words:?}: {said}");
        assert!(said.contains(why), "{words:?}: {said}");
    }
    assert_eq!(world.text("there"), "");
}

/// The C library hands a file that the kernel does not know to the shell, which may know no more.
#[test]
fn a_file_that_is_no_program_ends_as_under_other_commands_that_run_one() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new(How::Exec);
    let elf = [b"\x7fELF\x02\x01\x01".as_slice(), &[0; 57]].concat();
    std::fs::write(world.path("broken"), elf).unwrap();
    std::fs::write(world.path("orphan"), "#!/no/such/interpreter\n").unwrap();
    for name in ["broken", "orphan"] {
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(world.path(name), executable).unwrap();
        let file = format!("./{name}");
        let mut nice = world.plain(["nice", "-n", "0", &file].map(str::to_owned));
        let (got, said) = said(&world, &["--", &file]);
        assert!(said.contains(name), "{said}");
        assert_eq!(got, nice.output().unwrap().status.code(), "{said}");
    }
}
