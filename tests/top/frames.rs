//! Text frames of every view, kept: of a recording at a moment, so that they are the same anywhere.

use std::fmt::Write;

use crate::world::{World, text};

/// A moment with models in both tiers, and one after the refusal.
const BUSY: &str = "5.08s";
const REFUSED: &str = "5.6s";

/// What is shown, at which moment, and the keys that lead there.
const FRAMES: &[(&str, &str, &str)] = &[
    ("all panels", BUSY, ""),
    ("verdict", REFUSED, "0 e"),
    ("headroom", BUSY, "1 e"),
    ("timeline", BUSY, "2 e + + +"),
    ("allocator", BUSY, "3 e"),
    ("heap map", BUSY, "4 e right down"),
    ("models", BUSY, "5 e down"),
    ("decisions", REFUSED, "6 e down"),
    ("a model", BUSY, "5 down enter"),
    ("an eviction", BUSY, "6 down enter"),
    ("a refusal", REFUSED, "6 o o o enter"),
    ("what changed since the mark", BUSY, "m } d"),
    ("filtered", BUSY, "5 / m 3 enter"),
    ("help", BUSY, "?"),
    ("the end", "1h", ""),
];

fn frames(size: (u16, u16), locale: &str) {
    let world = World::new();
    // Its path is on the screen.
    std::fs::copy(world.recording(), world.path("serve.jsonl")).unwrap();
    let mut all = String::new();
    for (what, at, keys) in FRAMES {
        let output = world
            .command(["top", "serve.jsonl", "--once", "--at", at, "--keys", keys])
            .env("LANG", locale)
            .env("COLUMNS", size.0.to_string())
            .env("LINES", size.1.to_string())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        let frame = text(&output.stdout);
        assert_eq!(frame.lines().count(), usize::from(size.1), "{what}");
        if locale == "C" {
            assert!(frame.is_ascii(), "{what}:\n{frame}");
        }
        writeln!(all, "== {what}: --at {at} --keys '{keys}'\n{frame}").unwrap();
    }
    let name = format!("{}x{}-{}", size.0, size.1, locale.to_lowercase());
    insta::with_settings!({prepend_module_to_snapshot => false, omit_expression => true}, {
        insta::assert_snapshot!(name, all);
    });
}

#[test]
fn frames_of_80_by_24() {
    frames((80, 24), "C.UTF-8");
    frames((80, 24), "C");
}

#[test]
fn frames_of_120_by_36() {
    frames((120, 36), "C.UTF-8");
    frames((120, 36), "C");
}

#[test]
fn frames_of_200_by_60() {
    frames((200, 60), "C.UTF-8");
    frames((200, 60), "C");
}
