//! Profiles that cannot be tried: said before anything runs.

use std::process::Command;

use crate::world::{World, finish};

#[test]
fn an_allocator_that_is_not_there_is_named() {
    let world = World::new();
    let words = ["compare", "--profile", "jemalloc-background-1s", "--"];
    let mut command = world.command(words.into_iter().chain(["sh", "-c", "echo ran > ran"]));
    command.env("PLIMSOLL_JEMALLOC", "/nowhere/libjemalloc.so.2");
    finish(&mut command)
        .ends(2)
        .tells(&["PLIMSOLL_JEMALLOC", "/nowhere/libjemalloc.so.2"]);
    assert!(!world.path("ran").exists());
}

#[test]
fn a_static_program_is_not_reached_by_a_preload() {
    let world = World::new();
    world.write("ran.c", "int main(void) { return 0; }\n");
    let built = Command::new("cc")
        .args(["-static", "-o", "ran", "ran.c"])
        .current_dir(world.path("."))
        .output();
    if !built.is_ok_and(|built| built.status.success()) {
        eprintln!("skipped: no static program can be built here");
        return;
    }
    // Any library will do for the one that is preloaded: it is never loaded.
    let library = shared_library();
    for line in [
        "compare --profile glibc-default --profile jemalloc-background-1s",
        "check --baseline memory.json --update --profile jemalloc-background-1s",
    ] {
        let mut command = world.command(line.split(' ').chain(["--", "./ran"]));
        command.env("PLIMSOLL_JEMALLOC", &library);
        finish(&mut command)
            .ends(2)
            .tells(&["jemalloc-background-1s", "ran", "static"]);
    }
}

/// Where the C library of this process is.
fn shared_library() -> String {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let libc = maps.lines().find(|line| line.contains("libc.so"));
    libc.unwrap().split_whitespace().last().unwrap().to_owned()
}

#[test]
fn what_only_runs_of_the_cache_do_is_said() {
    let world = World::new();
    world
        .run("compare --profile tcmalloc-default --synthetic six", &[])
        .ends(2)
        .tells(&["tcmalloc-default"]);
}
