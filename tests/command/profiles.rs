//! Profiles, applied to the command itself.

use std::path::Path;

use crate::world::{World, text};

fn grade(world: &World, profile: &str, knob: &str) -> String {
    let proof = world.json(&["snapshot", "--profile", profile, "--json"]);
    let settings = &proof["snapshot"]["settings"];
    settings[knob]["grade"]
        .as_str()
        .unwrap_or("absent")
        .to_owned()
}

#[test]
fn a_knob_is_probed_read_back_or_said_to_be_unverified() {
    let world = World::new();
    assert_eq!(grade(&world, "glibc-mmap-128k", "mmap_threshold"), "probed");
    assert_eq!(grade(&world, "glibc-mmap-1m", "mmap_threshold"), "probed");
    assert_eq!(
        grade(&world, "jemalloc-background-1s", "background_thread"),
        "verified"
    );
    assert_eq!(
        grade(&world, "jemalloc-decay-0", "dirty_decay_ms"),
        "verified"
    );
    std::fs::write(
        world.path("mine.toml"),
        "name = 'mine'\nwhy = 'w'\nallocator = 'glibc'\n[knobs]\ntrim_threshold = '1MiB'\ntcache_count = 0\n",
    )
    .unwrap();
    assert_eq!(grade(&world, "./mine.toml", "tcache_count"), "requested");
}

#[test]
fn the_allocator_that_serves_is_proven() {
    let world = World::new();
    for (profile, kind) in [("glibc-default", "libc"), ("jemalloc-purge", "jemalloc")] {
        let proof = world.json(&["snapshot", "--profile", profile, "--json"]);
        assert!(
            proof["allocator"]
                .as_str()
                .unwrap()
                .starts_with(if kind == "libc" { "glibc" } else { kind })
        );
        let rose = proof["in_use_rose_bytes"].as_i64().unwrap();
        assert!((31 << 20..40 << 20).contains(&rose), "{rose}");
        let glibc = proof["glibc_rose_bytes"].as_i64().unwrap();
        // Something else may be freed in between.
        assert_eq!(glibc >= 31 << 20, kind == "libc", "{glibc}");
    }
    let said = text(
        &world
            .run(&["snapshot", "--profile", "jemalloc-purge"])
            .stdout,
    );
    assert!(
        said.contains("jemalloc, as it counts itself") && said.contains("what C libraries hold")
    );
}

#[test]
fn inherited_settings_do_not_leak_into_a_profile() {
    let world = World::new();
    let output = world
        .command(["snapshot", "--profile", "glibc-mmap-1m", "--json"])
        .env("MALLOC_MMAP_THRESHOLD_", "33554432")
        .env("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=33554432")
        .env("PLIMSOLL_ALLOCATOR", "jemalloc")
        .env("_RJEM_MALLOC_CONF", "dirty_decay_ms:7")
        .output()
        .unwrap();
    let proof: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        proof["snapshot"]["settings"]["mmap_threshold"]["grade"],
        "probed"
    );
}

/// A library that bears jemalloc's names and forwards to glibc.
fn preloadable(folder: &Path) -> std::path::PathBuf {
    let source = folder.join("fake.c");
    let library = folder.join("libjemalloc.so.2");
    std::fs::write(
        &source,
        "#include <stddef.h>\n\
         extern void *__libc_malloc(size_t); extern void __libc_free(void *);\n\
         extern void *__libc_calloc(size_t, size_t); extern void *__libc_realloc(void *, size_t);\n\
         void *malloc(size_t n) { return __libc_malloc(n); }\n\
         void free(void *p) { __libc_free(p); }\n\
         void *calloc(size_t a, size_t b) { return __libc_calloc(a, b); }\n\
         void *realloc(void *p, size_t n) { return __libc_realloc(p, n); }\n\
         int mallctl(const char *n, void *o, size_t *l, void *v, size_t w) { return 2; }\n",
    )
    .unwrap();
    let built = std::process::Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&library, &source])
        .status()
        .unwrap();
    assert!(built.success());
    library
}

#[test]
fn under_a_preloaded_jemalloc_glibcs_numbers_are_unavailable_and_not_zero() {
    let world = World::new();
    let library = preloadable(&world.path(""));
    let output = world
        .command(["snapshot", "--json"])
        .env("LD_PRELOAD", &library)
        .output()
        .unwrap();
    let proof: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let allocator = &proof["snapshot"]["allocator"];
    assert!(allocator["glibc"].is_null());
    assert!(allocator["in_use"]["bytes"].is_null());
    let shown = world
        .command(["snapshot"])
        .env("LD_PRELOAD", &library)
        .output()
        .unwrap();
    let shown = text(&shown.stdout);
    let in_use = shown
        .lines()
        .find(|line| line.trim_start().starts_with("in use"))
        .unwrap();
    assert!(in_use.ends_with("n/a"), "{shown}");
    assert!(proof["glibc_rose_bytes"].is_null());
    assert!(
        proof["allocator"].as_str().unwrap().contains("jemalloc"),
        "{}",
        proof["allocator"]
    );
}

#[test]
fn the_environment_for_a_foreign_program_works_in_one() {
    let world = World::new();
    let printed = text(&world.run(&["profiles", "env", "glibc-mmap-128k"]).stdout);
    let (name, value) = printed.trim().split_once('=').unwrap();
    // A foreign program that shows its tunables: the dynamic linker.
    let shown = std::process::Command::new("sh")
        .args(["-c", "$(ls /lib64/ld-linux-x86-64.so.2 /lib/ld-linux-*.so.* 2>/dev/null | head -1) --list-tunables"])
        .env(name, value)
        .output()
        .unwrap();
    let shown = text(&shown.stdout);
    assert!(
        shown.contains("glibc.malloc.mmap_threshold: 0x20000"),
        "{shown}"
    );
}

#[test]
fn profiles_are_listed_and_shown_as_files_that_work() {
    let world = World::new();
    let list = world.json(&["profiles", "--json"]);
    assert_eq!(list.as_array().unwrap().len(), 13);
    for profile in list.as_array().unwrap() {
        let name = profile["name"].as_str().unwrap();
        let shown = text(&world.run(&["profiles", "show", name]).stdout);
        std::fs::write(world.path("copy.toml"), shown).unwrap();
        world.json(&["profiles", "show", "./copy.toml", "--json"]);
    }
}

#[test]
fn a_profile_for_other_programs_is_refused_here() {
    let world = World::new();
    let output = world.run(&["run", "--profile", "mimalloc-default", "--synthetic", "six"]);
    assert_eq!(output.status.code(), Some(2));
    let error = text(&output.stderr);
    assert!(error.contains("other programs only"), "{error}");
}
